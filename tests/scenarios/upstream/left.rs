//! What an upstream says that is left: what callers read of it, and how tenants share it.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// What a caller reads of what is left: (limit, remaining, reset).
fn left<'a>(call: &'a Call<'_>, of: &str) -> [Option<&'a str>; 3] {
    ["limit", "remaining", "reset"]
        .map(|what| call.response_header(&format!("x-ratelimit-{what}-{of}")))
}

#[test]
fn of_what_is_left_of_the_tenants_and_the_upstreams_the_least_is_told() {
    let proxy = Proxy::new(&config());
    let upstreams = |limit: &'static str, left: &'static str| {
        [
            ("content-type", "application/json"),
            ("x-ratelimit-limit-tokens", limit),
            ("x-ratelimit-remaining-tokens", left),
            ("x-ratelimit-reset-tokens", "6m0s"),
            ("x-ratelimit-remaining-requests", "7"),
        ]
    };
    let told = |tenant: &str, headers: &[(&str, &str)]| {
        let mut call = proxy.chat(tenant, BODY);
        call.answer_headers("200", headers);
        call.answer_chunk(usage(1, 1).as_bytes(), true);
        call.end();
        call
    };
    // Of 100,000 the request holds 41.
    let less = told("globex", &upstreams("500000", "99958"));
    assert_eq!(
        left(&less, "tokens"),
        [Some("500000"), Some("99958"), Some("6m0s")]
    );
    assert_eq!(left(&less, "requests")[1], Some("7"));
    let more = told("globex", &upstreams("500000", "400000"));
    assert_eq!(left(&more, "tokens")[0], Some("100000"));
    // One without a limit in tokens has the upstream's.
    let none = told("acme", &upstreams("500000", "400000"));
    assert_eq!(
        left(&none, "tokens"),
        [Some("500000"), Some("400000"), Some("6m0s")]
    );
    // Anthropic's are told in OpenAI's form as well.
    let anthropic = [
        ("anthropic-ratelimit-tokens-limit", "80000"),
        ("anthropic-ratelimit-tokens-remaining", "5"),
        ("anthropic-ratelimit-tokens-reset", "2024-02-29T12:00:30Z"),
    ];
    let call = told("globex", &anthropic);
    assert_eq!(
        left(&call, "tokens"),
        [Some("80000"), Some("5"), Some("30s")]
    );
    assert_eq!(
        call.response_header("anthropic-ratelimit-tokens-remaining"),
        Some("5")
    );
}

#[test]
fn no_false_remainder_stands_beside_a_providers_no() {
    let proxy = Proxy::new(&config());
    let mut call = proxy.chat("globex", BODY);
    refuse(&mut call, "429", &[("retry-after", "20")], "{}");
    assert_eq!(left(&call, "tokens"), [None; 3]);
    // The tenant's own limits are listed all the same, by their names.
    assert!(
        call.response_header("ratelimit")
            .unwrap()
            .starts_with("\"budget\";r=")
    );
    let mut call = proxy.chat("globex", &body("small"));
    refuse(
        &mut call,
        "429",
        &[("x-ratelimit-remaining-tokens", "0")],
        "{}",
    );
    assert_eq!(left(&call, "tokens"), [None, Some("0"), None]);
}

/// The first tier's capacity is what its upstream says; `acme` matters most, `crowd` least.
fn learning() -> Value {
    let mut learning = config();
    learning["tiers"][0]["capacity"] =
        json!({"from": "upstream", "reserved": {"critical": 0.3, "standard": 0.2}});
    learning["tenants"] = json!({
        "acme": {"priority": "critical"},
        "globex": {"priority": "standard"},
        "crowd": {"priority": "best_effort"}
    });
    learning
}

/// The tier that served, of an upstream with so much left of 1,000 tokens.
fn served_with(proxy: &Proxy, tenant: &str, left: &str) -> String {
    let mut call = proxy.chat(tenant, BODY);
    let tier = call
        .upstream_header("x-bursar-tier")
        .unwrap_or("none")
        .to_owned();
    let headers = [
        ("content-type", "application/json"),
        ("x-ratelimit-limit-tokens", "1000"),
        ("x-ratelimit-remaining-tokens", left),
    ];
    call.answer_headers(
        "200",
        if tier == "default" {
            &headers
        } else {
            &headers[..1]
        },
    );
    call.answer_chunk(usage(1, 1).as_bytes(), true);
    call.end();
    tier
}

#[test]
fn what_an_upstream_has_left_is_shared_by_priority_before_it_refuses() {
    let proxy = Proxy::new(&learning());
    // Nothing is known yet.
    assert_eq!(served_with(&proxy, "crowd", "600"), "default");
    assert_eq!(served_with(&proxy, "crowd", "505"), "default");
    let gauge = "bursar_capacity_remaining.tier=.=default;.;model=.=big;.;";
    assert_eq!(proxy.metric(gauge), 505);
    // A request takes 18 of what is expected: less than half of it is not for the crowd, whoever has used the rest.
    assert_eq!(goes_to(&proxy, "crowd"), "standard");
    assert_eq!(served_with(&proxy, "globex", "310"), "default");
    assert_eq!(goes_to(&proxy, "globex"), "standard");
    assert_eq!(served_with(&proxy, "acme", "290"), "default");
    // It comes back within a minute, and what nobody told of for long is not known.
    proxy.pass_millis(30_000);
    assert_eq!(goes_to(&proxy, "crowd"), "default");
}

#[test]
fn a_failed_request_gives_back_and_a_refused_one_says_that_nothing_is_left() {
    let proxy = Proxy::new(&learning());
    served_with(&proxy, "crowd", "600");
    let gauge = "bursar_capacity_remaining.tier=.=default;.;model=.=big;.;";
    let mut failed = proxy.chat("crowd", BODY);
    refuse(&mut failed, "400", &[], "{}");
    assert_eq!(proxy.metric(gauge), 600);
    let mut limited = proxy.chat("crowd", BODY);
    let headers = [
        ("x-ratelimit-limit-tokens", "1000"),
        ("x-ratelimit-remaining-tokens", "0"),
    ];
    refuse(&mut limited, "429", &headers, "{}");
    assert_eq!(proxy.metric(gauge), 0);
}

#[test]
fn an_upstream_that_says_nothing_limits_nobody() {
    let proxy = Proxy::new(&learning());
    for _ in 0..100 {
        let mut call = proxy.chat("crowd", BODY);
        call.answer_json(&usage(1, 1));
        call.end();
        assert_eq!(told(&call), DEFAULT);
    }
    assert_eq!(served_with(&proxy, "crowd", "10"), "default");
    assert_eq!(goes_to(&proxy, "crowd"), "standard");
    proxy.pass_millis(600_000);
    assert_eq!(goes_to(&proxy, "crowd"), "default");
}
