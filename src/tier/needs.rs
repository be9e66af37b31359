//! What a request needs of the model that serves it.

/// A set of such needs, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs(pub u32);

impl Needs {
    /// No needs.
    pub const NONE: Self = Self(0);
    /// The request calls tools.
    pub const TOOLS: Self = Self(1);
    /// The prompt contains more than text: images, files, sound.
    pub const IMAGES: Self = Self(1 << 1);
    /// The output has to follow a schema.
    pub const STRUCTURED_OUTPUT: Self = Self(1 << 2);
    /// The request switches thinking on, or sets a budget for it.
    pub const THINKING: Self = Self(1 << 3);
    /// The prompt contains thoughts that were signed for the model that began the conversation.
    pub const SIGNED_THINKING: Self = Self(1 << 4);
    /// The request continues a prompt that the provider has cached for one model.
    pub const CACHED_PROMPT: Self = Self(1 << 5);
    /// The model decides how much to think (Anthropic's `adaptive`): models that require a budget for thinking refuse such a request.
    pub const ADAPTIVE_THINKING: Self = Self(1 << 6);
    /// The request sets the effort or the speed, which few models support.
    pub const EFFORT: Self = Self(1 << 7);
    /// The request sets where or how long its prompt is cached, in a way that few models support.
    pub const CACHE_SETTINGS: Self = Self(1 << 8);
    /// The request uses something that only a provider's recent models take.
    pub const RECENT_FEATURES: Self = Self(1 << 9);
    /// All needs.
    pub const ALL: Self = Self((1 << 10) - 1);
    /// Needs that a tier's `supports` must name, since few models meet them.
    const RARE: Self = Self(
        Self::ADAPTIVE_THINKING.0
            | Self::EFFORT.0
            | Self::CACHE_SETTINGS.0
            | Self::RECENT_FEATURES.0,
    );
    /// Needs that only the model meets that began the conversation.
    const OWN: Self = Self(Self::SIGNED_THINKING.0 | Self::CACHED_PROMPT.0);

    /// What a model that is configured without `supports` can do: every need except the rare ones and those that only the model meets that
    /// began the conversation.
    pub const USUAL: Self = Self::ALL.without(Self::OWN).without(Self::RARE);

    /// These needs if `is_so`, else none.
    #[must_use]
    pub const fn when(self, is_so: bool) -> Self {
        if is_so { self } else { Self::NONE }
    }

    /// Whether all of these needs are in `others`.
    #[must_use]
    pub const fn are_in(self, others: Self) -> bool {
        self.0 & !others.0 == 0
    }

    /// All of these needs but `others`.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }
}

impl std::ops::BitOr for Needs {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
