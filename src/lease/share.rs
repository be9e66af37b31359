//! How the configuration wants a limit to be shared among proxies.

use std::num::NonZeroU64;

use crate::calendar::window::Window;
use crate::lease::grant::{Cold, Terms, Unreachable};

/// How a budget or a bucket is shared with other proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The fewest nanoseconds between two lines.
    pub least: u64,
    /// The most nanoseconds between two lines, for an account in use.
    pub most: u64,
    /// After a holder was silent for this many nanoseconds, what it did not use is free for others. `None`: only at the window's end.
    pub reclaim: Option<NonZeroU64>,
    /// What may be spent while the store does not answer.
    pub unreachable: Unreachable,
    /// How the first request of a window is handled, when this proxy has no slice yet.
    pub first: FirstRequest,
}

/// How a request is handled that arrives before the store has answered for the first time in this window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirstRequest {
    /// The request waits a moment for the store's answer.
    #[default]
    Waits,
    /// The request is refused, with a short `retry-after`.
    Refused,
    /// The request is served on credit, but only one reservation in all.
    OnCredit,
}

impl Share {
    /// The terms of an account with this budget in this window.
    #[must_use]
    pub fn terms(&self, budget: u64, window: Window) -> Terms {
        let &Self {
            least,
            most,
            reclaim,
            unreachable,
            first,
        } = self;
        Terms {
            budget,
            window,
            least,
            most,
            reclaim,
            unreachable,
            cold: match first {
                FirstRequest::OnCredit => Cold::Credit,
                FirstRequest::Waits | FirstRequest::Refused => Cold::Deny,
            },
        }
    }
}
