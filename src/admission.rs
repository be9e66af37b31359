//! Reserving and settling on a tenant's record, each in one compare-and-swap.
//!
//! **Bound.** Every admitted request has its ceiling (see [`crate::estimate`]) reserved before it leaves, in the same
//! write that saw that it fits: `spent + held + ceiling <= budget`. Settlement takes the reservation out and puts the
//! real usage in. So with any number of workers, as long as no request uses more than its ceiling, `spent` never
//! exceeds the budget; and where requests do use more, it exceeds it by no more than what they used beyond.

use crate::config::{FailureMode, Plan};
use crate::ledger::{Account, Reservation};
use crate::policy::{Ask, Decision, Limits, Reason, Refusal, decide, recheck, spent_out};
use crate::record::Record;
use crate::store::{
    Contended, OVERFLOW_KEY, Store, Updated, Write, owner_of, slot_keys, tenant_key, update,
};
use crate::telemetry::{self, Metric};
use crate::tenant::TenantId;
use crate::units::{Cost, Timestamp};
use std::rc::Rc;

/// Tries before a reservation gives up. Each lost try means that another worker progressed; with four workers in a
/// tight loop on one record about a third of the tries are lost, so this many in a row do not happen by chance.
const RESERVE_TRIES: u32 = 16;

/// Tries before a settlement gives up. It must not be lost, and it delays nobody.
const SETTLE_TRIES: u32 = 256;

/// Who pays for a request, and by which rules.
#[derive(Clone, Debug)]
pub struct Payer {
    /// Whose budget it is.
    pub id: TenantId,
    /// What the tenant may use.
    pub plan: Rc<Plan>,
    /// Whether the tenant is in the configuration, so that it has a key and metrics of its own.
    pub configured: bool,
}

/// A request that may leave, and what is held for it.
#[derive(Debug)]
pub struct Admission {
    /// Index of the tier that serves it.
    pub tier: usize,
    /// Why that is not the one it asked for.
    pub reason: Option<Reason>,
    /// The tenant's state just after; `None` if it could not be had.
    pub record: Option<Record>,
    key: String,
    /// What is held on the budget, if there is one and our state could be had.
    reservation: Option<Reservation>,
    /// What is held in the token bucket.
    cells: u64,
}

/// What became of a request.
#[derive(Debug)]
pub enum Outcome {
    /// It may leave.
    Admitted(Admission),
    /// It may not.
    Refused(Refused),
    /// Our own state could not be had, and the operator wants to refuse then.
    Unavailable,
}

/// A request that may not leave.
#[derive(Debug)]
pub struct Refused {
    /// Index of the tier that it would have been served at.
    pub tier: usize,
    /// Why not.
    pub refusal: Refusal,
    /// The state that says so.
    pub record: Record,
}

impl Payer {
    fn limits(&self) -> &Limits {
        &self.plan.limits
    }

    /// The owner that is written into a record.
    fn owner(&self, key: &str) -> u64 {
        if key == OVERFLOW_KEY {
            0
        } else {
            owner_of(self.id.as_str())
        }
    }

    /// The key of this tenant's record. For a tenant that is not configured, the slot that it has, else the first
    /// that is free, else the one that all others share.
    ///
    /// Two workers that see a slot fall free at different moments may give one such tenant two slots; its limits then
    /// hold for each of them until one is idle. Configured tenants have their own key.
    fn key(&self, store: &impl Store, now: Timestamp) -> String {
        if self.configured {
            return tenant_key(self.id.as_str());
        }
        let mut free = None;
        for key in slot_keys(owner_of(self.id.as_str())) {
            let bytes = store.get(&key).ok().flatten().map(|(bytes, _)| bytes);
            let record = bytes.and_then(|bytes| Record::decode(&bytes).ok());
            match record {
                Some(record) if record.owner == self.owner(&key) => {
                    // The shared one is the last resort, even if others use it already.
                    return if key == OVERFLOW_KEY {
                        free.unwrap_or(key)
                    } else {
                        key
                    };
                }
                Some(record) if !is_idle(&as_of(self.limits(), record.clone(), now)) => {}
                _ => free = free.or(Some(key)),
            }
        }
        free.unwrap_or_else(|| OVERFLOW_KEY.to_owned())
    }

    /// The record in `bytes` as of `now`, and whether they were no record at all. A slot that another tenant has left
    /// idle starts anew.
    fn read(&self, key: &str, bytes: Option<&[u8]>, now: Timestamp) -> (Record, bool) {
        let decoded = bytes.map(Record::decode);
        let corrupt = matches!(decoded, Some(Err(_)));
        let owner = self.owner(key);
        let record = decoded
            .and_then(Result::ok)
            .filter(|record| record.owner == owner);
        let record = record.unwrap_or_else(|| Record {
            owner,
            ..Record::default()
        });
        (as_of(self.limits(), record, now), corrupt)
    }
}

/// The record with its window rolled over and its bucket refilled, as far as the limits have them.
fn as_of(limits: &Limits, record: Record, now: Timestamp) -> Record {
    Record {
        owner: record.owner,
        bucket: limits
            .bucket
            .map_or(record.bucket, |quota| quota.refilled(record.bucket, now)),
        account: match limits.budget {
            Some(budget) => record.account.at(budget.period, now),
            None => record.account,
        },
    }
}

/// Whether nothing would be lost if the record were forgotten.
fn is_idle(record: &Record) -> bool {
    record.bucket.used == 0 && record.account.spent == Cost::ZERO && record.account.holds.is_empty()
}

/// Takes from all of the tenant's limits, or from none, and says at which tier the request may leave.
pub fn admit(
    store: &impl Store,
    payer: &Payer,
    ask: &Ask<'_>,
    mode: FailureMode,
    now: Timestamp,
) -> Updated<Outcome> {
    let key = payer.key(store, now);
    let step = |bytes: Option<&[u8]>| {
        let (record, corrupt) = payer.read(&key, bytes, now);
        if corrupt && mode == FailureMode::Deny {
            // Refused once: the next request finds a record.
            return Write {
                value: Some(record.encode()),
                report: Outcome::Unavailable,
            };
        }
        match decide(payer.limits(), ask, &record, now) {
            Decision::Refuse { tier, refusal } => {
                let refused = Refused {
                    tier,
                    refusal,
                    record,
                };
                Write {
                    value: None,
                    report: Outcome::Refused(refused),
                }
            }
            Decision::Admit {
                tier,
                reason,
                reserve,
            } => {
                let admission = hold(payer, ask, record, reserve, now, (&key, tier, reason));
                let value = admission.record.as_ref().map(Record::encode);
                Write {
                    value,
                    report: Outcome::Admitted(admission),
                }
            }
        }
    };
    update(store, &key, RESERVE_TRIES, step).unwrap_or_else(|Contended { conflicts }| Updated {
        report: match mode {
            FailureMode::Deny => Outcome::Unavailable,
            FailureMode::Allow => Outcome::Admitted(Admission {
                tier: ask.place.map_or(0, |place| place.asked),
                reason: None,
                record: None,
                key: key.clone(),
                reservation: None,
                cells: 0,
            }),
        },
        conflicts,
    })
}

/// Charges the record for an admitted request.
fn hold(
    payer: &Payer,
    ask: &Ask<'_>,
    mut record: Record,
    reserve: Cost,
    now: Timestamp,
    (key, tier, reason): (&str, usize, Option<Reason>),
) -> Admission {
    let limits = payer.limits();
    let cells = ask.estimate.cells();
    if let Some(quota) = &limits.bucket {
        record.bucket = quota.charge(record.bucket, cells, now);
    }
    let reservation = limits.budget.map(|_| record.account.reserve(reserve, now));
    Admission {
        tier,
        reason,
        record: Some(record),
        key: key.to_owned(),
        reservation,
        cells,
    }
}

/// Whether the tenant has spent all it may: told without reserving anything, before a request's body is there.
#[must_use]
pub fn is_spent_out(
    store: &impl Store,
    payer: &Payer,
    now: Timestamp,
) -> Option<(Refusal, Record)> {
    let key = payer.key(store, now);
    let (bytes, _) = store.get(&key).ok()??;
    let (record, _) = payer.read(&key, Some(&bytes), now);
    spent_out(payer.limits(), &record, now).map(|refusal| (refusal, record))
}

/// Reserves anew for a request whose cost is known better now. Its tier stays.
///
/// If it no longer fits, what was held is given back, and the refusal says why. If our own state cannot be had, the
/// request keeps what it holds.
pub fn amend(
    store: &impl Store,
    payer: &Payer,
    admission: &mut Admission,
    ask: &Ask<'_>,
    now: Timestamp,
) -> Updated<Option<(Refusal, Record)>> {
    let step = |bytes: Option<&[u8]>| {
        let (mut record, _) = payer.read(&admission.key, bytes, now);
        give_back(payer.limits(), &mut record, admission, now);
        match recheck(payer.limits(), ask, admission.tier, &record, now) {
            Err(refusal) => Write {
                value: Some(record.encode()),
                report: Err((refusal, record)),
            },
            Ok(reserve) => {
                let place = (admission.key.as_str(), admission.tier, admission.reason);
                let amended = hold(payer, ask, record, reserve, now, place);
                let value = amended.record.as_ref().map(Record::encode);
                Write {
                    value,
                    report: Ok(amended),
                }
            }
        }
    };
    match update(store, &admission.key, RESERVE_TRIES, step) {
        Ok(Updated {
            report: Ok(amended),
            conflicts,
        }) => {
            *admission = amended;
            Updated {
                report: None,
                conflicts,
            }
        }
        Ok(Updated {
            report: Err(refused),
            conflicts,
        }) => {
            admission.reservation = None;
            admission.cells = 0;
            Updated {
                report: Some(refused),
                conflicts,
            }
        }
        Err(Contended { conflicts }) => Updated {
            report: None,
            conflicts,
        },
    }
}

fn give_back(limits: &Limits, record: &mut Record, admission: &Admission, now: Timestamp) {
    if let Some(quota) = &limits.bucket {
        record.bucket = quota.settle(record.bucket, admission.cells, 0, now);
    }
    if let Some(reservation) = &admission.reservation {
        record.account.settle(reservation, Cost::ZERO);
    }
}

/// Replaces what is held for a request by what it used. The record after it; `None` if it could not be written.
pub fn settle(
    store: &impl Store,
    payer: &Payer,
    admission: &Admission,
    used: Cost,
    now: Timestamp,
) -> Updated<Option<Record>> {
    let step = |bytes: Option<&[u8]>| {
        let (mut record, _) = payer.read(&admission.key, bytes, now);
        let limits = payer.limits();
        if let Some(quota) = &limits.bucket {
            record.bucket = quota.settle(record.bucket, admission.cells, used.tokens.0, now);
        }
        match &admission.reservation {
            Some(reservation) => {
                record.account.settle(reservation, used);
            }
            // Let through while our state could not be had: what it used counts all the same.
            None if limits.budget.is_some() => charge(&mut record.account, used),
            None => {}
        }
        Write {
            value: Some(record.encode()),
            report: record,
        }
    };
    match update(store, &admission.key, SETTLE_TRIES, step) {
        Ok(Updated { report, conflicts }) => Updated {
            report: Some(report),
            conflicts,
        },
        Err(Contended { conflicts }) => Updated {
            report: None,
            conflicts,
        },
    }
}

/// What is left of a tenant's budget, to be read when it is told.
///
/// A gauge cannot be set in the same step as the record: between the two another worker may write its own, and
/// set the gauge before we do. So it is read again after it was told, until what was told is what is.
#[derive(Clone, Debug)]
pub struct Balance {
    payer: Payer,
    key: String,
}

impl Balance {
    /// What a settlement leaves. Only configured tenants with a budget have one to tell.
    #[must_use]
    pub fn of(payer: &Payer, admission: &Admission) -> Option<Self> {
        let tells = payer.configured && payer.limits().budget.is_some();
        tells.then(|| Self {
            payer: payer.clone(),
            key: admission.key.clone(),
        })
    }

    /// The gauge as of `now`.
    #[must_use]
    pub fn metric(&self, store: &impl Store, now: Timestamp) -> Option<Metric> {
        let (bytes, _) = store.get(&self.key).ok()??;
        let (record, _) = self.payer.read(&self.key, Some(&bytes), now);
        telemetry::remaining(self.payer.id.as_str(), self.payer.limits(), &record)
    }
}

fn charge(account: &mut Account, used: Cost) {
    account.spent = account.spent.plus(used);
}
