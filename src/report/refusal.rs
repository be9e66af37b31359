//! The only place that turns a refusal into a status, headers and a body.

use std::time::Duration;

use crate::base::units::Timestamp;
use crate::policy::Refusal;
use crate::provider::{Fault, Problem, Wire};
use crate::report::headers::{self, Header};
use crate::tenant::Source;

/// Why bursar refuses a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial<'a> {
    /// The request carries no tenant id in any of these places.
    TenantRequired(&'a [Source]),
    /// The request's tenant is not configured.
    TenantUnknown,
    /// A limit counts subjects of this kind, but the request carries none in any of these places.
    SubjectRequired(&'a str, &'a [Source]),
    /// The request's body is not what its path promises.
    InvalidBody(Fault),
    /// The request's body is encoded.
    EncodedBody,
    /// The request asks to upgrade to another protocol, which could not be metered.
    Upgrade,
    /// The request's endpoint is not metered, and the configuration refuses such endpoints.
    NotMetered,
    /// The requested model is not among these models, which are all that the tenant may use.
    ModelNotAllowed(&'a [String]),
    /// A limit refuses the request.
    Limit(Refusal),
    /// Our own state is unavailable.
    Unavailable,
}

/// A response of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// The value of `%RESPONSE_CODE_DETAILS%`, without spaces.
    pub details: String,
    /// Headers besides those that the proxy sets.
    pub headers: Vec<Header>,
    /// The body, in the error format of the path's provider.
    pub body: String,
}

/// The longest wait after which clients should retry by themselves. With longer waits, some SDKs sleep for hours within a call, and others
/// retry at once.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

impl Denial<'_> {
    /// The reason's word in headers, metrics and logs.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::TenantRequired(_) => "tenant_required",
            Self::TenantUnknown => "tenant_unknown",
            Self::SubjectRequired(..) => "subject_required",
            Self::InvalidBody(_) => "invalid_request_body",
            Self::EncodedBody => "unsupported_content_encoding",
            Self::Upgrade => "upgrade_not_supported",
            Self::NotMetered => "endpoint_not_metered",
            Self::ModelNotAllowed(_) => "model_not_allowed",
            Self::Limit(Refusal::BucketEmpty(_)) => "bucket_empty",
            Self::Limit(Refusal::ExceedsBurst) => "request_exceeds_burst",
            Self::Limit(Refusal::ExceedsMaximum) => "request_exceeds_maximum",
            Self::Limit(Refusal::TierCapacity(_)) => "tier_capacity",
            Self::Limit(Refusal::Concurrency) => "concurrency",
            Self::Limit(Refusal::BudgetHeld) => "budget_held",
            Self::Limit(Refusal::BudgetReserved(_)) => "budget_reserved",
            Self::Limit(Refusal::Pending) => "budget_pending",
            Self::Limit(Refusal::StoreUnreachable) => "global_unreachable",
            Self::Limit(Refusal::BudgetExhausted(_)) => "budget_exhausted",
            Self::Unavailable => "budget_unavailable",
        }
    }

    /// Whether the request is refused by a tenant's limit, or because our own state is unavailable. Only such refusals count as decisions.
    #[must_use]
    pub fn is_throttle(self) -> bool {
        matches!(self, Self::Limit(_) | Self::Unavailable)
    }

    /// The response to the client. If the rest of the budget is held by requests in flight, the wait is spread by the time of day, so that
    /// clients that were refused together do not all return at once. `limit`: the name of the limit that refuses, if a limit does.
    #[must_use]
    pub fn reply(self, wire: &dyn Wire, limit: Option<&str>, now: Timestamp) -> Reply {
        let status = match self {
            Self::TenantRequired(_) | Self::SubjectRequired(..) => 401,
            Self::TenantUnknown | Self::NotMetered | Self::ModelNotAllowed(_) => 403,
            Self::InvalidBody(_) | Self::Limit(Refusal::ExceedsMaximum) => 400,
            Self::EncodedBody => 415,
            Self::Upgrade => 426,
            Self::Limit(_) => 429,
            Self::Unavailable => 503,
        };
        let (wait, may_pass) = self.retry(now);
        let may_retry = may_pass && wait.is_none_or(|wait| wait <= LONGEST_RETRY);
        let mut headers = vec![("content-type", "application/json".into())];
        headers.extend(wait.into_iter().flat_map(headers::retry_after));
        if !may_retry {
            headers.push(headers::do_not_retry());
        }
        let message = match limit {
            Some(limit) => format!("{} Limit: {limit}.", self.message()),
            None => self.message(),
        };
        let error = wire.error(&Problem {
            status,
            code: self.code(),
            message: &message,
            retry_after_ms: wait.filter(|_| may_pass).map(headers::millis_up),
        });
        headers.extend(error.headers);
        Reply {
            status: error.status,
            details: format!("bursar_{}", self.reason()),
            headers,
            body: error.body,
        }
    }

    /// How long the client should wait before it retries, if that is known, and whether the same request may pass within this window.
    fn retry(self, now: Timestamp) -> (Option<Duration>, bool) {
        match self {
            Self::Limit(Refusal::BucketEmpty(wait)) => (Some(wait), true),
            Self::Limit(Refusal::TierCapacity(wait) | Refusal::BudgetReserved(wait)) => {
                (wait, wait.is_some())
            }
            Self::Limit(Refusal::BudgetHeld | Refusal::Concurrency | Refusal::StoreUnreachable) => {
                (Some(jittered(now)), true)
            }
            Self::Limit(Refusal::Pending) => (Some(spread(now, SOON, 100)), true),
            Self::Limit(Refusal::BudgetExhausted(wait)) => (wait, false),
            Self::Limit(Refusal::ExceedsBurst) => (None, false),
            _ => (None, true),
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Limit(
                Refusal::BucketEmpty(_)
                | Refusal::BudgetHeld
                | Refusal::BudgetReserved(_)
                | Refusal::Concurrency
                | Refusal::Pending
                | Refusal::StoreUnreachable
                | Refusal::TierCapacity(Some(_)),
            ) => "rate_limit_exceeded",
            Self::Limit(Refusal::TierCapacity(None)) => "request_exceeds_burst",
            Self::Limit(Refusal::BudgetExhausted(_)) => "insufficient_quota",
            _ => self.reason(),
        }
    }

    fn message(self) -> String {
        match self {
            Self::SubjectRequired(kind, sources) => {
                let places = listed(sources);
                format!("The request does not say which `{kind}` it belongs to. Looked for in: {places}.")
            }
            Self::TenantRequired(sources) => {
                let places = listed(sources);
                format!("The request does not say which tenant it belongs to. Looked for in: {places}.")
            }
            Self::TenantUnknown => "The request's tenant is not known here.".to_owned(),
            Self::InvalidBody(fault) => format!("The request cannot be metered: {fault}."),
            Self::EncodedBody => {
                "The request's body is encoded (`content-encoding`). Send it as plain JSON.".to_owned()
            }
            Self::Upgrade => {
                "WebSockets and other protocols cannot be metered here. Send the request by HTTP (POST).".to_owned()
            }
            Self::NotMetered => "This endpoint is not metered here, and such are not served.".to_owned(),
            Self::ModelNotAllowed(models) => {
                let models = models.join(", ");
                format!("The tenant may not ask for this model. It may ask for: {models}.")
            }
            Self::Limit(Refusal::BucketEmpty(wait)) => {
                let [(_, secs), _] = headers::retry_after(wait);
                format!("The tenant's rate limit is used up for now. Try again in {secs} s.")
            }
            Self::Limit(Refusal::ExceedsBurst) => {
                "The request needs more than the tenant's rate limit can ever give at once.".to_owned()
            }
            Self::Limit(Refusal::ExceedsMaximum) => {
                "The request may cost more than a single one of the tenant's may. Lower its output limit, or shorten it.".to_owned()
            }
            Self::Limit(Refusal::TierCapacity(Some(wait))) => {
                let [(_, secs), _] = headers::retry_after(wait);
                format!("The model's capacity is in use by others. Try again in {secs} s.")
            }
            Self::Limit(Refusal::TierCapacity(None)) => {
                "The request needs more tokens than the model's capacity can ever have for the tenant.".to_owned()
            }
            Self::Limit(Refusal::Concurrency) => {
                "As many of the tenant's requests are in flight as may be. Try again shortly.".to_owned()
            }
            Self::Limit(Refusal::BudgetHeld) => {
                "What is left of the tenant's budget is held by requests in flight. Try again shortly.".to_owned()
            }
            Self::Limit(Refusal::BudgetReserved(_)) => {
                "What is left of the budget is kept for other tenants, who are guaranteed a part of it.".to_owned()
            }
            Self::Limit(Refusal::Pending) => {
                "This proxy has asked for its part of a limit that several proxies share, and does not have it yet. Try again shortly.".to_owned()
            }
            Self::Limit(Refusal::StoreUnreachable) => {
                "The limit is shared by several proxies, and what they share cannot be reached. Try again shortly."
                    .to_owned()
            }
            Self::Limit(Refusal::BudgetExhausted(_)) => {
                "What is left of the tenant's budget is less than the request may cost.".to_owned()
            }
            Self::Unavailable => "The tenant's budget cannot be read at the moment.".to_owned(),
        }
    }
}

/// Milliseconds after which a proxy may have been granted more of a shared budget: it requests more at most a fifth of a second after a
/// refusal.
const SOON: u64 = 200;

fn listed(sources: &[Source]) -> String {
    let places: Vec<String> = sources.iter().map(Source::to_string).collect();
    places.join(", ")
}

/// A wait between a quarter of a second and one second.
fn jittered(now: Timestamp) -> Duration {
    spread(now, 250, 750)
}

/// A wait of at least `least` milliseconds, and less than `least` plus `more`.
fn spread(now: Timestamp, least: u64, more: u64) -> Duration {
    // The clock ticks in microseconds; Knuth's multiplicative hash spreads neighbouring ticks.
    let spread = (now.as_nanos() / 1_000).wrapping_mul(2_654_435_761);
    let spread = spread.checked_rem(more).unwrap_or_default();
    Duration::from_millis(least.saturating_add(spread))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Endpoint;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn reply(denial: Denial<'_>) -> Reply {
        let post = [(":method", "POST"), (":path", "/v1/chat/completions")];
        let post = post.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        let endpoint = Endpoint::of(&post.into_iter().collect()).unwrap();
        denial.reply(endpoint.wire, None, Timestamp::from_secs(7))
    }

    fn headers(denial: Denial<'_>) -> Vec<Header> {
        let reply = reply(denial);
        assert_eq!(reply.details, format!("bursar_{}", denial.reason()));
        reply
            .headers
            .into_iter()
            .filter(|(name, _)| name.contains("retry"))
            .collect()
    }

    fn code(denial: Denial<'_>) -> (u16, String) {
        let reply = reply(denial);
        let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
        (
            reply.status,
            body["error"]["code"].as_str().unwrap().to_owned(),
        )
    }

    #[test]
    fn every_refusal_has_the_status_and_code_that_operators_are_promised() {
        let wait = Duration::from_secs(5);
        for (denial, status, expected) in [
            (Denial::TenantRequired(&[]), 401, "tenant_required"),
            (Denial::TenantUnknown, 403, "tenant_unknown"),
            (
                Denial::SubjectRequired("user", &[]),
                401,
                "subject_required",
            ),
            (
                Denial::InvalidBody(Fault::NoModel),
                400,
                "invalid_request_body",
            ),
            (Denial::EncodedBody, 415, "unsupported_content_encoding"),
            (Denial::Upgrade, 426, "upgrade_not_supported"),
            (Denial::NotMetered, 403, "endpoint_not_metered"),
            (Denial::ModelNotAllowed(&[]), 403, "model_not_allowed"),
            (
                Denial::Limit(Refusal::BucketEmpty(wait)),
                429,
                "rate_limit_exceeded",
            ),
            (
                Denial::Limit(Refusal::ExceedsMaximum),
                400,
                "request_exceeds_maximum",
            ),
            (
                Denial::Limit(Refusal::ExceedsBurst),
                429,
                "request_exceeds_burst",
            ),
            (
                Denial::Limit(Refusal::BudgetHeld),
                429,
                "rate_limit_exceeded",
            ),
            (
                Denial::Limit(Refusal::BudgetExhausted(Some(wait))),
                429,
                "insufficient_quota",
            ),
            (
                Denial::Limit(Refusal::TierCapacity(Some(wait))),
                429,
                "rate_limit_exceeded",
            ),
            (
                Denial::Limit(Refusal::TierCapacity(None)),
                429,
                "request_exceeds_burst",
            ),
            (Denial::Unavailable, 503, "budget_unavailable"),
        ] {
            assert_eq!(code(denial), (status, expected.to_owned()));
        }
    }

    #[test]
    fn only_what_time_can_cure_says_when_to_come_back() {
        let text = |list: &[(&'static str, &str)]| {
            list.iter()
                .map(|&(name, value)| (name, value.to_owned().into()))
                .collect::<Vec<Header>>()
        };
        let wait = Duration::from_millis(5_001);
        assert_eq!(
            headers(Denial::Limit(Refusal::BucketEmpty(wait))),
            text(&[("retry-after", "6"), ("retry-after-ms", "5001")])
        );
        assert_eq!(
            headers(Denial::Limit(Refusal::ExceedsBurst)),
            text(&[("x-should-retry", "false")])
        );
        assert_eq!(
            headers(Denial::Limit(Refusal::BudgetExhausted(Some(wait)))),
            text(&[
                ("retry-after", "6"),
                ("retry-after-ms", "5001"),
                ("x-should-retry", "false")
            ])
        );
        assert_eq!(
            headers(Denial::Limit(Refusal::TierCapacity(Some(wait)))),
            text(&[("retry-after", "6"), ("retry-after-ms", "5001")])
        );
        assert_eq!(
            headers(Denial::Limit(Refusal::TierCapacity(None))),
            text(&[("x-should-retry", "false")])
        );
        assert_eq!(
            headers(Denial::Limit(Refusal::BudgetExhausted(None))),
            text(&[("x-should-retry", "false")])
        );
    }

    #[test]
    fn a_wait_above_a_minute_is_not_for_an_sdk_to_sit_out() {
        let values = |secs, nanos| {
            let wait = Duration::new(secs, nanos);
            [
                Refusal::BucketEmpty(wait),
                Refusal::TierCapacity(Some(wait)),
            ]
            .map(|refusal| {
                let headers = headers(Denial::Limit(refusal)).into_iter();
                headers
                    .map(|(name, value)| format!("{name}: {value}"))
                    .collect::<Vec<_>>()
            })
        };
        let minute = ["retry-after: 60", "retry-after-ms: 60000"];
        assert_eq!(values(60, 0), [minute, minute]);
        let longer = [
            "retry-after: 61",
            "retry-after-ms: 60001",
            "x-should-retry: false",
        ];
        assert_eq!(values(60, 1), [longer, longer]);
    }

    #[test]
    fn a_request_without_a_tenant_learns_where_one_is_looked_for() {
        let sources = [
            Source::Header("x-tenant-id".to_owned()),
            Source::jwt_claim("tenant"),
            Source::peer_uri_san(),
            Source::Property(vec!["xds".to_owned(), "node".to_owned()]),
        ];
        let body = reply(Denial::TenantRequired(&sources)).body;
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            body["error"]["message"],
            "The request does not say which tenant it belongs to. Looked for in: header `x-tenant-id`, JWT claim `tenant`, \
             the URI in the client's certificate, property `xds.node`."
        );
    }

    #[test]
    fn those_who_wait_for_held_budget_are_spread() {
        let waits: std::collections::HashSet<_> = (0..100)
            .map(|n| jittered(Timestamp::from_nanos(n * 1_000)))
            .collect();
        assert!(waits.len() > 50);
        assert!(
            waits
                .iter()
                .all(|wait| (250..1_000).contains(&wait.as_millis()))
        );
    }
}
