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

// Windows may end while requests are in flight, and clocks may be set back.
#[test]
fn an_hour_and_a_day_start_on_the_hour_and_at_midnight() {
    let noon = LEAP_DAY_2024 + 12 * HOUR + 61;
    assert_eq!(window(Period::Hour, noon), (noon - 61, noon - 61 + HOUR));
    assert_eq!(window(Period::Day, noon), (LEAP_DAY_2024, MARCH_2024));
}

#[test]
fn a_week_starts_on_monday_or_as_the_operator_wants() {
    let monday = LEAP_DAY_2024 - 3 * DAY;
    assert_eq!(
        window(Period::Week(Weekday::Monday), LEAP_DAY_2024),
        (monday, monday + 7 * DAY)
    );
    assert_eq!(
        window(Period::Week(Weekday::Monday), monday),
        (monday, monday + 7 * DAY)
    );
    assert_eq!(
        window(Period::Week(Weekday::Monday), monday - 1),
        (monday - 7 * DAY, monday)
    );
    assert_eq!(window(Period::Week(Weekday::Monday), 0), (0, 4 * DAY));
    let sunday = Period::Week(Weekday::Sunday);
    assert_eq!(window(sunday, monday), (monday - DAY, monday + 6 * DAY));
    assert_eq!(window(sunday, monday - DAY - 1).1, monday - DAY);
    let thursday = Period::Week(Weekday::Thursday);
    assert_eq!(window(thursday, LEAP_DAY_2024).0, LEAP_DAY_2024);
}

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
    // February of 2100, which is not a leap year, and a change of year.
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

fn zone(name: &str) -> &'static Zone {
    Zone::find(name).unwrap()
}

fn local(calendar: Calendar, name: &str, secs: u64) -> (u64, u64) {
    window(Period::Local(calendar, zone(name)), secs)
}

// Reference values from `date -d 'TZ="…" …' +%s`.
#[test]
fn a_day_has_23_hours_in_spring_and_25_in_autumn() {
    let day = |noon| local(Calendar::Day, "Europe/Berlin", noon);
    assert_eq!(
        day(1_774_778_400),
        (1_774_738_800, 1_774_738_800 + 23 * HOUR)
    );
    assert_eq!(
        day(1_792_926_000),
        (1_792_879_200, 1_792_879_200 + 25 * HOUR)
    );
    // South of the equator, summer time spans the change of year.
    let day = |noon| local(Calendar::Day, "America/Santiago", noon);
    assert_eq!(day(1_775_404_800).1 - day(1_775_404_800).0, 24 * HOUR);
    assert_eq!(day(1_775_318_400).1 - day(1_775_318_400).0, 25 * HOUR);
    assert_eq!(day(1_788_706_800).1 - day(1_788_706_800).0, 23 * HOUR);
}

#[test]
fn a_day_without_midnight_starts_at_one_and_one_with_two_at_the_first() {
    // Cairo, 24 April 2026: 00:00 becomes 01:00. The Azores, 25 October 2026: 01:00 becomes 00:00 again.
    assert_eq!(
        local(Calendar::Day, "Africa/Cairo", 1_777_024_800),
        (1_776_981_600, 1_776_981_600 + 23 * HOUR)
    );
    assert_eq!(
        local(Calendar::Day, "Atlantic/Azores", 1_792_886_400 + HOUR),
        (1_792_886_400, 1_792_886_400 + 25 * HOUR)
    );
}

#[test]
fn hours_of_a_half_hours_offset_start_when_the_clock_there_strikes() {
    let hour = |name, secs| local(Calendar::Hour, name, secs);
    let kathmandu = 1_767_226_500; // 2026-01-01T06:00:00+05:45
    assert_eq!(
        hour("Asia/Kathmandu", kathmandu + 60),
        (kathmandu, kathmandu + HOUR)
    );
    // Lord Howe puts its clocks forward by half an hour at 02:00 on 4 October 2026, and back on 5 April: no hour gets longer.
    let forward = 1_791_041_400;
    assert_eq!(
        hour("Australia/Lord_Howe", forward),
        (forward, forward + HOUR / 2)
    );
    let back = 1_775_314_800;
    assert_eq!(hour("Australia/Lord_Howe", back - 1), (back - HOUR, back));
    assert_eq!(hour("Australia/Lord_Howe", back), (back, back + HOUR / 2));
}

#[cfg(not(target_arch = "wasm32"))]
mod beside_jiff {
    use super::*;
    use jiff::civil::{Date, Weekday as Day};
    use jiff::tz::{TimeZone, TimeZoneDatabase};
    use jiff::{Timestamp as Moment, ToSpan};

    const WEEKS: [(Weekday, Day); 7] = [
        (Weekday::Monday, Day::Monday),
        (Weekday::Tuesday, Day::Tuesday),
        (Weekday::Wednesday, Day::Wednesday),
        (Weekday::Thursday, Day::Thursday),
        (Weekday::Friday, Day::Friday),
        (Weekday::Saturday, Day::Saturday),
        (Weekday::Sunday, Day::Sunday),
    ];

    /// The first second of a local day.
    fn start(date: Date, there: &TimeZone) -> u64 {
        let midnight = date.to_zoned_datetime(there.clone()).unwrap();
        let start = midnight.start_of_day().unwrap().timestamp();
        start.as_second().try_into().unwrap()
    }

    /// The local date at a second.
    fn date_at(secs: u64, there: &TimeZone) -> Date {
        let moment = Moment::from_second(secs.try_into().unwrap()).unwrap();
        there.to_datetime(moment).date()
    }

    fn check(calendar: Calendar, name: &str, secs: u64, expected: (u64, u64)) {
        let window = local(calendar, name, secs);
        assert_eq!(window, expected, "{calendar:?} around {secs} in {name}");
    }

    /// The table's first second, plus some days: a window that is open at that second has begun earlier.
    const FIRST: u64 = Zone::FIRST + 40 * DAY;
    const LAST: u64 = 4_102_444_800;

    #[test]
    fn the_days_about_every_change_of_clocks_until_2100_are_those_of_jiff() {
        let all = TimeZoneDatabase::bundled();
        for name in Zone::examples() {
            let there = all.get(name).unwrap();
            let first = Moment::from_second(FIRST.try_into().unwrap()).unwrap();
            let changes = there
                .following(first)
                .map(|change| change.timestamp().as_second());
            for change in changes
                .map(|secs| secs.try_into().unwrap())
                .take_while(|&secs: &u64| secs < LAST)
            {
                let today = date_at(change, &there);
                let tomorrow = today.tomorrow().unwrap();
                let ends = (start(today, &there), start(tomorrow, &there));
                check(Calendar::Day, name, change, ends);
                check(Calendar::Day, name, ends.0, ends);
                check(Calendar::Day, name, ends.1 - 1, ends);
                check(
                    Calendar::Day,
                    name,
                    ends.0 - 1,
                    (start(today.yesterday().unwrap(), &there), ends.0),
                );
            }
        }
    }

    #[test]
    fn weeks_and_months_until_2100_are_those_of_jiff() {
        let all = TimeZoneDatabase::bundled();
        for name in Zone::examples() {
            let there = all.get(name).unwrap();
            for secs in (FIRST..LAST).step_by(977 * 86_400 + 3_333) {
                let today = date_at(secs, &there);
                let next = today.last_of_month().tomorrow().unwrap();
                check(
                    Calendar::Month,
                    name,
                    secs,
                    (start(today.first_of_month(), &there), start(next, &there)),
                );
                for (ours, theirs) in WEEKS {
                    let first = today.tomorrow().unwrap().nth_weekday(-1, theirs).unwrap();
                    let next = first.checked_add(7.days()).unwrap();
                    check(
                        Calendar::Week(ours),
                        name,
                        secs,
                        (start(first, &there), start(next, &there)),
                    );
                }
            }
        }
    }
}
