//! Reads the configuration's JSON: straight through, each value as the type that belongs there.
//!
//! Nothing is read that has no place in the configuration, so nothing nests deeper than its types do. Of what is written for
//! every type (`raw`) there is little, and what they share is not generic: serde's derived code for the same took a third of the module.

use std::borrow::Cow;

use super::path::Path;
use super::{ConfigError, Parsed};
use crate::json::unescape;
use crate::number::{Number, NumberError};

/// A place in a JSON text.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    text: &'a str,
    /// Bytes that are read.
    at: usize,
}

/// A key of an object.
#[derive(Clone, Copy)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) is_required: bool,
}

/// A word of an enum.
pub(super) struct Word {
    pub(super) text: &'static str,
    /// It is the one key of an object, and has a value.
    pub(super) has_value: bool,
}

/// What a value can be read as.
pub(super) trait Read: Sized {
    /// A key of this type may be left out.
    const IS_OPTIONAL: bool = false;

    fn read(json: &mut Reader<'_>, path: &Path<'_>) -> Parsed<Self>;

    /// Reads over what is there: of an object, only the keys that are given.
    fn read_over(&mut self, json: &mut Reader<'_>, path: &Path<'_>) -> Parsed<()> {
        *self = Self::read(json, path)?;
        Ok(())
    }
}

/// An object with known keys.
pub(super) trait Object {
    /// Reads the value of a field over what is there; `field` is its place among the type's fields.
    fn set(&mut self, field: usize, json: &mut Reader<'_>, path: &Path<'_>) -> Parsed<()>;
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Parsed<Self> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Self { text, at: 0 }),
            Err(error) => {
                let (read, _) = bytes
                    .split_at_checked(error.valid_up_to())
                    .unwrap_or((bytes, &[]));
                let text = std::str::from_utf8(read).unwrap_or_default();
                let at = read.len();
                Self { text, at }.wrong(&Path::Top, "invalid unicode code point")
            }
        }
    }

    /// Nothing but white space may follow.
    pub(super) fn end(&mut self) -> Parsed<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => self.wrong(&Path::Top, "trailing characters"),
        }
    }

    /// An error at what was read last.
    pub(super) fn wrong<T>(&self, path: &Path<'_>, reason: &str) -> Parsed<T> {
        Err(self.error(path, reason))
    }

    #[cold]
    fn error(&self, path: &Path<'_>, reason: &str) -> ConfigError {
        let before = self.text.get(..self.at).unwrap_or(self.text);
        let lines = before.bytes().filter(|&byte| byte == b'\n');
        let line = lines.count().saturating_add(1);
        let rest = before.bytes().rev().take_while(|&byte| byte != b'\n');
        let column = rest.count();
        super::error(
            path,
            format!("{reason} at line {line} column {column}").into(),
        )
    }

    /// An error at a value that is nothing of what is expected.
    #[cold]
    fn unexpected(&mut self, path: &Path<'_>, expected: &str) -> ConfigError {
        let found = match self.peek() {
            None => return self.error(path, "EOF while parsing a value"),
            Some(b'{') => "map".to_owned(),
            Some(b'[') => "sequence".to_owned(),
            Some(b'"') => match self.raw_string(path) {
                Ok(raw) => format!("string \"{raw}\""),
                Err(error) => return error,
            },
            Some(b'-' | b'0'..=b'9') => {
                let literal = self.literal();
                let is_whole = literal
                    .bytes()
                    .all(|byte| byte == b'-' || byte.is_ascii_digit());
                let kind = if is_whole {
                    "integer"
                } else {
                    "floating point"
                };
                format!("{kind} `{literal}`")
            }
            Some(_) if self.skips("null") => "null".to_owned(),
            Some(_) if self.skips("true") => "boolean `true`".to_owned(),
            Some(_) if self.skips("false") => "boolean `false`".to_owned(),
            Some(_) => return self.error(path, "expected value"),
        };
        self.error(path, &format!("invalid type: {found}, expected {expected}"))
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.at..)?;
        let space = rest.iter().position(|byte| !b" \t\n\r".contains(byte))?;
        self.at = self.at.saturating_add(space);
        rest.get(space).copied()
    }

    /// Reads over `text` if it is what follows at once.
    fn skips(&mut self, text: &str) -> bool {
        let is_here = self
            .text
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(text));
        if is_here {
            self.at = self.at.saturating_add(text.len());
        }
        is_here
    }

    /// Reads over `null`, if that is the next value.
    fn skips_null(&mut self) -> bool {
        self.peek() == Some(b'n') && self.skips("null")
    }

    /// What a number is written with.
    fn literal(&mut self) -> &'a str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let end = rest
            .bytes()
            .position(|byte| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
        let literal = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        self.at = self.at.saturating_add(literal.len());
        literal
    }

    /// What stands between a string's quotes, the first of which is next.
    fn raw_string(&mut self, path: &Path<'_>) -> Parsed<&'a str> {
        let start = self.at.saturating_add(1);
        let mut end = start;
        loop {
            let rest = self.text.as_bytes().get(end..).unwrap_or_default();
            let Some(length) = memchr::memchr2(b'"', b'\\', rest) else {
                self.at = self.text.len();
                return self.wrong(path, "EOF while parsing a string");
            };
            end = end.saturating_add(length);
            if rest.get(length) == Some(&b'"') {
                break;
            }
            end = end.saturating_add(2);
        }
        self.at = end.saturating_add(1);
        Ok(self.text.get(start..end).unwrap_or_default())
    }

    fn string(&mut self, path: &Path<'_>) -> Parsed<Cow<'a, str>> {
        if self.peek() != Some(b'"') {
            return Err(self.unexpected(path, "a string"));
        }
        let raw = self.raw_string(path)?;
        if !raw.bytes().any(|byte| byte == b'\\' || byte < b' ') {
            return Ok(Cow::Borrowed(raw));
        }
        match unescape(raw.as_bytes()) {
            Some(text) => Ok(Cow::Owned(text)),
            None => self.wrong(path, "invalid escape or control character in a string"),
        }
    }

    /// Between the values of a list or an object, whether one more follows. `is_first`: none was read yet.
    fn goes_on(&mut self, end: u8, is_first: &mut bool, path: &Path<'_>) -> Parsed<bool> {
        let (kind, expected) = match end {
            b'}' => ("EOF while parsing an object", "expected `,` or `}`"),
            _ => ("EOF while parsing a list", "expected `,` or `]`"),
        };
        let next = self.peek();
        let was_first = std::mem::take(is_first);
        if next == Some(end) {
            self.at = self.at.saturating_add(1);
            return Ok(false);
        }
        if was_first && next.is_some() {
            return Ok(true);
        }
        match next {
            Some(b',') => {
                self.at = self.at.saturating_add(1);
                match self.peek() {
                    Some(byte) if byte == end => self.wrong(path, "trailing comma"),
                    _ => Ok(true),
                }
            }
            Some(_) => self.wrong(path, expected),
            None => self.wrong(path, kind),
        }
    }

    /// Reads on to the value of a key that is next.
    fn name(&mut self, path: &Path<'_>) -> Parsed<Cow<'a, str>> {
        match self.peek() {
            Some(b'"') => {}
            Some(_) => return self.wrong(path, "key must be a string"),
            None => return self.wrong(path, "EOF while parsing an object"),
        }
        let name = self.string(path)?;
        match self.peek() {
            Some(b':') => {
                self.at = self.at.saturating_add(1);
                Ok(name)
            }
            Some(_) => self.wrong(&path.key(&name), "expected `:`"),
            None => self.wrong(&path.key(&name), "EOF while parsing an object"),
        }
    }

    /// Reads an object with keys of any name: `read` is to read the value of each.
    pub(super) fn entries(
        &mut self,
        path: &Path<'_>,
        read: &mut dyn FnMut(&mut Self, &str) -> Parsed<()>,
    ) -> Parsed<()> {
        if self.peek() != Some(b'{') {
            return Err(self.unexpected(path, "an object"));
        }
        self.at = self.at.saturating_add(1);
        let mut is_first = true;
        while self.goes_on(b'}', &mut is_first, path)? {
            let name = self.name(path)?;
            read(self, &name)?;
        }
        Ok(())
    }

    /// Reads an object with these fields, each at most once.
    pub(super) fn object(
        &mut self,
        path: &Path<'_>,
        fields: &[Field],
        object: &mut dyn Object,
    ) -> Parsed<()> {
        let mut seen = 0_u32;
        self.entries(path, &mut |json, name| {
            let path = path.key(name);
            let Some(index) = fields.iter().position(|field| field.name == name) else {
                let names = fields.iter().map(|field| field.name);
                return Err(json.unknown(&path, "field", name, &names.collect::<Vec<_>>()));
            };
            if seen & bit(index) != 0 {
                return json.wrong(&path, &format!("duplicate field `{name}`"));
            }
            seen |= bit(index);
            object.set(index, json, &path)
        })?;
        let mut missing = fields
            .iter()
            .enumerate()
            .filter(|&(index, field)| field.is_required && seen & bit(index) == 0);
        match missing.next() {
            None => Ok(()),
            Some((_, field)) => self.wrong(path, &format!("missing field `{}`", field.name)),
        }
    }

    /// Reads a list: `read` is to read each value.
    fn list(
        &mut self,
        path: &Path<'_>,
        read: &mut dyn FnMut(&mut Self, &Path<'_>) -> Parsed<()>,
    ) -> Parsed<()> {
        if self.peek() != Some(b'[') {
            return Err(self.unexpected(path, "a sequence"));
        }
        self.at = self.at.saturating_add(1);
        let mut is_first = true;
        let mut index = 0_usize;
        while self.goes_on(b']', &mut is_first, path)? {
            read(self, &path.index(index))?;
            index = index.saturating_add(1);
        }
        Ok(())
    }

    /// Reads one of `words`, or, for one that has a value, on to that: its place among them.
    pub(super) fn word(&mut self, path: &Path<'_>, words: &[Word]) -> Parsed<usize> {
        let has_value = self.peek() == Some(b'{');
        let text = if has_value {
            self.at = self.at.saturating_add(1);
            self.name(path)?
        } else {
            self.string(path)?
        };
        let Some(index) = words.iter().position(|word| word.text == text) else {
            let known: Vec<_> = words.iter().map(|word| word.text).collect();
            return Err(self.unknown(path, "variant", &text, &known));
        };
        match words.get(index).is_some_and(|word| word.has_value) {
            true if !has_value => {
                self.wrong(path, &format!("`{text}` needs a value: {{\"{text}\": …}}"))
            }
            false if has_value => self.wrong(path, &format!("`{text}` has no value: \"{text}\"")),
            _ => Ok(index),
        }
    }

    /// Reads the value of a word, and the end of the object that they make.
    pub(super) fn value<T: Read>(&mut self, path: &Path<'_>, word: &str) -> Parsed<T> {
        let value = T::read(self, &path.key(word))?;
        match self.peek() {
            Some(b'}') => {
                self.at = self.at.saturating_add(1);
                Ok(value)
            }
            Some(_) => self.wrong(path, "expected `}`"),
            None => self.wrong(path, "EOF while parsing an object"),
        }
    }

    #[cold]
    fn unknown(&self, path: &Path<'_>, kind: &str, name: &str, known: &[&str]) -> ConfigError {
        let (before, between) = match known.len() {
            ..2 => ("", ""),
            2 => ("", " or "),
            _ => ("one of ", ", "),
        };
        let mut expected = before.to_owned();
        for (index, name) in known.iter().enumerate() {
            let between = if index == 0 { "" } else { between };
            expected.extend([between, "`", name, "`"]);
        }
        self.error(
            path,
            &format!("unknown {kind} `{name}`, expected {expected}"),
        )
    }

    /// Reads over a value of any kind. What is wrong within it is left to who reads it.
    fn skip(&mut self, path: &Path<'_>) -> Parsed<()> {
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    self.raw_string(path)?;
                }
                b'{' | b'[' => {
                    depth = depth.saturating_add(1);
                    self.at = self.at.saturating_add(1);
                    continue;
                }
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    self.at = self.at.saturating_add(1);
                }
                _ => {
                    let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
                    let plain = rest.iter().position(|byte| b"\"{}[],".contains(byte));
                    self.at = self.at.saturating_add(plain.unwrap_or(rest.len()).max(1));
                }
            }
            if depth == 0 {
                return Ok(());
            }
        }
        self.wrong(path, "EOF while parsing a value")
    }
}

fn bit(index: usize) -> u32 {
    u32::try_from(index).map_or(0, |index| 1_u32.checked_shl(index).unwrap_or(0))
}

/// An object that is read only when all else is known: where it stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Later(Option<usize>);

impl Later {
    /// Reads its entries, of the text that `json` reads.
    pub(super) fn entries(
        self,
        json: &Reader<'_>,
        path: &Path<'_>,
        read: &mut dyn FnMut(&mut Reader<'_>, &str) -> Parsed<()>,
    ) -> Parsed<()> {
        let Some(at) = self.0 else {
            return Ok(());
        };
        Reader {
            text: json.text,
            at,
        }
        .entries(path, read)
    }
}

impl Read for Later {
    fn read(json: &mut Reader<'_>, path: &Path<'_>) -> Parsed<Self> {
        let at = json.at;
        json.skip(path)?;
        Ok(Self(Some(at)))
    }
}

impl Read for bool {
    fn read(json: &mut Reader<'_>, path: &Path<'_>) -> Parsed<Self> {
        match json.peek() {
            Some(b't') if json.skips("true") => Ok(true),
            Some(b'f') if json.skips("false") => Ok(false),
            _ => Err(json.unexpected(path, "a boolean")),
        }
    }
}

impl Read for Number {
    fn read(json: &mut Reader<'_>, path: &Path<'_>) -> Parsed<Self> {
        if !matches!(json.peek(), Some(b'-' | b'0'..=b'9')) {
            return Err(json.unexpected(path, "a number"));
        }
        match Self::parse(json.literal()) {
            Ok(number) => Ok(number),
            Err(NumberError::Negative) => json.wrong(path, "must not be negative"),
            Err(NumberError::Invalid) => json.wrong(path, "invalid number"),
        }
    }
}

impl Read for String {
    fn read(json: &mut Reader<'_>, path: &Path<'_>) -> Parsed<Self> {
        json.string(path).map(Cow::into_owned)
    }
}

impl<T: Read> Read for Option<T> {
    const IS_OPTIONAL: bool = true;

    fn read(json: &mut Reader<'_>, path: &Path<'_>) -> Parsed<Self> {
        match json.skips_null() {
            true => Ok(None),
            false => T::read(json, path).map(Some),
        }
    }

    fn read_over(&mut self, json: &mut Reader<'_>, path: &Path<'_>) -> Parsed<()> {
        match self {
            _ if json.skips_null() => {}
            Some(value) => value.read_over(json, path)?,
            None => *self = Some(T::read(json, path)?),
        }
        Ok(())
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(json: &mut Reader<'_>, path: &Path<'_>) -> Parsed<Self> {
        let mut list = Self::new();
        json.list(path, &mut |json, path| {
            list.push(T::read(json, path)?);
            Ok(())
        })?;
        Ok(list)
    }
}

#[cfg(test)]
mod tests;
