//! A streaming scanner for one JSON object: finds the values of a few keys, in any chunking.
//!
//! It keeps only what it looks for, so its memory is bounded by the sum of the keys' limits, whatever the body's size or
//! depth. In the objects that lie on the way to a key the grammar (RFC 8259) is held to, but for the spelling of literals;
//! inside all other values only strings and the balance of brackets are followed. On a valid body this gives what any
//! parser gives. A body that is invalid in another value is left to the upstream to refuse.
//!
//! A [`Mark`] is looked for in a looser way: anywhere inside one top-level value, whatever lies around it.

mod block;
mod whole;

use std::borrow::Cow;

use block::{Block, Quoted, Strings};
pub(crate) use whole::{entries, members, quoted, string, unescape};

/// A key to look for.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The way to it from the top, one name for each object. A name may give other spellings that mean the same, as
    /// `maxOutputTokens|max_output_tokens`.
    pub path: &'static [&'static str],
    /// Longest value to keep, in bytes as they stand in the body.
    pub limit: usize,
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
    repeats: Repeats,
    state: State,
    /// Bytes seen so far.
    offset: u64,
    /// Where in the strings.
    strings: Strings,
    nested: Nested,
    /// The current key as it stands in the body, if it may be one that is looked for.
    key: Word,
    /// The object that is being read and those around it, from the top.
    levels: Vec<Level>,
    fields: Vec<Option<Field>>,
    /// Flags of the marks that were noticed.
    noticed: u32,
    end: Option<u64>,
    /// The object was read and has no entry.
    is_empty: bool,
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

/// Where the scanner is inside a value that it does not look into.
#[derive(Clone, Debug, Default)]
struct Nested {
    /// Open brackets.
    depth: u64,
    /// Marks that count here, a bit each.
    marks: u64,
    /// Lengths of the keys that matter for them, a bit each.
    lengths: Lengths,
    /// The string that is being read, or was read last.
    word: Word,
    /// The value to come, or to be read on, is that of a `type`.
    is_type: bool,
    /// Flags of the key whose value is to come.
    key: u32,
}

/// A short text that is collected over chunks, as it stands in the body.
#[derive(Clone, Debug, Default)]
struct Word {
    raw: Vec<u8>,
    overlong: bool,
}

/// Lengths of the words that matter, a bit each: most words are of another one.
#[derive(Clone, Copy, Debug, Default)]
struct Lengths {
    /// Of keys.
    keys: u64,
    /// Of the values of a `type`.
    types: u64,
}

/// The brackets of a block that stand outside of strings.
#[derive(Clone, Copy, Debug)]
struct Brackets {
    opening: u64,
    closing: u64,
}

/// The string that was read last, by where it lies in a chunk.
#[derive(Clone, Copy, Debug, Default)]
struct Text {
    /// The byte after its opening quote; `None` if that lies in a chunk before.
    start: Option<usize>,
    /// Its closing quote, if that was read.
    end: Option<usize>,
}

/// The key that names what an object is.
const TYPE: &str = "type";

/// Longest name that can be looked for, in bytes.
pub(crate) const MAX_NAME: usize = 32;

/// An escape makes six bytes of one.
const MAX_WORD: usize = 6 * MAX_NAME;

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
            nested: Nested::default(),
            key: Word::default(),
            levels: Vec::new(),
            fields: vec![None; shape.keys.len()],
            noticed: 0,
            end: None,
            is_empty: false,
        }
    }

    /// Makes it one for another body of the same shape.
    pub(crate) fn restart(&mut self) {
        self.state = State::Start;
        self.offset = 0;
        self.strings = Strings::default();
        self.nested = Nested::default();
        self.levels.clear();
        self.fields.fill(None);
        self.noticed = 0;
        self.end = None;
        self.is_empty = false;
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
        let mut rest = chunk;
        while let Some(&byte) = rest.first().filter(|_| self.state != State::Done) {
            let taken = self.step(byte, rest)?;
            let (seen, tail) = rest.split_at_checked(taken).unwrap_or((rest, &[]));
            self.keep(seen);
            self.go(seen.len());
            self.close_value();
            rest = tail;
        }
        Ok(chunk.len().saturating_sub(rest.len()))
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
        self.noticed
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

    /// Bytes seen so far.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    fn go(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.offset = self.offset.saturating_add(bytes);
    }

    /// Takes one step at `byte`, the first of `rest`: how many bytes it used up (none if the byte ends a literal).
    fn step(&mut self, byte: u8, rest: &[u8]) -> Result<usize, Malformed> {
        match (self.state, byte) {
            (State::InKey, _) => return self.in_key(rest),
            (State::InString, _) => return Ok(self.in_string(rest)),
            (State::InNested, _) => return Ok(self.in_nested(rest)),
            (State::InLiteral, _) => return self.in_literal(rest),
            _ if is_space(&byte) => {}
            (State::Start, b'{') => self.open_object(u64::MAX),
            (State::Start, _) => return Err(Malformed::NotAnObject),
            (State::FirstKey | State::Key, b'"') => {
                self.state = State::InKey;
                self.strings.is_inside = true;
                self.key.clear();
            }
            (State::FirstKey | State::AfterValue, b'}') => self.close_object(),
            (State::Colon, b':') => self.state = State::Value,
            (State::AfterValue, b',') => self.state = State::Key,
            (State::Value, _) => self.open_value(byte)?,
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

    fn close_object(&mut self) {
        let is_empty = self.state == State::FirstKey;
        self.levels.pop();
        if let Some(field) = self.current() {
            field.is_empty = is_empty;
        }
        self.state = State::AfterValue;
        if self.levels.is_empty() {
            self.is_empty = is_empty;
            self.end = Some(self.offset);
            self.state = State::Done;
        }
    }

    fn in_key(&mut self, rest: &[u8]) -> Result<usize, Malformed> {
        let (taken, text) = self.strings.end(rest);
        self.key.push(text);
        if !self.strings.is_inside {
            self.state = State::Colon;
            self.look_up()?;
        }
        Ok(taken)
    }

    /// Finds out whether the key that was just read is looked for.
    fn look_up(&mut self) -> Result<(), Malformed> {
        let depth = self.levels.len().saturating_sub(1);
        let Some(level) = self.levels.last_mut() else {
            return Ok(());
        };
        (level.inside, level.current, self.nested.marks) = (0, None, 0);
        let unescaped;
        let name = match self.key.text() {
            None => return Ok(()),
            Some(raw) if raw.contains(&b'\\') => {
                unescaped = unescape(raw).ok_or(Malformed::Syntax)?;
                unescaped.as_bytes()
            }
            Some(raw) => raw,
        };
        let (mut same, mut similar) = (0, 0);
        for (index, key) in self.shape.keys.iter().enumerate() {
            let Some(spelled) = key.path.get(depth).filter(|_| level.keys & bit(index) != 0) else {
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
            self.nested.marks = marks_under(self.shape.marks, name);
            self.nested.lengths = Lengths::of(self.shape.marks);
        }
        Ok(())
    }

    fn open_value(&mut self, byte: u8) -> Result<(), Malformed> {
        let start = self.offset;
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
                self.nested = Nested {
                    depth: 1,
                    marks: self.nested.marks,
                    lengths: self.nested.lengths,
                    ..Nested::default()
                };
            }
            b'}' | b']' | b',' | b':' => return Err(Malformed::Syntax),
            _ => self.state = State::InLiteral,
        }
        Ok(())
    }

    fn in_string(&mut self, rest: &[u8]) -> usize {
        let (taken, _) = self.strings.end(rest);
        if !self.strings.is_inside {
            self.state = State::AfterValue;
        }
        taken
    }

    /// Reads on in a value that is not looked into: in a string whose text may matter, at a value that may, or elsewhere.
    fn in_nested(&mut self, rest: &[u8]) -> usize {
        let taken = match rest.first() {
            _ if self.strings.is_inside => self.nested_string(rest),
            Some(&byte) if self.nested.key != 0 || self.nested.is_type => self.expected(byte),
            _ => self.blocks(rest),
        };
        if self.nested.depth == 0 {
            self.state = State::AfterValue;
        }
        taken
    }

    fn nested_string(&mut self, rest: &[u8]) -> usize {
        let (taken, text) = self.strings.end(rest);
        if self.nested.marks != 0 {
            self.nested.word.push(text);
        }
        if !self.strings.is_inside {
            self.notice_type();
        }
        taken
    }

    /// A byte from the colon of a key that matters up to what its value begins with.
    fn expected(&mut self, byte: u8) -> usize {
        if self.nested.key != 0 {
            self.notice_value(byte);
        }
        match byte {
            b'"' => {
                self.strings.is_inside = true;
                self.nested.word.clear();
                return 1;
            }
            byte if is_space(&byte) => return 1,
            b'{' | b'[' => self.nested.depth = self.nested.depth.saturating_add(1),
            b'}' | b']' => self.nested.depth = self.nested.depth.saturating_sub(1),
            b',' if self.nested.depth == 1 => self.count_comma(),
            _ => {}
        }
        self.nested.is_type = false;
        1
    }

    /// Reads on from outside of a string, up to a key that matters or the value's end.
    fn blocks(&mut self, rest: &[u8]) -> usize {
        let mut spare = [0; 64];
        let mut last = Text::default();
        let mut at = 0_usize;
        while at < rest.len() {
            at = at.saturating_add(self.strings.text(rest.get(at..).unwrap_or_default()));
            let (block, length) = block::at(rest, at, &mut spare);
            let quoted = self.strings.read(block, length);
            if quoted.quotes != 0 || quoted.inside == 0 {
                let brackets = Brackets::of(block, quoted);
                let end = brackets.end(self.nested.depth);
                let key = self.key_that_matters(rest, at, (block, quoted, end), last);
                let stop = key.or(end);
                last = last.after(at, quoted, stop);
                if self.counts_commas() {
                    self.count_commas(block, quoted, brackets, stop);
                }
                self.nested.depth = match (key, end) {
                    (None, Some(_)) => 0,
                    _ => brackets.depth(self.nested.depth, stop),
                };
                if let Some(stop) = stop {
                    self.strings = Strings::default();
                    at = at.saturating_add(index(stop)).saturating_add(1);
                    break;
                }
            }
            at = at.saturating_add(length);
        }
        if let Some(text) = last.of(rest).filter(|_| self.nested.marks != 0) {
            self.nested.word.clear();
            self.nested.word.push(text);
        }
        at
    }

    /// The first colon of a block, which begins at `at`, that follows a key that matters and whose value is to be awaited.
    fn key_that_matters(
        &mut self,
        rest: &[u8],
        at: usize,
        (block, quoted, end): (&Block, Quoted, Option<u32>),
        last: Text,
    ) -> Option<u32> {
        if self.nested.marks == 0 {
            return None;
        }
        let colons = block::equal(block, b':') & !quoted.inside & block::before(end);
        block::bits(colons).find(|&colon| {
            let length = quoted.length_before(colon);
            if length.is_some_and(|length| self.nested.lengths.keys & bit(index(length)) == 0) {
                return false;
            }
            let key = last.after(at, quoted, Some(colon)).of(rest);
            let after = at.saturating_add(index(colon)).saturating_add(1);
            let value = rest.get(after..).unwrap_or_default();
            self.notice_key(key) && !self.notice_short_type(value)
        })
    }

    /// Counts the commas of a block between the entries of the list that is being read.
    fn count_commas(
        &mut self,
        block: &Block,
        quoted: Quoted,
        brackets: Brackets,
        stop: Option<u32>,
    ) {
        let commas = block::equal(block, b',') & !quoted.inside & block::before(stop);
        for comma in block::bits(commas) {
            if brackets.depth(self.nested.depth, Some(comma)) == 1 {
                self.count_comma();
            }
        }
    }

    fn counts_commas(&self) -> bool {
        self.levels
            .last()
            .is_some_and(|level| level.current.is_some())
    }

    fn count_comma(&mut self) {
        if let Some(field) = self.current() {
            field.commas = field.commas.saturating_add(1);
        }
    }

    /// The value that is being read in the innermost object, if it is looked for.
    fn current(&mut self) -> Option<&mut Field> {
        let index = self.levels.last()?.current?;
        self.fields.get_mut(index)?.as_mut()
    }

    /// The string that was read last is a key, this one or else the one that was kept: whether its value matters.
    fn notice_key(&mut self, key: Option<&[u8]>) -> bool {
        let key = match key {
            None => self.nested.word.text(),
            key => key.filter(|key| key.len() <= MAX_WORD),
        };
        let look = |word: &[u8]| {
            let is_mark = |sign| matches!(sign, Sign::Key(name) if word == name.as_bytes());
            match word == TYPE.as_bytes() {
                true => (0, true),
                false => (self.flags(is_mark), false),
            }
        };
        let (flags, is_type) = key.map_or((0, false), |key| unescaped(key, look));
        self.nested.key = flags;
        self.nested.is_type = is_type;
        flags != 0 || is_type
    }

    /// The value of the `type` that was noticed, if all of it is here and plain: whether that is so.
    fn notice_short_type(&mut self, value: &[u8]) -> bool {
        let Some(text) = value.strip_prefix(b"\"").filter(|_| self.nested.key == 0) else {
            return false;
        };
        let special = |byte: &u8| matches!(byte, b'"' | b'\\');
        let Some(end) = text.iter().take(MAX_WORD).position(special) else {
            return false;
        };
        let is_plain = text.get(end) == Some(&b'"');
        if is_plain {
            self.nested.is_type = false;
            self.noticed |= self.flags_of_type(text.get(..end).unwrap_or_default());
        }
        is_plain
    }

    /// The value of a key that may be noticed begins, or its list is read on, with this byte.
    fn notice_value(&mut self, byte: u8) {
        match byte {
            byte if is_space(&byte) || byte == b'[' => return,
            b'n' | b']' => {}
            _ => self.noticed |= self.nested.key,
        }
        self.nested.key = 0;
    }

    /// A string was read that may be the value of a `type`.
    fn notice_type(&mut self) {
        if std::mem::take(&mut self.nested.is_type) {
            let word = self.nested.word.text().unwrap_or_default();
            self.noticed |= unescaped(word, |word| self.flags_of_type(word));
        }
    }

    fn flags_of_type(&self, word: &[u8]) -> u32 {
        if self.nested.lengths.types & bit(word.len()) == 0 {
            return 0;
        }
        self.flags(|sign| matches!(sign, Sign::Type(name) if word == name.as_bytes()))
    }

    /// The flags of those marks that count here and whose sign is so.
    fn flags(&self, is_so: impl Fn(Sign) -> bool) -> u32 {
        let here = self.shape.marks.iter().enumerate();
        here.filter(|&(index, mark)| self.nested.marks & bit(index) != 0 && is_so(mark.sign))
            .fold(0, |flags, (_, mark)| flags | mark.flags)
    }

    fn in_literal(&mut self, rest: &[u8]) -> Result<usize, Malformed> {
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
            self.state = State::AfterValue;
        }
        Ok(taken)
    }

    /// Keeps the bytes that belong to the values that are being read.
    fn keep(&mut self, seen: &[u8]) {
        for index in self.levels.iter().filter_map(|level| level.current) {
            let limit = self.shape.keys.get(index).map_or(0, |key| key.limit);
            let Some(Some(field)) = self.fields.get_mut(index) else {
                continue;
            };
            if field.end.is_some() || self.offset < field.start || field.overlong {
                continue;
            }
            let room = limit.saturating_sub(field.raw.len());
            field.overlong = seen.len() > room;
            field.raw.extend(seen.iter().take(room));
        }
    }

    /// Marks the value that was being read as complete if the last step ended it.
    fn close_value(&mut self) {
        if self.state != State::AfterValue {
            return;
        }
        let Some(index) = self
            .levels
            .last_mut()
            .and_then(|level| level.current.take())
        else {
            return;
        };
        if let Some(Some(field)) = self.fields.get_mut(index) {
            field.end = Some(self.offset);
        }
    }
}

impl Word {
    fn clear(&mut self) {
        self.raw.clear();
        self.overlong = false;
    }

    fn push(&mut self, text: &[u8]) {
        if self.overlong || self.raw.len().saturating_add(text.len()) > MAX_WORD {
            self.overlong = true;
        } else {
            self.raw.extend(text);
        }
    }

    /// The text; `None` if it is longer than anything that is looked for.
    fn text(&self) -> Option<&[u8]> {
        Some(self.raw.as_slice()).filter(|_| !self.overlong)
    }
}

impl Lengths {
    /// Those that matter for these marks.
    fn of(marks: &[Mark]) -> Self {
        let all = |find: fn(Sign) -> Option<&'static str>| {
            let names = marks.iter().filter_map(|mark| find(mark.sign));
            names.fold(0, |lengths, name| lengths | bit(name.len()))
        };
        Self {
            keys: all(|sign| match sign {
                Sign::Key(name) => Some(name),
                Sign::Type(_) => Some(TYPE),
            }),
            types: all(|sign| match sign {
                Sign::Key(_) => None,
                Sign::Type(name) => Some(name),
            }),
        }
    }
}

impl Brackets {
    fn of(block: &Block, quoted: Quoted) -> Self {
        Self {
            opening: block::equal_folded(block, b'{') & !quoted.inside,
            closing: block::equal_folded(block, b'}') & !quoted.inside,
        }
    }

    /// How many are open before this byte, or after the block, if it begins with so many.
    fn depth(self, depth: u64, byte: Option<u32>) -> u64 {
        let count = |set: u64| u64::from((set & block::before(byte)).count_ones());
        depth
            .saturating_add(count(self.opening))
            .saturating_sub(count(self.closing))
    }

    /// The one that closes the outermost of so many.
    fn end(self, depth: u64) -> Option<u32> {
        if depth > u64::from(self.closing.count_ones()) {
            return None;
        }
        block::bits(self.closing).find(|&bracket| self.depth(depth, Some(bracket)) == 1)
    }
}

impl Text {
    /// The last string before a bit of the block that begins at `at`, if this is the last one before the block.
    fn after(self, at: usize, quoted: Quoted, bit: Option<u32>) -> Self {
        let here = block::before(bit);
        let last = |set: u64| Some(at.saturating_add(index((set & here).checked_ilog2()?)));
        let begins = last(quoted.quotes & quoted.inside);
        let ends = last(quoted.quotes & !quoted.inside);
        match begins {
            None => Self {
                end: ends.or(self.end),
                ..self
            },
            Some(quote) => Self {
                start: Some(quote.saturating_add(1)),
                end: ends.filter(|&end| end > quote),
            },
        }
    }

    /// Its bytes, as far as they are here; `None` if it began before.
    fn of(self, rest: &[u8]) -> Option<&[u8]> {
        rest.get(self.start?..self.end.unwrap_or(rest.len()))
    }
}

fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn bit(index: usize) -> u64 {
    u32::try_from(index).map_or(0, |index| 1_u64.checked_shl(index).unwrap_or(0))
}

/// The marks in the value of this top-level key, a bit each.
fn marks_under(marks: &[Mark], name: &[u8]) -> u64 {
    let here = marks.iter().enumerate();
    here.filter(|(_, mark)| mark.under.as_bytes() == name)
        .fold(0, |bits, (index, _)| bits | bit(index))
}

/// How a key stands to one that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// It is one of its spellings.
    Same,
    /// Some parser takes it for one of them.
    Similar,
    Other,
}

impl Known {
    /// `spelled`: all spellings, with `|` between them.
    fn of(spelled: &str, name: &[u8]) -> Self {
        let mut known = Self::Other;
        for spelling in spelled.as_bytes().split(|&byte| byte == b'|') {
            // Most keys are no longer looked at than this: what is all ASCII is as long as what it folds to.
            if spelling.len() != name.len() && name.is_ascii() {
                continue;
            }
            if spelling == name {
                return Self::Same;
            }
            if folds_to(name, spelling) {
                known = Self::Similar;
            }
        }
        known
    }
}

/// Whether some parser takes `name` for `key`: without regard to case, as Go's does, by the rules of Unicode (K is the
/// Kelvin sign, \u{17f} the long s).
fn folds_to(name: &[u8], key: &[u8]) -> bool {
    if name.is_ascii() {
        return name.eq_ignore_ascii_case(key);
    }
    let folded = String::from_utf8_lossy(name)
        .replace('\u{212a}', "k")
        .replace('\u{17f}', "s");
    folded.as_bytes().eq_ignore_ascii_case(key)
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

/// Calls `look` with a text, unescaped; with nothing, if it is no text.
fn unescaped<T>(raw: &[u8], look: impl Fn(&[u8]) -> T) -> T {
    match raw.contains(&b'\\') {
        true => look(unescape(raw).unwrap_or_default().as_bytes()),
        false => look(raw),
    }
}

/// A bit's place in a block.
fn index(bit: u32) -> usize {
    usize::try_from(bit).unwrap_or(usize::MAX)
}

/// The text of a complete string value; `None` for any other value, or bad escapes.
#[must_use]
pub fn text(field: &Field) -> Option<String> {
    let whole = Some(&field.raw).filter(|_| !field.overlong);
    string(whole?).map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const KEYS: &[Key] = &[
        Key {
            path: &["model"],
            limit: 64,
        },
        Key {
            path: &["n"],
            limit: 8,
        },
        Key {
            path: &["config|cfg", "max|most"],
            limit: 8,
        },
    ];
    const SHAPE: Shape = Shape {
        keys: KEYS,
        marks: &[
            Mark {
                under: "messages",
                sign: Sign::Type("image"),
                flags: 1,
            },
            Mark {
                under: "messages",
                sign: Sign::Key("inline"),
                flags: 2,
            },
        ],
    };

    fn scan(chunks: &[&[u8]]) -> Result<Scanner, Malformed> {
        let mut scanner = Scanner::new(SHAPE, Repeats::Refuse);
        for chunk in chunks {
            scanner.feed(chunk)?;
        }
        scanner
            .closing_brace()
            .map(|_| scanner)
            .ok_or(Malformed::Truncated)
    }

    fn model(body: &str) -> Result<Option<String>, Malformed> {
        scan(&[body.as_bytes()]).map(|scanner| scanner.value(0).and_then(text))
    }

    // cases.md 30
    #[test]
    fn model_is_found_wherever_it_stands_and_only_at_the_top() {
        let found = Ok(Some("gpt-4o".to_owned()));
        assert_eq!(model(r#"{"model":"gpt-4o","x":1}"#), found);
        assert_eq!(
            model(r#" { "x" : [ {"model":"no"} ] , "model" : "gpt-4o" } "#),
            found
        );
        assert_eq!(
            model(r#"{"x":"\"model\":\"no\"","y":{"a":"}]{["},"model":"gpt-4o"}"#),
            found
        );
        assert_eq!(model(r#"{"mod\u0065l":"gpt\u002d4o"}"#), found);
        assert_eq!(model(r#"{"x":{"model":"no"},"y":"model"}"#), Ok(None));
    }

    #[test]
    fn a_key_that_matters_must_stand_once_and_as_spelled() {
        let twice = Err(Malformed::AmbiguousKey);
        assert_eq!(model(r#"{"model":"a","model":"b"}"#), twice);
        assert_eq!(model(r#"{"model":"a","mod\u0065l":"b"}"#), twice);
        assert_eq!(model(r#"{"Model":"a"}"#), twice);
        assert!(folds_to(
            "max_to\u{212a}en\u{17f}".as_bytes(),
            b"max_tokens"
        ));
        assert_eq!(model(r#"{"n":1,"x":2,"x":3,"n":1}"#), twice);
    }

    // cases.md 43
    #[test]
    fn what_is_no_object_is_told_apart() {
        for (body, fault) in [
            ("", Malformed::Truncated),
            ("[]", Malformed::NotAnObject),
            ("\u{feff}{}", Malformed::NotAnObject),
            ("{", Malformed::Truncated),
            (r#"{"a":"\"#, Malformed::Truncated),
            (r#"{"a":1"#, Malformed::Truncated),
            (r#"{"a"}"#, Malformed::Syntax),
            (r#"{"a":}"#, Malformed::Syntax),
            (r#"{"a":1,}"#, Malformed::Syntax),
            (r#"{"a":1 2}"#, Malformed::Syntax),
            (r#"{"a":1"b":2}"#, Malformed::Syntax),
            ("{} {}", Malformed::Syntax),
            ("{}x", Malformed::Syntax),
            (r#"{"\x":1}"#, Malformed::Syntax),
        ] {
            assert_eq!(scan(&[body.as_bytes()]).err(), Some(fault), "{body}");
        }
    }

    #[test]
    fn any_chunking_finds_the_same() {
        let body = r#" {"a":[1,{"b":"\\"}],"mod\u0065l": "g\"pt" , "n":12,"z":"é}"} "#.as_bytes();
        let whole = scan(&[body]).unwrap();
        assert_eq!(whole.value(0).unwrap().raw, br#""g\"pt""#);
        assert_eq!(whole.value(1).unwrap().raw, b"12");
        for split in 0..=body.len() {
            let (head, tail) = body.split_at(split);
            let parts = scan(&[head, tail]).unwrap();
            assert_eq!(parts.fields, whole.fields, "split at {split}");
            assert_eq!(parts.closing_brace(), whole.closing_brace());
        }
        let bytes: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(scan(&bytes).unwrap().fields, whole.fields);
    }

    #[test]
    fn offsets_are_those_of_the_value() {
        let body = br#"{"x":"y", "model" : "gpt" }"#;
        let scanner = scan(&[body]).unwrap();
        let field = scanner.value(0).unwrap();
        let range =
            usize::try_from(field.start).unwrap()..usize::try_from(field.end.unwrap()).unwrap();
        assert_eq!(&body[range], br#""gpt""#);
        assert_eq!(scanner.closing_brace(), Some(26));
    }

    #[test]
    fn an_overlong_value_is_said_to_be_so_and_not_kept() {
        let body = format!(r#"{{"model":"{}","n":[1,2,3,4,5,6]}}"#, "x".repeat(64));
        let scanner = scan(&[body.as_bytes()]).unwrap();
        for index in [0, 1] {
            let field = scanner.value(index).unwrap();
            assert!(field.overlong && field.end.is_some());
            assert_eq!(field.raw.len(), KEYS[index].limit);
        }
    }

    #[test]
    fn a_key_in_an_object_is_found_in_any_of_its_spellings_and_in_no_other_place() {
        let max = |body: &str| {
            scan(&[body.as_bytes()]).map(|scanner| {
                let raw = scanner.value(2).map(|field| field.raw.clone());
                raw.map(|raw| String::from_utf8(raw).unwrap())
            })
        };
        let found = Ok(Some("5".to_owned()));
        assert_eq!(max(r#"{"config":{"a":{"max":1},"max":5}}"#), found);
        assert_eq!(max(r#"{"cfg" : { "most" : 5 } }"#), found);
        assert_eq!(
            max(r#"{"x":{"config":{"max":5}},"max":5,"config":[{"max":5}]}"#),
            Ok(None)
        );
        assert_eq!(max(r#"{"config":{},"x":{"max":5}}"#), Ok(None));
        assert_eq!(max(r#"{"config":null}"#), Ok(None));
        for twice in [
            r#"{"config":{"max":1},"cfg":{}}"#,
            r#"{"config":{"max":1,"most":2}}"#,
            r#"{"config":{"Max":1}}"#,
            r#"{"Config":{"x":1}}"#,
        ] {
            assert_eq!(max(twice), Err(Malformed::AmbiguousKey), "{twice}");
        }
        assert_eq!(max(r#"{"config":{"max":1"#), Err(Malformed::Truncated));
        assert_eq!(max(r#"{"config":{"max":1]}"#), Err(Malformed::Syntax));
    }

    #[test]
    fn marks_are_noticed_anywhere_in_their_value_and_never_in_a_text() {
        for (body, image, inline) in [
            (
                r#"{"messages":[{"content":[{"type":"image","x":{"inline":1}}]}]}"#,
                true,
                true,
            ),
            (
                r#"{"messages":[{"ty\u0070e" : "im\u0061ge"}]}"#,
                true,
                false,
            ),
            (
                r#"{"messages":[{"type":"text","text":"image"},"inline",{"a":"type","b":"image"}]}"#,
                false,
                false,
            ),
            (
                r#"{"messages":[{"type":{"a":"image"}},{"type":["image"]},{"type":"images"}]}"#,
                false,
                false,
            ),
            (
                r#"{"messages":["{\"type\":\"image\",\"inline\":1}"]}"#,
                false,
                false,
            ),
            (
                r#"{"tools":[{"type":"image","inline":1}],"messages":[]}"#,
                false,
                false,
            ),
            // SDKs and servers write keys of which there is nothing to say.
            (
                r#"{"messages":[{"inline" : null,"b":[{"inline":[ ]}]}]}"#,
                false,
                false,
            ),
            (r#"{"messages":[{"inline": [ {} ]}]}"#, false, true),
            (r#"{"messages":[{"inline":{}}]}"#, false, true),
            (r#"{"messages":[{"inline": "" }]}"#, false, true),
        ] {
            for split in 0..=body.len() {
                let (head, tail) = body.as_bytes().split_at(split);
                let scanner = scan(&[head, tail]).unwrap();
                let expected = u32::from(image) | u32::from(inline) << 1;
                assert_eq!(scanner.noticed(), expected, "{body} split at {split}");
            }
        }
    }

    #[test]
    fn nothing_depends_on_where_a_block_begins() {
        for (text, noticed) in [
            (r#"{"type":"image"}"#, 1),
            (r#"{"ty\u0070e" : "im\u0061ge"}"#, 1),
            (r#"{"type":"text","inline" : [ {"a":{}} ]}"#, 2),
            (r#"{"type":7,"image":"inline"}"#, 0),
            (
                r#"["\\","\"type\":\"image\"",{"inline":null},"[{\\\"","image"]"#,
                0,
            ),
        ] {
            for length in (0..130).step_by(3) {
                let pad = "x".repeat(length);
                let body = format!(
                    r#"{{"pad":"{pad}","messages":[{{"{pad}":"\\{pad}"}},{text},[]],"type":"image","inline":1,"model":"m"}}"#
                );
                for split in [0, body.len() - 60, body.len() - 40, body.len()] {
                    for size in [1, 63, 64, 200] {
                        let (head, tail) = body.as_bytes().split_at(split);
                        let chunks: Vec<&[u8]> = head.chunks(size).chain([tail]).collect();
                        let scanner = scan(&chunks).unwrap();
                        assert_eq!(scanner.noticed(), noticed, "{body}");
                        assert_eq!(scanner.value(0).unwrap().raw, br#""m""#, "{body}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_word_is_found_or_may_be_hidden() {
        let has = |json: &str| may_have(json.as_bytes(), &["model", "x.y"], |rest| rest != b":0}");
        for length in 0..130 {
            let pad = " ".repeat(length);
            assert!(has(&format!(r#"{{{pad}"model":1}}"#)));
            assert!(has(&format!(r#"{{{pad}"":"x.y"}}"#)));
            assert!(has(&format!(r#"{{{pad}"mod\u0065l":1}}"#)));
            assert!(!has(&format!(r#"{{{pad}"model":0}}"#)));
            assert!(!has(&format!(r#"{{{pad}"models":"x.\"model\"models"}}"#)));
            assert!(!has(&format!(r#"{{{pad}"model"#)));
        }
    }

    #[test]
    fn the_end_of_the_object_is_told() {
        let mut scanner = Scanner::new(SHAPE, Repeats::TakeLast);
        assert_eq!(scanner.feed_object(br#"{"n":"#), Ok(5));
        assert_eq!(scanner.feed_object(br#"{}} , {"n":1}"#), Ok(3));
        assert_eq!(scanner.feed_object(b"x"), Ok(0));
        assert!(scanner.closing_brace().is_some());
    }

    #[test]
    fn deep_nesting_costs_nothing() {
        let body = format!(
            r#"{{"x":{}{},"model":"m"}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert_eq!(model(&body), Ok(Some("m".to_owned())));
    }

    #[test]
    fn in_a_response_the_last_of_two_counts() {
        let mut scanner = Scanner::new(SHAPE, Repeats::TakeLast);
        scanner
            .feed(br#"{"model":"a","Model":"b","model":"c"}"#)
            .unwrap();
        assert_eq!(scanner.value(0).and_then(text), Some("c".to_owned()));
    }
}
