//! What plans and tenants may use, as the decision reads it.

use std::time::Duration;

use super::{Preferences, Sticky};
use crate::bucket::Quota;
use crate::capacity::Priority;
use crate::ledger::Budget;
use crate::pace::Pace;
use crate::tier::Ladder;
use crate::units::Ppm;

/// What a plan grants, with a tenant's own settings applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// What may be spent.
    pub budget: Option<Budget>,
    /// How fast.
    pub bucket: Option<Quota>,
    /// What happens when the budget is spent.
    pub on_exhausted: OnExhausted,
    /// Keeps the model that was asked for, whatever remains.
    pub never_downgrade: bool,
    /// Takes the place of the last tier's own mark.
    pub low_water_mark: Option<Ppm>,
    /// Rather than to be refused for what its answer may cost, a request may have its output limited to what the budget
    /// still holds, if that is at least so many tokens.
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
    /// Decide, meter and tell, but change and refuse nothing.
    pub shadow: bool,
}

/// How soon answers are to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sla {
    /// 95 % of them are to begin within this time, in whole milliseconds. From 1 ms to [`crate::latency::LONGEST`].
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
    /// The budget with its overdraft, for the last tier of a ladder.
    pub(super) fn most(&self, budget: &Budget) -> u64 {
        match self.on_exhausted {
            OnExhausted::Degrade { overdraft } => budget.overdrawn(overdraft),
            OnExhausted::Throttle => budget.initial_budget,
        }
    }

    /// The low-water mark of a tier: the tenant's own by its name, else the tenant's own of the last one, else the tier's.
    pub(super) fn below(&self, ladder: &Ladder, tier: usize) -> Option<Ppm> {
        let is_last = tier == ladder.last();
        let tier = ladder.tiers.get(tier)?;
        let own = self.preferences.below(&tier.name);
        own.or_else(|| self.low_water_mark.filter(|_| is_last))
            .or(tier.below)
    }
}
