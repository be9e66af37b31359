//! What a provider says a request used, read from its response as it passes.

use crate::api::Api;
use crate::json::{Repeats, Scanner};
use crate::sse::{Events, Verdict};
use crate::tier::Price;
use crate::units::{Cost, Micros, Tokens};

/// Tokens of one request as reported. Absent is not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens, the cached ones included.
    pub input: Option<Tokens>,
    /// Prompt tokens that the provider had cached. Invariant: no more than `input`.
    pub cached_input: Option<Tokens>,
    /// Output tokens, reasoning included.
    pub output: Option<Tokens>,
}

impl Usage {
    /// What it costs; no money where there is no price.
    #[must_use]
    pub fn cost(&self, price: Option<&Price>) -> Cost {
        Cost {
            tokens: self.input.unwrap_or_default() + self.output.unwrap_or_default(),
            usd: price.map_or(Micros(0), |price| price.of(self)),
        }
    }

    /// Prompt tokens that the provider had not cached.
    #[must_use]
    pub fn fresh_input(&self) -> Option<Tokens> {
        Some(self.input? - self.cached_input.unwrap_or_default())
    }

    /// This usage, with what was not reported taken from `estimate`.
    #[must_use]
    pub fn or(self, estimate: Self) -> Self {
        Self {
            input: self.input.or(estimate.input),
            cached_input: self.cached_input,
            output: self.output.or(estimate.output),
        }
    }

    /// Whether nothing is missing.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.input.is_some() && self.output.is_some()
    }
}

/// What one event of a stream says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventFacts {
    /// Usage, if it has one.
    pub usage: Option<Usage>,
    /// It has no content besides the usage.
    pub usage_only: bool,
    /// It is the provider's mark of the stream's end.
    pub is_end: bool,
}

/// Reads one response.
#[derive(Clone, Debug)]
pub struct Reader {
    api: Api,
    body: Body,
    /// The newest usage that was reported.
    usage: Option<Usage>,
    /// The provider has said its last about usage.
    is_final: bool,
    /// Bytes of the body so far.
    bytes: u64,
    /// Takes out the event that carries nothing but usage, for a client that did not ask for it.
    drops_usage: bool,
    content: Content,
}

#[derive(Clone, Debug)]
enum Body {
    Json(Box<Scanner>),
    Events(Events),
    /// Compressed, or of a type that carries no usage.
    Opaque,
}

/// What a stream's events say of its output's length, where no usage does.
#[derive(Clone, Copy, Debug, Default)]
struct Content {
    events: u64,
    bytes: u64,
    shortest: Option<u64>,
}

impl Reader {
    /// A reader for the response with these headers.
    #[must_use]
    pub fn new(api: Api, content_type: &[u8], content_encoding: &[u8], drops_usage: bool) -> Self {
        let is = |prefix: &[u8]| {
            content_type
                .get(..prefix.len())
                .is_some_and(|head| head.eq_ignore_ascii_case(prefix))
        };
        let plain =
            content_encoding.is_empty() || content_encoding.eq_ignore_ascii_case(b"identity");
        let body = if plain && is(b"text/event-stream") {
            Body::Events(Events::default())
        } else if plain && (is(b"application/json") || content_type.is_empty()) {
            // Some servers leave the type out; what is no JSON is found out by reading.
            Body::Json(Box::new(Scanner::new(
                api.response_keys(),
                Repeats::TakeLast,
            )))
        } else {
            Body::Opaque
        };
        Self {
            api,
            body,
            usage: None,
            is_final: false,
            bytes: 0,
            drops_usage,
            content: Content::default(),
        }
    }

    /// Whether [`Reader::feed`] may change the body's length.
    #[must_use]
    pub fn changes_length(&self) -> bool {
        self.drops_usage && matches!(self.body, Body::Events(_))
    }

    /// Reads on. What goes on to the client: `None` for the chunk as it is.
    pub fn feed(&mut self, chunk: &[u8], is_end: bool) -> Option<Vec<u8>> {
        let length = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(length);
        match std::mem::replace(&mut self.body, Body::Opaque) {
            Body::Opaque => None,
            Body::Json(mut scanner) => {
                // What is no JSON after all stays opaque.
                if scanner.feed(chunk).is_ok() {
                    self.usage = self.api.usage_of_body(&scanner);
                    self.is_final = self.usage.is_some_and(|usage| usage.is_whole());
                    self.body = Body::Json(scanner);
                }
                None
            }
            Body::Events(mut events) => {
                let mut output = Vec::new();
                events.feed(chunk, &mut output, |data| self.judge(data));
                if is_end {
                    events.finish(&mut output, |data| self.judge(data));
                }
                self.body = Body::Events(events);
                (self.drops_usage && output != chunk).then_some(output)
            }
        }
    }

    /// The usage that was reported so far, and whether the provider has said its last about it.
    #[must_use]
    pub fn reported(&self) -> (Option<Usage>, bool) {
        (self.usage, self.is_final)
    }

    /// How many output tokens came, told from what was seen.
    ///
    /// A stream brings about one token an event; an event with more is longer than the shortest one by
    /// its text. A whole body is mostly text.
    #[must_use]
    pub fn estimated_output(&self) -> Tokens {
        let Content {
            events,
            bytes,
            shortest,
        } = self.content;
        match &self.body {
            Body::Events(_) => {
                let overhead = shortest.unwrap_or(0).saturating_mul(events);
                Tokens(events.max(bytes.saturating_sub(overhead) / 4))
            }
            Body::Json(_) | Body::Opaque => Tokens(self.bytes.div_ceil(4)),
        }
    }

    fn judge(&mut self, data: &[u8]) -> Verdict {
        let facts = self.api.event(data);
        if facts.usage.is_some() {
            self.usage = facts.usage;
        }
        self.is_final |= facts.is_end || facts.usage.is_some() && facts.usage_only;
        if facts.usage_only {
            return if self.drops_usage {
                Verdict::Drop
            } else {
                Verdict::Keep
            };
        }
        if !facts.is_end {
            let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
            let Content {
                events,
                bytes,
                shortest,
            } = &mut self.content;
            *events = events.saturating_add(1);
            *bytes = bytes.saturating_add(length);
            *shortest = Some(shortest.map_or(length, |shortest| shortest.min(length)));
        }
        Verdict::Keep
    }
}
