//! Reserving and settling on a tenant's record, each in one compare-and-swap, and on what tenants share ([`capacity`]).
//!
//! **Books.** What a request is charged beside its tenant's limits, those of its subjects and of the tenant's parents, stands in records
//! of their own ([`books`]): no step changes two of them.
//!
//! **Bound.** Every admitted request has its ceiling (see [`crate::estimate`]) reserved before it leaves, in the same
//! write that saw that it fits: `spent + held + ceiling <= budget`. Settlement takes the reservation out and puts the
//! real usage in. So with any number of workers, as long as no request uses more than its ceiling, `spent` never
//! exceeds the budget; and where requests do use more, it exceeds it by no more than what they used beyond. The one
//! exception is a request that is still open when its reservation expires ([`crate::limits::account::Hold`]).

use crate::admission::books::BookHold;
use crate::admission::hold::LimitHold;
use crate::admission::ledger::Place;
use crate::base::units::{Cost, Ppm, Timestamp, Unit};
use crate::estimate::Estimate;
use crate::estimate::learn::Model;
use crate::limits::account::Reservation;
use crate::limits::capacity::Headroom;
use crate::limits::lend::ChildKey;
use crate::plan::Limits;
use crate::policy::{Expected, Reason, Refusal, ShadowDecision};
use crate::published::metric::Label;
use crate::state::record::Record;

mod amend;
mod books;
mod capacity;
mod hold;
pub mod ledger;
mod preview;
mod reserve;
mod settle;
mod shared;
mod subjects;
pub mod tenant;

pub use amend::Amended;
pub use books::Shelf;
pub use capacity::{CapacityHold, learn};
pub use settle::Used;
pub use shared::Watch;

/// Tries before a reservation gives up. Each lost try means that another worker progressed; with four workers in a
/// tight loop on one record about a third of the tries are lost, so this many in a row do not happen by chance.
const RESERVE_TRIES: u32 = 16;

/// Tries before a settlement gives up. It must not be lost, and it delays nobody.
const SETTLE_TRIES: u32 = 256;

/// Times that a request is decided anew since another took what it found in a book.
const BOOK_TRIES: u32 = 4;

/// Slots that are tried before a tenant which is not configured counts as one that has none.
const KEY_TRIES: u32 = 4;

/// A request that may leave, and what is held for it.
#[derive(Debug)]
pub struct Admission {
    /// Index of the tier that serves it.
    pub tier: usize,
    /// Why that is not the requested one.
    pub reason: Option<Reason>,
    /// The limit by which it is not, if it is one, and the mark of it that was crossed.
    pub lowered_by: Option<(Label, Option<Ppm>)>,
    /// Tokens that each of its answers may have at the most, if that is limited.
    pub most_output: Option<u64>,
    /// What it may cost, as it was reserved.
    pub estimate: Estimate,
    /// The same in money.
    expected: Expected,
    /// What would have been done with it, if its tenant's plan only looks on.
    pub shadow: Option<ShadowDecision>,
    /// The tenant's state just after; `None` if it could not be had.
    pub record: Option<Box<Record>>,
    place: Place,
    /// The model that serves it.
    model: Model,
    /// What is held on the record.
    holdings: Holdings,
    /// The record knows what was used.
    is_settled: bool,
    /// What is held on other books.
    books: Vec<BookHold>,
    /// Bytes of the body that were announced and not there yet: what all share is not taken for a promise.
    unread_bytes: u64,
    /// What is held of the tier's capacity, if it has one.
    pub capacity: Option<Box<CapacityHold>>,
}

impl Admission {
    /// What of a cost is beyond what is held on the tenant's first budget, in its unit.
    #[must_use]
    pub fn exceeded(&self, limits: &Limits, used: Cost) -> Option<(Unit, u64)> {
        self.holdings.exceeded(limits, used)
    }
}

/// What a request holds on a record.
#[derive(Debug, Default)]
struct Holdings {
    /// On the budget, if there is one and our state could be had.
    reservation: Option<Reservation>,
    /// On the plan's other limits.
    others: Vec<LimitHold>,
    /// In the token bucket; `None` where nothing was taken, since the request would have been refused.
    cells: Option<u64>,
    /// When they were.
    taken: Timestamp,
    /// Through which child with a guaranteed share of the budgets the request came.
    child: Option<ChildKey>,
}

impl Holdings {
    /// Nothing, and nothing to be given back.
    fn nothing(now: Timestamp) -> Self {
        Self {
            cells: Some(0),
            taken: now,
            ..Self::default()
        }
    }
}

/// What became of a request.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "moved once; a box for each admission would cost more than that"
)]
pub enum Outcome {
    /// It may leave.
    Admitted(Admission),
    /// It may not.
    Refused(Refused),
    /// Our own state could not be had, and the operator wants to refuse then.
    Unavailable,
}

/// A request that may not leave.
#[derive(Debug)]
pub struct Refused {
    /// Index of the tier that it would have been served at.
    pub tier: usize,
    /// Why not.
    pub refusal: Refusal,
    /// The name of the limit that says so; `None` where it is a tier's capacity.
    pub limit: Option<Label>,
    /// The tenant's state at the refusal.
    pub record: Box<Record>,
    /// The states of the other books, in the order of [`Tenant::books`](tenant::Tenant::books); empty where they are not told.
    pub books: Vec<Record>,
    /// What it found at that tier, if it is the tier's capacity that refuses.
    pub room: Option<Box<Headroom>>,
}
