//! Which tier's price an answer has: a provider's own fallbacks and a gateway's routes may answer with another model than the one that was
//! sent.

use crate::tier::{Ladder, Price};

/// The price of the model that answered, if that is not the model that was sent and a ladder has it.
#[must_use]
pub fn price_of_answer<'a>(ladders: &'a [Ladder], sent: &str, answered: &str) -> Option<&'a Price> {
    if sent == answered || is_same(sent, answered) {
        return None;
    }
    let tiers = || ladders.iter().flat_map(|ladder| &ladder.tiers);
    let named = tiers().find(|tier| tier.model == *answered);
    let tier = named.or_else(|| tiers().find(|tier| is_same(&tier.model, answered)))?;
    tier.price.as_ref()
}

/// Whether the model that an answer names is the one that was sent, or a version of it.
fn is_same(sent: &str, answered: &str) -> bool {
    // Most answers need no more than this.
    is_version_of(answered, sent) || is_same_plain(sent, answered)
}

/// As [`is_same`]. The comparison ignores the prefixes that clouds add
/// to names (`us.anthropic.`, `openai/`) and versions (`-2024-11-20`, `@20250929`, `-v1:0`, `-latest`).
fn is_same_plain(sent: &str, answered: &str) -> bool {
    let (sent, answered) = (plain(sent), plain(answered));
    is_version_of(&sent, &answered) || is_version_of(&answered, &sent)
}

fn is_version_of(long: &str, short: &str) -> bool {
    let rest = long.strip_prefix(short);
    rest.is_some_and(|rest| rest.is_empty() || is_version(rest))
}

/// Whether this is a version such as `-2024-11-20`, `-0613` or `-002`, and not the `-5` of another generation.
fn is_version(rest: &str) -> bool {
    let Some(version) = rest.strip_prefix('-') else {
        return false;
    };
    let digits = version.bytes().take_while(u8::is_ascii_digit).count();
    digits >= 3
        && version
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'-')
}

fn plain(name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or_default();
    // A dot before a digit belongs to a version number, not to a vendor's prefix.
    let vendor = name.char_indices().filter(|&(at, c)| {
        let next = name.get(at.saturating_add(1)..);
        c == '.' && next.is_some_and(|next| next.starts_with(|c: char| c.is_ascii_alphabetic()))
    });
    let start = vendor.max().map_or(0, |(at, _)| at.saturating_add(1));
    let name = name.get(start..).unwrap_or_default();
    let name = name.to_ascii_lowercase().replace('@', "-");
    let name = name.strip_suffix("-latest").unwrap_or(&name);
    // A version in Amazon's form, `-v1:0`.
    let version = name.rsplit_once("-v").filter(|(_, version)| {
        version.contains(':')
            && version
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b':')
    });
    version.map_or(name, |(name, _)| name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_version_of_a_model_is_the_model() {
        for (sent, answered, expected) in [
            ("gpt-4o", "gpt-4o-2024-11-20", true),
            ("gpt-4o", "gpt-4o-mini-2024-07-18", false),
            ("gpt-4", "gpt-4-0613", true),
            ("gpt-4", "gpt-4.1", false),
            ("claude-sonnet-4", "claude-sonnet-4-5", false),
            (
                "claude-sonnet-4-5@20250929",
                "claude-sonnet-4-5-20250929",
                true,
            ),
            (
                "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
                "claude-sonnet-4-5-20250929",
                true,
            ),
            (
                "claude-3-5-sonnet-latest",
                "claude-3-5-sonnet-20241022",
                true,
            ),
            ("openai/gpt-4o", "gpt-4o", true),
            ("gemini-2.5-pro", "gemini-2.5-flash", false),
            ("gemini-2.0-flash", "gemini-2.0-flash-001", true),
            ("qwen2.5-coder", "qwen2.5-coder", true),
        ] {
            assert_eq!(is_same(sent, answered), expected, "{sent} {answered}");
        }
    }
}
