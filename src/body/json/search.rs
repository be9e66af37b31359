//! Searching for words in a JSON text without parsing it.

use super::block::{self, index};

/// Whether a JSON text may contain one of these words as a whole string, key or value, literally or escaped. A literal word counts only if
/// `counts` accepts the bytes after it.
///
/// The search is fast, and works only for words of letters, dots and underscores: of all escapes only `\u` can stand for those.
#[must_use]
pub fn may_have(json: &[u8], words: &[&str], counts: impl Fn(&[u8]) -> bool) -> bool {
    let mut spare = [0; 64];
    let mut at = 0_usize;
    while at < json.len() {
        // The last block may overlap the one before: reading bytes twice does no harm.
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
