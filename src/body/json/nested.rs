//! A value that is skipped: only its strings and the balance of its brackets are followed, and patterns are matched in it.
//!
//! Such a value is read in blocks of 64 bytes. Only the colons of a block are visited one by one, and most of them follow a key whose
//! length no pattern has. The value after a key that matters is mostly in the same chunk. If it is not, or if the key or the value has
//! escapes, the scanner reads byte by byte up to the value.

use super::block::{self, Block, Quoted, Strings, index};
use super::escape::Unescaped;
use super::names::{MAX_WORD, Word, bit};
use super::shape::{Shape, Sought};
use super::{Pattern, PatternKind, is_space};

/// The key that names an object's type.
const TYPE: &str = "type";
/// The key that names a message's author: as long as `type`.
const ROLE: &str = "role";

/// The state inside a skipped value.
#[derive(Clone, Debug)]
pub(super) struct Nested {
    /// All patterns of the body's shape.
    patterns: &'static [Pattern],
    /// Lengths of what they look for.
    sought: Sought,
    /// Open brackets.
    depth: u64,
    strings: Strings,
    /// The patterns to match under the current top-level key, a bit each.
    active: u64,
    /// The string that is being read, or was read last.
    word: Word,
    /// Whether the next value, or the one being read, belongs to a `type`, or to a `role` where patterns look for roles.
    is_type: bool,
    /// Whether that is a `role`.
    is_role: bool,
    /// Flags of the key whose value comes next.
    key: u32,
    /// Flags of the patterns that were matched in the body.
    matched: u32,
    /// Commas between the entries of the list that is being read, since [`Nested::take_commas`].
    commas: u64,
}

/// The brackets of a block outside of strings.
#[derive(Clone, Copy, Debug)]
struct Brackets {
    opening: u64,
    closing: u64,
}

/// The position of the last string in a chunk.
#[derive(Clone, Copy, Debug, Default)]
struct Text {
    /// The byte after its opening quote; `None` if that was in an earlier chunk.
    start: Option<usize>,
    /// Its closing quote, if that was read.
    end: Option<usize>,
}

impl Nested {
    /// For a new body.
    pub(super) fn new(shape: &Shape) -> Self {
        Self {
            patterns: shape.patterns,
            sought: shape.sought,
            depth: 0,
            strings: Strings::default(),
            active: 0,
            word: Word::default(),
            is_type: false,
            is_role: false,
            key: 0,
            matched: 0,
            commas: 0,
        }
    }

    /// Resets the state for another body.
    pub(super) fn restart(&mut self) {
        (self.depth, self.active, self.matched) = (0, 0, 0);
    }

    /// Matches the patterns of this top-level key in the next value; without a key, matches none.
    pub(super) fn activate(&mut self, name: Option<&[u8]>) {
        self.active = name.map_or(0, |name| self.patterns_under(name));
    }

    fn patterns_under(&self, name: &[u8]) -> u64 {
        if !self.sought.under.has(name.len()) {
            return 0;
        }
        let (mut patterns, mut last) = (0, ("", false));
        for (index, pattern) in self.patterns.iter().enumerate() {
            // Patterns under one key follow each other.
            if !std::ptr::eq(pattern.under, last.0) {
                last = (pattern.under, pattern.under.as_bytes() == name);
            }
            patterns |= if last.1 { bit(index) } else { 0 };
        }
        patterns
    }

    /// The value's opening bracket was read.
    pub(super) fn begin(&mut self) {
        self.depth = 1;
        self.strings = Strings::default();
        self.word.clear();
        (self.is_type, self.key, self.commas) = (false, 0, 0);
    }

    /// Whether the value's closing bracket was read.
    pub(super) fn is_over(&self) -> bool {
        self.depth == 0
    }

    /// The flags of all patterns that were matched.
    pub(super) fn matched(&self) -> u32 {
        self.matched
    }

    /// The commas that were counted since the last call.
    pub(super) fn take_commas(&mut self) -> u64 {
        std::mem::take(&mut self.commas)
    }

    /// Reads on, at most to the value's end. Returns how many bytes were read. `counts`: commas are counted.
    pub(super) fn read(&mut self, rest: &[u8], counts: bool) -> usize {
        match rest.first() {
            _ if self.strings.is_inside => self.string(rest),
            Some(&byte) if self.key != 0 || self.is_type => self.expected(byte),
            _ => self.blocks(rest, counts),
        }
    }

    /// Continues a string whose text may matter.
    fn string(&mut self, rest: &[u8]) -> usize {
        let (taken, text) = self.strings.end(rest);
        if self.active != 0 {
            self.word.push(text);
        }
        if !self.strings.is_inside && std::mem::take(&mut self.is_type) {
            let word = self.word.text().unwrap_or_default();
            self.matched |= unescaped(word, |word| self.flags_of_type(word));
        }
        taken
    }

    /// Reads one byte between the colon of a key that matters and the start of its value.
    fn expected(&mut self, byte: u8) -> usize {
        if self.key != 0 {
            self.match_value(byte);
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

    /// Reads on from outside of a string, up to a key whose value has to be waited for, or to the end.
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
            if self.active != 0 {
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
        if let Some(text) = last.of(rest).filter(|_| self.active != 0) {
            self.word.clear();
            self.word.push(text);
        }
        at
    }

    /// The first colon in the block at `at` that follows a key that matters and whose value has to be waited for.
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
                    let may_matter = length == TYPE.len() || self.sought.keys.has(length);
                    let key = block.get(index(start)..index(end)).unwrap_or_default();
                    may_matter && self.match_plain_key(key)
                }
                None => self.match_key(last.after(at, quoted, Some(colon)).of(rest)),
            };
            let after = at.saturating_add(index(colon)).saturating_add(1);
            matters && !self.match_at_once(rest.get(after..).unwrap_or_default())
        })
    }

    /// Counts the block's commas that separate entries of the list that is being read.
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

    /// The last string is a key: `key`, or the text in `self.word`. Returns whether its value matters.
    #[cold]
    fn match_key(&mut self, key: Option<&[u8]>) -> bool {
        let word = std::mem::take(&mut self.word);
        let key = match key {
            None => word.text(),
            key => key.filter(|key| key.len() <= MAX_WORD),
        };
        let matters = key.is_some_and(|key| unescaped(key, |key| self.match_plain_key(key)));
        self.word = word;
        matters
    }

    /// Matches a key without escapes. Returns whether its value matters.
    fn match_plain_key(&mut self, key: &[u8]) -> bool {
        self.is_role = self.sought.roles && key == ROLE.as_bytes();
        self.is_type = self.is_role || key == TYPE.as_bytes();
        if !self.is_type && self.sought.keys.has(key.len()) {
            let is_it = |kind| matches!(kind, PatternKind::Key(name) if key == name.as_bytes());
            self.key = self.flags(is_it);
        }
        self.is_type || self.key != 0
    }

    /// Reads the value of the matched key, if that value is in this chunk. Returns whether it was.
    fn match_at_once(&mut self, value: &[u8]) -> bool {
        let begin = value.iter().position(|byte| !is_space(byte));
        let value = begin.and_then(|begin| value.get(begin..));
        let Some((first, text)) = value.and_then(<[u8]>::split_first) else {
            return false;
        };
        match (self.is_type, first) {
            (false, _) => {
                self.match_value(*first);
                self.key == 0
            }
            (true, b'"') => {
                let text = block::plain(text).and_then(|end| text.get(..end));
                if let Some(text) = text {
                    self.is_type = false;
                    self.matched |= self.flags_of_type(text);
                }
                text.is_some()
            }
            (true, _) => false,
        }
    }

    /// The value of a key in a pattern, or the next entry of its list, begins with this byte.
    fn match_value(&mut self, byte: u8) {
        match byte {
            byte if is_space(&byte) || byte == b'[' => return,
            b'n' | b']' => {}
            _ => self.matched |= self.key,
        }
        self.key = 0;
    }

    fn flags_of_type(&self, word: &[u8]) -> u32 {
        if !self.sought.types.has(word.len()) {
            return 0;
        }
        let is_it = |kind| match kind {
            PatternKind::Type(name) => !self.is_role && word == name.as_bytes(),
            PatternKind::Role(name) => self.is_role && word == name.as_bytes(),
            PatternKind::Key(_) => false,
        };
        self.flags(is_it)
    }

    /// The flags of the active patterns whose kind meets `is_so`.
    fn flags(&self, is_so: impl Fn(PatternKind) -> bool) -> u32 {
        let here = self.patterns.iter().enumerate();
        here.filter(|&(index, pattern)| self.active & bit(index) != 0 && is_so(pattern.kind))
            .fold(0, |flags, (_, pattern)| flags | pattern.flags)
    }
}

impl Brackets {
    fn of(block: &Block, quoted: Quoted) -> Self {
        Self {
            opening: block::equal_folded(block, b'{') & !quoted.inside,
            closing: block::equal_folded(block, b'}') & !quoted.inside,
        }
    }

    /// How many brackets are open before this byte, or after the block; `depth` is their number at its start.
    fn depth(self, depth: u64, byte: Option<u32>) -> u64 {
        let count = |set: u64| u64::from((set & block::before(byte)).count_ones());
        depth
            .saturating_add(count(self.opening))
            .saturating_sub(count(self.closing))
    }

    /// Whether the depth may fall to `least` somewhere in the block.
    fn may_come_to(self, least: u64, depth: u64) -> bool {
        depth.saturating_sub(self.closing.count_ones().into()) <= least
    }

    /// The bracket that closes the outermost of `depth` open ones.
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
    /// The last string before `bit` of the block at `at`, where `self` is the last string before the block.
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

    /// The value's bytes in this chunk; `None` if the value began in an earlier chunk.
    fn of(self, rest: &[u8]) -> Option<&[u8]> {
        rest.get(self.start?..self.end.unwrap_or(rest.len()))
    }
}

/// Calls `look` with the unescaped text, or with an empty text if the escapes are invalid.
fn unescaped<T>(raw: &[u8], look: impl FnOnce(&[u8]) -> T) -> T {
    match raw.contains(&b'\\') {
        true => {
            let text = Unescaped::of(raw);
            look(text.as_ref().map_or(b"", Unescaped::as_bytes))
        }
        false => look(raw),
    }
}
