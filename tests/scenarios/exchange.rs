//! The plain way of a request: admitted, lowered, served and settled. One scenario a test, each ends with the ledger.

use crate::opening::{BODY, RESERVED, config, held, spent, with};
use crate::proxy::{Proxy, usage};
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn a_request_is_reserved_for_then_settled_by_what_was_used() {
    let proxy = Proxy::new(&config());
    let mut call = proxy.chat("acme", BODY);
    assert_eq!((held(&proxy, "acme"), spent(&proxy, "acme")), (RESERVED, 0));
    assert_eq!(call.upstream_text(), BODY);
    assert_eq!(call.upstream_header("x-bursar-tier"), Some("default"));
    assert_eq!(call.upstream_header("content-length"), Some("55"));
    call.answer_json(&usage(9, 7));
    assert_eq!((held(&proxy, "acme"), spent(&proxy, "acme")), (0, 16));
    call.end();
    assert_eq!(spent(&proxy, "acme"), 16);
    assert_eq!(call.fields["bursar_tenant"], "acme");
    assert_eq!(call.fields["bursar_plan"], "small");
    assert_eq!(call.fields["bursar_settled_by"], "usage");
    assert_eq!(call.fields["bursar_remaining"], "984");
    assert_eq!(
        proxy.metric("bursar_budget_remaining.tenant=.=acme;.;"),
        984
    );
    assert_eq!(proxy.metric("bursar_settlements_total.by=.=usage;.;"), 1);
}

// Each reading is a call to the proxy, and a stream has hundreds of chunks.
#[test]
fn the_exact_time_is_needed_at_both_ends_of_an_answer_only() {
    let proxy = Proxy::new(&config());
    let mut call = proxy.chat("acme", BODY);
    assert!(call.is_timed(false));
    call.answer_headers("200", &[("content-type", "text/event-stream")]);
    assert!(call.is_timed(false));
    for _ in 0..2 {
        call.answer_chunk(b"data: {\"choices\":[{}]}\n\n", false);
        assert!(!call.is_timed(false) && call.is_timed(true));
    }
    let mut refused = proxy.chat("acme", BODY);
    refused.answer_headers("429", &[]);
    assert!(refused.is_timed(false));
}

#[test]
fn the_tier_falls_with_the_budget_and_every_response_says_so() {
    let proxy = Proxy::new(&config());
    let tier = |used: u64| {
        let call = proxy.served("acme", BODY, used, 0);
        let text = |name| call.response_header(name).unwrap_or("").to_owned();
        let sent: Value = serde_json::from_slice(&call.upstream_body).unwrap();
        assert_eq!(sent["model"], text("x-bursar-model"));
        assert_eq!(text("x-bursar-requested-model"), "gpt-4o");
        [
            text("x-bursar-tier"),
            text("x-bursar-model"),
            text("x-bursar-decision"),
            text("x-bursar-reason"),
        ]
        .join(" ")
    };
    assert_eq!(tier(500), "default gpt-4o admit ");
    assert_eq!(tier(1), "default gpt-4o admit ");
    assert_eq!(tier(299), "standard gpt-4.1-mini downgrade budget_low");
    assert_eq!(tier(1), "standard gpt-4.1-mini downgrade budget_low");
    assert_eq!(tier(1), "compact gpt-4o-mini downgrade budget_low");
    // Another tenant is untouched.
    assert_eq!(
        proxy.chat("globex", BODY).upstream_header("x-bursar-tier"),
        Some("default")
    );
    assert_eq!(
        proxy.metric(
            "bursar_requests_total.tenant=.=acme;.;tier=.=compact;.;decision=.=downgrade;.;"
        ),
        1
    );
    for (tier, count) in [("standard", 2), ("compact", 1), ("default", 0)] {
        let name = format!(
            "bursar_downgraded_total.tenant=.=acme;.;tier=.={tier};.;reason=.=budget_low;.;"
        );
        assert_eq!(proxy.metric(&name), count, "{tier}");
    }
    assert!(proxy.metric("bursar_saved_total.tenant=.=acme;.;") > 0);
}

// What is no LLM call is neither charged nor blocked. A client may send headers under our names.
#[test]
fn everything_else_passes_but_for_headers_that_only_we_may_set() {
    let proxy = Proxy::new(&config());
    let sent = [
        (":method", "GET"),
        (":path", "/v1/models"),
        ("x-bursar-tier", "compact"),
        ("x-other", "1"),
    ];
    let mut call = proxy.request(&sent, true);
    assert_eq!(call.upstream_header("x-bursar-tier"), None);
    assert_eq!(call.upstream_headers.len(), 3);
    call.answer_headers("200", &[("content-type", "application/json")]);
    assert_eq!(call.response_headers.len(), 2);
    call.end();
    assert_eq!(proxy.store.keys(), 0);
}

#[test]
fn without_a_tenant_a_request_is_refused_passed_or_someone_elses() {
    let call = |missing: Value| {
        let proxy = Proxy::new(&with(|config| {
            config["tenant"] = json!({"missing": missing});
        }));
        let mut call = proxy.post(&[("content-length", "55")]);
        call.send(&[BODY.as_bytes()]);
        (call.refused().map(|(status, _)| status), proxy.store.keys())
    };
    assert_eq!(call(json!("reject")), (Some(401), 0));
    assert_eq!(call(json!("pass")), (None, 0));
    assert_eq!(call(json!({"tenant": "acme"})), (None, 1));
}

// Each change of the model costs a conversation its prompt cache.
#[test]
fn a_conversation_goes_down_the_ladder_and_never_back_within_a_window() {
    let proxy = Proxy::new(&config());
    let mut tiers = Vec::new();
    for _ in 0..48 {
        let call = proxy.served("acme", BODY, 15, 5);
        tiers.push(call.fields["bursar_tier"].clone());
        proxy.pass_millis(60_000);
    }
    let mut steps = tiers.clone();
    steps.dedup();
    assert_eq!(steps, ["default", "standard", "compact"]);
    // A new window begins at the top again.
    proxy.pass_millis(86_400_000);
    let call = proxy.served("acme", BODY, 15, 5);
    assert_eq!(call.fields["bursar_tier"], "default");
}

// A lower model may lack tools, vision or structured output, or reject signed thinking.
#[test]
fn a_request_that_a_lower_tier_would_break_keeps_the_nearest_better_one() {
    let proxy = Proxy::new(&with(|config| {
        config["tiers"][1]["supports"] = json!(["tools"]);
        config["tiers"][2]["supports"] = json!([]);
    }));
    proxy.served("acme", BODY, 820, 0);
    let ask = |more: &str| {
        let body = BODY.replace("\"messages\"", &format!("{more},\"messages\""));
        let call = proxy.chat("acme", &body);
        let told = |key: &str| call.fields.get(key).cloned().unwrap_or_default();
        let step = [
            told("bursar_tier"),
            told("bursar_decision"),
            told("bursar_reason"),
        ];
        let mut call = call;
        call.answer_headers("503", &[]);
        call.end();
        step
    };
    assert_eq!(ask(r#""x":1"#), ["compact", "downgrade", "budget_low"]);
    assert_eq!(
        ask(r#""tools":[{}]"#),
        ["standard", "downgrade", "budget_low"]
    );
    assert_eq!(
        ask(r#""response_format":{"type":"json_schema"}"#),
        ["default", "admit", "tier_unsupported"]
    );
}

#[test]
fn an_overdraft_serves_at_the_last_tier_and_then_ends() {
    let proxy = Proxy::new(&with(|config| {
        config["tenants"]["acme"]["on_exhausted"] = json!({"degrade": {"overdraft": 0.1}});
    }));
    proxy.served("acme", BODY, 990, 0);
    let call = proxy.served("acme", BODY, 60, 10);
    assert_eq!(
        call.response_header("x-bursar-reason"),
        Some("budget_exhausted")
    );
    assert_eq!(call.response_header("x-bursar-tier"), Some("compact"));
    assert_eq!(
        proxy.chat("acme", BODY).refused(),
        Some((429, "budget_exhausted"))
    );
}

#[test]
fn a_request_for_a_lower_tier_is_never_upgraded_and_never_downgrade_means_never() {
    let proxy = Proxy::new(&with(|config| {
        config["tenants"]["globex"]["never_downgrade"] = true.into();
    }));
    let mini = BODY.replace("gpt-4o", "gpt-4o-mini");
    let call = proxy.served("acme", &mini, 1, 1);
    assert_eq!(call.response_header("x-bursar-tier"), Some("compact"));
    assert_eq!(call.response_header("x-bursar-decision"), Some("admit"));
    proxy.served("globex", BODY, 900, 0);
    let call = proxy.served("globex", BODY, 1, 1);
    assert_eq!(call.response_header("x-bursar-model"), Some("gpt-4o"));
}

#[test]
fn a_model_on_no_ladder_keeps_its_name_and_is_metered() {
    let proxy = Proxy::new(&config());
    let call = proxy.served("acme", &BODY.replace("gpt-4o", "llama\\n3"), 850, 1);
    assert_eq!(call.response_header("x-bursar-model"), Some("llama?3"));
    assert_eq!(call.response_header("x-bursar-tier"), Some("unlisted"));
    assert_eq!(spent(&proxy, "acme"), 851);
    let name =
        "bursar_tokens_total.tenant=.=acme;.;tier=.=unlisted;.;model=.=other;.;kind=.=input;.;";
    assert_eq!(proxy.metric(name), 850);
}

#[test]
fn a_model_on_no_ladder_is_served_for_that_reason_where_there_are_ladders() {
    let kept = "bursar_kept_total.tenant=.=acme;.;tier=.=unlisted;.;reason=.=model_unlisted;.;";
    for hold in [false, true] {
        let proxy = Proxy::new(&with(|config| config["hold_headers"] = hold.into()));
        let call = proxy.served("acme", &BODY.replace("gpt-4o", "llama"), 1, 1);
        let reason = Some("model_unlisted");
        assert_eq!(call.response_header("x-bursar-reason"), reason);
        let logged = call.fields.get("bursar_reason").map(String::as_str);
        assert_eq!(logged, reason);
        assert_eq!(proxy.metric(kept), 1);
        let listed = proxy.served("acme", BODY, 1, 1);
        assert_eq!(listed.response_header("x-bursar-reason"), None);
        let proxy = Proxy::new(&with(|config| {
            config["hold_headers"] = hold.into();
            config.as_object_mut().unwrap().remove("tiers");
        }));
        let call = proxy.served("acme", BODY, 1, 1);
        assert_eq!(call.response_header("x-bursar-reason"), None);
    }
}

#[test]
fn a_request_without_a_tenant_learns_where_one_is_looked_for() {
    let proxy = Proxy::new(&config());
    let call = proxy.post(&[]);
    assert_eq!(call.refused(), Some((401, "tenant_required")));
    let body = &call.reply.as_ref().unwrap().body;
    assert!(
        body.contains("Looked for in: header `x-tenant-id`."),
        "{body}"
    );
}

#[test]
fn names_that_only_we_may_set_are_taken_from_requests_trailers_and_responses() {
    let proxy = Proxy::new(&config());
    let mut call = proxy.post(&[
        ("x-tenant-id", "acme"),
        ("content-length", "55"),
        ("x_bursar_tier", "compact"),
        ("X-Bursar-Evil", "1"),
    ]);
    call.send(&[BODY.as_bytes()]);
    assert_eq!(call.upstream_header("x_bursar_tier"), None);
    assert_eq!(call.upstream_header("X-Bursar-Evil"), None);
    call.answer_headers(
        "200",
        &[
            ("x-bursar-reason", "evil"),
            ("x-ratelimit-limit-tokens", "30000000"),
            ("x-ratelimit-limit-tokens", "30000001"),
            ("content-type", "application/json"),
        ],
    );
    assert_eq!(call.response_header("x-bursar-reason"), None);
    let limits: Vec<&str> = call
        .response_headers
        .iter()
        .filter(|(name, _)| name == "x-ratelimit-limit-tokens")
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(limits, ["1000"]);
    call.answer_trailers(&[("x-bursar-reason", "evil"), ("x-sum", "1")]);
    assert_eq!(call.response_trailers, [("x-sum".into(), "1".into())]);
}

#[test]
fn an_overdraft_on_the_model_that_was_asked_for_is_no_downgrade() {
    let proxy = Proxy::new(&with(|config| {
        config["tenants"]["acme"]["on_exhausted"] = json!({"degrade": {"overdraft": 0.2}});
    }));
    proxy.served("acme", BODY, 1000, 0);
    let call = proxy.served("acme", &BODY.replace("gpt-4o", "gpt-4o-mini"), 1, 1);
    assert_eq!(call.response_header("x-bursar-decision"), Some("admit"));
    assert_eq!(
        call.response_header("x-bursar-reason"),
        Some("budget_exhausted")
    );
}

#[test]
fn in_streaming_mode_too_no_overdraft_is_given_to_a_tenant_that_is_never_downgraded_and_the_bucket_is_asked_again()
 {
    let proxy = Proxy::new(&with(|config| {
        config["hold_headers"] = false.into();
        config["tenants"]["acme"] = json!({"plan": "small", "never_downgrade": true, "on_exhausted": {"degrade": {"overdraft": 1}}});
        config["tenants"]["initech"]["budget"] = json!({"initial_budget": 100000, "window": "day"});
    }));
    for (tenant, output, refused) in [
        ("acme", 900, None),
        ("acme", 980, Some((429, "budget_exhausted"))),
        ("initech", 80, None),
        ("initech", 95, Some((429, "request_exceeds_burst"))),
    ] {
        let mut call = proxy.post(&[("x-tenant-id", tenant)]);
        call.send_chunk(br#"{"model":"gpt-4o-mini","#, false);
        call.send(&[format!(r#""max_tokens":{output}}}"#).as_bytes()]);
        assert_eq!(call.refused(), refused, "{tenant} {output}");
        if refused.is_none() {
            call.answer_headers("500", &[]);
        }
    }
}

#[test]
fn what_a_downgrade_saved_is_the_difference() {
    let proxy = Proxy::new(&config());
    proxy.served("acme", BODY, 900, 0);
    proxy.served("acme", BODY, 20, 10);
    // 20 × (2.5 − 0.15) + 10 × (10 − 0.6) micros, each price rounded up.
    assert_eq!(proxy.metric("bursar_saved_total.tenant=.=acme;.;"), 150 - 9);
}
