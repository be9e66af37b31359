//! `InvokeModel`, streamed and not: the body has the model's own format. The usage is in headers or, as `amazon-bedrock-invocationMetrics`,
//! in the last event of a stream.

use super::{beside, error, tier_header};
use crate::base::units::Tokens;
use crate::body::base64::decode;
use crate::body::json::{Repeats, Scanner, Shape, members, text};
use crate::http::Headers;
use crate::provider::answer::{ERROR_KEY, USAGE, model_key, usage_key};
use crate::provider::openai::is_structured;
use crate::provider::read::{
    above, count, count_of, is_given, is_high, key, long_key, output_limit, over_all, tokens, value,
};
use crate::provider::wire::{ErrorReply, Facts, Fault, OutputLimits, Problem, Wire};
use crate::provider::{answer, anthropic, compatible};
use crate::tier::Needs;
use crate::usage::{CacheCount, EventFacts, EventKind, ServiceTier, Usage};

/// The `InvokeModel` API.
#[derive(Debug)]
pub(in crate::provider) struct Invoke;

/// Keys in the body formats of several vendors: Anthropic, Mistral and Cohere; OpenAI; Meta; Amazon's Nova; Amazon's Titan.
const INVOKE: Shape = Shape::new(
    &[
        key(&["max_tokens"]),
        key(&["max_completion_tokens"]),
        key(&["max_gen_len"]),
        key(&["inferenceConfig", "maxTokens|max_new_tokens"]),
        key(&["textGenerationConfig", "maxTokenCount"]),
        key(&["thinking", "budget_tokens"]),
        key(&["n"]),
        key(&["tools"]),
        key(&["toolConfig"]),
        key(&["num_generations"]),
        key(&["thinking", "type"]),
        key(&["output_config", "effort"]),
        key(&["output_config", "format"]),
        key(&["output_format"]),
        key(&["response_format", "type"]),
        key(&["reasoning_effort"]),
        key(&["speed"]),
        key(&["service_tier"]),
    ],
    anthropic::PATTERNS,
);
const INVOKE_THINKING_BUDGET: usize = 5;
const INVOKE_N: usize = 6;
const INVOKE_TOOLS: usize = 7;
const INVOKE_TOOL_CONFIG: usize = 8;
const INVOKE_GENERATIONS: usize = 9;
const INVOKE_THINKING_TYPE: usize = 10;
const INVOKE_EFFORTS: [usize; 2] = [INVOKE_LEVEL, INVOKE_SPEED];
const INVOKE_LEVEL: usize = 11;
const INVOKE_SPEED: usize = 16;
const INVOKE_TIER: usize = 17;
const INVOKE_FORMATS: [usize; 2] = [12, 13];
const INVOKE_FORMAT: usize = 14;
const INVOKE_REASONING: usize = 15;

/// The longest event in a model's own format that is read, in bytes of base64. Only the last event matters, and it is short.
const MAX_EVENT: usize = 64 * 1_024;

const INVOKED: Shape = Shape::new(
    &[
        usage_key(&["usage"]),
        ERROR_KEY,
        model_key(&["model"]),
        key(&["service_tier"]),
        // The keys of Amazon's Titan, and of Nova.
        key(&["inputTextTokenCount|inputTokenCount"]),
        key(&["embedding|embeddings|embeddingsByType"]),
    ],
    &[],
);
const EMBEDDED_TOKENS: usize = 4;
const EMBEDDING: usize = 5;

const INVOKED_EVENT: Shape = Shape::new(&[long_key(&["bytes"], MAX_EVENT)], &[]);
const BYTES: usize = 0;

/// An event in the model's own format: what Anthropic's events may report, and what Bedrock adds to the last event.
const OWN_EVENT: Shape = Shape::new(
    &[
        anthropic::EVENT_KEYS[0],
        anthropic::EVENT_KEYS[1],
        anthropic::EVENT_KEYS[2],
        anthropic::EVENT_KEYS[3],
        anthropic::EVENT_KEYS[4],
        long_key(&["amazon-bedrock-invocationMetrics"], 1_024),
    ],
    &[],
);
const METRICS: usize = 5;

impl Wire for Invoke {
    fn request(&self) -> Shape {
        INVOKE
    }

    fn model_key(&self) -> Option<usize> {
        None
    }

    fn possible_needs(&self, _model: &str) -> Needs {
        Needs::ALL.without(Needs::CACHED_PROMPT | Needs::CACHE_SETTINGS)
    }

    fn facts(&self, body: &Scanner) -> Result<Facts, Fault> {
        // The latter key is Cohere's.
        let choices =
            count(body, INVOKE_N, "n")?.max(count(body, INVOKE_GENERATIONS, "num_generations")?);
        let choices = choices.unwrap_or(1);
        let limit = output_limit(body, self.output_limits(), INVOKE.keys)?;
        let any = |indices: &[usize]| indices.iter().any(|&index| is_given(body, index));
        let is_shaped = any(&INVOKE_FORMATS) || is_structured(body, INVOKE_FORMAT);
        let asked = Needs::TOOLS.when(any(&[INVOKE_TOOLS, INVOKE_TOOL_CONFIG]))
            | Needs::STRUCTURED_OUTPUT.when(is_shaped)
            | Needs::THINKING.when(any(&[INVOKE_THINKING_BUDGET, INVOKE_REASONING]))
            | Needs::EFFORT.when(anthropic::takes_effort(body, &INVOKE_EFFORTS))
            | Needs::RECENT_FEATURES.when(is_high(body, INVOKE_LEVEL))
            | anthropic::thinking(body, INVOKE_THINKING_TYPE);
        Ok(Facts {
            output_limit: over_all(limit, choices),
            choices,
            needs: asked | Needs(body.matched()),
            least_output: above(body, &[INVOKE_THINKING_BUDGET]),
            service_tier: anthropic::fast_or_tier(
                value(body, INVOKE_SPEED),
                value(body, INVOKE_TIER),
            ),
            ..Facts::default()
        })
    }

    fn output_limits(&self) -> OutputLimits {
        OutputLimits {
            keys: &[0, 1, 2, 3, 4],
            object: None,
            may_be_text: false,
            // Each model has its own name for the limit.
            name: None,
            have_floor: true,
            takes_zero: true,
        }
    }

    fn response(&self) -> Shape {
        INVOKED
    }

    fn events(&self) -> Shape {
        INVOKED_EVENT
    }

    /// The usage for models that report it in Anthropic's, Amazon's or OpenAI's format. For all models the headers report it, but without
    /// details.
    fn usage(&self, body: &Scanner) -> Option<Usage> {
        if answer::is_said(body, EMBEDDING) {
            return Some(Usage {
                input: count_of(value(body, EMBEDDED_TOKENS)),
                output: Some(Tokens(0)),
                ..Usage::default()
            });
        }
        let usage = value(body, USAGE)?;
        let [input, output, read, written] = tokens(
            Some(usage),
            [
                "inputTokens",
                "outputTokens",
                "cacheReadInputTokenCount",
                "cacheWriteInputTokenCount",
            ],
        );
        let amazon = beside(input, output, read, written);
        let anthropic = || anthropic::usage_of(usage).filter(Usage::has_tokens);
        match amazon.has_tokens() {
            true => Some(amazon),
            false => anthropic().or_else(|| compatible::usage_of(usage, || false)),
        }
    }

    fn cache_count(&self) -> CacheCount {
        CacheCount::Beside
    }

    fn served_model(&self, answer: &Scanner) -> Option<String> {
        answer::model(answer).or_else(|| answer::model(&own_event(answer)?))
    }

    fn service_tier(&self, answer: &Scanner) -> Option<ServiceTier> {
        let own = own_event(answer);
        anthropic::Messages
            .service_tier(own.as_ref().unwrap_or(answer))
            .or_else(|| answer::service_tier(answer))
    }

    fn service_tier_of_headers(&self, response: &Headers) -> Option<ServiceTier> {
        tier_header(response)
    }

    fn asked_tier(&self, request: &Headers) -> Option<ServiceTier> {
        tier_header(request)
    }

    /// For a model that generates text, the headers count input and output; for an embedding model, only the input
    /// (<https://github.com/vercel/ai/pull/15973>, read 2026-11-29).
    fn usage_of_headers(&self, response: &Headers) -> Option<Usage> {
        let count = |name| {
            std::str::from_utf8(response.only(name)?)
                .ok()?
                .parse()
                .ok()
                .map(Tokens)
        };
        let [input, output, read, written] = [
            "x-amzn-bedrock-input-token-count",
            "x-amzn-bedrock-output-token-count",
            "x-amzn-bedrock-cache-read-input-token-count",
            "x-amzn-bedrock-cache-write-input-token-count",
        ]
        .map(count);
        let output = output.or_else(|| input.map(|_| Tokens(0)));
        let usage = beside(input, output, read, written);
        usage.has_tokens().then_some(usage)
    }

    fn event(&self, event: &Scanner) -> EventFacts {
        let Some(own) = own_event(event) else {
            return EventFacts::default();
        };
        let metrics = value(&own, METRICS).and_then(counts);
        let last = metrics.map(|usage| EventFacts {
            usage: Some(usage),
            kind: EventKind::Content,
            is_last: true,
        });
        // The metrics are in Anthropic's last event, or in a later one.
        let anthropic = EventFacts {
            is_last: false,
            ..anthropic::Messages.event(&own)
        };
        last.unwrap_or(anthropic)
    }

    /// Models of one vendor share a body format.
    fn can_exchange(&self, model: &str, other: &str) -> bool {
        // The vendor in `us.anthropic.claude-…` and `anthropic.claude-…`: the part before the last dot, not counting dots of the version.
        let vendor = |name: &str| {
            let parts: Vec<&str> = name.split('.').collect();
            let named = parts
                .iter()
                .position(|part| part.contains(['-', ':', '/']))?;
            parts
                .get(named.checked_sub(1)?)
                .map(|vendor| (*vendor).to_owned())
        };
        vendor(model).is_some() && vendor(model) == vendor(other)
    }

    fn error(&self, problem: &Problem<'_>) -> ErrorReply {
        error(problem)
    }
}

/// The event in the model's own format that a `chunk` carries.
fn own_event(event: &Scanner) -> Option<Scanner> {
    let inner = decode(text(event.value(BYTES)?)?.as_bytes())?;
    let mut scanner = Scanner::new(OWN_EVENT, Repeats::TakeLast);
    scanner.feed(&inner).ok()?;
    Some(scanner)
}

fn counts(metrics: &[u8]) -> Option<Usage> {
    let [input, output, read, written] = members(
        metrics,
        [
            "inputTokenCount",
            "outputTokenCount",
            "cacheReadInputTokenCount",
            "cacheWriteInputTokenCount",
        ],
    )?
    .map(count_of);
    Some(beside(input, output, read, written))
}
