//! What a request asks for, and what it costs at each tier.

use super::{Limits, Reason, Talk};
use crate::capacity::Room;
use crate::estimate::Estimate;
use crate::learn::{Figures, Model, PRIOR_ANSWER};
use crate::ledger::Unit;
use crate::record::Record;
use crate::tier::{Place, Price, TierSet};
use crate::trim::Cuts;
use crate::units::{Cost, Timestamp, Tokens, share};

/// What a request asks for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The model that it asks for.
    pub model: &'a str,
    /// `None` for a model on no ladder, which keeps its name.
    pub place: Option<Place<'a>>,
    /// What it may cost as it is, by what is known without the tenant's record.
    pub estimate: Estimate,
    /// What a model on no ladder costs.
    pub unlisted_price: Option<&'a Price>,
    /// How far it can be changed.
    pub scope: Scope,
    /// What is known beside it and the tenant's record.
    pub conditions: Conditions<'a>,
}

/// What is known beside a request and its tenant's record when it is decided about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions<'a> {
    /// What the request finds at the tiers with a capacity, each at its place in the ladder; empty where there is none.
    pub rooms: &'a [Option<Room>],
    /// Tiers whose answers begin later just now than the plan's SLA allows.
    pub slow: TierSet,
    /// Where its conversation was served, if it is known and conversations stay where they are.
    pub conversation: Option<Talk>,
    /// Where its conversation can be cut, for tiers that trim it.
    pub cuts: Option<&'a Cuts>,
}

/// How far a request can be changed without breaking it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Tiers that cannot serve it. The asked one always can.
    pub unfit: TierSet,
    /// Why they cannot.
    pub reason: Option<Reason>,
    /// Its output can be limited, to no less than this for each answer.
    pub least_output: Option<u64>,
}

impl<'a> Ask<'a> {
    /// The model that goes upstream at a tier.
    #[must_use]
    pub fn model_at(&self, tier: usize) -> &'a str {
        self.place.map_or(self.model, |place| {
            place.ladder.model_for(place.asked, tier, self.model)
        })
    }

    /// Whether a tier can serve it. The asked one always can.
    pub(super) fn fits(&self, tier: usize) -> bool {
        tier == self.asked() || !self.scope.unfit.has(tier)
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

    /// What it may cost at a tier with answers of at most `most` tokens, by what the tenant's record says of the model
    /// there.
    ///
    /// Answers that were long before may make this one wait for others in flight, but a guess refuses nothing that the
    /// prior would admit: beyond the prior, no more is reserved than there is room for. Else one long answer could shut a
    /// tenant out whose next ones would be short, and nothing would ever be learned again.
    pub(super) fn at(
        &self,
        tier: usize,
        most: Option<u64>,
        limits: &Limits,
        record: &Record,
        now: Timestamp,
    ) -> Estimate {
        let prior = Tokens(PRIOR_ANSWER);
        let figures = self.figures(tier, record);
        let answer = figures.answers.expected();
        let estimate = Estimate {
            answer,
            ..self.trimmed(tier, &figures)
        };
        if estimate.output_limit.is_some() || answer <= prior {
            return estimate.limited(most);
        }
        let room = Tokens(self.room(tier, &estimate, limits, record, now));
        Estimate {
            answer: answer.min(room).max(prior),
            ..estimate
        }
        .limited(most)
    }

    /// What it may cost as it came, and what to reserve for that.
    #[must_use]
    pub fn as_asked(&self, limits: &Limits, record: &Record, now: Timestamp) -> (Estimate, Cost) {
        let mut whole = *self;
        whole.conditions.cuts = None;
        let estimate = whole.at(self.asked(), None, limits, record, now);
        (estimate, self.reserve(self.asked(), &estimate))
    }

    /// What the tenant's record says of the model at a tier.
    fn figures(&self, tier: usize, record: &Record) -> Figures {
        record.learned.of(Model::of(self.model_at(tier)))
    }

    /// What it may cost at a tier, its conversation cut to what the tier takes.
    fn trimmed(&self, tier: usize, figures: &Figures) -> Estimate {
        let estimate = Estimate {
            bytes_per_token: figures.bytes_per_token,
            ..self.estimate
        };
        let tier = self.place.and_then(|place| place.ladder.tiers.get(tier));
        let cut = self.conditions.cuts.zip(tier).and_then(|(cuts, tier)| {
            let most = estimate.bytes_per_token.bytes(Tokens(tier.trims_to?));
            cuts.to(estimate.body_bytes, most)
        });
        estimate.without(cut.map_or(0, |cut| cut.bytes))
    }

    /// The longest answers that all limits have room for now.
    fn room(
        &self,
        tier: usize,
        estimate: &Estimate,
        limits: &Limits,
        record: &Record,
        now: Timestamp,
    ) -> u64 {
        let on_budget = limits.budget.map_or(u64::MAX, |budget| {
            let left = budget.remaining(&record.account);
            self.most_within(tier, budget.unit, left, record)
                .unwrap_or(0)
        });
        let in_bucket = limits.bucket.map_or(u64::MAX, |quota| {
            let left = quota.available(record.bucket, now);
            let left = left.saturating_sub(estimate.input().0);
            left.checked_div(estimate.choices.max(1)).unwrap_or(0)
        });
        let in_capacity = self.room_at(tier).map_or(u64::MAX, |room| {
            let left = room.available(now).saturating_sub(estimate.input().0);
            left.checked_div(estimate.choices.max(1)).unwrap_or(0)
        });
        on_budget.min(in_bucket).min(in_capacity)
    }

    /// What it finds at a tier with a capacity.
    #[must_use]
    pub fn room_at(&self, tier: usize) -> Option<&'a Room> {
        self.conditions.rooms.get(tier)?.as_ref()
    }

    /// What to reserve at a tier for what may be needed.
    #[must_use]
    pub fn reserve(&self, tier: usize, estimate: &Estimate) -> Cost {
        estimate.ceiling(self.price(tier))
    }

    /// The longest answers for which the request costs no more than `room`; `None` if not even its prompt does.
    pub(super) fn most_within(
        &self,
        tier: usize,
        unit: Unit,
        room: u64,
        record: &Record,
    ) -> Option<u64> {
        let without = self.trimmed(tier, &self.figures(tier, record));
        let without = without.limited(Some(0));
        let prompt = unit.of(self.reserve(tier, &without));
        let room = room.checked_sub(prompt)?;
        let tokens = match unit {
            Unit::Tokens => room,
            // A micro less, since each part may be rounded up.
            Unit::UsdMicros => {
                let price = self.price(tier)?.output.max(1);
                share(room.saturating_sub(1), 1_000_000, price)
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
}
