//! Requests that are sent to a lower tier, and what the tier and the budget allow them.

mod forwarding;
mod limits;
mod needs;

use crate::opening::{CHAT, MESSAGES, held, spent};
use crate::proxy::{Call, Proxy, usage};
use serde_json::{Value, json};

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
        "adaptive_thinking",
        "effort",
        "signed_thinking",
        "cached_prompt",
        "cache_settings",
        "recent_features"
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

fn spend(proxy: &Proxy, tokens: u64) {
    proxy.served("acme", r#"{"model":"light","max_tokens":1}"#, tokens, 0);
}

const RESPONSES: &str = "/v1/responses";
const GEMINI: &str = "/v1beta/models/best:generateContent";
const CONVERSE: &str = "/model/best/converse";
const INVOKE: &str = "/model/anthropic.best/invoke";
