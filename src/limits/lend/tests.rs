use super::*;
use crate::base::units::Unit;
use crate::limits::account::{DEFAULT_EXPIRY, Reservation};
use crate::limits::budget::tokens;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const DAY: u64 = 86_400;
const NOON: u64 = DAY / 2;

const A: ChildKey = ChildKey(1);
const B: ChildKey = ChildKey(2);

/// Half of the budget is guaranteed to A, and half to B.
const HALVES: [Guarantee; 2] = [
    Guarantee {
        child: A,
        share: Ppm(500_000),
    },
    Guarantee {
        child: B,
        share: Ppm(500_000),
    },
];

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(20_000 * DAY + secs)
}

fn budget(period: Period) -> Budget {
    Budget {
        rollover: None,
        extra: None,
        share: None,
        initial_budget: 1_000,
        unit: Unit::Tokens,
        period,
        reservation_expiry: DEFAULT_EXPIRY,
    }
}

/// A parent's account, changed step by step.
struct Books {
    budget: Budget,
    account: Account,
}

impl Books {
    fn new(period: Period) -> Self {
        let budget = budget(period);
        Self {
            budget,
            account: Account::default().at(&budget, at(0)),
        }
    }

    fn kept(&self, asks: Option<ChildKey>, secs: u64) -> u64 {
        kept(&HALVES, &self.budget, &self.account, asks, at(secs))
    }

    /// What a request through this child may hold.
    fn room(&self, asks: Option<ChildKey>, secs: u64) -> u64 {
        let left = self.budget.headroom(&self.account, 1_000);
        left - self.kept(asks, secs)
    }

    fn hold(&mut self, child: Option<ChildKey>, amount: u64, secs: u64) -> Reservation {
        let reserve = tokens(amount).into();
        let held = self
            .account
            .reserve_for(child, reserve, &self.budget, at(secs));
        balance(&HALVES, &self.budget, &mut self.account, child, at(secs));
        held
    }

    fn settle(&mut self, held: &Reservation, child: Option<ChildKey>, used: u64, secs: u64) {
        self.account.settle(held, tokens(used), at(secs));
        balance(&HALVES, &self.budget, &mut self.account, child, at(secs));
    }

    fn spend(&mut self, child: Option<ChildKey>, amount: u64, secs: u64) {
        let held = self.hold(child, amount, secs);
        self.settle(&held, child, amount, secs);
    }

    fn lent(&self) -> Vec<u64> {
        let of = |key| {
            let mut all = self.account.children.iter();
            all.find(|child| child.key == key)
                .map_or(0, |child| child.lent)
        };
        vec![of(A), of(B)]
    }
}

#[test]
fn what_an_idle_child_will_have_time_for_is_kept_and_the_rest_is_lent() {
    let books = Books::new(Period::Day);
    for (secs, kept, of_both) in [
        (0, 500, 1_000),
        (DAY / 4, 375, 750),
        (NOON, 250, 500),
        (DAY - 1, 1, 2),
        (DAY, 0, 0),
    ] {
        assert_eq!(books.kept(Some(A), secs), kept, "{secs}");
        assert_eq!(books.kept(None, secs), of_both, "{secs}");
    }
}

#[test]
fn a_child_that_has_spent_its_share_has_nothing_kept() {
    let mut books = Books::new(Period::Day);
    books.spend(Some(A), 450, NOON);
    assert_eq!(books.kept(Some(B), NOON), 50);
    books.spend(Some(A), 100, NOON);
    assert_eq!(books.kept(Some(B), NOON), 0);
    assert_eq!(books.room(Some(A), NOON), 200);
    assert_eq!(books.room(Some(B), NOON), 450);
}

#[test]
fn a_child_of_whose_share_much_is_lent_does_not_take_what_is_its_siblings() {
    let mut books = Books::new(Period::Day);
    assert_eq!(books.room(None, NOON), 500);
    books.spend(None, 500, NOON);
    assert_eq!(books.lent(), [250, 250]);
    assert_eq!(books.room(Some(B), NOON), 250);
    books.spend(Some(B), 250, NOON);
    assert_eq!(books.room(Some(B), NOON), 0);
    assert_eq!(books.room(Some(A), NOON), 250);
    books.spend(Some(A), 250, NOON);
    assert_eq!(books.room(Some(A), NOON), 0);
}

#[test]
fn what_was_held_and_not_used_is_given_back_to_who_lent_it() {
    let mut books = Books::new(Period::Day);
    books.spend(None, 300, NOON);
    assert_eq!(books.lent(), [150, 150]);
    let held = books.hold(Some(A), 450, NOON);
    assert_eq!(books.lent()[1], 250);
    assert_eq!(books.room(Some(B), NOON), 250);
    books.settle(&held, Some(A), 0, NOON);
    assert_eq!(books.lent(), [150, 150]);
    let held = books.hold(None, 101, NOON);
    assert_eq!(books.lent(), [201, 200]);
    books.settle(&held, None, 1, NOON);
    assert_eq!(books.lent(), [150, 151]);
}

#[test]
fn nothing_more_is_lent_once_a_childs_rate_rises_and_what_was_spent_stays_spent() {
    let mut books = Books::new(Period::Day);
    books.spend(None, 300, NOON);
    assert_eq!(books.kept(Some(B), NOON), 250);
    // This much is already in flight.
    let held = books.hold(Some(A), 20, NOON);
    assert_eq!(books.kept(Some(B), NOON), 330);
    books.settle(&held, Some(A), 20, NOON);
    assert_eq!(books.kept(Some(B), NOON), 330);
    assert_eq!(books.lent(), [150, 150]);
    // The same child later, after it was idle for some half-lives.
    assert_eq!(books.kept(Some(B), NOON + 6 * 1_800), 188);
}

#[test]
fn a_wait_is_over_to_the_millisecond_when_enough_is_not_kept_any_more() {
    let mut books = Books::new(Period::Day);
    books.spend(Some(A), 3, NOON);
    let wait = |most| {
        wait(
            &HALVES,
            &books.budget,
            &books.account,
            Some(B),
            most,
            at(NOON),
        )
        .unwrap()
    };
    for most in [0, 1, 99, 249] {
        let kept = |millis| {
            let then = at(NOON).plus(Duration::from_millis(millis));
            kept(&HALVES, &books.budget, &books.account, Some(B), then)
        };
        let millis = u64::try_from(wait(most).as_millis()).unwrap();
        assert!(kept(millis) <= most && kept(millis - 1) > most, "{most}");
    }
}

#[test]
fn of_a_window_without_a_fixed_end_nothing_is_lent() {
    let idle = Period::Idle(NonZeroU64::new(3_600_000_000_000).unwrap());
    for (period, longest) in [
        (Period::Never, None),
        (idle, Some(Duration::from_secs(600))),
    ] {
        let books = Books::new(period);
        assert_eq!(books.kept(Some(A), 3_000), 500);
        let Books {
            budget, account, ..
        } = &books;
        assert_eq!(
            wait(&HALVES, budget, account, Some(A), 499, at(3_000)),
            longest
        );
    }
}

#[test]
fn what_requests_use_beyond_their_holds_is_taken_where_there_is_most_to_lend() {
    let mut books = Books::new(Period::Day);
    books.spend(Some(B), 400, NOON);
    let held = books.hold(None, 1, NOON);
    books.settle(&held, None, 301, NOON);
    assert_eq!(books.lent().iter().sum::<u64>(), 301);
    assert_eq!(books.lent(), [250 + 37, 14]);
}

#[test]
fn a_hold_that_expires_is_not_its_childs_any_more() {
    let mut books = Books::new(Period::Day);
    let _lost = books.hold(Some(A), 400, NOON);
    assert_eq!(books.kept(Some(B), NOON), 100);
    books.account.advance(&books.budget, at(NOON + 1_800));
    balance(
        &HALVES,
        &books.budget,
        &mut books.account,
        None,
        at(NOON + 1_800),
    );
    assert_eq!(books.account.children, []);
    assert_eq!(books.kept(Some(B), NOON + 1_800), 240);
}

#[test]
fn the_next_window_begins_with_the_whole_share() {
    let mut books = Books::new(Period::Day);
    books.spend(Some(A), 400, NOON);
    let late = books.hold(Some(A), 50, NOON);
    books.account.advance(&books.budget, at(DAY));
    assert_eq!(books.kept(Some(B), DAY), 500);
    // What a child uses beyond its hold is a debt, and counts as its own.
    let Books { budget, account } = &mut books;
    account.settle_any(&late, tokens(150), Some(budget), at(DAY));
    assert_eq!(books.kept(Some(B), DAY), 400);
}

#[test]
fn parts_come_to_the_whole_and_none_to_more_than_there_is() {
    let claim = |lent| Claim {
        whole: lent,
        lent,
        before: lent,
        needed: 0,
        is_its: false,
        part: 0,
    };
    let of = |amount, all: &[u64]| {
        let mut claims: Vec<_> = all.iter().map(|&lent| claim(lent)).collect();
        shift(&mut claims, amount, Claim::lent, true);
        let parts = claims.iter().map(|claim| claim.before - claim.lent);
        parts.collect::<Vec<_>>()
    };
    assert_eq!(of(10, &[1, 1, 1]), [1, 1, 1]);
    assert_eq!(of(2, &[1, 1, 1]), [1, 1, 0]);
    assert_eq!(of(100, &[300, 0, 700]), [30, 0, 70]);
    assert!(of(5, &[]).is_empty());
}
