use super::super::Config;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[track_caller]
fn rejects(text: impl AsRef<[u8]>, error: &str) {
    let told = Config::parse(text.as_ref()).map(|_| ()).unwrap_err();
    assert_eq!(told.to_string(), error);
}

/// Expects `error` for these keys inside the object of a plan named `a`.
#[track_caller]
fn rejects_in_plan(keys: &str, error: &str) {
    rejects(format!("{{\"plans\":{{\"a\":{{{keys}}}}}}}"), error);
}

#[test]
fn what_is_no_json_is_told_with_its_place() {
    for (text, error) in [
        ("{", "EOF while parsing an object at line 1 column 1"),
        (
            "{\n  \"plans\"",
            "EOF while parsing an object at line 2 column 9",
        ),
        ("{\"plans\" 1", "expected `:` at line 1 column 10"),
        ("{1: 2}", "key must be a string at line 1 column 2"),
        (
            "{\"hold_headers\": true,}",
            "trailing comma at line 1 column 23",
        ),
        (
            "{\"hold_headers\": true \"a\"",
            "expected `,` or `}` at line 1 column 23",
        ),
        (
            "{\"hold_headers\": true",
            "EOF while parsing an object at line 1 column 21",
        ),
        (
            "{\"hold_headers\": tru",
            "hold_headers: EOF while parsing a value at line 1 column 20",
        ),
        (
            "{\"hold_headers\":",
            "hold_headers: EOF while parsing a value at line 1 column 16",
        ),
        (
            "{\"tiers\": [",
            "tiers: EOF while parsing a list at line 1 column 11",
        ),
        (
            "{\"tiers\": [{\"name\": \"a\"",
            "tiers[0]: EOF while parsing an object at line 1 column 23",
        ),
        (
            "{\"tenant\": {\"from\": [{\"header\": \"a\"} {",
            "tenant.from: expected `,` or `]` at line 1 column 38",
        ),
        (
            "{\"tenant\": {\"from\": [{\"header\": \"a\"},]",
            "tenant.from: trailing comma at line 1 column 38",
        ),
        (
            "{\"hold_bytes\": 01}",
            "hold_bytes: invalid number at line 1 column 17",
        ),
        (
            "{\"hold_bytes\": 1.}",
            "hold_bytes: invalid number at line 1 column 18",
        ),
        (
            "{\"failure_mode\": \"al",
            "failure_mode: EOF while parsing a string at line 1 column 20",
        ),
        (
            "{\"failure_mode\": \"al\\",
            "failure_mode: EOF while parsing a string at line 1 column 21",
        ),
        (
            "{\"plans\": {\"a\": [",
            "plans.a: EOF while parsing a list at line 1 column 17",
        ),
        (
            "{\"plans\": {\"a\": {]}}",
            "plans.a: key must be a string at line 1 column 18",
        ),
        (
            "{\"plans\": ,}",
            "plans: expected value at line 1 column 11",
        ),
        ("{} {", "trailing characters at line 1 column 4"),
        (
            "{\"hold_headers\": true} {",
            "trailing characters at line 1 column 24",
        ),
    ] {
        rejects(text, error);
    }
}

#[test]
fn a_value_of_another_kind_is_told_with_its_path_and_its_place() {
    for (text, error) in [
        (
            "{\"hold_headers\": null}",
            "hold_headers: invalid type: null, expected a boolean at line 1 column 21",
        ),
        (
            "{\"hold_headers\": 1}",
            "hold_headers: invalid type: integer `1`, expected a boolean at line 1 column 18",
        ),
        (
            "{\"hold_bytes\": true}",
            "hold_bytes: invalid type: boolean `true`, expected a number at line 1 column 20",
        ),
        (
            "{\"reservation_expiry\": -1.5e3}",
            "reservation_expiry: invalid type: floating point `-1500.0`, expected a string at line 1 column 29",
        ),
        (
            "{\"tiers\": \"a\\\"b\"}",
            "tiers: invalid type: string \"a\\\"b\", expected a sequence at line 1 column 16",
        ),
        (
            "{\"tiers\":\n [{}, []]}",
            "tiers[0]: missing field `name` at line 2 column 4",
        ),
        (
            "{\"ladders\": [[]]}",
            "ladders[0]: invalid type: sequence, expected an object at line 1 column 13",
        ),
        (
            "{\"tenant\": {\"from\": [\"host\"]}}",
            "tenant.from[0]: unknown variant `host`, expected one of `header`, `property`, `jwt_claim`, `peer_uri_san` at line 1 column 27",
        ),
        (
            "{\"tenant\": {\"from\": [\"header\"]}}",
            "tenant.from[0].header: `header` needs a value: {\"header\": …} at line 1 column 30",
        ),
        (
            "{\"tenant\": {\"from\": [{\"header\": {}}]}}",
            "tenant.from[0].header: invalid type: map, expected a string at line 1 column 32",
        ),
        (
            "{\"tenant\": {\"from\": [{\"header\": \"a\", \"property\": []}]}}",
            "tenant.from[0]: expected value at line 1 column 35",
        ),
        (
            "{\"tenant\": {\"missing\": {\"pass\": 1}}}",
            "tenant.missing.pass: invalid type: integer `1`, expected unit at line 1 column 33",
        ),
        (
            "{\"tenant\": {\"missing\": 1}}",
            "tenant.missing: expected value at line 1 column 24",
        ),
        (
            "{\"plans\": null}",
            "plans: invalid type: null, expected an object at line 1 column 14",
        ),
        (
            "{\"tenants\": {\"t\": []}}",
            "tenants.t: invalid type: sequence, expected an object at line 1 column 18",
        ),
    ] {
        rejects(text, error);
    }
    rejects_in_plan(
        "\"never_downgrade\": \"yes\"",
        "plans.a.never_downgrade: invalid type: string \"yes\", expected a boolean at line 1 column 39",
    );
    rejects_in_plan(
        "\"below\": {\"x\": []}",
        "plans.a.below.x: invalid type: sequence, expected a number at line 1 column 33",
    );
    rejects_in_plan(
        "\"on_exhausted\": {\"degrade\": {}}",
        "plans.a.on_exhausted.degrade: missing field `overdraft` at line 1 column 45",
    );
    rejects_in_plan(
        "\"hysteresis\": -1e-400",
        "plans.a.hysteresis: must not be negative at line 1 column 37",
    );
}

#[test]
fn each_key_stands_once_and_is_known() {
    rejects(
        "{\"tiers\": null, \"tiers\": null}",
        "tiers: duplicate field `tiers` at line 1 column 23",
    );
    rejects(
        "{\"ti\\u0065rs\": null, \"tiers\": null}",
        "tiers: duplicate field `tiers` at line 1 column 28",
    );
    rejects(
        "{\"a\\nb\": 1}",
        "a\nb: unknown field `a\nb`, expected one of `hold_headers`, `hold_bytes`, `failure_mode`, `reservation_expiry`, `tenant`, `subjects`, `hosts`, `unmetered`, `unmetered_allow`, `held_bytes_per_worker`, `plan_from`, `credentials`, `tiers`, `ladders`, `plans`, `global`, `log_fields`, `headers`, `self_service`, `serve`, `metrics`, `tenants` at line 1 column 7",
    );
    rejects(
        "{\"plans\": {\"a\": {}, \"b\": {}, \"\\u0061\": {}}}",
        "plans: `a` stands twice",
    );
    rejects(
        "{\"tenants\": {\"a\": {}, \"a\": {}}}",
        "tenants: `a` stands twice",
    );
    rejects_in_plan(
        "\"sla\": {\"p95\": 1}",
        "plans.a.sla.p95: unknown field `p95`, expected `p95_ms` at line 1 column 28",
    );
    rejects_in_plan(
        "\"budget\": {}, \"budget\": {}",
        "plans.a.budget: duplicate field `budget` at line 1 column 37",
    );
    // The plan sets `shadow` once, which is valid; the tenant sets it twice.
    let own = r#"{"plans": {"a": {"shadow": true}}, "tenants": {"t": {"shadow": false, "plan": "a", "shadow": false}}}"#;
    rejects(
        own,
        "tenants.t.shadow: duplicate field `shadow` at line 1 column 91",
    );
}

#[test]
fn a_tenant_has_keys_that_a_plan_has_not() {
    for key in ["plan", "parent", "was", "guaranteed"] {
        let told = |text: &str| {
            Config::parse(text.as_bytes())
                .map(|_| ())
                .unwrap_err()
                .to_string()
        };
        let plan = told(&format!(r#"{{"plans": {{"a": {{"{key}": null}}}}}}"#));
        let start = format!("plans.a.{key}: unknown field `{key}`, expected one of `budget`,");
        assert!(plan.starts_with(&start), "{plan}");
        let twice = told(&format!(
            r#"{{"tenants": {{"t": {{"{key}": null, "{key}": null}}}}}}"#
        ));
        let start = format!("tenants.t.{key}: duplicate field `{key}` at line 1");
        assert!(twice.starts_with(&start), "{twice}");
    }
    rejects(
        "{\"tenants\": {\"t\": {\"x\": 1}}}",
        "tenants.t.x: unknown field `x`, expected one of `plan`, `parent`, `was`, `guaranteed`, `budget`, `bucket`, `limits`, `concurrency`, `hold`, `scope`, `when_unreachable`, `cold`, `on_exhausted`, `models`, `never_downgrade`, `low_water_mark`, `min_output_tokens`, `weights`, `max_request`, `sla`, `pace`, `hysteresis`, `sticky`, `shadow`, `tiers`, `floor`, `below`, `priority` at line 1 column 22",
    );
}

#[test]
fn keys_and_texts_are_unicode() {
    rejects(
        b"{\"plans\":\n{\"a\xff\": {}}}",
        "the configuration is not UTF-8 from byte 13 on",
    );
    rejects(
        "{\"plans\": {\"\\ud800\": {}}}",
        "plans: unexpected end of hex escape at line 1 column 19",
    );
    rejects(
        "{\"plans\": {\"a\nb\": {}}}",
        "plans: control character (\\u0000-\\u001F) found while parsing a string at line 1 column 13",
    );
    rejects(
        "{\"plans\": {\"ü\\u00fc\": {\"x\": 1}}}".replace("x", "shado"),
        "plans.üü.shado: unknown field `shado`, expected one of `budget`, `bucket`, `limits`, `concurrency`, `hold`, `scope`, `when_unreachable`, `cold`, `on_exhausted`, `models`, `never_downgrade`, `low_water_mark`, `min_output_tokens`, `weights`, `max_request`, `sla`, `pace`, `hysteresis`, `sticky`, `shadow`, `tiers`, `floor`, `below`, `priority` at line 1 column 31",
    );
}

#[test]
fn nothing_is_read_so_deep_that_the_stack_would_end() {
    let deep = "[".repeat(1 << 20);
    rejects(
        format!("{{\"hold_bytes\":{deep}"),
        "hold_bytes: EOF while parsing a list at line 1 column 1048590",
    );
    rejects(
        format!("{{\"plans\":{deep}"),
        &format!(
            "plans: EOF while parsing a list at line 1 column {}",
            9 + (1 << 20)
        ),
    );
    let closed = "]".repeat(1 << 20);
    rejects(
        format!("{{\"plans\":{deep}{closed}}}"),
        "plans: invalid type: sequence, expected an object at line 1 column 9",
    );
}

#[test]
fn null_stands_for_a_key_that_is_left_out() {
    let config = br#"{"hold_bytes": null, "tiers": null, "plans": {"p": {"budget": {"initial_budget": 5, "window": "day"}}},
        "tenants": {"t": {"budget": null, "plan": "p", "bucket": null, "priority": null}}}"#;
    let config = Config::parse(config).unwrap();
    let tenant = crate::tenant::TenantId::parse(b"t").unwrap();
    let limits = &config.plan(&tenant).unwrap().limits;
    assert_eq!(limits.budget.unwrap().initial_budget, 5);
    assert_eq!(limits.bucket, None);
}

#[test]
fn plans_may_stand_behind_the_tenants_that_are_on_them() {
    let config = br#" {"tenants": {"t": {"budget": {"initial_budget": 7}, "plan": "p\u0031"}, "u": {"plan":"p1"}},
        "plans": {"p1": {"shadow": true, "budget": {"initial_budget": 5, "window": "day"}}} } "#;
    let config = Config::parse(config).unwrap();
    let budgets = [b"t", b"u"].map(|id| {
        let tenant = crate::tenant::TenantId::parse(id).unwrap();
        let limits = &config.plan(&tenant).unwrap().limits;
        (limits.shadow, limits.budget.unwrap().initial_budget)
    });
    assert_eq!(budgets, [(true, 7), (true, 5)]);
}
