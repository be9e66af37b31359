//! What many requests together take of a worker's memory, and of what tenants share, while their bodies still come.
#![cfg(not(target_arch = "wasm32"))]

use crate::proxy::{Call, Proxy, usage};
use serde_json::{Value, json};

/// What a worker keeps of the bodies of all requests, in bytes.
const MOST_HELD: u64 = 2_000_000;

/// The part of a body that a client sends before it waits, in bytes.
const PART: usize = 100_000;

/// A ladder whose lower tier lacks something, so that a request waits until all that it needs is read.
fn config(hold: bool) -> Value {
    json!({
        "hold_headers": hold,
        "tiers": [
            {"name": "default", "model": "large"},
            {"name": "light", "model": "small", "supports": ["tools"], "below": 0.5}
        ],
        "tenants": {
            "crowd": {"budget": {"initial_budget": 10_000_000_000_u64, "window": "day"}},
            "other": {"budget": {"initial_budget": 1_000_000, "window": "day"}}
        }
    })
}

/// A long body without its end, in which nothing is known of what it needs.
fn begin<'a>(proxy: &'a Proxy, begin: &str) -> Call<'a> {
    let mut call = proxy.post(&[("x-tenant-id", "crowd")]);
    let mut body = begin.to_owned();
    body.push_str(&"x".repeat(PART - body.len()));
    call.send_chunk(body.as_bytes(), false);
    call
}

const TEXT: &str = r#"{"model":"large","messages":[{"role":"user","content":""#;

#[test]
fn slow_uploads_of_one_tenant_take_a_bounded_part_of_the_workers_memory() {
    for hold in [false, true] {
        let proxy = Proxy::of_small_worker(&config(hold), MOST_HELD);
        let mut waiting: Vec<_> = (0..40).map(|_| begin(&proxy, TEXT)).collect();
        assert!(proxy.held.total() > MOST_HELD / 2);
        assert!(
            proxy.held.total() <= MOST_HELD + 2 * PART as u64,
            "{}",
            proxy.held.total()
        );
        let gone = |call: &Call<'_>| call.upstream_body.len() == PART;
        assert!(!gone(&waiting[0]), "the first one waits");
        assert!(waiting[25..].iter().all(gone), "the last ones do not");
        // Those that could not wait were decided about with what was known, and say so.
        let mut last = waiting.pop().unwrap();
        last.send(&[br#""}]}"#]);
        last.answer_json(&usage(5, 5));
        assert_eq!(last.response_header("x-bursar-reason"), Some("body_unread"));
        assert_eq!(last.fields["bursar_reason"], "body_unread");
        // Another tenant is served meanwhile.
        let call = proxy.served("other", r#"{"model":"large","messages":[]}"#, 5, 5);
        assert_eq!(call.refused(), None);
        assert_eq!(call.response_header("x-bursar-reason"), None);
        // Whatever ends them gives back what they took: reset, an early answer, the rest of the body.
        for (index, mut call) in waiting.drain(..).enumerate() {
            match index % 3 {
                0 => {}
                1 => {
                    call.answer_headers("503", &[]);
                    call.end();
                }
                _ => call.send(&[br#""}]}"#]),
            }
        }
        assert_eq!(proxy.held.total(), 0);
        assert!(!gone(&begin(&proxy, TEXT)), "there is room again");
    }
}

#[test]
fn what_is_remembered_of_conversations_is_bounded_too() {
    for hold in [false, true] {
        let mut trims = config(hold);
        trims["tiers"][0]["trim"] = json!({"to_tokens": 1_000});
        let proxy = Proxy::of_small_worker(&trims, MOST_HELD);
        let mut body = r#"{"model":"large","messages":["#.to_owned();
        body.push_str(&r#"{"role":"user"},"#.repeat(4_000));
        let length = (body.len() + 100).to_string();
        let waiting: Vec<_> = (0..60)
            .map(|_| {
                let mut call = proxy.post(&[("x-tenant-id", "crowd"), ("content-length", &length)]);
                call.send_chunk(body.as_bytes(), false);
                call
            })
            .collect();
        assert!(proxy.held.total() > MOST_HELD / 2);
        assert!(
            proxy.held.total() <= MOST_HELD + 2 * PART as u64,
            "{}",
            proxy.held.total()
        );
        drop(waiting);
        assert_eq!(proxy.held.total(), 0);
    }
}

#[test]
fn a_spent_tenant_is_refused_before_a_long_body_of_its_is_here() {
    for hold in [false, true] {
        let proxy = Proxy::new(&config(hold));
        proxy.served("other", r#"{"model":"large","messages":[]}"#, 1_000_000, 0);
        for length in [Some("900000"), None] {
            let mut headers = vec![("x-tenant-id", "other")];
            headers.extend(length.map(|length| ("content-length", length)));
            let call = proxy.post(&headers);
            assert_eq!(
                call.refused(),
                Some((429, "budget_exhausted")),
                "{hold} {length:?}"
            );
        }
        // A short one is read where it is held anyway, so that the refusal names its model.
        let call = proxy.chat("other", r#"{"model":"large","messages":[]}"#);
        assert_eq!(call.refused(), Some((429, "budget_exhausted")));
        let model = call.reply_header("x-bursar-requested-model");
        assert_eq!(model, hold.then_some("large"));
    }
}

#[test]
fn an_announced_length_takes_nothing_of_a_shared_capacity_before_its_bytes_come() {
    let mut shared = config(false);
    shared["tiers"] = json!([
        {"name": "default", "model": "gemini-x", "capacity": {"tokens_per_window": 30_000, "window": "1d"}}
    ]);
    let proxy = Proxy::new(&shared);
    let left = || proxy.metric("bursar_capacity_remaining.tier=.=default;.;model=.=gemini-x;.;");
    let path = (":path", "/v1beta/models/gemini-x:generateContent");
    let tenant = ("x-tenant-id", "crowd");
    let length = ("content-length", "90000");
    let mut call = proxy.request(&[(":method", "POST"), path, tenant, length], false);
    let other = proxy.request(
        &[(":method", "POST"), path, ("x-tenant-id", "other"), length],
        false,
    );
    assert_eq!((call.refused(), other.refused()), (None, None));
    // What is here is taken when it is here, as a whole.
    let begin = r#"{"generationConfig":{"maxOutputTokens":1},"contents":[{"role":"user","parts":[{"text":""#;
    let mut body = begin.to_owned();
    body.push_str(&"x".repeat(90_000 - begin.len() - 6));
    body.push_str(r#""}]}]}"#);
    call.send(&[body.as_bytes()]);
    assert_eq!(call.refused(), None);
    assert_eq!(left(), 30_000 - 90_000 / 4 - 1);
}
