//! What all answers have in common, in every wire format: an error instead of an answer, the model that answered, and its service tier.

use super::read::{is_given, long_key, value};
use crate::body::json::{Key, Scanner, string};
use crate::usage::ServiceTier;

/// Index of the key of the usage, in the shapes of answers and events.
pub(super) const USAGE: usize = 0;
/// Index of the key of an error, in the shapes of answers and events.
pub(super) const ERROR: usize = 1;
/// Index of the key of the model that answered, in the shapes of answers and events.
pub(super) const MODEL: usize = 2;
/// Index of the key of the service tier, in the shapes of answers and events.
pub(super) const SERVICE_TIER: usize = 3;

/// The longest `usage` that is read, in bytes.
pub(super) const MAX_USAGE: usize = 16 * 1_024;

/// Longest model name that is read, in bytes of the body.
const MAX_NAME: usize = 512;

/// A key of the model that answered.
pub(super) const fn model_key(path: &'static [&'static str]) -> Key {
    long_key(path, MAX_NAME)
}

/// A key of the `usage`.
pub(super) const fn usage_key(path: &'static [&'static str]) -> Key {
    long_key(path, MAX_USAGE)
}

/// The longest error that is read, in bytes: of a longer error only its presence matters.
pub(super) const MAX_ERROR: usize = 1_024;

/// A key of an error.
pub(super) const ERROR_KEY: Key = long_key(&["error"], MAX_ERROR);

/// Whether the value is complete and not empty: this gives the same result however the body is cut into chunks.
pub(super) fn is_said(answer: &Scanner, index: usize) -> bool {
    answer.value(index).is_some() && is_given(answer, index)
}

/// Whether the answer contains an error.
pub(super) fn is_error(answer: &Scanner) -> bool {
    is_said(answer, ERROR)
}

/// The model that answered.
pub(super) fn model(answer: &Scanner) -> Option<String> {
    let name = string(value(answer, MODEL)?)?;
    (!name.is_empty()).then(|| name.into_owned())
}

/// The service tier that served.
pub(super) fn service_tier(answer: &Scanner) -> Option<ServiceTier> {
    tier(value(answer, SERVICE_TIER))
}

/// The service tier that a value names.
pub(super) fn tier(value: Option<&[u8]>) -> Option<ServiceTier> {
    ServiceTier::of(&string(value?)?)
}
