//! OpenAI chat completions: <https://platform.openai.com/docs/api-reference/chat>, and the shapes that
//! the official Python SDK of November 2026 sends and reads.

use serde_json::Value;

use super::{Facts, Fault};
use crate::json::{Field, Key, Malformed, Repeats, Scanner, text};
use crate::rewrite::Edit;
use crate::units::Tokens;
use crate::usage::{EventFacts, Usage};

/// Keys of a request, in the order of the constants below.
pub(super) const REQUEST_KEYS: &[Key] = &[
    // 256 bytes of name, each of which may be escaped.
    Key {
        name: "model",
        limit: 6 * 256 + 2,
    },
    Key {
        name: "stream",
        limit: 16,
    },
    Key {
        name: "stream_options",
        limit: 1_024,
    },
    Key {
        name: "max_tokens",
        limit: 32,
    },
    Key {
        name: "max_completion_tokens",
        limit: 32,
    },
    Key {
        name: "n",
        limit: 32,
    },
];
const MODEL: usize = 0;
const STREAM: usize = 1;
const STREAM_OPTIONS: usize = 2;
const MAX_TOKENS: usize = 3;
const MAX_COMPLETION_TOKENS: usize = 4;
const N: usize = 5;

const MAX_MODEL: usize = 256;

/// Keys of a response or of a stream's event.
pub(super) const RESPONSE_KEYS: &[Key] = &[
    Key {
        name: "usage",
        limit: 16 * 1024,
    },
    // Enough to tell an empty list from any other.
    Key {
        name: "choices",
        limit: 16,
    },
];
const USAGE: usize = 0;
const CHOICES: usize = 1;

const INCLUDE_USAGE: &str = "include_usage";

pub(super) fn facts(scanner: &Scanner) -> Result<Option<Facts>, Fault> {
    let Some(field) = scanner.value(MODEL) else {
        return if scanner.closing_brace().is_some() {
            Err(Fault::NoModel)
        } else {
            Ok(None)
        };
    };
    let model = text(field)
        .filter(|model| model.len() <= MAX_MODEL)
        .ok_or(Fault::ModelNotText)?;
    let choices = number(scanner, N).unwrap_or(1).max(1);
    // Which of the two an upstream honours is its own affair: reserve for the larger one.
    let limit = number(scanner, MAX_TOKENS).max(number(scanner, MAX_COMPLETION_TOKENS));
    Ok(Some(Facts {
        model,
        model_span: (field.start, field.end.unwrap_or(field.start)),
        output_limit: limit.map(|limit| Tokens(limit.saturating_mul(choices))),
        choices,
        stream: streams(scanner),
        asks_usage: scanner.value(STREAM_OPTIONS).is_some_and(includes_usage),
    }))
}

/// A non-negative integer; `None` if it is absent, `null` or anything else, which the upstream will refuse.
fn number(scanner: &Scanner, index: usize) -> Option<u64> {
    serde_json::from_slice(&scanner.value(index)?.raw).ok()
}

fn streams(scanner: &Scanner) -> bool {
    scanner
        .value(STREAM)
        .is_some_and(|field| field.raw == b"true")
}

fn includes_usage(options: &Field) -> bool {
    let options: Option<Value> = serde_json::from_slice(&options.raw).ok();
    options.is_some_and(|options| options.get(INCLUDE_USAGE) == Some(&Value::Bool(true)))
}

/// Asks for usage in the place of whatever else `stream_options` says about it.
///
/// A stream that does not report its usage could only be settled by an estimate.
pub(super) fn ask_usage(scanner: &Scanner) -> Option<Edit> {
    if !streams(scanner) {
        return None;
    }
    let Some(field) = scanner.value(STREAM_OPTIONS) else {
        let brace = scanner.closing_brace()?;
        let with = format!(",\"stream_options\":{{\"{INCLUDE_USAGE}\":true}}").into_bytes();
        return Some(Edit {
            start: brace,
            end: brace,
            with,
        });
    };
    let mut options = match serde_json::from_slice(&field.raw).ok()? {
        Value::Object(options) => options,
        Value::Null => serde_json::Map::new(),
        // The upstream will refuse it.
        _ => return None,
    };
    if options.insert(INCLUDE_USAGE.to_owned(), Value::Bool(true)) == Some(Value::Bool(true)) {
        return None;
    }
    let with = Value::Object(options).to_string().into_bytes();
    Some(Edit {
        start: field.start,
        end: field.end?,
        with,
    })
}

pub(super) fn usage_of_body(scanner: &Scanner) -> Option<Usage> {
    let usage: Value = serde_json::from_slice(&scanner.value(USAGE)?.raw).ok()?;
    usage.is_object().then(|| usage_of(&usage))
}

/// Reads a `usage` object. Reasoning tokens are part of `completion_tokens`.
fn usage_of(usage: &Value) -> Usage {
    let tokens = |value: &Value, key: &str| value.get(key).and_then(Value::as_u64).map(Tokens);
    let input = tokens(usage, "prompt_tokens");
    let total = tokens(usage, "total_tokens");
    let output = tokens(usage, "completion_tokens").or_else(|| Some(total? - input?));
    let cached = usage
        .get("prompt_tokens_details")
        .and_then(|details| tokens(details, "cached_tokens"));
    Usage {
        input,
        cached_input: cached.map(|cached| cached.min(input.unwrap_or_default())),
        output,
    }
}

pub(super) fn event(data: &[u8]) -> EventFacts {
    if data.trim_ascii() == b"[DONE]" {
        return EventFacts {
            is_end: true,
            ..EventFacts::default()
        };
    }
    let mut scanner = Scanner::new(RESPONSE_KEYS, Repeats::TakeLast);
    if scanner.feed(data) == Err(Malformed::NotAnObject) {
        return EventFacts::default();
    }
    let usage = usage_of_body(&scanner);
    let empty = |field: &Field| {
        field
            .raw
            .trim_ascii()
            .strip_prefix(b"[")
            .map(<[u8]>::trim_ascii)
            == Some(b"]")
    };
    EventFacts {
        usage,
        usage_only: usage.is_some() && scanner.value(CHOICES).is_some_and(empty),
        is_end: false,
    }
}

pub(super) fn error_body(status: u16, code: &str, message: &str) -> String {
    let kind = match (status, code) {
        (_, "insufficient_quota") => "insufficient_quota",
        (429, _) => "rate_limit_error",
        (401, _) => "authentication_error",
        (403, _) => "permission_error",
        (503, _) => "server_error",
        _ => "invalid_request_error",
    };
    let error = serde_json::json!({"message": message, "type": kind, "param": null, "code": code});
    serde_json::json!({ "error": error }).to_string()
}
