//! What scenarios begin with.
#![allow(dead_code, reason = "not all scenarios run in wasm")]

use crate::proxy::{Call, Proxy};
use serde_json::{Value, json};

/// 1,000 tokens a day for `acme`, three tiers, held headers.
pub(crate) fn config() -> Value {
    json!({
        "hold_headers": true,
        "tiers": [
            {"name": "default", "model": "gpt-4o", "price": {"input": 2.5, "output": 10}},
            {"name": "standard", "model": "gpt-4.1-mini", "price": {"input": 0.4, "output": 1.6}, "below": 0.5},
            {"name": "compact", "model": "gpt-4o-mini", "price": {"input": 0.15, "output": 0.6}, "below": 0.2}
        ],
        "plans": {"small": {"budget": {"initial_budget": 1000, "window": "day"}}},
        "tenants": {
            "acme": {"plan": "small"},
            "globex": {"plan": "small"},
            "initech": {"bucket": {"tokens_per_window": 100, "window": "10s"}},
            "umbrella": {}
        }
    })
}

pub(crate) fn with(change: impl FnOnce(&mut Value)) -> Value {
    changed(config(), change)
}

pub(crate) fn changed(mut config: Value, change: impl FnOnce(&mut Value)) -> Value {
    change(&mut config);
    config
}

pub(crate) const CHAT: &str = "/v1/chat/completions";
pub(crate) const MESSAGES: &str = "/v1/messages";

/// 54 bytes, so that it reserves 64 tokens: a byte each and ten of output.
pub(crate) const BODY: &str = r#"{"model":"gpt-4o","max_tokens":10,"messages":["hello"]}"#;

pub(crate) const RESERVED: u64 = 65;

pub(crate) fn held(proxy: &Proxy, tenant: &str) -> u64 {
    let record = proxy.try_record(tenant);
    record.map_or(0, |record| record.account.held().tokens.0)
}

pub(crate) fn spent(proxy: &Proxy, tenant: &str) -> u64 {
    proxy.record(tenant).account.spent.tokens.0
}

pub(crate) const STREAMED: &str = r#"{"model":"gpt-4o","max_tokens":10,"stream":true}"#;

pub(crate) fn stream(usage: &str) -> String {
    let delta = |text: &str| {
        format!(
            "data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}],\"usage\":null}}\n\n"
        )
    };
    format!("{}{}{usage}data: [DONE]\n\n", delta("Grüße"), delta(" 🎉"))
}

pub(crate) const USAGE_EVENT: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":5,\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n";

/// Budgets for long bodies, which pass.
pub(crate) fn allow_long(config: &mut Value) {
    config["hold_bytes"] = 1_000.into();
    config["plans"]["small"]["budget"]["initial_budget"] = 1_000_000.into();
}

/// A whole request with its length, in chunks of this size.
pub(crate) fn post<'a>(
    proxy: &'a Proxy,
    tenant: &str,
    path: &str,
    body: &str,
    size: usize,
) -> Call<'a> {
    let length = body.len().to_string();
    let headers = [
        (":method", "POST"),
        (":path", path),
        ("x-tenant-id", tenant),
        ("content-length", &*length),
    ];
    let mut call = proxy.request(&headers, false);
    call.send(&body.as_bytes().chunks(size).collect::<Vec<_>>());
    call
}
