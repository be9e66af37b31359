//! Books: whatever workers do at the same time, no limit of a tenant, its users and its parent is exceeded, a refusal leaves all records
//! as they were, and what was used is on every one of them.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::proxy::{Call, Proxy, usage};
use bursar::base::name::LimitKey;
use bursar::limits::account::Account;
use bursar::limits::stacked::CONCURRENCY;
use bursar::state::record::Record;
use proptest::prelude::*;
use serde_json::{Value, json};

/// What a worker does.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A user of a tenant asks, for an answer of so many tokens.
    Ask(usize, usize, u64),
    /// The answer to one in flight comes, with so many.
    Answer(usize, u64),
    Fail(usize),
    /// The worker of one in flight traps.
    Trap(usize),
}

const TENANTS: [&str; 2] = ["acme", "globex"];
const USERS: [&str; 3] = ["alice", "bob", "carol"];
const COMPANY: u64 = 700;
const TEAM: u64 = 500;
const USER: u64 = 400;

fn config() -> Value {
    let budget = |name: &str, tokens: u64| json!({"name": name, "budget": {"initial_budget": tokens, "window": "none"}});
    // More requests than there are, so that only what is left of it tells.
    let rpm = json!({"name": "rpm", "bucket": {"requests_per_window": 9_999, "window": "1h"}});
    let mut user = budget("user", USER);
    user["per"] = "user".into();
    json!({
        "hold_headers": true,
        "failure_mode": "deny",
        "reservation_expiry": "60s",
        "subjects": {"user": {"from": [{"header": "x-user-id"}]}},
        "tiers": [{"name": "only", "model": "gpt-4o"}],
        "plans": {"team": {"limits": [budget("team", TEAM), user, rpm], "concurrency": 6}},
        "tenants": {
            "corp": {"limits": [budget("company", COMPANY), rpm], "concurrency": 9},
            "acme": {"plan": "team", "parent": "corp"},
            "globex": {"plan": "team", "parent": "corp"}
        }
    })
}

fn any_event(traps: u32) -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..2_usize, 0..3_usize, 10..90_u64).prop_map(|(tenant, user, output)| Event::Ask(tenant, user, output)),
        3 => (any::<usize>(), 0..90_u64).prop_map(|(at, output)| Event::Answer(at, output)),
        1 => any::<usize>().prop_map(Event::Fail),
        traps => any::<usize>().prop_map(Event::Trap),
    ]
}

/// One worker's event, and those of others that come before its writes, the first one before the first. `dies`: before which of its
/// writes it traps.
fn any_interleaving(traps: u32) -> impl Strategy<Value = Vec<(Event, Vec<Event>, Option<usize>)>> {
    let others = prop::collection::vec(any_event(0), 0..6);
    let dies = (0..20_usize).prop_map(move |write| (traps > 0 && write < 6).then_some(write));
    prop::collection::vec((any_event(traps), others, dies), 1..40)
}

struct InFlight {
    call: Call<'static>,
    tenant: usize,
    user: usize,
    reserved: u64,
    output: u64,
}

/// Workers on one proxy, and what an honest accountant would have in the books.
struct Workers {
    proxy: Proxy,
    flight: RefCell<Vec<InFlight>>,
    spent: RefCell<BTreeMap<(usize, usize), u64>>,
    /// Requests of each tenant that were sent on.
    sent: RefCell<[u64; 2]>,
}

/// Of each request, as the provider counts it.
const PROMPT: u64 = 10;

/// Of a request's body whose limit has three digits.
const BYTES: u64 = 35;

impl Workers {
    /// Lives on, since the others' events are in its store.
    fn start() -> &'static Self {
        Box::leak(Box::new(Self {
            proxy: Proxy::new(&config()),
            flight: RefCell::default(),
            spent: RefCell::default(),
            sent: RefCell::default(),
        }))
    }

    fn run(&'static self, event: Event) {
        match event {
            Event::Ask(tenant, user, output) => self.ask(tenant, user, output),
            Event::Answer(at, output) => {
                let Some(mut ended) = self.take(at) else {
                    return;
                };
                let output = output.min(ended.output);
                ended.call.answer_json(&usage(PROMPT, output));
                ended.call.end();
                let whose = (ended.tenant, ended.user);
                *self.spent.borrow_mut().entry(whose).or_default() += PROMPT + output;
            }
            Event::Fail(at) => {
                if let Some(mut ended) = self.take(at) {
                    ended.call.answer_headers("400", &[]);
                    ended.call.end();
                }
            }
            Event::Trap(at) => drop(self.take(at)),
        }
    }

    fn ask(&'static self, tenant: usize, user: usize, output: u64) {
        let body = format!(r#"{{"model":"gpt-4o","max_tokens":{output}}}"#);
        let length = body.len().to_string();
        let mut call = self.proxy.post(&[
            ("x-tenant-id", TENANTS[tenant]),
            ("x-user-id", USERS[user]),
            ("content-length", &length),
        ]);
        call.send(&[body.as_bytes()]);
        if call.reply.is_none() {
            self.sent.borrow_mut()[tenant] += 1;
            self.flight.borrow_mut().push(InFlight {
                call,
                tenant,
                user,
                reserved: body.len() as u64 + output,
                output,
            });
        }
    }

    fn take(&self, at: usize) -> Option<InFlight> {
        let mut flight = self.flight.borrow_mut();
        let at = at.checked_rem(flight.len())?;
        Some(flight.swap_remove(at))
    }

    /// One event with those of others before its writes.
    fn step(&'static self, event: Event, others: Vec<Event>, dies: Option<usize>) {
        let others = others
            .into_iter()
            .map(Some)
            .chain(std::iter::repeat_n(None, 6));
        for (write, other) in others.enumerate() {
            if dies == Some(write) && matches!(event, Event::Ask(..)) {
                // Nothing that it does from here on is done.
                self.proxy.store.intrude(|| self.proxy.store.set_down(true));
                break;
            }
            self.proxy.store.intrude(move || {
                if let Some(other) = other {
                    self.run(other);
                }
            });
        }
        self.run(event);
        self.proxy.store.calm();
        self.proxy.store.set_down(false);
    }

    fn account(&self, key: &str, limit: &str) -> Option<Account> {
        let record = Record::decode(&self.proxy.store.value(key)?).unwrap();
        let mut entries = record.others.iter();
        entries
            .find_map(|entry| entry.account(LimitKey::of(limit)))
            .cloned()
    }

    /// How many slots are taken on a record, and how many requests it has counted.
    fn slots_and_requests(&self, key: &str) -> (u64, u64) {
        let slots = self.account(key, CONCURRENCY).unwrap_or_default();
        let record = self
            .proxy
            .store
            .value(key)
            .map(|bytes| Record::decode(&bytes).unwrap());
        let mut entries = record.unwrap_or_default().others;
        let mut buckets = entries.iter_mut();
        let bucket = buckets.find_map(|entry| entry.bucket_mut(LimitKey::of("rpm")).copied());
        (slots.held().tokens.0, bucket.unwrap_or_default().used)
    }

    /// What is left of a limit once nothing is held.
    fn unspent(&self, key: &str, limit: &str, budget: u64) -> u64 {
        let account = self.account(key, limit).unwrap_or_default();
        budget - account.spent.tokens.0
    }

    /// Each account with its budget, and whose requests are charged on it, where that is known.
    fn accounts(&self) -> Vec<Known> {
        let all = |tenant: usize| (0..3).map(move |user| (tenant, user));
        let company = ("bursar/v1/t/corp".to_owned(), "company", COMPANY);
        let mut keys = vec![(company, all(0).chain(all(1)).collect())];
        for (tenant, name) in TENANTS.iter().enumerate() {
            let team = (format!("bursar/v1/t/{name}"), "team", TEAM);
            keys.push((team, all(tenant).collect()));
            for slot in 0..4 {
                let user = (format!("bursar/v1/s/{slot}/t/user/{name}"), "user", USER);
                keys.push((user, Vec::new()));
            }
        }
        let known = keys
            .into_iter()
            .filter_map(|((key, limit, budget), whose)| {
                let account = self.account(&key, limit)?;
                Some(Known {
                    key,
                    budget,
                    whose,
                    held: account.held().tokens.0,
                    spent: account.spent.tokens.0,
                })
            });
        known.collect()
    }
}

struct Known {
    key: String,
    budget: u64,
    whose: Vec<(usize, usize)>,
    held: u64,
    spent: u64,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_limit_is_exceeded_whatever_workers_do_and_wherever_they_trap(steps in any_interleaving(2)) {
        let workers = Workers::start();
        for (event, others, dies) in steps {
            workers.step(event, others, dies);
            for Known { key, budget, held, spent, .. } in workers.accounts() {
                prop_assert!(held + spent <= budget, "{key}: {held} + {spent} of {budget}");
            }
        }
        while workers.take(0).is_some() {}
        // What trapped workers held expires, on every record: all that is not spent can be had.
        workers.proxy.pass_millis(60_000);
        let slots = (0..4).map(|slot| format!("bursar/v1/s/{slot}/t/user/acme"));
        let user = slots.map(|slot| workers.unspent(&slot, "user", USER)).min().unwrap();
        let team = workers.unspent("bursar/v1/t/acme", "team", TEAM);
        let room = user.min(team).min(workers.unspent("bursar/v1/t/corp", "company", COMPANY));
        if let Some(output) = room.checked_sub(BYTES).filter(|output| (100..999).contains(output)) {
            workers.ask(0, 0, output);
            prop_assert_eq!(workers.flight.borrow().len(), 1, "{}", room);
        }
    }

    #[test]
    fn what_is_held_and_spent_is_what_requests_hold_and_used_on_every_record(steps in any_interleaving(0)) {
        let workers = Workers::start();
        for (event, others, _) in steps {
            workers.step(event, others, None);
            let flight = workers.flight.borrow();
            let used = workers.spent.borrow();
            let all = workers.accounts();
            for Known { key, whose, held, spent, .. } in all.iter().filter(|known| !known.whose.is_empty()) {
                let is_its = |tenant, user| whose.contains(&(tenant, user));
                let calls = flight.iter().filter(|call| is_its(call.tenant, call.user));
                let reserved: u64 = calls.map(|call| call.reserved).sum();
                let used = used.iter().filter(|&(&(tenant, user), _)| is_its(tenant, user));
                let used: u64 = used.map(|(_, used)| used).sum();
                prop_assert_eq!((*held, *spent), (reserved, used), "{}", key);
            }
            // So are slots and requests: what refuses late gives back what was taken before it.
            let of = |tenant: usize| flight.iter().filter(|call| call.tenant == tenant).count() as u64;
            let flying = [of(0), of(1)];
            let sent = *workers.sent.borrow();
            for (key, flying, sent) in [("acme", flying[0], sent[0]), ("globex", flying[1], sent[1]), ("corp", flying.iter().sum(), sent.iter().sum())] {
                let counted = workers.slots_and_requests(&format!("bursar/v1/t/{key}"));
                prop_assert_eq!(counted, (flying, sent), "{}", key);
            }
            // All of a tenant's users together have what it has.
            for name in TENANTS {
                let users = all.iter().filter(|known| known.key.ends_with(&format!("/user/{name}")));
                let sum = users.fold((0, 0), |(held, spent), known| (held + known.held, spent + known.spent));
                let mut own = all.iter().filter(|known| known.key == format!("bursar/v1/t/{name}"));
                let own = own.next().map_or((0, 0), |known| (known.held, known.spent));
                prop_assert_eq!(sum, own, "{}", name);
            }
        }
    }
}
