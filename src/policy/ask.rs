//! What a request asks for, and what it costs at each tier.

use super::Reason;
use crate::estimate::Estimate;
use crate::ledger::Unit;
use crate::tier::{Place, Price};
use crate::units::Cost;

/// What a request asks for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// `None` for a model on no ladder, which keeps its name.
    pub place: Option<Place<'a>>,
    /// What it may cost as it is.
    pub estimate: Estimate,
    /// What a model on no ladder costs.
    pub unlisted_price: Option<&'a Price>,
    /// How far it can be changed.
    pub scope: Scope,
}

/// How far a request can be changed without breaking it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Tiers other than the asked one that cannot serve it, a bit each.
    pub unfit: u64,
    /// Why they cannot.
    pub reason: Option<Reason>,
    /// Its output can be limited, to no less than this for each answer.
    pub least_output: Option<u64>,
}

impl Ask<'_> {
    /// Whether a tier can serve it. The asked one always can.
    pub(super) fn fits(&self, tier: usize) -> bool {
        let bit = u32::try_from(tier)
            .ok()
            .and_then(|tier| 1_u64.checked_shl(tier));
        tier == self.asked() || bit.is_some_and(|bit| self.scope.unfit & bit == 0)
    }

    /// The tier that it asks for.
    pub(super) fn asked(&self) -> usize {
        self.place.map_or(0, |place| place.asked)
    }

    /// The longest answer that a tier gives it, if the tier says so and the request can be told.
    pub(super) fn most_output(&self, tier: usize) -> Option<u64> {
        let tier = self.place?.ladder.tiers.get(tier)?;
        Some(tier.max_output_tokens?.max(self.scope.least_output?))
    }

    /// What it may cost with answers of at most `most` tokens.
    #[must_use]
    pub fn limited(&self, most: Option<u64>) -> Estimate {
        self.estimate.limited(most)
    }

    /// What to reserve at a tier.
    pub(super) fn cost(&self, tier: usize, most: Option<u64>) -> Cost {
        self.limited(most).ceiling(self.price(tier))
    }

    /// The longest answers for which the request costs no more than `room`; `None` if not even its prompt does.
    pub(super) fn most_within(&self, tier: usize, unit: Unit, room: u64) -> Option<u64> {
        let prompt = unit.of(self.cost(tier, Some(0)));
        let room = room.checked_sub(prompt)?;
        let tokens = match unit {
            Unit::Tokens => room,
            // A micro less, since each part may be rounded up.
            Unit::UsdMicros => {
                let price = u128::from(self.price(tier)?.output.max(1));
                let millionths = u128::from(room.saturating_sub(1)).saturating_mul(1_000_000);
                u64::try_from(millionths.checked_div(price)?).unwrap_or(u64::MAX)
            }
        };
        tokens.checked_div(self.estimate.choices.max(1))
    }

    /// The price at a tier.
    #[must_use]
    pub fn price(&self, tier: usize) -> Option<&Price> {
        match &self.place {
            Some(place) => place
                .ladder
                .tiers
                .get(tier)
                .and_then(|tier| tier.price.as_ref()),
            None => self.unlisted_price,
        }
    }

    pub(super) fn is_last(&self, tier: usize) -> bool {
        self.place.is_some_and(|place| tier >= place.ladder.last())
    }
}
