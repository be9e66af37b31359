//! What the access log records of a request: fields are collected as they become known, and are written at the end as one JSON text.

use crate::base::name::Name;
use crate::base::text::Text;
use crate::base::units::{Ppm, Tokens, Unit};
use crate::body::json::quoted;
use crate::plan::Limits;
use crate::policy::Reason;
use crate::published::log_field::LogField;
use crate::published::metric::Label;
use crate::report::decision::{Decided, Shadow, plain};
use crate::report::settlement::Settlement;
use crate::state::record::Record;

/// A field of the access log and its value.
pub type Field = (LogField, Text);

/// The property that holds all of a request's fields.
pub const ALL: &str = "bursar";

/// What the access log records of one request. If a field is set twice, the last value counts.
#[derive(Debug, Default)]
pub struct Entry(Vec<Field>);

impl Entry {
    /// Adds fields that became known.
    pub fn extend(&mut self, fields: Vec<Field>) {
        if self.0.is_empty() {
            self.0 = fields;
        } else {
            self.0.extend(fields);
        }
    }

    /// All fields as a JSON object; `None` if there are no fields, since the request is not metered.
    #[must_use]
    pub fn json(&self) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return None;
        }
        let mut text = Vec::with_capacity(384);
        let mut rest = self.0.as_slice();
        while let [(field, value), after @ ..] = rest {
            rest = after;
            if !after.iter().any(|(later, _)| later == field) {
                text.extend_from_slice(field.key().as_bytes());
                push_value(&mut text, value);
            }
        }
        // Each entry begins with a comma; the first comma becomes the opening brace.
        if let Some(first) = text.first_mut() {
            *first = b'{';
        }
        text.push(b'}');
        Some(text)
    }
}

/// Writes a number as a number, and anything else as a string.
fn push_value(text: &mut Vec<u8>, value: &Text) {
    if matches!(value, Text::Number(_) | Text::Fraction(_)) {
        return value.with_bytes(|number| text.extend_from_slice(number));
    }
    let is_plain = |byte: &u8| matches!(byte, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~');
    value.with_str(|value| {
        if value.as_bytes().iter().all(is_plain) {
            text.push(b'"');
            text.extend_from_slice(value.as_bytes());
            text.push(b'"');
        } else {
            text.extend_from_slice(quoted(value).as_bytes());
        }
    });
}

/// Fields that identify the tenant and its plan. The plan is empty for a tenant that has only limits of its own.
pub fn identified(tenant: &Name, plan: Option<&Name>) -> impl Iterator<Item = Field> {
    let plan = plan.filter(|plan| !plan.is_empty());
    let plan = plan.map(|plan| (LogField::Plan, plan.into()));
    [(LogField::Tenant, tenant.into())].into_iter().chain(plan)
}

/// Fields for a decision; empty values are left out.
pub fn decided(decided: Decided) -> impl Iterator<Item = Field> {
    let fields = [
        (LogField::Tier, decided.tier),
        (LogField::RequestedModel, decided.requested_model),
        (LogField::Model, decided.model),
        (LogField::Decision, decided.decision.into()),
        (LogField::Reason, decided.reason.into()),
    ];
    fields.into_iter().filter(|(_, value)| !value.is_empty())
}

/// The limit that refuses the request, or that lowers its tier.
#[must_use]
pub fn limit(name: &Label) -> Field {
    (LogField::Limit, name.into())
}

/// The mark by which the request's tier was lowered.
#[must_use]
pub fn mark(mark: Ppm) -> Field {
    (LogField::Mark, Text::Fraction(mark))
}

/// The decision's reason, where it becomes known later than the rest.
#[must_use]
pub fn reason(reason: Reason) -> Field {
    (LogField::Reason, reason.as_str().into())
}

/// Why the upstream refused.
#[must_use]
pub fn upstream_refusal(kind: &'static str) -> Field {
    (LogField::UpstreamRefusal, kind.into())
}

/// The decision that would have been enforced, in shadow mode.
#[must_use]
pub fn shadow(shadow: &Shadow) -> Field {
    (LogField::Shadow, plain(&shadow.to_string()).into())
}

/// What the plans that are tried would have decided: `strict=throttle;reason=budget_exhausted, generous=admit`.
#[must_use]
pub fn tried<'a>(all: impl Iterator<Item = (&'a Name, &'a Shadow)>) -> Field {
    let all = all.map(|(plan, would)| format!("{plan}={would}"));
    (
        LogField::Shadow,
        plain(&all.collect::<Vec<_>>().join(", ")).into(),
    )
}

/// Messages that were left out of the conversation.
#[must_use]
pub fn trimmed(messages: u64) -> Field {
    (LogField::TrimmedMessages, messages.into())
}

/// Fields for a settlement. `charged` is in the unit of the tenant's budget, or in tokens for a tenant without a budget.
#[must_use]
pub fn charged(settlement: &Settlement, limits: &Limits, record: Option<&Record>) -> Vec<Field> {
    let usage = &settlement.usage;
    let first = limits.budgets().next();
    let unit = first.map_or(Unit::Tokens, |budget| budget.unit);
    let cost = crate::base::units::Cost {
        tokens: limits.counted(usage),
        usd: settlement.spend,
    };
    let tokens = |tokens: Option<Tokens>| Text::Number(tokens.unwrap_or_default().0);
    let left = record.and_then(|record| left(limits, record));
    let fields = [
        (LogField::InputTokens, tokens(usage.input)),
        (LogField::CachedTokens, tokens(usage.cached_input)),
        (LogField::OutputTokens, tokens(usage.output)),
        (LogField::Charged, unit.of(cost).into()),
        (LogField::Spend, settlement.spend.0.into()),
        (LogField::SettledBy, settlement.by.as_str().into()),
    ];
    // The reported total, if input and output do not add up to it.
    let total = usage.contradiction();
    let total = total.map(|total| (LogField::ReportedTotal, total.0.into()));
    fields.into_iter().chain(left).chain(total).collect()
}

/// The remaining budget.
#[must_use]
pub fn left(limits: &Limits, record: &Record) -> Option<Field> {
    let left = limits.budget?.remaining(&record.account);
    Some((LogField::Remaining, left.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_field_that_says_nothing_is_left_out() {
        let decision = Decided {
            tier: "default".into(),
            requested_model: "gpt-4o".into(),
            model: "gpt-4o".into(),
            decision: "admit",
            reason: "",
        };
        let keys: Vec<_> = decided(decision).map(|(key, _)| key).collect();
        let expected = [
            LogField::Tier,
            LogField::RequestedModel,
            LogField::Model,
            LogField::Decision,
        ];
        assert_eq!(keys, expected);
    }

    fn text(entry: &Entry) -> String {
        String::from_utf8(entry.json().unwrap()).unwrap()
    }

    #[test]
    fn all_fields_are_one_json_text_with_numbers_as_numbers() {
        let mut entry = Entry::default();
        assert_eq!(entry.json(), None);
        entry.extend(vec![(LogField::Tenant, "acme".into())]);
        entry.extend(vec![
            (LogField::Mark, Text::Fraction(Ppm(50_000))),
            (LogField::Remaining, u64::MAX.into()),
            (LogField::RequestedModel, "12".into()),
        ]);
        assert_eq!(
            text(&entry),
            r#"{"tenant":"acme","mark":0.05,"remaining":18446744073709551615,"requested_model":"12"}"#
        );
    }

    // Parsers differ on which of two equal keys counts.
    #[test]
    fn a_field_that_is_told_twice_stands_there_once() {
        let mut entry = Entry::default();
        entry.extend(vec![(LogField::Shadow, "admit".into())]);
        entry.extend(vec![(LogField::Charged, 3.into())]);
        entry.extend(vec![(LogField::Shadow, "refuse".into())]);
        assert_eq!(text(&entry), r#"{"charged":3,"shadow":"refuse"}"#);
    }

    #[test]
    fn no_text_breaks_out_of_the_json() {
        for text in [
            "a\"b",
            "back\\slash",
            "\u{0}\n\u{1f}\u{7f}",
            "gr\u{fc}n \u{2028}",
            "\",\"charged\":0,\"",
        ] {
            let mut entry = Entry::default();
            entry.extend(vec![(LogField::Tenant, text.to_owned().into())]);
            let read: serde_json::Value = serde_json::from_slice(&entry.json().unwrap()).unwrap();
            assert_eq!(read, serde_json::json!({ "tenant": text }));
        }
    }
}
