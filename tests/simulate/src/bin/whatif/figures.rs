//! Before and after, by tenant: as a table.

use std::collections::BTreeMap;

use crate::log::{Entry, Fate};
use crate::play::Outcome;

/// What several requests came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub refused: u64,
    pub lowered: u64,
    /// In millionths of a dollar.
    pub spent: u64,
    pub saved: u64,
}

impl Sum {
    pub fn add(&mut self, fate: Fate, spent: u64, saved: u64) {
        self.refused += u64::from(fate == Fate::Refused);
        self.lowered += u64::from(fate == Fate::Lowered);
        self.spent += spent;
        self.saved += saved;
    }
}

/// How many requests there were, and what they came to before and after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub requests: u64,
    pub both: [Sum; 2],
}

/// By tenant; `saved`: of each request, what it saved before.
pub fn by_tenant<'a>(
    entries: &'a [Entry],
    saved: &[u64],
    outcomes: &[Outcome],
) -> BTreeMap<&'a str, Row> {
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    for ((entry, saved), outcome) in entries.iter().zip(saved).zip(outcomes) {
        let row = rows.entry(&entry.tenant).or_default();
        row.requests += 1;
        row.both[0].add(entry.fate, entry.spend, *saved);
        row.both[1].add(outcome.fate, outcome.spend, outcome.saved);
    }
    rows
}

/// The table, and below it why requests are not served as they asked.
pub fn table(rows: &BTreeMap<&str, Row>, outcomes: &[Outcome]) -> String {
    let mut all = Row::default();
    for row in rows.values() {
        all.requests += row.requests;
        for (all, one) in all.both.iter_mut().zip(row.both) {
            all.refused += one.refused;
            all.lowered += one.lowered;
            all.spent += one.spent;
            all.saved += one.saved;
        }
    }
    let mut text = String::from(
        "| tenant | requests | refused | lowered | spent | saved |\n|---|--:|--:|--:|--:|--:|\n",
    );
    let named = rows.iter().map(|(tenant, row)| (*tenant, row));
    for (tenant, row) in named.chain([("**all**", &all)]) {
        let [before, after] = row.both;
        let count = |before: u64, after: u64| format!("{before} → {after}");
        let money = |before, after| format!("{} → {}", dollars(before), dollars(after));
        text += &format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            tenant.replace('|', "\\|"),
            row.requests,
            count(before.refused, after.refused),
            count(before.lowered, after.lowered),
            money(before.spent, after.spent),
            money(before.saved, after.saved)
        );
    }
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    for outcome in outcomes.iter().filter(|outcome| !outcome.reason.is_empty()) {
        *reasons.entry(&outcome.reason).or_default() += 1;
    }
    for (reason, count) in reasons {
        text += &format!("\n{reason}: {count}");
    }
    text.trim_end().to_owned() + "\n"
}

pub fn dollars(micros: u64) -> String {
    format!("${}.{:04}", micros / 1_000_000, micros % 1_000_000 / 100)
}
