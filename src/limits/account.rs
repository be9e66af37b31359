//! The account of a budget: what was spent in a window, and what is held for requests in flight.
//!
//! A request *reserves* its cost before it is forwarded, and *settles* once with what was really used. The reservation belongs to the
//! window in which it was made: if that window has ended by the time of the settlement, the next window is charged only what was used
//! beyond the reservation.
//!
//! Two sums are held for requests in flight: the most that they may cost, which the budget's bound uses, and what they are likely to cost,
//! which low-water marks and reports use. With the first sum alone, large ceilings would make a budget look empty that is not empty.
//!
//! *Debt*: if requests use more than was held for them, and the window's budget does not cover the excess, then the excess counts as spent
//! at the start of the next window, up to one budget.
//!
//! Limits are configuration and are part of [`Budget`]; spend is state and is part of [`Account`]. An account outlives every change of its
//! budget.

use std::time::Duration;

use crate::base::units::{Cost, Timestamp};
use crate::calendar::window::{Period, Window};
use crate::lease::slice::Slice;
use crate::limits::budget::Budget;
use crate::limits::lend::{Child, ChildKey};

/// What was spent and what is held in the current window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The window to which `spent` belongs.
    pub window: Window,
    /// The stamp of this window of this account: a reservation with the same stamp belongs to this window. The stamp is taken from the
    /// clock, not counted from zero: if an account is lost, old reservations must not be valid in the account that replaces it.
    pub generation: u32,
    /// Settled spend, and the debt of the window before.
    pub spent: Cost,
    /// What requests used beyond what was held for them, as far as the budget did not cover the excess.
    pub debt: Cost,
    /// What the previous window left for this one, in the budget's unit.
    pub carried: u64,
    /// The raise that is in force, in the budget's unit. It is computed from the configuration, and is not stored.
    pub extra: u64,
    /// Reservations in flight; those that were made at about the same time are added up. At most [`HOLDS`] entries.
    pub holds: Vec<Hold>,
    /// The tier that the budget's marks last gave on each ladder, unless that is the first tier. At most [`MARKED`] entries.
    pub marked: Vec<Marked>,
    /// The part of a budget shared by proxies that may be spent here. `None` where the budget is not shared, or where no request has needed
    /// it yet.
    pub slice: Option<Box<Slice>>,
    /// Children with a guaranteed share that have sent requests or lent a part of it. At most [`CHILDREN`](crate::limits::lend::CHILDREN).
    pub children: Vec<Child>,
}

/// The tier that the low-water marks last gave on a ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marked {
    /// The key of the ladder.
    pub ladder: u32,
    /// Index of the tier.
    pub tier: u8,
}

/// The most ladders for which an account remembers the tier that their marks gave.
pub const MARKED: usize = 8;

/// The reservations that were made within one interval, which is a thirtieth of the expiry.
///
/// When the VM traps, nothing closes a reservation, since no `on_log` runs after a trap. Therefore reservations expire: at the earliest
/// after twenty-nine thirtieths of the expiry, at the latest after all of it. A stream that lives longer renews its own reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// When the first of these reservations was made. No two holds have the same time.
    pub since: Timestamp,
    /// What these reservations hold together.
    pub cost: Cost,
    /// What the requests are likely to use of that.
    pub likely: Cost,
}

/// What is to be held for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// The amount to hold, so that the budget is never exceeded.
    pub cost: Cost,
    /// What the request is likely to use of that.
    pub likely: Cost,
}

/// A reserve of which all of the cost is likely to be used.
impl From<Cost> for Reserve {
    fn from(cost: Cost) -> Self {
        Self { cost, likely: cost }
    }
}

/// A hold on part of a budget, made for one request and closed exactly once.
///
/// There is no `Drop`: closing writes to the store, and a drop can neither wait nor fail.
#[must_use = "an unclosed reservation keeps its part of the budget held until it expires"]
#[derive(Debug, PartialEq, Eq)]
pub struct Reservation {
    generation: u32,
    /// End of the window that the reservation was made in.
    end: Timestamp,
    /// When the hold began that contains this reservation.
    since: Timestamp,
    cost: Cost,
    likely: Cost,
    /// The child through which the request came, if that child has a guaranteed share.
    child: Option<ChildKey>,
}

const SLICES: u32 = 30;

/// The most holds in an account: one for each thirtieth of the expiry, and the one that has just begun.
pub const HOLDS: usize = 31;

/// The expiry where the operator configures none: three times as long as the OpenAI SDKs wait for an answer.
pub const DEFAULT_EXPIRY: Duration = Duration::from_secs(1_800);

impl Account {
    /// The account as it is at `now` under this budget: rolled over if its window has ended, and without the holds that have expired.
    ///
    /// If the budget's period was changed, what was spent is kept as long as the window in which it was spent is open, or lies inside the
    /// new window.
    #[must_use]
    pub fn at(mut self, budget: &Budget, now: Timestamp) -> Self {
        self.advance(budget, now);
        self
    }

    /// Updates the account to `now` (see [`Account::at`]).
    pub(crate) fn advance(&mut self, budget: &Budget, now: Timestamp) {
        let current = budget.period.at(self.not_before(now));
        self.advance_into(current, budget, now);
    }

    /// `now`, but not before the account's window: another worker, whose clock was read a moment later, may just have rolled the account
    /// over.
    pub(crate) fn not_before(&self, now: Timestamp) -> Timestamp {
        match self.window.start.is_set_back(now) {
            true => now,
            false => now.max(self.window.start),
        }
    }

    /// Updates the account to `now`, where the budget's window is `current`.
    pub(crate) fn advance_into(&mut self, current: Window, budget: &Budget, now: Timestamp) {
        let now = self.not_before(now);
        let raise = budget.extra.filter(|extra| now < extra.until);
        self.extra = raise.map_or(0, |extra| extra.amount);
        let is_fresh = |hold: &Hold| now.since(hold.since) < budget.reservation_expiry;
        self.holds.retain(is_fresh);
        if self.window.is_open(now) || self.window.start >= current.start {
            self.window = match budget.period {
                // The next reservation postpones the end of this window.
                Period::Idle(_) if self.window.is_open(now) => self.window,
                _ => current,
            };
            for child in &mut self.children {
                child.holds.retain(is_fresh);
            }
            return;
        }
        // A debt is spent in the next window even if no request came in it, and leaves that much less for the window after that.
        let next = budget.period.at(self.window.end);
        let current = match self.debt != Cost::ZERO && next.start == self.window.end {
            true if next.end <= current.start => {
                self.advance_into(next, budget, self.window.end);
                current
            }
            // That of an idle window begins at once, too, and not with the next request.
            true => next,
            false => current,
        };
        let (carried, spent) = match self.is_new() {
            true => (0, Cost::ZERO),
            false => budget.inheritance(self, self.window.end == current.start),
        };
        self.window = current;
        self.begin_anew(now);
        (self.carried, self.spent) = (carried, spent);
    }

    /// Starts the account anew: nothing is spent or held, and earlier reservations no longer belong to it.
    pub(crate) fn begin_anew(&mut self, now: Timestamp) {
        *self = Self {
            window: self.window,
            generation: generation_after(self.generation, now),
            extra: self.extra,
            // The slice's readers check whether it belongs to this window.
            slice: self.slice.take(),
            ..Self::default()
        };
    }

    /// Whether the account never had a window.
    fn is_new(&self) -> bool {
        self.window == Window::default()
    }

    /// Whether the account's window is open but is not one of the budget's: the budget's windows have another length, or begin at other
    /// times.
    pub(crate) fn is_of_another_period(&self, budget: &Budget, now: Timestamp) -> bool {
        let is_idle = matches!(budget.period, Period::Idle(_));
        !is_idle && self.window.is_open(now) && budget.period.at(self.window.start) != self.window
    }

    /// Whether nothing was spent on it and nothing is held.
    pub(crate) fn is_untouched(&self) -> bool {
        self.spent == Cost::ZERO && self.holds.is_empty()
    }

    /// The tier that the marks last gave on a ladder in this window.
    #[must_use]
    pub fn marked(&self, ladder: u32) -> usize {
        let marked = self.marked.iter().find(|marked| marked.ladder == ladder);
        marked.map_or(0, |marked| marked.tier.into())
    }

    /// Remembers the tier that the marks gave on a ladder.
    pub fn mark(&mut self, ladder: u32, tier: usize) {
        self.marked.retain(|marked| marked.ladder != ladder);
        if let Some(tier) = u8::try_from(tier).ok().filter(|&tier| tier > 0) {
            self.marked.insert(0, Marked { ladder, tier });
            self.marked.truncate(MARKED);
        }
    }

    /// The sum of all holds.
    #[must_use]
    pub fn held(&self) -> Cost {
        self.holds
            .iter()
            .fold(Cost::ZERO, |sum, hold| sum.plus(hold.cost))
    }

    /// What requests in flight are likely to use.
    #[must_use]
    pub fn likely_held(&self) -> Cost {
        self.holds
            .iter()
            .fold(Cost::ZERO, |sum, hold| sum.plus(hold.likely))
    }

    /// Holds a cost without a check. The account must be as of `now` (see [`Account::at`]).
    pub fn reserve(
        &mut self,
        reserve: impl Into<Reserve>,
        budget: &Budget,
        now: Timestamp,
    ) -> Reservation {
        self.reserve_for(None, reserve.into(), budget, now)
    }

    /// As [`Account::reserve`], for a child with a guaranteed share.
    #[inline(never)]
    pub fn reserve_for(
        &mut self,
        child: Option<ChildKey>,
        Reserve { cost, likely }: Reserve,
        budget: &Budget,
        now: Timestamp,
    ) -> Reservation {
        if let Period::Idle(length) = budget.period {
            self.window.end = self.window.end.max(now.plus_nanos(length.get()));
        }
        let slice = budget
            .reservation_expiry
            .checked_div(SLICES)
            .unwrap_or_default();
        // The distance counts in both directions: another worker may have read the clock later, but written earlier.
        let is_near = |hold: &Hold| now.since(hold.since).max(hold.since.since(now)) < slice;
        let position = self.holds.iter().rposition(is_near).or_else(|| {
            // Only a jumping clock or a shortened expiry can fill the account with live holds: then new reservations join the last hold.
            let full = self.holds.len() >= HOLDS;
            full.then(|| self.holds.len().saturating_sub(1))
        });
        let near = position.and_then(|position| self.holds.get(position));
        let since = near.map_or(now, |hold| hold.since);
        let hold = Hold {
            since,
            cost,
            likely,
        };
        add(&mut self.holds, hold);
        if let Some(child) = child.and_then(|child| self.child(child)) {
            add(&mut child.holds, hold);
        }
        Reservation {
            generation: self.generation,
            end: self.window.end,
            since,
            cost,
            likely,
            child,
        }
    }

    /// Replaces a reservation by one of the same amount that is made at `now`, for a request that takes long. The account must be as of
    /// `now`.
    pub fn renew(
        &mut self,
        reservation: &Reservation,
        budget: &Budget,
        now: Timestamp,
    ) -> Option<Reservation> {
        let is_open = reservation.generation == self.generation;
        self.give_back(reservation);
        is_open.then(|| self.reserve_for(reservation.child, reservation.reserve(), budget, now))
    }

    /// Replaces the hold by what was used, which may be more than was held, or nothing.
    ///
    /// Returns whether `used` was counted: it is not if the reservation's window has ended.
    pub fn settle(&mut self, reservation: &Reservation, used: Cost, now: Timestamp) -> bool {
        if reservation.generation != self.generation {
            return false;
        }
        self.give_back(reservation);
        self.spend(reservation.child, used, now);
        true
    }

    /// Counts what a request of this child used, if the child has a guaranteed share.
    #[inline(never)]
    pub(crate) fn spend(&mut self, child: Option<ChildKey>, used: Cost, now: Timestamp) {
        self.spent = self.spent.plus(used);
        let length = self.window.length();
        if let Some(child) = child.and_then(|child| self.child(child)) {
            child.spend(used, length, now);
        }
    }

    /// As [`Account::settle`], for one of several accounts of a limit with different windows. An account that does not hold the reservation
    /// still counts what was used, if the reservation was made within its window.
    ///
    /// If the reservation's window has ended, the account of the next window is charged what was used beyond the reservation, up to one
    /// budget: a debt.
    pub(crate) fn settle_any(
        &mut self,
        reservation: &Reservation,
        used: Cost,
        budget: Option<&Budget>,
        now: Timestamp,
    ) {
        let is_elsewhere = self.window.end != reservation.end;
        let is_within =
            self.window.start <= reservation.since && self.window.is_open(reservation.since);
        if self.settle(reservation, used, now) {
            let debt = budget.map(|budget| budget.over(self, used.minus(reservation.cost)));
            self.debt = self.debt.plus(debt.unwrap_or_default());
            return;
        }
        if is_elsewhere && is_within {
            self.spend(reservation.child, used, now);
        } else if let Some(budget) = budget
            && self.window.start >= reservation.end
        {
            let debt = budget.at_most_one(used.minus(reservation.cost));
            self.spend(reservation.child, debt, now);
        }
    }

    /// Takes the reservation out of its hold, if that hold still exists.
    fn give_back(&mut self, reservation: &Reservation) {
        if reservation.generation == self.generation {
            take_out(&mut self.holds, reservation);
            if let Some(child) = reservation.child.and_then(|child| self.child(child)) {
                take_out(&mut child.holds, reservation);
            }
        }
        self.holds.retain(|hold| hold.cost != Cost::ZERO);
    }
}

impl Reservation {
    /// The cost that the reservation holds.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// The cost that the reservation holds, and how much of it is likely to be used.
    fn reserve(&self) -> Reserve {
        Reserve {
            cost: self.cost,
            likely: self.likely,
        }
    }

    /// When the reservation's hold began.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        self.since
    }
}

/// Adds to the hold with the same time, or appends a new one.
#[inline(never)]
fn add(holds: &mut Vec<Hold>, new: Hold) {
    match holds.iter_mut().find(|hold| hold.since == new.since) {
        Some(hold) => {
            hold.cost = hold.cost.plus(new.cost);
            hold.likely = hold.likely.plus(new.likely);
        }
        None => holds.push(new),
    }
}

/// Takes a reservation out of its hold, if that hold still exists, and removes empty holds.
#[inline(never)]
fn take_out(holds: &mut Vec<Hold>, reservation: &Reservation) {
    let is_its = |hold: &&mut Hold| hold.since == reservation.since;
    if let Some(hold) = holds.iter_mut().find(is_its) {
        hold.cost = hold.cost.minus(reservation.cost);
        hold.likely = hold.likely.minus(reservation.likely);
    }
    holds.retain(|hold| hold.cost != Cost::ZERO);
}

/// A stamp that differs from the last one: the low 32 bits of the clock's microseconds, which repeat every 71 minutes.
fn generation_after(last: u32, now: Timestamp) -> u32 {
    let micros = now.as_nanos() / 1_000 % (1 << 32);
    let stamp = u32::try_from(micros).unwrap_or_default();
    if stamp == last {
        stamp.wrapping_add(1)
    } else {
        stamp
    }
}

#[cfg(test)]
mod tests;
