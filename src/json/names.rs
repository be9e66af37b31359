//! Names that are looked for: how they are told from others, quickly.

/// Longest name that can be looked for, in bytes.
pub(crate) const MAX_NAME: usize = 32;

/// An escape makes six bytes of one.
pub(super) const MAX_WORD: usize = 6 * MAX_NAME;

/// A short text that is collected over chunks, as it stands in the body.
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

    /// The text; `None` if it is longer than anything that is looked for.
    pub(super) fn text(&self) -> Option<&[u8]> {
        Some(self.raw.as_slice()).filter(|_| !self.overlong)
    }
}

/// Lengths of names, a bit each: most of the texts that are no such name are of another length.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lengths(u64);

impl Lengths {
    pub(super) const NONE: Self = Self(0);
    pub(super) const ALL: Self = Self(u64::MAX);

    pub(super) fn of(name: &[u8]) -> Self {
        Self(bit(name.len()))
    }

    pub(super) fn with(self, name: &str) -> Self {
        Self(self.0 | bit(name.len()))
    }

    /// These and those of all spellings that stand in a path, as [`Key::path`](super::Key::path) has them.
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

    pub(super) fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether one of these is one of those.
    pub(super) fn overlap(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    pub(super) fn has(self, length: usize) -> bool {
        self.0 & bit(length) != 0
    }
}

/// The bit that stands for this number; none for a number beyond 63.
pub(super) fn bit(index: usize) -> u64 {
    u32::try_from(index).map_or(0, |index| 1_u64.checked_shl(index).unwrap_or(0))
}

/// How a key stands to one that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It is one of its spellings.
    Same,
    /// Some parser takes it for one of them.
    Similar,
    Other,
}

impl Known {
    /// `spelled`: all spellings, with `|` between them.
    pub(super) fn of(spelled: &str, name: &[u8]) -> Self {
        if spelled.as_bytes() == name {
            return Self::Same;
        }
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
pub(super) fn folds_to(name: &[u8], key: &[u8]) -> bool {
    if name.is_ascii() {
        return name.eq_ignore_ascii_case(key);
    }
    let folded = String::from_utf8_lossy(name)
        .chars()
        .map(|c| match c {
            '\u{212a}' => 'k',
            '\u{17f}' => 's',
            c => c,
        })
        .collect::<String>();
    folded.as_bytes().eq_ignore_ascii_case(key)
}
