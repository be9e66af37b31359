//! The numbers that cross a module's border, each a type that says what it counts.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A count of model tokens, as a provider bills them. Never a bucket's cells.
///
/// Sums and differences saturate: a provider's absurd figure makes a large number, never a wrapped one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tokens(pub u64);

/// Money, in millionths of a US dollar. Sums and differences saturate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub u64);

/// What a request costs, in both units that a budget can be kept in.
///
/// Both are always counted, so that changing a budget's unit keeps what was spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Input and output tokens together.
    pub tokens: Tokens,
    /// Zero where the model has no price.
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
    /// Nothing at all.
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
/// Below it, a stored time that is later than `now` is a race: another worker read the clock after us
/// and wrote first.
pub const CLOCK_STEP: Duration = Duration::from_secs(60);

/// Nanoseconds since the Unix epoch, read from the host.
///
/// The host's clock is wall time and may step backwards, so differences saturate at zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Later than any time that the host can tell (the year 2554).
    pub const MAX: Self = Self(u64::MAX);

    /// From nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// From seconds since the Unix epoch, saturating.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
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
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A fraction in parts per million: `0.2` is 200,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ppm(pub u64);

impl Ppm {
    /// Whether `part` is less than this fraction of `whole`, exactly.
    #[must_use]
    pub fn is_above(self, part: u64, whole: u64) -> bool {
        u128::from(part).saturating_mul(1_000_000)
            < u128::from(self.0).saturating_mul(u128::from(whole))
    }

    /// This fraction of `whole`, rounded down, saturating.
    #[must_use]
    pub fn of(self, whole: u64) -> u64 {
        let product = u128::from(self.0).saturating_mul(u128::from(whole)) / 1_000_000;
        u64::try_from(product).unwrap_or(u64::MAX)
    }
}

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
}
