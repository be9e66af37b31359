//! Which tiers' upstreams currently refuse, by the answers that all workers have seen (see [`crate::tier::pressure`]).
//!
//! One value in shared data holds this for all tiers. A worker reads the value at most once per [`REFRESH`], and never for ladders of a
//! single tier. If requests are frequent, that costs almost nothing; if they are rare, it costs one read of a key that mostly does not
//! exist. A worker knows at once of a refusal that it has seen itself; the other workers learn of the refusal before the first refused
//! client retries, which is after 100 ms.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::admission::ledger::Ledger;
use crate::base::hash::stable;
use crate::base::units::Timestamp;
use crate::health::sla::served_at;
use crate::lease::pressed::MOST;
use crate::policy::Request;
use crate::published::metric::Series;
use crate::state::store::{
    Contended, PRESSURE_KEY, StateFaults, Store, Updated, Write, update_telling,
};
use crate::tier::pressure::{Elsewhere, PressureKey, Pressures, UpstreamRefusal};
use crate::tier::{LadderPlace, TierSet};

/// The greatest age of what a worker knows.
pub const REFRESH: Duration = Duration::from_millis(50);

/// How many races with other workers a change may lose. A refusal or a success that is not recorded is followed by others.
const TRIES: u32 = 16;

/// What a worker knows of upstreams that refuse. The edge has one such view, and gives it to each exchange.
#[derive(Clone, Debug, Default)]
pub struct PressureView(Rc<RefCell<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    at: Option<Timestamp>,
    pressures: Rc<Pressures>,
    news: Vec<News>,
}

/// What this worker has learned of a configured model's upstream, and has not reported to other proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// A hash of the model that is sent.
    pub model: u64,
    /// When the upstream refused, or was sent a request that it served.
    pub since: Timestamp,
    /// When the wait is over; `None`: the upstream serves again.
    pub until: Option<Timestamp>,
}

impl PressureView {
    /// The known pressures, at most [`REFRESH`] old.
    pub fn known(&self, store: &impl Store, now: Timestamp) -> Rc<Pressures> {
        let Ok(mut seen) = self.0.try_borrow_mut() else {
            return Rc::default();
        };
        let is_fresh = |at: Timestamp| now >= at && now.since(at) < REFRESH;
        if !seen.at.is_some_and(is_fresh) {
            seen.at = Some(now);
            match store.get(PRESSURE_KEY) {
                Ok(Some((bytes, _))) => {
                    seen.pressures = Rc::new(Pressures::decode(&bytes).unwrap_or_default());
                }
                // The usual case: no pressure was known, and none is stored.
                Ok(None) if seen.pressures.is_empty() => {}
                Ok(None) => seen.pressures = Rc::default(),
                Err(_) => {}
            }
        }
        Rc::clone(&seen.pressures)
    }

    /// Whether there is news.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.0.try_borrow().is_ok_and(|seen| !seen.news.is_empty())
    }

    /// Whether one of the waits that proxies share lasts, so that other proxies may have news.
    #[must_use]
    pub fn is_shared(&self, now: Timestamp) -> bool {
        self.0
            .try_borrow()
            .is_ok_and(|seen| seen.pressures.is_shared(now))
    }

    /// The news, which the caller reports now.
    #[must_use]
    pub fn take_news(&self) -> Vec<News> {
        self.0
            .try_borrow_mut()
            .map_or_else(|_| Vec::new(), |mut seen| std::mem::take(&mut seen.news))
    }

    /// Adds news, of which the newest about a model counts. Where there is no room, the others hear nothing of it.
    pub fn put_news(&self, news: impl IntoIterator<Item = News>) {
        let Ok(mut seen) = self.0.try_borrow_mut() else {
            return;
        };
        for one in news {
            let has_room = seen.news.len() < MOST;
            match seen.news.iter_mut().find(|old| old.model == one.model) {
                Some(old) if old.since > one.since => {}
                Some(old) => *old = one,
                None if has_room => seen.news.push(one),
                None => {}
            }
        }
    }

    fn learn(&self, pressures: Pressures, now: Timestamp) {
        if let Ok(mut seen) = self.0.try_borrow_mut() {
            seen.at = Some(now);
            seen.pressures = Rc::new(pressures);
        }
    }
}

/// The pressure that concerns a request to this tier with the name `model`. `credential` is the caller's.
#[must_use]
pub fn key(place: LadderPlace<'_>, tier: usize, model: &str, credential: u64) -> PressureKey {
    let tier = place.ladder.tiers.get(tier);
    let is_own = tier.is_some_and(|tier| tier.own_credentials);
    PressureKey {
        model: stable(model),
        credential: if is_own { credential } else { 0 },
        is_configured: !is_own && tier.is_some_and(|tier| *tier.model == *model),
    }
}

/// The tiers from the requested one downwards whose upstream refuses.
#[must_use]
pub fn tiers(known: &Pressures, request: &Request<'_>, credential: u64) -> TierSet {
    let Some(place) = request.place.filter(|_| !known.is_empty()) else {
        return TierSet::NONE;
    };
    let reached = place.asked..=place.ladder.last();
    reached
        .filter(|&tier| known.is_pressed(&key(place, tier, request.model_at(tier), credential)))
        .collect()
}

/// The tier to which this request is sent as a probe, to see whether that tier's upstream still refuses, if a probe is due. The probe is
/// then claimed.
pub fn probe<S: Store>(
    ledger: &mut Ledger<'_, S>,
    view: &PressureView,
    request: &Request<'_>,
    credential: u64,
) -> Option<usize> {
    let pressed = request.conditions.pressed;
    let place = request.place?;
    if pressed.is_empty() || ledger.tenant.limits().shadow {
        return None;
    }
    let now = ledger.now;
    let known = view.known(ledger.store, now);
    let key = |tier| key(place, tier, request.model_at(tier), credential);
    let mut due = pressed.iter().filter(|&tier| known.is_due(&key(tier), now));
    let tier = due.find(|&tier| {
        let mut open = *request;
        open.conditions.pressed = pressed.without(tier);
        served_at(ledger, &open) == Some(tier)
    })?;
    let (claimed, faults) = change(
        ledger.store,
        view,
        now,
        |_| None,
        |all| {
            let is_claimed = all.claim(&key(tier), now);
            (is_claimed, is_claimed)
        },
    );
    ledger.count(faults);
    claimed.filter(|&claimed| claimed).map(|_| tier)
}

/// Gives back a probe that was claimed at `claimed` and had no result.
pub fn release(
    store: &impl Store,
    view: &PressureView,
    key: &PressureKey,
    claimed: Timestamp,
    now: Timestamp,
) -> StateFaults {
    let step = |all: &mut Pressures| (all.release(key, claimed), ());
    change(store, view, now, |_| None, step).1
}

/// Records a refusal of a request that was sent at `sent`. `gauge` makes the gauge of how many pressures there are.
pub fn refuse(
    store: &impl Store,
    view: &PressureView,
    key: PressureKey,
    refusal: UpstreamRefusal,
    sent: Timestamp,
    now: Timestamp,
    gauge: impl Fn(u64) -> Option<(Series, u64)>,
) -> StateFaults {
    let gauge = |all: &Pressures| gauge(all.pressed(key.model));
    let step = |all: &mut Pressures| {
        all.refuse(key, refusal, sent, now, spread(now));
        (true, all.until(key.model))
    };
    let (until, faults) = change(store, view, now, gauge, step);
    if let (true, Some(Some(until))) = (key.is_configured, until) {
        view.put_news([News {
            model: key.model,
            since: now,
            until: Some(until),
        }]);
    }
    faults
}

/// Records a success of a request that was sent at `sent`. `gauge` makes the gauge of how many pressures there are.
pub fn succeed(
    store: &impl Store,
    view: &PressureView,
    key: PressureKey,
    sent: Timestamp,
    now: Timestamp,
    gauge: impl Fn(u64) -> Option<(Series, u64)>,
) -> StateFaults {
    let gauge = |all: &Pressures| gauge(all.pressed(key.model));
    let step = |all: &mut Pressures| {
        let is_ended = all.succeed(&key, sent);
        (is_ended, is_ended)
    };
    let (is_ended, faults) = change(store, view, now, gauge, step);
    if key.is_configured && is_ended == Some(true) {
        view.put_news([News {
            model: key.model,
            since: sent,
            until: None,
        }]);
    }
    faults
}

/// Takes over what other proxies know (see [`Pressures::agree`]). Returns the models of which anything changed.
pub fn agree(
    store: &impl Store,
    view: &PressureView,
    all: &[Elsewhere],
    reported: &[u64],
    sent: Timestamp,
    now: Timestamp,
) -> (Vec<u64>, StateFaults) {
    let step = |known: &mut Pressures| {
        let changed = known.agree(all, reported, sent, now, spread(now));
        (!changed.is_empty(), changed)
    };
    let (changed, faults) = change(store, view, now, |_| None, step);
    (changed.unwrap_or_default(), faults)
}

/// How many pressures a model has now.
#[must_use]
pub fn count(store: &impl Store, model: u64) -> u64 {
    let bytes = store.get(PRESSURE_KEY).ok().flatten();
    let known = bytes.and_then(|(bytes, _)| Pressures::decode(&bytes).ok());
    known.map_or(0, |known| known.pressed(model))
}

/// A pseudo-random number: neighbouring ticks of the clock, which are microseconds, give unrelated numbers (Knuth's multiplicative hash).
#[must_use]
pub fn spread(now: Timestamp) -> u64 {
    let micros = now.as_nanos() / 1_000;
    micros.wrapping_mul(2_654_435_761) >> 7
}

/// Changes the shared value by a pure step, which returns whether anything changed. This worker's own view is updated at once.
fn change<T>(
    store: &impl Store,
    view: &PressureView,
    now: Timestamp,
    gauge: impl Fn(&Pressures) -> Option<(Series, u64)>,
    step: impl Fn(&mut Pressures) -> (bool, T),
) -> (Option<T>, StateFaults) {
    let write = |bytes: Option<&[u8]>| {
        let read = bytes.map(Pressures::decode).transpose();
        let corrupt = read.is_err();
        let mut all = read.ok().flatten().unwrap_or_default();
        let (is_changed, report) = step(&mut all);
        Write {
            value: is_changed.then(|| all.encode()),
            report: (all, report, corrupt),
        }
    };
    let gauge = |(all, _, _): &(Pressures, T, bool)| gauge(all);
    match update_telling(store, PRESSURE_KEY, TRIES, write, gauge) {
        Ok(Updated {
            report: (all, report, corrupt),
            conflicts,
        }) => {
            view.learn(all, now);
            let faults = StateFaults {
                conflicts,
                corrupt,
                given_up: 0,
            };
            (Some(report), faults)
        }
        Err(Contended { conflicts }) => {
            let faults = StateFaults {
                conflicts,
                ..StateFaults::default()
            };
            (None, faults)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::store::fake::FakeStore;
    use crate::tier::pressure::RefusalKind;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const KEY: PressureKey = PressureKey {
        model: 7,
        credential: 0,
        is_configured: true,
    };
    const LIMITED: UpstreamRefusal = UpstreamRefusal {
        kind: RefusalKind::RateLimit,
        wait: None,
    };

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_secs(1_709_208_000).plus(Duration::from_millis(millis))
    }

    #[test]
    fn while_nothing_is_pressed_a_worker_reads_twenty_times_a_second_and_no_more() {
        let (store, view) = (FakeStore::default(), PressureView::default());
        for millis in 0..1_000 {
            assert!(view.known(&store, at(millis)).is_empty());
        }
        assert_eq!(store.calls(), 20);
        // The clock was set back.
        assert!(view.known(&store, at(10)).is_empty());
        assert_eq!(store.calls(), 21);
    }

    #[test]
    fn what_one_worker_hears_it_knows_at_once_and_the_others_soon() {
        let store = FakeStore::default();
        let (one, other) = (PressureView::default(), PressureView::default());
        assert!(other.known(&store, at(0)).is_empty());
        let faults = refuse(&store, &one, KEY, LIMITED, at(0), at(1), |_| None);
        assert_eq!(faults, StateFaults::default());
        assert!(one.known(&store, at(1)).is_pressed(&KEY));
        assert!(!other.known(&store, at(49)).is_pressed(&KEY));
        assert!(other.known(&store, at(50)).is_pressed(&KEY));
        succeed(&store, &other, KEY, at(2), at(60), |_| None);
        assert!(!other.known(&store, at(60)).is_pressed(&KEY));
        assert!(!one.known(&store, at(61)).is_pressed(&KEY));
    }

    #[test]
    fn a_lost_race_is_run_again_and_what_is_no_state_is_replaced() {
        let (store, view) = (FakeStore::default(), PressureView::default());
        store.plant(PRESSURE_KEY, b"something else");
        assert!(view.known(&store, at(0)).is_empty());
        store.lose(3);
        let faults = refuse(&store, &view, KEY, LIMITED, at(0), at(1), |_| None);
        assert_eq!((faults.conflicts, faults.corrupt), (3, true));
        assert!(
            PressureView::default()
                .known(&store, at(1))
                .is_pressed(&KEY)
        );
    }

    #[test]
    fn a_store_that_does_not_answer_presses_nothing() {
        let (store, view) = (FakeStore::default(), PressureView::default());
        store.set_down(true);
        let faults = refuse(&store, &view, KEY, LIMITED, at(0), at(1), |_| None);
        assert_eq!(faults, StateFaults::default());
        assert!(view.known(&store, at(100)).is_empty());
    }
}
