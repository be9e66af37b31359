//! What settled requests teach about those to come: how many tokens a prompt is, how long an answer gets.
//!
//! Both are running means in integers, both start from a stated prior, and one report moves them by a bounded share.
//! A wrong figure does no lasting harm: settlement replaces all that was estimated by what was used. So neither needs a
//! write of its own: bytes per token are kept by each worker for itself, and lengths of answers stand in the tenant's
//! record, which every settlement writes anyway.

mod answers;
mod prompts;

pub(crate) use answers::Length;
pub use answers::{Answers, LEAST_ANSWER, MODELS, Model, PRIOR_ANSWER};
pub use prompts::{BytesPerToken, Prompts};
