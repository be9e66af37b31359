//! A value that is not looked into: only its strings and the balance of its brackets are followed, and the marks that count
//! in it are noticed.
//!
//! It is read by whole blocks. Of a block only its colons are looked at one by one, and most of those follow a key that is
//! shorter or longer than any that matters. What such a key announces is mostly here, too; where it is not, or has escapes, it
//! is awaited byte by byte.

use super::block::{self, Block, Quoted, Strings, index};
use super::names::{Lengths, MAX_WORD, Word, bit};
use super::{Mark, Sign, is_space, unescape};

/// The key that names what an object is.
const TYPE: &str = "type";

/// Where the scanner is inside such a value.
#[derive(Clone, Debug)]
pub(super) struct Nested {
    /// What is noticed in some value of the body.
    signs: &'static [Mark],
    /// Lengths of the keys that matter for that, besides `type`.
    keys: Lengths,
    /// Lengths of the values of a `type`.
    types: Lengths,
    /// Open brackets.
    depth: u64,
    strings: Strings,
    /// Marks that count here, a bit each.
    marks: u64,
    /// The string that is being read, or was read last.
    word: Word,
    /// The value to come, or to be read on, is that of a `type`.
    is_type: bool,
    /// Flags of the key whose value is to come.
    key: u32,
    /// Flags of the marks that were noticed in the body.
    noticed: u32,
    /// Commas between the entries of the list that is being read, since they were taken.
    commas: u64,
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

impl Nested {
    /// For a new body.
    pub(super) fn new(signs: &'static [Mark]) -> Self {
        let (mut keys, mut types) = (Lengths::NONE, Lengths::NONE);
        for mark in signs {
            match mark.sign {
                Sign::Key(name) => keys = keys.with(name),
                Sign::Type(name) => types = types.with(name),
            }
        }
        Self {
            signs,
            keys,
            types,
            depth: 0,
            strings: Strings::default(),
            marks: 0,
            word: Word::default(),
            is_type: false,
            key: 0,
            noticed: 0,
            commas: 0,
        }
    }

    /// Makes it one for another body.
    pub(super) fn restart(&mut self) {
        (self.depth, self.marks, self.noticed) = (0, 0, 0);
    }

    /// The marks of this top-level key count in the value to come; `None`: none do.
    pub(super) fn heed(&mut self, name: Option<&[u8]>) {
        let under = |name: &[u8]| {
            let signs = self.signs.iter().enumerate();
            signs
                .filter(|(_, mark)| mark.under.as_bytes() == name)
                .fold(0, |bits, (index, _)| bits | bit(index))
        };
        self.marks = name.map_or(0, under);
    }

    /// The bracket was read with which it begins.
    pub(super) fn begin(&mut self) {
        self.depth = 1;
        self.strings = Strings::default();
        self.word.clear();
        (self.is_type, self.key, self.commas) = (false, 0, 0);
    }

    /// Whether it was read to its end.
    pub(super) fn is_over(&self) -> bool {
        self.depth == 0
    }

    /// The flags of all marks that were noticed.
    pub(super) fn noticed(&self) -> u32 {
        self.noticed
    }

    /// The commas that were counted since this was asked before.
    pub(super) fn take_commas(&mut self) -> u64 {
        std::mem::take(&mut self.commas)
    }

    /// Reads on, up to its end at the most: how many bytes that took. `counts`: its commas are of interest.
    pub(super) fn read(&mut self, rest: &[u8], counts: bool) -> usize {
        match rest.first() {
            _ if self.strings.is_inside => self.string(rest),
            Some(&byte) if self.key != 0 || self.is_type => self.expected(byte),
            _ => self.blocks(rest, counts),
        }
    }

    /// Reads on in a string whose text may matter.
    fn string(&mut self, rest: &[u8]) -> usize {
        let (taken, text) = self.strings.end(rest);
        if self.marks != 0 {
            self.word.push(text);
        }
        if !self.strings.is_inside && std::mem::take(&mut self.is_type) {
            let word = self.word.text().unwrap_or_default();
            self.noticed |= unescaped(word, |word| self.flags_of_type(word));
        }
        taken
    }

    /// A byte from the colon of a key that matters up to what its value begins with.
    fn expected(&mut self, byte: u8) -> usize {
        if self.key != 0 {
            self.notice_value(byte);
        }
        match byte {
            b'"' => {
                self.strings.is_inside = true;
                self.word.clear();
                return 1;
            }
            byte if is_space(&byte) => return 1,
            b'{' | b'[' => self.depth = self.depth.saturating_add(1),
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b',' if self.depth == 1 => self.commas = self.commas.saturating_add(1),
            _ => {}
        }
        self.is_type = false;
        1
    }

    /// Reads on from outside of a string, up to a key whose value is to be awaited or the end.
    fn blocks(&mut self, rest: &[u8], counts: bool) -> usize {
        let mut spare = [0; 64];
        let mut last = Text::default();
        let mut at = 0_usize;
        while at < rest.len() {
            let (block, length) = block::at(rest, at, &mut spare);
            let quoted = self.strings.read(block, length);
            let brackets = Brackets::of(block, quoted);
            let end = brackets.end(self.depth);
            let mut stop = end;
            if self.marks != 0 {
                let awaited = self.awaited(rest, at, (block, quoted, end), last);
                stop = awaited.or(end);
                last = last.after(at, quoted, stop);
            }
            if counts {
                self.count_commas(block, quoted, brackets, stop);
            }
            self.depth = match stop {
                Some(_) if stop == end => 0,
                _ => brackets.depth(self.depth, stop),
            };
            if let Some(stop) = stop {
                self.strings = Strings::default();
                at = at.saturating_add(index(stop)).saturating_add(1);
                break;
            }
            at = at.saturating_add(length);
            at = at.saturating_add(self.strings.text(rest.get(at..).unwrap_or_default()));
        }
        if let Some(text) = last.of(rest).filter(|_| self.marks != 0) {
            self.word.clear();
            self.word.push(text);
        }
        at
    }

    /// The first colon of a block, which begins at `at`, that follows a key that matters and whose value is to be awaited.
    fn awaited(
        &mut self,
        rest: &[u8],
        at: usize,
        (block, quoted, end): (&Block, Quoted, Option<u32>),
        last: Text,
    ) -> Option<u32> {
        let colons = block::equal(block, b':') & !quoted.inside & block::before(end);
        block::bits(colons).find(|&colon| {
            let matters = match quoted.plain_before(colon) {
                Some((start, end)) => {
                    let length = index(end.wrapping_sub(start));
                    let may_matter = length == TYPE.len() || self.keys.has(length);
                    let key = block.get(index(start)..index(end)).unwrap_or_default();
                    may_matter && self.notice_plain_key(key)
                }
                None => self.notice_key(last.after(at, quoted, Some(colon)).of(rest)),
            };
            let after = at.saturating_add(index(colon)).saturating_add(1);
            matters && !self.notice_at_once(rest.get(after..).unwrap_or_default())
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
        if !brackets.may_come_to(1, self.depth) {
            return;
        }
        let commas = block::equal(block, b',') & !quoted.inside & block::before(stop);
        for comma in block::bits(commas) {
            if brackets.depth(self.depth, Some(comma)) == 1 {
                self.commas = self.commas.saturating_add(1);
            }
        }
    }

    /// The string that was read last is a key, this one or else the one that was kept: whether its value matters.
    #[cold]
    fn notice_key(&mut self, key: Option<&[u8]>) -> bool {
        let word = std::mem::take(&mut self.word);
        let key = match key {
            None => word.text(),
            key => key.filter(|key| key.len() <= MAX_WORD),
        };
        let matters = key.is_some_and(|key| unescaped(key, |key| self.notice_plain_key(key)));
        self.word = word;
        matters
    }

    /// The same, of a key without escapes.
    fn notice_plain_key(&mut self, key: &[u8]) -> bool {
        self.is_type = key == TYPE.as_bytes();
        if !self.is_type && self.keys.has(key.len()) {
            let is_mark = |sign| matches!(sign, Sign::Key(name) if key == name.as_bytes());
            self.key = self.flags(is_mark);
        }
        self.is_type || self.key != 0
    }

    /// The value of the key that was noticed, if it is here: whether that is so.
    fn notice_at_once(&mut self, value: &[u8]) -> bool {
        let begin = value.iter().position(|byte| !is_space(byte));
        let value = begin.and_then(|begin| value.get(begin..));
        let Some((first, text)) = value.and_then(<[u8]>::split_first) else {
            return false;
        };
        match (self.is_type, first) {
            (false, _) => {
                self.notice_value(*first);
                self.key == 0
            }
            (true, b'"') => {
                let text = block::plain(text).and_then(|end| text.get(..end));
                if let Some(text) = text {
                    self.is_type = false;
                    self.noticed |= self.flags_of_type(text);
                }
                text.is_some()
            }
            (true, _) => false,
        }
    }

    /// The value of a key that may be noticed begins, or its list is read on, with this byte.
    fn notice_value(&mut self, byte: u8) {
        match byte {
            byte if is_space(&byte) || byte == b'[' => return,
            b'n' | b']' => {}
            _ => self.noticed |= self.key,
        }
        self.key = 0;
    }

    fn flags_of_type(&self, word: &[u8]) -> u32 {
        if !self.types.has(word.len()) {
            return 0;
        }
        self.flags(|sign| matches!(sign, Sign::Type(name) if word == name.as_bytes()))
    }

    /// The flags of those marks that count here and whose sign is so.
    fn flags(&self, is_so: impl Fn(Sign) -> bool) -> u32 {
        let here = self.signs.iter().enumerate();
        here.filter(|&(index, mark)| self.marks & bit(index) != 0 && is_so(mark.sign))
            .fold(0, |flags, (_, mark)| flags | mark.flags)
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

    /// Whether, of so many, as few as `least` may be left somewhere in the block.
    fn may_come_to(self, least: u64, depth: u64) -> bool {
        depth.saturating_sub(self.closing.count_ones().into()) <= least
    }

    /// The one that closes the outermost of so many.
    fn end(self, depth: u64) -> Option<u32> {
        if !self.may_come_to(0, depth) {
            return None;
        }
        let (mut closing, mut closed) = (self.closing, 0_u64);
        while closing != 0 {
            let bracket = closing & closing.wrapping_neg();
            let opened = (self.opening & bracket.wrapping_sub(1)).count_ones();
            closed = closed.wrapping_add(1);
            if depth.saturating_add(opened.into()) == closed {
                return Some(bracket.trailing_zeros());
            }
            closing ^= bracket;
        }
        None
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

/// Calls `look` with a text, unescaped; with nothing, if it is no text.
fn unescaped<T>(raw: &[u8], look: impl FnOnce(&[u8]) -> T) -> T {
    match raw.contains(&b'\\') {
        true => look(unescape(raw).unwrap_or_default().as_bytes()),
        false => look(raw),
    }
}
