//! The configuration as it is written: its keys and their types, and nothing more.
//!
//! The doc comments are the descriptions in the JSON Schema.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::number::Number;

macro_rules! keys {
    ($($item:item)*) => {
        $(
            #[derive(Clone, Debug, PartialEq, Deserialize)]
            #[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
            $item
        )*
    };
}

keys! {
    /// Plugin configuration of bursar.
    #[serde(deny_unknown_fields)]
    pub struct RawConfig {
        /// Hold the request's headers until its body is read. True only where Envoy's
        /// `allow_on_headers_stop_iteration` is true; otherwise every request with a body hangs.
        #[serde(default)]
        pub hold_headers: bool,
        /// Longest body in bytes that is held with its headers; longer ones pass while they are read. Keep it under the
        /// listener's `per_connection_buffer_limit_bytes` (Envoy's default is 1 MiB) and under an HTTP/2
        /// `initial_stream_window_size`, or Envoy answers 413 to longer ones. Default 983040.
        pub hold_bytes: Option<Number>,
        /// What to do when bursar's own state cannot be had.
        #[serde(default)]
        pub failure_mode: RawFailureMode,
        /// How long a reservation that nothing settles stays held, as a duration: longer than the slowest answer, from one
        /// second on. Default `30m`.
        pub reservation_expiry: Option<String>,
        /// Whose request it is.
        #[serde(default)]
        pub tenant: RawTenantRules,
        /// One ladder of tiers, best first.
        pub tiers: Option<Vec<RawTier>>,
        /// Several ladders, instead of `tiers`.
        pub ladders: Option<Vec<RawLadder>>,
        /// Limits under a name.
        #[serde(default, deserialize_with = "unique")]
        pub plans: BTreeMap<String, RawLimits>,
        /// Configured tenants, by id.
        #[serde(default, deserialize_with = "unique")]
        pub tenants: BTreeMap<String, RawTenant>,
    }

    /// What to do when bursar's own state cannot be had.
    #[derive(Default)]
    #[serde(rename_all = "snake_case")]
    pub enum RawFailureMode {
        /// Let the request through unmetered.
        #[default]
        Allow,
        /// Refuse it with 503.
        Deny,
    }

    /// How a request's tenant is found.
    #[derive(Default)]
    #[serde(deny_unknown_fields)]
    pub struct RawTenantRules {
        /// Where to look; the first that yields wins. Default: the header `x-tenant-id`.
        pub from: Option<Vec<RawSource>>,
        /// A request that shows no tenant.
        #[serde(default)]
        pub missing: RawMissing,
        /// A tenant that is not configured.
        #[serde(default)]
        pub unknown: RawUnknown,
    }

    /// One place to look for the tenant's id.
    #[serde(rename_all = "snake_case")]
    pub enum RawSource {
        /// A request header.
        Header(String),
        /// A property of the proxy or the request (an Envoy attribute), as its path.
        Property(Vec<String>),
        /// A claim of the JWT that Envoy's `jwt_authn` filter has checked (with `payload_in_metadata: payload`).
        JwtClaim(String),
        /// The first URI in the client certificate's subject alternative names.
        PeerUriSan(bool),
    }

    /// A request that shows no tenant.
    #[derive(Default)]
    #[serde(rename_all = "snake_case")]
    pub enum RawMissing {
        /// Refuse it with 401.
        #[default]
        Reject,
        /// Let it through unmetered.
        Pass,
        /// Treat it as this tenant's.
        Tenant(String),
    }

    /// A tenant that is not configured.
    #[derive(Default)]
    #[serde(rename_all = "snake_case")]
    pub enum RawUnknown {
        /// Refuse it with 403.
        #[default]
        Reject,
        /// Give it this plan.
        Plan(String),
    }

    /// Tiers for some models.
    #[serde(deny_unknown_fields)]
    pub struct RawLadder {
        /// Models that start at the first tier, as globs (`*` stands for any text). A tier's own model always belongs to its ladder.
        #[serde(default, rename = "match")]
        pub matches: Vec<String>,
        /// Best first.
        pub tiers: Vec<RawTier>,
    }

    /// A class of service.
    #[serde(deny_unknown_fields)]
    pub struct RawTier {
        /// As it stands in `x-bursar-tier` and in metrics.
        pub name: String,
        /// The model that is put in place of the one that was asked for (the first tier keeps it).
        pub model: String,
        /// Needed for budgets in usd.
        pub price: Option<RawPrice>,
        /// The tier's low-water mark: it serves while less than this fraction of the budget remains.
        pub below: Option<Number>,
        /// All that its model can do besides text. A request that needs more keeps a better tier. Default: all but
        /// `signed_thinking` and `cached_prompt`.
        pub supports: Option<Vec<RawNeed>>,
        /// The longest answer it gives, in tokens: a larger limit in a request is lowered to this.
        pub max_output_tokens: Option<Number>,
        /// What all tenants together may use of it, as the upstream's own quota is. Default: no limit.
        pub capacity: Option<RawCapacity>,
        /// Shorten conversations that are longer than this.
        pub trim: Option<RawTrim>,
    }

    /// How a tier shortens conversations: chat completions and Anthropic's Messages.
    #[serde(deny_unknown_fields)]
    pub struct RawTrim {
        /// The oldest turns go until the prompt is expected to have at most so many tokens. What the application says, and the
        /// last turn, stay.
        pub to_tokens: Number,
    }

    /// This proxy's share of the quota that an upstream has for a model: a token bucket that all tenants share.
    #[serde(deny_unknown_fields)]
    pub struct RawCapacity {
        /// Tokens that come back in each window, evenly.
        pub tokens_per_window: Number,
        /// A duration such as `1m`.
        pub window: String,
        /// Tokens that a full bucket holds. Default: `tokens_per_window`.
        pub burst: Option<Number>,
        /// Its last part is kept for higher priorities.
        #[serde(default)]
        pub reserved: RawReserved,
    }

    /// Fractions of a capacity's `burst` that are kept.
    #[derive(Default)]
    #[serde(deny_unknown_fields)]
    pub struct RawReserved {
        /// Only for critical requests. Default 0.2.
        pub critical: Option<Number>,
        /// Besides, only for standard and critical ones. Default 0.1.
        pub standard: Option<Number>,
    }

    /// How much a tenant's requests matter where a tier's capacity is short.
    #[derive(Default, Copy)]
    #[serde(rename_all = "snake_case")]
    pub enum RawPriority {
        /// May take all of it.
        Critical,
        /// All but what is reserved for `critical`.
        #[default]
        Standard,
        /// What is not reserved at all.
        BestEffort,
    }

    /// What a request may need of a model.
    #[derive(Copy)]
    #[serde(rename_all = "snake_case")]
    pub enum RawNeed {
        /// Calling tools.
        Tools,
        /// Reading more than text: images, files, sound.
        Images,
        /// Keeping its output to a schema.
        StructuredOutput,
        /// Being told to think, or how much.
        Thinking,
        /// Going on with thoughts that were signed for another model.
        SignedThinking,
        /// Going on with a prompt that the provider has cached for another model.
        CachedPrompt,
    }

    /// USD per million tokens.
    #[serde(deny_unknown_fields)]
    pub struct RawPrice {
        /// Input tokens.
        pub input: Number,
        /// Input tokens that the provider had cached. Default: as `input`.
        pub cached_input: Option<Number>,
        /// Input tokens that the provider caches now. Default: as `input`.
        pub cache_write: Option<Number>,
        /// Output tokens, reasoning included.
        pub output: Number,
    }

    /// What a plan or a tenant may use.
    #[derive(Default)]
    #[serde(deny_unknown_fields)]
    pub struct RawLimits {
        /// What may be spent in a window.
        pub budget: Option<RawBudget>,
        /// How fast it may be spent.
        pub bucket: Option<RawBucket>,
        /// What happens when the budget is spent. Default: throttle.
        pub on_exhausted: Option<RawOnExhausted>,
        /// Keep the model that was asked for, whatever remains.
        pub never_downgrade: Option<bool>,
        /// Takes the place of the last tier's `below`.
        pub low_water_mark: Option<Number>,
        /// Rather than to refuse a request for what its answer may cost, limit its output to what the budget still holds, if
        /// that is at least so many tokens.
        pub min_output_tokens: Option<Number>,
        /// How soon answers are to begin. While a tier's do not, requests are sent to the next one whose answers do.
        pub sla: Option<RawSla>,
        /// Let the marks rise where what remains would not last until the window's end.
        pub pace: Option<RawPace>,
        /// Leave a tier only when what remains has risen past its mark by this fraction of the budget, or the window ends.
        pub hysteresis: Option<Number>,
        /// Conversations stay at the tier where they are, within a window of the budget.
        pub sticky: Option<RawSticky>,
        /// Decide, meter and tell, but change and refuse nothing.
        pub shadow: Option<bool>,
        /// Names of the tiers that requests may be sent to. Default: all.
        pub tiers: Option<Vec<String>>,
        /// Name of the last tier that requests may be sent to.
        pub floor: Option<String>,
        /// Low-water marks in the place of the tiers' own `below`, by the tiers' names.
        #[serde(default, deserialize_with = "unique")]
        pub below: BTreeMap<String, Number>,
        /// How much requests matter where a tier's `capacity` is short. Default: `standard`.
        pub priority: Option<RawPriority>,
    }

    /// What may be spent in a window.
    #[derive(Default)]
    #[serde(deny_unknown_fields)]
    pub struct RawBudget {
        /// At the start of each window, in `unit`. Required, in the plan or the tenant.
        pub initial_budget: Option<Number>,
        /// What is counted. Default: `tokens`.
        pub unit: Option<RawUnit>,
        /// `hour`, `day`, `week` (from Monday) or `month` by the UTC calendar, a duration such as `90s`, or `none`. Required,
        /// in the plan or the tenant.
        pub window: Option<String>,
    }

    /// What a budget counts.
    #[derive(Default, Copy)]
    #[serde(rename_all = "snake_case")]
    pub enum RawUnit {
        /// Model tokens, input and output alike.
        #[default]
        Tokens,
        /// US dollars, by the tiers' prices.
        Usd,
    }

    /// How soon answers are to begin.
    #[derive(Default)]
    #[serde(deny_unknown_fields)]
    pub struct RawSla {
        /// Milliseconds within which 95 % of a tier's answers are to begin, from 1 to 131071. Required, in the plan or the tenant.
        pub p95_ms: Option<Number>,
    }

    /// How conversations stay where they are.
    #[derive(Default)]
    #[serde(deny_unknown_fields)]
    pub struct RawSticky {
        /// The request header that names a conversation. Without it: how the conversation begins.
        pub header: Option<String>,
        /// The share of a low-water mark down to which a conversation stays where it is although the mark is crossed.
        /// Default: 0.5.
        pub keep: Option<Number>,
    }

    /// How fast the budget may be spent.
    #[derive(Default)]
    #[serde(deny_unknown_fields)]
    pub struct RawBucket {
        /// Tokens that come back in each window, evenly. Required, in the plan or the tenant.
        pub tokens_per_window: Option<Number>,
        /// A duration such as `1m`. Required, in the plan or the tenant.
        pub window: Option<String>,
        /// Tokens that a full bucket holds. Default: `tokens_per_window`.
        pub burst: Option<Number>,
        /// The last tier serves while less than this fraction of `burst` is left.
        pub low_water_mark: Option<Number>,
    }

    /// How the marks rise.
    #[derive(Default)]
    #[serde(deny_unknown_fields)]
    pub struct RawPace {
        /// No mark rises above this fraction of the budget. Default: 0.9.
        pub cap: Option<Number>,
        /// How long it takes for what was spent to count half, as a duration of at least one second. Default: a
        /// forty-eighth of the budget's window.
        pub half_life: Option<String>,
    }

    /// What happens when the budget is spent.
    #[serde(rename_all = "snake_case", deny_unknown_fields)]
    pub enum RawOnExhausted {
        /// Refuse with 429 until the window's end.
        Throttle,
        /// Go on at the last tier.
        Degrade {
            /// So far beyond the budget, as a fraction of it.
            overdraft: Number,
        },
    }
}

keys! {
    /// A tenant's plan, and settings of its own in the place of the plan's.
    #[derive(Default)]
    #[serde(deny_unknown_fields)]
    pub struct RawTenant {
        /// The plan that it is on.
        pub plan: Option<String>,
        /// As in a plan.
        pub budget: Option<RawBudget>,
        /// As in a plan.
        pub bucket: Option<RawBucket>,
        /// As in a plan.
        pub on_exhausted: Option<RawOnExhausted>,
        /// As in a plan.
        pub never_downgrade: Option<bool>,
        /// As in a plan.
        pub low_water_mark: Option<Number>,
        /// As in a plan.
        pub min_output_tokens: Option<Number>,
        /// As in a plan.
        pub sla: Option<RawSla>,
        /// As in a plan.
        pub pace: Option<RawPace>,
        /// As in a plan.
        pub hysteresis: Option<Number>,
        /// As in a plan.
        pub sticky: Option<RawSticky>,
        /// As in a plan.
        pub shadow: Option<bool>,
        /// As in a plan.
        pub tiers: Option<Vec<String>>,
        /// As in a plan.
        pub floor: Option<String>,
        /// As in a plan.
        #[serde(default, deserialize_with = "unique")]
        pub below: BTreeMap<String, Number>,
        /// As in a plan.
        pub priority: Option<RawPriority>,
    }
}

impl RawTenant {
    /// The tenant's own settings. (serde cannot flatten and refuse unknown keys at once, so they are listed again above.)
    pub fn limits(&self) -> RawLimits {
        RawLimits {
            budget: self.budget.clone(),
            bucket: self.bucket.clone(),
            on_exhausted: self.on_exhausted.clone(),
            never_downgrade: self.never_downgrade,
            low_water_mark: self.low_water_mark,
            min_output_tokens: self.min_output_tokens,
            sla: self.sla.clone(),
            pace: self.pace.clone(),
            hysteresis: self.hysteresis,
            sticky: self.sticky.clone(),
            shadow: self.shadow,
            tiers: self.tiers.clone(),
            floor: self.floor.clone(),
            below: self.below.clone(),
            priority: self.priority,
        }
    }
}

/// A map in which no key may stand twice: of two tenants with one id, neither is meant.
fn unique<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, T>, D::Error> {
    struct Unique<T>(std::marker::PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Unique<T> {
        type Value = BTreeMap<String, T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            let mut twice = None;
            while let Some((key, value)) = access.next_entry::<String, T>()? {
                match map.entry(key) {
                    Entry::Vacant(entry) => {
                        entry.insert(value);
                    }
                    Entry::Occupied(entry) => twice = twice.or_else(|| Some(entry.key().clone())),
                }
            }
            // At the end, so that the place is that of the whole map.
            match twice {
                Some(key) => Err(A::Error::custom(format!("`{key}` stands twice"))),
                None => Ok(map),
            }
        }
    }

    deserializer.deserialize_map(Unique(std::marker::PhantomData))
}
