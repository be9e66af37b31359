//! Server-sent events in any chunking, with bounded memory.
//!
//! Lines end with LF, CRLF or a bare CR, also when CRLF is cut in two; an empty line ends an event; of
//! the fields only `data` is of interest (WHATWG HTML, "Server-sent events", 9.2.6, read 2026-11-22).

use memchr::memchr2;

/// Longest event that is looked at. Beyond it an event passes unread.
pub const MAX_EVENT: usize = 256 * 1024;

/// Whether an event goes on to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Keep,
    /// It is taken out of the stream, with the empty line that ends it.
    Drop,
}

/// Splits a stream into its events.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// Bytes of the event so far, as they came.
    raw: Vec<u8>,
    /// Where its current line begins in `raw`.
    line: usize,
    /// Its `data` lines so far, joined by LF.
    data: Option<Vec<u8>>,
    /// The last byte was a CR that ended a line: an LF now belongs to it.
    after_cr: bool,
    /// The event is longer than [`MAX_EVENT`]; what came of it has gone on.
    overlong: bool,
    /// The current line is not empty.
    has_text: bool,
    /// What became of the last event, for the LF that may still follow it.
    last: Option<Verdict>,
}

impl Events {
    /// Reads on; gives each complete event's data to `judge`, and the bytes of the kept ones to `output`.
    ///
    /// The bytes of an incomplete event are kept back, which delays nothing that a client could use.
    pub fn feed(
        &mut self,
        chunk: &[u8],
        output: &mut Vec<u8>,
        mut judge: impl FnMut(&[u8]) -> Verdict,
    ) {
        let mut rest = chunk;
        if self.after_cr && rest.first() == Some(&b'\n') {
            self.after_cr = false;
            self.late_lf(output);
            rest = rest.get(1..).unwrap_or_default();
        }
        while !rest.is_empty() {
            let (line, ending, tail) = next_line(rest);
            self.after_cr = ending == b"\r" && tail.is_empty();
            self.push(line, ending, output);
            if !ending.is_empty() {
                self.end_line(ending.len(), output, &mut judge);
            }
            rest = tail;
        }
    }

    /// The stream has ended: an event that no empty line ended is judged all the same.
    pub fn finish(&mut self, output: &mut Vec<u8>, mut judge: impl FnMut(&[u8]) -> Verdict) {
        if !self.raw.is_empty() || self.data.is_some() {
            self.end_line(0, output, &mut judge);
            self.end_event(output, &mut judge);
        }
    }

    /// An LF that came in another chunk than the CR before it.
    fn late_lf(&mut self, output: &mut Vec<u8>) {
        if self.overlong {
            output.push(b'\n');
        } else if !self.raw.is_empty() {
            self.raw.push(b'\n');
            self.line = self.raw.len();
        } else if self.last != Some(Verdict::Drop) {
            output.push(b'\n');
        }
    }

    fn push(&mut self, line: &[u8], ending: &[u8], output: &mut Vec<u8>) {
        self.has_text |= !line.is_empty();
        self.raw.extend(line);
        self.raw.extend(ending);
        if self.raw.len() > MAX_EVENT {
            self.overlong = true;
            self.data = None;
        }
        if self.overlong {
            output.append(&mut self.raw);
            self.line = 0;
        }
    }

    /// A line is complete; `ending` is the length of what ended it.
    fn end_line(
        &mut self,
        ending: usize,
        output: &mut Vec<u8>,
        judge: &mut impl FnMut(&[u8]) -> Verdict,
    ) {
        let has_text = std::mem::take(&mut self.has_text);
        if self.overlong {
            if !has_text {
                self.overlong = false;
                self.last = Some(Verdict::Keep);
            }
            return;
        }
        if !has_text && ending > 0 {
            self.end_event(output, judge);
            return;
        }
        let end = self.raw.len().saturating_sub(ending);
        let line = self.raw.get(self.line..end).unwrap_or_default();
        if let Some(value) = data_of(line) {
            match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend(value);
                }
                None => self.data = Some(value.to_vec()),
            }
        }
        self.line = self.raw.len();
    }

    fn end_event(&mut self, output: &mut Vec<u8>, judge: &mut impl FnMut(&[u8]) -> Verdict) {
        let verdict = self.data.take().map_or(Verdict::Keep, |data| judge(&data));
        if verdict == Verdict::Keep {
            output.extend(&self.raw);
        }
        self.raw.clear();
        self.line = 0;
        self.last = Some(verdict);
    }
}

/// The first line of `bytes`, what ends it (nothing if the bytes do), and the rest.
fn next_line(bytes: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let Some(end) = memchr2(b'\n', b'\r', bytes) else {
        return (bytes, &[], &[]);
    };
    let (line, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
    let length = if rest.starts_with(b"\r\n") { 2 } else { 1 };
    let (ending, tail) = rest.split_at_checked(length).unwrap_or((rest, &[]));
    (line, ending, tail)
}

/// The value of a `data` line.
fn data_of(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let value = line.strip_prefix(b"data")?;
    match value.split_first() {
        None => Some(value),
        Some((b':', value)) => Some(value.strip_prefix(b" ").unwrap_or(value)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// The events' data and the output, where events with `drop` in them are taken out.
    fn run(chunks: &[&[u8]]) -> (Vec<String>, String) {
        let (mut events, mut output, mut seen) = (Events::default(), Vec::new(), Vec::new());
        let mut judge = |data: &[u8]| {
            seen.push(String::from_utf8_lossy(data).into_owned());
            if data.starts_with(b"drop") {
                Verdict::Drop
            } else {
                Verdict::Keep
            }
        };
        for chunk in chunks {
            events.feed(chunk, &mut output, &mut judge);
        }
        events.finish(&mut output, &mut judge);
        (seen, String::from_utf8(output).unwrap())
    }

    // cases.md 17
    #[test]
    fn every_line_ending_at_every_split_gives_the_same() {
        let text =
            "\u{feff}data: a\n\n: ping\n\nevent: x\ndata: drop é\n\ndata:b\ndata\ndata: c\n\n";
        for ending in ["\n", "\r\n", "\r"] {
            let stream = text.replace('\n', ending);
            let kept = stream.replace(&format!("event: x{ending}data: drop é{ending}{ending}"), "");
            let expected = (
                vec!["a".to_owned(), "drop é".to_owned(), "b\n\nc".to_owned()],
                kept,
            );
            let bytes = stream.as_bytes();
            for split in 0..=bytes.len() {
                let (head, tail) = bytes.split_at(split);
                assert_eq!(run(&[head, tail]), expected, "{ending:?} split at {split}");
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(run(&single), expected, "{ending:?} byte by byte");
        }
    }

    // cases.md 19
    #[test]
    fn the_last_event_needs_no_empty_line() {
        assert_eq!(
            run(&[b"data: a\n\ndata: b"]),
            (vec!["a".into(), "b".into()], "data: a\n\ndata: b".into())
        );
        assert_eq!(
            run(&[b"data: a\n\ndrop: x\ndata: drop\n"]),
            (vec!["a".into(), "drop".into()], "data: a\n\n".into())
        );
    }

    // cases.md 26
    #[test]
    fn a_huge_event_passes_unread_and_the_next_one_is_found() {
        let huge = format!("data: {}\ndata: drop\n\n", "x".repeat(MAX_EVENT));
        let stream = format!("{huge}data: b\n\n");
        for size in [1_000, 65_536, stream.len()] {
            let chunks: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
            let (seen, output) = run(&chunks);
            assert_eq!(seen, ["b"], "chunks of {size}");
            assert_eq!(output, stream);
        }
    }

    #[test]
    fn memory_is_bounded_in_an_event_that_never_ends() {
        let (mut events, mut output) = (Events::default(), Vec::new());
        for _ in 0..100 {
            events.feed(&[b'x'; 65_536], &mut output, |_| Verdict::Drop);
        }
        assert_eq!(output.len(), 100 * 65_536);
        assert!(events.raw.is_empty());
    }
}
