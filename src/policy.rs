//! The decision: which tier serves a request, or why none does. It is pure: it takes configuration and state, and returns a value.
//!
//! The order of the rules:
//!
//! 1. The token bucket must hold the request's cells, and every other limit that does not depend on the tier must have room. At the tier that
//!    serves it, the request must not cost more than one request may; where the plan allows it, its output is limited to keep that maximum.
//! 2. The search starts at the requested tier. A request is never sent to a higher one.
//! 3. *Marks*: the request goes down to the lowest tier whose low-water mark the remaining budget has crossed, or to the last tier while the
//!    bucket is under its own mark. Pace may have raised a mark ([`crate::limits::pace`]), and a tenant that a mark has
//!    lowered comes up again only once what remains is above that mark by a margin.
//! 4. *Conversation*: a request whose conversation was served in this window stays at that tier, until what remains falls to a share of the
//!    next mark ([`crate::plan::Sticky`]).
//! 5. *Preferences*: from here on only those tiers count that the tenant may use, down to its floor, and that can serve the request. The
//!    request moves up to the nearest of them, not above the requested one; if there is none, down to the nearest.
//! 6. *Upstream*: tiers whose upstream currently refuses ([`crate::tier::pressure`]) are left out, as long as another one remains at or below
//!    this tier. Where all upstreams refuse, the tier stays: a lesser model that is also refused helps nobody.
//! 7. *SLA*: where this tier's answers currently begin too late, the request goes to the next lower tier whose answers do not. Where there is
//!    none, the tier stays: a lesser model that is also late helps nobody.
//! 8. *Budget*: from this tier downwards, the first tier serves whose reservation fits into every budget, and into every limit on its model.
//!    If there is none, a tier whose upstream refuses may serve: the upstream's refusal says more than ours would.
//! 9. *Capacity*: where a tier's shared capacity ([`crate::limits::capacity`]) has no room for the request, the next lower tier that has room
//!    serves. A tier that is too slow is used rather than refusing the request.
//! 10. Where no tier's reservation fits into the budget, the plan may limit the request's output to what the budget still holds, on the
//!     lowest tier; otherwise the plan's overdraft may admit the request on the last allowed tier. Either way that tier must also have
//!     capacity.
//! 11. *Slices*: for a budget that proxies share, the rules above use what the store last reported as free. If that suffices but this proxy
//!     has not been granted it yet, the request is refused for a moment, and not lowered.
//! 12. Where several limits refuse, the one that refuses longest is reported. On a tie, a subject's limit comes before the tenant's, and the
//!     tenant's before a parent's; among limits of one payer the order is by kind: never, spent, not yet, held.
//!
//! Where several rules lower the tier, the reported reason is that of the rule that settled it; on a tie, of the earlier one. A tenant that
//! must not be downgraded only ever gets the requested tier.

mod book;
mod conversation;
mod decision;
mod lowered;
mod marks;
mod maximum;
mod preferences;
mod request;
mod room;
mod shadow;
mod standing;

pub use book::{Admitted, Book, Expected, Payer, check_book};
pub use conversation::ConversationPlacement;
pub use decision::{Decision, LimitIndex, LimitRefusal, Reason, Refusal};
pub use lowered::{LoweredBy, lowered_by};
pub use marks::remember;
pub use request::{Conditions, Request, Scope};
pub use shadow::{ShadowDecision, let_through};

use crate::base::units::{Cost, Timestamp};
use crate::estimate::Estimate;
use crate::limits::budget::Budget;
use crate::plan::Limits;
use crate::state::record::Record;
use crate::tier::TierSet;
use preferences::{Choice, Reach};
use room::{Case, check_rates};
use standing::{check_slices, standings, strictest};

/// Decides about a request. `record` must be as of `now` (see [`crate::admission`]).
#[must_use]
pub fn decide(limits: &Limits, request: &Request<'_>, record: &Record, now: Timestamp) -> Decision {
    let decision = choose(limits, request, record, now);
    let estimate = match decision {
        Decision::Admit { estimate, .. } => estimate,
        Decision::Refuse { tier, .. } => {
            let case = Case {
                limits,
                request,
                record,
                now,
            };
            case.usual(tier).1
        }
    };
    let (Decision::Admit { tier, .. } | Decision::Refuse { tier, .. }) = decision;
    let one = maximum::check(limits, request, tier, &estimate);
    let rates = one.and_then(|()| check_rates(limits, request, &estimate, record, now));
    let slices = rates.and_then(|()| match decision {
        Decision::Admit { expected, .. } => {
            let cost = expected.reserve(limits).cost;
            check_slices(limits, request, tier, cost, record, now)
        }
        Decision::Refuse { .. } => Ok(()),
    });
    let Err(short) = slices else { return decision };
    match decision {
        Decision::Admit { tier, .. } => Decision::refuse(tier, short),
        Decision::Refuse {
            tier,
            refusal,
            limit,
        } => Decision::refuse(tier, short.or_stricter(LimitRefusal { refusal, limit })),
    }
}

/// Whether a request whose tier and longest answer were already decided still fits, now that its possible cost is known better.
///
/// # Errors
/// The refusal, where the request does not fit.
pub fn recheck(
    limits: &Limits,
    request: &Request<'_>,
    tier: usize,
    most_output: Option<u64>,
    record: &Record,
    now: Timestamp,
) -> Result<(Estimate, Expected), LimitRefusal> {
    let estimate = request.at(tier, most_output, limits, record, now);
    maximum::check(limits, request, tier, &estimate)?;
    let expected = request.expected(tier, &estimate, limits, record, now);
    let overdraw = may_overdraw(limits, request, tier, record);
    let all = standings(limits, request.conditions.books, record);
    let here = all.filter(|limit| limit.holds_at(request, tier));
    strictest(here.map(|limit| limit.check(&estimate, &expected, overdraw, now)))?;
    let cost = expected.reserve(limits).cost;
    check_slices(limits, request, tier, cost, record, now)?;
    Ok((estimate, expected))
}

/// Whether a request that is served at a tier may use the overdraft. `record` is its tenant's.
#[must_use]
pub fn may_overdraw(limits: &Limits, request: &Request<'_>, tier: usize, record: &Record) -> bool {
    Reach::of(limits, request, record).may_overdraw(tier)
}

/// What a request is to reserve from budgets at a tier, and to take from token buckets.
#[must_use]
pub fn cost_at(
    limits: &Limits,
    request: &Request<'_>,
    tier: usize,
    record: &Record,
    now: Timestamp,
) -> (Cost, u64) {
    let case = Case {
        limits,
        request,
        record,
        now,
    };
    let (_, estimate, expected) = case.usual(tier);
    (expected.reserve(limits).cost, estimate.cells())
}

/// The refusal of a tenant whose budget could not even hold an empty request; `None` for any other tenant.
#[must_use]
pub fn spent_out(
    limits: &Limits,
    books: &[Book<'_>],
    record: &Record,
    now: Timestamp,
) -> Option<LimitRefusal> {
    let refusals = standings(limits, books, record).filter_map(|limit| {
        // A shared budget is not refused here: the store has to learn that more is wanted.
        let is_known = |budget: &Budget| budget.share.is_none() && limit.holds_for_all();
        let (budget, account) = limit.budget().filter(|(budget, _)| is_known(budget))?;
        let most = match limits.never_downgrade {
            true => budget.allowance(account),
            false => limit.limits.most(budget, account),
        };
        let room = limit.fits(budget, account, most, Cost::ZERO, now);
        room.err().map(|refusal| Err(limit.refuses(refusal)))
    });
    strictest(refusals).err()
}

/// Rules 2 to 10.
fn choose(limits: &Limits, request: &Request<'_>, record: &Record, now: Timestamp) -> Decision {
    let reach = Reach::of(limits, request, record);
    let nearest = reach.nearest(conversation::wanted(limits, request, record, now), request);
    let all = reach.from(nearest.tier);
    let (wanted, open) = open(all, nearest, request.conditions.pressed);
    let start = prompt(open, wanted, request.conditions.slow);
    let case = Case {
        limits,
        request,
        record,
        now,
    };
    let Some(first) = case.first_with_room(start, open.from(start.tier)) else {
        // The upstream's refusal is better than one of ours.
        let pressed = case.first_with_room(nearest, all.less(open));
        return pressed.unwrap_or_else(|| case.squeezed(start.tier, &reach));
    };
    let Decision::Refuse { refusal, .. } = first else {
        return first;
    };
    // A slow tier is better than a refusal.
    let slow = open.until(start.tier);
    match case.first_with_room(wanted, slow) {
        Some(Decision::Refuse { refusal: other, .. }) if !other.is_milder_than(refusal) => first,
        other => other.unwrap_or(first),
    }
}

/// The tiers from the chosen one downwards whose upstream does not refuse, and the first of these. If every upstream refuses: all tiers, and
/// the chosen one.
fn open(all: TierSet, chosen: Choice, pressed: TierSet) -> (Choice, TierSet) {
    let open = all.less(pressed);
    match open.first() {
        None => (chosen, all),
        Some(tier) if tier == chosen.tier => (chosen, open),
        Some(tier) => {
            let reason = Some(Reason::UpstreamLimited);
            (Choice { tier, reason }, open)
        }
    }
}

/// The next tier that may serve and is not slow, if the chosen tier is slow; the chosen tier if no other is faster.
fn prompt(open: TierSet, chosen: Choice, slow: TierSet) -> Choice {
    if !slow.has(chosen.tier) {
        return chosen;
    }
    let next = open.from(chosen.tier).less(slow).first();
    next.map_or(chosen, |tier| Choice {
        tier,
        reason: Some(Reason::Sla),
    })
}

#[cfg(test)]
mod tests;
