use super::*;
use crate::lease::grant::Unreachable;
use crate::lease::share::{FirstRequest, Share};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn quota(tokens_per_window: u64, secs: u64) -> Quota {
    let tokens = NonZeroU64::new(tokens_per_window).unwrap();
    Quota {
        tokens_per_window: tokens,
        window: NonZeroU64::new(secs * 1_000_000_000).unwrap(),
        burst: tokens,
        low_water_mark: Some(Ppm(100_000)),
        share: None,
    }
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos(1_000_000_000_000_000 + millis * 1_000_000)
}

#[test]
fn an_empty_bucket_says_when_and_the_request_then_fits() {
    let quota = quota(60, 60);
    let bucket = quota.charge(Bucket::default(), 60, at(0));
    assert_eq!(
        quota.check(bucket, 5, at(0)),
        Err(NotNow::Wait(Duration::from_secs(5)))
    );
    assert_eq!(
        quota.check(bucket, 5, at(4_999)),
        Err(NotNow::Wait(Duration::from_millis(1)))
    );
    assert_eq!(quota.check(bucket, 5, at(5_000)), Ok(()));
}

#[test]
fn what_can_never_fit_is_told_apart() {
    assert_eq!(
        quota(60, 60).check(Bucket::default(), 61, at(0)),
        Err(NotNow::ExceedsBurst)
    );
    assert_eq!(quota(60, 60).check(Bucket::default(), 60, at(0)), Ok(()));
}

// In another implementation, buckets did not refill for two years, unnoticed by tests in which no time passes.
#[test]
fn after_a_long_idle_the_bucket_is_full_and_not_fuller() {
    let quota = quota(60, 60);
    let bucket = quota.charge(Bucket::default(), 60, at(0));
    assert_eq!(quota.available(bucket, at(30_000)), 30);
    assert_eq!(quota.available(bucket, at(86_400_000)), 60);
    let bucket = quota.charge(bucket, 60, at(86_400_000));
    assert_eq!(quota.available(bucket, at(86_400_000)), 0);
}

#[test]
fn a_trickle_of_writes_costs_less_than_a_nanosecond_a_cell() {
    let quota = quota(7, 1);
    let mut bucket = quota.charge(Bucket::default(), 7, at(0));
    for millis in 0..1_000 {
        bucket = quota.refilled(bucket, at(millis));
    }
    let full = Timestamp::from_nanos(at(1_000).as_nanos() + 7);
    assert_eq!(quota.refilled(bucket, full).used, 0);
}

#[test]
fn settling_gives_back_what_was_not_used_and_takes_what_was_used_beyond() {
    let quota = quota(60, 60);
    let bucket = quota.charge(Bucket::default(), 40, at(0));
    assert_eq!(quota.settle(bucket, 40, 10, at(0), at(0)).used, 10);
    assert_eq!(quota.settle(bucket, 40, 70, at(0), at(0)).used, 70);
    // After a refill, the refund cannot make the bucket more than full.
    assert_eq!(quota.settle(bucket, 40, 0, at(0), at(30_000)).used, 0);
}

#[test]
fn what_has_come_back_by_itself_is_not_given_back_again() {
    let quota = quota(60, 60);
    let bucket = quota.charge(Bucket::default(), 40, at(0));
    // The bucket is full again after 40 s; then another request takes all of it.
    let bucket = quota.charge(bucket, 60, at(40_000));
    assert_eq!(quota.settle(bucket, 40, 0, at(0), at(40_000)).used, 60);
    assert_eq!(quota.settle(bucket, 40, 50, at(0), at(40_000)).used, 70);
    assert_eq!(quota.settle(bucket, 60, 0, at(40_000), at(40_000)).used, 0);
}

// A limit may be raised, or lowered below what is spent, at any time.
#[test]
fn a_raised_limit_counts_at_once_and_a_lowered_one_makes_a_debt() {
    let bucket = quota(100, 60).charge(Bucket::default(), 100, at(0));
    assert_eq!(quota(1_000, 60).available(bucket, at(0)), 900);
    assert_eq!(quota(10, 60).available(bucket, at(0)), 0);
    assert_eq!(
        quota(10, 60).check(bucket, 10, at(0)),
        Err(NotNow::Wait(Duration::from_secs(600)))
    );
}

// Windows may end while requests are in flight, and clocks may be set back.
#[test]
fn a_clock_set_back_by_an_hour_delays_nothing_by_an_hour() {
    let quota = quota(60, 60);
    let bucket = quota.charge(Bucket::default(), 60, at(3_600_000));
    assert_eq!(
        quota.check(bucket, 1, at(0)),
        Err(NotNow::Wait(Duration::from_secs(1)))
    );
    // A difference of a millisecond is a race of two workers: no cell is given twice or early.
    assert_eq!(quota.refilled(bucket, at(3_599_999)), bucket);
    assert_eq!(
        quota.check(bucket, 1, at(3_599_999)),
        Err(NotNow::Wait(Duration::from_millis(1_001)))
    );
    assert_eq!(quota.check(bucket, 0, at(3_599_999)), Ok(()));
    // A difference of up to a minute is also a race; a larger one is not.
    assert_eq!(quota.refilled(bucket, at(3_540_000)), bucket);
    assert_eq!(quota.refilled(bucket, at(3_539_999)).since, at(3_539_999));
}

#[test]
fn what_is_taken_after_a_clock_was_set_back_is_given_back_all_the_same() {
    let quota = quota(60, 60);
    let bucket = quota.charge(Bucket::default(), 10, at(3_600_000));
    let bucket = quota.charge(bucket, 40, at(0));
    assert_eq!(quota.settle(bucket, 40, 5, at(0), at(0)).used, 15);
    // These cells were taken before the clock was set back.
    assert_eq!(quota.settle(bucket, 10, 0, at(3_600_000), at(0)).used, 40);
}

#[test]
fn the_low_water_mark_is_a_fraction_of_the_burst() {
    let quota = quota(100, 60);
    assert!(!quota.is_low(quota.charge(Bucket::default(), 90, at(0)), at(0)));
    assert!(quota.is_low(quota.charge(Bucket::default(), 91, at(0)), at(0)));
}

/// A quota of 60 cells a minute, of which proxies have parts.
fn shared() -> Quota {
    let share = Share {
        least: 1_000_000_000,
        most: 10_000_000_000,
        reclaim: None,
        unreachable: Unreachable::Deny,
        first: FirstRequest::Waits,
    };
    Quota {
        share: Some(share),
        ..quota(60, 60)
    }
}

/// A bucket with half of the quota, of which this many cells are used.
fn half(used: u64) -> Bucket {
    let part = Part::Of(Ppm(500_000));
    let (bucket, _) = shared().with_part(Bucket::default(), part, 30, at(0));
    shared().charge(bucket, used, at(0))
}

// Otherwise a bucket whose part changes often would never refill a cell, or refill one early.
#[test]
fn what_is_there_of_the_next_cell_stays_when_the_part_changes() {
    let quota = shared();
    // Half of a cell was refilled in a second; with the new part, the other half takes another second, half a second, or two seconds.
    for (part, millis) in [(500_000, 2_000), (1_000_000, 1_500), (250_000, 3_000)] {
        let (bucket, gone) = quota.with_part(half(30), Part::Of(Ppm(part)), 0, at(1_000));
        assert_eq!(gone, 0);
        assert_eq!(quota.available(bucket, at(millis - 1)), 0, "{part}");
        assert_eq!(quota.available(bucket, at(millis)), 1, "{part}");
    }
}

#[test]
fn what_is_free_goes_with_a_part_and_a_greater_one_brings_only_what_came_with_it() {
    let quota = shared();
    let (bucket, gone) = quota.with_part(half(10), Part::Of(Ppm(250_000)), 0, at(0));
    assert_eq!((quota.available(bucket, at(0)), gone), (10, 10));
    let (bucket, gone) = quota.with_part(half(10), Part::Of(Ppm(0)), 0, at(0));
    assert_eq!((quota.available(bucket, at(0)), gone), (0, 20));
    let whole = Part::Of(Ppm(WHOLE));
    let (bucket, gone) = quota.with_part(half(10), whole, 7, at(0));
    assert_eq!((quota.available(bucket, at(0)), gone), (27, 0));
    // A part never has more free cells than it holds.
    let (bucket, _) = quota.with_part(half(10), whole, 1_000, at(0));
    assert_eq!(quota.available(bucket, at(0)), 60);
    // Cells that were used beyond the part are paid first.
    let (bucket, _) = quota.with_part(half(35), whole, 7, at(0));
    assert_eq!((quota.available(bucket, at(0)), quota.debt(bucket)), (2, 0));
}
