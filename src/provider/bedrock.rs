//! Amazon Bedrock's `Converse` and `InvokeModel`, streamed and not
//! (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html>, read 2026-11-22).
//!
//! `Converse` has one body format for all models; `InvokeModel` passes the model's own format on.

mod converse;
mod invoke;

pub(super) use self::converse::Converse;
pub(super) use self::invoke::Invoke;

use crate::base::units::Tokens;
use crate::body::json::{entries, members, quoted};
use crate::http::Headers;
use crate::provider::anthropic::fast_or;
use crate::provider::read::count_of;
use crate::provider::wire::{ErrorReply, Problem};
use crate::usage::{ServiceTier, Usage};

/// The tier that was requested or that has served, from the headers that requests and answers may have. Latency that is optimised has a name
/// and a price of its own, as tiers do
/// (<https://docs.aws.amazon.com/bedrock/latest/userguide/latency-optimized-inference.html>, read 2026-11-30).
fn tier_header(message: &Headers) -> Option<ServiceTier> {
    let [tier, latency] = [
        "x-amzn-bedrock-service-tier",
        "x-amzn-bedrock-performanceconfig-latency",
    ]
    .map(|name| ServiceTier::of(std::str::from_utf8(message.only(name)?).ok()?));
    fast_or(latency, tier)
}

/// Usage in which cached tokens are not part of the input.
fn beside(
    input: Option<Tokens>,
    output: Option<Tokens>,
    read: Option<Tokens>,
    written: Option<Tokens>,
) -> Usage {
    let cached = read.unwrap_or_default() + written.unwrap_or_default();
    Usage {
        input: input.map(|input| input + cached),
        cached_input: read,
        cache_write: written,
        output,
        ..Usage::default()
    }
}

/// Tokens that were written to the cache for an hour, from the list of cache writes by lifetime
/// (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_CacheDetail.html>, read 2026-11-29).
fn kept_for_an_hour(details: &[u8]) -> Option<Tokens> {
    let hours = entries(details)?.into_iter().filter_map(|detail| {
        let [ttl, tokens] = members(detail, ["ttl", "inputTokens"])?;
        count_of(tokens).filter(|_| ttl == Some(b"\"1h\""))
    });
    hours.reduce(|sum, tokens| sum + tokens)
}

/// AWS's SDKs retry after any 429, whatever the error's name; `x-amz-retry-after` is in milliseconds. A refusal that waiting does not cure is
/// sent as a 400, the status that `ServiceQuotaExceededException` has in Bedrock's model (botocore 1.44.5, boto3's and the AWS JS SDK's
/// retries tried 2026-11-29).
fn error(problem: &Problem<'_>) -> ErrorReply {
    let &Problem {
        status,
        code,
        message,
        retry_after_ms,
    } = problem;
    let is_final = matches!(code, "insufficient_quota" | "request_exceeds_burst");
    let (status, kind) = match status {
        429 if is_final => (400, "ServiceQuotaExceededException"),
        429 => (429, "ThrottlingException"),
        400 | 415 | 426 => (status, "ValidationException"),
        401 | 403 => (status, "AccessDeniedException"),
        _ => (status, "ServiceUnavailableException"),
    };
    let wait = retry_after_ms.map(|wait| ("x-amz-retry-after", wait.into()));
    let mut headers = vec![("x-amzn-errortype", kind.into())];
    headers.extend(wait);
    let (code, message) = (quoted(code), quoted(message));
    ErrorReply {
        status,
        body: format!(r#"{{"code":{code},"message":{message}}}"#),
        headers,
    }
}
