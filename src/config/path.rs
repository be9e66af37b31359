//! Where in a JSON text an error was found, in the words that stand there: `plans.gold.budget`, `tiers[1].price`.
//!
//! serde tells line and column of an error, not whose value it is about. To note the way down for each value as it is read
//! would cost every good configuration time and its readers twice their code; so the way is found again, for the one that is wrong.

use std::borrow::Cow;

/// What is open around a place.
enum Open<'a> {
    /// An object, and its key there, once it was read.
    Object(Option<Cow<'a, str>>),
    /// An array, and the index there, once its first value began.
    Array(Option<usize>),
}

/// The path of what was read last before this place: a value, or a key, or all of an object that was closed. Lines are counted
/// from 1, columns in bytes; empty for the text as a whole.
pub(super) fn path_at(text: &[u8], line: usize, column: usize) -> String {
    let before = text.split_inclusive(|&byte| byte == b'\n');
    let start: usize = before.take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    let mut rest = text
        .get(..start.saturating_add(column))
        .unwrap_or(text)
        .iter();
    let mut open: Vec<Open<'_>> = Vec::new();
    let mut expects_key = false;
    while let Some(byte) = rest.next() {
        if let (false, Some(Open::Array(index))) = (b" \t\r\n],".contains(byte), open.last_mut()) {
            *index = index.or(Some(0));
        }
        match byte {
            b'"' => {
                let string = string(&mut rest);
                if let (true, Some(Open::Object(key))) = (expects_key, open.last_mut()) {
                    *key = string;
                }
            }
            b'{' => open.push(Open::Object(None)),
            b'[' => open.push(Open::Array(None)),
            b'}' | b']' => {
                open.pop();
            }
            b',' => match open.last_mut() {
                Some(Open::Object(key)) => *key = None,
                Some(Open::Array(index)) => *index = index.map(|index| index.saturating_add(1)),
                None => {}
            },
            _ => {}
        }
        match byte {
            b'{' | b',' => expects_key = true,
            b'"' | b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => expects_key = false,
        }
    }
    open.iter().fold(String::new(), |path, open| match open {
        Open::Object(None) | Open::Array(None) => path,
        Open::Object(Some(key)) if path.is_empty() => path + key,
        Open::Object(Some(key)) => path + "." + key,
        Open::Array(Some(index)) => format!("{path}[{index}]"),
    })
}

/// Reads on behind the end of a string: what is between its quotes, escapes as they are; `None` if it does not end.
fn string<'a>(rest: &mut std::slice::Iter<'a, u8>) -> Option<Cow<'a, str>> {
    let text = rest.as_slice();
    let mut is_escaped = false;
    let length = rest.position(|&byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })?;
    text.get(..length).map(String::from_utf8_lossy)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[track_caller]
    fn at(before: &str, path: &str) {
        let lines = before.split('\n').count();
        let column = before.len() - before.rfind('\n').map_or(0, |end| end + 1);
        let text = before.to_owned() + " \"and\": [more, {";
        assert_eq!(path_at(text.as_bytes(), lines, column), path, "{before}");
    }

    #[test]
    fn the_path_is_that_of_what_was_read_last() {
        at("", "");
        at("{", "");
        at(r#"{"a""#, "a");
        at("{\"a\" :\n1", "a");
        at(r#"{"a": "x\"}\\""#, "a");
        at(r#"{"a": 1,"#, "");
        at(r#"{"a": 1, "b": {"c": [{}, {"d": 1}"#, "b.c[1]");
        at(r#"{"a": 1, "b": {"c": [{}, {"d": "e"#, "b.c[1].d");
        at(r#"{"a": [[1, 2], [3, {"x": 4, "y""#, "a[1][1].y");
        at(r#"{"a": {"b": 1}"#, "a");
        at(r#"{"a": ["#, "a");
        at(r#"{"a": [ t"#, "a[0]");
        at("{\n\"a\": {\n\"b\": tru", "a.b");
        at(r#"{"a": {"b": 1}}"#, "");
        // Not JSON, but no panic either.
        at(r#"}]{,"x"]"#, "");
    }
}
