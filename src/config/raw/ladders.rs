//! The keys of ladders and their tiers: what a tier can do, what it costs, and its capacity.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::read::{objects, unique};
use super::RawCredentials;
use crate::body::number::Number;

objects! { RawLadder, RawTier, RawTrim, RawCapacity, RawReserved, RawPrice, RawStep }

/// A ladder: the tiers for a group of models.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawLadder {
    /// The requested models that this ladder takes at its first tier, as globs (`*` stands for any text). A tier's own model always
    /// belongs to its ladder.
    #[serde(rename = "match", default)]
    pub(in crate::config) matches: Vec<String>,
    /// Request a stream's usage if the client does not request it. Set this to false if the upstream refuses `stream_options`.
    /// Default: true.
    pub(in crate::config) ask_usage: Option<bool>,
    /// The ladder's tiers, best first.
    pub(in crate::config) tiers: Vec<RawTier>,
}

/// A tier of a ladder: a class of service, with its model.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawTier {
    /// The tier's name, as it appears in `x-bursar-tier` and in metrics.
    pub(in crate::config) name: String,
    /// The model that replaces the requested one; the first tier keeps the requested model.
    pub(in crate::config) model: String,
    /// The price of the tier's model, which budgets in `usd` need.
    pub(in crate::config) price: Option<RawPrice>,
    /// The tier's low-water mark: it serves while less than this fraction of the budget remains.
    pub(in crate::config) below: Option<Number>,
    /// All that its model can do besides text. A request that needs anything else keeps a better tier. Default: `tools`, `images`,
    /// `structured_output` and `thinking`, and `cache_settings` if the model has `claude` in its name.
    pub(in crate::config) supports: Option<Vec<RawNeed>>,
    /// The longest answer that the tier's model gives, in tokens; a larger limit in a request is lowered to this.
    pub(in crate::config) max_output_tokens: Option<Number>,
    /// The longest prompt that the tier's model takes, in tokens; a request whose expected prompt is longer is not downgraded to this
    /// tier.
    pub(in crate::config) context_window: Option<Number>,
    /// As the ladder's `ask_usage`, for this tier alone. Default: the ladder's `ask_usage`.
    pub(in crate::config) ask_usage: Option<bool>,
    /// How much of this tier all tenants together may use, usually as much as the upstream's quota allows. Default: no limit.
    pub(in crate::config) capacity: Option<RawCapacity>,
    /// To which length conversations are shortened for this tier. Default: conversations are not shortened.
    pub(in crate::config) trim: Option<RawTrim>,
    /// Whose API key this tier's provider receives. Default: the top level's `credentials`.
    pub(in crate::config) credentials: Option<RawCredentials>,
}

/// How a tier shortens conversations, in chat completions and in Anthropic's Messages.
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
    /// Take the capacity from the headers of the upstream's answers, instead of from `tokens_per_window`, `window` and `burst`.
    pub(in crate::config) from: Option<RawCapacityFrom>,
    /// Tokens that are refilled in each window, evenly.
    pub(in crate::config) tokens_per_window: Option<Number>,
    /// The time in which `tokens_per_window` are refilled, as a duration such as `1m`.
    pub(in crate::config) window: Option<String>,
    /// Tokens that a full bucket holds. Default: `tokens_per_window`.
    pub(in crate::config) burst: Option<Number>,
    /// Fractions of `burst` that are kept for requests of higher priority.
    #[serde(default)]
    pub(in crate::config) reserved: RawReserved,
}

/// Who sets the size of a capacity.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) enum RawCapacityFrom {
    /// The upstream sets it, and reports it in headers such as `x-ratelimit-remaining-tokens`.
    Upstream,
}

/// Fractions of a capacity's `burst` that are kept for requests of higher priority.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawReserved {
    /// The fraction that only critical requests may take. Default: 0.2.
    pub(in crate::config) critical: Option<Number>,
    /// A further fraction, which only standard and critical requests may take. Default: 0.1.
    pub(in crate::config) standard: Option<Number>,
}

/// An ability that a request may need of its model.
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
    /// Thinking, with or without a given amount of it.
    Thinking,
    /// Thinking as much as the model itself chooses (Anthropic's `adaptive`).
    AdaptiveThinking,
    /// A setting for the level of effort, or for speed.
    Effort,
    /// Continuing from thoughts that were signed for another model.
    SignedThinking,
    /// Continuing from a prompt that the provider has cached for another model.
    CachedPrompt,
    /// A setting for where or how long the prompt is cached: Bedrock's `cachePoint`, OpenAI's `prompt_cache_retention`.
    CacheSettings,
    /// What only a provider's recent models take: effort above `high`, a place of inference, compaction, and the like.
    RecentFeatures,
}

/// Prices in USD per million tokens.
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
    /// Input tokens that the provider caches now and keeps for an hour. Default: as `cache_write`.
    pub(in crate::config) cache_write_1h: Option<Number>,
    /// Output tokens, reasoning included.
    pub(in crate::config) output: Number,
    /// Factors that multiply the price, by the service tier that the provider's answer names. Default: 1.
    #[serde(default, deserialize_with = "unique")]
    pub(in crate::config) service_tiers: BTreeMap<String, Number>,
    /// Steps of the price for longer prompts, from the shortest to the longest.
    #[serde(default)]
    pub(in crate::config) above: Vec<RawStep>,
}

/// A step of a price: the prices of the whole request if its prompt is longer than `input_tokens`. A key that is left out has the
/// value that it has in the price itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawStep {
    /// The number of the prompt's tokens, cached ones included, above which this step applies.
    pub(in crate::config) input_tokens: Number,
    /// Input tokens.
    pub(in crate::config) input: Option<Number>,
    /// Input tokens that the provider had cached.
    pub(in crate::config) cached_input: Option<Number>,
    /// Input tokens that the provider caches now.
    pub(in crate::config) cache_write: Option<Number>,
    /// Input tokens that the provider caches now and keeps for an hour.
    pub(in crate::config) cache_write_1h: Option<Number>,
    /// Output tokens, reasoning included.
    pub(in crate::config) output: Option<Number>,
}
