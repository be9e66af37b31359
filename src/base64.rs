//! Base64 with the standard alphabet and padding (RFC 4648, section 4): how JSON carries bytes.

use memchr::memchr;

/// Each at the place of its value.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The bytes that `text` stands for; `None` if it is no base64.
///
/// Takes memory for three quarters of `text`, so its length is the caller's to bound. Bits of the last digit that
/// belong to no byte may be anything, as most decoders have it (section 3.5).
#[must_use]
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let without = |padding: &[u8]| text.strip_suffix(padding);
    let digits = without(b"==").or_else(|| without(b"=")).unwrap_or(text);
    let mut bytes = Vec::with_capacity((text.len() / 4).saturating_mul(3));
    for group in digits.chunks(4) {
        let mut bits = 0;
        for digit in group {
            bits = bits << 6 | u32::try_from(memchr(*digit, DIGITS)?).ok()?;
        }
        let (shift, count) = match group.len() {
            4 => (0, 3),
            3 => (6, 2),
            2 => (12, 1),
            _ => return None,
        };
        let [_, group @ ..] = (bits << shift).to_be_bytes();
        bytes.extend(group.iter().take(count));
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_vectors_of_rfc_4648_are_read() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(decode(text.as_bytes()).as_deref(), Some(bytes.as_bytes()));
        }
        let all: Vec<u8> = (0..=63).map(|sextet| sextet << 2).collect();
        for (digit, byte) in DIGITS.iter().zip(all) {
            assert_eq!(decode(&[*digit, b'A', b'=', b'=']), Some(vec![byte]));
        }
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for text in [
            "Z",
            "Zg",
            "Zg=",
            "Zm9",
            "=",
            "==",
            "====",
            "A===",
            "=Zm9",
            "Zm=v",
            "Zg==Zg==",
            "Zm9v\n",
            "Zm-_",
            "Zm 9",
            "Zm9\u{e9}",
        ] {
            assert_eq!(decode(text.as_bytes()), None, "{text:?}");
        }
    }
}
