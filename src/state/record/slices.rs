//! What version 5 adds: the slices of shared budgets, each with the place of its account.

use super::{PLACES, Record, account_at, account_mut, places};
use crate::base::bytes::{Corrupt, Input};
use crate::base::units::Unit;
use crate::lease::grant::Grant;
use crate::lease::slice::Slice;

/// Added to the unit's number if an operator's changes follow.
const CHANGED: u8 = 2;

/// Whether any account has a slice.
pub(super) fn has_any(record: &Record) -> bool {
    all(record).next().is_some()
}

/// Writes the number of slices, and the slices.
pub(super) fn put(bytes: &mut Vec<u8>, record: &Record) {
    let count = super::put_count(bytes, all(record).count(), PLACES);
    for (place, slice) in all(record).take(count) {
        bytes.push(place);
        let unit = match slice.unit {
            Unit::Tokens => 0,
            Unit::UsdMicros => 1,
        };
        let changes = [slice.generation, slice.set, slice.raise];
        let is_changed = changes != [0; 3];
        bytes.push(unit | if is_changed { CHANGED } else { 0 });
        bytes.extend_from_slice(&slice.opens.as_nanos().to_le_bytes());
        if is_changed {
            bytes.extend(changes.map(u64::to_le_bytes).as_flattened());
        }
        bytes.extend(slice.grant.to_bytes());
    }
}

/// Reads the slices into their accounts, which must have been read before.
pub(super) fn read(input: &mut Input<'_>, record: &mut Record) -> Result<(), Corrupt> {
    let mut last = None;
    for (place, slice) in input.list(PLACES, slice)? {
        // Places must increase, so that each record has only one encoding.
        if last.is_some_and(|last| place <= last) {
            return Err(Corrupt(()));
        }
        last = Some(place);
        let account = account_mut(record, place).ok_or(Corrupt(()))?;
        account.slice = Some(Box::new(slice));
    }
    Ok(())
}

fn slice(input: &mut Input<'_>) -> Result<(u8, Slice), Corrupt> {
    let [place, unit] = input.take()?;
    let opens = input.time()?;
    let changes @ [generation, set, raise] = match unit & CHANGED {
        0 => [0; 3],
        _ => [input.u64()?, input.u64()?, input.u64()?],
    };
    // A slice without changes must be written without them, so that each record has only one encoding.
    if unit & CHANGED != 0 && changes == [0; 3] {
        return Err(Corrupt(()));
    }
    let slice = Slice {
        unit: match unit & !CHANGED {
            0 => Unit::Tokens,
            1 => Unit::UsdMicros,
            _ => return Err(Corrupt(())),
        },
        opens,
        generation,
        set,
        raise,
        grant: Grant::from_bytes(&input.take()?).ok_or(Corrupt(()))?,
    };
    Ok((place, slice))
}

/// All slices with the places of their accounts.
fn all(record: &Record) -> impl Iterator<Item = (u8, &Slice)> {
    let slice = |place| account_at(record, usize::from(place))?.slice.as_deref();
    places(record).filter_map(move |place| Some((place, slice(place)?)))
}
