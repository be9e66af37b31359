//! A tier's capacity: this proxy's share of what the upstream lets all tenants use together.
//!
//! A capacity is a token bucket ([`crate::limits::bucket`]) that tenants share. The end of the bucket is kept for higher priorities: a
//! request may take only the cells before the part that is kept for priorities above its own:
//!
//! ```text
//!  0                                     burst - critical - standard    burst - critical    burst
//!  ├──────────────── all ─────────────────┼────── standard, critical ──────┼──── critical ────┤
//! ```
//!
//! **What is guaranteed.** However other requests arrive and settle, a priority and those above it have at least a bucket of their own: the
//! part that is kept for them, refilled at the whole rate. Under a flood of requests of lower priorities the bucket stays where their part
//! ends, and each cell that higher priorities take is refilled before lower ones get any.
//!
//! A request may use more than was taken for it. As far as this excess reaches into the part that is kept for higher priorities, it becomes
//! a *debt* of the request's priority. The debt counts for this priority and those below: the refill pays it before they get any more
//! cells. It does not affect the priorities above, which so are not starved, however wrong the estimates are. In return, the upstream may
//! for a while get more than the capacity, by as much as the estimates of lower priorities were too low.
//!
//! As in a tenant's token bucket, *expected* tokens are taken at first ([`crate::estimate`]), and the settlement replaces them by the
//! tokens that were used. Taking the most that a request may use would leave most of the capacity idle, since the upstream's quota counts
//! used tokens, too.

use std::time::Duration;

use crate::base::bytes::Corrupt;
use crate::base::units::{Ppm, Timestamp};
use crate::lease::quota::{Part, Quota};
use crate::limits::bucket::{Bucket, NotNow};

/// How much a tenant's requests matter where tenants share a capacity, from the least to the most important.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Takes only what no other priority needs.
    BestEffort,
    /// The priority of most tenants.
    #[default]
    Standard,
    /// Comes before all other priorities.
    Critical,
}

/// How much a tier may use of its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// How large the capacity is, and how fast it refills. Its low-water mark has no effect here.
    pub quota: Quota,
    /// Cells that only critical requests may take.
    pub critical: u64,
    /// Further cells that only standard and critical requests may take. Invariant: `critical` and `standard` together are less than the
    /// burst.
    pub standard: u64,
}

/// Who sets the size of a capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapacitySource {
    /// The operator sets all of it.
    Configured(Capacity),
    /// The upstream reports the size with its answers; the operator sets the parts that are kept.
    Upstream(Reserved),
}

/// Parts of a capacity that are kept for higher priorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// The part for critical requests.
    pub critical: Ppm,
    /// A further part for standard and critical requests.
    pub standard: Ppm,
}

/// What was taken from a capacity and has not come back yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// All cells that are taken.
    bucket: Bucket,
    /// Those of these cells that standard requests used of the part for critical requests, beyond what was taken for them.
    standard_debt: u64,
    /// Those of these cells that best-effort requests used of the parts for higher priorities, beyond what was taken for them.
    best_effort_debt: u64,
}

/// The state of a tier's capacity, as a request of one priority finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headroom {
    /// The tier's capacity for all tenants.
    pub capacity: Capacity,
    /// What is taken of the capacity.
    pub taken: Taken,
    /// The request's priority.
    pub priority: Priority,
    /// The refusal, if the request was already refused at this tier when it tried to take cells.
    pub refused: Option<NotNow>,
}

impl Capacity {
    /// A capacity of which these parts are reserved.
    ///
    /// # Errors
    /// The sizes of both parts and of the whole, if the parts leave nothing for the lowest priority.
    pub fn of(quota: Quota, reserved: Reserved) -> Result<Self, (u64, u64, u64)> {
        let burst = quota.burst.get();
        let critical = rounded_up(reserved.critical, burst);
        let standard = rounded_up(reserved.standard, burst);
        match critical.saturating_add(standard) < burst {
            true => Ok(Self {
                quota,
                critical,
                standard,
            }),
            false => Err((critical, standard, burst)),
        }
    }

    /// What is taken, computed from the upstream's report of how much of `limit` is left.
    #[must_use]
    pub fn as_told(limit: u64, left: u64, now: Timestamp) -> Taken {
        Taken {
            bucket: Bucket {
                used: limit.saturating_sub(left),
                since: now,
                full: Timestamp::from_nanos(0),
                part: Part::Whole,
            },
            ..Taken::default()
        }
    }

    /// Cells that a request of this priority must leave to higher ones.
    #[must_use]
    pub fn kept_from(&self, priority: Priority) -> u64 {
        match priority {
            Priority::Critical => 0,
            Priority::Standard => self.critical,
            Priority::BestEffort => self.critical.saturating_add(self.standard),
        }
    }

    /// The most cells that requests of this priority can take.
    #[must_use]
    pub fn share(&self, priority: Priority) -> u64 {
        let burst = self.quota.burst.get();
        burst.saturating_sub(self.kept_from(priority))
    }

    /// Cells that a request of this priority may take at `now`.
    #[must_use]
    pub fn available(&self, taken: Taken, priority: Priority, now: Timestamp) -> u64 {
        let taken = self.as_of(taken, now);
        self.free(&taken)
            .saturating_sub(self.kept_from(priority))
            .min(self.share(priority))
    }

    /// Whether a request of this priority may take `cells` at `now`.
    ///
    /// # Errors
    /// The time after which the request may take the cells, or that it never may.
    pub fn check(
        &self,
        taken: Taken,
        priority: Priority,
        cells: u64,
        now: Timestamp,
    ) -> Result<(), NotNow> {
        let needed = cells.saturating_add(self.kept_from(priority));
        // While a debt is paid, only the parts above the debtor's become free. A request for which those suffice does not wait for the
        // payment. (Nothing is refilled here, since the wait would then be rounded up twice.)
        let unfelt = |debt, debtor| match needed <= self.kept_from(debtor) {
            true => debt,
            false => 0,
        };
        let used = taken
            .bucket
            .used
            .saturating_sub(unfelt(taken.standard_debt, Priority::Standard))
            .saturating_sub(unfelt(taken.best_effort_debt, Priority::BestEffort));
        let bucket = Bucket {
            used,
            ..taken.bucket
        };
        self.quota.check(bucket, needed, now)
    }

    /// Takes `cells` for a request of this priority without a check.
    #[must_use]
    pub fn charge(&self, taken: Taken, priority: Priority, cells: u64, now: Timestamp) -> Taken {
        let taken = self.as_of(taken, now);
        let bucket = self.quota.charge(taken.bucket, cells, now);
        self.owed(Taken { bucket, ..taken }, priority, cells)
    }

    /// Replaces the cells `held` by a request since `since` by those that were used, which may be more.
    ///
    /// At most one burst is counted for one request, unless more was held: after an absurd usage report, tenants must not be refused for
    /// longer than the bucket takes to refill.
    #[must_use]
    pub fn settle(
        &self,
        taken: Taken,
        priority: Priority,
        held: u64,
        used: u64,
        since: Timestamp,
        now: Timestamp,
    ) -> Taken {
        let used = used.min(self.quota.burst.get().max(held));
        let taken = self.as_of(taken, now);
        let bucket = self.quota.settle(taken.bucket, held, used, since, now);
        self.owed(
            Taken { bucket, ..taken },
            priority,
            used.saturating_sub(held),
        )
    }

    /// What is still taken at `now`.
    fn as_of(&self, taken: Taken, now: Timestamp) -> Taken {
        let bucket = self.quota.refilled(taken.bucket, now);
        self.paid(Taken { bucket, ..taken })
    }

    /// The state with more debt, as far as the `cells` reach into the part that is kept for priorities above `priority`.
    fn owed(&self, taken: Taken, priority: Priority, cells: u64) -> Taken {
        let Taken {
            standard_debt,
            best_effort_debt,
            ..
        } = taken;
        self.paid(match priority {
            Priority::Critical => taken,
            Priority::Standard => Taken {
                standard_debt: standard_debt.saturating_add(cells),
                ..taken
            },
            Priority::BestEffort => Taken {
                best_effort_debt: best_effort_debt.saturating_add(cells),
                ..taken
            },
        })
    }

    /// The state after the debts are paid, the higher priority's first, as far as the part that is kept for priorities above it stays
    /// whole.
    fn paid(&self, taken: Taken) -> Taken {
        let free = self.free(&taken);
        let spare = |free: u64, debtor| free.saturating_sub(self.kept_from(debtor));
        let standard = taken.standard_debt.min(spare(free, Priority::Standard));
        let free = free.saturating_sub(standard);
        let best_effort = taken
            .best_effort_debt
            .min(spare(free, Priority::BestEffort));
        Taken {
            standard_debt: taken.standard_debt.saturating_sub(standard),
            best_effort_debt: taken.best_effort_debt.saturating_sub(best_effort),
            ..taken
        }
    }

    /// Cells that are free to critical requests, which the debts of lower priorities do not affect. If a debt is larger than all that is
    /// still taken, the result exceeds the burst; that debt is about to be paid.
    fn free(&self, taken: &Taken) -> u64 {
        let burst = self.quota.burst.get();
        burst
            .saturating_add(taken.standard_debt)
            .saturating_add(taken.best_effort_debt)
            .saturating_sub(taken.bucket.used)
    }
}

impl Headroom {
    /// Whether the request may take `cells` at `now`. A request that was refused here once stays refused.
    ///
    /// # Errors
    /// As [`Capacity::check`].
    pub fn check(&self, cells: u64, now: Timestamp) -> Result<(), NotNow> {
        match self.refused {
            Some(not_now) => Err(not_now),
            None => self.capacity.check(self.taken, self.priority, cells, now),
        }
    }

    /// The time until all cells of the request's share are free, if no other request takes any.
    #[must_use]
    pub fn until_whole(&self, now: Timestamp) -> Duration {
        let all = self.capacity.share(self.priority);
        match self.capacity.check(self.taken, self.priority, all, now) {
            Err(NotNow::Wait(wait)) => wait,
            Ok(()) | Err(NotNow::ExceedsBurst) => Duration::ZERO,
        }
    }

    /// Cells that the request may take at `now`.
    #[must_use]
    pub fn available(&self, now: Timestamp) -> u64 {
        self.capacity.available(self.taken, self.priority, now)
    }
}

/// This part of `whole`, rounded up: the rest of `whole` is what is rounded down.
fn rounded_up(Ppm(part): Ppm, whole: u64) -> u64 {
    whole.saturating_sub(Ppm(1_000_000_u64.saturating_sub(part)).of(whole))
}

const VERSION: [u8; 4] = *b"brc\x01";

impl Taken {
    /// The state as 44 bytes: `brc` and the version; then five numbers of 8 bytes each, little-endian: used, since, full, the debt of
    /// standard requests, and the debt of best-effort requests.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Bucket {
            used, since, full, ..
        } = self.bucket;
        let (since, full) = (since.as_nanos(), full.as_nanos());
        let numbers = [used, since, full, self.standard_debt, self.best_effort_debt];
        let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
        VERSION.into_iter().chain(bytes).collect()
    }

    /// Reads the state back.
    ///
    /// # Errors
    /// [`Corrupt`] for anything that [`Taken::encode`] does not write: truncated, newer, or another plugin's.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let rest = bytes.strip_prefix(&VERSION).ok_or(Corrupt(()))?;
        let (numbers, []) = rest.as_chunks::<8>() else {
            return Err(Corrupt(()));
        };
        let &[used, since, full, standard_debt, best_effort_debt] = numbers else {
            return Err(Corrupt(()));
        };
        Ok(Self {
            bucket: Bucket {
                used: u64::from_le_bytes(used),
                since: Timestamp::from_nanos(u64::from_le_bytes(since)),
                full: Timestamp::from_nanos(u64::from_le_bytes(full)),
                part: Part::Whole,
            },
            standard_debt: u64::from_le_bytes(standard_debt),
            best_effort_debt: u64::from_le_bytes(best_effort_debt),
        })
    }
}

#[cfg(test)]
mod tests;
