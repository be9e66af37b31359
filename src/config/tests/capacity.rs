//! The capacity of a tier, which tenants share.

use super::*;
use crate::limits::capacity::{Capacity, CapacitySource, Priority, Reserved};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// The capacity of the second tier.
fn compact(value: serde_json::Value) -> Capacity {
    let text = with(|config| config["tiers"][1]["capacity"] = value.clone());
    let config = Config::parse(text.as_bytes()).unwrap();
    match config.ladders[0].tiers[1].capacity {
        Some(CapacitySource::Configured(capacity)) => capacity,
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_has_numbers_or_is_what_the_upstream_says() {
    let learned = serde_json::json!({"from": "upstream", "reserved": {"critical": 0.5}});
    let text = with(|config| config["tiers"][1]["capacity"] = learned.clone());
    let config = Config::parse(text.as_bytes()).unwrap();
    let reserved = Reserved {
        critical: Ppm(500_000),
        standard: Ppm(100_000),
    };
    assert_eq!(
        config.ladders[0].tiers[1].capacity,
        Some(CapacitySource::Upstream(reserved))
    );
    for (capacity, error) in [
        (
            serde_json::json!({"from": "upstream", "window": "1m"}),
            "tiers[1].capacity.window: is what the upstream says, with `from`",
        ),
        (
            serde_json::json!({"from": "upstream", "reserved": {"critical": 0.9}}),
            "tiers[1].capacity.reserved: leaves nothing for `best_effort`",
        ),
        (
            serde_json::json!({}),
            "tiers[1].capacity: needs `tokens_per_window` and `window`, or `\"from\": \"upstream\"`",
        ),
    ] {
        rejects_at("/tiers/1/capacity", capacity, error);
    }
}

#[test]
fn its_last_part_is_reserved_and_rounded_up() {
    let plain =
        compact(serde_json::json!({"tokens_per_window": 1001, "window": "1m", "burst": 501}));
    assert_eq!(plain.quota.tokens_per_window.get(), 1_001);
    assert_eq!(plain.quota.window.get(), 60_000_000_000);
    assert_eq!(plain.quota.burst.get(), 501);
    assert_eq!((plain.critical, plain.standard), (101, 51));
    let own = serde_json::json!({
        "tokens_per_window": 1000, "window": "1m", "reserved": {"critical": 0.5, "standard": 0}
    });
    let own = compact(own);
    assert_eq!((own.critical, own.standard), (500, 0));
    assert_eq!(own.quota.burst.get(), 1_000);
}

#[test]
fn what_cannot_be_is_told_with_its_path() {
    let with_reserved = |reserved: &str| {
        let reserved: serde_json::Value = serde_json::from_str(reserved).unwrap();
        serde_json::json!({"tokens_per_window": 10, "window": "1m", "reserved": reserved})
    };
    for (reserved, error) in [
        (
            r#"{"critical": 1}"#,
            "tiers[1].capacity.reserved.critical: must be a fraction of at least 0 and less than 1, with at most six decimals",
        ),
        (
            r#"{"standard": -0.1}"#,
            "tiers[1].capacity.reserved.standard: must not be negative",
        ),
        (
            r#"{"critical": 0.5, "standard": 0.5}"#,
            "tiers[1].capacity.reserved: 5 for `critical` and 5 more for `standard` leave nothing of 10 tokens for `best_effort`",
        ),
        (
            r#"{"critical": 0.91}"#,
            "tiers[1].capacity.reserved: 10 for `critical` and 1 more for `standard` leave nothing of 10 tokens for `best_effort`",
        ),
        (
            r#"{"best_effort": 0.1}"#,
            "tiers[1].capacity.reserved.best_effort: unknown field `best_effort`, expected `critical` or `standard`",
        ),
    ] {
        rejects_at("/tiers/1/capacity", with_reserved(reserved), error);
    }
    rejects_at(
        "/tiers/1/capacity",
        serde_json::json!({"tokens_per_window": 10}),
        "tiers[1].capacity: needs `tokens_per_window` and `window`, or `\"from\": \"upstream\"`",
    );
    rejects_at(
        "/tiers/1/capacity",
        serde_json::json!({"tokens_per_window": 10, "window": "soon"}),
        "tiers[1].capacity.window: `soon` is no duration such as \"1m\" or \"90s\"",
    );
    rejects_at(
        "/plans/gold/priority",
        serde_json::json!("vip"),
        "plans.gold.priority: unknown variant `vip`, expected one of `critical`, `standard`, `best_effort`",
    );
}

#[test]
fn a_tenants_priority_stands_in_the_place_of_its_plans() {
    assert_eq!(acme(&with(|_| {})).priority, Priority::Standard);
    let text = with(|config| config["plans"]["gold"]["priority"] = "best_effort".into());
    assert_eq!(acme(&text).priority, Priority::BestEffort);
    let own = text.replace(
        "\"plan\":\"gold\"",
        "\"plan\":\"gold\",\"priority\":\"critical\"",
    );
    assert_eq!(acme(&own).priority, Priority::Critical);
}
