//! Connects the records of a process to the store: which records have lines due, what the lines say, and what an answer changes.
//!
//! Each worker has one [`Teller`]. Each request notes in its worker's teller when the next line about its tenant is due. At that time the
//! worker builds the line in a compare-and-swap on the record, so that only one of several workers sends it. No worker is elected, and
//! workers share no list: if a worker ends, its notes are lost, and the tenant's next request makes them again.

mod note;
mod record;
pub mod upstreams;

use std::collections::HashMap;
use std::rc::Rc;

use crate::admission::Watch;
use crate::admission::ledger::Ledger;
use crate::admission::tenant::Tenant;
use crate::base::name::{LimitKey, NameHashing};
use crate::base::units::Timestamp;
use crate::config::{FailureMode, Global};
use crate::lease::call::{Answers, AnyLine, Call, Failed, LINES, Login};
use crate::lease::clock::Skew;
use crate::lease::grant::Told;
use crate::lease::line::{Answer, Line, NoAnswer};
use crate::lease::pressed::Pressed;
use crate::lease::resp::Refusal;
use crate::report::metrics::{self, Metric};
use crate::state::store::{StateFaults, Store};
use crate::tenant::TenantId;

pub use note::Note;
use note::{ended, result, words};
use record::{gauges, hear, say};
use upstreams::Report;

/// The most limits for which a worker logs that they are too small to be shared; a gauge shows this for every limit.
const TOO_SMALL: usize = 64;

/// What one worker has to report to the store.
#[derive(Debug, Default)]
pub struct Teller {
    watched: HashMap<TenantId, Watched, NameHashing>,
    /// Whether the last call was answered; `None` before the first one.
    is_reached: Option<bool>,
    /// Whether it was logged that the clocks differ.
    knows_skew: bool,
    /// The limits that were logged as too small: only the first [`TOO_SMALL`], each once.
    small: Vec<Note>,
}

#[derive(Debug)]
struct Watched {
    watch: Watch,
    /// Whether the store has lost its data, so that all lines of the record are due at once.
    restates: bool,
}

/// The lines of one call to one store.
#[derive(Clone, Debug)]
pub struct Message {
    /// The store, and the domain of the proxies that share it.
    pub global: Rc<Global>,
    said: Vec<Said>,
    /// What is reported about upstreams, if anything is.
    upstreams: Option<Report>,
    sent: Timestamp,
    /// Whether the call contains the script.
    has_script: bool,
}

/// A line, and the limit that the line is about.
#[derive(Clone, Debug)]
struct Said {
    tenant: Tenant,
    limit: LimitKey,
    key: String,
    line: AnyLine,
}

/// What follows from an answer, or from its absence.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The same lines, which have to be sent again on a new connection.
    pub again: Option<Message>,
    /// What is to be counted.
    pub metrics: Vec<Metric>,
    /// What is to be logged.
    pub notes: Vec<Note>,
    /// The store's answer to what was reported about upstreams.
    pub upstreams: Option<Vec<Pressed>>,
    /// Faults of bursar's own state.
    pub faults: StateFaults,
}

impl Teller {
    /// Notes when lines about this record are due.
    pub fn watch(&mut self, watch: Watch) {
        match self.watched.get_mut(watch.tenant.id.as_str()) {
            // The configuration of the newest request counts.
            Some(known) => {
                let due = known.watch.due.min(watch.due);
                known.watch = Watch { due, ..watch };
            }
            None => {
                let watched = Watched {
                    watch,
                    restates: false,
                };
                self.watched
                    .insert(watched.watch.tenant.id.clone(), watched);
            }
        }
    }

    /// Whether no record has lines to send.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.watched.is_empty()
    }

    /// All lines that are due now, in as many calls as needed. Building a line claims it: no other worker sends it.
    pub fn due(&mut self, store: &impl Store, now: Timestamp) -> (Vec<Message>, StateFaults) {
        let mut messages: Vec<Message> = Vec::new();
        let mut faults = StateFaults::default();
        self.watched.retain(|_, watched| {
            if watched.watch.due > now && !watched.restates {
                return true;
            }
            let restates = std::mem::take(&mut watched.restates);
            let mut ledger = Ledger::new(store, &watched.watch.tenant, FailureMode::Allow, now);
            let (said, next) = say(&mut ledger, &watched.watch.global, restates);
            faults = faults.and(ledger.faults);
            for said in said {
                push(&mut messages, &watched.watch.global, said, now);
            }
            next.inspect(|next| watched.watch.due = *next).is_some()
        });
        (messages, faults)
    }

    /// Processes the store's answer to a message. `status`: the answer's status, if it had headers.
    pub fn heard(
        &mut self,
        message: &Message,
        status: Option<&[u8]>,
        body: &[u8],
        store: &impl Store,
        now: Timestamp,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let Answers { lines, pressed } = match message.call().read(status, body) {
            Ok(answers) => answers,
            Err(failed) => {
                let refusal = match failed {
                    Failed::Refused(refusal, _) => Some(refusal),
                    Failed::NoConnection | Failed::Malformed(_) => None,
                };
                self.lost(&mut outcome, words(&failed));
                outcome.metrics.push(metrics::global_call(result(refusal)));
                self.settle(message, |_| None, &mut outcome, store, now);
                return outcome;
            }
        };
        let mut faults = lines.iter().filter_map(|answer| answer.as_ref().err());
        let unheard = pressed.as_ref().and_then(|answer| answer.as_ref().err());
        let first = faults.next();
        let is_new = |fault: &NoAnswer| matches!(fault, NoAnswer::Refused(Refusal::NoScript, _));
        if !message.has_script && first.into_iter().chain(faults).chain(unheard).any(is_new) {
            // Lines that were answered before the script was gone are stale when they are sent again, which does no harm.
            outcome.metrics.push(metrics::global_call("no_script"));
            outcome.again = Some(Message {
                has_script: true,
                ..message.clone()
            });
            return outcome;
        }
        let ended = first.or(unheard).map_or("ok", ended);
        outcome.metrics.push(metrics::global_call(ended));
        match first {
            Some(NoAnswer::Refused(_, text)) => self.lost(&mut outcome, text.clone()),
            Some(NoAnswer::Strange) => {
                let why = "it answers what the script does not".to_owned();
                self.lost(&mut outcome, why);
            }
            // Upstreams stand in another key than accounts do: an answer about them alone does not say that the store takes lines.
            None if lines.is_empty() => {}
            None => self.found(&mut outcome, &lines, message.sent, now),
        }
        // Without an answer about upstreams each proxy knows what it has seen itself.
        outcome.upstreams = pressed.and_then(Result::ok);
        let of = |at: usize| lines.get(at)?.as_ref().ok();
        self.settle(message, of, &mut outcome, store, now);
        outcome
    }

    /// Notes that a message could not be sent.
    pub fn not_sent(&mut self, message: &Message, store: &impl Store, now: Timestamp) -> Outcome {
        let mut outcome = Outcome::default();
        let cluster = &message.global.cluster;
        self.lost(
            &mut outcome,
            format!("the proxy has no cluster `{cluster}`"),
        );
        outcome.metrics.push(metrics::global_call(result(None)));
        self.settle(message, |_| None, &mut outcome, store, now);
        outcome
    }

    /// Applies the answers to the records. `answer`: the answer to the line at this index; `None` if there is no answer, or only a refusal.
    fn settle<'a>(
        &mut self,
        message: &Message,
        answer: impl Fn(usize) -> Option<&'a Answer>,
        outcome: &mut Outcome,
        store: &impl Store,
        now: Timestamp,
    ) {
        let mut at = 0_usize;
        for said in message
            .said
            .chunk_by(|one, other| one.tenant.id == other.tenant.id)
        {
            let Some(first) = said.first() else { continue };
            let mut ledger = Ledger::new(store, &first.tenant, FailureMode::Allow, now);
            let of = |place: usize| answer(at.saturating_add(place));
            let (told, next) = hear(&mut ledger, said, of);
            outcome.faults = outcome.faults.and(ledger.faults);
            if told.contains(&Told::StoreLost) {
                outcome.notes.push(Note::Emptied);
                for watched in self.watched.values_mut() {
                    watched.restates = true;
                }
            }
            if let (Some(watched), Some(next)) =
                (self.watched.get_mut(first.tenant.id.as_str()), next)
            {
                watched.watch.due = next;
            }
            let (metrics, small) = gauges(&mut ledger, said);
            outcome.metrics.extend(metrics);
            self.small(&first.tenant.id, small, &mut outcome.notes);
            at = at.saturating_add(said.len());
        }
        let lines = u64::try_from(message.said.len()).unwrap_or(u64::MAX);
        outcome.metrics.push(metrics::global_lines(lines));
        outcome.notes.dedup();
    }

    /// Adds notes on those limits that were not logged as too small before.
    fn small(&mut self, tenant: &TenantId, limits: Vec<String>, notes: &mut Vec<Note>) {
        for limit in limits {
            let note = Note::TooSmall(tenant.clone(), limit);
            if self.small.len() < TOO_SMALL && !self.small.contains(&note) {
                self.small.push(note.clone());
                notes.push(note);
            }
        }
    }

    fn lost(&mut self, outcome: &mut Outcome, why: String) {
        if self.is_reached.replace(false) != Some(false) {
            outcome.notes.push(Note::Lost(why));
        }
    }

    fn found(
        &mut self,
        outcome: &mut Outcome,
        answers: &[Result<Answer, NoAnswer>],
        sent: Timestamp,
        now: Timestamp,
    ) {
        if self.is_reached.replace(true) == Some(false) {
            outcome.notes.push(Note::Found);
        }
        let told = answers
            .iter()
            .find_map(|answer| Some(answer.as_ref().ok()?.now));
        let skew = told.map_or(Skew::None, |told| Skew::told(told, sent, now));
        if skew != Skew::None && !std::mem::replace(&mut self.knows_skew, true) {
            outcome.notes.push(Note::Skewed(skew));
        }
    }
}

impl Message {
    fn empty(global: &Rc<Global>, now: Timestamp) -> Self {
        Self {
            global: Rc::clone(global),
            said: Vec::new(),
            upstreams: None,
            sent: now,
            has_script: false,
        }
    }

    /// The body of the call, with the password of the store's user, if it has one.
    #[must_use]
    pub fn body(&self, password: Option<&str>) -> Vec<u8> {
        let login = self.global.login.as_ref();
        let login = login.map(|login| Login {
            user: &login.user,
            password: password.unwrap_or_default(),
        });
        let news = self.upstreams.as_ref();
        let news = news.map(|report| (report.key.as_str(), report.news(self.sent)));
        let news = news.as_ref().map(|(key, news)| (*key, news.as_slice()));
        Call::write_any(login, self.all_lines(), news, self.has_script).1
    }

    /// The lines about budgets, with the keys of their accounts.
    pub fn lines(&self) -> impl Iterator<Item = (&str, Line)> {
        self.all_lines().filter_map(|(key, line)| match line {
            AnyLine::Budget(line) => Some((key, line)),
            AnyLine::Bucket(_) => None,
        })
    }

    /// All lines, with the keys of their accounts and buckets.
    pub fn all_lines(&self) -> impl Iterator<Item = (&str, AnyLine)> {
        self.said.iter().map(|said| (said.key.as_str(), said.line))
    }

    fn call(&self) -> Call {
        let has_pressed = self.upstreams.is_some();
        Call::of(self.global.login.is_some(), self.said.len(), has_pressed)
    }
}

/// Adds a line to the first message for its store that has room, or to a new message.
fn push(messages: &mut Vec<Message>, global: &Rc<Global>, said: Said, now: Timestamp) {
    let open = messages
        .iter_mut()
        .find(|message| message.global == *global && message.said.len() < LINES);
    match open {
        Some(message) => message.said.push(said),
        None => messages.push(Message {
            said: vec![said],
            ..Message::empty(global, now)
        }),
    }
}
