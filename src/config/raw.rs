//! The configuration as it is written: its keys and their types, and nothing more.
//!
//! The doc comments are the descriptions in the JSON Schema. The structs derive `Deserialize` as functions of their own
//! (`remote = "Self"`): [`objects`] calls them, so that an object is never read from a list.

mod global;
mod ladders;
mod limits;
mod tenant;

use std::collections::BTreeMap;

use serde::Deserialize;

pub(super) use global::{RawCold, RawGlobal, RawRedis, RawRefresh, RawScope, RawUnreachable};
pub(super) use ladders::{
    RawCapacity, RawCapacityFrom, RawLadder, RawNeed, RawPrice, RawStep, RawTier,
};
pub(super) use limits::{
    RawBucket, RawBudget, RawExtra, RawHold, RawLimit, RawLimits, RawMaximum, RawOnExhausted,
    RawPace, RawPriority, RawShadow, RawSla, RawSticky, RawTenant, RawUnit, RawWeekday, RawWeights,
    RawWindow,
};

use super::read::{Deferred, objects, unique};
use crate::body::number::Number;
use crate::published::header_group::HeaderGroup;
use crate::published::log_field::LogField;

objects! { RawTenantRules, RawSubject, RawMetrics }

/// Plugin configuration of bursar.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(super) struct RawConfig<'a> {
    /// Hold the request's headers until its body is read. True only where Envoy's
    /// `allow_on_headers_stop_iteration` is true; otherwise every request with a body hangs.
    #[serde(default)]
    pub(super) hold_headers: bool,
    /// Longest body in bytes that is held with its headers; longer ones pass while they are read. Keep it under the
    /// listener's `per_connection_buffer_limit_bytes` (Envoy's default is 1 MiB) and under an HTTP/2
    /// `initial_stream_window_size`, or Envoy answers 413 to longer ones. Default 983040.
    pub(super) hold_bytes: Option<Number>,
    /// What to do when bursar's own state is unavailable. Default: `allow`.
    #[serde(default)]
    pub(super) failure_mode: RawFailureMode,
    /// How long an unsettled reservation is kept, as a duration of at least one second: longer than the slowest answer. Default
    /// `30m`.
    pub(super) reservation_expiry: Option<String>,
    /// How a request's tenant is found.
    #[serde(default)]
    pub(super) tenant: RawTenantRules,
    /// Whom limits can count beside the tenant, by names that a limit's `per` refers to. At most 8.
    #[serde(default, deserialize_with = "unique")]
    pub(super) subjects: BTreeMap<String, RawSubject>,
    /// Hosts whose requests are processed, as globs of `:authority` without its port; requests to others pass untouched. Default:
    /// all.
    pub(super) hosts: Option<Vec<String>>,
    /// What to do with requests to endpoints that are not metered. Default: `pass`.
    #[serde(default)]
    pub(super) unmetered: RawUnmetered,
    /// Paths that pass although `unmetered` is `reject`, as globs, without their query.
    #[serde(default)]
    pub(super) unmetered_allow: Vec<String>,
    /// Most bytes of waiting bodies in a worker's memory, all requests together. Beyond it, a request is decided by the part of its
    /// body that was read. Default 67108864.
    pub(super) held_bytes_per_worker: Option<Number>,
    /// Where to look for the name of the plan of a tenant that is not configured, as in `tenant.from`. Where none is found that `plans`
    /// has, `tenant.unknown` says.
    pub(super) plan_from: Option<Vec<RawSource>>,
    /// Whose key the provider is shown: after its refusal a tier is avoided for all tenants, or for those with the same key. Default:
    /// `shared`.
    #[serde(default)]
    pub(super) credentials: RawCredentials,
    /// One ladder of tiers, best first.
    pub(super) tiers: Option<Vec<RawTier>>,
    /// Several ladders, instead of `tiers`.
    pub(super) ladders: Option<Vec<RawLadder>>,
    /// Plans: limits under a name.
    #[serde(default, borrow)]
    #[cfg_attr(
        all(test, not(target_arch = "wasm32")),
        schemars(with = "std::collections::BTreeMap<String, RawLimits>")
    )]
    pub(super) plans: Deferred<'a>,
    /// The store that proxies share, so that a budget or a bucket is one for all of them and outlives each. Without it each proxy counts for itself.
    pub(super) global: Option<RawGlobal>,
    /// Fields of the access log that become properties of their own (`wasm.bursar_tenant`), besides `wasm.bursar`, which has all of
    /// them. Each costs a call to the proxy. Default: none.
    #[serde(default)]
    pub(super) log_fields: Vec<LogField>,
    /// The headers about limits and decisions that answers carry. Those of a downgrade stay. Default: all.
    pub(super) headers: Option<Vec<HeaderGroup>>,
    /// The path at which callers can read their own limits, such as `/bursar/v1/budget`. Default: none.
    pub(super) self_service: Option<String>,
    /// Answers every request with the operators' report, in place of filtering: for a listener of its own with the same `vm_config`,
    /// at an address that only operators reach. Default: filters.
    pub(super) serve: Option<RawServe>,
    /// What the proxy's metrics show.
    pub(super) metrics: Option<RawMetrics>,
    /// Configured tenants, by id.
    #[serde(default, borrow)]
    #[cfg_attr(
        all(test, not(target_arch = "wasm32")),
        schemars(with = "std::collections::BTreeMap<String, limits::TenantSchema>")
    )]
    pub(super) tenants: Deferred<'a>,
}

/// What to do when bursar's own state is unavailable.
#[derive(Clone, Default, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(super) enum RawFailureMode {
    /// Let the request through unmetered.
    #[default]
    Allow,
    /// Refuse it with 503.
    Deny,
}

/// Whose key the provider is shown.
#[derive(Clone, Copy, Default, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) enum RawCredentials {
    /// The operator's, which the proxy puts in.
    #[default]
    Shared,
    /// Each caller's own.
    Own,
}

/// What to do with requests to endpoints that are not metered.
#[derive(Clone, Copy, Default, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(super) enum RawUnmetered {
    /// Let them through, uncharged.
    #[default]
    Pass,
    /// Refuse them with 403, but for lists of models, health checks, preflights, counts of tokens and `unmetered_allow`.
    Reject,
}

/// What a listener is for, other than to filter.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(super) enum RawServe {
    /// The page, and `report.json`.
    Report,
}

/// What the proxy's metrics show.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(super) struct RawMetrics {
    /// How many of the first configured tenants have gauges of their limits from the start, at most a second behind. The others get
    /// theirs with their first request, at most two minutes behind. Default 1000.
    pub(super) tenants: Option<Number>,
}

/// How a request's tenant is found.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(super) struct RawTenantRules {
    /// Where to look for the tenant's id; the first place that has one wins. Default: the header `x-tenant-id`.
    pub(super) from: Option<Vec<RawSource>>,
    /// What to do with a request without a tenant. Default: `reject`.
    #[serde(default)]
    pub(super) missing: RawMissing,
    /// What to do with a tenant that is not configured. Default: `reject`.
    #[serde(default)]
    pub(super) unknown: RawUnknown,
}

/// How a request's user, run or the like is found.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(super) struct RawSubject {
    /// Where to look for it; the first place that has something wins.
    pub(super) from: Vec<RawSource>,
    /// What to do with a request that shows none, where a limit counts them. Default: `pass`.
    #[serde(default)]
    pub(super) missing: RawMissingSubject,
}

/// What to do with a request that does not show whom a limit counts.
#[derive(Clone, Copy, Default, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(super) enum RawMissingSubject {
    /// The limit does not apply to it.
    #[default]
    Pass,
    /// Refuse it with 401.
    Reject,
}

/// One place to look for the tenant's id.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(super) enum RawSource {
    /// A request header.
    Header(String),
    /// A property of the proxy or the request (an Envoy attribute), as its path.
    Property(Vec<String>),
    /// A claim of the JWT that Envoy's `jwt_authn` filter has checked (with `payload_in_metadata: payload`).
    JwtClaim(String),
    /// The first URI in the client certificate's subject alternative names.
    PeerUriSan(bool),
}

/// What to do with a request without a tenant.
#[derive(Clone, Default, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(super) enum RawMissing {
    /// Refuse it with 401.
    #[default]
    Reject,
    /// Let it through unmetered.
    Pass,
    /// Treat it as a request of this tenant.
    Tenant(String),
}

/// What to do with a tenant that is not configured.
#[derive(Clone, Default, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(super) enum RawUnknown {
    /// Refuse it with 403.
    #[default]
    Reject,
    /// Give it this plan.
    Plan(String),
}
