//! `Converse`, streamed and not: one body format for all models.

use super::{beside, error, kept_for_an_hour};
use crate::body::json::{Pattern, PatternKind, Scanner, Shape, members};
use crate::provider::answer::{ERROR_KEY, SERVICE_TIER, USAGE, model_key, usage_key};
use crate::provider::read::{
    above, count_of, is_given, is_high, key, output_limit, over_all, value,
};
use crate::provider::wire::{ErrorReply, Facts, Fault, OutputLimits, Problem, Wire};
use crate::provider::{answer, anthropic};
use crate::tier::Needs;
use crate::usage::{CacheCount, EventFacts, EventKind, ServiceTier, Usage};

/// The `Converse` API.
#[derive(Debug)]
pub(in crate::provider) struct Converse;

const CONVERSE: Shape = Shape::new(
    &[
        key(&["inferenceConfig"]),
        key(&["inferenceConfig", "maxTokens"]),
        key(&["toolConfig"]),
        key(&["outputConfig"]),
        key(&["additionalModelRequestFields", "thinking", "budget_tokens"]),
        key(&["additionalModelRequestFields", "thinking"]),
        key(&["additionalModelRequestFields", "reasoning_config"]),
        key(&["additionalModelRequestFields", "max_tokens"]),
        key(&[
            "additionalModelRequestFields",
            "reasoning_config",
            "budget_tokens",
        ]),
        key(&["additionalModelRequestFields", "thinking", "type"]),
        key(&["additionalModelRequestFields", "reasoning_config", "type"]),
        key(&["additionalModelRequestFields", "output_config", "effort"]),
        key(&["additionalModelRequestFields", "output_config", "format"]),
        key(&["additionalModelRequestFields", "reasoningConfig"]),
        key(&["additionalModelRequestFields", "reasoning_effort"]),
        key(&["additionalModelRequestFields", "tools"]),
        key(&["performanceConfig", "latency"]),
        key(&["serviceTier", "type"]),
    ],
    &[
        pattern(PatternKind::Key("image"), Needs::IMAGES),
        pattern(PatternKind::Key("document"), Needs::IMAGES),
        pattern(PatternKind::Key("video"), Needs::IMAGES),
        pattern(PatternKind::Key("audio"), Needs::IMAGES),
        pattern(PatternKind::Key("toolUse"), Needs::TOOLS),
        pattern(PatternKind::Key("toolResult"), Needs::TOOLS),
        pattern(PatternKind::Key("reasoningContent"), Needs::SIGNED_THINKING),
        cache_point("messages"),
        cache_point("system"),
        cache_point("toolConfig"),
    ],
);
const CONFIG: usize = 0;
const MAX_TOKENS: usize = 1;
const TOOLS: usize = 2;
const OUTPUT: usize = 3;
const THINKING_BUDGET: usize = 4;
const THINKING: usize = 5;
const REASONING: usize = 6;
const OWN_MAX_TOKENS: usize = 7;
const REASONING_BUDGET: usize = 8;
const THINKING_TYPE: usize = 9;
const REASONING_TYPE: usize = 10;
const EFFORTS: [usize; 2] = [LEVEL, LATENCY];
const LEVEL: usize = 11;
const OWN_FORMAT: usize = 12;
/// Keys of Amazon's own models, and of OpenAI's.
const OTHER_REASONING: [usize; 2] = [13, 14];
const OWN_TOOLS: usize = 15;
const LATENCY: usize = 16;
const ASKED_TIER: usize = 17;

const CONVERSED: Shape = Shape::new(
    &[
        usage_key(&["usage"]),
        ERROR_KEY,
        // Only a prompt router names the model that it chose.
        model_key(&["trace", "promptRouter", "invokedModelId"]),
        key(&["serviceTier", "type"]),
        key(&["performanceConfig", "latency"]),
    ],
    &[],
);
const SERVED_LATENCY: usize = 4;

const fn pattern(kind: PatternKind, needs: Needs) -> Pattern {
    Pattern {
        under: "messages",
        kind,
        flags: needs.0,
    }
}

/// Models without prompt caching refuse a request that has a point of it anywhere (<https://github.com/BerriAI/litellm/pull/39210>, read
/// 2026-12-01).
const fn cache_point(under: &'static str) -> Pattern {
    Pattern {
        under,
        kind: PatternKind::Key("cachePoint"),
        flags: Needs::CACHE_SETTINGS.0,
    }
}

impl Wire for Converse {
    fn request(&self) -> Shape {
        CONVERSE
    }

    fn model_key(&self) -> Option<usize> {
        None
    }

    fn possible_needs(&self, _model: &str) -> Needs {
        Needs::ALL.without(Needs::CACHED_PROMPT)
    }

    fn facts(&self, body: &Scanner) -> Result<Facts, Fault> {
        let limit = output_limit(body, self.output_limits(), CONVERSE.keys)?;
        let any = |indices: &[usize]| indices.iter().any(|&index| is_given(body, index));
        let kinds =
            anthropic::thinking(body, THINKING_TYPE) | anthropic::thinking(body, REASONING_TYPE);
        // Thinking without a type is the older kind of thinking.
        let is_plain = any(&[THINKING, REASONING]) && !any(&[THINKING_TYPE, REASONING_TYPE]);
        let asked = Needs::TOOLS.when(any(&[TOOLS, OWN_TOOLS]))
            | Needs::STRUCTURED_OUTPUT.when(any(&[OUTPUT, OWN_FORMAT]))
            | Needs::THINKING.when(is_plain || any(&OTHER_REASONING))
            | Needs::EFFORT.when(anthropic::takes_effort(body, &EFFORTS))
            | Needs::RECENT_FEATURES.when(is_high(body, LEVEL))
            | kinds;
        Ok(Facts {
            output_limit: over_all(limit, 1),
            needs: asked | Needs(body.matched()),
            least_output: above(body, &[THINKING_BUDGET, REASONING_BUDGET]),
            service_tier: anthropic::fast_or_tier(value(body, LATENCY), value(body, ASKED_TIER)),
            ..Facts::default()
        })
    }

    fn output_limits(&self) -> OutputLimits {
        OutputLimits {
            keys: &[MAX_TOKENS, OWN_MAX_TOKENS],
            object: Some((CONFIG, "inferenceConfig")),
            may_be_text: false,
            name: Some("maxTokens"),
            have_floor: true,
            takes_zero: false,
        }
    }

    fn response(&self) -> Shape {
        CONVERSED
    }

    fn usage(&self, body: &Scanner) -> Option<Usage> {
        let [input, output, read, written, details] = members(
            value(body, USAGE)?,
            [
                "inputTokens",
                "outputTokens",
                "cacheReadInputTokens",
                "cacheWriteInputTokens",
                "cacheDetails",
            ],
        )?;
        let [input, output, read, written] = [input, output, read, written].map(count_of);
        Some(Usage {
            cache_write_1h: written.and_then(|_| kept_for_an_hour(details?)),
            ..beside(input, output, read, written)
        })
    }

    fn service_tier(&self, answer: &Scanner) -> Option<ServiceTier> {
        anthropic::fast_or_tier(value(answer, SERVED_LATENCY), value(answer, SERVICE_TIER))
    }

    fn cache_count(&self) -> CacheCount {
        CacheCount::Beside
    }

    fn event(&self, event: &Scanner) -> EventFacts {
        let usage = self.usage(event);
        EventFacts {
            usage,
            kind: EventKind::of(answer::is_error(event)),
            // The metadata is the last event.
            is_last: usage.is_some(),
        }
    }

    fn error(&self, problem: &Problem<'_>) -> ErrorReply {
        error(problem)
    }
}
