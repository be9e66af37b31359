//! Tiers that say what they support and how long they answer, and plans that shorten answers to what is left.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a failed set-up is a failed test"
)]

#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/store.rs"]
mod store;

use proxy::{Call, Proxy, usage};
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Two tiers for every model, and 10,000 tokens a day for `acme`.
fn config() -> Value {
    json!({
        "ladders": [{"match": ["*"], "tiers": [
            {"name": "best", "model": "best"},
            {"name": "light", "model": "light", "below": 0.5},
        ]}],
        "tenants": {"acme": {"budget": {"initial_budget": 10_000, "window": "day"}}},
    })
}

fn with(hold: bool, change: impl Fn(&mut Value)) -> Proxy {
    let mut config = config();
    config["hold_headers"] = hold.into();
    change(&mut config);
    Proxy::new(&config)
}

/// All that a request may need.
fn everything() -> Value {
    json!([
        "tools",
        "images",
        "structured_output",
        "thinking",
        "signed_thinking",
        "cached_prompt"
    ])
}

/// A request of `acme` with its length, in these chunks.
fn post<'a>(proxy: &'a Proxy, path: &str, chunks: &[&str]) -> Call<'a> {
    let length = chunks.concat().len().to_string();
    let mut call = proxy.request(
        &[
            (":method", "POST"),
            (":path", path),
            ("x-tenant-id", "acme"),
            ("content-length", &length),
        ],
        false,
    );
    let chunks: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.as_bytes()).collect();
    call.send(&chunks);
    call
}

fn held(proxy: &Proxy) -> u64 {
    proxy.record("acme").account.held().tokens.0
}

fn spent(proxy: &Proxy) -> u64 {
    proxy.record("acme").account.spent.tokens.0
}

fn spend(proxy: &Proxy, tokens: u64) {
    proxy.served("acme", r#"{"model":"light","max_tokens":1}"#, tokens, 0);
}

const CHAT: &str = "/v1/chat/completions";

// Anthropic refuses a limit that is not above what the thinking may take, wherever that stands.
#[test]
fn no_limit_is_lowered_to_less_than_the_thinking_may_take() {
    let thinking = r#""thinking":{"type":"enabled","budget_tokens":1500}"#;
    for (path, body) in [
        ("/v1/messages", format!(r#"{{"model":"best","max_tokens":4000,"messages":[],{thinking}}}"#)),
        (
            "/v1/projects/p/locations/l/publishers/anthropic/models/best:rawPredict",
            format!(r#"{{"max_tokens":4000,"messages":[],{thinking}}}"#),
        ),
        (
            "/model/best/converse",
            format!(r#"{{"inferenceConfig":{{"maxTokens":4000}},"additionalModelRequestFields":{{{thinking}}}}}"#),
        ),
        (
            "/model/best/converse",
            r#"{"inferenceConfig":{"maxTokens":4000},"additionalModelRequestFields":{"reasoning_config":{"budget_tokens":1500}}}"#.to_owned(),
        ),
        (
            "/model/anthropic.best/invoke",
            format!(r#"{{"max_tokens":4000,"messages":[],{thinking}}}"#),
        ),
    ] {
        for hold in [true, false] {
            for split in 0..=body.len() {
                let proxy = with(hold, |config| {
                    config["tenants"]["acme"]["never_downgrade"] = true.into();
                    config["ladders"][0]["tiers"][0]["max_output_tokens"] = 100.into();
                });
                let (head, tail) = body.split_at(split);
                let mut call = post(&proxy, path, &[head, tail]);
                let limited = body.replace("4000", "1501");
                assert_eq!(call.upstream_text(), limited, "split at {split}, held: {hold}");
                assert_eq!(held(&proxy), body.len() as u64 + 1_501);
                call.answer_headers("200", &[]);
                assert_eq!(call.response_header("x-bursar-max-output-tokens"), Some("1501"));
            }
        }
    }
}
