//! What is counted while a window is played.

use super::keeper::{Keeper, Taken, granted};
use super::traffic::World;
use crate::picture::BARS;
use crate::trace::SECOND;

/// How far the end of a tenant's budget is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// More than half is left.
    Far,
    Near,
    /// No more than a hundredth is left.
    Spent,
}

/// What became of a request in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Served,
    /// After it was refused once or twice.
    ServedLater,
    /// More than a hundredth of the budget was left when it was refused for the last time.
    RefusedWithRoom,
    RefusedSpent,
}

pub const FATES: usize = 4;

/// A request's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Became(Fate),
    /// It reserves more than the whole budget, which no protocol can cure.
    TooLarge,
}

/// What came of a window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    seconds: u64,
    pub pairs: u64,
    /// Of all tenants, in tokens.
    pub budget: u64,
    pub spent: u64,
    pub granted: u64,
    /// Requests, by fate.
    pub fates: [u64; FATES],
    pub too_large: u64,
    /// Requests that came while more than a hundredth of their budget was left; of these, refused when they first came.
    pub early: u64,
    pub early_refused: u64,
    /// What was left of budgets in slices when the store had first granted all of each, and at the end of the window.
    in_slices: u64,
    at_the_end: u64,
    /// What these budgets hold.
    of_empty: u64,
    /// By tenant: whether the store had granted all.
    is_empty: Vec<bool>,
    budgets: Vec<u64>,
    /// Most that was spent beyond a budget.
    pub over: u64,
    pub calls: u64,
    /// Lines, by phase, and seconds in which a proxy had requests of a tenant, by phase.
    pub lines: [u64; 3],
    pub active: [u64; 3],
    /// Nanoseconds that requests waited for the first slice.
    waits: Vec<u64>,
    /// By part of the window: requests by fate, lines, and what is left of the budgets at its end in millionths.
    pub bars: Vec<[u64; FATES]>,
    pub bar_lines: Vec<u64>,
    pub bar_left: Vec<u64>,
    /// By second: lines.
    per_second: Vec<u64>,
    pub taken: Option<Taken>,
}

impl Figures {
    pub fn new(world: &World, budgets: &[u64]) -> Self {
        Self {
            seconds: world.seconds,
            pairs: u64::from(world.proxies) * world.places() as u64,
            budget: budgets.iter().sum(),
            budgets: budgets.to_vec(),
            is_empty: vec![false; budgets.len()],
            bars: vec![[0; FATES]; BARS],
            bar_lines: vec![0; BARS],
            per_second: vec![0; world.seconds as usize + 1],
            ..Self::default()
        }
    }

    fn bar(&self, at: u64) -> usize {
        ((at * BARS as u64 / (self.seconds * SECOND)) as usize).min(BARS - 1)
    }

    /// It is that late: what is left at the end of the parts before.
    pub fn passed(&mut self, now: u64, used: &[u64]) {
        while self.bar_left.len() < self.bar(now) {
            self.bar_left.push(self.left(used));
        }
    }

    fn left(&self, used: &[u64]) -> u64 {
        let left = self.budgets.iter().zip(used);
        let left: u64 = left
            .map(|(budget, used)| budget.saturating_sub(*used))
            .sum();
        (u128::from(left) * 1_000_000 / u128::from(self.budget.max(1))) as u64
    }

    /// A proxy has a request of a tenant in these ten seconds, the first one.
    pub fn active(&mut self, phase: Phase) {
        self.active[phase as usize] += 10;
    }

    pub fn line(&mut self, phase: Phase, now: u64) {
        self.lines[phase as usize] += 1;
        let bar = self.bar(now);
        self.bar_lines[bar] += 1;
        if let Some(lines) = self.per_second.get_mut((now / SECOND) as usize) {
            *lines += 1;
        }
    }

    pub fn waited(&mut self, nanos: u64) {
        self.waits.push(nanos);
    }

    /// The store has granted all of a tenant's budget, of which so much is left in slices.
    pub fn empty(&mut self, tenant: usize, left: u64) {
        if !std::mem::replace(&mut self.is_empty[tenant], true) {
            self.in_slices += left;
            self.of_empty += self.budgets[tenant];
        }
    }

    /// A request that first came then has come to its end.
    pub fn came(&mut self, asked: Asked, first: u64, early: bool) {
        let Asked::Became(fate) = asked else {
            self.too_large += 1;
            return;
        };
        self.fates[fate as usize] += 1;
        let bar = self.bar(first);
        self.bars[bar][fate as usize] += 1;
        self.early += u64::from(early);
        self.early_refused += u64::from(early && fate != Fate::Served);
    }

    pub fn end(
        &mut self,
        spent: u64,
        spent_by: impl Fn(usize) -> u64,
        budgets: &[u64],
        keeper: &Keeper,
    ) {
        self.spent = spent;
        self.granted = granted(keeper);
        self.taken = keeper.taken();
        for (tenant, budget) in budgets.iter().enumerate() {
            let spent = spent_by(tenant);
            self.over = self.over.max(spent.saturating_sub(*budget));
            if self.is_empty[tenant] {
                self.at_the_end += budget.saturating_sub(spent);
            }
        }
        self.waits.sort_unstable();
        let used: Vec<u64> = (0..budgets.len()).map(spent_by).collect();
        while self.bar_left.len() < BARS {
            self.bar_left.push(self.left(&used));
        }
    }

    pub fn asked(&self) -> u64 {
        self.fates.iter().sum::<u64>() + self.too_large
    }

    pub fn all_lines(&self) -> u64 {
        self.lines.iter().sum()
    }

    /// Lines a second: the mean, and in the busiest second.
    pub fn lines_a_second(&self) -> (f64, u64) {
        let most = self.per_second.iter().max().copied().unwrap_or_default();
        (self.all_lines() as f64 / self.seconds as f64, most)
    }

    /// Lines a second of a proxy about a tenant whose requests it has, in a phase.
    pub fn of_a_pair(&self, phase: Phase) -> f64 {
        self.lines[phase as usize] as f64 / self.active[phase as usize].max(1) as f64
    }

    /// The wait for the first slice in milliseconds, of this many in a thousand requests that waited.
    pub fn wait(&self, thousandths: usize) -> f64 {
        let at = (self.waits.len() * thousandths / 1_000).min(self.waits.len().saturating_sub(1));
        self.waits.get(at).map_or(0.0, |nanos| *nanos as f64 / 1e6)
    }

    /// What was left of budgets of which the store had granted all, in percent of these: at that moment, and at the end.
    pub fn stranded(&self) -> [f64; 2] {
        let all = self.of_empty.max(1) as f64;
        [self.in_slices, self.at_the_end].map(|left| 100.0 * left as f64 / all)
    }

    pub fn seconds(&self) -> u64 {
        self.seconds
    }
}
