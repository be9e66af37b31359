//! Prices: written in USD per million tokens, stored in micro-dollars.

use std::num::NonZeroU64;

use super::checks::whole;
use super::path::Path;
use super::raw::{RawPrice, RawStep};
use super::{Parsed, wrong};
use crate::base::units::{Ppm, Tokens};
use crate::body::number::Number;
use crate::tier::{Price, Rates, Step};
use crate::usage::ServiceTier;

/// The most steps of a price; no price list has more.
const MOST_STEPS: usize = 16;

/// The most service tiers of a price; no price list has more.
const MOST_TIERS: usize = 16;

pub(super) fn price(raw: RawPrice, path: &Path<'_>) -> Parsed<Price> {
    let own = Written {
        input: Some(raw.input),
        cached_input: raw.cached_input,
        cache_write: raw.cache_write,
        cache_write_1h: raw.cache_write_1h,
        output: Some(raw.output),
    };
    let rates = own.rates(path)?;
    let (above, service_tiers) = (path.key("above"), path.key("service_tiers"));
    if raw.above.len() > MOST_STEPS {
        return wrong(&above, format!("a price has at most {MOST_STEPS} steps"));
    }
    let mut steps: Vec<Step> = Vec::with_capacity(raw.above.len());
    for (index, step) in raw.above.into_iter().enumerate() {
        let before = steps
            .last()
            .map_or((None, rates), |step: &Step| (Some(step.above), step.rates));
        steps.push(check_step(&step, &own, before, &above.index(index))?);
    }
    if raw.service_tiers.len() > MOST_TIERS {
        return wrong(
            &service_tiers,
            format!("at most {MOST_TIERS} service tiers"),
        );
    }
    let times = raw.service_tiers.iter().map(|(name, times)| {
        let path = service_tiers.key(name);
        let tier = ServiceTier::of(name).filter(|tier| tier.as_str() == name);
        match (tier, times.millionths().and_then(NonZeroU64::new)) {
            (None, _) => wrong(
                &path,
                "a service tier's name is 1 to 16 of a-z, 0-9, `-` and `_`",
            ),
            (_, None) => wrong(&path, "must be a number above 0 with at most six decimals"),
            (Some(tier), Some(times)) => Ok((tier, Ppm(times.get()))),
        }
    });
    Ok(Price {
        rates,
        steps,
        service_tiers: times.collect::<Parsed<_>>()?,
    })
}

/// `(above, least)`: where the previous step begins, and its rates. Longer prompts are never cheaper, so the price of the longest possible
/// prompt is a safe reservation.
fn check_step(
    raw: &RawStep,
    price: &Written,
    (above, least): (Option<Tokens>, Rates),
    path: &Path<'_>,
) -> Parsed<Step> {
    let input_tokens = Tokens(whole(raw.input_tokens, &path.key("input_tokens"))?.get());
    if above.is_some_and(|above| input_tokens <= above) {
        return wrong(
            &path.key("input_tokens"),
            "must be more than in the step before",
        );
    }
    let written = Written {
        input: raw.input.or(price.input),
        cached_input: raw.cached_input.or(price.cached_input),
        cache_write: raw.cache_write.or(price.cache_write),
        cache_write_1h: raw.cache_write_1h.or(price.cache_write_1h),
        output: raw.output.or(price.output),
    };
    let rates = written.rates(path)?;
    let falls = [
        ("input", rates.input < least.input),
        ("cached_input", rates.cached_input < least.cached_input),
        ("cache_write", rates.cache_write < least.cache_write),
        (
            "cache_write_1h",
            rates.cache_write_1h < least.cache_write_1h,
        ),
        ("output", rates.output < least.output),
    ];
    if let Some((key, _)) = falls.iter().find(|(_, falls)| *falls) {
        return wrong(&path.key(key), "must be no less than for shorter prompts");
    }
    Ok(Step {
        above: input_tokens,
        rates,
    })
}

/// The rates of a price as the configuration writes them.
struct Written {
    input: Option<Number>,
    cached_input: Option<Number>,
    cache_write: Option<Number>,
    cache_write_1h: Option<Number>,
    output: Option<Number>,
}

impl Written {
    fn rates(&self, path: &Path<'_>) -> Parsed<Rates> {
        let part = |number: Option<Number>, key: &str, default: u64| {
            let Some(number) = number else {
                return Ok(default);
            };
            match number.millionths() {
                Some(micros) => Ok(micros),
                None => wrong(
                    &path.key(key),
                    "must be an amount with at most six decimals",
                ),
            }
        };
        let input = part(self.input, "input", 0)?;
        let cache_write = part(self.cache_write, "cache_write", input)?;
        Ok(Rates {
            input,
            cached_input: part(self.cached_input, "cached_input", input)?,
            cache_write,
            cache_write_1h: part(self.cache_write_1h, "cache_write_1h", cache_write)?,
            output: part(self.output, "output", 0)?,
        })
    }
}
