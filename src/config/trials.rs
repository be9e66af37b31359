//! Plans that are tried on live requests, beside the plan that decides.

use std::rc::Rc;

use super::path::Path;
use super::raw::{RawLimits, RawShadow};
use super::tenants::Plans;
use super::{Parsed, Plan, wrong};
use crate::limits::stacked::Rule;
use crate::plan::Limits;

/// The most plans that are tried at once: for each of them a request takes two steps on a separate record.
pub(super) const TRIALS: usize = 4;

/// The plans that a plan or a tenant names.
pub(super) fn trials(raw: &RawLimits, path: &Path<'_>, plans: &Plans) -> Parsed<Vec<Rc<Plan>>> {
    let Some(RawShadow::Plans(names)) = &raw.shadow else {
        return Ok(Vec::new());
    };
    let path = &path.key("shadow");
    if names.is_empty() {
        return wrong(path, "names no plan");
    }
    if names.len() > TRIALS {
        return wrong(path, format!("names more than {TRIALS} plans"));
    }
    let mut trials = Vec::<Rc<Plan>>::new();
    for (index, name) in names.iter().enumerate() {
        let path = &path.index(index);
        if trials.iter().any(|trial| *trial.name == **name) {
            return wrong(path, format!("`{name}` stands twice"));
        }
        let (_, plan) = plans.find(name, path)?;
        trials.push(Rc::new(Plan {
            name: plan.name.clone(),
            limits: alone(&plan.limits),
            trials: Vec::new(),
        }));
    }
    Ok(trials)
}

/// The part of a plan's limits that is tried: those that count the tenant itself, as counted by this proxy alone.
fn alone(limits: &Limits) -> Limits {
    let mut limits = Limits {
        subjects: Vec::new(),
        sticky: None,
        sla: None,
        shadow: false,
        ..limits.clone()
    };
    if let Some(budget) = &mut limits.budget {
        budget.share = None;
    }
    if let Some(bucket) = &mut limits.bucket {
        bucket.share = None;
    }
    for limit in &mut limits.others {
        match &mut limit.rule {
            Rule::Budget(budget) | Rule::Concurrency(budget) => budget.share = None,
            Rule::Tokens(quota) | Rule::Requests(quota) => quota.share = None,
        }
    }
    limits
}
