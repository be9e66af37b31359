//! The most that one request may cost.

use crate::opening::{CHAT, MESSAGES, changed, held, post};
use crate::proxy::{Proxy, usage};
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Two cents for a request, at $10 for a million tokens of output.
fn config(hold: bool) -> Value {
    json!({
        "hold_headers": hold,
        "tiers": [
            {"name": "best", "model": "best", "price": {"input": 2.5, "output": 10}},
            {"name": "light", "model": "light", "price": {"input": 0.25, "output": 1}, "below": 0.5}
        ],
        "tenants": {
            "acme": {"max_request": {"usd": 0.02}, "min_output_tokens": 100},
            "strict": {"max_request": {"usd": 0.02}},
            "counted": {"max_request": {"tokens": 5000}, "min_output_tokens": 100}
        }
    })
}

/// Paths, and bodies of which 64 bytes are sent, so that 16 tokens are likely, with a limit of 9,999 tokens.
const REQUESTS: [(&str, &str); 6] = [
    (
        CHAT,
        r#"{"model":"best","max_tokens":9999,"messages":[],"user":"abc"}"#,
    ),
    (
        CHAT,
        r#"{"messages":[],"user":"abc","max_tokens":9999,"model":"best"}"#,
    ),
    (
        "/v1/responses",
        r#"{"model":"best","max_output_tokens":9999,"input":"abcdefghi"}"#,
    ),
    (
        MESSAGES,
        r#"{"model":"best","max_tokens":9999,"messages":[],"xser":"abc"}"#,
    ),
    (
        "/v1beta/models/best:generateContent",
        r#"{"generationConfig":{"maxOutputTokens":9999},"contents":[ ]}"#,
    ),
    (
        "/model/best/converse",
        r#"{"inferenceConfig":{"maxTokens":9999},"messages":[      ]    }"#,
    ),
];

const MODES: [(bool, usize); 3] = [(true, 9_000), (false, 9_000), (false, 7)];

#[test]
fn one_request_may_cost_no_more_than_the_plan_says() {
    for (path, body) in REQUESTS {
        for (hold, size) in MODES {
            let told = format!("{path} {body} held: {hold}, {size}");
            let proxy = Proxy::new(&config(hold));
            let body = format!("{body:64}");
            let ask = |tenant, limit: u64| {
                let body = body.replace("9999", &limit.to_string());
                post(&proxy, tenant, path, &body, size)
            };
            // 16 tokens at 2.5 micros are 40 of 20,000; 1,996 of output at 10 fit besides.
            for (limit, refused) in [
                (1_996, None),
                (1_997, Some((400, "request_exceeds_maximum"))),
                (9_999, Some((400, "request_exceeds_maximum"))),
            ] {
                assert_eq!(ask("strict", limit).refused(), refused, "{limit} {told}");
            }
            // Where the path names the model, a body that passes is decided about before its limit is known.
            if !hold && path.contains("best") {
                for tenant in ["acme", "counted"] {
                    let refused = ask(tenant, 9_999);
                    assert_eq!(
                        refused.refused(),
                        Some((400, "request_exceeds_maximum")),
                        "{told}"
                    );
                }
                continue;
            }
            let mut call = ask("acme", 9_999);
            let sent = call.upstream_text().trim_end().to_owned();
            assert_eq!(sent, body.replace("9999", "1996").trim_end(), "{told}");
            call.answer_json(&usage(10, 10));
            let lowered = call.response_header("x-bursar-max-output-tokens");
            assert_eq!(lowered, Some("1996"), "{told}");
            let call = ask("counted", 9_999);
            let sent = call.upstream_text().trim_end().to_owned();
            assert_eq!(sent, body.replace("9999", "4984").trim_end(), "{told}");
        }
    }
}

// By what a tenant's requests have used lately it would cost nearly nothing.
#[test]
fn what_is_likely_by_the_last_requests_opens_no_dearer_one() {
    let mut json = config(true);
    json["tenants"]["strict"]["hold"] = "likely".into();
    json["tenants"]["strict"]["budget"] =
        serde_json::json!({"initial_budget": 100, "unit": "usd", "window": "day"});
    let proxy = Proxy::new(&json);
    let body = |limit: u64| format!(r#"{{"model":"best","max_tokens":{limit},"messages":[]}}"#);
    for _ in 0..10 {
        proxy.served("strict", &body(1_900), 10, 1);
    }
    let held = proxy.chat("strict", &body(1_900));
    let account = proxy.record("strict").account;
    assert!(account.held().usd.0 < 1_000, "{account:?}");
    drop(held);
    let dear = proxy.chat("strict", &body(2_100));
    assert_eq!(dear.refused(), Some((400, "request_exceeds_maximum")));
}

#[test]
fn the_refusal_holds_nothing_and_says_what_to_do() {
    let proxy = Proxy::new(&config(true));
    let call = post(
        &proxy,
        "strict",
        CHAT,
        r#"{"model":"best","max_tokens":9999}"#,
        9_000,
    );
    let body: Value = serde_json::from_str(&call.reply.as_ref().unwrap().body).unwrap();
    assert_eq!(body["error"]["code"], "request_exceeds_maximum");
    assert_eq!(call.reply_header("retry-after"), None);
    assert_eq!(call.reply_header("x-bursar-decision"), Some("throttle"));
    assert_eq!(held(&proxy, "strict"), 0);
}

// A long prompt leaves nothing that would be of use.
#[test]
fn what_is_left_has_to_be_of_use() {
    let long = "x".repeat(19_700);
    for (tenant, refused) in [
        ("counted", Some((400, "request_exceeds_maximum"))),
        ("strict", None),
    ] {
        for (hold, size) in MODES {
            let proxy = Proxy::new(&config(hold));
            let body = format!(r#"{{"model":"best","max_tokens":400,"user":"{long}"}}"#);
            assert_eq!(post(&proxy, tenant, CHAT, &body, size).refused(), refused);
        }
    }
}

// Its price is that of the tier that serves.
#[test]
fn a_lower_tier_may_give_longer_answers_for_the_same_money() {
    let budget = changed(config(true), |config| {
        config["tenants"]["strict"]["budget"] =
            json!({"initial_budget": 1_000_000, "window": "day"});
    });
    let proxy = Proxy::new(&budget);
    let body = r#"{"model":"best","max_tokens":5000,"messages":[]}"#;
    let refused = Some((400, "request_exceeds_maximum"));
    assert_eq!(post(&proxy, "strict", CHAT, body, 9_000).refused(), refused);
    proxy.served("strict", r#"{"model":"best","max_tokens":5}"#, 600_000, 0);
    assert_eq!(post(&proxy, "strict", CHAT, body, 9_000).refused(), None);
}

// A limit is put only where the answer is expected to be too long without: models refuse one that is above their own.
#[test]
fn a_request_without_a_limit_gets_one_only_where_it_needs_one() {
    for (most, limit) in [(5_000, ""), (500, r#","max_output_tokens":492"#)] {
        let proxy = Proxy::new(&changed(config(true), |config| {
            config["tenants"]["counted"]["max_request"]["tokens"] = most.into();
        }));
        let body = r#"{"model":"best","input":"abcd"}"#;
        let call = post(&proxy, "counted", "/v1/responses", body, 9_000);
        let sent = format!(r#"{{"model":"best","input":"abcd"{limit}}}"#);
        assert_eq!(call.upstream_text(), sent);
    }
}

// The cap comes first: what it leaves is what the budget has to hold.
#[test]
fn a_budget_has_to_hold_no_more_than_one_request_may_cost() {
    let budget = changed(config(true), |config| {
        config["tenants"]["acme"]["budget"] =
            json!({"initial_budget": 0.025, "unit": "usd", "window": "day"});
    });
    let proxy = Proxy::new(&budget);
    let call = post(
        &proxy,
        "acme",
        CHAT,
        r#"{"model":"best","max_tokens":99999}"#,
        9_000,
    );
    assert_eq!(call.upstream_header("x-bursar-tier"), Some("best"));
    assert_eq!(call.refused(), None);
}
