//! Anthropic's Messages (<https://docs.claude.com/en/api/messages>, read 2026-11-22), on its own paths and on Vertex AI.
//!
//! A stream tells the prompt's tokens when it starts, and running totals as it goes on.

use super::read::{
    MODEL, count, flag, is_given, key, long_key, output_limit, over_all, tokens, value,
};
use super::{ErrorReply, Facts, Fault, OutputLimits, Problem, Wire};
use crate::json::{
    Key, Mark, Scanner, Shape, Sign, entries, may_have, members, quoted, string, text,
};
use crate::messages::Dialect;
use crate::tier::Needs;
use crate::usage::{EventFacts, Usage};

/// The Messages API.
#[derive(Debug)]
pub(super) struct Messages;

const REQUEST: Shape = Shape {
    keys: &[
        MODEL,
        key(&["stream"]),
        key(&["max_tokens"]),
        key(&["thinking", "budget_tokens"]),
        key(&["thinking", "type"]),
        key(&["tools"]),
        key(&["mcp_servers"]),
        key(&["output_format"]),
        key(&["output_config", "format"]),
    ],
    marks: MARKS,
};
const STREAM: usize = 1;
const MAX_TOKENS: usize = 2;
const THINKING_BUDGET: usize = 3;
const THINKING_TYPE: usize = 4;
const TOOLS: usize = 5;
const MCP_SERVERS: usize = 6;
const OUTPUT_FORMAT: usize = 7;
const CONFIG_FORMAT: usize = 8;

/// What in the messages asks something of the model. Blocks of thinking are signed for the model that thought.
pub(super) const MARKS: &[Mark] = &[
    mark(Sign::Type("image"), Needs::IMAGES),
    mark(Sign::Type("document"), Needs::IMAGES),
    mark(Sign::Type("tool_use"), Needs::TOOLS),
    mark(Sign::Type("tool_result"), Needs::TOOLS),
    mark(Sign::Type("thinking"), Needs::SIGNED_THINKING),
    mark(Sign::Type("redacted_thinking"), Needs::SIGNED_THINKING),
];

const RESPONSE: Shape = Shape {
    keys: &[long_key(&["usage"], 16 * 1_024)],
    marks: &[],
};
/// Of an event, on Bedrock as well.
pub(super) const EVENT_KEYS: [Key; 3] = [
    long_key(&["usage"], 16 * 1_024),
    long_key(&["message", "usage"], 16 * 1_024),
    key(&["type"]),
];
const EVENT: Shape = Shape {
    keys: &EVENT_KEYS,
    marks: &[],
};
const USAGE: usize = 0;
const START_USAGE: usize = 1;
const TYPE: usize = 2;

const fn mark(sign: Sign, needs: Needs) -> Mark {
    Mark {
        under: "messages",
        sign,
        flags: needs.0,
    }
}

impl Wire for Messages {
    fn request(&self) -> Shape {
        REQUEST
    }

    fn possible_needs(&self) -> Needs {
        Needs::ALL.without(Needs::CACHED_PROMPT)
    }

    fn facts(&self, body: &Scanner) -> Result<Facts, Fault> {
        let limit = output_limit(body, self.output_limits(), REQUEST.keys)?;
        let budget = count(body, THINKING_BUDGET, "thinking.budget_tokens")?;
        let is_off = body
            .value(THINKING_TYPE)
            .and_then(text)
            .is_none_or(|kind| kind == "disabled");
        let asked = Needs::TOOLS.when(is_given(body, TOOLS) || is_given(body, MCP_SERVERS))
            | Needs::STRUCTURED_OUTPUT
                .when(is_given(body, OUTPUT_FORMAT) || is_given(body, CONFIG_FORMAT))
            | Needs::THINKING.when(!is_off);
        Ok(Facts {
            output_limit: over_all(limit, 1),
            stream: flag(body, STREAM, "stream")?,
            needs: asked | Needs(body.noticed()),
            // The API wants more than the thinking may take.
            least_output: budget.unwrap_or(0).saturating_add(1),
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
        }
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

    fn event(&self, event: &Scanner) -> EventFacts {
        let start = value(event, START_USAGE).and_then(usage_of);
        let start = start.map(|usage| Usage {
            // The first words of an answer that may become long.
            output: None,
            ..usage
        });
        let kind = event.value(TYPE).and_then(text);
        EventFacts {
            usage: start.or_else(|| self.usage(event)),
            usage_only: false,
            is_last: kind.is_some_and(|kind| kind == "message_stop"),
        }
    }

    fn may_tell(&self, event: &[u8]) -> bool {
        may_have(event, &["usage", "message_stop"], |_| true)
    }

    fn error(&self, problem: &Problem<'_>) -> ErrorReply {
        let kind = match problem.status {
            400 => "invalid_request_error",
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            _ => "api_error",
        };
        let &Problem { code, message, .. } = problem;
        let (code, message) = (quoted(code), quoted(message));
        ErrorReply {
            body: format!(
                r#"{{"error":{{"code":{code},"message":{message},"type":"{kind}"}},"type":"error"}}"#
            ),
            headers: Vec::new(),
        }
    }
}

/// What the answer itself took, and what was done on its behalf: a compaction of the conversation, an adviser's words.
/// Those stand among the iterations, and the sums leave them out.
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

/// Cached tokens stand beside `input_tokens`; thinking is part of `output_tokens`.
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
    let cached = read.unwrap_or_default() + written.unwrap_or_default();
    Usage {
        input: input.map(|input| input + cached),
        cached_input: read,
        cache_write: written,
        output,
    }
}
