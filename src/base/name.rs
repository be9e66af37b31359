//! Names of tenants, plans, tiers and models, which every request passes on: shared, and hashed once.

use crate::base::hash::stable;
use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::ops::Deref;
use std::rc::Rc;

/// A name, most of the time from the configuration. A clone shares it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    text: Rc<str>,
    /// Computed from the text.
    pub(crate) hash: u32,
}

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether both names have the same text; most of the time they share it.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.text, &other.text) || self == other
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        let mut hasher = NameHasher::default();
        text.hash(&mut hasher);
        let hash = hasher.finish();
        Self {
            text: text.into(),
            // The upper half of 64 bits fits into 32. It is mixed again, since otherwise a name's last bytes have no effect on it.
            hash: u32::try_from((hash ^ hash >> 32).wrapping_mul(SPREAD) >> 32).unwrap_or_default(),
        }
    }
}

impl From<String> for Name {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

/// The hash of the name's text, so that a map of names can be searched by a text.
impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        self
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl PartialEq<String> for Name {
    fn eq(&self, other: &String) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

/// Hashes names. Maps with this hasher have keys from the configuration alone, so that nobody can choose them to collide.
#[derive(Clone, Copy, Debug, Default)]
pub struct NameHasher(u64);

/// Makes hashers for names.
pub type NameHashing = BuildHasherDefault<NameHasher>;

/// The golden ratio's fraction: an odd number with evenly spread bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl NameHasher {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(SPREAD);
    }
}

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut last = [0; 8];
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        for word in words.iter().chain([&last]) {
            self.mix(u64::from_le_bytes(*word));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.mix(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.mix(number.into());
    }

    fn write_usize(&mut self, number: usize) {
        self.mix(u64::try_from(number).unwrap_or(u64::MAX));
    }

    fn finish(&self) -> u64 {
        // The table uses the lowest bits, but the product is best mixed in its highest.
        self.0.rotate_left(20)
    }
}

/// The hash of a limit's name. Stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitKey(pub u32);

impl LimitKey {
    /// [`LimitKey::of`] the name of a plan's `budget`: a constant, since each request needs this key many times.
    pub const BUDGET: Self = Self(0x4e1f_9304);

    /// The key of a plan's `bucket`.
    pub const BUCKET: Self = Self(0x2907_3946);

    /// The key of the limit of this name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let hash = stable(name);
        Self(u32::try_from(hash >> 32).unwrap_or_default())
    }
}

/// Whether the text is part of the name, whatever the case of its ASCII letters.
#[must_use]
pub fn has_part(name: &str, text: &str) -> bool {
    let mut parts = name.as_bytes().windows(text.len().max(1));
    text.is_empty() || parts.any(|part| part.eq_ignore_ascii_case(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_keys_that_are_written_down_are_those_of_their_names() {
        assert_eq!(LimitKey::BUDGET, LimitKey::of("budget"));
        assert_eq!(LimitKey::BUCKET, LimitKey::of("bucket"));
    }

    // A metric is looked up among those whose names have the same hash.
    #[test]
    fn names_that_differ_in_their_last_digits_differ_in_their_hashes() {
        const COUNT: usize = 20_000;
        for before in ["", "t", "tenant-", "customer-", "prod-eu-west-tenant-"] {
            let hashes = (0..COUNT).map(|index| Name::from(format!("{before}{index:07}")).hash);
            let different = hashes.collect::<HashSet<_>>().len();
            assert!(different > COUNT * 9 / 10, "{before}: {different}");
        }
    }
}
