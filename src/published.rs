//! How published things are named: series of a [`metric`], fields of the access log ([`log_field`]), groups of response headers
//! ([`header_group`]).

pub mod header_group;
pub mod log_field;
pub mod metric;
