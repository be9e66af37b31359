//! bursar keeps many tenants' LLM spend inside budget, in the proxy that their traffic already crosses.
//!
//! It is a proxy-wasm filter for Envoy. The modules stand in the order in which they build on each other; all but the
//! last two are a pure core: no clock, no host, no global state.
//!
//! | a request's way | module |
//! |---|---|
//! | headers | [`api`]: whose wire format; [`tenant`]: who pays |
//! | limits | [`bucket`], [`ledger`] in one [`record`] in the [`store`], read and changed by [`payer`], charged by [`admission`]; [`capacity`]: what tenants share |
//! | tier | [`policy`] decides, by [`estimate`] and [`tier`] |
//! | | [`sla`] says which tiers are too slow, by the times in [`latency`] |
//! | rewrite | [`json`] finds, [`rewrite`] changes; [`messages`] finds and [`trim`] shortens a conversation |
//! | usage | [`usage`] reads, from JSON or [`sse`] |
//! | settle | [`admission`] again; [`learn`] from what was reported |
//! | report | [`headers`], [`reply`], [`telemetry`] |
//!
//! [`exchange`] leads a request along that way; [`config`] is what the operator wants; `host` is the only module that
//! calls the proxy, `plugin` what the proxy calls, and `filter` ties them together.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

#[cfg(test)]
extern crate self as bursar;

pub mod name;
pub mod number;
pub mod series;
pub mod text;
pub mod units;
pub mod window;

pub mod bucket;
pub mod capacity;
pub mod latency;
pub mod learn;
pub mod ledger;
pub mod record;
pub mod store;

pub mod conversation;

pub mod tenant;
pub mod tier;

pub mod base64;
pub mod eventstream;
pub mod json;
pub mod messages;
pub mod rewrite;
pub mod sse;
pub mod trim;

pub mod api;
pub mod estimate;
pub mod usage;

pub mod pace;
pub mod policy;

pub mod config;

pub mod telemetry;

pub mod headers;
pub mod reply;

pub mod payer;

pub mod sla;

pub mod admission;

pub mod exchange;

#[cfg(target_os = "wasi")]
mod filter;
#[cfg(target_os = "wasi")]
mod host;
#[cfg(target_os = "wasi")]
mod memory;
#[cfg(target_os = "wasi")]
mod plugin;

#[cfg(target_os = "wasi")]
#[global_allocator]
static ALLOCATOR: memory::Lists = memory::Lists::new();
