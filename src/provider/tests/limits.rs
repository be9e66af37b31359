//! Output limits: lowered where the body has one, added where it has none.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// The body with its output limited to 50 tokens.
fn limited(path: &str, body: &str) -> String {
    let wire = endpoint("POST", path).unwrap().wire;
    let mut scanner = Scanner::new(wire.request(), Repeats::Refuse);
    scanner.feed(body.as_bytes()).unwrap();
    let edits = limit_output(wire, &scanner, 50);
    String::from_utf8(crate::body::rewrite::splice(body.as_bytes(), 0, &edits)).unwrap()
}

#[test]
fn a_limit_is_lowered_where_it_stands_or_added_where_there_is_none() {
    for (path, body, expected) in [
        (
            "/v1/messages",
            r#"{"max_tokens":51}"#,
            r#"{"max_tokens":50}"#,
        ),
        (
            "/v1/messages",
            r#"{"max_tokens":50}"#,
            r#"{"max_tokens":50}"#,
        ),
        ("/v1/messages", r#"{"x":1}"#, r#"{"x":1,"max_tokens":50}"#),
        ("/v1/messages", "{ }", r#"{ "max_tokens":50}"#),
        // No key may occur twice.
        (
            "/v1/completions",
            r#"{"max_tokens":null,"x":1}"#,
            r#"{"max_tokens":50,"x":1}"#,
        ),
        // Which of the two limits is meant is unknown.
        (
            "/v1/chat/completions",
            r#"{"max_tokens":null}"#,
            r#"{"max_tokens":null}"#,
        ),
        (
            "/v1/chat/completions",
            r#"{"max_tokens":null,"max_completion_tokens":99}"#,
            r#"{"max_tokens":null,"max_completion_tokens":50}"#,
        ),
    ] {
        assert_eq!(limited(path, body), expected, "{path}");
    }
}

#[test]
fn a_limit_is_added_to_the_object_it_belongs_in_whatever_stands_there() {
    let blank = " ".repeat(99);
    for (config, expected) in [
        ("null", r#"{"maxOutputTokens":50}"#.to_owned()),
        ("{}", r#"{"maxOutputTokens":50}"#.to_owned()),
        (
            &format!("{{{blank}}}"),
            format!(r#"{{{blank}"maxOutputTokens":50}}"#),
        ),
        (
            r#"{"topK":1}"#,
            r#"{"topK":1,"maxOutputTokens":50}"#.to_owned(),
        ),
        (
            r#"{"max_output_tokens":null}"#,
            r#"{"max_output_tokens":50}"#.to_owned(),
        ),
        (
            r#"{"maxOutputTokens":"51"}"#,
            r#"{"maxOutputTokens":50}"#.to_owned(),
        ),
    ] {
        let body = |config: &str| format!(r#"{{"generationConfig":{config}}}"#);
        let path = "/v1/models/m:generateContent";
        assert_eq!(limited(path, &body(config)), body(&expected));
    }
    let none = limited("/model/m/converse", r#"{"x":1}"#);
    assert_eq!(none, r#"{"x":1,"inferenceConfig":{"maxTokens":50}}"#);
    let none = limited("/model/m/converse", "{}");
    assert_eq!(none, r#"{"inferenceConfig":{"maxTokens":50}}"#);
}

#[test]
fn a_limit_can_only_stand_in_an_object() {
    for (path, name) in [
        ("/v1/models/m:generateContent", "generationConfig"),
        ("/model/m/converse", "inferenceConfig"),
    ] {
        for value in ["[]", "1", "\"\"", "[{\"maxOutputTokens\":9}]"] {
            let wire = endpoint("POST", path).unwrap().wire;
            let mut scanner = Scanner::new(wire.request(), Repeats::Refuse);
            let body = format!("{{\"{name}\":{value}}}");
            scanner.feed(body.as_bytes()).unwrap();
            assert_eq!(wire.facts(&scanner), Err(Fault::NotAnObject(name)));
        }
    }
}
