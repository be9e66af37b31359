//! Reserving and settling on a tenant's record, each in one compare-and-swap, and on what tenants share ([`shared`]).
//!
//! **Bound.** Every admitted request has its ceiling (see [`crate::estimate`]) reserved before it leaves, in the same
//! write that saw that it fits: `spent + held + ceiling <= budget`. Settlement takes the reservation out and puts the
//! real usage in. So with any number of workers, as long as no request uses more than its ceiling, `spent` never
//! exceeds the budget; and where requests do use more, it exceeds it by no more than what they used beyond. The one
//! exception is a request that is still open when its reservation expires ([`crate::ledger::Hold`]).

mod shared;

pub use shared::Part;

use crate::capacity::Room;
use crate::config::FailureMode;
use crate::estimate::Estimate;
use crate::learn::{Lesson, Model};
use crate::ledger::Reservation;
use crate::payer::{Changed, Done, Payer, Stepped, bring};
use crate::policy::{
    Ask, Decision, Reason, Refusal, Would, decide, let_through, recheck, remember, spent_out,
};
use crate::record::Record;
use crate::store::{OVERFLOW_KEY, Store, Troubles};
use crate::telemetry;
use crate::units::{Cost, Timestamp, Tokens};
use shared::Asked;

/// Tries before a reservation gives up. Each lost try means that another worker progressed; with four workers in a
/// tight loop on one record about a third of the tries are lost, so this many in a row do not happen by chance.
const RESERVE_TRIES: u32 = 16;

/// Tries before a settlement gives up. It must not be lost, and it delays nobody.
const SETTLE_TRIES: u32 = 256;

/// Slots that are tried before a tenant which is not configured counts as one that has none.
const KEY_TRIES: u32 = 4;

/// A request that may leave, and what is held for it.
#[derive(Debug)]
pub struct Admission {
    /// Index of the tier that serves it.
    pub tier: usize,
    /// Why that is not the one it asked for.
    pub reason: Option<Reason>,
    /// Tokens that each of its answers may have at the most, if that is limited.
    pub most_output: Option<u64>,
    /// What it may cost, as it was reserved.
    pub estimate: Estimate,
    /// What would have been done with it, if its tenant's plan only looks on.
    pub shadow: Option<Would>,
    /// The tenant's state just after; `None` if it could not be had.
    pub record: Option<Box<Record>>,
    key: String,
    /// The model that serves it.
    model: Model,
    /// What is held on the budget, if there is one and our state could be had.
    reservation: Option<Reservation>,
    /// What is held in the token bucket; `None` where nothing was taken, since the request would have been refused.
    cells: Option<u64>,
    /// Since when.
    taken: Timestamp,
    /// What is held of the tier's capacity, if it has one.
    pub part: Option<Box<Part>>,
}

/// What became of a request.
#[derive(Debug)]
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
    /// The state that says so.
    pub record: Box<Record>,
    /// What it found at that tier, if it is the tier's capacity that refuses.
    pub room: Option<Box<Room>>,
}

impl Admission {
    /// Takes from the tier's capacity, if it has one. Where the tenant's state could not be had, nothing is asked any more:
    /// what is used counts at the settlement.
    fn take_part(&mut self, store: &impl Store, now: Timestamp) -> Done<Asked> {
        let is_known = self.record.is_some();
        match self.part.as_mut().filter(|_| is_known) {
            Some(part) => {
                // What only looks on is really sent, and so is really taken.
                let must = self.shadow.is_some();
                part.take(store, self.estimate.cells(), must, now)
            }
            None => Done {
                report: Asked::Taken,
                troubles: Troubles::default(),
            },
        }
    }
}

impl Payer {
    /// Charges the record for an admitted request: what it holds on the budget, if there is one.
    fn hold(
        &self,
        record: &mut Record,
        cells: Option<u64>,
        reserve: Cost,
        now: Timestamp,
    ) -> Option<Reservation> {
        let limits = self.limits();
        if let (Some(quota), Some(cells)) = (&limits.bucket, cells) {
            record.bucket = quota.charge(record.bucket, cells, now);
        }
        limits
            .budget
            .map(|budget| record.account.reserve(reserve, &budget, now))
    }

    /// Replaces what a request holds by what it used.
    fn close(&self, record: &mut Record, admission: &Admission, used: Cost, now: Timestamp) {
        let limits = self.limits();
        if let (Some(quota), Some(cells)) = (&limits.bucket, admission.cells) {
            record.bucket = quota.settle(record.bucket, cells, used.tokens.0, admission.taken, now);
        }
        match &admission.reservation {
            Some(reservation) => {
                record.account.settle(reservation, used);
            }
            // Let through while our state could not be had: what it used counts all the same.
            None if limits.budget.is_some() => {
                record.account.spent = record.account.spent.plus(used);
            }
            None => {}
        }
    }
}

/// What a step decides.
enum Verdict {
    Admitted {
        tier: usize,
        reason: Option<Reason>,
        most_output: Option<u64>,
        estimate: Estimate,
        shadow: Option<Would>,
        reservation: Option<Reservation>,
    },
    Refused {
        tier: usize,
        refusal: Refusal,
    },
    Corrupt,
}

/// Takes from all of the tenant's limits and from the tier's capacity, or from none, and says at which tier the request may
/// leave.
pub fn admit(
    store: &impl Store,
    payer: &Payer,
    ask: &Ask<'_>,
    mode: FailureMode,
    now: Timestamp,
) -> Done<Outcome> {
    let (mut rooms, mut troubles) = shared::rooms(store, payer.limits(), ask);
    // Each time round one more of the tiers is known to be full, and none of those is chosen again.
    let mut others = 0..rooms.len();
    let mut held = None;
    loop {
        let mut ask = *ask;
        ask.conditions.rooms = &rooms;
        let reserved = reserve(store, payer, &ask, held, mode, now);
        troubles = troubles.and(reserved.troubles);
        let mut admission = match reserved.report {
            Outcome::Admitted(admission) => admission,
            report => return Done { report, troubles },
        };
        let taken = admission.take_part(store, now);
        troubles = troubles.and(taken.troubles);
        match (taken.report, mode) {
            (Asked::Full(room), _) if others.next().is_none() => {
                let Done {
                    report,
                    troubles: more,
                } = refuse_full(store, payer, &mut admission, room, now);
                return Done {
                    report: Outcome::Refused(report),
                    troubles: troubles.and(more),
                };
            }
            (Asked::Full(room), _) => {
                if let Some(place) = rooms.get_mut(admission.tier) {
                    *place = Some(room);
                }
                held = Some(admission);
            }
            (Asked::Unknown, FailureMode::Deny) if admission.shadow.is_none() => {
                let given_back = give_back(store, payer, &admission, now);
                return Done {
                    report: Outcome::Unavailable,
                    troubles: troubles.and(given_back.troubles),
                };
            }
            (asked @ (Asked::Taken | Asked::Unknown), _) => {
                if let (Asked::Unknown, FailureMode::Deny, Some(would)) =
                    (&asked, mode, &mut admission.shadow)
                    && would.admits()
                {
                    *would = Would::Unavailable;
                }
                let report = Outcome::Admitted(admission);
                return Done { report, troubles };
            }
        }
    }
}

/// Takes from all of the tenant's limits, or from none, in the place of what is `held` by an admission that came to nothing.
fn reserve(
    store: &impl Store,
    payer: &Payer,
    ask: &Ask<'_>,
    mut held: Option<Admission>,
    mode: FailureMode,
    now: Timestamp,
) -> Done<Outcome> {
    let mut troubles = Troubles::default();
    // A slot may be taken by another tenant after it was chosen; the one for the overflow never is.
    for _ in 0..KEY_TRIES {
        let key = match &held {
            Some(held) => held.key.clone(),
            None => payer.key(store, now),
        };
        match admit_at(store, payer, ask, held.as_ref(), mode, now, &key) {
            Ok(Done {
                report: Some(report),
                troubles: new,
            }) => {
                return Done {
                    report,
                    troubles: troubles.and(new),
                };
            }
            Ok(Done {
                report: None,
                troubles: new,
            }) => {
                // What was held there is gone.
                held = None;
                troubles = troubles.and(new);
            }
            Err(new) => {
                return Done {
                    report: without_state(payer, key, ask, held, mode, now),
                    troubles: troubles.and(new),
                };
            }
        }
    }
    Done {
        report: without_state(payer, OVERFLOW_KEY.to_owned(), ask, None, mode, now),
        troubles: troubles.and(Troubles {
            given_up: 1,
            ..Troubles::default()
        }),
    }
}

fn admit_at(
    store: &impl Store,
    payer: &Payer,
    ask: &Ask<'_>,
    held: Option<&Admission>,
    mode: FailureMode,
    now: Timestamp,
    key: &str,
) -> Result<Done<Option<Outcome>>, Troubles> {
    let step = |record: &mut Record, corrupt: bool| {
        bring(record, payer.limits(), now);
        if let Some(held) = held {
            payer.close(record, held, Cost::ZERO, now);
        }
        if corrupt && mode == FailureMode::Deny && !payer.limits().shadow {
            // Refused once: the next request finds a record.
            return Stepped {
                write: true,
                report: Verdict::Corrupt,
            };
        }
        let decision = decide(payer.limits(), ask, record, now);
        let (decision, shadow) = if payer.limits().shadow {
            let (admitted, would) = let_through(&decision, payer.limits(), ask, record, now);
            (admitted, Some(would))
        } else {
            (decision, None)
        };
        match decision {
            Decision::Refuse { tier, refusal } => Stepped {
                write: held.is_some(),
                report: Verdict::Refused { tier, refusal },
            },
            Decision::Admit {
                tier,
                reason,
                most_output,
                estimate,
                reserve,
            } => {
                remember(payer.limits(), ask, record, now);
                let cells = cells(&estimate, shadow);
                let reservation = payer.hold(record, cells, reserve, now);
                Stepped {
                    write: true,
                    report: Verdict::Admitted {
                        tier,
                        reason,
                        most_output,
                        estimate,
                        shadow,
                        reservation,
                    },
                }
            }
        }
    };
    let Done { report, troubles } = payer.change(store, key, RESERVE_TRIES, now, step)?;
    let report = report.map(|Changed { record, report }| match report {
        Verdict::Admitted {
            tier,
            reason,
            most_output,
            estimate,
            shadow,
            reservation,
        } => Outcome::Admitted(Admission {
            tier,
            reason,
            most_output,
            estimate,
            shadow,
            record: Some(record),
            key: key.to_owned(),
            model: Model::of(ask.model_at(tier)),
            reservation,
            cells: cells(&estimate, shadow),
            taken: now,
            part: shared::part(ask, tier, payer.limits().priority, now),
        }),
        Verdict::Refused { tier, refusal } => Outcome::Refused(Refused {
            tier,
            refusal,
            record,
            room: match refusal {
                Refusal::TierCapacity(_) => ask.room_at(tier).copied().map(Box::new),
                _ => None,
            },
        }),
        Verdict::Corrupt => Outcome::Unavailable,
    });
    Ok(Done { report, troubles })
}

/// The cells that a request takes from the bucket. One that would have been refused takes none: if it did, the bucket would
/// never refill, and shadow mode would tell of refusals that came of nothing but itself.
fn cells(estimate: &Estimate, shadow: Option<Would>) -> Option<u64> {
    let takes = shadow.is_none_or(|would| would.admits());
    takes.then(|| estimate.cells())
}

/// What becomes of a request when our own state cannot be had. What is `held` for it stays held until it is settled or
/// expires.
fn without_state(
    payer: &Payer,
    key: String,
    ask: &Ask<'_>,
    held: Option<Admission>,
    mode: FailureMode,
    now: Timestamp,
) -> Outcome {
    let tier = ask.place.map_or(0, |place| place.asked);
    let would = match mode {
        FailureMode::Deny => Would::Unavailable,
        FailureMode::Allow => Would::Admit {
            tier,
            reason: None,
            most_output: None,
        },
    };
    let shadow = payer.limits().shadow.then_some(would);
    match (mode, held) {
        (FailureMode::Deny, _) if shadow.is_none() => Outcome::Unavailable,
        (FailureMode::Allow, Some(held)) => Outcome::Admitted(Admission {
            record: None,
            ..held
        }),
        (FailureMode::Deny | FailureMode::Allow, _) => Outcome::Admitted(Admission {
            tier,
            reason: None,
            most_output: None,
            estimate: ask.estimate,
            shadow,
            record: None,
            key,
            model: Model::of(ask.model_at(tier)),
            reservation: None,
            cells: Some(0),
            taken: now,
            part: shared::part(ask, tier, payer.limits().priority, now),
        }),
    }
}

/// Whether the tenant has spent all it may: told without reserving anything, before a request's body is there.
#[must_use]
pub fn is_spent_out(
    store: &impl Store,
    payer: &Payer,
    now: Timestamp,
) -> Option<(Refusal, Box<Record>)> {
    let record = payer.look(store, &payer.key(store, now), now)?;
    spent_out(payer.limits(), &record, now).map(|refusal| (refusal, record))
}

/// What became of a request whose cost is known better now.
#[derive(Debug)]
pub enum Amended {
    /// It holds that, or what it held before if our own state cannot be had.
    Held,
    /// It no longer fits, and nothing is held for it any more.
    Refused(Box<Refused>),
    /// Our own state could not be had, and the operator wants to refuse then.
    Unavailable,
}

/// Reserves anew for a request whose cost is known better now. Its tier stays.
pub fn amend(
    store: &impl Store,
    payer: &Payer,
    admission: &mut Admission,
    ask: &Ask<'_>,
    mode: FailureMode,
    now: Timestamp,
) -> Done<Amended> {
    let rooms = match &admission.part {
        Some(part) => part.rooms(store, admission.tier, now),
        None => Vec::new(),
    };
    let mut ask = *ask;
    ask.conditions.rooms = &rooms;
    let reserved = reserve_anew(store, payer, admission, &ask, mode, now);
    let (report, more) = match reserved.report {
        Amended::Held => {
            let Done { report, troubles } = admission.take_part(store, now);
            match (report, mode) {
                (Asked::Full(room), _) => {
                    let refused = refuse_full(store, payer, admission, room, now);
                    let more = troubles.and(refused.troubles);
                    (Amended::Refused(Box::new(refused.report)), more)
                }
                (Asked::Unknown, FailureMode::Deny) if admission.shadow.is_none() => {
                    (Amended::Unavailable, troubles)
                }
                (Asked::Taken | Asked::Unknown, _) => (Amended::Held, troubles),
            }
        }
        Amended::Refused(refused) => {
            let more = settle_part(store, admission, Tokens(0), now);
            admission.part = None;
            (Amended::Refused(refused), more)
        }
        // The caller gives everything back.
        Amended::Unavailable => (Amended::Unavailable, Troubles::default()),
    };
    Done {
        report,
        troubles: reserved.troubles.and(more),
    }
}

/// Gives back what is held for a request for which its tier's capacity has no room.
fn refuse_full(
    store: &impl Store,
    payer: &Payer,
    admission: &mut Admission,
    room: Room,
    now: Timestamp,
) -> Done<Refused> {
    let Done { report, troubles } = give_back(store, payer, admission, now);
    admission.reservation = None;
    admission.cells = Some(0);
    admission.part = None;
    let refusal = room.refused.map(Refusal::from);
    let report = Refused {
        tier: admission.tier,
        refusal: refusal.unwrap_or(Refusal::TierCapacity(None)),
        record: report
            .or_else(|| admission.record.take())
            .unwrap_or_default(),
        room: Some(Box::new(room)),
    };
    Done { report, troubles }
}

fn reserve_anew(
    store: &impl Store,
    payer: &Payer,
    admission: &mut Admission,
    ask: &Ask<'_>,
    mode: FailureMode,
    now: Timestamp,
) -> Done<Amended> {
    let most_output = admission.most_output;
    let step = |record: &mut Record, _: bool| {
        bring(record, payer.limits(), now);
        payer.close(record, admission, Cost::ZERO, now);
        let limits = payer.limits();
        let shadow = admission
            .shadow
            .map(|would| would.rechecked(limits, ask, record, now));
        let checked = match shadow {
            Some(_) => Ok(ask.as_asked(limits, record, now)),
            None => recheck(limits, ask, admission.tier, most_output, record, now),
        };
        let report = checked.map(|(estimate, reserve)| {
            let cells = cells(&estimate, shadow);
            let reservation = payer.hold(record, cells, reserve, now);
            (estimate, reservation, shadow)
        });
        Stepped {
            write: true,
            report,
        }
    };
    let changed = payer.change(store, &admission.key, RESERVE_TRIES, now, step);
    match changed {
        Ok(Done {
            report:
                Some(Changed {
                    record,
                    report: Ok((estimate, reservation, shadow)),
                }),
            troubles,
        }) => {
            admission.estimate = estimate;
            admission.reservation = reservation;
            admission.cells = cells(&estimate, shadow);
            admission.shadow = shadow;
            admission.taken = now;
            admission.record = Some(record);
            Done {
                report: Amended::Held,
                troubles,
            }
        }
        Ok(Done {
            report:
                Some(Changed {
                    record,
                    report: Err(refusal),
                }),
            troubles,
        }) => {
            admission.reservation = None;
            admission.cells = Some(0);
            Done {
                report: Amended::Refused(Box::new(Refused {
                    tier: admission.tier,
                    refusal,
                    record,
                    room: None,
                })),
                troubles,
            }
        }
        Ok(Done {
            report: None,
            troubles,
        })
        | Err(troubles) => {
            admission.estimate = ask.estimate.limited(most_output);
            let report = if mode == FailureMode::Deny && admission.shadow.is_none() {
                Amended::Unavailable
            } else {
                Amended::Held
            };
            Done { report, troubles }
        }
    }
}

/// Keeps what a request holds from expiring while its answer still comes. To be called now and then.
pub fn renew(
    store: &impl Store,
    payer: &Payer,
    admission: &mut Admission,
    now: Timestamp,
) -> Troubles {
    let (Some(budget), Some(reservation)) = (&payer.limits().budget, &admission.reservation) else {
        return Troubles::default();
    };
    let half_time = budget.reservation_expiry.checked_div(2).unwrap_or_default();
    if now.since(reservation.since()) < half_time {
        return Troubles::default();
    }
    let step = |record: &mut Record, _: bool| {
        let report = record.account.renew(reservation, budget, now);
        Stepped {
            write: true,
            report,
        }
    };
    match payer.change(store, &admission.key, RESERVE_TRIES, now, step) {
        Ok(Done { report, troubles }) => {
            // In a window that has ended nothing is held any more, and the settlement must know.
            if let Some(Changed {
                report: Some(renewed),
                ..
            }) = report
            {
                admission.reservation = Some(renewed);
            }
            troubles
        }
        // It is tried again with the next chunk.
        Err(troubles) => Troubles {
            given_up: 0,
            ..troubles
        },
    }
}

/// What a settled request tells.
#[derive(Clone, Copy, Debug)]
pub struct Used<'a> {
    /// What it cost.
    pub cost: Cost,
    /// What it would have cost on each level of a [`crate::pace::Burn`]; empty for a plan that does not ask.
    pub demand: &'a [Cost],
    /// What it teaches.
    pub lesson: Lesson,
}

/// Replaces what is held for a request by what it used. The record after it; `None` if it could not be written.
///
/// The window is not rolled over here: the reservation knows its own, and the configuration may have changed since.
pub fn settle(
    store: &impl Store,
    payer: &Payer,
    admission: &Admission,
    used: &Used<'_>,
    now: Timestamp,
) -> Done<Option<Box<Record>>> {
    let step = |record: &mut Record, _: bool| {
        if admission.reservation.is_none() {
            bring(record, payer.limits(), now);
        }
        payer.close(record, admission, used.cost, now);
        record.learned.learn(admission.model, used.lesson);
        let burn = std::mem::take(&mut record.burn);
        if let Some(pace) = payer.limits().pace {
            record.burn = burn.plus(used.demand, pace.half_life, now);
        }
        Stepped {
            write: true,
            report: (),
        }
    };
    // Only tenants that are configured, and have a budget, have one to tell.
    let left = |record: &Record| {
        payer.configured.then_some(())?;
        telemetry::remaining(payer.id.name().into(), payer.limits(), record)
    };
    let changed = payer.change_telling(store, &admission.key, SETTLE_TRIES, now, step, left);
    match changed {
        Ok(Done {
            report: Some(Changed { record, .. }),
            troubles,
        }) => Done {
            report: Some(record),
            troubles,
        },
        // Its slot is another tenant's by now, and what was held in it is long gone.
        Ok(Done {
            report: None,
            troubles,
        }) => Done {
            report: Some(Box::default()),
            troubles,
        },
        Err(troubles) => Done {
            report: None,
            troubles,
        },
    }
}

/// Replaces what a request has taken of its tier's capacity by what it used.
pub fn settle_part(
    store: &impl Store,
    admission: &Admission,
    used: Tokens,
    now: Timestamp,
) -> Troubles {
    let part = admission.part.as_ref();
    part.map_or_else(Troubles::default, |part| part.settle(store, used.0, now))
}

/// Gives back what the tenant's record holds for a request that is not sent. The record after it; `None` if it could not be written.
fn give_back(
    store: &impl Store,
    payer: &Payer,
    admission: &Admission,
    now: Timestamp,
) -> Done<Option<Box<Record>>> {
    let nothing = Used {
        cost: Cost::ZERO,
        demand: &[],
        lesson: Lesson::default(),
    };
    settle(store, payer, admission, &nothing, now)
}
