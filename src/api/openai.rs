//! OpenAI chat completions: <https://platform.openai.com/docs/api-reference/chat>, and the shapes that
//! the official Python SDK of November 2026 sends and reads.

use serde_json::{Map, Value};

use super::{Facts, Fault};
use crate::json::{Field, Key, Malformed, Repeats, Scanner, text};
use crate::number::Number;
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
    let choices = count(scanner, N)?.unwrap_or(1);
    // Which of the two an upstream honours is its own affair: reserve for the larger one.
    let limit = count(scanner, MAX_TOKENS)?.max(count(scanner, MAX_COMPLETION_TOKENS)?);
    Ok(Some(Facts {
        model,
        model_span: (field.start, field.end.unwrap_or(field.start)),
        output_limit: limit.map(|limit| Tokens(limit.saturating_mul(choices))),
        choices,
        stream: streams(scanner)?,
        asks_usage: options(scanner)?.is_some_and(|options| includes_usage(&options)),
    }))
}

/// A whole number of at least 1; `None` if it is absent or `null`.
///
/// Anything else is refused, not passed over: upstreams are lenient in different ways (`"5"`, `5e4`), and what we did
/// not understand we would not have reserved.
fn count(scanner: &Scanner, index: usize) -> Result<Option<u64>, Fault> {
    let Some(field) = scanner.value(index).filter(|field| field.raw != b"null") else {
        return Ok(None);
    };
    let number: Option<Number> = serde_json::from_slice(&field.raw).ok();
    let count = number.and_then(Number::whole).filter(|&count| count > 0);
    count.map(Some).ok_or(Fault::NotACount)
}

fn streams(scanner: &Scanner) -> Result<bool, Fault> {
    match scanner
        .value(STREAM)
        .map_or(b"null".as_slice(), |field| &field.raw)
    {
        b"true" => Ok(true),
        b"false" | b"null" => Ok(false),
        _ => Err(Fault::StreamNotBool),
    }
}

/// `stream_options`, empty if it is `null`.
fn options(scanner: &Scanner) -> Result<Option<Map<String, Value>>, Fault> {
    let Some(field) = scanner.value(STREAM_OPTIONS) else {
        return Ok(None);
    };
    let options: Option<Option<Map<String, Value>>> = serde_json::from_slice(&field.raw).ok();
    options
        .map(|options| Some(options.unwrap_or_default()))
        .ok_or(Fault::OptionsNotObject)
}

fn includes_usage(options: &Map<String, Value>) -> bool {
    options.get(INCLUDE_USAGE) == Some(&Value::Bool(true))
}

/// Asks for usage in the place of whatever else `stream_options` says about it.
///
/// A stream that does not report its usage could only be settled by an estimate. Where the options stand before `stream`
/// they may have to go on before that is known, so they are changed in any case: they mean nothing without it.
pub(super) fn ask_usage(scanner: &Scanner) -> Option<Edit> {
    let (start, end, with) = match (options(scanner).ok()?, scanner.value(STREAM_OPTIONS)) {
        (Some(options), _) if includes_usage(&options) => return None,
        (Some(mut options), Some(field)) => {
            options.insert(INCLUDE_USAGE.to_owned(), Value::Bool(true));
            (field.start, field.end?, Value::Object(options).to_string())
        }
        _ if streams(scanner) != Ok(true) => return None,
        _ => {
            let brace = scanner.closing_brace()?;
            let with = format!(",\"stream_options\":{{\"{INCLUDE_USAGE}\":true}}");
            (brace, brace, with)
        }
    };
    Some(Edit {
        start,
        end,
        with: with.into_bytes(),
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
