//! What is looked for in a body: keys, whose values are kept, and patterns, which are only matched.

use super::names::{Lengths, MAX_NAME};

/// A key to look for.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its path from the top, one name for each object. A name may list several spellings, such as
    /// `maxOutputTokens|max_output_tokens`.
    pub path: &'static [&'static str],
    /// Longest value to keep, in bytes of the body.
    pub limit: usize,
    /// Whether the commas between the entries of a list are counted.
    pub counts_commas: bool,
    /// Lengths of the names in its path.
    lengths: Lengths,
}

impl Key {
    /// A key with this path and limit.
    #[must_use]
    pub const fn new(path: &'static [&'static str], limit: usize) -> Self {
        Self {
            path,
            limit,
            counts_commas: false,
            lengths: Lengths::NONE.with_path(path),
        }
    }

    /// The same key, with the commas of its list counted.
    #[must_use]
    pub const fn counting_commas(self) -> Self {
        Self {
            counts_commas: true,
            ..self
        }
    }
}

/// Something to match anywhere inside the value of a top-level key.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    /// The top-level key.
    pub under: &'static str,
    /// What to match in its value.
    pub kind: PatternKind,
    /// The bits that a match sets in [`Scanner::matched`](super::Scanner::matched).
    pub flags: u32,
}

/// What to match.
#[derive(Clone, Copy, Debug)]
pub enum PatternKind {
    /// An object with this key, whose value is neither `null` nor an empty list.
    Key(&'static str),
    /// An object whose `type` has this value.
    Type(&'static str),
    /// An object whose `role` has this value.
    Role(&'static str),
}

/// The lengths of what patterns look for, computed when bursar is compiled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sought {
    /// Of the top-level keys.
    pub(super) under: Lengths,
    /// Of the keys in their values.
    pub(super) keys: Lengths,
    /// Of the values of `type` and `role`.
    pub(super) types: Lengths,
    /// Whether any pattern looks for a role.
    pub(super) roles: bool,
}

impl Sought {
    const fn by(mut patterns: &[Pattern]) -> Self {
        let [mut under, mut keys, mut types] = [Lengths::NONE; 3];
        let mut roles = false;
        while let [pattern, after @ ..] = patterns {
            under = under.with(pattern.under);
            match pattern.kind {
                PatternKind::Key(name) => keys = keys.with(name),
                PatternKind::Type(name) => types = types.with(name),
                PatternKind::Role(name) => (types, roles) = (types.with(name), true),
            }
            patterns = after;
        }
        Self {
            under,
            keys,
            types,
            roles,
        }
    }
}

/// What to look for in a body.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Keys whose values are kept.
    pub keys: &'static [Key],
    /// Patterns that are matched.
    pub patterns: &'static [Pattern],
    /// Lengths of the names of keys and patterns.
    pub(super) lengths: Lengths,
    /// Lengths of what the patterns look for.
    pub(super) sought: Sought,
    /// For each length of a name: the keys with such a name in their paths, a bit each.
    by_length: [u64; MAX_NAME + 1],
}

impl Shape {
    /// At most 64 keys and 64 patterns.
    #[must_use]
    pub const fn new(keys: &'static [Key], patterns: &'static [Pattern]) -> Self {
        let mut lengths = Lengths::NONE;
        let mut by_length = [0; MAX_NAME + 1];
        let (mut rest, mut length) = (by_length.as_mut_slice(), 0_u32);
        while let Some((set, tail)) = rest.split_first_mut() {
            let (mut keys, mut place) = (keys, 1_u64);
            while let [key, after @ ..] = keys {
                if key.lengths.has_bit(length) {
                    *set |= place;
                }
                lengths = lengths.and(key.lengths);
                (keys, place) = (after, place << 1);
            }
            (rest, length) = (tail, length.saturating_add(1));
        }
        let sought = Sought::by(patterns);
        Self {
            keys,
            patterns,
            lengths: lengths.and(sought.under),
            sought,
            by_length,
        }
    }

    /// The keys with a name of this length in their paths, a bit each.
    pub(super) fn keys_of_length(&self, length: usize) -> u64 {
        self.by_length.get(length).copied().unwrap_or_default()
    }
}
