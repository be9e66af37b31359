//! The picture: a column for each window. Above, its requests by what became of them, and what is left of the budgets; below, the lines
//! that the store gets.

use std::fmt::Write;

use super::figures::{Fate, Figures};
use super::{Played, grouped};
use crate::picture::{
    BARS, Bar, CHART, COLOURS, Chart, FOOT, GAP, HEAD, INK, LABELS, REFUSED, WIDTH, text,
};

/// A panel, with the room for its words.
const ROW: f64 = 116.0;

const NAMES: [&str; COLOURS.len() + 1] = [
    "served at once",
    "served at the second or third try",
    "refused, with more than 1 % left",
    "refused, with less",
];

/// Everything as one SVG.
pub fn draw(all: &[Played]) -> String {
    let height = HEAD + 2.0 * ROW + FOOT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui, -apple-system, Segoe UI, \
         Helvetica, Arial, DejaVu Sans, sans-serif\" font-size=\"11\" fill=\"{INK}\">\n"
    );
    legend(&mut svg);
    let bold = "font-size=\"13\" font-weight=\"600\"";
    let y = HEAD + ROW - CHART;
    text(&mut svg, 0.0, y + 26.0, bold, "requests");
    text(&mut svg, 0.0, y + 42.0, "", "of all tenants");
    text(&mut svg, 0.0, y + ROW + 26.0, bold, "the store");
    text(&mut svg, 0.0, y + ROW + 42.0, "", "lines a second");
    let width = (WIDTH - LABELS - GAP * (all.len() as f64 - 1.0)) / all.len() as f64;
    for (index, played) in all.iter().enumerate() {
        let x = LABELS + (width + GAP) * index as f64;
        column(&mut svg, played, Chart { x, y, width });
        let seconds = played.world.seconds;
        for (at, anchor) in [(0, "start"), (1, "middle"), (2, "end")] {
            let anchor = format!("text-anchor=\"{anchor}\"");
            let words = format!("{} s", seconds * at / 2);
            let x = x + width * at as f64 / 2.0;
            text(&mut svg, x, height - 8.0, &anchor, &words);
        }
    }
    svg += "</svg>\n";
    svg
}

fn column(svg: &mut String, played: &Played, chart: Chart) {
    let Played { world, figures, .. } = played;
    let bold = "font-size=\"16\" font-weight=\"600\"";
    let [proxies, tenants] = [world.proxies, world.tenants].map(grouped);
    let name = format!("{proxies} proxies, {tenants} tenants");
    text(svg, chart.x, 74.0, bold, &name);
    let asked = format!(
        "asked {:.1} × the budgets; an equal part holds {} reservations",
        world.asked as f64 / 100.0,
        played.parts
    );
    text(svg, chart.x, 92.0, "font-size=\"12\"", &asked);
    panel(svg, &chart, &requests(figures));
    let left = figures.bar_left.iter().map(|left| *left as f64 / 1e6);
    chart.line(svg, std::iter::once(1.0).chain(left));
    let refused = figures.fates[Fate::RefusedWithRoom as usize];
    let words = format!(
        "{:.1} % spent; with more than 1 % left {:.2} % refused",
        100.0 * figures.spent as f64 / figures.budget.max(1) as f64,
        100.0 * refused as f64 / figures.early.max(1) as f64
    );
    text(
        svg,
        chart.x + 6.0,
        chart.y - 7.0,
        "font-weight=\"600\"",
        &words,
    );
    let below = Chart {
        y: chart.y + ROW,
        ..chart
    };
    panel(svg, &below, &lines(figures));
    let (mean, most) = figures.lines_a_second();
    let words = format!("{mean:.0} lines/s, {most} in the busiest second");
    text(
        svg,
        below.x + 6.0,
        below.y - 7.0,
        "font-weight=\"600\"",
        &words,
    );
}

fn panel(svg: &mut String, chart: &Chart, bars: &[Bar; BARS]) {
    let sums = bars.iter().map(|bar| bar.iter().sum::<u64>());
    chart.frame(svg);
    chart.bars(svg, bars, sums.max().unwrap_or_default().max(1));
}

fn requests(figures: &Figures) -> [Bar; BARS] {
    std::array::from_fn(|bar| figures.bars[bar])
}

fn lines(figures: &Figures) -> [Bar; BARS] {
    std::array::from_fn(|bar| [figures.bar_lines[bar], 0, 0, 0])
}

/// What colours, bars and the line mean.
fn legend(svg: &mut String) {
    let mut x = LABELS;
    let widths = [130.0, 220.0, 220.0, 0.0];
    for ((name, colour), width) in NAMES
        .iter()
        .zip(COLOURS.iter().chain([&REFUSED]))
        .zip(widths)
    {
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"6\" width=\"11\" height=\"11\" rx=\"2\" fill=\"{colour}\"/>"
        );
        text(svg, x + 16.0, 15.5, "", name);
        x += width;
    }
    let _ = writeln!(
        svg,
        "<path d=\"M{LABELS} 33h18\" stroke=\"{INK}\" stroke-width=\"2\"/>"
    );
    text(
        svg,
        LABELS + 24.0,
        37.0,
        "",
        "what is left of all budgets: full at the top, spent at the bottom. Each panel has its own scale",
    );
}
