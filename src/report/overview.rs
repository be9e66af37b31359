//! The operators' report as JSON, and as a page that needs nothing besides itself: its table stands there without script.

use crate::body::json::quoted;
use crate::name::Name;
use crate::policy::Payer;
use crate::report::metrics::VERSION;
use crate::report::self_service::{Object, amount, exhausted, span, standing};
use crate::report::standing::{Counted, Standing};
use crate::units::{Timestamp, share};

/// What is told: one page of tenants.
pub(crate) struct Told {
    /// Counted from 1.
    pub(crate) page: usize,
    pub(crate) pages: usize,
    /// On all pages.
    pub(crate) tenants: usize,
    pub(crate) rows: Vec<Row>,
    /// Tiers whose upstream says no.
    pub(crate) pressed: Vec<Pressed>,
    pub(crate) now: Timestamp,
}

/// A tenant.
pub(crate) struct Row {
    pub(crate) tenant: Name,
    pub(crate) plan: Name,
    /// Its limits only look on.
    pub(crate) shadow: bool,
    pub(crate) limits: Vec<Standing>,
}

/// A tier that is left alone.
pub(crate) struct Pressed {
    pub(crate) tier: Name,
    pub(crate) model: Name,
}

/// `report.json`.
pub(crate) fn json(told: &Told) -> String {
    let rows: Vec<String> = told.rows.iter().map(|row| tenant(row, told.now)).collect();
    let pressed = told.pressed.iter().map(|pressed| {
        let mut tier = Object::default();
        tier.put("tier", &quoted(&pressed.tier));
        tier.put("model", &quoted(&pressed.model));
        tier.close()
    });
    let pressed: Vec<String> = pressed.collect();
    let mut all = Object::default();
    all.put("as_of", &quoted(&told.now.rfc_3339()));
    all.put("version", &quoted(VERSION));
    all.put("page", &told.page.to_string());
    all.put("pages", &told.pages.to_string());
    all.put("count", &told.tenants.to_string());
    all.put("tiers_pressed", &format!("[{}]", pressed.join(",")));
    all.put("tenants", &format!("[{}]", rows.join(",")));
    all.close()
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
    tenant.put("limits", &format!("[{}]", limits.join(",")));
    tenant.close()
}

/// The page.
pub(crate) fn page(told: &Told) -> String {
    let mut page = HEAD.to_owned();
    page.push_str(&format!(
        "<p>As of <time>{}</time>, bursar {VERSION}. {} tenants. <a href=\"report.json?page={}\">report.json</a></p>",
        told.now.rfc_3339(),
        told.tenants,
        told.page
    ));
    for pressed in &told.pressed {
        page.push_str(&format!(
            "<p class=\"no\">The provider of {} (tier {}) says no: requests go to the next tier.</p>",
            escaped(&pressed.model),
            escaped(&pressed.tier)
        ));
    }
    page.push_str(TABLE);
    for row in &told.rows {
        for limit in &row.limits {
            page.push_str(&table_row(row, limit, told.now));
        }
    }
    page.push_str("</tbody></table>");
    if told.pages > 1 {
        page.push_str("<p>Pages:");
        for number in 1..=told.pages {
            page.push_str(&format!(" <a href=\"?page={number}\">{number}</a>"));
        }
        page.push_str("</p>");
    }
    page.push_str(SCRIPT);
    page
}

fn table_row(row: &Row, limit: &Standing, now: Timestamp) -> String {
    let unit = match limit.counted {
        Counted::UsdMicros => "$",
        Counted::Tokens => "tokens",
        Counted::Requests => "requests",
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

/// `2026-11-29 17:45:00`
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
const TABLE: &str = include_str!("overview/table.html");
const SCRIPT: &str = include_str!("overview/script.html");
