//! OpenAI's chat completions, completions and embeddings, and those of every compatible server
//! (<https://platform.openai.com/docs/api-reference>; shapes as in the official Python SDK of November 2026).

mod chunk;
mod embeddings;
mod request;

pub(super) use embeddings::Embeddings;
use request::{
    CHAT, COMPLETIONS, MAX_COMPLETION_TOKENS, MAX_TOKENS, MOST_ADDED_TO_ASK, N_PREDICT,
    PLAIN_MAX_COMPLETION_TOKENS, PLAIN_N_PREDICT, ask_usage, has_data_sources, may_ask_at,
};
pub(super) use request::{is_flexible, is_structured};

use super::answer::USAGE;
use super::read::{MOST_LISTS, value};
use super::wire::{ErrorReply, Facts, Fault, OutputLimits, Problem, Wire};
use crate::body::json::{Scanner, Shape, may_have, quoted};
use crate::body::rewrite::Edit;
use crate::conversation::messages::Dialect;
use crate::tier::Needs;
use crate::usage::{EventFacts, Usage};

/// Chat completions.
#[derive(Debug)]
pub(super) struct Chat;

/// Completions without a chat.
#[derive(Debug)]
pub(super) struct Completions;

impl Wire for Chat {
    fn request(&self) -> Shape {
        CHAT
    }

    fn possible_needs(&self, model: &str) -> Needs {
        Needs::USUAL | request::rare_needs(model)
    }

    fn facts(&self, body: &Scanner) -> Result<Facts, Fault> {
        request::chat(body, self.output_limits())
    }

    fn output_limits(&self) -> OutputLimits {
        OutputLimits {
            keys: &[MAX_TOKENS, MAX_COMPLETION_TOKENS, N_PREDICT],
            object: None,
            may_be_text: false,
            // Which of these a model accepts is unknown: some models refuse the one, some the other.
            name: None,
            have_floor: true,
            takes_zero: false,
        }
    }

    fn alternatives(&self) -> usize {
        MOST_LISTS
    }

    fn dialect(&self) -> Option<Dialect> {
        Some(Dialect::OpenAi)
    }

    fn ask_usage(&self, body: &Scanner) -> Option<Edit> {
        ask_usage(body).filter(|_| !has_data_sources(body))
    }

    fn may_ask_at(&self, body: &Scanner) -> Option<u64> {
        may_ask_at(body)
    }

    fn most_added_to_ask(&self) -> u64 {
        MOST_ADDED_TO_ASK
    }

    fn response(&self) -> Shape {
        chunk::ANSWER
    }

    fn events(&self) -> Shape {
        chunk::CHUNK
    }

    fn usage(&self, body: &Scanner) -> Option<Usage> {
        chunk::usage_in(value(body, USAGE)?, body)
    }

    fn is_error(&self, body: &Scanner) -> bool {
        chunk::is_error(body)
    }

    fn event(&self, event: &Scanner) -> EventFacts {
        chunk::facts(event)
    }

    fn may_report(&self, event: &[u8]) -> bool {
        // If usage is requested, servers write `null` into all events but the last one.
        may_have(event, &["usage"], |value| !chunk::is_null(value)) || chunk::may_fail(event)
    }

    fn error(&self, problem: &Problem<'_>) -> ErrorReply {
        error(problem)
    }
}

impl Wire for Completions {
    fn request(&self) -> Shape {
        COMPLETIONS
    }

    fn possible_needs(&self, _model: &str) -> Needs {
        Needs::STRUCTURED_OUTPUT
    }

    fn facts(&self, body: &Scanner) -> Result<Facts, Fault> {
        request::completion(body, self.output_limits())
    }

    fn output_limits(&self) -> OutputLimits {
        OutputLimits {
            keys: &[MAX_TOKENS, PLAIN_N_PREDICT, PLAIN_MAX_COMPLETION_TOKENS],
            object: None,
            may_be_text: false,
            name: Some("max_tokens"),
            have_floor: false,
            takes_zero: false,
        }
    }

    fn alternatives(&self) -> usize {
        MOST_LISTS
    }

    fn ask_usage(&self, body: &Scanner) -> Option<Edit> {
        ask_usage(body)
    }

    fn may_ask_at(&self, body: &Scanner) -> Option<u64> {
        may_ask_at(body)
    }

    fn most_added_to_ask(&self) -> u64 {
        MOST_ADDED_TO_ASK
    }

    fn response(&self) -> Shape {
        chunk::ANSWER
    }

    fn events(&self) -> Shape {
        chunk::CHUNK
    }

    fn usage(&self, body: &Scanner) -> Option<Usage> {
        Chat.usage(body)
    }

    fn is_error(&self, body: &Scanner) -> bool {
        Chat.is_error(body)
    }

    fn event(&self, event: &Scanner) -> EventFacts {
        Chat.event(event)
    }

    fn may_report(&self, event: &[u8]) -> bool {
        Chat.may_report(event)
    }

    fn error(&self, problem: &Problem<'_>) -> ErrorReply {
        error(problem)
    }
}

/// The format of an error in all of OpenAI's APIs.
pub(super) fn error(problem: &Problem<'_>) -> ErrorReply {
    let &Problem {
        status,
        code,
        message,
        ..
    } = problem;
    let kind = match (status, code) {
        (_, "insufficient_quota") => "insufficient_quota",
        (429, _) => "rate_limit_error",
        (401, _) => "authentication_error",
        (403, _) => "permission_error",
        (503, _) => "server_error",
        _ => "invalid_request_error",
    };
    let (code, message) = (quoted(code), quoted(message));
    ErrorReply {
        status,
        body: format!(
            r#"{{"error":{{"code":{code},"message":{message},"param":null,"type":"{kind}"}}}}"#
        ),
        headers: Vec::new(),
    }
}
