//! Random conversations: the oldest turns go, and every other byte stays.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;

use super::{send, trimmed, trimming};
use crate::opening::{CHAT, MESSAGES, held};

/// A message as it stands in a body, and whether it is the application's.
type Raw = (String, bool);

/// A conversation by its turns.
#[derive(Clone, Debug)]
struct Conversation {
    path: &'static str,
    /// Messages of the application before the first turn.
    system: Vec<Raw>,
    turns: Vec<Vec<Raw>>,
    /// What stands between two messages.
    separator: &'static str,
    /// What stands before and after the list of messages.
    around: (&'static str, &'static str),
}

impl Conversation {
    /// The body without the first so many turns, but for what the application says in them.
    fn without(&self, gone: usize) -> String {
        let (gone, kept) = self.turns.split_at(gone);
        let gone = gone.iter().flatten().filter(|(_, is_system)| *is_system);
        let all = self.system.iter().chain(gone).chain(kept.iter().flatten());
        let messages: Vec<&str> = all.map(|(raw, _)| raw.as_str()).collect();
        let (before, after) = self.around;
        format!("{before}{}{after}", messages.join(self.separator))
    }

    /// Messages that go with the first so many turns.
    fn messages_of(&self, turns: usize) -> usize {
        let gone = self.turns[..turns].iter().flatten();
        gone.filter(|(_, is_system)| !is_system).count()
    }

    /// How many turns must go: so many that the bytes that go are no fewer than the surplus, rounded up to quarters.
    fn surplus_turns(&self, most: usize) -> usize {
        let whole = self.without(0).len();
        let surplus = whole.saturating_sub(most);
        let goes = surplus.div_ceil((most / 4).max(1)) * (most / 4).max(1);
        (0..self.turns.len())
            .find(|&gone| whole - self.without(gone).len() >= goes)
            .unwrap_or_else(|| self.turns.len() - 1)
    }
}

/// What people and models say, with all that could be taken for JSON, as a JSON string.
fn text() -> impl Strategy<Value = String> {
    "[a-z\"\\\\{}\\[\\],: \u{e9}\u{4f60}]{0,40}".prop_map(|text| Value::from(text).to_string())
}

/// White space within a message, numbers in odd forms, and keys in any order must stay.
fn raw(role: &str, entries: &[String]) -> String {
    let entries = entries.join(" , ");
    format!(r#"{{ "x":1.0e+5,{entries},"role" :"{role}" }}"#)
}

fn says(role: &'static str) -> impl Strategy<Value = Raw> {
    text().prop_map(move |text| (raw(role, &[format!(r#""content":{text}"#)]), false))
}

fn application() -> impl Strategy<Value = Raw> {
    (text(), prop_oneof!["system", "developer"])
        .prop_map(|(text, role)| (raw(&role, &[format!(r#""content":{text}"#)]), true))
}

/// A call of some tools and their answers, in OpenAI's dialect. The ids are those of an earlier turn, too.
fn openai_tools() -> impl Strategy<Value = Vec<Raw>> {
    (1..4_usize, text()).prop_map(|(count, text)| {
        let call = |at: usize| format!(r#"{{"function":{{"arguments":{text}}},"id":"call_{at}"}}"#);
        let calls: Vec<_> = (0..count).map(call).collect();
        let entries = [
            format!(r#""tool_calls":[{}]"#, calls.join(",")),
            r#""content":null"#.to_owned(),
        ];
        let answer = |at: usize| {
            let entries = [
                format!(r#""content":{text}"#),
                format!(r#""tool_call_id": "call_{at}""#),
            ];
            (raw("tool", &entries), false)
        };
        let mut messages = vec![(raw("assistant", &entries), false)];
        messages.extend((0..count).rev().map(answer));
        messages
    })
}

fn anthropic_tools() -> impl Strategy<Value = Vec<Raw>> {
    (1..4_usize, text(), any::<bool>()).prop_map(|(count, text, goes_on)| {
        let call = |at: usize| format!(r#"{{"type":"tool_use","id":"toolu_{at}","input":{{"id":{text}}}}}"#);
        let calls: Vec<_> = (0..count).map(call).collect();
        let answer = |at: usize| format!(r#"{{"tool_use_id":"toolu_{at}","content":[{{"text":{text}}}],"type":"tool_result"}}"#);
        let mut answers: Vec<_> = (0..count).map(answer).collect();
        if goes_on {
            answers.push(format!(r#"{{"type":"text","text":{text}}}"#));
        }
        let content = |parts: Vec<String>| [format!(r#""content":[{}]"#, parts.join(", "))];
        vec![
            (raw("assistant", &content(calls)), false),
            (raw("user", &content(answers)), false),
        ]
    })
}

fn turn(is_openai: bool) -> impl Strategy<Value = Vec<Raw>> {
    let tools = match is_openai {
        true => openai_tools().boxed(),
        false => anthropic_tools().boxed(),
    };
    let application = match is_openai {
        true => prop::collection::vec(application(), 0..2).boxed(),
        false => Just(Vec::new()).boxed(),
    };
    (
        prop::collection::vec(says("user"), 1..3),
        prop::collection::vec(tools, 0..3),
        application,
        says("assistant"),
    )
        .prop_map(|(user, tools, application, answer)| {
            let mut turn = user;
            turn.extend(tools.concat());
            turn.extend(application);
            turn.push(answer);
            turn
        })
}

fn talk() -> impl Strategy<Value = Conversation> {
    let around = prop_oneof![
        Just((r#"{"messages":["#, r#"],"model":"m","max_tokens":10}"#)),
        Just((
            r#"{"model":"m", "max_tokens": 10, "messages": [ "#,
            "\n ] }\n"
        )),
        Just((
            r#"{"max_tokens":10,"metadata":{"messages":[1]},"messages" : ["#,
            r#"],"top_p":1E-1,"model":"m"}"#
        )),
    ];
    any::<bool>().prop_flat_map(move |is_openai| {
        let most = if is_openai { 3 } else { 1 };
        (
            prop::collection::vec(application(), 0..most),
            prop::collection::vec(turn(is_openai), 1..8),
            prop_oneof![Just(","), Just(", "), Just("\n\t,\n")],
            around.clone(),
        )
            .prop_map(move |(system, mut turns, separator, around)| {
                // The turn that is to be answered.
                turns.last_mut().unwrap().truncate(1);
                Conversation {
                    path: if is_openai { CHAT } else { MESSAGES },
                    system,
                    turns,
                    separator,
                    around,
                }
            })
    })
}

proptest! {
    #[test]
    fn the_oldest_turns_go_and_every_other_byte_stays(
        talk in talk(),
        to_tokens in 1..400_u64,
        hold: bool,
        cuts in prop::collection::vec(any::<Index>(), 0..4),
    ) {
        let body = talk.without(0);
        let gone = talk.surplus_turns(usize::try_from(4 * to_tokens).unwrap());
        let expected = talk.without(gone);
        let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        at.extend([0, body.len()]);
        at.sort_unstable();
        let chunks: Vec<_> = at.windows(2).map(|pair| &body.as_bytes()[pair[0]..pair[1]]).collect();

        let proxy = trimming(to_tokens, hold);
        let mut call = send(&proxy, talk.path, &chunks);
        prop_assert_eq!(call.upstream_text(), &expected);
        // serde_json reads what is left as a part of what there was.
        let [sent, whole]: [Value; 2] = [&expected, &body].map(|body| serde_json::from_str(body).unwrap());
        let mut rest = whole["messages"].as_array().unwrap().iter();
        prop_assert!(sent["messages"].as_array().unwrap().iter().all(|kept| rest.any(|message| message == kept)));
        // The length is true, and only what is sent is reserved for.
        let length = expected.len().to_string();
        prop_assert_eq!(call.upstream_header("content-length"), hold.then_some(length.as_str()));
        prop_assert_eq!(held(&proxy, "acme"), expected.len() as u64 + 10);
        let messages = talk.messages_of(gone);
        prop_assert_eq!(trimmed(&mut call), (messages > 0).then_some(messages as u64));

        // Once more, nothing goes.
        let mut again = send(&proxy, talk.path, &[expected.as_bytes()]);
        prop_assert_eq!(again.upstream_text(), &expected);
        prop_assert_eq!(trimmed(&mut again), None);
    }
}
