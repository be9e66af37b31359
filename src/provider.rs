//! The providers' APIs: which requests belong to which API, what a request wants, and what its answer reports.
//!
//! Each provider's wire format has a file below, and implements [`Wire`]; [`Endpoint`] selects the format of a request.

mod answer;
mod anthropic;
mod bedrock;
mod compatible;
mod credential;
mod endpoint;
mod gemini;
mod openai;
mod path;
mod quota;
mod read;
pub mod refused;
mod responses;
pub mod usage;
mod wire;

pub use credential::credential;
pub use endpoint::{Endpoint, is_encoded, parameter, speaker};
pub use path::{PathModel, plain};
pub use quota::{LimitNames, UpstreamLimit, limits_left};
pub use read::{
    LISTS_OF_ENTRIES, alternatives, body_model, leave_alternatives_out, leave_longer_out,
    limit_output, lists, most_of_alternatives, named_again, no_overlong, no_overrides,
};
pub use wire::{ErrorReply, Facts, Fault, OutputLimits, Problem, Wire};

#[cfg(test)]
mod tests;
