//! What plans grant, and what tenants set instead.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

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

fn stacked(limits: serde_json::Value) -> String {
    with(|config| config["plans"]["gold"]["limits"] = limits.clone())
}

#[test]
fn limits_that_stack_are_read_with_their_names_in_their_order() {
    let text = stacked(serde_json::json!([
        {"name": "month", "budget": {"initial_budget": 5, "window": "month"}},
        {"name": "rpm", "bucket": {"requests_per_window": 600, "window": "1m", "burst": 10}},
        {"name": "big", "models": ["gpt-4o"], "bucket": {"tokens_per_window": 7, "window": "1s"}},
    ]));
    let limits = acme(&text);
    let others: Vec<_> = limits
        .others
        .iter()
        .map(|limit| limit.name.as_str())
        .collect();
    assert_eq!(others, ["month", "rpm", "big"]);
    assert!(matches!(limits.others[0].rule, Rule::Budget(budget) if budget.initial_budget == 5));
    assert!(matches!(limits.others[1].rule, Rule::Requests(quota) if quota.burst.get() == 10));
    assert!(matches!(limits.others[2].rule, Rule::Tokens(_)));
    assert!(limits.others[2].holds_for("gpt-4o") && !limits.others[2].holds_for("gpt-4o-mini"));
    // The plan's own bucket may count requests, too.
    let text = with(|config| {
        config["plans"]["gold"]["bucket"] =
            serde_json::json!({"requests_per_window": 5, "window": "1s"});
        config["plans"]["gold"]["concurrency"] = 20.into();
    });
    let limits = acme(&text);
    let others: Vec<_> = limits
        .others
        .iter()
        .map(|limit| limit.name.as_str())
        .collect();
    assert_eq!(
        (limits.bucket, others),
        (None, vec!["bucket", "concurrency"])
    );
}

#[test]
fn a_limit_that_cannot_be_meant_is_refused() {
    let budget = serde_json::json!({"initial_budget": 5, "window": "month"});
    let bucket = serde_json::json!({"tokens_per_window": 5, "window": "1m"});
    let one = |limit| stacked(serde_json::json!([limit]));
    for (limit, error) in [
        (
            serde_json::json!({"name": "a"}),
            "plans.gold.limits[0]: has neither `budget` nor `bucket`",
        ),
        (
            serde_json::json!({"name": "a", "budget": budget, "bucket": bucket}),
            "plans.gold.limits[0]: has both `budget` and `bucket`: make two limits of it",
        ),
        (
            serde_json::json!({"name": "a b", "budget": budget}),
            "plans.gold.limits[0].name: `a b` is not made of 1 to 64 letters, digits, `.`, `_`, `:` and `-`",
        ),
        (
            serde_json::json!({"name": "bucket", "bucket": bucket}),
            "plans.gold.limits[0].name: `bucket` is the name of the plan's own `bucket`: set that, or give this another name",
        ),
        (
            serde_json::json!({"name": "a", "models": [], "budget": budget}),
            "plans.gold.limits[0].models: names no model; leave it out for all",
        ),
        (
            serde_json::json!({"name": "a", "bucket": {"tokens_per_window": 5, "requests_per_window": 5, "window": "1m"}}),
            "plans.gold.limits[0].bucket.requests_per_window: stands beside `tokens_per_window`: a bucket has one of them",
        ),
        (
            serde_json::json!({"name": "a", "bucket": {"requests_per_window": 5, "window": "1m", "low_water_mark": 0.1}}),
            "plans.gold.limits[0].bucket.low_water_mark: has no meaning for requests: a bucket of requests never downgrades",
        ),
    ] {
        rejects(&one(limit), error);
    }
    let twice =
        serde_json::json!([{"name": "a", "budget": budget}, {"name": "a", "bucket": bucket}]);
    rejects(
        &stacked(twice),
        "plans.gold.limits: `a` and `a` cannot be told apart",
    );
    let many: Vec<_> = (0..17)
        .map(|n| serde_json::json!({"name": n.to_string(), "budget": budget}))
        .collect();
    rejects(&stacked(many.into()), "plans.gold.limits: are more than 16");
}
#[test]
fn plans_are_named_by_requests_only_where_the_operator_says_so() {
    let gold = |config: &Config| config.named_plan(b"gold").is_some();
    assert!(!gold(&Config::parse(with(|_| {}).as_bytes()).unwrap()));
    let text = with(|config| config["plan_from"] = serde_json::json!([{"jwt_claim": "plan"}]));
    let config = Config::parse(text.as_bytes()).unwrap();
    assert!(gold(&config) && config.named_plan(b"\xff").is_none());
    assert_eq!(config.plan_sources, [Source::jwt_claim("plan")]);
    rejects_at(
        "/plan_from",
        serde_json::json!([]),
        "plan_from: name at least one source",
    );
    rejects_at(
        "/plan_from",
        serde_json::json!([{"header": "x-bursar-plan"}]),
        "plan_from[0].header: `x-bursar-plan` is no header that a client may send",
    );
}

#[test]
fn the_most_of_one_request_is_money_or_tokens_and_above_zero() {
    let at = "/plans/gold/max_request";
    for (value, error) in [
        (
            serde_json::json!({"usd": 1}),
            "plans.gold.max_request.usd: `usd` needs a price on every tier, and `default` has none",
        ),
        (
            serde_json::json!({"tokens": 0}),
            "plans.gold.max_request.tokens: must be a whole number of at least 1",
        ),
        (
            serde_json::json!({"tokens": 1, "usd": 1}),
            "plans.gold.max_request: expected value",
        ),
    ] {
        rejects_at(at, value, error);
    }
}

#[test]
fn weights_are_one_where_none_is_given_and_a_tenants_change_its_plans() {
    let text = with(|config| {
        config["plans"]["gold"]["weights"] = serde_json::json!({"cached_input": 0.1, "output": 4});
        config["tenants"]["acme"]["weights"] = serde_json::json!({"output": 5});
    });
    let expected = Rates {
        input: 1_000_000,
        cached_input: 100_000,
        cache_write: 1_000_000,
        cache_write_1h: 1_000_000,
        output: 5_000_000,
    };
    assert_eq!(acme(&text).weights.unwrap().0, expected);
    assert_eq!(acme(&with(|_| {})).weights, None);
    for value in [serde_json::json!(1001), serde_json::json!(0.000_000_1)] {
        rejects_at(
            "/plans/gold/weights",
            serde_json::json!({"output": value}),
            "plans.gold.weights.output: must be a number from 0 to 1000 with at most six decimals",
        );
    }
}

#[test]
fn parents_stand_above_each_other_at_most_four_times_and_never_above_themselves() {
    let tenants = |tenants: serde_json::Value| with(|config| config["tenants"] = tenants.clone());
    let chain = |length: usize| {
        let mut all = serde_json::json!({"t0": {}});
        for level in 0..length {
            all[format!("t{}", level + 1)] = serde_json::json!({"parent": format!("t{level}")});
        }
        tenants(all)
    };
    let config = Config::parse(chain(4).as_bytes()).unwrap();
    let (_, member) = config.tenant(b"t4").unwrap();
    let above = std::iter::successors(member.parent.as_deref(), |next| next.parent.as_deref());
    let above: Vec<_> = above.map(|parent| parent.id.as_str()).collect();
    assert_eq!(above, ["t3", "t2", "t1", "t0"]);
    rejects(
        &chain(5),
        "tenants.t5.parent: has more than 4 tenants above it, or is above itself",
    );
    rejects(
        &tenants(serde_json::json!({"a": {"parent": "b"}, "b": {"parent": "a"}})),
        "tenants.a.parent: has more than 4 tenants above it, or is above itself",
    );
    rejects(
        &tenants(serde_json::json!({"a": {"parent": "nobody"}})),
        "tenants.a.parent: no tenant is called `nobody`",
    );
}

#[test]
fn guaranteed_shares_stand_in_the_parents_plan_and_come_to_no_more_than_all_of_it() {
    let tenants = |tenants: serde_json::Value| with(|config| config["tenants"] = tenants.clone());
    let two = |one: &str, other: &str| {
        tenants(serde_json::from_str(&format!(
            r#"{{"corp": {{"plan": "gold"}}, "a": {{"parent": "corp", "guaranteed": {one}}}, "b": {{"parent": "corp", "guaranteed": {other}}},
                "c": {{"parent": "corp"}}, "other": {{"plan": "gold"}}}}"#
        )).unwrap())
    };
    let config = Config::parse(two("0.25", "0.75").as_bytes()).unwrap();
    let plan = config.plan(&TenantId::parse(b"corp").unwrap()).unwrap();
    let shares = plan.limits.guarantees.iter().map(|one| one.share.0);
    assert_eq!(shares.collect::<Vec<_>>(), [250_000, 750_000]);
    assert_eq!(plan.name.as_str(), "gold");
    let (_, child) = config.tenant(b"c").unwrap();
    assert!(Rc::ptr_eq(&child.parent.as_ref().unwrap().plan, plan));
    let (_, other) = config.tenant(b"other").unwrap();
    assert_eq!(other.plan.limits.guarantees, []);
    let listed = config.listed().iter();
    let listed = listed.filter(|(_, plan)| !plan.limits.guarantees.is_empty());
    assert_eq!(listed.count(), 1);
    rejects(
        &two("0.25", "0.750001"),
        "tenants.b.guaranteed: more than all of `corp`'s budgets would be guaranteed",
    );
    let fraction = "must be a fraction above 0 and at most 1, with at most six decimals";
    for share in ["0", "1.5"] {
        rejects(
            &two(share, "0.1"),
            &format!("tenants.a.guaranteed: {fraction}"),
        );
    }
    rejects(
        &tenants(serde_json::json!({"a": {"guaranteed": 0.1}})),
        "tenants.a.guaranteed: needs a `parent`, and the tenant has none",
    );
    let many = |count: usize| {
        let mut all = serde_json::json!({"corp": {"limits": []}});
        for n in 0..count {
            all[format!("t{n:02}")] = serde_json::json!({"parent": "corp", "guaranteed": 0.01});
        }
        tenants(all)
    };
    assert!(Config::parse(many(64).as_bytes()).is_ok());
    rejects(
        &many(65),
        "tenants.t64.guaranteed: `corp` has more than 64 such children",
    );
}

#[test]
fn limits_of_subjects_are_read_by_their_kind_and_dangling_kinds_are_refused() {
    let subjects = serde_json::json!({
        "user": {"from": [{"header": "x-user-id"}], "missing": "reject"},
        "run": {"from": [{"jwt_claim": "run"}]}
    });
    let text = |per: &str| {
        with(|config| {
            config["subjects"] = subjects.clone();
            config["plans"]["gold"]["limits"] = serde_json::json!([
                {"name": "a", "per": "user", "budget": {"initial_budget": 5, "window": "day"}},
                {"name": "b", "per": per, "bucket": {"requests_per_window": 6, "window": "1m"}},
                {"name": "c", "per": "user", "bucket": {"requests_per_window": 6, "window": "1m"}},
            ]);
        })
    };
    let config = Config::parse(text("run").as_bytes()).unwrap();
    let kinds: Vec<_> = config
        .subjects
        .iter()
        .map(|rules| (rules.name.as_str(), rules.is_required))
        .collect();
    assert_eq!(kinds, [("run", false), ("user", true)]);
    let limits = acme(&text("run"));
    assert!(limits.others.is_empty());
    let by_kind: Vec<_> = limits
        .subjects
        .iter()
        .map(|kind| (kind.index, kind.limits.others.len()))
        .collect();
    assert_eq!(by_kind, [(1, 2), (0, 1)]);
    rejects(
        &text("team"),
        "plans.gold.limits[1].per: `subjects` has none called `team`",
    );
    rejects_at(
        "/subjects",
        serde_json::json!({"a/b": {"from": [{"header": "x"}]}}),
        "subjects.a/b: is not made of 1 to 64 letters, digits, `.`, `_`, `:` and `-`",
    );
    rejects_at(
        "/subjects",
        serde_json::json!({"user": {"from": []}}),
        "subjects.user.from: name at least one source",
    );
}

#[test]
fn an_account_is_one_tenants_alone() {
    let config = Config::parse(
        with(|config| config["tenants"] = serde_json::json!({"apex": {"was": "acme"}})).as_bytes(),
    );
    let config = config.unwrap();
    let (apex, _) = config.tenant(b"apex").unwrap();
    assert_eq!((apex.as_str(), apex.account()), ("apex", "acme"));
    assert_eq!(config.listed()[0].0.account(), "acme");
    for (tenants, error) in [
        (
            serde_json::json!({"acme": {}, "apex": {"was": "acme"}}),
            "tenants.apex.was: the account of `acme` is that of tenant `acme`",
        ),
        (
            serde_json::json!({"apex": {"was": "acme"}, "acme": {"was": "apex"}}),
            "tenants.acme.was: the account of `apex` is that of tenant `apex`",
        ),
        (
            serde_json::json!({"apex": {"was": "acme"}, "zenith": {"was": "acme"}}),
            "tenants.zenith.was: the account of `acme` is that of tenant `apex`",
        ),
        (
            serde_json::json!({"apex": {"was": "apex"}}),
            "tenants.apex.was: is its own name",
        ),
        (
            serde_json::json!({"apex": {"was": ""}}),
            "tenants.apex.was: a tenant id is 1 to 256 bytes without control characters",
        ),
    ] {
        rejects_at("/tenants", tenants, error);
    }
}

#[test]
fn plans_can_be_tried_beside_the_one_that_decides() {
    let tries = |names: serde_json::Value| {
        with(|config| {
            config["plans"]["gold"]["shadow"] = names.clone();
            config["plans"]["strict"] = serde_json::json!({"shadow": true});
        })
    };
    let config = Config::parse(tries(serde_json::json!(["strict", "gold"])).as_bytes()).unwrap();
    let plan = config.plan(&TenantId::parse(b"acme").unwrap()).unwrap();
    assert!(!plan.limits.shadow);
    let names: Vec<&str> = plan.trials.iter().map(|plan| &*plan.name).collect();
    assert_eq!(names, ["strict", "gold"]);
    // The plan that is tried makes decisions, but tries no further plan.
    assert!(
        plan.trials
            .iter()
            .all(|plan| !plan.limits.shadow && plan.trials.is_empty())
    );
    for (names, error) in [
        (serde_json::json!([]), "plans.gold.shadow: names no plan"),
        (
            serde_json::json!(["none"]),
            "plans.gold.shadow[0]: no plan is called `none`",
        ),
        (
            serde_json::json!(["strict", "strict"]),
            "plans.gold.shadow[1]: `strict` stands twice",
        ),
        (
            serde_json::json!(["a", "b", "c", "d", "e"]),
            "plans.gold.shadow: names more than 4 plans",
        ),
    ] {
        rejects(&tries(names), error);
    }
}
