//! The place of a subject's record: the slot that the subject has or is given now, or else the overflow key, which is shared by all
//! subjects without a slot.
//!
//! A tenant's table is changed by compare-and-swap like any record, so a subject has only one slot, whichever worker sees it first. A slot
//! is given to another subject only if nothing in its record counts any more. Between the check of that record and the change of the table
//! the former owner may come back. It then has a record and no place in the table, is given another slot, and its limits apply to each of
//! the two records separately until the old one is idle. No other subject is affected.

use std::time::Duration;

use crate::admission::ledger::{Place, is_idle};
use crate::base::units::Timestamp;
use crate::lease::quota::Quota;
use crate::limits::bucket::Bucket;
use crate::limits::stacked::Rule;
use crate::plan::Limits;
use crate::state::record::Record;
use crate::state::store::{Store, Write, update};
use crate::state::subjects::{ALL_SUBJECTS, COUNT_KEY, STRANGERS_SUBJECTS, Seat, Table};

/// How often giving a subject a slot is tried, and how many slots are checked to find a free one.
const TRIES: u32 = 4;

/// The time for which a slot that was just given is not given to another subject, although nothing is in it yet.
const GRACE: Duration = Duration::from_secs(60);

/// The place of the record of a subject with these limits, and the subject's slot. `not`: a slot that the table assigns to the subject, but
/// that contains another subject's record.
pub(super) fn find(
    store: &impl Store,
    seat: &Seat,
    limits: &Limits,
    not: Option<usize>,
    now: Timestamp,
) -> (Place, Option<usize>) {
    let slot = seated(store, seat, limits, not, now);
    let place = match slot {
        Some(slot) => Place {
            key: seat.slot(slot),
            owner: seat.subject.0,
        },
        None => Place {
            key: seat.overflow(),
            owner: 0,
        },
    };
    (place, slot)
}

fn seated(
    store: &impl Store,
    seat: &Seat,
    limits: &Limits,
    not: Option<usize>,
    now: Timestamp,
) -> Option<usize> {
    // A new slot is counted before it is added to the table.
    let mut is_counted = false;
    let mut seated = None;
    for _ in 0..TRIES {
        let Ok(found) = store.get(&seat.table()) else {
            break;
        };
        let (bytes, version) = found.unzip();
        let table = bytes.and_then(|bytes| Table::decode(&bytes).ok());
        let before = table.unwrap_or_default();
        seated = before.find(seat.subject).filter(|&own| Some(own) != not);
        if seated.is_some() {
            break;
        }
        if not.is_none() && !before.can_grow() && before.seems_free(now).is_none() {
            break;
        }
        let mut table = before.clone();
        if let Some(not) = not {
            table.vacate(not, busy_until(limits, now));
        }
        let free = free(store, seat, &mut table, limits, now);
        let given = free.or_else(|| {
            is_counted = is_counted || table.can_grow() && count(store, seat);
            is_counted.then(|| table.len())
        });
        if let Some(given) = given {
            table.seat(given, seat.subject, busy_until(limits, now));
        }
        if table == before {
            break;
        }
        if store.put(&seat.table(), &table.encode(), version).is_ok() {
            is_counted &= table.len() == before.len();
            seated = given;
            break;
        }
    }
    if is_counted {
        uncount(store);
    }
    seated
}

/// A slot of the table in which nothing counts any more. Slots that only seemed free are marked as taken.
fn free(
    store: &impl Store,
    seat: &Seat,
    table: &mut Table,
    limits: &Limits,
    now: Timestamp,
) -> Option<usize> {
    for _ in 0..TRIES {
        let slot = table.seems_free(now)?;
        if is_free(store, &seat.slot(slot), limits, now) {
            return Some(slot);
        }
        table.is_busy(slot, busy_until(limits, now));
    }
    None
}

fn is_free(store: &impl Store, key: &str, limits: &Limits, now: Timestamp) -> bool {
    match store.get(key) {
        Ok(Some((bytes, _))) => {
            let record = Record::decode(&bytes);
            record.map_or(true, |record| is_idle(limits, record, now))
        }
        Ok(None) => true,
        Err(_) => false,
    }
}

/// The earliest time at which nothing that is used now counts any more.
fn busy_until(limits: &Limits, now: Timestamp) -> Timestamp {
    let ends = limits.others.iter().map(|limit| match &limit.rule {
        Rule::Budget(budget) => budget.period.at(now).end,
        Rule::Tokens(quota) | Rule::Requests(quota) => now.plus(refill(quota, now)),
        Rule::Concurrency(_) => now,
    });
    ends.fold(now.plus(GRACE), Timestamp::max)
}

/// How long an empty bucket takes to fill.
fn refill(quota: &Quota, now: Timestamp) -> Duration {
    let empty = quota.charge(Bucket::default(), quota.burst.get(), now);
    quota.until_full(empty, now)
}

/// Counts one more slot of the process. Returns whether there may be one more.
fn count(store: &impl Store, seat: &Seat) -> bool {
    let most = match seat.configured {
        true => ALL_SUBJECTS,
        false => STRANGERS_SUBJECTS,
    };
    let step = |bytes: Option<&[u8]>| {
        let next = counted(bytes).saturating_add(1);
        Write {
            value: (next <= most).then(|| next.to_le_bytes().to_vec()),
            report: next <= most,
        }
    };
    update(store, COUNT_KEY, TRIES, step).is_ok_and(|updated| updated.report)
}

/// Reverts [`count`]. If that fails, the process can have one slot less from then on.
fn uncount(store: &impl Store) {
    let step = |bytes: Option<&[u8]>| Write {
        value: Some(counted(bytes).saturating_sub(1).to_le_bytes().to_vec()),
        report: (),
    };
    drop(update(store, COUNT_KEY, TRIES, step));
}

fn counted(bytes: Option<&[u8]>) -> u32 {
    let count = bytes.and_then(|bytes| bytes.try_into().ok());
    count.map_or(0, u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::name::LimitKey;
    use crate::base::units::Unit;
    use crate::calendar::window::Period;
    use crate::limits::budget::Budget;
    use crate::limits::stacked::Limit;
    use crate::state::store::fake::{FakeStore, SLOT_SEED};
    use crate::state::subjects::SubjectId;
    use crate::tenant::TenantId;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const NOW: Timestamp = Timestamp::from_secs(1_709_208_000);

    fn daily() -> Limits {
        let budget = Budget {
            initial_budget: 100,
            unit: Unit::Tokens,
            period: Period::Day,
            reservation_expiry: Duration::from_secs(60),
            rollover: None,
            extra: None,
            share: None,
        };
        let limit = Limit {
            name: "day".into(),
            key: LimitKey::of("day"),
            rule: Rule::Budget(budget),
            models: None,
            is_visible: false,
        };
        Limits {
            others: vec![limit],
            ..Limits::default()
        }
    }

    fn seat(tenant: &str, configured: bool, user: u32) -> Seat {
        let tenant = TenantId::parse(tenant.as_bytes()).unwrap();
        let subject = SubjectId::of(SLOT_SEED, &user.to_le_bytes());
        Seat::of(SLOT_SEED, (&tenant, configured), &"user".into(), subject)
    }

    fn slot(store: &FakeStore, seat: &Seat, limits: &Limits, now: Timestamp) -> Option<usize> {
        find(store, seat, limits, None, now).1
    }

    /// The number of subjects in a flood; fewer in a build with debug assertions, which is slower.
    #[cfg(not(target_arch = "wasm32"))]
    const FLOOD: u32 = if cfg!(debug_assertions) {
        50_000
    } else {
        1_000_000
    };

    #[cfg(not(target_arch = "wasm32"))]
    #[test]
    fn a_million_users_of_one_tenant_have_as_many_slots_as_there_are() {
        let (store, limits) = (FakeStore::default(), daily());
        let seated = (0..FLOOD).filter(|&n| {
            let slot = slot(&store, &seat("acme", true, n), &limits, NOW);
            slot.is_some()
        });
        assert_eq!(seated.count(), crate::state::subjects::SUBJECTS);
        assert_eq!(store.keys(), 2, "the table, and how many slots there are");
        assert_eq!(slot(&store, &seat("acme", true, 0), &limits, NOW), Some(0));
    }

    #[test]
    fn a_process_has_a_bounded_number_of_slots_and_strangers_a_part_of_them() {
        let (store, limits) = (FakeStore::default(), daily());
        store.plant(COUNT_KEY, &(STRANGERS_SUBJECTS - 1).to_le_bytes());
        assert_eq!(
            slot(&store, &seat("made-up", false, 0), &limits, NOW),
            Some(0)
        );
        assert_eq!(slot(&store, &seat("made-up", false, 1), &limits, NOW), None);
        assert_eq!(slot(&store, &seat("acme", true, 0), &limits, NOW), Some(0));
        store.plant(COUNT_KEY, &(ALL_SUBJECTS - 1).to_le_bytes());
        assert_eq!(slot(&store, &seat("acme", true, 1), &limits, NOW), Some(1));
        assert_eq!(slot(&store, &seat("acme", true, 2), &limits, NOW), None);
        assert_eq!(slot(&store, &seat("globex", true, 0), &limits, NOW), None);
        // The tenant's own slots are used again.
        let tomorrow = NOW.plus(Duration::from_secs(86_400));
        assert_eq!(
            slot(&store, &seat("acme", true, 2), &limits, tomorrow),
            Some(0)
        );
        let count = store.value(COUNT_KEY).unwrap();
        assert_eq!(count, ALL_SUBJECTS.to_le_bytes());
    }

    #[test]
    fn a_slot_that_was_counted_and_not_used_is_taken_back() {
        let (store, limits) = (FakeStore::default(), daily());
        let other = seat("acme", true, 1);
        // The count is written, and then the table each time loses its race.
        store.intrude(|| {});
        let store = std::rc::Rc::new(store);
        let worker = std::rc::Rc::clone(&store);
        store.intrude(move || {
            find(&*worker, &other, &daily(), None, NOW);
        });
        assert_eq!(slot(&store, &seat("acme", true, 1), &limits, NOW), Some(0));
        assert_eq!(store.value(COUNT_KEY).unwrap(), 1_u32.to_le_bytes());
    }

    #[test]
    fn a_slot_with_anothers_record_is_left_and_another_one_given() {
        let (store, limits) = (FakeStore::default(), daily());
        let mine = seat("acme", true, 0);
        let (_, first) = find(&store, &mine, &limits, None, NOW);
        let (place, second) = find(&store, &mine, &limits, first, NOW);
        assert_eq!((first, second), (Some(0), Some(1)));
        assert_eq!(find(&store, &mine, &limits, None, NOW), (place, Some(1)));
    }
}
