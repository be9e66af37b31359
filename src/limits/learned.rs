//! A capacity that an upstream reports: its limit, as of the last report.
//!
//! Providers count tokens in windows of a minute and refill them evenly, so that what is left now can be computed from what was left at the
//! report. A limit that was not reported for [`STALE`] is forgotten: until the next report, it does not limit requests.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::base::bytes::{Corrupt, Input};
use crate::base::units::Timestamp;
use crate::lease::quota::Quota;
use crate::limits::capacity::{Capacity, Reserved};

/// The window in which providers count tokens, in nanoseconds: a minute.
const WINDOW: NonZeroU64 = NonZeroU64::new(60_000_000_000).unwrap();

/// The time without a report after which a limit is no longer known.
pub const STALE: Duration = Duration::from_secs(600);

/// The time after which an unchanged limit is stored again.
const RENEWED: Duration = Duration::from_secs(60);

/// What an upstream reported about its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learned {
    /// Tokens a minute.
    pub limit: NonZeroU64,
    /// When the upstream reported it.
    pub told: Timestamp,
}

impl Learned {
    /// The reported capacity, as long as it is known.
    #[must_use]
    pub fn capacity(&self, reserved: Reserved, now: Timestamp) -> Option<Capacity> {
        if now.since(self.told) >= STALE {
            return None;
        }
        let quota = Quota {
            tokens_per_window: self.limit,
            window: WINDOW,
            burst: self.limit,
            low_water_mark: None,
            share: None,
        };
        Capacity::of(quota, reserved).ok()
    }

    /// Whether the report has to be stored: the limit has changed, or the stored report is old.
    #[must_use]
    pub fn is_news(&self, before: Option<Self>) -> bool {
        before.is_none_or(|before| {
            before.limit != self.limit || self.told.since(before.told) >= RENEWED
        })
    }

    /// As bytes: `brl` and the version, then both numbers in 8 bytes each, little-endian.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let numbers = [self.limit.get(), self.told.as_nanos()];
        let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
        VERSION.into_iter().chain(bytes).collect()
    }

    /// Reads the report back.
    ///
    /// # Errors
    /// [`Corrupt`] for anything that [`Learned::encode`] does not write.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut input = Input(bytes.strip_prefix(&VERSION).ok_or(Corrupt(()))?);
        let limit = NonZeroU64::new(input.u64()?).ok_or(Corrupt(()))?;
        let told = input.time()?;
        input.end()?;
        Ok(Self { limit, told })
    }
}

const VERSION: [u8; 4] = *b"brl\x01";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::units::Ppm;
    use crate::limits::capacity::Priority;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const RESERVED: Reserved = Reserved {
        critical: Ppm(200_000),
        standard: Ppm(100_000),
    };

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(1_709_208_000 + secs)
    }

    fn learned(limit: u64, secs: u64) -> Learned {
        Learned {
            limit: NonZeroU64::new(limit).unwrap(),
            told: at(secs),
        }
    }

    #[test]
    fn what_is_left_is_shared_by_priority_and_comes_back_within_a_minute() {
        let capacity = learned(60_000, 0).capacity(RESERVED, at(0)).unwrap();
        let taken = Capacity::as_told(60_000, 15_000, at(0));
        let available = |secs| {
            [Priority::BestEffort, Priority::Standard, Priority::Critical]
                .map(|priority| capacity.available(taken, priority, at(secs)))
        };
        assert_eq!(available(0), [0, 3_000, 15_000]);
        assert_eq!(available(10), [7_000, 13_000, 25_000]);
        assert_eq!(available(60), [42_000, 48_000, 60_000]);
    }

    #[test]
    fn a_limit_of_which_nobody_has_told_is_not_known() {
        assert!(learned(60_000, 0).capacity(RESERVED, at(599)).is_some());
        assert_eq!(learned(60_000, 0).capacity(RESERVED, at(600)), None);
        // A limit of which nothing would be left for some priorities.
        assert_eq!(learned(1, 0).capacity(RESERVED, at(0)), None);
    }

    #[test]
    fn what_stays_the_same_is_written_once_a_minute() {
        let first = learned(60_000, 0);
        assert!(first.is_news(None));
        assert!(!learned(60_000, 59).is_news(Some(first)));
        assert!(learned(60_000, 60).is_news(Some(first)));
        assert!(learned(60_001, 1).is_news(Some(first)));
    }

    #[test]
    fn other_bytes_are_none_of_ours() {
        let bytes = learned(7, 0).encode();
        assert_eq!(Learned::decode(&bytes), Ok(learned(7, 0)));
        let zero = [&VERSION[..], &[0; 16]].concat();
        for wrong in [&bytes[..19], &[&bytes[..], b"x"].concat(), b"", &zero] {
            assert_eq!(Learned::decode(wrong), Err(Corrupt(())));
        }
    }
}
