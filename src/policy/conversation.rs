//! A conversation that goes on stays where it is.
//!
//! A change of the model in its midst is felt: the provider's prompt cache is lost, and the tone changes. So within one window
//! of the budget a conversation that was downgraded stays down, also if what remains rises again; and one that is under way
//! keeps its tier although a low-water mark is crossed, until what remains comes to a share of that mark.

use super::preferences::Choice;
use super::{Ask, Limits, Reason, marks};
use crate::record::Record;
use crate::units::{Ppm, Timestamp};

/// That conversations stay where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// The request header that names a conversation; `None` to go by how it begins.
    pub header: Option<String>,
    /// The share of a low-water mark down to which a conversation stays where it is. From above 0 to 1.
    pub keep: Ppm,
}

/// Where a request's conversation was served last in this window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Talk {
    /// Index of the tier.
    pub tier: usize,
    /// It was downgraded to that.
    pub is_lower: bool,
}

/// The tier that the marks ask for, or where its conversation keeps a request.
pub(super) fn wanted(limits: &Limits, ask: &Ask<'_>, record: &Record, now: Timestamp) -> Choice {
    let wanted = marks::wanted(limits, ask, record, marks::WHOLE, now);
    let talk = ask.conditions.conversation;
    let talk = talk.filter(|_| !limits.never_downgrade);
    let Some((talk, sticky)) = talk.zip(limits.sticky.as_ref()) else {
        return wanted;
    };
    let asked = ask.asked();
    if !talk.is_lower && talk.tier != asked {
        // It asks for another tier than it did.
        return wanted;
    }
    let low = marks::wanted(limits, ask, record, sticky.keep, now).tier;
    let tier = talk.tier.max(asked).max(low);
    match tier == wanted.tier {
        true => wanted,
        false => Choice {
            tier,
            reason: Some(Reason::Conversation),
        },
    }
}
