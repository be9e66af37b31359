//! Ways around the meter, the downgrade and the limits that tenants may try, each shut.

mod hiding;
mod limits;
mod unending;

use crate::opening::{CHAT, held};
use crate::proxy::{Call, Proxy};
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// A ladder for every model, and `acme` with 10,000 tokens a day.
fn config() -> Value {
    json!({
        "ladders": [{"match": ["*"], "tiers": [
            {"name": "best", "model": "best"},
            {"name": "light", "model": "light", "below": 0.5},
        ]}],
        "tenants": {"acme": {"budget": {"initial_budget": 10_000, "window": "day"}}},
    })
}

fn with(change: impl Fn(&mut Value)) -> Proxy {
    let mut config = config();
    change(&mut config);
    Proxy::new(&config)
}

/// A request of `acme` in these chunks.
fn post<'a>(proxy: &'a Proxy, path: &str, more: &[(&str, &str)], chunks: &[&str]) -> Call<'a> {
    let mut headers = vec![
        (":method", "POST"),
        (":path", path),
        ("x-tenant-id", "acme"),
    ];
    headers.extend(more);
    let mut call = proxy.request(&headers, false);
    let chunks: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.as_bytes()).collect();
    call.send(&chunks);
    call
}

fn spend(proxy: &Proxy, tokens: u64) {
    proxy.served("acme", r#"{"model":"light","max_tokens":1}"#, tokens, 0);
}

// What shows another credential is not signed, whatever its path says.
#[test]
fn a_signature_that_means_nothing_to_the_upstream_keeps_nothing_as_it_is() {
    let body = r#"{"model":"best","max_tokens":10,"stream":true}"#;
    for (path, authorization) in [
        ("/v1/chat/completions?X-Amz-Signature=x", "Bearer x"),
        ("/X-Amz-Signature=/../v1/chat/completions", "Bearer x"),
    ] {
        let proxy = with(|_| {});
        spend(&proxy, 6_000);
        let call = post(&proxy, path, &[("authorization", authorization)], &[body]);
        assert_eq!(call.upstream_header("accept-encoding"), Some("identity"));
        assert_eq!(
            call.upstream_text(),
            r#"{"model":"light","max_tokens":10,"stream":true,"stream_options":{"include_usage":true}}"#,
            "{path}"
        );
    }
}

// Bedrock has OpenAI's API, too. A stream that cannot be asked for its usage then costs what was reserved for it.
#[test]
fn a_signed_request_is_forwarded_as_it_came_on_any_path() {
    let signature = [("authorization", "AWS4-HMAC-SHA256 Credential=x")];
    let body = r#"{"model":"best","max_tokens":70,"stream":true,"stream_options":null}"#;
    for path in ["/openai/v1/chat/completions", CHAT] {
        for hold in [true, false] {
            let proxy = with(|config| config["hold_headers"] = hold.into());
            spend(&proxy, 6_000);
            let mut call = post(&proxy, path, &signature, &[body]);
            assert_eq!(call.upstream_text(), body);
            assert_eq!(call.upstream_header("accept-encoding"), None);
            call.answer_headers("200", &[("content-type", "text/event-stream")]);
            call.answer_chunk(b"data: {\"choices\":[{}]}\n\ndata: [DONE]\n\n", true);
            assert_eq!(call.fields["bursar_output_tokens"], "70");
            assert_eq!(call.fields["bursar_reason"], "request_signed");
        }
    }
}

#[test]
fn prompts_are_counted_however_they_are_set() {
    let space = " ".repeat(40);
    for (prompt, prompts) in [
        (format!(r#"[{space}"a","b","c"]"#), 3),
        (format!("[\"a\",{space}\"b\"]"), 2),
        (format!("[{space}[1,2],[3]]"), 2),
        (r#""a, b""#.to_owned(), 1),
        ("[1,2,3]".to_owned(), 1),
    ] {
        let proxy = with(|_| {});
        let body = format!(r#"{{"model":"best","max_tokens":100,"prompt":{prompt}}}"#);
        let call = post(&proxy, "/v1/completions", &[], &[&body]);
        assert_eq!(call.refused(), None);
        assert_eq!(
            held(&proxy, "acme"),
            body.len() as u64 + prompts * 100,
            "{prompt}"
        );
    }
}

// It goes on without the client, who may come back for the answer with another request.
#[test]
fn a_background_answer_that_is_not_waited_for_is_charged_as_it_was_reserved() {
    let answer = "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"r\",\"usage\":null}}\n\n";
    let end = "data: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":3,\"output_tokens\":4}}}\n\n";
    let body = r#"{"model":"best","background":true,"stream":true,"max_output_tokens":2000}"#;
    for (events, output) in [(answer.to_owned(), 2_000), ([answer, end].concat(), 4)] {
        let proxy = with(|_| {});
        let mut call = post(&proxy, "/v1/responses", &[], &[body]);
        call.answer_headers("200", &[("content-type", "text/event-stream")]);
        call.answer_chunk(events.as_bytes(), false);
        call.end();
        assert_eq!(call.fields["bursar_output_tokens"], output.to_string());
        assert_eq!(held(&proxy, "acme"), 0);
    }
}

// A stored prompt brings a model of its own, which no ladder knows; so do agents of Azure's Foundry, and Perplexity's presets.
#[test]
fn a_model_that_is_not_named_is_neither_exchanged_nor_said_to_be() {
    for body in [
        r#"{"prompt":{"id":"p"},"max_output_tokens":20}"#,
        r#"{"input":"x","agent_reference":{"name":"a","type":"agent_reference"}}"#,
        r#"{"agent":{"name":"a","type":"agent_reference"},"stream":true}"#,
        r#"{"preset":"pro-search","input":"x"}"#,
    ] {
        for hold in [true, false] {
            let proxy = with(|config| config["hold_headers"] = hold.into());
            spend(&proxy, 6_000);
            let mut call = post(&proxy, "/v1/responses", &[], &[body]);
            assert_eq!(call.upstream_text(), body);
            call.answer_headers("200", &[]);
            assert_eq!(call.response_header("x-bursar-decision"), Some("admit"));
            assert_eq!(call.response_header("x-bursar-reason"), Some("model_bound"));
        }
    }
}

#[test]
fn a_body_without_a_length_goes_on_changed_however_much_of_it_is_kept_back() {
    let (before, after) = ("x".repeat(90), "y".repeat(400));
    let body = format!(r#"{{"a":"{before}","max_tokens":300,"model":"best","b":"{after}"}}"#);
    let lower = body.replace("best", "light");
    for (path, room, size) in [CHAT, "/v1/messages"].iter().flat_map(|path| {
        (90..150).flat_map(move |room| [1, 40, 150].map(|size| (path, room, size)))
    }) {
        let proxy = with(|config| {
            config["hold_headers"] = true.into();
            config["hold_bytes"] = room.into();
            let tiers = &mut config["ladders"][0]["tiers"];
            tiers[1]["max_output_tokens"] = 100.into();
            tiers[1]["supports"] = json!([
                "tools",
                "images",
                "structured_output",
                "thinking",
                "adaptive_thinking",
                "effort",
                "signed_thinking",
                "recent_features"
            ]);
            // What this one cannot do is not known to be needed before the end.
            tiers
                .as_array_mut()
                .unwrap()
                .push(json!({"name": "least", "model": "least", "supports": []}));
        });
        spend(&proxy, 6_000);
        let chunks: Vec<&str> = body
            .as_bytes()
            .chunks(size)
            .map(|chunk| std::str::from_utf8(chunk).unwrap())
            .collect();
        let call = post(&proxy, path, &[], &chunks);
        let output = if call.upstream_text() == lower {
            300
        } else {
            100
        };
        let limited = lower.replace("300", &output.to_string());
        assert_eq!(
            call.upstream_text(),
            limited,
            "{path}, room {room}, chunks of {size}"
        );
        assert_eq!(held(&proxy, "acme"), body.len() as u64 + output);
    }
}

#[test]
fn a_key_may_be_escaped_in_all_of_its_letters() {
    let escaped: String = "additionalModelRequestFields"
        .bytes()
        .map(|byte| format!("\\u{byte:04x}"))
        .collect();
    let proxy = with(|_| {});
    let body = format!(r#"{{"{escaped}":{{"max_tokens":3000}}}}"#);
    post(&proxy, "/model/best/converse", &[], &[&body]);
    assert_eq!(held(&proxy, "acme"), body.len() as u64 + 3_000);
}

// An array may begin after white space that came by itself.
#[test]
fn usage_is_found_in_an_array_that_does_not_begin_with_its_first_bytes() {
    let proxy = with(|_| {});
    let body = r#"{"generationConfig":{"maxOutputTokens":9}}"#;
    let mut call = post(
        &proxy,
        "/v1beta/models/best:streamGenerateContent",
        &[],
        &[body],
    );
    call.answer_headers("200", &[("content-type", "application/json")]);
    for chunk in [
        "\n ",
        "[{\"usageMetadata\":{\"promptTokenCount\":7,\"totalTokenCount\":9}}",
        "]",
    ] {
        call.answer_chunk(chunk.as_bytes(), false);
    }
    call.answer_chunk(b"", true);
    assert_eq!(call.fields["bursar_settled_by"], "usage");
    assert_eq!(proxy.record("acme").account.spent.tokens.0, 9);
}

// Trailers end a message as well as its last byte does.
#[test]
fn an_answer_that_ends_with_trailers_is_not_cut() {
    let proxy = with(|_| {});
    let body = r#"{"generationConfig":{"maxOutputTokens":9}}"#;
    let path = "/v1beta/models/best:streamGenerateContent?alt=sse";
    let mut call = post(&proxy, path, &[], &[body]);
    call.answer_headers("200", &[("content-type", "text/event-stream")]);
    call.answer_chunk(
        b"data: {\"usageMetadata\":{\"promptTokenCount\":7,\"totalTokenCount\":9}}\n\n",
        false,
    );
    call.answer_trailers(&[]);
    call.end();
    assert_eq!(call.fields["bursar_settled_by"], "usage");
    assert_eq!(proxy.metric("bursar_exits_total.cause=.=answered;.;"), 1);
    assert_eq!(proxy.metric("bursar_exits_total.cause=.=cut;.;"), 0);
}
