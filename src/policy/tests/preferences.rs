use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn names(names: &[&str]) -> Option<Vec<String>> {
    Some(names.iter().map(|&name| name.to_owned()).collect())
}

/// A budget of 1,000 tokens, with these tiers allowed and this floor.
fn preferring(tiers: Option<&[&str]>, floor: Option<&str>) -> Limits {
    let preferences = Preferences {
        tiers: tiers.and_then(names),
        floor: floor.map(str::to_owned),
        below: Vec::new(),
    };
    Limits {
        preferences,
        ..budget(1_000, Unit::Tokens)
    }
}

const LOW: Option<Reason> = Some(Reason::BudgetLow);
const PREFERRED: Option<Reason> = Some(Reason::TierPreference);

#[test]
fn a_request_goes_to_the_nearest_tier_that_is_allowed() {
    let no_middle = Some(&["default", "compact"][..]);
    let no_top = Some(&["standard", "compact"][..]);
    let top = Some(&["default"][..]);
    let compact = Some(&["compact"][..]);
    for (tiers, floor, asked, used, expected) in [
        // What is not allowed is passed over in favour of the next better one.
        (no_middle, None, 0, 0, (0, None)),
        (no_middle, None, 0, 600, (0, PREFERRED)),
        (no_middle, None, 0, 900, (2, LOW)),
        (top, None, 0, 900, (0, PREFERRED)),
        // Where no better tier is allowed, the request goes down.
        (no_top, None, 0, 0, (1, PREFERRED)),
        (no_top, None, 0, 600, (1, LOW)),
        (no_top, None, 0, 900, (2, LOW)),
        (compact, None, 0, 0, (2, PREFERRED)),
        (compact, None, 0, 600, (2, PREFERRED)),
        (compact, None, 0, 900, (2, LOW)),
        (no_middle, None, 1, 0, (2, PREFERRED)),
        // Never up: a request below all allowed tiers keeps its tier.
        (top, None, 1, 0, (1, PREFERRED)),
        (no_top, None, 2, 900, (2, None)),
        (top, None, 2, 900, (2, PREFERRED)),
        // No request goes below the floor.
        (None, Some("standard"), 0, 900, (1, LOW)),
        (None, Some("default"), 0, 900, (0, PREFERRED)),
        (None, Some("default"), 0, 0, (0, None)),
        (None, Some("standard"), 2, 900, (2, None)),
        (None, Some("nowhere"), 0, 900, (2, LOW)),
        (no_top, Some("standard"), 0, 900, (1, LOW)),
    ] {
        let limits = preferring(tiers, floor);
        let served = tier(&limits, asked, &spent(used));
        assert_eq!(
            served, expected,
            "{tiers:?} {floor:?} asked {asked} spent {used}"
        );
    }
}

#[test]
fn the_tenants_last_tier_is_where_its_overdraft_serves() {
    let degrade = OnExhausted::Degrade {
        overdraft: Ppm(100_000),
    };
    for (tiers, floor, last) in [
        (None, Some("standard"), 1),
        (Some(&["default", "standard"][..]), None, 1),
        (Some(&["default"][..]), None, 0),
        (None, None, 2),
    ] {
        let limits = Limits {
            on_exhausted: degrade,
            ..preferring(tiers, floor)
        };
        let served = tier(&limits, 0, &spent(1_050));
        assert_eq!(served, (last, Some(Reason::BudgetExhausted)), "{tiers:?}");
        let refused = decision(&limits, 0, 51, &spent(1_050));
        assert!(matches!(refused, Decision::Refuse { .. }));
    }
}

#[test]
fn a_request_that_costs_too_much_goes_no_lower_than_its_floor() {
    let limits = Limits {
        low_water_mark: Some(Ppm(1)),
        budget: budget(1_000, Unit::UsdMicros).budget,
        ..preferring(None, Some("standard"))
    };
    let admitted = |cost| match decision(&limits, 0, cost, &spent(0)) {
        Decision::Admit { tier, .. } => Some(tier),
        Decision::Refuse { .. } => None,
    };
    assert_eq!(admitted(251), Some(1));
    assert_eq!(admitted(501), None);
}

#[test]
fn never_downgrade_goes_before_all_preferences() {
    let limits = Limits {
        never_downgrade: true,
        ..preferring(Some(&["compact"]), Some("compact"))
    };
    assert_eq!(tier(&limits, 0, &spent(900)), (0, None));
}

/// As [`tier`], for a request that these tiers cannot serve.
fn tier_of_unfit(limits: &Limits, unfit: &[usize], record: &Record) -> (usize, Option<Reason>) {
    let ladder = ladder();
    let mut request = request(&ladder, 0, 1);
    request.scope.unfit = unfit.iter().copied().collect();
    request.scope.reason = Some(Reason::Unsupported);
    match decide(limits, &request, record, NOW) {
        Decision::Admit { tier, reason, .. } => (tier, reason),
        Decision::Refuse { refusal, .. } => panic!("refused: {refusal:?}"),
    }
}

#[test]
fn a_request_that_no_allowed_tier_can_serve_keeps_its_model() {
    let unsupported = Some(Reason::Unsupported);
    let compact = Some(&["compact"][..]);
    for (tiers, unfit, used, expected) in [
        (compact, &[2][..], 0, (0, unsupported)),
        (compact, &[2], 900, (0, unsupported)),
        (compact, &[1], 0, (2, PREFERRED)),
        (Some(&["standard", "compact"][..]), &[1], 0, (2, PREFERRED)),
        (
            Some(&["default", "compact"][..]),
            &[2],
            900,
            (0, unsupported),
        ),
        (Some(&["default", "compact"][..]), &[2], 600, (0, PREFERRED)),
        (None, &[2], 900, (1, LOW)),
        (None, &[1, 2], 900, (0, unsupported)),
    ] {
        let served = tier_of_unfit(&preferring(tiers, None), unfit, &spent(used));
        assert_eq!(
            served, expected,
            "{tiers:?} without {unfit:?}, spent {used}"
        );
    }
}

#[test]
fn a_tenants_own_marks_take_the_place_of_the_tiers() {
    let own = [("standard", 900_000), ("elsewhere", 990_000)];
    let mut limits = preferring(None, None);
    limits.preferences.below = own
        .iter()
        .map(|&(name, below)| (name.to_owned(), Ppm(below)))
        .collect();
    for (used, expected) in [(100, 0), (101, 1), (800, 1), (801, 2)] {
        assert_eq!(tier(&limits, 0, &spent(used)).0, expected, "{used} spent");
    }
    limits
        .preferences
        .below
        .push(("compact".to_owned(), Ppm(100_000)));
    assert_eq!(tier(&limits, 0, &spent(900)).0, 1);
    assert_eq!(tier(&limits, 0, &spent(901)).0, 2);
}
