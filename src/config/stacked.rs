//! Checks the limits that stack: a list of named limits, in addition to `budget`, `bucket` and `concurrency`.

use super::bucket::rule;
use super::checks::whole;
use super::global::Scopes;
use super::limits::{Given, budget};
use super::path::Path;
use super::raw::{RawLimit, RawLimits, RawScope};
use super::subjects::{NOT_A_NAME, index as index_of, is_name};
use super::{Parsed, wrong};
use crate::base::name::LimitKey;
use crate::base::units::Unit;
use crate::calendar::window::Period;
use crate::lease::quota::Quota;
use crate::lease::share::Share;
use crate::limits::budget::Budget;
use crate::limits::stacked::{BUCKET, BUDGET, CONCURRENCY, LIMITS, Limit, MAX_REQUEST, Rule};
use crate::plan::OnExhausted;

/// Names that a limit cannot have, since they are other keys of a plan.
const TAKEN: [&str; 4] = [BUDGET, BUCKET, CONCURRENCY, MAX_REQUEST];

/// All limits of a plan.
pub(super) struct Stack {
    pub(super) budget: Option<Budget>,
    pub(super) bucket: Option<Quota>,
    pub(super) others: Vec<Limit>,
    /// The limits that count subjects, each with the index of its kind.
    pub(super) of_subjects: Vec<(usize, Limit)>,
}

pub(super) fn stack(
    raw: &RawLimits,
    path: &Path<'_>,
    given: &Given<'_>,
    on_exhausted: OnExhausted,
) -> Parsed<Stack> {
    let scopes = &Scopes::of(raw, path, given, on_exhausted)?;
    let list = &path.key("limits");
    let is_off = |name: &str| {
        raw.limits
            .iter()
            .any(|limit| limit.name == name && is_off(limit))
    };
    let of_budget = raw.budget.as_ref().filter(|_| !is_off(BUDGET));
    let of_budget = of_budget.map(|raw| {
        let at = &path.key(BUDGET);
        let budget = budget(raw, at, given)?;
        let share = scopes.share(&budget, None, path, at)?;
        Ok(Budget { share, ..budget })
    });
    let of_bucket = raw.bucket.as_ref().filter(|_| !is_off(BUCKET));
    let of_bucket = of_bucket.map(|raw| {
        let rule = rule(raw, &path.key(BUCKET))?;
        scopes.share_bucket(rule, None, path)
    });
    let mut stack = Stack {
        budget: of_budget.transpose()?,
        bucket: None,
        others: Vec::new(),
        of_subjects: Vec::new(),
    };
    match of_bucket.transpose()? {
        Some(Rule::Tokens(quota)) => stack.bucket = Some(quota),
        Some(rule) => stack.others.push(limit(BUCKET, rule)),
        None => {}
    }
    if let Some(slots) = raw.concurrency.filter(|_| !is_off(CONCURRENCY)) {
        let slots = whole(slots, &path.key(CONCURRENCY))?.get();
        let rule = Rule::Concurrency(Budget {
            initial_budget: slots,
            unit: Unit::Tokens,
            period: Period::Never,
            reservation_expiry: given.expiry,
            rollover: None,
            extra: None,
            share: None,
        });
        stack.others.push(limit(CONCURRENCY, rule));
    }
    for (index, raw) in raw.limits.iter().enumerate() {
        let path = &list.index(index);
        let Some(limit) = read(raw, path, given, scopes)? else {
            continue;
        };
        match &raw.per {
            None => stack.others.push(limit),
            Some(kind) => {
                let kind = index_of(given.subjects, kind, &path.key("per"))?;
                stack.of_subjects.push((kind, limit));
            }
        }
    }
    checked(stack, list)
}

/// `None` for a limit that is switched off.
fn read(
    raw: &RawLimit,
    path: &Path<'_>,
    given: &Given<'_>,
    scopes: &Scopes,
) -> Parsed<Option<Limit>> {
    let name = &raw.name;
    if !is_name(name) {
        return wrong(&path.key("name"), format!("`{name}` {NOT_A_NAME}"));
    }
    if is_off(raw) {
        return Ok(None);
    }
    if TAKEN.contains(&name.as_str()) {
        return wrong(
            &path.key("name"),
            format!(
                "`{name}` is the name of the plan's own `{name}`: set that, or give this another name"
            ),
        );
    }
    let rule = match (&raw.budget, &raw.bucket) {
        (Some(of_budget), None) => {
            let at = &path.key(BUDGET);
            let budget = budget(of_budget, at, given)?;
            let share = match &raw.per {
                // Clients can invent subjects, so each proxy counts its own.
                Some(_) => of_subjects(raw.scope, path)?,
                None => scopes.share(&budget, raw.scope, path, at)?,
            };
            Rule::Budget(Budget { share, ..budget })
        }
        (None, Some(bucket)) => {
            let rule = rule(bucket, &path.key(BUCKET))?;
            match &raw.per {
                Some(_) => {
                    of_subjects(raw.scope, path)?;
                    rule
                }
                None => scopes.share_bucket(rule, raw.scope, path)?,
            }
        }
        (Some(_), Some(_)) => {
            return wrong(
                path,
                "has both `budget` and `bucket`: make two limits of it",
            );
        }
        (None, None) => return wrong(path, "has neither `budget` nor `bucket`"),
    };
    if raw.models.as_ref().is_some_and(Vec::is_empty) {
        return wrong(&path.key("models"), "names no model; leave it out for all");
    }
    Ok(Some(Limit {
        is_visible: raw.visible.unwrap_or(false),
        models: raw.models.clone(),
        ..limit(name, rule)
    }))
}

/// Refuses a limit of subjects that proxies would share.
fn of_subjects(scope: Option<RawScope>, path: &Path<'_>) -> Parsed<Option<Share>> {
    match scope {
        Some(RawScope::Global) => wrong(
            &path.key("scope"),
            "is for tenants' limits: those of subjects are counted in each proxy",
        ),
        Some(RawScope::Proxy) | None => Ok(None),
    }
}

fn is_off(raw: &RawLimit) -> bool {
    raw.off.unwrap_or(false)
}

fn limit(name: &str, rule: Rule) -> Limit {
    Limit {
        name: name.into(),
        key: LimitKey::of(name),
        rule,
        models: None,
        is_visible: false,
    }
}

fn checked(stack: Stack, path: &Path<'_>) -> Parsed<Stack> {
    let of_subjects = stack.of_subjects.iter().map(|(_, limit)| limit);
    let others: Vec<_> = stack.others.iter().chain(of_subjects).collect();
    if others.len() > LIMITS {
        return wrong(path, format!("are more than {LIMITS}"));
    }
    for (index, limit) in others.iter().enumerate() {
        let mut before = others.iter().take(index);
        // A limit's spend is found by a hash of the limit's name.
        if let Some(other) = before.find(|other| other.key == limit.key) {
            let (name, other) = (limit.name.as_str(), other.name.as_str());
            return wrong(path, format!("`{name}` and `{other}` cannot be told apart"));
        }
    }
    Ok(stack)
}
