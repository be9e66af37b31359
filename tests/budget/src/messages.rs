//! Requests and answers as clients and providers write them.

use crate::proxy::Message;

/// The requested model.
pub const ASKED: &str = "gpt-4o";

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// A request as OpenAI's SDK for Python sends it, as Envoy shows it to its filters.
pub fn request(tenant: &str, body: &str, chunk: usize, has_length: bool) -> Message {
    let mut headers = pairs(&[
        (":authority", "llm.example.com"),
        (":path", "/v1/chat/completions"),
        (":method", "POST"),
        (":scheme", "http"),
        ("accept-encoding", "gzip, deflate"),
        ("accept", "application/json"),
        ("content-type", "application/json"),
        ("user-agent", "OpenAI/Python 1.99.1"),
        ("x-stainless-lang", "python"),
        ("x-stainless-package-version", "1.99.1"),
        ("x-stainless-os", "Linux"),
        ("x-stainless-arch", "x64"),
        ("x-stainless-runtime", "CPython"),
        ("x-stainless-runtime-version", "3.12.3"),
        (
            "authorization",
            "Bearer sk-0123456789abcdefghijklmnopqrstuvwxyz0123456789",
        ),
        ("x-stainless-async", "false"),
        ("x-stainless-retry-count", "0"),
        ("x-stainless-read-timeout", "600"),
        ("x-tenant-id", tenant),
        ("x-forwarded-proto", "http"),
        ("x-request-id", "d2e1b1f0-7b8a-4f0e-9f63-5a9c1f7d3f10"),
        ("x-envoy-expected-rq-timeout-ms", "15000"),
    ]);
    if has_length {
        headers.push(("content-length".to_owned(), body.len().to_string()));
    }
    Message {
        headers,
        chunks: chunks(body.as_bytes(), chunk),
        ..Message::default()
    }
}

pub fn listing() -> Message {
    let mut request = request("tenant-0", "", 1, false);
    request.chunks.clear();
    for (name, value) in &mut request.headers {
        match name.as_str() {
            ":method" => "GET".clone_into(value),
            ":path" => "/v1/models".clone_into(value),
            _ => {}
        }
    }
    request
}

/// About so many bytes of a chat, `model` last as that SDK writes it: words, with an escape now and then.
pub fn prompt(size: usize) -> String {
    let words = [
        "the",
        "invoice",
        "of",
        "March",
        "is",
        "larger",
        "than",
        "expected,",
        "because",
        "two",
        "tenants",
        "were",
        "moved",
        "to",
        "the",
        "plan",
        "without",
        "a",
        "limit.\\n",
        "She",
        "said",
        "\\\"later\\\"",
        "and",
        "left",
        "für",
        "Łódź",
    ];
    let mut body = String::from(
        r#"{"messages":[{"role":"system","content":"You are a helpful assistant."},{"role":"user","content":""#,
    );
    let mut state = 1_u64;
    while body.len() + 70 < size {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        body += words[(state >> 33) as usize % words.len()];
        body += " ";
    }
    body + r#""}],"max_tokens":256,"temperature":0.2,"model":""# + ASKED + r#""}"#
}

/// About so many bytes of a chat that is all structure.
pub fn tiny_messages(size: usize) -> String {
    let turn = r#"{"role":"user","content":"Hi"},{"role":"assistant","content":[{"type":"text","text":"ok"}]},"#;
    let turns = turn.repeat(size / turn.len());
    let last = r#"{"role":"user","content":"So?"}"#;
    format!(r#"{{"messages":[{turns}{last}],"max_tokens":256,"model":"{ASKED}"}}"#)
}

fn chunks(body: &[u8], size: usize) -> Vec<Vec<u8>> {
    body.chunks(size).map(<[u8]>::to_vec).collect()
}

fn headers_of_answer(content_type: &str) -> Vec<(String, String)> {
    pairs(&[
        (":status", "200"),
        ("date", "Thu, 15 Jan 2026 12:00:00 GMT"),
        ("content-type", content_type),
        ("openai-organization", "example"),
        ("openai-processing-ms", "312"),
        ("openai-version", "2020-10-01"),
        ("x-ratelimit-limit-requests", "10000"),
        ("x-ratelimit-limit-tokens", "2000000"),
        ("x-ratelimit-remaining-requests", "9999"),
        ("x-ratelimit-remaining-tokens", "1999975"),
        ("x-ratelimit-reset-requests", "6ms"),
        ("x-ratelimit-reset-tokens", "0s"),
        ("x-request-id", "req_0123456789abcdef0123456789abcdef"),
        ("server", "envoy"),
        ("x-envoy-upstream-service-time", "314"),
    ])
}

pub fn body_of_answer(used: u64) -> String {
    let usage = format!(
        r#"{{"prompt_tokens":{used},"completion_tokens":38,"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":0}}}}"#,
        used + 38
    );
    let text = "It is larger since two tenants have no limit any more. ".repeat(4);
    format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1768478400,"model":"gpt-4o-2024-08-06","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{usage}}}"#
    )
}

pub fn answer() -> Message {
    let body = body_of_answer(61);
    let mut headers = headers_of_answer("application/json");
    headers.push(("content-length".to_owned(), body.len().to_string()));
    Message {
        headers,
        chunks: chunks(body.as_bytes(), 65_536),
        ..Message::default()
    }
}

/// A stream whose first event has so many bytes of lines that are no data, and two that are.
pub fn lines(size: usize) -> Message {
    let Message {
        headers, chunks, ..
    } = stream(Some(usize::MAX));
    let answer = [
        ":\n".repeat(size / 2).into_bytes(),
        b"data: \n".to_vec(),
        chunks.concat(),
    ]
    .concat();
    Message {
        headers,
        chunks: vec![answer],
        ..Message::default()
    }
}

/// A request of about so many bytes with a long list of tools, behind options of nearly 1 KB for its stream.
pub fn many_tools(size: usize) -> String {
    let options: Vec<String> = (0..100)
        .map(|index| format!(r#""o{index}":{index}"#))
        .collect();
    let tools = vec!["7"; size / 2].join(",");
    format!(
        r#"{{"model":"{ASKED}","stream":true,"stream_options":{{{}}},"tools":[{tools}],"messages":[{{"role":"user","content":"Hello"}}]}}"#,
        options.join(",")
    )
}

/// A body of keys that are not ASCII or have escapes, some of them as long as those that matter.
pub fn many_keys(size: usize) -> String {
    let keys = r#""é":1,"\u0065":1,"mod\u00e9l":1,"Straße":1,"\u006d\u006f\u0064\u0065":1,"#;
    let keys = keys.repeat(size / 2 / keys.len());
    let message = format!(r#"{{{keys}"role":"user","content":"Hi"}}"#);
    format!(r#"{{{keys}"messages":[{message}],"max_tokens":256,"model":"{ASKED}"}}"#)
}

/// 200 events and the usage that bursar asked for; `None`: each event by itself.
pub fn stream(chunk: Option<usize>) -> Message {
    let event = |rest: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1768478400,\"model\":\"gpt-4o-2024-08-06\",\
             \"service_tier\":\"default\",\"system_fingerprint\":\"fp_ee1d74bde0\",{rest}}}\n\n"
        )
    };
    let delta = |index: usize| {
        event(&format!(
            r#""choices":[{{"index":0,"delta":{{"content":" word{index}"}},"logprobs":null,"finish_reason":null}}],"usage":null"#
        ))
    };
    let usage = event(
        r#""choices":[],"usage":{"prompt_tokens":61,"completion_tokens":200,"total_tokens":261}"#,
    );
    let mut events: Vec<String> = (0..200).map(delta).collect();
    events.push(usage);
    events.push("data: [DONE]\n\n".to_owned());
    let chunks = match chunk {
        None => events.into_iter().map(String::into_bytes).collect(),
        Some(size) => chunks(events.concat().as_bytes(), size),
    };
    Message {
        headers: headers_of_answer("text/event-stream"),
        chunks,
        ..Message::default()
    }
}
