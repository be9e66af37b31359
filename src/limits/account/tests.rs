use super::*;
use crate::base::units::{Ppm, Unit};
use crate::limits::budget::tokens;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const DAY: u64 = 86_400;

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(20_000 * DAY + secs)
}

fn account(now: Timestamp) -> Account {
    Account::default().at(&budget(1_000), now)
}

fn budget(initial_budget: u64) -> Budget {
    Budget {
        rollover: None,
        extra: None,
        share: None,
        initial_budget,
        unit: Unit::Tokens,
        period: Period::Day,
        reservation_expiry: DEFAULT_EXPIRY,
    }
}

fn every(period: Period) -> Budget {
    Budget {
        period,
        ..budget(1_000)
    }
}

// Spend beyond a limit is still recorded.
#[test]
fn a_reservation_is_held_and_then_replaced_by_what_was_used() {
    let mut account = account(at(0));
    let reservation = account.reserve(tokens(300), &budget(1_000), at(0));
    assert_eq!(budget(1_000).remaining(&account), 700);
    assert!(account.settle(&reservation, tokens(120), at(0)));
    assert_eq!(budget(1_000).remaining(&account), 880);
    assert_eq!(account.holds, []);
}

#[test]
fn spend_beyond_the_reservation_is_counted_as_debt() {
    let mut account = account(at(0));
    let reservation = account.reserve(tokens(100), &budget(1_000), at(0));
    account.settle(&reservation, tokens(1_500), at(0));
    assert_eq!(account.spent, tokens(1_500));
    assert_eq!(budget(1_000).remaining(&account), 0);
    assert_eq!(budget(2_000).remaining(&account), 500);
}

// Windows may end while requests are in flight, and clocks may be set back.
#[test]
fn a_reservation_from_an_ended_window_charges_nothing_to_the_next() {
    let mut account = account(at(0));
    let reservation = account.reserve(tokens(300), &budget(1_000), at(DAY - 1));
    let mut account = account.at(&every(Period::Day), at(DAY));
    assert_eq!(budget(1_000).remaining(&account), 1_000);
    assert!(!account.settle(&reservation, tokens(300), at(0)));
    assert_eq!(account.spent, Cost::ZERO);
}

// A debt is spent in the next window, and leaves that much less for the window after that.
#[test]
fn whether_anybody_asked_in_a_window_says_nothing_of_what_it_leaves() {
    let budget = Budget {
        rollover: Some(Ppm(500_000)),
        ..budget(1_000)
    };
    for (used, days) in [100, 900, 1_000, 1_700, 1_900, 2_500]
        .into_iter()
        .flat_map(|used| (2..5).map(move |days| (used, days)))
    {
        let mut account = account(at(0));
        let reservation = account.reserve(tokens(100), &budget, at(0));
        account.settle_any(&reservation, tokens(used), Some(&budget), at(1));
        let unseen = account.clone().at(&budget, at(days * DAY));
        let seen = (1..=days).fold(account, |account, day| account.at(&budget, at(day * DAY)));
        let told =
            |account: &Account| (account.window, account.carried, account.spent, account.debt);
        assert_eq!(told(&unseen), told(&seen), "{used} {days}");
    }
}

// If holds leaked, requests would be refused without any visible cause. Local models need a minute or more for an answer.
#[test]
fn a_leaked_reservation_expires_and_a_slow_answer_does_not() {
    let mut account = account(at(30));
    let reservation = account.reserve(tokens(300), &budget(1_000), at(30));
    let later = account.clone().at(&every(Period::Day), at(30 * 60 + 29));
    assert_eq!(later.held(), tokens(300));
    let mut expired = account.at(&every(Period::Day), at(30 * 60 + 30));
    assert_eq!(expired.held(), Cost::ZERO);
    // A late settlement is still counted, and gives nothing back that is no longer held.
    let fresh = expired.reserve(tokens(50), &budget(1_000), at(30 * 60));
    assert!(expired.settle(&reservation, tokens(120), at(0)));
    assert_eq!((expired.spent, expired.held()), (tokens(120), tokens(50)));
    assert!(expired.settle(&fresh, tokens(50), at(0)));
}

// At any time a limit may be raised, or lowered below what is spent. Whatever is edited or renamed in the configuration, what was spent
// stays.
#[test]
fn changing_the_period_keeps_what_was_spent() {
    let mut day = account(at(0));
    let reservation = day.reserve(tokens(10), &budget(1_000), at(0));
    day.settle(&reservation, tokens(10), at(0));
    let month = day.clone().at(&every(Period::Month), at(3 * DAY));
    assert_eq!(month.spent, tokens(10));
    let hour = month.at(&every(Period::Hour), at(3 * DAY));
    assert_eq!(hour.spent, tokens(10));
    assert_eq!(
        hour.at(&every(Period::Hour), at(3 * DAY + 3_600)).spent,
        Cost::ZERO
    );
}

#[test]
fn a_worker_that_read_the_clock_just_before_midnight_does_not_undo_the_roll_over() {
    let mut new_day = account(at(0)).at(&every(Period::Day), at(DAY));
    let reservation = new_day.reserve(tokens(10), &budget(1_000), at(DAY));
    new_day.settle(&reservation, tokens(10), at(0));
    for before in [1, 60] {
        let seen_late = new_day.clone().at(&every(Period::Day), at(DAY - before));
        assert_eq!(seen_late, new_day);
    }
    // A difference of more than a minute is no race of workers: the clock was set back.
    let set_back = new_day.at(&every(Period::Day), at(DAY - 61));
    assert_eq!(set_back.window, Period::Day.at(at(0)));
}

#[test]
fn a_clock_set_back_by_a_month_keeps_the_spend_and_returns_to_the_calendar() {
    let mut account = account(at(40 * DAY));
    let reservation = account.reserve(tokens(10), &budget(1_000), at(40 * DAY));
    account.settle(&reservation, tokens(10), at(0));
    let back = account.at(&every(Period::Day), at(0));
    assert_eq!(
        (back.spent, back.window),
        (tokens(10), Period::Day.at(at(0)))
    );
    assert_eq!(back.at(&every(Period::Day), at(DAY)).spent, Cost::ZERO);
}

#[test]
fn reservations_of_one_slice_share_a_hold_and_each_takes_out_its_own() {
    let mut account = account(at(0));
    let first = account.reserve(tokens(1), &budget(1_000), at(0));
    let second = account.reserve(tokens(2), &budget(1_000), at(59));
    let third = account.reserve(tokens(4), &budget(1_000), at(60));
    assert_eq!(account.holds.len(), 2);
    account.settle(&first, Cost::ZERO, at(0));
    account.settle(&third, Cost::ZERO, at(0));
    assert_eq!(account.held(), tokens(2));
    account.settle(&second, Cost::ZERO, at(0));
    assert_eq!(account.holds, []);
}

#[test]
fn each_window_has_a_stamp_unlike_the_one_before() {
    let wrapped = Timestamp::from_nanos(((1 << 32) + 7) * 1_000);
    assert_eq!(generation_after(0, wrapped), 7);
    assert_eq!(generation_after(7, wrapped), 8);
    for micros in [0, 7, u64::from(u32::MAX), u64::from(u32::MAX) + 8] {
        let now = Timestamp::from_nanos(micros * 1_000);
        let first = generation_after(1 << 31, now);
        assert_ne!(generation_after(first, now), first);
        assert_eq!(generation_after(first.wrapping_add(9), now), first);
    }
}

#[test]
fn a_renewed_reservation_lives_on() {
    let mut account = account(at(0));
    let first = account.reserve(tokens(5), &budget(1_000), at(0));
    let renewed = account.renew(&first, &budget(1_000), at(900)).unwrap();
    let mut late = account.at(&budget(1_000), at(2_000));
    assert_eq!(late.held(), tokens(5));
    late.settle(&renewed, tokens(3), at(0));
    assert_eq!((late.held(), late.spent), (Cost::ZERO, tokens(3)));
}

#[test]
fn a_reservation_of_an_ended_window_is_not_renewed_into_the_next() {
    let mut account = account(at(0));
    let first = account.reserve(tokens(5), &budget(1_000), at(0));
    let mut next = account.at(&budget(1_000), at(DAY));
    assert_eq!(next.renew(&first, &budget(1_000), at(DAY)), None);
    assert_eq!(next.held(), Cost::ZERO);
}

#[test]
fn holds_stay_bounded_whatever_the_clock_does() {
    let mut account = account(at(0));
    for minute in 0..100 {
        let reservation = account.reserve(tokens(1), &budget(1_000), at(60 * minute));
        assert_eq!(reservation.cost(), tokens(1));
    }
    assert_eq!(account.holds.len(), HOLDS);
    assert_eq!(account.held(), tokens(100));
}
