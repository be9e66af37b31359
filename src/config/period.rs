//! When a budget starts anew: its window, and the clock and the calendar that the window follows.

use super::checks::required;
use super::path::Path;
use super::raw::{RawBudget, RawWeekday, RawWindow};
use super::{Parsed, wrong};
use crate::calendar::window::{Calendar, Period, Weekday, duration};
use crate::calendar::zone::Zone;

/// `path`: the path of the budget.
pub(super) fn period(raw: &RawBudget, path: &Path<'_>) -> Parsed<Period> {
    let text = match required(raw.window.as_ref(), &path.key("window"))? {
        RawWindow::Text(text) => text.as_str(),
        RawWindow::Idle(window) => return idle(raw, &window.idle, path),
    };
    let week_start = raw.week_start.map(weekday);
    if week_start.is_some() && text != "week" {
        let reason = format!("a window of `{text}` has no first day: this needs the window `week`");
        return wrong(&path.key("week_start"), reason);
    }
    let calendar = match text {
        "hour" => Calendar::Hour,
        "day" => Calendar::Day,
        "week" => Calendar::Week(week_start.unwrap_or_default()),
        "month" => Calendar::Month,
        _ => return uncalendared(raw, text, path),
    };
    let zone = raw.timezone.as_deref();
    let zone = zone.map(|name| zone_of(name, calendar, &path.key("timezone")));
    Ok(
        match (calendar, zone.transpose()?.filter(|zone| !zone.is_utc())) {
            (_, Some(zone)) => Period::Local(calendar, zone),
            (Calendar::Hour, None) => Period::Hour,
            (Calendar::Day, None) => Period::Day,
            (Calendar::Week(start), None) => Period::Week(start),
            (Calendar::Month, None) => Period::Month,
        },
    )
}

/// A window that ends after a time without requests.
fn idle(raw: &RawBudget, text: &str, path: &Path<'_>) -> Parsed<Period> {
    let needless = [
        ("timezone", raw.timezone.is_some()),
        ("week_start", raw.week_start.is_some()),
        ("rollover", raw.rollover.is_some()),
    ];
    if let Some((key, _)) = needless.into_iter().find(|&(_, is_set)| is_set) {
        return wrong(
            &path.key(key),
            "has no meaning for a window that begins with a request",
        );
    }
    match duration(text) {
        Some(length) => Ok(Period::Idle(length)),
        None => wrong(
            &path.key("window").key("idle"),
            format!("`{text}` is no duration such as \"2h\""),
        ),
    }
}

/// A window that follows no calendar.
fn uncalendared(raw: &RawBudget, text: &str, path: &Path<'_>) -> Parsed<Period> {
    let period = match text {
        "none" => Period::Never,
        text => match duration(text) {
            Some(length) => Period::Every(length),
            None => {
                let reason = format!(
                    "`{text}` is none of hour, day, week, month, none or a duration such as \"90s\""
                );
                return wrong(&path.key("window"), reason);
            }
        },
    };
    match raw.timezone {
        None => Ok(period),
        Some(_) => wrong(
            &path.key("timezone"),
            format!(
                "a window of `{text}` follows no calendar: this needs hour, day, week or month"
            ),
        ),
    }
}

fn zone_of(name: &str, calendar: Calendar, path: &Path<'_>) -> Parsed<&'static Zone> {
    let Some(zone) = Zone::find(name) else {
        let like = Zone::names_like(name);
        let meant = match like.is_empty() {
            true => "give one such as \"Europe/Berlin\"".to_owned(),
            false => format!("is `{}` meant?", like.join("` or `")),
        };
        return wrong(
            path,
            format!("`{name}` is no time zone of the IANA database: {meant}"),
        );
    };
    if calendar == Calendar::Hour && zone.has_whole_hours() {
        let reason = format!("has no meaning for hours: those of `{name}` start with UTC's");
        return wrong(path, reason);
    }
    Ok(zone)
}

fn weekday(raw: RawWeekday) -> Weekday {
    match raw {
        RawWeekday::Monday => Weekday::Monday,
        RawWeekday::Tuesday => Weekday::Tuesday,
        RawWeekday::Wednesday => Weekday::Wednesday,
        RawWeekday::Thursday => Weekday::Thursday,
        RawWeekday::Friday => Weekday::Friday,
        RawWeekday::Saturday => Weekday::Saturday,
        RawWeekday::Sunday => Weekday::Sunday,
    }
}

#[cfg(test)]
mod tests;
