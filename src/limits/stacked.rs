//! Limits that a plan has in addition to its `budget` and its `bucket`, each with a name and a state of its own.
//!
//! The states of all of a tenant's limits are in one record, so that one compare-and-swap charges all of them or none. A state is found by
//! the hash of its limit's name, so it is kept when the limit is changed, moved in the list, or removed and put back.

use std::time::Duration;

use crate::base::glob::{matches, models};
use crate::base::name::{LimitKey, Name};
use crate::base::units::{Cost, Timestamp};
use crate::lease::quota::Quota;
use crate::limits::account::{Account, Reservation};
use crate::limits::bucket::Bucket;
use crate::limits::budget::Budget;

/// A limit with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The limit's name, which is unique in its plan.
    pub name: Name,
    /// The key of the limit's state in a record.
    pub key: LimitKey,
    /// What the limit counts and allows.
    pub rule: Rule,
    /// Globs of the serving models to which the limit applies; `None` for all models.
    pub models: Option<Vec<String>>,
    /// Whether callers of the tenants below this plan's tenant can see how much of the limit is left.
    pub is_visible: bool,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// How much may be spent in a window.
    Budget(Budget),
    /// How fast tokens may be used.
    Tokens(Quota),
    /// How fast requests may come. Each cell of the bucket is a request.
    Requests(Quota),
    /// How many requests may be in flight at a time: a budget of slots that never starts anew. Each request holds one slot while it is in
    /// flight, and spends none.
    Concurrency(Budget),
}

/// The name of a plan's `budget`.
pub const BUDGET: &str = "budget";

/// The name of a plan's `bucket`.
pub const BUCKET: &str = "bucket";

/// The name of a plan's `concurrency`.
pub const CONCURRENCY: &str = "concurrency";

/// The name of a plan's `max_request`.
pub const MAX_REQUEST: &str = "max_request";

/// The most limits of one plan besides its `budget` and `bucket`.
pub const LIMITS: usize = 16;

/// The most states in a record: those of the plan's limits, and, as long as they may be needed, those of removed limits and of windows of
/// another length.
pub const ENTRIES: usize = 24;

/// The stored state of a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key of the limit.
    pub key: LimitKey,
    /// The state.
    pub state: State,
}

/// The state of a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The state of a budget, or of requests in flight.
    Account(Account),
    /// The state of a bucket.
    Bucket(Bucket),
}

impl Limit {
    /// Whether the limit applies to requests that this model serves.
    #[must_use]
    pub fn holds_for(&self, model: &str) -> bool {
        let globs = self.models.as_ref();
        globs.is_none_or(|globs| {
            models(model).any(|model| globs.iter().any(|glob| matches(glob, model)))
        })
    }
}

impl Rule {
    /// The rule's budget, if the rule's state is an account.
    #[must_use]
    pub fn budget(&self) -> Option<&Budget> {
        match self {
            Self::Budget(budget) | Self::Concurrency(budget) => Some(budget),
            Self::Tokens(_) | Self::Requests(_) => None,
        }
    }

    /// A state in which nothing was used.
    fn fresh(&self, now: Timestamp) -> State {
        match self {
            Self::Budget(budget) | Self::Concurrency(budget) => {
                State::Account(Account::default().at(budget, now))
            }
            Self::Tokens(quota) | Self::Requests(quota) => {
                State::Bucket(quota.refilled(Bucket::default(), now))
            }
        }
    }
}

impl Entry {
    /// The entry's account, if it is the state of a budget with this key.
    #[must_use]
    pub fn account(&self, key: LimitKey) -> Option<&Account> {
        match &self.state {
            State::Account(account) if self.key == key => Some(account),
            State::Account(_) | State::Bucket(_) => None,
        }
    }

    /// As [`Entry::account`], for changes.
    pub fn account_mut(&mut self, key: LimitKey) -> Option<&mut Account> {
        match &mut self.state {
            State::Account(account) if self.key == key => Some(account),
            State::Account(_) | State::Bucket(_) => None,
        }
    }

    /// The entry's bucket, if it is the state of a bucket with this key.
    pub fn bucket_mut(&mut self, key: LimitKey) -> Option<&mut Bucket> {
        match &mut self.state {
            State::Bucket(bucket) if self.key == key => Some(bucket),
            State::Account(_) | State::Bucket(_) => None,
        }
    }

    /// Whether this is a state of the limit.
    fn is_of(&self, limit: &Limit) -> bool {
        let is_account = matches!(self.state, State::Account(_));
        self.key == limit.key && is_account == limit.rule.budget().is_some()
    }

    /// Whether a state that no configured limit uses may still be needed, so that it must not be removed.
    fn is_of_use(&self, now: Timestamp) -> bool {
        match &self.state {
            State::Account(account) => account.window.is_open(now) && !account.is_untouched(),
            State::Bucket(bucket) => bucket.used > 0 && now.since(bucket.since) < KEPT,
        }
    }
}

/// How long the bucket of a removed limit is remembered.
const KEPT: Duration = Duration::from_secs(3_600);

/// Puts the states of `limits` first in a record, in the same order, rolled over and refilled to `now`. States of other limits follow, as
/// long as they may be needed: a removed limit may be put back.
pub fn roll_forward(limits: &[Limit], entries: &mut Vec<Entry>, now: Timestamp) {
    for (index, limit) in limits.iter().enumerate() {
        let mut rest = entries.iter().skip(index);
        let found = rest.position(|entry| entry.is_of(limit));
        let mut entry = match found {
            Some(at) => entries.remove(index.saturating_add(at)),
            None => Entry {
                key: limit.key,
                state: limit.rule.fresh(now),
            },
        };
        match (&limit.rule, &mut entry.state) {
            (Rule::Budget(budget) | Rule::Concurrency(budget), State::Account(account)) => {
                roll_account_of(account, limit.key, budget, entries, now);
            }
            (Rule::Tokens(quota) | Rule::Requests(quota), State::Bucket(bucket)) => {
                *bucket = quota.refilled(*bucket, now);
            }
            (_, State::Account(_) | State::Bucket(_)) => {}
        }
        entries.insert(index.min(entries.len()), entry);
    }
    let mut index = 0_usize;
    entries.retain(|entry| {
        let is_kept = index < limits.len() || index < ENTRIES && entry.is_of_use(now);
        index = index.saturating_add(1);
        is_kept
    });
}

/// Turns `account` into the account of the budget at `now`.
///
/// If the budget's window was changed, or if another configuration is also in force, the account's window may be of another length or
/// start. Then this account is moved to the `others`, and the account with the budget's own window is taken from there. If there is none,
/// what was spent in the old window counts as spent in the new one.
pub fn roll_account(
    account: &mut Account,
    budget: &Budget,
    others: &mut Vec<Entry>,
    now: Timestamp,
) {
    roll_account_of(account, LimitKey::BUDGET, budget, others, now);
}

fn roll_account_of(
    account: &mut Account,
    key: LimitKey,
    budget: &Budget,
    others: &mut Vec<Entry>,
    now: Timestamp,
) {
    let current = budget.period.at(account.not_before(now));
    if account.window != current {
        let is_own = |entry: &Entry| {
            let other = entry.account(key);
            other.is_some_and(|other| other.window == current)
        };
        let own = others.iter().position(is_own);
        if own.is_some() || account.is_of_another_period(budget, now) {
            let mut parked = account.clone();
            if let Some(at) = own
                && let State::Account(own) = others.remove(at).state
            {
                *account = own;
            }
            // The store has one account for all windows that begin together, so only one of our accounts may spend from that account.
            if parked.window.start == current.start {
                account.slice = parked.slice.take();
            }
            others.push(Entry {
                key,
                state: State::Account(parked),
            });
        }
    }
    account.advance_into(current, budget, now);
}

/// Replaces a hold by what was used, in all accounts of the limit.
pub fn settle(
    entries: &mut [Entry],
    key: LimitKey,
    reservation: &Reservation,
    used: Cost,
    budget: Option<&Budget>,
    now: Timestamp,
) {
    for account in accounts(entries, key) {
        account.settle_any(reservation, used, budget, now);
    }
}

/// Replaces a reservation by one of the same amount that is made at `now` (see [`Account::renew`]).
pub fn renew(
    entries: &mut [Entry],
    key: LimitKey,
    reservation: &Reservation,
    budget: &Budget,
    now: Timestamp,
) -> Option<Reservation> {
    accounts(entries, key).find_map(|account| account.renew(reservation, budget, now))
}

fn accounts(entries: &mut [Entry], key: LimitKey) -> impl Iterator<Item = &mut Account> {
    let accounts = entries.iter_mut();
    accounts.filter_map(move |entry| entry.account_mut(key))
}

#[cfg(test)]
mod tests;
