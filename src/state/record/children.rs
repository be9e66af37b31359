//! What version 6 adds: children with guaranteed shares of budgets, by the places of their accounts.

use super::{Record, account_at, account_mut, places, put_count};
use crate::base::bytes::{Corrupt, Input};
use crate::base::units::{Cost, Micros, Timestamp, Tokens};
use crate::limits::account::{HOLDS, Hold};
use crate::limits::lend::{CHILDREN, Child, ChildKey};

/// Whether any account has children.
pub(super) fn has_any(record: &Record) -> bool {
    places(record).any(|place| !of(record, place).is_empty())
}

fn of(record: &Record, place: u8) -> &[Child] {
    account_at(record, place.into()).map_or(&[], |account| &account.children)
}

/// Writes the children of each account, after the account's place.
#[inline(never)]
pub(super) fn put_all(bytes: &mut Vec<u8>, record: &Record) {
    for place in places(record) {
        let children = of(record, place);
        if children.is_empty() {
            continue;
        }
        bytes.push(place);
        put_count(bytes, children.len(), CHILDREN);
        for child in children.iter().take(CHILDREN) {
            let numbers = [
                child.key.0,
                child.spent.tokens.0,
                child.spent.usd.0,
                child.lent,
                child.recent.tokens.0,
                child.recent.usd.0,
                child.since.as_nanos(),
            ];
            put(bytes, &numbers);
            put_count(bytes, child.holds.len(), HOLDS);
            for hold in child.holds.iter().take(HOLDS) {
                let Hold {
                    since,
                    cost,
                    likely,
                } = hold;
                let numbers = [
                    since.as_nanos(),
                    cost.tokens.0,
                    cost.usd.0,
                    likely.tokens.0,
                    likely.usd.0,
                ];
                put(bytes, &numbers);
            }
        }
    }
}

/// Reads the children into their accounts, which must have been read before.
#[inline(never)]
pub(super) fn read(input: &mut Input<'_>, record: &mut Record) -> Result<(), Corrupt> {
    let mut least = 0;
    while !input.0.is_empty() {
        let [place] = input.take()?;
        let account = account_mut(record, place).ok_or(Corrupt(()))?;
        account.children = input.list(CHILDREN, child)?;
        // Places must increase, so that each record has only one encoding.
        if account.children.is_empty() || place < least {
            return Err(Corrupt(()));
        }
        least = place.saturating_add(1);
    }
    Ok(())
}

#[inline(never)]
fn child(input: &mut Input<'_>) -> Result<Child, Corrupt> {
    let [key, spent, spent_usd, lent, recent, recent_usd, since] = take(input)?;
    let cost = |tokens, usd| Cost {
        tokens: Tokens(tokens),
        usd: Micros(usd),
    };
    let [count] = input.take()?;
    let mut holds = Vec::new();
    for _ in 0..count {
        let [since, held, held_usd, likely, likely_usd] = take(input)?;
        holds.push(Hold {
            since: Timestamp::from_nanos(since),
            cost: cost(held, held_usd),
            likely: cost(likely, likely_usd),
        });
    }
    if holds.len() > HOLDS {
        return Err(Corrupt(()));
    }
    Ok(Child {
        key: ChildKey(key),
        spent: cost(spent, spent_usd),
        holds,
        lent,
        recent: cost(recent, recent_usd),
        since: Timestamp::from_nanos(since),
    })
}

#[inline(never)]
fn put(bytes: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
}

fn take<const N: usize>(input: &mut Input<'_>) -> Result<[u64; N], Corrupt> {
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = input.u64()?;
    }
    Ok(numbers)
}
