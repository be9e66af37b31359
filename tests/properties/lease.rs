//! One budget across proxies: what all of them spend together, whatever is lost, late or doubled, whoever crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;

use bursar::base::units::Timestamp;
use bursar::calendar::window::{Period, Window};
use bursar::lease::grant::{Cold, Grant, Terms, Told, Unreachable};
use bursar::lease::line::{Answer, Holder, Line};
use proptest::prelude::*;

use crate::engine::{self, Account};

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLI;
const PROXIES: usize = 4;
const LARGEST: u64 = 60;
/// The middle of a window of a minute, and of an epoch of the store.
const START: u64 = 1_700_000_005 * SECOND;

/// What may happen.
#[derive(Clone, Debug)]
enum Happening {
    /// A proxy is asked for so much.
    Ask(usize, u64),
    /// Of what a request under way held, it used so much in percent.
    Settle(usize, usize, u64),
    /// A proxy says a line where it is due, or whether or not it is.
    Tick(usize),
    Say(usize),
    /// One of the lines under way arrives; it arrives, and will once more; it never does.
    Arrive(usize),
    Double(usize),
    Lose(usize),
    /// One of the answers under way arrives; it arrives, and will once more; it never does.
    Answer(usize),
    DoubleAnswer(usize),
    LoseAnswer(usize),
    /// A proxy gives up waiting.
    GiveUp(usize),
    /// A proxy is killed, and a fresh one takes its place.
    Crash(usize),
    /// So many milliseconds pass.
    Pass(u64),
    /// A proxy has another budget in its configuration.
    Budget(usize, u64),
    /// A proxy's clock is wrong by so many milliseconds.
    Skew(usize, i64),
}

fn any_happening(pass: impl Strategy<Value = u64> + 'static) -> impl Strategy<Value = Happening> {
    use Happening::{
        Answer, Arrive, Ask, Budget, Crash, Double, DoubleAnswer, GiveUp, Lose, LoseAnswer, Pass,
        Say, Settle, Skew, Tick,
    };
    let any = any::<usize>;

    prop_oneof![
        12 => (any(), 1..=LARGEST).prop_map(|(proxy, cells)| Ask(proxy, cells)),
        4 => (any(), any(), 0..=100_u64).prop_map(|(proxy, at, part)| Settle(proxy, at, part)),
        6 => any().prop_map(Tick),
        4 => any().prop_map(Say),
        9 => any().prop_map(Arrive),
        1 => any().prop_map(Double),
        1 => any().prop_map(Lose),
        9 => any().prop_map(Answer),
        1 => any().prop_map(DoubleAnswer),
        1 => any().prop_map(LoseAnswer),
        1 => any().prop_map(GiveUp),
        1 => any().prop_map(Crash),
        6 => pass.prop_map(Pass),
        1 => (any(), 0..500_u64).prop_map(|(proxy, budget)| Budget(proxy, budget)),
        1 => (any(), -20_000..20_000_i64).prop_map(|(proxy, by)| Skew(proxy, by)),
    ]
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let pass = prop_oneof![4 => 0..300_u64, 3 => 300..3_000_u64, 1 => 3_000..70_000_u64];
    prop::collection::vec(any_happening(pass), 1..250)
}

/// Where holders fall silent for long.
fn silences() -> impl Strategy<Value = Vec<Happening>> {
    let pass = prop_oneof![0..300_u64, 5_000..30_000_u64];
    prop::collection::vec(any_happening(pass), 1..250)
}

#[derive(Clone, Debug, Default)]
struct Proxy {
    grant: Grant,
    window: Window,
    used: u64,
    /// What requests under way hold, and of which window.
    holds: Vec<(Timestamp, u64)>,
    budget: u64,
    skew: i64,
}

/// What may be chosen of a world.
#[derive(Clone, Copy, Debug)]
struct Rules {
    /// The length of windows, in seconds.
    window: u64,
    reclaim: Option<NonZeroU64>,
    cold: Cold,
}

struct World {
    rules: Rules,
    now: u64,
    accounts: BTreeMap<Timestamp, Option<Account>>,
    proxies: Vec<Proxy>,
    born: u64,
    lines: Vec<Line>,
    answers: Vec<(Line, Answer)>,
    /// What proxies have used of windows that they are not in any more.
    before: BTreeMap<Timestamp, u64>,
    largest_budget: u64,
    /// What holders had used beyond what they had told when the store gave the rest of their slice to others.
    untold: u64,
    /// Reservations on credit.
    credit: BTreeMap<Timestamp, u64>,
    dead: BTreeMap<u64, u64>,
}

impl World {
    fn new(budget: u64, rules: Rules) -> Self {
        let mut world = Self {
            rules,
            now: START,
            accounts: BTreeMap::new(),
            proxies: vec![Proxy::default(); PROXIES],
            born: 0,
            lines: Vec::new(),
            answers: Vec::new(),
            before: BTreeMap::new(),
            largest_budget: budget,
            untold: 0,
            credit: BTreeMap::new(),
            dead: BTreeMap::new(),
        };
        for at in 0..PROXIES {
            world.proxies[at].budget = budget;
            world.start(at);
        }
        world
    }

    fn start(&mut self, at: usize) {
        self.born += 1;
        let window = self.period().at(self.clock(at));
        let proxy = &mut self.proxies[at];
        proxy.grant = Grant::new(Holder(self.born));
        proxy.window = window;
        proxy.used = 0;
        proxy.holds.clear();
    }

    fn period(&self) -> Period {
        Period::Every(NonZeroU64::new(self.rules.window * SECOND).unwrap())
    }

    /// A proxy's clock.
    fn clock(&self, at: usize) -> Timestamp {
        let millis = i64::try_from(self.now / MILLI).unwrap() + self.proxies[at].skew;
        Timestamp::from_nanos(u64::try_from(millis).unwrap() * MILLI)
    }

    fn terms(&self, at: usize) -> Terms {
        Terms {
            budget: self.proxies[at].budget,
            window: self.proxies[at].window,
            least: SECOND,
            most: 10 * SECOND,
            reclaim: self.rules.reclaim,
            unreachable: Unreachable::Deny,
            cold: self.rules.cold,
        }
    }

    /// A proxy looks at its clock: its window may be over.
    fn roll(&mut self, at: usize) {
        let window = self.period().at(self.clock(at));
        let proxy = &mut self.proxies[at];
        if window.start > proxy.window.start {
            *self.before.entry(proxy.window.start).or_default() += proxy.used;
            proxy.window = window;
            proxy.used = 0;
            proxy.grant = proxy.grant.rolled();
        }
    }

    fn ask(&mut self, at: usize, cells: u64) {
        self.roll(at);
        let (terms, now) = (self.terms(at), self.clock(at));
        let proxy = &mut self.proxies[at];
        match proxy.grant.check(proxy.used, cells, &terms, now) {
            Ok(()) => {
                if proxy.used + cells > proxy.grant.granted {
                    *self.credit.entry(proxy.window.start).or_default() += cells;
                }
                proxy.used += cells;
                proxy.holds.push((proxy.window.start, cells));
                proxy.grant = proxy.grant.took(cells);
            }
            Err(_) => proxy.grant = proxy.grant.lacked(cells),
        }
    }

    fn settle(&mut self, at: usize, which: usize, part: u64) {
        self.roll(at);
        let proxy = &mut self.proxies[at];
        if proxy.holds.is_empty() {
            return;
        }
        let (window, held) = proxy.holds.swap_remove(which % proxy.holds.len());
        let unused = held - held * part / 100;
        if window == proxy.window.start {
            proxy.used -= unused;
        } else {
            *self.before.get_mut(&window).unwrap() -= unused;
        }
    }

    fn say(&mut self, at: usize, only_due: bool) {
        self.roll(at);
        let (terms, now) = (self.terms(at), self.clock(at));
        let proxy = &mut self.proxies[at];
        if !only_due || proxy.grant.is_due(proxy.used, &terms, now) {
            let (grant, line) = proxy.grant.say(proxy.used, &terms, now);
            proxy.grant = grant;
            self.lines.push(line);
        }
    }

    fn arrive(&mut self, which: usize, again: bool) {
        if self.lines.is_empty() {
            return;
        }
        let which = which % self.lines.len();
        let line = if again {
            self.lines[which]
        } else {
            self.lines.swap_remove(which)
        };
        let now = self.now / MILLI;
        self.reclaimed(&line, now);
        let account = self.accounts.entry(line.window.start).or_default();
        // All of them are drawn: the worst case.
        let all: Vec<_> = account
            .iter()
            .flat_map(|account| account.entries.keys().copied())
            .collect();
        let answer = engine::take(account, &line, now, &all);
        self.answers.push((line, answer));
    }

    /// Counts what the line will take from holders that have used it without a word.
    fn reclaimed(&mut self, line: &Line, now: u64) {
        let Some(Some(account)) = self.accounts.get(&line.window.start) else {
            return;
        };
        for (&holder, entry) in &account.entries {
            if line.reclaim > 0
                && account.is_silent(holder, line.reclaim, now)
                && entry.granted > entry.used
            {
                let live = self
                    .proxies
                    .iter()
                    .find(|proxy| proxy.grant.holder == Holder(holder));
                let used = match live {
                    Some(proxy) if proxy.window.start == line.window.start => proxy.used,
                    // It is in another window, and what it used of this one is bounded by what it was granted.
                    Some(_) => entry.granted,
                    None => self.dead.get(&holder).copied().unwrap_or_default(),
                };
                self.untold += used.saturating_sub(entry.used);
            }
        }
    }

    fn answer(&mut self, which: usize, again: bool) {
        if self.answers.is_empty() {
            return;
        }
        let which = which % self.answers.len();
        let (line, answer) = if again {
            self.answers[which]
        } else {
            self.answers.swap_remove(which)
        };
        // An answer to a process that is no more finds nobody.
        let Some(at) = self
            .proxies
            .iter()
            .position(|proxy| proxy.grant.holder == line.holder)
        else {
            return;
        };
        self.roll(at);
        let proxy = &mut self.proxies[at];
        let (grant, told) = proxy.grant.heard(line.seq, &answer);
        assert_ne!(told, Told::Clash);
        proxy.grant = grant;
    }

    fn crash(&mut self, at: usize) {
        let proxy = &self.proxies[at];
        *self.before.entry(proxy.window.start).or_default() += proxy.used;
        self.dead.insert(proxy.grant.holder.0, proxy.used);
        self.start(at);
    }

    fn happens(&mut self, happening: &Happening) {
        match *happening {
            Happening::Ask(at, cells) => self.ask(at % PROXIES, cells),
            Happening::Settle(at, which, part) => self.settle(at % PROXIES, which, part),
            Happening::Tick(at) => self.say(at % PROXIES, true),
            Happening::Say(at) => self.say(at % PROXIES, false),
            Happening::Arrive(which) => self.arrive(which, false),
            Happening::Double(which) => self.arrive(which, true),
            Happening::Lose(which) => lose(&mut self.lines, which),
            Happening::Answer(which) => self.answer(which, false),
            Happening::DoubleAnswer(which) => self.answer(which, true),
            Happening::LoseAnswer(which) => lose(&mut self.answers, which),
            Happening::GiveUp(at) => {
                let grant = &mut self.proxies[at % PROXIES].grant;
                *grant = grant.failed(grant.seq);
            }
            Happening::Crash(at) => self.crash(at % PROXIES),
            Happening::Pass(millis) => self.now += millis * MILLI,
            Happening::Budget(at, budget) => {
                self.largest_budget = self.largest_budget.max(budget);
                self.proxies[at % PROXIES].budget = budget;
            }
            Happening::Skew(at, by) => self.proxies[at % PROXIES].skew = by,
        }
    }

    /// What all proxies, the dead ones too, have spent and hold of each window.
    fn used(&self) -> BTreeMap<Timestamp, u64> {
        let mut used = self.before.clone();
        for proxy in &self.proxies {
            *used.entry(proxy.window.start).or_default() += proxy.used;
        }
        used
    }

    /// What the store has granted is what it counts, and no more than one of the budgets.
    fn check_accounts(&self) -> Result<(), TestCaseError> {
        for account in self.accounts.values().flatten() {
            let sum: u64 = account.entries.values().map(|entry| entry.granted).sum();
            prop_assert_eq!(account.total, sum);
        }
        Ok(())
    }
}

fn lose<T>(under_way: &mut Vec<T>, which: usize) {
    if !under_way.is_empty() {
        let which = which % under_way.len();
        under_way.swap_remove(which);
    }
}

const SURE: Rules = Rules {
    window: 60,
    reclaim: None,
    cold: Cold::Deny,
};

proptest! {

    // Whatever is lost, late, doubled or out of order, whoever crashes, whatever the clocks say.
    #[test]
    fn together_they_never_spend_more_than_the_budget(budget in 0..400_u64, happenings in happenings()) {
        let mut world = World::new(budget, SURE);
        for happening in &happenings {
            world.happens(happening);
            for (window, used) in world.used() {
                prop_assert!(used <= world.largest_budget, "{used} of {} in {window:?} after {happening:?}", world.largest_budget);
            }
            world.check_accounts()?;
        }
    }

    // A slice is never larger here than the store believes.
    #[test]
    fn the_store_knows_of_every_slice(budget in 0..400_u64, happenings in happenings()) {
        let mut world = World::new(budget, SURE);
        for happening in &happenings {
            world.happens(happening);
            for proxy in &world.proxies {
                let account = world.accounts.get(&proxy.window.start).and_then(Option::as_ref);
                let entry = account.and_then(|account| account.entries.get(&proxy.grant.holder.0));
                prop_assert!(proxy.grant.granted <= entry.map_or(0, |entry| entry.granted), "after {happening:?}");
            }
        }
    }

    #[test]
    fn credit_costs_one_reservation_of_each_fresh_process(budget in 0..400_u64, happenings in happenings()) {
        let mut world = World::new(budget, Rules { cold: Cold::Credit, ..SURE });
        for happening in &happenings {
            world.happens(happening);
            for (window, used) in world.used() {
                let credit = world.credit.get(&window).copied().unwrap_or_default();
                prop_assert!(used <= world.largest_budget + credit, "{used} after {happening:?}");
            }
        }
    }

    // Of a holder that is silent for too long, others get what it has not told that it used. It stops before they do.
    #[test]
    fn reclaiming_costs_what_silent_holders_had_used_without_a_word(budget in 0..400_u64, happenings in silences()) {
        let rules = Rules { window: 36_000, reclaim: NonZeroU64::new(20 * SECOND), ..SURE };
        let mut world = World::new(budget, rules);
        for happening in &happenings {
            // A clock that is set forth or back says nothing about how long it was silent.
            if matches!(happening, Happening::Skew(..)) {
                continue;
            }
            world.happens(happening);
            for (window, used) in world.used() {
                prop_assert!(used <= world.largest_budget + world.untold, "{used} in {window:?} after {happening:?}");
            }
        }
    }

    // The store comes back empty. All who knew of the account say anew what they hold before anything is granted, in any order.
    #[test]
    fn a_wipe_costs_nothing_that_live_holders_had(
        budget in 100..400_u64, before in happenings(), order in prop::collection::vec((0..PROXIES, 0..100_u64), 0..12),
        after in happenings(),
    ) {
        let mut world = World::new(budget, SURE);
        let keep = |happening: &&Happening| !matches!(happening, Happening::Crash(_) | Happening::Skew(..) | Happening::Budget(..));
        for happening in before.iter().filter(keep) {
            world.happens(happening);
        }
        world.now = (world.now / (60 * SECOND) + 1) * 60 * SECOND + 5 * SECOND;
        (0..PROXIES).for_each(|at| world.roll(at));
        world.lines.clear();
        world.answers.clear();
        // The window that they are in now has been in use for some seconds by two of them at least.
        for at in [0, 1, 2] {
            world.ask(at, 20);
            world.say(at, false);
            world.arrive(0, false);
            world.answer(0, false);
            world.ask(at, 20);
        }
        world.accounts.clear();
        let mut restated: BTreeSet<usize> = BTreeSet::new();
        // The first one who knows comes before the one who does not.
        for (at, passes) in [(0, 5)].into_iter().chain(order).chain([(1, 1), (2, 1)]) {
            world.now += passes * MILLI;
            world.ask(at, LARGEST);
            world.say(at, false);
            restated.insert(at);
            world.arrive(0, false);
            world.answer(0, false);
        }
        world.now += 25 * SECOND;
        for happening in after.iter().filter(keep) {
            world.happens(happening);
            for (window, used) in world.used() {
                prop_assert!(used <= budget, "{used} of {budget} in {window:?} after {happening:?}");
            }
        }
    }
}
