//! What a tenant may use: how fast ([`bucket`]), how much ([`budget`]; an [`account`] has what was used of it); what tenants share ([`capacity`]); whether a budget will last ([`pace`]); how much is
//! kept for which child ([`lend`]); and any number of such limits beside each other ([`stacked`]).
//!
//! All of it is arithmetic on values: time is an argument, and nothing here is stored.

pub mod account;
pub mod bucket;
pub mod budget;
pub mod capacity;
pub mod learned;
pub mod lend;
pub mod pace;
pub mod stacked;
