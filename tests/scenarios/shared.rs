//! Budgets that proxies share: what a request sees of it, and what the store hears.

mod operators;

use std::collections::BTreeMap;

use crate::proxy::{Call, Proxy, usage};
use bursar::report::metrics::Metric;
use bursar::teller::{Message, Note, Outcome, Teller};
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const BODY: &str = r#"{"model":"gpt-4o","messages":[],"max_tokens":10}"#;

/// What [`BODY`] reserves: a token a byte, and the answer's limit.
const RESERVED: u64 = 48 + 10;

fn with(plan: &Value) -> Proxy {
    Proxy::new(&config(plan))
}

fn config(plan: &Value) -> Value {
    let mut gold = json!({"budget": {"initial_budget": 1_000, "window": "day"}});
    for (key, value) in plan.as_object().unwrap() {
        gold[key] = value.clone();
    }
    json!({
        "global": {"redis": {"cluster": "store"}},
        "tiers": [
            {"name": "big", "model": "gpt-4o"},
            {"name": "small", "model": "gpt-4o-mini", "below": 0.5}
        ],
        "tenant": {"unknown": {"plan": "gold"}},
        "plans": {"gold": gold},
        "tenants": {"acme": {"plan": "gold"}}
    })
}

/// A worker that tells the store what it has to.
struct Worker<'a> {
    proxy: &'a Proxy,
    teller: Teller,
}

impl<'a> Worker<'a> {
    fn of(proxy: &'a Proxy) -> Self {
        Self {
            proxy,
            teller: Teller::default(),
        }
    }

    /// What it says now.
    fn says(&mut self) -> Vec<Message> {
        for watch in self.proxy.watches.borrow_mut().drain(..) {
            self.teller.watch(watch);
        }
        self.teller.due(&self.proxy.store, self.proxy.now()).0
    }

    fn hears(&mut self, message: &Message, status: Option<&str>, body: &str) -> Outcome {
        let (store, now) = (&self.proxy.store, self.proxy.now());
        let status = status.map(str::as_bytes);
        self.teller
            .heard(message, status, body.as_bytes(), store, now)
    }

    /// Says its one line, and is granted so much while so much is left for all.
    fn granted(&mut self, grant: u64, free: u64) {
        self.told(grant, free, [0; 3]);
    }

    /// The same where an operator has made changes: the generation, what is set, what is added. The budget that the
    /// line named.
    fn told(&mut self, grant: u64, free: u64, changes: [u64; 3]) -> u64 {
        let messages = self.says();
        self.answers(&messages, grant, free, changes);
        messages[0].lines().map(|(_, line)| line.budget).sum()
    }

    fn answers(
        &mut self,
        messages: &[Message],
        grant: u64,
        free: u64,
        [generation, set, raise]: [u64; 3],
    ) {
        assert_eq!(messages.len(), 1);
        let now = self.proxy.now().as_nanos() / 1_000_000;
        let body = format!(
            "*10\r\n:0\r\n:{grant}\r\n:0\r\n:{free}\r\n:2\r\n:{now}\r\n:7\r\n:{generation}\r\n:{set}\r\n:{raise}\r\n+OK\r\n"
        );
        let mut outcome = self.hears(&messages[0], Some("200"), &body);
        // A part of 500 holds eight of them.
        outcome
            .notes
            .retain(|note| !matches!(note, Note::TooSmall(..)));
        assert_eq!(outcome.notes, []);
    }
}

fn reason<'a>(call: &'a Call<'_>) -> (u16, &'a str) {
    call.refused().unwrap_or((200, ""))
}

#[test]
fn a_request_that_finds_no_slice_is_refused_for_a_moment_and_the_store_hears_what_it_lacked() {
    let proxy = with(&json!({"cold": "deny"}));
    let mut worker = Worker::of(&proxy);
    let refused = proxy.chat("acme", BODY);
    assert_eq!(reason(&refused), (429, "budget_pending"));
    let wait: u64 = refused
        .reply_header("retry-after-ms")
        .unwrap()
        .parse()
        .unwrap();
    assert!((200..300).contains(&wait), "{wait}");
    let messages = worker.says();
    let (key, line) = messages[0].lines().next().unwrap();
    assert!(
        key.starts_with("bursar:{default/acme/budget}:tokens:0:"),
        "{key}"
    );
    assert_eq!((line.seq, line.granted, line.used), (1, 0, 0));
    assert_eq!((line.least, line.budget), (RESERVED, 1_000));
    assert!(line.want >= RESERVED);
    // Said once.
    assert_eq!(worker.says().len(), 0);
}

#[test]
fn what_was_granted_is_spent_and_no_more() {
    let proxy = with(&json!({"cold": "deny"}));
    let mut worker = Worker::of(&proxy);
    proxy.chat("acme", BODY);
    worker.granted(2 * RESERVED, 800);
    let served = [(); 3].map(|()| reason(&proxy.chat("acme", BODY)).0);
    assert_eq!(served, [200, 200, 429]);
}

#[test]
fn the_first_request_of_a_window_waits_and_then_goes_on() {
    let proxy = with(&json!({}));
    let mut worker = Worker::of(&proxy);
    let parked = proxy.post(&[("x-tenant-id", "acme"), ("content-length", "48")]);
    assert!(parked.is_parked && parked.reply.is_none() && !parked.headers_gone);
    worker.granted(600, 300);
    assert_eq!(reason(&proxy.served("acme", BODY, 40, 10)), (200, ""));
    // The day after it is another window.
    proxy.pass_millis(86_400_000);
    assert!(proxy.chat("acme", BODY).is_parked);
}

// The next request is not far, and finds a slice: the store is asked without it.
#[test]
fn a_proxy_in_use_asks_for_its_slice_of_the_next_window_before_its_first_request_there() {
    let proxy = with(&json!({}));
    let mut worker = Worker::of(&proxy);
    // Ten seconds before the day's end.
    let day = 86_400_000;
    proxy.pass_millis(day - 10_000 - proxy.now().as_nanos() / 1_000_000 % day);
    assert!(proxy.chat("acme", BODY).is_parked);
    worker.granted(300, 600);
    assert_eq!(reason(&proxy.served("acme", BODY, 40, 10)), (200, ""));
    let opened = proxy.record("acme").account.window.start.as_nanos() / 1_000_000;
    let mut told = Vec::new();
    for step in 0..1_000 {
        proxy.pass_millis(50);
        let messages = worker.says();
        let Some((key, line)) = messages.first().and_then(|message| message.lines().next()) else {
            continue;
        };
        told.push((step, key.to_owned(), line));
        worker.answers(&messages, line.want, 600, [0; 3]);
    }
    let opens = |key: &str| key.rsplit(':').next().unwrap().parse::<u64>().unwrap();
    let lines: Vec<_> = told
        .iter()
        .map(|(step, _, line)| (*step, line.used, line.want > 0))
        .collect();
    // One at its beginning; nobody comes, so another one gives all back.
    let expected = [(lines[0].0, 0, true), (lines[1].0, 0, false)];
    assert_eq!(lines, expected, "{told:?}");
    assert!((199..=205).contains(&lines[0].0), "{told:?}");
    assert!(told.iter().all(|(_, key, _)| opens(key) == opened + day));
    assert!(worker.teller.is_idle());
    // In a window in which nobody came, nothing is asked for.
    proxy.pass_millis(day);
    assert!(worker.says().is_empty());
}

#[test]
fn a_request_after_the_edge_of_a_window_is_served_from_the_slice_that_was_asked_for() {
    let proxy = with(&json!({}));
    let mut worker = Worker::of(&proxy);
    let day = 86_400_000;
    proxy.pass_millis(day - 1_000 - proxy.now().as_nanos() / 1_000_000 % day);
    assert!(proxy.chat("acme", BODY).is_parked);
    worker.granted(300, 600);
    assert_eq!(reason(&proxy.served("acme", BODY, 40, 10)), (200, ""));
    proxy.pass_millis(1_250);
    worker.granted(300, 600);
    assert_eq!(reason(&proxy.served("acme", BODY, 40, 10)), (200, ""));
}

// An idle proxy gives back what it has not used. Whoever comes then is as the first.
#[test]
fn the_first_request_after_a_silence_waits_as_the_first_of_a_window_does() {
    let proxy = with(&json!({}));
    let mut worker = Worker::of(&proxy);
    assert!(proxy.chat("acme", BODY).is_parked);
    worker.granted(300, 600);
    assert_eq!(reason(&proxy.served("acme", BODY, 40, 10)), (200, ""));
    let mut lines = 0;
    for _ in 0..600 {
        proxy.pass_millis(100);
        let messages = worker.says();
        if messages.is_empty() {
            continue;
        }
        lines += 1;
        worker.answers(&messages, 0, 900, [0; 3]);
    }
    let grant = proxy.record("acme").account.slice.unwrap().grant;
    assert_eq!((grant.granted, lines), (50, 2));
    let parked = proxy.chat("acme", BODY);
    assert!(parked.is_parked && parked.reply.is_none());
    worker.granted(300, 600);
    assert_eq!(reason(&proxy.served("acme", BODY, 40, 10)), (200, ""));
    // What is spent is not waited for, nor what the store could not give.
    proxy.pass_millis(10_000);
    worker.granted(0, 0);
    proxy.pass_millis(3_000);
    for _ in 0..10 {
        assert!(!proxy.chat("acme", BODY).is_parked);
    }
}

#[test]
fn the_first_request_waits_for_what_a_new_configuration_shares() {
    for before in [json!({"scope": "proxy"}), json!({})] {
        let proxy = with(&before);
        if proxy.chat("acme", BODY).is_parked {
            Worker::of(&proxy).granted(600, 300);
        }
        assert_eq!(reason(&proxy.served("acme", BODY, 40, 10)), (200, ""));
        let month =
            json!({"name": "month", "budget": {"initial_budget": 5_000, "window": "month"}});
        proxy.configure(&config(&json!({"limits": [month]})));
        assert!(proxy.chat("acme", BODY).is_parked, "{before}");
    }
}

#[test]
fn a_request_does_not_wait_for_a_store_that_does_not_answer() {
    let proxy = with(&json!({}));
    let mut worker = Worker::of(&proxy);
    assert!(proxy.chat("acme", BODY).is_parked);
    let messages = worker.says();
    let outcome = worker.hears(&messages[0], Some("503"), "upstream connect error");
    assert!(matches!(outcome.notes.as_slice(), [Note::Lost(_)]));
    assert_eq!(
        reason(&proxy.chat("acme", BODY)),
        (429, "global_unreachable")
    );
}

/// The gauges of what proxies share, by the end of their names.
fn gauges(outcome: &Outcome) -> BTreeMap<String, u64> {
    let named = outcome.metrics.iter().filter_map(|metric| match metric {
        Metric::Set(series, value) => Some((series.to_string(), *value)),
        Metric::Add(..) => None,
    });
    named
        .map(|(name, value)| (name.split('.').next().unwrap().to_owned(), value))
        .collect()
}

// Four requests for each of two, where ten are the least that can be cut.
#[test]
fn of_a_budget_that_is_too_small_for_those_who_share_it_is_said_so_once_with_the_cure() {
    let proxy =
        with(&json!({"cold": "deny", "budget": {"initial_budget": 9 * RESERVED, "window": "day"}}));
    let mut worker = Worker::of(&proxy);
    let mut said = Vec::new();
    for proxies in [1, 2, 2] {
        proxy.chat("acme", BODY);
        let messages = worker.says();
        let now = proxy.now().as_nanos() / 1_000_000;
        let body = format!(
            "*10\r\n:0\r\n:0\r\n:7\r\n:30\r\n:{proxies}\r\n:{now}\r\n:7\r\n:0\r\n:0\r\n:0\r\n+OK\r\n"
        );
        let outcome = worker.hears(&messages[0], Some("200"), &body);
        let gauges = gauges(&outcome);
        assert_eq!(gauges["bursar_global_proxies"], proxies);
        assert_eq!(gauges["bursar_global_free"], 30);
        assert_eq!(gauges["bursar_global_part_requests"], 9 / proxies);
        said.extend(outcome.notes.iter().map(Note::to_string));
        proxy.pass_millis(10_000);
    }
    assert_eq!(said.len(), 1, "{said:?}");
    let words = "the limit `budget` of `acme` is too small for its proxies: ";
    assert!(said[0].starts_with(words), "{said:?}");
    assert!(said[0].contains("Have fewer proxies"), "{said:?}");
}

// Two proxies have spent most of it: so has this one, which has spent nothing itself.
#[test]
fn marks_and_headers_go_by_what_is_left_for_all() {
    let proxy = with(&json!({"cold": "deny"}));
    let mut worker = Worker::of(&proxy);
    proxy.chat("acme", BODY);
    worker.granted(100, 200);
    let mut call = proxy.chat("acme", BODY);
    call.answer_json(&usage(40, 10));
    assert_eq!(call.response_header("x-bursar-tier"), Some("small"));
    let left = call.response_header("x-ratelimit-remaining-tokens");
    assert_eq!(left, Some("242"));
}

#[test]
fn a_store_without_the_script_gets_it_and_one_that_is_found_again_is_told_of() {
    let proxy = with(&json!({"cold": "deny"}));
    let mut worker = Worker::of(&proxy);
    proxy.chat("acme", BODY);
    let message = worker.says().remove(0);
    assert!(message.body(None).starts_with(b"*16\r\n$7\r\nEVALSHA\r\n"));
    let outcome = worker.hears(&message, Some("200"), "-NOSCRIPT no\r\n+OK\r\n");
    let again = outcome.again.unwrap();
    assert!(again.body(None).starts_with(b"*16\r\n$4\r\nEVAL\r\n"));
    assert_eq!(outcome.notes, []);
    // It fails twice, which is said once.
    assert_eq!(worker.hears(&again, None, "").notes.len(), 1);
    assert_eq!(
        reason(&proxy.chat("acme", BODY)),
        (429, "global_unreachable")
    );
    proxy.pass_millis(1_000);
    let message = worker.says().remove(0);
    assert_eq!(worker.hears(&message, None, "").notes, []);
    proxy.chat("acme", BODY);
    proxy.pass_millis(2_000);
    let message = worker.says().remove(0);
    let now = proxy.now().as_nanos() / 1_000_000;
    let body = format!(
        "*10\r\n:0\r\n:500\r\n:0\r\n:500\r\n:1\r\n:{now}\r\n:7\r\n:0\r\n:0\r\n:0\r\n+OK\r\n"
    );
    assert_eq!(
        worker.hears(&message, Some("200"), &body).notes,
        [Note::Found]
    );
    assert_eq!(reason(&proxy.chat("acme", BODY)), (200, ""));
}

// Its id may be made up: no account of the store is made for it.
#[test]
fn a_tenant_that_is_not_configured_has_a_budget_of_this_proxy() {
    let proxy = with(&json!({}));
    let mut worker = Worker::of(&proxy);
    assert_eq!(reason(&proxy.chat("stranger", BODY)), (200, ""));
    assert_eq!(worker.says().len(), 0);
}

#[test]
fn a_local_plan_has_nothing_to_tell() {
    let proxy = with(&json!({"scope": "proxy"}));
    let mut worker = Worker::of(&proxy);
    assert_eq!(reason(&proxy.chat("acme", BODY)), (200, ""));
    assert!(worker.says().is_empty() && worker.teller.is_idle());
    assert!(proxy.record("acme").account.slice.is_none());
}
