//! Output limits: those of tiers, and those of a budget that is nearly spent.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

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
        // Gateways and Databricks pass both on to Anthropic; OpenRouter has a name of its own.
        (CHAT, format!(r#"{{"model":"best","max_tokens":4000,"messages":[],{thinking}}}"#)),
        (CHAT, format!(r#"{{{thinking},"max_completion_tokens":4000,"model":"best"}}"#)),
        (CHAT, r#"{"model":"best","max_tokens":4000,"reasoning":{"max_tokens":1500}}"#.to_owned()),
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
                assert_eq!(held(&proxy, "acme"), body.len() as u64 + 1_501);
                call.answer_headers("200", &[]);
                assert_eq!(call.response_header("x-bursar-max-output-tokens"), Some("1501"));
            }
        }
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
            held(proxy, "acme"),
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
                    assert_eq!(
                        (held(&proxy, "acme"), spent(&proxy, "acme")),
                        (0, 9_000 + all)
                    );
                    assert!(spent(&proxy, "acme") <= 10_000);
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
                held(&proxy, "acme"),
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
            held(&proxy, "acme"),
        )
    };
    assert_eq!(call(true), (None, 1_000));
    assert_eq!(call(false), (Some("budget_exhausted".to_owned()), 0));
}
