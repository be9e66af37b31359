//! Which limit sends a request to a lower tier. This decides nothing: it is only reported.

use super::decision::LimitIndex;
use super::marks::{WHOLE, by_budget};
use super::room::Case;
use super::standing::{Stand, Standing, standings};
use super::{Reason, Request};
use crate::base::units::{Ppm, Timestamp};
use crate::plan::Limits;
use crate::state::record::Record;

/// What lowered a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoweredBy {
    /// The limit.
    pub limit: LimitIndex,
    /// The low-water mark that was crossed; `None` where the limit had no room for the request at a higher tier.
    pub mark: Option<Ppm>,
}

/// The limit that lowered a request to `tier`, if `reason` is about a limit. `record` must be as it was at the decision.
#[must_use]
pub fn lowered_by(
    limits: &Limits,
    request: &Request<'_>,
    tier: usize,
    reason: Reason,
    record: &Record,
    now: Timestamp,
) -> Option<LoweredBy> {
    let case = Case {
        limits,
        request,
        record,
        now,
    };
    match reason {
        Reason::BucketLow => case.low_bucket(),
        Reason::BudgetPace => case.crossed(tier, reason),
        Reason::BudgetLow => case
            .crossed(tier, reason)
            .or_else(|| case.without_room(tier.saturating_sub(1).max(request.asked()))),
        Reason::BudgetExhausted => case.without_room(tier),
        _ => None,
    }
}

impl<'a> Case<'a> {
    /// The limits that hold at a tier.
    fn at(&self, tier: usize) -> impl Iterator<Item = Standing<'a>> {
        let request = self.request;
        let all = standings(self.limits, request.conditions.books, self.record);
        all.filter(move |limit| limit.holds_at(request, tier))
    }

    fn low_bucket(&self) -> Option<LoweredBy> {
        self.at(self.request.asked())
            .find_map(|limit| match limit.state {
                Stand::Tokens(quota, bucket) if quota.is_low(bucket, self.now) => Some(LoweredBy {
                    limit: limit.index,
                    mark: quota.low_water_mark,
                }),
                _ => None,
            })
    }

    /// The first budget that sends the request to this tier or a lower one, since a mark is crossed for this reason.
    fn crossed(&self, tier: usize, reason: Reason) -> Option<LoweredBy> {
        let ladder = self.request.place?.ladder;
        let &Self {
            limits,
            record,
            now,
            ..
        } = self;
        self.at(self.request.asked()).find_map(|limit| {
            let (lowest, why) = by_budget(limits, &limit, ladder, record, WHOLE, now)?;
            (lowest >= tier && why == reason).then(|| LoweredBy {
                limit: limit.index,
                mark: limits.below(ladder, lowest),
            })
        })
    }

    /// The limit that has no room for the request at this tier.
    fn without_room(&self, tier: usize) -> Option<LoweredBy> {
        let (_, estimate, expected) = self.usual(tier);
        let short = self.holds(tier, &estimate, &expected, false).err()?;
        let limit = short.limit?;
        Some(LoweredBy { limit, mark: None })
    }
}
