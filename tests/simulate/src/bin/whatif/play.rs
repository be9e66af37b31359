//! Plays a log's requests through bursar's core under another configuration, each at its time and for as long as it took.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use bursar::base::units::{Timestamp, Tokens};
use bursar::config::Config;
use bursar::exchange::{Exchange, HeldBytes, Next, Step, Warm};
use bursar::health::pressed::PressureView;
use bursar::http::{Headers, Properties};
use bursar::report::metrics::Metric;
use bursar::tier::place;
use bursar::usage::Usage;
use serde_json::{Value, json};

use crate::log::{Entry, Fate};
use crate::store::FakeStore;

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub fate: Fate,
    /// Why it is not served as it asked; empty if it is.
    pub reason: String,
    /// In millionths of a dollar.
    pub spend: u64,
    pub saved: u64,
}

/// Where a played request shows its tenant, and its plan.
const TENANT: &str = "x-whatif-tenant";
const PLAN: &str = "x-whatif-plan";

/// The configuration as it is played: the log says whose a request was, one proxy is all there is, and no body is too long.
///
/// # Errors
/// What is wrong with it, as `make check` says.
pub fn configuration(text: &str) -> Result<Config, String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    Config::parse(text.as_bytes()).map_err(|error| told(&error))?;
    let mut config: Value = serde_json::from_str(text).map_err(|error| told(&error))?;
    for key in ["hosts", "global", "serve"] {
        config.as_object_mut().map(|all| all.remove(key));
    }
    for key in ["scope", "when_unreachable", "cold"] {
        without(&mut config["plans"], key);
        without(&mut config["tenants"], key);
    }
    if config["tenant"].is_null() {
        config["tenant"] = json!({});
    }
    config["tenant"]["from"] = json!([{"header": TENANT}]);
    if !config["plan_from"].is_null() {
        config["plan_from"] = json!([{"header": PLAN}]);
    }
    for (_, subject) in config["subjects"].as_object_mut().into_iter().flatten() {
        subject["missing"] = "pass".into();
    }
    config["hold_headers"] = true.into();
    for key in ["hold_bytes", "held_bytes_per_worker"] {
        config[key] = (1_u64 << 40).into();
    }
    // Keys that were looked at and are not there must not become null.
    if let Some(all) = config.as_object_mut() {
        all.retain(|_, value| !value.is_null());
    }
    Config::parse(config.to_string().as_bytes()).map_err(|error| told(&error))
}

/// Takes a key out of all objects.
fn without(value: &mut Value, key: &str) {
    match value {
        Value::Object(all) => {
            all.remove(key);
            all.values_mut().for_each(|value| without(value, key));
        }
        Value::Array(all) => all.iter_mut().for_each(|value| without(value, key)),
        _ => {}
    }
}

/// What becomes of all requests.
pub fn play(entries: &[Entry], config: Config) -> Vec<Outcome> {
    let mut proxy = Proxy {
        config: Rc::new(config),
        store: FakeStore::default(),
    };
    let mut open: HashMap<usize, Exchange> = HashMap::new();
    let mut due = BinaryHeap::new();
    let mut outcomes: Vec<Outcome> = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        while let Some(&Reverse((at, number))) = due.peek()
            && at <= entry.at.as_nanos()
        {
            due.pop();
            proxy.end(&mut open, number, entries, at, &mut outcomes);
        }
        let (outcome, exchange) = proxy.send(entry);
        outcomes.push(outcome);
        if let Some(exchange) = exchange {
            due.push(Reverse((entry.at.as_nanos() + entry.took, number)));
            open.insert(number, exchange);
        }
    }
    while let Some(Reverse((at, number))) = due.pop() {
        proxy.end(&mut open, number, entries, at, &mut outcomes);
    }
    outcomes
}

/// What a request that was lowered had cost at the model that it asked for, by the new prices, beyond what it did cost.
pub fn saved(entry: &Entry, config: &Config) -> u64 {
    if entry.fate != Fate::Lowered {
        return 0;
    }
    let asked = place(&config.ladders, &entry.model);
    let tier = asked.and_then(|place| place.ladder.tiers.get(place.asked));
    let usage = Usage {
        input: Some(Tokens(entry.usage.input)),
        cached_input: Some(Tokens(entry.usage.cached)),
        output: Some(Tokens(entry.usage.output)),
        ..Usage::default()
    };
    let price = tier.and_then(|tier| tier.price.as_ref());
    price.map_or(0, |price| price.of(&usage).0.saturating_sub(entry.spend))
}

struct Proxy {
    config: Rc<Config>,
    store: FakeStore,
}

impl Proxy {
    fn send(&mut self, entry: &Entry) -> (Outcome, Option<Exchange>) {
        let body = body(entry);
        let length = body.len().to_string();
        let headers: Headers = [
            (":method", "POST"),
            (":path", "/v1/chat/completions"),
            (TENANT, &entry.tenant),
            (PLAN, &entry.plan),
            ("content-length", &length),
        ]
        .into_iter()
        .collect();
        let mut exchange = Exchange::new(
            Rc::clone(&self.config),
            HeldBytes::default(),
            PressureView::default(),
            Warm::default(),
        );
        let (store, now) = (&self.store, entry.at);
        let mut step = exchange.request_headers(&headers, false, store, &NoProperties, now);
        let mut fields = std::mem::take(&mut step.fields);
        if step.next == Next::Pause {
            step = exchange.request_body(body.as_bytes(), true, store, now);
            fields.append(&mut step.fields);
        }
        let said = |name: &str| {
            let mut all = fields.iter().rev();
            let found = all.find(|(field, _)| field.property() == name);
            found.map_or_else(String::new, |(_, value)| value.to_string())
        };
        let mut outcome = Outcome {
            fate: match said("bursar_decision").as_str() {
                "downgrade" => Fate::Lowered,
                _ => Fate::Served,
            },
            reason: said("bursar_reason"),
            spend: 0,
            saved: 0,
        };
        if let Next::Reply(reply) = &step.next {
            outcome.fate = Fate::Refused;
            if outcome.reason.is_empty() {
                outcome.reason = reply.details.trim_start_matches("bursar_").to_owned();
            }
            drop(exchange.finish(store, &NoProperties, now));
            return (outcome, None);
        }
        (outcome, Some(exchange))
    }

    /// The upstream answers as it did, and the request is over.
    fn end(
        &mut self,
        open: &mut HashMap<usize, Exchange>,
        number: usize,
        entries: &[Entry],
        at: u64,
        outcomes: &mut [Outcome],
    ) {
        let Some(mut exchange) = open.remove(&number) else {
            return;
        };
        let (entry, outcome) = (&entries[number], &mut outcomes[number]);
        let now = Timestamp::default().plus(Duration::from_nanos(at));
        let failed = entry.fate == Fate::Failed;
        let status = if failed { "503" } else { "200" };
        let headers = [(":status", status), ("content-type", "application/json")];
        let used = entry.usage;
        let usage = json!({
            "prompt_tokens": used.input,
            "completion_tokens": used.output,
            "total_tokens": used.input + used.output,
            "prompt_tokens_details": {"cached_tokens": used.cached}
        });
        let answer = match failed {
            true => json!({"error": {}}),
            false => {
                json!({"object": "chat.completion", "choices": [{"index": 0}], "usage": usage})
            }
        };
        let (store, none) = (&self.store, &NoProperties);
        let steps: [Step; 3] = [
            exchange.response_headers(&headers.into_iter().collect(), false, store, none, now),
            exchange.response_body(answer.to_string().as_bytes(), true, store, now),
            exchange.finish(store, none, now),
        ];
        for step in &steps {
            for (field, value) in &step.fields {
                if field.property() == "bursar_spend" {
                    outcome.spend = value.to_string().parse().unwrap_or_default();
                }
            }
            for metric in &step.metrics {
                if let Metric::Add(series, by) = metric
                    && series.name().starts_with("bursar_saved_total.")
                {
                    outcome.saved += by;
                }
            }
        }
        if failed {
            outcome.fate = Fate::Failed;
        }
    }
}

/// Four bytes for each token of the prompt, and the output's limit at what the answer had: the log does not know what was asked for.
fn body(entry: &Entry) -> String {
    let model = Value::from(entry.model.as_str());
    let most = entry.usage.output.max(1);
    let before =
        format!(r#"{{"model":{model},"max_tokens":{most},"messages":[{{"role":"user","content":""#);
    let after = r#""}]}"#;
    let length = usize::try_from(entry.usage.input.saturating_mul(4)).unwrap_or(usize::MAX);
    let length = length.saturating_sub(before.len() + after.len());
    [
        &before,
        "what was promised is kept, "
            .repeat(length / 27 + 1)
            .get(..length)
            .unwrap_or_default(),
        after,
    ]
    .concat()
}

struct NoProperties;

impl Properties for NoProperties {
    fn property(&self, _: &[String]) -> Option<Vec<u8>> {
        None
    }
}
