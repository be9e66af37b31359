//! Random lines at random times, to the script and to the model: the same answers, and the same accounts after each line.

use std::collections::BTreeMap;

use bursar::base::units::Timestamp;
use bursar::calendar::window::Window;
use bursar::lease::call::{Call, SCRIPT};
use bursar::lease::line::{self, Answer, Holder, Line, Status};
use bursar::lease::resp::{Reply, push_command, replies};
use proptest::prelude::*;

use crate::comparison::{agree, hash, say};
use crate::engine::{self, Account, Changes, Entry};
use crate::redis::{Store, array, with_clock};

/// Times are from here on, in milliseconds. Later than any store's clock: an account that expires in the past is gone.
const START: u64 = 4_000_000_000_000;

/// A line about an account of this generation, at the store's time; and what an operator changes before it.
#[derive(Clone, Copy, Debug)]
struct Said {
    line: Line,
    generation: u64,
    now: u64,
    changes: Option<Changes>,
}

fn any_said() -> impl Strategy<Value = Vec<Said>> {
    let cells = || prop_oneof![0..200_u64, 0..2_000_u64];
    let line = (
        0..4_u64,
        0..30_u64,
        cells(),
        cells(),
        cells(),
        cells(),
        cells(),
    );
    let rest = (
        prop_oneof![Just(0), Just(15_000)],
        0..3_u64,
        0..4_u64,
        prop_oneof![0..900_u64, 0..60_000_u64],
    );
    let changes = (0..4_u64, 0..3_000_u64, 0..1_000_u64, 0..60_000_u64);
    let changes = changes.prop_map(|(generation, set, raise, lasts)| Changes {
        generation,
        set: set.saturating_sub(1_500),
        raise,
        until: if lasts < 10_000 { 0 } else { START + lasts },
    });
    let change = (0..3_u64, prop::option::weighted(0.1, changes));
    prop::collection::vec((line, rest, change), 1..40).prop_map(|said| {
        let mut now = START;
        let mut seqs = [0; 4];
        said.into_iter()
            .map(
                |(
                    (holder, seq, granted, used, want, least, budget),
                    (reclaim, born, window, passes),
                    (generation, changes),
                )| {
                    now += passes;
                    // Mostly the next number, now and then an old one.
                    let last = &mut seqs[usize::try_from(holder).unwrap()];
                    *last = if seq < 25 { *last + 1 } else { seq - 25 };
                    let line = Line {
                        holder: Holder(holder),
                        seq: *last,
                        granted,
                        used,
                        want,
                        least,
                        budget,
                        window: around(window),
                        reclaim,
                        // The account's own is put in its place below.
                        born,
                        relearn: 5_000,
                    };
                    // The clock may be set back.
                    if passes % 17 == 3 {
                        now = now.saturating_sub(25_000).max(START);
                    }
                    Said {
                        line,
                        generation,
                        now,
                        changes,
                    }
                },
            )
            .collect()
    })
}

/// Windows that are open all the time, that open and end on the way, that never end.
fn around(which: u64) -> Window {
    let at = |millis: u64| Timestamp::from_nanos((START + millis) * 1_000_000);
    match which {
        0 => Window {
            start: at(0),
            end: at(40_000),
        },
        1 => Window {
            start: at(60_000),
            end: at(100_000_000),
        },
        2 => Window {
            start: Timestamp::default(),
            end: Timestamp::MAX,
        },
        _ => Window {
            start: at(0),
            end: at(100_000_000),
        },
    }
}

/// Asks for what an account and the operator's hash are.
fn look(store: &Store, key: &str) -> (Option<Account>, Changes) {
    let mut body = Vec::new();
    push_command(&mut body, &[b"HGETALL", key.as_bytes()]);
    let fields: [&[u8]; 6] = [
        b"HMGET",
        LIMIT.as_bytes(),
        b"generation",
        b"set",
        b"raise",
        b"until",
    ];
    push_command(&mut body, &fields);
    let told = store.call(&body);
    let told = replies(&told, 2).unwrap();
    let changes = array(&told[1]).iter().map(|reply| match reply {
        Reply::Bulk(Some(text)) => std::str::from_utf8(text).unwrap().parse().unwrap(),
        _ => 0,
    });
    let changes: Vec<u64> = changes.collect();
    let changes = Changes {
        generation: changes[0],
        set: changes[1],
        raise: changes[2],
        until: changes[3],
    };
    (account(&told[0]), changes)
}

/// What comes before the generation and the window in the keys of the accounts.
const LIMIT: &str = "bursar:{llm/acme/day}:usd";

fn key(window: Window, generation: u64) -> String {
    let account = line::Account {
        generation,
        ..crate::account(window)
    };
    account.key()
}

fn answer(numbers: [u64; 10]) -> Answer {
    let [
        status,
        first,
        total,
        free,
        holders,
        now,
        born,
        generation,
        set,
        raise,
    ] = numbers;
    let status = match status {
        0 => Status::Granted,
        1 => Status::Stale { latest: first },
        2 => Status::TooEarly,
        _ => Status::TooLate,
    };
    let grant = if status == Status::Granted { first } else { 0 };
    Answer {
        status,
        grant,
        total,
        free,
        holders,
        now,
        born,
        generation,
        set,
        raise,
    }
}

fn account(reply: &Reply<'_>) -> Option<Account> {
    let (whole, entries) = hash(reply)?;
    let [total, epoch, present, before, born, learning, _, budget] = whole;
    let entries = entries.into_iter();
    let entries = entries.map(|(holder, [seq, granted, used, epoch])| {
        let entry = Entry {
            seq,
            granted,
            used,
            epoch,
        };
        (holder, entry)
    });
    Some(Account {
        total,
        epoch,
        present,
        before,
        born,
        learning,
        budget,
        entries: entries.collect(),
    })
}

/// What the model may come to: the script draws two entries, or fewer, since it may draw the account's own field.
fn outcomes(
    stored: Option<&Account>,
    changes: Changes,
    line: &Line,
    said: &Said,
) -> Vec<(Answer, Option<Account>, Changes)> {
    let holders: Vec<_> = stored
        .iter()
        .flat_map(|account| account.entries.keys().copied())
        .collect();
    let mut draws = vec![vec![]];
    for (at, &one) in holders.iter().enumerate() {
        draws.push(vec![one]);
        draws.extend(holders[..at].iter().map(|&other| vec![one, other]));
    }
    draws
        .into_iter()
        .map(|drawn| {
            let (mut account, mut changes) = (stored.cloned(), changes);
            let (now, generation) = (said.now, said.generation);
            let answer =
                engine::take_changed(&mut account, &mut changes, generation, line, now, &drawn);
            (answer, account, changes)
        })
        .collect()
}

fn compare(store: &Store, script: &str, said: &[Said]) -> Result<(), TestCaseError> {
    store.run(&["FLUSHALL"]);
    let mut accounts: BTreeMap<String, Option<Account>> = BTreeMap::new();
    let mut changes = Changes::default();
    for said in said {
        if let Some(new) = said.changes {
            changes = new;
            let Changes {
                generation,
                set,
                raise,
                until,
            } = new;
            let numbers = [generation, set, raise, until].map(|number| number.to_string());
            let names = ["generation", "set", "raise", "until"];
            let fields = names.into_iter().zip(&numbers);
            let fields: Vec<_> = fields.flat_map(|(name, number)| [name, number]).collect();
            store.run(&[&["HSET", LIMIT][..], &fields[..]].concat());
        }
        let counts = key(said.line.window, said.generation.max(changes.generation));
        let account = accounts.entry(counts.clone()).or_default();
        // 0: nothing is known; 1: another account was known; 2: this one.
        let born = if said.line.born == 2 {
            account.as_ref().map_or(0, |account| account.born)
        } else {
            said.line.born
        };
        let line = Line { born, ..said.line };
        let key = key(line.window, said.generation);
        let (_, written) = Call::write(None, [(key.as_str(), line)], true);
        let told = say(store, &written, script, said.now)?;
        let (stored, changed) = look(store, &counts);
        let found = (answer(told), stored, changed);
        let outcomes = outcomes(account.as_ref(), changes, &line, said);
        prop_assert!(
            outcomes.contains(&found),
            "{said:?} gave {found:?}, not one of {outcomes:?}"
        );
        (*account, changes) = (found.1, found.2);
    }
    Ok(())
}

#[test]
fn script_and_model_agree() {
    let script = with_clock(SCRIPT, 13);
    agree(any_said(), |store, said| compare(store, &script, said));
}
