//! The capacity of a tier, which all tenants share, and the priorities of tenants there.

use super::bucket::quota;
use super::path::Path;
use super::raw::{RawBucket, RawCapacity, RawCapacityFrom, RawPriority};
use super::{Parsed, wrong};
use crate::base::units::Ppm;
use crate::body::number::Number;
use crate::limits::capacity::{Capacity, CapacitySource, Priority, Reserved};

/// The default of `reserved.critical`. This part lets critical requests pass at once until requests in flight have made room, for up to a
/// fifth of the window.
const CRITICAL: Ppm = Ppm(200_000);
const STANDARD: Ppm = Ppm(100_000);

/// `path`: the path of the capacity.
pub(super) fn capacity(raw: RawCapacity, path: &Path<'_>) -> Parsed<CapacitySource> {
    let part = |number: Option<Number>, default, key: &str| match number {
        None => Ok(default),
        Some(number) => match number.millionths() {
            Some(ppm @ 0..1_000_000) => Ok(Ppm(ppm)),
            _ => wrong(
                &path.key("reserved").key(key),
                "must be a fraction of at least 0 and less than 1, with at most six decimals",
            ),
        },
    };
    let reserved = Reserved {
        critical: part(raw.reserved.critical, CRITICAL, "critical")?,
        standard: part(raw.reserved.standard, STANDARD, "standard")?,
    };
    if raw.from == Some(RawCapacityFrom::Upstream) {
        let numbers = [
            ("tokens_per_window", raw.tokens_per_window.is_some()),
            ("window", raw.window.is_some()),
            ("burst", raw.burst.is_some()),
        ];
        if let Some((key, _)) = numbers.into_iter().find(|(_, is_given)| *is_given) {
            return wrong(&path.key(key), "is what the upstream says, with `from`");
        }
        if reserved.critical.0.saturating_add(reserved.standard.0) >= 1_000_000 {
            return wrong(&path.key("reserved"), "leaves nothing for `best_effort`");
        }
        return Ok(CapacitySource::Upstream(reserved));
    }
    let (Some(tokens_per_window), Some(window)) = (raw.tokens_per_window, raw.window) else {
        return wrong(
            path,
            "needs `tokens_per_window` and `window`, or `\"from\": \"upstream\"`",
        );
    };
    let bucket = RawBucket {
        tokens_per_window: Some(tokens_per_window),
        requests_per_window: None,
        window: Some(window),
        burst: raw.burst,
        low_water_mark: None,
    };
    let capacity = Capacity::of(quota(&bucket, path)?, reserved);
    match capacity {
        Ok(capacity) => Ok(CapacitySource::Configured(capacity)),
        Err((critical, standard, burst)) => wrong(
            &path.key("reserved"),
            format!(
                "{critical} for `critical` and {standard} more for `standard` leave nothing of {burst} tokens for `best_effort`"
            ),
        ),
    }
}

pub(super) fn priority(raw: RawPriority) -> Priority {
    match raw {
        RawPriority::Critical => Priority::Critical,
        RawPriority::Standard => Priority::Standard,
        RawPriority::BestEffort => Priority::BestEffort,
    }
}
