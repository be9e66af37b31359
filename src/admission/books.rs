//! The books of a request: the records of others (parents, subjects) on which the request is charged besides its tenant's own record, each
//! in a compare-and-swap of its own.
//!
//! **What is atomic.** One step checks whether a book has room and takes from it, so that none of its limits is ever exceeded, whoever
//! else takes from the book.
//!
//! **What is not.** No step changes two books. All are read before the decision, which therefore sees all limits; then the tenant's record
//! is charged and the others after it, always in the same order. If one has no room any more, everything that was taken is given back in
//! full, and the decision is made again with the books as they are then. For the microseconds between, other requests see a little less of
//! these limits than there is. If a VM traps between the steps, what was taken is held until it expires, as after any trap.

use crate::admission::hold::{Need, Spent, cells, close, hold, unreserved};
use crate::admission::ledger::{Attempt, Found, Ledger, Place, Tries, Writes, read, roll_forward};
use crate::admission::tenant::{BookOf, Tenant, Whose};
use crate::admission::{Admission, Holdings, RESERVE_TRIES, SETTLE_TRIES, Used};
use crate::admission::{shared, subjects};
use crate::base::units::Cost;
use crate::config::FailureMode;
use crate::plan::Limits;
use crate::policy::{Admitted, Book, LimitRefusal, Request, check_book, may_overdraw};
use crate::report::metrics;
use crate::state::record::Record;
use crate::state::shared_budgets::Asked;
use crate::state::slots::owner_of;
use crate::state::store::{Known, Store, tenant_key};
use crate::state::subjects::Seat;

/// What is held on a book, and where.
#[derive(Debug)]
pub(super) struct BookHold {
    place: Place,
    pub(super) holdings: Holdings,
    /// The book's record just after the step; `None` if it was unavailable.
    record: Option<Box<Record>>,
    /// Whether the book has been charged what the request used.
    is_settled: bool,
}

/// The books of a request as they were read, in the order of [`Tenant::books`].
#[derive(Debug, Default)]
pub struct Shelf(Vec<Snapshot>);

#[derive(Debug)]
struct Snapshot {
    place: Place,
    /// The record's bytes, for the first try of the next step.
    known: Option<Known>,
    /// The record, rolled forward to now.
    record: Box<Record>,
}

/// The result of taking from the books.
pub(super) enum BooksResult {
    /// All books hold the request's cost.
    Taken,
    /// One book has no room, and no book holds anything for the request any more.
    Full(LimitRefusal),
    /// The slot of one book was given to another subject just now, and no book holds anything for the request any more.
    Moved,
    /// Our own state is unavailable, and `failure_mode` refuses requests then.
    Unknown,
}

/// The result of a step on one book.
enum Take {
    Held(Holdings),
    Full(LimitRefusal),
    Corrupt,
}

impl Shelf {
    /// The books as the decision sees them.
    pub(crate) fn books<'a>(&'a self, tenant: &'a Tenant) -> Vec<Book<'a>> {
        let all = tenant.books().zip(&self.0);
        all.map(|(of, snapshot)| of.with(&snapshot.record))
            .collect()
    }

    /// The books' records.
    pub(super) fn records(&self) -> Vec<Record> {
        let all = self.0.iter();
        all.map(|snapshot| (*snapshot.record).clone()).collect()
    }
}

impl Admission {
    /// The books just after the admission's step on them. `tenant`: whose request it is.
    pub(crate) fn books<'a>(&'a self, tenant: &'a Tenant) -> Vec<Book<'a>> {
        let records = self.books.iter().map(|book| book.record.as_deref());
        let all = tenant.books().zip(records);
        all.filter_map(|(of, record)| Some(of.with(record?)))
            .collect()
    }
}

impl<S: Store> Ledger<'_, S> {
    /// Reads the books that the tenant's requests are charged on.
    pub(crate) fn shelf(&self) -> Shelf {
        let all = self.tenant.books();
        Shelf(all.map(|book| self.look(&book)).collect())
    }

    fn look(&self, book: &BookOf<'_>) -> Snapshot {
        let (tenant, kind, id) = match book.whose {
            Whose::Parent(id) => {
                let place = Place {
                    key: tenant_key(id.account()),
                    owner: owner_of(id.account()),
                };
                let mut snapshot = self.look_at(place, book.limits).0;
                let record = &mut snapshot.record;
                shared::join_as(id, book.limits, record, self.store, self.now);
                return snapshot;
            }
            Whose::Subject { tenant, kind, id } => (tenant, kind, id),
        };
        let seat = Seat::of(self.store.slot_seed(), tenant, kind, id);
        let (place, slot) = subjects::find(self.store, &seat, book.limits, None, self.now);
        let (snapshot, is_its) = self.look_at(place, book.limits);
        if is_its || slot.is_none() {
            return snapshot;
        }
        // The slot contains another subject's record.
        let (place, _) = subjects::find(self.store, &seat, book.limits, slot, self.now);
        self.look_at(place, book.limits).0
    }

    /// The record at a place, and whether it belongs to the place's owner.
    fn look_at(&self, place: Place, limits: &Limits) -> (Snapshot, bool) {
        let known = self.store.get(&place.key).ok();
        let bytes = known.as_ref().and_then(Option::as_ref);
        let bytes = bytes.map(|(bytes, _)| bytes.as_slice());
        let (mut record, is_its) = match read(&place, limits, bytes, self.now) {
            Found::Ours(record) | Found::Corrupt(record) => (record, true),
            Found::Taken => (Box::default(), false),
        };
        roll_forward(&mut record, limits, self.now);
        let snapshot = Snapshot {
            place,
            known,
            record,
        };
        (snapshot, is_its)
    }

    /// The shelf, without what an admission holds on the books.
    pub(super) fn shelf_without(&self, admission: &Admission) -> Shelf {
        let mut shelf = self.shelf();
        let all = self.tenant.books().zip(&mut shelf.0).zip(&admission.books);
        for ((book, snapshot), held) in all {
            let record = &mut snapshot.record;
            close(
                book.limits,
                record,
                &held.holdings,
                Spent::NOTHING,
                self.now,
            );
        }
        shelf
    }

    /// Takes from the books what an admitted request may use, in place of what it already holds there.
    pub(super) fn take_books(
        &mut self,
        admission: &mut Admission,
        request: &Request<'_>,
        shelf: &Shelf,
    ) -> BooksResult {
        let tenant = self.tenant;
        for (index, (book, snapshot)) in tenant.books().zip(&shelf.0).enumerate() {
            let (record, take) = match self.take(index, &book, snapshot, admission, request) {
                Attempt::Made(record, take) => (Some(record), take),
                Attempt::SlotTaken if admission.books.get(index).is_none() => {
                    self.give_back_books(admission);
                    return BooksResult::Moved;
                }
                Attempt::SlotTaken | Attempt::GivenUp if self.must_deny(admission) => {
                    return BooksResult::Unknown;
                }
                Attempt::SlotTaken | Attempt::GivenUp => {
                    let model = request.model_at(admission.tier);
                    let holdings = unreserved(book.limits, model, book.child, self.now);
                    (None, Take::Held(holdings))
                }
            };
            match take {
                Take::Held(holdings) => {
                    let held = BookHold {
                        place: snapshot.place.clone(),
                        holdings,
                        record,
                        is_settled: false,
                    };
                    match admission.books.get_mut(index) {
                        // If the book was unavailable, what the request held before stays held.
                        Some(_) if held.record.is_none() => {}
                        Some(before) => *before = held,
                        None => admission.books.push(held),
                    }
                }
                Take::Full(short) => {
                    self.give_back_books(admission);
                    return BooksResult::Full(short);
                }
                Take::Corrupt => return BooksResult::Unknown,
            }
        }
        BooksResult::Taken
    }

    fn take(
        &mut self,
        index: usize,
        book: &BookOf<'_>,
        snapshot: &Snapshot,
        admission: &Admission,
        request: &Request<'_>,
    ) -> Attempt<Take> {
        let (store, now) = (self.store, self.now);
        let (shadow, limits) = (admission.shadow, book.limits);
        let before = admission.books.get(index);
        let overdraw = admission.record.as_ref().is_some_and(|record| {
            may_overdraw(self.tenant.limits(), request, admission.tier, record)
        });
        let admitted = Admitted {
            request,
            tier: admission.tier,
            estimate: &admission.estimate,
            expected: &admission.expected,
            overdraw,
        };
        let need = Need {
            cells: cells(&admission.estimate, shadow),
            reserve: admission.expected.reserve(limits),
            model: request.model_at(admission.tier),
            child: book.child,
        };
        let refuses_corrupt = self.must_deny(admission);
        let tries = Tries {
            most: RESERVE_TRIES,
            known: snapshot.known.clone(),
        };
        let attempt = self.change(&snapshot.place, limits, tries, |record, corrupt| {
            roll_forward(record, limits, now);
            if let Whose::Parent(id) = book.whose {
                shared::join_as(id, limits, record, store, now);
            }
            if let Some(before) = before {
                close(limits, record, &before.holdings, Spent::NOTHING, now);
            }
            if corrupt && refuses_corrupt {
                // This request is refused, but the next one finds a record.
                return (Writes::Yes, (Take::Corrupt, None));
            }
            let checked = match shadow {
                Some(_) => Ok(()),
                None => check_book(&book.with(record), index, &admitted, now),
            };
            let is_held = checked.is_ok();
            let take = match checked {
                Err(short) => Take::Full(short),
                Ok(()) => Take::Held(hold(limits, record, need, now)),
            };
            let asked = Asked {
                cost: need.reserve.cost,
                before: before.map_or(Cost::ZERO, |before| before.holdings.cost()),
                is_held,
                cells: (
                    admission.estimate.cells(),
                    before.map_or(0, |before| before.holdings.cells.unwrap_or_default()),
                ),
            };
            let noted = shared::note(limits, record, need.model, asked, now);
            let writes = if is_held { Writes::Yes } else { noted.writes };
            (writes, (take, noted.due))
        });
        match attempt {
            Attempt::Made(record, (take, due)) => {
                if let Whose::Parent(id) = book.whose {
                    self.note_due(id, due);
                }
                Attempt::Made(record, take)
            }
            Attempt::SlotTaken => Attempt::SlotTaken,
            Attempt::GivenUp => Attempt::GivenUp,
        }
    }

    /// What is held on the books if the tenant's own state is unavailable: nothing, but they are charged what the request used.
    pub(super) fn unreserved_books(&self, shelf: &Shelf, model: &str) -> Vec<BookHold> {
        let all = self.tenant.books().zip(&shelf.0);
        all.map(|(book, snapshot)| BookHold {
            place: snapshot.place.clone(),
            holdings: unreserved(book.limits, model, book.child, self.now),
            record: None,
            is_settled: false,
        })
        .collect()
    }

    /// Replaces what a request holds on the books by what it used. Returns whether all books have been charged.
    pub(super) fn settle_books(&mut self, admission: &mut Admission, used: &Used<'_>) -> bool {
        let tenant = self.tenant;
        let mut all = true;
        for (book, held) in tenant.books().zip(&mut admission.books) {
            if !held.is_settled {
                held.is_settled = self.settle_book(&book, held, used);
                all &= held.is_settled;
            }
        }
        all
    }

    fn settle_book(&mut self, book: &BookOf<'_>, held: &mut BookHold, used: &Used<'_>) -> bool {
        let (now, limits, holdings) = (self.now, book.limits, &held.holdings);
        let step = |record: &mut Record, _: bool| {
            if holdings.reservation.is_none() {
                roll_forward(record, limits, now);
            }
            close(limits, record, holdings, used.spent(), now);
            used.note_burn(limits, record, now);
            (Writes::Yes, ())
        };
        let left = |record: &Record| match book.whose {
            Whose::Parent(id) => metrics::remaining(id.name().into(), limits, record),
            Whose::Subject { .. } => None,
        };
        match self.change_publishing(&held.place, limits, SETTLE_TRIES, step, left) {
            Attempt::Made(record, ()) => {
                held.record = Some(record);
                true
            }
            // What was held there expired long ago.
            Attempt::SlotTaken => true,
            Attempt::GivenUp => false,
        }
    }

    /// Gives back what the books hold for a request that is not sent.
    pub(super) fn give_back_books(&mut self, admission: &mut Admission) {
        // If something cannot be given back now, it expires.
        self.settle_books(admission, &Used::NOTHING);
        admission.books.clear();
    }

    /// Keeps what the books hold from expiring (see [`Ledger::renew`]).
    pub(super) fn renew_books(&mut self, admission: &mut Admission) {
        let tenant = self.tenant;
        for (book, held) in tenant.books().zip(&mut admission.books) {
            self.renew_at(&held.place, book.limits, &mut held.holdings);
        }
    }

    /// Whether a request is refused because our own state is unavailable.
    pub(super) fn must_deny(&self, admission: &Admission) -> bool {
        self.mode == FailureMode::Deny && admission.shadow.is_none()
    }
}
