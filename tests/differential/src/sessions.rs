//! Configurations and exchanges by chance.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use serde_json::{Value, json};

use crate::chance::Chance;
use crate::proxy::{Fault, Message, Outcome, Vm};

const TENANTS: [&str; 8] = [
    "rich", "poor", "slow", "loyal", "paced", "sticky", "watched", "stranger",
];

/// A plugin configuration in which every rule may be found.
pub fn configuration(chance: &mut Chance) -> Value {
    let unit = *chance.pick(&["tokens", "usd"]);
    let amount = |tokens: u64| {
        if unit == "usd" {
            json!(tokens as f64 / 100_000.0)
        } else {
            json!(tokens)
        }
    };
    let small = amount(*chance.pick(&[500, 2_000, 8_000]));
    let price =
        |input: f64| json!({"input": input, "cached_input": input / 4.0, "output": input * 4.0});
    let mut last = json!({"name": "compact", "model": "light", "price": price(0.15), "below": 0.3});
    if chance.one_in(3) {
        last["max_output_tokens"] = json!(50);
    }
    if chance.one_in(3) {
        last["supports"] = json!([]);
    }
    if chance.one_in(4) {
        last["trim"] = json!({"to_tokens": 20});
    }
    let budget = json!({"initial_budget": small, "unit": unit, "window": *chance.pick(&["day", "hour", "none", "90s"])});
    json!({
        "hold_headers": chance.one_in(2),
        "failure_mode": *chance.pick(&["allow", "deny"]),
        "tenant": {"unknown": if chance.one_in(2) { json!("reject") } else { json!({"plan": "small"}) }},
        "ladders": [{"match": ["*"], "tiers": [
            {"name": "default", "model": "best", "price": price(2.5)},
            {"name": "standard", "model": "middle", "price": price(0.5), "below": 0.6},
            last,
        ]}],
        "plans": {"small": {"budget": budget}},
        "tenants": {
            "rich": {"budget": {"initial_budget": amount(100_000_000), "unit": unit, "window": "month"}},
            "poor": {"plan": "small", "on_exhausted": *chance.pick(&[&json!("throttle"), &json!({"degrade": {"overdraft": 0.5}})]),
                     "min_output_tokens": 1 + chance.below(40)},
            "slow": {"bucket": {"tokens_per_window": 600, "window": "10s", "low_water_mark": 0.5}},
            "loyal": {"plan": "small", "never_downgrade": true},
            "paced": {"plan": "small", "pace": {}, "hysteresis": 0.1, "budget": {"window": "day"}},
            "sticky": {"plan": "small", "sticky": {}},
            "watched": {"plan": "small", "shadow": true},
        },
    })
}

/// One request and its answer.
pub struct Exchange {
    pub api: String,
    request: Message,
    answer: Message,
    pause_nanos: u64,
}

impl Exchange {
    pub fn through(&self, vm: &mut Vm) -> Result<Outcome, Fault> {
        vm.pass(self.pause_nanos);
        let outcome = vm.exchange(&self.request, &self.answer)?;
        // Metrics are told by ticks.
        vm.tick()?;
        Ok(outcome)
    }
}

impl Display for Exchange {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let shown = |message: &Message| {
            let chunks: Vec<_> = message
                .chunks
                .iter()
                .map(|chunk| String::from_utf8_lossy(chunk))
                .collect();
            format!(
                "{:?} {chunks:?}{}",
                message.headers,
                if message.is_cut { " cut off" } else { "" }
            )
        };
        write!(
            f,
            "{}\n    request {}\n    answer  {}",
            self.api,
            shown(&self.request),
            shown(&self.answer)
        )
    }
}

/// The recorded exchanges.
pub struct Wires(Vec<Value>);

impl Wires {
    pub fn read() -> Result<Self, Fault> {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../wire"));
        let mut found = Vec::new();
        for folder in std::fs::read_dir(root)? {
            let folder = folder?.path();
            if folder.is_dir() {
                for file in std::fs::read_dir(folder)? {
                    found.push(file?.path());
                }
            }
        }
        found.sort();
        let read = |path| -> Result<Value, Fault> {
            Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
        };
        Ok(Self(found.into_iter().map(read).collect::<Result<_, _>>()?))
    }

    pub fn exchange(&self, chance: &mut Chance) -> Exchange {
        let recorded = chance.pick(&self.0);
        let request = &recorded["request"];
        let model = *chance.pick(&["best", "best", "middle", "light"]);
        let original = recorded["expect"]["model"].as_str().unwrap_or_default();
        let renamed = |text: &str| match original {
            "" => text.to_owned(),
            name => text.replace(name, model),
        };
        let body = renamed(request["body"].as_str().unwrap_or_default());
        let body = changed(chance, body);
        let mut headers = vec![
            (
                ":method".to_owned(),
                request["method"].as_str().unwrap_or("POST").to_owned(),
            ),
            (
                ":path".to_owned(),
                renamed(request["path"].as_str().unwrap_or_default()),
            ),
            (":authority".to_owned(), "llm.test".to_owned()),
            (
                "x-tenant-id".to_owned(),
                (*chance.pick(&TENANTS)).to_owned(),
            ),
        ];
        headers.extend(pairs(&request["headers"]));
        if !chance.one_in(4) {
            headers.push(("content-length".to_owned(), body.len().to_string()));
        }
        Exchange {
            api: recorded["api"].as_str().unwrap_or_default().to_owned(),
            request: Message {
                headers,
                chunks: chance.chunks(body.as_bytes()),
                is_cut: chance.one_in(40),
            },
            answer: answer(chance, &recorded["response"]),
            pause_nanos: [0, 0, 1_000_000, 5_000_000_000][chance.below(4)],
        }
    }
}

fn pairs(headers: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let headers = headers.as_object().into_iter().flatten();
    headers
        .map(|(name, value)| (name.to_lowercase(), text(value)))
        .collect()
}

/// A body that is somewhat else, one time in five.
fn changed(chance: &mut Chance, body: String) -> String {
    if !chance.one_in(5) || body.is_empty() {
        return body;
    }
    match chance.below(4) {
        0 => body.replace("\"max", "\"moox"),
        1 => format!(" \n{body}\n "),
        2 => {
            let mut at = chance.below(body.len());
            while !body.is_char_boundary(at) {
                at -= 1;
            }
            body[..at].to_owned()
        }
        _ => body.replacen('{', "{\"n\":2,", 1),
    }
}

fn answer(chance: &mut Chance, response: &Value) -> Message {
    let status = response["status"].as_u64().unwrap_or(200).to_string();
    let mut headers = vec![(":status".to_owned(), status)];
    headers.extend(pairs(&response["headers"]));
    let body = response["body"].as_str().unwrap_or_default().as_bytes();
    let is_cut = chance.one_in(8);
    let end = if is_cut {
        chance.below(body.len())
    } else {
        body.len()
    };
    Message {
        headers,
        chunks: chance.chunks(&body[..end]),
        is_cut,
    }
}
