//! What one window of a budget leaves to the next: a debt, a rest, a raise; and when an idle one ends.

use crate::proxy::{Proxy, usage};
use crate::stacked::{BODY, account, day, with};
use serde_json::json;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn what_a_request_uses_beyond_its_hold_is_owed_by_the_next_window() {
    let proxy = Proxy::new(&with(
        json!({"limits": [{"name": "day", "budget": day(1_000)}]}),
    ));
    // Ten tokens were reserved, and a thousand more are reported than there are.
    proxy.served("acme", BODY, 1_900, 100);
    assert_eq!(account(&proxy, "day").0, 2_000);
    proxy.pass_millis(43_200_000);
    // One budget at the most.
    assert_eq!(
        proxy.chat("acme", BODY).refused(),
        Some((429, "budget_exhausted"))
    );
    proxy.pass_millis(86_400_000);
    let mut late = proxy.chat("acme", BODY);
    assert_eq!(late.refused(), None);
    proxy.pass_millis(86_400_000);
    late.answer_json(&usage(58, 300));
    late.end();
    let next = proxy.chat("acme", r#"{"model":"gpt-4o","max_tokens":700}"#);
    assert_eq!(next.refused(), Some((429, "budget_exhausted")));
    drop(proxy.chat("acme", BODY));
    // What it had held was the day before's.
    assert_eq!(account(&proxy, "day").0, 300);
}

#[test]
fn what_a_window_leaves_is_carried_over_up_to_a_share() {
    let limits = json!([{"name": "day", "budget": {"initial_budget": 1_000, "window": "day", "rollover": 0.5}}]);
    let proxy = Proxy::new(&with(json!({"limits": limits})));
    // Whether a request fits that may use so many, which then comes to nothing.
    let fits = |tokens: usize| {
        let body = |output: usize| format!(r#"{{"model":"gpt-4o-mini","max_tokens":{output}}}"#);
        let length = body(if tokens < 1_040 { 100 } else { 1_000 }).len();
        let mut call = proxy.chat("acme", &body(tokens - length));
        let is_admitted = call.reply.is_none();
        if is_admitted {
            call.answer_headers("503", &[]);
            call.end();
        }
        is_admitted
    };
    assert!(!fits(1_001));
    proxy.served("acme", BODY, 700, 0);
    proxy.pass_millis(43_200_000);
    assert!(fits(1_300) && !fits(1_301), "300 were left");
    proxy.pass_millis(86_400_000);
    assert!(fits(1_500) && !fits(1_501), "more than half was left");
    proxy.pass_millis(10 * 86_400_000);
    assert!(fits(1_500) && !fits(1_501), "of a day that nobody used");
}

// It is spent in the window that it was reserved in, when it comes back in the next one.
#[test]
fn what_is_in_flight_over_a_windows_end_is_not_left_for_the_next_one() {
    let limits = json!([{"name": "day", "budget": {"initial_budget": 1_000, "window": "day", "rollover": 1}}]);
    let proxy = Proxy::new(&with(json!({"limits": limits})));
    let body = |output: u64| format!(r#"{{"model":"gpt-4o-mini","max_tokens":{output}}}"#);
    proxy.pass_millis(43_200_000 - 1);
    let mut late = proxy.chat("acme", &body(560));
    assert_eq!(account(&proxy, "day"), (0, 600));
    proxy.pass_millis(1);
    let fits = |tokens: u64| proxy.chat("acme", &body(tokens - 41)).refused().is_none();
    assert!(!fits(1_401));
    late.answer_json(&usage(40, 560));
    late.end();
    assert!(!fits(1_401) && fits(1_400));
}

// A request that used more than was held for it, and what the budget still held then for another one, do not both fit.
#[test]
fn what_is_owed_is_reckoned_with_what_is_in_flight_over_a_windows_end() {
    let limits = json!([{"name": "day", "budget": {"initial_budget": 1_000, "window": "day"}}]);
    let proxy = Proxy::new(&with(json!({"limits": limits})));
    let body = |output: u64| format!(r#"{{"model":"gpt-4o-mini","max_tokens":{output}}}"#);
    proxy.pass_millis(43_200_000 - 1);
    // It uses all that was held for it, in the next window; or half of it, in this one.
    for (tokens, owed) in [(400, 200), (200, 0)] {
        let mut first = proxy.chat("acme", &body(360));
        let mut long = proxy.chat("acme", &body(560));
        assert_eq!((first.refused(), long.refused()), (None, None));
        // 200 beyond its hold.
        long.answer_json(&usage(40, 760));
        long.end();
        if tokens == 400 {
            proxy.pass_millis(1);
        }
        first.answer_json(&usage(40, tokens - 40));
        first.end();
        if tokens == 200 {
            proxy.pass_millis(1);
        }
        proxy.served("acme", &body(100), 0, 0);
        assert_eq!(account(&proxy, "day"), (owed, 0));
        proxy.pass_millis(2 * 86_400_000 - 1);
    }
}

// Otherwise a run that waits for its window's end pays for nothing that it used beyond its holds.
#[test]
fn what_is_owed_at_the_end_of_an_idle_window_is_owed_by_the_next_one() {
    let limits =
        json!([{"name": "run", "budget": {"initial_budget": 1_000, "window": {"idle": "2h"}}}]);
    let two_hours = 7_200_000;
    let larger = r#"{"model":"gpt-4o","messages":[],"max_tokens":700}"#;
    for later in [0, 3_600_000, two_hours - 1_000] {
        for (used, owed, body) in [(2_000, 1_000, BODY), (1_300, 300, larger)] {
            let proxy = Proxy::new(&with(json!({"limits": limits})));
            proxy.served("acme", BODY, used, 0);
            proxy.pass_millis(two_hours + later);
            let refused = proxy.chat("acme", body);
            assert_eq!(refused.refused().map(|(status, _)| status), Some(429));
            let left = ((two_hours - later) / 1_000).to_string();
            assert_eq!(refused.reply_header("retry-after"), Some(left.as_str()));
            if owed < 1_000 {
                proxy.served("acme", BODY, 0, 0);
                assert_eq!(account(&proxy, "run"), (owed, 0));
            }
            proxy.pass_millis(two_hours);
            proxy.served("acme", BODY, 1, 0);
            assert_eq!(account(&proxy, "run"), (1, 0));
        }
    }
}

#[test]
fn a_raise_ends_by_itself() {
    let extra = json!({"amount": 500, "until": "2024-02-29T18:00:00Z"});
    let limits = json!([{"name": "day", "budget": {"initial_budget": 1_000, "window": "day", "extra": extra}}]);
    let proxy = Proxy::new(&with(json!({"limits": limits})));
    proxy.served("acme", BODY, 1_200, 0);
    assert_eq!(proxy.chat("acme", BODY).refused(), None);
    proxy.pass_millis(6 * 3_600_000);
    assert_eq!(
        proxy.chat("acme", BODY).refused(),
        Some((429, "budget_exhausted"))
    );
}

#[test]
fn an_idle_window_ends_so_long_after_its_last_request() {
    let limits =
        json!([{"name": "run", "budget": {"initial_budget": 1_000, "window": {"idle": "2h"}}}]);
    let proxy = Proxy::new(&with(json!({"limits": limits})));
    for _ in 0..4 {
        proxy.served("acme", BODY, 240, 0);
        proxy.pass_millis(7_000_000);
    }
    // A request that is refused does not put the end off, and is told when that is.
    for left in [200, 140, 80, 20] {
        let refused = proxy.chat("acme", BODY);
        assert_eq!(refused.refused(), Some((429, "budget_exhausted")));
        let told = left.to_string();
        assert_eq!(refused.reply_header("retry-after"), Some(told.as_str()));
        proxy.pass_millis(60_000.min(left * 1_000));
    }
    assert_eq!(proxy.chat("acme", BODY).refused(), None);
    assert_eq!(account(&proxy, "run").0, 0);
}

#[test]
fn an_idle_window_is_put_off_only_by_requests_that_it_counts() {
    let window = json!({"idle": "2h"});
    let limits = json!([{"name": "run", "models": ["gpt-4o"], "budget": {"initial_budget": 1_000, "window": window}}]);
    let proxy = Proxy::new(&with(
        json!({"limits": limits, "budget": {"initial_budget": 9_000_000, "window": "none"}}),
    ));
    proxy.served("acme", BODY, 990, 0);
    for _ in 0..3 {
        proxy.pass_millis(2_000_000);
        let other = proxy.served("acme", r#"{"model":"gpt-4","max_tokens":9}"#, 1, 0);
        assert_eq!(other.refused(), None);
    }
    assert_eq!(account(&proxy, "run").0, 990);
    proxy.pass_millis(1_200_000);
    assert_eq!(proxy.served("acme", BODY, 1, 0).refused(), None);
    assert_eq!(account(&proxy, "run").0, 1);
}
