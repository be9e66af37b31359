//! Token buckets: never more than the burst and what came back.

use std::num::NonZeroU64;

use bursar::base::units::{Ppm, Timestamp};
use bursar::lease::quota::Quota;
use bursar::limits::bucket::{Bucket, NotNow};
use proptest::prelude::*;

/// A quota with more and with less than a cell a nanosecond.
fn any_quota() -> impl Strategy<Value = Quota> {
    let small = 1..50_u64;
    (
        prop_oneof![small.clone(), Just(3_000_000_000)],
        prop_oneof![1..1_000_u64, Just(1_000_000_000)],
        small,
    )
        .prop_map(|(tokens, window, burst)| Quota {
            tokens_per_window: NonZeroU64::new(tokens).unwrap(),
            window: NonZeroU64::new(window).unwrap(),
            burst: NonZeroU64::new(burst).unwrap(),
            low_water_mark: Some(Ppm(500_000)),
            share: None,
        })
}

proptest! {
    #[test]
    fn a_bucket_never_gives_more_than_its_burst_and_what_came_back(
        quota in any_quota(), asks in prop::collection::vec((0..60_u64, prop_oneof![0..5_u64, 0..2_000_000_000_u64]), 1..60),
    ) {
        let (mut bucket, mut now, mut given) = (Bucket::default(), 1_000_u64, 0_u128);
        for (cells, gap) in asks {
            now += gap;
            let at = Timestamp::from_nanos(now);
            if quota.check(bucket, cells, at).is_ok() {
                bucket = quota.charge(bucket, cells, at);
                given += u128::from(cells);
            }
            let back = u128::from(now - 1_000) * u128::from(quota.tokens_per_window.get()) / u128::from(quota.window.get());
            prop_assert!(given <= u128::from(quota.burst.get()) + back);
        }
    }

    #[test]
    fn a_refusal_ends_exactly_when_it_says(
        quota in any_quota(), used in 0..200_u64, cells in 0..60_u64, gap in prop_oneof![0..5_u64, 0..2_000_000_000_u64],
    ) {
        let start = Timestamp::from_nanos(1_000);
        let bucket = quota.charge(Bucket::default(), used, start);
        let now = 1_000 + gap;
        match quota.check(bucket, cells, Timestamp::from_nanos(now)) {
            Ok(()) => {}
            Err(NotNow::ExceedsBurst) => prop_assert!(cells > quota.burst.get()),
            Err(NotNow::Wait(wait)) => {
                let end = now + u64::try_from(wait.as_nanos()).unwrap();
                prop_assert!(end > now);
                prop_assert_eq!(quota.check(bucket, cells, Timestamp::from_nanos(end)), Ok(()));
                prop_assert!(quota.check(bucket, cells, Timestamp::from_nanos(end - 1)).is_err());
            }
        }
    }

    #[test]
    fn what_is_taken_and_settled_leaves_what_was_used(
        quota in any_quota(), held in 0..60_u64, used in 0..60_u64, before in 0..60_u64,
    ) {
        let now = Timestamp::from_nanos(1_000);
        let bucket = quota.charge(Bucket::default(), before, now);
        let settled = quota.settle(quota.charge(bucket, held, now), held, used, now, now);
        prop_assert_eq!(settled, quota.charge(bucket, used, now));
    }
}

proptest! {
    #[test]
    fn late_settlements_never_give_a_bucket_more_than_its_burst_and_what_came_back(
        quota in any_quota(),
        asks in prop::collection::vec((0..60_u64, 0..=100_u64, any::<usize>(), prop_oneof![0..5_u64, 0..2_000_000_000_u64]), 1..60),
    ) {
        let (mut bucket, mut now, mut given) = (Bucket::default(), 1_000_u64, 0_u128);
        let mut flight: Vec<(u64, u64, Timestamp)> = Vec::new();
        for (cells, share, at, gap) in asks {
            now += gap;
            let time = Timestamp::from_nanos(now);
            if quota.check(bucket, cells, time).is_ok() {
                bucket = quota.charge(bucket, cells, time);
                given += u128::from(cells);
                flight.push((cells, cells * share / 100, time));
            }
            if share % 2 == 0 && !flight.is_empty() {
                let (held, used, taken) = flight.swap_remove(at % flight.len());
                bucket = quota.settle(bucket, held, used, taken, time);
                given -= u128::from(held - used);
            }
            let back = u128::from(now - 1_000) * u128::from(quota.tokens_per_window.get()) / u128::from(quota.window.get());
            prop_assert!(given <= u128::from(quota.burst.get()) + back);
        }
    }
}
