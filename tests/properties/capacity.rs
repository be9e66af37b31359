//! A capacity that tenants share: what each priority can count on, whatever the others do.

use std::cell::RefCell;
use std::num::NonZeroU64;

use bursar::limits::bucket::{NotNow, Quota};
use bursar::limits::capacity::{Capacity, Priority, Taken};
use bursar::state::store::capacity_key;
use bursar::units::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::proxy::{Call, Proxy, usage};

const PRIORITIES: [Priority; 3] = [Priority::BestEffort, Priority::Standard, Priority::Critical];

/// What may happen to a capacity.
#[derive(Clone, Copy, Debug)]
enum Happening {
    /// Somebody asks for so many cells.
    Ask(Priority, u64),
    /// Somebody takes them without asking, as a tenant in shadow mode does.
    Charge(Priority, u64),
    /// The request at this place of those in flight used this share of what it took, in percent.
    Settle(usize, u64),
    /// Nanoseconds pass.
    Pass(u64),
}

fn any_priority() -> impl Strategy<Value = Priority> {
    prop::sample::select(&PRIORITIES[..])
}

fn any_happening() -> impl Strategy<Value = Happening> {
    let share = prop_oneof![Just(0), Just(100), 0..=100_u64, 100..1_000_u64];
    prop_oneof![
        4 => (any_priority(), 0..60_u64).prop_map(|(priority, cells)| Happening::Ask(priority, cells)),
        1 => (any_priority(), 0..60_u64).prop_map(|(priority, cells)| Happening::Charge(priority, cells)),
        3 => (any::<usize>(), share).prop_map(|(at, share)| Happening::Settle(at, share)),
        2 => prop_oneof![0..5_u64, 0..2_000_000_000_u64].prop_map(Happening::Pass),
    ]
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    prop::collection::vec(any_happening(), 1..80)
}

/// With more and with less than a cell a nanosecond, and parts from nothing to nearly all.
fn any_capacity() -> impl Strategy<Value = Capacity> {
    let tokens = prop_oneof![1..50_u64, Just(3_000_000_000)];
    let window = prop_oneof![1..1_000_u64, Just(1_000_000_000)];
    (tokens, window, 1..100_u64, 0..100_u64, 0..100_u64).prop_map(
        |(tokens, window, burst, critical, standard)| {
            let critical = critical * (burst - 1) / 100;
            capacity(
                tokens,
                window,
                burst,
                critical,
                standard * (burst - critical - 1) / 100,
            )
        },
    )
}

fn capacity(tokens: u64, window: u64, burst: u64, critical: u64, standard: u64) -> Capacity {
    let whole = |number| NonZeroU64::new(number).unwrap();
    Capacity {
        quota: Quota {
            tokens_per_window: whole(tokens),
            window: whole(window),
            burst: whole(burst),
            low_water_mark: None,
        },
        critical,
        standard,
    }
}

/// A request in flight: its priority, what it holds, and since when.
type Flight = Vec<(Priority, u64, Timestamp)>;

/// A capacity under way.
struct Run {
    capacity: Capacity,
    taken: Taken,
    flight: Flight,
    now: u64,
}

const START: u64 = 1_000_000;

impl Run {
    fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            taken: Taken::default(),
            flight: Vec::new(),
            now: START,
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.now)
    }

    fn check(&self, priority: Priority, cells: u64) -> Result<(), NotNow> {
        self.capacity.check(self.taken, priority, cells, self.now())
    }

    fn available(&self, priority: Priority) -> u64 {
        self.capacity.available(self.taken, priority, self.now())
    }

    fn charge(&mut self, priority: Priority, cells: u64) {
        self.taken = self
            .capacity
            .charge(self.taken, priority, cells, self.now());
        self.flight.push((priority, cells, self.now()));
    }

    /// The request that ends, and what it used.
    fn settle(&mut self, at: usize, share: u64) -> Option<(Priority, u64, u64)> {
        let at = at.checked_rem(self.flight.len())?;
        let (priority, held, since) = self.flight.swap_remove(at);
        let used = held * share / 100;
        self.taken = self
            .capacity
            .settle(self.taken, priority, held, used, since, self.now());
        Some((
            priority,
            held,
            used.min(self.capacity.quota.burst.get().max(held)),
        ))
    }
}

proptest! {
    #[test]
    fn a_priority_and_those_above_it_have_a_bucket_of_their_own_whatever_the_others_do(
        capacity in any_capacity(), happenings in happenings(), least in prop::sample::select(&PRIORITIES[1..]),
    ) {
        let below = if least == Priority::Critical { Priority::Standard } else { Priority::BestEffort };
        let Some(burst) = NonZeroU64::new(capacity.kept_from(below)) else { return Ok(()) };
        let mut all = Run::new(capacity);
        // Their own bucket, with nobody else in it, and to which no settlement ever gives anything back.
        let mut own = Run::new(Capacity {
            quota: Quota { burst, ..capacity.quota },
            standard: 0,
            ..capacity
        });
        for happening in happenings {
            match happening {
                Happening::Ask(priority, cells) => {
                    let answer = all.check(priority, cells);
                    if priority >= least {
                        // Fits there: fits here.
                        prop_assert!(answer.is_ok() || own.check(priority, cells).is_err(), "{priority:?} {cells} {answer:?}");
                    }
                    if answer.is_ok() {
                        all.charge(priority, cells);
                        if priority >= least {
                            own.charge(priority, cells);
                        }
                    }
                }
                Happening::Charge(priority, cells) => {
                    all.charge(priority, cells);
                    if priority >= least {
                        own.charge(priority, cells);
                    }
                }
                Happening::Settle(at, share) => {
                    if let Some((priority, held, used)) = all.settle(at, share) && priority >= least {
                        own.charge(priority, used.saturating_sub(held));
                    }
                }
                Happening::Pass(nanos) => {
                    all.now += nanos;
                    own.now += nanos;
                }
            }
        }
    }

    #[test]
    fn who_asks_never_takes_of_the_part_above_it(capacity in any_capacity(), happenings in happenings()) {
        let mut run = Run::new(capacity);
        for happening in happenings {
            let before = run.available(Priority::Critical);
            match happening {
                Happening::Ask(priority, cells) => {
                    if run.check(priority, cells).is_ok() {
                        run.charge(priority, cells);
                        prop_assert_eq!(run.available(Priority::Critical), before - cells);
                        prop_assert!(run.available(Priority::Critical) >= capacity.kept_from(priority));
                    }
                }
                // Nor does who does not ask, nor who uses more than it took.
                Happening::Charge(priority, cells) => {
                    run.charge(priority, cells);
                    prop_assert!(run.available(Priority::Critical) >= before.min(capacity.kept_from(priority)));
                }
                Happening::Settle(at, share) => {
                    if let Some((priority, ..)) = run.settle(at, share) {
                        prop_assert!(run.available(Priority::Critical) >= before.min(capacity.kept_from(priority)));
                    }
                }
                Happening::Pass(nanos) => {
                    run.now += nanos;
                    prop_assert!(run.available(Priority::Critical) >= before);
                }
            }
            let [best_effort, standard, critical] = PRIORITIES.map(|priority| run.available(priority));
            prop_assert!(best_effort <= standard && standard <= critical);
        }
    }

    #[test]
    fn a_refusal_ends_exactly_when_it_says(
        capacity in any_capacity(), happenings in happenings(), priority in any_priority(), cells in 0..110_u64,
    ) {
        let mut run = Run::new(capacity);
        for happening in happenings {
            match happening {
                Happening::Ask(priority, cells) | Happening::Charge(priority, cells) => run.charge(priority, cells),
                Happening::Settle(at, share) => drop(run.settle(at, share)),
                Happening::Pass(nanos) => run.now += nanos,
            }
        }
        match run.check(priority, cells) {
            Ok(()) => prop_assert!(cells <= run.available(priority)),
            Err(NotNow::ExceedsBurst) => prop_assert!(cells > capacity.share(priority)),
            Err(NotNow::Wait(wait)) => {
                prop_assert!(cells <= capacity.share(priority));
                run.now += u64::try_from(wait.as_nanos()).unwrap() - 1;
                prop_assert!(run.check(priority, cells).is_err());
                run.now += 1;
                prop_assert_eq!(run.check(priority, cells), Ok(()));
            }
        }
    }

    #[test]
    fn what_is_taken_less_what_is_settled_is_what_is_held(capacity in any_capacity(), happenings in happenings()) {
        let mut run = Run::new(capacity);
        let mut used = 0;
        for happening in happenings {
            match happening {
                Happening::Ask(priority, cells) | Happening::Charge(priority, cells) => run.charge(priority, cells),
                Happening::Settle(at, share) => used += run.settle(at, share).map_or(0, |(.., used)| used),
                // Nothing comes back by itself.
                Happening::Pass(_) => {}
            }
        }
        let held: u64 = run.flight.iter().map(|(_, held, _)| held).sum();
        let bytes = run.taken.encode();
        prop_assert_eq!(u64::from_le_bytes(bytes[4..12].try_into().unwrap()), held + used);
        prop_assert_eq!(Taken::decode(&bytes), Ok(run.taken));
    }

    #[test]
    fn all_together_get_no_more_than_the_burst_and_what_came_back(capacity in any_capacity(), happenings in happenings()) {
        let mut run = Run::new(capacity);
        let mut given = 0_u128;
        for happening in happenings {
            match happening {
                Happening::Ask(priority, cells) | Happening::Charge(priority, cells) => {
                    if run.check(priority, cells).is_ok() {
                        run.charge(priority, cells);
                        given += u128::from(cells);
                    }
                }
                // Estimates that hold: what is settled is no more than what was taken.
                Happening::Settle(at, share) => {
                    if let Some((_, held, used)) = run.settle(at, share.min(100)) {
                        given -= u128::from(held - used);
                    }
                }
                Happening::Pass(nanos) => run.now += nanos,
            }
            let time = u128::from(run.now - START);
            let back = time * u128::from(capacity.quota.tokens_per_window.get()) / u128::from(capacity.quota.window.get());
            prop_assert!(given <= u128::from(capacity.quota.burst.get()) + back);
        }
    }
}

proptest! {
    // A value under our key may be older, cut off, or another plugin's.
    #[test]
    fn what_is_taken_is_read_as_it_was_written_or_not_at_all(bytes in prop::collection::vec(any::<u8>(), 36..44), cut in any::<bool>()) {
        let bytes = if cut { bytes } else { [b"brc\x01".as_slice(), &bytes].concat() };
        if let Ok(taken) = Taken::decode(&bytes) {
            prop_assert_eq!(taken.encode(), bytes.clone());
        }
        prop_assert_eq!(Taken::decode(&bytes).is_ok(), bytes.len() == 44 && bytes.starts_with(b"brc\x01"));
    }
}

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

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (any_priority(), 0..2_usize, 10..90_u64).prop_map(|(priority, tier, cells)| Event::Ask(priority, tier, cells)),
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
