//! Ladders, their tiers, and what a tier can do, costs and has room for.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::read::{objects, unique};
use super::RawCredentials;
use crate::body::number::Number;

objects! { RawLadder, RawTier, RawTrim, RawCapacity, RawReserved, RawPrice, RawStep }

/// Tiers for some models.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawLadder {
    /// Models that start at the first tier, as globs (`*` stands for any text). A tier's own model always belongs to its ladder.
    #[serde(rename = "match", default)]
    pub(in crate::config) matches: Vec<String>,
    /// Ask a stream for its usage, unless its client does. False where the upstream refuses `stream_options`. Default: true.
    pub(in crate::config) ask_usage: Option<bool>,
    /// Best first.
    pub(in crate::config) tiers: Vec<RawTier>,
}

/// A class of service.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawTier {
    /// As it stands in `x-bursar-tier` and in metrics.
    pub(in crate::config) name: String,
    /// The model that is put in place of the requested one (the first tier keeps it).
    pub(in crate::config) model: String,
    /// Needed for budgets in usd.
    pub(in crate::config) price: Option<RawPrice>,
    /// The tier's low-water mark: it serves while less than this fraction of the budget remains.
    pub(in crate::config) below: Option<Number>,
    /// All that its model can do besides text. A request that needs more keeps a better tier. Default: `tools`, `images`,
    /// `structured_output` and `thinking`.
    pub(in crate::config) supports: Option<Vec<RawNeed>>,
    /// The longest answer it gives, in tokens: a larger limit in a request is lowered to this.
    pub(in crate::config) max_output_tokens: Option<Number>,
    /// The longest prompt it takes, in tokens: no request with a longer expected prompt is lowered to it.
    pub(in crate::config) context_window: Option<Number>,
    /// As the ladder's, for this tier.
    pub(in crate::config) ask_usage: Option<bool>,
    /// What all tenants together may use of it, as the upstream's own quota is. Default: no limit.
    pub(in crate::config) capacity: Option<RawCapacity>,
    /// Shorten conversations that are longer than this.
    pub(in crate::config) trim: Option<RawTrim>,
    /// Whose key this tier's provider is shown. Default: the top level's `credentials`.
    pub(in crate::config) credentials: Option<RawCredentials>,
}

/// How a tier shortens conversations: chat completions and Anthropic's Messages.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawTrim {
    /// The oldest turns are removed until the expected prompt has at most this many tokens. The application's messages and the
    /// last turn stay.
    pub(in crate::config) to_tokens: Number,
}

/// This proxy's share of the quota that an upstream has for a model: a token bucket that all tenants share.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawCapacity {
    /// Learn it from what the upstream says beside its answers, instead of the numbers.
    pub(in crate::config) from: Option<RawCapacityFrom>,
    /// Tokens that are refilled in each window, evenly.
    pub(in crate::config) tokens_per_window: Option<Number>,
    /// A duration such as `1m`.
    pub(in crate::config) window: Option<String>,
    /// Tokens that a full bucket holds. Default: `tokens_per_window`.
    pub(in crate::config) burst: Option<Number>,
    /// Fractions that are kept for higher priorities.
    #[serde(default)]
    pub(in crate::config) reserved: RawReserved,
}

/// Who says how large a capacity is.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) enum RawCapacityFrom {
    /// The upstream, in headers such as `x-ratelimit-remaining-tokens`.
    Upstream,
}

/// Fractions of a capacity's `burst` that are kept.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawReserved {
    /// Only for critical requests. Default 0.2.
    pub(in crate::config) critical: Option<Number>,
    /// In addition, only for standard and critical requests. Default 0.1.
    pub(in crate::config) standard: Option<Number>,
}

/// What a request may need of a model.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) enum RawNeed {
    /// Calling tools.
    Tools,
    /// Reading more than text: images, files, sound.
    Images,
    /// Keeping its output to a schema.
    StructuredOutput,
    /// A request to think, or for an amount of thinking.
    Thinking,
    /// A request to think as much as the model chooses (Anthropic's `adaptive`).
    AdaptiveThinking,
    /// A request for a level of effort, or for speed.
    Effort,
    /// Continuing from thoughts that were signed for another model.
    SignedThinking,
    /// Continuing from a prompt that the provider has cached for another model.
    CachedPrompt,
}

/// USD per million tokens.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawPrice {
    /// Input tokens.
    pub(in crate::config) input: Number,
    /// Input tokens that the provider had cached. Default: as `input`.
    pub(in crate::config) cached_input: Option<Number>,
    /// Input tokens that the provider caches now. Default: as `input`.
    pub(in crate::config) cache_write: Option<Number>,
    /// Those of them that it keeps for an hour. Default: as `cache_write`.
    pub(in crate::config) cache_write_1h: Option<Number>,
    /// Output tokens, reasoning included.
    pub(in crate::config) output: Number,
    /// Factors of the price, by the service tier that the answer names. Default: 1.
    #[serde(default, deserialize_with = "unique")]
    pub(in crate::config) service_tiers: BTreeMap<String, Number>,
    /// Prices of longer prompts, the shortest first.
    #[serde(default)]
    pub(in crate::config) above: Vec<RawStep>,
}

/// Prices of a whole request whose prompt is longer than `input_tokens`. Keys left out: as in the price.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawStep {
    /// Tokens of the prompt, cached ones included, above which this step applies.
    pub(in crate::config) input_tokens: Number,
    /// Input tokens.
    pub(in crate::config) input: Option<Number>,
    /// Input tokens that the provider had cached.
    pub(in crate::config) cached_input: Option<Number>,
    /// Input tokens that the provider caches now.
    pub(in crate::config) cache_write: Option<Number>,
    /// Those of them that it keeps for an hour.
    pub(in crate::config) cache_write_1h: Option<Number>,
    /// Output tokens, reasoning included.
    pub(in crate::config) output: Option<Number>,
}
