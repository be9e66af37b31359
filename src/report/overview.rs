//! The operators' report as JSON, and as a page without external resources. The page's table works without scripts.

use crate::base::name::Name;
use crate::base::units::{Timestamp, share};
use crate::body::json::quoted;
use crate::policy::Payer;
use crate::report::metrics::{UNCONFIGURED, VERSION};
use crate::report::self_service::{Object, amount, dollars, exhausted, some, span, standing, time};
use crate::report::standing::{self, Standing};

/// In which form the report is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Page,
    Json,
}

/// What one page of the report says besides its rows.
pub(crate) struct Told {
    /// The page's number, counted from 1.
    pub(crate) page: usize,
    pub(crate) pages: usize,
    /// The number of tenants on all pages.
    pub(crate) tenants: usize,
    /// The text that their names contain; empty if all tenants were requested.
    pub(crate) find: String,
    /// What was counted for all tenants that are not configured.
    pub(crate) strangers: Counted,
    pub(crate) troubled: Vec<Troubled>,
    pub(crate) health: Health,
    /// When the reading of the rows began: all figures are as new as this, or newer.
    pub(crate) as_of: Timestamp,
}

/// A tenant's row in the report.
pub(crate) struct Row {
    pub(crate) tenant: Name,
    pub(crate) plan: Name,
    /// Whether the tenant's limits are not enforced.
    pub(crate) shadow: bool,
    pub(crate) limits: Vec<Standing>,
    pub(crate) counted: Counted,
}

/// What was counted for a tenant since the proxy's start.
#[derive(Default)]
pub(crate) struct Counted {
    /// Tier, model, and the amount spent on them, in millionths of a dollar.
    pub(crate) spent: Vec<(String, String, u64)>,
    /// What was saved by cheaper models, in millionths of a dollar.
    pub(crate) saved: u64,
    /// The reasons of refusals, each with the number of requests that were refused.
    pub(crate) refused: Vec<(String, u64)>,
}

/// A tier whose upstream refuses requests, or is too slow for some plan.
pub(crate) struct Troubled {
    pub(crate) tier: Name,
    pub(crate) model: Name,
    pub(crate) is_slow: bool,
}

/// The state of bursar itself.
pub(crate) struct Health {
    pub(crate) conflicts: u64,
    pub(crate) corrupt: u64,
    pub(crate) given_up: u64,
    /// The state of the store that proxies share, if a budget is kept there.
    pub(crate) shared: Option<Shared>,
}

/// The state of the store that proxies share, as the budgets of this page's tenants show it.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// When the store last answered; the epoch if it never did.
    pub(crate) heard: Timestamp,
    /// The number of budgets whose last call failed.
    pub(crate) failing: u64,
}

/// The report's rows as they are written so far.
#[derive(Debug)]
pub(crate) struct Draft {
    form: Form,
    rows: String,
    /// The page's second table: what was counted for each tenant.
    sums: String,
}

impl Draft {
    pub(crate) fn new(form: Form) -> Self {
        Self {
            form,
            rows: String::new(),
            sums: String::new(),
        }
    }

    /// Writes a tenant's row.
    pub(crate) fn add(&mut self, row: &Row, now: Timestamp) {
        match self.form {
            Form::Json => {
                if !self.rows.is_empty() {
                    self.rows.push(',');
                }
                self.rows.push_str(&tenant(row, now));
            }
            Form::Page => {
                for limit in &row.limits {
                    self.rows.push_str(&table_row(row, limit, now));
                }
                push_sums(&mut self.sums, &row.tenant, &row.counted);
            }
        }
    }

    /// The whole report, with its content type.
    pub(crate) fn whole(&mut self, told: &Told) -> (&'static str, String) {
        match self.form {
            Form::Json => ("application/json", json(&self.rows, told)),
            Form::Page => ("text/html; charset=utf-8", self.page(told)),
        }
    }

    /// The report as an HTML page.
    fn page(&mut self, told: &Told) -> String {
        let mut page = String::new();
        push_head(&mut page, told);
        // A script filters the rows of this page alone.
        if told.pages > 1 || !told.find.is_empty() {
            page.push_str(&FIND.replace("{}", &escaped(&told.find)));
        }
        page.push_str(TABLE);
        page.push_str(&self.rows);
        page.push_str(SUMS);
        push_sums(&mut self.sums, UNCONFIGURED, &told.strangers);
        page.push_str(&self.sums);
        page.push_str("</tbody></table>");
        if told.pages > 1 {
            page.push_str("<p>Pages:");
            for number in 1..=told.pages {
                page.push_str(&format!(
                    " <a href=\"{}\">{number}</a>",
                    query(told, number)
                ));
            }
            page.push_str("</p>");
        }
        page.push_str(SCRIPT);
        page
    }
}

/// The report as `report.json`.
fn json(rows: &str, told: &Told) -> String {
    let tiers = |is_slow| {
        let mut tiers = Vec::new();
        for troubled in told.troubled.iter().filter(|tier| tier.is_slow == is_slow) {
            let mut tier = Object::default();
            tier.put("tier", &quoted(&troubled.tier));
            tier.put("model", &quoted(&troubled.model));
            tiers.push(tier.close());
        }
        list(&tiers)
    };
    let mut strangers = Object::default();
    put_counted(&mut strangers, &told.strangers);
    let mut all = Object::default();
    all.put("as_of", &quoted(&told.as_of.rfc_3339()));
    all.put("version", &quoted(VERSION));
    all.put("page", &told.page.to_string());
    all.put("pages", &told.pages.to_string());
    all.put("count", &told.tenants.to_string());
    all.put("tiers_pressed", &tiers(false));
    all.put("tiers_slow", &tiers(true));
    all.put("state", &health(&told.health));
    all.put("unconfigured", &strangers.close());
    all.put("tenants", &["[", rows, "]"].concat());
    all.close()
}

fn list(values: &[String]) -> String {
    ["[", &values.join(","), "]"].concat()
}

fn health(health: &Health) -> String {
    let mut state = Object::default();
    state.put("conflicts", &health.conflicts.to_string());
    state.put("corrupt", &health.corrupt.to_string());
    state.put("given_up", &health.given_up.to_string());
    let store = |shared: &Shared| {
        let heard = Some(shared.heard).filter(|heard| *heard > Timestamp::default());
        let mut store = Object::default();
        store.put("heard_at", &some(heard, time));
        store.put("failing", &shared.failing.to_string());
        store.close()
    };
    state.put("store", &some(health.shared.as_ref(), store));
    state.close()
}

fn put_counted(object: &mut Object, counted: &Counted) {
    let mut spend = Vec::new();
    for (tier, model, micros) in &counted.spent {
        let mut one = Object::default();
        one.put("tier", &quoted(tier));
        one.put("model", &quoted(model));
        one.put("usd", &dollars(*micros));
        spend.push(one.close());
    }
    let mut refusals = Vec::new();
    for (reason, count) in &counted.refused {
        let mut one = Object::default();
        one.put("reason", &quoted(reason));
        one.put("count", &count.to_string());
        refusals.push(one.close());
    }
    object.put("spend", &list(&spend));
    object.put("saved_usd", &dollars(counted.saved));
    object.put("refusals", &list(&refusals));
}

fn tenant(row: &Row, now: Timestamp) -> String {
    let limits = row.limits.iter();
    let limits: Vec<String> = limits
        .map(|limit| standing(Payer::Tenant, limit, now))
        .collect();
    let mut tenant = Object::default();
    tenant.put("tenant", &quoted(&row.tenant));
    tenant.put("plan", &quoted(&row.plan));
    tenant.put("shadow", if row.shadow { "true" } else { "false" });
    tenant.put("limits", &list(&limits));
    put_counted(&mut tenant, &row.counted);
    tenant.close()
}

/// The head of the page, and what it says of all tenants together.
fn push_head(page: &mut String, told: &Told) {
    page.push_str(HEAD);
    let found = match told.find.as_str() {
        "" => String::new(),
        find => format!(" with “{}” in their name", escaped(find)),
    };
    page.push_str(&format!(
        "<p>As of <time>{}</time>, bursar {VERSION}. {} tenants{found}. <a href=\"report.json{}\">report.json</a></p>",
        told.as_of.rfc_3339(),
        told.tenants,
        query(told, told.page)
    ));
    for tier in &told.troubled {
        let what = match tier.is_slow {
            false => "says no: requests go to the next tier",
            true => "answers later than an SLA wants",
        };
        push_note(
            page,
            &format!(
                "The provider of {} (tier {}) {what}.",
                tier.model, tier.tier
            ),
        );
    }
    let state = &told.health;
    if state.corrupt > 0 || state.given_up > 0 {
        let Health {
            corrupt, given_up, ..
        } = state;
        push_note(
            page,
            &format!("State: {corrupt} records were unreadable, {given_up} steps were given up."),
        );
    }
    if let Some(shared) = &state.shared
        && shared.failing > 0
    {
        push_note(
            page,
            &format!(
                "The shared store does not answer for {} budgets; last heard {}.",
                shared.failing,
                to_the_second(shared.heard)
            ),
        );
    }
}

/// The query of a page of this report.
fn query(told: &Told, page: usize) -> String {
    let mut query = format!("?page={page}");
    if !told.find.is_empty() {
        query.push_str("&amp;find=");
        for byte in told.find.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => query.push(byte.into()),
                _ => query.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    query
}

fn push_note(page: &mut String, note: &str) {
    for part in ["<p class=\"no\">", &escaped(note), "</p>"] {
        page.push_str(part);
    }
}

/// Writes what was counted for a tenant, if anything was.
fn push_sums(page: &mut String, tenant: &str, counted: &Counted) {
    let Counted {
        spent,
        saved,
        refused,
    } = counted;
    if spent.is_empty() && refused.is_empty() {
        return;
    }
    let (mut usd, mut count) = (0_u64, 0_u64);
    let (mut models, mut reasons) = (String::new(), String::new());
    for (_, model, micros) in spent {
        usd = usd.saturating_add(*micros);
        push_pair(&mut models, model, &dollars(*micros));
    }
    for (reason, times) in refused {
        count = count.saturating_add(*times);
        push_pair(&mut reasons, reason, &times.to_string());
    }
    let cells = [
        ("<tr><td>", escaped(tenant)),
        ("</td><td class=\"n\">", dollars(usd)),
        ("</td><td>", escaped(&models)),
        ("</td><td class=\"n\">", dollars(*saved)),
        ("</td><td class=\"n\">", count.to_string()),
        ("</td><td>", escaped(&reasons)),
    ];
    for (before, cell) in &cells {
        page.push_str(before);
        page.push_str(cell);
    }
    page.push_str("</td></tr>");
}

fn push_pair(text: &mut String, name: &str, number: &str) {
    let before = if text.is_empty() { "" } else { ", " };
    for part in [before, name, " ", number] {
        text.push_str(part);
    }
}

fn table_row(row: &Row, limit: &Standing, now: Timestamp) -> String {
    let unit = match limit.counted {
        standing::Counted::UsdMicros => "$",
        standing::Counted::Tokens => "tokens",
        standing::Counted::Requests => "requests",
    };
    let percent = share(limit.used.saturating_add(limit.held), 100, limit.limit).min(100);
    let level = match percent {
        100.. => "spent",
        80.. => "low",
        _ => "",
    };
    let shadow = if row.shadow { " (looks on)" } else { "" };
    let window = limit
        .span
        .map_or_else(String::new, |window| span(window).replace('"', ""));
    let time = |when: Option<Timestamp>| when.map_or_else(String::new, to_the_second);
    let mut cells = format!(
        "<tr class=\"{level}\"><td>{}</td><td>{}{shadow}</td><td>{}</td><td>{}</td><td>{unit}</td>",
        escaped(&row.tenant),
        escaped(&row.plan),
        escaped(limit.name.as_str()),
        escaped(&window),
    );
    for number in [limit.used, limit.held, limit.remaining, limit.limit] {
        cells.push_str(&format!("<td class=\"n\">{}</td>", amount(limit, number)));
    }
    cells.push_str(&format!(
        "<td class=\"n\">{percent} %<i style=\"width:{percent}%\"></i></td><td>{}</td><td>{}</td></tr>",
        time(limit.resets),
        time(exhausted(limit, now))
    ));
    cells
}

/// A time such as `2026-11-29 17:45:00`.
fn to_the_second(when: Timestamp) -> String {
    let text = when.rfc_3339();
    let text = text.chars().take("2026-11-29T17:45:00".len());
    text.map(|c| if c == 'T' { ' ' } else { c }).collect()
}

fn escaped(text: &str) -> String {
    text.chars()
        .fold(String::with_capacity(text.len()), |mut text, c| {
            match c {
                '&' => text.push_str("&amp;"),
                '<' => text.push_str("&lt;"),
                '>' => text.push_str("&gt;"),
                '"' => text.push_str("&quot;"),
                '\'' => text.push_str("&#39;"),
                c => text.push(c),
            }
            text
        })
}

const HEAD: &str = include_str!("overview/head.html");
const FIND: &str = include_str!("overview/find.html");
const TABLE: &str = include_str!("overview/table.html");
const SUMS: &str = include_str!("overview/sums.html");
const SCRIPT: &str = include_str!("overview/script.html");
