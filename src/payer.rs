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

/// A record as it is after a step, and what the step said.
pub(crate) struct Changed<T> {
    pub(crate) record: Box<Record>,
    pub(crate) report: T,
}

impl Payer {
    /// Fields of the access log for whose request it is.
    pub fn identified(&self) -> impl Iterator<Item = Field> {
        telemetry::identified(self.id.name(), Some(&self.plan.name))
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
            let is_free = match record {
                Some(record) if record.owner == self.owner(&key) => {
                    // The shared one is the last resort, even if others use it already.
                    return if key == OVERFLOW_KEY {
                        free.unwrap_or(key)
                    } else {
                        key
                    };
                }
                Some(record) => is_idle(self.limits(), record, now),
                None => true,
            };
            if is_free {
                free = free.or(Some(key));
            }
        }
        free.unwrap_or_else(|| OVERFLOW_KEY.to_owned())
    }

    /// The record in `bytes`, or a new one in the place of none, of a corrupt one, and of one that another tenant has left
    /// idle in a shared slot.
    fn read(&self, key: &str, bytes: Option<&[u8]>, now: Timestamp) -> Found {
        let owner = self.owner(key);
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
            Some(Ok(record)) => match is_idle(self.limits(), record, now) {
                true => Found::Ours(new()),
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
    ) -> Result<Done<Option<Changed<T>>>, Troubles> {
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
    ) -> Result<Done<Option<Changed<T>>>, Troubles> {
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
            bring(&mut record, self.limits(), now);
            Write {
                value,
                report: (Some(Changed { record, report }), corrupt),
            }
        };
        let told = |(changed, _): &(Option<Changed<T>>, bool)| {
            changed.as_ref().and_then(|changed| gauge(&changed.record))
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
    pub(crate) fn look(
        &self,
        store: &impl Store,
        key: &str,
        now: Timestamp,
    ) -> Option<Box<Record>> {
        let (bytes, _) = store.get(key).ok()??;
        match self.read(key, Some(&bytes), now) {
            Found::Ours(mut record) => {
                bring(&mut record, self.limits(), now);
                Some(record)
            }
            Found::Corrupt(_) | Found::Taken => None,
        }
    }
}

/// What is under a key. Boxed, since records are moved about and large.
enum Found {
    /// The tenant's record, or a new one.
    Ours(Box<Record>),
    /// A new record in the place of a value that is none.
    Corrupt(Box<Record>),
    /// Another tenant's record, in a slot that both may use.
    Taken,
}

/// Rolls a record's window over and refills its bucket, as far as the limits have them.
pub(crate) fn bring(record: &mut Record, limits: &Limits, now: Timestamp) {
    if let Some(quota) = limits.bucket {
        record.bucket = quota.refilled(record.bucket, now);
    }
    if let Some(budget) = &limits.budget {
        record.account.advance(budget, now);
    }
}

/// Whether nothing would be lost if the record were forgotten but what its tenant's requests taught.
fn is_idle(limits: &Limits, mut record: Record, now: Timestamp) -> bool {
    bring(&mut record, limits, now);
    record.bucket.used == 0 && record.account.spent == Cost::ZERO && record.account.holds.is_empty()
}
