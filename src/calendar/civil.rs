//! Dates from 1970 on, as days since the epoch.
//!
//! They are converted with the day-count arithmetic of Howard Hinnant's `chrono`-compatible algorithms (`days_from_civil`,
//! `civil_from_days`).

/// An hour in seconds.
pub(super) const HOUR: u64 = 3_600;
/// A day in seconds.
pub(super) const DAY: u64 = 86_400;

/// February, since the months of a year are counted from March, which is 0.
const LAST_MONTH: u32 = 11;

/// Days from 1 March of the year 0 to 1 January 1970: with this count, leap days are at the end of a year.
const ERA_SHIFT: u32 = 719_468;
const DAYS_PER_ERA: u32 = 146_097;

/// The first day of the month that contains a day, and the first day of the next month. Days fit into 32 bits, which are quick to calculate
/// with: a [`crate::base::units::Timestamp`] has at most 213,503 of them.
pub(super) fn month(day: u32) -> (u32, u32) {
    let (year, month) = civil(day);
    let next = if month == LAST_MONTH {
        first_day(year.saturating_add(1), 0)
    } else {
        first_day(year, month.saturating_add(1))
    };
    (first_day(year, month), next)
}

/// Year and month of a day since the epoch, where years begin in March.
pub(super) fn civil(day: u32) -> (u32, u32) {
    let shifted = day.saturating_add(ERA_SHIFT);
    let era = shifted / DAYS_PER_ERA;
    let of_era = shifted % DAYS_PER_ERA;
    // At most 146,096 and always positive: the era's leap days so far are subtracted, then added back.
    let corrected = of_era
        .saturating_add(of_era / 36_524)
        .saturating_sub(of_era / 1_460)
        .saturating_sub(of_era / 146_096);
    let year_of_era = corrected / 365;
    let day_of_year = of_era.saturating_sub(days_before(year_of_era));
    let month = day_of_year.saturating_mul(5).saturating_add(2) / 153;
    (era.saturating_mul(400).saturating_add(year_of_era), month)
}

/// The first day of a month, counted from the epoch. Year and month are as in [`civil`].
pub(crate) fn first_day(year: u32, month: u32) -> u32 {
    let day_of_year = month.saturating_mul(153).saturating_add(2) / 5;
    (year / 400)
        .saturating_mul(DAYS_PER_ERA)
        .saturating_add(days_before(year % 400))
        .saturating_add(day_of_year)
        .saturating_sub(ERA_SHIFT)
}

/// Days of an era before this year of the era.
fn days_before(year_of_era: u32) -> u32 {
    year_of_era
        .saturating_mul(365)
        .saturating_add(year_of_era / 4)
        .saturating_sub(year_of_era / 100)
}
