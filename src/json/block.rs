//! JSON's strings, 64 bytes at a time.
//!
//! A set of a block's bytes is a number with a bit for each of them, the first byte's the lowest. So a few operations find
//! all quotes of a block, and where its strings are (the way of simdjson, <https://arxiv.org/abs/1902.08318>). In
//! WebAssembly sixteen bytes are compared at once; elsewhere eight, with the same results.

/// A block of a body.
pub(super) type Block = [u8; 64];

/// Where in a body's strings a block begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Strings {
    /// In a string.
    pub(super) is_inside: bool,
    /// Behind a backslash that escapes the next byte: only in a string.
    pub(super) is_escaped: bool,
}

/// The strings of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quoted {
    /// The quotes that begin or end a string.
    pub(super) quotes: u64,
    /// The bytes of strings, with the quote that begins one and without the one that ends it.
    pub(super) inside: u64,
    /// The backslashes.
    backslashes: u64,
}

/// The block that begins at `at`, and its length: the last one is filled up with spaces, which mean nothing anywhere.
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

/// The bytes that are this one.
pub(super) fn equal(block: &Block, byte: u8) -> u64 {
    each(block, |lane| lane.equal(byte).bits())
}

/// Whether there is this byte.
fn has(block: &Block, byte: u8) -> bool {
    let (lanes, _) = block.as_chunks();
    let found = lanes.iter().map(|lane| Lane::of(lane).equal(byte));
    found.reduce(Lane::or).is_some_and(Lane::any)
}

/// The bytes that are this one or differ from it in the bit 0x20 alone, which must be set in it: so `{` finds `[`, too.
pub(super) fn equal_folded(block: &Block, byte: u8) -> u64 {
    each(block, |lane| lane.or(Lane::splat(0x20)).equal(byte).bits())
}

/// Where a short text ends, up to its quote: `None` if that is not near, or an escape or something that is not ASCII stands
/// before it.
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

/// The bytes that this one follows; `next` is the byte after the block.
pub(super) fn before_byte(block: &Block, byte: u8, next: Option<u8>) -> u64 {
    equal(block, byte) >> 1 | u64::from(next == Some(byte)) << 63
}

/// The bytes before this one; without one, all of them.
pub(super) fn before(bit: Option<u32>) -> u64 {
    bit.map_or(u64::MAX, |bit| 1_u64.wrapping_shl(bit).wrapping_sub(1))
}

/// A bit's place in a block.
pub(super) fn index(bit: u32) -> usize {
    usize::try_from(bit).unwrap_or(usize::MAX)
}

/// The bits of a set, from the first byte's on.
pub(super) fn bits(mut set: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = set.trailing_zeros();
        set &= set.wrapping_sub(1);
        (bit < u64::BITS).then_some(bit)
    })
}

impl Quoted {
    /// Where the text of the last string before this byte begins and ends, which stands outside of strings; `None` if that is
    /// not in this block as a whole, or has a backslash.
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
    /// Reads a block that is filled up with spaces from `length` on.
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
            // No JSON: outside of strings a backslash escapes nothing.
            return self.read_one_by_one(before, quotes, backslashes, length);
        }
        self.is_inside = inside >> 63 == 1;
        Quoted {
            quotes: quotes_read,
            inside,
            backslashes,
        }
    }

    /// Reads on in a string by whole blocks, up to the one in which it ends: how many bytes that took.
    #[inline]
    pub(super) fn text(&mut self, bytes: &[u8]) -> usize {
        let (blocks, _) = bytes.as_chunks();
        let is_text = |block: &&Block| {
            // Without a quote it goes on, and what is escaped in it is of no matter but for the next byte.
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

    /// Goes to the end of a string: how many bytes that took, and those of them that are its text. It may not be here yet.
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

    /// The quote that ends the string, if it is among the next bytes.
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
                // The backslash, and what it escapes.
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

    /// The same, by the rule itself.
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

    /// The bytes inside of strings, with these quotes. Each bit becomes the parity of the quotes up to it.
    fn inside(self, quotes: u64) -> u64 {
        let mut parity = quotes;
        for shift in [1, 2, 4, 8, 16, 32] {
            parity ^= parity << shift;
        }
        if self.is_inside { !parity } else { parity }
    }
}

/// The bytes that a backslash escapes, if all of them are in strings; and whether the byte after the block is such a one.
///
/// In a row of backslashes every second one is escaped. A row that begins at an odd place is found by an addition: its
/// carry runs to the row's end.
fn escaped(backslashes: u64, is_first_escaped: bool) -> (u64, bool) {
    const EVEN: u64 = 0x5555_5555_5555_5555;
    let first = u64::from(is_first_escaped);
    let backslashes = backslashes & !first;
    let after = backslashes << 1 | first;
    let odd_starts = backslashes & !EVEN & !after;
    let (ends, carry) = odd_starts.overflowing_add(backslashes);
    ((EVEN ^ ends << 1) & after, carry)
}

/// The set that `find` tells, sixteen bytes at a time.
fn each(block: &Block, find: impl Fn(Lane) -> u16) -> u64 {
    let (lanes, _) = block.as_chunks();
    let lanes = lanes.iter().rev();
    lanes.fold(0, |set, lane| set << 16 | u64::from(find(Lane::of(lane))))
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use simd::Lane;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
use words::Lane;

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd {
    use core::arch::wasm32::{
        i8x16_bitmask, i8x16_eq, u8x16_splat, u64x2, v128, v128_any_true, v128_or,
    };

    #[derive(Clone, Copy)]
    pub(super) struct Lane(v128);

    impl Lane {
        /// The compiler makes one load of it.
        pub(super) fn of(bytes: &[u8; 16]) -> Self {
            let (words, _) = bytes.as_chunks();
            let [low, high] = [words.first(), words.last()]
                .map(|word| u64::from_le_bytes(word.copied().unwrap_or_default()));
            Self(u64x2(low, high))
        }

        pub(super) fn splat(byte: u8) -> Self {
            Self(u8x16_splat(byte))
        }

        /// The top bit of each byte that is this one.
        pub(super) fn equal(self, byte: u8) -> Self {
            Self(i8x16_eq(self.0, u8x16_splat(byte)))
        }

        /// The top bit of each byte that is one of these.
        pub(super) fn either(self, one: u8, other: u8) -> Self {
            self.equal(one).or(self.equal(other))
        }

        /// The bytes whose top bit is set.
        pub(super) fn bits(self) -> u16 {
            i8x16_bitmask(self.0)
        }

        pub(super) fn or(self, other: Self) -> Self {
            Self(v128_or(self.0, other.0))
        }

        pub(super) fn any(self) -> bool {
            v128_any_true(self.0)
        }
    }
}

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod words {
    #[derive(Clone, Copy)]
    pub(super) struct Lane(u64, u64);

    const EACH: u64 = 0x0101_0101_0101_0101;
    const SEVEN_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;

    impl Lane {
        pub(super) fn of(bytes: &[u8; 16]) -> Self {
            let (words, _) = bytes.as_chunks();
            let [low, high] = [words.first(), words.last()]
                .map(|word| u64::from_le_bytes(word.copied().unwrap_or_default()));
            Self(low, high)
        }

        pub(super) fn splat(byte: u8) -> Self {
            let word = EACH.wrapping_mul(u64::from(byte));
            Self(word, word)
        }

        /// The top bit of each byte that is this one.
        pub(super) fn equal(self, byte: u8) -> Self {
            Self(equal(self.0, byte), equal(self.1, byte))
        }

        /// The top bit of each byte that is one of these.
        pub(super) fn either(self, one: u8, other: u8) -> Self {
            self.equal(one).or(self.equal(other))
        }

        /// The bytes whose top bit is set.
        pub(super) fn bits(self) -> u16 {
            // The product brings the bits together in its top byte, each to a place of its own.
            let together = |word: u64| (word >> 7 & EACH).wrapping_mul(0x0102_0408_1020_4080);
            let [[.., low], [.., high]] = [self.0, self.1].map(|word| together(word).to_le_bytes());
            u16::from_le_bytes([low, high])
        }

        pub(super) fn or(self, other: Self) -> Self {
            Self(self.0 | other.0, self.1 | other.1)
        }

        pub(super) fn any(self) -> bool {
            self.0 | self.1 != 0
        }
    }

    /// The top bit of each byte of the word that is this one.
    fn equal(word: u64, byte: u8) -> u64 {
        let other = word ^ EACH.wrapping_mul(u64::from(byte));
        // No sum crosses over to the next byte.
        !((other & SEVEN_BITS).wrapping_add(SEVEN_BITS) | other | SEVEN_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Bytes of a small alphabet, the same each time.
    fn blocks(alphabet: &[u8]) -> impl Iterator<Item = Block> {
        let mut state = 1_u64;
        std::iter::repeat_with(move || {
            std::array::from_fn(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                alphabet[usize::try_from(state >> 33).unwrap() % alphabet.len()]
            })
        })
    }

    fn set(block: &Block, is_in: impl Fn(u8) -> bool) -> u64 {
        (0..64).fold(0, |set, at| set | u64::from(is_in(block[at])) << at)
    }

    #[test]
    fn bytes_are_found_whatever_stands_beside_them() {
        let all: Vec<u8> = (0..=255).collect();
        for alphabet in [
            &all[..],
            b"{[\"\\}]",
            b"\x5a\x5b\x5c\xdb\x7b",
            &[0, 1, 0x80, 0x81, 0xff],
        ] {
            for block in blocks(alphabet).take(200) {
                for byte in [0, 1, b'"', b'{', 0x80, 0xff] {
                    assert_eq!(equal(&block, byte), set(&block, |other| other == byte));
                }
                assert_eq!(
                    equal_folded(&block, b'{'),
                    set(&block, |other| other == b'{' || other == b'[')
                );
            }
        }
    }

    #[test]
    fn strings_are_found_as_byte_by_byte() {
        for alphabet in [&b"\"\\x"[..], b"\\\\\\\\\\\"", b"\"xxxxxxxxxxxxxxxx", b"\\"] {
            let mut fast = Strings::default();
            for (number, block) in blocks(alphabet).take(500).enumerate() {
                let length = if number % 3 == 0 { number % 65 } else { 64 };
                let mut filled = [b' '; 64];
                filled[..length].copy_from_slice(&block[..length]);
                let mut slow = fast;
                let quotes = equal(&filled, b'"');
                let backslashes = equal(&filled, b'\\');
                let expected = slow.read_one_by_one(fast, quotes, backslashes, length);
                let read = fast.read(&filled, length);
                assert_eq!(
                    (read.quotes, read.inside),
                    (expected.quotes, expected.inside)
                );
                assert_eq!(fast, slow);
            }
        }
    }

    #[test]
    fn a_string_ends_where_it_does_byte_by_byte() {
        for alphabet in [
            &b"\\\"xxxxxxxxxxxxxxxxxxxxxx"[..],
            b"\\\\\\\"x",
            b"\\x",
            b"x",
        ] {
            for (number, block) in blocks(alphabet).take(500).enumerate() {
                let text = [[b'x'; 64].as_slice(), &[b'\\'; 63], &block, &block].concat();
                let text = &text[number % 150..];
                let mut is_escaped = false;
                let end = text.iter().position(|&byte| {
                    let is_read = !std::mem::take(&mut is_escaped);
                    is_escaped = is_read && byte == b'\\';
                    is_read && byte == b'"'
                });
                for split in [0, 1, 15, 16, 17, 63, 64, 65, text.len()] {
                    let mut strings = Strings {
                        is_inside: true,
                        is_escaped: false,
                    };
                    let (head, tail) = text.split_at(split.min(text.len()));
                    let (mut taken, _) = strings.end(head);
                    if strings.is_inside {
                        taken += strings.end(tail).0;
                    }
                    assert_eq!(strings.is_inside, end.is_none());
                    assert_eq!(strings.is_escaped, is_escaped);
                    assert_eq!(taken, end.map_or(text.len(), |end| end + 1));
                }
            }
        }
    }

    #[test]
    fn a_plain_text_ends_at_its_quote() {
        for length in 0..64 {
            let text = "x".repeat(length);
            for (rest, is_plain) in [("\"", true), ("\\\"", false), ("é\"", false), ("", false)] {
                for behind in ["", "x", "\"yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\""] {
                    let all = format!("{text}{rest}{behind}");
                    let found = plain(all.as_bytes());
                    let is_ended = is_plain || rest.is_empty() && behind.starts_with('"');
                    assert_eq!(found, is_ended.then_some(length), "{all}");
                }
            }
        }
        assert_eq!(plain(format!("{}\"", "x".repeat(80)).as_bytes()), None);
    }

    #[test]
    fn the_bits_of_a_set_come_in_their_order() {
        assert_eq!(bits(0).next(), None);
        assert_eq!(bits(1 << 63 | 5).collect::<Vec<_>>(), [0, 2, 63]);
        assert_eq!(before(Some(0)), 0);
        assert_eq!(before(Some(63)), u64::MAX >> 1);
    }
}
