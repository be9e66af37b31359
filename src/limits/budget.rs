//! The budget: what a tenant may spend in a window. What was spent is in the budget's [`Account`].

use std::time::Duration;

use crate::base::units::{Cost, Micros, Ppm, Timestamp, Tokens, Unit};
use crate::calendar::window::Period;
use crate::lease::grant::Grant;
use crate::lease::share::Share;
use crate::lease::slice::Slice;
use crate::limits::account::Account;

/// What may be spent in one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The amount, in `unit`.
    pub initial_budget: u64,
    /// What the budget counts.
    pub unit: Unit,
    /// When the budget starts anew.
    pub period: Period,
    /// How long a reservation that nothing closes stays held (see [`Hold`]).
    pub reservation_expiry: Duration,
    /// The most of a window's unspent rest that is added to the next window, as a share of the budget.
    pub rollover: Option<Ppm>,
    /// A raise that ends at a given time.
    pub extra: Option<Extra>,
    /// How the budget is shared with other proxies; `None` if each proxy has its own.
    pub share: Option<Share>,
}

/// An additional amount to spend for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extra {
    /// The additional amount, in the budget's unit.
    pub amount: u64,
    /// The first moment without the raise.
    pub until: Timestamp,
}

impl Budget {
    /// What may be spent in the account's window, in the budget's unit.
    #[must_use]
    pub fn allowance(&self, account: &Account) -> u64 {
        self.raised(account).saturating_add(account.carried)
    }

    /// What is likely to be left once all requests in flight are settled, in the budget's unit.
    #[must_use]
    pub fn remaining(&self, account: &Account) -> u64 {
        self.unspent(account, self.allowance(account))
            .saturating_sub(self.unit.of(account.likely_held()))
    }

    /// What all proxies that share the budget may spend in the account's window.
    #[must_use]
    pub fn raised(&self, account: &Account) -> u64 {
        let configured = self.configured(account);
        self.slice(account).map_or(configured, |slice| {
            let base = match slice.set {
                0 => configured,
                set => set,
            };
            base.saturating_add(slice.raise)
        })
    }

    /// What may be spent by the configuration alone, without the changes that the store reports.
    #[must_use]
    pub fn configured(&self, account: &Account) -> u64 {
        self.initial_budget.saturating_add(account.extra)
    }

    /// What is spent or held.
    #[must_use]
    pub fn used(&self, account: &Account) -> u64 {
        let held = self.unit.of(account.held());
        self.unit.of(account.spent).saturating_add(held)
    }

    /// What the shared store has granted, if the budget is shared and the account has a slice of this window.
    #[must_use]
    pub fn grant<'a>(&self, account: &'a Account) -> Option<&'a Grant> {
        self.slice(account).map(|slice| &slice.grant)
    }

    fn slice<'a>(&self, account: &'a Account) -> Option<&'a Slice> {
        self.share.as_ref()?;
        let slice = account.slice.as_deref();
        slice.filter(|slice| slice.is_of(self.unit, account.window))
    }

    /// Whether the store's last answer is too old to conclude from it that the budget is spent, so that the store has to be asked again.
    #[must_use]
    pub fn is_dated(&self, account: &Account, now: Timestamp) -> bool {
        let told = self.share.as_ref().zip(self.grant(account));
        told.is_some_and(|(share, grant)| grant.is_dated(share.most, now))
    }

    /// The part of `limit` that this proxy may be able to spend, by the store's last answer: what the proxy was granted, plus what is free
    /// for all. What other proxies were granted is out of its reach.
    fn within_reach(&self, account: &Account, limit: u64) -> u64 {
        let grant = self.grant(account).filter(|grant| !grant.is_cold());
        grant.map_or(limit, |grant| {
            limit.min(grant.granted.saturating_add(grant.free))
        })
    }

    /// What is left under `limit`, which may be the budget with an overdraft.
    #[must_use]
    pub fn headroom(&self, account: &Account, limit: u64) -> u64 {
        self.unspent(account, limit)
            .saturating_sub(self.unit.of(account.held()))
    }

    /// What would be left under `limit` if nothing were in flight.
    #[must_use]
    pub fn unspent(&self, account: &Account, limit: u64) -> u64 {
        self.within_reach(account, limit)
            .saturating_sub(self.unit.of(account.spent))
    }

    /// What may be spent including an overdraft.
    #[must_use]
    pub fn overdrawn(&self, account: &Account, overdraft: Ppm) -> u64 {
        let overdraft = overdraft.of(self.initial_budget);
        self.allowance(account).saturating_add(overdraft)
    }

    /// The part of a cost that is counted, at most one budget.
    pub(super) fn at_most_one(&self, cost: Cost) -> Cost {
        let most = self.initial_budget;
        match self.unit {
            Unit::Tokens => Cost {
                tokens: Tokens(cost.tokens.0.min(most)),
                usd: Micros(0),
            },
            Unit::UsdMicros => Cost {
                tokens: Tokens(0),
                usd: Micros(cost.usd.0.min(most)),
            },
        }
    }

    /// What the next window starts with: the amount that is carried over, and the debt. `follows`: whether the next window begins when this
    /// account's ends. What is still held at the end of a window counts as spent in that window.
    pub(super) fn inheritance(&self, account: &Account, follows: bool) -> (u64, Cost) {
        let most = self
            .rollover
            .map_or(0, |share| share.of(self.initial_budget));
        if !follows {
            // Nothing was spent in the windows in between.
            return (most, Cost::ZERO);
        }
        let unused = self.headroom(account, self.allowance(account));
        let debt = self.over(account, account.debt);
        (unused.min(most), self.at_most_one(debt))
    }

    /// How much of a cost exceeds what may be spent, after what is spent and held.
    pub(super) fn over(&self, account: &Account, cost: Cost) -> Cost {
        if cost == Cost::ZERO {
            return cost;
        }
        let allowance = self.allowance(account);
        let used = account.spent.plus(account.held());
        let over = |unit: Unit| unit.of(used).saturating_sub(allowance);
        Cost {
            tokens: cost.tokens.min(Tokens(over(Unit::Tokens))),
            usd: cost.usd.min(Micros(over(Unit::UsdMicros))),
        }
    }
}

/// A cost in tokens alone, for budgets that have no price.
#[must_use]
pub fn tokens(tokens: u64) -> Cost {
    Cost {
        tokens: Tokens(tokens),
        usd: Micros(0),
    }
}
