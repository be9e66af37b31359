//! The position of the message reader in a request's body.

/// The position of the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Context {
    Outside,
    /// In the body's object.
    Top,
    /// In the list of messages.
    List,
    Message,
    /// In the list of a message's blocks, or tool calls.
    Parts,
    Part,
    /// In the top-level list of system blocks.
    System,
    SystemPart,
}

impl Context {
    pub(super) fn is_object(self) -> bool {
        matches!(
            self,
            Self::Top | Self::Message | Self::Part | Self::SystemPart
        )
    }

    pub(super) fn parent(self) -> Self {
        match self {
            Self::Outside | Self::Top => Self::Outside,
            Self::List | Self::System => Self::Top,
            Self::Message => Self::List,
            Self::Parts => Self::Message,
            Self::Part => Self::Parts,
            Self::SystemPart => Self::System,
        }
    }
}

/// The key of the current or next value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Messages,
    /// The application's instructions outside of the messages.
    System,
    Role,
    Content,
    /// The list of a message's tool calls.
    Calls,
    /// A block's text.
    Text,
    /// The id of a tool call.
    Call,
    /// The id of the tool call that is answered.
    Answer,
    Other,
}
