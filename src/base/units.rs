//! The numbers that modules exchange, each with a type that says what it counts.

use std::num::NonZeroU64;
use std::ops::{Add, Sub};
use std::time::{Duration, SystemTime};

/// A count of model tokens, as a provider bills them. Never a bucket's cells.
///
/// Sums and differences saturate: a provider's absurd figure makes a large number, never a wrapped one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tokens(pub u64);

/// Money, in millionths of a US dollar. Sums and differences saturate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub u64);

/// What a budget counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Model tokens.
    Tokens,
    /// Millionths of a US dollar.
    UsdMicros,
}

impl Unit {
    /// The part of a cost that is counted in this unit.
    #[must_use]
    pub fn of(self, cost: Cost) -> u64 {
        match self {
            Self::Tokens => cost.tokens.0,
            Self::UsdMicros => cost.usd.0,
        }
    }
}

/// What a request costs, in both units that a budget can be kept in.
///
/// Both are always counted, so that changing a budget's unit keeps what was spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Input and output tokens together.
    pub tokens: Tokens,
    /// Money; zero where the model has no price.
    pub usd: Micros,
}

macro_rules! saturating {
    ($type:ident) => {
        impl Add for $type {
            type Output = Self;

            fn add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }
        }

        impl Sub for $type {
            type Output = Self;

            fn sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }
    };
}

saturating!(Tokens);
saturating!(Micros);

impl Cost {
    /// No cost.
    pub const ZERO: Self = Self {
        tokens: Tokens(0),
        usd: Micros(0),
    };

    /// Both parts added, saturating.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens + other.tokens,
            usd: self.usd + other.usd,
        }
    }

    /// Both parts subtracted, each at least zero.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens - other.tokens,
            usd: self.usd - other.usd,
        }
    }
}

/// How far in the future a stored time may lie before it means that the clock was set back.
///
/// Up to this limit, a stored time later than `now` is a race: another worker read the clock after us and wrote first.
pub const CLOCK_STEP: Duration = Duration::from_secs(60);

/// Nanoseconds since the Unix epoch, read from the host.
///
/// The host's clock is wall time and may step backwards, so differences saturate at zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Later than any time of the host's clock (the year 2554).
    pub const MAX: Self = Self(u64::MAX);

    /// From nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// From seconds since the Unix epoch, saturating.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(times(secs, NANOS_PER_SEC))
    }

    /// Converts a [`SystemTime`]; `None` before the Unix epoch.
    #[must_use]
    pub(crate) fn of(time: SystemTime) -> Option<Self> {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(Self(nanos(since)))
    }

    /// From a date and time by RFC 3339, such as `2026-11-29T08:49:37.5Z` or `2026-11-29T08:49:37+01:00`.
    #[must_use]
    pub fn parse_rfc_3339(text: &str) -> Option<Self> {
        // The crate reads only UTC, and only capital letters.
        let text = text.to_ascii_uppercase();
        if text.ends_with('Z') {
            return Self::of(humantime::parse_rfc3339(&text).ok()?);
        }
        let (local, offset) = text.split_at_checked(text.len().checked_sub("+00:00".len())?)?;
        let local = Self::of(humantime::parse_rfc3339(&format!("{local}Z")).ok()?)?;
        let (hours, minutes) = offset.get(1..)?.split_once(':')?;
        let two_digits = |text: &str, below: u64| match text.as_bytes() {
            [b'0'..=b'9', b'0'..=b'9'] => text.parse().ok().filter(|&number| number < below),
            _ => None,
        };
        let minutes = times(two_digits(hours, 24)?, 60).saturating_add(two_digits(minutes, 60)?);
        let offset_nanos = times(times(minutes, 60), NANOS_PER_SEC);
        match offset.as_bytes() {
            [b'-', ..] => Some(local.plus_nanos(offset_nanos)),
            [b'+', ..] => Some(Self(local.0.saturating_sub(offset_nanos))),
            _ => None,
        }
    }

    /// The time in the form of RFC 3339, in UTC: rounded up to milliseconds, which are left out if they are zero.
    #[must_use]
    pub fn rfc_3339(self) -> String {
        let millis = self.0.div_ceil(1_000_000);
        let since = Duration::from_millis(millis);
        // A timestamp ends in 2554, within the years that the crate writes.
        let time = SystemTime::UNIX_EPOCH.checked_add(since);
        let time = time.unwrap_or(SystemTime::UNIX_EPOCH);
        match millis % 1_000 {
            0 => humantime::format_rfc3339_seconds(time).to_string(),
            _ => humantime::format_rfc3339_millis(time).to_string(),
        }
    }

    /// Nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / NANOS_PER_SEC
    }

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The time from `earlier` to `self` in nanoseconds; zero if `earlier` is later.
    #[must_use]
    pub(crate) const fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whether this time was read from a clock that has been set back since.
    #[must_use]
    pub(crate) fn is_set_back(self, now: Self) -> bool {
        self.since(now) > CLOCK_STEP
    }

    /// The time this many nanoseconds later, saturating.
    #[must_use]
    pub(crate) const fn plus_nanos(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// The time `after` later, saturating.
    #[must_use]
    pub fn plus(self, after: Duration) -> Self {
        Self(self.0.saturating_add(nanos(after)))
    }
}

/// Whole nanoseconds of a duration; `u64::MAX` (584 years) for anything longer.
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    times(duration.as_secs(), NANOS_PER_SEC).saturating_add(duration.subsec_nanos().into())
}

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// `one × other` if a quick check shows that the product fits into 64 bits. WebAssembly multiplies and divides 64 bits in one instruction,
/// and has no wider numbers.
#[must_use]
pub(crate) const fn product(one: u64, other: u64) -> Option<u64> {
    if one.leading_zeros().saturating_add(other.leading_zeros()) >= u64::BITS {
        Some(one.wrapping_mul(other))
    } else {
        None
    }
}

/// `one × other`, saturating.
#[must_use]
pub(crate) const fn times(one: u64, other: u64) -> u64 {
    match product(one, other) {
        Some(product) => product,
        None => one.saturating_mul(other),
    }
}

/// `one × other ÷ parts`, rounded down, saturating; zero for no parts.
#[must_use]
pub(crate) fn share(one: u64, other: u64, parts: u64) -> u64 {
    let quotient = match product(one, other) {
        Some(product) => return product.checked_div(parts).unwrap_or_default(),
        None => wide(one, other).checked_div(parts.into()),
    };
    u64::try_from(quotient.unwrap_or_default()).unwrap_or(u64::MAX)
}

/// `one × other ÷ parts`, rounded up, saturating; zero for no parts.
#[must_use]
pub(crate) fn share_up(one: u64, other: u64, parts: NonZeroU64) -> u64 {
    match product(one, other) {
        Some(product) => product.div_ceil(parts.get()),
        None => {
            u64::try_from(wide(one, other).div_ceil(u128::from(parts.get()))).unwrap_or(u64::MAX)
        }
    }
}

/// `one × other`.
fn wide(one: u64, other: u64) -> u128 {
    u128::from(one).saturating_mul(other.into())
}

/// A fraction in parts per million: `0.2` is 200,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ppm(pub u64);

impl Ppm {
    /// Whether `part` is less than this fraction of `whole`, exactly.
    #[must_use]
    pub fn is_above(self, part: u64, whole: u64) -> bool {
        match (product(part, MILLION), product(self.0, whole)) {
            (Some(part), Some(whole)) => part < whole,
            _ => wide(part, MILLION) < wide(self.0, whole),
        }
    }

    /// This fraction of `whole`, rounded down, saturating.
    #[must_use]
    pub fn of(self, whole: u64) -> u64 {
        share(self.0, whole, MILLION)
    }
}

const MILLION: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_difference_of_times_never_goes_below_zero() {
        let early = Timestamp::from_secs(1);
        let late = Timestamp::from_secs(3);
        assert_eq!(late.since(early), Duration::from_secs(2));
        assert_eq!(early.since(late), Duration::ZERO);
    }

    #[test]
    fn times_are_written_as_rfc_3339_has_them() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (951_868_800_000, "2000-03-01T00:00:00Z"),
            (1_767_225_599_001, "2025-12-31T23:59:59.001Z"),
            (1_767_225_600_000, "2026-01-01T00:00:00Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ] {
            let at = Timestamp::from_nanos(millis * 1_000_000);
            assert_eq!(at.rfc_3339(), text);
        }
    }

    #[test]
    fn a_fraction_compares_exactly_at_its_edge() {
        let fifth = Ppm(200_000);
        assert!(fifth.is_above(199, 1000));
        assert!(!fifth.is_above(200, 1000));
        assert!(!fifth.is_above(0, 0));
        assert_eq!(fifth.of(1_001), 200);
        assert_eq!(Ppm(2_000_000).of(u64::MAX), u64::MAX);
    }

    #[test]
    fn absurd_figures_saturate() {
        assert_eq!(Tokens(u64::MAX) + Tokens(1), Tokens(u64::MAX));
        assert_eq!(Micros(1) - Micros(2), Micros(0));
    }

    /// Numbers at the edges of 32 and 64 bits, and of millions.
    const EDGES: [u64; 12] = [
        0,
        1,
        2,
        999_999,
        1_000_000,
        u32::MAX as u64,
        1 << 32,
        1 << 33,
        u64::MAX / 1_000_000,
        u64::MAX / 1_000_000 + 1,
        u64::MAX - 1,
        u64::MAX,
    ];

    #[test]
    fn in_64_bits_it_comes_to_the_same_as_in_128() {
        let saturated = |number: u128| u64::try_from(number).unwrap_or(u64::MAX);
        for one in EDGES {
            for other in EDGES {
                let all = u128::from(one) * u128::from(other);
                assert!(product(one, other).is_none_or(|product| u128::from(product) == all));
                assert_eq!(times(one, other), saturated(all));
                for parts in EDGES {
                    let rounded_down = all.checked_div(parts.into()).unwrap_or(0);
                    assert_eq!(share(one, other, parts), saturated(rounded_down));
                    let above = u128::from(parts) * 1_000_000 < all;
                    assert_eq!(Ppm(one).is_above(parts, other), above);
                    if let Some(parts) = NonZeroU64::new(parts) {
                        let rounded_up = all.div_ceil(u128::from(parts.get()));
                        assert_eq!(share_up(one, other, parts), saturated(rounded_up));
                    }
                }
            }
            let duration = Duration::new(one, 999_999_999);
            assert_eq!(nanos(duration), saturated(duration.as_nanos()));
            let from_secs = saturated(u128::from(one) * 1_000_000_000);
            assert_eq!(Timestamp::from_secs(one).as_nanos(), from_secs);
        }
    }
}
