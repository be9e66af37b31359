//! Conversations that stay at the tier where they are.
#![cfg(not(target_arch = "wasm32"))]

use crate::opening::CHAT;
use crate::proxy::{Proxy, usage};
use bursar::conversation::Conversations;
use bursar::state::store::conversations_key;
use proptest::prelude::*;
use serde_json::{Value, json};

fn config(hold: bool, initial_budget: u64, sticky: &Value) -> Value {
    json!({
        "hold_headers": hold,
        "tenant": {"unknown": {"plan": "p"}},
        "tiers": [
            {"name": "default", "model": "gpt-4o"},
            {"name": "standard", "model": "gpt-4.1-mini", "below": 0.5},
            {"name": "compact", "model": "gpt-4o-mini", "below": 0.2},
        ],
        "plans": {"p": {"budget": {"initial_budget": initial_budget, "window": "day"}, "sticky": sticky}},
        "tenants": {"acme": {"plan": "p"}, "globex": {"plan": "p"}},
    })
}

/// A budget of 10,000 tokens, and conversations by how they begin.
fn proxy(hold: bool) -> Proxy {
    Proxy::new(&config(hold, 10_000, &json!({})))
}

/// A turn of the conversation that begins with these words: all that was said before, and one question more.
fn turn(words: &str, number: usize) -> String {
    let said = |at: usize| {
        let question = if at == 0 {
            words.to_owned()
        } else {
            format!("And {at}?")
        };
        format!(
            r#"{{"role":"user","content":"{question}"}},{{"role":"assistant","content":"{words} {at}."}}"#
        )
    };
    let said: Vec<_> = (0..=number).map(said).collect();
    let said = said.join(",");
    let (messages, _) = said.rsplit_once(r#",{"role":"assistant""#).unwrap();
    format!(
        r#"{{"model":"gpt-4o","max_tokens":1,"messages":[{{"role":"system","content":"S"}},{messages}]}}"#
    )
}

/// Tier and reason of a request that uses so many tokens.
fn served(
    proxy: &Proxy,
    tenant: &str,
    headers: &[(&str, &str)],
    path: &str,
    body: &str,
    used: u64,
) -> String {
    let length = body.len().to_string();
    let mut all = vec![
        (":method", "POST"),
        (":path", path),
        ("x-tenant-id", tenant),
        ("content-length", &length),
    ];
    all.extend(headers);
    let mut call = proxy.request(&all, false);
    let (head, tail) = body.as_bytes().split_at(body.len() / 3);
    call.send(&[head, tail]);
    assert_eq!(call.refused(), None);
    call.answer_json(&usage(used, 0));
    call.end();
    let told = |name| call.response_header(name).unwrap_or("-").to_owned();
    format!("{} {}", told("x-bursar-tier"), told("x-bursar-reason"))
}

/// As [`served`], of `acme`, by how it begins.
fn says(proxy: &Proxy, words: &str, number: usize, used: u64) -> String {
    served(proxy, "acme", &[], CHAT, &turn(words, number), used)
}

fn table(proxy: &Proxy, tenant: &str) -> Option<Conversations> {
    let bytes = proxy.store.value(&conversations_key(tenant))?;
    Some(Conversations::decode(&bytes).unwrap())
}

#[test]
fn a_conversation_that_was_downgraded_stays_there_until_the_window_ends() {
    for hold in [true, false] {
        let proxy = proxy(hold);
        assert_eq!(says(&proxy, "first", 0, 5_001), "default -");
        assert_eq!(says(&proxy, "second", 0, 1), "standard budget_low");
        // More of the budget remains than the marks ask for.
        proxy.configure(&config(hold, 100_000, &json!({})));
        assert_eq!(says(&proxy, "first", 1, 1), "default -");
        assert_eq!(says(&proxy, "second", 1, 1), "standard conversation");
        assert_eq!(says(&proxy, "third", 0, 1), "default -");
        assert_eq!(says(&proxy, "second", 2, 1), "standard conversation");
        assert_eq!(
            proxy.metric(
                "bursar_downgraded_total.tenant=.=acme;.;tier=.=standard;.;reason=.=conversation;.;"
            ),
            2
        );
        proxy.pass_millis(86_400_000);
        assert_eq!(says(&proxy, "second", 3, 1), "default -");
    }
}

#[test]
fn a_conversation_under_way_keeps_its_tier_until_a_share_of_the_mark() {
    for hold in [true, false] {
        let proxy = proxy(hold);
        assert_eq!(says(&proxy, "first", 0, 5_001), "default -");
        assert_eq!(says(&proxy, "first", 1, 1), "default conversation");
        assert_eq!(says(&proxy, "second", 0, 2_498), "standard budget_low");
        // Half of the mark.
        assert_eq!(says(&proxy, "first", 2, 1), "default conversation");
        assert_eq!(says(&proxy, "first", 3, 1_000), "standard budget_low");
        // The last mark is at 2,000, and half of it at 1,000.
        assert_eq!(says(&proxy, "third", 0, 499), "compact budget_low");
        assert_eq!(says(&proxy, "first", 4, 1), "standard conversation");
        assert_eq!(says(&proxy, "first", 5, 1), "compact budget_low");
        assert_eq!(
            proxy.metric(
                "bursar_kept_total.tenant=.=acme;.;tier=.=default;.;reason=.=conversation;.;"
            ),
            2
        );
    }
}

#[test]
fn how_much_of_a_mark_is_the_operators_to_say() {
    let proxy = Proxy::new(&config(true, 10_000, &json!({"keep": 1})));
    assert_eq!(says(&proxy, "first", 0, 5_001), "default -");
    assert_eq!(says(&proxy, "first", 1, 1), "standard budget_low");
}

#[test]
fn a_header_names_a_conversation_whatever_it_says() {
    let id = "x-conversation-id";
    for (hold, path) in [
        (true, CHAT),
        (false, CHAT),
        (true, "/v1/embeddings"),
        (true, "/v1/completions"),
        // The path names the model: it is decided about before the body is here.
        (
            false,
            "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
        ),
    ] {
        let proxy = Proxy::new(&config(hold, 10_000, &json!({"header": id})));
        let says = |value: &str, words: &str, used| {
            let headers = [(id, value)];
            let headers = if value.is_empty() { &[][..] } else { &headers };
            served(&proxy, "acme", headers, path, &turn(words, 0), used)
        };
        assert_eq!(says("a", "x", 5_001), "default -");
        assert_eq!(says("a", "y", 1), "default conversation", "{path}");
        let other = says("b", "x", 1);
        if path == "/v1/embeddings" {
            assert_eq!(other, "default tier_unsupported");
        } else {
            assert_eq!(other, "standard budget_low");
        }
    }
    // Without the header, it is how it begins.
    let proxy = Proxy::new(&config(true, 10_000, &json!({"header": id})));
    assert_eq!(says(&proxy, "first", 0, 5_001), "default -");
    assert_eq!(says(&proxy, "first", 1, 1), "default conversation");
}

#[test]
fn a_client_that_leaves_out_the_oldest_turns_goes_on_with_the_same_conversation() {
    let proxy = proxy(true);
    assert_eq!(says(&proxy, "first", 3, 5_001), "default -");
    let without = |number| {
        let mut body: Value = serde_json::from_str(&turn("first", number)).unwrap();
        let messages = body["messages"].as_array_mut().unwrap();
        let keep = messages.len() - 5;
        messages.drain(1..keep);
        body.to_string()
    };
    for number in 4..8 {
        let body = without(number);
        assert!(!body.contains(r#""first""#));
        assert_eq!(
            served(&proxy, "acme", &[], CHAT, &body, 1),
            "default conversation"
        );
    }
}

#[test]
fn no_tenant_displaces_anothers_conversations_and_made_up_ones_have_none() {
    let proxy = proxy(true);
    assert_eq!(says(&proxy, "mine", 0, 5_001), "default -");
    for at in 0..200 {
        served(
            &proxy,
            "globex",
            &[],
            CHAT,
            &turn(&format!("theirs {at}"), 0),
            0,
        );
    }
    assert_eq!(says(&proxy, "mine", 1, 0), "default conversation");
    assert!(
        proxy
            .store
            .value(&conversations_key("globex"))
            .unwrap()
            .len()
            <= 1_357
    );
    let keys = proxy.store.keys();
    served(&proxy, "made-up", &[], CHAT, &turn("x", 0), 0);
    assert_eq!(table(&proxy, "made-up"), None);
    // Its account.
    assert_eq!(proxy.store.keys(), keys + 1);
}

#[test]
fn what_does_not_go_on_leaves_no_trace() {
    let table_after = |change: &dyn Fn(&mut Value), body: &str| {
        let mut config = config(true, 10_000, &json!({}));
        change(&mut config);
        let proxy = Proxy::new(&config);
        proxy.chat("acme", body);
        table(&proxy, "acme").is_some()
    };
    let talk = turn("x", 0);
    assert!(table_after(&|_| {}, &talk));
    assert!(!table_after(
        &|config| config["tenants"]["acme"]["never_downgrade"] = true.into(),
        &talk
    ));
    assert!(!table_after(
        &|config| config["plans"]["p"]["budget"]["initial_budget"] = 1.into(),
        &talk
    ));
    assert!(!table_after(
        &|config| drop(
            config["plans"]["p"]
                .as_object_mut()
                .unwrap()
                .remove("sticky")
        ),
        &talk
    ));
    assert!(!table_after(
        &|config| drop(
            config["plans"]["p"]
                .as_object_mut()
                .unwrap()
                .remove("budget")
        ),
        &talk
    ));
    assert!(!table_after(&|_| {}, &talk.replace("gpt-4o", "another")));
    assert!(!table_after(&|_| {}, &talk.replace("user", "critic")));
}

#[test]
fn in_shadow_mode_it_is_told_where_a_conversation_would_be() {
    let shadow = |budget| {
        let mut config = config(true, budget, &json!({}));
        config["tenants"]["acme"]["shadow"] = true.into();
        config
    };
    let proxy = Proxy::new(&shadow(10_000));
    let told = |number, used| {
        let mut call = proxy.chat("acme", &turn("first", number));
        call.answer_json(&usage(used, 0));
        call.end();
        assert_eq!(call.response_header("x-bursar-tier"), Some("default"));
        call.response_header("x-bursar-shadow").map(str::to_owned)
    };
    assert_eq!(told(0, 7_501).as_deref(), Some("admit"));
    assert_eq!(
        told(1, 1).as_deref(),
        Some("downgrade;tier=standard;model=gpt-4.1-mini;reason=budget_low")
    );
    proxy.configure(&shadow(100_000));
    assert_eq!(
        told(2, 1).as_deref(),
        Some("downgrade;tier=standard;model=gpt-4.1-mini;reason=conversation")
    );
}

#[test]
fn a_store_that_does_not_answer_or_holds_something_else_keeps_nobody() {
    let proxy = proxy(true);
    assert_eq!(says(&proxy, "first", 0, 5_001), "default -");
    proxy
        .store
        .plant(&conversations_key("acme"), b"brc\x02 of another version");
    assert_eq!(says(&proxy, "first", 1, 1), "standard budget_low");
    assert_eq!(says(&proxy, "first", 2, 1), "standard budget_low");
    proxy.store.set_down(true);
    assert_eq!(says(&proxy, "first", 3, 1), "default budget_unavailable");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // Whatever is spent, and however often the budget is raised.
    #[test]
    fn no_conversation_comes_back_up_within_a_window(
        hold: bool,
        turns in prop::collection::vec((0..5_usize, 0..2_000_u64, prop::option::of(5_000..40_000_u64)), 1..30),
    ) {
        let proxy = proxy(hold);
        let (mut numbers, mut tiers) = ([0; 5], [0; 5]);
        for (talk, used, raised) in turns {
            if let Some(budget) = raised {
                proxy.configure(&config(hold, budget, &json!({})));
            }
            let mut call = proxy.chat("acme", &turn(&format!("talk {talk}"), numbers[talk]));
            if call.refused().is_some() {
                continue;
            }
            call.answer_json(&usage(used, 0));
            let names = ["default", "standard", "compact"];
            let tier = names.iter().position(|&name| call.response_header("x-bursar-tier") == Some(name)).unwrap();
            prop_assert!(tier >= tiers[talk]);
            (tiers[talk], numbers[talk]) = (tier, numbers[talk] + 1);
        }
    }
}
