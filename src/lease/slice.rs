//! A grant, and the account of the store to which it belongs.

use crate::base::units::{Timestamp, Unit};
use crate::calendar::window::Window;
use crate::lease::grant::Grant;
use crate::lease::line::Holder;

/// A grant, and the account of the store to which it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// What the account counts.
    pub unit: Unit,
    /// When the account's window opened.
    pub opens: Timestamp,
    /// When an operator last reset the limit (see [`Account::generation`](crate::lease::line::Account::generation)).
    pub generation: u64,
    /// The budget with which an operator replaced the configured one, by the store's last answer; 0 if there is none.
    pub set: u64,
    /// What an operator has added to the budget, by the store's last answer.
    pub raise: u64,
    /// What this proxy may spend of the account.
    pub grant: Grant,
}

impl Slice {
    /// A slice that holds nothing. The holder must be random.
    #[must_use]
    pub fn new(holder: Holder, unit: Unit, window: Window) -> Self {
        Self {
            unit,
            opens: window.start,
            generation: 0,
            set: 0,
            raise: 0,
            grant: Grant::new(holder),
        }
    }

    /// Whether the slice belongs to the account of this window, in this unit.
    #[must_use]
    pub fn is_of(&self, unit: Unit, window: Window) -> bool {
        self.unit == unit && self.opens == window.start
    }

    /// The same holder's slice of another account, of which nothing is granted yet.
    #[must_use]
    pub fn moved(&self, unit: Unit, window: Window) -> Self {
        let mut moved = Self::new(self.grant.holder, unit, window);
        moved.grant = self.grant.rolled();
        if unit == self.unit {
            moved.generation = self.generation;
            (moved.set, moved.raise) = (self.set, self.raise);
        }
        moved
    }
}
