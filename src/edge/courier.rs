//! Calls to the store that proxies share: ticks send them, and the host delivers each answer to the configuration that sent the call.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, MapType};

use crate::config::Global;
use crate::edge::filter::{complain, tell};
use crate::edge::host::Host;
use crate::state::store::StateFaults;
use crate::teller::upstreams::Upstreams;
use crate::teller::{Message, Note, Outcome};

/// How long a call to the store may take. Shorter than the time after which a line is no longer awaited ([`CLAIM`](crate::lease::grant::CLAIM)).
const TIMEOUT: Duration = Duration::from_secs(1);

/// Calls in flight, by their tokens.
#[derive(Default)]
pub(crate) struct Courier {
    calls: HashMap<u32, Message>,
    /// Messages that the next tick sends again. An earlier retry would reuse the connection that the store is about to close.
    again: Vec<Message>,
    upstreams: Upstreams,
}

impl Courier {
    /// Sends the messages that are due.
    pub(crate) fn tick(&mut self, host: &Host) {
        for message in std::mem::take(&mut self.again) {
            self.send(host, message);
        }
        let Ok(mut teller) = host.teller.try_borrow_mut() else {
            return;
        };
        let (mut messages, now) = (Vec::new(), host.now());
        if !teller.is_idle() {
            let faults;
            (messages, faults) = teller.due(host, now);
            told(host, &faults);
        }
        drop(teller);
        let Self { upstreams, .. } = self;
        upstreams.join(&mut messages, host.configs(), &host.pressed, now);
        for message in messages {
            self.send(host, message);
        }
    }

    fn send(&mut self, host: &Host, message: Message) {
        let global = &message.global;
        let body = message.body(password(global).as_deref());
        // Envoy requires these three headers, although its raw TCP pool drops them.
        let headers = vec![
            (":method", "POST"),
            (":path", "/"),
            (":authority", global.cluster.as_str()),
        ];
        let sent = hostcalls::dispatch_http_call(
            &global.cluster,
            headers,
            Some(&body),
            Vec::new(),
            TIMEOUT,
        );
        match sent {
            Ok(token) => {
                self.calls.insert(token, message);
            }
            Err(_) => {
                let Ok(mut teller) = host.teller.try_borrow_mut() else {
                    return;
                };
                let outcome = teller.not_sent(&message, host, host.now());
                drop(teller);
                self.apply(host, &message, outcome);
            }
        }
    }

    /// A call has ended. `headers` is 0 if no connection was made, or none in time.
    pub(crate) fn answered(&mut self, host: &Host, token: u32, headers: usize, body: usize) {
        let Some(message) = self.calls.remove(&token) else {
            return;
        };
        let headers = (headers > 0).then(|| host.headers(MapType::HttpCallResponseHeaders));
        let status = headers.as_ref().and_then(|headers| headers.only(":status"));
        let body = host.bytes(BufferType::HttpCallResponseBody, 0, body);
        let Ok(mut teller) = host.teller.try_borrow_mut() else {
            return;
        };
        let outcome = teller.heard(&message, status, &body, host, host.now());
        drop(teller);
        self.apply(host, &message, outcome);
    }

    fn apply(&mut self, host: &Host, message: &Message, outcome: Outcome) {
        for metric in &outcome.metrics {
            host.count(metric);
        }
        told(host, &outcome.faults);
        for note in &outcome.notes {
            match note {
                Note::Found => log::info!("bursar: {note}"),
                _ => log::warn!("bursar: {note}"),
            }
        }
        if outcome.again.is_none() {
            let answer = outcome.upstreams.as_deref();
            let (gauges, faults) =
                self.upstreams
                    .heard(message, answer, &host.pressed, host, host.now());
            told(host, &faults);
            for gauge in gauges {
                tell(host, |_| Some(gauge.metric(host)));
            }
        }
        self.again.extend(outcome.again);
    }
}

fn told(host: &Host, faults: &StateFaults) {
    if *faults != StateFaults::default() {
        complain(host, faults);
    }
}

/// The password of the store's user, from the VM's environment.
pub(crate) fn password(global: &Rc<Global>) -> Option<String> {
    let login = global.login.as_ref()?;
    std::env::var(&login.password_env).ok()
}
