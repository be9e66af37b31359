//! What budgets hold for requests, in both modes: what requests used beyond their holds, and how much more was held than used.
//!
//! Traces tell prompts and answers in tokens, and neither how long bodies are, nor which limit the client gave, nor what was cached. What
//! is assumed of these is in the table, since `hold: likely` goes by them.

use crate::draw::Draw;
use crate::play::{self, Day};
use crate::report::{by_tenant, dollars, percent, total};
use crate::tenants::{Request, TENANTS};
use serde_json::json;

/// What is said of it, and what it makes of a request.
type Assumption = (&'static str, fn(&mut Draw, Request) -> Request);

/// What is assumed of bodies, limits and caches.
pub const ASSUMED: [Assumption; 5] = [
    (
        "4 bytes a token, a limit of 256, 512, … 4,096, nothing cached",
        |_, request| request,
    ),
    ("3 to 5 bytes a token", dense_or_sparse),
    ("a limit of 4,096 for all", with_one_limit),
    (
        "9 tenths of the prompt cached, but for one request in four",
        cached,
    ),
    ("all three", |draw, request| {
        let request = dense_or_sparse(draw, request);
        let request = with_one_limit(draw, request);
        cached(draw, request)
    }),
];

fn dense_or_sparse(draw: &mut Draw, request: Request) -> Request {
    let hundredths = 300 + draw.below(201);
    Request {
        bytes: request.row.prompt * hundredths / 100,
        ..request
    }
}

fn with_one_limit(_: &mut Draw, request: Request) -> Request {
    Request {
        max_tokens: request.row.output.max(4_096),
        ..request
    }
}

fn cached(draw: &mut Draw, request: Request) -> Request {
    let is_found = draw.below(4) > 0;
    Request {
        cached: u64::from(is_found) * request.row.prompt * 9 / 10,
        ..request
    }
}

/// A day in one mode under one of the assumptions.
pub struct Held {
    pub assumed: &'static str,
    pub mode: &'static str,
    pub day: Day,
}

impl Held {
    /// What requests used beyond what was held for them, by tenant.
    pub fn over(&self) -> Vec<u64> {
        let mut over = vec![0; TENANTS.len()];
        for payment in &self.day.payments {
            over[payment.tenant] += payment.micros.saturating_sub(payment.held_there);
        }
        over
    }
}

/// Under each of the assumptions, in both modes.
pub fn played(requests: &[Request], assumptions: &[Assumption]) -> Vec<Held> {
    let each = |&(assumed, assume): &Assumption| {
        let mut draw = Draw::new(14);
        let requests: Vec<Request> = requests
            .iter()
            .map(|request| assume(&mut draw, *request))
            .collect();
        ["ceiling", "likely"].map(|mode| {
            eprintln!("holds: {mode}, {assumed}");
            let day = play::day(&requests, &json!({"hold": mode}), |_| {});
            Held { assumed, mode, day }
        })
    };
    assumptions.iter().flat_map(each).collect()
}

/// A row for each day.
pub fn table(all: &[Held]) -> String {
    let mut text = "\
| assumed | hold | asked | refused | downgraded | spent | budgets | held, of what was used | used beyond holds | of the budgets | of one tenant's, at most | spent beyond budgets |
|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
"
    .to_owned();
    for held in all {
        let tenants = by_tenant(&held.day);
        let sum = total(&tenants);
        let over = held.over();
        let all_over: u64 = over.iter().sum();
        let most = over.iter().zip(&tenants);
        let most = most.max_by_key(|(over, tenant)| *over * 1_000_000 / tenant.budget.max(1));
        let (most, of) = most.map_or((0, 0), |(over, tenant)| (*over, tenant.budget));
        let beyond = tenants
            .iter()
            .map(|one| one.spent.saturating_sub(one.budget));
        let reserved: u64 = held.day.payments.iter().map(|one| one.held_there).sum();
        text += &format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            held.assumed,
            held.mode,
            sum.asked,
            percent(sum.refused, sum.asked),
            percent(sum.downgraded(), sum.asked),
            dollars(sum.spent),
            dollars(sum.budget),
            percent(reserved, sum.spent),
            dollars(all_over),
            precise(all_over, sum.budget),
            precise(most, of),
            dollars(beyond.sum()),
        );
    }
    text
}

/// `of` in percent of `all`, with three decimals.
fn precise(of: u64, all: u64) -> String {
    format!("{:.3} %", 100.0 * of as f64 / all.max(1) as f64)
}
