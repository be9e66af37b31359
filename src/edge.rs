//! The interface to the proxy. The proxy starts [`plugin`]; [`filter`] handles one request; [`host`] calls the proxy.

pub(crate) mod allocator;
mod context;
mod courier;
mod filter;
mod host;
mod imports;
mod memcmp;
mod page;
mod plugin;
