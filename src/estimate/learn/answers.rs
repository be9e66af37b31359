//! The length of answers to requests without an output limit.
//!
//! The length is estimated as round-trip times are (RFC 6298, section 2): a running mean and a running mean deviation, with factors of 1/8
//! and 1/4. The reservation is the mean plus twice the deviation. (A retransmission timer adds four times the deviation, since a single
//! timer that is too short is a mistake; here long and short answers of many requests balance.) Nine in ten chat answers are shorter than that.

use crate::base::units::Tokens;

/// Output tokens to reserve for an answer of unknown length.
///
/// More than 95 % of the answers in public chat traces are shorter, and a day's budget is much larger.
pub const PRIOR_ANSWER: u64 = 1_024;

/// The least that is reserved, so that the first longer answer after many short ones exceeds its reservation by little.
pub const LEAST_ANSWER: u64 = 128;

/// The most that is reserved: a long answer with thinking.
const MOST_ANSWER: u64 = 16_384;

/// How long answers are, in 1/256 tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answers {
    pub(crate) mean: u32,
    pub(crate) deviation: u32,
}

const ONE: u64 = 256;

impl Answers {
    /// The figures that yield [`PRIOR_ANSWER`]: a mean of half of it, and a deviation of a quarter of it.
    #[must_use]
    pub fn prior() -> Self {
        Self {
            mean: fixed(PRIOR_ANSWER / 2),
            deviation: fixed(PRIOR_ANSWER / 4),
        }
    }

    /// Tokens to reserve for an answer.
    #[must_use]
    pub fn expected(self) -> Tokens {
        let high = u64::from(self.mean).saturating_add(u64::from(self.deviation).saturating_mul(2));
        let rounded = high.saturating_add(ONE / 2) / ONE;
        Tokens(rounded.clamp(LEAST_ANSWER, MOST_ANSWER))
    }

    /// The figures after an answer to a request that named no limit.
    ///
    /// An answer of more than twice the expected length counts as one of twice that length. If more such answers follow, the
    /// figure grows with each; if not, a single outlier does not hold much of a budget for long.
    #[must_use]
    pub fn after(self, answer: Tokens) -> Self {
        let most = self.expected().0.saturating_mul(2).min(MOST_ANSWER);
        let answer = fixed(answer.0.min(most));
        Self {
            mean: towards(self.mean, answer, 8),
            deviation: towards(self.deviation, answer.abs_diff(self.mean), 4),
        }
    }
}

fn fixed(tokens: u64) -> u32 {
    u32::try_from(tokens.saturating_mul(ONE)).unwrap_or(u32::MAX)
}

/// One part in `parts` of the way from `old` to `new`, rounded to the nearest.
fn towards(old: u32, new: u32, parts: u64) -> u32 {
    let rest = u64::from(old).saturating_mul(parts.saturating_sub(1));
    let sum = rest.saturating_add(new.into()).saturating_add(parts / 2);
    u32::try_from(sum.checked_div(parts).unwrap_or_default()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn after(answers: &[u64]) -> u64 {
        let learn = |length: Answers, &answer: &u64| length.after(Tokens(answer));
        answers.iter().fold(Answers::prior(), learn).expected().0
    }

    #[test]
    fn nothing_learned_means_the_prior() {
        assert_eq!(after(&[]), 1_024);
    }

    #[test]
    fn the_mean_moves_by_an_eighth_and_the_deviation_by_a_quarter() {
        // Mean and deviation: 512 and 256, then 512 - 64 and 256 + (512 - 256) / 4.
        assert_eq!(after(&[0]), 448 + 2 * 320);
        assert_eq!(after(&[512]), 512 + 2 * 192);
    }

    #[test]
    fn answers_of_one_length_are_expected_to_be_of_that_length() {
        assert_eq!(after(&[300; 200]), 300);
        assert_eq!(after(&[9_000; 200]), 9_000);
    }

    #[test]
    fn what_is_reserved_stays_within_its_bounds() {
        assert_eq!(after(&[3; 200]), 128);
        assert_eq!(after(&[u64::MAX; 200]), 16_384);
    }

    #[test]
    fn one_stray_answer_does_not_hold_much_and_several_do() {
        assert_eq!(after(&[100; 200]), 128);
        let stray = [&[100; 200][..], &[u64::MAX]].concat();
        assert_eq!(after(&stray), 198);
        let long = [&[100; 200][..], &[16_384; 20]].concat();
        assert!(after(&long) > 10_000);
    }
}
