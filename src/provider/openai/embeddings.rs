//! Embeddings: all their usage is input.

use super::request::EMBEDDINGS;
use super::{Chat, chunk, error};
use crate::base::units::Tokens;
use crate::body::json::{Scanner, Shape};
use crate::provider::answer::USAGE;
use crate::provider::read::{MOST_LISTS, count_of, tokens, value};
use crate::provider::wire::{ErrorReply, Facts, Fault, OutputLimits, Problem, Wire};
use crate::tier::Needs;
use crate::usage::{EventFacts, Usage};

/// The embeddings API.
#[derive(Debug)]
pub(in crate::provider) struct Embeddings;

impl Wire for Embeddings {
    fn request(&self) -> Shape {
        EMBEDDINGS
    }

    fn possible_needs(&self, _model: &str) -> Needs {
        Needs::NONE
    }

    fn facts(&self, _: &Scanner) -> Result<Facts, Fault> {
        Ok(Facts {
            output_limit: Some(Tokens(0)),
            ..Facts::default()
        })
    }

    fn output_limits(&self) -> OutputLimits {
        OutputLimits {
            keys: &[],
            object: None,
            may_be_text: false,
            name: None,
            have_floor: false,
            takes_zero: false,
        }
    }

    fn alternatives(&self) -> usize {
        MOST_LISTS
    }

    fn response(&self) -> Shape {
        chunk::ANSWER
    }

    fn usage(&self, body: &Scanner) -> Option<Usage> {
        // All usage is input, and some servers report only the total.
        let names = ["prompt_tokens", "input_tokens", "total_tokens"];
        let input = tokens(value(body, USAGE), names).into_iter().max()?;
        let input = input.or_else(|| count_of(value(body, chunk::TOTAL)));
        let usage = Usage {
            input,
            output: input.map(|_| Tokens(0)),
            other_total: None,
            ..Chat.usage(body).unwrap_or_default()
        };
        Some(usage.consistent())
    }

    fn is_error(&self, body: &Scanner) -> bool {
        Chat.is_error(body)
    }

    fn event(&self, event: &Scanner) -> EventFacts {
        EventFacts {
            usage: self.usage(event),
            ..Chat.event(event)
        }
    }

    /// Vectors of different models cannot be compared.
    fn can_exchange(&self, _: &str, _: &str) -> bool {
        false
    }

    fn error(&self, problem: &Problem<'_>) -> ErrorReply {
        error(problem)
    }
}
