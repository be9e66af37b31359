//! A tenant that was renamed goes on with the account that it had, whatever is under way meanwhile.

use std::rc::Rc;

use crate::proxy::{Call, Proxy, usage};
use bursar::base::name::LimitKey;
use bursar::teller::Teller;
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const BODY: &str = r#"{"model":"gpt-4o","messages":[],"max_tokens":10}"#;

/// What [`BODY`] reserves: a token a byte, and the answer's limit.
const RESERVED: u64 = 48 + 10;

fn with(tenants: Value) -> Value {
    json!({
        "hold_headers": true,
        "global": {"redis": {"cluster": "store"}},
        "subjects": {"user": {"from": [{"header": "x-user-id"}]}},
        "tiers": [{"name": "big", "model": "gpt-4o"}, {"name": "small", "model": "gpt-4o-mini", "below": 0.2}],
        "plans": {"gold": {
            "scope": "proxy",
            "sticky": {"header": "x-conversation"},
            "budget": {"initial_budget": 1_000, "window": "day"},
            "limits": [
                {"name": "opus", "models": ["gpt-4o"], "budget": {"initial_budget": 1_000, "window": "day"}},
                {"name": "user", "per": "user", "budget": {"initial_budget": 500, "window": "day"}}
            ]
        }},
        "tenants": tenants
    })
}

fn before() -> Value {
    with(json!({"acme": {"plan": "gold"}}))
}

fn after() -> Value {
    with(json!({"apex": {"plan": "gold", "was": "acme"}}))
}

/// A request of a tenant's user.
fn chat<'a>(proxy: &'a Proxy, tenant: &str) -> Call<'a> {
    let length = BODY.len().to_string();
    let mut call = proxy.post(&[
        ("x-tenant-id", tenant),
        ("x-user-id", "ann"),
        ("x-conversation", "c"),
        ("content-length", &length),
    ]);
    call.send(&[BODY.as_bytes()]);
    call
}

/// One that uses so many tokens. What the tenant and its user have left then.
fn served(proxy: &Proxy, tenant: &str, tokens: u64) -> Option<String> {
    let mut call = chat(proxy, tenant);
    call.answer_json(&usage(tokens, 0));
    call.end();
    let left = call.response_header("ratelimit")?;
    Some(left.replace(";t=43200", ""))
}

fn left(budget: u64, user: u64) -> Option<String> {
    Some(format!("\"budget\";r={budget}, \"user\";r={user}"))
}

#[test]
fn what_was_spent_under_the_old_name_is_spent_and_so_is_what_its_users_spent() {
    let proxy = Proxy::new(&before());
    served(&proxy, "acme", 100);
    let keys = proxy.store.keys();
    proxy.configure(&after());
    assert_eq!(
        served(&proxy, "apex", 50),
        left(1_000 - 100 - RESERVED, 500 - 100 - RESERVED)
    );
    assert_eq!(proxy.store.keys(), keys, "nothing stands there twice");
    // Who still shows the old name is nobody that is known.
    assert_eq!(
        chat(&proxy, "acme").refused(),
        Some((403, "tenant_unknown"))
    );
}

#[test]
fn without_that_it_begins_anew() {
    let proxy = Proxy::new(&before());
    served(&proxy, "acme", 100);
    proxy.configure(&with(json!({"apex": {"plan": "gold"}})));
    assert_eq!(
        served(&proxy, "apex", 50),
        left(1_000 - RESERVED, 500 - RESERVED)
    );
}

#[test]
fn what_was_in_flight_under_the_old_name_settles_on_the_same_account() {
    let proxy = Proxy::new(&before());
    let mut early = chat(&proxy, "acme");
    proxy.configure(&after());
    let mut late = chat(&proxy, "apex");
    assert_eq!(proxy.record("acme").account.held().tokens.0, 2 * RESERVED);
    early.answer_json(&usage(30, 0));
    early.end();
    late.answer_json(&usage(7, 0));
    late.end();
    let record = proxy.record("acme");
    assert_eq!(record.account.spent.tokens.0, 37);
    assert_eq!(record.account.held().tokens.0, 0);
    let opus = record
        .others
        .iter()
        .find_map(|entry| entry.account(LimitKey::of("opus")));
    assert_eq!(opus.unwrap().spent.tokens.0, 37);
}

#[test]
fn a_worker_that_does_not_know_the_new_name_yet_and_one_that_does_share_one_budget() {
    let proxy = Rc::new(Proxy::new(&after()));
    let other = Rc::clone(&proxy);
    proxy.store.intrude(move || {
        other.configure(&before());
        let mut call = chat(&other, "acme");
        call.answer_json(&usage(950, 0));
        call.end();
        other.configure(&after());
    });
    // Before the write of this one the other has spent what was left.
    assert_eq!(
        chat(&proxy, "apex").refused(),
        Some((429, "budget_exhausted"))
    );
    assert_eq!(proxy.record("acme").account.spent.tokens.0, 950);
}

#[test]
fn a_parent_that_was_renamed_counts_on() {
    let company = |corp: &str, own: Value| {
        let mut tenants = json!({"team": {"parent": corp}});
        tenants[corp] = own;
        with(tenants)
    };
    let proxy = Proxy::new(&company("corp", json!({"plan": "gold"})));
    served(&proxy, "team", 100);
    let mut flight = chat(&proxy, "team");
    proxy.configure(&company("group", json!({"plan": "gold", "was": "corp"})));
    served(&proxy, "team", 20);
    flight.answer_json(&usage(3, 0));
    flight.end();
    assert_eq!(proxy.record("corp").account.spent.tokens.0, 123);
    assert!(proxy.try_record("group").is_none());
}

#[test]
fn a_child_that_was_renamed_keeps_what_it_has_of_its_parents_budget() {
    let company = |name: &str, own: Value| {
        let mut tenants = json!({"corp": {"plan": "gold"}});
        tenants[name] = own;
        with(tenants)
    };
    let parents = |second: &str, was: Option<&str>| {
        let own = json!({"parent": "corp", "guaranteed": 0.3});
        let proxy = Proxy::new(&company("acme", own.clone()));
        served(&proxy, "acme", 100);
        let mut own = own;
        if let Some(was) = was {
            own["was"] = was.into();
        }
        proxy.configure(&company(second, own));
        served(&proxy, second, 20);
        proxy.record("corp")
    };
    assert_eq!(parents("apex", Some("acme")), parents("acme", None));
    assert_ne!(parents("apex", None), parents("acme", None));
}

#[test]
fn it_costs_no_call_of_the_store() {
    let calls = |config: &Value, tenant: &str| {
        let proxy = Proxy::new(config);
        served(&proxy, tenant, 5);
        let before = proxy.store.calls();
        served(&proxy, tenant, 5);
        proxy.store.calls() - before
    };
    assert_eq!(calls(&after(), "apex"), calls(&before(), "acme"));
}

#[test]
fn the_account_that_proxies_share_stays_the_same() {
    let key = |config: Value, tenant: &str| {
        let mut config = config;
        config["plans"]["gold"]["scope"] = "global".into();
        let proxy = Proxy::new(&config);
        chat(&proxy, tenant);
        let mut teller = Teller::default();
        for watch in proxy.watches.borrow_mut().drain(..) {
            teller.watch(watch);
        }
        let messages = teller.due(&proxy.store, proxy.now()).0;
        let (key, _) = messages[0].lines().next().unwrap();
        key.to_owned()
    };
    let old = key(before(), "acme");
    assert!(old.contains("{default/acme/"), "{old}");
    assert_eq!(key(after(), "apex"), old);
}
