//! The store's side of a bucket that proxies share, as `src/lease/rates.lua` has it. `tests/lease_script.rs` compares the two line by line.

use std::collections::BTreeMap;

use bursar::lease::line::Status;
use bursar::lease::quota::WHOLE;
use bursar::lease::rate::{RateAnswer, RateLine};

/// Less than this is not worth going down.
const WORTH: u64 = 30_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) seq: u64,
    pub(crate) share: u64,
    pub(crate) demand: u64,
    pub(crate) heard: u64,
}

/// One hash of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pool {
    /// The sum of all shares.
    pub(crate) total: u64,
    pub(crate) asked: u64,
    pub(crate) holders: u64,
    /// What is there of what nobody has.
    pub(crate) level: u64,
    pub(crate) since: u64,
    pub(crate) born: u64,
    pub(crate) learning: u64,
    pub(crate) entries: BTreeMap<u64, Entry>,
}

impl Entry {
    fn counts(&self) -> u64 {
        u64::from(self.share > 0 || self.demand > 0)
    }
}

/// A line at a time of the store, in milliseconds. `drawn` are the holders that are looked at for their silence: the script draws two at
/// random.
pub(crate) fn take(
    stored: &mut Option<Pool>,
    line: &RateLine,
    now: u64,
    drawn: &[u64],
) -> RateAnswer {
    let mut pool = stored.clone().unwrap_or(Pool {
        total: 0,
        asked: 0,
        holders: 0,
        level: if line.born > 0 { 0 } else { WHOLE },
        since: now,
        born: now,
        learning: 0,
        entries: BTreeMap::new(),
    });
    let own = pool.entries.get(&line.holder.0).copied();
    if let Some(own) = own.filter(|own| line.seq <= own.seq) {
        return RateAnswer {
            status: Status::Stale { latest: own.seq },
            grant: 0,
            target: 0,
            level: 0,
            holders: pool.holders.max(1),
            born: pool.born,
            asked: pool.asked,
        };
    }
    let before = WHOLE.saturating_sub(pool.total);
    pool.refill(before, line.fill.max(1), now);
    let had = own.unwrap_or_default();
    let mut entry = Entry {
        seq: line.seq,
        share: line.share.min(WHOLE),
        demand: line.demand,
        heard: now,
    };
    pool.total = (pool.total + entry.share).saturating_sub(had.share);
    pool.asked = (pool.asked + entry.demand).saturating_sub(had.demand);
    pool.holders = (pool.holders + entry.counts()).saturating_sub(had.counts());
    for holder in drawn {
        pool.forget_silent(*holder, line, now);
    }
    let rest = WHOLE.saturating_sub(pool.total);
    let back = if had.seq == 0 {
        0
    } else {
        line.back.min(WHOLE)
    };
    pool.level = (pool.level + back).min(rest);
    if line.born > 0 && line.born != pool.born {
        pool.learning = pool.learning.max(pool.born.min(now) + line.relearn);
    }
    let learns = now < pool.learning && pool.learning <= now + line.relearn;
    let free = if learns { 0 } else { rest };
    let fair = match entry.demand {
        0 => 0,
        demand if pool.asked < WHOLE => demand + (WHOLE - pool.asked) / (pool.holders + 1),
        demand => demand * WHOLE / pool.asked,
    };
    let target = match fair.max(line.least.min(WHOLE)).min(WHOLE) {
        _ if pool.total > WHOLE => fair,
        target @ 1.. if target < entry.share && entry.share - target < WORTH => entry.share,
        target => target,
    };
    let grant = target.saturating_sub(entry.share).min(free);
    let level = pool.level.min(grant);
    pool.holders -= entry.counts();
    entry.share += grant;
    pool.holders += entry.counts();
    (pool.level, pool.total) = (pool.level - level, pool.total + grant);
    if rest - grant != before {
        pool.since = now;
    }
    pool.entries.insert(line.holder.0, entry);
    let answer = RateAnswer {
        status: Status::Granted,
        grant,
        target,
        level,
        holders: pool.holders.max(1),
        born: pool.born,
        asked: pool.asked,
    };
    *stored = Some(pool);
    answer
}

impl Pool {
    fn refill(&mut self, pool: u64, fill: u64, now: u64) {
        self.since = self.since.min(now);
        let back = pool * (now - self.since).min(fill) / fill;
        if self.level + back >= pool {
            (self.level, self.since) = (pool, now);
        } else if back > 0 {
            self.level += back;
            self.since += (back * fill).div_ceil(pool);
        }
    }

    /// Whether a holder has been silent for so long that its share is others'.
    pub(crate) fn is_silent(&self, holder: u64, silence: u64, now: u64) -> bool {
        self.entries
            .get(&holder)
            .is_some_and(|entry| entry.heard + silence < now)
    }

    fn forget_silent(&mut self, holder: u64, line: &RateLine, now: u64) {
        if holder == line.holder.0 || !self.is_silent(holder, line.silence, now) {
            return;
        }
        if let Some(gone) = self.entries.remove(&holder) {
            self.total = self.total.saturating_sub(gone.share);
            self.asked = self.asked.saturating_sub(gone.demand);
            self.holders = self.holders.saturating_sub(gone.counts());
        }
    }
}
