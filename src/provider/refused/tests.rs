use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// 2026-11-29 12:00:00 UTC.
const NOW: Timestamp = Timestamp::from_secs(1_795_953_600);

fn read(status: &str, headers: &[(&str, &str)], body: &str) -> Option<UpstreamRefusal> {
    let status = [(":status", status)];
    let all = status.iter().chain(headers);
    let response: Headers = all.copied().collect();
    let mut reader = RefusalReader::new(&response, NOW)?;
    // The result is the same in every chunking.
    body.as_bytes()
        .iter()
        .for_each(|byte| reader.feed(&[*byte]));
    reader.refusal()
}

// OpenRouter refuses what its money does not cover, and Anthropic long prompts without a plan for them, while smaller requests are served.
#[test]
fn what_is_too_large_alone_says_nothing_of_others() {
    for (status, message) in [
        (
            "402",
            "This request requires more credits, or fewer max_tokens. You requested up to 9000 tokens, but can only afford 300.",
        ),
        (
            "402",
            "Prompt tokens limit exceeded: 2000 > 900. To increase, add credits",
        ),
        ("429", "Extra usage is required for long context requests."),
        ("429", "Request too large for m in organization o"),
    ] {
        let body = format!(
            r#"{{"error":{{"type":"rate_limit_error","message":"{message}","code":402}}}}"#
        );
        assert_eq!(
            read(status, &[("retry-after", "60")], &body),
            None,
            "{message}"
        );
    }
    let body =
        r#"{"error":{"message":"Insufficient credits. Add more using https://x","code":402}}"#;
    assert_eq!(
        read("402", &[], body).map(|refusal| refusal.kind),
        Some(RefusalKind::Quota)
    );
}

fn wait(headers: &[(&str, &str)], body: &str) -> Option<u64> {
    let refusal = read("429", headers, body).unwrap();
    let millis = refusal.wait.map(|wait| wait.as_millis());
    millis.map(|millis| u64::try_from(millis).unwrap())
}

#[test]
fn the_status_says_why() {
    for (status, expected) in [
        ("429", Some(RefusalKind::RateLimit)),
        ("503", Some(RefusalKind::Overloaded)),
        ("529", Some(RefusalKind::Overloaded)),
        ("500", Some(RefusalKind::Failed)),
        ("502", Some(RefusalKind::Failed)),
        ("402", Some(RefusalKind::Quota)),
        ("400", None),
        ("401", None),
        ("403", None),
        ("404", None),
        ("200", None),
    ] {
        let refusal = read(status, &[], "");
        assert_eq!(refusal.map(|refusal| refusal.kind), expected, "{status}");
    }
}

#[test]
fn when_to_come_back_is_read_in_every_form() {
    for (headers, body, expected) in [
        (&[("retry-after", "20")][..], "", Some(20_000)),
        (&[("retry-after", "0.5")], "", Some(500)),
        (
            &[("retry-after", "Sun, 29 Nov 2026 12:00:30 GMT")],
            "",
            Some(30_000),
        ),
        (
            &[("retry-after", "Sun, 29 Nov 2026 11:00:00 GMT")],
            "",
            Some(0),
        ),
        (&[("retry-after-ms", "1234")], "", Some(1_234)),
        (&[("x-ms-retry-after-ms", "77")], "", Some(77)),
        // The more exact header counts.
        (
            &[("retry-after", "2"), ("retry-after-ms", "1234")],
            "",
            Some(1_234),
        ),
        (
            &[("retry-after", "soon"), ("x-ratelimit-reset-tokens", "6s")],
            "",
            Some(6_000),
        ),
        // OpenAI's forms, and Azure's seconds.
        (&[("x-ratelimit-reset-requests", "8.64s")], "", Some(8_640)),
        (&[("x-ratelimit-reset-tokens", "6m0s")], "", Some(360_000)),
        (&[("x-ratelimit-reset-tokens", "12")], "", Some(12_000)),
        (
            &[
                ("x-ratelimit-remaining-tokens", "-1"),
                ("x-ratelimit-reset-tokens", "0"),
            ],
            "",
            None,
        ),
        // Of two limits, the spent one counts; of two spent ones, the later reset.
        (
            &[
                ("x-ratelimit-remaining-requests", "0"),
                ("x-ratelimit-reset-requests", "30s"),
                ("x-ratelimit-remaining-tokens", "99"),
                ("x-ratelimit-reset-tokens", "1s"),
            ],
            "",
            Some(30_000),
        ),
        (
            &[
                ("x-ratelimit-remaining-requests", "0"),
                ("x-ratelimit-reset-requests", "30s"),
                ("x-ratelimit-remaining-tokens", "0"),
                ("x-ratelimit-reset-tokens", "40s"),
            ],
            "",
            Some(40_000),
        ),
        (
            &[
                ("x-ratelimit-reset-requests", "30s"),
                ("x-ratelimit-reset-tokens", "4s"),
            ],
            "",
            Some(4_000),
        ),
        (
            &[
                ("anthropic-ratelimit-input-tokens-remaining", "0"),
                (
                    "anthropic-ratelimit-input-tokens-reset",
                    "2026-11-29T12:00:45Z",
                ),
                ("anthropic-ratelimit-requests-reset", "2026-11-29T12:00:01Z"),
            ],
            "",
            Some(45_000),
        ),
        (&[("x-ratelimit-reset", "1795953605000")], "", Some(5_000)),
        (&[("x-ratelimit-reset", "1795953605")], "", Some(5_000)),
        // Google's form, also inside a list, as in its streams.
        (
            &[],
            r#"{"error":{"code":429,"details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay": "34.07s"}]}}"#,
            Some(34_070),
        ),
        (
            &[],
            r#"[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"Please retry in 12.5s."}}]"#,
            Some(12_500),
        ),
        // Words come last.
        (
            &[],
            r#"{"error":{"message":"Rate limit reached. Please try again in 20s. Visit …"}}"#,
            Some(20_000),
        ),
        (
            &[],
            r#"{"error":{"message":"Please try again in 1m26.4s."}}"#,
            Some(86_400),
        ),
        (
            &[],
            r#"{"error":{"message":"Please try again in 6ms."}}"#,
            Some(6),
        ),
        (
            &[],
            r#"{"error":{"code":"429","message":"Please retry after 7 seconds."}}"#,
            Some(7_000),
        ),
        (
            &[("retry-after", "3")],
            r#"{"error":{"message":"try again in 20s"}}"#,
            Some(3_000),
        ),
        (&[], r#"{"error":{"message":"try again in a while"}}"#, None),
        (&[], "no JSON, try again in 5s", None),
        (&[], "", None),
    ] {
        assert_eq!(wait(headers, body), expected, "{headers:?} {body}");
    }
}

#[test]
fn what_no_wait_cures_is_told_apart() {
    let body = r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#;
    let quota = UpstreamRefusal {
        kind: RefusalKind::Quota,
        wait: None,
    };
    assert_eq!(read("429", &[("retry-after", "2")], body), Some(quota));
    let anthropic = r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API."}}"#;
    assert_eq!(read("400", &[], anthropic), Some(quota));
    let hard = r#"{"error":{"code":"billing_hard_limit_reached","message":"Billing hard limit has been reached"}}"#;
    assert_eq!(read("400", &[], hard), Some(quota));
    assert_eq!(read("402", &[], ""), Some(quota));
    // An error whose message only quotes the word.
    let quoted =
        r#"{"error":{"code":"invalid","message":"What does \"insufficient_quota\" mean?"}}"#;
    assert_eq!(read("400", &[], quoted), None);
    assert_eq!(
        read("429", &[], quoted).unwrap().kind,
        RefusalKind::RateLimit
    );
}

// A tenant must not press a tier for all others with requests that no quota has room for.
#[test]
fn a_request_that_is_too_large_says_nothing_of_others() {
    let body = r#"{"error":{"message":"Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 60000.","type":"tokens","code":"rate_limit_exceeded"}}"#;
    assert_eq!(read("429", &[], body), None);
}

#[test]
fn an_error_in_an_answer_is_read_by_its_words() {
    for (error, expected) in [
        (
            r#"{"error":{"type":"overloaded_error"},"type":"error"}"#,
            Some(RefusalKind::Overloaded),
        ),
        (
            r#"{"error":{"code":429,"message":"slow down"}}"#,
            Some(RefusalKind::RateLimit),
        ),
        (
            r#"{"error":{"status":"RESOURCE_EXHAUSTED"}}"#,
            Some(RefusalKind::RateLimit),
        ),
        (
            r#"{"code":"rate_limit_exceeded","message":"…"}"#,
            Some(RefusalKind::RateLimit),
        ),
        (r#""rate_limit_exceeded""#, Some(RefusalKind::RateLimit)),
        ("throttlingException", Some(RefusalKind::RateLimit)),
        (
            r#"{"error":{"type":"server_error"}}"#,
            Some(RefusalKind::Failed),
        ),
        (
            r#"{"error":{"code":"insufficient_quota"}}"#,
            Some(RefusalKind::Quota),
        ),
        (r#"{"error":{"type":"invalid_request_error"}}"#, None),
        ("", None),
    ] {
        let refusal = refusal_in_answer(error.as_bytes());
        assert_eq!(refusal.map(|refusal| refusal.kind), expected, "{error}");
    }
}

#[test]
fn no_more_of_a_body_is_kept_than_is_looked_at() {
    let response: Headers = [(":status", "429")].into_iter().collect();
    let mut reader = RefusalReader::new(&response, NOW).unwrap();
    for _ in 0..100 {
        reader.feed(&[b' '; 1_000]);
    }
    assert_eq!(reader.body.len(), MOST);
}
