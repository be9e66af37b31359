//! What operators see: names of metrics and of access-log fields, once.
//!
//! Metric names carry their labels in Istio's tag convention, `name.label=.=value;.;`, which a `stats_tags`
//! rule turns into labels. Label values come from the configuration alone, so that no client can grow them.

use std::fmt;

use crate::latency::LONGEST_MILLIS;
use crate::ledger::Unit;
use crate::name::Name;
use crate::policy::Limits;
use crate::record::Record;
use crate::series::{Family, LABELS, Label, Series};
use crate::store::Troubles;
use crate::text::Text;
use crate::units::{Micros, Tokens};
use crate::usage::Usage;

/// A change of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metric {
    /// A counter goes up by so much.
    Add(Series, u64),
    /// A gauge is now so much.
    Set(Series, u64),
}

/// A label that is not there.
const NONE: Label = Label::Word("");

static REQUESTS: Family = Family::new("bursar_requests_total", ["tenant", "tier", "decision"]);
static DOWNGRADED: Family = Family::new("bursar_downgraded_total", ["tenant", "tier", "reason"]);
static KEPT: Family = Family::new("bursar_kept_total", ["tenant", "tier", "reason"]);
static SHADOW: Family = Family::new("bursar_shadow_total", ["tenant", "decision", "reason"]);
static TRIMMED: Family = Family::new("bursar_trimmed_messages_total", ["tenant", "", ""]);
static THROTTLED: Family = Family::new("bursar_throttled_total", ["tenant", "reason", ""]);
static CONFLICTS: Family = Family::new("bursar_state_conflicts_total", ["", "", ""]);
static CORRUPT: Family = Family::new("bursar_state_corrupt_total", ["", "", ""]);
static GIVEN_UP: Family = Family::new("bursar_state_given_up_total", ["", "", ""]);
static SETTLEMENTS: Family = Family::new("bursar_settlements_total", ["by", "", ""]);
static EXITS: Family = Family::new("bursar_exits_total", ["cause", "", ""]);
const TOKENS: Family = Family::new("bursar_tokens_total", ["tenant", "tier", "model"]);
static INPUT: Family = TOKENS.kind("input");
static CACHED_INPUT: Family = TOKENS.kind("cached_input");
static OUTPUT: Family = TOKENS.kind("output");
static SPEND: Family = Family::new("bursar_spend_total", ["tenant", "tier", "model"]);
static SAVED: Family = Family::new("bursar_saved_total", ["tenant", "", ""]);
static REMAINING: Family = Family::new("bursar_budget_remaining", ["tenant", "", ""]);
static FIRST_BYTE: Family = Family::new("bursar_first_byte_p95_ms", ["tier", "model", "answer"]);
static CAPACITY: Family = Family::new("bursar_capacity_remaining", ["tier", "model", ""]);

/// A field of the access log: a key of the filter state (`wasm.` is put before it by the host) and its value.
pub type Field = (&'static str, Text);

/// The field that every identified request has.
pub const TENANT: &str = "bursar_tenant";
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
pub fn request(tenant: Label, tier: Label, decision: &'static str) -> Metric {
    Metric::Add(REQUESTS.of([tenant, tier, decision.into()]), 1)
}

/// A request is served by a lighter model than it asked for.
#[must_use]
pub fn downgraded(tenant: Label, tier: Label, reason: &'static str) -> Metric {
    Metric::Add(DOWNGRADED.of([tenant, tier, reason.into()]), 1)
}

/// A request keeps its model, for a reason that is told.
#[must_use]
pub fn kept(tenant: Label, tier: Label, reason: &'static str) -> Metric {
    Metric::Add(KEPT.of([tenant, tier, reason.into()]), 1)
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

impl fmt::Display for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
        ("bursar_shadow", plain(&self.to_string()).into())
    }

    /// The metric.
    #[must_use]
    pub fn metric(&self, tenant: Label) -> Metric {
        let labels = [tenant, self.decision.into(), self.reason.into()];
        Metric::Add(SHADOW.of(labels), 1)
    }
}

/// Messages were left out of a conversation.
#[must_use]
pub fn trimmed(tenant: Label, messages: u64) -> (Metric, Field) {
    let metric = Metric::Add(TRIMMED.of([tenant, NONE, NONE]), messages);
    (metric, ("bursar_trimmed_messages", messages.into()))
}

/// A request was refused.
#[must_use]
pub fn throttled(tenant: Label, reason: &'static str) -> Metric {
    Metric::Add(THROTTLED.of([tenant, reason.into(), NONE]), 1)
}

/// Something was wrong with our own state, or nothing (the counters are there all the same).
#[must_use]
pub fn troubles(troubles: &Troubles) -> [Metric; 3] {
    [
        (&CONFLICTS, troubles.conflicts),
        (&CORRUPT, troubles.corrupt.into()),
        (&GIVEN_UP, troubles.given_up),
    ]
    .map(|(family, by)| Metric::Add(family.of([NONE; LABELS]), by))
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
#[derive(Clone, Debug)]
pub struct Settlement {
    /// Label of the tenant.
    pub tenant: Label,
    /// The tier that served.
    pub tier: Label,
    /// Label of the model that served.
    pub model: Label,
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
pub fn settled(settlement: &Settlement) -> Vec<Metric> {
    let Settlement {
        tenant,
        tier,
        model,
        usage,
        spend,
        saved,
        by,
        exit,
    } = settlement;
    let served = |family: &'static Family| family.of([tenant.clone(), tier.clone(), model.clone()]);
    let tokens =
        |family, tokens: Option<Tokens>| Metric::Add(served(family), tokens.unwrap_or_default().0);
    vec![
        Metric::Add(SETTLEMENTS.of([by.as_str().into(), NONE, NONE]), 1),
        Metric::Add(EXITS.of([exit.as_str().into(), NONE, NONE]), 1),
        tokens(&INPUT, usage.fresh_input()),
        tokens(&CACHED_INPUT, usage.cached_input),
        tokens(&OUTPUT, usage.output),
        Metric::Add(served(&SPEND), spend.0),
        Metric::Add(SAVED.of([tenant.clone(), NONE, NONE]), saved.0),
    ]
}

/// What is left of a tenant's budget, in the budget's unit; nothing for a tenant without one.
#[must_use]
pub fn remaining(tenant: Label, limits: &Limits, record: &Record) -> Option<(Series, u64)> {
    let left = limits.budget?.remaining(&record.account);
    Some((REMAINING.of([tenant, NONE, NONE]), left))
}

/// How soon a tier's answers begin: the p95, in milliseconds, where one more than [`crate::latency::LONGEST`] stands for all that is longer.
/// `answer`: `streamed` or `whole`.
#[must_use]
pub fn first_byte_p95(tier: Label, model: Label, answer: &'static str, millis: u64) -> Metric {
    let longer = LONGEST_MILLIS.saturating_add(1);
    Metric::Set(
        FIRST_BYTE.of([tier, model, answer.into()]),
        millis.min(longer),
    )
}

/// What is left of a tier's capacity, in tokens, for the highest priority.
#[must_use]
pub fn capacity(tier: Label, model: Label, left: u64) -> Metric {
    Metric::Set(CAPACITY.of([tier, model, NONE]), left)
}

/// A decision's fields. What a client chose is [`plain`].
#[derive(Clone, Debug)]
pub struct Decided {
    /// The tier that serves, or would have.
    pub tier: Text,
    /// The model that was asked for.
    pub requested_model: Text,
    /// The model that is sent.
    pub model: Text,
    /// `admit`, `downgrade` or `throttle`.
    pub decision: &'static str,
    /// Why; empty if plain.
    pub reason: &'static str,
}

/// Fields of the access log for a decision; what is empty is left out.
pub fn decided(decided: Decided) -> impl Iterator<Item = Field> {
    let fields = [
        ("bursar_tier", decided.tier),
        ("bursar_requested_model", decided.requested_model),
        ("bursar_model", decided.model),
        (DECISION, decided.decision.into()),
        ("bursar_reason", decided.reason.into()),
    ];
    fields.into_iter().filter(|(_, value)| !value.is_empty())
}

/// Fields of the access log for whose a request is. The plan is empty for a tenant that has only limits of its own.
pub fn identified(tenant: &Name, plan: Option<&Name>) -> impl Iterator<Item = Field> {
    let plan = plan.filter(|plan| !plan.is_empty());
    let plan = plan.map(|plan| ("bursar_plan", plan.into()));
    [(TENANT, tenant.into())].into_iter().chain(plan)
}

/// Fields of the access log for a settlement. `charged` is in the unit of the tenant's budget (tokens without one).
#[must_use]
pub fn charged(settlement: &Settlement, limits: &Limits, record: Option<&Record>) -> Vec<Field> {
    let usage = &settlement.usage;
    let unit = limits.budget.map_or(Unit::Tokens, |budget| budget.unit);
    let cost = crate::units::Cost {
        tokens: usage.cost(None).tokens,
        usd: settlement.spend,
    };
    let tokens = |tokens: Option<Tokens>| Text::Number(tokens.unwrap_or_default().0);
    let left = record.and_then(|record| left(limits, record));
    let fields = [
        ("bursar_input_tokens", tokens(usage.input)),
        ("bursar_cached_tokens", tokens(usage.cached_input)),
        ("bursar_output_tokens", tokens(usage.output)),
        ("bursar_charged", unit.of(cost).into()),
        ("bursar_settled_by", settlement.by.as_str().into()),
    ];
    fields.into_iter().chain(left).collect()
}

/// The field that tells what is left of the budget.
#[must_use]
pub fn left(limits: &Limits, record: &Record) -> Option<Field> {
    let left = limits.budget?.remaining(&record.account);
    Some(("bursar_remaining", left.into()))
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
    if is_plain(text) {
        return text.to_owned();
    }
    text.chars().take(256).map(visible).collect()
}

/// A name that a client may have chosen, as it may stand in a header or a log.
#[must_use]
pub fn plain_name(name: &Name) -> Text {
    if is_plain(name) {
        name.into()
    } else {
        plain(name).into()
    }
}

fn is_plain(text: &str) -> bool {
    text.len() <= 256 && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn labels_stand_in_the_name_and_cannot_break_out_of_it() {
        let added = |metric: &Metric| match metric {
            Metric::Add(series, by) => (series.to_string(), *by),
            Metric::Set(..) => unreachable!("it is a counter"),
        };
        let tenant = Label::Name("acme;.;tier=.=x\n".into());
        assert_eq!(
            added(&request(tenant, "default".into(), "admit")),
            (
                "bursar_requests_total.tenant=.=acme_._tier_._x_;.;tier=.=default;.;decision=.=admit;.;".to_owned(),
                1
            )
        );
        assert_eq!(
            OUTPUT.of(["a".into(), "b".into(), "".into()]).to_string(),
            "bursar_tokens_total.tenant=.=a;.;tier=.=b;.;model=.=;.;kind=.=output;.;"
        );
        assert_eq!(
            troubles(&Troubles {
                conflicts: 3,
                corrupt: true,
                given_up: 2,
            })
            .each_ref()
            .map(added),
            [
                ("bursar_state_conflicts_total".to_owned(), 3),
                ("bursar_state_corrupt_total".to_owned(), 1),
                ("bursar_state_given_up_total".to_owned(), 2),
            ]
        );
    }

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
