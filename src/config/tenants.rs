//! Whose a request may be: the plans by name, the tenants on them, and where a request shows its tenant.

use std::collections::HashMap;
use std::rc::Rc;

use super::limits::Given;
use super::path::Path;
use super::raw::{self, RawLimits, RawTenant};
use super::read::{Later, Read, Reader};
use super::{Missing, Parsed, Plan, wrong};
use crate::name::{Name, NameHashing};
use crate::tenant::{Source, TenantId};

/// The plans of a configuration, as they are written and as they are meant.
pub(super) struct Plans(HashMap<Name, Rc<(RawLimits, Rc<Plan>)>, NameHashing>);

impl Plans {
    pub(super) fn read(raw: Later, json: &Reader<'_>, given: &Given<'_>) -> Parsed<Self> {
        let plans = &Path::Top.key("plans");
        let mut all = HashMap::default();
        raw.entries(json, plans, &mut |json, name| {
            let path = &plans.key(name);
            let raw = RawLimits::read(json, path)?;
            let plan = Rc::new(Plan {
                name: name.into(),
                limits: raw.check(path, given)?,
            });
            match all.insert(name.into(), Rc::new((raw, plan))) {
                None => Ok(()),
                Some(_) => twice(json, plans, name),
            }
        })?;
        Ok(Self(all))
    }

    fn find(&self, name: &str, path: &Path<'_>) -> Parsed<&(RawLimits, Rc<Plan>)> {
        match self.0.get(name) {
            Some(plan) => Ok(plan),
            None => wrong(path, format!("no plan is called `{name}`")),
        }
    }

    /// The plan of tenants that are not configured.
    pub(super) fn unknown(&self, raw: &raw::RawUnknown) -> Parsed<Option<Rc<Plan>>> {
        let raw::RawUnknown::Plan(name) = raw else {
            return Ok(None);
        };
        let path = Path::Top.key("tenant");
        let (_, plan) = self.find(name, &path.key("unknown").key("plan"))?;
        Ok(Some(Rc::clone(plan)))
    }

    /// The plan of the tenant that is read next, its own settings applied. Tenants without any share their plan's.
    fn of(&self, json: &mut Reader<'_>, path: &Path<'_>, given: &Given<'_>) -> Parsed<Rc<Plan>> {
        let mut again = json.clone();
        let mut tenant = RawTenant::read(json, path)?;
        let mut shared = None;
        if let Some(name) = &tenant.plan {
            let (raw, plan) = self.find(name, &path.key("plan"))?;
            if !tenant.has_own {
                return Ok(Rc::clone(plan));
            }
            // Once more, over what the plan says.
            tenant.own.clone_from(raw);
            tenant.read_over(&mut again, path)?;
            shared = Some(plan.name.clone());
        }
        Ok(Rc::new(Plan {
            limits: tenant.own.check(path, given)?,
            name: shared.unwrap_or_else(|| "".into()),
        }))
    }
}

pub(super) fn tenants(
    raw: Later,
    json: &Reader<'_>,
    plans: &Plans,
    given: &Given<'_>,
) -> Parsed<HashMap<TenantId, Rc<Plan>, NameHashing>> {
    let tenants = &Path::Top.key("tenants");
    let mut all = HashMap::default();
    raw.entries(json, tenants, &mut |json, id| {
        let path = &tenants.key(id);
        let Some(tenant) = TenantId::parse(id.as_bytes()) else {
            return wrong(
                path,
                "a tenant id is 1 to 256 bytes without control characters",
            );
        };
        let plan = plans.of(json, path, given)?;
        match all.insert(tenant, plan) {
            None => Ok(()),
            Some(_) => twice(json, tenants, id),
        }
    })?;
    Ok(all)
}

/// Of two with one name, neither is meant.
#[cold]
fn twice(json: &Reader<'_>, path: &Path<'_>, name: &str) -> Parsed<()> {
    json.wrong(path, &format!("`{name}` stands twice"))
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
                    &Path::Top.key("tenant").key("missing").key("tenant"),
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
    let tenant = Path::Top.key("tenant");
    let from = &tenant.key("from");
    if raw.is_empty() {
        return wrong(from, "name at least one source");
    }
    let sources = raw.into_iter().enumerate();
    sources
        .map(|(index, raw)| source(raw, &from.index(index)))
        .collect()
}

fn source(raw: raw::RawSource, path: &Path<'_>) -> Parsed<Source> {
    match raw {
        raw::RawSource::Header(name) => {
            client_header(&name, &path.key("header")).map(Source::Header)
        }
        raw::RawSource::Property(segments) if segments.is_empty() => {
            wrong(&path.key("property"), "the path is empty")
        }
        raw::RawSource::Property(segments) => Ok(Source::Property(segments)),
        raw::RawSource::JwtClaim(claim) if claim.is_empty() => {
            wrong(&path.key("jwt_claim"), "the claim has no name")
        }
        raw::RawSource::JwtClaim(claim) => Ok(Source::jwt_claim(&claim)),
        raw::RawSource::PeerUriSan(true) => Ok(Source::peer_uri_san()),
        raw::RawSource::PeerUriSan(false) => {
            wrong(&path.key("peer_uri_san"), "must be true, or left out")
        }
    }
}

/// The name of a header that a client may send, in lower case.
pub(super) fn client_header(name: &str, path: &Path<'_>) -> Parsed<String> {
    let name = name.to_ascii_lowercase();
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) || name.starts_with("x-bursar-") {
        return wrong(
            path,
            format!("`{name}` is no header that a client may send"),
        );
    }
    Ok(name)
}
