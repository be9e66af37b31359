//! Guaranteed shares: whatever a parent's children, its other tenants and their workers do at the same time, no child loses what is never
//! lent; and of what is held and spent each child's part is known.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use crate::proxy::{Call, Proxy, usage};
use bursar::base::name::LimitKey;
use bursar::limits::account::Account;
use bursar::limits::lend::ChildKey;
use bursar::state::store::tenant_key;
use bursar::tenant::TenantId;
use proptest::prelude::*;
use serde_json::{Value, json};

/// What a worker does.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A tenant asks for something that reserves so much.
    Ask(usize, u64),
    /// The answer to one in flight comes, with so many thousandths of what it reserves.
    Answer(usize, u64),
    Fail(usize),
    /// The worker of one in flight traps.
    Trap(usize),
    /// So many minutes go by.
    Pass(u64),
}

/// The first three have a guaranteed share of what corp may spend; the third one's requests come from below it.
const TENANTS: [&str; 5] = ["acme", "globex", "below", "guest", "corp"];
const CHILDREN: [&str; 3] = ["acme", "globex", "unit"];
const SHARES: [u64; 3] = [400, 300, 200];
const BUDGET: u64 = 2_000;
const HOUR: u64 = 3_600_000;
const EXPIRY: u64 = 1_800_000;

fn config() -> Value {
    let child = |share: u64| {
        let share: Value = serde_json::from_str(&format!("0.{share}")).unwrap();
        json!({"parent": "corp", "limits": [], "guaranteed": share})
    };
    json!({
        "hold_headers": true,
        "failure_mode": "deny",
        "tiers": [{"name": "only", "model": "gpt-4o"}],
        "tenants": {
            "corp": {"limits": [{"name": "hours", "budget": {"initial_budget": BUDGET, "window": "24h"}}]},
            "acme": child(SHARES[0]), "globex": child(SHARES[1]), "unit": child(SHARES[2]),
            "below": {"parent": "unit", "limits": []},
            "guest": {"parent": "corp", "limits": []}
        }
    })
}

fn any_event(minutes: u32) -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..5_usize, 40..400_u64).prop_map(|(tenant, cost)| Event::Ask(tenant, cost)),
        3 => (any::<usize>(), 0..=1_000_u64).prop_map(|(at, part)| Event::Answer(at, part)),
        1 => any::<usize>().prop_map(Event::Fail),
        1 => any::<usize>().prop_map(Event::Trap),
        minutes => (1..20_u64).prop_map(Event::Pass),
    ]
}

/// One worker's event, and those of others that come before its writes.
fn any_interleaving() -> impl Strategy<Value = Vec<(Event, Vec<Event>)>> {
    let others = prop::collection::vec(any_event(0), 0..4);
    prop::collection::vec((any_event(3), others), 1..50)
}

struct InFlight {
    call: Call<'static>,
    tenant: usize,
    reserved: u64,
    since: u64,
    trapped: bool,
}

/// Workers on one proxy, and what each child may count on.
struct Workers {
    proxy: Proxy,
    flight: RefCell<Vec<InFlight>>,
    /// Milliseconds since the window began.
    now: Cell<u64>,
    spent: RefCell<BTreeMap<usize, u64>>,
    /// At least so much of its share a child still has. Less than nothing where it has taken of the others'.
    claims: RefCell<[i64; 3]>,
}

fn body(reserves: u64) -> String {
    let body = |output: u64| format!(r#"{{"model":"gpt-4o","max_tokens":{output}}}"#);
    let limit = (0..reserves).find(|&output| body(output).len() as u64 + output == reserves);
    // Where the limit gets a digit more there is none; one token less then.
    limit.map_or_else(|| self::body(reserves - 1), body)
}

impl Workers {
    fn start() -> &'static Self {
        let workers = Self {
            proxy: Proxy::new(&config()),
            flight: RefCell::default(),
            now: Cell::new(0),
            spent: RefCell::default(),
            claims: RefCell::new(SHARES.map(|share| (share * BUDGET / 1_000) as i64)),
        };
        // It is noon: the window begins at midnight.
        workers.proxy.pass_millis(12 * HOUR);
        Box::leak(Box::new(workers))
    }

    fn run(&'static self, event: Event) {
        match event {
            Event::Ask(tenant, cost) => {
                self.ask(tenant, cost);
            }
            Event::Answer(at, part) => self.end(at, Some(part)),
            Event::Fail(at) => self.end(at, None),
            Event::Trap(at) => {
                let mut flight = self.flight.borrow_mut();
                let at = at.checked_rem(flight.len());
                if let Some(call) = at.and_then(|at| flight.get_mut(at)) {
                    call.trapped = true;
                }
            }
            Event::Pass(minutes) => self.pass(minutes * 60_000),
        }
    }

    fn pass(&'static self, millis: u64) {
        // Nobody waits for longer than a reservation lasts.
        let then = self.now.get() + millis;
        let is_late = |call: &InFlight| then - call.since >= EXPIRY;
        let late = || {
            let flight = self.flight.borrow();
            flight
                .iter()
                .position(|call| !call.trapped && is_late(call))
        };
        while let Some(at) = late() {
            self.end(at, None);
        }
        self.now.set(then);
        self.proxy.pass_millis(millis);
        let expired: Vec<_> = self
            .flight
            .borrow_mut()
            .extract_if(.., |call| is_late(call))
            .collect();
        for call in expired {
            self.claim(call.tenant, call.reserved as i64);
        }
    }

    fn ask(&'static self, tenant: usize, cost: u64) -> bool {
        let body = body(cost);
        let mut call = self.proxy.chat(TENANTS[tenant], &body);
        if call.reply.is_some() {
            call.end();
            return false;
        }
        let (_, output) = body.rsplit_once(':').unwrap();
        let output: u64 = output.trim_end_matches('}').parse().unwrap();
        let reserved = body.len() as u64 + output;
        let since = self.now.get();
        self.flight.borrow_mut().push(InFlight {
            call,
            tenant,
            reserved,
            since,
            trapped: false,
        });
        self.claim(tenant, -(reserved as i64));
        true
    }

    fn end(&'static self, at: usize, part: Option<u64>) {
        let ended = {
            let mut flight = self.flight.borrow_mut();
            let Some(at) = at.checked_rem(flight.len()) else {
                return;
            };
            if flight[at].trapped {
                return;
            }
            flight.swap_remove(at)
        };
        let InFlight {
            mut call,
            tenant,
            reserved,
            ..
        } = ended;
        let used = part.map_or(0, |part| reserved * part / 1_000);
        match part {
            Some(_) => {
                call.answer_headers("200", &[("content-type", "application/json")]);
                call.answer_chunk(usage(used, 0).as_bytes(), true);
            }
            None => call.answer_headers("400", &[]),
        }
        call.end();
        // A usage of nothing is a usage.
        *self.spent.borrow_mut().entry(tenant).or_default() += used;
        self.claim(tenant, (reserved - used) as i64);
    }

    /// A child has so much more or less; of what others have, all may be lent by now that may ever be.
    fn claim(&self, tenant: usize, more: i64) {
        let left = 24 * HOUR - self.now.get();
        let mut claims = self.claims.borrow_mut();
        for (child, claim) in claims.iter_mut().enumerate() {
            if child == tenant {
                *claim += more;
            } else {
                let share = SHARES[child] * BUDGET / 1_000;
                *claim = (*claim).min((share * left).div_ceil(24 * HOUR) as i64);
            }
        }
    }

    fn step(&'static self, event: Event, others: Vec<Event>) {
        for other in others
            .into_iter()
            .map(Some)
            .chain(std::iter::repeat_n(None, 4))
        {
            self.proxy.store.intrude(move || {
                if let Some(other) = other {
                    self.run(other);
                }
            });
        }
        self.run(event);
        self.proxy.store.calm();
    }

    fn account(&self) -> Account {
        let Some(record) = self.proxy.try_record("corp") else {
            return Account::default();
        };
        let mut entries = record.others.iter();
        let account = entries.find_map(|entry| entry.account(LimitKey::of("hours")));
        account.cloned().unwrap_or_default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn no_child_loses_what_is_never_lent_whatever_its_siblings_do(steps in any_interleaving()) {
        let workers = Workers::start();
        for (event, others) in steps {
            workers.step(event, others);
            // The ones in turn, so that each finds what the others have left.
            for (child, name) in CHILDREN.iter().enumerate() {
                let claim = u64::try_from(workers.claims.borrow()[child]).unwrap_or(0);
                if claim >= 40 {
                    let left = workers.account();
                    prop_assert!(workers.ask(child, claim), "{name}: {claim} of {left:?}");
                }
            }
            for _ in 0..3 {
                let last = workers.flight.borrow().len().checked_sub(1);
                if let Some(last) = last {
                    workers.end(last, None);
                }
            }
            let account = workers.account();
            prop_assert!(account.spent.plus(account.held()).tokens.0 <= BUDGET);
        }
    }

    #[test]
    fn what_children_hold_and_have_spent_is_known_and_what_is_lent_is_what_is_missing(steps in any_interleaving()) {
        let workers = Workers::start();
        for (event, others) in steps {
            workers.step(event, others);
            // As of now: what has expired is gone once somebody asks.
            if !workers.ask(3, 40) {
                continue;
            }
            let account = workers.account();
            let flight = workers.flight.borrow();
            let spent = workers.spent.borrow();
            let (mut whole, mut lent) = (0, 0);
            for (tenant, name) in CHILDREN.iter().enumerate() {
                let held: u64 = flight.iter().filter(|call| call.tenant == tenant).map(|call| call.reserved).sum();
                let spent = spent.get(&tenant).copied().unwrap_or_default();
                let key = ChildKey::of(&TenantId::parse(name.as_bytes()).unwrap());
                let child = account.children.iter().find(|child| child.key == key);
                let holds = child.map_or(0, |child| child.holds.iter().map(|hold| hold.cost.tokens.0).sum());
                prop_assert_eq!((holds, child.map_or(0, |child| child.spent.tokens.0)), (held, spent), "{}", name);
                let share = (SHARES[tenant] * BUDGET / 1_000).saturating_sub(held + spent);
                whole += share;
                lent += child.map_or(0, |child| child.lent.min(share));
            }
            let left = BUDGET - account.spent.tokens.0 - account.held().tokens.0;
            prop_assert_eq!(lent, whole.saturating_sub(left), "{:?}", account);
        }
    }

    #[test]
    fn a_refusal_leaves_every_record_as_it_was(steps in any_interleaving(), tenant in 0..5_usize, cost in 40..2_000_u64) {
        let workers = Workers::start();
        for (event, others) in steps {
            workers.step(event, others);
        }
        let records = || ["corp", "acme", "globex", "unit", "below", "guest"].map(|name| workers.proxy.store.value(&tenant_key(name)));
        let before = records();
        if !workers.ask(tenant, cost) {
            prop_assert_eq!(records(), before);
        }
    }
}
