//! Where there is room for a request: in the tenant's bucket and budget, and in a tier's capacity.

use super::preferences::{Choice, Reach};
use super::{Ask, Decision, Limits, Reason, Refusal};
use crate::bucket::NotNow;
use crate::estimate::Estimate;
use crate::ledger::Budget;
use crate::record::Record;
use crate::tier::TierSet;
use crate::units::{Cost, Timestamp};

/// A request, and what there is for it.
pub(super) struct Case<'a> {
    pub(super) limits: &'a Limits,
    pub(super) ask: &'a Ask<'a>,
    pub(super) record: &'a Record,
    pub(super) now: Timestamp,
}

impl Case<'_> {
    /// What it may cost at a tier, and what to reserve for that.
    fn usual(&self, tier: usize) -> (Estimate, Cost) {
        let most = self.ask.most_output(tier);
        let estimate = self.ask.at(tier, most, self.limits, self.record, self.now);
        (estimate, self.ask.reserve(tier, &estimate))
    }

    /// Whether the budget, if there is one, can hold so much.
    fn holds(&self, cost: Cost, limit: impl Fn(&Budget) -> u64) -> Result<(), Refusal> {
        let Some(budget) = &self.limits.budget else {
            return Ok(());
        };
        fits(budget, self.record, limit(budget), cost, self.now)
    }

    /// Rules 6 and 7: the first of these tiers that the budget holds and that has room, or when the first of those that the
    /// budget holds has room again. `None` if the budget holds none.
    pub(super) fn first_with_room(&self, start: Choice, tiers: TierSet) -> Option<Decision> {
        let mut by_budget = None;
        let mut full: Option<(usize, Refusal)> = None;
        for tier in tiers.iter() {
            let (estimate, reserve) = self.usual(tier);
            if self.holds(reserve, |budget| budget.initial_budget).is_err() {
                continue;
            }
            let by_budget = *by_budget.get_or_insert(tier);
            let room = match self.ask.room_at(tier) {
                Some(room) => room.check(estimate.cells(), self.now),
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
                return Some(Decision::Admit {
                    tier,
                    reason,
                    most_output: self.ask.most_output(tier),
                    estimate,
                    reserve,
                });
            };
            let refusal = Refusal::from(not_now);
            if full.is_none_or(|(_, sooner)| refusal.is_milder_than(sooner)) {
                full = Some((tier, refusal));
            }
        }
        full.map(|(tier, refusal)| Decision::Refuse { tier, refusal })
    }

    /// Rule 8, where the budget holds it nowhere as it is.
    pub(super) fn squeezed(&self, start: usize, reach: &Reach) -> Decision {
        let &Self {
            limits,
            ask,
            record,
            now,
        } = self;
        let lowest = reach.from(start).last().unwrap_or(start);
        let (usual, cost) = self.usual(lowest);
        let (reason, most_output, estimate, short) = match shortened(limits, ask, lowest, record) {
            Some(most) => (Reason::BudgetLow, Some(most), usual.cut(most), Ok(())),
            None => {
                let limit = |budget: &Budget| match reach.may_overdraw(lowest) {
                    true => limits.most(budget),
                    false => budget.initial_budget,
                };
                let short = self.holds(cost, limit);
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

/// Whether the token bucket, if there is one, holds the cells of a request.
pub(super) fn check_bucket(
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
pub(super) fn fits(
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

/// The refusal of a budget that is spent.
pub(super) fn exhausted(budget: &Budget, now: Timestamp) -> Refusal {
    let end = budget.period.at(now).end;
    Refusal::BudgetExhausted((end != Timestamp::MAX).then(|| end.since(now)))
}
