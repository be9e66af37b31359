use super::*;
use crate::ledger::Unit;
use crate::policy::Preferences;
use crate::window::Period;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// A small good configuration with `change` made to it.
fn with(change: impl Fn(&mut serde_json::Value)) -> String {
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
fn rejects_at(pointer: &str, value: serde_json::Value, error: &str) {
    let text = with(|config| {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[key] = value.clone();
    });
    rejects(&text, error);
}

fn acme(text: &str) -> Limits {
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

// cases.md 45
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

// cases.md 45
#[test]
fn faults_of_shape_name_their_path() {
    rejects_at(
        "/plans/gold/budgets",
        serde_json::json!({}),
        "plans.gold.budgets: unknown field `budgets`, expected one of `budget`, `bucket`, `on_exhausted`, \
         `never_downgrade`, `low_water_mark`, `min_output_tokens`, `sla`, `pace`, `hysteresis`, `sticky`, `shadow`, `tiers`, `floor`, \
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

// cases.md 45
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
fn a_tenants_own_settings_take_the_place_of_its_plans() {
    let limits = acme(&with(|config| {
        config["tenants"]["acme"]["budget"] = serde_json::json!({"initial_budget": 5e1});
        config["tenants"]["acme"]["never_downgrade"] = true.into();
    }));
    let budget = limits.budget.unwrap();
    assert_eq!((budget.initial_budget, budget.period), (50, Period::Day));
    assert_eq!(limits.bucket.unwrap().burst.get(), 100);
    assert!(limits.never_downgrade);
}

#[test]
fn what_neither_plan_nor_tenant_gives_is_missing() {
    let missing = |value| format!("tenants.globex.{value}: is missing");
    for (tenant, error) in [
        (
            serde_json::json!({"budget": {"initial_budget": 1}}),
            missing("budget.window"),
        ),
        (
            serde_json::json!({"budget": {"window": "day"}}),
            missing("budget.initial_budget"),
        ),
        (
            serde_json::json!({"bucket": {"window": "1s"}}),
            missing("bucket.tokens_per_window"),
        ),
        (
            serde_json::json!({"bucket": {"tokens_per_window": 1}}),
            missing("bucket.window"),
        ),
    ] {
        rejects_at("/tenants/globex", tenant, &error);
    }
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
    // Nobody is on this plan.
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

#[test]
fn money_is_exact() {
    let limits = acme(&with(|config| {
        for tier in [0, 1] {
            config["tiers"][tier]["price"] = serde_json::json!({"input": 0.075, "output": 10});
        }
        config["plans"]["gold"]["budget"] =
            serde_json::json!({"initial_budget": 50.1, "unit": "usd", "window": "month"});
    }));
    let budget = limits.budget.unwrap();
    assert_eq!(
        (budget.initial_budget, budget.unit),
        (50_100_000, Unit::UsdMicros)
    );
}

#[test]
fn a_model_on_no_ladder_costs_as_much_as_the_dearest_tier() {
    let text = with(|config| {
        config["tiers"][0]["price"] = serde_json::json!({"input": 2.5, "output": 1});
        config["tiers"][1]["price"] =
            serde_json::json!({"input": 1, "cached_input": 0.5, "output": 10});
    });
    let config = Config::parse(text.as_bytes()).unwrap();
    let expected = Price {
        input: 2_500_000,
        cached_input: 2_500_000,
        cache_write: 2_500_000,
        output: 10_000_000,
    };
    assert_eq!(config.unlisted_price, Some(expected));
}

#[cfg(not(target_arch = "wasm32"))]
mod schema {
    use super::*;

    const PATH: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/envoy/plugin-config.schema.json"
    );

    fn schema() -> serde_json::Value {
        schemars::schema_for!(RawConfig).to_value()
    }

    /// `make schema` writes it anew.
    #[test]
    fn the_schema_in_the_tree_is_that_of_the_types() {
        let text = format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap());
        if std::env::var_os("BURSAR_WRITE_SCHEMA").is_some() {
            std::fs::write(PATH, &text).unwrap();
        }
        let in_tree = std::fs::read_to_string(PATH).unwrap_or_default();
        assert!(
            in_tree == text,
            "envoy/plugin-config.schema.json is out of date: run `make schema`"
        );
    }

    #[test]
    fn the_schema_takes_what_the_parser_takes_and_refuses_unknown_keys() {
        let validator = jsonschema::validator_for(&schema()).unwrap();
        let good: serde_json::Value = serde_json::from_str(&with(|_| {})).unwrap();
        assert!(validator.is_valid(&good));
        let mut bad = good;
        bad["plans"]["gold"]["budgets"] = 1.into();
        assert!(!validator.is_valid(&bad));
    }

    /// Every plugin configuration in the YAML files that we ship, wherever it stands in them.
    fn shipped() -> Vec<(String, String)> {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = Vec::new();
        for folder in ["envoy", "istio"] {
            for entry in std::fs::read_dir(root.join(folder)).unwrap() {
                let path = entry.unwrap().path();
                if path
                    .extension()
                    .is_some_and(|extension| extension == "yaml")
                {
                    let text = std::fs::read_to_string(&path).unwrap();
                    for document in serde_yaml_ng::Deserializer::from_str(&text) {
                        let document = serde::Deserialize::deserialize(document).unwrap();
                        collect(&document, &path.display().to_string(), &mut found);
                    }
                }
            }
        }
        found
    }

    fn collect(value: &serde_yaml_ng::Value, path: &str, found: &mut Vec<(String, String)>) {
        match value {
            serde_yaml_ng::Value::Mapping(map) => {
                let text = |key: &str| map.get(key).and_then(serde_yaml_ng::Value::as_str);
                if text("@type") == Some("type.googleapis.com/google.protobuf.StringValue") {
                    found.push((path.to_owned(), text("value").unwrap().to_owned()));
                }
                map.values().for_each(|value| collect(value, path, found));
            }
            serde_yaml_ng::Value::Sequence(list) => {
                list.iter().for_each(|value| collect(value, path, found));
            }
            _ => {}
        }
    }

    #[test]
    fn every_configuration_in_the_readme_is_taken() {
        let readme = include_str!("../../README.md");
        let blocks: Vec<_> = readme
            .split("```json\n")
            .skip(1)
            .filter_map(|rest| rest.split("```").next())
            .collect();
        assert!(blocks.len() >= 2);
        for block in blocks {
            Config::parse(block.as_bytes()).unwrap_or_else(|error| panic!("{error} in {block}"));
        }
    }

    #[test]
    fn every_shipped_configuration_is_taken_by_parser_and_schema() {
        let validator = jsonschema::validator_for(&schema()).unwrap();
        let shipped = shipped();
        assert!(shipped.len() >= 2, "envoy/ and istio/ have one each");
        for (path, text) in shipped {
            Config::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{path}: {error}"));
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(validator.is_valid(&value), "{path}");
        }
    }
}

mod capacity {
    use super::*;
    use crate::capacity::{Capacity, Priority};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// The capacity of the second tier.
    fn compact(value: serde_json::Value) -> Capacity {
        let text = with(|config| config["tiers"][1]["capacity"] = value.clone());
        let config = Config::parse(text.as_bytes()).unwrap();
        config.ladders[0].tiers[1].capacity.unwrap()
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
            "tiers[1].capacity: missing field `window`",
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
}

mod preferences {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn json(text: &str) -> serde_json::Value {
        serde_json::from_str(text).unwrap()
    }

    /// Two ladders that share two names, and gold with these keys.
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
        let keys =
            r#"{"below": {"standard": 0.9, "compact": 0.1}, "tiers": ["default", "compact"]}"#;
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
        // What takes the place of the last tier's mark may stand above all others, as ever.
        let high = acme(&gold(
            r#"{"below": {"standard": 0.3}, "low_water_mark": 0.9}"#,
        ));
        assert_eq!(high.low_water_mark, Some(Ppm(900_000)));
    }
}

mod pace {
    use super::*;
    use crate::pace::Pace;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// The limits of acme, whose plan has these keys.
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
}
