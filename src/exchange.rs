//! One request and its response as a state machine: what the proxy saw goes in, a [`Step`] comes out.
//!
//! The order of a request's way: headers → tenant → limits → tier → rewrite → upstream → usage → settle → report.
//!
//! A body is read in one of two ways. *Held*: its length is known and small enough, so headers and body wait
//! until the body is complete; then everything about it is known and everything can still be changed.
//! *Passing*: it goes on while it is read, without a content-length; the decision falls when `model` was read, and what
//! is learned after that is checked once more before the last byte goes on.

mod first_byte;
mod reading;
mod refusal;
mod request;
mod response;
mod scope;
mod shadow;
mod talk;

use std::rc::Rc;

use crate::admission::{self, Admission, Part, Used};
use crate::api::{Endpoint, Facts};
use crate::config::Config;
use crate::headers;
use crate::learn::Lesson;
use crate::name::Name;
use crate::payer::Payer;
use crate::policy::Reason;
use crate::reply::{Denial, Reply};
use crate::rewrite::Edit;
use crate::series::Label;
use crate::store::{Store, Troubles};
use crate::telemetry::{
    self, Decided, Exit, Field, Metric, SettledBy, Settlement, Shadow, plain, plain_name,
};
use crate::tenant::Headers;
use crate::text::Text;
use crate::tier::{Ladder, Needs, Place, Price, place};
use crate::units::{Cost, Timestamp, Tokens};
use crate::usage::{Reader, Usage};
use first_byte::Wait;
use reading::Reading;

/// What the proxy is to do now.
#[must_use]
#[derive(Debug, Default)]
pub struct Step {
    /// Changes of the headers at hand, in this order.
    pub headers: Vec<HeaderChange>,
    /// Change of the body at hand.
    pub body: BodyChange,
    /// Whether the message goes on.
    pub next: Next,
    /// What is to be counted.
    pub metrics: Vec<Metric>,
    /// What is to be known to the access log.
    pub fields: Vec<Field>,
    /// Of which capacity the gauge is to be set.
    pub part: Option<Box<Part>>,
    /// What went wrong with our own state.
    pub troubles: Troubles,
}

/// A change of one header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderChange {
    /// In the place of any that is there.
    Set(&'static str, Text),
    /// As `Set`, where there is none of that name: that is cheaper for the proxy.
    Add(&'static str, Text),
    /// All of that name.
    Remove(Vec<u8>),
}

/// A change of the body at hand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BodyChange {
    /// As it is.
    #[default]
    Keep,
    /// Some values in all that was held; sorted.
    Edit(Vec<Edit>),
    /// These bytes in the place of the chunk.
    Replace(Vec<u8>),
}

/// Whether a message goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Next {
    /// It goes on.
    #[default]
    Continue,
    /// It waits for more of its body.
    Pause,
    /// It is answered by us.
    Reply(Reply),
}

/// One request and its response.
#[derive(Debug)]
pub struct Exchange {
    config: Rc<Config>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Not metered, refused or settled: nothing is to be done any more.
    Idle,
    /// The request's body is being read. Boxed, since most of the time an exchange is not here.
    Reading(Box<Reading>),
    /// It is refused as soon as its end is here: an answer before that would cost the client its connection.
    Refused(Box<Step>),
    /// All of the request has gone on.
    Sent(Box<Sent>),
    /// In shadow mode: it goes on unmetered, since it cannot be read.
    Unread(Box<Shadow>),
}

/// An admitted request, from its admission to its settlement.
#[derive(Debug)]
struct Sent {
    endpoint: Endpoint,
    payer: Payer,
    admission: Admission,
    /// The model that was asked for.
    requested_model: Name,
    facts: Facts,
    /// Tier that serves, by name.
    tier: Label,
    /// Model that serves.
    model: Name,
    /// Price of the tier that serves, and of the one that was asked for.
    price: Option<Price>,
    asked_price: Option<Price>,
    /// Tokens that each answer may have, where the request asked for more.
    limited_to: Option<u64>,
    /// What would have been done with it, in shadow mode.
    shadow: Option<Shadow>,
    /// Messages of its conversation that are left out, and the edits that do so.
    trimmed: Option<Trimmed>,
    /// The response, once its headers were seen.
    reader: Option<Reader>,
    /// The wait for the first byte of the answer, where that is measured and did not end yet.
    wait: Option<Wait>,
    is_settled: bool,
}

/// What is left out of a conversation.
#[derive(Debug)]
struct Trimmed {
    messages: u64,
    edits: Vec<Edit>,
}

impl Exchange {
    /// An exchange under the configuration that is in force when it begins.
    #[must_use]
    pub fn new(config: Rc<Config>) -> Self {
        Self {
            config,
            stage: Stage::Idle,
        }
    }

    /// Whether more of the request's body is to be given to [`Exchange::request_body`].
    #[must_use]
    pub fn reads_request(&self) -> bool {
        matches!(self.stage, Stage::Reading(_) | Stage::Refused(_))
    }

    /// Whether the response's headers are to be given to [`Exchange::response_headers`].
    #[must_use]
    pub fn awaits_response(&self) -> bool {
        !matches!(self.stage, Stage::Idle)
    }

    /// Whose request it is, as the access log was told with its headers; of a metered one that was not refused.
    #[must_use]
    pub fn payer(&self) -> Option<&Payer> {
        match &self.stage {
            Stage::Reading(reading) => Some(reading.payer()),
            Stage::Sent(sent) => Some(&sent.payer),
            Stage::Idle | Stage::Refused(_) | Stage::Unread(_) => None,
        }
    }

    /// Whether nothing is left to be done at the end of the exchange, so that [`Exchange::finish`] may be left out.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let sent = match &self.stage {
            Stage::Idle | Stage::Unread(_) => return true,
            Stage::Refused(_) => return false,
            Stage::Reading(reading) => reading.sent.as_ref(),
            Stage::Sent(sent) => Some(sent),
        };
        sent.is_none_or(|sent| sent.is_settled && sent.wait.is_none())
    }

    /// The exchange is over, in whatever way. Settles what is not settled yet.
    pub fn finish(&mut self, store: &impl Store, now: Timestamp) -> Step {
        match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Idle | Stage::Unread(_) => Step::default(),
            // The client did not wait for the answer.
            Stage::Refused(step) => Step {
                next: Next::Continue,
                ..*step
            },
            Stage::Reading(reading) => reading.sent.map_or_else(Step::default, |sent| {
                sent.leave(&self.config, store, Exit::Unsent, now)
            }),
            Stage::Sent(sent) => sent.leave(&self.config, store, Exit::Unanswered, now),
        }
    }
}

impl Sent {
    /// What is told about the decision, besides whose it is.
    fn decided(&self) -> Decided {
        Decided {
            tier: (&self.tier).into(),
            requested_model: plain_name(&self.requested_model),
            model: plain_name(&self.model),
            decision: if self.is_changed() {
                "downgrade"
            } else {
                "admit"
            },
            reason: self.reason(),
        }
    }

    /// Why it was decided so; empty if plain.
    fn reason(&self) -> &'static str {
        match (&self.admission.record, self.admission.reason) {
            (None, _) => Denial::Unavailable.reason(),
            (_, reason) => reason.map_or("", reason_word),
        }
    }

    /// What was used as far as it is known, and whether the provider said so. `is_over`: no more of the answer will come.
    fn usage_so_far(&self, is_over: bool) -> (Usage, SettledBy) {
        let reader = self.reader.as_ref();
        let (reported, is_final) = reader.map_or((None, false), Reader::reported);
        let reported = reported.unwrap_or_default();
        if reported.is_whole() && (is_final || is_over) {
            return (reported, SettledBy::Usage);
        }
        let seen = match reader {
            // The rest of the answer is not seen here.
            Some(_) if self.facts.is_deferred => self.admission.estimate.output(),
            Some(reader) => reader.estimated_output(),
            None => Tokens(0),
        };
        let estimate = Usage {
            input: reported
                .input
                .or_else(|| Some(self.admission.estimate.input())),
            output: Some(seen).max(reported.output),
            ..reported
        };
        (estimate, SettledBy::Estimate)
    }

    /// Settles with the last that can be known. `exit`: the cause, unless an answer had begun: then an event that
    /// nothing ended may tell the usage.
    fn leave(mut self, config: &Config, store: &impl Store, exit: Exit, now: Timestamp) -> Step {
        let exit = match &mut self.reader {
            Some(reader) => {
                reader.feed(&[], true);
                Exit::Cut
            }
            None => exit,
        };
        let unheard = self.end_unheard(config, store, now);
        self.settle_or_wait(config, store, exit, true, now)
            .reporting(unheard)
    }

    /// Replaces the reservation by what was used: nothing, where the upstream did not serve.
    fn settle(&mut self, config: &Config, store: &impl Store, exit: Exit, now: Timestamp) -> Step {
        self.settle_or_wait(config, store, exit, false, now)
    }

    fn settle_or_wait(
        &mut self,
        config: &Config,
        store: &impl Store,
        exit: Exit,
        is_last: bool,
        now: Timestamp,
    ) -> Step {
        if std::mem::replace(&mut self.is_settled, true) {
            return Step::default();
        }
        let (usage, by) = match exit {
            Exit::Answered | Exit::Cut | Exit::Unanswered => {
                self.usage_so_far(exit == Exit::Answered)
            }
            Exit::UpstreamRefused | Exit::UpstreamFailed | Exit::Unsent => {
                (Usage::default(), SettledBy::None)
            }
        };
        let cost = usage.cost(self.price.as_ref());
        let asked = usage.cost(self.asked_price.as_ref().filter(|_| self.price.is_some()));
        let lesson = match by {
            SettledBy::Usage => self.lesson(usage),
            SettledBy::Estimate | SettledBy::None => Lesson::default(),
        };
        let demand = self.demand(config, usage);
        let used = Used {
            cost,
            demand: &demand,
            lesson,
        };
        let settled = admission::settle(store, &self.payer, &self.admission, &used, now);
        if settled.report.is_none() && !is_last {
            // It must not be lost: once more, at the end of the exchange.
            self.is_settled = false;
            return Step {
                troubles: Troubles {
                    given_up: 0,
                    ..settled.troubles
                },
                ..Step::default()
            };
        }
        let settlement = Settlement {
            tenant: label(&self.payer),
            tier: self.tier.clone(),
            model: model_label(config, &self.model),
            usage,
            spend: cost.usd,
            saved: asked.usd - cost.usd,
            by,
            exit,
        };
        // What is left is told once, at the end: as of the admission, if the settlement could not be written.
        if let Some(record) = settled.report {
            self.admission.record = Some(record);
        }
        let (limits, record) = (&self.payer.plan.limits, self.admission.record.as_deref());
        let mut step = Step {
            metrics: telemetry::settled(&settlement),
            fields: telemetry::charged(&settlement, limits, record),
            ..Step::default()
        };
        step.part = self.admission.part.clone();
        let shared = admission::settle_part(store, &self.admission, cost.tokens, now);
        step.troubles = settled.troubles.and(shared);
        step
    }

    /// What it would have cost had nothing been served better than by the first tier of its ladder, by the second, …,
    /// if the plan asks for that.
    fn demand(&self, config: &Config, usage: Usage) -> Vec<Cost> {
        if self.payer.plan.limits.pace.is_none() {
            return Vec::new();
        }
        let levels = config.ladders.iter().map(Ladder::last).max();
        let place = place(&config.ladders, &self.requested_model);
        let price = |level: usize| match place {
            Some(Place { ladder, asked }) => {
                let tier = ladder.tiers.get(level.min(ladder.last()).max(asked));
                tier.and_then(|tier| tier.price.as_ref())
            }
            None => self.price.as_ref(),
        };
        let levels = 0..levels.unwrap_or_default();
        levels.map(|level| usage.cost(price(level))).collect()
    }

    /// What the reported usage teaches. The length of a body with images or the like says nothing of a text's tokens, nor
    /// does one whose prompt the provider keeps.
    fn lesson(&self, usage: Usage) -> Lesson {
        let estimate = &self.admission.estimate;
        let is_text = [Needs::IMAGES, Needs::CACHED_PROMPT]
            .iter()
            .all(|other| !other.are_in(self.facts.needs));
        let input = usage.input.filter(|_| is_text);
        Lesson {
            prompt: input.map(|input| (estimate.body_bytes, input)),
            answer: usage
                .output
                .and_then(|output| estimate.unlimited_answer(output)),
        }
    }

    /// Keeps the reservation of a long answer from expiring.
    fn renew(&mut self, store: &impl Store, now: Timestamp) -> Step {
        if self.is_settled {
            return Step::default();
        }
        let troubles = admission::renew(store, &self.payer, &mut self.admission, now);
        Step {
            troubles,
            ..Step::default()
        }
    }
}

impl Step {
    fn pause() -> Self {
        Self {
            next: Next::Pause,
            ..Self::default()
        }
    }

    /// This step and one that comes after it.
    fn and(mut self, after: Self) -> Self {
        append(&mut self.headers, after.headers);
        self.next = after.next;
        append(&mut self.metrics, after.metrics);
        append(&mut self.fields, after.fields);
        self.part = self.part.or(after.part);
        self.troubles = self.troubles.and(after.troubles);
        self
    }

    /// This step, with what `other` counts and tells.
    fn reporting(mut self, other: Self) -> Self {
        append(&mut self.metrics, other.metrics);
        append(&mut self.fields, other.fields);
        self.part = self.part.or(other.part);
        self.troubles = self.troubles.and(other.troubles);
        self
    }
}

/// Puts `more` behind `list`.
fn append<T>(list: &mut Vec<T>, more: Vec<T>) {
    if list.is_empty() {
        *list = more;
    } else {
        list.extend(more);
    }
}

/// Removes the headers that only we may set, as a client or an upstream has sent them. An underscore is a hyphen to WSGI
/// and CGI, so it is to us.
fn foreign(message: &Headers) -> Vec<HeaderChange> {
    let plain = |byte: &u8| {
        if *byte == b'_' {
            b'-'
        } else {
            byte.to_ascii_lowercase()
        }
    };
    let is_ours = |name: &[u8]| {
        // Most other headers begin with another letter.
        matches!(name, [b'x' | b'X', ..])
            && name
                .get(..headers::PREFIX.len())
                .is_some_and(|start| start.iter().map(plain).eq(headers::PREFIX.bytes()))
    };
    let mut names: Vec<&[u8]> = Vec::new();
    for name in message.names() {
        if is_ours(name) && !names.contains(&name) {
            names.push(name);
        }
    }
    names
        .into_iter()
        .map(|name| HeaderChange::Remove(name.to_vec()))
        .collect()
}

/// The tenant as a metric's label.
fn label(payer: &Payer) -> Label {
    if payer.configured {
        payer.id.name().into()
    } else {
        telemetry::UNCONFIGURED.into()
    }
}

fn model_label(config: &Config, model: &str) -> Label {
    let other = || telemetry::OTHER_MODEL.into();
    config.model(model).map_or_else(other, Label::from)
}

fn reason_word(reason: Reason) -> &'static str {
    match reason {
        Reason::BudgetLow => "budget_low",
        Reason::BudgetPace => "budget_pace",
        Reason::BucketLow => "bucket_low",
        Reason::Conversation => "conversation",
        Reason::BudgetExhausted => "budget_exhausted",
        Reason::Sla => "sla",
        Reason::TierCapacity => "tier_capacity",
        Reason::TierPreference => "tier_preference",
        Reason::Unsupported => "tier_unsupported",
        Reason::Unread => "body_unread",
        Reason::Bound => "model_bound",
        Reason::Signed => "request_signed",
    }
}
