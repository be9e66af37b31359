use super::*;
use crate::tier::TierSet;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const LOW: Option<Reason> = Some(Reason::BudgetLow);
const LATE: Option<Reason> = Some(Reason::Sla);
const PREFERRED: Option<Reason> = Some(Reason::TierPreference);

/// Tier and reason of a request while the tiers in the first list are slow and those in the second cannot serve it.
fn tier_of(
    limits: &Limits,
    asked: usize,
    slow: TierSet,
    unfit: TierSet,
    record: &Record,
) -> (usize, Option<Reason>) {
    let ladder = ladder();
    let mut request = request(&ladder, asked, 1);
    (request.scope.unfit, request.conditions.slow) = (unfit, slow);
    request.scope.reason = Some(Reason::Unsupported);
    match decide(limits, &request, record, NOW) {
        Decision::Admit { tier, reason, .. } => (tier, reason),
        Decision::Refuse { refusal, .. } => panic!("refused: {refusal:?}"),
    }
}

fn set(tiers: &[usize]) -> TierSet {
    tiers.iter().copied().collect()
}

fn allowing(tiers: &[&str]) -> Limits {
    let mut limits = budget(1_000, Unit::Tokens);
    limits.preferences.tiers = Some(tiers.iter().map(|&name| name.to_owned()).collect());
    limits
}

#[test]
fn a_slow_tier_is_left_for_the_next_one_that_is_not_if_there_is_one() {
    let all = &["default", "standard", "compact"][..];
    let no_middle = &["default", "compact"][..];
    for (tiers, asked, slow, unfit, used, expected) in [
        (all, 0, &[][..], &[][..], 0, (0, None)),
        (all, 0, &[0], &[], 0, (1, LATE)),
        (all, 0, &[1, 2], &[], 0, (0, None)),
        (all, 0, &[0, 1], &[], 0, (2, LATE)),
        // No tier is better: the request stays where it would have been.
        (all, 0, &[0, 1, 2], &[], 0, (0, None)),
        (all, 0, &[1, 2], &[], 600, (1, LOW)),
        (all, 2, &[2], &[], 0, (2, None)),
        // Never up.
        (all, 1, &[1], &[], 0, (2, LATE)),
        (all, 1, &[1, 2], &[], 0, (1, None)),
        // The SLA starts from the tier that the mark gives.
        (all, 0, &[0], &[], 600, (1, LOW)),
        (all, 0, &[1], &[], 600, (2, LATE)),
        (all, 0, &[0, 1], &[], 900, (2, LOW)),
        // Only to tiers that are allowed and that can serve it.
        (no_middle, 0, &[0], &[], 0, (2, LATE)),
        (no_middle, 0, &[0], &[2], 0, (0, None)),
        (no_middle, 0, &[0], &[], 600, (2, LATE)),
        (no_middle, 0, &[0, 2], &[], 600, (0, PREFERRED)),
        (all, 0, &[0], &[1], 0, (2, LATE)),
        (all, 0, &[0], &[1, 2], 900, (0, Some(Reason::Unsupported))),
        (&["standard", "compact"], 0, &[1], &[], 0, (2, LATE)),
        (&["standard", "compact"], 0, &[2], &[], 0, (1, PREFERRED)),
    ] {
        let served = tier_of(&allowing(tiers), asked, set(slow), set(unfit), &spent(used));
        assert_eq!(
            served, expected,
            "{tiers:?} asked {asked}, {slow:?} slow, without {unfit:?}, {used} spent"
        );
    }
}

#[test]
fn what_the_budget_cannot_hold_goes_further_down_whatever_is_slow() {
    let limits = budget(1_000, Unit::UsdMicros);
    // The tiers cost 4, 2 and 1 micros a token, and 3 are left.
    let record = spent(997);
    for (slow, expected) in [(&[][..], (2, LOW)), (&[2], (2, LOW)), (&[0, 1], (2, LOW))] {
        let served = tier_of(&limits, 0, set(slow), TierSet::NONE, &record);
        assert_eq!(served, expected, "{slow:?}");
    }
}

#[test]
fn slow_tiers_never_move_a_request_up_nor_one_that_must_not_be_moved() {
    let never = Limits {
        never_downgrade: true,
        ..budget(1_000, Unit::Tokens)
    };
    let usual = budget(1_000, Unit::Tokens);
    for bits in 0..8_usize {
        let slow: TierSet = (0..3).filter(|tier| bits >> tier & 1 == 1).collect();
        for asked in 0..3 {
            for used in [0, 600, 900] {
                let without = tier_of(&usual, asked, TierSet::NONE, TierSet::NONE, &spent(used));
                let with = tier_of(&usual, asked, slow, TierSet::NONE, &spent(used));
                assert!(with.0 >= without.0);
                let is_moved = with.0 > without.0;
                assert_eq!(is_moved, with.1 == LATE);
                let is_late = slow.has(without.0);
                let is_better = (without.0..3).any(|tier| !slow.has(tier));
                assert_eq!(is_moved, is_late && is_better);
                assert!(!is_moved || !slow.has(with.0));
                let kept = tier_of(&never, asked, slow, TierSet::NONE, &spent(used));
                assert_eq!(kept, (asked, None));
            }
        }
    }
}
