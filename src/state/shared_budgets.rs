//! The budgets of a record that proxies share: what was reserved on each here, the lines about it, and what their answers change.

use std::hash::{Hash, Hasher};

use crate::base::hash::StableHasher;
use crate::base::name::LimitKey;
use crate::base::units::{Cost, Timestamp};
use crate::lease::grant::{Grant, NoRoom, Terms};
use crate::lease::line::{Answer, Holder, Line, Status};
use crate::lease::share::{FirstRequest, Share};
use crate::lease::slice::Slice;
use crate::limits::account::Account;
use crate::limits::budget::Budget;
use crate::limits::stacked::{BUDGET, Limit, Rule, State};
use crate::plan::Limits;
use crate::published::metric::Label;
use crate::state::record::Record;
use crate::state::slots::SlotSeed;

/// A budget that proxies share, and its account.
pub struct SharedBudget<'a> {
    /// The limit, unless it is the plan's `budget`.
    limit: Option<&'a Limit>,
    budget: &'a Budget,
    share: Share,
    account: &'a mut Account,
}

/// A reservation that was requested.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// What the request is to hold.
    pub cost: Cost,
    /// What was held for the same request before.
    pub before: Cost,
    /// Whether the reservation was admitted.
    pub is_held: bool,
    /// The cells to be taken from buckets of tokens, and the cells that were taken for the same request before.
    pub cells: (u64, u64),
}

/// All budgets of a record that proxies share. The record must be rolled forward to now.
pub fn shared_budgets<'a>(
    limits: &'a Limits,
    record: &'a mut Record,
) -> impl Iterator<Item = SharedBudget<'a>> {
    let own = limits.budget.as_ref().and_then(|budget| {
        Some(SharedBudget {
            limit: None,
            budget,
            share: budget.share?,
            account: &mut record.account,
        })
    });
    let others = limits.others.iter().zip(&mut record.others);
    let others = others.filter_map(|(limit, entry)| match (&limit.rule, &mut entry.state) {
        (Rule::Budget(budget), State::Account(account)) => Some(SharedBudget {
            limit: Some(limit),
            budget,
            share: budget.share?,
            account,
        }),
        _ => None,
    });
    own.into_iter().chain(others)
}

impl<'a> SharedBudget<'a> {
    /// The limit's name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.limit.map_or(BUDGET, |limit| limit.name.as_str())
    }

    /// The limit's name as a metric's label.
    #[must_use]
    pub fn label(&self) -> Label {
        self.limit
            .map_or_else(|| BUDGET.into(), |limit| (&limit.name).into())
    }

    /// The key of the limit's state in a record.
    #[must_use]
    pub fn key(&self) -> LimitKey {
        self.limit.map_or(LimitKey::BUDGET, |limit| limit.key)
    }

    /// The budget.
    #[must_use]
    pub fn budget(&self) -> &'a Budget {
        self.budget
    }

    /// The budget's account.
    #[must_use]
    pub fn account(&self) -> &Account {
        self.account
    }

    /// This proxy's grant of the budget, once a request has needed one.
    #[must_use]
    pub fn grant(&self) -> Option<&Grant> {
        self.budget.grant(self.account)
    }

    /// Whether the budget applies to requests that this model serves.
    #[must_use]
    pub fn holds_for(&self, model: &str) -> bool {
        self.limit.is_none_or(|limit| limit.holds_for(model))
    }

    /// Whether a request would wait now, as the first one of a window or after a silence.
    #[must_use]
    pub fn awaits_first(&self, now: Timestamp) -> bool {
        let (used, most) = (self.used(), self.share.most);
        let is_first = |grant: &Grant| grant.awaits_first(used, most, now);
        self.share.first == FirstRequest::Waits && self.grant().is_none_or(is_first)
    }

    /// If no request has to wait now: the time until which none will have to.
    #[must_use]
    pub fn warm_until(&self, now: Timestamp) -> Timestamp {
        let end = self.account.window.end;
        match self.grant() {
            Some(grant) if self.share.first == FirstRequest::Waits => {
                let stays = grant.stays_for(self.used(), &self.terms(), now);
                end.min(now.plus_nanos(stays))
            }
            Some(_) | None => end,
        }
    }

    /// Moves the slice to the account's present window. If there is no slice yet, makes one, for a holder that `draw` names.
    pub fn join(&mut self, draw: impl FnOnce(LimitKey) -> Holder) {
        let (unit, window) = (self.budget.unit, self.account.window);
        match self.account.slice.as_deref_mut() {
            Some(slice) if slice.is_of(unit, window) => {}
            Some(slice) => *slice = slice.moved(unit, window),
            None => {
                let slice = Slice::new(draw(self.key()), unit, window);
                self.account.slice = Some(Box::new(slice));
            }
        }
    }

    /// Notes that a reservation was admitted, or that there was no room for it.
    pub fn asked(&mut self, asked: Asked, now: Timestamp) {
        let unit = self.budget.unit;
        let (cost, before) = (unit.of(asked.cost), unit.of(asked.before));
        let used = match asked.is_held {
            true => self.used().saturating_sub(cost),
            false => self.used(),
        };
        let most = self.budget.raised(self.account);
        let Some((grant, terms)) = self.grant_mut() else {
            return;
        };
        let has_room = grant.check(used, cost, &terms, now).is_ok();
        if asked.is_held {
            *grant = grant.grew(before, cost);
        }
        if cost > most {
            // A reservation above the whole budget needs no line, unless an operator may have raised the budget since the last answer.
            if grant.is_dated(terms.most, now) {
                *grant = grant.lacked(1);
            }
            return;
        }
        let is_covered = used.saturating_add(cost) <= grant.granted;
        if !has_room || !is_covered {
            *grant = grant.lacked(cost);
        }
    }

    /// When a line is due, if nothing happens until then.
    #[must_use]
    pub fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let (grant, used) = (self.grant()?, self.used());
        let due = grant.due(used, &self.terms(), now);
        // A part of what requests hold now will be released, and then has to be given back to the store.
        let has_holds = !self.account.holds.is_empty();
        due.or_else(|| has_holds.then(|| now.plus_nanos(self.share.most)))
    }

    /// When the teller has to check the budget again: as [`due`](Self::due), but soon after the window's end at the latest. Proxies do so at
    /// different moments within a quarter of `least`, so that the store is not asked by all of them at once.
    #[must_use]
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let Holder(holder) = self.grant()?.holder;
        let moment = holder.checked_rem(self.share.least / 4);
        let end = self.account.window.end;
        let edge = end.plus_nanos(moment.unwrap_or_default());
        self.due(now).map(|due| due.min(edge))
    }

    /// Whether the budget was used in a window that has ended by now. To be called before the record is rolled forward.
    #[must_use]
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.account.window.end <= now && self.used() > 0 && self.grant().is_some()
    }

    /// Makes a line about the new window due, although no request has come in it yet: after [`has_ended`](Self::has_ended), the next one
    /// is not far, and finds a slice then.
    pub fn go_on(&mut self) {
        if let Some((grant, _)) = self.grant_mut().filter(|(grant, _)| grant.is_cold()) {
            *grant = grant.took(1);
        }
    }

    /// The next line, if it is due or is to be sent in any case.
    pub fn say(&mut self, in_any_case: bool, now: Timestamp) -> Option<Line> {
        let used = self.used();
        let (grant, terms) = self.grant_mut()?;
        if !in_any_case && !grant.is_due(used, &terms, now) {
            return None;
        }
        let line;
        (*grant, line) = grant.say(used, &terms, now);
        Some(line)
    }

    /// The generation of the budget's account.
    #[must_use]
    pub fn generation(&self) -> u64 {
        let slice = self.account.slice.as_deref();
        slice.map_or(0, |slice| slice.generation)
    }

    /// Applies what an operator has changed, if this is the answer to the newest line. To be called before [`Grant::heard`]. After a reset
    /// the account begins anew here as well; what was spent and is held stays in the account before it.
    pub fn follow(&mut self, line: &Line, answer: &Answer, now: Timestamp) {
        let account = &mut *self.account;
        let Some(slice) = account.slice.as_deref_mut() else {
            return;
        };
        let Grant { holder, .. } = slice.grant;
        let counts = holder == line.holder && slice.grant.awaits(line.seq);
        if !counts || answer.status != Status::Granted {
            return;
        }
        (slice.set, slice.raise) = (answer.set, answer.raise);
        if answer.generation > slice.generation {
            slice.generation = answer.generation;
            slice.grant = slice.grant.reset();
            account.begin_anew(now);
        }
    }

    /// The grant of this holder, to be changed, and how much of the grant is used.
    pub fn grant_of(&mut self, holder: Holder) -> Option<(&mut Grant, u64)> {
        let used = self.used();
        let slice = self.account.slice.as_deref_mut()?;
        let grant = Some(&mut slice.grant).filter(|grant| grant.holder == holder);
        Some((grant?, used))
    }

    /// What this proxy has spent and holds.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.budget.used(self.account)
    }

    fn terms(&self) -> Terms {
        let budget = self.budget.configured(self.account);
        self.share.terms(budget, self.account.window)
    }

    fn grant_mut(&mut self) -> Option<(&mut Grant, Terms)> {
        let terms = self.terms();
        self.budget.grant(self.account)?;
        let slice = self.account.slice.as_deref_mut()?;
        Some((&mut slice.grant, terms))
    }
}

/// A holder's name that no other process and no other record has: a hash of the process's random seed and, since a record that begins anew
/// must not take an old name again, of the time. `whose`: the record.
#[must_use]
pub fn draw(
    SlotSeed(seed): SlotSeed,
    whose: &str,
    LimitKey(key): LimitKey,
    now: Timestamp,
) -> Holder {
    let mut hasher = StableHasher::new_with_key(&seed);
    (whose, key, now.as_nanos()).hash(&mut hasher);
    Holder(hasher.finish())
}

/// Whether the slice of a budget has room for a reservation here and now; if the budget is not shared, it always has.
///
/// # Errors
/// The reason, if there is no room.
pub fn check(budget: &Budget, account: &Account, cost: Cost, now: Timestamp) -> Result<(), NoRoom> {
    let Some((share, grant)) = budget.share.as_ref().zip(budget.grant(account)) else {
        return Ok(());
    };
    let terms = share.terms(budget.configured(account), account.window);
    grant.check(budget.used(account), budget.unit.of(cost), &terms, now)
}
