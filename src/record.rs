//! The versioned binary record of one tenant: everything that a request may charge, under one key.
//!
//! One record, so that one compare-and-swap charges the token bucket and the budget or neither. Layout,
//! little-endian, lengths in bytes:
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
//! | then | 1 | number of models, at least 1 |
//! | | 16 each | model, bytes a token (in 1/65,536), mean and deviation of answers (in 1/256 tokens) |
//!
//! | then | 8 | burn: since |
//! | | 1 | number of its levels |
//! | | 16 each | level: tokens, USD micros |
//! | | 1 | number of ladders |
//! | | 5 each | ladder, tier that its marks gave |
//!
//! Version 1 ends with the holds, version 2 with the models, version 3 has all, and no or more models. A record is written in the
//! oldest version that can hold it: 3 only by the plans that use pace or hysteresis.

use crate::bucket::Bucket;
use crate::learn::{Answers, BytesPerToken, Figures, Learned, MODELS, Model};
use crate::ledger::{Account, HOLDS, Hold, MARKED, Marked};
use crate::pace::{Burn, LEVELS};
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
    /// What the tenant's requests taught.
    pub learned: Learned,
    /// How fast the tenant spends, if its plan asks for that.
    pub burn: Burn,
}

/// Bytes that are not a record of these versions: truncated, newer, or another plugin's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt(());

const VERSION_1: [u8; 4] = *b"brs\x01";
const VERSION_2: [u8; 4] = *b"brs\x02";
const VERSION_3: [u8; 4] = *b"brs\x03";

impl Record {
    /// The bytes of this record, at most 1,236.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Account {
            window,
            generation,
            spent,
            holds,
            marked,
        } = &self.account;
        let Learned(models) = &self.learned;
        let Burn { since, levels } = &self.burn;
        let version = if !levels.is_empty() || !marked.is_empty() {
            VERSION_3
        } else if !models.is_empty() {
            VERSION_2
        } else {
            VERSION_1
        };
        let room = [
            holds.len().saturating_mul(24),
            models.len().saturating_mul(16),
            levels.len().saturating_mul(16),
            marked.len().saturating_mul(5),
        ];
        let mut bytes =
            Vec::with_capacity(room.iter().fold(84, |sum, &part| part.saturating_add(sum)));
        bytes.extend(version);
        for number in [
            self.owner,
            self.bucket.used,
            self.bucket.since.as_nanos(),
            self.bucket.full.as_nanos(),
            window.start.as_nanos(),
            window.end.as_nanos(),
        ] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(generation.to_le_bytes());
        put_cost(&mut bytes, *spent);
        let count = put_count(&mut bytes, holds.len(), HOLDS);
        for hold in holds.iter().take(count) {
            bytes.extend(hold.since.as_nanos().to_le_bytes());
            put_cost(&mut bytes, hold.cost);
        }
        if version != VERSION_1 {
            let count = put_count(&mut bytes, models.len(), MODELS);
            for figures in models.iter().take(count) {
                put_figures(&mut bytes, figures);
            }
        }
        if version == VERSION_3 {
            bytes.extend(since.as_nanos().to_le_bytes());
            let count = put_count(&mut bytes, levels.len(), LEVELS);
            for &level in levels.iter().take(count) {
                put_cost(&mut bytes, level);
            }
            let count = put_count(&mut bytes, marked.len(), MARKED);
            for marked in marked.iter().take(count) {
                bytes.extend(marked.ladder.to_le_bytes());
                bytes.push(marked.tier);
            }
        }
        bytes
    }

    /// Reads a record back.
    ///
    /// # Errors
    /// [`Corrupt`] for anything that [`Record::encode`] does not write.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut input = Input(bytes);
        let version = input.take()?;
        if ![VERSION_1, VERSION_2, VERSION_3].contains(&version) {
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
        let holds = input.list(HOLDS, Input::hold)?;
        let models = match version {
            VERSION_1 => Vec::new(),
            _ => input.list(MODELS, Input::figures)?,
        };
        let (burn, marked) = match version {
            VERSION_3 => (input.burn()?, input.list(MARKED, Input::marked)?),
            _ => (Burn::default(), Vec::new()),
        };
        // Each version has only what needs it.
        let is_needed = match version {
            VERSION_1 => true,
            VERSION_2 => !models.is_empty(),
            _ => !burn.levels.is_empty() || !marked.is_empty(),
        };
        if !input.0.is_empty() || !is_needed || window.start > window.end {
            return Err(Corrupt(()));
        }
        let account = Account {
            window,
            generation,
            spent,
            holds,
            marked,
        };
        Ok(Self {
            owner,
            bucket,
            account,
            learned: Learned(models),
            burn,
        })
    }
}

/// Writes how many of a list follow, and says it.
fn put_count(bytes: &mut Vec<u8>, length: usize, most: usize) -> usize {
    let count = length.min(most);
    bytes.push(u8::try_from(count).unwrap_or(u8::MAX));
    count
}

fn put_cost(bytes: &mut Vec<u8>, cost: Cost) {
    bytes.extend(cost.tokens.0.to_le_bytes());
    bytes.extend(cost.usd.0.to_le_bytes());
}

fn put_figures(bytes: &mut Vec<u8>, figures: &Figures) {
    let Answers { mean, deviation } = figures.answers;
    let density = figures.bytes_per_token.in_65536ths();
    for part in [figures.model.0, density, mean, deviation] {
        bytes.extend(part.to_le_bytes());
    }
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

    /// A list of at most so many.
    fn list<T>(
        &mut self,
        most: usize,
        read: impl Fn(&mut Self) -> Result<T, Corrupt>,
    ) -> Result<Vec<T>, Corrupt> {
        let [count] = self.take()?;
        if usize::from(count) > most {
            return Err(Corrupt(()));
        }
        let mut list = Vec::with_capacity(count.into());
        for _ in 0..count {
            list.push(read(self)?);
        }
        Ok(list)
    }

    fn hold(&mut self) -> Result<Hold, Corrupt> {
        Ok(Hold {
            since: self.time()?,
            cost: self.cost()?,
        })
    }

    fn figures(&mut self) -> Result<Figures, Corrupt> {
        Ok(Figures {
            model: Model(self.u32()?),
            bytes_per_token: BytesPerToken::from_65536ths(self.u32()?).ok_or(Corrupt(()))?,
            answers: Answers {
                mean: self.u32()?,
                deviation: self.u32()?,
            },
        })
    }

    fn burn(&mut self) -> Result<Burn, Corrupt> {
        Ok(Burn {
            since: self.time()?,
            levels: self.list(LEVELS, Self::cost)?,
        })
    }

    fn marked(&mut self) -> Result<Marked, Corrupt> {
        let ladder = self.u32()?;
        let [tier] = self.take()?;
        Ok(Marked { ladder, tier })
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
    use crate::learn::Lesson;
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
                marked: vec![
                    Marked { ladder: 7, tier: 2 },
                    Marked {
                        ladder: u32::MAX,
                        tier: 15,
                    },
                ],
            },
            learned: Learned(vec![figures(8), figures(9)]),
            burn: Burn {
                since: Timestamp::from_secs(14),
                levels: vec![tokens(u64::MAX), tokens(6)],
            },
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
        let lesson = Lesson {
            answer: Some(Tokens(300)),
            ..Lesson::default()
        };
        record.learned.learn(Model(1), lesson);
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

    // cases.md 46
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
        for version in [0, 1, 2, 4, 255] {
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
                cost: tokens(1)
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
}
