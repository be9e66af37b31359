//! What a request may cost, estimated from the request itself and from figures that were learned from earlier requests.
//!
//! There are two figures for the prompt, because the two limits promise different things:
//!
//! - The *budget* must not be overspent, so its reservation uses an upper bound: one token for each byte of
//!   the body. A byte-level tokenizer (as OpenAI's, Anthropic's and Llama's are) never makes more tokens than bytes, and the
//!   JSON around a message is longer than the few tokens that its chat template adds. Learned figures never lower this bound.
//! - The *token bucket* limits a rate. The upper bound would refuse requests that fit, so the bucket uses the expected prompt: it assumes
//!   as many bytes a token as the tenant's recent prompts to that model had ([`BytesPerToken`]). Settlement corrects either figure,
//!   and uses the same estimate if no usage is reported.
//!
//! Output is reserved up to the limit in the request. Without such a limit, budget and bucket use the length of the tenant's recent answers
//! from that model ([`crate::estimate::learn::Answers`]).
//!
//! Neither figure includes input that is outside of the body (an image or a file by URL).

pub mod learn;

use crate::base::units::{Cost, Micros, Tokens};
use crate::estimate::learn::BytesPerToken;
use crate::tier::{Price, RequestWeights};

/// What a request may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Bytes of the request's body as it is forwarded.
    pub body_bytes: u64,
    /// How many of these bytes are expected to make a prompt token.
    pub bytes_per_token: BytesPerToken,
    /// The most output tokens over all choices; `None` if the request has no limit.
    pub output_limit: Option<Tokens>,
    /// Output tokens that are reserved for each answer if the request has no limit.
    pub answer: Tokens,
    /// Number of answers requested.
    pub choices: u64,
    /// How much each kind of tokens counts in the tenant's limits; `None`: every token counts as one.
    pub weights: Option<RequestWeights>,
}

impl Estimate {
    /// This estimate with answers of at most `most` tokens each.
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

    /// This estimate if this many bytes of the body are not forwarded.
    #[must_use]
    pub fn without(self, bytes: u64) -> Self {
        Self {
            body_bytes: self.body_bytes.saturating_sub(bytes),
            ..self
        }
    }

    /// This estimate if the remaining budget limits each answer, so that nothing can be learned from the answers' lengths.
    #[must_use]
    pub fn cut(self, most: u64) -> Self {
        let limited = self.limited(Some(most));
        Self {
            output_limit: Some(limited.output()),
            ..limited
        }
    }

    /// Prompt tokens to expect.
    #[must_use]
    pub fn input(&self) -> Tokens {
        self.bytes_per_token.tokens(self.body_bytes)
    }

    /// Output tokens to reserve.
    #[must_use]
    pub fn output(&self) -> Tokens {
        self.output_limit
            .unwrap_or_else(|| self.over_all(self.answer))
    }

    /// Tokens that the request is likely to use, as an upstream counts them.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        (self.input() + self.output()).0
    }

    /// Cells to take from the token bucket.
    #[must_use]
    pub fn cells(&self) -> u64 {
        let (input, output) = (self.input(), self.output());
        let weights = self.weights.as_ref();
        weights
            .map_or(input + output, |weights| weights.usual(input, output))
            .0
    }

    /// The most output tokens that count no more than `room` in the tenant's limits.
    #[must_use]
    pub fn output_within(&self, room: u64) -> u64 {
        let weights = self.weights.as_ref();
        weights.map_or(room, |weights| weights.output_within(room))
    }

    /// The most that these tokens can count in the tenant's limits.
    #[must_use]
    pub fn counted(&self, input: Tokens, output: Tokens) -> Tokens {
        let weights = self.weights.as_ref();
        weights.map_or(input + output, |weights| weights.ceiling(input, output))
    }

    /// What to reserve on the budget.
    #[must_use]
    pub fn ceiling(&self, price: Option<&Price>) -> Cost {
        let (input, output) = (Tokens(self.body_bytes), self.output());
        Cost {
            tokens: self.counted(input, output),
            usd: price.map_or(Micros(0), |price| price.ceiling(input, output)),
        }
    }

    /// The length of each answer, rounded up, from the output tokens used; `None` if a limit may have shortened the
    /// answers.
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
    use crate::tier::Rates;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn estimate(output_limit: Option<u64>) -> Estimate {
        Estimate {
            body_bytes: 401,
            bytes_per_token: BytesPerToken::PRIOR,
            output_limit: output_limit.map(Tokens),
            answer: Tokens(200),
            choices: 3,
            weights: None,
        }
    }

    #[test]
    fn the_budget_takes_a_ceiling_and_the_bucket_what_is_expected() {
        let estimate = estimate(Some(50));
        assert_eq!(estimate.cells(), 151);
        assert_eq!(estimate.ceiling(None).tokens, Tokens(451));
        let price = Price::from(Rates {
            input: 1_000_000,
            output: 2_000_000,
            ..Rates::default()
        });
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
