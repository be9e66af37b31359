//! Tiers whose answers begin too late.

mod choosing;
mod measuring;

use crate::proxy::{Call, Proxy, usage};
use bursar::state::store::latency_key;
use serde_json::{Value, json};

/// Three tiers; `acme` wants its answers to begin within a second, `patient` within ten, and `other` does not mind.
fn config() -> Value {
    json!({
        "hold_headers": true,
        "tiers": [
            {"name": "default", "model": "big"},
            {"name": "standard", "model": "middle", "below": 0.5},
            {"name": "compact", "model": "small", "below": 0.2}
        ],
        "tenants": {
            "acme": {"sla": {"p95_ms": 1000}},
            "patient": {"sla": {"p95_ms": 10000}},
            "poor": {"sla": {"p95_ms": 1000}, "budget": {"initial_budget": 1000, "window": "day"}},
            "shy": {"sla": {"p95_ms": 1000}, "shadow": true},
            "loyal": {"sla": {"p95_ms": 1000}, "never_downgrade": true},
            "other": {}
        }
    })
}

const BODY: &str = r#"{"model":"big","max_tokens":10}"#;
const STREAMED: &str = r#"{"model":"big","max_tokens":10,"stream":true}"#;
const EVENT: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\n";
const ENOUGH: usize = 20;

fn body(model: &str) -> String {
    BODY.replace("big", model)
}

/// So many requests at once, all answered after so long.
fn answered_after(proxy: &Proxy, tenant: &str, body: &str, requests: usize, millis: u64) {
    let calls: Vec<_> = (0..requests).map(|_| proxy.chat(tenant, body)).collect();
    proxy.pass_millis(millis);
    for mut call in calls {
        call.answer_json(&usage(1, 1));
        call.end();
    }
}

/// Tier, decision and reason of a request that is answered at once.
fn told(call: &mut Call<'_>) -> String {
    call.answer_json(&usage(1, 1));
    call.end();
    let told = ["x-bursar-tier", "x-bursar-decision", "x-bursar-reason"]
        .map(|name| call.response_header(name).unwrap_or_default());
    told.join(" ").trim_end().to_owned()
}

fn served(proxy: &Proxy, tenant: &str) -> String {
    told(&mut proxy.chat(tenant, BODY))
}

/// A request that is left open, so that nothing is heard of it.
fn tier(proxy: &Proxy, tenant: &str) -> String {
    let call = proxy.chat(tenant, BODY);
    call.upstream_header("x-bursar-tier").unwrap().to_owned()
}

fn p95(proxy: &Proxy, model: &str, answer: &str) -> u64 {
    let tier = match model {
        "big" => "default",
        "middle" => "standard",
        _ => "compact",
    };
    proxy.metric(&format!(
        "bursar_first_byte_p95_ms.tier=.={tier};.;model=.={model};.;answer=.={answer};.;"
    ))
}

const DEFAULT: &str = "default admit";
const STANDARD: &str = "standard downgrade sla";
const COMPACT: &str = "compact downgrade sla";
