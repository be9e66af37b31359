//! Whose a request may be: the plans by name, the tenants on them, and where a request shows its tenant.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::limits::{Given, merge};
use super::raw::{self, RawLimits, RawTenant};
use super::{Missing, Parsed, Plan, wrong};
use crate::name::NameHashing;
use crate::tenant::{Source, TenantId};

/// The plans of a configuration, as they are written and as they are meant.
pub(super) struct Plans<'a>(HashMap<&'a str, (&'a RawLimits, Rc<Plan>)>);

impl<'a> Plans<'a> {
    pub(super) fn check(raw: &'a BTreeMap<String, RawLimits>, given: &Given<'_>) -> Parsed<Self> {
        let check = |(name, plan): (&'a String, &'a RawLimits)| {
            let limits =
                merge(RawLimits::default(), plan).check(&format!("plans.{name}"), given)?;
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
        };
        raw.iter().map(check).collect::<Parsed<_>>().map(Self)
    }

    fn find(&self, name: &str, path: String) -> Parsed<(&RawLimits, Rc<Plan>)> {
        match self.0.get(name) {
            Some((raw, plan)) => Ok((raw, Rc::clone(plan))),
            None => wrong(path, format!("no plan is called `{name}`")),
        }
    }

    /// The plan of tenants that are not configured.
    pub(super) fn unknown(&self, raw: &raw::RawUnknown) -> Parsed<Option<Rc<Plan>>> {
        match raw {
            raw::RawUnknown::Reject => Ok(None),
            raw::RawUnknown::Plan(name) => {
                Ok(Some(self.find(name, "tenant.unknown.plan".to_owned())?.1))
            }
        }
    }

    /// The plan of a tenant, its own settings applied. Tenants without any share their plan's.
    fn of(&self, tenant: &RawTenant, path: &str, given: &Given<'_>) -> Parsed<Rc<Plan>> {
        let own = tenant.limits();
        let Some(name) = &tenant.plan else {
            let limits = merge(RawLimits::default(), &own).check(path, given)?;
            return Ok(Rc::new(Plan {
                name: String::new(),
                limits,
            }));
        };
        let (raw, plan) = self.find(name, format!("{path}.plan"))?;
        if own == RawLimits::default() {
            return Ok(plan);
        }
        let limits = merge(raw.clone(), &own).check(path, given)?;
        Ok(Rc::new(Plan {
            name: name.clone(),
            limits,
        }))
    }
}

pub(super) fn tenants(
    raw: &BTreeMap<String, RawTenant>,
    plans: &Plans<'_>,
    given: &Given<'_>,
) -> Parsed<HashMap<TenantId, Rc<Plan>, NameHashing>> {
    let check = |(id, tenant): (&String, &RawTenant)| {
        let path = format!("tenants.{id}");
        let Some(id) = TenantId::parse(id.as_bytes()) else {
            return wrong(
                path,
                "a tenant id is 1 to 256 bytes without control characters",
            );
        };
        Ok((id, plans.of(tenant, &path, given)?))
    };
    raw.iter().map(check).collect()
}

/// `is_known`: whether requests of this tenant would be served.
pub(super) fn missing(raw: raw::RawMissing, is_known: impl Fn(&str) -> bool) -> Parsed<Missing> {
    match raw {
        raw::RawMissing::Reject => Ok(Missing::Reject),
        raw::RawMissing::Pass => Ok(Missing::Pass),
        raw::RawMissing::Tenant(id) => {
            match TenantId::parse(id.as_bytes()).filter(|_| is_known(&id)) {
                Some(id) => Ok(Missing::Tenant(id)),
                None => wrong(
                    "tenant.missing.tenant",
                    format!("no tenant is called `{id}`"),
                ),
            }
        }
    }
}

pub(super) fn sources(raw: Option<Vec<raw::RawSource>>) -> Parsed<Vec<Source>> {
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
                client_header(&name, &format!("{path}.header")).map(Source::Header)
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

/// The name of a header that a client may send, in lower case.
pub(super) fn client_header(name: &str, path: &str) -> Parsed<String> {
    let name = name.to_ascii_lowercase();
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(is_token) || name.starts_with("x-bursar-") {
        return wrong(
            path,
            format!("`{name}` is no header that a client may send"),
        );
    }
    Ok(name)
}
