//! Figures that are learned from settled requests: bytes of a body for each prompt token, and the length of answers.
//!
//! The figures are kept for each tenant and model in the tenant's record, which every settlement writes anyway. So all workers use
//! the same figures, no tenant influences another's, and a wait time that a response announced stays true.
//!
//! Both figures are running means in integers. They start from a fixed prior, and one report moves them by a bounded share. A wrong
//! figure does no lasting harm: settlement replaces the estimate with the reported usage.

mod answers;
mod largest;
mod prompts;

use crate::base::hash;
use crate::base::units::{Timestamp, Tokens};
pub use answers::{Answers, LEAST_ANSWER, PRIOR_ANSWER};
pub use largest::{Largest, Peak};
pub use prompts::BytesPerToken;

/// Models for which a tenant's figures are kept: those that served the tenant last. A flood of model names cannot enlarge a record
/// further, and displaces only figures of the same tenant.
pub const MODELS: usize = 8;

/// A model, by a hash of its name. Models with the same hash share their figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model(pub u32);

impl Model {
    /// The model's hash, which is the same in every worker.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(u32::try_from(hash::stable(name) >> 32).unwrap_or_default())
    }
}

/// One tenant's figures by model, the model that served last first. At most [`MODELS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned(pub(crate) Vec<Figures>);

/// One tenant's figures for one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// The model.
    pub model: Model,
    /// How many bytes of a body make a prompt token.
    pub bytes_per_token: BytesPerToken,
    /// How long answers are.
    pub answers: Answers,
    /// The largest use among the model's last requests.
    pub largest: Largest,
}

/// What is learned from one settled request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// The bytes of the request's body and the reported prompt tokens, unless the body contains something other than text.
    pub prompt: Option<(u64, Tokens)>,
    /// The length of each answer, unless an output limit may have shortened it.
    pub answer: Option<Tokens>,
    /// The request's own use, from which [`Largest`] learns.
    pub peak: Option<Peak>,
}

impl Observation {
    /// An observation that teaches nothing.
    pub const NOTHING: Self = Self {
        prompt: None,
        answer: None,
        peak: None,
    };
}

impl Learned {
    /// The figures of a model; the priors if nothing was learned yet.
    #[must_use]
    pub fn of(&self, model: Model) -> Figures {
        let known = self.0.iter().find(|figures| figures.model == model);
        known.copied().unwrap_or_else(|| Figures {
            model,
            bytes_per_token: BytesPerToken::PRIOR,
            answers: Answers::prior(),
            largest: Largest::default(),
        })
    }

    /// Learns from a request that this model served and that is settled at `now`.
    pub fn learn(&mut self, model: Model, observation: Observation, now: Timestamp) {
        if observation == Observation::default() {
            return;
        }
        let mut figures = self.of(model);
        if let Some((body_bytes, input)) = observation.prompt {
            figures.bytes_per_token = figures.bytes_per_token.after(body_bytes, input);
        }
        if let Some(answer) = observation.answer {
            figures.answers = figures.answers.after(answer);
        }
        if let Some(peak) = observation.peak {
            figures.largest = figures.largest.after(peak, now);
        }
        self.0.retain(|figures| figures.model != model);
        self.0.insert(0, figures);
        self.0.truncate(MODELS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const NOW: Timestamp = Timestamp::from_secs(1);
    const SHORT: Observation = Observation {
        prompt: None,
        answer: Some(Tokens(5)),
        peak: None,
    };
    const DENSE: Observation = Observation {
        prompt: Some((2_000, Tokens(1_000))),
        answer: None,
        peak: None,
    };

    fn priors(model: u32) -> Figures {
        Learned::default().of(Model(model))
    }

    #[test]
    fn each_lesson_teaches_what_it_is_about_and_of_one_model() {
        let mut learned = Learned::default();
        learned.learn(Model(1), SHORT, NOW);
        learned.learn(Model(2), DENSE, NOW);
        learned.learn(Model(3), Observation::default(), NOW);
        let [short, dense] = [1, 2].map(|model| learned.of(Model(model)));
        assert_ne!(short.answers, priors(1).answers);
        assert_eq!(short.bytes_per_token, BytesPerToken::PRIOR);
        assert!(dense.bytes_per_token < BytesPerToken::PRIOR);
        assert_eq!(dense.answers, priors(2).answers);
        assert_eq!(learned.of(Model(3)), priors(3));
        assert_eq!(learned.0.len(), 2);
    }

    #[test]
    fn figures_are_kept_of_the_models_that_served_last() {
        let mut learned = Learned::default();
        for model in 0..8 {
            learned.learn(Model(model), SHORT, NOW);
        }
        assert_ne!(learned.of(Model(0)), priors(0));
        learned.learn(Model(0), DENSE, NOW);
        learned.learn(Model(8), SHORT, NOW);
        assert_eq!(learned.0.len(), MODELS);
        // The model that had not served for longest is gone.
        assert_eq!(learned.of(Model(1)), priors(1));
        assert_ne!(learned.of(Model(0)), priors(0));
        assert_ne!(learned.of(Model(8)), priors(8));
    }

    #[test]
    fn models_are_told_apart_by_name() {
        assert_eq!(Model::of("gpt-4o"), Model::of("gpt-4o"));
        assert_ne!(Model::of("gpt-4o"), Model::of("gpt-4o-mini"));
    }
}
