//! Plans by name, the tenants on those plans, and where a request names its tenant.

use std::collections::HashMap;
use std::rc::Rc;

use super::checks::client_header;
use super::limits::Given;
use super::parents::{RawChild, link};
use super::path::Path;
use super::raw::{self, RawLimits, RawTenant};
use super::read::Deferred;
use super::trials::trials;
use super::{Member, Missing, Parsed, Plan, wrong};
use crate::base::name::{Name, NameHashing};
use crate::tenant::{Source, TenantId};

/// The plans of a configuration, raw and parsed.
pub(super) struct Plans(HashMap<Name, Rc<(RawLimits, Rc<Plan>)>, NameHashing>);

impl Plans {
    pub(super) fn read(raw: Deferred<'_>, text: &str, given: &Given<'_>) -> Parsed<Self> {
        let plans = &Path::Top.key("plans");
        let mut all = HashMap::default();
        raw.entries(text, plans, |name, raw: RawLimits| {
            let path = &plans.key(name);
            let plan = Rc::new(Plan {
                name: name.into(),
                limits: raw.check(path, given)?,
                trials: Vec::new(),
            });
            match all.insert(name.into(), Rc::new((raw, plan))) {
                None => Ok(()),
                Some(_) => twice(plans, name),
            }
        })?;
        let mut plans = Self(all);
        plans.link_trials()?;
        Ok(plans)
    }

    /// Links each plan to the plans that it tries.
    fn link_trials(&mut self) -> Parsed<()> {
        let path = &Path::Top.key("plans");
        let mut tried = Vec::new();
        for (name, plan) in &self.0 {
            let trials = trials(&plan.0, &path.key(name), self)?;
            if !trials.is_empty() {
                tried.push((name.clone(), trials));
            }
        }
        for (name, trials) in tried {
            // The plan's `Rc` is not shared yet, so `get_mut` succeeds.
            let entry = self.0.get_mut(&*name).and_then(Rc::get_mut);
            if let Some(plan) = entry.and_then(|(_, plan)| Rc::get_mut(plan)) {
                plan.trials = trials;
            }
        }
        Ok(())
    }

    pub(super) fn find(&self, name: &str, path: &Path<'_>) -> Parsed<&(RawLimits, Rc<Plan>)> {
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

    /// The plans by name, for requests that name the plan of their tenant.
    pub(super) fn into_named(self) -> HashMap<Name, Rc<Plan>, NameHashing> {
        let plans = self.0.into_iter();
        plans
            .map(|(name, plan)| (name, Rc::clone(&plan.1)))
            .collect()
    }

    /// A tenant's plan with the tenant's own settings applied. Tenants without own settings share one plan.
    fn of(
        &self,
        name: Option<String>,
        own: RawLimits,
        path: &Path<'_>,
        given: &Given<'_>,
    ) -> Parsed<Rc<Plan>> {
        let Some(name) = name else {
            return Ok(Rc::new(Plan {
                limits: own.check(path, given)?,
                trials: trials(&own, path, self)?,
                name: "".into(),
            }));
        };
        let (raw, plan) = self.find(&name, &path.key("plan"))?;
        if own == RawLimits::default() {
            return Ok(Rc::clone(plan));
        }
        let own = own.or(raw);
        Ok(Rc::new(Plan {
            limits: own.check(path, given)?,
            trials: trials(&own, path, self)?,
            name: plan.name.clone(),
        }))
    }
}

/// Configured tenants, by id.
pub(super) type Members = HashMap<TenantId, Member, NameHashing>;

/// The configured tenants with their plans, in the configuration's order.
pub(super) type Listed = Vec<(TenantId, Rc<Plan>)>;

pub(super) fn tenants(
    raw: Deferred<'_>,
    text: &str,
    plans: &Plans,
    given: &Given<'_>,
) -> Parsed<(Members, Listed)> {
    let tenants = &Path::Top.key("tenants");
    let (mut all, mut listed) = (Members::default(), Listed::new());
    let (mut children, mut renamed) = (Vec::new(), Vec::new());
    raw.entries(text, tenants, |id, raw: RawTenant| {
        let path = &tenants.key(id);
        let RawTenant { names, own } = raw;
        let mut tenant = tenant_id(id, path)?;
        if let Some(was) = &names.was {
            let was = tenant_id(was, &path.key("was"))?;
            tenant = tenant.renamed(&was);
            renamed.push(tenant.clone());
        }
        match names.parent {
            Some(parent) => children.push(RawChild {
                id: tenant.clone(),
                parent,
                guaranteed: names.guaranteed,
            }),
            None if names.guaranteed.is_some() => {
                return wrong(
                    &path.key("guaranteed"),
                    "needs a `parent`, and the tenant has none",
                );
            }
            None => {}
        }
        let member = Member {
            plan: plans.of(names.plan, own, path, given)?,
            parent: None,
        };
        listed.push((tenant.clone(), Rc::clone(&member.plan)));
        match all.insert(tenant, member) {
            None => Ok(()),
            Some(_) => twice(tenants, id),
        }
    })?;
    one_each(&renamed, &all)?;
    link(&mut all, &mut listed, &children)?;
    Ok((all, listed))
}

fn tenant_id(id: &str, path: &Path<'_>) -> Parsed<TenantId> {
    TenantId::parse(id.as_bytes()).map_or_else(
        || {
            wrong(
                path,
                "a tenant id is 1 to 256 bytes without control characters",
            )
        },
        Ok,
    )
}

/// Refuses a configuration in which two tenants have the same account.
fn one_each(renamed: &[TenantId], all: &Members) -> Parsed<()> {
    let mut taken = HashMap::<&str, &str>::new();
    for tenant in renamed {
        let (id, was) = (tenant.as_str(), tenant.account());
        let owner = match all.contains_key(was) {
            true => was,
            false => match taken.insert(was, id) {
                Some(owner) => owner,
                None => continue,
            },
        };
        let reason = match owner == id {
            true => "is its own name".to_owned(),
            false => format!("the account of `{was}` is that of tenant `{owner}`"),
        };
        return wrong(&Path::Top.key("tenants").key(id).key("was"), reason);
    }
    Ok(())
}

/// Refuses a name that occurs twice.
#[cold]
fn twice(path: &Path<'_>, name: &str) -> Parsed<()> {
    wrong(path, format!("`{name}` stands twice"))
}

/// `is_known`: whether bursar would serve requests of this tenant.
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

/// Where a request names its tenant.
pub(super) fn tenant_sources(raw: Option<Vec<raw::RawSource>>) -> Parsed<Vec<Source>> {
    match raw {
        Some(raw) => sources(raw, &Path::Top.key("tenant").key("from")),
        None => Ok(vec![Source::Header("x-tenant-id".to_owned())]),
    }
}

pub(super) fn sources(raw: Vec<raw::RawSource>, from: &Path<'_>) -> Parsed<Vec<Source>> {
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
