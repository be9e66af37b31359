//! The steps of an exchange while the request's body is read: tier → rewrite.

use crate::admission::tenant::Tenant;
use crate::base::units::{Timestamp, Tokens};
use crate::body::json::{Malformed, Repeats, Scanner};
use crate::body::rewrite::StreamRewriter;
use crate::config::Config;
use crate::conversation;
use crate::conversation::messages::MessageReader;
use crate::exchange::HeldBytes;
use crate::exchange::admitted::Admitted;
use crate::exchange::held_bytes::Share;
use crate::exchange::placement;
use crate::exchange::step::{HeaderChange, Step};
use crate::health::pressed::PressureView;
use crate::http::Headers;
use crate::provider::{
    Endpoint, Facts, Fault, LISTS_OF_ENTRIES, alternatives, body_model, most_of_alternatives,
    named_again, no_overlong, no_overrides,
};
use crate::report::decision::Shadow;
use crate::state::store::Store;
use crate::tier::Ladder;

/// A request whose body is being read.
#[derive(Debug)]
pub(super) struct RequestBody {
    pub(super) endpoint: Endpoint,
    pub(super) tenant: Tenant,
    pub(super) scanner: Scanner,
    /// Reads the conversation, where it is needed. Boxed, since it is rarely needed.
    pub(super) messages: Option<Box<MessageReader>>,
    /// Whether some tier may shorten the conversation.
    pub(super) trims: bool,
    /// Whether the conversation may have to stay at its tier, and no header names the conversation.
    pub(super) names: bool,
    /// The conversation that a header names.
    pub(super) named: Option<conversation::ConversationId>,
    /// What the worker knows about upstreams that refuse requests.
    pub(super) pressed: PressureView,
    /// Identifies the credential by which the provider knows its caller; 0 if that does not matter.
    pub(super) credential: u64,
    /// The length that the client announced, if it did.
    pub(super) length: Option<u64>,
    /// The length that was announced to the upstream for a passing body, if one was.
    pub(super) promised: Option<u64>,
    pub(super) body: Body,
    /// Whether a stream's usage may be requested, whichever tier serves.
    pub(super) always_asks: bool,
    /// Whether a request for the stream's usage was added to the forwarded body.
    pub(super) asks_usage: bool,
    /// Whether the headers are not forwarded yet.
    pub(super) headers_held: bool,
    /// Whether the whole object was forwarded: some upstreams answer without waiting for the request's end.
    pub(super) has_gone: bool,
    /// Whether an output limit may have to be lowered, so it must not be forwarded before the admission.
    pub(super) keeps_limits: bool,
    /// Bytes that may be kept back of one request, and of all requests of a worker.
    pub(super) most_kept: u64,
    pub(super) most_held: u64,
    /// This request's share of the worker's memory for waiting bodies.
    pub(super) share: Share,
    /// The part of the request that was read, while the admission waits for more.
    pub(super) asked: Option<Parsed>,
    /// The admission, once `model` was read.
    pub(super) sent: Option<Box<Admitted>>,
    /// Headers of a response that came before the admission.
    pub(super) early: Option<Headers>,
    /// In shadow mode: why the request would have been refused, if that was before its admission.
    pub(super) unread: Option<Shadow>,
}

/// The shortest body, in bytes, that is forwarded with a `content-length` in passing mode. For shorter ones the few µs of chunked encoding
/// are no loss; it costs more for longer bodies.
const LONG: u64 = 32 * 1_024;

/// When the body is forwarded.
#[derive(Debug)]
pub(super) enum Body {
    /// Once the body is complete.
    Held,
    /// While the body is read.
    Passing(StreamRewriter),
}

/// What was read of a request so far.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) model: String,
    pub(super) facts: Facts,
}

impl RequestBody {
    /// A request of which only the headers have arrived. `length`: the length that they announce.
    pub(super) fn new(
        config: &Config,
        held: &HeldBytes,
        endpoint: Endpoint,
        tenant: Tenant,
        length: Option<u64>,
        request: &Headers,
    ) -> Self {
        // A body without a length is not held: if it turned out too long, the proxy would have buffered more than it may,
        // and would answer 413.
        let is_short = length.is_some_and(|length| length <= config.hold_bytes);
        let body = if config.hold_headers && is_short {
            Body::Held
        } else {
            Body::Passing(StreamRewriter::default())
        };
        // In passing mode, a request with the model in its path is decided at once.
        let is_late = matches!(body, Body::Held) || endpoint.model.is_none();
        let trims =
            is_late && !endpoint.is_signed && config.ladders.iter().any(|ladder| ladder.trims(0));
        let named = placement::named(&tenant, request);
        let names = is_late && named.is_none() && placement::sticky(&tenant).is_some();
        let dialect = endpoint.wire.dialect().filter(|_| trims || names);
        let limits_output = tenant.plan.limits.min_output_tokens.is_some()
            || config.ladders.iter().any(|ladder| ladder.limits_output());
        let keeps_limits = limits_output && !endpoint.is_signed;
        // In shadow mode a body is forwarded even if it cannot be read to its end.
        let is_padded =
            matches!(body, Body::Passing(_)) && !endpoint.is_signed && !tenant.plan.limits.shadow;
        let long = length.filter(|&length| is_padded && length >= LONG);
        let promised =
            long.and_then(|length| length.checked_add(most_added(config, &endpoint, keeps_limits)));
        Self {
            scanner: Scanner::new(endpoint.wire.request(), Repeats::Refuse),
            promised,
            tenant,
            length,
            messages: dialect.map(|dialect| Box::new(MessageReader::new(dialect, names))),
            trims,
            names,
            named,
            pressed: PressureView::default(),
            credential: 0,
            body,
            always_asks: config.ladders.iter().all(Ladder::always_asks_usage),
            asks_usage: false,
            headers_held: config.hold_headers,
            has_gone: false,
            keeps_limits,
            most_kept: config.hold_bytes,
            most_held: config.held_bytes_per_worker,
            share: Share::of(held),
            asked: None,
            sent: None,
            early: None,
            unread: None,
            endpoint,
        }
    }

    /// The request's tenant.
    pub(super) fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The changes of headers that do not depend on the body.
    pub(super) fn header_changes(&self) -> Vec<HeaderChange> {
        if self.endpoint.is_signed {
            // A signature may cover any header. Nor is the body edited, so its length stays right.
            return Vec::new();
        }
        // A compressed answer could not be read.
        let mut changes = vec![HeaderChange::Set("accept-encoding", "identity".into())];
        if matches!(self.body, Body::Passing(_)) {
            // A rewrite may change the length, and with a stale one the rest of this body would be read as the next request.
            changes.push(match self.promised {
                Some(promised) => HeaderChange::Set("content-length", promised.into()),
                None => HeaderChange::Remove(b"content-length".to_vec()),
            });
        }
        changes
    }

    /// Whether the headers wait for the body. A model in the path can be changed only before they are forwarded.
    pub(super) fn begin(
        &mut self,
        config: &Config,
        store: &impl Store,
        now: Timestamp,
    ) -> Result<Step, Box<Step>> {
        if self.headers_held {
            return Ok(Step::pause());
        }
        let Some(parsed) = self
            .parsed()
            .map_err(|fault| self.invalid(config, fault, store, now))?
        else {
            return Ok(Step::default());
        };
        let mut step = self.admit(config, parsed, store, now)?;
        step.headers.extend(self.decided_headers());
        Ok(step)
    }

    /// Whether the whole JSON object was read.
    pub(super) fn is_complete(&self) -> bool {
        self.scanner.closing_brace().is_some()
    }

    /// Notes that the upstream answers before it has received the whole request.
    pub(super) fn answered_early(&mut self, response: &Headers) {
        self.early = Some(response.clone());
    }

    /// Reads the next bytes of the body. `Err` is the step of a refused request.
    pub(super) fn read(
        &mut self,
        config: &Config,
        chunk: &[u8],
        is_end: bool,
        store: &impl Store,
        now: Timestamp,
    ) -> Result<Step, Box<Step>> {
        let was_complete = self.is_complete();
        self.scan(chunk, is_end)
            .map_err(|fault| self.invalid(config, fault, store, now))?;
        let is_complete = self.is_complete();
        if !is_complete && matches!(self.body, Body::Held) {
            self.share.set(self.takes());
            return Ok(Step::pause());
        }
        let mut step = Step::default();
        // Most chunks of a long body lie inside one string, and change nothing here.
        let has_news = self.scanner.take_news();
        let parsed = match has_news {
            true => self.parsed(),
            false => Ok(self.asked.take()),
        };
        let parsed = parsed.map_err(|fault| self.invalid(config, fault, store, now))?;
        let waits = parsed
            .as_ref()
            .is_some_and(|parsed| self.waits(config, parsed));
        let may_edit = !was_complete && (has_news || parsed.is_some() || self.keeps_back());
        if waits {
            self.asked = parsed;
        } else if let Some(parsed) = parsed {
            match &mut self.sent {
                None => step = self.admit(config, parsed, store, now)?,
                Some(sent) if is_complete && !was_complete && !sent.is_settled => {
                    step = self.amend(config, parsed, store, now)?;
                }
                Some(_) => {}
            }
        }
        if let Some(sent) = self.sent.as_mut().filter(|_| is_complete && !was_complete) {
            sent.note_limit(&self.scanner);
            step = step.reporting(sent.admitted());
        }
        if let Some(sent) = self.sent.as_mut().filter(|_| is_end) {
            sent.begin_wait(now);
        }
        if let Err(fault) = self.forward(chunk, may_edit, &mut step) {
            let refused = self.invalid(config, fault, store, now);
            return Err(Box::new(refused.reporting(step)));
        }
        self.share.set(self.takes());
        self.headers_held = false;
        self.has_gone = is_complete;
        Ok(step)
    }

    /// Scans a chunk, and checks that the body is what its path promises.
    fn scan(&mut self, chunk: &[u8], is_end: bool) -> Result<(), Fault> {
        self.scanner.feed(chunk).map_err(Fault::Body)?;
        self.read_messages(chunk);
        if self.breaks_promise(is_end) {
            return Err(Fault::WrongLength);
        }
        if is_end && !self.is_complete() {
            return Err(Fault::Body(Malformed::Truncated));
        }
        Ok(())
    }

    /// The admitted request, if all of it was read and forwarded, and the wait for its answer is not measured.
    pub(super) fn take_complete(&mut self) -> Option<Box<Admitted>> {
        let is_awaited = self.sent.as_ref().is_some_and(|sent| sent.wait.is_some());
        if self.is_complete() && !self.breaks_promise(true) && !is_awaited {
            self.sent.take()
        } else {
            None
        }
    }

    /// Whether the body has another length than the client announced, if the upstream's `content-length` was derived from that. Not
    /// every version of HTTP checks it.
    pub(super) fn breaks_promise(&self, is_end: bool) -> bool {
        let said = self.length.filter(|_| self.promised.is_some());
        said.is_some_and(|said| {
            let here = self.scanner.offset();
            here > said || is_end && here < said
        })
    }

    /// What was read of the request; `None` while the model is not known.
    pub(super) fn parsed(&self) -> Result<Option<Parsed>, Fault> {
        let model = match &self.endpoint.model {
            Some(model) => {
                named_again(self.endpoint.wire, &self.scanner, &model.name)?;
                Some(model.name.clone())
            }
            None => match body_model(&self.scanner) {
                Err(Fault::NoModel) if self.endpoint.wire.may_omit_model(&self.scanner) => {
                    Some(String::new())
                }
                // A list of models may name them all (<https://docs.perplexity.ai/docs/agent-api/model-fallback>, read 2026-11-30).
                Err(Fault::NoModel) => {
                    let mut names = alternatives(self.endpoint.wire, &self.scanner);
                    Some(names.next().ok_or(Fault::NoModel)?)
                }
                named => named?.map(|(name, _)| name),
            },
        };
        let Some(model) = model else { return Ok(None) };
        no_overlong(self.endpoint.wire, &self.scanner)?;
        no_overrides(self.endpoint.wire, &self.scanner)?;
        let mut facts = self.endpoint.wire.facts(&self.scanner)?;
        if let Some(most) = most_of_alternatives(self.endpoint.wire, &self.scanner) {
            facts.output_limit = facts.output_limit.map(|limit| limit.max(Tokens(most)));
        }
        Ok(Some(Parsed { model, facts }))
    }
}

/// How many bytes all edits of a body together can add, at most. The bytes that the edits do not use are filled with white space
/// after the object.
fn most_added(config: &Config, endpoint: &Endpoint, lowers_limits: bool) -> u64 {
    /// Limits of at most twenty digits, and the longest name under which one is added.
    const LIMITS: u64 = 128;
    let ladders = config.ladders.iter();
    let model = ladders.map(Ladder::longest_model).max();
    let model = model
        .filter(|_| endpoint.wire.model_key().is_some())
        .unwrap_or(0);
    // In a request that is lowered, each list of names becomes a list of the new name alone, and each other list becomes `null`, in place
    // of at least one byte.
    let lists = if model > 0 {
        endpoint.wire.alternatives()
    } else {
        0
    };
    let names = (0..lists).fold(model, |names, list| {
        let entry = model.saturating_add(2);
        names.saturating_add(if list < LISTS_OF_ENTRIES { 3 } else { entry })
    });
    let asking = endpoint.wire.most_added_to_ask();
    let asking = if endpoint.may_be_asked() { asking } else { 0 };
    let limits = if lowers_limits { LIMITS } else { 0 };
    names.saturating_add(asking).saturating_add(limits)
}
