//! What served is what is paid: the model, its service tier, and what of the prompt was cached.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

// A provider's own fallbacks may be dearer than what was sent.
#[test]
fn the_model_that_answered_is_the_one_that_is_paid() {
    let prices =
        |input: f64| serde_json::json!({"input": input, "cached_input": 0.0, "output": 0.0});
    for (answered, micros) in [
        ("light-2026-01-01", 1_000),
        ("light", 1_000),
        ("best-2026-01-01", 10_000),
        ("unknown", 1_000),
    ] {
        let proxy = Proxy::new(&serde_json::json!({
            "hold_headers": true,
            "tiers": [
                {"name": "a", "model": "best", "price": prices(10.0)},
                {"name": "b", "model": "light", "price": prices(1.0)},
            ],
            "tenants": {"acme": {"budget": {"initial_budget": 50, "unit": "usd", "window": "day"}}},
        }));
        let body = r#"{"model":"light","max_tokens":10,"stream":true}"#;
        for is_stream in [true, false] {
            let before = proxy
                .try_record("acme")
                .map_or(0, |record| record.account.spent.usd.0);
            let mut call = proxy.chat("acme", body);
            let report = r#""usage":{"prompt_tokens":1000,"completion_tokens":0}"#;
            let answer = match is_stream {
                true => format!("data: {{\"model\":\"{answered}\",\"choices\":[],{report}}}\n\n"),
                false => format!("{{\"model\":\"{answered}\",\"choices\":[],{report}}}"),
            };
            call.answer_headers("200", &[]);
            call.answer_chunk(answer.as_bytes(), true);
            let spent = proxy.record("acme").account.spent.usd.0 - before;
            assert_eq!(spent, micros, "{answered} {is_stream}");
        }
    }
}

/// Claude's answer of the model `light` with this usage, whole and as a stream that another model may have begun.
fn claude(first: &str, usage: &str) -> [String; 2] {
    [
        format!(
            r#"{{"type":"message","role":"assistant","model":"light","content":[],"usage":{usage}}}"#
        ),
        format!(
            "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{{\"model\":\"{first}\",\"usage\":{{\"input_tokens\":500,\"output_tokens\":1}}}}}}\n\n\
             event: message_delta\ndata: {{\"type\":\"message_delta\",\"delta\":{{}},\"usage\":{usage}}}\n\n\
             event: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"
        ),
    ]
}

/// A proxy after this request of `acme` was answered. The model `best` costs ten times what `light` does.
fn answered(body: &str, price: &impl Fn(f64) -> serde_json::Value, answer: &str) -> Proxy {
    let proxy = Proxy::new(&serde_json::json!({
        "hold_headers": true,
        "tiers": [
            {"name": "a", "model": "best", "price": price(10.0)},
            {"name": "b", "model": "light", "price": price(1.0)},
        ],
        "tenants": {"acme": {"budget": {"initial_budget": 50, "unit": "usd", "window": "day"}}},
    }));
    let headers = [
        (":method", "POST"),
        (":path", "/v1/messages"),
        ("x-tenant-id", "acme"),
        ("content-length", &body.len().to_string()),
    ];
    let mut call = proxy.request(&headers, false);
    call.send(&[body.as_bytes()]);
    call.answer_headers("200", &[]);
    call.answer_chunk(answer.as_bytes(), true);
    drop(call);
    proxy
}

// Claude may ask another Claude for advice: that one's tokens have its own price, and do not make the prompt of the asking one a long one.
#[test]
fn a_model_that_was_consulted_has_its_own_price() {
    let price = |rate: f64| {
        serde_json::json!({"input": rate, "cached_input": 0.0, "output": 5.0 * rate,
            "above": [{"input_tokens": 4_000, "input": 2.0 * rate, "output": 10.0 * rate}]})
    };
    let own = 2_000 + 5 * 100;
    for (adviser, advice) in [
        ("best-20260101", 10 * (3_000 + 5 * 200)),
        ("best", 10 * (3_000 + 5 * 200)),
        ("light", 3_000 + 5 * 200),
        ("unknown", 3_000 + 5 * 200),
    ] {
        let usage = format!(
            r#"{{"input_tokens":2000,"output_tokens":100,"iterations":[
                {{"type":"message","input_tokens":1000,"output_tokens":40}},
                {{"type":"advisor_message","model":"{adviser}","input_tokens":3000,"output_tokens":200}},
                {{"type":"message","input_tokens":1000,"output_tokens":60}}]}}"#
        );
        let usage = usage.replace('\n', "");
        for answer in claude("light", &usage) {
            let proxy = answered(
                r#"{"model":"light","max_tokens":400,"messages":[]}"#,
                &price,
                &answer,
            );
            let account = proxy.record("acme").account;
            assert_eq!(account.spent.usd.0, own + advice, "{adviser} {answer}");
            assert_eq!(account.spent.tokens.0, 2_100 + 3_200, "{adviser} {answer}");
        }
    }
}

// A model may begin an answer and decline it, and another one take over: both are paid, each at its price; and the last usage of a stream
// names the one that answered.
#[test]
fn an_answer_that_another_model_began_is_paid_as_well() {
    let price = |rate: f64| serde_json::json!({"input": rate, "output": 5.0 * rate});
    let (declined, took_over) = (10 * (500 + 5 * 3_000), 400 + 5 * 200);
    for (first, output, micros) in [
        ("best", 3_000, declined + took_over),
        ("best-20260101", 3_000, declined + took_over),
        // What is declined before it has begun is free.
        ("best", 0, took_over),
    ] {
        let step = |kind: &str, model: &str, input: u64, output: u64| {
            format!(
                r#"{{"type":"{kind}","model":"{model}","input_tokens":{input},"output_tokens":{output}}}"#
            )
        };
        let steps = [
            step("message", first, 500, output),
            step("fallback_message", "light", 400, 200),
        ];
        let usage = format!(
            r#"{{"input_tokens":400,"output_tokens":200,"iterations":[{}]}}"#,
            steps.join(",")
        );
        for answer in claude(first, &usage) {
            let proxy = answered(
                r#"{"model":"best","max_tokens":4000,"messages":[],"fallbacks":"default"}"#,
                &price,
                &answer,
            );
            let spent = proxy.record("acme").account.spent.usd.0;
            assert_eq!(spent, micros, "{first} {answer}");
        }
    }
}

// What served decides the price: its service tier, how long the cache keeps what was written, how long the prompt was.
// (issue 13: `service_tier: priority` at double, 1 h cache writes at the price of 5 min)
#[test]
fn what_served_is_what_is_paid() {
    let openai = |tier: &str, input: u64| {
        let usage = format!(r#""usage":{{"prompt_tokens":{input},"completion_tokens":100}}"#);
        [
            format!(r#"{{"model":"best","service_tier":"{tier}","choices":[{{}}],{usage}}}"#),
            format!(
                "data: {{\"service_tier\":\"{tier}\",\"choices\":[],{usage}}}\n\ndata: [DONE]\n\n"
            ),
        ]
    };
    let anthropic = |tier: &str| {
        let usage = format!(
            r#"{{"input_tokens":0,"cache_creation_input_tokens":100000,"cache_creation":{{"ephemeral_5m_input_tokens":40000,"ephemeral_1h_input_tokens":60000}},"cache_read_input_tokens":0,"output_tokens":0,"service_tier":"{tier}"}}"#
        );
        let message = format!(
            r#"{{"type":"message","role":"assistant","model":"best","content":[],"usage":{usage}}}"#
        );
        [
            message.clone(),
            format!(
                "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{message}}}\n\n\
                 event: message_delta\ndata: {{\"type\":\"message_delta\",\"delta\":{{}},\"usage\":{{\"output_tokens\":0}}}}\n\n\
                 event: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"
            ),
        ]
    };
    let (chat, messages) = ("/v1/chat/completions", "/v1/messages");
    for (path, answers, micros) in [
        (chat, openai("default", 1_000), 2_000 + 1_000),
        (chat, openai("priority", 1_000), 6_000),
        (chat, openai("flex", 1_000), 1_500),
        (chat, openai("another", 1_000), 3_000),
        (chat, openai("default", 200_000), 401_000),
        (chat, openai("default", 200_001), 800_004 + 2_000),
        (chat, openai("priority", 200_001), 1_600_008 + 4_000),
        (messages, anthropic("standard"), 100_000 + 240_000),
        (messages, anthropic("priority"), 680_000),
        (
            messages,
            anthropic(r#"standard","inference_geo":"us"#),
            510_000,
        ),
        (
            messages,
            anthropic(r#"priority","inference_geo":"us"#),
            680_000,
        ),
        (
            messages,
            anthropic(r#"standard","inference_geo":"global"#),
            340_000,
        ),
    ] {
        for hold in [true, false] {
            for (answer, is_stream) in answers.iter().zip([false, true]) {
                let proxy = Proxy::new(&serde_json::json!({
                    "hold_headers": hold,
                    "tiers": [{"name": "a", "model": "best", "price": {
                        "input": 2, "cached_input": 0.2, "cache_write": 2.5, "cache_write_1h": 4, "output": 10,
                        "service_tiers": {"priority": 2.0, "flex": 0.5, "us": 1.5},
                        "above": [{"input_tokens": 200_000, "input": 4, "output": 20}],
                    }}],
                    "tenants": {"acme": {"budget": {"initial_budget": 50, "unit": "usd", "window": "day"}}},
                }));
                let body = format!(r#"{{"model":"best","max_tokens":100,"stream":{is_stream}}}"#);
                let length = body.len().to_string();
                let headers = [
                    (":method", "POST"),
                    (":path", path),
                    ("x-tenant-id", "acme"),
                    ("content-length", &length),
                ];
                let mut call = proxy.request(&headers, false);
                call.send(&[body.as_bytes()]);
                let held = proxy.record("acme").account.held().usd.0;
                assert!(held >= 2 * (body.len() as u64 * 4 + 1_000), "{held}");
                call.answer_headers("200", &[]);
                call.answer_chunk(answer.as_bytes(), true);
                let spent = proxy.record("acme").account.spent.usd.0;
                assert_eq!(spent, micros, "{path} {answer} {hold}");
            }
        }
    }
}

#[test]
fn cached_tokens_are_never_more_than_the_prompt() {
    let proxy = Proxy::new(&config());
    let mut call = proxy.chat("acme", BODY);
    call.answer_json(r#"{"usage":{"prompt_tokens":5,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":50}}}"#);
    assert_eq!(call.fields["bursar_cached_tokens"], "5");
    assert_eq!(spent(&proxy, "acme"), 6);
}

// A client may leave before the answer names the tier that served; the dearer of what it asked for and none counts then, on every wire.
#[test]
fn a_service_tier_that_was_asked_for_is_paid_where_no_answer_names_another() {
    let chat = "/v1/chat/completions";
    let google = "/v1beta/models/best:generateContent";
    let none = ("x-y", "");
    let vertex = ("x-vertex-ai-llm-shared-request-type", "priority");
    let bedrock = ("x-amzn-bedrock-service-tier", "priority");
    let latency = ("x-amzn-bedrock-performanceconfig-latency", "optimized");
    for (path, header, asked, times) in [
        (chat, none, r#""service_tier":"priority""#, 2),
        (chat, none, r#""service_tier":"flex""#, 1),
        (chat, none, r#""service_tier":null"#, 1),
        (chat, none, r#""service_tier":"auto""#, 1),
        ("/v1/responses", none, r#""service_tier":"priority""#, 2),
        ("/v1/messages", none, r#""speed":"fast""#, 6),
        ("/v1/messages", none, r#""speed":"standard""#, 1),
        ("/v1/messages", none, r#""inference_geo":"us""#, 2),
        ("/v1/messages", none, r#""inference_geo":"global""#, 1),
        (google, none, r#""service_tier":"priority""#, 2),
        (google, none, r#""serviceTier":"SERVICE_TIER_PRIORITY""#, 2),
        (google, vertex, r#""x":1"#, 2),
        (
            "/model/best/converse",
            none,
            r#""serviceTier":{"type":"priority"}"#,
            2,
        ),
        (
            "/model/best/converse",
            none,
            r#""performanceConfig":{"latency":"optimized"}"#,
            3,
        ),
        (
            "/model/best/converse",
            none,
            r#""performanceConfig":{"latency":"standard"},"serviceTier":{"type":"priority"}"#,
            2,
        ),
        ("/model/best/invoke", latency, r#""x":1"#, 3),
        ("/model/best/invoke", bedrock, r#""x":1"#, 2),
        ("/model/best/invoke", none, r#""speed":"fast""#, 6),
    ] {
        for hold in [true, false] {
            let proxy = Proxy::new(&serde_json::json!({
                "hold_headers": hold,
                "tiers": [{"name": "a", "model": "best", "price": {
                    "input": 4, "cached_input": 1, "output": 10, "service_tiers": {"priority": 2.0, "flex": 0.5, "fast": 6.0, "optimized": 3.0, "us": 2.0},
                }}],
                "tenants": {"acme": {"budget": {"initial_budget": 50, "unit": "usd", "window": "day"}}},
            }));
            let body = format!(r#"{{"model":"best",{asked}}}"#);
            let length = body.len().to_string();
            let headers = [
                (":method", "POST"),
                (":path", path),
                ("x-tenant-id", "acme"),
                ("content-length", &length),
                header,
            ];
            let mut call = proxy.request(&headers, false);
            call.send(&[body.as_bytes()]);
            call.end();
            let plain = body.len().div_ceil(4) as u64 * 4;
            let spent = proxy.record("acme").account.spent.usd.0;
            assert_eq!(spent, plain * times, "{path} {asked} {hold}");
        }
    }
}

// Bedrock serves at the usual latency, and price, where the other is used up.
#[test]
fn latency_is_paid_as_it_was_served() {
    let usage = r#""usage":{"inputTokens":1000,"outputTokens":100}"#;
    for (path, header, body, micros) in [
        (
            "converse",
            "x",
            r#""performanceConfig":{"latency":"optimized"},"#,
            15_000,
        ),
        (
            "converse",
            "x",
            r#""performanceConfig":{"latency":"standard"},"#,
            5_000,
        ),
        ("converse", "x", "", 15_000),
        ("invoke", "optimized", "", 15_000),
        ("invoke", "standard", "", 5_000),
    ] {
        let proxy = Proxy::new(&serde_json::json!({
            "tiers": [{"name": "a", "model": "best", "price": {
                "input": 4, "output": 10, "service_tiers": {"optimized": 3.0},
            }}],
            "tenants": {"acme": {"budget": {"initial_budget": 50, "unit": "usd", "window": "day"}}},
        }));
        let header_name = "x-amzn-bedrock-performanceconfig-latency";
        let path = format!("/model/best/{path}");
        let headers = [
            (":method", "POST"),
            (":path", &path),
            ("x-tenant-id", "acme"),
            (header_name, "optimized"),
        ];
        let mut call = proxy.request(&headers, false);
        call.send(&[br#"{"performanceConfig":{"latency":"optimized"}}"#]);
        call.answer_headers("200", &[(header_name, header)]);
        call.answer_chunk(format!("{{{body}{usage}}}").as_bytes(), true);
        let spent = proxy.record("acme").account.spent.usd.0;
        assert_eq!(spent, micros, "{path} {header} {body}");
    }
}
