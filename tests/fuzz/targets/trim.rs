//! [`bursar::conversation::messages`] and [`bursar::conversation::trim`]: whatever the body, in any chunking, what a tier that trims sends on is the same
//! conversation with messages left out, each tool's answer with its call.

use serde_json::{Value, json};

use super::input::Input;
use super::tree::Tree;
use crate::proxy::Proxy;

const PATHS: [&str; 2] = ["/v1/chat/completions", "/v1/messages"];

pub fn run(data: &[u8]) {
    let Some(input) = Input::read(data) else {
        return;
    };
    let path = PATHS[usize::from(input.flag(0))];
    let proxy = Proxy::new(&json!({
        "hold_headers": input.flag(1),
        "tiers": [{"name": "a", "model": "m", "trim": {"to_tokens": input.choice + 1}}],
        "tenants": {"acme": {}},
    }));
    let whole = send(&proxy, path, &[input.bytes]);
    for chunks in input.chunkings(input.bytes) {
        assert_eq!(send(&proxy, path, &chunks), whole);
    }
    let Some((sent, count)) = whole else {
        return;
    };
    check(input.bytes, &sent, count, input.flag(0));
    if count > 0 {
        assert_eq!(send(&proxy, path, &[&sent]), Some((sent, 0)));
    }
}

/// What goes on, and how many messages are said to be left out; `None` of a request that is refused.
fn send(proxy: &Proxy, path: &str, chunks: &[&[u8]]) -> Option<(Vec<u8>, usize)> {
    let length = chunks.concat().len().to_string();
    let headers = [
        (":method", "POST"),
        (":path", path),
        ("x-tenant-id", "acme"),
        ("content-length", &length),
    ];
    let mut call = proxy.request(&headers, false);
    call.send(chunks);
    if call.refused().is_some() {
        return None;
    }
    // Without a report, so that nothing is learned of how much may stay.
    call.answer_json("{}");
    call.end();
    let count = call.response_header("x-bursar-trimmed-messages");
    let count = count.map_or(0, |count| count.parse().unwrap());
    Some((std::mem::take(&mut call.upstream_body), count))
}

fn check(body: &[u8], sent: &[u8], count: usize, is_anthropic: bool) {
    let Some(Tree::Object(before)) = Tree::read(body) else {
        return;
    };
    let Tree::Object(after) = Tree::read(sent).unwrap() else {
        unreachable!("it was an object before");
    };
    // A question for usage may have been added.
    let others = |entries: &[(String, Tree)]| {
        let mut others = entries.to_vec();
        others.retain(|(name, _)| !["messages", "stream_options"].contains(&name.as_str()));
        others
    };
    assert_eq!(others(&before), others(&after));
    let (before, after) = (messages(&before), messages(&after));
    assert_eq!(before.len(), after.len() + count);
    if count == 0 {
        assert_eq!(before, after);
        return;
    }
    let mut rest = before.iter();
    for message in &after {
        assert!(rest.any(|other| other == message));
    }
    // From the first turn on that stays, nothing is missing; before it, only the application speaks.
    let is_applications =
        |message: &Tree| matches!(word(message, "role"), Some("system" | "developer"));
    let first = after
        .iter()
        .position(|message| !is_applications(message))
        .unwrap();
    assert_eq!(word(&after[first], "role"), Some("user"));
    assert!(before.ends_with(&after[first..]));
    for (at, message) in after.iter().enumerate() {
        let (calls, answers) = match is_anthropic {
            true => ("content", words(message, "content", "tool_use_id")),
            false => (
                "tool_calls",
                word(message, "tool_call_id").into_iter().collect(),
            ),
        };
        let before = after[..=at].iter();
        let called: Vec<&str> = before
            .flat_map(|message| words(message, calls, "id"))
            .collect();
        assert!(answers.iter().all(|id| called.contains(id)));
    }
}

fn messages(body: &[(String, Tree)]) -> Vec<Tree> {
    match body.iter().find(|(name, _)| name == "messages") {
        Some((_, Tree::List(messages))) => messages.clone(),
        _ => Vec::new(),
    }
}

fn entry<'a>(object: &'a Tree, name: &str) -> Option<&'a Tree> {
    let Tree::Object(entries) = object else {
        return None;
    };
    let (_, value) = entries.iter().find(|(key, _)| key == name)?;
    Some(value)
}

fn word<'a>(object: &'a Tree, name: &str) -> Option<&'a str> {
    match entry(object, name)? {
        Tree::Leaf(Value::String(word)) => Some(word),
        _ => None,
    }
}

fn words<'a>(message: &'a Tree, list: &str, name: &str) -> Vec<&'a str> {
    let Some(Tree::List(parts)) = entry(message, list) else {
        return Vec::new();
    };
    parts.iter().filter_map(|part| word(part, name)).collect()
}
