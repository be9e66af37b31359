//! What would have become of an access log's requests under another configuration.
//!
//!     whatif access.log new.json
//!
//! It plays them through bursar's core, each at its time, and tells what was refused, lowered, spent and saved, before and after: as a
//! table, and as a picture. It writes target/whatif/<name of the log>.svg and .md.

mod figures;
mod log;
mod picture;
mod play;
#[path = "../../../../support/store.rs"]
mod store;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.as_slice() {
        [log, config] => compare(log, config),
        _ => Err("name a log and a configuration: whatif access.log new.json".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(log: &str, config: &str) -> Result<(), String> {
    let read =
        |path: &str| std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    let (entries, left_out) = log::read(&read(log)?);
    if entries.is_empty() {
        return Err(format!(
            "{log}: no line is of a metered request, as bursar's shipped access log writes it"
        ));
    }
    if left_out > 0 {
        eprintln!("{left_out} lines are of no metered request, and are left out");
    }
    let told = |error| format!("{config}: {error}");
    let text = read(config)?;
    let config = play::configuration(&text).map_err(told)?;
    let saved: Vec<u64> = entries
        .iter()
        .map(|entry| play::saved(entry, &config))
        .collect();
    let outcomes = play::play(&entries, config);
    let table = figures::table(&figures::by_tenant(&entries, &saved, &outcomes), &outcomes);
    println!("Before → after:\n\n{table}");
    let name = Path::new(log)
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy();
    let directory = Path::new("target/whatif");
    std::fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    for (ending, text) in [
        ("md", &table),
        ("svg", &picture::draw(&entries, &saved, &outcomes)),
    ] {
        let path = directory.join(format!("{name}.{ending}"));
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("written: {}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
