//! The names of keys that are looked for, and quick ways to see that a name is none of them.

/// Longest name that can be looked for, in bytes.
pub(crate) const MAX_NAME: usize = 32;

/// Longest escaped form of such a name: an escape takes six bytes.
pub(super) const MAX_WORD: usize = 6 * MAX_NAME;

/// A short text that is collected over several chunks, escapes included.
#[derive(Clone, Debug, Default)]
pub(super) struct Word {
    raw: Vec<u8>,
    overlong: bool,
}

impl Word {
    pub(super) fn clear(&mut self) {
        self.raw.clear();
        self.overlong = false;
    }

    pub(super) fn push(&mut self, text: &[u8]) {
        if self.overlong || self.raw.len().saturating_add(text.len()) > MAX_WORD {
            self.overlong = true;
        } else {
            self.raw.extend_from_slice(text);
        }
    }

    /// The text; `None` if it is longer than every name and word that is looked for.
    pub(super) fn text(&self) -> Option<&[u8]> {
        Some(self.raw.as_slice()).filter(|_| !self.overlong)
    }
}

/// A set of lengths of names, a bit each: most other texts already differ in length.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lengths(u64);

impl Lengths {
    pub(super) const NONE: Self = Self(0);

    pub(super) const fn with(self, name: &str) -> Self {
        self.with_path(&[name])
    }

    /// Adds the lengths of all spellings in a path (see [`Key::path`](super::Key::path)).
    pub(super) const fn with_path(self, path: &[&str]) -> Self {
        let Self(mut lengths) = self;
        let mut names = path;
        while let [name, rest @ ..] = names {
            let (mut bytes, mut length) = (name.as_bytes(), 0_u32);
            while let [byte, after @ ..] = bytes {
                if *byte == b'|' {
                    lengths |= 1_u64.wrapping_shl(length);
                    length = 0;
                } else {
                    length = length.wrapping_add(1);
                }
                bytes = after;
            }
            lengths |= 1_u64.wrapping_shl(length);
            names = rest;
        }
        Self(lengths)
    }

    pub(super) const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    pub(super) const fn has_bit(self, length: u32) -> bool {
        self.0 >> length & 1 == 1
    }

    pub(super) fn has(self, length: usize) -> bool {
        self.0 & bit(length) != 0
    }
}

/// The bit for this number; 0 for numbers beyond 63.
pub(super) fn bit(index: usize) -> u64 {
    u32::try_from(index).map_or(0, |index| 1_u64.checked_shl(index).unwrap_or(0))
}

/// How a key in the body compares to a key that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameMatch {
    /// The key equals one of the spellings.
    Same,
    /// Some parsers would accept the key as one of the spellings.
    Similar,
    Other,
}

impl NameMatch {
    /// `spelled`: all spellings, separated by `|`. `folded`: what the name folds to (see [`Folded`]), or the name itself.
    pub(super) fn of(spelled: &str, name: &[u8], folded: &[u8]) -> Self {
        // Most keys have one spelling, and most names differ from it in the first letter.
        if spelled.len() == name.len() && spelled.as_bytes() == name {
            return Self::Same;
        }
        if spelled.len() <= folded.len() {
            return match folds_to(folded, spelled.as_bytes()) {
                true => Self::Similar,
                false => Self::Other,
            };
        }
        let mut known = Self::Other;
        for spelling in spellings(spelled.as_bytes()) {
            if spelling == name {
                return Self::Same;
            }
            if folds_to(folded, spelling) {
                known = Self::Similar;
            }
        }
        known
    }
}

/// The parts of a text between `|`.
fn spellings(all: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(all);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let Some(end) = memchr::memchr(b'|', text) else {
            return Some(text);
        };
        rest = text.get(end.saturating_add(1)..);
        text.get(..end)
    })
}

/// Whether a name equals a spelling, ignoring the case of ASCII letters.
fn folds_to(folded: &[u8], spelling: &[u8]) -> bool {
    let first = |text: &[u8]| text.first().map(u8::to_ascii_lowercase);
    folded.len() == spelling.len()
        && first(folded) == first(spelling)
        && folded.eq_ignore_ascii_case(spelling)
}

/// A name with non-ASCII characters, as the laxest parser reads it: ignoring case by Unicode's rules, as Go's parser does. Nothing is
/// allocated: a client chooses how many such names a body has.
pub(super) struct Folded {
    bytes: [u8; MAX_NAME],
    length: usize,
}

impl Folded {
    /// The folded name; `None` if the name cannot match any name that is looked for: those are all ASCII and no longer than [`MAX_NAME`].
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        let mut folded = Self {
            bytes: [0; MAX_NAME],
            length: 0,
        };
        let mut rest = name;
        while let Some((&byte, tail)) = rest.split_first() {
            let (byte, tail) = match (byte, tail) {
                (..0x80, _) => (byte, tail),
                // Only the Kelvin sign and the long s fold to ASCII.
                (0xe2, [0x84, 0xaa, tail @ ..]) => (b'k', tail),
                (0xc5, [0xbf, tail @ ..]) => (b's', tail),
                _ => return None,
            };
            *folded.bytes.get_mut(folded.length)? = byte;
            folded.length = folded.length.saturating_add(1);
            rest = tail;
        }
        Some(folded)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}
