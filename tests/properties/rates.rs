//! One token bucket across proxies: what all of them let through in any span, whatever is lost, late or doubled, whoever crashes,
//! however often shares change hands.

use std::num::NonZeroU64;

use bursar::base::units::{Ppm, Timestamp};
use bursar::lease::grant::Unreachable;
use bursar::lease::line::Holder;
use bursar::lease::quota::{Part, Quota, WHOLE};
use bursar::lease::rate::{RateAnswer, RateLine};
use bursar::lease::share::{FirstRequest, Share};
use bursar::limits::bucket::Bucket;
use bursar::plan::Limits;
use bursar::state::record::Record;
use bursar::state::shared_buckets::{each_shared_bucket, join};
use proptest::prelude::*;

use crate::pool::{self, Pool};

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLI;
const PROXIES: usize = 4;
const START: u64 = 1_700_000_005_000;

/// What may happen.
#[derive(Clone, Debug)]
enum Happening {
    /// A proxy is asked for so much.
    Ask(usize, u64),
    /// All that a proxy has is asked of it.
    Drain(usize),
    /// Of what a request under way held, it used so much in percent.
    Settle(usize, usize, u64),
    /// A proxy says a line where it is due, or whether or not it is.
    Tick(usize),
    Say(usize),
    /// All that it says arrives, and it hears the answer.
    Flow(usize),
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
}

fn any_happening() -> impl Strategy<Value = Happening> {
    use Happening::{
        Answer, Arrive, Ask, Crash, Double, DoubleAnswer, Flow, GiveUp, Lose, LoseAnswer, Pass,
        Say, Settle, Tick,
    };
    let any = any::<usize>;
    prop_oneof![
        14 => (any(), 1..=70_u64).prop_map(|(proxy, cells)| Ask(proxy, cells)),
        4 => (any(), any(), 0..=100_u64).prop_map(|(proxy, at, part)| Settle(proxy, at, part)),
        6 => any().prop_map(Flow),
        4 => any().prop_map(Tick),
        2 => any().prop_map(Say),
        7 => any().prop_map(Arrive),
        1 => any().prop_map(Double),
        1 => any().prop_map(Lose),
        7 => any().prop_map(Answer),
        1 => any().prop_map(DoubleAnswer),
        1 => any().prop_map(LoseAnswer),
        1 => any().prop_map(GiveUp),
        1 => any().prop_map(Crash),
        8 => prop_oneof![4 => 0..300_u64, 3 => 300..3_000_u64, 1 => 3_000..70_000_u64].prop_map(Pass),
    ]
}

/// Where little is lost and little time passes: what is free changes hands.
fn exchanges() -> impl Strategy<Value = Vec<Happening>> {
    use Happening::{Answer, Arrive, Ask, Crash, Double, Drain, Flow, LoseAnswer, Pass, Say};
    let any = any::<usize>;
    let one = prop_oneof![
        4 => (any(), 1..=70_u64).prop_map(|(proxy, cells)| Ask(proxy, cells)),
        4 => any().prop_map(Drain),
        12 => any().prop_map(Flow),
        2 => any().prop_map(Say),
        2 => any().prop_map(Arrive),
        1 => any().prop_map(Double),
        2 => any().prop_map(Answer),
        1 => any().prop_map(LoseAnswer),
        1 => any().prop_map(Crash),
        8 => prop_oneof![0..1_000_u64, 5_000..12_000_u64].prop_map(Pass),
    ];
    prop::collection::vec(one, 1..200)
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    prop::collection::vec(any_happening(), 1..250)
}

/// Cells a minute, and how many it holds.
fn any_quota() -> impl Strategy<Value = (u64, u64)> {
    let rate = prop_oneof![1..20_u64, 20..2_000_u64, Just(1_000_000)];
    (rate, prop_oneof![1..20_u64, 20..200_u64])
}

/// How far each proxy's clock is from the store's, in milliseconds.
fn any_clocks() -> impl Strategy<Value = Vec<i64>> {
    prop::collection::vec(-50_000..50_000_i64, PROXIES)
}

struct Proxy {
    record: Record,
    holds: Vec<(u64, Timestamp)>,
}

struct World {
    limits: Limits,
    quota: Quota,
    now: u64,
    pool: Option<Pool>,
    proxies: Vec<Proxy>,
    clocks: Vec<i64>,
    born: u64,
    lines: Vec<RateLine>,
    answers: Vec<(RateLine, RateAnswer)>,
    passed: Passed,
}

/// What was let through, less what was given back, and the least that this was, each less what comes back at the full rate: in millionths
/// of cells.
#[derive(Default)]
struct Passed {
    cells: i128,
    least: i128,
    /// On credit.
    credit: u64,
}

impl World {
    fn new(
        (rate, burst): (u64, u64),
        clocks: Vec<i64>,
        first: FirstRequest,
        unreachable: Unreachable,
    ) -> Self {
        let whole = |number| NonZeroU64::new(number).unwrap();
        let share = Share {
            least: SECOND,
            most: 10 * SECOND,
            reclaim: None,
            unreachable,
            first,
        };
        let quota = Quota {
            tokens_per_window: whole(rate),
            window: whole(60 * SECOND),
            burst: whole(burst),
            low_water_mark: None,
            share: Some(share),
        };
        let mut world = Self {
            limits: Limits {
                bucket: Some(quota),
                ..Limits::default()
            },
            quota,
            now: START,
            pool: None,
            proxies: Vec::new(),
            clocks,
            born: 0,
            lines: Vec::new(),
            answers: Vec::new(),
            passed: Passed::default(),
        };
        for _ in 0..PROXIES {
            world.proxies.push(Proxy {
                record: Record::default(),
                holds: Vec::new(),
            });
        }
        world
    }

    /// A proxy's clock.
    fn clock(&self, at: usize) -> Timestamp {
        let millis = i64::try_from(self.now).unwrap() + self.clocks[at];
        Timestamp::from_nanos(u64::try_from(millis).unwrap() * MILLI)
    }

    /// A proxy's bucket as a request or a tick finds it: through the bytes of its record.
    fn joined(&mut self, at: usize) -> Timestamp {
        let now = self.clock(at);
        let born = &mut self.born;
        let record = &mut self.proxies[at].record;
        *record = Record::decode(&record.encode()).unwrap();
        let draw = |_| {
            *born += 1;
            Holder(*born)
        };
        record.bucket = self.quota.refilled(record.bucket, now);
        join(&self.limits, record, draw, now);
        now
    }

    /// So many cells are let through, or come back.
    fn note(&mut self, cells: i128) {
        self.passed.least = self.passed.least.min(self.passed.cells);
        self.passed.cells += cells * 1_000_000;
    }

    fn ask(&mut self, at: usize, cells: u64) {
        let now = self.joined(at);
        let Proxy { record, holds } = &mut self.proxies[at];
        let is_held = self.quota.check(record.bucket, cells, now).is_ok();
        if is_held {
            if record.bucket.part == Part::Credit {
                self.passed.credit += cells;
            }
            record.bucket = self.quota.charge(record.bucket, cells, now);
            holds.push((cells, now));
        }
        each_shared_bucket(&self.limits, record, &mut |mut shared| {
            shared.asked(cells, 0, is_held, now);
        });
        if is_held {
            self.note(cells.into());
        }
    }

    fn settle(&mut self, at: usize, which: usize, part: u64) {
        let now = self.clock(at);
        let Proxy { record, holds } = &mut self.proxies[at];
        if holds.is_empty() {
            return;
        }
        let (held, taken) = holds.swap_remove(which % holds.len());
        let used = held * part / 100;
        record.bucket = self.quota.settle(record.bucket, held, used, taken, now);
        self.note(-i128::from(held - used));
    }

    fn say(&mut self, at: usize, in_any_case: bool) {
        let now = self.joined(at);
        let record = &mut self.proxies[at].record;
        each_shared_bucket(&self.limits, record, &mut |mut shared| {
            self.lines.extend(shared.say(in_any_case, now));
        });
    }

    fn arrive(&mut self, which: usize, again: bool) {
        if self.lines.is_empty() {
            return;
        }
        let which = which % self.lines.len();
        let line = match again {
            true => self.lines[which],
            false => self.lines.swap_remove(which),
        };
        // All of them are drawn: the worst case.
        let pools = self.pool.iter();
        let all = pools.flat_map(|pool| pool.entries.keys().copied());
        let all: Vec<_> = all.collect();
        let answer = pool::take(&mut self.pool, &line, self.now, &all);
        self.answers.push((line, answer));
    }

    fn hear(&mut self, which: usize, again: bool) {
        if self.answers.is_empty() {
            return;
        }
        let which = which % self.answers.len();
        let (line, answer) = match again {
            true => self.answers[which],
            false => self.answers.swap_remove(which),
        };
        for at in 0..PROXIES {
            self.told(at, &line, Some(&answer));
        }
    }

    fn told(&mut self, at: usize, line: &RateLine, answer: Option<&RateAnswer>) {
        let now = self.joined(at);
        let record = &mut self.proxies[at].record;
        each_shared_bucket(&self.limits, record, &mut |mut shared| {
            shared.hear(
                line,
                answer,
                |_| unreachable!("nobody speaks in its name"),
                now,
            );
        });
    }

    fn give_up(&mut self, at: usize) {
        let known = self.proxies[at].record.rates.first();
        let said = known.map(|rate| (rate.holder, rate.seq));
        let waiting = self
            .lines
            .iter()
            .chain(self.answers.iter().map(|(line, _)| line));
        let line = waiting
            .filter(|line| Some((line.holder, line.seq)) == said)
            .copied()
            .next();
        if let Some(line) = line {
            self.told(at, &line, None);
        }
    }

    fn happens(&mut self, happening: &Happening) {
        match *happening {
            Happening::Ask(at, cells) => self.ask(at % PROXIES, cells),
            Happening::Drain(at) => {
                let now = self.joined(at % PROXIES);
                let bucket = self.proxies[at % PROXIES].record.bucket;
                self.ask(at % PROXIES, self.quota.available(bucket, now));
            }
            Happening::Settle(at, which, part) => self.settle(at % PROXIES, which, part),
            Happening::Tick(at) => self.say(at % PROXIES, false),
            Happening::Say(at) => self.say(at % PROXIES, true),
            Happening::Flow(at) => {
                self.say(at % PROXIES, true);
                self.arrive(self.lines.len() - 1, false);
                self.hear(self.answers.len() - 1, false);
            }
            Happening::Arrive(which) => self.arrive(which, false),
            Happening::Double(which) => self.arrive(which, true),
            Happening::Lose(which) => lose(&mut self.lines, which),
            Happening::Answer(which) => self.hear(which, false),
            Happening::DoubleAnswer(which) => self.hear(which, true),
            Happening::LoseAnswer(which) => lose(&mut self.answers, which),
            Happening::GiveUp(at) => self.give_up(at % PROXIES),
            Happening::Crash(at) => {
                self.proxies[at % PROXIES] = Proxy {
                    record: Record::default(),
                    holds: Vec::new(),
                };
            }
            Happening::Pass(millis) => {
                self.passed.least = self.passed.least.min(self.passed.cells);
                self.now += millis;
                let back = i128::from(millis * self.quota.tokens_per_window.get()) * 1_000_000;
                self.passed.cells -= back / 60_000;
            }
        }
    }

    /// In no span more than this many times what comes back and one capacity, beside what went on credit. In millionths: (of the rate, of
    /// the burst).
    fn check(&self) -> Result<(), TestCaseError> {
        let Passed {
            cells,
            least,
            credit,
        } = self.passed;
        let most = i128::from(self.quota.burst.get() + credit) * 1_000_000;
        prop_assert!(
            cells - least <= most,
            "{} of {most} millionths",
            cells - least
        );
        Ok(())
    }

    /// The sum of the shares of all who live: no more than there is.
    fn check_shares(&self) -> Result<(), TestCaseError> {
        let mut sum = 0;
        for at in 0..PROXIES {
            let now = self.clock(at);
            for rate in &self.proxies[at].record.rates {
                let share = self.quota.share.as_ref().unwrap();
                if let Part::Of(Ppm(part)) = rate.part(share, now) {
                    sum += part;
                }
            }
        }
        prop_assert!(sum <= WHOLE, "{sum}");
        Ok(())
    }
}

fn lose<T>(under_way: &mut Vec<T>, which: usize) {
    if !under_way.is_empty() {
        let which = which % under_way.len();
        under_way.swap_remove(which);
    }
}

proptest! {

    #[test]
    fn in_any_span_no_more_passes_than_one_bucket_would_let_through(
        quota in any_quota(), clocks in any_clocks(), happenings in happenings(),
    ) {
        let mut world = World::new(quota, clocks, FirstRequest::Waits, Unreachable::Deny);
        for happening in &happenings {
            world.happens(happening);
            world.check()?;
            world.check_shares()?;
        }
    }

    #[test]
    fn what_is_free_changes_hands_and_is_not_doubled(
        rate in 1..40_u64, burst in 20..200_u64, happenings in exchanges(),
    ) {
        let mut world = World::new((rate, burst), vec![0; PROXIES], FirstRequest::Waits, Unreachable::Deny);
        for happening in &happenings {
            world.happens(happening);
            world.check()?;
            world.check_shares()?;
        }
    }

    // The same without a store, at once.
    #[test]
    fn parts_that_change_hands_let_through_what_the_whole_would(
        (rate, burst) in any_quota(),
        moves in prop::collection::vec((0..4_usize, 0..4_usize, 0..=WHOLE, any::<bool>(), prop_oneof![0..5_u64, 0..40_000_u64]), 1..60),
    ) {
        let world = World::new((rate, burst), Vec::new(), FirstRequest::Waits, Unreachable::Deny);
        let quota = world.quota;
        let start = Timestamp::from_nanos(START * MILLI);
        let of = |part: u64| Part::Of(Ppm(part));
        let mut parts = [WHOLE, 0, 0, 0];
        let mut buckets = parts.map(|part| Bucket { part: of(part), ..quota.refilled(Bucket::default(), start) });
        let (mut now, mut given) = (START * MILLI, 0_u128);
        for (from, to, part, takes, gap) in moves {
            now += gap * MILLI + gap;
            let at = Timestamp::from_nanos(now);
            if from != to {
                let part = part.min(parts[from]);
                (parts[from], parts[to]) = (parts[from] - part, parts[to] + part);
                let gone;
                (buckets[from], gone) = quota.with_part(buckets[from], of(parts[from]), 0, at);
                (buckets[to], _) = quota.with_part(buckets[to], of(parts[to]), gone, at);
            }
            if takes {
                let cells = quota.available(buckets[to], at);
                buckets[to] = quota.charge(buckets[to], cells, at);
                given += u128::from(cells);
            }
            let back = u128::from(now - START * MILLI) * u128::from(rate) / u128::from(60 * SECOND);
            prop_assert!(given <= u128::from(burst) + back, "{given} of {burst} and {back}");
        }
    }

    #[test]
    fn credit_costs_one_request_of_each_fresh_process(
        quota in any_quota(), clocks in any_clocks(), happenings in happenings(),
    ) {
        let mut world = World::new(quota, clocks, FirstRequest::OnCredit, Unreachable::Deny);
        for happening in &happenings {
            world.happens(happening);
            world.check()?;
        }
    }
}
