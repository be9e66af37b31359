//! Server-sent events in any chunking, with bounded memory.
//!
//! Lines end with LF, CRLF or a bare CR, and a CRLF may be cut in two; an empty line ends an event; only the field `data` is of interest
//! (WHATWG HTML, "Server-sent events", 9.2.6, read 2026-11-22). An event's data is passed on as it arrives, so it may have any length.

mod output;

use memchr::memchr2;
use output::{EventBuffer, Output};

/// Longest event that can still be taken out of the stream, in bytes.
pub const MAX_DROPPED: usize = 64 * 1024;

/// Whether an event is forwarded to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The event is forwarded.
    Keep,
    /// The event is taken out of the stream, with the empty line that ends it.
    Drop,
}

/// Reads the events' data, and decides which of them are forwarded.
pub trait EventFilter {
    /// More of the current event's data, whose lines are joined by LF.
    fn data(&mut self, bytes: &[u8]);

    /// The current event is complete.
    fn end(&mut self) -> Verdict;

    /// A whole event whose data is one line.
    fn whole(&mut self, data: &[u8]) -> Verdict {
        self.data(data);
        self.end()
    }
}

/// Splits a stream into its events.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// The position in the current line.
    line: Line,
    /// Whether the current line is not empty.
    has_text: bool,
    /// Whether the current event has data.
    has_data: bool,
    /// Whether the current event is read line by line, and not as a whole.
    is_by_line: bool,
    /// Whether a comment before the event is being read; the part of it that was read is forwarded.
    is_in_comment: bool,
    /// Whether the last byte was a CR that ended a line: if an LF follows, it belongs to that CR.
    after_cr: bool,
    /// Holds the current event, where events may be taken out.
    buffer: Option<EventBuffer>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Line {
    /// This many bytes of a byte order mark were read; only at the start of the stream.
    ByteOrderMark(usize),
    /// This many bytes of `data` were read.
    Name(usize),
    /// After the colon: a space here does not belong to the value.
    Colon,
    /// In the value of a `data` line.
    Value,
    /// In a line that is of no interest.
    #[default]
    Other,
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const NAME: &[u8] = b"data";

/// An event that arrived as a whole.
struct WholeEvent<'a> {
    raw: &'a [u8],
    data: Option<&'a [u8]>,
}

impl Events {
    /// Starts a new stream. `drops`: events may be taken out of it.
    #[must_use]
    pub fn new(drops: bool) -> Self {
        Self {
            line: Line::ByteOrderMark(0),
            buffer: drops.then(EventBuffer::default),
            ..Self::default()
        }
    }

    /// Whether events may be taken out.
    #[must_use]
    pub fn drops(&self) -> bool {
        self.buffer.is_some()
    }

    /// Reads a chunk. Returns what is forwarded in its place; `None` for the chunk as it is.
    ///
    /// Where events may be taken out, the bytes of an incomplete event are kept back. That delays nothing that a client could use. A
    /// comment before an event is forwarded at once: servers keep a connection alive with comments.
    pub fn feed(&mut self, chunk: &[u8], judge: &mut impl EventFilter) -> Option<Vec<u8>> {
        let mut output = Output::of(chunk);
        let mut rest = chunk;
        if self.after_cr && rest.first() == Some(&b'\n') {
            self.after_cr = false;
            if let Some(buffer) = &mut self.buffer {
                buffer.late_lf(output.changed());
            }
            rest = rest.get(1..).unwrap_or_default();
        }
        while !rest.is_empty() {
            if let Some(length) = self.comment(rest) {
                let (comment, tail) = rest.split_at_checked(length).unwrap_or((rest, &[]));
                output.keep(comment);
                rest = tail;
                continue;
            }
            // Each event is read only once: an upstream chooses how many lines it has.
            if !self.is_by_line
                && let Some(event) = self.whole_event(rest)
            {
                self.after_cr = false;
                let verdict = event.data.map_or(Verdict::Keep, |data| judge.whole(data));
                if verdict == Verdict::Keep || event.raw.len() > MAX_DROPPED {
                    output.keep(event.raw);
                } else {
                    output.changed();
                }
                rest = rest.get(event.raw.len()..).unwrap_or_default();
                continue;
            }
            self.is_by_line = true;
            let (line, ending, tail) = next_line(rest);
            self.after_cr = ending == b"\r" && tail.is_empty();
            if let Some(buffer) = &mut self.buffer {
                buffer.push(line, ending, output.changed());
            }
            self.has_text |= !line.is_empty();
            self.read(line, judge);
            if !ending.is_empty() {
                self.end_line(&mut output, judge);
            }
            rest = tail;
        }
        self.buffer.as_ref().and_then(|_| output.finish())
    }

    /// Whether no byte of an event was read since the end of the last one.
    fn is_between(&self) -> bool {
        let is_busy = self.buffer.as_ref().is_some_and(EventBuffer::is_busy);
        let is_line_start =
            matches!(self.line, Line::Name(0) | Line::ByteOrderMark(0)) && !self.has_text;
        is_line_start && !self.has_data && !self.is_by_line && !is_busy
    }

    /// Reads a comment before an event. Returns how many bytes were read.
    fn comment(&mut self, bytes: &[u8]) -> Option<usize> {
        let begins = || bytes.first() == Some(&b':') && self.is_between();
        if !self.is_in_comment && !begins() {
            return None;
        }
        let (_, ending, tail) = next_line(bytes);
        self.line = Line::Name(0);
        self.is_in_comment = ending.is_empty();
        self.after_cr = ending == b"\r" && tail.is_empty();
        if let Some(buffer) = &mut self.buffer {
            buffer.last = Some(Verdict::Keep);
        }
        Some(bytes.len().saturating_sub(tail.len()))
    }

    /// The event at the start of `bytes`, if it is complete and has at most one line of data, as most events have.
    fn whole_event<'a>(&self, bytes: &'a [u8]) -> Option<WholeEvent<'a>> {
        if matches!(self.line, Line::ByteOrderMark(_)) || !self.is_between() {
            return None;
        }
        let (mut data, mut rest) = (None, bytes);
        loop {
            let (line, ending, tail) = next_line(rest);
            if ending.is_empty() || ending == b"\r" && tail.is_empty() {
                return None;
            }
            rest = tail;
            if line.is_empty() {
                let length = bytes.len().saturating_sub(rest.len());
                let raw = bytes.get(..length)?;
                return Some(WholeEvent { raw, data });
            }
            if let Some(value) = value(line)
                && data.replace(value).is_some()
            {
                return None;
            }
        }
    }

    /// The stream has ended. An event that no empty line ended is judged too. Returns the bytes of it that are forwarded.
    pub fn finish(&mut self, judge: &mut impl EventFilter) -> Vec<u8> {
        let mut output = Output::of(&[]);
        if std::mem::take(&mut self.has_text) {
            self.end_value(judge);
        }
        self.end_event(&mut output, judge);
        output.finish().unwrap_or_default()
    }

    /// Reads a part of a line.
    fn read(&mut self, mut part: &[u8], judge: &mut impl EventFilter) {
        while let Some((&byte, tail)) = part.split_first() {
            self.line = match self.line {
                Line::ByteOrderMark(seen) if BYTE_ORDER_MARK.get(seen) == Some(&byte) => {
                    Line::ByteOrderMark(seen.saturating_add(1))
                }
                Line::ByteOrderMark(seen) if seen == 0 || seen == BYTE_ORDER_MARK.len() => {
                    self.line = Line::Name(0);
                    continue;
                }
                Line::Name(seen) if NAME.get(seen) == Some(&byte) => {
                    Line::Name(seen.saturating_add(1))
                }
                Line::Name(seen) if seen == NAME.len() && byte == b':' => {
                    self.begin_value(judge);
                    Line::Colon
                }
                Line::Colon if byte == b' ' => Line::Value,
                Line::Colon | Line::Value => {
                    judge.data(part);
                    self.line = Line::Value;
                    return;
                }
                Line::ByteOrderMark(_) | Line::Name(_) | Line::Other => {
                    self.line = Line::Other;
                    return;
                }
            };
            part = tail;
        }
    }

    fn begin_value(&mut self, judge: &mut impl EventFilter) {
        if std::mem::replace(&mut self.has_data, true) {
            judge.data(b"\n");
        }
    }

    /// A line that is just `data` has an empty value.
    fn end_value(&mut self, judge: &mut impl EventFilter) {
        if matches!(self.line, Line::Name(seen) if seen == NAME.len()) {
            self.begin_value(judge);
        }
        self.line = Line::Name(0);
    }

    fn end_line(&mut self, output: &mut Output<'_>, judge: &mut impl EventFilter) {
        self.end_value(judge);
        if !std::mem::take(&mut self.has_text) {
            self.end_event(output, judge);
        }
    }

    fn end_event(&mut self, output: &mut Output<'_>, judge: &mut impl EventFilter) {
        self.is_by_line = false;
        let verdict = match std::mem::take(&mut self.has_data) {
            true => judge.end(),
            false => Verdict::Keep,
        };
        if let Some(buffer) = &mut self.buffer {
            buffer.end(verdict, output.changed());
        }
    }
}

/// The value of a line of data.
fn value(line: &[u8]) -> Option<&[u8]> {
    match line.strip_prefix(NAME)? {
        [] => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

/// Splits off the first line: the line, its line ending (empty if there is none yet), and the rest.
fn next_line(bytes: &[u8]) -> (&[u8], &[u8], &[u8]) {
    if let Some((ending @ b"\n", tail)) = bytes.split_at_checked(1) {
        return (&[], ending, tail);
    }
    let Some(end) = memchr2(b'\n', b'\r', bytes) else {
        return (bytes, &[], &[]);
    };
    let (line, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
    let length = if rest.starts_with(b"\r\n") { 2 } else { 1 };
    let (ending, tail) = rest.split_at_checked(length).unwrap_or((rest, &[]));
    (line, ending, tail)
}

#[cfg(test)]
mod tests;
