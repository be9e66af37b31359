//! What a request needs and a lower tier cannot do keeps a better one.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// A body of each wire for each need; it asks for the best model, in its path or here.
const NEEDY: [(&str, &str, &str); 36] = [
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
    (
        MESSAGES,
        "adaptive_thinking",
        r#""thinking":{"type":"adaptive"}"#,
    ),
    (MESSAGES, "effort", r#""output_config":{"effort":"low"}"#),
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
        r#""input":[{"type":"compaction","encrypted_content":"x"}]"#,
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
        "cache_settings",
        r#""system":[{"text":"a"},{"cachePoint":{"type":"default"}}]"#,
    ),
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
        "adaptive_thinking",
        "effort",
        "signed_thinking",
        "cached_prompt",
        "cache_settings",
        "recent_features",
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

// By default a tier's model can do all, but for what another one has begun and what few can.
#[test]
fn a_tier_of_which_nothing_is_said_takes_what_is_usual() {
    for (path, need, body) in NEEDY {
        let proxy = with(true, |config| {
            config["tenants"]["acme"]["budget"]["initial_budget"] = 1_000_000.into();
            if path == INVOKE {
                with_vendors(config);
            }
        });
        spend(&proxy, 600_000);
        let is_usual = ["tools", "images", "structured_output", "thinking"].contains(&need);
        let tier = if is_usual { "light" } else { "best" };
        assert_eq!(
            served(&proxy, path, &needy(path, body)).0,
            tier,
            "{path} {body}"
        );
    }
}

// Agents mark in every request what Bedrock is to cache: Claude's models take it, others refuse it, and what an operator names counts.
#[test]
fn a_point_of_the_cache_goes_to_models_that_are_known_to_take_it() {
    let body = r#"{"messages":[{"role":"user","content":[{"text":"a"},{"cachePoint":{"type":"default"}}]}]}"#;
    for (light, supports, tier) in [
        ("eu.anthropic.Claude-haiku", None, "light"),
        ("qwen.qwen3-coder", None, "best"),
        ("amazon.nova", Some(json!(["cache_settings"])), "light"),
        ("eu.anthropic.claude-haiku", Some(json!(["tools"])), "best"),
    ] {
        let proxy = with(true, |config| {
            let lower = &mut config["ladders"][0]["tiers"][1];
            lower["model"] = light.into();
            if let Some(supports) = supports.clone() {
                lower["supports"] = supports;
            }
        });
        spend(&proxy, 6_000);
        let mut call = post(&proxy, CONVERSE, &[body]);
        call.answer_headers("500", &[]);
        assert_eq!(call.response_header("x-bursar-tier"), Some(tier), "{light}");
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

// Two kinds of thinking are two needs, and effort is one; a model of which nothing is said has only the older kind.
#[test]
fn a_kind_of_thinking_or_an_effort_that_a_tier_does_not_know_keeps_a_better_one() {
    for (asked, need) in [
        (r#""thinking":{"type":"adaptive"}"#, "adaptive_thinking"),
        (r#""output_config":{"effort":"high"}"#, "effort"),
        (
            r#""thinking":{"type":"enabled","budget_tokens":9}"#,
            "thinking",
        ),
    ] {
        let body = format!(r#"{{"model":"best","max_tokens":20,{asked}}}"#);
        for hold in [true, false] {
            let tier = |supports: Option<Value>| {
                let proxy = with(hold, |config| {
                    if let Some(supports) = &supports {
                        config["ladders"][0]["tiers"][1]["supports"] = supports.clone();
                    }
                });
                spend(&proxy, 6_000);
                let mut call = post(&proxy, "/v1/messages", &[&body]);
                call.answer_json(&usage(1, 1));
                call.response_header("x-bursar-tier").unwrap().to_owned()
            };
            let usual = if need == "thinking" { "light" } else { "best" };
            assert_eq!(tier(None), usual, "{asked}");
            assert_eq!(tier(Some(json!([need]))), "light", "{asked}");
            assert_eq!(tier(Some(json!([]))), "best", "{asked}");
        }
    }
}

// A prompt of 700,000 tokens went to a window of 128,000. (issue 13)
#[test]
fn no_prompt_is_lowered_to_a_window_that_it_exceeds() {
    // Four bytes a token, as long as nothing is known.
    for (bytes, tier) in [(300, "light"), (500, "best")] {
        for (hold, has_length) in [(true, true), (false, true), (true, false), (false, false)] {
            let proxy = with(hold, |config| {
                config["ladders"][0]["tiers"][1]["context_window"] = 100.into();
            });
            spend(&proxy, 6_000);
            let body = format!(
                r#"{{"model":"best","max_tokens":5,"x":"{}"}}"#,
                "x".repeat(bytes)
            );
            let length = body.len().to_string();
            let mut headers = vec![("x-tenant-id", "acme")];
            headers.extend(has_length.then_some(("content-length", length.as_str())));
            let mut call = proxy.post(&headers);
            call.send(&body.as_bytes().chunks(50).collect::<Vec<_>>());
            call.answer_json(&usage(1, 1));
            let told = call.response_header("x-bursar-tier");
            assert_eq!(told, Some(tier), "{bytes} {hold} {has_length}");
        }
    }
}

// A chat may be with a Claude behind a gateway that passes such things on; and of a body that passes, what asks for them may come last.
#[test]
fn what_few_models_know_keeps_a_chat_too_wherever_it_stands() {
    for (best, light, asked, need) in [
        (
            "claude-best",
            "claude-light",
            r#""thinking":{"type":"adaptive"}"#,
            "adaptive_thinking",
        ),
        (
            "x/Claude-best",
            "claude-light",
            r#""output_config":{"effort":"high"}"#,
            "effort",
        ),
        ("gpt-5.4", "gpt-4o-mini", r#""verbosity":"low""#, "effort"),
        (
            "gpt-5.1",
            "gpt-5-mini",
            r#""prompt_cache_retention":"24h""#,
            "cache_settings",
        ),
    ] {
        let end = format!(r#","max_tokens":20,{asked}}}"#);
        let begin = format!(r#"{{"model":"{best}","messages":[]"#);
        for hold in [true, false] {
            for chunks in [vec![begin.clone(), end.clone()], vec![begin.clone() + &end]] {
                let served = |supports: Option<Value>| {
                    let proxy = with(hold, |config| {
                        config["ladders"][0]["tiers"][0]["model"] = best.into();
                        config["ladders"][0]["tiers"][1]["model"] = light.into();
                        if let Some(supports) = &supports {
                            config["ladders"][0]["tiers"][1]["supports"] = supports.clone();
                        }
                    });
                    spend(&proxy, 6_000);
                    let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
                    let mut call = post(&proxy, CHAT, &chunks);
                    call.answer_json(&usage(1, 1));
                    call.response_header("x-bursar-tier").unwrap().to_owned()
                };
                assert_eq!(served(None), "best", "{asked} {hold}");
                assert_eq!(served(Some(everything())), "light", "{asked} {hold}");
                // Of an open body all that it may ask for has to be there.
                if chunks.len() == 1 {
                    assert_eq!(served(Some(json!([need]))), "light", "{asked} {hold}");
                }
            }
        }
    }
}
