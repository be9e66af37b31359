//! Gauges of what is left, which are right whenever they are scraped: ticks check all configured tenants in turn, so that the gauges show
//! the end of a window even if no request comes.
//!
//! One VM of the process has this duty ([`Duty`]). It looks at a few tenants in each tick, within a bounded time. The first tenants
//! ([`Config::gauged`]) have their turn once a second; the others, if they have sent a request, within two minutes. An unchanged record
//! costs one read of shared data: gauges are published when the record changes, and when time changes a value that is computed from it.

use std::rc::Rc;
use std::time::Duration;

use crate::admission::ledger::roll_forward;
use crate::base::units::Timestamp;
use crate::config::{Config, Plan};
use crate::plan::Limits;
use crate::published::metric::{Label, Series};
use crate::report::metrics::{self, GAUGES};
use crate::report::standing::{counted, standings};
use crate::state::duty::Duty;
use crate::state::record::Record;
use crate::state::store::{Store, Version, tenant_key};
use crate::tenant::TenantId;

/// Ticks a second. They are frequent and short because Envoy takes about 0.2 ms for each gauge that is new to it: it matches the name with
/// every one of its `stats_tags` (Envoy 1.40, with those of `envoy/envoy.yaml`).
pub const TICKS: u32 = 20;

/// Ticks for a round of the first tenants: fewer than in a second, so that a late tick makes no gauge late.
const ROUND: usize = 16;

/// Ticks for a round of the other tenants: 100 seconds.
const LONG_ROUND: usize = 2_000;

/// How long a tick may spend on the first tenants, and in total. The gauge that is being published when the time is over is still finished.
const FIRST_PART: Duration = Duration::from_micros(1_500);
const BOTH_PARTS: Duration = Duration::from_micros(1_700);

/// After this time a gauge is published again although nothing has changed, in case something else has set it.
const TOLD_AGAIN: Duration = Duration::from_secs(30);

/// The proxy's gauges.
pub trait Gauges {
    /// Defines a series and returns its id. The number of series is bounded, and so is that of ids.
    fn define(&self, series: &Series) -> Option<u32>;

    /// Sets the gauge of this id.
    fn set(&self, id: u32, value: u64);
}

/// The gauges of one configuration's tenants, as one VM publishes them.
#[derive(Debug)]
pub struct Sweep {
    config: Rc<Config>,
    duty: Duty,
    /// Whether this VM serves requests.
    pub serves: bool,
    /// Whether this VM had the duty at the last tick.
    was_ours: bool,
    ticks: u32,
    /// What was published of each tenant since this VM took over the duty.
    told: Vec<Option<Box<Told>>>,
    /// The next one of the first tenants, and the next one of the others.
    next: [usize; 2],
}

/// What was published of a tenant.
#[derive(Debug, Default)]
struct Told {
    /// The version of the record that was published.
    version: Option<Version>,
    /// Until when the published values hold.
    until: Timestamp,
    /// Ids of gauges by index: those of each limit, then that of what is left of the budget.
    ids: Vec<Option<u32>>,
}

impl Sweep {
    /// The gauges of a VM with this duty.
    #[must_use]
    pub fn new(config: Rc<Config>, duty: Duty) -> Self {
        Self {
            config,
            duty,
            serves: false,
            was_ours: false,
            ticks: 0,
            told: Vec::new(),
            next: [0, 0],
        }
    }

    /// Looks at some of the tenants, if this VM has the duty. `newer`: the plan that a newer configuration has for a tenant; the gauges of
    /// such a tenant are left to that configuration.
    pub fn tick(
        &mut self,
        store: &impl Store,
        gauges: &impl Gauges,
        clock: impl Fn() -> Timestamp,
        newer: impl Fn(&TenantId) -> Option<Rc<Plan>>,
    ) {
        // A VM without the duty checks for it each second.
        let is_due = self.was_ours || self.ticks.is_multiple_of(TICKS);
        self.ticks = self.ticks.wrapping_add(1);
        let start = clock();
        if !is_due || !self.is_ours(store, start) {
            return;
        }
        let config = Rc::clone(&self.config);
        let tenants = config.listed();
        self.told.resize_with(tenants.len(), || None);
        let (first, others) = tenants.split_at(config.gauged().min(tenants.len()));
        let parts = [
            (first, 0, ROUND, FIRST_PART),
            (others, first.len(), LONG_ROUND, BOTH_PARTS),
        ];
        for ((tenants, before, round, most), next) in parts.into_iter().zip(&mut self.next) {
            let is_late = || clock().since(start) >= most;
            for _ in 0..tenants.len().div_ceil(round) {
                let place = before.saturating_add(*next);
                let (Some((id, plan)), Some(told)) = (tenants.get(*next), self.told.get_mut(place))
                else {
                    break;
                };
                let look = Look {
                    id,
                    limits: &plan.limits,
                    is_first: place < first.len(),
                    now: clock(),
                };
                let is_told = match (newer(id), &told) {
                    (Some(newer), Some(before)) => {
                        before.retire(&plan.limits, Some(&newer.limits), gauges);
                        *told = None;
                        true
                    }
                    (Some(_), None) => true,
                    (None, _) => look.tell(told, store, gauges, is_late),
                };
                if is_told {
                    *next = next.saturating_add(1);
                    if *next >= tenants.len() {
                        *next = 0;
                    }
                }
                if !is_told || is_late() {
                    break;
                }
            }
        }
    }

    fn is_ours(&mut self, store: &impl Store, now: Timestamp) -> bool {
        let is_ours = self.duty.is_ours(store, self.serves, now);
        if is_ours && !self.was_ours {
            // Another VM may have published other values in between.
            for told in self.told.iter_mut().flatten() {
                told.until = Timestamp::default();
            }
        }
        self.was_ours = is_ours;
        is_ours
    }

    /// The configuration is dropped: frees the duty for another VM, and clears the gauges of limits that no newer configuration has.
    pub fn end(
        &mut self,
        store: &impl Store,
        gauges: &impl Gauges,
        newer: impl Fn(&TenantId) -> Option<Rc<Plan>>,
    ) {
        let told = std::mem::take(&mut self.told);
        for ((id, plan), told) in self.config.listed().iter().zip(told) {
            if let Some(told) = told {
                let newer = newer(id);
                let newer = newer.as_ref().map(|plan| &plan.limits);
                told.retire(&plan.limits, newer, gauges);
            }
        }
        if self.was_ours {
            self.duty.lay_down(store);
        }
    }
}

/// A look at a tenant.
struct Look<'a> {
    id: &'a TenantId,
    limits: &'a Limits,
    /// Whether the tenant has gauges even if it never sent a request.
    is_first: bool,
    now: Timestamp,
}

/// The result of a look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// The gauges still have the values that were published.
    AsTold,
    /// The gauges were published now.
    Told,
    /// Some gauges were published: the look stopped before a gauge that the proxy does not know yet, since it is late.
    InPart,
}

impl Look<'_> {
    /// Publishes the tenant's gauges that have changed. Returns whether none is left.
    fn tell(
        &self,
        told: &mut Option<Box<Told>>,
        store: &impl Store,
        gauges: &impl Gauges,
        is_late: impl Fn() -> bool,
    ) -> bool {
        let mut seen = self.tell_once(told, store, gauges, &is_late);
        if seen == Seen::Told {
            // Within the millisecond that this takes, a request may have changed the record and published its gauges first.
            seen = self.tell_once(told, store, gauges, is_late);
        }
        seen != Seen::InPart
    }

    fn tell_once(
        &self,
        told: &mut Option<Box<Told>>,
        store: &impl Store,
        gauges: &impl Gauges,
        is_late: impl Fn() -> bool,
    ) -> Seen {
        let &Self {
            id, limits, now, ..
        } = self;
        let Ok(stored) = store.get(&tenant_key(id.account())) else {
            return Seen::AsTold;
        };
        let (bytes, version) = stored.unzip();
        let is_to_be = version.is_some() || self.is_first || told.is_some();
        if !is_to_be || told.as_ref().is_some_and(|told| told.is_so(version, now)) {
            return Seen::AsTold;
        }
        // A value that is not a record is treated as absent, as requests treat it.
        let record = bytes.and_then(|bytes| Record::decode(&bytes).ok());
        let mut record = record.unwrap_or_default();
        roll_forward(&mut record, limits, now);
        let told = told.get_or_insert_with(Box::default);
        let tenant = Label::from(id.name());
        let mut until = now.plus(TOLD_AGAIN);
        let mut place = 0_usize;
        for standing in standings(limits, &record, now) {
            until = until.min(standing.holds_until);
            for gauge in metrics::standing(&tenant, &standing) {
                if !told.tell(place, gauge, gauges, &is_late) {
                    return Seen::InPart;
                }
                place = place.saturating_add(1);
            }
        }
        let left = metrics::remaining(tenant, limits, &record);
        if !told.tell(place, left, gauges, is_late) {
            return Seen::InPart;
        }
        told.version = version;
        told.until = until;
        Seen::Told
    }
}

impl Told {
    /// Whether the record is unchanged since it was published.
    fn is_so(&self, version: Option<Version>, now: Timestamp) -> bool {
        // A time that was stored by a clock that has been set back since does not count.
        let is_set_back = self.until.since(now) > TOLD_AGAIN;
        self.version == version && now < self.until && !is_set_back
    }

    /// Sets the gauges of removed limits to zero.
    fn retire(&self, limits: &Limits, newer: Option<&Limits>, gauges: &impl Gauges) {
        let is_kept = |limit| newer.is_some_and(|newer| counted(newer).any(|kept| kept == limit));
        let mut ids = self.ids.as_slice();
        for limit in counted(limits) {
            let (own, rest) = ids.split_at_checked(GAUGES).unwrap_or((ids, &[]));
            ids = rest;
            if !is_kept(limit) {
                let own = own.iter().flatten();
                own.for_each(|id| gauges.set(*id, 0));
            }
        }
        let is_without = newer.is_none_or(|newer| newer.budget.is_none());
        if let ([Some(left)], true) = (ids, is_without) {
            gauges.set(*left, 0);
        }
    }

    /// Publishes a gauge. Returns whether it was published: it is not if it would have to be defined first, and it is late.
    fn tell(
        &mut self,
        place: usize,
        gauge: Option<(Series, u64)>,
        gauges: &impl Gauges,
        is_late: impl Fn() -> bool,
    ) -> bool {
        let Some((series, value)) = gauge else {
            return true;
        };
        if self.ids.len() <= place {
            self.ids.resize(place.saturating_add(1), None);
        }
        let Some(id) = self.ids.get_mut(place) else {
            return true;
        };
        if id.is_none() {
            // At least one gauge is defined each time, or else the sweep would never end.
            if place > 0 && is_late() {
                return false;
            }
            *id = gauges.define(&series);
        }
        if let Some(id) = *id {
            gauges.set(id, value);
        }
        true
    }
}

#[cfg(test)]
mod tests;
