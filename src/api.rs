//! The providers' APIs: which requests they own, what those ask for, and how their answers read.
//!
//! One file below for each provider's wire format; this one finds the right one by method and path.

pub mod openai;

use crate::json::{Key, Malformed, Scanner};
use crate::rewrite::Edit;
use crate::units::Tokens;
use crate::usage::{EventFacts, Usage};

/// An endpoint whose requests are metered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// OpenAI chat completions, and every server that speaks it.
    OpenAiChat,
}

/// What a request's body asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The model's name, unescaped.
    pub model: String,
    /// Where it stands in the body, quotes included.
    pub model_span: (u64, u64),
    /// Output tokens at the most, over all choices.
    pub output_limit: Option<Tokens>,
    /// Answers asked for.
    pub choices: u64,
    /// The answer is to be streamed.
    pub stream: bool,
    /// The client wants to be told the usage of a stream.
    pub asks_usage: bool,
}

impl Api {
    /// The API of a request; `None` for everything that is not metered.
    #[must_use]
    pub fn of(method: &[u8], path: &[u8]) -> Option<Self> {
        if !method.eq_ignore_ascii_case(b"POST") {
            return None;
        }
        match plain_path(path).as_slice() {
            [.., chat, completions] if chat == b"chat" && completions == b"completions" => {
                Some(Self::OpenAiChat)
            }
            _ => None,
        }
    }

    /// The keys of a request's body that matter.
    #[must_use]
    pub fn request_keys(self) -> &'static [Key] {
        match self {
            Self::OpenAiChat => openai::REQUEST_KEYS,
        }
    }

    /// What the body asks for, as far as it was read; `Ok(None)` while `model` was not.
    ///
    /// # Errors
    /// [`Fault`] if a value that matters is not what it should be.
    pub fn facts(self, scanner: &Scanner) -> Result<Option<Facts>, Fault> {
        match self {
            Self::OpenAiChat => openai::facts(scanner),
        }
    }

    /// The edits that make a stream report its usage, if it would not by itself. Ask once the body is complete, or for
    /// each chunk before it goes on.
    #[must_use]
    pub fn ask_usage(self, scanner: &Scanner) -> Option<Edit> {
        match self {
            Self::OpenAiChat => openai::ask_usage(scanner),
        }
    }

    /// The keys of a response's body that matter.
    #[must_use]
    pub fn response_keys(self) -> &'static [Key] {
        match self {
            Self::OpenAiChat => openai::RESPONSE_KEYS,
        }
    }

    /// The usage in a response that is one JSON object, as far as it was read.
    #[must_use]
    pub fn usage_of_body(self, scanner: &Scanner) -> Option<Usage> {
        match self {
            Self::OpenAiChat => openai::usage_of_body(scanner),
        }
    }

    /// What an event of a stream says.
    #[must_use]
    pub fn event(self, data: &[u8]) -> EventFacts {
        match self {
            Self::OpenAiChat => openai::event(data),
        }
    }

    /// An error body that the API's SDKs understand.
    #[must_use]
    pub fn error_body(self, status: u16, code: &str, message: &str) -> String {
        match self {
            Self::OpenAiChat => openai::error_body(status, code, message),
        }
    }
}

/// Why a body is not what its path promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not the JSON object that it should be.
    Body(Malformed),
    /// There is no `model`.
    NoModel,
    /// `model` is not a text, or longer than any model's name.
    ModelNotText,
    /// `max_tokens`, `max_completion_tokens` or `n` is no whole number of at least 1.
    NotACount,
    /// `stream` is neither true nor false.
    StreamNotBool,
    /// `stream_options` is no object, or longer than any that makes sense.
    OptionsNotObject,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Body(Malformed::NotAnObject) => "the body must be a JSON object",
            Self::Body(Malformed::Syntax) => "the body is not valid JSON",
            Self::Body(Malformed::AmbiguousKey) => {
                "a key of the body stands twice or in other letter case, so that it could be read in two ways"
            }
            Self::Body(Malformed::Truncated) => "the body ends before its JSON object does",
            Self::NotACount => {
                "`max_tokens`, `max_completion_tokens` and `n` must be whole numbers of at least 1"
            }
            Self::StreamNotBool => "`stream` must be true or false",
            Self::OptionsNotObject => "`stream_options` must be an object of at most 1024 bytes",
            Self::NoModel => "the body must name a `model`",
            Self::ModelNotText => "`model` must be a text of at most 256 bytes",
        })
    }
}

/// The segments of the path as some upstream might see them: no query, escapes undone, no path parameters (`;x`), no empty or
/// dot segments, backslashes taken for slashes, nothing blank at the end (a route of Starlette's, and so of FastAPI's, takes
/// a last line feed), lower case.
///
/// A tenant must not slip past the meter by spelling a path in another way. One that the upstream does not know after all
/// answers 404, and the reservation is returned.
fn plain_path(path: &[u8]) -> Vec<Vec<u8>> {
    let end = path
        .iter()
        .position(|byte| matches!(byte, b'?' | b'#'))
        .unwrap_or(path.len());
    let mut path = unescaped(path.get(..end).unwrap_or_default());
    path.make_ascii_lowercase();
    let mut segments: Vec<Vec<u8>> = Vec::new();
    for segment in path.split(|byte| matches!(byte, b'/' | b'\\')) {
        match segment
            .split(|byte| *byte == b';')
            .next()
            .unwrap_or_default()
        {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            segment => segments.push(segment.to_vec()),
        }
    }
    let is_blank = |byte: &u8| *byte <= b' ' || *byte == 0x7f;
    while let Some(last) = segments.last_mut() {
        while last.last().is_some_and(is_blank) {
            last.pop();
        }
        if !last.is_empty() {
            break;
        }
        segments.pop();
    }
    segments
}

fn unescaped(mut rest: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(rest.len());
    while let Some((&byte, tail)) = rest.split_first() {
        let (byte, tail) = match (byte, tail) {
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => (byte, tail),
            },
            _ => (byte, tail),
        };
        plain.push(byte);
        rest = tail;
    }
    plain
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

    // cases.md 28
    #[test]
    fn only_posts_to_known_endpoints_are_metered() {
        for path in [
            "/v1/models",
            "/healthz",
            "/",
            "",
            "/v1/chat/completions/abc",
            "/v1/xchat",
            "/chat/completionsx",
        ] {
            assert_eq!(Api::of(b"POST", path.as_bytes()), None, "{path}");
        }
        for method in ["GET", "HEAD", "OPTIONS", "CONNECT", ""] {
            assert_eq!(Api::of(method.as_bytes(), b"/v1/chat/completions"), None);
        }
    }

    #[test]
    fn another_spelling_of_a_path_is_metered_too() {
        for path in [
            "/v1/chat/completions",
            "/openai/v1/chat/completions?x=/y",
            "/v1/chat/completions/",
            "/v1//chat///completions",
            "/v1/chat/%63ompletions",
            "/v1/chat%2Fcompletions",
            "/v1/Chat/Completions",
            "/v1/chat/completions%0a",
            "/v1/chat/completions%0D%0a/%20/",
            "/v1/chat/completions;x=1",
            "/v1;x/chat;y=%2f/completions;/",
            "/v1/chat/./x/%2e%2e/completions/.",
            "/v1\\chat%5ccompletions",
        ] {
            assert_eq!(
                Api::of(b"POST", path.as_bytes()),
                Some(Api::OpenAiChat),
                "{path}"
            );
        }
        // An upstream that is careless about letter case must not be a way around the meter.
        assert_eq!(
            Api::of(b"Post", b"/v1/chat/completions"),
            Some(Api::OpenAiChat)
        );
    }
}
