//! Budgets that proxies share.

use serde_json::{Value, json};

use super::*;
use crate::config::Login;
use crate::lease::grant::Unreachable;
use crate::lease::share::{FirstRequest, Share};
use crate::limits::stacked::Rule;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const SECOND: u64 = 1_000_000_000;

/// A configuration with a store, and with these keys in the plan.
fn shared(global: &Value, plan: &Value) -> String {
    with(|config| {
        config["global"] = json!({"redis": {"cluster": "store"}});
        for (key, value) in global.as_object().unwrap() {
            config["global"][key] = value.clone();
        }
        for (key, value) in plan.as_object().unwrap() {
            config["plans"]["gold"][key] = value.clone();
        }
    })
}

fn share(plan: &Value) -> Option<Share> {
    acme(&shared(&json!({}), plan)).budget.unwrap().share
}

#[track_caller]
fn rejects_plan(plan: &Value, error: &str) {
    rejects(&shared(&json!({}), plan), error);
}

#[test]
fn budgets_are_shared_where_there_is_a_store_unless_they_are_not_to_be() {
    let default = Share {
        least: SECOND,
        most: 10 * SECOND,
        reclaim: None,
        unreachable: Unreachable::Deny,
        first: FirstRequest::Waits,
    };
    assert_eq!(share(&json!({})), Some(default));
    assert_eq!(share(&json!({"scope": "proxy"})), None);
    assert_eq!(acme(&with(|_| {})).budget.unwrap().share, None);
    let other = json!({"when_unreachable": {"local": 0.1}, "cold": "credit"});
    let other = share(&other).unwrap();
    assert_eq!(other.unreachable, Unreachable::Local(Ppm(100_000)));
    assert_eq!(other.first, FirstRequest::OnCredit);
}

#[test]
fn a_limits_own_scope_counts_more_than_its_plans() {
    let day = json!({"initial_budget": 5, "window": "day"});
    let limits = acme(&shared(
        &json!({}),
        &json!({"scope": "proxy", "concurrency": 3, "limits": [
            {"name": "a", "budget": day, "scope": "global"},
            {"name": "b", "budget": day},
            {"name": "c", "bucket": {"requests_per_window": 1, "window": "1s"}, "scope": "proxy"},
        ]}),
    ));
    let is_shared = |limit: &crate::limits::stacked::Limit| match limit.rule {
        Rule::Budget(budget) => Some(budget.share.is_some()),
        _ => None,
    };
    let shared: Vec<_> = limits.others.iter().filter_map(is_shared).collect();
    assert_eq!(shared, [true, false]);
    assert_eq!(limits.budget.unwrap().share, None);
}

#[test]
fn a_budget_that_proxies_share_is_not_guaranteed_to_children() {
    let text = |scope: &str| {
        let mut config: Value = serde_json::from_str(&shared(&json!({}), &json!({}))).unwrap();
        config["tenants"]["acme"]["scope"] = scope.into();
        config["tenants"]["team"] = json!({"parent": "acme", "guaranteed": 0.5});
        config.to_string()
    };
    assert!(Config::parse(text("proxy").as_bytes()).is_ok());
    rejects(
        &text("global"),
        "tenants.team.guaranteed: a budget of `acme` is shared by proxies: give it `\"scope\": \"proxy\"`",
    );
}

// An idle window ends a while after the last request that a proxy has seen, and each proxy sees other requests.
#[test]
fn an_idle_window_is_each_proxys_own() {
    let idle = json!({"initial_budget": 5, "window": {"idle": "2h"}});
    assert_eq!(share(&json!({"budget": idle})), None);
    rejects_plan(
        &json!({"limits": [{"name": "run", "budget": idle, "scope": "global"}]}),
        "plans.gold.limits[0].budget.window: ends with the requests that one proxy sees: give the limit, or its plan, `\"scope\": \"proxy\"`",
    );
}

#[test]
fn the_store_is_read_with_all_that_belongs_to_it() {
    let text = shared(
        &json!({"redis": {"cluster": "store", "user": "bursar", "password_env": "PASSWORD"}, "domain": "llm",
                "refresh": {"least": "200ms", "most": "5s"}, "reclaim": "30m"}),
        &json!({}),
    );
    let global = Config::parse(text.as_bytes()).unwrap().global.unwrap();
    assert_eq!(global.cluster, "store");
    assert_eq!(global.domain, "llm");
    let login = Login {
        user: "bursar".to_owned(),
        password_env: "PASSWORD".to_owned(),
    };
    assert_eq!(global.login, Some(login));
    assert_eq!((global.least, global.most), (SECOND / 5, 5 * SECOND));
    assert_eq!(global.reclaim, NonZeroU64::new(1_800 * SECOND));
    // Each pause is at most as long as the longest one.
    let text = shared(&json!({"refresh": {"most": "500ms"}}), &json!({}));
    let global = Config::parse(text.as_bytes()).unwrap().global.unwrap();
    assert_eq!((global.least, global.most), (SECOND / 2, SECOND / 2));
}

#[test]
fn a_store_that_cannot_be_is_refused_with_its_reason() {
    for (global, error) in [
        (
            json!({"redis": {"cluster": ""}}),
            "global.redis.cluster: names no cluster",
        ),
        (
            json!({"redis": {"cluster": "c", "user": "u"}}),
            "global.redis.password_env: is missing: which variable of the VM's environment has the user's password?",
        ),
        (
            json!({"redis": {"cluster": "c", "password_env": ""}}),
            "global.redis.password_env: is empty",
        ),
        (
            json!({"domain": ""}),
            "global.domain: must have 1 to 64 bytes",
        ),
        (
            json!({"refresh": {"most": "11s"}}),
            "global.refresh.most: must be 10 seconds or less",
        ),
        (
            json!({"refresh": {"least": "2s", "most": "1s"}}),
            "global.refresh.least: must not be longer than `most`",
        ),
        (
            json!({"refresh": {"least": "0s"}}),
            "global.refresh.least: `0s` is no duration of at least 100 milliseconds, such as \"1s\"",
        ),
        (
            json!({"reclaim": "0s"}),
            "global.reclaim: `0s` is neither `off` nor a duration of at least one minute, such as \"30m\"",
        ),
    ] {
        rejects(&shared(&global, &json!({})), error);
    }
}

#[test]
fn what_cannot_be_shared_is_refused_with_its_reason() {
    let proxy = "give the limit, or its plan, `\"scope\": \"proxy\"`";
    for (plan, error) in [
        (
            json!({"budget": {"initial_budget": 9_007_199_254_740_993_u64, "window": "day"}}),
            "plans.gold.budget.initial_budget: is more than 2^53, up to which a shared store counts exactly"
                .to_owned(),
        ),
        (
            json!({"budget": {"initial_budget": 5, "window": "day", "rollover": 0.5}}),
            format!("plans.gold.budget.rollover: is counted in each proxy: {proxy}"),
        ),
        (
            json!({"on_exhausted": {"degrade": {"overdraft": 0.1}}}),
            format!(
                "plans.gold.budget: is shared by proxies, and `on_exhausted` gives it an overdraft, which is counted in each of them: {proxy}"
            ),
        ),
        (
            json!({"when_unreachable": {"local": 0}}),
            "plans.gold.when_unreachable.local: must be a fraction above 0 and at most 1, with at most six decimals"
                .to_owned(),
        ),
    ] {
        rejects_plan(&plan, &error);
    }
    // Budgets of other scopes are accepted, and not shared.
    let rollover = json!({"scope": "proxy", "budget": {"initial_budget": 5, "window": "day", "rollover": 0.5}});
    assert_eq!(share(&rollover), None);
}

#[test]
fn without_a_store_nothing_can_be_shared() {
    let reason = "has a meaning only where `global` names the store that proxies share";
    for (key, value) in [
        ("scope", json!("global")),
        ("cold", json!("deny")),
        ("when_unreachable", json!("deny")),
    ] {
        let pointer = format!("/plans/gold/{key}");
        rejects_at(&pointer, value, &format!("plans.gold.{key}: {reason}"));
    }
    let limits =
        json!([{"name": "a", "scope": "global", "budget": {"initial_budget": 5, "window": "day"}}]);
    rejects_at(
        "/plans/gold/limits",
        limits,
        &format!("plans.gold.limits[0].scope: {reason}"),
    );
    let text = with(|config| config["plans"]["gold"]["scope"] = "proxy".into());
    assert_eq!(acme(&text).budget.unwrap().share, None);
}

#[test]
fn buckets_are_shared_as_budgets_are() {
    let bucket = json!({"requests_per_window": 1, "window": "1s"});
    let shared_in = |plan: &Value| {
        let limits = acme(&shared(&json!({}), plan));
        let others = limits.others.iter().map(|limit| match &limit.rule {
            Rule::Tokens(quota) | Rule::Requests(quota) => quota.share,
            Rule::Budget(budget) | Rule::Concurrency(budget) => budget.share,
        });
        let own = limits.bucket.map(|quota| quota.share);
        let all = own.into_iter().chain(others);
        all.map(|share| share.is_some()).collect::<Vec<_>>()
    };
    let of = |scope: &str| json!([{"name": "rpm", "scope": scope, "bucket": bucket}]);
    let none = json!([{"name": "rpm", "bucket": bucket}]);
    for (plan, expected) in [
        (json!({"limits": none}), vec![true, true]),
        (json!({"limits": of("proxy")}), vec![true, false]),
        (
            json!({"scope": "proxy", "limits": none}),
            vec![false, false],
        ),
        (
            json!({"scope": "proxy", "limits": of("global")}),
            vec![false, true],
        ),
        // A bucket of requests is shared, as the plan's own; `concurrency` is counted by each proxy alone.
        (
            json!({"bucket": bucket, "concurrency": 5}),
            vec![true, false],
        ),
    ] {
        assert_eq!(shared_in(&plan), expected, "{plan}");
    }
    rejects_at(
        "/plans/gold/limits",
        of("global"),
        "plans.gold.limits[0].scope: has a meaning only where `global` names the store that proxies share",
    );
}
