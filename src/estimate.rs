//! What a request may cost, told from the request and from what was learned of those before it.
//!
//! There are two figures for the prompt, because the two limits promise different things:
//!
//! - The *budget* must not be overspent, so its reservation takes a ceiling: one token for each byte of
//!   the body. A byte-level tokenizer (as OpenAI's, Anthropic's and Llama's are) never makes more, and the
//!   JSON around a message is longer than the few tokens that its chat template adds. Nothing that is learned lowers it.
//! - The *token bucket* is a rate, where such a ceiling would refuse what fits. It takes the expected figure: as many
//!   bytes a token as the tenant's prompts to that model had lately ([`BytesPerToken`]). Settlement corrects it either way, and
//!   takes the same figure itself where no usage is reported.
//!
//! Output is reserved up to the limit that the request names. Where it names none, both take the length that the tenant's
//! answers from that model had lately ([`crate::learn::Answers`]).
//!
//! Input that is not in the body (an image or a file by URL) is in neither figure.

use crate::learn::BytesPerToken;
use crate::tier::Price;
use crate::units::{Cost, Tokens};
use crate::usage::Usage;

/// What a request may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Bytes of the request's body, as it goes on.
    pub body_bytes: u64,
    /// How many of them are expected to make a prompt token.
    pub bytes_per_token: BytesPerToken,
    /// Output tokens at the most, over all choices; `None` where the request does not say.
    pub output_limit: Option<Tokens>,
    /// Output tokens of each answer that are reserved where it does not.
    pub answer: Tokens,
    /// Answers asked for.
    pub choices: u64,
}

impl Estimate {
    /// The same with answers of at most `most` tokens each.
    #[must_use]
    pub fn limited(self, most: Option<u64>) -> Self {
        let Some(most) = most else { return self };
        let all = self.over_all(Tokens(most));
        Self {
            output_limit: self.output_limit.map(|limit| limit.min(all)),
            answer: self.answer.min(Tokens(most)),
            ..self
        }
    }

    /// The same where so many bytes of the body do not go on.
    #[must_use]
    pub fn without(self, bytes: u64) -> Self {
        Self {
            body_bytes: self.body_bytes.saturating_sub(bytes),
            ..self
        }
    }

    /// The same where what is left of the budget limits each answer, so that their lengths say nothing of others.
    #[must_use]
    pub fn cut(self, most: u64) -> Self {
        let limited = self.limited(Some(most));
        Self {
            output_limit: Some(limited.output()),
            ..limited
        }
    }

    /// Prompt tokens that are expected.
    #[must_use]
    pub fn input(&self) -> Tokens {
        self.bytes_per_token.tokens(self.body_bytes)
    }

    /// Output tokens that are reserved.
    #[must_use]
    pub fn output(&self) -> Tokens {
        self.output_limit
            .unwrap_or_else(|| self.over_all(self.answer))
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

    /// The length of each of the answers that so many output tokens make, if it says how long answers get that nothing
    /// limits: rounded up.
    #[must_use]
    pub fn unlimited_answer(&self, output: Tokens) -> Option<Tokens> {
        let answer = Tokens(output.0.div_ceil(self.choices.max(1)));
        self.output_limit.is_none().then_some(answer)
    }

    fn over_all(&self, answer: Tokens) -> Tokens {
        Tokens(answer.0.saturating_mul(self.choices.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Micros;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn estimate(output_limit: Option<u64>) -> Estimate {
        Estimate {
            body_bytes: 401,
            bytes_per_token: BytesPerToken::PRIOR,
            output_limit: output_limit.map(Tokens),
            answer: Tokens(200),
            choices: 3,
        }
    }

    #[test]
    fn the_budget_takes_a_ceiling_and_the_bucket_what_is_expected() {
        let estimate = estimate(Some(50));
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
    fn what_was_learned_of_prompts_changes_what_is_expected_and_not_the_ceiling() {
        let dense = Estimate {
            bytes_per_token: BytesPerToken::LEAST,
            ..estimate(Some(50))
        };
        assert_eq!(dense.cells(), 251);
        assert_eq!(dense.ceiling(None), estimate(Some(50)).ceiling(None));
    }

    #[test]
    fn each_choice_may_be_as_long_as_an_answer_is_expected_to_be() {
        assert_eq!(estimate(None).output(), Tokens(600));
        assert_eq!(estimate(None).limited(Some(150)).output(), Tokens(450));
        assert_eq!(estimate(None).limited(Some(250)).output(), Tokens(600));
        assert_eq!(estimate(Some(500)).limited(Some(150)).output(), Tokens(450));
    }

    #[test]
    fn only_answers_that_nothing_limits_say_how_long_answers_get() {
        let answer = estimate(None).unlimited_answer(Tokens(301));
        assert_eq!(answer, Some(Tokens(101)));
        assert_eq!(estimate(Some(500)).unlimited_answer(Tokens(301)), None);
        let cut = estimate(None).cut(100);
        assert_eq!(
            (cut.output(), cut.unlimited_answer(Tokens(301))),
            (Tokens(300), None)
        );
    }
}
