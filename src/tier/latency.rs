//! How soon a tier's answers begin: times to first byte in a sliding window, and whether they meet an SLA.
//!
//! **Window.** There are two half-windows of [`HALF`] each, aligned to the epoch: the current one and the one before. So the window covers
//! the last one to two minutes, and older answers do not count.
//!
//! **Histogram.** Each power of two of milliseconds has 16 buckets. The reported p95 is the greatest time of the bucket in which the true
//! p95 lies: never less than the true one (in whole milliseconds, rounded up), and less than a sixteenth above it. The number of buckets
//! bounds the memory, whatever is measured.
//!
//! **Hysteresis.** A tier that missed an SLA has to come down to [`RETURN`] of that SLA before it counts as meeting it. Plans may have
//! different SLAs for one tier, so that there is no single verdict to remember. Instead a *level* is remembered that follows the p95 with
//! slack: the level rises with the p95 at once, and falls only as far as 5/4 of the p95. An SLA is missed while the level is above it. For
//! every single SLA this has the effect described above: the level rises above an SLA of `t` when the p95 does, and is back at `t` when the
//! p95 is at 4/5 of `t`.
//!
//! **Evidence.** A p95 of fewer than [`ENOUGH`] times is simply the longest of them, so that one slow answer would suffice: so few times
//! may lower the level, but not raise it. With fewer than [`FEW`] times nothing is known, and an unknown tier meets every SLA.
//!
//! **Probes.** A tier that nobody uses because it is too slow would never be seen to have recovered. So one request is sent to that tier
//! whenever no answer was measured there for [`PROBE_EVERY`]. This is a rate and not a share of the requests, since evidence is a number of
//! times: at least [`FEW`] in each half-window, however many requests there are; of two requests a second a probe is 5 %, of twenty 0.5 %.
//! Where tenants without that SLA still use the tier, their answers are measured, and no probes are sent. Each probe is claimed in the
//! shared record, so that only one of all workers sends it.

use std::time::Duration;

use crate::base::bytes::{Corrupt, Input};
use crate::base::units::{Timestamp, nanos};

/// Length of a half-window. It equals [`crate::base::units::CLOCK_STEP`]: no worker in a race is further behind than that.
pub const HALF: Duration = Duration::from_secs(60);

/// The fewest measured times for a meaningful p95: with fewer, the p95 is just the longest of these times.
pub const ENOUGH: u64 = 20;

/// The fewest measured times from which anything is concluded.
pub const FEW: u64 = 3;

/// After this long without an answer, one request is let through as a probe.
pub const PROBE_EVERY: Duration = Duration::from_secs(10);

/// The part of a missed SLA to which the p95 has to fall before the SLA counts as met again: 4/5.
pub const RETURN: (u64, u64) = (4, 5);

/// The longest SLA that can be missed: longer times are not distinguished.
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
    /// The level, which follows the p95 with slack, in milliseconds; 0 while nothing is known.
    level: u64,
    /// When the last answer was measured, or a probe sent.
    heard: Timestamp,
}

/// Counts by bucket, in the buckets' order, without the empty ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Histogram(Vec<(u8, u32)>);

impl Latency {
    /// The state as of `now`, without what is too old.
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

    /// Records an answer that began after `time`. The state must be as of `now`.
    pub fn record(&mut self, time: Duration, now: Timestamp) {
        let half = match half_of(now) < self.half {
            true => &mut self.previous,
            false => &mut self.current,
        };
        half.add(bucket_of(millis_up(time)));
        self.heard = self.heard.max(now);
        self.follow();
    }

    /// The standing that follows from this state.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing {
            level: self.level,
            heard: self.heard,
        }
    }

    /// Records that a probe was sent.
    pub fn probe(&mut self, now: Timestamp) {
        self.heard = self.heard.max(now);
    }

    /// The time within which 95 % of the answers in the window began, in milliseconds, by nearest rank; `u64::MAX` if that is beyond
    /// [`LONGEST`], `None` without any answers.
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

    /// The number of times in the window.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.previous.count().saturating_add(self.current.count())
    }

    /// Adjusts the level to the p95.
    fn follow(&mut self) {
        let p95 = self.p95().unwrap_or_default();
        let (part, whole) = RETURN;
        // Rounded up, so that with whole milliseconds the slack is at most `t` only if the p95 is at most 4/5 of `t`.
        let slack = p95.saturating_mul(whole).div_ceil(part).max(p95);
        let fallen = self.level.min(slack);
        self.level = match self.count() {
            ..FEW => 0,
            FEW..ENOUGH => fallen,
            _ => fallen.max(p95),
        };
    }
}

/// The standing of a tier: all that a decision needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    level: u64,
    heard: Timestamp,
}

impl Standing {
    /// The standing of the state that [`Latency::decode`] reads, as of `now`; mostly without reading the histograms, since the level stays
    /// the same until its half-window ends.
    ///
    /// # Errors
    /// [`Corrupt`] if the bytes, as far as they were read, are not a state.
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
        // The sum of at most 225 counts of 32 bits fits.
        counts.fold(0, u64::saturating_add)
    }
}

/// Whether a half-window is the current one. A half-window that begins after `now` was begun by a worker which read the clock later. If it
/// is more than one ahead, the clock was set back, and what was measured before that is of no use.
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

/// The bucket of a time: 16 times the number of its doublings beyond 31 ms, plus its first five binary digits.
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
    // At most 32 is shifted by at most 12 bits, which fits.
    (digits.saturating_add(1) << doublings).saturating_sub(1)
}

const VERSION_1: [u8; 4] = *b"brl\x01";

impl Latency {
    /// The bytes of this state, at most 2,280, little-endian: `brl` and the version; then half-window, level and heard in 8 bytes each;
    /// then for each half its number of buckets (1), and for each bucket its number (1) and count (4).
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

/// The fields before the histograms.
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
