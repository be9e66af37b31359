//! What the fuzz targets begin with: the providers' wires (`tests/wire`), and what else their parsers are made for.

use std::path::Path;
use std::time::Duration;

use bursar::base::name::LimitKey;
use bursar::base::units::{Cost, Micros, Timestamp, Tokens, Unit};
use bursar::lease::line::Holder;
use bursar::lease::slice::Slice;
use bursar::limits::account::{Account, HOLDS, Hold};
use bursar::limits::budget::tokens;
use bursar::limits::lend::{Child, ChildKey};
use bursar::limits::stacked::{Entry, State};
use bursar::state::record::Record;
use bursar::tenant::TenantId;
use bursar::tier::latency::Latency;
use serde_json::{Value, json};

use crate::frames::frame;
use crate::targets::input::Input;
use crate::targets::wires::choice;

/// One file of `tests/wire`.
struct Case {
    choice: usize,
    path: String,
    request: Vec<u8>,
    content_type: String,
    answer: Vec<u8>,
}

/// The first inputs of a target.
pub(crate) fn seeds(target: &str) -> Vec<Vec<u8>> {
    let cases = cases();
    match target {
        "config" => configs()
            .iter()
            .map(|config| Input::write(20, 0, config.to_string().as_bytes()))
            .collect(),
        "latency" => latencies(),
        "record" => records(),
        "trim" => talks(),
        "path" => {
            let paths = cases
                .iter()
                .map(|case| case.path.clone())
                .chain(unmetered());
            paths
                .enumerate()
                .map(|(at, path)| Input::write(at % 7, 0, path.as_bytes()))
                .collect()
        }
        _ => {
            let of_cases = cases.iter().flat_map(|case| case.seeds(target));
            of_cases.chain(edges(target)).collect()
        }
    }
}

impl Case {
    fn read(path: &Path) -> Self {
        let json: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let text = |pointer: &str| {
            let value = json.pointer(pointer).and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        let binary = json.pointer("/response/base64").and_then(Value::as_str);
        let headers = json["response"]["headers"]
            .as_object()
            .into_iter()
            .flatten();
        let mut types = headers.filter(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        Self {
            choice: choice(&text("/request/path")),
            path: text("/request/path"),
            request: text("/request/body").into_bytes(),
            content_type: types
                .next()
                .and_then(|(_, value)| value.as_str())
                .unwrap_or_default()
                .to_owned(),
            answer: match binary {
                Some(text) => bursar::body::base64::decode(text.as_bytes()).unwrap(),
                None => text("/response/body").into_bytes(),
            },
        }
    }

    fn seeds(&self, target: &str) -> Vec<Vec<u8>> {
        let input = |flags, bytes: &[u8]| Input::write(self.choice, flags, bytes);
        let is = |kind: &str| self.content_type.starts_with(kind);
        let is_events = is("text/event-stream");
        let is_frames = is("application/vnd.amazon.eventstream");
        match target {
            "json" => vec![
                input(0, &self.request),
                input(0, &with_escaped_keys(&self.request)),
                input(0, &twice(&self.request)),
                input(1, &self.answer),
                input(3, &self.answer),
            ],
            "sse" if is_events => vec![input(0, &self.answer)],
            "eventstream" if is_frames => {
                vec![input(1, &self.answer), input(0, &unsealed(&self.answer))]
            }
            "request" => [0b1011, 0b1_1110, 0b11_1111, 0b1011_1100, 0b11_1110]
                .iter()
                .map(|&flags| input(flags, &self.request))
                .collect(),
            "response" => {
                let kind = u8::from(is_events) | u8::from(is_frames) << 1;
                // Under its type, read and written; under others, with a length and an encoding that is none.
                [kind, kind | 0b1_1000, 0b0100_1100, 0b1110_1001]
                    .iter()
                    .map(|&flags| input(flags, &self.answer))
                    .collect()
            }
            _ => Vec::new(),
        }
    }
}

fn wire() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire")
}

fn cases() -> Vec<Case> {
    let folders = wire()
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files = folders
        .filter(|path| path.is_dir())
        .flat_map(|folder| folder.read_dir().unwrap());
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| Case::read(file)).collect()
}

fn unmetered() -> Vec<String> {
    let json: Value =
        serde_json::from_slice(&std::fs::read(wire().join("unmetered.json")).unwrap()).unwrap();
    let requests = json["requests"].as_array().unwrap().clone();
    requests
        .iter()
        .map(|request| request["path"].as_str().unwrap().to_owned())
        .collect()
}

/// The same object with every letter of every key as an escape, to any depth.
fn with_escaped_keys(body: &[u8]) -> Vec<u8> {
    fn write(value: &Value) -> String {
        let joined = |parts: Vec<String>| parts.join(",");
        match value {
            Value::Object(entries) => {
                let escaped = |name: &str| {
                    name.encode_utf16()
                        .map(|unit| format!("\\u{unit:04x}"))
                        .collect::<String>()
                };
                let entry = |(name, value): (&String, &Value)| {
                    format!("\"{}\":{}", escaped(name), write(value))
                };
                format!("{{{}}}", joined(entries.iter().map(entry).collect()))
            }
            Value::Array(entries) => format!("[{}]", joined(entries.iter().map(write).collect())),
            other => other.to_string(),
        }
    }
    serde_json::from_slice(body)
        .map_or_else(|_| body.to_vec(), |value: Value| write(&value).into_bytes())
}

/// An object with each entry twice.
fn twice(body: &[u8]) -> Vec<u8> {
    let body = body.trim_ascii();
    let inner = body
        .strip_prefix(b"{")
        .and_then(|body| body.strip_suffix(b"}"));
    let inner = inner.unwrap_or_default();
    [b"{", inner, b",", inner, b"}"].concat()
}

/// What lies at the edges of what the parsers keep.
fn edges(target: &str) -> Vec<Vec<u8>> {
    let inputs: Vec<(u8, Vec<u8>)> = match target {
        "json" => {
            let body = |digits: usize| format!("{{\"max_tokens\":{}}}", "1".repeat(digits));
            vec![(0, body(32).into()), (0, body(33).into())]
        }
        "sse" => [
            &b"\xefdata:a\n\n"[..],
            b"\xef\xbbdata:a\n\n",
            b"\xef\xbb\xbfdata:a\n\n",
        ]
        .map(|stream| (0, stream.to_vec()))
        .into(),
        "eventstream" => [64, 65]
            .map(|length| {
                let name = "x".repeat(length);
                let headers = [(":message-type", "event"), (":event-type", &name)];
                (1, frame(&headers, b"{}"))
            })
            .into(),
        "response" => [
            &b"data: x"[..],
            b"\xef\xbb\xbf{\"usage\":{\"total_tokens\":5}}",
            b" \n\xef\xbbdata: {\"choices\":[],\"cost\":\"0\"}\n\n",
            b"<html>",
            b"{\"error\":{\"code\":500}}",
        ]
        .map(|answer| (0b1001, answer.to_vec()))
        .into(),
        _ => Vec::new(),
    };
    inputs
        .iter()
        .map(|(flags, bytes)| Input::write(0, *flags, bytes))
        .collect()
}

/// The frames as the target wants them to put the checks in place, their payloads cut short.
fn unsealed(mut stream: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some((prelude, _)) = stream.split_first_chunk::<12>() {
        let number =
            |at: usize| usize::from(u16::from_be_bytes([prelude[at + 2], prelude[at + 3]]));
        let (frame, rest) = stream.split_at(number(0).min(stream.len()));
        let data = &frame[12..frame.len().saturating_sub(4).clamp(12, 12 + 255)];
        bytes.extend([data.len(), number(4), 0, 0].map(|byte| u8::try_from(byte).unwrap()));
        bytes.extend(data);
        stream = rest;
    }
    bytes
}

fn configs() -> [Value; 3] {
    let price = json!({"input": 2.5, "cached_input": 1.25, "cache_write": 3, "output": 1e1});
    [
        json!({"tenants": {"acme": {"budget": {"initial_budget": 1e6, "window": "day"}}}}),
        json!({
            "hold_headers": true, "hold_bytes": 1000, "failure_mode": "deny", "reservation_expiry": "5m",
            "tenant": {
                "from": [{"header": "x-tenant-id"}, {"property": ["xds", "node"]}, {"jwt_claim": "tenant"}, {"peer_uri_san": true}],
                "missing": {"tenant": "acme"}, "unknown": {"plan": "gold"},
            },
            "tiers": [
                {"name": "default", "model": "gpt-4o", "price": price},
                {"name": "compact", "model": "gpt-4o-mini", "price": {"input": 0.15, "output": 0.6}, "below": 0.2,
                 "supports": ["tools", "images", "structured_output", "thinking", "adaptive_thinking", "effort", "signed_thinking", "cached_prompt", "cache_settings", "recent_features"], "max_output_tokens": 500, "trim": {"to_tokens": 8e3}},
            ],
            "plans": {"gold": {
                "budget": {"initial_budget": 2000000, "unit": "tokens", "window": "week"},
                "bucket": {"tokens_per_window": 60000, "window": "1m", "burst": 5, "low_water_mark": 0.1},
                "on_exhausted": {"degrade": {"overdraft": 0.1}}, "low_water_mark": 0.3, "min_output_tokens": 20, "sticky": {"header": "X-Conversation", "keep": 0.5},
            }},
            "tenants": {"acme": {"plan": "gold", "never_downgrade": true}, "b": {"plan": "gold", "budget": {"window": "90s"}},
                        "c": {"plan": "gold", "pace": {"cap": 0.9, "half_life": "1h"}, "hysteresis": 0.05, "tiers": ["default", "compact"],
                              "floor": "compact", "low_water_mark": 0.1}, "d": {"budget": {"initial_budget": 5, "window": "hour"},
                              "below": {"compact": 0.1}, "pace": {}}},
        }),
        json!({
            "tenant": {"from": [{"header": "x-tenant-id"}], "missing": "pass", "unknown": "reject"},
            "ladders": [{"match": ["claude-*", "*"], "tiers": [{"name": "a", "model": "m", "price": price}]}],
            "tenants": {"globex": {"budget": {"initial_budget": 50.0, "unit": "usd", "window": "month"}, "on_exhausted": "throttle",
                                   "bucket": {"tokens_per_window": 1, "window": "1h"}}},
        }),
    ]
}

/// Conversations in both dialects, of which little may stay.
fn talks() -> Vec<Vec<u8>> {
    let user = json!({"role": "user", "content": "And then?"});
    let said = json!({"role": "assistant", "content": "This."});
    let openai = json!({"model": "m", "stream": true, "messages": [
        {"role": "system", "content": "Be brief."}, user, said, user,
        {"role": "assistant", "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "{}"}}, {"id": "c2"}]},
        {"role": "tool", "tool_call_id": "c2", "content": "2"}, {"role": "tool", "tool_call_id": "c1", "content": "1"}, said,
        {"role": "developer", "content": [{"type": "text", "text": "Go on."}]}, user, user,
        {"role": "assistant", "function_call": {"name": "f"}}, {"role": "function", "name": "f", "content": "3"}, said, user,
    ]});
    let anthropic = json!({"max_tokens": 5, "messages": [
        user, said, user,
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": "s"}, {"type": "tool_use", "id": "t1", "input": {"id": "x"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "1"}]}]},
        {"role": "assistant", "content": [{"type": "server_tool_use", "id": "s1"}, {"type": "web_search_tool_result", "tool_use_id": "s1"}]},
        user, said, user,
    ], "model": "m"});
    let mut inputs = Vec::new();
    for (dialect, talk) in [(0, openai), (1, anthropic)] {
        for body in [talk.to_string(), format!("{talk:#}")] {
            for (most, hold) in [(1, 0), (60, 2), (255, 0)] {
                inputs.push(Input::write(most, dialect | hold, body.as_bytes()));
            }
        }
    }
    inputs
}

/// Nothing, a slow tier, and one of which two halves are known, each as of the time at which the target begins.
fn latencies() -> Vec<Vec<u8>> {
    let noon = Timestamp::from_secs(crate::proxy::NOON);
    let mut states = vec![Latency::default().at(noon)];
    for (millis, before) in [(9_000, 0), (40, 60), (700, 60), (u64::MAX, 120)] {
        let then = Timestamp::from_secs(crate::proxy::NOON - before);
        let mut state = Latency::default().at(then);
        for at in 0..30 {
            state.record(Duration::from_millis(millis.saturating_add(at)), then);
        }
        states.push(state.clone());
        let mut state = state.at(noon);
        state.record(Duration::from_millis(20), noon);
        states.push(state);
    }
    let seeds = states.iter().enumerate();
    seeds
        .map(|(at, state)| Input::write(at * 3, 0, &state.encode()[4..]))
        .collect()
}

fn records() -> Vec<Vec<u8>> {
    let mut record = Record::default();
    let none = record.encode();
    record.account.spent.tokens = Tokens(500);
    record.account.window.end = Timestamp::MAX;
    record.bucket.used = 300;
    record.account.holds.push(Hold {
        since: Timestamp::from_secs(1_709_208_000),
        cost: Cost {
            tokens: Tokens(5),
            usd: Micros(6),
        },
        likely: Cost {
            tokens: Tokens(5),
            usd: Micros(6),
        },
    });
    let one = record.encode();
    // One model: which, bytes a token, mean and deviation of its answers.
    let figures = [9_u32, 4 << 16, 300 << 8, 20 << 8]
        .map(u32::to_le_bytes)
        .concat();
    let learned = [&one[4..], &[1], &figures].concat();
    assert!(Record::decode(&[b"brs\x02", learned.as_slice()].concat()).is_ok());
    // Then two levels of burn, and a ladder's tier.
    let levels = [5, 6, 2, 1].map(u64::to_le_bytes).concat();
    let since = 1_709_208_000_000_000_000_u64.to_le_bytes();
    let burning = [
        &learned,
        since.as_slice(),
        &[2],
        &levels,
        &[1],
        b"abcd",
        &[1],
    ]
    .concat();
    assert!(Record::decode(&[b"brs\x03", burning.as_slice()].concat()).is_ok());
    // Then a bucket and an account of other limits.
    let other = [
        &7_u32.to_le_bytes()[..],
        &[0],
        &[0; 24],
        &8_u32.to_le_bytes(),
        &[1],
        &[0; 61],
    ];
    let likely = [5, 6].map(u64::to_le_bytes).concat();
    let added = [&[0; 24][..], &likely, &[0; 33]].concat();
    let stacked = [&burning[..], &added, &[2], &other.concat()].concat();
    assert!(Record::decode(&[b"brs\x04", stacked.as_slice()].concat()).is_ok());
    let [shared, parent] = of_many(&record).map(|record| record.encode());
    assert_eq!([&shared[..4], &parent[..4]], [b"brs\x05", b"brs\x06"]);
    // What no account can be.
    let mut backwards = none.clone();
    backwards[36..52].rotate_left(1);
    backwards[36] = 1;
    let mut too_many = record.clone();
    too_many.account.holds = vec![record.account.holds[0]; HOLDS];
    let mut too_many = too_many.encode();
    too_many[72] += 1;
    too_many.extend([0; 24]);
    vec![
        Input::write(30, 1, &backwards),
        Input::write(30, 1, &too_many),
        Input::write(30, 0, &none[4..]),
        Input::write(3, 0b11, &none),
        Input::write(30, 0, &one[4..]),
        Input::write(3, 0b11, &one),
        Input::write(30, 0b100, &learned),
        Input::write(30, 0b1100, &burning),
        Input::write(30, 0b1_1100, &stacked),
        Input::write(30, 0b11_1100, &shared[4..]),
        Input::write(3, 0b11, &shared),
        Input::write(30, 0b111_1100, &parent[4..]),
        Input::write(3, 0b11, &parent),
    ]
}

/// The record with a slice of what proxies share, and with children that have guaranteed shares, of both its budgets.
fn of_many(record: &Record) -> [Record; 2] {
    let account = |mut account: Account| {
        let slice = Slice::new(Holder(5), Unit::Tokens, account.window);
        account.slice = Some(Box::new(Slice {
            generation: 7,
            set: 1_200,
            ..slice
        }));
        account
    };
    let other = |account| Entry {
        key: LimitKey::of("other"),
        state: State::Account(account),
    };
    let mut shared = record.clone();
    shared.account = account(shared.account);
    shared.others = vec![other(shared.account.clone())];
    let mut parent = shared.clone();
    let children = ["acme", "globex"].map(|name| {
        let id = TenantId::parse(name.as_bytes()).unwrap();
        Child {
            key: ChildKey::of(&id),
            spent: tokens(120),
            holds: record.account.holds.clone(),
            lent: 70,
            recent: tokens(30),
            since: Timestamp::from_secs(1_709_208_000),
        }
    });
    parent.account.slice = None;
    parent.account.children = children.to_vec();
    parent.others = vec![other(parent.account.clone())];
    [shared, parent]
}
