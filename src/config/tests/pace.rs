//! Marks that move.

use super::*;
use crate::limits::pace::Pace;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// The limits of the tenant acme, whose plan has these keys.
fn limits(keys: &str) -> Limits {
    let keys: serde_json::Value = serde_json::from_str(keys).unwrap();
    acme(&with(|config| {
        for (key, value) in keys.as_object().unwrap() {
            config["plans"]["gold"][key] = value.clone();
        }
    }))
}

#[test]
fn half_lives_follow_the_window_unless_one_is_given() {
    let half_life = |window: &str| {
        let budget = format!(r#"{{"initial_budget": 5, "window": "{window}"}}"#);
        let limits = limits(&format!(r#"{{"pace": {{}}, "budget": {budget}}}"#));
        limits.pace.unwrap().half_life.get() / 1_000_000_000
    };
    let windows = ["30s", "hour", "day", "week", "month"];
    let expected = [1, 75, 1_800, 12_600, 54_000];
    assert_eq!(windows.map(half_life), expected);
    let given = limits(r#"{"pace": {"cap": 0.5, "half_life": "2m"}, "hysteresis": 0.05}"#);
    let pace = Pace {
        cap: Ppm(500_000),
        half_life: NonZeroU64::new(120_000_000_000).unwrap(),
    };
    assert_eq!(given.pace, Some(pace));
    assert_eq!(given.hysteresis, Some(Ppm(50_000)));
    assert_eq!(limits("{}").pace, None);
}

#[test]
fn a_plan_without_a_budget_has_no_pace_and_a_tenant_of_it_with_one_has() {
    let config = r#"{"plans": {"p": {"pace": {"half_life": "1m"}}}, "tenants": {
        "acme": {"plan": "p", "budget": {"initial_budget": 5, "window": "day"}, "pace": {"cap": 0.4}}, "b": {"plan": "p"}}}"#;
    let pace = acme(config).pace.unwrap();
    assert_eq!(
        (pace.cap, pace.half_life.get()),
        (Ppm(400_000), 60_000_000_000)
    );
    let without = r#"{"plans": {"p": {"pace": {}}}, "tenants": {"acme": {"plan": "p"}}}"#;
    assert_eq!(acme(without).pace, None);
}

#[test]
fn impossible_values_name_their_path() {
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    for (pointer, value, error) in [
        (
            "/plans/gold/pace",
            r#"{"half_life": "999ms"}"#,
            "plans.gold.pace.half_life: `999ms` is no duration of at least one second, such as \"1h\"",
        ),
        (
            "/plans/gold/pace",
            r#"{"cap": 1.1}"#,
            "plans.gold.pace.cap: must be a fraction above 0 and at most 1, with at most six decimals",
        ),
        (
            "/plans/gold/hysteresis",
            "0",
            "plans.gold.hysteresis: must be a fraction above 0 and at most 1, with at most six decimals",
        ),
    ] {
        rejects_at(pointer, json(value), error);
    }
    rejects(
        &with(|config| {
            config["plans"]["gold"]["pace"] = json("{}");
            config["plans"]["gold"]["budget"]["window"] = "none".into();
        }),
        "plans.gold.pace: needs a budget whose window ends",
    );
}
