//! Requests of all priorities in a capacity that they share, through workers that come between each other's writes.

use std::cell::RefCell;

use bursar::limits::capacity::Priority;
use bursar::state::store::capacity_key;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::capacity::{PRIORITIES, Run, any_priority, capacity};
use crate::proxy::{Call, Proxy, usage};

/// What may happen to requests of tenants with a capacity in common, in any order.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A tenant of this priority asks the tier at this place for so many cells.
    Ask(Priority, usize, u64),
    /// The request at this place of those in flight is answered with so many tokens, expected or not.
    Answer(usize, u64),
    /// It fails upstream.
    Fail(usize),
    /// Its client leaves.
    Leave(usize),
    /// The worker that serves it traps: nobody settles it.
    Trap(usize),
    /// Time passes, in milliseconds.
    Pass(u64),
}

// A limit of zero is none to many servers, so each request has one of its own: more cells than its prompt.
fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (any_priority(), 0..2_usize, 11..90_u64).prop_map(|(priority, tier, cells)| Event::Ask(priority, tier, cells)),
        3 => (any::<usize>(), prop_oneof![0..50_u64, 0..280_u64]).prop_map(|(at, output)| Event::Answer(at, output)),
        1 => any::<usize>().prop_map(Event::Fail),
        1 => any::<usize>().prop_map(Event::Leave),
        1 => any::<usize>().prop_map(Event::Trap),
    ]
}

/// One worker's event, and those of others that come before its writes, the first one before the first.
fn any_interleaving() -> impl Strategy<Value = Vec<(Event, Vec<Event>)>> {
    let event = prop_oneof![9 => any_event(), 1 => (0..60_000_u64).prop_map(Event::Pass)];
    prop::collection::vec((event, prop::collection::vec(any_event(), 0..5)), 1..40)
}

const MODELS: [&str; 2] = ["large", "small"];
const BURST: u64 = 300;
/// Of each tier, for critical requests.
const CRITICAL: u64 = 60;

fn shared() -> Value {
    let capacity = json!({"tokens_per_window": BURST, "window": "300s", "reserved": {"critical": 0.2, "standard": 0.1}});
    let budget = json!({"initial_budget": 1_000_000_000_u64, "window": "none"});
    json!({
        "hold_headers": true,
        "tiers": [
            {"name": MODELS[0], "model": MODELS[0], "capacity": capacity},
            {"name": MODELS[1], "model": MODELS[1], "capacity": capacity}
        ],
        "tenants": {
            "Critical": {"priority": "critical", "budget": budget},
            "Standard": {"priority": "standard", "budget": budget},
            "BestEffort": {"priority": "best_effort", "budget": budget}
        }
    })
}

/// A request in flight.
struct InFlight {
    call: Call<'static>,
    priority: Priority,
    tier: usize,
    cells: u64,
}

/// Workers on one proxy, and the books that an honest accountant would keep.
struct Workers {
    /// Answers are no longer than was expected.
    honest: bool,
    proxy: Proxy,
    flight: RefCell<Vec<InFlight>>,
    /// Per tier: what was used, and what trapped workers have left behind.
    used: RefCell<[u64; 2]>,
    left: RefCell<[u64; 2]>,
    /// Per tier: a bucket of their own for critical requests, to which nothing is ever given back.
    own: RefCell<[Run; 2]>,
}

/// The bytes of each request: it is expected to have ten tokens, and has them.
const BYTES: u64 = 40;
const PROMPT: u64 = 10;

impl Workers {
    /// Lives on, since the others' events are in its store.
    fn start(honest: bool) -> &'static Self {
        let own = || Run::new(capacity(BURST, 300_000_000_000, CRITICAL, 0, 0));
        Box::leak(Box::new(Self {
            honest,
            proxy: Proxy::new(&shared()),
            flight: RefCell::default(),
            used: RefCell::default(),
            left: RefCell::default(),
            own: RefCell::new([own(), own()]),
        }))
    }

    fn run(&'static self, event: Event) {
        match event {
            Event::Ask(priority, tier, cells) => self.ask(priority, tier, cells),
            Event::Answer(at, output) => {
                let Some(ended) = self.take(at) else { return };
                let most = if self.honest {
                    ended.cells - PROMPT
                } else {
                    u64::MAX
                };
                let output = output.min(most);
                self.end(ended, PROMPT + output, |call| {
                    call.answer_json(&usage(PROMPT, output));
                });
            }
            Event::Fail(at) => {
                if let Some(ended) = self.take(at) {
                    self.end(ended, 0, |call| call.answer_headers("400", &[]));
                }
            }
            // The prompt may have been read.
            Event::Leave(at) => {
                if let Some(ended) = self.take(at) {
                    self.end(ended, PROMPT, |_| {});
                }
            }
            Event::Trap(at) => {
                if let Some(InFlight { tier, cells, .. }) = self.take(at) {
                    self.left.borrow_mut()[tier] += cells;
                }
            }
            Event::Pass(millis) => {
                self.proxy.pass_millis(millis);
                for own in self.own.borrow_mut().iter_mut() {
                    own.now += millis * 1_000_000;
                }
            }
        }
    }

    fn ask(&'static self, priority: Priority, asked: usize, cells: u64) {
        let body = format!(
            r#"{{"model":"{}","max_tokens":{}}}"#,
            MODELS[asked],
            cells - PROMPT
        );
        let call = self
            .proxy
            .chat(&format!("{priority:?}"), &format!("{body:<40}"));
        let served = call
            .refused()
            .is_none()
            .then(|| call.upstream_header("x-bursar-tier").unwrap());
        let served = served.map(|name| MODELS.iter().position(|model| *model == name).unwrap());
        let own = &mut self.own.borrow_mut();
        if priority == Priority::Critical {
            // Each tier that did not serve it would not have done so without the others either.
            for own in &own[asked..served.unwrap_or(2)] {
                assert!(own.check(priority, cells).is_err(), "{cells} at {asked}");
            }
            if let Some(tier) = served {
                own[tier].charge(priority, cells);
            }
        }
        match served {
            Some(tier) => self.flight.borrow_mut().push(InFlight {
                call,
                priority,
                tier,
                cells,
            }),
            None => assert_eq!(call.refused(), Some((429, "tier_capacity"))),
        }
    }

    fn take(&self, at: usize) -> Option<InFlight> {
        let mut flight = self.flight.borrow_mut();
        let at = at.checked_rem(flight.len())?;
        Some(flight.swap_remove(at))
    }

    fn end(&self, ended: InFlight, used: u64, answer: impl Fn(&mut Call<'static>)) {
        let InFlight {
            mut call,
            priority,
            tier,
            cells,
        } = ended;
        answer(&mut call);
        call.end();
        self.used.borrow_mut()[tier] += used;
        if priority == Priority::Critical {
            self.own.borrow_mut()[tier].charge(priority, used.saturating_sub(cells));
        }
    }

    /// What is taken of a tier, and what should be if nothing came back by itself.
    fn taken(&self, tier: usize) -> (u64, u64) {
        let [taken, _] = self.state(tier);
        let flight = self.flight.borrow();
        let held: u64 = flight
            .iter()
            .filter(|other| other.tier == tier)
            .map(|other| other.cells)
            .sum();
        (
            taken,
            held + self.used.borrow()[tier] + self.left.borrow()[tier],
        )
    }

    /// What is taken of a tier, and the debts in that.
    fn state(&self, tier: usize) -> [u64; 2] {
        let Some(bytes) = self.proxy.store.value(&capacity_key(MODELS[tier])) else {
            return [0; 2];
        };
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        [number(4), number(28) + number(36)]
    }

    /// What the tenants' records hold of their budgets.
    fn held(&self) -> u64 {
        let held = |priority: &Priority| {
            let record = self.proxy.try_record(&format!("{priority:?}"));
            record.map_or(0, |record| record.account.held().tokens.0)
        };
        PRIORITIES.iter().map(held).sum()
    }
}

proptest! {
    // The same for what tenants share, whatever the number of workers.
    #[test]
    fn whoever_comes_between_critical_requests_have_their_part_and_a_refusal_has_charged_nothing(
        honest in any::<bool>(), events in any_interleaving(),
    ) {
        let workers = Workers::start(honest);
        let mut time_passed = false;
        for (event, others) in events {
            time_passed |= matches!(event, Event::Pass(_));
            for other in others {
                workers.proxy.store.intrude(move || workers.run(other));
            }
            let ceilings = || -> u64 {
                workers.flight.borrow().iter().map(|other| other.cells - PROMPT + BYTES).sum()
            };
            workers.run(event);
            workers.proxy.store.calm();
            let left: u64 = workers.left.borrow().iter().sum();
            for tier in 0..2 {
                let (taken, booked) = workers.taken(tier);
                prop_assert!(time_passed || taken == booked, "tier {tier}: {taken} is taken, not {booked}");
                prop_assert!(taken <= booked);
                // Who takes no more than it asked for never has of the part above it.
                let [_, debts] = workers.state(tier);
                prop_assert!(!honest || debts == 0, "tier {tier}: {debts} too much");
            }
            if left == 0 {
                prop_assert_eq!(workers.held(), ceilings());
            }
        }
        prop_assert_eq!(workers.proxy.metric("bursar_state_given_up_total"), 0);
    }
}
