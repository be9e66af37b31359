//! Tiers that trim conversations: what is left is a valid conversation with every byte that stays as it was, and what goes is
//! not charged for.
#![cfg(not(target_arch = "wasm32"))]

mod random;

use crate::opening::{CHAT, MESSAGES, held, spent};
use crate::proxy::{Call, Proxy, usage};
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

/// A request of which so many bytes are announced, or none.
fn announced(proxy: &Proxy, length: Option<usize>) -> Call<'_> {
    let length = length.map(|length| length.to_string());
    let length = length
        .as_ref()
        .map(|length| ("content-length", length.as_str()));
    let headers: Vec<_> = [("x-tenant-id", "acme")]
        .into_iter()
        .chain(length)
        .collect();
    proxy.post(&headers)
}

// Before its end no upstream can have answered it; after its end the upstream has what was left of it.
#[test]
fn a_conversation_that_turns_out_invalid_late_is_charged_only_if_it_was_forwarded() {
    let turns = turns(9);
    let whole = body("gpt-4o", &turns);
    let short = body("gpt-4o-mini", &turns[8..]);
    let begin = |hold| {
        let proxy = Proxy::new(&ladder(hold));
        spend(&proxy, 5_100);
        proxy
    };
    for (hold, has_length) in [(true, true), (true, false), (false, true), (false, false)] {
        for at in (1..whole.len()).step_by(7) {
            let mut broken = whole.clone().into_bytes();
            // Within a text it may stand.
            broken.splice(at..at, *b"]}");
            let proxy = begin(hold);
            let mut call = announced(&proxy, has_length.then_some(broken.len()));
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
        let proxy = begin(hold);
        let mut call = announced(&proxy, has_length.then_some(whole.len() + 1));
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
