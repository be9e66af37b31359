//! Base64 with the standard alphabet and padding (RFC 4648, section 4): how JSON carries bytes.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The unused bits of the last digit may have any value, as in most decoders (section 3.5).
const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// The bytes that `text` encodes; `None` if it is not base64.
///
/// The result takes three quarters of the length of `text`, so the caller has to bound that length.
#[must_use]
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    ENGINE.decode(text).ok()
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
        for (digit, byte) in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
            .iter()
            .zip(all)
        {
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
