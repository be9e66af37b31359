//! The fuzz targets as plain tests: the inputs that are kept, those made of the providers' wires, and so many made of both by
//! chance, the same at each run. `make fuzz` goes on from there, led by what the code covers.
#![cfg(not(target_arch = "wasm32"))]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a failed check is a finding"
)]

#[path = "support/frames.rs"]
mod frames;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "fuzz/seeds.rs"]
mod seeds;
#[path = "support/store.rs"]
mod store;
#[path = "fuzz/targets/mod.rs"]
mod targets;

use std::path::Path;

/// Inputs made by chance, for each target.
const INPUTS: u64 = 1_000;

/// Runs the target; tells what it failed on.
#[track_caller]
fn run(name: &str, target: fn(&[u8])) {
    let mut inputs = seeds::seeds(name);
    assert!(!inputs.is_empty());
    inputs.extend(kept(name));
    if let Some(folder) = std::env::var_os("BURSAR_WRITE_SEEDS") {
        write(&Path::new(&folder).join(name), &inputs);
    }
    let mut chance = Chance(0);
    for at in 0..inputs.len() as u64 + INPUTS {
        let input = match inputs.get(at as usize) {
            Some(input) => input.clone(),
            None => chance.changed(&inputs),
        };
        let outcome = std::panic::catch_unwind(|| target(&input));
        assert!(outcome.is_ok(), "{name} fails on {}", input.escape_ascii());
    }
}

/// The inputs in `tests/fuzz/corpus`, a line for each: those that covered something new, and those that failed once.
fn kept(name: &str) -> Vec<Vec<u8>> {
    let file = format!("tests/fuzz/corpus/{name}.txt");
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    text.lines().map(unescaped).collect()
}

/// The bytes that `escape_ascii` writes like this.
fn unescaped(line: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), line.as_bytes());
    while let Some((&byte, tail)) = rest.split_first() {
        let (byte, length) = match (byte, tail) {
            (b'\\', [b'x', ..]) => (
                u8::from_str_radix(std::str::from_utf8(&tail[1..3]).unwrap(), 16).unwrap(),
                3,
            ),
            (b'\\', [b't', ..]) => (b'\t', 1),
            (b'\\', [b'n', ..]) => (b'\n', 1),
            (b'\\', [b'r', ..]) => (b'\r', 1),
            (b'\\', [escaped, ..]) => (*escaped, 1),
            _ => (byte, 0),
        };
        bytes.push(byte);
        rest = &tail[length..];
    }
    bytes
}

/// For libFuzzer, a file for each.
fn write(folder: &Path, inputs: &[Vec<u8>]) {
    std::fs::create_dir_all(folder).unwrap();
    for (at, input) in inputs.iter().enumerate() {
        std::fs::write(folder.join(format!("{at:04}")), input).unwrap();
    }
}

/// Numbers that look like chance and are the same at each run (SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) as usize % limit.max(1)
    }

    /// One of the inputs with a few changes: bytes that are others, gone, doubled, or come from another input.
    fn changed(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut input = inputs[self.below(inputs.len())].clone();
        for _ in 0..=self.below(4) {
            let (from, length) = (self.below(input.len()), self.below(16));
            let until = (from + length).min(input.len());
            match self.below(5) {
                0 if from < until => input[from] = self.below(256) as u8,
                1 if from < until => input[from] = b"{}[]\",:\\ \n\r"[self.below(11)],
                2 => drop(input.drain(from..until)),
                3 => {
                    let again = input[from..until].to_vec();
                    input.splice(from..from, again);
                }
                _ => {
                    let other = &inputs[self.below(inputs.len())];
                    let at = self.below(other.len());
                    let part = other[at..(at + length).min(other.len())].to_vec();
                    input.splice(from..until, part);
                }
            }
        }
        input
    }
}

#[test]
fn json() {
    run("json", targets::json::run);
}

#[test]
fn sse() {
    run("sse", targets::sse::run);
}

#[test]
fn eventstream() {
    run("eventstream", targets::eventstream::run);
}

#[test]
fn path() {
    run("path", targets::path::run);
}

#[test]
fn request() {
    run("request", targets::request::run);
}

#[test]
fn response() {
    run("response", targets::response::run);
}

#[test]
fn config() {
    run("config", targets::config::run);
}

#[test]
fn latency() {
    run("latency", targets::latency::run);
}

#[test]
fn record() {
    run("record", targets::record::run);
}

#[test]
fn trim() {
    run("trim", targets::trim::run);
}
