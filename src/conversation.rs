//! The tier that served each conversation last, so that the conversation stays on that tier: a bounded table under one key for each
//! configured tenant.
//!
//! A table holds the [`CONVERSATIONS`] most recent conversations in one window of the tenant's budget, at 21 bytes each: at most
//! 1,357 bytes. Tenants do not share tables, so none can displace another's conversations. A tenant with more conversations loses those
//! that were silent for longest; they are treated as new when they continue.
//!
//! Layout, little-endian, lengths in bytes:
//!
//! | at | length | what |
//! |---|---|---|
//! | 0 | 4 | `brc` and the version |
//! | 4 | 8 | start of the window |
//! | 12 | 1 | number of conversations |
//! | 13 | 21 each | its name, its last question, the tier's model, whether it was downgraded |

pub mod messages;
pub mod trim;

use crate::base::hash;
use crate::base::units::Timestamp;
use crate::calendar::window::Window;
use crate::estimate::learn::Model;
use crate::state::store::{StateFaults, Store, Write, update};

/// Conversations in a table. These are enough for a person, or for an agent with its helpers, yet reading the table costs only about as
/// much as reading the tenant's record. A service with more conversations should have several tenants, or accept that some are forgotten.
pub const CONVERSATIONS: usize = 64;

/// A conversation among the first 32 of the table is not moved to the front: each move would cost a write.
const FRESH: usize = CONVERSATIONS / 2;

/// Tries before a change is given up; then the tier of one conversation is not recorded.
const TRIES: u32 = 4;

const VERSION: [u8; 4] = *b"brc\x01";

/// The hashes that identify the conversation of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConversationId {
    /// Hash of the header's value, or of the beginning of the conversation.
    pub name: u64,
    /// Hashes of the user's last two questions, the last one first, each hashed with the answer before it; 0 if there is none.
    pub questions: [u64; 2],
}

/// Where a conversation was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// The tier, by its model.
    pub model: Model,
    /// Whether the conversation was downgraded.
    pub is_lower: bool,
}

/// A tenant's conversations, the one with the latest request first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversations {
    /// Start of the window of the budget in which these conversations took place.
    since: Timestamp,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    name: u64,
    question: u64,
    served: Served,
}

impl ConversationId {
    /// A conversation that a header names.
    #[must_use]
    pub fn of_header(value: &[u8]) -> Self {
        Self {
            name: hash::stable(("header", value)),
            questions: [0; 2],
        }
    }
}

impl Entry {
    /// Whether this entry has that name, or is continued by it: a client that leaves out the oldest turns changes the
    /// conversation's beginning, and with it the name.
    fn is(&self, name: &ConversationId) -> bool {
        self.name == name.name || self.question != 0 && name.questions.contains(&self.question)
    }
}

impl Conversations {
    /// The table in `bytes` for this window; empty if the table belongs to another window, or if the bytes are no table.
    #[must_use]
    pub fn read(bytes: Option<&[u8]>, window: Window) -> Self {
        let table = bytes.and_then(Self::decode).unwrap_or_default();
        // A worker whose clock is slightly behind must not start the previous window anew. If a table begins after the end of the window,
        // it was written before the clock was set back, and would outlast this window.
        match table.since < window.start || table.since > window.end {
            true => Self {
                since: window.start,
                entries: Vec::new(),
            },
            false => table,
        }
    }

    /// Where a conversation was served.
    #[must_use]
    pub fn find(&self, name: &ConversationId) -> Option<Served> {
        let known = self.position(name).and_then(|at| self.entries.get(at));
        known.map(|entry| entry.served)
    }

    /// Records where a conversation is served. Returns whether the table must be written.
    pub fn note(&mut self, name: &ConversationId, served: Served) -> bool {
        let entry = Entry {
            name: name.name,
            question: name.questions.first().copied().unwrap_or_default(),
            served,
        };
        let at = self.position(name);
        if let Some(at) = at {
            if at < FRESH && self.entries.get(at) == Some(&entry) {
                return false;
            }
            self.entries.remove(at);
        }
        self.entries.insert(0, entry);
        self.entries.truncate(CONVERSATIONS);
        true
    }

    /// The position of the entry with this name, or else of the one with the same last question.
    fn position(&self, name: &ConversationId) -> Option<usize> {
        let mut entries = self.entries.iter();
        let named = entries.position(|entry| entry.name == name.name);
        named.or_else(|| self.entries.iter().position(|entry| entry.is(name)))
    }

    /// The bytes of this table.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes =
            Vec::with_capacity(self.entries.len().saturating_mul(21).saturating_add(13));
        bytes.extend(VERSION);
        bytes.extend(self.since.as_nanos().to_le_bytes());
        bytes.push(u8::try_from(self.entries.len()).unwrap_or_default());
        for Entry {
            name,
            question,
            served,
        } in &self.entries
        {
            bytes.extend(name.to_le_bytes());
            bytes.extend(question.to_le_bytes());
            bytes.extend(served.model.0.to_le_bytes());
            bytes.push(served.is_lower.into());
        }
        bytes
    }

    /// Reads a table back; `None` for anything that [`Conversations::encode`] does not write.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&VERSION)?;
        let (since, rest) = rest.split_first_chunk::<8>()?;
        let (&count, rest) = rest.split_first()?;
        let (entries, []) = rest.as_chunks::<21>() else {
            return None;
        };
        let count = usize::from(count);
        (entries.len() == count && count <= CONVERSATIONS).then_some(())?;
        Some(Self {
            since: Timestamp::from_nanos(u64::from_le_bytes(*since)),
            entries: entries.iter().map(Entry::decode).collect::<Option<_>>()?,
        })
    }
}

impl Entry {
    fn decode(bytes: &[u8; 21]) -> Option<Self> {
        let (name, rest) = bytes.split_first_chunk::<8>()?;
        let (question, rest) = rest.split_first_chunk::<8>()?;
        let (model, rest) = rest.split_first_chunk::<4>()?;
        Some(Self {
            name: u64::from_le_bytes(*name),
            question: u64::from_le_bytes(*question),
            served: Served {
                model: Model(u32::from_le_bytes(*model)),
                is_lower: match rest {
                    [0] => false,
                    [1] => true,
                    _ => return None,
                },
            },
        })
    }
}

/// Where a conversation was served in this window, if the store has a record of it.
#[must_use]
pub fn look(
    store: &impl Store,
    key: &str,
    window: Window,
    name: &ConversationId,
) -> Option<Served> {
    let (bytes, _) = store.get(key).ok()??;
    Conversations::read(Some(&bytes), window).find(name)
}

/// Records where a conversation is served. If the store fails, or other workers win every race, nothing is recorded; no request
/// waits or fails because of that.
pub fn note(
    store: &impl Store,
    key: &str,
    window: Window,
    name: &ConversationId,
    served: Served,
) -> StateFaults {
    let step = |bytes: Option<&[u8]>| {
        let mut table = Conversations::read(bytes, window);
        let is_new = table.note(name, served);
        Write {
            value: is_new.then(|| table.encode()),
            report: (),
        }
    };
    let conflicts = match update(store, key, TRIES, step) {
        Ok(updated) => updated.conflicts,
        Err(contended) => contended.conflicts,
    };
    StateFaults {
        conflicts,
        ..StateFaults::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::store::fake::FakeStore;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const DAY: Window = Window {
        start: Timestamp::from_secs(86_400),
        end: Timestamp::from_secs(2 * 86_400),
    };

    fn named(name: u64) -> ConversationId {
        ConversationId {
            name,
            questions: [0; 2],
        }
    }

    fn at(model: u32, is_lower: bool) -> Served {
        Served {
            model: Model(model),
            is_lower,
        }
    }

    #[test]
    fn each_conversation_has_its_place_until_the_window_ends() {
        let store = FakeStore::default();
        let place = |window, name| look(&store, "k", window, &named(name));
        assert_eq!(place(DAY, 1), None);
        note(&store, "k", DAY, &named(1), at(7, true));
        note(&store, "k", DAY, &named(2), at(8, false));
        assert_eq!(place(DAY, 1), Some(at(7, true)));
        assert_eq!(place(DAY, 2), Some(at(8, false)));
        note(&store, "k", DAY, &named(1), at(8, true));
        assert_eq!(place(DAY, 1), Some(at(8, true)));
        let next = Window {
            start: DAY.end,
            end: Timestamp::MAX,
        };
        assert_eq!(place(next, 1), None);
        note(&store, "k", next, &named(3), at(7, false));
        // The worker's clock is slightly behind, as in a race with another worker.
        assert_eq!(place(DAY, 3), Some(at(7, false)));
        assert_eq!(place(DAY, 1), None);
        // The clock was set back by more than a window.
        let first = Window {
            start: Timestamp::from_secs(0),
            end: Timestamp::from_secs(86_399),
        };
        assert_eq!(place(first, 3), None);
    }

    #[test]
    fn a_conversation_that_begins_in_another_way_is_known_by_its_last_question() {
        let mut table = Conversations::default();
        let name = |name, questions| ConversationId { name, questions };
        assert!(table.note(&name(1, [11, 0]), at(7, true)));
        // The conversation continues without its oldest turns.
        assert_eq!(table.find(&name(2, [12, 11])), Some(at(7, true)));
        assert!(table.note(&name(2, [12, 11]), at(7, true)));
        assert_eq!(table.entries.len(), 1);
        assert_eq!(table.find(&name(3, [13, 12])), Some(at(7, true)));
        assert_eq!(table.find(&name(1, [0, 0])), None);
        // A conversation without a question after an answer is found only by its name.
        assert!(table.note(&named(4), at(8, true)));
        assert_eq!(table.find(&named(5)), None);
        // The name takes precedence over the question.
        assert_eq!(table.find(&name(4, [0, 12])), Some(at(8, true)));
    }

    #[test]
    fn a_table_is_bounded_and_forgets_what_was_silent_for_longest() {
        let mut table = Conversations::default();
        for name in 1..=64 {
            assert!(table.note(&named(name), at(7, false)));
        }
        // The first conversation continues.
        assert!(table.note(&named(1), at(7, false)));
        assert!(table.note(&named(65), at(7, false)));
        assert_eq!(table.entries.len(), CONVERSATIONS);
        assert_eq!(table.find(&named(2)), None);
        for name in [1, 3, 65] {
            assert_eq!(table.find(&named(name)), Some(at(7, false)));
        }
        assert_eq!(table.encode().len(), 1_357);
    }

    #[test]
    fn what_changes_nothing_is_not_written() {
        let mut table = Conversations::default();
        for name in 1..=33 {
            table.note(&named(name), at(7, false));
        }
        assert!(!table.note(&named(33), at(7, false)));
        assert!(!table.note(&named(2), at(7, false)));
        assert!(table.note(&named(1), at(7, false)));
        assert!(table.note(&named(33), at(7, true)));
    }

    #[test]
    fn bytes_come_back_and_others_are_no_table() {
        let mut table = Conversations::read(None, DAY);
        table.note(&named(3), at(9, false));
        table.note(
            &ConversationId {
                name: 1,
                questions: [2, 3],
            },
            at(u32::MAX, true),
        );
        let bytes = table.encode();
        assert_eq!(Conversations::decode(&bytes), Some(table.clone()));
        for length in 0..bytes.len() {
            assert_eq!(Conversations::decode(&bytes[..length]), None);
        }
        let long = [bytes.as_slice(), &[0; 21]].concat();
        assert_eq!(Conversations::decode(&long), None);
        let mut odd = bytes;
        *odd.last_mut().unwrap() = 2;
        assert_eq!(Conversations::read(Some(&odd), DAY).entries, []);
    }

    #[test]
    fn lost_races_are_tried_again_and_given_up_in_peace() {
        let store = FakeStore::default();
        store.lose(2);
        let faults = note(&store, "k", DAY, &named(1), at(7, true));
        assert_eq!((faults.conflicts, faults.given_up), (2, 0));
        assert_eq!(look(&store, "k", DAY, &named(1)), Some(at(7, true)));
        store.lose(100);
        let faults = note(&store, "k", DAY, &named(2), at(7, true));
        assert_eq!((faults.conflicts, faults.given_up), (4, 0));
        assert_eq!(look(&store, "k", DAY, &named(2)), None);
    }
}
