//! What holds of every price and every usage.

use bursar::base::units::{Ppm, Tokens};
use bursar::tier::{Price, Rates, Step};
use bursar::usage::{ServiceTier, Usage};
use proptest::prelude::*;

const NAMES: [&str; 4] = ["priority", "flex", "batch", "default"];

/// Small figures at most times, and the largest that there are.
fn figure() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..=400_000_u64, 4 => 0..=40_000_000_u64, 1 => any::<u64>()]
}

fn any_rates() -> impl Strategy<Value = Rates> {
    prop::array::uniform5(figure()).prop_map(
        |[input, cached_input, cache_write, cache_write_1h, output]| Rates {
            input,
            cached_input,
            cache_write,
            cache_write_1h,
            output,
        },
    )
}

/// With steps that rise, as the configuration demands.
fn any_price() -> impl Strategy<Value = Price> {
    let steps = prop::collection::btree_map(1..=400_000_u64, any_rates(), 0..4);
    let tiers = prop::collection::btree_map(0..NAMES.len(), 1..=10_000_000_u64, 0..4);
    (any_rates(), steps, tiers).prop_map(|(rates, steps, tiers)| {
        let mut most = rates;
        let step = |(above, rates)| {
            most = most.max(rates);
            Step {
                above: Tokens(above),
                rates: most,
            }
        };
        let steps = steps.into_iter().map(step).collect();
        let tier = |(name, ppm): (usize, u64)| (ServiceTier::of(NAMES[name]).unwrap(), Ppm(ppm));
        Price {
            rates,
            steps,
            service_tiers: tiers.into_iter().map(tier).collect(),
        }
    })
}

/// Its parts: read, cached, written for five minutes and for an hour, output.
fn any_parts() -> impl Strategy<Value = [u64; 5]> {
    prop::array::uniform5(figure())
}

fn usage([read, cached, written, hour, output]: [u64; 5], tier: Option<usize>) -> Usage {
    let write = Tokens(written) + Tokens(hour);
    Usage {
        input: Some(Tokens(read) + Tokens(cached) + write),
        cached_input: Some(Tokens(cached)),
        cache_write: Some(write),
        cache_write_1h: Some(Tokens(hour)),
        output: Some(Tokens(output)),
        service_tier: tier.and_then(|at| ServiceTier::of(NAMES[at])),
        ..Usage::default()
    }
    .consistent()
}

proptest! {
    #[test]
    fn a_price_is_exact_and_rounded_up_once(price in any_price(), parts in any_parts(), tier in prop::option::of(0..NAMES.len())) {
        // Without saturation, so that the parts are what they were.
        let parts = parts.map(|part| part % 10_000_000_000);
        let used = usage(parts, tier);
        let input: u64 = parts[..4].iter().sum();
        let mut steps = price.steps.iter().filter(|step| input > step.above.0);
        let rates = steps.next_back().map_or(price.rates, |step| step.rates);
        let rates = [rates.input, rates.cached_input, rates.cache_write, rates.cache_write_1h, rates.output];
        let times = price.service_tiers.iter().find(|(name, _)| used.service_tier == Some(*name));
        let times = times.map_or(1_000_000, |(_, times)| times.0);
        let shares = parts.iter().zip(rates).map(|(&part, rate)| u128::from(part) * u128::from(rate) * u128::from(times));
        let whole = shares.clone().sum::<u128>().div_ceil(1_000_000_000_000);
        let micros = price.of(&used).0;
        prop_assert_eq!(micros, u64::try_from(whole).unwrap_or(u64::MAX));
        for share in shares {
            prop_assert!(u128::from(micros) >= (share / 1_000_000_000_000).min(u64::MAX.into()));
        }
    }

    #[test]
    fn more_tokens_never_cost_less(price in any_price(), parts in any_parts(), more in any_parts(), tier in prop::option::of(0..NAMES.len())) {
        let parts = parts.map(|part| part % 1_000_000_000_000);
        let mut both = parts;
        for (part, more) in both.iter_mut().zip(more) {
            *part += more % 1_000_000_000_000;
        }
        prop_assert!(price.of(&usage(both, tier)) >= price.of(&usage(parts, tier)));
    }

    /// A reservation is an upper bound of what a request of its size can cost, whatever serves it.
    #[test]
    fn no_usage_costs_more_than_its_ceiling(
        price in any_price(), parts in any_parts(), more in (figure(), figure()), tier in prop::option::of(0..NAMES.len()),
    ) {
        let used = usage(parts, tier);
        let input = used.input.unwrap_or_default() + Tokens(more.0);
        let output = used.output.unwrap_or_default() + Tokens(more.1);
        prop_assert!(price.of(&used) <= price.ceiling(input, output));
    }

    /// What is left for output buys no more than is left.
    #[test]
    fn output_for_what_is_left_costs_no_more(price in any_price(), input in 0..=500_000_u64, room in 0..=1_000_000_000_u64) {
        let input = Tokens(input);
        let rate = u128::from(price.dearest_output(input).max(1));
        let output = u64::try_from(u128::from(room) * 1_000_000 / rate).unwrap_or(u64::MAX);
        let without = price.ceiling(input, Tokens(0)).0;
        prop_assert!(price.ceiling(input, Tokens(output)).0 <= without.saturating_add(room));
    }

    #[test]
    fn the_dearest_price_is_no_less_than_either(
        one in any_price(), other in any_price(), parts in any_parts(), tier in prop::option::of(0..NAMES.len()),
    ) {
        let used = usage(parts, tier);
        let most = one.clone().max(other.clone()).of(&used);
        prop_assert!(most >= one.of(&used).max(other.of(&used)));
    }
}
