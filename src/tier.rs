//! Tiers: which model serves a request, what that costs, and which ladder a model is on.

pub mod latency;
mod needs;
pub mod pressure;
mod price;
mod served;
mod weights;

use crate::base::glob;
use crate::base::name::Name;
use crate::base::units::{Cost, Micros, Ppm};
use crate::limits::capacity::CapacitySource;
use crate::limits::pace;
use crate::usage::Usage;
pub use needs::Needs;
pub use price::{Price, Rates, Step};
pub use served::price_of_answer;
pub use weights::{RequestWeights, Weights};

/// What a usage costs in both units of a budget; no money if there is no price.
#[must_use]
pub fn cost(usage: &Usage, price: Option<&Price>) -> Cost {
    Cost {
        tokens: usage.total(),
        usd: price.map_or(Micros(0), |price| price.of(usage)),
    }
}

/// One step of a ladder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// The tier's name, as operators and routes know it.
    pub name: Name,
    /// The model that serves the tier.
    pub model: Name,
    /// The price of the model; `None` if no budget needs it.
    pub price: Option<Price>,
    /// The tier's low-water mark: the tier applies while less than this fraction of the budget remains.
    pub below: Option<Ppm>,
    /// What the tier's model can do.
    pub supports: Needs,
    /// The longest prompt that the model takes, in tokens.
    pub context_window: Option<u64>,
    /// Whether the tier's upstream accepts a request for a stream's usage.
    pub asks_usage: bool,
    /// The longest answer that the model gives, in tokens.
    pub max_output_tokens: Option<u64>,
    /// The number of tokens to which the tier trims longer conversations.
    pub trims_to: Option<u64>,
    /// What all tenants together may use of the tier; `None` for no limit.
    pub capacity: Option<CapacitySource>,
    /// Whether callers use provider keys of their own at this tier.
    pub own_credentials: bool,
}

/// Tiers, the best first, and the models that start on this ladder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ladder {
    /// Globs (`*` stands for any text) of models that start at the top.
    pub matches: Vec<String>,
    /// The tiers: at least one, and at most [`MAX_TIERS`].
    pub tiers: Vec<Tier>,
}

/// Most tiers of a ladder.
pub const MAX_TIERS: usize = pace::LEVELS + 1;

/// A set of tiers of one ladder, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierSet(u16);

impl TierSet {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// These tiers and one more, given by its index into the ladder.
    #[must_use]
    pub fn with(self, tier: usize) -> Self {
        Self(self.0 | Self::bit(tier))
    }

    /// These tiers without the one at this index of the ladder.
    #[must_use]
    pub fn without(self, tier: usize) -> Self {
        Self(self.0 & !Self::bit(tier))
    }

    /// Whether a tier is in this set. An index beyond [`MAX_TIERS`] never is.
    #[must_use]
    pub fn has(self, tier: usize) -> bool {
        self.0 & Self::bit(tier) != 0
    }

    /// Whether this set is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// The tiers that are not in the other set.
    #[must_use]
    pub fn less(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// This tier and those after it.
    #[must_use]
    pub fn from(self, tier: usize) -> Self {
        Self(self.0 & !Self::before(tier))
    }

    /// The tiers before this one.
    #[must_use]
    pub fn until(self, tier: usize) -> Self {
        Self(self.0 & Self::before(tier))
    }

    /// The best tier of the set.
    #[must_use]
    pub fn first(self) -> Option<usize> {
        (!self.is_empty()).then(|| usize::try_from(self.0.trailing_zeros()).unwrap_or_default())
    }

    /// The last tier of the set.
    #[must_use]
    pub fn last(self) -> Option<usize> {
        usize::try_from(self.0.checked_ilog2()?).ok()
    }

    /// The tiers of the set, the best first.
    pub fn iter(mut self) -> impl Iterator<Item = usize> {
        std::iter::from_fn(move || {
            let first = self.first()?;
            self = self.without(first);
            Some(first)
        })
    }

    /// All tiers before this one.
    fn before(tier: usize) -> u16 {
        match Self::bit(tier) {
            0 => u16::MAX,
            bit => bit.wrapping_sub(1),
        }
    }

    fn bit(tier: usize) -> u16 {
        let tier = u32::try_from(tier).ok();
        tier.and_then(|tier| 1_u16.checked_shl(tier))
            .unwrap_or_default()
    }
}

impl FromIterator<usize> for TierSet {
    fn from_iter<I: IntoIterator<Item = usize>>(tiers: I) -> Self {
        tiers.into_iter().fold(Self::NONE, Self::with)
    }
}

/// Where a model is: on a ladder, at the requested tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LadderPlace<'a> {
    /// The ladder.
    pub ladder: &'a Ladder,
    /// Index of the requested tier.
    pub asked: usize,
}

impl Ladder {
    /// Index of the last tier.
    #[must_use]
    pub fn last(&self) -> usize {
        self.tiers.len().saturating_sub(1)
    }

    /// Whether some tier limits the length of its answers.
    #[must_use]
    pub fn limits_output(&self) -> bool {
        self.tiers
            .iter()
            .any(|tier| tier.max_output_tokens.is_some())
    }

    /// Whether every tier's upstream accepts a request for a stream's usage.
    #[must_use]
    pub fn always_asks_usage(&self) -> bool {
        self.tiers.iter().all(|tier| tier.asks_usage)
    }

    /// Whether some tier from `asked` downwards trims conversations.
    #[must_use]
    pub fn trims(&self, asked: usize) -> bool {
        let mut from_there = self.tiers.iter().skip(asked);
        from_there.any(|tier| tier.trims_to.is_some())
    }

    /// Bytes of the longest name that can replace the requested one, as a JSON text.
    #[must_use]
    pub fn longest_model(&self) -> u64 {
        let length = |name: &str| {
            let bytes = name.bytes().map(|byte| match byte {
                0..b' ' => 6_u64,
                b'"' | b'\\' => 2,
                _ => 1,
            });
            bytes.fold(2, u64::saturating_add)
        };
        let lower = self.tiers.iter().skip(1);
        lower.map(|tier| length(&tier.model)).max().unwrap_or(0)
    }

    /// The model that goes upstream: the top tier and the requested tier keep the requested name.
    #[must_use]
    pub fn model_for<'a>(&'a self, asked: usize, chosen: usize, requested: &'a str) -> &'a str {
        match self.tiers.get(chosen) {
            Some(tier) if chosen > asked => &tier.model,
            _ => requested,
        }
    }
}

/// Finds the ladder of a model: the one that names the model, else the first one with a glob that matches. Letter case does not matter (see
/// [`glob`]).
#[must_use]
pub fn place<'a>(ladders: &'a [Ladder], model: &str) -> Option<LadderPlace<'a>> {
    let named = ladders.iter().find_map(|ladder| {
        let is_it = |tier: &Tier| tier.model.eq_ignore_ascii_case(model);
        let asked = ladder.tiers.iter().position(is_it)?;
        Some(LadderPlace { ladder, asked })
    });
    named.or_else(|| {
        let ladder = ladders
            .iter()
            .find(|ladder| ladder.matches.iter().any(|glob| glob::matches(glob, model)))?;
        Some(LadderPlace { ladder, asked: 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn ladder(matches: &[&str], models: &[&str]) -> Ladder {
        let tier = |model: &&str| Tier {
            name: format!("t-{model}").into(),
            model: (*model).into(),
            price: None,
            below: None,
            supports: Needs::USUAL,
            context_window: None,
            asks_usage: true,
            max_output_tokens: None,
            trims_to: None,
            capacity: None,
            own_credentials: false,
        };
        Ladder {
            matches: matches.iter().map(|&glob| glob.to_owned()).collect(),
            tiers: models.iter().map(tier).collect(),
        }
    }

    #[test]
    fn a_named_model_stands_on_its_tier_and_a_matching_one_on_the_top() {
        let ladders = [
            ladder(&["gpt-*"], &["gpt-4o", "gpt-4o-mini"]),
            ladder(&["*"], &["claude", "gpt-x"]),
        ];
        let at = |model| {
            place(&ladders, model).map(|place| (place.ladder.tiers[0].model.as_str(), place.asked))
        };
        assert_eq!(at("gpt-4o-mini"), Some(("gpt-4o", 1)));
        assert_eq!(at("gpt-4o-2024-11-20"), Some(("gpt-4o", 0)));
        assert_eq!(at("gpt-x"), Some(("claude", 1)));
        assert_eq!(at("llama"), Some(("claude", 0)));
        assert_eq!(place(&ladders[..1], "llama"), None);
    }

    #[test]
    fn only_a_lower_tier_puts_its_own_model_in_place() {
        let ladder = ladder(&["gpt-*"], &["gpt-4o", "gpt-4o-mini"]);
        assert_eq!(
            ladder.model_for(0, 0, "gpt-4o-2024-11-20"),
            "gpt-4o-2024-11-20"
        );
        assert_eq!(ladder.model_for(0, 1, "gpt-4o-2024-11-20"), "gpt-4o-mini");
        assert_eq!(ladder.model_for(1, 1, "gpt-4o-mini"), "gpt-4o-mini");
    }

    #[test]
    fn a_set_has_the_tiers_of_a_ladder_that_were_put_into_it() {
        let set: TierSet = [0, 3, MAX_TIERS - 1, MAX_TIERS, usize::MAX]
            .into_iter()
            .collect();
        let has: Vec<_> = (0..70).filter(|&tier| set.has(tier)).collect();
        assert_eq!(has, [0, 3, MAX_TIERS - 1]);
        assert_eq!(set.iter().collect::<Vec<_>>(), has);
        assert!(!set.has(usize::MAX));
        assert_eq!((set.first(), set.last()), (Some(0), Some(MAX_TIERS - 1)));
        assert_eq!((TierSet::NONE.first(), TierSet::NONE.last()), (None, None));
        for tier in [0, 1, 3, 4, MAX_TIERS - 1, MAX_TIERS, usize::MAX] {
            let (before, after): (Vec<usize>, Vec<usize>) =
                has.iter().copied().partition(|&other| other < tier);
            assert_eq!(set.until(tier).iter().collect::<Vec<_>>(), before);
            assert_eq!(set.from(tier).iter().collect::<Vec<_>>(), after);
            assert_eq!(set.less(set.from(tier)), set.until(tier));
        }
        assert_eq!(TierSet::NONE.with(3).with(3), [3].into_iter().collect());
    }
}
