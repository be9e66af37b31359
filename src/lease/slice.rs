//! A grant beside the account of the budget that it is of.

use crate::base::units::{Timestamp, Unit};
use crate::calendar::window::Window;
use crate::lease::grant::Grant;
use crate::lease::line::Holder;

/// A grant, and of which of the store's accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// What is counted there.
    pub unit: Unit,
    /// When its window opened.
    pub opens: Timestamp,
    /// When an operator last reset the limit (see [`Account::generation`](crate::lease::line::Account::generation)).
    pub generation: u64,
    /// What an operator has put in the place of the budget, as last told; 0: nothing.
    pub set: u64,
    /// What an operator has added to it, as last told.
    pub raise: u64,
    /// What may be spent of it here.
    pub grant: Grant,
}

impl Slice {
    /// One that holds nothing. The holder is to be random.
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

    /// Whether it is of the account of this window, in this unit.
    #[must_use]
    pub fn is_of(&self, unit: Unit, window: Window) -> bool {
        self.unit == unit && self.opens == window.start
    }

    /// The same holder's slice of another account: nothing of that is granted.
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
