//! The token buckets of a record that proxies share: the demand on each here, the lines about it, and what their answers change.

use crate::base::name::LimitKey;
use crate::base::units::{Ppm, Timestamp};
use crate::lease::grant::Told;
use crate::lease::line::{Holder, Status};
use crate::lease::quota::{Part, Quota};
use crate::lease::rate::{Rate, RateAnswer, RateLine};
use crate::lease::share::Share;
use crate::limits::bucket::Bucket;
use crate::limits::stacked::{BUCKET, Limit, Rule, State};
use crate::plan::Limits;
use crate::published::metric::Label;
use crate::state::record::Record;

/// A bucket that proxies share, with this proxy's part of it.
pub struct SharedBucket<'a> {
    /// The limit, unless it is the plan's `bucket`.
    limit: Option<&'a Limit>,
    quota: &'a Quota,
    share: &'a Share,
    bucket: &'a mut Bucket,
    rate: &'a mut Rate,
}

/// The shared buckets of a plan, each with its limit, or `None` for the plan's `bucket`.
fn quotas(limits: &Limits) -> impl Iterator<Item = (Option<&Limit>, &Quota)> {
    let others = limits.others.iter().filter_map(|limit| match &limit.rule {
        Rule::Tokens(quota) | Rule::Requests(quota) => Some((Some(limit), quota)),
        Rule::Budget(_) | Rule::Concurrency(_) => None,
    });
    let own = limits.bucket.as_ref().map(|quota| (None, quota));
    let all = own.into_iter().chain(others);
    all.filter(|(_, quota)| quota.share.is_some())
}

fn key_of(limit: Option<&Limit>) -> LimitKey {
    limit.map_or(LimitKey::BUCKET, |limit| limit.key)
}

/// Gives each shared bucket the part that the store has given to this proxy. A bucket that is new gets a holder, which `draw` names. The
/// record must be rolled forward to `now`.
#[inline(never)]
pub fn join(
    limits: &Limits,
    record: &mut Record,
    mut draw: impl FnMut(LimitKey) -> Holder,
    now: Timestamp,
) {
    for (limit, _) in quotas(limits) {
        let key = key_of(limit);
        if !record.rates.iter().any(|rate| rate.limit == key) {
            record.rates.push(Rate::new(key, draw(key)));
        }
    }
    each_shared_bucket(limits, record, &mut |mut shared| shared.take_part(now));
}

/// Calls `each` for each shared bucket that has been [joined](join). Makes no list of them, since this runs several times in each request.
#[inline(never)]
pub fn each_shared_bucket(
    limits: &Limits,
    record: &mut Record,
    each: &mut dyn FnMut(SharedBucket<'_>),
) {
    let Record {
        rates,
        bucket: own,
        others,
        ..
    } = record;
    for rate in rates {
        let quota = limits.bucket.as_ref();
        let found = match quota.filter(|_| rate.limit == LimitKey::BUCKET) {
            Some(quota) => Some((None, quota, &mut *own)),
            None => {
                let mut all = limits.others.iter().zip(&mut *others);
                let found = all.find(|(limit, _)| limit.key == rate.limit);
                found.and_then(|(limit, entry)| match (&limit.rule, &mut entry.state) {
                    (Rule::Tokens(quota) | Rule::Requests(quota), State::Bucket(bucket)) => {
                        Some((Some(limit), quota, bucket))
                    }
                    _ => None,
                })
            }
        };
        if let Some((limit, quota, bucket)) = found
            && let Some(share) = &quota.share
        {
            each(SharedBucket {
                limit,
                quota,
                share,
                bucket,
                rate,
            });
        }
    }
}

impl<'a> SharedBucket<'a> {
    /// The limit's name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.limit.map_or(BUCKET, |limit| limit.name.as_str())
    }

    /// The limit's name, as a label of metrics.
    #[must_use]
    pub fn label(&self) -> Label {
        self.limit
            .map_or_else(|| BUCKET.into(), |limit| (&limit.name).into())
    }

    /// The key of the limit's state in a record.
    #[must_use]
    pub fn key(&self) -> LimitKey {
        self.rate.limit
    }

    /// How fast the bucket refills, and how much it holds.
    #[must_use]
    pub fn quota(&self) -> &'a Quota {
        self.quota
    }

    /// The share that the store has given.
    #[must_use]
    pub fn rate(&self) -> &Rate {
        self.rate
    }

    /// Whether the bucket applies to requests that this model serves.
    #[must_use]
    pub fn holds_for(&self, model: &str) -> bool {
        self.limit.is_none_or(|limit| limit.holds_for(model))
    }

    /// Whether a request would wait now, as a first one for which this proxy has no share yet.
    #[must_use]
    pub fn awaits_first(&self) -> bool {
        self.rate.awaits_first(self.share)
    }

    /// If no request has to wait for a first share now: the time until which none will have to. Until then even an idle proxy keeps its
    /// share.
    #[must_use]
    pub fn warm_until(&self, now: Timestamp) -> Timestamp {
        now.plus_nanos(self.share.most)
    }

    /// Notes a request of `cells`, `before` of which were already noted. `is_held`: whether the request was admitted. A request that does
    /// not fit into the whole bucket is not counted as demand.
    pub fn asked(&mut self, cells: u64, before: u64, is_held: bool, now: Timestamp) {
        let of_requests =
            matches!(self.limit, Some(limit) if matches!(limit.rule, Rule::Requests(_)));
        let (cells, before) = match of_requests {
            true => (1, before.min(1)),
            false => (cells, before),
        };
        if is_held {
            self.rate.took(before, cells);
        } else if cells <= self.quota.burst.get()
            && self.quota.check(*self.bucket, cells, now).is_err()
        {
            self.rate.lacked(cells);
        }
    }

    /// When a line is due, if nothing happens until then.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        self.rate.due(self.share)
    }

    /// The next line, if it is due or is to be sent in any case.
    pub fn say(&mut self, in_any_case: bool, now: Timestamp) -> Option<RateLine> {
        if !in_any_case && !self.rate.is_due(self.share, now) {
            return None;
        }
        if self.rate.is_lapsed(self.share, now) {
            // The store may have given the share, and its free cells, to other proxies already.
            self.rate.share = 0;
            self.rate.rest = 0;
            self.rate.back = 0;
        }
        self.take_part(now);
        let debt = self.quota.debt(*self.bucket);
        let demand = self.rate.demand(self.quota, self.share, debt, now);
        if demand == 0 {
            self.lower(0, now);
        }
        Some(self.rate.say(self.quota, self.share, demand, now))
    }

    /// Applies the store's answer to a line, or notes that there is none.
    pub fn hear(
        &mut self,
        line: &RateLine,
        answer: Option<&RateAnswer>,
        draw: impl FnOnce(LimitKey) -> Holder,
        now: Timestamp,
    ) -> Option<Told> {
        if line.holder != self.rate.holder {
            return None;
        }
        let Some(answer) = answer else {
            self.rate.failed(line.seq);
            self.take_part(now);
            return None;
        };
        // Until the answer, cells were refilled at the old share's rate.
        let told = self.rate.heard(line.seq, answer);
        match told {
            Told::Clash => self.rate.renamed(draw(self.rate.limit)),
            Told::Counts | Told::StoreLost if answer.status == Status::Granted => {
                let cells = self.rate.cells(self.quota);
                self.reshape(cells, now);
                self.lower(answer.target, now);
            }
            Told::Counts | Told::StoreLost | Told::Late | Told::OtherWindow => {}
        }
        self.take_part(now);
        Some(told)
    }

    /// Lowers the share to `to`, and gives up the free cells of the difference.
    fn lower(&mut self, to: u64, now: Timestamp) {
        if to >= self.rate.share {
            return;
        }
        let is_own = self.bucket.part == Part::Of(Ppm(self.rate.share));
        self.rate.share = to;
        let gone = self.reshape(0, now);
        // A part that the store has not given (on credit, or local) gives nothing back.
        self.rate
            .gives_back(if is_own { gone } else { 0 }, self.quota);
    }

    /// Sets the bucket's part to what it should be now. The free cells of a part that is lost are lost.
    fn take_part(&mut self, now: Timestamp) {
        if self.bucket.part != self.rate.part(self.share, now) {
            self.reshape(0, now);
        }
    }

    fn reshape(&mut self, cells: u64, now: Timestamp) -> u64 {
        let to = self.rate.part(self.share, now);
        let gone;
        (*self.bucket, gone) = self.quota.with_part(*self.bucket, to, cells, now);
        gone
    }
}
