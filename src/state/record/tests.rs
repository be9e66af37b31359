mod versions;

use super::*;
use crate::base::units::{Micros, Ppm, Timestamp, Tokens, Unit};
use crate::estimate::learn::Observation;
use crate::lease::grant::Grant;
use crate::lease::line::Holder;
use crate::lease::rate::Rate;
use crate::lease::slice::Slice;
use crate::limits::budget::tokens;
use crate::limits::lend::{Child, ChildKey};
use crate::limits::stacked::BUCKET;
use versions::{changed_slice, rate};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn record() -> Record {
    let holds = vec![
        Hold {
            since: Timestamp::from_secs(7),
            cost: tokens(5),
            likely: tokens(5),
        },
        Hold {
            since: Timestamp::MAX,
            cost: Cost {
                tokens: Tokens(1),
                usd: Micros(u64::MAX),
            },
            likely: Cost {
                tokens: Tokens(1),
                usd: Micros(u64::MAX),
            },
        },
    ];
    Record {
        owner: 3,
        bucket: Bucket {
            used: 11,
            since: Timestamp::from_secs(12),
            full: Timestamp::from_secs(13),
            ..Bucket::default()
        },
        account: Account {
            window: Window {
                start: Timestamp::from_secs(1),
                end: Timestamp::MAX,
            },
            generation: 9,
            spent: tokens(1_000),
            holds,
            marked: vec![
                Marked { ladder: 7, tier: 2 },
                Marked {
                    ladder: u32::MAX,
                    tier: 15,
                },
            ],
            ..Account::default()
        },
        learned: Learned(vec![figures(8), figures(9)]),
        burn: Burn {
            since: Timestamp::from_secs(14),
            levels: vec![tokens(u64::MAX), tokens(6)],
        },
        others: Vec::new(),
        rates: Vec::new(),
    }
}

const MARK: Marked = Marked { ladder: 1, tier: 1 };

fn figures(model: u32) -> Figures {
    Figures {
        model: Model(model),
        bytes_per_token: BytesPerToken::MOST,
        answers: Answers {
            mean: 1 << 20,
            deviation: u32::MAX,
        },
        largest: Largest::default(),
    }
}

/// A record as an earlier release wrote it, of a tenant that has spent 1,000 tokens and holds 5.
const OLD: &[u8] = b"brs\x01\
    \x03\0\0\0\0\0\0\0\
    \x0b\0\0\0\0\0\0\0\0\xca\x9a\x3b\0\0\0\0\0\x94\x35\x77\0\0\0\0\
    \0\xca\x9a\x3b\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\
    \x09\0\0\0\
    \xe8\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
    \x01\0\x5e\xd0\xb2\0\0\0\0\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

#[test]
fn a_record_of_version_1_keeps_what_was_spent_and_what_is_held() {
    let record = Record::decode(OLD).unwrap();
    assert_eq!(record.owner, 3);
    assert_eq!(record.bucket.used, 11);
    assert_eq!(record.bucket.full, Timestamp::from_secs(2));
    assert_eq!(record.account.window.end, Timestamp::MAX);
    assert_eq!(record.account.spent, tokens(1_000));
    assert_eq!(record.account.held(), tokens(5));
    assert_eq!(record.account.holds[0].since, Timestamp::from_secs(3));
    assert_eq!(record.learned, Learned::default());
}

#[test]
fn a_record_that_has_learned_nothing_is_written_as_version_1_and_others_as_version_2() {
    let mut record = Record::decode(OLD).unwrap();
    assert_eq!(record.encode(), OLD);
    let observation = Observation {
        answer: Some(Tokens(300)),
        ..Observation::default()
    };
    record.learned.learn(Model(1), observation, Timestamp::MAX);
    let bytes = record.encode();
    assert_eq!(&bytes[..4], b"brs\x02");
    assert_eq!(&bytes[4..OLD.len()], &OLD[4..]);
    assert_eq!(bytes.len(), OLD.len() + 17);
    assert_eq!(Record::decode(&bytes), Ok(record));
    // The bytes of neither version are valid under the other's number.
    assert_eq!(
        Record::decode(&[b"brs\x01", &bytes[4..]].concat()),
        Err(Corrupt(()))
    );
    assert_eq!(
        Record::decode(&[b"brs\x02", &OLD[4..]].concat()),
        Err(Corrupt(()))
    );
    assert_eq!(
        Record::decode(&[b"brs\x02", &OLD[4..], &[0]].concat()),
        Err(Corrupt(()))
    );
}

#[test]
fn only_a_record_with_a_burn_or_marks_is_written_as_version_3() {
    let older = Record::decode(OLD).unwrap();
    let burn = Burn {
        since: Timestamp::from_secs(4),
        levels: vec![tokens(5)],
    };
    let burning = Record {
        burn,
        ..older.clone()
    };
    let bytes = burning.encode();
    assert_eq!(&bytes[..4], b"brs\x03");
    assert_eq!(&bytes[4..OLD.len()], &OLD[4..]);
    assert_eq!(bytes.len(), OLD.len() + 1 + 8 + 1 + 16 + 1);
    assert_eq!(Record::decode(&bytes), Ok(burning));
    let mut marked = older;
    marked.account.marked = vec![MARK];
    marked.learned = Learned(vec![figures(1)]);
    let bytes = marked.encode();
    assert_eq!(bytes.len(), OLD.len() + 17 + 8 + 1 + 1 + 5);
    assert_eq!(Record::decode(&bytes), Ok(marked));
    // Without either, the record is not valid in version 3.
    let neither = [b"brs\x03", &OLD[4..], &[0; 11]].concat();
    assert_eq!(Record::decode(&neither), Err(Corrupt(())));
}

#[test]
fn a_record_reads_back_as_it_was_written() {
    assert_eq!(Record::decode(&record().encode()), Ok(record()));
    assert_eq!(
        Record::decode(&Record::default().encode()),
        Ok(Record::default())
    );
}

// A value under our key may be older, cut off, or another plugin's.
#[test]
fn a_truncated_longer_newer_or_foreign_value_is_no_record() {
    let bytes = record().encode();
    for end in 0..bytes.len() {
        assert_eq!(
            Record::decode(&bytes[..end]),
            Err(Corrupt(())),
            "{end} bytes"
        );
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(Record::decode(&longer), Err(Corrupt(())));
    for version in [0, 1, 2, 4, 5, 6, 255] {
        let mut other = bytes.clone();
        other[3] = version;
        assert_eq!(Record::decode(&other), Err(Corrupt(())));
    }
    assert_eq!(Record::decode(b"{\"tokens\": 5}"), Err(Corrupt(())));
}

#[test]
fn the_longest_record_is_as_long_as_its_doc_says() {
    let holds = vec![
        Hold {
            since: Timestamp::MAX,
            cost: tokens(1),
            likely: tokens(1),
        };
        HOLDS
    ];
    let record = Record {
        account: Account {
            holds,
            marked: vec![MARK; MARKED],
            ..Account::default()
        },
        learned: Learned(vec![figures(1); MODELS]),
        burn: Burn {
            since: Timestamp::MAX,
            levels: vec![tokens(1); LEVELS],
        },
        ..Record::default()
    };
    assert_eq!(record.encode().len(), 1_236);
    let full = Record {
        account: Account {
            slice: Some(Box::new(changed_slice())),
            ..record.account.clone()
        },
        others: vec![
            Entry {
                key: LimitKey(1),
                state: State::Account(Account {
                    holds: record.account.holds.clone(),
                    slice: Some(Box::new(changed_slice())),
                    ..Account::default()
                }),
            };
            ENTRIES
        ],
        bucket: Bucket {
            part: Part::Credit,
            ..Bucket::default()
        },
        rates: vec![rate(BUCKET)],
        ..record.clone()
    };
    assert_eq!(full.encode().len(), LONGEST);
    let most = Learned(vec![figures(1); MODELS + 1]);
    let longer = Record {
        learned: most,
        ..record.clone()
    };
    assert_eq!(longer.encode(), record.encode());
}

#[test]
fn what_no_account_can_be_is_no_record() {
    let most = Record {
        account: Account {
            holds: vec![
                Hold {
                    since: Timestamp::MAX,
                    cost: tokens(1),
                    likely: tokens(1),
                };
                HOLDS
            ],
            ..Account::default()
        },
        ..Record::default()
    };
    let mut bytes = most.encode();
    assert_eq!(Record::decode(&bytes), Ok(most));
    bytes[72] += 1;
    bytes.extend([0; 24]);
    assert_eq!(Record::decode(&bytes), Err(Corrupt(())));
    let most = Learned(vec![figures(1); MODELS]);
    let mut bytes = Record {
        learned: most,
        ..Record::default()
    }
    .encode();
    bytes[73] += 1;
    let last = bytes[bytes.len() - 16..].to_vec();
    bytes.extend(last);
    assert_eq!(Record::decode(&bytes), Err(Corrupt(())));
    let mut bytes = Record {
        burn: Burn::default(),
        account: Account::default(),
        ..record()
    }
    .encode();
    let density = bytes.len() - 12;
    bytes[density..density + 4].fill(0);
    assert_eq!(Record::decode(&bytes), Err(Corrupt(())));
    let mut backwards = record();
    backwards.account.window = Window {
        start: Timestamp::MAX,
        end: Timestamp::from_secs(1),
    };
    assert_eq!(Record::decode(&backwards.encode()), Err(Corrupt(())));
}
