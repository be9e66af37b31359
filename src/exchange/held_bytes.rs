//! The memory that waiting bodies take in a worker: one counter, and each request's share of it.

use std::cell::Cell;
use std::rc::Rc;

/// Bytes of request bodies that wait in this worker's memory. The edge has one, and gives it to each exchange.
#[derive(Clone, Debug, Default)]
pub struct HeldBytes(Rc<Cell<u64>>);

impl HeldBytes {
    /// Bytes of all waiting bodies.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.get()
    }
}

/// One request's share of that memory, given back when the request is dropped, whatever ended it.
#[derive(Debug)]
pub(super) struct Share {
    all: HeldBytes,
    own: u64,
}

impl Share {
    pub(super) fn of(all: &HeldBytes) -> Self {
        Self {
            all: all.clone(),
            own: 0,
        }
    }

    /// How many bytes this request may take, if all requests together may take `most`.
    pub(super) fn room(&self, most: u64) -> u64 {
        most.saturating_sub(self.all.total().saturating_sub(self.own))
    }

    /// Sets this request's share, in bytes.
    pub(super) fn set(&mut self, own: u64) {
        let others = self.all.total().saturating_sub(self.own);
        self.all.0.set(others.saturating_add(own));
        self.own = own;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}
