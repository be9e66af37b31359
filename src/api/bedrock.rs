//! Amazon Bedrock's `Converse` and `InvokeModel`, streamed and not
//! (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html>, read 2026-11-22).
//!
//! `Converse` has one body for all models. `InvokeModel` passes on a body that is the model's own, and tells the usage in
//! its headers, or in the last event of a stream, as `amazon-bedrock-invocationMetrics`.

use super::anthropic;
use super::read::{
    count, count_of, is_given, key, long_key, output_limit, over_all, tokens, value,
};
use super::{ErrorReply, Facts, Fault, OutputLimits, Problem, Wire};
use crate::base64::decode;
use crate::json::{Mark, Repeats, Scanner, Shape, Sign, members, quoted, text};
use crate::tenant::Headers;
use crate::tier::Needs;
use crate::units::Tokens;
use crate::usage::{EventFacts, Usage};

/// One body for all models.
#[derive(Debug)]
pub(super) struct Converse;

/// The model's own body.
#[derive(Debug)]
pub(super) struct Invoke;

const CONVERSE: Shape = Shape {
    keys: &[
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
    ],
    marks: &[
        mark(Sign::Key("image"), Needs::IMAGES),
        mark(Sign::Key("document"), Needs::IMAGES),
        mark(Sign::Key("video"), Needs::IMAGES),
        mark(Sign::Key("audio"), Needs::IMAGES),
        mark(Sign::Key("toolUse"), Needs::TOOLS),
        mark(Sign::Key("toolResult"), Needs::TOOLS),
        mark(Sign::Key("reasoningContent"), Needs::SIGNED_THINKING),
    ],
};
const CONFIG: usize = 0;
const MAX_TOKENS: usize = 1;
const TOOLS: usize = 2;
const OUTPUT: usize = 3;
const THINKING_BUDGET: usize = 4;
const THINKING: usize = 5;
const REASONING: usize = 6;
const OWN_MAX_TOKENS: usize = 7;
const REASONING_BUDGET: usize = 8;

/// What the bodies of several vendors have: Anthropic, Mistral and Cohere; OpenAI; Meta; Amazon's Nova; Amazon's Titan.
const INVOKE: Shape = Shape {
    keys: &[
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
    ],
    marks: anthropic::MARKS,
};
const INVOKE_THINKING_BUDGET: usize = 5;
const INVOKE_N: usize = 6;
const INVOKE_TOOLS: usize = 7;
const INVOKE_TOOL_CONFIG: usize = 8;
const INVOKE_GENERATIONS: usize = 9;

const CONVERSED: Shape = Shape {
    keys: &[long_key(&["usage"], 16 * 1_024)],
    marks: &[],
};
const USAGE: usize = 0;

/// Longest event of a model's own, as base64, that is looked into: the last one is short.
const MAX_EVENT: usize = 64 * 1_024;

const INVOKED: Shape = Shape {
    keys: &[long_key(&["bytes"], MAX_EVENT)],
    marks: &[],
};
const BYTES: usize = 0;

/// A model's own event: what Anthropic's may tell, and what Bedrock adds to the last one.
const OWN_EVENT: Shape = Shape {
    keys: &[
        anthropic::EVENT_KEYS[0],
        anthropic::EVENT_KEYS[1],
        anthropic::EVENT_KEYS[2],
        long_key(&["amazon-bedrock-invocationMetrics"], 1_024),
    ],
    marks: &[],
};
const METRICS: usize = 3;

const fn mark(sign: Sign, needs: Needs) -> Mark {
    Mark {
        under: "messages",
        sign,
        flags: needs.0,
    }
}

impl Wire for Converse {
    fn request(&self) -> Shape {
        CONVERSE
    }

    fn names_model(&self) -> bool {
        false
    }

    fn possible_needs(&self) -> Needs {
        Needs::ALL.without(Needs::CACHED_PROMPT)
    }

    fn facts(&self, body: &Scanner) -> Result<Facts, Fault> {
        let limit = output_limit(body, self.output_limits(), CONVERSE.keys)?;
        let thinking = count(body, THINKING_BUDGET, "thinking.budget_tokens")?;
        let budget = thinking.max(count(
            body,
            REASONING_BUDGET,
            "reasoning_config.budget_tokens",
        )?);
        let asked = Needs::TOOLS.when(is_given(body, TOOLS))
            | Needs::STRUCTURED_OUTPUT.when(is_given(body, OUTPUT))
            | Needs::THINKING.when(is_given(body, THINKING) || is_given(body, REASONING));
        Ok(Facts {
            output_limit: over_all(limit, 1),
            needs: asked | Needs(body.noticed()),
            least_output: budget.unwrap_or(0).saturating_add(1),
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
        }
    }

    fn response(&self) -> Shape {
        CONVERSED
    }

    fn usage(&self, body: &Scanner) -> Option<Usage> {
        let [input, output, read, written] = members(
            value(body, USAGE)?,
            [
                "inputTokens",
                "outputTokens",
                "cacheReadInputTokens",
                "cacheWriteInputTokens",
            ],
        )?
        .map(count_of);
        Some(beside(input, output, read, written))
    }

    fn event(&self, event: &Scanner) -> EventFacts {
        let usage = self.usage(event);
        EventFacts {
            usage,
            usage_only: false,
            // The metadata are the last event.
            is_last: usage.is_some(),
        }
    }

    fn error(&self, problem: &Problem<'_>) -> ErrorReply {
        error(problem)
    }
}

impl Wire for Invoke {
    fn request(&self) -> Shape {
        INVOKE
    }

    fn names_model(&self) -> bool {
        false
    }

    fn possible_needs(&self) -> Needs {
        Needs::ALL.without(Needs::CACHED_PROMPT)
    }

    fn facts(&self, body: &Scanner) -> Result<Facts, Fault> {
        // The latter is Cohere's.
        let choices =
            count(body, INVOKE_N, "n")?.max(count(body, INVOKE_GENERATIONS, "num_generations")?);
        let choices = choices.unwrap_or(1);
        let limit = output_limit(body, self.output_limits(), INVOKE.keys)?;
        let budget = count(body, INVOKE_THINKING_BUDGET, "thinking.budget_tokens")?;
        let asked = Needs::TOOLS
            .when(is_given(body, INVOKE_TOOLS) || is_given(body, INVOKE_TOOL_CONFIG))
            | Needs::THINKING.when(budget.is_some());
        Ok(Facts {
            output_limit: over_all(limit, choices),
            choices,
            needs: asked | Needs(body.noticed()),
            least_output: budget.unwrap_or(0).saturating_add(1),
            ..Facts::default()
        })
    }

    fn output_limits(&self) -> OutputLimits {
        OutputLimits {
            keys: &[0, 1, 2, 3, 4],
            object: None,
            may_be_text: false,
            // Which name it has is the model's own affair.
            name: None,
            have_floor: true,
        }
    }

    fn response(&self) -> Shape {
        CONVERSED
    }

    fn events(&self) -> Shape {
        INVOKED
    }

    /// Of those models that tell it as Anthropic's or Amazon's own do; the headers tell it for all, but not all of it.
    fn usage(&self, body: &Scanner) -> Option<Usage> {
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
        match amazon == Usage::default() {
            true => anthropic::usage_of(usage),
            false => Some(amazon),
        }
    }

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
        let usage = beside(input, output, read, written);
        (usage != Usage::default()).then_some(usage)
    }

    fn event(&self, event: &Scanner) -> EventFacts {
        let Some(own) = own_event(event) else {
            return EventFacts::default();
        };
        let metrics = value(&own, METRICS).and_then(counts);
        let last = metrics.map(|usage| EventFacts {
            usage: Some(usage),
            usage_only: false,
            is_last: true,
        });
        // The metrics come with Anthropic's last event, or after it.
        let anthropic = EventFacts {
            is_last: false,
            ..anthropic::Messages.event(&own)
        };
        last.unwrap_or(anthropic)
    }

    /// A body is of its vendor's shape.
    fn can_exchange(&self, model: &str, other: &str) -> bool {
        // `us.anthropic.claude-…` and `anthropic.claude-…`: what stands before the last dot that the version does not have.
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

/// The event of the model's own that a `chunk` carries.
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

/// Usage in which the cached tokens stand beside the input.
fn beside(
    input: Option<Tokens>,
    output: Option<Tokens>,
    read: Option<Tokens>,
    written: Option<Tokens>,
) -> Usage {
    let cached = read.unwrap_or_default() + written.unwrap_or_default();
    Usage {
        input: input.map(|input| input + cached),
        cached_input: read,
        cache_write: written,
        output,
    }
}

/// AWS's SDKs try again after a throttling, and only then; `x-amz-retry-after` is in milliseconds.
fn error(problem: &Problem<'_>) -> ErrorReply {
    let kind = match (problem.status, problem.retry_after_ms) {
        (400, _) => "ValidationException",
        (401 | 403, _) => "AccessDeniedException",
        (429, Some(_)) => "ThrottlingException",
        (429, None) => "ServiceQuotaExceededException",
        _ => "ServiceUnavailableException",
    };
    let mut headers = vec![("x-amzn-errortype", kind.into())];
    headers.extend(
        problem
            .retry_after_ms
            .map(|wait| ("x-amz-retry-after", wait.into())),
    );
    let &Problem { code, message, .. } = problem;
    ErrorReply {
        body: format!(
            r#"{{"code":{},"message":{}}}"#,
            quoted(code),
            quoted(message)
        ),
        headers,
    }
}
