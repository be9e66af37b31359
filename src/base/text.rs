//! Values of headers and of the access log's fields: a text is copied only where that is necessary, and a number is converted to digits only
//! when it is written.

use std::fmt;

use crate::base::name::Name;
use crate::base::units::Ppm;

/// A text that is cheap to pass on.
#[derive(Clone, Debug)]
pub enum Text {
    /// A fixed word.
    Word(&'static str),
    /// A shared name.
    Name(Name),
    /// A number in decimal.
    Number(u64),
    /// A fraction in decimal.
    Fraction(Ppm),
    /// Any other text.
    Own(String),
}

impl Text {
    /// Whether the text is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Word(word) => word.is_empty(),
            Self::Name(name) => name.is_empty(),
            Self::Number(_) | Self::Fraction(_) => false,
            Self::Own(text) => text.is_empty(),
        }
    }

    /// Passes the value to `f` as text.
    pub fn with_str<T>(&self, f: impl FnOnce(&str) -> T) -> T {
        match self {
            Self::Word(word) => f(word),
            Self::Name(name) => f(name),
            Self::Number(number) => f(itoa::Buffer::new().format(*number)),
            Self::Fraction(fraction) => f(&decimal(*fraction)),
            Self::Own(text) => f(text),
        }
    }

    /// Passes the value's bytes, which are UTF-8, to `f`.
    pub fn with_bytes<T>(&self, f: impl FnOnce(&[u8]) -> T) -> T {
        self.with_str(|text| f(text.as_bytes()))
    }
}

impl From<&'static str> for Text {
    fn from(word: &'static str) -> Self {
        Self::Word(word)
    }
}

impl From<&Name> for Text {
    fn from(name: &Name) -> Self {
        Self::Name(name.clone())
    }
}

impl From<u64> for Text {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::Own(text)
    }
}

/// Two values are equal if they read the same.
impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.with_bytes(|one| other.with_bytes(|other| one == other))
    }
}

impl Eq for Text {}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_str(|text| f.write_str(text))
    }
}

/// Writes a number in decimal.
pub(crate) fn push_number(text: &mut Vec<u8>, number: u64) {
    text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A fraction in decimal, such as `0.05` or `1`.
fn decimal(Ppm(millionths): Ppm) -> String {
    let mut text = Vec::with_capacity(32);
    push_number(&mut text, millionths / 1_000_000);
    let (mut rest, mut dot) = (millionths % 1_000_000, b".".as_slice());
    while rest > 0 {
        text.extend_from_slice(std::mem::take(&mut dot));
        // The first of six digits.
        push_number(&mut text, rest / 100_000);
        rest = (rest % 100_000).saturating_mul(10);
    }
    String::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn numbers_are_written_as_they_are() {
        let powers = (0..20).map(|power| 10_u64.pow(power));
        let around = powers.flat_map(|power| [power - 1, power, power + 1]);
        for number in around.chain([u64::MAX, u64::MAX - 1, 1_234_567_890]) {
            let mut text = b"n=".to_vec();
            push_number(&mut text, number);
            assert_eq!(text, format!("n={number}").as_bytes());
            assert_eq!(Text::Number(number).to_string(), number.to_string());
        }
    }

    #[test]
    fn fractions_are_written_in_decimal() {
        for (millionths, text) in [
            (0, "0"),
            (1, "0.000001"),
            (200_000, "0.2"),
            (1_000_000, "1"),
            (10_500_000, "10.5"),
        ] {
            assert_eq!(Text::Fraction(Ppm(millionths)).to_string(), text);
        }
    }

    #[test]
    fn texts_are_the_same_that_read_the_same() {
        assert_eq!(Text::from(12), Text::from("12"));
        assert_eq!(Text::from("12"), Text::Own("12".to_owned()));
        assert_eq!(Text::Name("12".into()), Text::from(12));
        assert_ne!(Text::from(12), Text::from("012"));
        assert!(Text::from("").is_empty() && !Text::from(0).is_empty());
    }
}
