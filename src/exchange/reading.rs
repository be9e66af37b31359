//! A request whose body is being read: tier → rewrite.

use super::first_byte::{Wait, answer, is_hurried};
use super::refusal::{About, refuse};
use super::response::refused;
use super::scope::{depends_on_rest, scope};
use super::*;
use crate::admission::{Amended, Outcome};
use crate::api::{Fault, body_model, limit_output};
use crate::conversation;
use crate::estimate::Estimate;
use crate::json::{Malformed, Repeats, Scanner, quoted};
use crate::learn::{BytesPerToken, PRIOR_ANSWER};
use crate::messages;
use crate::payer::Done;
use crate::policy::{Ask, Conditions};
use crate::rewrite::{Passing, new_length};
use crate::sla;
use crate::tier::{Ladder, TierSet};
use crate::trim::Cuts;

/// A request whose body is being read.
#[derive(Debug)]
pub(super) struct Reading {
    endpoint: Endpoint,
    payer: Payer,
    scanner: Scanner,
    /// Reads the conversation, where that is of use. Boxed, since it seldom is there.
    messages: Option<Box<messages::Reader>>,
    /// Some tier may shorten it.
    trims: bool,
    /// It may have to stay where it is, and no header names it.
    names: bool,
    /// What a header calls it.
    named: Option<conversation::Name>,
    /// The length that the client promised, if it did.
    length: Option<u64>,
    /// The length that the upstream was promised of a body that passes, if it was.
    promised: Option<u64>,
    body: Body,
    /// The headers have not gone on yet.
    headers_held: bool,
    /// A limit of the output may have to be lowered, so that it must not go on before the admission.
    keeps_limits: bool,
    /// It brings a timeout of its own.
    is_hurried: bool,
    /// Bytes that may be kept back for the admission.
    room: u64,
    /// What is asked for, as far as it was read, while the admission waits for more.
    asked: Option<Request>,
    /// The admission, once `model` was read.
    pub(super) sent: Option<Box<Sent>>,
    /// Headers of a response that came before the admission.
    early: Option<Headers>,
    /// In shadow mode: why it would have been refused, where that was before its admission.
    unread: Option<Shadow>,
}

/// Shortest body that passes with a length, in bytes. To send it in chunks instead costs some µs, and more the longer it is.
const LONG: u64 = 32 * 1_024;

/// How the body goes on.
#[derive(Debug)]
enum Body {
    /// Not before it is complete.
    Held,
    /// As it is read.
    Passing(Passing),
}

/// What a request asks for, as far as it was read.
#[derive(Debug)]
struct Request {
    model: String,
    facts: Facts,
}

impl Reading {
    /// A request of which only the headers are here. `length`: what they promise.
    pub(super) fn new(
        config: &Config,
        endpoint: Endpoint,
        payer: Payer,
        length: Option<u64>,
        request: &Headers,
    ) -> Self {
        // One without a length is not held: where a long one has to go on at last, the proxy already holds more of it
        // than it may, and answers 413.
        let is_short = length.is_some_and(|length| length <= config.hold_bytes);
        let body = if config.hold_headers && is_short {
            Body::Held
        } else {
            Body::Passing(Passing::default())
        };
        // What passes is decided about when the path names the model.
        let is_late = matches!(body, Body::Held) || endpoint.model.is_none();
        let trims =
            is_late && !endpoint.is_signed && config.ladders.iter().any(|ladder| ladder.trims(0));
        let named = talk::named(&payer, request);
        let names = is_late && named.is_none() && talk::sticky(&payer).is_some();
        let dialect = endpoint.wire.dialect().filter(|_| trims || names);
        let limits_output = payer.plan.limits.min_output_tokens.is_some()
            || config.ladders.iter().any(|ladder| ladder.limits_output());
        let keeps_limits = limits_output && !endpoint.is_signed;
        // In shadow mode a body goes on even if it cannot be read to its end.
        let is_padded =
            matches!(body, Body::Passing(_)) && !endpoint.is_signed && !payer.plan.limits.shadow;
        let long = length.filter(|&length| is_padded && length >= LONG);
        let promised =
            long.and_then(|length| length.checked_add(most_added(config, &endpoint, keeps_limits)));
        Self {
            scanner: Scanner::new(endpoint.wire.request(), Repeats::Refuse),
            promised,
            payer,
            length,
            messages: dialect.map(|dialect| Box::new(messages::Reader::new(dialect, names))),
            trims,
            names,
            named,
            body,
            headers_held: config.hold_headers,
            keeps_limits,
            is_hurried: config.tightest_sla.is_some() && is_hurried(request),
            room: config.hold_bytes,
            asked: None,
            sent: None,
            early: None,
            unread: None,
            endpoint,
        }
    }

    /// Whose request it is.
    pub(super) fn payer(&self) -> &Payer {
        &self.payer
    }

    /// What changes in the headers whatever the body says.
    pub(super) fn header_changes(&self) -> Vec<HeaderChange> {
        if self.endpoint.is_signed {
            // Any header may be part of what is signed; and no edit will make the length a lie.
            return Vec::new();
        }
        // A compressed answer could not be read.
        let mut changes = vec![HeaderChange::Set("accept-encoding", "identity".into())];
        if matches!(self.body, Body::Passing(_)) {
            // A rewrite may change it, and a stale one would make the rest of this body the next request.
            changes.push(match self.promised {
                Some(promised) => HeaderChange::Set("content-length", promised.into()),
                None => HeaderChange::Remove(b"content-length".to_vec()),
            });
        }
        changes
    }

    /// Whether the headers wait for the body. A model in the path must be decided about before they go on.
    pub(super) fn begin(
        &mut self,
        config: &Config,
        store: &impl Store,
        now: Timestamp,
    ) -> Result<Step, Box<Step>> {
        if self.headers_held {
            return Ok(Step::pause());
        }
        let Some(request) = self
            .request()
            .map_err(|fault| self.invalid(config, fault, store, now))?
        else {
            return Ok(Step::default());
        };
        let mut step = self.admit(config, request, store, now)?;
        step.headers.extend(self.decided_headers());
        Ok(step)
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
    pub(super) fn read(
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
        if let Some(messages) = &mut self.messages {
            messages.feed(chunk);
        }
        let is_complete = self.is_complete();
        if self.breaks_promise(is_end) {
            return Err(self.invalid(config, Fault::WrongLength, store, now));
        }
        if is_end && !is_complete {
            return Err(self.invalid(config, Fault::Body(Malformed::Truncated), store, now));
        }
        if !is_complete && matches!(self.body, Body::Held) {
            return Ok(Step::pause());
        }
        let mut step = Step::default();
        // Most chunks of a long body are a part of one text, which changes nothing of this.
        let has_news = self.scanner.take_news();
        let request = match has_news {
            true => self.request(),
            false => Ok(self.asked.take()),
        };
        let request = request.map_err(|fault| self.invalid(config, fault, store, now))?;
        let waits = request
            .as_ref()
            .is_some_and(|request| self.waits(config, request));
        let may_edit = !was_complete && (has_news || request.is_some() || self.keeps_back());
        if waits {
            self.asked = request;
        } else if let Some(request) = request {
            match &mut self.sent {
                None => step = self.admit(config, request, store, now)?,
                Some(sent) if is_complete && !was_complete && !sent.is_settled => {
                    step = self.amend(config, request, store, now)?;
                }
                Some(_) => {}
            }
        }
        if let Some(sent) = self.sent.as_mut().filter(|_| is_complete && !was_complete) {
            sent.note_limit(&self.scanner);
            step = step.reporting(sent.admitted());
        }
        if let Some(sent) = self.sent.as_mut().filter(|_| is_end) {
            sent.begin_wait(now);
        }
        if let Err(fault) = self.forward(chunk, may_edit, &mut step) {
            let refused = self.invalid(config, fault, store, now);
            return Err(Box::new(refused.reporting(step)));
        }
        self.headers_held = false;
        Ok(step)
    }

    /// The admitted request, if all of it was read and has gone on, and nothing follows from when it ends.
    pub(super) fn take_complete(&mut self) -> Option<Box<Sent>> {
        let is_awaited = self.sent.as_ref().is_some_and(|sent| sent.wait.is_some());
        if self.is_complete() && !self.breaks_promise(true) && !is_awaited {
            self.sent.take()
        } else {
            None
        }
    }

    /// Whether the body is not as long as the client said, where the upstream's length follows from that. Not all versions of
    /// HTTP see to it.
    fn breaks_promise(&self, is_end: bool) -> bool {
        let said = self.length.filter(|_| self.promised.is_some());
        said.is_some_and(|said| {
            let here = self.scanner.offset();
            here > said || is_end && here < said
        })
    }

    /// What is asked for; `None` while the model is not known.
    fn request(&self) -> Result<Option<Request>, Fault> {
        let model = match &self.endpoint.model {
            Some(model) => Some(model.name.clone()),
            None if self.endpoint.wire.may_omit_model(&self.scanner)
                && self.scanner.value(0).is_none() =>
            {
                self.is_complete().then(String::new)
            }
            None => body_model(&self.scanner)?.map(|(name, _)| name),
        };
        let Some(model) = model else { return Ok(None) };
        let facts = self.endpoint.wire.facts(&self.scanner)?;
        Ok(Some(Request { model, facts }))
    }

    /// Whether the admission waits for more of the body, which is kept back here as far as there is room.
    fn waits(&self, config: &Config, request: &Request) -> bool {
        if self.sent.is_some() || self.is_complete() || self.endpoint.model.is_some() {
            return false;
        }
        let place = place(&config.ladders, &request.model);
        let kept = self
            .first_kept()
            .map_or(0, |start| self.scanner.offset().saturating_sub(start));
        let limits = &self.payer.plan.limits;
        let may_depend = limits.min_output_tokens.is_some()
            || !limits.never_downgrade && depends_on_rest(&self.endpoint, place)
            || self.may_trim() && place.is_some_and(|place| place.ladder.trims(place.asked))
            || self.may_name() && place.is_some();
        kept < self.room && may_depend
    }

    /// Whether the conversation can still be shortened.
    fn may_trim(&self) -> bool {
        self.trims
            && self.messages.as_ref().is_some_and(|messages| {
                let has_gone = messages.start().is_some_and(|start| start < self.gone());
                !messages.is_odd() && !has_gone
            })
    }

    /// Whether the body names its conversation, once it is read.
    fn may_name(&self) -> bool {
        let messages = self.messages.as_ref().filter(|_| self.names);
        messages.is_some_and(|messages| !messages.is_odd())
    }

    /// The request's conversation, if that is known and matters.
    fn conversation(&self) -> Option<conversation::Name> {
        let messages = self.messages.as_ref();
        let messages = messages.filter(|_| self.is_complete() && self.may_name());
        self.named.or_else(|| messages?.name())
    }

    /// Where the first value begins that may still have to be changed: the model and the messages, until the admission; a
    /// limit of the output, for as long as it is not known how far it is to be lowered.
    fn first_kept(&self) -> Option<u64> {
        let limits = self.endpoint.wire.output_limits();
        let (model, may_lower) = match &self.sent {
            None => (self.endpoint.model.is_none(), self.keeps_limits),
            Some(sent) => (
                false,
                limits.have_floor && sent.admission.most_output.is_some(),
            ),
        };
        let object = limits.object.map(|(index, _)| index);
        let limits = limits.keys.iter().copied().chain(object);
        let kept = model
            .then_some(0)
            .into_iter()
            .chain(limits.filter(|_| may_lower));
        let starts = kept.filter_map(|index| self.scanner.begun(index).map(|field| field.start));
        let messages = self.messages.as_ref().filter(|_| self.sent.is_none());
        let messages = messages.filter(|messages| self.trims && !messages.is_odd());
        let starts = starts.chain(messages.and_then(|messages| messages.start()));
        starts.filter(|&start| start >= self.gone()).min()
    }

    /// Offset of the first byte that has not gone on.
    fn gone(&self) -> u64 {
        match &self.body {
            Body::Held => 0,
            Body::Passing(passing) => passing.gone(),
        }
    }

    /// Whether some of the body has to go on yet that was read before.
    fn keeps_back(&self) -> bool {
        matches!(&self.body, Body::Passing(passing) if passing.keeps_back())
    }

    /// Whether a limit of the output has gone on, so that it cannot be lowered any more.
    fn has_let_a_limit_go(&self) -> bool {
        let limits = self.endpoint.wire.output_limits().keys.iter();
        let mut begun = limits.filter_map(|&index| self.scanner.begun(index));
        begun.any(|field| field.start < self.gone())
    }

    /// From where on the body must be kept back.
    fn keep_from(&self) -> Option<u64> {
        if self.is_complete() {
            return None;
        }
        let is_within = |start: &u64| self.scanner.offset().saturating_sub(*start) < self.room;
        let kept = self.first_kept().filter(is_within);
        kept.into_iter().chain(self.scanner.open_since()).min()
    }

    /// Lets the body go on, changed where it must be, and the headers with it. `may_edit`: an edit may be due, as where its
    /// object was not complete before.
    fn forward(&mut self, chunk: &[u8], may_edit: bool, step: &mut Step) -> Result<(), Fault> {
        let ends = may_edit && self.is_complete();
        let rest = self
            .length
            .unwrap_or(0)
            .saturating_sub(self.scanner.offset());
        let keep_from = self.keep_from();
        let goes_on = keep_from.is_none_or(|start| start > self.gone());
        // What comes after the object is white space: no byte of it is changed, however many chunks it comes in. Nor is one
        // while all is kept back.
        let edits = match may_edit && goes_on {
            true => self.edits(),
            false => Vec::new(),
        };
        match &mut self.body {
            Body::Held => {
                if let Some(length) = self.length.filter(|_| !edits.is_empty()) {
                    let length = new_length(length, &edits).into();
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
                let mut passed = passing.pass(chunk, &edits, keep_from);
                if let Some(promised) = self.promised.filter(|_| ends) {
                    let sent = passing.sent().saturating_add(rest);
                    let padding = promised.checked_sub(sent);
                    let padding = padding.and_then(|padding| usize::try_from(padding).ok());
                    // There always is room: the edits are no longer than [`most_added`] says.
                    let padding = padding.ok_or(Fault::WrongLength)?;
                    let passed = passed.get_or_insert_with(|| chunk.to_vec());
                    passed.resize(passed.len().saturating_add(padding), b' ');
                }
                if let Some(bytes) = passed {
                    step.body = BodyChange::Replace(bytes);
                }
            }
        }
        if self.headers_held {
            step.headers.extend(self.decided_headers());
        }
        Ok(())
    }

    /// What the decision changes in the request's headers.
    fn decided_headers(&self) -> Vec<HeaderChange> {
        let Some(sent) = &self.sent else {
            return Vec::new();
        };
        // What the client sent of that name was removed.
        let mut changes = vec![HeaderChange::Add(headers::TIER, (&sent.tier).into())];
        if let Some(model) = self.endpoint.model.as_ref().filter(|_| sent.is_changed()) {
            changes.push(HeaderChange::Set(
                ":path",
                model.path_for(&sent.model).into(),
            ));
        }
        changes
    }

    /// The edits that are known so far, sorted.
    fn edits(&self) -> Vec<Edit> {
        if self.endpoint.is_signed {
            return Vec::new();
        }
        let wire = self.endpoint.wire;
        let asking = wire.ask_usage(&self.scanner);
        let asking = asking.filter(|_| self.endpoint.takes_options);
        let mut edits: Vec<Edit> = Vec::new();
        // A few, most of them in order.
        let mut add = |edit: Edit| {
            let place = edits.partition_point(|other| other.start <= edit.start);
            edits.insert(place, edit);
        };
        asking.into_iter().for_each(&mut add);
        if let Some(sent) = &self.sent {
            let model = sent.model_edit(&self.scanner);
            model.into_iter().for_each(&mut add);
            let trimmed = sent.trimmed.iter().flat_map(|trimmed| &trimmed.edits);
            trimmed.cloned().for_each(&mut add);
            if let Some(most) = sent.admission.most_output {
                let limits = limit_output(wire, &self.scanner, most);
                limits.into_iter().for_each(&mut add);
            }
        }
        edits
    }

    /// Chooses a tier and reserves.
    fn admit(
        &mut self,
        config: &Config,
        request: Request,
        store: &impl Store,
        now: Timestamp,
    ) -> Result<Step, Box<Step>> {
        let cuts = self.cuts(config, &request);
        let mut ask = self.ask(config, &request);
        ask.conditions.cuts = cuts.as_ref();
        if self.has_let_a_limit_go() {
            ask.scope.least_output = None;
        }
        let name = self.conversation();
        ask.conditions.conversation =
            name.and_then(|name| talk::look(store, &self.payer, &ask, &name, now));
        // Last, since whether the request would do as a probe follows from all else.
        let watched = self.slow_tiers(&ask, &request.facts, store, now);
        ask.conditions.slow = watched.report;
        let Done { report, troubles } =
            admission::admit(store, &self.payer, &ask, config.failure_mode, now);
        let mut so_far = Step {
            troubles: troubles.and(watched.troubles),
            ..Step::default()
        };
        let wire = self.endpoint.wire;
        let admission = match report {
            Outcome::Admitted(admission) => admission,
            Outcome::Refused(refused) => {
                let about = Some(About {
                    record: &refused.record,
                    room: refused.room.as_deref(),
                    tier: tier_name(&ask, refused.tier),
                    requested_model: &request.model,
                    model: ask.model_at(refused.tier),
                });
                let denial = Denial::Limit(refused.refusal);
                let step = refuse(wire, denial, Some(&self.payer), about, now);
                return Err(Box::new(step.reporting(so_far)));
            }
            Outcome::Unavailable => {
                let step = refuse(wire, Denial::Unavailable, Some(&self.payer), None, now);
                return Err(Box::new(step.reporting(so_far)));
            }
        };
        let mut sent = Sent::new(
            self.endpoint.clone(),
            self.payer.clone(),
            admission,
            &ask,
            request.facts.clone(),
        );
        sent.wait = Wait::of(config, &ask, sent.admission.tier, self.is_hurried);
        if let Some(name) = name {
            let lost = talk::note(store, &self.payer, &ask, &sent.admission, &name, now);
            so_far.troubles = so_far.troubles.and(lost);
        }
        let would = sent.admission.shadow;
        sent.shadow = would.map(|would| shadow::told(would, &ask));
        let mut step = so_far;
        if let Some(response) = self.early.take() {
            match refused(&response) {
                Some(exit) => {
                    // It was answered before it ended.
                    sent.wait = None;
                    step = step.reporting(sent.settle(config, store, exit, now));
                }
                None => sent.reader = Some(sent.reader(&response)),
            }
        }
        self.sent = Some(Box::new(sent));
        Ok(step)
    }

    /// The tiers that miss the tenant's SLA. A request that has to be decided about before it says whether it is to be
    /// streamed is taken to be.
    fn slow_tiers(
        &self,
        ask: &Ask<'_>,
        facts: &Facts,
        store: &impl Store,
        now: Timestamp,
    ) -> Done<TierSet> {
        let answer = answer(&self.endpoint, facts.stream || !self.is_complete());
        sla::slow(store, &self.payer, ask, answer, now)
    }

    /// The body is complete and was admitted before it was: what it may cost is known better now.
    fn amend(
        &mut self,
        config: &Config,
        request: Request,
        store: &impl Store,
        now: Timestamp,
    ) -> Result<Step, Box<Step>> {
        let ask = self.ask(config, &request);
        let wire = self.endpoint.wire;
        let Some(sent) = &mut self.sent else {
            return Ok(Step::default());
        };
        // It may have no limit after all, or one that cannot be lowered so far.
        let most = sent.admission.most_output.zip(ask.scope.least_output);
        sent.admission.most_output = most.map(|(most, least)| most.max(least));
        let Done { report, troubles } = admission::amend(
            store,
            &self.payer,
            &mut sent.admission,
            &ask,
            config.failure_mode,
            now,
        );
        sent.facts = request.facts.clone();
        sent.shadow = sent.admission.shadow.map(|would| shadow::told(would, &ask));
        let so_far = Step {
            troubles,
            ..Step::default()
        };
        let step = match report {
            Amended::Held => return Ok(so_far),
            Amended::Refused(refused) => {
                let about = Some(About {
                    record: &refused.record,
                    room: refused.room.as_deref(),
                    tier: sent.tier.clone(),
                    requested_model: &sent.requested_model,
                    model: &sent.model,
                });
                let denial = Denial::Limit(refused.refusal);
                refuse(wire, denial, Some(&self.payer), about, now)
            }
            Amended::Unavailable => {
                let returned = sent.settle(config, store, Exit::Unsent, now);
                refuse(wire, Denial::Unavailable, Some(&self.payer), None, now).reporting(returned)
            }
        };
        Err(Box::new(step.reporting(so_far)))
    }

    fn ask<'a>(&self, config: &'a Config, request: &'a Request) -> Ask<'a> {
        let place = place(&config.ladders, &request.model);
        let is_read = self.is_complete();
        Ask {
            model: &request.model,
            place,
            estimate: self.estimate(&request.facts),
            unlisted_price: config.unlisted_price.as_ref(),
            scope: scope(
                &self.endpoint,
                &request.facts,
                &request.model,
                place,
                is_read,
            ),
            conditions: Conditions::default(),
        }
    }

    /// Where the conversation can be cut, if a tier of the request may do so and none of it has gone on.
    fn cuts(&self, config: &Config, request: &Request) -> Option<Cuts> {
        let messages = self.messages.as_ref()?;
        let place = place(&config.ladders, &request.model)?;
        let may_be_cut = self.is_complete() && self.may_trim() && place.ladder.trims(place.asked);
        may_be_cut.then(|| Cuts::of(messages.messages()))
    }

    /// What the request may cost, by what was read of it. Before the body is complete an output limit may still
    /// come, so none is taken for granted: whatever it is, it is reserved before the last byte goes on.
    fn estimate(&self, facts: &Facts) -> Estimate {
        let is_complete = self.is_complete();
        Estimate {
            body_bytes: self.length.unwrap_or(0).max(self.scanner.offset()),
            bytes_per_token: BytesPerToken::PRIOR,
            output_limit: facts
                .output_limit
                .or_else(|| (!is_complete).then_some(Tokens(0))),
            answer: Tokens(PRIOR_ANSWER),
            choices: facts.choices,
        }
    }

    /// Refuses a body that is not what it should be, and returns what is held for it. In shadow mode that is only told.
    fn invalid(
        &mut self,
        config: &Config,
        fault: Fault,
        store: &impl Store,
        now: Timestamp,
    ) -> Box<Step> {
        let denial = Denial::InvalidBody(fault);
        if self.payer.plan.limits.shadow {
            return Box::new(self.pass_invalid(denial));
        }
        let step = refuse(self.endpoint.wire, denial, Some(&self.payer), None, now);
        let returned = self
            .sent
            .take()
            .map(|mut sent| sent.settle(config, store, Exit::Unsent, now));
        Box::new(step.reporting(returned.unwrap_or_default()))
    }

    /// What is told of a body that goes on although it is not what it should be.
    fn pass_invalid(&mut self, denial: Denial) -> Step {
        let was_told = self.is_complete();
        let shadow = shadow::denied(denial);
        match &mut self.sent {
            Some(sent) => {
                let field = shadow.field();
                sent.shadow = Some(shadow);
                match was_told {
                    true => Step {
                        fields: vec![field],
                        ..Step::default()
                    },
                    false => sent.admitted(),
                }
            }
            None => {
                let step = shadow::unread(&self.payer, &shadow);
                self.unread = Some(shadow);
                step
            }
        }
    }

    /// Lets all go on as it is, and reads no more of it.
    pub(super) fn let_go(&mut self, chunk: &[u8], step: &mut Step) -> Stage {
        if let Body::Passing(passing) = &mut self.body
            && let Some(bytes) = passing.pass(chunk, &[], None)
        {
            step.body = BodyChange::Replace(bytes);
        }
        if self.headers_held {
            step.headers.extend(self.decided_headers());
        }
        match (self.sent.take(), self.unread.take()) {
            (Some(sent), _) => Stage::Sent(sent),
            (None, Some(shadow)) => Stage::Unread(Box::new(shadow)),
            (None, None) => Stage::Idle,
        }
    }
}

impl Sent {
    fn new(
        endpoint: Endpoint,
        payer: Payer,
        admission: Admission,
        ask: &Ask<'_>,
        facts: Facts,
    ) -> Self {
        let tier = admission.tier;
        let without = admission.estimate.body_bytes;
        let gone = ask.estimate.body_bytes.saturating_sub(without);
        let trimmed = ask.conditions.cuts.and_then(|cuts| {
            let cut = cuts.that_takes(gone)?;
            Some(Trimmed {
                messages: cut.messages,
                edits: cuts.edits(cut),
            })
        });
        let requested_model = Name::from(ask.model);
        let place = ask.place.filter(|place| tier > place.asked);
        let lower = place.and_then(|place| place.ladder.tiers.get(tier));
        Self {
            endpoint,
            tier: tier_name(ask, tier),
            model: lower.map_or(&requested_model, |tier| &tier.model).clone(),
            price: ask.price(tier).copied(),
            asked_price: ask.price(ask.place.map_or(0, |place| place.asked)).copied(),
            payer,
            admission,
            requested_model,
            facts,
            limited_to: None,
            shadow: None,
            trimmed,
            reader: None,
            wait: None,
            is_settled: false,
        }
    }

    /// Another model serves than the one that was asked for.
    pub(super) fn is_changed(&self) -> bool {
        self.model != self.requested_model
    }

    /// The model in the body, even where the path names it: a server behind might heed either.
    fn model_edit(&self, body: &Scanner) -> Option<Edit> {
        if !self.is_changed() || !self.endpoint.wire.names_model() {
            return None;
        }
        let field = body.value(0)?;
        Some(Edit {
            start: field.start,
            end: field.end?,
            with: quoted(&self.model).into_bytes(),
        })
    }

    /// The body is complete: whether its output was limited is to be told.
    fn note_limit(&mut self, body: &Scanner) {
        let most = self.admission.most_output;
        let wire = self.endpoint.wire;
        let lowers = |most: &u64| !limit_output(wire, body, *most).is_empty();
        self.limited_to = most.filter(lowers);
        if let Some(shadow) = &mut self.shadow {
            shadow.most_output = shadow.most_output.filter(lowers);
        }
    }

    /// What is counted and told once the admission is final.
    fn admitted(&self) -> Step {
        let tenant = label(&self.payer);
        let decided = self.decided();
        let (decision, reason) = (decided.decision, decided.reason);
        let mut fields = Vec::with_capacity(8);
        fields.extend(telemetry::decided(decided));
        fields.extend(self.shadow.as_ref().map(Shadow::field));
        let here = || (tenant.clone(), self.tier.clone());
        let (whose, tier) = here();
        let mut metrics = vec![telemetry::request(whose, tier, decision)];
        let (whose, tier) = here();
        if self.is_changed() {
            metrics.push(telemetry::downgraded(whose, tier, reason));
        } else if !reason.is_empty() {
            metrics.push(telemetry::kept(whose, tier, reason));
        }
        let shadow = self.shadow.as_ref();
        metrics.extend(shadow.map(|shadow| shadow.metric(tenant.clone())));
        if let Some(trimmed) = &self.trimmed {
            let (metric, field) = telemetry::trimmed(tenant, trimmed.messages);
            metrics.push(metric);
            fields.push(field);
        }
        let part = self.admission.part.as_ref();
        metrics.extend(part.and_then(|part| part.taken()));
        Step {
            metrics,
            fields,
            ..Step::default()
        }
    }
}

/// By how much all edits of a body together can make it longer, in bytes. What is not used of it is made up for by white
/// space after the object.
fn most_added(config: &Config, endpoint: &Endpoint, lowers_limits: bool) -> u64 {
    /// Limits of at most twenty digits, and the longest name under which one is added.
    const LIMITS: u64 = 128;
    let ladders = config.ladders.iter();
    let model = ladders.map(Ladder::longest_model).max();
    let model = model.filter(|_| endpoint.wire.names_model());
    let asking = endpoint.wire.most_added_to_ask();
    let asking = if endpoint.takes_options { asking } else { 0 };
    let limits = if lowers_limits { LIMITS } else { 0 };
    model
        .unwrap_or(0)
        .saturating_add(asking)
        .saturating_add(limits)
}

pub(super) fn tier_name(ask: &Ask<'_>, tier: usize) -> Label {
    let tier = ask.place.and_then(|place| place.ladder.tiers.get(tier));
    tier.map_or_else(|| telemetry::UNLISTED.into(), |tier| (&tier.name).into())
}
