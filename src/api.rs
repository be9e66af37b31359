//! The providers' APIs: which requests they own, what those ask for, and how their answers read.
//!
//! One file below for each provider's wire format, all behind [`Wire`]; this one finds the right one by method and path.

mod anthropic;
mod bedrock;
mod gemini;
mod openai;
mod path;
mod read;
mod responses;

pub use path::PathModel;
pub use read::{body_model, limit_output};

use crate::json::{Malformed, Scanner, Shape};
use crate::messages::Dialect;
use crate::rewrite::Edit;
use crate::tenant::Headers;
use crate::text::Text;
use crate::tier::Needs;
use crate::units::Tokens;
use crate::usage::{EventFacts, Usage};
use path::{Segment, segments};

/// A provider's wire format.
pub trait Wire: std::fmt::Debug + Sync {
    /// What matters in a request's body. Where the body names the model, that is the first key.
    fn request(&self) -> Shape;

    /// Whether the first key of a request's body is the model's name.
    fn names_model(&self) -> bool {
        true
    }

    /// Whether a body without a model is one all the same.
    fn may_omit_model(&self, _body: &Scanner) -> bool {
        false
    }

    /// What the body asks for, as far as it was read.
    ///
    /// # Errors
    /// [`Fault`] if a value that matters is not what it should be.
    fn facts(&self, body: &Scanner) -> Result<Facts, Fault>;

    /// All that some request may need.
    fn possible_needs(&self) -> Needs {
        Needs::ALL
    }

    /// Where a request's body limits its output.
    fn output_limits(&self) -> OutputLimits;

    /// How a request's body writes a conversation, if that can be shortened.
    fn dialect(&self) -> Option<Dialect> {
        None
    }

    /// The edit that makes a stream report its usage, if it would not by itself. Ask once the body is complete, or for
    /// each chunk before it goes on.
    fn ask_usage(&self, _body: &Scanner) -> Option<Edit> {
        None
    }

    /// By how much that edit makes a body longer at the most, in bytes.
    fn most_added_to_ask(&self) -> u64 {
        0
    }

    /// What matters in a response that is one JSON object.
    fn response(&self) -> Shape;

    /// The usage in a response that is one JSON object, as far as it was read.
    fn usage(&self, body: &Scanner) -> Option<Usage>;

    /// The usage in a response's headers.
    fn usage_of_headers(&self, _response: &Headers) -> Option<Usage> {
        None
    }

    /// What matters in an event of a stream.
    fn events(&self) -> Shape {
        self.response()
    }

    /// What an event of a stream says.
    fn event(&self, event: &Scanner) -> EventFacts;

    /// Whether [`Wire::event`] may say anything of the event with this text, which is to be told quickly.
    fn may_tell(&self, _event: &[u8]) -> bool {
        true
    }

    /// Whether a request for one model can be sent to another: where each has a body of its own, it cannot.
    fn can_exchange(&self, _model: &str, _other: &str) -> bool {
        true
    }

    /// An error that the API's SDKs understand.
    fn error(&self, error: &Problem<'_>) -> ErrorReply;
}

/// What a request's body asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Output tokens at the most, over all choices.
    pub output_limit: Option<Tokens>,
    /// Answers asked for; 0 counts as 1.
    pub choices: u64,
    /// The answer is to be streamed.
    pub stream: bool,
    /// A stream tells its usage only if it is asked to, and the client does not ask.
    pub hides_usage: bool,
    /// The answer is made without the client, who may fetch it with another request.
    pub is_deferred: bool,
    /// What a model must be able to do.
    pub needs: Needs,
    /// No limit of the output may be set below this.
    pub least_output: u64,
}

/// Where a request's body limits its output.
#[derive(Clone, Copy, Debug)]
pub struct OutputLimits {
    /// Keys of the request's shape, each of them a limit for one answer.
    pub keys: &'static [usize],
    /// The object in which they stand, as a key of the shape and its name; `None` for the top.
    pub object: Option<(usize, &'static str)>,
    /// A number may stand in a text.
    pub may_be_text: bool,
    /// The name under which one is added; `None` if none can be.
    pub name: Option<&'static str>,
    /// Another key, which may stand behind them, may forbid to lower them so far.
    pub have_floor: bool,
}

/// An error of ours.
#[derive(Clone, Copy, Debug)]
pub struct Problem<'a> {
    /// HTTP status.
    pub status: u16,
    /// What operators are promised.
    pub code: &'a str,
    /// For a human being.
    pub message: &'a str,
    /// How long to wait before another try, in milliseconds; `None` where that would not help.
    pub retry_after_ms: Option<u64>,
}

/// An error as an API tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorReply {
    /// JSON.
    pub body: String,
    /// Headers besides the usual ones.
    pub headers: Vec<(&'static str, Text)>,
}

/// A metered request, as far as its headers tell.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// How it is written.
    pub wire: &'static dyn Wire,
    /// The model, if the path names it.
    pub model: Option<PathModel>,
    /// The request carries a signature of its path and body, so that neither may be changed.
    pub is_signed: bool,
    /// A stream may be asked for its usage: some APIs refuse the question.
    pub takes_options: bool,
    /// Whether the answer is to be streamed, where the path says so and not the body.
    pub streams: Option<bool>,
}

impl Endpoint {
    /// The endpoint of a request; `None` for everything that is not metered.
    #[must_use]
    pub fn of(request: &Headers) -> Option<Self> {
        let [method, path, authorization] = request.only_of([":method", ":path", "authorization"]);
        if !method?.eq_ignore_ascii_case(b"POST") {
            return None;
        }
        let path = path.unwrap_or_default();
        let segments = segments(path);
        let amazon = amazon(path, &segments);
        // Elsewhere a signature means nothing, and would be a tenant's way to be left as it is.
        let is_signed = amazon.is_some() && is_signed(authorization.unwrap_or_default(), path);
        let google = google(path, &segments);
        let takes_options = google.is_none() && !is_older_azure(path, &segments);
        let by_path = amazon.or(google);
        let streams = by_path.as_ref().and_then(|_| streams(segments.last()?));
        let (wire, model) = by_path.or_else(|| by_last_names(path, &segments))?;
        Some(Self {
            streams,
            wire,
            model,
            is_signed,
            takes_options,
        })
    }
}

type Found = (&'static dyn Wire, Option<PathModel>);

/// Gemini and Vertex AI: `…/models/{model}:{verb}`
/// (<https://ai.google.dev/api/generate-content>, <https://cloud.google.com/vertex-ai/docs/reference/rest>).
fn google(path: &[u8], segments: &[Segment<'_>]) -> Option<Found> {
    let [rest @ .., collection, last] = segments else {
        return None;
    };
    if !["models", "tunedmodels", "endpoints", "dynamic"]
        .iter()
        .any(|name| collection.is(name))
    {
        return None;
    }
    let (name, verb) = last.verb()?;
    let publisher = match rest {
        [.., publishers, publisher] if publishers.is("publishers") => publisher.text.as_ref(),
        _ => b"google",
    };
    let wire: &'static dyn Wire = match verb.to_ascii_lowercase().as_slice() {
        b"generatecontent" | b"streamgeneratecontent" => &gemini::Gemini,
        // Not a model: Vertex AI counts the tokens of a prompt under this name, free of charge.
        b"rawpredict" | b"streamrawpredict" if name.eq_ignore_ascii_case(b"count-tokens") => {
            return None;
        }
        b"rawpredict" | b"streamrawpredict" => match publisher.eq_ignore_ascii_case(b"anthropic") {
            true => &anthropic::Messages,
            false => &openai::Chat,
        },
        _ => return None,
    };
    let mut model = PathModel::before_verb(path, last)?;
    model.is_own = !collection.is("models");
    Some((wire, Some(model)))
}

/// Amazon Bedrock: `/model/{model}/{operation}`
/// (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html>).
fn amazon(path: &[u8], segments: &[Segment<'_>]) -> Option<Found> {
    let (last, rest) = segments.split_last()?;
    let wire: &'static dyn Wire = if last.is("converse") || last.is("converse-stream") {
        &bedrock::Converse
    } else if last.is("invoke") || last.is("invoke-with-response-stream") {
        &bedrock::Invoke
    } else {
        return None;
    };
    let after = rest
        .iter()
        .position(|segment| segment.is("model"))?
        .saturating_add(1);
    // An unescaped ARN has slashes of its own.
    let model = PathModel::new(path, rest.get(after..)?)?;
    Some((wire, Some(model)))
}

/// Whether Google's verb or Amazon's operation asks for a stream; `None` where the body does.
fn streams(last: &Segment<'_>) -> Option<bool> {
    let (_, name) = last.verb().unwrap_or((b"", &last.text));
    let is = |names: [&str; 3]| {
        let mut names = names.iter();
        names.any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
    };
    let is_stream = is([
        "streamGenerateContent",
        "converse-stream",
        "invoke-with-response-stream",
    ]);
    (is_stream || is(["generateContent", "converse", "invoke"])).then_some(is_stream)
}

/// OpenAI and all who speak like it, and Anthropic.
fn by_last_names(path: &[u8], segments: &[Segment<'_>]) -> Option<Found> {
    let (wire, rest): (&'static dyn Wire, _) = match segments {
        [rest @ .., chat, last] if chat.is("chat") && last.is("completions") => {
            (&openai::Chat, rest)
        }
        [rest @ .., last] if last.is("completions") => (&openai::Completions, rest),
        [rest @ .., last] if last.is("embeddings") => (&openai::Embeddings, rest),
        [rest @ .., last] if last.is("responses") => {
            (&responses::Responses { compacts: false }, rest)
        }
        [rest @ .., responses, last] if responses.is("responses") && last.is("compact") => {
            (&responses::Responses { compacts: true }, rest)
        }
        // Not all that is called `messages`: a thread of OpenAI's Assistants has such, too.
        [.., version, last] if version.is("v1") && last.is("messages") => {
            return Some((&anthropic::Messages, None));
        }
        _ => return None,
    };
    // Azure's name for it, and the one that OpenAI had before, which LiteLLM still heeds before the body's.
    let is_model = |segment: &Segment<'_>| segment.is("deployments") || segment.is("engines");
    let after = rest.iter().position(is_model);
    let deployment = after.and_then(|after| rest.get(after.saturating_add(1)..));
    let deployment = deployment.and_then(|names| PathModel::new(path, names));
    Some((wire, deployment))
}

/// Whether it asks for a version of Azure OpenAI's API that is older than `stream_options`, which came with
/// 2024-09-01-preview (<https://github.com/Azure/azure-sdk-for-java/issues/40998>, read 2026-11-22). A version is a date.
fn is_older_azure(path: &[u8], segments: &[Segment<'_>]) -> bool {
    let mut versions = parameters(path).filter_map(|value| value.strip_prefix(b"api-version="));
    segments.iter().any(|segment| segment.is("deployments"))
        && versions.any(|version| version < b"2024-09".as_slice())
}

/// The parameters of a path's query.
fn parameters(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let query = path.splitn(2, |byte| *byte == b'?').nth(1);
    query.unwrap_or_default().split(|byte| *byte == b'&')
}

/// Whether AWS's Signature Version 4 covers the request, in its header or else in its query
/// (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>).
///
/// The signature is believed: a proxy that signs requests itself has to take a client's own from them before.
fn is_signed(authorization: &[u8], path: &[u8]) -> bool {
    match authorization.trim_ascii_start() {
        b"" => parameters(path).any(|parameter| parameter.starts_with(b"X-Amz-Signature=")),
        authorization => authorization.starts_with(b"AWS4-"),
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
    /// This value is no whole number of at least 1.
    NotACount(&'static str),
    /// This value is no whole number.
    NotALimit(&'static str),
    /// This value is neither true nor false.
    NotABool(&'static str),
    /// This value is no object.
    NotAnObject(&'static str),
    /// `stream_options` is no object, or longer than any that makes sense.
    OptionsNotObject,
    /// It is longer or shorter than the request's headers say.
    WrongLength,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Body(malformed) => f.write_str(told(*malformed)),
            Self::NotACount(name) => write!(f, "`{name}` must be a whole number of at least 1"),
            Self::NotALimit(name) => write!(f, "`{name}` must be a whole number"),
            Self::NotABool(name) => write!(f, "`{name}` must be true or false"),
            Self::NotAnObject(name) => write!(f, "`{name}` must be an object"),
            Self::OptionsNotObject => {
                f.write_str("`stream_options` must be an object of at most 1024 bytes")
            }
            Self::WrongLength => {
                f.write_str("the body is not as long as its `content-length` says")
            }
            Self::NoModel => f.write_str("the body must name a `model`"),
            Self::ModelNotText => f.write_str("`model` must be a text of at most 256 bytes"),
        }
    }
}

fn told(malformed: Malformed) -> &'static str {
    match malformed {
        Malformed::NotAnObject => "the body must be a JSON object",
        Malformed::Syntax => "the body is not valid JSON",
        Malformed::AmbiguousKey => {
            "a key of the body stands twice or in other letter case, so that it could be read in two ways"
        }
        Malformed::Truncated => "the body ends before its JSON object does",
    }
}

#[cfg(test)]
mod tests;
