//! A conversation stays at the tier where it is served.
//!
//! Users notice when the model changes in the middle of a conversation: the provider's prompt cache is lost, and the tone changes. So
//! within one window of the budget a conversation that was downgraded stays down, even if what remains rises again; and a conversation that
//! was not downgraded keeps its tier although a low-water mark is crossed, until what remains falls to a share of that mark.

use super::preferences::Choice;
use super::{Reason, Request, marks};
use crate::base::units::Timestamp;
use crate::plan::Limits;
use crate::state::record::Record;

/// Where a request's conversation was last served in this window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConversationPlacement {
    /// Index of the tier.
    pub tier: usize,
    /// Whether the conversation was downgraded to this tier.
    pub is_lower: bool,
}

/// The tier that the marks call for, or the one at which the conversation keeps the request.
pub(super) fn wanted(
    limits: &Limits,
    request: &Request<'_>,
    record: &Record,
    now: Timestamp,
) -> Choice {
    let wanted = marks::wanted(limits, request, record, marks::WHOLE, now);
    let placement = request.conditions.conversation;
    let placement = placement.filter(|_| !limits.never_downgrade);
    let Some((placement, sticky)) = placement.zip(limits.sticky.as_ref()) else {
        return wanted;
    };
    let asked = request.asked();
    if !placement.is_lower && placement.tier != asked {
        // This request names another tier than the one at which the conversation was served.
        return wanted;
    }
    let low = marks::wanted(limits, request, record, sticky.keep, now).tier;
    let tier = placement.tier.max(asked).max(low);
    match tier == wanted.tier {
        true => wanted,
        false => Choice {
            tier,
            reason: Some(Reason::Conversation),
        },
    }
}
