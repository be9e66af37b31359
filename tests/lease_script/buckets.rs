//! Lines about buckets, beside those about budgets and by whom the store lets say them.

use bursar::lease::call::{AnyLine, Call, Login, RATES, RATES_SHA, SCRIPT, SCRIPT_SHA};
use bursar::lease::line::{Account, Answer, Holder};
use bursar::lease::rate::RateLine;

use crate::redis::Store;
use crate::{RULES, account, today, user, with_stores};

/// A line of this holder about a bucket.
fn rate_line(holder: u64, share: u64) -> RateLine {
    RateLine {
        holder: Holder(holder),
        seq: 1,
        share,
        demand: 500_000,
        least: 0,
        back: 0,
        fill: 60_000,
        silence: 0,
        born: 0,
        relearn: 20_000,
    }
}

fn rate(store: &Store, login: Option<Login<'_>>, line: RateLine) -> Answer {
    let key = Account::bucket_key("llm", "acme", "bucket");
    let lines = [(key.as_str(), AnyLine::Bucket(line))];
    let (call, body) = Call::write_any(login, lines, None, true);
    let mut answers = call.read(Some(b"200"), &store.call(&body)).unwrap().lines;
    answers.remove(0).unwrap()
}

// Each kind is brought by the first of its lines.
#[test]
fn one_call_has_lines_of_both_kinds() {
    with_stores(|store| {
        let bucket = Account::bucket_key("llm", "acme", "bucket");
        let budget = account(today(store)).key();
        let lines = [1, 2, 3].map(|seq| {
            let line = RateLine {
                seq,
                ..rate_line(7, 0)
            };
            [
                (
                    budget.as_str(),
                    AnyLine::Budget(crate::line(seq, today(store))),
                ),
                (bucket.as_str(), AnyLine::Bucket(line)),
            ]
        });
        let (call, body) = Call::write_any(None, lines.into_iter().flatten(), None, true);
        let answers = call.read(Some(b"200"), &store.call(&body)).unwrap().lines;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 6);
        for sha in [SCRIPT_SHA, RATES_SHA] {
            assert!(store.run(&["SCRIPT", "EXISTS", sha]).contains(":1"));
        }
        for script in [SCRIPT, RATES] {
            assert!(!script.contains("--") && script.contains("\nreturn {GRANTED, "));
        }
        // An account is kept for as long as it takes to be full, and a day.
        let ttl = store.run(&["TTL", &bucket]);
        let seconds: u64 = ttl.trim().trim_start_matches(':').parse().unwrap();
        assert!((86_400..86_400 + 7_200).contains(&seconds), "{seconds}");
    });
}

// With the rights of an operator's file that is older than buckets, too.
#[test]
fn the_share_of_one_that_is_silent_comes_back() {
    let older = RULES.replace("+hdel ", "");
    for (rules, is_kept) in [(RULES, false), (older.as_str(), true)] {
        with_stores(|store| {
            let login = Some(user(store, rules));
            assert_eq!(rate(store, login, rate_line(1, 900_000)).grant, 0);
            // It draws two of three fields.
            let mut line = rate_line(2, 0);
            while rate(store, login, line).set > 900_000 {
                line.seq += 1;
            }
            let key = Account::bucket_key("llm", "acme", "bucket");
            let left = store.run(&["HGET", &key, "p:0000000000000001"]);
            assert_eq!(left.contains("0 0 0 0"), is_kept, "{left}");
            assert_eq!(left.contains("$-1"), !is_kept, "{left}");
        });
    }
}
