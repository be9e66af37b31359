//! Whose budget pays, where its record lies, and how it is read and changed: one compare-and-swap at a time.

use std::rc::Rc;

use crate::config::Plan;
use crate::policy::Limits;
use crate::record::Record;
use crate::series::Series;
use crate::store::{
    Contended, OVERFLOW_KEY, Store, Troubles, Updated, Write, owner_of, slot_keys, tenant_key,
    update_telling,
};
use crate::telemetry::{self, Field};
use crate::tenant::TenantId;
use crate::units::{Cost, Timestamp};

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

/// What came out of a change of a tenant's state, and what went wrong on the way.
#[derive(Debug)]
pub struct Done<T> {
    /// What came out.
    pub report: T,
    /// What is to be counted.
    pub troubles: Troubles,
}

/// Whether a record is to be written after a step, and what the step says.
pub(crate) struct Stepped<T> {
    pub(crate) write: bool,
    pub(crate) report: T,
}

impl Payer {
    /// Fields of the access log for whose request it is.
    #[must_use]
    pub fn identified(&self) -> Vec<Field> {
        telemetry::identified(self.id.as_str(), &self.plan.name)
    }

    pub(crate) fn limits(&self) -> &Limits {
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
    pub(crate) fn key(&self, store: &impl Store, now: Timestamp) -> String {
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

    /// The record in `bytes`, or a new one in the place of none, of a corrupt one, and of one that another tenant has left
    /// idle in a shared slot.
    fn read(&self, key: &str, bytes: Option<&[u8]>, now: Timestamp) -> Found {
        let owner = self.owner(key);
        let new = Record {
            owner,
            ..Record::default()
        };
        match bytes.map(Record::decode) {
            None => Found::Ours(new),
            Some(Err(_)) => Found::Corrupt(new),
            Some(Ok(record)) if record.owner == owner => Found::Ours(record),
            Some(Ok(record)) => match is_idle(&as_of(self.limits(), record, now)) {
                true => Found::Ours(new),
                false => Found::Taken,
            },
        }
    }

    /// Changes the record under `key` by a pure step, which is told whether there was a corrupt value. The record after it, as
    /// of `now`; `None` if it is another tenant's by now: nothing is written then.
    pub(crate) fn change<T>(
        &self,
        store: &impl Store,
        key: &str,
        tries: u32,
        now: Timestamp,
        step: impl Fn(&mut Record, bool) -> Stepped<T>,
    ) -> Result<Done<Option<(Record, T)>>, Troubles> {
        self.change_telling(store, key, tries, now, step, |_| None)
    }

    /// As [`Payer::change`], with a gauge that follows from the record.
    pub(crate) fn change_telling<T>(
        &self,
        store: &impl Store,
        key: &str,
        tries: u32,
        now: Timestamp,
        step: impl Fn(&mut Record, bool) -> Stepped<T>,
        gauge: impl Fn(&Record) -> Option<(Series, u64)>,
    ) -> Result<Done<Option<(Record, T)>>, Troubles> {
        let written = |bytes: Option<&[u8]>| {
            let (mut record, corrupt) = match self.read(key, bytes, now) {
                Found::Ours(record) => (record, false),
                Found::Corrupt(record) => (record, true),
                Found::Taken => {
                    return Write {
                        value: None,
                        report: (None, false),
                    };
                }
            };
            let Stepped { write, report } = step(&mut record, corrupt);
            let value = write.then(|| record.encode());
            let record = as_of(self.limits(), record, now);
            Write {
                value,
                report: (Some((record, report)), corrupt),
            }
        };
        let told = |(changed, _): &(Option<(Record, T)>, bool)| {
            changed.as_ref().and_then(|(record, _)| gauge(record))
        };
        let updated = update_telling(store, key, tries, written, told);
        match updated {
            Ok(Updated {
                report: (report, corrupt),
                conflicts,
            }) => Ok(Done {
                report,
                troubles: Troubles {
                    conflicts,
                    corrupt,
                    given_up: 0,
                },
            }),
            Err(Contended { conflicts }) => Err(Troubles {
                conflicts,
                corrupt: false,
                given_up: 1,
            }),
        }
    }

    /// The tenant's record under `key` as of `now`, if there is one.
    pub(crate) fn look(&self, store: &impl Store, key: &str, now: Timestamp) -> Option<Record> {
        let (bytes, _) = store.get(key).ok()??;
        match self.read(key, Some(&bytes), now) {
            Found::Ours(record) => Some(as_of(self.limits(), record, now)),
            Found::Corrupt(_) | Found::Taken => None,
        }
    }
}

/// What is under a key.
enum Found {
    /// The tenant's record, or a new one.
    Ours(Record),
    /// A new record in the place of a value that is none.
    Corrupt(Record),
    /// Another tenant's record, in a slot that both may use.
    Taken,
}

/// The record with its window rolled over and its bucket refilled, as far as the limits have them.
pub(crate) fn as_of(limits: &Limits, record: Record, now: Timestamp) -> Record {
    Record {
        bucket: limits
            .bucket
            .map_or(record.bucket, |quota| quota.refilled(record.bucket, now)),
        account: match limits.budget {
            Some(budget) => record.account.at(&budget, now),
            None => record.account,
        },
        ..record
    }
}

/// Whether nothing would be lost if the record were forgotten but what its tenant's requests taught.
fn is_idle(record: &Record) -> bool {
    record.bucket.used == 0 && record.account.spent == Cost::ZERO && record.account.holds.is_empty()
}
