//! What holds whatever comes: any chunking, any interleaving, any clock, any bytes.
#![cfg(not(target_arch = "wasm32"))]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed set-up is a failed test"
)]

#[path = "properties/bodies.rs"]
mod bodies;
#[path = "properties/books.rs"]
mod books;
#[path = "properties/buckets.rs"]
mod buckets;
#[path = "properties/capacity.rs"]
mod capacity;
#[path = "support/engine.rs"]
mod engine;
#[path = "properties/eventstream.rs"]
mod eventstream;
#[path = "support/frames.rs"]
mod frames;
#[path = "properties/latency.rs"]
mod latency;
#[path = "properties/learned.rs"]
mod learned;
#[path = "properties/lease.rs"]
mod lease;
#[path = "properties/lending.rs"]
mod lending;
#[path = "properties/operators.rs"]
mod operators;
#[path = "properties/overspend.rs"]
mod overspend;
#[path = "properties/policy.rs"]
mod policy;
#[path = "support/pool.rs"]
mod pool;
#[path = "properties/pressure.rs"]
mod pressure;
#[path = "properties/price.rs"]
mod price;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "properties/rates.rs"]
mod rates;
#[path = "properties/renamed.rs"]
mod renamed;
#[path = "properties/shared.rs"]
mod shared;
#[path = "support/store.rs"]
mod store;
#[path = "properties/usage.rs"]
mod usage_by_tree;
#[path = "properties/workers.rs"]
mod workers;
#[path = "properties/world.rs"]
mod world;

/// The bytes, cut at these places.
fn chunks<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2)
        .map(|pair| &bytes[pair[0]..pair[1]])
        .collect()
}
