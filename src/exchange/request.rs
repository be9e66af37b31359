//! The request's half of an exchange: headers → tenant → limits → tier → rewrite.

use super::reading::Reading;
use super::refusal::{About, refuse};
use super::*;
use crate::api::Fault;
use crate::config::Missing;
use crate::json::Malformed;
use crate::tenant::{Properties, TenantId, principal};

/// Whose request it is, or why that cannot be said.
enum Identified {
    Payer(Payer),
    Unmetered,
    Denied(Denial, Option<TenantId>),
}

impl Exchange {
    /// The request's headers are here. `is_end`: nothing follows them.
    pub fn request_headers(
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
        let Some(endpoint) = Endpoint::of(request) else {
            return step;
        };
        let wire = endpoint.wire;
        let payer = match self.identify(request, properties) {
            Identified::Payer(payer) => payer,
            Identified::Unmetered => return step,
            Identified::Denied(denial, id) => {
                let fields = id
                    .iter()
                    .flat_map(|id| telemetry::identified(id.name(), None));
                step.fields = fields.collect();
                return refuse(wire, denial, None, None, now).reporting(step);
            }
        };
        step.fields = payer.identified().collect();
        if is_end {
            let denial = Denial::InvalidBody(Fault::Body(Malformed::Truncated));
            if payer.plan.limits.shadow {
                let shadow = shadow::denied(denial);
                let told = shadow::unread(&payer, &shadow);
                self.stage = Stage::Unread(Box::new(shadow));
                return step.reporting(told);
            }
            return refuse(wire, denial, Some(&payer), None, now);
        }
        if !self.config.hold_headers
            && !payer.plan.limits.shadow
            && let Some((refusal, record)) = admission::is_spent_out(store, &payer, now)
        {
            // Later the upstream would already have been asked.
            let denial = Denial::Limit(refusal);
            return refuse(wire, denial, Some(&payer), Some(About::state(&record)), now);
        }
        let length = number(request.only("content-length").unwrap_or_default());
        let mut reading = Reading::new(&self.config, endpoint, payer, length, request);
        step.headers.extend(reading.header_changes());
        match reading.begin(&self.config, store, now) {
            Ok(begun) => {
                self.stage = Stage::Reading(Box::new(reading));
                step.and(begun)
            }
            Err(passed) if passed.next == Next::Continue => {
                let mut passed = *passed;
                self.stage = reading.let_go(&[], &mut passed);
                step.and(passed)
            }
            Err(refused) => *refused,
        }
    }

    /// The request's body ends without another byte. Whether nothing is left to be done: otherwise it is for
    /// [`Exchange::request_body`].
    pub fn end_request(&mut self) -> bool {
        let Stage::Reading(reading) = &mut self.stage else {
            return false;
        };
        let Some(sent) = reading.take_complete() else {
            return false;
        };
        self.stage = Stage::Sent(sent);
        true
    }

    /// More of the request's body is here: the bytes that were not given before.
    pub fn request_body(
        &mut self,
        chunk: &[u8],
        is_end: bool,
        store: &impl Store,
        now: Timestamp,
    ) -> Step {
        let reading = match &mut self.stage {
            Stage::Reading(reading) => reading,
            Stage::Refused(_) if !is_end => return Step::pause(),
            Stage::Refused(step) => {
                let step = std::mem::take(&mut **step);
                self.stage = Stage::Idle;
                return step;
            }
            Stage::Idle | Stage::Sent(_) | Stage::Unread(_) => return Step::default(),
        };
        match reading.read(&self.config, chunk, is_end, store, now) {
            Ok(step) => {
                if is_end && let Some(sent) = reading.sent.take() {
                    self.stage = Stage::Sent(sent);
                }
                step
            }
            Err(passed) if passed.next == Next::Continue => {
                let mut passed = *passed;
                self.stage = reading.let_go(chunk, &mut passed);
                passed
            }
            Err(step) if reading.is_complete() && !is_end => {
                self.stage = Stage::Refused(step);
                Step::pause()
            }
            Err(step) => {
                self.stage = Stage::Idle;
                *step
            }
        }
    }

    /// The request ends with trailers, after its body. The headers of the step are the trailers'.
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

    fn identify(&self, request: &Headers, properties: &impl Properties) -> Identified {
        let shown = principal(&self.config.sources, request, properties);
        let id = match (&shown, &self.config.missing) {
            (Some(bytes), _) => bytes,
            (None, Missing::Reject) => return Identified::Denied(Denial::TenantRequired, None),
            (None, Missing::Pass) => return Identified::Unmetered,
            (None, Missing::Tenant(id)) => id.as_str().as_bytes(),
        };
        if let Some((id, plan)) = self.config.tenant(id) {
            return Identified::Payer(Payer {
                id: id.clone(),
                plan: Rc::clone(plan),
                configured: true,
            });
        }
        let Some(id) = TenantId::parse(id) else {
            return Identified::Denied(Denial::TenantUnknown, None);
        };
        match &self.config.unknown {
            Some(plan) => Identified::Payer(Payer {
                id,
                plan: Rc::clone(plan),
                configured: false,
            }),
            None => Identified::Denied(Denial::TenantUnknown, Some(id)),
        }
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
