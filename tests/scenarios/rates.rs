//! Token buckets that proxies share: what requests see of them, what the store hears, and how a share follows what is asked.
#![allow(clippy::panic, reason = "a failed set-up is a failed test")]

use std::collections::BTreeMap;

use bursar::base::units::Ppm;
use bursar::lease::call::AnyLine;
use bursar::lease::line::Status;
use bursar::lease::quota::{Part, WHOLE};
use bursar::lease::rate::RateAnswer;
use bursar::report::metrics::Metric;
use bursar::state::slots::SlotSeed;
use bursar::teller::{Message, Teller};
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use crate::pool::{self, Pool};
use crate::proxy::{Call, Proxy};

const BODY: &str = r#"{"model":"gpt-4o","messages":[],"max_tokens":52}"#;

/// What [`BODY`] takes: a token a byte, and the answer's limit.
const TAKEN: u64 = 100;

/// A hundred of [`BODY`] a minute.
fn bucket() -> Value {
    json!({"tokens_per_window": 100 * TAKEN, "window": "1m"})
}

fn config(plan: &Value) -> Value {
    json!({
        "global": {"redis": {"cluster": "store"}, "refresh": {"least": "1s", "most": "10s"}},
        "tiers": [{"name": "big", "model": "gpt-4o"}],
        "tenant": {"unknown": {"plan": "gold"}},
        "plans": {"gold": plan},
        "tenants": {"acme": {"plan": "gold"}}
    })
}

/// Proxies and their store.
struct Fleet {
    plan: Value,
    proxies: Vec<(Proxy, Teller)>,
    pool: Option<Pool>,
    started: u8,
    passed: u64,
    is_frozen: bool,
    /// The first proxy's gauges, as last told, by their families.
    gauges: BTreeMap<String, u64>,
    notes: Vec<String>,
}

impl Fleet {
    fn of(proxies: usize, plan: Value) -> Self {
        let mut fleet = Self {
            plan,
            proxies: Vec::new(),
            pool: None,
            started: 0,
            passed: 0,
            is_frozen: false,
            gauges: BTreeMap::new(),
            notes: Vec::new(),
        };
        (0..proxies).for_each(|_| fleet.add());
        fleet
    }

    fn add(&mut self) {
        self.started += 1;
        let proxy = Proxy::new(&config(&self.plan));
        proxy.store.set_seed(SlotSeed([self.started; 16]));
        proxy.pass_millis(self.passed);
        self.proxies.push((proxy, Teller::default()));
    }

    fn proxy(&self, at: usize) -> &Proxy {
        &self.proxies[at].0
    }

    /// All proxies say what is due, and hear the answers.
    fn tick(&mut self) {
        for (at, (proxy, teller)) in self.proxies.iter_mut().enumerate() {
            for watch in proxy.watches.borrow_mut().drain(..) {
                teller.watch(watch);
            }
            let now = proxy.now();
            let (messages, _) = teller.due(&proxy.store, now);
            for message in messages {
                let body = match self.is_frozen {
                    true => None,
                    false => Some(answered(
                        &mut self.pool,
                        &message,
                        now.as_nanos() / 1_000_000,
                    )),
                };
                let status = body.as_ref().map(|_| b"200".as_slice());
                let body = body.unwrap_or_default();
                let outcome = teller.heard(&message, status, body.as_bytes(), &proxy.store, now);
                let notes = outcome.notes.iter().map(|note| format!("{at}: {note}"));
                self.notes.extend(notes);
                for metric in outcome.metrics {
                    if let (0, Metric::Set(series, value)) = (at, metric) {
                        let name = series.to_string();
                        let family = name.split('.').next().unwrap_or_default();
                        self.gauges.insert(family.to_owned(), value);
                    }
                }
            }
        }
    }

    /// So many steps of 100 ms, before each of which something is done.
    fn run(&mut self, steps: u64, mut each: impl FnMut(&Self, u64)) {
        for step in 0..steps {
            each(self, step);
            self.tick();
            self.passed += 100;
            self.proxies
                .iter()
                .for_each(|(proxy, _)| proxy.pass_millis(100));
        }
    }

    fn share(&self, at: usize) -> u64 {
        let record = self.proxy(at).try_record("acme");
        let rates = record.map(|record| record.rates).unwrap_or_default();
        rates.first().map_or(0, |rate| rate.share)
    }
}

fn answered(pool: &mut Option<Pool>, message: &Message, now: u64) -> String {
    let mut body = String::new();
    for (key, line) in message.all_lines() {
        let AnyLine::Bucket(line) = line else {
            panic!("a budget's line")
        };
        let names = ["acme", "corp"].map(|id| format!("bursar:{{default/{id}/bucket}}:rate"));
        assert!(names.iter().any(|name| name == key), "{key}");
        let drawn: Vec<_> = pool
            .iter()
            .flat_map(|pool| pool.entries.keys().copied())
            .collect();
        body.push_str(&spoken(&pool::take(pool, &line, now, &drawn), now));
    }
    body.push_str("+OK\r\n");
    body
}

/// An answer in the store's words.
fn spoken(answer: &RateAnswer, now: u64) -> String {
    let (status, first) = match answer.status {
        Status::Stale { latest } => (1, latest),
        _ => (0, answer.grant),
    };
    let RateAnswer {
        target,
        level,
        holders,
        born,
        asked,
        ..
    } = answer;
    format!(
        "*10\r\n:{status}\r\n:{first}\r\n:{target}\r\n:{level}\r\n:{holders}\r\n:{now}\r\n:{born}\r\n:{asked}\r\n:0\r\n:0\r\n"
    )
}

fn served(proxy: &Proxy) -> u64 {
    let mut call = proxy.chat("acme", BODY);
    let is_served = call.reply.is_none() && !call.is_parked;
    if is_served {
        call.answer_json(&crate::proxy::usage(48, 52));
    }
    call.end();
    is_served.into()
}

fn reason<'a>(call: &'a Call<'_>) -> (u16, &'a str) {
    call.refused().unwrap_or((200, ""))
}

#[test]
fn the_first_request_waits_for_a_share_and_what_had_come_back_is_there_with_it() {
    let mut fleet = Fleet::of(1, json!({"bucket": bucket()}));
    assert!(fleet.proxy(0).chat("acme", BODY).is_parked);
    fleet.tick();
    // Half of what is left stays for others.
    assert!(
        (WHOLE / 2..WHOLE).contains(&fleet.share(0)),
        "{}",
        fleet.share(0)
    );
    let all: u64 = (0..100).map(|_| served(fleet.proxy(0))).sum();
    assert!((50..100).contains(&all), "{all}");
}

#[test]
fn gauges_tell_the_share_and_what_all_ask_for_and_how_the_store_does() {
    let mut fleet = Fleet::of(2, json!({"bucket": bucket(), "cold": "deny"}));
    // Three times what there is.
    fleet.run(300, |fleet, _| {
        served(fleet.proxy(0));
        served(fleet.proxy(1));
    });
    let of = |fleet: &Fleet, name: &str| fleet.gauges[&format!("bursar_global_{name}")];
    assert_eq!(of(&fleet, "share_ppm"), fleet.share(0));
    assert!(of(&fleet, "asked_ppm") > WHOLE);
    assert_eq!((of(&fleet, "proxies"), of(&fleet, "failures")), (2, 0));
    let largest = fleet.proxy(0).record("acme").rates[0].largest();
    assert_eq!(of(&fleet, "part_requests"), 100 * TAKEN / largest / 2);
    assert_eq!(fleet.notes, [""; 0]);
    fleet.is_frozen = true;
    fleet.run(100, |fleet, _| {
        served(fleet.proxy(0));
    });
    assert!(of(&fleet, "failures") > 0);
}

// Of a burst of two or three requests four proxies can have no equal parts that serve.
#[test]
fn of_a_burst_that_is_too_small_for_those_who_share_it_is_said_so_once() {
    let small = json!({"tokens_per_window": 30 * TAKEN, "window": "1m", "burst": 2 * TAKEN});
    let mut fleet = Fleet::of(4, json!({"bucket": small, "cold": "deny"}));
    fleet.run(300, |fleet, _| {
        for at in 0..4 {
            served(fleet.proxy(at));
        }
    });
    assert_eq!(fleet.gauges["bursar_global_part_requests"], 0);
    let said = fleet.notes.iter().filter(|note| note.starts_with("0: "));
    let said: Vec<_> = said.collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("the limit `bucket` of `acme` is too small for its proxies"),
        "{said:?}"
    );
}

#[test]
fn without_a_share_a_request_comes_again_soon() {
    let mut fleet = Fleet::of(1, json!({"bucket": bucket(), "cold": "deny"}));
    let refused = fleet.proxy(0).chat("acme", BODY);
    assert_eq!(reason(&refused), (429, "budget_pending"));
    let wait: u64 = refused
        .reply_header("retry-after-ms")
        .unwrap()
        .parse()
        .unwrap();
    assert!((200..=300).contains(&wait), "{wait}");
    drop(refused);
    fleet.tick();
    assert_eq!(served(fleet.proxy(0)), 1);
}

// Others have all of it: that is a bucket which is empty for now, whatever the reason.
#[test]
fn a_share_that_the_store_cannot_give_is_a_bucket_without_cells() {
    let mut fleet = Fleet::of(2, json!({"bucket": bucket(), "cold": "deny"}));
    fleet.run(100, |fleet, _| {
        served(fleet.proxy(0));
    });
    let large = BODY.replace("52", "9000");
    let ask = |fleet: &Fleet| reason(&fleet.proxy(1).chat("acme", &large)).1.to_owned();
    assert_eq!(ask(&fleet), "budget_pending");
    fleet.run(3, |_, _| {});
    assert_eq!(ask(&fleet), "bucket_empty");
    fleet.is_frozen = true;
    fleet.run(3, |_, _| {});
    assert_eq!(ask(&fleet), "global_unreachable");
}

// A parent's bucket refuses before anything is taken from it: its share is requested all the same.
#[test]
fn a_parents_bucket_without_a_share_is_asked_for() {
    let mut config = config(&json!({"bucket": bucket(), "cold": "deny"}));
    config["tenants"] = json!({
        "corp": {"plan": "gold"},
        "acme": {"parent": "corp", "limits": []}
    });
    config["plans"]["none"] = json!({});
    config["tenants"]["acme"]["plan"] = json!("none");
    let mut fleet = Fleet::of(1, json!({}));
    fleet.proxies[0].0 = Proxy::new(&config);
    let refused = fleet.proxy(0).chat("acme", BODY);
    assert_eq!(reason(&refused), (429, "budget_pending"));
    drop(refused);
    fleet.run(3, |_, _| {});
    assert_eq!(served(fleet.proxy(0)), 1);
    // One that needs more than the share holds is told to the store as well.
    let large = BODY.replace("52", "9500");
    let refused = fleet.proxy(0).chat("acme", &large);
    assert_eq!(reason(&refused), (429, "budget_pending"));
    drop(refused);
    fleet.run(3, |_, _| {});
    let served = fleet.proxy(0).chat("acme", &large);
    assert_eq!(reason(&served), (200, ""));
}

#[test]
fn one_request_may_go_on_credit() {
    let fleet = Fleet::of(1, json!({"bucket": bucket(), "cold": "credit"}));
    assert_eq!(served(fleet.proxy(0)), 1);
    assert_eq!(served(fleet.proxy(0)), 0);
}

// One proxy may use nearly all of the rate, and then it is another's.
#[test]
fn shares_follow_what_is_asked() {
    let mut fleet = Fleet::of(2, json!({"bucket": bucket()}));
    let mut by = [0_u64; 2];
    // Five times what there is.
    fleet.run(600, |fleet, step| {
        if step.is_multiple_of(2) {
            by[0] += served(fleet.proxy(0));
        }
    });
    // A capacity and a minute's rate.
    assert!((180..=200).contains(&by[0]), "{by:?}");
    assert!(fleet.share(0) > WHOLE * 9 / 10, "{}", fleet.share(0));
    fleet.run(100, |fleet, step| {
        if step.is_multiple_of(2) {
            by[1] += served(fleet.proxy(1));
        }
    });
    // After the longest pause, and after half of it more.
    assert!(fleet.share(1) > WHOLE / 2, "{}", fleet.share(1));
    fleet.run(50, |fleet, step| {
        if step.is_multiple_of(2) {
            by[1] += served(fleet.proxy(1));
        }
    });
    assert!(fleet.share(1) > WHOLE * 3 / 4, "{}", fleet.share(1));
    let before = by[1];
    fleet.run(600, |fleet, step| {
        if step.is_multiple_of(2) {
            by[1] += served(fleet.proxy(1));
        }
    });
    assert!((95..=105).contains(&(by[1] - before)), "{by:?}");
    assert!(by[0] + by[1] <= 100 + 235, "{by:?}");
}

#[test]
fn two_that_ask_for_more_than_there_is_have_it_in_proportion() {
    let mut fleet = Fleet::of(2, json!({"bucket": bucket()}));
    let ask = |fleet: &Fleet, step: u64| {
        [(0, 1), (1, 3)].map(|(at, each)| match step.is_multiple_of(each) {
            true => served(fleet.proxy(at)),
            false => 0,
        })
    };
    fleet.run(600, |fleet, step| {
        ask(fleet, step);
    });
    let mut by = [0_u64; 2];
    fleet.run(600, |fleet, step| {
        let served = ask(fleet, step);
        (by[0], by[1]) = (by[0] + served[0], by[1] + served[1]);
    });
    assert!((90..=105).contains(&(by[0] + by[1])), "{by:?}");
    assert!(by[0] > by[1] * 2 && by[1] > 10, "{by:?}");
}

#[test]
fn the_share_of_one_that_is_killed_comes_back_by_itself() {
    let mut fleet = Fleet::of(2, json!({"bucket": bucket()}));
    fleet.run(100, |fleet, _| {
        served(fleet.proxy(0));
    });
    assert!(fleet.share(0) > WHOLE * 9 / 10);
    fleet.proxies.remove(0);
    let mut all = 0;
    fleet.run(600, |fleet, step| {
        if step.is_multiple_of(2) {
            all += served(fleet.proxy(0));
        }
    });
    assert!(fleet.share(0) > WHOLE * 9 / 10, "{}", fleet.share(0));
    assert!(all > 10, "{all}");
}

#[test]
fn while_the_store_does_not_answer_a_share_stands_for_a_while_and_then_only_what_the_plan_says() {
    for (local, left) in [(None, 0), (Some(0.4), 400_000)] {
        let mut plan = json!({"bucket": bucket()});
        if let Some(local) = local {
            plan["when_unreachable"] = json!({"local": local});
        }
        let mut fleet = Fleet::of(1, plan);
        fleet.run(100, |fleet, _| {
            served(fleet.proxy(0));
        });
        fleet.is_frozen = true;
        let mut soon = 0;
        fleet.run(150, |fleet, _| soon += served(fleet.proxy(0)));
        assert!(soon >= 22, "{soon}");
        // The share stands, and is empty.
        assert_eq!(reason(&fleet.proxy(0).chat("acme", BODY)).1, "bucket_empty");
        fleet.run(150, |fleet, _| {
            served(fleet.proxy(0));
        });
        assert_eq!(
            fleet.proxy(0).record("acme").bucket.part,
            Part::Of(Ppm(left))
        );
        if local.is_none() {
            let refused = fleet.proxy(0).chat("acme", BODY);
            assert_eq!(reason(&refused), (429, "global_unreachable"));
        }
        let mut late = 0;
        fleet.run(600, |fleet, _| late += served(fleet.proxy(0)));
        let most = left / 10_000;
        assert!(late <= most && late + 2 >= most, "{late}");
        fleet.is_frozen = false;
        fleet.run(200, |fleet, _| {
            served(fleet.proxy(0));
        });
        assert!(fleet.share(0) > WHOLE * 9 / 10);
    }
}

#[test]
fn an_idle_proxy_gives_all_back_and_is_silent() {
    let mut fleet = Fleet::of(2, json!({"bucket": bucket()}));
    fleet.run(100, |fleet, _| {
        served(fleet.proxy(0));
    });
    fleet.run(1_200, |_, _| {});
    assert_eq!(fleet.share(0), 0);
    assert!(fleet.proxies.iter().all(|(_, teller)| teller.is_idle()));
    // All has come back, and whoever asks next has it.
    fleet.run(10, |fleet, _| {
        served(fleet.proxy(1));
    });
    let mut all = 0;
    fleet.run(20, |fleet, _| {
        all += (0..10).map(|_| served(fleet.proxy(1))).sum::<u64>();
    });
    assert!((85..=100).contains(&all), "{all}");
}

// Few of them, so that a share of one is less than one.
#[test]
fn requests_are_shared_as_tokens_are() {
    let bucket = json!({"requests_per_window": 6, "window": "1m"});
    let mut fleet = Fleet::of(2, json!({"bucket": bucket}));
    let mut all = 0;
    fleet.run(1_200, |fleet, step| {
        all += served(fleet.proxy(usize::from(step.is_multiple_of(2))));
    });
    assert!((12..=18).contains(&all), "{all}");
}

// Its id may be made up: nothing of it is in the store.
#[test]
fn a_tenant_that_is_not_configured_has_a_bucket_of_this_proxy() {
    let mut fleet = Fleet::of(1, json!({"bucket": bucket()}));
    assert_eq!(reason(&fleet.proxy(0).chat("stranger", BODY)), (200, ""));
    fleet.tick();
    assert_eq!(fleet.pool, None);
}

#[test]
fn a_bucket_of_local_scope_has_nothing_to_tell() {
    let mut fleet = Fleet::of(1, json!({"bucket": bucket(), "scope": "proxy"}));
    assert_eq!(served(fleet.proxy(0)), 1);
    fleet.tick();
    assert_eq!(fleet.pool, None);
    let record = fleet.proxy(0).record("acme");
    assert_eq!((record.rates.len(), record.bucket.part), (0, Part::Whole));
}
