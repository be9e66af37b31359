//! The versioned binary record of one tenant: everything that a request may charge, under one key.
//!
//! All is in one record, so that one compare-and-swap charges all of the tenant's limits or none. Layout, little-endian, lengths in bytes:
//!
//! | at | length | what |
//! |---|---|---|
//! | 0 | 4 | `brs` and the version |
//! | 4 | 8 | owner: hash of the tenant id |
//! | 12 | 24 | bucket: used, since, full |
//! | 36 | 16 | window: start, end |
//! | 52 | 4 | generation |
//! | 56 | 16 | spent: tokens, USD micros |
//! | 72 | 1 | number of holds (reservations of requests in flight) |
//! | 73 | 24 each | hold: since, tokens, USD micros |
//! | then | 1 | number of models, at least 1 |
//! | | 16 each | model, bytes a token (in 1/65,536), mean and deviation of answers (in 1/256 tokens) |
//! | then | 8 | burn: since |
//! | | 1 | number of its levels |
//! | | 16 each | level: tokens, USD micros |
//! | | 1 | number of ladders |
//! | | 5 each | ladder, tier that its low-water marks selected |
//! | then | 24 | of the account: carried over; debt: tokens, USD micros |
//! | | 16 each | of each hold: what is likely to be used |
//! | | 33 each | of each model: since, number of requests; of its two generations input, price of input, output (see [`Peak`]) |
//! | then | 1 | number of other limits |
//! | each | 5 | hash of the limit's name; 0 for a bucket, 1 for an account |
//! | | 24 | of a bucket: as above |
//! | | 61 and 40 each | of an account: window, generation, spent, number of holds, holds; and what was added in version 4 |
//! | then | 1 | number of slices, at least 1 |
//! | each | 1 | place of its account: 0 for the budget, then the other limits' |
//! | | 9 | unit (0 tokens, 1 USD micros; 2 more if an operator has changed something), when its window opened |
//! | | 24 | if so: generation, set, raise |
//! | | 112 | grant (see [`Grant`](crate::lease::grant::Grant)) |
//! | then | 1 | in version 7: number of shares of buckets, at least 1 |
//! | each | 1 | place of its bucket: 0 for the `bucket`, then the other limits' |
//! | | 4 | part that the bucket has, in millionths; 2^32 - 1 for one on credit |
//! | | 120 | share (see [`Rate`](crate::lease::rate::Rate)) |
//! | each | 1 | at least once: place of an account, as above |
//! | | 1 | number of children, at least 1 |
//! | each | 57 | child (see [`ChildKey`](crate::limits::lend::ChildKey)); spent: tokens, USD micros; lent; recent: tokens, USD micros; since |
//! | | 1 | number of holds |
//! | | 40 each | hold: since, tokens, USD micros; what is likely to be used |
//!
//! Version 1 ends with the holds, version 2 with the models, version 3 with the ladders (its number of models may be 0), version 4 with
//! the other limits, version 5 with the slices. Version 6 ends with the children, and its number of slices may be 0. Version 7 has all
//! parts; its numbers of slices and of children may be 0. A record is written in the oldest version that can hold it: 3
//! only for plans that use pace or hysteresis; 4 if there are more limits than one budget and one bucket, or if what requests are likely
//! to use differs from what they may use; 5 if a budget is shared with other proxies; 6 if children have guaranteed shares of a budget; 7
//! if a bucket is shared with other proxies.

mod children;
mod rates;
mod slices;

use crate::base::bytes::{Corrupt, Input};
use crate::base::name::LimitKey;
use crate::base::units::Cost;
use crate::calendar::window::Window;
use crate::estimate::learn::{
    Answers, BytesPerToken, Figures, Largest, Learned, MODELS, Model, Peak,
};
use crate::lease::quota::Part;
use crate::lease::rate::Rate;
use crate::limits::account::{Account, HOLDS, Hold, MARKED, Marked};
use crate::limits::bucket::Bucket;
use crate::limits::pace::{Burn, LEVELS};
use crate::limits::stacked::{ENTRIES, Entry, State};

/// The state of one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The hash of the tenant's id, where several tenants may share a key (see [`crate::state::store`]).
    pub owner: u64,
    /// State of the token bucket.
    pub bucket: Bucket,
    /// State of the budget.
    pub account: Account,
    /// What was learned from the tenant's requests.
    pub learned: Learned,
    /// How fast the tenant spends, if its plan has pace.
    pub burn: Burn,
    /// States of the plan's other limits, in the plan's order once the record is rolled forward, and then those that belong to no limit of
    /// the plan. At most [`ENTRIES`].
    pub others: Vec<Entry>,
    /// This proxy's shares of the buckets that are shared with other proxies and have a [`Part`].
    pub rates: Vec<Rate>,
}

/// Most bytes of a record of which no child has a guaranteed share.
pub const LONGEST: usize = 37_142;

const VERSION_1: [u8; 4] = *b"brs\x01";
const VERSION_2: [u8; 4] = *b"brs\x02";
const VERSION_3: [u8; 4] = *b"brs\x03";
const VERSION_4: [u8; 4] = *b"brs\x04";
const VERSION_5: [u8; 4] = *b"brs\x05";
const VERSION_6: [u8; 4] = *b"brs\x06";
const VERSION_7: [u8; 4] = *b"brs\x07";

impl Record {
    /// The bytes of this record: at most [`LONGEST`], and the children in addition.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Self {
            account: Account { marked, .. },
            learned: Learned(models),
            burn: Burn { since, levels },
            others,
            ..
        } = self;
        let version = self.version();
        let mut bytes = Vec::with_capacity(self.length());
        bytes.extend_from_slice(&version);
        bytes.extend_from_slice(&self.owner.to_le_bytes());
        put_bucket(&mut bytes, self.bucket);
        put_account(&mut bytes, &self.account);
        if version != VERSION_1 {
            let count = put_count(&mut bytes, models.len(), MODELS);
            for figures in models.iter().take(count) {
                put_figures(&mut bytes, figures);
            }
        }
        if version >= VERSION_3 {
            bytes.extend_from_slice(&since.as_nanos().to_le_bytes());
            let count = put_count(&mut bytes, levels.len(), LEVELS);
            for &level in levels.iter().take(count) {
                put_cost(&mut bytes, level);
            }
            let count = put_count(&mut bytes, marked.len(), MARKED);
            for marked in marked.iter().take(count) {
                bytes.extend_from_slice(&marked.ladder.to_le_bytes());
                bytes.push(marked.tier);
            }
        }
        if version >= VERSION_4 {
            put_addition(&mut bytes, &self.account);
            for figures in models.iter().take(MODELS) {
                put_largest(&mut bytes, figures.largest);
            }
            let count = put_count(&mut bytes, others.len(), ENTRIES);
            for entry in others.iter().take(count) {
                put_entry(&mut bytes, entry);
            }
        }
        if version >= VERSION_5 {
            slices::put(&mut bytes, self);
        }
        if version == VERSION_7 {
            rates::put(&mut bytes, self);
        }
        if version >= VERSION_6 {
            children::put_all(&mut bytes, self);
        }
        bytes
    }

    /// The oldest version that can hold this record.
    fn version(&self) -> [u8; 4] {
        let is_known = |figures: &Figures| figures.largest != Largest::default();
        if rates::has_any(self) {
            VERSION_7
        } else if children::has_any(self) {
            VERSION_6
        } else if slices::has_any(self) {
            VERSION_5
        } else if !self.others.is_empty()
            || has_addition(&self.account)
            || self.learned.0.iter().any(is_known)
        {
            VERSION_4
        } else if !self.burn.levels.is_empty() || !self.account.marked.is_empty() {
            VERSION_3
        } else if !self.learned.0.is_empty() {
            VERSION_2
        } else {
            VERSION_1
        }
    }

    /// The approximate length of the encoded record, in bytes.
    fn length(&self) -> usize {
        let others = self.others.iter().map(|entry| match &entry.state {
            State::Account(account) => account.holds.len().saturating_mul(40).saturating_add(66),
            State::Bucket(_) => 29,
        });
        let lists = [
            self.account.holds.len().saturating_mul(40),
            self.learned.0.len().saturating_mul(49),
            self.burn.levels.len().saturating_mul(16),
            self.account.marked.len().saturating_mul(5),
        ];
        let parts = lists.into_iter().chain(others);
        parts.fold(109, |sum, part| part.saturating_add(sum))
    }

    /// Reads a record back.
    ///
    /// # Errors
    /// [`Corrupt`] for anything that [`Record::encode`] does not write.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut input = Input(bytes);
        let version = input.take()?;
        if !(VERSION_1..=VERSION_7).contains(&version) {
            return Err(Corrupt(()));
        }
        let mut record = Self {
            owner: input.u64()?,
            bucket: bucket(&mut input)?,
            account: account(&mut input)?,
            ..Self::default()
        };
        if version != VERSION_1 {
            record.learned = Learned(input.list(MODELS, figures)?);
        }
        if version >= VERSION_3 {
            record.burn = burn(&mut input)?;
            record.account.marked = input.list(MARKED, marked)?;
        }
        if version >= VERSION_4 {
            addition(&mut input, &mut record.account)?;
            for figures in &mut record.learned.0 {
                figures.largest = largest(&mut input)?;
            }
            record.others = input.list(ENTRIES, entry)?;
        }
        if version >= VERSION_5 {
            slices::read(&mut input, &mut record)?;
        }
        if version == VERSION_7 {
            rates::read(&mut input, &mut record)?;
        }
        if version >= VERSION_6 {
            children::read(&mut input, &mut record)?;
        }
        input.end()?;
        // A version is valid only for a record that no older version can hold.
        match record.version() == version {
            true => Ok(record),
            false => Err(Corrupt(())),
        }
    }
}

/// The account at a place: 0 for the budget, then those in `others`.
fn account_at(record: &Record, place: usize) -> Option<&Account> {
    let Some(other) = place.checked_sub(1) else {
        return Some(&record.account);
    };
    match record.others.get(other) {
        Some(Entry {
            state: State::Account(account),
            ..
        }) => Some(account),
        Some(_) | None => None,
    }
}

/// How many places there may be.
const PLACES: usize = ENTRIES + 1;

/// The places that a record has.
fn places(record: &Record) -> impl Iterator<Item = u8> {
    (0..=u8::MAX)
        .take(PLACES)
        .take(record.others.len().saturating_add(1))
}

fn account_mut(record: &mut Record, place: u8) -> Option<&mut Account> {
    let Some(other) = usize::from(place).checked_sub(1) else {
        return Some(&mut record.account);
    };
    match record.others.get_mut(other) {
        Some(Entry {
            state: State::Account(account),
            ..
        }) => Some(account),
        Some(_) | None => None,
    }
}

/// Writes how many elements of a list follow, at most `most`, and returns that number.
fn put_count(bytes: &mut Vec<u8>, length: usize, most: usize) -> usize {
    let count = length.min(most);
    bytes.push(u8::try_from(count).unwrap_or(u8::MAX));
    count
}

fn put_cost(bytes: &mut Vec<u8>, cost: Cost) {
    bytes.extend_from_slice(&cost.tokens.0.to_le_bytes());
    bytes.extend_from_slice(&cost.usd.0.to_le_bytes());
}

fn put_bucket(bytes: &mut Vec<u8>, bucket: Bucket) {
    let Bucket {
        used, since, full, ..
    } = bucket;
    for number in [used, since.as_nanos(), full.as_nanos()] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
}

fn put_account(bytes: &mut Vec<u8>, account: &Account) {
    let Account {
        window,
        generation,
        spent,
        holds,
        ..
    } = account;
    for moment in [window.start, window.end] {
        bytes.extend_from_slice(&moment.as_nanos().to_le_bytes());
    }
    bytes.extend_from_slice(&generation.to_le_bytes());
    put_cost(bytes, *spent);
    let count = put_count(bytes, holds.len(), HOLDS);
    for hold in holds.iter().take(count) {
        bytes.extend_from_slice(&hold.since.as_nanos().to_le_bytes());
        put_cost(bytes, hold.cost);
    }
}

fn put_addition(bytes: &mut Vec<u8>, account: &Account) {
    bytes.extend_from_slice(&account.carried.to_le_bytes());
    put_cost(bytes, account.debt);
    for hold in account.holds.iter().take(HOLDS) {
        put_cost(bytes, hold.likely);
    }
}

fn put_largest(bytes: &mut Vec<u8>, largest: Largest) {
    bytes.extend_from_slice(&largest.since.as_nanos().to_le_bytes());
    bytes.push(largest.count);
    for peak in [largest.younger, largest.older] {
        for number in [peak.input, peak.input_price, peak.output] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
    }
}

fn put_figures(bytes: &mut Vec<u8>, figures: &Figures) {
    let Answers { mean, deviation } = figures.answers;
    let density = figures.bytes_per_token.in_65536ths();
    for part in [figures.model.0, density, mean, deviation] {
        bytes.extend_from_slice(&part.to_le_bytes());
    }
}

fn put_entry(bytes: &mut Vec<u8>, entry: &Entry) {
    bytes.extend_from_slice(&entry.key.0.to_le_bytes());
    match &entry.state {
        State::Bucket(bucket) => {
            bytes.push(0);
            put_bucket(bytes, *bucket);
        }
        State::Account(account) => {
            bytes.push(1);
            put_account(bytes, account);
            put_addition(bytes, account);
        }
    }
}

fn bucket(input: &mut Input<'_>) -> Result<Bucket, Corrupt> {
    Ok(Bucket {
        used: input.u64()?,
        since: input.time()?,
        full: input.time()?,
        part: Part::Whole,
    })
}

fn account(input: &mut Input<'_>) -> Result<Account, Corrupt> {
    let window = Window {
        start: input.time()?,
        end: input.time()?,
    };
    if window.start > window.end {
        return Err(Corrupt(()));
    }
    Ok(Account {
        window,
        generation: input.u32()?,
        spent: input.cost()?,
        holds: input.list(HOLDS, hold)?,
        ..Account::default()
    })
}

fn hold(input: &mut Input<'_>) -> Result<Hold, Corrupt> {
    let (since, cost) = (input.time()?, input.cost()?);
    Ok(Hold {
        since,
        cost,
        likely: cost,
    })
}

/// Whether the account has what only version 4 can hold.
fn has_addition(account: &Account) -> bool {
    let is_less = |hold: &Hold| hold.likely != hold.cost;
    account.carried != 0 || account.debt != Cost::ZERO || account.holds.iter().any(is_less)
}

fn addition(input: &mut Input<'_>, account: &mut Account) -> Result<(), Corrupt> {
    account.carried = input.u64()?;
    account.debt = input.cost()?;
    for hold in &mut account.holds {
        hold.likely = input.cost()?;
    }
    Ok(())
}

fn largest(input: &mut Input<'_>) -> Result<Largest, Corrupt> {
    let since = input.time()?;
    let [count] = input.take()?;
    Ok(Largest {
        since,
        count,
        younger: peak(input)?,
        older: peak(input)?,
    })
}

fn peak(input: &mut Input<'_>) -> Result<Peak, Corrupt> {
    Ok(Peak {
        input: input.u32()?,
        input_price: input.u32()?,
        output: input.u32()?,
    })
}

fn figures(input: &mut Input<'_>) -> Result<Figures, Corrupt> {
    Ok(Figures {
        model: Model(input.u32()?),
        bytes_per_token: BytesPerToken::from_65536ths(input.u32()?).ok_or(Corrupt(()))?,
        answers: Answers {
            mean: input.u32()?,
            deviation: input.u32()?,
        },
        largest: Largest::default(),
    })
}

fn burn(input: &mut Input<'_>) -> Result<Burn, Corrupt> {
    Ok(Burn {
        since: input.time()?,
        levels: input.list(LEVELS, Input::cost)?,
    })
}

fn marked(input: &mut Input<'_>) -> Result<Marked, Corrupt> {
    let ladder = input.u32()?;
    let [tier] = input.take()?;
    Ok(Marked { ladder, tier })
}

fn entry(input: &mut Input<'_>) -> Result<Entry, Corrupt> {
    let key = LimitKey(input.u32()?);
    let state = match input.take()? {
        [0] => State::Bucket(bucket(input)?),
        [1] => {
            let mut account = account(input)?;
            addition(input, &mut account)?;
            State::Account(account)
        }
        _ => return Err(Corrupt(())),
    };
    Ok(Entry { key, state })
}

#[cfg(test)]
mod tests;
