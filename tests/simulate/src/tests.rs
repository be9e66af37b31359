use std::sync::OnceLock;

use super::*;
use crate::report::{by_tenant, total};
use crate::tenants::{Request, TENANTS};
use crate::trace::{DAY, HOUR, Row, SECOND};

fn requests() -> Vec<Request> {
    tenants::spread(&trace::synthetic())
}

/// Our own day under each variant.
fn days() -> &'static [(&'static str, Day)] {
    static DAYS: OnceLock<Vec<(&str, Day)>> = OnceLock::new();
    DAYS.get_or_init(|| played(&requests()))
}

#[test]
fn the_committed_picture_is_what_is_drawn() {
    let is_so = include_str!("../day.svg") == picture::draw(&days()[..DRAWN], &tenants::percents());
    assert!(
        is_so,
        "make simulate, look at it, and: cp target/simulate/day.svg tests/simulate/day.svg"
    );
}

#[test]
fn every_variant_is_asked_the_same() {
    for (_, day) in days() {
        let asked: Vec<Request> = day.outcomes.iter().map(|outcome| outcome.request).collect();
        assert_eq!(asked, requests());
        assert_eq!(day.budgets, days()[0].1.budgets);
    }
}

#[test]
fn spend_is_the_sum_of_what_was_settled_and_no_more_than_the_budget() {
    for (name, day) in days() {
        let all = by_tenant(day);
        let served: u64 = total(&all).served.iter().sum();
        assert_eq!(served, day.payments.len() as u64);
        for ((tenant, figures), record) in TENANTS.iter().zip(&all).zip(&day.records) {
            assert_eq!(figures.spent, *record, "{name}, {}", tenant.name);
            // Each request names the longest answer and sends four bytes a token: what it reserves is never less than what it uses.
            assert!(figures.spent <= figures.budget, "{name}, {}", tenant.name);
        }
    }
}

#[test]
fn the_static_day_has_what_the_others_are_to_cure() {
    let all = by_tenant(&days()[0].1);
    let office = &all[0];
    assert_eq!((office.refused, office.first_refusal), (0, None));
    let lean = &all[5];
    assert!(
        lean.refused > 0 && lean.served.iter().all(|&served| served > 0),
        "{lean:?}"
    );
    assert_eq!(lean.switches, 2);
}

#[test]
fn pace_refuses_fewer_than_static_marks_that_spend_as_much_and_spends_more_than_those_that_refuse_as_few()
 {
    let [fixed, pace, as_much, as_few] =
        [0, 1, 2, 3].map(|index| total(&by_tenant(&days()[index].1)));
    assert!(pace.refused * 100 < fixed.refused);
    // Within half a percent.
    assert!(pace.spent.abs_diff(as_much.spent) * 200 < pace.spent);
    assert!(pace.refused * 50 < as_much.refused);
    assert!(as_few.refused <= pace.refused && as_few.spent * 10 < pace.spent * 9);
}

#[test]
fn a_trace_is_read_by_its_columns_and_starts_at_its_first_request() {
    let text = "GeneratedTokens,TIMESTAMP,ContextTokens\r\n\
                44,2024-03-01 00:00:00.0000001,374\r\n\
                7,2024-02-29 23:59:59.5,12\r\n";
    let rows = [(0, 12, 7), (SECOND / 2 + 100, 374, 44)];
    let rows = rows.map(|(at, prompt, output)| Row { at, prompt, output });
    assert_eq!(trace::read(text), Ok(rows.to_vec()));
}

#[test]
fn what_is_no_trace_is_told() {
    for (text, error) in [
        ("", "the first line has no column TIMESTAMP"),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n",
            "it has no rows",
        ),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\nnoon,1,2\n",
            "line 2: noon,1,2",
        ),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-03-01 00:00:00,1\n",
            "line 2: 2024-03-01 00:00:00,1",
        ),
    ] {
        assert_eq!(trace::read(text), Err(error.to_owned()));
    }
}

#[test]
fn a_short_trace_fills_the_day_and_a_long_one_is_cut_after_it() {
    let every = |step: u64, length: u64| -> Vec<Row> {
        let rows = (0..length).step_by(step as usize);
        rows.map(|at| Row {
            at,
            prompt: 1,
            output: 1,
        })
        .collect()
    };
    let day = trace::over_a_day(&every(SECOND, HOUR));
    let of_hour = |hour| day.iter().filter(|row| row.at / HOUR == hour).count();
    assert!(day.is_sorted() && day.last().unwrap().at < DAY);
    // A tenth and all of an hour's 3,600 are kept, drawn at random.
    assert!((300..420).contains(&of_hour(3)), "{}", of_hour(3));
    assert!(of_hour(11) > 3_300, "{}", of_hour(11));
    let long = every(HOUR / 2, 2 * DAY);
    assert_eq!(trace::over_a_day(&long), long[..48]);
}

/// Our own day in shares of one budget.
fn lent() -> &'static [(&'static str, Day)] {
    static DAYS: OnceLock<Vec<(&str, Day)>> = OnceLock::new();
    DAYS.get_or_init(|| lending::played(&requests()))
}

#[test]
fn the_committed_picture_of_lending_is_what_is_drawn() {
    let percents = lending::percents(&requests());
    let is_so = include_str!("../lending.svg") == picture::draw(&lent()[..DRAWN], &percents);
    assert!(
        is_so,
        "make simulate ARGS=--lending, look at it, and: cp target/simulate/day-lending.svg tests/simulate/lending.svg"
    );
}

#[test]
fn shares_that_are_lent_refuse_fewer_than_fixed_ones_and_nobody_within_what_is_never_lent() {
    let [fixed, shares, none] = [0, 1, 2].map(|index| total(&by_tenant(&lent()[index].1)));
    assert!(
        shares.refused * 4 < fixed.refused * 3,
        "{shares:?} {fixed:?}"
    );
    assert!(shares.spent > fixed.spent && none.spent <= none.budget);
    let within = |index: usize| {
        lending::refused_within(&lent()[index].1)
            .iter()
            .sum::<u64>()
    };
    assert_eq!((within(0), within(1)), (0, 0));
    assert!(within(2) > 0);
}

/// Every second request of our own day by what is held, with the mildest assumptions and the harshest.
fn held() -> &'static [holds::Held] {
    static DAYS: OnceLock<Vec<holds::Held>> = OnceLock::new();
    DAYS.get_or_init(|| {
        let [mildest, .., harshest] = holds::ASSUMED;
        let requests: Vec<Request> = requests().into_iter().step_by(2).collect();
        holds::played(&requests, &[mildest, harshest])
    })
}

#[test]
fn what_requests_use_beyond_their_holds_is_nothing_with_ceiling_and_a_hundredth_of_each_budget_at_most_with_likely()
 {
    for held in held() {
        let over = held.over();
        let told: u64 = held.day.payments.iter().map(|paid| paid.told_over).sum();
        assert_eq!(told, over.iter().sum::<u64>(), "{}", held.assumed);
        for (over, budget) in over.into_iter().zip(&held.day.budgets) {
            let most = if held.mode == "likely" {
                budget / 100
            } else {
                0
            };
            assert!(over <= most, "{}: {over} of {budget}", held.assumed);
        }
    }
}

#[test]
fn likely_holds_less_than_ceiling_and_what_is_used_is_charged_in_both() {
    let of = |held: &holds::Held| -> u64 {
        let payments = held.day.payments.iter();
        payments.map(|paid| paid.held_there).sum()
    };
    let [mild, likely, harsh, also_likely] = held() else {
        panic!("two assumptions in two modes")
    };
    assert!(of(likely) * 10 < of(mild) * 6 && of(also_likely) * 2 < of(harsh));
    for held in held() {
        // Cached tokens are charged as such.
        let spent: Vec<u64> = by_tenant(&held.day).iter().map(|one| one.spent).collect();
        assert_eq!(spent, held.day.records, "{} {}", held.mode, held.assumed);
    }
}
