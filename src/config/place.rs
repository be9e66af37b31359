//! The path of the value at which serde_json stopped reading. serde_json itself reports only line and column.
//!
//! A library that follows the path while serde reads (`serde_path_to_error`) wraps each type in further code: 45 KB of the
//! module, which only a fault would use. Instead, after a fault this module scans the text again, up to the place of the fault.

use super::path::Path;

/// The most nested levels that are recorded; no valid configuration nests so deeply.
const DEPTH: usize = 16;

/// The value to which a fault refers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// The value that was being read, or was read last.
    Value,
    /// The object or list that lacks a comma, a key or its end.
    Around,
    /// The object that was read last, or was being read.
    Object,
}

/// An object or list that was open where reading stopped.
#[derive(Clone, Copy, Debug)]
enum Open<'a> {
    /// An object, with the key whose value comes next or came last. The key includes its quotes.
    Object(Option<&'a str>),
    /// A list, with the index of the value that comes next or came last.
    List(usize),
}

/// A text up to the place where reading stopped.
#[derive(Debug, Default)]
pub(super) struct Place<'a> {
    open: Vec<Open<'a>>,
    /// How many open levels are nested too deeply to be recorded in `open`; none in a valid configuration.
    deeper: usize,
    /// The object or list that the last byte closed.
    closed: Option<Open<'a>>,
    /// The last string that was no key, with its quotes.
    text: Option<&'a str>,
}

impl<'a> Place<'a> {
    /// The place after the first `read` bytes of a JSON text.
    pub(super) fn of(text: &'a str, read: usize) -> Self {
        let mut place = Self::default();
        let bytes = text.as_bytes();
        let mut at = 0_usize;
        while let Some(&byte) = bytes.get(at).filter(|_| at < read) {
            let mut end = at.saturating_add(1);
            if !byte.is_ascii_whitespace() {
                place.closed = None;
            }
            match byte {
                b'{' => place.push(Open::Object(None)),
                b'[' => place.push(Open::List(0)),
                b'}' | b']' => place.pop(),
                b',' => place.next(),
                b'"' => {
                    end = end_of_string(bytes, end);
                    match text.get(at..end).filter(|_| end <= read) {
                        Some(string) => place.string(string),
                        None => break,
                    }
                }
                _ => {}
            }
            at = end;
        }
        place
    }

    fn push(&mut self, open: Open<'a>) {
        match self.open.len() < DEPTH {
            true => self.open.push(open),
            false => self.deeper = self.deeper.saturating_add(1),
        }
    }

    fn pop(&mut self) {
        match self.deeper {
            0 => self.closed = self.open.pop(),
            _ => self.deeper = self.deeper.saturating_sub(1),
        }
    }

    fn next(&mut self) {
        match self.open.last_mut().filter(|_| self.deeper == 0) {
            Some(Open::Object(key)) => *key = None,
            Some(Open::List(index)) => *index = index.saturating_add(1),
            None => {}
        }
    }

    fn string(&mut self, string: &'a str) {
        match self.open.last_mut().filter(|_| self.deeper == 0) {
            Some(Open::Object(key @ None)) => *key = Some(string),
            _ => self.text = Some(string),
        }
    }

    /// The path of the value to which a fault at this place refers.
    pub(super) fn path(&self, top: &Path<'_>, about: About) -> String {
        let mut path = top.text();
        let mut steps = self.open.clone();
        match (about, self.closed) {
            (About::Value, Some(closed)) => steps.push(closed),
            (About::Around, _) | (About::Object, None) => _ = steps.pop(),
            (About::Value, None) | (About::Object, Some(_)) => {}
        }
        if self.deeper > 0 {
            steps.truncate(1);
        }
        for step in &steps {
            match step {
                Open::Object(key) => {
                    if let Some(key) = key.and_then(unquoted) {
                        push_key(&mut path, &key);
                    }
                }
                Open::List(index) => path = path + "[" + &index.to_string() + "]",
            }
        }
        path
    }

    /// The last string that was read, if it was no key.
    pub(super) fn text(&self) -> String {
        self.text.and_then(unquoted).unwrap_or_default()
    }
}

/// Appends a key to the path of the object that holds it.
pub(super) fn push_key(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

fn unquoted(string: &str) -> Option<String> {
    serde_json::from_slice(string.as_bytes()).ok()
}

/// Where the string ends whose opening quote is before `start`: behind its closing quote, or beyond the text if it has none.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(byte) = bytes.get(at) {
        at = match byte {
            b'"' => return at.saturating_add(1),
            b'\\' => at.saturating_add(2),
            _ => at.saturating_add(1),
        };
    }
    bytes.len().saturating_add(1)
}
