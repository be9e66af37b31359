//! The plugin configuration: from JSON to a [`Config`] that cannot be wrong.
//!
//! Two steps. [`raw`] says which keys there are, and [`read`] refuses unknown ones and wrong types; what is
//! left, impossible values and dangling names, is refused here. Either way the error carries the path in
//! the operator's own words. The JSON Schema is made from the same types (`make schema`).

mod capacity;
mod ladders;
mod limits;
mod path;
mod preferences;
mod raw;
mod read;
mod tenants;

use std::borrow::Cow;
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::Duration;

use crate::name::{Name, NameHashing};
use crate::number::Number;
use crate::policy::Limits;
use crate::tenant::{Source, TenantId};
use crate::tier::{Ladder, Price};
use crate::units::Ppm;
use limits::Given;
use path::Path;
use raw::RawConfig;
use read::{Read, Reader};
use tenants::Plans;

/// What the operator wants, checked.
#[derive(Debug)]
pub struct Config {
    /// Hold the request's headers until its body is read, which Envoy must be configured for.
    pub hold_headers: bool,
    /// Longest body that is held, in bytes.
    pub hold_bytes: u64,
    /// What to do when our own state cannot be had.
    pub failure_mode: FailureMode,
    /// Where to look for the tenant, in this order.
    pub sources: Vec<Source>,
    /// What to do with a request that shows no tenant.
    pub missing: Missing,
    /// The plan of tenants that are not configured; `None` refuses them.
    pub unknown: Option<Rc<Plan>>,
    /// Ladders of tiers.
    pub ladders: Vec<Ladder>,
    /// The dearest price of all tiers: what a model on no ladder costs.
    pub unlisted_price: Option<Price>,
    /// The shortest time within which some tenant's answers are to begin; `None` if nobody minds, and nothing is measured.
    pub tightest_sla: Option<Duration>,
    /// Configured tenants.
    tenants: HashMap<TenantId, Rc<Plan>, NameHashing>,
}

/// What to do when our own state cannot be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailureMode {
    /// Let the request through unmetered.
    #[default]
    Allow,
    /// Refuse it with 503.
    Deny,
}

/// What to do with a request that shows no tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Refuse it with 401.
    Reject,
    /// Let it through unmetered.
    Pass,
    /// Treat it as this tenant's.
    Tenant(TenantId),
}

/// Limits under a name.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// The plan's name; empty for a tenant that has only its own limits.
    pub name: Name,
    /// What it grants.
    pub limits: Limits,
}

/// What is wrong with a configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(Box<Wrong>);

/// Apart, so that what goes well hands on no room for it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wrong {
    path: String,
    reason: String,
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Wrong { path, reason } = &*self.0;
        if path.is_empty() {
            f.write_str(reason)
        } else {
            write!(f, "{path}: {reason}")
        }
    }
}

impl std::error::Error for ConfigError {}

type Parsed<T> = Result<T, ConfigError>;

fn wrong<'a, T>(path: &Path<'_>, reason: impl Into<Cow<'a, str>>) -> Parsed<T> {
    Err(error(path, reason.into()))
}

#[cold]
fn error(path: &Path<'_>, reason: Cow<'_, str>) -> ConfigError {
    ConfigError(Box::new(Wrong {
        path: path.told(),
        reason: reason.into_owned(),
    }))
}

impl Config {
    /// Reads a configuration as Envoy hands it over.
    ///
    /// # Errors
    /// The first fault, with its path.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        match bytes.trim_ascii_start().first() {
            None => {
                return wrong(
                    &Path::Top,
                    "the configuration is empty: give it as JSON in a google.protobuf.StringValue",
                );
            }
            Some(b'{') => {}
            Some(_) => {
                return wrong(
                    &Path::Top,
                    "the configuration is not a JSON object: give it as a google.protobuf.StringValue \
                     (a google.protobuf.Struct arrives as protobuf bytes)",
                );
            }
        }
        let mut json = Reader::new(bytes)?;
        let raw = RawConfig::read(&mut json, &Path::Top)?;
        json.end()?;
        Self::check(raw, &json)
    }

    /// `json`: where the plans and the tenants are still to be read, which are many.
    fn check(raw: RawConfig, json: &Reader<'_>) -> Parsed<Self> {
        let ladders = ladders::ladders(raw.tiers, raw.ladders)?;
        let given = Given {
            ladders: &ladders,
            expiry: limits::expiry(raw.reservation_expiry)?,
        };
        let plans = Plans::read(raw.plans, json, &given)?;
        let tenants = tenants::tenants(raw.tenants, json, &plans, &given)?;
        let unknown = plans.unknown(&raw.tenant.unknown)?;
        let missing = tenants::missing(raw.tenant.missing, |id| {
            tenants.contains_key(id) || unknown.is_some()
        })?;
        Ok(Self {
            hold_headers: raw.hold_headers,
            hold_bytes: match raw.hold_bytes {
                None => DEFAULT_HOLD_BYTES,
                Some(bytes) => whole(bytes, &Path::Top.key("hold_bytes"))?.get(),
            },
            failure_mode: match raw.failure_mode {
                raw::RawFailureMode::Allow => FailureMode::Allow,
                raw::RawFailureMode::Deny => FailureMode::Deny,
            },
            sources: tenants::sources(raw.tenant.from)?,
            missing,
            unlisted_price: ladders::dearest(&ladders),
            ladders,
            tightest_sla: tightest_sla(tenants.values().chain(&unknown)),
            unknown,
            tenants,
        })
    }

    /// The configured tenant whose id this is, and its plan.
    #[must_use]
    pub fn tenant(&self, id: &[u8]) -> Option<(&TenantId, &Rc<Plan>)> {
        self.tenants.get_key_value(std::str::from_utf8(id).ok()?)
    }

    /// The plan of a configured tenant.
    #[must_use]
    pub fn plan(&self, tenant: &TenantId) -> Option<&Rc<Plan>> {
        self.tenants.get(tenant.as_str())
    }

    /// The name of a model, if a tier of this configuration has it, so that it may be a metric's label.
    #[must_use]
    pub fn model(&self, model: &str) -> Option<&Name> {
        let tiers = self.ladders.iter().flat_map(|ladder| &ladder.tiers);
        let mut models = tiers.map(|tier| &tier.model);
        models.find(|name| **name == *model)
    }
}

/// Of plans that may be downgraded: for others nothing follows from it.
fn tightest_sla<'a>(plans: impl Iterator<Item = &'a Rc<Plan>>) -> Option<Duration> {
    let movable = plans.filter(|plan| !plan.limits.never_downgrade);
    movable
        .filter_map(|plan| plan.limits.sla)
        .map(|sla| sla.p95)
        .min()
}

/// Under Envoy's default limit of 1 MiB for what a filter may hold, with room for what a rewrite adds.
const DEFAULT_HOLD_BYTES: u64 = 960 * 1024;

fn whole(number: Number, path: &Path<'_>) -> Parsed<NonZeroU64> {
    match number.whole().and_then(NonZeroU64::new) {
        Some(whole) => Ok(whole),
        None => wrong(path, "must be a whole number of at least 1"),
    }
}

/// As [`whole`], where there is one.
fn any_whole(number: Option<Number>, path: &Path<'_>) -> Parsed<Option<u64>> {
    match number {
        Some(number) => whole(number, path).map(|whole| Some(whole.get())),
        None => Ok(None),
    }
}

/// As [`mark`], where there is one.
fn any_mark(number: Option<Number>, path: &Path<'_>) -> Parsed<Option<Ppm>> {
    match number {
        Some(number) => mark(number, path).map(Some),
        None => Ok(None),
    }
}

/// A fraction above 0 and up to 1.
fn mark(number: Number, path: &Path<'_>) -> Parsed<Ppm> {
    match number.millionths() {
        Some(ppm @ 1..=1_000_000) => Ok(Ppm(ppm)),
        _ => wrong(
            path,
            "must be a fraction above 0 and at most 1, with at most six decimals",
        ),
    }
}

#[cfg(test)]
mod tests;
