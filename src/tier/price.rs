//! What a model's tokens cost: by kind, by the length of the prompt, and by the service tier that served.

use crate::base::units::{Micros, Ppm, Tokens, product, share_up};
use crate::usage::{ServiceTier, Usage};
use std::iter::successors;
use std::num::NonZeroU64;

/// What tokens of each kind cost, in USD micros per million tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Input tokens that the provider had not cached.
    pub input: u64,
    /// Input tokens that the provider had cached.
    pub cached_input: u64,
    /// Input tokens that the provider added to its cache for this request.
    pub cache_write: u64,
    /// Input tokens that the provider added to its cache for this request and keeps for an hour.
    pub cache_write_1h: u64,
    /// Output tokens, reasoning included.
    pub output: u64,
}

/// The prices for longer prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The rates hold for the whole of a request with more input than this, including its cached part.
    pub above: Tokens,
    /// The rates above that length; none is lower than for shorter input.
    pub rates: Rates,
}

/// What a model's tokens cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// The rates for prompts that are shorter than the first step.
    pub rates: Rates,
    /// The rates for long prompts, the shortest first.
    pub steps: Vec<Step>,
    /// The factor by which a request costs more at each of these service tiers; at any other service tier the factor is one.
    pub service_tiers: Vec<(ServiceTier, Ppm)>,
}

/// A factor of one.
const ONCE: Ppm = Ppm(MILLION.get());

const MILLION: NonZeroU64 = NonZeroU64::MIN.saturating_add(999_999);

impl From<Rates> for Price {
    fn from(rates: Rates) -> Self {
        Self {
            rates,
            ..Self::default()
        }
    }
}

impl Rates {
    /// For each kind of token the higher of both rates.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            input: self.input.max(other.input),
            cached_input: self.cached_input.max(other.cached_input),
            cache_write: self.cache_write.max(other.cache_write),
            cache_write_1h: self.cache_write_1h.max(other.cache_write_1h),
            output: self.output.max(other.output),
        }
    }

    /// The most that an input token can cost, whatever the cache does with it.
    pub(super) fn dearest_input(&self) -> u64 {
        let cache = self.cache_write.max(self.cache_write_1h);
        self.input.max(self.cached_input).max(cache)
    }

    /// The tokens of a usage, each kind with its rate. A number that was not reported counts as zero.
    fn parts(&self, usage: &Usage) -> [(Tokens, u64); 5] {
        let written = usage.cache_write.unwrap_or_default();
        let hour = usage.cache_write_1h.unwrap_or_default().min(written);
        [
            (
                usage.fresh_input().unwrap_or_default() - written,
                self.input,
            ),
            (usage.cached_input.unwrap_or_default(), self.cached_input),
            (written - hour, self.cache_write),
            (hour, self.cache_write_1h),
            (usage.output.unwrap_or_default(), self.output),
        ]
    }

    /// What a usage costs at these rates, rounded up to a whole micro.
    pub(super) fn of(&self, usage: &Usage) -> Micros {
        sum_once(&self.parts(usage))
    }
}

impl Price {
    /// The price of a usage, rounded up to a whole micro. A number that was not reported costs nothing.
    #[must_use]
    pub fn of(&self, usage: &Usage) -> Micros {
        let rates = self.rates_at(usage.input.unwrap_or_default());
        sum(&rates.parts(usage), self.times(usage.service_tier))
    }

    /// The most that a request can cost with no more input and output than this.
    #[must_use]
    pub fn ceiling(&self, input: Tokens, output: Tokens) -> Micros {
        let rates = self.rates_at(input);
        let parts = [(input, rates.dearest_input()), (output, rates.output)];
        sum(&parts, self.most_times())
    }

    /// The most that this much output can cost after this much input.
    #[must_use]
    pub fn ceiling_of_output(&self, input: Tokens, output: Tokens) -> Micros {
        sum(&[(output, self.rates_at(input).output)], self.most_times())
    }

    /// What a request with this much input and output costs if nothing is cached, at the usual service tier.
    #[must_use]
    pub fn usual(&self, input: Tokens, output: Tokens) -> Micros {
        let rates = self.rates_at(input);
        sum(&[(input, rates.input), (output, rates.output)], ONCE)
    }

    /// What an output token costs after this much input at the usual service tier, in USD micros per million tokens.
    #[must_use]
    pub fn output(&self, input: Tokens) -> u64 {
        self.rates_at(input).output
    }

    /// The most that an output token can cost after this much input, in USD micros per million tokens.
    #[must_use]
    pub fn dearest_output(&self, input: Tokens) -> u64 {
        share_up(self.rates_at(input).output, self.most_times().0, MILLION)
    }

    /// A price that is at least as high as both prices, for any usage.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        let edges = || self.edges().chain(other.edges());
        let in_order = successors(edges().min(), |last| {
            edges().filter(|edge| edge > last).min()
        });
        let beyond = |edge: Tokens| edge + Tokens(1);
        let step = |above: Tokens| Step {
            above,
            rates: self
                .rates_at(beyond(above))
                .max(*other.rates_at(beyond(above))),
        };
        let names = self.service_tiers.iter().chain(&other.service_tiers);
        let mut service_tiers: Vec<(ServiceTier, Ppm)> = Vec::new();
        for &(name, _) in names {
            if service_tiers.iter().all(|&(known, _)| known != name) {
                let times = self.times(Some(name)).max(other.times(Some(name)));
                service_tiers.push((name, times));
            }
        }
        Self {
            rates: self.rates.max(other.rates),
            steps: in_order.map(step).collect(),
            service_tiers,
        }
    }

    /// The rates for a prompt of this length.
    fn rates_at(&self, input: Tokens) -> &Rates {
        let mut steps = self.steps.iter().rev();
        let step = steps.find(|step| input > step.above);
        step.map_or(&self.rates, |step| &step.rates)
    }

    fn edges(&self) -> impl Iterator<Item = Tokens> {
        self.steps.iter().map(|step| step.above)
    }

    /// Whether this service tier costs more than a request without one.
    #[must_use]
    pub fn is_dearer_at(&self, tier: ServiceTier) -> bool {
        self.times(Some(tier)) > ONCE
    }

    fn times(&self, tier: Option<ServiceTier>) -> Ppm {
        let mut known = self.service_tiers.iter();
        let times = tier.and_then(|tier| known.find(|&&(name, _)| name == tier));
        times.map_or(ONCE, |&(_, times)| times)
    }

    /// The highest factor: the provider may choose any of its service tiers, even if the request names another one or none.
    fn most_times(&self) -> Ppm {
        let times = self.service_tiers.iter().map(|&(_, times)| times);
        times.max().map_or(ONCE, |most| most.max(ONCE))
    }
}

/// What tokens cost at these rates, rounded up to a whole micro.
pub(super) fn sum_once(parts: &[(Tokens, u64)]) -> Micros {
    sum(parts, ONCE)
}

/// What tokens cost at these rates, multiplied by `times`, and rounded up to a whole micro.
fn sum(parts: &[(Tokens, u64)], times: Ppm) -> Micros {
    let mut parts_alone = parts.iter();
    let small = parts_alone.try_fold(0_u64, |sum, &(tokens, rate)| {
        sum.checked_add(product(tokens.0, rate)?)
    });
    if let (Some(sum), ONCE) = (small, times) {
        return Micros(sum.div_ceil(MILLION.get()));
    }
    let sum = parts.iter().fold(0_u128, |sum, &(tokens, rate)| {
        sum.saturating_add(u128::from(tokens.0).saturating_mul(rate.into()))
    });
    let micros = sum
        .saturating_mul(times.0.into())
        .div_ceil(u128::from(MILLION.get()).pow(2));
    Micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const SONNET: Rates = Rates {
        input: 3_000_000,
        cached_input: 300_000,
        cache_write: 3_750_000,
        cache_write_1h: 6_000_000,
        output: 15_000_000,
    };

    fn usage(input: u64, cached: u64, output: u64) -> Usage {
        Usage {
            input: Some(Tokens(input)),
            cached_input: Some(Tokens(cached)),
            output: Some(Tokens(output)),
            ..Usage::default()
        }
    }

    #[test]
    fn money_is_counted_by_kind_and_rounded_up() {
        let price = Price::from(Rates {
            input: 2_500_000,
            cached_input: 1_250_000,
            cache_write: 3_125_000,
            cache_write_1h: 3_125_000,
            output: 10_000_000,
        });
        assert_eq!(
            price.of(&usage(1_000, 400, 100)),
            Micros(1_500 + 500 + 1_000)
        );
        let written = Usage {
            cache_write: Some(Tokens(200)),
            ..usage(1_000, 400, 100)
        };
        assert_eq!(price.of(&written), Micros(1_000 + 500 + 625 + 1_000));
        assert_eq!(price.of(&usage(1, 0, 0)), Micros(3));
        assert_eq!(price.of(&usage(0, 0, 0)), Micros(0));
        assert_eq!(price.of(&usage(u64::MAX, 0, u64::MAX)), Micros(u64::MAX));
    }

    #[test]
    fn what_is_kept_for_an_hour_has_its_own_price() {
        let written = |hour: Option<u64>| Usage {
            cache_write: Some(Tokens(100_000)),
            cache_write_1h: hour.map(Tokens),
            ..usage(100_000, 0, 0)
        };
        let price = Price::from(SONNET);
        assert_eq!(price.of(&written(None)), Micros(375_000));
        assert_eq!(price.of(&written(Some(100_000))), Micros(600_000));
        assert_eq!(price.of(&written(Some(40_000))), Micros(225_000 + 240_000));
        assert_eq!(price.ceiling(Tokens(100_000), Tokens(0)), Micros(600_000));
    }

    #[test]
    fn a_service_tier_multiplies_the_whole_and_is_rounded_once() {
        let tier = |name| ServiceTier::of(name).unwrap();
        let price = Price {
            service_tiers: vec![
                (tier("priority"), Ppm(2_000_000)),
                (tier("flex"), Ppm(500_000)),
            ],
            ..Price::from(SONNET)
        };
        let served = |name: &str| Usage {
            service_tier: ServiceTier::of(name),
            ..usage(1_001, 0, 50)
        };
        for (name, micros) in [
            ("priority", 7_506),
            ("flex", 1_877),
            ("default", 3_753),
            ("", 3_753),
        ] {
            assert_eq!(price.of(&served(name)), Micros(micros), "{name}");
        }
        assert_eq!(
            price.ceiling(Tokens(1_001), Tokens(50)),
            Micros(2 * (6_006 + 750))
        );
        assert_eq!(price.dearest_output(Tokens(1)), 30_000_000);
        let cheaper = Price {
            service_tiers: vec![(tier("flex"), Ppm(500_000))],
            ..Price::from(SONNET)
        };
        assert_eq!(cheaper.dearest_output(Tokens(1)), 15_000_000);
    }

    #[test]
    fn a_long_prompt_is_dearer_as_a_whole() {
        let long = Rates {
            input: 6_000_000,
            output: 22_500_000,
            ..SONNET
        };
        let price = Price {
            steps: vec![Step {
                above: Tokens(200_000),
                rates: long,
            }],
            ..Price::from(SONNET)
        };
        assert_eq!(price.of(&usage(200_000, 0, 1_000)), Micros(615_000));
        assert_eq!(price.of(&usage(200_001, 0, 1_000)), Micros(1_222_506));
        // What was cached also counts as input.
        assert_eq!(price.of(&usage(200_001, 200_000, 0)), Micros(60_006));
        assert_eq!(price.dearest_output(Tokens(200_001)), 22_500_000);
    }
}
