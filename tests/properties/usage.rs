//! Usage is read from an answer as from its tree.

use bursar::api::Endpoint;
use bursar::json::{Field, text};
use bursar::tenant::Headers;
use bursar::units::Tokens;
use bursar::usage::{Reader, Usage};
use proptest::prelude::*;
use serde_json::Value;

use super::chunks;

/// Each wire by a path of its, and where its answer and its events tell the usage.
const WIRES: [(&str, &[&str]); 7] = [
    ("/v1/chat/completions", &["usage"]),
    ("/v1/responses", &["usage", "response.usage"]),
    ("/v1/embeddings", &["usage"]),
    ("/v1/messages", &["usage", "message.usage"]),
    ("/v1/models/m:generateContent", &["usageMetadata"]),
    ("/model/m/converse", &["usage"]),
    ("/model/m/invoke", &["usage"]),
];

/// The keys that each of them reads, and some that it must not.
const KEYS: [&str; 7] = [
    "prompt_tokens|completion_tokens|total_tokens|prompt_cache_hit_tokens|prompt_tokens_details|cached_tokens|cache_write_tokens",
    "input_tokens|output_tokens|total_tokens|input_tokens_details|cached_tokens|cache_write_tokens|prompt_tokens",
    "prompt_tokens|total_tokens|prompt_cache_hit_tokens|prompt_tokens_details|cached_tokens|completion_tokens",
    "input_tokens|output_tokens|cache_read_input_tokens|cache_creation_input_tokens|iterations|type|Input_tokens",
    "promptTokenCount|candidatesTokenCount|thoughtsTokenCount|totalTokenCount|toolUsePromptTokenCount|cachedContentTokenCount",
    "inputTokens|outputTokens|cacheReadInputTokens|cacheWriteInputTokens|cacheReadInputTokenCount|totalTokens",
    "inputTokens|outputTokens|cacheReadInputTokenCount|cacheWriteInputTokenCount|input_tokens|output_tokens|cache_read_input_tokens|iterations|type",
];

/// JSON as it comes: keys that stand twice, escapes, white space, and now and then a fault.
fn any_text(keys: &'static str, depth: u32) -> BoxedStrategy<String> {
    let number = prop_oneof![
        6 => (0..100_u64).prop_map(|number| number.to_string()),
        1 => any::<u64>().prop_map(|number| number.to_string()),
        2 => "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,2})?",
    ];
    let leaf = prop_oneof![
        8 => number,
        2 => prop::sample::select(vec![
            "null", "true", "\"7\"", "\"compaction\"", "\"advis\\u006fr_message\"", "\"\\ud800\"", "\"é\\n\"", "01", "-", "{\"a\":1,}", "",
        ])
        .prop_map(str::to_owned),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    let key = prop::sample::select(keys.split('|').collect::<Vec<_>>());
    let key = (key, 0..12_u8).prop_map(|(key, how)| match how {
        0 => {
            let (first, rest) = key.split_at(1);
            format!("\\u{:04x}{rest}", u32::from(first.as_bytes()[0]))
        }
        _ => key.to_owned(),
    });
    let entry = (
        key,
        any_text(keys, depth - 1),
        prop::sample::select(vec!["", "", " ", "\n\t"]),
    );
    let entry = entry
        .prop_map(|(key, value, space)| format!("{space}\"{key}\"{space}:{space}{value}{space}"));
    let object =
        prop::collection::vec(entry, 0..7).prop_map(|entries| format!("{{{}}}", entries.join(",")));
    let list = prop::collection::vec(any_text(keys, depth - 1), 0..3)
        .prop_map(|list| format!("[{}]", list.join(",")));
    prop_oneof![4 => leaf, 6 => object, 1 => list].boxed()
}

fn tokens(object: &Value, key: &str) -> Option<Tokens> {
    object.get(key).and_then(Value::as_u64).map(Tokens)
}

/// The usage that a value tells, by its tree.
fn by_tree(path: &str, usage: &str) -> Option<Usage> {
    let usage: Value = serde_json::from_str(usage).ok()?;
    if !usage.is_object() {
        return None;
    }
    let of = |key| tokens(&usage, key);
    let within = |object: &str, key| tokens(usage.get(object)?, key);
    let after = |total: Option<Tokens>, input| {
        total
            .zip(input)
            .map(|(total, input): (_, Tokens)| total - input)
    };
    Some(match path {
        "/v1/chat/completions" | "/v1/embeddings" => Usage {
            input: of("prompt_tokens"),
            cached_input: within("prompt_tokens_details", "cached_tokens")
                .or_else(|| of("prompt_cache_hit_tokens")),
            cache_write: within("prompt_tokens_details", "cache_write_tokens"),
            output: match path {
                "/v1/embeddings" => of("prompt_tokens").map(|_| Tokens(0)),
                _ => of("completion_tokens").max(after(of("total_tokens"), of("prompt_tokens"))),
            },
        }
        .consistent(),
        "/v1/responses" => Usage {
            input: of("input_tokens"),
            cached_input: within("input_tokens_details", "cached_tokens"),
            cache_write: within("input_tokens_details", "cache_write_tokens"),
            output: of("output_tokens").max(after(of("total_tokens"), of("input_tokens"))),
        }
        .consistent(),
        "/v1/messages" => of_anthropic(&usage),
        "/model/m/converse" => beside(
            &usage,
            [
                "inputTokens",
                "outputTokens",
                "cacheReadInputTokens",
                "cacheWriteInputTokens",
            ],
        ),
        "/model/m/invoke" => {
            let amazon = beside(
                &usage,
                [
                    "inputTokens",
                    "outputTokens",
                    "cacheReadInputTokenCount",
                    "cacheWriteInputTokenCount",
                ],
            );
            match amazon == Usage::default() {
                true => of_anthropic(&usage),
                false => amazon,
            }
        }
        _ => {
            let (prompt, total) = (of("promptTokenCount"), of("totalTokenCount"));
            prompt.or(total)?;
            let part = |key| of(key).unwrap_or_default();
            let input = prompt.unwrap_or_default() + part("toolUsePromptTokenCount");
            let output = part("candidatesTokenCount") + part("thoughtsTokenCount");
            Usage {
                input: Some(input),
                cached_input: of("cachedContentTokenCount"),
                cache_write: None,
                output: Some(output.max(after(total, Some(input)).unwrap_or_default())),
            }
            .consistent()
        }
    })
}

fn of_anthropic(usage: &Value) -> Usage {
    let own = |usage| {
        beside(
            usage,
            [
                "input_tokens",
                "output_tokens",
                "cache_read_input_tokens",
                "cache_creation_input_tokens",
            ],
        )
    };
    let beside = |iteration: &&Value| {
        matches!(
            iteration["type"].as_str(),
            Some("compaction" | "advisor_message")
        )
    };
    let iterations = usage["iterations"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(beside);
    iterations.fold(own(usage), |sum, iteration| sum.and(own(iteration)))
}

fn beside(usage: &Value, keys: [&str; 4]) -> Usage {
    let [input, output, read, written] = keys.map(|key| tokens(usage, key));
    let cached = read.unwrap_or_default() + written.unwrap_or_default();
    Usage {
        input: input.map(|input| input + cached),
        cached_input: read,
        cache_write: written,
        output,
    }
}

fn reader(path: &str, content_type: &str) -> Reader {
    let headers = |list: &[(&str, &str)]| -> Headers {
        let pairs = list
            .iter()
            .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        pairs.collect()
    };
    let endpoint = Endpoint::of(&headers(&[(":method", "POST"), (":path", path)])).unwrap();
    Reader::new(
        endpoint.wire,
        &headers(&[("content-type", content_type)]),
        false,
    )
}

fn read(mut reader: Reader, body: &[u8], cuts: &[usize]) -> Option<Usage> {
    for chunk in chunks(body, cuts) {
        reader.feed(chunk, false);
    }
    reader.feed(&[], true);
    reader.reported().0
}

/// The value under the last of the names of a way, as the only entry of each object on it.
fn under(way: &str, value: &str) -> String {
    way.rsplit('.').fold(value.to_owned(), |value, name| {
        format!("{{\"{name}\":{value}}}")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn usage_is_read_as_from_its_tree(
        (wire, value) in (0..WIRES.len()).prop_flat_map(|wire| (Just(wire), any_text(KEYS[wire], 3))),
        cuts in prop::collection::vec(any::<usize>(), 0..4),
    ) {
        let (path, ways) = WIRES[wire];
        // What is no JSON may end the answer before its end: the scanner's affair, which is held to elsewhere.
        prop_assume!(serde_json::from_str::<Value>(&value).is_ok() || value.starts_with('{') && value.ends_with('}'));
        let expected = by_tree(path, &value);
        let body = under(ways[0], &value);
        prop_assert_eq!(read(reader(path, "application/json"), body.as_bytes(), &cuts), expected.map(Usage::consistent));
        if path == "/model/m/invoke" {
            return Ok(());
        }
        let way = ways[ways.len() - 1];
        let event = format!("data: {}\n\n", under(way, &value).replace('\n', " "));
        let expected = match way {
            "message.usage" => expected.map(|usage| Usage { output: None, ..usage }),
            _ if path == "/v1/embeddings" => by_tree("/v1/chat/completions", &value),
            _ => expected,
        };
        let told = read(reader(path, "text/event-stream"), event.as_bytes(), &cuts);
        prop_assert_eq!(told, expected.map(Usage::consistent));
    }

    #[test]
    fn a_text_is_read_as_serde_json_reads_it(
        inner in prop_oneof![
            "(\\\\[\"\\\\/bfnrtux]|\\\\u[0-9a-fA-F]{4}|\\\\u[dD][89a-fA-F][0-9a-f]{2}|[a\"é\n])*",
            any::<String>(),
        ],
        broken in prop::option::of((any::<usize>(), any::<u8>())),
    ) {
        let mut raw = format!("\"{inner}\"").into_bytes();
        if let Some((at, byte)) = broken {
            let at = at % raw.len();
            raw[at] = byte;
        }
        prop_assume!(!raw[0].is_ascii_whitespace() && !raw[raw.len() - 1].is_ascii_whitespace());
        let expected = serde_json::from_slice::<String>(&raw).ok();
        prop_assert_eq!(text(&Field { raw, ..Field::default() }), expected);
    }
}
