//! Short JSON texts that are complete: read and written by serde_json.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Formatter};

use super::Malformed;
use super::names::Folded;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The raw values of these keys of an object; for a key that occurs twice, the last value. `None` if the text is not a JSON object.
pub(crate) fn members<'a, const N: usize>(
    object: &'a [u8],
    keys: [&str; N],
) -> Option<[Option<&'a [u8]>; N]> {
    let mut found = [None; N];
    each_entry(object, &mut |name, value| {
        let mut slots = keys.iter().zip(found.iter_mut());
        if let Some((_, slot)) = slots.find(|(key, _)| **key == name) {
            *slot = Some(value.get().as_bytes());
        }
    })?;
    Some(found)
}

/// The value of this key of an object. The key must not occur twice or in other letter case: parsers differ on which one counts. `None` if
/// the text is not a JSON object.
pub(crate) fn only_member<'a>(
    object: &'a [u8],
    key: &str,
) -> Option<Result<Option<&'a [u8]>, Malformed>> {
    let (mut found, mut is_ambiguous) = (None, false);
    each_entry(object, &mut |name, value| {
        if *name == *key {
            is_ambiguous |= found.replace(value.get().as_bytes()).is_some();
        } else {
            let folded = Folded::of(name.as_bytes());
            is_ambiguous |=
                folded.is_some_and(|folded| folded.as_bytes().eq_ignore_ascii_case(key.as_bytes()));
        }
    })?;
    Some(match is_ambiguous {
        true => Err(Malformed::AmbiguousKey),
        false => Ok(found),
    })
}

/// The object with this entry added or replaced. Each key occurs once and in its order, and all other values are unchanged. `None` if the
/// text is not a JSON object.
pub(crate) fn with_entry(object: &[u8], key: &str, value: &str) -> Option<String> {
    let mut entries = BTreeMap::new();
    each_entry(object, &mut |name, value| {
        entries.insert(name.into_owned(), value);
    })?;
    entries.insert(
        key.to_owned(),
        serde_json::from_slice(value.as_bytes()).ok()?,
    );
    serde_json::to_string(&entries).ok()
}

/// The raw entries of a list. `None` if the text is no JSON list.
pub(crate) fn entries(list: &[u8]) -> Option<Vec<&[u8]>> {
    let entries: Vec<&RawValue> = serde_json::from_slice(list).ok()?;
    let texts = entries.into_iter().map(|entry| entry.get().as_bytes());
    Some(texts.collect())
}

/// The text of a JSON string; `None` for any other value.
pub(crate) fn string(text: &[u8]) -> Option<Cow<'_, str>> {
    match serde_json::from_slice(text) {
        Ok(plain) => Some(Cow::Borrowed(plain)),
        Err(_) => serde_json::from_slice(text).ok().map(Cow::Owned),
    }
}

/// Unescapes the bytes between a string's quotes.
pub(crate) fn unescape(raw: &[u8]) -> Option<String> {
    serde_json::from_slice(&[b"\"", raw, b"\""].concat()).ok()
}

/// A text as a JSON string.
#[must_use]
pub(crate) fn quoted(text: &str) -> String {
    // A text can always be written.
    serde_json::to_string(text).unwrap_or_default()
}

/// Calls `each` with every entry of an object. `None` if the text is no JSON object.
fn each_entry<'a>(
    object: &'a [u8],
    each: &mut dyn FnMut(Cow<'a, str>, &'a RawValue),
) -> Option<()> {
    let mut json = serde_json::Deserializer::from_slice(object);
    json.deserialize_map(Entries(each)).ok()?;
    json.end().ok()
}

struct Entries<'a, 'de>(&'a mut dyn FnMut(Cow<'de, str>, &'de RawValue));

impl<'de> Visitor<'de> for Entries<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key()? {
            (self.0)(name, map.next_value()?);
        }
        Ok(())
    }
}

/// A key, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::IgnoredAny;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Texts of which some are JSON and some are not.
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
            // By the grammar, half of a surrogate pair is a valid string, although it is not valid text.
            let is_json = serde_json::from_str::<IgnoredAny>(&object).is_ok();
            let read = members(object.as_bytes(), ["x"]).map(|[x]| x.unwrap());
            let expected = is_json.then(|| text.trim().as_bytes());
            assert_eq!(read, expected, "{text}");
            let list = format!("[{text},0]");
            let read = entries(list.as_bytes()).map(|entries| entries.len());
            assert_eq!(read, is_json.then_some(2), "{text}");
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
    fn what_lies_deep_takes_no_stack() {
        let depth = 1 << 20;
        let list = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(
            entries(list.as_bytes()).map(|entries| entries.len()),
            Some(1)
        );
        let object = format!("{}0{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        assert!(members(object.as_bytes(), ["a"]).is_some());
    }

    #[test]
    fn any_text_is_written_as_serde_json_writes_it() {
        let all: String = ('\0'..'\u{100}').chain(['\u{2028}', '🎉']).collect();
        assert_eq!(quoted(&all), serde_json::to_string(&all).unwrap());
    }
}
