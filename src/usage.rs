//! The usage that a provider reports for a request: the numbers alone. [`crate::provider::usage`] reads them from an answer.

use crate::base::units::Tokens;

/// Tokens of one request as reported. An absent count is not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens, the cached ones included.
    pub input: Option<Tokens>,
    /// Prompt tokens that the provider read from its cache. Invariant: `cached_input` and `cache_write` together do not exceed `input`.
    pub cached_input: Option<Tokens>,
    /// Prompt tokens that the provider wrote to its cache, and charges as a write.
    pub cache_write: Option<Tokens>,
    /// The part of `cache_write` that the provider keeps for an hour, where it reports that. Invariant: no more than `cache_write`.
    pub cache_write_1h: Option<Tokens>,
    /// Output tokens, including reasoning.
    pub output: Option<Tokens>,
    /// Input and output together as reported, if only this sum was reported, or if the parts do not add up to it.
    pub other_total: Option<Tokens>,
    /// The service tier that served the request.
    pub service_tier: Option<ServiceTier>,
}

/// The name of a provider's service tier, such as `priority` or `flex`: lower-case ASCII of at most 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ServiceTier {
    text: [u8; 16],
    length: u8,
}

impl ServiceTier {
    /// The service tier of this name; `None` if this cannot be such a name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let mut text = [0; 16];
        let room = text.get_mut(..name.len())?;
        if name.is_empty() || !name.bytes().all(is_plain) {
            return None;
        }
        room.copy_from_slice(name.to_ascii_lowercase().as_bytes());
        Some(Self {
            text,
            length: u8::try_from(name.len()).ok()?,
        })
    }

    /// The service tier's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let text = self.text.get(..usize::from(self.length));
        std::str::from_utf8(text.unwrap_or_default()).unwrap_or_default()
    }
}

impl std::fmt::Debug for ServiceTier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a provider reports the tokens of its cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheCount {
    /// As a part of the input tokens.
    Inside,
    /// In addition to the input tokens.
    Beside,
}

impl Usage {
    /// Input and output together; a count that was not reported adds 0.
    #[must_use]
    pub fn total(&self) -> Tokens {
        self.input.unwrap_or_default() + self.output.unwrap_or_default()
    }

    /// Prompt tokens that the provider had not cached, whether or not it cached them now.
    #[must_use]
    pub fn fresh_input(&self) -> Option<Tokens> {
        Some(self.input? - self.cached_input.unwrap_or_default())
    }

    /// The sum of both usages.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let sum = |one: Option<Tokens>, other: Option<Tokens>| match (one, other) {
            (Some(one), Some(other)) => Some(one + other),
            (one, other) => one.or(other),
        };
        Self {
            input: sum(self.input, other.input),
            cached_input: sum(self.cached_input, other.cached_input),
            cache_write: sum(self.cache_write, other.cache_write),
            cache_write_1h: sum(self.cache_write_1h, other.cache_write_1h),
            output: sum(self.output, other.output),
            other_total: sum(self.other_total, other.other_total),
            service_tier: self.service_tier.or(other.service_tier),
        }
    }

    /// This usage without a part of it.
    #[must_use]
    pub fn without(self, part: &Self) -> Self {
        let rest = |all: Option<Tokens>, part: Option<Tokens>| {
            all.map(|all| all - part.unwrap_or_default())
        };
        Self {
            input: rest(self.input, part.input),
            cached_input: rest(self.cached_input, part.cached_input),
            cache_write: rest(self.cache_write, part.cache_write),
            cache_write_1h: rest(self.cache_write_1h, part.cache_write_1h),
            output: rest(self.output, part.output),
            ..self
        }
    }

    /// Combines two reports of one response, each of which may be partial. Counts are running totals, so the later report
    /// prevails; but where it reports 0, or nothing, the earlier report stands.
    #[must_use]
    pub(crate) fn after(self, earlier: Self, cache: CacheCount) -> Self {
        let own = |usage: &Self| match cache {
            CacheCount::Inside => usage.input,
            CacheCount::Beside => usage.input.map(|input| input - usage.cache()),
        };
        let (later_own, earlier_own) = (own(&self), own(&earlier));
        // A report with an input count of its own also reports how much of that was cached.
        let knows = later_own.is_some_and(|input| input > Tokens(0));
        let part = |later: Option<Tokens>, earlier: Option<Tokens>| match knows {
            true => later.or(earlier),
            false => last_word(later, earlier),
        };
        let input = last_word(later_own, earlier_own);
        let is_whole = self.input.is_some() && self.output.is_some();
        let mut usage = Self {
            input,
            cached_input: part(self.cached_input, earlier.cached_input),
            cache_write: part(self.cache_write, earlier.cache_write),
            cache_write_1h: part(self.cache_write_1h, earlier.cache_write_1h),
            output: last_word(self.output, earlier.output),
            other_total: self
                .other_total
                .or_else(|| earlier.other_total.filter(|_| !is_whole)),
            service_tier: self.service_tier.or(earlier.service_tier),
        };
        if cache == CacheCount::Beside {
            usage.input = input.map(|input| input + usage.cache());
        }
        usage
    }

    /// Tokens that were read from the cache or written to it.
    fn cache(&self) -> Tokens {
        self.cached_input.unwrap_or_default() + self.cache_write.unwrap_or_default()
    }

    /// This usage, reduced by cached tokens beyond its input.
    #[must_use]
    pub fn consistent(self) -> Self {
        let cached_input = self
            .cached_input
            .map(|cached| cached.min(self.input.unwrap_or_default()));
        let room = self.input.unwrap_or_default() - cached_input.unwrap_or_default();
        let cache_write = self.cache_write.map(|written| written.min(room));
        let most = cache_write.unwrap_or_default();
        Self {
            cached_input,
            cache_write,
            cache_write_1h: self.cache_write_1h.map(|written| written.min(most)),
            ..self
        }
    }

    /// Whether no count is missing.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.input.is_some() && self.output.is_some()
    }

    /// Whether any count was reported.
    #[must_use]
    pub fn has_tokens(&self) -> bool {
        let nothing = Self {
            service_tier: self.service_tier,
            ..Self::default()
        };
        *self != nothing
    }

    /// The reported total, if input and output were also reported and do not add up to it.
    #[must_use]
    pub fn contradiction(&self) -> Option<Tokens> {
        self.other_total
            .filter(|total| self.is_whole() && *total != self.total())
    }

    /// Splits a total that was reported alone into input and output, by the expected input.
    #[must_use]
    pub fn split(self, likely_input: Tokens) -> Self {
        let Some(total) = self.other_total.filter(|_| !self.is_whole()) else {
            return self;
        };
        let of_output = self.output.map(|output| total - output);
        let input = self.input.or(of_output);
        let input = input.unwrap_or_else(|| likely_input.min(total));
        Self {
            input: Some(input),
            output: self.output.or(Some(total - input)),
            ..self
        }
    }
}

/// The later count, unless it is 0 or absent and there is an earlier one.
fn last_word(later: Option<Tokens>, earlier: Option<Tokens>) -> Option<Tokens> {
    let said = later.filter(|tokens| *tokens > Tokens(0));
    said.or(earlier).or(later)
}

/// What one event of a stream contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventFacts {
    /// The usage that the event reports, if any.
    pub usage: Option<Usage>,
    /// The kind of the event.
    pub kind: EventKind,
    /// Whether no later event reports usage; only unusual servers break this rule.
    pub is_last: bool,
}

/// What an event means to the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventKind {
    /// The event may carry a part of the answer.
    #[default]
    Content,
    /// The event carries no part of the answer, and comes with every answer.
    Frame,
    /// The event carries no part of the answer, and only comes if usage was requested.
    UsageOnly,
    /// The event reports an error.
    Error,
}

impl EventKind {
    /// Whether the event reports an error, or may carry a part of the answer.
    #[must_use]
    pub fn of(is_error: bool) -> Self {
        if is_error { Self::Error } else { Self::Content }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn usage(input: u64, cached: Option<u64>, written: Option<u64>) -> Usage {
        Usage {
            input: Some(Tokens(input)),
            cached_input: cached.map(Tokens),
            cache_write: written.map(Tokens),
            ..Usage::default()
        }
    }

    #[test]
    fn the_later_report_counts_unless_it_is_nothing() {
        use CacheCount::{Beside, Inside};
        let none = None;
        for (cache, earlier, later, expected) in [
            (Beside, (2581, none, none), (2514, none, none), 2514),
            (Beside, (2581, none, none), (0, none, none), 2581),
            (
                Beside,
                (2581, Some(0), Some(0)),
                (0, Some(0), Some(0)),
                2581,
            ),
            (Beside, (40, Some(5), Some(10)), (25, none, none), 40),
            (Beside, (40, Some(5), Some(10)), (30, none, none), 45),
            (
                Beside,
                (2581, Some(2500), none),
                (2514, Some(0), none),
                2514,
            ),
            (
                Beside,
                (2005, Some(2000), none),
                (2000, Some(2000), none),
                2005,
            ),
            (Inside, (300, Some(200), none), (400, none, none), 400),
            (Inside, (300, Some(200), none), (0, Some(0), none), 300),
            (Inside, (0, none, none), (0, none, none), 0),
        ] {
            let of = |(input, cached, written)| usage(input, cached, written);
            let both = of(later).after(of(earlier), cache).consistent();
            let case = format!("{earlier:?} {later:?}");
            assert_eq!(both.input, Some(Tokens(expected)), "{case}");
        }
    }

    #[test]
    fn a_total_alone_is_never_lost() {
        let total = Usage {
            other_total: Some(Tokens(100)),
            ..Usage::default()
        };
        for (likely, parts) in [(30, (30, 70)), (500, (100, 0))] {
            let split = total.split(Tokens(likely));
            let expected = (Some(Tokens(parts.0)), Some(Tokens(parts.1)));
            assert_eq!((split.input, split.output), expected);
        }
    }

    #[test]
    fn a_service_tier_is_a_short_name() {
        let name = |text| ServiceTier::of(text).map(|tier| tier.as_str().to_owned());
        assert_eq!(name("Priority").as_deref(), Some("priority"));
        for other in ["", "a b", "é", "longer-than-names-are"] {
            assert_eq!(name(other), None, "{other}");
        }
    }
}
