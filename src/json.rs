//! A streaming scanner for one JSON object: finds the values of a few keys, in any chunking.
//!
//! It keeps only what it looks for, so its memory is bounded by the sum of the keys' limits, whatever the body's size or
//! depth. In the objects that lie on the way to a key the grammar (RFC 8259) is held to, but for the spelling of literals;
//! inside all other values only strings and the balance of brackets are followed. On a valid body this gives what any
//! parser gives. A body that is invalid in another value is left to the upstream to refuse.
//!
//! A [`Mark`] is looked for in a looser way: anywhere inside one top-level value, whatever lies around it.

mod block;
mod names;
mod nested;
mod whole;

use std::borrow::Cow;

use block::{Strings, index};
#[cfg(test)]
pub(crate) use names::MAX_NAME;
use names::{Known, Lengths, Word, bit};
use nested::Nested;
pub(crate) use whole::{entries, members, quoted, string, unescape, with_entry};

/// A key to look for.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The way to it from the top, one name for each object. A name may give other spellings that mean the same, as
    /// `maxOutputTokens|max_output_tokens`.
    pub path: &'static [&'static str],
    /// Longest value to keep, in bytes as they stand in the body.
    pub limit: usize,
    /// Of the names in its path.
    lengths: Lengths,
}

impl Key {
    /// A key with this path and limit.
    #[must_use]
    pub const fn new(path: &'static [&'static str], limit: usize) -> Self {
        Self {
            path,
            limit,
            lengths: Lengths::NONE.with_path(path),
        }
    }
}

/// Something to notice anywhere inside the value of a top-level key.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// The top-level key.
    pub under: &'static str,
    /// What is noticed in its value.
    pub sign: Sign,
    /// The bits that stand for it in [`Scanner::noticed`].
    pub flags: u32,
}

/// What to notice.
#[derive(Clone, Copy, Debug)]
pub enum Sign {
    /// An object with this key, and a value that is neither `null` nor an empty list.
    Key(&'static str),
    /// An object whose `type` is this.
    Type(&'static str),
}

/// What to look for in a body. At most 64 keys and 64 marks.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Keys whose values are kept.
    pub keys: &'static [Key],
    /// What is only noticed.
    pub marks: &'static [Mark],
}

/// A value that was looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// Offset of its first byte in the body.
    pub start: u64,
    /// Offset after its last byte; `None` while it is not complete.
    pub end: Option<u64>,
    /// Its bytes; if it is overlong, the first ones.
    pub raw: Vec<u8>,
    /// Whether it is longer than its key's limit.
    pub overlong: bool,
    /// If it is a list, the commas between its entries.
    pub commas: u64,
    /// It is an object that is looked into, and has no entry.
    pub is_empty: bool,
}

/// Why a body is not what was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It does not start with `{`.
    NotAnObject,
    /// Its top level is not JSON, or something follows the object.
    Syntax,
    /// A key that matters stands twice, or in other letter case: parsers differ on which one counts.
    AmbiguousKey,
    /// It ends before the object does.
    Truncated,
}

/// What to do about keys that stand twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// For requests: refuse, since the upstream may read the other one.
    Refuse,
    /// For responses: the last one counts.
    TakeLast,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    FirstKey,
    Key,
    InKey,
    Colon,
    Value,
    InString,
    InNested,
    InLiteral,
    AfterValue,
    Done,
}

/// The scanner's state between two chunks.
#[derive(Clone, Debug)]
pub struct Scanner {
    shape: Shape,
    /// Lengths of the names that the shape has.
    lengths: Lengths,
    repeats: Repeats,
    state: State,
    /// Bytes seen so far.
    offset: u64,
    /// Where in the strings.
    strings: Strings,
    nested: Nested,
    /// The current key as it stands in the body, if it did not come at once.
    key: Word,
    /// The object that is being read and those around it, from the top.
    levels: Vec<Level>,
    fields: Vec<Option<Field>>,
    end: Option<u64>,
    /// The object was read and has no entry.
    is_empty: bool,
    /// Something of what it tells may have changed since that was asked before.
    has_news: bool,
}

/// An object on the way to a key.
#[derive(Clone, Debug, Default)]
struct Level {
    /// The keys that may lie in it, a bit each.
    keys: u64,
    /// Those of them whose name was seen in it.
    seen: u64,
    /// Those of them that lie in the value that is being read.
    inside: u64,
    /// Index of the value that is being read, if it is looked for.
    current: Option<usize>,
}

impl Scanner {
    /// A scanner for a new body.
    #[must_use]
    pub fn new(shape: Shape, repeats: Repeats) -> Self {
        let of_keys = shape.keys.iter().map(|key| key.lengths);
        let of_marks = shape
            .marks
            .iter()
            .map(|mark| Lengths::NONE.with(mark.under));
        Self {
            shape,
            lengths: of_keys.chain(of_marks).fold(Lengths::NONE, Lengths::and),
            repeats,
            state: State::Start,
            offset: 0,
            strings: Strings::default(),
            nested: Nested::new(shape.marks),
            key: Word::default(),
            levels: Vec::new(),
            fields: vec![None; shape.keys.len()],
            end: None,
            is_empty: false,
            has_news: true,
        }
    }

    /// Makes it one for another body of the same shape.
    pub(crate) fn restart(&mut self) {
        self.state = State::Start;
        self.offset = 0;
        self.strings = Strings::default();
        self.nested.restart();
        self.levels.clear();
        self.fields.fill(None);
        self.end = None;
        self.is_empty = false;
        self.has_news = true;
    }

    /// Reads on. After the object only white space may follow.
    ///
    /// # Errors
    /// What is wrong with the body. The scanner must not be fed after that.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), Malformed> {
        let taken = self.feed_object(chunk)?;
        let rest = chunk.get(taken..).unwrap_or_default();
        if !rest.iter().all(is_space) {
            return Err(Malformed::Syntax);
        }
        self.go(rest.len());
        Ok(())
    }

    /// Reads on, up to the object's end: how many bytes that took.
    ///
    /// # Errors
    /// As [`Scanner::feed`].
    pub fn feed_object(&mut self, chunk: &[u8]) -> Result<usize, Malformed> {
        let noticed = self.noticed();
        let mut at = 0_usize;
        while let Some(&byte) = chunk.get(at).filter(|_| self.state != State::Done) {
            let taken = self.step(byte, chunk, at)?;
            at = at.saturating_add(taken);
        }
        self.keep_open(chunk.get(..at).unwrap_or_default());
        self.go(at);
        self.has_news |= self.noticed() != noticed;
        Ok(at)
    }

    /// The value of the `index`-th key, once it is complete.
    #[must_use]
    pub fn value(&self, index: usize) -> Option<&Field> {
        self.fields
            .get(index)?
            .as_ref()
            .filter(|field| field.end.is_some())
    }

    /// The value of the `index`-th key, complete or not.
    #[must_use]
    pub fn begun(&self, index: usize) -> Option<&Field> {
        self.fields.get(index)?.as_ref()
    }

    /// The flags of all marks that were noticed.
    #[must_use]
    pub fn noticed(&self) -> u32 {
        self.nested.noticed()
    }

    /// Where the value begins that is being read, if it is looked for and not overlong.
    #[must_use]
    pub fn open_since(&self) -> Option<u64> {
        let open = |level: &Level| {
            let field = self.fields.get(level.current?)?.as_ref()?;
            (field.end.is_none() && !field.overlong).then_some(field.start)
        };
        self.levels.iter().find_map(open)
    }

    /// Offset of the object's closing brace, once it was seen.
    #[must_use]
    pub fn closing_brace(&self) -> Option<u64> {
        self.end
    }

    /// Whether the object was read and has no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Whether any of the values, or what else is told here but the offset, may have changed since this was asked before.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// Bytes seen so far.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    fn go(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.offset = self.offset.saturating_add(bytes);
    }

    /// The offset in the body of a byte of the chunk that is being read.
    fn offset_of(&self, at: usize) -> u64 {
        self.offset
            .saturating_add(u64::try_from(at).unwrap_or(u64::MAX))
    }

    /// Takes one step at `byte`, which stands at `at` in the chunk: how many bytes it used up (none if the byte ends a literal).
    fn step(&mut self, byte: u8, chunk: &[u8], at: usize) -> Result<usize, Malformed> {
        let rest = || chunk.get(at..).unwrap_or_default();
        match (self.state, byte) {
            (State::InKey, _) => return self.in_key(rest()),
            (State::InString, _) => return Ok(self.in_string(chunk, at)),
            (State::InNested, _) => return Ok(self.in_nested(chunk, at)),
            (State::InLiteral, _) => return self.in_literal(chunk, at),
            _ if is_space(&byte) => {}
            (State::Start, b'{') => self.open_object(u64::MAX),
            (State::Start, _) => return Err(Malformed::NotAnObject),
            (State::FirstKey | State::Key, b'"') => return self.open_key(rest()),
            (State::FirstKey | State::AfterValue, b'}') => self.close_object(chunk, at),
            (State::Colon, b':') => self.state = State::Value,
            (State::AfterValue, b',') => self.state = State::Key,
            (State::Value, _) => self.open_value(byte, at)?,
            _ => return Err(Malformed::Syntax),
        }
        Ok(1)
    }

    fn open_object(&mut self, keys: u64) {
        self.state = State::FirstKey;
        self.levels.push(Level {
            keys,
            ..Level::default()
        });
    }

    fn close_object(&mut self, chunk: &[u8], at: usize) {
        let is_empty = self.state == State::FirstKey;
        self.levels.pop();
        if self.levels.is_empty() {
            self.is_empty = is_empty;
            self.end = Some(self.offset_of(at));
            self.has_news = true;
            self.state = State::Done;
            return;
        }
        if let Some(field) = self.current() {
            field.is_empty = is_empty;
        }
        self.close_value(chunk, at.saturating_add(1));
    }

    /// A key begins. Most are here as a whole, and plain; and most of those are not looked for.
    fn open_key(&mut self, rest: &[u8]) -> Result<usize, Malformed> {
        let text = rest.get(1..).unwrap_or_default();
        let Some(name) = block::plain(text).and_then(|end| text.get(..end)) else {
            self.state = State::InKey;
            self.strings.is_inside = true;
            self.key.clear();
            return Ok(1);
        };
        self.state = State::Colon;
        match self.lengths.has(name.len()) {
            true => self.look_up(name)?,
            false => self.pass_over(),
        }
        Ok(name.len().saturating_add(2))
    }

    fn in_key(&mut self, rest: &[u8]) -> Result<usize, Malformed> {
        let (taken, text) = self.strings.end(rest);
        self.key.push(text);
        if !self.strings.is_inside {
            self.state = State::Colon;
            let key = std::mem::take(&mut self.key);
            match key.text() {
                None => self.pass_over(),
                Some(raw) if raw.contains(&b'\\') => {
                    let name = unescape(raw).ok_or(Malformed::Syntax)?;
                    self.look_up(name.as_bytes())?;
                }
                Some(name) => self.look_up(name)?,
            }
            self.key = key;
        }
        Ok(taken)
    }

    /// The key that was just read is not looked for.
    fn pass_over(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            (level.inside, level.current) = (0, None);
        }
        self.nested.heed(None);
    }

    /// Finds out whether the key that was just read is looked for.
    fn look_up(&mut self, name: &[u8]) -> Result<(), Malformed> {
        self.pass_over();
        let depth = self.levels.len().saturating_sub(1);
        let Some(level) = self.levels.last_mut() else {
            return Ok(());
        };
        // What is not ASCII may fold to a name of any length.
        let lengths = match name.is_ascii() {
            true => Lengths::of(name),
            false => Lengths::ALL,
        };
        let (mut same, mut similar) = (0, 0);
        for (index, key) in self.shape.keys.iter().enumerate() {
            if !key.lengths.overlap(lengths) || level.keys & bit(index) == 0 {
                continue;
            }
            let Some(spelled) = key.path.get(depth) else {
                continue;
            };
            let known = Known::of(spelled, name);
            if known == Known::Same {
                same |= bit(index);
                match key.path.len().saturating_sub(1) == depth {
                    true => level.current = Some(index),
                    false => level.inside |= bit(index),
                }
            } else if known == Known::Similar {
                similar |= bit(index);
            }
        }
        let is_ambiguous = similar != 0 || level.seen & same != 0;
        if is_ambiguous && self.repeats == Repeats::Refuse {
            return Err(Malformed::AmbiguousKey);
        }
        level.seen |= same;
        if depth == 0 {
            self.nested.heed(Some(name));
        }
        Ok(())
    }

    fn open_value(&mut self, byte: u8, at: usize) -> Result<(), Malformed> {
        let start = self.offset_of(at);
        let level = self.levels.last();
        let (inside, current) = level.map_or((0, None), |level| (level.inside, level.current));
        if let Some(slot) = current.and_then(|index| self.fields.get_mut(index)) {
            *slot = Some(Field {
                start,
                ..Field::default()
            });
        }
        match byte {
            b'{' if inside != 0 => self.open_object(inside),
            b'"' => {
                self.state = State::InString;
                self.strings.is_inside = true;
            }
            b'{' | b'[' => {
                self.state = State::InNested;
                self.nested.begin();
            }
            b'}' | b']' | b',' | b':' => return Err(Malformed::Syntax),
            _ => self.state = State::InLiteral,
        }
        Ok(())
    }

    fn in_string(&mut self, chunk: &[u8], at: usize) -> usize {
        let (taken, _) = self.strings.end(chunk.get(at..).unwrap_or_default());
        if !self.strings.is_inside {
            self.close_value(chunk, at.saturating_add(taken));
        }
        taken
    }

    fn in_nested(&mut self, chunk: &[u8], at: usize) -> usize {
        let level = self.levels.last();
        let is_kept = level.is_some_and(|level| level.current.is_some());
        let rest = chunk.get(at..).unwrap_or_default();
        let taken = self.nested.read(rest, is_kept);
        let commas = self.nested.take_commas();
        if let Some(field) = self.current() {
            field.commas = field.commas.saturating_add(commas);
            self.has_news |= commas > 0;
        }
        if self.nested.is_over() {
            self.close_value(chunk, at.saturating_add(taken));
        }
        taken
    }

    fn in_literal(&mut self, chunk: &[u8], at: usize) -> Result<usize, Malformed> {
        let rest = chunk.get(at..).unwrap_or_default();
        let ends = |byte: &u8| matches!(byte, b',' | b'}') || is_space(byte);
        let taken = rest.iter().position(ends).unwrap_or(rest.len());
        let literal = rest.get(..taken).unwrap_or_default();
        if literal
            .iter()
            .any(|byte| matches!(byte, b'"' | b'{' | b'[' | b']' | b':'))
        {
            return Err(Malformed::Syntax);
        }
        if taken < rest.len() {
            self.close_value(chunk, at.saturating_add(taken));
        }
        Ok(taken)
    }

    /// The value that is being read in the innermost object, if it is looked for.
    fn current(&mut self) -> Option<&mut Field> {
        let index = self.levels.last()?.current?;
        self.fields.get_mut(index)?.as_mut()
    }

    /// The value that was being read ends before `end`, a place in the chunk.
    fn close_value(&mut self, chunk: &[u8], end: usize) {
        self.state = State::AfterValue;
        let level = self.levels.last_mut();
        let Some(index) = level.and_then(|level| level.current.take()) else {
            return;
        };
        self.keep(index, chunk.get(..end).unwrap_or_default());
        let end = self.offset_of(end);
        if let Some(Some(field)) = self.fields.get_mut(index) {
            field.end = Some(end);
            self.has_news = true;
        }
    }

    /// Keeps what a chunk has of the values that go on in the next one.
    fn keep_open(&mut self, chunk: &[u8]) {
        for level in 0..self.levels.len() {
            if let Some(index) = self.levels.get(level).and_then(|level| level.current) {
                self.keep(index, chunk);
            }
        }
    }

    /// Keeps the bytes of a chunk that belong to a value, up to its limit, if it is open.
    fn keep(&mut self, index: usize, chunk: &[u8]) {
        let limit = self.shape.keys.get(index).map_or(0, |key| key.limit);
        let Some(Some(field)) = self.fields.get_mut(index) else {
            return;
        };
        if field.end.is_some() {
            return;
        }
        if field.overlong {
            return;
        }
        self.has_news = true;
        let from = usize::try_from(field.start.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let seen = chunk.get(from..).unwrap_or_default();
        let room = limit.saturating_sub(field.raw.len());
        field.overlong = seen.len() > room;
        field
            .raw
            .extend_from_slice(seen.get(..room).unwrap_or(seen));
    }
}

fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Whether a JSON text may have one of these words as a string, key or value: it stands there so, or may be hidden by
/// escapes. What follows it is shown to `counts`.
///
/// Quick, and for words of letters, points and lines only: no other escape than that of a code can stand for them.
#[must_use]
pub fn may_have(json: &[u8], words: &[&str], counts: impl Fn(&[u8]) -> bool) -> bool {
    let mut spare = [0; 64];
    let mut at = 0_usize;
    while at < json.len() {
        // The last block may have bytes of the one before: to look at them twice does no harm.
        let start = at.min(json.len().saturating_sub(64));
        let (block, _) = block::at(json, start, &mut spare);
        at = start.saturating_add(64);
        let before = |byte| block::before_byte(block, byte, json.get(at).copied());
        let quotes = block::equal(block, b'"');
        let has_word = |word: &&str| {
            let text = word.as_bytes();
            let after = |bit: u32| {
                let rest = json.get(start.saturating_add(index(bit)).saturating_add(1)..)?;
                rest.strip_prefix(text)?.strip_prefix(b"\"")
            };
            let first = text.first().copied().unwrap_or(b'"');
            block::bits(quotes & before(first)).any(|bit| after(bit).is_some_and(&counts))
        };
        let backslashes = block::equal(block, b'\\');
        if words.iter().any(has_word) || backslashes != 0 && backslashes & before(b'u') != 0 {
            return true;
        }
    }
    false
}

/// The text of a complete string value; `None` for any other value, or bad escapes.
#[must_use]
pub fn text(field: &Field) -> Option<String> {
    let whole = Some(&field.raw).filter(|_| !field.overlong);
    string(whole?).map(Cow::into_owned)
}

#[cfg(test)]
mod tests;
