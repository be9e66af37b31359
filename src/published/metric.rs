//! A series of a metric: which metric, and with which labels.
//!
//! Names carry their labels in Istio's tag convention, `name.label=.=value;.;`, which a `stats_tags` rule turns into labels.

pub mod tally;

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::base::name::Name;
use crate::base::text::Text;

/// One of the series of a metric. Its name is written out once, when the series is defined in the proxy; after that the series is
/// identified by its parts.
#[derive(Clone, Debug)]
pub struct Series {
    family: &'static Family,
    values: [Label; LABELS],
}

/// The most labels of a series whose values depend on the request.
pub(crate) const LABELS: usize = 3;

/// A metric, and the keys of its labels.
#[derive(Debug)]
pub(crate) struct Family {
    name: &'static str,
    /// The labels' names. Empty entries are unused.
    labels: [&'static str; LABELS],
    /// The value of one more label, `kind`, which is the same for all series of this family.
    kind: Option<&'static str>,
}

/// Two series are equal if their metrics and their labels are equal.
impl PartialEq for Series {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.family, other.family) && self.values == other.values
    }
}

impl Eq for Series {}

impl Hash for Series {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(std::ptr::from_ref(self.family).addr());
        for value in &self.values {
            value.hash(state);
        }
    }
}

/// The name in the form `metric.label=.=value;.;label=.=value;.;`.
impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Series {
    /// Whether the series is one of this metric's.
    pub(crate) fn is_of(&self, family: &'static Family) -> bool {
        std::ptr::eq(self.family, family)
    }

    /// The series' labels, in their order.
    pub(crate) fn labels(&self) -> &[Label; LABELS] {
        &self.values
    }

    /// The name under which the proxy keeps the series.
    #[must_use]
    pub fn name(&self) -> String {
        let Family { name, labels, kind } = self.family;
        let mut text = (*name).to_owned();
        let values = self.values.iter().map(Label::as_str);
        let labels = labels.iter().copied().zip(values);
        let all = labels.chain(kind.map(|kind| ("kind", kind)));
        for (index, (label, value)) in all.filter(|(label, _)| !label.is_empty()).enumerate() {
            text.push_str(if index == 0 { "." } else { "" });
            text.push_str(label);
            text.push_str("=.=");
            push_label(&mut text, value);
            text.push_str(";.;");
        }
        text
    }
}

impl Family {
    pub(crate) const fn new(name: &'static str, labels: [&'static str; LABELS]) -> Self {
        Self {
            name,
            labels,
            kind: None,
        }
    }

    /// The same metric, with one more label `kind`, which has this fixed value.
    pub(crate) const fn kind(self, kind: &'static str) -> Self {
        Self {
            kind: Some(kind),
            ..self
        }
    }

    pub(crate) fn of(&'static self, values: [Label; LABELS]) -> Series {
        Series {
            family: self,
            values,
        }
    }
}

/// The value of a metric's label. No text of a client may become a label, since clients could then add metrics without bound: a tenant or a
/// model that the configuration does not name is replaced by a fixed word.
#[derive(Clone, Debug)]
pub enum Label {
    /// A fixed word.
    Word(&'static str),
    /// A name from the configuration.
    Name(Name),
}

impl Label {
    /// The label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Word(word) => word,
            Self::Name(name) => name,
        }
    }
}

impl From<&'static str> for Label {
    fn from(word: &'static str) -> Self {
        Self::Word(word)
    }
}

impl From<&Name> for Label {
    fn from(name: &Name) -> Self {
        Self::Name(name.clone())
    }
}

/// Fixed words are compared by address: the same word at two addresses counts as two labels.
impl PartialEq for Label {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Word(one), Self::Word(other)) => std::ptr::eq(*one, *other),
            (Self::Name(one), Self::Name(other)) => one.is(other),
            _ => false,
        }
    }
}

impl Eq for Label {}

impl Hash for Label {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Word(word) => state.write_usize(word.as_ptr().addr()),
            Self::Name(name) => state.write_u32(name.hash),
        }
    }
}

/// Appends a label's value. Characters that the convention uses are replaced by `_`.
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

impl From<&Label> for Text {
    fn from(label: &Label) -> Self {
        match label {
            Label::Word(word) => Self::Word(word),
            Label::Name(name) => Self::Name(name.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    use crate::base::name::NameHashing;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    static ASKED: Family = Family::new("asked", ["tenant", "tier", ""]);
    static SERVED: Family = Family::new("served", ["tenant", "tier", ""]);

    /// A series of a tenant, as it is built after the configuration was read again.
    fn of(family: &'static Family, tenant: &str, tier: &'static str) -> Series {
        family.of([Label::Name(tenant.into()), tier.into(), "".into()])
    }

    #[test]
    fn a_series_is_known_again_under_another_configuration() {
        let mut ids: HashMap<Series, u32, NameHashing> = HashMap::default();
        let tenants: Vec<String> = (0..100).map(|tenant| format!("tenant-{tenant}")).collect();
        for _ in 0..2 {
            for tenant in &tenants {
                for family in [&ASKED, &SERVED] {
                    for tier in ["default", "light"] {
                        ids.entry(of(family, tenant, tier)).or_default();
                    }
                }
            }
        }
        assert_eq!(ids.len(), 400);
        let names: std::collections::HashSet<_> = ids.keys().map(Series::name).collect();
        assert_eq!(names.len(), 400);
    }

    #[test]
    fn a_word_is_no_name() {
        assert_ne!(Label::Word("other"), Label::Name("other".into()));
        assert_eq!(of(&ASKED, "a", "").name(), "asked.tenant=.=a;.;tier=.=;.;");
    }
}
