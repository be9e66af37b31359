//! What a request costs, counted: instructions, host calls, and bytes that cross between module and proxy.
//!
//! It runs the module that ships, `target/bursar.wasm`, in Wasmtime, before a stand-in proxy, and compares with
//! `baseline.txt`. Over 5 % more instructions or bytes, or one host call more, is a fault; `make budget ACCEPT=1` takes what is there
//! as the new baseline. The module's size is a row of its own: the larger it is, the longer V8 compiles it at the proxy's start.
//! Over 1 MiB it is a fault whatever it was before.
//!
//! **Why not the core natively, under callgrind?** What is counted here is the artefact itself: edge and core, as the
//! optimiser left them, with the allocator and the SIMD that it has in the proxy. The count is of WebAssembly instructions (Wasmtime's
//! fuel), so it is the same on every machine, whatever its processor or load, and needs no tool but cargo. And the host calls, which cost
//! more than the core at 2 KB (see `src/host.rs`), are counted too, which no native build of the core knows of.
//!
//! **What it is not** is time: V8 compiles the module, an instruction is worth more or less than another one, and a host call costs
//! 0.1 to 0.9 µs beside it. `make bench` measures time.

mod baseline;
mod features;
mod messages;
#[allow(
    dead_code,
    reason = "tests/differential borrows it, and uses other parts"
)]
mod proxy;
mod scenarios;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use proxy::{Compiled, Cost, Fault};

/// Most bytes that the module may have, whatever the baseline says: a ConfigMap holds 1 MiB.
const MOST_BYTES: u64 = 1024 * 1024;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => {
            eprintln!("budget: {fault}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything is within the budget.
fn run() -> Result<bool, Fault> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_given = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let wanted = |name: &str| {
        let mut names = arguments.iter().filter(|name| !name.starts_with("--"));
        names.clone().next().is_none() || names.any(|wanted| name.contains(wanted.as_str()))
    };
    let path = root().join("target/bursar.wasm");
    let module = Compiled::read(&path)
        .map_err(|error| format!("target/bursar.wasm: {error} (make wasm)"))?;
    if is_given("--features") {
        print!("{}", features::table(&features::measure(&module)?));
        return Ok(true);
    }
    let size = std::fs::metadata(&path)?.len();
    let mut measured = vec![("module-size", of_size(size))];
    let all = scenarios::all();
    for scenario in all.iter().filter(|scenario| wanted(scenario.name)) {
        let cost = scenario
            .measure(&module)
            .map_err(|fault| format!("{}: {fault}", scenario.name))?;
        if is_given("--calls") {
            println!("{}", scenario.name);
            cost.callbacks
                .iter()
                .for_each(|(name, count)| println!("  {count:9}  instructions in {name}"));
            cost.calls
                .iter()
                .for_each(|(name, count)| println!("  {count:9}  {name}"));
        }
        measured.push((scenario.name, cost));
    }
    let file = root().join("tests/budget/baseline.txt");
    if is_given("--accept") {
        if measured.len() <= all.len() {
            return Err("only all of it can be the new baseline".into());
        }
        std::fs::write(&file, baseline::table(&measured))?;
    }
    let before = baseline::read(&std::fs::read_to_string(&file).unwrap_or_default())?;
    let (report, is_within) = baseline::compare(&measured, &before);
    print!("{report}");
    if !is_within {
        println!(
            "\nOver the budget (5 %, and no host call more). If that is what it must cost: make budget ACCEPT=1"
        );
    }
    if size > MOST_BYTES {
        println!("\nThe module has {size} bytes, and may have {MOST_BYTES}.");
    }
    Ok(is_within && size <= MOST_BYTES)
}

/// The module itself, which runs nothing: its size stands where the others have the bytes that they copy.
fn of_size(bytes: u64) -> Cost {
    Cost {
        instructions: 0,
        callbacks: BTreeMap::new(),
        calls: BTreeMap::new(),
        bytes,
    }
}

/// The repository.
fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
