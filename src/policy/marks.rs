//! Low-water marks: how far down what remains asks a request to go.

use super::preferences::Choice;
use super::{Ask, Limits, Reason};
use crate::learn::Model;
use crate::ledger::Budget;
use crate::record::Record;
use crate::tier::Ladder;
use crate::units::{Ppm, Timestamp};

/// All of a mark.
pub(super) const WHOLE: Ppm = Ppm(1_000_000);

/// The lowest tier whose mark is crossed, or this share of it, and why; the asked one if none is, or none may be.
pub(super) fn wanted(
    limits: &Limits,
    ask: &Ask<'_>,
    record: &Record,
    share: Ppm,
    now: Timestamp,
) -> Choice {
    let asked = Choice {
        tier: ask.asked(),
        reason: None,
    };
    let Some(place) = ask.place.filter(|_| !limits.never_downgrade) else {
        return asked;
    };
    let budget = limits.budget.as_ref();
    let by_budget =
        budget.and_then(|budget| by_budget(limits, budget, place.ladder, record, share, now));
    let is_low = limits
        .bucket
        .is_some_and(|quota| quota.with_mark(share).is_low(record.bucket, now));
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

/// Writes into the record where the budget's marks are now, for a plan that leaves no tier at once.
pub fn remember(limits: &Limits, ask: &Ask<'_>, record: &mut Record, now: Timestamp) {
    let place = ask.place.filter(|_| !limits.never_downgrade);
    if let (Some(_), Some(budget), Some(place)) = (limits.hysteresis, &limits.budget, place) {
        let tier =
            by_budget(limits, budget, place.ladder, record, WHOLE, now).map_or(0, |(tier, _)| tier);
        record.account.mark(key(place.ladder), tier);
    }
}

/// The lowest tier whose mark what remains has crossed, and by which of both marks.
fn by_budget(
    limits: &Limits,
    budget: &Budget,
    ladder: &Ladder,
    record: &Record,
    share: Ppm,
    now: Timestamp,
) -> Option<(usize, Reason)> {
    let remaining = budget.remaining(&record.account);
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
        let moved = moved(limits, budget, record, (tier, below), now)?;
        is_crossed(tier, moved).then_some((tier, Reason::BudgetPace))
    })
}

/// Where pace puts the mark of a tier that has this static one.
fn moved(
    limits: &Limits,
    budget: &Budget,
    record: &Record,
    (tier, below): (usize, Ppm),
    now: Timestamp,
) -> Option<Ppm> {
    let pace = limits.pace?;
    let before = tier.checked_sub(1)?;
    let left = record.account.window.end.since(now);
    let burn = record.burn.at(before, budget.unit, pace.half_life, now);
    Some(pace.mark(below, budget.remaining(&record.account), burn, left))
}

/// As what a ladder stands in a record: its first model, which stands on no other.
pub(super) fn key(ladder: &Ladder) -> u32 {
    let model = ladder.tiers.first().map(|tier| tier.model.as_str());
    Model::of(model.unwrap_or_default()).0
}
