//! What an operator does to limits while they are in use, and what that does to what was spent: the table of docs/operations.md.

use crate::proxy::Proxy;
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const BODY: &str = r#"{"model":"gpt-4o","messages":[],"max_tokens":1}"#;

/// What it holds when it tells what is left.
const HELD: u64 = 47 + 1;

fn config(name: &str, tenant: Value) -> Value {
    json!({
        "hold_headers": true,
        "tiers": [{"name": "big", "model": "gpt-4o", "price": {"input": 1, "output": 1}}],
        "plans": {
            "gold": {"budget": {"initial_budget": 1_000, "window": "day"}},
            "silver": {"budget": {"initial_budget": 600, "window": "day"}}
        },
        "tenants": {name: tenant}
    })
}

/// What is left to a tenant that has used 400 of the 1,000 tokens of the plan `gold`, once it is configured like this; or why it is
/// refused.
fn left(name: &str, tenant: &Value) -> String {
    let proxy = Proxy::new(&config("acme", json!({"plan": "gold"})));
    proxy.served("acme", BODY, 400, 0);
    proxy.configure(&config(name, tenant.clone()));
    let call = proxy.served(name, BODY, 0, 0);
    let told = call.response_header("ratelimit").unwrap_or_default();
    let left = told
        .split_once(";r=")
        .and_then(|(_, left)| left.split(';').next());
    let left = left.map(|left| (left.parse::<u64>().unwrap() + HELD).to_string());
    let refused = call.refused().map(|(_, reason)| reason.to_owned());
    refused.or(left).unwrap()
}

#[test]
fn each_action_does_to_spend_what_the_page_says() {
    let on = |budget: Value| json!({"plan": "gold", "budget": budget});
    let limit =
        |name: &str| json!({"name": name, "budget": {"initial_budget": 1_000, "window": "day"}});
    let extra = json!({"amount": 500, "until": "2099-01-01T00:00:00Z"});
    for (name, tenant, expected) in [
        ("acme", on(json!({"initial_budget": 2_000})), "1600"),
        ("acme", on(json!({"extra": extra})), "1100"),
        (
            "acme",
            on(json!({"initial_budget": 300})),
            "budget_exhausted",
        ),
        ("acme", json!({"plan": "silver"}), "200"),
        ("acme", on(json!({"window": "hour"})), "600"),
        ("acme", on(json!({"window": "month"})), "600"),
        ("apex", json!({"plan": "gold", "was": "acme"}), "600"),
        ("apex", json!({"plan": "gold"}), "1000"),
        ("acme", json!({"limits": [limit("day")]}), "1000"),
    ] {
        assert_eq!(left(name, &tenant), expected, "{tenant}");
    }
}

#[test]
fn a_budget_that_changes_its_unit_has_counted_both() {
    let proxy = Proxy::new(&config("acme", json!({"plan": "gold"})));
    proxy.served("acme", BODY, 400, 0);
    let dollars = json!({"unit": "usd", "initial_budget": 0.001});
    proxy.configure(&config("acme", json!({"plan": "gold", "budget": dollars})));
    let call = proxy.served("acme", BODY, 0, 0);
    // 400 tokens at a millionth of a dollar each.
    assert_eq!(call.fields["bursar_remaining"], "600");
}
