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
mod decision;
mod limits;
mod marks;
mod preferences;
mod room;
mod shadow;

pub use ask::{Ask, Conditions, Scope};
pub use conversation::{Sticky, Talk};
pub use decision::{Decision, Reason, Refusal};
pub use limits::{Limits, OnExhausted, Sla};
pub use marks::remember;
pub use preferences::Preferences;
pub use shadow::{Would, let_through};

use crate::estimate::Estimate;
use crate::record::Record;
use crate::tier::TierSet;
use crate::units::{Cost, Timestamp};
use preferences::{Choice, Reach};
use room::{Case, check_bucket, exhausted, fits};

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
    let slow = reach.from(wanted.tier).until(start.tier);
    match case.first_with_room(wanted, slow) {
        Some(Decision::Refuse { refusal: other, .. }) if !other.is_milder_than(refusal) => first,
        other => other.unwrap_or(first),
    }
}

/// The next tier that may serve and is not slow, if the chosen one is and there is one.
fn prompt(reach: &Reach, chosen: Choice, slow: TierSet) -> Choice {
    if !slow.has(chosen.tier) {
        return chosen;
    }
    let next = reach.from(chosen.tier).less(slow).first();
    next.map_or(chosen, |tier| Choice {
        tier,
        reason: Some(Reason::Sla),
    })
}

#[cfg(test)]
mod tests;
