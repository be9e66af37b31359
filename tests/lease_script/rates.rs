//! The same of lines about buckets: random ones at random times, to the script and to the model.

use std::collections::BTreeMap;

use bursar::lease::call::{AnyLine, Call, RATES};
use bursar::lease::line::{self, Holder, Status};
use bursar::lease::rate::{RateAnswer, RateLine};
use bursar::lease::resp::{Reply, push_command, replies};
use bursar::limits::bucket::WHOLE;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::pool::{self, Entry, Pool};
use crate::redis::{SERVERS, Store};

/// The script with the test's clock in the place of the store's.
fn script() -> String {
    let clock = "redis.call('TIME')";
    assert_eq!(RATES.matches(clock).count(), 1);
    RATES.replace(clock, "{ARGV[11], ARGV[12]}")
}

/// Later than any store's clock: what expires in the past is gone.
const START: u64 = 4_000_000_000_000;

fn key() -> String {
    line::Account::bucket_key("llm", "acme", "bucket")
}

/// A line at the store's time.
fn any_said() -> impl Strategy<Value = Vec<(RateLine, u64)>> {
    let part = || prop_oneof![Just(0), 0..400_000_u64, 0..=WHOLE];
    let line = (
        0..4_u64,
        0..30_u64,
        part(),
        prop_oneof![part(), 0..=1_000_000_000_u64],
        part(),
        part(),
    );
    let rest = (
        prop_oneof![0..200_u64, 0..100_000_u64, Just(2_600_000_000)],
        0..3_u64,
        prop_oneof![0..900_u64, 0..60_000_u64],
    );
    prop::collection::vec((line, rest), 1..40).prop_map(|said| {
        let (mut now, mut seqs) = (START, [0; 4]);
        let said = said.into_iter();
        said.map(
            |((holder, seq, share, demand, least, back), (fill, born, passes))| {
                now += passes;
                // The clock may be set back.
                if passes % 17 == 3 {
                    now = now.saturating_sub(25_000).max(START);
                }
                // Mostly the next number, now and then an old one.
                let last = &mut seqs[usize::try_from(holder).unwrap()];
                *last = if seq < 25 { *last + 1 } else { seq - 24 };
                let line = RateLine {
                    holder: Holder(holder),
                    seq: *last,
                    share,
                    demand,
                    least,
                    back,
                    fill,
                    silence: 20_000,
                    born,
                    relearn: 5_000,
                };
                (line, now)
            },
        )
        .collect()
    })
}

/// One line in the script's own words, with the time.
fn push(body: &mut Vec<u8>, script: &str, line: RateLine, now: u64) {
    let key = key();
    let (_, written) = Call::write_any(None, [(key.as_str(), AnyLine::Bucket(line))], true);
    // A command is written as a reply is: the line, and the end.
    let read = replies(&written, 2).unwrap();
    let Reply::Array(Some(words)) = &read[0] else {
        panic!("no command")
    };
    let words = words.iter().map(|word| match word {
        Reply::Bulk(Some(word)) => *word,
        other => panic!("no word: {other:?}"),
    });
    let mut words: Vec<_> = words.collect();
    words[1] = script.as_bytes();
    let time = [(now / 1_000).to_string(), (now % 1_000 * 1_000).to_string()];
    words.extend(time.iter().map(String::as_bytes));
    push_command(body, &words);
}

fn answer(reply: &Reply<'_>) -> RateAnswer {
    let Reply::Array(Some(fields)) = reply else {
        panic!("{reply:?}")
    };
    let numbers = fields.iter().map(|field| match field {
        Reply::Integer(number) => u64::try_from(*number).unwrap(),
        other => panic!("{other:?}"),
    });
    let [status, first, target, level, holders, _, born, asked, _, _] =
        <[u64; 10]>::try_from(numbers.collect::<Vec<_>>()).unwrap();
    let (status, grant) = match status {
        0 => (Status::Granted, first),
        _ => (Status::Stale { latest: first }, 0),
    };
    RateAnswer {
        status,
        grant,
        target,
        level,
        holders,
        born,
        asked,
    }
}

fn look(store: &Store) -> Option<Pool> {
    let mut body = Vec::new();
    push_command(&mut body, &[b"HGETALL", key().as_bytes()]);
    let told = store.call(&body);
    let told = replies(&told, 1).unwrap();
    let Reply::Array(Some(fields)) = &told[0] else {
        panic!("{told:?}")
    };
    let texts = fields.iter().map(|field| match field {
        Reply::Bulk(Some(text)) => std::str::from_utf8(text).unwrap(),
        other => panic!("{other:?}"),
    });
    let texts: Vec<_> = texts.collect();
    let mut pool = None;
    let mut entries = BTreeMap::new();
    for pair in texts.chunks(2) {
        let numbers = pair[1].split(' ').map(|number| number.parse().unwrap());
        let told: Vec<u64> = numbers.collect();
        if pair[0] == "a" {
            pool = Some(told);
        } else {
            let holder = u64::from_str_radix(pair[0].strip_prefix("p:").unwrap(), 16).unwrap();
            let [seq, share, demand, heard] = <[u64; 4]>::try_from(told).unwrap();
            let entry = Entry {
                seq,
                share,
                demand,
                heard,
            };
            entries.insert(holder, entry);
        }
    }
    let [total, asked, holders, level, since, born, learning, _] =
        <[u64; 8]>::try_from(pool?).unwrap();
    Some(Pool {
        total,
        asked,
        holders,
        level,
        since,
        born,
        learning,
        entries,
    })
}

/// What the model may come to: the script draws two entries, or fewer, since it may draw the bucket's own field.
fn outcomes(stored: Option<&Pool>, line: &RateLine, now: u64) -> Vec<(RateAnswer, Option<Pool>)> {
    let holders = stored.iter().flat_map(|pool| pool.entries.keys().copied());
    let holders: Vec<_> = holders.collect();
    let mut draws = vec![vec![]];
    for (at, &one) in holders.iter().enumerate() {
        draws.push(vec![one]);
        draws.extend(holders[..at].iter().map(|&other| vec![one, other]));
    }
    let outcome = |drawn: Vec<u64>| {
        let mut pool = stored.cloned();
        (pool::take(&mut pool, line, now, &drawn), pool)
    };
    draws.into_iter().map(outcome).collect()
}

fn compare(store: &Store, script: &str, said: &[(RateLine, u64)]) -> Result<(), TestCaseError> {
    store.run(&["FLUSHALL"]);
    let mut pool: Option<Pool> = None;
    for &(line, now) in said {
        // 0: nothing is known; 1: another was known; 2: this one.
        let born = match (line.born, &pool) {
            (2, Some(pool)) => pool.born,
            (born, _) => born,
        };
        let line = RateLine { born, ..line };
        let mut body = Vec::new();
        push(&mut body, script, line, now);
        let told = store.call(&body);
        let told = replies(&told, 1).unwrap();
        if let Reply::Error(_, text) = &told[0] {
            prop_assert!(false, "{}", String::from_utf8_lossy(text));
        }
        let found = (answer(&told[0]), look(store));
        let outcomes = outcomes(pool.as_ref(), &line, now);
        prop_assert!(
            outcomes.contains(&found),
            "{line:?} at {now} gave {found:?}, not one of {outcomes:?}"
        );
        pool = found.1;
    }
    Ok(())
}

#[test]
fn script_and_model_agree_about_buckets() {
    let script = script();
    for server in SERVERS {
        let store = Store::start(server);
        let mut runner = TestRunner::default();
        let ran = runner.run(&any_said(), |said| compare(&store, &script, &said));
        if let Err(error) = ran {
            panic!("{server}: {error}");
        }
    }
}
