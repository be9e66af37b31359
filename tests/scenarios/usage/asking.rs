//! Streams are asked for their usage: where, how, and where not.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

// An event may be split at every byte, in the middle of a character too. Before the last chunk `usage` may be
// there as null. Without `include_usage` a stream reports nothing.
#[test]
fn usage_of_a_stream_is_asked_for_read_at_every_split_and_kept_from_a_client_that_did_not_ask() {
    let whole = stream(USAGE_EVENT);
    for split in 0..=whole.len() {
        let proxy = Proxy::new(&config());
        let mut call = proxy.chat("acme", STREAMED);
        let expected = r#"{"model":"gpt-4o","max_tokens":10,"stream":true,"stream_options":{"include_usage":true}}"#;
        assert_eq!(call.upstream_text(), expected);
        assert_eq!(
            call.upstream_header("content-length"),
            Some(expected.len().to_string().as_str())
        );
        call.answer_headers(
            "200",
            &[
                ("content-type", "text/event-stream"),
                ("content-length", "1"),
            ],
        );
        assert_eq!(call.response_header("content-length"), None);
        let (head, tail) = whole.as_bytes().split_at(split);
        call.answer_chunk(head, false);
        call.answer_chunk(tail, false);
        call.answer_chunk(b"", true);
        assert_eq!(spent(&proxy, "acme"), 25, "split at {split}");
        call.end();
        assert_eq!(
            String::from_utf8(call.response_body.clone()).unwrap(),
            stream("")
        );
        assert_eq!(call.fields["bursar_cached_tokens"], "4");
        assert_eq!((held(&proxy, "acme"), spent(&proxy, "acme")), (0, 25));
    }
}

#[test]
fn a_client_that_asked_for_usage_gets_it() {
    let proxy = Proxy::new(&config());
    let body = r#"{"model":"gpt-4o","stream_options":{"include_usage":true},"stream":true}"#;
    let mut call = proxy.chat("acme", body);
    // No max_tokens: more is reserved than the budget has.
    assert_eq!(call.refused(), Some((429, "budget_exhausted")));
    let body = body.replace("\"stream\":true", "\"stream\":true,\"max_tokens\":10");
    call = proxy.chat("acme", &body);
    assert_eq!(call.upstream_text(), body);
    call.answer_headers("200", &[("content-type", "text/event-stream")]);
    call.answer_chunk(stream(USAGE_EVENT).as_bytes(), true);
    assert_eq!(
        String::from_utf8(call.response_body).unwrap(),
        stream(USAGE_EVENT)
    );
    assert_eq!(spent(&proxy, "acme"), 25);
}

#[test]
fn other_stream_options_stay() {
    for (options, expected) in [
        (r#"{"x":1}"#, r#"{"include_usage":true,"x":1}"#),
        (r#"{"include_usage":false}"#, r#"{"include_usage":true}"#),
        ("null", r#"{"include_usage":true}"#),
    ] {
        let proxy = Proxy::new(&config());
        let body = |options| {
            format!(
                r#"{{"stream":true,"stream_options":{options},"model":"gpt-4o","n":1,"max_tokens":1}}"#
            )
        };
        let call = proxy.chat("acme", &body(options));
        assert_eq!(call.upstream_text(), body(expected));
    }
}

#[test]
fn usage_is_asked_for_wherever_the_options_stand_and_however_early_they_pass() {
    let parts = [
        r#""model":"gpt-4o""#,
        r#""stream":true"#,
        r#""stream_options":{"include_usage":false}"#,
        r#""max_tokens":1"#,
    ];
    for order in [
        [0, 1, 2, 3],
        [2, 1, 0, 3],
        [2, 3, 1, 0],
        [1, 2, 3, 0],
        [3, 2, 0, 1],
    ] {
        let body = format!("{{{}}}", order.map(|part| parts[part]).join(","));
        for hold in [true, false] {
            let proxy = Proxy::new(&with(|config| config["hold_headers"] = hold.into()));
            let mut call = proxy.post(&[("x-tenant-id", "acme")]);
            call.send(&body.as_bytes().chunks(7).collect::<Vec<_>>());
            assert_eq!(
                call.upstream_text(),
                body.replace("false", "true"),
                "{body}"
            );
        }
    }
}

// OpenAI, vLLM and DeepSeek answer 400 to options of a stream where there is none. (issue 13)
#[test]
fn options_of_a_stream_are_left_alone_where_there_is_no_stream() {
    for path in ["/v1/chat/completions", "/v1/completions"] {
        for stream in ["", r#""stream":false,"#, r#""stream":null,"#] {
            for options in ["null", "{}", r#"{"include_usage":false}"#, r#"{"x":1}"#] {
                let options = format!(r#""stream_options":{options},"#);
                let rest = r#""max_tokens":1,"model":"gpt-4o""#;
                for body in [
                    format!("{{{stream}{options}{rest}}}"),
                    format!("{{{options}{stream}{rest}}}"),
                    format!("{{{options}{rest}, \"x\":[1,2], {stream}\"y\":1}}"),
                ] {
                    for (hold, size) in [(true, 900), (true, 7), (false, 900), (false, 7)] {
                        let proxy =
                            Proxy::new(&with(|config| config["hold_headers"] = hold.into()));
                        let length = body.len().to_string();
                        let mut call = proxy.request(
                            &[
                                (":method", "POST"),
                                (":path", path),
                                ("x-tenant-id", "acme"),
                                ("content-length", &length),
                            ],
                            false,
                        );
                        call.send(&body.as_bytes().chunks(size).collect::<Vec<_>>());
                        assert_eq!(call.upstream_text(), body, "{hold} {size}");
                    }
                }
            }
        }
    }
}

// With its own retrieval Azure's API refuses the question.
#[test]
fn usage_is_not_asked_of_azure_where_it_retrieves() {
    for (options, sources) in [
        ("", r#""data_sources":[{"type":"azure_search"}]"#),
        (r#""stream_options":null,"#, r#""data_sources":[{"x":1}]"#),
        (r#""stream_options":null,"#, r#""dataSources":[{"x":1}]"#),
    ] {
        let body =
            format!(r#"{{"model":"gpt-4o","stream":true,{options}"max_tokens":9,{sources}}}"#);
        for (hold, size) in [(true, 900), (false, 900), (false, 7)] {
            let proxy = Proxy::new(&with(|config| config["hold_headers"] = hold.into()));
            let mut call = proxy.post(&[("x-tenant-id", "acme")]);
            call.send(&body.as_bytes().chunks(size).collect::<Vec<_>>());
            assert_eq!(call.upstream_text(), body);
        }
        let proxy = Proxy::new(&config());
        let none = body.replace(sources, r#""data_sources":[]"#);
        let call = proxy.chat("acme", &none);
        assert!(call.upstream_text().contains("include_usage"), "{none}");
    }
}

// Azure's API refuses `stream_options` before 2024-09-01-preview, Mistral's (on Vertex AI) at all: neither stream could be
// had. (openai/openai-python#1469, dnakov/anon-kode#53) Nor does Azure's for models other than OpenAI's. (BerriAI/litellm#9800)
#[test]
fn usage_is_not_asked_of_an_api_that_does_not_know_the_question() {
    let azure = "/openai/deployments/d/chat/completions?api-version=";
    let vertex = "/v1/projects/p/locations/l/publishers/mistralai/models/m:streamRawPredict";
    let body = r#"{"model":"m","max_tokens":9,"stream":true}"#;
    for (path, is_asked) in [
        (format!("{azure}2024-06-01"), false),
        (format!("{azure}2023-12-01-preview&x=1"), false),
        (format!("{azure}2024-09-01-preview"), true),
        (format!("{azure}2024-10-21"), true),
        (format!("{azure}preview"), true),
        ("/openai/deployments/d/chat/completions".to_owned(), true),
        (
            "/v1/chat/completions?api-version=2024-06-01".to_owned(),
            true,
        ),
        (
            "/models/chat/completions?api-version=2024-05-01-preview".to_owned(),
            false,
        ),
        (vertex.to_owned(), false),
    ] {
        let proxy = Proxy::new(&config());
        let headers = [
            (":method", "POST"),
            (":path", &path),
            ("x-tenant-id", "acme"),
        ];
        let mut call = proxy.request(&headers, false);
        call.send(&[body.as_bytes()]);
        assert_eq!(call.upstream_text() != body, is_asked, "{path}");
        call.answer_headers("200", &[("content-type", "text/event-stream")]);
        call.answer_chunk(stream("").as_bytes(), true);
        assert_eq!(call.fields["bursar_settled_by"], "estimate");
        // What hides its usage by the client's choice costs at least what was reserved.
        let output = if is_asked { 2 } else { 9 };
        assert_eq!(
            call.fields["bursar_output_tokens"],
            output.to_string(),
            "{path}"
        );
    }
}

// Of an answer only what bursar itself asked for is taken away: many servers report usage to everybody.
#[test]
fn usage_that_came_unasked_stays_in_the_answer() {
    let answer = stream(USAGE_EVENT);
    let long = "x".repeat(2_000);
    let gone = format!(
        r#"{{"model":"gpt-4o","stream_options":{{}},"x":"{long}","stream":true,"max_tokens":9}}"#
    );
    let old = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-06-01";
    let broken = STREAMED.replace('}', &format!(r#","x":"{long}",}}"#));
    let sources = STREAMED.replace("true", r#"true,"data_sources":[{"x":1}]"#);
    let signed = ("authorization", "AWS4-HMAC-SHA256 x");
    for (path, body, header, asks, shadow) in [
        (CHAT, STREAMED, ("x-y", "z"), false, false),
        (CHAT, STREAMED, signed, true, false),
        (old, STREAMED, ("x-y", "z"), true, false),
        (CHAT, &sources, ("x-y", "z"), true, false),
        (CHAT, &gone, ("x-y", "z"), true, false),
        (CHAT, &broken, ("x-y", "z"), true, true),
    ] {
        let length = ("content-length", "1");
        for (hold, lengths) in [(true, &[][..]), (false, &[][..]), (false, &[length][..])] {
            let proxy = Proxy::new(&with(|config| {
                config["hold_headers"] = hold.into();
                allow_long(config);
                config["plans"]["small"]["shadow"] = shadow.into();
                for tier in config["tiers"].as_array_mut().unwrap() {
                    tier["ask_usage"] = asks.into();
                }
            }));
            let post = (":method", "POST");
            let tenant = ("x-tenant-id", "acme");
            let mut call = proxy.request(&[post, (":path", path), tenant, header], false);
            call.send(&body.as_bytes().chunks(100).collect::<Vec<_>>());
            assert_eq!(call.upstream_text(), body);
            let mut headers = vec![("content-type", "text/event-stream")];
            headers.extend(lengths);
            call.answer_headers("200", &headers);
            let told = call.response_header("content-length");
            assert_eq!(told, lengths.first().map(|(_, one)| *one));
            for (at, byte) in answer.as_bytes().chunks(1).enumerate() {
                call.answer_chunk(byte, false);
                assert_eq!(call.response_body.len(), at + 1, "{path} {body}");
            }
            call.answer_chunk(b"", true);
            assert_eq!(String::from_utf8_lossy(&call.response_body), answer);
            let by = call.fields.get("bursar_settled_by");
            assert_eq!(by.map(String::as_str), Some("usage"));
        }
    }
}

// Options that were forwarded before `stream` was seen, with no room to keep them back, cannot ask for anything any more.
#[test]
fn a_stream_that_could_not_be_asked_for_its_usage_costs_what_was_reserved() {
    let filler = "x".repeat(2_000);
    for hold in [true, false] {
        let proxy = Proxy::new(&with(|config| {
            config["hold_headers"] = hold.into();
            allow_long(config);
        }));
        let body = format!(
            r#"{{"model":"gpt-4o","stream_options":{{"include_usage":false}},"x":"{filler}","stream":true,"max_tokens":70}}"#
        );
        let mut call = proxy.post(&[("x-tenant-id", "acme")]);
        call.send(&body.as_bytes().chunks(100).collect::<Vec<_>>());
        assert_eq!(call.upstream_text(), body);
        call.answer_headers("200", &[("content-type", "text/event-stream")]);
        call.answer_chunk(stream("").as_bytes(), true);
        assert_eq!(call.fields["bursar_output_tokens"], "70");
    }
}

// Go's parser takes the last of several spellings, most others the one that is spelled right.
#[test]
fn options_that_parsers_read_in_two_ways_are_refused() {
    for options in [
        r#"{"include_usage":true,"INCLUDE_USAGE":false}"#,
        r#"{"include_usage":false,"include_usage":true}"#,
        r#"{"include_u\u0073age":true,"include_usage":true}"#,
        "{\"include_u\u{17f}age\":true}",
    ] {
        for hold in [true, false] {
            let proxy = Proxy::new(&with(|config| config["hold_headers"] = hold.into()));
            let body = format!(
                r#"{{"model":"gpt-4o","max_tokens":1,"stream":true,"stream_options":{options}}}"#
            );
            let call = proxy.chat("acme", &body);
            let refused = call.refused();
            assert_eq!(refused, Some((400, "invalid_request_body")), "{options}");
            assert_eq!(held(&proxy, "acme"), 0);
        }
    }
}

// Servers written in Python take `"true"` and 1 for true, and 0 for false.
#[test]
fn a_client_that_asked_for_usage_in_another_way_gets_it_too() {
    for (path, options) in [
        (CHAT, r#"{"include_usage":"true"}"#),
        ("/v1/completions", r#"{"include_usage":1}"#),
    ] {
        for hold in [true, false] {
            let proxy = Proxy::new(&with(|config| config["hold_headers"] = hold.into()));
            let body = |options| {
                format!(
                    r#"{{"model":"gpt-4o","stream_options":{options},"stream":true,"max_tokens":1}}"#
                )
            };
            let sent = body(options);
            let length = sent.len().to_string();
            let mut call = proxy.request(
                &[
                    (":method", "POST"),
                    (":path", path),
                    ("x-tenant-id", "acme"),
                    ("content-length", &length),
                ],
                false,
            );
            call.send(&sent.as_bytes().chunks(9).collect::<Vec<_>>());
            // Others might take it for false.
            assert_eq!(call.upstream_text(), body(r#"{"include_usage":true}"#));
            call.answer_headers("200", &[("content-type", "text/event-stream")]);
            call.answer_chunk(stream(USAGE_EVENT).as_bytes(), true);
            let got = String::from_utf8(call.response_body.clone()).unwrap();
            assert_eq!(got, stream(USAGE_EVENT), "{options}");
            assert_eq!(spent(&proxy, "acme"), 25);
        }
    }
}
