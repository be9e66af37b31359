//! How fast a token bucket refills, and which part of that rate this proxy has. The arithmetic is in [`bucket`](crate::limits::bucket).

use std::num::NonZeroU64;

use crate::base::units::Ppm;
use crate::lease::share::Share;

/// All of a quota, in millionths.
pub const WHOLE: u64 = 1_000_000;

/// How much a bucket holds and how fast it refills. One cell is one model token, or one request in a bucket of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Cells that are refilled in one window.
    pub tokens_per_window: NonZeroU64,
    /// The window's length in nanoseconds; the refill rate is `tokens_per_window / window`.
    pub window: NonZeroU64,
    /// Cells that a full bucket holds.
    pub burst: NonZeroU64,
    /// While less than this fraction of `burst` is left, requests are sent to the last tier.
    pub low_water_mark: Option<Ppm>,
    /// How the bucket is shared with other proxies; `None` if it is not. Of a shared bucket each proxy has a [`Part`].
    pub share: Option<Share>,
}

/// Which part of a quota this proxy has: the same part of its rate and of its burst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// All of the quota, which is not shared.
    #[default]
    Whole,
    /// This fraction of the quota.
    Of(Ppm),
    /// Nothing yet, but one request may be served on credit.
    Credit,
}
