use std::num::NonZeroU64;

use super::*;
use crate::base::units::Unit;
use crate::calendar::window::Period;
use crate::limits::account::DEFAULT_EXPIRY;
use crate::limits::budget::tokens;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const DAY: u64 = 86_400;

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(20_000 * DAY + secs)
}

fn budget(period: Period) -> Budget {
    Budget {
        initial_budget: 1_000,
        unit: Unit::Tokens,
        period,
        reservation_expiry: DEFAULT_EXPIRY,
        rollover: None,
        extra: None,
        share: None,
    }
}

fn limit(name: &str, rule: Rule) -> Limit {
    Limit {
        name: name.into(),
        key: LimitKey::of(name),
        rule,
        models: None,
        is_visible: false,
    }
}

fn daily(name: &str) -> Limit {
    limit(name, Rule::Budget(budget(Period::Day)))
}

fn spend(entries: &mut [Entry], name: &str, amount: u64) {
    let mut accounts = accounts(entries, LimitKey::of(name));
    accounts.next().unwrap().spent = tokens(amount);
}

fn names(entries: &[Entry], names: &[&str]) -> Vec<Option<usize>> {
    let place = |name| {
        entries
            .iter()
            .position(|entry| entry.key == LimitKey::of(name))
    };
    names.iter().map(|&name| place(name)).collect()
}

// The values that stored records contain.
#[test]
fn the_hash_of_a_name_stays_what_it_is() {
    assert_eq!(LimitKey::of("budget"), LimitKey(1_310_692_100));
    assert_ne!(LimitKey::of("bucket"), LimitKey::of("budget"));
}

#[test]
fn states_stand_in_the_order_of_the_limits_and_those_without_one_come_last_while_they_are_of_use() {
    let mut entries = Vec::new();
    let [a, b, c] = ["a", "b", "c"].map(daily);
    roll_forward(&[a.clone(), b.clone(), c.clone()], &mut entries, at(0));
    spend(&mut entries, "a", 5);
    roll_forward(&[c, b], &mut entries, at(1));
    assert_eq!(
        names(&entries, &["c", "b", "a"]),
        [Some(0), Some(1), Some(2)]
    );
    // Nothing was spent on these limits.
    roll_forward(std::slice::from_ref(&a), &mut entries, at(2));
    assert_eq!(names(&entries, &["a", "b", "c"]), [Some(0), None, None]);
    roll_forward(&[], &mut entries, at(3));
    assert_eq!(names(&entries, &["a"]), [Some(0)]);
    roll_forward(&[], &mut entries, at(DAY));
    assert_eq!(entries, []);
}

#[test]
fn a_limit_that_becomes_another_kind_begins_anew_and_its_old_state_is_kept_a_while() {
    let hundred = NonZeroU64::new(100).unwrap();
    let quota = Quota {
        tokens_per_window: hundred,
        window: hundred,
        burst: hundred,
        low_water_mark: None,
        share: None,
    };
    let mut entries = Vec::new();
    roll_forward(&[daily("a")], &mut entries, at(0));
    spend(&mut entries, "a", 7);
    roll_forward(&[limit("a", Rule::Tokens(quota))], &mut entries, at(1));
    assert!(matches!(entries[0].state, State::Bucket(_)));
    roll_forward(&[daily("a")], &mut entries, at(2));
    assert_eq!(
        entries[0].account(LimitKey::of("a")).unwrap().spent,
        tokens(7)
    );
}

#[test]
fn however_many_limits_were_there_the_states_are_bounded() {
    let mut entries = Vec::new();
    for n in 0..100 {
        let name = format!("limit-{n}");
        roll_forward(&[daily(&name)], &mut entries, at(n));
        spend(&mut entries, &name, 1);
    }
    assert_eq!(entries.len(), ENTRIES);
}

#[test]
fn an_account_of_another_window_is_kept_beside_and_taken_up_again() {
    let (day, hour) = (budget(Period::Day), budget(Period::Hour));
    let mut account = Account::default();
    let mut others = Vec::new();
    roll_account(&mut account, &day, &mut others, at(0));
    account.spent = tokens(100);
    roll_account(&mut account, &hour, &mut others, at(1));
    assert_eq!(
        (account.spent, account.window),
        (tokens(100), Period::Hour.at(at(1)))
    );
    account.spent = tokens(103);
    roll_account(&mut account, &hour, &mut others, at(3_600));
    assert_eq!(account.spent, tokens(0));
    roll_account(&mut account, &day, &mut others, at(3_601));
    assert_eq!(
        (account.spent, account.window),
        (tokens(100), Period::Day.at(at(0)))
    );
    // A day later only the account in use is left.
    roll_account(&mut account, &day, &mut others, at(DAY));
    roll_forward(&[], &mut others, at(DAY));
    assert_eq!((account.spent, others), (tokens(0), Vec::new()));
}

#[test]
fn what_was_used_counts_in_every_window_that_the_request_came_in_and_in_no_later_one() {
    let (day, hour) = (budget(Period::Day), budget(Period::Hour));
    let mut account = Account::default();
    let mut others = Vec::new();
    roll_account(&mut account, &day, &mut others, at(0));
    let held = account.reserve(tokens(50), &day, at(0));
    roll_account(&mut account, &hour, &mut others, at(1));
    roll_account(&mut account, &hour, &mut others, at(3_600));
    account.settle_any(&held, tokens(20), Some(&hour), at(0));
    settle(
        &mut others,
        LimitKey::of(BUDGET),
        &held,
        tokens(20),
        Some(&hour),
        at(0),
    );
    assert_eq!(account.spent, tokens(0));
    roll_account(&mut account, &day, &mut others, at(3_600));
    assert_eq!((account.spent, account.held()), (tokens(20), tokens(0)));
}
