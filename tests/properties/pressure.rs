//! Upstreams that say no: whatever they say, whoever asks and in whatever order the answers come.

use std::collections::BTreeMap;
use std::time::Duration;

use bursar::base::units::Timestamp;
use bursar::tier::pressure::{
    GUESTS, JITTER, LONGEST, PROBE, PressureKey, Pressures, RefusalKind, UpstreamRefusal,
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
