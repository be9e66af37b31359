//! One token bucket for many proxies: which share of it one proxy has, and when that proxy sends which lines to the store.
//!
//! What is leased is the *rate*: each proxy has a share of the quota, in millionths, and with it the same share of the burst; the sum of
//! all shares is never above the whole. While a share is unchanged, the proxy's own bucket is exact ([`Part`]). The protocol's rules are
//! those of [budgets](crate::lease): lines are numbered and contain absolute values, and only the holder lowers its share, first in its own
//! state. These are the differences:
//!
//! - *Free cells move with a share.* A proxy that lowers its share reports how many cells of the given-up part were free (`back`). The part
//!   that no proxy has is the store's pool, which refills at its own rate. A proxy that is given a share of the pool gets the pool's free
//!   cells with it, once. So all proxies' buckets and the pool together are one bucket, whose cells change hands and are never doubled. If
//!   a line or an answer is lost, its cells are lost.
//! - *A share ends with its holder.* A rate that is not used serves nobody: the store takes a share back after a silence of four times
//!   `most` + [`CLAIM`]; a proxy that has had no answer for half of that time no longer uses its share ([`Rate::part`]).
//! - *How much.* Each line reports this proxy's demand d; the store knows the sum of all demands, D. A proxy's target is d plus an equal
//!   part of the rate that nobody demands; one such part stays in the pool for the next proxy. If D exceeds the whole, the target is d ÷ D.
//!   The target is never less than the share that the proxy's largest request needs to fit. A share is raised to its target at once, as far
//!   as the pool has room. A proxy whose share is above its target gives the difference back when it learns of it, unless the difference is
//!   small. If the shares exceed the whole, after a loss of the store's data, all are lowered to their targets, whatever the largest
//!   requests need.
//! - *How often.* A proxy sends a line every `least` if half of the rate is demanded, else every `most`. It sends one earlier after a
//!   refusal, or after its share was lowered.

mod bytes;

use crate::base::name::LimitKey;
use crate::base::units::{Ppm, Timestamp, share, share_up};
use crate::lease::grant::{CLAIM, Told, Unreachable, doubled, elapsed};
use crate::lease::line::{Answer, Holder, MOST, Status};
use crate::lease::quota::{Part, Quota, WHOLE};
use crate::lease::share::{FirstRequest, Share};

const MILLI: u64 = 1_000_000;

/// The fewest nanoseconds from one line to the next, if the next one is urgent.
const URGENT: u64 = 200 * MILLI;

/// The pause after the first failure, in nanoseconds.
const PAUSE: u64 = 250 * MILLI;

/// Once no more requests come, a demand below this counts as 0.
const NOTHING: u64 = WHOLE / 1_000;

/// The largest demand that is reported: a thousand times the whole.
const MOST_ASKED: u64 = 1_000 * WHOLE;

/// What a proxy reports about a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLine {
    /// The sender.
    pub holder: Holder,
    /// The number of the line: each line of a holder has a greater number than the one before.
    pub seq: u64,
    /// The holder's share, in millionths of the quota, as are `demand`, `least` and `back`.
    pub share: u64,
    /// How much of the rate this proxy's requests demand.
    pub demand: u64,
    /// The smallest share into which the proxy's largest request fits.
    pub least: u64,
    /// The free cells of the part that the holder gave up, in millionths of the burst.
    pub back: u64,
    /// The milliseconds in which an empty bucket fills.
    pub fill: u64,
    /// After the holder was silent for this many milliseconds, its share is free for others.
    pub silence: u64,
    /// When the store received the bucket's first line, by the last answer; 0 if that is unknown.
    pub born: u64,
    /// The milliseconds for which no share of the bucket is given after a loss of the store's data.
    pub relearn: u64,
}

impl RateLine {
    /// The line's numbers in the order of the script's arguments, after the holder.
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

/// The store's answer to a line. It has as many numbers, in a similar order, as the answer to a line about a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateAnswer {
    /// What the store did with the line.
    pub status: Status,
    /// What the holder was given in addition to the share in its line.
    pub grant: u64,
    /// What the holder's share should be.
    pub target: u64,
    /// How much of the grant is free cells, in millionths of the burst.
    pub level: u64,
    /// The number of proxies that have a share or a demand.
    pub holders: u64,
    /// When the store received the bucket's first line.
    pub born: u64,
    /// The sum of all proxies' demands.
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
    /// The key of the bucket's limit.
    pub limit: LimitKey,
    /// The name by which the store knows the holder.
    pub holder: Holder,
    /// The share, in millionths of the quota.
    pub share: u64,
    /// The number of the newest line.
    pub seq: u64,
    /// When the newest line was built; the epoch if there was no line.
    pub sent: Timestamp,
    /// When the newest answered line was built; the epoch if no line was answered.
    pub heard: Timestamp,
    /// When the store received the bucket's first line, by the last answer.
    pub born: u64,
    /// The sum of all proxies' demands, by the last answer.
    pub asked: u64,
    /// This proxy's demand, as the newest line reported it.
    pub demand: u64,
    /// The cells that requests needed since the newest line.
    pub taken: u64,
    /// The cells of the largest request, among those since the newest line, for which there was no room.
    pub lacked: u64,
    /// The cells of the largest recent request.
    pub largest: u64,
    /// The cells of the largest request since the newest line.
    pub peak: u64,
    /// The free cells of the part that was given up since the newest line, in millionths of the burst.
    pub back: u64,
    /// The free cells that came with a share and are not in the bucket yet, in millionths of the burst.
    pub rest: u64,
    /// The number of proxies that have a share or a demand, by the last answer.
    pub holders: u32,
    /// How many calls in a row have failed.
    pub failures: u8,
    /// How many lines in a row lacked something and were given nothing.
    pub dry: u8,
    /// Whether the newest line waits for its answer.
    pub waits: bool,
    /// Whether there was no room for some request before the newest line.
    pub lacks: bool,
    /// Whether the share was lowered since the newest line.
    pub lowered: bool,
}

impl Rate {
    /// A share of nothing. The holder must be random.
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

    /// Whether the store may already have given this share to others.
    #[must_use]
    pub fn is_lapsed(&self, share: &Share, now: Timestamp) -> bool {
        // The store measures silence from the line's arrival, which is later than `heard`. So the two clocks need not agree, but only run
        // at about the same rate.
        elapsed(self.heard, now) > silence(share) / 2
    }

    /// The part of the quota that this proxy's bucket has now.
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

    /// Whether a first request should wait for a moment: this proxy has no share, and may be given one.
    #[must_use]
    pub fn awaits_first(&self, share: &Share) -> bool {
        share.first == FirstRequest::Waits && self.share == 0 && self.failures == 0
    }

    /// The largest recent request, in cells; 1 for a bucket of requests.
    #[must_use]
    pub fn largest(&self) -> u64 {
        self.largest.max(self.peak)
    }

    /// Notes a request that was admitted with `cells`, `before` of which were already noted.
    pub fn took(&mut self, before: u64, cells: u64) {
        self.taken = self.taken.saturating_add(cells.saturating_sub(before));
        self.peak = self.peak.max(cells);
    }

    /// Notes a request for whose cells there was no room.
    pub fn lacked(&mut self, cells: u64) {
        self.took(0, cells);
        self.lacked = self.lacked.max(cells);
    }

    // --- building a line ---

    /// When the next line is due, unless something happens before; `None` if there is nothing to report.
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

    /// This proxy's demand, in millionths of the rate: a moving mean over about one `most`. `debt`: cells used beyond those available.
    #[must_use]
    pub fn demand(&self, quota: &Quota, share_of: &Share, debt: u64, now: Timestamp) -> u64 {
        let lately = share_of.most.max(1);
        let time = match self.demand {
            // It is not known when the demand began.
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

    /// The next line, and the state that belongs to it, which must be stored before the line is sent. `demand`: see [`Rate::demand`].
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

    // --- after the line ---

    /// Applies the store's answer to the line of this number. Returns what the answer means.
    pub fn heard(&mut self, seq: u64, answer: &RateAnswer) -> Told {
        if !self.waits || self.seq != seq {
            return Told::Late;
        }
        match answer.status {
            Status::TooEarly | Status::TooLate => {
                self.failed(seq);
                return Told::OtherWindow;
            }
            // The line arrived twice: the answer to the first copy is lost, but the next line reports the state of this holder anyway.
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

    /// The whole cells that came with a share, for the caller to put into the bucket.
    pub fn cells(&mut self, quota: &Quota) -> u64 {
        let cells = Ppm(self.rest).of(quota.burst.get());
        let worth = share_up(cells, WHOLE, quota.burst);
        self.rest = self.rest.saturating_sub(worth);
        cells
    }

    /// Notes that the share was lowered. `cells`: how many cells of the given-up part were free.
    pub fn gives_back(&mut self, cells: u64, quota: &Quota) {
        let worth = share(cells, WHOLE, quota.burst.get());
        self.back = self.back.saturating_add(worth).min(WHOLE);
        self.lowered = true;
    }

    /// Notes that the call with the line of this number failed. It is unknown whether the store processed the line: the next line repeats
    /// all of it.
    pub fn failed(&mut self, seq: u64) {
        if self.waits && self.seq == seq {
            self.waits = false;
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// Takes a new name, with a share of nothing: the old name's share returns to the pool after a silence.
    pub fn renamed(&mut self, holder: Holder) {
        *self = Self {
            demand: self.demand,
            heard: self.heard,
            ..Self::new(self.limit, holder)
        };
    }
}

/// The nanoseconds without a line from its holder after which the store gives a share to others.
fn silence(share: &Share) -> u64 {
    share.most.saturating_add(CLAIM).saturating_mul(4)
}
