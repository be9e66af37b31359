//! The four configurations of docs/limits.md do what that page says of them.

use crate::proxy::{Call, Proxy, usage};
use bursar::limits::stacked::State;
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// The configuration under this heading.
fn page(heading: &str) -> Proxy {
    let text = include_str!("../../docs/limits.md");
    let (_, section) = text.split_once(&format!("\n## {heading}\n")).unwrap();
    let (_, block) = section.split_once("```json\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let mut config: Value = serde_json::from_str(block).unwrap();
    config["hold_headers"] = true.into();
    Proxy::new(&config)
}

const MODEL: &str = "gpt-4o";

/// A request of someone for an answer that may be so long.
fn ask<'a>(proxy: &'a Proxy, who: &[(&str, &str)], model: &str, output: u64) -> Call<'a> {
    let body = json!({"model": model, "messages": [], "max_tokens": output}).to_string();
    let length = body.len().to_string();
    let mut all = vec![("content-length", length.as_str())];
    all.extend(who);
    let mut call = proxy.post(&all);
    call.send(&[body.as_bytes()]);
    call
}

/// A served request that used so much.
fn spend(proxy: &Proxy, who: &[(&str, &str)], input: u64, output: u64) {
    let mut call = ask(proxy, who, MODEL, 10);
    assert_eq!(call.refused(), None, "{who:?}");
    call.answer_json(&usage(input, output));
    call.end();
}

/// The status, why, and by which limit.
fn refused(call: &Call<'_>) -> Option<(u16, String, String)> {
    let (status, reason) = call.refused()?;
    let limit = call.reply_header("x-bursar-limit").unwrap_or_default();
    Some((status, reason.to_owned(), limit.to_owned()))
}

fn by(status: u16, reason: &str, limit: &str) -> Option<(u16, String, String)> {
    Some((status, reason.to_owned(), limit.to_owned()))
}

/// Two dollars, all of it input.
const TWO_DOLLARS: u64 = 800_000;

const DAY: u64 = 86_400_000;

#[test]
fn coding_agents() {
    let proxy = page("Coding agents");
    let of = |developer: &'static str, run: &'static str| {
        [
            ("x-tenant-id", "platform"),
            ("x-user-id", developer),
            ("x-run-id", run),
        ]
    };
    for missing in [1, 2] {
        let mut who = of("ann", "one").to_vec();
        who.remove(missing);
        let call = ask(&proxy, &who, MODEL, 10);
        assert_eq!(refused(&call), by(401, "subject_required", ""));
    }
    // A run stops at two dollars, whatever the day has left.
    let runs = ["one", "two", "three", "four", "five"];
    for run in runs {
        spend(&proxy, &of("ann", run), TWO_DOLLARS, 0);
        let last = ask(&proxy, &of("bob", run), MODEL, 10);
        assert_eq!(refused(&last), by(429, "budget_exhausted", "run"));
    }
    // A developer stops at ten, and a team's day at forty.
    let next = ask(&proxy, &of("ann", "six"), MODEL, 10);
    assert_eq!(refused(&next), by(429, "budget_exhausted", "developer-day"));
    for developer in ["bob", "carol", "dora"] {
        for run in 0..5 {
            let run = format!("{developer}-{run}");
            let who = [
                ("x-tenant-id", "platform"),
                ("x-user-id", developer),
                ("x-run-id", &run),
            ];
            spend(&proxy, &who, TWO_DOLLARS, 0);
        }
    }
    // Of the last tenth there is the lesser model.
    let mut lowered = ask(&proxy, &of("emil", "first"), MODEL, 10);
    assert!(lowered.upstream_text().contains("gpt-4o-mini"));
    lowered.answer_json(&usage(27_000_000, 0));
    lowered.end();
    let next = ask(&proxy, &of("emil", "emil"), MODEL, 10);
    assert_eq!(refused(&next), by(429, "budget_exhausted", "day"));
    proxy.pass_millis(DAY);
    spend(&proxy, &of("ann", "one"), 1, 1);
    let calls: Vec<_> = (0..21)
        .map(|_| ask(&proxy, &of("bob", "last"), MODEL, 10))
        .collect();
    assert_eq!(refused(&calls[19]), None);
    assert_eq!(refused(&calls[20]), by(429, "concurrency", "concurrency"));
}

#[test]
fn a_product_with_many_customers() {
    let proxy = page("A product with many customers");
    let of =
        |tenant: &'static str, user: &'static str| [("x-tenant-id", tenant), ("x-user-id", user)];
    let nobody = ask(&proxy, &of("acme", "x")[..1], MODEL, 10);
    assert_eq!(refused(&nobody), by(401, "subject_required", ""));
    let parent = ask(&proxy, &of("customers", "alice"), MODEL, 10);
    assert_eq!(refused(&parent), by(403, "model_not_allowed", ""));
    // No user takes more than two dollars a day, nor asks more often than twenty times a minute.
    spend(&proxy, &of("acme", "alice"), TWO_DOLLARS, 0);
    let more = ask(&proxy, &of("acme", "alice"), MODEL, 10);
    assert_eq!(refused(&more), by(429, "budget_exhausted", "user-day"));
    for _ in 0..20 {
        spend(&proxy, &of("globex", "alice"), 1, 1);
    }
    let more = ask(&proxy, &of("globex", "alice"), MODEL, 10);
    assert_eq!(refused(&more), by(429, "bucket_empty", "user-rpm"));
    // A customer's burst is its own.
    let burst = ask(&proxy, &of("acme", "bob"), MODEL, 10);
    assert_eq!(refused(&burst), by(429, "bucket_empty", "bucket"));
    assert_eq!(refused(&ask(&proxy, &of("globex", "bob"), MODEL, 10)), None);
    // The dearest model is for sixty dollars at the most: of the last three tenths there is the lesser one.
    for user in 0..20 {
        proxy.pass_millis(300_000);
        let user = format!("user-{user}");
        let who = [("x-tenant-id", "acme"), ("x-user-id", user.as_str())];
        spend(&proxy, &who, TWO_DOLLARS, 0);
    }
    proxy.pass_millis(300_000);
    spend(&proxy, &of("acme", "dan"), 10_000, 0);
    let lowered = ask(&proxy, &of("acme", "carol"), MODEL, 10);
    assert!(lowered.upstream_text().contains("gpt-4o-mini"));
    let other = ask(&proxy, &of("globex", "carol"), MODEL, 10);
    assert!(!other.upstream_text().contains("gpt-4o-mini"));
    // What all of them cost is known above them.
    let all = proxy.record("customers").others[0].clone();
    let is_charged = matches!(&all.state, State::Account(all) if all.spent.usd.0 > 42_000_000);
    assert!(is_charged, "{all:?}");
    // One of them has more until a time.
    let policy = |call: &Call<'_>| call.reply_header("ratelimit-policy").unwrap().to_owned();
    let spent = ask(&proxy, &of("acme", "alice"), MODEL, 10);
    assert!(
        policy(&spent).contains(r#""budget";q=100"#),
        "{}",
        policy(&spent)
    );
}

#[test]
fn batch_beside_interactive() {
    let proxy = page("Batch beside interactive");
    let chat = [("x-tenant-id", "chat")];
    let batch = [("x-tenant-id", "nightly")];
    // Half of the provider's quota is reserved: the batch waits, and is not lowered.
    let large = ask(&proxy, &batch, MODEL, 224_000);
    assert_eq!(refused(&large), None);
    let more = ask(&proxy, &batch, MODEL, 10_000);
    assert_eq!(refused(&more), by(429, "tier_capacity", ""));
    assert!(more.reply_header("retry-after-ms").is_some());
    let other = ask(&proxy, &chat, MODEL, 10_000);
    assert_eq!(refused(&other), None);
    assert!(!other.upstream_text().contains("gpt-4o-mini"));
    let proxy = page("Batch beside interactive");
    let calls: Vec<_> = (0..9).map(|_| ask(&proxy, &batch, MODEL, 10)).collect();
    assert_eq!(refused(&calls[7]), None);
    assert_eq!(refused(&calls[8]), by(429, "concurrency", "concurrency"));
}

#[test]
fn a_free_tier() {
    let proxy = page("A free tier");
    let who = [("x-tenant-id", "whoever")];
    let small = "gpt-4o-mini";
    let other = ask(&proxy, &who, MODEL, 10);
    assert_eq!(refused(&other), by(403, "model_not_allowed", ""));
    let first = ask(&proxy, &who, small, 10);
    assert_eq!(refused(&first), None);
    let second = ask(&proxy, &who, small, 10);
    assert_eq!(refused(&second), by(429, "concurrency", "concurrency"));
    drop(second);
    let mut first = first;
    first.answer_json(&usage(1, 1));
    first.end();
    for _ in 0..9 {
        let mut call = ask(&proxy, &who, small, 10);
        assert_eq!(refused(&call), None);
        call.answer_json(&usage(1, 1));
        call.end();
    }
    let eleventh = ask(&proxy, &who, small, 10);
    assert_eq!(refused(&eleventh), by(429, "bucket_empty", "rpm"));
    proxy.pass_millis(60_000);
    // An answer is no longer than two thousand tokens, and a day no more than fifty thousand.
    let mut call = ask(&proxy, &who, small, 9_000);
    assert!(call.upstream_text().contains("2000"));
    call.answer_json(&usage(48_000, 1_990));
    call.end();
    let last = ask(&proxy, &who, small, 10);
    assert_eq!(refused(&last), by(429, "budget_exhausted", "budget"));
}
