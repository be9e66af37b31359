//! Answers of OpenAI's APIs and of compatible servers, both whole answers and chunks.

use crate::body::json::{Key, Scanner, Shape, entries, may_have, members};
use crate::provider::answer::{
    ERROR, MAX_ERROR, MAX_USAGE, USAGE, is_said, model, model_key, usage_key,
};
use crate::provider::compatible;
use crate::provider::read::{is_beyond, key, long_key, value};
use crate::usage::{EventFacts, EventKind, Usage};

/// The keys of errors on servers that report them with the status 200. MiniMax's key is also present in successful answers
/// (<https://github.com/CherryHQ/cherry-studio/issues/11287>, read 2026-11-29).
const FAULT_KEY: Key = long_key(
    &["error|errors|error_code|error_msg|base_resp|detail|code"],
    MAX_ERROR,
);
/// Words of an event that may be an error or a cost: the names in [`FAULT_KEY`], and the key of a gateway's cost.
const SIGNS: [&str; 8] = [
    "error",
    "cost",
    "errors",
    "error_code",
    "error_msg",
    "base_resp",
    "detail",
    "code",
];

/// The shape of an answer that is one JSON object.
pub(super) const ANSWER: Shape = Shape::new(
    &[
        usage_key(&["usage"]),
        FAULT_KEY,
        model_key(&["model"]),
        key(&["service_tier"]),
        // Long enough to distinguish an empty list from any other. The other names are those of embeddings.
        key(&["choices|data|vectors"]),
        // Of MiniMax's embeddings (langchain_community, `embeddings/minimax.py`, read 2026-11-30).
        key(&["total_tokens"]),
    ],
    &[],
);
/// The shape of a stream's event.
pub(super) const CHUNK: Shape = Shape::new(
    &[
        usage_key(&["usage"]),
        FAULT_KEY,
        model_key(&["model"]),
        key(&["service_tier"]),
        long_key(&["choices"], MAX_USAGE),
        usage_key(&["x_groq", "usage"]),
        key(&["cost"]),
    ],
    &[],
);
const CHOICES: usize = 4;
pub(super) const TOTAL: usize = 5;
/// Groq's own place for the usage.
const GROQ_USAGE: usize = 5;
/// The cost that some gateways send at the end of a stream, in an event of its own.
const COST: usize = 6;

/// Whether an event may carry an error or a cost and nothing of the answer. This is a quick check, since in nearly all events the first
/// list is `choices`. That list is the event's own if no other object contains it.
pub(super) fn may_fail(event: &[u8]) -> bool {
    let has_choices = || {
        // The first brace or bracket within the event.
        let at = memchr::memchr2(b'{', b'[', event.get(1..)?)?.saturating_add(1);
        let (before, list) = event.split_at_checked(at)?;
        let is_own = before.ends_with(b",\"choices\":") && list.starts_with(b"[{");
        Some(is_own && event.starts_with(b"{"))
    };
    !has_choices().unwrap_or_default() && may_have(event, &SIGNS, |value| !is_null(value))
}

/// Whether the value behind a key is certainly `null`. Of what is no JSON, such as `nullull`, the scanner decides.
pub(super) fn is_null(value: &[u8]) -> bool {
    value.starts_with(b":null,") || value.starts_with(b":null}")
}

/// Whether an answer is an error without any part of an answer: some servers' answers begin with a `code` of 0.
pub(super) fn is_error(answer: &Scanner) -> bool {
    is_said(answer, ERROR) && !has_begun(answer, CHOICES)
}

/// Whether a list has an entry, complete or not. The scanner does not look for faults inside a list, so the result is the same in every
/// chunking.
fn has_begun(answer: &Scanner, index: usize) -> bool {
    let field = answer.begun(index);
    let is_list = field.is_some_and(|field| field.raw.starts_with(b"["));
    is_list && is_beyond(answer, index, &["["])
}

/// Reads a `usage`. Google's compatible API counts thoughts only in the total
/// (<https://github.com/mozilla-ai/any-llm/issues/1290>, read 2026-11-29).
pub(super) fn usage_in(usage: &[u8], answer: &Scanner) -> Option<Usage> {
    let is_gemini =
        || model(answer).is_some_and(|model| model.to_ascii_lowercase().contains("gemini"));
    compatible::usage_of(usage, is_gemini)
}

/// The usage of a chunk: at the top level, in Groq's own place, or in a choice, as in Moonshot's API
/// (<https://github.com/earendil-works/pi/issues/2017>, read 2026-11-29).
fn chunk_usage(chunk: &Scanner) -> Option<Usage> {
    let object = |index| value(chunk, index).filter(|usage| usage.starts_with(b"{"));
    if let Some(usage) = object(USAGE).or_else(|| object(GROQ_USAGE)) {
        return usage_in(usage, chunk);
    }
    let choices = value(chunk, CHOICES)?;
    if !may_have(choices, &["usage"], |_| true) {
        return None;
    }
    let mut usages = entries(choices)?
        .into_iter()
        .filter_map(|choice| members(choice, ["usage"])?[0]);
    usages.find_map(|usage| usage_in(usage, chunk))
}

/// What an event of a stream reports.
pub(super) fn facts(event: &Scanner) -> EventFacts {
    // A list that broken JSON leaves open counts too: most events' lists are not read to their end.
    let has_choices = is_said(event, CHOICES) || has_begun(event, CHOICES);
    let came_as_asked = value(event, USAGE).is_some_and(|usage| usage.starts_with(b"{"));
    let kind = if has_choices {
        EventKind::Content
    } else if is_said(event, ERROR) {
        EventKind::Error
    } else if came_as_asked || is_said(event, COST) {
        EventKind::UsageOnly
    } else {
        EventKind::Content
    };
    EventFacts {
        usage: chunk_usage(event),
        kind,
        is_last: kind == EventKind::UsageOnly,
    }
}
