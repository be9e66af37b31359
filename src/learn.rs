//! What settled requests teach about those to come: how many bytes of a body make a prompt token, how long answers get.
//!
//! Kept for each tenant and model in the tenant's record, which every settlement writes anyway. So all workers go by the same
//! figures, no tenant's requests change what another's are expected to be, and a wait that was told stays true.
//!
//! Both are running means in integers, both start from a stated prior, and one report moves them by a bounded share. A
//! wrong figure does no lasting harm: settlement replaces all that was estimated by what was used.

mod answers;
mod prompts;

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::units::Tokens;
pub use answers::{Answers, LEAST_ANSWER, PRIOR_ANSWER};
pub use prompts::BytesPerToken;

/// Models of which one tenant's figures are kept: those that it was last served by. A flood of models' names cannot
/// grow a record beyond that, and displaces only what the same tenant has taught.
pub const MODELS: usize = 8;

/// A model by a hash of its name. Two that clash share their figures.
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

/// What one tenant's requests taught, by the model that served them, the last one first. At most [`MODELS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned(pub(crate) Vec<Figures>);

/// What is known of a tenant's requests to one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Whose they are.
    pub model: Model,
    /// How dense its prompts are.
    pub bytes_per_token: BytesPerToken,
    /// How long its answers are.
    pub answers: Answers,
}

/// What one settled request teaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lesson {
    /// The bytes of its body and the prompt tokens that were reported, if the one says something of the other.
    pub prompt: Option<(u64, Tokens)>,
    /// How long each of its answers was, if nothing but the model decided that.
    pub answer: Option<Tokens>,
}

impl Learned {
    /// The figures of a model; the priors where nothing was learned.
    #[must_use]
    pub fn of(&self, model: Model) -> Figures {
        let known = self.0.iter().find(|figures| figures.model == model);
        known.copied().unwrap_or_else(|| Figures {
            model,
            bytes_per_token: BytesPerToken::PRIOR,
            answers: Answers::prior(),
        })
    }

    /// Learns from a request that this model served.
    pub fn learn(&mut self, model: Model, lesson: Lesson) {
        if lesson == Lesson::default() {
            return;
        }
        let mut figures = self.of(model);
        if let Some((body_bytes, input)) = lesson.prompt {
            figures.bytes_per_token = figures.bytes_per_token.after(body_bytes, input);
        }
        if let Some(answer) = lesson.answer {
            figures.answers = figures.answers.after(answer);
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

    const SHORT: Lesson = Lesson {
        prompt: None,
        answer: Some(Tokens(5)),
    };
    const DENSE: Lesson = Lesson {
        prompt: Some((2_000, Tokens(1_000))),
        answer: None,
    };

    fn priors(model: u32) -> Figures {
        Learned::default().of(Model(model))
    }

    #[test]
    fn each_lesson_teaches_what_it_is_about_and_of_one_model() {
        let mut learned = Learned::default();
        learned.learn(Model(1), SHORT);
        learned.learn(Model(2), DENSE);
        learned.learn(Model(3), Lesson::default());
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
            learned.learn(Model(model), SHORT);
        }
        assert_ne!(learned.of(Model(0)), priors(0));
        learned.learn(Model(0), DENSE);
        learned.learn(Model(8), SHORT);
        assert_eq!(learned.0.len(), MODELS);
        // The one that had not served for longest is gone.
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
