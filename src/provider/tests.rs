mod errors;
mod limits;
mod needs;

use super::*;
use crate::body::json::{PatternKind, Repeats, Scanner};
use crate::http::Headers;
use crate::tier::Needs;
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

// A request that is not an LLM call is neither charged nor blocked.
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
        "/v1/agents/completions",
        "/async/chat/completions",
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
    // An upstream that ignores letter case must not be a way around metering.
    assert!(endpoint("Post", "/v1/chat/completions").is_some());
}

// Gemini, Azure and Bedrock carry the model in the path.
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
        (
            "/v1/account/gateway/azure-openai/resource/my%20gpt/chat/completions?api-version=2024-10-21",
            "Chat",
            Some("my gpt"),
        ),
        ("/azure-openai/r/d/embeddings", "Embeddings", Some("d")),
        ("/azure-openai/chat/completions", "Chat", None),
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
    // Bedrock also serves OpenAI's API.
    assert!(signed(
        "AWS4-HMAC-SHA256 Credential=x",
        "/openai/v1/chat/completions"
    ));
    assert!(signed("", "/openai/v1/responses?X-Amz-Signature=x"));
    for (authorization, path) in [
        ("", "/model/m/converse"),
        ("", "/model/X-Amz-Signature=x/converse?x=X-Amz-Signature=x"),
        ("Bearer x", "/model/m/converse"),
        ("Bearer x", "/model/m/converse?X-Amz-Signature=x"),
    ] {
        assert!(!signed(authorization, path), "{authorization} {path}");
    }
}

fn with_headers(method: &str, path: &str, more: &[(&str, &str)]) -> Option<Endpoint> {
    let mut all = vec![(":method", method), (":path", path)];
    all.extend(more);
    Endpoint::of(&all.into_iter().collect())
}

#[test]
fn an_upgrade_is_known_wherever_a_request_would_be_metered() {
    let upgrade = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
    ];
    for path in [
        "/v1/responses",
        "/v1/chat/completions",
        "/v1/messages",
        "/model/m/converse",
    ] {
        for method in ["GET", "POST"] {
            assert!(with_headers(method, path, &upgrade).unwrap().upgrades);
        }
        let connect = with_headers("CONNECT", path, &[(":protocol", "websocket")]);
        assert!(connect.unwrap().upgrades);
        // These headers do not request an upgrade.
        let stray = with_headers("POST", path, &upgrade[1..]).unwrap();
        assert!(!stray.upgrades);
        let h2c = [
            ("connection", "Upgrade, HTTP2-Settings"),
            ("upgrade", "h2c"),
        ];
        assert!(!with_headers("POST", path, &h2c).unwrap().upgrades);
        assert!(with_headers("GET", path, &[]).is_none());
        assert!(with_headers("CONNECT", path, &[]).is_none());
    }
    assert!(with_headers("GET", "/v1/realtime", &upgrade).is_none());
}

#[test]
fn what_would_hide_the_usage_of_an_answer_is_known() {
    let path = "/v1beta/models/m:generateContent";
    let fault = |query: &str, headers: &[(&str, &str)]| {
        with_headers("POST", &format!("{path}{query}"), headers)
            .unwrap()
            .fault
    };
    for (query, name) in [
        ("?fields=candidates", "fields"),
        ("?key=x&$fields=candidates", "fields"),
        ("?%66ields=a", "fields"),
        ("?%24fields=a", "fields"),
        ("?alt=proto", "alt"),
        ("?alt=sse&$alt=proto", "alt"),
        ("?alt=media", "alt"),
        ("?callback=f", "callback"),
        ("?$callback=f", "callback"),
    ] {
        assert_eq!(fault(query, &[]), Some(Fault::HidesUsage(name)), "{query}");
    }
    let mask = fault("", &[("x-goog-fieldmask", "candidates")]);
    assert_eq!(mask, Some(Fault::HidesUsage("x-goog-fieldmask")));
    for query in [
        "",
        "?alt=sse",
        "?alt=json&key=x",
        "?$alt=json;enum-encoding=int",
        "?x=fields",
    ] {
        assert_eq!(fault(query, &[]), None, "{query}");
    }
    // Google also serves OpenAI's API, and gateways use any path.
    let other = with_headers("POST", "/v1/chat/completions?fields=x&alt=proto", &[]);
    assert_eq!(other.unwrap().fault, Some(Fault::HidesUsage("fields")));
}

#[test]
fn a_stream_is_not_asked_for_its_usage_where_that_is_refused() {
    for (path, host, may) in [
        ("/v1/chat/completions", "api.mistral.ai", false),
        ("/v1/chat/completions", "API.mistral.ai:443", false),
        ("/v1/chat/completions", "codestral.mistral.ai", false),
        ("/api/v1/chat/completions", "openrouter.ai:443", false),
        ("/v1/chat/completions", "api.openai.com", true),
        ("/serving-endpoints/chat/completions", "x", false),
        (
            "/openai/deployments/d/chat/completions?api-version=2024-06-01",
            "x",
            false,
        ),
        (
            "/v1/a/g/azure-openai/r/d/chat/completions?api-version=2024-06-01",
            "x",
            false,
        ),
        (
            "/v1/a/g/azure-openai/r/d/chat/completions?api-version=2025-01-01",
            "x",
            true,
        ),
    ] {
        let endpoint = with_headers("POST", path, &[(":authority", host)]).unwrap();
        assert_eq!(endpoint.may_be_asked(), may, "{path} {host}");
    }
    let signed = [("authorization", "AWS4-HMAC-SHA256 Credential=x")];
    let signed = with_headers("POST", "/openai/v1/chat/completions", &signed);
    assert!(!signed.unwrap().may_be_asked());
}

#[test]
fn an_encoded_body_is_known_by_its_headers() {
    for (codings, expected) in [
        (&["zstd"][..], true),
        (&["gzip"], true),
        (&["identity, br"], true),
        (&["identity", "x-unknown"], true),
        (&[], false),
        (&["identity"], false),
        (&[""], false),
        (&["None"], false),
    ] {
        let headers = codings.iter().map(|coding| ("content-encoding", *coding));
        assert_eq!(is_encoded(&headers.collect()), expected, "{codings:?}");
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
            let patterns = shape.patterns.iter().map(|pattern| match pattern.kind {
                PatternKind::Key(name) | PatternKind::Type(name) | PatternKind::Role(name) => name,
            });
            let names = keys.flat_map(|key| key.split('|')).chain(patterns);
            for name in names {
                assert!(name.len() <= crate::body::json::MAX_NAME, "{name}");
            }
            assert!(shape.keys.len() <= 64 && shape.patterns.len() <= 64);
        }
    }
}
