//! What the providers' wires look like: recorded and documented requests and answers (`tests/wire`), each in any chunking.
#![cfg(not(target_arch = "wasm32"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed set-up is a failed test"
)]

#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/store.rs"]
mod store;

use std::path::Path;

use bursar::base::units::Tokens;
use bursar::body::json::{Repeats, Scanner};
use bursar::http::Headers;
use bursar::provider::usage::UsageReader;
use bursar::provider::{Endpoint, Facts};
use bursar::tier::Needs;
use bursar::usage::{ServiceTier, Usage};
use proxy::{Call, Proxy};
use serde_json::{Value, json};

/// One file of `tests/wire`.
struct Case {
    name: String,
    json: Value,
}

/// All cases of a folder.
fn cases(folder: &str) -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/wire")
        .join(folder);
    let mut files: Vec<_> = path
        .read_dir()
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let read = |file: &Path| Case {
        name: format!("{folder}/{}", file.file_stem().unwrap().to_str().unwrap()),
        json: serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap(),
    };
    files.iter().map(|file| read(file)).collect()
}

impl Case {
    fn text(&self, pointer: &str) -> &str {
        self.json
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    fn expected(&self, key: &str) -> &Value {
        &self.json["expect"][key]
    }

    fn body(&self) -> &[u8] {
        self.text("/request/body").as_bytes()
    }

    fn request_headers(&self) -> Vec<(String, String)> {
        let mut headers = pairs(&self.json["request"]["headers"]);
        headers.retain(|(name, _)| name != "content-length");
        headers.push((
            ":method".to_owned(),
            self.text("/request/method").to_owned(),
        ));
        headers.push((":path".to_owned(), self.text("/request/path").to_owned()));
        headers
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::of(&as_headers(&self.request_headers()))
            .unwrap_or_else(|| panic!("{} is not metered", self.name))
    }

    fn response_headers(&self) -> Vec<(String, String)> {
        pairs(&self.json["response"]["headers"])
    }

    fn answer(&self) -> Vec<u8> {
        match self
            .json
            .pointer("/response/base64")
            .and_then(Value::as_str)
        {
            Some(text) => bursar::body::base64::decode(text.as_bytes()).unwrap(),
            None => self.text("/response/body").as_bytes().to_vec(),
        }
    }

    fn is_cut_off(&self) -> bool {
        self.name.ends_with("cut-off")
    }

    fn usage(&self) -> Option<Usage> {
        let usage = self.expected("usage").as_object()?;
        let tokens = |key: &str| usage.get(key).and_then(Value::as_u64).map(Tokens);
        let tier = usage.get("service_tier").and_then(Value::as_str);
        Some(Usage {
            cache_write_1h: tokens("cache_write_1h"),
            other_total: tokens("other_total"),
            service_tier: tier.and_then(ServiceTier::of),
            input: tokens("input"),
            cached_input: tokens("cached_input"),
            cache_write: tokens("cache_write"),
            output: tokens("output"),
        })
    }
}

fn pairs(object: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let object = object.as_object().into_iter().flatten();
    object
        .map(|(name, value)| (name.to_lowercase(), text(value)))
        .collect()
}

fn as_headers(pairs: &[(String, String)]) -> Headers {
    let bytes = |text: &String| text.clone().into_bytes();
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| (bytes(name), bytes(value)))
        .collect()
}

/// The bytes in two, cut everywhere, and byte by byte.
fn splits(bytes: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    let in_two = (0..=bytes.len()).map(|at| {
        let (head, tail) = bytes.split_at(at);
        vec![head, tail]
    });
    in_two.chain([bytes.chunks(1).collect()])
}

/// What the body asks for.
fn facts(case: &Case, chunks: &[&[u8]]) -> Facts {
    let wire = case.endpoint().wire;
    let mut scanner = Scanner::new(wire.request(), Repeats::Refuse);
    for chunk in chunks {
        scanner.feed(chunk).unwrap();
    }
    wire.facts(&scanner)
        .unwrap_or_else(|fault| panic!("{}: {fault}", case.name))
}

fn needs(names: &Value) -> Needs {
    let one = |name: &Value| match name.as_str().unwrap() {
        "tools" => Needs::TOOLS,
        "images" => Needs::IMAGES,
        "structured_output" => Needs::STRUCTURED_OUTPUT,
        "thinking" => Needs::THINKING,
        "adaptive_thinking" => Needs::ADAPTIVE_THINKING,
        "effort" => Needs::EFFORT,
        "signed_thinking" => Needs::SIGNED_THINKING,
        "cache_settings" => Needs::CACHE_SETTINGS,
        "recent_features" => Needs::RECENT_FEATURES,
        other => panic!("{other}"),
    };
    names
        .as_array()
        .unwrap()
        .iter()
        .fold(Needs::NONE, |all, name| all | one(name))
}

// A lower model may lack tools, vision or structured output, or reject signed thinking.
fn check_facts(case: &Case) {
    let limit = case.expected("output_limit").as_u64().map(Tokens);
    for chunks in splits(case.body()) {
        let facts = facts(case, &chunks);
        assert_eq!(facts.output_limit, limit, "{}", case.name);
        let cached = Needs::CACHED_PROMPT.when(case.expected("bound") == true);
        let needs = needs(case.expected("needs")) | cached;
        assert_eq!(facts.needs, needs, "{}", case.name);
        assert_eq!(
            facts.is_deferred,
            case.expected("deferred") == true,
            "{}",
            case.name
        );
        let least = case.expected("least_output").as_u64().unwrap_or(1);
        assert_eq!(facts.least_output.max(1), least, "{}", case.name);
    }
}

fn check_usage(case: &Case) {
    let wire = case.endpoint().wire;
    let answer = case.answer();
    let headers = as_headers(&case.response_headers());
    for chunks in splits(&answer) {
        let mut reader = UsageReader::new(wire, &headers, false);
        for chunk in chunks {
            assert_eq!(reader.feed(chunk, false), None);
        }
        reader.feed(b"", !case.is_cut_off());
        let (reported, _) = reader.reported();
        let is_named = |key: &str| case.expected("usage").get(key).is_some();
        let reported = reported.map(|usage| Usage {
            cache_write_1h: usage.cache_write_1h.filter(|_| is_named("cache_write_1h")),
            service_tier: usage.service_tier.filter(|_| is_named("service_tier")),
            ..usage
        });
        assert_eq!(reported, case.usage(), "{}", case.name);
    }
}

/// A ladder of the asked model and the one that is to take its place, and a tenant whose budget is low.
fn proxy(case: &Case, hold: bool) -> Proxy {
    let lower = case
        .json
        .pointer("/expect/rewritten/model")
        .and_then(Value::as_str);
    let mut all = vec![
        "tools",
        "images",
        "structured_output",
        "thinking",
        "adaptive_thinking",
        "effort",
        "signed_thinking",
        "cache_settings",
        "recent_features",
    ];
    if case.expected("bound") != true {
        all.push("cached_prompt");
    }
    let proxy = Proxy::new(&json!({
        "hold_headers": hold,
        "ladders": [{"match": ["*"], "tiers": [
            {"name": "a", "model": "the-best"},
            {"name": "b", "model": lower.unwrap_or("another"), "below": 0.5, "supports": all},
        ]}],
        "tenants": {"acme": {"budget": {"initial_budget": 10_000_000, "window": "day"}}},
    }));
    proxy.served("acme", r#"{"model":"-","max_tokens":1}"#, 6_000_000, 0);
    proxy
}

fn call<'a>(proxy: &'a Proxy, case: &Case, chunks: &[&[u8]]) -> Call<'a> {
    let length = case.body().len().to_string();
    let mut headers = case.request_headers();
    headers.push(("x-tenant-id".to_owned(), "acme".to_owned()));
    headers.push(("content-length".to_owned(), length));
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let mut call = proxy.request(&headers, false);
    call.send(chunks);
    assert_eq!(call.refused(), None, "{}", case.name);
    call
}

// `model` may come first or last, nested, escaped, or as text within a string. Only the model's bytes change:
// digits, key order and white space stay. Gemini, Azure and Bedrock carry the model in the path.
fn check_rewriting(case: &Case) {
    let rewritten = case.expected("rewritten");
    for hold in [true, false] {
        let proxy = proxy(case, hold);
        for chunks in splits(case.body()) {
            let mut call = call(&proxy, case, &chunks);
            let path = call.upstream_header(":path").unwrap();
            if rewritten.is_null() {
                assert_eq!(path, case.text("/request/path"), "{}", case.name);
                assert!(
                    call.upstream_body == case.body(),
                    "{}: {}",
                    case.name,
                    call.upstream_text()
                );
            } else {
                assert_eq!(path, rewritten["path"], "{}", case.name);
                assert_eq!(call.upstream_text(), rewritten["body"], "{}", case.name);
            }
            let length = call.upstream_header("content-length");
            let expected = hold.then(|| call.upstream_body.len().to_string());
            assert_eq!(length, expected.as_deref(), "{}", case.name);
            call.end();
        }
    }
}

// Usage as each provider reports it, or does not, at every split.
fn check_answer(case: &Case) {
    let proxy = proxy(case, true);
    let answer = case.answer();
    let seen = case
        .json
        .pointer("/expect/client_body")
        .and_then(Value::as_str)
        .map(str::as_bytes);
    let half = answer.len() / 2;
    let (head, tail) = answer.split_at(half);
    for chunks in [
        vec![answer.as_slice()],
        vec![head, tail],
        answer.chunks(1).collect(),
    ] {
        let mut call = call(&proxy, case, &[case.body()]);
        let headers = case.response_headers();
        let status = case.json["response"]["status"].to_string();
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        call.answer_headers(&status, &headers);
        for chunk in chunks {
            call.answer_chunk(chunk, false);
        }
        if !case.is_cut_off() {
            call.answer_chunk(b"", true);
        }
        call.end();
        assert!(
            call.response_body == seen.unwrap_or(&answer),
            "{}: the client sees other bytes",
            case.name
        );
        check_settlement(case, &call);
    }
}

fn check_settlement(case: &Case, call: &Call<'_>) {
    let by = call.fields["bursar_settled_by"].as_str();
    match case.usage() {
        None => assert_ne!(by, "usage", "{}", case.name),
        Some(usage) if !case.is_cut_off() => {
            let told = |key: &str| {
                call.fields
                    .get(key)
                    .and_then(|value| value.parse().ok())
                    .map(Tokens)
            };
            if usage.is_whole() {
                assert_eq!(by, "usage", "{}", case.name);
                assert_eq!(told("bursar_output_tokens"), usage.output, "{}", case.name);
            }
            assert_eq!(told("bursar_input_tokens"), usage.input, "{}", case.name);
        }
        Some(_) => {}
    }
}

fn check(folder: &str) {
    for case in cases(folder) {
        check_facts(&case);
        check_usage(&case);
        check_rewriting(&case);
        check_answer(&case);
    }
}

#[test]
fn openai() {
    check("openai");
}

#[test]
fn compatible_servers() {
    check("compatible");
}

#[test]
fn azure() {
    check("azure");
}

#[test]
fn anthropic() {
    check("anthropic");
}

#[test]
fn gemini() {
    check("gemini");
}

#[test]
fn vertex() {
    check("vertex");
}

#[test]
fn bedrock() {
    check("bedrock");
}

// What is no LLM call is neither charged nor blocked.
#[test]
fn all_else_is_not_metered() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/unmetered.json");
    let json: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for request in json["requests"].as_array().unwrap() {
        let text = |key: &str| request[key].as_str().unwrap().to_owned();
        let headers = [
            (":method".to_owned(), text("method")),
            (":path".to_owned(), text("path")),
        ];
        assert!(Endpoint::of(&as_headers(&headers)).is_none(), "{request}");
    }
}
