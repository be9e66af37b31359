//! Slots for subjects: those whom a tenant's limits count besides the tenant, such as its users. The number of subjects' records is
//! bounded, however many ids a client makes up.
//!
//! A tenant has a table for each kind of subject, which assigns slots to subjects. A slot belongs to its tenant for good, so that no
//! tenant's subjects displace another's. A slot is given to another subject only when nothing in its record counts any more. Subjects are
//! identified by a hash that is keyed with a secret of the process, so nobody can make up an id that is taken for another one.
//!
//! | at | length | what |
//! |---|---|---|
//! | each | 8 | hash of the subject |
//! | | 4 | second since 1970 from which on the slot may be free; the largest number means never |

use std::hash::{Hash, Hasher};

use crate::base::bytes::Corrupt;
use crate::base::hash::StableHasher;
use crate::base::name::Name;
use crate::base::units::Timestamp;
use crate::state::slots::SlotSeed;
use crate::tenant::TenantId;

/// Most subjects of a kind that a tenant has at a time.
pub const SUBJECTS: usize = 256;

/// Most slots of subjects in a process.
pub const ALL_SUBJECTS: u32 = 65_536;

/// Tenants that are not configured get new subjects only while fewer than this exist.
pub const STRANGERS_SUBJECTS: u32 = ALL_SUBJECTS / 4;

/// How many tables all tenants that are not configured share.
const STRANGERS_TABLES: u64 = 64;

/// The key of the number of slots in the process.
pub const COUNT_KEY: &str = "bursar/v1/subjects";

/// In the table, the id of a slot that no subject has.
const NOBODY: SubjectId = SubjectId(0);

/// A subject's id, hashed. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubjectId(pub u64);

impl SubjectId {
    /// The id of the subject that a request names.
    #[must_use]
    pub fn of(SlotSeed(seed): SlotSeed, shown: &[u8]) -> Self {
        let mut hasher = StableHasher::new_with_key(&seed);
        shown.hash(&mut hasher);
        Self(hasher.finish().max(1))
    }

    /// The subject's id in a table that several tenants share. It differs from the ids of other tenants' subjects with the same name.
    fn among(self, SlotSeed(seed): SlotSeed, tenant: &TenantId) -> Self {
        let mut hasher = StableHasher::new_with_key(&seed);
        (tenant.as_str(), self.0).hash(&mut hasher);
        Self(hasher.finish().max(1))
    }
}

/// The table of a tenant's subjects of one kind, and a subject's name in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The common prefix of the keys of the table and its slots.
    of: String,
    /// The subject's name.
    pub subject: SubjectId,
    /// Whether the tenant is configured: if so, it has a table of its own; if not, it shares one with other tenants.
    pub configured: bool,
}

impl Seat {
    /// The seat of a subject of this kind.
    #[must_use]
    pub fn of(
        seed: SlotSeed,
        (tenant, configured): (&TenantId, bool),
        kind: &Name,
        subject: SubjectId,
    ) -> Self {
        // The name of a kind contains no slash.
        let (of, subject) = match configured {
            true => (format!("t/{kind}/{}", tenant.account()), subject),
            false => {
                let subject = subject.among(seed, tenant);
                let table = SubjectId::of(seed, tenant.as_str().as_bytes());
                (format!("u/{kind}/{}", table.0 % STRANGERS_TABLES), subject)
            }
        };
        Self {
            of,
            subject,
            configured,
        }
    }

    /// The key of the table.
    #[must_use]
    pub fn table(&self) -> String {
        format!("bursar/v1/s/table/{}", self.of)
    }

    /// The key of a slot.
    #[must_use]
    pub fn slot(&self, place: usize) -> String {
        format!("bursar/v1/s/{place}/{}", self.of)
    }

    /// The key that all subjects without a slot share.
    #[must_use]
    pub fn overflow(&self) -> String {
        format!("bursar/v1/s/overflow/{}", self.of)
    }
}

/// Which subject has which slot. Kept as bytes, since most of the time one subject is looked up and nothing changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table(Vec<[u8; LENGTH]>);

/// Bytes of a slot.
const LENGTH: usize = 12;

impl Table {
    /// The slot that a subject has.
    #[must_use]
    pub fn find(&self, SubjectId(subject): SubjectId) -> Option<usize> {
        let subject = subject.to_le_bytes();
        self.0.iter().position(|slot| slot.starts_with(&subject))
    }

    /// The slot that has been free for the longest time, as far as the table knows.
    #[must_use]
    pub fn seems_free(&self, now: Timestamp) -> Option<usize> {
        let all = self.0.iter().enumerate();
        let free = all.filter(|(_, slot)| u64::from(busy_until(slot)) <= now.as_secs());
        let first = free.min_by_key(|(_, slot)| busy_until(slot));
        first.map(|(place, _)| place)
    }

    /// Whether the table has room for another slot.
    #[must_use]
    pub fn can_grow(&self) -> bool {
        self.0.len() < SUBJECTS
    }

    /// Gives a slot to a subject: one of the table's, or the next new one.
    pub fn seat(&mut self, place: usize, subject: SubjectId, until: Timestamp) {
        let can_grow = self.can_grow();
        let new = slot(subject, until);
        match self.0.get_mut(place) {
            Some(seat) => *seat = new,
            None if can_grow => self.0.push(new),
            None => {}
        }
    }

    /// Takes a slot from its subject. Until `then` nobody has the slot, and it is not free.
    pub fn vacate(&mut self, place: usize, until: Timestamp) {
        if let Some(seat) = self.0.get_mut(place) {
            *seat = slot(NOBODY, until);
        }
    }

    /// Marks a slot as taken until `until`.
    pub fn is_busy(&mut self, place: usize, until: Timestamp) {
        if let Some([.., a, b, c, d]) = self.0.get_mut(place) {
            [*a, *b, *c, *d] = seconds(until).to_le_bytes();
        }
    }

    /// How many slots the table has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the table has no slots.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The table's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.0.as_flattened().to_vec()
    }

    /// Reads a table back.
    ///
    /// # Errors
    /// [`Corrupt`] for anything that [`Table::encode`] does not write.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        match bytes.as_chunks() {
            (slots, []) if slots.len() <= SUBJECTS => Ok(Self(slots.to_vec())),
            _ => Err(Corrupt(())),
        }
    }
}

fn slot(SubjectId(subject): SubjectId, until: Timestamp) -> [u8; LENGTH] {
    let [a, b, c, d, e, f, g, h] = subject.to_le_bytes();
    let [i, j, k, l] = seconds(until).to_le_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l]
}

fn busy_until([.., a, b, c, d]: &[u8; LENGTH]) -> u32 {
    u32::from_le_bytes([*a, *b, *c, *d])
}

/// Rounded up, so that nothing is free too early.
fn seconds(moment: Timestamp) -> u32 {
    let whole = moment.as_nanos().div_ceil(1_000_000_000);
    u32::try_from(whole).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const SEED: SlotSeed = SlotSeed([7; 16]);

    fn tenant(id: &str) -> TenantId {
        TenantId::parse(id.as_bytes()).unwrap()
    }

    fn seat(id: &str, configured: bool, kind: &str) -> Seat {
        let subject = SubjectId::of(SEED, b"alice");
        Seat::of(SEED, (&tenant(id), configured), &kind.into(), subject)
    }

    #[test]
    fn a_table_is_read_as_it_was_written_and_noise_is_none() {
        let mut table = Table::default();
        for n in 0..SUBJECTS {
            let subject = SubjectId::of(SEED, &n.to_le_bytes());
            table.seat(n, subject, Timestamp::from_secs(n as u64));
        }
        assert_eq!(Table::decode(&table.encode()), Ok(table.clone()));
        assert!(!table.can_grow());
        table.seat(SUBJECTS, SubjectId(5), Timestamp::MAX);
        assert_eq!(table.len(), SUBJECTS);
        let mut bytes = table.encode();
        assert!(Table::decode(&bytes[1..]).is_err());
        bytes.extend([1; 12]);
        assert!(Table::decode(&bytes).is_err());
    }

    #[test]
    fn a_slot_is_free_from_its_second_on_and_the_longest_free_one_is_taken_first() {
        let at = Timestamp::from_secs;
        let mut table = Table::default();
        table.seat(0, SubjectId(1), Timestamp::from_nanos(9_000_000_001));
        table.seat(1, SubjectId(2), at(8));
        table.seat(2, SubjectId(3), Timestamp::MAX);
        assert_eq!(table.seems_free(at(7)), None);
        assert_eq!(table.seems_free(at(8)), Some(1));
        assert_eq!(table.seems_free(at(20)), Some(1));
        table.is_busy(1, at(30));
        assert_eq!(table.seems_free(at(9)), None);
        assert_eq!(table.seems_free(at(10)), Some(0));
        assert_eq!(table.find(SubjectId(3)), Some(2));
    }

    #[test]
    fn no_two_tenants_or_kinds_share_a_key_unless_both_are_strangers() {
        let keys = |seat: &Seat| [seat.table(), seat.slot(0), seat.slot(255), seat.overflow()];
        let seats = [
            seat("acme", true, "user"),
            seat("globex", true, "user"),
            seat("acme", true, "run"),
            seat("/5", true, "user"),
            seat("acme", false, "user"),
        ];
        let mut all: Vec<_> = seats.iter().flat_map(keys).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 20);
    }

    #[test]
    fn strangers_share_a_bounded_number_of_tables_and_are_told_apart_there() {
        let tables: std::collections::HashSet<_> = (0..5_000)
            .map(|n| seat(&format!("made-up-{n}"), false, "user").table())
            .collect();
        assert_eq!(tables.len(), 64);
        let subjects: std::collections::HashSet<_> = (0..5_000)
            .map(|n| seat(&format!("made-up-{n}"), false, "user").subject.0)
            .collect();
        assert_eq!(subjects.len(), 5_000);
    }
}
