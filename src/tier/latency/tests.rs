use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// This many seconds after the start of a half-window.
fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(1_709_208_000 + secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A state after this many answers, each of which took this time, all at the same moment.
fn heard(state: Latency, answers: u64, time: u64, now: Timestamp) -> Latency {
    (0..answers).fold(state.at(now), |mut state, _| {
        state.record(millis(time), now);
        state
    })
}

const SLA: Duration = millis(1_000);

#[test]
fn a_bucket_tells_its_greatest_time_less_than_a_sixteenth_above_any_in_it() {
    let mut last = 0;
    for time in 0..131_072 {
        let bucket = bucket_of(time);
        assert!(bucket == last || bucket == last + 1, "{time}");
        last = bucket;
        let told = greatest_of(bucket);
        assert!(told >= time && (told - time) * 16 < time.max(1), "{time}");
        assert_eq!(bucket_of(told), bucket);
    }
    assert_eq!(last, BEYOND - 1);
    for time in [131_072, u64::MAX] {
        assert_eq!(bucket_of(time), BEYOND);
    }
    assert_eq!(greatest_of(BEYOND), u64::MAX);
    assert_eq!(greatest_of(u8::MAX), u64::MAX);
    assert_eq!(LONGEST, millis(greatest_of(BEYOND - 1)));
}

#[test]
fn a_p95_is_the_nearest_rank_over_both_halves() {
    assert_eq!(Latency::default().p95(), None);
    // The numbers of fast and of slow answers, half of each in either half-window, and the p95 that results.
    for (fast, slow, p95) in [
        (1, 0, 10),
        (0, 1, 20),
        (18, 1, 20),
        (19, 1, 10),
        (38, 2, 10),
        (37, 3, 20),
        (0, 100, 20),
    ] {
        let state = heard(Latency::default(), fast / 2, 10, at(0));
        let state = heard(state, slow - slow / 2, 20, at(1));
        let state = heard(state, fast - fast / 2, 10, at(60));
        let state = heard(state, slow / 2, 20, at(119));
        assert_eq!(state.p95(), Some(p95), "{fast} {slow}");
        assert_eq!(state.count(), fast + slow);
    }
}

#[test]
fn what_is_older_than_two_half_windows_is_gone() {
    let state = heard(Latency::default(), 30, 500, at(59));
    assert_eq!(state.clone().at(at(119)).p95(), Some(511));
    assert_eq!(state.clone().at(at(120)).p95(), None);
    let state = heard(state, 1, 20, at(60));
    assert_eq!(state.clone().at(at(119)).p95(), Some(511));
    assert_eq!(state.clone().at(at(120)).p95(), Some(20));
    assert_eq!(state.at(at(180)), Latency::default().at(at(180)));
}

#[test]
fn an_sla_is_missed_from_its_p95_on_and_kept_again_at_four_fifths_of_it() {
    let mut state = heard(Latency::default(), 20, 991, at(0));
    assert!(!state.standing().misses(SLA));
    // 992 to 1,007 are all reported as 1,007.
    state = heard(state, 2, 1_007, at(1));
    assert!(state.standing().misses(SLA));
    state = heard(state, 2, 2_000, at(1));
    // Two half-windows later only the new answers count. 831 is above 4/5.
    state = heard(state, 20, 831, at(60));
    state = heard(state, 20, 831, at(120));
    assert_eq!(state.p95(), Some(831));
    assert!(state.standing().misses(SLA));
    // 5/4 of 831 is 1,038.75.
    assert!(state.standing().misses(millis(1_038)) && !state.standing().misses(millis(1_039)));
    state = heard(state, 20, 799, at(180)).at(at(240));
    assert_eq!(state.p95(), Some(799));
    assert!(!state.standing().misses(SLA));
    // The SLA stays met until the p95 exceeds it again.
    state = heard(state, 20, 991, at(240));
    assert!(!state.standing().misses(SLA));
    state = heard(state, 20, 1_007, at(241));
    assert!(state.standing().misses(SLA));
}

#[test]
fn plans_judge_one_tier_by_their_own() {
    let state = heard(Latency::default(), 20, 500, at(0));
    for (sla, misses) in [(1, true), (510, true), (511, false), (100_000, false)] {
        assert_eq!(state.standing().misses(millis(sla)), misses, "{sla}");
    }
}

#[test]
fn a_few_slow_answers_are_no_evidence_and_a_few_fast_ones_are() {
    let state = heard(Latency::default(), 19, 9_000, at(0));
    assert!(!state.standing().misses(SLA));
    let state = heard(state, 1, 9_000, at(1));
    assert!(state.standing().misses(SLA));
    // While the slow answers are in the window, they determine the p95.
    let two = heard(state.clone(), 2, 9_000, at(60));
    assert!(two.standing().misses(SLA));
    assert!(
        !two.at(at(120)).standing().misses(SLA),
        "of two nothing is known"
    );
    let three = heard(state.clone(), 3, 20, at(60)).at(at(120));
    assert!(!three.standing().misses(SLA));
    let slow = heard(state, 3, 9_000, at(60)).at(at(120));
    assert!(slow.standing().misses(SLA));
    assert!(!slow.at(at(180)).standing().misses(SLA));
}

#[test]
fn what_takes_longer_than_can_be_measured_misses_every_sla() {
    let state = heard(Latency::default(), 20, u64::MAX, at(0));
    assert_eq!(state.p95(), Some(u64::MAX));
    assert!(state.standing().misses(LONGEST));
    let state = heard(state, 20, 10, at(60)).at(at(120));
    assert!(!state.standing().misses(millis(13)));
}

#[test]
fn a_probe_is_due_when_nothing_was_heard_for_a_while() {
    let mut state = heard(Latency::default(), 1, 10, at(0));
    assert!(!state.standing().is_due(at(9)));
    assert!(state.standing().is_due(at(10)));
    state.probe(at(10));
    assert!(!state.standing().is_due(at(19)));
    // An answer that a worker with a late clock measured does not make a probe due earlier.
    state.record(millis(10), at(5));
    assert!(!state.standing().is_due(at(19)));
    assert!(state.standing().is_due(at(20)));
}

#[test]
fn a_race_for_a_new_half_window_loses_nothing_and_a_clock_that_was_set_back_begins_anew() {
    let mut state = heard(Latency::default(), 20, 500, at(60));
    state = state.at(at(59));
    state.record(millis(10), at(59));
    assert_eq!(state.count(), 21);
    assert_eq!(state.clone().at(at(120)).count(), 20);
    assert_eq!(state.clone().at(at(0)).count(), 21);
    let back = Timestamp::from_nanos(at(0).as_nanos() - 1);
    assert_eq!(state.at(back), Latency::default().at(back));
}

#[test]
fn a_state_reads_back_as_it_was_written_and_nothing_else_does() {
    let mut state = heard(Latency::default(), 20, 500, at(0));
    state = heard(state, 3, u64::MAX, at(60));
    state = heard(state, 1, 0, at(61));
    for state in [Latency::default(), state.clone()] {
        assert_eq!(Latency::decode(&state.encode()), Ok(state));
    }
    let bytes = state.encode();
    for end in 0..bytes.len() {
        assert_eq!(Latency::decode(&bytes[..end]), Err(Corrupt(())), "{end}");
    }
    let changed = |at: usize, to: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = to;
        Latency::decode(&bytes)
    };
    let is_corrupt = |at, to| changed(at, to) == Err(Corrupt(()));
    assert!(is_corrupt(3, 2), "version");
    assert!(is_corrupt(28, 2), "number of buckets");
    assert!(is_corrupt(30, 0), "an empty bucket");
    assert!(is_corrupt(35, BEYOND), "a bucket twice");
    assert!(is_corrupt(40, BEYOND + 1), "no bucket");
    assert!(changed(30, 1).is_ok());
    assert_eq!(
        Latency::decode(&[&bytes[..], &[0]].concat()),
        Err(Corrupt(()))
    );
}

#[test]
fn a_standing_is_read_as_that_of_the_whole_state_at_any_time() {
    let mut state = heard(Latency::default(), 20, 2_000, at(0));
    state = heard(state, 3, 10, at(60));
    let bytes = state.encode();
    let read = |secs| Standing::read(&bytes, at(secs)).unwrap();
    for secs in [0, 59, 60, 119, 120, 179, 180, 1_000] {
        assert_eq!(read(secs), state.clone().at(at(secs)).standing(), "{secs}");
    }
    assert!(read(119).misses(SLA) && !read(120).misses(SLA));
    for end in 0..28 {
        assert_eq!(Standing::read(&bytes[..end], at(60)), Err(Corrupt(())));
    }
    assert_eq!(Standing::read(&bytes[..28], at(60)), Ok(read(60)));
    assert_eq!(Standing::read(&bytes[..28], at(120)), Err(Corrupt(())));
}

#[test]
fn the_longest_state_is_as_long_as_its_doc_says() {
    let mut state = Latency::default().at(at(0));
    for now in [at(0), at(60)] {
        state = state.at(now);
        for bucket in 0..=BEYOND {
            state.record(millis(greatest_of(bucket)), now);
        }
    }
    assert_eq!(state.encode().len(), 2_280);
    assert_eq!(Latency::decode(&state.encode()), Ok(state));
}
