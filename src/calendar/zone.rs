//! What the clocks of a place show: the time zones of the IANA database, as far as budgets need them.
//!
//! A zone is a rule for all years to come, preceded by a list of changes that the rule does not cover. Changes in former years are left
//! out, and so are abbreviations: a budget's window is always one that is open now.

mod table;

use std::iter::successors;

use strsim::levenshtein;

use super::civil::{DAY, civil, first_day};
use table::ZONES;

/// What the clocks of a place show.
#[derive(Debug, PartialEq, Eq)]
pub struct Zone {
    /// When clocks are changed before the rule applies, in seconds since the epoch, and to which offset; the earliest change first.
    listed: &'static [(u32, i32)],
    /// Seconds that local time is ahead of UTC, unless another offset applies.
    standard: i32,
    /// The other offset, which applies for a part of each year.
    season: Option<Season>,
}

#[derive(Debug, PartialEq, Eq)]
struct Season {
    offset: i32,
    begins: Change,
    ends: Change,
}

/// When clocks are changed, every year.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    /// March is 0.
    month: u32,
    /// Which one of this weekday in the month; 5 is the last.
    week: u32,
    /// Sunday is 0.
    weekday: u32,
    /// The local time before the change, in seconds from midnight; may be on the day before or a later day.
    at: i32,
}

/// A span of time in which the clocks are not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Seconds that local time is ahead of UTC.
    pub(super) offset: i32,
    /// The first second of the span, counted from the epoch.
    pub(super) start: u64,
    /// The first second after the span.
    pub(super) end: u64,
}

impl Zone {
    /// The zone of this name in the IANA database, if there is one.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        let is_it = |names: &str| names.split_ascii_whitespace().any(|known| known == name);
        let (_, zone) = ZONES.iter().find(|(names, _)| is_it(names))?;
        Some(zone)
    }

    /// The names that are most similar to this one: at most three, the nearest first.
    #[must_use]
    pub fn names_like(name: &str) -> Vec<&'static str> {
        let name = name.to_ascii_lowercase();
        let distance = |known: &str| {
            let known = known.to_ascii_lowercase();
            let city = known.rsplit('/').next().unwrap_or_default();
            levenshtein(&name, &known).min(levenshtein(&name, city))
        };
        let all = ZONES.iter();
        let near: Vec<(usize, &str)> = all
            .flat_map(|(names, _)| names.split_ascii_whitespace())
            .map(|known| (distance(known), known))
            .filter(|&(distance, _)| distance <= name.len() / 4)
            .collect();
        let next =
            |last: &(usize, &'static str)| near.iter().filter(|one| *one > last).min().copied();
        let nearest = successors(near.iter().min().copied(), next);
        nearest.take(3).map(|(_, known)| known).collect()
    }

    /// Whether the zone's clocks always show UTC.
    #[must_use]
    pub fn is_utc(&self) -> bool {
        *self == always(0)
    }

    /// Whether the zone's hours always begin with those of UTC.
    #[must_use]
    pub fn has_whole_hours(&self) -> bool {
        let season = self.season.iter().map(|season| season.offset);
        let listed = self.listed.iter().map(|&(_, offset)| offset);
        let mut offsets = season.chain(listed).chain([self.standard]);
        offsets.all(|offset| offset % 3_600 == 0)
    }

    /// The first second of a local day (counted from 1 January 1970), which need not be midnight.
    pub(super) fn start_of(&self, day: u32) -> u64 {
        let midnight = u64::from(day).saturating_mul(DAY);
        // No clock is a whole day ahead of UTC or behind it.
        let mut span = self.span(midnight.saturating_sub(DAY));
        loop {
            let start = midnight
                .saturating_sub_signed(span.offset.into())
                .max(span.start);
            if start < span.end {
                return start;
            }
            span = self.span(span.end);
        }
    }

    /// The span around `secs` in which the clocks are not changed.
    pub(super) fn span(&self, secs: u64) -> Span {
        let last = self.listed.last().map_or(0, |&(last, _)| last.into());
        if secs < last {
            return self.listed_span(secs);
        }
        let span = self.ruled_span(secs);
        Span {
            start: span.start.max(last),
            ..span
        }
    }

    fn listed_span(&self, secs: u64) -> Span {
        let next = self
            .listed
            .partition_point(|&(moment, _)| u64::from(moment) <= secs);
        let at = |index: usize| self.listed.get(index).copied().unwrap_or_default();
        let (start, offset) = at(next.saturating_sub(1));
        Span {
            offset,
            // The first entry also says what the clocks showed before it.
            start: if next <= 1 { 0 } else { start.into() },
            end: at(next.max(1)).0.into(),
        }
    }

    fn ruled_span(&self, secs: u64) -> Span {
        let Some(season) = &self.season else {
            return Span {
                offset: self.standard,
                start: 0,
                end: u64::MAX,
            };
        };
        let begins = |year| (season.begins.in_year(year, self.standard), season.offset);
        let ends = |year| (season.ends.in_year(year, season.offset), self.standard);
        // Years run from March to February: no zone changes its clocks around the end of such a year.
        let (year, _) = civil(u32::try_from(secs / DAY).unwrap_or(u32::MAX));
        let (last, next) = (year.saturating_sub(1), year.saturating_add(1));
        let (begun, ended) = (begins(year), ends(year));
        let ((start, offset), (end, _)) = match (secs >= begun.0, secs >= ended.0) {
            (true, false) => (begun, ended),
            (false, true) => (ended, begun),
            (false, false) if begun < ended => (ends(last), begun),
            (false, false) => (begins(last), ended),
            (true, true) if begun < ended => (ended, begins(next)),
            (true, true) => (begun, ends(next)),
        };
        Span { offset, start, end }
    }

    /// One name for each set of zones with the same clocks.
    #[cfg(all(test, not(target_arch = "wasm32")))]
    pub(super) fn examples() -> impl Iterator<Item = &'static str> {
        let first = |names: &'static str| names.split_ascii_whitespace().next();
        ZONES.iter().filter_map(move |(names, _)| first(names))
    }

    /// The second from which on the table of zones is right.
    #[cfg(all(test, not(target_arch = "wasm32")))]
    pub(super) const FIRST: u64 = table::FIRST;

    const fn after(self, listed: &'static [(u32, i32)]) -> Self {
        Self { listed, ..self }
    }
}

impl Change {
    /// When the change is in this year (as in [`civil`]), if clocks have this offset before the change; in seconds since the epoch.
    fn in_year(&self, year: u32, offset: i32) -> u64 {
        let first = first_day(year, self.month);
        // 1 January 1970 was a Thursday.
        let weekday_of_first = first.saturating_add(4) % 7;
        let mut day = first
            .saturating_add(
                (self
                    .weekday
                    .saturating_add(7)
                    .saturating_sub(weekday_of_first))
                    % 7,
            )
            .saturating_add(self.week.saturating_sub(1).saturating_mul(7));
        if self.week == 5 && day >= first_day(year, self.month.saturating_add(1)) {
            day = day.saturating_sub(7);
        }
        let local = u64::from(day).saturating_mul(DAY);
        local.saturating_add_signed(i64::from(self.at).saturating_sub(offset.into()))
    }
}

/// A zone whose clocks are not changed.
const fn always(standard: i32) -> Zone {
    Zone {
        listed: &[],
        standard,
        season: None,
    }
}

/// A zone whose clocks are changed twice a year.
const fn changing(standard: i32, offset: i32, begins: Change, ends: Change) -> Zone {
    Zone {
        listed: &[],
        standard,
        season: Some(Season {
            offset,
            begins,
            ends,
        }),
    }
}

/// Month from 3, the number of the weekday in the month, the weekday from Sunday, and seconds from its midnight.
const fn on(month: u32, week: u32, weekday: u32, at: i32) -> Change {
    Change {
        month: month.saturating_sub(3),
        week,
        weekday,
        at,
    }
}

#[cfg(test)]
mod tests;
