//! Refusals that concern one request alone, or requests like it: nobody else is sent elsewhere because of them.

use super::told;
use crate::proxy::{Proxy, usage};
use serde_json::json;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const CHAT: &str = "/api/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";

fn proxy() -> Proxy {
    Proxy::new(&json!({
        "hold_headers": true,
        "tiers": [
            {"name": "default", "model": "big"},
            {"name": "compact", "model": "small", "below": 0.2, "supports": ["effort", "recent_features"]},
        ],
        "tenants": {"evil": {}, "victim": {}},
    }))
}

/// How the other tenant is served three seconds after this request was answered like this.
fn other(path: &str, asked: &str, status: &str, answer: &str) -> String {
    let proxy = proxy();
    let send = |tenant: &str, body: &str| {
        let headers = [
            (":method", "POST"),
            (":path", path),
            ("x-tenant-id", tenant),
            ("content-length", &body.len().to_string()),
        ];
        let mut call = proxy.request(&headers, false);
        call.send(&[body.as_bytes()]);
        call
    };
    let mut call = send(
        "evil",
        &format!(r#"{{"model":"big","max_tokens":10{asked}}}"#),
    );
    call.answer_headers(
        status,
        &[("content-type", "application/json"), ("retry-after", "900")],
    );
    call.answer_chunk(answer.as_bytes(), true);
    call.end();
    drop(call);
    proxy.pass_millis(3_000);
    let mut call = send("victim", r#"{"model":"big","max_tokens":10}"#);
    call.answer_json(&usage(1, 1));
    call.end();
    told(&call)
}

#[test]
fn a_refusal_that_concerns_one_request_takes_the_upstream_from_nobody() {
    let limited = r#"{"error":{"type":"rate_limit_error","message":"slow down"}}"#;
    for (path, asked, status, answer) in [
        (
            CHAT,
            "",
            "402",
            r#"{"error":{"message":"This request requires more credits, or fewer max_tokens. You requested up to 9 tokens, but can only afford 3.","code":402}}"#,
        ),
        (
            CHAT,
            "",
            "402",
            r#"{"error":{"message":"Prompt tokens limit exceeded: 9 > 3.","code":402}}"#,
        ),
        (
            MESSAGES,
            "",
            "429",
            r#"{"error":{"type":"rate_limit_error","message":"Extra usage is required for long context requests."}}"#,
        ),
        (MESSAGES, r#","speed":"fast""#, "429", limited),
        (CHAT, r#","service_tier":"flex""#, "429", limited),
        (CHAT, r#","service_tier":"flex""#, "503", limited),
    ] {
        assert_eq!(
            other(path, asked, status, answer),
            "default admit",
            "{asked} {answer}"
        );
    }
    // What is asked for as usual shows what others have to expect.
    for (path, asked) in [
        (CHAT, ""),
        (CHAT, r#","service_tier":"priority""#),
        (MESSAGES, ""),
    ] {
        assert_eq!(
            other(path, asked, "429", limited),
            "compact downgrade upstream_limited",
            "{asked}"
        );
    }
}
