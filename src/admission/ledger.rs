//! A tenant's record in shared data: under which key it is, and how it is read and changed, by one compare-and-swap at a time.

use crate::admission::hold::balance;
use crate::admission::tenant::Tenant;
use crate::base::units::Timestamp;
use crate::config::FailureMode;
use crate::limits::stacked::{self, Entry, State};
use crate::plan::Limits;
use crate::published::metric::Series;
use crate::state::record::Record;
use crate::state::slots::{OVERFLOW_KEY, owner_of, slot_keys};
use crate::state::store::{
    Contended, Known, StateFaults, Store, Updated, Write, tenant_key, update_known,
};

/// A tenant's record, as one callback of the proxy reads and changes it.
#[derive(Debug)]
pub struct Ledger<'a, S> {
    pub(crate) store: &'a S,
    pub(crate) tenant: &'a Tenant,
    pub(crate) mode: FailureMode,
    pub(crate) now: Timestamp,
    /// The faults of our own state so far, which are to be counted.
    pub faults: StateFaults,
    /// The tenants about whose shared budgets lines are due, and when, after the last admission.
    pub(super) due: Vec<(Tenant, Timestamp)>,
}

/// The key of a record, and the owner that the record must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) key: String,
    /// The owner's hash in the record, if several owners may use the key one after the other.
    pub(crate) owner: u64,
}

/// The result of a step on a record.
pub(crate) enum Attempt<T> {
    /// The step was written: the record after the step, rolled forward to now, and what the step reports.
    Made(Box<Record>, T),
    /// The slot belongs to another tenant by now, and nothing was written.
    SlotTaken,
    /// Other workers won every race, or the store does not answer.
    GivenUp,
}

/// How often a step is tried, and the value on which it is tried first.
pub(crate) struct Tries {
    pub(crate) most: u32,
    /// What was read a moment ago.
    pub(crate) known: Option<Known>,
}

impl From<u32> for Tries {
    fn from(most: u32) -> Self {
        Self { most, known: None }
    }
}

impl<'a, S: Store> Ledger<'a, S> {
    /// A ledger for the record of `tenant`. `mode`: what to do if the record is unavailable.
    pub fn new(store: &'a S, tenant: &'a Tenant, mode: FailureMode, now: Timestamp) -> Self {
        Self {
            store,
            tenant,
            mode,
            now,
            faults: StateFaults::default(),
            due: Vec::new(),
        }
    }

    /// The place of the tenant's record. For a tenant that is not configured, this is the slot that it has, or else the first
    /// that is free, or else the one that all others share.
    ///
    /// Two workers that see a slot fall free at different moments may give one such tenant two slots; its limits then
    /// hold for each of them until one is idle. Configured tenants have their own key.
    pub(crate) fn place(&self) -> Place {
        let id = self.tenant.id.account();
        if self.tenant.configured {
            return Place {
                key: tenant_key(id),
                owner: owner_of(id),
            };
        }
        let place = |key: String| Place {
            // The overflow slot has no owner.
            owner: if key == OVERFLOW_KEY { 0 } else { owner_of(id) },
            key,
        };
        let mut free = None;
        for place in slot_keys(self.store.slot_seed(), id).into_iter().map(place) {
            let bytes = self.store.get(&place.key).ok().flatten();
            let record = bytes.and_then(|(bytes, _)| Record::decode(&bytes).ok());
            let is_free = match record {
                Some(record) if record.owner == place.owner => {
                    // The overflow slot is the last resort, even if others use it already.
                    return match place.owner {
                        0 => free.unwrap_or(place),
                        _ => place,
                    };
                }
                Some(record) => is_idle(self.tenant.limits(), record, self.now),
                None => true,
            };
            if is_free {
                free = free.or(Some(place));
            }
        }
        free.unwrap_or_else(Place::overflow)
    }

    /// The tenant's record as of now, if there is one.
    pub(crate) fn record(&self) -> Option<Box<Record>> {
        let place = self.place();
        let (bytes, _) = self.store.get(&place.key).ok()??;
        match read(&place, self.tenant.limits(), Some(&bytes), self.now) {
            Found::Ours(mut record) => {
                roll_forward(&mut record, self.tenant.limits(), self.now);
                Some(record)
            }
            Found::Corrupt(_) | Found::Taken => None,
        }
    }

    /// Changes a record by a pure step. The step is passed whether the stored value was corrupt, and returns whether the record is to be
    /// written. `limits`: the limits whose states are in the record.
    pub(crate) fn change<T>(
        &mut self,
        place: &Place,
        limits: &Limits,
        tries: impl Into<Tries>,
        step: impl Fn(&mut Record, bool) -> (Writes, T),
    ) -> Attempt<T> {
        self.change_publishing(place, limits, tries, step, |_| None)
    }

    /// As [`Ledger::change`], with a gauge that follows from the record.
    pub(crate) fn change_publishing<T>(
        &mut self,
        place: &Place,
        limits: &Limits,
        tries: impl Into<Tries>,
        step: impl Fn(&mut Record, bool) -> (Writes, T),
        gauge: impl Fn(&Record) -> Option<(Series, u64)>,
    ) -> Attempt<T> {
        let now = self.now;
        let write = |bytes: Option<&[u8]>| {
            let (mut record, corrupt) = match read(place, limits, bytes, now) {
                Found::Ours(record) => (record, false),
                Found::Corrupt(record) => (record, true),
                Found::Taken => {
                    return Write {
                        value: None,
                        report: (None, false),
                    };
                }
            };
            let (writes, report) = step(&mut record, corrupt);
            let value = (writes == Writes::Yes).then(|| record.encode());
            roll_forward(&mut record, limits, now);
            Write {
                value,
                report: (Some((record, report)), corrupt),
            }
        };
        let gauge = |(made, _): &(Option<(Box<Record>, T)>, bool)| {
            made.as_ref().and_then(|(record, _)| gauge(record))
        };
        let Tries { most, known } = tries.into();
        let updated = update_known(self.store, &place.key, most, known, write, gauge);
        let (attempt, corrupt, conflicts) = match updated {
            Ok(Updated {
                report: (made, corrupt),
                conflicts,
            }) => {
                let made = made.map(|(record, report)| Attempt::Made(record, report));
                (made.unwrap_or(Attempt::SlotTaken), corrupt, conflicts)
            }
            Err(Contended { conflicts }) => (Attempt::GivenUp, false, conflicts),
        };
        self.count(StateFaults {
            conflicts,
            corrupt,
            given_up: matches!(attempt, Attempt::GivenUp).into(),
        });
        attempt
    }

    /// Counts what went wrong.
    pub(crate) fn count(&mut self, faults: StateFaults) {
        self.faults = self.faults.and(faults);
    }
}

impl Place {
    /// The slot that all tenants without a slot of their own share.
    pub(crate) fn overflow() -> Self {
        Self {
            key: OVERFLOW_KEY.to_owned(),
            owner: 0,
        }
    }
}

/// Whether a step changes what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writes {
    Yes,
    No,
}

/// What is stored under a key. Boxed, since records are large and moved often.
pub(crate) enum Found {
    /// The record that was looked for, or a new one.
    Ours(Box<Record>),
    /// A new record in place of a value that is not a record.
    Corrupt(Box<Record>),
    /// Another owner's record, in a slot that both may use.
    Taken,
}

/// The record in `bytes`; or a new record, if there is none, if it is corrupt, or if it is another owner's idle record in a shared slot.
pub(crate) fn read(
    &Place { owner, .. }: &Place,
    limits: &Limits,
    bytes: Option<&[u8]>,
    now: Timestamp,
) -> Found {
    let new = || {
        Box::new(Record {
            owner,
            ..Record::default()
        })
    };
    match bytes.map(Record::decode) {
        None => Found::Ours(new()),
        Some(Err(_)) => Found::Corrupt(new()),
        Some(Ok(record)) if record.owner == owner => Found::Ours(Box::new(record)),
        Some(Ok(record)) => match is_idle(limits, record, now) {
            true => Found::Ours(new()),
            false => Found::Taken,
        },
    }
}

/// Rolls a record forward to `now`: begins the windows and refills the buckets that the limits have.
pub(crate) fn roll_forward(record: &mut Record, limits: &Limits, now: Timestamp) {
    if let Some(quota) = &limits.bucket {
        record.bucket = quota.refilled(record.bucket, now);
    }
    if !limits.others.is_empty() || !record.others.is_empty() {
        stacked::roll_forward(&limits.others, &mut record.others, now);
    }
    if let Some(budget) = &limits.budget {
        stacked::roll_account(&mut record.account, budget, &mut record.others, now);
    }
    balance(limits, record, None, now);
}

/// A new record, in which nothing is used.
pub(crate) fn fresh(limits: &Limits, now: Timestamp) -> Record {
    let mut record = Record::default();
    roll_forward(&mut record, limits, now);
    record
}

/// Whether deleting the record would lose nothing except what was learned from its tenant's requests.
pub(crate) fn is_idle(limits: &Limits, mut record: Record, now: Timestamp) -> bool {
    roll_forward(&mut record, limits, now);
    let is_idle = |entry: &Entry| match &entry.state {
        State::Account(account) => account.is_untouched(),
        State::Bucket(bucket) => bucket.used == 0,
    };
    record.bucket.used == 0 && record.account.is_untouched() && record.others.iter().all(is_idle)
}
