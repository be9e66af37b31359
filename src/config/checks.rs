//! Checks of single values: whole numbers, fractions, names of headers.

use std::num::NonZeroU64;

use super::path::Path;
use super::{Parsed, wrong};
use crate::base::units::Ppm;
use crate::body::number::Number;

/// The value of a key that must be set in the plan or in the tenant's own settings.
pub(super) fn required<T>(value: Option<T>, path: &Path<'_>) -> Parsed<T> {
    value.map_or_else(|| wrong(path, "is missing"), Ok)
}

pub(super) fn whole(number: Number, path: &Path<'_>) -> Parsed<NonZeroU64> {
    match number.whole().and_then(NonZeroU64::new) {
        Some(whole) => Ok(whole),
        None => wrong(path, "must be a whole number of at least 1"),
    }
}

/// As [`whole`], for an optional value.
pub(super) fn any_whole(number: Option<Number>, path: &Path<'_>) -> Parsed<Option<u64>> {
    match number {
        Some(number) => whole(number, path).map(|whole| Some(whole.get())),
        None => Ok(None),
    }
}

/// As [`mark`], for an optional value.
pub(super) fn any_mark(number: Option<Number>, path: &Path<'_>) -> Parsed<Option<Ppm>> {
    match number {
        Some(number) => mark(number, path).map(Some),
        None => Ok(None),
    }
}

/// A fraction above 0, and at most 1.
pub(super) fn mark(number: Number, path: &Path<'_>) -> Parsed<Ppm> {
    match number.millionths() {
        Some(ppm @ 1..=1_000_000) => Ok(Ppm(ppm)),
        _ => wrong(
            path,
            "must be a fraction above 0 and at most 1, with at most six decimals",
        ),
    }
}

/// The path at which callers can read their own limits.
pub(super) fn own_path(path: String) -> Parsed<String> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"?#%".contains(&byte);
    match path.starts_with('/') && path.bytes().all(is_plain) {
        true => Ok(path),
        false => wrong(
            &Path::Top.key("self_service"),
            "must be a path that begins with a slash, without query or escapes",
        ),
    }
}

/// The name of a header that a client may send, in lower case.
pub(super) fn client_header(name: &str, path: &Path<'_>) -> Parsed<String> {
    let name = name.to_ascii_lowercase();
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) || name.starts_with("x-bursar-") {
        return wrong(
            path,
            format!("`{name}` is no header that a client may send"),
        );
    }
    Ok(name)
}
