//! One budget across proxies as it is wired: requests, records, compare-and-swap, lines and answers in the store's own words; and
//! whatever may happen to them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bursar::lease::line::{Answer, Line, Status};
use bursar::state::slots::SlotSeed;
use bursar::teller::{Message, Teller};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::engine::{self, Account, Changes};
use crate::proxy::{Call, NOON, Proxy, usage};

pub(crate) const PROXIES: usize = 3;
/// In milliseconds.
const WINDOW: u64 = 300_000;

/// What comes before the generation and the window in the keys of the accounts.
const LIMIT: &str = "bursar:{default/acme/budget}:tokens";

/// What may happen.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    /// A proxy is asked for an answer of so many tokens at the most.
    Ask(usize, u64),
    /// A request under way is answered: with this share of what it may use, in percent.
    Answer(usize, u64),
    /// It fails upstream.
    Fail(usize),
    /// One of a proxy's two workers looks what is due.
    Tick(usize, usize),
    /// All that a worker finds due is said, arrives and is answered.
    Flow(usize, usize),
    /// One of the messages under way arrives; and will once more; never does.
    Arrive(usize),
    Double(usize),
    Lose(usize),
    /// One of the answers under way is read; and will be once more; is cut; never comes.
    Hear(usize),
    HearTwice(usize),
    HearPart(usize, usize),
    Never(usize),
    /// A proxy is killed, and a fresh one takes its place.
    Crash(usize),
    /// So many of a proxy's next writes lose their race.
    Race(usize, u32),
    /// So many milliseconds pass.
    Pass(u64),
    /// A proxy has another budget in its configuration.
    Limit(usize, u64),
    /// An operator adds so much to the budget, for so many milliseconds; 0: until told otherwise.
    Raise(u64, u64),
    /// An operator sets the budget to so much; 0: as configured.
    Set(u64),
    /// An operator has all begin anew.
    Reset,
}

pub(crate) fn any_happening() -> impl Strategy<Value = Happening> {
    use Happening::{
        Answer, Arrive, Ask, Crash, Double, Fail, Flow, Hear, HearPart, HearTwice, Limit, Lose,
        Never, Pass, Race, Raise, Reset, Set, Tick,
    };
    let any = any::<usize>;
    prop_oneof![
        16 => (any(), 0..150_u64).prop_map(|(proxy, output)| Ask(proxy, output)),
        6 => (any(), 0..=100_u64).prop_map(|(at, share)| Answer(at, share)),
        1 => any().prop_map(Fail),
        10 => (any(), any()).prop_map(|(proxy, worker)| Flow(proxy, worker)),
        5 => (any(), any()).prop_map(|(proxy, worker)| Tick(proxy, worker)),
        5 => any().prop_map(Arrive),
        1 => any().prop_map(Double),
        1 => any().prop_map(Lose),
        5 => any().prop_map(Hear),
        1 => any().prop_map(HearTwice),
        1 => (any(), any()).prop_map(|(at, end)| HearPart(at, end)),
        1 => any().prop_map(Never),
        1 => any().prop_map(Crash),
        1 => (any(), 0..4_u32).prop_map(|(proxy, times)| Race(proxy, times)),
        6 => prop_oneof![4 => 0..300_u64, 3 => 300..3_000_u64, 1 => 3_000..WINDOW].prop_map(Pass),
        1 => (any(), 200..3_000_u64).prop_map(|(proxy, budget)| Limit(proxy, budget)),
        2 => (0..1_500_u64, prop_oneof![Just(0), 0..60_000_u64]).prop_map(|(raise, lasts)| Raise(raise, lasts)),
        1 => prop_oneof![Just(0), 200..3_000_u64].prop_map(Set),
        1 => Just(Reset),
    ]
}

fn config(budget: u64, cold: &str) -> Value {
    json!({
        "hold_headers": true,
        "reservation_expiry": "10h",
        "global": {"redis": {"cluster": "store"}},
        "plans": {"gold": {"cold": cold, "budget": {"initial_budget": budget, "window": "5m"}}},
        "tenants": {"acme": {"plan": "gold"}}
    })
}

/// Which account a request is charged on: the window, and how often the limit was reset.
pub(crate) type Charged = (u64, u64);

/// The hashes of a store, by their keys.
#[derive(Default)]
pub(crate) struct Hashes {
    accounts: BTreeMap<String, Option<Account>>,
    changes: BTreeMap<String, Changes>,
}

impl Hashes {
    fn take(&mut self, key: &str, line: &Line, now: u64) -> Answer {
        let (rest, window) = key.rsplit_once(':').unwrap();
        let (limit, said) = rest.rsplit_once(':').unwrap();
        let said: u64 = said.parse().unwrap();
        let mut changes = self.changes.get(limit).copied().unwrap_or_default();
        let counts = format!("{limit}:{}:{window}", said.max(changes.generation));
        let account = self.accounts.entry(counts).or_default();
        let answer = engine::take_changed(account, &mut changes, said, line, now, &[]);
        self.changes.insert(limit.to_owned(), changes);
        answer
    }
}

/// A request under way.
pub(crate) struct Flight {
    call: Call<'static>,
    proxy: usize,
    charged: Charged,
    body: u64,
    output: u64,
}

pub(crate) struct World {
    pub(crate) proxies: Vec<&'static Proxy>,
    tellers: Vec<[RefCell<Teller>; 2]>,
    pub(crate) hashes: Hashes,
    /// To the store, and from which proxy; back, and to which.
    lines: Vec<(usize, Rc<Message>)>,
    answers: Vec<(usize, Rc<Message>, Vec<u8>)>,
    flight: Vec<Flight>,
    /// What the upstream was paid for requests of each account.
    pub(crate) paid: BTreeMap<Charged, u64>,
    /// What requests on credit were, in each of them.
    pub(crate) credit: BTreeMap<Charged, u64>,
    started: u8,
    budget: u64,
    pub(crate) largest: u64,
    pub(crate) largest_raise: u64,
    cold: &'static str,
    clock: u64,
}

impl World {
    pub(crate) fn new(budget: u64, cold: &'static str) -> Self {
        let mut world = Self {
            proxies: Vec::new(),
            tellers: Vec::new(),
            hashes: Hashes::default(),
            lines: Vec::new(),
            answers: Vec::new(),
            flight: Vec::new(),
            paid: BTreeMap::new(),
            credit: BTreeMap::new(),
            started: 0,
            budget,
            largest: budget,
            largest_raise: 0,
            cold,
            clock: 0,
        };
        for _ in 0..PROXIES {
            let (proxy, tellers) = world.fresh();
            world.proxies.push(proxy);
            world.tellers.push(tellers);
        }
        world
    }

    fn fresh(&mut self) -> (&'static Proxy, [RefCell<Teller>; 2]) {
        self.started += 1;
        // Requests outlive no test, but nothing here says so.
        let proxy: &'static Proxy =
            Box::leak(Box::new(Proxy::new(&config(self.budget, self.cold))));
        proxy.store.set_seed(SlotSeed([self.started; 16]));
        proxy.pass_millis(self.clock);
        (proxy, Default::default())
    }

    fn window(&self) -> u64 {
        self.now() / WINDOW
    }

    fn ask(&mut self, at: usize, output: u64) {
        let proxy = self.proxies[at];
        let body = format!(r#"{{"model":"m","max_tokens":{output}}}"#);
        let call = proxy.chat("acme", &body);
        for watch in proxy.watches.borrow_mut().drain(..) {
            // The worker that served it.
            let worker = usize::try_from(output).unwrap() % 2;
            self.tellers[at][worker].borrow_mut().watch(watch);
        }
        if call.reply.is_some() {
            return;
        }
        let body = u64::try_from(body.len()).unwrap();
        let account = proxy.record("acme").account;
        let granted = account
            .slice
            .as_ref()
            .map_or(0, |slice| slice.grant.granted);
        let slice = account.slice.as_ref();
        let charged = (self.window(), slice.map_or(0, |slice| slice.generation));
        if account.spent.tokens.0 + account.held().tokens.0 > granted {
            *self.credit.entry(charged).or_default() += body + output;
        }
        self.flight.push(Flight {
            call,
            proxy: at,
            charged,
            body,
            output,
        });
    }

    fn answer(&mut self, which: usize, share: u64) {
        if self.flight.is_empty() {
            return;
        }
        let at = which % self.flight.len();
        let mut flight = self.flight.swap_remove(at);
        let (input, output) = (flight.body * share / 100, flight.output * share / 100);
        flight.call.answer_json(&usage(input, output));
        flight.call.end();
        *self.paid.entry(flight.charged).or_default() += input + output;
    }

    fn fail(&mut self, which: usize) {
        if !self.flight.is_empty() {
            let at = which % self.flight.len();
            let mut flight = self.flight.swap_remove(at);
            flight.call.answer_headers("500", &[]);
            flight.call.end();
        }
    }

    fn tick(&mut self, at: usize, worker: usize) {
        let proxy = self.proxies[at];
        let mut teller = self.tellers[at][worker].borrow_mut();
        let (messages, _) = teller.due(&proxy.store, proxy.now());
        self.lines
            .extend(messages.into_iter().map(|message| (at, Rc::new(message))));
    }

    fn arrive(&mut self, which: usize, again: bool) {
        if self.lines.is_empty() {
            return;
        }
        let which = which % self.lines.len();
        let (at, message) = if again {
            self.lines[which].clone()
        } else {
            self.lines.swap_remove(which)
        };
        let now = self.now();
        let mut body = String::new();
        for (key, line) in message.lines() {
            body.push_str(&spoken(&self.hashes.take(key, &line, now)));
        }
        body.push_str("+OK\r\n");
        self.answers.push((at, message, body.into_bytes()));
    }

    fn hear(&mut self, which: usize, again: bool, end: Option<usize>) {
        if self.answers.is_empty() {
            return;
        }
        let which = which % self.answers.len();
        let (at, message, mut body) = if again {
            self.answers[which].clone()
        } else {
            self.answers.swap_remove(which)
        };
        if let Some(end) = end {
            body.truncate(end % body.len());
        }
        self.told(at, &message, Some(b"200"), &body);
    }

    fn told(&self, at: usize, message: &Message, status: Option<&[u8]>, body: &[u8]) {
        let proxy = self.proxies[at];
        // Which of the workers hears it makes no difference.
        let mut teller = self.tellers[at][body.len() % 2].borrow_mut();
        let outcome = teller.heard(message, status, body, &proxy.store, proxy.now());
        assert!(outcome.again.is_none());
    }

    pub(crate) fn crash(&mut self, at: usize) {
        // What was under way is paid for, and nobody knows.
        let (dead, live): (Vec<_>, Vec<_>) = std::mem::take(&mut self.flight)
            .into_iter()
            .partition(|flight| flight.proxy == at);
        self.flight = live;
        for flight in dead {
            *self.paid.entry(flight.charged).or_default() += flight.body + flight.output;
            std::mem::forget(flight.call);
        }
        // Answers to it find nobody; what it had said may still arrive.
        self.answers.retain(|(to, ..)| *to != at);
        let (proxy, tellers) = self.fresh();
        self.proxies[at] = proxy;
        self.tellers[at] = tellers;
    }

    pub(crate) fn happens(&mut self, happening: &Happening) {
        match *happening {
            Happening::Ask(at, output) => self.ask(at % PROXIES, output),
            Happening::Answer(which, share) => self.answer(which, share),
            Happening::Fail(which) => self.fail(which),
            Happening::Tick(at, worker) => self.tick(at % PROXIES, worker % 2),
            Happening::Flow(at, worker) => {
                let before = (self.lines.len(), self.answers.len());
                self.tick(at % PROXIES, worker % 2);
                while self.lines.len() > before.0 {
                    self.arrive(self.lines.len() - 1, false);
                }
                while self.answers.len() > before.1 {
                    self.hear(self.answers.len() - 1, false, None);
                }
            }
            Happening::Arrive(which) => self.arrive(which, false),
            Happening::Double(which) => self.arrive(which, true),
            Happening::Lose(which) => drop(taken(&mut self.lines, which)),
            Happening::Hear(which) => self.hear(which, false, None),
            Happening::HearTwice(which) => self.hear(which, true, None),
            Happening::HearPart(which, end) => self.hear(which, false, Some(end)),
            Happening::Never(which) => {
                if let Some((at, message, _)) = taken(&mut self.answers, which) {
                    self.told(at, &message, None, b"");
                }
            }
            Happening::Crash(at) => self.crash(at % PROXIES),
            Happening::Race(at, times) => self.proxies[at % PROXIES].store.lose(times),
            Happening::Pass(millis) => {
                self.clock += millis;
                self.proxies
                    .iter()
                    .for_each(|proxy| proxy.pass_millis(millis));
            }
            Happening::Limit(at, budget) => {
                self.largest = self.largest.max(budget);
                self.proxies[at % PROXIES].configure(&config(budget, self.cold));
            }
            Happening::Raise(raise, lasts) => {
                self.largest_raise = self.largest_raise.max(raise);
                let until = if lasts == 0 { 0 } else { self.now() + lasts };
                let changes = self.changes();
                (changes.raise, changes.until) = (raise, until);
            }
            Happening::Set(budget) => {
                self.largest = self.largest.max(budget);
                self.changes().set = budget;
            }
            Happening::Reset => {
                let now = self.now();
                let changes = self.changes();
                changes.generation = now.max(changes.generation + 1);
            }
        }
    }

    /// The store's clock.
    fn now(&self) -> u64 {
        NOON * 1_000 + self.clock
    }

    pub(crate) fn changes(&mut self) -> &mut Changes {
        self.hashes.changes.entry(LIMIT.to_owned()).or_default()
    }

    /// A slice is never larger here than the store believes, whichever account it is of.
    pub(crate) fn check_slices(&self) -> Result<(), TestCaseError> {
        for proxy in &self.proxies {
            let account = proxy.try_record("acme").map(|record| record.account);
            let Some(slice) = account.and_then(|account| account.slice) else {
                continue;
            };
            let (granted, holder) = (slice.grant.granted, slice.grant.holder.0);
            let opens = engine::millis(slice.opens);
            let key = format!("{LIMIT}:{}:{opens}", slice.generation);
            let account = self.hashes.accounts.get(&key).and_then(Option::as_ref);
            let entry = account.and_then(|account| account.entries.get(&holder));
            let known = entry.map_or(0, |entry| entry.granted);
            prop_assert!(granted <= known, "{granted} is more than {known} of {key}");
        }
        Ok(())
    }

    /// What the upstream is paid of each account, all that is under way included.
    pub(crate) fn check(&self, allowed: impl Fn(Charged) -> u64) -> Result<(), TestCaseError> {
        let mut all = self.paid.clone();
        for flight in &self.flight {
            *all.entry(flight.charged).or_default() += flight.body + flight.output;
        }
        for (charged, paid) in all {
            let allowed = allowed(charged);
            prop_assert!(paid <= allowed, "{paid} of {allowed} in {charged:?}");
        }
        Ok(())
    }
}

/// An answer in the store's words.
fn spoken(answer: &Answer) -> String {
    let (status, first) = match answer.status {
        Status::Granted => (0, answer.grant),
        Status::Stale { latest } => (1, latest),
        Status::TooEarly => (2, 0),
        Status::TooLate => (3, 0),
    };
    let &Answer {
        total,
        free,
        holders,
        now,
        born,
        generation,
        set,
        raise,
        ..
    } = answer;
    let numbers = [
        status, first, total, free, holders, now, born, generation, set, raise,
    ];
    let numbers = numbers.map(|number| format!(":{number}\r\n"));
    format!("*10\r\n{}", numbers.concat())
}

fn taken<T>(under_way: &mut Vec<T>, which: usize) -> Option<T> {
    (!under_way.is_empty()).then(|| under_way.swap_remove(which % under_way.len()))
}

/// Asks all proxies in turn for `requests`, each of which uses all that it may, and lets time pass between; how many were served.
pub(crate) fn run(world: &mut World, requests: usize, output: u64) -> usize {
    let mut served = 0;
    for request in 0..requests {
        for _ in 0..2 {
            let before = world.flight.len();
            world.ask(request % PROXIES, output);
            served += world.flight.len() - before;
            world.answer(0, 100);
            for step in 0..4 {
                for at in 0..PROXIES {
                    (0..2).for_each(|worker| world.tick(at, worker));
                }
                while !world.lines.is_empty() {
                    world.arrive(0, false);
                    world.hear(0, false, None);
                }
                world.happens(&Happening::Pass(if step == 0 { 50 } else { 100 }));
            }
        }
    }
    served
}
