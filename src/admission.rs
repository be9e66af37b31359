//! Reserving and settling on a tenant's record, each in one compare-and-swap, and on capacities that tenants share ([`capacity`]).
//!
//! **Books.** A request is also charged on the limits of its subjects and of the tenant's parents. These have records of their own
//! ([`books`]): no step changes two records.
//!
//! **Bound.** For every admitted request its ceiling (see [`crate::estimate`]) is reserved before the request is forwarded, in the same
//! write that checks that it fits: `spent + held + ceiling <= budget`. Settlement replaces the reservation by the real usage. So with any
//! number of workers, as long as no request uses more than its ceiling, `spent` never exceeds the budget. If requests use more, `spent`
//! exceeds the budget at most by what they used beyond their ceilings. The only exception is a request that is still open when its
//! reservation expires ([`crate::limits::account::Hold`]).

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

/// Tries before a settlement gives up. A settlement must not be lost, and it delays no request.
const SETTLE_TRIES: u32 = 256;

/// How often a request is decided anew because other requests have used up the room that it had found in a book.
const BOOK_TRIES: u32 = 4;

/// Slots that are tried before a tenant that is not configured gets the slot that all tenants without one share.
const KEY_TRIES: u32 = 4;

/// An admitted request, and what is held for it.
#[derive(Debug)]
pub struct Admission {
    /// Index of the tier that serves the request.
    pub tier: usize,
    /// Why that tier is not the requested one, or why it is the requested one although a rule would lower it.
    pub reason: Option<Reason>,
    /// The limit that lowered the tier, if a limit did, and the limit's mark that was crossed.
    pub lowered_by: Option<(Label, Option<Ppm>)>,
    /// The most tokens that each answer to the request may have, if that is limited.
    pub most_output: Option<u64>,
    /// What the request may cost, as it was reserved.
    pub estimate: Estimate,
    /// What the request may cost in money.
    expected: Expected,
    /// In shadow mode: what would have been done with the request.
    pub shadow: Option<ShadowDecision>,
    /// The tenant's state just after the admission; `None` if it was unavailable.
    pub record: Option<Box<Record>>,
    place: Place,
    /// The model that serves the request.
    model: Model,
    /// What is held on the tenant's record.
    holdings: Holdings,
    /// Whether the tenant's record has been charged what the request used.
    is_settled: bool,
    /// What is held on the request's other books.
    books: Vec<BookHold>,
    /// Bytes of the body that were announced but had not arrived yet. For these nothing is taken of what all tenants share.
    unread_bytes: u64,
    /// What is held of the tier's capacity, if the tier has one.
    pub capacity: Option<Box<CapacityHold>>,
}

impl Admission {
    /// How much of a cost exceeds what is held on the tenant's first budget, in that budget's unit.
    #[must_use]
    pub fn exceeded(&self, limits: &Limits, used: Cost) -> Option<(Unit, u64)> {
        self.holdings.exceeded(limits, used)
    }
}

/// What a request holds on a record.
#[derive(Debug, Default)]
struct Holdings {
    /// The reservation on the budget, if there is a budget and our state was available.
    reservation: Option<Reservation>,
    /// What is held on the plan's other limits.
    others: Vec<LimitHold>,
    /// The cells that were taken from the token bucket; `None` if none were taken, since the request would have been refused.
    cells: Option<u64>,
    /// When the cells were taken.
    taken: Timestamp,
    /// The child through which the request came, if that child has a guaranteed share of the budgets.
    child: Option<ChildKey>,
}

impl Holdings {
    /// Nothing is held, and nothing is to be given back.
    fn nothing(now: Timestamp) -> Self {
        Self {
            cells: Some(0),
            taken: now,
            ..Self::default()
        }
    }
}

/// The outcome of an admission.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "moved once; a box for each admission would cost more than that"
)]
pub enum Outcome {
    /// The request may be forwarded.
    Admitted(Admission),
    /// The request is refused.
    Refused(Refused),
    /// Our own state is unavailable, and the operator has chosen to refuse requests then.
    Unavailable,
}

/// A refused request.
#[derive(Debug)]
pub struct Refused {
    /// Index of the tier at which the request would have been served.
    pub tier: usize,
    /// Why the request is refused.
    pub refusal: Refusal,
    /// The name of the limit that refuses; `None` if a tier's capacity does.
    pub limit: Option<Label>,
    /// The tenant's state at the refusal.
    pub record: Box<Record>,
    /// The states of the other books, in the order of [`Tenant::books`](tenant::Tenant::books); empty if they are not reported.
    pub books: Vec<Record>,
    /// The headroom that the request found at the tier, if the tier's capacity refuses.
    pub room: Option<Box<Headroom>>,
}
