//! Limits that stack: several budgets and buckets of one tenant, all of them or none.

use crate::proxy::{Proxy, usage};
use bursar::base::name::LimitKey;
use bursar::base::units::Tokens;
use bursar::limits::stacked::State;
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

pub(crate) const BODY: &str = r#"{"model":"gpt-4o","messages":[],"max_tokens":10}"#;

/// What [`BODY`] reserves: a token a byte, and the answer's limit.
const RESERVED: u64 = 48 + 10;

pub(crate) fn with(limits: Value) -> Value {
    json!({
        "hold_headers": true,
        "tiers": [
            {"name": "big", "model": "gpt-4o"},
            {"name": "small", "model": "gpt-4o-mini", "below": 0.2}
        ],
        "tenants": {"acme": limits}
    })
}

pub(crate) fn day(tokens: u64) -> Value {
    json!({"initial_budget": tokens, "window": "day"})
}

/// What was spent and what is held of a limit, in tokens.
pub(crate) fn account(proxy: &Proxy, name: &str) -> (u64, u64) {
    let record = proxy.record("acme");
    let key = LimitKey::of(name);
    let account = record
        .others
        .iter()
        .find_map(|entry| entry.account(key))
        .unwrap();
    (account.spent.tokens.0, account.held().tokens.0)
}

/// What is used of a bucket.
fn used(proxy: &Proxy, name: &str) -> u64 {
    let record = proxy.record("acme");
    let of = record
        .others
        .iter()
        .find(|entry| entry.key == LimitKey::of(name));
    let bucket = of.and_then(|entry| match &entry.state {
        State::Bucket(bucket) => Some(bucket.used),
        State::Account(_) => None,
    });
    bucket.unwrap()
}

#[test]
fn all_budgets_are_charged_and_the_one_that_refuses_is_named() {
    let limits = json!([
        {"name": "week", "budget": {"initial_budget": 1_000, "window": "week"}},
        {"name": "day", "budget": day(300)},
    ]);
    let proxy = Proxy::new(&with(json!({"limits": limits})));
    proxy.served("acme", BODY, 200, 50);
    assert_eq!(account(&proxy, "week"), (250, 0));
    assert_eq!(account(&proxy, "day"), (250, 0));
    let refused = proxy.chat("acme", BODY);
    assert_eq!(refused.refused(), Some((429, "budget_exhausted")));
    assert_eq!(refused.reply_header("x-bursar-limit"), Some("day"));
    assert_eq!(refused.reply_header("retry-after"), Some("43200"));
    assert!(refused.reply.as_ref().unwrap().body.contains("Limit: day."));
    let limited = "bursar_limited_total.tenant=.=acme;.;limit=.=day;.;reason=.=budget_exhausted;.;";
    assert_eq!(proxy.metric(limited), 1);
    // The next day the week still counts.
    proxy.pass_millis(43_200_000);
    assert_eq!(proxy.chat("acme", BODY).refused(), None);
    assert_eq!(account(&proxy, "week").0, 250);
    assert_eq!(account(&proxy, "day"), (0, RESERVED));
}

#[test]
fn of_several_limits_that_refuse_the_one_is_named_that_refuses_longest() {
    let limits = json!([
        {"name": "hour", "budget": {"initial_budget": 60, "window": "hour"}},
        {"name": "week", "budget": {"initial_budget": 60, "window": "week"}},
        {"name": "rpm", "bucket": {"requests_per_window": 1, "window": "1m"}},
    ]);
    let proxy = Proxy::new(&with(json!({"limits": limits, "budget": day(60)})));
    proxy.served("acme", BODY, 60, 0);
    let refused = proxy.chat("acme", BODY);
    assert_eq!(refused.reply_header("x-bursar-limit"), Some("week"));
    // Noon of Thursday to midnight before Monday.
    assert_eq!(refused.reply_header("retry-after"), Some("302400"));
}

#[test]
fn a_refusal_leaves_every_limit_as_it_was() {
    let limits = json!([
        {"name": "month", "budget": {"initial_budget": 1_000, "window": "month"}},
        {"name": "rpm", "bucket": {"requests_per_window": 10, "window": "1m"}},
        {"name": "tpm", "bucket": {"tokens_per_window": 1_000, "window": "1m"}},
        {"name": "tiny", "budget": day(RESERVED)},
    ]);
    let proxy = Proxy::new(&with(json!({"limits": limits, "concurrency": 5})));
    let held = proxy.chat("acme", BODY);
    let before = proxy.record("acme");
    let refused = proxy.chat("acme", BODY);
    assert_eq!(refused.refused(), Some((429, "budget_held")));
    assert_eq!(refused.reply_header("x-bursar-limit"), Some("tiny"));
    assert_eq!(proxy.record("acme"), before);
    drop(held);
}

#[test]
fn requests_are_counted_whatever_comes_of_them_but_not_those_that_are_not_sent() {
    let limits = json!([{"name": "rpm", "bucket": {"requests_per_window": 3, "window": "1m"}}]);
    let proxy = Proxy::new(&with(json!({"limits": limits})));
    proxy.served("acme", BODY, 100, 100);
    let mut failed = proxy.chat("acme", BODY);
    failed.answer_headers("500", &[]);
    failed.end();
    assert_eq!(used(&proxy, "rpm"), 2);
    proxy.served("acme", BODY, 1, 1);
    let refused = proxy.chat("acme", BODY);
    assert_eq!(refused.refused(), Some((429, "bucket_empty")));
    assert_eq!(refused.reply_header("x-bursar-limit"), Some("rpm"));
    assert_eq!(refused.reply_header("retry-after"), Some("20"));
    assert_eq!(
        refused.reply_header("x-ratelimit-limit-requests"),
        Some("3")
    );
    assert_eq!(
        refused.reply_header("x-ratelimit-remaining-requests"),
        Some("0")
    );
    proxy.pass_millis(20_000);
    assert_eq!(proxy.chat("acme", BODY).refused(), None);
}

#[test]
fn as_many_requests_as_may_be_are_in_flight_and_a_slot_is_free_again_however_one_ends() {
    let proxy = Proxy::new(&with(json!({"concurrency": 2})));
    let mut answered = proxy.chat("acme", BODY);
    let mut left = proxy.chat("acme", BODY);
    let refused = proxy.chat("acme", BODY);
    assert_eq!(refused.refused(), Some((429, "concurrency")));
    assert_eq!(refused.reply_header("x-bursar-limit"), Some("concurrency"));
    assert_eq!(refused.reply_header("retry-after"), Some("1"));
    answered.answer_json(&usage(5, 5));
    answered.end();
    let lost = proxy.chat("acme", BODY);
    assert_eq!(lost.refused(), None);
    left.end();
    assert_eq!(account(&proxy, "concurrency").1, 1);
    // The worker of the third traps: nobody gives its slot back, until it expires.
    drop(lost);
    proxy.pass_millis(1_800_000);
    let again = [(); 2].map(|()| proxy.chat("acme", BODY));
    assert!(again.iter().all(|call| call.reply.is_none()));
    assert_eq!(account(&proxy, "concurrency"), (0, 2));
}

#[test]
fn a_spent_limit_of_some_models_lowers_and_refuses_only_where_no_lower_tier_is_open() {
    let limits = json!([{"name": "big", "models": ["gpt-4o"], "budget": day(100)}]);
    let proxy = Proxy::new(&with(json!({"limits": limits})));
    proxy.served("acme", BODY, 80, 20);
    let lowered = proxy.chat("acme", BODY);
    assert_eq!(lowered.refused(), None);
    assert!(lowered.upstream_text().contains("gpt-4o-mini"));
    assert_eq!(account(&proxy, "big"), (100, 0));
    drop(lowered);
    let kept = with(json!({"limits": limits, "never_downgrade": true}));
    proxy.configure(&kept);
    let refused = proxy.chat("acme", BODY);
    assert_eq!(refused.refused(), Some((429, "budget_exhausted")));
    assert_eq!(refused.reply_header("x-bursar-limit"), Some("big"));
    let other = proxy.chat("acme", r#"{"model":"gpt-4o-mini","max_tokens":1}"#);
    assert_eq!(other.refused(), None);
}

#[test]
fn the_emptiest_budget_moves_a_request_down() {
    let limits = json!([{"name": "hour", "budget": {"initial_budget": 400, "window": "hour"}}]);
    let proxy = Proxy::new(&with(json!({"limits": limits, "budget": day(100_000)})));
    proxy.served("acme", BODY, 330, 0);
    let lowered = proxy.chat("acme", BODY);
    assert_eq!(lowered.refused(), None);
    assert!(lowered.upstream_text().contains("gpt-4o-mini"));
}

#[test]
fn spend_outlives_a_limit_that_is_removed_and_put_back_or_moved_in_the_list() {
    let two = json!([{"name": "day", "budget": day(1_000)}, {"name": "week", "budget": {"initial_budget": 5_000, "window": "week"}}]);
    let proxy = Proxy::new(&with(json!({"limits": two})));
    proxy.served("acme", BODY, 100, 0);
    proxy.configure(&with(json!({"limits": [two[1]]})));
    proxy.served("acme", BODY, 10, 0);
    proxy.configure(&with(json!({"limits": [two[1], two[0]]})));
    proxy.served("acme", BODY, 1, 0);
    assert_eq!(account(&proxy, "day"), (101, 0));
    assert_eq!(account(&proxy, "week"), (111, 0));
}

// A window that was pushed by mistake, and two listeners with one `vm_id` and different windows.
#[test]
fn the_windows_of_two_configurations_do_not_disturb_each_other() {
    let daily =
        with(json!({"budget": day(1_000), "limits": [{"name": "x", "budget": day(1_000)}]}));
    let mut short = daily.clone();
    short["tenants"]["acme"]["budget"]["window"] = "6s".into();
    short["tenants"]["acme"]["limits"][0]["budget"]["window"] = "6s".into();
    let proxy = Proxy::new(&daily);
    proxy.served("acme", BODY, 500, 0);
    proxy.configure(&short);
    // What was spent today may have been spent in these six seconds.
    proxy.served("acme", BODY, 100, 0);
    assert_eq!(proxy.record("acme").account.spent.tokens, Tokens(600));
    proxy.pass_millis(6_000);
    proxy.served("acme", BODY, 100, 0);
    assert_eq!(proxy.record("acme").account.spent.tokens, Tokens(100));
    for _ in 0..3 {
        proxy.configure(&daily);
        proxy.pass_millis(6_000);
        let refused = proxy.chat("acme", r#"{"model":"gpt-4o","max_tokens":300}"#);
        assert_eq!(
            refused.refused(),
            Some((429, "budget_exhausted")),
            "700 are spent today"
        );
        proxy.configure(&short);
        let served = proxy.chat("acme", r#"{"model":"gpt-4o","max_tokens":300}"#);
        assert_eq!(served.refused(), None);
    }
    proxy.configure(&daily);
    let mut call = proxy.chat("acme", BODY);
    proxy.configure(&short);
    let other = proxy.chat("acme", BODY);
    call.answer_json(&usage(7, 0));
    call.end();
    drop(other);
    proxy.configure(&daily);
    proxy.served("acme", BODY, 1, 0);
    let record = proxy.record("acme");
    assert_eq!(record.account.spent.tokens, Tokens(708));
    assert_eq!(account(&proxy, "x").0, 708);
}

#[test]
fn a_tenants_limit_changes_its_plans_key_by_key_and_off_removes_one() {
    let mut config = with(json!({"plan": "team", "limits": [
        {"name": "day", "budget": {"initial_budget": 70}},
        {"name": "rpm", "off": true},
        {"name": "bucket", "off": true},
    ]}));
    config["plans"] = json!({"team": {
        "bucket": {"tokens_per_window": 1, "window": "1h"},
        "limits": [
            {"name": "day", "budget": day(1_000)},
            {"name": "rpm", "bucket": {"requests_per_window": 1, "window": "1h"}},
        ]
    }});
    let proxy = Proxy::new(&config);
    proxy.served("acme", BODY, 5, 5);
    proxy.served("acme", BODY, 5, 5);
    let refused = proxy.chat("acme", BODY);
    assert_eq!(refused.reply_header("x-bursar-limit"), Some("day"));
    assert_eq!(refused.reply_header("x-ratelimit-limit-tokens"), Some("70"));
}
