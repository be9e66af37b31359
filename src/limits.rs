//! What a tenant may use: how fast ([`bucket`]); how much ([`budget`], with an [`account`] that counts what was spent); what tenants share
//! ([`capacity`]); whether a budget will last ([`pace`]); how much is kept for which child ([`lend`]); and any number of such limits
//! together ([`stacked`]).
//!
//! All of this is arithmetic on values: time is an argument, and nothing here is stored.

pub mod account;
pub mod bucket;
pub mod budget;
pub mod capacity;
pub mod learned;
pub mod lend;
pub mod pace;
pub mod stacked;
