//! JSON's strings, 64 bytes at a time.
//!
//! A set of bytes in a block is a `u64` with a bit for each byte, the lowest bit for the first byte. So a few operations find all quotes of
//! a block, and where its strings are (as simdjson does, <https://arxiv.org/abs/1902.08318>).

mod lane;

use lane::Lane;

/// 64 bytes of a body.
pub(super) type Block = [u8; 64];

/// Whether a block begins inside a string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Strings {
    /// Whether the block begins inside a string.
    pub(super) is_inside: bool,
    /// Whether the block begins after a backslash that escapes its first byte; only inside a string.
    pub(super) is_escaped: bool,
}

/// The strings of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quoted {
    /// The quotes that begin or end a string.
    pub(super) quotes: u64,
    /// The bytes inside strings: the opening quote counts, the closing one does not.
    pub(super) inside: u64,
    /// The backslashes.
    backslashes: u64,
}

/// The block that begins at `at`, and how many bytes of it are real: the last block is padded with spaces.
pub(super) fn at<'a>(bytes: &'a [u8], at: usize, spare: &'a mut Block) -> (&'a Block, usize) {
    let rest = bytes.get(at..).unwrap_or_default();
    if let Some(block) = rest.first_chunk() {
        return (block, block.len());
    }
    spare.fill(b' ');
    if let Some(filled) = spare.get_mut(..rest.len()) {
        filled.copy_from_slice(rest);
    }
    (spare, rest.len())
}

/// The set of bytes equal to `byte`.
pub(super) fn equal(block: &Block, byte: u8) -> u64 {
    each(block, |lane| lane.equal(byte).bits())
}

/// Whether the block contains `byte`.
fn has(block: &Block, byte: u8) -> bool {
    let (lanes, _) = block.as_chunks();
    let found = lanes.iter().map(|lane| Lane::of(lane).equal(byte));
    found.reduce(Lane::or).is_some_and(Lane::any)
}

/// The set of bytes that equal `byte` once the bit 0x20 is set in both: a search for `{` finds `[` too.
pub(super) fn equal_folded(block: &Block, byte: u8) -> u64 {
    each(block, |lane| lane.or(Lane::splat(0x20)).equal(byte).bits())
}

/// The length of a short string up to its closing quote: `None` if the quote is not within 64 bytes, or if an escape or a non-ASCII byte
/// comes first.
pub(super) fn plain(text: &[u8]) -> Option<usize> {
    let is_special = |byte: u8| matches!(byte, b'"' | b'\\' | 0x80..);
    let (lanes, tail) = text.as_chunks();
    let special = |lane| Lane::of(lane).or(Lane::of(lane).either(b'"', b'\\')).bits();
    let mut lanes_read = lanes.iter().take(4).map(special).enumerate();
    let place = match lanes_read.find(|&(_, special)| special != 0) {
        Some((number, special)) => {
            let bit = index(special.trailing_zeros());
            number.saturating_mul(16).saturating_add(bit)
        }
        None if lanes.len() > 4 => return None,
        None => {
            let before = text.len().saturating_sub(tail.len());
            let place = tail.iter().position(|&byte| is_special(byte))?;
            before.saturating_add(place)
        }
    };
    (text.get(place) == Some(&b'"')).then_some(place)
}

/// The set of bytes directly before a `byte`; `next` is the first byte after the block.
pub(super) fn before_byte(block: &Block, byte: u8, next: Option<u8>) -> u64 {
    equal(block, byte) >> 1 | u64::from(next == Some(byte)) << 63
}

/// The set of bytes before this bit; all bytes for `None`.
pub(super) fn before(bit: Option<u32>) -> u64 {
    bit.map_or(u64::MAX, |bit| 1_u64.wrapping_shl(bit).wrapping_sub(1))
}

/// A bit's position in the block.
pub(super) fn index(bit: u32) -> usize {
    usize::try_from(bit).unwrap_or(usize::MAX)
}

/// The positions in a set, in ascending order.
pub(super) fn bits(mut set: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = set.trailing_zeros();
        set &= set.wrapping_sub(1);
        (bit < u64::BITS).then_some(bit)
    })
}

impl Quoted {
    /// Start and end of the last string before `byte`, without its quotes; `None` if a part of it is outside this block, or if it contains
    /// a backslash. `byte` must be outside of strings.
    pub(super) fn plain_before(self, byte: u32) -> Option<(u32, u32)> {
        let quotes = self.quotes & before(Some(byte));
        let end = quotes.checked_ilog2()?;
        let here = before(Some(end));
        let start = (quotes & here).checked_ilog2()?.wrapping_add(1);
        let is_plain = self.backslashes & here & !before(Some(start)) == 0;
        is_plain.then_some((start, end))
    }
}

impl Strings {
    /// Reads a block that is padded with spaces from `length` on.
    #[inline]
    pub(super) fn read(&mut self, block: &Block, length: usize) -> Quoted {
        let quotes = equal(block, b'"');
        let backslashes = equal(block, b'\\');
        let before = *self;
        let mut quotes_read = quotes;
        if backslashes != 0 || before.is_escaped {
            let (escaped, is_escaped) = escaped(backslashes, before.is_escaped);
            quotes_read = quotes & !escaped;
            self.is_escaped = match u32::try_from(length) {
                Ok(length) if length < u64::BITS => escaped.wrapping_shr(length) & 1 == 1,
                _ => is_escaped,
            };
        }
        let inside = before.inside(quotes_read);
        if backslashes & !inside != 0 {
            // Invalid JSON: outside of strings a backslash escapes nothing.
            return self.read_one_by_one(before, quotes, backslashes, length);
        }
        self.is_inside = inside >> 63 == 1;
        Quoted {
            quotes: quotes_read,
            inside,
            backslashes,
        }
    }

    /// Skips the whole blocks of a string, up to the block in which the string ends. Returns how many bytes were skipped.
    #[inline]
    pub(super) fn text(&mut self, bytes: &[u8]) -> usize {
        let (blocks, _) = bytes.as_chunks();
        let is_text = |block: &&Block| {
            // Without a quote the string continues, and only an escape at the very end of the block matters.
            if !has(block, b'"') && block.last() != Some(&b'\\') {
                self.is_escaped = false;
                return true;
            }
            let (escaped, is_escaped) = escaped(equal(block, b'\\'), self.is_escaped);
            let ends = equal(block, b'"') & !escaped != 0;
            if !ends {
                self.is_escaped = is_escaped;
            }
            !ends
        };
        match self.is_inside {
            true => blocks.iter().take_while(is_text).count().saturating_mul(64),
            false => 0,
        }
    }

    /// Reads to the end of a string, or of `rest`. Returns how many bytes were read, and those that are the string's text.
    pub(super) fn end<'a>(&mut self, rest: &'a [u8]) -> (usize, &'a [u8]) {
        // Most strings are short.
        let (near, far) = rest.split_at_checked(64).unwrap_or((rest, &[]));
        let end = self.end_near(near).or_else(|| {
            let skipped = (!far.is_empty()).then(|| self.text(far))?;
            let end = self.end_near(far.get(skipped..).unwrap_or_default())?;
            Some(near.len().saturating_add(skipped).saturating_add(end))
        });
        let Some(end) = end else {
            return (rest.len(), rest);
        };
        *self = Self::default();
        (end.saturating_add(1), rest.get(..end).unwrap_or_default())
    }

    /// Position of the quote that ends the string, if it is in `bytes`.
    fn end_near(&mut self, bytes: &[u8]) -> Option<usize> {
        let (lanes, tail) = bytes.as_chunks();
        for (number, lane) in lanes.iter().enumerate() {
            let is_escaped = std::mem::take(&mut self.is_escaped);
            let mut special = Lane::of(lane).either(b'"', b'\\').bits() & !u16::from(is_escaped);
            while special != 0 {
                let bit = special.trailing_zeros();
                let place = index(bit);
                if lane.get(place) == Some(&b'"') {
                    return Some(number.saturating_mul(16).saturating_add(place));
                }
                // The backslash, and the byte that it escapes.
                special &= !0b11_u16.wrapping_shl(bit);
                self.is_escaped = bit == 15;
            }
        }
        let ends = |&byte: &u8| {
            let is_escaped = std::mem::take(&mut self.is_escaped);
            self.is_escaped = byte == b'\\' && !is_escaped;
            byte == b'"' && !is_escaped
        };
        let before = bytes.len().saturating_sub(tail.len());
        let end = tail.iter().position(ends)?;
        Some(before.saturating_add(end))
    }

    /// As [`Strings::read`], byte by byte: for invalid JSON.
    #[cold]
    fn read_one_by_one(
        &mut self,
        before: Self,
        quotes: u64,
        backslashes: u64,
        length: usize,
    ) -> Quoted {
        *self = before;
        let mut quotes_read = 0;
        for bit in (0..u64::BITS).take(length) {
            let byte = 1_u64.wrapping_shl(bit);
            let is_escaped = std::mem::take(&mut self.is_escaped);
            if is_escaped {
                continue;
            }
            if quotes & byte != 0 {
                quotes_read |= byte;
                self.is_inside = !self.is_inside;
            } else {
                self.is_escaped = self.is_inside && backslashes & byte != 0;
            }
        }
        Quoted {
            quotes: quotes_read,
            inside: before.inside(quotes_read),
            backslashes,
        }
    }

    /// The set of bytes inside strings, given the quotes: each bit becomes the parity of the quotes up to that bit.
    fn inside(self, quotes: u64) -> u64 {
        let mut parity = quotes;
        for shift in [1, 2, 4, 8, 16, 32] {
            parity ^= parity << shift;
        }
        if self.is_inside { !parity } else { parity }
    }
}

/// The set of bytes that a backslash escapes, if all backslashes are inside strings; and whether the byte after the block is
/// escaped.
///
/// In a run of backslashes every second one is escaped. Runs that begin at an odd position are found by an addition, whose
/// carry runs to the end of the run.
fn escaped(backslashes: u64, is_first_escaped: bool) -> (u64, bool) {
    const EVEN: u64 = 0x5555_5555_5555_5555;
    let first = u64::from(is_first_escaped);
    let backslashes = backslashes & !first;
    let after = backslashes << 1 | first;
    let odd_starts = backslashes & !EVEN & !after;
    let (ends, carry) = odd_starts.overflowing_add(backslashes);
    ((EVEN ^ ends << 1) & after, carry)
}

/// The set that `find` returns, sixteen bytes at a time.
fn each(block: &Block, find: impl Fn(Lane) -> u16) -> u64 {
    let (lanes, _) = block.as_chunks();
    let lanes = lanes.iter().rev();
    lanes.fold(0, |set, lane| set << 16 | u64::from(find(Lane::of(lane))))
}

#[cfg(test)]
mod tests;
