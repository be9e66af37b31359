//! What tenants share: taking from a tier's capacity and giving back, each in one compare-and-swap.
//!
//! **What is atomic.** A capacity has one key. Looking whether it has room and taking from it is one step, so that all
//! workers together never take more than there is. So is a settlement.
//!
//! **What is not.** The tenant's record has another key, and no step changes both. The record comes first: a request is
//! charged there and then takes from the capacity. If that was taken by others since it was looked at, one more step on the
//! record gives back what was charged and decides anew, with that tier full: for the microseconds between, other requests of
//! the same tenant see a little less of its own limits than there is. Other tenants never see anything that was not served.
//! A request that is refused has charged nothing, here or there. Where a VM traps between the steps, or before the
//! settlement, what was taken comes back by the bucket's own refill, and what was charged when the reservation expires.

use super::{RESERVE_TRIES, SETTLE_TRIES};
use crate::bucket::NotNow;
use crate::capacity::{Capacity, Priority, Room, Taken};
use crate::name::Name;
use crate::payer::Done;
use crate::policy::{Ask, Limits};
use crate::store::{Contended, Store, Troubles, Updated, Write, capacity_key, update};
use crate::telemetry::{self, Metric};
use crate::tier::Tier;
use crate::units::Timestamp;

/// What a request has taken of its tier's capacity.
#[derive(Clone, Debug)]
pub struct Part {
    /// The tier's name and model.
    tier: Name,
    model: Name,
    capacity: Capacity,
    priority: Priority,
    /// Zero if our state could not be had.
    cells: u64,
    since: Timestamp,
    /// What was left for the highest priority just after.
    left: u64,
}

/// What a request of a tenant with these limits finds at the tiers that it might be sent to; empty where none of the
/// ladder's has a capacity.
pub(super) fn rooms(
    store: &impl Store,
    limits: &Limits,
    ask: &Ask<'_>,
) -> (Vec<Option<Room>>, Troubles) {
    let mut troubles = Troubles::default();
    let tiers = ask.place.map_or(&[][..], |place| &place.ladder.tiers);
    if tiers.iter().all(|tier| tier.capacity.is_none()) {
        return (Vec::new(), troubles);
    }
    let asked = ask.place.map_or(0, |place| place.asked);
    let is_near = |tier: usize| tier == asked || tier > asked && !limits.never_downgrade;
    let room = |(index, tier): (usize, &Tier)| {
        let capacity = tier.capacity.filter(|_| is_near(index))?;
        let bytes = store.get(&capacity_key(&tier.model)).ok()?;
        let (taken, corrupt) = read(bytes.as_ref().map(|(bytes, _)| bytes.as_slice()));
        troubles.corrupt |= corrupt;
        Some(Room {
            capacity,
            taken,
            priority: limits.priority,
            refused: None,
        })
    };
    (tiers.iter().enumerate().map(room).collect(), troubles)
}

/// The part that a request has of a tier before it takes any; `None` where all may have what they ask for.
pub(super) fn part(
    ask: &Ask<'_>,
    tier: usize,
    priority: Priority,
    now: Timestamp,
) -> Option<Box<Part>> {
    let tier = ask.place?.ladder.tiers.get(tier)?;
    Some(Box::new(Part {
        capacity: tier.capacity?,
        tier: tier.name.clone(),
        model: tier.model.clone(),
        priority,
        cells: 0,
        since: now,
        left: 0,
    }))
}

/// What came of asking for a part.
pub(super) enum Asked {
    /// It was taken, or nobody limits it.
    Taken,
    /// There is no room, and nothing is taken any more. What the request found, and why not.
    Full(Room),
    /// Our own state could not be had; what was taken before still is.
    Unknown,
}

impl Part {
    /// What the request finds at its tier, which is the `tier`-th, its own part not counted.
    pub(super) fn rooms(
        &self,
        store: &impl Store,
        tier: usize,
        now: Timestamp,
    ) -> Vec<Option<Room>> {
        let mut rooms = vec![None; tier];
        if let Ok(bytes) = store.get(&capacity_key(&self.model)) {
            let (taken, _) = read(bytes.as_ref().map(|(bytes, _)| bytes.as_slice()));
            rooms.push(Some(self.room(self.without(taken, now), None)));
        }
        rooms
    }

    /// Takes `cells` in the place of what was taken before, or gives that back if there is no room for more, unless it `must`.
    pub(super) fn take(
        &mut self,
        store: &impl Store,
        cells: u64,
        must: bool,
        now: Timestamp,
    ) -> Done<Asked> {
        let Self {
            capacity,
            priority,
            cells: held,
            since,
            ..
        } = *self;
        let Done { report, troubles } = self.change(store, RESERVE_TRIES, |taken| {
            if cells <= held {
                // What it needs less goes back; nobody asks whether it may keep the rest.
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
        let report = match report {
            None => Asked::Unknown,
            Some(Ok(after)) => {
                self.since = if cells > held { now } else { since };
                self.cells = cells;
                self.left = capacity.available(after, Priority::Critical, now);
                Asked::Taken
            }
            Some(Err((before, not_now))) => {
                self.cells = 0;
                Asked::Full(self.room(before, Some(not_now)))
            }
        };
        Done { report, troubles }
    }

    fn room(&self, taken: Taken, refused: Option<NotNow>) -> Room {
        Room {
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
    pub(super) fn settle(&self, store: &impl Store, used: u64, now: Timestamp) -> Troubles {
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
        self.change(store, SETTLE_TRIES, settle).troubles
    }

    /// The gauge of what is left of the capacity, as it was when the request took its part.
    #[must_use]
    pub fn taken(&self) -> Option<Metric> {
        (self.cells > 0).then(|| self.gauge(self.left))
    }

    /// The gauge as of `now`.
    #[must_use]
    pub fn metric(&self, store: &impl Store, now: Timestamp) -> Option<Metric> {
        let (bytes, _) = store.get(&capacity_key(&self.model)).ok()??;
        let (taken, _) = read(Some(&bytes));
        let left = self.capacity.available(taken, Priority::Critical, now);
        Some(self.gauge(left))
    }

    fn gauge(&self, left: u64) -> Metric {
        telemetry::capacity((&self.tier).into(), (&self.model).into(), left)
    }

    /// Changes what is taken by a pure step. What it reports; `None` if nothing could be written.
    fn change<T>(
        &self,
        store: &impl Store,
        tries: u32,
        step: impl Fn(Taken) -> (Option<Taken>, T),
    ) -> Done<Option<T>> {
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
            }) => Done {
                report: Some(report),
                troubles: Troubles {
                    conflicts,
                    corrupt,
                    given_up: 0,
                },
            },
            Err(Contended { conflicts }) => Done {
                report: None,
                troubles: Troubles {
                    conflicts,
                    corrupt: false,
                    given_up: 1,
                },
            },
        }
    }
}

/// What is taken, and whether there were bytes that are none of ours. Nobody's spend is in them, so that they are only
/// counted, and nothing is taken for taken.
fn read(bytes: Option<&[u8]>) -> (Taken, bool) {
    match bytes.map(Taken::decode) {
        None => (Taken::default(), false),
        Some(Ok(taken)) => (taken, false),
        Some(Err(_)) => (Taken::default(), true),
    }
}
