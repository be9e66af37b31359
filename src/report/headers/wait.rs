//! When to try again: `retry-after` (RFC 9110, 10.2.3), and `retry-after-ms` and `x-should-retry`, which the SDKs of OpenAI and Anthropic
//! honour.

use std::time::Duration;

use super::Header;

/// Headers with the time until the client should try again: in milliseconds, and in whole seconds, both rounded up.
#[must_use]
pub fn retry_after(wait: Duration) -> [Header; 2] {
    let millis = millis_up(wait);
    [
        ("retry-after", millis.div_ceil(1_000).into()),
        ("retry-after-ms", millis.into()),
    ]
}

/// Stops the SDKs from trying again by themselves.
#[must_use]
pub fn do_not_retry() -> Header {
    ("x-should-retry", "false".into())
}

/// Makes the SDKs try again soon: 100 to 500 ms later, as `spread` decides; SDKs that read only whole seconds wait one second.
#[must_use]
pub fn come_back(spread: u64) -> [Header; 3] {
    let millis = spread.checked_rem(401).unwrap_or_default();
    [
        ("retry-after-ms", millis.saturating_add(100).into()),
        ("retry-after", "1".into()),
        ("x-should-retry", "true".into()),
    ]
}

/// A wait in whole milliseconds, rounded up, and at least one.
#[must_use]
pub fn millis_up(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000))
        .unwrap_or(u64::MAX)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_wait_is_rounded_up_and_never_zero() {
        let values =
            |nanos| retry_after(Duration::from_nanos(nanos)).map(|(_, value)| value.to_string());
        assert_eq!(values(0), ["1", "1"]);
        assert_eq!(values(1_000_000_001), ["2", "1001"]);
        assert_eq!(values(2_000_000_000), ["2", "2000"]);
    }
}
