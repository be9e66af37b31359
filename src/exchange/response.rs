//! The response's half of an exchange: usage → settle → report.

use super::*;
use crate::tenant::Headers;

impl Exchange {
    /// The response's headers are here, the upstream's or the proxy's own. `is_end`: nothing follows them.
    pub fn response_headers(
        &mut self,
        response: &Headers,
        is_end: bool,
        store: &impl Store,
        now: Timestamp,
    ) -> Step {
        let mut step = Step::default();
        // An upstream may answer before it has read all of the request.
        if let Stage::Reading(reading) = &mut self.stage
            && let Some(sent) = reading.sent.take()
        {
            if !reading.is_complete() {
                step = sent.admitted();
            }
            self.stage = Stage::Sent(sent);
        }
        let Stage::Sent(sent) = &mut self.stage else {
            return Step::default();
        };
        let header = |name| response.only(name).unwrap_or_default();
        let refused = match header(":status").first() {
            Some(b'2') => None,
            Some(b'5') => Some(Exit::UpstreamFailed),
            _ => Some(Exit::UpstreamRefused),
        };
        if let Some(exit) = refused {
            step = step.reporting(sent.settle(&self.config, store, exit, now));
        } else {
            let asked_for_us = sent.facts.stream && !sent.facts.asks_usage;
            let reader = Reader::new(
                sent.api,
                header("content-type"),
                header("content-encoding"),
                asked_for_us,
            );
            if reader.changes_length() {
                step.headers
                    .push(HeaderChange::Remove(b"content-length".to_vec()));
            }
            sent.reader = Some(reader);
        }
        let ours = std::mem::take(&mut sent.headers);
        step.headers.extend(
            ours.into_iter()
                .map(|(name, value)| HeaderChange::Set(name, value)),
        );
        if is_end {
            step = step.reporting(sent.settle(&self.config, store, Exit::Answered, now));
        }
        step
    }

    /// Whether the response's body is to be given to [`Exchange::response_body`].
    #[must_use]
    pub fn reads_response(&self) -> bool {
        matches!(&self.stage, Stage::Sent(sent) if sent.reader.is_some())
    }

    /// A chunk of the response's body is here.
    pub fn response_body(
        &mut self,
        chunk: &[u8],
        is_end: bool,
        store: &impl Store,
        now: Timestamp,
    ) -> Step {
        let Stage::Sent(sent) = &mut self.stage else {
            return Step::default();
        };
        let Some(reader) = &mut sent.reader else {
            return Step::default();
        };
        let replaced = reader.feed(chunk, is_end);
        let (_, is_final) = reader.reported();
        let mut step = if is_final || is_end {
            sent.settle(&self.config, store, Exit::Answered, now)
        } else {
            sent.renew(store, now)
        };
        step.body = replaced.map_or(BodyChange::Keep, BodyChange::Replace);
        step
    }
}
