//! When an upstream's limits are full again, by its headers.

use std::time::Duration;

use super::clock::{count, date, go_duration};
use crate::base::units::Timestamp;
use crate::http::Headers;

/// For each limit, the header that reports what is left and the one that reports when the limit is full again.
///
/// OpenAI's names are those of most others (Azure, Groq, xAI, vLLM's gateways).
const LIMITS: [(&str, &str); 7] = [
    (
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
    ),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    (
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-requests-reset",
    ),
    (
        "anthropic-ratelimit-tokens-remaining",
        "anthropic-ratelimit-tokens-reset",
    ),
    (
        "anthropic-ratelimit-input-tokens-remaining",
        "anthropic-ratelimit-input-tokens-reset",
    ),
    (
        "anthropic-ratelimit-output-tokens-remaining",
        "anthropic-ratelimit-output-tokens-reset",
    ),
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
];

/// When a refused request may be retried: when the last of the limits with nothing left is full again. If all limits have something left,
/// that was not enough; then the first limit that is full again may suffice.
pub(super) fn reset(response: &Headers, now: Timestamp) -> Option<Duration> {
    let (mut spent, mut others): (Option<Duration>, Option<Duration>) = (None, None);
    for (left, full) in LIMITS {
        let Some(wait) = response
            .only(full)
            .and_then(|full| until(full.trim_ascii(), now))
        else {
            continue;
        };
        match response.only(left) {
            // Azure reports -1, and 0 s, where the values are unknown.
            Some([b'-', ..]) => {}
            Some(b"0") => spent = spent.max(Some(wait)),
            _ => others = Some(others.map_or(wait, |other| other.min(wait))),
        }
    }
    spent.or(others)
}

/// A duration, a number of seconds, or a point in time.
pub(in crate::provider) fn until(value: &[u8], now: Timestamp) -> Option<Duration> {
    if let Some(number) = count(value, Duration::from_millis(1)) {
        // Numbers that are too large for a wait are seconds or milliseconds since the epoch.
        return match number.as_millis() {
            ..100_000_000 => count(value, Duration::from_secs(1)),
            100_000_000..100_000_000_000 => {
                let at = Timestamp::from_nanos(0).plus(count(value, Duration::from_secs(1))?);
                Some(at.since(now))
            }
            _ => Some(Timestamp::from_nanos(0).plus(number).since(now)),
        };
    }
    go_duration(value).or_else(|| Some(date(value)?.since(now)))
}
