//! OpenAI's Responses API (<https://platform.openai.com/docs/api-reference/responses>, read 2026-11-22).
//!
//! A stream's last event repeats the whole response, its usage inside.

use super::openai::{error, is_structured};
use super::read::{
    MODEL, count_of, flag, is_given, key, long_key, output_limit, over_all, tokens, value,
};
use super::{ErrorReply, Facts, Fault, OutputLimits, Problem, Wire};
use crate::json::{Mark, Scanner, Shape, Sign, may_have, members};
use crate::tier::Needs;
use crate::usage::{EventFacts, Usage};

/// The Responses API.
#[derive(Debug)]
pub(super) struct Responses {
    /// It shortens a conversation instead of answering it, at a length of its own choice.
    pub(super) compacts: bool,
}

const REQUEST: Shape = Shape {
    keys: &[
        MODEL,
        key(&["stream"]),
        key(&["max_output_tokens"]),
        key(&["background"]),
        key(&["tools"]),
        key(&["text", "format", "type"]),
        key(&["reasoning"]),
        key(&["prompt"]),
    ],
    marks: &[
        mark(Sign::Type("input_image"), Needs::IMAGES),
        mark(Sign::Type("input_file"), Needs::IMAGES),
        mark(Sign::Type("computer_screenshot"), Needs::IMAGES),
        mark(Sign::Type("function_call"), Needs::TOOLS),
        mark(Sign::Type("function_call_output"), Needs::TOOLS),
        mark(Sign::Key("encrypted_content"), Needs::SIGNED_THINKING),
    ],
};
const STREAM: usize = 1;
const MAX_OUTPUT_TOKENS: usize = 2;
const BACKGROUND: usize = 3;
const TOOLS: usize = 4;
const FORMAT: usize = 5;
const REASONING: usize = 6;
const PROMPT: usize = 7;

/// The API refuses a limit of the output below this.
const LEAST_OUTPUT: u64 = 16;

const RESPONSE: Shape = Shape {
    keys: &[long_key(&["usage"], 16 * 1_024)],
    marks: &[],
};
const EVENT: Shape = Shape {
    keys: &[long_key(&["response", "usage"], 16 * 1_024), key(&["type"])],
    marks: &[],
};
const USAGE: usize = 0;
const TYPE: usize = 1;

/// Types of the events that end a stream.
const LAST: [&str; 3] = [
    "response.completed",
    "response.incomplete",
    "response.failed",
];

const fn mark(sign: Sign, needs: Needs) -> Mark {
    Mark {
        under: "input",
        sign,
        flags: needs.0,
    }
}

impl Wire for Responses {
    fn request(&self) -> Shape {
        REQUEST
    }

    /// A stored prompt may name the model.
    fn may_omit_model(&self, body: &Scanner) -> bool {
        is_given(body, PROMPT)
    }

    fn possible_needs(&self) -> Needs {
        Needs::ALL.without(Needs::CACHED_PROMPT)
    }

    fn facts(&self, body: &Scanner) -> Result<Facts, Fault> {
        let limit = output_limit(body, self.output_limits(), REQUEST.keys)?;
        let asked = Needs::TOOLS.when(is_given(body, TOOLS))
            | Needs::STRUCTURED_OUTPUT.when(is_structured(body, FORMAT))
            | Needs::THINKING.when(is_given(body, REASONING));
        Ok(Facts {
            output_limit: over_all(limit, 1),
            stream: flag(body, STREAM, "stream")?,
            is_deferred: flag(body, BACKGROUND, "background")?,
            needs: asked | Needs(body.noticed()),
            least_output: if self.compacts { 1 } else { LEAST_OUTPUT },
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
        }
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

    fn event(&self, event: &Scanner) -> EventFacts {
        let kind = event.value(TYPE).and_then(crate::json::text);
        EventFacts {
            usage: self.usage(event),
            usage_only: false,
            is_last: kind.is_some_and(|kind| LAST.contains(&kind.as_str())),
        }
    }

    fn may_tell(&self, event: &[u8]) -> bool {
        let [completed, incomplete, failed] = LAST;
        may_have(event, &["usage", completed, incomplete, failed], |_| true)
    }

    fn error(&self, problem: &Problem<'_>) -> ErrorReply {
        error(problem)
    }
}

/// Cached and reasoning tokens are part of the sums.
fn usage_of(usage: &[u8]) -> Option<Usage> {
    let [input, output, total, details] = members(
        usage,
        [
            "input_tokens",
            "output_tokens",
            "total_tokens",
            "input_tokens_details",
        ],
    )?;
    let [input, output, total] = [input, output, total].map(count_of);
    let [cached, written] = tokens(details, ["cached_tokens", "cache_write_tokens"]);
    let rest = total.zip(input).map(|(total, input)| total - input);
    let usage = Usage {
        input,
        cached_input: cached,
        cache_write: written,
        output: output.max(rest),
    };
    Some(usage.consistent())
}
