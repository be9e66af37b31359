//! The versioned binary record of one tenant: everything that a request may charge, under one key.
//!
//! One record, so that one compare-and-swap charges the token bucket and the budget or neither. Layout
//! of version 1, little-endian, lengths in bytes:
//!
//! | at | length | what |
//! |---|---|---|
//! | 0 | 4 | `brs` and the version |
//! | 4 | 8 | owner: hash of the tenant id |
//! | 12 | 24 | bucket: used, since, full |
//! | 36 | 16 | window: start, end |
//! | 52 | 4 | generation |
//! | 56 | 16 | spent: tokens, USD micros |
//! | 72 | 1 | number of holds |
//! | 73 | 24 each | hold: since, tokens, USD micros |

use crate::bucket::Bucket;
use crate::ledger::{Account, HOLDS, Hold};
use crate::units::{Cost, Micros, Timestamp, Tokens};
use crate::window::Window;

/// State of one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Whose it is, where several tenants may share a key (see [`crate::store`]).
    pub owner: u64,
    /// State of the token bucket.
    pub bucket: Bucket,
    /// State of the budget.
    pub account: Account,
}

/// Bytes that are not a record of this version: truncated, older, or another plugin's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt(());

const MAGIC: [u8; 4] = *b"brs\x01";

impl Record {
    /// The bytes of this record, at most 817.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Account {
            window,
            generation,
            spent,
            holds,
        } = &self.account;
        let mut bytes = Vec::with_capacity(holds.len().saturating_mul(24).saturating_add(73));
        bytes.extend(MAGIC);
        bytes.extend(self.owner.to_le_bytes());
        bytes.extend(self.bucket.used.to_le_bytes());
        bytes.extend(self.bucket.since.as_nanos().to_le_bytes());
        bytes.extend(self.bucket.full.as_nanos().to_le_bytes());
        bytes.extend(window.start.as_nanos().to_le_bytes());
        bytes.extend(window.end.as_nanos().to_le_bytes());
        bytes.extend(generation.to_le_bytes());
        put_cost(&mut bytes, *spent);
        let count = holds.len().min(HOLDS);
        bytes.push(u8::try_from(count).unwrap_or(u8::MAX));
        for hold in holds.iter().take(count) {
            bytes.extend(hold.since.as_nanos().to_le_bytes());
            put_cost(&mut bytes, hold.cost);
        }
        bytes
    }

    /// Reads a record back.
    ///
    /// # Errors
    /// [`Corrupt`] for anything that [`Record::encode`] does not write.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut input = Input(bytes);
        if input.take::<4>()? != MAGIC {
            return Err(Corrupt(()));
        }
        let owner = input.u64()?;
        let bucket = Bucket {
            used: input.u64()?,
            since: input.time()?,
            full: input.time()?,
        };
        let window = Window {
            start: input.time()?,
            end: input.time()?,
        };
        let generation = input.u32()?;
        let spent = input.cost()?;
        let [count] = input.take::<1>()?;
        let holds = (0..count)
            .map(|_| {
                Ok(Hold {
                    since: input.time()?,
                    cost: input.cost()?,
                })
            })
            .collect::<Result<Vec<_>, Corrupt>>()?;
        if !input.0.is_empty() || holds.len() > HOLDS || window.start > window.end {
            return Err(Corrupt(()));
        }
        let account = Account {
            window,
            generation,
            spent,
            holds,
        };
        Ok(Self {
            owner,
            bucket,
            account,
        })
    }
}

fn put_cost(bytes: &mut Vec<u8>, cost: Cost) {
    bytes.extend(cost.tokens.0.to_le_bytes());
    bytes.extend(cost.usd.0.to_le_bytes());
}

/// What is still to be read.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Corrupt> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(Corrupt(()))?;
        self.0 = tail;
        Ok(*head)
    }

    fn u32(&mut self) -> Result<u32, Corrupt> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Corrupt> {
        self.take().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Result<Timestamp, Corrupt> {
        self.u64().map(Timestamp::from_nanos)
    }

    fn cost(&mut self) -> Result<Cost, Corrupt> {
        Ok(Cost {
            tokens: Tokens(self.u64()?),
            usd: Micros(self.u64()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tokens;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn record() -> Record {
        let holds = vec![
            Hold {
                since: Timestamp::from_secs(7),
                cost: tokens(5),
            },
            Hold {
                since: Timestamp::MAX,
                cost: Cost {
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
            },
            account: Account {
                window: Window {
                    start: Timestamp::from_secs(1),
                    end: Timestamp::MAX,
                },
                generation: 9,
                spent: tokens(1_000),
                holds,
            },
        }
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        assert_eq!(Record::decode(&record().encode()), Ok(record()));
        assert_eq!(
            Record::decode(&Record::default().encode()),
            Ok(Record::default())
        );
    }

    // cases.md 46
    #[test]
    fn a_truncated_longer_older_or_foreign_value_is_no_record() {
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
        let mut older = bytes;
        older[3] = 0;
        assert_eq!(Record::decode(&older), Err(Corrupt(())));
        assert_eq!(Record::decode(b"{\"tokens\": 5}"), Err(Corrupt(())));
    }

    #[test]
    fn the_longest_record_is_as_long_as_its_doc_says() {
        let holds = vec![
            Hold {
                since: Timestamp::MAX,
                cost: tokens(1)
            };
            HOLDS
        ];
        let record = Record {
            account: Account {
                holds,
                ..Account::default()
            },
            ..Record::default()
        };
        assert_eq!(record.encode().len(), 817);
    }

    #[test]
    fn what_no_account_can_be_is_no_record() {
        let most = Record {
            account: Account {
                holds: vec![
                    Hold {
                        since: Timestamp::MAX,
                        cost: tokens(1)
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
        let mut backwards = record();
        backwards.account.window = Window {
            start: Timestamp::MAX,
            end: Timestamp::from_secs(1),
        };
        assert_eq!(Record::decode(&backwards.encode()), Err(Corrupt(())));
    }
}
