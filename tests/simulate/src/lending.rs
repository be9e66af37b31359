//! One budget for all tenants, in fixed shares, as guaranteed shares that are lent, and for who comes first.

use crate::play::{self, Day};
use crate::report::{by_tenant, dollars, percent, total};
use crate::tenants::{Request, TENANTS, company, configuration, demand, reserve, shares};
use crate::trace::DAY;
use serde_json::json;

/// What there is for all, in percent of what all requests cost as requested.
const COMPANY: u64 = 85;

/// Each tenant has as much of it as the others, whatever it asks for. No request is lowered, so that shares alone decide.
fn budgets(requests: &[Request]) -> Vec<u64> {
    let all: u64 = demand(requests).iter().sum();
    let each = all * COMPANY / 100 / TENANTS.len() as u64;
    vec![each; TENANTS.len()]
}

/// The budgets in percent of what each tenant's requests cost.
pub fn percents(requests: &[Request]) -> Vec<u64> {
    let all = budgets(requests).into_iter().zip(demand(requests));
    all.map(|(budget, demand)| 100 * budget / demand.max(1))
        .collect()
}

/// Each with its name. The first two are in the picture.
pub fn played(requests: &[Request]) -> Vec<(&'static str, Day)> {
    let budgets = budgets(requests);
    let all = [
        (
            "fixed shares",
            configuration(&json!({"never_downgrade": true}), &budgets),
        ),
        ("guaranteed shares, lent", company(&budgets, true)),
        ("no shares", company(&budgets, false)),
    ];
    let days = all.into_iter().map(|(name, json)| {
        eprintln!("lending: {name}");
        (name, play::under(&json, budgets.clone(), requests, |_| {}))
    });
    days.collect()
}

/// Requests of each tenant that were refused although what is never lent of its share would have held them, reckoned apart from the core.
///
/// What a tenant has at least: its share, less what it holds and has spent; and whenever another has taken something, no more than its
/// share for the time that was left then.
pub fn refused_within(day: &Day) -> Vec<u64> {
    let all: u64 = day.budgets.iter().sum();
    let whole: Vec<u64> = shares(&day.budgets)
        .iter()
        .map(|share| (u128::from(all) * u128::from(*share) / 1_000_000) as u64)
        .collect();
    let mut has: Vec<i128> = whole.iter().map(|&whole| whole.into()).collect();
    let mut refused = vec![0; TENANTS.len()];
    let mut payments = day.payments.iter().peekable();
    for outcome in &day.outcomes {
        let request = &outcome.request;
        while let Some(paid) = payments.next_if(|paid| paid.at <= request.row.at) {
            has[paid.tenant] += i128::from(paid.held) - i128::from(paid.micros);
        }
        let Some(tier) = outcome.tier else {
            let needs = reserve(0, request);
            refused[request.tenant] += u64::from(has[request.tenant] >= needs.into());
            continue;
        };
        for (tenant, has) in has.iter_mut().enumerate() {
            if tenant == request.tenant {
                *has -= i128::from(reserve(tier, request));
            } else {
                let left = u128::from(whole[tenant]) * u128::from(DAY - request.row.at);
                *has = (*has).min((left / u128::from(DAY)) as i128);
            }
        }
    }
    refused
}

/// A row for each way to divide the budget, and one for each of its tenants.
pub fn table(days: &[(&str, Day)]) -> String {
    let mut text = "\
| | asked | refused | of these, within what is never lent | spent | budget or share |
|---|--:|--:|--:|--:|--:|
"
    .to_owned();
    for (name, day) in days {
        let all = by_tenant(day);
        let within = refused_within(day);
        let rows = TENANTS.iter().zip(&all).zip(&within);
        let rows = rows
            .map(|((tenant, figures), within)| (tenant.name.to_owned(), figures.clone(), *within));
        let first = (format!("**{name}**"), total(&all), within.iter().sum());
        for (name, figures, within) in std::iter::once(first).chain(rows) {
            text += &format!(
                "| {name} | {} | {} | {within} | {} | {} |\n",
                figures.asked,
                percent(figures.refused, figures.asked),
                dollars(figures.spent),
                dollars(figures.budget)
            );
        }
    }
    text
}
