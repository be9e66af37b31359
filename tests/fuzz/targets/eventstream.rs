//! [`bursar::body::eventstream`] and [`bursar::body::base64`]: the frames that the specification sees in a stream, in any chunking.

use bursar::body::eventstream::{FramePart, Frames, Kind};

use super::input::Input;
use crate::frames;

/// A frame: what it is, its name, its payload.
type Frame = (Kind, Vec<u8>, Vec<u8>);

/// Frames that came to their end, one that did not, and whether the stream is broken.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    whole: Vec<Frame>,
    open: Option<Frame>,
    is_broken: bool,
}

pub fn run(data: &[u8]) {
    let Some(input) = Input::read(data) else {
        return;
    };
    base64(input.bytes);
    // The checks are right by chance as good as never: they are put in place.
    let stream = if input.flag(0) {
        input.bytes.to_vec()
    } else {
        sealed(input.bytes)
    };
    let expected = reference(&stream);
    let mut chunkings = input.chunkings(&stream);
    chunkings.push(vec![&stream]);
    for chunks in chunkings {
        let outcome = read(&chunks);
        let payload = |frame: &Frame| frame.2.len();
        let payloads: usize = outcome.whole.iter().chain(&outcome.open).map(payload).sum();
        assert!(payloads <= stream.len());
        assert_eq!(outcome, expected);
    }
}

/// Frames made of the bytes: each begins with the length of its data, that of its headers, and how much of both is a lie.
fn sealed(mut bytes: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    while let Some((&[length, headers, lie, damage], rest)) = bytes.split_first_chunk::<4>() {
        let (data, rest) = rest.split_at(rest.len().min(length.into()));
        let total = (data.len() + 16).saturating_add_signed(isize::from(lie as i8) / 32);
        let mut frame = frames::sealed(total, headers.into(), data);
        if damage >= 0xf0 {
            let at = usize::from(damage & 0xf) % frame.len();
            frame[at] ^= 1;
        }
        stream.extend(frame);
        bytes = rest;
    }
    stream.extend(bytes);
    stream
}

fn read(chunks: &[&[u8]]) -> Outcome {
    let (mut frames, mut outcome) = (Frames::default(), Outcome::default());
    for chunk in chunks {
        frames.feed(chunk, &mut |part| match part {
            FramePart::Begin { kind, name } => {
                assert_eq!(outcome.open, None);
                outcome.open = Some((kind, name.to_vec(), Vec::new()));
            }
            FramePart::Payload(bytes) => {
                assert!(!bytes.is_empty());
                outcome.open.as_mut().unwrap().2.extend(bytes);
            }
            FramePart::End => outcome.whole.push(outcome.open.take().unwrap()),
        });
    }
    outcome.is_broken = frames.is_broken();
    outcome
}

/// Why a frame cannot be read on.
enum Stop {
    /// The rest has not come.
    More,
    /// It is not what the specification says.
    Lie,
}

/// The same, from the stream as a whole.
fn reference(stream: &[u8]) -> Outcome {
    let (mut outcome, mut rest) = (Outcome::default(), stream);
    loop {
        let frame = rest;
        match frame_of(&mut rest, &mut outcome.open).and_then(|()| check(frame, &mut rest)) {
            Ok(()) => outcome.whole.extend(outcome.open.take()),
            Err(Stop::More) => return outcome,
            Err(Stop::Lie) => {
                outcome.is_broken = true;
                return outcome;
            }
        }
    }
}

/// Up to the end of the payload.
fn frame_of(rest: &mut &[u8], open: &mut Option<Frame>) -> Result<(), Stop> {
    let prelude = take(rest, 12)?;
    let number = |at: usize| {
        u32::from_be_bytes([
            prelude[at],
            prelude[at + 1],
            prelude[at + 2],
            prelude[at + 3],
        ]) as usize
    };
    let (total, headers) = (number(0), number(4));
    if frames::sealed(total, headers, b"")[..12] != *prelude {
        return Err(Stop::Lie);
    }
    let payload = total.checked_sub(headers + 16).ok_or(Stop::Lie)?;
    if headers > 128 * 1024 || payload > 24 * 1024 * 1024 {
        return Err(Stop::Lie);
    }
    *open = Some(head(rest, headers)?);
    let came = payload.min(rest.len());
    let bytes = take(rest, came)?;
    open.as_mut().unwrap().2.extend(bytes);
    if came < payload {
        Err(Stop::More)
    } else {
        Ok(())
    }
}

fn head(rest: &mut &[u8], mut left: usize) -> Result<Frame, Stop> {
    let mut known: [(&[u8], Option<Vec<u8>>); 3] = [
        (b":message-type", None),
        (b":event-type", None),
        (b":exception-type", None),
    ];
    while left > 0 {
        let mut of_headers = |length: usize| {
            left = left.checked_sub(length).ok_or(Stop::Lie)?;
            take(rest, length)
        };
        let length = of_headers(1)?[0];
        if length == 0 {
            return Err(Stop::Lie);
        }
        let name = of_headers(length.into())?;
        let kind = of_headers(1)?[0];
        let length = match kind {
            0 | 1 => 0,
            2 => 1,
            3 => 2,
            4 => 4,
            5 | 8 => 8,
            6 | 7 => {
                let length = of_headers(2)?;
                usize::from(u16::from_be_bytes([length[0], length[1]]))
            }
            9 => 16,
            _ => return Err(Stop::Lie),
        };
        let value = of_headers(length)?;
        let place = known.iter_mut().find(|(known, _)| *known == name);
        if let Some((_, place)) = place.filter(|_| kind == 7 && length <= 64)
            && place.replace(value.to_vec()).is_some()
        {
            return Err(Stop::Lie);
        }
    }
    let [(_, message), (_, event), (_, exception)] = known;
    let (kind, name) = match message.as_deref() {
        Some(b"event") => (Kind::Event, event),
        Some(b"exception") => (Kind::Exception, exception),
        Some(b"error") => (Kind::Error, None),
        _ => (Kind::Unknown, None),
    };
    Ok((kind, name.unwrap_or_default(), Vec::new()))
}

/// The check at the end of a frame, which began there.
fn check(frame: &[u8], rest: &mut &[u8]) -> Result<(), Stop> {
    let length = frame.len() - rest.len();
    let check = take(rest, 4)?;
    let headers = u32::from_be_bytes([frame[4], frame[5], frame[6], frame[7]]) as usize;
    let whole = frames::sealed(length + 4, headers, &frame[12..length]);
    if whole.ends_with(check) {
        Ok(())
    } else {
        Err(Stop::Lie)
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Stop> {
    let (head, tail) = rest.split_at_checked(length).ok_or(Stop::More)?;
    *rest = tail;
    Ok(head)
}

/// Any bytes come back, and a text is read if it is one, but for the bits that belong to no byte.
fn base64(bytes: &[u8]) {
    assert_eq!(
        bursar::body::base64::decode(frames::base64(bytes).as_bytes()).as_deref(),
        Some(bytes)
    );
    let without = |padding: &[u8]| bytes.strip_suffix(padding);
    let digits = without(b"==").or_else(|| without(b"=")).unwrap_or(bytes);
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
    let is_text = bytes.len().is_multiple_of(4) && digits.iter().all(is_digit);
    let decoded = bursar::body::base64::decode(bytes);
    assert_eq!(decoded.is_some(), is_text);
    if let Some(decoded) = decoded {
        let again = frames::base64(&decoded);
        assert_eq!(again.len(), bytes.len());
        let same = digits.len().saturating_sub(1);
        assert_eq!(again.as_bytes()[..same], bytes[..same]);
    }
}
