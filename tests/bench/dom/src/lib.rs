//! bursar's path as one writes it first, by the SDK's own functions and with a tree of `serde_json` values for every body: the
//! request is parsed, its model exchanged, and it is written anew; the answer, or each event of it, is parsed for its usage.
//! Two compare-and-swap steps on the tenant's record, a metric. No rules, no errors told, no other API than OpenAI's.

use std::rc::Rc;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, MetricType};
use serde_json::Value;

const MODEL: &str = "gpt-4o-mini";
/// What is taken before an answer is known.
const RESERVED: u64 = 1024;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Warn);
    proxy_wasm::set_root_context(|_| Box::new(Root { tokens: None }));
}}

struct Root {
    tokens: Option<Rc<u32>>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        self.tokens = hostcalls::define_metric(MetricType::Counter, "dom_tokens_total")
            .ok()
            .map(Rc::new);
        self.tokens.is_some()
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Filter {
            tokens: self.tokens.clone()?,
            tenant: String::new(),
            is_stream: false,
            body: Vec::new(),
            usage: None,
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Filter {
    tokens: Rc<u32>,
    tenant: String,
    is_stream: bool,
    /// Of the answer: all of it, or an event's beginning.
    body: Vec<u8>,
    usage: Option<u64>,
}

impl Context for Filter {}

impl HttpContext for Filter {
    fn on_http_request_headers(&mut self, _: usize, is_end: bool) -> Action {
        self.tenant = self
            .get_http_request_header("x-tenant-id")
            .unwrap_or_default();
        // Asked for as it is: a tree of a compressed body cannot be had.
        self.set_http_request_header("accept-encoding", Some("identity"));
        if is_end {
            Action::Continue
        } else {
            Action::Pause
        }
    }

    fn on_http_request_body(&mut self, size: usize, is_end: bool) -> Action {
        if !is_end {
            return Action::Pause;
        }
        let Some(body) = self.get_http_request_body(0, size) else {
            return Action::Continue;
        };
        let Ok(mut tree) = serde_json::from_slice::<Value>(&body) else {
            return Action::Continue;
        };
        self.charge(RESERVED, 0);
        tree["model"] = MODEL.into();
        let body = tree.to_string().into_bytes();
        self.set_http_request_header("content-length", Some(&body.len().to_string()));
        self.set_http_request_body(0, size, &body);
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        let kind = self.get_http_response_header("content-type");
        self.is_stream = kind.is_some_and(|kind| kind.starts_with("text/event-stream"));
        self.set_http_response_header("x-model", Some(MODEL));
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, is_end: bool) -> Action {
        if let Some(chunk) = self.get_http_response_body(0, size) {
            self.body.extend(chunk);
        }
        if self.is_stream {
            self.read_events();
        } else if is_end {
            self.usage = usage(&self.body);
        }
        if is_end {
            let used = self.usage.unwrap_or(0);
            self.charge(used, RESERVED);
            let counted = i64::try_from(used).unwrap_or(i64::MAX);
            if hostcalls::increment_metric(*self.tokens, counted).is_err() {
                log(LogLevel::Warn, "a metric was not counted");
            }
        }
        Action::Continue
    }
}

impl Filter {
    fn read_events(&mut self) {
        let mut read = 0;
        while let Some(end) = self.body[read..].iter().position(|&byte| byte == b'\n') {
            let line = &self.body[read..read + end];
            if let Some(found) = line.strip_prefix(b"data: ").and_then(usage) {
                self.usage = Some(found);
            }
            read += end + 1;
        }
        self.body.drain(..read);
    }

    /// Adds to what the tenant has used, and gives back what was reserved.
    fn charge(&self, add: u64, give_back: u64) {
        let key = format!("dom/{}", self.tenant);
        for _ in 0..8 {
            let (value, cas) = self.get_shared_data(&key);
            let used = value
                .and_then(|value| value.try_into().ok())
                .map_or(0, u64::from_le_bytes);
            let used = used.saturating_add(add).saturating_sub(give_back);
            if self
                .set_shared_data(&key, Some(&used.to_le_bytes()), cas)
                .is_ok()
            {
                return;
            }
        }
        log(LogLevel::Warn, "a tenant's record was not written");
    }
}

fn usage(json: &[u8]) -> Option<u64> {
    let tree: Value = serde_json::from_slice(json).ok()?;
    tree.get("usage")?.get("total_tokens")?.as_u64()
}

fn log(level: LogLevel, text: &str) {
    // Nothing can be done about a failure.
    let _ = hostcalls::log(level, text);
}
