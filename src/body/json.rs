//! A streaming scanner for one JSON object: finds the values of a few keys, in any chunking.
//!
//! The scanner keeps only the values that it looks for, so its memory is bounded by the sum of the keys' limits, whatever the body's size
//! or depth. Objects on the path to a key are checked against the grammar (RFC 8259), except for the spelling of literals. In all other
//! values only strings and the balance of brackets are followed. For a valid body the result is that of any parser. A body that is invalid
//! elsewhere is left to the upstream to refuse.
//!
//! A [`Pattern`] matches anywhere inside one top-level value, at any depth.

mod block;
mod escape;
mod names;
mod nested;
mod scanner;
mod search;
mod shape;
mod whole;

use std::borrow::Cow;

#[cfg(test)]
pub(crate) use names::MAX_NAME;
pub use scanner::Scanner;
pub use search::may_have;
pub use shape::{Key, Pattern, PatternKind, Shape};
pub(crate) use whole::{entries, members, only_member, quoted, string, unescape, with_entry};

/// The position of a value in the body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// Offset of its first byte in the body.
    pub start: u64,
    /// Offset after its last byte; `None` while it is not complete.
    pub end: Option<u64>,
    /// The value's bytes; only the first ones if it is overlong.
    pub raw: Vec<u8>,
    /// Whether the value is longer than its key's limit.
    pub overlong: bool,
    /// Commas between the entries of a list, if they are counted.
    pub commas: u64,
    /// Whether the value is an empty object on the path to a key.
    pub is_empty: bool,
}

/// Why a body is not the JSON object that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The body does not start with `{`.
    NotAnObject,
    /// Its top level is not JSON, or something follows the object.
    Syntax,
    /// A key that matters occurs twice, or in different letter case: parsers disagree on which one counts.
    AmbiguousKey,
    /// The body ends before the object does.
    Truncated,
}

/// What to do about keys that occur twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// For requests: refuse, since the upstream may read the other occurrence.
    Refuse,
    /// For responses: the last occurrence counts.
    TakeLast,
}

fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// The text of a complete string value; `None` for any other value, or bad escapes.
#[must_use]
pub fn text(field: &Field) -> Option<String> {
    let whole = Some(&field.raw).filter(|_| !field.overlong);
    string(whole?).map(Cow::into_owned)
}

#[cfg(test)]
mod tests;
