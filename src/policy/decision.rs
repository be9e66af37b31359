//! What is decided, and why.

use std::cmp::Reverse;
use std::time::Duration;

use super::{Book, Expected, Payer};
use crate::estimate::Estimate;
use crate::limits::bucket::NotNow;
use crate::plan::Limits;
use crate::published::metric::Label;

/// What is to be done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send the request, at this tier (an index into the ladder; 0 without a ladder).
    Admit {
        /// The tier that serves; never above the requested one.
        tier: usize,
        /// Why that tier is lower than the requested one, or why it is not lower although it should be.
        reason: Option<Reason>,
        /// The most tokens that each answer to the request may have, if that is limited.
        most_output: Option<u64>,
        /// What the request may cost.
        estimate: Estimate,
        /// What the request may cost in money, which budgets reserve.
        expected: Expected,
    },
    /// Do not send the request.
    Refuse {
        /// The tier that the request would have been served at.
        tier: usize,
        /// Why the request is refused.
        refusal: Refusal,
        /// The limit that refuses; `None` where a tier's capacity does.
        limit: Option<LimitIndex>,
    },
}

impl Decision {
    /// The decision to refuse a request.
    pub(super) fn refuse(tier: usize, short: LimitRefusal) -> Self {
        let LimitRefusal { refusal, limit } = short;
        Self::Refuse {
            tier,
            refusal,
            limit,
        }
    }
}

/// One of the limits that apply to a request. [`crate::plan::Limits::name`] gives its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitIndex {
    /// Whose limit it is.
    pub payer: Payer,
    /// In which of the request's books ([`super::Conditions::books`]); `None` for the tenant's own.
    pub book: Option<usize>,
    /// The limit's index in that book: [`crate::plan::Limits::BUDGET`], [`crate::plan::Limits::BUCKET`], or that of one of the other
    /// limits.
    pub limit: usize,
}

impl LimitIndex {
    /// The name of the limit. `limits` are the tenant's own, `books` the request's others.
    #[must_use]
    pub fn name(&self, limits: &Limits, books: &[Book<'_>]) -> Option<Label> {
        let limits = match self.book {
            None => limits,
            Some(book) => books.get(book)?.limits,
        };
        limits.name(self.limit)
    }
}

/// A refusal, and the limit that it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitRefusal {
    /// Why a request is not served.
    pub refusal: Refusal,
    /// The limit; `None` where it is a tier's capacity.
    pub limit: Option<LimitIndex>,
}

impl LimitRefusal {
    /// The name of the limit.
    #[must_use]
    pub fn name(&self, limits: &Limits, books: &[Book<'_>]) -> Option<Label> {
        self.limit?.name(limits, books)
    }

    /// The stricter one of this refusal and a later rule's; on a tie, this one. If two payers' refusals last equally long, the nearer
    /// payer's.
    pub(super) fn or_stricter(self, later: Self) -> Self {
        let strictness = |short: &Self| {
            let (wait, what) = short.refusal.strictness();
            let payer = short.limit.map_or(Payer::Tenant, |index| index.payer);
            (wait, Reverse(payer), what)
        };
        if strictness(&self) < strictness(&later) {
            later
        } else {
            self
        }
    }
}

/// Why a request is served at a lower tier than it requested, or why it keeps its tier although it should be lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The request's conversation was served at this tier, and stays there.
    Conversation,
    /// Less of the budget remains than the tier's low-water mark, or than the request would cost at the requested tier.
    BudgetLow,
    /// At the tenant's recent rate of spending, the budget would not last at the next higher tier.
    BudgetPace,
    /// The token bucket is under its low-water mark.
    BucketLow,
    /// The budget is spent and the overdraft serves.
    BudgetExhausted,
    /// The upstream of the tier that would have served currently refuses.
    UpstreamLimited,
    /// The answers of the tier that would have served currently begin too late.
    Sla,
    /// The capacity of a better tier is taken.
    TierCapacity,
    /// The requested tier is not allowed, so that the request is sent to a lower one; or it keeps its model, since no other tier is
    /// allowed.
    TierPreference,
    /// The request keeps its model: the lower tiers cannot do what it needs.
    Unsupported,
    /// The request keeps its model: its needs were not known when it had to be forwarded.
    Unread,
    /// The request keeps its model: the model is unique, such as a tuned one.
    Bound,
    /// The request keeps its model: the request is signed, so that nothing in it may change.
    Signed,
    /// The request keeps its model: the model is on none of the ladders.
    Unlisted,
}

impl Reason {
    /// The reason's word in headers, metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BudgetLow => "budget_low",
            Self::BudgetPace => "budget_pace",
            Self::BucketLow => "bucket_low",
            Self::Conversation => "conversation",
            Self::BudgetExhausted => "budget_exhausted",
            Self::UpstreamLimited => "upstream_limited",
            Self::Sla => "sla",
            Self::TierCapacity => "tier_capacity",
            Self::TierPreference => "tier_preference",
            Self::Unsupported => "tier_unsupported",
            Self::Unread => "body_unread",
            Self::Bound => "model_bound",
            Self::Signed => "request_signed",
            Self::Unlisted => "model_unlisted",
        }
    }
}

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Requests in flight hold what is left of the budget; a part of it will be released.
    BudgetHeld,
    /// The token bucket holds enough cells again after this time.
    BucketEmpty(Duration),
    /// No tier that may serve has capacity left for the tenant's priority. One of them has enough again after this time; `None`: the
    /// request needs more than any of them can ever have.
    TierCapacity(Option<Duration>),
    /// What is left of the budget is less than the request may cost. `None`: waiting does not help, since the budget never starts anew, or
    /// since even the whole budget is less.
    BudgetExhausted(Option<Duration>),
    /// What is left of the budget is kept for other children, which have a guaranteed part of it. After this time little enough is kept;
    /// `None`: waiting does not help, since the budget never starts anew.
    BudgetReserved(Option<Duration>),
    /// The request needs more than the token bucket can ever hold.
    ExceedsBurst,
    /// The maximum number of requests is already in flight.
    Concurrency,
    /// The request costs more than a single request may.
    ExceedsMaximum,
    /// The limit is shared by proxies, and this proxy has been granted too little of it so far; more is on its way.
    Pending,
    /// The limit is shared by proxies, this proxy has been granted too little of it, and the store that grants does not answer.
    StoreUnreachable,
}

impl Refusal {
    /// How strict the refusal is: the time until the same request may pass, and on a tie a rank of what has to happen before it may.
    fn strictness(self) -> (Duration, u8) {
        match self {
            Self::BudgetHeld | Self::Concurrency | Self::Pending | Self::StoreUnreachable => {
                (Duration::ZERO, 0)
            }
            Self::BucketEmpty(wait) | Self::TierCapacity(Some(wait)) => (wait, 1),
            Self::BudgetExhausted(wait) | Self::BudgetReserved(wait) => {
                (wait.unwrap_or(Duration::MAX), 2)
            }
            Self::ExceedsMaximum | Self::ExceedsBurst | Self::TierCapacity(None) => {
                (Duration::MAX, 3)
            }
        }
    }

    pub(super) fn is_milder_than(self, other: Self) -> bool {
        self.strictness() < other.strictness()
    }
}

impl From<NotNow> for LimitRefusal {
    /// The refusal by a tier's capacity.
    fn from(not_now: NotNow) -> Self {
        Self {
            refusal: not_now.into(),
            limit: None,
        }
    }
}

impl From<NotNow> for Refusal {
    /// The refusal by a tier's capacity.
    fn from(not_now: NotNow) -> Self {
        Self::TierCapacity(match not_now {
            NotNow::Wait(wait) => Some(wait),
            NotNow::ExceedsBurst => None,
        })
    }
}
