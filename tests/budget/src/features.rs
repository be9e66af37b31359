//! What each feature adds to a request of 2 KB that is held and admitted: nothing where it is not configured, and where it is, this.

use serde_json::{Value, json};

use crate::messages::{ASKED, answer, prompt, request};
use crate::proxy::{Compiled, Cost, Fault, Vm};

/// Requests of the same kind that come before the one that is measured.
const WARM_UP: usize = 6;

/// A feature, and its configuration: keys of the top level, and keys of the plan. A list adds to the one that is there.
fn features() -> Vec<(&'static str, Value, Value)> {
    let one = |name, top, plan| (name, top, plan);
    let none = || json!({});
    let subjects = json!({"subjects": {"user": {"from": [{"header": "user-agent"}]}}});
    let of_user = json!({"limits": [{"name": "user-day", "per": "user", "budget": {"initial_budget": 5000000, "window": "24h"}}]});
    let parent = json!({"tenants": {"acme": {"parent": "group"}, "group": {"plan": "big"}},
        "plans": {"big": {"budget": {"initial_budget": 50000000, "window": "month"}}}});
    let of_tier = |key: &str, value: Value| json!({ "tiers": [{key: value}, {}] });
    vec![
        one("one budget (the base)", none(), none()),
        one(
            "a second budget",
            none(),
            json!({"limits": [{"name": "day", "budget": {"initial_budget": 5000000, "window": "24h"}}]}),
        ),
        one(
            "a bucket of tokens",
            none(),
            json!({"bucket": {"tokens_per_window": 6000000, "window": "1m"}}),
        ),
        one(
            "a bucket of requests",
            none(),
            json!({"limits": [{"name": "calls", "bucket": {"requests_per_window": 6000, "window": "1m"}}]}),
        ),
        one("concurrency", none(), json!({"concurrency": 8})),
        one("a parent with a budget", parent, none()),
        one("a budget per user", subjects, of_user),
        one(
            "a shared budget (global)",
            json!({"global": {"redis": {"cluster": "store"}, "domain": "llm"}}),
            json!({"cold": "deny"}),
        ),
        one("pace", none(), json!({"pace": {}})),
        one("hysteresis", none(), json!({"hysteresis": 0.05})),
        one(
            "a latency target (sla)",
            none(),
            json!({"sla": {"p95_ms": 60000}}),
        ),
        one(
            "conversations keep their tier (sticky)",
            none(),
            json!({"sticky": {}}),
        ),
        one(
            "a plan tried beside it (shadow)",
            json!({"plans": {"strict": {"budget": {"initial_budget": 10, "window": "month"}}}}),
            json!({"shadow": ["strict"]}),
        ),
        one(
            "a capacity",
            of_tier(
                "capacity",
                json!({"tokens_per_window": 2000000, "window": "1m"}),
            ),
            none(),
        ),
        one(
            "a capacity that is learned",
            of_tier("capacity", json!({"from": "upstream"})),
            none(),
        ),
        one(
            "budgets in dollars",
            none(),
            json!({"budget": {"initial_budget": 500, "unit": "usd", "window": "month"}}),
        ),
        one(
            "twelve single log fields",
            json!({"log_fields": ["tenant", "tier", "model", "decision", "reason", "input_tokens", "output_tokens", "charged", "remaining", "limit", "settled_by", "plan"]}),
            none(),
        ),
    ]
}

/// The measured features, with what each costs.
pub fn measure(module: &Compiled) -> Result<Vec<(&'static str, Cost)>, Fault> {
    let features = features().into_iter();
    let costs = features.map(|(name, top, plan)| {
        let is_shared = top.get("global").is_some();
        let cost = admitted(module, &configuration(top, plan), is_shared);
        cost.map(|cost| (name, cost))
            .map_err(|fault| format!("{name}: {fault}").into())
    });
    costs.collect()
}

fn calls(cost: &Cost) -> i64 {
    cost.calls.values().sum::<u64>().cast_signed()
}

/// A table in Markdown.
pub fn table(measured: &[(&'static str, Cost)]) -> String {
    let base = measured
        .first()
        .map_or((1, 0_i64), |(_, cost)| (cost.instructions, calls(cost)));
    let rows = measured.iter().skip(1).map(|(name, cost)| {
        let more = cost.instructions.cast_signed() - base.0.cast_signed();
        let more_calls = calls(cost) - base.1;
        let percent = more as f64 * 100.0 / base.0 as f64;
        format!("| {name} | {more:+} | {percent:+.1} % | {more_calls:+} |\n")
    });
    let rows: String = rows.collect();
    format!(
        "{} instructions and {} host calls with one budget; each of these in addition:\n\n| feature | instructions | | host calls |\n|---|--:|--:|--:|\n{rows}",
        base.0, base.1
    )
}

fn configuration(top: Value, plan: Value) -> Value {
    let mut all = json!({
        "hold_headers": true, "hold_bytes": 4194304,
        "tiers": [
            {"name": "default", "model": ASKED, "price": {"input": 2.5, "cached_input": 1.25, "output": 10}},
            {"name": "standard", "model": "gpt-4.1-mini", "below": 0.3, "price": {"input": 0.4, "cached_input": 0.1, "output": 1.6}}
        ],
        "plans": {"gold": {"budget": {"initial_budget": 10000000, "window": "month"}}},
        "tenants": {"acme": {"plan": "gold"}}
    });
    merge(&mut all, top);
    merge(&mut all, json!({"plans": {"gold": plan}}));
    all
}

/// Puts `from` into `to`, key by key and place by place.
fn merge(to: &mut Value, from: Value) {
    match (to, from) {
        (Value::Object(to), Value::Object(from)) => {
            for (key, value) in from {
                merge(to.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(to), Value::Array(from)) => {
            for (at, value) in from.into_iter().enumerate() {
                match to.get_mut(at) {
                    Some(to) => merge(to, value),
                    None => to.push(value),
                }
            }
        }
        (to, from) => *to = from,
    }
}

fn admitted(module: &Compiled, configuration: &Value, is_shared: bool) -> Result<Cost, Fault> {
    let (mut vm, _) = Vm::configured(module, &configuration.to_string())?;
    let request = request("acme", &prompt(2_000), 65_536, true);
    if is_shared {
        // Nothing is granted yet.
        vm.exchange(&request, &answer())?;
    }
    for _ in 0..WARM_UP {
        vm.tick()?;
        let outcome = vm.exchange(&request, &answer())?;
        let decision = outcome.fields.get("bursar_decision");
        if outcome.status != 200 || decision.is_none_or(|decision| decision != "admit") {
            return Err(
                format!("went another way: {} {:?}", outcome.status, outcome.fields).into(),
            );
        }
    }
    vm.tick()?;
    vm.begin()?;
    vm.exchange(&request, &answer())?;
    vm.cost()
}
