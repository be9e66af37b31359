mod capacity;
mod global;
mod pace;
mod plans;
mod preferences;
mod prices;
#[cfg(not(target_arch = "wasm32"))]
mod schema;

use std::num::NonZeroU64;

use super::*;
use crate::base::units::{Ppm, Tokens, Unit};
use crate::calendar::window::Period;
use crate::limits::stacked::Rule;
use crate::plan::Preferences;
use crate::tier::{Rates, Step};
use crate::usage::ServiceTier;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// A small valid configuration to which `change` was applied.
pub(super) fn with(change: impl Fn(&mut serde_json::Value)) -> String {
    let mut config = serde_json::json!({
        "tiers": [
            {"name": "default", "model": "gpt-4o"},
            {"name": "compact", "model": "gpt-4o-mini", "below": 0.2}
        ],
        "plans": {"gold": {
            "budget": {"initial_budget": 1000, "window": "day"},
            "bucket": {"tokens_per_window": 100, "window": "1m"}
        }},
        "tenants": {"acme": {"plan": "gold"}}
    });
    change(&mut config);
    config.to_string()
}

#[track_caller]
fn rejects(text: &str, error: &str) {
    let told = Config::parse(text.as_bytes())
        .map(|_| ())
        .unwrap_err()
        .to_string();
    // Line and column have tests of their own, in read/tests.rs.
    assert_eq!(told.split(" at line").next(), Some(error));
}

/// Sets the value at `pointer` and expects `error`.
#[track_caller]
pub(super) fn rejects_at(pointer: &str, value: serde_json::Value, error: &str) {
    let text = with(|config| {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[key] = value.clone();
    });
    rejects(&text, error);
}

pub(super) fn acme(text: &str) -> Limits {
    let config = Config::parse(text.as_bytes()).unwrap();
    config
        .plan(&TenantId::parse(b"acme").unwrap())
        .unwrap()
        .limits
        .clone()
}

#[test]
fn defaults_are_the_safe_ones() {
    let config = Config::parse(with(|_| {}).as_bytes()).unwrap();
    assert!(!config.hold_headers);
    assert_eq!(config.hold_bytes, 983_040);
    assert_eq!(config.failure_mode, FailureMode::Allow);
    assert_eq!(config.missing, Missing::Reject);
    assert_eq!(config.unknown, None);
    assert_eq!(config.sources, [Source::Header("x-tenant-id".to_owned())]);
}

// A bad configuration is refused; the message carries the path and the cure, and the old configuration stays.
#[test]
fn what_is_not_json_text_is_told_its_cure() {
    rejects(
        "",
        "the configuration is empty: give it as JSON in a google.protobuf.StringValue",
    );
    rejects(
        "\n\x17\n\x05plans",
        "the configuration is not a JSON object: give it as a google.protobuf.StringValue \
         (a google.protobuf.Struct arrives as protobuf bytes)",
    );
    rejects(r#"{"plans": {}} x"#, "trailing characters");
}

#[test]
fn faults_of_shape_name_their_path() {
    rejects_at(
        "/plans/gold/budgets",
        serde_json::json!({}),
        "plans.gold.budgets: unknown field `budgets`, expected one of `budget`, `bucket`, `limits`, `concurrency`, `hold`, `scope`, `when_unreachable`, `cold`, `on_exhausted`, \
         `models`, `never_downgrade`, `low_water_mark`, `min_output_tokens`, `weights`, `max_request`, `sla`, `pace`, `hysteresis`, `sticky`, `shadow`, `tiers`, `floor`, \
         `below`, `priority`",
    );
    rejects_at(
        "/plans/gold/budget/initial_budget",
        serde_json::json!("many"),
        "plans.gold.budget.initial_budget: invalid type: string \"many\", expected a number",
    );
    rejects(
        r#"{"tenants": {"a": {}, "a": {}}}"#,
        "tenants: `a` stands twice",
    );
}

#[test]
fn impossible_values_name_their_path() {
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    for (pointer, value, error) in [
        (
            "/plans/gold/budget/initial_budget",
            "0",
            "plans.gold.budget.initial_budget: must be a whole number of at least 1",
        ),
        (
            "/plans/gold/budget/initial_budget",
            "1.5",
            "plans.gold.budget.initial_budget: must be a whole number of at least 1",
        ),
        (
            "/plans/gold/budget/initial_budget",
            "1e300",
            "plans.gold.budget.initial_budget: must be a whole number of at least 1",
        ),
        (
            "/plans/gold/budget/window",
            "\"0s\"",
            "plans.gold.budget.window: `0s` is none of hour, day, week, month, none or a duration such as \"90s\"",
        ),
        (
            "/plans/gold/budget/unit",
            "\"usd\"",
            "plans.gold.budget.unit: `usd` needs a price on every tier, and `default` has none",
        ),
        (
            "/plans/gold/bucket/window",
            "\"day\"",
            "plans.gold.bucket.window: `day` is no duration such as \"1m\" or \"90s\"",
        ),
        (
            "/plans/gold/bucket/tokens_per_window",
            "0",
            "plans.gold.bucket.tokens_per_window: must be a whole number of at least 1",
        ),
        (
            "/plans/gold/bucket/low_water_mark",
            "1.1",
            "plans.gold.bucket.low_water_mark: must be a fraction above 0 and at most 1, with at most six decimals",
        ),
        (
            "/tiers/0/below",
            "0.5",
            "tiers[0].below: the first tier needs no mark: it serves until another one does",
        ),
        (
            "/tiers/1/below",
            "0",
            "tiers[1].below: must be a fraction above 0 and at most 1, with at most six decimals",
        ),
        (
            "/tiers/1/name",
            "\"default\"",
            "tiers[1].name: two tiers are called `default`",
        ),
        (
            "/tiers/1/name",
            "\"a b\"",
            "tiers[1].name: a tier's name is 1 to 64 of a-z, A-Z, 0-9, `-`, `_` and `.`, and not `unlisted`",
        ),
        (
            "/tiers/1/model",
            "\"gpt-4o\"",
            "tiers[1].model: `gpt-4o` is also tiers[0].model: a model has one place",
        ),
        (
            "/tiers/1/trim",
            r#"{"to_tokens": 0}"#,
            "tiers[1].trim.to_tokens: must be a whole number of at least 1",
        ),
        (
            "/plans/gold/sticky",
            r#"{"keep": 0}"#,
            "plans.gold.sticky.keep: must be a fraction above 0 and at most 1, with at most six decimals",
        ),
        (
            "/plans/gold/sticky",
            r#"{"header": "X-Bursar-Tier"}"#,
            "plans.gold.sticky.header: `x-bursar-tier` is no header that a client may send",
        ),
        ("/tiers", "[]", "tiers: a ladder has 1 to 16 tiers"),
        (
            "/ladders",
            "[]",
            "tiers: give either `tiers` or `ladders`, not both",
        ),
        (
            "/tenants/acme",
            r#"{"plan": "silver"}"#,
            "tenants.acme.plan: no plan is called `silver`",
        ),
        (
            "/tenants/a\n",
            "{}",
            "tenants.a\n: a tenant id is 1 to 256 bytes without control characters",
        ),
        (
            "/tenant",
            r#"{"unknown": {"plan": "silver"}}"#,
            "tenant.unknown.plan: no plan is called `silver`",
        ),
        (
            "/tenant",
            r#"{"missing": {"tenant": "x"}}"#,
            "tenant.missing.tenant: no tenant is called `x`",
        ),
        (
            "/tenant",
            r#"{"from": []}"#,
            "tenant.from: name at least one source",
        ),
        (
            "/tenant",
            r#"{"from": [{"header": "x-bursar-tier"}]}"#,
            "tenant.from[0].header: `x-bursar-tier` is no header that a client may send",
        ),
        (
            "/reservation_expiry",
            "\"999ms\"",
            "reservation_expiry: `999ms` is no duration of at least one second, such as \"30m\"",
        ),
        (
            "/hold_bytes",
            "0",
            "hold_bytes: must be a whole number of at least 1",
        ),
    ] {
        rejects_at(pointer, json(value), error);
    }
}

#[test]
fn marks_fall_from_tier_to_tier() {
    let tiers = serde_json::json!([
        {"name": "a", "model": "a"}, {"name": "b", "model": "b", "below": 0.2}, {"name": "c", "model": "c", "below": 0.5}
    ]);
    rejects_at(
        "/tiers",
        tiers,
        "tiers[2].below: must be less than the mark of the tier before",
    );
}

#[test]
fn an_sla_is_whole_milliseconds_that_can_be_measured() {
    let plan = |sla: serde_json::Value| with(|config| config["plans"]["gold"]["sla"] = sla.clone());
    for millis in ["1", "2000", "1e3", "131071"] {
        let millis: serde_json::Value = serde_json::from_str(millis).unwrap();
        let limits = acme(&plan(serde_json::json!({"p95_ms": millis})));
        let expected = millis
            .as_f64()
            .map(|millis| Duration::from_secs_f64(millis / 1e3));
        assert_eq!(limits.sla.map(|sla| sla.p95), expected);
    }
    for millis in ["0", "0.5", "-1", "131072", "1e300"] {
        let millis: serde_json::Value = serde_json::from_str(millis).unwrap();
        let told = Config::parse(plan(serde_json::json!({"p95_ms": millis})).as_bytes());
        let told = told.unwrap_err().to_string();
        assert!(told.starts_with("plans.gold.sla.p95_ms: must"), "{told}");
    }
    rejects(
        &plan(serde_json::json!({"p95_ms": 131_072})),
        "plans.gold.sla.p95_ms: must be whole milliseconds, from 1 to 131071",
    );
    rejects(
        &plan(serde_json::json!({})),
        "plans.gold.sla.p95_ms: is missing",
    );
}

#[test]
fn the_tightest_sla_is_that_of_a_tenant_who_can_be_downgraded() {
    let tightest = |change: &dyn Fn(&mut serde_json::Value)| {
        let config = Config::parse(with(change).as_bytes()).unwrap();
        config.tightest_sla.map(|sla| sla.as_millis())
    };
    let sla = |millis: u64| serde_json::json!({"p95_ms": millis});
    assert_eq!(tightest(&|_| {}), None);
    // No tenant is on this plan.
    let unused = |config: &mut serde_json::Value| {
        config["plans"]["other"] = serde_json::json!({"sla": sla(1)});
    };
    assert_eq!(tightest(&unused), None);
    assert_eq!(
        tightest(&|config| config["plans"]["gold"]["sla"] = sla(2_000)),
        Some(2_000)
    );
    assert_eq!(
        tightest(&|config| {
            config["plans"]["gold"]["sla"] = sla(2_000);
            config["tenants"]["a"] = serde_json::json!({"plan": "gold", "sla": sla(700)});
            config["tenants"]["b"] = serde_json::json!({"sla": sla(9), "never_downgrade": true});
        }),
        Some(700)
    );
    assert_eq!(
        tightest(&|config| {
            unused(config);
            config["tenant"] = serde_json::json!({"unknown": {"plan": "other"}});
        }),
        Some(1)
    );
}
