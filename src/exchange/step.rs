//! What the proxy has to do: changes of the current message, and what is to be counted and logged.

use crate::admission::{CapacityHold, Watch};
use crate::base::text::Text;
use crate::body::rewrite::Edit;
use crate::http::Headers;
use crate::report::headers;
use crate::report::log_fields::Field;
use crate::report::metrics::Metric;
use crate::report::refusal::Reply;
use crate::state::store::StateFaults;

/// What the proxy has to do now.
#[must_use]
#[derive(Debug, Default)]
pub struct Step {
    /// Changes of the current headers, in this order.
    pub headers: Vec<HeaderChange>,
    /// Change of the current body or chunk.
    pub body: BodyChange,
    /// Whether the message is forwarded.
    pub next: Next,
    /// What is to be counted.
    pub metrics: Vec<Metric>,
    /// Fields for the access log.
    pub fields: Vec<Field>,
    /// The capacity whose gauge is to be set.
    pub capacity: Option<Box<CapacityHold>>,
    /// Faults of bursar's own state.
    pub faults: StateFaults,
    /// Records about whose shared limits lines to the store are due.
    pub watches: Vec<Watch>,
}

/// A change of one header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderChange {
    /// Replaces any header of that name.
    Set(&'static str, Text),
    /// As `Set`, if there is no such header yet, which is cheaper for the proxy.
    Add(&'static str, Text),
    /// Removes all headers of that name.
    Remove(Vec<u8>),
}

/// A change of the current body or chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BodyChange {
    /// Unchanged.
    #[default]
    Keep,
    /// Replaces some values in the whole held body; sorted.
    Edit(Vec<Edit>),
    /// Replaces the chunk by these bytes.
    Replace(Vec<u8>),
}

/// Whether a message is forwarded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Next {
    /// The message is forwarded.
    #[default]
    Continue,
    /// The message waits for more of its body.
    Pause,
    /// The request waits for this proxy's part of a shared budget: the exchange is restarted in a moment. The step contains nothing else.
    Park,
    /// Bursar answers the request.
    Reply(Reply),
}

impl Step {
    /// A step that only counts faults of bursar's own state.
    pub(super) fn of(faults: StateFaults) -> Self {
        Self {
            faults,
            ..Self::default()
        }
    }

    pub(super) fn pause() -> Self {
        Self {
            next: Next::Pause,
            ..Self::default()
        }
    }

    /// This step and the next one as a single step.
    pub(super) fn and(mut self, after: Self) -> Self {
        append(&mut self.headers, after.headers);
        self.next = after.next;
        append(&mut self.metrics, after.metrics);
        append(&mut self.fields, after.fields);
        self.capacity = self.capacity.or(after.capacity);
        self.faults = self.faults.and(after.faults);
        append(&mut self.watches, after.watches);
        self
    }

    /// This step, with what `other` counts and logs.
    pub(super) fn reporting(mut self, other: Self) -> Self {
        append(&mut self.metrics, other.metrics);
        append(&mut self.fields, other.fields);
        self.capacity = self.capacity.or(other.capacity);
        self.faults = self.faults.and(other.faults);
        append(&mut self.watches, other.watches);
        self
    }

    /// This step, after which lines to the store about these records are due.
    pub(super) fn watching(mut self, watches: Vec<Watch>) -> Self {
        append(&mut self.watches, watches);
        self
    }
}

/// Appends `more` to `list`.
pub(super) fn append<T>(list: &mut Vec<T>, more: Vec<T>) {
    if list.is_empty() {
        *list = more;
    } else {
        list.extend(more);
    }
}

/// Removes headers that only bursar may set, if a client or an upstream sent them. WSGI and CGI take an underscore for a hyphen,
/// so this does too.
pub(super) fn foreign(message: &Headers) -> Vec<HeaderChange> {
    let plain = |byte: &u8| {
        if *byte == b'_' {
            b'-'
        } else {
            byte.to_ascii_lowercase()
        }
    };
    let is_ours = |name: &[u8]| {
        let start = name.get(..headers::PREFIX.len());
        start.is_some_and(|start| start.iter().map(plain).eq(headers::PREFIX.bytes()))
    };
    let mut names: Vec<&[u8]> = Vec::new();
    for name in message.names_from([b'x', b'X']) {
        if is_ours(name) && !names.contains(&name) {
            names.push(name);
        }
    }
    names
        .into_iter()
        .map(|name| HeaderChange::Remove(name.to_vec()))
        .collect()
}

/// Headers by which a client that Envoy trusts makes Envoy retry, or time out early. They are removed, because the provider bills
/// answers even if nobody sees them (<https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/http/http_filters/router_filter>).
const RETRYING: [&str; 10] = [
    "x-envoy-upstream-stream-duration-ms",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-max-retries",
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
    "x-envoy-hedge-on-per-try-timeout",
];

/// Headers by which a client requests only a part of the answer, without its usage (RFC 9110, 14.2; Google's APIs obey them, by
/// <https://cloud.google.com/apis/docs/system-parameters>, read 2026-11-29).
const PARTIAL: [&[u8]; 2] = [b"range", b"if-range"];

/// Removes both kinds of headers. Retries and timeouts are for the route to set. A signed request keeps the headers of the second kind,
/// which its signature may cover.
pub(super) fn evading(request: &Headers, is_signed: bool) -> Vec<HeaderChange> {
    // Envoy itself puts `x-envoy-expected-rq-timeout-ms` into each request, so the prefix alone says little.
    let is_one = |name: &[u8]| {
        let mut retrying = RETRYING.iter().map(|one| one.as_bytes());
        name.starts_with(b"x-envoy-") && retrying.any(|one| one == name)
            || !is_signed && PARTIAL.contains(&name)
    };
    let mut sent: Vec<&[u8]> = Vec::new();
    for name in request
        .names_from([b'x', b'r', b'i'])
        .filter(|name| is_one(name))
    {
        if !sent.contains(&name) {
            sent.push(name);
        }
    }
    let removed = sent.into_iter();
    removed
        .map(|name| HeaderChange::Remove(name.to_vec()))
        .collect()
}
