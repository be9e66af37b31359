//! A proxy around the core: does with a step what Envoy does, and keeps what each side saw.
#![allow(unreachable_pub, reason = "borrowed by test files as a private module")]
#![allow(
    dead_code,
    reason = "each test file that borrows this uses a part of it"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed set-up is a failed test"
)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use bursar::admission::Watch;
use bursar::base::text::Text;
use bursar::base::units::Timestamp;
use bursar::body::rewrite::splice;
use bursar::config::Config;
use bursar::exchange::{BodyChange, Exchange, HeaderChange, HeldBytes, Next, Step, Warm};
use bursar::health::pressed::PressureView;
use bursar::http::{Headers, Properties};
use bursar::report::metrics::Metric;
use bursar::report::refusal::Reply;
use bursar::state::record::Record;
use bursar::state::store::tenant_key;

use crate::store::FakeStore;

pub struct NoProperties;

impl Properties for NoProperties {
    fn property(&self, _: &[String]) -> Option<Vec<u8>> {
        None
    }
}

/// What the proxy says of an answer: that it is its own, or else the upstream's.
struct Answered(bool);

impl Properties for Answered {
    fn property(&self, path: &[String]) -> Option<Vec<u8>> {
        let details = match self.0 {
            true => "upstream_reset_before_response_started",
            false => "via_upstream",
        };
        (path == ["response", "code_details"]).then(|| details.into())
    }
}

pub struct Proxy {
    config: RefCell<Rc<Config>>,
    pub store: FakeStore,
    /// What waits in the worker's memory.
    pub held: HeldBytes,
    /// What the worker knows of upstreams that say no.
    pub pressed: RefCell<PressureView>,
    /// What it knows of budgets that proxies share.
    pub warm: Warm,
    /// The next answers are the proxy's own.
    pub is_local: Cell<bool>,
    now: Cell<u64>,
    metrics: RefCell<BTreeMap<String, u64>>,
    /// Records that the store of shared budgets is to hear of.
    pub watches: RefCell<Vec<Watch>>,
}

/// One request on its way.
pub struct Call<'a> {
    proxy: &'a Proxy,
    exchange: Exchange,
    /// What the upstream got.
    pub upstream_headers: Vec<(String, String)>,
    pub upstream_body: Vec<u8>,
    /// The headers have reached the upstream.
    pub headers_gone: bool,
    /// What we answered ourselves.
    pub reply: Option<Reply>,
    pub reply_headers: Vec<(String, String)>,
    /// What the client got from the upstream.
    pub response_headers: Vec<(String, String)>,
    pub response_body: Vec<u8>,
    pub response_trailers: Vec<(String, String)>,
    pub fields: BTreeMap<&'static str, String>,
    /// It waits for its part of a shared budget.
    pub is_parked: bool,
    held: Vec<u8>,
}

/// Start of every test's time: noon of a day in 2024, in seconds.
pub const NOON: u64 = 1_709_208_000;

impl Proxy {
    pub fn new(config: &serde_json::Value) -> Self {
        Self {
            config: RefCell::new(parsed(config)),
            store: FakeStore::default(),
            held: HeldBytes::default(),
            pressed: RefCell::default(),
            warm: Warm::default(),
            is_local: Cell::new(false),
            now: Cell::new(NOON * 1_000_000_000),
            metrics: RefCell::default(),
            watches: RefCell::default(),
        }
    }

    /// A proxy whose worker keeps no more than this of all bodies together, in bytes.
    pub fn of_small_worker(config: &serde_json::Value, held_bytes_per_worker: u64) -> Self {
        let mut parsed = Config::parse(config.to_string().as_bytes()).unwrap();
        parsed.held_bytes_per_worker = held_bytes_per_worker;
        let proxy = Self::new(config);
        *proxy.config.borrow_mut() = Rc::new(parsed);
        proxy
    }

    /// From now on requests begin under another configuration.
    pub fn configure(&self, config: &serde_json::Value) {
        *self.config.borrow_mut() = parsed(config);
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.now.get())
    }

    pub fn pass_millis(&self, millis: u64) {
        self.now.set(self.now.get() + millis * 1_000_000);
    }

    /// The value of a metric by its full name; 0 if it was never counted.
    pub fn metric(&self, name: &str) -> u64 {
        let counted = self.metrics.borrow().get(name).copied();
        counted.or_else(|| self.store.gauge(name)).unwrap_or(0)
    }

    pub fn record(&self, tenant: &str) -> Record {
        self.try_record(tenant).unwrap()
    }

    /// `None` before the tenant's first request.
    pub fn try_record(&self, tenant: &str) -> Option<Record> {
        Some(Record::decode(&self.store.value(&tenant_key(tenant))?).unwrap())
    }

    /// A POST to chat completions that ends before its body begins to be sent.
    pub fn post(&self, headers: &[(&str, &str)]) -> Call<'_> {
        let mut all = vec![(":method", "POST"), (":path", "/v1/chat/completions")];
        all.extend(headers);
        self.request(&all, false)
    }

    pub fn request(&self, headers: &[(&str, &str)], is_end: bool) -> Call<'_> {
        let mut call = Call {
            proxy: self,
            exchange: Exchange::new(
                Rc::clone(&self.config.borrow()),
                self.held.clone(),
                self.pressed.borrow().clone(),
                self.warm.clone(),
            ),
            upstream_headers: headers
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            upstream_body: Vec::new(),
            headers_gone: false,
            reply: None,
            reply_headers: Vec::new(),
            response_headers: Vec::new(),
            response_body: Vec::new(),
            response_trailers: Vec::new(),
            fields: BTreeMap::new(),
            is_parked: false,
            held: Vec::new(),
        };
        let sent = as_headers(&call.upstream_headers);
        let step =
            call.exchange
                .request_headers(&sent, is_end, &self.store, &NoProperties, self.now());
        call.apply_request(step, Vec::new());
        call
    }

    /// A whole request with its length, in one chunk, up to the upstream.
    pub fn chat(&self, tenant: &str, body: &str) -> Call<'_> {
        let length = body.len().to_string();
        let mut call = self.post(&[("x-tenant-id", tenant), ("content-length", &length)]);
        call.send(&[body.as_bytes()]);
        call
    }

    /// A whole exchange that uses this many tokens.
    pub fn served(&self, tenant: &str, body: &str, input: u64, output: u64) -> Call<'_> {
        let mut call = self.chat(tenant, body);
        if call.reply.is_none() {
            call.answer_json(&usage(input, output));
        }
        call.end();
        call
    }
}

impl Call<'_> {
    /// Sends a whole body in these chunks.
    pub fn send(&mut self, chunks: &[&[u8]]) {
        for chunk in chunks {
            self.send_chunk(chunk, false);
        }
        // As HTTP/1.1 in Envoy: the end comes by itself.
        self.send_chunk(b"", true);
    }

    pub fn send_chunk(&mut self, chunk: &[u8], is_end: bool) {
        // As the filter does.
        if chunk.is_empty() && is_end && self.exchange.end_request() {
            return;
        }
        if self.reply.is_none() {
            let step =
                self.exchange
                    .request_body(chunk, is_end, &self.proxy.store, self.proxy.now());
            self.apply_request(step, chunk.to_vec());
        }
    }

    /// Whether the next chunk of the answer, or its end, is handled by the exact time.
    pub fn is_timed(&self, is_end: bool) -> bool {
        self.exchange.times_response(is_end)
    }

    /// Answers 200 with a JSON body.
    pub fn answer_json(&mut self, body: &str) {
        self.answer_headers("200", &[("content-type", "application/json")]);
        self.answer_chunk(body.as_bytes(), true);
    }

    pub fn answer_headers(&mut self, status: &str, headers: &[(&str, &str)]) {
        let mut all = vec![(":status".to_owned(), status.to_owned())];
        all.extend(
            headers
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned())),
        );
        let step = self.exchange.response_headers(
            &as_headers(&all),
            false,
            &self.proxy.store,
            &Answered(self.proxy.is_local.get()),
            self.proxy.now(),
        );
        change(&mut all, &step.headers);
        self.response_headers = all;
        self.note(&step);
    }

    pub fn answer_chunk(&mut self, chunk: &[u8], is_end: bool) {
        let step = self
            .exchange
            .response_body(chunk, is_end, &self.proxy.store, self.proxy.now());
        match &step.body {
            BodyChange::Keep => self.response_body.extend(chunk),
            BodyChange::Replace(bytes) => self.response_body.extend(bytes),
            BodyChange::Edit(_) => panic!("a response is never held"),
        }
        self.note(&step);
    }

    /// Ends the answer with trailers.
    pub fn answer_trailers(&mut self, trailers: &[(&str, &str)]) {
        let mut all: Vec<_> = trailers
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let step =
            self.exchange
                .response_trailers(&as_headers(&all), &self.proxy.store, self.proxy.now());
        // The host has no buffer any more that could be changed.
        assert_eq!(step.body, BodyChange::Keep);
        change(&mut all, &step.headers);
        self.response_trailers = all;
        self.note(&step);
    }

    /// The exchange is over, whatever came before.
    pub fn end(&mut self) {
        self.end_with(&NoProperties);
    }

    /// It is over, and the proxy has details about that.
    pub fn end_with(&mut self, properties: &impl Properties) {
        let (store, now) = (&self.proxy.store, self.proxy.now());
        let step = self.exchange.finish(store, properties, now);
        self.note(&step);
    }

    pub fn response_header(&self, name: &str) -> Option<&str> {
        find(&self.response_headers, name)
    }

    pub fn upstream_header(&self, name: &str) -> Option<&str> {
        find(&self.upstream_headers, name)
    }

    pub fn upstream_text(&self) -> &str {
        std::str::from_utf8(&self.upstream_body).unwrap()
    }

    /// Status and reason of our own answer.
    pub fn refused(&self) -> Option<(u16, &str)> {
        let reply = self.reply.as_ref()?;
        let reason = self.reply_header("x-bursar-reason");
        Some((reply.status, reason.unwrap_or("")))
    }

    pub fn reply_header(&self, name: &str) -> Option<&str> {
        find(&self.reply_headers, name)
    }

    fn apply_request(&mut self, step: Step, chunk: Vec<u8>) {
        self.note(&step);
        self.held.extend(chunk);
        if !step.headers.is_empty() {
            assert!(
                !self.headers_gone,
                "headers cannot be changed once they have gone"
            );
            change(&mut self.upstream_headers, &step.headers);
        }
        match step.next {
            Next::Reply(reply) => {
                let headers = reply.headers.iter();
                let text = |(name, value): &(&str, Text)| ((*name).to_owned(), value.to_string());
                self.reply_headers = headers.map(text).collect();
                self.reply = Some(reply);
            }
            Next::Pause => assert_eq!(step.body, BodyChange::Keep),
            Next::Park => self.is_parked = true,
            Next::Continue => {
                self.headers_gone = true;
                let held = std::mem::take(&mut self.held);
                match step.body {
                    BodyChange::Keep => self.upstream_body.extend(held),
                    BodyChange::Replace(bytes) => self.upstream_body.extend(bytes),
                    BodyChange::Edit(edits) => self.upstream_body.extend(splice(&held, 0, &edits)),
                }
            }
        }
    }

    fn note(&mut self, step: &Step) {
        let watches = step.watches.iter().cloned();
        self.proxy.watches.borrow_mut().extend(watches);
        let mut metrics = self.proxy.metrics.borrow_mut();
        let held = step.capacity.as_ref();
        let level = held.and_then(|held| held.metric(&self.proxy.store, self.proxy.now()));
        for metric in step
            .metrics
            .iter()
            .chain(&level)
            .chain(&bursar::report::metrics::faults(&step.faults))
        {
            match metric {
                Metric::Add(series, by) => {
                    // As Envoy's counters do.
                    let count = metrics.entry(series.name()).or_default();
                    *count = count.wrapping_add(*by);
                }
                Metric::Set(series, to) => {
                    metrics.insert(series.name(), *to);
                }
            }
        }
        let fields = step.fields.iter();
        self.fields
            .extend(fields.map(|(key, value)| (key.property(), value.to_string())));
    }
}

/// A response body that reports this usage.
pub fn usage(input: u64, output: u64) -> String {
    format!(
        r#"{{"id":"c","choices":[{{"index":0}}],"usage":{{"prompt_tokens":{input},"completion_tokens":{output}}}}}"#
    )
}

fn parsed(config: &serde_json::Value) -> Rc<Config> {
    Rc::new(Config::parse(config.to_string().as_bytes()).unwrap())
}

fn as_headers(list: &[(String, String)]) -> Headers {
    list.iter().map(|(name, value)| (name, value)).collect()
}

fn change(headers: &mut Vec<(String, String)>, changes: &[HeaderChange]) {
    for change in changes {
        let name = match change {
            HeaderChange::Set(name, _) | HeaderChange::Add(name, _) => (*name).to_owned(),
            HeaderChange::Remove(name) => String::from_utf8_lossy(name).into_owned(),
        };
        if let HeaderChange::Add(name, _) = change {
            assert_eq!(find(headers, name), None, "it would be there twice");
        }
        headers.retain(|(key, _)| *key != name);
        if let HeaderChange::Set(name, value) | HeaderChange::Add(name, value) = change {
            headers.push(((*name).to_owned(), value.to_string()));
        }
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.as_str())
}
