//! Requests that are refused: by which limit, for how long, and that nothing is charged for them.

use crate::opening::{BODY, MESSAGES, RESERVED, config, held, post, spent, with};
use crate::proxy::{Proxy, usage};
use bursar::base::units::Cost;
use bursar::state::store::tenant_key;
use serde_json::json;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

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

// Elsewhere a bucket did not refill for two years: time has to pass in a test. SDKs go by retry-after,
// retry-after-ms and x-should-retry, each in its own way.
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

// A rate limiter in the place of a budget made large budgets unreachable elsewhere.
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

// Elsewhere refused clients drained the limit of all.
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

#[test]
fn a_limit_of_zero_or_below_is_none_except_where_zero_is_zero() {
    let held = |limit: &str| {
        let proxy = Proxy::new(&with(|config| {
            config["plans"]["small"]["budget"]["initial_budget"] = 9_999.into();
        }));
        let body = format!(r#"{{"model":"gpt-4o","max_tokens":{limit}}}"#);
        proxy.chat("acme", &body);
        held(&proxy, "acme") - body.len() as u64
    };
    assert_eq!([held("-1"), held("0"), held("7")], [1_024, 1_024, 7]);
    // Anthropic's API then reads the prompt into its cache, and answers nothing.
    let proxy = Proxy::new(&config());
    let body = r#"{"model":"gpt-4o","max_tokens":0,"messages":[]}"#;
    let call = post(&proxy, "acme", MESSAGES, body, 9);
    assert_eq!(crate::opening::held(&proxy, "acme"), body.len() as u64);
    assert_eq!(call.upstream_text(), body);
}

// `model` may come first or last, nested, escaped, or as text within a string. Bodies may be nested deeply, huge,
// cut off, or come byte by byte.
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

#[test]
fn a_spent_budget_is_refused_before_the_upstream_hears_of_it_in_streaming_mode_too() {
    let proxy = Proxy::new(&with(|config| config["hold_headers"] = false.into()));
    proxy.served("acme", BODY, 1000, 0);
    let call = proxy.post(&[("x-tenant-id", "acme")]);
    assert_eq!(call.refused(), Some((429, "budget_exhausted")));
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
fn what_no_window_can_hold_is_not_told_to_wait_for_one() {
    let proxy = Proxy::new(&config());
    let call = proxy.chat("acme", r#"{"model":"gpt-4o","max_tokens":1001}"#);
    assert_eq!(call.refused(), Some((429, "budget_exhausted")));
    assert_eq!(call.reply_header("retry-after"), None);
    assert_eq!(call.reply_header("x-should-retry"), Some("false"));
    assert_eq!(call.reply_header("x-bursar-model"), Some("gpt-4o"));
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
