//! Whole exchanges against a fake store and a fake clock: one scenario a test, each ends with the ledger.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a failed set-up is a failed test"
)]

#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/store.rs"]
mod store;

use std::time::Duration;

use bursar::record::Record;
use bursar::store::{owner_of, slot_keys, tenant_key};
use bursar::units::Cost;
use proxy::{Proxy, usage};
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// 1,000 tokens a day for `acme`, three tiers, held headers.
fn config() -> Value {
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

fn with(change: impl Fn(&mut Value)) -> Value {
    let mut config = config();
    change(&mut config);
    config
}

/// 54 bytes, so that it reserves 64 tokens: a byte each and ten of output.
const BODY: &str = r#"{"model":"gpt-4o","max_tokens":10,"messages":["hello"]}"#;
const RESERVED: u64 = 65;

fn held(proxy: &Proxy, tenant: &str) -> u64 {
    proxy.record(tenant).account.held().tokens.0
}

fn spent(proxy: &Proxy, tenant: &str) -> u64 {
    proxy.record(tenant).account.spent.tokens.0
}

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

#[test]
fn a_spent_budget_refuses_until_the_window_ends() {
    let proxy = Proxy::new(&config());
    proxy.served("acme", BODY, 990, 0);
    let call = proxy.chat("acme", BODY);
    assert_eq!(call.refused(), Some((429, "budget_exhausted")));
    assert_eq!(call.reply_header("retry-after"), Some("43200"));
    assert_eq!(call.reply_header("x-should-retry"), Some("false"));
    assert_eq!(call.reply_header("x-bursar-decision"), Some("throttle"));
    assert!(!call.headers_gone);
    proxy.pass_millis(43_200_000);
    assert_eq!(proxy.chat("acme", BODY).refused(), None);
}

#[test]
fn what_is_held_by_others_is_told_apart_from_what_is_spent() {
    let proxy = Proxy::new(&config());
    let calls: Vec<_> = (0..15).map(|_| proxy.chat("acme", BODY)).collect();
    assert_eq!(held(&proxy, "acme"), 15 * RESERVED);
    let call = proxy.chat("acme", BODY);
    assert_eq!(call.refused(), Some((429, "budget_held")));
    assert_eq!(call.reply_header("retry-after"), Some("1"));
    for mut call in calls {
        call.answer_json(&usage(1, 1));
    }
    assert_eq!((held(&proxy, "acme"), spent(&proxy, "acme")), (0, 30));
}

#[test]
fn a_refusal_waits_for_the_requests_end_so_that_the_connection_stays() {
    for hold in [true, false] {
        let proxy = Proxy::new(&with(|config| config["hold_headers"] = hold.into()));
        let body = r#"{"model":"gpt-4o","max_tokens":101}"#;
        let length = body.len().to_string();
        let mut call = proxy.post(&[("x-tenant-id", "initech"), ("content-length", &length)]);
        call.send_chunk(body.as_bytes(), false);
        assert_eq!(call.refused(), None);
        assert_eq!(call.upstream_text(), "");
        call.send_chunk(b"", true);
        assert_eq!(call.refused(), Some((429, "request_exceeds_burst")));
    }
}

// cases.md 14, 38
#[test]
fn an_empty_bucket_says_when_to_the_millisecond() {
    let proxy = Proxy::new(&config());
    // 14 expected for the prompt and 10 of output, four times: 96 of 100.
    let reserved: Vec<_> = (0..4).map(|_| proxy.chat("initech", BODY)).collect();
    let refused = proxy.chat("initech", BODY);
    assert_eq!(refused.refused(), Some((429, "bucket_empty")));
    assert_eq!(refused.reply_header("retry-after"), Some("2"));
    assert_eq!(refused.reply_header("retry-after-ms"), Some("2000"));
    proxy.pass_millis(1_999);
    let early = proxy.chat("initech", BODY);
    assert_eq!(early.reply_header("retry-after-ms"), Some("1"));
    proxy.pass_millis(1);
    assert_eq!(proxy.chat("initech", BODY).refused(), None);
    drop(reserved);
}

// cases.md 13
#[test]
fn a_budget_larger_than_its_bucket_can_be_spent_to_the_last_token() {
    let proxy = Proxy::new(&with(|config| {
        config["tenants"]["acme"]["bucket"] = json!({"tokens_per_window": 100, "window": "10s"});
    }));
    for served in 0..10 {
        if served > 0 {
            assert_eq!(
                proxy.chat("acme", BODY).refused(),
                Some((429, "bucket_empty"))
            );
            proxy.pass_millis(10_000);
        }
        assert_eq!(proxy.served("acme", BODY, 60, 40).refused(), None);
    }
    assert_eq!(spent(&proxy, "acme"), 1000);
    assert_eq!(
        proxy.chat("acme", BODY).refused(),
        Some((429, "budget_exhausted"))
    );
}

// cases.md 10
#[test]
fn a_refused_request_charges_nothing_anywhere() {
    let proxy = Proxy::new(&with(|config| {
        config["tenants"]["acme"]["bucket"] = json!({"tokens_per_window": 1000, "window": "10s"});
    }));
    proxy.served("acme", BODY, 990, 0);
    proxy.pass_millis(60_000);
    let before = proxy.store.value(&tenant_key("acme"));
    assert_eq!(
        proxy.chat("acme", BODY).refused(),
        Some((429, "budget_exhausted"))
    );
    assert_eq!(proxy.store.value(&tenant_key("acme")), before);
    assert_eq!(
        proxy.metric("bursar_throttled_total.tenant=.=acme;.;reason=.=budget_exhausted;.;"),
        1
    );
}

#[test]
fn what_can_never_fit_is_not_told_to_wait() {
    let proxy = Proxy::new(&config());
    let call = proxy.chat("initech", r#"{"model":"gpt-4o","max_tokens":101}"#);
    assert_eq!(call.refused(), Some((429, "request_exceeds_burst")));
    assert_eq!(call.reply_header("retry-after"), None);
    assert_eq!(call.reply_header("x-should-retry"), Some("false"));
}

// cases.md 24
#[test]
fn an_upstream_that_refuses_or_fails_returns_all() {
    for status in ["400", "404", "429", "500", "503", "302"] {
        let proxy = Proxy::new(&config());
        let mut call = proxy.chat("acme", BODY);
        call.answer_headers(status, &[("content-type", "application/json")]);
        call.answer_chunk(usage(9, 9).as_bytes(), true);
        call.end();
        assert_eq!(proxy.record("acme").account.held(), Cost::ZERO);
        assert_eq!(spent(&proxy, "acme"), 0);
        assert_eq!(call.fields["bursar_settled_by"], "none");
        assert_eq!(call.response_header("x-bursar-tier"), Some("default"));
    }
}

// cases.md 16
#[test]
fn usage_is_found_in_a_body_at_every_split() {
    let body = usage(120, 30);
    for split in 0..=body.len() {
        let proxy = Proxy::new(&config());
        let mut call = proxy.chat("acme", BODY);
        call.answer_headers(
            "200",
            &[("content-type", "application/json; charset=utf-8")],
        );
        let (head, tail) = body.as_bytes().split_at(split);
        call.answer_chunk(head, false);
        call.answer_chunk(tail, false);
        call.answer_chunk(b"", true);
        assert_eq!(spent(&proxy, "acme"), 150, "split at {split}");
    }
}

const STREAMED: &str = r#"{"model":"gpt-4o","max_tokens":10,"stream":true}"#;

fn stream(usage: &str) -> String {
    let delta = |text: &str| {
        format!(
            "data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}],\"usage\":null}}\n\n"
        )
    };
    format!("{}{}{usage}data: [DONE]\n\n", delta("Grüße"), delta(" 🎉"))
}

const USAGE_EVENT: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":5,\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n";

// cases.md 15, 18, 21
#[test]
fn usage_of_a_stream_is_asked_for_read_at_every_split_and_kept_from_a_client_that_did_not_ask() {
    let whole = stream(USAGE_EVENT);
    for split in 0..=whole.len() {
        let proxy = Proxy::new(&config());
        let mut call = proxy.chat("acme", STREAMED);
        let expected = r#"{"model":"gpt-4o","max_tokens":10,"stream":true,"stream_options":{"include_usage":true}}"#;
        assert_eq!(call.upstream_text(), expected);
        assert_eq!(
            call.upstream_header("content-length"),
            Some(expected.len().to_string().as_str())
        );
        call.answer_headers(
            "200",
            &[
                ("content-type", "text/event-stream"),
                ("content-length", "1"),
            ],
        );
        assert_eq!(call.response_header("content-length"), None);
        let (head, tail) = whole.as_bytes().split_at(split);
        call.answer_chunk(head, false);
        call.answer_chunk(tail, false);
        assert_eq!(spent(&proxy, "acme"), 25, "split at {split}");
        call.answer_chunk(b"", true);
        call.end();
        assert_eq!(
            String::from_utf8(call.response_body.clone()).unwrap(),
            stream("")
        );
        assert_eq!(call.fields["bursar_cached_tokens"], "4");
        assert_eq!((held(&proxy, "acme"), spent(&proxy, "acme")), (0, 25));
    }
}

#[test]
fn a_client_that_asked_for_usage_gets_it() {
    let proxy = Proxy::new(&config());
    let body = r#"{"model":"gpt-4o","stream_options":{"include_usage":true},"stream":true}"#;
    let mut call = proxy.chat("acme", body);
    // No max_tokens: more is reserved than the budget has.
    assert_eq!(call.refused(), Some((429, "budget_exhausted")));
    let body = body.replace("\"stream\":true", "\"stream\":true,\"max_tokens\":10");
    call = proxy.chat("acme", &body);
    assert_eq!(call.upstream_text(), body);
    call.answer_headers("200", &[("content-type", "text/event-stream")]);
    call.answer_chunk(stream(USAGE_EVENT).as_bytes(), true);
    assert_eq!(
        String::from_utf8(call.response_body).unwrap(),
        stream(USAGE_EVENT)
    );
    assert_eq!(spent(&proxy, "acme"), 25);
}

#[test]
fn other_stream_options_stay() {
    for (options, expected) in [
        (r#"{"x":1}"#, r#"{"include_usage":true,"x":1}"#),
        (r#"{"include_usage":false}"#, r#"{"include_usage":true}"#),
        ("null", r#"{"include_usage":true}"#),
    ] {
        let proxy = Proxy::new(&config());
        let body = |options| {
            format!(
                r#"{{"stream":true,"stream_options":{options},"model":"gpt-4o","n":1,"max_tokens":1}}"#
            )
        };
        let call = proxy.chat("acme", &body(options));
        assert_eq!(call.upstream_text(), body(expected));
    }
}

// cases.md 21
#[test]
fn a_stream_without_usage_is_settled_by_what_was_seen() {
    let proxy = Proxy::new(&config());
    let mut call = proxy.chat("acme", STREAMED);
    call.answer_headers("200", &[("content-type", "text/event-stream")]);
    call.answer_chunk(stream("").as_bytes(), true);
    // 49 bytes of prompt and two events.
    assert_eq!((held(&proxy, "acme"), spent(&proxy, "acme")), (0, 12 + 2));
    assert_eq!(call.fields["bursar_settled_by"], "estimate");
}

// cases.md 22
#[test]
fn a_reported_zero_is_zero() {
    let proxy = Proxy::new(&config());
    let call = proxy.served("acme", BODY, 0, 0);
    assert_eq!((held(&proxy, "acme"), spent(&proxy, "acme")), (0, 0));
    assert_eq!(call.fields["bursar_settled_by"], "usage");
}

// cases.md 23
#[test]
fn a_client_that_leaves_early_is_charged_once() {
    // Before the response: the prompt. In the stream: what came. At `[DONE]`: what was reported.
    for (events, expected) in [
        (None, 12),
        (Some(stream("").replace("data: [DONE]\n\n", "")), 14),
        (Some(stream(USAGE_EVENT)), 25),
    ] {
        let proxy = Proxy::new(&config());
        let mut call = proxy.chat("acme", STREAMED);
        if let Some(events) = events {
            call.answer_headers("200", &[("content-type", "text/event-stream")]);
            call.answer_chunk(events.as_bytes(), false);
        }
        call.end();
        call.end();
        assert_eq!((held(&proxy, "acme"), spent(&proxy, "acme")), (0, expected));
    }
}

#[test]
fn a_request_that_was_cut_costs_nothing() {
    let proxy = Proxy::new(&with(|config| config["hold_headers"] = false.into()));
    let mut call = proxy.post(&[("x-tenant-id", "acme"), ("content-length", "500")]);
    call.send_chunk(br#"{"model":"gpt-4o","max_tokens":10,"mess"#, false);
    assert_eq!(held(&proxy, "acme"), 500 + 10);
    call.end();
    assert_eq!((held(&proxy, "acme"), spent(&proxy, "acme")), (0, 0));
}

// cases.md 25
#[test]
fn a_compressed_answer_in_spite_of_identity_is_settled_by_estimate() {
    let proxy = Proxy::new(&config());
    let mut call = proxy.chat("acme", BODY);
    assert_eq!(call.upstream_header("accept-encoding"), Some("identity"));
    call.answer_headers(
        "200",
        &[
            ("content-type", "application/json"),
            ("content-encoding", "gzip"),
        ],
    );
    call.answer_chunk(&[0x1f; 20], true);
    assert_eq!(call.fields["bursar_settled_by"], "estimate");
    // 55 bytes of prompt and 20 of answer, four to a token.
    assert_eq!(spent(&proxy, "acme"), 14 + 5);
}

// cases.md 40
#[test]
fn our_own_answer_is_not_accounted() {
    let proxy = Proxy::new(&config());
    let mut call = proxy.chat("nobody", BODY);
    assert_eq!(call.refused(), Some((403, "tenant_unknown")));
    call.answer_headers("403", &[("content-type", "application/json")]);
    call.answer_chunk(b"{}", true);
    call.end();
    assert_eq!(call.response_headers.len(), 2);
    assert_eq!(proxy.store.keys(), 0);
    assert_eq!(proxy.metric("bursar_settlements_total.by=.=none;.;"), 0);
}

// cases.md 28, 42
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

// cases.md 37
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

// cases.md 35
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
fn a_limit_below_zero_is_none_and_zero_is_zero() {
    let held = |limit: &str| {
        let proxy = Proxy::new(&with(|config| {
            config["plans"]["small"]["budget"]["initial_budget"] = 9_999.into();
        }));
        let body = format!(r#"{{"model":"gpt-4o","max_tokens":{limit}}}"#);
        proxy.chat("acme", &body);
        held(&proxy, "acme") - body.len() as u64
    };
    assert_eq!([held("-1"), held("0"), held("7")], [1_024, 0, 7]);
}

// cases.md 30, 43
#[test]
fn a_body_that_is_not_what_it_should_be_is_refused_and_nothing_stays_held() {
    for body in [
        "",
        "[]",
        "null",
        "{}",
        r#"{"model":1}"#,
        r#"{"model":"a","model":"b"}"#,
        r#"{"model":"gpt-4o""#,
        r#"{"model":"gpt-4o","max_tokens":1,"max_tokens":9}"#,
        r#"{"model":"gpt-4o"}}"#,
        r#"{"x":1}"#,
        r#"{"model":"gpt-4o","max_tokens":1,"max_completion_tokens":"50000"}"#,
        r#"{"model":"gpt-4o","max_tokens":1.5}"#,
        r#"{"model":"gpt-4o","max_tokens":-1.5}"#,
        r#"{"model":"gpt-4o","n":-1}"#,
        r#"{"model":"gpt-4o","stream":"true"}"#,
        r#"{"model":"gpt-4o","stream":1}"#,
        r#"{"model":"gpt-4o","stream_options":[]}"#,
    ] {
        for hold in [true, false] {
            let proxy = Proxy::new(&with(|config| config["hold_headers"] = hold.into()));
            let call = proxy.chat("umbrella", body);
            assert_eq!(
                call.refused(),
                Some((400, "invalid_request_body")),
                "{body} {hold}"
            );
            let key = tenant_key("umbrella");
            let held = proxy
                .store
                .value(&key)
                .map(|_| proxy.record("umbrella").account.held());
            assert_eq!(held.unwrap_or_default(), Cost::ZERO);
        }
    }
}

// cases.md 31, 32
#[test]
fn any_chunking_in_either_mode_sends_the_same_bytes() {
    let body = "{\"a\": [ {\"model\":\"x\"} ],\n \"mod\\u0065l\" : \"gpt\\u002d4o\" , \"n\":1.0e0,\"max_tokens\":10,\"t\":\"é\", \"stream\" : true }";
    let expected = body.replace("\"gpt\\u002d4o\"", "\"gpt-4o-mini\"").replace(
        "true }",
        "true ,\"stream_options\":{\"include_usage\":true}}",
    );
    let length = body.len().to_string();
    for hold in [true, false] {
        for split in 0..=body.len() {
            let proxy = Proxy::new(&with(|config| config["hold_headers"] = hold.into()));
            proxy.served("acme", BODY, 810, 0);
            let mut call = proxy.post(&[("x-tenant-id", "acme"), ("content-length", &length)]);
            let (head, tail) = body.as_bytes().split_at(split);
            call.send(&[head, tail]);
            assert_eq!(
                call.upstream_text(),
                expected,
                "split at {split}, held: {hold}"
            );
            let promised = hold.then(|| expected.len().to_string());
            assert_eq!(call.upstream_header("content-length"), promised.as_deref());
            assert_eq!(
                call.upstream_header("x-bursar-tier"),
                hold.then_some("compact")
            );
        }
        let proxy = Proxy::new(&with(|config| config["hold_headers"] = hold.into()));
        proxy.served("acme", BODY, 810, 0);
        let mut call = proxy.post(&[("x-tenant-id", "acme")]);
        call.send(&body.as_bytes().chunks(1).collect::<Vec<_>>());
        assert_eq!(call.upstream_text(), expected, "byte by byte, held: {hold}");
        assert_eq!(
            held(&proxy, "acme"),
            u64::try_from(body.len()).unwrap() + 10
        );
    }
}

#[test]
fn what_is_learned_after_the_model_has_passed_is_reserved_or_refused() {
    let proxy = Proxy::new(&with(|config| config["hold_headers"] = false.into()));
    let head = br#"{"model":"gpt-4o","max_tokens":1"#;
    for (tail, refused, reserved) in [
        ("0}", None, 44),
        ("0000}", Some((429, "budget_exhausted")), 0),
    ] {
        let mut call = proxy.post(&[("x-tenant-id", "acme")]);
        call.send_chunk(head, false);
        assert_eq!(held(&proxy, "acme"), 32);
        call.send(&[tail.as_bytes()]);
        assert_eq!(call.refused(), refused);
        assert_eq!(held(&proxy, "acme"), reserved);
        // The upstream has not got the last byte of what was refused.
        assert_eq!(call.upstream_body.ends_with(b"}"), refused.is_none());
        call.end();
    }
}

// cases.md 33
#[test]
fn a_body_too_long_to_be_held_passes_and_still_tells_its_tier_if_its_model_comes_first() {
    let proxy = Proxy::new(&with(|config| config["hold_bytes"] = 100.into()));
    for (first, tier) in [(true, Some("default")), (false, None)] {
        let filler = "x".repeat(200);
        let body = match first {
            true => format!(r#"{{"model":"gpt-4o","max_tokens":1,"x":"{filler}"}}"#),
            false => format!(r#"{{"x":"{filler}","model":"gpt-4o","max_tokens":1}}"#),
        };
        let length = body.len().to_string();
        let mut call = proxy.post(&[("x-tenant-id", "acme"), ("content-length", &length)]);
        assert!(!call.headers_gone);
        call.send(&body.as_bytes().chunks(90).collect::<Vec<_>>());
        assert_eq!(call.upstream_text(), body);
        assert_eq!(call.upstream_header("x-bursar-tier"), tier);
        assert_eq!(call.upstream_header("content-length"), None);
        call.end();
    }
}

/// Budgets for long bodies, which pass.
fn allow_long(config: &mut Value) {
    config["hold_bytes"] = 1_000.into();
    config["plans"]["small"]["budget"]["initial_budget"] = 1_000_000.into();
}

// cases.md 32
#[test]
fn a_long_body_that_passes_keeps_a_length_that_is_true() {
    let filler = "x".repeat(40_000);
    for (body, expected) in [
        (
            format!(r#"{{"x":"{filler}","model":"gpt-4o"}}"#),
            format!(r#"{{"x":"{filler}","model":"gpt-4o-mini"}}"#),
        ),
        (
            format!(r#"{{"model":"gpt\u002d4o","x":"{filler}"}} "#),
            format!(r#"{{"model":"gpt-4o-mini","x":"{filler}"}} "#),
        ),
        (
            format!(r#"{{"x":"{filler}","stream":true,"model":"gpt-4o"}}"#),
            format!(
                r#"{{"x":"{filler}","stream":true,"model":"gpt-4o-mini","stream_options":{{"include_usage":true}}}}"#
            ),
        ),
        (
            format!(r#"{{"stream_options":null,"x":"{filler}","stream":true,"model":"gpt-4o"}}"#),
            format!(
                r#"{{"stream_options":{{"include_usage":true}},"x":"{filler}","stream":true,"model":"gpt-4o-mini"}}"#
            ),
        ),
        (
            format!(r#"{{"x":"{filler}","model":"gpt-9"}}"#),
            format!(r#"{{"x":"{filler}","model":"gpt-9"}}"#),
        ),
    ] {
        for hold in [true, false] {
            let mut texts = Vec::new();
            for size in [7, 1_000, 16_384, body.len() - 1, body.len()] {
                let proxy = Proxy::new(&with(|config| {
                    config["hold_headers"] = hold.into();
                    allow_long(config);
                }));
                proxy.served("acme", BODY, 810_000, 0);
                let length = body.len().to_string();
                let mut call = proxy.post(&[("x-tenant-id", "acme"), ("content-length", &length)]);
                call.send(&body.as_bytes().chunks(size).collect::<Vec<_>>());
                assert_eq!(call.refused(), None);
                let promised = call.upstream_header("content-length").map(str::to_owned);
                assert_eq!(promised, Some(call.upstream_body.len().to_string()));
                let after = call.upstream_text().strip_prefix(&expected);
                assert!(after.is_some_and(|after| after.bytes().all(|byte| byte == b' ')));
                texts.push(call.upstream_text().to_owned());
                call.end();
            }
            texts.dedup();
            assert_eq!(texts.len(), 1);
        }
    }
}

#[test]
fn nothing_is_added_where_nothing_can_change() {
    let filler = "x".repeat(40_000);
    let body = format!(r#"{{"input":"{filler}","model":"gpt-4o"}}"#);
    let length = body.len().to_string();
    let proxy = Proxy::new(&with(|config| {
        allow_long(config);
        config["tiers"] = json!([{"name": "only", "model": "gpt-4o"}]);
    }));
    let headers = [
        (":method", "POST"),
        (":path", "/v1/embeddings"),
        ("x-tenant-id", "acme"),
        ("content-length", &length),
    ];
    let mut call = proxy.request(&headers, false);
    call.send(&[body.as_bytes()]);
    assert_eq!(call.upstream_text(), body);
    assert_eq!(call.upstream_header("content-length"), Some(&*length));
}

// cases.md 32
#[test]
fn a_body_that_is_not_as_long_as_it_says_never_goes_on_to_its_end() {
    let proxy = Proxy::new(&with(allow_long));
    let body = format!(r#"{{"x":"{}","model":"gpt-4o"}}"#, "x".repeat(40_000));
    for (said, tail) in [
        (body.len() + 1, ""),
        (body.len() - 1, ""),
        (body.len(), " "),
        (body.len() + 2, " "),
    ] {
        let said = said.to_string();
        let mut call = proxy.post(&[("x-tenant-id", "acme"), ("content-length", &said)]);
        call.send(&[
            &body.as_bytes()[..20_000],
            &body.as_bytes()[20_000..],
            tail.as_bytes(),
        ]);
        assert_eq!(call.refused(), Some((400, "invalid_request_body")));
        call.end();
        assert_eq!(held(&proxy, "acme"), 0);
    }
    // Options that would take more room if they were written in another way.
    let numbers = "1E9,".repeat(200);
    let options = format!(r#""z":[{numbers}0]}},"model""#);
    let asked = body.replace(
        "\"model\"",
        &format!(r#""stream":true,"stream_options":{{{options}"#),
    );
    let mut call = proxy.post(&[
        ("x-tenant-id", "acme"),
        ("content-length", &asked.len().to_string()),
    ]);
    call.send(&[asked.as_bytes()]);
    let sent = call.upstream_text();
    let asking = format!(r#""stream_options":{{"include_usage":true,{options}"#);
    assert!(sent.contains(&asking));
    let promised = call.upstream_header("content-length");
    assert_eq!(promised, Some(sent.len().to_string().as_str()));
}

#[test]
fn a_spent_budget_is_refused_before_the_upstream_hears_of_it_in_streaming_mode_too() {
    let proxy = Proxy::new(&with(|config| config["hold_headers"] = false.into()));
    proxy.served("acme", BODY, 1000, 0);
    let call = proxy.post(&[("x-tenant-id", "acme")]);
    assert_eq!(call.refused(), Some((429, "budget_exhausted")));
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
fn lost_races_are_tried_again_and_counted() {
    let proxy = Proxy::new(&config());
    proxy.store.lose(3);
    assert_eq!(proxy.chat("acme", BODY).refused(), None);
    assert_eq!(proxy.metric("bursar_state_conflicts_total"), 3);
    assert_eq!(held(&proxy, "acme"), RESERVED);
}

#[test]
fn without_our_state_the_failure_mode_decides_and_what_was_used_counts_all_the_same() {
    let proxy = Proxy::new(&config());
    proxy.store.set_down(true);
    let mut call = proxy.chat("acme", BODY);
    assert_eq!(call.refused(), None);
    proxy.store.set_down(false);
    call.answer_json(&usage(10, 10));
    assert_eq!(
        call.response_header("x-bursar-reason"),
        Some("budget_unavailable")
    );
    assert_eq!(spent(&proxy, "acme"), 20);
    assert_eq!(proxy.metric("bursar_state_given_up_total"), 1);

    let proxy = Proxy::new(&with(|config| config["failure_mode"] = "deny".into()));
    proxy.store.set_down(true);
    assert_eq!(
        proxy.chat("acme", BODY).refused(),
        Some((503, "budget_unavailable"))
    );
    assert_eq!(proxy.metric("bursar_state_given_up_total"), 1);
}

#[test]
fn a_settlement_is_tried_twice_and_counted_where_it_is_lost_all_the_same() {
    for (lost, given_up, left) in [(256, 0, 0), (512, 1, RESERVED)] {
        let proxy = Proxy::new(&config());
        let mut call = proxy.chat("acme", BODY);
        proxy.store.lose(lost);
        call.answer_json(&usage(10, 10));
        call.end();
        assert_eq!(proxy.metric("bursar_state_given_up_total"), given_up);
        assert_eq!(held(&proxy, "acme"), left);
    }
}

// cases.md 46
#[test]
fn a_foreign_value_is_treated_as_absent_or_refused_once() {
    for (mode, first) in [("allow", None), ("deny", Some((503, "budget_unavailable")))] {
        let proxy = Proxy::new(&with(|config| config["failure_mode"] = mode.into()));
        proxy.store.plant(&tenant_key("acme"), b"somebody else's");
        assert_eq!(proxy.chat("acme", BODY).refused(), first);
        assert_eq!(proxy.metric("bursar_state_corrupt_total"), 1);
        assert_eq!(proxy.chat("acme", BODY).refused(), None);
    }
}

// cases.md 6, 7
#[test]
fn a_changed_configuration_keeps_what_was_spent_and_what_is_in_flight() {
    let proxy = Proxy::new(&config());
    proxy.served("acme", BODY, 500, 490);
    assert_eq!(
        proxy.chat("acme", BODY).refused(),
        Some((429, "budget_exhausted"))
    );
    proxy.configure(&with(|config| {
        config["plans"] =
            json!({"renamed": {"budget": {"initial_budget": 2000, "window": "month"}}});
        config["tenants"] = json!({"acme": {"plan": "renamed"}});
    }));
    let mut call = proxy.chat("acme", BODY);
    assert_eq!(call.refused(), None);
    proxy.configure(&with(|config| {
        config["plans"]["small"]["budget"]["initial_budget"] = 10.into();
    }));
    assert_eq!(
        proxy.chat("acme", BODY).refused(),
        Some((429, "budget_exhausted"))
    );
    call.answer_json(&usage(5, 5));
    assert_eq!((held(&proxy, "acme"), spent(&proxy, "acme")), (0, 1000));
}

// cases.md 3, 4
#[test]
fn a_reservation_outlives_a_slow_answer_and_not_a_trap() {
    let proxy = Proxy::new(&with(|config| config["reservation_expiry"] = "60s".into()));
    let mut slow = proxy.chat("acme", STREAMED);
    // The VM traps: nothing is ever heard of this one again.
    drop(proxy.chat("acme", BODY));
    slow.answer_headers("200", &[("content-type", "text/event-stream")]);
    let both = held(&proxy, "acme");
    for _ in 0..10 {
        proxy.pass_millis(29_000);
        slow.answer_chunk(b"data: {\"choices\":[{}]}\n\n", false);
    }
    drop(proxy.chat("acme", BODY));
    assert_eq!(held(&proxy, "acme"), both);
    slow.answer_chunk(stream(USAGE_EVENT).as_bytes(), true);
    assert_eq!(
        (held(&proxy, "acme"), spent(&proxy, "acme")),
        (RESERVED, 25)
    );
}

// cases.md 3, 24
#[test]
fn a_reservation_is_renewed_when_half_of_its_time_is_over_and_not_with_each_event() {
    let proxy = Proxy::new(&with(|config| config["reservation_expiry"] = "60s".into()));
    let mut slow = proxy.chat("acme", STREAMED);
    slow.answer_headers("200", &[("content-type", "text/event-stream")]);
    let since = || proxy.record("acme").account.holds[0].since;
    let first = since();
    for (millis, late) in [(29_999, 0), (1, 30_000), (29_999, 30_000)] {
        proxy.pass_millis(millis);
        slow.answer_chunk(b"data: {\"choices\":[{}]}\n\n", false);
        assert_eq!(since().since(first), Duration::from_millis(late));
    }
}

#[test]
fn every_exit_is_counted_by_its_cause_and_leaves_nothing_held() {
    type Way = fn(&Proxy);
    let ways: [(&str, Way); 6] = [
        ("answered", |proxy| drop(proxy.served("acme", BODY, 1, 1))),
        ("upstream_refused", |proxy| {
            proxy.chat("acme", BODY).answer_headers("404", &[]);
        }),
        ("upstream_failed", |proxy| {
            proxy.chat("acme", BODY).answer_headers("504", &[]);
        }),
        ("cut", |proxy| {
            let mut call = proxy.chat("acme", BODY);
            call.answer_headers("200", &[("content-type", "application/json")]);
            call.end();
        }),
        ("unanswered", |proxy| proxy.chat("acme", BODY).end()),
        ("unsent", |proxy| {
            let mut call = proxy.post(&[("x-tenant-id", "acme")]);
            call.send_chunk(br#"{"model":"gpt-4o","#, false);
            call.end();
        }),
    ];
    for (cause, way) in ways {
        let proxy = Proxy::new(&config());
        way(&proxy);
        assert_eq!(
            proxy.metric(&format!("bursar_exits_total.cause=.={cause};.;")),
            1,
            "{cause}"
        );
        assert_eq!(held(&proxy, "acme"), 0, "{cause}");
    }
}

// cases.md 44
#[test]
fn tenants_that_are_not_configured_share_bounded_keys_and_one_label() {
    let proxy = Proxy::new(&with(|config| {
        config["tenant"] = json!({"unknown": {"plan": "small"}});
    }));
    for n in 0..6_000 {
        proxy.served(&format!("made-up-{n}"), BODY, 10, 0);
    }
    assert!(proxy.store.keys() <= 4_097);
    assert_eq!(proxy.chat("acme", BODY).refused(), None);
    // The next day the slots are free again: those that came too late for one now have one, with a budget of their own.
    proxy.pass_millis(86_400_000);
    for n in 5_980..6_000 {
        let call = proxy.served(&format!("made-up-{n}"), BODY, 10, 0);
        assert_eq!(call.fields["bursar_remaining"], "990");
        let gauge = format!("bursar_budget_remaining.tenant=.=made-up-{n};.;");
        assert_eq!(proxy.metric(&gauge), 0);
    }
    assert_eq!(
        proxy.metric("bursar_settlements_total.by=.=usage;.;"),
        6_000
            - proxy.metric(
                "bursar_throttled_total.tenant=.=unconfigured;.;reason=.=budget_exhausted;.;"
            )
            + 20
    );
}

#[test]
fn numbers_are_taken_as_they_are_meant() {
    let proxy = Proxy::new(&with(|config| {
        config["plans"]["small"]["budget"]["initial_budget"] = json!(1e6);
    }));
    for (asked, output) in [
        (r#""max_tokens":5e2"#, 500),
        (r#""max_tokens":500.0,"n":2"#, 1_000),
        (r#""max_tokens":10,"max_completion_tokens":700"#, 700),
        (r#""max_tokens":700,"max_completion_tokens":null"#, 700),
        (r#""n":3"#, 3 * 1_024),
    ] {
        let body = format!(r#"{{"model":"gpt-4o",{asked}}}"#);
        let mut call = proxy.chat("acme", &body);
        assert_eq!(
            held(&proxy, "acme"),
            u64::try_from(body.len()).unwrap() + output,
            "{asked}"
        );
        call.answer_headers("500", &[]);
    }
}

#[test]
fn usage_is_asked_for_wherever_the_options_stand_and_however_early_they_pass() {
    let parts = [
        r#""model":"gpt-4o""#,
        r#""stream":true"#,
        r#""stream_options":{"include_usage":false}"#,
        r#""max_tokens":1"#,
    ];
    for order in [
        [0, 1, 2, 3],
        [2, 1, 0, 3],
        [2, 3, 1, 0],
        [1, 2, 3, 0],
        [3, 2, 0, 1],
    ] {
        let body = format!("{{{}}}", order.map(|part| parts[part]).join(","));
        for hold in [true, false] {
            let proxy = Proxy::new(&with(|config| config["hold_headers"] = hold.into()));
            let mut call = proxy.post(&[("x-tenant-id", "acme")]);
            call.send(&body.as_bytes().chunks(7).collect::<Vec<_>>());
            assert_eq!(
                call.upstream_text(),
                body.replace("false", "true"),
                "{body}"
            );
        }
    }
}

// Azure's API refuses `stream_options` before 2024-09-01-preview, Mistral's (on Vertex AI) at all: neither stream could be
// had. (openai/openai-python#1469, dnakov/anon-kode#53)
#[test]
fn usage_is_not_asked_of_an_api_that_does_not_know_the_question() {
    let azure = "/openai/deployments/d/chat/completions?api-version=";
    let vertex = "/v1/projects/p/locations/l/publishers/mistralai/models/m:streamRawPredict";
    let body = r#"{"model":"m","max_tokens":9,"stream":true}"#;
    for (path, is_asked) in [
        (format!("{azure}2024-06-01"), false),
        (format!("{azure}2023-12-01-preview&x=1"), false),
        (format!("{azure}2024-09-01-preview"), true),
        (format!("{azure}2024-10-21"), true),
        (format!("{azure}preview"), true),
        ("/openai/deployments/d/chat/completions".to_owned(), true),
        (
            "/v1/chat/completions?api-version=2024-06-01".to_owned(),
            true,
        ),
        (vertex.to_owned(), false),
    ] {
        let proxy = Proxy::new(&config());
        let headers = [
            (":method", "POST"),
            (":path", &path),
            ("x-tenant-id", "acme"),
        ];
        let mut call = proxy.request(&headers, false);
        call.send(&[body.as_bytes()]);
        assert_eq!(call.upstream_text() != body, is_asked, "{path}");
        call.answer_headers("200", &[("content-type", "text/event-stream")]);
        call.answer_chunk(stream("").as_bytes(), true);
        assert_eq!(call.fields["bursar_settled_by"], "estimate");
    }
}

#[test]
fn an_estimate_is_not_cut_to_what_the_client_said_it_would_need() {
    let proxy = Proxy::new(&config());
    let mut call = proxy.chat("acme", &STREAMED.replace("10", "1"));
    call.answer_headers("200", &[("content-type", "text/event-stream")]);
    for _ in 0..20 {
        call.answer_chunk(b"data: {\"choices\":[{}]}\n\n", false);
    }
    call.end();
    assert_eq!(spent(&proxy, "acme"), 12 + 20);
}

// An upstream may answer before it has all of the request; the rest of it is read and changed all the same.
#[test]
fn an_early_answer_stops_neither_the_rewrite_nor_the_checks_nor_the_settlement() {
    let early = |body: &str, split: usize| {
        let proxy = Proxy::new(&with(|config| config["hold_headers"] = false.into()));
        proxy.served("acme", BODY, 850, 0);
        let mut call = proxy.post(&[("x-tenant-id", "acme")]);
        call.send_chunk(&body.as_bytes()[..split], false);
        call.answer_headers("200", &[("content-type", "text/event-stream")]);
        call.send_chunk(&body.as_bytes()[split..], false);
        call.send_chunk(b"", true);
        let refused = call.refused().map(|(status, _)| status);
        if refused.is_none() {
            call.answer_chunk(stream(USAGE_EVENT).as_bytes(), true);
        }
        call.end();
        (
            refused,
            String::from_utf8(call.upstream_body).unwrap(),
            spent(&proxy, "acme"),
            held(&proxy, "acme"),
        )
    };
    let body = r#"{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":false},"max_tokens":9}"#;
    let sent = body
        .replace("gpt-4o", "gpt-4o-mini")
        .replace("false", "true");
    for split in 1..body.len() {
        assert_eq!(
            early(body, split),
            (None, sent.clone(), 850 + 25, 0),
            "split at {split}"
        );
    }
    let late = early(&body.replace(":9}", ":900}"), 40);
    assert_eq!((late.0, late.2, late.3), (Some(429), 850, 0));
    let late = early(&body.replace("\"max_tokens\"", "\"model\""), 40);
    assert_eq!((late.0, late.2, late.3), (Some(400), 850, 0));
}

#[test]
fn an_early_refusal_of_the_upstream_returns_all_and_takes_nothing_again() {
    for head in [r#"{"model":"gpt-4o","#, r#"{"n":1,"#] {
        let proxy = Proxy::new(&with(|config| config["hold_headers"] = false.into()));
        let mut call = proxy.post(&[("x-tenant-id", "acme")]);
        call.send_chunk(head.as_bytes(), false);
        call.answer_headers("503", &[]);
        let rest = if head.contains("model") {
            r#""max_tokens":5}"#
        } else {
            r#""model":"gpt-4o","max_tokens":5}"#
        };
        call.send(&[rest.as_bytes()]);
        call.end();
        assert_eq!(
            (held(&proxy, "acme"), spent(&proxy, "acme")),
            (0, 0),
            "{head}"
        );
        assert_eq!(
            proxy.metric("bursar_exits_total.cause=.=upstream_failed;.;"),
            1
        );
    }
}

// cases.md 23
#[test]
fn an_early_answer_that_is_cut_is_charged_though_the_request_was_not_over() {
    let proxy = Proxy::new(&with(|config| config["hold_headers"] = false.into()));
    let mut call = proxy.post(&[("x-tenant-id", "acme")]);
    call.send_chunk(STREAMED.as_bytes(), false);
    call.answer_headers("200", &[("content-type", "text/event-stream")]);
    call.answer_chunk(b"data: {\"choices\":[{}]}\n\n", false);
    call.end();
    assert_eq!(call.fields["bursar_settled_by"], "estimate");
    assert_eq!((held(&proxy, "acme"), spent(&proxy, "acme")), (0, 12 + 1));
    assert_eq!(proxy.metric("bursar_exits_total.cause=.=cut;.;"), 1);
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
fn a_settlement_that_could_not_be_written_is_tried_again_at_the_end() {
    let proxy = Proxy::new(&config());
    let mut call = proxy.chat("acme", BODY);
    proxy.store.set_down(true);
    call.answer_json(&usage(10, 10));
    proxy.store.set_down(false);
    call.end();
    assert_eq!((held(&proxy, "acme"), spent(&proxy, "acme")), (0, 20));
    assert_eq!(proxy.metric("bursar_settlements_total.by=.=usage;.;"), 1);
}

// cases.md 19, 23
#[test]
fn the_last_event_counts_though_only_trailers_or_a_cut_end_it() {
    type End = fn(&mut proxy::Call<'_>);
    let ends: [(&str, End); 2] = [
        ("answered", |call| call.answer_trailers(&[])),
        ("cut", |_| {}),
    ];
    for (cause, end) in ends {
        let proxy = Proxy::new(&config());
        let mut call = proxy.chat("acme", STREAMED);
        call.answer_headers("200", &[("content-type", "text/event-stream")]);
        call.answer_chunk(USAGE_EVENT.trim_end().as_bytes(), false);
        end(&mut call);
        call.end();
        assert_eq!((held(&proxy, "acme"), spent(&proxy, "acme")), (0, 25));
        let exits = proxy.metric(&format!("bursar_exits_total.cause=.={cause};.;"));
        assert_eq!(exits, 1, "{cause}");
    }
}

#[test]
fn what_no_window_can_hold_is_not_told_to_wait_for_one() {
    let proxy = Proxy::new(&config());
    let call = proxy.chat("acme", r#"{"model":"gpt-4o","max_tokens":1001}"#);
    assert_eq!(call.refused(), Some((429, "budget_exhausted")));
    assert_eq!(call.reply_header("retry-after"), None);
    assert_eq!(call.reply_header("x-should-retry"), Some("false"));
    assert_eq!(call.reply_header("x-bursar-model"), Some("gpt-4o"));
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
fn what_was_learned_late_is_what_is_told_and_settled_by() {
    let proxy = Proxy::new(&with(|config| config["hold_headers"] = false.into()));
    let mut call = proxy.post(&[("x-tenant-id", "acme")]);
    call.send_chunk(br#"{"model":"gpt-4o","#, false);
    let rest = format!(
        r#""max_tokens":100,"stream":true,"x":"{}"}}"#,
        "x".repeat(400)
    );
    call.send(&[rest.as_bytes()]);
    call.answer_headers("200", &[("content-type", "text/event-stream")]);
    let left = 1000 - held(&proxy, "acme");
    assert_eq!(
        call.response_header("x-ratelimit-remaining-tokens"),
        Some(left.to_string().as_str())
    );
    call.answer_chunk(stream(USAGE_EVENT).as_bytes(), false);
    assert!(
        !String::from_utf8(call.response_body.clone())
            .unwrap()
            .contains("prompt_tokens")
    );
    // Cut without usage: the prompt is all of the body.
    let mut cut = proxy.post(&[("x-tenant-id", "globex")]);
    cut.send_chunk(br#"{"model":"gpt-4o","#, false);
    cut.send(&[rest.as_bytes()]);
    cut.end();
    assert_eq!(
        spent(&proxy, "globex"),
        (18 + u64::try_from(rest.len()).unwrap()).div_ceil(4)
    );
}

#[test]
fn under_deny_what_cannot_be_reserved_in_the_end_is_refused() {
    let proxy = Proxy::new(&with(|config| {
        config["hold_headers"] = false.into();
        config["failure_mode"] = "deny".into();
    }));
    let mut call = proxy.post(&[("x-tenant-id", "acme")]);
    call.send_chunk(br#"{"model":"gpt-4o","#, false);
    proxy.store.lose(16);
    call.send(&[br#""max_tokens":500}"#]);
    assert_eq!(call.refused(), Some((503, "budget_unavailable")));
    assert_eq!(held(&proxy, "acme"), 0);
}

#[test]
fn what_a_downgrade_saved_is_the_difference() {
    let proxy = Proxy::new(&config());
    proxy.served("acme", BODY, 900, 0);
    proxy.served("acme", BODY, 20, 10);
    // 20 × (2.5 − 0.15) + 10 × (10 − 0.6) micros, each price rounded up.
    assert_eq!(proxy.metric("bursar_saved_total.tenant=.=acme;.;"), 150 - 9);
}

// cases.md 20, 23
#[test]
fn of_several_usages_the_last_counts_and_done_settles_it() {
    let proxy = Proxy::new(&config());
    let mut call = proxy.chat("acme", STREAMED);
    call.answer_headers("200", &[("content-type", "text/event-stream")]);
    for output in [1, 2, 7] {
        let event = format!(
            "data: {{\"choices\":[{{}}],\"usage\":{{\"prompt_tokens\":5,\"completion_tokens\":{output}}}}}\n\n"
        );
        call.answer_chunk(event.as_bytes(), false);
    }
    assert_eq!(spent(&proxy, "acme"), 0);
    call.answer_chunk(b"data: [DONE]\n\n", false);
    assert_eq!(spent(&proxy, "acme"), 12);
}

#[test]
fn cached_tokens_are_never_more_than_the_prompt() {
    let proxy = Proxy::new(&config());
    let mut call = proxy.chat("acme", BODY);
    call.answer_json(r#"{"usage":{"prompt_tokens":5,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":50}}}"#);
    assert_eq!(call.fields["bursar_cached_tokens"], "5");
    assert_eq!(spent(&proxy, "acme"), 6);
}

/// An id that looks for a slot where `alice` does.
fn who_shares_a_slot_with_alice(name: &str) -> String {
    let first = |name: &str| slot_keys(owner_of(name)).remove(0);
    (0..)
        .map(|n| format!("{name}-{n}"))
        .find(|id| first(id) == first("alice"))
        .unwrap()
}

#[test]
fn a_stranger_keeps_the_slot_that_holds_its_spend_though_a_better_one_falls_free() {
    let proxy = Proxy::new(&with(|config| {
        config["tenant"] = json!({"unknown": {"plan": "small"}});
    }));
    let bob = who_shares_a_slot_with_alice("bob");
    let mut alice = proxy.chat("alice", BODY);
    proxy.served(&bob, BODY, 10, 0);
    alice.answer_headers("500", &[]);
    let call = proxy.served(&bob, BODY, 10, 0);
    assert_eq!(call.fields["bursar_remaining"], "980");
}

#[test]
fn a_stranger_without_a_budget_leaves_its_slot_when_its_bucket_is_full_again() {
    let proxy = Proxy::new(&with(|config| {
        config["tenant"] = json!({"unknown": {"plan": "slow"}});
        config["plans"]["slow"] = json!({"bucket": {"tokens_per_window": 100, "window": "10s"}});
    }));
    let bob = who_shares_a_slot_with_alice("bob");
    proxy.served("alice", BODY, 50, 0);
    proxy.pass_millis(5_000);
    proxy.served(&bob, BODY, 50, 0);
    let slot = proxy.store.value(&slot_keys(owner_of("alice"))[0]).unwrap();
    assert_eq!(Record::decode(&slot).unwrap().owner, owner_of(&bob));
}

// cases.md 44
#[test]
fn two_strangers_who_share_a_slot_never_touch_each_others_record() {
    let proxy = Proxy::new(&with(|config| {
        config["tenant"] = json!({"unknown": {"plan": "small"}});
    }));
    let bob = who_shares_a_slot_with_alice("bob");
    let left = |call: &proxy::Call<'_>| call.fields["bursar_remaining"].clone();
    proxy.served("alice", BODY, 300, 0);
    let call = proxy.served(&bob, BODY, 10, 0);
    // Nor do they race for it: a request that finds no record would pass unmetered.
    assert_eq!(call.response_header("x-bursar-reason"), None);
    assert_eq!(left(&call), "990");
    assert_eq!(left(&proxy.served("alice", BODY, 10, 0)), "690");
    // Alice is in flight when the window ends; Bob takes the slot that she has left idle.
    let mut late = proxy.chat("alice", BODY);
    proxy.pass_millis(86_400_000);
    let carol = who_shares_a_slot_with_alice("carol");
    proxy.served(&carol, BODY, 700, 0);
    late.answer_json(&usage(500, 0));
    late.end();
    assert_eq!(left(&proxy.served(&carol, BODY, 1, 0)), "299");
    assert_eq!(left(&proxy.served("alice", BODY, 1, 0)), "999");
}

#[test]
fn an_answer_that_comes_in_the_next_window_tells_what_is_left_there() {
    let proxy = Proxy::new(&config());
    proxy.served("acme", BODY, 300, 0);
    let mut late = proxy.chat("acme", BODY);
    proxy.pass_millis(86_400_000);
    late.answer_json(&usage(9, 0));
    late.end();
    // What it used belongs to the window before, of which nothing is left here.
    assert_eq!(late.fields["bursar_remaining"], "1000");
    let gauge = "bursar_budget_remaining.tenant=.=acme;.;";
    assert_eq!(proxy.store.gauge(gauge), Some(1_000));
}

#[test]
fn a_lost_record_does_not_let_an_old_reservation_into_its_successor() {
    let proxy = Proxy::new(&config());
    let mut old = proxy.chat("acme", BODY);
    proxy.pass_millis(1);
    proxy.store.plant(&tenant_key("acme"), b"lost");
    drop(proxy.chat("acme", BODY));
    old.answer_json(&usage(1, 1));
    assert_eq!(held(&proxy, "acme"), RESERVED);
}

// cases.md 7, 8
#[test]
fn a_settlement_under_an_old_configuration_does_not_carry_spend_into_the_next_window() {
    let proxy = Proxy::new(&with(|config| {
        config["plans"]["small"]["budget"]["window"] = "month".into();
    }));
    let mut late = proxy.chat("acme", BODY);
    proxy.configure(&with(|config| {
        config["plans"]["small"]["budget"]["window"] = "hour".into();
    }));
    proxy.served("acme", BODY, 500, 0);
    late.answer_json(&usage(400, 0));
    assert_eq!(spent(&proxy, "acme"), 900);
    proxy.pass_millis(3_600_000);
    assert_eq!(
        proxy.served("acme", BODY, 1, 0).fields["bursar_remaining"],
        "999"
    );
}

/// Two ladders, and limits that are far away.
fn ample() -> Value {
    let unlimited = json!({
        "budget": {"initial_budget": 1e9, "window": "day"},
        "bucket": {"tokens_per_window": 1e9, "window": "1s"}
    });
    json!({
        "hold_headers": true,
        "ladders": [
            {"match": ["gpt-*"], "tiers": [{"name": "default", "model": "gpt-4o"}, {"name": "compact", "model": "gpt-4o-mini", "below": 0.2}]},
            {"tiers": [{"name": "sonnet", "model": "claude"}]}
        ],
        "tenants": {"acme": unlimited, "globex": unlimited}
    })
}

/// A prompt of 3,000 bytes and some.
fn prompt(model: &str, limit: &str) -> String {
    let text = "x".repeat(3_000);
    format!(r#"{{"model":"{model}",{limit}"messages":[{{"role":"user","content":"{text}"}}]}}"#)
}

/// What a request takes of a bucket that is full otherwise.
fn cells(proxy: &Proxy, tenant: &str, body: &str) -> u64 {
    proxy.pass_millis(10_000);
    let mut call = proxy.chat(tenant, body);
    let used = proxy.record(tenant).bucket.used;
    call.answer_headers("500", &[]);
    call.end();
    used
}

/// What a request holds on a budget on which nothing is held otherwise.
fn reserved(proxy: &Proxy, tenant: &str, body: &str) -> u64 {
    let mut call = proxy.chat(tenant, body);
    let held = held(proxy, tenant);
    call.answer_headers("500", &[]);
    call.end();
    held
}

#[test]
fn the_cells_of_a_prompt_follow_what_was_reported_to_its_tenant_and_the_reservation_stays_a_ceiling()
 {
    let proxy = Proxy::new(&ample());
    let limit = r#""max_tokens":10,"#;
    let (body, mini) = (prompt("gpt-4o", limit), prompt("gpt-4o-mini", limit));
    let length = body.len() as u64;
    assert_eq!(cells(&proxy, "acme", &body), length.div_ceil(4) + 10);
    for _ in 0..300 {
        proxy.served("acme", &body, length / 3, 10);
    }
    assert_eq!(cells(&proxy, "acme", &body), length / 3 + 10);
    assert_eq!(reserved(&proxy, "acme", &body), length + 10);
    // Neither another model's nor another tenant's.
    assert_eq!(cells(&proxy, "acme", &mini), (length + 5).div_ceil(4) + 10);
    assert_eq!(cells(&proxy, "globex", &body), length.div_ceil(4) + 10);
    // So is the input of a request of which none is reported.
    let before = spent(&proxy, "acme");
    proxy.chat("acme", &body).end();
    assert_eq!(spent(&proxy, "acme") - before, length / 3);
    // It is the tenant's state and outlives the configuration and the day.
    proxy.configure(&ample());
    proxy.pass_millis(86_400_000);
    assert_eq!(cells(&proxy, "acme", &body), length / 3 + 10);
}

#[test]
fn a_wait_that_was_told_stays_true_whatever_others_send_meanwhile() {
    let mut config = ample();
    config["tenants"]["acme"] = json!({"bucket": {"tokens_per_window": 1_000, "window": "10s"}});
    let proxy = Proxy::new(&config);
    let body = prompt("gpt-4o", r#""max_tokens":10,"#);
    proxy.served("acme", &body, 766, 10);
    let refused = proxy.chat("acme", &body);
    let wait = refused.reply_header("retry-after-ms").unwrap();
    let wait: u64 = wait.parse().unwrap();
    for _ in 0..100 {
        proxy.served("globex", &body, 3_000, 10);
    }
    proxy.pass_millis(wait - 1);
    let early = proxy.chat("acme", &body);
    assert_eq!(early.reply_header("retry-after-ms"), Some("1"));
    proxy.pass_millis(1);
    assert_eq!(proxy.chat("acme", &body).refused(), None);
}

#[test]
fn prompts_with_images_cached_ones_and_estimates_teach_nothing_of_text() {
    let proxy = Proxy::new(&ample());
    let body = prompt("gpt-4o", r#""max_tokens":10,"#);
    let expected = cells(&proxy, "acme", &body);
    let image = body.replace(
        r#""content":""#,
        r#""content":[{"type":"image_url","image_url":{"url":"data:"}}],"x":""#,
    );
    for _ in 0..100 {
        proxy.served("acme", &image, 100, 10);
        // The client leaves before the usage.
        proxy.chat("acme", &body).end();
        let mut refused = proxy.chat("acme", &body);
        refused.answer_headers("400", &[("content-type", "application/json")]);
        refused.answer_chunk(usage(1, 1).as_bytes(), true);
    }
    assert_eq!(cells(&proxy, "acme", &body), expected);
    let generate = "/v1beta/models/gpt-4o:generateContent";
    let body = format!(r#"{{"cachedContent":"c","x":"{}"}}"#, "x".repeat(3_000));
    for _ in 0..100 {
        let mut call = proxy.request(
            &[
                (":method", "POST"),
                (":path", generate),
                ("x-tenant-id", "acme"),
                ("content-length", &body.len().to_string()),
            ],
            false,
        );
        call.send(&[body.as_bytes()]);
        call.answer_json(
            r#"{"usageMetadata":{"promptTokenCount":100000,"candidatesTokenCount":1}}"#,
        );
        assert_eq!(call.fields["bursar_settled_by"], "usage");
    }
    assert_eq!(
        cells(&proxy, "acme", &prompt("gpt-4o", r#""max_tokens":10,"#)),
        expected
    );
}

#[test]
fn the_output_reserved_without_a_limit_follows_the_tenants_own_answers_from_that_model() {
    let proxy = Proxy::new(&ample());
    let body = prompt("gpt-4o", "");
    let length = body.len() as u64;
    let mini = prompt("gpt-4o-mini", "");
    assert_eq!(reserved(&proxy, "acme", &body), length + 1_024);
    for _ in 0..100 {
        proxy.served("acme", &body, length.div_ceil(4), 300);
        proxy.served("globex", &body, length.div_ceil(4), 9_000);
    }
    assert_eq!(reserved(&proxy, "acme", &body), length + 300);
    assert_eq!(cells(&proxy, "acme", &body), length.div_ceil(4) + 300);
    assert_eq!(reserved(&proxy, "globex", &body), length + 9_000);
    // Another model of the same ladder, and a limit that the request names.
    assert_eq!(reserved(&proxy, "acme", &mini), mini.len() as u64 + 1_024);
    let limited = prompt("gpt-4o", r#""max_tokens":2000,"#);
    assert_eq!(
        reserved(&proxy, "acme", &limited),
        limited.len() as u64 + 2_000
    );
    // Each of several answers may be as long, and teaches as much.
    let three = prompt("gpt-4o", r#""n":3,"#);
    for _ in 0..20 {
        proxy.served("acme", &three, 700, 900);
    }
    assert_eq!(reserved(&proxy, "acme", &three), three.len() as u64 + 900);
    // It is the tenant's state and outlives the configuration and the day.
    proxy.configure(&ample());
    proxy.pass_millis(86_400_000);
    assert_eq!(reserved(&proxy, "acme", &body), length + 300);
}

#[test]
fn a_body_that_passes_is_reserved_for_by_what_was_learned_too() {
    let mut config = ample();
    config["hold_headers"] = false.into();
    let proxy = Proxy::new(&config);
    let body = prompt("gpt-4o", "");
    for _ in 0..100 {
        proxy.served("acme", &body, 700, 300);
    }
    let mut call = proxy.post(&[
        ("x-tenant-id", "acme"),
        ("content-length", &body.len().to_string()),
    ]);
    call.send_chunk(&body.as_bytes()[..100], false);
    assert_eq!(held(&proxy, "acme"), body.len() as u64);
    call.send_chunk(&body.as_bytes()[100..], true);
    assert_eq!(held(&proxy, "acme"), body.len() as u64 + 300);
}

#[test]
fn answers_that_were_limited_cut_or_not_reported_teach_nothing_of_length() {
    let proxy = Proxy::new(&ample());
    let body = prompt("gpt-4o", "");
    for _ in 0..50 {
        proxy.served("acme", &prompt("gpt-4o", r#""max_tokens":5,"#), 700, 5);
        proxy.chat("acme", &body).end();
        let mut silent = proxy.chat("acme", &body);
        silent.answer_json(r#"{"choices":[]}"#);
        silent.end();
        let mut failed = proxy.chat("acme", &body);
        failed.answer_headers("500", &[]);
        failed.end();
    }
    assert_eq!(reserved(&proxy, "acme", &body), body.len() as u64 + 1_024);
}

#[test]
fn the_model_that_serves_is_the_one_that_is_learned_of() {
    let mut config = ample();
    config["tenants"]["acme"] =
        json!({"budget": {"initial_budget": 1e6, "window": "day"}, "low_water_mark": 1});
    let proxy = Proxy::new(&config);
    proxy.served("acme", &prompt("gpt-4o", r#""max_tokens":5,"#), 1, 0);
    for _ in 0..100 {
        let call = proxy.served("acme", &prompt("gpt-4o", ""), 700, 300);
        assert_eq!(call.upstream_header("x-bursar-tier"), Some("compact"));
    }
    let mini = prompt("gpt-4o-mini", "");
    assert_eq!(reserved(&proxy, "acme", &mini), mini.len() as u64 + 300);
    config["tenants"]["acme"]["never_downgrade"] = true.into();
    proxy.configure(&config);
    let body = prompt("gpt-4o", "");
    assert_eq!(reserved(&proxy, "acme", &body), body.len() as u64 + 1_024);
}

#[test]
fn a_flood_of_models_cannot_grow_the_record_nor_touch_another_tenants() {
    let proxy = Proxy::new(&ample());
    let body = prompt("gpt-4o", "");
    for _ in 0..50 {
        proxy.served("acme", &body, 700, 300);
        proxy.served("globex", &body, 700, 300);
    }
    let others = proxy.store.value(&tenant_key("globex"));
    for n in 0..2_000 {
        proxy.served("acme", &format!(r#"{{"model":"made-up-{n}"}}"#), 1, 9_000);
    }
    assert!(proxy.store.value(&tenant_key("acme")).unwrap().len() <= 946);
    assert_eq!(proxy.store.value(&tenant_key("globex")), others);
    // Its own first lesson is forgotten.
    assert_eq!(reserved(&proxy, "acme", &body), body.len() as u64 + 1_024);
}

#[test]
fn long_answers_in_the_past_refuse_nothing_that_the_prior_admits() {
    let limited = |budget: u64, bucket: u64| {
        let mut config = ample();
        config["tenants"]["acme"] = json!({
            "budget": {"initial_budget": budget, "window": "day"},
            "bucket": {"tokens_per_window": bucket, "window": "1s"}
        });
        config
    };
    let body = r#"{"model":"gpt-4o"}"#;
    let length = body.len() as u64;
    for (budget, bucket, held_then) in [
        (1_000_000, 1_000_000, length + 9_000),
        // What is left of the budget.
        (5_000, 1_000_000, 5_000),
        (length + 1_025, 1_000_000, length + 1_025),
        (length + 1_024, 1_000_000, length + 1_024),
        // What is left in the bucket: but for five cells of prompt.
        (1_000_000, 3_005, length + 3_000),
        (1_000_000, 1_029, length + 1_024),
    ] {
        let proxy = Proxy::new(&limited(10_000_000, 10_000_000));
        for _ in 0..100 {
            proxy.served("acme", body, 5, 9_000);
        }
        proxy.pass_millis(86_400_000);
        proxy.configure(&limited(budget, bucket));
        let mut first = proxy.chat("acme", body);
        assert_eq!(first.refused(), None, "{budget} {bucket}");
        assert_eq!(held(&proxy, "acme"), held_then, "{budget} {bucket}");
        first.answer_json(&usage(5, 5));
        proxy.pass_millis(1_000);
        let again = proxy.chat("acme", body).refused().is_none();
        assert_eq!(again, budget > length + 1_025, "{budget} {bucket}");
    }
    let proxy = Proxy::new(&limited(5_000, 1_000_000));
    let mut first = proxy.chat("acme", body);
    first.answer_json(&usage(5, 0));
    let exceeding = proxy.chat("acme", &body.replace('}', r#","n":5}"#));
    assert_eq!(exceeding.refused(), Some((429, "budget_exhausted")));
}

#[test]
fn a_stranger_who_gets_the_slot_of_another_begins_with_the_priors() {
    let mut config = ample();
    config["tenant"] = json!({"unknown": {"plan": "ample"}});
    config["plans"] = json!({"ample": config["tenants"]["acme"]});
    let body = prompt("gpt-4o", "");
    let first_key = |tenant: &str| slot_keys(owner_of(tenant))[0].clone();
    let shares = |tenant: &String| first_key(tenant) == first_key("stranger");
    let other = (0..).map(|n| format!("other-{n}")).find(shares).unwrap();
    let held_in_the_slot = |tenant: &str| {
        let proxy = Proxy::new(&config);
        for _ in 0..100 {
            proxy.served("stranger", &body, 700, 300);
        }
        // Whose window ends, is idle.
        proxy.pass_millis(86_400_000);
        let call = proxy.chat(tenant, &body);
        assert_eq!(call.refused(), None);
        assert_eq!(proxy.store.keys(), 1);
        let value = proxy.store.value(&first_key("stranger")).unwrap();
        Record::decode(&value).unwrap().account.held().tokens.0
    };
    assert_eq!(held_in_the_slot("stranger"), body.len() as u64 + 300);
    assert_eq!(held_in_the_slot(&other), body.len() as u64 + 1_024);
}
