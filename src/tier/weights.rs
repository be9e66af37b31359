//! How much tokens count in budgets and buckets, by the kind of token.

use super::Rates;
use crate::base::units::{Tokens, share};
use crate::usage::Usage;

/// How much a token of each kind counts, in millionths, below 2³²: the rates of a price that is paid in tokens instead of money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights(pub Rates);

/// How much the tokens of a request count before it is known which of them are cached, in millionths. The type is small, since each
/// admission contains one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestWeights {
    input: u32,
    /// The most that an input token counts, whatever the cache does with it.
    most_input: u32,
    output: u32,
}

impl Weights {
    /// How much a usage counts, rounded up.
    #[must_use]
    pub fn of(&self, usage: &Usage) -> Tokens {
        Tokens(self.0.of(usage).0)
    }

    /// The weights of a request, as far as they are known before the answer.
    #[must_use]
    pub fn of_request(&self) -> RequestWeights {
        let short = |weight| u32::try_from(weight).unwrap_or(u32::MAX);
        RequestWeights {
            input: short(self.0.input),
            most_input: short(self.0.dearest_input()),
            output: short(self.0.output),
        }
    }
}

impl RequestWeights {
    /// How much these tokens are likely to count, rounded up.
    #[must_use]
    pub fn usual(&self, input: Tokens, output: Tokens) -> Tokens {
        weighed(input, self.input, output, self.output)
    }

    /// The most that these tokens can count.
    #[must_use]
    pub fn ceiling(&self, input: Tokens, output: Tokens) -> Tokens {
        weighed(input, self.most_input, output, self.output)
    }

    /// The most output tokens that together count no more than `room`.
    #[must_use]
    pub fn output_within(&self, room: u64) -> u64 {
        match self.output {
            0 => u64::MAX,
            weight => share(room, 1_000_000, weight.into()),
        }
    }
}

fn weighed(input: Tokens, of_input: u32, output: Tokens, of_output: u32) -> Tokens {
    let rates = [(input, of_input.into()), (output, of_output.into())];
    Tokens(super::price::sum_once(&rates).0)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const WEIGHTS: Weights = Weights(Rates {
        input: 1_000_000,
        cached_input: 100_000,
        cache_write: 1_250_000,
        cache_write_1h: 2_000_000,
        output: 4_000_000,
    });

    #[test]
    fn each_kind_counts_by_its_weight_and_the_sum_is_rounded_up() {
        let usage = Usage {
            input: Some(Tokens(1_000)),
            cached_input: Some(Tokens(605)),
            cache_write: Some(Tokens(100)),
            cache_write_1h: Some(Tokens(40)),
            output: Some(Tokens(50)),
            ..Usage::default()
        };
        // 295 for the fresh tokens, 60.5 for the cached ones, 75 and 80 for what was written, 200 for the output.
        assert_eq!(WEIGHTS.of(&usage), Tokens(711));
        assert_eq!(WEIGHTS.of(&Usage::default()), Tokens(0));
    }

    #[test]
    fn before_the_answer_input_counts_as_fresh_or_as_the_most_that_a_cache_makes_of_it() {
        let request = WEIGHTS.of_request();
        assert_eq!(request.usual(Tokens(10), Tokens(5)), Tokens(30));
        assert_eq!(request.ceiling(Tokens(10), Tokens(5)), Tokens(40));
        assert_eq!(request.output_within(31), 7);
        let free = Weights(Rates::default()).of_request();
        assert_eq!(free.ceiling(Tokens(10), Tokens(5)), Tokens(0));
        assert_eq!(free.output_within(0), u64::MAX);
    }
}
