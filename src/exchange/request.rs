//! The request's half of an exchange: headers → tenant → limits → tier → rewrite.

use super::response::refused;
use super::*;
use crate::admission::{Amended, Outcome};
use crate::api::Fault;
use crate::config::Missing;
use crate::estimate::Estimate;
use crate::json::{Malformed, Repeats, Scanner};
use crate::payer::Done;
use crate::policy::Ask;
use crate::record::Record;
use crate::rewrite::{Passing, new_length};
use crate::tenant::{Properties, TenantId, principal};
use crate::tier::place;

/// A request whose body is being read.
#[derive(Debug)]
pub(super) struct Reading {
    api: Api,
    payer: Payer,
    scanner: Scanner,
    /// The length that the client promised, if it did.
    length: Option<u64>,
    body: Body,
    /// The headers have not gone on yet.
    headers_held: bool,
    /// The admission, once `model` was read.
    pub(super) sent: Option<Box<Sent>>,
    /// Headers of a response that came before the admission.
    early: Option<Headers>,
}

/// How the body goes on.
#[derive(Debug)]
enum Body {
    /// Not before it is complete.
    Held,
    /// As it is read.
    Passing(Passing),
}

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
        let header = |name| request.only(name).unwrap_or_default();
        let Some(api) = Api::of(header(":method"), header(":path")) else {
            return step;
        };
        let payer = match self.identify(request, properties) {
            Identified::Payer(payer) => payer,
            Identified::Unmetered => return step,
            Identified::Denied(denial, id) => {
                step.fields = id.map_or_else(Vec::new, |id| telemetry::identified(id.as_str(), ""));
                return refuse(api, denial, None, None, now).reporting(step);
            }
        };
        step.fields = payer.identified();
        if is_end {
            let denial = Denial::InvalidBody(Fault::Body(Malformed::Truncated));
            return refuse(api, denial, Some(&payer), None, now);
        }
        if !self.config.hold_headers
            && let Some((refusal, record)) = admission::is_spent_out(store, &payer, now)
        {
            // Later the upstream would already have been asked.
            let denial = Denial::Limit(refusal);
            return refuse(api, denial, Some(&payer), Some(About::state(&record)), now);
        }
        step.next = if self.config.hold_headers {
            Next::Pause
        } else {
            Next::Continue
        };
        let reading = Reading::new(&self.config, api, payer, number(header("content-length")));
        step.headers.extend(reading.header_changes());
        self.stage = Stage::Reading(Box::new(reading));
        step
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
            Stage::Idle | Stage::Sent(_) => return Step::default(),
        };
        match reading.read(&self.config, chunk, is_end, store, now) {
            Ok(step) => {
                if is_end && let Some(sent) = reading.sent.take() {
                    self.stage = Stage::Sent(sent);
                }
                step
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
        let id = match principal(&self.config.sources, request, properties) {
            Some(bytes) => TenantId::parse(&bytes),
            None => match &self.config.missing {
                Missing::Reject => return Identified::Denied(Denial::TenantRequired, None),
                Missing::Pass => return Identified::Unmetered,
                Missing::Tenant(id) => Some(id.clone()),
            },
        };
        let Some(id) = id else {
            return Identified::Denied(Denial::TenantUnknown, None);
        };
        let configured = self.config.plan(&id);
        let is_configured = configured.is_some();
        match configured.or(self.config.unknown.as_ref()).map(Rc::clone) {
            Some(plan) => Identified::Payer(Payer {
                id,
                plan,
                configured: is_configured,
            }),
            None => Identified::Denied(Denial::TenantUnknown, Some(id)),
        }
    }
}

impl Reading {
    /// A request of which only the headers are here. `length`: what they promise.
    fn new(config: &Config, api: Api, payer: Payer, length: Option<u64>) -> Self {
        let is_short = length.is_some_and(|length| length <= config.hold_bytes);
        Self {
            api,
            payer,
            scanner: Scanner::new(api.request_keys(), Repeats::Refuse),
            length,
            body: if config.hold_headers && is_short {
                Body::Held
            } else {
                Body::Passing(Passing::default())
            },
            headers_held: config.hold_headers,
            sent: None,
            early: None,
        }
    }

    /// What changes in the headers whatever the body says.
    fn header_changes(&self) -> Vec<HeaderChange> {
        // A compressed answer could not be read.
        let mut changes = vec![HeaderChange::Set("accept-encoding", "identity".to_owned())];
        if matches!(self.body, Body::Passing(_)) {
            // A rewrite may change it, and a stale one would make the rest of this body the next request.
            changes.push(HeaderChange::Remove(b"content-length".to_vec()));
        }
        changes
    }

    /// The whole JSON object was read.
    pub(super) fn is_complete(&self) -> bool {
        self.scanner.closing_brace().is_some()
    }

    /// The upstream answers although it cannot know yet what it is asked.
    pub(super) fn answered_early(&mut self, response: &Headers) {
        self.early = Some(response.clone());
    }

    /// Reads on. `Err` is the step of a request that is refused.
    fn read(
        &mut self,
        config: &Config,
        chunk: &[u8],
        is_end: bool,
        store: &impl Store,
        now: Timestamp,
    ) -> Result<Step, Box<Step>> {
        let was_complete = self.is_complete();
        let scanned = self.scanner.feed(chunk);
        scanned.map_err(|malformed| self.invalid(config, Fault::Body(malformed), store, now))?;
        let is_complete = self.is_complete();
        if is_end && !is_complete {
            return Err(self.invalid(config, Fault::Body(Malformed::Truncated), store, now));
        }
        let mut step = Step::default();
        if !is_complete && matches!(self.body, Body::Held) {
            return Ok(Step::pause());
        }
        let facts = self.api.facts(&self.scanner);
        let facts = facts.map_err(|fault| self.invalid(config, fault, store, now))?;
        if let Some(facts) = facts {
            match &mut self.sent {
                None => step = self.admit(config, facts, store, now)?,
                Some(sent) if is_complete && !was_complete && !sent.is_settled => {
                    step = self.amend(config, facts, store, now)?;
                }
                Some(_) => {}
            }
        }
        if let Some(sent) = self.sent.as_ref().filter(|_| is_complete && !was_complete) {
            step = step.reporting(sent.admitted());
        }
        self.forward(chunk, &mut step);
        self.headers_held = false;
        Ok(step)
    }

    /// Lets the body go on, changed where it must be, and the headers with it.
    fn forward(&mut self, chunk: &[u8], step: &mut Step) {
        let edits = self.edits();
        match &mut self.body {
            Body::Held => {
                if let Some(length) = self.length.filter(|_| !edits.is_empty()) {
                    let length = new_length(length, &edits).to_string();
                    step.headers
                        .push(HeaderChange::Set("content-length", length));
                }
                if !edits.is_empty() {
                    step.body = BodyChange::Edit(edits);
                }
                // What may follow is white space; it passes.
                let mut passing = Passing::default();
                passing.skip(self.scanner.offset());
                self.body = Body::Passing(passing);
            }
            Body::Passing(passing) => {
                if let Some(bytes) = passing.pass(chunk, &edits, self.scanner.open_since()) {
                    step.body = BodyChange::Replace(bytes);
                }
            }
        }
        if let Some(sent) = self.sent.as_ref().filter(|_| self.headers_held) {
            step.headers
                .push(HeaderChange::Set(headers::TIER, sent.tier.clone()));
        }
    }

    /// The edits that are known so far, sorted.
    fn edits(&self) -> Vec<Edit> {
        let changed = self
            .sent
            .as_ref()
            .filter(|sent| sent.model != sent.facts.model);
        let model = changed.map(|sent| Edit {
            start: sent.facts.model_span.0,
            end: sent.facts.model_span.1,
            with: serde_json::Value::from(sent.model.as_str())
                .to_string()
                .into_bytes(),
        });
        let mut edits: Vec<Edit> = model
            .into_iter()
            .chain(self.api.ask_usage(&self.scanner))
            .collect();
        edits.sort_by_key(|edit| edit.start);
        edits
    }

    /// Chooses a tier and reserves.
    fn admit(
        &mut self,
        config: &Config,
        facts: Facts,
        store: &impl Store,
        now: Timestamp,
    ) -> Result<Step, Box<Step>> {
        let ask = ask(config, &facts, self.estimate(&facts));
        let Done { report, troubles } =
            admission::admit(store, &self.payer, &ask, config.failure_mode, now);
        let so_far = Step {
            troubles,
            ..Step::default()
        };
        let admission = match report {
            Outcome::Admitted(admission) => admission,
            Outcome::Refused(refused) => {
                let about = Some(About {
                    record: &refused.record,
                    tier: tier_name(&ask, refused.tier),
                    requested_model: &facts.model,
                    model: model_at(&ask, refused.tier, &facts),
                });
                let denial = Denial::Limit(refused.refusal);
                let step = refuse(self.api, denial, Some(&self.payer), about, now);
                return Err(Box::new(step.reporting(so_far)));
            }
            Outcome::Unavailable => {
                let step = refuse(self.api, Denial::Unavailable, Some(&self.payer), None, now);
                return Err(Box::new(step.reporting(so_far)));
            }
        };
        let mut sent = Sent::new(self.api, self.payer.clone(), admission, facts, &ask);
        let mut step = so_far;
        if let Some(response) = self.early.take() {
            match refused(&response) {
                Some(exit) => step = step.reporting(sent.settle(config, store, exit, now)),
                None => sent.reader = Some(sent.reader(&response)),
            }
        }
        self.sent = Some(Box::new(sent));
        Ok(step)
    }

    /// The body is complete and was admitted before it was: what it may cost is known better now.
    fn amend(
        &mut self,
        config: &Config,
        facts: Facts,
        store: &impl Store,
        now: Timestamp,
    ) -> Result<Step, Box<Step>> {
        let ask = ask(config, &facts, self.estimate(&facts));
        let Some(sent) = &mut self.sent else {
            return Ok(Step::default());
        };
        let Done { report, troubles } = admission::amend(
            store,
            &self.payer,
            &mut sent.admission,
            &ask,
            config.failure_mode,
            now,
        );
        sent.expected_input = ask.estimate.input();
        sent.facts = facts;
        let so_far = Step {
            troubles,
            ..Step::default()
        };
        let step = match report {
            Amended::Held => return Ok(so_far),
            Amended::Refused(refusal, record) => {
                let about = Some(About {
                    record: &record,
                    tier: &sent.tier,
                    requested_model: &sent.facts.model,
                    model: &sent.model,
                });
                refuse(
                    self.api,
                    Denial::Limit(refusal),
                    Some(&self.payer),
                    about,
                    now,
                )
            }
            Amended::Unavailable => {
                let returned = sent.settle(config, store, Exit::Unsent, now);
                refuse(self.api, Denial::Unavailable, Some(&self.payer), None, now)
                    .reporting(returned)
            }
        };
        Err(Box::new(step.reporting(so_far)))
    }

    /// What the request may cost, by what was read of it. Before the body is complete an output limit may still
    /// come, so none is taken for granted: whatever it is, it is reserved before the last byte goes on.
    fn estimate(&self, facts: &Facts) -> Estimate {
        let is_complete = self.is_complete();
        Estimate {
            body_bytes: self.length.unwrap_or(0).max(self.scanner.offset()),
            output_limit: facts
                .output_limit
                .or_else(|| (!is_complete).then_some(Tokens(0))),
            choices: facts.choices,
        }
    }

    /// Refuses a body that is not what it should be, and returns what is held for it.
    fn invalid(
        &mut self,
        config: &Config,
        fault: Fault,
        store: &impl Store,
        now: Timestamp,
    ) -> Box<Step> {
        let step = refuse(
            self.api,
            Denial::InvalidBody(fault),
            Some(&self.payer),
            None,
            now,
        );
        let returned = self
            .sent
            .take()
            .map(|mut sent| sent.settle(config, store, Exit::Unsent, now));
        Box::new(step.reporting(returned.unwrap_or_default()))
    }
}

impl Sent {
    fn new(api: Api, payer: Payer, admission: Admission, facts: Facts, ask: &Ask<'_>) -> Self {
        let tier = admission.tier;
        Self {
            api,
            tier: tier_name(ask, tier).to_owned(),
            model: model_at(ask, tier, &facts).to_owned(),
            price: ask.price(tier).copied(),
            asked_price: ask.price(ask.place.map_or(0, |place| place.asked)).copied(),
            expected_input: ask.estimate.input(),
            payer,
            admission,
            facts,
            reader: None,
            is_settled: false,
        }
    }

    /// What is counted and told once the admission is final.
    pub(super) fn admitted(&self) -> Step {
        let tenant = label(&self.payer);
        let limits = &self.payer.plan.limits;
        let record = self.admission.record.as_ref();
        let decided = self.decided();
        let mut fields = self.payer.identified();
        fields.extend(telemetry::decided(&decided));
        fields.extend(record.and_then(|record| telemetry::left(limits, record)));
        Step {
            metrics: vec![telemetry::request(tenant, &self.tier, decided.decision)],
            fields,
            ..Step::default()
        }
    }
}

/// What is known about a refused request.
struct About<'a> {
    /// The state that refuses it.
    record: &'a Record,
    /// The tier that it would have been served at; empty if that was not reached.
    tier: &'a str,
    /// The model that was asked for, and the one that would have been sent.
    requested_model: &'a str,
    model: &'a str,
}

impl<'a> About<'a> {
    /// Of a request that was refused before it was read.
    fn state(record: &'a Record) -> Self {
        Self {
            record,
            tier: "",
            requested_model: "",
            model: "",
        }
    }
}

/// Refuses a request.
fn refuse(
    api: Api,
    denial: Denial,
    payer: Option<&Payer>,
    about: Option<About<'_>>,
    now: Timestamp,
) -> Step {
    let mut reply = denial.reply(api, now);
    let tenant = payer.map_or(telemetry::UNCONFIGURED, label);
    let mut metrics = vec![telemetry::throttled(tenant, denial.reason())];
    let known = about.as_ref();
    let told = Decided {
        tier: known.map_or("", |about| about.tier),
        requested_model: known.map_or("", |about| about.requested_model),
        model: known.map_or("", |about| about.model),
        decision: if denial.is_throttle() { "throttle" } else { "" },
        reason: denial.reason(),
    };
    if denial.is_throttle() {
        metrics.push(telemetry::request(tenant, told.tier, told.decision));
    }
    if let (Some(payer), Some(about)) = (payer, known) {
        reply
            .headers
            .extend(headers::limits(&payer.plan.limits, about.record, now));
    }
    reply.headers.extend(headers::decided(&told));
    let mut fields = payer.map_or_else(Vec::new, Payer::identified);
    fields.extend(telemetry::decided(&told));
    Step {
        next: Next::Reply(reply),
        metrics,
        fields,
        ..Step::default()
    }
}

fn ask<'a>(config: &'a Config, facts: &Facts, estimate: Estimate) -> Ask<'a> {
    Ask {
        place: place(&config.ladders, &facts.model),
        estimate,
        unlisted_price: config.unlisted_price.as_ref(),
    }
}

/// The model that goes upstream at a tier.
fn model_at<'a>(ask: &Ask<'a>, tier: usize, facts: &'a Facts) -> &'a str {
    ask.place.map_or(facts.model.as_str(), |place| {
        place.ladder.model_for(place.asked, tier, &facts.model)
    })
}

fn tier_name<'a>(ask: &Ask<'a>, tier: usize) -> &'a str {
    let tier = ask.place.and_then(|place| place.ladder.tiers.get(tier));
    tier.map_or(telemetry::UNLISTED, |tier| &tier.name)
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
