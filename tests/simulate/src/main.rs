//! A day of LLM traffic through bursar's core, in virtual time: several tenants with uneven budgets, once with static low-water
//! marks and once with others, beside each other in a picture and a table.
//!
//!     simulate [TRACE.csv]      columns TIMESTAMP, ContextTokens, GeneratedTokens; else a day of its own
//!
//! It writes target/simulate/<name of the trace>.svg and .md.

mod draw;
mod picture;
mod play;
mod report;
#[path = "../../support/store.rs"]
mod store;
mod tenants;
mod trace;

use std::path::Path;
use std::process::ExitCode;

use play::Day;
use serde_json::{Value, json};
use tenants::Request;

/// One way to configure the plan that all tenants are on.
pub struct Variant {
    pub name: &'static str,
    pub plan: Value,
}

pub fn variants() -> [Variant; 2] {
    [
        Variant {
            name: "static marks",
            plan: json!({}),
        },
        Variant {
            name: "a higher last mark",
            plan: json!({"low_water_mark": 0.5}),
        },
    ]
}

/// The name of the trace of our own.
const OWN: &str = "day";

fn main() -> ExitCode {
    match run(std::env::args().nth(1).as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(path: Option<&str>) -> Result<(), String> {
    let (name, requests) = match path {
        None => (OWN.to_owned(), tenants::spread(&trace::synthetic())),
        Some(path) => {
            let told = |error: String| format!("{path}: {error}");
            let text = std::fs::read_to_string(path).map_err(|error| told(error.to_string()))?;
            let rows = trace::over_a_day(&trace::read(&text).map_err(told)?);
            let name = Path::new(path).file_stem().unwrap_or_default();
            (name.to_string_lossy().into_owned(), tenants::spread(&rows))
        }
    };
    let days = played(&requests);
    let table = report::table(&days);
    println!("{name}: {} requests in a day\n\n{table}", requests.len());
    let directory = Path::new("target/simulate");
    let write = |ending: &str, text: &str| {
        let path = directory.join(format!("{name}.{ending}"));
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("written: {}", path.display());
        Ok::<(), String>(())
    };
    std::fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    write("md", &table)?;
    write("svg", &picture::draw(&days))
}

/// The day under each variant.
fn played(requests: &[Request]) -> Vec<(&'static str, Day)> {
    variants()
        .iter()
        .map(|variant| (variant.name, play::day(requests, &variant.plan)))
        .collect()
}

#[cfg(test)]
mod tests;
