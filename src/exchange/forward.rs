//! Forwards the request's body, changed where it must be, and the headers with it.

use crate::body::rewrite::{Edit, StreamRewriter, new_length};
use crate::exchange::request_body::{Body, RequestBody};
use crate::exchange::step::{BodyChange, HeaderChange, Step};
use crate::provider::{Fault, leave_longer_out, limit_output};
use crate::report::headers;

impl RequestBody {
    /// Forwards the body, changed where it must be, and the headers with it. `may_edit`: an edit may still be due, since the
    /// object was not complete before.
    pub(super) fn forward(
        &mut self,
        chunk: &[u8],
        may_edit: bool,
        step: &mut Step,
    ) -> Result<(), Fault> {
        let ends = may_edit && self.is_complete();
        let rest = self
            .length
            .unwrap_or(0)
            .saturating_sub(self.scanner.offset());
        let keep_from = self.keep_from();
        let goes_on = keep_from.is_none_or(|start| start > self.gone());
        // Nothing is edited in the white space after the object, nor while the whole body is kept back.
        let edits = match may_edit && goes_on {
            true => self.edits(),
            false => Vec::new(),
        };
        if let Some(sent) = self.sent.as_mut().filter(|_| ends) {
            sent.drops_usage = sent.facts.hides_usage && self.asks_usage;
            let is_unasked = sent.asks_usage && !self.asks_usage && !sent.endpoint.tells_usage;
            sent.is_unasked = sent.facts.hides_usage && is_unasked;
        }
        match &mut self.body {
            Body::Held => {
                if let Some(length) = self.length.filter(|_| !edits.is_empty()) {
                    let length = new_length(length, &edits).into();
                    step.headers
                        .push(HeaderChange::Set("content-length", length));
                }
                if !edits.is_empty() {
                    step.body = BodyChange::Edit(edits);
                }
                // Only white space can follow, which is forwarded.
                let mut passing = StreamRewriter::default();
                passing.skip(self.scanner.offset());
                self.body = Body::Passing(passing);
            }
            Body::Passing(passing) => {
                let mut passed = passing.pass(chunk, &edits, keep_from);
                if let Some(promised) = self.promised.filter(|_| ends) {
                    let sent = passing.sent().saturating_add(rest);
                    let padding = promised.checked_sub(sent);
                    let padding = padding.and_then(|padding| usize::try_from(padding).ok());
                    // There is always room: [`most_added`] bounds the length of the edits.
                    let padding = padding.ok_or(Fault::WrongLength)?;
                    let passed = passed.get_or_insert_with(|| chunk.to_vec());
                    passed.resize(passed.len().saturating_add(padding), b' ');
                }
                if let Some(bytes) = passed {
                    step.body = BodyChange::Replace(bytes);
                }
            }
        }
        if self.headers_held {
            step.headers.extend(self.decided_headers());
        }
        Ok(())
    }

    /// The changes of the request's headers that follow from the decision.
    pub(super) fn decided_headers(&self) -> Vec<HeaderChange> {
        let Some(sent) = &self.sent else {
            return Vec::new();
        };
        // A header of that name from the client was removed.
        let mut changes = vec![HeaderChange::Add(headers::TIER, (&sent.tier).into())];
        if let Some(model) = self.endpoint.model.as_ref().filter(|_| sent.is_changed()) {
            changes.push(HeaderChange::Set(
                ":path",
                model.path_for(&sent.model).into(),
            ));
        }
        changes
    }

    /// The edits that are known so far, sorted.
    pub(super) fn edits(&mut self) -> Vec<Edit> {
        if self.endpoint.is_signed {
            return Vec::new();
        }
        let wire = self.endpoint.wire;
        let asking = wire.ask_usage(&self.scanner);
        let asking = asking.filter(|_| self.may_ask());
        let gone = self.gone();
        self.asks_usage |= asking.as_ref().is_some_and(|edit| edit.start >= gone);
        let mut edits: Vec<Edit> = Vec::new();
        // There are only a few edits, most of them in order.
        let mut add = |edit: Edit| {
            let place = edits.partition_point(|other| other.start <= edit.start);
            edits.insert(place, edit);
        };
        asking.into_iter().for_each(&mut add);
        if let Some(sent) = &self.sent {
            let model = sent.model_edits(&self.scanner);
            model.into_iter().for_each(&mut add);
            let trimmed = sent.trimmed.iter().flat_map(|trimmed| &trimmed.edits);
            trimmed.cloned().for_each(&mut add);
            if let Some(most) = sent.admission.most_output {
                let limits = limit_output(wire, &self.scanner, most);
                limits.into_iter().for_each(&mut add);
                if !sent.is_changed() {
                    let longer = leave_longer_out(wire, &self.scanner, most);
                    longer.into_iter().for_each(&mut add);
                }
            }
        }
        edits
    }
}
