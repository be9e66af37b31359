//! Bodies and streams, in any chunking.

use bursar::body::sse::{EventFilter, Events, Verdict};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::chunks;
use crate::proxy::Proxy;

/// Any JSON value, keys such as `model` and awkward strings among them.
fn any_json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "model|stream|n|[{}\\[\\]\",:\\\\ é🎉]{0,6}",
        any::<String>()
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.clone().prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(text.clone(), inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

/// Collects events; every second one is to be taken out.
#[derive(Default)]
struct Seen(Vec<Vec<u8>>, Vec<u8>);

impl EventFilter for Seen {
    fn data(&mut self, bytes: &[u8]) {
        self.1.extend(bytes);
    }

    fn end(&mut self) -> Verdict {
        self.0.push(std::mem::take(&mut self.1));
        if self.0.last().unwrap().len().is_multiple_of(2) {
            Verdict::Keep
        } else {
            Verdict::Drop
        }
    }
}

fn config(hold: bool) -> Value {
    json!({
        "hold_headers": hold,
        "tiers": [{"name": "a", "model": "big"}, {"name": "b", "model": "a \"small\" one".replace([' ', '"'], "-"), "below": 1}],
        "tenants": {"acme": {"budget": {"initial_budget": 1_000_000, "window": "day"}}}
    })
}

proptest! {
    // Only the model's bytes change: digits, key order and white space stay.
    #[test]
    fn only_the_model_changes_in_any_body_in_any_chunking(
        before in any_json(), after in any_json(), hold in any::<bool>(), pretty in any::<bool>(),
        cuts in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        let proxy = Proxy::new(&config(hold));
        proxy.served("acme", r#"{"model":"big","max_tokens":1}"#, 5, 5);
        let part = |value: &Value| if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) }.unwrap();
        let body = format!("{{\"x\":{},\"model\" :\"big\", \"y\": {}}}", part(&before), part(&after));
        let expected = body.replacen("\"model\" :\"big\"", "\"model\" :\"a--small--one\"", usize::MAX);
        // The fillers must not hold the very text that is looked for.
        prop_assume!(body.matches("\"model\" :\"big\"").count() == 1);
        let length = body.len().to_string();
        let mut call = proxy.post(&[("x-tenant-id", "acme"), ("content-length", &length)]);
        call.send(&chunks(body.as_bytes(), &cuts));
        prop_assert_eq!(call.refused(), None);
        prop_assert_eq!(call.upstream_text(), expected.as_str());
        let promised = call.upstream_header("content-length").map(str::to_owned);
        prop_assert_eq!(promised, hold.then(|| expected.len().to_string()));
    }

    // Bodies may be nested deeply, huge, cut off, or come byte by byte.
    #[test]
    fn any_bytes_are_taken_or_refused_and_leave_nothing_held(
        body in prop::collection::vec(prop_oneof![Just(b'{'), Just(b'"'), Just(b'\\'), Just(b'}'), Just(b':'), any::<u8>()], 0..60),
        hold in any::<bool>(), cuts in prop::collection::vec(any::<usize>(), 0..4),
        answer in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let proxy = Proxy::new(&config(hold));
        proxy.served("acme", r#"{"model":"big","max_tokens":1}"#, 1, 1);
        let mut call = proxy.post(&[("x-tenant-id", "acme")]);
        call.send(&chunks(&body, &cuts));
        call.answer_headers("200", &[("content-type", "text/event-stream")]);
        call.answer_chunk(&answer, false);
        call.end();
        prop_assert_eq!(proxy.record("acme").account.held().tokens.0, 0);
    }

    // An event may be split at every byte, in the middle of a character too. Lines end with LF, CRLF or CR,
    // and a CRLF may be cut in two.
    #[test]
    fn any_chunking_of_a_stream_gives_the_same_events_and_the_same_bytes(
        lines in prop::collection::vec("(data: ?|event: |: |)[a-zé🎉]{0,5}", 0..12),
        ends in prop::collection::vec(prop_oneof![Just("\n"), Just("\r\n"), Just("\r"), Just("\n\n"), Just("\r\r")], 12),
        cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        let stream: String = lines.iter().zip(&ends).flat_map(|(line, end)| [line.as_str(), *end]).collect();
        let run = |chunks: &[&[u8]]| {
            let (mut events, mut output, mut seen) = (Events::new(true), Vec::new(), Seen::default());
            for chunk in chunks {
                let passed = events.feed(chunk, &mut seen);
                output.extend(passed.unwrap_or_else(|| chunk.to_vec()));
            }
            output.extend(events.finish(&mut seen));
            (seen.0, output)
        };
        prop_assert_eq!(run(&chunks(stream.as_bytes(), &cuts)), run(&[stream.as_bytes()]));
    }
}
