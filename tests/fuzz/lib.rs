//! The fuzz targets, for libFuzzer. `tests/fuzz.rs` runs the same ones as plain tests.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a failed check is a finding"
)]

#[path = "../support/frames.rs"]
mod frames;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/store.rs"]
mod store;
pub mod targets;
