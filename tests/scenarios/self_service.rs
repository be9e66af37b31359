//! A caller asks for its own limits, and is answered by the filter alone.

use crate::proxy::{Call, Proxy};
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const BODY: &str = r#"{"model":"gpt-4o","messages":[],"max_tokens":10}"#;
const PATH: &str = "/bursar/v1/budget";

fn config(is_held: bool) -> Value {
    json!({
        "hold_headers": is_held,
        "self_service": PATH,
        "tiers": [
            {"name": "big", "model": "gpt-4o", "price": {"input": 2.5, "output": 10.0}},
            {"name": "small", "model": "gpt-4o-mini", "price": {"input": 0.15, "output": 0.6}, "below": 0.2}
        ],
        "plans": {
            "gold": {
                "budget": {"initial_budget": 10_000, "window": "day"},
                "concurrency": 2,
                "limits": [
                    {"name": "month", "budget": {"initial_budget": 5, "unit": "usd", "window": "month"}},
                    {"name": "rpm", "bucket": {"requests_per_window": 60, "window": "1m"}}
                ]
            },
            "few": {"models": ["gpt-4o-mini"], "budget": {"initial_budget": 100, "window": "day"}},
            "looks": {"shadow": true, "budget": {"initial_budget": 1, "window": "day"}}
        },
        "tenants": {"acme": {"plan": "gold"}, "globex": {"plan": "few"}, "initech": {"plan": "looks"}}
    })
}

fn ask<'a>(proxy: &'a Proxy, tenant: &str, path: &str) -> Call<'a> {
    let headers = [(":method", "GET"), (":path", path), ("x-tenant-id", tenant)];
    proxy.request(&headers, true)
}

fn told(call: &Call<'_>) -> Value {
    let reply = call.reply.as_ref().unwrap();
    assert_eq!(reply.status, 200);
    let told = serde_json::from_str(&reply.body).unwrap();
    #[cfg(not(target_arch = "wasm32"))]
    is_as_described(&told);
    told
}

/// By the OpenAPI file, whose schemas are JSON Schemas.
#[cfg(not(target_arch = "wasm32"))]
#[track_caller]
fn is_as_described(told: &Value) {
    let file = include_str!("../../docs/self-service.openapi.json");
    let mut schema: Value = serde_json::from_str(file).unwrap();
    schema["$ref"] = json!("#/components/schemas/Budget");
    let validator = jsonschema::validator_for(&schema).unwrap();
    let faults = validator.iter_errors(told);
    let faults: Vec<_> = faults
        .map(|error| format!("{error} at {}", error.instance_path()))
        .collect();
    assert!(faults.is_empty(), "{faults:?}: {told}");
}

fn limit<'a>(told: &'a Value, name: &str) -> &'a Value {
    let limits = told["limits"].as_array().unwrap();
    limits.iter().find(|limit| limit["name"] == name).unwrap()
}

#[test]
fn a_caller_is_told_all_its_limits_in_both_modes_and_nothing_goes_upstream() {
    for is_held in [true, false] {
        let proxy = Proxy::new(&config(is_held));
        proxy.served("acme", BODY, 2_000, 500);
        let _in_flight = proxy.chat("acme", BODY);
        let before = proxy.record("acme");
        let call = ask(&proxy, "acme", PATH);
        let told = told(&call);
        assert!(!call.headers_gone);
        assert_eq!(
            (&told["tenant"], &told["plan"]),
            (&json!("acme"), &json!("gold"))
        );
        // A quarter of a day is left when half of it has gone by: it lasts.
        assert_eq!(
            limit(&told, "budget"),
            &json!({"name": "budget", "unit": "tokens", "window": "day", "limit": 10_000, "used": 2_500, "held": 58, "remaining": 7_442,
                "resets_at": "2024-03-01T00:00:00Z", "forecast_exhausted_at": null})
        );
        // 2,000 at 2.50 and 500 at 10 dollars a million.
        let month = limit(&told, "month");
        assert_eq!(
            (&month["unit"], &month["used"]),
            (&json!("usd"), &json!(0.01))
        );
        assert_eq!(limit(&told, "concurrency")["held"], 1);
        assert_eq!(limit(&told, "rpm")["remaining"], 58);
        assert_eq!(limit(&told, "rpm")["window"], "1m");
        assert_eq!(told["tier"]["name"], "big");
        assert_eq!(proxy.record("acme"), before);
    }
}

#[test]
fn who_never_asked_is_told_a_whole_budget_and_no_record_is_made() {
    let proxy = Proxy::new(&config(true));
    let told = told(&ask(&proxy, "acme", PATH));
    assert_eq!(limit(&told, "budget")["remaining"], 10_000);
    assert_eq!(proxy.try_record("acme"), None);
}

#[test]
fn what_a_request_would_hold_is_what_it_holds_then() {
    let proxy = Proxy::new(&config(true));
    // Four bytes a token: the body below has 12 tokens.
    let query = format!("{PATH}?model=gpt-4o&input_tokens=12&max_tokens=10");
    let told = told(&ask(&proxy, "acme", &query));
    let holds = &told["tier"]["holds"];
    assert_eq!(told["tier"]["decision"], "admit");
    let _call = proxy.chat("acme", BODY);
    let account = proxy.record("acme").account;
    assert_eq!(holds["tokens"], account.held().tokens.0);
    let usd = holds["usd"].as_f64().unwrap() * 1_000_000.0;
    assert_eq!(format!("{usd:.0}"), account.held().usd.0.to_string());
}

#[test]
fn the_tier_that_would_serve_is_the_one_that_serves_then() {
    let proxy = Proxy::new(&config(true));
    proxy.served("acme", BODY, 8_100, 0);
    let query = format!("{PATH}?model=gpt-4o&input_tokens=12&max_tokens=10");
    let told_now = told(&ask(&proxy, "acme", &query));
    let tier = &told_now["tier"];
    assert_eq!(
        [
            &tier["name"],
            &tier["model"],
            &tier["decision"],
            &tier["reason"]
        ],
        ["small", "gpt-4o-mini", "downgrade", "budget_low"]
    );
    let mut call = proxy.chat("acme", BODY);
    assert!(call.upstream_text().contains("gpt-4o-mini"));
    call.end();
    let query = format!("{PATH}?model=gpt-4o&input_tokens=5000");
    let told_then = told(&ask(&proxy, "acme", &query));
    let tier = &told_then["tier"];
    assert_eq!(
        [&tier["decision"], &tier["reason"], &tier["limit"]],
        ["throttle", "budget_exhausted", "budget"]
    );
}

#[test]
fn a_model_that_may_not_be_asked_for_would_be_refused() {
    let proxy = Proxy::new(&config(true));
    let query = format!("{PATH}?model=gpt%2D4o");
    let told = told(&ask(&proxy, "globex", &query));
    assert_eq!(
        [
            &told["tier"]["requested_model"],
            &told["tier"]["decision"],
            &told["tier"]["reason"]
        ],
        ["gpt-4o", "refuse", "model_not_allowed"]
    );
}

#[test]
fn of_a_parent_no_more_is_told_than_it_lets_see() {
    let limits = json!([
        {"name": "all", "budget": {"initial_budget": 400, "window": "month"}},
        {"name": "team", "visible": true, "budget": {"initial_budget": 1_000, "window": "month"}}
    ]);
    let proxy = Proxy::new(&json!({
        "hold_headers": true,
        "self_service": PATH,
        "tiers": [{"name": "big", "model": "gpt-4o"}],
        "tenants": {"corp": {"limits": limits}, "acme": {"parent": "corp"}, "globex": {"parent": "corp"}}
    }));
    proxy.served("globex", BODY, 400, 0);
    let told = told(&ask(&proxy, "acme", PATH));
    assert_eq!(
        limit(&told, "all"),
        &json!({"name": "all", "of": "parent", "window": "month", "resets_at": "2024-03-01T00:00:00Z", "exhausted": true})
    );
    let team = limit(&told, "team");
    assert_eq!(
        (&team["of"], &team["used"]),
        (&json!("parent"), &json!(400))
    );
    assert_eq!(
        [&told["tier"]["decision"], &told["tier"]["limit"]],
        ["throttle", "all"]
    );
    assert!(!told.to_string().contains("globex"));
}

#[test]
fn a_plan_that_only_looks_on_says_so() {
    let proxy = Proxy::new(&config(true));
    let told = told(&ask(&proxy, "initech", PATH));
    assert_eq!(told["shadow"], true);
}

#[test]
fn only_who_shows_who_it_is_is_told_and_of_nobody_else() {
    let proxy = Proxy::new(&config(true));
    let nobody = proxy.request(&[(":method", "GET"), (":path", PATH)], true);
    assert_eq!(nobody.refused(), Some((401, "tenant_required")));
    assert_eq!(
        ask(&proxy, "hooli", PATH).refused(),
        Some((403, "tenant_unknown"))
    );
    let query = format!("{PATH}?tenant=globex");
    let told = told(&ask(&proxy, "acme", &query));
    assert_eq!(told["tenant"], "acme");
    assert!(!told.to_string().contains("globex"));
}

#[test]
fn it_is_read_only_and_parameters_are_numbers() {
    let proxy = Proxy::new(&config(true));
    let post = [
        (":method", "POST"),
        (":path", PATH),
        ("x-tenant-id", "acme"),
    ];
    let call = proxy.request(&post, false);
    assert_eq!(call.reply.as_ref().unwrap().status, 405);
    assert_eq!(call.reply_header("allow"), Some("GET, HEAD"));
    for query in ["input_tokens=many", "max_tokens=-1", "model=%ff"] {
        let call = ask(&proxy, "acme", &format!("{PATH}?{query}"));
        let reply = call.reply.as_ref().unwrap();
        assert_eq!(reply.status, 400, "{query}");
    }
}

#[test]
fn without_the_path_in_the_configuration_it_is_any_other_request() {
    let mut without = config(true);
    without.as_object_mut().unwrap().remove("self_service");
    let proxy = Proxy::new(&without);
    assert!(ask(&proxy, "acme", PATH).reply.is_none());
    assert!(
        ask(&Proxy::new(&config(true)), "acme", "/bursar/v1/budgets")
            .reply
            .is_none()
    );
}
