//! One request and its response: reads from the host, calls the exchange, and applies the step that it returns. Makes no decisions.

use std::rc::Rc;

use proxy_wasm::types::{Action, BufferType, MapType};

use crate::admission::tenant::Tenant;
use crate::base::units::Timestamp;
use crate::body::rewrite::{BodyPrefix, Edit, splice};
use crate::config::Config;
use crate::edge::host::Host;
use crate::edge::imports;
use crate::exchange::{BodyChange, Exchange, HeaderChange, Next, Step};
use crate::published::log_field::{LogField, LogFields};
use crate::report::log_fields::{self, Entry, Field};
use crate::report::metrics;
use crate::report::metrics::Metric;
use crate::state::store::StateFaults;

/// One request and its response. The request may be parked until another callback brings what it waits for.
pub(crate) struct Stream {
    /// The proxy's id of this context.
    context: u32,
    /// Whether the request waits for its part of a shared budget.
    pub(super) is_parked: bool,
    /// What has arrived while the request was parked: the body's bytes so far, whether the body is complete, and whether trailers ended it.
    meanwhile: Meanwhile,
    /// Whether the request ends with its headers.
    is_end: bool,
    pub(super) host: Rc<Host>,
    exchange: Exchange,
    /// Whether the headers are held until the body comes, and the proxy has shown none of the body yet.
    awaits_body: bool,
    /// Bytes of the request's held body that the exchange has already read.
    held: usize,
    /// A copy of those bytes from the first one on, as far as there was room.
    kept: BodyPrefix,
    /// What the access log will record.
    entry: Entry,
}

/// Most bytes of held bodies that one worker keeps, over all requests. Bytes that are not kept are read again if they must be changed.
const MOST_KEPT: usize = 1_536 * 1_024;

/// If at least this many bytes precede the first edit, they are not copied together with the edited part, but put back in front of it.
const MANY: usize = 16 * 1_024;

/// What has arrived of a request while it was parked.
#[derive(Default)]
struct Meanwhile {
    body: Option<(usize, bool)>,
    has_trailers: bool,
}

impl Stream {
    pub(super) fn new(host: Rc<Host>, config: Rc<Config>, context: u32) -> Self {
        let (held, pressed, warm) = (host.held.clone(), host.pressed.clone(), host.warm.clone());
        Self {
            context,
            is_parked: false,
            meanwhile: Meanwhile::default(),
            is_end: false,
            exchange: Exchange::new(config, held, pressed, warm),
            host,
            awaits_body: false,
            held: 0,
            kept: BodyPrefix::default(),
            entry: Entry::default(),
        }
    }

    /// Keeps a chunk after the earlier ones, if all of those were kept and there is room.
    fn keep(&mut self, chunk: Vec<u8>) {
        let all = self.host.kept.get().saturating_add(chunk.len());
        if self.kept.length() == self.held && all <= MOST_KEPT {
            self.host.kept.set(all);
            self.kept.push(chunk);
        }
    }

    /// No bytes of the body are held any more.
    fn let_go(&mut self) {
        let kept = std::mem::take(&mut self.kept).length();
        self.host
            .kept
            .set(self.host.kept.get().saturating_sub(kept));
        self.held = 0;
    }
}

impl Stream {
    /// Checks again whether a parked request can be forwarded or answered. Returns whether it still waits.
    pub(crate) fn wake(&mut self) -> bool {
        if !self.is_parked || imports::set_effective_context(self.context).is_err() {
            return false;
        }
        if self.check_again() == Action::Continue {
            self.host.continue_request();
        }
        self.is_parked
    }

    /// Handles again what has arrived while the request was parked.
    fn check_again(&mut self) -> Action {
        self.is_parked = false;
        let mut action = self.request_headers(self.is_end);
        if self.is_parked {
            return action;
        }
        let meanwhile = std::mem::take(&mut self.meanwhile);
        if let Some((size, is_end)) = meanwhile.body {
            action = self.request_body(size, is_end);
        }
        if meanwhile.has_trailers {
            action = self.request_trailers();
        }
        action
    }

    pub(super) fn request_headers(&mut self, is_end: bool) -> Action {
        self.is_end = is_end;
        let host = &*self.host;
        let headers = host.headers(MapType::HttpRequestHeaders);
        #[cfg(feature = "inject-trap")]
        if headers.only("x-trap").is_some() {
            std::process::abort();
        }
        if !host.may_park() {
            self.exchange.never_wait();
        }
        let step = self
            .exchange
            .request_headers(&headers, is_end, host, host, host.now());
        log_decision(&self.exchange, &step);
        self.awaits_body = step.next == Next::Pause;
        self.is_parked = step.next == Next::Park;
        apply(
            host,
            step,
            MapType::HttpRequestHeaders,
            Body::unknown(BufferType::HttpRequestBody, 0),
            Log::of(&self.exchange, &mut self.entry),
        )
    }

    /// Whether more may come of a waiting request's body than the proxy can buffer: it would answer 413. The proxy adds the next chunk to
    /// its buffer before it shows that chunk.
    fn outgrows(&self, size: usize) -> bool {
        let most = self.exchange.config().hold_bytes;
        let headers = self.host.headers(MapType::HttpRequestHeaders);
        match headers.body_length() {
            Some(all) => all > most,
            None => length(size) > most / 2,
        }
    }

    pub(super) fn request_body(&mut self, size: usize, is_end: bool) -> Action {
        if self.is_parked {
            self.meanwhile.body = Some((size, is_end));
            if !self.outgrows(size) {
                return Action::Pause;
            }
            self.exchange.never_wait();
            return self.check_again();
        }
        self.awaits_body = false;
        if !self.exchange.reads_request() {
            return Action::Continue;
        }
        let host = Rc::clone(&self.host);
        // While the body is held, the host shows all of it in each callback: read only the new bytes.
        let chunk = host.bytes(
            BufferType::HttpRequestBody,
            self.held,
            size.saturating_sub(self.held),
        );
        if chunk.is_empty() && is_end && self.exchange.end_request() {
            self.let_go();
            return Action::Continue;
        }
        let step = self
            .exchange
            .request_body(&chunk, is_end, &*host, host.now());
        self.keep(chunk);
        let body = Body {
            buffer: BufferType::HttpRequestBody,
            size,
            known: Some(&self.kept),
        };
        log_decision(&self.exchange, &step);
        let log = Log::of(&self.exchange, &mut self.entry);
        let action = apply(&host, step, MapType::HttpRequestHeaders, body, log);
        if action == Action::Pause {
            self.held = size;
        } else {
            self.let_go();
        }
        action
    }

    pub(super) fn request_trailers(&mut self) -> Action {
        if self.is_parked {
            self.meanwhile.has_trailers = true;
            return Action::Pause;
        }
        self.awaits_body = false;
        let host = &*self.host;
        let trailers = host.headers(MapType::HttpRequestTrailers);
        let step = self.exchange.request_trailers(&trailers, host, host.now());
        log_decision(&self.exchange, &step);
        apply(
            host,
            step,
            MapType::HttpRequestTrailers,
            Body::unknown(BufferType::HttpRequestBody, 0),
            Log::of(&self.exchange, &mut self.entry),
        )
    }

    pub(super) fn response_headers(&mut self, is_end: bool) -> Action {
        let host = &*self.host;
        if !self.exchange.awaits_response() {
            return Action::Continue;
        }
        let headers = host.headers(MapType::HttpResponseHeaders);
        let step = self
            .exchange
            .response_headers(&headers, is_end, host, host, host.now());
        apply(
            host,
            step,
            MapType::HttpResponseHeaders,
            Body::unknown(BufferType::HttpResponseBody, 0),
            Log::of(&self.exchange, &mut self.entry),
        )
    }

    pub(super) fn response_body(&mut self, size: usize, is_end: bool) -> Action {
        let host = &*self.host;
        if !self.exchange.reads_response() {
            return Action::Continue;
        }
        let chunk = host.bytes(BufferType::HttpResponseBody, 0, size);
        let now = match self.exchange.times_response(is_end) {
            true => host.now(),
            false => host.lately(),
        };
        let step = self.exchange.response_body(&chunk, is_end, host, now);
        apply(
            host,
            step,
            MapType::HttpResponseHeaders,
            Body::unknown(BufferType::HttpResponseBody, size),
            Log::of(&self.exchange, &mut self.entry),
        )
    }

    pub(super) fn response_trailers(&mut self) -> Action {
        let host = &*self.host;
        if !self.exchange.awaits_response() {
            return Action::Continue;
        }
        let trailers = host.headers(MapType::HttpResponseTrailers);
        let step = self.exchange.response_trailers(&trailers, host, host.now());
        apply(
            host,
            step,
            MapType::HttpResponseTrailers,
            Body::unknown(BufferType::HttpResponseBody, 0),
            Log::of(&self.exchange, &mut self.entry),
        )
    }

    /// The request is over. This is also called if it was refused, or if its client left, while its body was held.
    pub(super) fn end(&mut self) {
        self.is_parked = false;
        self.let_go();
        let host = &*self.host;
        if self.awaits_body {
            warn_of_a_body_that_is_not_shown(host);
        }
        if !self.exchange.is_over() {
            let mut step = self.exchange.finish(host, host, host.now());
            log_decision(&self.exchange, &step);
            let log = &mut Log::of(&self.exchange, &mut self.entry);
            report(host, &mut step, log);
        }
        // All fields in one call, and only at the end: the proxy writes its access log after this.
        if let Some(entry) = self.entry.json() {
            host.set_property(log_fields::ALL, &entry);
        }
    }
}

/// A body, or the part of it that the host shows.
#[derive(Clone, Copy)]
struct Body<'a> {
    buffer: BufferType,
    /// The body's length in bytes.
    size: usize,
    /// The body's first bytes, if they were kept.
    known: Option<&'a BodyPrefix>,
}

impl Body<'_> {
    fn unknown(buffer: BufferType, size: usize) -> Self {
        Self {
            buffer,
            size,
            known: None,
        }
    }
}

/// Writes the fields of the access log.
struct Log<'a> {
    entry: &'a mut Entry,
    /// Fields that are also published as properties of their own.
    apart: LogFields,
}

impl<'a> Log<'a> {
    fn of(exchange: &Exchange, entry: &'a mut Entry) -> Self {
        Self {
            entry,
            apart: exchange.config().log_fields,
        }
    }
}

/// Applies a step.
fn apply(host: &Host, mut step: Step, map: MapType, body: Body<'_>, mut log: Log<'_>) -> Action {
    report(host, &mut step, &mut log);
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
    if !change_body(host, &step.body, body) && matches!(map, MapType::HttpRequestHeaders) {
        // The headers or the forwarded bytes may promise another length; then the upstream would read the rest as the next request.
        host.reply(500, "bursar_body_unchanged", &[], "");
        return Action::Pause;
    }
    match step.next {
        Next::Continue | Next::Reply(_) => Action::Continue,
        Next::Pause | Next::Park => Action::Pause,
    }
}

/// Changes the body. Returns whether the host accepted the change.
fn change_body(host: &Host, change: &BodyChange, body: Body<'_>) -> bool {
    match change {
        BodyChange::Keep => true,
        BodyChange::Replace(bytes) => host.replace_start(body.buffer, body.size, body.size, bytes),
        BodyChange::Edit(edits) => edit(host, edits, body),
    }
}

/// Edits a body that is held as a whole. Only the bytes before the end of the last edit are replaced.
fn edit(host: &Host, edits: &[Edit], body: Body<'_>) -> bool {
    let Body { buffer, size, .. } = body;
    let place = |offset: Option<u64>| offset.and_then(|offset| usize::try_from(offset).ok());
    let start = place(edits.first().map(|edit| edit.start)).unwrap_or(0);
    let end = place(edits.last().map(|edit| edit.end)).unwrap_or(size);
    let read;
    let before = match body.known.filter(|kept| kept.length() >= end) {
        Some(kept) => kept,
        None => {
            read = BodyPrefix::from(host.bytes(buffer, 0, end));
            &read
        }
    };
    if before.length() < end {
        // The host holds more of the body than it shows.
        return false;
    }
    let stays = if start >= MANY { start } else { 0 };
    let changed = splice(&before.part(stays, end).concat(), length(stays), edits);
    if !host.replace_start(buffer, end, size, &changed) {
        // Hosts before Envoy 1.36 can only replace the whole buffer.
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

fn report(host: &Host, step: &mut Step, log: &mut Log<'_>) {
    for metric in &step.metrics {
        host.count(metric);
    }
    if step.faults != StateFaults::default() {
        complain(host, &step.faults);
    }
    if !step.watches.is_empty()
        && let Ok(mut teller) = host.teller.try_borrow_mut()
    {
        step.watches.drain(..).for_each(|watch| teller.watch(watch));
    }
    if let Some(held) = &step.capacity {
        tell(host, |now| held.metric(host, now));
    }
    if !log.apart.is_empty() {
        for (field, value) in &step.fields {
            if log.apart.contains(*field) {
                value.with_bytes(|value| host.set_property(field.property(), value));
            }
        }
    }
    log.entry.extend(std::mem::take(&mut step.fields));
}

/// Logs a decision.
fn log_decision(exchange: &Exchange, step: &Step) {
    let has = |key| step.fields.iter().any(|(known, _)| *known == key);
    if !log::log_enabled!(log::Level::Debug) || !has(LogField::Decision) {
        return;
    }
    let tenant = exchange.tenant().filter(|_| !has(LogField::Tenant));
    let whose: Vec<Field> = tenant.into_iter().flat_map(Tenant::identified).collect();
    let words = whose.iter().chain(&step.fields);
    let words = words.map(|(key, value)| format!("{}={:?}", key.property(), value.to_string()));
    log::debug!("{}", words.collect::<Vec<_>>().join(" "));
}

pub(crate) fn complain(host: &Host, faults: &StateFaults) {
    for metric in metrics::faults(faults) {
        host.count(&metric);
    }
    if faults.corrupt && !host.complained.replace(true) {
        log::warn!(
            "bursar found a value that is no record of this version under a key of its own in shared data; it was \
             treated as absent (failure_mode allow) or replaced. Does another plugin use the vm_id `bursar`?"
        );
    }
}

/// Logs a warning for a request that ended while its headers were held. If bytes of its body had reached the proxy, the proxy kept them
/// from bursar, and the client waited in vain; if not, the client left before it sent any.
fn warn_of_a_body_that_is_not_shown(host: &Host) {
    let bytes = host.request_body_bytes();
    if bytes > 0 && !host.warned_of_held_headers.replace(true) {
        log::warn!(
            "bursar held the headers of a request until its body comes, and was shown nothing of it, though {bytes} bytes had come: such \
             requests hang until the client gives up. `hold_headers: true` needs `allow_on_headers_stop_iteration: true` in this \
             filter's PluginConfig (Envoy 1.35 or later, Istio 1.27 or later): set it there, or `hold_headers` to false. Each worker \
             says this once."
        );
    }
}

/// Publishes a gauge of what is left, and repeats that until two reads agree. The tries are bounded, since a worker that writes in between
/// also publishes the gauge.
pub(crate) fn tell(host: &Host, gauge: impl Fn(Timestamp) -> Option<Metric>) {
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
