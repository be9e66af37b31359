//! One request and its response: read the host, ask the exchange, apply its step. Nothing is decided here.

use std::borrow::Cow;
use std::rc::Rc;

use crate::config::Config;
use crate::exchange::{BodyChange, Exchange, HeaderChange, Next, Step};
use crate::host::{Buffer, Host, Map};
use crate::rewrite::splice;
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
}

impl Filter {
    pub(crate) fn new(config: Rc<Config>) -> Self {
        Self {
            exchange: Exchange::new(config),
            held: 0,
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
        apply(host, step, Map::Request, (Buffer::RequestBody, 0), &[])
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
            self.held = 0;
            return Action::Continue;
        }
        let step = self.exchange.request_body(&chunk, is_end, host, host.now());
        // All of what is held is at hand where it came at once.
        let at_hand = if self.held == 0 { &chunk[..] } else { &[] };
        let action = apply(
            host,
            step,
            Map::Request,
            (Buffer::RequestBody, size),
            at_hand,
        );
        self.held = if action == Action::Pause { size } else { 0 };
        action
    }

    pub(crate) fn request_trailers(&mut self, host: &Host) -> Action {
        let trailers = host.headers(Map::RequestTrailers);
        let step = self.exchange.request_trailers(&trailers, host, host.now());
        apply(
            host,
            step,
            Map::RequestTrailers,
            (Buffer::RequestBody, 0),
            &[],
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
        apply(host, step, Map::Response, (Buffer::ResponseBody, 0), &[])
    }

    pub(crate) fn response_body(&mut self, host: &Host, size: usize, is_end: bool) -> Action {
        if !self.exchange.reads_response() {
            return Action::Continue;
        }
        let chunk = host.bytes(Buffer::ResponseBody, 0, size);
        let step = self
            .exchange
            .response_body(&chunk, is_end, host, host.now());
        apply(host, step, Map::Response, (Buffer::ResponseBody, size), &[])
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
            (Buffer::ResponseBody, 0),
            &[],
        )
    }

    /// It is over.
    pub(crate) fn log(&mut self, host: &Host) {
        if !self.exchange.is_over() {
            let step = self.exchange.finish(host, host.now());
            report(host, &step);
        }
    }
}

/// Does what a step says. `buffer`: with how many bytes are in it. `at_hand`: its first bytes, where they were read just now.
fn apply(host: &Host, step: Step, map: Map, buffer: (Buffer, usize), at_hand: &[u8]) -> Action {
    report(host, &step);
    if let Next::Reply(reply) = &step.next {
        host.reply(reply.status, &reply.details, &reply.headers, &reply.body);
        return Action::Pause;
    }
    for change in &step.headers {
        match change {
            HeaderChange::Set(name, value) => host.set_header(map, name, value),
            HeaderChange::Remove(name) => host.remove_header(map, name),
        }
    }
    if !change_body(host, &step.body, buffer, at_hand) && matches!(map, Map::Request) {
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
fn change_body(
    host: &Host,
    change: &BodyChange,
    (buffer, size): (Buffer, usize),
    at_hand: &[u8],
) -> bool {
    match change {
        BodyChange::Keep => true,
        BodyChange::Replace(bytes) => host.replace_start(buffer, size, size, bytes),
        BodyChange::Edit(edits) => {
            let last = edits.last().and_then(|edit| usize::try_from(edit.end).ok());
            let last = last.unwrap_or(size);
            let prefix: Cow<'_, [u8]> = match at_hand.get(..last) {
                Some(prefix) => prefix.into(),
                None => host.bytes(buffer, 0, last).into(),
            };
            let edited = splice(&prefix, 0, edits);
            if host.replace_start(buffer, prefix.len(), size, &edited) {
                return true;
            }
            // Hosts before Envoy 1.36 replace all or nothing.
            let rest = host.bytes(buffer, prefix.len(), size.saturating_sub(prefix.len()));
            host.replace_start(buffer, size, size, &[edited, rest].concat())
        }
    }
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
    let decides = |(key, _): &Field| *key == telemetry::DECISION;
    if log::log_enabled!(log::Level::Debug) && step.fields.iter().any(decides) {
        let words = step
            .fields
            .iter()
            .map(|(key, value)| format!("{key}={value:?}"));
        log::debug!("{}", words.collect::<Vec<_>>().join(" "));
    }
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
