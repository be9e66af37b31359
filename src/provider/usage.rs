//! The usage that a provider reports, read from its response while that response is forwarded.

mod array;
mod kind;
mod reported;
#[cfg(test)]
mod tests;

use crate::base::units::Tokens;
use crate::body::eventstream::Frames;
use crate::body::json::{Repeats, Scanner};
use crate::body::sse::Events;
use crate::http::Headers;
use crate::provider::Wire;
use crate::usage::{ServiceTier, Usage};
use array::Array;
use kind::{Declared, Kind, blank};
use reported::{Reported, length};

/// Reads one response.
#[derive(Clone, Debug)]
pub struct UsageReader {
    body: Body,
    reported: Reported,
    declared: Declared,
    /// Whether events that arrive only because usage was requested on the client's behalf are removed.
    drops: bool,
    /// Bytes of the body so far.
    bytes: u64,
    /// Whether the first byte of the actual answer has arrived.
    has_begun: bool,
}

#[derive(Clone, Debug)]
enum Body {
    /// Only white space so far, and this many bytes of a byte order mark.
    Blank(usize),
    /// One JSON object.
    Json(Box<Scanner>),
    /// A JSON array of events.
    Array(Array),
    /// Server-sent events.
    Events(Events),
    /// An AWS event stream.
    Frames(Frames),
    /// A web page or plain text: not a model's answer.
    Page,
    /// Compressed, or a format without usage.
    Opaque,
}

impl UsageReader {
    /// A reader for the response with these headers. `drops_usage`: events that carry only usage are removed, since the client did not
    /// request them.
    #[must_use]
    pub fn new(wire: &'static dyn Wire, response: &Headers, drops_usage: bool) -> Self {
        let declared = Declared::of(response);
        let mut reported = Reported::new(wire, wire.usage_of_headers(response));
        reported.service_tier = wire.service_tier_of_headers(response);
        // A response that declares a length, and no event stream, must keep its length.
        let may_drop = declared.kind == Kind::Events || !declared.has_length;
        Self {
            body: match declared.is_encoded {
                true => Body::Opaque,
                false => Body::Blank(0),
            },
            reported,
            declared,
            drops: drops_usage && may_drop && !declared.is_encoded,
            bytes: 0,
            has_begun: false,
        }
    }

    /// Whether [`UsageReader::feed`] may change the body's length.
    #[must_use]
    pub fn changes_length(&self) -> bool {
        self.drops && matches!(self.body, Body::Blank(_) | Body::Events(_))
    }

    /// Reads the next chunk. Returns what is forwarded to the client; `None` for the chunk as it is.
    pub fn feed(&mut self, chunk: &[u8], is_end: bool) -> Option<Vec<u8>> {
        self.bytes = self.bytes.saturating_add(length(chunk));
        let blank = self.begin(chunk);
        let rest = chunk.get(blank..).unwrap_or_default();
        let output = self.read(rest, is_end);
        if !self.has_begun {
            self.has_begun = match &self.body {
                Body::Events(_) | Body::Frames(_) => self.reported.has_data,
                _ => !rest.is_empty(),
            };
        }
        match chunk.get(..blank) {
            Some(before @ [_, ..]) => output.map(|output| [before, &output].concat()),
            _ => output,
        }
    }

    /// Whether the first byte of the actual answer has arrived. Bytes that only keep the connection alive do not count: DeepSeek's API
    /// sends comments between events, and empty lines before an object (<https://api-docs.deepseek.com/quick_start/rate_limit>).
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Determines the body's format from its first byte, once that has arrived. Returns how many bytes precede that byte.
    fn begin(&mut self, chunk: &[u8]) -> usize {
        let Body::Blank(seen) = &mut self.body else {
            return 0;
        };
        let before = blank(chunk, seen);
        if let Some(&first) = chunk.get(before) {
            self.body = match self.declared.kind_of(first) {
                Kind::Json => {
                    let scanner = Scanner::new(self.reported.wire.response(), Repeats::TakeLast);
                    Body::Json(Box::new(scanner))
                }
                Kind::Array => Body::Array(Array::default()),
                Kind::Events => Body::Events(Events::new(self.drops)),
                Kind::Frames => Body::Frames(Frames::default()),
                Kind::Page => Body::Page,
                Kind::Opaque => Body::Opaque,
            };
        }
        before
    }

    fn read(&mut self, chunk: &[u8], is_end: bool) -> Option<Vec<u8>> {
        let reported = &mut self.reported;
        match &mut self.body {
            Body::Blank(_) | Body::Page | Body::Opaque => None,
            Body::Json(scanner) => {
                let scanned = scanner.feed(chunk);
                // A report that comes before invalid JSON counts, however the body is cut into chunks. The usage is not parsed again for
                // each chunk, since the upstream chooses the chunks.
                if scanner.take_news() {
                    reported.whole(scanner);
                }
                // The body is not JSON after all.
                if scanned.is_err() {
                    self.body = Body::Opaque;
                }
                None
            }
            Body::Array(array) => {
                let array = std::mem::take(array).feed(chunk, reported);
                self.body = array.map_or(Body::Opaque, Body::Array);
                None
            }
            Body::Frames(frames) => {
                frames.feed(chunk, &mut |part| reported.frame(part));
                None
            }
            Body::Events(events) => {
                let output = events.feed(chunk, reported);
                if !is_end {
                    return output;
                }
                let rest = events.finish(reported);
                if rest.is_empty() {
                    return output;
                }
                let output = output.as_deref().unwrap_or(chunk);
                Some([output, &rest].concat())
            }
        }
    }

    /// The usage reported so far, and whether only the end of the answer is missing.
    #[must_use]
    pub fn reported(&self) -> (Option<Usage>, bool) {
        // Several reports together may have more cached tokens than any single report has input.
        let usage = self.reported.usage.map(|usage| Usage {
            service_tier: self.reported.service_tier,
            ..usage.consistent()
        });
        (usage, self.reported.is_final)
    }

    /// The model that answered, if the answer names it.
    #[must_use]
    pub fn served_model(&self) -> Option<&str> {
        self.reported.model.as_deref()
    }

    /// What models used that took part beside the one that answered, by their names: a part of what was reported.
    #[must_use]
    pub fn others(&self) -> &[(String, Usage)] {
        &self.reported.others
    }

    /// The service tier that served, if the answer names it.
    #[must_use]
    pub fn service_tier(&self) -> Option<ServiceTier> {
        self.reported.service_tier
    }

    /// Whether the whole answer can be read: it is not compressed, and not a partial response.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        !self.declared.is_encoded && !self.declared.is_part
    }

    /// Whether the body is not a model's answer: a page, or an error despite the status, without usage.
    #[must_use]
    pub fn is_no_answer(&self) -> bool {
        if self.reported.usage.is_some() {
            return false;
        }
        match &self.body {
            Body::Page => true,
            Body::Events(_) if self.declared.kind == Kind::Page && !self.reported.has_data => true,
            Body::Json(_) | Body::Opaque => self.reported.has_error,
            Body::Events(_) | Body::Array(_) | Body::Frames(_) => {
                self.reported.has_error && self.reported.content.events == 0
            }
            Body::Blank(_) => false,
        }
    }

    /// Whether some of the answer has come, so that an error can no longer take its place.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.reported.content.events > 0
    }

    /// The error that came instead of an answer, verbatim; empty if its text is not known.
    #[must_use]
    pub fn error(&self) -> Option<&[u8]> {
        let is_error = self.reported.has_error && self.is_no_answer();
        is_error.then_some(self.reported.error.as_slice())
    }

    /// An estimate of the output tokens that arrived. A whole body is mostly text.
    #[must_use]
    pub fn estimated_output(&self) -> Tokens {
        match &self.body {
            _ if self.is_no_answer() => Tokens(0),
            Body::Events(_) | Body::Array(_) | Body::Frames(_) => self.reported.content.estimate(),
            Body::Json(_) | Body::Opaque | Body::Page => Tokens(self.bytes.div_ceil(4)),
            Body::Blank(_) => Tokens(0),
        }
    }
}
