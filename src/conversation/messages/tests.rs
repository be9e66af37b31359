//! Conversations as clients write them, and malformed ones.

use super::Dialect::{Anthropic, OpenAi};
use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn read(dialect: Dialect, body: &str) -> MessageReader {
    let mut reader = MessageReader::new(dialect, true);
    reader.feed(body.as_bytes());
    for split in 0..=body.len() {
        let mut parts = MessageReader::new(dialect, true);
        let (head, tail) = body.as_bytes().split_at(split);
        parts.feed(head);
        parts.feed(tail);
        assert_eq!(parts.messages, reader.messages, "split at {split}");
        assert_eq!(parts.is_odd, reader.is_odd, "split at {split}");
        assert_eq!(parts.id(), reader.id(), "split at {split}");
    }
    reader
}

/// Each message as its first letter, followed by the index that it reaches if that is not its own.
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

// Some servers number the ids of calls anew in each turn.
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
            let mut reader = MessageReader::new(OpenAi, true);
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

fn name(dialect: Dialect, messages: &[&str]) -> ConversationId {
    let body = format!(r#"{{"messages":[{}]}}"#, messages.join(","));
    read(dialect, &body).id().unwrap()
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
    // The same text as a block, with cache marks that move, other white space and other keys.
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
    // Two texts differ from one text with the same bytes.
    let parts = |parts: &str| format!(r#"{{"role":"user","content":[{parts}]}}"#);
    let [two, one] = [r#"{"text":"a"},{"text":"b"}"#, r#"{"text":"ab"}"#].map(parts);
    assert_ne!(name(OpenAi, &[&two]).name, name(OpenAi, &[&one]).name);
}

#[test]
fn what_the_application_says_beside_the_messages_counts_wherever_it_stands() {
    let named = |body: &str| read(Anthropic, body).id().unwrap().name;
    let talk = format!(r#""messages":[{FIRST}]"#);
    let system = r#""system":"Be brief.""#;
    let block =
        r#""system":[{"type":"text","text":"Be brief.","cache_control":{"type":"ephemeral"}}]"#;
    let before = named(&format!("{{{system},{talk}}}"));
    assert_eq!(named(&format!("{{{talk},{system}}}")), before);
    assert_eq!(named(&format!("{{{talk},{block}}}")), before);
    assert_ne!(named(&format!("{{{talk}}}")), before);
}

// A client that itself leaves out the oldest turns.
#[test]
fn a_question_after_an_answer_links_a_turn_to_the_next() {
    let second = name(OpenAi, &[SYSTEM, FIRST, ANSWER, SECOND]);
    let other = r#"{"role":"assistant","content":"Then."}"#;
    let third = name(OpenAi, &[SYSTEM, ANSWER, SECOND, other, SECOND]);
    assert_ne!(second.name, third.name);
    assert_eq!(third.questions[1], second.questions[0]);
    assert_ne!(third.questions[0], second.questions[0]);
    // Answers of tools belong to the turn in which they were called.
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
        assert_eq!(read(OpenAi, &body).id(), None);
    }
    let mut unnamed = MessageReader::new(OpenAi, false);
    unnamed.feed(format!(r#"{{"messages":[{FIRST}]}}"#).as_bytes());
    assert_eq!(unnamed.id(), None);
}
