//! Where there is room for a request: in the tenant's limits, and in a tier's capacity.

use super::preferences::{Choice, Reach};
use super::standing::{standings, strictest};
use super::{Decision, Expected, LimitRefusal, Reason, Refusal, Request, maximum};
use crate::base::units::Timestamp;
use crate::estimate::Estimate;
use crate::plan::Limits;
use crate::state::record::Record;
use crate::tier::TierSet;

/// A request, and what the decision about it depends on.
pub(super) struct Case<'a> {
    pub(super) limits: &'a Limits,
    pub(super) request: &'a Request<'a>,
    pub(super) record: &'a Record,
    pub(super) now: Timestamp,
}

impl Case<'_> {
    /// The longest answers that a tier may give to the request, and what it may cost there.
    pub(super) fn usual(&self, tier: usize) -> (Option<u64>, Estimate, Expected) {
        let most = self.request.most_output(tier);
        let estimate = self
            .request
            .at(tier, most, self.limits, self.record, self.now);
        let (most, estimate) = maximum::lowered(self.limits, self.request, tier, most, estimate);
        (most, estimate, self.expected(tier, &estimate))
    }

    fn expected(&self, tier: usize, estimate: &Estimate) -> Expected {
        let &Self {
            limits,
            record,
            now,
            ..
        } = self;
        self.request.expected(tier, estimate, limits, record, now)
    }

    /// Whether all limits that depend on the tier have room for the request there. `overdraw`: the overdraft may be used.
    pub(super) fn holds(
        &self,
        tier: usize,
        estimate: &Estimate,
        expected: &Expected,
        overdraw: bool,
    ) -> Result<(), LimitRefusal> {
        let all = standings(self.limits, self.request.conditions.books, self.record);
        let here =
            all.filter(|limit| limit.depends_on_tier() && limit.holds_at(self.request, tier));
        strictest(here.map(|limit| limit.check(estimate, expected, overdraw, self.now)))
    }

    /// Rules 8 and 9: the first of these tiers whose cost fits the budget and that has room. If none has room: a refusal until the first of
    /// those whose cost fits has room again. `None` if no tier's cost fits the budget.
    pub(super) fn first_with_room(&self, start: Choice, tiers: TierSet) -> Option<Decision> {
        let mut by_budget = None;
        let mut full: Option<(usize, Refusal)> = None;
        for tier in tiers.iter() {
            let (most_output, estimate, expected) = self.usual(tier);
            if self.holds(tier, &estimate, &expected, false).is_err() {
                continue;
            }
            let by_budget = *by_budget.get_or_insert(tier);
            let room = match self.request.room_at(tier) {
                Some(room) => room.check(estimate.tokens(), self.now),
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
                    most_output,
                    estimate,
                    expected,
                });
            };
            let refusal = Refusal::from(not_now);
            if full.is_none_or(|(_, sooner)| refusal.is_milder_than(sooner)) {
                full = Some((tier, refusal));
            }
        }
        full.map(|(tier, refusal)| Decision::Refuse {
            tier,
            refusal,
            limit: None,
        })
    }

    /// Rule 10, for a request that as it is fits the budget at no tier.
    pub(super) fn squeezed(&self, start: usize, reach: &Reach) -> Decision {
        let &Self {
            limits,
            request,
            record,
            now,
        } = self;
        let lowest = reach.from(start).last().unwrap_or(start);
        let (most, usual, expected) = self.usual(lowest);
        let (reason, most_output, estimate, short) =
            match shortened(limits, request, lowest, most, record, now) {
                Some(most) => (Reason::BudgetLow, Some(most), usual.cut(most), Ok(())),
                None => {
                    let short = self.holds(lowest, &usual, &expected, reach.may_overdraw(lowest));
                    (Reason::BudgetExhausted, most, usual, short)
                }
            };
        let room = request.room_at(lowest);
        let room = room.map_or(Ok(()), |room| room.check(estimate.tokens(), now));
        match (short, room.map_err(LimitRefusal::from)) {
            (Ok(()), Ok(())) => Decision::Admit {
                tier: lowest,
                reason: Some(reason),
                most_output,
                estimate,
                expected: self.expected(lowest, &estimate),
            },
            (Err(short), Ok(())) => Decision::refuse(start, short),
            (short, Err(full)) => {
                let strictest = short.map_or_else(|short| short.or_stricter(full), |()| full);
                Decision::refuse(lowest, strictest)
            }
        }
    }
}

/// Whether all limits that do not depend on the tier have room for the request.
pub(super) fn check_rates(
    limits: &Limits,
    request: &Request<'_>,
    estimate: &Estimate,
    record: &Record,
    now: Timestamp,
) -> Result<(), LimitRefusal> {
    let all = standings(limits, request.conditions.books, record);
    let rates = all.filter(|limit| !limit.depends_on_tier());
    strictest(rates.map(|limit| limit.check(estimate, &Expected::default(), false, now)))
}

/// The longest answer with which all budgets still hold the request, if that answer is long enough to be of use and only budgets were in
/// the way.
fn shortened(
    limits: &Limits,
    request: &Request<'_>,
    tier: usize,
    longest: Option<u64>,
    record: &Record,
    now: Timestamp,
) -> Option<u64> {
    let least = limits.min_output_tokens?.max(request.scope.least_output?);
    let all = standings(limits, request.conditions.books, record);
    let here = all.filter(|limit| limit.holds_at(request, tier));
    let budgets = here.filter_map(|limit| limit.room(now));
    let lengths =
        budgets.map(|(budget, room)| request.most_within(tier, budget.unit, room, record));
    let most = lengths.min()??;
    let most = longest.map_or(most, |limit| limit.min(most));
    (most >= least).then_some(most)
}
