//! Requests in OpenAI's format: what they want, under the names that the many compatible servers use.

use crate::base::name::has_part;
use crate::body::json::{Pattern, PatternKind, Scanner, Shape, only_member, text, with_entry};
use crate::body::rewrite::Edit;
use crate::provider::answer;
use crate::provider::read::{
    MODEL, above, count, flag, is_beyond, is_given, is_high, key, long_key, output_limit, over_all,
    value, with_alternatives,
};
use crate::provider::wire::{Facts, Fault, OutputLimits};
use crate::tier::Needs;

/// The longest sensible `stream_options`.
const MAX_OPTIONS: usize = 1_024;

const STREAM: usize = 1;
const STREAM_OPTIONS: usize = 2;
pub(super) const MAX_TOKENS: usize = 3;
const N: usize = 4;

/// The shape of a chat request, indexed by the constants above and below.
pub(super) const CHAT: Shape = Shape::new(
    &with_alternatives![
        MODEL,
        key(&["stream"]),
        long_key(&["stream_options"], MAX_OPTIONS),
        key(&["max_tokens"]),
        key(&["n"]),
        key(&["max_completion_tokens"]),
        key(&["tools"]),
        key(&["functions"]),
        key(&["response_format", "type"]),
        key(&["reasoning_effort"]),
        key(&["n_predict"]),
        key(&["data_sources"]),
        key(&["dataSources"]),
        key(&["deferred"]),
        key(&["thinking", "type"]),
        key(&["reasoning"]),
        key(&["include_reasoning|reasoning_format"]),
        key(&["enable_thinking"]),
        key(&["thinking_budget"]),
        key(&["chat_template_kwargs"]),
        key(&["extra_body", "google", "thinking_config"]),
        key(&["structured_outputs"]),
        key(&["guided_json|guided_regex|guided_choice|guided_grammar"]),
        key(&["grammar|json_schema|regex|ebnf"]),
        key(&["modalities"]),
        key(&["audio"]),
        key(&["web_search_options|search_parameters|enable_search"]),
        key(&["plugins"]),
        key(&["mcp_servers"]),
        key(&["service_tier"]),
        key(&["verbosity"]),
        key(&["output_config", "effort"]),
        key(&["thinking", "budget_tokens"]),
        key(&["reasoning", "max_tokens"]),
        key(&["store"]),
        key(&["prompt_cache_retention|prompt_cache_options"]),
    ],
    &[
        pattern(PatternKind::Type("image_url"), Needs::IMAGES),
        pattern(PatternKind::Type("input_audio"), Needs::IMAGES),
        pattern(PatternKind::Type("file"), Needs::IMAGES),
        pattern(PatternKind::Type("video_url"), Needs::IMAGES),
        pattern(PatternKind::Type("audio_url"), Needs::IMAGES),
        pattern(PatternKind::Type("document_url"), Needs::IMAGES),
        pattern(PatternKind::Type("input_image"), Needs::IMAGES),
        pattern(PatternKind::Type("input_video"), Needs::IMAGES),
        pattern(PatternKind::Type("input_file"), Needs::IMAGES),
        pattern(PatternKind::Type("image"), Needs::IMAGES),
        pattern(PatternKind::Type("audio"), Needs::IMAGES),
        pattern(PatternKind::Type("video"), Needs::IMAGES),
        pattern(PatternKind::Type("document"), Needs::IMAGES),
        pattern(PatternKind::Key("tool_calls"), Needs::TOOLS),
        pattern(PatternKind::Key("tool_call_id"), Needs::TOOLS),
    ],
);
pub(super) const MAX_COMPLETION_TOKENS: usize = 5;
const TOOLS: usize = 6;
const FUNCTIONS: usize = 7;
const FORMAT: usize = 8;
const EFFORT: usize = 9;
/// llama.cpp's own name for the output limit, which it prefers to all others.
pub(super) const N_PREDICT: usize = 10;
/// Azure's own retrieval, and its older name: in a request with it, the API refuses `stream_options`
/// (<https://github.com/Azure/azure-sdk-for-java/issues/40998>, read 2026-11-29).
const DATA_SOURCES: [usize; 2] = [11, 12];
/// xAI's key: the answer is fetched later, with another request (<https://docs.x.ai/docs/guides/deferred-chat-completions>, read
/// 2026-11-29).
const DEFERRED: usize = 13;
/// The keys for thinking of DeepSeek and Z.ai, OpenRouter, DashScope, vLLM and Gemini's compatible API.
const THINKING_TYPE: usize = 14;
const REASONING: usize = 15;
const INCLUDE_REASONING: usize = 16;
const ENABLE_THINKING: usize = 17;
const THINKING_BUDGET: usize = 18;
const TEMPLATE: usize = 19;
const GOOGLE_THINKING: usize = 20;
/// Structured output, by vLLM's present and former names, llama.cpp's and SGLang's.
const SHAPES: [usize; 3] = [21, 22, 23];
/// Output other than text.
const MODALITIES: usize = 24;
const AUDIO: usize = 25;
/// Search and remote tools, under the keys of OpenAI, xAI and DashScope; of OpenRouter; and of tool servers.
const LOOK_UPS: [usize; 3] = [26, 27, 28];
const SERVICE_TIER: usize = 29;
/// The key of OpenAI's newer models, and of Claude behind gateways that forward it.
const VERBOSITY: usize = 30;
const OUTPUT_EFFORT: usize = 31;
/// What Claude may think, as gateways and Databricks pass it on, and under OpenRouter's name: Anthropic's API requires a limit above it
/// (<https://openrouter.ai/docs/use-cases/reasoning-tokens>, <https://docs.litellm.ai/docs/reasoning_content>, read 2026-11-30).
const THINKING_BUDGETS: [usize; 2] = [32, 33];
/// Stored answers can be listed (<https://developers.openai.com/api/reference/go/resources/chat/subresources/completions/methods/list>, read
/// 2026-11-30).
const STORE: usize = 34;
/// How long OpenAI caches the prompt: models differ in which of the two they accept
/// (<https://github.com/NousResearch/hermes-agent/issues/91164>, read 2026-12-01).
const CACHE_SETTINGS: usize = 35;

pub(super) const COMPLETIONS: Shape = Shape::new(
    &with_alternatives![
        MODEL,
        key(&["stream"]),
        long_key(&["stream_options"], MAX_OPTIONS),
        key(&["max_tokens"]),
        key(&["n"]),
        key(&["best_of"]),
        key(&["prompt"]).counting_commas(),
        key(&["n_predict"]),
        key(&["max_completion_tokens"]),
        key(&["response_format", "type"]),
        key(&["structured_outputs"]),
        key(&["guided_json|guided_regex|guided_choice|guided_grammar"]),
        key(&["grammar|json_schema|regex|ebnf"]),
    ],
    &[],
);
const PLAIN_FORMAT: usize = 9;
const PLAIN_SHAPES: [usize; 3] = [10, 11, 12];
const BEST_OF: usize = 5;
const PROMPT: usize = 6;
pub(super) const PLAIN_N_PREDICT: usize = 7;
/// A chat's name, which mlx-lm prefers here, too (<https://github.com/ml-explore/mlx-lm>, `server.py`, read 2026-11-30).
pub(super) const PLAIN_MAX_COMPLETION_TOKENS: usize = 8;

pub(super) const EMBEDDINGS: Shape = Shape::new(&with_alternatives![MODEL,], &[]);

const INCLUDE_USAGE: &str = "include_usage";

/// Bytes of `,"stream_options":{"include_usage":true}`: changing existing options adds fewer.
pub(super) const MOST_ADDED_TO_ASK: u64 = 40;

const fn pattern(kind: PatternKind, needs: Needs) -> Pattern {
    Pattern {
        under: "messages",
        kind,
        flags: needs.0,
    }
}

/// What a chat completion wants.
pub(super) fn chat(body: &Scanner, limits: OutputLimits) -> Result<Facts, Fault> {
    let choices = count(body, N, "n")?.unwrap_or(1);
    let limit = output_limit(body, limits, CHAT.keys)?;
    let any = |indices: &[usize]| indices.iter().any(|&index| is_on(body, index));
    let is_shaped = is_structured(body, FORMAT) || any(&SHAPES);
    let is_more = is_beyond(body, MODALITIES, &[r#"["text"]"#]) || is_given(body, AUDIO);
    let asked = Needs::TOOLS.when(any(&[TOOLS, FUNCTIONS]) || any(&LOOK_UPS))
        | Needs::STRUCTURED_OUTPUT.when(is_shaped)
        | Needs::IMAGES.when(is_more)
        | Needs::THINKING.when(thinks(body))
        | Needs::ADAPTIVE_THINKING.when(is_word(body, THINKING_TYPE, "adaptive"))
        | Needs::EFFORT.when(makes_effort(body))
        | Needs::CACHE_SETTINGS.when(is_given(body, CACHE_SETTINGS))
        | Needs::RECENT_FEATURES.when(is_recent(body));
    Ok(Facts {
        output_limit: over_all(limit, choices),
        choices,
        needs: asked | Needs(body.matched()),
        is_deferred: flag(body, DEFERRED, "deferred")?,
        is_kept: is_on(body, STORE),
        least_output: above(body, &THINKING_BUDGETS),
        service_tier: answer::tier(value(body, SERVICE_TIER)),
        ..streaming(body)?
    })
}

/// What a plain completion wants.
pub(super) fn completion(body: &Scanner, limits: OutputLimits) -> Result<Facts, Fault> {
    let is_shaped =
        is_structured(body, PLAIN_FORMAT) || PLAIN_SHAPES.iter().any(|&index| is_on(body, index));
    let each = count(body, N, "n")?.max(count(body, BEST_OF, "best_of")?);
    let choices = each.unwrap_or(1).saturating_mul(prompts(body));
    let limit = output_limit(body, limits, COMPLETIONS.keys)?;
    Ok(Facts {
        output_limit: over_all(limit, choices),
        choices,
        needs: Needs::STRUCTURED_OUTPUT.when(is_shaped),
        ..streaming(body)?
    })
}

/// The number of prompts. A list of numbers is a single prompt, written as tokens.
fn prompts(body: &Scanner) -> u64 {
    let Some(field) = body.begun(PROMPT) else {
        return 1;
    };
    let mut bytes = field.raw.iter().filter(|byte| !byte.is_ascii_whitespace());
    match (bytes.next(), bytes.next()) {
        // If white space makes the list too long to read, it is counted as a list of prompts, which gives the larger number.
        (Some(b'['), Some(b'"' | b'[') | None) => field.commas.saturating_add(1),
        _ => 1,
    }
}

/// Whether a value is present that is not `false`.
fn is_on(body: &Scanner, index: usize) -> bool {
    is_beyond(body, index, &["false"])
}

/// Whether the request asks for thinking, under any of its names.
fn thinks(body: &Scanner) -> bool {
    let is_off = [
        r#"{"enabled":false}"#,
        r#"{"effort":"none"}"#,
        r#"{"enable_thinking":false}"#,
        r#"{"thinking":false}"#,
    ];
    let others = ["disabled", "adaptive"];
    let is_other = |word: &&str| is_word(body, THINKING_TYPE, word);
    let kind = is_given(body, THINKING_TYPE) && !others.iter().any(is_other);
    let flags = [INCLUDE_REASONING, ENABLE_THINKING, GOOGLE_THINKING];
    let more = [REASONING, TEMPLATE];
    // Models that do not think refuse even `none`, and so do some that do (<https://github.com/neavo/LinguaGacha/issues/771>, read 2026-12-01).
    kind || is_given(body, EFFORT)
        || flags.iter().any(|&index| is_on(body, index))
        || is_beyond(body, THINKING_BUDGET, &["0"])
        || more.iter().any(|&index| is_beyond(body, index, &is_off))
}

/// Whether the request uses what only recent models take.
fn is_recent(body: &Scanner) -> bool {
    is_high(body, EFFORT) || is_high(body, OUTPUT_EFFORT) || is_flexible(body, SERVICE_TIER)
}

/// Whether the key names a service tier that a model may lack: such a model refuses the request
/// (<https://learn.microsoft.com/azure/foundry/openai/how-to/flex-processing>, read 2026-12-01).
pub(in crate::provider) fn is_flexible(body: &Scanner, index: usize) -> bool {
    is_word(body, index, "flex") || is_word(body, index, "ultrafast")
}

/// Whether the request sets the effort in a way that few models support.
fn makes_effort(body: &Scanner) -> bool {
    is_beyond(body, VERBOSITY, &["\"medium\""]) || is_given(body, OUTPUT_EFFORT)
}

/// Rare needs that chats with models of this name may have: Claude's thinking, behind gateways that forward it, and verbosity and cached
/// prompts of OpenAI's newer models.
pub(super) fn rare_needs(model: &str) -> Needs {
    let [is_claude, is_gpt_5, is_gpt_4] =
        ["claude", "gpt-5", "gpt-4.1"].map(|word| has_part(model, word));
    Needs::ADAPTIVE_THINKING.when(is_claude)
        | (Needs::EFFORT | Needs::RECENT_FEATURES).when(is_claude || is_gpt_5)
        | Needs::CACHE_SETTINGS.when(is_gpt_5 || is_gpt_4)
}

#[inline(never)]
fn is_word(body: &Scanner, index: usize, word: &str) -> bool {
    let value = body.value(index).and_then(text);
    value.is_some_and(|value| value == word)
}

/// Whether a format's type is a structured one.
pub(in crate::provider) fn is_structured(body: &Scanner, index: usize) -> bool {
    is_given(body, index) && !is_word(body, index, "text")
}

/// What chat and plain completions have in common about streaming. Some servers also understand other values than `true` as a request for
/// usage.
fn streaming(body: &Scanner) -> Result<Facts, Fault> {
    let asked = options(body)?.and_then(|(_, asked)| asked);
    let asks = asked.is_some_and(|asked| !matches!(asked, b"false" | b"null"));
    let stream = flag(body, STREAM, "stream")?;
    Ok(Facts {
        stream,
        hides_usage: stream && !asks,
        ..Facts::default()
    })
}

/// The bytes of `stream_options` (`{}` if the value is `null`), and those of its member that requests usage, if it has one.
type Options<'a> = (&'a [u8], Option<&'a [u8]>);

/// The options of a stream, if there are any.
fn options(body: &Scanner) -> Result<Option<Options<'_>>, Fault> {
    if body.value(STREAM_OPTIONS).is_none() {
        return Ok(None);
    }
    let options = value(body, STREAM_OPTIONS).ok_or(Fault::OptionsNotObject)?;
    let options = if options == b"null" { b"{}" } else { options };
    let asks = only_member(options, INCLUDE_USAGE).ok_or(Fault::OptionsNotObject)?;
    let asks = asks.map_err(Fault::Body)?;
    Ok(Some((options, asks)))
}

pub(super) fn has_data_sources(body: &Scanner) -> bool {
    DATA_SOURCES.iter().any(|&index| is_given(body, index))
}

/// Makes `stream_options` request usage, whatever they contain: otherwise the stream could only be settled by an estimate. Without a stream
/// the options are left alone, since servers then refuse them.
pub(super) fn ask_usage(body: &Scanner) -> Option<Edit> {
    if flag(body, STREAM, "stream") != Ok(true) {
        return None;
    }
    let (start, end, with) = match (options(body).ok()?, body.value(STREAM_OPTIONS)) {
        (Some((_, Some(b"true"))), _) => return None,
        (Some((options, _)), Some(field)) => (
            field.start,
            field.end?,
            with_entry(options, INCLUDE_USAGE, "true")?,
        ),
        _ => {
            let brace = body.closing_brace()?;
            let with = format!(",\"stream_options\":{{\"{INCLUDE_USAGE}\":true}}");
            (brace, brace, with)
        }
    };
    Some(Edit {
        start,
        end,
        with: with.into_bytes(),
    })
}

/// Where `stream_options` begin, as long as they must be kept back: until `stream` has been read, or, without `stream`, until all keys have
/// been read that may forbid the options.
pub(super) fn may_ask_at(body: &Scanner) -> Option<u64> {
    let options = body.begun(STREAM_OPTIONS)?;
    let waits = match flag(body, STREAM, "stream") {
        Ok(true) => options.raw == b"null",
        _ => body.value(STREAM).is_none(),
    };
    waits.then_some(options.start)
}
