//! Which tiers a tenant may be sent to, and how far down a request may go.

use super::{Reason, Request};
use crate::plan::Limits;
use crate::state::record::Record;
use crate::tier::TierSet;

/// A tier, and why it is lower than the requested one, if it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub(super) tier: usize,
    pub(super) reason: Option<Reason>,
}

/// How far down a request may go, and where it may stop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    asked: usize,
    /// The tiers that the tenant may be sent to, from the requested one downwards.
    allowed: TierSet,
    /// The allowed tiers that can serve the request; the requested tier if there are none. So this set is never empty.
    able: TierSet,
    /// The last tier that is allowed.
    last: usize,
    /// Whether the request may go down at all.
    is_movable: bool,
}

impl Reach {
    pub(super) fn of(limits: &Limits, request: &Request<'_>, record: &Record) -> Self {
        let asked = request.asked();
        let only = TierSet::NONE.with(asked);
        let Some(place) = request.place.filter(|_| !limits.never_downgrade) else {
            return Self {
                asked,
                allowed: only,
                able: only,
                last: asked,
                is_movable: false,
            };
        };
        let preferences = &limits.preferences;
        let named = place.ladder.tiers.iter().enumerate();
        // A request for a tier below the floor keeps its tier: nothing is ever upgraded.
        let allowed: TierSet = named
            .take(preferences.floor(place.ladder).max(asked).saturating_add(1))
            .skip(asked)
            .filter(|(_, tier)| preferences.allows(&tier.name))
            .map(|(tier, _)| tier)
            .collect();
        let able: TierSet = allowed
            .iter()
            .filter(|&tier| request.fits(tier, record))
            .collect();
        Self {
            asked,
            allowed,
            able: if able.is_empty() { only } else { able },
            last: allowed.last().unwrap_or(asked),
            is_movable: true,
        }
    }

    /// The tiers that may serve, from this one downwards.
    pub(super) fn from(&self, tier: usize) -> TierSet {
        self.able.from(tier)
    }

    /// Whether a request that is served at this tier may use the overdraft.
    pub(super) fn may_overdraw(&self, tier: usize) -> bool {
        self.is_movable && tier >= self.last
    }

    /// The nearest tier from the wanted one upwards that may serve, else the nearest downwards. If the result is the requested tier
    /// although another one was wanted, the reason says why no other tier will do.
    pub(super) fn nearest(&self, wanted: Choice, request: &Request<'_>) -> Choice {
        let upwards = self.able.until(wanted.tier.saturating_add(1)).last();
        let tier = upwards.or_else(|| self.from(wanted.tier).first());
        let tier = tier.unwrap_or(self.asked);
        let is_allowed = self.allowed.has(tier);
        let reason = if tier > wanted.tier {
            Some(Reason::TierPreference)
        } else if tier == self.asked && (wanted.tier > tier || !is_allowed) {
            let until = if is_allowed { wanted.tier } else { self.last };
            let others = self.allowed.from(tier.saturating_add(1));
            match others.until(until.saturating_add(1)).is_empty() {
                true => Some(Reason::TierPreference),
                false => request.scope.reason.or(wanted.reason),
            }
        } else {
            wanted.reason
        };
        Choice { tier, reason }
    }
}
