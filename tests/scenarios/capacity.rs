//! Whole exchanges of tenants that share a tier's capacity.

use crate::opening::{changed, held};
use crate::proxy::{Call, Proxy, usage};
use bursar::limits::capacity::Taken;
use bursar::state::store::{capacity_key, tenant_key};
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// A hundred tokens come back in 100 s at each tier: 20 only for `vip`, 10 more for `acme`. `acme` has a budget, too.
fn config() -> Value {
    let capacity = json!({"tokens_per_window": 100, "window": "100s"});
    json!({
        "hold_headers": true,
        "tiers": [
            {"name": "default", "model": "large", "capacity": capacity},
            {"name": "compact", "model": "small", "below": 0.1, "capacity": capacity}
        ],
        "tenants": {
            "vip": {"priority": "critical"},
            "acme": {"budget": {"initial_budget": 10000, "window": "day"}},
            "crowd": {"priority": "best_effort", "budget": {"initial_budget": 10000, "window": "day"}},
            "single": {"priority": "best_effort", "never_downgrade": true}
        }
    })
}

fn with(change: impl Fn(&mut Value)) -> Value {
    changed(config(), change)
}

/// A request for the first tier that takes `cells`: ten for its 40 bytes, the rest for its answer; or nine for 36 bytes, and one.
fn body(cells: u64) -> String {
    let (width, input) = if cells > 10 { (40, 10) } else { (36, 9) };
    let body = format!(r#"{{"model":"large","max_tokens":{}}}"#, cells - input);
    format!("{body:<width$}")
}

fn ask<'a>(proxy: &'a Proxy, tenant: &str, cells: u64) -> Call<'a> {
    proxy.chat(tenant, &body(cells))
}

/// What is taken of a model's capacity.
fn used(proxy: &Proxy, model: &str) -> u64 {
    let bytes = proxy.store.value(&capacity_key(model));
    bytes.map_or(0, |bytes| {
        assert!(Taken::decode(&bytes).is_ok());
        u64::from_le_bytes(bytes[4..12].try_into().unwrap())
    })
}

fn tier<'a>(call: &'a Call<'_>) -> Option<&'a str> {
    match call.refused() {
        None => call.upstream_header("x-bursar-tier"),
        Some(_) => None,
    }
}

const FULL: Option<(u16, &str)> = Some((429, "tier_capacity"));

#[test]
fn a_flood_goes_one_tier_down_then_waits_while_others_keep_theirs() {
    let proxy = Proxy::new(&config());
    let mut flood: Vec<_> = (0..20).map(|_| ask(&proxy, "crowd", 10)).collect();
    let tiers: Vec<_> = flood.iter().map(tier).collect();
    assert_eq!(tiers[..7], [Some("default"); 7]);
    assert_eq!(tiers[7..14], [Some("compact"); 7]);
    assert_eq!(tiers[14..], [None; 6]);
    assert_eq!((used(&proxy, "large"), used(&proxy, "small")), (70, 70));
    // Only what was admitted is held: 14 times 36 bytes, and a token of the answer.
    assert_eq!(held(&proxy, "crowd"), 14 * 37);
    assert_eq!(tier(&ask(&proxy, "acme", 10)), Some("default"));
    assert_eq!(tier(&ask(&proxy, "acme", 10)), Some("compact"));
    assert_eq!(ask(&proxy, "acme", 10).refused(), FULL);
    let vip = [20, 20].map(|cells| ask(&proxy, "vip", cells));
    assert_eq!(vip.each_ref().map(tier), [Some("default"), Some("compact")]);
    for call in &mut flood {
        call.answer_json(&usage(3, 0));
        call.end();
    }
    assert_eq!((used(&proxy, "large"), used(&proxy, "small")), (51, 51));
    assert_eq!(tier(&ask(&proxy, "crowd", 10)), Some("default"));
}

#[test]
fn why_is_told_in_headers_log_and_metrics() {
    let proxy = Proxy::new(&config());
    let first = ask(&proxy, "crowd", 70);
    let mut second = ask(&proxy, "crowd", 70);
    assert_eq!(first.fields.get("bursar_reason"), None);
    assert_eq!(second.fields["bursar_reason"], "tier_capacity");
    second.answer_json(&usage(10, 30));
    assert_eq!(
        second.response_header("x-bursar-decision"),
        Some("downgrade")
    );
    assert_eq!(
        second.response_header("x-bursar-reason"),
        Some("tier_capacity")
    );
    // How much others have taken is the operator's business.
    assert_eq!(
        second.response_header("ratelimit-policy"),
        Some("\"budget\";q=10000;w=86400")
    );
    let metric = |name: &str| proxy.metric(name);
    assert_eq!(
        metric(
            "bursar_downgraded_total.tenant=.=crowd;.;tier=.=compact;.;reason=.=tier_capacity;.;"
        ),
        1
    );
    assert_eq!(
        metric("bursar_capacity_remaining.tier=.=default;.;model=.=large;.;"),
        30
    );
    assert_eq!(
        metric("bursar_capacity_remaining.tier=.=compact;.;model=.=small;.;"),
        60
    );
    let third = ask(&proxy, "single", 70);
    assert_eq!(third.refused(), FULL);
    assert_eq!(
        third.reply.as_ref().unwrap().details,
        "bursar_tier_capacity"
    );
    assert_eq!(third.fields["bursar_reason"], "tier_capacity");
    assert_eq!(third.fields["bursar_decision"], "throttle");
    assert_eq!(
        metric("bursar_throttled_total.tenant=.=single;.;reason=.=tier_capacity;.;"),
        1
    );
    drop(first);
}

#[test]
fn a_refusal_tells_a_true_wait_and_charges_nothing_anywhere() {
    let proxy = Proxy::new(&config());
    let _calls = [("crowd", 70), ("crowd", 65)].map(|(tenant, cells)| ask(&proxy, tenant, cells));
    let state = || {
        let keys = [
            capacity_key("large"),
            capacity_key("small"),
            tenant_key("crowd"),
        ];
        keys.map(|key| proxy.store.value(&key))
    };
    let before = state();
    let refused = ask(&proxy, "crowd", 10);
    assert_eq!(refused.refused(), FULL);
    // On the second tier 5 are there, and 5 come back in as many seconds.
    assert_eq!(refused.reply_header("retry-after"), Some("5"));
    assert_eq!(refused.reply_header("retry-after-ms"), Some("5000"));
    assert_eq!(refused.reply_header("x-should-retry"), None);
    assert_eq!(refused.reply_header("x-bursar-tier"), Some("compact"));
    let reply: Value = serde_json::from_str(&refused.reply.as_ref().unwrap().body).unwrap();
    assert_eq!(reply["error"]["code"], "rate_limit_exceeded");
    // What refuses is what is told: 5 of the 70 that best-effort requests may have.
    assert_eq!(refused.reply_header("x-ratelimit-limit-tokens"), Some("70"));
    assert_eq!(
        refused.reply_header("x-ratelimit-remaining-tokens"),
        Some("5")
    );
    assert_eq!(
        refused.reply_header("x-ratelimit-reset-tokens"),
        Some("1m5s")
    );
    assert_eq!(
        refused.reply_header("ratelimit-policy"),
        Some("\"budget\";q=10000;w=86400, \"capacity\";q=70;w=100")
    );
    assert_eq!(
        refused.reply_header("ratelimit"),
        Some("\"budget\";r=9805;t=43200, \"capacity\";r=5;t=65")
    );
    assert_eq!(state(), before);
    proxy.pass_millis(4_999);
    assert_eq!(ask(&proxy, "crowd", 10).refused(), FULL);
    assert_eq!(state(), before);
    proxy.pass_millis(1);
    assert_eq!(tier(&ask(&proxy, "crowd", 10)), Some("compact"));
}

#[test]
fn what_a_priority_can_never_have_is_not_to_be_tried_again() {
    let proxy = Proxy::new(&config());
    let refused = ask(&proxy, "crowd", 71);
    assert_eq!(refused.refused(), FULL);
    assert_eq!(refused.reply_header("retry-after"), None);
    assert_eq!(refused.reply_header("x-should-retry"), Some("false"));
    let reply: Value = serde_json::from_str(&refused.reply.as_ref().unwrap().body).unwrap();
    assert_eq!(reply["error"]["code"], "request_exceeds_burst");
    assert_eq!(tier(&ask(&proxy, "vip", 71)), Some("default"));
    // A tier without a capacity has room for everything.
    proxy.configure(&with(|config| config["tiers"][1]["capacity"] = Value::Null));
    assert_eq!(tier(&ask(&proxy, "crowd", 71)), Some("compact"));
}

/// Another worker serves such a request just before the next write; its answer never comes.
fn intrude(proxy: &'static Proxy, tenant: &'static str, model: &'static str, cells: u64) {
    proxy.store.intrude(move || {
        let body = body(cells).replace("large", model);
        assert_eq!(proxy.chat(tenant, &body).refused(), None);
    });
}

fn leaked() -> &'static Proxy {
    Box::leak(Box::new(Proxy::new(&config())))
}

/// Nobody intrudes before the next write.
fn skip(proxy: &Proxy) {
    proxy.store.intrude(|| {});
}

#[test]
fn a_tier_that_others_fill_after_the_look_is_left_for_the_next_and_nothing_stays_charged() {
    let proxy = leaked();
    // The first write is the tenant's own; before the second one, the capacity's, others come.
    skip(proxy);
    intrude(proxy, "single", "large", 70);
    let call = ask(proxy, "crowd", 60);
    assert_eq!(tier(&call), Some("compact"));
    assert_eq!(call.fields["bursar_reason"], "tier_capacity");
    assert_eq!((used(proxy, "large"), used(proxy, "small")), (70, 60));
    assert_eq!(held(proxy, "crowd"), 40 + 50);
    assert_eq!(proxy.metric("bursar_state_conflicts_total"), 1);
}

#[test]
fn where_others_fill_every_tier_after_the_look_nothing_stays_charged() {
    let proxy = leaked();
    let before = proxy.try_record("crowd");
    skip(proxy);
    intrude(proxy, "single", "large", 70);
    // The writes of the intruder itself, and the tenant's second one.
    for _ in 0..3 {
        skip(proxy);
    }
    intrude(proxy, "single", "small", 65);
    let call = ask(proxy, "crowd", 60);
    assert_eq!(call.refused(), FULL);
    assert_eq!(call.reply_header("retry-after"), Some("55"));
    assert_eq!((used(proxy, "large"), used(proxy, "small")), (70, 65));
    assert_eq!((before, held(proxy, "crowd")), (None, 0));
    assert_eq!(proxy.record("crowd").account.spent.tokens.0, 0);
    proxy.pass_millis(55_000);
    assert_eq!(tier(&ask(proxy, "crowd", 60)), Some("compact"));
}

#[test]
fn however_a_request_ends_its_part_is_what_it_used() {
    for status in ["400", "429", "503"] {
        let proxy = Proxy::new(&config());
        let mut call = ask(&proxy, "acme", 50);
        assert_eq!(used(&proxy, "large"), 50);
        call.answer_headers(status, &[]);
        call.end();
        assert_eq!(used(&proxy, "large"), 0, "{status}");
    }
    let proxy = Proxy::new(&config());
    // The client leaves before an answer: the prompt may have been read.
    let mut call = ask(&proxy, "acme", 50);
    call.end();
    assert_eq!(used(&proxy, "large"), 10);
    // More than was expected, then less.
    proxy.served("acme", &body(20), 15, 15);
    assert_eq!(used(&proxy, "large"), 40);
    proxy.served("acme", &body(20), 5, 0);
    assert_eq!(used(&proxy, "large"), 45);
    assert_eq!(
        proxy.metric("bursar_capacity_remaining.tier=.=default;.;model=.=large;.;"),
        55
    );
    // Nobody settles it, and still it comes back.
    drop(ask(&proxy, "acme", 35));
    assert_eq!(ask(&proxy, "single", 20).refused(), FULL);
    proxy.pass_millis(80_000);
    assert_eq!(tier(&ask(&proxy, "acme", 80)), Some("default"));
}

#[test]
fn a_model_on_no_ladder_and_a_tier_without_capacity_have_room_for_all() {
    let proxy = Proxy::new(&config());
    let unlisted = body(1_000).replace("large", "own");
    assert_eq!(tier(&proxy.chat("crowd", &unlisted)), Some("unlisted"));
    assert_eq!((used(&proxy, "large"), used(&proxy, "small")), (0, 0));
}

/// Where headers are not held, a request is admitted by what is known when its model was read.
#[test]
fn what_is_known_late_is_taken_late_or_everything_is_given_back() {
    let proxy = Proxy::new(&with(|config| config["hold_headers"] = false.into()));
    let pass = |tenant, cells| {
        let mut call = proxy.post(&[("x-tenant-id", tenant), ("content-length", "40")]);
        let body = body(cells);
        call.send_chunk(&body.as_bytes()[..20], false);
        let at_first = used(&proxy, "large");
        call.send_chunk(&body.as_bytes()[20..], false);
        call.send_chunk(b"", true);
        (at_first, call)
    };
    let (at_first, call) = pass("acme", 60);
    // The tokens of 20 bytes: what is only announced is taken from nobody.
    assert_eq!((at_first, used(&proxy, "large")), (5, 60));
    assert_eq!(call.refused(), None);
    // 10 more it may have, but not 20: too late to send it down.
    let (at_first, refused) = pass("single", 20);
    assert_eq!((at_first, used(&proxy, "large")), (65, 60));
    assert_eq!(refused.refused(), FULL);
    assert_eq!(refused.reply_header("retry-after"), Some("10"));
    let (_, refused) = pass("crowd", 20);
    assert_eq!(refused.refused(), FULL);
    assert_eq!((used(&proxy, "large"), held(&proxy, "crowd")), (60, 0));
    // The tenant's own limit refuses: the capacity has it back.
    let large = pass("acme", 9_900).1;
    assert_eq!(large.refused(), Some((429, "budget_held")));
    assert_eq!(used(&proxy, "large"), 60);
    let mut served = call;
    served.answer_json(&usage(1, 1));
    served.end();
    assert_eq!(used(&proxy, "large"), 2);
}

#[test]
fn a_tenant_in_shadow_mode_is_never_refused_and_its_use_is_taken_yet_nobody_above_it_feels_that() {
    let shadow = json!({"priority": "best_effort", "shadow": true});
    let proxy = Proxy::new(&with(|config| config["tenants"]["shadow"] = shadow.clone()));
    let mut first = ask(&proxy, "shadow", 60);
    let second = ask(&proxy, "shadow", 60);
    let third = ask(&proxy, "shadow", 60);
    for (call, told) in [
        (&first, "admit"),
        (
            &second,
            "downgrade;tier=compact;model=small;reason=tier_capacity",
        ),
        // At the second tier nothing was taken of what was never sent there.
        (
            &third,
            "downgrade;tier=compact;model=small;reason=tier_capacity",
        ),
    ] {
        assert_eq!(tier(call), Some("default"));
        assert_eq!(call.fields["bursar_shadow"], told);
    }
    assert_eq!((used(&proxy, "large"), used(&proxy, "small")), (180, 0));
    assert_eq!(tier(&ask(&proxy, "acme", 10)), Some("default"));
    assert_eq!(tier(&ask(&proxy, "vip", 20)), Some("default"));
    first.answer_json(&usage(10, 0));
    first.end();
    assert_eq!(used(&proxy, "large"), 180 - 50 + 30);
}

#[test]
fn a_capacity_that_cannot_be_had_when_the_body_ends_refuses_as_the_operator_wants_but_never_in_shadow_mode()
 {
    for (shadow, refused) in [(false, Some((503, "budget_unavailable"))), (true, None)] {
        let proxy = leaked();
        proxy.configure(&with(|config| {
            config["hold_headers"] = false.into();
            config["failure_mode"] = "deny".into();
            config["tenants"]["crowd"]["shadow"] = shadow.into();
        }));
        let mut call = proxy.post(&[("x-tenant-id", "crowd"), ("content-length", "40")]);
        let body = body(60);
        call.send_chunk(&body.as_bytes()[..20], false);
        assert_eq!(used(proxy, "large"), 5);
        skip(proxy);
        proxy.store.intrude(|| proxy.store.lose(16));
        call.send_chunk(&body.as_bytes()[20..], false);
        call.send_chunk(b"", true);
        assert_eq!(call.refused(), refused);
        if refused.is_none() {
            call.answer_json(&usage(10, 20));
        }
        call.end();
        let spent = if shadow { 30 } else { 0 };
        assert_eq!((used(proxy, "large"), held(proxy, "crowd")), (spent, 0));
    }
}

// Configuration is edited and renamed; what was spent stays.
#[test]
fn another_name_place_or_size_of_a_tier_keeps_what_was_taken() {
    let proxy = Proxy::new(&config());
    let mut call = ask(&proxy, "crowd", 60);
    proxy.configure(&with(|config| {
        let tier = &mut config["tiers"][0];
        tier["name"] = "best".into();
        tier["capacity"]["tokens_per_window"] = 200.into();
        config["ladders"] = json!([
            {"tiers": [{"name": "default", "model": "other"}]},
            {"match": ["large*"], "tiers": config["tiers"]}
        ]);
        config.as_object_mut().unwrap().remove("tiers");
    }));
    // 140 of 200 may be taken, and 60 are.
    assert_eq!(tier(&ask(&proxy, "single", 80)), Some("best"));
    assert_eq!(ask(&proxy, "single", 11).refused(), FULL);
    // A snapshot of the model counts where it is served.
    assert_eq!(
        tier(&proxy.chat("vip", &body(20).replace("large", "large-2"))),
        Some("best")
    );
    assert_eq!(used(&proxy, "large"), 161);
    // Who was admitted before settles.
    call.answer_json(&usage(5, 5));
    call.end();
    assert_eq!(used(&proxy, "large"), 111);
}

#[test]
fn a_failing_store_follows_failure_mode_and_what_is_used_counts() {
    let proxy = leaked();
    // The tenant's record is written, and then the store does not answer any more.
    skip(proxy);
    proxy.store.intrude(|| proxy.store.set_down(true));
    let mut call = ask(proxy, "crowd", 60);
    proxy.store.set_down(false);
    assert_eq!(call.refused(), None);
    assert_eq!((used(proxy, "large"), held(proxy, "crowd")), (0, 40 + 50));
    call.answer_json(&usage(10, 20));
    call.end();
    assert_eq!((used(proxy, "large"), held(proxy, "crowd")), (30, 0));
    proxy.configure(&with(|config| config["failure_mode"] = "deny".into()));
    skip(proxy);
    proxy.store.intrude(|| proxy.store.lose(16));
    let call = ask(proxy, "crowd", 10);
    assert_eq!(call.refused(), Some((503, "budget_unavailable")));
    assert_eq!((used(proxy, "large"), held(proxy, "crowd")), (30, 0));
}

#[test]
fn what_is_held_for_a_request_that_cannot_be_decided_anew_is_settled_by_it() {
    let proxy = leaked();
    skip(proxy);
    intrude(proxy, "single", "large", 70);
    skip(proxy);
    skip(proxy);
    proxy.store.intrude(|| proxy.store.lose(16));
    let mut call = ask(proxy, "crowd", 60);
    assert_eq!(tier(&call), Some("default"));
    assert_eq!(call.fields["bursar_reason"], "budget_unavailable");
    assert_eq!((used(proxy, "large"), held(proxy, "crowd")), (70, 40 + 50));
    call.answer_json(&usage(5, 5));
    call.end();
    assert_eq!((used(proxy, "large"), held(proxy, "crowd")), (80, 0));
    assert_eq!(proxy.record("crowd").account.spent.tokens.0, 10);
}

// A value under our key may be older, cut off, or another plugin's.
#[test]
fn bytes_that_are_none_of_ours_count_as_nothing_taken() {
    let proxy = Proxy::new(&config());
    proxy.store.plant(&capacity_key("large"), b"garbage");
    assert_eq!(tier(&ask(&proxy, "crowd", 70)), Some("default"));
    assert_eq!(used(&proxy, "large"), 70);
    assert!(proxy.metric("bursar_state_corrupt_total") > 0);
}

#[test]
fn who_has_no_capacity_asks_the_store_nothing_more() {
    let calls = |config: &Value| {
        let proxy = Proxy::new(config);
        proxy.served("acme", &body(20), 5, 5);
        let before = proxy.store.calls();
        proxy.served("acme", &body(20), 5, 5);
        proxy.store.calls() - before
    };
    let without = with(|config| {
        for tier in config["tiers"].as_array_mut().unwrap() {
            tier.as_object_mut().unwrap().remove("capacity");
        }
    });
    // Reserve and settle.
    assert_eq!(calls(&without), 2 + 2);
    // A look at each tier's capacity, taking, settling, and its gauge.
    assert_eq!(calls(&config()), 4 + 2 + 2 + 2 + 1);
    // Of who must not be downgraded, only the asked tier is looked at.
    let never = with(|config| config["tenants"]["acme"]["never_downgrade"] = true.into());
    assert_eq!(calls(&never), 4 + 1 + 2 + 2 + 1);
}
