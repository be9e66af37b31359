//! Reads the messages of a conversation from a request's body as it streams: each message's position and role, and the
//! message whose tool calls it answers.
//!
//! The reader knows two dialects: OpenAI's chat completions (`tool_calls[].id`, answered by a message with `tool_call_id`) and Anthropic's
//! Messages (blocks with an `id`, answered by blocks with `tool_use_id`), as their official SDKs of November 2026 have them.
//!
//! [`crate::body::json`] does not look into lists. This separate reader does, and runs only where the configuration needs the messages. The
//! reader tracks strings and brackets, and leaves the rejection of invalid JSON to the upstream. A conversation with anything that the
//! reader does not understand is *odd*: the reader reports no message of an odd conversation, so that nothing is changed there.

mod context;
mod identity;

use std::collections::BTreeMap;

use memchr::memchr2;

use crate::base::hash;
use crate::body::json::unescape;
use crate::conversation::ConversationId;
use context::{Context, Key};
use identity::Identity;

/// How a conversation is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's chat completions.
    OpenAi,
    /// Anthropic's Messages API.
    Anthropic,
}

/// A message's role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The application: `system`, `developer`.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// A tool: `tool`, `function`. In Anthropic's dialect, the user's messages carry tool results.
    Tool,
}

/// A message of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Offset of the message's first byte in the body.
    pub start: u64,
    /// The message's role.
    pub role: Role,
    /// Index of the earliest message whose tool calls this message answers; its own index if it answers none.
    pub reaches: usize,
}

/// Most messages, and most tool calls, of a conversation; one with more is odd. The bound limits the reader's memory to about 1 MB.
const MAX_MESSAGES: usize = 16_384;

/// Longest role or id, in bytes of the body.
const MAX_WORD: usize = 512;

/// The message that is being read.
#[derive(Clone, Copy, Debug, Default)]
struct Draft {
    start: u64,
    role: Option<Role>,
    has_content: bool,
    has_calls: bool,
    /// Whether the current part has named its call.
    has_call: bool,
    /// Whether the current part (in OpenAI's dialect, the message) has named the call that it answers.
    has_answer: bool,
    /// The earliest message whose calls the message answers.
    reaches: Option<usize>,
}

/// The reader's state between two chunks.
#[derive(Clone, Debug)]
pub struct MessageReader {
    dialect: Dialect,
    /// Computes the conversation's id, if the id is wanted.
    identity: Option<Box<Identity>>,
    /// Bytes seen so far.
    offset: u64,
    place: Context,
    /// Open brackets inside that context.
    beyond: u64,
    /// Whether a string is being read.
    in_string: bool,
    /// Whether the string is a key, or a short value that matters.
    keeps: bool,
    /// Whether the string is part of the conversation's identity.
    counts: bool,
    escaped: bool,
    word: Vec<u8>,
    /// Whether the next string is a key.
    is_key: bool,
    key: Key,
    /// The key whose list contains the parts.
    parts: Key,
    draft: Draft,
    messages: Vec<Message>,
    /// Index of the message for each hashed id of a tool call. The last message counts: some servers reuse ids in each turn.
    calls: BTreeMap<u64, usize>,
    last_assistant: Option<usize>,
    /// Whether the key of the list of messages was seen.
    has_messages: bool,
    /// Offset at which the list of messages begins.
    start: Option<u64>,
    is_odd: bool,
}

impl MessageReader {
    /// A reader for a new body. `is_identified`: the conversation's id is wanted, too.
    #[must_use]
    pub fn new(dialect: Dialect, is_identified: bool) -> Self {
        Self {
            dialect,
            identity: is_identified.then(Box::default),
            offset: 0,
            place: Context::Outside,
            beyond: 0,
            in_string: false,
            keeps: false,
            counts: false,
            escaped: false,
            word: Vec::new(),
            is_key: false,
            key: Key::Other,
            parts: Key::Other,
            draft: Draft::default(),
            messages: Vec::new(),
            calls: BTreeMap::new(),
            last_assistant: None,
            has_messages: false,
            start: None,
            is_odd: false,
        }
    }

    /// Reads the next chunk.
    pub fn feed(&mut self, chunk: &[u8]) {
        let mut rest = chunk;
        while !rest.is_empty() && !self.is_odd {
            let taken = match self.in_string {
                true => self.string(rest),
                false => self.structure(rest),
            };
            rest = rest.get(taken..).unwrap_or_default();
            let taken = u64::try_from(taken).unwrap_or(u64::MAX);
            self.offset = self.offset.saturating_add(taken);
        }
        if self.is_odd {
            self.forget();
        }
    }

    /// Stops reading and forgets everything, as for an odd conversation.
    pub fn forget(&mut self) {
        self.is_odd = true;
        (self.messages, self.calls) = (Vec::new(), BTreeMap::new());
    }

    /// About how many bytes of memory the reader takes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        /// An entry of a B-tree whose nodes are half full takes twice its size.
        const CALL: usize = 2 * size_of::<(u64, usize)>();
        let messages = self
            .messages
            .capacity()
            .saturating_mul(size_of::<Message>());
        let calls = self.calls.len().saturating_mul(CALL);
        u64::try_from(messages.saturating_add(calls)).unwrap_or(u64::MAX)
    }

    /// Whether the conversation is odd.
    #[must_use]
    pub fn is_odd(&self) -> bool {
        self.is_odd
    }

    /// Offset of the bracket that opens the list of messages, once it was seen.
    #[must_use]
    pub fn start(&self) -> Option<u64> {
        self.start
    }

    /// The messages of a body that was read; none if the conversation is odd.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The id of a conversation in a body that was read; `None` if there is no message of the user, or if the body is malformed.
    #[must_use]
    pub fn id(&self) -> Option<ConversationId> {
        let identity = self.identity.as_ref().filter(|_| !self.is_odd)?;
        identity.id()
    }

    /// Reads up to the next string. Returns the number of bytes read.
    fn structure(&mut self, rest: &[u8]) -> usize {
        for (at, &byte) in rest.iter().enumerate() {
            let here = self
                .offset
                .saturating_add(u64::try_from(at).unwrap_or(u64::MAX));
            match byte {
                b'"' => {
                    self.open_string();
                    return at.saturating_add(1);
                }
                b'{' | b'[' => self.open(byte, here),
                b'}' | b']' => self.close(byte),
                _ if self.beyond > 0 || byte.is_ascii_whitespace() => {}
                b':' => self.is_key = false,
                b',' => self.is_key = self.place.is_object(),
                _ => self.is_odd |= self.place == Context::List,
            }
            if self.is_odd {
                break;
            }
        }
        rest.len()
    }

    fn open(&mut self, bracket: u8, here: u64) {
        let next = match (self.place, bracket) {
            _ if self.beyond > 0 || self.is_key => None,
            (Context::Outside, b'{') => Some(Context::Top),
            (Context::Top, b'[') if self.key == Key::Messages => {
                self.start = Some(here);
                Some(Context::List)
            }
            (Context::List, b'{') => {
                self.draft = Draft {
                    start: here,
                    ..Draft::default()
                };
                Some(Context::Message)
            }
            (Context::Top, b'[') if self.key == Key::System => Some(Context::System),
            (Context::System, b'{') => Some(Context::SystemPart),
            (Context::Message, b'[') if matches!(self.key, Key::Content | Key::Calls) => {
                self.parts = self.key;
                Some(Context::Parts)
            }
            (Context::Parts, b'{') => Some(Context::Part),
            _ => None,
        };
        match next {
            Some(place) => self.go(place, true),
            None => {
                self.is_odd |= self.place == Context::List && self.beyond == 0;
                self.beyond = self.beyond.saturating_add(1);
            }
        }
    }

    fn close(&mut self, bracket: u8) {
        if let Some(less) = self.beyond.checked_sub(1) {
            self.beyond = less;
            return;
        }
        self.is_odd |= self.place.is_object() != (bracket == b'}');
        if self.place == Context::Message {
            self.end_message();
        }
        self.go(self.place.parent(), false);
    }

    fn go(&mut self, place: Context, is_new: bool) {
        (self.place, self.key) = (place, Key::Other);
        self.is_key = is_new && place.is_object();
        if place == Context::Part {
            self.draft.has_call = false;
            self.draft.has_answer &= self.dialect == Dialect::OpenAi;
        }
    }

    fn open_string(&mut self) {
        let is_here = self.beyond == 0;
        self.is_odd |= is_here && self.place == Context::List;
        self.in_string = true;
        self.keeps =
            is_here && (self.is_key || matches!(self.key, Key::Role | Key::Call | Key::Answer));
        self.word.clear();
        self.counts = is_here
            && !self.is_key
            && self.identity.is_some()
            && matches!(self.key, Key::Content | Key::Text | Key::System);
    }

    /// Reads part of a string. Returns the number of bytes read.
    fn string(&mut self, rest: &[u8]) -> usize {
        let (taken, is_closed) = string_end(&mut self.escaped, rest);
        if self.keeps {
            // One byte more than allowed shows that the string is too long.
            let room = MAX_WORD.saturating_add(2).saturating_sub(self.word.len());
            self.word.extend(rest.iter().take(taken.min(room)));
        }
        if let Some(identity) = self.identity.as_mut().filter(|_| self.counts) {
            let is_beside = matches!(self.place, Context::Top | Context::SystemPart);
            identity.feed(rest.get(..taken).unwrap_or_default(), is_beside, is_closed);
        }
        if is_closed {
            self.in_string = false;
            if self.keeps {
                self.end_string();
            }
        }
        taken
    }

    /// Handles the end of a string that was a key, or the value of a key that matters.
    fn end_string(&mut self) {
        let word = std::mem::take(&mut self.word);
        let raw = word.strip_suffix(b"\"").filter(|raw| raw.len() <= MAX_WORD);
        let text = raw.and_then(unescape);
        match (self.is_key, text) {
            (true, text) => self.set_key(text.as_deref().unwrap_or_default()),
            (false, Some(text)) => self.set_value(&text),
            (false, None) => self.is_odd = true,
        }
        self.word = word;
    }

    fn set_key(&mut self, name: &str) {
        use Dialect::{Anthropic, OpenAi};
        self.key = match (self.place, self.dialect, name) {
            (Context::Top, _, "messages") => Key::Messages,
            (Context::Top, Anthropic, "system") => Key::System,
            (Context::Message, _, "role") => Key::Role,
            (Context::Message, _, "content") => Key::Content,
            (Context::Message, OpenAi, "tool_calls") => Key::Calls,
            (Context::Message, OpenAi, "tool_call_id")
            | (Context::Part, Anthropic, "tool_use_id") => Key::Answer,
            (Context::Part, Anthropic, "id") => Key::Call,
            (Context::Part, OpenAi, "id") if self.parts == Key::Calls => Key::Call,
            (Context::Part, _, "text") if self.parts == Key::Content => Key::Text,
            (Context::SystemPart, _, "text") => Key::Text,
            _ => Key::Other,
        };
        // Parsers disagree on which of two equal keys counts.
        self.is_odd |= match self.key {
            Key::Messages => std::mem::replace(&mut self.has_messages, true),
            Key::Content => std::mem::replace(&mut self.draft.has_content, true),
            Key::Calls => std::mem::replace(&mut self.draft.has_calls, true),
            Key::Call => std::mem::replace(&mut self.draft.has_call, true),
            Key::Answer => std::mem::replace(&mut self.draft.has_answer, true),
            Key::Role => self.draft.role.is_some(),
            Key::System | Key::Text => false,
            Key::Other => self.place == Context::Top && name.eq_ignore_ascii_case("messages"),
        };
    }

    fn set_value(&mut self, text: &str) {
        match self.key {
            Key::Role => {
                self.draft.role = role(text, self.dialect);
                self.is_odd |= self.draft.role.is_none();
            }
            Key::Call => {
                self.calls.insert(hash::stable(text), self.messages.len());
                self.is_odd |= self.calls.len() > MAX_MESSAGES;
            }
            Key::Answer => match self.calls.get(&hash::stable(text)) {
                Some(&call) => self.reach(call),
                None => self.is_odd = true,
            },
            Key::Messages | Key::System | Key::Content | Key::Calls | Key::Text | Key::Other => {}
        }
        self.key = Key::Other;
    }

    fn reach(&mut self, message: usize) {
        let reaches = self.draft.reaches.unwrap_or(message);
        self.draft.reaches = Some(reaches.min(message));
    }

    fn end_message(&mut self) {
        let index = self.messages.len();
        let Some(role) = self.draft.role.filter(|_| index < MAX_MESSAGES) else {
            self.is_odd = true;
            return;
        };
        if role == Role::Tool && self.draft.reaches.is_none() {
            // This message does not name the call that it answers, as with functions and some servers' tools.
            match self.last_assistant {
                Some(assistant) => self.reach(assistant),
                None => self.is_odd = true,
            }
        }
        if role == Role::Assistant {
            self.last_assistant = Some(index);
        }
        let message = Message {
            start: self.draft.start,
            role,
            reaches: self.draft.reaches.unwrap_or(index),
        };
        if let Some(identity) = &mut self.identity {
            identity.end_message(role, message.reaches == index);
        }
        self.messages.push(message);
    }
}

fn role(name: &str, dialect: Dialect) -> Option<Role> {
    match (name, dialect) {
        ("user", _) => Some(Role::User),
        ("assistant", _) => Some(Role::Assistant),
        ("system" | "developer", Dialect::OpenAi) => Some(Role::System),
        ("tool" | "function", Dialect::OpenAi) => Some(Role::Tool),
        _ => None,
    }
}

/// Reads to the end of a string. Returns the number of bytes read, and whether the last one is the string's closing quote.
fn string_end(escaped: &mut bool, bytes: &[u8]) -> (usize, bool) {
    let mut at = usize::from(std::mem::take(escaped));
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        let found = at.saturating_add(found);
        if bytes.get(found) == Some(&b'"') {
            return (found.saturating_add(1), true);
        }
        at = found.saturating_add(2);
    }
    *escaped = at > bytes.len();
    (bytes.len(), false)
}

#[cfg(test)]
mod tests;
