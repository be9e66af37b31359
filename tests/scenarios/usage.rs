//! How usage is asked for, read and, where it is not reported, estimated.

mod asking;
mod no_answer;
mod price;

use crate::opening::{
    BODY, CHAT, STREAMED, USAGE_EVENT, allow_long, config, held, spent, stream, with,
};
use crate::proxy::{Proxy, usage};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

// The host hands over only what is new once the rest was let go.
#[test]
fn usage_is_found_in_a_body_at_every_split() {
    let body = usage(120, 30);
    for split in 0..=body.len() {
        let proxy = Proxy::new(&config());
        let mut call = proxy.chat("acme", BODY);
        call.answer_headers(
            "200",
            &[("content-type", "application/json; charset=utf-8")],
        );
        let (head, tail) = body.as_bytes().split_at(split);
        call.answer_chunk(head, false);
        call.answer_chunk(tail, false);
        call.answer_chunk(b"", true);
        assert_eq!(spent(&proxy, "acme"), 150, "split at {split}");
    }
}

#[test]
fn a_stream_without_usage_is_settled_by_what_was_seen() {
    let proxy = Proxy::new(&config());
    let mut call = proxy.chat("acme", STREAMED);
    call.answer_headers("200", &[("content-type", "text/event-stream")]);
    call.answer_chunk(stream("").as_bytes(), true);
    // 49 bytes of prompt and two events.
    assert_eq!((held(&proxy, "acme"), spent(&proxy, "acme")), (0, 12 + 2));
    assert_eq!(call.fields["bursar_settled_by"], "estimate");
}

// A reported 0 is 0; what is absent is not.
#[test]
fn a_reported_zero_is_zero() {
    let proxy = Proxy::new(&config());
    let call = proxy.served("acme", BODY, 0, 0);
    assert_eq!((held(&proxy, "acme"), spent(&proxy, "acme")), (0, 0));
    assert_eq!(call.fields["bursar_settled_by"], "usage");
}

// Some servers compress although identity was asked for.
#[test]
fn a_compressed_answer_in_spite_of_identity_is_settled_by_estimate() {
    let proxy = Proxy::new(&config());
    let mut call = proxy.chat("acme", BODY);
    assert_eq!(call.upstream_header("accept-encoding"), Some("identity"));
    call.answer_headers(
        "200",
        &[
            ("content-type", "application/json"),
            ("content-encoding", "gzip"),
        ],
    );
    call.answer_chunk(&[0x1f; 20], true);
    assert_eq!(call.fields["bursar_settled_by"], "estimate");
    // 55 bytes of prompt and 20 of answer, four to a token.
    assert_eq!(spent(&proxy, "acme"), 14 + 5);
}

// The answer that comes at once is only the name of another one. (docs.x.ai, deferred chat completions)
#[test]
fn a_deferred_chat_is_charged_what_was_reserved() {
    for (deferred, output) in [("true", 10), ("false", 5), ("null", 5)] {
        let proxy = Proxy::new(&config());
        let body = format!(r#"{{"model":"gpt-4o","max_tokens":10,"deferred":{deferred}}}"#);
        let mut call = proxy.chat("acme", &body);
        call.answer_headers("200", &[("content-type", "application/json")]);
        call.answer_chunk(br#"{"request_id":"r"}"#, true);
        let told = &call.fields["bursar_output_tokens"];
        assert_eq!(told, &output.to_string(), "{deferred}");
    }
}

// What is seen of an answer without usage may be anything: a page of HTML, vectors, an upstream that counts otherwise.
#[test]
fn an_estimate_exceeds_neither_the_requests_own_limit_nor_what_was_reserved() {
    let events = b"data: {\"choices\":[{}]}\n\n".repeat(2_000);
    let words = b"abc".repeat(10_000);
    let answers = [("text/event-stream", &events), ("text/x-other", &words)];
    for hold in [false, true] {
        for (limit, most) in [(r#","max_tokens":7"#, 7), ("", 1_024)] {
            for (kind, answer) in answers {
                for is_end in [false, true] {
                    let proxy = Proxy::new(&with(|config| {
                        config["hold_headers"] = hold.into();
                        config["plans"]["small"]["budget"]["initial_budget"] = 100_000.into();
                    }));
                    let body =
                        format!(r#"{{"model":"gpt-4o","stream":true,"messages":[]{limit}}}"#);
                    let mut call = proxy.chat("acme", &body);
                    call.answer_headers("200", &[("content-type", kind)]);
                    call.answer_chunk(answer, is_end);
                    call.end();
                    assert_eq!(call.fields["bursar_settled_by"], "estimate");
                    let output: u64 = call.fields["bursar_output_tokens"].parse().unwrap();
                    assert_eq!(output, most, "{hold} {limit} {kind} {is_end}");
                }
            }
        }
    }
}

// Gemini and the Responses API end without `[DONE]`.
#[test]
fn the_last_event_counts_though_only_trailers_or_a_cut_end_it() {
    type End = fn(&mut crate::proxy::Call<'_>);
    let ends: [(&str, End); 2] = [
        ("answered", |call| call.answer_trailers(&[])),
        ("cut", |_| {}),
    ];
    for (cause, end) in ends {
        let proxy = Proxy::new(&config());
        let mut call = proxy.chat("acme", STREAMED);
        call.answer_headers("200", &[("content-type", "text/event-stream")]);
        call.answer_chunk(USAGE_EVENT.trim_end().as_bytes(), false);
        end(&mut call);
        call.end();
        assert_eq!((held(&proxy, "acme"), spent(&proxy, "acme")), (0, 25));
        let exits = proxy.metric(&format!("bursar_exits_total.cause=.={cause};.;"));
        assert_eq!(exits, 1, "{cause}");
    }
}

// Anthropic's counts of output are cumulative: the last one counts, not the sum.
#[test]
fn of_several_usages_the_last_counts_and_the_end_settles_it() {
    let proxy = Proxy::new(&config());
    let mut call = proxy.chat("acme", STREAMED);
    call.answer_headers("200", &[("content-type", "text/event-stream")]);
    for output in [1, 2, 7] {
        let event = format!(
            "data: {{\"choices\":[{{}}],\"usage\":{{\"prompt_tokens\":5,\"completion_tokens\":{output}}}}}\n\n"
        );
        call.answer_chunk(event.as_bytes(), false);
    }
    call.answer_chunk(b"data: [DONE]\n\n", false);
    assert_eq!(spent(&proxy, "acme"), 0);
    call.end();
    assert_eq!(spent(&proxy, "acme"), 12);
    assert_eq!(call.fields["bursar_settled_by"], "usage");
    assert_eq!(proxy.metric("bursar_exits_total.cause=.=answered;.;"), 1);
}

// Some gateways begin a stream with a report, and some go on after they have ended it.
#[test]
fn the_latest_report_settles_wherever_it_stands_in_the_stream() {
    let report = |input: u64, output: u64| {
        format!(
            "data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":{input},\"completion_tokens\":{output}}}}}\n\n"
        )
    };
    let empty = "data: {\"choices\":[],\"usage\":{}}\n\n".to_owned();
    let (words, done) = (stream(""), "data: [DONE]\n\n");
    let words = words.strip_suffix(done).unwrap();
    let right = report(3000, 252);
    for (answer, expected) in [
        (format!("{}{words}{right}{done}", report(3000, 4)), 3252),
        (format!("{}{words}{right}{done}", report(0, 0)), 3252),
        (format!("{empty}{words}{right}{done}"), 3252),
        (format!("{words}{done}{right}"), 3252),
        (format!("{words}{right}{done}{}", report(0, 0)), 3252),
        (format!("{words}{right}{empty}{done}"), 3252),
        (format!("{words}{}{done}", report(0, 0)), 0),
    ] {
        for hold in [true, false] {
            for chunk in [1, 50, answer.len()] {
                let proxy = Proxy::new(&with(|config| config["hold_headers"] = hold.into()));
                let mut call = proxy.chat("acme", STREAMED);
                call.answer_headers("200", &[("content-type", "text/event-stream")]);
                for chunk in answer.as_bytes().chunks(chunk) {
                    call.answer_chunk(chunk, false);
                }
                call.answer_chunk(b"", true);
                call.end();
                assert_eq!(spent(&proxy, "acme"), expected, "{answer}");
                assert_eq!(call.fields["bursar_settled_by"], "usage");
                let seen = String::from_utf8(call.response_body).unwrap();
                assert_eq!(seen, stream(""), "{answer}");
            }
        }
    }
}

// A report covers all that came before it, whatever of it is no text: a picture, pages that were searched.
#[test]
fn what_a_stream_has_reported_before_it_is_cut_is_not_estimated_once_more() {
    let more = format!(r#","x":"{}""#, "A".repeat(4_000));
    let google = |output: u64, more: &str| {
        format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":"x"}}]}}{more}}}],"usageMetadata":{{"promptTokenCount":30,"candidatesTokenCount":{output}}}}}"#
        )
    };
    let usage =
        |output: u64| format!(r#""usage":{{"prompt_tokens":30,"completion_tokens":{output}}}"#);
    let chat = |output: u64, more: &str| {
        format!(
            r#"{{"choices":[{{"delta":{{"content":"x"}}{more}}}],{}}}"#,
            usage(output)
        )
    };
    let choice = |output: u64, more: &str| {
        format!(
            r#"{{"choices":[{{"delta":{{"content":"x"}}{more},{}}}]}}"#,
            usage(output)
        )
    };
    type Event<'a> = &'a dyn Fn(u64, &str) -> String;
    let path = "/v1beta/models/gemini:streamGenerateContent";
    let asked = r#"{"contents":[],"generationConfig":{"maxOutputTokens":8000}}"#;
    let chats =
        r#"{"model":"m","max_tokens":8000,"stream":true,"stream_options":{"include_usage":true}}"#;
    let cases: [(&str, &str, Event<'_>, [&str; 2]); 4] = [
        (path, asked, &google, ["data: ", "\n\n"]),
        (path, asked, &google, ["", ""]),
        (CHAT, chats, &chat, ["data: ", "\n\n"]),
        (CHAT, chats, &choice, ["data: ", "\n\n"]),
    ];
    for (path, body, event, [before, after]) in cases {
        let words = [(3, ""), (7, more.as_str()), (9, "")];
        let events = words.map(|(output, more)| format!("{before}{}{after}", event(output, more)));
        let separator = if before.is_empty() { "," } else { "" };
        for (cut, output) in [(1, 3), (2, 7), (3, 9)] {
            let start = if before.is_empty() { "[" } else { "" };
            let answer = format!("{start}{}", events[..cut].join(separator));
            for (hold, chunk) in [(true, 50), (true, 90_000), (false, 90_000)] {
                let proxy = Proxy::new(&with(|config| {
                    config["hold_headers"] = hold.into();
                    config["plans"]["small"]["budget"]["initial_budget"] = 100_000.into();
                }));
                let headers = [
                    (":method", "POST"),
                    (":path", path),
                    ("x-tenant-id", "acme"),
                ];
                let mut call = proxy.request(&headers, false);
                call.send(&[body.as_bytes()]);
                call.answer_headers("200", &[]);
                for part in answer.as_bytes().chunks(chunk) {
                    call.answer_chunk(part, false);
                }
                call.end();
                assert_eq!(spent(&proxy, "acme"), 30 + output, "{path} {cut} {chunk}");
            }
        }
    }
}

// `make fuzz`: what only begins like `null` was one by the quick look at an event that comes as a whole, and none in chunks.
#[test]
fn an_event_that_is_no_json_counts_the_same_in_any_chunking() {
    for broken in [
        r#"{"error":nullull,"output":[],"x":1}"#,
        r#"{"usage":nullull,"choices":[]}"#,
        r#"{"usage":null"#,
        r#"{"error":null"#,
    ] {
        let first = r#"{"choices":[{"delta":{"content":"x"}}]}"#;
        let answer = format!("data: {first}\n\ndata: {broken}\n\ndata: {first}\n\n");
        let used = |split: usize| {
            let proxy = Proxy::new(&config());
            let mut call = proxy.chat("acme", &STREAMED.replace("10", "99"));
            call.answer_headers("200", &[("content-type", "text/event-stream")]);
            let (head, tail) = answer.as_bytes().split_at(split);
            call.answer_chunk(head, false);
            call.answer_chunk(tail, false);
            call.end();
            (spent(&proxy, "acme"), held(&proxy, "acme"))
        };
        for split in 1..answer.len() {
            assert_eq!(used(split), used(0), "{broken} {split}");
        }
    }
}

// What comes after a report is in none yet.
#[test]
fn what_comes_after_a_report_is_estimated_and_added_to_it() {
    let words =
        |count: usize| "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n".repeat(count);
    let report = |output: u64| {
        format!(
            "data: {{\"choices\":[{{\"delta\":{{}}}}],\"usage\":{{\"prompt_tokens\":30,\"completion_tokens\":{output}}}}}\n\n"
        )
    };
    for (answer, output) in [
        (format!("{}{}{}", words(4), report(40), words(5)), 45),
        // There are at least as many tokens as events.
        (format!("{}{}{}", words(4), report(1), words(5)), 10),
        (format!("{}{}{}", words(4), report(0), words(5)), 10),
    ] {
        let proxy = Proxy::new(&config());
        let mut call = proxy.chat("acme", &STREAMED.replace("10", "99"));
        call.answer_headers("200", &[("content-type", "text/event-stream")]);
        call.answer_chunk(answer.as_bytes(), false);
        call.end();
        assert_eq!(call.fields["bursar_settled_by"], "estimate");
        assert_eq!(
            call.fields["bursar_output_tokens"],
            output.to_string(),
            "{answer}"
        );
    }
}

// LiteLLM asks each of several models that a request names, with commas between them, and answers all of their answers.
#[test]
fn several_whole_answers_are_charged_together() {
    let answers = [(30, 6), (40, 8)].map(|(input, output)| usage(input, output));
    let answer = format!("[{}]", answers.join(", "));
    for (hold, chunk) in [(true, 900), (true, 1), (false, 7)] {
        let proxy = Proxy::new(&with(|config| config["hold_headers"] = hold.into()));
        let mut call = proxy.chat("acme", r#"{"model":"gpt-4o,claude","max_tokens":10}"#);
        call.answer_headers("200", &[("content-type", "application/json")]);
        for part in answer.as_bytes().chunks(chunk) {
            call.answer_chunk(part, false);
        }
        call.answer_chunk(b"", true);
        assert_eq!(spent(&proxy, "acme"), 84);
        assert_eq!(call.fields["bursar_settled_by"], "usage");
    }
}

// A report with which a stream begins says nothing of what a client that leaves has got.
#[test]
fn a_report_before_the_words_is_no_last_word() {
    let proxy = Proxy::new(&config());
    let mut call = proxy.chat("acme", STREAMED);
    call.answer_headers("200", &[("content-type", "text/event-stream")]);
    let first =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0}}\n\n";
    let words = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n".repeat(7);
    call.answer_chunk(format!("{first}{words}").as_bytes(), false);
    call.end();
    assert_eq!(call.fields["bursar_settled_by"], "estimate");
    assert_eq!(call.fields["bursar_output_tokens"], "7");
    assert_eq!(proxy.metric("bursar_exits_total.cause=.=cut;.;"), 1);
}

const PATHS: [(&str, &str); 7] = [
    (
        "/v1/chat/completions",
        r#"{"model":"m","stream":true,"max_tokens":10}"#,
    ),
    (
        "/v1/completions",
        r#"{"model":"m","prompt":"x","max_tokens":10}"#,
    ),
    ("/v1/embeddings", r#"{"model":"m","input":"x"}"#),
    (
        "/v1/responses",
        r#"{"model":"m","input":"x","max_output_tokens":16}"#,
    ),
    (
        "/v1/messages",
        r#"{"model":"m","max_tokens":10,"messages":[]}"#,
    ),
    (
        "/v1/models/m:generateContent",
        r#"{"contents":[],"generationConfig":{"maxOutputTokens":10}}"#,
    ),
    (
        "/model/m/converse",
        r#"{"messages":[],"inferenceConfig":{"maxTokens":10}}"#,
    ),
];

// Gson, for one, has no integers in what it does not know.
#[test]
fn counts_may_be_written_with_a_point_or_a_power() {
    for (input, output) in [("20.0", "5"), ("2e1", "5.00"), ("2.0E+1", "50e-1")] {
        let usage = format!(r#""usage":{{"prompt_tokens":{input},"completion_tokens":{output}}}"#);
        for answer in [
            format!(r#"{{"choices":[{{}}],{usage}}}"#),
            format!("data: {{\"choices\":[],{usage}}}\n\n"),
        ] {
            let proxy = Proxy::new(&config());
            let mut call = proxy.chat("acme", BODY);
            call.answer_headers("200", &[]);
            call.answer_chunk(answer.as_bytes(), true);
            assert_eq!(call.fields["bursar_settled_by"], "usage", "{answer}");
            assert_eq!(spent(&proxy, "acme"), 25, "{answer}");
        }
    }
}

#[test]
fn what_embeds_has_no_output() {
    let vectors = format!(r#"{{"data":[{{"embedding":[{}1]}}]"#, "0.1,".repeat(5_000));
    for hold in [true, false] {
        for (rest, is_end, input) in [
            (r#","usage":{"total_tokens":8}}"#, true, Some("8")),
            // MiniMax's place for it, and its sign that all is well.
            (
                r#","total_tokens":8,"base_resp":{"status_code":0}}"#,
                true,
                Some("8"),
            ),
            (r#","code":0}"#, true, Some("7")),
            (r#","code":0,"#, false, Some("7")),
            ("}", true, None),
            ("", false, None),
        ] {
            let proxy = Proxy::new(&with(|config| config["hold_headers"] = hold.into()));
            let headers = [
                (":method", "POST"),
                (":path", "/v1/embeddings"),
                ("x-tenant-id", "acme"),
            ];
            let mut call = proxy.request(&headers, false);
            call.send(&[br#"{"model":"m","input":"x"}"#]);
            call.answer_headers("200", &[("content-type", "application/json")]);
            call.answer_chunk(format!("{vectors}{rest}").as_bytes(), is_end);
            call.end();
            assert_eq!(call.fields["bursar_output_tokens"], "0");
            if let Some(input) = input {
                assert_eq!(call.fields["bursar_input_tokens"], input);
            }
            assert!(spent(&proxy, "acme") <= 25);
        }
    }
}

// Nothing is guessed of what the parts leave open: it is counted and written down.
#[test]
fn a_report_that_does_not_add_up_is_counted_and_its_parts_are_charged() {
    let name = "bursar_usage_inconsistent_total.tier=.=default;.;model=.=gpt-4o;.;";
    let events = |report: &str| format!("data: {{\"choices\":[],\"usage\":{report}}}\n\n");
    let odd = r#"{"prompt_tokens":30,"completion_tokens":6,"total_tokens":900}"#;
    let plain = r#"{"prompt_tokens":30,"completion_tokens":6,"total_tokens":36}"#;
    for (report, is_odd) in [(odd, true), (plain, false)] {
        for kind in ["application/json", "text/event-stream"] {
            let proxy = Proxy::new(&config());
            let mut call = proxy.chat("acme", STREAMED);
            call.answer_headers("200", &[("content-type", kind)]);
            let answer = match kind {
                "application/json" => format!(r#"{{"choices":[],"usage":{report}}}"#),
                _ => events(report),
            };
            call.answer_chunk(answer.as_bytes(), true);
            assert_eq!(spent(&proxy, "acme"), 36);
            assert_eq!(proxy.metric(name), u64::from(is_odd));
            let total = call.fields.get("bursar_reported_total");
            assert_eq!(total.map(String::as_str), is_odd.then_some("900"));
        }
    }
}

#[test]
fn a_total_alone_is_charged_as_it_is() {
    let proxy = Proxy::new(&config());
    let mut call = proxy.chat("acme", BODY);
    call.answer_json(r#"{"choices":[{}],"usage":{"total_tokens":123}}"#);
    assert_eq!(spent(&proxy, "acme"), 123);
    assert_eq!(call.fields["bursar_settled_by"], "usage");
}
