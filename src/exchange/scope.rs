//! How far a request can be changed: which tiers can serve it, and whether its output can be limited.

use crate::policy::{Reason, Request, Scope};
use crate::provider::{Endpoint, Facts};
use crate::published::metric::Label;
use crate::report::metrics;
use crate::tier::{LadderPlace, Needs};

/// How much of a request's body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// All of it.
    Whole,
    /// A part of the body, and its whole length.
    Length,
    /// A part of the body.
    Part,
}

/// The scope of a request.
pub(super) fn scope(
    endpoint: &Endpoint,
    facts: &Facts,
    requested: &str,
    place: Option<LadderPlace<'_>>,
    known: Known,
) -> Scope {
    let is_read = known == Known::Whole;
    let pinned = if endpoint.is_signed {
        Some(Reason::Signed)
    } else if requested.is_empty() || endpoint.model.as_ref().is_some_and(|model| model.is_own) {
        // A model that is not named comes with a stored prompt.
        Some(Reason::Bound)
    } else {
        None
    };
    let needs = if is_read {
        facts.needs
    } else {
        facts.needs | endpoint.wire.possible_needs(requested)
    };
    let tiers = place.map_or(&[][..], |place| &place.ladder.tiers);
    let is_fit = |model: &str, supports: Needs| {
        pinned.is_none() && needs.are_in(supports) && endpoint.wire.can_exchange(requested, model)
    };
    let unfit = tiers
        .iter()
        .enumerate()
        .filter(|(_, tier)| {
            let may_be_too_long = known == Known::Part && tier.context_window.is_some();
            may_be_too_long || !is_fit(&tier.model, tier.supports)
        })
        .map(|(tier, _)| tier)
        .collect();
    let unsupported = if is_read || !depends_on_rest(endpoint, requested, place, known) {
        Reason::Unsupported
    } else {
        Reason::Unread
    };
    let has_limit =
        !is_read || facts.output_limit.is_some() || endpoint.wire.output_limits().name.is_some();
    Scope {
        unfit,
        reason: Some(pinned.unwrap_or(unsupported)),
        least_output: (has_limit && !endpoint.is_signed).then_some(facts.least_output.max(1)),
    }
}

/// Whether the unread part of a request may decide which of the tiers below the requested one can serve it.
pub(super) fn depends_on_rest(
    endpoint: &Endpoint,
    requested: &str,
    place: Option<LadderPlace<'_>>,
    known: Known,
) -> bool {
    let possible = endpoint.wire.possible_needs(requested);
    !endpoint.is_signed
        && place.is_some_and(|place| {
            let lower = place
                .ladder
                .tiers
                .iter()
                .skip(place.asked.saturating_add(1));
            let is_open = known == Known::Part;
            lower.into_iter().any(|tier| {
                !possible.are_in(tier.supports) || is_open && tier.context_window.is_some()
            })
        })
}

/// The name by which a tier is reported.
pub(super) fn tier_name(request: &Request<'_>, tier: usize) -> Label {
    let tier = request.place.and_then(|place| place.ladder.tiers.get(tier));
    tier.map_or_else(|| metrics::UNLISTED.into(), |tier| (&tier.name).into())
}
