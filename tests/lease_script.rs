//! The script of the store in a real Redis and a real Valkey: that it does what the model of the property tests does, line by line, and
//! that the store's own ways of refusing are told for what they are.
#![cfg(all(unix, not(target_arch = "wasm32")))]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed set-up is a failed test"
)]

#[path = "lease_script/buckets.rs"]
mod buckets;
#[path = "lease_script/changes.rs"]
mod changes;
#[path = "lease_script/comparison.rs"]
mod comparison;
#[path = "lease_script/differential.rs"]
mod differential;
#[path = "support/engine.rs"]
mod engine;
#[path = "support/pool.rs"]
mod pool;
#[path = "lease_script/pressed.rs"]
mod pressed;
#[path = "lease_script/rates.rs"]
mod rates;
#[path = "support/redis.rs"]
#[allow(dead_code, reason = "the simulation needs more of it")]
mod redis;

use bursar::base::units::Timestamp;
use bursar::calendar::window::Window;
use bursar::lease::call::{AnyLine, Call, Failed, LINES, Login, SCRIPT, SCRIPT_SHA};
use bursar::lease::line::{Account, Answer, Holder, Line, MOST, NoAnswer, Status};
use bursar::lease::resp::Refusal;
use redis::{SERVERS, Store};

/// What the user of the store needs, as the documentation has it.
const RULES: &str = "resetkeys ~bursar:* -@all +auth +quit +time +eval +evalsha +hmget +hset +hrandfield +hdel +expireat";

/// A day that is open, by the store's clock.
fn today(store: &Store) -> Window {
    let told = store.run(&["TIME"]);
    let seconds: u64 = told.split("\r\n").nth(2).unwrap().parse().unwrap();
    let start = Timestamp::from_secs(seconds - 3_600);
    Window {
        start,
        end: Timestamp::from_secs(seconds + 82_800),
    }
}

fn account(window: Window) -> Account<'static> {
    Account {
        domain: "llm",
        subject: &["acme"],
        limit: "day",
        unit: "usd",
        generation: 0,
        window,
    }
}

fn line(seq: u64, window: Window) -> Line {
    Line {
        holder: Holder(7),
        seq,
        granted: 0,
        used: 0,
        want: 100,
        least: 0,
        budget: 1_000,
        window,
        reclaim: 0,
        born: 0,
        relearn: 20_000,
    }
}

type Answers = Result<Vec<Result<Answer, NoAnswer>>, Failed>;

fn call(store: &Store, login: Option<Login<'_>>, lines: &[Line], script: bool) -> Answers {
    let keys: Vec<_> = lines
        .iter()
        .map(|line| account(line.window).key())
        .collect();
    let with_keys = keys.iter().map(String::as_str).zip(lines.iter().copied());
    let (call, body) = Call::write(login, with_keys, script);
    call.read(Some(b"200"), &store.call(&body))
        .map(|answers| answers.lines)
}

fn one(store: &Store, login: Option<Login<'_>>, line: Line) -> Result<Answer, NoAnswer> {
    call(store, login, &[line], true).unwrap().remove(0)
}

fn refusal(answer: Result<Answer, NoAnswer>) -> Refusal {
    match answer {
        Err(NoAnswer::Refused(refusal, _)) => refusal,
        other => panic!("no refusal: {other:?}"),
    }
}

/// With each of the servers.
fn with_stores(test: impl Fn(&Store)) {
    for server in SERVERS {
        test(&Store::start(server));
    }
}

// A restarted store has no scripts any more.
#[test]
fn the_script_is_brought_once_and_called_by_its_hash() {
    with_stores(|store| {
        let window = today(store);
        let unknown = call(store, None, &[line(1, window)], false)
            .unwrap()
            .remove(0);
        assert_eq!(refusal(unknown), Refusal::NoScript);
        let lines = [line(1, window), line(2, window)];
        let brought = call(store, None, &lines, true).unwrap();
        assert!(brought.iter().all(Result::is_ok), "{brought:?}");
        let known = call(store, None, &[line(3, window)], false)
            .unwrap()
            .remove(0)
            .unwrap();
        assert_eq!(
            (known.status, known.grant, known.total, known.free),
            (Status::Granted, 100, 100, 900)
        );
        assert!(store.run(&["SCRIPT", "EXISTS", SCRIPT_SHA]).contains(":1"));
    });
}

#[test]
fn as_many_lines_as_a_call_takes_have_as_many_answers() {
    with_stores(|store| {
        let window = today(store);
        let lines: Vec<_> = (1..=300).map(|seq| line(seq, window)).collect();
        let answers = call(store, None, &lines, true).unwrap();
        assert_eq!(answers.len(), LINES);
        assert!(
            answers
                .iter()
                .all(|answer| answer.as_ref().is_ok_and(|answer| answer.grant == 100))
        );
    });
}

/// The login of a user whom the store gives these rights.
fn user(store: &Store, rules: &str) -> Login<'static> {
    let mut words = vec!["ACL", "SETUSER", "bursar", "on", ">secret"];
    words.extend(rules.split(' '));
    assert_eq!(store.run(&words), "+OK\r\n");
    Login {
        user: "bursar",
        password: "secret",
    }
}

#[test]
fn a_user_with_these_rights_can_say_lines_and_nothing_else() {
    assert!(include_str!("../src/lease.rs").contains(RULES));
    with_stores(|store| {
        let login = user(store, RULES);
        let silent = Line {
            reclaim: 1,
            ..line(1, today(store))
        };
        assert_eq!(one(store, Some(login), silent).unwrap().grant, 100);
        let other = Call::write(Some(login), [("other:key", line(1, today(store)))], true);
        let answers = other
            .0
            .read(Some(b"200"), &store.call(&other.1))
            .unwrap()
            .lines;
        assert_eq!(refusal(answers[0].clone()), Refusal::NotAllowed);
        let auth = "*3\r\n$4\r\nAUTH\r\n$6\r\nbursar\r\n$6\r\nsecret\r\n";
        for forbidden in [
            "FLUSHALL",
            "KEYS *",
            "CONFIG GET *",
            "DEL bursar:x",
            "ACL LIST",
            "SCRIPT FLUSH",
            "GET bursar:x",
        ] {
            let told = store.call(format!("{auth}{forbidden}\r\n").as_bytes());
            let told = String::from_utf8(told).unwrap();
            assert!(told.starts_with("+OK\r\n-NOPERM"), "{forbidden}: {told}");
        }
        let wrong = Login {
            user: "bursar",
            password: "other",
        };
        let failed = |login, silent| match call(store, login, &[silent], true) {
            Err(Failed::Refused(refusal, _)) => refusal,
            other => panic!("no refusal: {other:?}"),
        };
        assert_eq!(failed(Some(wrong), silent), Refusal::NotAllowed);
        // A store that lets nobody in without a login closes the connection over the first line.
        store.run(&["ACL", "SETUSER", "default", "off"]);
        assert_eq!(failed(Some(wrong), silent), Refusal::NotAllowed);
        assert_eq!(failed(None, silent), Refusal::NotAllowed);
    });
}

// What a refused line would have changed must not be there by half.
#[test]
fn a_store_that_cannot_write_changes_nothing_and_says_why() {
    with_stores(|store| {
        let window = today(store);
        let key = account(window).key();
        assert_eq!(one(store, None, line(1, window)).unwrap().grant, 100);
        let before = store.run(&["HGETALL", &key]);
        store.run(&["CONFIG", "SET", "maxmemory", "1"]);
        assert_eq!(
            refusal(one(store, None, line(2, window))),
            Refusal::OutOfMemory
        );
        store.run(&["CONFIG", "SET", "maxmemory", "0"]);
        assert_eq!(store.run(&["HGETALL", &key]), before);
        // A replica of a primary that is not there keeps what it has.
        store.run(&["REPLICAOF", "127.0.0.1", "1"]);
        assert_eq!(
            refusal(one(store, None, line(2, window))),
            Refusal::ReadOnly
        );
        store.run(&["REPLICAOF", "NO", "ONE"]);
        assert_eq!(store.run(&["HGETALL", &key]), before);
        assert_eq!(one(store, None, line(2, window)).unwrap().total, 100);
    });
}

#[test]
fn what_is_no_account_is_refused_and_left_as_it_is() {
    with_stores(|store| {
        let window = today(store);
        let key = account(window).key();
        for (command, shown) in [
            (["SET", &key, "1", ""], "GET"),
            (["HSET", &key, "a", "1 2 x"], "HGETALL"),
        ] {
            store.run(&["DEL", &key]);
            let words: Vec<_> = command
                .into_iter()
                .filter(|word| !word.is_empty())
                .collect();
            store.run(&words);
            let before = store.run(&[shown, &key]);
            assert_eq!(refusal(one(store, None, line(1, window))), Refusal::Other);
            assert_eq!(store.run(&[shown, &key]), before);
        }
    });
}

#[test]
fn arguments_that_are_no_numbers_are_refused() {
    with_stores(|store| {
        for wrong in ["", "-1", "1.5", "1e3", "0x10", "nan", "99999999999999999"] {
            let mut words = vec!["EVAL", SCRIPT, "1", "bursar:{x}:usd:0:0", "07"];
            words.extend(["1", "0", "0", wrong, "0", "9", "0", "0", "0", "0", "0"]);
            let told = store.run(&words);
            assert!(
                told.starts_with("-ERR bursar: argument 5 is no number"),
                "{wrong}: {told}"
            );
            assert_eq!(store.run(&["DBSIZE"]), ":0\r\n");
        }
    });
}

// An account that goes in the middle of its window, or with its last line, forgets what was spent.
#[test]
fn an_account_is_kept_for_a_day_after_its_window_and_its_last_line() {
    with_stores(|store| {
        let open = today(store);
        let ended = Window {
            end: Timestamp::from_secs(open.start.as_secs() + 3_590),
            ..open
        };
        let never = Window {
            start: Timestamp::default(),
            end: Timestamp::MAX,
        };
        for (window, least, most) in [
            (open, 169_200, 172_900),
            (ended, 86_400, 90_001),
            (never, -1, -1),
        ] {
            store.run(&["FLUSHALL"]);
            assert_eq!(one(store, None, line(1, window)).unwrap().grant, 100);
            let left = store.run(&["TTL", &account(window).key()]);
            let left: i64 = left.trim_start_matches(':').trim_end().parse().unwrap();
            assert!((least..=most).contains(&left), "{left} of {window:?}");
        }
    });
}

#[test]
fn a_window_that_is_not_open_by_the_stores_clock_has_no_account() {
    with_stores(|store| {
        let day = today(store);
        let at = |from: u64, to: u64| Window {
            start: Timestamp::from_secs(day.start.as_secs() + from),
            end: Timestamp::from_secs(day.start.as_secs() + to),
        };
        for (window, status) in [
            (at(3_700, 9_000), Status::TooEarly),
            (at(0, 3_500), Status::TooLate),
        ] {
            let answer = one(store, None, line(1, window)).unwrap();
            assert_eq!((answer.status, answer.grant), (status, 0));
            assert!(answer.now / 1_000 >= day.start.as_secs() + 3_600);
            assert_eq!(store.run(&["DBSIZE"]), ":0\r\n");
        }
    });
}

#[test]
fn budgets_are_exact_up_to_the_largest_number() {
    with_stores(|store| {
        let window = today(store);
        let all = Line {
            want: MOST,
            least: MOST - 1,
            budget: MOST,
            ..line(1, window)
        };
        let answer = one(store, None, all).unwrap();
        assert_eq!(
            (answer.grant, answer.total, answer.free),
            (MOST - 1, MOST - 1, 1)
        );
        let rest = Line {
            holder: Holder(8),
            least: 5,
            ..all
        };
        let answer = one(store, None, rest).unwrap();
        assert_eq!((answer.grant, answer.total, answer.free), (1, MOST, 0));
        let back = Line {
            seq: 2,
            granted: MOST - 3,
            want: 0,
            ..all
        };
        assert_eq!(one(store, None, back).unwrap().free, 2);
        assert!(
            store
                .run(&["HGETALL", &account(window).key()])
                .contains("2 9007199254740989 0 ")
        );
    });
}

// Two versions of the filter may speak about one account.
#[test]
fn numbers_that_later_versions_append_stay() {
    with_stores(|store| {
        let window = today(store);
        let key = account(window).key();
        one(store, None, line(1, window)).unwrap();
        let whole = store.run(&["HMGET", &key, "a"]);
        let whole = whole.split("\r\n").nth(2).unwrap().to_owned();
        store.run(&[
            "HSET",
            &key,
            "a",
            &format!("{whole} 77 88"),
            "p:old",
            "3 50 20 1 99",
            "z",
            "new",
        ]);
        // Every other field is drawn sooner or later.
        for seq in 2..200 {
            one(
                store,
                None,
                Line {
                    reclaim: 1,
                    ..line(seq, window)
                },
            )
            .unwrap();
        }
        let told = store.run(&["HMGET", &key, "a", "p:old", "z"]);
        assert!(
            told.contains(" 77 88\r\n")
                && told.contains("3 20 20 1 99\r\n")
                && told.contains("new"),
            "{told}"
        );
    });
}

// Accounts of the version before know no budget, and no changes.
#[test]
fn an_account_of_the_version_before_is_taken_as_it_is() {
    with_stores(|store| {
        let window = today(store);
        let key = account(window).key();
        assert_eq!(one(store, None, line(1, window)).unwrap().total, 100);
        let whole = store.run(&["HGET", &key, "a"]);
        let whole = whole.split("\r\n").nth(1).unwrap().to_owned();
        let (older, budget) = whole.rsplit_once(' ').unwrap();
        assert_eq!(budget, "1000");
        store.run(&["HSET", &key, "a", older]);
        let answer = one(store, None, line(2, window)).unwrap();
        assert_eq!((answer.total, answer.generation, answer.raise), (100, 0, 0));
        assert!(store.run(&["HGET", &key, "a"]).contains(&whole));
    });
}
