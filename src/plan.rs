//! What plans and tenants may use, in the form that decisions read.

use std::time::Duration;

use crate::base::glob::{matches, models};
use crate::base::name::Name;
use crate::base::units::{Ppm, Tokens, Unit};
use crate::lease::quota::Quota;
use crate::limits::account::{Account, DEFAULT_EXPIRY};
use crate::limits::budget::Budget;
use crate::limits::capacity::Priority;
use crate::limits::lend::Guarantee;
use crate::limits::pace::Pace;
use crate::limits::stacked::{BUCKET, BUDGET, Limit, MAX_REQUEST, Rule};
use crate::published::metric::Label;
use crate::tier::{Ladder, Weights};
use crate::usage::Usage;

/// The limits that a plan grants, with a tenant's own settings applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// How much may be spent in a window.
    pub budget: Option<Budget>,
    /// How fast tokens or requests may be used.
    pub bucket: Option<Quota>,
    /// All other limits, at most [`crate::limits::stacked::LIMITS`].
    pub others: Vec<Limit>,
    /// Limits of each of the tenant's subjects, by their kind.
    pub subjects: Vec<SubjectLimits>,
    /// Shares of the budgets that are guaranteed to child tenants. At most [`crate::limits::lend::CHILDREN`].
    pub guarantees: Vec<Guarantee>,
    /// Whether reservations on budgets hold what a request is likely to cost, rather than the most that it may cost.
    pub holds_likely: bool,
    /// What happens when the budget is spent.
    pub on_exhausted: OnExhausted,
    /// The weight of each kind of tokens in budgets and buckets of tokens; `None`: every token counts 1.
    pub weights: Option<Weights>,
    /// The most that one request may cost.
    pub max_request: Option<Maximum>,
    /// Globs of the models that may be requested; `None` for all.
    pub models: Option<Vec<String>>,
    /// Whether requests keep their model, however little remains.
    pub never_downgrade: bool,
    /// Replaces the last tier's own mark.
    pub low_water_mark: Option<Ppm>,
    /// A request that would be refused for what its answer may cost may instead have its output limited to what the budget
    /// still holds, if that is at least this many tokens.
    pub min_output_tokens: Option<u64>,
    /// Raises the marks where what remains would not last until the window's end.
    pub pace: Option<Pace>,
    /// Once a mark has lowered the tier, requests return to a better tier only when what remains exceeds the mark by this fraction of the
    /// budget, or when the window ends.
    pub hysteresis: Option<Ppm>,
    /// Conversations stay on their tiers.
    pub sticky: Option<Sticky>,
    /// Which tiers requests may be sent to, and the tenant's own marks for them.
    pub preferences: Preferences,
    /// The tenant's priority in a tier's shared capacity.
    pub priority: Priority,
    /// How soon answers should begin.
    pub sla: Option<Sla>,
    /// Whether requests are decided, metered and reported, but never changed or refused.
    pub shadow: bool,
}

/// The most that one request may cost, estimated from its prompt and its output limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maximum {
    /// The unit of `most`.
    pub unit: Unit,
    /// The most, in `unit`.
    pub most: u64,
}

/// Limits of each subject of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectLimits {
    /// The kind's index among the configured kinds.
    pub index: usize,
    /// The kind's name.
    pub kind: Name,
    /// What each subject may use.
    pub limits: Limits,
}

/// How soon answers should begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sla {
    /// 95 % of the answers should begin within this time, in whole milliseconds. From 1 ms to [`crate::tier::latency::LONGEST`].
    pub p95: Duration,
}

/// What happens when the budget is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExhausted {
    /// Requests are refused until the window's end.
    #[default]
    Throttle,
    /// The last tier keeps serving, up to this fraction of the budget beyond the budget.
    Degrade {
        /// An overdraft of 0.1 on a budget of 1,000 tokens allows 1,100 tokens.
        overdraft: Ppm,
    },
}

impl Limits {
    /// Index of the `budget` among the limits.
    pub const BUDGET: usize = 0;

    /// Index of the `bucket`.
    pub const BUCKET: usize = 1;

    /// Index of the first of the others.
    pub const OTHERS: usize = 2;

    /// Index that stands for the most that one request may cost.
    pub const MAX_REQUEST: usize = usize::MAX;

    /// The name of the limit at an index.
    #[must_use]
    pub fn name(&self, place: usize) -> Option<Label> {
        let other = || self.others.get(place.checked_sub(Self::OTHERS)?);
        match place {
            Self::BUDGET => Some(BUDGET.into()),
            Self::BUCKET => Some(BUCKET.into()),
            Self::MAX_REQUEST => Some(MAX_REQUEST.into()),
            _ => other().map(|limit| (&limit.name).into()),
        }
    }

    /// Whether there is any limit.
    pub(crate) fn has_any(&self) -> bool {
        self.budget.is_some() || self.bucket.is_some() || !self.others.is_empty()
    }

    /// All budgets, the plan's `budget` first.
    pub fn budgets(&self) -> impl Iterator<Item = &Budget> {
        let others = self.others.iter();
        let others = others.filter_map(|limit| match &limit.rule {
            Rule::Budget(budget) => Some(budget),
            Rule::Tokens(_) | Rule::Requests(_) | Rule::Concurrency(_) => None,
        });
        self.budget.iter().chain(others)
    }

    /// Whether any budget is shared with other proxies.
    pub(crate) fn is_shared(&self) -> bool {
        self.budgets().any(|budget| budget.share.is_some())
    }

    /// Whether any budget or bucket is shared with other proxies.
    pub(crate) fn has_shared(&self) -> bool {
        self.is_shared() || self.has_shared_buckets()
    }

    /// Whether any bucket is shared with other proxies.
    pub(crate) fn has_shared_buckets(&self) -> bool {
        let is_shared = |quota: &Quota| quota.share.is_some();
        let others = &mut self.others.iter();
        self.bucket.as_ref().is_some_and(is_shared)
            || others.any(|limit| match &limit.rule {
                Rule::Tokens(quota) | Rule::Requests(quota) => is_shared(quota),
                Rule::Budget(_) | Rule::Concurrency(_) => false,
            })
    }

    /// How long a reservation stays held, which is the same for all limits.
    pub(crate) fn budget_expiry(&self) -> Duration {
        let others = self.others.iter().filter_map(|limit| limit.rule.budget());
        let mut all = self.budget.iter().chain(others);
        all.next()
            .map_or(DEFAULT_EXPIRY, |budget| budget.reservation_expiry)
    }

    /// How many tokens a usage counts as in budgets and buckets of tokens.
    pub(crate) fn counted(&self, usage: &Usage) -> Tokens {
        let weights = self.weights.as_ref();
        weights.map_or_else(|| usage.total(), |weights| weights.of(usage))
    }

    /// Whether requests may name this model, or each model of a list. Which model serves is up to the ladder.
    pub(crate) fn allows(&self, model: &str) -> bool {
        let allowed = self.models.as_ref();
        allowed.is_none_or(|globs| {
            models(model).all(|model| globs.iter().any(|glob| matches(glob, model)))
        })
    }

    /// The most that may be spent: the budget, plus its overdraft for the last tier of a ladder.
    pub(crate) fn most(&self, budget: &Budget, account: &Account) -> u64 {
        match self.on_exhausted {
            OnExhausted::Degrade { overdraft } => budget.overdrawn(account, overdraft),
            OnExhausted::Throttle => budget.allowance(account),
        }
    }

    /// The low-water mark of a tier: the tenant's own mark by the tier's name, else its own mark of the last tier, else the tier's mark.
    pub(crate) fn below(&self, ladder: &Ladder, tier: usize) -> Option<Ppm> {
        let is_last = tier == ladder.last();
        let tier = ladder.tiers.get(tier)?;
        let own = self.preferences.below(&tier.name);
        own.or_else(|| self.low_water_mark.filter(|_| is_last))
            .or(tier.below)
    }
}

/// What a plan or a tenant prefers on every ladder, by the tiers' names. A name has no effect on a ladder without such a tier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preferences {
    /// The tiers that requests may be sent to; `None` for all.
    pub tiers: Option<Vec<String>>,
    /// No request is sent below this tier.
    pub floor: Option<String>,
    /// Marks that replace the tiers' own.
    pub below: Vec<(String, Ppm)>,
}

impl Preferences {
    /// The plan's or tenant's own mark of a tier.
    pub(crate) fn below(&self, tier: &str) -> Option<Ppm> {
        let own = self.below.iter().find(|(name, _)| name == tier);
        own.map(|&(_, below)| below)
    }

    pub(crate) fn allows(&self, tier: &str) -> bool {
        self.tiers
            .as_ref()
            .is_none_or(|names| names.iter().any(|name| name == tier))
    }

    /// The last tier that requests may be sent to.
    pub(crate) fn floor(&self, ladder: &Ladder) -> usize {
        let floor = self.floor.as_ref();
        let floor = floor.and_then(|floor| ladder.tiers.iter().position(|t| t.name == *floor));
        floor.unwrap_or_else(|| ladder.last())
    }
}

/// Keeps conversations on the tier where they were served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// The request header that names a conversation; `None`: the conversation's beginning identifies it.
    pub header: Option<String>,
    /// The share of a low-water mark down to which a conversation keeps its tier. Above 0, and at most 1.
    pub keep: Ppm,
}
