//! Decimal numbers as JSON writes them, exact: never converted to a float.

use std::num::IntErrorKind;

/// A number that is not negative, as it is written: `digits / 10^scale`.
///
/// `1e6` and `1000000.0` are the same as `1000000`, since a protobuf Struct (Istio's WasmPlugin) knows only doubles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    all(test, not(target_arch = "wasm32")),
    derive(schemars::JsonSchema),
    schemars(transparent)
)]
pub struct Number {
    #[cfg_attr(all(test, not(target_arch = "wasm32")), schemars(with = "NonNegative"))]
    /// Digits of which the last is no zero, and the power of ten that they are multiplied with; `None` if they are too many.
    decimal: Option<(u64, i64)>,
}

/// Why a text is not a [`Number`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberError {
    /// The number is below zero.
    Negative,
    /// The text is not a number in JSON.
    Invalid,
}

/// How the schema shows a [`Number`].
#[cfg(all(test, not(target_arch = "wasm32")))]
struct NonNegative;

#[cfg(all(test, not(target_arch = "wasm32")))]
impl schemars::JsonSchema for NonNegative {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Number".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "number", "minimum": 0})
    }
}

impl Number {
    /// The number times a million; `None` if the product is not an integer or not a `u64`.
    #[must_use]
    pub fn millionths(self) -> Option<u64> {
        self.times(6)
    }

    /// The number; `None` if it is not an integer or not a `u64`.
    #[must_use]
    pub fn whole(self) -> Option<u64> {
        self.times(0)
    }

    /// The number times this power of ten.
    fn times(self, power: i64) -> Option<u64> {
        let (digits, own) = self.decimal?;
        // The last digit is not zero: if it is after the decimal point, the result is not an integer.
        followed_by_zeros(digits, own.saturating_add(power).try_into().ok()?)
    }

    /// Parses a number as JSON writes it; it must be all of `text`.
    ///
    /// # Errors
    /// If the text is not a number, or is a negative one.
    pub fn parse(text: &str) -> Result<Self, NumberError> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent_of(exponent)?),
            None => (text, 0),
        };
        let unsigned = mantissa.strip_prefix('-').unwrap_or(mantissa);
        let (whole, fraction) = match unsigned.split_once('.') {
            Some((whole, fraction)) if are_digits(fraction) => (whole, fraction),
            Some(_) => return Err(NumberError::Invalid),
            None => (unsigned, ""),
        };
        if !are_digits(whole) || whole.len() > 1 && whole.starts_with('0') {
            return Err(NumberError::Invalid);
        }
        let (digits, zeros) = significant(unsigned.bytes().filter(|&byte| byte != b'.'));
        if digits != Some(0) && unsigned.len() < mantissa.len() {
            return Err(NumberError::Negative);
        }
        let length = i64::try_from(fraction.len()).unwrap_or(i64::MAX);
        let power = exponent
            .saturating_sub(length)
            .saturating_add(i64::from(zeros));
        Ok(Self {
            decimal: digits.map(|digits| (digits, if digits == 0 { 0 } else { power })),
        })
    }
}

fn are_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The exponent of a number; saturated beyond every number that is valid here, since the exact value no longer matters there.
fn exponent_of(text: &str) -> Result<i64, NumberError> {
    match text.parse::<i64>().map_err(|error| *error.kind()) {
        Ok(exponent) => Ok(exponent),
        Err(IntErrorKind::PosOverflow) => Ok(i64::MAX),
        Err(IntErrorKind::NegOverflow) => Ok(i64::MIN),
        Err(_) => Err(NumberError::Invalid),
    }
}

/// Digits as an integer, and how many zeros follow; `None` if there are too many digits.
fn significant(digits: impl Iterator<Item = u8>) -> (Option<u64>, u32) {
    let mut value = Some(0);
    let mut zeros = 0_u32;
    for digit in digits {
        if digit == b'0' {
            zeros = zeros.saturating_add(1);
            continue;
        }
        let shifted = value.and_then(|value| followed_by_zeros(value, zeros.saturating_add(1)));
        value = shifted.and_then(|shifted| shifted.checked_add(digit.saturating_sub(b'0').into()));
        zeros = 0;
    }
    (value, zeros)
}

fn followed_by_zeros(value: u64, zeros: u32) -> Option<u64> {
    match value {
        0 => Some(0),
        _ => value.checked_mul(10_u64.checked_pow(zeros)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn millionths(text: &str) -> Option<u64> {
        Number::parse(text).unwrap().millionths()
    }

    #[test]
    fn a_number_is_what_was_written() {
        assert_eq!(millionths("0.075"), Some(75_000));
        assert_eq!(millionths("0.1"), Some(100_000));
        assert_eq!(millionths("2.50"), Some(2_500_000));
        assert_eq!(millionths("-0.0"), Some(0));
        assert_eq!(millionths("0.0000001"), None);
        assert_eq!(millionths("1e300"), None);
        for million in [
            "1000000",
            "1e6",
            "1000000.0",
            "0.001E+9",
            "10000e2",
            "100000000000e-05",
        ] {
            assert_eq!(Number::parse(million).unwrap().whole(), Some(1_000_000));
        }
        assert_eq!(Number::parse("1.5").unwrap().whole(), None);
        assert_eq!(Number::parse("-1"), Err(NumberError::Negative));
        assert_eq!(Number::parse("\"1\""), Err(NumberError::Invalid));
    }

    #[test]
    fn no_digit_is_lost() {
        let whole = |text| Number::parse(text).unwrap().whole();
        assert_eq!(whole("18446744073709551615"), Some(u64::MAX));
        assert_eq!(whole("18446744073709551615.0"), Some(u64::MAX));
        assert_eq!(whole("18446744073709551616"), None);
        assert_eq!(whole("9007199254740993e0"), Some(9_007_199_254_740_993));
        let long = "0.".to_owned() + &"0".repeat(100) + "25";
        assert_eq!(millionths(&long), None);
        assert_eq!(millionths(&(long + "e102")), Some(25_000_000));
        assert_eq!(
            millionths(&("1".to_owned() + &"0".repeat(100) + "e-100")),
            Some(1_000_000)
        );
        for zero in ["0", "0.000", "0e99999999999999999999", "-0e-9", "0E5"] {
            assert_eq!(millionths(zero), Some(0), "{zero}");
        }
        for other in [
            "1e99999999999999999999",
            "1e-99999999999999999999",
            "1e-7",
            "1e39",
        ] {
            assert_eq!(millionths(other), None, "{other}");
        }
        assert_eq!(Number::parse("-1e-400"), Err(NumberError::Negative));
    }

    #[test]
    fn what_json_does_not_know_is_no_number() {
        for text in [
            "", "-", "+1", "01", "-01", "1.", ".5", "1.5.", "1e", "1e+", "1e5.0", "1e+-5", "0x10",
            "1 ", "NaN", "1_0", "--1",
        ] {
            assert_eq!(Number::parse(text), Err(NumberError::Invalid), "{text}");
        }
    }
}
