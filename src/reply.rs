//! The one place that turns a refusal into a status, headers and a body.

use std::time::Duration;

use crate::api::{Fault, Problem, Wire};
use crate::headers::{self, Header};
use crate::policy::Refusal;
use crate::units::Timestamp;

/// Why a request is answered by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// It shows no tenant.
    TenantRequired,
    /// Its tenant is not configured.
    TenantUnknown,
    /// Its body is not what its path promises.
    InvalidBody(Fault),
    /// A limit refuses it.
    Limit(Refusal),
    /// Our own state cannot be had.
    Unavailable,
}

/// A response of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// What `%RESPONSE_CODE_DETAILS%` says, without spaces.
    pub details: String,
    /// Headers besides those that the proxy sets.
    pub headers: Vec<Header>,
    /// In the shape of the path's provider.
    pub body: String,
}

impl Denial {
    /// The word for it in headers, metrics and logs.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::TenantRequired => "tenant_required",
            Self::TenantUnknown => "tenant_unknown",
            Self::InvalidBody(_) => "invalid_request_body",
            Self::Limit(Refusal::BucketEmpty(_)) => "bucket_empty",
            Self::Limit(Refusal::ExceedsBurst) => "request_exceeds_burst",
            Self::Limit(Refusal::TierCapacity(_)) => "tier_capacity",
            Self::Limit(Refusal::BudgetHeld) => "budget_held",
            Self::Limit(Refusal::BudgetExhausted(_)) => "budget_exhausted",
            Self::Unavailable => "budget_unavailable",
        }
    }

    /// Whether it is the tenant's limits (or our state of them) that refuse, so that it counts as a decision.
    #[must_use]
    pub fn is_throttle(self) -> bool {
        matches!(self, Self::Limit(_) | Self::Unavailable)
    }

    /// The answer to the client. The wait of a held budget is spread by the time of day, so that those who wait for
    /// the same moment do not come back at once.
    #[must_use]
    pub fn reply(self, wire: &dyn Wire, now: Timestamp) -> Reply {
        let status = match self {
            Self::TenantRequired => 401,
            Self::TenantUnknown => 403,
            Self::InvalidBody(_) => 400,
            Self::Limit(_) => 429,
            Self::Unavailable => 503,
        };
        let (wait, may_retry) = self.retry(now);
        let mut headers = vec![("content-type", "application/json".into())];
        headers.extend(wait.into_iter().flat_map(headers::retry_after));
        if !may_retry {
            headers.push(headers::do_not_retry());
        }
        let error = wire.error(&Problem {
            status,
            code: self.code(),
            message: &self.message(),
            retry_after_ms: wait.filter(|_| may_retry).map(headers::millis_up),
        });
        headers.extend(error.headers);
        Reply {
            status,
            details: format!("bursar_{}", self.reason()),
            headers,
            body: error.body,
        }
    }

    /// How long to wait before another try, if that is known, and whether a client should try again by itself.
    fn retry(self, now: Timestamp) -> (Option<Duration>, bool) {
        match self {
            Self::Limit(Refusal::BucketEmpty(wait)) => (Some(wait), true),
            Self::Limit(Refusal::TierCapacity(wait)) => (wait, wait.is_some()),
            Self::Limit(Refusal::BudgetHeld) => (Some(jittered(now)), true),
            Self::Limit(Refusal::BudgetExhausted(wait)) => (wait, false),
            Self::Limit(Refusal::ExceedsBurst) => (None, false),
            _ => (None, true),
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Limit(
                Refusal::BucketEmpty(_) | Refusal::BudgetHeld | Refusal::TierCapacity(Some(_)),
            ) => "rate_limit_exceeded",
            Self::Limit(Refusal::TierCapacity(None)) => "request_exceeds_burst",
            Self::Limit(Refusal::BudgetExhausted(_)) => "insufficient_quota",
            _ => self.reason(),
        }
    }

    fn message(self) -> String {
        match self {
            Self::TenantRequired => "The request does not say which tenant it belongs to.".to_owned(),
            Self::TenantUnknown => "The request's tenant is not known here.".to_owned(),
            Self::InvalidBody(fault) => format!("The request cannot be metered: {fault}."),
            Self::Limit(Refusal::BucketEmpty(wait)) => {
                let [(_, secs), _] = headers::retry_after(wait);
                format!("The tenant's token bucket is empty. Try again in {secs} s.")
            }
            Self::Limit(Refusal::ExceedsBurst) => {
                "The request needs more tokens than the tenant's token bucket can ever hold.".to_owned()
            }
            Self::Limit(Refusal::TierCapacity(Some(wait))) => {
                let [(_, secs), _] = headers::retry_after(wait);
                format!("The model's capacity is in use by others. Try again in {secs} s.")
            }
            Self::Limit(Refusal::TierCapacity(None)) => {
                "The request needs more tokens than the model's capacity can ever have for the tenant.".to_owned()
            }
            Self::Limit(Refusal::BudgetHeld) => {
                "What is left of the tenant's budget is held by requests in flight. Try again shortly.".to_owned()
            }
            Self::Limit(Refusal::BudgetExhausted(_)) => {
                "What is left of the tenant's budget is less than the request may cost.".to_owned()
            }
            Self::Unavailable => "The tenant's budget cannot be read at the moment.".to_owned(),
        }
    }
}

/// Between a quarter of a second and one second.
fn jittered(now: Timestamp) -> Duration {
    // The clock ticks in microseconds; Knuth's multiplicative hash spreads neighbouring ticks.
    let spread = (now.as_nanos() / 1_000).wrapping_mul(2_654_435_761) % 750;
    Duration::from_millis(spread.saturating_add(250))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Endpoint;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn reply(denial: Denial) -> Reply {
        let post = [(":method", "POST"), (":path", "/v1/chat/completions")];
        let post = post.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        let endpoint = Endpoint::of(&post.into_iter().collect()).unwrap();
        denial.reply(endpoint.wire, Timestamp::from_secs(7))
    }

    fn headers(denial: Denial) -> Vec<Header> {
        let reply = reply(denial);
        assert_eq!(reply.details, format!("bursar_{}", denial.reason()));
        reply
            .headers
            .into_iter()
            .filter(|(name, _)| name.contains("retry"))
            .collect()
    }

    fn code(denial: Denial) -> (u16, String) {
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
            (Denial::TenantRequired, 401, "tenant_required"),
            (Denial::TenantUnknown, 403, "tenant_unknown"),
            (
                Denial::InvalidBody(Fault::NoModel),
                400,
                "invalid_request_body",
            ),
            (
                Denial::Limit(Refusal::BucketEmpty(wait)),
                429,
                "rate_limit_exceeded",
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
