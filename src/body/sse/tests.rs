use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Collects events; those that begin with `drop` are to be taken out.
#[derive(Default)]
struct Seen(Vec<String>, Vec<u8>);

impl EventFilter for Seen {
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

// Lines end with LF, CRLF or CR, and a CRLF may be cut in two.
#[test]
fn every_line_ending_at_every_split_gives_the_same() {
    let text = "\u{feff}data: a\n\n: ping\n\nevent: x\ndata: drop é\n\ndata:b\ndata\ndata: c\n\n";
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

// Gemini and the Responses API end without `[DONE]`.
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

// Memory is bounded whatever the length of an event, and the next one is found.
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

// Servers send comments to keep connections alive, some of them without an empty line.
#[test]
fn a_comment_before_an_event_is_forwarded_at_once() {
    for ending in ["\n", "\r\n", "\r"] {
        let stream =
            ": keepalive\n: more\ndata: drop\n\n:\n\n:a\ndata: b\n\n".replace('\n', ending);
        let kept = ": keepalive\n: more\n:\n\n:a\ndata: b\n\n".replace('\n', ending);
        let seen = vec!["drop".to_owned(), "b".to_owned()];
        for split in 0..=stream.len() {
            let (head, tail) = stream.as_bytes().split_at(split);
            assert_eq!(run(&[head, tail]), (seen.clone(), kept.clone()));
            let mut events = Events::new(true);
            let passed = events.feed(head, &mut Seen::default());
            let passed = passed.unwrap_or_else(|| head.to_vec());
            let comments = split.min(": keepalive: more".len() + 2 * ending.len());
            assert!(passed.starts_with(&head[..comments]), "{ending:?} {split}");
        }
    }
    // The bytes of an event wait for its end.
    let mut events = Events::new(true);
    let passed = events.feed(b"event: x\n: ping\n", &mut Seen::default());
    assert_eq!(passed, Some(Vec::new()));
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
    assert!(events.buffer.unwrap().raw.is_empty());
}

#[test]
fn only_lines_of_data_count() {
    let stream = "dat: 1\ndatas: 2\n data: 3\ndata : 4\n\ndata:  5\ndata\n\n";
    assert_eq!(run(&[stream.as_bytes()]).0, [" 5\n"]);
}
