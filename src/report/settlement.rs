//! The end of a request, as operators read it: what was used, by whose word, and how it ended.

use crate::base::units::Micros;
use crate::published::metric::Label;
use crate::usage::Usage;

/// By what a request was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettledBy {
    /// What the provider reported.
    Usage,
    /// What was seen, since the provider reported nothing or not all.
    Estimate,
    /// Nothing: the upstream refused or failed, and the reservation was returned.
    None,
}

impl SettledBy {
    /// The word for it.
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
    /// Label of the tenant.
    pub tenant: Label,
    /// The tier that served.
    pub tier: Label,
    /// Label of the model that served.
    pub model: Label,
    /// What was used.
    pub usage: Usage,
    /// What it cost.
    pub spend: Micros,
    /// What it would have cost beyond that at the requested tier.
    pub saved: Micros,
    /// Where the figures come from.
    pub by: SettledBy,
    /// How the request ended.
    pub exit: Exit,
}

/// How an admitted request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With an answer, up to its end or to the last that the provider reports.
    Answered,
    /// The upstream refused it (3xx, 4xx).
    UpstreamRefused,
    /// The upstream failed, or could not be reached (5xx).
    UpstreamFailed,
    /// Its answer had begun and did not end: the client left, or the upstream broke off.
    Cut,
    /// The client left before an answer.
    Unanswered,
    /// The client left before an answer, and had never ended its request, though all of it was sent (HTTP/2, HTTP/3).
    Unended,
    /// The client left before all of the request was sent.
    Unsent,
    /// The proxy itself followed a redirect of the upstream: another request took its place, and is metered as one.
    Redirected,
}

impl Exit {
    /// The word for it.
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
