//! A request to the operators' report; every request is answered at once.

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, MapType};

use crate::edge::host::Host;
use crate::overview::answer;

/// One request to the report.
pub(crate) struct Page(pub(crate) Rc<Host>);

impl Context for Page {}

impl HttpContext for Page {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let host = &*self.0;
        let request = host.headers(MapType::HttpRequestHeaders);
        let reply = answer(&host.configs(), &request, host, &host.pressed, host.now());
        host.reply(reply.status, &reply.details, &reply.headers, &reply.body);
        Action::Pause
    }
}
