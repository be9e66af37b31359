//! The edge to the proxy: [`plugin`] is what it starts, [`filter`] one request of it, and [`host`] calls it.

pub(crate) mod allocator;
mod context;
mod courier;
mod filter;
mod host;
mod imports;
mod page;
mod plugin;
