//! The decision: which tier serves a request, or why none does. Pure: configuration and state in, a value out.
//!
//! The order of the rules:
//!
//! 1. The token bucket must hold the request's cells.
//! 2. The tier starts at the one that was asked for, and goes down to the lowest whose low-water mark the remaining
//!    budget has crossed, or to the last one while the bucket is under its own mark. Never up.
//! 3. The first tier from there whose reservation the budget can hold serves.
//! 4. Where none can, the plan's overdraft may admit the request on the last tier.
//! 5. Where several limits refuse, the strictest is told: never, spent, not yet, held.
//!
//! A tenant that must not be downgraded only ever gets the tier it asks for.

use std::time::Duration;

use crate::bucket::{NotNow, Quota};
use crate::estimate::Estimate;
use crate::ledger::Budget;
use crate::record::Record;
use crate::tier::{Ladder, Place, Price};
use crate::units::{Cost, Ppm, Timestamp};

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
}

/// What a request asks for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// `None` for a model on no ladder, which keeps its name.
    pub place: Option<Place<'a>>,
    /// What it may cost.
    pub estimate: Estimate,
    /// What a model on no ladder costs.
    pub unlisted_price: Option<&'a Price>,
}

/// What is to be done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send it, at this tier (an index into the ladder; 0 without one).
    Admit {
        /// Never above the tier that was asked for.
        tier: usize,
        /// Why it is lower, if it is.
        reason: Option<Reason>,
        /// What to reserve on the budget.
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

/// Why a request is served at a lower tier than it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Less of the budget remains than the tier's low-water mark, or than the asked tier would cost.
    BudgetLow,
    /// The token bucket is under its low-water mark.
    BucketLow,
    /// The budget is spent and the overdraft serves.
    BudgetExhausted,
}

/// Why a request is not served. From the mildest to the strictest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Requests in flight hold what is left of the budget; some of it will come back.
    BudgetHeld,
    /// The token bucket holds enough cells again after this time.
    BucketEmpty(Duration),
    /// What is left of the budget is less than the request may cost. `None`: waiting does not help, since the budget
    /// never starts anew or is less itself.
    BudgetExhausted(Option<Duration>),
    /// More than the token bucket can ever hold.
    ExceedsBurst,
}

/// Decides about a request. `record` must be as of `now` (see [`crate::admission`]).
#[must_use]
pub fn decide(limits: &Limits, ask: &Ask<'_>, record: &Record, now: Timestamp) -> Decision {
    let bucket = check_bucket(limits, ask, record, now);
    match (bucket, choose(limits, ask, record, now)) {
        (Ok(()), decision) => decision,
        (Err(bucket), Decision::Refuse { tier, refusal }) => Decision::Refuse {
            tier,
            refusal: bucket.max(refusal),
        },
        (Err(refusal), Decision::Admit { tier, .. }) => Decision::Refuse { tier, refusal },
    }
}

/// Whether a request whose tier is settled still fits now that its cost is known better.
///
/// # Errors
/// The refusal, where it does not.
pub fn recheck(
    limits: &Limits,
    ask: &Ask<'_>,
    tier: usize,
    record: &Record,
    now: Timestamp,
) -> Result<Cost, Refusal> {
    check_bucket(limits, ask, record, now)?;
    let cost = ask.cost(tier);
    let Some(budget) = &limits.budget else {
        return Ok(cost);
    };
    let may_overdraw = ask.is_last(tier) && !limits.never_downgrade;
    let limit = if may_overdraw {
        limits.most(budget)
    } else {
        budget.initial_budget
    };
    fits(budget, record, limit, cost, now).map(|()| cost)
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
    ask: &Ask<'_>,
    record: &Record,
    now: Timestamp,
) -> Result<(), Refusal> {
    let Some(quota) = &limits.bucket else {
        return Ok(());
    };
    quota
        .check(record.bucket, ask.estimate.cells(), now)
        .map_err(|not_now| match not_now {
            NotNow::ExceedsBurst => Refusal::ExceedsBurst,
            NotNow::Wait(wait) => Refusal::BucketEmpty(wait),
        })
}

/// Rules 2 to 4.
fn choose(limits: &Limits, ask: &Ask<'_>, record: &Record, now: Timestamp) -> Decision {
    let asked = ask.place.map_or(0, |place| place.asked);
    let ladder = ask
        .place
        .map(|place| place.ladder)
        .filter(|_| !limits.never_downgrade);
    let (marked, reason) = ladder.map_or((asked, None), |ladder| {
        mark(limits, ladder, asked, record, now)
    });
    let last = ladder.map_or(asked, |ladder| ladder.last().max(asked));
    let Some(budget) = &limits.budget else {
        return Decision::Admit {
            tier: marked,
            reason,
            reserve: ask.cost(marked),
        };
    };
    let fitting = (marked..=last)
        .find(|&tier| fits(budget, record, budget.initial_budget, ask.cost(tier), now).is_ok());
    if let Some(tier) = fitting {
        let reason = if tier > marked {
            Some(Reason::BudgetLow)
        } else {
            reason
        };
        return Decision::Admit {
            tier,
            reason,
            reserve: ask.cost(tier),
        };
    }
    let reserve = ask.cost(last);
    let limit = if ladder.is_some() {
        limits.most(budget)
    } else {
        budget.initial_budget
    };
    let verdict = fits(budget, record, limit, reserve, now);
    match verdict {
        Ok(()) => Decision::Admit {
            tier: last,
            reason: Some(Reason::BudgetExhausted),
            reserve,
        },
        Err(refusal) => Decision::Refuse {
            tier: marked,
            refusal,
        },
    }
}

/// The lowest tier whose mark is crossed, and why; the asked one if none is.
fn mark(
    limits: &Limits,
    ladder: &Ladder,
    asked: usize,
    record: &Record,
    now: Timestamp,
) -> (usize, Option<Reason>) {
    let last = ladder.last();
    let by_budget = limits.budget.as_ref().and_then(|budget| {
        let remaining = budget.remaining(&record.account);
        (0..=last).rev().find(|&tier| {
            let own = ladder.tiers.get(tier).and_then(|tier| tier.below);
            let below = limits
                .low_water_mark
                .filter(|_| tier == last && tier > 0)
                .or(own);
            below.is_some_and(|below| below.is_above(remaining, budget.initial_budget))
        })
    });
    let is_low = limits
        .bucket
        .is_some_and(|quota| quota.is_low(record.bucket, now));
    let by_bucket = is_low.then_some(last);
    match (
        by_budget.filter(|&tier| tier > asked),
        by_bucket.filter(|&tier| tier > asked),
    ) {
        (Some(tier), bucket) if bucket.is_none_or(|bucket| tier >= bucket) => {
            (tier, Some(Reason::BudgetLow))
        }
        (_, Some(tier)) => (tier, Some(Reason::BucketLow)),
        _ => (asked, None),
    }
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

impl Ask<'_> {
    /// What to reserve at a tier.
    fn cost(&self, tier: usize) -> Cost {
        self.estimate.ceiling(self.price(tier))
    }

    /// The price at a tier.
    #[must_use]
    pub fn price(&self, tier: usize) -> Option<&Price> {
        match &self.place {
            Some(place) => place
                .ladder
                .tiers
                .get(tier)
                .and_then(|tier| tier.price.as_ref()),
            None => self.unlisted_price,
        }
    }

    fn is_last(&self, tier: usize) -> bool {
        self.place.is_some_and(|place| tier >= place.ladder.last())
    }
}

#[cfg(test)]
mod tests;
