use super::*;
use crate::limits::capacity::{Capacity, Headroom, Taken};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// The headroom of 100 cells, of which one is refilled each second, none is kept for a priority, and `used` are taken.
fn room(used: u64) -> Option<Headroom> {
    let tokens = NonZeroU64::new(100).unwrap();
    let capacity = Capacity {
        quota: Quota {
            tokens_per_window: tokens,
            window: NonZeroU64::new(100_000_000_000).unwrap(),
            burst: tokens,
            low_water_mark: None,
            share: None,
        },
        critical: 0,
        standard: 0,
    };
    Some(Headroom {
        capacity,
        taken: capacity.charge(Taken::default(), Priority::Standard, used, NOW),
        priority: Priority::Standard,
        refused: None,
    })
}

/// Decides about a request for the `asked`-th tier that may cost `cost` tokens, at tiers where this much is taken.
fn decision(
    limits: &Limits,
    asked: usize,
    cost: u64,
    record: &Record,
    taken: [Option<u64>; 3],
) -> Decision {
    let ladder = ladder();
    let rooms = taken.map(|taken| taken.and_then(room));
    let mut request = request(&ladder, asked, cost);
    request.conditions.rooms = &rooms;
    decide(limits, &request, record, NOW)
}

fn full(secs: u64) -> Refusal {
    Refusal::TierCapacity(Some(Duration::from_secs(secs)))
}

const LOW: Option<Reason> = Some(Reason::BudgetLow);
const TAKEN: Option<Reason> = Some(Reason::TierCapacity);

#[test]
fn a_full_tier_sends_the_request_one_down_if_that_is_allowed() {
    let plain = Limits::default();
    let budget = budget(1_000, Unit::Tokens);
    let never = Limits {
        never_downgrade: true,
        ..Limits::default()
    };
    let floor = Limits {
        preferences: Preferences {
            floor: Some("standard".to_owned()),
            ..Preferences::default()
        },
        ..Limits::default()
    };
    let skip = Limits {
        preferences: Preferences {
            tiers: Some(vec!["default".to_owned(), "compact".to_owned()]),
            ..Preferences::default()
        },
        ..Limits::default()
    };
    // Limits, requested tier, tokens spent, what is taken of each tier, and where ten tokens are served or why they are not.
    for (limits, asked, used, taken, expected) in [
        (
            &plain,
            0,
            0,
            [Some(90), Some(100), Some(100)],
            Ok((0, None)),
        ),
        (
            &plain,
            0,
            0,
            [Some(91), Some(90), Some(100)],
            Ok((1, TAKEN)),
        ),
        (&plain, 0, 0, [Some(91), None, Some(0)], Ok((1, TAKEN))),
        (&plain, 0, 0, [Some(91), Some(91), Some(0)], Ok((2, TAKEN))),
        (&plain, 1, 0, [Some(0), Some(91), Some(0)], Ok((2, TAKEN))),
        // Never up, and never below what is allowed.
        (
            &plain,
            2,
            0,
            [Some(0), Some(0), Some(95)],
            Err((2, full(5))),
        ),
        (
            &never,
            0,
            0,
            [Some(95), Some(0), Some(0)],
            Err((0, full(5))),
        ),
        (
            &floor,
            0,
            0,
            [Some(95), Some(97), Some(0)],
            Err((0, full(5))),
        ),
        (&skip, 0, 0, [Some(95), Some(0), Some(90)], Ok((2, TAKEN))),
        // The tier that has room first is reported; of two, the better one.
        (
            &plain,
            0,
            0,
            [Some(97), Some(93), Some(99)],
            Err((1, full(3))),
        ),
        (
            &plain,
            0,
            0,
            [Some(97), Some(97), Some(97)],
            Err((0, full(7))),
        ),
        // The budget comes first, and its reason is reported if it decided the tier.
        (&budget, 0, 600, [Some(0), Some(90), Some(0)], Ok((1, LOW))),
        (
            &budget,
            0,
            600,
            [Some(0), Some(91), Some(90)],
            Ok((2, TAKEN)),
        ),
        (
            &budget,
            0,
            900,
            [Some(0), Some(0), Some(95)],
            Err((2, full(5))),
        ),
    ] {
        let told = match decision(limits, asked, 10, &spent(used), taken) {
            Decision::Admit { tier, reason, .. } => Ok((tier, reason)),
            Decision::Refuse { tier, refusal, .. } => Err((tier, refusal)),
        };
        assert_eq!(told, expected, "asked {asked} spent {used} taken {taken:?}");
    }
}

#[test]
fn what_no_capacity_can_ever_have_is_told_apart() {
    let limits = Limits::default();
    let refusal = |taken| match decision(&limits, 0, 101, &spent(0), taken) {
        Decision::Admit { tier, .. } => Err(tier),
        Decision::Refuse { refusal, .. } => Ok(refusal),
    };
    let never = Refusal::TierCapacity(None);
    assert_eq!(refusal([Some(0), Some(0), Some(0)]), Ok(never));
    assert_eq!(refusal([Some(0), None, Some(0)]), Err(1));
}

#[test]
fn where_nobody_can_the_overdraft_and_a_shorter_answer_need_capacity_too() {
    let shorter = Limits {
        min_output_tokens: Some(5),
        ..budget(1_000, Unit::Tokens)
    };
    let degrade = Limits {
        on_exhausted: OnExhausted::Degrade {
            overdraft: Ppm(100_000),
        },
        ..budget(1_000, Unit::Tokens)
    };
    let ladder = ladder();
    let served = |limits: &Limits, used, taken| {
        let rooms = [room(100), room(100), room(taken)];
        let request = Request {
            model: "model-default",
            place: Some(LadderPlace {
                ladder: &ladder,
                asked: 0,
            }),
            estimate: output(20),
            unlisted_price: None,
            scope: Scope {
                least_output: Some(1),
                ..Scope::default()
            },
            conditions: Conditions {
                rooms: &rooms,
                ..Conditions::default()
            },
        };
        match decide(limits, &request, &spent(used), NOW) {
            Decision::Admit { tier, reason, .. } => Ok((tier, reason)),
            Decision::Refuse { tier, refusal, .. } => Err((tier, refusal)),
        }
    };
    let overdrawn = Some(Reason::BudgetExhausted);
    assert_eq!(served(&shorter, 994, 94), Ok((2, LOW)));
    assert_eq!(served(&shorter, 994, 95), Err((2, full(1))));
    assert_eq!(served(&degrade, 1_000, 80), Ok((2, overdrawn)));
    assert_eq!(served(&degrade, 1_000, 81), Err((2, full(1))));
    // Both refuse: the budget until the window's end, which is longer than a second.
    let end = Refusal::BudgetExhausted(Some(Duration::from_secs(43_200)));
    assert_eq!(served(&degrade, 1_100, 81), Err((2, end)));
}

#[test]
fn rather_than_to_be_refused_it_goes_back_to_a_slow_tier() {
    let ladder = ladder();
    let slow: TierSet = [0, 1].into_iter().collect();
    for (taken, expected) in [
        ([95, 95, 90], Ok((2, Some(Reason::Sla)))),
        ([90, 0, 95], Ok((0, None))),
        ([95, 90, 95], Ok((1, TAKEN))),
        ([95, 95, 95], Err((2, full(5)))),
        ([96, 93, 95], Err((1, full(3)))),
    ] {
        let rooms = taken.map(room);
        let request = Request {
            model: "model-default",
            place: Some(LadderPlace {
                ladder: &ladder,
                asked: 0,
            }),
            estimate: output(10),
            unlisted_price: None,
            scope: Scope::default(),
            conditions: Conditions {
                rooms: &rooms,
                slow,
                ..Conditions::default()
            },
        };
        let told = match decide(&Limits::default(), &request, &spent(0), NOW) {
            Decision::Admit { tier, reason, .. } => Ok((tier, reason)),
            Decision::Refuse { tier, refusal, .. } => Err((tier, refusal)),
        };
        assert_eq!(told, expected, "{taken:?}");
    }
}

#[test]
fn of_two_waits_the_longer_is_told() {
    let tokens = NonZeroU64::new(100).unwrap();
    let limits = Limits {
        bucket: Some(Quota {
            tokens_per_window: tokens,
            window: NonZeroU64::new(100_000_000_000).unwrap(),
            burst: tokens,
            low_water_mark: None,
            share: None,
        }),
        ..Limits::default()
    };
    for (in_bucket, at_tiers, expected) in [
        (95, 97, full(7)),
        (97, 95, Refusal::BucketEmpty(Duration::from_secs(7))),
        (97, 97, Refusal::BucketEmpty(Duration::from_secs(7))),
        (97, 0, Refusal::BucketEmpty(Duration::from_secs(7))),
    ] {
        let record = Record {
            bucket: Bucket {
                used: in_bucket,
                since: NOW,
                full: NOW,
                ..Bucket::default()
            },
            ..Record::default()
        };
        let told = match decision(&limits, 0, 10, &record, [Some(at_tiers); 3]) {
            Decision::Admit { .. } => None,
            Decision::Refuse { refusal, .. } => Some(refusal),
        };
        assert_eq!(told, Some(expected), "{in_bucket} {at_tiers}");
    }
}

#[test]
fn a_guess_at_an_answers_length_takes_no_more_than_there_is_room_for() {
    // Answers of 16,000 tokens were seen, for which the tier can never have room; for 1,024 it can.
    let mut record = spent(0);
    let observation = crate::estimate::learn::Observation {
        prompt: None,
        answer: Some(Tokens(16_000)),
        peak: None,
    };
    for _ in 0..100 {
        record.learned.learn(
            crate::estimate::learn::Model::of("model-default"),
            observation,
            NOW,
        );
    }
    let tokens = NonZeroU64::new(2_000).unwrap();
    let capacity = Capacity {
        quota: Quota {
            tokens_per_window: tokens,
            ..room(0).unwrap().capacity.quota
        },
        ..room(0).unwrap().capacity
    };
    let capacity = Capacity {
        quota: Quota {
            burst: tokens,
            ..capacity.quota
        },
        ..capacity
    };
    let ladder = ladder();
    let cells = |taken| {
        let rooms = [Some(Headroom {
            capacity,
            taken: capacity.charge(Taken::default(), Priority::Standard, taken, NOW),
            ..room(0).unwrap()
        })];
        let request = Request {
            model: "model-default",
            place: Some(LadderPlace {
                ladder: &ladder,
                asked: 0,
            }),
            estimate: Estimate {
                output_limit: None,
                ..output(0)
            },
            unlisted_price: None,
            scope: Scope::default(),
            conditions: Conditions {
                rooms: &rooms,
                ..Conditions::default()
            },
        };
        match decide(&Limits::default(), &request, &record, NOW) {
            Decision::Admit { tier, estimate, .. } => (tier, estimate.cells()),
            Decision::Refuse { .. } => panic!("the lower tiers have no capacity"),
        }
    };
    assert_eq!(cells(0), (0, 2_000));
    assert_eq!(cells(900), (0, 1_100));
    assert_eq!(cells(976), (0, 1_024));
    // No answers of the next tier were seen yet.
    assert_eq!(cells(977), (1, 1_024));
}
