//! A request as the decision sees it, and what that request costs at each tier.

use super::standing::{Stand, standings};
use super::{Book, ConversationPlacement, Expected, Reason};
use crate::base::units::{Timestamp, Tokens, Unit, share};
use crate::conversation::trim::CutPoints;
use crate::estimate::Estimate;
use crate::estimate::learn::{Figures, Model, PRIOR_ANSWER};
use crate::limits::capacity::Headroom;
use crate::plan::Limits;
use crate::state::record::Record;
use crate::tier::{LadderPlace, Price, TierSet};

/// A request as the decision sees it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The requested model.
    pub model: &'a str,
    /// The model's ladder, and its tier there; `None` for a model on no ladder, which keeps its name.
    pub place: Option<LadderPlace<'a>>,
    /// What the request may cost, estimated without the tenant's record.
    pub estimate: Estimate,
    /// What a model on no ladder costs.
    pub unlisted_price: Option<&'a Price>,
    /// How far the request can be changed.
    pub scope: Scope,
    /// What the decision depends on besides the request and the tenant's record.
    pub conditions: Conditions<'a>,
}

/// What a decision depends on besides the request and the tenant's record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions<'a> {
    /// The books that the request is charged against besides its tenant's own.
    pub books: &'a [Book<'a>],
    /// The headroom that the request finds at each tier with a capacity, at the tier's index in the ladder; empty if no tier has a
    /// capacity.
    pub rooms: &'a [Option<Headroom>],
    /// Tiers whose upstream currently refuses.
    pub pressed: TierSet,
    /// Tiers whose answers currently begin later than the plan's SLA allows.
    pub slow: TierSet,
    /// Where the request's conversation was served, if that is known and the plan keeps conversations at their tier.
    pub conversation: Option<ConversationPlacement>,
    /// Where its conversation can be cut, for tiers that trim it.
    pub cuts: Option<&'a CutPoints>,
    /// Whether the request names a model that the plan does not allow. Set in shadow mode only: without it such a request was refused
    /// earlier.
    pub barred: bool,
    /// Bytes of its body that are announced and have not arrived yet.
    pub unread_bytes: u64,
}

/// How far a request can be changed without breaking it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Tiers that cannot serve the request. The requested tier always can.
    pub unfit: TierSet,
    /// Why these tiers cannot serve the request.
    pub reason: Option<Reason>,
    /// The request's output can be limited, to no less than this for each answer.
    pub least_output: Option<u64>,
}

impl<'a> Request<'a> {
    /// The same request with other headroom of the tiers and with other books.
    #[must_use]
    pub fn finding<'b>(&self, rooms: &'b [Option<Headroom>], books: &'b [Book<'b>]) -> Request<'b>
    where
        'a: 'b,
    {
        let mut request: Request<'b> = *self;
        request.conditions.rooms = rooms;
        request.conditions.books = books;
        request
    }

    /// The same request without what its tenant's plan, parents and other tenants add to it.
    #[must_use]
    pub fn alone(&self) -> Self {
        let mut request = *self;
        request.conditions = Conditions {
            books: &[],
            rooms: &[],
            slow: TierSet::default(),
            conversation: None,
            barred: false,
            ..self.conditions
        };
        request
    }

    /// The model that goes upstream at a tier.
    #[must_use]
    pub fn model_at(&self, tier: usize) -> &'a str {
        self.place.map_or(self.model, |place| {
            place.ladder.model_for(place.asked, tier, self.model)
        })
    }

    /// Whether a tier can serve the request. The requested tier always can.
    pub(super) fn fits(&self, tier: usize, record: &Record) -> bool {
        tier == self.asked() || !self.scope.unfit.has(tier) && self.is_within_window(tier, record)
    }

    /// Whether the request's prompt is expected to fit into the tier's context window, by what the tenant's record says of the model there.
    fn is_within_window(&self, tier: usize, record: &Record) -> bool {
        let tiers = self.place.map(|place| &place.ladder.tiers);
        let window = tiers.and_then(|tiers| tiers.get(tier)?.context_window);
        window.is_none_or(|window| {
            let prompt = self.trimmed(tier, &self.figures(tier, record)).input();
            prompt <= Tokens(window)
        })
    }

    /// The requested tier.
    pub(super) fn asked(&self) -> usize {
        self.place.map_or(0, |place| place.asked)
    }

    /// The longest answer that a tier gives to the request, if the tier has such a limit and the request can be limited.
    pub(super) fn most_output(&self, tier: usize) -> Option<u64> {
        let tier = self.place?.ladder.tiers.get(tier)?;
        Some(tier.max_output_tokens?.max(self.scope.least_output?))
    }

    /// What the request may cost at a tier with answers of at most `most` tokens, by what the tenant's record says of the model there.
    ///
    /// If earlier answers were long, this request may have to wait for others in flight. But a learned estimate never causes a refusal
    /// where the prior would admit: beyond the prior, no more is reserved than there is room for. Otherwise one long answer could shut out
    /// a tenant whose next answers would be short, and nothing would ever be learned again.
    pub(crate) fn at(
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

    /// What the request may cost if it is forwarded unchanged.
    #[must_use]
    pub fn as_asked(
        &self,
        limits: &Limits,
        record: &Record,
        now: Timestamp,
    ) -> (Estimate, Expected) {
        let mut whole = *self;
        whole.conditions.cuts = None;
        let estimate = whole.at(self.asked(), None, limits, record, now);
        let expected = self.expected(self.asked(), &estimate, limits, record, now);
        (estimate, expected)
    }

    /// What the tenant's record says of the model at a tier.
    fn figures(&self, tier: usize, record: &Record) -> Figures {
        record.learned.of(Model::of(self.model_at(tier)))
    }

    /// What the request may cost at a tier once its conversation is cut to the length that the tier takes.
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

    /// The longest answers for which all limits have room now.
    fn room(
        &self,
        tier: usize,
        estimate: &Estimate,
        limits: &Limits,
        record: &Record,
        now: Timestamp,
    ) -> u64 {
        let each = |output: u64| output.checked_div(estimate.choices.max(1)).unwrap_or(0);
        let within = |tokens: u64| each(tokens.saturating_sub(estimate.input().0));
        let all = standings(limits, self.conditions.books, record);
        let here = all.filter(|limit| limit.holds_at(self, tier));
        let lengths = here.filter_map(|limit| match limit.state {
            Stand::Budget(budget, account) => {
                let left = budget.headroom(account, budget.allowance(account));
                let most = self.most_within(tier, budget.unit, left, record);
                Some(most.unwrap_or(0))
            }
            Stand::Tokens(quota, bucket) => {
                let prompt = estimate.limited(Some(0)).cells();
                let left = quota.available(bucket, now).saturating_sub(prompt);
                Some(each(estimate.output_within(left)))
            }
            Stand::Requests(..) | Stand::Concurrency(..) => None,
        });
        let in_limits = lengths.min().unwrap_or(u64::MAX);
        let in_capacity = self.room_at(tier);
        let in_capacity = in_capacity.map_or(u64::MAX, |room| within(room.available(now)));
        in_limits.min(in_capacity)
    }

    /// The headroom that the request finds at a tier that has a capacity.
    #[must_use]
    pub fn room_at(&self, tier: usize) -> Option<&'a Headroom> {
        self.conditions.rooms.get(tier)?.as_ref()
    }

    /// What the request costs at a tier, for budgets to reserve.
    #[must_use]
    pub fn expected(
        &self,
        tier: usize,
        estimate: &Estimate,
        limits: &Limits,
        record: &Record,
        now: Timestamp,
    ) -> Expected {
        // Without a budget nothing is reserved.
        let books = self.conditions.books.iter().map(|book| book.limits);
        let mut all = std::iter::once(limits).chain(books);
        if all.all(|limits| limits.budgets().next().is_none()) {
            return Expected::default();
        }
        let price = self.price(tier);
        let largest = self.figures(tier, record).largest;
        Expected {
            ceiling: estimate.ceiling(price),
            likely: largest.likely(estimate, price, now),
        }
    }

    /// The longest answers for which the request costs no more than `room`; `None` if its prompt alone costs more.
    pub(super) fn most_within(
        &self,
        tier: usize,
        unit: Unit,
        room: u64,
        record: &Record,
    ) -> Option<u64> {
        let without = self.trimmed(tier, &self.figures(tier, record));
        let without = without.limited(Some(0));
        let prompt = unit.of(without.ceiling(self.price(tier)));
        let room = room.checked_sub(prompt)?;
        let tokens = match unit {
            Unit::Tokens => without.output_within(room),
            // One micro less, since each part may be rounded up.
            Unit::UsdMicros => {
                let input = Tokens(without.body_bytes);
                let price = self.price(tier)?.dearest_output(input).max(1);
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
