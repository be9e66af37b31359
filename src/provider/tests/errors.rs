//! Errors in the providers' formats.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn problem(status: u16, code: &'static str, retry_after_ms: Option<u64>) -> Problem<'static> {
    Problem {
        status,
        code,
        message: "m",
        retry_after_ms,
    }
}

// boto3 and AWS's JS SDK retry after any 429.
#[test]
fn what_no_wait_cures_is_no_429_to_aws_s_sdks() {
    for path in ["/model/m/converse", "/model/m/invoke"] {
        let wire = endpoint("POST", path).unwrap().wire;
        for (problem, status, kind) in [
            (
                problem(429, "insufficient_quota", None),
                400,
                "ServiceQuotaExceededException",
            ),
            (
                problem(429, "request_exceeds_burst", None),
                400,
                "ServiceQuotaExceededException",
            ),
            (
                problem(429, "rate_limit_exceeded", Some(5)),
                429,
                "ThrottlingException",
            ),
            (
                problem(429, "rate_limit_exceeded", None),
                429,
                "ThrottlingException",
            ),
            (
                problem(415, "unsupported_content_encoding", None),
                415,
                "ValidationException",
            ),
            (
                problem(503, "budget_unavailable", None),
                503,
                "ServiceUnavailableException",
            ),
        ] {
            let reply = wire.error(&problem);
            assert_eq!(reply.status, status);
            assert_eq!(reply.headers[0], ("x-amzn-errortype", kind.into()));
        }
    }
}

// Google's clients wait for this time, and ignore headers.
#[test]
fn googles_errors_say_when_to_try_again() {
    let wire = endpoint("POST", "/v1/models/m:generateContent")
        .unwrap()
        .wire;
    let details = |problem| {
        let body: serde_json::Value = serde_json::from_str(&wire.error(&problem).body).unwrap();
        body["error"]["details"].clone()
    };
    let waits = details(problem(429, "rate_limit_exceeded", Some(61_005)));
    assert_eq!(
        waits[1]["@type"],
        "type.googleapis.com/google.rpc.RetryInfo"
    );
    assert_eq!(waits[1]["retryDelay"], "61.005s");
    let never = details(problem(429, "insufficient_quota", None));
    assert_eq!(never.as_array().unwrap().len(), 1);
}
