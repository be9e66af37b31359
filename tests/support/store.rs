//! A working store with versions, and a dial for races to lose.
#![allow(unreachable_pub, reason = "borrowed by unit tests as a private module")]

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};

use bursar::published::metric::Series;
use bursar::state::slots::SlotSeed;
use bursar::state::store::{PutError, Store, Version};

/// The same in all tests, so that they know who shares a slot.
pub const SLOT_SEED: SlotSeed = SlotSeed([0; 16]);

/// Compares versions as Envoy does, with one counter for all keys.
#[derive(Default)]
pub struct FakeStore {
    values: RefCell<HashMap<String, (Vec<u8>, u32)>>,
    last_version: Cell<u32>,
    gauges: RefCell<HashMap<String, u64>>,
    to_lose: Cell<u32>,
    down: Cell<bool>,
    lost_key: Cell<Option<&'static str>>,
    others: RefCell<VecDeque<Box<dyn FnOnce()>>>,
    calls: Cell<u64>,
    seed: Cell<Option<SlotSeed>>,
}

#[allow(
    dead_code,
    reason = "each test file that borrows this uses a part of it"
)]
impl FakeStore {
    /// The next `times` writes lose their race.
    pub fn lose(&self, times: u32) {
        self.to_lose.set(times);
    }

    /// From now on the store does not answer (or does again).
    pub fn set_down(&self, down: bool) {
        self.down.set(down);
    }

    /// Another worker does this just before the next write; given several, each before a write of its own.
    pub fn intrude(&self, other: impl FnOnce() + 'static) {
        self.others.borrow_mut().push_back(Box::new(other));
    }

    /// Nobody intrudes any more.
    pub fn calm(&self) {
        self.others.borrow_mut().clear();
    }

    /// From now on the store does not answer for keys that begin so.
    pub fn lose_keys(&self, prefix: &'static str) {
        self.lost_key.set(Some(prefix));
    }

    fn answers(&self, key: &str) -> bool {
        let lost = self.lost_key.get();
        !self.down.get() && !lost.is_some_and(|prefix| key.starts_with(prefix))
    }

    pub fn value(&self, key: &str) -> Option<Vec<u8>> {
        self.values
            .borrow()
            .get(key)
            .map(|(value, _)| value.clone())
    }

    /// Writes without asking, as a foreign plugin might.
    pub fn plant(&self, key: &str, value: &[u8]) {
        let version = self.last_version.get() + 1;
        self.last_version.set(version);
        self.values
            .borrow_mut()
            .insert(key.to_owned(), (value.to_vec(), version));
    }

    /// The secret of another process.
    pub fn set_seed(&self, seed: SlotSeed) {
        self.seed.set(Some(seed));
    }

    /// Reads and writes so far.
    pub fn calls(&self) -> u64 {
        self.calls.get()
    }

    /// What a gauge was set to last.
    pub fn gauge(&self, name: &str) -> Option<u64> {
        self.gauges.borrow().get(name).copied()
    }

    pub fn keys(&self) -> usize {
        self.values.borrow().len()
    }
}

impl Store for FakeStore {
    fn get(&self, key: &str) -> Result<Option<(Vec<u8>, Version)>, PutError> {
        self.calls.set(self.calls.get() + 1);
        if !self.answers(key) {
            return Err(PutError::Unavailable);
        }
        let values = self.values.borrow();
        Ok(values
            .get(key)
            .map(|(value, version)| (value.clone(), Version(*version))))
    }

    fn put(&self, key: &str, value: &[u8], expected: Option<Version>) -> Result<(), PutError> {
        self.calls.set(self.calls.get() + 1);
        let other = self.others.borrow_mut().pop_front();
        if let Some(other) = other {
            other();
        }
        if !self.answers(key) {
            return Err(PutError::Unavailable);
        }
        if let Some(left) = self.to_lose.get().checked_sub(1) {
            self.to_lose.set(left);
            return Err(PutError::Conflict);
        }
        let current = self
            .values
            .borrow()
            .get(key)
            .map(|(_, version)| Version(*version));
        if current != expected {
            return Err(PutError::Conflict);
        }
        self.plant(key, value);
        Ok(())
    }

    fn slot_seed(&self) -> SlotSeed {
        self.seed.get().unwrap_or(SLOT_SEED)
    }

    fn announce(&self, gauge: &Series, value: u64) {
        self.gauges.borrow_mut().insert(gauge.name(), value);
    }
}
