//! A request's path as any upstream might interpret it, and the model in it.
//!
//! A tenant must not evade metering by another spelling of a path. So the path is normalised: no query, escapes decoded, no path parameters
//! (`;x`), no empty or dot segments, backslashes as slashes, no blanks at the end (routes of Starlette, and so of FastAPI, accept a final
//! line feed), letter case ignored. If the upstream does not know the spelling after all, it answers 404, and the reservation is released.

use std::borrow::Cow;

/// One segment of a path, and its position there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    /// The normalised segment: escapes decoded, without parameters and final blanks.
    pub(super) text: Cow<'a, [u8]>,
    /// The segment's raw bytes, without parameters.
    raw: &'a [u8],
    /// Offset of the raw segment.
    start: usize,
}

impl Segment<'_> {
    /// Whether the segment equals `name`, which is lower-case. Not inlined, since about twenty places call it.
    #[inline(never)]
    pub(super) fn is(&self, name: &str) -> bool {
        let lower = self.text.iter().map(u8::to_ascii_lowercase);
        self.text.len() == name.len() && lower.eq(name.bytes())
    }

    /// Splits the segment at its last colon, as in Google's paths: `gemini-2.5-pro:generateContent`.
    pub(super) fn verb(&self) -> Option<(&[u8], &[u8])> {
        let colon = self.text.iter().rposition(|&byte| byte == b':')?;
        let (name, verb) = self.text.split_at_checked(colon)?;
        Some((name, verb.get(1..)?))
    }

    /// The position in the raw path after the first `bytes` of the text.
    fn end_of(&self, bytes: usize) -> usize {
        let ends = Bytes(self.raw).map(|(_, length)| length).take(bytes);
        ends.fold(self.start, usize::saturating_add)
    }
}

/// A model that the path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathModel {
    /// The name, with escapes decoded.
    pub name: String,
    /// The raw path.
    path: Vec<u8>,
    start: usize,
    end: usize,
    /// Whether the model is unique (a tuned model, an endpoint), so no other model's name can replace it.
    pub is_own: bool,
}

impl PathModel {
    /// The model that these segments (at least one) name, joined by slashes.
    pub(super) fn new(path: &[u8], segments: &[Segment<'_>]) -> Option<Self> {
        let texts: Vec<&[u8]> = segments
            .iter()
            .map(|segment| segment.text.as_ref())
            .collect();
        Some(Self {
            name: String::from_utf8_lossy(&texts.join(&b'/')).into_owned(),
            path: path.to_vec(),
            start: segments.first()?.start,
            end: segments.last()?.end_of(usize::MAX),
            is_own: false,
        })
    }

    /// The model before the colon of this segment.
    pub(super) fn before_verb(path: &[u8], segment: &Segment<'_>) -> Option<Self> {
        let (name, _) = segment.verb()?;
        Some(Self {
            name: String::from_utf8_lossy(name).into_owned(),
            path: path.to_vec(),
            start: segment.start,
            end: segment.end_of(name.len()),
            is_own: false,
        })
    }

    /// The path with another model's name, escaped except for unreserved characters (RFC 3986, 2.3). Everything else is unchanged,
    /// except that bytes that are not UTF-8 are escaped.
    #[must_use]
    pub fn path_for(&self, model: &str) -> String {
        let mut path = text(self.path.get(..self.start).unwrap_or_default());
        for byte in model.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~@".contains(&byte) {
                path.push(byte.into());
            } else {
                path += &escaped(byte);
            }
        }
        path + &text(self.path.get(self.end..).unwrap_or_default())
    }
}

fn text(part: &[u8]) -> String {
    part.utf8_chunks().fold(String::new(), |text, chunk| {
        let rest = chunk.invalid().iter().copied().map(escaped);
        text + chunk.valid() + &rest.collect::<String>()
    })
}

fn escaped(byte: u8) -> String {
    format!("%{byte:02X}")
}

/// A normalised path, without its query.
#[must_use]
pub fn plain(path: &[u8]) -> String {
    let mut plain = String::new();
    for segment in segments(path) {
        plain.push('/');
        plain.push_str(&String::from_utf8_lossy(&segment.text));
    }
    plain
}

/// A text with its escapes decoded.
pub(super) fn unescaped(text: &[u8]) -> Vec<u8> {
    Bytes(text).map(|(byte, _)| byte).collect()
}

/// The segments of a path.
pub(super) fn segments(path: &[u8]) -> Vec<Segment<'_>> {
    let end = path.iter().position(|byte| matches!(byte, b'?' | b'#'));
    let path = path.get(..end.unwrap_or(path.len())).unwrap_or_default();
    let mut segments = Vec::with_capacity(4);
    // Start of the segment, and of its parameters.
    let (mut start, mut parameters) = (0, None);
    let mut at = 0_usize;
    for (byte, length) in Bytes(path) {
        let after = at.saturating_add(length);
        match byte {
            b'/' | b'\\' => {
                add(&mut segments, path, start, parameters.unwrap_or(at));
                (start, parameters) = (after, None);
            }
            b';' => parameters = parameters.or(Some(at)),
            _ => {}
        }
        at = after;
    }
    add(&mut segments, path, start, parameters.unwrap_or(at));
    trim(&mut segments);
    segments
}

/// Appends a segment.
fn add<'a>(segments: &mut Vec<Segment<'a>>, path: &'a [u8], start: usize, end: usize) {
    let raw = path.get(start..end).unwrap_or_default();
    let text = match raw.contains(&b'%') {
        true => Cow::Owned(Bytes(raw).map(|(byte, _)| byte).collect()),
        false => Cow::Borrowed(raw),
    };
    match text.as_ref() {
        b"" | b"." => {}
        b".." => {
            segments.pop();
        }
        _ => segments.push(Segment { text, raw, start }),
    }
}

/// Removes blanks at the end.
fn trim(segments: &mut Vec<Segment<'_>>) {
    let is_blank = |byte: &u8| *byte <= b' ' || *byte == 0x7f;
    while let Some(last) = segments.last_mut() {
        let end = last.text.iter().rposition(|byte| !is_blank(byte));
        match (end, &mut last.text) {
            (None, _) => {
                segments.pop();
                continue;
            }
            (Some(end), Cow::Borrowed(text)) => *text = text.get(..=end).unwrap_or(text),
            (Some(end), Cow::Owned(text)) => text.truncate(end.saturating_add(1)),
        }
        break;
    }
}

/// The bytes of a path with escapes decoded, each with the length of its raw form.
struct Bytes<'a>(&'a [u8]);

impl Iterator for Bytes<'_> {
    type Item = (u8, usize);

    fn next(&mut self) -> Option<Self::Item> {
        let (&byte, tail) = self.0.split_first()?;
        self.0 = tail;
        if byte == b'%'
            && let [high, low, rest @ ..] = tail
            && let Some((high, low)) = hex(*high).zip(hex(*low))
        {
            self.0 = rest;
            return Some((high << 4 | low, 3));
        }
        Some((byte, 1))
    }
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_model_is_exchanged_and_nothing_else_of_the_path() {
        let path = b"/a/../model/arn%3Aaws%2Fx.y;p/converse?q=%2F";
        let segments = segments(path);
        let texts: Vec<_> = segments
            .iter()
            .map(|segment| String::from_utf8_lossy(&segment.text))
            .collect();
        assert_eq!(texts, ["model", "arn:aws", "x.y", "converse"]);
        let model = PathModel::new(path, &segments[1..3]).unwrap();
        assert_eq!(model.name, "arn:aws/x.y");
        assert_eq!(
            model.path_for("b:c/d e"),
            "/a/../model/b%3Ac%2Fd%20e;p/converse?q=%2F"
        );
    }

    #[test]
    fn no_byte_of_the_path_is_lost() {
        let path = "/model/a/converse?q=\u{e9}".as_bytes();
        let path = [path, b"\xff\xe9"].concat();
        let model = PathModel::new(&path, &segments(&path)[1..2]).unwrap();
        assert_eq!(model.path_for("b"), "/model/b/converse?q=\u{e9}%FF%E9");
    }

    #[test]
    fn a_verb_stays_where_it_is() {
        let path = b"/v1/models/gemini%2D2%3agenerateContent?alt=sse";
        let segments = segments(path);
        let model = PathModel::before_verb(path, segments.last().unwrap()).unwrap();
        assert_eq!(model.name, "gemini-2");
        assert_eq!(
            model.path_for("lite"),
            "/v1/models/lite%3agenerateContent?alt=sse"
        );
    }
}
