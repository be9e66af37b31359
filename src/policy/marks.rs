//! Low-water marks: how far down a request goes, depending on what remains of the limits.

use super::preferences::Choice;
use super::standing::{Stand, Standing, standings};
use super::{Reason, Request};
use crate::base::units::{Ppm, Timestamp};
use crate::estimate::learn::Model;
use crate::plan::Limits;
use crate::state::record::Record;
use crate::tier::Ladder;

/// The share of a mark that is the whole mark.
pub(super) const WHOLE: Ppm = Ppm(1_000_000);

/// The lowest tier whose mark, or this share of it, is crossed, and why; the requested tier if no mark is crossed, or if the request may
/// not be lowered.
pub(super) fn wanted(
    limits: &Limits,
    request: &Request<'_>,
    record: &Record,
    share: Ppm,
    now: Timestamp,
) -> Choice {
    let asked = Choice {
        tier: request.asked(),
        reason: None,
    };
    let Some(place) = request.place.filter(|_| !limits.never_downgrade) else {
        return asked;
    };
    let asked_tier = request.asked();
    let books = request.conditions.books;
    let here =
        || standings(limits, books, record).filter(|limit| limit.holds_at(request, asked_tier));
    let by_budget = by_budgets(limits, request, place.ladder, record, share, now);
    let is_low = here().any(|limit| match limit.state {
        Stand::Tokens(quota, bucket) => quota.with_mark(share).is_low(bucket, now),
        Stand::Budget(..) | Stand::Requests(..) | Stand::Concurrency(..) => false,
    });
    let by_bucket = is_low.then(|| (place.ladder.last(), Reason::BucketLow));
    let lower = [by_budget, by_bucket].into_iter().flatten();
    lower.fold(asked, |lowest, (tier, reason)| match tier > lowest.tier {
        true => Choice {
            tier,
            reason: Some(reason),
        },
        false => lowest,
    })
}

/// Writes into the record which tier the budgets' marks give now, for a plan with hysteresis.
pub fn remember(limits: &Limits, request: &Request<'_>, record: &mut Record, now: Timestamp) {
    let place = request.place.filter(|_| !limits.never_downgrade);
    if let (Some(_), Some(place)) = (limits.hysteresis, place)
        && limits.budgets().next().is_some()
    {
        let lowest = by_budgets(limits, request, place.ladder, record, WHOLE, now);
        let tier = lowest.map_or(0, |(tier, _)| tier);
        record.account.mark(key(place.ladder), tier);
    }
}

/// The lowest tier to which any of the budgets sends a request, and by which mark; on a tie, the first budget's.
fn by_budgets(
    limits: &Limits,
    request: &Request<'_>,
    ladder: &Ladder,
    record: &Record,
    share: Ppm,
    now: Timestamp,
) -> Option<(usize, Reason)> {
    let asked = request.asked();
    let all = standings(limits, request.conditions.books, record);
    let here = all.filter(|limit| limit.holds_at(request, asked));
    let marks = here.filter_map(|limit| by_budget(limits, &limit, ladder, record, share, now));
    marks.reduce(|lowest, mark| if mark.0 > lowest.0 { mark } else { lowest })
}

/// The lowest tier whose mark is crossed by what remains of this limit, if it is a budget, and whether the static or the moved mark is
/// crossed. The marks are always the tenant's, but the pace is that of the budget's owner.
pub(super) fn by_budget(
    limits: &Limits,
    limit: &Standing<'_>,
    ladder: &Ladder,
    record: &Record,
    share: Ppm,
    now: Timestamp,
) -> Option<(usize, Reason)> {
    let (budget, account) = limit.budget()?;
    let remaining = budget.remaining(account);
    let margin = limits.hysteresis.map(|margin| {
        let last = record.account.marked(key(ladder));
        (last, margin)
    });
    let is_crossed = |tier, mark: Ppm| {
        let margin = margin.filter(|&(last, _)| tier <= last);
        let margin = margin.map_or(0, |(_, Ppm(margin))| margin);
        let mark = share.of(mark.0.saturating_add(margin));
        Ppm(mark).is_above(remaining, budget.initial_budget)
    };
    (0..ladder.tiers.len()).rev().find_map(|tier| {
        let below = limits.below(ladder, tier)?;
        if is_crossed(tier, below) {
            return Some((tier, Reason::BudgetLow));
        }
        let ends = account.window.end != Timestamp::MAX;
        let pace = limit.limits.pace.filter(|_| ends)?;
        let before = tier.checked_sub(1)?;
        let left = account.window.end.since(now);
        let burn = limit
            .record
            .burn
            .at(before, budget.unit, pace.half_life, now);
        // Other proxies spend from this budget, too: each is assumed to be as fast as this one.
        let proxies = budget
            .grant(account)
            .map_or(1, |grant| grant.holders.max(1));
        let burn = burn.saturating_mul(proxies.into());
        let moved = pace.mark(below, remaining, burn, left);
        is_crossed(tier, moved).then_some((tier, Reason::BudgetPace))
    })
}

/// The key of a ladder in a record: a hash of its first model, which is on no other ladder.
pub(super) fn key(ladder: &Ladder) -> u32 {
    let model = ladder.tiers.first().map(|tier| tier.model.as_str());
    Model::of(model.unwrap_or_default()).0
}
