//! Settles a request: replaces what the request held by what it used.

use crate::admission::hold::{Spent, close};
use crate::admission::ledger::{Attempt, Ledger, Place, Writes, roll_forward};
use crate::admission::{Admission, Holdings, RESERVE_TRIES, SETTLE_TRIES};
use crate::base::units::{Cost, Timestamp, Tokens};
use crate::estimate::learn::Observation;
use crate::plan::Limits;
use crate::report::metrics;
use crate::state::record::Record;
use crate::state::store::{StateFaults, Store};

/// What a settled request has used, and what follows from that.
#[derive(Clone, Copy, Debug)]
pub struct Used<'a> {
    /// What the request cost.
    pub cost: Cost,
    /// Whether the request was sent, so that it counts on buckets of requests.
    pub is_sent: bool,
    /// What the request would have cost on each level of a [`crate::limits::pace::Burn`]; empty if no plan has pace.
    pub demand: &'a [Cost],
    /// What the estimates learn from the request.
    pub observation: Observation,
}

impl Used<'_> {
    /// The use of a request that is not sent.
    pub(crate) const NOTHING: Self = Self {
        cost: Cost::ZERO,
        is_sent: false,
        demand: &[],
        observation: Observation::NOTHING,
    };

    pub(super) fn spent(&self) -> Spent {
        Spent {
            cost: self.cost,
            is_sent: self.is_sent,
        }
    }

    /// Adds the spend to the spend rate of a plan with pace.
    pub(super) fn note_burn(&self, limits: &Limits, record: &mut Record, now: Timestamp) {
        let burn = std::mem::take(&mut record.burn);
        if let Some(pace) = limits.pace {
            record.burn = burn.plus(self.demand, pace.half_life, now);
        }
    }
}

impl<S: Store> Ledger<'_, S> {
    /// Replaces what is held for a request by what it used, and keeps the tenant's record in `admission`. Returns whether all records
    /// were written; if not, the caller tries again, for those that were not.
    ///
    /// The window is not rolled over here: a reservation knows its own window, and the configuration may have changed since.
    pub fn settle(&mut self, admission: &mut Admission, used: &Used<'_>) -> bool {
        if !admission.is_settled
            && let Some(record) = self.settle_own(admission, used)
        {
            admission.record = Some(record);
            admission.is_settled = true;
        }
        // Each record has its own step, which is made even if another one failed.
        self.settle_books(admission, used) && admission.is_settled
    }

    fn settle_own(&mut self, admission: &Admission, used: &Used<'_>) -> Option<Box<Record>> {
        let &mut Self { tenant, now, .. } = self;
        let limits = tenant.limits();
        let step = |record: &mut Record, _: bool| {
            if admission.holdings.reservation.is_none() {
                roll_forward(record, limits, now);
            }
            close(limits, record, &admission.holdings, used.spent(), now);
            record.learned.learn(admission.model, used.observation, now);
            used.note_burn(limits, record, now);
            (Writes::Yes, ())
        };
        // Only tenants that are configured, and have a budget, have a gauge.
        let left = |record: &Record| {
            (tenant.configured && !tenant.id.is_trial()).then_some(())?;
            metrics::remaining(tenant.id.name().into(), limits, record)
        };
        match self.change_publishing(&admission.place, limits, SETTLE_TRIES, step, left) {
            Attempt::Made(record, ()) => Some(record),
            // The slot belongs to another tenant by now, and what was held in it expired long ago.
            Attempt::SlotTaken => Some(Box::default()),
            Attempt::GivenUp => None,
        }
    }

    /// Replaces what a request has taken of its tier's capacity by what it used.
    pub fn settle_capacity(&mut self, admission: &Admission, used: Tokens) {
        if let Some(held) = &admission.capacity {
            let faults = held.settle(self.store, used.0, self.now);
            self.count(faults);
        }
    }

    /// Gives back all that is held for a request that is not sent. Returns the tenant's record after that; `None` if it was not written.
    pub(super) fn give_back(&mut self, admission: &mut Admission) -> Option<Box<Record>> {
        self.give_back_books(admission);
        let record = self.settle_own(admission, &Used::NOTHING);
        admission.holdings = Holdings::nothing(self.now);
        record
    }

    /// Keeps what a request holds from expiring while its answer still comes. To be called now and then.
    pub fn renew(&mut self, admission: &mut Admission) {
        let limits = self.tenant.limits();
        self.renew_at(&admission.place, limits, &mut admission.holdings);
        self.renew_books(admission);
    }

    pub(super) fn renew_at(&mut self, place: &Place, limits: &Limits, holdings: &mut Holdings) {
        let now = self.now;
        let Some(since) = holdings.since() else {
            return;
        };
        let expiry = limits.budget_expiry();
        let half_time = expiry.checked_div(2).unwrap_or_default();
        if now.since(since) < half_time {
            return;
        }
        let before = self.faults;
        let held = &*holdings;
        let attempt = self.change(place, limits, RESERVE_TRIES, |record, _| {
            roll_forward(record, limits, now);
            (Writes::Yes, held.renewed(limits, record, now))
        });
        match attempt {
            Attempt::Made(_, renewed) => holdings.renew(renewed),
            // The slot belongs to another tenant by now: nothing is held any more, and the settlement finds that out itself.
            Attempt::SlotTaken => {}
            // The renewal is tried again with a later chunk.
            Attempt::GivenUp => {
                self.faults = StateFaults {
                    given_up: before.given_up,
                    ..self.faults
                };
            }
        }
    }
}
