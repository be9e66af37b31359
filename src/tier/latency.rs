//! How soon a tier's answers begin: times to first byte in a sliding window, and whether they keep to an SLA.
//!
//! **Window.** Two half-windows of [`HALF`] each, aligned to the epoch: the current one and the one before. So it covers
//! the last one to two minutes, and what lies further back counts for nothing.
//!
//! **Histogram.** A power of two of milliseconds has 16 buckets. The reported p95 is the greatest time of the bucket in
//! which it lies: never less than the true one (in whole milliseconds, rounded up), and more by less than a sixteenth.
//! Memory is bounded by the number of buckets, whatever comes.
//!
//! **Hysteresis.** A tier that missed an SLA has to come down to [`RETURN`] of it before it counts as one that keeps it. Plans
//! may ask different things of one tier, so that there is no one verdict to be remembered. What is remembered is a
//! *level* that follows the p95 with play, as a gear with slack follows another one: it goes up with the p95 at once, and
//! comes down only as far as 5/4 of it. An SLA is missed while the level is above it. For each SLA of its own that is
//! the very hysteresis: the level rises above `t` when the p95 does, and is back at `t` when the p95 is at 4/5 of `t`.
//!
//! **Evidence.** A p95 of fewer than [`ENOUGH`] times is the longest of them, so that one slow answer would do: they may
//! bring the level down, but not up. With fewer than [`FEW`] nothing is known, and what is not known keeps any SLA.
//!
//! **Probes.** A tier that nobody uses since it is too slow would never be seen to have recovered. So one request is
//! let through to it whenever nothing was heard of it for [`PROBE_EVERY`]. That is a rate and no share of the requests,
//! since it is the number of times that makes evidence: at least [`FEW`] in each half-window, however many
//! requests there are; of two requests a second it is 5 %, of twenty 0.5 %. Where tenants without that SLA still use the tier, their
//! answers are measured, and there are no probes at all. Each is claimed in the shared record, so that of all workers one
//! sends it.

use std::time::Duration;

use crate::base::bytes::{Corrupt, Input};
use crate::base::units::{Timestamp, nanos};

/// Length of a half-window. It is also [`crate::base::units::CLOCK_STEP`]: of workers that race, none is further behind.
pub const HALF: Duration = Duration::from_secs(60);

/// Times from which a p95 is one: with fewer it is the longest of them.
pub const ENOUGH: u64 = 20;

/// Times with which something is known at all.
pub const FEW: u64 = 3;

/// After so long without an answer a request is let through to see how things are.
pub const PROBE_EVERY: Duration = Duration::from_secs(10);

/// The part of an SLA down to which a p95 has to come before it is kept again: 4/5.
pub const RETURN: (u64, u64) = (4, 5);

/// The longest SLA that can be missed: longer times are one like another.
pub const LONGEST: Duration = Duration::from_millis(LONGEST_MILLIS);

/// [`LONGEST`], in milliseconds.
pub(crate) const LONGEST_MILLIS: u64 = 131_071;

/// The last bucket: all times beyond [`LONGEST`].
const BEYOND: u8 = 224;

/// What is known of one tier's times to first byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// The number of the current half-window, counted from the epoch.
    half: u64,
    previous: Histogram,
    current: Histogram,
    /// Follows the p95 with play, in milliseconds; 0 while nothing is known.
    level: u64,
    /// When an answer was last heard, or a probe sent.
    heard: Timestamp,
}

/// Counts by bucket, in the buckets' order, without those that are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Histogram(Vec<(u8, u32)>);

impl Latency {
    /// As of `now`: what is too old is gone.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Self {
        let half = half_of(now);
        if is_current(self.half, now) {
            return self;
        }
        if self.half.checked_add(1) != Some(half) {
            return Self {
                half,
                ..Self::default()
            };
        }
        let mut next = Self {
            half,
            previous: self.current,
            current: Histogram::default(),
            ..self
        };
        next.follow();
        next
    }

    /// Takes in an answer that began after `time`. To be asked of a state that is as of `now`.
    pub fn record(&mut self, time: Duration, now: Timestamp) {
        let half = match half_of(now) < self.half {
            true => &mut self.previous,
            false => &mut self.current,
        };
        half.add(bucket_of(millis_up(time)));
        self.heard = self.heard.max(now);
        self.follow();
    }

    /// What follows from it.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing {
            level: self.level,
            heard: self.heard,
        }
    }

    /// Takes note of a probe.
    pub fn probe(&mut self, now: Timestamp) {
        self.heard = self.heard.max(now);
    }

    /// The time in which 95 % of the answers in the window began, in milliseconds, by nearest rank; `u64::MAX` if that is beyond
    /// [`LONGEST`], `None` without any.
    #[must_use]
    pub fn p95(&self) -> Option<u64> {
        // Of n times, n - ceil(0.95 n) = floor(n / 20) may be longer.
        let mut longer = self.count() / 20;
        let mut previous = self.previous.0.iter().rev().peekable();
        let mut current = self.current.0.iter().rev().peekable();
        loop {
            let is_previous = previous.peek() > current.peek();
            let (bucket, count) = match is_previous {
                true => previous.next()?,
                false => current.next()?,
            };
            match longer.checked_sub(u64::from(*count)) {
                Some(rest) => longer = rest,
                None => return Some(greatest_of(*bucket)),
            }
        }
    }

    /// Times in the window.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.previous.count().saturating_add(self.current.count())
    }

    /// Lets the level follow the p95.
    fn follow(&mut self) {
        let p95 = self.p95().unwrap_or_default();
        let (part, whole) = RETURN;
        // Rounded up, so that with whole milliseconds it is at most `t` only if the p95 is at most 4/5 of `t`.
        let slack = p95.saturating_mul(whole).div_ceil(part).max(p95);
        let fallen = self.level.min(slack);
        self.level = match self.count() {
            ..FEW => 0,
            FEW..ENOUGH => fallen,
            _ => fallen.max(p95),
        };
    }
}

/// How a tier stands: all that a decision needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    level: u64,
    heard: Timestamp,
}

impl Standing {
    /// That of [`Latency::decode`] as of `now`, mostly without reading the histograms: the level stands until their
    /// half-window ends.
    ///
    /// # Errors
    /// [`Corrupt`] for what is no state as far as it was read.
    pub fn read(bytes: &[u8], now: Timestamp) -> Result<Self, Corrupt> {
        let Head { half, level, heard } = head(&mut Input(bytes))?;
        match is_current(half, now) {
            true => Ok(Self { level, heard }),
            false => Ok(Latency::decode(bytes)?.at(now).standing()),
        }
    }

    /// Whether an SLA is missed: 95 % of the answers are to begin within `p95`.
    #[must_use]
    pub fn misses(self, p95: Duration) -> bool {
        self.level > millis_up(p95)
    }

    /// Whether a probe is due.
    #[must_use]
    pub fn is_due(self, now: Timestamp) -> bool {
        now.since(self.heard) >= PROBE_EVERY
    }
}

impl Histogram {
    fn add(&mut self, bucket: u8) {
        match self.0.binary_search_by_key(&bucket, |&(bucket, _)| bucket) {
            Ok(at) => {
                let found = self.0.get_mut(at).into_iter();
                found.for_each(|(_, count)| *count = count.saturating_add(1));
            }
            Err(at) => self.0.insert(at, (bucket, 1)),
        }
    }

    fn count(&self) -> u64 {
        let counts = self.0.iter().map(|&(_, count)| u64::from(count));
        // At most 225 of 32 bits.
        counts.fold(0, u64::saturating_add)
    }
}

/// Whether a half-window is the current one. One that begins after `now` was begun by a worker which read the clock later. If it is more
/// than one ahead, the clock was set back, and what was measured before that is of no use.
fn is_current(half: u64, now: Timestamp) -> bool {
    let this = half_of(now);
    half == this || this.checked_add(1) == Some(half)
}

fn half_of(now: Timestamp) -> u64 {
    now.as_nanos().checked_div(nanos(HALF)).unwrap_or_default()
}

fn millis_up(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// A time's bucket: the number of its doublings beyond 31 ms, sixteen for each, and its first five binary digits.
fn bucket_of(millis: u64) -> u8 {
    let doublings = millis.max(1).ilog2().saturating_sub(4);
    let digits = millis >> doublings;
    let bucket = u64::from(doublings)
        .saturating_mul(16)
        .saturating_add(digits);
    u8::try_from(bucket).unwrap_or(BEYOND).min(BEYOND)
}

/// The greatest time of a bucket, in milliseconds.
fn greatest_of(bucket: u8) -> u64 {
    if bucket >= BEYOND {
        return u64::MAX;
    }
    let doublings = (bucket / 16).saturating_sub(1);
    let digits = u64::from(bucket).saturating_sub(u64::from(doublings).saturating_mul(16));
    // At most 32 shifted by 12.
    (digits.saturating_add(1) << doublings).saturating_sub(1)
}

const VERSION_1: [u8; 4] = *b"brl\x01";

impl Latency {
    /// The bytes of this state, at most 2,280. Little-endian: `brl` and the version, then 8 each: half-window, level, heard; then
    /// each half's number of buckets (1) and of each its number (1) and count (4).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let halves = [&self.previous, &self.current];
        let room = halves.map(|half| half.0.len().saturating_mul(5));
        let mut bytes =
            Vec::with_capacity(room.iter().fold(30, |sum, &part| part.saturating_add(sum)));
        bytes.extend(VERSION_1);
        for number in [self.half, self.level, self.heard.as_nanos()] {
            bytes.extend(number.to_le_bytes());
        }
        for Histogram(buckets) in halves {
            bytes.push(u8::try_from(buckets.len()).unwrap_or(u8::MAX));
            for (bucket, count) in buckets {
                bytes.push(*bucket);
                bytes.extend(count.to_le_bytes());
            }
        }
        bytes
    }

    /// Reads a state back.
    ///
    /// # Errors
    /// [`Corrupt`] for anything that [`Latency::encode`] does not write.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut input = Input(bytes);
        let Head { half, level, heard } = head(&mut input)?;
        let state = Self {
            half,
            level,
            heard,
            previous: histogram(&mut input)?,
            current: histogram(&mut input)?,
        };
        input.end().map(|()| state)
    }
}

/// What comes before the histograms.
struct Head {
    half: u64,
    level: u64,
    heard: Timestamp,
}

fn head(input: &mut Input<'_>) -> Result<Head, Corrupt> {
    match input.take()? {
        VERSION_1 => Ok(Head {
            half: input.u64()?,
            level: input.u64()?,
            heard: input.time()?,
        }),
        _ => Err(Corrupt(())),
    }
}

/// Buckets in their order, none of them empty.
fn histogram(input: &mut Input<'_>) -> Result<Histogram, Corrupt> {
    let [length] = input.take()?;
    let mut buckets = Vec::with_capacity(length.into());
    for _ in 0..length {
        let [bucket] = input.take()?;
        let count = input.u32()?;
        let is_next = buckets.last().is_none_or(|&(last, _)| last < bucket);
        if !is_next || bucket > BEYOND || count == 0 {
            return Err(Corrupt(()));
        }
        buckets.push((bucket, count));
    }
    Ok(Histogram(buckets))
}

#[cfg(test)]
mod tests;
