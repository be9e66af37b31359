//! Which headers answers carry, by configuration.

use serde_json::json;

use crate::opening::{BODY, with};
use crate::proxy::{Call, Proxy};

/// Headers of ours that the answer carries, by group: `x-bursar-*`, `x-ratelimit-*`, `ratelimit*`.
fn groups(call: &Call<'_>) -> [usize; 3] {
    let headers = match call.reply {
        Some(_) => &call.reply_headers,
        None => &call.response_headers,
    };
    ["x-bursar-", "x-ratelimit-", "ratelimit"].map(|start| {
        headers
            .iter()
            .filter(|(name, _)| name.starts_with(start))
            .count()
    })
}

fn proxy(wanted: &serde_json::Value) -> Proxy {
    Proxy::new(&with(|config| {
        config["headers"] = wanted.clone();
        config["plans"]["watched"] =
            json!({"shadow": true, "budget": {"initial_budget": 1, "window": "day"}});
        config["tenants"]["watched"] = json!({"plan": "watched"});
    }))
}

/// What answers carry where all groups are wanted, and where some are.
#[track_caller]
fn carries(tenant: &str, spent: u64, all: [usize; 3]) {
    let cases = [
        (json!(["bursar", "x-ratelimit", "ratelimit"]), [1, 1, 1]),
        (json!(["x-ratelimit"]), [0, 1, 0]),
        (json!(["ratelimit", "bursar"]), [1, 0, 1]),
        (json!([]), [0, 0, 0]),
    ];
    for (wanted, shown) in cases {
        let proxy = proxy(&wanted);
        if spent > 0 {
            proxy.served(tenant, BODY, spent, 0);
        }
        let call = proxy.served(tenant, BODY, 1, 1);
        let expected = std::array::from_fn(|group| all[group] * shown[group]);
        assert_eq!(groups(&call), expected, "{wanted}");
    }
}

#[test]
fn an_answer_carries_what_is_wanted() {
    carries("acme", 0, [4, 3, 2]);
}

#[test]
fn a_refusal_carries_what_is_wanted_and_always_when_to_come_back() {
    carries("acme", 1_000, [6, 3, 2]);
    let proxy = proxy(&json!([]));
    proxy.served("acme", BODY, 1_000, 0);
    let call = proxy.served("acme", BODY, 1, 1);
    assert_eq!(call.reply.as_ref().unwrap().status, 429);
    assert!(call.reply_header("retry-after").is_some());
    assert_eq!(call.reply_header("x-should-retry"), Some("false"));
}

#[test]
fn shadow_mode_tells_what_is_wanted() {
    carries("watched", 0, [5, 3, 2]);
}

// No downgrade is ever silent.
#[test]
fn a_downgrade_is_always_told() {
    let proxy = proxy(&json!([]));
    proxy.served("acme", BODY, 600, 0);
    let call = proxy.served("acme", BODY, 1, 1);
    assert_eq!(groups(&call), [5, 0, 0]);
    assert_eq!(call.response_header("x-bursar-model"), Some("gpt-4.1-mini"));
}

#[test]
fn the_upstreams_own_limits_are_shown_to_nobody() {
    for wanted in [json!([]), json!(["x-ratelimit", "ratelimit"])] {
        let proxy = proxy(&wanted);
        let mut call = proxy.chat("umbrella", BODY);
        call.answer_headers(
            "200",
            &[
                ("x-ratelimit-limit-tokens", "7"),
                ("ratelimit", "\"theirs\";r=1"),
            ],
        );
        assert_eq!(groups(&call)[1..], [0, 0], "{wanted}");
    }
}
