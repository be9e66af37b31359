//! Anthropic's Messages (<https://docs.claude.com/en/api/messages>, read 2026-11-22), on its own paths and on Vertex AI.
//!
//! A stream reports the prompt's tokens at its start, and running totals later.

use std::borrow::Cow;

use super::answer::{self, ERROR_KEY, USAGE, is_error, model_key, usage_key};
use super::read::{
    MODEL, MOST_LISTS, above, flag, is_beyond, is_given, is_high, key, long_key, output_limit,
    over_all, tokens, value, with_alternatives,
};
use super::wire::{ErrorReply, Facts, Fault, OutputLimits, Problem, Wire};
use crate::base::units::Tokens;
use crate::body::json::{
    Field, Key, Pattern, PatternKind, Scanner, Shape, entries, may_have, members, quoted, string,
    text,
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
        long_key(&["context_management"], MAX_EDITS),
        key(&["compaction"]),
        key(&["fallback_credit_token"]),
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
const EFFORTS: [usize; 3] = [LEVEL, 10, SPEED];
const LEVEL: usize = 9;
const SPEED: usize = 11;
const ASKED_TIER: usize = 12;
const ASKED_PLACE: usize = 13;
const EDITS: usize = 14;
const COMPACTION: usize = 15;
/// What is left of a refused request, for models that the provider names
/// (<https://platform.claude.com/docs/en/build-with-claude/fallback-credit>, read 2026-12-01).
const CREDIT: usize = 16;

/// The longest sensible list of edits of the prompt, in bytes.
const MAX_EDITS: usize = 2_048;

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
    // Models before Opus 4.8 refuse these (<https://platform.claude.com/docs/en/build-with-claude/mid-conversation-system-messages> and
    // `/compaction`, read 2026-12-01).
    pattern(PatternKind::Role("system"), Needs::RECENT_FEATURES),
    pattern(PatternKind::Type("tool_addition"), Needs::RECENT_FEATURES),
    pattern(PatternKind::Type("tool_removal"), Needs::RECENT_FEATURES),
    pattern(PatternKind::Type("compaction"), Needs::RECENT_FEATURES),
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
            | Needs::EFFORT.when(takes_effort(body, &EFFORTS))
            | Needs::RECENT_FEATURES.when(is_high(body, LEVEL) || is_recent(body))
            | Needs::SIGNED_THINKING.when(is_given(body, CREDIT));
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

    fn others(&self, body: &Scanner) -> Vec<(String, Usage)> {
        let parts = value(body, USAGE).and_then(Parts::of);
        parts.map(|parts| parts.others).unwrap_or_default()
    }

    /// A fallback is named by the last usage alone: a stream begins with the model that declined.
    fn served_model(&self, answer: &Scanner) -> Option<String> {
        let parts = value(answer, USAGE).and_then(Parts::of);
        let fallback = parts.and_then(|parts| parts.fallback);
        fallback.or_else(|| answer::model(answer))
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

/// Whether the request has something that only recent models take.
fn is_recent(body: &Scanner) -> bool {
    let compacts =
        |field: &Field| field.overlong || field.raw.windows(7).any(|here| here == b"compact");
    let edits = body.begun(EDITS).is_some_and(compacts);
    edits || is_given(body, ASKED_PLACE) || is_given(body, COMPACTION)
}

/// Tokens of the answer and of additional steps.
pub(super) fn usage_of(usage: &[u8]) -> Option<Usage> {
    Some(Parts::of(usage)?.all)
}

/// What an answer's usage consists of.
struct Parts {
    /// All of it together.
    all: Usage,
    /// The parts of other models than the one that answered.
    others: Vec<(String, Usage)>,
    /// The model that took over from one that declined, if one did.
    fallback: Option<String>,
}

impl Parts {
    /// The totals omit some steps: compacting the conversation; consulting an adviser; and answers of models that declined after they had
    /// begun, where another model took over (<https://platform.claude.com/docs/en/build-with-claude/refusals-and-fallback>,
    /// <https://platform.claude.com/docs/en/agents-and-tools/tool-use/advisor-tool>, read 2026-12-01).
    #[inline(never)]
    fn of(usage: &[u8]) -> Option<Self> {
        const FALLBACK: &[u8] = b"\"fallback_message\"";
        let [steps] = members(usage, ["iterations"])?;
        let steps = steps.and_then(entries).unwrap_or_default();
        let name = |step| members(step, ["type", "model"]).unwrap_or_default();
        let mut last = None;
        for step in &steps {
            let [kind, model] = name(step);
            if kind == Some(FALLBACK) {
                last = model;
            }
        }
        let text = |model: Option<&[u8]>| model.and_then(string).map(Cow::into_owned);
        let mut parts = Self {
            all: own_usage(usage),
            others: Vec::new(),
            fallback: text(last),
        };
        for step in steps {
            let [kind, model] = name(step);
            let used = own_usage(step);
            let began = last.is_some() && model != last && used.output > Some(Tokens(0));
            let is_other = match kind.unwrap_or_default() {
                b"\"advisor_message\"" => true,
                b"\"message\"" | FALLBACK => began,
                _ => false,
            };
            if !is_other && kind != Some(b"\"compaction\"") {
                continue;
            }
            parts.all = parts.all.and(used);
            if let Some(model) = text(model).filter(|_| is_other) {
                parts.others.push((model, used));
            }
        }
        Some(parts)
    }
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
