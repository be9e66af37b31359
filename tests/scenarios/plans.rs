//! Tenants that are not configured, and whose requests name their plan.

use crate::opening::changed;
use crate::proxy::{Call, Proxy};
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn config() -> Value {
    json!({
        "hold_headers": true,
        "plan_from": [{"header": "x-plan"}, {"header": "x-tariff"}],
        "plans": {
            "gold": {"budget": {"initial_budget": 10_000, "window": "day"}},
            "free": {"budget": {"initial_budget": 100, "window": "day"}}
        },
        "tenants": {"acme": {"plan": "free"}}
    })
}

fn ask<'a>(proxy: &'a Proxy, tenant: &str, more: &[(&str, &str)]) -> Call<'a> {
    let mut headers = vec![("x-tenant-id", tenant)];
    headers.extend(more);
    let mut call = proxy.post(&headers);
    call.send(&[br#"{"model":"m","max_tokens":500}"#]);
    call
}

#[test]
fn a_tenant_that_is_not_configured_gets_the_plan_that_its_request_names() {
    let proxy = Proxy::new(&config());
    for (headers, refused) in [
        (&[("x-plan", "gold")][..], None),
        (&[("x-tariff", "gold")], None),
        (
            &[("x-plan", "free"), ("x-tariff", "gold")],
            Some((429, "budget_exhausted")),
        ),
        (&[("x-plan", "bronze")], Some((403, "tenant_unknown"))),
        // The first that yields wins, as it does for tenants.
        (
            &[("x-plan", "bronze"), ("x-tariff", "gold")],
            Some((403, "tenant_unknown")),
        ),
        (
            &[("x-plan", "gold"), ("x-plan", "gold")],
            Some((403, "tenant_unknown")),
        ),
        (&[], Some((403, "tenant_unknown"))),
    ] {
        let call = ask(&proxy, "stranger", headers);
        assert_eq!(call.refused(), refused, "{headers:?}");
        let plan = call.fields.get("bursar_plan").map(String::as_str);
        if refused.is_none() {
            assert_eq!(plan, Some("gold"));
        }
    }
}

#[test]
fn a_configured_tenant_keeps_its_own_plan() {
    let proxy = Proxy::new(&config());
    let call = ask(&proxy, "acme", &[("x-plan", "gold")]);
    assert_eq!(call.refused(), Some((429, "budget_exhausted")));
}

#[test]
fn where_no_plan_is_named_the_one_of_unknown_tenants_holds() {
    let proxy = Proxy::new(&changed(config(), |config| {
        config["tenant"] = json!({"unknown": {"plan": "free"}});
    }));
    for (plan, refused) in [("gold", None), ("bronze", Some((429, "budget_exhausted")))] {
        assert_eq!(
            ask(&proxy, "stranger", &[("x-plan", plan)]).refused(),
            refused
        );
    }
    assert_eq!(
        ask(&proxy, "stranger", &[]).refused(),
        Some((429, "budget_exhausted"))
    );
}
