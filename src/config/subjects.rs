//! Whom limits count beside the tenant: how subjects are found in a request, and which limits belong to them.

use std::collections::BTreeMap;

use super::path::Path;
use super::raw::{RawMissingSubject, RawSubject};
use super::tenants::sources;
use super::{Parsed, SubjectRules, wrong};
use crate::limits::stacked::Limit;
use crate::plan::{Limits, SubjectLimits};

/// The most kinds of subjects. For each kind that a plan counts, a request changes one more record.
const KINDS: usize = 8;

pub(super) fn subjects(raw: BTreeMap<String, RawSubject>) -> Parsed<Vec<SubjectRules>> {
    let path = &Path::Top.key("subjects");
    if raw.len() > KINDS {
        return wrong(path, format!("are more than {KINDS}"));
    }
    let all = raw.into_iter().map(|(name, raw)| {
        let path = &path.key(&name);
        if !is_name(&name) {
            return wrong(path, NOT_A_NAME);
        }
        Ok(SubjectRules {
            sources: sources(raw.from, &path.key("from"))?,
            is_required: raw.missing == RawMissingSubject::Reject,
            name: name.into(),
        })
    });
    all.collect()
}

pub(super) const NOT_A_NAME: &str = "is not made of 1 to 64 letters, digits, `.`, `_`, `:` and `-`";

/// Whether this can name a limit or a kind of subjects. Such names appear in headers, metrics and keys.
pub(super) fn is_name(name: &str) -> bool {
    const LONGEST: usize = 64;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    (1..=LONGEST).contains(&name.len()) && name.bytes().all(is_plain)
}

/// The index of the kind with this name.
pub(super) fn index(rules: &[SubjectRules], name: &str, path: &Path<'_>) -> Parsed<usize> {
    match rules.iter().position(|rules| rules.name == *name) {
        Some(index) => Ok(index),
        None => wrong(path, format!("`subjects` has none called `{name}`")),
    }
}

/// The limits of each kind. `plan`: the plan's limits, whose `hold` and `on_exhausted` apply to these limits, too.
pub(super) fn by_kind(
    rules: &[SubjectRules],
    limits: Vec<(usize, Limit)>,
    plan: &Limits,
) -> Vec<SubjectLimits> {
    let mut all: Vec<SubjectLimits> = Vec::new();
    for (index, limit) in limits {
        if let Some(kind) = all.iter_mut().find(|kind| kind.index == index) {
            kind.limits.others.push(limit);
        } else if let Some(rules) = rules.get(index) {
            all.push(SubjectLimits {
                index,
                kind: rules.name.clone(),
                limits: Limits {
                    others: vec![limit],
                    holds_likely: plan.holds_likely,
                    on_exhausted: plan.on_exhausted,
                    ..Limits::default()
                },
            });
        }
    }
    all
}
