//! The store's side of the protocol, as `src/lease/script.lua` has it, for the tests that cannot wait for a store's clock.
//! `tests/lease_script.rs` compares the two line by line.

use std::collections::BTreeMap;

use bursar::base::units::Timestamp;
use bursar::lease::line::{Answer, Line, MOST, Status};

const EPOCH: u64 = 10_000;
const EARLY: u64 = 10_000;
const LATE: u64 = 60_000;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) seq: u64,
    pub(crate) granted: u64,
    pub(crate) used: u64,
    pub(crate) epoch: u64,
}

/// One hash of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) total: u64,
    pub(crate) epoch: u64,
    pub(crate) present: u64,
    pub(crate) before: u64,
    pub(crate) born: u64,
    pub(crate) learning: u64,
    /// As last said, with the raise.
    pub(crate) budget: u64,
    pub(crate) entries: BTreeMap<u64, Entry>,
}

/// What an operator has changed about a limit, a hash as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) generation: u64,
    /// In the place of the budget; 0: nothing.
    pub(crate) set: u64,
    pub(crate) raise: u64,
    /// When the raise ends, in milliseconds; 0: never.
    pub(crate) until: u64,
}

/// As [`take`], of a line that is said about one generation, where an operator has made changes. `stored`: the account of the later
/// one of both generations.
pub(crate) fn take_changed(
    stored: &mut Option<Account>,
    changes: &mut Changes,
    said: u64,
    line: &Line,
    now: u64,
    drawn: &[u64],
) -> Answer {
    let is_in_force = changes.until == 0 || now < changes.until;
    let raise = if is_in_force { changes.raise } else { 0 };
    let base = if changes.set > 0 {
        changes.set
    } else {
        line.budget
    };
    let mut line = Line {
        budget: (base + raise).min(MOST),
        ..*line
    };
    if changes.generation > said {
        (line.granted, line.used, line.born) = (0, 0, 0);
    }
    let generation = changes.generation.max(said);
    let answer = take(stored, &line, now, drawn);
    match answer.status {
        Status::TooEarly | Status::TooLate => return answer,
        Status::Granted => changes.generation = generation,
        Status::Stale { .. } => {}
    }
    Answer {
        generation,
        set: changes.set,
        raise,
        ..answer
    }
}

pub(crate) fn millis(time: Timestamp) -> u64 {
    time.as_nanos() / 1_000_000
}

/// A line at a time of the store, in milliseconds. `drawn` are the holders that are looked at for what they do not use: the script
/// draws two at random.
pub(crate) fn take(stored: &mut Option<Account>, line: &Line, now: u64, drawn: &[u64]) -> Answer {
    let nothing = |status| Answer {
        status,
        grant: 0,
        total: 0,
        free: 0,
        holders: 0,
        now,
        born: 0,
        generation: 0,
        set: 0,
        raise: 0,
    };
    if now + EARLY < millis(line.window.start) {
        return nothing(Status::TooEarly);
    }
    if line.window.end != Timestamp::MAX && now > millis(line.window.end) + LATE {
        return nothing(Status::TooLate);
    }
    let fresh = Account {
        total: 0,
        epoch: 0,
        present: 0,
        before: 0,
        born: now,
        learning: 0,
        budget: 0,
        entries: BTreeMap::new(),
    };
    // In place: an account may have thousands of entries. A late line finds its own, so there is an account, which stays as it is.
    let account = stored.get_or_insert(fresh);
    let own = account.entries.get(&line.holder.0).cloned();
    if let Some(own) = own.as_ref().filter(|own| line.seq <= own.seq) {
        return Answer {
            status: Status::Stale { latest: own.seq },
            grant: 0,
            total: account.total,
            free: line.budget.saturating_sub(account.total),
            holders: account.present.max(account.before).max(1),
            now,
            born: account.born,
            generation: 0,
            set: 0,
            raise: 0,
        };
    }
    account.count(own.as_ref(), now);
    if line.born != 0 && line.born != account.born {
        account.learning = account.learning.max(account.born.min(now) + line.relearn);
    }
    let before = own.map_or(0, |own| own.granted);
    account.total = (account.total + line.granted).saturating_sub(before);
    if line.reclaim > 0 {
        account.reclaim(line, now, drawn);
    }
    let learns = now < account.learning && account.learning <= now + line.relearn;
    let free = if learns {
        0
    } else {
        line.budget.saturating_sub(account.total)
    };
    let holders = account.present.max(account.before).max(1);
    let grant = line
        .want
        .min(free)
        .min((free / (2 * holders)).max(line.least.min(free)));
    account.total += grant;
    account.budget = line.budget;
    account.entries.insert(
        line.holder.0,
        Entry {
            seq: line.seq,
            granted: line.granted + grant,
            used: line.used,
            epoch: account.epoch,
        },
    );
    Answer {
        status: Status::Granted,
        grant,
        total: account.total,
        free: free - grant,
        holders,
        now,
        born: account.born,
        generation: 0,
        set: 0,
        raise: 0,
    }
}

impl Account {
    fn count(&mut self, own: Option<&Entry>, now: u64) {
        let epoch = now / EPOCH;
        if epoch > self.epoch {
            self.before = if epoch == self.epoch + 1 {
                self.present
            } else {
                0
            };
            self.epoch = epoch;
            self.present = 0;
        }
        if own.is_none_or(|own| own.epoch < self.epoch) {
            self.present += 1;
        }
    }

    /// Whether a holder has been silent for so long that others may have what it does not use.
    pub(crate) fn is_silent(&self, holder: u64, reclaim: u64, now: u64) -> bool {
        self.entries
            .get(&holder)
            .is_some_and(|entry| (entry.epoch + 1) * EPOCH + reclaim < now)
    }

    fn reclaim(&mut self, line: &Line, now: u64, drawn: &[u64]) {
        for &holder in drawn {
            if holder == line.holder.0 || !self.is_silent(holder, line.reclaim, now) {
                continue;
            }
            let Some(entry) = self.entries.get_mut(&holder) else {
                continue;
            };
            let unused = entry.granted.saturating_sub(entry.used);
            entry.granted -= unused;
            self.total = self.total.saturating_sub(unused);
        }
    }
}
