//! What operators see: names of metrics and of access-log fields, once.
//!
//! Metric names carry their labels in Istio's tag convention, `name.label=.=value;.;`, which a `stats_tags`
//! rule turns into labels. Label values come from the configuration alone, so that no client can grow them.

use crate::latency::LONGEST;
use crate::ledger::Unit;
use crate::policy::Limits;
use crate::record::Record;
use crate::store::Troubles;
use crate::units::{Micros, Tokens};
use crate::usage::Usage;

/// A change of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metric {
    /// A counter goes up by so much.
    Add(String, u64),
    /// A gauge is now so much.
    Set(String, u64),
}

/// A field of the access log: a key of the filter state (`wasm.` is put before it by the host) and its value.
pub type Field = (&'static str, String);

/// The field that every decision has.
pub const DECISION: &str = "bursar_decision";
/// Tenant label of all tenants that are not configured.
pub const UNCONFIGURED: &str = "unconfigured";
/// Model label of all models that no tier names.
pub const OTHER_MODEL: &str = "other";
/// Tier of a model that stands on no ladder.
pub const UNLISTED: &str = "unlisted";

/// By what a request was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettledBy {
    /// What the provider reported.
    Usage,
    /// What was seen, since the provider reported nothing or not all.
    Estimate,
    /// Nothing: the upstream refused or failed, and the reservation was returned.
    None,
}

impl SettledBy {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Estimate => "estimate",
            Self::None => "none",
        }
    }
}

/// A request was decided about.
#[must_use]
pub fn request(tenant: &str, tier: &str, decision: &str) -> Metric {
    add(
        "bursar_requests_total",
        &[("tenant", tenant), ("tier", tier), ("decision", decision)],
        1,
    )
}

/// A request is served by a lighter model than it asked for.
#[must_use]
pub fn downgraded(tenant: &str, tier: &str, reason: &str) -> Metric {
    add(
        "bursar_downgraded_total",
        &[("tenant", tenant), ("tier", tier), ("reason", reason)],
        1,
    )
}

/// A request keeps its model, for a reason that is told.
#[must_use]
pub fn kept(tenant: &str, tier: &str, reason: &str) -> Metric {
    add(
        "bursar_kept_total",
        &[("tenant", tenant), ("tier", tier), ("reason", reason)],
        1,
    )
}

/// What would have been done with a request in shadow mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// `admit`, `downgrade`, `throttle`, or `refuse` for what is no tenant's limit.
    pub decision: &'static str,
    /// The tier and the model that would have served, where they are not those that do; else empty.
    pub tier: String,
    /// See `tier`.
    pub model: String,
    /// Why; empty if plain.
    pub reason: &'static str,
    /// Tokens that each answer would have been limited to.
    pub most_output: Option<u64>,
}

impl std::fmt::Display for Shadow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.decision)?;
        let parts = [
            ("tier", self.tier.as_str()),
            ("model", self.model.as_str()),
            ("reason", self.reason),
        ];
        for (key, value) in parts.into_iter().filter(|(_, value)| !value.is_empty()) {
            write!(f, ";{key}={value}")?;
        }
        match self.most_output {
            Some(most) => write!(f, ";max_output_tokens={most}"),
            None => Ok(()),
        }
    }
}

impl Shadow {
    /// The field of the access log.
    #[must_use]
    pub fn field(&self) -> Field {
        ("bursar_shadow", plain(&self.to_string()))
    }

    /// The metric.
    #[must_use]
    pub fn metric(&self, tenant: &str) -> Metric {
        add(
            "bursar_shadow_total",
            &[
                ("tenant", tenant),
                ("decision", self.decision),
                ("reason", self.reason),
            ],
            1,
        )
    }
}

/// Messages were left out of a conversation.
#[must_use]
pub fn trimmed(tenant: &str, messages: u64) -> (Metric, Field) {
    let metric = add(
        "bursar_trimmed_messages_total",
        &[("tenant", tenant)],
        messages,
    );
    (metric, ("bursar_trimmed_messages", messages.to_string()))
}

/// A request was refused.
#[must_use]
pub fn throttled(tenant: &str, reason: &str) -> Metric {
    add(
        "bursar_throttled_total",
        &[("tenant", tenant), ("reason", reason)],
        1,
    )
}

/// Something was wrong with our own state, or nothing (the counters are there all the same).
#[must_use]
pub fn troubles(troubles: &Troubles) -> [Metric; 3] {
    [
        add("bursar_state_conflicts_total", &[], troubles.conflicts),
        add("bursar_state_corrupt_total", &[], troubles.corrupt.into()),
        add("bursar_state_given_up_total", &[], troubles.given_up),
    ]
}

/// How an admitted request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With an answer, as far as its end or what the provider says last.
    Answered,
    /// The upstream refused it (3xx, 4xx).
    UpstreamRefused,
    /// The upstream failed, or could not be reached (5xx).
    UpstreamFailed,
    /// Its answer had begun and did not end: the client left, or the upstream broke off.
    Cut,
    /// The client left before an answer.
    Unanswered,
    /// The client left before all of the request was sent.
    Unsent,
}

impl Exit {
    fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::UpstreamRefused => "upstream_refused",
            Self::UpstreamFailed => "upstream_failed",
            Self::Cut => "cut",
            Self::Unanswered => "unanswered",
            Self::Unsent => "unsent",
        }
    }
}

/// What a settlement counts.
#[derive(Clone, Copy, Debug)]
pub struct Settlement<'a> {
    /// Label of the tenant.
    pub tenant: &'a str,
    /// The tier that served.
    pub tier: &'a str,
    /// Label of the model that served.
    pub model: &'a str,
    /// What was used.
    pub usage: Usage,
    /// What it cost.
    pub spend: Micros,
    /// What it would have cost beyond that at the tier that was asked for.
    pub saved: Micros,
    /// Where the figures come from.
    pub by: SettledBy,
    /// How the request ended.
    pub exit: Exit,
}

/// A request was settled. The kinds of tokens do not overlap: `input` is what was not cached.
#[must_use]
pub fn settled(settlement: &Settlement<'_>) -> Vec<Metric> {
    let &Settlement {
        tenant,
        tier,
        model,
        usage,
        spend,
        saved,
        by,
        exit,
    } = settlement;
    let served = [("tenant", tenant), ("tier", tier), ("model", model)];
    let tokens = |kind, tokens: Option<Tokens>| {
        let labels = [served.as_slice(), &[("kind", kind)]].concat();
        add("bursar_tokens_total", &labels, tokens.unwrap_or_default().0)
    };
    vec![
        add("bursar_settlements_total", &[("by", by.as_str())], 1),
        add("bursar_exits_total", &[("cause", exit.as_str())], 1),
        tokens("input", usage.fresh_input()),
        tokens("cached_input", usage.cached_input),
        tokens("output", usage.output),
        add("bursar_spend_total", &served, spend.0),
        add("bursar_saved_total", &[("tenant", tenant)], saved.0),
    ]
}

/// What is left of a tenant's budget, in the budget's unit; nothing for a tenant without one.
#[must_use]
pub fn remaining(tenant: &str, limits: &Limits, record: &Record) -> Option<(String, u64)> {
    let left = limits.budget?.remaining(&record.account);
    Some((name("bursar_budget_remaining", &[("tenant", tenant)]), left))
}

/// How soon a tier's answers begin: the p95, in milliseconds, where one more than [`LONGEST`] stands for all that is longer.
/// `answer`: `streamed` or `whole`.
#[must_use]
pub fn first_byte_p95(tier: &str, model: &str, answer: &str, millis: u64) -> Metric {
    let labels = [("tier", tier), ("model", model), ("answer", answer)];
    let longer = u64::try_from(LONGEST.as_millis())
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    Metric::Set(
        name("bursar_first_byte_p95_ms", &labels),
        millis.min(longer),
    )
}

/// What is left of a tier's capacity, in tokens, for the highest priority.
#[must_use]
pub fn capacity(tier: &str, model: &str, left: u64) -> Metric {
    let labels = [("tier", tier), ("model", model)];
    Metric::Set(name("bursar_capacity_remaining", &labels), left)
}

/// A decision's fields.
#[derive(Clone, Copy, Debug)]
pub struct Decided<'a> {
    /// The tier that serves, or would have.
    pub tier: &'a str,
    /// The model that was asked for.
    pub requested_model: &'a str,
    /// The model that is sent.
    pub model: &'a str,
    /// `admit`, `downgrade` or `throttle`.
    pub decision: &'a str,
    /// Why; empty if plain.
    pub reason: &'a str,
}

/// Fields of the access log for a decision.
#[must_use]
pub fn decided(decided: &Decided<'_>) -> Vec<Field> {
    let fields = [
        ("bursar_tier", decided.tier),
        ("bursar_requested_model", &plain(decided.requested_model)),
        ("bursar_model", &plain(decided.model)),
        (DECISION, decided.decision),
        ("bursar_reason", decided.reason),
    ];
    told(&fields)
}

/// Fields of the access log for whose a request is. The plan is empty for a tenant that has only limits of its own.
#[must_use]
pub fn identified(tenant: &str, plan: &str) -> Vec<Field> {
    told(&[("bursar_tenant", tenant), ("bursar_plan", plan)])
}

/// What is empty says nothing and is left out.
fn told(fields: &[(&'static str, &str)]) -> Vec<Field> {
    let told = fields.iter().filter(|(_, value)| !value.is_empty());
    told.map(|&(key, value)| (key, value.to_owned())).collect()
}

/// Fields of the access log for a settlement. `charged` is in the unit of the tenant's budget (tokens without one).
#[must_use]
pub fn charged(
    settlement: &Settlement<'_>,
    limits: &Limits,
    record: Option<&Record>,
) -> Vec<Field> {
    let usage = &settlement.usage;
    let unit = limits.budget.map_or(Unit::Tokens, |budget| budget.unit);
    let cost = crate::units::Cost {
        tokens: usage.cost(None).tokens,
        usd: settlement.spend,
    };
    let mut fields = vec![
        (
            "bursar_input_tokens",
            usage.input.unwrap_or_default().0.to_string(),
        ),
        (
            "bursar_cached_tokens",
            usage.cached_input.unwrap_or_default().0.to_string(),
        ),
        (
            "bursar_output_tokens",
            usage.output.unwrap_or_default().0.to_string(),
        ),
        ("bursar_charged", unit.of(cost).to_string()),
        ("bursar_settled_by", settlement.by.as_str().to_owned()),
    ];
    fields.extend(record.and_then(|record| left(limits, record)));
    fields
}

/// The field that tells what is left of the budget.
#[must_use]
pub fn left(limits: &Limits, record: &Record) -> Option<Field> {
    let left = limits.budget?.remaining(&record.account);
    Some(("bursar_remaining", left.to_string()))
}

/// Text that a client chose, as it may stand in a header or a log: visible ASCII and spaces, at most 256 bytes.
#[must_use]
pub fn plain(text: &str) -> String {
    let visible = |c: char| {
        if c.is_ascii_graphic() || c == ' ' {
            c
        } else {
            '?'
        }
    };
    if text.len() <= 256 && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.to_owned();
    }
    text.chars().take(256).map(visible).collect()
}

fn add(metric: &str, labels: &[(&str, &str)], by: u64) -> Metric {
    Metric::Add(name(metric, labels), by)
}

/// `metric.label=.=value;.;label=.=value;.;`
fn name(metric: &str, labels: &[(&str, &str)]) -> String {
    let length = |&(label, value): &(&str, &str)| [".=.=;.;", label, value].map(str::len);
    let lengths = labels.iter().flat_map(length);
    let mut name = String::with_capacity(lengths.fold(metric.len(), usize::saturating_add));
    name.push_str(metric);
    for (index, (label, value)) in labels.iter().enumerate() {
        name.push_str(if index == 0 { "." } else { "" });
        name.push_str(label);
        name.push_str("=.=");
        push_label(&mut name, value);
        name.push_str(";.;");
    }
    name
}

/// What the convention is made of must not stand in a value.
fn push_label(name: &mut String, value: &str) {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b';' | b'=');
    if value.as_bytes().iter().all(is_plain) {
        name.push_str(value);
        return;
    }
    name.extend(value.chars().map(|c| {
        if c.is_control() || ";=".contains(c) {
            '_'
        } else {
            c
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn labels_stand_in_the_name_and_cannot_break_out_of_it() {
        assert_eq!(
            request("acme;.;tier=.=x\n", "default", "admit"),
            Metric::Add(
                "bursar_requests_total.tenant=.=acme_._tier_._x_;.;tier=.=default;.;decision=.=admit;.;".to_owned(),
                1
            )
        );
        assert_eq!(
            troubles(&Troubles {
                conflicts: 3,
                corrupt: true,
                given_up: 2,
            }),
            [
                Metric::Add("bursar_state_conflicts_total".to_owned(), 3),
                Metric::Add("bursar_state_corrupt_total".to_owned(), 1),
                Metric::Add("bursar_state_given_up_total".to_owned(), 2),
            ]
        );
    }

    #[test]
    fn a_field_that_says_nothing_is_left_out() {
        let decision = Decided {
            tier: "default",
            requested_model: "gpt-4o",
            model: "gpt-4o",
            decision: "admit",
            reason: "",
        };
        let keys: Vec<_> = decided(&decision).into_iter().map(|(key, _)| key).collect();
        let expected = [
            "bursar_tier",
            "bursar_requested_model",
            "bursar_model",
            "bursar_decision",
        ];
        assert_eq!(keys, expected);
    }

    #[test]
    fn a_clients_text_cannot_break_a_header_or_a_log() {
        assert_eq!(plain("gpt\r\nx: y\u{e9}"), "gpt??x: y?");
        assert_eq!(plain(&"x".repeat(300)).len(), 256);
    }
}
