//! bursar keeps many tenants' LLM spend inside budget, in the proxy that their traffic already crosses.
//!
//! It is a proxy-wasm filter for Envoy. Everything but `edge` is a pure core: no clock, no
//! host, no global state. A request's way through it:
//!
//! | step | room |
//! |---|---|
//! | headers | [`http`]: a message's headers; [`provider`]: whose API it is |
//! | tenant | [`tenant`]: who pays; [`plan`]: what the tenant may use |
//! | limits | [`limits`]: buckets, budgets, capacities; [`state`]: the record that holds them, changed by compare-and-swap |
//! | tier | [`policy`] decides, by [`estimate`] and [`tier`]; [`sla`]: which tiers are too slow; [`conversation`]: where it was served |
//! | rewrite | [`body`]: finds and changes a few bytes as they stream; [`conversation`]: shortens it |
//! | usage | [`provider::usage`] reads [`usage`] from the answer |
//! | settle | [`admission`]: reserved before, settled now |
//! | report | [`report`]: metrics, log fields, response headers, refusals |
//!
//! With [`lease`] many proxies share one budget; [`sweep`] publishes gauges between requests; [`overview`] is the operators' report.
//! [`exchange`] leads a request through these rooms, [`config`] is what the operator wants, and `edge` ties both to the proxy. [`units`],
//! [`name`], [`text`], [`glob`], [`metric`], [`log_field`] and [`header_group`] are vocabulary that the others share.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

#[cfg(test)]
extern crate self as bursar;

mod bytes;
pub mod glob;
mod hash;
pub mod header_group;
pub mod log_field;
pub mod metric;
pub mod name;
pub mod text;
pub mod units;

pub mod body;
pub mod http;
pub mod usage;

pub mod limits;
pub mod tenant;
pub mod tier;

pub mod conversation;
pub mod estimate;
pub mod lease;
pub mod plan;
pub mod provider;
pub mod state;

pub mod config;
pub mod policy;
pub mod report;

pub mod admission;
pub mod pressed;
pub mod sla;
pub mod sweep;

pub mod exchange;
pub mod overview;

#[cfg(target_os = "wasi")]
mod edge;

#[cfg(target_os = "wasi")]
#[global_allocator]
static ALLOCATOR: edge::allocator::SizeClassAllocator = edge::allocator::SizeClassAllocator::new();
