//! The store that proxies share, as it is written.

use serde::Deserialize;

use super::super::read::objects;
use crate::body::number::Number;

objects! { RawGlobal, RawRedis, RawRefresh }

/// The store that proxies share.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawGlobal {
    /// A Redis or a Valkey.
    pub(in crate::config) redis: RawRedis,
    /// The proxies with the same word share their limits. Default: `default`.
    pub(in crate::config) domain: Option<String>,
    /// How often a proxy speaks of a limit in use.
    pub(in crate::config) refresh: Option<RawRefresh>,
    /// When others may have what a proxy was granted and fell silent about: `off`, at the window's end; or after so long, as a duration
    /// of at least one minute. Then a budget may be overspent by what a proxy had used without a word. Default: `off`.
    pub(in crate::config) reclaim: Option<String>,
}

/// A Redis or a Valkey.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawRedis {
    /// The proxy's cluster with its address, whose connections are of Envoy's raw TCP pool.
    pub(in crate::config) cluster: String,
    /// Its user. Default: `default` where there is a password, else nobody logs in.
    pub(in crate::config) user: Option<String>,
    /// The variable of the VM's environment (`vm_config.environment_variables`) that has the user's password.
    pub(in crate::config) password_env: Option<String>,
}

/// How often a proxy speaks of a limit in use.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) struct RawRefresh {
    /// At the most so often, as a duration of at least 100 milliseconds. Default: `1s`.
    pub(in crate::config) least: Option<String>,
    /// At least so often, as a duration of at most 10 seconds. Default: `10s`.
    pub(in crate::config) most: Option<String>,
}

/// For whom a budget is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) enum RawScope {
    /// Each proxy has its own.
    Proxy,
    /// All proxies share it.
    #[default]
    Global,
}

/// What may be spent while the store does not answer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) enum RawUnreachable {
    /// Nothing beside what was granted.
    Deny,
    /// All proxies together may also spend this fraction of what the store last reported as free.
    Local(Number),
}

/// What becomes of requests that come before the store has granted anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(all(test, not(target_arch = "wasm32")), derive(schemars::JsonSchema))]
pub(in crate::config) enum RawCold {
    /// They wait for a quarter of a second at the most, and are refused then.
    #[default]
    Wait,
    /// They are refused, with a wait of a fraction of a second.
    Deny,
    /// One reservation is served on credit, in each proxy and window.
    Credit,
}
