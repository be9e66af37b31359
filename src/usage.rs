//! What a provider says a request used: the numbers alone. [`crate::provider::usage`] reads them from an answer.

use crate::base::units::Tokens;

/// Tokens of one request as reported. Absent is not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens, the cached ones included.
    pub input: Option<Tokens>,
    /// Prompt tokens that the provider read from its cache. Invariant: with `cache_write`, no more than `input`.
    pub cached_input: Option<Tokens>,
    /// Prompt tokens that the provider wrote to its cache, and charges for that.
    pub cache_write: Option<Tokens>,
    /// Those of them that it keeps for an hour, where it says so. Invariant: no more than `cache_write`.
    pub cache_write_1h: Option<Tokens>,
    /// Output tokens, reasoning included.
    pub output: Option<Tokens>,
    /// Input and output together as they were reported, where that is all there is, or where the parts do not add up to it.
    pub other_total: Option<Tokens>,
    /// The service tier that served.
    pub service_tier: Option<ServiceTier>,
}

/// The name of a provider's service tier, as `priority` or `flex`: lower-case ASCII of at most 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ServiceTier {
    text: [u8; 16],
    length: u8,
}

impl ServiceTier {
    /// The tier of this name; `None` for what is no such name.
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

    /// The name.
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

/// Where a provider counts the tokens of its cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheCount {
    /// As a part of the input.
    Inside,
    /// Beside the input.
    Beside,
}

impl Usage {
    /// Input and output together; what was not reported is 0.
    #[must_use]
    pub fn total(&self) -> Tokens {
        self.input.unwrap_or_default() + self.output.unwrap_or_default()
    }

    /// Prompt tokens that the provider had not cached, whether or not it cached them now.
    #[must_use]
    pub fn fresh_input(&self) -> Option<Tokens> {
        Some(self.input? - self.cached_input.unwrap_or_default())
    }

    /// Both together.
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

    /// What two reports of one response say together, each of which may be partial. They are running totals, so the later
    /// one counts; but where it says 0, or nothing, the earlier one stands.
    #[must_use]
    pub(crate) fn after(self, earlier: Self, cache: CacheCount) -> Self {
        let own = |usage: &Self| match cache {
            CacheCount::Inside => usage.input,
            CacheCount::Beside => usage.input.map(|input| input - usage.cache()),
        };
        let (later_own, earlier_own) = (own(&self), own(&earlier));
        // A report that has an input of its own knows what was cached of it.
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

    /// What was read from the cache and written to it.
    fn cache(&self) -> Tokens {
        self.cached_input.unwrap_or_default() + self.cache_write.unwrap_or_default()
    }

    /// This usage, without cached tokens that its input does not have.
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

    /// Whether nothing is missing.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.input.is_some() && self.output.is_some()
    }

    /// Whether it says how much was used of anything.
    #[must_use]
    pub fn has_tokens(&self) -> bool {
        let nothing = Self {
            service_tier: self.service_tier,
            ..Self::default()
        };
        *self != nothing
    }

    /// The total that was reported, where input and output were, too, and do not add up to it.
    #[must_use]
    pub fn contradiction(&self) -> Option<Tokens> {
        self.other_total
            .filter(|total| self.is_whole() && *total != self.total())
    }

    /// Input and output where only their sum was reported, by the input that is likely.
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

/// The later one, unless it is 0 or absent and there was another one.
fn last_word(later: Option<Tokens>, earlier: Option<Tokens>) -> Option<Tokens> {
    let said = later.filter(|tokens| *tokens > Tokens(0));
    said.or(earlier).or(later)
}

/// What one event of a stream says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventFacts {
    /// Usage, if it has one.
    pub usage: Option<Usage>,
    /// What it is besides.
    pub kind: EventKind,
    /// No later event says anything about usage, but of a server that is not like others.
    pub is_last: bool,
}

/// What an event is to the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventKind {
    /// It may carry some of the answer.
    #[default]
    Content,
    /// It carries nothing of the answer, and comes with every answer.
    Frame,
    /// It carries nothing of the answer, and only comes if usage was requested.
    UsageOnly,
    /// It says that something went wrong.
    Error,
}

impl EventKind {
    /// Of an event that says that something went wrong, or may carry some of the answer.
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
