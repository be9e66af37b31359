//! The store's clock, as it is seen from here.

use crate::base::units::Timestamp;

/// Clocks that differ by less are the same: one that is set by the network's time is closer.
const SAME: u64 = 1_000_000_000;

/// How far the store's clock is from ours. Windows of accounts follow the store's, so that all proxies change at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Skew {
    /// By nothing worth a word, or nothing is known.
    #[default]
    None,
    /// The store's is ahead by so many nanoseconds.
    Ahead(u64),
    /// The store's is behind.
    Behind(u64),
}

impl Skew {
    /// From an answer: the store told its time, in milliseconds, at some moment between these two of ours.
    #[must_use]
    pub fn told(store: u64, sent: Timestamp, received: Timestamp) -> Self {
        let store = Timestamp::from_nanos(store.saturating_mul(1_000_000));
        match (store.nanos_since(received), sent.nanos_since(store)) {
            (ahead @ SAME.., _) => Self::Ahead(ahead),
            (_, behind @ SAME..) => Self::Behind(behind),
            _ => Self::None,
        }
    }

    /// The store's time at a time of ours.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::None => now,
            Self::Ahead(nanos) => now.plus_nanos(nanos),
            Self::Behind(nanos) => Timestamp::from_nanos(now.as_nanos().saturating_sub(nanos)),
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
    fn a_clock_that_is_an_hour_off_is_followed() {
        let ahead = Skew::told(8_600_000, SENT, SENT);
        assert_eq!(ahead.at(SENT), Timestamp::from_secs(8_600));
        let behind = Skew::told(1_400_000, SENT, SENT);
        assert_eq!(behind.at(SENT), Timestamp::from_secs(1_400));
        assert_eq!(behind.at(Timestamp::from_secs(1)), Timestamp::default());
        assert_eq!(Skew::told(u64::MAX, SENT, SENT).at(SENT), Timestamp::MAX);
    }
}
