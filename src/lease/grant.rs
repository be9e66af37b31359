//! What one proxy may spend of one account, and when it says what about it. The protocol and its bounds: [`lease`](crate::lease).

mod bytes;

pub use bytes::BYTES;

use std::num::NonZeroU64;

use crate::base::units::{Ppm, Timestamp, share};
use crate::calendar::window::Window;
use crate::lease::line::{Answer, Holder, Line, MOST, Status};

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLI;

/// A line that has no answer after so many nanoseconds will not be waited for.
pub const CLAIM: u64 = 2 * SECOND;

/// Between a line and the next one that a refused request asks for.
const URGENT: u64 = 200 * MILLI;

/// The first pause after a failure.
const PAUSE: u64 = 250 * MILLI;

/// A holder's first slice is a 128th of the budget, if that is more than it was asked for: where a holder is gone at once, so much is
/// lost until the window ends.
const FIRST: u64 = 128;

/// What the configuration says about an account, and which window it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What all proxies may spend together.
    pub budget: u64,
    /// The window, by this proxy's clock.
    pub window: Window,
    /// Nanoseconds between two lines, at the least.
    pub least: u64,
    /// And at the most, for an account in use.
    pub most: u64,
    /// After so many nanoseconds of silence others may have what a holder did not use. `None`: not before the window's end.
    pub reclaim: Option<NonZeroU64>,
    /// What may be spent while the store does not answer, beside what was granted.
    pub unreachable: Unreachable,
    /// What may be spent before it has answered for the first time.
    pub cold: Cold,
}

/// While the store does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unreachable {
    /// What was granted, and no more.
    #[default]
    Deny,
    /// Beside it this fraction of what was free as last told, divided among all proxies.
    Local(Ppm),
}

/// Before the store has answered for the first time in this window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cold {
    /// Nothing.
    #[default]
    Deny,
    /// One reservation.
    Credit,
}

/// Why there is no room for a reservation here and now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// The store has not been asked yet, or has not answered yet.
    Cold,
    /// What is here is too little, and there may be more.
    Slice,
    /// What is here is too little, and no more is to be had, as last told.
    Spent,
    /// What is here is too little, and the store does not answer.
    Unreachable,
}

/// What an answer meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It counts.
    Counts,
    /// It counts, and the store has lost what it knew of the account: every holder of this process should say anew what it holds.
    StoreLost,
    /// It is not about the newest line: nothing changed.
    Late,
    /// Somebody else speaks in this holder's name: it needs a new one (see [`Grant::renamed`]).
    Clash,
    /// By the store's clock this is not the account's window: the clocks differ.
    OtherWindow,
}

/// The state of one holder of one account. All of it is numbers, so that it can be kept in a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Who it is for the store.
    pub holder: Holder,
    /// The most that may have been spent and held here in this window.
    pub granted: u64,
    /// The number of the newest line.
    pub seq: u64,
    /// When it was said; the epoch if none was.
    pub sent: Timestamp,
    /// When the newest of those lines was said that have an answer; the epoch if none has in this window.
    pub heard: Timestamp,
    /// What was free for all, as last told.
    pub free: u64,
    /// When the account was opened, as last told; 0 if that is not known.
    pub born: u64,
    /// Reservations a second, in cells.
    rate: u64,
    /// The largest reservation lately.
    largest: u64,
    /// The largest one since the newest line.
    peak: u64,
    /// The sum of those since the newest line.
    taken: u64,
    /// The largest one since then for which there was no room.
    lacked: u64,
    /// What the newest line could not do with less of.
    asked: u64,
    /// Proxies that were heard lately, as last told.
    pub holders: u32,
    /// Calls in a row that failed.
    pub failures: u8,
    /// Lines in a row that were not granted the least that they asked for.
    dry: u8,
    /// Whether the newest line waits for its answer.
    waits: bool,
}

impl Grant {
    /// One that holds nothing. The holder is to be random.
    #[must_use]
    pub fn new(holder: Holder) -> Self {
        Self {
            holder,
            ..Self::default()
        }
    }

    /// The same for another window, unit or generation: nothing of it is granted. Answers that are under way do not count any more.
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
            // A new window's first line need not wait for the old one's pace.
            sent: Timestamp::default(),
            ..self
        }
    }

    /// The same for the generation that begins with the answer to the newest line: nothing of it is granted yet.
    #[must_use]
    pub fn reset(self) -> Self {
        Self {
            granted: 0,
            born: 0,
            ..self
        }
    }

    /// The same under another name: what the old one held stays its, what was used goes with it.
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
    /// With the reason, if not. Then [`lacked`](Self::lacked) belongs into the state.
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

    /// With a reservation that was admitted.
    #[must_use]
    pub fn took(self, reservation: u64) -> Self {
        Self {
            taken: self.taken.saturating_add(reservation),
            peak: self.peak.max(reservation),
            ..self
        }
    }

    /// With a reservation of which so much had been admitted before.
    #[must_use]
    pub fn grew(self, before: u64, reservation: u64) -> Self {
        let more = reservation.saturating_sub(before);
        Self {
            taken: self.taken.saturating_add(more),
            peak: self.peak.max(reservation),
            ..self
        }
    }

    /// With a reservation for which there was no room: the next line is urgent.
    #[must_use]
    pub fn lacked(self, reservation: u64) -> Self {
        Self {
            lacked: self.lacked.max(reservation),
            // They will come back.
            taken: self.taken.saturating_add(reservation),
            ..self
        }
    }

    /// The most that may be spent and held here now.
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

    /// The largest reservation lately, also of those for which there was no room.
    #[must_use]
    pub fn largest(&self) -> u64 {
        let admitted = self.largest.max(self.peak);
        admitted.max(self.lacked).max(self.asked)
    }

    /// Whether the store has said nothing about this window yet.
    #[must_use]
    pub fn is_cold(&self) -> bool {
        self.heard == Timestamp::default()
    }

    /// Whether it was told so long ago what is free for all that there may be more by now: of a holder that is asked, the store hears
    /// more often. `most`: between two lines.
    #[must_use]
    pub fn is_dated(&self, most: u64, now: Timestamp) -> bool {
        self.failures == 0 && elapsed(self.heard, now) > most.saturating_add(CLAIM)
    }

    /// Whether this is the number of the line that waits for its answer.
    #[must_use]
    pub fn awaits(&self, seq: u64) -> bool {
        self.waits && self.seq == seq
    }

    /// Whether the store may already have given to others what was not used here.
    fn is_lapsed(&self, terms: &Terms, now: Timestamp) -> bool {
        let Some(reclaim) = terms.reclaim else {
            return false;
        };
        // The store counts from when it took the line, which was later: the clocks need not agree, if they run.
        !self.is_cold() && elapsed(self.heard, now) > reclaim.get() / 2
    }

    // --- saying a line ---

    /// Whether a line is due.
    #[must_use]
    pub fn is_due(&self, used: u64, terms: &Terms, now: Timestamp) -> bool {
        self.pause(used, terms, now)
            .is_some_and(|pause| elapsed(self.sent, now) >= pause)
    }

    /// When the next line is due, if nothing happens until then; `None` if there is nothing to say.
    #[must_use]
    pub fn due(&self, used: u64, terms: &Terms, now: Timestamp) -> Option<Timestamp> {
        self.pause(used, terms, now)
            .map(|pause| self.sent.plus_nanos(pause))
    }

    /// How long after the newest line the next one is due.
    fn pause(&self, used: u64, terms: &Terms, now: Timestamp) -> Option<u64> {
        let wanted = if self.lacked > 0 {
            doubled(URGENT, self.dry, terms.most)
        } else if self.taken > 0 || used > self.granted {
            self.period(used, terms, now)
        } else if self.granted > used || self.waits || self.failures > 0 {
            // Idle: the last line gives back what is not held, and is said again until it was heard.
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

    /// Between two lines: a half of the time in which what is left here will be used.
    fn period(&self, used: u64, terms: &Terms, now: Timestamp) -> u64 {
        let rate = self.rate(terms, now).max(1);
        let unused = self.granted.saturating_sub(used);
        share(unused, SECOND / 2, rate).clamp(terms.least, terms.most.max(terms.least))
    }

    /// Reservations a second: up at once, down by halves.
    fn rate(&self, terms: &Terms, now: Timestamp) -> u64 {
        let time = elapsed(self.sent, now).max(terms.least).max(1);
        let lately = share(self.taken, SECOND, time);
        lately.max(self.rate / 2)
    }

    /// The next line, and the state that goes with it: what is given back is gone from the state before the line leaves, so the line
    /// may be sent only once the state is stored.
    #[must_use]
    pub fn say(self, used: u64, terms: &Terms, now: Timestamp) -> (Self, Line) {
        // What was used counts, granted or not.
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

    /// What should be here beside what is used: so much that it lasts for twice the longest pause, while all could have as much; for
    /// twice the shortest where little is free; never less than the largest reservation, or than what was lacking. Nothing where nobody asks.
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
        // Nothing is known of what will be asked for here: enough that the first requests need not wait again.
        let first = if self.is_cold() {
            terms.budget / FIRST
        } else {
            0
        };
        fair.clamp(low, lasts(terms.most).max(low))
            .max(self.lacked)
            .max(first)
    }

    // --- hearing what came of it ---

    /// With what the store said to the line of this number.
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
            // A line that came twice: the first answer is lost, and the next line says what is here all the same.
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

    /// With the call failed that had the line of this number. Whether the store took it is not known: the next line says it all anew.
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

/// The time since then; all of it if the clock was set back.
pub(super) fn elapsed(then: Timestamp, now: Timestamp) -> u64 {
    if then.is_set_back(now) {
        u64::MAX
    } else {
        now.nanos_since(then)
    }
}

/// A pause that has been doubled so often.
pub(super) fn doubled(pause: u64, times: u8, most: u64) -> u64 {
    pause
        .saturating_mul(1_u64.checked_shl(times.into()).unwrap_or(u64::MAX))
        .min(most.max(pause))
}

/// When the first slice of the next window may be asked for: a moment in the last ten seconds before it opens, another one for each
/// holder, so that a midnight brings no herd.
#[must_use]
pub fn early(holder: Holder, opens: Timestamp) -> Timestamp {
    const SPAN: u64 = 9 * SECOND;
    let lead = holder.0.checked_rem(SPAN).unwrap_or_default();
    Timestamp::from_nanos(opens.as_nanos().saturating_sub(lead))
}

#[cfg(test)]
mod tests;
