//! Coding agents whose requests may cost far more than they do, on one budget with `hold: likely`.

use crate::proxy::{Call, Proxy};
use crate::stacked::with;
use serde_json::json;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Coding agents: bodies of 500 KB, an output limit of 64,000 tokens, 125,000 tokens of input, nine tenths of them cached, and 2,000
/// of output. A request may cost $2.46, and does cost $0.10.
struct Agents {
    proxy: Proxy,
    body: String,
}

impl Agents {
    fn new() -> Self {
        let price = json!({"input": 3, "cached_input": 0.3, "output": 15});
        let mut config = with(json!({
            "budget": {"initial_budget": 25, "unit": "usd", "window": "day"}, "hold": "likely"
        }));
        config["tiers"] = json!([
            {"name": "big", "model": "gpt-4o", "price": price},
            {"name": "small", "model": "gpt-4o-mini", "price": {"input": 0.15, "cached_input": 0.075, "output": 0.6}, "below": 0.1}
        ]);
        let head = r#"{"model":"gpt-4o","max_tokens":64000,"x":""#;
        Self {
            proxy: Proxy::new(&config),
            body: format!("{head}{}\"}}", "x".repeat(500_000 - head.len() - 2)),
        }
    }

    fn ask(&self) -> Call<'_> {
        self.proxy.chat("acme", &self.body)
    }

    fn answer(mut call: Call<'_>, input: u64, cached: u64, output: u64) {
        let model = match call.upstream_text().contains("gpt-4o-mini") {
            true => "gpt-4o-mini",
            false => "gpt-4o",
        };
        let used = json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
                          "prompt_tokens_details": {"cached_tokens": cached}});
        let answer = json!({"id": "x", "object": "chat.completion", "model": model, "choices": [], "usage": used});
        call.answer_json(&answer.to_string());
        call.end();
    }

    fn spent(&self) -> u64 {
        self.proxy.record("acme").account.spent.usd.0
    }
}

#[track_caller]
fn is_served_as_asked(call: &Call<'_>) {
    let is_lowered = call.upstream_text().contains("gpt-4o-mini");
    assert_eq!((call.refused(), is_lowered), (None, false));
}

#[test]
fn ten_agents_at_a_time_are_not_lowered_for_what_they_might_have_cost() {
    let agents = Agents::new();
    // Eight of them say what such requests use.
    for _ in 0..8 {
        Agents::answer(agents.ask(), 125_000, 112_500, 2_000);
    }
    assert_eq!(agents.spent(), 8 * 101_250);
    while agents.spent() < 20_000_000 {
        let calls: Vec<_> = (0..10).map(|_| agents.ask()).collect();
        for call in calls {
            is_served_as_asked(&call);
            Agents::answer(call, 125_000, 112_500, 2_000);
        }
    }
}

/// What came of ten agents, each of which begins another request as soon as it has an answer, until all were refused, in USD micros.
#[derive(Debug, PartialEq, Eq)]
struct Spent {
    /// When the first request was lowered.
    lowered: u64,
    /// In the end.
    all: u64,
    /// What requests used beyond what was held for them.
    over: u64,
}

/// Inputs of 100,000 to 150,000 tokens, outputs of 1,000 to 3,000. `uncached`: of so many requests one finds nothing cached.
fn ten_agents(uncached: u64) -> Spent {
    let agents = Agents::new();
    let mut draw = 1_u64;
    let mut answer = |call| {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let part = draw >> 33;
        let input = 100_000 + part % 50_000;
        let cached = match part % uncached {
            0 => 0,
            _ => input / 10 * 9,
        };
        Agents::answer(call, input, cached, 1_000 + part % 2_000);
    };
    // The first ones are held at what they may cost, until eight have told what such requests use.
    let first: Vec<_> = (0..10).map(|_| agents.ask()).collect();
    for call in first {
        is_served_as_asked(&call);
        answer(call);
    }
    let mut lowered = None;
    let mut flight: std::collections::VecDeque<_> = (0..10).map(|_| agents.ask()).collect();
    while let Some(call) = flight.pop_front() {
        if call.refused().is_some() {
            continue;
        }
        let is_lowered = call.upstream_text().contains("gpt-4o-mini");
        lowered = lowered.or_else(|| is_lowered.then(|| agents.spent()));
        answer(call);
        let next = agents.ask();
        assert!(next.refused().is_none() || agents.spent() > 20_000_000);
        flight.push_back(next);
    }
    let over = "bursar_over_hold_total.tenant=.=acme;.;unit=.=usd_micros;.;";
    Spent {
        lowered: lowered.unwrap(),
        all: agents.spent(),
        over: agents.proxy.metric(over),
    }
}

#[test]
fn ten_agents_that_never_wait_are_lowered_by_what_they_are_likely_to_use_and_overspend_nothing() {
    let alike = Spent {
        lowered: 21_911_386,
        all: 24_984_473,
        over: 0,
    };
    assert_eq!(ten_agents(u64::MAX), alike);
    // The dearest of the last hundred is held for all ten.
    let with_misses = Spent {
        lowered: 18_184_750,
        all: 24_981_806,
        over: 279_120,
    };
    assert_eq!(ten_agents(40), with_misses);
}
