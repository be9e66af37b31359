//! Replaces the reservation of a request once its cost is known more exactly.

use crate::admission::books::BooksResult;
use crate::admission::capacity::CapacityResult;
use crate::admission::hold::{Need, Spent, cells, close, hold};
use crate::admission::ledger::{Attempt, Ledger, Writes, roll_forward};
use crate::admission::{Admission, Holdings, RESERVE_TRIES, Refused, shared};
use crate::base::units::Tokens;
use crate::policy::{Request, recheck};
use crate::state::store::Store;

/// The result of amending a reservation.
#[derive(Debug)]
pub enum Amended {
    /// The request holds the new amount, or the old one if our own state is unavailable.
    Held,
    /// The request no longer fits, and nothing is held for it any more.
    Refused(Box<Refused>),
    /// Our own state is unavailable, and `failure_mode` refuses requests then. The caller gives everything back.
    Unavailable,
}

impl<S: Store> Ledger<'_, S> {
    /// Replaces the reservation of a request whose cost is known more exactly now. The request's tier does not change.
    pub fn amend(&mut self, admission: &mut Admission, request: &Request<'_>) -> Amended {
        let rooms = match &admission.capacity {
            Some(held) => held.rooms(self.store, admission.tier, self.now),
            None => Vec::new(),
        };
        let shelf = self.shelf_without(admission);
        let books = shelf.books(self.tenant);
        let request = &request.finding(&rooms, &books);
        match self.reserve_anew(admission, request) {
            Amended::Held => {}
            Amended::Unavailable => return Amended::Unavailable,
            Amended::Refused(refused) => {
                self.settle_capacity(admission, Tokens(0));
                admission.capacity = None;
                self.give_back_books(admission);
                return Amended::Refused(Box::new(Refused {
                    books: shelf.records(),
                    ..*refused
                }));
            }
        }
        if admission.record.is_some() {
            match self.take_books(admission, request, &shelf) {
                BooksResult::Taken => {}
                BooksResult::Full(short) => {
                    self.settle_capacity(admission, Tokens(0));
                    admission.capacity = None;
                    let refused = self.refuse_short(admission, short, &books);
                    return Amended::Refused(Box::new(refused));
                }
                // What the request held there has expired.
                BooksResult::Moved => {}
                BooksResult::Unknown => return Amended::Unavailable,
            }
        }
        admission.unread_bytes = request.conditions.unread_bytes;
        match self.take_capacity(admission) {
            CapacityResult::Full(room) => {
                Amended::Refused(Box::new(self.refuse_full(admission, room)))
            }
            CapacityResult::Unknown if self.must_deny(admission) => Amended::Unavailable,
            CapacityResult::Taken | CapacityResult::Unknown => Amended::Held,
        }
    }

    fn reserve_anew(&mut self, admission: &mut Admission, request: &Request<'_>) -> Amended {
        let &mut Self {
            store, tenant, now, ..
        } = self;
        let limits = tenant.limits();
        let before = &*admission;
        let attempt = self.change(&before.place, limits, RESERVE_TRIES, |record, _| {
            roll_forward(record, limits, now);
            close(limits, record, &before.holdings, Spent::NOTHING, now);
            shared::join(tenant, record, store, now);
            let shadow = before
                .shadow
                .map(|would| would.rechecked(limits, request, record, now));
            let checked = match shadow {
                Some(_) => Ok(request.as_asked(limits, record, now)),
                None => recheck(
                    limits,
                    request,
                    before.tier,
                    before.most_output,
                    record,
                    now,
                ),
            };
            let held = checked.map(|(estimate, expected)| {
                let need = Need {
                    cells: cells(&estimate, shadow),
                    reserve: expected.reserve(limits),
                    model: request.model_at(before.tier),
                    child: None,
                };
                let holdings = hold(limits, record, need, now);
                (estimate, expected, holdings, shadow)
            });
            let due = shared::amended(limits, request, record, before, held.is_ok(), now);
            (Writes::Yes, (held, due))
        });
        let attempt = match attempt {
            Attempt::Made(record, (held, due)) => {
                self.note_due(&tenant.id, due);
                Attempt::Made(record, held)
            }
            Attempt::SlotTaken => Attempt::SlotTaken,
            Attempt::GivenUp => Attempt::GivenUp,
        };
        match attempt {
            Attempt::Made(record, Ok((estimate, expected, holdings, shadow))) => {
                admission.estimate = estimate;
                admission.expected = expected;
                admission.holdings = holdings;
                admission.shadow = shadow;
                admission.record = Some(record);
                Amended::Held
            }
            Attempt::Made(record, Err(short)) => {
                admission.holdings = Holdings::nothing(now);
                let books = request.conditions.books;
                Amended::Refused(Box::new(self.refused(
                    admission.tier,
                    short,
                    books,
                    record,
                    None,
                )))
            }
            Attempt::SlotTaken | Attempt::GivenUp => {
                admission.estimate = request.estimate.limited(admission.most_output);
                match self.must_deny(admission) {
                    true => Amended::Unavailable,
                    false => Amended::Held,
                }
            }
        }
    }
}
