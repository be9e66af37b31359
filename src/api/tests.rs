use super::*;
use crate::json::{Repeats, Sign};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn endpoint(method: &str, path: &str) -> Option<Endpoint> {
    let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    Endpoint::of(&Headers::from_iter([
        pair(":method", method),
        pair(":path", path),
    ]))
}

/// The wire format, and the model in the path.
fn found(path: &str) -> Option<(String, Option<String>)> {
    let endpoint = endpoint("POST", path)?;
    Some((
        format!("{:?}", endpoint.wire),
        endpoint.model.map(|model| model.name),
    ))
}

// cases.md 28
#[test]
fn only_posts_to_known_endpoints_are_metered() {
    for path in [
        "/v1/models",
        "/healthz",
        "/",
        "",
        "/v1/chat/completions/abc",
        "/v1/xchat",
        "/chat/completionsx",
        "/v1/messages/count_tokens",
        "/v1/messages/batches",
        "/v1/threads/t1/messages",
        "/v1/responses/r1/cancel",
        "/v1/responses/input_tokens",
        "/v1beta/models/gemini-2.5-pro:countTokens",
        "/v1beta/models/gemini-2.5-pro",
        "/v1/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict",
        "/model/m/count-tokens",
        "/model/invoke",
        "/guardrail/g/version/1/apply",
    ] {
        assert_eq!(found(path), None, "{path}");
    }
    for method in ["GET", "HEAD", "OPTIONS", "CONNECT", ""] {
        assert!(endpoint(method, "/v1/chat/completions").is_none());
    }
}

#[test]
fn another_spelling_of_a_path_is_metered_too() {
    for path in [
        "/v1/chat/completions",
        "/openai/v1/chat/completions?x=/y",
        "/v1/chat/completions/",
        "/v1//chat///completions",
        "/v1/chat/%63ompletions",
        "/v1/chat%2Fcompletions",
        "/v1/Chat/Completions",
        "/v1/chat/completions%0a",
        "/v1/chat/completions%0D%0a/%20/",
        "/v1/chat/completions;x=1",
        "/v1;x/chat;y=%2f/completions;/",
        "/v1/chat/./x/%2e%2e/completions/.",
        "/v1\\chat%5ccompletions",
    ] {
        assert_eq!(found(path), Some(("Chat".to_owned(), None)), "{path}");
    }
    // An upstream that is careless about letter case must not be a way around the meter.
    assert!(endpoint("Post", "/v1/chat/completions").is_some());
}

// cases.md 34
#[test]
fn each_provider_is_known_by_its_paths() {
    for (path, wire, model) in [
        ("/v1/completions", "Completions", None),
        ("/v1/responses", "Responses { compacts: false }", None),
        (
            "/v1/responses/compact",
            "Responses { compacts: true }",
            None,
        ),
        ("/v1/embeddings", "Embeddings", None),
        ("/v1/messages?beta=true", "Messages", None),
        ("/anthropic/v1/messages", "Messages", None),
        ("/openai/v1/chat/completions", "Chat", None),
        (
            "/openai/deployments/my%20gpt/chat/completions?api-version=1",
            "Chat",
            Some("my gpt"),
        ),
        (
            "/openai/deployments/d/completions",
            "Completions",
            Some("d"),
        ),
        ("/openai/deployments/d/embeddings", "Embeddings", Some("d")),
        ("/engines/a/b/chat/completions", "Chat", Some("a/b")),
        ("/v1beta/dynamic/d:generateContent", "Gemini", Some("d")),
        (
            "/v1beta/models/gemini-2.5-pro:generateContent",
            "Gemini",
            Some("gemini-2.5-pro"),
        ),
        (
            "/v1/models/gemini-2.5-pro%3AstreamGenerateContent?alt=sse",
            "Gemini",
            Some("gemini-2.5-pro"),
        ),
        (
            "/v1/projects/p/locations/l/publishers/google/models/g:generateContent",
            "Gemini",
            Some("g"),
        ),
        (
            "/v1/projects/p/locations/l/endpoints/123:streamGenerateContent",
            "Gemini",
            Some("123"),
        ),
        (
            "/v1/projects/p/locations/l/publishers/anthropic/models/claude@1:streamRawPredict",
            "Messages",
            Some("claude@1"),
        ),
        (
            "/v1/projects/p/locations/l/publishers/mistralai/models/m:rawPredict",
            "Chat",
            Some("m"),
        ),
        (
            "/model/anthropic.claude-v2%3A1/converse",
            "Converse",
            Some("anthropic.claude-v2:1"),
        ),
        ("/model/m/converse-stream", "Converse", Some("m")),
        (
            "/model/arn:aws:bedrock:us-east-1:1:inference-profile/p/invoke",
            "Invoke",
            Some("arn:aws:bedrock:us-east-1:1:inference-profile/p"),
        ),
        ("/model/m/invoke-with-response-stream", "Invoke", Some("m")),
    ] {
        let expected = Some((wire.to_owned(), model.map(str::to_owned)));
        assert_eq!(found(path), expected, "{path}");
    }
}

#[test]
fn a_signed_request_is_known() {
    let signed = |authorization: &str, path: &str| {
        let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        let headers = [
            (":method", "POST"),
            (":path", path),
            ("authorization", authorization),
        ];
        let headers: Headers = headers
            .iter()
            .map(|(name, value)| pair(name, value))
            .collect();
        Endpoint::of(&headers).unwrap().is_signed
    };
    assert!(signed("AWS4-HMAC-SHA256 Credential=x", "/model/m/converse"));
    assert!(signed("", "/model/m/invoke?x=1&X-Amz-Signature=x"));
    for (authorization, path) in [
        ("", "/model/m/converse"),
        ("", "/model/X-Amz-Signature=x/converse?x=X-Amz-Signature=x"),
        ("Bearer x", "/model/m/converse"),
        ("Bearer x", "/model/m/converse?X-Amz-Signature=x"),
        ("AWS4-HMAC-SHA256 Credential=x", "/v1/chat/completions"),
    ] {
        assert!(!signed(authorization, path), "{authorization} {path}");
    }
}

#[test]
fn every_name_that_is_looked_for_can_be_found() {
    let wires: [&dyn Wire; 8] = [
        &openai::Chat,
        &openai::Completions,
        &openai::Embeddings,
        &responses::Responses { compacts: false },
        &anthropic::Messages,
        &gemini::Gemini,
        &bedrock::Converse,
        &bedrock::Invoke,
    ];
    for wire in wires {
        for shape in [wire.request(), wire.response(), wire.events()] {
            let keys = shape.keys.iter().flat_map(|key| key.path);
            let marks = shape.marks.iter().map(|mark| match mark.sign {
                Sign::Key(name) | Sign::Type(name) => name,
            });
            let names = keys.flat_map(|key| key.split('|')).chain(marks);
            for name in names {
                assert!(name.len() <= crate::json::MAX_NAME, "{name}");
            }
            assert!(shape.keys.len() <= 64 && shape.marks.len() <= 64);
        }
    }
}

/// The body with its output limited to 50 tokens.
fn limited(path: &str, body: &str) -> String {
    let wire = endpoint("POST", path).unwrap().wire;
    let mut scanner = Scanner::new(wire.request(), Repeats::Refuse);
    scanner.feed(body.as_bytes()).unwrap();
    let edits = limit_output(wire, &scanner, 50);
    String::from_utf8(crate::rewrite::splice(body.as_bytes(), 0, &edits)).unwrap()
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
        // No key may stand twice.
        (
            "/v1/completions",
            r#"{"max_tokens":null,"x":1}"#,
            r#"{"max_tokens":50,"x":1}"#,
        ),
        // Which of the two is meant, nobody knows.
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
