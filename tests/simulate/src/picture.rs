//! The picture: a column for each variant, a row for each tenant, a panel for each of both. Bars are requests by the tier that served
//! them, red ones were refused; the line is what is left of the budget.
//!
//! Its background is transparent and its colours are of middling lightness, so that it can be read on white and on black.

use std::fmt::Write;

use crate::play::Day;
use crate::report::{self, Figures, by_tenant, clock, dollars, percent, total};
use crate::tenants::{LADDER, TENANTS};
use crate::trace::DAY;

pub const WIDTH: f64 = 1_000.0;
pub const LABELS: f64 = 110.0;
pub const GAP: f64 = 26.0;
pub const HEAD: f64 = 96.0;
const ROW: f64 = 98.0;
pub const CHART: f64 = 66.0;
/// Of a panel, above its chart: the panel's own words.
const STRIP: f64 = 20.0;
pub const FOOT: f64 = 24.0;

/// A bar for each twenty minutes of a day, or as many of another time.
pub const BARS: usize = 72;

pub const INK: &str = "#7d8590";
pub const COLOURS: [&str; LADDER.len()] = ["#3b82f6", "#14b8a6", "#eab308"];
pub const REFUSED: &str = "#ef4444";

/// Requests of twenty minutes: served, by tier, and refused.
pub type Bar = [u64; LADDER.len() + 1];

/// Everything as one SVG. `budgets`: in percent of what all of a tenant's requests cost as requested.
pub fn draw(days: &[(&str, Day)], budgets: &[u64]) -> String {
    let height = HEAD + ROW * TENANTS.len() as f64 + FOOT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui, -apple-system, Segoe UI, \
         Helvetica, Arial, DejaVu Sans, sans-serif\" font-size=\"11\" fill=\"{INK}\">\n"
    );
    legend(&mut svg);
    let bars: Vec<Vec<[Bar; BARS]>> = days.iter().map(|(_, day)| bars(day)).collect();
    // The same scale for a tenant in all columns.
    let most = |tenant: usize| {
        let of_tenant = bars.iter().flat_map(|bars| &bars[tenant]);
        of_tenant
            .map(|bar| bar.iter().sum::<u64>())
            .max()
            .unwrap_or_default()
            .max(1)
    };
    let column = (WIDTH - LABELS - GAP * (days.len() as f64 - 1.0)) / days.len() as f64;
    for (row, (tenant, percent)) in TENANTS.iter().zip(budgets).enumerate() {
        let y = HEAD + ROW * row as f64 + (ROW - CHART);
        text(
            &mut svg,
            0.0,
            y + 26.0,
            "font-size=\"13\" font-weight=\"600\"",
            tenant.name,
        );
        text(&mut svg, 0.0, y + 42.0, "", &format!("budget: {percent} %"));
        text(&mut svg, 0.0, y + 56.0, "", "of its demand");
        for (index, ((_, day), bars)) in days.iter().zip(&bars).enumerate() {
            let x = LABELS + (column + GAP) * index as f64;
            let chart = Chart {
                x,
                y,
                width: column,
            };
            chart.frame(&mut svg);
            chart.bars(&mut svg, &bars[row], most(row));
            chart.left(&mut svg, day, row);
            chart.words(&mut svg, &by_tenant(day)[row]);
        }
    }
    for (index, (name, day)) in days.iter().enumerate() {
        let x = LABELS + (column + GAP) * index as f64;
        let figures = total(&by_tenant(day));
        text(
            &mut svg,
            x,
            74.0,
            "font-size=\"16\" font-weight=\"600\"",
            name,
        );
        text(&mut svg, x, 92.0, "font-size=\"12\"", &summary(&figures));
        for hour in (0..=24).step_by(6) {
            let at = x + column * f64::from(hour) / 24.0;
            let anchor = format!(
                "text-anchor=\"{}\"",
                ["middle", "start", "end"][usize::from(hour == 0) + 2 * usize::from(hour == 24)]
            );
            text(
                &mut svg,
                at,
                height - 8.0,
                &anchor,
                &format!("{hour:02}:00"),
            );
        }
    }
    svg += "</svg>\n";
    svg
}

fn summary(figures: &Figures) -> String {
    let since = figures.first_refusal.map_or(String::new(), |_| {
        format!(", from {}", clock(figures.first_refusal))
    });
    format!(
        "{} refused{since} · {} downgraded · {} spent",
        percent(figures.refused, figures.asked),
        percent(figures.downgraded(), figures.asked),
        dollars(figures.spent)
    )
}

/// What colours, bars and the line mean.
fn legend(svg: &mut String) {
    text(svg, 0.0, 15.5, "", "requests served by");
    let names = LADDER.iter().map(|tier| tier.name).chain(["refused"]);
    let mut x = LABELS;
    for (name, colour) in names.zip(COLOURS.iter().chain([&REFUSED])) {
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"6\" width=\"11\" height=\"11\" rx=\"2\" fill=\"{colour}\"/>"
        );
        text(svg, x + 16.0, 15.5, "", name);
        x += 80.0;
    }
    text(
        svg,
        x,
        15.5,
        "",
        "a bar: the requests of 20 minutes; each tenant has its own scale",
    );
    let _ = writeln!(
        svg,
        "<path d=\"M{LABELS} 33h18\" stroke=\"{INK}\" stroke-width=\"2\"/>"
    );
    text(
        svg,
        LABELS + 24.0,
        37.0,
        "",
        "what is left of the tenant's budget: full at the top, spent at the bottom. Demand: what all requests of the day would cost as requested",
    );
}

pub fn text(svg: &mut String, x: f64, y: f64, more: &str, words: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" {more}>{words}</text>");
}

fn bars(day: &Day) -> Vec<[Bar; BARS]> {
    let mut all = vec![[Bar::default(); BARS]; TENANTS.len()];
    for outcome in &day.outcomes {
        let bar = (outcome.request.row.at as usize * BARS) / DAY as usize;
        all[outcome.request.tenant][bar][outcome.tier.unwrap_or(LADDER.len())] += 1;
    }
    all
}

/// One tenant's day under one variant.
pub struct Chart {
    pub x: f64,
    pub y: f64,
    pub width: f64,
}

impl Chart {
    pub fn frame(&self, svg: &mut String) {
        let (x, bottom, width) = (self.x, self.y + CHART, self.width);
        let (top, height) = (self.y - STRIP, CHART + STRIP);
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{INK}\" fill-opacity=\"0.08\"/>"
        );
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {bottom:.1}h{width:.1}\" stroke=\"{INK}\" stroke-opacity=\"0.5\"/>"
        );
    }

    pub fn bars(&self, svg: &mut String, bars: &[Bar; BARS], most: u64) {
        let width = self.width / BARS as f64;
        let mut below = [0; BARS];
        for (part, colour) in COLOURS.iter().chain([&REFUSED]).enumerate() {
            let mut path = String::new();
            for (number, bar) in bars.iter().enumerate().filter(|(_, bar)| bar[part] > 0) {
                let scale = |requests: u64| requests as f64 / most as f64 * CHART;
                let x = self.x + width * number as f64;
                let y = self.y + CHART - scale(below[number]);
                let _ = write!(
                    path,
                    "M{x:.1} {y:.1}v-{:.1}h{:.1}v{:.1}z",
                    scale(bar[part]),
                    width - 0.8,
                    scale(bar[part])
                );
                below[number] += bar[part];
            }
            let _ = writeln!(svg, "<path d=\"{path}\" fill=\"{colour}\"/>");
        }
    }

    /// What is left of the budget.
    fn left(&self, svg: &mut String, day: &Day, tenant: usize) {
        let budget = day.budgets[tenant] as f64;
        let left = (0..=BARS).map(|step| {
            let until = DAY / BARS as u64 * step as u64;
            let paid = day
                .payments
                .iter()
                .filter(|paid| paid.tenant == tenant && paid.at < until);
            let spent: u64 = paid.map(|paid| paid.micros).sum();
            (1.0 - spent as f64 / budget).max(0.0)
        });
        self.line(svg, left);
    }

    /// A line from left to right, of what is between 0 and 1.
    pub fn line(&self, svg: &mut String, left: impl Iterator<Item = f64>) {
        let mut points = String::new();
        for (step, left) in left.enumerate() {
            let x = self.x + self.width * step as f64 / BARS as f64;
            let _ = write!(points, "{x:.1},{:.1} ", self.y + CHART * (1.0 - left));
        }
        let points = points.trim_end();
        let _ = writeln!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{INK}\" stroke-width=\"2\" stroke-linejoin=\"round\"/>"
        );
    }

    /// What the panel's strip says.
    fn words(&self, svg: &mut String, figures: &Figures) {
        let (words, colour) = match figures.refused {
            0 => ("none refused".to_owned(), INK),
            refused => (
                format!(
                    "{} refused, from {}",
                    percent(refused, figures.asked),
                    report::clock(figures.first_refusal)
                ),
                REFUSED,
            ),
        };
        let start = format!("fill=\"{colour}\" font-weight=\"600\"");
        text(svg, self.x + 6.0, self.y - 7.0, &start, &words);
    }
}
