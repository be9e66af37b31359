//! The books of a request: whose limits apply beside its tenant's own, and what it is charged there.

use super::standing::{of_book, strictest};
use super::{LimitRefusal, Request};
use crate::base::units::{Cost, Timestamp};
use crate::estimate::Estimate;
use crate::limits::account::Reserve;
use crate::limits::lend::ChildKey;
use crate::plan::Limits;
use crate::state::record::Record;

/// Whose limits they are. Where several refuse for equally long, the first in this order is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Payer {
    /// A subject (a user or a run, say) that the limits of the tenant or of one of its parents count.
    Subject,
    /// The tenant itself.
    Tenant,
    /// One above it.
    Parent,
}

/// Limits that apply beside the tenant's own, and where they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Book<'a> {
    /// Whose they are.
    pub payer: Payer,
    /// The limits.
    pub limits: &'a Limits,
    /// Their state as of now.
    pub record: &'a Record,
    /// The child with a guaranteed share of these budgets from which the request comes, if one has.
    pub child: Option<ChildKey>,
    /// They count, and neither refuse nor lower anything.
    pub looks_on: bool,
}

/// What a request costs, by its tier and its longest answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// At the most.
    pub ceiling: Cost,
    /// By what such requests have used.
    pub likely: Cost,
}

impl Expected {
    /// What budgets of a plan hold of it.
    #[must_use]
    pub fn reserve(&self, limits: &Limits) -> Reserve {
        let &Self { ceiling, likely } = self;
        Reserve {
            cost: if limits.holds_likely { likely } else { ceiling },
            likely,
        }
    }
}

/// All of it is likely to be used.
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
    /// As it was decided about.
    pub request: &'a Request<'a>,
    /// The tier that serves it.
    pub tier: usize,
    /// What it may cost there.
    pub estimate: &'a Estimate,
    /// The same in money.
    pub expected: &'a Expected,
    /// The overdraft may be used.
    pub overdraw: bool,
}

/// Whether a book still has room for an admitted request; `place`: that of the book among the request's.
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
