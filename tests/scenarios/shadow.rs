//! Shadow mode: whatever would have been done is told, and nothing of it is done.
#![cfg(not(target_arch = "wasm32"))]

use crate::proxy::{Proxy, usage};
use bursar::state::store::tenant_key;
use proptest::prelude::*;
use serde_json::{Value, json};

/// 1,000 tokens a day and 10,000 an hour, for a tenant that only looks on.
fn config(hold: bool) -> Value {
    json!({
        "hold_headers": hold,
        "tiers": [
            {"name": "default", "model": "gpt-4o"},
            {"name": "standard", "model": "gpt-4.1-mini", "below": 0.5},
            {"name": "compact", "model": "gpt-4o-mini", "below": 0.2, "max_output_tokens": 50}
        ],
        "plans": {"looking": {
            "budget": {"initial_budget": 1000, "window": "day"},
            "bucket": {"tokens_per_window": 10000, "window": "1h"},
            "shadow": true
        }},
        "tenants": {"acme": {"plan": "looking"}, "globex": {"plan": "looking", "shadow": false},
                    "initech": {"plan": "looking", "min_output_tokens": 5}}
    })
}

const BODY: &str = r#"{"model":"gpt-4o","max_tokens":60,"messages":["hello"]}"#;

fn shadowed(proxy: &Proxy, decision: &str, reason: &str) -> u64 {
    proxy.metric(&format!(
        "bursar_shadow_total.tenant=.=acme;.;decision=.={decision};.;reason=.={reason};.;"
    ))
}

/// Sends a body, and checks that the upstream gets that very body and the client its answer; what would have been done.
#[track_caller]
fn told(proxy: &Proxy, tenant: &str, body: &str, used: u64) -> String {
    let mut call = proxy.chat(tenant, body);
    assert_eq!(call.refused(), None);
    assert_eq!(call.upstream_text(), body);
    call.answer_json(&usage(used, 0));
    call.end();
    assert_eq!(call.response_header("x-bursar-decision"), Some("admit"));
    let told = call.response_header("x-bursar-shadow").unwrap();
    assert_eq!(call.fields["bursar_shadow"], told);
    assert_eq!(proxy.record(tenant).account.held().tokens.0, 0);
    told.to_owned()
}

#[test]
fn what_would_have_been_done_is_told_and_everything_is_metered() {
    for hold in [true, false] {
        let proxy = Proxy::new(&config(hold));
        assert_eq!(told(&proxy, "acme", BODY, 501), "admit");
        let low = "downgrade;tier=standard;model=gpt-4.1-mini;reason=budget_low";
        assert_eq!(told(&proxy, "acme", BODY, 300), low);
        let limited =
            "downgrade;tier=compact;model=gpt-4o-mini;reason=budget_low;max_output_tokens=50";
        assert_eq!(told(&proxy, "acme", BODY, 199), limited);
        // Spent, and more is spent all the same.
        for _ in 0..2 {
            let refused = "throttle;reason=budget_exhausted";
            assert_eq!(told(&proxy, "acme", BODY, 700), refused);
        }
        assert_eq!(proxy.record("acme").account.spent.tokens.0, 2_400);
        let counted = [
            ("admit", "", 1),
            ("downgrade", "budget_low", 2),
            ("throttle", "budget_exhausted", 2),
        ];
        for (decision, reason, count) in counted {
            assert_eq!(shadowed(&proxy, decision, reason), count, "{decision}");
        }
        let served = "bursar_requests_total.tenant=.=acme;.;tier=.=default;.;decision=.=admit;.;";
        assert_eq!(proxy.metric(served), 5);
        // A tenant of the same plan that does not look on is refused.
        proxy.served("globex", BODY, 1_000, 0);
        assert_eq!(proxy.chat("globex", BODY).refused().unwrap().0, 429);
    }
}

#[test]
fn no_limit_of_the_output_is_lowered() {
    let proxy = Proxy::new(&config(true));
    assert_eq!(told(&proxy, "initech", BODY, 930), "admit");
    let would = "downgrade;tier=compact;model=gpt-4o-mini;reason=budget_low;max_output_tokens=15";
    assert_eq!(told(&proxy, "initech", BODY, 1), would);
}

#[test]
fn a_request_that_would_have_been_refused_takes_nothing_from_the_bucket() {
    let proxy = Proxy::new(&json!({
        "tenants": {"acme": {"bucket": {"tokens_per_window": 1000, "window": "10s"}, "shadow": true}}
    }));
    let body = r#"{"model":"gpt-4o","max_tokens":500,"messages":["hello"]}"#;
    // Twice as fast as it refills: as with limits that are enforced, about every second one.
    let refused = (0..100).filter(|_| {
        proxy.pass_millis(2_500);
        told(&proxy, "acme", body, 500) == "throttle;reason=bucket_empty"
    });
    assert!((48..=52).contains(&refused.count()));
}

#[test]
fn a_body_that_cannot_be_read_goes_on() {
    let refuse = "refuse;reason=invalid_request_body";
    for hold in [true, false] {
        for body in [
            "no json",
            r#"{"model":7}"#,
            r#"{"model":"gpt-4o","messages":["#,
            r#"{"model":"gpt-4o","max_tokens":5} x"#,
            r#"{"model":"gpt-4o","model":"gpt-4o-mini","max_tokens":5}"#,
        ] {
            let proxy = Proxy::new(&config(hold));
            let length = body.len().to_string();
            let mut call = proxy.post(&[("x-tenant-id", "acme"), ("content-length", &length)]);
            call.send(&body.as_bytes().chunks(9).collect::<Vec<_>>());
            assert_eq!(call.refused(), None, "{body}");
            assert_eq!(call.upstream_text(), body);
            assert!(call.headers_gone);
            call.answer_headers("400", &[("x-bursar-shadow", "admit")]);
            call.end();
            assert_eq!(call.response_header("x-bursar-shadow"), Some(refuse));
            assert_eq!(call.response_header("x-bursar-decision"), Some("admit"));
            assert_eq!(call.fields["bursar_shadow"], refuse, "{body}");
        }
    }
    let proxy = Proxy::new(&config(true));
    // One without any body.
    let headers = [
        (":method", "POST"),
        (":path", "/v1/chat/completions"),
        ("x-tenant-id", "acme"),
    ];
    let mut call = proxy.request(&headers, true);
    assert_eq!(call.refused(), None);
    call.answer_headers("400", &[]);
    assert_eq!(call.response_header("x-bursar-shadow"), Some(refuse));
    assert_eq!(shadowed(&proxy, "refuse", "invalid_request_body"), 1);
}

#[test]
fn a_request_that_turned_out_unreadable_after_its_admission_is_metered_all_the_same() {
    let proxy = Proxy::new(&config(false));
    let mut call = proxy.post(&[("x-tenant-id", "acme")]);
    call.send(&[
        br#"{"model":"gpt-4o","max_tokens":5"#,
        br#","n":"x","n":1}"#,
    ]);
    assert_eq!(call.refused(), None);
    call.answer_json(&usage(30, 12));
    call.end();
    let account = proxy.record("acme").account;
    assert_eq!((account.spent.tokens.0, account.held().tokens.0), (42, 0));
    assert_eq!(shadowed(&proxy, "refuse", "invalid_request_body"), 1);
}

#[test]
fn without_a_state_nothing_is_refused_either() {
    let mut config = config(true);
    config["failure_mode"] = "deny".into();
    let proxy = Proxy::new(&config);
    proxy.store.plant(&tenant_key("acme"), b"no record");
    assert_eq!(told(&proxy, "acme", BODY, 5), "admit");
    proxy.store.set_down(true);
    let mut call = proxy.chat("acme", BODY);
    assert_eq!(call.refused(), None);
    call.answer_json(&usage(5, 0));
    assert_eq!(
        call.response_header("x-bursar-shadow"),
        Some("refuse;reason=budget_unavailable")
    );
}

#[test]
fn a_capacity_that_cannot_be_had_or_is_full_refuses_nothing() {
    let mut config = config(true);
    config["failure_mode"] = "deny".into();
    for tier in config["tiers"].as_array_mut().unwrap() {
        tier["capacity"] = json!({"tokens_per_window": 100, "window": "1h", "reserved": {"critical": 0, "standard": 0}});
    }
    let proxy = Proxy::new(&config);
    assert_eq!(told(&proxy, "acme", BODY, 90), "admit");
    let full = "throttle;reason=tier_capacity";
    assert_eq!(
        told(&proxy, "acme", BODY, 90),
        "downgrade;tier=standard;model=gpt-4.1-mini;reason=tier_capacity"
    );
    proxy.served("globex", BODY, 90, 0);
    proxy.served("globex", BODY, 90, 0);
    assert_eq!(told(&proxy, "acme", BODY, 9), full);
    proxy.store.lose_keys("bursar/v1/capacity/");
    let unknown = "refuse;reason=budget_unavailable";
    assert_eq!(told(&proxy, "acme", BODY, 9), unknown);
}

#[test]
fn a_request_whose_tenant_is_not_known_has_no_plan_and_is_refused() {
    let proxy = Proxy::new(&config(true));
    assert_eq!(proxy.chat("stranger", BODY).refused().unwrap().0, 403);
}

proptest! {
    #[test]
    fn any_bytes_go_on_as_they_came(
        body in prop::collection::vec(prop_oneof![
            Just(b'{'), Just(b'"'), Just(b'\\'), Just(b'}'), Just(b':'), Just(b' '), any::<u8>()], 0..60),
        start in prop_oneof![Just(""), Just(r#"{"model":"gpt-4o","max_tokens":9,"#), Just(r#"{"max_tokens":9999,"model":"gpt-4o""#), Just(r#"{"model":"gpt-4o"}"#)],
        hold in any::<bool>(), promised in any::<bool>(), cuts in prop::collection::vec(any::<usize>(), 0..5), spent in 0..2_000_u64,
    ) {
        let proxy = Proxy::new(&config(hold));
        proxy.served("acme", r#"{"model":"gpt-4o","max_tokens":1}"#, spent, 0);
        let body = [start.as_bytes(), &body].concat();
        let length = body.len().to_string();
        let mut headers = vec![("x-tenant-id", "acme")];
        headers.extend(promised.then_some(("content-length", length.as_str())));
        let mut call = proxy.post(&headers);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (body.len() + 1)).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        call.send(&cuts.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect::<Vec<_>>());
        prop_assert_eq!(call.refused(), None);
        prop_assert_eq!(&call.upstream_body, &body);
        call.answer_json(&usage(3, 4));
        call.end();
        prop_assert!(call.response_header("x-bursar-shadow").is_some());
        prop_assert_eq!(proxy.record("acme").account.held().tokens.0, 0);
    }
}
