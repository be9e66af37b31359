use super::bytes::ENTRY;
use super::*;
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
const FAILED: UpstreamRefusal = UpstreamRefusal {
    kind: RefusalKind::Failed,
    wait: None,
};

fn at(millis: u64) -> Timestamp {
    Timestamp::from_secs(1_709_208_000).plus(Duration::from_millis(millis))
}

fn told(millis: u64) -> UpstreamRefusal {
    UpstreamRefusal {
        wait: Some(Duration::from_millis(millis)),
        ..LIMITED
    }
}

/// A refusal that arrives at the same moment, of a request that was sent at `millis`.
fn refused(pressures: &mut Pressures, refusal: UpstreamRefusal, millis: u64) {
    pressures.refuse(KEY, refusal, at(millis), at(millis), 0);
}

/// The first millisecond after `from` at which a probe is due.
fn due(pressures: &Pressures, from: u64) -> u64 {
    let mut times = (from..from + 4_000_000).step_by(100);
    times
        .find(|&time| pressures.is_due(&KEY, at(time)))
        .unwrap()
        - from
}

#[test]
fn it_is_left_alone_for_as_long_as_it_says() {
    for (said, expected) in [
        (20_000, 20_000),
        (2_000, 2_000),
        // A short wait is extended: callers come back after a second.
        (0, 1_500),
        (20, 1_500),
        (u64::MAX / 2_000_000, 3_600_000),
    ] {
        let mut pressures = Pressures::default();
        refused(&mut pressures, told(said), 0);
        assert!(pressures.is_pressed(&KEY));
        assert_eq!(due(&pressures, 0), expected, "{said} ms");
    }
}

#[test]
fn without_a_word_it_is_five_seconds_that_double_up_to_a_minute() {
    let mut pressures = Pressures::default();
    let mut now = 0;
    for expected in [5_000, 10_000, 20_000, 40_000, 60_000, 60_000] {
        refused(&mut pressures, LIMITED, now);
        assert_eq!(due(&pressures, now), expected);
        now += expected;
    }
    // A success ends the pressure and resets its doubling.
    assert!(pressures.succeed(&KEY, at(now)));
    assert_eq!(pressures, Pressures::default());
    refused(&mut pressures, LIMITED, now);
    assert_eq!(due(&pressures, now), 5_000);
}

#[test]
fn a_hundred_refusals_of_one_burst_are_one() {
    let mut pressures = Pressures::default();
    for millis in 0..100 {
        // Some requests were sent before the wait, some during it, by tenants that cannot be lowered.
        pressures.refuse(KEY, LIMITED, at(millis / 2), at(millis), 0);
    }
    assert_eq!(due(&pressures, 0), 5_000);
    // If a refusal names a longer wait, that wait counts.
    pressures.refuse(KEY, told(30_000), at(50), at(200), 0);
    assert_eq!(due(&pressures, 0), 30_200);
    pressures.refuse(KEY, told(3_000), at(50), at(300), 0);
    assert_eq!(due(&pressures, 0), 30_200);
}

#[test]
fn only_what_was_sent_after_the_refusal_heals_it() {
    let mut pressures = Pressures::default();
    pressures.refuse(KEY, LIMITED, at(0), at(100), 0);
    assert!(!pressures.succeed(&KEY, at(99)));
    assert!(pressures.is_pressed(&KEY));
    assert!(pressures.succeed(&KEY, at(100)));
    assert!(pressures.is_empty());
}

#[test]
fn other_errors_press_when_three_came_in_a_row() {
    let mut pressures = Pressures::default();
    for round in 0..3 {
        let now = round * 100;
        refused(&mut pressures, FAILED, now);
        refused(&mut pressures, FAILED, now + 10);
        assert!(pressures.knows(&KEY) && !pressures.is_pressed(&KEY));
        assert!(!pressures.is_due(&KEY, at(now + 1_000_000)));
        assert!(pressures.succeed(&KEY, at(now + 20)));
    }
    for millis in [300, 310, 320] {
        refused(&mut pressures, FAILED, millis);
    }
    assert!(pressures.is_pressed(&KEY));
    assert_eq!(due(&pressures, 320), 5_000);
    // The probe fails once more, which is enough.
    refused(&mut pressures, FAILED, 6_000);
    assert_eq!(due(&pressures, 6_000), 10_000);
}

#[test]
fn what_no_wait_cures_presses_for_minutes() {
    let mut pressures = Pressures::default();
    let spent = UpstreamRefusal {
        kind: RefusalKind::Quota,
        wait: None,
    };
    refused(&mut pressures, spent, 0);
    assert_eq!(due(&pressures, 0), 300_000);
}

#[test]
fn of_all_who_would_see_whether_it_is_over_one_does() {
    let mut pressures = Pressures::default();
    refused(&mut pressures, told(2_000), 0);
    assert!(!pressures.claim(&KEY, at(1_999)));
    assert!(pressures.claim(&KEY, at(2_000)));
    assert!(!pressures.claim(&KEY, at(2_000)));
    assert!(pressures.is_pressed(&KEY));
    // The probe is not answered, and another one is sent.
    assert!(!pressures.claim(&KEY, at(31_999)));
    assert!(pressures.claim(&KEY, at(32_000)));
    // A probe without a result is given back, but only by its owner.
    assert!(!pressures.release(&KEY, at(2_000)));
    assert!(pressures.release(&KEY, at(32_000)));
    assert!(pressures.claim(&KEY, at(32_001)));
    // The probe is refused: everything begins anew.
    refused(&mut pressures, told(2_000), 32_010);
    assert!(!pressures.claim(&KEY, at(34_009)));
    assert!(pressures.claim(&KEY, at(34_010)));
}

#[test]
fn the_end_is_moved_by_a_tenth_and_no_more_than_a_second() {
    for (wait, most) in [(2_000, 200), (5_000, 500), (60_000, 1_000)] {
        let mut ends: Vec<u64> = (0..5_000)
            .map(|spread| {
                let mut pressures = Pressures::default();
                pressures.refuse(KEY, told(wait), at(0), at(0), spread);
                let until = pressures.0[0].until;
                u64::try_from(until.since(at(0)).as_millis()).unwrap()
            })
            .collect();
        ends.sort_unstable();
        ends.dedup();
        assert_eq!(ends, (wait..=wait + most).collect::<Vec<_>>());
    }
}

#[test]
fn made_up_credentials_displace_no_configured_model() {
    let mut pressures = Pressures::default();
    refused(&mut pressures, LIMITED, 0);
    for credential in 1..=1_000 {
        let guest = PressureKey {
            credential,
            is_configured: false,
            ..KEY
        };
        pressures.refuse(guest, told(1_000 * credential), at(0), at(0), 0);
    }
    assert_eq!(pressures.0.len(), GUESTS + 1);
    assert!(pressures.is_pressed(&KEY));
    // The pressures that last longest stay.
    let last = PressureKey {
        credential: 1_000,
        is_configured: false,
        ..KEY
    };
    assert!(pressures.is_pressed(&last));
    assert_eq!(pressures.pressed(7), 65);
    assert_eq!(pressures.pressed(8), 0);
}

// A value under our key may be older, truncated, or another plugin's.
#[test]
fn other_bytes_are_none_of_ours() {
    let mut pressures = Pressures::default();
    refused(&mut pressures, FAILED, 0);
    let other = PressureKey { model: 8, ..KEY };
    pressures.refuse(other, told(5_000), at(0), at(1), 77);
    assert!(pressures.claim(&other, at(10_000)));
    let bytes = pressures.encode();
    assert_eq!(bytes.len(), 4 + 2 * ENTRY);
    assert_eq!(Pressures::decode(&bytes), Ok(pressures));
    let none = Pressures::default();
    assert_eq!(Pressures::decode(&none.encode()), Ok(none));
    let mut unknown = bytes.clone();
    unknown[4 + 17] = 4;
    for wrong in [
        &bytes[..bytes.len() - 1],
        &[&bytes[..], b"x"].concat(),
        b"",
        &unknown,
    ] {
        assert_eq!(Pressures::decode(wrong), Err(Corrupt(())));
    }
}

// --- what proxies that share a store report to each other ---

const NO_ONE: [u64; 0] = [];

fn elsewhere(since: u64, until: u64) -> Elsewhere {
    Elsewhere {
        model: KEY.model,
        since: at(since),
        until: at(until),
    }
}

#[test]
fn what_another_proxy_was_refused_is_pressed_here_until_that_one_is_served() {
    let mut pressures = Pressures::default();
    let all = [elsewhere(0, 20_000)];
    assert_eq!(pressures.agree(&all, &[], at(100), at(110), 0), [KEY.model]);
    assert!(pressures.is_pressed(&KEY) && pressures.is_shared(at(19_999)));
    assert_eq!(pressures.pressed(KEY.model), 1);
    assert_eq!(pressures.agree(&all, &[], at(200), at(210), 0), NO_ONE);
    // The same, as bytes.
    assert_eq!(
        Pressures::decode(&pressures.encode()),
        Ok(pressures.clone())
    );
    assert_eq!(pressures.agree(&[], &[], at(300), at(310), 0), [KEY.model]);
    assert!(pressures.is_empty());
    // What is over when this proxy first hears of it is nothing to it.
    assert_eq!(
        pressures.agree(&all, &[], at(30_000), at(30_000), 0),
        NO_ONE
    );
}

#[test]
fn a_success_here_ends_it_too_if_the_request_was_sent_after_the_refusal() {
    let mut pressures = Pressures::default();
    pressures.agree(&[elsewhere(1_000, 20_000)], &[], at(2_000), at(2_000), 0);
    assert!(!pressures.succeed(&KEY, at(999)));
    assert!(pressures.succeed(&KEY, at(1_000)));
}

#[test]
fn what_was_refused_here_stays_until_it_was_reported() {
    let mut pressures = Pressures::default();
    refused(&mut pressures, told(20_000), 1_000);
    assert!(!pressures.is_shared(at(1_000)));
    // Another worker of this process has to report it still.
    assert_eq!(pressures.agree(&[], &[], at(2_000), at(2_000), 0), NO_ONE);
    assert_eq!(
        pressures.agree(&[elsewhere(0, 2_000)], &[], at(2_000), at(2_000), 0),
        NO_ONE
    );
    assert_eq!(pressures.until(KEY.model), Some(at(21_000)));
    // It was reported by a call that was sent before it refused again.
    let reported = [KEY.model];
    assert_eq!(
        pressures.agree(&[], &reported, at(1_000), at(2_000), 0),
        NO_ONE
    );
    // It was reported, and another proxy was served meanwhile.
    assert_eq!(
        pressures.agree(&[], &reported, at(1_001), at(2_000), 0),
        [KEY.model]
    );
}

#[test]
fn the_longer_wait_counts_until_the_store_knows_better() {
    let mut pressures = Pressures::default();
    pressures.agree(&[elsewhere(0, 10_000)], &[], at(100), at(100), 0);
    // The way to the store makes small differences.
    assert_eq!(
        pressures.agree(&[elsewhere(3, 10_300)], &[], at(200), at(200), 0),
        NO_ONE
    );
    assert_eq!(
        pressures.agree(&[elsewhere(50, 30_000)], &[], at(300), at(300), 0),
        [KEY.model]
    );
    assert_eq!(pressures.until(KEY.model), Some(at(30_000)));
    // It served between two refusals, of which the second names a shorter wait.
    assert_eq!(
        pressures.agree(&[elsewhere(400, 5_000)], &[], at(500), at(500), 0),
        [KEY.model]
    );
    assert_eq!(pressures.until(KEY.model), Some(at(5_000)));
}

#[test]
fn a_callers_own_credential_is_nobody_elses_business() {
    let own = PressureKey {
        credential: 9,
        is_configured: false,
        ..KEY
    };
    let mut pressures = Pressures::default();
    pressures.refuse(own, told(20_000), at(0), at(0), 0);
    assert_eq!(
        pressures.agree(&[], &[KEY.model], at(100), at(100), 0),
        NO_ONE
    );
    assert!(pressures.is_pressed(&own));
    assert_eq!(pressures.until(KEY.model), None);
}
