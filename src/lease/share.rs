//! What the configuration says about a budget that proxies share.

use std::num::NonZeroU64;

use crate::calendar::window::Window;
use crate::lease::grant::{Cold, Terms, Unreachable};

/// How a budget is shared with other proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Nanoseconds between two lines, at the least.
    pub least: u64,
    /// And at the most, for an account in use.
    pub most: u64,
    /// After so many nanoseconds of silence others may have what a holder did not use. `None`: not before the window's end.
    pub reclaim: Option<NonZeroU64>,
    /// What may be spent while the store does not answer.
    pub unreachable: Unreachable,
    /// What becomes of the first request of a window, which finds no slice here.
    pub first: FirstRequest,
}

/// What becomes of a request that comes before the store has answered for the first time in this window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirstRequest {
    /// It waits for the answer, for a moment.
    #[default]
    Waits,
    /// It is refused, and told to come back in a moment.
    Refused,
    /// It is served on credit, one reservation in all.
    OnCredit,
}

impl Share {
    /// The terms of the account in which so much may be spent in this window.
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
