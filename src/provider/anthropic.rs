//! Anthropic's Messages (<https://docs.claude.com/en/api/messages>, read 2026-11-22), on its own paths and on Vertex AI.
//!
//! A stream reports the prompt's tokens at its start, and running totals later.

use super::answer::{self, ERROR_KEY, USAGE, is_error, model_key, usage_key};
use super::read::{
    MODEL, MOST_LISTS, above, flag, is_beyond, is_given, key, output_limit, over_all, tokens,
    value, with_alternatives,
};
use super::wire::{ErrorReply, Facts, Fault, OutputLimits, Problem, Wire};
use crate::body::json::{
    Key, Pattern, PatternKind, Scanner, Shape, entries, may_have, members, quoted, string, text,
};
use crate::conversation::messages::Dialect;
use crate::tier::Needs;
use crate::usage::{CacheCount, EventFacts, EventKind, ServiceTier, Usage};

/// The Messages API.
#[derive(Debug)]
pub(super) struct Messages;

const REQUEST: Shape = Shape::new(
    &with_alternatives![
        MODEL,
        key(&["stream"]),
        key(&["max_tokens"]),
        key(&["thinking", "budget_tokens"]),
        key(&["thinking", "type"]),
        key(&["tools"]),
        key(&["mcp_servers"]),
        key(&["output_format"]),
        key(&["output_config", "format"]),
        key(&["output_config", "effort"]),
        key(&["output_config", "task_budget"]),
        key(&["speed"]),
        key(&["service_tier"]),
        key(&["inference_geo"]),
    ],
    PATTERNS,
);
const STREAM: usize = 1;
const MAX_TOKENS: usize = 2;
const THINKING_BUDGET: usize = 3;
const THINKING_TYPE: usize = 4;
const TOOLS: usize = 5;
const MCP_SERVERS: usize = 6;
const OUTPUT_FORMAT: usize = 7;
const CONFIG_FORMAT: usize = 8;
/// Most models refuse every one of these keys.
const EFFORTS: [usize; 4] = [9, 10, SPEED, ASKED_PLACE];
const SPEED: usize = 11;
const ASKED_TIER: usize = 12;
const ASKED_PLACE: usize = 13;

/// What a model must support because of the messages. Blocks of thinking are signed for the model that produced them.
pub(super) const PATTERNS: &[Pattern] = &[
    pattern(PatternKind::Type("image"), Needs::IMAGES),
    pattern(PatternKind::Type("document"), Needs::IMAGES),
    pattern(PatternKind::Type("tool_use"), Needs::TOOLS),
    pattern(PatternKind::Type("tool_result"), Needs::TOOLS),
    pattern(PatternKind::Type("server_tool_use"), Needs::TOOLS),
    pattern(PatternKind::Type("mcp_tool_use"), Needs::TOOLS),
    pattern(PatternKind::Type("thinking"), Needs::SIGNED_THINKING),
    pattern(
        PatternKind::Type("redacted_thinking"),
        Needs::SIGNED_THINKING,
    ),
];

const RESPONSE: Shape = Shape::new(
    &[usage_key(&["usage"]), ERROR_KEY, model_key(&["model"])],
    &[],
);
/// Keys of an event, on Bedrock as well.
pub(super) const EVENT_KEYS: [Key; 5] = [
    usage_key(&["usage"]),
    ERROR_KEY,
    model_key(&["message", "model"]),
    usage_key(&["message", "usage"]),
    key(&["type"]),
];
const EVENT: Shape = Shape::new(&EVENT_KEYS, &[]);
const START_USAGE: usize = 3;
const TYPE: usize = 4;

const fn pattern(kind: PatternKind, needs: Needs) -> Pattern {
    Pattern {
        under: "messages",
        kind,
        flags: needs.0,
    }
}

impl Wire for Messages {
    fn request(&self) -> Shape {
        REQUEST
    }

    fn possible_needs(&self, _model: &str) -> Needs {
        Needs::ALL.without(Needs::CACHED_PROMPT | Needs::CACHE_SETTINGS)
    }

    fn facts(&self, body: &Scanner) -> Result<Facts, Fault> {
        let limit = output_limit(body, self.output_limits(), REQUEST.keys)?;
        let asked = Needs::TOOLS.when(is_given(body, TOOLS) || is_given(body, MCP_SERVERS))
            | Needs::STRUCTURED_OUTPUT
                .when(is_given(body, OUTPUT_FORMAT) || is_given(body, CONFIG_FORMAT))
            | thinking(body, THINKING_TYPE)
            | Needs::EFFORT.when(takes_effort(body, &EFFORTS));
        Ok(Facts {
            output_limit: over_all(limit, 1),
            stream: flag(body, STREAM, "stream")?,
            needs: asked | Needs(body.matched()),
            // The API requires a limit above the budget for thinking.
            least_output: above(body, &[THINKING_BUDGET]),
            service_tier: or_place(
                fast_or_tier(value(body, SPEED), value(body, ASKED_TIER)),
                value(body, ASKED_PLACE),
            ),
            ..Facts::default()
        })
    }

    fn output_limits(&self) -> OutputLimits {
        OutputLimits {
            keys: &[MAX_TOKENS],
            object: None,
            may_be_text: false,
            name: Some("max_tokens"),
            have_floor: true,
            takes_zero: true,
        }
    }

    fn alternatives(&self) -> usize {
        MOST_LISTS
    }

    fn dialect(&self) -> Option<Dialect> {
        Some(Dialect::Anthropic)
    }

    fn response(&self) -> Shape {
        RESPONSE
    }

    fn events(&self) -> Shape {
        EVENT
    }

    fn usage(&self, body: &Scanner) -> Option<Usage> {
        usage_of(value(body, USAGE)?)
    }

    fn advice(&self, body: &Scanner) -> Vec<(String, Usage)> {
        value(body, USAGE).map(advice).unwrap_or_default()
    }

    fn cache_count(&self) -> CacheCount {
        CacheCount::Beside
    }

    /// The service tier is part of the usage. Fast mode has a name and a price of its own, as tiers do
    /// (<https://platform.claude.com/docs/en/build-with-claude/fast-mode>, read 2026-11-29).
    fn service_tier(&self, answer: &Scanner) -> Option<ServiceTier> {
        let usage = value(answer, START_USAGE).or_else(|| value(answer, USAGE))?;
        let [tier, speed, place] = members(usage, ["service_tier", "speed", "inference_geo"])?;
        or_place(fast_or_tier(speed, tier), place)
    }

    fn event(&self, event: &Scanner) -> EventFacts {
        let start = value(event, START_USAGE).and_then(usage_of);
        let start = start.map(|usage| Usage {
            // This event has only the first words of an answer that may become long.
            output: None,
            ..usage
        });
        let kind = event.value(TYPE).and_then(text);
        let kind = kind.as_deref();
        EventFacts {
            usage: start.or_else(|| self.usage(event)),
            kind: match kind {
                Some("error") => EventKind::Error,
                None if is_error(event) => EventKind::Error,
                Some("ping") => EventKind::Frame,
                _ => EventKind::Content,
            },
            is_last: kind == Some("message_stop"),
        }
    }

    fn may_report(&self, event: &[u8]) -> bool {
        // Most events carry text. An event without a readable type may be an error.
        let words: &[&str] = match event.starts_with(b"{\"type\":\"content_block_delta\"") {
            true => &["usage", "message_stop"],
            false => &["usage", "message_stop", "error", "ping"],
        };
        may_have(event, words, |_| true)
    }

    fn error(&self, problem: &Problem<'_>) -> ErrorReply {
        let kind = match problem.status {
            400 | 415 | 426 => "invalid_request_error",
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            _ => "api_error",
        };
        let &Problem {
            status,
            code,
            message,
            ..
        } = problem;
        let (code, message) = (quoted(code), quoted(message));
        ErrorReply {
            status,
            body: format!(
                r#"{{"error":{{"code":{code},"message":{message},"type":"{kind}"}},"type":"error"}}"#
            ),
            headers: Vec::new(),
        }
    }
}

/// The speed, unless it is the usual one and there is a service tier.
pub(super) fn fast_or_tier(speed: Option<&[u8]>, tier: Option<&[u8]>) -> Option<ServiceTier> {
    fast_or(answer::tier(speed), answer::tier(tier))
}

/// See [`fast_or_tier`].
pub(super) fn fast_or(
    speed: Option<ServiceTier>,
    tier: Option<ServiceTier>,
) -> Option<ServiceTier> {
    let fast = speed.filter(|speed| speed.as_str() != "standard");
    fast.or(tier).or(speed)
}

/// The place that a request is bound to, where the tier is the usual one: such requests are dearer
/// (<https://platform.claude.com/docs/en/build-with-claude/data-residency>, read 2026-12-01).
fn or_place(tier: Option<ServiceTier>, place: Option<&[u8]>) -> Option<ServiceTier> {
    let is_usual =
        tier.is_none_or(|tier| matches!(tier.as_str(), "standard" | "auto" | "standard_only"));
    let place =
        answer::tier(place).filter(|place| !matches!(place.as_str(), "global" | "not_available"));
    place.filter(|_| is_usual).or(tier)
}

/// The kind of thinking that is requested: models accept one kind or the other.
pub(super) fn thinking(body: &Scanner, index: usize) -> Needs {
    match body.value(index).and_then(text).as_deref() {
        None | Some("disabled") => Needs::NONE,
        Some("enabled") => Needs::THINKING,
        Some("adaptive") => Needs::ADAPTIVE_THINKING,
        Some(_) => Needs::THINKING | Needs::ADAPTIVE_THINKING,
    }
}

/// Whether any of these keys has a value other than its default.
pub(super) fn takes_effort(body: &Scanner, indices: &[usize]) -> bool {
    let usual = ["\"standard\""];
    indices.iter().any(|&index| is_beyond(body, index, &usual))
}

/// Tokens of the answer and of additional steps, such as compacting the conversation or consulting an adviser. Those steps are listed as
/// iterations, and the totals omit them.
pub(super) fn usage_of(usage: &[u8]) -> Option<Usage> {
    let [iterations] = members(usage, ["iterations"])?;
    let iterations = iterations.and_then(entries).unwrap_or_default();
    let is_beside = |iteration: &&[u8]| {
        let kind = members(iteration, ["type"]).and_then(|[kind]| string(kind?));
        kind.is_some_and(|kind| matches!(&*kind, "compaction" | "advisor_message"))
    };
    let beside = iterations.into_iter().filter(is_beside);
    std::iter::once(usage)
        .chain(beside)
        .map(own_usage)
        .reduce(Usage::and)
}

/// What advisers used. They are other models, mostly dearer ones, that the model asks on its own
/// (<https://platform.claude.com/docs/en/agents-and-tools/tool-use/advisor-tool>, read 2026-12-01).
fn advice(usage: &[u8]) -> Vec<(String, Usage)> {
    let iterations = members(usage, ["iterations"]).and_then(|[iterations]| entries(iterations?));
    let adviser = |iteration: &[u8]| {
        let [kind, model] = members(iteration, ["type", "model"])?;
        let is_adviser = string(kind?)? == "advisor_message";
        is_adviser.then_some((string(model?)?.into(), own_usage(iteration)))
    };
    let iterations = iterations.unwrap_or_default().into_iter();
    iterations.filter_map(adviser).collect()
}

/// Cached tokens are not part of `input_tokens`; thinking is part of `output_tokens`.
fn own_usage(usage: &[u8]) -> Usage {
    let [input, output, read, written] = tokens(
        Some(usage),
        [
            "input_tokens",
            "output_tokens",
            "cache_read_input_tokens",
            "cache_creation_input_tokens",
        ],
    );
    let creation = members(usage, ["cache_creation"]).and_then(|[creation]| creation);
    let names = ["ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"];
    let [five_minutes, hour] = tokens(creation, names);
    let parts = five_minutes.map(|tokens| tokens + hour.unwrap_or_default());
    let written = written.or(parts);
    let cached = read.unwrap_or_default() + written.unwrap_or_default();
    Usage {
        input: input.map(|input| input + cached),
        cached_input: read,
        cache_write: written,
        cache_write_1h: hour,
        output,
        ..Usage::default()
    }
}
