//! Gemini's `generateContent` and `streamGenerateContent`, on the Gemini API and on Vertex AI
//! (<https://ai.google.dev/api/generate-content>, read 2026-11-22).
//!
//! Requests are protocol buffers as JSON: each key has two spellings, and a number may be written as a text. In an
//! answer a count of 0 is left out. Each chunk of a stream tells running totals.

use super::read::{count_or_text, is_given, key, long_key, output_limit, over_all, tokens, value};
use super::{ErrorReply, Facts, Fault, OutputLimits, Problem, Wire};
use crate::json::{Mark, Scanner, Shape, Sign, quoted, text};
use crate::tier::Needs;
use crate::units::Tokens;
use crate::usage::{EventFacts, Usage};

/// The methods that generate content.
#[derive(Debug)]
pub(super) struct Gemini;

const CONFIG_NAME: &str = "generationConfig|generation_config";

const REQUEST: Shape = Shape {
    keys: &[
        key(&[CONFIG_NAME]),
        key(&[CONFIG_NAME, "maxOutputTokens|max_output_tokens"]),
        key(&[CONFIG_NAME, "candidateCount|candidate_count"]),
        key(&[CONFIG_NAME, "responseSchema|response_schema"]),
        key(&[CONFIG_NAME, "responseJsonSchema|response_json_schema"]),
        key(&[CONFIG_NAME, "responseMimeType|response_mime_type"]),
        key(&[CONFIG_NAME, "thinkingConfig|thinking_config"]),
        key(&["tools"]),
        key(&["cachedContent|cached_content"]),
    ],
    marks: &[
        mark("inlineData", Needs::IMAGES),
        mark("inline_data", Needs::IMAGES),
        mark("fileData", Needs::IMAGES),
        mark("file_data", Needs::IMAGES),
        mark("functionCall", Needs::TOOLS),
        mark("function_call", Needs::TOOLS),
        mark("thoughtSignature", Needs::SIGNED_THINKING),
        mark("thought_signature", Needs::SIGNED_THINKING),
    ],
};
const CONFIG: usize = 0;
const MAX_OUTPUT_TOKENS: usize = 1;
const CANDIDATES: usize = 2;
const SCHEMA: usize = 3;
const JSON_SCHEMA: usize = 4;
const MIME_TYPE: usize = 5;
const THINKING: usize = 6;
const TOOLS: usize = 7;
const CACHED_CONTENT: usize = 8;

const RESPONSE: Shape = Shape {
    keys: &[long_key(&["usageMetadata"], 16 * 1_024)],
    marks: &[],
};
const USAGE: usize = 0;

const fn mark(name: &'static str, needs: Needs) -> Mark {
    Mark {
        under: "contents",
        sign: Sign::Key(name),
        flags: needs.0,
    }
}

impl Wire for Gemini {
    fn request(&self) -> Shape {
        REQUEST
    }

    fn names_model(&self) -> bool {
        false
    }

    fn facts(&self, body: &Scanner) -> Result<Facts, Fault> {
        let choices = count_or_text(body, CANDIDATES, "candidateCount")?.unwrap_or(1);
        let limit = output_limit(body, self.output_limits(), REQUEST.keys)?;
        let is_typed = is_given(body, MIME_TYPE)
            && body
                .value(MIME_TYPE)
                .and_then(text)
                .is_none_or(|kind| kind != "text/plain");
        let is_structured = is_given(body, SCHEMA) || is_given(body, JSON_SCHEMA) || is_typed;
        let asked = Needs::TOOLS.when(is_given(body, TOOLS))
            | Needs::STRUCTURED_OUTPUT.when(is_structured)
            | Needs::THINKING.when(is_given(body, THINKING))
            | Needs::CACHED_PROMPT.when(is_given(body, CACHED_CONTENT));
        Ok(Facts {
            output_limit: over_all(limit, choices),
            choices,
            needs: asked | Needs(body.noticed()),
            ..Facts::default()
        })
    }

    fn output_limits(&self) -> OutputLimits {
        OutputLimits {
            keys: &[MAX_OUTPUT_TOKENS],
            object: Some((CONFIG, "generationConfig")),
            may_be_text: true,
            name: Some("maxOutputTokens"),
            have_floor: false,
        }
    }

    fn response(&self) -> Shape {
        RESPONSE
    }

    fn usage(&self, body: &Scanner) -> Option<Usage> {
        usage_of(value(body, USAGE)?)
    }

    fn event(&self, event: &Scanner) -> EventFacts {
        EventFacts {
            usage: self.usage(event),
            ..EventFacts::default()
        }
    }

    fn error(&self, problem: &Problem<'_>) -> ErrorReply {
        let name = match problem.status {
            400 => "INVALID_ARGUMENT",
            401 => "UNAUTHENTICATED",
            403 => "PERMISSION_DENIED",
            429 => "RESOURCE_EXHAUSTED",
            _ => "UNAVAILABLE",
        };
        let &Problem {
            status,
            code,
            message,
            ..
        } = problem;
        let (code, message) = (quoted(code), quoted(message));
        let reason = format!(
            r#"{{"@type":"type.googleapis.com/google.rpc.ErrorInfo","domain":"bursar","reason":{code}}}"#
        );
        ErrorReply {
            body: format!(
                r#"{{"error":{{"code":{status},"details":[{reason}],"message":{message},"status":"{name}"}}}}"#
            ),
            headers: Vec::new(),
        }
    }
}

/// Cached tokens are part of `promptTokenCount`; thoughts, and the prompts of tools, stand beside.
fn usage_of(usage: &[u8]) -> Option<Usage> {
    let [prompt, of_tools, candidates, thoughts, cached, total] = tokens(
        Some(usage),
        [
            "promptTokenCount",
            "toolUsePromptTokenCount",
            "candidatesTokenCount",
            "thoughtsTokenCount",
            "cachedContentTokenCount",
            "totalTokenCount",
        ],
    );
    // It may say no more than how the traffic was paid for.
    prompt.or(total)?;
    let input = prompt.unwrap_or_default() + of_tools.unwrap_or_default();
    let output = candidates.unwrap_or_default() + thoughts.unwrap_or_default();
    let rest = total.map_or(Tokens(0), |total| total - input);
    let usage = Usage {
        input: Some(input),
        cached_input: cached,
        cache_write: None,
        output: Some(output.max(rest)),
    };
    Some(usage.consistent())
}
