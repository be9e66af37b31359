//! What is decided, and why.

use std::time::Duration;

use crate::bucket::NotNow;
use crate::estimate::Estimate;
use crate::units::Cost;

/// What is to be done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send it, at this tier (an index into the ladder; 0 without one).
    Admit {
        /// Never above the tier that was asked for.
        tier: usize,
        /// Why it is lower, or why it is not although it should be.
        reason: Option<Reason>,
        /// Tokens that each of its answers may have at the most, if that is limited.
        most_output: Option<u64>,
        /// What it may cost.
        estimate: Estimate,
        /// What to reserve on the budget for that.
        reserve: Cost,
    },
    /// Do not send it.
    Refuse {
        /// The tier that it would have been served at.
        tier: usize,
        /// Why not.
        refusal: Refusal,
    },
}

/// Why a request is served at a lower tier than it asked for, or why it keeps its own although it should not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its conversation was served here, and stays.
    Conversation,
    /// Less of the budget remains than the tier's low-water mark, or than the asked tier would cost.
    BudgetLow,
    /// At the rate at which the tenant spends lately, the budget would not last at the tier before.
    BudgetPace,
    /// The token bucket is under its low-water mark.
    BucketLow,
    /// The budget is spent and the overdraft serves.
    BudgetExhausted,
    /// The answers of the tier that would have served begin too late just now.
    Sla,
    /// The capacity of a better tier is taken.
    TierCapacity,
    /// It is sent to a lower tier since the asked one is not allowed; or it keeps its model, since no other is.
    TierPreference,
    /// It keeps its model: the lower tiers cannot do what it needs.
    Unsupported,
    /// It keeps its model: what it needs was not known when it had to be sent on.
    Unread,
    /// It keeps its model: that is one of a kind, such as a tuned one.
    Bound,
    /// It keeps its model: it is signed, so that nothing in it may change.
    Signed,
}

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Requests in flight hold what is left of the budget; some of it will come back.
    BudgetHeld,
    /// The token bucket holds enough cells again after this time.
    BucketEmpty(Duration),
    /// No tier that may serve has capacity left for the tenant's priority. One has enough again after this time; `None`:
    /// it is more than they can ever have.
    TierCapacity(Option<Duration>),
    /// What is left of the budget is less than the request may cost. `None`: waiting does not help, since the budget
    /// never starts anew or is less itself.
    BudgetExhausted(Option<Duration>),
    /// More than the token bucket can ever hold.
    ExceedsBurst,
}

impl Refusal {
    /// How strict it is; of two that time cures, the one that takes longer is.
    fn strictness(self) -> (u8, Duration) {
        match self {
            Self::BudgetHeld => (0, Duration::ZERO),
            Self::BucketEmpty(wait) | Self::TierCapacity(Some(wait)) => (1, wait),
            Self::BudgetExhausted(_) => (2, Duration::ZERO),
            Self::ExceedsBurst | Self::TierCapacity(None) => (3, Duration::ZERO),
        }
    }

    pub(super) fn is_milder_than(self, other: Self) -> bool {
        self.strictness() < other.strictness()
    }

    /// Of this and a later rule's, the stricter one; on a tie, this.
    pub(super) fn or_stricter(self, later: Self) -> Self {
        if self.is_milder_than(later) {
            later
        } else {
            self
        }
    }
}

impl From<NotNow> for Refusal {
    /// What a tier's capacity says.
    fn from(not_now: NotNow) -> Self {
        Self::TierCapacity(match not_now {
            NotNow::Wait(wait) => Some(wait),
            NotNow::ExceedsBurst => None,
        })
    }
}
