//! Who sends what, on which budget: a trace spread over tenants, the same every time.

use serde_json::{Value, json};

use crate::draw::Draw;
use crate::trace::{HOUR, Row};

/// What everybody asks for.
pub const MODEL: &str = "gpt-4o";

pub struct Tenant {
    pub name: &'static str,
    /// In percent of what all of its requests cost at the top tier.
    pub budget: u64,
    /// How much of each hour's traffic is its own, against the others'.
    hours: [u64; 24],
}

const OFFICE: [u64; 24] = [
    0, 0, 0, 0, 0, 0, 1, 3, 8, 10, 10, 10, 7, 9, 10, 10, 10, 8, 4, 2, 1, 0, 0, 0,
];
const ROUND_THE_CLOCK: [u64; 24] = [8; 24];
const EVENING: [u64; 24] = [
    6, 4, 2, 1, 1, 1, 2, 3, 2, 2, 2, 2, 3, 3, 2, 2, 3, 6, 12, 20, 26, 28, 24, 14,
];
const NIGHTLY: [u64; 24] = [
    4, 60, 90, 90, 60, 4, 3, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 4, 4,
];
const BURSTS: [u64; 24] = [
    1, 1, 1, 1, 1, 1, 1, 1, 1, 40, 1, 1, 1, 1, 44, 2, 1, 1, 1, 36, 2, 1, 1, 1,
];

/// Budgets for which the ladder suffices with ease, just, and hardly.
#[rustfmt::skip]
pub const TENANTS: [Tenant; 6] = [
    Tenant { name: "office", budget: 60, hours: OFFICE },
    Tenant { name: "clock", budget: 20, hours: ROUND_THE_CLOCK },
    Tenant { name: "nightly", budget: 16, hours: NIGHTLY },
    Tenant { name: "evening", budget: 14, hours: EVENING },
    Tenant { name: "bursts", budget: 12, hours: BURSTS },
    Tenant { name: "lean", budget: 9, hours: OFFICE },
];

/// One request of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub row: Row,
    /// Index into [`TENANTS`].
    pub tenant: usize,
    pub max_tokens: u64,
    /// Of its body.
    pub bytes: u64,
    /// How much of its prompt is read from a cache.
    pub cached: u64,
}

/// Clients name a limit with room to spare.
const LIMITS: [u64; 5] = [256, 512, 1_024, 2_048, 4_096];

pub fn spread(rows: &[Row]) -> Vec<Request> {
    let mut draw = Draw::new(6);
    rows.iter()
        .map(|&row| {
            let hour = (row.at / HOUR) as usize % 24;
            let limit = LIMITS.iter().copied().find(|&limit| limit >= row.output);
            Request {
                row,
                tenant: draw.weighted(TENANTS.iter().map(|tenant| tenant.hours[hour])),
                max_tokens: limit.unwrap_or(row.output),
                bytes: 4 * row.prompt,
                cached: 0,
            }
        })
        .collect()
}

/// A step of the ladder.
pub struct Tier {
    pub name: &'static str,
    model: &'static str,
    /// USD micros per million tokens.
    input: u64,
    cached: u64,
    output: u64,
    /// In thousandths.
    below: Option<u64>,
}

/// As the first configuration of docs/configuration.md has it.
#[rustfmt::skip]
pub const LADDER: [Tier; 3] = [
    Tier { name: "default",  model: MODEL,          input: 2_500_000, cached: 1_250_000, output: 10_000_000, below: None },
    Tier { name: "standard", model: "gpt-4.1-mini", input: 400_000,   cached: 100_000,   output: 1_600_000,  below: Some(500) },
    Tier { name: "compact",  model: "gpt-4o-mini",  input: 150_000,   cached: 75_000,    output: 600_000,    below: Some(200) },
];

/// What a request costs at a tier in USD micros, reckoned apart from the core.
pub fn cost(tier: usize, row: Row, cached: u64) -> u64 {
    let Tier {
        input,
        cached: read,
        output,
        ..
    } = LADDER[tier];
    let prompt = (row.prompt - cached) * input + cached * read;
    (prompt + row.output * output).div_ceil(1_000_000)
}

/// What is held for it: a token for each byte of its body, and the longest answer.
pub fn reserve(tier: usize, request: &Request) -> u64 {
    let row = Row {
        prompt: request.bytes,
        output: request.max_tokens,
        ..request.row
    };
    cost(tier, row, 0)
}

/// Budgets in USD micros, by tenant.
pub fn budgets(requests: &[Request]) -> Vec<u64> {
    let part = |(demand, tenant): (u64, &Tenant)| (demand * tenant.budget / 100).max(1);
    demand(requests)
        .into_iter()
        .zip(&TENANTS)
        .map(part)
        .collect()
}

/// The plugin's configuration: all tenants with the same settings, each with its budget.
pub fn configuration(settings: &Value, budgets: &[u64]) -> Value {
    let mut tenants = json!({});
    for (tenant, &budget) in TENANTS.iter().zip(budgets) {
        let budget = json!({"initial_budget": usd(budget), "unit": "usd", "window": "day"});
        tenants[tenant.name] = settings.clone();
        tenants[tenant.name]["budget"] = budget;
    }
    with_ladder(&tenants)
}

/// The budgets in percent of what all of a tenant's requests cost at the top tier.
pub fn percents() -> Vec<u64> {
    TENANTS.iter().map(|tenant| tenant.budget).collect()
}

/// What all of each tenant's requests cost as requested, in USD micros.
pub fn demand(requests: &[Request]) -> Vec<u64> {
    let mut demand = vec![0; TENANTS.len()];
    for request in requests {
        demand[request.tenant] += cost(0, request.row, 0);
    }
    demand
}

/// One budget, a company's, of which each tenant is guaranteed its share, or none.
pub fn company(budgets: &[u64], is_guaranteed: bool) -> Value {
    let all: u64 = budgets.iter().sum();
    let budget = json!({"initial_budget": usd(all), "unit": "usd", "window": "day"});
    let mut tenants = json!({"company": {"budget": budget}});
    for (tenant, &share) in TENANTS.iter().zip(shares(budgets).iter()) {
        tenants[tenant.name] = json!({"parent": "company", "never_downgrade": true});
        if is_guaranteed {
            tenants[tenant.name]["guaranteed"] = usd(share).into();
        }
    }
    with_ladder(&tenants)
}

/// In millionths of all.
pub fn shares(budgets: &[u64]) -> Vec<u64> {
    let all: u64 = budgets.iter().sum();
    let share = |&budget: &u64| budget * 1_000_000 / all.max(1);
    budgets.iter().map(share).collect()
}

fn with_ladder(tenants: &Value) -> Value {
    let tiers: Vec<Value> = LADDER.iter().map(Tier::configuration).collect();
    json!({"hold_headers": true, "tiers": tiers, "tenants": tenants})
}

impl Tier {
    fn configuration(&self) -> Value {
        let price = json!({
            "input": usd(self.input), "cached_input": usd(self.cached), "output": usd(self.output)
        });
        let mut tier = json!({"name": self.name, "model": self.model, "price": price});
        if let Some(below) = self.below {
            tier["below"] = json!(below as f64 / 1_000.0);
        }
        tier
    }
}

fn usd(micros: u64) -> f64 {
    micros as f64 / 1_000_000.0
}
