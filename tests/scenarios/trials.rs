//! Plans that are tried on live requests beside the one that decides.
#![cfg(not(target_arch = "wasm32"))]

use crate::proxy::{Call, Proxy, usage};
use bursar::state::record::Record;
use bursar::state::store::tenant_key;
use proptest::prelude::*;
use serde_json::{Value, json};

/// 10,000 tokens a day decide; 1,000 and 100,000 are tried.
fn config() -> Value {
    json!({
        "hold_headers": true,
        "tiers": [
            {"name": "default", "model": "gpt-4o", "price": {"input": 10, "output": 10}},
            {"name": "compact", "model": "gpt-4o-mini", "price": {"input": 1, "output": 1}, "below": 0.2}
        ],
        "plans": {
            "now": {"shadow": ["strict", "generous"], "budget": {"initial_budget": 10_000, "window": "day"}},
            "strict": {"budget": {"initial_budget": 1_000, "window": "day"}},
            "generous": {"budget": {"initial_budget": 100_000, "window": "day"}}
        },
        "tenants": {"acme": {"plan": "now"}}
    })
}

const BODY: &str = r#"{"model":"gpt-4o","max_tokens":60,"messages":["hello"]}"#;

fn record_of(proxy: &Proxy, tenant: &str, plan: &str) -> Record {
    proxy.record(&format!("{tenant}\u{1f}{plan}"))
}

fn spent(proxy: &Proxy, plan: &str) -> (u64, u64) {
    let spent = record_of(proxy, "acme", plan).account.spent;
    (spent.tokens.0, spent.usd.0)
}

fn held(proxy: &Proxy, plan: &str) -> u64 {
    record_of(proxy, "acme", plan).account.held().tokens.0
}

fn counted(proxy: &Proxy, plan: &str, decision: &str) -> u64 {
    proxy.metric(&format!(
        "bursar_shadow_plan_total.tenant=.=acme;.;plan=.={plan};.;decision=.={decision};.;"
    ))
}

fn served<'a>(proxy: &'a Proxy, used: u64) -> Call<'a> {
    let mut call = proxy.chat("acme", BODY);
    call.answer_json(&usage(used, 0));
    call.end();
    call
}

#[test]
fn each_plan_decides_by_its_own_account_and_none_of_it_is_done() {
    let proxy = Proxy::new(&config());
    let call = served(&proxy, 850);
    assert_eq!(call.fields["bursar_shadow"], "strict=admit, generous=admit");
    assert_eq!(
        (spent(&proxy, "strict"), spent(&proxy, "generous")),
        ((850, 8_500), (850, 8_500))
    );

    // The strict one is below its mark now, and would have paid the price of its lighter model.
    let call = served(&proxy, 50);
    let lower = "strict=downgrade;tier=compact;model=gpt-4o-mini;reason=budget_low, generous=admit";
    assert_eq!(call.fields["bursar_shadow"], lower);
    assert_eq!(call.upstream_text(), BODY);
    assert_eq!(call.response_header("x-bursar-decision"), Some("admit"));
    assert_eq!(
        call.response_header("x-bursar-shadow"),
        None,
        "callers see nothing of it"
    );
    assert_eq!(
        (spent(&proxy, "strict"), spent(&proxy, "generous")),
        ((900, 8_550), (900, 9_000))
    );

    // Then it is spent, and what it would have refused is not charged to it.
    let call = served(&proxy, 100);
    assert!(call.fields["bursar_shadow"].starts_with("strict=throttle;reason="));
    assert_eq!(
        (spent(&proxy, "strict").0, spent(&proxy, "generous").0),
        (900, 1_000)
    );
    assert_eq!((held(&proxy, "strict"), held(&proxy, "generous")), (0, 0));
    assert_eq!(proxy.record("acme").account.spent.tokens.0, 1_000);

    for (plan, decision, count) in [
        ("strict", "admit", 1),
        ("strict", "downgrade", 1),
        ("strict", "throttle", 1),
        ("generous", "admit", 3),
    ] {
        assert_eq!(counted(&proxy, plan, decision), count, "{plan} {decision}");
    }
    let cost = |what: &str, plan: &str| {
        proxy.metric(&format!(
            "bursar_shadow_plan_{what}_total.tenant=.=acme;.;plan=.={plan};.;"
        ))
    };
    assert_eq!(
        (cost("tokens", "strict"), cost("spend", "strict")),
        (900, 8_550)
    );
    assert_eq!(
        (cost("tokens", "generous"), cost("spend", "generous")),
        (1_000, 10_000)
    );
    // The gauge is the tenant's own.
    assert_eq!(
        proxy.metric("bursar_budget_remaining.tenant=.=acme;.;"),
        9_000
    );
}

#[test]
fn what_is_really_refused_is_decided_by_each_and_charged_to_none() {
    let proxy = Proxy::new(&config());
    served(&proxy, 9_990);
    let refused = proxy.chat("acme", BODY);
    assert_eq!(refused.refused().map(|(status, _)| status), Some(429));
    assert_eq!(
        refused.fields["bursar_shadow"],
        "strict=throttle;reason=budget_exhausted, generous=admit"
    );
    assert_eq!(
        (held(&proxy, "generous"), spent(&proxy, "generous").0),
        (0, 9_990)
    );
    assert_eq!(counted(&proxy, "generous", "admit"), 2);
}

#[test]
fn a_request_that_ends_otherwise_holds_nothing() {
    for hold in [true, false] {
        let mut config = config();
        config["hold_headers"] = hold.into();
        let proxy = Proxy::new(&config);
        // The upstream refuses.
        let mut call = proxy.chat("acme", BODY);
        assert!(held(&proxy, "strict") > 0);
        call.answer_headers("500", &[]);
        call.answer_chunk(b"", true);
        call.end();
        assert_eq!((held(&proxy, "strict"), spent(&proxy, "strict").0), (0, 0));
        // The client leaves.
        let mut call = proxy.chat("acme", BODY);
        call.end();
        assert_eq!(held(&proxy, "strict"), 0);
        // The body turns out to be none.
        let mut call = proxy.post(&[("x-tenant-id", "acme")]);
        call.send(&[br#"{"model":"gpt-4o","max_tokens":60,"#, b"]"]);
        call.end();
        assert_eq!(held(&proxy, "generous"), 0, "{hold}");
    }
}

#[test]
fn a_model_that_a_plan_does_not_allow_would_be_refused_by_that_one() {
    let mut config = config();
    config["plans"]["strict"]["models"] = json!(["gpt-4o-mini"]);
    let proxy = Proxy::new(&config);
    let call = served(&proxy, 10);
    assert_eq!(
        call.fields["bursar_shadow"],
        "strict=refuse;reason=model_not_allowed, generous=admit"
    );
    assert!(proxy.try_record("acme\u{1f}strict").is_none());
}

#[test]
fn tenants_that_are_not_configured_try_nothing() {
    let mut config = config();
    config["tenant"] = json!({"unknown": {"plan": "now"}});
    let proxy = Proxy::new(&config);
    let call = proxy.served("stranger", BODY, 10, 0);
    assert!(!call.fields.contains_key("bursar_shadow"));
    assert!(
        proxy
            .store
            .value(&tenant_key("stranger\u{1f}strict"))
            .is_none()
    );
}

proptest! {
    /// A plan that is tried beside itself would have done what is done, and costs what that costs.
    #[test]
    fn a_plan_tried_beside_itself_does_what_it_does(
        requests in prop::collection::vec((1_u64..400, 0_u64..600, any::<bool>(), 0_u64..4_000_000), 1..30),
        hold in any::<bool>(),
    ) {
        let plan = json!({
            "budget": {"initial_budget": 3_000, "window": "1h"},
            "bucket": {"tokens_per_window": 2_000, "window": "1h"},
            "on_exhausted": {"degrade": {"overdraft": 0.1}}, "min_output_tokens": 5, "hold": "likely",
        });
        let mut config = config();
        config["hold_headers"] = hold.into();
        config["plans"]["same"] = plan.clone();
        config["plans"]["now"] = plan;
        config["plans"]["now"]["shadow"] = json!(["same"]);
        let proxy = Proxy::new(&config);
        for (most, used, leaves, pause) in requests {
            proxy.pass_millis(pause);
            let body = format!(r#"{{"model":"gpt-4o","max_tokens":{most},"messages":["hello"]}}"#);
            let mut call = proxy.chat("acme", &body);
            if call.reply.is_none() {
                if !leaves {
                    call.answer_json(&usage(used, most));
                }
                call.end();
            }
            let would = call.fields["bursar_shadow"].clone();
            let decision = would.strip_prefix("same=").unwrap().split(';').next().unwrap();
            prop_assert_eq!(call.fields["bursar_decision"].as_str(), decision);
            let (real, tried) = (proxy.record("acme"), record_of(&proxy, "acme", "same"));
            prop_assert_eq!(real.account, tried.account);
            prop_assert_eq!(real.bucket, tried.bucket);
        }
    }
}
