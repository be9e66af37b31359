//! The proxy's callbacks: read the host, ask the exchange, apply its step. Nothing is decided here.

use std::cell::Cell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

use crate::admission::Balance;
use crate::config::{Config, Missing};
use crate::exchange::{BodyChange, Exchange, HeaderChange, Next, Step};
use crate::host::{Buffer, Host, Map};
use crate::rewrite::splice;
use crate::store::Troubles;
use crate::telemetry::{self, Field};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root { host: Rc::default(), complained: Rc::default(), config: None }));
}}

/// One plugin configuration, on one thread.
struct Root {
    host: Rc<Host>,
    /// A corrupt record was complained about: once is enough.
    complained: Rc<Cell<bool>>,
    config: Option<Rc<Config>>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        log::set_max_level(self.host.log_level());
        match Config::parse(&self.host.bytes(Buffer::PluginConfiguration, 0, size)) {
            Ok(config) => {
                if config.missing == Missing::Pass {
                    log::info!(
                        "bursar lets requests without a tenant pass unmetered (tenant.missing)"
                    );
                }
                // Counters that one hopes to see at zero are to be seen from the start.
                for metric in telemetry::troubles(&Troubles::default()) {
                    self.host.count(&metric);
                }
                self.config = Some(Rc::new(config));
                true
            }
            Err(error) => {
                log::error!("bursar refuses its configuration: {error}");
                false
            }
        }
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Filter {
            host: Rc::clone(&self.host),
            complained: Rc::clone(&self.complained),
            exchange: self
                .config
                .as_ref()
                .map(|config| Exchange::new(Rc::clone(config))),
            held: 0,
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// One request and its response.
struct Filter {
    host: Rc<Host>,
    complained: Rc<Cell<bool>>,
    /// `None` if the plugin has no configuration, which Envoy does not let happen.
    exchange: Option<Exchange>,
    /// Bytes of the request's body that are held and were given to the exchange already.
    held: usize,
}

impl Context for Filter {}

impl HttpContext for Filter {
    fn on_http_request_headers(&mut self, _: usize, is_end: bool) -> Action {
        let host = Rc::clone(&self.host);
        let Some(exchange) = &mut self.exchange else {
            return Action::Continue;
        };
        let headers = host.headers(Map::Request);
        #[cfg(feature = "inject-trap")]
        if headers.only("x-trap").is_some() {
            std::process::abort();
        }
        let step = exchange.request_headers(&headers, is_end, &*host, &*host, host.now());
        self.apply(step, Map::Request, Buffer::RequestBody, 0)
    }

    fn on_http_request_body(&mut self, size: usize, is_end: bool) -> Action {
        let host = Rc::clone(&self.host);
        let Some(exchange) = self
            .exchange
            .as_mut()
            .filter(|exchange| exchange.reads_request())
        else {
            return Action::Continue;
        };
        // While the body is held the host shows all of it each time: read only what is new.
        let chunk = host.bytes(
            Buffer::RequestBody,
            self.held,
            size.saturating_sub(self.held),
        );
        let step = exchange.request_body(&chunk, is_end, &*host, host.now());
        let action = self.apply(step, Map::Request, Buffer::RequestBody, size);
        self.held = if action == Action::Pause { size } else { 0 };
        action
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        let host = Rc::clone(&self.host);
        let Some(exchange) = &mut self.exchange else {
            return Action::Continue;
        };
        let trailers = host.headers(Map::RequestTrailers);
        let step = exchange.request_trailers(&trailers, &*host, host.now());
        self.apply(step, Map::RequestTrailers, Buffer::RequestBody, 0)
    }

    fn on_http_response_headers(&mut self, _: usize, is_end: bool) -> Action {
        let host = Rc::clone(&self.host);
        let Some(exchange) = self
            .exchange
            .as_mut()
            .filter(|exchange| exchange.awaits_response())
        else {
            return Action::Continue;
        };
        let headers = host.headers(Map::Response);
        let step = exchange.response_headers(&headers, is_end, &*host, host.now());
        self.apply(step, Map::Response, Buffer::ResponseBody, 0)
    }

    fn on_http_response_body(&mut self, size: usize, is_end: bool) -> Action {
        let host = Rc::clone(&self.host);
        let Some(exchange) = self
            .exchange
            .as_mut()
            .filter(|exchange| exchange.reads_response())
        else {
            return Action::Continue;
        };
        let chunk = host.bytes(Buffer::ResponseBody, 0, size);
        let step = exchange.response_body(&chunk, is_end, &*host, host.now());
        self.apply(step, Map::Response, Buffer::ResponseBody, size)
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        let host = Rc::clone(&self.host);
        let Some(exchange) = self
            .exchange
            .as_mut()
            .filter(|exchange| exchange.awaits_response())
        else {
            return Action::Continue;
        };
        let trailers = host.headers(Map::ResponseTrailers);
        let step = exchange.response_trailers(&trailers, &*host, host.now());
        self.apply(step, Map::ResponseTrailers, Buffer::ResponseBody, 0)
    }

    fn on_log(&mut self) {
        let host = Rc::clone(&self.host);
        let Some(exchange) = &mut self.exchange else {
            return;
        };
        let step = exchange.finish(&*host, host.now());
        self.report(&step);
    }
}

impl Filter {
    /// Does what a step says. `size`: bytes in the buffer.
    fn apply(&self, step: Step, map: Map, buffer: Buffer, size: usize) -> Action {
        self.report(&step);
        if let Next::Reply(reply) = &step.next {
            self.host
                .reply(reply.status, &reply.details, &reply.headers, &reply.body);
            return Action::Pause;
        }
        for change in &step.headers {
            match change {
                HeaderChange::Set(name, value) => self.host.set_header(map, name, value),
                HeaderChange::Remove(name) => self.host.remove_header(map, name),
            }
        }
        self.change_body(&step.body, buffer, size);
        match step.next {
            Next::Continue | Next::Reply(_) => Action::Continue,
            Next::Pause => Action::Pause,
        }
    }

    fn change_body(&self, change: &BodyChange, buffer: Buffer, size: usize) {
        match change {
            BodyChange::Keep => {}
            BodyChange::Replace(bytes) => {
                self.host.replace_start(buffer, size, size, bytes);
            }
            BodyChange::Edit(edits) => {
                let last = edits.last().and_then(|edit| usize::try_from(edit.end).ok());
                let prefix = self.host.bytes(buffer, 0, last.unwrap_or(size));
                let edited = splice(&prefix, 0, edits);
                if !self.host.replace_start(buffer, prefix.len(), size, &edited) {
                    // Hosts before Envoy 1.36 replace all or nothing.
                    let rest =
                        self.host
                            .bytes(buffer, prefix.len(), size.saturating_sub(prefix.len()));
                    self.host
                        .replace_start(buffer, size, size, &[edited, rest].concat());
                }
            }
        }
    }

    fn report(&self, step: &Step) {
        for metric in &step.metrics {
            self.host.count(metric);
        }
        if step.troubles != Troubles::default() {
            self.complain(&step.troubles);
        }
        if let Some(balance) = &step.balance {
            self.tell(balance);
        }
        for field in &step.fields {
            self.host.tell(field);
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
    fn complain(&self, troubles: &Troubles) {
        for metric in telemetry::troubles(troubles) {
            self.host.count(&metric);
        }
        if troubles.corrupt && !self.complained.replace(true) {
            log::warn!(
                "bursar found a value that is no record of this version under a tenant's key in shared data; it was \
                 treated as absent (failure_mode allow) or replaced. Does another plugin use the vm_id `bursar`?"
            );
        }
    }

    /// Sets the gauge of what is left, until it tells what is. Bounded: whoever writes in between tells it too.
    fn tell(&self, balance: &Balance) {
        let mut told = None;
        for _ in 0..8 {
            let now = balance.metric(&*self.host, self.host.now());
            if now == told {
                break;
            }
            now.iter().for_each(|metric| self.host.count(metric));
            told = now;
        }
    }
}
