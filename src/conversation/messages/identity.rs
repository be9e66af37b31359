//! The identity of a conversation: hashes of its texts.

use std::hash::{Hash, Hasher};

use super::Role;
use crate::base::hash::{StableHasher, stable};
use crate::conversation::ConversationId;

/// The texts that distinguish a conversation from others, as far as they were read. Only raw texts count: attributes such as
/// `cache_control` move from turn to turn, and a text may stand alone or in a block.
#[derive(Clone, Debug, Default)]
pub(super) struct Identity {
    /// The application's instructions outside of the messages.
    system: StableHasher,
    /// Everything up to the end of the user's first message.
    start: StableHasher,
    /// Whether the user's first message was read.
    has_started: bool,
    /// The message that is being read.
    text: StableHasher,
    /// The model's last message.
    answer: Option<u64>,
    questions: [u64; 2],
}

impl Identity {
    /// The conversation's id; `None` without a message of the user.
    pub(super) fn id(&self) -> Option<ConversationId> {
        self.has_started.then(|| ConversationId {
            name: stable((self.system.finish(), self.start.finish())),
            questions: self.questions,
        })
    }

    /// Reads the next part of a text, with its closing quote if `is_closed`. `is_beside`: the text is outside of the messages.
    pub(super) fn feed(&mut self, text: &[u8], is_beside: bool, is_closed: bool) {
        let hasher = match is_beside {
            true => &mut self.system,
            false => &mut self.text,
        };
        let text = text
            .strip_suffix(b"\"")
            .filter(|_| is_closed)
            .unwrap_or(text);
        hasher.write(text);
        if is_closed {
            // No text in UTF-8 has this byte, so it separates two texts.
            hasher.write_u8(0xff);
        }
    }

    /// Handles the end of a message. `is_own`: the message answers no tool.
    pub(super) fn end_message(&mut self, role: Role, is_own: bool) {
        let text = std::mem::take(&mut self.text).finish();
        let asks = role == Role::User && is_own;
        if !self.has_started {
            (role as u8, text).hash(&mut self.start);
            self.has_started = asks;
        }
        if asks {
            // The question is hashed with the model's last message, so that even a short question identifies this conversation.
            let question = self.answer.map_or(0, |answer| stable((answer, text)));
            self.questions = [question, self.questions[0]];
        }
        if role == Role::Assistant {
            self.answer = Some(text);
        }
    }
}
