//! What versions 4 to 7 add. Each version is used only for records that contain its addition.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

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
    // Without another limit the record is not valid in version 4; and a state can only be of two kinds.
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
        // Without a slice the record is not valid in version 5. Neither a bucket nor a missing limit can have a slice, and slices have one
        // order.
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

pub(super) fn changed_slice() -> Slice {
    Slice {
        generation: 7,
        set: 8,
        raise: 1 << 40,
        ..slice(9)
    }
}

// A slice takes more bytes only if an operator has changed something.
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
            // A record that ends after the first account's children is complete.
            let is_whole = at == 1 && end == bytes.len() - 99;
            assert_eq!(Record::decode(&bytes[..end]).is_ok(), is_whole, "{end}");
        }
        // A place without an account is invalid, and so is version 6 without children.
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

pub(super) fn rate(limit: &str) -> Rate {
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
    // A share that no bucket has is not written.
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
        // Invalid are: version 7 without a share, a place without a bucket or of another limit, a part above the whole, and unknown flags.
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
    // Of two limits with the same name, which bursar never writes, one is kept.
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
