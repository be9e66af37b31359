//! The output for a stream from which events may be taken out.

use super::{MAX_DROPPED, Verdict};

/// The output for a chunk. Nothing is copied as long as it equals the chunk.
pub(super) struct Output<'a> {
    chunk: &'a [u8],
    /// How many of the chunk's first bytes are forwarded, as long as nothing has changed.
    same: usize,
    changed: Option<Vec<u8>>,
}

impl<'a> Output<'a> {
    pub(super) fn of(chunk: &'a [u8]) -> Self {
        Self {
            chunk,
            same: 0,
            changed: None,
        }
    }

    /// Forwards the next bytes of the chunk.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        match &mut self.changed {
            Some(changed) => changed.extend(bytes),
            None => self.same = self.same.saturating_add(bytes.len()),
        }
    }

    pub(super) fn changed(&mut self) -> &mut Vec<u8> {
        let same = self.chunk.get(..self.same).unwrap_or_default();
        self.changed.get_or_insert_with(|| same.to_vec())
    }

    /// The output; `None` for the chunk as it is.
    pub(super) fn finish(self) -> Option<Vec<u8>> {
        self.changed.filter(|changed| changed != self.chunk)
    }
}

/// The bytes of the current event, until it is known whether it is forwarded.
#[derive(Clone, Debug, Default)]
pub(super) struct EventBuffer {
    pub(super) raw: Vec<u8>,
    /// Whether the event is longer than [`MAX_DROPPED`]; its bytes so far are already forwarded.
    overlong: bool,
    /// The verdict on the last event, which also applies to an LF that arrives late.
    pub(super) last: Option<Verdict>,
}

impl EventBuffer {
    /// Whether bytes of an event are kept back, or were forwarded before its end.
    pub(super) fn is_busy(&self) -> bool {
        self.overlong || !self.raw.is_empty()
    }

    /// Takes an LF whose CR was in the chunk before.
    pub(super) fn late_lf(&mut self, output: &mut Vec<u8>) {
        if self.overlong {
            output.push(b'\n');
        } else if !self.raw.is_empty() {
            self.raw.push(b'\n');
        } else if self.last != Some(Verdict::Drop) {
            output.push(b'\n');
        }
    }

    pub(super) fn push(&mut self, line: &[u8], ending: &[u8], output: &mut Vec<u8>) {
        self.raw.extend(line);
        self.raw.extend(ending);
        self.overlong |= self.raw.len() > MAX_DROPPED;
        if self.overlong {
            output.append(&mut self.raw);
        }
    }

    pub(super) fn end(&mut self, verdict: Verdict, output: &mut Vec<u8>) {
        if std::mem::take(&mut self.overlong) || verdict == Verdict::Keep {
            output.append(&mut self.raw);
            self.last = Some(Verdict::Keep);
        } else {
            self.raw.clear();
            self.last = Some(Verdict::Drop);
        }
    }
}
