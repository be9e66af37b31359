//! Upstreams that say no: whole exchanges against a fake store and a fake clock.

mod alone;
mod left;

use crate::proxy::{Call, Proxy, usage};
use bursar::health::pressed::PressureView;
use bursar::state::store::PRESSURE_KEY;
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Three tiers, and tenants that may go down them as far as they may.
fn config() -> Value {
    json!({
        "hold_headers": true,
        "tiers": [
            {"name": "default", "model": "big"},
            {"name": "standard", "model": "middle", "below": 0.5},
            {"name": "compact", "model": "small", "below": 0.2}
        ],
        "tenants": {
            "acme": {},
            "globex": {"budget": {"initial_budget": 100000, "window": "day"}},
            "floored": {"floor": "standard"},
            "shy": {"shadow": true},
            "loyal": {"never_downgrade": true},
            "rushed": {"sla": {"p95_ms": 1000}}
        }
    })
}

const BODY: &str = r#"{"model":"big","max_tokens":10}"#;
const STREAMED: &str = r#"{"model":"big","max_tokens":10,"stream":true}"#;
const DEFAULT: &str = "default admit";
const STANDARD: &str = "standard downgrade upstream_limited";

fn body(model: &str) -> String {
    BODY.replace("big", model)
}

fn told(call: &Call<'_>) -> String {
    let told = ["x-bursar-tier", "x-bursar-decision", "x-bursar-reason"]
        .map(|name| call.response_header(name).unwrap_or_default());
    told.join(" ").trim_end().to_owned()
}

/// Tier, decision and reason of a request that is served at once.
fn served(proxy: &Proxy, tenant: &str) -> String {
    let mut call = proxy.chat(tenant, BODY);
    call.answer_json(&usage(1, 1));
    call.end();
    told(&call)
}

/// The tier that a request is sent to, which nobody answers.
fn goes_to(proxy: &Proxy, tenant: &str) -> String {
    let mut call = proxy.chat(tenant, BODY);
    let tier = call.upstream_header("x-bursar-tier").unwrap().to_owned();
    call.end();
    tier
}

/// Answers with an error.
fn refuse(call: &mut Call<'_>, status: &str, headers: &[(&str, &str)], body: &str) {
    call.answer_headers(status, headers);
    call.answer_chunk(body.as_bytes(), true);
    call.end();
}

fn refused<'a>(proxy: &'a Proxy, model: &str, status: &str, headers: &[(&str, &str)]) -> Call<'a> {
    let mut call = proxy.chat("acme", &body(model));
    refuse(&mut call, status, headers, "{}");
    call
}

fn refusals(proxy: &Proxy, tier: &str, model: &str, kind: &str) -> u64 {
    proxy.metric(&format!(
        "bursar_upstream_refusals_total.tier=.={tier};.;model=.={model};.;kind=.={kind};.;"
    ))
}

fn pressed(proxy: &Proxy, tier: &str, model: &str) -> u64 {
    proxy.metric(&format!(
        "bursar_tier_pressed.tier=.={tier};.;model=.={model};.;"
    ))
}

#[test]
fn a_tier_whose_upstream_says_no_is_left_until_it_said_and_healed_by_a_success() {
    let proxy = Proxy::new(&config());
    let first = refused(&proxy, "big", "429", &[("retry-after", "20")]);
    assert_eq!(first.fields["bursar_upstream_refusal"], "rate_limit");
    assert_eq!(refusals(&proxy, "default", "big", "rate_limit"), 1);
    assert_eq!(pressed(&proxy, "default", "big"), 1);
    for tenant in ["acme", "globex", "floored"] {
        assert_eq!(served(&proxy, tenant), STANDARD);
    }
    // These are not lowered, and get whatever the upstream says.
    assert_eq!(goes_to(&proxy, "loyal"), "default");
    let mut shadowed = proxy.chat("shy", BODY);
    refuse(&mut shadowed, "429", &[("retry-after", "1")], "{}");
    assert_eq!(
        shadowed.response_header("x-bursar-shadow"),
        Some("downgrade;tier=standard;model=middle;reason=upstream_limited")
    );
    assert_eq!(shadowed.response_header("retry-after"), Some("1"));
    // Up to a second later, so that not all come at once.
    proxy.pass_millis(19_999);
    assert_eq!(served(&proxy, "acme"), STANDARD);
    proxy.pass_millis(1_001);
    // One goes to see, the others wait for what it finds.
    let mut probe = proxy.chat("acme", BODY);
    assert_eq!(probe.upstream_header("x-bursar-tier"), Some("default"));
    assert_eq!(served(&proxy, "acme"), STANDARD);
    probe.answer_json(&usage(1, 1));
    probe.end();
    assert_eq!(told(&probe), DEFAULT);
    assert_eq!(pressed(&proxy, "default", "big"), 0);
    assert_eq!(served(&proxy, "acme"), DEFAULT);
}

#[test]
fn the_callers_own_retry_finds_the_next_tier() {
    let proxy = Proxy::new(&config());
    let headers = [
        ("retry-after", "20"),
        ("retry-after-ms", "20000"),
        ("x-ms-retry-after-ms", "20000"),
        ("x-should-retry", "false"),
    ];
    let first = refused(&proxy, "big", "429", &headers);
    assert_eq!(told(&first), "default admit upstream_limited");
    assert_eq!(first.fields["bursar_reason"], "upstream_limited");
    assert_eq!(first.response_header("retry-after"), Some("1"));
    assert_eq!(first.response_header("x-should-retry"), Some("true"));
    assert_eq!(first.response_header("x-ms-retry-after-ms"), None);
    let millis: u64 = first
        .response_header("retry-after-ms")
        .unwrap()
        .parse()
        .unwrap();
    assert!((100..=500).contains(&millis));
    assert_eq!(served(&proxy, "acme"), STANDARD);
    // What the first call held is given back: nothing is charged twice.
    let mut call = proxy.chat("globex", BODY);
    let before = proxy.record("globex").account.spent.tokens.0;
    refuse(&mut call, "429", &[], "{}");
    let account = proxy.record("globex").account;
    assert_eq!(
        (account.spent.tokens.0, account.held().tokens.0),
        (before, 0)
    );
}

#[test]
fn where_no_lower_tier_is_open_the_upstreams_answer_goes_back_as_it_is() {
    let proxy = Proxy::new(&config());
    for (tenant, model) in [
        ("loyal", "big"),
        ("acme", "small"),
        ("shy", "big"),
        ("floored", "middle"),
    ] {
        let mut call = proxy.chat(tenant, &body(model));
        refuse(&mut call, "429", &[("retry-after", "20")], "{}");
        assert_eq!(call.response_header("retry-after"), Some("20"), "{tenant}");
        assert_eq!(call.response_header("retry-after-ms"), None);
        assert_eq!(call.response_header("x-should-retry"), None);
        assert_eq!(call.response_header("x-bursar-reason"), None);
    }
}

#[test]
fn a_ladder_that_says_no_at_every_tier_ends_with_the_upstreams_answer() {
    let proxy = Proxy::new(&config());
    let mut tiers = Vec::new();
    // As an SDK that tries as long as it is told to.
    loop {
        let mut call = proxy.chat("acme", BODY);
        tiers.push(call.upstream_header("x-bursar-tier").unwrap().to_owned());
        refuse(&mut call, "429", &[("retry-after", "20")], "{}");
        if call.response_header("x-should-retry") != Some("true") {
            assert_eq!(call.response_header("retry-after"), Some("20"));
            break;
        }
        proxy.pass_millis(200);
    }
    assert_eq!(tiers, ["default", "standard", "compact"]);
    // From now on the answer is that of what was asked for.
    assert_eq!(goes_to(&proxy, "acme"), "default");
    // Never up.
    let mut call = proxy.chat("acme", &body("small"));
    call.answer_json(&usage(1, 1));
    assert_eq!(told(&call), "compact admit");
}

#[test]
fn the_proxys_own_answers_and_errors_of_the_request_say_nothing_of_the_upstream() {
    let proxy = Proxy::new(&config());
    proxy.is_local.set(true);
    for status in ["503", "504", "429"] {
        for _ in 0..3 {
            let call = refused(&proxy, "big", status, &[]);
            assert_eq!(call.response_header("x-should-retry"), None);
        }
    }
    proxy.is_local.set(false);
    for status in ["400", "401", "403", "404", "413"] {
        refused(&proxy, "big", status, &[]);
    }
    // A request that no quota has room for, whoever's it is.
    let mut large = proxy.chat("acme", BODY);
    let error = r#"{"error":{"message":"Request too large for big: Limit 1, Requested 2","code":"rate_limit_exceeded"}}"#;
    refuse(&mut large, "429", &[], error);
    assert_eq!(proxy.store.value(PRESSURE_KEY), None);
    assert_eq!(served(&proxy, "acme"), DEFAULT);
}

#[test]
fn each_kind_of_no_presses_for_its_own_time() {
    let quota = r#"{"error":{"code":"insufficient_quota","type":"insufficient_quota"}}"#;
    let google = r#"{"error":{"code":429,"details":[{"retryDelay":"30s"}]}}"#;
    for (status, headers, body, kind, seconds) in [
        ("429", &[][..], "", "rate_limit", 5),
        ("503", &[], "", "overloaded", 5),
        ("529", &[], "", "overloaded", 5),
        ("429", &[], google, "rate_limit", 30),
        ("429", &[("retry-after", "40")], google, "rate_limit", 40),
        ("429", &[], quota, "quota", 300),
        ("402", &[], "", "quota", 300),
        (
            "400",
            &[],
            r#"{"error":{"message":"Your credit balance is too low"}}"#,
            "quota",
            300,
        ),
    ] {
        let proxy = Proxy::new(&config());
        let mut call = proxy.chat("acme", BODY);
        refuse(&mut call, status, headers, body);
        assert_eq!(
            refusals(&proxy, "default", "big", kind),
            1,
            "{status} {body}"
        );
        assert_eq!(call.fields["bursar_upstream_refusal"], kind);
        proxy.pass_millis(seconds * 1_000 - 1);
        assert_eq!(goes_to(&proxy, "acme"), "standard", "{status} {body}");
        proxy.pass_millis(1_001);
        assert_eq!(goes_to(&proxy, "acme"), "default", "{status} {body}");
    }
}

#[test]
fn another_error_presses_when_it_came_three_times_in_a_row() {
    let proxy = Proxy::new(&config());
    for status in ["500", "502"] {
        refused(&proxy, "big", status, &[]);
    }
    assert_eq!(served(&proxy, "acme"), DEFAULT);
    for status in ["500", "502"] {
        refused(&proxy, "big", status, &[]);
        assert_eq!(goes_to(&proxy, "acme"), "default");
    }
    refused(&proxy, "big", "500", &[]);
    assert_eq!(served(&proxy, "acme"), STANDARD);
    assert_eq!(refusals(&proxy, "default", "big", "failed"), 5);
}

#[test]
fn an_error_in_a_stream_before_any_output_is_a_no() {
    let overloaded = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
    for size in [1, 7, 4_096] {
        let proxy = Proxy::new(&config());
        let mut call = proxy.chat("acme", STREAMED);
        call.answer_headers("200", &[("content-type", "text/event-stream")]);
        let chunks: Vec<_> = overloaded.as_bytes().chunks(size).collect();
        for chunk in &chunks {
            call.answer_chunk(chunk, false);
        }
        call.answer_chunk(b"", true);
        call.end();
        assert_eq!(
            refusals(&proxy, "default", "big", "overloaded"),
            1,
            "{size}"
        );
        assert_eq!(served(&proxy, "acme"), STANDARD);
    }
    // Once there is some, it says nothing of the next request.
    let proxy = Proxy::new(&config());
    let mut call = proxy.chat("acme", STREAMED);
    call.answer_headers("200", &[("content-type", "text/event-stream")]);
    call.answer_chunk(
        b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n",
        false,
    );
    call.answer_chunk(overloaded.as_bytes(), true);
    call.end();
    assert_eq!(served(&proxy, "acme"), DEFAULT);
}

#[test]
fn an_answer_that_ends_with_its_client_is_heard_as_far_as_it_came() {
    let proxy = Proxy::new(&config());
    let mut call = proxy.chat("acme", BODY);
    call.answer_headers("429", &[("retry-after", "20")]);
    call.answer_chunk(b"{\"error\":", false);
    assert_eq!(goes_to(&proxy, "acme"), "default");
    call.end();
    assert_eq!(served(&proxy, "acme"), STANDARD);
}

#[test]
fn a_probe_that_comes_to_nothing_leaves_it_to_the_next_request() {
    let proxy = Proxy::new(&config());
    refused(&proxy, "big", "429", &[("retry-after", "2")]);
    proxy.pass_millis(3_000);
    // Its client leaves, the request is wrong, the proxy cannot reach the upstream.
    let mut left = proxy.chat("acme", BODY);
    assert_eq!(left.upstream_header("x-bursar-tier"), Some("default"));
    left.end();
    proxy.pass_millis(1);
    let mut wrong = proxy.chat("acme", BODY);
    assert_eq!(wrong.upstream_header("x-bursar-tier"), Some("default"));
    refuse(&mut wrong, "404", &[], "{}");
    proxy.pass_millis(1);
    proxy.is_local.set(true);
    let mut unreached = proxy.chat("acme", BODY);
    assert_eq!(unreached.upstream_header("x-bursar-tier"), Some("default"));
    refuse(&mut unreached, "503", &[], "");
    proxy.is_local.set(false);
    proxy.pass_millis(1);
    let mut last = proxy.chat("acme", BODY);
    assert_eq!(last.upstream_header("x-bursar-tier"), Some("default"));
    assert_eq!(goes_to(&proxy, "acme"), "standard");
    last.answer_json(&usage(1, 1));
    last.end();
    assert_eq!(served(&proxy, "acme"), DEFAULT);
}

#[test]
fn of_a_burst_some_are_served_and_that_heals_nothing() {
    let proxy = Proxy::new(&config());
    let mut early = proxy.chat("acme", BODY);
    proxy.pass_millis(1);
    refused(&proxy, "big", "429", &[("retry-after", "20")]);
    early.answer_json(&usage(1, 1));
    early.end();
    assert_eq!(served(&proxy, "acme"), STANDARD);
    // One that cannot be lowered, and was sent since, does.
    let mut later = proxy.chat("loyal", BODY);
    later.answer_json(&usage(1, 1));
    later.end();
    assert_eq!(served(&proxy, "acme"), DEFAULT);
}

#[test]
fn all_workers_know_before_the_first_retry() {
    let proxy = Proxy::new(&config());
    let other = PressureView::default();
    let switch = |view: &PressureView| proxy.pressed.replace(view.clone());
    let here = switch(&other);
    assert_eq!(goes_to(&proxy, "acme"), "default");
    switch(&here);
    refused(&proxy, "big", "429", &[]);
    switch(&other);
    proxy.pass_millis(100);
    assert_eq!(served(&proxy, "acme"), STANDARD);
}

#[test]
fn a_callers_own_key_presses_nobody_else() {
    let mut own = config();
    own["credentials"] = "own".into();
    let proxy = Proxy::new(&own);
    let chat = |key: &str| {
        let length = BODY.len().to_string();
        let headers = [
            ("x-tenant-id", "acme"),
            ("authorization", key),
            ("content-length", &length),
        ];
        let mut call = proxy.post(&headers);
        call.send(&[BODY.as_bytes()]);
        call
    };
    let mut first = chat("Bearer a");
    refuse(&mut first, "429", &[("retry-after", "20")], "{}");
    assert_eq!(
        chat("Bearer a").upstream_header("x-bursar-tier"),
        Some("standard")
    );
    assert_eq!(
        chat("Bearer b").upstream_header("x-bursar-tier"),
        Some("default")
    );
    let mut second = chat("Bearer b");
    refuse(&mut second, "429", &[("retry-after", "20")], "{}");
    assert_eq!(pressed(&proxy, "default", "big"), 2);
    // Where the proxy has one key for all, whatever callers show is none of the provider's.
    own["tiers"][0]["credentials"] = "shared".into();
    proxy.configure(&own);
    assert_eq!(
        chat("Bearer a").upstream_header("x-bursar-tier"),
        Some("default")
    );
}

#[test]
fn another_model_of_the_same_tier_is_not_pressed() {
    let mut globs = config();
    let tiers = globs["tiers"].take();
    globs["ladders"] = json!([{"match": ["big-*"], "tiers": tiers}]);
    globs.as_object_mut().unwrap().remove("tiers");
    let proxy = Proxy::new(&globs);
    let goes = |model: &str| {
        let mut call = proxy.chat("acme", &body(model));
        call.end();
        call.upstream_header("x-bursar-tier").unwrap().to_owned()
    };
    refused(&proxy, "big-1", "429", &[("retry-after", "20")]);
    assert_eq!(goes("big-1"), "standard");
    assert_eq!(goes("big-2"), "default");
    assert_eq!(goes("big"), "default");
    assert_eq!(refusals(&proxy, "default", "other", "rate_limit"), 1);
}

#[test]
fn a_ladder_of_one_tier_reads_and_writes_nothing_and_is_counted_all_the_same() {
    let mut single = config();
    single["tiers"].as_array_mut().unwrap().truncate(1);
    single["tenants"] = json!({"acme": {}});
    let proxy = Proxy::new(&single);
    let call = refused(&proxy, "big", "429", &[("retry-after", "20")]);
    assert_eq!(call.response_header("retry-after"), Some("20"));
    assert_eq!(refusals(&proxy, "default", "big", "rate_limit"), 1);
    assert_eq!(proxy.store.value(PRESSURE_KEY), None);
}

#[test]
fn while_nothing_is_pressed_frequent_requests_read_nothing_more() {
    let mut plain = config();
    plain["tenants"] = json!({"acme": {}});
    let proxy = Proxy::new(&plain);
    served(&proxy, "acme");
    let before = proxy.store.calls();
    for _ in 0..100 {
        served(&proxy, "acme");
    }
    let many = proxy.store.calls() - before;
    plain["tiers"].as_array_mut().unwrap().truncate(1);
    let proxy = Proxy::new(&plain);
    served(&proxy, "acme");
    let before = proxy.store.calls();
    for _ in 0..100 {
        served(&proxy, "acme");
    }
    assert_eq!(many, proxy.store.calls() - before);
}
