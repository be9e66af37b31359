//! How far a request can be changed: which tiers can serve it, and whether its output can be limited.

use crate::api::{Endpoint, Facts};
use crate::policy::{Reason, Scope};
use crate::tier::{Needs, Place};

/// The scope of a request. `is_read`: its body is known as a whole.
pub(super) fn scope(
    endpoint: &Endpoint,
    facts: &Facts,
    requested: &str,
    place: Option<Place<'_>>,
    is_read: bool,
) -> Scope {
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
        endpoint.wire.possible_needs()
    };
    let tiers = place.map_or(&[][..], |place| &place.ladder.tiers);
    let is_fit = |model: &str, supports: Needs| {
        pinned.is_none() && needs.are_in(supports) && endpoint.wire.can_exchange(requested, model)
    };
    let unfit = tiers
        .iter()
        .enumerate()
        .filter(|(_, tier)| !is_fit(&tier.model, tier.supports))
        .map(|(tier, _)| tier)
        .collect();
    let unsupported = if is_read || !depends_on_rest(endpoint, place) {
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

/// Whether what is still unread of a request may decide which of the tiers below the asked one can serve it.
pub(super) fn depends_on_rest(endpoint: &Endpoint, place: Option<Place<'_>>) -> bool {
    let possible = endpoint.wire.possible_needs();
    !endpoint.is_signed
        && place.is_some_and(|place| {
            let lower = place
                .ladder
                .tiers
                .iter()
                .skip(place.asked.saturating_add(1));
            lower
                .into_iter()
                .any(|tier| !possible.are_in(tier.supports))
        })
}
