//! Which tiers currently miss a plan's SLA, by what all workers have measured (see [`crate::tier::latency`]).
//!
//! As soon as one tenant has an SLA, each tier of a ladder with several tiers is measured, by every tenant's requests, since more answers are
//! better evidence. Streamed and whole answers are measured separately. A stream begins when the model does, a whole answer with its last
//! token: their times have nothing to do with each other, and in one measurement a few long whole answers would make a tier look slow to
//! everybody who streams.
//!
//! A measurement that is lost in a race with another worker is not repeated: it is one of many.

use std::time::Duration;

use crate::admission::ledger::Ledger;
use crate::base::units::Timestamp;
use crate::plan::Sla;
use crate::policy::{Decision, Request, decide};
use crate::state::store::{Contended, StateFaults, Store, Updated, Write, latency_key, update};
use crate::tier::latency::{Latency, Standing};
use crate::tier::{Ladder, TierSet};

/// Kinds of answers that are measured separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Sent event by event.
    Streamed,
    /// Sent in one piece.
    Whole,
}

impl Answer {
    /// The word for this kind in keys and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Streamed => "streamed",
            Self::Whole => "whole",
        }
    }
}

/// The tiers from the requested one downwards that miss the tenant's SLA, except for one that this request is to probe.
pub fn slow<S: Store>(
    ledger: &mut Ledger<'_, S>,
    request: &Request<'_>,
    answer: Answer,
) -> TierSet {
    let (slow, due) = look(ledger, request, answer);
    let limits = ledger.tenant.limits();
    let (Some(sla), Some(place)) = (limits.sla, request.place) else {
        return slow;
    };
    // A request in shadow mode is never moved, so that it cannot be a probe.
    if due.is_empty() || limits.shadow {
        return slow;
    }
    let probed = due.iter().find(|&tier| {
        let mut probing = *request;
        probing.conditions.slow = slow.without(tier);
        served_at(ledger, &probing) == Some(tier)
    });
    let Some((tier, key)) = probed.and_then(|tier| keys(place.ladder, answer).nth(tier)) else {
        return slow;
    };
    let (is_claimed, faults) = claim(ledger.store, &key, sla, ledger.now);
    ledger.count(faults);
    if is_claimed { slow.without(tier) } else { slow }
}

/// The tiers from the requested one downwards that miss the tenant's SLA. No probe is claimed.
pub(crate) fn known_slow<S: Store>(
    ledger: &Ledger<'_, S>,
    request: &Request<'_>,
    answer: Answer,
) -> TierSet {
    look(ledger, request, answer).0
}

/// The tiers from the requested one downwards that miss the tenant's SLA, and those of them that are due for a probe.
fn look<S: Store>(
    ledger: &Ledger<'_, S>,
    request: &Request<'_>,
    answer: Answer,
) -> (TierSet, TierSet) {
    const NONE: (TierSet, TierSet) = (TierSet::NONE, TierSet::NONE);
    let limits = ledger.tenant.limits();
    let (Some(sla), Some(place)) = (limits.sla, request.place) else {
        return NONE;
    };
    let is_last = place.asked >= place.ladder.last();
    if limits.never_downgrade || is_last {
        return NONE;
    }
    let (mut slow, mut due) = (TierSet::NONE, TierSet::NONE);
    for (tier, key) in keys(place.ladder, answer).skip(place.asked) {
        let Ok(Some((bytes, _))) = ledger.store.get(&key) else {
            continue;
        };
        // A corrupt value is counted, and replaced by the next measurement.
        let standing = Standing::read(&bytes, ledger.now).unwrap_or_default();
        if standing.misses(sla.p95) {
            slow = slow.with(tier);
            if standing.is_due(ledger.now) {
                due = due.with(tier);
            }
        }
    }
    (slow, due)
}

/// Records how long a request waited for the first byte of its answer, from the tier with this model. Returns the new p95, if the record
/// could be written.
pub fn record(
    store: &impl Store,
    model: &str,
    answer: Answer,
    time: Duration,
    now: Timestamp,
) -> (Option<u64>, StateFaults) {
    let key = latency_key(answer.as_str(), model);
    change(store, &key, |bytes| {
        let (mut state, corrupt) = read(bytes, now);
        state.record(time, now);
        Write {
            value: Some(state.encode()),
            report: (state.p95(), corrupt),
        }
    })
}

/// Whether a model's answers begin later than `p95`.
pub(crate) fn misses(
    store: &impl Store,
    model: &str,
    answer: Answer,
    p95: Duration,
    now: Timestamp,
) -> bool {
    let state = store.get(&latency_key(answer.as_str(), model));
    let Ok(Some((bytes, _))) = state else {
        return false;
    };
    Standing::read(&bytes, now).is_ok_and(|standing| standing.misses(p95))
}

/// Claims the probe of a tier: of all workers that try, one succeeds.
fn claim(store: &impl Store, key: &str, sla: Sla, now: Timestamp) -> (bool, StateFaults) {
    change(store, key, |bytes| {
        let (mut state, corrupt) = read(bytes, now);
        let standing = state.standing();
        let is_due = standing.misses(sla.p95) && standing.is_due(now);
        state.probe(now);
        Write {
            value: is_due.then(|| state.encode()),
            report: (is_due, corrupt),
        }
    })
}

/// The tier at which the request would be served.
pub(crate) fn served_at<S: Store>(ledger: &Ledger<'_, S>, request: &Request<'_>) -> Option<usize> {
    let limits = ledger.tenant.limits();
    let record = ledger.record_or_new();
    match decide(limits, request, &record, ledger.now) {
        Decision::Admit { tier, .. } => Some(tier),
        Decision::Refuse { .. } => None,
    }
}

/// The tiers of a ladder with their keys.
fn keys(ladder: &Ladder, answer: Answer) -> impl Iterator<Item = (usize, String)> {
    let tiers = ladder.tiers.iter().enumerate();
    tiers.map(move |(tier, named)| (tier, latency_key(answer.as_str(), &named.model)))
}

/// The state in `bytes` as of `now`, and whether the bytes were something else.
fn read(bytes: Option<&[u8]>, now: Timestamp) -> (Latency, bool) {
    let state = bytes.map(Latency::decode).transpose();
    let is_corrupt = state.is_err();
    (state.ok().flatten().unwrap_or_default().at(now), is_corrupt)
}

/// Changes the state in one attempt: a change that is lost in a race is not worth another one. Returns its report, and whether the stored
/// value was corrupt.
fn change<T: Default>(
    store: &impl Store,
    key: &str,
    step: impl Fn(Option<&[u8]>) -> Write<(T, bool)>,
) -> (T, StateFaults) {
    let (report, corrupt, conflicts) = match update(store, key, 1, step) {
        Ok(Updated {
            report: (report, corrupt),
            conflicts,
        }) => (report, corrupt, conflicts),
        Err(Contended { conflicts }) => (T::default(), false, conflicts),
    };
    let faults = StateFaults {
        conflicts,
        corrupt,
        given_up: 0,
    };
    (report, faults)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::store::fake::FakeStore;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn of_two_workers_that_found_a_probe_due_one_sends_it() {
        let store = FakeStore::default();
        let now = Timestamp::from_secs(1_709_208_000);
        for _ in 0..20 {
            record(&store, "m", Answer::Whole, Duration::from_secs(2), now);
        }
        let key = latency_key("whole", "m");
        let claims = |p95: u64, secs: u64| {
            let p95 = Duration::from_secs(p95);
            claim(
                &store,
                &key,
                Sla { p95 },
                now.plus(Duration::from_secs(secs)),
            )
            .0
        };
        assert!(!claims(1, 9));
        assert!(!claims(3, 10));
        assert!(claims(1, 10));
        assert!(!claims(1, 10));
        assert!(claims(1, 20));
    }
}
