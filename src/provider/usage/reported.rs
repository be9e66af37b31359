//! What a response has reported so far.

use crate::base::units::Tokens;
use crate::body::eventstream::{FramePart, Kind};
use crate::body::json::{Repeats, Scanner};
use crate::body::sse::{EventFilter, Verdict};
use crate::provider::Wire;
use crate::usage::{EventFacts, EventKind, ServiceTier, Usage};

/// What the response has reported so far.
#[derive(Clone, Debug)]
pub(super) struct Reported {
    pub(super) wire: &'static dyn Wire,
    pub(super) event: Event,
    /// The usage that the headers report.
    pub(super) of_headers: Option<Usage>,
    /// The usage that was reported so far.
    pub(super) usage: Option<Usage>,
    /// Whether nothing of the answer came after the last report of usage.
    pub(super) is_final: bool,
    /// Whether an event with data was read.
    pub(super) has_data: bool,
    /// Whether the response reports an error.
    pub(super) has_error: bool,
    /// The error as it is in the response: an object, or a word.
    pub(super) error: Vec<u8>,
    /// The model that answered.
    pub(super) model: Option<String>,
    pub(super) service_tier: Option<ServiceTier>,
    /// What models used that took part beside the one that answered: a part of `usage`.
    pub(super) others: Vec<(String, Usage)>,
    pub(super) content: Content,
    /// Whether the events are whole answers, whose usages add up, and each may be from another model.
    pub(super) adds_up: bool,
}

/// The event that is being read.
#[derive(Clone, Debug, Default)]
pub(super) struct Event {
    /// The scanner of this event; `None` before the first one.
    pub(super) scanner: Option<Scanner>,
    /// Whether the event is not a JSON object.
    is_other: bool,
    /// Whether the event's frame declares an error.
    is_error: bool,
    /// The event's first bytes.
    head: Vec<u8>,
    pub(super) length: u64,
}

/// The last event of OpenAI's streams: not JSON.
const DONE: &[u8] = b"[DONE]";

/// What a stream's events reveal about the output's length, as long as no usage is reported.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Content {
    pub(super) events: u64,
    bytes: u64,
    shortest: Option<u64>,
    /// The output that was reported last, and the events and bytes up to that report.
    reported: Tokens,
    covered: (u64, u64),
}

impl Reported {
    pub(super) fn new(wire: &'static dyn Wire, of_headers: Option<Usage>) -> Self {
        Self {
            wire,
            event: Event::default(),
            of_headers,
            usage: of_headers,
            is_final: of_headers.is_some_and(|usage| usage.is_whole()),
            has_data: false,
            has_error: false,
            error: Vec::new(),
            model: None,
            service_tier: None,
            others: Vec::new(),
            content: Content::default(),
            adds_up: false,
        }
    }

    /// Records what a response that is one JSON object has reported so far. This replaces what was recorded before.
    pub(super) fn whole(&mut self, scanner: &Scanner) {
        let in_body = self.wire.usage(scanner).filter(Usage::has_tokens);
        let cache = self.wire.cache_count();
        let together = in_body.map(|usage| match self.of_headers {
            Some(of_headers) => usage.after(of_headers, cache),
            None => usage,
        });
        self.usage = together.or(self.of_headers);
        self.is_final = self.usage.is_some_and(|usage| usage.is_whole());
        self.has_error = self.wire.is_error(scanner);
        if self.has_error {
            self.error = self.wire.error_in(scanner).unwrap_or_default().to_vec();
        }
        self.model = self.wire.served_model(scanner);
        self.service_tier = self.wire.service_tier(scanner).or(self.service_tier);
        self.others = self.wire.others(scanner);
    }

    pub(super) fn frame(&mut self, part: FramePart<'_>) {
        match part {
            FramePart::Begin { kind, name } => {
                self.event.clear();
                self.event.is_error = matches!(kind, Kind::Exception | Kind::Error);
                if self.event.is_error {
                    self.error = name.to_vec();
                }
            }
            FramePart::Payload(bytes) => self.data(bytes),
            FramePart::End => {
                self.end();
            }
        }
    }

    /// Records what an event reports. Returns whether the event is forwarded to a client that did not request usage.
    fn note(&mut self, facts: EventFacts, length: u64) -> Verdict {
        if let Some(usage) = facts.usage.filter(Usage::has_tokens) {
            let cache = self.wire.cache_count();
            self.usage = Some(match self.usage {
                Some(earlier) if self.adds_up => earlier.and(usage),
                Some(earlier) => usage.after(earlier, cache),
                None => usage,
            });
        }
        match facts.kind {
            EventKind::Content => self.content(length),
            EventKind::Error => self.has_error = true,
            EventKind::Frame | EventKind::UsageOnly => {}
        }
        // The event is counted first, since a report includes its own event.
        let output = facts.usage.and_then(|usage| usage.output);
        if output.is_some_and(|output| output > Tokens(0)) {
            let all = self.usage.and_then(|usage| usage.output);
            self.content.cover(all.unwrap_or_default());
        }
        self.is_final |= facts.is_last;
        match facts.kind {
            EventKind::UsageOnly => Verdict::Drop,
            EventKind::Content | EventKind::Frame | EventKind::Error => Verdict::Keep,
        }
    }

    fn content(&mut self, length: u64) {
        self.is_final = false;
        self.content.add(length);
    }

    /// Records what an event reports that is a JSON object.
    fn object(&mut self, scanner: &Scanner) -> EventFacts {
        let facts = self.wire.event(scanner);
        if facts.kind == EventKind::Error {
            self.error = self.wire.error_in(scanner).unwrap_or_default().to_vec();
        }
        // Some streams name the model and the tier in every event. Reading them from the first event and from those with usage is enough.
        if (facts.usage.is_some() || self.content.events == 0) && !self.adds_up {
            let model = self.wire.served_model(scanner);
            self.model = model.or_else(|| self.model.take());
            self.service_tier = self.wire.service_tier(scanner).or(self.service_tier);
        }
        if facts.usage.is_some() {
            self.others = self.wire.others(scanner);
        }
        facts
    }
}

impl EventFilter for Reported {
    fn data(&mut self, bytes: &[u8]) {
        self.has_data |= !bytes.is_empty();
        self.event.read(self.wire, bytes);
    }

    fn end(&mut self) -> Verdict {
        let length = self.event.length;
        let is_error = self.event.is_error;
        let is_object = length > 0 && !self.event.is_other;
        let facts = match self.event.scanner.take() {
            Some(scanner) if is_object => {
                let facts = self.object(&scanner);
                self.event.scanner = Some(scanner);
                facts
            }
            scanner => {
                self.event.scanner = scanner;
                let is_done = self.event.head.trim_ascii() == DONE;
                EventFacts {
                    kind: match is_done {
                        true => EventKind::Frame,
                        false => EventKind::Content,
                    },
                    is_last: is_done,
                    ..EventFacts::default()
                }
            }
        };
        self.event.clear();
        let kind = match is_error {
            true => EventKind::Error,
            false => facts.kind,
        };
        self.note(EventFacts { kind, ..facts }, length)
    }

    fn whole(&mut self, data: &[u8]) -> Verdict {
        self.has_data |= !data.is_empty();
        // The first event may contain something that no other event does.
        let is_first = self.content.events == 0;
        if data.starts_with(b"{") && !is_first && !self.wire.may_report(data) {
            self.content(length(data));
            return Verdict::Keep;
        }
        self.data(data);
        self.end()
    }
}

impl Content {
    /// Notes that a report of this much output covers everything so far.
    fn cover(&mut self, reported: Tokens) {
        (self.reported, self.covered) = (reported, (self.events, self.bytes));
    }

    /// An estimate of the output: what was reported, and about one token for each event after that report. An event with more than one
    /// token is longer than the shortest event by the additional text.
    pub(super) fn estimate(&self) -> Tokens {
        let (events, bytes) = self.covered;
        let (events, bytes) = (
            self.events.saturating_sub(events),
            self.bytes.saturating_sub(bytes),
        );
        let overhead = self.shortest.unwrap_or(0).saturating_mul(events);
        let after = events.max(bytes.saturating_sub(overhead) / 4);
        Tokens(self.events).max(self.reported + Tokens(after))
    }

    fn add(&mut self, length: u64) {
        self.events = self.events.saturating_add(1);
        self.bytes = self.bytes.saturating_add(length);
        self.shortest = Some(
            self.shortest
                .map_or(length, |shortest| shortest.min(length)),
        );
    }
}

impl Event {
    fn clear(&mut self) {
        if let Some(scanner) = &mut self.scanner {
            scanner.restart();
        }
        self.is_other = false;
        self.is_error = false;
        self.head.clear();
        self.length = 0;
    }

    fn read(&mut self, wire: &'static dyn Wire, bytes: &[u8]) {
        self.length = self.length.saturating_add(length(bytes));
        let room = DONE.len().saturating_add(2).saturating_sub(self.head.len());
        self.head.extend(bytes.iter().take(room));
        let scanner = self
            .scanner
            .get_or_insert_with(|| Scanner::new(wire.events(), Repeats::TakeLast));
        if !self.is_other {
            self.is_other = scanner.feed(bytes).is_err();
        }
    }
}

pub(super) fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
