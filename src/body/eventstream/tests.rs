use super::frames::{frame, sealed};
use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// A frame that was read to its end.
type Whole = (Kind, Vec<u8>, Vec<u8>);

/// The frames that were read to their end, whether a further one has begun, and whether the stream is broken.
type Outcome = (Vec<Whole>, bool, bool);

fn run<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let (mut frames, mut whole, mut open) = (Frames::default(), Vec::new(), None);
    let mut sink = |part: FramePart<'_>| match part {
        FramePart::Begin { kind, name } => {
            assert_eq!(open, None);
            open = Some((kind, name.to_vec(), Vec::new()));
        }
        FramePart::Payload(bytes) => {
            assert!(!bytes.is_empty());
            open.as_mut().unwrap().2.extend(bytes);
        }
        FramePart::End => whole.push(open.take().unwrap()),
    };
    for chunk in chunks {
        frames.feed(chunk, &mut sink);
        assert!(frames.field.capacity() <= 2 * MAX_FIELD);
    }
    (whole, open.is_some(), frames.is_broken())
}

fn whole(kind: Kind, name: &str, payload: &str) -> Whole {
    (kind, name.into(), payload.into())
}

/// The frames of a complete stream: the same at every split into two and byte by byte.
#[track_caller]
fn reads(stream: &[u8], expected: &[Whole]) {
    let expected = (expected.to_vec(), false, false);
    for split in 0..=stream.len() {
        let (head, tail) = stream.split_at(split);
        assert_eq!(run([head, tail]), expected, "split at {split}");
    }
    assert_eq!(run(stream.chunks(1)), expected, "byte by byte");
}

/// Checks that the stream is broken, and that no frame came to its end: at every split into two and byte by byte.
#[track_caller]
fn breaks(stream: &[u8]) {
    let refused = |(whole, _, broken): Outcome| {
        assert_eq!(whole, []);
        assert!(broken);
    };
    for split in 0..=stream.len() {
        let (head, tail) = stream.split_at(split);
        refused(run([head, tail]));
    }
    refused(run(stream.chunks(1)));
}

// AWS's vectors: boto/botocore, tests/unit/test_eventstream.py, POSITIVE_CASES and the initial response (commit
// 04d1fae, read 2026-11-22); awslabs/aws-c-event-stream, tests/message_streaming_decoder_test.c, has the first three,
// too, and the two with `event-id` (commit 06a5f35, read 2026-11-22).
const EMPTY: &[u8] = b"\0\0\0\x10\0\0\0\0\x05\xc2H\xeb}\x98\xc8\xff";
const NO_HEADERS: &[u8] = b"\0\0\0\x1d\0\0\0\0\xfdR\x8cZ{'foo':'bar'}\xc3e96";
const ONE_TEXT: &[u8] = b"\0\0\0=\0\0\0 \x07\xfd\x83\x96\x0ccontent-type\x07\0\x10application/json{'foo':'bar'}\x8d\x9c\x08\xb1";
const INT8: &[u8] = b"\0\0\0\x17\0\0\0\x07)\x86\x01X\x04byte\x02\xff\xc2\xf8i\xdc";
const INT16: &[u8] = b"\0\0\0\x19\0\0\0\tq\x0e\x92>\x05short\x03\xff\xff\xb2|\xb6\xcc";
const INT32: &[u8] =
    b"\0\0\0\x1d\0\0\0\r\x83\xe3\xf0\xe7\x07integer\x04\xff\xff\xff\xff\x8b\x8e\x12\xeb";
const INT64: &[u8] =
    b"\0\0\0\x1e\0\0\0\x0e]J\xdb\x8d\x04long\x05\xff\xff\xff\xff\xff\xff\xff\xffK\xc22\xda";
const ALL_TYPES: &[u8] =
    b"\0\0\0\x62\0\0\0\x52\x03\xb5\xcb\x9c\x010\0\x011\x01\x012\x02\x02\x013\x03\0\x03\
    \x014\x04\0\0\0\x04\x015\x05\0\0\0\0\0\0\0\x05\x016\x06\0\x05bytes\x017\x07\0\x04utf8\
    \x018\x08\0\0\0\0\0\0\0\x08\x019\x090123456789abcdef\x63\x35\x36\x71";
const ERROR: &[u8] = b"\0\0\0\x52\0\0\0\x42\xbf\x23\x63\x7e\x0d:message-type\x07\0\x05error\
    \x0b:error-code\x07\0\x04code\x0e:error-message\x07\0\x07message\x6b\x6c\xea\x3d";
const INITIAL: &[u8] = b"\0\0\0~\0\0\0O\xc5\xa3\xdd\xc6\r:message-type\x07\0\x05event\
    \x0b:event-type\x07\0\x10initial-response\r:content-type\x07\0\ttext/json\
    {\"InitialResponse\": \"sometext\"}\xf6\x98$\x83";
const ID_INT32: &[u8] =
    b"\0\0\0\x1e\0\0\0\x0e\x5d\x4a\xdb\x8d\x08event-id\x04\0\0\0\x20\x2a\x4f\xb0\xea";
const ID_TRUE: &[u8] = b"\0\0\0\x1a\0\0\0\x0a\xaf\xa7\xb9\x54\x08event-id\0\x6a\x44\x14\xad";

#[test]
fn the_vectors_of_aws_are_read() {
    let nameless = |payload| whole(Kind::Unknown, "", payload);
    let initial = r#"{"InitialResponse": "sometext"}"#;
    let vectors = [
        (EMPTY, nameless("")),
        (NO_HEADERS, nameless("{'foo':'bar'}")),
        (ONE_TEXT, nameless("{'foo':'bar'}")),
        (INT8, nameless("")),
        (INT16, nameless("")),
        (INT32, nameless("")),
        (INT64, nameless("")),
        (ALL_TYPES, nameless("")),
        (ERROR, whole(Kind::Error, "", "")),
        (INITIAL, whole(Kind::Event, "initial-response", initial)),
        (ID_INT32, nameless("")),
        (ID_TRUE, nameless("")),
    ];
    for (stream, expected) in &vectors {
        reads(stream, std::slice::from_ref(expected));
    }
    let (streams, expected): (Vec<_>, Vec<_>) = vectors.into_iter().unzip();
    reads(&streams.concat(), &expected);
}

// botocore's NEGATIVE_CASES. The fifth one, which repeats an irrelevant header, is accepted: that header is not read.
#[test]
fn the_broken_vectors_of_aws_are_refused() {
    let corrupted = |stream: &[u8], at: usize, bytes: &[u8]| {
        let mut stream = stream.to_vec();
        stream[at..at + bytes.len()].copy_from_slice(bytes);
        // Nothing after the malformed frame is read, however valid it is.
        [&stream, INITIAL].concat()
    };
    breaks(&corrupted(NO_HEADERS, 0, b"\x01"));
    breaks(&corrupted(NO_HEADERS, 24, b"\x8d"));
    breaks(&corrupted(ONE_TEXT, 20, b"+"));
    breaks(&corrupted(ONE_TEXT, 4, b"\xff\0\x01\x02"));
}

#[test]
fn a_flipped_bit_never_lets_a_frame_end() {
    let stream = frame(
        &[
            (":event-type", "metadata"),
            (":content-type", "application/json"),
            (":message-type", "event"),
        ],
        br#"{"usage":{"inputTokens":30,"outputTokens":628,"totalTokens":658}}"#,
    );
    for bit in 0..stream.len() * 8 {
        let mut flipped = stream.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        for chunks in [run([&flipped[..]]), run(flipped.chunks(1))] {
            let (whole, open, broken) = chunks;
            assert_eq!(whole, [], "bit {bit}");
            assert!(broken, "bit {bit}");
            // A wrong prelude is found before any part of the frame is reported.
            assert!(!open || bit >= PRELUDE * 8, "bit {bit}");
        }
    }
}

#[test]
fn a_frame_is_what_its_headers_say_in_any_order() {
    let stream = [
        frame(
            &[
                (":exception-type", "throttlingException"),
                (":content-type", "application/json"),
                (":message-type", "exception"),
            ],
            br#"{"message":"Too many tokens"}"#,
        ),
        frame(
            &[(":message-type", "event"), (":event-type", "chunk")],
            b"{}",
        ),
        frame(&[(":message-type", "event")], b""),
        frame(&[(":event-type", "chunk"), (":message-type", "news")], b""),
        frame(&[(":event-type", ""), (":message-type", "event")], b""),
    ]
    .concat();
    reads(
        &stream,
        &[
            whole(
                Kind::Exception,
                "throttlingException",
                r#"{"message":"Too many tokens"}"#,
            ),
            whole(Kind::Event, "chunk", "{}"),
            whole(Kind::Event, "", ""),
            whole(Kind::Unknown, "", ""),
            whole(Kind::Event, "", ""),
        ],
    );
}

#[test]
fn long_headers_are_skipped() {
    let (name, value) = ("n".repeat(255), "v".repeat(65_535));
    let longest = "t".repeat(MAX_FIELD);
    let stream = [
        frame(
            &[
                (&name, &value),
                (":message-type", "event"),
                // A name that begins like a name that matters.
                (&format!(":event-type{}", "x".repeat(80)), "other"),
                (":event-type", &longest),
            ],
            b"1",
        ),
        frame(&[(":event-type", &value), (":message-type", "event")], b"2"),
        frame(
            &[
                (":event-type", &format!("{longest}t")),
                (":message-type", "event"),
            ],
            b"3",
        ),
    ]
    .concat();
    let expected = vec![
        whole(Kind::Event, &longest, "1"),
        whole(Kind::Event, "", "2"),
        whole(Kind::Event, "", "3"),
    ];
    for size in [1, 1_000, stream.len()] {
        assert_eq!(run(stream.chunks(size)), (expected.clone(), false, false));
    }
}

#[test]
fn a_frame_whose_lengths_lie_is_refused() {
    for total in [0, 1, 15] {
        breaks(&sealed(total, 0, b""));
    }
    breaks(&sealed(16, 1, b""));
    breaks(&sealed(30, 15, b"\x04long\x05\0\0\0\0\0\0\0\0"));
    breaks(&sealed(u32::MAX as usize, 0, b""));
    breaks(&sealed(u32::MAX as usize, u32::MAX as usize, b""));
    breaks(&sealed(16 + 25_165_824 + 1, 0, b""));
    breaks(&sealed(16 + 131_072 + 1, 131_072 + 1, b""));
}

#[test]
fn headers_that_lie_are_refused() {
    let headers = |bytes: &[u8]| sealed(OVERHEAD + bytes.len(), bytes.len(), bytes);
    // An unknown type, an empty name, and a name, value, number or length that is longer than the headers.
    breaks(&headers(b"\x01a\x0a"));
    breaks(&headers(b"\x01a\xff"));
    breaks(&headers(b"\0\0"));
    breaks(&headers(b"\x02a"));
    breaks(&headers(b"\x01a"));
    breaks(&headers(b"\x01a\x02"));
    breaks(&headers(b"\x01a\x03\0"));
    breaks(&headers(b"\x01a\x04\0\0\0"));
    breaks(&headers(b"\x01a\x05\0\0\0\0\0\0\0"));
    breaks(&headers(b"\x01a\x08\0\0\0\0\0\0\0"));
    breaks(&headers(b"\x01a\x09\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"));
    breaks(&headers(b"\x01a\x07\0"));
    breaks(&headers(b"\x01a\x06\0\x02a"));
    breaks(&headers(b"\x01a\x07\xff\xffa"));
}

#[test]
fn a_header_that_matters_stands_once() {
    for name in [":message-type", ":event-type", ":exception-type"] {
        breaks(&frame(&[(name, "event"), (name, "event")], b""));
    }
    // A header's value counts only if its type is text.
    let bytes = b"\x0b:event-type\x06\0\x01x\x0b:event-type\x04\0\0\0\0\x0b:event-type\0\x0d:message-type\x07\0\x05event";
    let stream = sealed(OVERHEAD + bytes.len(), bytes.len(), bytes);
    reads(&stream, &[whole(Kind::Event, "", "")]);
}

#[test]
fn a_stream_that_is_cut_off_is_not_broken_and_has_no_end() {
    for length in 0..INITIAL.len() {
        let (whole, open, broken) = run([&INITIAL[..length]]);
        assert_eq!((whole, broken), (vec![], false));
        assert_eq!(open, length >= PRELUDE + 79);
    }
}

// Memory is bounded whatever the length of an event, and the next one is found.
#[test]
fn a_large_payload_is_handed_on_and_not_kept() {
    let data = vec![b'x'; 1_000_000];
    let stream = [frame(&[], &data), INITIAL.to_vec()].concat();
    let (mut frames, mut payload, mut ends) = (Frames::default(), 0, 0);
    for chunk in stream.chunks(65_536) {
        frames.feed(chunk, &mut |part| match part {
            FramePart::Begin { .. } => {}
            FramePart::Payload(bytes) => payload += bytes.len(),
            FramePart::End => ends += 1,
        });
        assert!(frames.field.capacity() <= MAX_FIELD);
    }
    assert_eq!((payload, ends), (1_000_031, 2));
    // The longest headers and payload that the specification allows.
    let limit = sealed(16 + 131_072 + 25_165_824, 131_072, b"\x01a\x06\xff\xff");
    assert_eq!(run([&limit[..]]), (vec![], false, false));
}
