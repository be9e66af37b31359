//! Values of headers and of the access log's fields: what need not be copied is not, and a number becomes digits where it is
//! written.

use std::fmt;

use crate::name::Name;
use crate::series::Label;

/// A text, cheap to hand on.
#[derive(Clone, Debug)]
pub enum Text {
    /// A word of ours.
    Word(&'static str),
    /// A name, shared.
    Name(Name),
    /// A number in decimal.
    Number(u64),
    /// Any other text.
    Own(String),
}

impl Text {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Word(word) => word.is_empty(),
            Self::Name(name) => name.is_empty(),
            Self::Number(_) => false,
            Self::Own(text) => text.is_empty(),
        }
    }

    /// Gives its bytes, which are UTF-8, to `f`.
    pub fn with_bytes<T>(&self, f: impl FnOnce(&[u8]) -> T) -> T {
        match self {
            Self::Word(word) => f(word.as_bytes()),
            Self::Name(name) => f(name.as_bytes()),
            Self::Number(number) => f(Digits::of(*number).as_bytes()),
            Self::Own(text) => f(text.as_bytes()),
        }
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

impl From<&Label> for Text {
    fn from(label: &Label) -> Self {
        match label {
            Label::Word(word) => Self::Word(word),
            Label::Name(name) => Self::Name(name.clone()),
        }
    }
}

/// Texts are the same that read the same.
impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.with_bytes(|one| other.with_bytes(|other| one == other))
    }
}

impl Eq for Text {}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_bytes(|bytes| f.write_str(std::str::from_utf8(bytes).unwrap_or_default()))
    }
}

/// The digits of a number.
struct Digits {
    bytes: [u8; MOST_DIGITS],
    start: usize,
}

/// As many digits as the largest number has.
const MOST_DIGITS: usize = 20;

impl Digits {
    fn of(number: u64) -> Self {
        let mut digits = Self {
            bytes: [0; MOST_DIGITS],
            start: MOST_DIGITS,
        };
        // Most numbers fit into 32 bits, whose division is much cheaper.
        let mut rest = number;
        let mut last = loop {
            match u32::try_from(rest) {
                Ok(rest) => break rest,
                Err(_) => digits.push(rest % 10),
            }
            rest /= 10;
        };
        loop {
            digits.push((last % 10).into());
            last /= 10;
            if last == 0 {
                return digits;
            }
        }
    }

    /// Puts a digit before those that are there.
    fn push(&mut self, digit: u64) {
        self.start = self.start.saturating_sub(1);
        if let Some(place) = self.bytes.get_mut(self.start) {
            *place = b'0' | u8::try_from(digit).unwrap_or_default();
        }
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

/// Writes a number in decimal, without the machinery of `format!`.
pub(crate) fn push_number(text: &mut Vec<u8>, number: u64) {
    text.extend_from_slice(Digits::of(number).as_bytes());
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
    fn texts_are_the_same_that_read_the_same() {
        assert_eq!(Text::from(12), Text::from("12"));
        assert_eq!(Text::from("12"), Text::Own("12".to_owned()));
        assert_eq!(Text::Name("12".into()), Text::from(12));
        assert_ne!(Text::from(12), Text::from("012"));
        assert!(Text::from("").is_empty() && !Text::from(0).is_empty());
    }
}
