//! Tenants above others: their limits count the requests of all below them, in records of their own.

use std::rc::Rc;

use crate::proxy::{Proxy, usage};
use bursar::base::name::LimitKey;
use bursar::state::store::tenant_key;
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const BODY: &str = r#"{"model":"gpt-4o","messages":[],"max_tokens":10}"#;

/// What [`BODY`] reserves: a token a byte, and the answer's limit.
const RESERVED: u64 = 48 + 10;

fn with(tenants: Value) -> Value {
    json!({
        "hold_headers": true,
        "tiers": [
            {"name": "big", "model": "gpt-4o"},
            {"name": "small", "model": "gpt-4o-mini", "below": 0.2}
        ],
        "tenants": tenants
    })
}

fn day(name: &str, tokens: u64) -> Value {
    json!({"name": name, "budget": {"initial_budget": tokens, "window": "day"}})
}

/// What was spent and what is held of a tenant's limit, in tokens.
fn account(proxy: &Proxy, tenant: &str, name: &str) -> (u64, u64) {
    let record = proxy.record(tenant);
    let key = LimitKey::of(name);
    let account = record.others.iter().find_map(|entry| entry.account(key));
    let account = account.unwrap();
    (account.spent.tokens.0, account.held().tokens.0)
}

/// Two teams of a company, each with a budget of its own.
fn company(corp: u64, team: u64) -> Value {
    with(json!({
        "corp": {"limits": [day("company", corp)]},
        "acme": {"parent": "corp", "limits": [day("team", team)]},
        "globex": {"parent": "corp", "limits": [day("team", team)]}
    }))
}

#[test]
fn a_parents_budget_is_charged_by_all_of_its_children_and_by_itself() {
    let proxy = Proxy::new(&company(1_000, 600));
    proxy.served("acme", BODY, 200, 50);
    proxy.served("globex", BODY, 300, 50);
    proxy.served("corp", BODY, 100, 0);
    assert_eq!(account(&proxy, "acme", "team"), (250, 0));
    assert_eq!(account(&proxy, "globex", "team"), (350, 0));
    assert_eq!(account(&proxy, "corp", "company"), (700, 0));
    let held = proxy.chat("acme", BODY);
    assert_eq!(account(&proxy, "corp", "company"), (700, RESERVED));
    drop(held);
}

#[test]
fn a_childs_request_is_refused_by_its_parents_limit_which_is_named_and_shows_nothing_of_others_spend()
 {
    let proxy = Proxy::new(&company(300, 1_000));
    proxy.served("globex", BODY, 0, 0);
    proxy.served("acme", BODY, 200, 50);
    let before = ["corp", "globex"].map(|tenant| proxy.record(tenant));
    let refused = proxy.chat("globex", BODY);
    assert_eq!(refused.refused(), Some((429, "budget_exhausted")));
    assert_eq!(refused.reply_header("x-bursar-limit"), Some("company"));
    assert_eq!(refused.reply_header("retry-after"), Some("43200"));
    let limited =
        "bursar_limited_total.tenant=.=globex;.;limit=.=company;.;reason=.=budget_exhausted;.;";
    assert_eq!(proxy.metric(limited), 1);
    assert_eq!(
        refused.reply_header("ratelimit"),
        Some("\"team\";r=1000;t=43200")
    );
    assert_eq!(
        ["corp", "globex"].map(|tenant| proxy.record(tenant)),
        before
    );
}

#[test]
fn a_visible_limit_of_a_parent_is_told() {
    let mut config = company(300, 1_000);
    config["tenants"]["corp"]["limits"][0]["visible"] = true.into();
    let proxy = Proxy::new(&config);
    let call = proxy.served("acme", BODY, 100, 0);
    assert_eq!(
        call.response_header("ratelimit"),
        Some("\"team\";r=942;t=43200, \"company\";r=242;t=43200")
    );
}

#[test]
fn a_tie_is_the_nearer_payers() {
    let proxy = Proxy::new(&company(100, 100));
    proxy.served("acme", BODY, 100, 0);
    let refused = proxy.chat("acme", BODY);
    assert_eq!(refused.reply_header("x-bursar-limit"), Some("team"));
    let refused = proxy.chat("globex", BODY);
    assert_eq!(refused.reply_header("x-bursar-limit"), Some("company"));
}

#[test]
fn four_levels_are_charged_and_those_without_limits_have_no_record() {
    let proxy = Proxy::new(&with(json!({
        "world": {"limits": [day("all", 1_000)]},
        "region": {"parent": "world", "limits": []},
        "corp": {"parent": "region", "budget": {"initial_budget": 1_000, "window": "month"}},
        "unit": {"parent": "corp", "bucket": {"tokens_per_window": 1_000, "window": "1m"}, "concurrency": 2},
        "acme": {"parent": "unit"}
    })));
    let held = proxy.chat("acme", BODY);
    assert!(proxy.try_record("region").is_none());
    assert_eq!(account(&proxy, "world", "all"), (0, RESERVED));
    assert_eq!(account(&proxy, "unit", "concurrency"), (0, 1));
    assert_eq!(proxy.record("unit").bucket.used, 48 / 4 + 10);
    assert_eq!(proxy.record("corp").account.held().tokens.0, RESERVED);
    let other = proxy.chat("acme", BODY);
    let refused = proxy.chat("acme", BODY);
    assert_eq!(refused.refused(), Some((429, "concurrency")));
    drop((held, other));
}

#[test]
fn the_emptiest_budget_lowers_a_request_also_if_it_is_a_parents() {
    let proxy = Proxy::new(&company(1_000, 100_000));
    proxy.served("acme", BODY, 850, 0);
    let lowered = proxy.chat("globex", BODY);
    assert_eq!(lowered.refused(), None);
    assert!(lowered.upstream_text().contains("gpt-4o-mini"));
}

#[test]
fn a_parent_in_shadow_mode_counts_and_refuses_nobody() {
    let mut config = company(100, 1_000);
    config["tenants"]["corp"]["shadow"] = true.into();
    let proxy = Proxy::new(&config);
    proxy.served("acme", BODY, 300, 0);
    let call = proxy.served("acme", BODY, 300, 0);
    assert_eq!(call.refused(), None);
    assert_eq!(account(&proxy, "corp", "company"), (600, 0));
}

/// The tenant's own limit has room, the parent's is taken between the decision and the step on its record.
#[test]
fn what_another_takes_in_between_is_seen_and_everything_is_given_back_in_full() {
    let proxy = Rc::new(Proxy::new(&company(100, 1_000)));
    proxy.served("acme", BODY, 0, 0);
    proxy.served("globex", BODY, 0, 0);
    let before = proxy.record("acme");
    let other = Rc::clone(&proxy);
    // Before the write on the tenant's own record, after all were read.
    proxy.store.intrude(move || {
        other.served("globex", BODY, 50, 0);
    });
    let refused = proxy.chat("acme", BODY);
    assert_eq!(refused.refused(), Some((429, "budget_exhausted")));
    assert_eq!(refused.reply_header("x-bursar-limit"), Some("company"));
    assert_eq!(proxy.record("acme"), before);
    assert_eq!(account(&proxy, "corp", "company"), (50, 0));
}

#[test]
fn a_request_that_is_decided_anew_may_be_served_by_a_lower_tier() {
    let proxy = Rc::new(Proxy::new(&company(1_000, 100_000)));
    let other = Rc::clone(&proxy);
    let spend = move || {
        other.served("globex", BODY, 950, 0);
    };
    proxy.store.intrude(spend);
    let body = r#"{"model":"gpt-4o","max_tokens":2}"#;
    let call = proxy.chat("acme", body);
    assert_eq!(call.refused(), None);
    assert_eq!(account(&proxy, "corp", "company"), (950, 35));
    assert_eq!(account(&proxy, "acme", "team"), (0, 35));
    drop(call);
}

#[test]
fn what_the_estimate_gets_wrong_is_settled_on_every_record_and_a_cost_known_better_reserved_anew() {
    let mut config = company(10_000, 10_000);
    config["hold_headers"] = false.into();
    let proxy = Proxy::new(&config);
    let mut call = proxy.post(&[("x-tenant-id", "acme")]);
    call.send_chunk(br#"{"model":"gpt-4o","messages":[],"#, false);
    let early = account(&proxy, "corp", "company").1;
    call.send(&[br#""max_tokens":500}"#]);
    assert_eq!(call.refused(), None);
    let late = account(&proxy, "corp", "company").1;
    assert!(early < 100 && late > 500, "{early} {late}");
    assert_eq!(account(&proxy, "acme", "team").1, late);
    call.answer_json(&usage(7, 3));
    assert_eq!(account(&proxy, "corp", "company"), (10, 0));
    assert_eq!(account(&proxy, "acme", "team"), (10, 0));
    // And where it does not fit any more, nothing is held.
    let mut call = proxy.post(&[("x-tenant-id", "acme")]);
    call.send_chunk(br#"{"model":"gpt-4o","messages":[],"#, false);
    proxy.served("globex", BODY, 9_800, 0);
    call.send(&[br#""max_tokens":500}"#]);
    assert_eq!(call.refused(), Some((429, "budget_exhausted")));
    assert_eq!(call.reply_header("x-bursar-limit"), Some("company"));
    assert_eq!(account(&proxy, "corp", "company"), (9_810, 0));
    assert_eq!(account(&proxy, "acme", "team"), (10, 0));
}

#[test]
fn a_settlement_that_one_record_could_not_take_is_tried_again_there_alone() {
    let proxy = Proxy::new(&company(10_000, 10_000));
    let mut call = proxy.chat("acme", BODY);
    proxy.store.lose_keys("bursar/v1/t/corp");
    call.answer_json(&usage(7, 3));
    assert_eq!(account(&proxy, "acme", "team"), (10, 0));
    proxy.store.lose_keys("nothing");
    call.end();
    assert_eq!(account(&proxy, "acme", "team"), (10, 0));
    assert_eq!(account(&proxy, "corp", "company"), (10, 0));
    assert_eq!(proxy.metric("bursar_settlements_total.by=.=usage;.;"), 1);
}

#[test]
fn without_a_parents_state_the_failure_mode_decides_and_what_was_used_counts_all_the_same() {
    for (mode, status) in [("allow", None), ("deny", Some((503, "budget_unavailable")))] {
        let mut config = company(10_000, 10_000);
        config["failure_mode"] = mode.into();
        let proxy = Proxy::new(&config);
        proxy.served("acme", BODY, 1, 0);
        proxy.store.lose_keys("bursar/v1/t/corp");
        let mut call = proxy.chat("acme", BODY);
        assert_eq!(call.refused(), status, "{mode}");
        proxy.store.lose_keys("nothing");
        if status.is_none() {
            call.answer_json(&usage(7, 3));
            assert_eq!(account(&proxy, "corp", "company"), (11, 0));
        }
        call.end();
        assert_eq!(account(&proxy, "acme", "team").1, 0, "{mode}");
    }
}

#[test]
fn a_foreign_value_in_a_parents_place_is_treated_as_absent_or_refused_once() {
    for (mode, first) in [("allow", None), ("deny", Some((503, "budget_unavailable")))] {
        let mut config = company(10_000, 10_000);
        config["failure_mode"] = mode.into();
        let proxy = Proxy::new(&config);
        proxy.store.plant(&tenant_key("corp"), b"somebody else's");
        assert_eq!(proxy.chat("acme", BODY).refused(), first);
        assert_eq!(proxy.chat("acme", BODY).refused(), None);
    }
}

#[test]
fn a_worker_that_traps_between_two_records_leaves_holds_that_expire() {
    let proxy = Proxy::new(&company(10_000, 10_000));
    let call = proxy.chat("acme", BODY);
    let written = proxy.store.value(&tenant_key("acme")).unwrap();
    drop(call);
    // As if the VM had ended just after the tenant's own record was written.
    let proxy = Proxy::new(&company(10_000, 10_000));
    proxy.store.plant(&tenant_key("acme"), &written);
    assert_eq!(account(&proxy, "acme", "team"), (0, RESERVED));
    proxy.pass_millis(1_800_000);
    proxy.served("acme", BODY, 1, 0);
    assert_eq!(account(&proxy, "acme", "team"), (1, 0));
    assert_eq!(account(&proxy, "corp", "company"), (1, 0));
}

#[test]
fn the_holds_of_a_long_answer_are_renewed_on_every_record() {
    let mut config = company(10_000, 10_000);
    config["reservation_expiry"] = "60s".into();
    let proxy = Proxy::new(&config);
    let mut slow = proxy.chat("acme", BODY);
    slow.answer_headers("200", &[("content-type", "text/event-stream")]);
    for _ in 0..6 {
        proxy.pass_millis(29_000);
        slow.answer_chunk(b"data: {\"choices\":[{}]}\n\n", false);
    }
    let other = proxy.chat("acme", BODY);
    assert_eq!(account(&proxy, "corp", "company"), (0, 2 * RESERVED));
    drop(other);
}

#[test]
fn a_spent_parent_refuses_before_the_body_is_there() {
    let mut config = company(100, 10_000);
    config["hold_headers"] = false.into();
    let proxy = Proxy::new(&config);
    proxy.served("acme", BODY, 100, 0);
    let early = proxy.post(&[("x-tenant-id", "globex")]);
    assert_eq!(early.refused(), Some((429, "budget_exhausted")));
    assert_eq!(early.reply_header("x-bursar-limit"), Some("company"));
}

#[test]
fn each_further_record_costs_one_read_and_one_write_a_step() {
    let calls = |tenants: Value| {
        let proxy = Proxy::new(&with(tenants));
        proxy.served("acme", BODY, 1, 1);
        let before = proxy.store.calls();
        let mut call = proxy.chat("acme", BODY);
        let admitted = proxy.store.calls();
        call.answer_json(&usage(1, 1));
        call.end();
        (admitted - before, proxy.store.calls() - admitted)
    };
    let own = json!({"limits": [day("team", 10_000)]});
    let alone = calls(json!({"acme": own}));
    assert_eq!(alone, (2, 2));
    let mut child = own;
    child["parent"] = "corp".into();
    let below = calls(json!({"acme": child, "corp": {"limits": [day("company", 10_000)]}}));
    assert_eq!(below, (4, 4));
    let container = calls(json!({"acme": child, "corp": {"limits": []}}));
    assert_eq!(container, alone);
}

#[test]
fn the_gauge_of_a_parents_budget_follows_its_childrens_spend() {
    let proxy = Proxy::new(&with(json!({
        "corp": {"budget": {"initial_budget": 1_000, "window": "day"}},
        "acme": {"parent": "corp"}
    })));
    proxy.served("acme", BODY, 100, 0);
    assert_eq!(
        proxy.metric("bursar_budget_remaining.tenant=.=corp;.;"),
        900
    );
}
