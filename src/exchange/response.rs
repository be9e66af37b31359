//! The response's half of an exchange: usage → settle → report.

use super::*;

impl Exchange {
    /// The response's headers are here, the upstream's or the proxy's own. `is_end`: nothing follows them.
    pub fn response_headers(
        &mut self,
        response: &Headers,
        is_end: bool,
        store: &impl Store,
        now: Timestamp,
    ) -> Step {
        // What the upstream says about itself under our names is no word of ours.
        let mut step = Step {
            headers: foreign(response),
            ..Step::default()
        };
        let is_ours = matches!(self.stage, Stage::Idle | Stage::Refused(_));
        let config = Rc::clone(&self.config);
        let Some(sent) = self.sent() else {
            if let Stage::Reading(reading) = &mut self.stage {
                reading.answered_early(response);
            }
            if let Stage::Unread(shadow) = &self.stage {
                let ours = headers::decided(shadow::unread_decision(shadow));
                let ours = ours.chain([headers::shadow(shadow)]);
                step.headers
                    .extend(ours.map(|(name, value)| HeaderChange::Add(name, value)));
            }
            return if is_ours { Step::default() } else { step };
        };
        match refused(response) {
            Some(exit) => {
                let unheard = match response.only(":status") {
                    Some(b"504") => sent.time_out(&config, store, now),
                    _ => sent.end_unheard(&config, store, now),
                };
                step = step
                    .reporting(sent.settle(&config, store, exit, now))
                    .reporting(unheard);
            }
            None => {
                let reader = sent.reader(response);
                if reader.changes_length() {
                    step.headers
                        .push(HeaderChange::Remove(b"content-length".to_vec()));
                }
                sent.reader = Some(reader);
            }
        }
        let ours = sent.headers(now);
        // What we set takes the place of theirs.
        let theirs = told_limits(response);
        let is_left = |name: &&&str| ours.iter().all(|(our_name, _)| our_name != *name);
        let left = theirs.iter().filter(is_left);
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
        let sent = match &self.stage {
            Stage::Reading(reading) => reading.sent.as_ref(),
            Stage::Sent(sent) => Some(sent),
            Stage::Idle | Stage::Refused(_) | Stage::Unread(_) => None,
        };
        sent.is_some_and(|sent| sent.reads_response())
    }

    /// A chunk of the response's body is here.
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
            return Step::default();
        };
        let replaced = reader.feed(chunk, is_end);
        let (_, is_final) = reader.reported();
        let has_begun = reader.has_begun();
        let mut step = if is_final || is_end {
            sent.settle(&config, store, Exit::Answered, now)
        } else {
            sent.renew(store, now)
        };
        if has_begun && sent.wait.is_some() {
            step = step.reporting(sent.end_wait(store, now));
        }
        step.body = replaced.map_or(BodyChange::Keep, BodyChange::Replace);
        step
    }

    /// The response ends with trailers, after its body. The headers of the step are the trailers'.
    ///
    /// What is kept back of an event that no empty line ended is not sent: the body cannot be added to any more, and
    /// a client discards such an event (WHATWG HTML, 9.2.6).
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

    /// The admitted request, whether or not all of it has gone on: an upstream may answer before.
    fn sent(&mut self) -> Option<&mut Sent> {
        match &mut self.stage {
            Stage::Reading(reading) => reading.sent.as_deref_mut(),
            Stage::Sent(sent) => Some(sent),
            Stage::Idle | Stage::Refused(_) | Stage::Unread(_) => None,
        }
    }
}

impl Sent {
    /// Once it is settled, only a reader that may change the answer reads on.
    fn reads_response(&self) -> bool {
        let is_done = self.is_settled && self.wait.is_none();
        let mut reader = self.reader.iter();
        reader.any(|reader| !is_done || reader.changes_length())
    }

    /// Our headers on the response.
    fn headers(&self, now: Timestamp) -> Vec<headers::Header> {
        let record = self.admission.record.as_deref();
        let limits =
            record.map(|record| headers::limits(&self.payer.plan.limits, record, None, now));
        let mut headers = limits.unwrap_or_default();
        headers.extend(headers::decided(self.decided()));
        headers.extend(self.limited_to.map(headers::max_output_tokens));
        headers.extend(self.shadow.as_ref().map(headers::shadow));
        let trimmed = self.trimmed.as_ref();
        headers.extend(trimmed.map(|trimmed| headers::trimmed_messages(trimmed.messages)));
        headers
    }

    /// A reader for the response with these headers.
    pub(super) fn reader(&self, response: &Headers) -> Reader {
        Reader::new(self.endpoint.wire, response, self.facts.hides_usage)
    }
}

/// The headers about limits that the upstream has sent.
fn told_limits(response: &Headers) -> Vec<&'static str> {
    let mut told = Vec::new();
    // Most other headers begin with another letter.
    for name in response
        .names()
        .filter(|name| matches!(name, [b'x' | b'r', ..]))
    {
        let limit = headers::LIMITS
            .iter()
            .find(|limit| limit.as_bytes() == name);
        told.extend(limit.filter(|limit| !told.contains(*limit)));
    }
    told
}

/// Whether, and how, the upstream did not serve.
pub(super) fn refused(response: &Headers) -> Option<Exit> {
    match response.only(":status").unwrap_or_default().first() {
        Some(b'2') => None,
        Some(b'5') => Some(Exit::UpstreamFailed),
        _ => Some(Exit::UpstreamRefused),
    }
}
