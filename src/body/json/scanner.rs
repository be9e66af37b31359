//! The scanner: its state, a level for each object on the path to a key, and the values found so far.

use super::block::{self, Strings, index};
use super::escape::Unescaped;
use super::names::{Folded, NameMatch, Word, bit};
use super::nested::Nested;
use super::{Field, Malformed, Repeats, Shape, is_space};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    InMark,
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
    repeats: Repeats,
    state: State,
    /// Bytes seen so far.
    offset: u64,
    /// Whether the scanner is inside a string.
    strings: Strings,
    nested: Nested,
    /// The current key, escapes included, if it is split over chunks or has escapes.
    key: Word,
    /// The object that is being read and those around it, outermost first.
    levels: Vec<Level>,
    pub(super) fields: Vec<Option<Field>>,
    end: Option<u64>,
    /// Whether the whole object was read and is empty.
    is_empty: bool,
    /// Whether a result may have changed since the last [`Scanner::take_news`].
    has_news: bool,
}

/// An object on the path to a key.
#[derive(Clone, Debug, Default)]
struct Level {
    /// The keys whose paths lead through this object, a bit each.
    keys: u64,
    /// The keys among them whose name was seen in this object.
    seen: u64,
    /// The keys among them whose paths lead through the value that is being read.
    inside: u64,
    /// Index of the value that is being read, if it is looked for.
    current: Option<usize>,
}

impl Scanner {
    /// A scanner for a new body.
    #[must_use]
    pub fn new(shape: Shape, repeats: Repeats) -> Self {
        Self {
            shape,
            repeats,
            state: State::Start,
            offset: 0,
            strings: Strings::default(),
            nested: Nested::new(&shape),
            key: Word::default(),
            levels: Vec::new(),
            fields: vec![None; shape.keys.len()],
            end: None,
            is_empty: false,
            has_news: true,
        }
    }

    /// Resets it for another body of the same shape.
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

    /// Reads the next chunk. Only white space may follow the object.
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

    /// Reads the next chunk, at most to the object's end. Returns how many bytes were read.
    ///
    /// # Errors
    /// As [`Scanner::feed`].
    pub fn feed_object(&mut self, chunk: &[u8]) -> Result<usize, Malformed> {
        let matched = self.matched();
        let mut at = 0_usize;
        while let Some(&byte) = chunk.get(at).filter(|_| self.state != State::Done) {
            let taken = self.step(byte, chunk, at)?;
            at = at.saturating_add(taken);
        }
        self.keep_open(chunk.get(..at).unwrap_or_default());
        self.go(at);
        self.has_news |= self.matched() != matched;
        Ok(at)
    }

    /// How many keys are looked for.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.fields.len()
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

    /// The flags of all patterns that were matched.
    #[must_use]
    pub fn matched(&self) -> u32 {
        self.nested.matched()
    }

    /// Start of the value that is being read, if it is looked for and not overlong.
    #[must_use]
    pub fn open_since(&self) -> Option<u64> {
        let open = |level: &Level| {
            let field = self.fields.get(level.current?)?.as_ref()?;
            (field.end.is_none() && !field.overlong).then_some(field.start)
        };
        self.levels.iter().find_map(open)
    }

    /// Offset of the object's closing brace, once it has been read.
    #[must_use]
    pub fn closing_brace(&self) -> Option<u64> {
        self.end
    }

    /// Whether the whole object was read and is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Whether any result, other than the offset, may have changed since the last call.
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

    /// The offset in the body of a byte of the current chunk.
    fn offset_of(&self, at: usize) -> u64 {
        self.offset
            .saturating_add(u64::try_from(at).unwrap_or(u64::MAX))
    }

    /// Takes one step at `byte`, which is at `at` in the chunk. Returns how many bytes were consumed: none if `byte` ends a literal.
    fn step(&mut self, byte: u8, chunk: &[u8], at: usize) -> Result<usize, Malformed> {
        let rest = || chunk.get(at..).unwrap_or_default();
        match (self.state, byte) {
            (State::InKey, _) => return self.in_key(rest()),
            (State::InString, _) => return Ok(self.in_string(chunk, at)),
            (State::InNested, _) => return Ok(self.in_nested(chunk, at)),
            (State::InLiteral, _) => return self.in_literal(chunk, at),
            (State::InMark, _) => self.in_mark(byte, self.offset_of(at))?,
            (State::Start, 0xef) if self.offset_of(at) == 0 => self.state = State::InMark,
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

    /// A byte order mark before the object, which most parsers ignore (RFC 8259, 8.1): the bytes after its first one.
    fn in_mark(&mut self, byte: u8, offset: u64) -> Result<(), Malformed> {
        match (offset, byte) {
            (1, 0xbb) => Ok(()),
            (2, 0xbf) => {
                self.state = State::Start;
                Ok(())
            }
            _ => Err(Malformed::NotAnObject),
        }
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

    /// A key begins. Most keys are in one chunk, without escapes, and not looked for.
    fn open_key(&mut self, rest: &[u8]) -> Result<usize, Malformed> {
        let text = rest.get(1..).unwrap_or_default();
        let Some(name) = block::plain(text).and_then(|end| text.get(..end)) else {
            self.state = State::InKey;
            self.strings.is_inside = true;
            self.key.clear();
            return Ok(1);
        };
        self.state = State::Colon;
        match self.shape.lengths.has(name.len()) {
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
                    let name = Unescaped::of(raw).ok_or(Malformed::Syntax)?;
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
        self.nested.activate(None);
    }

    /// Looks up whether the key that was just read is looked for.
    fn look_up(&mut self, name: &[u8]) -> Result<(), Malformed> {
        self.pass_over();
        let depth = self.levels.len().saturating_sub(1);
        let Some(level) = self.levels.last_mut() else {
            return Ok(());
        };
        let not_ascii = if name.is_ascii() {
            None
        } else if let Some(folded) = Folded::of(name) {
            Some(folded)
        } else {
            return Ok(());
        };
        let folded = not_ascii.as_ref().map_or(name, Folded::as_bytes);
        if !self.shape.lengths.has(folded.len()) {
            return Ok(());
        }
        let candidates = self.shape.keys_of_length(folded.len()) & level.keys;
        let (mut same, mut similar) = (0, 0);
        for index in block::bits(candidates).map(index) {
            let Some(key) = self.shape.keys.get(index) else {
                break;
            };
            let Some(spelled) = key.path.get(depth) else {
                continue;
            };
            let known = NameMatch::of(spelled, name, folded);
            if known == NameMatch::Same {
                same |= bit(index);
                match key.path.len().saturating_sub(1) == depth {
                    true => level.current = Some(index),
                    false => level.inside |= bit(index),
                }
            } else if known == NameMatch::Similar {
                similar |= bit(index);
            }
        }
        let is_ambiguous = similar != 0 || level.seen & same != 0;
        if is_ambiguous && self.repeats == Repeats::Refuse {
            return Err(Malformed::AmbiguousKey);
        }
        level.seen |= same;
        if depth == 0 {
            self.nested.activate(Some(name));
        }
        Ok(())
    }

    fn open_value(&mut self, byte: u8, at: usize) -> Result<(), Malformed> {
        // No value begins with this byte. An earlier value of the same key is kept.
        if matches!(byte, b'}' | b']' | b',' | b':') {
            return Err(Malformed::Syntax);
        }
        let start = self.offset_of(at);
        let level = self.levels.last();
        let (inside, current) = level.map_or((0, None), |level| (level.inside, level.current));
        if let Some(slot) = current.and_then(|index| self.fields.get_mut(index)) {
            // An earlier value under the same key is lost, even if a fault follows.
            self.has_news |= slot.is_some();
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
        let key = level.and_then(|level| self.shape.keys.get(level.current?));
        let counts_commas = key.is_some_and(|key| key.counts_commas);
        let rest = chunk.get(at..).unwrap_or_default();
        let taken = self.nested.read(rest, counts_commas);
        let commas = self.nested.take_commas();
        if let Some(field) = self.current().filter(|_| counts_commas) {
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

    /// The value that was being read ends before `end`, a position in the chunk.
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

    /// Keeps the chunk's part of the values that continue in the next chunk.
    fn keep_open(&mut self, chunk: &[u8]) {
        for level in 0..self.levels.len() {
            if let Some(index) = self.levels.get(level).and_then(|level| level.current) {
                self.keep(index, chunk);
            }
        }
    }

    /// Keeps the chunk's part of an open value, up to the key's limit.
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
