//! How much one proxy may spend of one account, and when it sends lines to the store. The protocol is described in [`lease`](crate::lease).

mod bytes;
mod first;

pub use bytes::BYTES;

use std::num::NonZeroU64;

use crate::base::units::{Ppm, Timestamp, share};
use crate::calendar::window::Window;
use crate::lease::line::{Answer, Holder, Line, MOST, Status};

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLI;

/// The nanoseconds after which the answer to a line is no longer waited for.
pub const CLAIM: u64 = 2 * SECOND;

/// The fewest nanoseconds from one line to the next, if a refused request makes the next one urgent.
const URGENT: u64 = 200 * MILLI;

/// The pause after the first failure, in nanoseconds.
const PAUSE: u64 = 250 * MILLI;

/// A holder's first slice is a 128th of the budget, if that is more than its requests need. If the holder dies at once, a slice of this
/// size is lost until the window ends.
const FIRST: u64 = 128;

/// The configured terms of an account, and its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What all proxies may spend together.
    pub budget: u64,
    /// The window, by this proxy's clock.
    pub window: Window,
    /// The fewest nanoseconds between two lines.
    pub least: u64,
    /// The most nanoseconds between two lines, for an account in use.
    pub most: u64,
    /// After a holder was silent for this many nanoseconds, what it did not use is free for others. `None`: only at the window's end.
    pub reclaim: Option<NonZeroU64>,
    /// What may be spent while the store does not answer, in addition to what was granted.
    pub unreachable: Unreachable,
    /// What may be spent before the store has answered for the first time.
    pub cold: Cold,
}

/// What may be spent while the store does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unreachable {
    /// What was granted, and no more.
    #[default]
    Deny,
    /// What was granted; in addition, this fraction of what the last answer reported as free, divided by the number of proxies.
    Local(Ppm),
}

/// What may be spent before the store has answered for the first time in this window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cold {
    /// Nothing.
    #[default]
    Deny,
    /// One reservation.
    Credit,
}

/// Why there is no room for a reservation in this slice now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// In this window no line was sent yet, or none was answered yet.
    Cold,
    /// The slice is too small, and the store may have more.
    Slice,
    /// The slice is too small, and by the store's last answer nothing more was free.
    Spent,
    /// The slice is too small, and the store does not answer.
    Unreachable,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The answer counts.
    Counts,
    /// The answer counts, and the store has lost its data about the account: all holders of this process should report again.
    StoreLost,
    /// The answer is not about the newest line: nothing changed.
    Late,
    /// Another sender uses this holder's name: the holder needs a new one (see [`Grant::renamed`]).
    Clash,
    /// By the store's clock the account's window is not open: the clocks differ.
    OtherWindow,
}

/// The state of one holder of one account. It consists only of numbers, so that it can be kept in a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// The name by which the store knows the holder.
    pub holder: Holder,
    /// The most that may have been spent and held from this grant in this window.
    pub granted: u64,
    /// The number of the newest line.
    pub seq: u64,
    /// When the newest line was built; the epoch if there was no line.
    pub sent: Timestamp,
    /// When the newest answered line was built; the epoch if no line of this window was answered.
    pub heard: Timestamp,
    /// What was free for all proxies, by the last answer.
    pub free: u64,
    /// When the account was opened, by the last answer; 0 if that is unknown.
    pub born: u64,
    /// The sum of reservations in a second, in the budget's unit.
    rate: u64,
    /// The largest recent reservation.
    largest: u64,
    /// The largest reservation since the newest line.
    peak: u64,
    /// The sum of the reservations since the newest line.
    taken: u64,
    /// The largest reservation, among those since the newest line, for which there was no room.
    lacked: u64,
    /// The `least` of the newest line.
    asked: u64,
    /// The number of proxies whose lines the store received recently, by the last answer.
    pub holders: u32,
    /// How many calls in a row have failed.
    pub failures: u8,
    /// How many lines in a row were granted less than their `least`.
    dry: u8,
    /// Whether the newest line waits for its answer.
    waits: bool,
}

impl Grant {
    /// A grant of nothing. The holder must be random.
    #[must_use]
    pub fn new(holder: Holder) -> Self {
        Self {
            holder,
            ..Self::default()
        }
    }

    /// The same holder's grant in another window, unit or generation: nothing is granted yet. Answers to earlier lines are ignored.
    #[must_use]
    pub fn rolled(self) -> Self {
        Self {
            granted: 0,
            heard: Timestamp::default(),
            free: 0,
            born: 0,
            holders: 0,
            asked: 0,
            dry: 0,
            waits: false,
            // The first line of a new window need not keep the pause after the old window's last line.
            sent: Timestamp::default(),
            ..self
        }
    }

    /// The same holder's grant in the generation that begins with the answer to the newest line: nothing is granted yet.
    #[must_use]
    pub fn reset(self) -> Self {
        Self {
            granted: 0,
            born: 0,
            ..self
        }
    }

    /// The same grant under a new name. What was granted to the old name stays granted to that name; what was used counts for the new name.
    #[must_use]
    pub fn renamed(self, holder: Holder, used: u64) -> Self {
        Self {
            holder,
            granted: used,
            ..self.rolled()
        }
    }

    // --- on the request path ---

    /// Whether a reservation fits.
    ///
    /// # Errors
    /// The reason, if it does not fit. The caller then stores the state that [`lacked`](Self::lacked) returns.
    pub fn check(
        &self,
        used: u64,
        reservation: u64,
        terms: &Terms,
        now: Timestamp,
    ) -> Result<(), NoRoom> {
        let after = used.saturating_add(reservation);
        if after <= self.limit(used, terms, now) {
            return Ok(());
        }
        let on_credit = terms.cold == Cold::Credit && self.is_cold() && used == 0;
        if on_credit && reservation <= terms.budget {
            return Ok(());
        }
        Err(if self.failures > 0 {
            NoRoom::Unreachable
        } else if self.is_cold() {
            NoRoom::Cold
        } else if self.free == 0 && !self.is_lapsed(terms, now) && !self.is_dated(terms.most, now) {
            NoRoom::Spent
        } else {
            NoRoom::Slice
        })
    }

    /// The state after a reservation was admitted.
    #[must_use]
    pub fn took(self, reservation: u64) -> Self {
        Self {
            taken: self.taken.saturating_add(reservation),
            peak: self.peak.max(reservation),
            ..self
        }
    }

    /// The state after a reservation has grown. `before`: its size when it was admitted.
    #[must_use]
    pub fn grew(self, before: u64, reservation: u64) -> Self {
        let more = reservation.saturating_sub(before);
        Self {
            taken: self.taken.saturating_add(more),
            peak: self.peak.max(reservation),
            ..self
        }
    }

    /// The state after there was no room for a reservation: the next line is urgent.
    #[must_use]
    pub fn lacked(self, reservation: u64) -> Self {
        Self {
            lacked: self.lacked.max(reservation),
            // The caller will retry.
            taken: self.taken.saturating_add(reservation),
            ..self
        }
    }

    /// The most that may be spent and held from this grant now.
    #[must_use]
    pub fn limit(&self, used: u64, terms: &Terms, now: Timestamp) -> u64 {
        if self.is_lapsed(terms, now) {
            return used.min(self.granted);
        }
        match terms.unreachable {
            Unreachable::Local(part) if self.failures > 0 => {
                let part = share(part.of(self.free), 1, self.holders.max(1).into());
                self.granted.saturating_add(part)
            }
            Unreachable::Local(_) | Unreachable::Deny => self.granted,
        }
    }

    /// The largest recent reservation, including those for which there was no room.
    #[must_use]
    pub fn largest(&self) -> u64 {
        let admitted = self.largest.max(self.peak);
        admitted.max(self.lacked).max(self.asked)
    }

    /// Whether the last answer is so old that more may be free for all proxies by now. A holder that gets requests has a newer answer,
    /// since it sends lines more often. `most`: the most nanoseconds between two lines.
    #[must_use]
    pub fn is_dated(&self, most: u64, now: Timestamp) -> bool {
        self.failures == 0 && elapsed(self.heard, now) > most.saturating_add(CLAIM)
    }

    /// Whether the line of this number waits for its answer.
    #[must_use]
    pub fn awaits(&self, seq: u64) -> bool {
        self.waits && self.seq == seq
    }

    /// Whether the store may already have given others what was not used here.
    fn is_lapsed(&self, terms: &Terms, now: Timestamp) -> bool {
        let Some(reclaim) = terms.reclaim else {
            return false;
        };
        // The store measures silence from the line's arrival, later than `heard`: the two clocks may differ, if they run equally fast.
        !self.is_cold() && elapsed(self.heard, now) > reclaim.get() / 2
    }

    // --- building a line ---

    /// Whether a line is due.
    #[must_use]
    pub fn is_due(&self, used: u64, terms: &Terms, now: Timestamp) -> bool {
        self.pause(used, terms, now)
            .is_some_and(|pause| elapsed(self.sent, now) >= pause)
    }

    /// When the next line is due, unless something happens before; `None` if there is nothing to report.
    #[must_use]
    pub fn due(&self, used: u64, terms: &Terms, now: Timestamp) -> Option<Timestamp> {
        self.pause(used, terms, now)
            .map(|pause| self.sent.plus_nanos(pause))
    }

    /// The nanoseconds after the newest line until the next one is due.
    fn pause(&self, used: u64, terms: &Terms, now: Timestamp) -> Option<u64> {
        let wanted = if self.lacked > 0 {
            doubled(URGENT, self.dry, terms.most)
        } else if self.taken > 0 || used > self.granted {
            self.period(used, terms, now)
        } else if self.granted > used || self.waits || self.failures > 0 {
            // The holder is idle: its last line gives back what is not held, and is repeated until it is answered.
            self.period(used, terms, now).saturating_mul(2)
        } else {
            return None;
        };
        let held_up = if self.waits {
            CLAIM
        } else if self.failures > 0 {
            doubled(PAUSE, self.failures.saturating_sub(1), terms.most)
        } else {
            0
        };
        Some(wanted.max(held_up))
    }

    /// Nanoseconds from one line to the next: half of the time in which the rest of the slice will be used.
    fn period(&self, used: u64, terms: &Terms, now: Timestamp) -> u64 {
        let rate = self.rate(terms, now).max(1);
        let unused = self.granted.saturating_sub(used);
        share(unused, SECOND / 2, rate).clamp(terms.least, terms.most.max(terms.least))
    }

    /// The sum of reservations in a second. This rate rises at once, and falls by at most half with each line.
    fn rate(&self, terms: &Terms, now: Timestamp) -> u64 {
        let time = elapsed(self.sent, now).max(terms.least).max(1);
        let lately = share(self.taken, SECOND, time);
        lately.max(self.rate / 2)
    }

    /// The next line, and the state after it. That state no longer contains what the line gives back, so the line may be sent only once
    /// the state is stored.
    #[must_use]
    pub fn say(self, used: u64, terms: &Terms, now: Timestamp) -> (Self, Line) {
        // What was used counts as granted, even if it was not.
        let granted = if self.is_lapsed(terms, now) {
            used
        } else {
            self.granted.max(used)
        };
        let unused = granted.saturating_sub(used);
        let target = self.target(used, terms, now);
        let surplus = unused.saturating_sub(target);
        let granted = if target == 0 || surplus > self.largest.max(self.peak) {
            granted.saturating_sub(surplus)
        } else {
            granted
        };
        let unused = granted.saturating_sub(used);
        let least = self.lacked.saturating_sub(unused);
        let want = target.saturating_sub(unused);
        let said = Self {
            granted,
            seq: self.seq.saturating_add(1),
            sent: now,
            rate: self.rate(terms, now),
            largest: self.peak.max(self.largest.saturating_sub(self.largest / 8)),
            peak: 0,
            taken: 0,
            lacked: 0,
            asked: least,
            failures: self.failures.saturating_add(self.waits.into()),
            waits: true,
            ..self
        };
        let line = Line {
            holder: self.holder,
            seq: said.seq,
            granted,
            used,
            want,
            least,
            budget: terms.budget.min(MOST),
            window: terms.window,
            reclaim: terms
                .reclaim
                .map_or(0, |reclaim| (reclaim.get() / MILLI).max(1)),
            born: self.born,
            relearn: terms.most.saturating_add(CLAIM).saturating_mul(2) / MILLI,
        };
        (said, line)
    }

    /// How much should be left of the slice: enough for twice the longest pause, if all holders can have as much. Where little is free, it
    /// is less, down to enough for twice the shortest pause; but at least the largest reservation, and what was lacking. If no requests
    /// come, it is nothing.
    fn target(&self, used: u64, terms: &Terms, now: Timestamp) -> u64 {
        let idle = self.taken == 0 && self.lacked == 0;
        if idle && elapsed(self.sent, now) >= self.period(used, terms, now).saturating_mul(2) {
            return 0;
        }
        let rate = self.rate(terms, now);
        let lasts = |time: u64| share(rate, time.saturating_mul(2), SECOND);
        let low = lasts(terms.least).max(self.largest).max(self.peak);
        let fair = share(
            self.free,
            1,
            u64::from(self.holders.max(1)).saturating_mul(2),
        );
        // It is not known yet how much requests will need: with this much, the first ones need not wait again.
        let first = if self.is_cold() {
            terms.budget / FIRST
        } else {
            0
        };
        fair.clamp(low, lasts(terms.most).max(low))
            .max(self.lacked)
            .max(first)
    }

    // --- after the line ---

    /// The state after the store's answer to the line of this number, and what the answer means.
    #[must_use]
    pub fn heard(self, seq: u64, answer: &Answer) -> (Self, Told) {
        if !self.awaits(seq) {
            return (self, Told::Late);
        }
        let answered = Self {
            waits: false,
            failures: 0,
            ..self
        };
        let failed = self.failed(seq);
        match answer.status {
            Status::TooEarly | Status::TooLate => (failed, Told::OtherWindow),
            // The line arrived twice: the answer to the first copy is lost, but the next line reports the state of this holder anyway.
            Status::Stale { latest } if latest == seq => (answered, Told::Counts),
            Status::Stale { .. } => (failed, Told::Clash),
            Status::Granted => {
                let lost = self.born != 0 && self.born != answer.born;
                let heard = Self {
                    granted: self.granted.saturating_add(answer.grant),
                    heard: self.sent,
                    free: answer.free,
                    born: answer.born,
                    holders: u32::try_from(answer.holders).unwrap_or(u32::MAX),
                    dry: if answer.grant < self.asked {
                        self.dry.saturating_add(1)
                    } else {
                        0
                    },
                    ..answered
                };
                (heard, if lost { Told::StoreLost } else { Told::Counts })
            }
        }
    }

    /// The state after the call with the line of this number failed. The store may have processed the line; the next line repeats it.
    #[must_use]
    pub fn failed(self, seq: u64) -> Self {
        if !self.awaits(seq) {
            return self;
        }
        Self {
            waits: false,
            failures: self.failures.saturating_add(1),
            ..self
        }
    }
}

/// The nanoseconds since `then`; `u64::MAX` if the clock was set back.
pub(super) fn elapsed(then: Timestamp, now: Timestamp) -> u64 {
    if then.is_set_back(now) {
        u64::MAX
    } else {
        now.nanos_since(then)
    }
}

/// A pause that has been doubled `times` times, up to `most`.
pub(super) fn doubled(pause: u64, times: u8, most: u64) -> u64 {
    pause
        .saturating_mul(1_u64.checked_shl(times.into()).unwrap_or(u64::MAX))
        .min(most.max(pause))
}

#[cfg(test)]
mod tests;
