//! [`bursar::body::sse`]: the events that the standard sees in a stream, and the stream without those that are dropped.

use bursar::body::sse::{EventFilter, Events, MAX_DROPPED, Verdict};

use super::input::Input;

/// In the place of each of the first few bytes 0xff, so that short inputs make events that are too long to be dropped.
const RUN: usize = 25_000;
const MOST_RUNS: usize = 4;

/// Collects what the events say, and drops every second kind.
#[derive(Default)]
struct Seen(Vec<Vec<u8>>, Vec<u8>);

impl EventFilter for Seen {
    fn data(&mut self, bytes: &[u8]) {
        self.1.extend(bytes);
    }

    fn end(&mut self) -> Verdict {
        let data = std::mem::take(&mut self.1);
        let verdict = verdict(&data);
        self.0.push(data);
        verdict
    }
}

fn verdict(data: &[u8]) -> Verdict {
    if data.len().is_multiple_of(2) {
        Verdict::Keep
    } else {
        Verdict::Drop
    }
}

pub fn run(data: &[u8]) {
    let Some(input) = Input::read(data) else {
        return;
    };
    let mut runs = 0;
    let stream: Vec<u8> = input.bytes.iter().fold(Vec::new(), |mut stream, &byte| {
        if byte == 0xff && runs < MOST_RUNS {
            runs += 1;
            stream.extend([b'x'; RUN]);
        } else {
            stream.push(byte);
        }
        stream
    });
    let (seen, kept) = reference(&stream);
    let mut chunkings = input.chunkings(&stream);
    chunkings.push(vec![&stream]);
    for chunks in chunkings {
        assert_eq!(read(&chunks, true), (seen.clone(), kept.clone()));
        assert_eq!(read(&chunks, false), (seen.clone(), Vec::new()));
    }
}

fn read(chunks: &[&[u8]], drops: bool) -> (Vec<Vec<u8>>, Vec<u8>) {
    let (mut events, mut seen, mut output) = (Events::new(drops), Seen::default(), Vec::new());
    for chunk in chunks {
        let passed = events.feed(chunk, &mut seen);
        if drops {
            output.extend(passed.unwrap_or_else(|| chunk.to_vec()));
        } else {
            assert_eq!(passed, None);
        }
    }
    output.extend(events.finish(&mut seen));
    (seen.0, output)
}

/// The same, from the stream as a whole.
fn reference(stream: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let (mut seen, mut kept, mut event, mut data) = (Vec::new(), Vec::new(), 0, None);
    let mut end = |event: &mut usize, until: usize, data: &mut Option<Vec<u8>>| {
        let raw = &stream[*event..until];
        let told = data.take();
        let drops = told
            .as_deref()
            .is_some_and(|data| verdict(data) == Verdict::Drop);
        seen.extend(told);
        if !drops || raw.len() > MAX_DROPPED {
            kept.extend(raw);
        }
        *event = until;
    };
    let mut at = if stream.starts_with(b"\xef\xbb\xbf") {
        3
    } else {
        0
    };
    while at < stream.len() {
        let rest = &stream[at..];
        let length = rest.iter().position(|byte| b"\r\n".contains(byte));
        let line = &rest[..length.unwrap_or(rest.len())];
        let ending = match &rest[line.len()..] {
            [b'\r', b'\n', ..] => 2,
            [] => 0,
            _ => 1,
        };
        at += line.len() + ending;
        // A comment before an event is no part of it.
        let is_comment = line.starts_with(b":") && event == at - line.len() - ending;
        if line.is_empty() || is_comment {
            end(&mut event, at, &mut data);
        } else if let Some(value) = value(line) {
            let joined = data.take().map(|data| [&data, b"\n".as_slice()].concat());
            data = Some([joined.unwrap_or_default().as_slice(), value].concat());
        }
    }
    end(&mut event, at, &mut data);
    (seen, kept)
}

/// The value of a line of data.
fn value(line: &[u8]) -> Option<&[u8]> {
    match line.strip_prefix(b"data")? {
        [] => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}
