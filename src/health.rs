//! Which tiers are not to be used just now: those that are too slow for a plan ([`sla`]), and those whose upstream refuses ([`pressed`]).

pub mod pressed;
pub mod sla;
