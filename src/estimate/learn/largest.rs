//! The most that a tenant's recent requests to a model have used: the basis for what the next request is likely to use.
//!
//! There are three figures, since they depend on different things: input on the body's length, the price of input on the share that the provider
//! had cached, and output on neither. Each is the largest value among the last 100 to 200 requests that were settled by a report, and of at most
//! the last 24 hours. The figures have two generations: the older one is forgotten when the younger one is full.

use std::time::Duration;

use crate::base::units::{Cost, Micros, Timestamp, Tokens, share, share_up};
use crate::estimate::Estimate;
use crate::tier::Price;

/// Requests in a full generation.
const FULL: u8 = 100;

/// Fewer requests than this teach nothing yet.
const ENOUGH: u8 = 8;

/// A generation ends after this time, however few requests it has seen.
const HALF_DAY: Duration = Duration::from_secs(12 * 3_600);

/// The likely use is the largest use plus a quarter of it.
const MARGIN: u64 = 4;

const MILLION: std::num::NonZeroU64 = match std::num::NonZeroU64::new(1_000_000) {
    Some(million) => million,
    None => std::num::NonZeroU64::MIN,
};

/// The largest of the last requests, in two generations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Largest {
    /// When the younger generation began.
    pub since: Timestamp,
    /// Requests that the younger generation has seen.
    pub count: u8,
    /// The most that the younger generation has seen.
    pub younger: Peak,
    /// The most that the generation before it had seen.
    pub older: Peak,
}

/// The most that some requests used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    /// Input tokens per million bytes of body.
    pub input: u32,
    /// Cost of the input, in millionths of its ceiling. The ceiling is a token for each byte of the body, at the highest price.
    pub input_price: u32,
    /// Output tokens over all answers of a request.
    pub output: u32,
}

impl Peak {
    /// The figures of one request: from the bytes of its body, what it used, and its cost in all and without its output.
    #[must_use]
    pub fn of(
        body_bytes: u64,
        input: Tokens,
        output: Tokens,
        input_cost: Micros,
        price: Option<&Price>,
    ) -> Self {
        let dearest = price.map_or(Micros(0), |price| {
            price.ceiling(Tokens(body_bytes), Tokens(0))
        });
        Self {
            input: part(input.0, body_bytes),
            input_price: part(input_cost.0, dearest.0),
            output: u32::try_from(output.0).unwrap_or(u32::MAX),
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            input: self.input.max(other.input),
            input_price: self.input_price.max(other.input_price),
            output: self.output.max(other.output),
        }
    }
}

/// `part` of `whole` in millionths, rounded up.
fn part(part: u64, whole: u64) -> u32 {
    let whole = std::num::NonZeroU64::new(whole).unwrap_or(std::num::NonZeroU64::MIN);
    u32::try_from(share_up(part, 1_000_000, whole)).unwrap_or(u32::MAX)
}

impl Largest {
    /// These figures after one more request.
    #[must_use]
    pub fn after(self, peak: Peak, now: Timestamp) -> Self {
        let age = now.since(self.since);
        let mut next = self;
        if self.count >= FULL || age >= HALF_DAY {
            next = Self {
                since: now,
                count: 0,
                younger: Peak::default(),
                older: match age < HALF_DAY.saturating_mul(2) {
                    true => self.younger,
                    false => Peak::default(),
                },
            };
        }
        Self {
            count: next.count.saturating_add(1),
            younger: next.younger.max(peak),
            ..next
        }
    }

    /// What the request is likely to use, with the margin. This never exceeds the request's ceiling, and is the ceiling if too little is known.
    #[must_use]
    pub fn likely(self, estimate: &Estimate, price: Option<&Price>, now: Timestamp) -> Cost {
        let ceiling = estimate.ceiling(price);
        let is_old = now.since(self.since) >= HALF_DAY.saturating_mul(2);
        let is_known = self.count >= ENOUGH || self.older != Peak::default();
        if is_old || !is_known {
            return ceiling;
        }
        let peak = self.younger.max(self.older);
        let body = Tokens(estimate.body_bytes);
        let output = Tokens(with_margin(peak.output.into())).min(estimate.output());
        let input = share_up(body.0, with_margin(peak.input.into()), MILLION);
        let usd = price.map_or(Micros(0), |price| {
            let all = price.ceiling(body, Tokens(0));
            let input = share(all.0, with_margin(peak.input_price.into()), 1_000_000);
            Micros(input) + price.ceiling_of_output(body, output)
        });
        Cost {
            tokens: estimate.counted(Tokens(input), output).min(ceiling.tokens),
            usd: usd.min(ceiling.usd),
        }
    }
}

fn with_margin(largest: u64) -> u64 {
    largest.saturating_add(largest / MARGIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::learn::BytesPerToken;
    use crate::tier::Rates;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const NOW: Timestamp = Timestamp::from_secs(1_709_208_000);

    /// $3 a million input tokens, $15 a million output tokens, and a tenth of the input price for cached tokens.
    fn price() -> Price {
        Price::from(Rates {
            input: 3_000_000,
            cached_input: 300_000,
            output: 15_000_000,
            ..Rates::default()
        })
    }

    fn estimate(body_bytes: u64, limit: u64) -> Estimate {
        Estimate {
            body_bytes,
            bytes_per_token: BytesPerToken::PRIOR,
            output_limit: Some(Tokens(limit)),
            answer: Tokens(1_024),
            choices: 1,
            weights: None,
        }
    }

    fn seen(peaks: impl IntoIterator<Item = Peak>) -> Largest {
        peaks
            .into_iter()
            .fold(Largest::default(), |largest, peak| largest.after(peak, NOW))
    }

    fn peak(input: u64, output: u64, cost: u64) -> Peak {
        Peak::of(
            500_000,
            Tokens(input),
            Tokens(output),
            Micros(cost),
            Some(&price()),
        )
    }

    #[test]
    fn until_eight_are_known_it_is_the_ceiling() {
        let request = estimate(500_000, 64_000);
        let few = seen([peak(125_000, 2_000, 71_250); 7]);
        let ceiling = request.ceiling(Some(&price()));
        assert_eq!(few.likely(&request, Some(&price()), NOW), ceiling);
        // The ceiling is $2.46: a token for each byte, and the longest answer.
        assert_eq!(ceiling.usd, Micros(2_460_000));
        let likely = seen([peak(125_000, 2_000, 71_250); 8]).likely(&request, Some(&price()), NOW);
        assert_eq!(likely.tokens, Tokens(156_250 + 2_500));
        // The sum of 71,250 for input, nine tenths of which was cached, and 30,000 for output, plus a quarter.
        assert_eq!(likely.usd, Micros(89_062 + 37_500));
    }

    #[test]
    fn it_grows_with_the_body_and_never_exceeds_what_the_request_allows() {
        let largest = seen([peak(125_000, 2_000, 71_250); 8]);
        let twice = largest.likely(&estimate(1_000_000, 64_000), Some(&price()), NOW);
        assert_eq!(twice.tokens, Tokens(312_500 + 2_500));
        let short = largest.likely(&estimate(500_000, 100), Some(&price()), NOW);
        assert_eq!(short.tokens, Tokens(156_250 + 100));
        // With the margin, the use would exceed one token a byte, which is the ceiling.
        let dense = seen([peak(450_000, 10, 9_000_000); 8]);
        let request = estimate(500_000, 10);
        assert_eq!(
            dense.likely(&request, Some(&price()), NOW),
            request.ceiling(Some(&price()))
        );
    }

    #[test]
    fn the_largest_counts_until_a_hundred_more_have_come_and_a_day_at_the_most() {
        let request = estimate(500_000, 64_000);
        let tokens = |largest: Largest, now| largest.likely(&request, None, now).tokens;
        let small = peak(10, 10, 0);
        let mut largest = seen([peak(100_000, 5_000, 0)]);
        for _ in 0..199 {
            largest = largest.after(small, NOW);
        }
        assert_eq!(tokens(largest, NOW), Tokens(125_000 + 6_250));
        largest = largest.after(small, NOW);
        assert_eq!(tokens(largest, NOW), Tokens(13 + 12));
        let day = NOW.plus(Duration::from_secs(86_400));
        assert_eq!(tokens(largest, day), request.ceiling(None).tokens);
        let mut largest = seen([peak(100_000, 5_000, 0); 9]);
        let noon = NOW.plus(HALF_DAY);
        largest = largest.after(small, noon);
        assert_eq!(tokens(largest, noon), Tokens(125_000 + 6_250));
        largest = largest.after(small, noon.plus(HALF_DAY));
        assert_eq!(tokens(largest, noon.plus(HALF_DAY)), Tokens(13 + 12));
    }
}
