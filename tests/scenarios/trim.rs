//! Tiers that trim conversations: what is left is a valid conversation with every byte that stays as it was, and what goes is
//! not charged for.
#![cfg(not(target_arch = "wasm32"))]

use crate::opening::{CHAT, MESSAGES, held, spent};
use crate::proxy::{Call, Proxy, usage};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

/// One tier that trims, whatever is left.
fn trimming(to_tokens: u64, hold: bool) -> Proxy {
    Proxy::new(&json!({
        "hold_headers": hold,
        "tiers": [{"name": "a", "model": "m", "trim": {"to_tokens": to_tokens}}],
        "tenants": {"acme": {"budget": {"initial_budget": 100_000_000, "window": "day"}}},
    }))
}

fn send<'a>(proxy: &'a Proxy, path: &str, chunks: &[&[u8]]) -> Call<'a> {
    let length = chunks.concat().len().to_string();
    let mut call = proxy.request(
        &[
            (":method", "POST"),
            (":path", path),
            ("x-tenant-id", "acme"),
            ("content-length", &length),
        ],
        false,
    );
    call.send(chunks);
    call
}

fn trimmed(call: &mut Call<'_>) -> Option<u64> {
    call.answer_headers("200", &[("content-type", "application/json")]);
    call.response_header("x-bursar-trimmed-messages")
        .map(|count| count.parse().unwrap())
}

/// A message as it stands in a body, and whether it is the application's.
type Raw = (String, bool);

/// A conversation by its turns.
#[derive(Clone, Debug)]
struct ConversationPlacement {
    path: &'static str,
    /// Messages of the application before the first turn.
    system: Vec<Raw>,
    turns: Vec<Vec<Raw>>,
    /// What stands between two messages.
    separator: &'static str,
    /// What stands before and after the list of messages.
    around: (&'static str, &'static str),
}

impl ConversationPlacement {
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

fn talk() -> impl Strategy<Value = ConversationPlacement> {
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
                ConversationPlacement {
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

/// Turns of the user and the model, so many, and a last question.
fn turns(count: usize) -> Vec<String> {
    let turn = |at: usize| {
        format!(
            r#"{{"role":"user","content":"question {at:02}"}},{{"role":"assistant","content":"answer {at:02}"}}"#
        )
    };
    let last = r#"{"role":"user","content":"And now?"}"#.to_owned();
    (0..count).map(turn).chain([last]).collect()
}

fn body(model: &str, turns: &[String]) -> String {
    format!(
        r#"{{"messages":[{}],"model":"{model}","max_tokens":10}}"#,
        turns.join(",")
    )
}

/// Two tiers, of which the lower one trims to 50 tokens, which are 200 bytes at first.
fn ladder(hold: bool) -> Value {
    json!({
        "hold_headers": hold,
        "tiers": [
            {"name": "default", "model": "gpt-4o"},
            {"name": "compact", "model": "gpt-4o-mini", "below": 0.5, "trim": {"to_tokens": 50}},
        ],
        "tenants": {"acme": {"budget": {"initial_budget": 10_000, "window": "day"}}},
    })
}

fn spend(proxy: &Proxy, tokens: u64) {
    proxy.served("acme", r#"{"model":"gpt-4o","max_tokens":1}"#, tokens, 0);
}

#[test]
fn only_a_tier_that_trims_does_so_and_says_it() {
    let turns = turns(9);
    let whole = body("gpt-4o", &turns);
    for hold in [true, false] {
        let proxy = Proxy::new(&ladder(hold));
        let mut call = send(&proxy, CHAT, &[whole.as_bytes()]);
        assert_eq!(call.upstream_text(), whole);
        call.answer_json(&usage(200, 1));
        assert_eq!(call.response_header("x-bursar-trimmed-messages"), None);
        assert_eq!(call.fields.get("bursar_trimmed_messages"), None);

        spend(&proxy, 5_000);
        let mut call = send(&proxy, CHAT, &[whole.as_bytes()]);
        let short = body("gpt-4o-mini", &turns[8..]);
        assert_eq!(call.upstream_text(), short);
        let expected = short.len() - "-mini".len() + 10;
        assert_eq!(held(&proxy, "acme"), expected as u64);
        call.answer_json(&usage(60, 1));
        call.end();
        assert_eq!(held(&proxy, "acme"), 0);
        assert_eq!(
            call.response_header("x-bursar-trimmed-messages"),
            Some("16")
        );
        assert_eq!(call.response_header("x-bursar-decision"), Some("downgrade"));
        assert_eq!(call.fields["bursar_trimmed_messages"], "16");
        assert_eq!(
            proxy.metric("bursar_trimmed_messages_total.tenant=.=acme;.;"),
            16
        );
    }
}

// What a request may cost is what it will be: a long conversation fits at the tier that trims it, and only there.
#[test]
fn limits_count_what_is_left() {
    let whole = body("gpt-4o", &turns(30));
    assert!(whole.len() > 2_000);
    for hold in [true, false] {
        let mut config = ladder(hold);
        config["tenants"]["acme"]["budget"]["initial_budget"] = 2_000.into();
        config["tenants"]["acme"]["bucket"] = json!({"tokens_per_window": 70, "window": "1h"});
        let proxy = Proxy::new(&config);
        let mut call = send(&proxy, CHAT, &[whole.as_bytes()]);
        assert_eq!(call.refused(), None);
        let text = call.upstream_text().to_owned();
        assert!(text.len() < 210);
        assert_eq!(held(&proxy, "acme"), text.len() as u64 - 5 + 10);
        call.answer_headers("200", &[]);
        assert_eq!(call.response_header("x-bursar-tier"), Some("compact"));
        // Without a report, what is settled is the estimate of what was sent.
        call.answer_chunk(b"{}", true);
        call.end();
        let input = (text.len() as u64 - 5).div_ceil(4);
        assert_eq!(call.fields["bursar_input_tokens"], input.to_string());
        assert_eq!(call.fields["bursar_settled_by"], "estimate");
    }
}

// As many bytes as the tenant's own prompts came to lately make a token.
#[test]
fn what_was_learned_of_prompts_says_how_much_may_stay() {
    let whole = body("m", &turns(9));
    let proxy = trimming(50, true);
    let mut first = send(&proxy, CHAT, &[whole.as_bytes()]);
    let before = first.upstream_body.len();
    first.answer_json(&usage(10, 1));
    for _ in 0..2_000 {
        proxy.served("acme", &body("m", &turns(1)), 10, 1);
    }
    let after = send(&proxy, CHAT, &[whole.as_bytes()]);
    assert!(after.upstream_body.len() > before + 100);
}

// Held bodies only, or those that are kept back in the filter up to `hold_bytes`.
#[test]
fn what_has_gone_on_is_not_trimmed() {
    let whole = body("m", &turns(9));
    let with = |hold_bytes: usize, hold: bool| {
        Proxy::new(&json!({
            "hold_headers": hold,
            "hold_bytes": hold_bytes,
            "tiers": [{"name": "a", "model": "m", "trim": {"to_tokens": 50}}],
            "tenants": {"acme": {}},
        }))
    };
    for hold in [true, false] {
        for (hold_bytes, is_trimmed) in [(whole.len(), true), (100, false)] {
            let proxy = with(hold_bytes, hold);
            let chunks: Vec<_> = whole.as_bytes().chunks(50).collect();
            let mut call = send(&proxy, CHAT, &chunks);
            assert_eq!(call.upstream_text() != whole, is_trimmed);
            assert_eq!(trimmed(&mut call).is_some(), is_trimmed);
        }
    }
}

#[test]
fn a_model_in_the_path_is_decided_about_before_what_passes_is_read() {
    let path = "/openai/deployments/m/chat/completions?api-version=2024-10-21";
    let whole = body("m", &turns(9));
    for (hold, is_trimmed) in [(true, true), (false, false)] {
        let proxy = trimming(50, hold);
        let call = send(&proxy, path, &[whole.as_bytes()]);
        assert_eq!(call.upstream_text() != whole, is_trimmed);
    }
}

#[test]
fn what_is_no_conversation_of_a_known_kind_stays_as_it_is() {
    let long = "x".repeat(400);
    let odd = turns(9).join(",").replacen("user", "critic", 1);
    let orphan =
        turns(9)
            .join(",")
            .replacen(r#""role":"user""#, r#""role":"tool","tool_call_id":"c""#, 1);
    for (path, body) in [
        (CHAT, format!(r#"{{"model":"m","messages":[{odd}]}}"#)),
        (CHAT, format!(r#"{{"model":"m","messages":[{orphan}]}}"#)),
        (CHAT, format!(r#"{{"model":"m","messages":"{long}"}}"#)),
        (
            CHAT,
            format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{long}"}}]}}"#),
        ),
        (
            MESSAGES,
            format!(r#"{{"model":"m","max_tokens":5,"messages":[{odd}]}}"#),
        ),
        (
            "/v1/responses",
            format!(r#"{{"model":"m","input":[{}]}}"#, turns(9).join(",")),
        ),
        (
            "/v1/completions",
            format!(
                r#"{{"model":"m","prompt":"{long}","messages":[{}]}}"#,
                turns(9).join(",")
            ),
        ),
    ] {
        for hold in [true, false] {
            let proxy = trimming(10, hold);
            let mut call = send(&proxy, path, &[body.as_bytes()]);
            assert_eq!(call.upstream_text(), body);
            assert_eq!(trimmed(&mut call), None);
        }
    }
}

#[test]
fn a_tenant_without_our_state_is_let_through_whole() {
    let whole = body("m", &turns(9));
    let proxy = trimming(50, true);
    proxy.store.set_down(true);
    let mut call = send(&proxy, CHAT, &[whole.as_bytes()]);
    assert_eq!(call.upstream_text(), whole);
    assert_eq!(trimmed(&mut call), None);
}

#[test]
fn in_shadow_mode_nothing_goes_and_all_is_reserved_for() {
    let whole = body("m", &turns(9));
    for hold in [true, false] {
        let proxy = Proxy::new(&json!({
            "hold_headers": hold,
            "tiers": [{"name": "a", "model": "m", "trim": {"to_tokens": 50}}],
            "tenants": {"acme": {"budget": {"initial_budget": 10_000, "window": "day"}, "shadow": true}},
        }));
        let mut call = send(&proxy, CHAT, &[whole.as_bytes()]);
        assert_eq!(call.upstream_text(), whole);
        assert_eq!(held(&proxy, "acme"), whole.len() as u64 + 10);
        assert_eq!(trimmed(&mut call), None);
    }
}

// Before its end no upstream can have answered it; after its end the upstream has what was left of it.
#[test]
fn a_conversation_that_turns_out_invalid_late_is_charged_only_if_it_was_forwarded() {
    let turns = turns(9);
    let whole = body("gpt-4o", &turns);
    let short = body("gpt-4o-mini", &turns[8..]);
    let begin = |hold, length: Option<usize>| {
        let proxy = Proxy::new(&ladder(hold));
        spend(&proxy, 5_100);
        let length = length.map(|length| length.to_string());
        (proxy, length)
    };
    let post = |length: &Option<String>| {
        let mut headers = vec![("x-tenant-id".to_owned(), "acme".to_owned())];
        headers.extend(
            length
                .iter()
                .map(|length| ("content-length".to_owned(), length.clone())),
        );
        headers
    };
    for (hold, has_length) in [(true, true), (true, false), (false, true), (false, false)] {
        for at in (1..whole.len()).step_by(7) {
            let mut broken = whole.clone().into_bytes();
            // Within a text it may stand.
            broken.splice(at..at, *b"]}");
            let (proxy, length) = begin(hold, has_length.then_some(broken.len()));
            let headers = post(&length);
            let headers: Vec<_> = headers
                .iter()
                .map(|(name, value)| (&**name, &**value))
                .collect();
            let mut call = proxy.post(&headers);
            call.send(&broken.chunks(7).collect::<Vec<_>>());
            if call.refused().is_some() {
                assert_eq!(call.refused(), Some((400, "invalid_request_body")), "{at}");
                // No more than a part of it can have gone on.
                assert!(serde_json::from_str::<Value>(call.upstream_text()).is_err());
                call.end();
                assert_eq!(call.fields.get("bursar_charged"), None, "{at}");
            } else {
                // What of it is wrong lies within the messages, and is left to the upstream, which says so.
                call.answer_headers("400", &[]);
                call.end();
            }
            assert_eq!(held(&proxy, "acme"), 0, "{at}");
            assert_eq!(spent(&proxy, "acme"), 5_100, "{at}");
        }
        let (proxy, length) = begin(hold, has_length.then_some(whole.len() + 1));
        let headers = post(&length);
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        let mut call = proxy.post(&headers);
        call.send_chunk(whole.as_bytes(), false);
        assert_eq!(call.upstream_text(), short);
        let most = held(&proxy, "acme");
        call.send_chunk(b"x", false);
        assert_eq!(call.refused(), Some((400, "invalid_request_body")));
        call.end();
        let charged = spent(&proxy, "acme") - 5_100;
        assert!((1..=most).contains(&charged), "{charged}");
        assert_eq!(held(&proxy, "acme"), 0);
    }
}
