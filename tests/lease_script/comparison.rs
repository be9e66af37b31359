//! What the comparisons of a script with its model have in common: the test's clock in the store, and what the store says as numbers.

use std::collections::BTreeMap;
use std::fmt::Debug;

use bursar::lease::resp::{Reply, push_command, replies};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::redis::{SERVERS, Store};

/// The script with the test's clock in the place of the store's: in these two of its arguments.
pub(crate) fn with_clock(script: &str, seconds: usize) -> String {
    let clock = "redis.call('TIME')";
    assert_eq!(script.matches(clock).count(), 1);
    let micros = seconds + 1;
    script.replace(clock, &format!("{{ARGV[{seconds}], ARGV[{micros}]}}"))
}

/// The one line of a call that brings its script, at a time in milliseconds: what the store answers to it as this script has it.
pub(crate) fn say(
    store: &Store,
    written: &[u8],
    script: &str,
    now: u64,
) -> Result<[u64; 10], TestCaseError> {
    // A command is written as a reply is: the line, and the end.
    let read = replies(written, 2).unwrap();
    let time = [(now / 1_000).to_string(), (now % 1_000 * 1_000).to_string()];
    let mut words: Vec<_> = array(&read[0]).iter().map(bulk).collect();
    words[1] = script;
    words.extend(time.iter().map(String::as_str));
    let words: Vec<_> = words.into_iter().map(str::as_bytes).collect();
    let mut body = Vec::new();
    push_command(&mut body, &words);
    let told = store.call(&body);
    let told = replies(&told, 1).unwrap();
    if let Reply::Error(_, text) = &told[0] {
        prop_assert!(false, "{}", String::from_utf8_lossy(text));
    }
    let numbers = array(&told[0]).iter().map(|field| match field {
        Reply::Integer(number) => u64::try_from(*number).unwrap(),
        other => panic!("no number: {other:?}"),
    });
    Ok(<[u64; 10]>::try_from(numbers.collect::<Vec<_>>()).unwrap())
}

/// A hash of the store: the numbers of its field `a`, and those of each holder's.
type Hash = ([u64; 8], BTreeMap<u64, [u64; 4]>);

/// What a call's answer says of a hash; `None` where there is none.
pub(crate) fn hash(reply: &Reply<'_>) -> Option<Hash> {
    let texts: Vec<_> = array(reply).iter().map(bulk).collect();
    let mut whole = None;
    let mut entries = BTreeMap::new();
    for pair in texts.chunks(2) {
        let numbers = pair[1].split(' ').map(|number| number.parse().unwrap());
        let numbers: Vec<u64> = numbers.collect();
        if pair[0] == "a" {
            whole = Some(<[u64; 8]>::try_from(numbers).unwrap());
        } else {
            let holder = u64::from_str_radix(pair[0].strip_prefix("p:").unwrap(), 16).unwrap();
            entries.insert(holder, <[u64; 4]>::try_from(numbers).unwrap());
        }
    }
    Some((whole?, entries))
}

pub(crate) fn array<'a, 'b>(reply: &'b Reply<'a>) -> &'b [Reply<'a>] {
    match reply {
        Reply::Array(Some(fields)) => fields,
        other => panic!("no array: {other:?}"),
    }
}

fn bulk<'a>(reply: &Reply<'a>) -> &'a str {
    match reply {
        Reply::Bulk(Some(text)) => std::str::from_utf8(text).unwrap(),
        other => panic!("no text: {other:?}"),
    }
}

/// Compares at both servers, whatever is said.
pub(crate) fn agree<T: Debug>(
    said: impl Strategy<Value = T>,
    compare: impl Fn(&Store, &T) -> Result<(), TestCaseError>,
) {
    for server in SERVERS {
        let store = Store::start(server);
        let ran = TestRunner::default().run(&said, |said| compare(&store, &said));
        if let Err(error) = ran {
            panic!("{server}: {error}");
        }
    }
}
