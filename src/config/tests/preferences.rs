//! Which tiers a tenant's requests may be sent to.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

/// A configuration with two ladders that share two names, and a plan gold with these keys.
fn gold(keys: &str) -> String {
    with(|config| {
        config["ladders"] = json(
            r#"[{"tiers": [{"name": "default", "model": "a"}, {"name": "standard", "model": "b", "below": 0.5},
                {"name": "compact", "model": "c", "below": 0.2}]},
                {"tiers": [{"name": "default", "model": "x"}, {"name": "compact", "model": "y", "below": 0.3}]}]"#,
        );
        config.as_object_mut().unwrap().remove("tiers");
        let mut plan = json(keys);
        plan["budget"] = json(r#"{"initial_budget": 1000, "window": "day"}"#);
        config["plans"]["gold"] = plan;
    })
}

#[test]
fn names_that_no_ladder_has_and_marks_that_do_not_fall_are_refused() {
    for (keys, error) in [
        (
            r#"{"tiers": ["default", "tiny"]}"#,
            "plans.gold.tiers[1]: no tier is called `tiny`",
        ),
        (
            r#"{"tiers": ["standard"]}"#,
            "plans.gold.tiers: names no tier of the ladder default, compact: none of its requests could be sent anywhere",
        ),
        (
            r#"{"floor": "tiny"}"#,
            "plans.gold.floor: no tier is called `tiny`",
        ),
        (
            r#"{"floor": "standard", "tiers": ["default"]}"#,
            "plans.gold.floor: `standard` is not among `tiers`",
        ),
        (
            r#"{"below": {"tiny": 0.1}}"#,
            "plans.gold.below.tiny: no tier is called `tiny`",
        ),
        (
            r#"{"below": {"default": 0.1}}"#,
            "plans.gold.below.default: the first tier needs no mark: it serves until another one does",
        ),
        (
            r#"{"below": {"compact": 0}}"#,
            "plans.gold.below.compact: must be a fraction above 0 and at most 1, with at most six decimals",
        ),
        (
            r#"{"below": {"compact": 0.5}}"#,
            "plans.gold.below.compact: must be less than 0.5, the mark of `standard` before it",
        ),
        (
            r#"{"below": {"standard": 0.125}}"#,
            "plans.gold.below.standard: must be more than 0.2, the mark of `compact` after it",
        ),
        (
            r#"{"below": {"compact": 0.1}, "low_water_mark": 0.2}"#,
            "plans.gold.low_water_mark: `below` has a mark of `compact`, the last tier, too: give one of them",
        ),
    ] {
        rejects(&gold(keys), error);
    }
    rejects(
        &gold("{}").replace(
            "\"plan\":\"gold\"",
            "\"plan\":\"gold\",\"below\":{\"compact\":1}",
        ),
        "tenants.acme.below.compact: must be less than 0.5, the mark of `standard` before it",
    );
    rejects(
        r#"{"plans": {"gold": {"below": {"compact": 0.1, "compact": 0.2}}}}"#,
        "plans.gold.below: `compact` stands twice",
    );
}

#[test]
fn a_tenants_own_marks_are_put_among_its_plans_and_its_tiers_in_their_place() {
    let keys = r#"{"below": {"standard": 0.9, "compact": 0.1}, "tiers": ["default", "compact"]}"#;
    let own = r#""plan":"gold","below":{"compact":0.4},"tiers":["compact"],"floor":"compact""#;
    let preferences = acme(&gold(keys).replace("\"plan\":\"gold\"", own)).preferences;
    let expected = Preferences {
        tiers: Some(vec!["compact".to_owned()]),
        floor: Some("compact".to_owned()),
        below: vec![
            ("compact".to_owned(), Ppm(400_000)),
            ("standard".to_owned(), Ppm(900_000)),
        ],
    };
    assert_eq!(preferences, expected);
    // A mark in place of the last tier's may exceed all others, as `low_water_mark` always could.
    let high = acme(&gold(
        r#"{"below": {"standard": 0.3}, "low_water_mark": 0.9}"#,
    ));
    assert_eq!(high.low_water_mark, Some(Ppm(900_000)));
}
