//! The keys of plans and tenants.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::read::{objects, unique};
use super::tenant::{GUARANTEED, PARENT, PLAN, WAS};
use super::{RawCold, RawScope, RawUnreachable};
use crate::body::number::Number;

/// The keys that both a plan and a tenant may set.
macro_rules! limits {
    ($($(#[doc = $about:literal])* $(#[serde($($how:tt)*)])? $key:ident: $type:ty,)*) => {
        /// The limits of a plan or of a tenant.
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
            /// The name of the tenant's plan.
            plan: Option<String>,
            /// The name of the tenant's parent: another tenant, whose limits also count this tenant's requests. A tenant can have up to
            /// four tenants above it.
            parent: Option<String>,
            /// The name that the tenant had when its account was opened; what was spent under that name stays charged to the tenant. Keep
            /// this key for as long as the tenant exists; no other tenant may have that name.
            was: Option<String>,
            /// The share of each of the parent's budgets that is guaranteed to this tenant, as a fraction above 0. The shares of all
            /// children of a parent add up to at most 1. While the tenant does not need its share, a part of it is lent to the other
            /// children.
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

/// A tenant's keys that refer to its plan, to its parent, or to itself under another name.
#[derive(Debug, Default)]
pub(in crate::config) struct Names {
    /// The name of the tenant's plan.
    pub(in crate::config) plan: Option<String>,
    /// The name of the tenant's parent.
    pub(in crate::config) parent: Option<String>,
    /// The share of the parent's budgets that is guaranteed to the tenant.
    pub(in crate::config) guaranteed: Option<Number>,
    /// The name that the tenant had when its account was opened.
    pub(in crate::config) was: Option<String>,
}

/// A tenant's value, or else its plan's.
trait OrOf {
    fn or_of(self, plan: &Self) -> Self;
}

/// Types whose value at a tenant replaces the value of its plan as a whole; nothing is merged.
macro_rules! whole {
    ($($type:ty),*) => {$(
        impl OrOf for Option<$type> {
            fn or_of(self, plan: &Self) -> Self {
                self.or_else(|| plan.clone())
            }
        }
    )*};
}

/// Objects of which a tenant may set only some keys; the other keys keep the values of its plan.
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

/// A tenant's limit changes its plan's limit of the same name, key by key; limits with other names are added.
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
    /// How fast tokens may be used, or how fast requests may come.
    bucket: Option<RawBucket>,
    /// Further limits, all of which apply in addition to the budget and the bucket. A tenant's limit changes its plan's limit of the same
    /// name.
    #[serde(default)]
    limits: Vec<RawLimit>,
    /// The most requests that may be in flight at a time. Default: no limit.
    concurrency: Option<Number>,
    /// What budgets reserve for a request until it is settled. Default: `ceiling`.
    hold: Option<RawHold>,
    /// Whether proxies share budgets and buckets, or each proxy has its own. Default: `global` where the configuration has `global`, else
    /// `proxy`.
    scope: Option<RawScope>,
    /// How much of global budgets, and of the rates of global buckets, may be used while the store does not answer, in addition to what
    /// this proxy was granted. Default: `deny`.
    when_unreachable: Option<RawUnreachable>,
    /// How a tenant's requests are handled while this proxy holds nothing of a shared limit: before the store's first answer in a window, and
    /// after a silence. Default: `wait`.
    cold: Option<RawCold>,
    /// What happens when the budget is spent. Default: throttle.
    on_exhausted: Option<RawOnExhausted>,
    /// The models that requests may name, as globs (`*` stands for any text). Requests for other models are refused with 403. The models
    /// of lower tiers need not be listed. Default: all.
    models: Option<Vec<String>>,
    /// Keep the requested model, however little of the budget remains.
    never_downgrade: Option<bool>,
    /// Replaces the last tier's `below`.
    low_water_mark: Option<Number>,
    /// If the budget no longer covers the longest possible answer, limit the answer to what the budget covers instead of refusing the
    /// request, provided that the budget covers at least this many tokens.
    min_output_tokens: Option<Number>,
    /// How much a token of each kind counts in budgets and buckets of tokens.
    weights: Option<RawWeights>,
    /// The most that one request may cost, estimated from its prompt and its output limit. The output of a request that may cost more is
    /// limited so that it fits, if that leaves at least `min_output_tokens`; else the request is refused. Default: no limit.
    max_request: Option<RawMaximum>,
    /// How soon answers must begin. While a tier is slower, requests are sent to the next tier that is fast enough.
    sla: Option<RawSla>,
    /// Raise the low-water marks while the remaining budget would not last until the window's end.
    pace: Option<RawPace>,
    /// Once a low-water mark has lowered the tier, the tier rises again only when the remaining budget exceeds the mark by this fraction of
    /// the budget, or when the window ends.
    hysteresis: Option<Number>,
    /// Keep each conversation at its tier within one window of the budget.
    sticky: Option<RawSticky>,
    /// With `true`, requests are decided, metered and reported, but none is changed or refused. With a list of up to four other plans,
    /// these plans are tried on the same requests: what each of them would have done is reported, while this plan decides. Default:
    /// `false`.
    shadow: Option<RawShadow>,
    /// The names of the tiers that requests may be sent to. Default: all.
    tiers: Option<Vec<String>>,
    /// The name of the lowest tier that requests may be sent to.
    floor: Option<String>,
    /// Low-water marks by the tiers' names, which replace the tiers' own `below`.
    #[serde(default, deserialize_with = "unique")]
    below: Marks,
    /// The priority of the requests when a tier's `capacity` is short. Default: `standard`.
    priority: Option<RawPriority>,
}

/// What is tried without being enforced.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged, expecting = "true, false, or the names of plans")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) enum RawShadow {
    /// Whether the plan itself is only tried.
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
    /// What the budget counts. Default: `tokens`.
    pub(in crate::config) unit: Option<RawUnit>,
    /// When the budget starts anew: by the calendar (`hour`, `day`, `week`, `month`), after a duration such as `90s`, never (`none`), or
    /// after a time without requests (`{"idle": "2h"}`). Required, in the plan or the tenant.
    pub(in crate::config) window: Option<RawWindow>,
    /// The time zone of the calendar, by its name in the IANA database, such as `Europe/Berlin`. With a window of an `hour`, only a zone
    /// whose hours do not start with UTC's is accepted. Default: UTC.
    pub(in crate::config) timezone: Option<String>,
    /// The day with which a `week` begins. Default: `monday`.
    pub(in crate::config) week_start: Option<RawWeekday>,
    /// The most of a window's unspent budget that is added to the next window, as a fraction of `initial_budget`. Default: nothing.
    pub(in crate::config) rollover: Option<Number>,
    /// A raise of the budget that ends by itself.
    pub(in crate::config) extra: Option<RawExtra>,
}

/// A raise of a budget that ends by itself.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawExtra {
    /// How much is added to the budget, in the budget's unit. Required, in the plan or the tenant.
    pub(in crate::config) amount: Option<Number>,
    /// When the raise ends, in the form of RFC 3339, such as `2026-12-01T00:00:00Z`. Required, in the plan or the tenant.
    pub(in crate::config) until: Option<String>,
}

/// When a budget starts anew.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged, expecting = "a text such as \"day\", or {\"idle\": \"2h\"}")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) enum RawWindow {
    /// By the calendar, after a duration, or never.
    Text(String),
    /// When no request has come for a while.
    Idle(RawIdle),
}

/// A window that ends when no request has come for a while.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawIdle {
    /// How long no request must have come, as a duration.
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
    /// The limit's name, as it appears in `x-bursar-limit` and in metrics: 1 to 64 letters, digits, `.`, `_`, `:` and `-`. The limit's
    /// spend is stored under this name.
    pub(in crate::config) name: String,
    /// Remove the plan's limit of this name; `budget`, `bucket` and `concurrency` are also such names. Default: `false`.
    pub(in crate::config) off: Option<bool>,
    /// Whether proxies share the limit, or each proxy has its own. Default: the plan's `scope`.
    pub(in crate::config) scope: Option<RawScope>,
    /// The kind of subject that the limit counts, by its name in `subjects`: with a kind `user`, each of the tenant's users has such a
    /// limit. Default: the tenant.
    pub(in crate::config) per: Option<String>,
    /// The serving models to which the limit applies, as globs. When such a limit is spent, requests go to a lower tier, and are refused
    /// only if there is none. Default: all.
    pub(in crate::config) models: Option<Vec<String>>,
    /// Whether callers of the tenants below this one see how much of the limit is left. Default: `false`.
    pub(in crate::config) visible: Option<bool>,
    /// What may be spent in a window.
    pub(in crate::config) budget: Option<RawBudget>,
    /// How fast tokens may be used, or how fast requests may come.
    pub(in crate::config) bucket: Option<RawBucket>,
}

/// How much a token of each kind counts, as numbers of at most six decimals.
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
    /// Input tokens that the provider caches now and keeps for an hour. Default: 1.
    pub(in crate::config) cache_write_1h: Option<Number>,
    /// Output tokens, reasoning included. Default: 1.
    pub(in crate::config) output: Option<Number>,
}

/// The most that one request may cost.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) enum RawMaximum {
    /// The most in US dollars, at the price of the tier that serves.
    Usd(Number),
    /// The most in model tokens, input and output alike.
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
    /// US dollars, at the tiers' prices.
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

/// How conversations are kept at their tier.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawSticky {
    /// The request header that names a conversation. A conversation that no header names is recognised by its beginning.
    pub(in crate::config) header: Option<String>,
    /// After a low-water mark is crossed, a conversation stays at its tier until the remaining budget falls to this fraction of the mark.
    /// Default: 0.5.
    pub(in crate::config) keep: Option<Number>,
}

/// How fast tokens may be used, or how fast requests may come.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawBucket {
    /// Tokens that are refilled in each window, evenly. Either this key or `requests_per_window` must be set, in the plan or the tenant.
    pub(in crate::config) tokens_per_window: Option<Number>,
    /// Requests that are refilled in each window, evenly. Such a bucket has no `low_water_mark`.
    pub(in crate::config) requests_per_window: Option<Number>,
    /// The time in which these tokens or requests are refilled, as a duration such as `1m`. Required, in the plan or the tenant.
    pub(in crate::config) window: Option<String>,
    /// Tokens or requests that a full bucket holds. Default: as many as are refilled in a window.
    pub(in crate::config) burst: Option<Number>,
    /// The last tier serves while less than this fraction of `burst` is left.
    pub(in crate::config) low_water_mark: Option<Number>,
}

/// How low-water marks rise.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawPace {
    /// No mark rises above this fraction of the budget. Default: 0.9.
    pub(in crate::config) cap: Option<Number>,
    /// The half-life of spend, as a duration of at least one second: what was spent that long ago counts half. Default: 1/48 of the
    /// budget's window.
    pub(in crate::config) half_life: Option<String>,
}

/// How much of a budget is held for a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) enum RawHold {
    /// The most that the request may cost. No budget is overspent, as long as estimates hold.
    #[default]
    Ceiling,
    /// What the request is likely to cost, by the largest of the tenant's last requests to the model. More requests can be in flight at a
    /// time, but a budget may be overspent by what some requests use beyond that.
    Likely,
}

/// What happens when the budget is spent.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) enum RawOnExhausted {
    /// Refuse requests with 429 until the window's end.
    Throttle,
    /// Serve requests at the last tier, until spend exceeds the budget by `overdraft`, a fraction of the budget.
    Degrade(RawDegrade),
}

/// How far a spent budget may be overdrawn.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawDegrade {
    /// How much may be spent beyond the budget, as a fraction of the budget.
    pub(in crate::config) overdraft: Number,
}

/// The priority of a tenant's requests when a tier's capacity is short.
#[derive(Clone, Default, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) enum RawPriority {
    /// Requests may take all of the capacity.
    Critical,
    /// Requests may take all but the part that is reserved for `critical`.
    #[default]
    Standard,
    /// Requests may take only the part that is reserved for nobody.
    BestEffort,
}
