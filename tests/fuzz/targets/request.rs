//! [`bursar::exchange`], a request: whatever its body, in any chunking, the upstream gets it with the edits that were meant and
//! no other, and nothing stays held.

use bursar::body::json::{Repeats, Scanner, text};
use bursar::provider::{Endpoint, Wire, lists};
use bursar::state::store::tenant_key;
use serde_json::{Value, json};

use super::input::Input;
use super::tree::Tree;
use super::wires::{headers, path};
use crate::proxy::{Proxy, usage};

const LOWER: &str = "v.small-1";
const SIGNED: &str = "AWS4-HMAC-SHA256 Credential=k";
/// What may be kept back, where that is little.
const LITTLE_ROOM: u64 = 40;
/// The longest answer of the lower tier, where it has one.
const MOST: u64 = 50;

/// What the request is, besides its body.
struct Case {
    path: &'static str,
    endpoint: Endpoint,
    hold: bool,
    has_length: bool,
    is_low: bool,
    supports_all: bool,
    limits_output: bool,
    is_tight: bool,
    has_signature: bool,
    has_little_room: bool,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    refused: Option<u16>,
    is_lower: bool,
    /// The longest answer that the client is told of.
    told: Option<u64>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

pub fn run(data: &[u8]) {
    let Some(input) = Input::read(data) else {
        return;
    };
    let path = path(input.choice);
    let authorization: &[u8] = if input.flag(6) {
        SIGNED.as_bytes()
    } else {
        b"Bearer x"
    };
    let headers = headers(&[
        (":method", b"POST"),
        (":path", path.as_bytes()),
        ("authorization", authorization),
    ]);
    let case = Case {
        path,
        endpoint: Endpoint::of(&headers).unwrap(),
        hold: input.flag(0),
        has_length: input.flag(1),
        is_low: input.flag(2),
        supports_all: input.flag(3),
        limits_output: input.flag(4),
        is_tight: input.flag(5),
        has_signature: input.flag(6),
        has_little_room: input.flag(7),
    };
    let (proxy, record) = case.proxy();
    let send = |chunks: &[&[u8]]| {
        proxy.store.plant(&tenant_key("acme"), &record);
        case.send(&proxy, chunks, input.bytes)
    };
    let whole = send(&[input.bytes]);
    case.check(input.bytes, &whole);
    for chunks in input.chunkings(input.bytes) {
        let outcome = send(&chunks);
        case.check(input.bytes, &outcome);
        case.compare(input.bytes, &outcome, &whole);
    }
}

impl Case {
    fn config(&self) -> Value {
        let mut lower = json!({"name": "b", "model": LOWER, "below": 0.5});
        if self.supports_all {
            lower["supports"] = json!([
                "tools",
                "images",
                "structured_output",
                "thinking",
                "adaptive_thinking",
                "effort",
                "signed_thinking",
                "cached_prompt",
                "cache_settings",
                "recent_features"
            ]);
        }
        if self.limits_output {
            lower["max_output_tokens"] = MOST.into();
        }
        let mut acme = json!({"budget": {"initial_budget": 10_000_000, "window": "day"}});
        if self.is_tight {
            acme["min_output_tokens"] = 10.into();
        }
        json!({
            "hold_headers": self.hold,
            "hold_bytes": if self.has_little_room { LITTLE_ROOM } else { 1_000_000 },
            "ladders": [{"match": ["*"], "tiers": [{"name": "a", "model": "v.big-1"}, lower]}],
            "tenants": {"acme": acme},
        })
    }

    /// A proxy, and the tenant's record before the request.
    fn proxy(&self) -> (Proxy, Vec<u8>) {
        let proxy = Proxy::new(&self.config());
        let spent = match (self.is_low, self.is_tight) {
            (true, true) => 9_990_000,
            (true, false) => 6_000_000,
            (false, _) => 1,
        };
        proxy.served("acme", r#"{"model":"-","max_tokens":1}"#, spent, 0);
        let record = proxy.store.value(&tenant_key("acme")).unwrap();
        (proxy, record)
    }

    fn send(&self, proxy: &Proxy, chunks: &[&[u8]], body: &[u8]) -> Outcome {
        let length = body.len().to_string();
        let mut headers = vec![
            (":method", "POST"),
            (":path", self.path),
            ("x-tenant-id", "acme"),
        ];
        if self.has_length {
            headers.push(("content-length", &length));
        }
        if self.has_signature {
            headers.push(("authorization", SIGNED));
        }
        let mut call = proxy.request(&headers, false);
        call.send(chunks);
        let refused = call.refused().map(|(status, _)| status);
        if refused.is_none() {
            assert!(call.headers_gone);
            call.answer_json(&usage(3, 4));
        }
        call.end();
        let held = proxy.record("acme").account.held();
        assert_eq!((held.tokens.0, held.usd.0), (0, 0));
        Outcome {
            refused,
            told: call
                .response_header("x-bursar-max-output-tokens")
                .map(|most| most.parse().unwrap()),
            is_lower: call.response_header("x-bursar-tier") == Some("b"),
            headers: std::mem::take(&mut call.upstream_headers),
            body: std::mem::take(&mut call.upstream_body),
        }
    }

    fn check(&self, body: &[u8], outcome: &Outcome) {
        if outcome.refused.is_some() {
            return;
        }
        let header = |name| {
            outcome
                .headers
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_str())
        };
        if let Some(length) = header("content-length") {
            assert_eq!(length, outcome.body.len().to_string());
        }
        if self.endpoint.is_signed {
            assert_eq!(
                (outcome.body.as_slice(), header(":path")),
                (body, Some(self.path))
            );
            return;
        }
        if Tree::read(body).is_some() {
            assert!(Tree::read(&outcome.body).is_some());
        }
        self.check_model(body, outcome, header(":path").unwrap());
        self.check_limits(outcome);
        self.check_options(body, outcome);
        self.check_rest(body, &outcome.body);
    }

    fn check_model(&self, body: &[u8], outcome: &Outcome, path: &str) {
        let wire = self.endpoint.wire;
        let asked = scan(wire, body);
        if let Some(model) = &self.endpoint.model {
            let expected = if outcome.is_lower {
                model.path_for(LOWER)
            } else {
                self.path.to_owned()
            };
            assert_eq!(path, expected);
        }
        let key = wire.model_key();
        let named = |scanner: &Scanner| scanner.value(key?).cloned();
        let (before, after) = (named(&asked), named(&scan(wire, &outcome.body)));
        if before.is_some() && outcome.is_lower {
            assert_eq!(after.as_ref().and_then(text).as_deref(), Some(LOWER));
        } else {
            assert_eq!(after.map(|field| field.raw), before.map(|field| field.raw));
        }
    }

    /// The limit that is told is in force, whatever the body asks for.
    fn check_limits(&self, outcome: &Outcome) {
        let Some(most) = outcome.told else { return };
        let sent = scan(self.endpoint.wire, &outcome.body);
        let keys = self.endpoint.wire.output_limits().keys;
        let given: Vec<_> = keys.iter().filter_map(|&index| sent.value(index)).collect();
        let mut given: Vec<Value> = given
            .iter()
            .map(|field| serde_json::from_slice(&field.raw).unwrap())
            .collect();
        given.retain(|limit| !limit.is_null());
        assert!(!given.is_empty());
        for limit in given {
            let limit = limit
                .as_str()
                .map_or_else(|| limit.as_f64(), |text| text.parse().ok());
            assert!(limit.is_some_and(|limit| (0.0..=most as f64).contains(&limit)));
        }
    }

    /// Where there is no stream, the options of one are as they came; and what is lowered lists no other model.
    fn check_options(&self, body: &[u8], outcome: &Outcome) {
        let wire = self.endpoint.wire;
        let (asked, sent) = (scan(wire, body), scan(wire, &outcome.body));
        let keys = wire.request().keys;
        let raw = |scanner: &Scanner, name: &str| {
            let index = keys.iter().position(|key| key.path == [name])?;
            scanner.value(index).map(|field| field.raw.clone())
        };
        if raw(&asked, "stream").as_deref() != Some(b"true") {
            assert_eq!(raw(&asked, "stream_options"), raw(&sent, "stream_options"));
        }
        let is_changed = outcome.is_lower && wire.model_key().is_some();
        for index in lists(wire, &sent) {
            let left = sent.value(index).map(|field| field.raw.clone());
            let left = left.unwrap_or_default();
            let text = String::from_utf8_lossy(&left).into_owned();
            let is_empty = ["", "null", "[]", "{}", "\"\""]
                .contains(&text.replace([' ', '\t', '\n', '\r'], "").as_str());
            assert!(
                !is_changed || is_empty || text == format!("[\"{LOWER}\"]"),
                "{text}"
            );
        }
    }

    /// All but the values that may change is byte for byte as it came.
    fn check_rest(&self, body: &[u8], sent: &[u8]) {
        let wire = self.endpoint.wire;
        let (before, after) = (masked(wire, body), masked(wire, sent));
        assert!(
            as_without_additions(wire, &after).contains(&before),
            "{}\n{}",
            String::from_utf8_lossy(body),
            String::from_utf8_lossy(sent)
        );
    }

    /// With room for all that may have to wait, chunks are of no matter.
    fn compare(&self, body: &[u8], outcome: &Outcome, whole: &Outcome) {
        if self.has_little_room && body.len() as u64 > LITTLE_ROOM {
            return;
        }
        // What has no length is not held, and the first chunk decides what goes with the headers.
        if self.hold && !self.has_length {
            return;
        }
        match (outcome.refused, whole.refused) {
            // One of several faults is told: in chunks, the first one.
            (Some(_), Some(_)) if Tree::read(body).is_none() => {}
            (None, None) if outcome == whole => {}
            (None, None) => {
                assert_eq!(
                    String::from_utf8_lossy(&outcome.body),
                    String::from_utf8_lossy(&whole.body)
                );
                assert_eq!(outcome, whole);
            }
            (refused, of_whole) => assert_eq!(refused, of_whole),
        }
    }
}

fn scan(wire: &'static dyn Wire, body: &[u8]) -> Scanner {
    let mut scanner = Scanner::new(wire.request(), Repeats::Refuse);
    scanner.feed(body).unwrap();
    scanner
}

/// A byte that stands for a value that may change; no control character may stand in JSON.
const MASK: u8 = 1;

/// The body with a mask in the place of each value that may change.
fn masked(wire: &'static dyn Wire, body: &[u8]) -> Vec<u8> {
    let scanner = scan(wire, body);
    let keys = wire.request().keys;
    let mut changeable: Vec<usize> = wire.output_limits().keys.to_vec();
    changeable.extend(wire.model_key());
    changeable.extend(keys.iter().position(|key| key.path == ["stream_options"]));
    changeable.extend(lists(wire, &scanner));
    let mut spans: Vec<(usize, usize)> = changeable
        .into_iter()
        .filter_map(|index| scanner.value(index))
        .map(|field| (field.start as usize, field.end.unwrap() as usize))
        .collect();
    spans.sort_unstable();
    let (mut masked, mut at) = (Vec::new(), 0);
    for (start, end) in spans {
        masked.extend(&body[at..start]);
        masked.push(MASK);
        at = end;
    }
    masked.extend(&body[at..]);
    masked
}

/// The masked body, and what it may have been before something was added to it.
fn as_without_additions(wire: &'static dyn Wire, masked: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![masked.to_vec()];
    let less = |all: &mut Vec<Vec<u8>>, added: &str, before: &str| {
        let (added, before) = (added.as_bytes(), before.as_bytes());
        let shorter = all.iter().flat_map(|body| {
            let found = (0..body.len()).filter(|&at| body[at..].starts_with(added));
            found.map(|at| [&body[..at], before, &body[at + added.len()..]].concat())
        });
        let shorter: Vec<_> = shorter.collect();
        all.extend(shorter);
    };
    less(&mut all, ",\"stream_options\":\u{1}", "");
    let limits = wire.output_limits();
    if let Some(name) = limits.name {
        for comma in [",", ""] {
            less(&mut all, &format!("{comma}\"{name}\":\u{1}"), "");
            if let Some((_, object)) = limits.object {
                let entry = format!("{comma}\"{object}\":{{\"{name}\":\u{1}}}");
                less(&mut all, &entry, "");
            }
        }
        if limits.object.is_some() {
            less(&mut all, &format!(":{{\"{name}\":\u{1}}}"), ":null");
        }
    }
    all
}
