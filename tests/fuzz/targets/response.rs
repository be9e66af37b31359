//! [`bursar::provider::usage`]: an answer of any type and any wire says the same, and goes on as the same bytes, in any chunking.

use bursar::base::units::Tokens;
use bursar::provider::usage::UsageReader;
use bursar::tier::{self, Price, Rates};
use bursar::usage::Usage;

use super::input::Input;
use super::wires::{endpoint, headers, path};

const TYPES: [&str; 8] = [
    "application/json",
    "text/event-stream; charset=utf-8",
    "application/vnd.amazon.eventstream",
    "",
    "text/plain; charset=utf-8",
    "text/html",
    "application/octet-stream",
    "x",
];
const DEAR: Rates = Rates {
    input: u64::MAX,
    cached_input: u64::MAX,
    cache_write: u64::MAX,
    cache_write_1h: u64::MAX,
    output: u64::MAX,
};

/// What was reported and whether that is final, the output by estimate, whether it is no answer and whose it is, and what the
/// client gets.
type Outcome = (Option<Usage>, bool, Tokens, (bool, Option<String>), Vec<u8>);

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
    let bits = [0, 1, 6].map(|flag| usize::from(input.flag(flag)));
    let kind = TYPES[bits[0] + 2 * bits[1] + 4 * bits[2]];
    let mut list: Vec<(&str, &[u8])> = vec![("content-type", kind.as_bytes())];
    if input.flag(2) {
        list.push(("content-encoding", b"identity, none"));
    }
    if input.flag(7) {
        list.push(("content-length", b"9"));
    }
    if input.flag(4) {
        list.push(("x-amzn-bedrock-input-token-count", b"7"));
        list.push((
            "x-amzn-bedrock-cache-read-input-token-count",
            b"18446744073709551615",
        ));
    }
    let mut reader = UsageReader::new(wire, &headers(&list), input.flag(3));
    let mut output = Vec::new();
    for &chunk in chunks {
        output.extend(reader.feed(chunk, false).unwrap_or_else(|| chunk.to_vec()));
    }
    output.extend(reader.feed(b"", !input.flag(5)).unwrap_or_default());
    let (usage, is_final) = reader.reported();
    let estimate = reader.estimated_output();
    let of = (
        reader.is_no_answer(),
        reader.served_model().map(str::to_owned),
    );
    (usage, is_final, estimate, of, output)
}

fn check(input: &Input<'_>, (usage, _, estimate, (is_no_answer, _), output): &Outcome) {
    // Nothing but what is reported is more than what came.
    let reported = usage.and_then(|usage| usage.output).unwrap_or_default();
    assert!(estimate.0 <= (input.bytes.len() as u64 + 1).saturating_add(reported.0));
    // Nothing is added, and nothing but events is taken out.
    let mut rest = input.bytes.iter();
    assert!(output.iter().all(|byte| rest.any(|other| other == byte)));
    let is_stream = input.flag(0) && !input.flag(1) && !input.flag(6);
    if !input.flag(3) || input.flag(7) && !is_stream {
        assert_eq!(output, input.bytes);
    }
    assert!(!is_no_answer || usage.is_none() && estimate.0 == 0);
    if let Some(usage) = usage {
        let of = |tokens: Option<Tokens>| tokens.unwrap_or_default().0;
        let parts = u128::from(of(usage.cached_input)) + u128::from(of(usage.cache_write));
        assert!(parts <= u128::from(of(usage.input)), "{usage:?}");
        let cost = tier::cost(usage, Some(&Price::from(DEAR)));
        assert!(cost.tokens.0 >= of(usage.input).max(of(usage.output)));
        assert!(cost.usd.0 >= cost.tokens.0);
    }
}
