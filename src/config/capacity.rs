//! What tenants share of a tier, and how much each one's requests matter there.

use super::limits::quota;
use super::path::Path;
use super::raw::{RawBucket, RawCapacity, RawPriority};
use super::{Parsed, wrong};
use crate::capacity::{Capacity, Priority};
use crate::number::Number;
use crate::units::Ppm;

/// Enough for the most important requests to be served at once until others make way, which takes what is in flight no
/// longer than a fifth of the window.
const CRITICAL: Ppm = Ppm(200_000);
const STANDARD: Ppm = Ppm(100_000);

/// `path`: of the capacity.
pub(super) fn capacity(raw: RawCapacity, path: &Path<'_>) -> Parsed<Capacity> {
    let bucket = RawBucket {
        tokens_per_window: Some(raw.tokens_per_window),
        window: Some(raw.window),
        burst: raw.burst,
        low_water_mark: None,
    };
    let quota = quota(&bucket, path)?;
    let burst = quota.burst.get();
    let part = |number: Option<Number>, default, key: &str| match number {
        None => Ok(rounded_up(default, burst)),
        Some(number) => match number.millionths() {
            Some(ppm @ 0..1_000_000) => Ok(rounded_up(Ppm(ppm), burst)),
            _ => wrong(
                &path.key("reserved").key(key),
                "must be a fraction of at least 0 and less than 1, with at most six decimals",
            ),
        },
    };
    let critical = part(raw.reserved.critical, CRITICAL, "critical")?;
    let standard = part(raw.reserved.standard, STANDARD, "standard")?;
    if critical.saturating_add(standard) >= burst {
        return wrong(
            &path.key("reserved"),
            format!(
                "{critical} for `critical` and {standard} more for `standard` leave nothing of {burst} tokens for `best_effort`"
            ),
        );
    }
    Ok(Capacity {
        quota,
        critical,
        standard,
    })
}

pub(super) fn priority(raw: RawPriority) -> Priority {
    match raw {
        RawPriority::Critical => Priority::Critical,
        RawPriority::Standard => Priority::Standard,
        RawPriority::BestEffort => Priority::BestEffort,
    }
}

/// So much of `whole`, which is what the rest leaves when it is rounded down.
fn rounded_up(Ppm(part): Ppm, whole: u64) -> u64 {
    whole.saturating_sub(Ppm(1_000_000_u64.saturating_sub(part)).of(whole))
}
