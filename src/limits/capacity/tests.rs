use super::*;
use std::num::NonZeroU64;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use Priority::{BestEffort, Critical, Standard};

/// A capacity of 100 cells, of which one is refilled each second: 20 are kept for critical requests, 30 more for standard ones.
fn capacity() -> Capacity {
    let tokens = NonZeroU64::new(100).unwrap();
    Capacity {
        quota: Quota {
            tokens_per_window: tokens,
            window: NonZeroU64::new(100_000_000_000).unwrap(),
            burst: tokens,
            low_water_mark: None,
            share: None,
        },
        critical: 20,
        standard: 30,
    }
}

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(1_000_000 + secs)
}

fn after(charges: &[(Priority, u64)]) -> Taken {
    let charge = |taken, &(priority, cells)| capacity().charge(taken, priority, cells, at(0));
    charges.iter().fold(Taken::default(), charge)
}

fn available(taken: Taken, secs: u64) -> [u64; 3] {
    [BestEffort, Standard, Critical].map(|priority| capacity().available(taken, priority, at(secs)))
}

fn wait(secs: u64) -> Result<(), NotNow> {
    Err(NotNow::Wait(Duration::from_secs(secs)))
}

#[test]
fn each_priority_leaves_the_part_above_it_whole() {
    assert_eq!(available(Taken::default(), 0), [50, 80, 100]);
    assert_eq!(available(after(&[(BestEffort, 50)]), 0), [0, 30, 50]);
    assert_eq!(available(after(&[(Standard, 80)]), 0), [0, 0, 20]);
    assert_eq!(available(after(&[(Critical, 90)]), 0), [0, 0, 10]);
}

#[test]
fn who_is_refused_is_told_when_its_own_part_has_come_back() {
    let check = |taken, priority, cells, secs| {
        let taken = after(taken);
        capacity().check(taken, priority, cells, at(secs))
    };
    for (taken, priority, cells, expected) in [
        (&[(BestEffort, 50)][..], Critical, 50, Ok(())),
        (&[(BestEffort, 50)], Standard, 30, Ok(())),
        (&[(BestEffort, 50)], Standard, 31, wait(1)),
        (&[(BestEffort, 50)], BestEffort, 10, wait(10)),
        (&[(Critical, 100)], BestEffort, 10, wait(60)),
        (&[(Critical, 100)], Standard, 10, wait(30)),
        (&[(Critical, 100)], Critical, 10, wait(10)),
        (&[], BestEffort, 51, Err(NotNow::ExceedsBurst)),
        (&[], Standard, 81, Err(NotNow::ExceedsBurst)),
        (&[], Critical, 101, Err(NotNow::ExceedsBurst)),
        (&[], Critical, u64::MAX, Err(NotNow::ExceedsBurst)),
    ] {
        assert_eq!(check(taken, priority, cells, 0), expected, "{taken:?}");
        if let Err(NotNow::Wait(wait)) = expected {
            let secs = wait.as_secs();
            assert_eq!(check(taken, priority, cells, secs), Ok(()), "{taken:?}");
        }
    }
}

#[test]
fn what_lower_ones_use_beyond_their_part_higher_ones_do_not_feel() {
    // Ten were taken and 90 used: 40 more than best-effort requests may have.
    let taken = after(&[(BestEffort, 10)]);
    let taken = capacity().settle(taken, BestEffort, 10, 90, at(0), at(0));
    assert_eq!(available(taken, 0), [0, 30, 50]);
    // Higher priorities take their cells, and the refill goes to them first ...
    let taken = capacity().charge(taken, Critical, 50, at(0));
    assert_eq!(available(taken, 0), [0, 0, 0]);
    assert_eq!(available(taken, 49), [0, 29, 49]);
    // ... then the debt is paid, and only then do lower priorities get cells again.
    assert_eq!(available(taken, 50), [0, 30, 50]);
    assert_eq!(available(taken, 90), [0, 30, 50]);
    assert_eq!(available(taken, 91), [1, 31, 51]);
    assert_eq!(available(taken, 140), [50, 80, 100]);
    let check = |priority, cells| capacity().check(taken, priority, cells, at(0));
    assert_eq!(check(Critical, 50), wait(50));
    assert_eq!(check(Critical, 51), wait(91));
    assert_eq!(check(Standard, 30), wait(50));
    assert_eq!(check(BestEffort, 1), wait(91));
}

#[test]
fn a_standard_debt_is_paid_before_a_best_effort_one() {
    let taken = after(&[(BestEffort, 60), (Standard, 50)]);
    // 110 of 100 cells are used: the 50 of standard requests leave ten less than the part for critical requests.
    assert_eq!((taken.standard_debt, taken.best_effort_debt), (20, 10));
    assert_eq!(available(taken, 0), [0, 0, 20]);
    assert_eq!(available(taken, 20), [0, 0, 20]);
    assert_eq!(available(taken, 21), [0, 1, 21]);
    assert_eq!(available(taken, 60), [0, 30, 50]);
    assert_eq!(available(taken, 61), [1, 31, 51]);
}

#[test]
fn settlement_puts_what_was_used_in_the_place_of_what_was_taken() {
    let taken = after(&[(Standard, 60), (Critical, 10)]);
    let settled = capacity().settle(taken, Standard, 60, 15, at(0), at(0));
    assert_eq!(settled, after(&[(Standard, 15), (Critical, 10)]));
    // The request failed upstream, and nothing was used.
    let settled = capacity().settle(settled, Critical, 10, 0, at(0), at(0));
    assert_eq!(settled, after(&[(Standard, 15)]));
    // Nothing was taken, but something was used.
    let settled = capacity().settle(settled, BestEffort, 0, 20, at(0), at(0));
    assert_eq!(available(settled, 0), [15, 45, 65]);
}

#[test]
fn an_absurd_report_shuts_nobody_out_for_longer_than_a_refill() {
    for priority in [BestEffort, Standard, Critical] {
        let taken = after(&[(priority, 10)]);
        let taken = capacity().settle(taken, priority, 10, u64::MAX, at(0), at(0));
        assert_eq!(available(taken, 100), [50, 80, 100]);
    }
}

// At any time a limit may be raised, or lowered below what is spent. Whatever is edited or renamed in the configuration, what was spent
// stays.
#[test]
fn another_capacity_or_other_parts_count_what_was_taken() {
    let taken = after(&[(BestEffort, 50)]);
    let parts = Capacity {
        critical: 60,
        standard: 0,
        ..capacity()
    };
    assert_eq!(parts.available(taken, Critical, at(0)), 50);
    assert_eq!(parts.available(taken, Standard, at(0)), 0);
    let quota = Quota {
        burst: NonZeroU64::new(1_000).unwrap(),
        ..capacity().quota
    };
    let more = Capacity {
        quota,
        ..capacity()
    };
    assert_eq!(more.available(taken, BestEffort, at(0)), 900);
}

// A value under our key may be older, truncated, or another plugin's.
#[test]
fn other_bytes_are_none_of_ours() {
    let taken = after(&[(BestEffort, 60), (Standard, 50)]);
    let bytes = taken.encode();
    assert_eq!(bytes.len(), 44);
    assert_eq!(Taken::decode(&bytes), Ok(taken));
    for wrong in [&bytes[..43], &[&bytes[..], b"x"].concat(), b"", b"brs\x01"] {
        assert_eq!(Taken::decode(wrong), Err(Corrupt(())));
    }
}
