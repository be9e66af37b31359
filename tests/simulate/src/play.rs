//! Plays a day against bursar's core: the whole of an exchange, with a store in memory and a clock that is only reckoned.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::rc::Rc;

use bursar::base::units::Timestamp;
use bursar::config::Config;
use bursar::exchange::{Exchange, HeldBytes, Next, Step, Warm};
use bursar::health::pressed::PressureView;
use bursar::http::{Headers, Properties};
use bursar::limits::account::Account;
use bursar::report::log_fields::Field;
use bursar::report::metrics::Metric;
use bursar::state::record::Record;
use bursar::state::store::tenant_key;
use serde_json::{Value, json};

use crate::store::FakeStore;
use crate::tenants::{LADDER, MODEL, Request, TENANTS, budgets, configuration, cost, reserve};
use crate::trace::SECOND;

/// The day's first moment: a Wednesday in November 2023, in seconds since the epoch.
const MIDNIGHT: u64 = 1_699_920_000;

const HOUR: u64 = 3_600 * SECOND;

/// How fast the model writes, and how long it thinks before. Refused requests are not sent again.
const FOR_A_TOKEN: u64 = SECOND / 50;
const BEFORE_THE_FIRST: u64 = SECOND / 2;

/// What became of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub request: Request,
    /// Index into the ladder; `None` for one that was refused.
    pub tier: Option<usize>,
    /// Why it was not served as asked; empty if it was.
    pub reason: String,
}

/// Money that was spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    pub at: u64,
    pub tenant: usize,
    pub micros: u64,
    /// What is held for it so that it may cost whatever it can.
    pub held: u64,
    /// What the tenant's own budget really held.
    pub held_there: u64,
    /// What was counted that it used beyond that.
    pub told_over: u64,
}

/// A day under one configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct Day {
    pub budgets: Vec<u64>,
    /// By time.
    pub outcomes: Vec<Outcome>,
    /// By time.
    pub payments: Vec<Payment>,
    /// What the tenants' records say that was spent, in USD micros.
    pub records: Vec<u64>,
}

/// All requests, under budgets that are the same for all settings. `passed` gets each full hour of the day.
pub fn day(requests: &[Request], settings: &Value, passed: impl Fn(u64)) -> Day {
    let budgets = budgets(requests);
    let json = configuration(settings, &budgets);
    under(&json, budgets, requests, passed)
}

/// All requests under a configuration.
pub fn under(json: &Value, budgets: Vec<u64>, requests: &[Request], passed: impl Fn(u64)) -> Day {
    let config = Config::parse(json.to_string().as_bytes()).expect("the configuration is ours");
    let mut proxy = Proxy {
        config: Rc::new(config),
        store: FakeStore::default(),
        text: "a bursar keeps what was promised ".repeat(2_048),
    };
    let mut open = HashMap::new();
    let mut due = BinaryHeap::new();
    let mut outcomes = Vec::new();
    let mut payments = Vec::new();
    let mut hour = 0;
    for (number, request) in requests.iter().enumerate() {
        while let Some(&Reverse((at, number))) = due.peek()
            && at <= request.row.at
        {
            due.pop();
            payments.push(proxy.settle(open.remove(&number).expect("it was sent"), at));
        }
        if request.row.at / HOUR > hour {
            hour = request.row.at / HOUR;
            passed(hour);
        }
        let (outcome, sent) = proxy.send(*request);
        if let Some(sent) = sent {
            let takes = BEFORE_THE_FIRST + FOR_A_TOKEN * request.row.output;
            due.push(Reverse((request.row.at + takes, number)));
            open.insert(number, sent);
        }
        outcomes.push(outcome);
    }
    while let Some(Reverse((at, number))) = due.pop() {
        payments.push(proxy.settle(open.remove(&number).expect("it was sent"), at));
    }
    Day {
        records: TENANTS
            .iter()
            .map(|tenant| proxy.account(tenant.name).spent.usd.0)
            .collect(),
        budgets,
        outcomes,
        payments,
    }
}

/// A request that was sent on.
struct Sent {
    exchange: Exchange,
    request: Request,
    tier: usize,
    /// On its tenant's own budget.
    held: u64,
}

struct Proxy {
    config: Rc<Config>,
    store: FakeStore,
    /// What prompts are made of.
    text: String,
}

impl Proxy {
    fn send(&mut self, request: Request) -> (Outcome, Option<Sent>) {
        let now = at(request.row.at);
        let tenant = TENANTS[request.tenant].name;
        let before = self.account(tenant).held();
        let body = self.body(&request);
        let length = body.len().to_string();
        let headers = headers(&[
            (":method", "POST"),
            (":path", "/v1/chat/completions"),
            ("x-tenant-id", tenant),
            ("content-length", &length),
        ]);
        let mut exchange = Exchange::new(
            Rc::clone(&self.config),
            HeldBytes::default(),
            PressureView::default(),
            Warm::default(),
        );
        let step = exchange.request_headers(&headers, false, &self.store, &NoProperties, now);
        assert_eq!(step.next, Next::Pause, "it is held until its body is read");
        let step = exchange.request_body(body.as_bytes(), true, &self.store, now);
        let tier = match &step.next {
            Next::Continue => Some(tier(&step.fields)),
            Next::Reply(reply) => {
                assert_eq!(reply.status, 429, "nothing but limits refuses");
                None
            }
            Next::Pause | Next::Park => panic!("its body is complete"),
        };
        let outcome = Outcome {
            request,
            tier,
            reason: field(&step.fields, "bursar_reason"),
        };
        let sent = tier.map(|tier| Sent {
            exchange,
            request,
            tier,
            // What nothing has closed for half an hour is not held any more; no answer takes so long.
            held: self.account(tenant).held().minus(before).usd.0,
        });
        (outcome, sent)
    }

    /// As many bytes as the request has.
    fn body(&self, request: &Request) -> String {
        let max = request.max_tokens;
        let before = format!(
            r#"{{"model":"{MODEL}","max_tokens":{max},"messages":[{{"role":"user","content":""#
        );
        let after = r#""}]}"#;
        let length = (request.bytes as usize).saturating_sub(before.len() + after.len());
        let mut body = String::with_capacity(before.len() + length + after.len());
        body += &before;
        while body.len() - before.len() < length {
            let left = length - (body.len() - before.len());
            body += &self.text[..left.min(self.text.len())];
        }
        body += after;
        body
    }

    /// The answer of an honest provider.
    fn settle(&mut self, mut sent: Sent, nanos: u64) -> Payment {
        let now = at(nanos);
        let row = sent.request.row;
        let total = row.prompt + row.output;
        let cached = sent.request.cached;
        let usage = json!({
            "prompt_tokens": row.prompt, "completion_tokens": row.output, "total_tokens": total,
            "prompt_tokens_details": {"cached_tokens": cached}
        });
        let body = json!({"object": "chat.completion", "usage": usage}).to_string();
        let headers = headers(&[(":status", "200"), ("content-type", "application/json")]);
        let exchange = &mut sent.exchange;
        let steps: [Step; 3] = [
            exchange.response_headers(&headers, false, &self.store, &NoProperties, now),
            exchange.response_body(body.as_bytes(), true, &self.store, now),
            exchange.finish(&self.store, &NoProperties, now),
        ];
        let by = steps
            .iter()
            .map(|step| field(&step.fields, "bursar_settled_by"));
        assert_eq!(by.collect::<String>(), "usage", "it is settled once");
        Payment {
            at: nanos,
            tenant: sent.request.tenant,
            micros: cost(sent.tier, row, cached),
            held: reserve(sent.tier, &sent.request),
            held_there: sent.held,
            told_over: steps.iter().map(told_over).sum(),
        }
    }

    fn account(&self, tenant: &str) -> Account {
        let bytes = self.store.value(&tenant_key(tenant));
        bytes.map_or_else(Account::default, |bytes| {
            let record = Record::decode(&bytes).expect("the core has written it");
            record.account
        })
    }
}

fn at(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(MIDNIGHT * SECOND + nanos)
}

fn headers(list: &[(&str, &str)]) -> Headers {
    list.iter().copied().collect()
}

/// A field of the access log; empty if it is not there.
fn field(fields: &[Field], name: &str) -> String {
    fields
        .iter()
        .find(|(key, _)| key.property() == name)
        .map_or_else(String::new, |(_, value)| value.to_string())
}

/// What a step has counted as used beyond what was held.
fn told_over(step: &Step) -> u64 {
    let counted = step.metrics.iter().map(|metric| match metric {
        Metric::Add(series, by) if series.name().starts_with("bursar_over_hold_total.") => *by,
        _ => 0,
    });
    counted.sum()
}

fn tier(fields: &[Field]) -> usize {
    let name = field(fields, "bursar_tier");
    let found = LADDER.iter().position(|tier| tier.name == name);
    found.expect("it is served by a tier of the ladder")
}

struct NoProperties;

impl Properties for NoProperties {
    fn property(&self, _: &[String]) -> Option<Vec<u8>> {
        None
    }
}
