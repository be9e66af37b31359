//! What an operator changes beside an account: raised, set, begun anew.

use bursar::lease::call::Call;
use bursar::lease::line::{Account, Line, MOST, Status};
use bursar::lease::resp::Refusal;

use crate::{account, line, one, refusal, today, with_stores};

/// What an operator's changes of [`account`] are in.
const LIMIT: &str = "bursar:{llm/acme/day}:usd";

#[test]
fn a_raise_counts_until_it_ends_and_is_told() {
    with_stores(|store| {
        let window = today(store);
        let all = |seq| Line {
            want: MOST,
            least: MOST,
            ..line(seq, window)
        };
        let hour = (window.end.as_secs() * 1_000).to_string();
        store.run(&["HSET", LIMIT, "raise", "500", "until", &hour]);
        let answer = one(store, None, all(1)).unwrap();
        assert_eq!((answer.grant, answer.free, answer.raise), (1_500, 0, 500));
        let kept = |seq| Line {
            granted: 1_500,
            ..all(seq)
        };
        store.run(&["HSET", LIMIT, "until", "1"]);
        let answer = one(store, None, kept(2)).unwrap();
        assert_eq!((answer.grant, answer.total, answer.raise), (0, 1_500, 0));
        // Without an end it is until told otherwise, and never beyond what the store counts exactly.
        store.run(&["HSET", LIMIT, "raise", "9007199254740992"]);
        store.run(&["HDEL", LIMIT, "until"]);
        let answer = one(store, None, kept(3)).unwrap();
        assert_eq!(answer.total, MOST);
    });
}

#[test]
fn what_is_set_stands_in_the_place_of_the_budget_of_a_line_and_a_raise_is_beside_it() {
    with_stores(|store| {
        let window = today(store);
        let all = |seq| Line {
            want: MOST,
            least: MOST,
            ..line(seq, window)
        };
        store.run(&["HSET", LIMIT, "set", "300", "raise", "50"]);
        let answer = one(store, None, all(1)).unwrap();
        let told = (answer.grant, answer.free, answer.set, answer.raise);
        assert_eq!(told, (350, 0, 300, 50));
        // Lowered below what is granted: nothing more is.
        store.run(&["HSET", LIMIT, "set", "100"]);
        let kept = Line {
            granted: 350,
            ..all(2)
        };
        let answer = one(store, None, kept).unwrap();
        assert_eq!((answer.grant, answer.total), (0, 350));
    });
}

// The line is about what was spent before; of the new account its sender has only what the answer says.
#[test]
fn after_a_reset_a_line_about_the_account_before_counts_in_the_new_one_from_nothing() {
    with_stores(|store| {
        let window = today(store);
        let before = Line {
            want: MOST,
            least: MOST,
            ..line(1, window)
        };
        assert_eq!(one(store, None, before).unwrap().free, 0);
        let old = store.run(&["HGETALL", &account(window).key()]);
        store.run(&["HSET", LIMIT, "generation", "1700000000000"]);
        let spent = Line {
            granted: 1_000,
            used: 1_000,
            born: 5,
            ..line(2, window)
        };
        let answer = one(store, None, spent).unwrap();
        assert_eq!((answer.status, answer.grant), (Status::Granted, 100));
        assert_eq!((answer.total, answer.free), (100, 900));
        assert_eq!(answer.generation, 1_700_000_000_000);
        // Nobody has heard that: it is granted once.
        let again = Line { seq: 3, ..spent };
        assert_eq!(one(store, None, again).unwrap().total, 100);
        // What is late is late there too, and the old account stays as it was.
        let late = one(store, None, spent).unwrap();
        assert_eq!(late.status, Status::Stale { latest: 3 });
        assert_eq!(store.run(&["HGETALL", &account(window).key()]), old);
    });
}

#[test]
fn a_store_that_forgot_a_reset_hears_of_it() {
    with_stores(|store| {
        let window = today(store);
        let later = Account {
            generation: 7,
            ..account(window)
        };
        let (call, body) = Call::write(None, [(later.key().as_str(), line(1, window))], true);
        let answers = call.read(Some(b"200"), &store.call(&body)).unwrap().lines;
        let answer = answers[0].as_ref().unwrap();
        assert_eq!((answer.grant, answer.generation), (100, 7));
        assert!(
            store
                .run(&["HGET", LIMIT, "generation"])
                .contains("\r\n7\r\n")
        );
        assert_eq!(one(store, None, line(2, window)).unwrap().generation, 7);
    });
}

#[test]
fn changes_that_are_no_numbers_are_refused_and_nothing_is_granted() {
    with_stores(|store| {
        let window = today(store);
        for field in ["generation", "set", "raise", "until"] {
            for wrong in ["", "-1", "1.5", "1e3", "99999999999999999"] {
                store.run(&["HSET", LIMIT, field, wrong]);
                assert_eq!(refusal(one(store, None, line(1, window))), Refusal::Other);
                store.run(&["DEL", LIMIT]);
            }
        }
        assert_eq!(store.run(&["DBSIZE"]), ":0\r\n");
    });
}
