//! The plugin configuration: from JSON to a [`Config`] that cannot be wrong.
//!
//! This takes two steps. [`raw`] declares the keys, and [`read`] refuses unknown keys and wrong types; then this module refuses
//! impossible values, and names of plans, tiers or tenants that do not exist. In both steps the error carries the path in the operator's
//! own words. The JSON Schema is made from the types of [`raw`] (`make schema`).

mod bucket;
mod capacity;
mod checks;
mod global;
mod ladders;
mod limits;
mod parents;
mod path;
mod period;
mod place;
mod preferences;
mod price;
mod raw;
mod read;
mod stacked;
mod subjects;
mod tenants;
mod trials;
mod warnings;

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use crate::base::name::{Name, NameHashing};
use crate::plan::Limits;
use crate::published::header_group::HeaderGroups;
use crate::published::log_field::LogFields;
use crate::tenant::{Source, TenantId};
use crate::tier::{Ladder, Price};
use checks::{any_whole, whole};
pub use global::{Global, Login};
use limits::Given;
use path::Path;
use raw::RawConfig;
use tenants::Plans;

/// The checked configuration.
#[derive(Debug)]
pub struct Config {
    /// Whether to hold the request's headers until its body is read. Envoy must be configured for it.
    pub hold_headers: bool,
    /// Longest body that is held, in bytes.
    pub hold_bytes: u64,
    /// Most bytes of bodies that wait in a worker's memory, all requests together.
    pub held_bytes_per_worker: u64,
    /// What to do when bursar's own state is unavailable.
    pub failure_mode: FailureMode,
    /// Globs of the hosts whose requests are processed; `None`: all.
    pub hosts: Option<Vec<String>>,
    /// Globs of unmetered paths whose requests pass; `None`: requests to every unmetered path pass.
    pub unmetered_allow: Option<Vec<String>>,
    /// Where to look for the tenant's id, in this order.
    pub sources: Vec<Source>,
    /// What to do with a request that carries no tenant id.
    pub missing: Missing,
    /// The plan of tenants that are not configured; `None` refuses them.
    pub unknown: Option<Rc<Plan>>,
    /// Where a request may name the plan of a tenant that is not configured; empty: it cannot name one.
    pub plan_sources: Vec<Source>,
    /// Ladders of tiers.
    pub ladders: Vec<Ladder>,
    /// The dearest price of all tiers: what a model on no ladder is charged.
    pub unlisted_price: Option<Price>,
    /// Whether callers send their own API keys to the provider of at least one tier.
    pub own_credentials: bool,
    /// The strictest SLA of all plans. `None`: no plan has an SLA, so no latency is measured.
    pub tightest_sla: Option<Duration>,
    /// The store that proxies share, if one is configured.
    pub global: Option<Rc<Global>>,
    /// Fields of the access log that are also published as properties of their own.
    pub log_fields: LogFields,
    /// The groups of headers that responses carry.
    pub headers: HeaderGroups,
    /// Whether this plugin answers every request with the operators' report, instead of filtering.
    pub is_report: bool,
    /// The path at which callers can read their own limits.
    pub self_service: Option<String>,
    /// How many tenants, in the configuration's order, have gauges from the start, even before their first request.
    gauged: usize,
    /// The kinds of subjects that limits can count beside the tenant.
    pub subjects: Vec<SubjectRules>,
    /// The plans that a request may name; empty where no request may name one.
    named_plans: HashMap<Name, Rc<Plan>, NameHashing>,
    /// Configured tenants.
    tenants: HashMap<TenantId, Member, NameHashing>,
    /// The configured tenants with their plans, in the configuration's order.
    listed: Vec<(TenantId, Rc<Plan>)>,
}

/// What to do when bursar's own state is unavailable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailureMode {
    /// Let the request through unmetered.
    #[default]
    Allow,
    /// Refuse the request with 503.
    Deny,
}

/// What to do with a request that carries no tenant id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Refuse the request with 401.
    Reject,
    /// Let the request through unmetered.
    Pass,
    /// Treat the request as one of this tenant.
    Tenant(TenantId),
}

/// How subjects of a kind are found, such as a tenant's users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectRules {
    /// The kind's name.
    pub name: Name,
    /// Where to look for a subject's id, in this order.
    pub sources: Vec<Source>,
    /// Whether a request that names no such subject is refused, where a limit counts these subjects.
    pub is_required: bool,
}

/// Limits under a name.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// The plan's name; empty for a tenant that has only its own limits.
    pub name: Name,
    /// What the plan grants.
    pub limits: Limits,
    /// Plans that are tried on the same requests. At most [`TRIALS`](trials::TRIALS); none of them tries further plans.
    pub trials: Vec<Rc<Self>>,
}

/// A configured tenant.
#[derive(Clone, Debug)]
pub struct Member {
    /// The plan that limits the tenant.
    pub plan: Rc<Plan>,
    /// The tenant above it, whose limits count this tenant's requests, too.
    pub parent: Option<Rc<Parent>>,
}

/// A tenant above others: its limits count their requests, too.
#[derive(Debug)]
pub struct Parent {
    /// The id of the tenant, under which its record is stored.
    pub id: TenantId,
    /// The plan that limits this tenant.
    pub plan: Rc<Plan>,
    /// The tenant above this one, if any. A chain has at most [`LEVELS`] parents.
    pub parent: Option<Rc<Self>>,
}

/// The most parents that a tenant has, counting the parents of its parents.
pub const LEVELS: usize = 4;

/// A fault of a configuration: its path and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(Box<Details>);

/// Boxed, so that results without an error stay small.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Details {
    path: String,
    reason: String,
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Details { path, reason } = &*self.0;
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
    fault(path.text(), reason.into_owned())
}

fn fault(path: String, reason: String) -> ConfigError {
    ConfigError(Box::new(Details { path, reason }))
}

/// The configuration's bytes as text, if they start like a JSON object.
fn text(bytes: &[u8]) -> Parsed<&str> {
    let reason = match bytes.trim_ascii_start().first() {
        None => "the configuration is empty: give it as JSON in a google.protobuf.StringValue",
        Some(b'{') => match std::str::from_utf8(bytes) {
            Ok(text) => return Ok(text),
            Err(error) => {
                let good = error.valid_up_to();
                return wrong(
                    &Path::Top,
                    format!("the configuration is not UTF-8 from byte {good} on"),
                );
            }
        },
        Some(_) => {
            "the configuration is not a JSON object: give it as a google.protobuf.StringValue \
             (a google.protobuf.Struct arrives as protobuf bytes)"
        }
    };
    wrong(&Path::Top, reason)
}

impl Config {
    /// Reads a configuration from the bytes that Envoy passes to the plugin.
    ///
    /// # Errors
    /// The first fault, with its path.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let text = text(bytes)?;
        Self::check(read::read(text)?, text)
    }

    /// `text`: the whole configuration, from which plans and tenants are then read one by one.
    fn check(raw: RawConfig<'_>, text: &str) -> Parsed<Self> {
        let ladders = ladders::ladders(raw.tiers, raw.ladders, raw.credentials)?;
        let global = global::global(raw.global)?;
        let subjects = subjects::subjects(raw.subjects)?;
        let given = Given {
            ladders: &ladders,
            subjects: &subjects,
            global: global.as_ref(),
            expiry: limits::expiry(raw.reservation_expiry)?,
        };
        let plans = Plans::read(raw.plans, text, &given)?;
        let (tenants, listed) = tenants::tenants(raw.tenants, text, &plans, &given)?;
        let unknown = plans.unknown(&raw.tenant.unknown)?;
        let plan_from = raw.plan_from;
        let plan_sources = plan_from.map(|raw| tenants::sources(raw, &Path::Top.key("plan_from")));
        let plan_sources = plan_sources.transpose()?.unwrap_or_default();
        let named_plans = match plan_sources.is_empty() {
            true => HashMap::default(),
            false => plans.into_named(),
        };
        let missing = tenants::missing(raw.tenant.missing, |id| {
            tenants.contains_key(id) || unknown.is_some()
        })?;
        Ok(Self {
            hold_headers: raw.hold_headers,
            hold_bytes: match raw.hold_bytes {
                None => DEFAULT_HOLD_BYTES,
                Some(bytes) => whole(bytes, &Path::Top.key("hold_bytes"))?.get(),
            },
            held_bytes_per_worker: any_whole(
                raw.held_bytes_per_worker,
                &Path::Top.key("held_bytes_per_worker"),
            )?
            .unwrap_or(HELD_BYTES_PER_WORKER),
            failure_mode: match raw.failure_mode {
                raw::RawFailureMode::Allow => FailureMode::Allow,
                raw::RawFailureMode::Deny => FailureMode::Deny,
            },
            hosts: match raw.hosts {
                Some(hosts) if hosts.is_empty() => {
                    return wrong(
                        &Path::Top.key("hosts"),
                        "names no host, so that nothing would be metered",
                    );
                }
                hosts => {
                    hosts.map(|hosts| hosts.iter().map(|host| host.to_ascii_lowercase()).collect())
                }
            },
            unmetered_allow: match raw.unmetered {
                raw::RawUnmetered::Pass if !raw.unmetered_allow.is_empty() => {
                    return wrong(
                        &Path::Top.key("unmetered_allow"),
                        "has a meaning only with `\"unmetered\": \"reject\"`",
                    );
                }
                raw::RawUnmetered::Pass => None,
                raw::RawUnmetered::Reject => Some(raw.unmetered_allow),
            },
            sources: tenants::tenant_sources(raw.tenant.from)?,
            missing,
            unlisted_price: ladders::dearest(&ladders),
            own_credentials: ladders
                .iter()
                .flat_map(|ladder| &ladder.tiers)
                .any(|tier| tier.own_credentials),
            ladders,
            tightest_sla: tightest_sla(
                tenants
                    .values()
                    .map(|member| &member.plan)
                    .chain(&unknown)
                    .chain(named_plans.values()),
            ),
            plan_sources,
            subjects,
            named_plans,
            unknown,
            tenants,
            global: global.map(Rc::new),
            listed,
            gauged: gauged(raw.metrics)?,
            is_report: raw.serve == Some(raw::RawServe::Report),
            self_service: raw.self_service.map(checks::own_path).transpose()?,
            log_fields: raw.log_fields.into_iter().collect(),
            headers: raw
                .headers
                .map_or(HeaderGroups::ALL, |groups| groups.into_iter().collect()),
        })
    }

    /// The configured tenant with this id.
    #[must_use]
    pub fn tenant(&self, id: &[u8]) -> Option<(&TenantId, &Member)> {
        self.tenants.get_key_value(std::str::from_utf8(id).ok()?)
    }

    /// The plan that a request names for a tenant that is not configured.
    #[must_use]
    pub fn named_plan(&self, name: &[u8]) -> Option<&Rc<Plan>> {
        self.named_plans.get(std::str::from_utf8(name).ok()?)
    }

    /// Configured tenants, in the configuration's order.
    #[must_use]
    pub fn listed(&self) -> &[(TenantId, Rc<Plan>)] {
        &self.listed
    }

    /// How many tenants, in the configuration's order, have gauges from the start, even before their first request.
    #[must_use]
    pub fn gauged(&self) -> usize {
        self.gauged
    }

    /// How many tenants are configured.
    #[must_use]
    pub fn tenants(&self) -> usize {
        self.tenants.len()
    }

    /// The plan of a configured tenant.
    #[must_use]
    pub fn plan(&self, tenant: &TenantId) -> Option<&Rc<Plan>> {
        let member = self.tenants.get(tenant.as_str())?;
        Some(&member.plan)
    }

    /// The model's name, if some tier has this model: only such names become labels of metrics.
    #[must_use]
    pub fn model(&self, model: &str) -> Option<&Name> {
        let tiers = self.ladders.iter().flat_map(|ladder| &ladder.tiers);
        let mut models = tiers.map(|tier| &tier.model);
        models.find(|name| name.eq_ignore_ascii_case(model))
    }
}

/// How many tenants, in the configuration's order, have gauges from the start.
fn gauged(raw: Option<raw::RawMetrics>) -> Parsed<usize> {
    let Some(tenants) = raw.and_then(|raw| raw.tenants) else {
        return Ok(GAUGED);
    };
    let whole = tenants
        .whole()
        .and_then(|whole| usize::try_from(whole).ok());
    let path = Path::Top.key("metrics");
    whole.map_or_else(|| wrong(&path.key("tenants"), "must be a whole number"), Ok)
}

/// The default number of tenants with gauges from the start: they make some ten thousand Prometheus series in each proxy.
const GAUGED: usize = 1_000;

/// The strictest SLA of the plans that allow downgrades; for other plans an SLA has no effect.
fn tightest_sla<'a>(plans: impl Iterator<Item = &'a Rc<Plan>>) -> Option<Duration> {
    let movable = plans.filter(|plan| !plan.limits.never_downgrade);
    movable
        .filter_map(|plan| plan.limits.sla)
        .map(|sla| sla.p95)
        .min()
}

/// The default of `held_bytes_per_worker`: a worker of Envoy can have thousands of concurrent requests.
const HELD_BYTES_PER_WORKER: u64 = 64 * 1024 * 1024;

/// The default of `hold_bytes`: below Envoy's default limit of 1 MiB for buffered bodies, with room for what a rewrite adds.
const DEFAULT_HOLD_BYTES: u64 = 960 * 1024;

#[cfg(test)]
mod tests;
