//! A request as the SDK knows it: each callback is forwarded to its [`Stream`], which the list of parked requests can share.

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use crate::config::Config;
use crate::edge::filter::Stream;
use crate::edge::host::Host;

/// One request and its response, as the proxy knows it.
pub(crate) struct Filter(Rc<RefCell<Stream>>);

impl Filter {
    pub(crate) fn new(host: Rc<Host>, config: Rc<Config>, context: u32) -> Self {
        Self(Rc::new(RefCell::new(Stream::new(host, config, context))))
    }
}

impl Context for Filter {}

/// Each callback borrows the stream. No other code uses it meanwhile, since the proxy makes one call at a time.
impl HttpContext for Filter {
    fn on_http_request_headers(&mut self, _: usize, is_end: bool) -> Action {
        let Ok(mut stream) = self.0.try_borrow_mut() else {
            return Action::Continue;
        };
        let action = stream.request_headers(is_end);
        if stream.is_parked {
            stream.host.park(Rc::clone(&self.0));
        }
        action
    }

    fn on_http_request_body(&mut self, size: usize, is_end: bool) -> Action {
        let stream = self.0.try_borrow_mut();
        stream.map_or(Action::Continue, |mut stream| {
            stream.request_body(size, is_end)
        })
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        let stream = self.0.try_borrow_mut();
        stream.map_or(Action::Continue, |mut stream| stream.request_trailers())
    }

    fn on_http_response_headers(&mut self, _: usize, is_end: bool) -> Action {
        let stream = self.0.try_borrow_mut();
        stream.map_or(Action::Continue, |mut stream| {
            stream.response_headers(is_end)
        })
    }

    fn on_http_response_body(&mut self, size: usize, is_end: bool) -> Action {
        let stream = self.0.try_borrow_mut();
        stream.map_or(Action::Continue, |mut stream| {
            stream.response_body(size, is_end)
        })
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        let stream = self.0.try_borrow_mut();
        stream.map_or(Action::Continue, |mut stream| stream.response_trailers())
    }

    fn on_log(&mut self) {
        if let Ok(mut stream) = self.0.try_borrow_mut() {
            stream.end();
        }
    }
}
