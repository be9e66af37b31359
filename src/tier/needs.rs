//! What a request needs of the model that serves it.

/// What a request needs of the model that serves it, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs(pub u32);

impl Needs {
    /// Nothing in particular.
    pub const NONE: Self = Self(0);
    /// It calls tools.
    pub const TOOLS: Self = Self(1);
    /// It reads more than text: images, files, sound.
    pub const IMAGES: Self = Self(1 << 1);
    /// Its output keeps to a schema.
    pub const STRUCTURED_OUTPUT: Self = Self(1 << 2);
    /// It switches thinking on, or sets its budget.
    pub const THINKING: Self = Self(1 << 3);
    /// It takes thoughts that were signed for the model that began the conversation.
    pub const SIGNED_THINKING: Self = Self(1 << 4);
    /// It continues a prompt that the provider has cached for one model.
    pub const CACHED_PROMPT: Self = Self(1 << 5);
    /// It lets the model decide how much to think (Anthropic's `adaptive`): models that want a budget for thinking refuse that.
    pub const ADAPTIVE_THINKING: Self = Self(1 << 6);
    /// It sets the effort or the speed: few models can.
    pub const EFFORT: Self = Self(1 << 7);
    /// All of that.
    pub const ALL: Self = Self((1 << 8) - 1);
    /// Needs that a tier's `supports` must name, since few models meet them.
    const RARE: Self = Self(Self::ADAPTIVE_THINKING.0 | Self::EFFORT.0);
    /// Needs that only the model meets which began the conversation.
    const OWN: Self = Self(Self::SIGNED_THINKING.0 | Self::CACHED_PROMPT.0);

    /// What a model can do that is configured without `supports`: all but what another model has begun and what is rare.
    pub const USUAL: Self = Self::ALL.without(Self::OWN).without(Self::RARE);

    /// These if `is_so`, else none.
    #[must_use]
    pub const fn when(self, is_so: bool) -> Self {
        if is_so { self } else { Self::NONE }
    }

    /// Whether none of these is missing in `others`.
    #[must_use]
    pub const fn are_in(self, others: Self) -> bool {
        self.0 & !others.0 == 0
    }

    /// All but `others`.
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
