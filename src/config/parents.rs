//! Tenants above other tenants.

use std::collections::HashMap;
use std::rc::Rc;

use super::checks::mark;
use super::path::Path;
use super::tenants::{Listed, Members};
use super::{LEVELS, Parent, Parsed, Plan, wrong};
use crate::body::number::Number;
use crate::limits::lend::{CHILDREN, ChildKey, Guarantee};
use crate::tenant::TenantId;

/// A tenant that names a parent.
pub(super) struct RawChild {
    pub(super) id: TenantId,
    pub(super) parent: String,
    pub(super) guaranteed: Option<Number>,
}

/// Gives each of the `children` its parent, and records the child's guaranteed share in the parent's plan.
pub(super) fn link(
    members: &mut Members,
    listed: &mut Listed,
    children: &[RawChild],
) -> Parsed<()> {
    let tenants = &Path::Top.key("tenants");
    for child in children {
        guarantee(members, child, &tenants.key(child.id.as_str()))?;
    }
    for (id, plan) in listed {
        if let Some(member) = members.get(id.as_str()).filter(|_| !children.is_empty()) {
            *plan = Rc::clone(&member.plan);
        }
    }
    let names: HashMap<&str, &str> = children
        .iter()
        .map(|child| (child.id.as_str(), child.parent.as_str()))
        .collect();
    let mut known = HashMap::new();
    for RawChild { id, parent, .. } in children {
        let tenant = &tenants.key(id.as_str());
        let path = &tenant.key("parent");
        let parent = above(parent, members, &names, &mut known, LEVELS, path)?;
        if let Some(member) = members.get_mut(id.as_str()) {
            member.parent = Some(parent);
        }
    }
    Ok(())
}

/// Records in the parent's plan which share of the parent's budgets is guaranteed to the child.
fn guarantee(members: &mut Members, child: &RawChild, path: &Path<'_>) -> Parsed<()> {
    let name = child.parent.as_str();
    let (Some(share), Some(member)) = (child.guaranteed, members.get_mut(name)) else {
        return Ok(());
    };
    let path = &path.key("guaranteed");
    let share = mark(share, path)?;
    let limits = &member.plan.limits;
    let given = limits.guarantees.iter().map(|one| one.share.0);
    if given.sum::<u64>().saturating_add(share.0) > 1_000_000 {
        return wrong(
            path,
            format!("more than all of `{name}`'s budgets would be guaranteed"),
        );
    }
    if limits.guarantees.len() >= CHILDREN {
        return wrong(
            path,
            format!("`{name}` has more than {CHILDREN} such children"),
        );
    }
    if limits.is_shared() {
        return wrong(
            path,
            format!("a budget of `{name}` is shared by proxies: give it `\"scope\": \"proxy\"`"),
        );
    }
    let mut limits = limits.clone();
    limits.guarantees.push(Guarantee {
        child: ChildKey::of(&child.id),
        share,
    });
    member.plan = Rc::new(Plan {
        name: member.plan.name.clone(),
        limits,
        trials: member.plan.trials.clone(),
    });
    Ok(())
}

/// The parent of this name, with its own parents: at most `levels` tenants in all.
fn above<'a>(
    name: &'a str,
    members: &Members,
    names: &HashMap<&'a str, &'a str>,
    known: &mut HashMap<&'a str, Rc<Parent>>,
    levels: usize,
    path: &Path<'_>,
) -> Parsed<Rc<Parent>> {
    let Some(left) = levels.checked_sub(1) else {
        return wrong(
            path,
            format!("has more than {LEVELS} tenants above it, or is above itself"),
        );
    };
    let Some((id, member)) = members.get_key_value(name) else {
        return wrong(path, format!("no tenant is called `{name}`"));
    };
    let parent = match names.get(name) {
        Some(parent) => Some(above(parent, members, names, known, left, path)?),
        None => None,
    };
    let new = || {
        Rc::new(Parent {
            id: id.clone(),
            plan: Rc::clone(&member.plan),
            parent,
        })
    };
    Ok(Rc::clone(known.entry(name).or_insert_with(new)))
}
