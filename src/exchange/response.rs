//! The response's half of an exchange: usage → settle → report.

use std::rc::Rc;

use crate::base::units::Timestamp;
use crate::exchange::admitted::Admitted;
use crate::exchange::step::{BodyChange, HeaderChange, Step, foreign};
use crate::exchange::{Exchange, Stage, shadow};
use crate::http::{Headers, Properties};
use crate::provider::usage::UsageReader;
use crate::provider::{LimitNames, limits_left};
use crate::published::header_group::{HeaderGroup, HeaderGroups};
use crate::report::headers;
use crate::report::settlement::Exit;
use crate::state::store::Store;

impl Exchange {
    /// Handles the response's headers, from the upstream or the proxy itself. `is_end`: nothing follows them.
    pub fn response_headers(
        &mut self,
        response: &Headers,
        is_end: bool,
        store: &impl Store,
        properties: &impl Properties,
        now: Timestamp,
    ) -> Step {
        // The upstream must not set headers that only bursar may set.
        let mut step = Step {
            headers: foreign(response),
            ..Step::default()
        };
        let is_ours = matches!(self.stage, Stage::Idle | Stage::Refused(_));
        let config = Rc::clone(&self.config);
        let Some(sent) = self.sent() else {
            if let Stage::RequestBody(reading) = &mut self.stage {
                reading.answered_early(response);
            }
            if let Stage::Unread(shadow) = &self.stage {
                let ours = headers::decided(shadow::unread_decision(shadow));
                let ours = ours.chain([headers::shadow(shadow)]);
                let ours = ours.filter(|(name, _)| headers::is_wanted(self.config.headers, name));
                step.headers
                    .extend(ours.map(|(name, value)| HeaderChange::Add(name, value)));
            }
            return if is_ours { Step::default() } else { step };
        };
        let (theirs, names) = limits_of(response);
        let limits = names.map_or([None; 2], |names| limits_left(response, names));
        // Before the settlement, since the upstream's report already counts this request.
        step = step.reporting(sent.learn_limit(limits[0], store, now));
        match refused(response) {
            Some(exit) => {
                let unheard = match response.only(":status") {
                    Some(b"504") => sent.time_out(store, now),
                    _ => sent.end_unheard(&config, store, now),
                };
                step = step
                    .reporting(sent.settle(&config, store, exit, now))
                    .reporting(unheard);
                let says_no =
                    sent.upstream_refuses(&config, response, is_end, store, properties, now);
                step = step.reporting(says_no);
                if sent.upstream.comes_back {
                    step.headers.extend(sent.comes_back(response, now));
                }
            }
            None => {
                // The answer itself is fetched later (RFC 9110, 15.3.3).
                sent.facts.is_deferred |= response.only(":status") == Some(b"202");
                let reader = sent.reader(response);
                if reader.changes_length() {
                    step.headers
                        .push(HeaderChange::Remove(b"content-length".to_vec()));
                }
                sent.reader = Some(reader);
            }
        }
        let mut ours = sent.headers(config.headers, now);
        // Bursar's headers replace the upstream's; the remainder that they report is the smaller of the two.
        let refuses = sent.upstream.refuses();
        let stays = match config.headers.contains(HeaderGroup::XRatelimit) {
            true if refuses || names.is_some() => {
                let names = names.unwrap_or(LimitNames::OpenAi);
                headers::stricter(&mut ours, limits, names, refuses, now)
            }
            _ => Vec::new(),
        };
        let is_left = |name: &&&str| ours.iter().all(|(our_name, _)| our_name != *name);
        let left = theirs
            .iter()
            .filter(|name| !stays.contains(*name))
            .filter(is_left);
        step.headers
            .extend(left.map(|name| HeaderChange::Remove(name.as_bytes().to_vec())));
        let set = |(name, value)| match theirs.contains(&name) {
            true => HeaderChange::Set(name, value),
            false => HeaderChange::Add(name, value),
        };
        step.headers.extend(ours.into_iter().map(set));
        if is_end {
            step = step.reporting(sent.settle(&config, store, Exit::Answered, now));
        }
        step
    }

    /// Whether the response's body is to be given to [`Exchange::response_body`].
    #[must_use]
    pub fn reads_response(&self) -> bool {
        self.admitted().is_some_and(Admitted::reads_response)
    }

    /// Whether the next chunk of the response's body is handled by the exact time. If not, the chunk only keeps the reservation from expiring,
    /// for which a time will do that is a moment old.
    #[must_use]
    pub fn times_response(&self, is_end: bool) -> bool {
        is_end || self.admitted().is_none_or(Admitted::times_response)
    }

    /// Handles a chunk of the response's body. `now`: see [`Exchange::times_response`].
    pub fn response_body(
        &mut self,
        chunk: &[u8],
        is_end: bool,
        store: &impl Store,
        now: Timestamp,
    ) -> Step {
        let config = Rc::clone(&self.config);
        let Some(sent) = self.sent() else {
            return Step::default();
        };
        let Some(reader) = &mut sent.reader else {
            return sent.read_refusal(&config, chunk, is_end, store, now);
        };
        let replaced = reader.feed(chunk, is_end);
        let has_begun = reader.has_begun();
        let mut step = if is_end {
            // Not earlier: the last report counts, wherever it is in the stream.
            sent.settle(&config, store, Exit::Answered, now)
        } else {
            sent.renew(&config, store, now)
        };
        if !sent.upstream.is_heard {
            step = step.reporting(sent.upstream_answers(&config, is_end, store, now));
        }
        if has_begun && sent.wait.is_some() {
            step = step.reporting(sent.end_wait(store, now));
        }
        step.body = replaced.map_or(BodyChange::Keep, BodyChange::Replace);
        step
    }

    /// Handles the end of a response that has trailers after its body. The step's header changes apply to the trailers.
    ///
    /// An event that no empty line ended is dropped if it was kept back: nothing can be added to the body any more, and a client
    /// discards such an event (WHATWG HTML, 9.2.6).
    pub fn response_trailers(
        &mut self,
        trailers: &Headers,
        store: &impl Store,
        now: Timestamp,
    ) -> Step {
        let mut step = self.response_body(&[], true, store, now);
        step.body = BodyChange::Keep;
        step.headers = foreign(trailers);
        step
    }

    /// As [`Self::sent`].
    fn admitted(&self) -> Option<&Admitted> {
        match &self.stage {
            Stage::RequestBody(reading) => reading.sent.as_deref(),
            Stage::Admitted(sent) => Some(sent),
            Stage::Idle | Stage::Refused(_) | Stage::Unread(_) => None,
        }
    }

    /// The admitted request, even if not all of it was forwarded: an upstream may answer earlier.
    fn sent(&mut self) -> Option<&mut Admitted> {
        match &mut self.stage {
            Stage::RequestBody(reading) => reading.sent.as_deref_mut(),
            Stage::Admitted(sent) => Some(sent),
            Stage::Idle | Stage::Refused(_) | Stage::Unread(_) => None,
        }
    }
}

impl Admitted {
    /// Once the request is settled, the answer is read only where it may have to be changed.
    fn reads_response(&self) -> bool {
        if self.upstream.reads() {
            return true;
        }
        let is_done = self.is_settled && self.wait.is_none();
        let mut reader = self.reader.iter();
        reader.any(|reader| !is_done || reader.changes_length())
    }

    /// As [`Exchange::times_response`]: before the upstream is heard, and while the first byte is awaited, waits are measured.
    fn times_response(&self) -> bool {
        self.reader.is_none() || !self.upstream.is_heard || self.wait.is_some()
    }

    /// Bursar's headers on the response. Whatever bursar changed is always reported.
    fn headers(&self, groups: HeaderGroups, now: Timestamp) -> Vec<headers::Header> {
        let record = self.admission.record.as_deref();
        let books = self.admission.books(&self.tenant);
        let limits = record
            .map(|record| headers::limits(self.tenant.limits(), record, &books, None, groups, now));
        let mut headers = limits.unwrap_or_default();
        let was_changed = self.is_changed() || self.limited_to.is_some() || self.trimmed.is_some();
        if !was_changed && !groups.contains(HeaderGroup::Bursar) {
            return headers;
        }
        headers.extend(headers::decided(self.decided()));
        headers.extend(self.limited_to.map(headers::max_output_tokens));
        headers.extend(self.shadow.as_ref().map(headers::shadow));
        let trimmed = self.trimmed.as_ref();
        headers.extend(trimmed.map(|trimmed| headers::trimmed_messages(trimmed.messages)));
        headers
    }

    /// A reader for the response with these headers.
    pub(super) fn reader(&self, response: &Headers) -> UsageReader {
        UsageReader::new(self.endpoint.wire, response, self.drops_usage)
    }
}

/// The headers about limits that the upstream sent under names of ours, and how it names its own limits, if it reports any.
fn limits_of(response: &Headers) -> (Vec<&'static str>, Option<LimitNames>) {
    let (mut found, mut names) = (Vec::new(), None);
    for name in response.names_from([b'x', b'r', b'a']) {
        if name.starts_with(b"anthropic-ratelimit-") {
            names = Some(LimitNames::Anthropic);
        }
        let limit = headers::LIMITS
            .iter()
            .find(|limit| limit.as_bytes() == name);
        if let Some(limit) = limit.filter(|limit| !found.contains(*limit)) {
            found.push(*limit);
            names = names.or(Some(LimitNames::OpenAi));
        }
    }
    (found, names)
}

/// How the upstream failed to serve the request, if it did.
pub(super) fn refused(response: &Headers) -> Option<Exit> {
    match response.only(":status").unwrap_or_default().first() {
        Some(b'2') => None,
        Some(b'5') => Some(Exit::UpstreamFailed),
        _ => Some(Exit::UpstreamRefused),
    }
}
