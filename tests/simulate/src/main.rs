//! A day of LLM traffic through bursar's core, in virtual time: several tenants with uneven budgets, once with static low-water
//! marks and once with others, beside each other in a picture and a table.
//!
//!     simulate [TRACE.csv]      columns TIMESTAMP, ContextTokens, GeneratedTokens; else a day of its own
//!
//!     simulate --sweep [TRACE.csv]     a table of many settings instead
//!     simulate --lending [TRACE.csv]   only one budget for all tenants: fixed shares, guaranteed ones that are lent, and none
//!
//!     simulate --holds [TRACE.csv]     only what budgets hold: the most that requests may cost, and what is likely
//!
//!     simulate --global [TRACE.csv]    only budgets that proxies share: up to 1,000 proxies, with the script in a real Redis
//!
//!     simulate --global-large [TRACE.csv]   the same with 10,000 proxies and 100,000 tenants besides: some ten minutes
//!
//! It writes target/simulate/<name of the trace>.svg and .md, of one budget <name>-lending.svg and .md, of holds <name>-holds.md, and of
//! shared budgets <name>-global.svg and .md.

mod draw;
#[path = "../../support/engine.rs"]
#[allow(dead_code, reason = "its tests need more of it")]
mod engine;
mod global;
mod holds;
mod lending;
mod picture;
mod play;
#[path = "../../support/redis.rs"]
#[allow(dead_code, reason = "the script's tests need more of it")]
mod redis;
mod report;
#[path = "../../support/store.rs"]
mod store;
mod sweep;
mod tenants;
mod trace;

use std::path::Path;
use std::process::ExitCode;

use play::Day;
use serde_json::{Value, json};
use tenants::Request;

/// One way to configure all tenants.
pub struct Variant {
    pub name: &'static str,
    pub settings: Value,
}

/// The first two are what an operator writes without knowing the day. The others are its best static marks in steps of 0.05 (see
/// `--sweep`) of those that spend as much as pace does on our own day, and of those that refuse as few.
pub fn variants() -> [Variant; 4] {
    let marks = |standard, compact| json!({"below": {"standard": standard, "compact": compact}, "hysteresis": 0.05});
    let all = [
        ("static marks, 0.5 and 0.2", json!({})),
        (
            "pace, hysteresis 0.05",
            json!({"pace": {}, "hysteresis": 0.05}),
        ),
        ("0.65 and 0.45, hysteresis 0.05", marks(0.65, 0.45)),
        ("0.75 and 0.6, hysteresis 0.05", marks(0.75, 0.6)),
    ];
    all.map(|(name, settings)| Variant { name, settings })
}

/// So many of the variants are in the picture.
const DRAWN: usize = 2;

/// The name of the trace of our own.
const OWN: &str = "day";

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let is_flag = |word: &String| word.starts_with("--");
    let mode = words.first().is_some_and(is_flag).then(|| words.remove(0));
    let done = asked(words.first().map(String::as_str)).and_then(|(name, requests)| {
        println!("{name}: {} requests in a day\n", requests.len());
        match mode.as_deref() {
            None => {
                let days = played(&requests);
                write(&name, &report::table(&days), &days, &tenants::percents())?;
                lend(&name, &requests)
            }
            Some("--lending") => lend(&name, &requests),
            Some("--holds") => hold(&name, &requests),
            Some("--global") => share(&name, &requests, false),
            Some("--global-large") => share(&name, &requests, true),
            Some("--sweep") => {
                sweep::print(&requests);
                Ok(())
            }
            Some(other) => Err(format!(
                "{other}: --sweep, --lending, --holds, --global, --global-large or nothing"
            )),
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The day with one budget for all tenants.
fn lend(name: &str, requests: &[Request]) -> Result<(), String> {
    let days = lending::played(requests);
    let percents = lending::percents(requests);
    write(
        &format!("{name}-lending"),
        &lending::table(&days),
        &days,
        &percents,
    )
}

/// The day in both modes of holds.
fn hold(name: &str, requests: &[Request]) -> Result<(), String> {
    let table = holds::table(&holds::played(requests, &holds::ASSUMED));
    println!("{table}");
    put(&format!("{name}-holds.md"), &table)
}

/// Windows of budgets that proxies share.
fn share(name: &str, requests: &[Request], is_large: bool) -> Result<(), String> {
    let windows = global::played(requests, is_large);
    let table = global::table(name, &windows);
    println!("{table}");
    put(&format!("{name}-global.md"), &table)?;
    put(
        &format!("{name}-global.svg"),
        &global::picture::draw(&windows[..global::DRAWN]),
    )
}

/// The day's name and its requests.
fn asked(path: Option<&str>) -> Result<(String, Vec<Request>), String> {
    let Some(path) = path else {
        return Ok((OWN.to_owned(), tenants::spread(&trace::synthetic())));
    };
    let told = |error: String| format!("{path}: {error}");
    let text = std::fs::read_to_string(path).map_err(|error| told(error.to_string()))?;
    let rows = trace::over_a_day(&trace::read(&text).map_err(told)?);
    let name = Path::new(path).file_stem().unwrap_or_default();
    Ok((name.to_string_lossy().into_owned(), tenants::spread(&rows)))
}

/// Prints the table, and writes it and the picture.
fn write(name: &str, table: &str, days: &[(&str, Day)], budgets: &[u64]) -> Result<(), String> {
    println!("{table}");
    put(&format!("{name}.md"), table)?;
    put(
        &format!("{name}.svg"),
        &picture::draw(&days[..DRAWN], budgets),
    )
}

fn put(file: &str, text: &str) -> Result<(), String> {
    let directory = Path::new("target/simulate");
    std::fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    let path = directory.join(file);
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    println!("written: {}", path.display());
    Ok(())
}

/// The day under each variant. It takes minutes, so every sixth hour of a day is a line.
fn played(requests: &[Request]) -> Vec<(&'static str, Day)> {
    let all = variants();
    let of = all.len();
    let played = all.iter().zip(1..).map(|(variant, number)| {
        let name = variant.name;
        eprintln!("{number} of {of}: {name}");
        let passed = |hour: u64| {
            if hour.is_multiple_of(6) {
                eprintln!("{number} of {of}: {name}, {hour}:00");
            }
        };
        (name, play::day(requests, &variant.settings, passed))
    });
    played.collect()
}

#[cfg(test)]
mod tests;
