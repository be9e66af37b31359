//! Random exchanges through two builds of the module: what goes upstream, what the client gets, log fields and metrics must be the
//! same. For whoever rewrites something and wants to know that nobody will notice.
//!
//!     differential BEFORE.wasm AFTER.wasm [--exchanges 20000] [--seed 1] [--show 10]
//!
//! Exchanges are made of the recorded ones in `tests/wire`, changed by chance: configuration, tenant, model, chunks, keys that are
//! taken out or doubled, answers that are cut off. Both modules see the same clock and the same randomness. Differences are counted by
//! kind, and the first ones are shown; what is meant to differ is for a person to tell.

#[path = "../../budget/src/proxy.rs"]
#[allow(
    dead_code,
    reason = "tests/budget counts with it, and uses other parts"
)]
mod proxy;

mod chance;
mod compare;
mod sessions;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use chance::Chance;
use proxy::{Compiled, Fault, Outcome, Vm};
use sessions::Wires;

/// Exchanges that share two VMs, so that their tenants' budgets run out.
const IN_A_SESSION: usize = 40;

struct Arguments {
    before: String,
    after: String,
    exchanges: usize,
    seed: u64,
    show: usize,
}

fn arguments() -> Result<Arguments, Fault> {
    let mut files = Vec::new();
    let mut numbers = BTreeMap::from([("--exchanges", 20_000), ("--seed", 1), ("--show", 10)]);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match numbers.get_mut(word.as_str()) {
            Some(number) => *number = words.next().ok_or("a number is missing")?.parse()?,
            None => files.push(word),
        }
    }
    let [before, after] = <[String; 2]>::try_from(files)
        .map_err(|_| "differential BEFORE.wasm AFTER.wasm [--exchanges N] [--seed N] [--show N]")?;
    Ok(Arguments {
        before,
        after,
        exchanges: usize::try_from(numbers["--exchanges"])?,
        seed: numbers["--seed"],
        show: usize::try_from(numbers["--show"])?,
    })
}

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(fault) => {
            eprintln!("differential: {fault}");
            ExitCode::FAILURE
        }
    }
}

/// How many exchanges differ.
fn run() -> Result<usize, Fault> {
    let arguments = arguments()?;
    let read = |path: &str| {
        Compiled::read(Path::new(path)).map_err(|fault| Fault::from(format!("{path}: {fault}")))
    };
    let modules = [read(&arguments.before)?, read(&arguments.after)?];
    let wires = Wires::read()?;
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let mut decisions: BTreeMap<String, usize> = BTreeMap::new();
    let (mut done, mut different) = (0, 0);
    let mut session = 0;
    while done < arguments.exchanges {
        let mut chance = Chance::new(arguments.seed.wrapping_add(session));
        session += 1;
        let configuration = sessions::configuration(&mut chance);
        let mut vms = Vec::new();
        for module in &modules {
            let (mut vm, _) = Vm::configured(module, &configuration.to_string())?;
            vm.freeze_clock();
            vms.push(vm);
        }
        for number in 0..IN_A_SESSION {
            done += 1;
            let exchange = wires.exchange(&mut chance);
            let outcomes = vms.iter_mut().map(|vm| exchange.through(vm));
            let outcomes: Vec<_> = outcomes.collect::<Result<_, _>>()?;
            *decisions.entry(decision(&outcomes[0])).or_default() += 1;
            let found = compare::outcomes(&outcomes[0], &outcomes[1])
                .or_else(|| compare::metrics(vms[0].metrics(), vms[1].metrics()));
            if let Some(found) = found {
                different += 1;
                *kinds
                    .entry(format!("{}: {}", exchange.api, found.kind))
                    .or_default() += 1;
                if different <= arguments.show {
                    println!(
                        "seed {} exchange {number}: {exchange}\n  {}\n    before {}\n    after  {}\n  under {configuration}\n",
                        arguments.seed.wrapping_add(session - 1),
                        found.kind,
                        found.before,
                        found.after
                    );
                }
                // What follows from one difference is none of its own.
                break;
            }
        }
    }
    println!("{done} exchanges, {different} differ");
    println!("what became of them before:");
    for (decision, count) in &decisions {
        println!("{count:7}  {decision}");
    }
    if different > 0 {
        println!("what differs first:");
    }
    for (kind, count) in &kinds {
        println!("{count:7}  {kind}");
    }
    Ok(different)
}

/// Status, decision, reason and source of the settlement: what the exchanges cover.
fn decision(outcome: &Outcome) -> String {
    let field = |name: &str| outcome.fields.get(name).map_or("-", String::as_str);
    let fields = ["bursar_decision", "bursar_reason", "bursar_settled_by"].map(field);
    format!("{} {}", outcome.status, fields.join(" "))
}
