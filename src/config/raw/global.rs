//! The keys that configure the store that proxies share.

use serde::Deserialize;

use super::super::read::objects;
use crate::body::number::Number;

objects! { RawGlobal, RawRedis, RawRefresh }

/// The store that proxies share.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawGlobal {
    /// How to reach the store, a Redis or a Valkey.
    pub(in crate::config) redis: RawRedis,
    /// A name of your choice: proxies with the same domain share their limits. Default: `default`.
    pub(in crate::config) domain: Option<String>,
    /// How often a proxy reports to the store about a limit that is in use.
    pub(in crate::config) refresh: Option<RawRefresh>,
    /// When other proxies may have what a silent proxy was granted but did not use: at the window's end (`off`), or after a silence of
    /// this duration, which is at least one minute. With a duration, a budget may be overspent by what the silent proxy had used but
    /// not reported. Default: `off`.
    pub(in crate::config) reclaim: Option<String>,
}

/// A Redis or Valkey server.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawRedis {
    /// The name of the Envoy cluster that has the server's address. The cluster's connections must be of Envoy's raw TCP pool.
    pub(in crate::config) cluster: String,
    /// The name of the user with which the proxy logs in. Default: `default` if there is a password; without one, the proxy does not log
    /// in.
    pub(in crate::config) user: Option<String>,
    /// The environment variable of the VM (`vm_config.environment_variables`) that holds the user's password.
    pub(in crate::config) password_env: Option<String>,
}

/// How often a proxy reports to the store about a limit that is in use.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawRefresh {
    /// The shortest time between two reports about a limit, as a duration of at least 100 milliseconds. Default: `1s`.
    pub(in crate::config) least: Option<String>,
    /// The longest time between two reports about a limit, as a duration of at most 10 seconds. Default: `10s`.
    pub(in crate::config) most: Option<String>,
}

/// Which proxies share a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) enum RawScope {
    /// Each proxy counts for itself.
    Proxy,
    /// All proxies with the same `global.domain` share the limit.
    #[default]
    Global,
}

/// What may be spent while the store does not answer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) enum RawUnreachable {
    /// Only what was granted before.
    Deny,
    /// All proxies together may also spend this fraction of what the store last reported as free.
    Local(Number),
}

/// How requests are handled that arrive before the store has granted anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) enum RawCold {
    /// The requests wait for a grant, for at most a quarter of a second; then they are refused.
    #[default]
    Wait,
    /// The requests are refused at once; their clients are asked to retry after a fraction of a second.
    Deny,
    /// In each proxy and window, one reservation is served on credit. After a silence, requests are refused as with `deny`.
    Credit,
}
