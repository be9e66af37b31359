//! The token bucket: how fast a tenant may use tokens or send requests.
//!
//! The state is the number of cells in use and the time from which that number holds; it falls at the refill rate. Storing cells and not a
//! time (as GCRA does) lets a changed limit apply to cells that were already taken: after 100 of 100 cells are taken, raising the limit to
//! 1,000 gives 900 at once.
//!
//! All arithmetic is in integers. A division that leaves a remainder is rounded so that no cell is given early; cells are late by less than a
//! nanosecond.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::base::units::{Ppm, Timestamp, share, share_up};
use crate::lease::quota::{Part, Quota, WHOLE};

/// What was taken from a bucket and has not come back yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Cells in use; more than the burst while a request used more than it had reserved.
    pub used: u64,
    /// Since when `used` holds.
    pub since: Timestamp,
    /// When the bucket was last seen full: what was taken before that has come back.
    pub full: Timestamp,
    /// The part of the quota that this bucket has, where the quota is shared.
    pub part: Part,
}

/// The shortest wait for a request that finds too little of a shared quota: by then this proxy has requested more.
const SOON: Duration = Duration::from_millis(250);

/// Why a bucket refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotNow {
    /// More than the bucket can ever hold.
    ExceedsBurst,
    /// Enough cells will be free after this time, if nobody else takes any; not a nanosecond earlier.
    Wait(Duration),
}

impl Quota {
    /// The bucket as it is at `now`: cells that have come back are free again.
    #[must_use]
    pub fn refilled(&self, bucket: Bucket, now: Timestamp) -> Bucket {
        let since = counted_since(bucket, now);
        let part = self.part(bucket);
        let back = self.cells_in(part, now.nanos_since(since));
        if back >= bucket.used {
            let since = since.max(now);
            return Bucket {
                used: 0,
                since,
                full: since,
                part: bucket.part,
            };
        }
        Bucket {
            used: bucket.used.saturating_sub(back),
            // Only the time that made whole cells is used up; the rest still counts.
            since: since.plus_nanos(self.time_for(part, back)),
            // A time from a clock that was set back since says nothing about what is taken by the new clock.
            full: if bucket.full.is_set_back(now) {
                since
            } else {
                bucket.full
            },
            part: bucket.part,
        }
    }

    /// Cells free at `now`.
    #[must_use]
    pub fn available(&self, bucket: Bucket, now: Timestamp) -> u64 {
        self.burst_of(bucket)
            .saturating_sub(self.refilled(bucket, now).used)
    }

    /// The quota with its low-water mark multiplied by `share`.
    #[must_use]
    pub fn with_mark(self, share: Ppm) -> Self {
        Self {
            low_water_mark: self.low_water_mark.map(|mark| Ppm(share.of(mark.0))),
            ..self
        }
    }

    /// Whether the bucket is under its low-water mark at `now`.
    #[must_use]
    pub fn is_low(&self, bucket: Bucket, now: Timestamp) -> bool {
        self.low_water_mark
            .is_some_and(|mark| mark.is_above(self.available(bucket, now), self.burst_of(bucket)))
    }

    /// Whether `cells` fit at `now`.
    ///
    /// # Errors
    /// Whether the cells will ever fit, and if so when.
    pub fn check(&self, bucket: Bucket, cells: u64, now: Timestamp) -> Result<(), NotNow> {
        if cells > self.burst.get() {
            return Err(NotNow::ExceedsBurst);
        }
        let after = bucket.used.saturating_add(cells);
        let part = self.part(bucket);
        if part == Part::Whole {
            let over = after.saturating_sub(self.burst.get());
            return match self.until_back(part, bucket, over, now) {
                Duration::ZERO => Ok(()),
                wait => Err(NotNow::Wait(wait)),
            };
        }
        self.check_part(part, bucket, cells, now)
    }

    /// As [`Quota::check`], for a bucket with a part of the quota.
    #[inline(never)]
    fn check_part(
        &self,
        part: Part,
        bucket: Bucket,
        cells: u64,
        now: Timestamp,
    ) -> Result<(), NotNow> {
        if part == Part::Credit && bucket.used == 0 {
            return Ok(());
        }
        let after = bucket.used.saturating_add(cells);
        let burst = self.burst_of(bucket);
        let wait = match self.until_back(part, bucket, after.saturating_sub(burst), now) {
            Duration::ZERO => return Ok(()),
            wait => wait,
        };
        // A part does not stay as it is for long where more is requested.
        let over = after.saturating_sub(self.burst.get());
        let of_whole = self.until_back(Part::Whole, bucket, over, now);
        let refresh = match (cells > burst, &self.share) {
            (false, Some(share)) => Duration::from_nanos(share.most),
            (true, _) | (_, None) => SOON,
        };
        Err(NotNow::Wait(wait.min(of_whole.max(refresh))))
    }

    /// Takes `cells` without a check.
    #[must_use]
    pub fn charge(&self, bucket: Bucket, cells: u64, now: Timestamp) -> Bucket {
        let bucket = self.refilled(bucket, now);
        Bucket {
            used: bucket.used.saturating_add(cells),
            ..bucket
        }
    }

    /// Replaces the cells `held` since `taken` by those that were used, which may be more.
    ///
    /// If the bucket was full in between, the held cells have already come back and are not given back twice.
    #[must_use]
    pub fn settle(
        &self,
        bucket: Bucket,
        held: u64,
        used: u64,
        taken: Timestamp,
        now: Timestamp,
    ) -> Bucket {
        let bucket = self.charge(bucket, used.saturating_sub(held), now);
        let back = if taken < bucket.full {
            0
        } else {
            held.saturating_sub(used)
        };
        Bucket {
            used: bucket.used.saturating_sub(back),
            ..bucket
        }
    }

    /// The time until the bucket is full again, if nothing is taken in between.
    #[must_use]
    pub fn until_full(&self, bucket: Bucket, now: Timestamp) -> Duration {
        let part = match self.part(bucket) {
            // The bucket will get a part again.
            part if rate_of(part) == 0 => Part::Whole,
            part => part,
        };
        self.until_back(part, bucket, bucket.used, now)
    }

    /// The bucket with another part of the quota, and `cells` that come with it as free; and the free cells that it gives up.
    ///
    /// Free cells go with a lost part in proportion. What a new part has beyond the cells that came with it has to be refilled first. So no
    /// cell is free twice, however often parts change hands.
    #[must_use]
    #[inline(never)]
    pub fn with_part(&self, bucket: Bucket, to: Part, cells: u64, now: Timestamp) -> (Bucket, u64) {
        let bucket = self.refilled(bucket, now);
        let (rate, next) = (rate_of(self.part(bucket)), rate_of(to));
        let (burst, room) = (self.burst_of(bucket), self.burst_in(to));
        let free = burst.saturating_sub(bucket.used);
        let debt = bucket.used.saturating_sub(burst);
        let goes = share(free, rate.saturating_sub(next), rate.max(1));
        let kept = free.saturating_sub(goes).min(room);
        let gone = free.saturating_sub(kept);
        let (free, debt) = match cells.checked_sub(debt) {
            Some(left) => (kept.saturating_add(left).min(room), 0),
            None => (kept, debt.saturating_sub(cells)),
        };
        let used = room.saturating_sub(free).saturating_add(debt);
        // The progress towards the next cell is kept.
        let rest = now.nanos_since(bucket.since);
        let rest = if next == 0 {
            0
        } else {
            share(rest, rate, next)
        };
        let since = Timestamp::from_nanos(now.as_nanos().saturating_sub(rest));
        let after = Bucket {
            used,
            since: if bucket.since > now {
                bucket.since
            } else {
                since
            },
            full: if used == 0 { now } else { bucket.full },
            part: to,
        };
        (after, gone)
    }

    /// The cells in use beyond what the bucket holds.
    #[must_use]
    pub fn debt(&self, bucket: Bucket) -> u64 {
        bucket.used.saturating_sub(self.burst_of(bucket))
    }

    /// The nanoseconds in which an empty bucket becomes full.
    #[must_use]
    pub fn fills_in(&self) -> u64 {
        self.time_for(Part::Whole, self.burst.get())
    }

    fn part(&self, bucket: Bucket) -> Part {
        match self.share {
            None => Part::Whole,
            Some(_) => bucket.part,
        }
    }

    /// Cells that the bucket holds when it is full.
    fn burst_of(&self, bucket: Bucket) -> u64 {
        self.burst_in(self.part(bucket))
    }

    fn burst_in(&self, part: Part) -> u64 {
        match part {
            Part::Whole => self.burst.get(),
            Part::Of(part) => part.of(self.burst.get()),
            Part::Credit => 0,
        }
    }

    /// The time until `cells` of those in use have come back.
    fn until_back(&self, part: Part, bucket: Bucket, cells: u64, now: Timestamp) -> Duration {
        if cells == 0 {
            return Duration::ZERO;
        }
        counted_since(bucket, now)
            .plus_nanos(self.time_for(part, cells))
            .since(now)
    }

    /// Whole cells that come back in this many nanoseconds, rounded down.
    fn cells_in(&self, part: Part, nanos: u64) -> u64 {
        let nanos = match part {
            Part::Whole => nanos,
            part => worth(nanos, part),
        };
        share(nanos, self.tokens_per_window.get(), self.window.get())
    }

    /// The nanoseconds in which `cells` come back, rounded up: `cells_in(t) >= cells` exactly if `t >= time_for(cells)`.
    fn time_for(&self, part: Part, cells: u64) -> u64 {
        let nanos = share_up(cells, self.window.get(), self.tokens_per_window);
        match part {
            Part::Whole => nanos,
            part => time_with(nanos, part),
        }
    }
}

/// The nanoseconds with the whole quota that are worth this many with a part.
#[inline(never)]
fn worth(nanos: u64, part: Part) -> u64 {
    share(nanos, rate_of(part), WHOLE)
}

/// The nanoseconds with a part that are worth this many with the whole quota.
#[inline(never)]
fn time_with(nanos: u64, part: Part) -> u64 {
    match NonZeroU64::new(rate_of(part)) {
        _ if nanos == 0 => 0,
        None => u64::MAX,
        Some(rate) => share_up(nanos, WHOLE, rate),
    }
}

/// The size of a part, in millionths.
fn rate_of(part: Part) -> u64 {
    match part {
        Part::Whole => WHOLE,
        Part::Of(part) => part.0,
        Part::Credit => 0,
    }
}

/// The time from which the bucket refills: from now on, if the clock was set back.
fn counted_since(bucket: Bucket, now: Timestamp) -> Timestamp {
    if bucket.since.is_set_back(now) {
        now
    } else {
        bucket.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::grant::Unreachable;
    use crate::lease::share::{FirstRequest, Share};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn quota(tokens_per_window: u64, secs: u64) -> Quota {
        let tokens = NonZeroU64::new(tokens_per_window).unwrap();
        Quota {
            tokens_per_window: tokens,
            window: NonZeroU64::new(secs * 1_000_000_000).unwrap(),
            burst: tokens,
            low_water_mark: Some(Ppm(100_000)),
            share: None,
        }
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(1_000_000_000_000_000 + millis * 1_000_000)
    }

    #[test]
    fn an_empty_bucket_says_when_and_the_request_then_fits() {
        let quota = quota(60, 60);
        let bucket = quota.charge(Bucket::default(), 60, at(0));
        assert_eq!(
            quota.check(bucket, 5, at(0)),
            Err(NotNow::Wait(Duration::from_secs(5)))
        );
        assert_eq!(
            quota.check(bucket, 5, at(4_999)),
            Err(NotNow::Wait(Duration::from_millis(1)))
        );
        assert_eq!(quota.check(bucket, 5, at(5_000)), Ok(()));
    }

    #[test]
    fn what_can_never_fit_is_told_apart() {
        assert_eq!(
            quota(60, 60).check(Bucket::default(), 61, at(0)),
            Err(NotNow::ExceedsBurst)
        );
        assert_eq!(quota(60, 60).check(Bucket::default(), 60, at(0)), Ok(()));
    }

    // In another implementation a bucket did not refill for two years: a test has to let time pass.
    #[test]
    fn after_a_long_idle_the_bucket_is_full_and_not_fuller() {
        let quota = quota(60, 60);
        let bucket = quota.charge(Bucket::default(), 60, at(0));
        assert_eq!(quota.available(bucket, at(30_000)), 30);
        assert_eq!(quota.available(bucket, at(86_400_000)), 60);
        let bucket = quota.charge(bucket, 60, at(86_400_000));
        assert_eq!(quota.available(bucket, at(86_400_000)), 0);
    }

    #[test]
    fn a_trickle_of_writes_costs_less_than_a_nanosecond_a_cell() {
        let quota = quota(7, 1);
        let mut bucket = quota.charge(Bucket::default(), 7, at(0));
        for millis in 0..1_000 {
            bucket = quota.refilled(bucket, at(millis));
        }
        let full = Timestamp::from_nanos(at(1_000).as_nanos() + 7);
        assert_eq!(quota.refilled(bucket, full).used, 0);
    }

    #[test]
    fn settling_gives_back_what_was_not_used_and_takes_what_was_used_beyond() {
        let quota = quota(60, 60);
        let bucket = quota.charge(Bucket::default(), 40, at(0));
        assert_eq!(quota.settle(bucket, 40, 10, at(0), at(0)).used, 10);
        assert_eq!(quota.settle(bucket, 40, 70, at(0), at(0)).used, 70);
        // After a refill, the refund cannot make the bucket more than full.
        assert_eq!(quota.settle(bucket, 40, 0, at(0), at(30_000)).used, 0);
    }

    #[test]
    fn what_has_come_back_by_itself_is_not_given_back_again() {
        let quota = quota(60, 60);
        let bucket = quota.charge(Bucket::default(), 40, at(0));
        // The bucket is full again after 40 s; then another request takes all of it.
        let bucket = quota.charge(bucket, 60, at(40_000));
        assert_eq!(quota.settle(bucket, 40, 0, at(0), at(40_000)).used, 60);
        assert_eq!(quota.settle(bucket, 40, 50, at(0), at(40_000)).used, 70);
        assert_eq!(quota.settle(bucket, 60, 0, at(40_000), at(40_000)).used, 0);
    }

    // A limit may be raised, or lowered below what is spent, at any time.
    #[test]
    fn a_raised_limit_counts_at_once_and_a_lowered_one_makes_a_debt() {
        let bucket = quota(100, 60).charge(Bucket::default(), 100, at(0));
        assert_eq!(quota(1_000, 60).available(bucket, at(0)), 900);
        assert_eq!(quota(10, 60).available(bucket, at(0)), 0);
        assert_eq!(
            quota(10, 60).check(bucket, 10, at(0)),
            Err(NotNow::Wait(Duration::from_secs(600)))
        );
    }

    // Windows end while requests are in flight, and clocks are set back.
    #[test]
    fn a_clock_set_back_by_an_hour_delays_nothing_by_an_hour() {
        let quota = quota(60, 60);
        let bucket = quota.charge(Bucket::default(), 60, at(3_600_000));
        assert_eq!(
            quota.check(bucket, 1, at(0)),
            Err(NotNow::Wait(Duration::from_secs(1)))
        );
        // A millisecond is a race of two workers, and gives no cell twice or early.
        assert_eq!(quota.refilled(bucket, at(3_599_999)), bucket);
        assert_eq!(
            quota.check(bucket, 1, at(3_599_999)),
            Err(NotNow::Wait(Duration::from_millis(1_001)))
        );
        assert_eq!(quota.check(bucket, 0, at(3_599_999)), Ok(()));
        // Up to a minute is a race, too, but no more.
        assert_eq!(quota.refilled(bucket, at(3_540_000)), bucket);
        assert_eq!(quota.refilled(bucket, at(3_539_999)).since, at(3_539_999));
    }

    #[test]
    fn what_is_taken_after_a_clock_was_set_back_is_given_back_all_the_same() {
        let quota = quota(60, 60);
        let bucket = quota.charge(Bucket::default(), 10, at(3_600_000));
        let bucket = quota.charge(bucket, 40, at(0));
        assert_eq!(quota.settle(bucket, 40, 5, at(0), at(0)).used, 15);
        // These cells were taken before the clock was set back.
        assert_eq!(quota.settle(bucket, 10, 0, at(3_600_000), at(0)).used, 40);
    }

    #[test]
    fn the_low_water_mark_is_a_fraction_of_the_burst() {
        let quota = quota(100, 60);
        assert!(!quota.is_low(quota.charge(Bucket::default(), 90, at(0)), at(0)));
        assert!(quota.is_low(quota.charge(Bucket::default(), 91, at(0)), at(0)));
    }

    /// 60 cells a minute, of which proxies have parts.
    fn shared() -> Quota {
        let share = Share {
            least: 1_000_000_000,
            most: 10_000_000_000,
            reclaim: None,
            unreachable: Unreachable::Deny,
            first: FirstRequest::Waits,
        };
        Quota {
            share: Some(share),
            ..quota(60, 60)
        }
    }

    /// A bucket with half of the quota, of which this many cells are used.
    fn half(used: u64) -> Bucket {
        let part = Part::Of(Ppm(500_000));
        let (bucket, _) = shared().with_part(Bucket::default(), part, 30, at(0));
        shared().charge(bucket, used, at(0))
    }

    // Otherwise a part that changed hands often would never give a cell, or give one early.
    #[test]
    fn what_is_there_of_the_next_cell_stays_when_the_part_changes() {
        let quota = shared();
        // Half of a part's cell came back in a second; the other half takes the new part another second, or half of one, or two.
        for (part, millis) in [(500_000, 2_000), (1_000_000, 1_500), (250_000, 3_000)] {
            let (bucket, gone) = quota.with_part(half(30), Part::Of(Ppm(part)), 0, at(1_000));
            assert_eq!(gone, 0);
            assert_eq!(quota.available(bucket, at(millis - 1)), 0, "{part}");
            assert_eq!(quota.available(bucket, at(millis)), 1, "{part}");
        }
    }

    #[test]
    fn what_is_free_goes_with_a_part_and_a_greater_one_brings_only_what_came_with_it() {
        let quota = shared();
        let (bucket, gone) = quota.with_part(half(10), Part::Of(Ppm(250_000)), 0, at(0));
        assert_eq!((quota.available(bucket, at(0)), gone), (10, 10));
        let (bucket, gone) = quota.with_part(half(10), Part::Of(Ppm(0)), 0, at(0));
        assert_eq!((quota.available(bucket, at(0)), gone), (0, 20));
        let whole = Part::Of(Ppm(WHOLE));
        let (bucket, gone) = quota.with_part(half(10), whole, 7, at(0));
        assert_eq!((quota.available(bucket, at(0)), gone), (27, 0));
        // A part never has more free cells than it holds.
        let (bucket, _) = quota.with_part(half(10), whole, 1_000, at(0));
        assert_eq!(quota.available(bucket, at(0)), 60);
        // Cells that were used beyond the part are paid first.
        let (bucket, _) = quota.with_part(half(35), whole, 7, at(0));
        assert_eq!((quota.available(bucket, at(0)), quota.debt(bucket)), (2, 0));
    }
}
