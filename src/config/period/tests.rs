use crate::calendar::window::{Calendar, Period, Weekday};
use crate::calendar::zone::Zone;
use crate::config::tests::{acme, rejects_at, with};
use serde_json::json;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// The period of acme's budget with these keys.
fn period(keys: serde_json::Value) -> Period {
    let text = with(|config| {
        let budget = &mut config["plans"]["gold"]["budget"];
        for (key, value) in keys.as_object().unwrap() {
            budget[key] = value.clone();
        }
    });
    acme(&text).budget.unwrap().period
}

#[test]
fn a_calendar_follows_utc_from_monday_unless_told_otherwise() {
    let berlin = Zone::find("Europe/Berlin").unwrap();
    let kathmandu = Zone::find("Asia/Kathmandu").unwrap();
    for (keys, expected) in [
        (json!({"window": "week"}), Period::Week(Weekday::Monday)),
        (
            json!({"window": "week", "week_start": "sunday"}),
            Period::Week(Weekday::Sunday),
        ),
        (
            json!({"window": "month", "timezone": "Etc/UTC"}),
            Period::Month,
        ),
        (
            json!({"window": "day", "timezone": "Europe/Berlin"}),
            Period::Local(Calendar::Day, berlin),
        ),
        (
            json!({"window": "week", "timezone": "Europe/Berlin", "week_start": "saturday"}),
            Period::Local(Calendar::Week(Weekday::Saturday), berlin),
        ),
        (
            json!({"window": "hour", "timezone": "Asia/Kathmandu"}),
            Period::Local(Calendar::Hour, kathmandu),
        ),
    ] {
        assert_eq!(period(keys.clone()), expected, "{keys}");
    }
}

#[test]
fn a_tenant_may_live_by_other_clocks_than_its_plan() {
    let text = with(|config| {
        config["plans"]["gold"]["budget"]["timezone"] = "Europe/Berlin".into();
        config["tenants"]["acme"]["budget"] = json!({"timezone": "Asia/Tokyo"});
    });
    let tokyo = Zone::find("Asia/Tokyo").unwrap();
    let period = acme(&text).budget.unwrap().period;
    assert_eq!(period, Period::Local(Calendar::Day, tokyo));
}

#[test]
fn what_has_no_meaning_for_a_window_is_refused_with_the_reason() {
    let at = "plans.gold.budget";
    let budget = |keys: serde_json::Value| {
        let mut budget = json!({"initial_budget": 1000, "window": "day"});
        for (key, value) in keys.as_object().unwrap() {
            budget[key] = value.clone();
        }
        budget
    };
    for (keys, error) in [
        (
            json!({"timezone": "Europe/Berlni"}),
            "timezone: `Europe/Berlni` is no time zone of the IANA database: is `Europe/Berlin` meant?",
        ),
        (
            json!({"timezone": "Middle-earth/Shire"}),
            "timezone: `Middle-earth/Shire` is no time zone of the IANA database: give one such as \"Europe/Berlin\"",
        ),
        (
            json!({"window": "hour", "timezone": "Europe/Berlin"}),
            "timezone: has no meaning for hours: those of `Europe/Berlin` start with UTC's",
        ),
        (
            json!({"window": "36h", "timezone": "Europe/Berlin"}),
            "timezone: a window of `36h` follows no calendar: this needs hour, day, week or month",
        ),
        (
            json!({"window": "none", "timezone": "UTC"}),
            "timezone: a window of `none` follows no calendar: this needs hour, day, week or month",
        ),
        (
            json!({"week_start": "monday"}),
            "week_start: a window of `day` has no first day: this needs the window `week`",
        ),
        (
            json!({"window": "week", "week_start": "Monday"}),
            "week_start: unknown variant `Monday`, expected one of `monday`, `tuesday`, `wednesday`, `thursday`, `friday`, \
             `saturday`, `sunday`",
        ),
    ] {
        rejects_at("/plans/gold/budget", budget(keys), &format!("{at}.{error}"));
    }
}
