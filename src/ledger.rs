//! The budget: what a tenant may spend in a window, what it has spent, and what is held for requests in flight.
//!
//! A request *reserves* its cost before it leaves and *settles* once with what was really used. The
//! reservation belongs to the window in which it was made: if that window has ended by the time of the
//! settlement, nothing is charged to the next one.
//!
//! Limits are configuration and live in [`Budget`]; spend is state and lives in [`Account`]. An
//! account outlives every change of its budget.

use std::time::Duration;

use crate::units::{Cost, Micros, Ppm, Timestamp, Tokens};
use crate::window::{Period, Window};

/// What a budget counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Model tokens.
    Tokens,
    /// Millionths of a US dollar.
    UsdMicros,
}

impl Unit {
    /// The part of a cost that is counted in this unit.
    #[must_use]
    pub fn of(self, cost: Cost) -> u64 {
        match self {
            Self::Tokens => cost.tokens.0,
            Self::UsdMicros => cost.usd.0,
        }
    }
}

/// What may be spent in one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// In `unit`.
    pub initial_budget: u64,
    /// What is counted.
    pub unit: Unit,
    /// When it starts anew.
    pub period: Period,
    /// How long a reservation that nothing closes stays held (see [`Hold`]).
    pub reservation_expiry: Duration,
}

impl Budget {
    /// What neither was spent nor is held, in the budget's unit.
    #[must_use]
    pub fn remaining(&self, account: &Account) -> u64 {
        self.headroom(account, self.initial_budget)
    }

    /// What is left under `limit`, which may be the budget with an overdraft.
    #[must_use]
    pub fn headroom(&self, account: &Account, limit: u64) -> u64 {
        self.unspent(account, limit)
            .saturating_sub(self.unit.of(account.held()))
    }

    /// What would be left under `limit` if nothing were in flight.
    #[must_use]
    pub fn unspent(&self, account: &Account, limit: u64) -> u64 {
        limit.saturating_sub(self.unit.of(account.spent))
    }

    /// The budget with an overdraft on top.
    #[must_use]
    pub fn overdrawn(&self, overdraft: Ppm) -> u64 {
        self.initial_budget
            .saturating_add(overdraft.of(self.initial_budget))
    }
}

/// What was spent and what is held in the current window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The window that `spent` was spent in.
    pub window: Window,
    /// Stamp of this window of this account, so that a reservation knows whether its own is still open. Taken from the
    /// clock and not counted from zero: an account that was lost must not open its successor to old reservations.
    pub generation: u32,
    /// Settled spend.
    pub spent: Cost,
    /// Reservations in flight, those of about the same time added up. At most [`HOLDS`] of them.
    pub holds: Vec<Hold>,
    /// The tier that the budget's marks last gave on each ladder, where that is not the first. At most [`MARKED`].
    pub marked: Vec<Marked>,
}

/// Where the marks of a ladder were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marked {
    /// Which ladder.
    pub ladder: u32,
    /// Index of the tier.
    pub tier: u8,
}

/// Most ladders of which an account knows where their marks were.
pub const MARKED: usize = 8;

/// The reservations that were made within one slice of the expiry: a thirtieth of it.
///
/// Nothing closes a reservation when the VM traps, since a trap runs no `on_log`; so it expires, after the whole
/// expiry at the most and twenty-nine thirtieths of it at the least. A stream that lives longer renews its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// When the first of them was made. No two holds have the same.
    pub since: Timestamp,
    /// What they hold together.
    pub cost: Cost,
}

/// A hold on part of a budget, made for one request and closed exactly once.
///
/// There is no `Drop`: closing writes to the store, and a drop can neither wait nor fail.
#[must_use = "an unclosed reservation keeps its part of the budget held until it expires"]
#[derive(Debug, PartialEq, Eq)]
pub struct Reservation {
    generation: u32,
    /// That of its hold.
    since: Timestamp,
    cost: Cost,
}

const SLICES: u32 = 30;

/// Most holds in an account: one for each slice of the expiry, and the one that has just begun.
pub const HOLDS: usize = 31;

/// The expiry where the operator gives none: three times as long as the OpenAI SDKs wait for an answer.
pub const DEFAULT_EXPIRY: Duration = Duration::from_secs(1_800);

impl Account {
    /// The account as it is at `now` under this budget: rolled over if its window has
    /// ended, and without the holds that expired.
    ///
    /// A changed period keeps what was spent as long as the window it was spent in is open, or lies
    /// inside the new one.
    #[must_use]
    pub fn at(mut self, budget: &Budget, now: Timestamp) -> Self {
        self.advance(budget, now);
        self
    }

    /// Makes it the account as it is at `now` (see [`Account::at`]).
    pub(crate) fn advance(&mut self, budget: &Budget, now: Timestamp) {
        // Another worker may have rolled over a moment ago by a clock that it read a moment later.
        let now = if self.window.start.is_set_back(now) {
            now
        } else {
            now.max(self.window.start)
        };
        let current = budget.period.at(now);
        if self.window.is_open(now) || self.window.start >= current.start {
            self.window = current;
            self.holds
                .retain(|hold| now.since(hold.since) < budget.reservation_expiry);
            return;
        }
        *self = Self {
            window: current,
            generation: generation_after(self.generation, now),
            ..Self::default()
        };
    }

    /// The tier that the marks last gave on a ladder in this window.
    #[must_use]
    pub fn marked(&self, ladder: u32) -> usize {
        let marked = self.marked.iter().find(|marked| marked.ladder == ladder);
        marked.map_or(0, |marked| marked.tier.into())
    }

    /// Remembers it.
    pub fn mark(&mut self, ladder: u32, tier: usize) {
        self.marked.retain(|marked| marked.ladder != ladder);
        if let Some(tier) = u8::try_from(tier).ok().filter(|&tier| tier > 0) {
            self.marked.insert(0, Marked { ladder, tier });
            self.marked.truncate(MARKED);
        }
    }

    /// All that is held.
    #[must_use]
    pub fn held(&self) -> Cost {
        self.holds
            .iter()
            .fold(Cost::ZERO, |sum, hold| sum.plus(hold.cost))
    }

    /// Holds `cost` without asking. The account must be as of `now` (see [`Account::at`]).
    pub fn reserve(&mut self, cost: Cost, budget: &Budget, now: Timestamp) -> Reservation {
        let slice = budget
            .reservation_expiry
            .checked_div(SLICES)
            .unwrap_or_default();
        // Either way round: another worker may have read the clock later and written first.
        let is_near = |hold: &Hold| now.since(hold.since).max(hold.since.since(now)) < slice;
        let position = self.holds.iter().rposition(is_near).or_else(|| {
            // Only a clock that jumps about, or a shorter expiry, can fill the account with live holds: share the last.
            let full = self.holds.len() >= HOLDS;
            full.then(|| self.holds.len().saturating_sub(1))
        });
        let since = match position.and_then(|position| self.holds.get_mut(position)) {
            Some(hold) => {
                hold.cost = hold.cost.plus(cost);
                hold.since
            }
            None => {
                self.holds.push(Hold { since: now, cost });
                now
            }
        };
        Reservation {
            generation: self.generation,
            since,
            cost,
        }
    }

    /// Holds the same from `now` on, for a request that takes long. The account must be as of `now`.
    pub fn renew(
        &mut self,
        reservation: &Reservation,
        budget: &Budget,
        now: Timestamp,
    ) -> Option<Reservation> {
        let is_open = reservation.generation == self.generation;
        self.give_back(reservation);
        is_open.then(|| self.reserve(reservation.cost, budget, now))
    }

    /// Replaces the hold by what was used, which may be more, and may be nothing.
    ///
    /// Says whether `used` was counted: it is not if the reservation's window has ended.
    pub fn settle(&mut self, reservation: &Reservation, used: Cost) -> bool {
        if reservation.generation != self.generation {
            return false;
        }
        self.give_back(reservation);
        self.spent = self.spent.plus(used);
        true
    }

    /// Takes the reservation out of its hold, if that is still there.
    fn give_back(&mut self, reservation: &Reservation) {
        let is_its = |hold: &&mut Hold| hold.since == reservation.since;
        if reservation.generation == self.generation
            && let Some(hold) = self.holds.iter_mut().find(is_its)
        {
            hold.cost = hold.cost.minus(reservation.cost);
        }
        self.holds.retain(|hold| hold.cost != Cost::ZERO);
    }
}

impl Reservation {
    /// What is held.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// When its hold began.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        self.since
    }
}

/// A stamp that differs from the one before: the clock's microseconds, which come round every 71 minutes.
fn generation_after(last: u32, now: Timestamp) -> u32 {
    let micros = now.as_nanos() / 1_000 % (1 << 32);
    let stamp = u32::try_from(micros).unwrap_or_default();
    if stamp == last {
        stamp.wrapping_add(1)
    } else {
        stamp
    }
}

/// A cost in tokens alone, for budgets that know no price.
#[must_use]
pub fn tokens(tokens: u64) -> Cost {
    Cost {
        tokens: Tokens(tokens),
        usd: Micros(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const DAY: u64 = 86_400;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(20_000 * DAY + secs)
    }

    fn account(now: Timestamp) -> Account {
        Account::default().at(&budget(1_000), now)
    }

    fn budget(initial_budget: u64) -> Budget {
        Budget {
            initial_budget,
            unit: Unit::Tokens,
            period: Period::Day,
            reservation_expiry: DEFAULT_EXPIRY,
        }
    }

    fn every(period: Period) -> Budget {
        Budget {
            period,
            ..budget(1_000)
        }
    }

    // cases.md 9
    #[test]
    fn a_reservation_is_held_and_then_replaced_by_what_was_used() {
        let mut account = account(at(0));
        let reservation = account.reserve(tokens(300), &budget(1_000), at(0));
        assert_eq!(budget(1_000).remaining(&account), 700);
        assert!(account.settle(&reservation, tokens(120)));
        assert_eq!(budget(1_000).remaining(&account), 880);
        assert_eq!(account.holds, []);
    }

    // cases.md 9
    #[test]
    fn spend_beyond_the_reservation_is_counted_as_debt() {
        let mut account = account(at(0));
        let reservation = account.reserve(tokens(100), &budget(1_000), at(0));
        account.settle(&reservation, tokens(1_500));
        assert_eq!(account.spent, tokens(1_500));
        assert_eq!(budget(1_000).remaining(&account), 0);
        assert_eq!(budget(2_000).remaining(&account), 500);
    }

    // cases.md 8
    #[test]
    fn a_reservation_from_an_ended_window_charges_nothing_to_the_next() {
        let mut account = account(at(0));
        let reservation = account.reserve(tokens(300), &budget(1_000), at(DAY - 1));
        let mut account = account.at(&every(Period::Day), at(DAY));
        assert_eq!(budget(1_000).remaining(&account), 1_000);
        assert!(!account.settle(&reservation, tokens(300)));
        assert_eq!(account.spent, Cost::ZERO);
    }

    // cases.md 3, 4
    #[test]
    fn a_leaked_reservation_expires_and_a_slow_answer_does_not() {
        let mut account = account(at(30));
        let reservation = account.reserve(tokens(300), &budget(1_000), at(30));
        let later = account.clone().at(&every(Period::Day), at(30 * 60 + 29));
        assert_eq!(later.held(), tokens(300));
        let mut expired = account.at(&every(Period::Day), at(30 * 60 + 30));
        assert_eq!(expired.held(), Cost::ZERO);
        // A settlement after all is counted, and gives back nothing that is not there.
        let fresh = expired.reserve(tokens(50), &budget(1_000), at(30 * 60));
        assert!(expired.settle(&reservation, tokens(120)));
        assert_eq!((expired.spent, expired.held()), (tokens(120), tokens(50)));
        assert!(expired.settle(&fresh, tokens(50)));
    }

    // cases.md 6, 7
    #[test]
    fn changing_the_period_keeps_what_was_spent() {
        let mut day = account(at(0));
        let reservation = day.reserve(tokens(10), &budget(1_000), at(0));
        day.settle(&reservation, tokens(10));
        let month = day.clone().at(&every(Period::Month), at(3 * DAY));
        assert_eq!(month.spent, tokens(10));
        let hour = month.at(&every(Period::Hour), at(3 * DAY));
        assert_eq!(hour.spent, tokens(10));
        assert_eq!(
            hour.at(&every(Period::Hour), at(3 * DAY + 3_600)).spent,
            Cost::ZERO
        );
    }

    // cases.md 8
    #[test]
    fn a_worker_that_read_the_clock_just_before_midnight_does_not_undo_the_roll_over() {
        let mut new_day = account(at(0)).at(&every(Period::Day), at(DAY));
        let reservation = new_day.reserve(tokens(10), &budget(1_000), at(DAY));
        new_day.settle(&reservation, tokens(10));
        for before in [1, 60] {
            let seen_late = new_day.clone().at(&every(Period::Day), at(DAY - before));
            assert_eq!(seen_late, new_day);
        }
        // More than a minute is no race: the clock was set back.
        let set_back = new_day.at(&every(Period::Day), at(DAY - 61));
        assert_eq!(set_back.window, Period::Day.at(at(0)));
    }

    // cases.md 8
    #[test]
    fn a_clock_set_back_by_a_month_keeps_the_spend_and_returns_to_the_calendar() {
        let mut account = account(at(40 * DAY));
        let reservation = account.reserve(tokens(10), &budget(1_000), at(40 * DAY));
        account.settle(&reservation, tokens(10));
        let back = account.at(&every(Period::Day), at(0));
        assert_eq!(
            (back.spent, back.window),
            (tokens(10), Period::Day.at(at(0)))
        );
        assert_eq!(back.at(&every(Period::Day), at(DAY)).spent, Cost::ZERO);
    }

    #[test]
    fn reservations_of_one_slice_share_a_hold_and_each_takes_out_its_own() {
        let mut account = account(at(0));
        let first = account.reserve(tokens(1), &budget(1_000), at(0));
        let second = account.reserve(tokens(2), &budget(1_000), at(59));
        let third = account.reserve(tokens(4), &budget(1_000), at(60));
        assert_eq!(account.holds.len(), 2);
        account.settle(&first, Cost::ZERO);
        account.settle(&third, Cost::ZERO);
        assert_eq!(account.held(), tokens(2));
        account.settle(&second, Cost::ZERO);
        assert_eq!(account.holds, []);
    }

    #[test]
    fn each_window_has_a_stamp_unlike_the_one_before() {
        let wrapped = Timestamp::from_nanos(((1 << 32) + 7) * 1_000);
        assert_eq!(generation_after(0, wrapped), 7);
        assert_eq!(generation_after(7, wrapped), 8);
        for micros in [0, 7, u64::from(u32::MAX), u64::from(u32::MAX) + 8] {
            let now = Timestamp::from_nanos(micros * 1_000);
            let first = generation_after(1 << 31, now);
            assert_ne!(generation_after(first, now), first);
            assert_eq!(generation_after(first.wrapping_add(9), now), first);
        }
    }

    // cases.md 4
    #[test]
    fn a_renewed_reservation_lives_on() {
        let mut account = account(at(0));
        let first = account.reserve(tokens(5), &budget(1_000), at(0));
        let renewed = account.renew(&first, &budget(1_000), at(900)).unwrap();
        let mut late = account.at(&budget(1_000), at(2_000));
        assert_eq!(late.held(), tokens(5));
        late.settle(&renewed, tokens(3));
        assert_eq!((late.held(), late.spent), (Cost::ZERO, tokens(3)));
    }

    #[test]
    fn a_reservation_of_an_ended_window_is_not_renewed_into_the_next() {
        let mut account = account(at(0));
        let first = account.reserve(tokens(5), &budget(1_000), at(0));
        let mut next = account.at(&budget(1_000), at(DAY));
        assert_eq!(next.renew(&first, &budget(1_000), at(DAY)), None);
        assert_eq!(next.held(), Cost::ZERO);
    }

    #[test]
    fn holds_stay_bounded_whatever_the_clock_does() {
        let mut account = account(at(0));
        for minute in 0..100 {
            let reservation = account.reserve(tokens(1), &budget(1_000), at(60 * minute));
            assert_eq!(reservation.cost(), tokens(1));
        }
        assert_eq!(account.holds.len(), HOLDS);
        assert_eq!(account.held(), tokens(100));
    }
}
