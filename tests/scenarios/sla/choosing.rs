//! Which tier serves while one is slow, and how a recovered one is noticed.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn a_tier_that_begins_too_late_is_left_for_the_next_one_by_those_who_mind() {
    let proxy = Proxy::new(&config());
    answered_after(&proxy, "other", BODY, ENOUGH - 1, 2_000);
    assert_eq!(served(&proxy, "acme"), DEFAULT);
    answered_after(&proxy, "other", BODY, 1, 2_000);
    assert_eq!(p95(&proxy, "big", "whole"), 2_047);
    let mut call = proxy.chat("acme", BODY);
    assert_eq!(told(&mut call), STANDARD);
    assert_eq!(call.fields["bursar_reason"], "sla");
    assert_eq!(call.upstream_text(), BODY.replace("big", "middle"));
    for tenant in ["patient", "other", "loyal"] {
        assert_eq!(served(&proxy, tenant), DEFAULT);
    }
}

#[test]
fn with_the_next_tier_slow_too_it_is_the_one_below_and_with_all_of_them_the_first() {
    let proxy = Proxy::new(&config());
    answered_after(&proxy, "other", BODY, ENOUGH, 2_000);
    answered_after(&proxy, "other", &body("middle"), ENOUGH, 2_000);
    assert_eq!(served(&proxy, "acme"), COMPACT);
    answered_after(&proxy, "other", &body("small"), ENOUGH + 1, 2_000);
    assert_eq!(served(&proxy, "acme"), DEFAULT);
    // Never up.
    assert_eq!(
        told(&mut proxy.chat("acme", &body("small"))),
        "compact admit"
    );
}

#[test]
fn the_tier_of_a_low_budget_is_left_downwards_if_it_is_slow() {
    let proxy = Proxy::new(&config());
    answered_after(&proxy, "other", &body("middle"), ENOUGH, 2_000);
    proxy.served("poor", BODY, 600, 0);
    assert_eq!(served(&proxy, "poor"), COMPACT);
    assert_eq!(served(&proxy, "acme"), DEFAULT);
}

#[test]
fn a_recovered_tier_is_noticed_by_a_probe_every_ten_seconds() {
    let proxy = Proxy::new(&config());
    answered_after(&proxy, "acme", BODY, ENOUGH, 2_000);
    // A request each second, for as long as the tier is slow: one in ten is a probe, and all others are fast.
    let mut probes = Vec::new();
    for second in 0..50 {
        proxy.pass_millis(1_000);
        let mut call = proxy.chat("acme", BODY);
        let told = match call.upstream_header("x-bursar-tier") {
            Some("default") => {
                probes.push(second);
                proxy.pass_millis(2_000);
                told(&mut call)
            }
            _ => told(&mut call),
        };
        let expected = if probes.last() == Some(&second) {
            DEFAULT
        } else {
            STANDARD
        };
        assert_eq!(told, expected, "{second}");
    }
    assert_eq!(probes, [9, 19, 29, 39, 49]);
    // Now it is as fast as it was. The old times leave the window after two minutes at the latest.
    let recovered = (0..130).find(|_| {
        proxy.pass_millis(1_000);
        tier(&proxy, "acme") == "default" && {
            answered_after(&proxy, "acme", BODY, 1, 100);
            tier(&proxy, "acme") == "default"
        }
    });
    assert!((50..130).contains(&recovered.unwrap()), "{recovered:?}");
    let back: Vec<_> = (0..30).map(|_| served(&proxy, "acme")).collect();
    assert!(back.iter().all(|told| told == DEFAULT));
}

#[test]
fn a_probe_is_one_request_however_many_come_at_once_and_none_where_others_use_the_tier() {
    let proxy = Proxy::new(&config());
    answered_after(&proxy, "acme", BODY, ENOUGH, 2_000);
    proxy.pass_millis(10_000);
    let open: Vec<_> = (0..100).map(|_| tier(&proxy, "acme")).collect();
    assert_eq!(open.iter().filter(|tier| *tier == "default").count(), 1);
    assert_eq!(open[0], "default");
    proxy.pass_millis(9_999);
    assert_eq!(tier(&proxy, "acme"), "standard");
    answered_after(&proxy, "other", BODY, 1, 0);
    proxy.pass_millis(9_999);
    assert_eq!(tier(&proxy, "acme"), "standard");
    proxy.pass_millis(1);
    assert_eq!(tier(&proxy, "acme"), "default");
}

#[test]
fn a_request_that_would_not_be_served_there_is_no_probe() {
    let proxy = Proxy::new(&config());
    proxy.served("poor", BODY, 900, 0);
    served(&proxy, "acme");
    answered_after(&proxy, "other", BODY, ENOUGH, 2_000);
    proxy.pass_millis(10_000);
    assert_eq!(tier(&proxy, "poor"), "compact");
    assert_eq!(tier(&proxy, "acme"), "default");
    assert_eq!(tier(&proxy, "acme"), "standard");
}

#[test]
fn in_shadow_mode_it_is_told_where_a_request_would_have_gone_and_none_is_a_probe() {
    let proxy = Proxy::new(&config());
    answered_after(&proxy, "shy", BODY, ENOUGH, 2_000);
    proxy.pass_millis(10_000);
    let mut call = proxy.chat("shy", BODY);
    assert_eq!(call.upstream_text(), BODY);
    proxy.pass_millis(2_000);
    assert_eq!(told(&mut call), DEFAULT);
    assert_eq!(
        call.response_header("x-bursar-shadow"),
        Some("downgrade;tier=standard;model=middle;reason=sla")
    );
    proxy.pass_millis(10_000);
    let open = proxy.chat("shy", BODY);
    assert_eq!(tier(&proxy, "acme"), "default");
    assert_eq!(tier(&proxy, "acme"), "standard");
    drop(open);
}

#[test]
fn a_probe_that_was_lost_to_another_worker_goes_down() {
    let proxy = Proxy::new(&config());
    answered_after(&proxy, "acme", BODY, ENOUGH, 2_000);
    proxy.pass_millis(10_000);
    proxy.store.lose(1);
    assert_eq!(tier(&proxy, "acme"), "standard");
    assert_eq!(tier(&proxy, "acme"), "default");
    assert_eq!(proxy.metric("bursar_state_conflicts_total"), 1);
    assert_eq!(proxy.metric("bursar_state_given_up_total"), 0);
}

#[test]
fn a_conversation_that_stays_below_is_no_probe() {
    let mut config = config();
    config["tenants"]["acme"] = json!({
        "sla": {"p95_ms": 1000},
        "budget": {"initial_budget": 100_000, "window": "day"},
        "sticky": {"header": "x-talk"}
    });
    let proxy = Proxy::new(&config);
    let tier = |talk: &str| {
        let mut call = proxy.post(&[
            ("x-tenant-id", "acme"),
            ("x-talk", talk),
            ("content-length", "31"),
        ]);
        call.send(&[BODY.as_bytes()]);
        call.upstream_header("x-bursar-tier").unwrap().to_owned()
    };
    answered_after(&proxy, "other", BODY, ENOUGH, 2_000);
    assert_eq!(tier("old"), "standard");
    proxy.pass_millis(10_000);
    assert_eq!(tier("old"), "standard");
    assert_eq!(tier("new"), "default");
    assert_eq!(tier("newer"), "standard");
}
