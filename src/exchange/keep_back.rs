//! Which part of a request's body is kept back, and for how long: the part that may still have to be changed, within the memory limits.

use crate::config::Config;
use crate::exchange::request_body::{Body, Parsed, RequestBody};
use crate::exchange::scope::{Known, depends_on_rest};
use crate::provider::lists;
use crate::tier::place;

impl RequestBody {
    /// Whether the admission waits for more of the body, which is kept back while there is room.
    pub(super) fn waits(&self, config: &Config, parsed: &Parsed) -> bool {
        let kept = self
            .first_kept()
            .map_or(0, |start| self.scanner.offset().saturating_sub(start));
        self.sent.is_none() && self.may_depend(config, parsed) && kept < self.room()
    }

    /// Whether the admission may depend on the rest of the body.
    fn may_depend(&self, config: &Config, parsed: &Parsed) -> bool {
        if self.is_complete() || self.endpoint.model.is_some() {
            return false;
        }
        let place = place(&config.ladders, &parsed.model);
        let limits = &self.tenant.plan.limits;
        limits.min_output_tokens.is_some()
            || !limits.never_downgrade
                && depends_on_rest(&self.endpoint, &parsed.model, place, self.known())
            || self.may_trim() && place.is_some_and(|place| place.ladder.trims(place.asked))
            || self.may_name() && place.is_some()
    }

    /// Whether a request that is decided now would have waited, had this worker had memory for it.
    pub(super) fn is_crowded_out(&self, config: &Config, parsed: &Parsed) -> bool {
        self.room() < self.most_kept && self.may_depend(config, parsed)
    }

    /// How many bytes of the body may be kept back now: the smaller of the request's limit and the rest of the worker's limit.
    pub(super) fn room(&self) -> u64 {
        let messages = self
            .messages
            .as_ref()
            .map_or(0, |messages| messages.memory());
        let left = self.share.room(self.most_held).saturating_sub(messages);
        self.most_kept.min(left)
    }

    /// How many bytes of the worker's memory the request takes.
    pub(super) fn takes(&self) -> u64 {
        let kept = match &self.body {
            Body::Held => 0,
            Body::Passing(passing) => passing.memory(),
        };
        let messages = self
            .messages
            .as_ref()
            .map_or(0, |messages| messages.memory());
        kept.saturating_add(messages)
    }

    /// Reads more of the messages, while there is room for what must be remembered of them.
    pub(super) fn read_messages(&mut self, chunk: &[u8]) {
        if let Some(messages) = &mut self.messages {
            messages.feed(chunk);
            if messages.memory() > self.share.room(self.most_held) {
                messages.forget();
            }
        }
    }

    /// Whether the conversation can still be shortened.
    pub(super) fn may_trim(&self) -> bool {
        self.trims
            && self.messages.as_ref().is_some_and(|messages| {
                let has_gone = messages.start().is_some_and(|start| start < self.gone());
                !messages.is_odd() && !has_gone
            })
    }

    /// Whether the conversation will be identified by the body, once that is read.
    pub(super) fn may_name(&self) -> bool {
        let messages = self.messages.as_ref().filter(|_| self.names);
        messages.is_some_and(|messages| !messages.is_odd())
    }

    /// Start of the first value that may still have to be changed: the model and the messages until the admission, an output
    /// limit until it is known how far it is lowered, and stream options until it is known whether the answer is a stream.
    pub(super) fn first_kept(&self) -> Option<u64> {
        let limits = self.endpoint.wire.output_limits();
        let (model, may_lower) = match &self.sent {
            None => (self.endpoint.model.is_none(), self.keeps_limits),
            Some(sent) => (
                false,
                limits.have_floor && sent.admission.most_output.is_some(),
            ),
        };
        let object = limits.object.map(|(index, _)| index);
        let limits = limits.keys.iter().copied().chain(object);
        let others = lists(self.endpoint.wire, &self.scanner);
        let others = others.filter(|_| self.sent.is_none());
        let kept = model
            .then_some(0)
            .into_iter()
            .chain(others)
            .chain(limits.filter(|_| may_lower));
        let starts = kept.filter_map(|index| self.scanner.begun(index).map(|field| field.start));
        let messages = self.messages.as_ref().filter(|_| self.sent.is_none());
        let messages = messages.filter(|messages| self.trims && !messages.is_odd());
        let asking = self.endpoint.may_be_asked().then(|| self.asked_at());
        let starts = starts.chain(messages.and_then(|messages| messages.start()));
        let starts = starts.chain(asking.flatten());
        starts.filter(|&start| start >= self.gone()).min()
    }

    /// How much of the body is known.
    pub(super) fn known(&self) -> Known {
        match self.length {
            _ if self.is_complete() => Known::Whole,
            Some(_) => Known::Length,
            None => Known::Part,
        }
    }

    /// Start of the stream options, if a request for usage may still have to be added to them: until it is known whether the answer
    /// is a stream, and until the admission if only some tiers accept such a request.
    fn asked_at(&self) -> Option<u64> {
        let wire = self.endpoint.wire;
        let depends = self.sent.is_none() && !self.always_asks;
        wire.may_ask_at(&self.scanner).or_else(|| {
            let later = depends.then(|| wire.ask_usage(&self.scanner));
            later.flatten().map(|edit| edit.start)
        })
    }

    /// Whether a stream's usage may be requested, as far as the tier is known.
    pub(super) fn may_ask(&self) -> bool {
        let sent = self.sent.as_ref();
        self.endpoint.may_be_asked() && sent.map_or(self.always_asks, |sent| sent.asks_usage)
    }

    /// Offset of the first byte that is not forwarded yet.
    pub(super) fn gone(&self) -> u64 {
        match &self.body {
            Body::Held => 0,
            Body::Passing(passing) => passing.gone(),
        }
    }

    /// Whether some of what was read of the body is not forwarded yet.
    pub(super) fn keeps_back(&self) -> bool {
        matches!(&self.body, Body::Passing(passing) if passing.keeps_back())
    }

    /// Whether an output limit was forwarded already, so that it cannot be lowered.
    pub(super) fn has_let_a_limit_go(&self) -> bool {
        let limits = self.endpoint.wire.output_limits().keys.iter();
        let mut begun = limits.filter_map(|&index| self.scanner.begun(index));
        begun.any(|field| field.start < self.gone())
    }

    /// Whether a list of other models was forwarded already, so that a dearer model could answer.
    pub(super) fn has_let_alternatives_go(&self) -> bool {
        let lists = lists(self.endpoint.wire, &self.scanner);
        let mut begun = lists.filter_map(|index| self.scanner.begun(index));
        begun.any(|field| field.start < self.gone())
    }

    /// Offset from which on the body must be kept back.
    pub(super) fn keep_from(&self) -> Option<u64> {
        if self.is_complete() {
            return None;
        }
        let room = self.room();
        let is_within = |start: &u64| self.scanner.offset().saturating_sub(*start) < room;
        let kept = self.first_kept().filter(is_within);
        kept.into_iter().chain(self.scanner.open_since()).min()
    }
}
