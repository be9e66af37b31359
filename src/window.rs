//! Calendar windows of a budget, computed when they are read: nothing ticks.
//!
//! All of them are in UTC, where there is no daylight saving. A week starts on Monday (ISO 8601).
//! Civil dates are converted with the day-count arithmetic of Howard Hinnant's `chrono`-compatible
//! algorithms (`days_from_civil`, `civil_from_days`), for dates from 1970 on.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::units::{Timestamp, nanos, times};

/// How often a budget starts anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// On the hour.
    Hour,
    /// At midnight.
    Day,
    /// On Monday at midnight.
    Week,
    /// On the first at midnight.
    Month,
    /// Every so many nanoseconds, counted from the Unix epoch.
    Every(NonZeroU64),
    /// Never: the budget is spent once.
    Never,
}

/// A span of time, its end not included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The first moment inside.
    pub start: Timestamp,
    /// The first moment after. Invariant: `start <= end`.
    pub end: Timestamp,
}

const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

impl Period {
    /// The window of this period that `now` is in.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Window {
        let secs = now.as_secs();
        match self {
            Self::Hour => aligned(secs, HOUR, 0),
            Self::Day => aligned(secs, DAY, 0),
            // 1 January 1970 was a Thursday, three days after a Monday.
            Self::Week => aligned(secs, DAY.saturating_mul(7), DAY.saturating_mul(3)),
            Self::Month => month(u32::try_from(secs / DAY).unwrap_or(u32::MAX)),
            Self::Every(length) => {
                let into = now.as_nanos().checked_rem(length.get()).unwrap_or(0);
                let start = now.as_nanos().saturating_sub(into);
                Window {
                    start: Timestamp::from_nanos(start),
                    end: Timestamp::from_nanos(start.saturating_add(length.get())),
                }
            }
            Self::Never => Window {
                start: Timestamp::default(),
                end: Timestamp::MAX,
            },
        }
    }
}

impl Window {
    /// Whether `now` is before the end.
    #[must_use]
    pub fn is_open(self, now: Timestamp) -> bool {
        now < self.end
    }

    /// Its whole length.
    #[must_use]
    pub fn length(self) -> Duration {
        self.end.since(self.start)
    }
}

/// The window of `length` seconds around `secs`, where windows start `lead` seconds before the epoch.
fn aligned(secs: u64, length: u64, lead: u64) -> Window {
    let shifted = secs.saturating_add(lead);
    let start = shifted.saturating_sub(shifted.checked_rem(length).unwrap_or(0));
    // A window that starts before the epoch is cut there.
    let at = |shifted: u64| Timestamp::from_secs(shifted.saturating_sub(lead));
    Window {
        start: at(start),
        end: at(start.saturating_add(length)),
    }
}

/// The month that the `day`-th day since the epoch is in. Days fit into 32 bits: a [`Timestamp`] has no more than 213,503,
/// and calculating with those is quick.
fn month(day: u32) -> Window {
    let (year, month) = civil(day);
    let next = if month == LAST_MONTH {
        (year.saturating_add(1), 0)
    } else {
        (year, month.saturating_add(1))
    };
    let midnight = |(year, month)| Timestamp::from_secs(times(first_day(year, month).into(), DAY));
    Window {
        start: midnight((year, month)),
        end: midnight(next),
    }
}

/// Days from 1 March of the year 0 to 1 January 1970: the count that makes leap days fall at a year's end.
const ERA_SHIFT: u32 = 719_468;
const DAYS_PER_ERA: u32 = 146_097;

/// February, since the months of a year are counted from March, which is 0.
const LAST_MONTH: u32 = 11;

/// Year and month of a day since the epoch, where a year begins in March.
fn civil(day: u32) -> (u32, u32) {
    let shifted = day.saturating_add(ERA_SHIFT);
    let era = shifted / DAYS_PER_ERA;
    let of_era = shifted % DAYS_PER_ERA;
    // At most 146,096 and always positive: leap days of the era so far are taken out, then put back.
    let corrected = of_era
        .saturating_add(of_era / 36_524)
        .saturating_sub(of_era / 1_460)
        .saturating_sub(of_era / 146_096);
    let year_of_era = corrected / 365;
    let day_of_year = of_era.saturating_sub(days_before(year_of_era));
    let month = day_of_year.saturating_mul(5).saturating_add(2) / 153;
    (era.saturating_mul(400).saturating_add(year_of_era), month)
}

/// The first day of a month, counted from the epoch; year and month as [`civil`] has them.
fn first_day(year: u32, month: u32) -> u32 {
    let day_of_year = month.saturating_mul(153).saturating_add(2) / 5;
    (year / 400)
        .saturating_mul(DAYS_PER_ERA)
        .saturating_add(days_before(year % 400))
        .saturating_add(day_of_year)
        .saturating_sub(ERA_SHIFT)
}

/// Days of an era before this year of it.
fn days_before(year_of_era: u32) -> u32 {
    year_of_era
        .saturating_mul(365)
        .saturating_add(year_of_era / 4)
        .saturating_sub(year_of_era / 100)
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
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// The window's start and end in seconds since the epoch.
    fn window(period: Period, secs: u64) -> (u64, u64) {
        let window = period.at(Timestamp::from_secs(secs));
        (window.start.as_secs(), window.end.as_secs())
    }

    // Reference values from `date -u -d … +%s`.
    const LEAP_DAY_2024: u64 = 1_709_164_800; // 2024-02-29T00:00:00Z, a Thursday
    const MARCH_2024: u64 = 1_709_251_200;
    const FEBRUARY_2024: u64 = 1_706_745_600;

    // cases.md 8
    #[test]
    fn an_hour_and_a_day_start_on_the_hour_and_at_midnight() {
        let noon = LEAP_DAY_2024 + 12 * HOUR + 61;
        assert_eq!(window(Period::Hour, noon), (noon - 61, noon - 61 + HOUR));
        assert_eq!(window(Period::Day, noon), (LEAP_DAY_2024, MARCH_2024));
    }

    // cases.md 8
    #[test]
    fn a_week_starts_on_monday() {
        let monday = LEAP_DAY_2024 - 3 * DAY;
        assert_eq!(
            window(Period::Week, LEAP_DAY_2024),
            (monday, monday + 7 * DAY)
        );
        assert_eq!(window(Period::Week, monday), (monday, monday + 7 * DAY));
        assert_eq!(window(Period::Week, monday - 1), (monday - 7 * DAY, monday));
        assert_eq!(window(Period::Week, 0), (0, 4 * DAY));
    }

    // cases.md 8
    #[test]
    fn a_month_has_its_own_length_in_leap_years_too() {
        assert_eq!(
            window(Period::Month, LEAP_DAY_2024),
            (FEBRUARY_2024, MARCH_2024)
        );
        assert_eq!(
            window(Period::Month, MARCH_2024 - 1),
            (FEBRUARY_2024, MARCH_2024)
        );
        assert_eq!(
            window(Period::Month, MARCH_2024),
            (MARCH_2024, MARCH_2024 + 31 * DAY)
        );
        // February of 2100, which is no leap year, and the turn of a year.
        assert_eq!(
            window(Period::Month, 4_107_542_399),
            (4_105_123_200, 4_107_542_400)
        );
        assert_eq!(
            window(Period::Month, 1_735_689_599),
            (1_733_011_200, 1_735_689_600)
        );
    }

    #[test]
    fn months_follow_each_other_without_gap_until_2500() {
        let mut end = window(Period::Month, 0);
        assert_eq!(end, (0, 31 * DAY));
        for _ in 0..12 * 530 {
            let next = window(Period::Month, end.1);
            assert_eq!(next.0, end.1);
            assert!((28..=31).contains(&((next.1 - next.0) / DAY)));
            end = next;
        }
    }

    #[test]
    fn a_duration_repeats_from_the_epoch_and_never_never_ends() {
        let ninety = Period::Every(duration("90s").unwrap());
        assert_eq!(window(ninety, 0), (0, 90));
        assert_eq!(window(ninety, 179), (90, 180));
        assert_eq!(
            Period::Never.at(Timestamp::from_secs(9)).end,
            Timestamp::MAX
        );
    }

    #[test]
    fn durations_read_as_written_or_not_at_all() {
        assert_eq!(duration("1m").unwrap().get(), 60_000_000_000);
        assert_eq!(duration("250ms").unwrap().get(), 250_000_000);
        assert_eq!(duration("36h").unwrap().get(), 36 * HOUR * 1_000_000_000);
        assert_eq!(duration("7d").unwrap().get(), 7 * DAY * 1_000_000_000);
        for wrong in [
            "",
            "s",
            "0s",
            "90",
            "1.5h",
            "-1s",
            "1w",
            " 1s",
            "99999999999999d",
        ] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}
