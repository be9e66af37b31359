//! OpenAI's Responses API (<https://platform.openai.com/docs/api-reference/responses>, read 2026-11-22).
//!
//! A stream's last event repeats the whole response, with its usage.

use super::answer::{
    self, ERROR, ERROR_KEY, MAX_ERROR, USAGE, is_error, is_said, model_key, usage_key,
};
use super::compatible;
use super::openai::{error, is_flexible, is_structured};
use super::read::{
    MODEL, MOST_LISTS, flag, is_beyond, is_given, is_high, key, long_key, output_limit, over_all,
    value, with_alternatives,
};
use super::wire::{ErrorReply, Facts, Fault, OutputLimits, Problem, Wire};
use crate::body::json::{Pattern, PatternKind, Scanner, Shape, may_have};
use crate::tier::Needs;
use crate::usage::{EventFacts, EventKind, Usage};

/// The Responses API.
#[derive(Debug)]
pub(super) struct Responses {
    /// Whether this is compaction, which shortens a conversation instead of answering, to a length that the API chooses.
    pub(super) compacts: bool,
}

const REQUEST: Shape = Shape::new(
    &with_alternatives![
        MODEL,
        key(&["stream"]),
        key(&["max_output_tokens"]),
        key(&["background"]),
        key(&["tools"]),
        key(&["text", "format", "type"]),
        key(&["reasoning"]),
        key(&["prompt|agent_reference|agent|preset"]),
        key(&["text", "verbosity"]),
        long_key(&["include"], 1_024),
        key(&["plugins"]),
        key(&["service_tier"]),
        key(&["conversation"]),
        key(&["prompt_cache_retention|prompt_cache_options"]),
        key(&["reasoning", "effort"]),
    ],
    &[
        // Models that do not think refuse thoughts of others (<https://github.com/openai/openai-agents-python/issues/569>, read 2026-12-01).
        pattern(PatternKind::Type("reasoning"), Needs::THINKING),
        pattern(PatternKind::Type("input_image"), Needs::IMAGES),
        pattern(PatternKind::Type("input_file"), Needs::IMAGES),
        pattern(PatternKind::Type("input_audio"), Needs::IMAGES),
        pattern(PatternKind::Type("input_video"), Needs::IMAGES),
        pattern(PatternKind::Type("computer_screenshot"), Needs::IMAGES),
        pattern(PatternKind::Type("custom_tool_call"), Needs::TOOLS),
        pattern(PatternKind::Type("custom_tool_call_output"), Needs::TOOLS),
        pattern(PatternKind::Type("function_call"), Needs::TOOLS),
        pattern(PatternKind::Type("function_call_output"), Needs::TOOLS),
        // Codex 0.171 offers its tools in this form, and none outside the input.
        pattern(PatternKind::Type("additional_tools"), Needs::TOOLS),
        pattern(PatternKind::Type("tool_search_call"), Needs::TOOLS),
        pattern(PatternKind::Type("local_shell_call"), Needs::TOOLS),
        pattern(PatternKind::Type("shell_call"), Needs::TOOLS),
        pattern(PatternKind::Type("apply_patch_call"), Needs::TOOLS),
        pattern(PatternKind::Type("computer_call"), Needs::TOOLS),
        pattern(PatternKind::Type("code_interpreter_call"), Needs::TOOLS),
        pattern(PatternKind::Type("web_search_call"), Needs::TOOLS),
        pattern(PatternKind::Type("file_search_call"), Needs::TOOLS),
        pattern(PatternKind::Type("mcp_call"), Needs::TOOLS),
        pattern(PatternKind::Type("mcp_list_tools"), Needs::TOOLS),
        pattern(
            PatternKind::Key("encrypted_content"),
            Needs::SIGNED_THINKING,
        ),
    ],
);
const STREAM: usize = 1;
const MAX_OUTPUT_TOKENS: usize = 2;
const BACKGROUND: usize = 3;
const TOOLS: usize = 4;
const FORMAT: usize = 5;
const REASONING: usize = 6;
const PROMPT: usize = 7;
const VERBOSITY: usize = 8;
const INCLUDE: usize = 9;
const PLUGINS: usize = 10;
const ASKED_TIER: usize = 11;
/// The answer becomes a part of this conversation, which can be read later
/// (<https://platform.openai.com/docs/guides/conversation-state>, read 2026-11-30).
const CONVERSATION: usize = 12;
const CACHE_SETTINGS: usize = 13;
const LEVEL: usize = 14;

/// The API refuses an output limit below this.
const LEAST_OUTPUT: u64 = 16;

const RESPONSE: Shape = Shape::new(
    &[
        usage_key(&["usage"]),
        ERROR_KEY,
        model_key(&["model"]),
        key(&["service_tier"]),
    ],
    &[],
);
const EVENT: Shape = Shape::new(
    &[
        usage_key(&["response", "usage"]),
        ERROR_KEY,
        model_key(&["response", "model"]),
        key(&["response", "service_tier"]),
        key(&["type"]),
        long_key(&["response", "error"], MAX_ERROR),
        key(&["code"]),
    ],
    &[],
);
const TYPE: usize = 4;
/// Index of the error in the event `response.failed`.
const INNER_ERROR: usize = 5;
/// Index of the code in the event `error`.
const CODE: usize = 6;

/// Types of the events that end a stream.
const LAST: [&str; 3] = [
    "response.completed",
    "response.incomplete",
    "response.failed",
];
/// Types of the events that report an error.
const ERRORS: [&str; 2] = ["response.failed", "error"];
/// Types of the events before an answer, and of those that keep the connection alive meanwhile
/// (<https://github.com/openai/openai-node/issues/1964>, read 2026-11-30).
const BEFORE: [&str; 4] = [
    "response.created",
    "response.in_progress",
    "response.queued",
    "keepalive",
];

const fn pattern(kind: PatternKind, needs: Needs) -> Pattern {
    Pattern {
        under: "input",
        kind,
        flags: needs.0,
    }
}

impl Wire for Responses {
    fn request(&self) -> Shape {
        REQUEST
    }

    /// The model may be named by a stored prompt, by an agent of Azure's Foundry
    /// (<https://learn.microsoft.com/azure/foundry/agents/quickstarts/prompt-agent>), or by a preset of Perplexity's
    /// (<https://docs.perplexity.ai/docs/agent-api/presets>, both read 2026-11-30).
    fn may_omit_model(&self, body: &Scanner) -> bool {
        is_given(body, PROMPT)
    }

    fn possible_needs(&self, _model: &str) -> Needs {
        Needs::ALL.without(Needs::CACHED_PROMPT)
    }

    fn facts(&self, body: &Scanner) -> Result<Facts, Fault> {
        let limit = output_limit(body, self.output_limits(), REQUEST.keys)?;
        let included = body.begun(INCLUDE).map_or(&[][..], |field| &field.raw);
        // Models without thinking refuse to include the encrypted content.
        let thoughts = b"reasoning.encrypted_content";
        let wants_thoughts = included
            .windows(thoughts.len())
            .any(|here| here == thoughts);
        let asked = Needs::TOOLS.when(is_given(body, TOOLS) || is_given(body, PLUGINS))
            | Needs::STRUCTURED_OUTPUT.when(is_structured(body, FORMAT))
            | Needs::THINKING.when(is_given(body, REASONING) || wants_thoughts)
            | Needs::EFFORT.when(is_beyond(body, VERBOSITY, &["\"medium\""]))
            | Needs::CACHE_SETTINGS.when(is_given(body, CACHE_SETTINGS))
            | Needs::RECENT_FEATURES.when(is_high(body, LEVEL) || is_flexible(body, ASKED_TIER));
        Ok(Facts {
            output_limit: over_all(limit, 1),
            stream: flag(body, STREAM, "stream")?,
            is_deferred: flag(body, BACKGROUND, "background")?,
            is_kept: is_given(body, CONVERSATION),
            needs: asked | Needs(body.matched()),
            least_output: if self.compacts { 1 } else { LEAST_OUTPUT },
            service_tier: answer::tier(value(body, ASKED_TIER)),
            ..Facts::default()
        })
    }

    fn output_limits(&self) -> OutputLimits {
        OutputLimits {
            keys: &[MAX_OUTPUT_TOKENS],
            object: None,
            may_be_text: false,
            name: (!self.compacts).then_some("max_output_tokens"),
            have_floor: false,
            takes_zero: false,
        }
    }

    fn alternatives(&self) -> usize {
        MOST_LISTS
    }

    fn response(&self) -> Shape {
        RESPONSE
    }

    fn events(&self) -> Shape {
        EVENT
    }

    fn usage(&self, body: &Scanner) -> Option<Usage> {
        compatible::usage_of(value(body, USAGE)?, || false)
    }

    fn error_in<'a>(&self, answer: &'a Scanner) -> Option<&'a [u8]> {
        [ERROR, INNER_ERROR, CODE]
            .iter()
            .find_map(|&index| value(answer, index).filter(|_| is_said(answer, index)))
    }

    fn event(&self, event: &Scanner) -> EventFacts {
        let kind = event.value(TYPE).and_then(crate::body::json::text);
        let is = |kinds: &[&str]| kind.as_deref().is_some_and(|kind| kinds.contains(&kind));
        EventFacts {
            usage: self.usage(event),
            kind: if is(&ERRORS) || kind.is_none() && is_error(event) {
                EventKind::Error
            } else if is(&BEFORE) {
                EventKind::Frame
            } else {
                EventKind::Content
            },
            is_last: is(&LAST),
        }
    }

    fn may_report(&self, event: &[u8]) -> bool {
        let [completed, incomplete, failed] = LAST;
        let [created, in_progress, queued, keepalive] = BEFORE;
        let words = [
            "usage",
            "error",
            completed,
            incomplete,
            failed,
            created,
            in_progress,
            queued,
            keepalive,
        ];
        may_have(event, &words, |_| true)
    }

    fn error(&self, problem: &Problem<'_>) -> ErrorReply {
        error(problem)
    }
}
