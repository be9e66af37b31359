//! A streaming scanner for one JSON object: finds the values of a few top-level keys, in any chunking.
//!
//! It keeps only what it looks for, so its memory is bounded by the sum of the keys' limits, whatever the
//! body's size or depth. At the top level the grammar (RFC 8259) is held to, but for the
//! spelling of literals; inside nested values only strings and the balance of brackets are followed. On a valid body this gives what any parser gives. A
//! body that is invalid in a nested value is left to the upstream to refuse.

use memchr::memchr2;

/// A top-level key to look for.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As it is spelled once unescaped.
    pub name: &'static str,
    /// Longest value to keep, in bytes as they stand in the body.
    pub limit: usize,
}

/// A top-level value that was looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// Offset of its first byte in the body.
    pub start: u64,
    /// Offset after its last byte; `None` while it is not complete.
    pub end: Option<u64>,
    /// Its bytes, unless it is overlong.
    pub raw: Vec<u8>,
    /// Whether it is longer than its key's limit.
    pub overlong: bool,
}

/// Why a body is not what was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It does not start with `{`.
    NotAnObject,
    /// Its top level is not JSON, or something follows the object.
    Syntax,
    /// A key that matters stands twice, or in other letter case: parsers differ on which one counts.
    AmbiguousKey,
    /// It ends before the object does.
    Truncated,
}

/// What to do about keys that stand twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// For requests: refuse, since the upstream may read the other one.
    Refuse,
    /// For responses: the last one counts.
    TakeLast,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    FirstKey,
    Key,
    InKey,
    Colon,
    Value,
    InString,
    InNested,
    InLiteral,
    AfterValue,
    Done,
}

/// The scanner's state between two chunks.
#[derive(Clone, Debug)]
pub struct Scanner {
    keys: &'static [Key],
    repeats: Repeats,
    state: State,
    /// Bytes seen so far.
    offset: u64,
    /// The byte before was a backslash that escapes the next one.
    escaped: bool,
    /// Inside a string of a nested value.
    nested_string: bool,
    /// Open brackets of a nested value.
    depth: u64,
    /// The current key as it stands in the body, if it may be one of `keys`.
    key: Vec<u8>,
    key_overlong: bool,
    /// Index of the value that is being read, if it is looked for.
    current: Option<usize>,
    fields: Vec<Option<Field>>,
    end: Option<u64>,
}

/// No key that is looked for is longer than 26 bytes, and an escape makes six bytes of one.
const MAX_KEY: usize = 6 * 26;

impl Scanner {
    /// A scanner for a new body.
    #[must_use]
    pub fn new(keys: &'static [Key], repeats: Repeats) -> Self {
        Self {
            keys,
            repeats,
            state: State::Start,
            offset: 0,
            escaped: false,
            nested_string: false,
            depth: 0,
            key: Vec::new(),
            key_overlong: false,
            current: None,
            fields: vec![None; keys.len()],
            end: None,
        }
    }

    /// Reads on.
    ///
    /// # Errors
    /// What is wrong with the body. The scanner must not be fed after that.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), Malformed> {
        let mut rest = chunk;
        while let Some(&byte) = rest.first() {
            let taken = self.step(byte, rest)?;
            let (seen, tail) = rest.split_at_checked(taken).unwrap_or((rest, &[]));
            self.keep(seen);
            self.offset = self
                .offset
                .saturating_add(u64::try_from(seen.len()).unwrap_or(u64::MAX));
            self.close_value();
            rest = tail;
        }
        Ok(())
    }

    /// The value of the `index`-th key, once it is complete.
    #[must_use]
    pub fn value(&self, index: usize) -> Option<&Field> {
        self.fields
            .get(index)?
            .as_ref()
            .filter(|field| field.end.is_some())
    }

    /// Where the value begins that is being read, if it is looked for and not overlong.
    #[must_use]
    pub fn open_since(&self) -> Option<u64> {
        let field = self.fields.get(self.current?)?.as_ref()?;
        (field.end.is_none() && !field.overlong).then_some(field.start)
    }

    /// Offset of the object's closing brace, once it was seen.
    #[must_use]
    pub fn closing_brace(&self) -> Option<u64> {
        self.end
    }

    /// Bytes seen so far.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes one step at `byte`, the first of `rest`: how many bytes it used up (none if the byte ends a literal).
    fn step(&mut self, byte: u8, rest: &[u8]) -> Result<usize, Malformed> {
        let space = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        match (self.state, byte) {
            (State::InKey, _) => return self.in_key(rest),
            (State::InString, _) => return Ok(self.in_string(rest)),
            (State::InNested, _) => return Ok(self.in_nested(rest)),
            (State::InLiteral, _) => return self.in_literal(rest),
            _ if space => {}
            (State::Start, b'{') => self.state = State::FirstKey,
            (State::Start, _) => return Err(Malformed::NotAnObject),
            (State::FirstKey | State::Key, b'"') => self.open_key(),
            (State::FirstKey | State::AfterValue, b'}') => {
                self.end = Some(self.offset);
                self.state = State::Done;
            }
            (State::Colon, b':') => self.state = State::Value,
            (State::AfterValue, b',') => self.state = State::Key,
            (State::Value, _) => self.open_value(byte)?,
            _ => return Err(Malformed::Syntax),
        }
        Ok(1)
    }

    fn open_key(&mut self) {
        self.state = State::InKey;
        self.key.clear();
        self.key_overlong = false;
    }

    fn in_key(&mut self, rest: &[u8]) -> Result<usize, Malformed> {
        let (taken, closed) = string_end(&mut self.escaped, rest);
        let text = rest.get(..taken).unwrap_or_default();
        if self.key.len().saturating_add(text.len()) > MAX_KEY {
            self.key_overlong = true;
        } else {
            self.key.extend(text);
        }
        if closed {
            self.state = State::Colon;
            self.current = self.look_up()?;
        }
        Ok(taken)
    }

    /// The index of the key that was just read, its closing quote included.
    fn look_up(&self) -> Result<Option<usize>, Malformed> {
        let raw = self.key.strip_suffix(b"\"").filter(|_| !self.key_overlong);
        let Some(raw) = raw else { return Ok(None) };
        let unescaped;
        let name = if raw.contains(&b'\\') {
            let quoted = [b"\"", raw, b"\""].concat();
            unescaped = serde_json::from_slice::<String>(&quoted).map_err(|_| Malformed::Syntax)?;
            unescaped.as_bytes()
        } else {
            raw
        };
        let found = self.keys.iter().position(|key| folds_to(name, key.name));
        let Some(index) = found else { return Ok(None) };
        let exact = self
            .keys
            .get(index)
            .is_some_and(|key| name == key.name.as_bytes());
        let repeated = self.fields.get(index).is_some_and(Option::is_some);
        match self.repeats {
            Repeats::Refuse if repeated || !exact => Err(Malformed::AmbiguousKey),
            _ => Ok(exact.then_some(index)),
        }
    }

    fn open_value(&mut self, byte: u8) -> Result<(), Malformed> {
        self.state = match byte {
            b'"' => State::InString,
            b'{' | b'[' => State::InNested,
            b'}' | b']' | b',' | b':' => return Err(Malformed::Syntax),
            _ => State::InLiteral,
        };
        self.depth = 1;
        self.nested_string = false;
        let start = self.offset;
        if let Some(slot) = self.current.and_then(|index| self.fields.get_mut(index)) {
            *slot = Some(Field {
                start,
                ..Field::default()
            });
        }
        Ok(())
    }

    fn in_string(&mut self, rest: &[u8]) -> usize {
        let (taken, closed) = string_end(&mut self.escaped, rest);
        if closed {
            self.state = State::AfterValue;
        }
        taken
    }

    fn in_nested(&mut self, rest: &[u8]) -> usize {
        if self.nested_string {
            let (taken, closed) = string_end(&mut self.escaped, rest);
            self.nested_string = !closed;
            return taken;
        }
        for (at, &byte) in rest.iter().enumerate() {
            match byte {
                b'"' => {
                    self.nested_string = true;
                    return at.saturating_add(1);
                }
                b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        self.state = State::AfterValue;
                        return at.saturating_add(1);
                    }
                }
                _ => {}
            }
        }
        rest.len()
    }

    fn in_literal(&mut self, rest: &[u8]) -> Result<usize, Malformed> {
        let ends = |byte: &u8| matches!(byte, b',' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
        let taken = rest.iter().position(ends).unwrap_or(rest.len());
        let literal = rest.get(..taken).unwrap_or_default();
        if literal
            .iter()
            .any(|byte| matches!(byte, b'"' | b'{' | b'[' | b']' | b':'))
        {
            return Err(Malformed::Syntax);
        }
        if taken < rest.len() {
            self.state = State::AfterValue;
        }
        Ok(taken)
    }

    /// Keeps the bytes that belong to the value that is being read.
    fn keep(&mut self, seen: &[u8]) {
        let Some(index) = self.current else { return };
        let limit = self.keys.get(index).map_or(0, |key| key.limit);
        let Some(Some(field)) = self.fields.get_mut(index) else {
            return;
        };
        if field.end.is_some() || self.offset < field.start || field.overlong {
            return;
        }
        if field.raw.len().saturating_add(seen.len()) > limit {
            field.overlong = true;
            field.raw = Vec::new();
        } else {
            field.raw.extend(seen);
        }
    }

    /// Marks the value that was being read as complete if the last step ended it.
    fn close_value(&mut self) {
        if self.state != State::AfterValue {
            return;
        }
        let Some(index) = self.current.take() else {
            return;
        };
        if let Some(Some(field)) = self.fields.get_mut(index) {
            field.end = Some(self.offset);
        }
    }
}

/// Whether some parser takes `name` for `key`: without regard to case, as Go's does, by the rules of Unicode (K is the
/// Kelvin sign, \u{17f} the long s).
fn folds_to(name: &[u8], key: &str) -> bool {
    if name.is_ascii() {
        return name.eq_ignore_ascii_case(key.as_bytes());
    }
    let folded = String::from_utf8_lossy(name)
        .replace('\u{212a}', "k")
        .replace('\u{17f}', "s");
    folded.eq_ignore_ascii_case(key)
}

/// Goes to the end of a string: how many bytes were used up, and whether the last one is its closing quote.
fn string_end(escaped: &mut bool, bytes: &[u8]) -> (usize, bool) {
    let mut at = usize::from(std::mem::take(escaped));
    while let Some(rest) = bytes.get(at..) {
        let Some(found) = memchr2(b'"', b'\\', rest) else {
            break;
        };
        let after = at.saturating_add(found).saturating_add(1);
        if rest.get(found) == Some(&b'"') {
            return (after, true);
        }
        if after == bytes.len() {
            *escaped = true;
            break;
        }
        at = after.saturating_add(1);
    }
    (bytes.len(), false)
}

/// The text of a complete string value; `None` for any other value, or bad escapes.
#[must_use]
pub fn text(field: &Field) -> Option<String> {
    serde_json::from_slice(&field.raw).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const KEYS: &[Key] = &[
        Key {
            name: "model",
            limit: 64,
        },
        Key {
            name: "n",
            limit: 8,
        },
    ];

    fn scan(chunks: &[&[u8]]) -> Result<Scanner, Malformed> {
        let mut scanner = Scanner::new(KEYS, Repeats::Refuse);
        for chunk in chunks {
            scanner.feed(chunk)?;
        }
        scanner
            .closing_brace()
            .map(|_| scanner)
            .ok_or(Malformed::Truncated)
    }

    fn model(body: &str) -> Result<Option<String>, Malformed> {
        scan(&[body.as_bytes()]).map(|scanner| scanner.value(0).and_then(text))
    }

    // cases.md 30
    #[test]
    fn model_is_found_wherever_it_stands_and_only_at_the_top() {
        let found = Ok(Some("gpt-4o".to_owned()));
        assert_eq!(model(r#"{"model":"gpt-4o","x":1}"#), found);
        assert_eq!(
            model(r#" { "x" : [ {"model":"no"} ] , "model" : "gpt-4o" } "#),
            found
        );
        assert_eq!(
            model(r#"{"x":"\"model\":\"no\"","y":{"a":"}]{["},"model":"gpt-4o"}"#),
            found
        );
        assert_eq!(model(r#"{"mod\u0065l":"gpt\u002d4o"}"#), found);
        assert_eq!(model(r#"{"x":{"model":"no"},"y":"model"}"#), Ok(None));
    }

    #[test]
    fn a_key_that_matters_must_stand_once_and_as_spelled() {
        let twice = Err(Malformed::AmbiguousKey);
        assert_eq!(model(r#"{"model":"a","model":"b"}"#), twice);
        assert_eq!(model(r#"{"model":"a","mod\u0065l":"b"}"#), twice);
        assert_eq!(model(r#"{"Model":"a"}"#), twice);
        assert!(folds_to("max_to\u{212a}en\u{17f}".as_bytes(), "max_tokens"));
        assert_eq!(model(r#"{"n":1,"x":2,"x":3,"n":1}"#), twice);
    }

    // cases.md 43
    #[test]
    fn what_is_no_object_is_told_apart() {
        for (body, fault) in [
            ("", Malformed::Truncated),
            ("[]", Malformed::NotAnObject),
            ("\u{feff}{}", Malformed::NotAnObject),
            ("{", Malformed::Truncated),
            (r#"{"a":"\"#, Malformed::Truncated),
            (r#"{"a":1"#, Malformed::Truncated),
            (r#"{"a"}"#, Malformed::Syntax),
            (r#"{"a":}"#, Malformed::Syntax),
            (r#"{"a":1,}"#, Malformed::Syntax),
            (r#"{"a":1 2}"#, Malformed::Syntax),
            (r#"{"a":1"b":2}"#, Malformed::Syntax),
            ("{} {}", Malformed::Syntax),
            ("{}x", Malformed::Syntax),
            (r#"{"\x":1}"#, Malformed::Syntax),
        ] {
            assert_eq!(scan(&[body.as_bytes()]).err(), Some(fault), "{body}");
        }
    }

    #[test]
    fn any_chunking_finds_the_same() {
        let body = r#" {"a":[1,{"b":"\\"}],"mod\u0065l": "g\"pt" , "n":12,"z":"é}"} "#.as_bytes();
        let whole = scan(&[body]).unwrap();
        assert_eq!(whole.value(0).unwrap().raw, br#""g\"pt""#);
        assert_eq!(whole.value(1).unwrap().raw, b"12");
        for split in 0..=body.len() {
            let (head, tail) = body.split_at(split);
            let parts = scan(&[head, tail]).unwrap();
            assert_eq!(parts.fields, whole.fields, "split at {split}");
            assert_eq!(parts.closing_brace(), whole.closing_brace());
        }
        let bytes: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(scan(&bytes).unwrap().fields, whole.fields);
    }

    #[test]
    fn offsets_are_those_of_the_value() {
        let body = br#"{"x":"y", "model" : "gpt" }"#;
        let scanner = scan(&[body]).unwrap();
        let field = scanner.value(0).unwrap();
        let range =
            usize::try_from(field.start).unwrap()..usize::try_from(field.end.unwrap()).unwrap();
        assert_eq!(&body[range], br#""gpt""#);
        assert_eq!(scanner.closing_brace(), Some(26));
    }

    #[test]
    fn an_overlong_value_is_said_to_be_so_and_not_kept() {
        let body = format!(r#"{{"model":"{}","n":[1,2,3,4,5,6]}}"#, "x".repeat(64));
        let scanner = scan(&[body.as_bytes()]).unwrap();
        for index in [0, 1] {
            let field = scanner.value(index).unwrap();
            assert!(field.overlong && field.raw.is_empty() && field.end.is_some());
        }
    }

    #[test]
    fn deep_nesting_costs_nothing() {
        let body = format!(
            r#"{{"x":{}{},"model":"m"}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert_eq!(model(&body), Ok(Some("m".to_owned())));
    }

    #[test]
    fn in_a_response_the_last_of_two_counts() {
        let mut scanner = Scanner::new(KEYS, Repeats::TakeLast);
        scanner
            .feed(br#"{"model":"a","Model":"b","model":"c"}"#)
            .unwrap();
        assert_eq!(scanner.value(0).and_then(text), Some("c".to_owned()));
    }
}
