use serde_json::{Value, json};

use crate::figures::{Row, Sum, by_tenant, table};
use crate::log::{Fate, Used, read};
use crate::play::{Outcome, configuration, play, saved};

/// A line of the shipped access log, so many minutes after noon.
fn line(minutes: u64, tenant: &str, more: Value) -> String {
    let mut said = json!({"tenant": tenant, "requested_model": "gpt-4o", "decision": "admit", "settled_by": "usage"});
    for (key, value) in more.as_object().unwrap() {
        said[key] = value.clone();
    }
    let time = format!("2026-11-29T12:{minutes:02}:00.000Z");
    json!({"time": time, "duration_ms": 500, "bursar": said.to_string()}).to_string()
}

fn used(input: u64, output: u64, spend: u64) -> Value {
    json!({"input_tokens": input, "cached_tokens": 0, "output_tokens": output, "spend": spend})
}

fn config(budget: u64) -> String {
    json!({
        "tiers": [
            {"name": "default", "model": "gpt-4o", "price": {"input": 2, "output": 10}},
            {"name": "compact", "model": "gpt-4o-mini", "price": {"input": 1, "output": 1}, "below": 0.9}
        ],
        "hosts": ["api.openai.com"],
        "global": {"redis": {"cluster": "store"}},
        "subjects": {"user": {"from": [{"header": "x-user"}], "missing": "reject"}},
        "plans": {"gold": {"scope": "global", "budget": {"initial_budget": budget, "window": "day"}}},
        "tenant": {"from": [{"jwt_claim": "tenant"}]},
        "tenants": {"acme": {"plan": "gold"}, "globex": {}}
    })
    .to_string()
}

fn log() -> String {
    let refused = json!({"decision": "throttle", "reason": "budget_exhausted", "settled_by": null});
    let lowered = json!({"decision": "downgrade", "input_tokens": 1_000, "output_tokens": 100, "spend": 1_100});
    let failed = json!({"settled_by": "none", "input_tokens": 0, "output_tokens": 0, "spend": 0});
    [
        line(3, "acme", refused),
        line(1, "acme", used(1_000, 100, 3_000)),
        line(2, "acme", lowered),
        line(4, "globex", used(10, 1, 30)),
        line(5, "globex", failed),
        r#"{"time": "2026-11-29T12:00:00.000Z", "bursar": null}"#.to_owned(),
        "[2026-11-29 12:00:00][info] a line of Envoy's own".to_owned(),
    ]
    .join("\n")
}

#[test]
fn a_log_is_read_by_time_and_what_was_refused_is_taken_for_the_mean() {
    let (entries, left_out) = read(&log());
    assert_eq!(left_out, 2);
    let fates: Vec<_> = entries.iter().map(|entry| entry.fate).collect();
    let expected = [
        Fate::Served,
        Fate::Lowered,
        Fate::Refused,
        Fate::Served,
        Fate::Failed,
    ];
    assert_eq!(fates, expected);
    let mean = Used {
        input: 1_000,
        cached: 0,
        output: 100,
    };
    assert_eq!((entries[2].usage, entries[2].took), (mean, 500_000_000));
}

fn after(budget: u64) -> (Vec<Outcome>, Vec<u64>) {
    let (entries, _) = read(&log());
    let config = configuration(&config(budget)).unwrap();
    let saved = entries.iter().map(|entry| saved(entry, &config)).collect();
    (play(&entries, config), saved)
}

#[test]
fn a_larger_budget_serves_all_as_they_asked() {
    let (outcomes, saved) = after(1_000_000);
    let spent: Vec<_> = outcomes.iter().map(|outcome| outcome.spend).collect();
    assert_eq!(spent, [3_000, 3_000, 3_000, 30, 0]);
    assert_eq!(saved, [0, 1_900, 0, 0, 0]);
    assert!(outcomes.iter().all(|outcome| outcome.reason.is_empty()));
    let (entries, _) = read(&log());
    let rows = by_tenant(&entries, &saved, &outcomes);
    let before = Sum {
        refused: 1,
        lowered: 1,
        spent: 4_100,
        saved: 1_900,
    };
    let after = Sum {
        spent: 9_000,
        ..Sum::default()
    };
    let acme = Row {
        requests: 3,
        both: [before, after],
    };
    assert_eq!(rows["acme"], acme);
    let table = table(&rows, &outcomes);
    assert!(
        table.contains("| acme | 3 | 1 → 0 | 1 → 0 | $0.0041 → $0.0090 | $0.0019 → $0.0000 |\n")
    );
}

#[test]
fn a_smaller_one_lowers_and_refuses() {
    let (outcomes, _) = after(5_200);
    let fates: Vec<_> = outcomes.iter().map(|outcome| outcome.fate).collect();
    // Each may use 4,100 tokens, and uses 1,100: the second finds less than the mark, and the third less than it may use.
    let expected = [
        Fate::Served,
        Fate::Lowered,
        Fate::Refused,
        Fate::Served,
        Fate::Failed,
    ];
    assert_eq!(fates, expected);
    assert_eq!((outcomes[1].spend, outcomes[1].saved), (1_100, 1_900));
    let reasons: Vec<_> = outcomes
        .iter()
        .map(|outcome| outcome.reason.as_str())
        .collect();
    assert_eq!(reasons[..3], ["", "budget_low", "budget_exhausted"]);
}

#[test]
fn a_configuration_that_is_wrong_is_told_as_it_is_elsewhere() {
    let error = configuration(r#"{"tenants": {"acme": {"plan": "gold"}}}"#).unwrap_err();
    assert_eq!(error, "tenants.acme.plan: no plan is called `gold`");
}
