//! Budgets that proxies share, and operators change in the store: raised, set, reset, or larger than was told long ago.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn what_an_operator_has_added_is_told_to_callers() {
    let proxy = with(&json!({"cold": "deny"}));
    let mut worker = Worker::of(&proxy);
    proxy.chat("acme", BODY);
    worker.told(1_200, 300, [0, 0, 500]);
    let mut call = proxy.chat("acme", BODY);
    call.answer_json(&usage(40, 10));
    let limit = call.response_header("x-ratelimit-limit-tokens");
    assert_eq!(limit, Some("1500"));
    let left = call.response_header("x-ratelimit-remaining-tokens");
    assert_eq!(left, Some("1442"));
    // It has ended.
    proxy.pass_millis(10_000);
    proxy.chat("acme", BODY);
    worker.told(0, 0, [0; 3]);
    let slice = proxy.record("acme").account.slice.unwrap();
    assert_eq!(slice.raise, 0);
}

// A reset while requests are under way: they were charged before it.
#[test]
fn after_a_reset_all_is_there_again_and_what_was_under_way_is_not_charged_twice() {
    let proxy = with(&json!({"cold": "deny"}));
    let mut worker = Worker::of(&proxy);
    proxy.chat("acme", BODY);
    worker.granted(1_000, 0);
    let mut call = proxy.chat("acme", BODY);
    proxy.pass_millis(10_000);
    let other = proxy.chat("acme", BODY);
    worker.told(700, 300, [1_700_000_000_000, 0, 0]);
    let account = proxy.record("acme").account;
    assert_eq!((account.spent.tokens.0, account.holds.len()), (0, 0));
    assert_eq!(account.slice.as_ref().unwrap().grant.granted, 700);
    call.answer_json(&usage(40, 10));
    call.end();
    drop(other);
    let account = proxy.record("acme").account;
    assert_eq!((account.spent.tokens.0, account.holds.len()), (0, 0));
    // The next line is about the new account, and of the next window as well.
    for passed in [10_000, 86_400_000] {
        proxy.pass_millis(passed);
        proxy.chat("acme", BODY);
        let messages = worker.says();
        let (key, line) = messages[0].lines().next().unwrap();
        let limit = "bursar:{default/acme/budget}:tokens:1700000000000:";
        assert!(key.starts_with(limit), "{key}");
        assert!(line.granted <= 700);
    }
}

// What a parent's budget had left may be old: the store is asked before anybody is sent away for good.
#[test]
fn a_parents_budget_that_was_spent_long_ago_is_asked_for_again() {
    let proxy = Proxy::new(&json!({
        "global": {"redis": {"cluster": "store"}},
        "tiers": [{"name": "big", "model": "gpt-4o"}],
        "tenants": {
            "corp": {"cold": "deny", "budget": {"initial_budget": 100, "window": "day"}},
            "acme": {"parent": "corp", "limits": []}
        }
    }));
    let mut worker = Worker::of(&proxy);
    proxy.chat("acme", BODY);
    worker.granted(100, 0);
    proxy.served("acme", BODY, 60, 40);
    proxy.pass_millis(12_001);
    let refused = proxy.chat("acme", BODY);
    assert_eq!(reason(&refused), (429, "budget_pending"));
    worker.granted(0, 0);
    let refused = proxy.chat("acme", BODY);
    assert_eq!(reason(&refused), (429, "budget_exhausted"));
    proxy.pass_millis(12_001);
    proxy.chat("acme", BODY);
    worker.told(100, 900, [0, 0, 1_000]);
    assert_eq!(reason(&proxy.chat("acme", BODY)), (200, ""));
}

// A request may be larger than the whole budget as it was told long ago, and fit into what an operator has made of it since.
#[test]
fn a_request_larger_than_the_budget_of_long_ago_asks_for_the_budget_of_today() {
    let large = BODY.replace(":10}", ":1500}");
    let parent = || {
        Proxy::new(&json!({
            "global": {"redis": {"cluster": "store"}},
            "tiers": [{"name": "big", "model": "gpt-4o"}],
            "tenants": {
                "corp": {"cold": "deny", "budget": {"initial_budget": 1_000, "window": "day"}},
                "acme": {"parent": "corp", "limits": []}
            }
        }))
    };
    for proxy in [with(&json!({"cold": "deny"})), parent()] {
        let mut worker = Worker::of(&proxy);
        // Nothing is known of this window yet.
        assert_eq!(reason(&proxy.chat("acme", &large)), (429, "budget_pending"));
        worker.granted(100, 900);
        // It cannot be said of a budget that was told just now, and is not asked for.
        let refused = proxy.chat("acme", &large);
        assert_eq!(reason(&refused), (429, "budget_exhausted"));
        assert_eq!(refused.reply_header("x-should-retry"), Some("false"));
        proxy.pass_millis(12_001);
        assert_eq!(reason(&proxy.chat("acme", &large)), (429, "budget_pending"));
        let messages = worker.says();
        let (_, line) = messages[0].lines().next().unwrap();
        // What nobody may spend is not kept from the other proxies.
        assert_eq!(line.least, 0);
        assert!(line.want < 1_000, "{line:?}");
        worker.answers(&messages, 0, 1_900, [0, 0, 1_000]);
        // It is known now, and what is here is too little.
        proxy.pass_millis(300);
        assert_eq!(reason(&proxy.chat("acme", &large)), (429, "budget_pending"));
        worker.told(1_900, 0, [0, 0, 1_000]);
        assert_eq!(reason(&proxy.chat("acme", &large)), (200, ""));
    }
}

#[test]
fn what_an_operator_has_set_stands_in_the_place_of_the_configured_budget() {
    let proxy = with(&json!({"cold": "deny"}));
    let mut worker = Worker::of(&proxy);
    proxy.chat("acme", BODY);
    for (passed, set, raise, limit) in [
        (0, 400, 0, "400"),
        (10_000, 3_000, 50, "3050"),
        (10_000, 0, 0, "1000"),
    ] {
        proxy.pass_millis(passed);
        // A line says what is configured.
        assert_eq!(worker.told(100, 5_000, [0, set, raise]), 1_000);
        let mut call = proxy.chat("acme", BODY);
        call.answer_json(&usage(10, 10));
        let told = call.response_header("x-ratelimit-limit-tokens");
        assert_eq!(told, Some(limit));
        proxy.chat("acme", BODY);
    }
}
