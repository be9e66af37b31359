//! The part of an admission that concerns limits which proxies share: the request needs a slice, and lines to the store become due.

use std::rc::Rc;

use crate::admission::ledger::{Attempt, Ledger, Writes, roll_forward};
use crate::admission::reserve::Verdict;
use crate::admission::tenant::Tenant;
use crate::admission::{Admission, RESERVE_TRIES, Refused};
use crate::base::units::{Cost, Timestamp};
use crate::config::Global;
use crate::plan::Limits;
use crate::policy::{Request, cost_at};
use crate::state::record::Record;
use crate::state::shared_buckets::{self, each_shared_bucket};
use crate::state::shared_budgets::{Asked, draw, shared_budgets};
use crate::state::store::Store;
use crate::tenant::TenantId;

/// When a line to the store is due about the shared limits of a record.
#[derive(Clone, Debug)]
pub struct Watch {
    /// The tenant of the record.
    pub tenant: Tenant,
    /// When the line is due.
    pub due: Timestamp,
    /// The store.
    pub global: Rc<Global>,
}

impl<S: Store> Ledger<'_, S> {
    /// The records about which lines are due after the last admission.
    pub fn take_watches(&mut self, global: Option<&Rc<Global>>) -> Vec<Watch> {
        let due = std::mem::take(&mut self.due);
        let watches = due.into_iter().filter_map(|(tenant, due)| {
            Some(Watch {
                tenant,
                due,
                global: Rc::clone(global?),
            })
        });
        watches.collect()
    }

    /// The time until which no shared limit that charges the request makes it wait; `None` if one makes it wait now. In that case, if
    /// `asks`, this method requests slices from the store, for as much as the request is known to cost.
    pub(crate) fn first_slices(&mut self, cost: Cost, asks: bool) -> Option<Timestamp> {
        let payers: Vec<Tenant> = self.tenant.payers().collect();
        let mut until = Some(Timestamp::MAX);
        for payer in &payers {
            let one = self.ask(payer, (cost, cost.tokens.0), asks, None);
            until = until.zip(one).map(|(all, one)| all.min(one));
        }
        until
    }

    /// Requests this cost, and so many cells of buckets, from the store, if `asks`: for limits where a first request waits, or, for a request
    /// that this model serves, for limits without room.
    fn ask(
        &mut self,
        payer: &Tenant,
        (cost, cells): (Cost, u64),
        asks: bool,
        model: Option<&str>,
    ) -> Option<Timestamp> {
        let limits = payer.limits();
        if !payer.configured || !limits.has_shared() || limits.shadow {
            return Some(Timestamp::MAX);
        }
        let (store, now) = (self.store, self.now);
        let mut ledger = Ledger::new(store, payer, self.mode, now);
        let place = ledger.place();
        let attempt = ledger.change(&place, limits, RESERVE_TRIES, |record, _| {
            roll_forward(record, limits, now);
            join(payer, record, store, now);
            let mut until = Some(Timestamp::MAX);
            let mut due: Option<Timestamp> = None;
            for mut shared in shared_budgets(limits, record) {
                let asked = Asked {
                    cost,
                    before: Cost::ZERO,
                    is_held: false,
                    cells: (0, 0),
                };
                let waits = match model {
                    Some(model) => shared.holds_for(model),
                    None => shared.awaits_first(now),
                };
                if !waits {
                    let warm = shared.warm_until(now);
                    until = until.map(|until| until.min(warm));
                    continue;
                }
                until = None;
                if asks {
                    shared.asked(asked, now);
                }
                due = due.into_iter().chain(shared.due(now)).min();
            }
            let of_buckets = ask_buckets(limits, record, cells, (asks, model), now);
            until = until
                .zip(of_buckets.0)
                .map(|(all, buckets)| all.min(buckets));
            due = due.into_iter().chain(of_buckets.1).min();
            let writes = match until {
                None if asks => Writes::Yes,
                _ => Writes::No,
            };
            (writes, (until, due))
        });
        self.count(ledger.faults);
        match attempt {
            Attempt::Made(_, (until, due)) => {
                self.note_due(&payer.id, due);
                until
            }
            // Whatever the cause is, the admission will report it.
            Attempt::SlotTaken | Attempt::GivenUp => Some(now),
        }
    }

    /// Requests more of the parents' shared budgets for a request that they refused, since their last answers may be old.
    pub(super) fn parents_lacked(&mut self, request: &Request<'_>, refused: &Refused) {
        let (tenant, now) = (self.tenant, self.now);
        let asked = cost_at(tenant.limits(), request, refused.tier, &refused.record, now);
        let model = request.model_at(refused.tier);
        for payer in tenant.payers().skip(1) {
            self.ask(&payer, asked, true, Some(model));
        }
    }

    /// Notes when a line about this payer's record is due; `None`: none is due.
    pub(super) fn note_due(&mut self, whose: &TenantId, due: Option<Timestamp>) {
        let Some(due) = due else { return };
        if let Some((_, known)) = self.due.iter_mut().find(|(payer, _)| payer.id == *whose) {
            *known = due;
        } else if let Some(payer) = self.tenant.payer(whose) {
            self.due.push((payer, due));
        }
    }
}

/// Moves all slices to the present windows. Only for tenants that are configured, so that a client cannot make up accounts in the store.
pub(super) fn join(tenant: &Tenant, record: &mut Record, store: &impl Store, now: Timestamp) {
    if tenant.configured {
        join_as(&tenant.id, tenant.limits(), record, store, now);
    }
}

/// As [`join`], for any payer that is configured.
pub(super) fn join_as(
    whose: &TenantId,
    limits: &Limits,
    record: &mut Record,
    store: &impl Store,
    now: Timestamp,
) {
    if !limits.has_shared() {
        return;
    }
    let drawn = |limit| draw(store.slot_seed(), whose.account(), limit, now);
    for mut shared in shared_budgets(limits, record) {
        shared.join(drawn);
    }
    if limits.has_shared_buckets() {
        shared_buckets::join(limits, record, drawn, now);
    }
}

/// The part of [`Ledger::ask`] that concerns buckets. Returns until when none of them makes a request wait, and when the next line is due.
fn ask_buckets(
    limits: &Limits,
    record: &mut Record,
    cells: u64,
    (asks, model): (bool, Option<&str>),
    now: Timestamp,
) -> (Option<Timestamp>, Option<Timestamp>) {
    let (mut until, mut due) = (Some(Timestamp::MAX), None);
    if !limits.has_shared_buckets() {
        return (until, due);
    }
    each_shared_bucket(limits, record, &mut |mut shared| {
        let waits = match model {
            Some(model) => shared.holds_for(model),
            None => shared.awaits_first(),
        };
        if !waits {
            until = until.map(|until| until.min(shared.warm_until(now)));
            return;
        }
        until = None;
        if asks {
            shared.asked(cells, 0, false, now);
        }
        due = due.into_iter().chain(shared.due()).min();
    });
    (until, due)
}

/// What follows from a decision for the record and the store.
pub(super) struct Noted {
    pub(super) writes: Writes,
    pub(super) due: Option<Timestamp>,
}

/// Notes, for shared limits, the decision about a request: what the request reserved, or failed to reserve.
pub(super) fn decided(
    limits: &Limits,
    request: &Request<'_>,
    record: &mut Record,
    verdict: &Verdict,
    now: Timestamp,
) -> Noted {
    if !limits.has_shared() {
        return Noted {
            writes: Writes::No,
            due: None,
        };
    }
    let (tier, (cost, cells), is_held) = match verdict {
        Verdict::Hold(held) => (held.tier, (held.cost, held.cells()), true),
        Verdict::Refuse { tier, .. } => {
            (*tier, cost_at(limits, request, *tier, record, now), false)
        }
        Verdict::Corrupt => (0, (Cost::ZERO, 0), false),
    };
    let asked = Asked {
        cost,
        before: Cost::ZERO,
        is_held,
        cells: (cells, 0),
    };
    note(limits, record, request.model_at(tier), asked, now)
}

/// As [`decided`], for a request whose cost is known more exactly now. Returns when the next line is due.
pub(super) fn amended(
    limits: &Limits,
    request: &Request<'_>,
    record: &mut Record,
    before: &Admission,
    is_held: bool,
    now: Timestamp,
) -> Option<Timestamp> {
    if !limits.has_shared() {
        return None;
    }
    let tier = before.tier;
    let estimate = request.at(tier, before.most_output, limits, record, now);
    let asked = Asked {
        cost: request
            .expected(tier, &estimate, limits, record, now)
            .reserve(limits)
            .cost,
        before: before.holdings.cost(),
        is_held,
        cells: (estimate.cells(), before.holdings.cells.unwrap_or_default()),
    };
    note(limits, record, request.model_at(tier), asked, now).due
}

/// Notes, for shared limits, a request that this model serves.
pub(super) fn note(
    limits: &Limits,
    record: &mut Record,
    model: &str,
    asked: Asked,
    now: Timestamp,
) -> Noted {
    let mut noted = Noted {
        writes: Writes::No,
        due: None,
    };
    for mut shared in shared_budgets(limits, record) {
        let before = shared.grant().copied();
        if shared.holds_for(model) {
            shared.asked(asked, now);
        }
        if shared.grant() != before.as_ref() {
            noted.writes = Writes::Yes;
        }
        noted.due = noted.due.into_iter().chain(shared.due(now)).min();
    }
    if limits.has_shared_buckets() {
        note_buckets(limits, record, model, asked, &mut noted, now);
    }
    noted
}

#[inline(never)]
fn note_buckets(
    limits: &Limits,
    record: &mut Record,
    model: &str,
    asked: Asked,
    noted: &mut Noted,
    now: Timestamp,
) {
    let (cells, before) = asked.cells;
    each_shared_bucket(limits, record, &mut |mut shared| {
        let known = *shared.rate();
        if shared.holds_for(model) {
            shared.asked(cells, before, asked.is_held, now);
        }
        if *shared.rate() != known {
            noted.writes = Writes::Yes;
        }
        noted.due = noted.due.into_iter().chain(shared.due()).min();
    });
}
