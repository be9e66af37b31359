//! What of a request is changed when its tier is: the path, the body, and when they are forwarded.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

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
        assert_eq!(held(&proxy, "acme"), body.len() as u64 + 50);
        call.answer_headers("200", &[("content-type", "application/json")]);
        assert_eq!(
            call.response_header("x-bursar-reason"),
            Some("request_signed")
        );
        assert_eq!(call.response_header("x-bursar-max-output-tokens"), None);
        call.answer_chunk(br#"{"usage":{"inputTokens":7,"outputTokens":8}}"#, true);
        assert_eq!((held(&proxy, "acme"), spent(&proxy, "acme")), (0, 6_015));
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
        (held(&proxy, "acme"), spent(&proxy, "acme")),
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
            assert_eq!(held(&proxy, "acme"), body.len() as u64 + 9);
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

/// The model and the body that the upstream gets, in any chunking and both modes; a body with what is kept back for `room`.
fn lowered(path: &str, body: &str, room: u64) -> (String, String) {
    let mut all = Vec::new();
    for (hold, size) in [(true, 9_000), (true, 7), (false, 9_000), (false, 7)] {
        let proxy = with(hold, |config| config["hold_bytes"] = room.into());
        spend(&proxy, 6_000);
        let chunks: Vec<&[u8]> = body.as_bytes().chunks(size).collect();
        let chunks: Vec<&str> = chunks
            .into_iter()
            .map(|chunk| std::str::from_utf8(chunk).unwrap())
            .collect();
        let mut call = post(&proxy, path, &chunks);
        assert_eq!(call.refused(), None, "{body}");
        let sent = call.upstream_text().trim_end().to_owned();
        call.answer_json(&usage(1, 1));
        let tier = call.response_header("x-bursar-tier").unwrap().to_owned();
        all.push((tier, sent));
        call.end();
    }
    all.dedup();
    assert_eq!(all.len(), 1, "{body}: {all:?}");
    all.remove(0)
}

// A dearer model would answer at the light one's price. (issue 13: Anthropic's `fallbacks`, OpenRouter's `models`; LiteLLM's router, which
// takes two more lists from a request's body, and Vercel's AI Gateway)
#[test]
fn what_is_lowered_keeps_no_list_of_other_models() {
    for path in [
        CHAT,
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/openai/deployments/best/chat/completions",
    ] {
        for (list, left) in [
            (r#""models":["best","bester"]"#, r#""models":["light"]"#),
            (r#""models" : ["b"]"#, r#""models" : ["light"]"#),
            (
                r#""fallbacks":[{"model":"best","max_tokens":9}]"#,
                r#""fallbacks":null"#,
            ),
            (r#""fallbacks":"default""#, r#""fallbacks":null"#),
            (
                r#""context_window_fallbacks":[{"light":["best"]}],"content_policy_fallbacks":["best"]"#,
                r#""context_window_fallbacks":null,"content_policy_fallbacks":null"#,
            ),
            (
                r#""router_settings_override":{"fallbacks":[{"light":["best"]}]}"#,
                r#""router_settings_override":{"fallbacks":null}"#,
            ),
            (
                r#""providerOptions":{"gateway":{"order":["a"],"models":["best","b"]}}"#,
                r#""providerOptions":{"gateway":{"order":["a"],"models":["light"]}}"#,
            ),
            (
                r#""models":[],"fallbacks":null"#,
                r#""models":[],"fallbacks":null"#,
            ),
        ] {
            for body in [
                format!(r#"{{{list},"max_tokens":20,"model":"best"}}"#),
                format!(r#"{{"model":"best","max_tokens":20,{list}}}"#),
                format!(r#"{{"max_tokens":20,"model":"best","x":[1],{list},"y":1}}"#),
            ] {
                let expected = body
                    .replace(list, left)
                    .replace(r#""model":"best",""#, r#""model":"light",""#);
                let expected = expected.replace(r#""model":"best"}"#, r#""model":"light"}"#);
                let (tier, sent) = lowered(path, &body, 9_000);
                assert_eq!((tier.as_str(), sent), ("light", expected), "{path}");
            }
        }
    }
}

// LiteLLM's router prefers the body's name on Google's paths, and takes its lists there, too.
#[test]
fn a_model_that_is_named_in_the_path_and_again_in_the_body_is_lowered_in_both() {
    for verb in ["generateContent", "streamGenerateContent"] {
        for named in ["best", "models/best", "publishers/google/models/best"] {
            for (body, sent) in [
                (
                    format!(r#"{{"contents":[],"model":"{named}"}}"#),
                    r#"{"contents":[],"model":"light"}"#,
                ),
                (
                    format!(
                        r#"{{"model" : "{named}","fallbacks":["best"],"router_settings_override":{{"a":1,"context_window_fallbacks":[1]}}}}"#
                    ),
                    r#"{"model" : "light","fallbacks":null,"router_settings_override":{"a":1,"context_window_fallbacks":null}}"#,
                ),
            ] {
                let path = format!("/v1beta/models/best:{verb}");
                for (hold, size) in [(true, 9_000), (true, 7), (false, 9_000), (false, 7)] {
                    let proxy = with(hold, |config| {
                        config["ladders"][0]["tiers"][1]["supports"] = everything();
                    });
                    spend(&proxy, 6_000);
                    let chunks: Vec<&str> = body
                        .as_bytes()
                        .chunks(size)
                        .map(|chunk| std::str::from_utf8(chunk).unwrap())
                        .collect();
                    let call = post(&proxy, &path, &chunks);
                    assert_eq!(
                        call.upstream_header(":path").unwrap(),
                        path.replace("best", "light")
                    );
                    assert_eq!(call.upstream_text(), sent, "{body} {hold} {size}");
                }
            }
        }
    }
}

// Whichever of them the upstream takes, what is metered would be another one.
#[test]
fn a_body_that_names_another_model_than_its_path_is_refused() {
    let path = "/v1beta/models/light:generateContent";
    for body in [
        r#"{"model":"best","contents":[]}"#,
        r#"{"contents":[],"model":"models/best"}"#,
        r#"{"contents":[],"model":"b\u0065st"}"#,
        r#"{"contents":[],"model":["light"]}"#,
    ] {
        for (hold, size) in [(true, 9_000), (false, 9_000), (false, 7)] {
            let proxy = with(hold, |_| {});
            let chunks: Vec<&str> = body
                .as_bytes()
                .chunks(size)
                .map(|chunk| std::str::from_utf8(chunk).unwrap())
                .collect();
            let call = post(&proxy, path, &chunks);
            let invalid = Some((400, "invalid_request_body"));
            assert_eq!(call.refused(), invalid, "{body} {hold} {size}");
            assert_eq!(held(&proxy, "acme"), 0);
        }
    }
}

#[test]
fn a_list_of_other_models_stays_with_the_model_that_was_asked_for() {
    for hold in [true, false] {
        let proxy = with(hold, |_| {});
        let body =
            r#"{"models":["a","b"],"model":"best","max_tokens":5,"fallbacks":[{"model":"c"}]}"#;
        let call = post(&proxy, CHAT, &[body]);
        assert_eq!(call.upstream_text(), body);
    }
}

#[test]
fn a_list_that_was_forwarded_before_the_model_keeps_it() {
    let filler = "x".repeat(900);
    let body = format!(r#"{{"models":["best"],"x":"{filler}","model":"best","max_tokens":5}}"#);
    let proxy = with(false, |config| config["hold_bytes"] = 100.into());
    spend(&proxy, 6_000);
    let chunks: Vec<&str> = body
        .as_bytes()
        .chunks(50)
        .map(|chunk| std::str::from_utf8(chunk).unwrap())
        .collect();
    let mut call = post(&proxy, CHAT, &chunks);
    assert_eq!(call.upstream_text(), body);
    call.answer_json(&usage(1, 1));
    assert_eq!(call.response_header("x-bursar-tier"), Some("best"));
    assert_eq!(call.response_header("x-bursar-reason"), Some("body_unread"));
    // One that is longer than any that makes sense could not be changed.
    let long = format!(r#"{{"model":"best","models":["{}"]}}"#, "x".repeat(5_000));
    let call = post(&proxy, CHAT, &[&long]);
    assert_eq!(call.refused(), Some((400, "invalid_request_body")));
}

// Some upstreams refuse `stream_options`: theirs are not touched, whichever tier is that one's.
#[test]
fn a_tier_s_stream_is_not_asked_for_its_usage_where_the_operator_says_so() {
    let asked = r#""stream_options":{"include_usage":true}"#;
    for (of_ladder, of_light, best, light) in [
        (None, None, true, true),
        (Some(false), None, false, false),
        (None, Some(false), true, false),
        (Some(false), Some(true), false, true),
    ] {
        for (is_low, asks) in [(false, best), (true, light)] {
            for (hold, size) in [(true, 9_000), (false, 9_000), (false, 7)] {
                for body in [
                    r#"{"stream":true,"stream_options":{"include_usage":false},"max_tokens":9,"model":"best"}"#,
                    r#"{"stream_options":null,"model":"best","max_tokens":9,"stream":true}"#,
                    r#"{"model":"best","max_tokens":9,"stream":true}"#,
                ] {
                    let proxy = with(hold, |config| {
                        let ladder = &mut config["ladders"][0];
                        if let Some(asks) = of_ladder {
                            ladder["ask_usage"] = asks.into();
                        }
                        if let Some(asks) = of_light {
                            ladder["tiers"][1]["ask_usage"] = asks.into();
                        }
                    });
                    if is_low {
                        spend(&proxy, 6_000);
                    }
                    let mut call = proxy.post(&[("x-tenant-id", "acme")]);
                    call.send(&body.as_bytes().chunks(size).collect::<Vec<_>>());
                    let sent = call.upstream_text().to_owned();
                    assert_eq!(sent.contains(asked), asks, "{sent}");
                    if !asks {
                        let model = if is_low { "light" } else { "best" };
                        assert_eq!(sent, body.replace("best", model));
                    }
                    call.answer_json(&usage(1, 1));
                }
            }
        }
    }
}

// Docker Model Runner's paths name an engine, Predibase's a server, and the body the model; but a deployment of Azure's may be called `v1`.
#[test]
fn a_path_that_names_an_engine_names_no_model() {
    for hold in [true, false] {
        for path in [
            "/engines/v1/chat/completions",
            "/engines/llama.cpp/v1/chat/completions",
            "/exp/vDD4.40/engines/vllm/v1/completions",
            "/engines/v1/responses",
            "/x/deployments/v2/llms/y/v1/chat/completions",
        ] {
            let proxy = with(hold, |_| {});
            spend(&proxy, 6_000);
            let call = post(
                &proxy,
                path,
                &[r#"{"model":"best","max_"#, r#"tokens":16}"#],
            );
            assert_eq!(call.upstream_text(), r#"{"model":"light","max_tokens":16}"#);
            assert_eq!(call.upstream_header(":path"), Some(path));
        }
        let proxy = with(hold, |_| {});
        spend(&proxy, 6_000);
        let azure = |name: &str| format!("/openai/deployments/{name}/chat/completions");
        let call = post(&proxy, &azure("v1"), &[r#"{"max_tokens":16}"#]);
        let path = azure("light");
        assert_eq!(call.upstream_header(":path"), Some(path.as_str()));
    }
}

// Some clients begin a text with a byte order mark, and most parsers pass over it (RFC 8259, 8.1).
#[test]
fn a_byte_order_mark_before_the_object_stays_there() {
    for hold in [true, false] {
        let body = "\u{feff}{\"model\":\"best\",\"max_tokens\":16}";
        for split in (0..body.len()).filter(|&split| body.is_char_boundary(split)) {
            let proxy = with(hold, |_| {});
            spend(&proxy, 6_000);
            let (head, tail) = body.split_at(split);
            let call = post(&proxy, CHAT, &[head, tail]);
            assert_eq!(call.upstream_text(), body.replace("best", "light"));
        }
    }
}

// A list may take the place of the model: it is the first of the list that is asked for, and lowered. (docs.perplexity.ai, openrouter.ai)
#[test]
fn a_list_without_a_model_is_lowered_as_its_first_model() {
    for path in [CHAT, MESSAGES, "/v1/responses"] {
        for hold in [true, false] {
            let body = r#"{"models":["best","other"],"max_tokens":16,"x":[{"model":"y"}]}"#;
            for split in 0..body.len() {
                let proxy = with(hold, |_| {});
                spend(&proxy, 6_000);
                let (head, tail) = body.split_at(split);
                let mut call = post(&proxy, path, &[head, tail]);
                let lowered = body.replace(r#"["best","other"]"#, r#"["light"]"#);
                assert_eq!(call.upstream_text(), lowered, "{path} {split}");
                call.answer_headers("200", &[]);
                assert_eq!(
                    call.response_header("x-bursar-requested-model"),
                    Some("best")
                );
                assert_eq!(call.response_header("x-bursar-model"), Some("light"));
            }
        }
    }
}
