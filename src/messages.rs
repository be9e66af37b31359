//! The messages of a conversation in a request's body, read as it streams: where each stands, whose it is, and whose tool
//! calls it answers.
//!
//! In two dialects: OpenAI's chat completions (`tool_calls[].id`, answered by a message with `tool_call_id`) and Anthropic's
//! Messages (blocks with an `id`, answered by blocks with `tool_use_id`), as their official SDKs of November 2026 have them.
//!
//! This is a reader of its own beside [`crate::json`], which does not look into lists, so that a configuration without a use
//! for messages pays nothing for them. Like that one it follows strings and brackets, and leaves a body that is no JSON to the
//! upstream. What it does not understand makes a conversation *odd*: nothing is told of such a one, so nothing of it changes.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use memchr::memchr2;

use crate::conversation::Name;
use crate::json::unescape;

/// How a conversation is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Chat completions.
    OpenAi,
    /// The Messages API.
    Anthropic,
}

/// Whose a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The application's: `system`, `developer`.
    System,
    /// The user's.
    User,
    /// The model's.
    Assistant,
    /// A tool's: `tool`, `function`. In Anthropic's dialect tools answer in the user's messages.
    Tool,
}

/// A message of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Offset of its first byte in the body.
    pub start: u64,
    /// Whose it is.
    pub role: Role,
    /// Index of the earliest message whose tool calls it answers; its own if it answers none.
    pub reaches: usize,
}

/// Most messages of a conversation, and most tool calls, that are not odd: it bounds the reader's memory to about a megabyte.
const MAX_MESSAGES: usize = 16_384;

/// Longest role or id, in bytes as they stand in the body.
const MAX_WORD: usize = 512;

/// Where the reader is. A place is reached from the one before only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Outside,
    /// In the body's object.
    Top,
    /// In the list of messages.
    List,
    Message,
    /// In the list of a message's blocks, or tool calls.
    Parts,
    Part,
    /// In the list of blocks that stands beside the messages.
    System,
    SystemPart,
}

impl Place {
    fn is_object(self) -> bool {
        matches!(
            self,
            Self::Top | Self::Message | Self::Part | Self::SystemPart
        )
    }

    fn parent(self) -> Self {
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

/// The key of the value that is being read or comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Messages,
    /// What the application says, beside the messages.
    System,
    Role,
    Content,
    /// The list of a message's tool calls.
    Calls,
    /// What a block says.
    Text,
    /// The id of a tool call.
    Call,
    /// The id of the tool call that is answered.
    Answer,
    Other,
}

/// The message that is being read.
#[derive(Clone, Copy, Debug, Default)]
struct Draft {
    start: u64,
    role: Option<Role>,
    has_content: bool,
    has_calls: bool,
    /// The part that is being read has said which call it is.
    has_call: bool,
    /// It, or in OpenAI's dialect the message, has said which call it answers.
    has_answer: bool,
    /// The earliest message whose calls it answers.
    reaches: Option<usize>,
}

/// What tells a conversation from others, as far as it was read. Only texts count, as they stand in the body: marks such as
/// `cache_control` move from turn to turn, and a text may stand alone or as a block.
#[derive(Clone, Debug, Default)]
struct Naming {
    /// What the application says beside the messages.
    system: DefaultHasher,
    /// All that is said up to the end of the user's first message.
    start: DefaultHasher,
    /// That was read.
    has_started: bool,
    /// The message that is being read.
    text: DefaultHasher,
    /// The model's last message.
    answer: Option<u64>,
    questions: [u64; 2],
}

/// The reader's state between two chunks.
#[derive(Clone, Debug)]
pub struct Reader {
    dialect: Dialect,
    /// Where a name is wanted.
    naming: Option<Box<Naming>>,
    /// Bytes seen so far.
    offset: u64,
    place: Place,
    /// Open brackets beyond that place.
    beyond: u64,
    /// A string is being read.
    in_string: bool,
    /// It is a key, or a short value that matters.
    keeps: bool,
    /// It is a text that counts for the name.
    counts: bool,
    escaped: bool,
    word: Vec<u8>,
    /// The next string is a key.
    is_key: bool,
    key: Key,
    /// Which list the parts stand in.
    parts: Key,
    draft: Draft,
    messages: Vec<Message>,
    /// Messages by the ids of their tool calls, hashed. The last one counts: some servers count anew in each turn.
    calls: BTreeMap<u64, usize>,
    last_assistant: Option<usize>,
    /// The key of the messages was seen.
    has_messages: bool,
    /// Where their list begins.
    start: Option<u64>,
    is_odd: bool,
}

impl Reader {
    /// A reader for a new body. `is_named`: the conversation's name is wanted, too.
    #[must_use]
    pub fn new(dialect: Dialect, is_named: bool) -> Self {
        Self {
            dialect,
            naming: is_named.then(Box::default),
            offset: 0,
            place: Place::Outside,
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

    /// Reads on.
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
            (self.messages, self.calls) = (Vec::new(), BTreeMap::new());
        }
    }

    /// Whether there is something that is not understood.
    #[must_use]
    pub fn is_odd(&self) -> bool {
        self.is_odd
    }

    /// Offset of the bracket with which the list of messages begins, once it was seen.
    #[must_use]
    pub fn start(&self) -> Option<u64> {
        self.start
    }

    /// The messages of a body that was read; none of an odd one.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The name of a conversation in a body that was read; `None` where the user says nothing, or it is odd.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        let naming = self.naming.as_ref().filter(|_| !self.is_odd)?;
        naming.has_started.then(|| Name {
            name: hash((naming.system.finish(), naming.start.finish())),
            questions: naming.questions,
        })
    }

    /// Reads up to the next string: how many bytes that took.
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
                _ => self.is_odd |= self.place == Place::List,
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
            (Place::Outside, b'{') => Some(Place::Top),
            (Place::Top, b'[') if self.key == Key::Messages => {
                self.start = Some(here);
                Some(Place::List)
            }
            (Place::List, b'{') => {
                self.draft = Draft {
                    start: here,
                    ..Draft::default()
                };
                Some(Place::Message)
            }
            (Place::Top, b'[') if self.key == Key::System => Some(Place::System),
            (Place::System, b'{') => Some(Place::SystemPart),
            (Place::Message, b'[') if matches!(self.key, Key::Content | Key::Calls) => {
                self.parts = self.key;
                Some(Place::Parts)
            }
            (Place::Parts, b'{') => Some(Place::Part),
            _ => None,
        };
        match next {
            Some(place) => self.go(place, true),
            None => {
                self.is_odd |= self.place == Place::List && self.beyond == 0;
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
        if self.place == Place::Message {
            self.end_message();
        }
        self.go(self.place.parent(), false);
    }

    fn go(&mut self, place: Place, is_new: bool) {
        (self.place, self.key) = (place, Key::Other);
        self.is_key = is_new && place.is_object();
        if place == Place::Part {
            self.draft.has_call = false;
            self.draft.has_answer &= self.dialect == Dialect::OpenAi;
        }
    }

    fn open_string(&mut self) {
        let is_here = self.beyond == 0;
        self.is_odd |= is_here && self.place == Place::List;
        self.in_string = true;
        self.keeps =
            is_here && (self.is_key || matches!(self.key, Key::Role | Key::Call | Key::Answer));
        self.word.clear();
        self.counts = is_here
            && !self.is_key
            && self.naming.is_some()
            && matches!(self.key, Key::Content | Key::Text | Key::System);
    }

    /// Reads on in a string: how many bytes that took.
    fn string(&mut self, rest: &[u8]) -> usize {
        let (taken, is_closed) = string_end(&mut self.escaped, rest);
        if self.keeps {
            // One byte more than there may be tells that it is too long.
            let room = MAX_WORD.saturating_add(2).saturating_sub(self.word.len());
            self.word.extend(rest.iter().take(taken.min(room)));
        }
        if self.counts {
            self.count(rest.get(..taken).unwrap_or_default(), is_closed);
        }
        if is_closed {
            self.in_string = false;
            if self.keeps {
                self.end_string();
            }
        }
        taken
    }

    /// More of a text that counts for the name, with its quote if that closes it.
    fn count(&mut self, text: &[u8], is_closed: bool) {
        let is_beside = matches!(self.place, Place::Top | Place::SystemPart);
        let Some(naming) = &mut self.naming else {
            return;
        };
        let hasher = match is_beside {
            true => &mut naming.system,
            false => &mut naming.text,
        };
        let text = text
            .strip_suffix(b"\"")
            .filter(|_| is_closed)
            .unwrap_or(text);
        hasher.write(text);
        if is_closed {
            // No byte of a text: two of them are not taken for one.
            hasher.write_u8(0xff);
        }
    }

    /// A key was read, or the value of one that matters.
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
            (Place::Top, _, "messages") => Key::Messages,
            (Place::Top, Anthropic, "system") => Key::System,
            (Place::Message, _, "role") => Key::Role,
            (Place::Message, _, "content") => Key::Content,
            (Place::Message, OpenAi, "tool_calls") => Key::Calls,
            (Place::Message, OpenAi, "tool_call_id") | (Place::Part, Anthropic, "tool_use_id") => {
                Key::Answer
            }
            (Place::Part, Anthropic, "id") => Key::Call,
            (Place::Part, OpenAi, "id") if self.parts == Key::Calls => Key::Call,
            (Place::Part, _, "text") if self.parts == Key::Content => Key::Text,
            (Place::SystemPart, _, "text") => Key::Text,
            _ => Key::Other,
        };
        // Where a key stands twice, parsers differ on which one counts.
        self.is_odd |= match self.key {
            Key::Messages => std::mem::replace(&mut self.has_messages, true),
            Key::Content => std::mem::replace(&mut self.draft.has_content, true),
            Key::Calls => std::mem::replace(&mut self.draft.has_calls, true),
            Key::Call => std::mem::replace(&mut self.draft.has_call, true),
            Key::Answer => std::mem::replace(&mut self.draft.has_answer, true),
            Key::Role => self.draft.role.is_some(),
            Key::System | Key::Text => false,
            Key::Other => self.place == Place::Top && name.eq_ignore_ascii_case("messages"),
        };
    }

    fn set_value(&mut self, text: &str) {
        match self.key {
            Key::Role => {
                self.draft.role = role(text, self.dialect);
                self.is_odd |= self.draft.role.is_none();
            }
            Key::Call => {
                self.calls.insert(hash(text), self.messages.len());
                self.is_odd |= self.calls.len() > MAX_MESSAGES;
            }
            Key::Answer => match self.calls.get(&hash(text)) {
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
            // One that does not say what it answers: functions, and some servers' tools.
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
        if let Some(naming) = &mut self.naming {
            naming.add(role, message.reaches == index);
        }
        self.messages.push(message);
    }
}

impl Naming {
    /// A message was read. `is_own`: it answers no tool.
    fn add(&mut self, role: Role, is_own: bool) {
        let text = std::mem::take(&mut self.text).finish();
        let asks = role == Role::User && is_own;
        if !self.has_started {
            (role as u8, text).hash(&mut self.start);
            self.has_started = asks;
        }
        if asks {
            // What the model said before makes it this conversation's, however short it is.
            let question = self.answer.map_or(0, |answer| hash((answer, text)));
            self.questions = [question, self.questions[0]];
        }
        if role == Role::Assistant {
            self.answer = Some(text);
        }
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

/// Goes to the end of a string: how many bytes that took, and whether the last one is its closing quote.
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

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::Dialect::{Anthropic, OpenAi};
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn read(dialect: Dialect, body: &str) -> Reader {
        let mut reader = Reader::new(dialect, true);
        reader.feed(body.as_bytes());
        for split in 0..=body.len() {
            let mut parts = Reader::new(dialect, true);
            let (head, tail) = body.as_bytes().split_at(split);
            parts.feed(head);
            parts.feed(tail);
            assert_eq!(parts.messages, reader.messages, "split at {split}");
            assert_eq!(parts.is_odd, reader.is_odd, "split at {split}");
            assert_eq!(parts.name(), reader.name(), "split at {split}");
        }
        reader
    }

    /// Each message as its first letter, and the index of what it reaches if that is another one.
    #[track_caller]
    fn told(dialect: Dialect, body: &str) -> String {
        let reader = read(dialect, body);
        assert!(!reader.is_odd());
        let told = |(index, message): (usize, &Message)| {
            let start = usize::try_from(message.start).unwrap();
            assert_eq!(body.as_bytes()[start], b'{');
            let role = match message.role {
                Role::System => 's',
                Role::User => 'u',
                Role::Assistant => 'a',
                Role::Tool => 't',
            };
            let reaches = (message.reaches != index).then(|| message.reaches.to_string());
            format!("{role}{}", reaches.unwrap_or_default())
        };
        let messages = reader.messages().iter().enumerate();
        messages.map(told).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn openais_tools_answer_the_message_that_calls_them() {
        let body = r#" {"tools": [{"id": "c1"}], "messages": [
            {"role": "developer", "content": "{\"role\": \"tool\"}"}, {"content": ["a", {"id": "x"}], "role": "us\u0065r"},
            {"role": "assistant", "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "{}"}}, {"id": "c2"}]},
            {"tool_call_id": "c\u0031", "role": "tool", "content": "1"},
            {"role": "tool", "content": "2", "tool_call_id": "c2"},
            {"role": "user", "content": null}, {"role": "assistant", "function_call": {"name": "f"}},
            {"role": "function", "name": "f", "content": "3"}
        ], "n": 1} "#;
        assert_eq!(told(OpenAi, body), "s u a t2 t2 u a t6");
    }

    #[test]
    fn anthropics_tools_answer_in_the_users_messages() {
        let body = r#"{"messages":[{"role":"user","content":"Hi"},
            {"role":"assistant","content":[{"type":"text","text":"x"},{"type":"tool_use","id":"t1","name":"f","input":{"id":"t1"}}]},
            {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"]}"}]},{"type":"text"}]},
            {"role":"assistant","content":[{"type":"server_tool_use","id":"s1","input":{}},
                {"type":"web_search_tool_result","tool_use_id":"s1","content":[]}]},
            {"role":"user","content":"And?"}],"model":"m"}"#;
        assert_eq!(told(Anthropic, body), "u a u1 a u");
    }

    // Some servers count anew in each turn.
    #[test]
    fn of_calls_with_one_id_the_last_before_it_is_answered() {
        let turn = r#"{"role":"user"},{"role":"assistant","tool_calls":[{"id":"0"}]},{"role":"tool","tool_call_id":"0"}"#;
        let body = format!(r#"{{"messages":[{turn},{turn}]}}"#);
        assert_eq!(told(OpenAi, &body), "u a t1 u a t4");
    }

    #[test]
    fn without_messages_there_are_none() {
        for body in [
            r#"{}"#,
            r#"{"messages":[]}"#,
            r#"{"messages":null}"#,
            r#"{"messages":"x"}"#,
            r#"{"a":{"messages":[{}]}}"#,
        ] {
            assert_eq!(told(OpenAi, body), "");
        }
    }

    #[test]
    fn what_is_not_understood_makes_a_conversation_odd() {
        let long = format!(r#"{{"role":"tool","tool_call_id":"{}"}}"#, "x".repeat(513));
        for (dialect, message) in [
            (OpenAi, r#"{}"#),
            (OpenAi, r#"{"role":null}"#),
            (OpenAi, r#"{"role":["user"]}"#),
            (OpenAi, r#"{"role":"critic"}"#),
            (OpenAi, r#"{"role":"user","role":"user"}"#),
            (OpenAi, r#"{"role":"tool"}"#),
            (OpenAi, r#"{"role":"tool","tool_call_id":"c1"}"#),
            (OpenAi, &long),
            (OpenAi, r#"{"role":"\x"}"#),
            (
                OpenAi,
                r#"{"role":"assistant","tool_calls":[{"id":"a","id":"b"}]}"#,
            ),
            (
                OpenAi,
                r#"{"role":"assistant","tool_calls":[],"tool_calls":[]}"#,
            ),
            (OpenAi, r#"{"role":"user"},5"#),
            (OpenAi, r#"{"role":"user"},"x""#),
            (OpenAi, r#"{"role":"user"},[]"#),
            (OpenAi, r#"{"role":"user"]}"#),
            (Anthropic, r#"{"role":"system"}"#),
            (Anthropic, r#"{"role":"tool"}"#),
            (
                Anthropic,
                r#"{"role":"user","content":[{"tool_use_id":"t1"}]}"#,
            ),
            (Anthropic, r#"{"role":"user","content":[],"content":[]}"#),
        ] {
            let reader = read(dialect, &format!(r#"{{"messages":[{message}]}}"#));
            assert!(reader.is_odd(), "{message}");
            assert_eq!(reader.messages(), []);
        }
        for twice in ["messages", "m\\u0065ssages", "Messages"] {
            let body = format!(r#"{{"messages":[{{"role":"user"}}],"{twice}":[]}}"#);
            assert!(read(OpenAi, &body).is_odd(), "{twice}");
        }
    }

    #[test]
    fn a_flood_of_messages_or_calls_is_odd_and_forgotten() {
        for (part, count) in [
            (r#"{"role":"user"}"#, MAX_MESSAGES),
            (
                r#"{"role":"assistant","tool_calls":[{"id":"@"}]}"#,
                MAX_MESSAGES,
            ),
        ] {
            for (count, is_odd) in [(count, false), (count + 1, true)] {
                let mut reader = Reader::new(OpenAi, true);
                reader.feed(br#"{"messages":["#);
                for at in 0..count {
                    reader.feed(part.replace('@', &at.to_string()).as_bytes());
                    reader.feed(b",");
                }
                assert_eq!(reader.is_odd(), is_odd);
                assert_eq!(reader.messages().len(), if is_odd { 0 } else { count });
            }
        }
    }

    fn name(dialect: Dialect, messages: &[&str]) -> Name {
        let body = format!(r#"{{"messages":[{}]}}"#, messages.join(","));
        read(dialect, &body).name().unwrap()
    }

    const SYSTEM: &str = r#"{"role":"system","content":"Be brief."}"#;
    const FIRST: &str = r#"{"role":"user","content":"Why \"so\"?"}"#;
    const ANSWER: &str = r#"{"role":"assistant","content":"Because."}"#;
    const SECOND: &str = r#"{"role":"user","content":"And then?"}"#;

    #[test]
    fn a_conversation_has_its_name_by_all_up_to_the_users_first_message() {
        let first = name(OpenAi, &[SYSTEM, FIRST]);
        assert_eq!(first.questions, [0, 0]);
        let second = name(OpenAi, &[SYSTEM, FIRST, ANSWER, SECOND]);
        assert_eq!(second.name, first.name);
        // The same text as a block, with marks that move; other white space, other keys.
        let block = r#"{ "content" : [ {"cache_control":{"type":"ephemeral"},"text":"Why \"so\"?","type":"text"}],"role":"user","name":"n"}"#;
        assert_eq!(name(OpenAi, &[SYSTEM, block, ANSWER]).name, first.name);
        for other in [
            vec![FIRST],
            vec![SYSTEM, SECOND],
            vec![FIRST, SYSTEM],
            vec![ANSWER, SYSTEM, FIRST],
            vec![SYSTEM, SYSTEM, FIRST],
        ] {
            assert_ne!(name(OpenAi, &other).name, first.name, "{other:?}");
        }
        // Two texts are not one.
        let parts = |parts: &str| format!(r#"{{"role":"user","content":[{parts}]}}"#);
        let [two, one] = [r#"{"text":"a"},{"text":"b"}"#, r#"{"text":"ab"}"#].map(parts);
        assert_ne!(name(OpenAi, &[&two]).name, name(OpenAi, &[&one]).name);
    }

    #[test]
    fn what_the_application_says_beside_the_messages_counts_wherever_it_stands() {
        let named = |body: &str| read(Anthropic, body).name().unwrap().name;
        let talk = format!(r#""messages":[{FIRST}]"#);
        let system = r#""system":"Be brief.""#;
        let block =
            r#""system":[{"type":"text","text":"Be brief.","cache_control":{"type":"ephemeral"}}]"#;
        let before = named(&format!("{{{system},{talk}}}"));
        assert_eq!(named(&format!("{{{talk},{system}}}")), before);
        assert_eq!(named(&format!("{{{talk},{block}}}")), before);
        assert_ne!(named(&format!("{{{talk}}}")), before);
    }

    // A client that leaves out the oldest turns itself.
    #[test]
    fn a_question_after_an_answer_links_a_turn_to_the_next() {
        let second = name(OpenAi, &[SYSTEM, FIRST, ANSWER, SECOND]);
        let other = r#"{"role":"assistant","content":"Then."}"#;
        let third = name(OpenAi, &[SYSTEM, ANSWER, SECOND, other, SECOND]);
        assert_ne!(second.name, third.name);
        assert_eq!(third.questions[1], second.questions[0]);
        assert_ne!(third.questions[0], second.questions[0]);
        // Tools answer within a turn.
        let call = r#"{"role":"assistant","content":[{"type":"text","text":"Then."},{"type":"tool_use","id":"t"}]}"#;
        let result =
            r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"x"}]}"#;
        let before = name(Anthropic, &[FIRST, ANSWER, SECOND]);
        let within = name(Anthropic, &[FIRST, ANSWER, SECOND, call, result]);
        assert_eq!(within, before);
    }

    #[test]
    fn without_a_word_of_the_user_or_with_an_odd_one_there_is_no_name() {
        for messages in ["", SYSTEM, r#"{"role":"critic"}"#] {
            let body = format!(r#"{{"messages":[{messages}]}}"#);
            assert_eq!(read(OpenAi, &body).name(), None);
        }
        let mut unnamed = Reader::new(OpenAi, false);
        unnamed.feed(format!(r#"{{"messages":[{FIRST}]}}"#).as_bytes());
        assert_eq!(unnamed.name(), None);
    }
}
