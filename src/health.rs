//! Which tiers are currently not to be used: those that are too slow for a plan ([`sla`]), and those whose upstream refuses ([`pressed`]).

pub mod pressed;
pub mod sla;
