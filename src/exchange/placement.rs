//! Conversations that stay at their tier: which conversation a request belongs to, where it was served, and where it is served now.

use crate::admission::Admission;
use crate::admission::ledger::Ledger;
use crate::admission::tenant::Tenant;
use crate::base::units::Timestamp;
use crate::calendar::window::Window;
use crate::conversation;
use crate::conversation::{ConversationId, Served};
use crate::estimate::learn::Model;
use crate::http::Headers;
use crate::plan::Sticky;
use crate::policy::{ConversationPlacement, Request, ShadowDecision};
use crate::state::store::{Store, conversations_key};

/// How a tenant's conversations stay at their tier, within a window of the budget; `None` if they do not. Nothing is kept for
/// tenants that are not configured: made-up ones would share that memory.
pub(super) fn sticky(tenant: &Tenant) -> Option<&Sticky> {
    let limits = &tenant.plan.limits;
    let may_move =
        tenant.configured && !limits.never_downgrade && limits.budgets().next().is_some();
    limits.sticky.as_ref().filter(|_| may_move)
}

/// The name that the configured header gives a request's conversation.
pub(super) fn named(tenant: &Tenant, request: &Headers) -> Option<ConversationId> {
    let value = request.only(sticky(tenant)?.header.as_deref()?)?;
    (!value.is_empty()).then(|| ConversationId::of_header(value))
}

/// Where the conversation was served in this window.
pub(super) fn look<S: Store>(
    ledger: &Ledger<'_, S>,
    request: &Request<'_>,
    id: &ConversationId,
) -> Option<ConversationPlacement> {
    let tiers = &request.place?.ladder.tiers;
    let window = window(ledger.tenant, ledger.now)?;
    let served = conversation::look(ledger.store, &key(ledger.tenant), window, id)?;
    let tier = tiers
        .iter()
        .position(|tier| Model::of(&tier.model) == served.model)?;
    Some(ConversationPlacement {
        tier,
        is_lower: served.is_lower,
    })
}

/// Records where the conversation is served; in shadow mode, where it would be.
pub(super) fn note<S: Store>(
    ledger: &mut Ledger<'_, S>,
    request: &Request<'_>,
    admission: &Admission,
    id: &ConversationId,
) {
    let tier = match admission.shadow {
        None => Some(admission.tier),
        Some(ShadowDecision::Admit { tier, .. }) => Some(tier),
        Some(ShadowDecision::Refuse(_) | ShadowDecision::Barred | ShadowDecision::Unavailable) => {
            None
        }
    };
    // Without state the requested model serves, whatever the budget says.
    let tier = tier.filter(|_| admission.record.is_some());
    let served = tier.zip(request.place).and_then(|(tier, place)| {
        Some(Served {
            model: Model::of(&place.ladder.tiers.get(tier)?.model),
            is_lower: tier > place.asked,
        })
    });
    if let Some((served, window)) = served.zip(window(ledger.tenant, ledger.now)) {
        let key = key(ledger.tenant);
        ledger.count(conversation::note(ledger.store, &key, window, id, served));
    }
}

fn key(tenant: &Tenant) -> String {
    conversations_key(tenant.id.account())
}

fn window(tenant: &Tenant, now: Timestamp) -> Option<Window> {
    let budget = tenant.plan.limits.budgets().next()?;
    Some(budget.period.at(now))
}
