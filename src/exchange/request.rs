//! The request's half of an exchange: headers → tenant → limits → tier → rewrite.

use std::rc::Rc;

use crate::admission::ledger::Ledger;
use crate::admission::tenant::Tenant;
use crate::base::units::Timestamp;
use crate::body::json::Malformed;
use crate::config::{Config, Missing};
use crate::exchange::first_slice::awaited;
use crate::exchange::refusal::{About, leave_out, refuse};
use crate::exchange::request_body::RequestBody;
use crate::exchange::step::{Next, Step, evading, foreign};
use crate::exchange::unmetered::{is_our_host, passes};
use crate::exchange::{Exchange, Stage, shadow};
use crate::http::{Headers, Properties};
use crate::provider::{Endpoint, Fault, credential, is_encoded, speaker};
use crate::report::log_fields;
use crate::report::refusal::Denial;
use crate::state::store::Store;
use crate::state::subjects::SubjectId;
use crate::tenant::{TenantId, principal};

/// The request's tenant, or why there is none.
pub(super) enum Identified<'a> {
    Tenant(Tenant),
    Unmetered,
    Denied(Denial<'a>, Option<TenantId>),
}

impl Exchange {
    /// Handles the request's headers. `is_end`: nothing follows them.
    pub fn request_headers(
        &mut self,
        request: &Headers,
        is_end: bool,
        store: &impl Store,
        properties: &impl Properties,
        now: Timestamp,
    ) -> Step {
        let mut step = self.begin(request, is_end, store, properties, now);
        leave_out(&mut step, self.config.headers);
        step
    }

    fn begin(
        &mut self,
        request: &Headers,
        is_end: bool,
        store: &impl Store,
        properties: &impl Properties,
        now: Timestamp,
    ) -> Step {
        let mut step = Step {
            headers: foreign(request),
            ..Step::default()
        };
        if !is_our_host(&self.config, request) {
            return step;
        }
        if let Some(told) = self.self_service(request, store, properties, now) {
            return step.and(told);
        }
        let Some(endpoint) = Endpoint::of(request) else {
            return match passes(&self.config, request) {
                true => step,
                false => step.and(self.refuse_unmetered(request, properties, now)),
            };
        };
        let wire = endpoint.wire;
        let mut tenant = match self.identify(request, properties) {
            Identified::Tenant(tenant) => tenant,
            Identified::Unmetered => return step,
            Identified::Denied(denial, id) => {
                let fields = id
                    .iter()
                    .flat_map(|id| log_fields::identified(id.name(), None));
                step.fields = fields.collect();
                return refuse(wire, denial, None, None, now).reporting(step);
            }
        };
        step.fields = tenant.identified().collect();
        step.headers.extend(evading(request, endpoint.is_signed));
        let shown = subjects(&self.config, &tenant, request, store, properties);
        match shown {
            Ok(subjects) => tenant.subjects = subjects,
            Err(denial) => return refuse(wire, denial, Some(&tenant), None, now),
        }
        if let Some(denial) = unreadable(&endpoint, request, is_end) {
            if tenant.plan.limits.shadow {
                let shadow = shadow::denied(denial);
                let reported = shadow::unread(&tenant, &shadow);
                self.stage = Stage::Unread(Box::new(shadow));
                return step.reporting(reported);
            }
            return refuse(wire, denial, Some(&tenant), None, now);
        }
        let length = request.body_length();
        let since = self.parked;
        let awaited = awaited(&self.config, &self.warm, &tenant, length, since, store, now);
        if let Some(watches) = awaited {
            self.parked = since.or(Some(now));
            return Step {
                next: Next::Park,
                watches,
                ..Step::default()
            };
        }
        if let Some(refused) = self.refuse_spent(&endpoint, &tenant, length, store, now) {
            return refused;
        }
        let mut reading =
            RequestBody::new(&self.config, &self.held, endpoint, tenant, length, request);
        reading.pressed = self.pressed.clone();
        if self.config.own_credentials {
            reading.credential = credential(request, store.slot_seed().0);
        }
        step.headers.extend(reading.header_changes());
        match reading.begin(&self.config, store, now) {
            Ok(begun) => {
                self.stage = Stage::RequestBody(Box::new(reading));
                step.and(begun)
            }
            Err(passed) if passed.next == Next::Continue => {
                let mut passed = *passed;
                self.stage = reading.forward_unread(&[], &mut passed);
                step.and(passed)
            }
            Err(refused) => *refused,
        }
    }

    /// Refuses the request of a tenant that has nothing left, before the body arrives. If it were refused later, part of it would already
    /// have been forwarded, or the client would have sent the body for nothing.
    fn refuse_spent(
        &self,
        endpoint: &Endpoint,
        tenant: &Tenant,
        length: Option<u64>,
        store: &impl Store,
        now: Timestamp,
    ) -> Option<Step> {
        let is_read = self.config.hold_headers && is_short(length);
        if is_read || tenant.plan.limits.shadow || !tenant.plan.trials.is_empty() {
            return None;
        }
        let ledger = Ledger::new(store, tenant, self.config.failure_mode, now);
        let refused = ledger.spent_out()?;
        let (denial, about) = (Denial::Limit(refused.refusal), About::early(&refused));
        Some(refuse(
            endpoint.wire,
            denial,
            Some(tenant),
            Some(about),
            now,
        ))
    }

    /// Refuses a request to an endpoint that is not metered, whoever sends it. The tenant is identified for the metrics only.
    fn refuse_unmetered(
        &mut self,
        request: &Headers,
        properties: &impl Properties,
        now: Timestamp,
    ) -> Step {
        let tenant = match self.identify(request, properties) {
            Identified::Tenant(tenant) => Some(tenant),
            Identified::Unmetered | Identified::Denied(..) => None,
        };
        let shadowed = tenant.as_ref().filter(|tenant| tenant.plan.limits.shadow);
        if let Some(tenant) = shadowed {
            let shadow = shadow::denied(Denial::NotMetered);
            let step = shadow::unread(tenant, &shadow);
            self.stage = Stage::Unread(Box::new(shadow));
            return step;
        }
        refuse(
            speaker(request),
            Denial::NotMetered,
            tenant.as_ref(),
            None,
            now,
        )
    }

    /// Handles the end of the request's body, if no more bytes come. Returns whether that is all: if not, the caller must call
    /// [`Exchange::request_body`].
    pub fn end_request(&mut self) -> bool {
        let Stage::RequestBody(reading) = &mut self.stage else {
            return false;
        };
        let Some(sent) = reading.take_complete() else {
            return false;
        };
        self.stage = Stage::Admitted(sent);
        true
    }

    /// Handles the next bytes of the request's body.
    pub fn request_body(
        &mut self,
        chunk: &[u8],
        is_end: bool,
        store: &impl Store,
        now: Timestamp,
    ) -> Step {
        let reading = match &mut self.stage {
            Stage::RequestBody(reading) => reading,
            Stage::Refused(_) if !is_end => return Step::pause(),
            Stage::Refused(step) => {
                let step = std::mem::take(&mut **step);
                self.stage = Stage::Idle;
                return step;
            }
            Stage::Idle | Stage::Admitted(_) | Stage::Unread(_) => return Step::default(),
        };
        match reading.read(&self.config, chunk, is_end, store, now) {
            Ok(step) => {
                if is_end && let Some(sent) = reading.sent.take() {
                    self.stage = Stage::Admitted(sent);
                }
                step
            }
            Err(passed) if passed.next == Next::Continue => {
                let mut passed = *passed;
                self.stage = reading.forward_unread(chunk, &mut passed);
                passed
            }
            Err(mut step) if reading.is_complete() && !reading.has_gone && !is_end => {
                leave_out(&mut step, self.config.headers);
                self.stage = Stage::Refused(step);
                Step::pause()
            }
            Err(mut step) => {
                leave_out(&mut step, self.config.headers);
                self.stage = Stage::Idle;
                *step
            }
        }
    }

    /// Handles the end of a request that has trailers after its body. The step's header changes apply to the trailers.
    pub fn request_trailers(
        &mut self,
        trailers: &Headers,
        store: &impl Store,
        now: Timestamp,
    ) -> Step {
        let mut step = self.request_body(&[], true, store, now);
        step.headers = foreign(trailers);
        step
    }

    pub(super) fn identify(
        &self,
        request: &Headers,
        properties: &impl Properties,
    ) -> Identified<'_> {
        let shown = principal(&self.config.sources, request, properties);
        let id = match (&shown, &self.config.missing) {
            (Some(bytes), _) => bytes,
            (None, Missing::Reject) => {
                return Identified::Denied(Denial::TenantRequired(&self.config.sources), None);
            }
            (None, Missing::Pass) => return Identified::Unmetered,
            (None, Missing::Tenant(id)) => id.as_str().as_bytes(),
        };
        if let Some((id, member)) = self.config.tenant(id) {
            return Identified::Tenant(Tenant {
                id: id.clone(),
                plan: Rc::clone(&member.plan),
                configured: true,
                parent: member.parent.clone(),
                subjects: Vec::new(),
            });
        }
        let Some(id) = TenantId::parse(id) else {
            return Identified::Denied(Denial::TenantUnknown, None);
        };
        let sources = &self.config.plan_sources;
        let named = principal(sources, request, properties);
        let named = named.and_then(|name| self.config.named_plan(&name));
        match named.or(self.config.unknown.as_ref()) {
            Some(plan) => Identified::Tenant(Tenant {
                id,
                plan: Rc::clone(plan),
                configured: false,
                parent: None,
                subjects: Vec::new(),
            }),
            None => Identified::Denied(Denial::TenantUnknown, Some(id)),
        }
    }
}

/// The subjects that the request's limits count, as far as the request names them.
///
/// # Errors
/// If the request must name a subject, and names none.
pub(super) fn subjects<'a>(
    config: &'a Config,
    tenant: &Tenant,
    request: &Headers,
    store: &impl Store,
    properties: &impl Properties,
) -> Result<Vec<(usize, SubjectId)>, Denial<'a>> {
    let mut found: Vec<(usize, SubjectId)> = Vec::new();
    for counted in tenant.counted() {
        let index = counted.index;
        let Some(rules) = config.subjects.get(index) else {
            continue;
        };
        if found.iter().any(|(kind, _)| *kind == index) {
            continue;
        }
        match principal(&rules.sources, request, properties) {
            Some(shown) => found.push((index, SubjectId::of(store.slot_seed(), &shown))),
            None if rules.is_required && !tenant.plan.limits.shadow => {
                return Err(Denial::SubjectRequired(&rules.name, &rules.sources));
            }
            None => {}
        }
    }
    Ok(found)
}

/// Whether a body is so short that it is read to its end even if its tenant has nothing left: then the refusal names the model,
/// and the client keeps its connection.
fn is_short(length: Option<u64>) -> bool {
    const LONGEST_BYTES: u64 = 32 * 1_024;
    length.is_some_and(|length| length <= LONGEST_BYTES)
}

/// Why a request cannot be metered, whatever its body says.
fn unreadable(endpoint: &Endpoint, request: &Headers, is_end: bool) -> Option<Denial<'static>> {
    if endpoint.upgrades {
        Some(Denial::Upgrade)
    } else if is_encoded(request) {
        Some(Denial::EncodedBody)
    } else {
        let truncated = is_end.then_some(Fault::Body(Malformed::Truncated));
        endpoint.fault.or(truncated).map(Denial::InvalidBody)
    }
}
