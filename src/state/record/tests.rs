use super::*;
use crate::estimate::learn::Observation;
use crate::lease::grant::Grant;
use crate::lease::line::Holder;
use crate::lease::rate::Rate;
use crate::lease::slice::Slice;
use crate::limits::budget::{Unit, tokens};
use crate::limits::lend::{Child, ChildKey};
use crate::limits::stacked::BUCKET;
use crate::units::{Micros, Ppm, Timestamp, Tokens};
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

/// As an earlier release wrote it: a tenant that has spent 1,000 tokens and holds 5.
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
    // Neither is the other with another number.
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
    // With neither it is no version 3.
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
fn only_a_record_with_other_limits_is_written_as_version_4() {
    let older = Record::decode(OLD).unwrap();
    let account = Entry {
        key: LimitKey(7),
        state: State::Account(Account {
            marked: Vec::new(),
            ..record().account
        }),
    };
    let bucket = Entry {
        key: LimitKey(u32::MAX),
        state: State::Bucket(record().bucket),
    };
    let stacked = Record {
        others: vec![account, bucket],
        ..older
    };
    let bytes = stacked.encode();
    assert_eq!(&bytes[..4], b"brs\x04");
    assert_eq!(&bytes[4..OLD.len()], &OLD[4..]);
    // No models, no burn, no ladders, the account's addition; then an account with two holds, and a bucket.
    assert_eq!(
        bytes.len(),
        OLD.len() + 1 + 9 + 1 + (24 + 16) + 1 + (5 + 37 + 48 + 24 + 32) + (5 + 24)
    );
    assert_eq!(Record::decode(&bytes), Ok(stacked));
    for end in 0..bytes.len() {
        assert_eq!(
            Record::decode(&bytes[..end]),
            Err(Corrupt(())),
            "{end} bytes"
        );
    }
    // With no other limit it is no version 4, and there is no third kind of state.
    let none = [
        b"brs\x04",
        &OLD[4..],
        &[0; 11],
        &[0; 24],
        &OLD[OLD.len() - 16..],
        &[0],
    ]
    .concat();
    assert_eq!(Record::decode(&none), Err(Corrupt(())));
    let mut other = bytes;
    let kind = OLD.len() + 1 + 9 + 1 + (24 + 16) + 1 + 4;
    assert_eq!(other[kind], 1);
    other[kind] = 2;
    assert_eq!(Record::decode(&other), Err(Corrupt(())));
}

fn slice(granted: u64) -> Slice {
    let mut grant = Grant::new(Holder(5));
    grant.granted = granted;
    grant.free = u64::MAX;
    Slice {
        unit: Unit::UsdMicros,
        opens: Timestamp::from_secs(6),
        generation: 0,
        set: 0,
        raise: 0,
        grant,
    }
}

#[test]
fn only_a_record_with_a_slice_is_written_as_version_5() {
    let older = Record::decode(OLD).unwrap();
    let entry = |state| Entry {
        key: LimitKey(7),
        state,
    };
    let sliced = Account {
        slice: Some(Box::new(slice(8))),
        ..Account::default()
    };
    let bucket = entry(State::Bucket(Bucket::default()));
    let other = entry(State::Account(sliced));
    let mut shared = Record {
        others: vec![bucket, other],
        ..older
    };
    let without = {
        let mut without = shared.clone();
        without.others[1] = entry(State::Account(Account::default()));
        without.encode()
    };
    for own in [None, Some(Box::new(slice(9)))] {
        shared.account.slice = own;
        let count = 1 + usize::from(shared.account.slice.is_some());
        let bytes = shared.encode();
        assert_eq!(&bytes[..4], b"brs\x05");
        assert_eq!(bytes.len(), without.len() + 1 + count * 122);
        assert_eq!(&bytes[4..without.len()], &without[4..]);
        assert_eq!(Record::decode(&bytes).as_ref(), Ok(&shared));
        for end in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..end]), Err(Corrupt(())));
        }
        // Without a slice it is no version 5; a bucket has none, nor has a limit that is not there; their order is one.
        let at = without.len();
        assert_eq!(
            (bytes[at], bytes[bytes.len() - 122]),
            (u8::try_from(count).unwrap(), 2)
        );
        for (place, value) in [
            (at, 0),
            (bytes.len() - 122, 1),
            (bytes.len() - 122, 3),
            (at + 2, 2),
        ] {
            let mut other = bytes.clone();
            other[place] = value;
            assert_eq!(Record::decode(&other), Err(Corrupt(())));
        }
    }
    let mut twice = shared.encode();
    let last = twice.len() - 122;
    twice[last] = 0;
    assert_eq!(Record::decode(&twice), Err(Corrupt(())));
}

fn changed_slice() -> Slice {
    Slice {
        generation: 7,
        set: 8,
        raise: 1 << 40,
        ..slice(9)
    }
}

// Only where an operator has changed something are there more bytes.
#[test]
fn a_slice_that_an_operator_has_changed_takes_twenty_four_bytes_more() {
    let of = |slice| {
        let account = Account {
            slice: Some(Box::new(slice)),
            ..Account::default()
        };
        Record {
            account,
            ..Record::default()
        }
    };
    let plain = of(slice(9)).encode();
    let head = plain.len() - 112;
    for (generation, set, raise) in [(7, 0, 0), (0, 9, 0), (0, 0, 8), (7, 9, 8)] {
        let changed = of(Slice {
            generation,
            set,
            raise,
            ..slice(9)
        });
        let bytes = changed.encode();
        assert_eq!(bytes.len(), plain.len() + 24);
        assert_eq!(bytes[..head - 9], plain[..head - 9]);
        assert_eq!(bytes[head - 9], plain[head - 9] | 2);
        assert_eq!(bytes[head + 24..], plain[head..]);
        assert_eq!(Record::decode(&bytes), Ok(changed));
        for end in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..end]), Err(Corrupt(())));
        }
        let mut nothing = bytes.clone();
        nothing[head..head + 24].fill(0);
        assert_eq!(Record::decode(&nothing), Err(Corrupt(())));
        let mut other = bytes;
        other[head - 9] |= 4;
        assert_eq!(Record::decode(&other), Err(Corrupt(())));
    }
}

fn child(key: u64) -> Child {
    Child {
        key: ChildKey(key),
        spent: tokens(7),
        holds: vec![Hold {
            since: Timestamp::from_secs(7),
            cost: tokens(5),
            likely: tokens(4),
        }],
        lent: 9,
        recent: tokens(3),
        since: Timestamp::from_secs(8),
    }
}

#[test]
fn only_a_record_with_children_that_have_guaranteed_shares_is_written_as_version_6() {
    let older = record();
    let mut parent = Record {
        others: vec![Entry {
            key: LimitKey(7),
            state: State::Account(Account::default()),
        }],
        ..older
    };
    let without = parent.encode();
    assert_eq!(&without[..4], b"brs\x04");
    parent.account.children = vec![child(1), child(2)];
    for at in [0, 1] {
        if at == 1 {
            parent.account.slice = Some(Box::new(slice(9)));
            let other = &mut parent.others[0].state;
            *other = State::Account(Account {
                children: vec![child(3)],
                ..Account::default()
            });
        }
        let bytes = parent.encode();
        assert_eq!(&bytes[..4], b"brs\x06");
        assert_eq!(&bytes[4..without.len()], &without[4..]);
        assert_eq!(
            bytes.len(),
            without.len() + 1 + at * 122 + 2 + 2 * 97 + at * 99
        );
        assert_eq!(Record::decode(&bytes).as_ref(), Ok(&parent));
        let slices = without.len() + 1 + at * 122;
        for end in 0..bytes.len() {
            // What ends after the first account's children is whole.
            let is_whole = at == 1 && end == bytes.len() - 99;
            assert_eq!(Record::decode(&bytes[..end]).is_ok(), is_whole, "{end}");
        }
        // Another place is none, and no children are no version 6.
        for (place, value) in [(slices, 2), (slices + 1, 0), (slices + 1, 65)] {
            let mut other = bytes.clone();
            other[place] = value;
            assert_eq!(Record::decode(&other), Err(Corrupt(())));
        }
    }
    let mut twice = parent.encode();
    let last = twice.len() - 99;
    twice[last] = 0;
    assert_eq!(Record::decode(&twice), Err(Corrupt(())));
}

fn rate(limit: &str) -> Rate {
    Rate {
        share: 400_000,
        seq: 7,
        failures: 3,
        lacks: true,
        ..Rate::new(LimitKey::of(limit), Holder(u64::MAX))
    }
}

#[test]
fn only_a_record_with_a_part_of_a_bucket_is_written_as_version_7() {
    let bucket = |part| Bucket {
        part,
        ..Bucket::default()
    };
    let with = |own, other| Record {
        bucket: bucket(own),
        others: vec![
            Entry {
                key: LimitKey::of("rpd"),
                state: State::Bucket(bucket(Part::Whole)),
            },
            Entry {
                key: LimitKey::of("rpm"),
                state: State::Bucket(bucket(other)),
            },
        ],
        ..Record::default()
    };
    let without = with(Part::Whole, Part::Whole);
    // What no bucket has is not kept.
    let unused = Record {
        rates: vec![rate("rpm")],
        ..without.clone()
    };
    assert_eq!(unused.encode(), without.encode());
    let part = Part::Of(Ppm(400_000));
    for (own, rates) in [
        (Part::Whole, vec![rate("rpm")]),
        (Part::Credit, vec![rate(BUCKET), rate("rpm")]),
    ] {
        let count = rates.len();
        let record = Record {
            rates,
            ..with(own, part)
        };
        let (bytes, start) = (record.encode(), without.encode().len());
        assert_eq!(&bytes[..4], b"brs\x07");
        // No slices, and then these.
        assert_eq!(bytes.len(), start + 1 + 1 + count * 125);
        assert_eq!(Record::decode(&bytes).as_ref(), Ok(&record));
        for end in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..end]), Err(Corrupt(())));
        }
        let last = bytes.len() - 125;
        // No share is no version 7; another place is none, or another limit's; a part is at most the whole; flags are flags.
        for (place, value) in [
            (start + 1, 0),
            (last, 3),
            (last + 3, 0xff),
            (bytes.len() - 2, 0xff),
            (bytes.len() - 1, 1),
        ] {
            let mut other = bytes.clone();
            other[place] = value;
            assert_eq!(Record::decode(&other), Err(Corrupt(())), "{place}");
        }
    }
    // Of two limits of one name, which only another's bytes have, one is kept.
    let twice = Record {
        bucket: bucket(part),
        others: vec![Entry {
            key: LimitKey::of(BUCKET),
            state: State::Bucket(bucket(part)),
        }],
        rates: vec![rate(BUCKET)],
        ..Record::default()
    };
    let read = Record::decode(&twice.encode()).unwrap();
    assert_eq!((read.rates.len(), read.bucket.part), (1, part));
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
