//! How long a tenant's answers get where its requests name no limit, by the model that serves.
//!
//! Kept as round-trip times are (RFC 6298, section 2): a running mean and a running mean deviation, with its factors of
//! an eighth and a quarter. What is reserved is the mean and twice the deviation, where a retransmission timer takes
//! four times: a timer that is too short is one mistake, but of many requests in flight the long answers and the short
//! ones make up for each other. Of lengths spread as chat answers are, nine in ten are within it.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::units::Tokens;

/// Models of which one tenant's lengths are kept: those that it was last served by. A flood of models' names cannot
/// grow a record beyond that, and displaces only what the same tenant has taught.
pub const MODELS: usize = 8;

/// Output tokens to reserve for an answer of unknown length.
///
/// More than 95 % of the answers in public chat traces are shorter, and it is little beside a day's budget.
pub const PRIOR_ANSWER: u64 = 1_024;

/// The least that is reserved, so that the first longer answer after many short ones misses by little.
pub const LEAST_ANSWER: u64 = 128;

/// The most that is reserved: what a model thinks and writes at length.
const MOST_ANSWER: u64 = 16_384;

/// A model by a hash of its name. Two that clash share their lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model(pub u32);

impl Model {
    /// The same in every worker.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        Self(u32::try_from(hasher.finish() >> 32).unwrap_or_default())
    }
}

/// Lengths of one tenant's answers, the last learned first. At most [`MODELS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers(pub(crate) Vec<Length>);

/// How long answers of one model are, in 1/256 tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Length {
    pub(crate) model: Model,
    pub(crate) mean: u32,
    pub(crate) deviation: u32,
}

const ONE: u64 = 256;

impl Answers {
    /// Tokens to reserve for an answer of this model.
    #[must_use]
    pub fn expected(&self, model: Model) -> Tokens {
        Tokens(self.length(model).expected())
    }

    /// Learns from an answer to a request that named no limit.
    pub fn learn(&mut self, model: Model, answer: Tokens) {
        let length = self.length(model).after(answer);
        self.0.retain(|length| length.model != model);
        self.0.insert(0, length);
        self.0.truncate(MODELS);
    }

    fn length(&self, model: Model) -> Length {
        let known = self.0.iter().find(|length| length.model == model);
        known.copied().unwrap_or_else(|| Length::prior(model))
    }
}

impl Length {
    /// What makes up [`PRIOR_ANSWER`]: half of it the mean, half of it the deviation twice.
    fn prior(model: Model) -> Self {
        Self {
            model,
            mean: fixed(PRIOR_ANSWER / 2),
            deviation: fixed(PRIOR_ANSWER / 4),
        }
    }

    fn expected(&self) -> u64 {
        let high = u64::from(self.mean).saturating_add(u64::from(self.deviation).saturating_mul(2));
        let rounded = high.saturating_add(ONE / 2) / ONE;
        rounded.clamp(LEAST_ANSWER, MOST_ANSWER)
    }

    /// An answer that is far longer than expected counts as one of twice the length: if more such follow, the figure
    /// grows with each, and if not, one stray answer does not hold much of a budget for long.
    fn after(self, answer: Tokens) -> Self {
        let most = self.expected().saturating_mul(2).min(MOST_ANSWER);
        let answer = fixed(answer.0.min(most));
        Self {
            mean: towards(self.mean, answer, 8),
            deviation: towards(self.deviation, answer.abs_diff(self.mean), 4),
            ..self
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

    const MODEL: Model = Model(7);

    fn after(answers: &[u64]) -> u64 {
        let mut learned = Answers::default();
        for &answer in answers {
            learned.learn(MODEL, Tokens(answer));
        }
        learned.expected(MODEL).0
    }

    #[test]
    fn nothing_learned_means_the_prior() {
        assert_eq!(after(&[]), 1_024);
    }

    #[test]
    fn the_mean_moves_by_an_eighth_and_the_deviation_by_a_quarter() {
        // 512 and 256, then 512 - 64 and 256 + (512 - 256) / 4.
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

    #[test]
    fn lengths_are_kept_of_the_models_that_served_last() {
        let mut learned = Answers::default();
        for _ in 0..100 {
            learned.learn(MODEL, Tokens(300));
        }
        for other in 100..107 {
            learned.learn(Model(other), Tokens(5));
        }
        assert_eq!(learned.expected(MODEL), Tokens(300));
        assert_ne!(learned.expected(Model(100)), Tokens(PRIOR_ANSWER));
        learned.learn(MODEL, Tokens(300));
        learned.learn(Model(107), Tokens(5));
        assert_eq!(learned.0.len(), MODELS);
        assert_eq!(learned.expected(MODEL), Tokens(300));
        // The one that had not served for longest is gone.
        assert_eq!(learned.expected(Model(100)), Tokens(PRIOR_ANSWER));
    }

    #[test]
    fn models_are_told_apart_by_name() {
        assert_eq!(Model::of("gpt-4o"), Model::of("gpt-4o"));
        assert_ne!(Model::of("gpt-4o"), Model::of("gpt-4o-mini"));
    }
}
