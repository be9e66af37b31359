//! The end of a request, in the form that is shown to operators: what was used, who reported it, and how the request ended.

use crate::base::units::Micros;
use crate::published::metric::Label;
use crate::usage::Usage;

/// The basis on which a request was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettledBy {
    /// The usage that the provider reported.
    Usage,
    /// An estimate from what was seen, since the provider reported no usage, or not all of it.
    Estimate,
    /// No charge: the upstream refused or failed, and the reservation was returned.
    None,
}

impl SettledBy {
    /// The basis's word in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Estimate => "estimate",
            Self::None => "none",
        }
    }
}

/// What a settlement counts.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The tenant, as a label of metrics.
    pub tenant: Label,
    /// The tier that served the request.
    pub tier: Label,
    /// The model that served the request, as a label of metrics.
    pub model: Label,
    /// What was used.
    pub usage: Usage,
    /// What the request cost.
    pub spend: Micros,
    /// How much more the request would have cost at the requested tier.
    pub saved: Micros,
    /// The basis of these figures.
    pub by: SettledBy,
    /// How the request ended.
    pub exit: Exit,
}

/// How an admitted request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The answer was complete, or at least arrived up to the last event that reports usage.
    Answered,
    /// The upstream refused the request (3xx, 4xx).
    UpstreamRefused,
    /// The upstream failed, or could not be reached (5xx).
    UpstreamFailed,
    /// The answer had begun but did not end: the client left, or the upstream broke off.
    Cut,
    /// The client left before an answer.
    Unanswered,
    /// The client left before an answer. It had sent all of the request, but had not ended the stream (HTTP/2, HTTP/3).
    Unended,
    /// The client left before all of the request was sent.
    Unsent,
    /// The proxy itself followed a redirect of the upstream. Another request replaced this one, and is metered separately.
    Redirected,
}

impl Exit {
    /// The word for this end in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::UpstreamRefused => "upstream_refused",
            Self::UpstreamFailed => "upstream_failed",
            Self::Cut => "cut",
            Self::Unanswered => "unanswered",
            Self::Unended => "unended",
            Self::Unsent => "unsent",
            Self::Redirected => "redirected",
        }
    }
}
