//! Plans that say which models may be asked for.

use crate::opening::{CHAT, changed, held, post};
use crate::proxy::{Proxy, usage};
use bursar::state::record::Record;
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn config(hold: bool) -> Value {
    json!({
        "hold_headers": hold,
        "tiers": [{"name": "best", "model": "best"}, {"name": "light", "model": "light", "below": 0.5}],
        "plans": {"some": {
            "budget": {"initial_budget": 10_000, "window": "day"},
            "models": ["best*", "vendor.best", "embed-*"]
        }},
        "tenants": {"acme": {"plan": "some"}, "globex": {"plan": "some", "models": ["*"]}}
    })
}

/// Every way to name a model; `MODEL` stands for its name.
const REQUESTS: [(&str, &str); 20] = [
    (CHAT, r#"{"model":"MODEL","max_tokens":5,"messages":[]}"#),
    (CHAT, r#"{"messages":[],"max_tokens":5,"model":"MODEL"}"#),
    (
        "/v1/completions",
        r#"{"model":"MODEL","max_tokens":5,"prompt":"a"}"#,
    ),
    ("/v1/embeddings", r#"{"model":"MODEL","input":"a"}"#),
    (
        "/v1/responses",
        r#"{"model":"MODEL","max_output_tokens":5,"input":"a"}"#,
    ),
    (
        "/v1/messages",
        r#"{"model":"MODEL","max_tokens":5,"messages":[]}"#,
    ),
    (
        "/openai/deployments/MODEL/chat/completions",
        r#"{"max_tokens":5,"messages":[]}"#,
    ),
    ("/v1beta/models/MODEL:generateContent", r#"{"contents":[]}"#),
    (
        "/v1/projects/p/locations/l/publishers/anthropic/models/MODEL:rawPredict",
        r#"{"max_tokens":5}"#,
    ),
    (
        "/model/MODEL/converse",
        r#"{"inferenceConfig":{"maxTokens":5}}"#,
    ),
    ("/model/MODEL/invoke", r#"{"max_tokens":5}"#),
    (
        CHAT,
        r#"{"model":"best","models":["best","MODEL"],"max_tokens":5}"#,
    ),
    (
        CHAT,
        r#"{"model":"best","max_tokens":5,"fallbacks":[{"model":"MODEL"}]}"#,
    ),
    (
        CHAT,
        r#"{"model":"best","max_tokens":5,"context_window_fallbacks":["MODEL"]}"#,
    ),
    (CHAT, r#"{"model":"best-2, MODEL","max_tokens":5}"#),
    (
        CHAT,
        r#"{"model":"best","max_tokens":5,"router_settings_override":{"fallbacks":["MODEL"]}}"#,
    ),
    (
        "/v1/messages",
        r#"{"model":"best","max_tokens":5,"content_policy_fallbacks":["MODEL"]}"#,
    ),
    (
        "/v1/responses",
        r#"{"model":"best","max_output_tokens":16,"providerOptions":{"gateway":{"models":["MODEL"]}}}"#,
    ),
    (
        "/v1/embeddings",
        r#"{"model":"embed-1","input":"a","fallbacks":["MODEL"]}"#,
    ),
    (
        "/v1beta/models/best:generateContent",
        r#"{"contents":[],"fallbacks":["MODEL"]}"#,
    ),
];

#[test]
fn a_model_that_the_plan_does_not_allow_is_refused_on_every_wire_before_any_limit() {
    for (path, body) in REQUESTS {
        for (hold, size) in [(true, 9_000), (false, 9_000), (false, 7)] {
            let proxy = Proxy::new(&config(hold));
            let ask = |tenant, model: &str| {
                let (path, body) = (path.replace("MODEL", model), body.replace("MODEL", model));
                post(&proxy, tenant, &path, &body, size)
            };
            let told = format!("{path} {body} held: {hold}, {size}");
            for model in ["secret", "bes", "light"] {
                let call = ask("acme", model);
                assert_eq!(
                    call.refused(),
                    Some((403, "model_not_allowed")),
                    "{model} {told}"
                );
                assert_eq!(held(&proxy, "acme"), 0, "{told}");
                assert_eq!(call.reply_header("x-should-retry"), None);
                assert_eq!(ask("globex", model).refused(), None, "{model} {told}");
            }
            let spent = |record: Record| record.account.spent.tokens.0 + record.bucket.used;
            assert_eq!(proxy.try_record("acme").map_or(0, spent), 0, "{told}");
            for model in ["best", "best-2", "vendor.best"] {
                assert_eq!(ask("acme", model).refused(), None, "{model} {told}");
            }
        }
    }
}

#[test]
fn the_refusal_says_what_may_be_asked_for_and_what_was() {
    let proxy = Proxy::new(&config(true));
    let call = post(&proxy, "acme", CHAT, r#"{"model":"secret"}"#, 9_000);
    let body: Value = serde_json::from_str(&call.reply.as_ref().unwrap().body).unwrap();
    assert_eq!(body["error"]["code"], "model_not_allowed");
    assert_eq!(
        body["error"]["message"],
        "The tenant may not ask for this model. It may ask for: best*, vendor.best, embed-*."
    );
    assert_eq!(
        call.reply_header("x-bursar-requested-model"),
        Some("secret")
    );
    assert_eq!(call.fields["bursar_reason"], "model_not_allowed");
    assert_eq!(
        proxy.metric("bursar_throttled_total.tenant=.=acme;.;reason=.=model_not_allowed;.;"),
        1
    );
}

// The list says what may be asked for; what serves is the operator's ladder.
#[test]
fn a_lower_tier_serves_a_model_that_may_not_be_asked_for() {
    let proxy = Proxy::new(&config(true));
    proxy.served("acme", r#"{"model":"best","max_tokens":5}"#, 6_000, 0);
    let mut call = proxy.chat("acme", r#"{"model":"best","max_tokens":5}"#);
    call.answer_json(&usage(1, 1));
    assert_eq!(call.response_header("x-bursar-model"), Some("light"));
}

#[test]
fn a_model_that_is_not_named_is_one_that_no_name_allows() {
    let proxy = Proxy::new(&config(true));
    let stored = r#"{"prompt":{"id":"pmpt_1"},"max_output_tokens":5}"#;
    let unnamed = |tenant| post(&proxy, tenant, "/v1/responses", stored, 9_000);
    assert_eq!(unnamed("acme").refused(), Some((403, "model_not_allowed")));
    assert_eq!(unnamed("globex").refused(), None);
    let fallback = r#"{"model":"best","max_tokens":5,"messages":[],"fallbacks":"default"}"#;
    let other = |tenant| post(&proxy, tenant, "/v1/messages", fallback, 9_000);
    assert_eq!(other("acme").refused(), Some((403, "model_not_allowed")));
    assert_eq!(other("globex").refused(), None);
}

// It is access control: a state that cannot be had opens nothing.
#[test]
fn a_lost_state_opens_no_model() {
    let proxy = Proxy::new(&config(true));
    proxy.store.set_down(true);
    let call = proxy.chat("acme", r#"{"model":"secret","max_tokens":5}"#);
    assert_eq!(call.refused(), Some((403, "model_not_allowed")));
}

#[test]
fn in_shadow_mode_it_is_metered_and_told() {
    for (hold, size) in [(true, 9_000), (false, 9_000), (false, 7)] {
        let shadowed = changed(config(hold), |config| {
            config["plans"]["some"]["shadow"] = true.into();
        });
        let proxy = Proxy::new(&shadowed);
        for body in [
            r#"{"model":"secret","max_tokens":5,"messages":[]}"#,
            r#"{"model":"best","max_tokens":5,"models":["secret"]}"#,
        ] {
            let mut call = post(&proxy, "acme", CHAT, body, size);
            assert_eq!(call.refused(), None);
            assert_eq!(call.upstream_text().trim_end(), body);
            call.answer_json(&usage(10, 5));
            call.end();
            assert_eq!(
                call.fields["bursar_shadow"],
                "refuse;reason=model_not_allowed"
            );
        }
        assert_eq!(proxy.record("acme").account.spent.tokens.0, 30);
    }
}

/// Ollama and Azure take a name in any letter case for the same model.
#[test]
fn the_letter_case_of_a_name_makes_no_other_model() {
    let mut config = config(true);
    config["ladders"] = json!([
        {"tiers": [{"name": "best", "model": "best"}, {"name": "light", "model": "light", "below": 0.01}], "match": ["best-*"]}
    ]);
    config.as_object_mut().unwrap().remove("tiers");
    let opus = json!({"name": "opus", "models": ["bes*"], "budget": {"initial_budget": 300, "window": "day"}});
    config["plans"]["some"]["limits"] = json!([opus]);
    let proxy = Proxy::new(&config);
    for name in ["best", "BEST", "Best-2"] {
        let body = format!(r#"{{"model":"{name}","max_tokens":5,"messages":[]}}"#);
        let call = proxy.served("acme", &body, 100, 0);
        assert_eq!(call.response_header("x-bursar-model"), Some(name));
        assert_eq!(call.response_header("x-bursar-tier"), Some("best"));
    }
    let lowered = proxy.chat("acme", r#"{"model":"bEST","max_tokens":5,"messages":[]}"#);
    assert!(lowered.upstream_text().contains(r#""model":"light""#));
    let asked = proxy.chat(
        "globex",
        r#"{"model":"Light","max_tokens":5,"messages":[]}"#,
    );
    assert!(asked.upstream_text().contains(r#""model":"Light""#));
    let name = "bursar_requests_total.tenant=.=globex;.;tier=.=light;.;decision=.=admit;.;";
    assert_eq!(proxy.metric(name), 1);
}
