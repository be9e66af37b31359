//! Tiers whose answers begin too late: whole exchanges against a fake store and a fake clock.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a failed set-up is a failed test"
)]

#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/store.rs"]
mod store;

use bursar::store::latency_key;
use proxy::{Call, Proxy, usage};
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Three tiers; `acme` wants its answers to begin within a second, `patient` within ten, and `other` does not mind.
fn config() -> Value {
    json!({
        "hold_headers": true,
        "tiers": [
            {"name": "default", "model": "big"},
            {"name": "standard", "model": "middle", "below": 0.5},
            {"name": "compact", "model": "small", "below": 0.2}
        ],
        "tenants": {
            "acme": {"sla": {"p95_ms": 1000}},
            "patient": {"sla": {"p95_ms": 10000}},
            "poor": {"sla": {"p95_ms": 1000}, "budget": {"initial_budget": 1000, "window": "day"}},
            "shy": {"sla": {"p95_ms": 1000}, "shadow": true},
            "loyal": {"sla": {"p95_ms": 1000}, "never_downgrade": true},
            "other": {}
        }
    })
}

const BODY: &str = r#"{"model":"big","max_tokens":10}"#;
const STREAMED: &str = r#"{"model":"big","max_tokens":10,"stream":true}"#;
const EVENT: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\n";
const ENOUGH: usize = 20;

fn body(model: &str) -> String {
    BODY.replace("big", model)
}

/// So many requests at once, all answered after so long.
fn answered_after(proxy: &Proxy, tenant: &str, body: &str, requests: usize, millis: u64) {
    let calls: Vec<_> = (0..requests).map(|_| proxy.chat(tenant, body)).collect();
    proxy.pass_millis(millis);
    for mut call in calls {
        call.answer_json(&usage(1, 1));
        call.end();
    }
}

/// Tier, decision and reason of a request that is answered at once.
fn told(call: &mut Call<'_>) -> String {
    call.answer_json(&usage(1, 1));
    call.end();
    let told = ["x-bursar-tier", "x-bursar-decision", "x-bursar-reason"]
        .map(|name| call.response_header(name).unwrap_or_default());
    told.join(" ").trim_end().to_owned()
}

fn served(proxy: &Proxy, tenant: &str) -> String {
    told(&mut proxy.chat(tenant, BODY))
}

/// A request that is left open, so that nothing is heard of it.
fn tier(proxy: &Proxy, tenant: &str) -> String {
    let call = proxy.chat(tenant, BODY);
    call.upstream_header("x-bursar-tier").unwrap().to_owned()
}

fn p95(proxy: &Proxy, model: &str, answer: &str) -> u64 {
    let tier = match model {
        "big" => "default",
        "middle" => "standard",
        _ => "compact",
    };
    proxy.metric(&format!(
        "bursar_first_byte_p95_ms.tier=.={tier};.;model=.={model};.;answer=.={answer};.;"
    ))
}

const DEFAULT: &str = "default admit";
const STANDARD: &str = "standard downgrade sla";
const COMPACT: &str = "compact downgrade sla";

#[test]
fn a_tier_that_begins_too_late_is_left_for_the_next_one_by_those_who_mind() {
    let proxy = Proxy::new(&config());
    answered_after(&proxy, "other", BODY, ENOUGH - 1, 2_000);
    assert_eq!(served(&proxy, "acme"), DEFAULT);
    answered_after(&proxy, "other", BODY, 1, 2_000);
    assert_eq!(p95(&proxy, "big", "whole"), 2_047);
    let mut call = proxy.chat("acme", BODY);
    assert_eq!(told(&mut call), STANDARD);
    assert_eq!(call.fields["bursar_reason"], "sla");
    assert_eq!(call.upstream_text(), BODY.replace("big", "middle"));
    for tenant in ["patient", "other", "loyal"] {
        assert_eq!(served(&proxy, tenant), DEFAULT);
    }
}

#[test]
fn with_the_next_tier_slow_too_it_is_the_one_below_and_with_all_of_them_the_first() {
    let proxy = Proxy::new(&config());
    answered_after(&proxy, "other", BODY, ENOUGH, 2_000);
    answered_after(&proxy, "other", &body("middle"), ENOUGH, 2_000);
    assert_eq!(served(&proxy, "acme"), COMPACT);
    answered_after(&proxy, "other", &body("small"), ENOUGH + 1, 2_000);
    assert_eq!(served(&proxy, "acme"), DEFAULT);
    // Never up.
    assert_eq!(
        told(&mut proxy.chat("acme", &body("small"))),
        "compact admit"
    );
}

#[test]
fn the_tier_of_a_low_budget_is_left_downwards_if_it_is_slow() {
    let proxy = Proxy::new(&config());
    answered_after(&proxy, "other", &body("middle"), ENOUGH, 2_000);
    proxy.served("poor", BODY, 600, 0);
    assert_eq!(served(&proxy, "poor"), COMPACT);
    assert_eq!(served(&proxy, "acme"), DEFAULT);
}

#[test]
fn a_recovered_tier_is_noticed_by_a_probe_every_ten_seconds() {
    let proxy = Proxy::new(&config());
    answered_after(&proxy, "acme", BODY, ENOUGH, 2_000);
    // A request each second, for as long as the tier is slow: one in ten is a probe, and all others are fast.
    let mut probes = Vec::new();
    for second in 0..50 {
        proxy.pass_millis(1_000);
        let mut call = proxy.chat("acme", BODY);
        let told = match call.upstream_header("x-bursar-tier") {
            Some("default") => {
                probes.push(second);
                proxy.pass_millis(2_000);
                told(&mut call)
            }
            _ => told(&mut call),
        };
        let expected = if probes.last() == Some(&second) {
            DEFAULT
        } else {
            STANDARD
        };
        assert_eq!(told, expected, "{second}");
    }
    assert_eq!(probes, [9, 19, 29, 39, 49]);
    // Now it is as fast as it was. The old times leave the window after two minutes at the latest.
    let recovered = (0..130).find(|_| {
        proxy.pass_millis(1_000);
        tier(&proxy, "acme") == "default" && {
            answered_after(&proxy, "acme", BODY, 1, 100);
            tier(&proxy, "acme") == "default"
        }
    });
    assert!((50..130).contains(&recovered.unwrap()), "{recovered:?}");
    let back: Vec<_> = (0..30).map(|_| served(&proxy, "acme")).collect();
    assert!(back.iter().all(|told| told == DEFAULT));
}

#[test]
fn a_probe_is_one_request_however_many_come_at_once_and_none_where_others_use_the_tier() {
    let proxy = Proxy::new(&config());
    answered_after(&proxy, "acme", BODY, ENOUGH, 2_000);
    proxy.pass_millis(10_000);
    let open: Vec<_> = (0..100).map(|_| tier(&proxy, "acme")).collect();
    assert_eq!(open.iter().filter(|tier| *tier == "default").count(), 1);
    assert_eq!(open[0], "default");
    proxy.pass_millis(9_999);
    assert_eq!(tier(&proxy, "acme"), "standard");
    answered_after(&proxy, "other", BODY, 1, 0);
    proxy.pass_millis(9_999);
    assert_eq!(tier(&proxy, "acme"), "standard");
    proxy.pass_millis(1);
    assert_eq!(tier(&proxy, "acme"), "default");
}

#[test]
fn a_request_that_would_not_be_served_there_is_no_probe() {
    let proxy = Proxy::new(&config());
    proxy.served("poor", BODY, 900, 0);
    served(&proxy, "acme");
    answered_after(&proxy, "other", BODY, ENOUGH, 2_000);
    proxy.pass_millis(10_000);
    assert_eq!(tier(&proxy, "poor"), "compact");
    assert_eq!(tier(&proxy, "acme"), "default");
    assert_eq!(tier(&proxy, "acme"), "standard");
}

#[test]
fn in_shadow_mode_it_is_told_where_a_request_would_have_gone_and_none_is_a_probe() {
    let proxy = Proxy::new(&config());
    answered_after(&proxy, "shy", BODY, ENOUGH, 2_000);
    proxy.pass_millis(10_000);
    let mut call = proxy.chat("shy", BODY);
    assert_eq!(call.upstream_text(), BODY);
    proxy.pass_millis(2_000);
    assert_eq!(told(&mut call), DEFAULT);
    assert_eq!(
        call.response_header("x-bursar-shadow"),
        Some("downgrade;tier=standard;model=middle;reason=sla")
    );
    proxy.pass_millis(10_000);
    let open = proxy.chat("shy", BODY);
    assert_eq!(tier(&proxy, "acme"), "default");
    assert_eq!(tier(&proxy, "acme"), "standard");
    drop(open);
}

#[test]
fn a_probe_that_was_lost_to_another_worker_goes_down() {
    let proxy = Proxy::new(&config());
    answered_after(&proxy, "acme", BODY, ENOUGH, 2_000);
    proxy.pass_millis(10_000);
    proxy.store.lose(1);
    assert_eq!(tier(&proxy, "acme"), "standard");
    assert_eq!(tier(&proxy, "acme"), "default");
    assert_eq!(proxy.metric("bursar_state_conflicts_total"), 1);
    assert_eq!(proxy.metric("bursar_state_given_up_total"), 0);
}

#[test]
fn a_stream_begins_with_its_first_event_and_a_whole_answer_with_its_first_byte() {
    let event = r#"data: {"choices":[{"delta":{"content":"Hi"}}]}"#.to_owned() + "\n\n";
    let whole = &[": ping\n\n", "data:\n\n", event.as_str()][..];
    let events = &[
        ": ping\n",
        "\n",
        ": ping\r\n\r\n",
        "data:\n\n",
        "event: x\ndata",
        ": 1",
    ][..];
    for (body, kind, content_type, parts) in [
        (STREAMED, "streamed", "text/event-stream", whole),
        (STREAMED, "streamed", "text/event-stream", events),
        (BODY, "whole", "application/json", &["\n", " \n", "{"]),
    ] {
        let proxy = Proxy::new(&config());
        let mut call = proxy.chat("acme", body);
        call.answer_headers("200", &[("content-type", content_type)]);
        for part in parts {
            assert_eq!(p95(&proxy, "big", kind), 0, "before {part:?}");
            proxy.pass_millis(10);
            call.answer_chunk(part.as_bytes(), false);
        }
        let begun = 10 * parts.len() as u64;
        let told = p95(&proxy, "big", kind);
        assert!((begun..=begun + 1).contains(&told), "{told}");
        // What comes after that is none.
        proxy.pass_millis(5_000);
        call.answer_chunk(b"\n\n", true);
        call.end();
        assert_eq!(p95(&proxy, "big", kind), told);
    }
}

#[test]
fn streams_and_whole_answers_do_not_speak_for_each_other() {
    let proxy = Proxy::new(&config());
    answered_after(&proxy, "other", BODY, ENOUGH, 2_000);
    let mut stream = proxy.chat("acme", STREAMED);
    assert_eq!(stream.upstream_header("x-bursar-tier"), Some("default"));
    stream.answer_headers("200", &[("content-type", "text/event-stream")]);
    stream.answer_chunk(EVENT.as_bytes(), true);
    assert_eq!(p95(&proxy, "big", "streamed"), 0);
    assert_eq!(tier(&proxy, "acme"), "standard");
    // Here the path says which it is.
    let mut call = proxy.request(
        &[
            (":method", "POST"),
            (":path", "/v1beta/models/big:streamGenerateContent"),
            ("x-tenant-id", "acme"),
        ],
        false,
    );
    call.send(&[b"{}"]);
    assert_eq!(call.upstream_header("x-bursar-tier"), Some("default"));
}

#[test]
fn a_request_that_goes_on_before_it_says_is_judged_as_a_stream() {
    let mut config = config();
    config["hold_headers"] = false.into();
    let proxy = Proxy::new(&config);
    answered_after(&proxy, "other", STREAMED, ENOUGH, 2_000);
    for (first, expected) in [
        (r#"{"model":"big","#, "standard"),
        (r#"{"stream":false,"model":"big"}"#, "default"),
    ] {
        let mut call = proxy.post(&[("x-tenant-id", "acme")]);
        call.send_chunk(first.as_bytes(), false);
        let fields = call.upstream_text().to_owned();
        assert_eq!(
            fields.contains("middle"),
            expected == "standard",
            "{fields}"
        );
    }
}

#[test]
fn a_slow_client_does_not_make_an_upstream_slow() {
    for hold in [true, false] {
        let mut config = config();
        config["hold_headers"] = hold.into();
        let proxy = Proxy::new(&config);
        let mut call = proxy.post(&[("x-tenant-id", "acme"), ("content-length", "31")]);
        call.send_chunk(br#"{"model":"big","#, false);
        proxy.pass_millis(5_000);
        call.send_chunk(br#""max_tokens":10}"#, false);
        // Nor does one that keeps back what comes after the object.
        proxy.pass_millis(5_000);
        call.send_chunk(b"", true);
        proxy.pass_millis(30);
        call.answer_json(&usage(1, 1));
        assert_eq!(p95(&proxy, "big", "whole"), 30);
    }
}

#[test]
fn a_client_that_never_ends_its_request_makes_nobody_slow() {
    for hold in [true, false] {
        let mut config = config();
        config["hold_headers"] = hold.into();
        let proxy = Proxy::new(&config);
        for _ in 0..ENOUGH {
            let mut call = proxy.post(&[("x-tenant-id", "other"), ("content-length", "32")]);
            call.send_chunk(BODY.as_bytes(), false);
            proxy.pass_millis(2_000);
            call.end();
        }
        assert_eq!(p95(&proxy, "big", "whole"), 0);
        assert_eq!(served(&proxy, "acme"), DEFAULT);
    }
}

#[test]
fn a_conversation_that_stays_below_is_no_probe() {
    let mut config = config();
    config["tenants"]["acme"] = json!({
        "sla": {"p95_ms": 1000},
        "budget": {"initial_budget": 100_000, "window": "day"},
        "sticky": {"header": "x-talk"}
    });
    let proxy = Proxy::new(&config);
    let tier = |talk: &str| {
        let mut call = proxy.post(&[
            ("x-tenant-id", "acme"),
            ("x-talk", talk),
            ("content-length", "31"),
        ]);
        call.send(&[BODY.as_bytes()]);
        call.upstream_header("x-bursar-tier").unwrap().to_owned()
    };
    answered_after(&proxy, "other", BODY, ENOUGH, 2_000);
    assert_eq!(tier("old"), "standard");
    proxy.pass_millis(10_000);
    assert_eq!(tier("old"), "standard");
    assert_eq!(tier("new"), "default");
    assert_eq!(tier("newer"), "standard");
}

#[test]
fn an_answer_that_comes_before_the_request_is_whole_is_not_measured() {
    let mut config = config();
    config["hold_headers"] = false.into();
    let proxy = Proxy::new(&config);
    let mut call = proxy.post(&[("x-tenant-id", "acme")]);
    call.send_chunk(br#"{"model":"big","#, false);
    call.answer_headers("200", &[("content-type", "application/json")]);
    call.answer_chunk(b"{", false);
    call.send_chunk(br#""max_tokens":10}"#, true);
    proxy.pass_millis(3_000);
    call.answer_chunk(b"}", true);
    call.end();
    assert_eq!(p95(&proxy, "big", "whole"), 0);
    // Nor one that refuses it before it says what it asks for.
    let mut call = proxy.post(&[("x-tenant-id", "acme")]);
    call.send_chunk(b"{", false);
    call.answer_headers("413", &[]);
    call.send_chunk(br#""model":"big","max_tokens":10}"#, true);
    proxy.pass_millis(3_000);
    call.end();
    assert_eq!(p95(&proxy, "big", "whole"), 0);
}

#[test]
fn a_timeout_that_a_client_asks_for_says_nothing_of_the_upstream() {
    for (name, millis, measured) in [
        ("x-envoy-upstream-rq-timeout-ms", 10, 0),
        ("x-envoy-upstream-rq-per-try-timeout-ms", 10, 0),
        // But it did wait so long.
        ("x-envoy-upstream-rq-timeout-ms", 3_000, 3_071),
        ("x-other", 10, 131_072),
    ] {
        let proxy = Proxy::new(&config());
        let mut call = proxy.post(&[
            ("x-tenant-id", "other"),
            ("content-length", "31"),
            (name, "10"),
        ]);
        call.send(&[BODY.as_bytes()]);
        proxy.pass_millis(millis);
        call.answer_headers("504", &[]);
        call.answer_chunk(b"", true);
        call.end();
        assert_eq!(p95(&proxy, "big", "whole"), measured, "{name} {millis}");
    }
}

#[test]
fn an_upstream_that_fails_quickly_is_not_fast_and_one_that_lets_wait_is_slow() {
    for (millis, status, measured) in [
        (10, Some("500"), 0),
        (10, Some("429"), 0),
        (1_000, Some("503"), 0),
        (1_001, Some("503"), 1_023),
        (3_000, Some("429"), 3_071),
        // Nobody had an answer in time.
        (10, Some("504"), 131_072),
        // The client left.
        (1_000, None, 0),
        (1_001, None, 1_023),
    ] {
        let proxy = Proxy::new(&config());
        let mut call = proxy.chat("patient", BODY);
        proxy.pass_millis(millis);
        if let Some(status) = status {
            call.answer_headers(status, &[]);
            call.answer_chunk(b"sorry", true);
        }
        call.end();
        call.end();
        assert_eq!(p95(&proxy, "big", "whole"), measured, "{millis} {status:?}");
    }
}

#[test]
fn a_client_that_leaves_a_stream_before_its_first_event_has_waited_too() {
    let proxy = Proxy::new(&config());
    let mut call = proxy.chat("acme", STREAMED);
    call.answer_headers("200", &[("content-type", "text/event-stream")]);
    call.answer_chunk(b": ping\n\n", false);
    proxy.pass_millis(4_000);
    call.end();
    assert_eq!(p95(&proxy, "big", "streamed"), 4_095);
}

#[test]
fn a_tier_keeps_its_times_under_another_name_and_place_but_not_with_another_model() {
    let proxy = Proxy::new(&config());
    answered_after(&proxy, "other", BODY, ENOUGH, 2_000);
    let mut renamed = config();
    renamed["tiers"][0]["name"] = "first".into();
    renamed["tenants"]["acme"]["sla"]["p95_ms"] = 500.into();
    proxy.configure(&renamed);
    assert_eq!(tier(&proxy, "acme"), "standard");
    let mut other = config();
    other["tiers"][0]["model"] = "bigger".into();
    proxy.configure(&other);
    assert_eq!(
        told(&mut proxy.chat("acme", &body("bigger"))),
        "default admit"
    );
}

#[test]
fn a_time_that_is_lost_in_a_race_is_left_out() {
    let proxy = Proxy::new(&config());
    answered_after(&proxy, "other", BODY, ENOUGH - 1, 2_000);
    let mut call = proxy.chat("other", BODY);
    proxy.pass_millis(2_000);
    call.answer_headers("200", &[("content-type", "application/json")]);
    proxy.store.lose(1);
    call.answer_chunk(b"{", false);
    assert_eq!(proxy.metric("bursar_state_conflicts_total"), 1);
    assert_eq!(tier(&proxy, "acme"), "default");
}

#[test]
fn what_is_no_state_is_counted_and_replaced_and_without_any_nothing_is_slow() {
    let proxy = Proxy::new(&config());
    let key = latency_key("whole", "big");
    answered_after(&proxy, "other", BODY, ENOUGH, 2_000);
    proxy.store.plant(&key, b"brl\x01 and more");
    assert_eq!(served(&proxy, "acme"), DEFAULT);
    assert_eq!(proxy.metric("bursar_state_corrupt_total"), 1);
    assert_eq!(&proxy.store.value(&key).unwrap()[..4], b"brl\x01");
    answered_after(&proxy, "other", BODY, ENOUGH, 2_000);
    assert_eq!(tier(&proxy, "acme"), "standard");
    proxy.store.set_down(true);
    let mut call = proxy.chat("acme", BODY);
    assert_eq!(told(&mut call), "default admit budget_unavailable");
}

#[test]
fn an_answer_that_is_made_without_the_client_keeps_nobody_waiting() {
    for (background, measured) in [(false, 3_071), (true, 0)] {
        let proxy = Proxy::new(&config());
        let headers = [
            (":method", "POST"),
            (":path", "/v1/responses"),
            ("x-tenant-id", "acme"),
        ];
        let mut call = proxy.request(&headers, false);
        let body = json!({"model": "big", "max_output_tokens": 16, "background": background});
        call.send(&[body.to_string().as_bytes()]);
        proxy.pass_millis(3_000);
        call.answer_json(r#"{"status":"queued"}"#);
        assert_eq!(p95(&proxy, "big", "whole"), measured);
    }
}

#[test]
fn whoever_has_no_sla_reads_nothing_more_and_where_nobody_has_one_nothing_is_measured() {
    let calls_of = |config: &Value, tenant: &str, body: &str| {
        let proxy = Proxy::new(config);
        told(&mut proxy.chat(tenant, body));
        let before = proxy.store.calls();
        told(&mut proxy.chat(tenant, body));
        (proxy.store.calls() - before, proxy.store.keys())
    };
    let calls = |config: &Value, tenant: &str| calls_of(config, tenant, BODY);
    let mut without = config();
    for tenant in ["acme", "patient", "poor", "shy", "loyal"] {
        without["tenants"][tenant]
            .as_object_mut()
            .unwrap()
            .remove("sla");
    }
    // The reservation and the settlement, a read and a write each.
    assert_eq!(calls(&without, "acme"), (4, 1));
    // A read and a write of the time.
    assert_eq!(calls(&config(), "other"), (6, 2));
    assert_eq!(calls(&config(), "loyal"), (6, 2));
    // A read for each tier that may serve it, if there are others than the asked one.
    assert_eq!(calls(&config(), "acme"), (9, 2));
    assert_eq!(calls_of(&config(), "acme", &body("middle")), (8, 2));
    assert_eq!(calls_of(&config(), "acme", &body("small")), (6, 2));
    // And no more while one is slow and no probe is due.
    let proxy = Proxy::new(&config());
    answered_after(&proxy, "other", BODY, ENOUGH, 2_000);
    served(&proxy, "acme");
    let before = proxy.store.calls();
    assert_eq!(served(&proxy, "acme"), STANDARD);
    assert_eq!(proxy.store.calls() - before, 9);
    // Nothing follows from the SLA of a tenant that is never downgraded, nor on a ladder of one tier.
    let mut only_loyal = without.clone();
    only_loyal["tenants"]["loyal"]["sla"] = json!({"p95_ms": 1000});
    assert_eq!(calls(&only_loyal, "loyal"), (4, 1));
    let mut one_tier = config();
    one_tier["tiers"].as_array_mut().unwrap().truncate(1);
    assert_eq!(calls(&one_tier, "acme"), (4, 1));
}
