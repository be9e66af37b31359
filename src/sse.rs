//! Server-sent events in any chunking, with bounded memory.
//!
//! Lines end with LF, CRLF or a bare CR, also when CRLF is cut in two; an empty line ends an event; of
//! the fields only `data` is of interest (WHATWG HTML, "Server-sent events", 9.2.6, read 2026-11-22).
//! An event's data is handed on as it comes, so that it may be of any length.

use memchr::memchr2;

/// Longest event that can still be taken out of the stream, in bytes as it stands there.
pub const MAX_DROPPED: usize = 64 * 1024;

/// Whether an event goes on to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Keep,
    /// It is taken out of the stream, with the empty line that ends it.
    Drop,
}

/// Reads what events say.
pub trait Judge {
    /// More of the current event's data. Its lines are joined by LF.
    fn data(&mut self, bytes: &[u8]);

    /// The current event is complete.
    fn end(&mut self) -> Verdict;

    /// All of an event: its data, which is one line.
    fn whole(&mut self, data: &[u8]) -> Verdict {
        self.data(data);
        self.end()
    }
}

/// Splits a stream into its events.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// Where it is in the current line.
    line: Line,
    /// The current line is not empty.
    has_text: bool,
    /// The current event has data.
    has_data: bool,
    /// The current event is not read as a whole, but line by line.
    is_in_parts: bool,
    /// The last byte was a CR that ended a line: an LF now belongs to it.
    after_cr: bool,
    /// Keeps the current event back, where events may be taken out.
    keeper: Option<Keeper>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Line {
    /// So many bytes of a byte order mark were read: only at the start of the stream.
    Mark(usize),
    /// So many bytes of `data` were read.
    Name(usize),
    /// After the colon: a space now is not part of the value.
    Colon,
    /// In the value of a `data` line.
    Value,
    /// In a line that is of no interest.
    #[default]
    Other,
}

const MARK: &[u8] = b"\xef\xbb\xbf";
const NAME: &[u8] = b"data";

/// The bytes of the current event, until it is known whether it goes on.
#[derive(Clone, Debug, Default)]
struct Keeper {
    raw: Vec<u8>,
    /// The event is longer than [`MAX_DROPPED`]; what came of it has gone on.
    overlong: bool,
    /// What became of the last event, for the LF that may still follow it.
    last: Option<Verdict>,
}

/// An event that is here as a whole.
struct Whole<'a> {
    raw: &'a [u8],
    data: Option<&'a [u8]>,
}

/// What goes on of a chunk. Nothing is copied while that is the chunk itself.
struct Output<'a> {
    chunk: &'a [u8],
    /// So many of its first bytes go on, if nothing has changed.
    same: usize,
    changed: Option<Vec<u8>>,
}

impl Events {
    /// A splitter for a new stream. `drops`: events may be taken out of it.
    #[must_use]
    pub fn new(drops: bool) -> Self {
        Self {
            line: Line::Mark(0),
            keeper: drops.then(Keeper::default),
            ..Self::default()
        }
    }

    /// Whether events may be taken out.
    #[must_use]
    pub fn drops(&self) -> bool {
        self.keeper.is_some()
    }

    /// Reads on. What goes on to the client in the place of the chunk; `None` for the chunk as it is.
    ///
    /// Where events may be taken out, the bytes of an incomplete one are kept back, which delays nothing that a client could
    /// use.
    pub fn feed(&mut self, chunk: &[u8], judge: &mut impl Judge) -> Option<Vec<u8>> {
        let mut output = Output::of(chunk);
        let mut rest = chunk;
        if self.after_cr && rest.first() == Some(&b'\n') {
            self.after_cr = false;
            if let Some(keeper) = &mut self.keeper {
                keeper.late_lf(output.changed());
            }
            rest = rest.get(1..).unwrap_or_default();
        }
        while !rest.is_empty() {
            // Each event is looked through once: an upstream chooses how many lines it has.
            if !self.is_in_parts
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
            self.is_in_parts = true;
            let (line, ending, tail) = next_line(rest);
            self.after_cr = ending == b"\r" && tail.is_empty();
            if let Some(keeper) = &mut self.keeper {
                keeper.push(line, ending, output.changed());
            }
            self.has_text |= !line.is_empty();
            self.read(line, judge);
            if !ending.is_empty() {
                self.end_line(&mut output, judge);
            }
            rest = tail;
        }
        self.keeper.as_ref().and_then(|_| output.finish())
    }

    /// The event that `bytes` begin with, if all of it is there and its data is no more than one line, as most are.
    fn whole_event<'a>(&self, bytes: &'a [u8]) -> Option<Whole<'a>> {
        let is_between = matches!(self.line, Line::Name(0)) && !self.has_text && !self.has_data;
        if !is_between || self.keeper.as_ref().is_some_and(Keeper::is_busy) {
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
                return Some(Whole { raw, data });
            }
            if let Some(value) = value(line)
                && data.replace(value).is_some()
            {
                return None;
            }
        }
    }

    /// The stream has ended: an event that no empty line ended is judged all the same. What of it goes on.
    pub fn finish(&mut self, judge: &mut impl Judge) -> Vec<u8> {
        let mut output = Output::of(&[]);
        if std::mem::take(&mut self.has_text) {
            self.end_value(judge);
        }
        self.end_event(&mut output, judge);
        output.finish().unwrap_or_default()
    }

    /// Reads a part of a line.
    fn read(&mut self, mut part: &[u8], judge: &mut impl Judge) {
        while let Some((&byte, tail)) = part.split_first() {
            self.line = match self.line {
                Line::Mark(seen) if MARK.get(seen) == Some(&byte) => {
                    Line::Mark(seen.saturating_add(1))
                }
                Line::Mark(seen) if seen == 0 || seen == MARK.len() => {
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
                Line::Mark(_) | Line::Name(_) | Line::Other => {
                    self.line = Line::Other;
                    return;
                }
            };
            part = tail;
        }
    }

    fn begin_value(&mut self, judge: &mut impl Judge) {
        if std::mem::replace(&mut self.has_data, true) {
            judge.data(b"\n");
        }
    }

    /// A line that is just `data` has an empty value.
    fn end_value(&mut self, judge: &mut impl Judge) {
        if matches!(self.line, Line::Name(seen) if seen == NAME.len()) {
            self.begin_value(judge);
        }
        self.line = Line::Name(0);
    }

    fn end_line(&mut self, output: &mut Output<'_>, judge: &mut impl Judge) {
        self.end_value(judge);
        if !std::mem::take(&mut self.has_text) {
            self.end_event(output, judge);
        }
    }

    fn end_event(&mut self, output: &mut Output<'_>, judge: &mut impl Judge) {
        self.is_in_parts = false;
        let verdict = match std::mem::take(&mut self.has_data) {
            true => judge.end(),
            false => Verdict::Keep,
        };
        if let Some(keeper) = &mut self.keeper {
            keeper.end(verdict, output.changed());
        }
    }
}

impl<'a> Output<'a> {
    fn of(chunk: &'a [u8]) -> Self {
        Self {
            chunk,
            same: 0,
            changed: None,
        }
    }

    /// The next bytes of the chunk, which go on.
    fn keep(&mut self, bytes: &[u8]) {
        match &mut self.changed {
            Some(changed) => changed.extend(bytes),
            None => self.same = self.same.saturating_add(bytes.len()),
        }
    }

    fn changed(&mut self) -> &mut Vec<u8> {
        let same = self.chunk.get(..self.same).unwrap_or_default();
        self.changed.get_or_insert_with(|| same.to_vec())
    }

    /// `None` for the chunk as it is.
    fn finish(self) -> Option<Vec<u8>> {
        self.changed.filter(|changed| changed != self.chunk)
    }
}

impl Keeper {
    /// Bytes of an event are here, or have gone on before its end.
    fn is_busy(&self) -> bool {
        self.overlong || !self.raw.is_empty()
    }

    /// An LF that came in another chunk than the CR before it.
    fn late_lf(&mut self, output: &mut Vec<u8>) {
        if self.overlong {
            output.push(b'\n');
        } else if !self.raw.is_empty() {
            self.raw.push(b'\n');
        } else if self.last != Some(Verdict::Drop) {
            output.push(b'\n');
        }
    }

    fn push(&mut self, line: &[u8], ending: &[u8], output: &mut Vec<u8>) {
        self.raw.extend(line);
        self.raw.extend(ending);
        self.overlong |= self.raw.len() > MAX_DROPPED;
        if self.overlong {
            output.append(&mut self.raw);
        }
    }

    fn end(&mut self, verdict: Verdict, output: &mut Vec<u8>) {
        if std::mem::take(&mut self.overlong) || verdict == Verdict::Keep {
            output.append(&mut self.raw);
            self.last = Some(Verdict::Keep);
        } else {
            self.raw.clear();
            self.last = Some(Verdict::Drop);
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

/// The first line of `bytes`, what ends it (nothing if the bytes do), and the rest.
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
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Collects events; those that begin with `drop` are to be taken out.
    #[derive(Default)]
    struct Seen(Vec<String>, Vec<u8>);

    impl Judge for Seen {
        fn data(&mut self, bytes: &[u8]) {
            self.1.extend(bytes);
        }

        fn end(&mut self) -> Verdict {
            let data = String::from_utf8(std::mem::take(&mut self.1)).unwrap();
            let verdict = if data.starts_with("drop") {
                Verdict::Drop
            } else {
                Verdict::Keep
            };
            self.0.push(data);
            verdict
        }
    }

    /// The events' data and the output.
    fn run(chunks: &[&[u8]]) -> (Vec<String>, String) {
        let (mut events, mut output, mut seen) = (Events::new(true), Vec::new(), Seen::default());
        let (mut reader, mut read) = (Events::new(false), Seen::default());
        for chunk in chunks {
            let passed = events.feed(chunk, &mut seen);
            output.extend(passed.unwrap_or_else(|| chunk.to_vec()));
            assert_eq!(reader.feed(chunk, &mut read), None);
        }
        output.extend(events.finish(&mut seen));
        assert_eq!(reader.finish(&mut read), b"");
        assert_eq!(read.0, seen.0);
        (seen.0, String::from_utf8(output).unwrap())
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

    #[test]
    fn a_chunk_of_which_all_goes_on_is_not_copied() {
        let (mut events, mut seen) = (Events::new(true), Seen::default());
        assert_eq!(events.feed(b": first\n\n", &mut seen), None);
        assert_eq!(
            events.feed(b"data: a\n\nid: 1\r\ndata: b\r\n\r\n", &mut seen),
            None
        );
        assert_eq!(
            events.feed(b"data: c\n\ndata: drop\n\ndata: d\n\n", &mut seen),
            Some(b"data: c\n\ndata: d\n\n".to_vec())
        );
        assert_eq!(seen.0, ["a", "b", "c", "drop", "d"]);
    }

    // cases.md 26
    #[test]
    fn a_huge_event_is_read_as_it_passes_and_the_next_one_is_found() {
        let data = format!("drop{}", "x".repeat(MAX_DROPPED));
        let stream = format!("data: {data}\n\ndata: b\n\n");
        for size in [1_000, 65_536, stream.len()] {
            let chunks: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
            let (seen, output) = run(&chunks);
            assert_eq!(seen, [data.as_str(), "b"], "chunks of {size}");
            assert_eq!(output, stream);
        }
    }

    #[test]
    fn memory_is_bounded_in_an_event_that_never_ends() {
        let (mut events, mut seen) = (Events::new(true), Seen::default());
        let passed: usize = (0..100)
            .map(|_| {
                let passed = events.feed(&[b'x'; 65_536], &mut seen);
                passed.map_or(65_536, |passed| passed.len())
            })
            .sum();
        assert_eq!(passed, 100 * 65_536);
        assert!(events.keeper.unwrap().raw.is_empty());
    }

    #[test]
    fn only_lines_of_data_count() {
        let stream = "dat: 1\ndatas: 2\n data: 3\ndata : 4\n\ndata:  5\ndata\n\n";
        assert_eq!(run(&[stream.as_bytes()]).0, [" 5\n"]);
    }
}
