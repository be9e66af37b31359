//! Says whether a plugin configuration is good, by bursar's own parser: `make check CONFIG=my.json`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a command")]

use std::process::ExitCode;

use bursar::config::Config;

fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: check FILE");
        return ExitCode::FAILURE;
    };
    let read = std::fs::read(&path).map_err(|error| format!("{path}: {error}"));
    let parsed = read.and_then(|text| Config::parse(&text).map_err(|error| error.to_string()));
    match parsed {
        Ok(config) => {
            for warning in config.warnings() {
                println!("warning: {warning}");
            }
            let tiers = config
                .ladders
                .iter()
                .map(|ladder| ladder.tiers.len())
                .sum::<usize>();
            println!(
                "{path} is good: {} tenants, {tiers} tiers",
                config.tenants()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
