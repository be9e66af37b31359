//! A provider's wire format: how to read its requests and answers, and how to write its errors.

use super::answer;
use super::read::value;
use crate::base::text::Text;
use crate::base::units::Tokens;
use crate::body::json::{Malformed, Scanner, Shape};
use crate::body::rewrite::Edit;
use crate::conversation::messages::Dialect;
use crate::http::Headers;
use crate::tier::Needs;
use crate::usage::{CacheCount, EventFacts, ServiceTier, Usage};

/// A provider's wire format.
pub trait Wire: std::fmt::Debug + Sync {
    /// What to look for in a request's body.
    fn request(&self) -> Shape;

    /// The key of the model's name in a request's body; `None` where only the path names the model. This is the first key, unless the path
    /// always names the model.
    fn model_key(&self) -> Option<usize> {
        Some(0)
    }

    /// Whether the body may name another model than the path.
    fn may_differ_from_path(&self) -> bool {
        true
    }

    /// Whether a body may omit the model.
    fn may_omit_model(&self, _body: &Scanner) -> bool {
        false
    }

    /// What the request wants, by the part of its body that was read.
    ///
    /// # Errors
    /// [`Fault`] if a value that matters is not what it should be.
    fn facts(&self, body: &Scanner) -> Result<Facts, Fault>;

    /// Everything that a request of this format for this model may need.
    fn possible_needs(&self, _model: &str) -> Needs {
        Needs::ALL
    }

    /// Where a request's body limits its output.
    fn output_limits(&self) -> OutputLimits;

    /// How many keys at the end of the request's shape list other models, which may answer instead of the requested model.
    fn alternatives(&self) -> usize {
        0
    }

    /// The format of a conversation in a request's body, if it can be shortened.
    fn dialect(&self) -> Option<Dialect> {
        None
    }

    /// The edit that makes a stream report its usage, if the stream would not do so by itself. To be called once the body is complete, or
    /// for each chunk before that chunk is forwarded.
    fn ask_usage(&self, _body: &Scanner) -> Option<Edit> {
        None
    }

    /// Start of a value that this edit may change, as long as it is unknown whether the edit is needed.
    fn may_ask_at(&self, _body: &Scanner) -> Option<u64> {
        None
    }

    /// The most bytes that this edit can add.
    fn most_added_to_ask(&self) -> u64 {
        0
    }

    /// What to look for in a response that is one JSON object.
    fn response(&self) -> Shape;

    /// The usage in a response that is one JSON object, as far as the response was read.
    fn usage(&self, body: &Scanner) -> Option<Usage>;

    /// What models used that took part beside the one that answered, by their names: a part of [`Wire::usage`]. The body is an answer or an
    /// event.
    fn others(&self, _body: &Scanner) -> Vec<(String, Usage)> {
        Vec::new()
    }

    /// Whether cached tokens are counted as part of the input.
    fn cache_count(&self) -> CacheCount {
        CacheCount::Inside
    }

    /// Whether a response that is one JSON object is an error and nothing else.
    fn is_error(&self, body: &Scanner) -> bool {
        answer::is_error(body)
    }

    /// The error in a response or an event, verbatim.
    fn error_in<'a>(&self, answer: &'a Scanner) -> Option<&'a [u8]> {
        value(answer, answer::ERROR)
    }

    /// The model that answered, as named in a response or an event.
    fn served_model(&self, answer: &Scanner) -> Option<String> {
        answer::model(answer)
    }

    /// The service tier that served, as named in a response or an event.
    fn service_tier(&self, answer: &Scanner) -> Option<ServiceTier> {
        answer::service_tier(answer)
    }

    /// The service tier in a response's headers.
    fn service_tier_of_headers(&self, _response: &Headers) -> Option<ServiceTier> {
        None
    }

    /// The service tier that a request's headers name.
    fn asked_tier(&self, _request: &Headers) -> Option<ServiceTier> {
        None
    }

    /// The usage in a response's headers.
    fn usage_of_headers(&self, _response: &Headers) -> Option<Usage> {
        None
    }

    /// What to look for in an event of a stream.
    fn events(&self) -> Shape {
        self.response()
    }

    /// What an event of a stream reports.
    fn event(&self, event: &Scanner) -> EventFacts;

    /// Whether a stream may be a JSON array of events; otherwise an array is several whole answers.
    fn streams_arrays(&self) -> bool {
        false
    }

    /// A quick check whether [`Wire::event`] may find anything in the event with this text.
    fn may_report(&self, _event: &[u8]) -> bool {
        true
    }

    /// Whether a request for one model can be sent to another: it cannot if each model has its own body format.
    fn can_exchange(&self, _model: &str, _other: &str) -> bool {
        true
    }

    /// An error that the API's SDKs understand.
    fn error(&self, error: &Problem<'_>) -> ErrorReply;
}

/// What a request wants, as its body says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The most output tokens, over all choices.
    pub output_limit: Option<Tokens>,
    /// Number of answers requested; 0 counts as 1.
    pub choices: u64,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Whether the stream would not report its usage, since the client did not request it.
    pub hides_usage: bool,
    /// Whether the answer is not in this response: the client fetches the answer with another request.
    pub is_deferred: bool,
    /// Whether the provider keeps the answer where the client finds it without this response.
    pub is_kept: bool,
    /// What a model must be able to do.
    pub needs: Needs,
    /// The output limit must not be lowered below this.
    pub least_output: u64,
    /// The requested service tier.
    pub service_tier: Option<ServiceTier>,
}

/// Where a request's body limits its output.
#[derive(Clone, Copy, Debug)]
pub struct OutputLimits {
    /// Keys of the request's shape, each of them a limit for one answer.
    pub keys: &'static [usize],
    /// The object that contains these keys: its index in the shape, and its name; `None` for the top level.
    pub object: Option<(usize, &'static str)>,
    /// Whether a number may be written as a string.
    pub may_be_text: bool,
    /// The name under which a limit is added; `None` if none can be.
    pub name: Option<&'static str>,
    /// Whether a later key may set a lower bound for the limits.
    pub have_floor: bool,
    /// A limit of 0 means no output; otherwise some servers take it for no limit.
    pub takes_zero: bool,
}

/// An error that bursar sends to a client.
#[derive(Clone, Copy, Debug)]
pub struct Problem<'a> {
    /// HTTP status.
    pub status: u16,
    /// The documented code.
    pub code: &'a str,
    /// A message for people.
    pub message: &'a str,
    /// How long to wait before a retry, in milliseconds; `None` if a retry would not help.
    pub retry_after_ms: Option<u64>,
}

/// An error in an API's own format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorReply {
    /// HTTP status: that of the problem, or another one that the SDKs handle better.
    pub status: u16,
    /// The body, in JSON.
    pub body: String,
    /// Headers besides the usual ones.
    pub headers: Vec<(&'static str, Text)>,
}

/// Why a request is not what its path requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The body is not a valid JSON object.
    Body(Malformed),
    /// The body has no `model`.
    NoModel,
    /// `model` is not a string, or too long for a name.
    ModelNotText,
    /// This value is not a whole number of at least 1.
    NotACount(&'static str),
    /// This value is not a whole number.
    NotALimit(&'static str),
    /// This value is neither true nor false.
    NotABool(&'static str),
    /// This value is no object.
    NotAnObject(&'static str),
    /// `stream_options` is not an object, or too long.
    OptionsNotObject,
    /// This parameter or header would hide the usage.
    HidesUsage(&'static str),
    /// This value changes, behind bursar, what the body says.
    Overrides(&'static str),
    /// A list of other models is too long.
    LongAlternatives,
    /// The body names another model than the path.
    OtherModel,
    /// Its length differs from `content-length`.
    WrongLength,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Body(malformed) => f.write_str(text_of(*malformed)),
            Self::NotACount(name) => write!(f, "`{name}` must be a whole number of at least 1"),
            Self::NotALimit(name) => write!(f, "`{name}` must be a whole number"),
            Self::NotABool(name) => write!(f, "`{name}` must be true or false"),
            Self::NotAnObject(name) => write!(f, "`{name}` must be an object"),
            Self::OptionsNotObject => {
                f.write_str("`stream_options` must be an object of at most 1024 bytes")
            }
            Self::HidesUsage(name) => write!(f, "`{name}` would hide what it used"),
            Self::Overrides(name) => write!(
                f,
                "`{name}` must not change what the body says itself, such as `model` and `max_tokens`"
            ),
            Self::LongAlternatives => {
                f.write_str("lists of other models, such as `models` and `fallbacks`, must be no longer than 4096 bytes")
            }
            Self::OtherModel => f.write_str("`model` must be the model that the path names"),
            Self::WrongLength => {
                f.write_str("the body is not as long as its `content-length` says")
            }
            Self::NoModel => f.write_str("the body must name a `model`"),
            Self::ModelNotText => f.write_str("`model` must be a text of at most 256 bytes"),
        }
    }
}

fn text_of(malformed: Malformed) -> &'static str {
    match malformed {
        Malformed::NotAnObject => "the body must be a JSON object",
        Malformed::Syntax => "the body is not valid JSON",
        Malformed::AmbiguousKey => {
            "a key of the body stands twice or in other letter case, so that it could be read in two ways"
        }
        Malformed::Truncated => "the body ends before its JSON object does",
    }
}
