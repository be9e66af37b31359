//! What version 7 adds: shares of buckets that proxies share, each with the place of its bucket, and the part that the bucket has.

use super::{PLACES, Record, places};
use crate::base::bytes::{Corrupt, Input};
use crate::base::name::LimitKey;
use crate::base::units::Ppm;
use crate::lease::quota::{Part, WHOLE};
use crate::lease::rate::Rate;
use crate::limits::bucket::Bucket;
use crate::limits::stacked::{Entry, State};

/// The number that stands for [`Part::Credit`], instead of a part in millionths.
const CREDIT: u32 = u32::MAX;

/// Whether any bucket has a share.
pub(super) fn has_any(record: &Record) -> bool {
    !record.rates.is_empty() && all(record).next().is_some()
}

/// Writes the number of shares, and the shares.
#[inline(never)]
pub(super) fn put(bytes: &mut Vec<u8>, record: &Record) {
    let count = super::put_count(bytes, all(record).count(), PLACES);
    for (place, part, rate) in all(record).take(count) {
        bytes.push(place);
        bytes.extend_from_slice(&part.to_le_bytes());
        bytes.extend(rate.to_bytes());
    }
}

/// Reads the shares, and gives their parts to the buckets, which must have been read before.
#[inline(never)]
pub(super) fn read(input: &mut Input<'_>, record: &mut Record) -> Result<(), Corrupt> {
    let [count] = input.take()?;
    let mut least = 0;
    for _ in 0..count {
        let [place] = input.take()?;
        // Places must increase, so that each record has only one encoding.
        if place < least {
            return Err(Corrupt(()));
        }
        least = place.saturating_add(1);
        let part = match input.u32()? {
            CREDIT => Part::Credit,
            part if u64::from(part) <= WHOLE => Part::Of(Ppm(part.into())),
            _ => return Err(Corrupt(())),
        };
        let bytes = input.take()?;
        let (key, bucket) = bucket_mut(record, place).ok_or(Corrupt(()))?;
        bucket.part = part;
        let rate = Rate::from_bytes(key, &bytes).ok_or(Corrupt(()))?;
        // Each limit has only one share.
        if record.rates.iter().any(|other| other.limit == key) {
            return Err(Corrupt(()));
        }
        record.rates.push(rate);
    }
    Ok(())
}

/// All shares to write, one for each limit: the place of the share's bucket, the bucket's part, and the share.
fn all(record: &Record) -> impl Iterator<Item = (u8, u32, &Rate)> {
    let one = |place| {
        let (key, bucket) = bucket_at(record, usize::from(place))?;
        let part = match bucket.part {
            Part::Whole => return None,
            Part::Of(Ppm(part)) => u32::try_from(part.min(WHOLE)).unwrap_or_default(),
            Part::Credit => CREDIT,
        };
        let is_first = |before| {
            bucket_at(record, before)
                .is_none_or(|(other, bucket)| other != key || bucket.part == Part::Whole)
        };
        if !(0..usize::from(place)).all(is_first) {
            return None;
        }
        let rate = record.rates.iter().find(|rate| rate.limit == key)?;
        Some((place, part, rate))
    };
    places(record).filter_map(one)
}

fn bucket_at(record: &Record, place: usize) -> Option<(LimitKey, &Bucket)> {
    let Some(other) = place.checked_sub(1) else {
        return Some((LimitKey::BUCKET, &record.bucket));
    };
    match record.others.get(other) {
        Some(Entry {
            key,
            state: State::Bucket(bucket),
        }) => Some((*key, bucket)),
        Some(_) | None => None,
    }
}

fn bucket_mut(record: &mut Record, place: u8) -> Option<(LimitKey, &mut Bucket)> {
    let Some(other) = usize::from(place).checked_sub(1) else {
        return Some((LimitKey::BUCKET, &mut record.bucket));
    };
    match record.others.get_mut(other) {
        Some(Entry {
            key,
            state: State::Bucket(bucket),
        }) => Some((*key, bucket)),
        Some(_) | None => None,
    }
}
