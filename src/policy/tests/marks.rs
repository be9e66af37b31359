use super::*;
use crate::limits::pace::{Burn, Pace};
use crate::policy::marks;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const HOUR: NonZeroU64 = NonZeroU64::new(3_600_000_000_000).unwrap();
const LOW: Option<Reason> = Some(Reason::BudgetLow);
const PACE: Option<Reason> = Some(Reason::BudgetPace);

/// A budget of 1,000,000 tokens with pace. It is noon: twelve hours are left.
fn paced() -> Limits {
    Limits {
        pace: Some(Pace {
            cap: Ppm(900_000),
            half_life: HOUR,
        }),
        ..budget(1_000_000, Unit::Tokens)
    }
}

/// An account that has spent this much, where an even rate of spending at the first two tiers would use the whole budget in this many
/// hours.
fn burning(used: u64, hours: [u64; 2]) -> Record {
    // S = r × h / ln 2.
    let level = |hours: u64| tokens(1_000_000_000_000 / hours / 693_147);
    Record {
        burn: Burn {
            since: NOW,
            levels: hours.map(level).to_vec(),
        },
        ..spent(used)
    }
}

#[test]
fn pace_moves_a_mark_by_what_the_tier_before_it_would_cost() {
    let limits = paced();
    for (used, hours, expected) in [
        // The budget lasts: the static marks apply.
        (0, [12, 12], (0, None)),
        (490_000, [40, 40], (0, None)),
        (510_000, [40, 40], (1, LOW)),
        // While nothing is spent, E / L is 1/2 and standard's mark is 0.7. The mark rises with spend, and is crossed at 0.75.
        (0, [6, 100], (0, None)),
        (200_000, [6, 100], (0, None)),
        (300_000, [6, 100], (1, PACE)),
        (510_000, [6, 100], (1, LOW)),
        // The third tier's mark rises only where the budget would not last at the second tier either.
        (300_000, [6, 6], (1, PACE)),
        (400_000, [6, 6], (2, PACE)),
        (400_000, [6, 100], (1, PACE)),
        (810_000, [6, 6], (2, LOW)),
        // Nearly everything was spent at once: the cap applies.
        (99_000, [1, 1], (0, None)),
        (150_000, [1, 1], (2, PACE)),
    ] {
        let served = tier(&limits, 0, &burning(used, hours));
        assert_eq!(served, expected, "{used} spent, lasts {hours:?} h");
    }
    // Without a history, and for a plan without pace, the marks are the static ones.
    assert_eq!(tier(&limits, 0, &spent(300_000)), (0, None));
    let without = budget(1_000_000, Unit::Tokens);
    assert_eq!(tier(&without, 0, &burning(300_000, [1, 1])), (0, None));
}

#[test]
fn pace_looks_at_the_time_left_and_forgets_with_it() {
    let limits = paced();
    let record = burning(300_000, [6, 100]);
    let at = |secs| {
        let ladder = ladder();
        let request = request(&ladder, 0, 1);
        match decide(
            &limits,
            &request,
            &record,
            NOW.plus(Duration::from_secs(secs)),
        ) {
            Decision::Admit { tier, .. } => tier,
            Decision::Refuse { .. } => 9,
        }
    };
    assert_eq!(at(0), 1);
    assert_eq!(at(2 * 3_600), 0);
}

/// As [`tier`], under a plan with a hysteresis of a twentieth, for a tenant to whom the marks last gave this tier.
fn tier_after(last: usize, used: u64) -> (usize, Option<Reason>) {
    let limits = Limits {
        hysteresis: Some(Ppm(50_000)),
        ..budget(1_000, Unit::Tokens)
    };
    let mut record = spent(used);
    record.account.mark(marks::key(&ladder()), last);
    tier(&limits, 0, &record)
}

#[test]
fn a_tier_is_left_only_past_its_mark_by_a_margin() {
    for (last, used, expected) in [
        (0, 500, (0, None)),
        (0, 501, (1, LOW)),
        // Standard's mark is 500, compact's 200; the margin is 50.
        (1, 500, (1, LOW)),
        (1, 451, (1, LOW)),
        (1, 450, (0, None)),
        (1, 800, (1, LOW)),
        (2, 800, (2, LOW)),
        (2, 751, (2, LOW)),
        (2, 750, (1, LOW)),
        (2, 451, (1, LOW)),
        (2, 450, (0, None)),
    ] {
        assert_eq!(
            tier_after(last, used),
            expected,
            "after {last}, {used} spent"
        );
    }
}

#[test]
fn what_the_marks_gave_is_remembered_for_each_ladder_until_the_window_ends() {
    let limits = Limits {
        hysteresis: Some(Ppm(50_000)),
        ..budget(1_000, Unit::Tokens)
    };
    let mut other = ladder();
    other.tiers[0].model = "another".into();
    let request = |ladder| request(ladder, 2, 1);
    let (first, mut record) = (ladder(), spent(850));
    // What is remembered does not depend on the requested tier: it is where the marks are.
    remember(&limits, &request(&first), &mut record, NOW);
    let [here, there] = [&first, &other].map(marks::key);
    assert_eq!([here, there].map(|key| record.account.marked(key)), [2, 0]);
    // A raised limit takes effect at once.
    let raised = Limits {
        hysteresis: limits.hysteresis,
        ..budget(10_000, Unit::Tokens)
    };
    assert_eq!(tier(&raised, 0, &record), (0, None));
    let next_day = record
        .account
        .clone()
        .at(&day(1_000), NOW.plus(Duration::from_secs(86_400)));
    assert_eq!(next_day.marked(here), 0);
    remember(&raised, &request(&first), &mut record, NOW);
    assert_eq!(record.account.marked, []);
    // A plan without hysteresis leaves no trace.
    let without = budget(1_000, Unit::Tokens);
    remember(&without, &request(&first), &mut record, NOW);
    assert_eq!(record.account.marked, []);
}

#[test]
fn the_margin_is_put_on_a_moved_mark_too() {
    let limits = Limits {
        hysteresis: Some(Ppm(100_000)),
        ..paced()
    };
    // With 750,000 left the mark is 0.65.
    let mut record = burning(250_000, [6, 100]);
    assert_eq!(tier(&limits, 0, &record), (0, None));
    record.account.mark(marks::key(&ladder()), 1);
    assert_eq!(tier(&limits, 0, &record), (1, PACE));
}
