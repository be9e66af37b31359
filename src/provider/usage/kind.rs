//! The format of an answer's body. The body's first byte decides, and the headers only where that byte is ambiguous: servers and proxies
//! declare types and encodings that the body does not have.

use crate::http::Headers;

/// The format of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One JSON object.
    Json,
    /// A JSON array of events.
    Array,
    /// Server-sent events.
    Events,
    /// An AWS event stream.
    Frames,
    /// A web page or plain text: not a model's answer.
    Page,
    /// A body that cannot be read.
    Opaque,
}

/// What the headers declare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Declared {
    pub(super) kind: Kind,
    /// Whether the body is compressed, so it cannot be read.
    pub(super) is_encoded: bool,
    pub(super) has_length: bool,
    /// Whether the body is a part of the requested answer (RFC 9110, 15.3.7).
    pub(super) is_part: bool,
}

/// Content codings that change the bytes (<https://www.iana.org/assignments/http-parameters>, read 2026-11-29), and unregistered ones that
/// are in use. `identity`, `none`, `utf-8` and the like leave the bytes as they are.
const CODINGS: [&[u8]; 13] = [
    b"gzip",
    b"x-gzip",
    b"br",
    b"deflate",
    b"zstd",
    b"compress",
    b"x-compress",
    b"dcb",
    b"dcz",
    b"exi",
    b"pack200-gzip",
    b"snappy",
    b"lz4",
];

impl Declared {
    pub(super) fn of(response: &Headers) -> Self {
        let [content_type, status] = response.only_of(["content-type", ":status"]);
        let content_type = content_type.unwrap_or_default();
        let is = |prefix: &[u8]| {
            let head = content_type.trim_ascii_start().get(..prefix.len());
            head.is_some_and(|head| head.eq_ignore_ascii_case(prefix))
        };
        let kind = if is(b"text/event-stream") {
            Kind::Events
        } else if is(b"application/vnd.amazon.eventstream") {
            Kind::Frames
        } else if is(b"text/html") || is(b"text/plain") || is(b"text/xml") || is(b"application/xml")
        {
            Kind::Page
        } else {
            Kind::Opaque
        };
        let mut encodings = response
            .iter()
            .filter(|(name, _)| name == b"content-encoding")
            .flat_map(|(_, value)| value.split(|&byte| byte == b','));
        let is_coding = |name: &[u8]| {
            let name = name.trim_ascii();
            CODINGS
                .iter()
                .any(|coding| name.eq_ignore_ascii_case(coding))
        };
        Self {
            kind,
            is_encoded: encodings.any(is_coding),
            has_length: response.has("content-length"),
            is_part: status == Some(b"206"),
        }
    }

    /// The format of a body whose first byte, after white space and a byte order mark, is this one.
    pub(super) fn kind_of(self, first: u8) -> Kind {
        match (first, self.kind) {
            _ if self.is_encoded => Kind::Opaque,
            (b'{', _) => Kind::Json,
            (b'[', _) => Kind::Array,
            // A frame begins with its length, which is below 2^24, so that its first byte is 0.
            (0, _) | (_, Kind::Frames) => Kind::Frames,
            // A comment, or `data`, `event`, `id`, `retry`.
            (b':' | b'd' | b'e' | b'i' | b'r', _) | (_, Kind::Events) => Kind::Events,
            (b'<', _) => Kind::Page,
            (_, declared) => declared,
        }
    }
}

/// How many of these bytes precede the body's first byte. `seen`: bytes of a byte order mark in earlier chunks.
pub(super) fn blank(bytes: &[u8], seen: &mut usize) -> usize {
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    let is_blank = |byte: &u8| {
        if BYTE_ORDER_MARK.get(*seen) == Some(byte) {
            *seen = seen.saturating_add(1);
            return true;
        }
        byte.is_ascii_whitespace()
    };
    let first = bytes.iter().position({
        let mut is_blank = is_blank;
        move |byte| !is_blank(byte)
    });
    first.unwrap_or(bytes.len())
}
