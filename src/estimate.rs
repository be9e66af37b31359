//! What a request may cost, told from the request alone.
//!
//! There are two figures for the prompt, because the two limits promise different things:
//!
//! - The *budget* must not be overspent, so its reservation takes a ceiling: one token for each byte of
//!   the body. A byte-level tokenizer (as OpenAI's, Anthropic's and Llama's are) never makes more, and the
//!   JSON around a message is longer than the few tokens that its chat template adds.
//! - The *token bucket* is a rate, where a fourfold ceiling would refuse what fits. It takes the expected
//!   figure of four bytes a token, and settlement corrects it either way.
//!
//! Input that is not in the body (an image or a file by URL) is in neither figure.

use crate::tier::Price;
use crate::units::{Cost, Tokens};
use crate::usage::Usage;

/// Bytes of a body for each prompt token that is expected: what English prose and its JSON come to.
const BYTES_PER_TOKEN: u64 = 4;

/// Output tokens to reserve where the request names no maximum.
///
/// More than 95 % of the answers in public chat traces are shorter, and it is little beside a day's budget.
pub const DEFAULT_OUTPUT: Tokens = Tokens(1_024);

/// What a request may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Bytes of the request's body.
    pub body_bytes: u64,
    /// Output tokens at the most, over all choices; `None` where the request does not say.
    pub output_limit: Option<Tokens>,
    /// Answers asked for.
    pub choices: u64,
}

impl Estimate {
    /// The same with answers of at most `most` tokens each.
    #[must_use]
    pub fn limited(self, most: Option<u64>) -> Self {
        let Some(most) = most else { return self };
        let all = Tokens(most.saturating_mul(self.choices.max(1)));
        Self {
            output_limit: Some(self.output().min(all)),
            ..self
        }
    }

    /// Prompt tokens that are expected.
    #[must_use]
    pub fn input(&self) -> Tokens {
        Tokens(self.body_bytes.div_ceil(BYTES_PER_TOKEN))
    }

    /// Output tokens that are reserved.
    #[must_use]
    pub fn output(&self) -> Tokens {
        self.output_limit
            .unwrap_or_else(|| Tokens(DEFAULT_OUTPUT.0.saturating_mul(self.choices.max(1))))
    }

    /// Cells to take from the token bucket.
    #[must_use]
    pub fn cells(&self) -> u64 {
        (self.input() + self.output()).0
    }

    /// What to reserve on the budget.
    #[must_use]
    pub fn ceiling(&self, price: Option<&Price>) -> Cost {
        let usage = Usage {
            input: Some(Tokens(self.body_bytes)),
            cached_input: None,
            // It may cost more to cache the prompt than to read it.
            cache_write: price
                .filter(|price| price.cache_write > price.input)
                .map(|_| Tokens(self.body_bytes)),
            output: Some(self.output()),
        };
        usage.cost(price)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Micros;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_budget_takes_a_ceiling_and_the_bucket_what_is_expected() {
        let estimate = Estimate {
            body_bytes: 401,
            output_limit: Some(Tokens(50)),
            choices: 1,
        };
        assert_eq!(estimate.cells(), 151);
        assert_eq!(estimate.ceiling(None).tokens, Tokens(451));
        let price = Price {
            input: 1_000_000,
            cached_input: 0,
            cache_write: 1_000_000,
            output: 2_000_000,
        };
        assert_eq!(estimate.ceiling(Some(&price)).usd, Micros(501));
    }

    #[test]
    fn each_choice_may_be_as_long_as_the_default() {
        let estimate = Estimate {
            body_bytes: 0,
            output_limit: None,
            choices: 3,
        };
        assert_eq!(estimate.output(), Tokens(3 * 1_024));
    }
}
