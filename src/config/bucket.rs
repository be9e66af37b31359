//! Checks a bucket of the configuration: a rate of tokens or of requests, and how much the bucket holds.

use super::checks::{any_mark, required, whole};
use super::path::Path;
use super::raw::RawBucket;
use super::{Parsed, wrong};
use crate::calendar::window::duration;
use crate::lease::quota::Quota;
use crate::limits::stacked::Rule;

pub(super) fn rule(raw: &RawBucket, path: &Path<'_>) -> Parsed<Rule> {
    let Some(requests) = raw.requests_per_window else {
        return quota(raw, path).map(Rule::Tokens);
    };
    if raw.tokens_per_window.is_some() {
        let key = &path.key("requests_per_window");
        return wrong(
            key,
            "stands beside `tokens_per_window`: a bucket has one of them",
        );
    }
    if raw.low_water_mark.is_some() {
        let key = &path.key("low_water_mark");
        return wrong(
            key,
            "has no meaning for requests: a bucket of requests never downgrades",
        );
    }
    let as_tokens = RawBucket {
        tokens_per_window: Some(requests),
        requests_per_window: None,
        ..raw.clone()
    };
    whole(requests, &path.key("requests_per_window"))?;
    quota(&as_tokens, path).map(Rule::Requests)
}

pub(super) fn quota(raw: &RawBucket, path: &Path<'_>) -> Parsed<Quota> {
    let rate = &path.key("tokens_per_window");
    let tokens_per_window = whole(required(raw.tokens_per_window, rate)?, rate)?;
    let text = required(raw.window.as_deref(), &path.key("window"))?;
    let Some(window) = duration(text) else {
        return wrong(
            &path.key("window"),
            format!("`{text}` is no duration such as \"1m\" or \"90s\""),
        );
    };
    let burst = match raw.burst {
        None => tokens_per_window,
        Some(burst) => whole(burst, &path.key("burst"))?,
    };
    Ok(Quota {
        tokens_per_window,
        window,
        burst,
        low_water_mark: any_mark(raw.low_water_mark, &path.key("low_water_mark"))?,
        share: None,
    })
}
