//! Frames of AWS event streams, and base64.

use bursar::body::eventstream::{FramePart, Frames, Kind};
use proptest::prelude::*;

use crate::{chunks, frames};

/// A frame of an AWS event stream: its headers, which are texts, and its payload.
type AwsFrame = (Vec<(String, String)>, Vec<u8>);

fn any_aws_frame() -> impl Strategy<Value = AwsFrame> {
    let kind = prop_oneof!["event|exception|error", "[a-z]{0,6}"];
    let name = "[a-zA-Z-]{0,70}";
    let other = prop::collection::vec(("[a-z]{1,90}", ".{0,90}"), 0..3);
    let headers =
        (prop::option::of(kind), prop::option::of(name), other).prop_map(|(kind, name, other)| {
            let kind = kind.map(|kind| (":message-type".to_owned(), kind));
            let name = name.map(|name| (":event-type".to_owned(), name));
            let mut headers: Vec<_> = name.into_iter().chain(other).chain(kind).collect();
            let first = usize::from(headers.len() > 2);
            headers.rotate_left(first);
            headers
        });
    (headers, prop::collection::vec(any::<u8>(), 0..200))
}

/// What is to be read of a frame: its kind, name and payload.
type Told = (Kind, Vec<u8>, Vec<u8>);

fn told((headers, payload): &AwsFrame) -> Told {
    let header = |name| headers.iter().find(|header| header.0 == name);
    let kind = match header(":message-type").map(|header| header.1.as_str()) {
        Some("event") => Kind::Event,
        Some("exception") => Kind::Exception,
        Some("error") => Kind::Error,
        _ => Kind::Unknown,
    };
    let name = header(":event-type").filter(|header| kind == Kind::Event && header.1.len() <= 64);
    let name = name.map(|header| header.1.clone()).unwrap_or_default();
    (kind, name.into_bytes(), payload.clone())
}

fn aws_stream(frames: &[AwsFrame]) -> Vec<Vec<u8>> {
    let encode = |(headers, payload): &AwsFrame| {
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        frames::frame(&headers, payload)
    };
    frames.iter().map(encode).collect()
}

/// The frames that came to their end, and whether the stream is broken.
fn read_aws(stream: &[u8], cuts: &[usize]) -> (Vec<Told>, bool) {
    let (mut frames, mut whole, mut open) = (Frames::default(), Vec::new(), None);
    for chunk in chunks(stream, cuts) {
        frames.feed(chunk, &mut |part| match part {
            FramePart::Begin { kind, name } => open = Some((kind, name.to_vec(), Vec::new())),
            FramePart::Payload(bytes) => open.as_mut().unwrap().2.extend(bytes),
            FramePart::End => whole.push(open.take().unwrap()),
        });
    }
    (whole, frames.is_broken())
}

proptest! {
    #[test]
    fn aws_frames_are_read_in_any_chunking_and_whatever_follows_them(
        frames in prop::collection::vec(any_aws_frame(), 0..5), noise in prop::collection::vec(any::<u8>(), 0..40),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let expected: Vec<_> = frames.iter().map(told).collect();
        let stream = aws_stream(&frames).concat();
        prop_assert_eq!(read_aws(&stream, &cuts), (expected.clone(), false));
        let noisy = [stream, noise.clone()].concat();
        prop_assert_eq!(read_aws(&noisy, &cuts), (expected, noise.len() >= 12));
    }

    #[test]
    fn of_damaged_aws_frames_only_those_before_the_damage_end(
        frames in prop::collection::vec(any_aws_frame(), 1..5), at in any::<prop::sample::Index>(),
        damage in prop::array::uniform4(any::<u8>()), cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let frames_read: Vec<_> = frames.iter().map(told).collect();
        let encoded = aws_stream(&frames);
        let mut stream = encoded.concat();
        // A CRC-32 misses so short a burst of wrong bits no more than once in 2^32.
        let at = at.index(stream.len());
        stream.iter_mut().skip(at).zip(damage).for_each(|(byte, damage)| *byte ^= damage);
        prop_assume!(stream != encoded.concat());
        let first = stream.iter().zip(encoded.concat()).position(|(new, old)| *new != old).unwrap();
        let mut end = 0;
        let before = encoded.iter().take_while(|frame| {
            end += frame.len();
            end <= first
        });
        let (read, broken) = read_aws(&stream, &cuts);
        prop_assert_eq!(read.as_slice(), &frames_read[..before.count()]);
        prop_assert!(broken);
    }

    #[test]
    fn any_bytes_come_back_from_base64_and_nothing_else_is_taken(
        bytes in prop::collection::vec(any::<u8>(), 0..80), at in any::<prop::sample::Index>(), wrong in any::<u8>(),
    ) {
        let mut text = frames::base64(&bytes).into_bytes();
        prop_assert_eq!(bursar::body::base64::decode(&text), Some(bytes));
        if !text.is_empty() && !wrong.is_ascii_alphanumeric() && !b"+/=".contains(&wrong) {
            let at = at.index(text.len());
            text[at] = wrong;
            prop_assert_eq!(bursar::body::base64::decode(&text), None);
        }
    }
}
