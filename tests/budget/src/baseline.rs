//! The committed baseline: a table, one scenario a line.

use std::collections::BTreeMap;

use crate::proxy::{Cost, Fault};

/// How the names of scenarios end whose limits are one for all proxies. The others of these names have them for each proxy.
const SHARED: &str = "-shared";

const HEAD: [&str; 4] = ["scenario", "instructions", "host_calls", "bytes_copied"];

/// Instructions, host calls and bytes of a scenario.
pub type Figures = [u64; 3];

fn figures(cost: &Cost) -> Figures {
    [cost.instructions, cost.calls.values().sum(), cost.bytes]
}

fn line(cells: [&str; 4]) -> String {
    let [name, instructions, calls, bytes] = cells;
    format!("{name:<22} {instructions:>12} {calls:>10} {bytes:>12}")
}

/// The table as it is committed.
pub fn table(measured: &[(&str, Cost)]) -> String {
    let rows = measured.iter().map(|(name, cost)| {
        let [instructions, calls, bytes] = figures(cost).map(|figure| figure.to_string());
        line([name, &instructions, &calls, &bytes])
    });
    std::iter::once(line(HEAD))
        .chain(rows)
        .map(|row| row + "\n")
        .collect()
}

/// Reads it back.
pub fn read(text: &str) -> Result<BTreeMap<String, Figures>, Fault> {
    let row = |row: &str| {
        let cells: Vec<&str> = row.split_whitespace().collect();
        let [name, instructions, calls, bytes] = cells.as_slice() else {
            return Err(format!("baseline.txt: `{row}` has not four columns").into());
        };
        let figures = [instructions.parse()?, calls.parse()?, bytes.parse()?];
        Ok(((*name).to_owned(), figures))
    };
    text.lines().skip(1).map(row).collect()
}

/// The table beside the baseline, and whether all of it is within the budget.
pub fn compare(measured: &[(&str, Cost)], before: &BTreeMap<String, Figures>) -> (String, bool) {
    let mut report = line(HEAD) + "\n";
    let mut all_within = true;
    for (name, cost) in measured {
        let now = figures(cost);
        let [instructions, calls, bytes] = now.map(|figure| figure.to_string());
        let verdict = match before.get(*name) {
            None => Err("not in the baseline".to_owned()),
            Some(before) => judge(now, *before),
        };
        let twin = name.strip_suffix(SHARED).and_then(|twin| {
            let mut all = measured.iter();
            all.find(|(name, _)| *name == twin)
        });
        let beside = twin.map(|(_, cost)| beside(now, figures(cost)));
        let beside = beside.unwrap_or_default();
        all_within &= verdict.is_ok();
        let verdict = verdict.unwrap_or_else(|fault| format!("OVER: {fault}"));
        let row = line([name, &instructions, &calls, &bytes]) + "  " + &beside + &verdict;
        report += row.trim_end();
        report.push('\n');
    }
    (report, all_within)
}

/// What it costs more than the same with limits of each proxy's own.
fn beside(shared: Figures, own: Figures) -> String {
    format!(
        "({:+.1} %, {:+} calls beside limits of its own) ",
        (shared[0] as f64 - own[0] as f64) / own[0].max(1) as f64 * 100.0,
        shared[1] as i64 - own[1] as i64,
    )
}

/// What changed.
fn judge(now: Figures, before: Figures) -> Result<String, String> {
    let change = |index: usize| {
        (now[index] as f64 - before[index] as f64) / before[index].max(1) as f64 * 100.0
    };
    let words = format!(
        "{:+.1} % instructions, {:+} host calls, {:+.1} % bytes",
        change(0),
        now[1] as i64 - before[1] as i64,
        change(2),
    );
    let is_more = |index: usize| now[index] > before[index] + before[index] / 20;
    match now == before {
        _ if is_more(0) || is_more(2) || now[1] > before[1] => Err(words),
        true => Ok(String::new()),
        false => Ok(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_percent_and_no_host_call_more_are_within() {
        assert_eq!(judge([100, 4, 20], [100, 4, 20]), Ok(String::new()));
        assert!(judge([105, 3, 21], [100, 4, 20]).is_ok());
        assert!(judge([106, 4, 20], [100, 4, 20]).is_err());
        assert!(judge([50, 5, 20], [100, 4, 20]).is_err());
        assert!(judge([100, 4, 22], [100, 4, 20]).is_err());
    }

    #[test]
    fn a_table_reads_back_and_a_scenario_that_it_lacks_is_over() {
        let cost = Cost {
            instructions: 7,
            callbacks: BTreeMap::new(),
            calls: [("proxy_log", 2), ("proxy_done", 1)].into(),
            bytes: 5,
        };
        let before = read(&table(&[("held", cost.clone())])).unwrap();
        assert_eq!(before["held"], [7, 3, 5]);
        assert!(compare(&[("held", cost.clone())], &before).1);
        assert!(!compare(&[("other", cost)], &before).1);
        assert!(read("head\nheld 1 2").is_err());
    }
}
