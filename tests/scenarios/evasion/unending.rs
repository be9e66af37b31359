//! Requests that are whole, and go on all the same: their upstream may answer already. (Go's `json.Decoder`, and so servers that are
//! made with it, read no further than the object's end.)

use super::with;
use crate::opening::{CHAT, MESSAGES, held, spent};
use crate::proxy::{Call, usage};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Whole requests, each with the path it is sent to.
const WHOLE: [(&str, &str); 6] = [
    (CHAT, r#"{"model":"best","max_tokens":70}"#),
    (CHAT, r#"{"model":"best","max_tokens":70,"stream":true}"#),
    (
        "/v1/responses",
        r#"{"model":"best","max_output_tokens":70}"#,
    ),
    (MESSAGES, r#"{"model":"best","max_tokens":70}"#),
    (
        "/v1beta/models/best:generateContent",
        r#"{"generationConfig":{"maxOutputTokens":70}}"#,
    ),
    (
        "/model/best/converse",
        r#"{"inferenceConfig":{"maxTokens":70}}"#,
    ),
];

// What comes behind it makes it invalid, but the upstream has all of it, and is paid.
#[test]
fn what_makes_a_whole_request_invalid_after_it_was_forwarded_takes_nothing_back() {
    let begin = |call: &mut Call<'_>| {
        call.answer_headers("200", &[("content-type", "application/json")]);
        call.answer_chunk(br#"{"choices":[{"index":0}],"#, false);
    };
    let input = |body: &str| body.len().div_ceil(4) as u64;
    for hold in [true, false] {
        for (path, body) in WHOLE {
            for (length, garbage) in [(2, "x"), (2, "   "), (0, "x"), (0, "{}")] {
                for (answered, ends) in [(false, false), (false, true), (true, false), (true, true)]
                {
                    let proxy = with(|config| config["hold_headers"] = hold.into());
                    let said = (body.len() + length).to_string();
                    let mut headers = vec![
                        (":method", "POST"),
                        (":path", path),
                        ("x-tenant-id", "acme"),
                    ];
                    if length > 0 {
                        headers.push(("content-length", &said));
                    }
                    let mut call = proxy.request(&headers, false);
                    call.send_chunk(body.as_bytes(), false);
                    if answered {
                        begin(&mut call);
                    }
                    call.send_chunk(garbage.as_bytes(), ends);
                    let case =
                        format!("{hold} {path} {body} {length} {garbage:?} {answered} {ends}");
                    if garbage.trim().is_empty() {
                        // White space alone is wrong only where a length was promised on the strength of the client's.
                        call.end();
                        assert!(spent(&proxy, "acme") >= input(body), "{case}");
                        continue;
                    }
                    assert_eq!(
                        call.refused(),
                        Some((400, "invalid_request_body")),
                        "{case}"
                    );
                    // An upstream that does not hear of it goes on.
                    if !answered {
                        begin(&mut call);
                    }
                    let rest = usage(3, 4);
                    call.answer_chunk(&rest.as_bytes()[1..], true);
                    call.end();
                    // The whole length that was announced counts as its prompt.
                    let most = 70 + input(body) + 1;
                    let charged = spent(&proxy, "acme");
                    assert!((input(body)..=most).contains(&charged), "{case}: {charged}");
                    assert_eq!(held(&proxy, "acme"), 0, "{case}");
                }
            }
        }
    }
}

// Before the object's end was forwarded, no upstream can answer it, and nothing is charged.
#[test]
fn what_makes_a_request_invalid_before_it_was_forwarded_costs_nothing() {
    for hold in [true, false] {
        for (path, body) in WHOLE {
            for (split, ends) in [
                (10, true),
                (10, false),
                (body.len() - 1, true),
                (body.len() - 1, false),
            ] {
                let proxy = with(|config| config["hold_headers"] = hold.into());
                let headers = [
                    (":method", "POST"),
                    (":path", path),
                    ("x-tenant-id", "acme"),
                ];
                let mut call = proxy.request(&headers, false);
                let (before, after) = body.split_at(split);
                call.send_chunk(before.as_bytes(), false);
                call.send_chunk(format!("{after}x").as_bytes(), ends);
                if !ends {
                    assert_eq!(call.refused(), None);
                    call.send_chunk(b"", true);
                }
                assert_eq!(call.refused(), Some((400, "invalid_request_body")));
                call.end();
                let record = proxy.try_record("acme");
                assert_eq!(record.map_or(0, |record| record.account.spent.tokens.0), 0);
                assert_eq!(held(&proxy, "acme"), 0);
            }
        }
    }
}
