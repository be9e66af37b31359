//! Reserving and settling on a tenant's record, each in one compare-and-swap.
//!
//! **Bound.** Every admitted request has its ceiling (see [`crate::estimate`]) reserved before it leaves, in the same
//! write that saw that it fits: `spent + held + ceiling <= budget`. Settlement takes the reservation out and puts the
//! real usage in. So with any number of workers, as long as no request uses more than its ceiling, `spent` never
//! exceeds the budget; and where requests do use more, it exceeds it by no more than what they used beyond.

use crate::config::{FailureMode, Plan};
use crate::ledger::Reservation;
use crate::policy::{Ask, Decision, Limits, Reason, Refusal, decide, recheck, spent_out};
use crate::record::Record;
use crate::store::{
    Contended, OVERFLOW_KEY, Store, Troubles, Updated, Write, owner_of, slot_keys, tenant_key,
    update,
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
            Some(budget) => record.account.at(&budget, now),
            None => record.account,
        },
    }
}

/// Whether nothing would be lost if the record were forgotten.
fn is_idle(record: &Record) -> bool {
    record.bucket.used == 0 && record.account.spent == Cost::ZERO && record.account.holds.is_empty()
}

/// What came out of a change of a tenant's state, and what went wrong on the way.
#[derive(Debug)]
pub struct Done<T> {
    /// What came out.
    pub report: T,
    /// What is to be counted.
    pub troubles: Troubles,
}

/// A record after a step, whether it is to be written, and what the step says.
struct Stepped<T> {
    record: Record,
    write: bool,
    report: T,
}

impl Payer {
    /// Changes the record under `key` by a pure step, which is told whether there was no record but a corrupt value.
    fn change<T>(
        &self,
        store: &impl Store,
        key: &str,
        tries: u32,
        now: Timestamp,
        step: impl Fn(Record, bool) -> Stepped<T>,
    ) -> Result<Done<(Record, T)>, Troubles> {
        let updated = update(store, key, tries, |bytes| {
            let (record, corrupt) = self.read(key, bytes, now);
            let Stepped {
                record,
                write,
                report,
            } = step(record, corrupt);
            Write {
                value: write.then(|| record.encode()),
                report: (record, report, corrupt),
            }
        });
        match updated {
            Ok(Updated {
                report: (record, report, corrupt),
                conflicts,
            }) => Ok(Done {
                report: (record, report),
                troubles: Troubles { conflicts, corrupt },
            }),
            Err(Contended { conflicts }) => Err(Troubles {
                conflicts,
                corrupt: false,
            }),
        }
    }

    /// Charges the record for an admitted request: what it holds on the budget, if there is one.
    fn hold(
        &self,
        record: &mut Record,
        cells: u64,
        reserve: Cost,
        now: Timestamp,
    ) -> Option<Reservation> {
        let limits = self.limits();
        if let Some(quota) = &limits.bucket {
            record.bucket = quota.charge(record.bucket, cells, now);
        }
        limits
            .budget
            .map(|budget| record.account.reserve(reserve, &budget, now))
    }

    /// Replaces what a request holds by what it used.
    fn close(&self, record: &mut Record, admission: &Admission, used: Cost, now: Timestamp) {
        let limits = self.limits();
        if let Some(quota) = &limits.bucket {
            record.bucket = quota.settle(record.bucket, admission.cells, used.tokens.0, now);
        }
        match &admission.reservation {
            Some(reservation) => {
                record.account.settle(reservation, used);
            }
            // Let through while our state could not be had: what it used counts all the same.
            None if limits.budget.is_some() => {
                record.account.spent = record.account.spent.plus(used);
            }
            None => {}
        }
    }
}

/// What a step decides.
enum Verdict {
    Admitted {
        tier: usize,
        reason: Option<Reason>,
        reservation: Option<Reservation>,
    },
    Refused {
        tier: usize,
        refusal: Refusal,
    },
    Corrupt,
}

/// Takes from all of the tenant's limits, or from none, and says at which tier the request may leave.
pub fn admit(
    store: &impl Store,
    payer: &Payer,
    ask: &Ask<'_>,
    mode: FailureMode,
    now: Timestamp,
) -> Done<Outcome> {
    let key = payer.key(store, now);
    let cells = ask.estimate.cells();
    let step = |mut record: Record, corrupt: bool| {
        if corrupt && mode == FailureMode::Deny {
            // Refused once: the next request finds a record.
            return Stepped {
                record,
                write: true,
                report: Verdict::Corrupt,
            };
        }
        match decide(payer.limits(), ask, &record, now) {
            Decision::Refuse { tier, refusal } => Stepped {
                record,
                write: false,
                report: Verdict::Refused { tier, refusal },
            },
            Decision::Admit {
                tier,
                reason,
                reserve,
            } => {
                let reservation = payer.hold(&mut record, cells, reserve, now);
                Stepped {
                    record,
                    write: true,
                    report: Verdict::Admitted {
                        tier,
                        reason,
                        reservation,
                    },
                }
            }
        }
    };
    match payer.change(store, &key, RESERVE_TRIES, now, step) {
        Ok(Done {
            report: (record, verdict),
            troubles,
        }) => {
            let report = match verdict {
                Verdict::Admitted {
                    tier,
                    reason,
                    reservation,
                } => Outcome::Admitted(Admission {
                    tier,
                    reason,
                    record: Some(record),
                    key,
                    reservation,
                    cells,
                }),
                Verdict::Refused { tier, refusal } => Outcome::Refused(Refused {
                    tier,
                    refusal,
                    record,
                }),
                Verdict::Corrupt => Outcome::Unavailable,
            };
            Done { report, troubles }
        }
        Err(troubles) => Done {
            report: without_state(key, ask, mode),
            troubles,
        },
    }
}

/// What becomes of a request when our own state cannot be had.
fn without_state(key: String, ask: &Ask<'_>, mode: FailureMode) -> Outcome {
    match mode {
        FailureMode::Deny => Outcome::Unavailable,
        FailureMode::Allow => Outcome::Admitted(Admission {
            tier: ask.place.map_or(0, |place| place.asked),
            reason: None,
            record: None,
            key,
            reservation: None,
            cells: 0,
        }),
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
) -> Done<Option<(Refusal, Record)>> {
    let cells = ask.estimate.cells();
    let step = |mut record: Record, _: bool| {
        payer.close(&mut record, admission, Cost::ZERO, now);
        let report = recheck(payer.limits(), ask, admission.tier, &record, now)
            .map(|reserve| payer.hold(&mut record, cells, reserve, now));
        Stepped {
            record,
            write: true,
            report,
        }
    };
    match payer.change(store, &admission.key, RESERVE_TRIES, now, step) {
        Ok(Done {
            report: (record, Ok(reservation)),
            troubles,
        }) => {
            admission.reservation = reservation;
            admission.cells = cells;
            admission.record = Some(record);
            Done {
                report: None,
                troubles,
            }
        }
        Ok(Done {
            report: (record, Err(refusal)),
            troubles,
        }) => {
            admission.reservation = None;
            admission.cells = 0;
            Done {
                report: Some((refusal, record)),
                troubles,
            }
        }
        Err(troubles) => Done {
            report: None,
            troubles,
        },
    }
}

/// Keeps what a request holds from expiring while its answer still comes. To be called now and then.
pub fn renew(
    store: &impl Store,
    payer: &Payer,
    admission: &mut Admission,
    now: Timestamp,
) -> Troubles {
    let Some(budget) = &payer.limits().budget else {
        return Troubles::default();
    };
    let Some(reservation) = &admission.reservation else {
        return Troubles::default();
    };
    let half_time = budget.reservation_expiry.checked_div(2).unwrap_or_default();
    if now.since(reservation.since()) < half_time {
        return Troubles::default();
    }
    let step = |mut record: Record, _: bool| {
        let report = record.account.renew(reservation, budget, now);
        Stepped {
            record,
            write: true,
            report,
        }
    };
    match payer.change(store, &admission.key, RESERVE_TRIES, now, step) {
        Ok(Done {
            report: (_, renewed),
            troubles,
        }) => {
            // In a window that has ended nothing is held any more, and the settlement must know.
            if let Some(renewed) = renewed {
                admission.reservation = Some(renewed);
            }
            troubles
        }
        Err(troubles) => troubles,
    }
}

/// Replaces what is held for a request by what it used. The record after it; `None` if it could not be written.
pub fn settle(
    store: &impl Store,
    payer: &Payer,
    admission: &Admission,
    used: Cost,
    now: Timestamp,
) -> Done<Option<Record>> {
    let step = |mut record: Record, _: bool| {
        payer.close(&mut record, admission, used, now);
        Stepped {
            record,
            write: true,
            report: (),
        }
    };
    match payer.change(store, &admission.key, SETTLE_TRIES, now, step) {
        Ok(Done {
            report: (record, ()),
            troubles,
        }) => Done {
            report: Some(record),
            troubles,
        },
        Err(troubles) => Done {
            report: None,
            troubles,
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
