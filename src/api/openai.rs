//! OpenAI's chat completions, completions and embeddings, and every server that speaks like it
//! (<https://platform.openai.com/docs/api-reference>; shapes as the official Python SDK of November 2026 has them).

use super::read::{
    MODEL, count, count_of, flag, is_given, key, long_key, output_limit, over_all, tokens, value,
};
use super::{ErrorReply, Facts, Fault, OutputLimits, Problem, Wire};
use crate::json::{Field, Mark, Scanner, Shape, Sign, may_have, members, quoted, with_entry};
use crate::messages::Dialect;
use crate::rewrite::Edit;
use crate::tier::{Needs, Tier};
use crate::units::Tokens;
use crate::usage::{EventFacts, Usage};

/// Chat completions.
#[derive(Debug)]
pub(super) struct Chat;

/// Completions without a chat.
#[derive(Debug)]
pub(super) struct Completions;

/// Embeddings.
#[derive(Debug)]
pub(super) struct Embeddings;

/// Longest `stream_options` that make sense.
const MAX_OPTIONS: usize = 1_024;

const STREAM: usize = 1;
const STREAM_OPTIONS: usize = 2;
const MAX_TOKENS: usize = 3;
const N: usize = 4;

/// In the order of the constants above and below.
const CHAT: Shape = Shape {
    keys: &[
        MODEL,
        key(&["stream"]),
        long_key(&["stream_options"], MAX_OPTIONS),
        key(&["max_tokens"]),
        key(&["n"]),
        key(&["max_completion_tokens"]),
        key(&["tools"]),
        key(&["functions"]),
        key(&["response_format", "type"]),
        key(&["reasoning_effort"]),
        key(&["n_predict"]),
    ],
    marks: &[
        mark(Sign::Type("image_url"), Needs::IMAGES),
        mark(Sign::Type("input_audio"), Needs::IMAGES),
        mark(Sign::Type("file"), Needs::IMAGES),
        mark(Sign::Type("video_url"), Needs::IMAGES),
        mark(Sign::Key("tool_calls"), Needs::TOOLS),
    ],
};
const MAX_COMPLETION_TOKENS: usize = 5;
const TOOLS: usize = 6;
const FUNCTIONS: usize = 7;
const FORMAT: usize = 8;
const EFFORT: usize = 9;
/// llama.cpp's own name, which it heeds before all others.
const N_PREDICT: usize = 10;

const COMPLETIONS: Shape = Shape {
    keys: &[
        MODEL,
        key(&["stream"]),
        long_key(&["stream_options"], MAX_OPTIONS),
        key(&["max_tokens"]),
        key(&["n"]),
        key(&["best_of"]),
        key(&["prompt"]),
        key(&["n_predict"]),
    ],
    marks: &[],
};
const BEST_OF: usize = 5;
const PROMPT: usize = 6;
const PLAIN_N_PREDICT: usize = 7;

const EMBEDDINGS: Shape = Shape {
    keys: &[MODEL],
    marks: &[],
};

/// Of a response or of a stream's event.
const ANSWER: Shape = Shape {
    keys: &[
        long_key(&["usage"], 16 * 1_024),
        // Enough to tell an empty list from any other.
        key(&["choices"]),
    ],
    marks: &[],
};
const USAGE: usize = 0;
const CHOICES: usize = 1;

const INCLUDE_USAGE: &str = "include_usage";

/// Bytes of `,"stream_options":{"include_usage":true}`: more than it takes to say so in options that are there.
const MOST_ADDED_TO_ASK: u64 = 40;

const fn mark(sign: Sign, needs: Needs) -> Mark {
    Mark {
        under: "messages",
        sign,
        flags: needs.0,
    }
}

impl Wire for Chat {
    fn request(&self) -> Shape {
        CHAT
    }

    fn possible_needs(&self) -> Needs {
        Tier::USUAL
    }

    fn facts(&self, body: &Scanner) -> Result<Facts, Fault> {
        let choices = count(body, N, "n")?.unwrap_or(1);
        let limit = output_limit(body, self.output_limits(), CHAT.keys)?;
        let asked = Needs::TOOLS.when(is_given(body, TOOLS) || is_given(body, FUNCTIONS))
            | Needs::STRUCTURED_OUTPUT.when(is_structured(body, FORMAT))
            | Needs::THINKING.when(is_given(body, EFFORT) && !is_word(body, EFFORT, "none"));
        Ok(Facts {
            output_limit: over_all(limit, choices),
            choices,
            needs: asked | Needs(body.noticed()),
            ..streaming(body)?
        })
    }

    fn output_limits(&self) -> OutputLimits {
        OutputLimits {
            keys: &[MAX_TOKENS, MAX_COMPLETION_TOKENS, N_PREDICT],
            object: None,
            may_be_text: false,
            // Which of them a model takes cannot be known: each is refused by some.
            name: None,
            have_floor: false,
        }
    }

    fn dialect(&self) -> Option<Dialect> {
        Some(Dialect::OpenAi)
    }

    fn ask_usage(&self, body: &Scanner) -> Option<Edit> {
        ask_usage(body)
    }

    fn most_added_to_ask(&self) -> u64 {
        MOST_ADDED_TO_ASK
    }

    fn response(&self) -> Shape {
        ANSWER
    }

    fn usage(&self, body: &Scanner) -> Option<Usage> {
        usage_of(value(body, USAGE)?)
    }

    fn event(&self, event: &Scanner) -> EventFacts {
        event_facts(self.usage(event), event)
    }

    fn may_tell(&self, event: &[u8]) -> bool {
        // Asked for usage, servers write `null` into all events but the last.
        may_have(event, &["usage"], |value| !value.starts_with(b":null"))
    }

    fn error(&self, problem: &Problem<'_>) -> ErrorReply {
        error(problem)
    }
}

impl Wire for Completions {
    fn request(&self) -> Shape {
        COMPLETIONS
    }

    fn possible_needs(&self) -> Needs {
        Needs::NONE
    }

    fn facts(&self, body: &Scanner) -> Result<Facts, Fault> {
        let each = count(body, N, "n")?.max(count(body, BEST_OF, "best_of")?);
        let choices = each.unwrap_or(1).saturating_mul(prompts(body));
        let limit = output_limit(body, self.output_limits(), COMPLETIONS.keys)?;
        Ok(Facts {
            output_limit: over_all(limit, choices),
            choices,
            ..streaming(body)?
        })
    }

    fn output_limits(&self) -> OutputLimits {
        OutputLimits {
            keys: &[MAX_TOKENS, PLAIN_N_PREDICT],
            object: None,
            may_be_text: false,
            name: Some("max_tokens"),
            have_floor: false,
        }
    }

    fn ask_usage(&self, body: &Scanner) -> Option<Edit> {
        ask_usage(body)
    }

    fn most_added_to_ask(&self) -> u64 {
        MOST_ADDED_TO_ASK
    }

    fn response(&self) -> Shape {
        ANSWER
    }

    fn usage(&self, body: &Scanner) -> Option<Usage> {
        Chat.usage(body)
    }

    fn event(&self, event: &Scanner) -> EventFacts {
        Chat.event(event)
    }

    fn may_tell(&self, event: &[u8]) -> bool {
        Chat.may_tell(event)
    }

    fn error(&self, problem: &Problem<'_>) -> ErrorReply {
        error(problem)
    }
}

impl Wire for Embeddings {
    fn request(&self) -> Shape {
        EMBEDDINGS
    }

    fn possible_needs(&self) -> Needs {
        Needs::NONE
    }

    fn facts(&self, _: &Scanner) -> Result<Facts, Fault> {
        Ok(Facts {
            output_limit: Some(Tokens(0)),
            ..Facts::default()
        })
    }

    fn output_limits(&self) -> OutputLimits {
        OutputLimits {
            keys: &[],
            object: None,
            may_be_text: false,
            name: None,
            have_floor: false,
        }
    }

    fn response(&self) -> Shape {
        ANSWER
    }

    fn usage(&self, body: &Scanner) -> Option<Usage> {
        let usage = Chat.usage(body)?;
        Some(Usage {
            output: usage.input.map(|_| Tokens(0)),
            ..usage
        })
    }

    fn event(&self, event: &Scanner) -> EventFacts {
        Chat.event(event)
    }

    /// Two models' vectors cannot be compared.
    fn can_exchange(&self, _: &str, _: &str) -> bool {
        false
    }

    fn error(&self, problem: &Problem<'_>) -> ErrorReply {
        error(problem)
    }
}

/// How many prompts there are: a list of numbers is one that was made tokens of already.
fn prompts(body: &Scanner) -> u64 {
    let Some(field) = body.begun(PROMPT) else {
        return 1;
    };
    let mut bytes = field.raw.iter().filter(|byte| !byte.is_ascii_whitespace());
    match (bytes.next(), bytes.next()) {
        // Where too much white space hides what is listed, the larger number counts.
        (Some(b'['), Some(b'"' | b'[') | None) => field.commas.saturating_add(1),
        _ => 1,
    }
}

fn is_word(body: &Scanner, index: usize, word: &str) -> bool {
    let value = body.value(index).and_then(crate::json::text);
    value.is_some_and(|value| value == word)
}

/// Whether the type of a format promises a shape.
pub(super) fn is_structured(body: &Scanner, index: usize) -> bool {
    is_given(body, index) && !is_word(body, index, "text")
}

/// What chat and plain completions say alike about streaming.
fn streaming(body: &Scanner) -> Result<Facts, Fault> {
    let asks = options(body)?.is_some_and(|(_, asks)| asks);
    let stream = flag(body, STREAM, "stream")?;
    Ok(Facts {
        stream,
        hides_usage: stream && !asks,
        ..Facts::default()
    })
}

/// `stream_options`, empty if it is `null`, and whether they ask for usage.
fn options(body: &Scanner) -> Result<Option<(&[u8], bool)>, Fault> {
    if body.value(STREAM_OPTIONS).is_none() {
        return Ok(None);
    }
    let options = value(body, STREAM_OPTIONS).ok_or(Fault::OptionsNotObject)?;
    let options = if options == b"null" { b"{}" } else { options };
    let [asks] = members(options, [INCLUDE_USAGE]).ok_or(Fault::OptionsNotObject)?;
    Ok(Some((options, asks == Some(b"true"))))
}

/// Asks for usage in the place of whatever else `stream_options` says about it.
///
/// A stream that does not report its usage could only be settled by an estimate. Where the options stand before `stream`
/// they may have to go on before that is known, so they are changed in any case: they mean nothing without it.
fn ask_usage(body: &Scanner) -> Option<Edit> {
    let (start, end, with) = match (options(body).ok()?, body.value(STREAM_OPTIONS)) {
        (Some((_, true)), _) => return None,
        (Some((options, false)), Some(field)) => (
            field.start,
            field.end?,
            with_entry(options, INCLUDE_USAGE, "true")?,
        ),
        _ if flag(body, STREAM, "stream") != Ok(true) => return None,
        _ => {
            let brace = body.closing_brace()?;
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

/// Reads a `usage` object. Cached and reasoning tokens are part of the sums; where reasoning stands beside
/// `completion_tokens` (as xAI has it), it is in `total_tokens` all the same.
fn usage_of(usage: &[u8]) -> Option<Usage> {
    let [input, output, total, hit, details] = members(
        usage,
        [
            "prompt_tokens",
            "completion_tokens",
            "total_tokens",
            "prompt_cache_hit_tokens",
            "prompt_tokens_details",
        ],
    )?;
    let [input, output, total, hit] = [input, output, total, hit].map(count_of);
    let [cached, written] = tokens(details, ["cached_tokens", "cache_write_tokens"]);
    let rest = total.zip(input).map(|(total, input)| total - input);
    let usage = Usage {
        input,
        cached_input: cached.or(hit),
        cache_write: written,
        output: output.max(rest),
    };
    Some(usage.consistent())
}

fn event_facts(usage: Option<Usage>, event: &Scanner) -> EventFacts {
    let empty = |field: &Field| {
        let list = field.raw.trim_ascii().strip_prefix(b"[");
        list.map(<[u8]>::trim_ascii) == Some(b"]")
    };
    let usage_only = usage.is_some() && event.value(CHOICES).is_some_and(empty);
    EventFacts {
        usage,
        usage_only,
        is_last: usage_only,
    }
}

/// The shape of an error, in all of OpenAI's APIs.
pub(super) fn error(problem: &Problem<'_>) -> ErrorReply {
    let &Problem {
        status,
        code,
        message,
        ..
    } = problem;
    let kind = match (status, code) {
        (_, "insufficient_quota") => "insufficient_quota",
        (429, _) => "rate_limit_error",
        (401, _) => "authentication_error",
        (403, _) => "permission_error",
        (503, _) => "server_error",
        _ => "invalid_request_error",
    };
    let (code, message) = (quoted(code), quoted(message));
    ErrorReply {
        body: format!(
            r#"{{"error":{{"code":{code},"message":{message},"param":null,"type":"{kind}"}}}}"#
        ),
        headers: Vec::new(),
    }
}
