//! Names and values of the headers that bursar sets.
//!
//! - `x-bursar-*`: our own headers on the response. The request to the upstream also carries the tier.
//! - [`limits`]: how much is left of the limits, in `x-ratelimit-*`, `ratelimit` and `ratelimit-policy`.
//! - [`retry_after`] and its neighbours: when to try again.

mod left;
mod wait;

use crate::base::text::Text;
use crate::published::header_group::{HeaderGroup, HeaderGroups};
use crate::published::metric::Label;
use crate::report::decision::{Decided, Shadow, plain};
pub use left::{LIMITS, limits, stricter};
pub use wait::{come_back, do_not_retry, millis_up, retry_after};

/// The prefix of all our own headers. Headers with this prefix that a client sends are removed.
pub const PREFIX: &str = "x-bursar-";
/// The tier that serves the request.
pub const TIER: &str = "x-bursar-tier";
/// The model that was sent upstream.
pub const MODEL: &str = "x-bursar-model";
/// The model that the client requested.
pub const REQUESTED_MODEL: &str = "x-bursar-requested-model";
/// `admit`, `downgrade` or `throttle`.
pub const DECISION: &str = "x-bursar-decision";
/// The decision's reason, unless the decision is plain.
pub const REASON: &str = "x-bursar-reason";

/// The most tokens that each answer may have, if bursar has limited them.
pub const MAX_OUTPUT_TOKENS: &str = "x-bursar-max-output-tokens";

/// The name of the limit that refuses a request.
pub const LIMIT: &str = "x-bursar-limit";

/// The decision that would have been enforced, in shadow mode.
pub const SHADOW: &str = "x-bursar-shadow";

/// How many of the conversation's messages bursar has left out.
pub const TRIMMED_MESSAGES: &str = "x-bursar-trimmed-messages";

/// A header's name and value.
pub type Header = (&'static str, Text);

/// Our own headers about a decision; empty values are left out.
pub fn decided(decided: Decided) -> impl Iterator<Item = Header> {
    let headers = [
        (TIER, decided.tier),
        (MODEL, decided.model),
        (REQUESTED_MODEL, decided.requested_model),
        (DECISION, decided.decision.into()),
        (REASON, decided.reason.into()),
    ];
    headers.into_iter().filter(|(_, value)| !value.is_empty())
}

/// Whether the operator wants a header of this name.
#[must_use]
pub fn is_wanted(groups: HeaderGroups, name: &str) -> bool {
    let group = match name {
        "ratelimit" | "ratelimit-policy" => HeaderGroup::Ratelimit,
        _ if name.starts_with(PREFIX) => HeaderGroup::Bursar,
        _ if name.starts_with("x-ratelimit-") => HeaderGroup::XRatelimit,
        _ => return true,
    };
    groups.contains(group)
}

/// The header for the decision that would have been enforced.
#[must_use]
pub fn shadow(shadow: &Shadow) -> Header {
    (SHADOW, plain(&shadow.to_string()).into())
}

/// The header with the name of the limit that refuses the request. The name is plain ASCII.
#[must_use]
pub fn limit(name: &Label) -> Header {
    (LIMIT, name.into())
}

/// The header for an output limit that bursar set.
#[must_use]
pub fn max_output_tokens(most: u64) -> Header {
    (MAX_OUTPUT_TOKENS, most.into())
}

/// The header for a conversation that was shortened.
#[must_use]
pub fn trimmed_messages(count: u64) -> Header {
    (TRIMMED_MESSAGES, count.into())
}
