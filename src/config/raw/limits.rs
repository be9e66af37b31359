//! What a plan and a tenant may set.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::read::{objects, unique};
use super::tenant::{GUARANTEED, PARENT, PLAN, WAS};
use super::{RawCold, RawScope, RawUnreachable};
use crate::body::number::Number;

/// The keys that both a plan and a tenant may set.
macro_rules! limits {
    ($($(#[doc = $about:literal])* $(#[serde($($how:tt)*)])? $key:ident: $type:ty,)*) => {
        /// What a plan or a tenant may use.
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields, remote = "Self")]
        #[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
        pub(in crate::config) struct RawLimits {
            $($(#[doc = $about])* $(#[serde($($how)*)])? pub(in crate::config) $key: $type,)*
        }

        /// A tenant's plan, and its own settings, which replace the plan's.
        #[cfg(all(test, not(target_arch = "wasm32")))]
        #[derive(Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields, rename = "RawTenant")]
        #[expect(dead_code, reason = "it is there for the schema")]
        pub(in crate::config) struct TenantSchema {
            /// The plan that it is on.
            plan: Option<String>,
            /// The tenant whose limits count this one's requests, too. Up to four stand above each other.
            parent: Option<String>,
            /// The name that the tenant had when its account was opened: what was spent under that name stays charged to it. Keep this key for
            /// as long as the tenant exists; no other tenant may have that name.
            was: Option<String>,
            /// The share of each of the parent's budgets that is this tenant's, as a fraction above 0. Those of all children of a parent
            /// come to at most 1. Part of it is lent to the others while it is not needed.
            guaranteed: Option<Number>,
            $($(#[doc = $about])* $(#[serde($($how)*)])? $key: $type,)*
        }

        /// The keys of a tenant.
        pub(super) const OF_TENANTS: &[&str] = &[PLAN, PARENT, WAS, GUARANTEED, $(stringify!($key)),*];

        impl RawLimits {
            /// These settings, with the plan's where a value is missing.
            pub(in crate::config) fn or(self, plan: &Self) -> Self {
                Self { $($key: self.$key.or_of(&plan.$key),)* }
            }
        }
    };
}

/// A tenant's plan, and its own settings, which replace the plan's.
#[derive(Debug, Default)]
pub(in crate::config) struct RawTenant {
    pub(in crate::config) names: Names,
    pub(in crate::config) own: RawLimits,
}

/// What a tenant has to do with others.
#[derive(Debug, Default)]
pub(in crate::config) struct Names {
    /// Its plan's.
    pub(in crate::config) plan: Option<String>,
    /// Its parent's.
    pub(in crate::config) parent: Option<String>,
    /// What that guarantees it.
    pub(in crate::config) guaranteed: Option<Number>,
    /// Its own former one.
    pub(in crate::config) was: Option<String>,
}

/// A tenant's value, or else its plan's.
trait OrOf {
    fn or_of(self, plan: &Self) -> Self;
}

/// Types of which a tenant's value replaces its plan's as a whole; nothing is merged.
macro_rules! whole {
    ($($type:ty),*) => {$(
        impl OrOf for Option<$type> {
            fn or_of(self, plan: &Self) -> Self {
                self.or_else(|| plan.clone())
            }
        }
    )*};
}

/// Objects of which a tenant may set a part.
macro_rules! by_key {
    ($($type:ident { $($key:ident),* })*) => {$(
        impl OrOf for Option<$type> {
            fn or_of(self, plan: &Self) -> Self {
                match (self, plan) {
                    (Some(own), Some(plan)) => Some($type { $($key: own.$key.or_else(|| plan.$key.clone())),* }),
                    (own, plan) => own.or_else(|| plan.clone()),
                }
            }
        }
    )*};
}

whole!(
    bool,
    Number,
    String,
    Vec<String>,
    RawCold,
    RawHold,
    RawOnExhausted,
    RawPriority,
    RawScope,
    RawShadow,
    RawUnreachable,
    RawWeekday,
    RawWindow,
    RawMaximum
);

by_key! {
    RawBudget { initial_budget, unit, window, timezone, week_start, rollover, extra }
    RawExtra { amount, until }
    RawBucket { tokens_per_window, requests_per_window, window, burst, low_water_mark }
    RawSla { p95_ms }
    RawPace { cap, half_life }
    RawSticky { header, keep }
    RawWeights { input, cached_input, cache_write, cache_write_1h, output }
}

/// A tenant's own limits change the plan's of the same name, key by key, and others are added.
impl OrOf for Vec<RawLimit> {
    fn or_of(mut self, plan: &Self) -> Self {
        let all = plan.iter().map(|plan| {
            let own = self.iter().position(|own| own.name == plan.name);
            let own = own.map(|own| self.remove(own));
            own.map_or_else(|| plan.clone(), |own| own.or(plan))
        });
        let mut all: Self = all.collect();
        all.append(&mut self);
        all
    }
}

impl RawLimit {
    fn or(self, plan: &Self) -> Self {
        Self {
            name: self.name,
            off: self.off.or(plan.off),
            scope: self.scope.or(plan.scope),
            per: self.per.or_of(&plan.per),
            models: self.models.or_of(&plan.models),
            visible: self.visible.or(plan.visible),
            budget: self.budget.or_of(&plan.budget),
            bucket: self.bucket.or_of(&plan.bucket),
        }
    }
}

/// Low-water marks by the names of tiers.
pub(in crate::config) type Marks = BTreeMap<String, Number>;

impl OrOf for Marks {
    fn or_of(mut self, plan: &Self) -> Self {
        for (tier, mark) in plan {
            self.entry(tier.clone()).or_insert(*mark);
        }
        self
    }
}

objects! { RawIdle, RawExtra, RawBudget, RawSla, RawSticky, RawLimit, RawBucket, RawPace, RawWeights, RawDegrade }

limits! {
    /// What may be spent in a window.
    budget: Option<RawBudget>,
    /// How fast it may be spent.
    bucket: Option<RawBucket>,
    /// Further limits, all of which hold beside the budget and the bucket. A tenant's change its plan's of the same name.
    #[serde(default)]
    limits: Vec<RawLimit>,
    /// Most requests at a time. Default: no limit.
    concurrency: Option<Number>,
    /// What budgets reserve for a request until it is settled. Default: `ceiling`.
    hold: Option<RawHold>,
    /// Whether budgets and buckets are one for all proxies, or one for each. Default: `global` where the configuration has `global`, else `proxy`.
    scope: Option<RawScope>,
    /// What may be spent of global budgets, and of the rates of global buckets, while the store does not answer, beside what this proxy has been granted. Default: `deny`.
    when_unreachable: Option<RawUnreachable>,
    /// What becomes of requests of a tenant that come before the store has granted this proxy anything in the window. Default: `wait`.
    cold: Option<RawCold>,
    /// What happens when the budget is spent. Default: throttle.
    on_exhausted: Option<RawOnExhausted>,
    /// The models that requests may name, as globs (`*` stands for any text). Others are refused with 403. Lower tiers serve whatever
    /// models they have. Default: all.
    models: Option<Vec<String>>,
    /// Keep the requested model, whatever remains.
    never_downgrade: Option<bool>,
    /// Replaces the last tier's `below`.
    low_water_mark: Option<Number>,
    /// If the budget no longer covers the longest possible answer, limit the output to what it covers instead of refusing the
    /// request, provided that is at least this many tokens.
    min_output_tokens: Option<Number>,
    /// How much tokens count in budgets and buckets of tokens, by their kind.
    weights: Option<RawWeights>,
    /// The most that one request may cost, estimated from its prompt and its output limit. The output of a request that may cost more is
    /// limited so that it fits, if that leaves at least `min_output_tokens`; else the request is refused. Default: no limit.
    max_request: Option<RawMaximum>,
    /// How soon answers must begin. While a tier is slower, requests are sent to the next tier that is fast enough.
    sla: Option<RawSla>,
    /// Raise the marks while the remaining budget would not last until the window's end.
    pace: Option<RawPace>,
    /// Return to a better tier only when the remaining budget exceeds the mark by this fraction of the budget, or the window ends.
    hysteresis: Option<Number>,
    /// Conversations stay at the tier where they are, within a window of the budget.
    sticky: Option<RawSticky>,
    /// Decide, meter and report, but change and refuse nothing. Or names of up to four plans that are tried on the requests beside
    /// this one, which decides: what each of them would have done is reported. Default: `false`.
    shadow: Option<RawShadow>,
    /// Names of the tiers that requests may be sent to. Default: all.
    tiers: Option<Vec<String>>,
    /// Name of the last tier that requests may be sent to.
    floor: Option<String>,
    /// Low-water marks by the tiers' names, which replace the tiers' own `below`.
    #[serde(default, deserialize_with = "unique")]
    below: Marks,
    /// Priority of the requests when a tier's `capacity` is short. Default: `standard`.
    priority: Option<RawPriority>,
}

/// What is only tried.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged, expecting = "true, false, or the names of plans")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) enum RawShadow {
    /// The plan itself, or nothing.
    Itself(bool),
    /// Other plans, by their names.
    Plans(Vec<String>),
}

/// What may be spent in a window.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawBudget {
    /// The budget of each window, in `unit`. Required, in the plan or the tenant.
    pub(in crate::config) initial_budget: Option<Number>,
    /// What is counted. Default: `tokens`.
    pub(in crate::config) unit: Option<RawUnit>,
    /// `hour`, `day`, `week` or `month` by the calendar, a duration such as `90s`, or `none`; or `{"idle": "2h"}`, which ends when no
    /// request has come for so long. Required, in the plan or the tenant.
    pub(in crate::config) window: Option<RawWindow>,
    /// The time zone of the calendar, by its name in the IANA database, such as `Europe/Berlin`. For an `hour` only where hours do
    /// not start with those of UTC. Default: UTC.
    pub(in crate::config) timezone: Option<String>,
    /// The first day of a `week`. Default: `monday`.
    pub(in crate::config) week_start: Option<RawWeekday>,
    /// What was not spent in a window is added to the next one, up to this fraction of `initial_budget`. Default: nothing.
    pub(in crate::config) rollover: Option<Number>,
    /// A raise that ends by itself.
    pub(in crate::config) extra: Option<RawExtra>,
}

/// More to spend for a while.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawExtra {
    /// In the budget's unit. Required, in the plan or the tenant.
    pub(in crate::config) amount: Option<Number>,
    /// When it ends, by RFC 3339, such as `2026-12-01T00:00:00Z`. Required, in the plan or the tenant.
    pub(in crate::config) until: Option<String>,
}

/// When a budget starts anew.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged, expecting = "a text such as \"day\", or {\"idle\": \"2h\"}")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) enum RawWindow {
    /// By the calendar, or every so often.
    Text(String),
    /// When no request has come for a while.
    Idle(RawIdle),
}

/// A window that ends when no request has come for a while.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawIdle {
    /// For how long, as a duration.
    pub(in crate::config) idle: String,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) enum RawWeekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

/// A limit with a name. It has exactly one of `budget` and `bucket`, unless it is off.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawLimit {
    /// As it stands in `x-bursar-limit` and in metrics: 1 to 64 letters, digits, `.`, `_`, `:` and `-`. Spend is stored under it.
    pub(in crate::config) name: String,
    /// Take the plan's limit of this name away; `budget`, `bucket` and `concurrency` are names, too. Default: `false`.
    pub(in crate::config) off: Option<bool>,
    /// Whether the limit is one for all proxies, or one for each. Default: the plan's.
    pub(in crate::config) scope: Option<RawScope>,
    /// Whom it counts, by a name of `subjects`: each of the tenant's users, say, has such a limit. Default: the tenant.
    pub(in crate::config) per: Option<String>,
    /// The models that serve for which it holds, as globs. One that is spent sends requests to a lower tier, and refuses them
    /// only where there is none. Default: all.
    pub(in crate::config) models: Option<Vec<String>>,
    /// Show callers of the tenants below this one how it stands. Default: `false`.
    pub(in crate::config) visible: Option<bool>,
    /// What may be spent in a window.
    pub(in crate::config) budget: Option<RawBudget>,
    /// How fast tokens may be used, or how fast requests may come.
    pub(in crate::config) bucket: Option<RawBucket>,
}

/// How much a token counts, by its kind; numbers of at most six decimals.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawWeights {
    /// Input tokens. Default: 1.
    pub(in crate::config) input: Option<Number>,
    /// Input tokens that the provider had cached. Default: 1.
    pub(in crate::config) cached_input: Option<Number>,
    /// Input tokens that the provider caches now. Default: 1.
    pub(in crate::config) cache_write: Option<Number>,
    /// Those of them that it keeps for an hour. Default: 1.
    pub(in crate::config) cache_write_1h: Option<Number>,
    /// Output tokens, reasoning included. Default: 1.
    pub(in crate::config) output: Option<Number>,
}

/// The most that one request may cost.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) enum RawMaximum {
    /// US dollars, by the price of the tier that serves.
    Usd(Number),
    /// Model tokens, input and output alike.
    Tokens(Number),
}

/// What a budget counts.
#[derive(Clone, Default, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) enum RawUnit {
    /// Model tokens, input and output alike.
    #[default]
    Tokens,
    /// US dollars, by the tiers' prices.
    Usd,
}

/// How soon answers must begin.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawSla {
    /// Milliseconds within which 95 % of a tier's answers must begin, from 1 to 131071. Required, in the plan or the tenant.
    pub(in crate::config) p95_ms: Option<Number>,
}

/// How conversations stay at their tier.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawSticky {
    /// The request header that names a conversation. Without it, a conversation is recognised by its beginning.
    pub(in crate::config) header: Option<String>,
    /// The share of a low-water mark down to which a conversation stays at its tier although the mark is crossed. Default: 0.5.
    pub(in crate::config) keep: Option<Number>,
}

/// How fast the budget may be spent.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawBucket {
    /// Tokens that are refilled in each window, evenly. This or `requests_per_window` is required, in the plan or the tenant.
    pub(in crate::config) tokens_per_window: Option<Number>,
    /// Requests that are refilled in each window, evenly. Such a bucket has no `low_water_mark`.
    pub(in crate::config) requests_per_window: Option<Number>,
    /// A duration such as `1m`. Required, in the plan or the tenant.
    pub(in crate::config) window: Option<String>,
    /// Tokens or requests that a full bucket holds. Default: as many as come back in a window.
    pub(in crate::config) burst: Option<Number>,
    /// The last tier serves while less than this fraction of `burst` is left.
    pub(in crate::config) low_water_mark: Option<Number>,
}

/// How the marks rise.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawPace {
    /// No mark rises above this fraction of the budget. Default: 0.9.
    pub(in crate::config) cap: Option<Number>,
    /// Half-life of what was spent, as a duration of at least one second: after that time it counts half. Default: 1/48 of the
    /// budget's window.
    pub(in crate::config) half_life: Option<String>,
}

/// What budgets hold for a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) enum RawHold {
    /// What it may cost: no budget is overspent, as long as estimates hold.
    #[default]
    Ceiling,
    /// What it is likely to cost, by the largest of the tenant's last requests to the model: more requests at a time, but a budget may be
    /// overspent by what some use beyond it.
    Likely,
}

/// What happens when the budget is spent.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) enum RawOnExhausted {
    /// Refuse with 429 until the window's end.
    Throttle,
    /// Serve at the last tier, up to `overdraft` (a fraction of the budget) beyond it.
    Degrade(RawDegrade),
}

/// How far a spent budget may be overdrawn.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawDegrade {
    /// How far beyond the budget, as a fraction of it.
    pub(in crate::config) overdraft: Number,
}

/// Priority of a tenant's requests when a tier's capacity is short.
#[derive(Clone, Default, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) enum RawPriority {
    /// May take all of it.
    Critical,
    /// All but what is reserved for `critical`.
    #[default]
    Standard,
    /// What is not reserved at all.
    BestEffort,
}
