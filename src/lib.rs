//! bursar keeps the LLM spend of many tenants inside their budgets, in the proxy that their traffic already crosses.
//!
//! bursar is a proxy-wasm filter for Envoy. Everything but `edge` is a pure core: it reads no clock, calls no host and has no global state.
//! A request's way through the rooms:
//!
//! | step | room |
//! |---|---|
//! | headers | [`http`]: a message's headers; [`provider`]: whose API the request uses |
//! | tenant | [`tenant`]: who pays; [`plan`]: what the tenant may use |
//! | limits | [`limits`]: buckets, budgets, capacities; [`calendar`]: when they start anew; [`state`]: the record that holds them, changed by compare-and-swap |
//! | tier | [`policy`] decides, by [`estimate`] and [`tier`]; [`health`]: which tiers are slow or refuse; [`conversation`]: which tier served before |
//! | rewrite | [`body`]: finds and changes a few bytes as they stream; [`conversation`]: shortens the conversation |
//! | usage | [`provider::usage`] reads [`usage`] from the answer |
//! | settle | [`admission`]: replaces what was reserved by what was used |
//! | report | [`report`]: metrics, log fields, response headers, refusals |
//!
//! With [`lease`] many proxies share one budget, and [`teller`] exchanges its lines with their store. [`sweep`] publishes gauges between
//! requests. [`overview`] is the operators' report. [`exchange`] leads a request through these rooms, [`config`] is the operator's
//! configuration, and `edge` connects both to the proxy. [`base`], [`calendar`] and [`published`] are vocabulary that the other rooms
//! share.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

#[cfg(test)]
extern crate self as bursar;

pub mod base;
pub mod calendar;
pub mod published;

pub mod body;
pub mod http;
pub mod tenant;
pub mod usage;

pub mod lease;
pub mod limits;
pub mod tier;

pub mod estimate;
pub mod plan;
pub mod state;

pub mod conversation;
pub mod provider;

pub mod config;
pub mod policy;
pub mod report;

pub mod admission;
pub mod health;
pub mod sweep;
pub mod teller;

pub mod exchange;
pub mod overview;

#[cfg(target_os = "wasi")]
mod edge;

#[cfg(target_os = "wasi")]
#[global_allocator]
static ALLOCATOR: edge::allocator::SizeClassAllocator = edge::allocator::SizeClassAllocator::new();
