//! Output limits that are written so that they are not seen, or not where they are looked for.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

// What has gone on cannot be lowered any more, so no lower limit may be counted on.
#[test]
fn a_limit_that_went_on_before_the_model_was_known_is_reserved_as_it_stands() {
    let proxy = with(|config| {
        config["hold_bytes"] = 1_000.into();
        config["ladders"][0]["tiers"][0]["max_output_tokens"] = 100.into();
        config["tenants"]["acme"]["min_output_tokens"] = 50.into();
    });
    let filler = "x".repeat(1_500);
    let late = [
        r#"{"max_tokens":5000,"x":""#,
        &filler,
        r#"","model":"best"}"#,
    ];
    let mut call = post(&proxy, CHAT, &[], &late);
    assert_eq!(call.upstream_text(), late.concat());
    assert_eq!(held(&proxy, "acme"), late.concat().len() as u64 + 5_000);
    call.answer_headers("200", &[("content-type", "application/json")]);
    assert_eq!(call.response_header("x-bursar-max-output-tokens"), None);
    call.answer_headers("500", &[]);
    let dear = late.concat().replace("5000", "9000");
    let (head, tail) = dear.split_at(1_400);
    let call = post(&proxy, CHAT, &[], &[head, tail]);
    assert_eq!(call.refused(), Some((429, "budget_exhausted")));
}

#[test]
fn a_limit_is_put_into_an_object_though_its_beginning_has_gone_on() {
    let filler = r#""stopSequences":["a long one","and another"],"topK":40"#;
    for (path, name, key) in [
        (
            "/v1beta/models/best:generateContent",
            "generationConfig",
            "maxOutputTokens",
        ),
        ("/model/best/converse", "inferenceConfig", "maxTokens"),
    ] {
        let body = format!(r#"{{"{name}":{{{filler}}} ,"z":1}}"#);
        let expected = format!(r#"{{"{name}":{{{filler},"{key}":100}} ,"z":1}}"#);
        for split in 1..body.len() {
            let proxy = with(|config| {
                config["ladders"][0]["tiers"][0]["max_output_tokens"] = 100.into();
            });
            let (head, tail) = body.split_at(split);
            let mut call = post(&proxy, path, &[], &[head, tail]);
            assert_eq!(call.upstream_text(), expected, "split at {split}");
            assert_eq!(held(&proxy, "acme"), body.len() as u64 + 100);
            call.answer_headers("200", &[]);
            assert_eq!(
                call.response_header("x-bursar-max-output-tokens"),
                Some("100")
            );
        }
    }
}

#[test]
fn a_limit_of_null_is_replaced_and_not_given_twice() {
    let limited = |path: &str, body: &str| {
        let proxy = with(|config| {
            config["ladders"][0]["tiers"][0]["max_output_tokens"] = 100.into();
        });
        let (head, tail) = body.split_at(body.len() / 2);
        post(&proxy, path, &[], &[head, tail])
            .upstream_text()
            .to_owned()
    };
    for (path, body) in [
        (
            "/v1/responses",
            r#"{"model":"best","max_output_tokens":null,"input":"x"}"#,
        ),
        (
            "/v1/completions",
            r#"{"max_tokens": null, "model":"best","prompt":"x"}"#,
        ),
        (
            "/v1/models/best:generateContent",
            r#"{"generation_config":{"max_output_tokens":null,"topK":1}}"#,
        ),
    ] {
        assert_eq!(limited(path, body), body.replace("null", "100"));
    }
}

// It was not known yet that there is no limit to lower when the model had to be decided about.
#[test]
fn a_limit_that_cannot_be_told_is_not_counted_on() {
    let proxy = with(|config| {
        config["hold_bytes"] = 1_000.into();
        config["ladders"][0]["tiers"][0]["max_output_tokens"] = 100.into();
    });
    let filler = "x".repeat(1_500);
    let chunks = [r#"{"model":"best","x":""#, &filler, "\"}"];
    let call = post(&proxy, CHAT, &[], &chunks);
    assert_eq!(call.upstream_text(), chunks.concat());
    assert_eq!(held(&proxy, "acme"), chunks.concat().len() as u64 + 1_024);
}

// llama.cpp knows the limit by a name of its own, before all others, and takes one below zero for none; Ollama takes 0 for none, too.
#[test]
fn the_largest_of_all_limits_is_reserved_whatever_the_server_calls_it() {
    for (path, limits, output) in [
        (CHAT, r#""max_tokens":1,"n_predict":3000"#, 3_000),
        (CHAT, r#""max_tokens":1,"max_completion_tokens":-1"#, 1_024),
        (CHAT, r#""max_tokens":2000,"n_predict":-1"#, 2_000),
        // mlx-lm prefers this name wherever it stands.
        (
            "/v1/completions",
            r#""max_tokens":1,"max_completion_tokens":3000"#,
            3_000,
        ),
        (CHAT, r#""max_tokens":0"#, 1_024),
        (CHAT, r#""max_tokens":0,"max_completion_tokens":7"#, 1_024),
        ("/v1/completions", r#""max_tokens":0"#, 1_024),
        ("/v1/responses", r#""max_output_tokens":0"#, 1_024),
        (
            "/v1/completions",
            r#""max_tokens":1,"n_predict":3000"#,
            3_000,
        ),
    ] {
        let proxy = with(|_| {});
        let body = format!(r#"{{"model":"best",{limits}}}"#);
        post(&proxy, path, &[], &[&body]);
        assert_eq!(held(&proxy, "acme"), body.len() as u64 + output, "{body}");
    }
}

// What is no limit to a server does not stay in a request for which a limit was counted on.
#[test]
fn a_limit_that_some_servers_take_for_none_is_lowered() {
    let google = "/v1beta/models/best:generateContent";
    for (path, body, zero) in [
        (
            CHAT,
            r#"{"model":"best","max_tokens":0,"max_completion_tokens":7}"#,
            "0,",
        ),
        (
            CHAT,
            r#"{"model":"best","n_predict":0.0,"max_tokens":9}"#,
            "0.0",
        ),
        (
            CHAT,
            r#"{"model":"best","n_predict":-0,"max_tokens":9}"#,
            "-0",
        ),
        (
            "/v1/completions",
            r#"{"model":"best","max_tokens":0}"#,
            "0}",
        ),
        (
            "/v1/responses",
            r#"{"model":"best","max_output_tokens":0}"#,
            "0}",
        ),
        (
            google,
            r#"{"generationConfig":{"maxOutputTokens":0}}"#,
            "0}",
        ),
        (
            google,
            r#"{"generationConfig":{"maxOutputTokens":"0"}}"#,
            r#""0""#,
        ),
        (
            "/model/best/converse",
            r#"{"inferenceConfig":{"maxTokens":0}}"#,
            "0}",
        ),
    ] {
        let proxy = with(|config| {
            config["ladders"][0]["tiers"][0]["max_output_tokens"] = 100.into();
        });
        let call = post(&proxy, path, &[], &[body]);
        let end = zero.trim_start_matches(['-', '0', '.', '"']);
        let lowered = body.replacen(zero, &format!("100{end}"), 1);
        assert_eq!(call.upstream_text(), lowered);
        assert_eq!(held(&proxy, "acme"), body.len() as u64 + 100, "{body}");
    }
    // To Anthropic it means no output.
    let proxy = with(|config| {
        config["ladders"][0]["tiers"][0]["max_output_tokens"] = 100.into();
    });
    let body = r#"{"model":"best","max_tokens":0}"#;
    let call = post(&proxy, "/v1/messages", &[], &[body]);
    assert_eq!(call.upstream_text(), body);
}

// Cohere's name for the number of answers.
#[test]
fn generations_are_answers() {
    let proxy = with(|_| {});
    let body = r#"{"prompt":"x","max_tokens":100,"num_generations":5}"#;
    post(&proxy, "/model/cohere.command/invoke", &[], &[body]);
    assert_eq!(held(&proxy, "acme"), body.len() as u64 + 500);
}
