//! What has the status of an answer and is none.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn what_is_no_models_answer_costs_nothing() {
    let page = format!("<!DOCTYPE html>\n<p>{}</p>", "Sign in. ".repeat(5_000));
    let error = format!(
        r#"{{"error":{{"message":"{}","code":500}}}}"#,
        "no ".repeat(200)
    );
    let event = format!("data: {error}\n\n");
    let array = format!("[{error}]");
    for hold in [true, false] {
        for (path, body) in PATHS {
            for (kind, answer) in [
                ("text/html", &page),
                ("application/json", &page),
                ("", &page),
                ("text/plain", &"Please wait.".repeat(1_000)),
                ("application/json", &error),
                ("text/event-stream", &error),
                ("text/event-stream", &event),
                ("text/plain", &event),
                ("application/json", &array),
            ] {
                let proxy = Proxy::new(&with(|config| config["hold_headers"] = hold.into()));
                let headers = [
                    (":method", "POST"),
                    (":path", path),
                    ("x-tenant-id", "acme"),
                ];
                let mut call = proxy.request(&headers, false);
                call.send(&[body.as_bytes()]);
                call.answer_headers("200", &[("content-type", kind)]);
                call.answer_chunk(answer.as_bytes(), true);
                call.end();
                let got = (held(&proxy, "acme"), spent(&proxy, "acme"));
                assert_eq!(got, (0, 0), "{path} {kind} {answer}");
                assert_eq!(call.fields["bursar_settled_by"], "none");
                assert_eq!(call.response_body, answer.as_bytes());
                let failed = proxy.metric("bursar_exits_total.cause=.=upstream_failed;.;");
                assert_eq!(failed, 1);
            }
        }
    }
}

// Not all who answer 200 to what went wrong call it `error`. (CherryHQ/cherry-studio#11287)
#[test]
fn an_error_of_another_name_with_the_status_of_an_answer_costs_nothing() {
    for error in [
        r#"{"choices":null,"base_resp":{"status_code":1004,"status_msg":"no"}}"#,
        r#"{"error_code":336003,"error_msg":"no"}"#,
        r#"{"code":"Arrears","message":"no"}"#,
        r#"{"detail":[{"msg":"no"}]}"#,
        r#"{"errors":["no"]}"#,
    ] {
        for (kind, answer) in [
            ("application/json", error.to_owned()),
            ("text/event-stream", format!("data: {error}\n\n")),
        ] {
            for path in ["/v1/chat/completions", "/v1/completions"] {
                for chunk in [7, 900] {
                    let proxy = Proxy::new(&config());
                    let headers = [
                        (":method", "POST"),
                        (":path", path),
                        ("x-tenant-id", "acme"),
                    ];
                    let mut call = proxy.request(&headers, false);
                    call.send(&[STREAMED.as_bytes()]);
                    call.answer_headers("200", &[("content-type", kind)]);
                    for part in answer.as_bytes().chunks(chunk) {
                        call.answer_chunk(part, false);
                    }
                    call.answer_chunk(b"", true);
                    assert_eq!(spent(&proxy, "acme"), 0, "{answer}");
                    assert_eq!(call.response_body, answer.as_bytes());
                }
            }
        }
    }
    // Beside an answer it is none.
    let proxy = Proxy::new(&config());
    let mut call = proxy.chat("acme", BODY);
    call.answer_json(r#"{"code":0,"base_resp":{"status_code":0},"choices":[{}]}"#);
    assert_eq!(call.fields["bursar_settled_by"], "estimate");
}

// Some servers begin an answer with a sign that all is well (iFlytek's `code`, MiniMax's `base_resp`), and their client may leave in its
// midst.
#[test]
fn an_answer_that_is_cut_is_one_whatever_stands_before_it() {
    let words = "word ".repeat(8);
    for sign in [
        r#""code":0,"message":"Success""#,
        r#""base_resp":{"status_code":0}"#,
        r#""error_code":0"#,
        r#""code":"ok""#,
    ] {
        let answer = format!(r#"{{{sign},"choices":[{{"message":{{"content":"{words}"#);
        for (hold, chunk) in [(true, 900), (true, 1), (false, 900), (false, 7)] {
            let proxy = Proxy::new(&with(|config| config["hold_headers"] = hold.into()));
            let mut call = proxy.chat("acme", &BODY.replace("10", "99"));
            call.answer_headers("200", &[("content-type", "application/json")]);
            for part in answer.as_bytes().chunks(chunk) {
                call.answer_chunk(part, false);
            }
            call.end();
            assert_eq!(call.fields["bursar_settled_by"], "estimate", "{sign}");
            let output = (answer.len() as u64).div_ceil(4);
            assert_eq!(spent(&proxy, "acme"), 14 + output, "{sign}");
        }
    }
    // Where no answer has begun, it is an error.
    for rest in [
        "",
        ",",
        r#","choices":null"#,
        r#","choices":[]"#,
        r#","choices":[]}"#,
    ] {
        let proxy = Proxy::new(&config());
        let mut call = proxy.chat("acme", BODY);
        call.answer_headers("200", &[("content-type", "application/json")]);
        call.answer_chunk(format!(r#"{{"code":"Arrears"{rest}"#).as_bytes(), false);
        call.end();
        assert_eq!(spent(&proxy, "acme"), 0, "{rest}");
    }
}

// Events are looked at quickly where they come as a whole, and that must find the same.
#[test]
fn what_an_event_is_follows_from_its_own_keys_in_any_chunking() {
    let words = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n".repeat(5);
    for (event, is_content) in [
        (r#"{"id":1,"choices":[{"x":1}]}"#, true),
        (r#"{"id":1,"choices":[{"x":1}],"error":{"x":1}}"#, true),
        (r#"{"error":[{"message":"x"}]}"#, false),
        (r#"{"error":{"x":1,"choices":[{"x":1}]}}"#, false),
        (
            r#"{"error":{"x":1,"choices":[{"x":1}],"usage":null}"#,
            false,
        ),
        (r#"{"x":{},"choices":[{"x":1}]}"#, true),
        (r#"{"id":"{","choices":[{"x":1}]}"#, true),
    ] {
        let answer = format!("{words}data: {event}\n\n");
        let told = [1, 7, 900].map(|chunk| {
            let proxy = Proxy::new(&with(|config| {
                config["plans"]["small"]["budget"]["initial_budget"] = 100_000.into();
            }));
            let mut call = proxy.chat("acme", &STREAMED.replace("10", "99"));
            call.answer_headers("200", &[("content-type", "text/event-stream")]);
            for part in answer.as_bytes().chunks(chunk) {
                call.answer_chunk(part, false);
            }
            call.answer_chunk(b"", true);
            let told = &call.fields["bursar_output_tokens"];
            told.parse::<u64>().unwrap()
        });
        assert_eq!(told, [told[0]; 3], "{event}");
        assert_eq!(told[0] > 5, is_content, "{event}");
    }
}

// An error does not make what came before it free.
#[test]
fn an_error_after_words_costs_the_words() {
    let proxy = Proxy::new(&config());
    let mut call = proxy.chat("acme", STREAMED);
    call.answer_headers("200", &[("content-type", "text/event-stream")]);
    let words = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n".repeat(5);
    let error = "data: {\"error\":{\"message\":\"gone\"}}\n\n";
    call.answer_chunk(format!("{words}{error}").as_bytes(), true);
    assert_eq!(call.fields["bursar_settled_by"], "estimate");
    assert_eq!(call.fields["bursar_output_tokens"], "5");
}

// While a model thinks, OpenAI's API keeps the connection alive with events. (openai/openai-node#1964)
#[test]
fn an_event_that_keeps_a_connection_alive_is_no_answer() {
    let alive =
        "event: keepalive\ndata: {\"type\":\"keepalive\",\"sequence_number\":3}\n\n".repeat(30);
    let created = "data: {\"type\":\"response.created\",\"response\":{\"usage\":null}}\n\n";
    let failed =
        r#"{"type":"response.failed","response":{"error":{"code":"server_error"},"usage":null}}"#;
    let failed = format!("data: {failed}\n\n");
    for (answer, is_end, output) in [
        (format!("{created}{alive}{failed}"), true, None),
        (format!("{created}{alive}"), false, Some("0")),
    ] {
        for (hold, chunk) in [(true, 900), (true, 7), (false, 1)] {
            let proxy = Proxy::new(&with(|config| config["hold_headers"] = hold.into()));
            let headers = [
                (":method", "POST"),
                (":path", "/v1/responses"),
                ("x-tenant-id", "acme"),
            ];
            let mut call = proxy.request(&headers, false);
            call.send(&[br#"{"model":"gpt-4o","stream":true,"max_output_tokens":99}"#]);
            call.answer_headers("200", &[("content-type", "text/event-stream")]);
            for part in answer.as_bytes().chunks(chunk) {
                call.answer_chunk(part, false);
            }
            if is_end {
                call.answer_chunk(b"", true);
            }
            call.end();
            assert_eq!(call.response_body, answer.as_bytes());
            match output {
                Some(output) => assert_eq!(call.fields["bursar_output_tokens"], output),
                None => assert_eq!(spent(&proxy, "acme"), 0),
            }
        }
    }
}
