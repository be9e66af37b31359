//! Slots for subjects: whom a tenant's limits count beside the tenant, such as its users. However many are made up, their records are
//! bounded in number.
//!
//! A tenant has a table for each kind of subject, which says who has which of its slots. A slot is its tenant's for good, so that no
//! tenant's subjects displace another's, and is given to another subject only when nothing is in it that counts. Subjects are known by a
//! hash with a secret of the process: nobody can make up one that is taken for another.
//!
//! | at | length | what |
//! |---|---|---|
//! | each | 8 | hash of the subject |
//! | | 4 | second from which on the slot may be free; the largest number for never |

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

/// Tables of all tenants together that are not configured.
const STRANGERS_TABLES: u64 = 64;

/// Where it is counted how many slots there are.
pub const COUNT_KEY: &str = "bursar/v1/subjects";

/// Has a slot without a subject.
const NOBODY: SubjectId = SubjectId(0);

/// A subject's id, hashed. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubjectId(pub u64);

impl SubjectId {
    /// The id of what a request shows.
    #[must_use]
    pub fn of(SlotSeed(seed): SlotSeed, shown: &[u8]) -> Self {
        let mut hasher = StableHasher::new_with_key(&seed);
        shown.hash(&mut hasher);
        Self(hasher.finish().max(1))
    }

    /// The same name in a table that tenants share, distinct from other tenants' subjects of that name.
    fn among(self, SlotSeed(seed): SlotSeed, tenant: &TenantId) -> Self {
        let mut hasher = StableHasher::new_with_key(&seed);
        (tenant.as_str(), self.0).hash(&mut hasher);
        Self(hasher.finish().max(1))
    }
}

/// The table of a tenant's subjects of one kind, and a subject's name in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The prefix that the keys of the table share.
    of: String,
    /// The subject's name.
    pub subject: SubjectId,
    /// The tenant is configured, and the table its own.
    pub configured: bool,
}

impl Seat {
    /// That of a subject of this kind.
    #[must_use]
    pub fn of(
        seed: SlotSeed,
        (tenant, configured): (&TenantId, bool),
        kind: &Name,
        subject: SubjectId,
    ) -> Self {
        // Kinds have no slash in their names.
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

    /// The key that all share for whom there is no slot.
    #[must_use]
    pub fn overflow(&self) -> String {
        format!("bursar/v1/s/overflow/{}", self.of)
    }
}

/// Who has which slot. Kept as its bytes: most of the time one subject is looked for, and nothing changed.
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

    /// The slot that has been free for longest, as far as the table knows.
    #[must_use]
    pub fn seems_free(&self, now: Timestamp) -> Option<usize> {
        let all = self.0.iter().enumerate();
        let free = all.filter(|(_, slot)| u64::from(busy_until(slot)) <= now.as_secs());
        let first = free.min_by_key(|(_, slot)| busy_until(slot));
        first.map(|(place, _)| place)
    }

    /// Whether it may have another slot.
    #[must_use]
    pub fn can_grow(&self) -> bool {
        self.0.len() < SUBJECTS
    }

    /// Gives a slot, one of its own or the next one, to a subject.
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

    /// Marks a slot as taken until then.
    pub fn is_busy(&mut self, place: usize, until: Timestamp) {
        if let Some([.., a, b, c, d]) = self.0.get_mut(place) {
            [*a, *b, *c, *d] = seconds(until).to_le_bytes();
        }
    }

    /// How many slots it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.0.as_flattened().to_vec()
    }

    /// Reads it back.
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
