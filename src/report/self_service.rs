//! A caller's own limits as JSON: how much of each limit is used and left, and how a request would be decided.

use crate::base::text::Text;
use crate::base::units::{Cost, Ppm, Timestamp, share};
use crate::body::json::quoted;
use crate::calendar::window::{Calendar, Period};
use crate::policy::Payer;
use crate::report::standing::{Counted, Span, Standing};

/// How a request would be decided, if it came now.
#[derive(Clone, Debug)]
pub struct Preview {
    /// The tier that would serve the request.
    pub tier: Text,
    /// The model that would be sent to the upstream.
    pub model: Text,
    /// The model that the request names.
    pub requested_model: Text,
    /// `admit`, `downgrade`, `throttle`, or `refuse` if something other than a limit would refuse the request.
    pub decision: &'static str,
    /// The decision's reason; empty for a plain one.
    pub reason: &'static str,
    /// The limit that would refuse the request.
    pub limit: Option<Text>,
    /// What the request would hold on budgets.
    pub holds: Cost,
    /// What the request would take from token buckets.
    pub cells: u64,
    /// The most tokens that each answer could have, if bursar would limit them.
    pub most_output: Option<u64>,
    /// After how many milliseconds the request might pass, if waiting helps.
    pub retry_after_ms: Option<u64>,
}

/// The whole response body. `plan`: empty for a tenant that has only limits of its own. `limits`: each with its owner; for a parent's limit
/// that is not visible, the response reports only whether anything is left. `shadow`: whether the limits are not enforced.
#[must_use]
pub fn answer(
    tenant: &str,
    plan: &str,
    shadow: bool,
    limits: impl Iterator<Item = (Payer, Standing)>,
    preview: Option<&Preview>,
    now: Timestamp,
) -> String {
    let mut all = Object::default();
    all.put("tenant", &quoted(tenant));
    all.put(
        "plan",
        &some(Some(plan).filter(|plan| !plan.is_empty()), quoted),
    );
    if shadow {
        all.put("shadow", "true");
    }
    let limits: Vec<String> = limits
        .map(|(payer, limit)| standing(payer, &limit, now))
        .collect();
    all.put("limits", &format!("[{}]", limits.join(",")));
    all.put("tier", &some(preview, tier));
    all.close()
}

/// The state of a limit, as JSON.
pub(super) fn standing(payer: Payer, standing: &Standing, now: Timestamp) -> String {
    let amount = |number| amount(standing, number);
    let unit = match standing.counted {
        Counted::UsdMicros => "usd",
        plain @ (Counted::Tokens | Counted::Requests) => plain.as_str(),
    };
    let mut limit = Object::default();
    limit.put("name", &quoted(standing.name.as_str()));
    match payer {
        Payer::Tenant => {}
        Payer::Subject => limit.put("of", "\"subject\""),
        Payer::Parent => limit.put("of", "\"parent\""),
    }
    limit.put("window", &some(standing.span, span));
    if payer == Payer::Parent && !standing.is_visible {
        limit.put("resets_at", &some(standing.resets, time));
        limit.put("exhausted", &(standing.remaining == 0).to_string());
        return limit.close();
    }
    limit.put("unit", &quoted(unit));
    limit.put("limit", &amount(standing.limit));
    limit.put("used", &amount(standing.used));
    limit.put("held", &amount(standing.held));
    limit.put("remaining", &amount(standing.remaining));
    limit.put("resets_at", &some(standing.resets, time));
    limit.put(
        "forecast_exhausted_at",
        &some(exhausted(standing, now), time),
    );
    limit.close()
}

/// An amount, in the unit that the limit counts.
pub(super) fn amount(standing: &Standing, number: u64) -> String {
    match standing.counted {
        Counted::UsdMicros => dollars(number),
        Counted::Tokens | Counted::Requests => number.to_string(),
    }
}

fn tier(preview: &Preview) -> String {
    let word = |word: &'static str| Some(word).filter(|word| !word.is_empty());
    let text = |text: &Text| text.with_str(quoted);
    let mut holds = Object::default();
    holds.put("tokens", &preview.holds.tokens.0.to_string());
    holds.put("usd", &dollars(preview.holds.usd.0));
    holds.put("bucket_tokens", &preview.cells.to_string());
    let mut tier = Object::default();
    tier.put("name", &text(&preview.tier));
    tier.put("model", &text(&preview.model));
    tier.put("requested_model", &text(&preview.requested_model));
    tier.put("decision", &quoted(preview.decision));
    tier.put("reason", &some(word(preview.reason), quoted));
    tier.put("limit", &some(preview.limit.as_ref(), text));
    tier.put("holds", &holds.close());
    let number = |number: u64| number.to_string();
    tier.put("max_output_tokens", &some(preview.most_output, number));
    tier.put("retry_after_ms", &some(preview.retry_after_ms, number));
    tier.close()
}

/// When a window's budget will be spent if requests continue at the rate since the window began; `None` if the budget lasts, or if that is
/// not known.
pub(super) fn exhausted(standing: &Standing, now: Timestamp) -> Option<Timestamp> {
    let Some(Span::Period(_)) = standing.span else {
        return None;
    };
    if standing.remaining == 0 {
        return Some(now);
    }
    let window = standing.window?;
    let gone = now.nanos_since(window.start);
    let left = standing.used > 0;
    let left = left.then(|| share(standing.remaining, gone, standing.used))?;
    Some(now.plus_nanos(left)).filter(|when| *when < window.end)
}

/// A window, as the configuration writes it.
pub(super) fn span(span: Span) -> String {
    let word = match span {
        Span::Refill(nanos) => duration(nanos),
        Span::Period(Period::Hour | Period::Local(Calendar::Hour, _)) => "hour".to_owned(),
        Span::Period(Period::Day | Period::Local(Calendar::Day, _)) => "day".to_owned(),
        Span::Period(Period::Week(_) | Period::Local(Calendar::Week(_), _)) => "week".to_owned(),
        Span::Period(Period::Month | Period::Local(Calendar::Month, _)) => "month".to_owned(),
        Span::Period(Period::Every(nanos)) => duration(nanos.get()),
        Span::Period(Period::Never) => "none".to_owned(),
        Span::Period(Period::Idle(nanos)) => {
            let mut idle = Object::default();
            idle.put("idle", &quoted(&duration(nanos.get())));
            return idle.close();
        }
    };
    quoted(&word)
}

/// A duration such as `90s` or `2h`, in the longest unit of which it is a whole number.
fn duration(nanos: u64) -> String {
    let units = [
        (86_400_000_000_000, "d"),
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
    ];
    let whole = units.iter().find(|&&(unit, _)| nanos.is_multiple_of(unit));
    let (unit, name) = whole.copied().unwrap_or((1_000_000, "ms"));
    format!("{}{name}", nanos.checked_div(unit).unwrap_or_default())
}

/// Millionths of a dollar, written in dollars.
pub(super) fn dollars(micros: u64) -> String {
    Text::Fraction(Ppm(micros)).to_string()
}

pub(super) fn time(when: Timestamp) -> String {
    quoted(&when.rfc_3339())
}

pub(super) fn some<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "null".to_owned(), text)
}

/// A JSON object that is being written. Its keys need no escapes.
#[derive(Default)]
pub(super) struct Object(String);

impl Object {
    /// Appends a key. `json`: its value, as JSON.
    pub(super) fn put(&mut self, key: &'static str, json: &str) {
        let before = if self.0.is_empty() { "{" } else { "," };
        for part in [before, "\"", key, "\":", json] {
            self.0.push_str(part);
        }
    }

    pub(super) fn close(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::calendar::window::Window;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(1_709_208_000 + secs)
    }

    fn budget(used: u64, remaining: u64) -> Standing {
        Standing {
            name: "day".into(),
            counted: Counted::UsdMicros,
            span: Some(Span::Period(Period::Day)),
            limit: used + remaining,
            used,
            held: 0,
            remaining,
            is_visible: false,
            window: Some(Window {
                start: at(0),
                end: at(1_000),
            }),
            resets: Some(at(1_000)),
            holds_until: at(1_000),
        }
    }

    #[test]
    fn a_forecast_goes_by_the_window_so_far_and_is_none_where_the_budget_lasts() {
        assert_eq!(exhausted(&budget(300, 100), at(300)), Some(at(400)));
        assert_eq!(exhausted(&budget(100, 900), at(100)), None);
        assert_eq!(exhausted(&budget(0, 100), at(300)), None);
        assert_eq!(exhausted(&budget(5, 0), at(300)), Some(at(300)));
        let bucket = Standing {
            span: Some(Span::Refill(1)),
            ..budget(5, 0)
        };
        assert_eq!(exhausted(&bucket, at(300)), None);
    }

    #[test]
    fn windows_are_written_as_the_configuration_has_them() {
        let nanos = |nanos| NonZeroU64::new(nanos).unwrap();
        for (period, text) in [
            (
                Period::Week(crate::calendar::window::Weekday::Sunday),
                r#""week""#,
            ),
            (Period::Every(nanos(90_000_000_000)), r#""90s""#),
            (Period::Every(nanos(1_500_000_000)), r#""1500ms""#),
            (Period::Idle(nanos(7_200_000_000_000)), r#"{"idle":"2h"}"#),
            (Period::Never, r#""none""#),
        ] {
            assert_eq!(span(Span::Period(period)), text);
        }
        assert_eq!(span(Span::Refill(60_000_000_000)), r#""1m""#);
    }

    #[test]
    fn the_answer_is_json_whatever_tenants_are_called() {
        let text = answer(
            "a\"b",
            "",
            true,
            [(Payer::Tenant, budget(12_500_000, 1))].into_iter(),
            None,
            at(10),
        );
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"tenant": "a\"b", "plan": null, "shadow": true, "tier": null, "limits": [{
                "name": "day", "unit": "usd", "window": "day", "limit": 12.500_001, "used": 12.5, "held": 0, "remaining": 0.000_001,
                "resets_at": "2024-02-29T12:16:40Z", "forecast_exhausted_at": "2024-02-29T12:00:10.001Z"}]})
        );
    }
}
