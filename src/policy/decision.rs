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
    /// Send it, at this tier (an index into the ladder; 0 without one).
    Admit {
        /// Never above the requested tier.
        tier: usize,
        /// Why it is lower, or why it is not although it should be.
        reason: Option<Reason>,
        /// Tokens that each of its answers may have at the most, if that is limited.
        most_output: Option<u64>,
        /// What it may cost.
        estimate: Estimate,
        /// The same in money, which budgets reserve.
        expected: Expected,
    },
    /// Do not send it.
    Refuse {
        /// The tier that it would have been served at.
        tier: usize,
        /// Why not.
        refusal: Refusal,
        /// Which limit says so; `None` where it is a tier's capacity.
        limit: Option<LimitIndex>,
    },
}

impl Decision {
    /// Not to send it.
    pub(super) fn refuse(tier: usize, short: LimitRefusal) -> Self {
        let LimitRefusal { refusal, limit } = short;
        Self::Refuse {
            tier,
            refusal,
            limit,
        }
    }
}

/// One of the limits that apply to a request. To be looked up by [`crate::plan::Limits::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitIndex {
    /// Whose.
    pub payer: Payer,
    /// In which of the request's books ([`super::Conditions::books`]); `None` for the tenant's own.
    pub book: Option<usize>,
    /// Its place there: [`crate::plan::Limits::BUDGET`], [`crate::plan::Limits::BUCKET`], or one of the others.
    pub limit: usize,
}

impl LimitIndex {
    /// The name of the limit. `limits` and `books`: the tenant's own, and the request's others.
    #[must_use]
    pub fn name(&self, limits: &Limits, books: &[Book<'_>]) -> Option<Label> {
        let limits = match self.book {
            None => limits,
            Some(book) => books.get(book)?.limits,
        };
        limits.name(self.limit)
    }
}

/// A refusal, and which limit says so.
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

    /// Of this and a later rule's, the stricter one; on a tie, this. Of two payers' that take as long, the nearer one's.
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

/// Why a request is served at a lower tier than it requested, or why it keeps its own although it should not.
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
    /// The upstream of the tier that would have served refuses just now.
    UpstreamLimited,
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
    /// It keeps its model: that is on none of the ladders.
    Unlisted,
}

impl Reason {
    /// The word for it in headers, metrics and logs.
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
    /// Requests in flight hold what is left of the budget; some of it will come back.
    BudgetHeld,
    /// The token bucket holds enough cells again after this time.
    BucketEmpty(Duration),
    /// No tier that may serve has capacity left for the tenant's priority. One has enough again after this time; `None`:
    /// it is more than they can ever have.
    TierCapacity(Option<Duration>),
    /// What is left of the budget is less than the request may cost. `None`: waiting does not help, since the budget
    /// never starts anew, or the whole budget is less.
    BudgetExhausted(Option<Duration>),
    /// What is left of the budget is kept for others who are guaranteed a part of it. After this time enough is no longer kept;
    /// `None`: waiting does not help, since the budget never starts anew.
    BudgetReserved(Option<Duration>),
    /// More than the token bucket can ever hold.
    ExceedsBurst,
    /// As many requests are in flight as may be.
    Concurrency,
    /// More than a single request may cost.
    ExceedsMaximum,
    /// The budget is shared by proxies, and this one has been granted too little of it so far; more is on its way.
    Pending,
    /// The budget is shared by proxies, this one has been granted too little of it, and the store that grants does not answer.
    StoreUnreachable,
}

impl Refusal {
    /// How strict it is: the time until the same request may pass, and on a tie a rank of what has to happen for that.
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
    /// What a tier's capacity says.
    fn from(not_now: NotNow) -> Self {
        Self {
            refusal: not_now.into(),
            limit: None,
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
