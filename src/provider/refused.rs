//! An upstream's refusal: its reason, and when to retry.
//!
//! Providers report in many ways when to retry. The most exact one counts:
//!
//! 1. `retry-after-ms`, `x-ms-retry-after-ms` (OpenAI, Azure; milliseconds).
//! 2. `retry-after` (RFC 9110, 10.2.3: seconds or a date).
//! 3. Google's `RetryInfo` in the body
//!    (<https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto>).
//! 4. When the limits are full again ([`resets`]): those with nothing left, or otherwise the first.
//! 5. Words in the message, such as `Please try again in 20s.`

mod clock;
mod resets;

use std::time::Duration;

use crate::base::units::Timestamp;
use crate::body::json::{members, string};
use crate::http::Headers;
use crate::tier::pressure::{RefusalKind, UpstreamRefusal};

use clock::{count, date, go_duration};
pub(super) use resets::until;

/// How many bytes of a refusal's body are read.
const MOST: usize = 8 * 1_024;

/// A refusal that is being read.
#[derive(Clone, Debug)]
pub struct RefusalReader {
    status: u16,
    /// The wait that the headers give.
    exact: Option<Duration>,
    reset: Option<Duration>,
    body: Vec<u8>,
    now: Timestamp,
}

impl RefusalReader {
    /// A reader for the response with these headers, if its status may mean that the upstream is pressed: quota, room, money, or a server
    /// error.
    #[must_use]
    pub fn new(response: &Headers, now: Timestamp) -> Option<Self> {
        let status = std::str::from_utf8(response.only(":status")?).ok()?;
        let status = status.parse().ok()?;
        if !matches!(status, 400 | 402 | 403 | 429 | 500..=599) {
            return None;
        }
        Some(Self {
            status,
            exact: exact(response, now),
            reset: resets::reset(response, now),
            body: Vec::new(),
            now,
        })
    }

    /// The kind of refusal by the status alone.
    #[must_use]
    pub fn kind(&self) -> Option<RefusalKind> {
        match self.status {
            402 => Some(RefusalKind::Quota),
            429 => Some(RefusalKind::RateLimit),
            503 | 529 => Some(RefusalKind::Overloaded),
            500..=599 => Some(RefusalKind::Failed),
            _ => None,
        }
    }

    /// Reads a chunk of the refusal's body.
    pub fn feed(&mut self, chunk: &[u8]) {
        let room = MOST.saturating_sub(self.body.len());
        self.body.extend(chunk.iter().take(room));
    }

    /// The refusal, as far as it was read. `None` if it concerns only the request, and not the upstream.
    #[must_use]
    pub fn refusal(&self) -> Option<UpstreamRefusal> {
        let said = Said::of(&self.body);
        let kind = match said.kind() {
            Some(Told::Quota) => RefusalKind::Quota,
            // This request would never be served, but any smaller one would: that is no reason to avoid the upstream.
            Some(Told::TooLarge) if matches!(self.status, 402 | 429) => return None,
            _ => self.kind()?,
        };
        let wait = self.exact.or_else(|| retry_info(&self.body));
        let wait = wait.or(self.reset);
        let wait = wait.or_else(|| said.wait());
        // Waiting would not help.
        let wait = wait.filter(|_| kind != RefusalKind::Quota);
        Some(UpstreamRefusal { kind, wait })
    }

    /// When the refusal was seen.
    #[must_use]
    pub fn seen(&self) -> Timestamp {
        self.now
    }
}

/// The refusal that an error means which came with the status of an answer. The error is an object or a word.
#[must_use]
pub fn refusal_in_answer(error: &[u8]) -> Option<UpstreamRefusal> {
    let said = match error.starts_with(b"{") {
        true => Said::of(error),
        false => Said {
            words: vec![word(error)],
            message: String::new(),
        },
    };
    let kind = match said.kind()? {
        Told::Quota => RefusalKind::Quota,
        Told::RateLimit => RefusalKind::RateLimit,
        Told::Overloaded => RefusalKind::Overloaded,
        Told::Failed => RefusalKind::Failed,
        Told::TooLarge => return None,
    };
    let wait = retry_info(error).or_else(|| said.wait());
    Some(UpstreamRefusal {
        kind,
        wait: wait.filter(|_| kind != RefusalKind::Quota),
    })
}

/// The meaning of an error's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Quota,
    RateLimit,
    Overloaded,
    Failed,
    TooLarge,
}

/// Codes and types of the APIs' errors, in lower case (API references of November 2026).
const WORDS: [(&str, Told); 29] = [
    // OpenAI: the account has no money or no plan (<https://platform.openai.com/docs/guides/error-codes>).
    ("insufficient_quota", Told::Quota),
    ("billing_hard_limit_reached", Told::Quota),
    ("billing_not_active", Told::Quota),
    ("access_terminated", Told::Quota),
    // Anthropic (<https://docs.anthropic.com/en/api/errors>).
    ("billing_error", Told::Quota),
    ("rate_limit_error", Told::RateLimit),
    ("overloaded_error", Told::Overloaded),
    ("api_error", Told::Failed),
    ("timeout_error", Told::Failed),
    ("rate_limit_exceeded", Told::RateLimit),
    ("ratelimitreached", Told::RateLimit),
    ("too_many_requests", Told::RateLimit),
    ("slow_down", Told::Overloaded),
    ("server_error", Told::Failed),
    ("server_is_overloaded", Told::Overloaded),
    ("engine_overloaded", Told::Overloaded),
    ("service_unavailable", Told::Overloaded),
    // Google (<https://cloud.google.com/apis/design/errors>).
    ("resource_exhausted", Told::RateLimit),
    ("unavailable", Told::Overloaded),
    ("internal", Told::Failed),
    // Amazon (<https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html>).
    ("throttlingexception", Told::RateLimit),
    ("modelnotreadyexception", Told::Overloaded),
    ("serviceunavailableexception", Told::Overloaded),
    ("internalserverexception", Told::Failed),
    ("modelstreamerrorexception", Told::Failed),
    // Of gateways that put the status into the error.
    ("429", Told::RateLimit),
    ("503", Told::Overloaded),
    ("529", Told::Overloaded),
    ("500", Told::Failed),
];

/// What messages say where only the request is too large: OpenAI's, with the same code as of one that comes too soon; OpenRouter's, of what
/// its money covers (<https://github.com/can1357/oh-my-pi/issues/9569>); Anthropic's, of long prompts
/// (<https://github.com/anthropics/claude-code/issues/42616>, both read 2026-12-01).
const TOO_LARGE: [&str; 4] = [
    "Request too large",
    "or fewer max_tokens",
    "tokens limit exceeded",
    "long context request",
];

/// An error's words, which are its code, type and status, and its message.
#[derive(Clone, Debug, Default)]
struct Said {
    words: Vec<String>,
    message: String,
}

impl Said {
    fn of(body: &[u8]) -> Self {
        // Google's streams are lists, so an error there is a list's entry.
        let body = body.trim_ascii();
        let body = body.strip_prefix(b"[").unwrap_or(body);
        let body = body.strip_suffix(b"]").unwrap_or(body).trim_ascii();
        let outer = members(body, ["error", "message", "code", "type", "status"]);
        let Some([error, message, code, kind, status]) = outer else {
            return Self::default();
        };
        let inner = error.and_then(|error| members(error, ["code", "type", "status", "message"]));
        let [a, b, c, inside] = inner.unwrap_or_default();
        let words = [a, b, c, code, kind, status].into_iter().flatten();
        let text = |value: Option<&[u8]>| value.and_then(string).map(std::borrow::Cow::into_owned);
        Self {
            words: words.map(word).collect(),
            message: text(inside.or(message)).unwrap_or_default(),
        }
    }

    fn kind(&self) -> Option<Told> {
        if TOO_LARGE.iter().any(|words| self.message.contains(words)) {
            return Some(Told::TooLarge);
        }
        // Anthropic reports this as an error of the request.
        if self.message.starts_with("Your credit balance is too low") {
            return Some(Told::Quota);
        }
        let told = |known: &str| self.words.iter().any(|word| word == known);
        let mut words = WORDS.iter();
        words.find(|(word, _)| told(word)).map(|&(_, told)| told)
    }

    /// How long to wait, by the words of the message.
    fn wait(&self) -> Option<Duration> {
        let text = self.message.to_ascii_lowercase();
        let phrases = ["try again in ", "retry after ", "retry in "];
        phrases.iter().find_map(|phrase| {
            let (_, after) = text.split_once(phrase)?;
            in_words(after)
        })
    }
}

/// A text without its quotes, or a number, in lower case.
fn word(value: &[u8]) -> String {
    let text = string(value).map_or_else(
        || String::from_utf8_lossy(value),
        |text| text.into_owned().into(),
    );
    text.to_ascii_lowercase()
}

/// A duration such as `20s`, `1m26.4s`, `7 seconds` or `2 minutes`.
fn in_words(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (digits, rest) = text.split_at_checked(end)?;
    if let Some(unit) = rest.strip_prefix(' ') {
        let unit: String = unit.chars().take_while(char::is_ascii_alphabetic).collect();
        let unit = match unit.as_str() {
            "ms" | "millisecond" | "milliseconds" => 1,
            "s" | "sec" | "secs" | "second" | "seconds" => 1_000,
            "m" | "min" | "mins" | "minute" | "minutes" => 60_000,
            "h" | "hour" | "hours" => 3_600_000,
            "day" | "days" => 86_400_000,
            _ => return None,
        };
        return count(digits.as_bytes(), Duration::from_millis(unit));
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '.';
    let whole: String = text.chars().take_while(|&c| is_part(c)).collect();
    go_duration(whole.trim_end_matches('.').as_bytes())
}

/// How long to wait, from headers that are exact to a second or better.
fn exact(response: &Headers, now: Timestamp) -> Option<Duration> {
    let [millis, azure, after] =
        response.only_of(["retry-after-ms", "x-ms-retry-after-ms", "retry-after"]);
    let millis = millis.or(azure).map(<[u8]>::trim_ascii);
    let millis = millis.and_then(|millis| count(millis, Duration::from_millis(1)));
    let after = || {
        let after = after?.trim_ascii();
        count(after, Duration::from_secs(1)).or_else(|| Some(date(after)?.since(now)))
    };
    millis.or_else(after)
}

/// Google's `RetryInfo`: a duration in seconds, such as `"34.07s"`.
fn retry_info(body: &[u8]) -> Option<Duration> {
    const NAME: &[u8] = b"\"retryDelay\"";
    let at = memchr::memmem::find(body, NAME)?;
    let after = body
        .get(at.saturating_add(NAME.len())..)?
        .trim_ascii_start();
    let after = after
        .strip_prefix(b":")?
        .trim_ascii_start()
        .strip_prefix(b"\"")?;
    let end = after.iter().position(|&byte| byte == b'"')?;
    go_duration(after.get(..end)?)
}

#[cfg(test)]
mod tests;
