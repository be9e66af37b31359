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
    /// Hold the request's headers until its body is read. Set this to true only where Envoy's
    /// `allow_on_headers_stop_iteration` is true; otherwise every request with a body hangs.
    #[serde(default)]
    pub(super) hold_headers: bool,
    /// The longest body, in bytes, that is held together with its headers; longer bodies are read while they pass. Keep this
    /// below the listener's `per_connection_buffer_limit_bytes` (Envoy's default is 1 MiB) and below HTTP/2's
    /// `initial_stream_window_size`; otherwise Envoy answers 413 to requests with longer bodies. Default: 983040.
    pub(super) hold_bytes: Option<Number>,
    /// What to do when bursar's own state is unavailable. Default: `allow`.
    #[serde(default)]
    pub(super) failure_mode: RawFailureMode,
    /// How long an unsettled reservation is kept, as a duration of at least one second. Choose a duration longer than the
    /// slowest answer takes. Default: `30m`.
    pub(super) reservation_expiry: Option<String>,
    /// How the tenant of a request is identified.
    #[serde(default)]
    pub(super) tenant: RawTenantRules,
    /// The kinds of subjects that limits can count besides tenants, such as users or runs. A limit's `per` refers to a kind by its
    /// name. There can be at most 8 kinds.
    #[serde(default, deserialize_with = "unique")]
    pub(super) subjects: BTreeMap<String, RawSubject>,
    /// The hosts whose requests are processed, as globs of `:authority` without its port; requests to other hosts pass untouched.
    /// Default: all.
    pub(super) hosts: Option<Vec<String>>,
    /// What to do with requests to endpoints that are not metered. Default: `pass`.
    #[serde(default)]
    pub(super) unmetered: RawUnmetered,
    /// Paths whose requests pass even if `unmetered` is `reject`, as globs of the path without its query.
    #[serde(default)]
    pub(super) unmetered_allow: Vec<String>,
    /// The most bytes that the waiting bodies of all requests together may take in a worker's memory. When that much is in
    /// use, a request is decided by the part of its body that has been read. Default: 67108864.
    pub(super) held_bytes_per_worker: Option<Number>,
    /// Where a request may name the plan of a tenant that is not configured; the sources are as in `tenant.from`. If no source
    /// names a plan of `plans`, `tenant.unknown` decides.
    pub(super) plan_from: Option<Vec<RawSource>>,
    /// Whose API key the provider receives. After the provider has refused a request, its tier is avoided for all tenants (`shared`)
    /// or for all callers with the same key (`own`). Default: `shared`.
    #[serde(default)]
    pub(super) credentials: RawCredentials,
    /// One ladder of tiers, best first.
    pub(super) tiers: Option<Vec<RawTier>>,
    /// Several ladders, instead of `tiers`.
    pub(super) ladders: Option<Vec<RawLadder>>,
    /// The plans, by name: each is a set of limits that tenants can share.
    #[serde(default, borrow)]
    #[cfg_attr(
        all(test, not(target_arch = "wasm32")),
        schemars(with = "std::collections::BTreeMap<String, RawLimits>")
    )]
    pub(super) plans: Deferred<'a>,
    /// The store in which proxies share budgets and buckets, so that these outlive every proxy. Without a store, each proxy counts for
    /// itself.
    pub(super) global: Option<RawGlobal>,
    /// Fields of the access log that are also published as separate properties, such as `wasm.bursar_tenant`; the property
    /// `wasm.bursar` has all fields in any case. For each separate property a request costs one more call to the proxy. Default: none.
    #[serde(default)]
    pub(super) log_fields: Vec<LogField>,
    /// The groups of response headers about limits and decisions that clients receive. If a request was changed, the response has
    /// the `x-bursar-*` headers in any case. Default: all.
    pub(super) headers: Option<Vec<HeaderGroup>>,
    /// The path at which callers can read their own limits, such as `/bursar/v1/budget`. Default: none.
    pub(super) self_service: Option<String>,
    /// Answer every request with the operators' report, instead of filtering. This is meant for a separate listener with the same
    /// `vm_config`, at an address that only operators can reach. Default: requests are filtered.
    pub(super) serve: Option<RawServe>,
    /// Which metrics the proxy has.
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
    /// Refuse the request with 503.
    Deny,
}

/// Whose API key the provider receives.
#[derive(Clone, Copy, Default, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) enum RawCredentials {
    /// The operator's key, which the proxy adds to each request.
    #[default]
    Shared,
    /// The key that each caller sends with its request.
    Own,
}

/// What to do with requests to endpoints that are not metered.
#[derive(Clone, Copy, Default, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(super) enum RawUnmetered {
    /// Let the requests through, uncharged.
    #[default]
    Pass,
    /// Refuse the requests with 403, except for lists of models, health checks, preflights, token counts and the paths of
    /// `unmetered_allow`.
    Reject,
}

/// What a listener serves instead of filtering.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(super) enum RawServe {
    /// The operators' report: as an HTML page, and as `report.json`.
    Report,
}

/// Which metrics the proxy has.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(super) struct RawMetrics {
    /// How many configured tenants, in the configuration's order, have gauges of their limits from the start; these gauges are at most
    /// a second old. All other tenants get their gauges with their first request; those are at most two minutes old. Default: 1000.
    pub(super) tenants: Option<Number>,
}

/// How the tenant of a request is identified.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(super) struct RawTenantRules {
    /// Where to look for the tenant's id; the first source that yields an id wins. Default: the header `x-tenant-id`.
    pub(super) from: Option<Vec<RawSource>>,
    /// What to do with a request that names no tenant. Default: `reject`.
    #[serde(default)]
    pub(super) missing: RawMissing,
    /// What to do with a tenant that is not configured. Default: `reject`.
    #[serde(default)]
    pub(super) unknown: RawUnknown,
}

/// How subjects of one kind, such as users or runs, are identified.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(super) struct RawSubject {
    /// Where to look for the subject's id; the first source that yields an id wins.
    pub(super) from: Vec<RawSource>,
    /// What to do with a request that names no such subject, if a limit counts these subjects. Default: `pass`.
    #[serde(default)]
    pub(super) missing: RawMissingSubject,
}

/// What to do with a request that does not name the subject that a limit counts.
#[derive(Clone, Copy, Default, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(super) enum RawMissingSubject {
    /// The limit does not apply to the request.
    #[default]
    Pass,
    /// Refuse the request with 401.
    Reject,
}

/// A source in a request: where to look for an id, or for a plan's name.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(super) enum RawSource {
    /// A request header.
    Header(String),
    /// A property of the proxy or the request (an Envoy attribute), given by its path.
    Property(Vec<String>),
    /// A claim of the JWT that Envoy's `jwt_authn` filter has checked (with `payload_in_metadata: payload`).
    JwtClaim(String),
    /// The first URI in the client certificate's subject alternative names.
    PeerUriSan(bool),
}

/// What to do with a request that names no tenant.
#[derive(Clone, Default, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(super) enum RawMissing {
    /// Refuse the request with 401.
    #[default]
    Reject,
    /// Let the request through unmetered.
    Pass,
    /// Treat the request as one of this tenant.
    Tenant(String),
}

/// What to do with a tenant that is not configured.
#[derive(Clone, Default, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(super) enum RawUnknown {
    /// Refuse the tenant's requests with 403.
    #[default]
    Reject,
    /// Give the tenant this plan.
    Plan(String),
}
