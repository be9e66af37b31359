//! A JSON array: of events, as Gemini streams without `alt=sse`, or of whole answers, as LiteLLM's proxy returns for a request that names
//! several models separated by commas (<https://github.com/BerriAI/litellm>, `route_llm_request.py`, read 2026-11-30).

use super::reported::Reported;
use crate::body::json::{Repeats, Scanner};
use crate::body::sse::EventFilter;

/// A JSON array of events or answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Array {
    has_begun: bool,
    is_in_event: bool,
}

impl Array {
    /// Reads the next chunk; `None` if it is not an array of objects.
    pub(super) fn feed(mut self, chunk: &[u8], reported: &mut Reported) -> Option<Self> {
        let mut rest = chunk;
        while let Some((&byte, tail)) = rest.split_first() {
            match byte {
                _ if self.is_in_event => {}
                b'[' if !self.has_begun => {
                    self.has_begun = true;
                    reported.adds_up = !reported.wire.streams_arrays();
                }
                b'{' if self.has_begun => self.is_in_event = true,
                b',' | b']' if self.has_begun => {}
                _ if byte.is_ascii_whitespace() => {}
                _ => return None,
            }
            rest = match self.is_in_event {
                true => rest.get(self.event(rest, reported)?..)?,
                false => tail,
            };
        }
        Some(self)
    }

    /// Reads a part of an event. Returns how many bytes were read.
    fn event(&mut self, bytes: &[u8], reported: &mut Reported) -> Option<usize> {
        let wire = reported.wire;
        let scanner = reported
            .event
            .scanner
            .get_or_insert_with(|| Scanner::new(wire.events(), Repeats::TakeLast));
        let taken = scanner.feed_object(bytes).ok()?;
        reported.event.length = scanner.offset();
        if scanner.closing_brace().is_some() {
            self.is_in_event = false;
            reported.end();
        }
        Some(taken)
    }
}
