//! Times and durations in the forms that providers use.

use std::time::Duration;

use crate::base::units::{Timestamp, nanos};

/// A duration that is given as a number of units, with or without a fraction.
pub(super) fn count(digits: &[u8], unit: Duration) -> Option<Duration> {
    let (whole, fraction) = match digits.iter().position(|&byte| byte == b'.') {
        Some(point) => digits.split_at_checked(point)?,
        None => (digits, &b""[..]),
    };
    let fraction = fraction.get(1..).unwrap_or_default();
    let is_number = |digits: &[u8]| digits.iter().all(u8::is_ascii_digit);
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let number = |digits: &[u8]| -> u64 {
        let value = |sum: u64, &digit: &u8| {
            let digit = digit.saturating_sub(b'0');
            sum.saturating_mul(10).saturating_add(digit.into())
        };
        digits.iter().fold(0, value)
    };
    let unit = nanos(unit);
    // Further digits of a fraction make no difference.
    let fraction = fraction.get(..6).unwrap_or(fraction);
    let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    // The division is exact, except for units so short that nobody waits for them.
    let part = unit.checked_div(scale)?.saturating_mul(number(fraction));
    Some(Duration::from_nanos(
        number(whole).saturating_mul(unit).saturating_add(part),
    ))
}

/// A duration in Go's form, which OpenAI uses: `17ms`, `1s`, `6m0s`, `1h0m30.5s`.
pub(super) fn go_duration(mut text: &[u8]) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    if text.is_empty() {
        return None;
    }
    while !text.is_empty() {
        let is_number = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
        let end = text.iter().position(|byte| !is_number(byte))?;
        let (digits, rest) = text.split_at_checked(end)?;
        let end = rest.iter().position(is_number).unwrap_or(rest.len());
        let (unit, rest) = rest.split_at_checked(end)?;
        let unit = match unit {
            b"ns" => Duration::from_nanos(1),
            b"us" | b"\xc2\xb5s" => Duration::from_micros(1),
            b"ms" => Duration::from_millis(1),
            b"s" => Duration::from_secs(1),
            b"m" => Duration::from_secs(60),
            b"h" => Duration::from_secs(3_600),
            b"d" => Duration::from_secs(86_400),
            _ => return None,
        };
        sum = sum.saturating_add(count(digits, unit)?);
        text = rest;
    }
    Some(sum)
}

/// A point in time, as a date in HTTP's form (RFC 9110, 5.6.7) or in that of RFC 3339.
pub(super) fn date(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let of_http = |text| Timestamp::of(httpdate::parse_http_date(text).ok()?);
    of_http(text).or_else(|| Timestamp::parse_rfc_3339(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn durations_read_as_providers_write_them() {
        for (text, millis) in [
            ("0s", Some(0)),
            ("17ms", Some(17)),
            ("1s", Some(1_000)),
            ("7.66s", Some(7_660)),
            ("6m0s", Some(360_000)),
            ("1h0m30.05s", Some(3_630_050)),
            ("2m59.56s", Some(179_560)),
            ("1d2h", Some(93_600_000)),
            ("", None),
            ("s", None),
            ("5", None),
            ("5x", None),
            ("1.2.3s", None),
        ] {
            let expected = millis.map(Duration::from_millis);
            assert_eq!(go_duration(text.as_bytes()), expected, "{text}");
        }
        assert!(go_duration(b"99999999999999999999h").is_some());
    }

    #[test]
    fn dates_read_in_each_form() {
        let expected = Some(Timestamp::from_secs(784_111_777));
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "1994-11-06T08:49:37Z",
            "1994-11-06t08:49:37z",
            "1994-11-06T09:49:37+01:00",
            "1994-11-06T03:19:37-05:30",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(date(text.as_bytes()), expected, "{text}");
        }
        let leap = Timestamp::from_nanos(1_709_208_000_500_000_000);
        assert_eq!(date(b"2024-02-29T12:00:00.5Z"), Some(leap));
        for text in [
            "",
            "soon",
            "06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Now 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "1994-13-06T08:49:37Z",
            "1994-00-06T08:49:37Z",
            "1994-11-06",
            "1994-11-06T08:49:37",
            "1994-11-06T08:49:37+1:00",
            "1994-11-06T08:49:37+24:00",
            "1994-11-06T08:49:37+01:60",
            "1994-11-06T08:49:37\u{e9}01:00",
            "+01:00",
            "1994-11-06Tnoon:1:1Z",
            "99999-11-06T08:49:37Z",
        ] {
            assert_eq!(date(text.as_bytes()), None, "{text}");
        }
    }
}
