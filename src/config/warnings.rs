//! Warnings: settings of a valid configuration that probably do not have the intended effect.

use super::{Config, Member};
use crate::limits::lend::ChildKey;
use crate::plan::Limits;
use crate::tenant::TenantId;
use crate::tier::Ladder;

impl Config {
    /// Settings that probably do not have the intended effect, each as `path: what`.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.tenants.is_empty() && self.unknown.is_none() && self.plan_sources.is_empty() {
            found.push(
                "tenants: there are none, and `tenant.unknown` is `reject`: every request to an LLM endpoint is answered with \
                 401 or 403"
                    .to_owned(),
            );
        }
        let has_marks = self.ladders.iter().any(has_mark);
        let is_ladder = self.ladders.iter().any(|ladder| ladder.tiers.len() > 1);
        let mut plans: Vec<_> = self
            .tenants
            .iter()
            .map(|(id, member)| (id.as_str(), &member.plan, of_nothing(id, member)))
            .collect();
        plans.sort_unstable_by_key(|&(id, ..)| id);
        for (id, plan, of_nothing) in plans {
            found.extend(of_nothing);
            for (key, why) in without_effect(&plan.limits, has_marks, is_ladder) {
                let path = match plan.name.is_empty() {
                    true => format!("tenants.{id}"),
                    false => format!("plans.{}", plan.name.as_str()),
                };
                let warning = format!("{path}.{key}: has no effect, since {why}");
                if !found.contains(&warning) {
                    found.push(warning);
                }
            }
            if found.len() >= MOST {
                break;
            }
        }
        found
    }
}

/// The warning about a guaranteed share of a parent's budgets, where the parent has no budget.
fn of_nothing(id: &TenantId, member: &Member) -> Option<String> {
    let parent = member.parent.as_ref()?;
    let limits = &parent.plan.limits;
    let child = ChildKey::of(id);
    let is_guaranteed = limits.guarantees.iter().any(|share| share.child == child);
    (is_guaranteed && limits.budgets().next().is_none()).then(|| {
        let (id, parent) = (id.as_str(), parent.id.as_str());
        format!("tenants.{id}.guaranteed: has no effect, since `{parent}` has no budget")
    })
}

/// The most warnings that are listed.
const MOST: usize = 20;

fn has_mark(ladder: &Ladder) -> bool {
    ladder.tiers.iter().any(|tier| tier.below.is_some())
}

/// Keys of a plan that are set but have no effect, each with the reason.
fn without_effect(
    limits: &Limits,
    has_marks: bool,
    is_ladder: bool,
) -> Vec<(&'static str, &'static str)> {
    let own_marks = !limits.preferences.below.is_empty() || limits.low_water_mark.is_some();
    let no_marks = !has_marks && !own_marks;
    let never = limits.never_downgrade;
    const NO_MARKS: &str = "no tier has a low-water mark (`below`)";
    const NEVER: &str = "`never_downgrade` is true";
    [
        ("pace", NO_MARKS, limits.pace.is_some() && no_marks),
        (
            "hysteresis",
            NO_MARKS,
            limits.hysteresis.is_some() && no_marks,
        ),
        (
            "sticky",
            "there is no second tier",
            limits.sticky.is_some() && !is_ladder,
        ),
        (
            "sla",
            "there is no second tier",
            limits.sla.is_some() && !is_ladder,
        ),
        ("sla", NEVER, limits.sla.is_some() && never && is_ladder),
        (
            "below",
            NEVER,
            !limits.preferences.below.is_empty() && never,
        ),
        (
            "low_water_mark",
            NEVER,
            limits.low_water_mark.is_some() && never,
        ),
        ("floor", NEVER, limits.preferences.floor.is_some() && never),
    ]
    .into_iter()
    .filter(|&(_, _, applies)| applies)
    .map(|(key, why, _)| (key, why))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[track_caller]
    fn warns(text: &str, expected: &[&str]) {
        assert_eq!(Config::parse(text.as_bytes()).unwrap().warnings(), expected);
    }

    #[test]
    fn a_configuration_that_serves_nobody_is_told() {
        let nobody = "tenants: there are none, and `tenant.unknown` is `reject`: every request to an LLM endpoint is answered \
                      with 401 or 403";
        warns("{}", &[nobody]);
        warns(r#"{"plans": {"p": {}}}"#, &[nobody]);
        warns(
            r#"{"plans": {"p": {}}, "tenant": {"unknown": {"plan": "p"}}}"#,
            &[],
        );
        warns(
            r#"{"plans": {"p": {}}, "plan_from": [{"jwt_claim": "plan"}]}"#,
            &[],
        );
        warns(r#"{"tenants": {"a": {}}}"#, &[]);
    }

    #[test]
    fn keys_without_effect_are_told_once() {
        let plan = r#"{"pace": {}, "hysteresis": 0.1, "sla": {"p95_ms": 9}, "budget": {"initial_budget": 9, "window": "day"}}"#;
        let tiers = r#""tiers": [{"name": "a", "model": "a"}]"#;
        warns(
            &format!(
                r#"{{{tiers}, "plans": {{"p": {plan}}}, "tenants": {{"t": {{"plan": "p"}}, "u": {{"plan": "p"}}}}}}"#
            ),
            &[
                "plans.p.pace: has no effect, since no tier has a low-water mark (`below`)",
                "plans.p.hysteresis: has no effect, since no tier has a low-water mark (`below`)",
                "plans.p.sla: has no effect, since there is no second tier",
            ],
        );
        let tiers =
            r#""tiers": [{"name": "a", "model": "a"}, {"name": "b", "model": "b", "below": 0.5}]"#;
        let own = r#"{"t": {"never_downgrade": true, "low_water_mark": 0.1, "pace": {}, "budget": {"initial_budget": 9, "window": "day"}}}"#;
        warns(
            &format!(r#"{{{tiers}, "tenants": {own}}}"#),
            &["tenants.t.low_water_mark: has no effect, since `never_downgrade` is true"],
        );
    }

    // A guarantee is a share of each of the parent's budgets; a bucket or `concurrency` is not a budget.
    #[test]
    fn a_share_of_a_parent_without_budgets_is_told() {
        let children = r#""b": {"parent": "top", "guaranteed": 0.2}, "a": {"parent": "top", "guaranteed": 0.3, "plan": "p"},
            "c": {"parent": "top"}, "d": {"parent": "a", "guaranteed": 1}"#;
        let budget = r#""budget": {"initial_budget": 9, "window": "day"}"#;
        let told = |limits: &str, plan: &str, expected: &[&str]| {
            warns(
                &format!(
                    r#"{{"plans": {{"p": {{{plan}}}}}, "tenants": {{"top": {{{limits}}}, {children}}}}}"#
                ),
                expected,
            );
        };
        let of_top = [
            "tenants.a.guaranteed: has no effect, since `top` has no budget",
            "tenants.b.guaranteed: has no effect, since `top` has no budget",
        ];
        told(r#""concurrency": 2"#, budget, &of_top);
        let of_a = "tenants.d.guaranteed: has no effect, since `a` has no budget";
        told(r#""limits": []"#, "", &[&of_top[..], &[of_a]].concat());
        told(budget, budget, &[]);
        let stacked =
            r#""limits": [{"name": "m", "budget": {"initial_budget": 9, "window": "month"}}]"#;
        told(stacked, "", &[of_a]);
    }
}
