//! Whether a request waits for this proxy's part of a budget, and for how long a part stays.

use super::{Grant, Terms};
use crate::base::units::Timestamp;

impl Grant {
    /// Whether a first request should wait for a moment: this proxy holds nothing, and may be granted something. So it is before the first
    /// answer in a window, and after a silence, in which the proxy gave back what it did not use.
    #[must_use]
    pub fn awaits_first(&self, used: u64, most: u64, now: Timestamp) -> bool {
        let holds_nothing = self.granted <= used && self.dry == 0;
        let may_be_granted = self.free > 0 || self.is_dated(most, now);
        self.failures == 0 && (self.is_cold() || holds_nothing && may_be_granted)
    }

    /// The nanoseconds for which a holder that is in use now keeps what it has, even if no more requests come.
    #[must_use]
    pub fn stays_for(&self, used: u64, terms: &Terms, now: Timestamp) -> u64 {
        self.period(used, terms, now).saturating_mul(2)
    }

    /// Whether the store has not answered yet in this window.
    #[must_use]
    pub fn is_cold(&self) -> bool {
        self.heard == Timestamp::default()
    }
}
