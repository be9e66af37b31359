//! Guaranteed shares of a parent's budget: how much of each is kept for its child, and how much is lent to the child's siblings.
//!
//! For each child with a guaranteed share, in the budget's unit:
//!
//! ```text
//! G  its share of what may be spent in the window
//! U  what its requests have spent and hold, by the parent's account
//! B  what is lent: what its siblings have spent and hold of its share
//! R  what it still has:       R = max(G − U, 0) − B, at least 0
//! N  what is never lent:      N = G × time left ÷ window; all of G where the window has no fixed end
//! P  what its pace needs:     P = rate of its recently settled requests and those in flight × time left
//!
//! kept = min(R, max(N, P))
//! ```
//!
//! A request passes if it fits into what is left of the budget, less what is kept for all children but its own. For no child is more kept
//! than its R, and all R together are never more than what is left; so each child can always use all of its own R. R falls by what the
//! child uses, and by what is lent, but lending lowers it only down to N. So no child loses its N, whatever its siblings do.
//!
//! B is stored for each child. Otherwise, if a child has lent much of its share and uses the rest, as much would be kept for it again, out
//! of its siblings' shares. A loan is taken from all children whose R exceeds what is kept for them, in proportion to that excess; what is
//! given back is distributed in the same way.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::base::hash::stable;
use crate::base::units::{Cost, Ppm, Timestamp, nanos, share, share_up};
use crate::calendar::window::Period;
use crate::limits::account::{Account, Hold};
use crate::limits::budget::Budget;
use crate::limits::pace::{decayed, steps};
use crate::tenant::TenantId;

/// A child's guaranteed share of each of its parent's budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guarantee {
    /// The child.
    pub child: ChildKey,
    /// The share, above 0. All shares of a parent together are at most one whole.
    pub share: Ppm,
}

/// The hash of the name under which a child's account was opened. It is stored in records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildKey(pub u64);

impl ChildKey {
    /// The key of a tenant.
    #[must_use]
    pub fn of(id: &TenantId) -> Self {
        Self(stable(id.account()))
    }
}

/// What a parent's account stores about a child with a guaranteed share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// The key of the child.
    pub key: ChildKey,
    /// What the child's requests have spent.
    pub spent: Cost,
    /// The child's part of each of the account's holds.
    pub holds: Vec<Hold>,
    /// What siblings have spent and hold of the child's share, in the budget's unit.
    pub lent: u64,
    /// What the child's recently settled requests have spent, halved every half-life.
    pub recent: Cost,
    /// The time as of which `recent` holds.
    pub since: Timestamp,
}

/// The most children of a parent with a guaranteed share.
pub const CHILDREN: usize = 64;

/// The half-lives in a window: with a window of a day, a half-life is half an hour.
const HALF_LIVES: u64 = 48;

/// The factor from `recent` to what would be spent at that rate in a whole window, in thousandths: ln 2 × [`HALF_LIVES`].
const WINDOWS_WORTH: u64 = 33_271;

impl Child {
    /// A child that has neither spent nor lent anything.
    fn new(key: ChildKey) -> Self {
        Self {
            key,
            spent: Cost::ZERO,
            holds: Vec::new(),
            lent: 0,
            recent: Cost::ZERO,
            since: Timestamp::default(),
        }
    }

    fn is_new(&self) -> bool {
        self.holds.is_empty()
            && self.lent == 0
            && self.spent == Cost::ZERO
            && self.recent == Cost::ZERO
    }

    /// Counts what a settled request used.
    #[inline(never)]
    pub(super) fn spend(&mut self, used: Cost, length: Duration, now: Timestamp) {
        if used == Cost::ZERO {
            return;
        }
        self.spent = self.spent.plus(used);
        let (since, steps) = steps(self.since, half_life(length), now);
        self.recent = decayed(self.recent, steps).plus(used);
        self.since = since;
    }

    /// What was settled recently, plus what is in flight.
    fn recent(&self, length: Duration, now: Timestamp) -> Cost {
        let (_, steps) = steps(self.since, half_life(length), now);
        let recent = decayed(self.recent, steps);
        self.holds
            .iter()
            .fold(recent, |sum, hold| sum.plus(hold.likely))
    }

    fn held(&self) -> Cost {
        let holds = self.holds.iter();
        holds.fold(Cost::ZERO, |sum, hold| sum.plus(hold.cost))
    }
}

fn half_life(length: Duration) -> NonZeroU64 {
    NonZeroU64::new(nanos(length) / HALF_LIVES).unwrap_or(NonZeroU64::MIN)
}

impl Account {
    /// The entry of a child, for changes; it is added if there was none. `None` if there are too many children.
    #[inline(never)]
    pub(super) fn child(&mut self, key: ChildKey) -> Option<&mut Child> {
        let mut all = self.children.iter();
        let at = all.position(|child| child.key == key);
        let at = at.unwrap_or(self.children.len());
        if at == self.children.len() && at < CHILDREN {
            self.children.push(Child::new(key));
        }
        self.children.get_mut(at)
    }
}

/// What a child may claim of the budget.
struct Claim {
    /// max(G − U, 0).
    whole: u64,
    /// B, at most `whole`.
    lent: u64,
    /// B, as it was stored.
    before: u64,
    /// max(N, P).
    needed: u64,
    /// Whether this child's request causes the change.
    is_its: bool,
    /// This child's part of the amount that is lent or given back.
    part: u64,
}

/// A function that reads a part of a claim.
type Part = fn(&Claim) -> u64;

impl Claim {
    #[inline(never)]
    fn of(guarantee: &Guarantee, budget: &Budget, account: &Account, now: Timestamp) -> Self {
        let amount = guarantee.share.of(budget.allowance(account));
        let mut all = account.children.iter();
        let child = all.find(|child| child.key == guarantee.child);
        let length = account.window.length();
        let (mut used, mut lent, mut recent) = (0, 0, 0);
        if let Some(child) = child {
            used = budget.unit.of(child.spent.plus(child.held()));
            lent = child.lent;
            recent = budget.unit.of(child.recent(length, now));
        }
        let whole = amount.saturating_sub(used);
        let lent = lent.min(whole);
        let needed = match NonZeroU64::new(nanos(length)) {
            Some(length) if has_end(budget) => {
                let left = account.window.end.nanos_since(now).min(length.get());
                let pace = share(recent, WINDOWS_WORTH, 1_000);
                let pace = share(pace, left, length.get());
                share_up(amount, left, length).max(pace)
            }
            _ => amount,
        };
        Self {
            whole,
            lent,
            before: lent,
            needed,
            is_its: false,
            part: 0,
        }
    }

    fn whole(&self) -> u64 {
        self.whole
    }

    fn lent(&self) -> u64 {
        self.lent
    }

    fn lent_by_others(&self) -> u64 {
        if self.is_its { 0 } else { self.lent }
    }

    /// R.
    fn left(&self) -> u64 {
        self.whole.saturating_sub(self.lent)
    }

    fn kept(&self) -> u64 {
        self.left().min(self.needed)
    }

    fn lendable(&self) -> u64 {
        self.left().saturating_sub(self.needed)
    }
}

/// Whether the window's end comes nearer with time. Each request postpones the end of an idle window.
fn has_end(budget: &Budget) -> bool {
    !matches!(budget.period, Period::Never | Period::Idle(_))
}

/// How much of the budget is kept for children other than the one that `asks`.
#[must_use]
#[inline(never)]
pub fn kept(
    guarantees: &[Guarantee],
    budget: &Budget,
    account: &Account,
    asks: Option<ChildKey>,
    now: Timestamp,
) -> u64 {
    let mut kept = 0_u64;
    for guarantee in guarantees {
        if Some(guarantee.child) != asks {
            kept = kept.saturating_add(Claim::of(guarantee, budget, account, now).kept());
        }
    }
    kept
}

/// The time until no more than `most` is kept, if no request comes before; at the latest the window's end. `None` if the window has no end.
#[must_use]
pub fn wait(
    guarantees: &[Guarantee],
    budget: &Budget,
    account: &Account,
    asks: Option<ChildKey>,
    most: u64,
    now: Timestamp,
) -> Option<Duration> {
    if account.window.end == Timestamp::MAX {
        return None;
    }
    // What is kept decreases with time.
    let (mut early, mut late) = (0_u64, account.window.end.nanos_since(now).div_ceil(MILLI));
    while early.saturating_add(1) < late {
        let middle = early.midpoint(late);
        let then = now.plus(Duration::from_millis(middle));
        match kept(guarantees, budget, account, asks, then) <= most {
            true => late = middle,
            false => early = middle,
        }
    }
    Some(Duration::from_millis(late))
}

const MILLI: u64 = 1_000_000;

/// Updates how much of each share is lent, after what is spent or held has changed. `by`: the child whose request caused the change, if
/// that child has a guaranteed share.
#[inline(never)]
pub fn balance(
    guarantees: &[Guarantee],
    budget: &Budget,
    account: &mut Account,
    by: Option<ChildKey>,
    now: Timestamp,
) {
    let mut claims = Vec::with_capacity(guarantees.len());
    for guarantee in guarantees {
        let mut claim = Claim::of(guarantee, budget, account, now);
        claim.is_its = Some(guarantee.child) == by;
        claims.push(claim);
    }
    let left = budget.headroom(account, budget.allowance(account));
    let owed = sum(&claims, Claim::whole).saturating_sub(left);
    // What a child gives back goes to the children who lent it. More than `lendable` is taken only for requests that use more than they
    // hold.
    let steps: [(Part, bool); 4] = [
        (Claim::lent_by_others, true),
        (Claim::lent, true),
        (Claim::lendable, false),
        (Claim::left, false),
    ];
    for (of, back) in steps {
        let lent = sum(&claims, Claim::lent);
        let amount = match back {
            true => lent.saturating_sub(owed),
            false => owed.saturating_sub(lent),
        };
        shift(&mut claims, amount, of, back);
    }
    for (guarantee, claim) in guarantees.iter().zip(&claims) {
        // If the lending child's own use now covers a part of its loan, that part counts again once the use is given back.
        if claim.lent != claim.before
            && let Some(child) = account.child(guarantee.child)
        {
            child.lent = claim.lent;
        }
    }
    let is_full = account.children.len() >= CHILDREN;
    account.children.retain(|child| {
        let mut all = guarantees.iter();
        !child.is_new() && (!is_full || all.any(|guarantee| guarantee.child == child.key))
    });
}

#[inline(never)]
fn sum(claims: &[Claim], of: Part) -> u64 {
    let all = claims.iter();
    all.fold(0, |sum, claim| sum.saturating_add(of(claim)))
}

/// Lends an amount, or gives it back, in proportion to what each claim has; at most as much as all claims have.
#[inline(never)]
fn shift(claims: &mut [Claim], amount: u64, of: Part, back: bool) {
    let all = sum(claims, of);
    let amount = amount.min(all);
    let mut rest = amount;
    for claim in &mut *claims {
        claim.part = share(amount, of(claim), all);
        rest = rest.saturating_sub(claim.part);
    }
    for claim in claims {
        // The remainder after rounding goes to the first claims that have room for it.
        let more = rest.min(of(claim).saturating_sub(claim.part));
        rest = rest.saturating_sub(more);
        let part = claim.part.saturating_add(more);
        claim.lent = match back {
            true => claim.lent.saturating_sub(part),
            false => claim.lent.saturating_add(part),
        };
    }
}

#[cfg(test)]
mod tests;
