//! What plans and tenants may use, as the decision reads it.

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

/// What a plan grants, with a tenant's own settings applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// What may be spent.
    pub budget: Option<Budget>,
    /// How fast.
    pub bucket: Option<Quota>,
    /// All other limits, at most [`crate::limits::stacked::LIMITS`].
    pub others: Vec<Limit>,
    /// Limits of each of the tenant's subjects, by their kind.
    pub subjects: Vec<SubjectLimits>,
    /// Shares of the budgets that are children's. At most [`crate::limits::lend::CHILDREN`].
    pub guarantees: Vec<Guarantee>,
    /// Budgets hold what a request is likely to cost, and not what it may cost.
    pub holds_likely: bool,
    /// What happens when the budget is spent.
    pub on_exhausted: OnExhausted,
    /// How much tokens count in budgets and buckets of tokens, by their kind; `None`: all the same.
    pub weights: Option<Weights>,
    /// The most that one request may cost.
    pub max_request: Option<Maximum>,
    /// Globs of the models that may be requested; `None` for all.
    pub models: Option<Vec<String>>,
    /// Keeps the requested model, whatever remains.
    pub never_downgrade: bool,
    /// Takes the place of the last tier's own mark.
    pub low_water_mark: Option<Ppm>,
    /// Rather than to be refused for what its answer may cost, a request may have its output limited to what the budget
    /// still holds, if that is at least this many tokens.
    pub min_output_tokens: Option<u64>,
    /// The marks rise where what remains would not last until the window's end.
    pub pace: Option<Pace>,
    /// A tier is left only when what remains has risen past its mark by this fraction of the budget, or the window ends.
    pub hysteresis: Option<Ppm>,
    /// Conversations stay where they are.
    pub sticky: Option<Sticky>,
    /// Which tiers its requests may be sent to, and below which marks.
    pub preferences: Preferences,
    /// What it may take of a tier's capacity.
    pub priority: Priority,
    /// How soon its answers are to begin.
    pub sla: Option<Sla>,
    /// Decide, meter and report, but change and refuse nothing.
    pub shadow: bool,
}

/// The most that one request may cost, estimated from its prompt and its output limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maximum {
    /// What is counted.
    pub unit: Unit,
    /// In `unit`.
    pub most: u64,
}

/// Limits of each subject of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectLimits {
    /// Where the kind stands among the configured ones.
    pub index: usize,
    /// Its name.
    pub kind: Name,
    /// What each of them may use.
    pub limits: Limits,
}

/// How soon answers are to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sla {
    /// 95 % of them are to begin within this time, in whole milliseconds. From 1 ms to [`crate::tier::latency::LONGEST`].
    pub p95: Duration,
}

/// What happens when the budget is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExhausted {
    /// Refuse until the window's end.
    #[default]
    Throttle,
    /// Go on at the last tier, up to this fraction of the budget on top of it.
    Degrade {
        /// 0.1 of 1,000 tokens allows 1,100.
        overdraft: Ppm,
    },
}

impl Limits {
    /// Place of the `budget` among the limits.
    pub const BUDGET: usize = 0;

    /// Place of the `bucket`.
    pub const BUCKET: usize = 1;

    /// Place of the first of the others.
    pub const OTHERS: usize = 2;

    /// Place of the most that one request may cost.
    pub const MAX_REQUEST: usize = usize::MAX;

    /// The name of the limit at a place.
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

    /// Whether there is any.
    pub(crate) fn has_any(&self) -> bool {
        self.budget.is_some() || self.bucket.is_some() || !self.others.is_empty()
    }

    /// All budgets, the `budget` first.
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

    /// Whether any budget or bucket is.
    pub(crate) fn has_shared(&self) -> bool {
        self.is_shared() || self.has_shared_buckets()
    }

    /// Whether any bucket is.
    pub(crate) fn has_shared_buckets(&self) -> bool {
        let is_shared = |quota: &Quota| quota.share.is_some();
        let others = &mut self.others.iter();
        self.bucket.as_ref().is_some_and(is_shared)
            || others.any(|limit| match &limit.rule {
                Rule::Tokens(quota) | Rule::Requests(quota) => is_shared(quota),
                Rule::Budget(_) | Rule::Concurrency(_) => false,
            })
    }

    /// How long a reservation stays held: the same for all limits.
    pub(crate) fn budget_expiry(&self) -> Duration {
        let others = self.others.iter().filter_map(|limit| limit.rule.budget());
        let mut all = self.budget.iter().chain(others);
        all.next()
            .map_or(DEFAULT_EXPIRY, |budget| budget.reservation_expiry)
    }

    /// What a usage counts in budgets and buckets of tokens.
    pub(crate) fn counted(&self, usage: &Usage) -> Tokens {
        let weights = self.weights.as_ref();
        weights.map_or_else(|| usage.total(), |weights| weights.of(usage))
    }

    /// Whether a model may be requested, or each of several. Which ones serve is up to the ladder.
    pub(crate) fn allows(&self, model: &str) -> bool {
        let allowed = self.models.as_ref();
        allowed.is_none_or(|globs| {
            models(model).all(|model| globs.iter().any(|glob| matches(glob, model)))
        })
    }

    /// The budget with its overdraft, for the last tier of a ladder.
    pub(crate) fn most(&self, budget: &Budget, account: &Account) -> u64 {
        match self.on_exhausted {
            OnExhausted::Degrade { overdraft } => budget.overdrawn(account, overdraft),
            OnExhausted::Throttle => budget.allowance(account),
        }
    }

    /// The low-water mark of a tier: the tenant's own by its name, else the tenant's own of the last one, else the tier's.
    pub(crate) fn below(&self, ladder: &Ladder, tier: usize) -> Option<Ppm> {
        let is_last = tier == ladder.last();
        let tier = ladder.tiers.get(tier)?;
        let own = self.preferences.below(&tier.name);
        own.or_else(|| self.low_water_mark.filter(|_| is_last))
            .or(tier.below)
    }
}

/// What a plan or a tenant wants of every ladder, by the tiers' names. A name has no effect on a ladder that does not have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preferences {
    /// The tiers that requests may be sent to; `None` for all.
    pub tiers: Option<Vec<String>>,
    /// No request is sent below this tier.
    pub floor: Option<String>,
    /// Marks in place of the tiers' own.
    pub below: Vec<(String, Ppm)>,
}

impl Preferences {
    /// Its own mark of a tier.
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

/// That conversations stay where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// The request header that names a conversation; `None` to go by how it begins.
    pub header: Option<String>,
    /// The share of a low-water mark down to which a conversation stays where it is. From above 0 to 1.
    pub keep: Ppm,
}
