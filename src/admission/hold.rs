//! What a request holds on its tenant's record: taken in one step, replaced by what was used in another.

use crate::admission::Holdings;
use crate::base::name::LimitKey;
use crate::base::units::{Cost, Timestamp, Unit};
use crate::estimate::Estimate;
use crate::lease::quota::Quota;
use crate::limits::account::{Reservation, Reserve};
use crate::limits::budget::{Budget, tokens};
use crate::limits::lend::{self, ChildKey};
use crate::limits::stacked::{Entry, Limit, Rule, State, renew, settle};
use crate::plan::Limits;
use crate::policy::ShadowDecision;
use crate::state::record::Record;

/// What is held on one of a plan's other limits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LimitHold {
    key: LimitKey,
    held: Held,
}

/// What is held, by the kind of the limit.
#[derive(Debug, PartialEq, Eq)]
enum Held {
    /// On a budget. `None` if our own state was unavailable: what the request used is charged all the same.
    Budget(Option<Reservation>),
    /// Cells of a bucket of tokens.
    Tokens(u64),
    /// A cell of a bucket of requests.
    Request,
    /// A slot of a `concurrency` limit.
    Slot(Reservation),
}

/// What a request used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    /// What is charged on budgets and on buckets of tokens.
    pub(super) cost: Cost,
    /// Whether the request was sent: it counts on buckets of requests then, whatever its answer was.
    pub(super) is_sent: bool,
}

impl Spent {
    /// The use of a request that is not sent.
    pub(super) const NOTHING: Self = Self {
        cost: Cost::ZERO,
        is_sent: false,
    };
}

/// What the request needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need<'a> {
    /// Cells to take from buckets of tokens; `None` to take nothing from what bounds a rate.
    pub(super) cells: Option<u64>,
    /// What to reserve on budgets.
    pub(super) reserve: Reserve,
    /// The model that serves the request.
    pub(super) model: &'a str,
    /// The child with a guaranteed share through which the request comes, if any.
    pub(super) child: Option<ChildKey>,
}

/// Charges a book for an admitted request, on all limits that hold for the model that serves it.
pub(super) fn hold(
    limits: &Limits,
    record: &mut Record,
    need: Need<'_>,
    now: Timestamp,
) -> Holdings {
    if let (Some(quota), Some(cells)) = (&limits.bucket, need.cells) {
        record.bucket = quota.charge(record.bucket, cells, now);
    }
    let budget = limits.budget;
    let account = &mut record.account;
    let others = limits.others.iter().zip(&mut record.others);
    let holdings = Holdings {
        reservation: budget
            .map(|budget| account.reserve_for(need.child, need.reserve, &budget, now)),
        others: others
            .filter_map(|(limit, entry)| hold_other(limit, entry, need, now))
            .collect(),
        cells: need.cells,
        taken: now,
        child: need.child,
    };
    balance(limits, record, need.child, now);
    holdings
}

/// Updates how much of which guaranteed shares is lent, after a step for a request that came through this child.
#[inline(never)]
pub(super) fn balance(limits: &Limits, record: &mut Record, by: Option<ChildKey>, now: Timestamp) {
    let guarantees = &limits.guarantees;
    if guarantees.is_empty() {
        return;
    }
    if let Some(budget) = &limits.budget {
        lend::balance(guarantees, budget, &mut record.account, by, now);
    }
    for (limit, entry) in limits.others.iter().zip(&mut record.others) {
        if let (Rule::Budget(budget), Some(account)) = (&limit.rule, entry.account_mut(limit.key)) {
            lend::balance(guarantees, budget, account, by, now);
        }
    }
}

fn hold_other(
    limit: &Limit,
    entry: &mut Entry,
    need: Need<'_>,
    now: Timestamp,
) -> Option<LimitHold> {
    if !limit.holds_for(need.model) {
        return None;
    }
    let held = match (&limit.rule, &mut entry.state) {
        (Rule::Budget(budget), State::Account(account)) => {
            let reservation = account.reserve_for(need.child, need.reserve, budget, now);
            Held::Budget(Some(reservation))
        }
        (Rule::Concurrency(slots), State::Account(account)) => {
            need.cells?;
            Held::Slot(account.reserve(tokens(1), slots, now))
        }
        (Rule::Tokens(quota), State::Bucket(bucket)) => {
            let cells = need.cells?;
            *bucket = quota.charge(*bucket, cells, now);
            Held::Tokens(cells)
        }
        (Rule::Requests(quota), State::Bucket(bucket)) => {
            need.cells?;
            *bucket = quota.charge(*bucket, 1, now);
            Held::Request
        }
        (_, State::Account(_) | State::Bucket(_)) => return None,
    };
    Some(LimitHold {
        key: limit.key,
        held,
    })
}

/// What is held if our own state is unavailable: nothing, but budgets are charged what the request used.
pub(super) fn unreserved(
    limits: &Limits,
    model: &str,
    child: Option<ChildKey>,
    now: Timestamp,
) -> Holdings {
    let here = limits.others.iter().filter(|limit| limit.holds_for(model));
    let budgets = here.filter(|limit| matches!(limit.rule, Rule::Budget(_)));
    let others = budgets.map(|limit| LimitHold {
        key: limit.key,
        held: Held::Budget(None),
    });
    Holdings {
        others: others.collect(),
        child,
        ..Holdings::nothing(now)
    }
}

/// Replaces what a request holds by what it used.
pub(super) fn close(
    limits: &Limits,
    record: &mut Record,
    holdings: &Holdings,
    used: Spent,
    now: Timestamp,
) {
    let &Holdings {
        ref reservation,
        ref others,
        cells,
        taken,
        child,
    } = holdings;
    if let (Some(quota), Some(cells)) = (&limits.bucket, cells) {
        record.bucket = quota.settle(record.bucket, cells, used.cost.tokens.0, taken, now);
    }
    match reservation {
        Some(reservation) => {
            record
                .account
                .settle_any(reservation, used.cost, limits.budget.as_ref(), now);
            if !record.others.is_empty() {
                let key = LimitKey::BUDGET;
                let budget = limits.budget.as_ref();
                settle(&mut record.others, key, reservation, used.cost, budget, now);
            }
        }
        // The request was let through while our own state was unavailable: what it used is charged all the same.
        None if limits.budget.is_some() => {
            record.account.spend(child, used.cost, now);
        }
        None => {}
    }
    for hold in others {
        close_other(limits, &mut record.others, hold, used, child, (taken, now));
    }
    balance(limits, record, child, now);
}

fn close_other(
    limits: &Limits,
    entries: &mut [Entry],
    hold: &LimitHold,
    used: Spent,
    child: Option<ChildKey>,
    (taken, now): (Timestamp, Timestamp),
) {
    let key = hold.key;
    let mut settle_cells = |held, used| {
        let bucket = entries.iter_mut().find_map(|entry| entry.bucket_mut(key));
        if let (Some(bucket), Some(quota)) = (bucket, quota(limits, key)) {
            *bucket = quota.settle(*bucket, held, used, taken, now);
        }
    };
    match &hold.held {
        Held::Tokens(cells) => settle_cells(*cells, used.cost.tokens.0),
        Held::Request => settle_cells(1, used.is_sent.into()),
        Held::Slot(slot) => settle(entries, key, slot, Cost::ZERO, None, now),
        Held::Budget(Some(reservation)) => {
            let budget = budget(limits, key);
            settle(entries, key, reservation, used.cost, budget, now);
        }
        Held::Budget(None) => {
            let account = entries.iter_mut().find_map(|entry| entry.account_mut(key));
            if let Some(account) = account {
                account.spend(child, used.cost, now);
            }
        }
    }
}

/// The bucket of a limit as it is configured now.
fn quota(limits: &Limits, key: LimitKey) -> Option<&Quota> {
    let limit = limits.others.iter().find(|limit| limit.key == key)?;
    match &limit.rule {
        Rule::Tokens(quota) | Rule::Requests(quota) => Some(quota),
        Rule::Budget(_) | Rule::Concurrency(_) => None,
    }
}

impl Holdings {
    /// Replaces the reservations by ones of the same amounts that are made at `now`, for a request that takes long. The account must be as
    /// of `now`.
    pub(super) fn renewed(
        &self,
        limits: &Limits,
        record: &mut Record,
        now: Timestamp,
    ) -> Vec<(Option<LimitKey>, Reservation)> {
        let own = self.reservation.as_ref().zip(limits.budget.as_ref());
        let own = own.and_then(|(reservation, budget)| {
            let renewed = record.account.renew(reservation, budget, now);
            let key = LimitKey::BUDGET;
            renewed.or_else(|| renew(&mut record.others, key, reservation, budget, now))
        });
        let others = self.others.iter().filter_map(|hold| {
            let budget = budget(limits, hold.key)?;
            let renewed = renew(
                &mut record.others,
                hold.key,
                hold.reservation()?,
                budget,
                now,
            )?;
            Some((Some(hold.key), renewed))
        });
        own.map(|own| (None, own))
            .into_iter()
            .chain(others)
            .collect()
    }

    /// Notes what was renewed.
    pub(super) fn renew(&mut self, renewed: Vec<(Option<LimitKey>, Reservation)>) {
        for (key, reservation) in renewed {
            let Some(key) = key else {
                self.reservation = Some(reservation);
                continue;
            };
            let hold = self.others.iter_mut().find(|hold| hold.key == key);
            match hold.map(|hold| &mut hold.held) {
                Some(Held::Budget(held)) => *held = Some(reservation),
                Some(Held::Slot(held)) => *held = reservation,
                Some(Held::Tokens(_) | Held::Request) | None => {}
            }
        }
    }

    /// How much of a cost exceeds what is held on the first budget, in that budget's unit.
    pub(super) fn exceeded(&self, limits: &Limits, used: Cost) -> Option<(Unit, u64)> {
        let budget = limits.budgets().next()?;
        let of_others = || self.others.iter().find_map(LimitHold::budget);
        let reservation = self.reservation.as_ref().or_else(of_others)?;
        let beyond = budget.unit.of(used.minus(reservation.cost()));
        (beyond > 0).then_some((budget.unit, beyond))
    }

    /// What is held on budgets, each in its unit.
    pub(super) fn cost(&self) -> Cost {
        let of_others = || self.others.iter().find_map(LimitHold::budget);
        let reservation = self.reservation.as_ref().or_else(of_others);
        reservation.map_or(Cost::ZERO, Reservation::cost)
    }

    /// The start of the oldest reservation that may expire.
    pub(super) fn since(&self) -> Option<Timestamp> {
        let others = self.others.iter().filter_map(LimitHold::reservation);
        let all = self.reservation.iter().chain(others);
        all.map(Reservation::since).min()
    }
}

impl LimitHold {
    fn budget(&self) -> Option<&Reservation> {
        match &self.held {
            Held::Budget(reservation) => reservation.as_ref(),
            Held::Slot(_) | Held::Tokens(_) | Held::Request => None,
        }
    }

    fn reservation(&self) -> Option<&Reservation> {
        match &self.held {
            Held::Budget(reservation) => reservation.as_ref(),
            Held::Slot(slot) => Some(slot),
            Held::Tokens(_) | Held::Request => None,
        }
    }
}

fn budget(limits: &Limits, key: LimitKey) -> Option<&Budget> {
    let limit = limits.others.iter().find(|limit| limit.key == key)?;
    limit.rule.budget()
}

/// The cells that a request takes from the bucket. In shadow mode, a request that would have been refused takes none: if it did, the
/// bucket would never refill, and shadow mode would report refusals that it had caused itself.
pub(super) fn cells(estimate: &Estimate, shadow: Option<ShadowDecision>) -> Option<u64> {
    let takes = shadow.is_none_or(|would| would.admits());
    takes.then(|| estimate.cells())
}
