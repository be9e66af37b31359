//! Which tiers a tenant prefers. Checks that each named tier is on some ladder, and that marks still fall along every ladder.

use super::checks::mark;
use super::path::Path;
use super::raw::RawLimits;
use super::{Parsed, wrong};
use crate::base::units::Ppm;
use crate::plan::Preferences;
use crate::tier::Ladder;

/// `path`: the path of the plan or the tenant.
pub(super) fn preferences(
    raw: &RawLimits,
    path: &Path<'_>,
    ladders: &[Ladder],
) -> Parsed<Preferences> {
    for (index, name) in raw.tiers.iter().flatten().enumerate() {
        known(ladders, name, &path.key("tiers").index(index))?;
    }
    if let Some(names) = &raw.tiers {
        let is_among = |ladder: &Ladder| {
            ladder
                .tiers
                .iter()
                .any(|tier| names.iter().any(|name| tier.name == *name))
        };
        if let Some(ladder) = ladders.iter().find(|ladder| !is_among(ladder)) {
            let all: Vec<&str> = ladder.tiers.iter().map(|tier| tier.name.as_str()).collect();
            return wrong(
                &path.key("tiers"),
                format!(
                    "names no tier of the ladder {}: none of its requests could be sent anywhere",
                    all.join(", ")
                ),
            );
        }
    }
    if let Some(floor) = &raw.floor {
        let here = &path.key("floor");
        known(ladders, floor, here)?;
        if raw
            .tiers
            .as_ref()
            .is_some_and(|names| !names.contains(floor))
        {
            return wrong(here, format!("`{floor}` is not among `tiers`"));
        }
    }
    let below = path.key("below");
    let below = raw.below.iter().map(|(name, number)| {
        let here = &below.key(name);
        known(ladders, name, here)?;
        let is_first =
            |ladder: &Ladder| ladder.tiers.first().is_some_and(|tier| tier.name == *name);
        if ladders
            .iter()
            .filter(|ladder| has(ladder, name))
            .all(is_first)
        {
            return wrong(
                here,
                "the first tier needs no mark: it serves until another one does",
            );
        }
        Ok((name.clone(), mark(*number, here)?))
    });
    let preferences = Preferences {
        tiers: raw.tiers.clone(),
        floor: raw.floor.clone(),
        below: below.collect::<Parsed<_>>()?,
    };
    for ladder in ladders {
        check_marks(raw, &preferences, path, ladder)?;
    }
    Ok(preferences)
}

fn has(ladder: &Ladder, name: &str) -> bool {
    ladder.tiers.iter().any(|tier| tier.name == *name)
}

fn known(ladders: &[Ladder], name: &str, path: &Path<'_>) -> Parsed<()> {
    match ladders.iter().any(|ladder| has(ladder, name)) {
        true => Ok(()),
        false => wrong(path, format!("no tier is called `{name}`")),
    }
}

/// Checks that the marks of a ladder still fall from tier to tier once the tenant's own marks are applied.
fn check_marks(
    raw: &RawLimits,
    preferences: &Preferences,
    path: &Path<'_>,
    ladder: &Ladder,
) -> Parsed<()> {
    let own = |name: &str| {
        let own = preferences.below.iter().find(|(own, _)| own == name);
        own.map(|&(_, below)| below)
    };
    let last = ladder.tiers.last().map(|tier| tier.name.as_str());
    if let Some(last) = last.filter(|last| raw.low_water_mark.is_some() && own(last).is_some()) {
        return wrong(
            &path.key("low_water_mark"),
            format!("`below` has a mark of `{last}`, the last tier, too: give one of them"),
        );
    }
    let mut above: Option<(&str, Ppm)> = None;
    for tier in ladder.tiers.iter().skip(1) {
        let name = tier.name.as_str();
        // `low_water_mark` replaces the last tier's mark, and may be higher than all other marks.
        let is_replaced = raw.low_water_mark.is_some() && last == Some(name);
        let Some(below) = own(name).or(tier.below).filter(|_| !is_replaced) else {
            continue;
        };
        if let Some((better, mark)) = above.filter(|&(_, mark)| below >= mark) {
            // The ladder's own marks fall, so at least one of the two is the tenant's own.
            let (blamed, bound) = match own(name) {
                Some(_) => (
                    name,
                    format!(
                        "less than {}, the mark of `{better}` before it",
                        decimal(mark)
                    ),
                ),
                None => (
                    better,
                    format!(
                        "more than {}, the mark of `{name}` after it",
                        decimal(below)
                    ),
                ),
            };
            return wrong(&path.key("below").key(blamed), format!("must be {bound}"));
        }
        above = Some((name, below));
    }
    Ok(())
}

/// A fraction in decimal notation.
fn decimal(Ppm(ppm): Ppm) -> String {
    let digits = format!("{}.{:06}", ppm / 1_000_000, ppm % 1_000_000);
    digits
        .trim_end_matches('0')
        .trim_end_matches('.')
        .to_owned()
}
