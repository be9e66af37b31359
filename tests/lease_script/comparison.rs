//! What the comparisons of a script with its model have in common: the test's clock in the store, and what the store says as numbers.

use std::collections::BTreeMap;
use std::fmt::Debug;

use bursar::lease::resp::{Reply, replies};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::redis::{SERVERS, Store, array, at_clock, bulk};

/// The one line of a call that brings its script, at a time in milliseconds: what the store answers to it as this script has it.
pub(crate) fn say(
    store: &Store,
    written: &[u8],
    script: &str,
    now: u64,
) -> Result<[u64; 10], TestCaseError> {
    let told = store.call(&at_clock(written, 1, script, now));
    let told = replies(&told, 2).unwrap();
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
