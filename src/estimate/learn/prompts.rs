//! How many bytes of a body make a prompt token.
//!
//! The ratio depends on the language, on the model's vocabulary and on the client: JSON included, English questions take five bytes a
//! token, Chinese ones three to five, and Russian ones that the client escapes (`\u043c`) ten to fifteen (`make estimates` measures
//! the ratio).

use std::num::NonZeroU64;

use crate::base::units::{Tokens, share, share_up};

/// Bytes of a body, including the JSON around its texts, for each prompt token. In units of 1/65,536, so that short prompts count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BytesPerToken(u32);

const ONE: u32 = 1 << 16;

/// After this many tokens, earlier reports are mostly forgotten.
const MEMORY: u64 = 1 << 14;

/// The most tokens that one report counts for: a sixteenth of what is remembered.
const MOST_WEIGHT: u64 = MEMORY / 16;

impl BytesPerToken {
    /// The ratio assumed before anything was learned: English prose, JSON included.
    pub const PRIOR: Self = Self(4 * ONE);
    /// The lower bound: no language takes fewer bytes a token in today's vocabularies.
    pub const LEAST: Self = Self(2 * ONE);
    /// The upper bound: no language takes more bytes a token, however it is escaped.
    pub const MOST: Self = Self(16 * ONE);

    /// The figure after a request with a body of `body_bytes`, for which `input` prompt tokens were reported.
    ///
    /// The mean is weighted by tokens, not by requests: a long prompt shows the ratio better than a short one. A report outside the bounds
    /// counts as one at the bound.
    #[must_use]
    pub fn after(self, body_bytes: u64, input: Tokens) -> Self {
        if input == Tokens(0) {
            return self;
        }
        let seen = share(body_bytes, ONE.into(), input.0);
        let seen = u32::try_from(seen).unwrap_or(u32::MAX);
        let seen = seen.clamp(Self::LEAST.0, Self::MOST.0);
        let weight = input.0.min(MOST_WEIGHT);
        let rest = MEMORY.saturating_sub(weight);
        let old = u64::from(self.0).saturating_mul(rest);
        let new = u64::from(seen).saturating_mul(weight);
        let mean = old.saturating_add(new).saturating_add(MEMORY / 2) / MEMORY;
        Self(u32::try_from(mean).unwrap_or(Self::MOST.0))
    }

    /// The figure, in units of 1/65,536 bytes.
    #[must_use]
    pub fn in_65536ths(self) -> u32 {
        self.0
    }

    /// From a figure in units of 1/65,536 bytes; `None` outside the bounds.
    #[must_use]
    pub fn from_65536ths(figure: u32) -> Option<Self> {
        (Self::LEAST..=Self::MOST)
            .contains(&Self(figure))
            .then_some(Self(figure))
    }

    /// The prompt tokens to expect for a body, rounded up.
    #[must_use]
    pub fn tokens(self, body_bytes: u64) -> Tokens {
        let figure = NonZeroU64::new(self.0.into()).unwrap_or(NonZeroU64::MIN);
        Tokens(share_up(body_bytes, ONE.into(), figure))
    }

    /// The longest body for which no more than `tokens` prompt tokens are expected.
    #[must_use]
    pub fn bytes(self, tokens: Tokens) -> u64 {
        share(tokens.0, self.0.into(), ONE.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn after(times: usize, bytes: u64, tokens: u64) -> BytesPerToken {
        (0..times).fold(BytesPerToken::PRIOR, |figure, _| {
            figure.after(bytes, Tokens(tokens))
        })
    }

    #[test]
    fn nothing_learned_means_four_bytes_a_token() {
        let prior = BytesPerToken::PRIOR;
        assert_eq!(prior.tokens(0), Tokens(0));
        assert_eq!(prior.tokens(401), Tokens(101));
        assert_eq!(prior.tokens(u64::MAX), Tokens(1 << 62));
    }

    #[test]
    fn a_report_moves_the_figure_by_its_share_of_the_memory() {
        // The report has 512 of the 16,384 remembered tokens: it moves the figure a thirty-second of the way from 4 to 3.
        let figure = BytesPerToken::PRIOR.after(1_536, Tokens(512));
        assert_eq!(figure, BytesPerToken(4 * ONE - ONE / 32));
        // However long the prompt is, it moves the figure by no more than a sixteenth of the way.
        let figure = BytesPerToken::PRIOR.after(3_000_000, Tokens(1_000_000));
        assert_eq!(figure, BytesPerToken(4 * ONE - ONE / 16));
    }

    #[test]
    fn the_figure_comes_to_what_is_reported_again_and_again() {
        assert_eq!(after(200, 3_000, 1_000).tokens(3_000), Tokens(1_000));
        assert_eq!(after(2_000, 600, 100).tokens(5_990), Tokens(999));
        // Forty requests of a thousand tokens take most of the way.
        assert!(after(40, 3_000, 1_000).tokens(30_000) > Tokens(9_700));
    }

    #[test]
    fn absurd_reports_end_at_the_bounds() {
        assert_eq!(after(1_000, 0, u64::MAX).tokens(1_999), Tokens(1_000));
        assert_eq!(after(1_000, u64::MAX, 1_024).tokens(15_999), Tokens(1_000));
        assert_eq!(after(1_000, u64::MAX, 0), BytesPerToken::PRIOR);
    }
}
