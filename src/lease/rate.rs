//! One token bucket for many proxies: what share of it one proxy has, and when it says what about it.
//!
//! What is leased is the *rate*: each proxy has a share of the quota, in millionths, and with it as much of the burst; the sum of all
//! shares is never above the whole. While a share stands, the proxy's own bucket is exact ([`Part`]). The rules are those of
//! [budgets](crate::lease): absolute lines with numbers, only the owner lowers its share, in its own state first. Where they differ:
//!
//! - *What is free goes with a share.* Who lowers its share tells how much of that had come back (`back`), and the store's pool, which is
//!   all that nobody has, refills at its own rate: whoever is given a share of it gets with it what is there, once. So between them all
//!   the proxies' buckets and the pool are one bucket, whose cells change hands and are never doubled. What a lost line or answer had of
//!   them is lost.
//! - *A share dies with its holder.* A rate that is not used is of no use to anybody: after a silence the store takes it back, four of
//!   the longest pauses; who has not been heard for half of that has none any more ([`Rate::part`]).
//! - *How much.* What is asked of this proxy, d, is told with each line; the store knows the sum of all, D. To each goes d and a part of
//!   what is left, where one more part stays in the pool for whoever comes next; d ÷ D, where D is more than there is; and never less
//!   than its largest request needs to fit. It is given at once as far as it is free; who has more than its target gives that back when
//!   it hears so, if it is worth it.
//!   Where more is held than there is, after a loss of the store's data, all go down to their targets, whatever they need.
//! - *How often.* Every `least` where half of the rate is asked for, else every `most`; and soon after a refusal, or after a share was
//!   lowered.

mod bytes;

use crate::base::name::LimitKey;
use crate::base::units::{Ppm, Timestamp, share, share_up};
use crate::lease::grant::{CLAIM, Told, Unreachable, doubled, elapsed};
use crate::lease::line::{Answer, Holder, MOST, Status};
use crate::lease::quota::{Part, Quota, WHOLE};
use crate::lease::share::{FirstRequest, Share};

const MILLI: u64 = 1_000_000;

/// Between a line and the next one that cannot wait.
const URGENT: u64 = 200 * MILLI;

/// The first pause after a failure.
const PAUSE: u64 = 250 * MILLI;

/// What is asked for less than this is nothing, once nobody asks.
const NOTHING: u64 = WHOLE / 1_000;

/// The most that is told to be asked for: a thousand times what there is.
const MOST_ASKED: u64 = 1_000 * WHOLE;

/// What a proxy says about a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLine {
    /// Who says it.
    pub holder: Holder,
    /// Counts its lines.
    pub seq: u64,
    /// The share that it has, in millionths of the quota as all that follow.
    pub share: u64,
    /// What is asked of it.
    pub demand: u64,
    /// Below this a share serves nobody.
    pub least: u64,
    /// What had come back of a share that it has no more.
    pub back: u64,
    /// The milliseconds in which an empty bucket fills.
    pub fill: u64,
    /// After so many milliseconds of silence its share is others'.
    pub silence: u64,
    /// When the bucket was first heard of, as last told; 0: nothing is known.
    pub born: u64,
    /// For so many milliseconds nothing is given of a bucket that was lost.
    pub relearn: u64,
}

impl RateLine {
    /// Its numbers in the order of the script's arguments, after the holder.
    pub(super) fn arguments(&self) -> [u64; 9] {
        [
            self.seq,
            self.share,
            self.demand,
            self.least,
            self.back,
            self.fill,
            self.silence,
            self.born,
            self.relearn,
        ]
        .map(|number| number.min(MOST))
    }
}

/// What the store says to a line. Its numbers stand where a budget's do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateAnswer {
    /// What came of the line.
    pub status: Status,
    /// What it has beside the share that the line said.
    pub grant: u64,
    /// What its share should be.
    pub target: u64,
    /// What of the grant has come back, in millionths of the burst.
    pub level: u64,
    /// Proxies that have a share, or are asked.
    pub holders: u64,
    /// When the bucket was first heard of.
    pub born: u64,
    /// What is asked of all.
    pub asked: u64,
}

impl From<&Answer> for RateAnswer {
    fn from(answer: &Answer) -> Self {
        Self {
            status: answer.status,
            grant: answer.grant,
            target: answer.total,
            level: answer.free,
            holders: answer.holders,
            born: answer.born,
            asked: answer.generation,
        }
    }
}

/// The state of one holder of a share of one bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Which bucket.
    pub limit: LimitKey,
    /// Who it is for the store.
    pub holder: Holder,
    /// The share, in millionths.
    pub share: u64,
    /// The number of the newest line.
    pub seq: u64,
    /// When it was said; the epoch if none was.
    pub sent: Timestamp,
    /// When the newest of those lines was said that have an answer; the epoch if none has.
    pub heard: Timestamp,
    /// When the bucket was first heard of, as last told.
    pub born: u64,
    /// What is asked of all, as last told.
    pub asked: u64,
    /// What was asked here, as last said.
    pub demand: u64,
    /// Cells that were asked for since the newest line.
    pub taken: u64,
    /// The most for which there was no room.
    pub lacked: u64,
    /// The largest request lately, and since the newest line.
    pub largest: u64,
    /// See `largest`.
    pub peak: u64,
    /// What had come back of what was lowered since the newest line, in millionths of the burst.
    pub back: u64,
    /// The same of what came with a share, and is less than a cell.
    pub rest: u64,
    /// Proxies that have a share, as last told.
    pub holders: u32,
    /// Calls in a row that failed.
    pub failures: u8,
    /// Lines in a row that lacked something and were given nothing.
    pub dry: u8,
    /// Whether the newest line waits for its answer.
    pub waits: bool,
    /// Whether it lacked something.
    pub lacks: bool,
    /// Whether the share was lowered since.
    pub lowered: bool,
}

impl Rate {
    /// One that has nothing. The holder is to be random.
    #[must_use]
    pub fn new(limit: LimitKey, holder: Holder) -> Self {
        Self {
            limit,
            holder,
            ..Self::default()
        }
    }

    /// Whether the store has never answered.
    #[must_use]
    pub fn is_cold(&self) -> bool {
        self.heard == Timestamp::default()
    }

    /// Whether the store may already have given its share to others.
    #[must_use]
    pub fn is_lapsed(&self, share: &Share, now: Timestamp) -> bool {
        // The store counts from when it took the line, which was later: the clocks need not agree, if they run.
        elapsed(self.heard, now) > silence(share) / 2
    }

    /// What this proxy's bucket has of the quota now.
    #[must_use]
    pub fn part(&self, share: &Share, now: Timestamp) -> Part {
        if self.is_cold() {
            return match share.first {
                FirstRequest::OnCredit => Part::Credit,
                FirstRequest::Waits | FirstRequest::Refused => Part::Of(Ppm(0)),
            };
        }
        let own = match self.is_lapsed(share, now) {
            true => 0,
            false => self.share,
        };
        let local = match share.unreachable {
            Unreachable::Local(part) if self.failures > 0 => {
                part.0.checked_div(self.holders.max(1).into())
            }
            Unreachable::Local(_) | Unreachable::Deny => None,
        };
        Part::Of(Ppm(own.max(local.unwrap_or_default()).min(WHOLE)))
    }

    /// Whether a first request is to wait for a moment: nothing is here, and more may come.
    #[must_use]
    pub fn awaits_first(&self, share: &Share) -> bool {
        share.first == FirstRequest::Waits && self.share == 0 && self.failures == 0
    }

    /// The largest request lately, in cells; where requests are counted, one.
    #[must_use]
    pub fn largest(&self) -> u64 {
        self.largest.max(self.peak)
    }

    /// With so many cells asked for by a request that was admitted, of which so many had been asked for before.
    pub fn took(&mut self, before: u64, cells: u64) {
        self.taken = self.taken.saturating_add(cells.saturating_sub(before));
        self.peak = self.peak.max(cells);
    }

    /// With so many asked for that were not there.
    pub fn lacked(&mut self, cells: u64) {
        self.took(0, cells);
        self.lacked = self.lacked.max(cells);
    }

    // --- saying a line ---

    /// When the next line is due, if nothing happens until then; `None` if there is nothing to say.
    #[must_use]
    pub fn due(&self, share: &Share) -> Option<Timestamp> {
        let is_pressed = self.asked >= WHOLE / 2;
        let pace = match is_pressed {
            true => share.least,
            false => share.most,
        };
        let wanted = if self.lowered {
            URGENT
        } else if self.lacked > 0 {
            doubled(URGENT, self.dry, pace)
        } else if self.taken > 0 || is_pressed && self.demand > 0 {
            pace
        } else if self.share > 0 || self.demand > 0 || self.waits || self.failures > 0 {
            share.most.saturating_mul(2)
        } else {
            return None;
        };
        let held_up = if self.waits {
            CLAIM
        } else if self.failures > 0 {
            doubled(PAUSE, self.failures.saturating_sub(1), share.most)
        } else {
            0
        };
        Some(self.sent.plus_nanos(wanted.max(held_up)))
    }

    /// Whether a line is due.
    #[must_use]
    pub fn is_due(&self, share: &Share, now: Timestamp) -> bool {
        self.due(share)
            .is_some_and(|due| due <= now || self.sent.is_set_back(now))
    }

    /// What is asked here, in millionths of the rate: the mean of lately. `debt`: cells that are used and not there.
    #[must_use]
    pub fn demand(&self, quota: &Quota, share_of: &Share, debt: u64, now: Timestamp) -> u64 {
        let lately = share_of.most.max(1);
        let time = match self.demand {
            // Nobody knows since when.
            0 => lately,
            _ => elapsed(self.sent, now),
        };
        let before = share(self.demand, lately.saturating_sub(time), lately);
        let cells = self.taken.saturating_add(debt);
        let worth = share(cells, quota.window.get(), quota.tokens_per_window.get());
        let now = share(worth, WHOLE, time.max(lately));
        match before.saturating_add(now) {
            0..NOTHING if cells == 0 => 0,
            demand => demand.clamp(1, MOST_ASKED),
        }
    }

    /// The next line, and the state that goes with it, which is to be stored before the line is sent. `demand`: as [`Rate::demand`] says.
    pub fn say(&mut self, quota: &Quota, share: &Share, demand: u64, now: Timestamp) -> RateLine {
        self.failures = self.failures.saturating_add(self.waits.into());
        self.largest = self.peak.max(self.largest.saturating_sub(self.largest / 8));
        let needed = match demand {
            0 => 0,
            _ => self.lacked.max(self.largest),
        };
        let line = RateLine {
            holder: self.holder,
            seq: self.seq.saturating_add(1),
            share: self.share,
            demand,
            least: share_up(needed, WHOLE, quota.burst).min(WHOLE),
            back: self.back,
            fill: (quota.fills_in() / MILLI).saturating_add(1),
            silence: silence(share) / MILLI,
            born: self.born,
            relearn: share.most.saturating_add(CLAIM).saturating_mul(2) / MILLI,
        };
        self.seq = line.seq;
        self.sent = now;
        self.demand = demand;
        self.lacks = self.lacked > 0;
        (self.taken, self.lacked, self.peak, self.back) = (0, 0, 0, 0);
        (self.lowered, self.waits) = (false, true);
        line
    }

    // --- hearing what came of it ---

    /// With what the store said to the line of this number: what that means.
    pub fn heard(&mut self, seq: u64, answer: &RateAnswer) -> Told {
        if !self.waits || self.seq != seq {
            return Told::Late;
        }
        match answer.status {
            Status::TooEarly | Status::TooLate => {
                self.failed(seq);
                return Told::OtherWindow;
            }
            // A line that came twice: the first answer is lost, and the next line says what is here all the same.
            Status::Stale { latest } if latest == seq => {
                (self.waits, self.failures) = (false, 0);
                return Told::Counts;
            }
            Status::Stale { .. } => {
                self.failed(seq);
                return Told::Clash;
            }
            Status::Granted => {}
        }
        let lost = self.born != 0 && self.born != answer.born;
        (self.waits, self.failures) = (false, 0);
        self.share = self.share.saturating_add(answer.grant).min(WHOLE);
        self.rest = self.rest.saturating_add(answer.level.min(answer.grant));
        self.heard = self.sent;
        self.born = answer.born;
        self.asked = answer.asked;
        self.holders = u32::try_from(answer.holders).unwrap_or(u32::MAX);
        self.dry = match self.lacks && answer.grant == 0 {
            true => self.dry.saturating_add(1),
            false => 0,
        };
        match lost {
            true => Told::StoreLost,
            false => Told::Counts,
        }
    }

    /// Whole cells of what came with a share, to be put into the bucket.
    pub fn cells(&mut self, quota: &Quota) -> u64 {
        let cells = Ppm(self.rest).of(quota.burst.get());
        let worth = share_up(cells, WHOLE, quota.burst);
        self.rest = self.rest.saturating_sub(worth);
        cells
    }

    /// With so many cells that had come back of a share which was lowered.
    pub fn gives_back(&mut self, cells: u64, quota: &Quota) {
        let worth = share(cells, WHOLE, quota.burst.get());
        self.back = self.back.saturating_add(worth).min(WHOLE);
        self.lowered = true;
    }

    /// With the call failed that had the line of this number. Whether the store took it is not known: the next line says it all anew.
    pub fn failed(&mut self, seq: u64) {
        if self.waits && self.seq == seq {
            self.waits = false;
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// Under another name, with nothing: what the old one had comes back after a silence.
    pub fn renamed(&mut self, holder: Holder) {
        *self = Self {
            demand: self.demand,
            heard: self.heard,
            ..Self::new(self.limit, holder)
        };
    }
}

/// After so many nanoseconds without a word the store gives a share to others.
fn silence(share: &Share) -> u64 {
    share.most.saturating_add(CLAIM).saturating_mul(4)
}
