//! Budgets whose windows follow the clocks of a place.

use crate::opening::{BODY, spent, with};
use crate::proxy::Proxy;
use serde_json::json;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const HOUR: u64 = 3_600_000;

fn proxy(window: &str, timezone: &str) -> Proxy {
    Proxy::new(&with(|config| {
        config["plans"]["small"]["budget"] =
            json!({"initial_budget": 1_000, "window": window, "timezone": timezone});
    }))
}

#[test]
fn a_day_ends_at_midnight_there() {
    // Noon in UTC is 13:00 in Berlin and 21:00 in Tokyo.
    for (timezone, hours) in [
        ("Europe/Berlin", 11),
        ("Asia/Tokyo", 3),
        ("America/New_York", 17),
    ] {
        let proxy = proxy("day", timezone);
        proxy.served("acme", BODY, 990, 0);
        let refused = proxy.chat("acme", BODY);
        assert_eq!(refused.refused(), Some((429, "budget_exhausted")));
        let wait = (hours * HOUR / 1_000).to_string();
        assert_eq!(
            refused.reply_header("retry-after"),
            Some(&*wait),
            "{timezone}"
        );
        proxy.pass_millis(hours * HOUR - 1);
        assert_eq!(
            proxy.chat("acme", BODY).refused(),
            Some((429, "budget_exhausted"))
        );
        proxy.pass_millis(1);
        assert_eq!(proxy.chat("acme", BODY).refused(), None);
    }
}

#[test]
fn a_day_on_which_clocks_are_changed_has_23_hours_or_25() {
    // To the first moments of 31 March and of 27 October 2024 in Berlin.
    for (hours, length) in [(30 * 24 + 11, 23), (240 * 24 + 10, 25)] {
        let proxy = proxy("day", "Europe/Berlin");
        proxy.pass_millis(hours * HOUR);
        proxy.served("acme", BODY, 990, 0);
        let refused = proxy.chat("acme", BODY);
        let wait = (length * 3_600).to_string();
        assert_eq!(refused.reply_header("retry-after"), Some(wait.as_str()));
        let policy = refused.reply_header("ratelimit-policy").unwrap();
        assert!(policy.contains(&format!("w={wait}")), "{policy}");
        proxy.pass_millis(length * HOUR - 1);
        assert!(proxy.chat("acme", BODY).refused().is_some());
        proxy.pass_millis(1);
        assert_eq!(proxy.chat("acme", BODY).refused(), None);
    }
}

// Limits are configuration, spend is state.
#[test]
fn moving_the_clocks_of_a_budget_loses_nothing_that_was_spent() {
    let utc = with(|_| {});
    let proxy = Proxy::new(&utc);
    proxy.served("acme", BODY, 500, 0);
    for timezone in ["Asia/Tokyo", "America/Los_Angeles", "UTC"] {
        proxy.configure(&with(|config| {
            config["plans"]["small"]["budget"]["timezone"] = timezone.into();
        }));
        proxy.served("acme", BODY, 100, 0);
    }
    assert_eq!(spent(&proxy, "acme"), 800);
}
