//! The token bucket: how fast a tenant may use tokens or send requests.
//!
//! The state is the number of cells in use, and the time as of which that number holds; from then on the number falls at the refill rate.
//! GCRA stores a time instead. Since cells are stored, a changed limit applies to cells that were already taken: if 100 of 100 cells are
//! taken, raising the limit to 1,000 makes 900 cells free at once.
//!
//! All arithmetic is in integers. Divisions are rounded so that no cell is free too early; cells are late by less than a nanosecond.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::base::units::{Ppm, Timestamp, share, share_up};
use crate::lease::quota::{Part, Quota, WHOLE};

/// What was taken from a bucket and has not come back yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Cells in use; more than the burst if requests used more than they had reserved.
    pub used: u64,
    /// The time as of which `used` holds.
    pub since: Timestamp,
    /// When the bucket was last seen full: all cells that were taken before have come back.
    pub full: Timestamp,
    /// The part of the quota that this bucket has, where the quota is shared.
    pub part: Part,
}

/// The shortest wait of a request for which this proxy's part of a shared quota is too small: by then the proxy has requested a larger
/// part.
const SOON: Duration = Duration::from_millis(250);

/// Why a bucket refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotNow {
    /// The request needs more cells than the bucket can ever hold.
    ExceedsBurst,
    /// Enough cells will be free after exactly this time, if no other request takes any.
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
            // Only the time that refilled whole cells is used up; the rest of it still counts.
            since: since.plus_nanos(self.time_for(part, back)),
            // If the clock was set back after this time was noted, the time cannot be compared with later ones.
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
        // This proxy's part soon grows if more is requested here, so the wait is bounded.
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

    /// The time until the bucket is full again, if nothing more is taken until then.
    #[must_use]
    pub fn until_full(&self, bucket: Bucket, now: Timestamp) -> Duration {
        let part = match self.part(bucket) {
            // A bucket without a part will get one again.
            part if rate_of(part) == 0 => Part::Whole,
            part => part,
        };
        self.until_back(part, bucket, bucket.used, now)
    }

    /// The bucket with another part of the quota, and the free cells that it gives up. `cells`: free cells that come with the new part.
    ///
    /// When a part shrinks, a proportional share of its free cells is given up. When it grows, only `cells` are free at once; the other new
    /// cells have to be refilled first. So no cell is free twice, however often parts change hands.
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

    /// Whether the bucket holds so many cells when it is full.
    #[must_use]
    pub fn could_hold(&self, bucket: Bucket, cells: u64) -> bool {
        cells <= self.burst_of(bucket)
    }

    /// The cells in use that exceed what the bucket can hold.
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

/// The time since which the bucket has been refilling; `now` if the clock was set back.
fn counted_since(bucket: Bucket, now: Timestamp) -> Timestamp {
    if bucket.since.is_set_back(now) {
        now
    } else {
        bucket.since
    }
}

#[cfg(test)]
mod tests;
