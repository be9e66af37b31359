//! Which times count as those of a tier, and how they are kept.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

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

// It would be paid for several times, or not at all, and make the upstream look slow. (issue 13)
#[test]
fn what_a_client_says_of_timeouts_and_retries_does_not_reach_the_proxy_s_router() {
    for name in [
        "x-envoy-upstream-stream-duration-ms",
        "x-envoy-upstream-rq-timeout-ms",
        "x-envoy-upstream-rq-per-try-timeout-ms",
        "x-envoy-upstream-rq-timeout-alt-response",
        "x-envoy-max-retries",
        "x-envoy-retry-on",
        "x-envoy-retry-grpc-on",
        "x-envoy-retriable-status-codes",
        "x-envoy-retriable-header-names",
        "x-envoy-hedge-on-per-try-timeout",
    ] {
        let headers = |path| {
            [
                (":method", "POST"),
                (":path", path),
                ("x-tenant-id", "other"),
                ("content-length", "31"),
                ("x-envoy-original-path", "/"),
                (name, "10"),
                (name, "11"),
            ]
        };
        let proxy = Proxy::new(&config());
        let mut call = proxy.request(&headers("/v1/chat/completions"), false);
        call.send(&[BODY.as_bytes()]);
        assert_eq!(call.upstream_header(name), None);
        assert_eq!(call.upstream_header("x-envoy-original-path"), Some("/"));
        let other = proxy.request(&headers("/v1/moderations"), false);
        assert_eq!(other.upstream_header(name), Some("10"));
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
