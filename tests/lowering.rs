//! Tiers that say what they support and how long they answer, and plans that shorten answers to what is left.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a failed set-up is a failed test"
)]

#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/store.rs"]
mod store;

use proxy::{Call, Proxy, usage};
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Two tiers for every model, and 10,000 tokens a day for `acme`.
fn config() -> Value {
    json!({
        "ladders": [{"match": ["*"], "tiers": [
            {"name": "best", "model": "best"},
            {"name": "light", "model": "light", "below": 0.5},
        ]}],
        "tenants": {"acme": {"budget": {"initial_budget": 10_000, "window": "day"}}},
    })
}

fn with(hold: bool, change: impl Fn(&mut Value)) -> Proxy {
    let mut config = config();
    config["hold_headers"] = hold.into();
    change(&mut config);
    Proxy::new(&config)
}

/// All that a request may need.
fn everything() -> Value {
    json!([
        "tools",
        "images",
        "structured_output",
        "thinking",
        "signed_thinking",
        "cached_prompt"
    ])
}

/// A request of `acme` with its length, in these chunks.
fn post<'a>(proxy: &'a Proxy, path: &str, chunks: &[&str]) -> Call<'a> {
    let length = chunks.concat().len().to_string();
    let mut call = proxy.request(
        &[
            (":method", "POST"),
            (":path", path),
            ("x-tenant-id", "acme"),
            ("content-length", &length),
        ],
        false,
    );
    let chunks: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.as_bytes()).collect();
    call.send(&chunks);
    call
}

fn held(proxy: &Proxy) -> u64 {
    proxy.record("acme").account.held().tokens.0
}

fn spent(proxy: &Proxy) -> u64 {
    proxy.record("acme").account.spent.tokens.0
}

fn spend(proxy: &Proxy, tokens: u64) {
    proxy.served("acme", r#"{"model":"light","max_tokens":1}"#, tokens, 0);
}

const CHAT: &str = "/v1/chat/completions";

// Anthropic refuses a limit that is not above what the thinking may take, wherever that stands.
#[test]
fn no_limit_is_lowered_to_less_than_the_thinking_may_take() {
    let thinking = r#""thinking":{"type":"enabled","budget_tokens":1500}"#;
    for (path, body) in [
        ("/v1/messages", format!(r#"{{"model":"best","max_tokens":4000,"messages":[],{thinking}}}"#)),
        (
            "/v1/projects/p/locations/l/publishers/anthropic/models/best:rawPredict",
            format!(r#"{{"max_tokens":4000,"messages":[],{thinking}}}"#),
        ),
        (
            "/model/best/converse",
            format!(r#"{{"inferenceConfig":{{"maxTokens":4000}},"additionalModelRequestFields":{{{thinking}}}}}"#),
        ),
        (
            "/model/best/converse",
            r#"{"inferenceConfig":{"maxTokens":4000},"additionalModelRequestFields":{"reasoning_config":{"budget_tokens":1500}}}"#.to_owned(),
        ),
        (
            "/model/anthropic.best/invoke",
            format!(r#"{{"max_tokens":4000,"messages":[],{thinking}}}"#),
        ),
    ] {
        for hold in [true, false] {
            for split in 0..=body.len() {
                let proxy = with(hold, |config| {
                    config["tenants"]["acme"]["never_downgrade"] = true.into();
                    config["ladders"][0]["tiers"][0]["max_output_tokens"] = 100.into();
                });
                let (head, tail) = body.split_at(split);
                let mut call = post(&proxy, path, &[head, tail]);
                let limited = body.replace("4000", "1501");
                assert_eq!(call.upstream_text(), limited, "split at {split}, held: {hold}");
                assert_eq!(held(&proxy), body.len() as u64 + 1_501);
                call.answer_headers("200", &[]);
                assert_eq!(call.response_header("x-bursar-max-output-tokens"), Some("1501"));
            }
        }
    }
}

const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";
const GEMINI: &str = "/v1beta/models/best:generateContent";
const CONVERSE: &str = "/model/best/converse";
const INVOKE: &str = "/model/anthropic.best/invoke";

/// A body of each wire for each need; it asks for the best model, in its path or here.
const NEEDY: [(&str, &str, &str); 34] = [
    (CHAT, "tools", r#""tools":[{"type":"function"}]"#),
    (CHAT, "tools", r#""functions":[{}]"#),
    (CHAT, "tools", r#""messages":[{"tool_calls":[{}]}]"#),
    (
        CHAT,
        "images",
        r#""messages":[{"content":[{"type":"image_url"}]}]"#,
    ),
    (
        CHAT,
        "images",
        r#""messages":[{"content":[{"type":"input_audio"}]}]"#,
    ),
    (
        CHAT,
        "images",
        r#""messages":[{"content":[{"type":"file"}]}]"#,
    ),
    (
        CHAT,
        "structured_output",
        r#""response_format":{"type":"json_schema"}"#,
    ),
    (CHAT, "thinking", r#""reasoning_effort":"high""#),
    (MESSAGES, "tools", r#""tools":[{"name":"f"}]"#),
    (
        MESSAGES,
        "tools",
        r#""messages":[{"content":[{"type":"tool_use"}]}]"#,
    ),
    (
        MESSAGES,
        "images",
        r#""messages":[{"content":[{"type":"image"}]}]"#,
    ),
    (
        MESSAGES,
        "images",
        r#""messages":[{"content":[{"type":"document"}]}]"#,
    ),
    (
        MESSAGES,
        "structured_output",
        r#""output_config":{"format":{"type":"json_schema"}}"#,
    ),
    (MESSAGES, "thinking", r#""thinking":{"type":"adaptive"}"#),
    (
        MESSAGES,
        "signed_thinking",
        r#""messages":[{"content":[{"type":"redacted_thinking"}]}]"#,
    ),
    (RESPONSES, "tools", r#""tools":[{"type":"web_search"}]"#),
    (
        RESPONSES,
        "tools",
        r#""input":[{"type":"function_call_output"}]"#,
    ),
    (
        RESPONSES,
        "images",
        r#""input":[{"content":[{"type":"input_image"}]}]"#,
    ),
    (
        RESPONSES,
        "structured_output",
        r#""text":{"format":{"type":"json_object"}}"#,
    ),
    (RESPONSES, "thinking", r#""reasoning":{"effort":"low"}"#),
    (
        RESPONSES,
        "signed_thinking",
        r#""input":[{"type":"reasoning","encrypted_content":"x"}]"#,
    ),
    (GEMINI, "tools", r#""tools":[{"googleSearch":{}}]"#),
    (
        GEMINI,
        "tools",
        r#""contents":[{"parts":[{"function_call":{}}]}]"#,
    ),
    (
        GEMINI,
        "images",
        r#""contents":[{"parts":[{"inlineData":{}}]}]"#,
    ),
    (
        GEMINI,
        "structured_output",
        r#""generation_config":{"response_mime_type":"application/json"}"#,
    ),
    (
        GEMINI,
        "thinking",
        r#""generationConfig":{"thinkingConfig":{"thinkingBudget":1}}"#,
    ),
    (
        GEMINI,
        "signed_thinking",
        r#""contents":[{"parts":[{"thoughtSignature":"x"}]}]"#,
    ),
    (
        GEMINI,
        "cached_prompt",
        r#""cachedContent":"cachedContents/x""#,
    ),
    (CONVERSE, "tools", r#""toolConfig":{"tools":[{}]}"#),
    (
        CONVERSE,
        "images",
        r#""messages":[{"content":[{"video":{}}]}]"#,
    ),
    (
        CONVERSE,
        "structured_output",
        r#""outputConfig":{"textFormat":{}}"#,
    ),
    (
        CONVERSE,
        "signed_thinking",
        r#""messages":[{"content":[{"reasoningContent":{}}]}]"#,
    ),
    (
        INVOKE,
        "thinking",
        r#""thinking":{"type":"enabled","budget_tokens":1024}"#,
    ),
    (
        INVOKE,
        "signed_thinking",
        r#""messages":[{"content":[{"type":"thinking"}]}]"#,
    ),
];

/// The body with this in it, for a path that names the model or not.
fn needy(path: &str, need: &str) -> String {
    if path.starts_with("/v1/") {
        format!(r#"{{"model":"best",{need}}}"#)
    } else {
        format!("{{{need}}}")
    }
}

/// The ladder's models as Bedrock names them, where vendors matter.
fn with_vendors(config: &mut Value) {
    for (index, name) in ["best", "light"].iter().enumerate() {
        config["ladders"][0]["tiers"][index]["model"] = format!("anthropic.claude-{name}").into();
    }
}

/// The model that a request for the best one was served by, and the reason, as its response, its log and its metrics say.
fn served(proxy: &Proxy, path: &str, body: &str) -> (String, String) {
    let before = |decision: &str, tier: &str| {
        proxy.metric(&format!(
            "bursar_requests_total.tenant=.=acme;.;tier=.={tier};.;decision=.={decision};.;"
        ))
    };
    let path = path.replace("anthropic.best", "anthropic.claude-best");
    let counted = [before("admit", "best"), before("downgrade", "light")];
    let mut call = post(proxy, &path, &[body]);
    assert_eq!(call.refused(), None, "{path} {body}");
    call.answer_headers("200", &[("content-type", "application/json")]);
    call.answer_chunk(b"{}", true);
    call.end();
    let told = |name: &str| call.response_header(name).unwrap_or("").to_owned();
    assert_eq!(call.fields["bursar_reason"], told("x-bursar-reason"));
    assert_eq!(call.fields["bursar_model"], told("x-bursar-model"));
    assert_eq!(call.fields["bursar_tier"], told("x-bursar-tier"));
    let is_kept = told("x-bursar-tier") == "best";
    let counts = [
        counted[0] + u64::from(is_kept),
        counted[1] + u64::from(!is_kept),
    ];
    assert_eq!(
        [before("admit", "best"), before("downgrade", "light")],
        counts,
        "{path} {body}"
    );
    let sent = format!(
        "{} {}",
        call.upstream_header(":path").unwrap(),
        call.upstream_text()
    );
    assert_eq!(sent.contains("light"), !is_kept, "{sent}");
    (told("x-bursar-tier"), told("x-bursar-reason"))
}

#[test]
fn a_request_keeps_its_model_where_the_lower_one_cannot_do_what_it_needs() {
    let names = [
        "tools",
        "images",
        "structured_output",
        "thinking",
        "signed_thinking",
        "cached_prompt",
    ];
    for (path, need, body) in NEEDY {
        let body = needy(path, body);
        let tier = |supports: Vec<&str>| {
            let proxy = with(true, |config| {
                config["tenants"]["acme"]["budget"]["initial_budget"] = 1_000_000.into();
                if path == INVOKE {
                    with_vendors(config);
                }
                config["ladders"][0]["tiers"][1]["supports"] = json!(supports);
            });
            spend(&proxy, 600_000);
            served(&proxy, path, &body)
        };
        let all_but = names.iter().copied().filter(|name| *name != need);
        let kept = ("best".to_owned(), "tier_unsupported".to_owned());
        assert_eq!(tier(all_but.collect()), kept, "{path} {body}");
        let lowered = ("light".to_owned(), "budget_low".to_owned());
        assert_eq!(tier(vec![need]), lowered, "{path} {body}");
    }
}

// By default a tier's model can do all, but for what another one has begun.
#[test]
fn a_tier_of_which_nothing_is_said_takes_all_but_what_another_model_began() {
    for (path, need, body) in NEEDY {
        let proxy = with(true, |config| {
            config["tenants"]["acme"]["budget"]["initial_budget"] = 1_000_000.into();
            if path == INVOKE {
                with_vendors(config);
            }
        });
        spend(&proxy, 600_000);
        let is_own = ["signed_thinking", "cached_prompt"].contains(&need);
        let tier = if is_own { "best" } else { "light" };
        assert_eq!(
            served(&proxy, path, &needy(path, body)).0,
            tier,
            "{path} {body}"
        );
    }
}

#[test]
fn the_nearest_better_tier_that_can_serves() {
    let proxy = with(true, |config| {
        config["ladders"][0]["tiers"] = json!([
            {"name": "best", "model": "best"},
            {"name": "good", "model": "good", "below": 0.9, "supports": ["tools", "images"]},
            {"name": "fair", "model": "fair", "below": 0.7, "supports": ["tools"]},
            {"name": "light", "model": "light", "below": 0.5, "supports": []},
        ]);
    });
    spend(&proxy, 6_000);
    let tier = |path: &str, body: &str| {
        let mut call = post(&proxy, path, &[body]);
        call.answer_headers("500", &[]);
        let told = |name: &str| call.response_header(name).unwrap_or("").to_owned();
        [
            told("x-bursar-tier"),
            told("x-bursar-decision"),
            told("x-bursar-reason"),
        ]
        .join(" ")
    };
    let chat = |rest: &str| tier(CHAT, &format!(r#"{{"model":"best","max_tokens":1{rest}}}"#));
    assert_eq!(chat(""), "light downgrade budget_low");
    let tools = r#","tools":[{}]"#;
    assert_eq!(chat(tools), "fair downgrade budget_low");
    let image = r#","messages":[{"content":[{"type":"image_url"}]}]"#;
    assert_eq!(
        chat(&format!("{tools}{image}")),
        "good downgrade budget_low"
    );
    assert_eq!(
        chat(r#","reasoning_effort":"low""#),
        "best admit tier_unsupported"
    );
    // Who asks for a lower tier is kept there, not lifted.
    let fair = r#"{"model":"fair","max_tokens":1,"tools":[{}]}"#;
    assert_eq!(tier(CHAT, fair), "fair admit tier_unsupported");
}

// Vectors of two models cannot be compared, and a body of one vendor's means nothing to another's model.
#[test]
fn what_cannot_be_exchanged_at_all_keeps_its_model() {
    let proxy = with(true, |config| {
        config["ladders"][0]["tiers"][1]["supports"] = everything();
    });
    spend(&proxy, 6_000);
    for (path, body, reason) in [
        (
            "/v1/embeddings",
            r#"{"model":"best","input":"x"}"#,
            "tier_unsupported",
        ),
        (
            "/model/meta.llama-best/invoke",
            r#"{"max_gen_len":1}"#,
            "tier_unsupported",
        ),
        (
            "/v1/tunedModels/best:generateContent",
            r#"{"generationConfig":{"maxOutputTokens":1}}"#,
            "model_bound",
        ),
        (
            "/v1/projects/p/locations/l/endpoints/7:generateContent",
            r#"{"generationConfig":{"maxOutputTokens":1}}"#,
            "model_bound",
        ),
    ] {
        let mut call = post(&proxy, path, &[body]);
        assert_eq!(
            (call.upstream_header(":path"), call.upstream_text()),
            (Some(path), body)
        );
        call.answer_headers("500", &[]);
        assert_eq!(call.response_header("x-bursar-tier"), Some("best"));
        assert_eq!(call.response_header("x-bursar-decision"), Some("admit"));
        assert_eq!(
            call.response_header("x-bursar-reason"),
            Some(reason),
            "{path}"
        );
    }
}

#[test]
fn a_signed_request_is_metered_and_no_byte_of_it_changes() {
    for hold in [true, false] {
        let proxy = with(hold, |config| {
            config["ladders"][0]["tiers"][0]["max_output_tokens"] = 10.into();
            config["ladders"][0]["tiers"][1]["supports"] = everything();
            config["tenants"]["acme"]["min_output_tokens"] = 5.into();
        });
        spend(&proxy, 6_000);
        let body = r#"{"inferenceConfig":{"maxTokens":50}}"#;
        let length = body.len().to_string();
        let sent = [
            (":method", "POST"),
            (":path", "/model/best/converse"),
            ("x-tenant-id", "acme"),
            ("content-length", &length),
            ("accept-encoding", "gzip"),
            ("authorization", "AWS4-HMAC-SHA256 Credential=x"),
        ];
        let mut call = proxy.request(&sent, false);
        call.send(&[&body.as_bytes()[..9], &body.as_bytes()[9..]]);
        for (name, value) in sent {
            assert_eq!(call.upstream_header(name), Some(value));
        }
        assert_eq!(call.upstream_text(), body);
        assert_eq!(held(&proxy), body.len() as u64 + 50);
        call.answer_headers("200", &[("content-type", "application/json")]);
        assert_eq!(
            call.response_header("x-bursar-reason"),
            Some("request_signed")
        );
        assert_eq!(call.response_header("x-bursar-max-output-tokens"), None);
        call.answer_chunk(br#"{"usage":{"inputTokens":7,"outputTokens":8}}"#, true);
        assert_eq!((held(&proxy), spent(&proxy)), (0, 6_015));
    }
}

// The answer is fetched by another request, so what was reserved is what is charged.
#[test]
fn a_deferred_answer_is_charged_as_it_was_reserved() {
    let proxy = with(true, |_| {});
    let body = r#"{"model":"best","background":true,"max_output_tokens":700}"#;
    let mut call = post(&proxy, RESPONSES, &[body]);
    call.answer_json(r#"{"id":"r","status":"queued","usage":null}"#);
    call.end();
    assert_eq!(
        (held(&proxy), spent(&proxy)),
        (0, (body.len() as u64).div_ceil(4) + 700)
    );
    assert_eq!(call.fields["bursar_settled_by"], "estimate");
}

#[test]
fn a_deployment_is_exchanged_in_the_path_before_the_body_is_there() {
    for (asked, name) in [
        ("best", "best"),
        ("team%2Fbest", "team/best"),
        ("team/best", "team/best"),
    ] {
        for hold in [true, false] {
            let proxy = with(hold, |config| {
                config["ladders"][0]["tiers"][0]["model"] = name.into();
                config["ladders"][0]["tiers"][1]["model"] = "a-light/one".into();
            });
            spend(&proxy, 6_000);
            let path = |model: &str| {
                format!("/openai/deployments/{model}/chat/completions?api-version=2024-10-21")
            };
            let body = r#"{"model":"anything","max_tokens":9}"#;
            let (head, tail) = body.split_at(12);
            let mut call = post(&proxy, &path(asked), &[head, tail]);
            assert_eq!(
                call.upstream_header(":path"),
                Some(path("a-light%2Fone").as_str())
            );
            // A server may heed either name.
            assert_eq!(
                call.upstream_text(),
                body.replace("anything", "a-light/one")
            );
            assert_eq!(call.upstream_header("x-bursar-tier"), Some("light"));
            call.answer_headers("200", &[]);
            assert_eq!(call.response_header("x-bursar-requested-model"), Some(name));
            assert_eq!(held(&proxy), body.len() as u64 + 9);
        }
    }
}

// A path goes on before its body is read, so a tier serves only if it can do whatever may come.
#[test]
fn a_model_in_the_path_is_decided_about_before_the_body_where_headers_are_not_held() {
    for (supports, path, reason) in [
        (everything(), GEMINI.replace("best", "light"), "budget_low"),
        (json!(["tools"]), GEMINI.to_owned(), "body_unread"),
    ] {
        let proxy = with(false, |config| {
            config["ladders"][0]["tiers"][1]["supports"] = supports.clone();
        });
        spend(&proxy, 6_000);
        let mut call = post(
            &proxy,
            GEMINI,
            &[r#"{"generationConfig":{"#, r#""maxOutputTokens":3}}"#],
        );
        assert_eq!(call.upstream_header(":path"), Some(path.as_str()));
        call.answer_headers("200", &[]);
        assert_eq!(call.response_header("x-bursar-reason"), Some(reason));
    }
}

// A body without a length is not held, so its path goes on with its first bytes.
#[test]
fn with_held_headers_a_body_without_a_length_passes() {
    for (path, body, decided) in [
        (CHAT, r#"{"model":"best","max_tokens":9}"#, "budget_low"),
        (
            GEMINI,
            r#"{"generationConfig":{"maxOutputTokens":9}}"#,
            "body_unread",
        ),
    ] {
        let proxy = with(true, |_| {});
        spend(&proxy, 6_000);
        let headers = [
            (":method", "POST"),
            (":path", path),
            ("x-tenant-id", "acme"),
        ];
        let mut call = proxy.request(&headers, false);
        assert!(!call.headers_gone);
        call.send(&[&body.as_bytes()[..12], &body.as_bytes()[12..]]);
        assert_eq!(call.upstream_header("content-length"), None);
        let model = if path == CHAT { "light" } else { "best" };
        assert_eq!(call.upstream_text(), body.replace("best", model));
        assert_eq!(call.upstream_header(":path"), Some(path));
        call.answer_headers("200", &[]);
        assert_eq!(call.response_header("x-bursar-reason"), Some(decided));
    }
}

#[test]
fn a_body_is_kept_back_for_the_decision_as_far_as_there_is_room() {
    for (filler, tier, reason) in [(400, "light", "budget_low"), (1_500, "best", "body_unread")] {
        let proxy = with(false, |config| {
            config["hold_bytes"] = 1_000.into();
            config["ladders"][0]["tiers"][1]["supports"] = json!(["tools"]);
        });
        spend(&proxy, 6_000);
        let filler = "x".repeat(filler);
        let body = format!(r#"{{"model":"best","max_tokens":9,"x":"{filler}"}}"#);
        let chunks: Vec<&str> = body
            .as_bytes()
            .chunks(100)
            .map(|chunk| std::str::from_utf8(chunk).unwrap())
            .collect();
        let mut call = post(&proxy, CHAT, &chunks);
        assert_eq!(call.upstream_text(), body.replace("best", tier));
        call.answer_headers("200", &[]);
        assert_eq!(call.response_header("x-bursar-tier"), Some(tier));
        assert_eq!(call.response_header("x-bursar-reason"), Some(reason));
    }
}

// What is kept back goes on when there is no more room for it, in the midst of a text that says nothing new.
#[test]
fn what_was_kept_back_goes_on_changed_whenever_it_does() {
    let filler = "x".repeat(1_500);
    let body = format!(
        r#"{{"max_tokens":9,"stream":true,"stream_options":null,"x":"{filler}","model":"best"}}"#
    );
    let expected = body.replace("null", r#"{"include_usage":true}"#);
    for size in [1, 7, 40, 100] {
        let proxy = with(false, |config| {
            config["hold_bytes"] = 200.into();
            config["ladders"][0]["tiers"][1]["max_output_tokens"] = 100.into();
        });
        let chunks: Vec<&str> = body
            .as_bytes()
            .chunks(size)
            .map(|chunk| std::str::from_utf8(chunk).unwrap())
            .collect();
        let call = post(&proxy, CHAT, &chunks);
        assert_eq!(call.upstream_text(), expected, "chunks of {size}");
    }
}

/// The body with another limit, as it should have gone on.
fn check_limited(proxy: &Proxy, path: &str, body: &str, expected: &str, output: u64) {
    for split in 0..=body.len() {
        let (head, tail) = body.split_at(split);
        let mut call = post(proxy, path, &[head, tail]);
        assert_eq!(call.refused(), None, "{body}");
        assert_eq!(call.upstream_text(), expected, "split at {split}");
        let length = call.upstream_header("content-length").map(str::to_owned);
        assert_eq!(
            length.unwrap_or_else(|| expected.len().to_string()),
            expected.len().to_string()
        );
        assert_eq!(
            held(proxy),
            body.len() as u64 + output,
            "{body} split at {split}"
        );
        call.answer_headers("500", &[]);
        let told = (body != expected).then(|| "100".to_owned());
        assert_eq!(
            call.response_header("x-bursar-max-output-tokens")
                .map(str::to_owned),
            told,
            "{body}"
        );
    }
}

#[test]
fn a_tiers_longest_answer_lowers_what_is_asked_for_and_is_told() {
    let limit = |config: &mut Value| {
        config["ladders"][0]["tiers"][0]["max_output_tokens"] = 100.into();
    };
    for hold in [true, false] {
        let proxy = with(hold, limit);
        for (path, body, expected, output) in [
            // Behind the model, before it, both spellings of it, per answer.
            (
                CHAT,
                r#"{"model":"best","max_tokens":700}"#,
                r#"{"model":"best","max_tokens":100}"#,
                100,
            ),
            (
                CHAT,
                r#"{"max_tokens" : 7e2 ,"model":"best"}"#,
                r#"{"max_tokens" : 100 ,"model":"best"}"#,
                100,
            ),
            (
                CHAT,
                r#"{"max_tokens":50,"model":"best","max_completion_tokens":101,"n":3}"#,
                r#"{"max_tokens":50,"model":"best","max_completion_tokens":100,"n":3}"#,
                300,
            ),
            // Never upwards, and never invented where models differ in its name.
            (
                CHAT,
                r#"{"model":"best","max_tokens":99}"#,
                r#"{"model":"best","max_tokens":99}"#,
                99,
            ),
            (CHAT, r#"{"model":"best"}"#, r#"{"model":"best"}"#, 1_024),
            (
                INVOKE,
                r#"{"max_gen_len":101}"#,
                r#"{"max_gen_len":100}"#,
                100,
            ),
            (INVOKE, r#"{"x":1}"#, r#"{"x":1}"#, 1_024),
            // Put where it is missing and has one name.
            (
                "/v1/completions",
                r#"{"model":"best","prompt":["a","b"]}"#,
                r#"{"model":"best","prompt":["a","b"],"max_tokens":100}"#,
                200,
            ),
            (
                MESSAGES,
                r#"{"model":"best"}"#,
                r#"{"model":"best","max_tokens":100}"#,
                100,
            ),
            (
                RESPONSES,
                r#"{"model":"best"}"#,
                r#"{"model":"best","max_output_tokens":100}"#,
                100,
            ),
            (
                GEMINI,
                r#"{"contents":[]}"#,
                r#"{"contents":[],"generationConfig":{"maxOutputTokens":100}}"#,
                100,
            ),
            (
                GEMINI,
                r#"{"generation_config":{"candidate_count":"2","max_output_tokens":"900"}}"#,
                r#"{"generation_config":{"candidate_count":"2","max_output_tokens":100}}"#,
                200,
            ),
            (
                GEMINI,
                r#"{"generationConfig":{}}"#,
                r#"{"generationConfig":{"maxOutputTokens":100}}"#,
                100,
            ),
            (
                CONVERSE,
                r#"{"inferenceConfig":{"maxTokens":900},"additionalModelRequestFields":{"max_tokens":800}}"#,
                r#"{"inferenceConfig":{"maxTokens":100},"additionalModelRequestFields":{"max_tokens":100}}"#,
                100,
            ),
        ] {
            check_limited(&proxy, path, body, expected, output);
        }
    }
}

#[test]
fn a_lower_tiers_longest_answer_goes_with_its_model() {
    for hold in [true, false] {
        let proxy = with(hold, |config| {
            config["ladders"][0]["tiers"][1]["max_output_tokens"] = 100.into();
        });
        let body = r#"{"max_tokens":700,"model":"best","messages":[]}"#;
        check_limited(&proxy, CHAT, body, body, 700);
        spend(&proxy, 6_000);
        check_limited(
            &proxy,
            CHAT,
            body,
            &body.replace("700", "100").replace("best", "light"),
            100,
        );
    }
}

// The Responses API refuses a limit below 16.
#[test]
fn no_limit_is_lowered_to_what_the_api_refuses() {
    let proxy = with(true, |config| {
        config["ladders"][0]["tiers"][0]["max_output_tokens"] = 5.into();
    });
    let call = post(
        &proxy,
        RESPONSES,
        &[r#"{"model":"best","max_output_tokens":700}"#],
    );
    assert_eq!(
        call.upstream_text(),
        r#"{"model":"best","max_output_tokens":16}"#
    );
    let call = post(&proxy, CHAT, &[r#"{"model":"best","max_tokens":700}"#]);
    assert_eq!(call.upstream_text(), r#"{"model":"best","max_tokens":5}"#);
}

/// 1,000 tokens or a thousandth of a dollar are left, a token of which costs a micro.
fn little_left(hold: bool, unit: &str) -> Proxy {
    let proxy = with(hold, |config| {
        let tiers = &mut config["ladders"][0]["tiers"];
        tiers[0]["price"] = json!({"input": 1, "output": 1});
        tiers[1] = json!({"name": "light", "model": "light", "price": {"input": 1, "output": 1}});
        let budget = if unit == "usd" {
            json!(0.01)
        } else {
            json!(10_000)
        };
        config["tenants"]["acme"] = json!({
            "budget": {"initial_budget": budget, "unit": unit, "window": "day"},
            "min_output_tokens": 200,
            "never_downgrade": true,
        });
    });
    spend(&proxy, 9_000);
    proxy
}

#[test]
fn rather_than_refused_an_answer_is_limited_to_what_the_budget_still_holds() {
    for (unit, rounding) in [("tokens", 0), ("usd", 1)] {
        for hold in [true, false] {
            for body in [
                r#"{"model":"best","max_tokens":5000}"#,
                r#"{"max_tokens":5000,"model":"best"}"#,
                r#"{"n":2,"max_tokens":5000,"model":"best"}"#,
            ] {
                for split in 0..=body.len() {
                    let proxy = little_left(hold, unit);
                    let answers = if body.contains("\"n\"") { 2 } else { 1 };
                    let most = (1_000 - body.len() - rounding) / answers;
                    let (head, tail) = body.split_at(split);
                    let mut call = post(&proxy, CHAT, &[head, tail]);
                    assert_eq!(
                        call.upstream_text(),
                        body.replace("5000", &most.to_string()),
                        "{unit} held: {hold} {split}"
                    );
                    let all = (body.len() + most * answers) as u64;
                    let cost = proxy.record("acme").account.held();
                    assert_eq!((cost.tokens.0, cost.usd.0), (all, all));
                    call.answer_headers("200", &[("content-type", "application/json")]);
                    let told = |name: &str| call.response_header(name).map(str::to_owned);
                    assert_eq!(told("x-bursar-max-output-tokens"), Some(most.to_string()));
                    assert_eq!(told("x-bursar-reason").as_deref(), Some("budget_low"));
                    assert_eq!(told("x-bursar-decision").as_deref(), Some("admit"));
                    // All that it may use: the budget is spent and not overspent.
                    call.answer_chunk(
                        usage(body.len() as u64, (most * answers) as u64).as_bytes(),
                        true,
                    );
                    assert_eq!((held(&proxy), spent(&proxy)), (0, 9_000 + all));
                    assert!(spent(&proxy) <= 10_000);
                }
            }
        }
    }
}

#[test]
fn an_answer_that_would_be_too_short_to_be_of_use_is_refused() {
    for hold in [true, false] {
        let refused = |path: &str, prompt: usize, rest: &str| {
            let proxy = little_left(hold, "tokens");
            let head = format!(r#"{{"model":"best",{rest}"x":""#);
            let filler = "x".repeat(prompt - head.len() - 2);
            let call = post(&proxy, path, &[&head, &filler, "\"}"]);
            (
                call.refused().map(|(_, reason)| reason.to_owned()),
                held(&proxy),
            )
        };
        let exhausted = || (Some("budget_exhausted".to_owned()), 0);
        assert_eq!(refused(CHAT, 800, r#""max_tokens":201,"#), (None, 1_000));
        assert_eq!(refused(CHAT, 801, r#""max_tokens":201,"#), exhausted());
        // What it asks for itself may be less.
        assert_eq!(refused(CHAT, 990, r#""max_tokens":10,"#), (None, 1_000));
        // A limit cannot be put where it has no name, nor below what the thinking may take.
        assert_eq!(refused(CHAT, 100, ""), exhausted());
        assert_eq!(refused(MESSAGES, 100, ""), (None, 1_000));
        assert_eq!(
            refused(MESSAGES, 100, r#""thinking":{"budget_tokens":899},"#),
            (None, 1_000)
        );
        assert_eq!(
            refused(MESSAGES, 100, r#""thinking":{"budget_tokens":900},"#),
            exhausted()
        );
    }
}

// A limit in the path's body comes after the admission: it is checked, but not shortened.
#[test]
fn where_the_path_names_the_model_answers_are_shortened_in_held_requests_only() {
    let body = r#"{"generationConfig":{"maxOutputTokens":5000}}"#;
    let call = |hold| {
        let proxy = little_left(hold, "tokens");
        let call = post(&proxy, GEMINI, &<[&str; 2]>::from(body.split_at(20)));
        (
            call.refused().map(|(_, reason)| reason.to_owned()),
            held(&proxy),
        )
    };
    assert_eq!(call(true), (None, 1_000));
    assert_eq!(call(false), (Some("budget_exhausted".to_owned()), 0));
}
