//! Times to first byte: against a model that keeps every one of them.

use std::time::Duration;

use bursar::base::units::Timestamp;
use bursar::tier::latency::{ENOUGH, FEW, HALF, LONGEST, Latency, Standing};
use proptest::prelude::*;

/// An answer: when it was heard, and after how long, in milliseconds.
type Heard = (u64, u64);

const START: u64 = 1_709_208_000_000;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos((START + millis) * 1_000_000)
}

fn half(millis: u64) -> u64 {
    (START + millis) * 1_000_000 / u64::try_from(HALF.as_nanos()).unwrap()
}

fn record(state: Latency, (now, time): Heard) -> Latency {
    let mut state = state.at(at(now));
    state.record(Duration::from_millis(time), at(now));
    state
}

/// Times of every scale, those around an SLA of a second more often.
fn time() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..40, 600_u64..1_400, 0_u64..200_000, any::<u64>()]
}

/// Answers in the order of their time, most of them close to each other.
fn heard() -> impl Strategy<Value = Vec<Heard>> {
    let gap = prop_oneof![4 => 0_u64..4_000, 1 => 0_u64..90_000];
    prop::collection::vec((gap, time()), 1..160).prop_map(|list| {
        let mut now = 0;
        let later = |(gap, time)| {
            now += gap;
            (now, time)
        };
        list.into_iter().map(later).collect()
    })
}

/// Phases of some answers each, about one in each half-window.
fn phases() -> impl Strategy<Value = Vec<Heard>> {
    let phase = (50_000_u64..80_000, 700_u64..1_300, 15_usize..40);
    prop::collection::vec(phase, 1..12).prop_map(|phases| {
        let mut now = 0;
        let mut heard = Vec::new();
        for (gap, time, answers) in phases {
            now += gap;
            heard.extend(std::iter::repeat_n((now, time), answers));
        }
        heard
    })
}

/// The p95 of the answers in the window as of `now`, exactly: the least time that 95 % do not exceed.
fn exact(heard: &[Heard], now: u64) -> Option<u64> {
    let is_in = |then: u64| (half(now) - 1..=half(now)).contains(&half(then));
    let mut times: Vec<_> = heard
        .iter()
        .filter(|(then, _)| is_in(*then))
        .map(|(_, time)| *time)
        .collect();
    times.sort_unstable();
    let rank = (times.len() * 95).div_ceil(100);
    times.get(rank.checked_sub(1)?).copied()
}

fn in_window(heard: &[Heard], now: u64) -> u64 {
    let is_in = |then: u64| (half(now) - 1..=half(now)).contains(&half(then));
    heard.iter().filter(|(then, _)| is_in(*then)).count() as u64
}

proptest! {
    #[test]
    fn a_p95_is_within_a_sixteenth_of_the_exact_one_and_the_window_slides_exactly(
        heard in heard(), later in 0_u64..200_000,
    ) {
        let state = heard.iter().fold(Latency::default(), |state, &heard| record(state, heard));
        let now = heard.last().unwrap().0 + later;
        let state = state.at(at(now));
        prop_assert_eq!(state.count(), in_window(&heard, now));
        match (state.p95(), exact(&heard, now)) {
            (None, None) => {}
            (Some(u64::MAX), Some(exact)) => prop_assert!(Duration::from_millis(exact) > LONGEST),
            (Some(told), Some(exact)) => {
                prop_assert!(told >= exact && (told - exact) * 16 < exact.max(1), "{} {}", told, exact);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    // Workers read the clock, then race to write: whoever is first, the same is counted.
    #[test]
    fn answers_count_the_same_in_whatever_order_workers_write_them(
        heard in prop::collection::vec((50_000_u64..70_000, time()), 1..60), seed in any::<u64>(),
    ) {
        let mut other = heard.clone();
        let mut random = seed;
        for last in (1..other.len()).rev() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            other.swap(last, usize::try_from(random >> 33).unwrap() % (last + 1));
        }
        let counted = |heard: &[Heard]| {
            let state = heard.iter().fold(Latency::default(), |state, &heard| record(state, heard));
            [70_000, 121_000].map(|now| {
                let state = state.clone().at(at(now));
                (state.p95(), state.count())
            })
        };
        prop_assert_eq!(counted(&heard), counted(&other));
    }

    // One level for all SLAs does what a switch with two thresholds of its own does for each of them.
    #[test]
    fn every_sla_has_its_own_hysteresis(heard in prop_oneof![heard(), phases()], sla in prop_oneof![1_u64..200, 600_u64..1_400, 1_u64..100_000]) {
        let mut state = Latency::default();
        let mut is_missed = false;
        for &(now, time) in &heard {
            // The window may have slid in between, too.
            for next in [state.clone().at(at(now)), record(state.clone(), (now, time))] {
                let p95 = next.p95().unwrap_or(0);
                is_missed = match next.count() {
                    ..FEW => false,
                    FEW..ENOUGH => is_missed && p95.saturating_mul(5) > sla * 4,
                    _ if p95 > sla => true,
                    _ => is_missed && p95.saturating_mul(5) > sla * 4,
                };
                prop_assert_eq!(next.standing().misses(Duration::from_millis(sla)), is_missed, "{:?}", next);
                state = next;
            }
        }
    }

    #[test]
    fn a_state_reads_back_and_noise_is_none_or_read_as_it_stands(
        heard in heard(), noise in prop::collection::vec(any::<u8>(), 0..80), at_byte in any::<usize>(), to in any::<u8>(),
    ) {
        let state = heard.iter().fold(Latency::default(), |state, &heard| record(state, heard));
        let bytes = state.encode();
        prop_assert_eq!(Latency::decode(&bytes), Ok(state));
        let mut changed = bytes;
        let length = changed.len();
        changed[at_byte % length] = to;
        for bytes in [changed, [&b"brl\x01"[..], &noise].concat(), noise] {
            if let Ok(read) = Latency::decode(&bytes) {
                prop_assert_eq!(&read.encode(), &bytes);
                let standing = Standing::read(&bytes, at(1));
                prop_assert_eq!(standing, Ok(read.clone().at(at(1)).standing()));
                // Whatever it says, it goes on.
                let state = record(read, (1, 2));
                prop_assert!(state.p95().is_some());
            }
        }
    }
}
