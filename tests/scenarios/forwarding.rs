//! Bodies that are forwarded while they come, or held until they are here: the same bytes in any chunking.

use crate::opening::{BODY, allow_long, held, with};
use crate::proxy::Proxy;
use serde_json::json;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

// Only the model's bytes change: digits, key order and white space stay. A stale content-length would make the
// rest of a body the next request.
#[test]
fn any_chunking_in_either_mode_sends_the_same_bytes() {
    let body = "{\"a\": [ {\"model\":\"x\"} ],\n \"mod\\u0065l\" : \"gpt\\u002d4o\" , \"n\":1.0e0,\"max_tokens\":10,\"t\":\"é\", \"stream\" : true }";
    let expected = body.replace("\"gpt\\u002d4o\"", "\"gpt-4o-mini\"").replace(
        "true }",
        "true ,\"stream_options\":{\"include_usage\":true}}",
    );
    let length = body.len().to_string();
    for hold in [true, false] {
        for split in 0..=body.len() {
            let proxy = Proxy::new(&with(|config| config["hold_headers"] = hold.into()));
            proxy.served("acme", BODY, 810, 0);
            let mut call = proxy.post(&[("x-tenant-id", "acme"), ("content-length", &length)]);
            let (head, tail) = body.as_bytes().split_at(split);
            call.send(&[head, tail]);
            assert_eq!(
                call.upstream_text(),
                expected,
                "split at {split}, held: {hold}"
            );
            let promised = hold.then(|| expected.len().to_string());
            assert_eq!(call.upstream_header("content-length"), promised.as_deref());
            assert_eq!(
                call.upstream_header("x-bursar-tier"),
                hold.then_some("compact")
            );
        }
        let proxy = Proxy::new(&with(|config| config["hold_headers"] = hold.into()));
        proxy.served("acme", BODY, 810, 0);
        let mut call = proxy.post(&[("x-tenant-id", "acme")]);
        call.send(&body.as_bytes().chunks(1).collect::<Vec<_>>());
        assert_eq!(call.upstream_text(), expected, "byte by byte, held: {hold}");
        assert_eq!(
            held(&proxy, "acme"),
            u64::try_from(body.len()).unwrap() + 10
        );
    }
}

// Envoy's buffer limit is 1 MiB by default; no 413 may be of our making.
#[test]
fn a_body_too_long_to_be_held_passes_and_still_tells_its_tier_if_its_model_comes_first() {
    let proxy = Proxy::new(&with(|config| config["hold_bytes"] = 100.into()));
    for (first, tier) in [(true, Some("default")), (false, None)] {
        let filler = "x".repeat(200);
        let body = match first {
            true => format!(r#"{{"model":"gpt-4o","max_tokens":1,"x":"{filler}"}}"#),
            false => format!(r#"{{"x":"{filler}","model":"gpt-4o","max_tokens":1}}"#),
        };
        let length = body.len().to_string();
        let mut call = proxy.post(&[("x-tenant-id", "acme"), ("content-length", &length)]);
        assert!(!call.headers_gone);
        call.send(&body.as_bytes().chunks(90).collect::<Vec<_>>());
        assert_eq!(call.upstream_text(), body);
        assert_eq!(call.upstream_header("x-bursar-tier"), tier);
        assert_eq!(call.upstream_header("content-length"), None);
        call.end();
    }
}

#[test]
fn a_long_body_that_passes_keeps_a_length_that_is_true() {
    let filler = "x".repeat(40_000);
    for (body, expected) in [
        (
            format!(r#"{{"x":"{filler}","model":"gpt-4o"}}"#),
            format!(r#"{{"x":"{filler}","model":"gpt-4o-mini"}}"#),
        ),
        (
            format!(r#"{{"model":"gpt\u002d4o","x":"{filler}"}} "#),
            format!(r#"{{"model":"gpt-4o-mini","x":"{filler}"}} "#),
        ),
        (
            format!(r#"{{"x":"{filler}","stream":true,"model":"gpt-4o"}}"#),
            format!(
                r#"{{"x":"{filler}","stream":true,"model":"gpt-4o-mini","stream_options":{{"include_usage":true}}}}"#
            ),
        ),
        (
            format!(r#"{{"stream":true,"stream_options":null,"x":"{filler}","model":"gpt-4o"}}"#),
            format!(
                r#"{{"stream":true,"stream_options":{{"include_usage":true}},"x":"{filler}","model":"gpt-4o-mini"}}"#
            ),
        ),
        (
            format!(r#"{{"x":"{filler}","model":"gpt-9"}}"#),
            format!(r#"{{"x":"{filler}","model":"gpt-9"}}"#),
        ),
    ] {
        for hold in [true, false] {
            let mut texts = Vec::new();
            for size in [7, 1_000, 16_384, body.len() - 1, body.len()] {
                let proxy = Proxy::new(&with(|config| {
                    config["hold_headers"] = hold.into();
                    allow_long(config);
                }));
                proxy.served("acme", BODY, 810_000, 0);
                let length = body.len().to_string();
                let mut call = proxy.post(&[("x-tenant-id", "acme"), ("content-length", &length)]);
                call.send(&body.as_bytes().chunks(size).collect::<Vec<_>>());
                assert_eq!(call.refused(), None);
                let promised = call.upstream_header("content-length").map(str::to_owned);
                assert_eq!(promised, Some(call.upstream_body.len().to_string()));
                let after = call.upstream_text().strip_prefix(&expected);
                assert!(after.is_some_and(|after| after.bytes().all(|byte| byte == b' ')));
                texts.push(call.upstream_text().to_owned());
                call.end();
            }
            texts.dedup();
            assert_eq!(texts.len(), 1);
        }
    }
}

#[test]
fn nothing_is_added_where_nothing_can_change() {
    let filler = "x".repeat(40_000);
    let body = format!(r#"{{"input":"{filler}","model":"gpt-4o"}}"#);
    let length = body.len().to_string();
    let proxy = Proxy::new(&with(|config| {
        allow_long(config);
        config["tiers"] = json!([{"name": "only", "model": "gpt-4o"}]);
    }));
    let headers = [
        (":method", "POST"),
        (":path", "/v1/embeddings"),
        ("x-tenant-id", "acme"),
        ("content-length", &length),
    ];
    let mut call = proxy.request(&headers, false);
    call.send(&[body.as_bytes()]);
    assert_eq!(call.upstream_text(), body);
    assert_eq!(call.upstream_header("content-length"), Some(&*length));
}

#[test]
fn a_body_that_is_not_as_long_as_it_says_never_goes_on_to_its_end() {
    let proxy = Proxy::new(&with(allow_long));
    let body = format!(r#"{{"x":"{}","model":"gpt-4o"}}"#, "x".repeat(40_000));
    for (said, tail) in [
        (body.len() + 1, ""),
        (body.len() - 1, ""),
        (body.len(), " "),
        (body.len() + 2, " "),
    ] {
        let said = said.to_string();
        let mut call = proxy.post(&[("x-tenant-id", "acme"), ("content-length", &said)]);
        call.send(&[
            &body.as_bytes()[..20_000],
            &body.as_bytes()[20_000..],
            tail.as_bytes(),
        ]);
        assert_eq!(call.refused(), Some((400, "invalid_request_body")));
        call.end();
        assert_eq!(held(&proxy, "acme"), 0);
    }
    // Options that would take more room if they were written in another way.
    let numbers = "1E9,".repeat(200);
    let options = format!(r#""z":[{numbers}0]}},"model""#);
    let asked = body.replace(
        "\"model\"",
        &format!(r#""stream":true,"stream_options":{{{options}"#),
    );
    let mut call = proxy.post(&[
        ("x-tenant-id", "acme"),
        ("content-length", &asked.len().to_string()),
    ]);
    call.send(&[asked.as_bytes()]);
    let sent = call.upstream_text();
    let asking = format!(r#""stream_options":{{"include_usage":true,{options}"#);
    assert!(sent.contains(&asking));
    let promised = call.upstream_header("content-length");
    assert_eq!(promised, Some(sent.len().to_string().as_str()));
}
