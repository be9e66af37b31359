//! Tenants that stand above others.

use std::collections::HashMap;
use std::rc::Rc;

use super::path::Path;
use super::tenants::Members;
use super::{LEVELS, Parent, Parsed, wrong};
use crate::tenant::TenantId;

/// Gives each of the `children` the parent that it names.
pub(super) fn link(members: &mut Members, children: Vec<(TenantId, String)>) -> Parsed<()> {
    let names: HashMap<&str, &str> = children
        .iter()
        .map(|(child, parent)| (child.as_str(), parent.as_str()))
        .collect();
    let mut known = HashMap::new();
    let tenants = &Path::Top.key("tenants");
    for (child, parent) in &children {
        let tenant = &tenants.key(child.as_str());
        let path = &tenant.key("parent");
        let parent = above(parent, members, &names, &mut known, LEVELS, path)?;
        if let Some(member) = members.get_mut(child) {
            member.parent = Some(parent);
        }
    }
    Ok(())
}

/// The parent of this name, with those above it, at most so many.
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
