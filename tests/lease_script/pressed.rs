//! What proxies report to each other about upstreams that refuse.

use bursar::lease::call::{Answers, Call, PRESSED_SHA};
use bursar::lease::line::{Account, NoAnswer};
use bursar::lease::pressed::{MOST, Pressed};
use bursar::lease::resp::Refusal;

use crate::redis::Store;
use crate::{RULES, line, today, user, with_stores};

const MINUTE: u64 = 60_000;

fn pressed(model: u64, ago: u64, wait: u64) -> Pressed {
    Pressed { model, ago, wait }
}

/// The models that the store has after this report, with the rest of their waits in minutes, rounded up.
fn report(store: &Store, news: &[Pressed]) -> Vec<(u64, u64)> {
    let key = Account::pressed_key("llm");
    let (call, body) = Call::write_any(None, [], Some((&key, news)), true);
    let answers = call.read(Some(b"200"), &store.call(&body)).unwrap();
    let mut all: Vec<_> = answers
        .pressed
        .unwrap()
        .unwrap()
        .iter()
        .map(|one| (one.model, one.wait.div_ceil(MINUTE)))
        .collect();
    all.sort_unstable();
    all
}

#[test]
fn what_one_proxy_reports_all_of_them_hear() {
    with_stores(|store| {
        assert_eq!(report(store, &[]), []);
        let news = [pressed(u64::MAX, 0, 2 * MINUTE), pressed(7, 100, MINUTE)];
        assert_eq!(report(store, &news), [(7, 1), (u64::MAX, 2)]);
        assert_eq!(report(store, &[]), [(7, 1), (u64::MAX, 2)]);
        // It is forgotten a day after the last change.
        let ttl = store.run(&["TTL", &Account::pressed_key("llm")]);
        let seconds: u64 = ttl.trim().trim_start_matches(':').parse().unwrap();
        assert!((86_390..=86_400).contains(&seconds), "{seconds}");
    });
}

#[test]
fn of_two_reports_the_one_about_the_later_time_counts() {
    with_stores(|store| {
        assert_eq!(report(store, &[pressed(7, 10_000, MINUTE)]), [(7, 1)]);
        // Served what was sent before the refusal: that proves nothing.
        assert_eq!(report(store, &[pressed(7, 20_000, 0)]), [(7, 1)]);
        assert_eq!(report(store, &[pressed(7, 5_000, 0)]), []);
        // The refusal is reported again, since its answer was lost; and by one who was refused then, too.
        assert_eq!(report(store, &[pressed(7, 10_500, MINUTE)]), []);
        assert_eq!(report(store, &[pressed(7, 8_000, MINUTE)]), []);
        // It refuses again. A shorter wait does not end a longer one.
        assert_eq!(report(store, &[pressed(7, 1_000, 3 * MINUTE)]), [(7, 3)]);
        assert_eq!(report(store, &[pressed(7, 0, MINUTE)]), [(7, 3)]);
        // Served, of which the store knows nothing.
        assert_eq!(report(store, &[pressed(8, 0, 0)]), [(7, 3)]);
    });
}

#[test]
fn a_wait_that_is_over_is_no_success() {
    with_stores(|store| {
        let now = store.run(&["TIME"]);
        let seconds: u64 = now.split("\r\n").nth(2).unwrap().parse().unwrap();
        let key = Account::pressed_key("llm");
        let at = |ago: u64| {
            format!(
                "{} {}",
                (seconds - ago - 60) * 1_000,
                (seconds - ago) * 1_000
            )
        };
        store.run(&[
            "HSET",
            &key,
            "0000000000000007",
            &at(60),
            "0000000000000008",
            &at(4_000),
        ]);
        // After an hour it is forgotten.
        assert_eq!(report(store, &[]), [(7, 0)]);
        assert!(store.run(&["HLEN", &key]).contains(":1"));
    });
}

#[test]
fn the_store_keeps_a_bounded_number_of_models() {
    with_stores(|store| {
        let news: Vec<_> = (0..200).map(|model| pressed(model, 0, MINUTE)).collect();
        for part in news.chunks(20) {
            report(store, part);
        }
        assert_eq!(report(store, &[]).len(), MOST);
        let total = store.run(&["HLEN", &Account::pressed_key("llm")]);
        assert_eq!(total, format!(":{MOST}\r\n"));
        // One that is known is changed all the same.
        let known = report(store, &[])[0].0;
        assert!(report(store, &[pressed(known, 0, 5 * MINUTE)]).contains(&(known, 5)));
    });
}

// The rights of the user are those that accounts need.
#[test]
fn it_rides_in_a_call_with_lines_and_needs_no_other_rights() {
    with_stores(|store| {
        let login = Some(user(store, RULES));
        let (window, key) = (today(store), Account::pressed_key("llm"));
        let account = crate::account(window).key();
        let say = |seq, news: &[Pressed], script| {
            let lines = [(account.as_str(), crate::AnyLine::Budget(line(seq, window)))];
            let (call, body) = Call::write_any(login, lines, Some((&key, news)), script);
            call.read(Some(b"200"), &store.call(&body)).unwrap()
        };
        let Answers {
            lines,
            pressed: told,
        } = say(1, &[pressed(7, 0, MINUTE)], false);
        for fault in [lines[0].as_ref().unwrap_err(), &told.unwrap().unwrap_err()] {
            assert!(matches!(fault, NoAnswer::Refused(Refusal::NoScript, _)));
        }
        let Answers {
            lines,
            pressed: told,
        } = say(2, &[pressed(7, 0, MINUTE)], true);
        assert_eq!(lines[0].as_ref().unwrap().grant, 100);
        assert_eq!(told.unwrap().unwrap().len(), 1);
        let Answers {
            lines,
            pressed: told,
        } = say(3, &[pressed(7, 0, 0)], false);
        assert!(lines[0].is_ok());
        assert_eq!(told, Some(Ok(Vec::new())));
        assert!(store.run(&["SCRIPT", "EXISTS", PRESSED_SHA]).contains(":1"));
    });
}
