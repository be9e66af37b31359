//! What holds of every decision, whatever is configured, asked and spent.
use std::num::NonZeroU64;
use std::time::Duration;

use bursar::base::units::{Cost, Micros, Ppm, Timestamp, Tokens, Unit};
use bursar::calendar::window::Period;
use bursar::estimate::Estimate;
use bursar::estimate::learn::BytesPerToken;
use bursar::lease::quota::Quota;
use bursar::limits::account::{Account, DEFAULT_EXPIRY};
use bursar::limits::bucket::{Bucket, NotNow};
use bursar::limits::budget::Budget;
use bursar::limits::capacity::{Capacity, Headroom, Priority, Taken};
use bursar::limits::pace::{Burn, Pace};
use bursar::plan::{Limits, OnExhausted, Preferences, Sticky};
use bursar::policy::{
    Conditions, ConversationPlacement, Decision, Reason, Refusal, Request, Scope, decide, remember,
};
use bursar::state::record::Record;
use bursar::tier::{Ladder, LadderPlace, Needs, Price, Rates, Tier, TierSet};
use proptest::prelude::*;

const NOW: Timestamp = Timestamp::from_secs(1_709_208_000);
const TIERS: usize = 4;

/// A request and all that it is decided by.
#[derive(Clone, Debug)]
struct Scene {
    ladder: Ladder,
    limits: Limits,
    record: Record,
    asked: usize,
    scope: Scope,
    estimate: Estimate,
    rooms: Vec<Option<Headroom>>,
    pressed: TierSet,
    slow: TierSet,
    talk: Option<ConversationPlacement>,
}

impl Scene {
    fn ask(&self) -> Request<'_> {
        Request {
            model: "model",
            place: Some(LadderPlace {
                ladder: &self.ladder,
                asked: self.asked,
            }),
            estimate: self.estimate,
            unlisted_price: None,
            scope: self.scope,
            conditions: Conditions {
                rooms: &self.rooms,
                pressed: self.pressed,
                slow: self.slow,
                conversation: self.talk,
                ..Conditions::default()
            },
        }
    }

    fn decide(&self) -> Decision {
        decide(&self.limits, &self.ask(), &self.record, NOW)
    }

    /// Whether this one is served at the same tier as the other, at a lower one, or not at all.
    ///
    /// Where a bucket refused the other, or a tier's capacity, a lower tier or a shorter answer may yet fit into it: that is
    /// not better.
    fn is_no_better_than(&self, other: &Self) -> bool {
        match (other.decide(), self.decide()) {
            (Decision::Admit { tier: other, .. }, Decision::Admit { tier, .. }) => tier >= other,
            (Decision::Admit { .. }, Decision::Refuse { .. }) => true,
            (Decision::Refuse { refusal, .. }, decision) => {
                let by_a_bucket = matches!(
                    refusal,
                    Refusal::BucketEmpty(_) | Refusal::ExceedsBurst | Refusal::TierCapacity(_)
                );
                by_a_bucket || matches!(decision, Decision::Refuse { .. })
            }
        }
    }

    fn floor(&self) -> usize {
        let floor = self.limits.preferences.floor.as_ref();
        floor.map_or(TIERS - 1, |floor| {
            let tiers = &self.ladder.tiers;
            tiers.iter().position(|tier| tier.name == *floor).unwrap()
        })
    }
}

/// `t0` to `t3`, each cheaper than the one before, some with marks, which fall.
fn any_ladder() -> impl Strategy<Value = Ladder> {
    let marks = prop::collection::vec(1..=1_000_000_u64, TIERS - 1);
    let marked = prop::collection::vec(any::<bool>(), TIERS - 1);
    (marks, marked).prop_map(|(mut marks, marked)| {
        marks.sort_unstable_by(|a, b| b.cmp(a));
        let tier = |index: usize| Tier {
            name: format!("t{index}").into(),
            model: format!("model-{index}").into(),
            price: Some(Price::from(Rates {
                input: 1 << (23 - index),
                output: 1 << (25 - index),
                ..Rates::default()
            })),
            below: index
                .checked_sub(1)
                .filter(|&at| marked[at])
                .map(|at| Ppm(marks[at])),
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
            tiers: (0..TIERS).map(tier).collect(),
        }
    })
}

fn any_fraction() -> impl Strategy<Value = Ppm> {
    prop_oneof![1..=1_000_000_u64, Just(1_000_000)].prop_map(Ppm)
}

fn any_budget() -> impl Strategy<Value = Budget> {
    let unit = prop_oneof![Just(Unit::Tokens), Just(Unit::UsdMicros)];
    (1..200_000_u64, unit).prop_map(|(initial_budget, unit)| Budget {
        initial_budget,
        unit,
        period: Period::Day,
        reservation_expiry: DEFAULT_EXPIRY,
        rollover: None,
        extra: None,
        share: None,
    })
}

fn any_preferences() -> impl Strategy<Value = Preferences> {
    let tiers = prop::sample::subsequence(vec!["t0", "t1", "t2", "t3"], 1..=TIERS);
    let tiers =
        prop::option::of(tiers.prop_map(|all| all.into_iter().map(str::to_owned).collect()));
    let floor = prop::option::of((0..TIERS).prop_map(|floor| format!("t{floor}")));
    (tiers, floor).prop_map(|(tiers, floor)| Preferences {
        tiers,
        floor,
        below: Vec::new(),
    })
}

fn any_quota() -> impl Strategy<Value = Quota> {
    (1..5_000_u64, prop::option::of(any_fraction())).prop_map(|(burst, low_water_mark)| Quota {
        tokens_per_window: NonZeroU64::new(100).unwrap(),
        window: NonZeroU64::new(60_000_000_000).unwrap(),
        burst: NonZeroU64::new(burst).unwrap(),
        low_water_mark,
        share: None,
    })
}

fn any_limits() -> impl Strategy<Value = Limits> {
    let pace = (any_fraction(), 1..100_000_u64).prop_map(|(cap, secs)| Pace {
        cap,
        half_life: NonZeroU64::new(secs * 1_000_000_000).unwrap(),
    });
    let on_exhausted = prop_oneof![
        Just(OnExhausted::Throttle),
        any_fraction().prop_map(|overdraft| OnExhausted::Degrade { overdraft })
    ];
    let marks = (
        prop::option::of(any_fraction()),
        prop::option::of(pace),
        prop::option::of(any_fraction()),
    );
    let rest = (
        prop::option::of(any_quota()),
        on_exhausted,
        prop::bool::weighted(0.1),
        prop::option::of(1..50_u64),
        prop::option::of(any_fraction()),
    );
    (any_budget(), marks, any_preferences(), rest).prop_map(
        |(budget, (low_water_mark, pace, hysteresis), preferences, rest)| {
            let (bucket, on_exhausted, never_downgrade, min_output_tokens, keep) = rest;
            Limits {
                sticky: keep.map(|keep| Sticky { header: None, keep }),
                budget: Some(budget),
                bucket,
                on_exhausted,
                never_downgrade,
                low_water_mark,
                min_output_tokens,
                pace,
                hysteresis,
                preferences,
                ..Limits::default()
            }
        },
    )
}

fn any_cost() -> impl Strategy<Value = Cost> {
    (0..250_000_u64, 0..250_000_u64).prop_map(|(tokens, usd)| Cost {
        tokens: Tokens(tokens),
        usd: Micros(usd),
    })
}

/// A tier with a capacity, of which more or less is taken; some were found full already.
fn any_room() -> impl Strategy<Value = Option<Headroom>> {
    let refused = prop::option::weighted(0.2, Just(NotNow::Wait(Duration::from_secs(1))));
    let room = (any_quota(), 0..6_000_u64, refused).prop_map(|(quota, used, refused)| {
        let capacity = Capacity {
            quota,
            critical: 0,
            standard: 0,
        };
        Headroom {
            capacity,
            taken: capacity.charge(Taken::default(), Priority::Standard, used, NOW),
            priority: Priority::Standard,
            refused,
        }
    });
    prop::option::of(room)
}

prop_compose! {
    fn any_scene()(
        ladder in any_ladder(), limits in any_limits(), spent in any_cost(), asked in 0..TIERS, last in 0..TIERS,
        levels in prop::collection::vec(any_cost(), 0..TIERS), used in 0..6_000_u64,
        unfit in prop::collection::vec(any::<bool>(), TIERS), body_bytes in 0..1_000_u64, output in prop::option::of(0..500_u64),
        rooms in prop_oneof![Just(Vec::new()), prop::collection::vec(any_room(), TIERS)], late in prop::collection::vec(any::<bool>(), TIERS),
        talk in prop::option::of((0..TIERS, any::<bool>())),
        refusing in prop_oneof![Just(vec![false; TIERS]), prop::collection::vec(any::<bool>(), TIERS)],
    ) -> Scene {
        let account = Account { spent, ..Account::default().at(&limits.budget.unwrap(), NOW) };
        let mut record = Record {
            account,
            bucket: Bucket { used, since: NOW, full: NOW, ..Bucket::default() },
            burn: Burn { since: NOW, levels },
            ..Record::default()
        };
        record.account.mark(ladder_key(&ladder), last);
        Scene {
            scope: Scope {
                unfit: (0..TIERS).filter(|&tier| unfit[tier]).collect::<TierSet>(),
                reason: Some(Reason::Unsupported),
                least_output: Some(1),
            },
            estimate: Estimate {
                body_bytes,
                bytes_per_token: BytesPerToken::PRIOR,
                output_limit: output.map(Tokens),
                answer: Tokens(1_024),
                choices: 1,
                weights: None,
            },
            talk: talk.map(|(tier, is_lower)| ConversationPlacement { tier, is_lower }),
            slow: (0..TIERS).filter(|&tier| late[tier]).collect(),
            pressed: (0..TIERS).filter(|&tier| refusing[tier]).collect(),
            ladder, limits, record, asked, rooms,
        }
    }
}

/// As what the ladder stands in a record: found out by having its marks remembered.
fn ladder_key(ladder: &Ladder) -> u32 {
    let mut ladder = ladder.clone();
    ladder.tiers[1].below = Some(Ppm(1_000_000));
    let budget = Budget {
        initial_budget: 10,
        unit: Unit::Tokens,
        period: Period::Day,
        reservation_expiry: DEFAULT_EXPIRY,
        rollover: None,
        extra: None,
        share: None,
    };
    let limits = Limits {
        budget: Some(budget),
        hysteresis: Some(Ppm(1)),
        ..Limits::default()
    };
    let mut record = Record {
        account: Account {
            spent: bursar::limits::budget::tokens(5),
            ..Account::default().at(&budget, NOW)
        },
        ..Record::default()
    };
    let ask = Request {
        model: "model",
        place: Some(LadderPlace {
            ladder: &ladder,
            asked: 0,
        }),
        estimate: Estimate {
            body_bytes: 0,
            bytes_per_token: BytesPerToken::PRIOR,
            output_limit: None,
            answer: Tokens(1),
            choices: 1,
            weights: None,
        },
        unlisted_price: None,
        scope: Scope::default(),
        conditions: Conditions::default(),
    };
    remember(&limits, &ask, &mut record, NOW);
    record.account.marked[0].ladder
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn never_an_upgrade_never_below_the_floor_and_only_where_the_tenant_may_be_sent(scene in any_scene()) {
        if let Decision::Admit { tier, reason, .. } = scene.decide() {
            let Preferences { tiers, .. } = &scene.limits.preferences;
            let names = tiers.as_ref();
            let is_allowed = names.is_none_or(|names| names.contains(&format!("t{tier}")));
            prop_assert!(tier >= scene.asked);
            prop_assert!(tier <= scene.floor().max(scene.asked));
            prop_assert!(is_allowed || tier == scene.asked);
            prop_assert!(tier == scene.asked || !scene.scope.unfit.has(tier));
            // No downgrade without a word.
            prop_assert!(tier == scene.asked || reason.is_some());
            prop_assert!(tier == scene.asked || !scene.limits.never_downgrade);
            // Only where there is room.
            let room = scene.rooms.get(tier).copied().flatten();
            let Decision::Admit { estimate, .. } = scene.decide() else { unreachable!() };
            prop_assert!(room.is_none_or(|room| room.check(estimate.tokens(), NOW).is_ok()));
        }
    }

    #[test]
    fn an_upstream_that_says_no_refuses_nobody_and_lowers_only_those_who_can_be_served_below(scene in any_scene()) {
        let mut calm = scene.clone();
        calm.pressed = TierSet::NONE;
        calm.rooms = Vec::new();
        calm.slow = TierSet::NONE;
        let mut pressed = calm.clone();
        pressed.pressed = scene.pressed;
        match (calm.decide(), pressed.decide()) {
            (Decision::Admit { tier: calm, .. }, Decision::Admit { tier, reason, .. }) => {
                prop_assert!(tier >= calm);
                prop_assert!(tier == calm || scene.pressed.has(calm));
                prop_assert!(reason != Some(Reason::UpstreamLimited) || !scene.pressed.has(tier));
            }
            // A bucket may have room for less.
            (Decision::Refuse { .. }, _) => {}
            (Decision::Admit { .. }, Decision::Refuse { refusal, .. }) => {
                prop_assert!(matches!(refusal, Refusal::BucketEmpty(_) | Refusal::ExceedsBurst));
            }
        }
        // Where all say no it is as if none did.
        pressed.pressed = (0..TIERS).collect();
        prop_assert_eq!(calm.decide(), pressed.decide());
    }

    #[test]
    fn less_that_remains_never_gives_a_better_tier(scene in any_scene(), more in any_cost()) {
        let mut poorer = scene.clone();
        poorer.record.account.spent = scene.record.account.spent.plus(more);
        prop_assert!(poorer.is_no_better_than(&scene));
    }

    #[test]
    fn a_smaller_budget_never_gives_a_better_tier(scene in any_scene(), less in 1..200_000_u64) {
        let mut poorer = scene.clone();
        let budget = poorer.limits.budget.as_mut().unwrap();
        budget.initial_budget = budget.initial_budget.saturating_sub(less).max(1);
        prop_assert!(poorer.is_no_better_than(&scene));
    }

    #[test]
    fn a_faster_burn_never_gives_a_better_tier(scene in any_scene(), more in any_cost()) {
        let mut faster = scene.clone();
        for level in &mut faster.record.burn.levels {
            *level = level.plus(more);
        }
        prop_assert!(faster.is_no_better_than(&scene));
    }

    #[test]
    fn pace_and_hysteresis_only_ever_lower_a_tier_and_pace_moves_nothing_without_a_history(scene in any_scene()) {
        let mut plain = scene.clone();
        plain.limits.pace = None;
        plain.limits.hysteresis = None;
        prop_assert!(scene.is_no_better_than(&plain));
        let mut new = scene;
        new.record.burn = Burn::default();
        let mut unpaced = new.clone();
        unpaced.limits.pace = None;
        prop_assert_eq!(new.decide(), unpaced.decide());
    }
}
