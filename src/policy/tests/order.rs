//! Which reason is reported if several rules apply: that of the rule that led to the final tier; on a tie, that of the earlier rule.

use super::Reason::*;
use super::*;
use crate::limits::pace::{Burn, Pace};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// What applies to a request. By default nothing does.
#[derive(Clone, Copy, Debug, Default)]
struct Scene {
    asked: usize,
    /// Spent of 1,000,000 tokens. Standard's mark is at 500,000 left, compact's at 200,000.
    spent: u64,
    /// Whether the budget would not last for the hour: then the marks of both tiers are at 900,000 left.
    is_rushed: bool,
    /// Whether the bucket is so low that requests are sent to the last tier.
    bucket_low: bool,
    /// The tier that served the request's conversation, and whether that was a downgrade. A conversation stays until half of a mark.
    talk: Option<(usize, bool)>,
    /// Tiers whose upstream refuses.
    pressed: &'static [usize],
    slow: &'static [usize],
    unfit: &'static [usize],
    tiers: Option<&'static [&'static str]>,
    floor: Option<&'static str>,
    never_downgrade: bool,
    /// The request's cost in tokens.
    cost: u64,
}

impl Scene {
    fn limits(&self) -> Limits {
        let hour = NonZeroU64::new(3_600_000_000_000).unwrap();
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let cells = NonZeroU64::new(1_000_000).unwrap();
        Limits {
            on_exhausted: OnExhausted::Degrade {
                overdraft: Ppm(100_000),
            },
            pace: self.is_rushed.then_some(Pace {
                cap: Ppm(900_000),
                half_life: hour,
            }),
            bucket: self.bucket_low.then_some(Quota {
                tokens_per_window: cells,
                window: hour,
                burst: cells,
                low_water_mark: Some(Ppm(1_000_000)),
                share: None,
            }),
            never_downgrade: self.never_downgrade,
            sticky: Some(Sticky {
                header: None,
                keep: Ppm(500_000),
            }),
            preferences: Preferences {
                tiers: self.tiers.map(names),
                floor: self.floor.map(str::to_owned),
                below: Vec::new(),
            },
            ..budget(1_000_000, Unit::Tokens)
        }
    }

    fn record(&self) -> Record {
        Record {
            bucket: Bucket {
                used: 1,
                since: NOW,
                full: NOW,
                ..Bucket::default()
            },
            burn: Burn {
                since: NOW,
                levels: vec![tokens(u64::MAX)],
            },
            ..spent(self.spent)
        }
    }

    fn told(&self) -> Result<(usize, Option<Reason>), Refusal> {
        let ladder = ladder();
        let mut request = request(&ladder, self.asked, self.cost);
        request.scope.unfit = self.unfit.iter().copied().collect();
        request.scope.reason = Some(Unsupported);
        let talk = |(tier, is_lower)| ConversationPlacement { tier, is_lower };
        request.conditions.conversation = self.talk.map(talk);
        request.conditions.pressed = self.pressed.iter().copied().collect();
        request.conditions.slow = self.slow.iter().copied().collect();
        match decide(&self.limits(), &request, &self.record(), NOW) {
            Decision::Admit { tier, reason, .. } => Ok((tier, reason)),
            Decision::Refuse { refusal, .. } => Err(refusal),
        }
    }
}

#[test]
fn the_rule_that_fixed_the_tier_is_told_and_of_several_the_earlier() {
    let plain = Scene::default();
    let low = Scene {
        spent: 600_000,
        ..plain
    };
    let lowest = Scene {
        spent: 900_000,
        ..plain
    };
    let rushed = Scene {
        spent: 200_000,
        is_rushed: true,
        ..plain
    };
    let bucket_low = Scene {
        bucket_low: true,
        ..plain
    };
    #[rustfmt::skip]
    let table = [
        (plain, (0, None)),
        // One rule alone.
        (low, (1, Some(BudgetLow))),
        (rushed, (2, Some(BudgetPace))),
        (bucket_low, (2, Some(BucketLow))),
        (Scene { slow: &[0], ..plain }, (1, Some(Sla))),
        (Scene { pressed: &[0], ..plain }, (1, Some(UpstreamLimited))),
        (Scene { tiers: Some(&["compact"]), ..plain }, (2, Some(TierPreference))),
        (Scene { cost: 1, spent: 1_000_000, ..plain }, (2, Some(BudgetExhausted))),
        // A crossed static mark comes before a mark that pace has moved.
        (Scene { spent: 900_000, ..rushed }, (2, Some(BudgetLow))),
        // The lower tier of both, if only the moved mark gives it.
        (Scene { spent: 600_000, ..rushed }, (2, Some(BudgetPace))),
        // The budget's marks come before the bucket's, where both give the same tier.
        (Scene { bucket_low: true, ..lowest }, (2, Some(BudgetLow))),
        (Scene { bucket_low: true, ..low }, (2, Some(BucketLow))),
        (Scene { bucket_low: true, ..rushed }, (2, Some(BudgetPace))),
        // A downgraded conversation stays down, and one that was not downgraded keeps its tier until half of the next mark is crossed.
        (Scene { talk: Some((1, true)), ..plain }, (1, Some(Conversation))),
        (Scene { talk: Some((2, true)), ..low }, (2, Some(Conversation))),
        (Scene { talk: Some((0, false)), ..low }, (0, Some(Conversation))),
        (Scene { talk: Some((0, false)), ..lowest }, (1, Some(Conversation))),
        (Scene { talk: Some((1, true)), ..lowest }, (1, Some(Conversation))),
        (Scene { talk: Some((0, false)), ..rushed }, (0, Some(Conversation))),
        (Scene { talk: Some((0, false)), ..bucket_low }, (0, Some(Conversation))),
        (Scene { talk: Some((0, false)), ..plain }, (0, None)),
        // A mark that is crossed by that much comes before the conversation.
        (Scene { talk: Some((1, true)), ..low }, (1, Some(BudgetLow))),
        (Scene { talk: Some((1, true)), spent: 900_001, ..plain }, (2, Some(BudgetLow))),
        (Scene { talk: Some((0, false)), spent: 750_001, ..plain }, (1, Some(BudgetLow))),
        (Scene { talk: Some((0, false)), spent: 750_000, ..plain }, (0, Some(Conversation))),
        // The conversation has no effect on a request for another tier, and never raises one.
        (Scene { talk: Some((2, false)), ..plain }, (0, None)),
        (Scene { talk: Some((0, false)), asked: 1, ..lowest }, (2, Some(BudgetLow))),
        (Scene { talk: Some((1, true)), asked: 2, ..plain }, (2, None)),
        // An SLA, a preference and the request's needs lower it further from there.
        (Scene { talk: Some((1, true)), slow: &[1], ..plain }, (2, Some(Sla))),
        (Scene { talk: Some((1, true)), tiers: Some(&["compact"]), ..plain }, (2, Some(TierPreference))),
        (Scene { talk: Some((1, true)), floor: Some("default"), ..plain }, (0, Some(TierPreference))),
        (Scene { talk: Some((1, true)), unfit: &[1], ..plain }, (0, Some(Unsupported))),
        (Scene { talk: Some((1, true)), never_downgrade: true, ..plain }, (0, None)),
        // A mark comes before an SLA that is met at its tier; the SLA decides where the request must go lower.
        (Scene { slow: &[0], ..low }, (1, Some(BudgetLow))),
        (Scene { slow: &[0, 1], ..low }, (2, Some(Sla))),
        (Scene { slow: &[0], ..lowest }, (2, Some(BudgetLow))),
        // An upstream's refusal comes after a mark, and before an SLA, for which that tier is already left out.
        (Scene { pressed: &[0], ..low }, (1, Some(BudgetLow))),
        (Scene { pressed: &[0, 1], ..low }, (2, Some(UpstreamLimited))),
        (Scene { pressed: &[1], ..low }, (2, Some(UpstreamLimited))),
        (Scene { pressed: &[2], ..lowest }, (2, Some(BudgetLow))),
        (Scene { pressed: &[0], slow: &[0], ..plain }, (1, Some(UpstreamLimited))),
        (Scene { pressed: &[0], slow: &[1], ..plain }, (2, Some(Sla))),
        (Scene { pressed: &[1], slow: &[0], ..plain }, (2, Some(Sla))),
        // Slow is better than refused; the requested tier is better than a slow lesser one.
        (Scene { pressed: &[0], slow: &[1, 2], ..plain }, (1, Some(UpstreamLimited))),
        (Scene { pressed: &[1], slow: &[0, 2], ..plain }, (0, None)),
        // Where all upstreams refuse, the upstream is left to do so.
        (Scene { pressed: &[0, 1, 2], ..plain }, (0, None)),
        (Scene { pressed: &[0, 1, 2], ..low }, (1, Some(BudgetLow))),
        (Scene { pressed: &[2], asked: 2, ..plain }, (2, None)),
        // Nor does a request go where the tenant or the request must not, or where its conversation is not.
        (Scene { pressed: &[0], floor: Some("default"), ..plain }, (0, None)),
        (Scene { pressed: &[0], unfit: &[1], ..plain }, (2, Some(UpstreamLimited))),
        (Scene { pressed: &[0], unfit: &[1, 2], ..plain }, (0, None)),
        (Scene { pressed: &[0], never_downgrade: true, ..plain }, (0, None)),
        (Scene { pressed: &[1], talk: Some((1, true)), ..plain }, (2, Some(UpstreamLimited))),
        (Scene { pressed: &[0], talk: Some((0, false)), ..low }, (1, Some(UpstreamLimited))),
        // The budget comes after the upstream: a request that the budget cannot hold goes further down, if need be to a tier whose upstream
        // refuses.
        (Scene { pressed: &[1], spent: 1_000_000, cost: 1, ..plain }, (2, Some(BudgetExhausted))),
        // A mark comes before a preference that agrees with it; a preference decides where no other tier is allowed.
        (Scene { tiers: Some(&["compact"]), ..lowest }, (2, Some(BudgetLow))),
        (Scene { tiers: Some(&["compact"]), ..low }, (2, Some(TierPreference))),
        (Scene { tiers: Some(&["default"]), ..low }, (0, Some(TierPreference))),
        (Scene { floor: Some("standard"), ..lowest }, (1, Some(BudgetLow))),
        (Scene { floor: Some("default"), ..rushed }, (0, Some(TierPreference))),
        (Scene { floor: Some("standard"), ..bucket_low }, (1, Some(BucketLow))),
        // The request's needs come after the tenant's preferences.
        (Scene { unfit: &[1, 2], ..low }, (0, Some(Unsupported))),
        (Scene { unfit: &[2], tiers: Some(&["default"]), ..lowest }, (0, Some(TierPreference))),
        (Scene { unfit: &[2], tiers: Some(&["default", "compact"]), ..lowest }, (0, Some(Unsupported))),
        (Scene { unfit: &[2], ..bucket_low }, (1, Some(BucketLow))),
        // An SLA does not send a request where the tenant or the request must not go.
        (Scene { slow: &[0], floor: Some("default"), ..plain }, (0, None)),
        (Scene { slow: &[0], unfit: &[1], ..plain }, (2, Some(Sla))),
        (Scene { slow: &[0], tiers: Some(&["standard", "compact"]), ..plain }, (1, Some(TierPreference))),
        // The overdraft is the last resort, whatever lowered the tier before.
        (Scene { spent: 1_050_000, cost: 1, slow: &[0], ..bucket_low }, (2, Some(BudgetExhausted))),
        (Scene { spent: 1_050_000, cost: 1, floor: Some("standard"), ..plain }, (1, Some(BudgetExhausted))),
        // A request never goes up, and nothing is reported about the tier at which it began.
        (Scene { asked: 2, is_rushed: true, bucket_low: true, slow: &[2], ..lowest }, (2, None)),
        (Scene { never_downgrade: true, slow: &[0], bucket_low: true, tiers: Some(&["compact"]), ..lowest }, (0, None)),
    ];
    for (scene, expected) in table {
        assert_eq!(scene.told(), Ok(expected), "{scene:?}");
    }
}

#[test]
fn a_refusal_is_told_whatever_lowered_the_tier() {
    let spent = Scene {
        spent: 1_100_000,
        cost: 1,
        slow: &[0],
        ..Scene::default()
    };
    assert!(matches!(spent.told(), Err(Refusal::BudgetExhausted(_))));
    let never = Scene {
        never_downgrade: true,
        spent: 1_000_000,
        ..spent
    };
    assert!(matches!(never.told(), Err(Refusal::BudgetExhausted(_))));
    let long = Scene {
        cost: 1_000_001,
        bucket_low: true,
        ..spent
    };
    assert_eq!(long.told(), Err(Refusal::ExceedsBurst));
}
