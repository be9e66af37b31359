//! Gemini's `generateContent` and `streamGenerateContent`, on the Gemini API and on Vertex AI
//! (<https://ai.google.dev/api/generate-content>, read 2026-11-22).
//!
//! Requests are protocol buffers as JSON: each key has two spellings, and a number may be written as a string. Answers omit counts of
//! 0. Each chunk of a stream reports running totals.

use super::answer::{self, ERROR_KEY, SERVICE_TIER, USAGE, model_key, usage_key};
use super::read::{
    ALTERNATIVES, LISTS_OF_ENTRIES, MODEL, OVERRIDES, count_or_text, is_beyond, is_given, key,
    output_limit, over_all, tokens, value,
};
use super::wire::{ErrorReply, Facts, Fault, OutputLimits, Problem, Wire};
use crate::base::units::Tokens;
use crate::body::json::{Pattern, PatternKind, Scanner, Shape, quoted, text};
use crate::http::Headers;
use crate::tier::Needs;
use crate::usage::{EventFacts, EventKind, ServiceTier, Usage};

/// The methods that generate content.
#[derive(Debug)]
pub(super) struct Gemini;

const CONFIG_NAME: &str = "generationConfig|generation_config";

const REQUEST: Shape = Shape::new(
    &[
        key(&[CONFIG_NAME]),
        key(&[CONFIG_NAME, "maxOutputTokens|max_output_tokens"]),
        key(&[CONFIG_NAME, "candidateCount|candidate_count"]),
        key(&[CONFIG_NAME, "responseSchema|response_schema"]),
        key(&[CONFIG_NAME, "responseJsonSchema|response_json_schema"]),
        key(&[CONFIG_NAME, "responseMimeType|response_mime_type"]),
        key(&[CONFIG_NAME, "thinkingConfig|thinking_config"]),
        key(&["tools"]),
        key(&["cachedContent|cached_content"]),
        key(&[
            CONFIG_NAME,
            "thinkingConfig|thinking_config",
            "thinkingLevel|thinking_level",
        ]),
        key(&[CONFIG_NAME, "responseModalities|response_modalities"]),
        key(&[CONFIG_NAME, "speechConfig|speech_config"]),
        key(&[CONFIG_NAME, "imageConfig|image_config"]),
        key(&[CONFIG_NAME, "responseFormat|response_format"]),
        key(&["serviceTier|service_tier"]),
        MODEL,
        OVERRIDES[0],
        OVERRIDES[1],
        OVERRIDES[2],
        ALTERNATIVES[2],
        ALTERNATIVES[3],
        ALTERNATIVES[4],
        ALTERNATIVES[5],
        ALTERNATIVES[6],
        ALTERNATIVES[7],
    ],
    &[
        pattern("inlineData", Needs::IMAGES),
        pattern("inline_data", Needs::IMAGES),
        pattern("fileData", Needs::IMAGES),
        pattern("file_data", Needs::IMAGES),
        pattern("functionCall", Needs::TOOLS),
        pattern("function_call", Needs::TOOLS),
        pattern("functionResponse", Needs::TOOLS),
        pattern("function_response", Needs::TOOLS),
        pattern("executableCode", Needs::TOOLS),
        pattern("executable_code", Needs::TOOLS),
        pattern("thoughtSignature", Needs::SIGNED_THINKING),
        pattern("thought_signature", Needs::SIGNED_THINKING),
    ],
);
const CONFIG: usize = 0;
const MAX_OUTPUT_TOKENS: usize = 1;
const CANDIDATES: usize = 2;
const SCHEMA: usize = 3;
const JSON_SCHEMA: usize = 4;
const MIME_TYPE: usize = 5;
const THINKING: usize = 6;
const TOOLS: usize = 7;
const CACHED_CONTENT: usize = 8;
/// Gemini 3's key, which older models refuse (<https://ai.google.dev/gemini-api/docs/thinking>, read 2026-11-29).
const THINKING_LEVEL: usize = 9;
const MODALITIES: usize = 10;
const SPEECH: usize = 11;
const PICTURES: usize = 12;
const FORMAT: usize = 13;
const ASKED_TIER: usize = 14;
/// The model's name in the body, a second time after the path: LiteLLM's proxy prefers this one (<https://github.com/BerriAI/litellm>,
/// `google_endpoints/endpoints.py`, read 2026-11-30), and also accepts its lists of other models here.
const NAMED_AGAIN: usize = 15;

const RESPONSE: Shape = Shape::new(
    &[
        usage_key(&["usageMetadata"]),
        ERROR_KEY,
        model_key(&["modelVersion"]),
        // Vertex AI's key. The Gemini API has the tier in a header.
        key(&["usageMetadata", "trafficType"]),
    ],
    &[],
);

const fn pattern(name: &'static str, needs: Needs) -> Pattern {
    Pattern {
        under: "contents",
        kind: PatternKind::Key(name),
        flags: needs.0,
    }
}

impl Wire for Gemini {
    fn possible_needs(&self, _model: &str) -> Needs {
        Needs::ALL.without(Needs::CACHE_SETTINGS | Needs::RECENT_FEATURES)
    }

    fn request(&self) -> Shape {
        REQUEST
    }

    fn model_key(&self) -> Option<usize> {
        Some(NAMED_AGAIN)
    }

    fn may_differ_from_path(&self) -> bool {
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
        let shapes = [SCHEMA, JSON_SCHEMA, FORMAT];
        let is_structured = shapes.iter().any(|&index| is_given(body, index)) || is_typed;
        let is_more = is_beyond(body, MODALITIES, &[r#"["TEXT"]"#])
            || is_given(body, SPEECH)
            || is_given(body, PICTURES);
        let asked = Needs::TOOLS.when(is_given(body, TOOLS))
            | Needs::STRUCTURED_OUTPUT.when(is_structured)
            | Needs::IMAGES.when(is_more)
            | Needs::THINKING.when(is_given(body, THINKING))
            | Needs::EFFORT.when(is_given(body, THINKING_LEVEL))
            | Needs::CACHED_PROMPT.when(is_given(body, CACHED_CONTENT));
        Ok(Facts {
            output_limit: over_all(limit, choices),
            choices,
            needs: asked | Needs(body.matched()),
            service_tier: asked_tier(body),
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
            takes_zero: false,
        }
    }

    fn alternatives(&self) -> usize {
        LISTS_OF_ENTRIES
    }

    fn streams_arrays(&self) -> bool {
        true
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
            kind: EventKind::of(answer::is_error(event)),
            ..EventFacts::default()
        }
    }

    /// Values are `ON_DEMAND_PRIORITY` and `ON_DEMAND_FLEX`; `ON_DEMAND` is no tier
    /// (<https://docs.cloud.google.com/vertex-ai/generative-ai/docs/priority-paygo>, read 2026-11-29).
    fn service_tier(&self, answer: &Scanner) -> Option<ServiceTier> {
        let kind = text(answer.value(SERVICE_TIER)?)?;
        ServiceTier::of(kind.strip_prefix("ON_DEMAND_")?)
    }

    /// <https://ai.google.dev/gemini-api/docs/priority-inference>, read 2026-11-29.
    fn service_tier_of_headers(&self, response: &Headers) -> Option<ServiceTier> {
        let name = response.only("x-gemini-service-tier")?;
        ServiceTier::of(std::str::from_utf8(name).ok()?)
    }

    /// The tier that Vertex AI's header requests (same source).
    fn asked_tier(&self, request: &Headers) -> Option<ServiceTier> {
        let name = request.only("x-vertex-ai-llm-shared-request-type")?;
        ServiceTier::of(std::str::from_utf8(name).ok()?)
    }

    fn error(&self, problem: &Problem<'_>) -> ErrorReply {
        let name = match problem.status {
            400 | 415 | 426 => "INVALID_ARGUMENT",
            401 => "UNAUTHENTICATED",
            403 => "PERMISSION_DENIED",
            429 => "RESOURCE_EXHAUSTED",
            _ => "UNAVAILABLE",
        };
        let &Problem {
            status,
            code,
            message,
            retry_after_ms,
        } = problem;
        let (code, message) = (quoted(code), quoted(message));
        let reason = format!(
            r#"{{"@type":"type.googleapis.com/google.rpc.ErrorInfo","domain":"bursar","reason":{code}}}"#
        );
        let details = match retry_after_ms {
            Some(wait) => format!("{reason},{}", retry_info(wait)),
            None => reason,
        };
        ErrorReply {
            status,
            body: format!(
                r#"{{"error":{{"code":{status},"details":[{details}],"message":{message},"status":"{name}"}}}}"#
            ),
            headers: Vec::new(),
        }
    }
}

/// The value is `priority` or its name as an enumeration's, `SERVICE_TIER_PRIORITY`
/// (<https://ai.google.dev/gemini-api/docs/priority-inference>, read 2026-11-29).
fn asked_tier(body: &Scanner) -> Option<ServiceTier> {
    let name = text(body.value(ASKED_TIER)?)?;
    ServiceTier::of(name.strip_prefix("SERVICE_TIER_").unwrap_or(&name))
}

/// Google's clients wait for this time, and ignore headers
/// (<https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto>, read 2026-11-29).
fn retry_info(wait_ms: u64) -> String {
    let (secs, millis) = (wait_ms / 1_000, wait_ms % 1_000);
    format!(
        r#"{{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"{secs}.{millis:03}s"}}"#
    )
}

/// Cached tokens are part of `promptTokenCount`; thoughts and the prompts of tools are counted separately.
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
    // A report may have nothing but the traffic type.
    prompt.or(total)?;
    let input = prompt.unwrap_or_default() + of_tools.unwrap_or_default();
    let known = candidates.or(thoughts).is_some().then(|| {
        let thoughts = thoughts.unwrap_or_default();
        candidates.unwrap_or_default() + thoughts
    });
    let rest = total.map_or(Tokens(0), |total| total - input);
    let output = known.unwrap_or(rest);
    let usage = Usage {
        input: Some(input),
        cached_input: cached,
        output: Some(output),
        other_total: total.filter(|total| *total != input + output),
        ..Usage::default()
    };
    Some(usage.consistent())
}
