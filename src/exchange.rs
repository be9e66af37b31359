//! One request and its response as a state machine: events of the proxy go in, a [`Step`] comes out.
//!
//! The order of events: headers → tenant → limits → tier → rewrite → upstream → usage → settle → report.
//!
//! A body is read in one of two modes. *Held*: the body's length is known and small enough, so headers and body wait until the body is
//! complete. Then everything about the request is known, and everything can still be changed. *Passing*: the body is forwarded while it is
//! read, in most cases without a `content-length`. The decision is made as soon as `model` was read, and is checked again before the last
//! byte is forwarded, by all that the rest of the body shows.

use std::rc::Rc;

use crate::admission::tenant::Tenant;
use crate::base::units::Timestamp;
use crate::config::Config;
use crate::exchange::admitted::Admitted;
use crate::exchange::request_body::RequestBody;
use crate::health::pressed::PressureView;
use crate::http::Properties;
use crate::report::decision::Shadow;
use crate::report::settlement::Exit;
use crate::state::store::Store;

mod admit;
mod admitted;
mod first_byte;
mod first_slice;
mod forward;
mod held_bytes;
mod invalid;
mod keep_back;
mod placement;
mod refusal;
mod request;
mod request_body;
mod response;
mod scope;
mod self_service;
mod settle;
mod shadow;
mod step;
mod trial;
mod unmetered;
mod upstream;
mod wait;

pub use first_slice::{LONGEST as LONGEST_PARKED, Warm};
pub use held_bytes::HeldBytes;
pub use step::{BodyChange, HeaderChange, Next, Step};

/// One request and its response.
#[derive(Debug)]
pub struct Exchange {
    config: Rc<Config>,
    held: HeldBytes,
    pressed: PressureView,
    /// The tenants of which this worker knows that their requests need not wait for a shared budget.
    warm: Warm,
    /// When the request began to wait for a shared budget; `None` if it never waited.
    parked: Option<Timestamp>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The request is not metered, or was refused or settled: nothing is left to do.
    Idle,
    /// The request's body is being read. Boxed, since an exchange is in another stage for most of its time.
    RequestBody(Box<RequestBody>),
    /// The request is refused as soon as it has ended: with an earlier answer, the client would lose its connection.
    Refused(Box<Step>),
    /// All of the request was forwarded.
    Admitted(Box<Admitted>),
    /// In shadow mode: the request cannot be read, and is forwarded unmetered.
    Unread(Box<Shadow>),
}

impl Exchange {
    /// An exchange under the configuration that is in force when it begins. `held`: the bytes that wait in this worker's memory; `pressed`:
    /// what the worker knows of upstreams that refuse; `warm`: the tenants whose requests need not wait for a shared budget.
    #[must_use]
    pub fn new(config: Rc<Config>, held: HeldBytes, pressed: PressureView, warm: Warm) -> Self {
        Self {
            config,
            held,
            pressed,
            warm,
            parked: None,
            stage: Stage::Idle,
        }
    }

    /// Lets the request never wait for a shared budget.
    pub fn never_wait(&mut self) {
        self.parked = Some(Timestamp::default());
    }

    /// The configuration that applies to this exchange.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether more of the request's body is to be given to [`Exchange::request_body`].
    #[must_use]
    pub fn reads_request(&self) -> bool {
        matches!(self.stage, Stage::RequestBody(_) | Stage::Refused(_))
    }

    /// Whether the response's headers are to be given to [`Exchange::response_headers`].
    #[must_use]
    pub fn awaits_response(&self) -> bool {
        !matches!(self.stage, Stage::Idle)
    }

    /// The tenant of a metered request that was not refused, as it was identified when the headers came.
    #[must_use]
    pub fn tenant(&self) -> Option<&Tenant> {
        match &self.stage {
            Stage::RequestBody(reading) => Some(reading.tenant()),
            Stage::Admitted(sent) => Some(&sent.tenant),
            Stage::Idle | Stage::Refused(_) | Stage::Unread(_) => None,
        }
    }

    /// Whether [`Exchange::finish`] has nothing left to do.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let sent = match &self.stage {
            Stage::Idle | Stage::Unread(_) => return true,
            Stage::Refused(_) => return false,
            Stage::RequestBody(reading) => reading.sent.as_ref(),
            Stage::Admitted(sent) => Some(sent),
        };
        sent.is_none_or(|sent| sent.is_settled && sent.wait.is_none() && !sent.upstream.is_open())
    }

    /// Ends the exchange, for whatever reason it is over: settles what is not settled yet.
    pub fn finish(
        &mut self,
        store: &impl Store,
        properties: &impl Properties,
        now: Timestamp,
    ) -> Step {
        match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Idle | Stage::Unread(_) => Step::default(),
            // The client did not wait for the answer.
            Stage::Refused(step) => Step {
                next: Next::Continue,
                ..*step
            },
            Stage::RequestBody(reading) => {
                // An upstream that has the whole request answers, and is paid, whether or not the end of the stream reached it.
                let seems = match reading.is_complete() {
                    true => Exit::Unended,
                    false => Exit::Unsent,
                };
                reading.sent.map_or_else(Step::default, |sent| {
                    let exit = unanswered(properties, seems);
                    sent.leave(&self.config, store, exit, now)
                })
            }
            Stage::Admitted(sent) => {
                let exit = unanswered(properties, Exit::Unanswered);
                sent.leave(&self.config, store, exit, now)
            }
        }
    }
}

/// How a request without any answer ended. If the proxy has followed a redirect, it has made a new request, whose answer this
/// filter sees, and the old request's details say `internal_redirect` (Envoy).
fn unanswered(properties: &impl Properties, seems: Exit) -> Exit {
    let path = ["response", "code_details"].map(str::to_owned);
    match properties.property(&path) {
        Some(details) if details == b"internal_redirect" => Exit::Redirected,
        _ => seems,
    }
}
