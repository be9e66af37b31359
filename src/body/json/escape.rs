//! Unescapes a short JSON string (RFC 8259, section 7) without allocating: a client chooses how many keys with escapes a body
//! has, and serde_json would allocate for each.

use super::names::MAX_WORD;

/// The unescaped text of a string of at most [`MAX_WORD`] bytes.
pub(super) struct Unescaped {
    bytes: [u8; MAX_WORD],
    length: usize,
}

impl Unescaped {
    /// Unescapes the bytes between a string's quotes; `None` if there are too many of them, or if they are not a JSON string.
    pub(super) fn of(raw: &[u8]) -> Option<Self> {
        let mut text = Self {
            bytes: [0; MAX_WORD],
            length: 0,
        };
        let mut rest = raw;
        while let Some((&byte, tail)) = rest.split_first() {
            rest = match byte {
                b'\\' => text.push_escaped(tail)?,
                b'"' | ..b' ' => return None,
                _ => text.push(&[byte]).map(|()| tail)?,
            };
        }
        // An escape cannot complete a truncated character: each escape gives whole characters.
        std::str::from_utf8(text.as_bytes()).is_ok().then_some(text)
    }

    /// The text's bytes, which are UTF-8.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// Appends the character of an escape, given the bytes after its backslash. Returns what follows the escape.
    fn push_escaped<'a>(&mut self, escape: &'a [u8]) -> Option<&'a [u8]> {
        let (kind, rest) = escape.split_first()?;
        let byte = match kind {
            b'"' | b'\\' | b'/' => *kind,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => return self.push_code_unit(rest),
            _ => return None,
        };
        self.push(&[byte]).map(|()| rest)
    }

    /// Appends the character of a `\u` escape, together with the second half of a surrogate pair.
    fn push_code_unit<'a>(&mut self, digits: &'a [u8]) -> Option<&'a [u8]> {
        let (unit, mut rest) = code_unit(digits)?;
        let mut other = None;
        if (0xd800..0xdc00).contains(&unit) {
            let (low, tail) = code_unit(rest.strip_prefix(b"\\u")?)?;
            (other, rest) = (Some(low), tail);
        }
        let units = [Some(unit), other].into_iter().flatten();
        for character in char::decode_utf16(units) {
            self.push(character.ok()?.encode_utf8(&mut [0; 4]).as_bytes())?;
        }
        Some(rest)
    }

    fn push(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.length.checked_add(bytes.len())?;
        self.bytes.get_mut(self.length..end)?.copy_from_slice(bytes);
        self.length = end;
        Some(())
    }
}

/// Parses four hexadecimal digits. Returns the number, and the bytes after them.
fn code_unit(digits: &[u8]) -> Option<(u16, &[u8])> {
    let (digits, rest) = digits.split_first_chunk::<4>()?;
    let number = digits.iter().try_fold(0, |number: u16, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        Some(number << 4 | u16::try_from(digit).ok()?)
    })?;
    Some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[track_caller]
    fn reads_as_serde_json_does(raw: &[u8]) {
        let quoted = [b"\"", raw, b"\""].concat();
        let expected = serde_json::from_slice::<String>(&quoted).ok();
        let text = Unescaped::of(raw).map(|text| text.as_bytes().to_vec());
        assert_eq!(
            text,
            expected.map(String::into_bytes),
            "{}",
            raw.escape_ascii()
        );
    }

    #[test]
    fn a_text_is_read_as_serde_json_reads_it() {
        let parts: [&[u8]; 21] = [
            b"a",
            b"\\n",
            b"\\\\",
            b"\\\"",
            b"\\",
            b"\"",
            b"\\u",
            b"\\u0065",
            b"\\u00E9",
            b"\\u00g0",
            b"\\ud83c",
            b"\\uDF89",
            b"\\udbff\\udfff",
            b"\\ud800\\n",
            b"\\x",
            b"\\/",
            b"\xc3",
            b"\xa9",
            b"\n",
            b"0041",
            b"\x7f",
        ];
        for one in parts {
            for two in parts {
                for three in parts {
                    reads_as_serde_json_does(&[one, two, three].concat());
                }
            }
        }
        for unit in 0..=u16::MAX {
            reads_as_serde_json_does(format!("\\u{unit:04x}").as_bytes());
        }
    }

    #[test]
    fn a_longer_text_is_none() {
        assert!(Unescaped::of(&[b'a'; MAX_WORD]).is_some());
        assert!(Unescaped::of(&[b'a'; MAX_WORD + 1]).is_none());
    }
}
