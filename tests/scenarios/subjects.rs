//! Limits per subject: each of a tenant's users, or runs, has its own, and however many are made up, their records are bounded.

use std::rc::Rc;

use crate::proxy::{Call, Proxy, usage};
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const BODY: &str = r#"{"model":"gpt-4o","messages":[],"max_tokens":10}"#;

/// What [`BODY`] reserves: a token a byte, and the answer's limit.
const RESERVED: u64 = 48 + 10;

fn with(limits: Value) -> Value {
    json!({
        "hold_headers": true,
        "subjects": {
            "user": {"from": [{"header": "x-user-id"}], "missing": "pass"},
            "run": {"from": [{"header": "x-run-id"}]}
        },
        "tiers": [
            {"name": "big", "model": "gpt-4o"},
            {"name": "small", "model": "gpt-4o-mini", "below": 0.2}
        ],
        "tenants": {"acme": {"limits": limits}, "globex": {"limits": limits}}
    })
}

fn user_day(tokens: u64) -> Value {
    json!({"name": "user-day", "per": "user", "budget": {"initial_budget": tokens, "window": "day"}})
}

/// A request of a tenant's user.
fn chat<'a>(proxy: &'a Proxy, tenant: &str, headers: &[(&str, &str)]) -> Call<'a> {
    let length = BODY.len().to_string();
    let mut all = vec![("x-tenant-id", tenant), ("content-length", length.as_str())];
    all.extend(headers);
    let mut call = proxy.post(&all);
    call.send(&[BODY.as_bytes()]);
    call
}

/// One that uses so many tokens.
fn served<'a>(proxy: &'a Proxy, tenant: &str, headers: &[(&str, &str)], tokens: u64) -> Call<'a> {
    let mut call = chat(proxy, tenant, headers);
    if call.reply.is_none() {
        call.answer_json(&usage(tokens, 0));
    }
    call.end();
    call
}

fn user(id: &str) -> [(&str, &str); 1] {
    [("x-user-id", id)]
}

#[test]
fn each_user_has_a_budget_and_one_that_is_spent_is_nobody_elses() {
    let proxy = Proxy::new(&with(json!([user_day(200)])));
    let call = served(&proxy, "acme", &user("alice"), 190);
    assert_eq!(call.refused(), None);
    assert_eq!(
        call.response_header("ratelimit"),
        Some("\"user-day\";r=142;t=43200")
    );
    let refused = chat(&proxy, "acme", &user("alice"));
    assert_eq!(refused.refused(), Some((429, "budget_exhausted")));
    assert_eq!(refused.reply_header("x-bursar-limit"), Some("user-day"));
    assert_eq!(refused.reply_header("retry-after"), Some("43200"));
    assert_eq!(
        refused.reply_header("ratelimit"),
        Some("\"user-day\";r=10;t=43200")
    );
    assert!(
        refused
            .reply
            .as_ref()
            .unwrap()
            .body
            .contains("Limit: user-day.")
    );
    for (tenant, id) in [("acme", "bob"), ("globex", "alice")] {
        assert_eq!(served(&proxy, tenant, &user(id), 10).refused(), None);
    }
    proxy.pass_millis(43_200_000);
    assert_eq!(chat(&proxy, "acme", &user("alice")).refused(), None);
}

#[test]
fn a_request_without_a_subject_passes_or_is_refused_as_the_operator_says() {
    let mut config = with(json!([user_day(20)]));
    let proxy = Proxy::new(&config);
    assert_eq!(served(&proxy, "acme", &[], 500).refused(), None);
    assert_eq!(
        chat(&proxy, "acme", &user("alice")).refused(),
        Some((429, "budget_exhausted"))
    );
    config["subjects"]["user"] = json!({
        "from": [{"jwt_claim": "sub"}, {"header": "x-user-id"}], "missing": "reject"
    });
    proxy.configure(&config);
    let refused = chat(&proxy, "acme", &[]);
    assert_eq!(refused.refused(), Some((401, "subject_required")));
    let body = &refused.reply.as_ref().unwrap().body;
    assert!(
        body.contains(
            "which `user` it belongs to. Looked for in: JWT claim `sub`, header `x-user-id`."
        ),
        "{body}"
    );
    // Where no limit counts them, nobody asks.
    config["tenants"]["acme"] = json!({});
    proxy.configure(&config);
    assert_eq!(chat(&proxy, "acme", &[]).refused(), None);
}

#[test]
fn a_run_ends_so_long_after_its_last_request() {
    let run = json!({"name": "run", "per": "run", "budget": {"initial_budget": 200, "window": {"idle": "2h"}}});
    let proxy = Proxy::new(&with(json!([run])));
    let of = |id: &'static str| [("x-run-id", id)];
    for _ in 0..4 {
        assert_eq!(served(&proxy, "acme", &of("one"), 40).refused(), None);
        proxy.pass_millis(7_000_000);
    }
    let refused = chat(&proxy, "acme", &of("one"));
    assert_eq!(refused.refused(), Some((429, "budget_exhausted")));
    assert_eq!(refused.reply_header("x-bursar-limit"), Some("run"));
    assert_eq!(served(&proxy, "acme", &of("two"), 1).refused(), None);
    proxy.pass_millis(7_200_000);
    assert_eq!(served(&proxy, "acme", &of("one"), 1).refused(), None);
}

#[test]
fn on_a_tie_the_subjects_limit_is_named_before_the_tenants() {
    let proxy = Proxy::new(&with(json!([
        {"name": "day", "budget": {"initial_budget": 100, "window": "day"}}, user_day(100)
    ])));
    served(&proxy, "acme", &user("alice"), 100);
    let named = |id: &str| {
        let refused = chat(&proxy, "acme", &user(id));
        refused.reply_header("x-bursar-limit").map(str::to_owned)
    };
    assert_eq!(named("alice").as_deref(), Some("user-day"));
    assert_eq!(named("bob").as_deref(), Some("day"));
}

#[test]
fn a_parents_users_are_counted_over_all_of_its_children() {
    let mut config = with(json!([]));
    config["tenants"] = json!({
        "corp": {"limits": [user_day(200)]},
        "acme": {"parent": "corp"}, "globex": {"parent": "corp"}
    });
    let proxy = Proxy::new(&config);
    served(&proxy, "acme", &user("alice"), 100);
    served(&proxy, "globex", &user("alice"), 100);
    let refused = chat(&proxy, "acme", &user("alice"));
    assert_eq!(refused.reply_header("x-bursar-limit"), Some("user-day"));
    assert_eq!(chat(&proxy, "acme", &user("bob")).refused(), None);
}

#[test]
fn several_limits_of_one_kind_stand_in_one_record_and_buckets_are_counted_too() {
    let proxy = Proxy::new(&with(json!([
        user_day(10_000),
        {"name": "user-rpm", "per": "user", "bucket": {"requests_per_window": 2, "window": "1m"}}
    ])));
    served(&proxy, "acme", &user("alice"), 1);
    let keys = proxy.store.keys();
    assert_eq!(
        keys, 4,
        "the tenant's, the table, the slot, and how many slots there are"
    );
    served(&proxy, "acme", &user("alice"), 1);
    let refused = chat(&proxy, "acme", &user("alice"));
    assert_eq!(refused.refused(), Some((429, "bucket_empty")));
    assert_eq!(refused.reply_header("x-bursar-limit"), Some("user-rpm"));
    assert_eq!(served(&proxy, "acme", &user("bob"), 1).refused(), None);
    assert_eq!(proxy.store.keys(), keys + 1);
}

#[test]
fn two_hundred_and_fifty_six_users_have_budgets_of_their_own_and_the_others_share_one() {
    let proxy = Proxy::new(&with(json!([user_day(RESERVED)])));
    let spend = |id: &str| {
        served(&proxy, "acme", &user(id), RESERVED)
            .refused()
            .is_none()
    };
    for n in 0..256 {
        assert!(spend(&format!("user-{n}")), "{n}");
    }
    assert!(spend("late"));
    assert!(!spend("later"), "they share one");
    assert!(!spend("user-0"), "nobody lost what it has spent");
    // Another tenant's users have theirs.
    assert_eq!(served(&proxy, "globex", &user("alice"), 1).refused(), None);
    // Slots are used anew after the window.
    proxy.pass_millis(43_200_000);
    let keys = proxy.store.keys();
    for n in 0..256 {
        assert!(spend(&format!("other-{n}")), "{n}");
    }
    assert!(spend("late") && !spend("later"));
    assert_eq!(proxy.store.keys(), keys);
}

#[test]
fn a_slot_in_which_something_counts_is_not_given_to_another() {
    let proxy = Proxy::new(&with(json!([
        {"name": "hour", "per": "user", "budget": {"initial_budget": 1_000, "window": "hour"}},
        {"name": "week", "per": "user", "budget": {"initial_budget": 100, "window": "week"}}
    ])));
    let spend = |id: &str, tokens| {
        served(&proxy, "acme", &user(id), tokens)
            .refused()
            .is_none()
    };
    for n in 0..256 {
        assert!(spend(&format!("user-{n}"), 100));
    }
    proxy.pass_millis(3_600_000);
    for n in 0..3 {
        spend(&format!("other-{n}"), 0);
    }
    assert!(
        (0..256).all(|n| !spend(&format!("user-{n}"), 0)),
        "their week is not over"
    );
}

#[test]
fn strangers_users_are_counted_in_tables_that_strangers_share() {
    let mut config = with(json!([]));
    config["tenant"] = json!({"unknown": {"plan": "free"}});
    config["plans"] = json!({"free": {"limits": [user_day(100)]}});
    let proxy = Proxy::new(&config);
    for tenant in ["made-up-1", "made-up-2"] {
        assert_eq!(served(&proxy, tenant, &user("alice"), 100).refused(), None);
        let refused = chat(&proxy, tenant, &user("alice"));
        assert_eq!(refused.reply_header("x-bursar-limit"), Some("user-day"));
    }
}

#[test]
fn two_workers_to_which_a_user_comes_first_give_it_one_slot() {
    let proxy = Rc::new(Proxy::new(&with(json!([user_day(RESERVED)]))));
    let other = Rc::clone(&proxy);
    // Before the write that seats her.
    proxy.store.intrude(|| {});
    proxy.store.intrude(move || {
        served(&other, "acme", &user("alice"), RESERVED);
    });
    let refused = chat(&proxy, "acme", &user("alice"));
    assert_eq!(refused.refused(), Some((429, "budget_exhausted")));
    assert_eq!(proxy.store.keys(), 4);
}

#[test]
fn a_subjects_budget_that_another_takes_in_between_refuses_and_all_is_given_back() {
    let limits = json!([{"name": "day", "budget": {"initial_budget": 1_000, "window": "day"}}, user_day(100)]);
    let proxy = Rc::new(Proxy::new(&with(limits)));
    served(&proxy, "acme", &user("alice"), 0);
    let before = proxy.record("acme");
    let other = Rc::clone(&proxy);
    proxy.store.intrude(move || {
        served(&other, "globex", &user("alice"), 0);
        // The same user, by another request that has come further.
        let mut call = chat(&other, "acme", &user("alice"));
        call.answer_headers("503", &[]);
        call.end();
    });
    let call = chat(&proxy, "acme", &user("alice"));
    assert_eq!(call.refused(), None);
    drop(call);
    let held = proxy.record("acme");
    assert_ne!(held, before);
    let refused = chat(&proxy, "acme", &user("alice"));
    assert_eq!(refused.refused(), Some((429, "budget_held")));
    assert_eq!(refused.reply_header("x-bursar-limit"), Some("user-day"));
    assert_eq!(proxy.record("acme"), held);
}

#[test]
fn a_subject_costs_one_read_of_its_table_and_one_read_and_write_of_its_record_a_step() {
    let calls = |limits: Value| {
        let proxy = Proxy::new(&with(limits));
        served(&proxy, "acme", &user("alice"), 1);
        let before = proxy.store.calls();
        let mut call = chat(&proxy, "acme", &user("alice"));
        let admitted = proxy.store.calls();
        call.answer_json(&usage(1, 1));
        call.end();
        (admitted - before, proxy.store.calls() - admitted)
    };
    assert_eq!(calls(json!([])), (2, 2));
    assert_eq!(calls(json!([user_day(10_000)])), (5, 4));
    let none =
        json!([{"name": "run", "per": "run", "budget": {"initial_budget": 2, "window": "day"}}]);
    assert_eq!(calls(none), (2, 2), "it shows no run");
}

/// A flood of users under one tenant can neither grow memory nor displace anyone.
#[cfg(not(target_arch = "wasm32"))]
#[test]
fn made_up_users_take_bounded_memory_and_displace_nobody() {
    let proxy = Proxy::new(&with(json!([user_day(100)])));
    served(&proxy, "acme", &user("alice"), 50);
    served(&proxy, "globex", &user("bob"), 50);
    for n in 0..10_000 {
        served(&proxy, "acme", &user(&format!("made-up-{n}")), 0);
    }
    assert!(
        proxy.store.keys() <= 2 + 2 + 256 + 1 + 1 + 1,
        "{}",
        proxy.store.keys()
    );
    for (tenant, id) in [("acme", "alice"), ("globex", "bob")] {
        assert_eq!(
            chat(&proxy, tenant, &user(id)).refused(),
            Some((429, "budget_exhausted"))
        );
    }
}
