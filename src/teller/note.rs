//! What is logged about the store for operators, and the words for the results of calls to the store.

use crate::lease::call::Failed;
use crate::lease::clock::Skew;
use crate::lease::line::NoAnswer;
use crate::lease::resp::Refusal;
use crate::tenant::TenantId;

/// What an operator should know about the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The store does not answer, for this reason.
    Lost(String),
    /// The store answers again.
    Found,
    /// The store has lost its data.
    Emptied,
    /// The store's clock differs from this proxy's.
    Skewed(Skew),
    /// This tenant's limit of this name is too small to be divided among the proxies that share it.
    TooSmall(TenantId, String),
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lost(why) => write!(
                f,
                "the store of the budgets that proxies share does not answer ({why}): what this proxy was granted can be spent, and no more \
                 than `when_unreachable` says"
            ),
            Self::Found => f.write_str("the store of the budgets that proxies share answers again"),
            Self::Emptied => f.write_str(
                "the store of the budgets that proxies share has lost its data: every proxy tells it anew what it holds. What proxies that \
                 are gone have spent in this window is forgotten",
            ),
            Self::Skewed(Skew::Ahead(nanos) | Skew::Behind(nanos)) => write!(
                f,
                "the clock of the store of shared budgets differs from this proxy's by {} s: from 10 s on, windows open late or end early",
                nanos / 1_000_000_000
            ),
            Self::Skewed(Skew::None) => Ok(()),
            Self::TooSmall(tenant, limit) => write!(
                f,
                "the limit `{limit}` of `{}` is too small for its proxies: some refuse what others have left. Have fewer proxies, a larger \
                 limit or burst, or requests that reserve less",
                tenant.as_str()
            ),
        }
    }
}

/// How a failed call ended, as the value of a metric's label.
pub(super) fn result(refusal: Option<Refusal>) -> &'static str {
    match refusal {
        None => "failed",
        Some(Refusal::NoScript) => "no_script",
        Some(Refusal::ReadOnly) => "read_only",
        Some(Refusal::OutOfMemory) => "out_of_memory",
        Some(Refusal::NotAllowed) => "not_allowed",
        Some(Refusal::NotNow) => "not_now",
        Some(Refusal::Elsewhere) => "elsewhere",
        Some(Refusal::Other) => "refused",
    }
}

/// How a call ended in which this was no answer, as the value of a metric's label.
pub(super) fn ended(fault: &NoAnswer) -> &'static str {
    match fault {
        NoAnswer::Refused(refusal, _) => result(Some(*refusal)),
        NoAnswer::Strange => result(None),
    }
}

/// Why a call failed, in the words of a log message.
pub(super) fn words(failed: &Failed) -> String {
    match failed {
        Failed::NoConnection => "no connection, or none in time".to_owned(),
        Failed::Malformed(_) => "its answer is cut, or none of a Redis".to_owned(),
        Failed::Refused(_, text) => text.clone(),
    }
}
