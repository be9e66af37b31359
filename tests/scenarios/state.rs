//! What is stored: lost races, foreign values, changed configurations, reservations that expire, and tenants that share slots.

use std::time::Duration;

use crate::opening::{BODY, RESERVED, STREAMED, USAGE_EVENT, config, held, spent, stream, with};
use crate::proxy::{Proxy, usage};
use crate::store::SLOT_SEED;
use bursar::state::record::Record;
use bursar::state::slots::{owner_of, slot_keys};
use bursar::state::store::tenant_key;
use serde_json::json;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

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

// A value under our key may be older, cut off, or another plugin's.
#[test]
fn a_foreign_value_is_treated_as_absent_or_refused_once() {
    // One that a later module may write, too: what it knew is not lost in silence.
    let later = [b"brs\x07", &Record::default().encode()[4..]].concat();
    for value in [b"somebody else's".as_slice(), &later] {
        for (mode, first) in [("allow", None), ("deny", Some((503, "budget_unavailable")))] {
            let proxy = Proxy::new(&with(|config| config["failure_mode"] = mode.into()));
            proxy.store.plant(&tenant_key("acme"), value);
            assert_eq!(proxy.chat("acme", BODY).refused(), first);
            assert_eq!(proxy.metric("bursar_state_corrupt_total"), 1);
            assert_eq!(proxy.chat("acme", BODY).refused(), None);
        }
    }
}

// A limit may be raised, or lowered below what is spent, at any time. Configuration is edited and renamed; what
// was spent stays.
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

// A hold that leaks becomes a refusal that nobody can explain. Local models need a minute and more for an answer.
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

#[test]
fn a_reservation_is_renewed_when_half_of_its_time_is_over_and_not_with_each_event() {
    let proxy = Proxy::new(&with(|config| config["reservation_expiry"] = "60s".into()));
    let mut slow = proxy.chat("acme", STREAMED);
    slow.answer_headers("200", &[("content-type", "text/event-stream")]);
    let since = || proxy.record("acme").account.holds[0].since;
    let first = since();
    // That is checked ten times a second at most.
    for (millis, late) in [(29_900, 0), (99, 0), (1, 30_000), (29_900, 30_000)] {
        proxy.pass_millis(millis);
        slow.answer_chunk(b"data: {\"choices\":[{}]}\n\n", false);
        assert_eq!(since().since(first), Duration::from_millis(late));
    }
}

// Made-up tenants come in floods, with ids that are long or odd.
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

/// An id that looks for a slot where `alice` does.
fn who_shares_a_slot_with_alice(name: &str) -> String {
    let first = |name: &str| slot_keys(SLOT_SEED, name).remove(0);
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
    let slot = proxy
        .store
        .value(&slot_keys(SLOT_SEED, "alice")[0])
        .unwrap();
    assert_eq!(Record::decode(&slot).unwrap().owner, owner_of(&bob));
}

#[test]
fn two_strangers_who_share_a_slot_never_touch_each_others_record() {
    let proxy = Proxy::new(&with(|config| {
        config["tenant"] = json!({"unknown": {"plan": "small"}});
    }));
    let bob = who_shares_a_slot_with_alice("bob");
    let left = |call: &crate::proxy::Call<'_>| call.fields["bursar_remaining"].clone();
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

// Windows end while requests are in flight, and clocks are set back.
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
