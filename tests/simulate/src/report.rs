//! What came out of a day, in figures.

use crate::play::Day;
use crate::tenants::{LADDER, TENANTS};

/// A day of one tenant, or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub tenants: u64,
    pub asked: u64,
    /// Served, by tier.
    pub served: [u64; LADDER.len()],
    pub refused: u64,
    /// How often a served request had another tier than the same tenant's served one before it.
    pub switches: u64,
    /// When the first request was refused.
    pub first_refusal: Option<u64>,
    /// USD micros.
    pub spent: u64,
    pub budget: u64,
}

impl Figures {
    pub fn downgraded(&self) -> u64 {
        self.served.iter().skip(1).sum()
    }

    fn and(mut self, other: &Self) -> Self {
        self.tenants += other.tenants;
        self.asked += other.asked;
        for (sum, more) in self.served.iter_mut().zip(other.served) {
            *sum += more;
        }
        self.refused += other.refused;
        self.switches += other.switches;
        self.first_refusal = match (self.first_refusal, other.first_refusal) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        self.spent += other.spent;
        self.budget += other.budget;
        self
    }
}

/// By tenant.
pub fn by_tenant(day: &Day) -> Vec<Figures> {
    let mut all = vec![Figures::default(); TENANTS.len()];
    let mut last = vec![None; TENANTS.len()];
    for outcome in &day.outcomes {
        let tenant = outcome.request.tenant;
        let figures = &mut all[tenant];
        figures.asked += 1;
        let Some(tier) = outcome.tier else {
            figures.refused += 1;
            figures.first_refusal = figures.first_refusal.or(Some(outcome.request.row.at));
            continue;
        };
        figures.served[tier] += 1;
        let before = last[tenant].replace(tier);
        figures.switches += u64::from(before.is_some_and(|before| before != tier));
    }
    for payment in &day.payments {
        all[payment.tenant].spent += payment.micros;
    }
    for (figures, budget) in all.iter_mut().zip(&day.budgets) {
        figures.tenants = 1;
        figures.budget = *budget;
    }
    all
}

pub fn total(all: &[Figures]) -> Figures {
    all.iter().fold(Figures::default(), Figures::and)
}

/// The table's head.
pub const HEAD: &str = "\
| | asked | refused | first refusal | downgraded | default | standard | compact | tier switches a tenant | spent | budget |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
";

/// A row for each variant, and one for each of its tenants.
pub fn table(days: &[(&str, Day)]) -> String {
    let mut text = HEAD.to_owned();
    for (name, day) in days {
        let all = by_tenant(day);
        text += &row(&format!("**{name}**"), &total(&all));
        for (tenant, figures) in TENANTS.iter().zip(&all) {
            text += &row(tenant.name, figures);
        }
    }
    text
}

/// A row of the table.
pub fn row(name: &str, figures: &Figures) -> String {
    let share = |of| percent(of, figures.asked);
    let [default, standard, compact] = figures.served.map(share);
    format!(
        "| {name} | {} | {} | {} | {} | {default} | {standard} | {compact} | {:.1} | {} | {} |\n",
        figures.asked,
        share(figures.refused),
        clock(figures.first_refusal),
        share(figures.downgraded()),
        figures.switches as f64 / figures.tenants as f64,
        dollars(figures.spent),
        dollars(figures.budget)
    )
}

/// `of` in percent of `all`, with one decimal.
pub fn percent(of: u64, all: u64) -> String {
    format!("{:.1} %", 100.0 * of as f64 / all.max(1) as f64)
}

/// Hours and minutes of the day.
pub fn clock(at: Option<u64>) -> String {
    at.map_or("-".to_owned(), |at| {
        let minutes = at / crate::trace::SECOND / 60;
        format!("{:02}:{:02}", minutes / 60, minutes % 60)
    })
}

pub fn dollars(micros: u64) -> String {
    format!("${}.{:02}", micros / 1_000_000, micros % 1_000_000 / 10_000)
}
