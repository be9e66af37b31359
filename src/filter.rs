//! One request and its response: read the host, ask the exchange, apply its step. Nothing is decided here.

use std::rc::Rc;

use crate::config::Config;
use crate::exchange::{BodyChange, Exchange, HeaderChange, Next, Step};
use crate::host::{Buffer, Host, Map};
use crate::payer::Payer;
use crate::rewrite::{Edit, Kept, splice};
use crate::store::Troubles;
use crate::telemetry::{self, Field, Metric};
use crate::units::Timestamp;

/// Whether the proxy goes on with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Action {
    Continue = 0,
    Pause = 1,
}

/// One request and its response.
pub(crate) struct Filter {
    exchange: Exchange,
    /// Bytes of the request's body that are held and were given to the exchange already.
    held: usize,
    /// Those bytes, from the first one on and as far as there was room for them.
    kept: Kept,
}

/// Bytes of held bodies that are kept, of all requests of a worker. What is not kept is read again where it is to be changed.
const MOST_KEPT: usize = 1_536 * 1_024;

/// Fewest bytes before an edit that are put back where they are, and not copied to stand before it.
const MANY: usize = 16 * 1_024;

impl Filter {
    pub(crate) fn new(config: Rc<Config>) -> Self {
        Self {
            exchange: Exchange::new(config),
            held: 0,
            kept: Kept::default(),
        }
    }

    pub(crate) fn request_headers(&mut self, host: &Host, is_end: bool) -> Action {
        let headers = host.headers(Map::Request);
        #[cfg(feature = "inject-trap")]
        if headers.only("x-trap").is_some() {
            std::process::abort();
        }
        let step = self
            .exchange
            .request_headers(&headers, is_end, host, host, host.now());
        log_decision(&self.exchange, &step);
        apply(
            host,
            step,
            Map::Request,
            Body::unknown(Buffer::RequestBody, 0),
        )
    }

    pub(crate) fn request_body(&mut self, host: &Host, size: usize, is_end: bool) -> Action {
        if !self.exchange.reads_request() {
            return Action::Continue;
        }
        // While the body is held the host shows all of it each time: read only what is new.
        let chunk = host.bytes(
            Buffer::RequestBody,
            self.held,
            size.saturating_sub(self.held),
        );
        if chunk.is_empty() && is_end && self.exchange.end_request() {
            self.let_go(host);
            return Action::Continue;
        }
        let step = self.exchange.request_body(&chunk, is_end, host, host.now());
        self.keep(host, chunk);
        let body = Body {
            buffer: Buffer::RequestBody,
            size,
            known: Some(&self.kept),
        };
        log_decision(&self.exchange, &step);
        let action = apply(host, step, Map::Request, body);
        if action == Action::Pause {
            self.held = size;
        } else {
            self.let_go(host);
        }
        action
    }

    /// Keeps a chunk behind those before, if all of them are kept and there is room.
    fn keep(&mut self, host: &Host, chunk: Vec<u8>) {
        let all = host.kept.get().saturating_add(chunk.len());
        if self.kept.length() == self.held && all <= MOST_KEPT {
            host.kept.set(all);
            self.kept.push(chunk);
        }
    }

    /// Nothing is held any more.
    fn let_go(&mut self, host: &Host) {
        let kept = std::mem::take(&mut self.kept).length();
        host.kept.set(host.kept.get().saturating_sub(kept));
        self.held = 0;
    }

    pub(crate) fn request_trailers(&mut self, host: &Host) -> Action {
        let trailers = host.headers(Map::RequestTrailers);
        let step = self.exchange.request_trailers(&trailers, host, host.now());
        log_decision(&self.exchange, &step);
        apply(
            host,
            step,
            Map::RequestTrailers,
            Body::unknown(Buffer::RequestBody, 0),
        )
    }

    pub(crate) fn response_headers(&mut self, host: &Host, is_end: bool) -> Action {
        if !self.exchange.awaits_response() {
            return Action::Continue;
        }
        let headers = host.headers(Map::Response);
        let step = self
            .exchange
            .response_headers(&headers, is_end, host, host.now());
        apply(
            host,
            step,
            Map::Response,
            Body::unknown(Buffer::ResponseBody, 0),
        )
    }

    pub(crate) fn response_body(&mut self, host: &Host, size: usize, is_end: bool) -> Action {
        if !self.exchange.reads_response() {
            return Action::Continue;
        }
        let chunk = host.bytes(Buffer::ResponseBody, 0, size);
        let step = self
            .exchange
            .response_body(&chunk, is_end, host, host.now());
        apply(
            host,
            step,
            Map::Response,
            Body::unknown(Buffer::ResponseBody, size),
        )
    }

    pub(crate) fn response_trailers(&mut self, host: &Host) -> Action {
        if !self.exchange.awaits_response() {
            return Action::Continue;
        }
        let trailers = host.headers(Map::ResponseTrailers);
        let step = self.exchange.response_trailers(&trailers, host, host.now());
        apply(
            host,
            step,
            Map::ResponseTrailers,
            Body::unknown(Buffer::ResponseBody, 0),
        )
    }

    /// It is over, also for one that was refused, or left by its client, while its body was held.
    pub(crate) fn log(&mut self, host: &Host) {
        self.let_go(host);
        if !self.exchange.is_over() {
            let step = self.exchange.finish(host, host.now());
            log_decision(&self.exchange, &step);
            report(host, &step);
        }
    }
}

/// The part of a body that the host shows.
#[derive(Clone, Copy)]
struct Body<'a> {
    buffer: Buffer,
    /// Its bytes.
    size: usize,
    /// The first of them, if they were kept.
    known: Option<&'a Kept>,
}

impl Body<'_> {
    fn unknown(buffer: Buffer, size: usize) -> Self {
        Self {
            buffer,
            size,
            known: None,
        }
    }
}

/// Does what a step says.
fn apply(host: &Host, step: Step, map: Map, body: Body<'_>) -> Action {
    report(host, &step);
    if let Next::Reply(reply) = &step.next {
        host.reply(reply.status, &reply.details, &reply.headers, &reply.body);
        return Action::Pause;
    }
    for change in &step.headers {
        match change {
            HeaderChange::Set(name, value) => host.set_header(map, name, value),
            HeaderChange::Add(name, value) => host.add_header(map, name, value),
            HeaderChange::Remove(name) => host.remove_header(map, name),
        }
    }
    if !change_body(host, &step.body, body) && matches!(map, Map::Request) {
        // The headers, or what has gone on, may tell of another length: the rest would be the next request.
        host.reply(500, "bursar_body_unchanged", &[], "");
        return Action::Pause;
    }
    match step.next {
        Next::Continue | Next::Reply(_) => Action::Continue,
        Next::Pause => Action::Pause,
    }
}

/// Says whether it did.
fn change_body(host: &Host, change: &BodyChange, body: Body<'_>) -> bool {
    match change {
        BodyChange::Keep => true,
        BodyChange::Replace(bytes) => host.replace_start(body.buffer, body.size, body.size, bytes),
        BodyChange::Edit(edits) => edit(host, edits, body),
    }
}

/// Makes edits of a body of which all is held. Only what stands before the last one has to be put into its place.
fn edit(host: &Host, edits: &[Edit], body: Body<'_>) -> bool {
    let Body { buffer, size, .. } = body;
    let place = |offset: Option<u64>| offset.and_then(|offset| usize::try_from(offset).ok());
    let start = place(edits.first().map(|edit| edit.start)).unwrap_or(0);
    let end = place(edits.last().map(|edit| edit.end)).unwrap_or(size);
    let read;
    let before = match body.known.filter(|kept| kept.length() >= end) {
        Some(kept) => kept,
        None => {
            read = Kept::from(host.bytes(buffer, 0, end));
            &read
        }
    };
    if before.length() < end {
        // The host does not show what it holds.
        return false;
    }
    let stays = if start >= MANY { start } else { 0 };
    let changed = splice(&before.part(stays, end).concat(), length(stays), edits);
    if !host.replace_start(buffer, end, size, &changed) {
        // Hosts before Envoy 1.36 replace all or nothing.
        let mut all = before.part(0, stays);
        let rest = host.bytes(buffer, end, size.saturating_sub(end));
        all.extend([changed.as_slice(), &rest]);
        return host.replace_start(buffer, size, size, &all.concat());
    }
    let mut unchanged = before.part(0, stays).into_iter().rev();
    unchanged.all(|bytes| host.prepend(buffer, bytes))
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn report(host: &Host, step: &Step) {
    for metric in &step.metrics {
        host.count(metric);
    }
    if step.troubles != Troubles::default() {
        complain(host, &step.troubles);
    }
    if let Some(part) = &step.part {
        tell(host, |now| part.metric(host, now));
    }
    for field in &step.fields {
        host.tell(field);
    }
}

/// Logs a decision.
fn log_decision(exchange: &Exchange, step: &Step) {
    let has = |key| step.fields.iter().any(|(known, _)| *known == key);
    if !log::log_enabled!(log::Level::Debug) || !has(telemetry::DECISION) {
        return;
    }
    let payer = exchange.payer().filter(|_| !has(telemetry::TENANT));
    let whose: Vec<Field> = payer.into_iter().flat_map(Payer::identified).collect();
    let words = whose.iter().chain(&step.fields);
    let words = words.map(|(key, value)| format!("{key}={:?}", value.to_string()));
    log::debug!("{}", words.collect::<Vec<_>>().join(" "));
}

fn complain(host: &Host, troubles: &Troubles) {
    for metric in telemetry::troubles(troubles) {
        host.count(&metric);
    }
    if troubles.corrupt && !host.complained.replace(true) {
        log::warn!(
            "bursar found a value that is no record of this version under a key of its own in shared data; it was \
             treated as absent (failure_mode allow) or replaced. Does another plugin use the vm_id `bursar`?"
        );
    }
}

/// Sets a gauge of what is left, until it tells what is. Bounded: whoever writes in between tells it too.
fn tell(host: &Host, gauge: impl Fn(Timestamp) -> Option<Metric>) {
    let mut told = None;
    for _ in 0..8 {
        let now = gauge(host.now());
        if now == told {
            break;
        }
        now.iter().for_each(|metric| host.count(metric));
        told = now;
    }
}
