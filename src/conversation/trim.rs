//! Shortens a conversation: finds which of its oldest messages can go, and makes the edits that remove them.
//!
//! These always stay: messages of the application (`system`, `developer`), wherever they are; the user's last turn and everything that
//! follows; and every byte outside of the messages. A *turn* begins with a message of the user that answers no tool and does not
//! directly follow another one of the user. Whole turns are removed, the oldest first, so that the rest still begins with the user
//! and alternates as before. A tool call and its answer are never separated.
//!
//! **Caches and signatures.** A provider's prompt cache holds a prefix, so each new cut makes the rest of the prompt uncached. To cut
//! rarely, the removed length is a multiple of a quarter of what may stay: a cut stays the same until another quarter was added. Blocks of
//! thinking are signed one by one. Only the blocks of the current turn are needed, and that turn stays; older blocks may be left out
//! (<https://docs.claude.com/en/docs/build-with-claude/extended-thinking>).

use crate::body::rewrite::Edit;
use crate::conversation::messages::{Message, Role};

/// Where a conversation can be cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CutPoints {
    messages: Vec<Message>,
    /// The cuts by the number of bytes that they remove, ascending and distinct.
    cuts: Vec<Cut>,
}

/// One possible cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Index of the first message of the first turn that stays.
    before: usize,
    /// How many messages this cut removes.
    pub messages: u64,
    /// How many bytes this cut removes.
    pub bytes: u64,
}

impl CutPoints {
    /// The possible cuts of a conversation with these messages.
    #[must_use]
    pub fn of(messages: &[Message]) -> Self {
        let (mut cuts, mut cut) = (Vec::new(), Cut::NONE);
        let whole = whole_from(messages);
        let mut last = None;
        for (index, message) in messages.iter().enumerate() {
            let begins_turn = message.role == Role::User && last != Some(Role::User);
            if begins_turn && cut.messages > 0 && whole.get(index) == Some(&true) {
                cuts.push(Cut {
                    before: index,
                    ..cut
                });
            }
            if message.role != Role::System {
                last = Some(message.role);
                let next = messages.get(index.saturating_add(1));
                cut.messages = cut.messages.saturating_add(1);
                cut.bytes = cut.bytes.saturating_add(
                    next.map_or(0, |next| next.start.saturating_sub(message.start)),
                );
            }
        }
        Self {
            messages: messages.to_vec(),
            cuts,
        }
    }

    /// The cut that shortens a body of `length` bytes to `most`, or as close as possible; `None` if the body is short enough, or
    /// cannot be cut.
    #[must_use]
    pub fn to(&self, length: u64, most: u64) -> Option<&Cut> {
        let surplus = length.checked_sub(most).filter(|&surplus| surplus > 0)?;
        let goes = surplus.checked_next_multiple_of((most / 4).max(1));
        let goes = goes.unwrap_or(u64::MAX);
        let is_enough = |cut: &&Cut| cut.bytes >= goes;
        self.cuts
            .iter()
            .find(is_enough)
            .or_else(|| self.cuts.last())
    }

    /// The cut that removes exactly `bytes` bytes.
    #[must_use]
    pub fn that_takes(&self, bytes: u64) -> Option<&Cut> {
        let found = self.cuts.binary_search_by_key(&bytes, |cut| cut.bytes);
        self.cuts.get(found.ok()?)
    }

    /// The edits that make a cut, sorted. Bytes between two messages are removed with the first of them.
    #[must_use]
    pub fn edits(&self, cut: &Cut) -> Vec<Edit> {
        let mut edits: Vec<Edit> = Vec::new();
        let pairs = self.messages.iter().zip(self.messages.iter().skip(1));
        for (message, next) in pairs.take(cut.before) {
            if message.role == Role::System {
                continue;
            }
            match edits.last_mut().filter(|edit| edit.end == message.start) {
                Some(edit) => edit.end = next.start,
                None => edits.push(Edit {
                    start: message.start,
                    end: next.start,
                    with: Vec::new(),
                }),
            }
        }
        edits
    }
}

impl Cut {
    const NONE: Self = Self {
        before: 0,
        messages: 0,
        bytes: 0,
    };
}

/// For each message: whether neither it nor any later message answers a call from before it.
fn whole_from(messages: &[Message]) -> Vec<bool> {
    let mut reaches = usize::MAX;
    let from_end = messages.iter().enumerate().rev();
    let mut whole: Vec<bool> = from_end
        .map(|(index, message)| {
            reaches = reaches.min(message.reaches);
            reaches >= index
        })
        .collect();
    whole.reverse();
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Messages of ten bytes each, given as `s`, `u`, `a` or `t`, each with the index of the message that it reaches.
    fn messages(roles: &str) -> Vec<Message> {
        let message = |(index, word): (usize, &str)| {
            let (role, reaches) = word.split_at(1);
            Message {
                start: 100 + 10 * index as u64,
                role: match role {
                    "s" => Role::System,
                    "u" => Role::User,
                    "a" => Role::Assistant,
                    _ => Role::Tool,
                },
                reaches: reaches.parse().unwrap_or(index),
            }
        };
        roles.split(' ').enumerate().map(message).collect()
    }

    /// For each cut of a conversation: the index of the first message that stays, and how many messages go.
    fn cuts(roles: &str) -> Vec<(usize, u64)> {
        let cuts = CutPoints::of(&messages(roles)).cuts;
        cuts.iter()
            .inspect(|cut| assert_eq!(cut.bytes, 10 * cut.messages))
            .map(|cut| (cut.before, cut.messages))
            .collect()
    }

    #[test]
    fn a_conversation_is_cut_where_a_turn_of_the_user_begins() {
        assert_eq!(cuts("u a u a u"), [(2, 2), (4, 4)]);
        assert_eq!(cuts("s u a s u"), [(4, 2)]);
        assert_eq!(cuts("a u a u"), [(1, 1), (3, 3)]);
        // Several messages of the user in a row are one turn.
        assert_eq!(cuts("u u a u u"), [(3, 3)]);
        assert_eq!(cuts("u a u s u"), [(2, 2)]);
    }

    #[test]
    fn nothing_goes_of_the_last_turn() {
        for roles in ["u", "s", "s u", "a", "u a t1 a t3", "a t0", "u a u2 a u4"] {
            let first = if roles == "u a u2 a u4" {
                vec![(2, 2), (4, 4)]
            } else {
                vec![]
            };
            assert_eq!(cuts(roles), first, "{roles}");
        }
    }

    #[test]
    fn a_tools_answer_stays_with_its_call() {
        assert_eq!(cuts("u a t1 u a t4 u"), [(3, 3), (6, 6)]);
        // A message of the user stands between a call and its answer.
        assert_eq!(cuts("u a u a t1 u"), [(5, 5)]);
        assert_eq!(cuts("u a u a t1"), []);
        // Anthropic: a message of the user that answers a tool begins no turn, nor does a message of the user right after it.
        assert_eq!(cuts("u a u1 a u"), [(4, 4)]);
        assert_eq!(cuts("u a u1 u a"), []);
    }

    #[test]
    fn what_goes_is_a_multiple_of_a_quarter_of_what_may_stay() {
        let cuts = CutPoints::of(&messages("u a u a u a u a u"));
        let takes = |length, most| cuts.to(length, most).map(|cut| cut.bytes);
        assert_eq!(takes(80, 80), None);
        assert_eq!(takes(81, 80), Some(20));
        assert_eq!(takes(100, 80), Some(20));
        assert_eq!(takes(101, 80), Some(40));
        // No cut is enough.
        assert_eq!(takes(200, 80), Some(80));
        assert_eq!(takes(u64::MAX, 1), Some(80));
        assert_eq!(takes(82, 3), Some(80));
        assert_eq!(CutPoints::default().to(100, 10), None);
    }

    // A prompt cache holds a prefix. If the cut moved with each turn, the cache would be lost each time.
    #[test]
    fn a_conversation_that_grows_is_cut_at_the_same_place_for_a_while() {
        let mut before: Vec<_> = (40..=120)
            .map(|count| {
                let cuts =
                    CutPoints::of(&messages(["u", "a"].repeat(60)[..count].join(" ").as_str()));
                cuts.to(10 * count as u64, 400).map(|cut| cut.before)
            })
            .collect();
        before.dedup();
        let tens = (1..=8).map(|ten| Some(10 * ten));
        assert_eq!(before, [None].into_iter().chain(tens).collect::<Vec<_>>());
    }

    #[test]
    fn what_the_application_says_stays_where_it_stands() {
        let cuts = CutPoints::of(&messages("s u a s u a u"));
        let cut = *cuts.to(1_000, 1).unwrap();
        assert_eq!((cut.messages, cut.bytes), (4, 40));
        let edits: Vec<_> = cuts
            .edits(&cut)
            .iter()
            .map(|edit| (edit.start, edit.end))
            .collect();
        assert_eq!(edits, [(110, 130), (140, 160)]);
        assert_eq!(cuts.that_takes(40), Some(&cut));
        assert_eq!(cuts.that_takes(0), None);
        assert_eq!(cuts.that_takes(41), None);
    }
}
