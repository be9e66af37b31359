//! The limits that apply to a request, each with its state: the tenant's `budget` and `bucket`, and all others.

use super::decision::{LimitIndex, LimitRefusal};
use super::{Book, Expected, Payer, Refusal, Request};
use crate::base::name::LimitKey;
use crate::base::units::{Cost, Timestamp};
use crate::estimate::Estimate;
use crate::lease::grant::NoRoom;
use crate::lease::quota::Quota;
use crate::limits::account::Account;
use crate::limits::bucket::{Bucket, NotNow};
use crate::limits::budget::Budget;
use crate::limits::lend::{self, ChildKey};
use crate::limits::stacked::{Entry, Limit, Rule, State};
use crate::plan::Limits;
use crate::state::record::Record;
use crate::state::shared_budgets;

/// A limit and its state.
#[derive(Clone, Copy)]
pub(super) struct Standing<'a> {
    pub(super) index: LimitIndex,
    /// All limits of the limit's owner, and the record of their states.
    pub(super) limits: &'a Limits,
    pub(super) record: &'a Record,
    pub(super) state: Stand<'a>,
    /// The child through which the request comes, if that child has a guaranteed share of the budgets.
    child: Option<ChildKey>,
    /// The limit with its models; `None` for the plan's `budget` or `bucket`, which hold for all models.
    limit: Option<&'a Limit>,
}

/// What is limited, and how much of that is used.
#[derive(Clone, Copy)]
pub(super) enum Stand<'a> {
    Budget(&'a Budget, &'a Account),
    Tokens(&'a Quota, Bucket),
    Requests(&'a Quota, Bucket),
    Concurrency(&'a Budget, &'a Account),
}

/// All limits that apply: those of the request's subjects, of its tenant, and of the tenant's parents.
pub(super) fn standings<'a>(
    limits: &'a Limits,
    books: &'a [Book<'a>],
    record: &'a Record,
) -> Standings<'a> {
    Standings {
        books,
        ..of_tenant(limits, record)
    }
}

/// The limits of the tenant alone.
fn of_tenant<'a>(limits: &'a Limits, record: &'a Record) -> Standings<'a> {
    let own = Book {
        payer: Payer::Tenant,
        limits,
        record,
        child: None,
        looks_on: false,
    };
    Standings {
        own: (own, None),
        books: &[],
        payer: 0,
        limit: 0,
    }
}

/// The limits of a book besides the tenant's own; none if the book only counts usage.
pub(super) fn of_book<'a>(book: &Book<'a>, place: usize) -> Standings<'a> {
    Standings {
        own: (*book, Some(place)),
        books: &[],
        payer: 0,
        limit: 0,
    }
}

/// An iterator over limits. It has a type of its own, since adapters of adapters are compiled again wherever they are used: they were a
/// twentieth of the module.
pub(super) struct Standings<'a> {
    /// The book that comes after those of subjects, and its index among the request's books if it is one of them.
    own: (Book<'a>, Option<usize>),
    books: &'a [Book<'a>],
    /// How many books were visited: all of them for subjects, then the tenant's own, then all of them again for parents.
    payer: usize,
    /// How many limits of the current book were visited.
    limit: usize,
}

impl<'a> Iterator for Standings<'a> {
    type Item = Standing<'a>;

    #[inline(never)]
    fn next(&mut self) -> Option<Standing<'a>> {
        while self.payer <= self.books.len().saturating_mul(2) {
            if let Some((book, place)) = self.book() {
                while self.limit < book.limits.others.len().saturating_add(Limits::OTHERS) {
                    let limit = self.limit;
                    self.limit = limit.saturating_add(1);
                    if let Some(found) = standing_of(&book, place, limit) {
                        return Some(found);
                    }
                }
            }
            self.payer = self.payer.saturating_add(1);
            self.limit = 0;
        }
        None
    }
}

impl<'a> Standings<'a> {
    /// The current book; `None` if its turn comes at another point, or if it only counts usage.
    fn book(&self) -> Option<(Book<'a>, Option<usize>)> {
        let (book, place) = match self.payer.checked_sub(self.books.len()) {
            Some(0) => self.own,
            after => {
                let place = after.map_or(self.payer, |after| after.saturating_sub(1));
                let book = *self.books.get(place)?;
                let is_subject = book.payer == Payer::Subject;
                (is_subject == after.is_none()).then_some((book, Some(place)))?
            }
        };
        (!book.looks_on).then_some((book, place))
    }
}

fn standing_of<'a>(book: &Book<'a>, place: Option<usize>, limit: usize) -> Option<Standing<'a>> {
    let &Book { limits, record, .. } = book;
    let mut only = None;
    let state = match limit {
        Limits::BUDGET => Stand::Budget(limits.budget.as_ref()?, &record.account),
        Limits::BUCKET => Stand::Tokens(limits.bucket.as_ref()?, record.bucket),
        _ => {
            let other = limit.checked_sub(Limits::OTHERS)?;
            let found = limits.others.get(other)?;
            only = Some(found);
            stand(found, record.others.get(other)?)?
        }
    };
    Some(Standing {
        index: LimitIndex {
            payer: book.payer,
            book: place,
            limit,
        },
        limits,
        record,
        state,
        child: book.child,
        limit: only,
    })
}

fn stand<'a>(limit: &'a Limit, entry: &'a Entry) -> Option<Stand<'a>> {
    Some(match (&limit.rule, &entry.state) {
        (Rule::Budget(budget), State::Account(account)) => Stand::Budget(budget, account),
        (Rule::Concurrency(slots), State::Account(account)) => Stand::Concurrency(slots, account),
        (Rule::Tokens(quota), &State::Bucket(bucket)) => Stand::Tokens(quota, bucket),
        (Rule::Requests(quota), &State::Bucket(bucket)) => Stand::Requests(quota, bucket),
        (_, State::Account(_) | State::Bucket(_)) => return None,
    })
}

impl<'a> Standing<'a> {
    /// The budget and its account, if this limit is a budget.
    pub(super) fn budget(&self) -> Option<(&'a Budget, &'a Account)> {
        match self.state {
            Stand::Budget(budget, account) => Some((budget, account)),
            Stand::Tokens(..) | Stand::Requests(..) | Stand::Concurrency(..) => None,
        }
    }

    /// Whether this limit depends on the tier that serves: budgets do, and so do limits on some models.
    pub(super) fn depends_on_tier(&self) -> bool {
        self.budget().is_some() || !self.holds_for_all()
    }

    /// Whether this limit holds for every model.
    pub(super) fn holds_for_all(&self) -> bool {
        self.limit.is_none_or(|limit| limit.models.is_none())
    }

    /// Whether this limit holds for a request that is served at this tier.
    pub(super) fn holds_at(&self, request: &Request<'_>, tier: usize) -> bool {
        let limit = self.limit;
        limit.is_none_or(|limit| limit.holds_for(request.model_at(tier)))
    }

    /// Whether this limit has room for a request that may use this much. `overdraw`: the overdraft may be used.
    pub(super) fn check(
        &self,
        estimate: &Estimate,
        expected: &Expected,
        overdraw: bool,
        now: Timestamp,
    ) -> Result<(), LimitRefusal> {
        let room = match self.state {
            Stand::Budget(budget, account) => {
                let cost = expected.reserve(self.limits).cost;
                let limit = match overdraw {
                    true => self.limits.most(budget, account),
                    false => budget.allowance(account),
                };
                self.fits(budget, account, limit, cost, now)
            }
            Stand::Tokens(quota, bucket) => {
                let cells = estimate.cells();
                let room = quota.check(bucket, cells, now);
                room.map_err(|not_now| self.of_bucket(not_now, quota, bucket, cells))
            }
            Stand::Requests(quota, bucket) => {
                let room = quota.check(bucket, 1, now);
                room.map_err(|not_now| self.of_bucket(not_now, quota, bucket, 1))
            }
            Stand::Concurrency(slots, account) => match slots.remaining(account) {
                0 => Err(Refusal::Concurrency),
                _ => Ok(()),
            },
        };
        room.map_err(|refusal| self.refuses(refusal))
    }

    /// The refusal of a bucket without room for so many cells. If even a full bucket would not hold them, because this proxy has too small
    /// a part of a shared one, waiting for cells does not help, but an answer of the store may.
    fn of_bucket(&self, not_now: NotNow, quota: &Quota, bucket: Bucket, cells: u64) -> Refusal {
        let wait = match not_now {
            NotNow::ExceedsBurst => return Refusal::ExceedsBurst,
            NotNow::Wait(wait) => wait,
        };
        if quota.could_hold(bucket, cells) {
            return Refusal::BucketEmpty(wait);
        }
        let key = self.limit.map_or(LimitKey::BUCKET, |limit| limit.key);
        let mut rates = self.record.rates.iter();
        match rates.find(|rate| rate.limit == key) {
            Some(rate) if rate.failures > 0 => Refusal::StoreUnreachable,
            Some(rate) if rate.dry == 0 => Refusal::Pending,
            Some(_) | None => Refusal::BucketEmpty(wait),
        }
    }

    /// Whether this proxy's part of a shared limit has room now.
    pub(super) fn check_slice(&self, cost: Cost, now: Timestamp) -> Result<(), LimitRefusal> {
        let Some((budget, account)) = self.budget() else {
            return Ok(());
        };
        let room = shared_budgets::check(budget, account, cost, now);
        room.map_err(|no_room| {
            self.refuses(match no_room {
                NoRoom::Cold | NoRoom::Slice => Refusal::Pending,
                NoRoom::Unreachable => Refusal::StoreUnreachable,
                NoRoom::Spent => exhausted(account, now),
            })
        })
    }

    /// Whether the budget can hold `cost` under `limit`.
    pub(super) fn fits(
        &self,
        budget: &Budget,
        account: &Account,
        limit: u64,
        cost: Cost,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let cost = budget.unit.of(cost);
        if cost > limit {
            return Err(match budget.is_dated(account, now) {
                true => Refusal::Pending,
                // The budget will not be large enough in the next window either.
                false => Refusal::BudgetExhausted(None),
            });
        }
        // A spent budget refuses even a request that costs nothing.
        let least = cost.max(1);
        if least > budget.unspent(account, limit) {
            return Err(match budget.is_dated(account, now) {
                true => Refusal::Pending,
                false => exhausted(account, now),
            });
        }
        let kept = self.kept(budget, account, now);
        // The overdraft does not reach what is kept for others.
        let limit = match kept {
            0 => limit,
            _ => limit.min(budget.allowance(account)),
        };
        let (unspent, free) = (
            budget.unspent(account, limit),
            budget.headroom(account, limit),
        );
        if least > unspent.saturating_sub(kept) {
            // What is held may or may not be released. If there is enough without it, the request need not wait for a release.
            let there = if cost > free { unspent } else { free };
            let most = there.saturating_sub(least);
            let guarantees = &self.limits.guarantees;
            let wait = lend::wait(guarantees, budget, account, self.child, most, now);
            return Err(Refusal::BudgetReserved(wait));
        }
        if cost > free.saturating_sub(kept) {
            return Err(Refusal::BudgetHeld);
        }
        Ok(())
    }

    /// What of the budget is kept for children other than the one through which the request comes.
    fn kept(&self, budget: &Budget, account: &Account, now: Timestamp) -> u64 {
        lend::kept(&self.limits.guarantees, budget, account, self.child, now)
    }

    /// What a request may still hold of the budget, if this limit is one.
    pub(super) fn room(&self, now: Timestamp) -> Option<(&'a Budget, u64)> {
        let (budget, account) = self.budget()?;
        let room = budget.headroom(account, budget.allowance(account));
        Some((budget, room.saturating_sub(self.kept(budget, account, now))))
    }

    /// This limit's refusal.
    pub(super) fn refuses(&self, refusal: Refusal) -> LimitRefusal {
        LimitRefusal {
            refusal,
            limit: Some(self.index),
        }
    }
}

/// Whether this proxy's slices of all shared budgets that apply at this tier have room for a request now. The whole budgets were checked
/// before.
pub(super) fn check_slices(
    limits: &Limits,
    request: &Request<'_>,
    tier: usize,
    cost: Cost,
    record: &Record,
    now: Timestamp,
) -> Result<(), LimitRefusal> {
    if !limits.is_shared() {
        return Ok(());
    }
    let here = of_tenant(limits, record).filter(|limit| limit.holds_at(request, tier));
    strictest(here.map(|limit| limit.check_slice(cost, now)))
}

/// The refusal of a budget that is spent.
pub(super) fn exhausted(account: &Account, now: Timestamp) -> Refusal {
    let end = account.window.end;
    Refusal::BudgetExhausted((end != Timestamp::MAX).then(|| end.since(now)))
}

/// Finds the strictest of all refusals.
///
/// # Errors
/// The strictest refusal, if there is any.
pub(super) fn strictest(
    checked: impl Iterator<Item = Result<(), LimitRefusal>>,
) -> Result<(), LimitRefusal> {
    let refused = checked.filter_map(Result::err);
    refused
        .reduce(LimitRefusal::or_stricter)
        .map_or(Ok(()), Err)
}
