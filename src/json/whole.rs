//! JSON texts that are here as a whole, and short: read by the letter of RFC 8259, and written.

use std::borrow::Cow;

/// Objects and lists that may lie in one another.
const DEPTH: u8 = 127;

/// The values of these keys of an object, as they stand in it; of a key that stands twice, the last one. `None` if the text
/// is no JSON object.
pub(crate) fn members<'a, const N: usize>(
    object: &'a [u8],
    keys: [&str; N],
) -> Option<[Option<&'a [u8]>; N]> {
    let mut found = [None; N];
    find(object, &keys, &mut found)?;
    Some(found)
}

fn find<'a>(object: &'a [u8], keys: &[&str], found: &mut [Option<&'a [u8]>]) -> Option<()> {
    let note = &mut |name: &[u8], value| {
        let mut slots = keys.iter().zip(found.iter_mut());
        if let Some((_, slot)) = slots.find(|(key, _)| key.as_bytes() == name) {
            *slot = Some(value);
        }
    };
    read(object, |rest| rest.object(DEPTH, note))
}

/// An object with this entry, in the order of its keys, each once and its value as it stands there. `None` if the text is no
/// JSON object.
pub(crate) fn with_entry<'a>(object: &'a [u8], key: &str, value: &'a str) -> Option<String> {
    let mut entries: Vec<(Vec<u8>, &[u8])> = Vec::new();
    let mut put = |name: &[u8], value: &'a [u8]| match entries
        .binary_search_by(|(other, _)| other.as_slice().cmp(name))
    {
        Ok(at) => entries
            .get_mut(at)
            .into_iter()
            .for_each(|entry| entry.1 = value),
        Err(at) => entries.insert(at, (name.to_vec(), value)),
    };
    read(object, |rest| rest.object(DEPTH, &mut put))?;
    put(key.as_bytes(), value.as_bytes());
    let mut json = String::from("{");
    for (name, value) in &entries {
        let comma = if json.len() > 1 { "," } else { "" };
        let name = quoted(std::str::from_utf8(name).ok()?);
        json.extend([comma, &name, ":", std::str::from_utf8(value).ok()?]);
    }
    json.push('}');
    Some(json)
}

/// The entries of a list, as they stand in it. `None` if the text is no JSON list.
pub(crate) fn entries(list: &[u8]) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    read(list, |rest| {
        rest.list(DEPTH, &mut |value| found.push(value))
    })?;
    Some(found)
}

/// What a string says; `None` for any other text.
pub(crate) fn string(text: &[u8]) -> Option<Cow<'_, str>> {
    let raw = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    match raw.iter().any(is_special) {
        true => unescape(raw).map(Cow::Owned),
        false => std::str::from_utf8(raw).ok().map(Cow::Borrowed),
    }
}

/// What stands between a string's quotes, without its escapes.
pub(crate) fn unescape(raw: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(raw.len());
    let mut rest = Rest(raw);
    loop {
        let plain = rest.plain();
        text.push_str(std::str::from_utf8(plain).ok()?);
        match rest.next() {
            None => return Some(text),
            Some(b'\\') => text.push(rest.escape()?),
            Some(_) => return None,
        }
    }
}

/// A text as a JSON string.
#[must_use]
pub(crate) fn quoted(text: &str) -> String {
    let mut json = String::with_capacity(text.len().saturating_add(2));
    json.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            ..' ' => json.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => json.push(c),
        }
    }
    json.push('"');
    json
}

/// Reads a text that is nothing but what `what` reads.
fn read<'a>(text: &'a [u8], what: impl FnOnce(&mut Rest<'a>) -> Option<()>) -> Option<()> {
    std::str::from_utf8(text).ok()?;
    let mut rest = Rest(text);
    rest.space();
    what(&mut rest)?;
    rest.space();
    rest.0.is_empty().then_some(())
}

/// What is left of a text.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    /// Whether this byte comes next: then it is read.
    fn has(&mut self, byte: u8) -> bool {
        let rest = self.0.strip_prefix(&[byte]);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        self.has(byte).then_some(())
    }

    fn space(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    /// What was read since `start`.
    fn since(&self, start: &'a [u8]) -> &'a [u8] {
        let length = start.len().saturating_sub(self.0.len());
        start.get(..length).unwrap_or_default()
    }

    fn value(&mut self, depth: u8) -> Option<&'a [u8]> {
        let start = self.0;
        match start.first()? {
            b'"' => self.string().map(|_| ()),
            b'{' => self.object(depth, &mut |_, _| ()),
            b'[' => self.list(depth, &mut |_| ()),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => self.number(),
        }?;
        Some(self.since(start))
    }

    /// Shows each of an object's entries to `each`: its name, without escapes, and its value.
    fn object(&mut self, depth: u8, each: &mut dyn FnMut(&[u8], &'a [u8])) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        self.eat(b'{')?;
        self.space();
        if self.has(b'}') {
            return Some(());
        }
        loop {
            let (name, is_plain) = self.string()?;
            self.space();
            self.eat(b':')?;
            self.space();
            let value = self.value(depth)?;
            match is_plain {
                true => each(name, value),
                false => each(unescape(name)?.as_bytes(), value),
            }
            self.space();
            match self.next()? {
                b',' => self.space(),
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    /// Shows each of a list's entries to `each`.
    fn list(&mut self, depth: u8, each: &mut dyn FnMut(&'a [u8])) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        self.eat(b'[')?;
        self.space();
        if self.has(b']') {
            return Some(());
        }
        loop {
            each(self.value(depth)?);
            self.space();
            match self.next()? {
                b',' => self.space(),
                b']' => return Some(()),
                _ => return None,
            }
        }
    }

    /// What stands between a string's quotes, and whether that is what it says.
    fn string(&mut self) -> Option<(&'a [u8], bool)> {
        self.eat(b'"')?;
        let start = self.0;
        let mut is_plain = true;
        loop {
            self.plain();
            let raw = self.since(start);
            match self.next()? {
                b'"' => return Some((raw, is_plain)),
                b'\\' => {
                    is_plain = false;
                    self.escape()?;
                }
                _ => return None,
            }
        }
    }

    /// The bytes up to the next one that is special in a string.
    fn plain(&mut self) -> &'a [u8] {
        let start = self.0;
        let length = start.iter().position(is_special).unwrap_or(start.len());
        self.0 = start.get(length..).unwrap_or_default();
        self.since(start)
    }

    /// What comes after a backslash.
    fn escape(&mut self) -> Option<char> {
        Some(match self.next()? {
            byte @ (b'"' | b'\\' | b'/') => byte.into(),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.code()?;
                match char::from_u32(first) {
                    Some(c) => c,
                    None => self.after_surrogate(first)?,
                }
            }
            _ => return None,
        })
    }

    /// The character of which `high` was the first half: only the two together mean something.
    fn after_surrogate(&mut self, high: u32) -> Option<char> {
        self.eat(b'\\')?;
        self.eat(b'u')?;
        let low = self.code()?;
        char::decode_utf16([u16::try_from(high).ok()?, u16::try_from(low).ok()?])
            .next()?
            .ok()
    }

    fn code(&mut self) -> Option<u32> {
        (0..4).try_fold(0_u32, |code, _| {
            let digit = char::from(self.next()?).to_digit(16)?;
            Some(code << 4 | digit)
        })
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(word)?;
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        self.has(b'-');
        match self.next()? {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        if self.has(b'.') {
            self.some_digits()?;
        }
        if self.has(b'e') || self.has(b'E') {
            let _is_signed = self.has(b'+') || self.has(b'-');
            self.some_digits()?;
        }
        Some(())
    }

    fn some_digits(&mut self) -> Option<()> {
        let start = self.0;
        self.digits();
        (self.0.len() < start.len()).then_some(())
    }

    fn digits(&mut self) {
        let other = self.0.iter().position(|byte| !byte.is_ascii_digit());
        let length = other.unwrap_or(self.0.len());
        self.0 = self.0.get(length..).unwrap_or_default();
    }
}

/// A byte that ends a string, escapes, or must not stand in one.
fn is_special(byte: &u8) -> bool {
    matches!(byte, b'"' | b'\\' | ..b' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Texts that are JSON, and such as are not.
    const TEXTS: &[&str] = &[
        "0",
        "-0",
        "-",
        "01",
        "-01",
        "1.",
        ".1",
        "1.50",
        "1e",
        "1e+",
        "1E+07",
        "1.5e-3",
        "+1",
        "0x1",
        "1 2",
        "true",
        "tru",
        "truex",
        "nul",
        "NaN",
        "\"\"",
        "\"",
        "\"\\\"",
        "\"\\\\\"",
        "\"a\nb\"",
        "\"\u{7f}é🎉\"",
        r#""\b\f\n\r\t\/\"\\""#,
        r#""\x""#,
        r#""\u00e9\uD83C\udf89""#,
        r#""\ud83c""#,
        r#""\ud83c\u0041""#,
        r#""\udf89\ud83c""#,
        r#""\u12g4""#,
        r#""\u12""#,
        "[]",
        "[ 1 , [ ] , { } ]",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[",
        "[1",
        "{}",
        "{ \"a\" : 1 , \"b\" : [ 2 ] }",
        "{\"a\":1,}",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "{\"a\":1",
        "{\"a\":1]",
        "\u{a0}1",
        "é",
        "",
        " ",
    ];

    #[test]
    fn what_is_json_is_read_and_nothing_else() {
        for text in TEXTS {
            let object = format!(" {{\"x\":{text}}} ");
            let expected = serde_json::from_str::<Value>(&object).ok();
            let read = members(object.as_bytes(), ["x"]).map(|[x]| {
                let x = x.unwrap();
                serde_json::from_slice::<Value>(x).unwrap()
            });
            assert_eq!(read, expected.map(|object| object["x"].clone()), "{text}");
            let list = format!("[{text},0]");
            let expected = serde_json::from_str::<Vec<Value>>(&list).ok();
            let read = entries(list.as_bytes()).map(|entries| entries.len());
            assert_eq!(read, expected.map(|list| list.len()), "{text}");
            let expected = serde_json::from_str::<String>(text).ok();
            assert_eq!(string(text.as_bytes()).as_deref(), expected.as_deref());
        }
        assert_eq!(members(b"{\"x\":\"\xff\"}", ["x"]), None);
        assert_eq!(string(b"\"\xff\""), None);
        assert_eq!(string(b"\"\\n\xff\""), None);
    }

    #[test]
    fn a_key_is_known_however_it_is_escaped_and_its_last_value_counts() {
        let object = br#"{"a":1,"b":{"a":2},"\u0061":[3],"c":"\"a\":4"}"#;
        let expected: [Option<&[u8]>; 3] = [Some(b"[3]"), Some(b"{\"a\":2}"), None];
        assert_eq!(members(object, ["a", "b", "d"]), Some(expected));
        for other in ["[]", "1", "{} {}"] {
            assert_eq!(members(other.as_bytes(), ["a"]), None, "{other}");
        }
    }

    #[test]
    fn an_entry_takes_the_place_of_its_like_and_other_values_stay_as_they_are() {
        for (object, expected) in [
            ("{}", r#"{"b":0}"#),
            (r#" {"\u0062" : 1,"b":2} "#, r#"{"b":0}"#),
            (
                r#"{"c": 1E9 ,"b":2,"\u0061\"":[ 1 ],"c":"x"}"#,
                r#"{"a\"":[ 1 ],"b":0,"c":"x"}"#,
            ),
        ] {
            assert_eq!(
                with_entry(object.as_bytes(), "b", "0").as_deref(),
                Some(expected)
            );
        }
        assert_eq!(with_entry(b"[]", "b", "0"), None);
    }

    #[test]
    fn what_lies_too_deep_is_not_read() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for depth in [126, 127, 128, 100_000] {
            let expected = serde_json::from_str::<Value>(&nested(depth)).is_ok();
            assert_eq!(expected, depth < 128);
            let read = entries(nested(depth).as_bytes()).is_some();
            assert_eq!(read, expected, "{depth}");
            let object = format!("{}0{}", "{\"a\":".repeat(depth), "}".repeat(depth));
            let read = members(object.as_bytes(), ["a"]).is_some();
            assert_eq!(read, expected, "{depth}");
        }
    }

    #[test]
    fn any_text_is_written_as_serde_json_writes_it() {
        let all: String = ('\0'..'\u{100}').chain(['\u{2028}', '🎉']).collect();
        assert_eq!(quoted(&all), serde_json::to_string(&all).unwrap());
    }
}
