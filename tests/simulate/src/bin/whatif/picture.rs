//! The picture: what was spent, refused and lowered so far, before and after, over the time of the log.
//!
//! Its background is transparent and its colours are of middling lightness, so that it can be read on white and on black.

use std::fmt::Write;

use crate::figures::{Sum, dollars};
use crate::log::Entry;
use crate::play::Outcome;

const WIDTH: f64 = 1_000.0;
const LEFT: f64 = 110.0;
const HEAD: f64 = 40.0;
const ROW: f64 = 120.0;
const CHART: f64 = 90.0;
const STEPS: usize = 200;
const INK: &str = "#7d8590";
const AFTER: &str = "#3b82f6";

/// What a chart is of: its name, its value, and how that is written.
struct Row(&'static str, fn(&Sum) -> u64, fn(u64) -> String);

/// The sums after each step of the log's time, before and after.
fn course(entries: &[Entry], saved: &[u64], outcomes: &[Outcome]) -> [Vec<Sum>; 2] {
    let nanos = |entry: Option<&Entry>| entry.map_or(0, |entry| entry.at.as_nanos());
    let (first, last) = (nanos(entries.first()), nanos(entries.last()));
    let length = (last - first).max(1);
    let mut steps = [vec![Sum::default(); STEPS], vec![Sum::default(); STEPS]];
    for ((entry, saved), outcome) in entries.iter().zip(saved).zip(outcomes) {
        let gone = u128::from(entry.at.as_nanos() - first) * (STEPS as u128 - 1);
        let step = (gone / u128::from(length)) as usize;
        steps[0][step].add(entry.fate, entry.spend, *saved);
        steps[1][step].add(outcome.fate, outcome.spend, outcome.saved);
    }
    for steps in &mut steps {
        let mut sum = Sum::default();
        for step in steps {
            sum.refused += step.refused;
            sum.lowered += step.lowered;
            sum.spent += step.spent;
            sum.saved += step.saved;
            *step = sum;
        }
    }
    steps
}

/// Everything as one SVG.
pub fn draw(entries: &[Entry], saved: &[u64], outcomes: &[Outcome]) -> String {
    let courses = course(entries, saved, outcomes);
    let rows = [
        Row("spent", |sum| sum.spent, dollars),
        Row("saved", |sum| sum.saved, dollars),
        Row("refused", |sum| sum.refused, |count| count.to_string()),
        Row("lowered", |sum| sum.lowered, |count| count.to_string()),
    ];
    let height = HEAD + ROW * rows.len() as f64 + 24.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui, -apple-system, Segoe UI, \
         Helvetica, Arial, DejaVu Sans, sans-serif\" font-size=\"12\" fill=\"{INK}\">\n"
    );
    for (x, colour, name) in [
        (LEFT, INK, "as it was"),
        (LEFT + 130.0, AFTER, "as it would have been"),
    ] {
        let _ = writeln!(
            svg,
            "<path d=\"M{x} 16h18\" stroke=\"{colour}\" stroke-width=\"3\"/><text x=\"{}\" y=\"20\">{name}, summed up</text>",
            x + 24.0
        );
    }
    for (number, &Row(name, value, words)) in rows.iter().enumerate() {
        let top = HEAD + ROW * number as f64;
        let bottom = top + CHART;
        let most = courses
            .iter()
            .flatten()
            .map(value)
            .max()
            .unwrap_or_default();
        let _ = writeln!(
            svg,
            "<text x=\"0\" y=\"{:.1}\" font-size=\"14\" font-weight=\"600\">{name}</text>",
            top + 20.0
        );
        for (course, (colour, down)) in courses.iter().zip([(INK, 40.0), (AFTER, 58.0)]) {
            let last = course.last().map(value).unwrap_or_default();
            let _ = writeln!(
                svg,
                "<text x=\"0\" y=\"{:.1}\" fill=\"{colour}\">{}</text>",
                top + down,
                words(last)
            );
            let mut points = String::new();
            for (step, sum) in course.iter().enumerate() {
                let x = LEFT + (WIDTH - LEFT) * step as f64 / (STEPS - 1) as f64;
                let y = bottom - CHART * value(sum) as f64 / most.max(1) as f64;
                let _ = write!(points, "{x:.1},{y:.1} ");
            }
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                points.trim_end()
            );
        }
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {bottom:.1}H{WIDTH}\" stroke=\"{INK}\" stroke-opacity=\"0.5\"/>"
        );
    }
    for (entry, x, anchor) in [
        (entries.first(), LEFT, "start"),
        (entries.last(), WIDTH, "end"),
    ] {
        let when = entry.map_or_else(String::new, |entry| entry.at.rfc_3339());
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{when}</text>",
            height - 8.0
        );
    }
    svg += "</svg>\n";
    svg
}
