//! Readers of answers, at every split into chunks.

use super::*;
use crate::provider::Endpoint;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn headers(list: &[(&str, &str)]) -> Headers {
    let bytes = |text: &str| text.as_bytes().to_vec();
    let pairs = list.iter().map(|(name, value)| (bytes(name), bytes(value)));
    pairs.collect()
}

/// The usage that is read from an answer with these headers, the same at every split into two.
#[track_caller]
fn reported(path: &str, list: &[(&str, &str)], body: &str) -> Option<Usage> {
    let endpoint = Endpoint::of(&headers(&[(":method", "POST"), (":path", path)])).unwrap();
    let read = |chunks: [&str; 2]| {
        let mut reader = UsageReader::new(endpoint.wire, &headers(list), false);
        for chunk in chunks {
            reader.feed(chunk.as_bytes(), false);
        }
        reader.feed(b"", true);
        (
            reader.reported(),
            (reader.estimated_output(), reader.is_no_answer()),
        )
    };
    let whole = read([body, ""]);
    for split in 0..body.len() {
        let (head, tail) = body.split_at(split);
        assert_eq!(read([head, tail]), whole, "split at {split}");
    }
    whole.0.0
}

fn usage(input: u64, output: u64) -> Option<Usage> {
    Some(Usage {
        input: Some(Tokens(input)),
        output: Some(Tokens(output)),
        ..Usage::default()
    })
}

const CHAT: &str = "/v1/chat/completions";

// After bytes were released, the host passes only new bytes.
#[test]
fn white_space_may_come_before_an_array_of_events() {
    let event = r#"{"usageMetadata":{"promptTokenCount":5,"totalTokenCount":7}}"#;
    let body = format!(" \n[{event}]");
    let path = "/v1/models/m:streamGenerateContent";
    assert_eq!(reported(path, &[], &body), usage(5, 2));
}

#[test]
fn what_was_reported_before_a_fault_stands() {
    let report = r#""usage":{"prompt_tokens":5,"completion_tokens":2}"#;
    for rest in ["} x", ",}", ",\"x\":]", "", ","] {
        let body = format!("{{{report}{rest}");
        assert_eq!(reported(CHAT, &[], &body), usage(5, 2), "{rest}");
    }
}

#[test]
fn of_two_reports_in_one_object_the_last_counts() {
    let body = r#"{"usage":{"prompt_tokens":5,"completion_tokens":2},"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
    assert_eq!(reported(CHAT, &[], body), usage(3, 1));
}

#[test]
fn reports_of_two_parts_add_up() {
    let headers = [
        ("x-amzn-bedrock-input-token-count", "1"),
        ("x-amzn-bedrock-cache-read-input-token-count", "9"),
    ];
    let body = r#"{"usage":{"input_tokens":2,"cache_creation_input_tokens":8,"output_tokens":4}}"#;
    let expected = Usage {
        cached_input: Some(Tokens(9)),
        cache_write: Some(Tokens(8)),
        ..usage(19, 4).unwrap()
    };
    assert_eq!(reported("/model/m/invoke", &headers, body), Some(expected));
}

#[test]
fn an_error_is_read_alike_at_every_split() {
    for rest in [
        r#"lVersion": 1}"#,
        r#"nul", "a":1}"#,
        r#"{"a":1}}"#,
        r#"{"a":[}"#,
        "1,}",
        "1 x",
        r#"1,"choices":y":1}"#,
        r#"1,"choices":[{"a":1}]}"#,
        r#"1,"choices":[ {"a"#,
        r#"1,"choices":[] x"#,
    ] {
        for path in ["/v1/responses", CHAT] {
            let body = format!(r#"{{"id":"x","error": {rest}"#);
            assert_eq!(reported(path, &[], &body), None);
        }
    }
}

// The first value of a key stays if the key occurs again without a valid value.
#[test]
fn a_key_that_stands_twice_is_read_alike_at_every_split() {
    let report = r#""usage":{"prompt_tokens":5,"completion_tokens":2}"#;
    for rest in [":}", ",}", "]}", "}"] {
        let body = format!(r#"{{{report},"usage":{rest}"#);
        assert_eq!(reported(CHAT, &[], &body), usage(5, 2));
    }
}

// For embeddings, Bedrock counts only the input and reports it in the headers, so the usage is known even if the client leaves.
#[test]
fn a_count_of_input_alone_in_the_headers_says_that_there_is_no_output() {
    let headers = [
        ("content-type", "application/json"),
        ("x-amzn-bedrock-input-token-count", "8"),
    ];
    for body in ["", r#"{"embeddings":[[0.1,0."#, r#"{"vectors":[[0.1]]}"#] {
        assert_eq!(reported("/model/m/invoke", &headers, body), usage(8, 0));
    }
}
