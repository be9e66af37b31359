//! AWS event streams (`application/vnd.amazon.eventstream`) in any chunking, with bounded memory.
//!
//! A frame is big-endian: total length, headers' length and the CRC-32 of both (4 bytes each), headers, payload, and the
//! CRC-32 of all that (Amazon Event Stream Specification, smithy.io/2.0/aws/amazon-eventstream.html, read 2026-11-22).
//! A header: its name's length (1 byte), its name, its value's type (1 byte), and the value, which types 6 and 7 begin
//! with its length (2 bytes). Three of the headers say what a frame is; the rest is skipped.
//!
//! Only the field that is being read, if it is short, and those three headers are kept. The payload is passed on as it arrives. After a
//! malformed frame nothing more is read: the start of the next frame is unknown, and the specification requires that such a stream ends.

use crc32fast::Hasher as Crc32;

/// Longest payload (specification, "Message Format"). A longer one is treated as malformed.
const MAX_PAYLOAD: usize = 24 * 1024 * 1024;
/// Longest headers in total (specification, "Message Format").
const MAX_HEADERS: usize = 128 * 1024;
/// Longest header name or value that is examined, in bytes. Bedrock's have at most 27.
const MAX_FIELD: usize = 64;

/// Bytes of the prelude: total length, headers' length and their CRC.
const PRELUDE: usize = 12;
/// Bytes of the shortest frame: the prelude and the CRC at the end.
const OVERHEAD: usize = 16;

/// What a frame carries, by its header `:message-type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An event of the API's model, named by `:event-type`.
    Event,
    /// An error of the API's model, named by `:exception-type`; it ends the stream.
    Exception,
    /// An error that the API's model does not know; it ends the stream.
    Error,
    /// The frame has no type, or one that the specification does not define.
    Unknown,
}

/// A piece of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramePart<'a> {
    /// The headers of a frame were read.
    Begin {
        /// What the frame carries.
        kind: Kind,
        /// `:event-type` of an event, `:exception-type` of an exception. Empty if there is none, or a longer one than [`MAX_FIELD`].
        name: &'a [u8],
    },
    /// More of the frame's payload; never empty.
    Payload(&'a [u8]),
    /// The frame is complete and its CRC is right. Only now may the parts since `Begin` be trusted.
    End,
}

/// Splits a stream into its frames.
#[derive(Clone, Debug)]
pub struct Frames {
    /// The field that is being read; `None` after a malformed frame.
    step: Option<Step>,
    /// Bytes of that field that are still to come.
    left: usize,
    /// The field's first bytes, at most [`MAX_FIELD`]; empty for the payload.
    field: Vec<u8>,
    /// Bytes of the frame's headers after this field.
    headers_left: usize,
    /// Length of the frame's payload.
    payload: usize,
    /// CRC of the frame so far.
    crc: Crc32,
    headers: Headers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Prelude,
    NameLength,
    Name,
    /// The type of this header's value.
    Type(Option<Header>),
    /// The length of this header's value.
    Length(Option<Header>),
    /// The value of this header; `None` if it is not text, or longer than [`MAX_FIELD`].
    Value(Option<Header>),
    Payload,
    Check,
}

/// A header that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    /// `:message-type`.
    Message,
    /// `:event-type`.
    Event,
    /// `:exception-type`.
    Exception,
}

/// The headers that matter, as far as they have been read.
#[derive(Clone, Debug, Default)]
struct Headers {
    message_type: Option<Vec<u8>>,
    event_type: Option<Vec<u8>>,
    exception_type: Option<Vec<u8>>,
}

/// The frame is not what the specification says.
struct Malformed;

impl Default for Frames {
    fn default() -> Self {
        Self {
            step: Some(Step::Prelude),
            left: PRELUDE,
            field: Vec::new(),
            headers_left: 0,
            payload: 0,
            crc: Crc32::new(),
            headers: Headers::default(),
        }
    }
}

impl Frames {
    /// Reads the next chunk; passes each part to `sink` as soon as it is read.
    pub fn feed(&mut self, chunk: &[u8], sink: &mut impl FnMut(FramePart<'_>)) {
        let mut rest = chunk;
        while let Some(step) = self.step {
            let (bytes, tail) = rest.split_at_checked(self.left).unwrap_or((rest, &[]));
            rest = tail;
            self.left = self.left.saturating_sub(bytes.len());
            self.take(step, bytes, sink);
            if self.left > 0 {
                return;
            }
            let next = self.end(step, sink);
            self.field.clear();
            self.step = match next {
                Ok((step, length)) => {
                    self.left = length;
                    Some(step)
                }
                Err(Malformed) => None,
            };
        }
    }

    /// Whether a frame was malformed: then nothing more is read, and a frame that has begun will not get an `End`.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.step.is_none()
    }

    /// Takes the next bytes of the field, which may not be all of it.
    fn take(&mut self, step: Step, bytes: &[u8], sink: &mut impl FnMut(FramePart<'_>)) {
        if step != Step::Check {
            self.crc.update(bytes);
        }
        if step != Step::Payload {
            let room = MAX_FIELD.saturating_sub(self.field.len());
            self.field.extend(bytes.iter().take(room));
        } else if !bytes.is_empty() {
            sink(FramePart::Payload(bytes));
        }
    }

    /// The field is complete. Returns the next field and its length.
    fn end(
        &mut self,
        step: Step,
        sink: &mut impl FnMut(FramePart<'_>),
    ) -> Result<(Step, usize), Malformed> {
        match step {
            Step::Prelude => {
                self.prelude()?;
                self.next_header(sink)
            }
            Step::NameLength => match self.number() {
                0 => Err(Malformed),
                length => self.of_header(Step::Name, length),
            },
            Step::Name => self.of_header(Step::Type(Header::of(&self.field)), 1),
            Step::Type(header) => match (self.number(), header) {
                (0 | 1, _) => self.next_header(sink),
                (2, _) => self.of_header(Step::Value(None), 1),
                (3, _) => self.of_header(Step::Value(None), 2),
                (4, _) => self.of_header(Step::Value(None), 4),
                (5 | 8, _) => self.of_header(Step::Value(None), 8),
                (6, _) => self.of_header(Step::Length(None), 2),
                (7, header) => self.of_header(Step::Length(header), 2),
                (9, _) => self.of_header(Step::Value(None), 16),
                _ => Err(Malformed),
            },
            Step::Length(header) => {
                let length = self.number();
                let header = header.filter(|_| length <= MAX_FIELD);
                self.of_header(Step::Value(header), length)
            }
            Step::Value(header) => {
                if let Some(header) = header {
                    self.headers.put(header, &self.field)?;
                }
                self.next_header(sink)
            }
            Step::Payload => Ok((Step::Check, 4)),
            Step::Check => {
                if self.field != self.crc.clone().finalize().to_be_bytes() {
                    return Err(Malformed);
                }
                self.crc.reset();
                self.headers = Headers::default();
                sink(FramePart::End);
                Ok((Step::Prelude, PRELUDE))
            }
        }
    }

    fn prelude(&mut self) -> Result<(), Malformed> {
        let (lengths, crc) = self.field.split_at_checked(8).ok_or(Malformed)?;
        if crc != crc32fast::hash(lengths).to_be_bytes() {
            return Err(Malformed);
        }
        let (total, headers) = lengths.split_at_checked(4).ok_or(Malformed)?;
        self.headers_left = number(headers);
        let data = number(total).checked_sub(OVERHEAD).ok_or(Malformed)?;
        self.payload = data.checked_sub(self.headers_left).ok_or(Malformed)?;
        if self.headers_left > MAX_HEADERS || self.payload > MAX_PAYLOAD {
            return Err(Malformed);
        }
        Ok(())
    }

    /// The step after a header or the prelude: the next header, or the payload if no header is left.
    fn next_header(
        &mut self,
        sink: &mut impl FnMut(FramePart<'_>),
    ) -> Result<(Step, usize), Malformed> {
        if self.headers_left > 0 {
            return self.of_header(Step::NameLength, 1);
        }
        let (kind, name) = self.headers.kind_and_name();
        sink(FramePart::Begin { kind, name });
        Ok((Step::Payload, self.payload))
    }

    /// The next field of the headers; malformed if it would exceed their length.
    fn of_header(&mut self, step: Step, length: usize) -> Result<(Step, usize), Malformed> {
        self.headers_left = self.headers_left.checked_sub(length).ok_or(Malformed)?;
        Ok((step, length))
    }

    /// The field as a number.
    fn number(&self) -> usize {
        number(&self.field)
    }
}

impl Header {
    fn of(name: &[u8]) -> Option<Self> {
        match name {
            b":message-type" => Some(Self::Message),
            b":event-type" => Some(Self::Event),
            b":exception-type" => Some(Self::Exception),
            _ => None,
        }
    }
}

impl Headers {
    /// Stores a header, which may occur only once: readers disagree about which of two counts.
    fn put(&mut self, header: Header, value: &[u8]) -> Result<(), Malformed> {
        let place = match header {
            Header::Message => &mut self.message_type,
            Header::Event => &mut self.event_type,
            Header::Exception => &mut self.exception_type,
        };
        place
            .replace(value.to_vec())
            .map_or(Ok(()), |_| Err(Malformed))
    }

    /// The frame's kind and name, by its headers.
    fn kind_and_name(&self) -> (Kind, &[u8]) {
        let (kind, name) = match self.message_type.as_deref() {
            Some(b"event") => (Kind::Event, &self.event_type),
            Some(b"exception") => (Kind::Exception, &self.exception_type),
            Some(b"error") => (Kind::Error, &None),
            _ => (Kind::Unknown, &None),
        };
        (kind, name.as_deref().unwrap_or_default())
    }
}

/// A big-endian number of at most 4 bytes.
fn number(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .fold(0, |number: usize, byte| number << 8 | usize::from(*byte))
}

#[cfg(test)]
#[path = "../../tests/support/frames.rs"]
mod frames;

#[cfg(test)]
mod tests;
