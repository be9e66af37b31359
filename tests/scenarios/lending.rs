//! Guaranteed shares of a parent's budget: what is kept for whom, and what is lent.

use std::rc::Rc;

use crate::proxy::{Proxy, usage};
use bursar::base::name::LimitKey;
use bursar::limits::account::Account;
use bursar::limits::lend::ChildKey;
use bursar::state::store::tenant_key;
use bursar::tenant::TenantId;
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Reserves a token a byte, and the answer's limit.
fn body(reserves: u64) -> String {
    let body = |output: u64| format!(r#"{{"model":"gpt-4o","max_tokens":{output}}}"#);
    let limit = (0..reserves).find(|&output| body(output).len() as u64 + output == reserves);
    body(limit.unwrap())
}

/// Half of the company's day is globex's, a quarter unit's, under which is acme.
fn company() -> Value {
    json!({
        "hold_headers": true,
        "tiers": [{"name": "only", "model": "gpt-4o"}],
        "tenants": {
            "corp": {"limits": [{"name": "company", "budget": {"initial_budget": 1_000, "window": "day"}}]},
            "globex": {"parent": "corp", "guaranteed": 0.5},
            "unit": {"parent": "corp", "guaranteed": 0.25, "limits": []},
            "acme": {"parent": "unit"},
            "guest": {"parent": "corp"}
        }
    })
}

fn account(proxy: &Proxy) -> Account {
    let record = proxy.record("corp");
    let key = LimitKey::of("company");
    let account = record.others.iter().find_map(|entry| entry.account(key));
    account.unwrap().clone()
}

/// What a child has spent and what it holds, in tokens.
fn of_child(proxy: &Proxy, id: &str) -> (u64, u64) {
    let key = ChildKey::of(&TenantId::parse(id.as_bytes()).unwrap());
    let account = account(proxy);
    let child = account.children.iter().find(|child| child.key == key);
    child.map_or((0, 0), |child| {
        let held = child.holds.iter().map(|hold| hold.cost.tokens.0).sum();
        (child.spent.tokens.0, held)
    })
}

/// Whether a request would be served that reserves so much; nothing of it stays.
fn fits(proxy: &Proxy, tenant: &str, reserves: u64) -> bool {
    let mut call = proxy.chat(tenant, &body(reserves));
    let is_served = call.reply.is_none();
    if is_served {
        call.answer_headers("400", &[]);
    }
    call.end();
    is_served
}

/// The most that a request may reserve.
#[track_caller]
fn has_room(proxy: &Proxy, tenant: &str, room: u64) {
    assert!(fits(proxy, tenant, room), "{tenant} has less than {room}");
    assert!(
        !fits(proxy, tenant, room + 1),
        "{tenant} has more than {room}"
    );
}

fn spend(proxy: &Proxy, tenant: &str, tokens: u64) {
    let call = proxy.served(tenant, &body(tokens), tokens, 0);
    assert_eq!(call.refused(), None, "{tenant}");
}

#[test]
fn at_noon_half_of_an_idle_childs_share_is_lent() {
    let proxy = Proxy::new(&company());
    has_room(&proxy, "guest", 1_000 - 250 - 125);
    has_room(&proxy, "globex", 1_000 - 125);
    has_room(&proxy, "acme", 1_000 - 250);
    has_room(&proxy, "unit", 1_000 - 250);
    has_room(&proxy, "corp", 1_000 - 250 - 125);
}

#[test]
fn nobody_loses_what_is_never_lent() {
    let proxy = Proxy::new(&company());
    spend(&proxy, "guest", 500);
    spend(&proxy, "guest", 125);
    assert!(!fits(&proxy, "guest", 40));
    has_room(&proxy, "acme", 125);
    spend(&proxy, "globex", 250);
    assert!(!fits(&proxy, "globex", 40));
    has_room(&proxy, "acme", 125);
    spend(&proxy, "acme", 125);
    assert!(!fits(&proxy, "acme", 40));
}

#[test]
fn a_refusal_names_the_parents_limit_and_is_over_when_it_says() {
    let proxy = Proxy::new(&company());
    spend(&proxy, "guest", 500);
    spend(&proxy, "guest", 100);
    let before = proxy.record("corp");
    let refused = proxy.chat("guest", &body(61));
    assert_eq!(refused.refused(), Some((429, "budget_reserved")));
    assert_eq!(refused.reply_header("x-bursar-limit"), Some("company"));
    let code: Value = serde_json::from_str(&refused.reply.as_ref().unwrap().body).unwrap();
    assert_eq!(code["error"]["code"], "rate_limit_exceeded");
    assert_eq!(
        code["error"]["message"],
        "What is left of the budget is kept for other tenants, who are guaranteed a part of it. Limit: company."
    );
    assert_eq!(proxy.record("corp"), before);
    // Of 750 tokens as many are kept as of the day is left.
    let wait = refused.reply_header("retry-after-ms").unwrap();
    let wait: u64 = wait.parse().unwrap();
    assert_eq!(wait, (375 - 339) * 86_400_000 / 750);
    assert_eq!(refused.reply_header("x-should-retry"), Some("false"));
    proxy.pass_millis(wait - 1);
    assert!(!fits(&proxy, "guest", 61));
    proxy.pass_millis(1);
    assert!(fits(&proxy, "guest", 61));
}

#[test]
fn a_child_that_begins_to_spend_is_kept_what_its_pace_needs_and_what_was_lent_is_spent() {
    let proxy = Proxy::new(&company());
    spend(&proxy, "guest", 400);
    has_room(&proxy, "guest", 225);
    // By its rate globex would spend more than its share until midnight. Of that, half of what guest had beyond its own is lent.
    spend(&proxy, "globex", 50);
    let lent = account(&proxy)
        .children
        .iter()
        .map(|child| child.lent)
        .sum::<u64>();
    assert_eq!(lent, 150);
    assert!(!fits(&proxy, "guest", 100));
    has_room(&proxy, "globex", 550 - 125);
}

#[test]
fn what_a_childs_requests_hold_and_spend_is_known_whatever_becomes_of_them() {
    let mut config = company();
    config["reservation_expiry"] = "60s".into();
    let proxy = Proxy::new(&config);
    let mut answered = proxy.chat("acme", &body(60));
    let mut failed = proxy.chat("unit", &body(70));
    let trapped = proxy.chat("globex", &body(80));
    let other = proxy.chat("guest", &body(90));
    assert_eq!(of_child(&proxy, "unit"), (0, 130));
    assert_eq!(of_child(&proxy, "globex"), (0, 80));
    assert_eq!(account(&proxy).held().tokens.0, 300);
    answered.answer_json(&usage(7, 3));
    answered.end();
    failed.answer_headers("500", &[]);
    failed.end();
    assert_eq!(of_child(&proxy, "unit"), (10, 0));
    drop(trapped);
    drop(other);
    proxy.pass_millis(60_000);
    spend(&proxy, "guest", 40);
    assert_eq!(of_child(&proxy, "globex"), (0, 0));
    assert_eq!(account(&proxy).held().tokens.0, 0);
    assert_eq!(account(&proxy).spent.tokens.0, 50);
}

#[test]
fn the_holds_of_a_long_answer_stay_its_childs() {
    let mut config = company();
    config["reservation_expiry"] = "60s".into();
    let proxy = Proxy::new(&config);
    let mut slow = proxy.chat("acme", &body(100));
    slow.answer_headers("200", &[("content-type", "text/event-stream")]);
    for _ in 0..6 {
        proxy.pass_millis(29_000);
        slow.answer_chunk(b"data: {\"choices\":[{}]}\n\n", false);
    }
    assert_eq!(of_child(&proxy, "unit"), (0, 100));
}

#[test]
fn what_another_takes_in_between_is_seen_and_everything_is_given_back() {
    let proxy = Rc::new(Proxy::new(&company()));
    spend(&proxy, "guest", 500);
    let other = Rc::clone(&proxy);
    proxy.store.intrude(move || spend(&other, "guest", 100));
    let refused = proxy.chat("guest", &body(100));
    assert_eq!(refused.refused(), Some((429, "budget_reserved")));
    assert_eq!(account(&proxy).held().tokens.0, 0);
    assert_eq!(account(&proxy).spent.tokens.0, 600);
}

#[test]
fn what_is_used_without_our_own_state_is_the_childs_all_the_same() {
    let proxy = Proxy::new(&company());
    proxy.store.lose_keys("bursar/v1/t/corp");
    let mut call = proxy.chat("acme", &body(50));
    proxy.store.lose_keys("nothing");
    call.answer_json(&usage(20, 5));
    call.end();
    assert_eq!(of_child(&proxy, "unit"), (25, 0));
}

#[test]
fn a_spent_part_refuses_before_the_body_is_there() {
    let mut config = company();
    config["hold_headers"] = false.into();
    let proxy = Proxy::new(&config);
    spend(&proxy, "guest", 500);
    spend(&proxy, "guest", 125);
    let early = proxy.post(&[("x-tenant-id", "guest")]);
    assert_eq!(early.refused(), Some((429, "budget_reserved")));
    let early = proxy.post(&[("x-tenant-id", "acme")]);
    assert_eq!(early.refused(), None);
}

#[test]
fn what_is_kept_for_others_is_not_overdrawn_and_no_answer_is_cut_to_it() {
    let mut config = company();
    config["tenants"]["corp"]["on_exhausted"] = json!({"degrade": {"overdraft": 1.0}});
    config["tenants"]["guest"]["on_exhausted"] = json!({"degrade": {"overdraft": 1.0}});
    let proxy = Proxy::new(&config);
    has_room(&proxy, "guest", 625);
    let mut config = company();
    config["tenants"]["guest"]["min_output_tokens"] = 10.into();
    let proxy = Proxy::new(&config);
    let call = proxy.chat("guest", &body(700));
    assert_eq!(call.refused(), None);
    assert_eq!(account(&proxy).held().tokens.0, 625);
}

#[test]
fn where_nothing_is_guaranteed_records_stay_as_they_were() {
    let mut config = company();
    for child in ["globex", "unit"] {
        let child = config["tenants"][child].as_object_mut().unwrap();
        child.remove("guaranteed");
    }
    let version = |config: &Value| {
        let proxy = Proxy::new(config);
        spend(&proxy, "globex", 100);
        let bytes = proxy.store.value(&tenant_key("corp")).unwrap();
        (bytes[3], proxy.store.calls())
    };
    let (plain, calls) = version(&config);
    assert_eq!(plain, 4);
    // Not one call of the host more.
    assert_eq!(version(&company()), (6, calls));
    let proxy = Proxy::new(&company());
    spend(&proxy, "guest", 100);
    assert_eq!(proxy.store.value(&tenant_key("corp")).unwrap()[3], 4);
}
