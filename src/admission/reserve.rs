//! Reserves what a request may cost: on all of the limits that apply to it, or on none.

use crate::admission::books::{BooksResult, Shelf};
use crate::admission::capacity::{self, CapacityResult};
use crate::admission::hold::{Need, Spent, cells, close, hold, unreserved};
use crate::admission::ledger::{Attempt, Ledger, Place, Writes, fresh, roll_forward};
use crate::admission::shared;
use crate::admission::tenant::Tenant;
use crate::admission::{
    Admission, BOOK_TRIES, Holdings, KEY_TRIES, Outcome, RESERVE_TRIES, Refused,
};
use crate::base::units::{Cost, Ppm, Timestamp};
use crate::config::FailureMode;
use crate::estimate::Estimate;
use crate::estimate::learn::Model;
use crate::limits::capacity::Headroom;
use crate::policy::{
    Book, Decision, Expected, LimitRefusal, Reason, Refusal, Request, ShadowDecision, decide,
    let_through, lowered_by, remember, spent_out,
};
use crate::published::metric::Label;
use crate::state::record::Record;
use crate::state::store::{StateFaults, Store};

/// What a step on the record decides.
#[expect(
    clippy::large_enum_variant,
    reason = "moved once; a box for each admission would cost more than that"
)]
pub(super) enum Verdict {
    Hold(Held),
    Refuse { tier: usize, short: LimitRefusal },
    Corrupt,
}

/// What a step has reserved, and for which answer.
pub(super) struct Held {
    pub(super) tier: usize,
    reason: Option<Reason>,
    lowered_by: Option<(Label, Option<Ppm>)>,
    most_output: Option<u64>,
    estimate: Estimate,
    expected: Expected,
    shadow: Option<ShadowDecision>,
    holdings: Holdings,
    /// What is reserved on budgets.
    pub(super) cost: Cost,
}

impl Held {
    /// What is taken from buckets of tokens.
    pub(super) fn cells(&self) -> u64 {
        self.holdings.cells.unwrap_or_default()
    }
}

/// The result of taking from all books and capacities on which an admitted request is charged.
enum Taken {
    All(Admission),
    /// The decision must be made again, with the books as they are now, or with this tier taken as full.
    Again(Admission, Short),
    Unknown(Admission),
}

/// What had no room.
enum Short {
    Book(LimitRefusal),
    Slot,
    Tier(Headroom),
}

impl<S: Store> Ledger<'_, S> {
    /// Takes from all limits on which the request is charged and from the tier's capacity, or from none. The outcome contains the tier
    /// to which the request may be sent. `shelf`: the books as they were read just now.
    pub fn admit(&mut self, request: &Request<'_>, shelf: &Shelf) -> Outcome {
        let tenant = self.tenant;
        let mut newer = None;
        let mut rooms = self.rooms(request);
        // In each round one more tier is known to be full, and a full tier is not chosen again.
        let (mut others, mut again) = (0..rooms.len(), 0..BOOK_TRIES);
        let mut held = None;
        loop {
            let shelf = newer.as_ref().unwrap_or(shelf);
            let books = shelf.books(tenant);
            let request = request.finding(&rooms, &books);
            let admission = match self.reserve(&request, held, shelf) {
                Outcome::Admitted(admission) => admission,
                Outcome::Refused(refused) => {
                    if refused.refusal == Refusal::Pending {
                        self.parents_lacked(&request, &refused);
                    }
                    let books = shelf.records();
                    return Outcome::Refused(Refused { books, ..refused });
                }
                Outcome::Unavailable => return Outcome::Unavailable,
            };
            let (mut admission, short) = match self.take_all(admission, &request, shelf) {
                Taken::All(admission) => return Outcome::Admitted(admission),
                Taken::Unknown(admission) => return self.without_others(admission),
                Taken::Again(admission, short) => (admission, short),
            };
            match short {
                Short::Book(short) if again.next().is_none() => {
                    return Outcome::Refused(self.refuse_short(&mut admission, short, &books));
                }
                Short::Tier(room) if others.next().is_none() => {
                    return Outcome::Refused(self.refuse_full(&mut admission, room));
                }
                Short::Slot if again.next().is_none() => {
                    let model = request.model_at(admission.tier);
                    admission.books = self.unreserved_books(shelf, model);
                    return self.without_others(admission);
                }
                Short::Book(_) | Short::Slot => {}
                Short::Tier(full) => {
                    self.give_back_books(&mut admission);
                    if let Some(room) = rooms.get_mut(admission.tier) {
                        *room = Some(full);
                    }
                }
            }
            newer = Some(self.shelf());
            held = Some(admission);
        }
    }

    /// Takes from all of the tenant's own limits, or from none, and from nobody else's: for a plan that is only tried.
    pub fn admit_alone(&mut self, request: &Request<'_>) -> Outcome {
        self.reserve(&request.alone(), None, &Shelf::default())
    }

    /// Takes from the books and from the tier's capacity, after the tenant's own record.
    fn take_all(
        &mut self,
        mut admission: Admission,
        request: &Request<'_>,
        shelf: &Shelf,
    ) -> Taken {
        // Without the tenant's state nothing else is checked: what the request used is charged at the settlement.
        if admission.record.is_some() {
            match self.take_books(&mut admission, request, shelf) {
                BooksResult::Taken => {}
                BooksResult::Full(short) => return Taken::Again(admission, Short::Book(short)),
                BooksResult::Moved => return Taken::Again(admission, Short::Slot),
                BooksResult::Unknown => return Taken::Unknown(admission),
            }
        }
        match self.take_capacity(&mut admission) {
            CapacityResult::Taken => Taken::All(admission),
            CapacityResult::Unknown => Taken::Unknown(admission),
            CapacityResult::Full(room) => Taken::Again(admission, Short::Tier(room)),
        }
    }

    /// Whether the tenant has spent all that it may. This reserves nothing, and needs no request body.
    #[must_use]
    pub fn spent_out(&self) -> Option<Refused> {
        let limits = self.tenant.limits();
        if limits.is_shared() {
            return None;
        }
        let shelf = self.shelf();
        let books = shelf.books(self.tenant);
        let record = match self.record() {
            Some(record) => record,
            None if books.is_empty() => return None,
            None => Box::new(fresh(limits, self.now)),
        };
        let short = spent_out(limits, &books, &record, self.now)?;
        let refused = self.refused(0, short, &books, record, None);
        Some(Refused {
            books: shelf.records(),
            ..refused
        })
    }

    /// Takes what the request may use from all of the tenant's limits, or from none. This replaces what is `held` by an earlier admission,
    /// for which a tier or a book had no room.
    fn reserve(
        &mut self,
        request: &Request<'_>,
        mut held: Option<Admission>,
        shelf: &Shelf,
    ) -> Outcome {
        // A slot may be taken by another tenant after it was chosen; the one for the overflow never is.
        for _ in 0..KEY_TRIES {
            let place = match &held {
                Some(held) => held.place.clone(),
                None => self.place(),
            };
            match self.reserve_at(&place, request, held.as_ref()) {
                Attempt::Made(record, verdict) => {
                    return self.outcome(place, request, record, verdict);
                }
                // What was held in that slot is gone.
                Attempt::SlotTaken => held = None,
                Attempt::GivenUp => return self.without_state(place, request, held, shelf),
            }
        }
        self.count(StateFaults {
            given_up: 1,
            ..StateFaults::default()
        });
        self.without_state(Place::overflow(), request, None, shelf)
    }

    fn reserve_at(
        &mut self,
        place: &Place,
        request: &Request<'_>,
        held: Option<&Admission>,
    ) -> Attempt<Verdict> {
        let &mut Self {
            store,
            tenant,
            mode,
            now,
            ..
        } = self;
        let limits = tenant.limits();
        let attempt = self.change(place, limits, RESERVE_TRIES, |record, corrupt| {
            roll_forward(record, limits, now);
            shared::join(tenant, record, store, now);
            if let Some(held) = held {
                close(limits, record, &held.holdings, Spent::NOTHING, now);
            }
            if corrupt && mode == FailureMode::Deny && !limits.shadow {
                // This request is refused, but the next one finds a record.
                return (Writes::Yes, (Verdict::Corrupt, None));
            }
            let verdict = decide_and_hold(tenant, request, record, now);
            let noted = shared::decided(limits, request, record, &verdict, now);
            let writes = match &verdict {
                Verdict::Refuse { .. } if held.is_none() => noted.writes,
                _ => Writes::Yes,
            };
            (writes, (verdict, noted.due))
        });
        match attempt {
            Attempt::Made(record, (verdict, due)) => {
                self.note_due(&tenant.id, due);
                Attempt::Made(record, verdict)
            }
            Attempt::SlotTaken => Attempt::SlotTaken,
            Attempt::GivenUp => Attempt::GivenUp,
        }
    }

    fn outcome(
        &self,
        place: Place,
        request: &Request<'_>,
        record: Box<Record>,
        verdict: Verdict,
    ) -> Outcome {
        match verdict {
            Verdict::Hold(held) => Outcome::Admitted(Admission {
                tier: held.tier,
                reason: held.reason,
                lowered_by: held.lowered_by,
                most_output: held.most_output,
                estimate: held.estimate,
                expected: held.expected,
                shadow: held.shadow,
                record: Some(record),
                place,
                model: Model::of(request.model_at(held.tier)),
                holdings: held.holdings,
                is_settled: false,
                books: Vec::new(),
                unread_bytes: request.conditions.unread_bytes,
                capacity: self.capacity_of(request, held.tier),
            }),
            Verdict::Refuse { tier, short } => {
                let room = match short.refusal {
                    Refusal::TierCapacity(_) => request.room_at(tier).copied().map(Box::new),
                    _ => None,
                };
                let books = request.conditions.books;
                Outcome::Refused(self.refused(tier, short, books, record, room))
            }
            Verdict::Corrupt => Outcome::Unavailable,
        }
    }

    /// The outcome of a request when our own state is unavailable. What is `held` for the request stays held until it is settled
    /// or expires.
    fn without_state(
        &self,
        place: Place,
        request: &Request<'_>,
        held: Option<Admission>,
        shelf: &Shelf,
    ) -> Outcome {
        let tier = request.place.map_or(0, |place| place.asked);
        let would = match self.mode {
            FailureMode::Deny => ShadowDecision::Unavailable,
            FailureMode::Allow => ShadowDecision::Admit {
                tier,
                reason: None,
                most_output: None,
            },
        };
        let shadow = self.tenant.limits().shadow.then_some(would);
        match (self.mode, held) {
            (FailureMode::Deny, _) if shadow.is_none() => Outcome::Unavailable,
            (FailureMode::Allow, Some(held)) => Outcome::Admitted(Admission {
                record: None,
                books: self.unreserved_books(shelf, request.model_at(held.tier)),
                ..held
            }),
            (FailureMode::Deny | FailureMode::Allow, _) => Outcome::Admitted(Admission {
                tier,
                reason: None,
                lowered_by: None,
                most_output: None,
                estimate: request.estimate,
                expected: Expected::default(),
                shadow,
                record: None,
                place,
                model: Model::of(request.model_at(tier)),
                holdings: unreserved(self.tenant.limits(), request.model_at(tier), None, self.now),
                is_settled: false,
                books: self.unreserved_books(shelf, request.model_at(tier)),
                unread_bytes: request.conditions.unread_bytes,
                capacity: self.capacity_of(request, tier),
            }),
        }
    }

    /// The outcome of a request when the state of a book or of its tier's capacity is unavailable.
    fn without_others(&mut self, mut admission: Admission) -> Outcome {
        match (self.mode, &mut admission.shadow) {
            (FailureMode::Allow, _) => Outcome::Admitted(admission),
            (FailureMode::Deny, None) => {
                self.give_back(&mut admission);
                Outcome::Unavailable
            }
            (FailureMode::Deny, Some(would)) => {
                if would.admits() {
                    *would = ShadowDecision::Unavailable;
                }
                Outcome::Admitted(admission)
            }
        }
    }

    /// Gives back what is held for a request for which its tier's capacity has no room.
    pub(super) fn refuse_full(&mut self, admission: &mut Admission, room: Headroom) -> Refused {
        let record = self.give_back(admission);
        admission.capacity = None;
        let refusal = room.refused.map(Refusal::from);
        let short = LimitRefusal {
            refusal: refusal.unwrap_or(Refusal::TierCapacity(None)),
            limit: None,
        };
        let record = record.or_else(|| admission.record.take());
        let room = Some(Box::new(room));
        self.refused(admission.tier, short, &[], record.unwrap_or_default(), room)
    }

    /// Gives back what is held for a request for which a book has no room.
    pub(super) fn refuse_short(
        &mut self,
        admission: &mut Admission,
        short: LimitRefusal,
        books: &[Book<'_>],
    ) -> Refused {
        let record = self.give_back(admission);
        let record = record.or_else(|| admission.record.take());
        self.refused(
            admission.tier,
            short,
            books,
            record.unwrap_or_default(),
            None,
        )
    }

    pub(super) fn refused(
        &self,
        tier: usize,
        short: LimitRefusal,
        books: &[Book<'_>],
        record: Box<Record>,
        room: Option<Box<Headroom>>,
    ) -> Refused {
        Refused {
            tier,
            refusal: short.refusal,
            limit: short.name(self.tenant.limits(), books),
            record,
            books: Vec::new(),
            room,
        }
    }

    fn rooms(&mut self, request: &Request<'_>) -> Vec<Option<Headroom>> {
        let (rooms, faults) = capacity::rooms(self.store, self.tenant.limits(), request, self.now);
        self.count(faults);
        rooms
    }

    fn capacity_of(
        &self,
        request: &Request<'_>,
        tier: usize,
    ) -> Option<Box<capacity::CapacityHold>> {
        capacity::nothing_yet(request, tier, self.tenant.limits().priority, self.now)
    }
}

/// Decides by a record that is rolled forward to now, and reserves on that record if the request is admitted.
fn decide_and_hold(
    tenant: &Tenant,
    request: &Request<'_>,
    record: &mut Record,
    now: Timestamp,
) -> Verdict {
    let limits = tenant.limits();
    let decision = decide(limits, request, record, now);
    let (decision, shadow) = if limits.shadow {
        let (admitted, would) = let_through(&decision, limits, request, record, now);
        (admitted, Some(would))
    } else {
        (decision, None)
    };
    match decision {
        Decision::Refuse {
            tier,
            refusal,
            limit,
        } => Verdict::Refuse {
            tier,
            short: LimitRefusal { refusal, limit },
        },
        Decision::Admit {
            tier,
            reason,
            most_output,
            estimate,
            expected,
        } => {
            let lowered_by = reason.and_then(|reason| {
                let books = request.conditions.books;
                let by = lowered_by(limits, request, tier, reason, record, now)?;
                Some((by.limit.name(limits, books)?, by.mark))
            });
            remember(limits, request, record, now);
            let need = Need {
                cells: cells(&estimate, shadow),
                reserve: expected.reserve(limits),
                model: request.model_at(tier),
                child: None,
            };
            let holdings = hold(limits, record, need, now);
            Verdict::Hold(Held {
                tier,
                reason,
                lowered_by,
                most_output,
                estimate,
                expected,
                shadow,
                holdings,
                cost: need.reserve.cost,
            })
        }
    }
}
