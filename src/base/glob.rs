//! Globs: patterns of models, hosts and paths, in which `*` stands for any text. The case of ASCII letters does not matter: hosts ignore it, and
//! so do some servers with models (Ollama's names, Azure's deployments).

/// The models that a name stands for: LiteLLM's proxy calls several at once if they are separated by commas
/// (<https://github.com/BerriAI/litellm>, `route_llm_request.py`, read 2026-11-30).
pub fn models(name: &str) -> impl Iterator<Item = &str> {
    name.split(',').map(str::trim)
}

/// Whether `glob` matches all of `text`. Time is bounded by the product of their lengths.
#[must_use]
pub fn matches(glob: &str, text: &str) -> bool {
    // Comparing bytes suffices: in UTF-8 a match of bytes is a match of characters.
    let mut parts = glob.as_bytes().split(|&byte| byte == b'*');
    let (head, mut text) = (parts.next().unwrap_or_default(), text.as_bytes());
    let Some(tail) = parts.next_back() else {
        return head.eq_ignore_ascii_case(text);
    };
    match text.split_at_checked(head.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(head) => text = rest,
        _ => return false,
    }
    for part in parts.filter(|part| !part.is_empty()) {
        let is_here = |here: &[u8]| here.eq_ignore_ascii_case(part);
        let Some(at) = text.windows(part.len()).position(is_here) else {
            return false;
        };
        text = text
            .get(at.saturating_add(part.len())..)
            .unwrap_or_default();
    }
    let end = text.len().checked_sub(tail.len());
    end.and_then(|end| text.get(end..))
        .is_some_and(|end| end.eq_ignore_ascii_case(tail))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_glob_matches_the_whole_name() {
        for (glob, text, expected) in [
            ("gpt-4o", "gpt-4o", true),
            ("gpt-4o", "gpt-4o-mini", false),
            ("*", "", true),
            ("gpt-*-mini", "gpt-4o-mini", true),
            ("gpt-*-mini", "gpt-mini", false),
            ("*4o*", "gpt-4o-mini", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*a", "a", false),
            ("Gpt-4o", "gPT-4o", true),
            ("gpt-*-Vision-*-MINI", "GPT-4o-vision-2-mini", true),
            ("gpt-*", "GP", false),
        ] {
            assert_eq!(matches(glob, text), expected, "{glob} {text}");
        }
    }
}
