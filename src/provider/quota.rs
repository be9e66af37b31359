//! What an upstream reports of its own limits with an answer.

use std::time::Duration;

use super::refused::until;
use crate::base::units::Timestamp;
use crate::http::Headers;

/// A limit of an upstream, as one of its answers reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamLimit<'a> {
    /// The size of the limit, if that is reported.
    pub limit: Option<u64>,
    /// How much of the limit is left.
    pub remaining: u64,
    /// When the limit is full again, as reported.
    reset: Option<&'a [u8]>,
}

impl UpstreamLimit<'_> {
    /// The time until the limit is full again, if that is reported.
    #[must_use]
    pub fn reset(&self, now: Timestamp) -> Option<Duration> {
        until(self.reset?.trim_ascii(), now)
    }
}

/// How upstreams name their limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitNames {
    /// In OpenAI's form, which most others also use.
    OpenAi,
    /// In Anthropic's form.
    Anthropic,
}

impl LimitNames {
    /// The headers for limit, remaining and reset of tokens, and those of requests.
    fn all(self) -> [&'static str; 6] {
        match self {
            Self::OpenAi => [
                "x-ratelimit-limit-tokens",
                "x-ratelimit-remaining-tokens",
                "x-ratelimit-reset-tokens",
                "x-ratelimit-limit-requests",
                "x-ratelimit-remaining-requests",
                "x-ratelimit-reset-requests",
            ],
            Self::Anthropic => [
                "anthropic-ratelimit-tokens-limit",
                "anthropic-ratelimit-tokens-remaining",
                "anthropic-ratelimit-tokens-reset",
                "anthropic-ratelimit-requests-limit",
                "anthropic-ratelimit-requests-remaining",
                "anthropic-ratelimit-requests-reset",
            ],
        }
    }
}

/// What is left of an upstream's tokens, and of its requests.
#[must_use]
pub fn limits_left(response: &Headers, names: LimitNames) -> [Option<UpstreamLimit<'_>>; 2] {
    let [tokens, left, full, requests, requests_left, requests_full] =
        response.only_of(names.all());
    [
        limit(tokens, left, full),
        limit(requests, requests_left, requests_full),
    ]
}

fn limit<'a>(
    limit: Option<&[u8]>,
    left: Option<&[u8]>,
    reset: Option<&'a [u8]>,
) -> Option<UpstreamLimit<'a>> {
    Some(UpstreamLimit {
        limit: limit.and_then(number),
        remaining: number(left?)?,
        reset,
    })
}

/// A whole number; some providers write `4000.0`. Azure reports -1 where the number is unknown
/// (<https://github.com/openai/openai-dotnet/issues/838>, read 2026-11-29).
fn number(value: &[u8]) -> Option<u64> {
    let value = value.trim_ascii();
    let mut number = None;
    for &byte in value {
        match byte {
            b'0'..=b'9' => {
                let before = number.unwrap_or(0_u64).checked_mul(10)?;
                number = before.checked_add(byte.saturating_sub(b'0').into());
                number?;
            }
            b'.' => break,
            _ => return None,
        }
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const NOW: Timestamp = Timestamp::from_secs(1_795_953_600);

    type Told = (Option<u64>, u64, Option<Duration>);

    fn tokens(headers: &[(&str, &str)]) -> Option<Told> {
        let response = headers.iter().copied().collect();
        let names = [LimitNames::OpenAi, LimitNames::Anthropic];
        let mut limits = names.iter().filter_map(|&names| {
            let [tokens, _] = limits_left(&response, names);
            tokens.map(|tokens| (tokens.limit, tokens.remaining, tokens.reset(NOW)))
        });
        limits.next()
    }

    #[test]
    fn limits_are_read_under_both_names() {
        let expected = Some((Some(30_000), 29_000, Some(Duration::from_secs(2))));
        let openai = [
            ("x-ratelimit-limit-tokens", "30000"),
            ("x-ratelimit-remaining-tokens", "29000"),
            ("x-ratelimit-reset-tokens", "2s"),
        ];
        assert_eq!(tokens(&openai), expected);
        let anthropic = [
            ("anthropic-ratelimit-tokens-limit", "30000"),
            ("anthropic-ratelimit-tokens-remaining", "29000"),
            ("anthropic-ratelimit-tokens-reset", "2026-11-29T12:00:02Z"),
        ];
        assert_eq!(tokens(&anthropic), expected);
        assert_eq!(tokens(&openai[..1]), None);
        let odd = [
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-limit-tokens", "-1"),
        ];
        assert_eq!(tokens(&odd), Some((None, 0, None)));
        for unknown in ["many", "-1", ""] {
            assert_eq!(tokens(&[("x-ratelimit-remaining-tokens", unknown)]), None);
        }
    }
}
