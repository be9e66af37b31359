mod capacity;
mod lowered;
mod marks;
mod order;
mod preferences;
mod sla;

use std::num::NonZeroU64;
use std::time::Duration;

use super::*;
use crate::base::units::{Cost, Micros, Ppm, Tokens, Unit};
use crate::calendar::window::Period;
use crate::estimate::Estimate;
use crate::estimate::learn::BytesPerToken;
use crate::lease::quota::Quota;
use crate::limits::account::Account;
use crate::limits::bucket::Bucket;
use crate::limits::budget::{Budget, tokens};
use crate::limits::capacity::Priority;
use crate::plan::{OnExhausted, Preferences, Sticky};
use crate::tier::{Ladder, LadderPlace, Needs, Price, Rates, Tier};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const NOW: Timestamp = Timestamp::from_secs(1_709_208_000);

/// A ladder of three tiers: default, standard below 0.5, and compact below 0.2. A token costs 4, 2 and 1 micros there.
fn ladder() -> Ladder {
    let tier = |name: &str, below: Option<u64>, price: u64| Tier {
        name: name.into(),
        model: format!("model-{name}").into(),
        price: Some(Price::from(Rates {
            input: price * 1_000_000,
            output: price * 1_000_000,
            ..Rates::default()
        })),
        below: below.map(Ppm),
        supports: Needs::USUAL,
        context_window: None,
        asks_usage: true,
        max_output_tokens: None,
        trims_to: None,
        capacity: None,
        own_credentials: false,
    };
    Ladder {
        matches: Vec::new(),
        tiers: vec![
            tier("default", None, 4),
            tier("standard", Some(500_000), 2),
            tier("compact", Some(200_000), 1),
        ],
    }
}

fn day(initial_budget: u64) -> Budget {
    Budget {
        initial_budget,
        unit: Unit::Tokens,
        period: Period::Day,
        reservation_expiry: crate::limits::account::DEFAULT_EXPIRY,
        rollover: None,
        extra: None,
        share: None,
    }
}

fn budget(initial_budget: u64, unit: Unit) -> Limits {
    Limits {
        budget: Some(Budget {
            unit,
            ..day(initial_budget)
        }),
        ..Limits::default()
    }
}

fn spent(amount: u64) -> Record {
    let account = Account::default().at(&day(1), NOW);
    let spent = Cost {
        tokens: Tokens(amount),
        usd: Micros(amount),
    };
    Record {
        account: Account { spent, ..account },
        ..Record::default()
    }
}

/// An estimate without a prompt, and with this many output tokens.
fn output(tokens: u64) -> Estimate {
    Estimate {
        body_bytes: 0,
        bytes_per_token: BytesPerToken::PRIOR,
        output_limit: Some(Tokens(tokens)),
        answer: Tokens(1_024),
        choices: 1,
        weights: None,
    }
}

/// A request for the `asked`-th tier that may cost `cost` tokens.
fn request(ladder: &Ladder, asked: usize, cost: u64) -> Request<'_> {
    Request {
        model: "model-default",
        place: Some(LadderPlace { ladder, asked }),
        estimate: output(cost),
        unlisted_price: None,
        scope: Scope::default(),
        conditions: Conditions::default(),
    }
}

/// Decides about a request for the `asked`-th tier that may cost `cost` tokens.
fn decision(limits: &Limits, asked: usize, cost: u64, record: &Record) -> Decision {
    decide(limits, &request(&ladder(), asked, cost), record, NOW)
}

/// Tier and reason of an admission.
fn tier(limits: &Limits, asked: usize, record: &Record) -> (usize, Option<Reason>) {
    match decision(limits, asked, 1, record) {
        Decision::Admit { tier, reason, .. } => (tier, reason),
        Decision::Refuse { refusal, .. } => panic!("refused: {refusal:?}"),
    }
}

fn refusal(limits: &Limits, cost: u64, record: &Record) -> Option<Refusal> {
    match decision(limits, 0, cost, record) {
        Decision::Admit { .. } => None,
        Decision::Refuse { refusal, .. } => Some(refusal),
    }
}

#[test]
fn the_lowest_tier_whose_mark_is_crossed_serves() {
    let limits = budget(1_000, Unit::Tokens);
    let low = Some(Reason::BudgetLow);
    for (used, expected) in [
        (0, (0, None)),
        (500, (0, None)),
        (501, (1, low)),
        (800, (1, low)),
        (801, (2, low)),
        (999, (2, low)),
    ] {
        assert_eq!(tier(&limits, 0, &spent(used)), expected, "{used} spent");
    }
}

#[test]
fn what_is_held_counts_as_gone_for_the_marks() {
    let limits = budget(1_000, Unit::Tokens);
    let mut record = spent(400);
    assert_eq!(
        record.account.reserve(tokens(101), &day(1_000), NOW).cost(),
        tokens(101)
    );
    assert_eq!(tier(&limits, 0, &record).0, 1);
}

#[test]
fn a_request_never_climbs_and_tells_no_reason_for_where_it_started() {
    let limits = budget(1_000, Unit::Tokens);
    assert_eq!(tier(&limits, 2, &spent(0)), (2, None));
    assert_eq!(tier(&limits, 1, &spent(600)), (1, None));
    assert_eq!(tier(&limits, 1, &spent(900)), (2, Some(Reason::BudgetLow)));
}

#[test]
fn never_downgrade_keeps_the_tier_under_every_mark() {
    let limits = Limits {
        never_downgrade: true,
        ..budget(1_000, Unit::Tokens)
    };
    assert_eq!(tier(&limits, 0, &spent(999)), (0, None));
    assert!(matches!(
        refusal(&limits, 2, &spent(999)),
        Some(Refusal::BudgetExhausted(_))
    ));
}

#[test]
fn a_plans_own_mark_takes_the_place_of_the_last_tiers() {
    let limits = Limits {
        low_water_mark: Some(Ppm(900_000)),
        ..budget(1_000, Unit::Tokens)
    };
    assert_eq!(tier(&limits, 0, &spent(100)).0, 0);
    assert_eq!(tier(&limits, 0, &spent(101)).0, 2);
    let limits = Limits {
        low_water_mark: Some(Ppm(100_000)),
        ..budget(1_000, Unit::Tokens)
    };
    assert_eq!(tier(&limits, 0, &spent(900)).0, 1);
    assert_eq!(tier(&limits, 0, &spent(901)).0, 2);
}

fn bucket(limits: Limits) -> Limits {
    let hundred = NonZeroU64::new(100).unwrap();
    let quota = Quota {
        tokens_per_window: hundred,
        window: NonZeroU64::new(10_000_000_000).unwrap(),
        burst: hundred,
        low_water_mark: Some(Ppm(500_000)),
        share: None,
    };
    Limits {
        bucket: Some(quota),
        ..limits
    }
}

#[test]
fn an_emptying_bucket_asks_for_the_last_tier() {
    let limits = bucket(Limits::default());
    let used = |used| Record {
        bucket: Bucket {
            used,
            since: NOW,
            full: NOW,
            ..Bucket::default()
        },
        ..Record::default()
    };
    assert_eq!(tier(&limits, 0, &used(50)), (0, None));
    assert_eq!(tier(&limits, 0, &used(51)), (2, Some(Reason::BucketLow)));
    assert_eq!(tier(&limits, 2, &used(51)), (2, None));
}

#[test]
fn where_both_marks_are_crossed_the_lower_tier_wins_and_the_budget_is_told_on_a_tie() {
    let limits = bucket(budget(1_000, Unit::Tokens));
    let both = |spent_tokens| Record {
        bucket: Bucket {
            used: 60,
            since: NOW,
            full: NOW,
            ..Bucket::default()
        },
        ..spent(spent_tokens)
    };
    assert_eq!(tier(&limits, 0, &both(600)), (2, Some(Reason::BucketLow)));
    assert_eq!(tier(&limits, 0, &both(900)), (2, Some(Reason::BudgetLow)));
}

#[test]
fn a_tier_that_costs_too_much_gives_way_to_one_that_fits() {
    let limits = Limits {
        low_water_mark: Some(Ppm(1)),
        ..budget(1_000, Unit::UsdMicros)
    };
    let admitted = |cost| match decision(&limits, 0, cost, &spent(0)) {
        Decision::Admit {
            tier,
            reason,
            expected,
            ..
        } => Some((tier, reason, expected.ceiling.usd.0)),
        Decision::Refuse { .. } => None,
    };
    assert_eq!(admitted(250), Some((0, None, 1_000)));
    assert_eq!(admitted(251), Some((1, Some(Reason::BudgetLow), 502)));
    assert_eq!(admitted(1_000), Some((2, Some(Reason::BudgetLow), 1_000)));
    assert_eq!(admitted(1_001), None);
}

#[test]
fn an_overdraft_serves_at_the_last_tier_only() {
    let degrade = OnExhausted::Degrade {
        overdraft: Ppm(100_000),
    };
    let limits = Limits {
        on_exhausted: degrade,
        ..budget(1_000, Unit::Tokens)
    };
    assert_eq!(
        tier(&limits, 0, &spent(1_000)),
        (2, Some(Reason::BudgetExhausted))
    );
    assert_eq!(
        tier(&limits, 2, &spent(1_000)),
        (2, Some(Reason::BudgetExhausted))
    );
    assert_eq!(
        tier(&limits, 0, &spent(1_099)),
        (2, Some(Reason::BudgetExhausted))
    );
    assert!(matches!(
        refusal(&limits, 1, &spent(1_100)),
        Some(Refusal::BudgetExhausted(_))
    ));
    let kept = Limits {
        never_downgrade: true,
        ..limits
    };
    assert!(matches!(
        refusal(&kept, 1, &spent(1_000)),
        Some(Refusal::BudgetExhausted(_))
    ));
}

// Several limits on one request: all apply, and the strictest is reported.
#[test]
fn of_several_refusals_the_strictest_is_told() {
    let limits = bucket(budget(1_000, Unit::Tokens));
    let end = Refusal::BudgetExhausted(Some(Duration::from_secs(43_200)));
    let record = Record {
        bucket: Bucket {
            used: 100,
            since: NOW,
            full: NOW,
            ..Bucket::default()
        },
        ..spent(1_000)
    };
    assert_eq!(refusal(&limits, 10, &record), Some(end));
    assert_eq!(refusal(&limits, 101, &record), Some(Refusal::ExceedsBurst));
    let record = Record {
        bucket: record.bucket,
        ..spent(0)
    };
    assert_eq!(
        refusal(&limits, 10, &record),
        Some(Refusal::BucketEmpty(Duration::from_secs(1)))
    );
}

#[test]
fn a_refusal_names_the_tier_that_would_have_served() {
    let limits = bucket(budget(1_000, Unit::Tokens));
    let refused = |record: &Record| match decision(&limits, 0, 50, record) {
        Decision::Refuse { tier, .. } => Some(tier),
        Decision::Admit { .. } => None,
    };
    assert_eq!(
        refused(&Record {
            bucket: Bucket {
                used: 51,
                since: NOW,
                full: NOW,
                ..Bucket::default()
            },
            ..spent(0)
        }),
        Some(2)
    );
    assert_eq!(refused(&spent(951)), Some(2));
}

#[test]
fn held_is_told_apart_from_spent() {
    let limits = budget(1_000, Unit::Tokens);
    let mut record = spent(500);
    assert_eq!(
        record.account.reserve(tokens(400), &day(1_000), NOW).cost(),
        tokens(400)
    );
    assert_eq!(refusal(&limits, 100, &record), None);
    assert_eq!(refusal(&limits, 101, &record), Some(Refusal::BudgetHeld));
    assert!(matches!(
        refusal(&limits, 501, &record),
        Some(Refusal::BudgetExhausted(_))
    ));
}

#[test]
fn a_model_on_no_ladder_is_limited_but_never_changed() {
    let limits = Limits {
        on_exhausted: OnExhausted::Degrade {
            overdraft: Ppm(100_000),
        },
        ..budget(1_000, Unit::Tokens)
    };
    let request = Request {
        model: "model-default",
        place: None,
        estimate: output(1),
        unlisted_price: None,
        scope: Scope::default(),
        conditions: Conditions::default(),
    };
    let admitted = decide(&limits, &request, &spent(999), NOW);
    assert_eq!(
        admitted,
        Decision::Admit {
            tier: 0,
            reason: None,
            most_output: None,
            estimate: output(1),
            expected: tokens(1).into()
        }
    );
    assert!(matches!(
        decide(&limits, &request, &spent(1_000), NOW),
        Decision::Refuse { .. }
    ));
}

#[test]
fn even_a_request_that_costs_nothing_needs_a_budget_that_is_not_spent() {
    let limits = budget(1_000, Unit::Tokens);
    assert_eq!(refusal(&limits, 0, &spent(999)), None);
    assert!(refusal(&limits, 0, &spent(1_000)).is_some());
    assert!(spent_out(&limits, &[], &spent(1_000), NOW).is_some());
    assert_eq!(spent_out(&limits, &[], &spent(999), NOW), None);
}

#[test]
fn only_the_last_tier_is_checked_again_against_the_overdraft() {
    let limits = Limits {
        on_exhausted: OnExhausted::Degrade {
            overdraft: Ppm(100_000),
        },
        ..budget(1_000, Unit::Tokens)
    };
    let ladder = ladder();
    let listed = Some(LadderPlace {
        ladder: &ladder,
        asked: 0,
    });
    for (place, tier, used, fits) in [
        (listed, 1, 1_050, false),
        (listed, 2, 1_050, true),
        (listed, 2, 1_051, false),
        (None, 0, 1_050, false),
    ] {
        let request = Request {
            model: "model-default",
            place,
            estimate: output(50),
            unlisted_price: None,
            scope: Scope::default(),
            conditions: Conditions::default(),
        };
        let checked = recheck(&limits, &request, tier, None, &spent(used), NOW);
        assert_eq!(checked.is_ok(), fits, "{tier} {used}");
    }
}
