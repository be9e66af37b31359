use super::*;
use crate::limits::pace::{Burn, Pace};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// The limit, if any, by which a request of this cost is served at a lower tier than it requested.
fn by(limits: &Limits, books: &[Book<'_>], cost: u64, record: &Record) -> Option<LoweredBy> {
    let ladder = ladder();
    let mut request = request(&ladder, 0, cost);
    request.conditions.books = books;
    match decide(limits, &request, record, NOW) {
        Decision::Admit { tier, reason, .. } => {
            lowered_by(limits, &request, tier, reason?, record, NOW)
        }
        Decision::Refuse { refusal, .. } => panic!("refused: {refusal:?}"),
    }
}

fn own(limit: usize, mark: Option<u64>) -> Option<LoweredBy> {
    let limit = LimitIndex {
        payer: Payer::Tenant,
        book: None,
        limit,
    };
    let mark = mark.map(Ppm);
    Some(LoweredBy { limit, mark })
}

#[test]
fn a_mark_is_of_the_budget_that_crossed_it() {
    let limits = budget(1_000, Unit::Tokens);
    for (used, expected) in [
        (500, None),
        (501, own(Limits::BUDGET, Some(500_000))),
        (801, own(Limits::BUDGET, Some(200_000))),
    ] {
        assert_eq!(by(&limits, &[], 1, &spent(used)), expected, "{used}");
    }
}

#[test]
fn a_pace_is_of_the_budget_that_would_not_last() {
    let half_life = NonZeroU64::new(3_600_000_000_000).unwrap();
    let cap = Ppm(900_000);
    let limits = Limits {
        pace: Some(Pace { cap, half_life }),
        ..budget(1_000_000, Unit::Tokens)
    };
    let burn = Burn {
        since: NOW,
        levels: vec![tokens(1_000_000_000_000 / 6 / 693_147)],
    };
    let record = Record {
        burn,
        ..spent(300_000)
    };
    let expected = own(Limits::BUDGET, Some(500_000));
    assert_eq!(by(&limits, &[], 1, &record), expected);
}

#[test]
fn a_bucket_lowers_by_its_own_mark() {
    let quota = Quota {
        tokens_per_window: NonZeroU64::new(100).unwrap(),
        window: NonZeroU64::new(60_000_000_000).unwrap(),
        burst: NonZeroU64::new(100).unwrap(),
        low_water_mark: Some(Ppm(250_000)),
        share: None,
    };
    let limits = Limits {
        bucket: Some(quota),
        ..Limits::default()
    };
    let record = Record {
        bucket: quota.charge(Bucket::default(), 80, NOW),
        ..Record::default()
    };
    let expected = own(Limits::BUCKET, Some(250_000));
    assert_eq!(by(&limits, &[], 1, &record), expected);
}

/// In dollars the second tier costs half: it has room where the first tier has none.
#[test]
fn what_has_no_room_higher_up_lowers_without_a_mark() {
    let limits = budget(1_000, Unit::UsdMicros);
    let expected = own(Limits::BUDGET, None);
    assert_eq!(by(&limits, &[], 300, &spent(100)), expected);
}

#[test]
fn an_overdraft_is_of_the_budget_that_is_spent() {
    let limits = Limits {
        on_exhausted: OnExhausted::Degrade {
            overdraft: Ppm(100_000),
        },
        ..budget(1_000, Unit::Tokens)
    };
    let expected = own(Limits::BUDGET, None);
    assert_eq!(by(&limits, &[], 50, &spent(1_000)), expected);
}

#[test]
fn another_payers_budget_is_found_in_its_book() {
    let (limits, users) = (budget(1_000, Unit::Tokens), budget(100, Unit::Tokens));
    let record = spent(90);
    for payer in [Payer::Subject, Payer::Parent] {
        let book = Book {
            payer,
            limits: &users,
            record: &record,
            child: None,
            looks_on: false,
        };
        let lowered = by(&limits, &[book], 1, &spent(501)).unwrap();
        assert_eq!(lowered.limit.book, Some(0));
        assert_eq!(lowered.limit.payer, payer);
        assert_eq!(lowered.mark, Some(Ppm(200_000)));
        assert!(lowered.limit.name(&limits, &[book]).is_some());
    }
}

/// Whenever a limit lowers a request, that limit is found again.
#[test]
fn every_reason_of_a_limit_has_its_limit() {
    for used in 0..1_000 {
        for cost in [0, 1, 10, 50, 100, 200] {
            for unit in [Unit::Tokens, Unit::UsdMicros] {
                let limits = Limits {
                    on_exhausted: OnExhausted::Degrade {
                        overdraft: Ppm(900_000),
                    },
                    ..budget(1_000, unit)
                };
                let served = match decision(&limits, 0, cost, &spent(used)) {
                    Decision::Admit { reason, .. } => reason,
                    Decision::Refuse { .. } => continue,
                };
                let found = by(&limits, &[], cost, &spent(used));
                assert_eq!(found.is_some(), served.is_some(), "{used} {cost} {unit:?}");
            }
        }
    }
}
