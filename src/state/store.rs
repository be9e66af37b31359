//! Shared state as bytes with versions, changed only by compare-and-swap.
//!
//! This module defines keys and handles races; [`crate::state::record`] defines what the bytes mean. Keys are few and
//! bounded, since the host can neither list nor delete them: one for each configured tenant,
//! [`SLOTS`](crate::state::slots::SLOTS) (and two more) for all tenants that are not configured, however many ids are made up,
//! [`ALL_SUBJECTS`](crate::state::subjects::ALL_SUBJECTS) (and two for each tenant and kind of them) for all subjects, one for each
//! capacity that tenants share, and, where there is a report, one more for each configured tenant and one for all others.

use crate::published::metric::Series;
use crate::state::slots::SlotSeed;

/// The version of a stored value, known only to the store that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(pub u32);

/// Why nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutError {
    /// The value is no longer the one that was read.
    Conflict,
    /// The store did not answer.
    Unavailable,
}

/// The store does not answer, or every try was lost to another worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contended {
    /// Compare-and-swap steps lost on the way.
    pub conflicts: u64,
}

/// Faults of our own state, which are to be counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateFaults {
    /// Compare-and-swap steps lost to other workers.
    pub conflicts: u64,
    /// Whether there was a value under the tenant's key that is no record: truncated, older, or another plugin's.
    pub corrupt: bool,
    /// Steps that were given up: requests that were decided without our state, and settlements that were lost.
    pub given_up: u64,
}

impl StateFaults {
    /// The sum of these faults and `other` ones.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            conflicts: self.conflicts.saturating_add(other.conflicts),
            corrupt: self.corrupt || other.corrupt,
            given_up: self.given_up.saturating_add(other.given_up),
        }
    }
}

/// Shared state with versions.
pub trait Store {
    /// The value under `key` and its version, if there is one.
    ///
    /// # Errors
    /// [`PutError::Unavailable`] if the store does not answer.
    fn get(&self, key: &str) -> Result<Option<(Vec<u8>, Version)>, PutError>;

    /// Writes `value` if the version under `key` is still `expected`, where `None` means that there is no value yet.
    ///
    /// # Errors
    /// [`PutError::Conflict`] if it is not, and nothing was written.
    fn put(&self, key: &str, value: &[u8], expected: Option<Version>) -> Result<(), PutError>;

    /// The seed by which tenants that are not configured find their slots (see [`SlotSeed::agree`]).
    fn slot_seed(&self) -> SlotSeed;

    /// Sets a gauge to the value that will be right once the next put succeeds (see [`update_telling`]).
    fn announce(&self, gauge: &Series, value: u64);
}

/// What a step asks to be written, and what it reports.
pub struct Write<T> {
    /// `None` writes nothing.
    pub value: Option<Vec<u8>>,
    /// Returned by [`update`] once the value is written.
    pub report: T,
}

/// The result of an update.
#[derive(Debug, PartialEq, Eq)]
pub struct Updated<T> {
    /// What the winning step reported.
    pub report: T,
    /// Compare-and-swap steps lost on the way.
    pub conflicts: u64,
}

/// Changes the value under `key` by a pure step.
///
/// # Errors
/// As [`update_telling`].
pub fn update<T>(
    store: &impl Store,
    key: &str,
    tries: u32,
    step: impl Fn(Option<&[u8]>) -> Write<T>,
) -> Result<Updated<T>, Contended> {
    update_telling(store, key, tries, step, |_| None)
}

/// Changes the value under `key` by a pure step, and publishes a gauge that follows from it.
///
/// A gauge cannot be set in the same step as the value. The gauge is set before each put, so that the value need not be read again to see
/// whether another worker came between: a worker that loses the race sets the gauge again with its next try, and the worker that sets the
/// gauge last has also written the value last.
///
/// `step` may run several times, each time on the newest value, and must not have effects. Workers hold no lock: each
/// lost try means that another worker progressed.
///
/// # Errors
/// [`Contended`] after `tries` lost races, or if the store does not answer. Nothing was written then.
pub fn update_telling<T>(
    store: &impl Store,
    key: &str,
    tries: u32,
    step: impl Fn(Option<&[u8]>) -> Write<T>,
    gauge: impl Fn(&T) -> Option<(Series, u64)>,
) -> Result<Updated<T>, Contended> {
    update_known(store, key, tries, None, step, gauge)
}

/// A value that was read a moment ago, with its version.
pub type Known = Option<(Vec<u8>, Version)>;

/// As [`update_telling`]. `known`: the value that the first try starts from, instead of a read.
///
/// # Errors
/// As [`update_telling`].
pub fn update_known<T>(
    store: &impl Store,
    key: &str,
    tries: u32,
    mut known: Option<Known>,
    step: impl Fn(Option<&[u8]>) -> Write<T>,
    gauge: impl Fn(&T) -> Option<(Series, u64)>,
) -> Result<Updated<T>, Contended> {
    let mut conflicts: u64 = 0;
    for _ in 0..tries {
        let current = known.take().map_or_else(|| store.get(key), Ok);
        let Ok(current) = current else { break };
        let (old, version) = current.unzip();
        let Write { value, report } = step(old.as_deref());
        if value.is_some()
            && let Some((name, value)) = gauge(&report)
        {
            store.announce(&name, value);
        }
        match value.map_or(Ok(()), |value| store.put(key, &value, version)) {
            Ok(()) => return Ok(Updated { report, conflicts }),
            Err(PutError::Conflict) => conflicts = conflicts.saturating_add(1),
            Err(PutError::Unavailable) => break,
        }
    }
    Err(Contended { conflicts })
}

/// Name of the key of a configured tenant. Other plugins may share the host's namespace, hence the prefix.
#[must_use]
pub fn tenant_key(tenant: &str) -> String {
    ["bursar/v1/t/", tenant].concat()
}

/// The key of the times that a model's answers take to begin, for streamed ones or for whole ones. A model is on one tier only, so its
/// name identifies the tier, even if the tier is renamed or moved.
#[must_use]
pub fn latency_key(answer: &str, model: &str) -> String {
    format!("bursar/v1/latency/{answer}/{model}")
}

/// Name of the key of a capacity. It contains the model, because that is what an upstream limits, and a model appears only once in a
/// configuration: so what was taken is still known after tiers were renamed or moved to another ladder.
#[must_use]
pub fn capacity_key(model: &str) -> String {
    format!("bursar/v1/capacity/{model}")
}

/// Name of the key of the list of a tenant's counters, for the operators' report.
#[must_use]
pub fn counted_key(tenant: &str) -> String {
    ["bursar/v1/counted/", tenant].concat()
}

/// The key of what is known about upstreams that refuse requests.
pub const PRESSURE_KEY: &str = "bursar/v1/pressed";

/// Name of the key of the limit that an upstream reports for a model.
#[must_use]
pub fn learned_key(model: &str) -> String {
    format!("bursar/v1/learned/{model}")
}

/// Name of the key of a configured tenant's conversations.
#[must_use]
pub fn conversations_key(tenant: &str) -> String {
    format!("bursar/v1/c/{tenant}")
}

#[cfg(test)]
#[path = "../../tests/support/store.rs"]
pub(crate) mod fake;

#[cfg(test)]
mod tests {
    use super::fake::FakeStore;
    use super::*;
    use crate::published::metric::{Family, Label};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn add_one(old: Option<&[u8]>) -> Write<u8> {
        let next = old.map_or(1, |old| old[0] + 1);
        Write {
            value: Some(vec![next]),
            report: next,
        }
    }

    #[test]
    fn a_lost_race_is_tried_again_on_the_newest_value() {
        let store = FakeStore::default();
        assert_eq!(
            update(&store, "k", 4, add_one),
            Ok(Updated {
                report: 1,
                conflicts: 0
            })
        );
        store.lose(2);
        assert_eq!(
            update(&store, "k", 4, add_one),
            Ok(Updated {
                report: 2,
                conflicts: 2
            })
        );
        assert_eq!(store.value("k"), Some(vec![2]));
    }

    // The host compares versions only if the key already exists.
    #[test]
    fn the_first_write_of_a_key_is_a_race_like_any_other() {
        let store = FakeStore::default();
        assert_eq!(store.put("k", &[7], None), Ok(()));
        assert_eq!(store.put("k", &[8], None), Err(PutError::Conflict));
        assert_eq!(store.value("k"), Some(vec![7]));
    }

    #[test]
    fn tries_are_bounded_and_a_lost_update_writes_nothing() {
        let store = FakeStore::default();
        store.lose(4);
        assert_eq!(
            update(&store, "k", 4, add_one),
            Err(Contended { conflicts: 4 })
        );
        assert_eq!(store.value("k"), None);
    }

    #[test]
    fn a_step_that_wants_nothing_written_writes_nothing() {
        let store = FakeStore::default();
        let look = |old: Option<&[u8]>| Write {
            value: None,
            report: old.is_some(),
        };
        assert_eq!(
            update(&store, "k", 1, look),
            Ok(Updated {
                report: false,
                conflicts: 0
            })
        );
        assert_eq!(store.value("k"), None);
    }

    /// A worker with a store in which another worker's whole update comes between, after this many more calls.
    struct Between<'a> {
        store: &'a FakeStore,
        calls_before: std::cell::Cell<u32>,
    }

    impl Between<'_> {
        fn call(&self) {
            let left = self.calls_before.get();
            self.calls_before.set(left.wrapping_sub(1));
            if left == 0 {
                count(self.store);
            }
        }
    }

    impl Store for Between<'_> {
        fn get(&self, key: &str) -> Result<Option<(Vec<u8>, Version)>, PutError> {
            self.call();
            self.store.get(key)
        }

        fn put(&self, key: &str, value: &[u8], expected: Option<Version>) -> Result<(), PutError> {
            self.call();
            self.store.put(key, value, expected)
        }

        fn slot_seed(&self) -> SlotSeed {
            self.store.slot_seed()
        }

        fn announce(&self, gauge: &Series, value: u64) {
            self.call();
            self.store.announce(gauge, value);
        }
    }

    fn gauge() -> Series {
        static COUNT: Family = Family::new("count", ["", "", ""]);
        COUNT.of(["", "", ""].map(Label::Word))
    }

    /// Adds one to the stored number.
    fn count(store: &impl Store) {
        let step = |old: Option<&[u8]>| {
            let count = old.map_or(1, |old| old[0] + 1);
            Write {
                value: Some(vec![count]),
                report: count,
            }
        };
        let gauge = |count: &u8| Some((gauge(), u64::from(*count)));
        update_telling(store, "k", 8, step, gauge).unwrap();
    }

    #[test]
    fn the_gauge_that_was_told_last_is_true_wherever_another_worker_comes_between() {
        // The other worker comes before each of the three calls of the first try, and of the three of the second.
        for calls_before in 0..6 {
            let store = FakeStore::default();
            let between = Between {
                store: &store,
                calls_before: calls_before.into(),
            };
            count(&between);
            let both = if calls_before < 3 { 2 } else { 1 };
            assert_eq!(
                store.value("k"),
                Some(vec![both]),
                "before call {calls_before}"
            );
            assert_eq!(
                store.gauge("count"),
                Some(both.into()),
                "before call {calls_before}"
            );
        }
    }

    #[test]
    fn nothing_is_told_where_nothing_is_written() {
        let store = FakeStore::default();
        let look = |_: Option<&[u8]>| Write {
            value: None,
            report: (),
        };
        let gauge = |(): &()| Some((gauge(), 1));
        update_telling(&store, "k", 1, look, gauge).unwrap();
        assert_eq!(store.gauge("count"), None);
    }
}
