//! The decision: which tier serves a request, or why none does. Pure: configuration and state in, a value out.
//!
//! The order of the rules:
//!
//! 1. The token bucket must hold the request's cells.
//! 2. The tier starts at the one that was asked for. Never up.
//! 3. *Marks*: it goes down to the lowest whose low-water mark the remaining budget has crossed, or to the last one while
//!    the bucket is under its own mark. Pace may have moved a mark up ([`crate::pace`]), and a tier where the tenant is
//!    already is left only past its mark by a margin.
//! 4. *Conversation*: where its conversation was served in this window, it stays, as long as what remains does not come to a
//!    share of the next mark ([`Sticky`]).
//! 5. *Preferences*: of the tiers that the tenant may be sent to, down to its floor, and that can serve the request, the
//!    nearest from there upwards; downwards, where only the asked tier is left and that is not allowed.
//! 6. *SLA*: where that one's answers begin too late just now, the next one downwards whose answers do not. Where there is
//!    none it stays: a lesser model that is late, too, helps nobody.
//! 7. *Budget*: the first of those from there downwards whose reservation the budget can hold serves.
//! 8. *Capacity*: where a tier's shared capacity ([`crate::capacity`]) has no room for the request, the next of those serves
//!    that has. Rather than to be refused, it goes back to one that is slow.
//! 9. Where the budget can hold none, the plan may limit the request's output to what it still holds, on the lowest tier; else
//!    the plan's overdraft may admit the request on the last tier that is allowed. Either way that tier must have room, too.
//! 10. Where several limits refuse, the strictest is told: never, spent, not yet, held.
//!
//! Where several rules lower the tier, the reason is of the one that fixed it; on a tie, of the earlier. A tenant that must
//! not be downgraded only ever gets the tier it asks for.

mod ask;
mod conversation;
mod marks;
mod preferences;
mod shadow;

use std::time::Duration;

pub use ask::{Ask, Conditions, Scope};
pub use conversation::{Sticky, Talk};
pub use marks::remember;
pub use preferences::Preferences;
pub use shadow::{Would, let_through};

use crate::bucket::{NotNow, Quota};
use crate::capacity::Priority;
use crate::estimate::Estimate;
use crate::ledger::Budget;
use crate::pace::Pace;
use crate::record::Record;
use crate::tier::{Ladder, TierSet};
use crate::units::{Cost, Ppm, Timestamp};
use preferences::{Choice, Reach};

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
    fn most(&self, budget: &Budget) -> u64 {
        match self.on_exhausted {
            OnExhausted::Degrade { overdraft } => budget.overdrawn(overdraft),
            OnExhausted::Throttle => budget.initial_budget,
        }
    }

    /// The low-water mark of a tier: the tenant's own by its name, else the tenant's own of the last one, else the tier's.
    fn below(&self, ladder: &Ladder, tier: usize) -> Option<Ppm> {
        let is_last = tier == ladder.last();
        let tier = ladder.tiers.get(tier)?;
        let own = self.preferences.below(&tier.name);
        own.or_else(|| self.low_water_mark.filter(|_| is_last))
            .or(tier.below)
    }
}

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

    fn is_milder_than(self, other: Self) -> bool {
        self.strictness() < other.strictness()
    }

    /// Of this and a later rule's, the stricter one; on a tie, this.
    fn or_stricter(self, later: Self) -> Self {
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

/// Decides about a request. `record` must be as of `now` (see [`crate::admission`]).
#[must_use]
pub fn decide(limits: &Limits, ask: &Ask<'_>, record: &Record, now: Timestamp) -> Decision {
    let decision = choose(limits, ask, record, now);
    let estimate = match decision {
        Decision::Admit { estimate, .. } => estimate,
        Decision::Refuse { tier, .. } => ask.at(tier, ask.most_output(tier), limits, record, now),
    };
    match (check_bucket(limits, &estimate, record, now), decision) {
        (Ok(()), decision) => decision,
        (Err(bucket), Decision::Refuse { tier, refusal }) => Decision::Refuse {
            tier,
            refusal: bucket.or_stricter(refusal),
        },
        (Err(refusal), Decision::Admit { tier, .. }) => Decision::Refuse { tier, refusal },
    }
}

/// Whether a request whose tier and longest answer are settled still fits now that its cost is known better: what it may
/// cost, and what to reserve for that.
///
/// # Errors
/// The refusal, where it does not.
pub fn recheck(
    limits: &Limits,
    ask: &Ask<'_>,
    tier: usize,
    most_output: Option<u64>,
    record: &Record,
    now: Timestamp,
) -> Result<(Estimate, Cost), Refusal> {
    let estimate = ask.at(tier, most_output, limits, record, now);
    check_bucket(limits, &estimate, record, now)?;
    let cost = ask.reserve(tier, &estimate);
    let Some(budget) = &limits.budget else {
        return Ok((estimate, cost));
    };
    let limit = if Reach::of(limits, ask).may_overdraw(tier) {
        limits.most(budget)
    } else {
        budget.initial_budget
    };
    fits(budget, record, limit, cost, now).map(|()| (estimate, cost))
}

/// The refusal of a tenant that could not even send an empty request, if it is one.
#[must_use]
pub fn spent_out(limits: &Limits, record: &Record, now: Timestamp) -> Option<Refusal> {
    let budget = limits.budget.as_ref()?;
    let limit = if limits.never_downgrade {
        budget.initial_budget
    } else {
        limits.most(budget)
    };
    (budget.unspent(&record.account, limit) == 0).then(|| exhausted(budget, now))
}

fn check_bucket(
    limits: &Limits,
    estimate: &Estimate,
    record: &Record,
    now: Timestamp,
) -> Result<(), Refusal> {
    let Some(quota) = &limits.bucket else {
        return Ok(());
    };
    quota
        .check(record.bucket, estimate.cells(), now)
        .map_err(|not_now| match not_now {
            NotNow::ExceedsBurst => Refusal::ExceedsBurst,
            NotNow::Wait(wait) => Refusal::BucketEmpty(wait),
        })
}

/// Rules 2 to 9.
fn choose(limits: &Limits, ask: &Ask<'_>, record: &Record, now: Timestamp) -> Decision {
    let reach = Reach::of(limits, ask);
    let wanted = reach.nearest(conversation::wanted(limits, ask, record, now), ask);
    let start = prompt(&reach, wanted, ask.conditions.slow);
    let case = Case {
        limits,
        ask,
        record,
        now,
    };
    let Some(first) = case.first_with_room(start, reach.from(start.tier)) else {
        return case.squeezed(start.tier, &reach);
    };
    let Decision::Refuse { refusal, .. } = first else {
        return first;
    };
    // Rather slow than not at all.
    let slow = reach
        .from(wanted.tier)
        .take_while(|&tier| tier < start.tier);
    match case.first_with_room(wanted, slow) {
        Some(Decision::Refuse { refusal: other, .. }) if !other.is_milder_than(refusal) => first,
        other => other.unwrap_or(first),
    }
}

/// A request, and what there is for it.
struct Case<'a> {
    limits: &'a Limits,
    ask: &'a Ask<'a>,
    record: &'a Record,
    now: Timestamp,
}

impl Case<'_> {
    /// What it may cost at a tier.
    fn usual(&self, tier: usize) -> Estimate {
        let most = self.ask.most_output(tier);
        self.ask.at(tier, most, self.limits, self.record, self.now)
    }

    fn admit(&self, tier: usize, reason: Option<Reason>) -> Decision {
        let estimate = self.usual(tier);
        Decision::Admit {
            tier,
            reason,
            most_output: self.ask.most_output(tier),
            estimate,
            reserve: self.ask.reserve(tier, &estimate),
        }
    }

    /// Whether the budget, if there is one, can hold it at a tier.
    fn holds(&self, tier: usize, limit: impl Fn(&Budget) -> u64) -> Result<(), Refusal> {
        let Some(budget) = &self.limits.budget else {
            return Ok(());
        };
        let cost = self.ask.reserve(tier, &self.usual(tier));
        fits(budget, self.record, limit(budget), cost, self.now)
    }

    /// Rules 6 and 7: the first of these tiers that the budget holds and that has room, or when the first of those that the
    /// budget holds has room again. `None` if the budget holds none.
    fn first_with_room(
        &self,
        start: Choice,
        tiers: impl Iterator<Item = usize>,
    ) -> Option<Decision> {
        let mut by_budget = None;
        let mut full: Option<(usize, Refusal)> = None;
        for tier in tiers.filter(|&tier| self.holds(tier, |budget| budget.initial_budget).is_ok()) {
            let by_budget = *by_budget.get_or_insert(tier);
            let room = match self.ask.room_at(tier) {
                Some(room) => room.check(self.usual(tier).cells(), self.now),
                None => Ok(()),
            };
            let Err(not_now) = room else {
                let reason = if tier > by_budget {
                    Some(Reason::TierCapacity)
                } else if tier > start.tier {
                    Some(Reason::BudgetLow)
                } else {
                    start.reason
                };
                return Some(self.admit(tier, reason));
            };
            let refusal = Refusal::from(not_now);
            if full.is_none_or(|(_, sooner)| refusal.is_milder_than(sooner)) {
                full = Some((tier, refusal));
            }
        }
        full.map(|(tier, refusal)| Decision::Refuse { tier, refusal })
    }

    /// Rule 8, where the budget holds it nowhere as it is.
    fn squeezed(&self, start: usize, reach: &Reach) -> Decision {
        let &Self {
            limits,
            ask,
            record,
            now,
        } = self;
        let lowest = reach.from(start).next_back().unwrap_or(start);
        let usual = self.usual(lowest);
        let (reason, most_output, estimate, short) = match shortened(limits, ask, lowest, record) {
            Some(most) => (Reason::BudgetLow, Some(most), usual.cut(most), Ok(())),
            None => {
                let limit = |budget: &Budget| match reach.may_overdraw(lowest) {
                    true => limits.most(budget),
                    false => budget.initial_budget,
                };
                let short = self.holds(lowest, limit);
                (
                    Reason::BudgetExhausted,
                    ask.most_output(lowest),
                    usual,
                    short,
                )
            }
        };
        let room = ask.room_at(lowest);
        let room = room.map_or(Ok(()), |room| room.check(estimate.cells(), now));
        match (short, room.map_err(Refusal::from)) {
            (Ok(()), Ok(())) => Decision::Admit {
                tier: lowest,
                reason: Some(reason),
                most_output,
                estimate,
                reserve: ask.reserve(lowest, &estimate),
            },
            (Err(refusal), Ok(())) => Decision::Refuse {
                tier: start,
                refusal,
            },
            (short, Err(full)) => Decision::Refuse {
                tier: lowest,
                refusal: short.map_or_else(|short| short.or_stricter(full), |()| full),
            },
        }
    }
}

/// The next tier that may serve and is not slow, if the chosen one is and there is one.
fn prompt(reach: &Reach, chosen: Choice, slow: TierSet) -> Choice {
    if !slow.has(chosen.tier) {
        return chosen;
    }
    let next = reach.from(chosen.tier).find(|&tier| !slow.has(tier));
    next.map_or(chosen, |tier| Choice {
        tier,
        reason: Some(Reason::Sla),
    })
}

/// The longest answer with which the budget still holds the request, if that is long enough to be of use.
fn shortened(limits: &Limits, ask: &Ask<'_>, tier: usize, record: &Record) -> Option<u64> {
    let budget = limits.budget.as_ref()?;
    let least = limits.min_output_tokens?.max(ask.scope.least_output?);
    let room = budget.headroom(&record.account, budget.initial_budget);
    let most = ask.most_within(tier, budget.unit, room, record)?;
    let most = ask.most_output(tier).map_or(most, |limit| limit.min(most));
    (most >= least).then_some(most)
}

/// Whether the budget can hold `cost` under `limit`.
fn fits(
    budget: &Budget,
    record: &Record,
    limit: u64,
    cost: Cost,
    now: Timestamp,
) -> Result<(), Refusal> {
    let cost = budget.unit.of(cost);
    if cost > limit {
        // No window's end will make it fit.
        return Err(Refusal::BudgetExhausted(None));
    }
    // A request that costs nothing does not pass on a spent budget either.
    if cost.max(1) > budget.unspent(&record.account, limit) {
        return Err(exhausted(budget, now));
    }
    if cost > budget.headroom(&record.account, limit) {
        return Err(Refusal::BudgetHeld);
    }
    Ok(())
}

fn exhausted(budget: &Budget, now: Timestamp) -> Refusal {
    let end = budget.period.at(now).end;
    Refusal::BudgetExhausted((end != Timestamp::MAX).then(|| end.since(now)))
}

#[cfg(test)]
mod tests;
