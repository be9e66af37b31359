//! Calendar windows of a budget, computed when they are read: no timer is needed.
//!
//! Windows follow UTC, where clocks are never changed, or the clocks of a place ([`Zone`]), where a day may have 23 or 25 hours.

use std::num::NonZeroU64;
use std::time::Duration;

use super::civil::{DAY, HOUR, month};
use super::zone::Zone;
use crate::base::units::{Timestamp, nanos, times};

/// How often a budget starts anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// On the hour.
    Hour,
    /// At midnight.
    Day,
    /// On this day at midnight.
    Week(Weekday),
    /// On the first at midnight.
    Month,
    /// A unit of the calendar, by the clocks of a place.
    Local(Calendar, &'static Zone),
    /// At every multiple of this many nanoseconds, counted from the Unix epoch.
    Every(NonZeroU64),
    /// From a request until no other has come for this many nanoseconds.
    Idle(NonZeroU64),
    /// Never: the budget can be spent only once.
    Never,
}

/// The units into which a calendar is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calendar {
    /// Hours, which a clock change may shorten.
    Hour,
    /// Days, which a clock change may lengthen or shorten.
    Day,
    /// Weeks that start on this day.
    Week(Weekday),
    /// Months.
    Month,
}

/// The day on which a week starts, as the number of days from it to 1 January 1970, which was a Thursday.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say it")]
pub enum Weekday {
    /// The default, by ISO 8601.
    #[default]
    Monday = 3,
    Tuesday = 2,
    Wednesday = 1,
    Thursday = 0,
    Friday = 6,
    Saturday = 5,
    Sunday = 4,
}

/// A span of time, its end not included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The first moment inside.
    pub start: Timestamp,
    /// The first moment after. Invariant: `start <= end`.
    pub end: Timestamp,
}

impl Period {
    /// The window of this period that contains `now`.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Window {
        let secs = now.as_secs();
        match self {
            Self::Hour => aligned(secs, HOUR, 0),
            Self::Day => aligned(secs, DAY, 0),
            Self::Week(start) => aligned(secs, times(DAY, 7), times(DAY, start as u64)),
            Self::Month => {
                let (first, next) = month(u32::try_from(secs / DAY).unwrap_or(u32::MAX));
                window(times(first.into(), DAY), times(next.into(), DAY))
            }
            Self::Local(calendar, zone) => calendar.at(secs, zone),
            Self::Every(length) => {
                let into = now.as_nanos().checked_rem(length.get()).unwrap_or(0);
                let start = now.as_nanos().saturating_sub(into);
                Window {
                    start: Timestamp::from_nanos(start),
                    end: Timestamp::from_nanos(start.saturating_add(length.get())),
                }
            }
            Self::Idle(length) => Window {
                start: now,
                end: now.plus_nanos(length.get()),
            },
            Self::Never => Window {
                start: Timestamp::default(),
                end: Timestamp::MAX,
            },
        }
    }
}

impl Calendar {
    /// The window around `secs` by the clocks of a place.
    fn at(self, secs: u64, zone: &Zone) -> Window {
        let span = zone.span(secs);
        let local = secs.saturating_add_signed(span.offset.into());
        if self == Self::Hour {
            let start = secs.saturating_sub(local % HOUR);
            return window(
                start.max(span.start),
                span.end.min(start.saturating_add(HOUR)),
            );
        }
        let mut days = self.days(u32::try_from(local / DAY).unwrap_or(u32::MAX));
        // Clocks that are put back over midnight show the day before again; that day has already ended.
        if zone.start_of(days.1) <= secs {
            days = self.days(days.1);
        }
        window(zone.start_of(days.0), zone.start_of(days.1))
    }

    /// The first day of the unit that contains a day, and the first day of the next unit.
    fn days(self, day: u32) -> (u32, u32) {
        match self {
            Self::Hour | Self::Day => (day, day.saturating_add(1)),
            Self::Week(start) => {
                let lead = start as u32;
                let shifted = day.saturating_add(lead);
                let first = shifted.saturating_sub(shifted % 7);
                // A week that starts before the epoch is shortened to start there.
                let at = |shifted: u32| shifted.saturating_sub(lead);
                (at(first), at(first.saturating_add(7)))
            }
            Self::Month => month(day),
        }
    }
}

impl Window {
    /// Whether `now` is before the end.
    #[must_use]
    pub fn is_open(self, now: Timestamp) -> bool {
        now < self.end
    }

    /// The window's whole length.
    #[must_use]
    pub fn length(self) -> Duration {
        self.end.since(self.start)
    }
}

/// The window of `length` seconds that contains `secs`, where windows start `lead` seconds before the epoch.
fn aligned(secs: u64, length: u64, lead: u64) -> Window {
    let shifted = secs.saturating_add(lead);
    let start = shifted.saturating_sub(shifted.checked_rem(length).unwrap_or(0));
    // A window that starts before the epoch is shortened to start there.
    let at = |shifted: u64| shifted.saturating_sub(lead);
    window(at(start), at(start.saturating_add(length)))
}

/// The window from one second to another.
fn window(start: u64, end: u64) -> Window {
    Window {
        start: Timestamp::from_secs(start),
        end: Timestamp::from_secs(end),
    }
}

/// Reads a duration such as `"90s"`, `"1m"`, `"36h"`: digits, then `ms`, `s`, `m`, `h` or `d`.
/// `None` for anything else, for zero, and for more than 584 years.
#[must_use]
pub fn duration(text: &str) -> Option<NonZeroU64> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at_checked(split)?;
    let unit = match unit {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(HOUR),
        "d" => Duration::from_secs(DAY),
        _ => return None,
    };
    let length = digits.parse::<u64>().ok()?.checked_mul(nanos(unit))?;
    NonZeroU64::new(length)
}

#[cfg(test)]
mod tests;
