//! How far the store's clock differs from this proxy's.

use crate::base::units::Timestamp;

/// Differences below this many nanoseconds are ignored: clocks that are synchronised by NTP differ by less.
const SAME: u64 = 1_000_000_000;

/// How far the store's clock is from ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Skew {
    /// The difference is negligible, or not known.
    #[default]
    None,
    /// The store's clock is ahead by this many nanoseconds.
    Ahead(u64),
    /// The store's clock is behind by this many nanoseconds.
    Behind(u64),
}

impl Skew {
    /// The difference as an answer shows it. `store`: the store's time, in milliseconds, which the store read between `sent` and
    /// `received`.
    #[must_use]
    pub fn told(store: u64, sent: Timestamp, received: Timestamp) -> Self {
        let store = Timestamp::from_nanos(store.saturating_mul(1_000_000));
        match (store.nanos_since(received), sent.nanos_since(store)) {
            (ahead @ SAME.., _) => Self::Ahead(ahead),
            (_, behind @ SAME..) => Self::Behind(behind),
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const SENT: Timestamp = Timestamp::from_secs(5_000);

    #[test]
    fn a_slow_answer_is_no_other_clock() {
        let received = Timestamp::from_secs(5_030);
        for told in [4_999_001, 5_000_000, 5_030_000, 5_030_999] {
            assert_eq!(Skew::told(told, SENT, received), Skew::None, "{told}");
        }
    }

    #[test]
    fn a_clock_that_is_an_hour_off_is_told() {
        let hour = 3_600_000_000_000;
        assert_eq!(Skew::told(8_600_000, SENT, SENT), Skew::Ahead(hour));
        assert_eq!(Skew::told(1_400_000, SENT, SENT), Skew::Behind(hour));
        let forever = Timestamp::MAX.nanos_since(SENT);
        assert_eq!(Skew::told(u64::MAX, SENT, SENT), Skew::Ahead(forever));
    }
}
