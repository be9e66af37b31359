//! Tiers' capacities, which tenants share: taking from one and giving back, each in one compare-and-swap.
//!
//! **What is atomic.** A capacity has one key. One step checks whether it has room and takes from it, so that all
//! workers together never take more than there is. A settlement is one step, too.
//!
//! **What is not.** The tenant's record has another key, and no step changes both. The record comes first: a request is
//! charged there and then takes from the capacity. If other requests have used the capacity up since it was read, one more step
//! on the record gives back what was charged and decides again, with that tier taken as full: for the microseconds between, other
//! requests of the same tenant see a little less of its own limits than there is. Other tenants never see charges for requests that
//! were not served. A request that is refused is charged nothing, neither on the record nor on the capacity. If a VM traps between
//! the steps, or before the settlement, the capacity's bucket refills by itself, and the reservation on the record expires.

use crate::admission::Admission;
use crate::admission::ledger::Ledger;
use crate::admission::{RESERVE_TRIES, SETTLE_TRIES};
use crate::base::name::Name;
use crate::base::units::Timestamp;
use crate::limits::bucket::NotNow;
use crate::limits::capacity::{Capacity, CapacitySource, Headroom, Priority, Reserved, Taken};
use crate::limits::learned::Learned;
use crate::plan::Limits;
use crate::policy::Request;
use crate::report::metrics;
use crate::report::metrics::Metric;
use crate::state::store::{
    Contended, StateFaults, Store, Updated, Write, capacity_key, learned_key, update,
};
use crate::tier::Tier;

/// What a request has taken of its tier's capacity.
#[derive(Clone, Debug)]
pub struct CapacityHold {
    /// The tier's name and model.
    tier: Name,
    model: Name,
    capacity: Capacity,
    priority: Priority,
    /// The cells that were taken; 0 if our own state was unavailable.
    cells: u64,
    since: Timestamp,
    /// What was left for the highest priority just after the request took its part.
    left: u64,
}

/// The headroom that a request of a tenant with these limits has at each tier that it might be sent to; empty if no tier of the
/// ladder has a capacity.
pub(super) fn rooms(
    store: &impl Store,
    limits: &Limits,
    request: &Request<'_>,
    now: Timestamp,
) -> (Vec<Option<Headroom>>, StateFaults) {
    let mut faults = StateFaults::default();
    let tiers = request.place.map_or(&[][..], |place| &place.ladder.tiers);
    if tiers.iter().all(|tier| tier.capacity.is_none()) {
        return (Vec::new(), faults);
    }
    let asked = request.place.map_or(0, |place| place.asked);
    let is_near = |tier: usize| tier == asked || tier > asked && !limits.never_downgrade;
    let room = |(index, tier): (usize, &Tier)| {
        let capacity = match tier.capacity.filter(|_| is_near(index))? {
            CapacitySource::Configured(capacity) => capacity,
            CapacitySource::Upstream(reserved) => learned(store, &tier.model, reserved, now)?,
        };
        let bytes = store.get(&capacity_key(&tier.model)).ok()?;
        let (taken, corrupt) = read(bytes.as_ref().map(|(bytes, _)| bytes.as_slice()));
        faults.corrupt |= corrupt;
        Some(Headroom {
            capacity,
            taken,
            priority: limits.priority,
            refused: None,
        })
    };
    (tiers.iter().enumerate().map(room).collect(), faults)
}

/// What a request holds of a tier's capacity before it takes any; `None` if the tier has no limit.
pub(super) fn nothing_yet(
    request: &Request<'_>,
    tier: usize,
    priority: Priority,
    now: Timestamp,
) -> Option<Box<CapacityHold>> {
    let room = request.room_at(tier).map(|room| room.capacity);
    let tier = request.place?.ladder.tiers.get(tier)?;
    let capacity = match tier.capacity? {
        CapacitySource::Configured(capacity) => capacity,
        // While the upstream's limit is not known, there is no limit.
        CapacitySource::Upstream(_) => room?,
    };
    Some(Box::new(CapacityHold {
        capacity,
        tier: tier.name.clone(),
        model: tier.model.clone(),
        priority,
        cells: 0,
        since: now,
        left: 0,
    }))
}

/// The result of taking from a capacity.
pub(super) enum CapacityResult {
    /// The request's part was taken, or the tier has no limit.
    Taken,
    /// There is no room, and the request holds nothing of the capacity any more. Contains the headroom that the request found.
    Full(Headroom),
    /// Our own state is unavailable; what was taken before is still held.
    Unknown,
}

impl<S: Store> Ledger<'_, S> {
    /// Takes from the tier's capacity, if it has one. If the tenant's state was unavailable, the capacity is not checked:
    /// what the request used is charged at the settlement.
    pub(super) fn take_capacity(&mut self, admission: &mut Admission) -> CapacityResult {
        let is_known = admission.record.is_some();
        let Some(held) = admission.capacity.as_mut().filter(|_| is_known) else {
            return CapacityResult::Taken;
        };
        // A request in shadow mode is really sent, so it really uses the capacity.
        let must = admission.shadow.is_some();
        let here = admission.estimate.without(admission.unread_bytes);
        let (result, faults) = held.take(self.store, here.tokens(), must, self.now);
        self.count(faults);
        result
    }
}

impl CapacityHold {
    /// The headroom of a request at its tier, which is the `tier`-th, without counting its own part as taken.
    pub(super) fn rooms(
        &self,
        store: &impl Store,
        tier: usize,
        now: Timestamp,
    ) -> Vec<Option<Headroom>> {
        let mut rooms = vec![None; tier];
        if let Ok(bytes) = store.get(&capacity_key(&self.model)) {
            let (taken, _) = read(bytes.as_ref().map(|(bytes, _)| bytes.as_slice()));
            rooms.push(Some(self.room(self.without(taken, now), None)));
        }
        rooms
    }

    /// Takes `cells` in place of what was taken before. If there is no room for more, gives that back, unless the request `must` take.
    pub(super) fn take(
        &mut self,
        store: &impl Store,
        cells: u64,
        must: bool,
        now: Timestamp,
    ) -> (CapacityResult, StateFaults) {
        let Self {
            capacity,
            priority,
            cells: held,
            since,
            ..
        } = *self;
        let (report, faults) = self.change(store, RESERVE_TRIES, |taken| {
            if cells <= held {
                // A request that needs less than before gives the difference back, and keeps the rest without a check.
                let after = capacity.settle(taken, priority, held, cells, since, now);
                return (Some(after), Ok(after));
            }
            let before = self.without(taken, now);
            match capacity.check(before, priority, cells, now) {
                Err(not_now) if !must => ((held > 0).then_some(before), Err((before, not_now))),
                Ok(()) | Err(_) => {
                    let after = capacity.charge(before, priority, cells, now);
                    (Some(after), Ok(after))
                }
            }
        });
        let result = match report {
            None => CapacityResult::Unknown,
            Some(Ok(after)) => {
                self.since = if cells > held { now } else { since };
                self.cells = cells;
                self.left = capacity.available(after, Priority::Critical, now);
                CapacityResult::Taken
            }
            Some(Err((before, not_now))) => {
                self.cells = 0;
                CapacityResult::Full(self.room(before, Some(not_now)))
            }
        };
        (result, faults)
    }

    fn room(&self, taken: Taken, refused: Option<NotNow>) -> Headroom {
        Headroom {
            capacity: self.capacity,
            taken,
            priority: self.priority,
            refused,
        }
    }

    /// What others have taken.
    fn without(&self, taken: Taken, now: Timestamp) -> Taken {
        match self.cells {
            0 => taken,
            held => self
                .capacity
                .settle(taken, self.priority, held, 0, self.since, now),
        }
    }

    /// Replaces what was taken by what was used.
    pub(super) fn settle(&self, store: &impl Store, used: u64, now: Timestamp) -> StateFaults {
        let settle = |taken| {
            let Self {
                capacity,
                priority,
                cells,
                since,
                ..
            } = *self;
            let taken = capacity.settle(taken, priority, cells, used, since, now);
            (Some(taken), ())
        };
        let (_, faults) = self.change(store, SETTLE_TRIES, settle);
        faults
    }

    /// The gauge of what is left of the capacity, as it was when the request took its part.
    #[must_use]
    pub fn taken(&self) -> Option<Metric> {
        (self.cells > 0).then(|| self.gauge(self.left))
    }

    /// The gauge of what is left of the capacity as of `now`.
    #[must_use]
    pub fn metric(&self, store: &impl Store, now: Timestamp) -> Option<Metric> {
        let (bytes, _) = store.get(&capacity_key(&self.model)).ok()??;
        let (taken, _) = read(Some(&bytes));
        let left = self.capacity.available(taken, Priority::Critical, now);
        Some(self.gauge(left))
    }

    fn gauge(&self, left: u64) -> Metric {
        metrics::capacity((&self.tier).into(), (&self.model).into(), left)
    }

    /// Changes what is taken by a pure step. Returns what the step reports; `None` if nothing could be written.
    fn change<T>(
        &self,
        store: &impl Store,
        tries: u32,
        step: impl Fn(Taken) -> (Option<Taken>, T),
    ) -> (Option<T>, StateFaults) {
        let updated = update(store, &capacity_key(&self.model), tries, |bytes| {
            let (taken, corrupt) = read(bytes);
            let (taken, report) = step(taken);
            Write {
                value: taken.map(|taken| taken.encode()),
                report: (report, corrupt),
            }
        });
        match updated {
            Ok(Updated {
                report: (report, corrupt),
                conflicts,
            }) => {
                let faults = StateFaults {
                    conflicts,
                    corrupt,
                    given_up: 0,
                };
                (Some(report), faults)
            }
            Err(Contended { conflicts }) => {
                let faults = StateFaults {
                    conflicts,
                    corrupt: false,
                    given_up: 1,
                };
                (None, faults)
            }
        }
    }
}

/// The capacity that the upstream reported, if it did so lately.
fn learned(
    store: &impl Store,
    model: &str,
    reserved: Reserved,
    now: Timestamp,
) -> Option<Capacity> {
    let (bytes, _) = store.get(&learned_key(model)).ok()??;
    Learned::decode(&bytes).ok()?.capacity(reserved, now)
}

/// Stores the limit that an upstream reports for a model, and that so much is `left` of it, whoever has used the rest. Each write is tried
/// only once, since the next answer reports the limit again.
pub fn learn(store: &impl Store, model: &str, told: Learned, left: u64) -> StateFaults {
    let limit = replace(store, &learned_key(model), |bytes| {
        let before = bytes.and_then(|bytes| Learned::decode(bytes).ok());
        told.is_news(before).then(|| told.encode())
    });
    let taken = Capacity::as_told(told.limit.get(), left, told.told);
    let taken = replace(store, &capacity_key(model), |_| Some(taken.encode()));
    limit.and(taken)
}

fn replace(
    store: &impl Store,
    key: &str,
    value: impl Fn(Option<&[u8]>) -> Option<Vec<u8>>,
) -> StateFaults {
    let step = |bytes: Option<&[u8]>| Write {
        value: value(bytes),
        report: (),
    };
    let conflicts = match update(store, key, 1, step) {
        Ok(Updated { conflicts, .. }) | Err(Contended { conflicts }) => conflicts,
    };
    StateFaults {
        conflicts,
        ..StateFaults::default()
    }
}

/// What is taken of a capacity, and whether the bytes are corrupt. The bytes contain no tenant's spend, so corrupt ones are only counted,
/// and the capacity is regarded as unused.
fn read(bytes: Option<&[u8]>) -> (Taken, bool) {
    match bytes.map(Taken::decode) {
        None => (Taken::default(), false),
        Some(Ok(taken)) => (taken, false),
        Some(Err(_)) => (Taken::default(), true),
    }
}
