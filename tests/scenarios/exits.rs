//! Every way in which a request ends: settled once, and nothing stays held.

use crate::opening::{BODY, RESERVED, STREAMED, USAGE_EVENT, config, held, spent, stream, with};
use crate::proxy::{Proxy, usage};
use bursar::base::units::Cost;
use bursar::http::Properties;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

// What was not served returns its hold, whatever ended it.
#[test]
fn an_upstream_that_refuses_or_fails_returns_all() {
    for status in ["400", "404", "429", "500", "503", "302"] {
        let proxy = Proxy::new(&config());
        let mut call = proxy.chat("acme", BODY);
        call.answer_headers(status, &[("content-type", "application/json")]);
        call.answer_chunk(usage(9, 9).as_bytes(), true);
        call.end();
        assert_eq!(proxy.record("acme").account.held(), Cost::ZERO);
        assert_eq!(spent(&proxy, "acme"), 0);
        assert_eq!(call.fields["bursar_settled_by"], "none");
        assert_eq!(call.response_header("x-bursar-tier"), Some("default"));
    }
}

// Some clients close at `[DONE]`, or before usage comes.
#[test]
fn a_client_that_leaves_early_is_charged_once() {
    // Before the response: the prompt. In the stream: what came. At `[DONE]`: what was reported.
    for (events, expected) in [
        (None, 12),
        (Some(stream("").replace("data: [DONE]\n\n", "")), 14),
        (Some(stream(USAGE_EVENT)), 25),
    ] {
        let proxy = Proxy::new(&config());
        let mut call = proxy.chat("acme", STREAMED);
        if let Some(events) = events {
            call.answer_headers("200", &[("content-type", "text/event-stream")]);
            call.answer_chunk(events.as_bytes(), false);
        }
        call.end();
        call.end();
        assert_eq!((held(&proxy, "acme"), spent(&proxy, "acme")), (0, expected));
    }
}

// The provider keeps such an answer, and may make it though nobody waits.
#[test]
fn a_client_that_leaves_before_an_answer_that_is_kept_is_charged_what_was_reserved() {
    for (path, more, is_kept) in [
        ("/v1/chat/completions", r#""store":true"#, true),
        ("/v1/chat/completions", r#""deferred":true"#, true),
        ("/v1/chat/completions", r#""store":false"#, false),
        ("/v1/chat/completions", r#""store":null"#, false),
        ("/v1/responses", r#""conversation":"conv_1""#, true),
        ("/v1/responses", r#""conversation":{"id":"conv_1"}"#, true),
        ("/v1/responses", r#""background":true"#, true),
        ("/v1/responses", r#""conversation":null"#, false),
    ] {
        let limit = ["max_tokens", "max_output_tokens"][usize::from(path == "/v1/responses")];
        let body = format!(r#"{{"model":"gpt-4o","{limit}":50,{more}}}"#);
        let proxy = Proxy::new(&config());
        let headers = [
            (":method", "POST"),
            (":path", path),
            ("x-tenant-id", "acme"),
        ];
        let mut call = proxy.request(&headers, false);
        call.send(&[body.as_bytes()]);
        call.end();
        let output = if is_kept { 50 } else { 0 };
        let expected = (0, body.len().div_ceil(4) as u64 + output);
        assert_eq!(
            (held(&proxy, "acme"), spent(&proxy, "acme")),
            expected,
            "{body}"
        );
    }
}

#[test]
fn a_request_that_was_cut_costs_nothing() {
    let proxy = Proxy::new(&with(|config| config["hold_headers"] = false.into()));
    let mut call = proxy.post(&[("x-tenant-id", "acme"), ("content-length", "500")]);
    call.send_chunk(br#"{"model":"gpt-4o","max_tokens":10,"mess"#, false);
    assert_eq!(held(&proxy, "acme"), 500 + 10);
    call.end();
    assert_eq!((held(&proxy, "acme"), spent(&proxy, "acme")), (0, 0));
}

// Our own answer runs through our own response callbacks.
#[test]
fn our_own_answer_is_not_accounted() {
    let proxy = Proxy::new(&config());
    let mut call = proxy.chat("nobody", BODY);
    assert_eq!(call.refused(), Some((403, "tenant_unknown")));
    call.answer_headers("403", &[("content-type", "application/json")]);
    call.answer_chunk(b"{}", true);
    call.end();
    assert_eq!(call.response_headers.len(), 2);
    assert_eq!(proxy.store.keys(), 0);
    assert_eq!(proxy.metric("bursar_settlements_total.by=.=none;.;"), 0);
}

#[test]
fn a_settlement_is_tried_twice_and_counted_where_it_is_lost_all_the_same() {
    for (lost, given_up, left) in [(256, 0, 0), (512, 1, RESERVED)] {
        let proxy = Proxy::new(&config());
        let mut call = proxy.chat("acme", BODY);
        proxy.store.lose(lost);
        call.answer_json(&usage(10, 10));
        call.end();
        assert_eq!(proxy.metric("bursar_state_given_up_total"), given_up);
        assert_eq!(held(&proxy, "acme"), left);
    }
}

#[test]
fn every_exit_is_counted_by_its_cause_and_leaves_nothing_held() {
    type Way = fn(&Proxy);
    let ways: [(&str, Way); 6] = [
        ("answered", |proxy| drop(proxy.served("acme", BODY, 1, 1))),
        ("upstream_refused", |proxy| {
            proxy.chat("acme", BODY).answer_headers("404", &[]);
        }),
        ("upstream_failed", |proxy| {
            proxy.chat("acme", BODY).answer_headers("504", &[]);
        }),
        ("cut", |proxy| {
            let mut call = proxy.chat("acme", BODY);
            call.answer_headers("200", &[("content-type", "application/json")]);
            call.end();
        }),
        ("unanswered", |proxy| proxy.chat("acme", BODY).end()),
        ("unsent", |proxy| {
            let mut call = proxy.post(&[("x-tenant-id", "acme")]);
            call.send_chunk(br#"{"model":"gpt-4o","#, false);
            call.end();
        }),
    ];
    for (cause, way) in ways {
        let proxy = Proxy::new(&config());
        way(&proxy);
        assert_eq!(
            proxy.metric(&format!("bursar_exits_total.cause=.={cause};.;")),
            1,
            "{cause}"
        );
        assert_eq!(held(&proxy, "acme"), 0, "{cause}");
    }
}

// Envoy follows a redirect of the upstream by a new request: two requests to the filter, and one answer.
#[test]
fn an_attempt_that_the_proxy_has_redirected_returns_its_hold() {
    struct Details(&'static str);
    impl Properties for Details {
        fn property(&self, path: &[String]) -> Option<Vec<u8>> {
            let is_asked = path == ["response", "code_details"];
            is_asked.then(|| self.0.as_bytes().to_vec())
        }
    }
    for hold in [false, true] {
        let proxy = Proxy::new(&with(|config| config["hold_headers"] = hold.into()));
        let mut first = proxy.chat("acme", BODY);
        first.end_with(&Details("internal_redirect"));
        assert_eq!((held(&proxy, "acme"), spent(&proxy, "acme")), (0, 0));
        assert_eq!(first.fields["bursar_settled_by"], "none");
        assert_eq!(proxy.metric("bursar_exits_total.cause=.=redirected;.;"), 1);
        proxy.served("acme", BODY, 20, 10);
        assert_eq!((held(&proxy, "acme"), spent(&proxy, "acme")), (0, 30));
        // Nothing else that ends before an answer is such an attempt.
        let mut left = proxy.chat("acme", BODY);
        left.end_with(&Details("downstream_remote_disconnect"));
        assert!(spent(&proxy, "acme") > 30);
    }
}

// An upstream may answer before it has all of the request; the rest of it is read and changed all the same.
#[test]
fn an_early_answer_stops_neither_the_rewrite_nor_the_checks_nor_the_settlement() {
    let early = |body: &str, split: usize| {
        let proxy = Proxy::new(&with(|config| config["hold_headers"] = false.into()));
        proxy.served("acme", BODY, 850, 0);
        let mut call = proxy.post(&[("x-tenant-id", "acme")]);
        call.send_chunk(&body.as_bytes()[..split], false);
        call.answer_headers("200", &[("content-type", "text/event-stream")]);
        call.send_chunk(&body.as_bytes()[split..], false);
        call.send_chunk(b"", true);
        let refused = call.refused().map(|(status, _)| status);
        if refused.is_none() {
            call.answer_chunk(stream(USAGE_EVENT).as_bytes(), true);
        }
        call.end();
        (
            refused,
            String::from_utf8(call.upstream_body).unwrap(),
            spent(&proxy, "acme"),
            held(&proxy, "acme"),
        )
    };
    let body = r#"{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":false},"max_tokens":9}"#;
    let sent = body
        .replace("gpt-4o", "gpt-4o-mini")
        .replace("false", "true");
    for split in 1..body.len() {
        assert_eq!(
            early(body, split),
            (None, sent.clone(), 850 + 25, 0),
            "split at {split}"
        );
    }
    let late = early(&body.replace(":9}", ":900}"), 40);
    assert_eq!((late.0, late.2, late.3), (Some(429), 850, 0));
    let late = early(&body.replace("\"max_tokens\"", "\"model\""), 40);
    assert_eq!((late.0, late.2, late.3), (Some(400), 850, 0));
}

#[test]
fn an_early_refusal_of_the_upstream_returns_all_and_takes_nothing_again() {
    for head in [r#"{"model":"gpt-4o","#, r#"{"n":1,"#] {
        let proxy = Proxy::new(&with(|config| config["hold_headers"] = false.into()));
        let mut call = proxy.post(&[("x-tenant-id", "acme")]);
        call.send_chunk(head.as_bytes(), false);
        call.answer_headers("503", &[]);
        let rest = if head.contains("model") {
            r#""max_tokens":5}"#
        } else {
            r#""model":"gpt-4o","max_tokens":5}"#
        };
        call.send(&[rest.as_bytes()]);
        call.end();
        assert_eq!(
            (held(&proxy, "acme"), spent(&proxy, "acme")),
            (0, 0),
            "{head}"
        );
        assert_eq!(
            proxy.metric("bursar_exits_total.cause=.=upstream_failed;.;"),
            1
        );
    }
}

#[test]
fn an_early_answer_that_is_cut_is_charged_though_the_request_was_not_over() {
    let proxy = Proxy::new(&with(|config| config["hold_headers"] = false.into()));
    let mut call = proxy.post(&[("x-tenant-id", "acme")]);
    call.send_chunk(STREAMED.as_bytes(), false);
    call.answer_headers("200", &[("content-type", "text/event-stream")]);
    call.answer_chunk(b"data: {\"choices\":[{}]}\n\n", false);
    call.end();
    assert_eq!(call.fields["bursar_settled_by"], "estimate");
    assert_eq!((held(&proxy, "acme"), spent(&proxy, "acme")), (0, 12 + 1));
    assert_eq!(proxy.metric("bursar_exits_total.cause=.=cut;.;"), 1);
}

#[test]
fn a_settlement_that_could_not_be_written_is_tried_again_at_the_end() {
    let proxy = Proxy::new(&config());
    let mut call = proxy.chat("acme", BODY);
    proxy.store.set_down(true);
    call.answer_json(&usage(10, 10));
    proxy.store.set_down(false);
    call.end();
    assert_eq!((held(&proxy, "acme"), spent(&proxy, "acme")), (0, 20));
    assert_eq!(proxy.metric("bursar_settlements_total.by=.=usage;.;"), 1);
}
