//! What a provider says a request used, read from its response as it passes.

use crate::api::Wire;
use crate::eventstream::{Frames, Part};
use crate::json::{Malformed, Repeats, Scanner};
use crate::sse::{Events, Judge, Verdict};
use crate::tenant::Headers;
use crate::tier::Price;
use crate::units::{Cost, Micros, Tokens};

/// Tokens of one request as reported. Absent is not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens, the cached ones included.
    pub input: Option<Tokens>,
    /// Prompt tokens that the provider read from its cache. Invariant: with `cache_write`, no more than `input`.
    pub cached_input: Option<Tokens>,
    /// Prompt tokens that the provider wrote to its cache, and charges for that.
    pub cache_write: Option<Tokens>,
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

    /// Prompt tokens that the provider had not cached, whether or not it cached them now.
    #[must_use]
    pub fn fresh_input(&self) -> Option<Tokens> {
        Some(self.input? - self.cached_input.unwrap_or_default())
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let sum = |one: Option<Tokens>, other: Option<Tokens>| match (one, other) {
            (Some(one), Some(other)) => Some(one + other),
            (one, other) => one.or(other),
        };
        Self {
            input: sum(self.input, other.input),
            cached_input: sum(self.cached_input, other.cached_input),
            cache_write: sum(self.cache_write, other.cache_write),
            output: sum(self.output, other.output),
        }
    }

    /// What two reports of one response say together, each of which may tell a part. They are running totals, so the
    /// later one counts, and the prompt's cannot fall.
    #[must_use]
    fn after(self, earlier: Self) -> Self {
        Self {
            input: self.input.max(earlier.input),
            cached_input: self.cached_input.max(earlier.cached_input),
            cache_write: self.cache_write.max(earlier.cache_write),
            output: self.output.or(earlier.output),
        }
    }

    /// This usage, without cached tokens that its input does not have.
    #[must_use]
    pub fn consistent(self) -> Self {
        let cached_input = self
            .cached_input
            .map(|cached| cached.min(self.input.unwrap_or_default()));
        let room = self.input.unwrap_or_default() - cached_input.unwrap_or_default();
        Self {
            cached_input,
            cache_write: self.cache_write.map(|written| written.min(room)),
            ..self
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
    /// It has no content besides the usage, and only comes if it was asked for.
    pub usage_only: bool,
    /// No later event says anything about usage.
    pub is_last: bool,
}

/// Reads one response.
#[derive(Clone, Debug)]
pub struct Reader {
    body: Body,
    told: Told,
    /// Bytes of the body so far.
    bytes: u64,
    /// The first byte of the answer itself has come.
    has_begun: bool,
}

#[derive(Clone, Debug)]
enum Body {
    /// One JSON object.
    Json(Box<Scanner>),
    /// A JSON array of events.
    Array(Array),
    /// Server-sent events.
    Events(Events),
    /// An AWS event stream.
    Frames(Frames),
    /// Compressed, or of a type that carries no usage.
    Opaque,
}

/// What the response has said so far.
#[derive(Clone, Debug)]
struct Told {
    wire: &'static dyn Wire,
    event: Event,
    /// The usage that the headers tell.
    of_headers: Option<Usage>,
    /// The usage that was reported.
    usage: Option<Usage>,
    /// The provider has said its last about usage.
    is_final: bool,
    /// An event has brought something.
    has_data: bool,
    content: Content,
}

/// The event that is being read.
#[derive(Clone, Debug, Default)]
struct Event {
    /// Of this event, or ready for it; `None` before the first one.
    scanner: Option<Scanner>,
    /// It is no JSON object.
    is_other: bool,
    /// Its first bytes.
    head: Vec<u8>,
    length: u64,
}

/// What ends a stream of OpenAI's: no JSON.
const DONE: &[u8] = b"[DONE]";

/// What a stream's events say of its output's length, where no usage does.
#[derive(Clone, Copy, Debug, Default)]
struct Content {
    events: u64,
    bytes: u64,
    shortest: Option<u64>,
}

impl Reader {
    /// A reader for the response with these headers. `drops_usage`: the event that carries nothing but usage is taken out,
    /// for a client that did not ask for it.
    #[must_use]
    pub fn new(wire: &'static dyn Wire, response: &Headers, drops_usage: bool) -> Self {
        let header = |name| response.only(name).unwrap_or_default();
        let content_type = header("content-type");
        let encoding = header("content-encoding");
        let is = |prefix: &[u8]| {
            content_type
                .get(..prefix.len())
                .is_some_and(|head| head.eq_ignore_ascii_case(prefix))
        };
        let is_plain = encoding.is_empty() || encoding.eq_ignore_ascii_case(b"identity");
        let body = if !is_plain {
            Body::Opaque
        } else if is(b"text/event-stream") {
            Body::Events(Events::new(drops_usage))
        } else if is(b"application/vnd.amazon.eventstream") {
            Body::Frames(Frames::default())
        } else if is(b"application/json") || content_type.is_empty() {
            // Some servers leave the type out; what is no JSON is found out by reading.
            let scanner = Scanner::new(wire.response(), Repeats::TakeLast);
            Body::Json(Box::new(scanner))
        } else {
            Body::Opaque
        };
        let usage = wire.usage_of_headers(response);
        Self {
            body,
            told: Told {
                wire,
                event: Event::default(),
                of_headers: usage,
                usage,
                is_final: usage.is_some_and(|usage| usage.is_whole()),
                has_data: false,
                content: Content::default(),
            },
            bytes: 0,
            has_begun: false,
        }
    }

    /// Whether [`Reader::feed`] may change the body's length.
    #[must_use]
    pub fn changes_length(&self) -> bool {
        matches!(&self.body, Body::Events(events) if events.drops())
    }

    /// Reads on. What goes on to the client: `None` for the chunk as it is.
    pub fn feed(&mut self, chunk: &[u8], is_end: bool) -> Option<Vec<u8>> {
        let output = self.read(chunk, is_end);
        if !self.has_begun {
            self.has_begun = match &self.body {
                Body::Events(_) | Body::Frames(_) => self.told.has_data,
                _ => chunk.iter().any(|byte| !byte.is_ascii_whitespace()),
            };
        }
        output
    }

    /// Whether the first byte of the answer itself has come: of the body, and not of what only keeps the connection alive, as
    /// DeepSeek's API does with comments between events, and empty lines before an object
    /// (<https://api-docs.deepseek.com/quick_start/rate_limit>).
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    fn read(&mut self, chunk: &[u8], is_end: bool) -> Option<Vec<u8>> {
        self.bytes = self.bytes.saturating_add(length(chunk));
        let told = &mut self.told;
        match &mut self.body {
            Body::Opaque => None,
            Body::Json(scanner) => {
                let scanned = scanner.feed(chunk);
                // What was told before a fault stands, as it does where the fault comes in a later chunk. An upstream chooses its
                // chunks: what it told of its usage is not read again with each of them.
                if scanner.take_news() {
                    told.whole(scanner);
                }
                match scanned {
                    Ok(()) => {}
                    // Only white space came before.
                    Err(Malformed::NotAnObject) => {
                        let array = Array::default().feed(chunk, told);
                        self.body = array.map_or(Body::Opaque, Body::Array);
                    }
                    // What is no JSON after all stays opaque.
                    Err(_) => self.body = Body::Opaque,
                }
                None
            }
            Body::Array(array) => {
                let array = std::mem::take(array).feed(chunk, told);
                self.body = array.map_or(Body::Opaque, Body::Array);
                None
            }
            Body::Frames(frames) => {
                frames.feed(chunk, &mut |part| told.frame(part));
                None
            }
            Body::Events(events) => {
                let output = events.feed(chunk, told);
                if !is_end {
                    return output;
                }
                let rest = events.finish(told);
                if rest.is_empty() {
                    return output;
                }
                let output = output.as_deref().unwrap_or(chunk);
                Some([output, &rest].concat())
            }
        }
    }

    /// The usage that was reported so far, and whether the provider has said its last about it.
    #[must_use]
    pub fn reported(&self) -> (Option<Usage>, bool) {
        // Reports of different parts may have told of cached tokens that no one report's input has room for.
        (self.told.usage.map(Usage::consistent), self.told.is_final)
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
        } = self.told.content;
        match &self.body {
            Body::Events(_) | Body::Array(_) | Body::Frames(_) => {
                let overhead = shortest.unwrap_or(0).saturating_mul(events);
                Tokens(events.max(bytes.saturating_sub(overhead) / 4))
            }
            Body::Json(_) | Body::Opaque => Tokens(self.bytes.div_ceil(4)),
        }
    }
}

impl Told {
    /// A response that is one JSON object was read as far as this. What was read of it before counts no more.
    fn whole(&mut self, scanner: &Scanner) {
        let in_body = self.wire.usage(scanner);
        let together = in_body.map(|usage| usage.after(self.of_headers.unwrap_or_default()));
        self.usage = together.or(self.of_headers);
        self.is_final = self.usage.is_some_and(|usage| usage.is_whole());
    }

    fn frame(&mut self, part: Part<'_>) {
        match part {
            Part::Begin { .. } => self.event.clear(),
            Part::Payload(bytes) => self.data(bytes),
            Part::End => {
                self.end();
            }
        }
    }

    /// Takes note of what an event says; whether it says nothing but usage.
    fn note(&mut self, facts: EventFacts) -> bool {
        if let Some(usage) = facts.usage {
            self.usage = Some(usage.after(self.usage.unwrap_or_default()));
        }
        self.is_final |= facts.is_last;
        facts.usage_only
    }
}

impl Judge for Told {
    fn data(&mut self, bytes: &[u8]) {
        self.has_data |= !bytes.is_empty();
        self.event.read(self.wire, bytes);
    }

    fn end(&mut self) -> Verdict {
        let is_done = self.event.head.trim_ascii() == DONE;
        let facts = match &self.event.scanner {
            Some(scanner) if self.event.length > 0 && !self.event.is_other => {
                self.wire.event(scanner)
            }
            _ => EventFacts {
                is_last: is_done,
                ..EventFacts::default()
            },
        };
        let length = self.event.length;
        self.event.clear();
        if self.note(facts) {
            return Verdict::Drop;
        }
        if !is_done {
            self.content.add(length);
        }
        Verdict::Keep
    }

    fn whole(&mut self, data: &[u8]) -> Verdict {
        self.has_data |= !data.is_empty();
        if data.starts_with(b"{") && !self.wire.may_tell(data) {
            self.content.add(length(data));
            return Verdict::Keep;
        }
        self.data(data);
        self.end()
    }
}

impl Content {
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

/// A JSON array of events, as Gemini streams without `alt=sse`.
#[derive(Clone, Debug, Default)]
struct Array {
    has_begun: bool,
    is_in_event: bool,
}

impl Array {
    /// Reads on; `None` if it is no array of objects.
    fn feed(mut self, chunk: &[u8], told: &mut Told) -> Option<Self> {
        let mut rest = chunk;
        while let Some((&byte, tail)) = rest.split_first() {
            match byte {
                _ if self.is_in_event => {}
                b'[' if !self.has_begun => self.has_begun = true,
                b'{' if self.has_begun => self.is_in_event = true,
                b',' | b']' if self.has_begun => {}
                _ if byte.is_ascii_whitespace() => {}
                _ => return None,
            }
            rest = match self.is_in_event {
                true => rest.get(self.event(rest, told)?..)?,
                false => tail,
            };
        }
        Some(self)
    }

    /// Reads on in an event: how many bytes that took.
    fn event(&mut self, bytes: &[u8], told: &mut Told) -> Option<usize> {
        let wire = told.wire;
        let scanner = told
            .event
            .scanner
            .get_or_insert_with(|| Scanner::new(wire.events(), Repeats::TakeLast));
        let taken = scanner.feed_object(bytes).ok()?;
        told.event.length = scanner.offset();
        if scanner.closing_brace().is_some() {
            self.is_in_event = false;
            told.end();
        }
        Some(taken)
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Endpoint;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn headers(list: &[(&str, &str)]) -> Headers {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let pairs = list.iter().map(|(name, value)| (bytes(name), bytes(value)));
        pairs.collect()
    }

    /// What is reported to an answer with these headers, the same at every split into two.
    #[track_caller]
    fn reported(path: &str, list: &[(&str, &str)], body: &str) -> Option<Usage> {
        let endpoint = Endpoint::of(&headers(&[(":method", "POST"), (":path", path)])).unwrap();
        let read = |chunks: [&str; 2]| {
            let mut reader = Reader::new(endpoint.wire, &headers(list), false);
            for chunk in chunks {
                reader.feed(chunk.as_bytes(), false);
            }
            reader.feed(b"", true);
            (reader.reported(), reader.estimated_output())
        };
        let whole = read([body, ""]);
        for split in 0..body.len() {
            let (head, tail) = body.split_at(split);
            assert_eq!(read([head, tail]), whole, "split at {split}");
        }
        whole.0.0
    }

    fn usage(input: u64, output: u64) -> Option<Usage> {
        Some(Usage {
            input: Some(Tokens(input)),
            output: Some(Tokens(output)),
            ..Usage::default()
        })
    }

    const CHAT: &str = "/v1/chat/completions";

    // cases.md 16
    #[test]
    fn white_space_may_come_before_an_array_of_events() {
        let event = r#"{"usageMetadata":{"promptTokenCount":5,"totalTokenCount":7}}"#;
        let body = format!(" \n[{event}]");
        let path = "/v1/models/m:streamGenerateContent";
        assert_eq!(reported(path, &[], &body), usage(5, 2));
    }

    // cases.md 16
    #[test]
    fn what_was_reported_before_a_fault_stands() {
        let report = r#""usage":{"prompt_tokens":5,"completion_tokens":2}"#;
        for rest in ["} x", ",}", ",\"x\":]", "", ","] {
            let body = format!("{{{report}{rest}");
            assert_eq!(reported(CHAT, &[], &body), usage(5, 2), "{rest}");
        }
    }

    #[test]
    fn of_two_reports_in_one_object_the_last_counts() {
        let body = r#"{"usage":{"prompt_tokens":5,"completion_tokens":2},"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
        assert_eq!(reported(CHAT, &[], body), usage(3, 1));
    }

    #[test]
    fn reports_of_two_parts_never_tell_of_more_cached_tokens_than_input() {
        let headers = [
            ("x-amzn-bedrock-input-token-count", "1"),
            ("x-amzn-bedrock-cache-read-input-token-count", "9"),
        ];
        let body =
            r#"{"usage":{"input_tokens":2,"cache_creation_input_tokens":8,"output_tokens":4}}"#;
        let expected = Usage {
            cached_input: Some(Tokens(9)),
            cache_write: Some(Tokens(1)),
            ..usage(10, 4).unwrap()
        };
        assert_eq!(reported("/model/m/invoke", &headers, body), Some(expected));
    }
}
