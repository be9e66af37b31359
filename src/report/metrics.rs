//! Metrics: each name is defined once, together with what the metric counts.
//!
//! Metric names carry their labels in Istio's tag convention, `name.label=.=value;.;`, which a `stats_tags`
//! rule turns into labels. Label values come from the configuration alone, so no client can add series.

use crate::base::units::{Cost, Timestamp, Tokens, Unit};
use crate::plan::Limits;
use crate::published::metric::{Family, LABELS, Label, Series};
use crate::report::decision::Shadow;
use crate::report::settlement::Settlement;
use crate::report::standing::{Counted, Standing};
use crate::state::record::Record;
use crate::state::store::StateFaults;
use crate::tier::latency::LONGEST_MILLIS;

/// A change of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metric {
    /// A counter increases by this much.
    Add(Series, u64),
    /// A gauge gets this value.
    Set(Series, u64),
}

/// The version of this module.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Stands for an absent label.
const NONE: Label = Label::Word("");

static REQUESTS: Family = Family::new("bursar_requests_total", ["tenant", "tier", "decision"]);
static DOWNGRADED: Family = Family::new("bursar_downgraded_total", ["tenant", "tier", "reason"]);
static KEPT: Family = Family::new("bursar_kept_total", ["tenant", "tier", "reason"]);
static SHADOW: Family = Family::new("bursar_shadow_total", ["tenant", "decision", "reason"]);
static TRIED: Family = Family::new("bursar_shadow_plan_total", ["tenant", "plan", "decision"]);
static TRIED_TOKENS: Family =
    Family::new("bursar_shadow_plan_tokens_total", ["tenant", "plan", ""]);
static TRIED_SPEND: Family = Family::new("bursar_shadow_plan_spend_total", ["tenant", "plan", ""]);
static TRIMMED: Family = Family::new("bursar_trimmed_messages_total", ["tenant", "", ""]);
static THROTTLED: Family = Family::new("bursar_throttled_total", ["tenant", "reason", ""]);
static LIMITED: Family = Family::new("bursar_limited_total", ["tenant", "limit", "reason"]);
static OVER_HOLD: Family = Family::new("bursar_over_hold_total", ["tenant", "unit", ""]);
static CONFLICTS: Family = Family::new("bursar_state_conflicts_total", ["", "", ""]);
static CORRUPT: Family = Family::new("bursar_state_corrupt_total", ["", "", ""]);
static GIVEN_UP: Family = Family::new("bursar_state_given_up_total", ["", "", ""]);
static SETTLEMENTS: Family = Family::new("bursar_settlements_total", ["by", "", ""]);
static EXITS: Family = Family::new("bursar_exits_total", ["cause", "", ""]);
/// Counts usage reports whose parts do not add up to their total.
static INCONSISTENT: Family = Family::new("bursar_usage_inconsistent_total", ["tier", "model", ""]);
const TOKENS: Family = Family::new("bursar_tokens_total", ["tenant", "tier", "model"]);
static INPUT: Family = TOKENS.kind("input");
static CACHED_INPUT: Family = TOKENS.kind("cached_input");
static OUTPUT: Family = TOKENS.kind("output");
static SPEND: Family = Family::new("bursar_spend_total", ["tenant", "tier", "model"]);
static SAVED: Family = Family::new("bursar_saved_total", ["tenant", "", ""]);
static REMAINING: Family = Family::new("bursar_budget_remaining", ["tenant", "", ""]);
static LIMIT: Family = Family::new("bursar_limit", ["tenant", "limit", "unit"]);
static USED: Family = Family::new("bursar_used", ["tenant", "limit", "unit"]);
static HELD: Family = Family::new("bursar_held", ["tenant", "limit", "unit"]);
static LEFT: Family = Family::new("bursar_remaining", ["tenant", "limit", "unit"]);
static RESET: Family = Family::new(
    "bursar_reset_timestamp_seconds",
    ["tenant", "limit", "unit"],
);
static FIRST_BYTE: Family = Family::new("bursar_first_byte_p95_ms", ["tier", "model", "answer"]);
static REFUSALS: Family = Family::new("bursar_upstream_refusals_total", ["tier", "model", "kind"]);
static PRESSED: Family = Family::new("bursar_tier_pressed", ["tier", "model", ""]);
static BUILD: Family = Family::new("bursar_build_info", ["version", "", ""]);
static GLOBAL_GRANTED: Family = Family::new("bursar_global_granted", ["tenant", "limit", "unit"]);
static GLOBAL_FREE: Family = Family::new("bursar_global_free", ["tenant", "limit", "unit"]);
static GLOBAL_SHARE: Family = Family::new("bursar_global_share_ppm", ["tenant", "limit", ""]);
static GLOBAL_ASKED: Family = Family::new("bursar_global_asked_ppm", ["tenant", "limit", ""]);
static GLOBAL_PART: Family = Family::new("bursar_global_part_requests", ["tenant", "limit", ""]);
static GLOBAL_PROXIES: Family = Family::new("bursar_global_proxies", ["tenant", "limit", ""]);
static GLOBAL_HEARD: Family = Family::new(
    "bursar_global_heard_timestamp_seconds",
    ["tenant", "limit", ""],
);
static GLOBAL_FAILURES: Family = Family::new("bursar_global_failures", ["tenant", "limit", ""]);
static GLOBAL_CALLS: Family = Family::new("bursar_global_calls_total", ["result", "", ""]);
static GLOBAL_LINES: Family = Family::new("bursar_global_lines_total", ["", "", ""]);
static CAPACITY: Family = Family::new("bursar_capacity_remaining", ["tier", "model", ""]);

/// The label `tenant` of all tenants that are not configured.
pub const UNCONFIGURED: &str = "unconfigured";

/// The label `model` of all models that no tier names.
pub const OTHER_MODEL: &str = "other";

/// The label `tier` of a model that is on no ladder.
pub const UNLISTED: &str = "unlisted";

/// The version that is loaded, as a label; the value is always 1. A proxy without this metric meters nothing.
#[must_use]
pub fn build() -> Metric {
    Metric::Set(BUILD.of([VERSION.into(), NONE, NONE]), 1)
}

/// The words under which the series of the report's counters are noted.
pub(crate) const SPENT: &str = "spent";
pub(crate) const SAVES: &str = "saved";
pub(crate) const REFUSED: &str = "refused";

static REPORTED: [(&str, &Family); 3] = [(SPENT, &SPEND), (SAVES, &SAVED), (REFUSED, &THROTTLED)];

/// The word under which a series is noted for the report; `None` if the report does not show the series.
pub(crate) fn reported(series: &Series) -> Option<&'static str> {
    let mut all = REPORTED.iter();
    let (word, _) = all.find(|(_, family)| series.is_of(family))?;
    Some(word)
}

/// The series with these labels that is noted under this word.
pub(crate) fn report_of(word: &str, labels: [Label; LABELS]) -> Option<Series> {
    let mut all = REPORTED.iter();
    let (_, family) = all.find(|(other, _)| *other == word)?;
    Some(family.of(labels))
}

/// Counts a request that was decided.
#[must_use]
pub fn request(tenant: Label, tier: Label, decision: &'static str) -> Metric {
    Metric::Add(REQUESTS.of([tenant, tier, decision.into()]), 1)
}

/// Counts a request that is served by a cheaper model than the requested one.
#[must_use]
pub fn downgraded(tenant: Label, tier: Label, reason: &'static str) -> Metric {
    Metric::Add(DOWNGRADED.of([tenant, tier, reason.into()]), 1)
}

/// Counts a request that keeps its model although a rule would have lowered it, by the reason that is reported.
#[must_use]
pub fn kept(tenant: Label, tier: Label, reason: &'static str) -> Metric {
    Metric::Add(KEPT.of([tenant, tier, reason.into()]), 1)
}

/// Counts what shadow mode would have done with a request.
#[must_use]
pub fn shadow(shadow: &Shadow, tenant: Label) -> Metric {
    let labels = [tenant, shadow.decision.into(), shadow.reason.into()];
    Metric::Add(SHADOW.of(labels), 1)
}

/// Counts what a plan that is tried would have done with a request.
#[must_use]
pub fn tried(tenant: Label, plan: Label, decision: &'static str) -> Metric {
    Metric::Add(TRIED.of([tenant, plan, decision.into()]), 1)
}

/// Adds up what a request would have cost under a plan that is tried, if that plan would have served it.
#[must_use]
pub fn tried_cost(tenant: &Label, plan: &Label, cost: Cost) -> [Metric; 2] {
    let series = |family: &'static Family| family.of([tenant.clone(), plan.clone(), NONE]);
    [
        Metric::Add(series(&TRIED_TOKENS), cost.tokens.0),
        Metric::Add(series(&TRIED_SPEND), cost.usd.0),
    ]
}

/// Counts messages that were left out of a conversation.
#[must_use]
pub fn trimmed(tenant: Label, messages: u64) -> Metric {
    Metric::Add(TRIMMED.of([tenant, NONE, NONE]), messages)
}

/// Counts a request that was refused.
#[must_use]
pub fn throttled(tenant: Label, reason: &'static str) -> Metric {
    Metric::Add(THROTTLED.of([tenant, reason.into(), NONE]), 1)
}

/// Counts a request that a limit has refused.
#[must_use]
pub fn limited(tenant: Label, limit: Label, reason: &'static str) -> Metric {
    Metric::Add(LIMITED.of([tenant, limit, reason.into()]), 1)
}

/// Adds up how much more requests used than was held for them on their tenant's first budget, in the budget's unit.
#[must_use]
pub fn over_hold(tenant: Label, unit: Unit, by: u64) -> Metric {
    let unit = Counted::from(unit).as_str();
    Metric::Add(OVER_HOLD.of([tenant, unit.into(), NONE]), by)
}

/// Counts faults of our own state. Without a fault, 0 is added, so that the counters exist from the start.
#[must_use]
pub fn faults(faults: &StateFaults) -> [Metric; 3] {
    [
        (&CONFLICTS, faults.conflicts),
        (&CORRUPT, faults.corrupt.into()),
        (&GIVEN_UP, faults.given_up),
    ]
    .map(|(family, by)| Metric::Add(family.of([NONE; LABELS]), by))
}

/// Counts a settled request. The kinds of tokens do not overlap: `input` counts only tokens that were not cached.
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
    let mut metrics = vec![
        Metric::Add(SETTLEMENTS.of([by.as_str().into(), NONE, NONE]), 1),
        Metric::Add(EXITS.of([exit.as_str().into(), NONE, NONE]), 1),
        tokens(&INPUT, usage.fresh_input()),
        tokens(&CACHED_INPUT, usage.cached_input),
        tokens(&OUTPUT, usage.output),
        Metric::Add(served(&SPEND), spend.0),
        Metric::Add(SAVED.of([tenant.clone(), NONE, NONE]), saved.0),
    ];
    if usage.contradiction().is_some() {
        let labels = [tier.clone(), model.clone(), NONE];
        metrics.push(Metric::Add(INCONSISTENT.of(labels), 1));
    }
    metrics
}

/// The remaining budget of a tenant, in the budget's unit; `None` for a tenant without a budget.
#[must_use]
pub fn remaining(tenant: Label, limits: &Limits, record: &Record) -> Option<(Series, u64)> {
    let left = limits.budget?.remaining(&record.account);
    Some((REMAINING.of([tenant, NONE, NONE]), left))
}

/// The number of gauges of a limit.
pub const GAUGES: usize = 5;

/// The gauges of one of a tenant's limits, each at a fixed index; `None` for the reset of a limit that has none. Reset times are rounded
/// up: at the reported second the reset has happened.
#[must_use]
pub fn standing(tenant: &Label, standing: &Standing) -> [Option<(Series, u64)>; GAUGES] {
    let unit = standing.counted.as_str();
    let resets = standing.resets.map(|when| when.as_nanos().div_ceil(NANOS));
    [
        (&LIMIT, Some(standing.limit)),
        (&USED, Some(standing.used)),
        (&HELD, Some(standing.held)),
        (&LEFT, Some(standing.remaining)),
        (&RESET, resets),
    ]
    .map(|(family, value)| {
        let series = family.of([tenant.clone(), standing.name.clone(), unit.into()]);
        Some((series, value?))
    })
}

const NANOS: u64 = 1_000_000_000;

/// How soon a tier's answers begin: the p95, in milliseconds. All times above [`crate::tier::latency::LONGEST`] are reported as that plus
/// one. `answer`: `streamed` or `whole`.
#[must_use]
pub fn first_byte_p95(tier: Label, model: Label, answer: &'static str, millis: u64) -> Metric {
    let longer = LONGEST_MILLIS.saturating_add(1);
    Metric::Set(
        FIRST_BYTE.of([tier, model, answer.into()]),
        millis.min(longer),
    )
}

/// Counts a refusal of the upstream. `kind`: why the upstream refused the request.
#[must_use]
pub fn upstream_refusal(tier: Label, model: Label, kind: &'static str) -> Metric {
    Metric::Add(REFUSALS.of([tier, model, kind.into()]), 1)
}

/// Whether a tier is avoided because its upstream refuses requests. If callers have their own keys: for how many keys it is avoided.
#[must_use]
pub fn tier_pressed(tier: Label, model: Label, pressed: u64) -> (Series, u64) {
    (PRESSED.of([tier, model, NONE]), pressed)
}

/// How many tokens of a tier's capacity are left for requests of the highest priority.
#[must_use]
pub fn capacity(tier: Label, model: Label, left: u64) -> Metric {
    Metric::Set(CAPACITY.of([tier, model, NONE]), left)
}

/// What this process has of a limit that proxies share.
#[derive(Clone, Copy, Debug)]
pub enum Held {
    /// Of a budget: what was granted to this process, and what is free for all proxies.
    Granted(Unit, u64, u64),
    /// Of a bucket: this process's share, and the demand of all proxies, in millionths of the rate.
    Share(u64, u64),
}

/// A limit that proxies share: how many proxies have shared it recently, when the store last answered, how many calls have failed since,
/// and how many of the largest recent requests fit into one proxy's equal part of the limit, if there were requests.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    /// What this process has of the limit.
    pub held: Held,
    /// How many proxies share the limit.
    pub proxies: u32,
    /// When the store last answered.
    pub heard: Timestamp,
    /// How many calls have failed since the last answer.
    pub failures: u8,
    /// How many of the largest recent requests fit into one proxy's equal part of the limit, if there were requests.
    pub part: Option<u64>,
}

/// The gauges of a limit that proxies share.
#[must_use]
pub fn global(tenant: &Label, limit: &Label, shared: &Shared) -> Vec<Metric> {
    let (first, second, unit) = match shared.held {
        Held::Granted(unit, granted, free) => {
            let unit = match unit {
                Unit::Tokens => "tokens",
                Unit::UsdMicros => "usd_micros",
            };
            ((&GLOBAL_GRANTED, granted), (&GLOBAL_FREE, free), unit)
        }
        Held::Share(share, asked) => ((&GLOBAL_SHARE, share), (&GLOBAL_ASKED, asked), ""),
    };
    let all = [
        Some((first, unit)),
        Some((second, unit)),
        Some(((&GLOBAL_PROXIES, shared.proxies.into()), "")),
        Some(((&GLOBAL_HEARD, shared.heard.as_secs()), "")),
        Some(((&GLOBAL_FAILURES, shared.failures.into()), "")),
        shared.part.map(|part| ((&GLOBAL_PART, part), "")),
    ];
    let all = all.into_iter().flatten();
    all.map(|((family, value), unit)| {
        Metric::Set(
            family.of([tenant.clone(), limit.clone(), unit.into()]),
            value,
        )
    })
    .collect()
}

/// Counts a call to the store that proxies share, by its result.
#[must_use]
pub fn global_call(result: &'static str) -> Metric {
    Metric::Add(GLOBAL_CALLS.of([result.into(), NONE, NONE]), 1)
}

/// Counts lines (reports to the store) about limits that proxies share, once these lines were sent.
#[must_use]
pub fn global_lines(lines: u64) -> Metric {
    Metric::Add(GLOBAL_LINES.of([NONE, NONE, NONE]), lines)
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
            faults(&StateFaults {
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
}
