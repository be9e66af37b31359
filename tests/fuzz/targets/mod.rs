//! One target for each parser: what must hold whatever bytes come.
#![allow(
    unreachable_pub,
    reason = "borrowed by `tests/fuzz.rs` as a private module"
)]

pub mod config;
pub mod eventstream;
pub mod input;
pub mod json;
pub mod latency;
pub mod path;
pub mod record;
pub mod request;
pub mod response;
pub mod sse;
pub mod tree;
pub mod trim;
pub mod wires;
