//! Upstreams that say no: whatever they say, whoever asks and in whatever order the answers come.

use std::collections::BTreeMap;
use std::time::Duration;

use bursar::base::units::Timestamp;
use bursar::tier::pressure::{
    Elsewhere, GUESTS, JITTER, LONGEST, PROBE, PressureKey, Pressures, RefusalKind, UpstreamRefusal,
};
use proptest::prelude::*;

const CONFIGURED: u64 = 3;

#[derive(Clone, Debug)]
enum Event {
    /// A request is sent, to see how things are if that is due.
    Send(PressureKey),
    /// One of those under way is answered.
    Answer(usize, Option<UpstreamRefusal>),
    /// One of those under way ends without an answer.
    Lose(usize),
    Pass(u64),
}

fn any_key() -> impl Strategy<Value = PressureKey> {
    prop_oneof![
        3 => (0..CONFIGURED).prop_map(|model| PressureKey { model, credential: 0, is_configured: true }),
        1 => (0..CONFIGURED, 1..200_u64).prop_map(|(model, credential)| PressureKey {
            model,
            credential,
            is_configured: false,
        }),
    ]
}

fn any_refusal() -> impl Strategy<Value = UpstreamRefusal> {
    let kind = prop_oneof![
        Just(RefusalKind::RateLimit),
        Just(RefusalKind::Overloaded),
        Just(RefusalKind::Failed),
        Just(RefusalKind::Quota)
    ];
    let wait =
        prop::option::of(prop_oneof![0..90_000_u64, any::<u64>()].prop_map(Duration::from_millis));
    (kind, wait).prop_map(|(kind, wait)| UpstreamRefusal { kind, wait })
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => any_key().prop_map(Event::Send),
        4 => (any::<usize>(), prop::option::weighted(0.7, any_refusal())).prop_map(|(at, refusal)| Event::Answer(at, refusal)),
        1 => any::<usize>().prop_map(Event::Lose),
        3 => prop_oneof![0..20_000_u64, 0..100_u64].prop_map(Event::Pass),
    ]
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
struct Sent {
    key: PressureKey,
    at: Timestamp,
    is_probe: bool,
}

proptest! {
    #[test]
    fn one_goes_to_see_at_a_time_and_no_wait_is_for_ever(events in prop::collection::vec(any_event(), 1..200), spread in any::<u64>()) {
        let mut now = Timestamp::from_secs(1_709_208_000);
        let mut all = Pressures::default();
        let mut sent: Vec<Sent> = Vec::new();
        // When each was refused last, and by what was sent since.
        let mut refused: BTreeMap<u64, Timestamp> = BTreeMap::new();
        for event in events {
            match event {
                Event::Pass(millis) => now = now.plus(Duration::from_millis(millis)),
                Event::Send(key) => {
                    let was_due = all.is_due(&key, now);
                    let is_probe = all.claim(&key, now);
                    prop_assert_eq!(is_probe, was_due);
                    if is_probe {
                        prop_assert!(all.is_pressed(&key));
                        let others = sent.iter().filter(|one| one.key == key && one.is_probe);
                        let mut others = others.filter(|one| now.since(one.at) < PROBE);
                        prop_assert!(others.next().is_none() || !key.is_configured);
                    }
                    sent.push(Sent { key, at: now, is_probe });
                }
                Event::Answer(at, answer) if !sent.is_empty() => {
                    let one = sent.swap_remove(at % sent.len());
                    // Whatever another request found out, the probe is no longer waited for.
                    let same = sent.iter_mut().filter(|other| other.key == one.key);
                    same.for_each(|other| other.is_probe = false);
                    match answer {
                        Some(refusal) => {
                            all.refuse(one.key, refusal, one.at, now, spread);
                            if one.key.is_configured && one.is_probe {
                                refused.insert(one.key.model, now);
                            }
                            prop_assert!(all.knows(&one.key));
                        }
                        None => {
                            let knew = all.knows(&one.key);
                            let healed = all.succeed(&one.key, one.at);
                            prop_assert!(!healed || knew);
                            // Whoever saw that it is over is believed, if nobody saw later that it is not.
                            let later = refused.get(&one.key.model);
                            if one.is_probe && one.key.is_configured && later.is_none_or(|later| *later <= one.at) {
                                prop_assert!(!all.is_pressed(&one.key));
                            }
                        }
                    }
                }
                Event::Lose(at) if !sent.is_empty() => {
                    let one = sent.swap_remove(at % sent.len());
                    if one.is_probe {
                        all.release(&one.key, one.at);
                    }
                }
                Event::Answer(..) | Event::Lose(_) => {}
            }
            prop_assert_eq!(Pressures::decode(&all.encode()), Ok(all.clone()));
            let most = 4 + 44 * (GUESTS + 3);
            prop_assert!(all.encode().len() <= most);
            let end = now.plus(LONGEST).plus(JITTER).plus(PROBE);
            for model in 0..CONFIGURED {
                let key = PressureKey { model, credential: 0, is_configured: true };
                prop_assert!(!all.is_pressed(&key) || all.is_due(&key, end));
            }
        }
    }
}

// --- proxies that share a store ---

/// The store's hash, as `src/lease/pressed.lua` keeps it: when a model's upstream refused, and until when; `None`: it serves again.
type Hash = BTreeMap<u64, (Timestamp, Option<Timestamp>)>;

/// What a proxy has to report: when it learned it, and until when; `None`: it serves again.
type News = BTreeMap<u64, (Timestamp, Option<Timestamp>)>;

fn report(hash: &mut Hash, news: &News) -> Vec<Elsewhere> {
    for (&model, &(since, until)) in news {
        let known = hash.get(&model).copied();
        match (known, until) {
            (Some((known, _)), None) if since < known => {}
            (Some((known, None)), Some(_)) if since <= known => {}
            (None, None) => {}
            // Still refused: the longest wait counts.
            (Some((known, Some(before))), Some(until)) => {
                hash.insert(model, (since.max(known), Some(until.max(before))));
            }
            _ => {
                hash.insert(model, (since, until));
            }
        }
    }
    let pressed = hash.iter().filter_map(|(&model, &(since, until))| {
        let until = until?;
        Some(Elsewhere {
            model,
            since,
            until,
        })
    });
    pressed.collect()
}

#[derive(Clone, Debug)]
enum Happens {
    Refused {
        proxy: usize,
        model: u64,
        wait: u64,
    },
    Served {
        proxy: usize,
        model: u64,
    },
    /// A proxy's call reaches the store or not, and its answer comes back or not.
    Called {
        proxy: usize,
        arrives: bool,
        is_answered: bool,
    },
    Passes(u64),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        3 => (0..3_usize, 0..CONFIGURED, 1..60_000_u64).prop_map(|(proxy, model, wait)| Happens::Refused { proxy, model, wait }),
        2 => (0..3_usize, 0..CONFIGURED).prop_map(|(proxy, model)| Happens::Served { proxy, model }),
        4 => (0..3_usize, any::<bool>(), any::<bool>())
            .prop_map(|(proxy, arrives, is_answered)| Happens::Called { proxy, arrives, is_answered }),
        3 => (0..5_000_u64).prop_map(Happens::Passes),
    ]
}

#[derive(Default)]
struct Proxy {
    known: Pressures,
    news: News,
}

fn of_all(model: u64) -> PressureKey {
    PressureKey {
        model,
        credential: 0,
        is_configured: true,
    }
}

impl Proxy {
    fn refused(&mut self, model: u64, wait: u64, now: Timestamp) {
        let refusal = UpstreamRefusal {
            kind: RefusalKind::RateLimit,
            wait: Some(Duration::from_millis(wait)),
        };
        self.known.refuse(of_all(model), refusal, now, now, 0);
        self.news.insert(model, (now, self.known.until(model)));
    }

    fn served(&mut self, model: u64, now: Timestamp) {
        if self.known.succeed(&of_all(model), now) {
            self.news.insert(model, (now, None));
        }
    }

    fn called(&mut self, hash: &mut Hash, arrives: bool, is_answered: bool, now: Timestamp) {
        let news = std::mem::take(&mut self.news);
        let all = arrives.then(|| report(hash, &news));
        match all.filter(|_| is_answered) {
            Some(all) => {
                let refused = news.iter().filter(|(_, (_, until))| until.is_some());
                let refused: Vec<_> = refused.map(|(&model, _)| model).collect();
                self.known.agree(&all, &refused, now, now, 0);
            }
            None => self.news = news,
        }
    }
}

proptest! {
    // Whatever was lost: once each proxy's call was answered twice, all agree which upstreams are left alone, and so does the store.
    #[test]
    fn proxies_that_share_a_store_agree_on_what_is_pressed(events in prop::collection::vec(happens(), 1..60)) {
        let mut proxies = [(); 3].map(|()| Proxy::default());
        let (mut hash, mut now) = (Hash::new(), Timestamp::from_secs(1_709_208_000));
        for event in events {
            now = now.plus(Duration::from_millis(1));
            match event {
                Happens::Refused { proxy, model, wait } => proxies[proxy].refused(model, wait, now),
                Happens::Served { proxy, model } => proxies[proxy].served(model, now),
                Happens::Called { proxy, arrives, is_answered } => proxies[proxy].called(&mut hash, arrives, is_answered, now),
                Happens::Passes(millis) => now = now.plus(Duration::from_millis(millis)),
            }
        }
        for proxy in [0, 1, 2, 0, 1, 2] {
            now = now.plus(Duration::from_millis(1));
            proxies[proxy].called(&mut hash, true, true, now);
        }
        for model in 0..CONFIGURED {
            // Who has no wait, or one that is over, waits until now. Ends differ by what spreads them, so one may be over when another is not yet.
            let end = |until: Option<Timestamp>| until.map_or(now, |until| until.max(now));
            let stored = end(hash.get(&model).and_then(|known| known.1));
            for proxy in &proxies {
                let own = end(proxy.known.until(model));
                prop_assert!(own.max(stored).since(own.min(stored)) <= JITTER, "{}: {:?}, in the store {:?}", model, own, stored);
            }
        }
    }
}
