//! Conversations that stay where they are: which one a request belongs to, where it was served, and where it is now.

use super::*;
use crate::conversation::{self, Name, Served};
use crate::learn::Model;
use crate::policy::{Ask, Sticky, Talk, Would};
use crate::store::conversations_key;
use crate::window::Window;

/// How a tenant's conversations stay where they are, if they do: within a budget's window. For tenants that are not
/// configured nothing is kept, since made-up ones would have to share what there is.
pub(super) fn sticky(payer: &Payer) -> Option<&Sticky> {
    let limits = &payer.plan.limits;
    let may_move = payer.configured && !limits.never_downgrade && limits.budget.is_some();
    limits.sticky.as_ref().filter(|_| may_move)
}

/// The name that the configured header gives a request's conversation.
pub(super) fn named(payer: &Payer, request: &Headers) -> Option<Name> {
    let value = request.only(sticky(payer)?.header.as_deref()?)?;
    (!value.is_empty()).then(|| Name::of_header(value))
}

/// Where the conversation was served in this window.
pub(super) fn look(
    store: &impl Store,
    payer: &Payer,
    ask: &Ask<'_>,
    name: &Name,
    now: Timestamp,
) -> Option<Talk> {
    let tiers = &ask.place?.ladder.tiers;
    let key = conversations_key(payer.id.as_str());
    let served = conversation::look(store, &key, window(payer, now)?, name)?;
    let tier = tiers
        .iter()
        .position(|tier| Model::of(&tier.model) == served.model)?;
    Some(Talk {
        tier,
        is_lower: served.is_lower,
    })
}

/// Notes where the conversation is served now; in shadow mode, where it would be.
pub(super) fn note(
    store: &impl Store,
    payer: &Payer,
    ask: &Ask<'_>,
    admission: &Admission,
    name: &Name,
    now: Timestamp,
) -> Troubles {
    let tier = match admission.shadow {
        None => Some(admission.tier),
        Some(Would::Admit { tier, .. }) => Some(tier),
        Some(Would::Refuse(_) | Would::Unavailable) => None,
    };
    // Without our state, the model that was asked for serves whatever the budget says.
    let tier = tier.filter(|_| admission.record.is_some());
    let served = tier.zip(ask.place).and_then(|(tier, place)| {
        Some(Served {
            model: Model::of(&place.ladder.tiers.get(tier)?.model),
            is_lower: tier > place.asked,
        })
    });
    match served.zip(window(payer, now)) {
        Some((served, window)) => {
            let key = conversations_key(payer.id.as_str());
            conversation::note(store, &key, window, name, served)
        }
        None => Troubles::default(),
    }
}

fn window(payer: &Payer, now: Timestamp) -> Option<Window> {
    let budget = payer.plan.limits.budget.as_ref()?;
    Some(budget.period.at(now))
}
