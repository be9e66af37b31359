//! Budgets and buckets in which tokens count by their kind.

use crate::opening::{CHAT, changed, held};
use crate::proxy::Proxy;
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn config(limits: &Value) -> Value {
    let mut config = json!({
        "hold_headers": true,
        "tiers": [{"name": "best", "model": "best"}, {"name": "light", "model": "light", "below": 0.5}],
        "tenants": {"acme": {"weights": {"cached_input": 0.1, "output": 4}}}
    });
    for (key, value) in limits.as_object().unwrap() {
        config["tenants"]["acme"][key] = value.clone();
    }
    config
}

/// 48 bytes, of which 12 tokens are likely, and 10 of output.
const BODY: &str = r#"{"model":"best","max_tokens":10,"messages":[  ]}"#;

/// 1,000 tokens of a prompt, 900 of them cached, and 50 of output: 100, 90 and 200.
const USED: &str = r#"{"usage":{"prompt_tokens":1000,"completion_tokens":50,"prompt_tokens_details":{"cached_tokens":900}}}"#;
const COUNTED: u64 = 390;

#[test]
fn a_budget_counts_tokens_by_their_weights_and_metrics_count_them_as_they_are() {
    let proxy = Proxy::new(&config(
        &json!({"budget": {"initial_budget": 1_000, "window": "day"}}),
    ));
    let mut call = proxy.chat("acme", BODY);
    // A byte may be a token, and each one of output counts four.
    assert_eq!(held(&proxy, "acme"), 48 + 40);
    call.answer_json(USED);
    call.end();
    assert_eq!(proxy.record("acme").account.spent.tokens.0, COUNTED);
    assert_eq!(call.fields["bursar_charged"], COUNTED.to_string());
    assert_eq!(call.fields["bursar_output_tokens"], "50");
    for (kind, tokens) in [("input", 100), ("cached_input", 900), ("output", 50)] {
        let name = format!(
            "bursar_tokens_total.tenant=.=acme;.;tier=.=best;.;model=.=best;.;kind=.={kind};.;"
        );
        assert_eq!(proxy.metric(&name), tokens, "{kind}");
    }
    // 610 of 1,000 are left, and a mark goes by what counts.
    assert_eq!(
        proxy.chat("acme", BODY).upstream_header("x-bursar-tier"),
        Some("best")
    );
    proxy.chat("acme", BODY).answer_json(USED);
    assert_eq!(
        proxy.chat("acme", BODY).upstream_header("x-bursar-tier"),
        Some("light")
    );
}

#[test]
fn a_bucket_gives_cells_for_what_counts() {
    let proxy = Proxy::new(&config(
        &json!({"bucket": {"tokens_per_window": 1_000, "window": "10s"}}),
    ));
    let mut call = proxy.chat("acme", BODY);
    assert_eq!(proxy.record("acme").bucket.used, 12 + 40);
    call.answer_json(USED);
    call.end();
    assert_eq!(proxy.record("acme").bucket.used, COUNTED);
    let large = r#"{"model":"best","max_tokens":250}"#;
    assert_eq!(
        proxy.chat("acme", large).refused(),
        Some((429, "request_exceeds_burst"))
    );
}

// The upstream's quota knows no weights of ours.
#[test]
fn a_tiers_capacity_counts_tokens_as_the_upstream_does() {
    let left = |weights: Value| {
        let capacity = changed(config(&json!({})), |config| {
            config["tiers"][0]["capacity"] = json!({
                "tokens_per_window": 2_000, "window": "1h", "reserved": {"critical": 0, "standard": 0}
            });
            config["tenants"]["acme"]["weights"] = weights;
        });
        let proxy = Proxy::new(&capacity);
        let left = || proxy.metric("bursar_capacity_remaining.tier=.=best;.;model=.=best;.;");
        let mut call = proxy.chat("acme", BODY);
        let first = left();
        call.answer_json(USED);
        call.end();
        let _call = proxy.chat("acme", BODY);
        (first, left())
    };
    assert_eq!(left(json!({"output": 9})), left(json!({})));
    assert_eq!(left(json!({"output": 9})).0, 2_000 - 22);
}

#[test]
fn what_is_left_of_a_budget_lets_an_answer_be_as_long_as_it_counts() {
    let limits =
        json!({"budget": {"initial_budget": 1_000, "window": "day"}, "min_output_tokens": 10});
    let proxy = Proxy::new(&config(&limits));
    let body = r#"{"model":"light","max_tokens":9999,"messages":[]}"#;
    let call = proxy.chat("acme", body);
    // 49 bytes leave 951 cells, which are 237 tokens of output.
    assert_eq!(call.upstream_text(), body.replace("9999", "237"), "{CHAT}");
}

#[test]
fn free_kinds_of_tokens_count_nothing() {
    let limits = json!({
        "budget": {"initial_budget": 100, "window": "day"},
        "weights": {"input": 0, "cached_input": 0, "cache_write": 0, "cache_write_1h": 0}
    });
    let proxy = Proxy::new(&config(&limits));
    let mut call = proxy.chat("acme", BODY);
    assert_eq!(held(&proxy, "acme"), 10);
    call.answer_json(USED);
    assert_eq!(proxy.record("acme").account.spent.tokens.0, 50);
}
