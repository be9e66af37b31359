//! The books of a request: the limits that apply besides its tenant's own, and what the request is charged against them.

use super::standing::{of_book, strictest};
use super::{LimitRefusal, Request};
use crate::base::units::{Cost, Timestamp};
use crate::estimate::Estimate;
use crate::limits::account::Reserve;
use crate::limits::lend::ChildKey;
use crate::plan::Limits;
use crate::state::record::Record;

/// Whose limits they are. Where several payers' limits refuse for equally long, the first payer in this order is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Payer {
    /// A subject (a user or a run, say) that the limits of the tenant or of one of its parents count.
    Subject,
    /// The tenant itself.
    Tenant,
    /// A parent of the tenant.
    Parent,
}

/// Limits that apply besides the tenant's own, and their state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Book<'a> {
    /// Whose limits they are.
    pub payer: Payer,
    /// The limits.
    pub limits: &'a Limits,
    /// The state of the limits as of now.
    pub record: &'a Record,
    /// The child through which the request comes, if that child has a guaranteed share of these budgets.
    pub child: Option<ChildKey>,
    /// Whether the limits count usage, but neither refuse nor lower anything.
    pub looks_on: bool,
}

/// What a request costs, by its tier and its longest answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The most that it may cost.
    pub ceiling: Cost,
    /// What it is likely to cost, by what similar requests have used.
    pub likely: Cost,
}

impl Expected {
    /// What the budgets of a plan hold for this cost.
    #[must_use]
    pub fn reserve(&self, limits: &Limits) -> Reserve {
        let &Self { ceiling, likely } = self;
        Reserve {
            cost: if limits.holds_likely { likely } else { ceiling },
            likely,
        }
    }
}

/// All of the cost is likely to be used.
impl From<Cost> for Expected {
    fn from(cost: Cost) -> Self {
        Self {
            ceiling: cost,
            likely: cost,
        }
    }
}

/// A request as it was admitted: at which tier, and what it may use there.
#[derive(Clone, Copy, Debug)]
pub struct Admitted<'a> {
    /// The request, as it was when the decision was made.
    pub request: &'a Request<'a>,
    /// The tier that serves it.
    pub tier: usize,
    /// What it may cost there, in tokens.
    pub estimate: &'a Estimate,
    /// What it may cost there, in money.
    pub expected: &'a Expected,
    /// Whether the overdraft may be used.
    pub overdraw: bool,
}

/// Whether a book still has room for an admitted request. `place` is the book's index among the request's books.
///
/// # Errors
/// The strictest refusal of its limits.
pub fn check_book(
    book: &Book<'_>,
    place: usize,
    admitted: &Admitted<'_>,
    now: Timestamp,
) -> Result<(), LimitRefusal> {
    let &Admitted {
        request,
        tier,
        estimate,
        expected,
        overdraw,
    } = admitted;
    let here = || of_book(book, place).filter(|limit| limit.holds_at(request, tier));
    strictest(here().map(|limit| limit.check(estimate, expected, overdraw, now)))?;
    if !book.limits.is_shared() {
        return Ok(());
    }
    let cost = expected.reserve(book.limits).cost;
    strictest(here().map(|limit| limit.check_slice(cost, now)))
}
