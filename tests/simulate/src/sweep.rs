//! Which settings are best: a row for each, over the same requests.

use serde_json::{Value, json};

use crate::play;
use crate::report::{self, by_tenant, total};
use crate::tenants::Request;

/// What is compared: its name and the settings of all tenants.
fn settings() -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for standard in 10..20 {
        for compact in 4..standard {
            let [standard, compact] = [standard, compact].map(|mark| f64::from(mark) / 20.0);
            let marks =
                json!({"below": {"standard": standard, "compact": compact}, "hysteresis": 0.05});
            all.push((format!("static, {standard} and {compact}"), marks));
        }
    }
    for half_life in ["15m", "30m", "1h", "2h"] {
        for cap in [0.5, 0.6, 0.7, 0.8, 0.9, 1.0] {
            let pace = json!({"pace": {"cap": cap, "half_life": half_life}, "hysteresis": 0.05});
            all.push((format!("pace, cap {cap}, half-life {half_life}"), pace));
        }
    }
    all.push(("pace, no hysteresis".to_owned(), json!({"pace": {}})));
    for hysteresis in [0.02, 0.05, 0.1, 0.2] {
        let name = format!("pace, hysteresis {hysteresis}");
        all.push((name, json!({"pace": {}, "hysteresis": hysteresis})));
    }
    all
}

/// The table, written while it grows: a day of a long trace takes seconds.
pub fn print(requests: &[Request]) {
    print!("{}", report::HEAD);
    for (name, settings) in settings() {
        let figures = total(&by_tenant(&play::day(requests, &settings, |_| {})));
        print!("{}", report::row(&name, &figures));
    }
}
