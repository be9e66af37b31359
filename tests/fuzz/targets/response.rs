//! [`bursar::usage`]: an answer of any type and any wire says the same, and goes on as the same bytes, in any chunking.

use bursar::tier::Price;
use bursar::units::Tokens;
use bursar::usage::{Reader, Usage};

use super::input::Input;
use super::wires::{endpoint, headers, path};

const TYPES: [&str; 4] = [
    "application/json",
    "text/event-stream; charset=utf-8",
    "application/vnd.amazon.eventstream",
    "",
];
const DEAR: Price = Price {
    input: u64::MAX,
    cached_input: u64::MAX,
    cache_write: u64::MAX,
    output: u64::MAX,
};

/// What was reported and whether that is final, the output by estimate, and what the client gets.
type Outcome = (Option<Usage>, bool, Tokens, Vec<u8>);

pub fn run(data: &[u8]) {
    let Some(input) = Input::read(data) else {
        return;
    };
    let whole = read(&input, &[input.bytes]);
    check(&input, &whole);
    for chunks in input.chunkings(input.bytes) {
        assert_eq!(read(&input, &chunks), whole);
    }
}

fn read(input: &Input<'_>, chunks: &[&[u8]]) -> Outcome {
    let wire = endpoint(path(input.choice).as_bytes()).unwrap().wire;
    let kind = TYPES[usize::from(input.flag(0)) + 2 * usize::from(input.flag(1))];
    let mut list: Vec<(&str, &[u8])> = vec![("content-type", kind.as_bytes())];
    if input.flag(2) {
        list.push(("content-encoding", b"identity"));
    }
    if input.flag(4) {
        list.push(("x-amzn-bedrock-input-token-count", b"7"));
        list.push((
            "x-amzn-bedrock-cache-read-input-token-count",
            b"18446744073709551615",
        ));
    }
    let mut reader = Reader::new(wire, &headers(&list), input.flag(3));
    let mut output = Vec::new();
    for &chunk in chunks {
        output.extend(reader.feed(chunk, false).unwrap_or_else(|| chunk.to_vec()));
    }
    output.extend(reader.feed(b"", !input.flag(5)).unwrap_or_default());
    let (usage, is_final) = reader.reported();
    (usage, is_final, reader.estimated_output(), output)
}

fn check(input: &Input<'_>, (usage, _, estimate, output): &Outcome) {
    assert!(estimate.0 <= input.bytes.len() as u64 + 1);
    let is_stream = input.flag(0) && !input.flag(1);
    let drops = is_stream && input.flag(3);
    // Only events that carry usage are taken out; one that is cut off is kept back.
    if usage.is_none() {
        assert!(input.bytes.starts_with(output));
    }
    if !drops || usage.is_none() && !input.flag(5) {
        assert_eq!(output, input.bytes);
    }
    if let Some(usage) = usage {
        let of = |tokens: Option<Tokens>| tokens.unwrap_or_default().0;
        let parts = u128::from(of(usage.cached_input)) + u128::from(of(usage.cache_write));
        assert!(parts <= u128::from(of(usage.input)), "{usage:?}");
        let cost = usage.cost(Some(&DEAR));
        assert!(cost.tokens.0 >= of(usage.input).max(of(usage.output)));
        assert!(cost.usd.0 >= cost.tokens.0);
    }
}
