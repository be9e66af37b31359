//! Decimal numbers as JSON writes them, exact: no float is ever calculated with.

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A number that is not negative, as it is written: `digits / 10^scale`.
///
/// `1e6` and `1000000.0` are the same as `1000000`, since a protobuf Struct (Istio's WasmPlugin) knows only doubles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    all(test, not(target_arch = "wasm32")),
    derive(schemars::JsonSchema),
    schemars(transparent)
)]
pub struct Number {
    #[cfg_attr(all(test, not(target_arch = "wasm32")), schemars(with = "NonNegative"))]
    millionths: Option<u128>,
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
    /// The number times a million; `None` if that is no integer or no `u64`.
    #[must_use]
    pub fn millionths(self) -> Option<u64> {
        self.millionths?.try_into().ok()
    }

    /// The number; `None` if it is no integer or no `u64`.
    #[must_use]
    pub fn whole(self) -> Option<u64> {
        let millionths = self.millionths?;
        (millionths % 1_000_000 == 0)
            .then_some(millionths / 1_000_000)?
            .try_into()
            .ok()
    }

    /// From decimal digits with an optional point.
    fn from_decimal(text: &str) -> Self {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let fraction = fraction.trim_end_matches('0');
        let zeros = 6_usize.checked_sub(fraction.len());
        let millionths = zeros.and_then(|zeros| {
            format!("{whole}{fraction}{}", "0".repeat(zeros))
                .parse()
                .ok()
        });
        Self { millionths }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a number")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Number, E> {
        Ok(Number {
            millionths: u128::from(value).checked_mul(1_000_000),
        })
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Number, E> {
        let value = u64::try_from(value).map_err(|_| E::custom("must not be negative"))?;
        self.visit_u64(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Number, E> {
        if value.is_sign_negative() && value != 0.0 {
            return Err(E::custom("must not be negative"));
        }
        // The shortest decimal that reads back as the same double, never with an exponent: what was written.
        Ok(Number::from_decimal(value.abs().to_string().as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn read(text: &str) -> Option<u64> {
        serde_json::from_str::<Number>(text).unwrap().millionths()
    }

    #[test]
    fn a_number_is_what_was_written() {
        assert_eq!(read("0.075"), Some(75_000));
        assert_eq!(read("0.1"), Some(100_000));
        assert_eq!(read("2.50"), Some(2_500_000));
        assert_eq!(read("-0.0"), Some(0));
        assert_eq!(read("0.0000001"), None);
        assert_eq!(read("1e300"), None);
        for million in ["1000000", "1e6", "1000000.0"] {
            assert_eq!(
                serde_json::from_str::<Number>(million).unwrap().whole(),
                Some(1_000_000)
            );
        }
        assert_eq!(serde_json::from_str::<Number>("1.5").unwrap().whole(), None);
        assert!(
            serde_json::from_str::<Number>("-1")
                .unwrap_err()
                .to_string()
                .starts_with("must not be negative")
        );
        assert!(serde_json::from_str::<Number>("\"1\"").is_err());
    }
}
