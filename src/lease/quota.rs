//! How fast a token bucket refills, and which part of that rate is this proxy's. The arithmetic is in [`bucket`](crate::limits::bucket).

use std::num::NonZeroU64;

use crate::base::units::Ppm;
use crate::lease::share::Share;

/// All of a quota, in millionths.
pub const WHOLE: u64 = 1_000_000;

/// How much a bucket holds and how fast it refills. One cell stands for one model token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Cells that come back in one window.
    pub tokens_per_window: NonZeroU64,
    /// The window's length in nanoseconds; the refill rate is `tokens_per_window / window`.
    pub window: NonZeroU64,
    /// Cells that a full bucket holds.
    pub burst: NonZeroU64,
    /// Below this fraction of `burst` the bucket asks for the last tier.
    pub low_water_mark: Option<Ppm>,
    /// How the bucket is shared with other proxies, if it is shared: then each proxy has a [`Part`] of it.
    pub share: Option<Share>,
}

/// Which part of a quota is this proxy's: the same part of its rate and of its burst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// All of the quota: it is not shared.
    #[default]
    Whole,
    /// This part.
    Of(Ppm),
    /// Nothing as yet, but one request may be served on credit.
    Credit,
}
