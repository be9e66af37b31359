//! The plugin configuration: from JSON to a [`Config`] that cannot be wrong.
//!
//! Two steps. [`raw`] says which keys there are, and serde refuses unknown ones and wrong types; what is
//! left, impossible values and dangling names, is refused here. Either way the error carries the path in
//! the operator's own words. The JSON Schema is made from the same types (`make schema`).

pub mod raw;

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::Duration;

use crate::bucket::Quota;
use crate::ledger::{Budget, DEFAULT_EXPIRY, Unit};
use crate::number::Number;
use crate::policy::{Limits, OnExhausted};
use crate::tenant::{Source, TenantId};
use crate::tier::{Ladder, Price, Tier};
use crate::units::Ppm;
use crate::window::{Period, duration};
use raw::{
    RawBucket, RawBudget, RawConfig, RawLadder, RawLimits, RawOnExhausted, RawPrice, RawTier,
};

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
    /// Configured tenants.
    tenants: HashMap<String, Rc<Plan>>,
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
    pub name: String,
    /// What it grants.
    pub limits: Limits,
}

/// What is wrong with a configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    path: String,
    reason: String,
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, reason } = self;
        if path.is_empty() {
            f.write_str(reason)
        } else {
            write!(f, "{path}: {reason}")
        }
    }
}

impl std::error::Error for ConfigError {}

type Parsed<T> = Result<T, ConfigError>;

fn wrong<T>(path: impl Into<String>, reason: impl Into<String>) -> Parsed<T> {
    Err(ConfigError {
        path: path.into(),
        reason: reason.into(),
    })
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
                    "",
                    "the configuration is empty: give it as JSON in a google.protobuf.StringValue",
                );
            }
            Some(b'{') => {}
            Some(_) => {
                return wrong(
                    "",
                    "the configuration is not a JSON object: give it as a google.protobuf.StringValue \
                     (a google.protobuf.Struct arrives as protobuf bytes)",
                );
            }
        }
        let mut input = serde_json::Deserializer::from_slice(bytes);
        let raw: RawConfig = serde_path_to_error::deserialize(&mut input).map_err(|error| {
            let path = error.path().to_string();
            let path = if path == "." { String::new() } else { path };
            ConfigError {
                path,
                reason: error.into_inner().to_string(),
            }
        })?;
        if let Err(error) = input.end() {
            return wrong("", error.to_string());
        }
        Self::check(raw)
    }

    fn check(raw: RawConfig) -> Parsed<Self> {
        let ladders = ladders(raw.tiers, raw.ladders)?;
        let expiry = expiry(raw.reservation_expiry)?;
        let given = Given {
            ladders: &ladders,
            expiry,
        };
        let plans = raw
            .plans
            .iter()
            .map(|(name, plan)| {
                let limits =
                    merge(RawLimits::default(), plan).check(&format!("plans.{name}"), &given)?;
                Ok((
                    name.as_str(),
                    (
                        plan,
                        Rc::new(Plan {
                            name: name.clone(),
                            limits,
                        }),
                    ),
                ))
            })
            .collect::<Parsed<HashMap<_, _>>>()?;
        let find = |name: &str, path: String| match plans.get(name) {
            Some((raw, plan)) => Ok((*raw, Rc::clone(plan))),
            None => wrong(path, format!("no plan is called `{name}`")),
        };
        let mut tenants = HashMap::with_capacity(raw.tenants.len());
        for (id, tenant) in &raw.tenants {
            let path = format!("tenants.{id}");
            if TenantId::parse(id.as_bytes()).is_none() {
                return wrong(
                    path,
                    "a tenant id is 1 to 256 bytes without control characters",
                );
            }
            let base = match &tenant.plan {
                Some(name) => Some(find(name, format!("{path}.plan"))?),
                None => None,
            };
            let own = tenant.limits();
            let plan = match base {
                Some((_, plan)) if own == RawLimits::default() => plan,
                base => {
                    let (raw_plan, name) = base.map_or_else(Default::default, |(raw, plan)| {
                        (raw.clone(), plan.name.clone())
                    });
                    let limits = merge(raw_plan, &own).check(&path, &given)?;
                    Rc::new(Plan { name, limits })
                }
            };
            tenants.insert(id.clone(), plan);
        }
        let unknown = match &raw.tenant.unknown {
            raw::RawUnknown::Reject => None,
            raw::RawUnknown::Plan(name) => Some(find(name, "tenant.unknown.plan".to_owned())?.1),
        };
        let missing = match raw.tenant.missing {
            raw::RawMissing::Reject => Missing::Reject,
            raw::RawMissing::Pass => Missing::Pass,
            raw::RawMissing::Tenant(id) => {
                let known = tenants.contains_key(&id) || unknown.is_some();
                match TenantId::parse(id.as_bytes()).filter(|_| known) {
                    Some(id) => Missing::Tenant(id),
                    None => {
                        return wrong(
                            "tenant.missing.tenant",
                            format!("no tenant is called `{id}`"),
                        );
                    }
                }
            }
        };
        Ok(Self {
            hold_headers: raw.hold_headers,
            hold_bytes: match raw.hold_bytes {
                None => DEFAULT_HOLD_BYTES,
                Some(bytes) => whole(bytes, "hold_bytes")?.get(),
            },
            failure_mode: match raw.failure_mode {
                raw::RawFailureMode::Allow => FailureMode::Allow,
                raw::RawFailureMode::Deny => FailureMode::Deny,
            },
            sources: sources(raw.tenant.from)?,
            missing,
            unknown,
            unlisted_price: dearest(&ladders),
            ladders,
            tenants,
        })
    }

    /// The plan of a configured tenant.
    #[must_use]
    pub fn plan(&self, tenant: &TenantId) -> Option<&Rc<Plan>> {
        self.tenants.get(tenant.as_str())
    }

    /// Whether a tier of this configuration has the model, so that it may be a metric's label.
    #[must_use]
    pub fn names_model(&self, model: &str) -> bool {
        self.ladders
            .iter()
            .flat_map(|ladder| &ladder.tiers)
            .any(|tier| tier.model == model)
    }
}

/// What all limits are checked against.
struct Given<'a> {
    ladders: &'a [Ladder],
    expiry: Duration,
}

fn expiry(raw: Option<String>) -> Parsed<Duration> {
    let Some(text) = raw else {
        return Ok(DEFAULT_EXPIRY);
    };
    let length = duration(&text).map(|nanos| Duration::from_nanos(nanos.get()));
    match length.filter(|&length| length >= Duration::from_secs(1)) {
        Some(length) => Ok(length),
        None => wrong(
            "reservation_expiry",
            format!("`{text}` is no duration of at least one second, such as \"30m\""),
        ),
    }
}

/// Under Envoy's default limit of 1 MiB for what a filter may hold, with room for what a rewrite adds.
const DEFAULT_HOLD_BYTES: u64 = 960 * 1024;

/// Names of tiers stand in headers and labels.
const TIER_NAME: &str =
    "a tier's name is 1 to 64 of a-z, A-Z, 0-9, `-`, `_` and `.`, and not `unlisted`";

fn ladders(tiers: Option<Vec<RawTier>>, ladders: Option<Vec<RawLadder>>) -> Parsed<Vec<Ladder>> {
    let raw = match (tiers, ladders) {
        (Some(_), Some(_)) => return wrong("tiers", "give either `tiers` or `ladders`, not both"),
        (Some(tiers), None) => vec![(
            "tiers".to_owned(),
            RawLadder {
                matches: Vec::new(),
                tiers,
            },
        )],
        (None, ladders) => {
            let path = |(index, ladder)| (format!("ladders[{index}].tiers"), ladder);
            ladders
                .unwrap_or_default()
                .into_iter()
                .enumerate()
                .map(path)
                .collect()
        }
    };
    let mut models: HashMap<String, String> = HashMap::new();
    raw.into_iter()
        .map(|(path, ladder)| {
            let tiers = check_tiers(ladder.tiers, &path)?;
            for (index, tier) in tiers.iter().enumerate() {
                let here = format!("{path}[{index}].model");
                if let Some(there) = models.insert(tier.model.clone(), here.clone()) {
                    return wrong(
                        here,
                        format!("`{}` is also {there}: a model has one place", tier.model),
                    );
                }
            }
            Ok(Ladder {
                matches: ladder.matches,
                tiers,
            })
        })
        .collect()
}

fn check_tiers(raw: Vec<RawTier>, path: &str) -> Parsed<Vec<Tier>> {
    if raw.is_empty() {
        return wrong(path, "a ladder has at least one tier");
    }
    let mut tiers: Vec<Tier> = Vec::with_capacity(raw.len());
    let mut above: Option<Ppm> = None;
    for (index, tier) in raw.into_iter().enumerate() {
        let path = format!("{path}[{index}]");
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !(1..=64).contains(&tier.name.len())
            || !tier.name.chars().all(is_plain)
            || tier.name == "unlisted"
        {
            return wrong(format!("{path}.name"), TIER_NAME);
        }
        if tiers.iter().any(|other| other.name == tier.name) {
            return wrong(
                format!("{path}.name"),
                format!("two tiers are called `{}`", tier.name),
            );
        }
        if !(1..=256).contains(&tier.model.len())
            || !tier.model.chars().all(|c| c.is_ascii_graphic())
        {
            return wrong(
                format!("{path}.model"),
                "a model's name is 1 to 256 visible ASCII characters",
            );
        }
        let below = tier
            .below
            .map(|below| mark(below, &format!("{path}.below")))
            .transpose()?;
        match (index, below, above) {
            (0, Some(_), _) => {
                return wrong(
                    format!("{path}.below"),
                    "the first tier needs no mark: it serves until another one does",
                );
            }
            (_, Some(below), Some(above)) if below >= above => {
                return wrong(
                    format!("{path}.below"),
                    "must be less than the mark of the tier before",
                );
            }
            _ => above = below.or(above),
        }
        let price = tier
            .price
            .map(|raw| price(&raw, &format!("{path}.price")))
            .transpose()?;
        tiers.push(Tier {
            name: tier.name,
            model: tier.model,
            price,
            below,
        });
    }
    Ok(tiers)
}

/// USD per million tokens, as USD micros per million tokens.
fn price(raw: &RawPrice, path: &str) -> Parsed<Price> {
    let part = |number: Number, key: &str| match number.millionths() {
        Some(micros) => Ok(micros),
        None => wrong(
            format!("{path}.{key}"),
            "must be an amount with at most six decimals",
        ),
    };
    let input = part(raw.input, "input")?;
    Ok(Price {
        input,
        cached_input: raw
            .cached_input
            .map_or(Ok(input), |number| part(number, "cached_input"))?,
        output: part(raw.output, "output")?,
    })
}

fn dearest(ladders: &[Ladder]) -> Option<Price> {
    ladders
        .iter()
        .flat_map(|ladder| &ladder.tiers)
        .filter_map(|tier| tier.price)
        .reduce(Price::max)
}

/// A plan's settings with a tenant's own in the place of those that it gives, key by key.
fn merge(plan: RawLimits, own: &RawLimits) -> RawLimits {
    let own = own.clone();
    RawLimits {
        budget: both(plan.budget, own.budget, |plan, own| RawBudget {
            initial_budget: own.initial_budget.or(plan.initial_budget),
            unit: own.unit.or(plan.unit),
            window: own.window.or(plan.window),
        }),
        bucket: both(plan.bucket, own.bucket, |plan, own| RawBucket {
            tokens_per_window: own.tokens_per_window.or(plan.tokens_per_window),
            window: own.window.or(plan.window),
            burst: own.burst.or(plan.burst),
            low_water_mark: own.low_water_mark.or(plan.low_water_mark),
        }),
        on_exhausted: own.on_exhausted.or(plan.on_exhausted),
        never_downgrade: own.never_downgrade.or(plan.never_downgrade),
        low_water_mark: own.low_water_mark.or(plan.low_water_mark),
    }
}

fn both<T: Default>(plan: Option<T>, own: Option<T>, merge: impl Fn(T, T) -> T) -> Option<T> {
    match (plan, own) {
        (None, None) => None,
        (plan, own) => Some(merge(plan.unwrap_or_default(), own.unwrap_or_default())),
    }
}

/// A key that has to be there once plan and tenant are put together.
fn required<T>(value: Option<T>, path: String) -> Parsed<T> {
    value.map_or_else(|| wrong(path, "is missing"), Ok)
}

impl RawLimits {
    fn check(self, path: &str, given: &Given<'_>) -> Parsed<Limits> {
        let on_exhausted = match self.on_exhausted {
            None | Some(RawOnExhausted::Throttle) => OnExhausted::Throttle,
            Some(RawOnExhausted::Degrade { overdraft }) => {
                let overdraft = mark(overdraft, &format!("{path}.on_exhausted.degrade.overdraft"))?;
                OnExhausted::Degrade { overdraft }
            }
        };
        Ok(Limits {
            budget: self
                .budget
                .map(|raw| budget(&raw, &format!("{path}.budget"), given))
                .transpose()?,
            bucket: self
                .bucket
                .map(|raw| quota(&raw, &format!("{path}.bucket")))
                .transpose()?,
            on_exhausted,
            never_downgrade: self.never_downgrade.unwrap_or(false),
            low_water_mark: self
                .low_water_mark
                .map(|raw| mark(raw, &format!("{path}.low_water_mark")))
                .transpose()?,
        })
    }
}

fn budget(raw: &RawBudget, path: &str, given: &Given<'_>) -> Parsed<Budget> {
    let ladders = given.ladders;
    let initial = format!("{path}.initial_budget");
    let number = required(raw.initial_budget, initial.clone())?;
    let (unit, initial_budget) = match raw.unit.unwrap_or_default() {
        raw::RawUnit::Tokens => (Unit::Tokens, whole(number, &initial)?.get()),
        raw::RawUnit::Usd => match number.millionths() {
            Some(micros @ 1..) => (Unit::UsdMicros, micros),
            _ => {
                return wrong(
                    initial,
                    "must be an amount above zero with at most six decimals",
                );
            }
        },
    };
    if unit == Unit::UsdMicros {
        let unpriced = ladders
            .iter()
            .flat_map(|ladder| &ladder.tiers)
            .find(|tier| tier.price.is_none());
        if let Some(tier) = unpriced {
            return wrong(
                format!("{path}.unit"),
                format!(
                    "`usd` needs a price on every tier, and `{}` has none",
                    tier.name
                ),
            );
        }
        if ladders.is_empty() {
            return wrong(format!("{path}.unit"), "`usd` needs tiers with prices");
        }
    }
    let period = match required(raw.window.as_deref(), format!("{path}.window"))? {
        "hour" => Period::Hour,
        "day" => Period::Day,
        "week" => Period::Week,
        "month" => Period::Month,
        "none" => Period::Never,
        text => match duration(text) {
            Some(length) => Period::Every(length),
            None => {
                return wrong(
                    format!("{path}.window"),
                    format!(
                        "`{text}` is none of hour, day, week, month, none or a duration such as \"90s\""
                    ),
                );
            }
        },
    };
    Ok(Budget {
        initial_budget,
        unit,
        period,
        reservation_expiry: given.expiry,
    })
}

fn quota(raw: &RawBucket, path: &str) -> Parsed<Quota> {
    let rate = format!("{path}.tokens_per_window");
    let tokens_per_window = whole(required(raw.tokens_per_window, rate.clone())?, &rate)?;
    let text = required(raw.window.as_deref(), format!("{path}.window"))?;
    let Some(window) = duration(text) else {
        return wrong(
            format!("{path}.window"),
            format!("`{text}` is no duration such as \"1m\" or \"90s\""),
        );
    };
    let burst = match raw.burst {
        None => tokens_per_window,
        Some(burst) => whole(burst, &format!("{path}.burst"))?,
    };
    let low_water_mark = raw
        .low_water_mark
        .map(|raw| mark(raw, &format!("{path}.low_water_mark")))
        .transpose()?;
    Ok(Quota {
        tokens_per_window,
        window,
        burst,
        low_water_mark,
    })
}

fn whole(number: Number, path: &str) -> Parsed<NonZeroU64> {
    match number.whole().and_then(NonZeroU64::new) {
        Some(whole) => Ok(whole),
        None => wrong(path, "must be a whole number of at least 1"),
    }
}

/// A fraction above 0 and up to 1.
fn mark(number: Number, path: &str) -> Parsed<Ppm> {
    match number.millionths() {
        Some(ppm @ 1..=1_000_000) => Ok(Ppm(ppm)),
        _ => wrong(
            path,
            "must be a fraction above 0 and at most 1, with at most six decimals",
        ),
    }
}

fn sources(raw: Option<Vec<raw::RawSource>>) -> Parsed<Vec<Source>> {
    let Some(raw) = raw else {
        return Ok(vec![Source::Header("x-tenant-id".to_owned())]);
    };
    if raw.is_empty() {
        return wrong("tenant.from", "name at least one source");
    }
    let check = |(index, source)| {
        let path = format!("tenant.from[{index}]");
        match source {
            raw::RawSource::Header(name) => {
                let name = name.to_ascii_lowercase();
                let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
                if name.is_empty() || !name.chars().all(is_token) || name.starts_with("x-bursar-") {
                    return wrong(
                        format!("{path}.header"),
                        format!("`{name}` is no header that a client may send"),
                    );
                }
                Ok(Source::Header(name))
            }
            raw::RawSource::Property(path_of) if path_of.is_empty() => {
                wrong(format!("{path}.property"), "the path is empty")
            }
            raw::RawSource::Property(path_of) => Ok(Source::Property(path_of)),
            raw::RawSource::JwtClaim(claim) if claim.is_empty() => {
                wrong(format!("{path}.jwt_claim"), "the claim has no name")
            }
            raw::RawSource::JwtClaim(claim) => Ok(Source::jwt_claim(&claim)),
            raw::RawSource::PeerUriSan(true) => Ok(Source::peer_uri_san()),
            raw::RawSource::PeerUriSan(false) => {
                wrong(format!("{path}.peer_uri_san"), "must be true, or left out")
            }
        }
    };
    raw.into_iter().enumerate().map(check).collect()
}

#[cfg(test)]
mod tests;
