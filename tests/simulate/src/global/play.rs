//! Plays a window against the pure core of each proxy's slices: `lease::grant`, told and asked as `admission` and `teller` do.
//!
//! Each proxy is one worker, which looks every 50 ms for lines that are due, and sends all of them in one call; answers take a millisecond.
//! A request of a tenant without a slice waits for the first one (`cold: wait`). One that is refused for a moment is sent again after the
//! 200 to 300 ms that it is told, twice at most, as SDKs do by default; one that is refused since the budget is spent is not.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bursar::base::units::Timestamp;
use bursar::calendar::window::Window;
use bursar::lease::grant::{Cold, Grant, NoRoom, Terms, Told, Unreachable};
use bursar::lease::line::{Answer, Holder, Line};

use super::figures::{Asked, Fate, Figures, Phase};
use super::keeper::Keeper;
use super::traffic::{Ask, Requests, Route, Trace, World};
use crate::draw::Draw;
use crate::trace::SECOND;

const MILLI: u64 = 1_000_000;

/// When the window opens. Later than any store's clock, since an account that expires in the past would be gone.
pub const START: Timestamp = Timestamp::from_secs(4_000_000_000);

/// `refresh`, as it is by default.
const LEAST: u64 = SECOND;
const MOST: u64 = 10 * SECOND;

/// How often a worker looks what is due, and how long the store takes.
const TICK: u64 = 50 * MILLI;
const LATENCY: u64 = MILLI;

/// A request is sent three times at most.
const TRIES: u8 = 3;

/// No line is due.
const NEVER: u64 = u64::MAX;

/// The window of all budgets: longer than the simulation, so that its end has no part in it.
pub fn window() -> Window {
    Window {
        start: START,
        end: at(86_400 * SECOND),
    }
}

/// What one proxy has of one tenant's budget.
struct Pair {
    tenant: u32,
    grant: Grant,
    spent: u64,
    held: u64,
    holds: u32,
    /// When the worker looks at it; [`NEVER`]: not.
    due: u64,
    /// Requests that wait for the first slice.
    parked: Vec<Sent>,
    /// The ten seconds in which it last had a request.
    epoch: u64,
}

impl Pair {
    fn used(&self) -> u64 {
        self.spent + self.held
    }

    /// When a line is due if nothing happens until then, as `SharedBudget::due` has it.
    fn next(&self, terms: &Terms, now: u64) -> u64 {
        let due = self.grant.due(self.used(), terms, at(now));
        match due {
            Some(due) => due.as_nanos().saturating_sub(START.as_nanos()),
            None if self.holds > 0 => now + MOST,
            None => NEVER,
        }
    }
}

/// A request on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sent {
    pair: u32,
    used: u64,
    reserved: u64,
    takes: u64,
    first: u64,
    tries: u8,
    /// Whether more than a hundredth of the budget was left when it first came.
    early: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// The next request of a proxy.
    Next(u32),
    Again(Sent),
    Settle {
        pair: u32,
        held: u64,
        used: u64,
    },
    Tick(u32),
    /// Of a call.
    Answers(u32),
}

/// The answers under way: the pair, the line's number, the answer.
type Answers = Vec<(u32, u64, Answer)>;

struct Play<'a> {
    world: World,
    keeper: Keeper,
    budgets: Vec<u64>,
    /// What all proxies have spent and hold, by tenant.
    used: Vec<u64>,
    pairs: Vec<Pair>,
    requests: Vec<Requests<'a>>,
    /// The request that comes next, by proxy.
    coming: Vec<(Ask, u32)>,
    /// When each proxy looks again; [`NEVER`]: not as yet.
    ticks: Vec<u64>,
    calls: Vec<Option<Answers>>,
    spare: Vec<u32>,
    events: BinaryHeap<Reverse<(u64, u64, What)>>,
    number: u64,
    draw: Draw,
    figures: Figures,
}

/// A window of this world, and what came of it. `passed` gets each tenth of it that is over.
pub fn play(
    world: World,
    trace: &Trace,
    routes: &[Route],
    keeper: Keeper,
    passed: impl Fn(u64),
) -> Figures {
    let budgets = world.budgets(trace, routes);
    let pairs = routes.iter().zip(1..).map(|(route, number)| Pair {
        tenant: route.tenant,
        grant: Grant::new(Holder(number)),
        spent: 0,
        held: 0,
        holds: 0,
        due: NEVER,
        parked: Vec::new(),
        epoch: u64::MAX,
    });
    let proxies = world.proxies as usize;
    let requests = (0..world.proxies).map(|proxy| world.requests(proxy, trace, routes));
    let mut play = Play {
        used: vec![0; budgets.len()],
        figures: Figures::new(&world, &budgets),
        pairs: pairs.collect(),
        requests: requests.collect(),
        coming: Vec::with_capacity(proxies),
        ticks: vec![NEVER; proxies],
        calls: Vec::new(),
        spare: Vec::new(),
        events: BinaryHeap::new(),
        number: 0,
        draw: Draw::new(3),
        world,
        keeper,
        budgets,
    };
    for proxy in 0..world.proxies {
        play.coming.push((
            Ask {
                used: 0,
                reserved: 0,
                takes: 0,
            },
            0,
        ));
        play.draw_next(proxy);
    }
    play.run(passed)
}

fn at(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(START.as_nanos() + nanos)
}

impl Play<'_> {
    fn run(mut self, passed: impl Fn(u64)) -> Figures {
        let end = self.world.seconds * SECOND;
        let mut tenth = 0;
        while let Some(Reverse((now, _, what))) = self.events.pop() {
            // What was asked within the window is settled, and its refused requests are sent again, after it as well.
            while now * 10 / end > tenth && tenth < 10 {
                tenth += 1;
                passed(tenth);
            }
            if now < end {
                self.figures.passed(now, &self.used);
            }
            match what {
                What::Next(proxy) => self.came(proxy, now),
                What::Again(sent) => self.attempt(sent, now),
                What::Settle { pair, held, used } => self.settle(pair, held, used),
                What::Tick(proxy) if now < end => self.tick(proxy, now),
                What::Tick(_) => {}
                What::Answers(call) => self.hear(call, now),
            }
        }
        let spent: u64 = self.pairs.iter().map(|pair| pair.spent).sum();
        let spent_by = |tenant: usize| self.used[tenant];
        self.figures
            .end(spent, spent_by, &self.budgets, &self.keeper);
        self.figures
    }

    fn push(&mut self, at: u64, what: What) {
        self.number += 1;
        self.events.push(Reverse((at, self.number, what)));
    }

    /// Draws the next request of a proxy; none after the window.
    fn draw_next(&mut self, proxy: u32) {
        let Some((at, ask, place)) = self.requests[proxy as usize].next() else {
            return;
        };
        if at < self.world.seconds * SECOND {
            let pair = proxy * self.world.places() as u32 + place as u32;
            self.coming[proxy as usize] = (ask, pair);
            self.push(at, What::Next(proxy));
        }
    }

    fn terms(&self, tenant: u32) -> Terms {
        Terms {
            budget: self.budgets[tenant as usize],
            window: window(),
            least: LEAST,
            most: MOST,
            reclaim: None,
            unreachable: Unreachable::Deny,
            cold: Cold::Deny,
        }
    }

    /// Whether more than a hundredth of the budget is left, in the store and in slices.
    fn is_early(&self, tenant: u32) -> bool {
        let budget = self.budgets[tenant as usize];
        budget.saturating_sub(self.used[tenant as usize]) > budget / 100
    }

    fn phase(&self, tenant: u32) -> Phase {
        let (budget, used) = (self.budgets[tenant as usize], self.used[tenant as usize]);
        if used < budget / 2 {
            Phase::Far
        } else if self.is_early(tenant) {
            Phase::Near
        } else {
            Phase::Spent
        }
    }

    fn came(&mut self, proxy: u32, now: u64) {
        let (ask, pair) = self.coming[proxy as usize];
        let tenant = self.pairs[pair as usize].tenant;
        let early = self.is_early(tenant);
        let epoch = now / (10 * SECOND);
        let phase = self.phase(tenant);
        let own = &mut self.pairs[pair as usize];
        if std::mem::replace(&mut own.epoch, epoch) != epoch {
            self.figures.active(phase);
        }
        self.draw_next(proxy);
        let sent = Sent {
            pair,
            used: ask.used,
            reserved: ask.reserved,
            takes: ask.takes,
            first: now,
            tries: 0,
            early,
        };
        self.attempt(sent, now);
    }

    /// A request is admitted, parked or refused.
    fn attempt(&mut self, mut sent: Sent, now: u64) {
        let pair = &self.pairs[sent.pair as usize];
        let terms = self.terms(pair.tenant);
        let cost = sent.reserved;
        if cost > terms.budget {
            self.figures.came(Asked::TooLarge, sent.first, sent.early);
            return;
        }
        let checked = pair.grant.check(pair.used(), cost, &terms, at(now));
        let tenant = pair.tenant as usize;
        let pair = &mut self.pairs[sent.pair as usize];
        match checked {
            Ok(()) => {
                pair.grant = pair.grant.grew(0, cost);
                pair.held += cost;
                pair.holds += 1;
                self.used[tenant] += cost;
                self.watch(sent.pair, &terms, now);
                let Sent {
                    pair, used, takes, ..
                } = sent;
                let settle = What::Settle {
                    pair,
                    held: cost,
                    used,
                };
                self.push(now + takes, settle);
                let fate = if sent.tries == 0 {
                    Fate::Served
                } else {
                    Fate::ServedLater
                };
                self.figures
                    .came(Asked::Became(fate), sent.first, sent.early);
            }
            Err(NoRoom::Cold) => {
                pair.grant = pair.grant.lacked(cost);
                pair.parked.push(sent);
                self.watch(sent.pair, &terms, now);
            }
            Err(reason) => {
                pair.grant = pair.grant.lacked(cost);
                self.watch(sent.pair, &terms, now);
                let left = self.is_early(tenant as u32);
                sent.tries += 1;
                if reason == NoRoom::Spent || sent.tries == TRIES {
                    let fate = if left {
                        Fate::RefusedWithRoom
                    } else {
                        Fate::RefusedSpent
                    };
                    self.figures
                        .came(Asked::Became(fate), sent.first, sent.early);
                } else {
                    let wait = 200 * MILLI + self.draw.below(100 * MILLI);
                    self.push(now + wait, What::Again(sent));
                }
            }
        }
    }

    fn settle(&mut self, pair: u32, held: u64, used: u64) {
        let pair = &mut self.pairs[pair as usize];
        pair.held -= held;
        pair.holds -= 1;
        pair.spent += used;
        let all = &mut self.used[pair.tenant as usize];
        *all = *all - held + used;
    }

    /// The worker looks at a pair no later than when its next line is due.
    fn watch(&mut self, pair: u32, terms: &Terms, now: u64) {
        let own = &mut self.pairs[pair as usize];
        own.due = own.due.min(own.next(terms, now));
        let due = own.due;
        self.look(pair / self.world.places() as u32, due, now);
    }

    /// The proxy has a tick at this time, if it has none before it.
    fn look(&mut self, proxy: u32, due: u64, now: u64) {
        if due == NEVER {
            return;
        }
        // Proxies do not tick at the same moments.
        let shift = u64::from(proxy) * 7_919_933 % TICK;
        let tick = (due.max(now + 1) + TICK - shift).div_ceil(TICK) * TICK + shift - TICK;
        let known = &mut self.ticks[proxy as usize];
        if tick < *known {
            *known = tick;
            self.push(tick, What::Tick(proxy));
        }
    }

    fn of(&self, proxy: u32) -> std::ops::Range<u32> {
        let places = self.world.places() as u32;
        proxy * places..(proxy + 1) * places
    }

    fn tick(&mut self, proxy: u32, now: u64) {
        if self.ticks[proxy as usize] != now {
            return;
        }
        self.ticks[proxy as usize] = NEVER;
        let mut lines: Vec<(u32, Line)> = Vec::new();
        let mut asked: Vec<u32> = Vec::new();
        for index in self.of(proxy) {
            let tenant = self.pairs[index as usize].tenant;
            let (terms, phase) = (self.terms(tenant), self.phase(tenant));
            let pair = &mut self.pairs[index as usize];
            if pair.due > now {
                continue;
            }
            if pair.grant.is_due(pair.used(), &terms, at(now)) {
                let (grant, line) = pair.grant.say(pair.used(), &terms, at(now));
                pair.grant = grant;
                lines.push((tenant, line));
                asked.push(index);
                self.figures.line(phase, now);
            }
            pair.due = pair.next(&terms, now);
        }
        if !lines.is_empty() {
            let answers = self.keeper.call(&lines, at(now).as_nanos() / MILLI);
            self.figures.calls += 1;
            let told = lines.iter().zip(asked).zip(answers);
            let told = told.map(|(((_, line), index), answer)| (index, line.seq, answer));
            let told = Some(told.collect());
            let call = match self.spare.pop() {
                Some(call) => {
                    self.calls[call as usize] = told;
                    call
                }
                None => {
                    self.calls.push(told);
                    self.calls.len() as u32 - 1
                }
            };
            self.push(now + LATENCY, What::Answers(call));
        }
        let due = self
            .of(proxy)
            .map(|index| self.pairs[index as usize].due)
            .min();
        self.look(proxy, due.unwrap_or(NEVER), now);
    }

    fn hear(&mut self, call: u32, now: u64) {
        let told = self.calls[call as usize]
            .take()
            .expect("it is answered once");
        self.spare.push(call);
        for (index, seq, answer) in told {
            let tenant = self.pairs[index as usize].tenant;
            let terms = self.terms(tenant);
            if answer.free == 0 {
                let left = terms.budget.saturating_sub(self.used[tenant as usize]);
                self.figures.empty(tenant as usize, left);
            }
            let pair = &mut self.pairs[index as usize];
            let (grant, meaning) = pair.grant.heard(seq, &answer);
            assert_eq!(meaning, Told::Counts, "no line is lost or late");
            pair.grant = grant;
            let next = pair.next(&terms, now);
            if next != NEVER {
                pair.due = next;
            }
            let due = pair.due;
            for sent in std::mem::take(&mut pair.parked) {
                self.figures.waited(now - sent.first);
                self.attempt(sent, now);
            }
            self.look(index / self.world.places() as u32, due, now);
        }
    }
}
