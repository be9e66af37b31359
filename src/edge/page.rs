//! Requests to the operators' report. One whose report is not read at once waits, and the ticks of the report's configuration read on.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, MapType};

use crate::edge::host::Host;
use crate::edge::imports;
use crate::overview::{Reading, asked, busy};
use crate::report::refusal::Reply;

/// Most requests that wait for the report in one worker: each keeps up to a thousand rows.
const MOST_WAITING: usize = 8;

/// Requests that wait for the report, each with its context: the first one is being read.
#[derive(Default)]
pub(crate) struct Pages(RefCell<VecDeque<(u32, Reading)>>);

impl Pages {
    /// Reads on for the first request. `root`: the context that the host is calling now.
    pub(crate) fn go_on(&self, host: &Host, root: u32) {
        let Some((context, mut reading)) = self.take() else {
            return;
        };
        let Some(reply) = read(&mut reading, host) else {
            if let Ok(mut waiting) = self.0.try_borrow_mut() {
                waiting.push_front((context, reading));
            }
            return;
        };
        if imports::set_effective_context(context).is_ok() {
            answer(host, &reply);
        }
        host.be_again(root);
    }

    fn take(&self) -> Option<(u32, Reading)> {
        self.0.try_borrow_mut().ok()?.pop_front()
    }
}

fn read(reading: &mut Reading, host: &Host) -> Option<Reply> {
    reading.go_on(host, &host.pressed, || host.now())
}

fn answer(host: &Host, reply: &Reply) {
    host.reply(reply.status, &reply.details, &reply.headers, &reply.body);
}

/// One request to the report.
pub(crate) struct Page {
    pub(crate) context: u32,
    pub(crate) host: Rc<Host>,
    pub(crate) pages: Rc<Pages>,
}

impl Page {
    /// The answer, unless the request has to wait for it.
    fn asked(&self) -> Option<Reply> {
        let host = &*self.host;
        let request = host.headers(MapType::HttpRequestHeaders);
        let mut reading = match asked(host.configs(), &request, host.now()) {
            Ok(reading) => reading,
            Err(reply) => return Some(reply),
        };
        let Ok(mut waiting) = self.pages.0.try_borrow_mut() else {
            return Some(busy());
        };
        if waiting.len() >= MOST_WAITING {
            return Some(busy());
        }
        let reply = waiting
            .is_empty()
            .then(|| read(&mut reading, host))
            .flatten();
        if reply.is_none() {
            waiting.push_back((self.context, reading));
        }
        reply
    }
}

/// The client may have gone away.
impl Drop for Page {
    fn drop(&mut self) {
        if let Ok(mut waiting) = self.pages.0.try_borrow_mut() {
            waiting.retain(|(context, _)| *context != self.context);
        }
    }
}

impl Context for Page {}

impl HttpContext for Page {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        if let Some(reply) = self.asked() {
            answer(&self.host, &reply);
        }
        Action::Pause
    }

    /// Nothing of the request goes further.
    fn on_http_request_body(&mut self, _: usize, _: bool) -> Action {
        Action::Pause
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        Action::Pause
    }
}
