//! Limits that stack: several budgets and buckets of one tenant, all of them or none.

use crate::proxy::{Call, Proxy, usage};
use bursar::limits::stacked::{LimitKey, State};
use bursar::units::Tokens;
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const BODY: &str = r#"{"model":"gpt-4o","messages":[],"max_tokens":10}"#;

/// What [`BODY`] reserves: a token a byte, and the answer's limit.
const RESERVED: u64 = 48 + 10;

fn with(limits: Value) -> Value {
    json!({
        "hold_headers": true,
        "tiers": [
            {"name": "big", "model": "gpt-4o"},
            {"name": "small", "model": "gpt-4o-mini", "below": 0.2}
        ],
        "tenants": {"acme": limits}
    })
}

fn day(tokens: u64) -> Value {
    json!({"initial_budget": tokens, "window": "day"})
}

/// What was spent and what is held of a limit, in tokens.
fn account(proxy: &Proxy, name: &str) -> (u64, u64) {
    let record = proxy.record("acme");
    let key = LimitKey::of(name);
    let account = record
        .others
        .iter()
        .find_map(|entry| entry.account(key))
        .unwrap();
    (account.spent.tokens.0, account.held().tokens.0)
}

/// What is used of a bucket.
fn used(proxy: &Proxy, name: &str) -> u64 {
    let record = proxy.record("acme");
    let of = record
        .others
        .iter()
        .find(|entry| entry.key == LimitKey::of(name));
    let bucket = of.and_then(|entry| match &entry.state {
        State::Bucket(bucket) => Some(bucket.used),
        State::Account(_) => None,
    });
    bucket.unwrap()
}

#[test]
fn all_budgets_are_charged_and_the_one_that_refuses_is_named() {
    let limits = json!([
        {"name": "week", "budget": {"initial_budget": 1_000, "window": "week"}},
        {"name": "day", "budget": day(300)},
    ]);
    let proxy = Proxy::new(&with(json!({"limits": limits})));
    proxy.served("acme", BODY, 200, 50);
    assert_eq!(account(&proxy, "week"), (250, 0));
    assert_eq!(account(&proxy, "day"), (250, 0));
    let refused = proxy.chat("acme", BODY);
    assert_eq!(refused.refused(), Some((429, "budget_exhausted")));
    assert_eq!(refused.reply_header("x-bursar-limit"), Some("day"));
    assert_eq!(refused.reply_header("retry-after"), Some("43200"));
    assert!(refused.reply.as_ref().unwrap().body.contains("Limit: day."));
    let limited = "bursar_limited_total.tenant=.=acme;.;limit=.=day;.;reason=.=budget_exhausted;.;";
    assert_eq!(proxy.metric(limited), 1);
    // The next day the week still counts.
    proxy.pass_millis(43_200_000);
    assert_eq!(proxy.chat("acme", BODY).refused(), None);
    assert_eq!(account(&proxy, "week").0, 250);
    assert_eq!(account(&proxy, "day"), (0, RESERVED));
}

#[test]
fn of_several_limits_that_refuse_the_one_is_named_that_refuses_longest() {
    let limits = json!([
        {"name": "hour", "budget": {"initial_budget": 60, "window": "hour"}},
        {"name": "week", "budget": {"initial_budget": 60, "window": "week"}},
        {"name": "rpm", "bucket": {"requests_per_window": 1, "window": "1m"}},
    ]);
    let proxy = Proxy::new(&with(json!({"limits": limits, "budget": day(60)})));
    proxy.served("acme", BODY, 60, 0);
    let refused = proxy.chat("acme", BODY);
    assert_eq!(refused.reply_header("x-bursar-limit"), Some("week"));
    // Noon of Thursday to midnight before Monday.
    assert_eq!(refused.reply_header("retry-after"), Some("302400"));
}

#[test]
fn a_refusal_leaves_every_limit_as_it_was() {
    let limits = json!([
        {"name": "month", "budget": {"initial_budget": 1_000, "window": "month"}},
        {"name": "rpm", "bucket": {"requests_per_window": 10, "window": "1m"}},
        {"name": "tpm", "bucket": {"tokens_per_window": 1_000, "window": "1m"}},
        {"name": "tiny", "budget": day(RESERVED)},
    ]);
    let proxy = Proxy::new(&with(json!({"limits": limits, "concurrency": 5})));
    let held = proxy.chat("acme", BODY);
    let before = proxy.record("acme");
    let refused = proxy.chat("acme", BODY);
    assert_eq!(refused.refused(), Some((429, "budget_held")));
    assert_eq!(refused.reply_header("x-bursar-limit"), Some("tiny"));
    assert_eq!(proxy.record("acme"), before);
    drop(held);
}

#[test]
fn requests_are_counted_whatever_comes_of_them_but_not_those_that_are_not_sent() {
    let limits = json!([{"name": "rpm", "bucket": {"requests_per_window": 3, "window": "1m"}}]);
    let proxy = Proxy::new(&with(json!({"limits": limits})));
    proxy.served("acme", BODY, 100, 100);
    let mut failed = proxy.chat("acme", BODY);
    failed.answer_headers("500", &[]);
    failed.end();
    assert_eq!(used(&proxy, "rpm"), 2);
    proxy.served("acme", BODY, 1, 1);
    let refused = proxy.chat("acme", BODY);
    assert_eq!(refused.refused(), Some((429, "bucket_empty")));
    assert_eq!(refused.reply_header("x-bursar-limit"), Some("rpm"));
    assert_eq!(refused.reply_header("retry-after"), Some("20"));
    assert_eq!(
        refused.reply_header("x-ratelimit-limit-requests"),
        Some("3")
    );
    assert_eq!(
        refused.reply_header("x-ratelimit-remaining-requests"),
        Some("0")
    );
    proxy.pass_millis(20_000);
    assert_eq!(proxy.chat("acme", BODY).refused(), None);
}

#[test]
fn as_many_requests_as_may_be_are_in_flight_and_a_slot_is_free_again_however_one_ends() {
    let proxy = Proxy::new(&with(json!({"concurrency": 2})));
    let mut answered = proxy.chat("acme", BODY);
    let mut left = proxy.chat("acme", BODY);
    let refused = proxy.chat("acme", BODY);
    assert_eq!(refused.refused(), Some((429, "concurrency")));
    assert_eq!(refused.reply_header("x-bursar-limit"), Some("concurrency"));
    assert_eq!(refused.reply_header("retry-after"), Some("1"));
    answered.answer_json(&usage(5, 5));
    answered.end();
    let lost = proxy.chat("acme", BODY);
    assert_eq!(lost.refused(), None);
    left.end();
    assert_eq!(account(&proxy, "concurrency").1, 1);
    // The worker of the third traps: nobody gives its slot back, until it expires.
    drop(lost);
    proxy.pass_millis(1_800_000);
    let again = [(); 2].map(|()| proxy.chat("acme", BODY));
    assert!(again.iter().all(|call| call.reply.is_none()));
    assert_eq!(account(&proxy, "concurrency"), (0, 2));
}

#[test]
fn a_spent_limit_of_some_models_lowers_and_refuses_only_where_no_lower_tier_is_open() {
    let limits = json!([{"name": "big", "models": ["gpt-4o"], "budget": day(100)}]);
    let proxy = Proxy::new(&with(json!({"limits": limits})));
    proxy.served("acme", BODY, 80, 20);
    let lowered = proxy.chat("acme", BODY);
    assert_eq!(lowered.refused(), None);
    assert!(lowered.upstream_text().contains("gpt-4o-mini"));
    assert_eq!(account(&proxy, "big"), (100, 0));
    drop(lowered);
    let kept = with(json!({"limits": limits, "never_downgrade": true}));
    proxy.configure(&kept);
    let refused = proxy.chat("acme", BODY);
    assert_eq!(refused.refused(), Some((429, "budget_exhausted")));
    assert_eq!(refused.reply_header("x-bursar-limit"), Some("big"));
    let other = proxy.chat("acme", r#"{"model":"gpt-4o-mini","max_tokens":1}"#);
    assert_eq!(other.refused(), None);
}

#[test]
fn the_emptiest_budget_moves_a_request_down() {
    let limits = json!([{"name": "hour", "budget": {"initial_budget": 400, "window": "hour"}}]);
    let proxy = Proxy::new(&with(json!({"limits": limits, "budget": day(100_000)})));
    proxy.served("acme", BODY, 330, 0);
    let lowered = proxy.chat("acme", BODY);
    assert_eq!(lowered.refused(), None);
    assert!(lowered.upstream_text().contains("gpt-4o-mini"));
}

#[test]
fn spend_outlives_a_limit_that_is_removed_and_put_back_or_moved_in_the_list() {
    let two = json!([{"name": "day", "budget": day(1_000)}, {"name": "week", "budget": {"initial_budget": 5_000, "window": "week"}}]);
    let proxy = Proxy::new(&with(json!({"limits": two})));
    proxy.served("acme", BODY, 100, 0);
    proxy.configure(&with(json!({"limits": [two[1]]})));
    proxy.served("acme", BODY, 10, 0);
    proxy.configure(&with(json!({"limits": [two[1], two[0]]})));
    proxy.served("acme", BODY, 1, 0);
    assert_eq!(account(&proxy, "day"), (101, 0));
    assert_eq!(account(&proxy, "week"), (111, 0));
}

// A window that was pushed by mistake, and two listeners with one `vm_id` and different windows.
#[test]
fn the_windows_of_two_configurations_do_not_disturb_each_other() {
    let daily =
        with(json!({"budget": day(1_000), "limits": [{"name": "x", "budget": day(1_000)}]}));
    let mut short = daily.clone();
    short["tenants"]["acme"]["budget"]["window"] = "6s".into();
    short["tenants"]["acme"]["limits"][0]["budget"]["window"] = "6s".into();
    let proxy = Proxy::new(&daily);
    proxy.served("acme", BODY, 500, 0);
    proxy.configure(&short);
    // What was spent today may have been spent in these six seconds.
    proxy.served("acme", BODY, 100, 0);
    assert_eq!(proxy.record("acme").account.spent.tokens, Tokens(600));
    proxy.pass_millis(6_000);
    proxy.served("acme", BODY, 100, 0);
    assert_eq!(proxy.record("acme").account.spent.tokens, Tokens(100));
    for _ in 0..3 {
        proxy.configure(&daily);
        proxy.pass_millis(6_000);
        let refused = proxy.chat("acme", r#"{"model":"gpt-4o","max_tokens":300}"#);
        assert_eq!(
            refused.refused(),
            Some((429, "budget_exhausted")),
            "700 are spent today"
        );
        proxy.configure(&short);
        let served = proxy.chat("acme", r#"{"model":"gpt-4o","max_tokens":300}"#);
        assert_eq!(served.refused(), None);
    }
    proxy.configure(&daily);
    let mut call = proxy.chat("acme", BODY);
    proxy.configure(&short);
    let other = proxy.chat("acme", BODY);
    call.answer_json(&usage(7, 0));
    call.end();
    drop(other);
    proxy.configure(&daily);
    proxy.served("acme", BODY, 1, 0);
    let record = proxy.record("acme");
    assert_eq!(record.account.spent.tokens, Tokens(708));
    assert_eq!(account(&proxy, "x").0, 708);
}

#[test]
fn a_tenants_limit_changes_its_plans_key_by_key_and_off_removes_one() {
    let mut config = with(json!({"plan": "team", "limits": [
        {"name": "day", "budget": {"initial_budget": 70}},
        {"name": "rpm", "off": true},
        {"name": "bucket", "off": true},
    ]}));
    config["plans"] = json!({"team": {
        "bucket": {"tokens_per_window": 1, "window": "1h"},
        "limits": [
            {"name": "day", "budget": day(1_000)},
            {"name": "rpm", "bucket": {"requests_per_window": 1, "window": "1h"}},
        ]
    }});
    let proxy = Proxy::new(&config);
    proxy.served("acme", BODY, 5, 5);
    proxy.served("acme", BODY, 5, 5);
    let refused = proxy.chat("acme", BODY);
    assert_eq!(refused.reply_header("x-bursar-limit"), Some("day"));
    assert_eq!(refused.reply_header("x-ratelimit-limit-tokens"), Some("70"));
}

#[test]
fn what_a_request_uses_beyond_its_hold_is_owed_by_the_next_window() {
    let proxy = Proxy::new(&with(
        json!({"limits": [{"name": "day", "budget": day(1_000)}]}),
    ));
    // Ten tokens were reserved, and a thousand more are reported than there are.
    proxy.served("acme", BODY, 1_900, 100);
    assert_eq!(account(&proxy, "day").0, 2_000);
    proxy.pass_millis(43_200_000);
    // One budget at the most.
    assert_eq!(
        proxy.chat("acme", BODY).refused(),
        Some((429, "budget_exhausted"))
    );
    proxy.pass_millis(86_400_000);
    let mut late = proxy.chat("acme", BODY);
    assert_eq!(late.refused(), None);
    proxy.pass_millis(86_400_000);
    late.answer_json(&usage(58, 300));
    late.end();
    let next = proxy.chat("acme", r#"{"model":"gpt-4o","max_tokens":700}"#);
    assert_eq!(next.refused(), Some((429, "budget_exhausted")));
    drop(proxy.chat("acme", BODY));
    // What it had held was the day before's.
    assert_eq!(account(&proxy, "day").0, 300);
}

#[test]
fn what_a_window_leaves_is_carried_over_up_to_a_share() {
    let limits = json!([{"name": "day", "budget": {"initial_budget": 1_000, "window": "day", "rollover": 0.5}}]);
    let proxy = Proxy::new(&with(json!({"limits": limits})));
    // Whether a request fits that may use so many, which then comes to nothing.
    let fits = |tokens: usize| {
        let body = |output: usize| format!(r#"{{"model":"gpt-4o-mini","max_tokens":{output}}}"#);
        let length = body(if tokens < 1_040 { 100 } else { 1_000 }).len();
        let mut call = proxy.chat("acme", &body(tokens - length));
        let is_admitted = call.reply.is_none();
        if is_admitted {
            call.answer_headers("503", &[]);
            call.end();
        }
        is_admitted
    };
    assert!(!fits(1_001));
    proxy.served("acme", BODY, 700, 0);
    proxy.pass_millis(43_200_000);
    assert!(fits(1_300) && !fits(1_301), "300 were left");
    proxy.pass_millis(86_400_000);
    assert!(fits(1_500) && !fits(1_501), "more than half was left");
    proxy.pass_millis(10 * 86_400_000);
    assert!(fits(1_500) && !fits(1_501), "of a day that nobody used");
}

// It is spent in the window that it was reserved in, when it comes back in the next one.
#[test]
fn what_is_in_flight_over_a_windows_end_is_not_left_for_the_next_one() {
    let limits = json!([{"name": "day", "budget": {"initial_budget": 1_000, "window": "day", "rollover": 1}}]);
    let proxy = Proxy::new(&with(json!({"limits": limits})));
    let body = |output: u64| format!(r#"{{"model":"gpt-4o-mini","max_tokens":{output}}}"#);
    proxy.pass_millis(43_200_000 - 1);
    let mut late = proxy.chat("acme", &body(560));
    assert_eq!(account(&proxy, "day"), (0, 600));
    proxy.pass_millis(1);
    let fits = |tokens: u64| proxy.chat("acme", &body(tokens - 41)).refused().is_none();
    assert!(!fits(1_401));
    late.answer_json(&usage(40, 560));
    late.end();
    assert!(!fits(1_401) && fits(1_400));
}

// A request that used more than was held for it, and what the budget still held then for another one, do not both fit.
#[test]
fn what_is_owed_is_reckoned_with_what_is_in_flight_over_a_windows_end() {
    let limits = json!([{"name": "day", "budget": {"initial_budget": 1_000, "window": "day"}}]);
    let proxy = Proxy::new(&with(json!({"limits": limits})));
    let body = |output: u64| format!(r#"{{"model":"gpt-4o-mini","max_tokens":{output}}}"#);
    proxy.pass_millis(43_200_000 - 1);
    // It uses all that was held for it, in the next window; or half of it, in this one.
    for (tokens, owed) in [(400, 200), (200, 0)] {
        let mut first = proxy.chat("acme", &body(360));
        let mut long = proxy.chat("acme", &body(560));
        assert_eq!((first.refused(), long.refused()), (None, None));
        // 200 beyond its hold.
        long.answer_json(&usage(40, 760));
        long.end();
        if tokens == 400 {
            proxy.pass_millis(1);
        }
        first.answer_json(&usage(40, tokens - 40));
        first.end();
        if tokens == 200 {
            proxy.pass_millis(1);
        }
        proxy.served("acme", &body(100), 0, 0);
        assert_eq!(account(&proxy, "day"), (owed, 0));
        proxy.pass_millis(2 * 86_400_000 - 1);
    }
}

#[test]
fn a_raise_ends_by_itself() {
    let extra = json!({"amount": 500, "until": "2024-02-29T18:00:00Z"});
    let limits = json!([{"name": "day", "budget": {"initial_budget": 1_000, "window": "day", "extra": extra}}]);
    let proxy = Proxy::new(&with(json!({"limits": limits})));
    proxy.served("acme", BODY, 1_200, 0);
    assert_eq!(proxy.chat("acme", BODY).refused(), None);
    proxy.pass_millis(6 * 3_600_000);
    assert_eq!(
        proxy.chat("acme", BODY).refused(),
        Some((429, "budget_exhausted"))
    );
}

#[test]
fn an_idle_window_ends_so_long_after_its_last_request() {
    let limits =
        json!([{"name": "run", "budget": {"initial_budget": 1_000, "window": {"idle": "2h"}}}]);
    let proxy = Proxy::new(&with(json!({"limits": limits})));
    for _ in 0..4 {
        proxy.served("acme", BODY, 240, 0);
        proxy.pass_millis(7_000_000);
    }
    let refused = proxy.chat("acme", BODY);
    assert_eq!(refused.refused(), Some((429, "budget_exhausted")));
    assert_eq!(refused.reply_header("retry-after"), Some("7200"));
    proxy.pass_millis(7_200_000);
    assert_eq!(proxy.chat("acme", BODY).refused(), None);
    assert_eq!(account(&proxy, "run").0, 0);
}

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
