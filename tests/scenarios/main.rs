//! Whole exchanges against a fake store and a fake clock: one scenario a test, each ends with the ledger.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a failed set-up is a failed test"
)]

#[path = "../support/pool.rs"]
mod pool;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/store.rs"]
mod store;

mod opening;

mod agents;
mod calendar;
mod capacity;
mod conversation;
mod estimates;
mod evasion;
mod exchange;
mod exits;
mod forwarding;
mod headers;
mod lending;
mod lowering;
mod maximum;
mod memory;
mod models;
mod page;
mod parents;
mod plans;
mod rates;
mod refusing;
mod renamed;
mod self_service;
mod shadow;
mod shared;
mod sla;
mod stacked;
mod state;
mod steering;
mod subjects;
mod trials;
mod trim;
mod upstream;
mod usage;
mod weights;
mod windows;
