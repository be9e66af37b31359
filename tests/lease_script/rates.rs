//! The same of lines about buckets: random ones at random times, to the script and to the model.

use bursar::lease::call::{AnyLine, Call, RATES};
use bursar::lease::line::{self, Holder, Status};
use bursar::lease::quota::WHOLE;
use bursar::lease::rate::{RateAnswer, RateLine};
use bursar::lease::resp::{push_command, replies};
use proptest::prelude::*;

use crate::comparison::{agree, hash, say};
use crate::pool::{self, Entry, Pool};
use crate::redis::{Store, with_clock};

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

fn answer(numbers: [u64; 10]) -> RateAnswer {
    let [status, first, target, level, holders, _, born, asked, _, _] = numbers;
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
    let (whole, entries) = hash(&told[0])?;
    let [total, asked, holders, level, since, born, learning, _] = whole;
    let entries = entries.into_iter();
    let entries = entries.map(|(holder, [seq, share, demand, heard])| {
        let entry = Entry {
            seq,
            share,
            demand,
            heard,
        };
        (holder, entry)
    });
    Some(Pool {
        total,
        asked,
        holders,
        level,
        since,
        born,
        learning,
        entries: entries.collect(),
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
        let key = key();
        let lines = [(key.as_str(), AnyLine::Bucket(line))];
        let (_, written) = Call::write_any(None, lines, None, true);
        let found = (answer(say(store, &written, script, now)?), look(store));
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
    let script = with_clock(RATES, 11);
    agree(any_said(), |store, said| compare(store, &script, said));
}
