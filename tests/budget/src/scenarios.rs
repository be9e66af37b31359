//! What is sent, and what must come of it: a scenario that went another way would have measured something else.

use crate::proxy::{Compiled, Cost, Fault, Message, Outcome, Vm};

/// Requests of the same kind that come before the one that is measured: metrics are defined, records are there.
const WARM_UP: usize = 4;

/// One line of the table.
pub struct Scenario {
    pub name: &'static str,
    what: What,
}

enum What {
    /// An exchange, under a configuration of ten tenants.
    Exchange(Exchange),
    /// The same with budgets and buckets that are one for all proxies.
    Shared(Exchange),
    /// A configuration with so many tenants.
    Configure(usize),
}

struct Exchange {
    hold_headers: bool,
    request: Message,
    answer: Message,
    /// Status, model that is served, decision (empty: unmetered).
    expected: (u32, &'static str, &'static str),
}

const ASKED: &str = "gpt-4o";
const LIGHTER: &str = "gpt-4o-mini";

pub fn all() -> Vec<Scenario> {
    let held = |tenant, body: usize, chunk, answer, expected| {
        What::Exchange(Exchange {
            hold_headers: true,
            request: request(tenant, &prompt(body), chunk, true),
            answer,
            expected,
        })
    };
    let dense = What::Exchange(Exchange {
        hold_headers: true,
        request: request("low", &tiny_messages(64_000), 65_536, true),
        answer: answer(),
        expected: (200, LIGHTER, "downgrade"),
    });
    let tools = What::Exchange(Exchange {
        hold_headers: false,
        request: request("low", &many_tools(2_000), 1, false),
        answer: stream(Some(65_536)),
        expected: (200, LIGHTER, "downgrade"),
    });
    let shared = |what| match what {
        What::Exchange(exchange) => What::Shared(exchange),
        other => other,
    };
    let passing = |tenant, body: usize, chunk, expected| {
        What::Exchange(Exchange {
            hold_headers: false,
            request: request(tenant, &prompt(body), chunk, false),
            answer: answer(),
            expected,
        })
    };
    let admit = (200, ASKED, "admit");
    let downgrade = (200, LIGHTER, "downgrade");
    let none = What::Exchange(Exchange {
        hold_headers: true,
        request: listing(),
        answer: answer(),
        expected: (200, "", ""),
    });
    [
        ("unmetered", none),
        (
            "held-2k-admit",
            held("tenant-0", 2_000, 65_536, answer(), admit),
        ),
        (
            "held-2k-downgrade",
            held("low", 2_000, 65_536, answer(), downgrade),
        ),
        (
            "held-2k-refuse",
            held("spent", 2_000, 65_536, answer(), (429, ASKED, "throttle")),
        ),
        ("pass-2k-admit", passing("tenant-0", 2_000, 65_536, admit)),
        (
            "pass-2k-downgrade",
            passing("low", 2_000, 65_536, downgrade),
        ),
        (
            "held-128k-downgrade",
            held("low", 128_000, 65_536, answer(), downgrade),
        ),
        (
            "held-1m-by-64k",
            held("low", 1_000_000, 65_536, answer(), downgrade),
        ),
        ("held-64k-dense", dense),
        // A client chooses its chunks: in HTTP/2 each frame of one byte is a callback.
        (
            "held-64k-by-byte",
            held("low", 64_000, 1, answer(), downgrade),
        ),
        (
            "pass-1m-by-16k",
            passing("low", 1_000_000, 16_384, downgrade),
        ),
        (
            "sse-by-event",
            held("tenant-0", 2_000, 65_536, stream(None), admit),
        ),
        (
            "sse-by-4k",
            held("tenant-0", 2_000, 65_536, stream(Some(4_096)), admit),
        ),
        (
            "sse-by-64k",
            held("tenant-0", 2_000, 65_536, stream(Some(65_536)), admit),
        ),
        // An upstream chooses its chunks and its lines: here lines that say nothing, and an answer after them.
        (
            "sse-64k-of-lines",
            held("tenant-0", 2_000, 65_536, lines(64_000), admit),
        ),
        // A client chooses its keys: none of them may take memory of its own to be compared.
        (
            "held-64k-of-keys",
            What::Exchange(Exchange {
                hold_headers: true,
                request: request("low", &many_keys(64_000), 65_536, true),
                answer: answer(),
                expected: (200, LIGHTER, "downgrade"),
            }),
        ),
        (
            "held-2k-admit-shared",
            shared(held("tenant-0", 2_000, 65_536, answer(), admit)),
        ),
        (
            "held-2k-refuse-shared",
            shared(held(
                "spent",
                2_000,
                65_536,
                answer(),
                (429, ASKED, "throttle"),
            )),
        ),
        (
            "pass-2k-admit-shared",
            shared(passing("tenant-0", 2_000, 65_536, admit)),
        ),
        (
            "sse-by-event-shared",
            shared(held("tenant-0", 2_000, 65_536, stream(None), admit)),
        ),
        // Tools are only counted, and a stream's options are changed.
        ("pass-2k-tools-by-byte", tools),
        ("configure-10", What::Configure(10)),
        ("configure-1000", What::Configure(1_000)),
        ("configure-10000", What::Configure(10_000)),
    ]
    .map(|(name, what)| Scenario { name, what })
    .into()
}

impl Scenario {
    pub fn measure(&self, module: &Compiled) -> Result<Cost, Fault> {
        let (exchange, is_shared) = match &self.what {
            What::Configure(tenants) => {
                let configuration = configuration(*tenants, true, false);
                return Ok(Vm::configured(module, &configuration)?.1);
            }
            What::Exchange(exchange) => (exchange, false),
            What::Shared(exchange) => (exchange, true),
        };
        let configuration = configuration(10, exchange.hold_headers, is_shared);
        let (mut vm, _) = Vm::configured(module, &configuration)?;
        // Tenants that have used nearly all, and all, of their budget.
        for (tenant, used) in [("low", 17_000_000), ("spent", 1_000_000)] {
            let request = request(tenant, &prompt(100), 65_536, exchange.hold_headers);
            let body = body_of_answer(used).into_bytes();
            let answer = Message {
                chunks: vec![body],
                ..answer()
            };
            if is_shared {
                // Nothing is granted yet.
                vm.exchange(&request, &answer)?;
                vm.tick()?;
            }
            vm.exchange(&request, &answer)?;
        }
        if is_shared {
            vm.exchange(&exchange.request, &exchange.answer)?;
        }
        for _ in 0..WARM_UP {
            if is_shared {
                vm.tick()?;
            }
            exchange.check(&vm.exchange(&exchange.request, &exchange.answer)?)?;
        }
        vm.tick()?;
        vm.begin()?;
        let outcome = vm.exchange(&exchange.request, &exchange.answer)?;
        let cost = vm.cost()?;
        exchange.check(&outcome)?;
        Ok(cost)
    }
}

impl Exchange {
    fn check(&self, outcome: &Outcome) -> Result<(), Fault> {
        let (status, model, decision) = self.expected;
        let field = |key| outcome.fields.get(key).map_or("", String::as_str);
        let is_served = status == 200 && !decision.is_empty();
        let upstream = String::from_utf8_lossy(&outcome.upstream);
        let named = format!("\"model\":\"{model}\"");
        let is_so = outcome.status == status
            && field("bursar_decision") == decision
            && (decision.is_empty() || field("bursar_model") == model)
            && (!is_served || field("bursar_settled_by") == "usage" && upstream.contains(&named));
        if is_so {
            return Ok(());
        }
        let (status, fields) = (outcome.status, &outcome.fields);
        let upstream: String = upstream.chars().rev().take(60).collect();
        Err(format!(
            "went another way: {status} {fields:?} {:?}",
            upstream.chars().rev().collect::<String>()
        )
        .into())
    }
}

/// Every limit and header that there is; most tenants have only a plan, some a limit of their own.
fn configuration(tenants: usize, hold_headers: bool, is_shared: bool) -> String {
    let global = match is_shared {
        true => r#""global": {"redis": {"cluster": "store"}, "domain": "llm"},"#,
        false => "",
    };
    // First requests are not what is measured; and what is degraded cannot be shared.
    let [cold, degrades] = match is_shared {
        true => [r#""cold": "deny", "#, r#""scope": "proxy", "#],
        false => [""; 2],
    };
    let tenant = |index: usize| match index % 10 {
        0 => format!(
            r#""tenant-{index}": {{"plan": "gold", "budget": {{"initial_budget": {}}}}}"#,
            2_000_000 + index
        ),
        _ => format!(r#""tenant-{index}": {{"plan": "gold"}}"#),
    };
    let tenants: Vec<String> = (0..tenants).map(tenant).collect();
    let tenants = tenants.join(",\n");
    format!(
        r#"{{
  {global}
  "hold_headers": {hold_headers}, "hold_bytes": 4194304,
  "tiers": [
    {{"name": "default", "model": "{ASKED}", "price": {{"input": 2.5, "cached_input": 1.25, "output": 10}}}},
    {{"name": "standard", "model": "gpt-4.1-mini", "below": 0.3, "price": {{"input": 0.4, "cached_input": 0.1, "output": 1.6}}}},
    {{"name": "compact", "model": "{LIGHTER}", "below": 0.2, "price": {{"input": 0.15, "cached_input": 0.075, "output": 0.6}}}}
  ],
  "plans": {{
    "gold": {{
      {cold}"budget": {{"initial_budget": 10000000, "window": "month"}},
      "bucket": {{"tokens_per_window": 6000000, "window": "1m"}}
    }},
    "low": {{{degrades}"budget": {{"initial_budget": 20000000, "window": "month"}}, "low_water_mark": 0.9,
      "bucket": {{"tokens_per_window": 60000000, "window": "1s"}}, "on_exhausted": {{"degrade": {{"overdraft": 1}}}}}},
    "spent": {{{cold}"budget": {{"initial_budget": 1000000, "window": "month"}}, "never_downgrade": true}}
  }},
  "tenants": {{"low": {{"plan": "low"}}, "spent": {{"plan": "spent"}},
{tenants}
  }}
}}"#
    )
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// A request as OpenAI's SDK for Python sends it, as Envoy shows it to its filters.
fn request(tenant: &str, body: &str, chunk: usize, has_length: bool) -> Message {
    let mut headers = pairs(&[
        (":authority", "llm.example.com"),
        (":path", "/v1/chat/completions"),
        (":method", "POST"),
        (":scheme", "http"),
        ("accept-encoding", "gzip, deflate"),
        ("accept", "application/json"),
        ("content-type", "application/json"),
        ("user-agent", "OpenAI/Python 1.99.1"),
        ("x-stainless-lang", "python"),
        ("x-stainless-package-version", "1.99.1"),
        ("x-stainless-os", "Linux"),
        ("x-stainless-arch", "x64"),
        ("x-stainless-runtime", "CPython"),
        ("x-stainless-runtime-version", "3.12.3"),
        (
            "authorization",
            "Bearer sk-0123456789abcdefghijklmnopqrstuvwxyz0123456789",
        ),
        ("x-stainless-async", "false"),
        ("x-stainless-retry-count", "0"),
        ("x-stainless-read-timeout", "600"),
        ("x-tenant-id", tenant),
        ("x-forwarded-proto", "http"),
        ("x-request-id", "d2e1b1f0-7b8a-4f0e-9f63-5a9c1f7d3f10"),
        ("x-envoy-expected-rq-timeout-ms", "15000"),
    ]);
    if has_length {
        headers.push(("content-length".to_owned(), body.len().to_string()));
    }
    Message {
        headers,
        chunks: chunks(body.as_bytes(), chunk),
        ..Message::default()
    }
}

fn listing() -> Message {
    let mut request = request("tenant-0", "", 1, false);
    request.chunks.clear();
    for (name, value) in &mut request.headers {
        match name.as_str() {
            ":method" => "GET".clone_into(value),
            ":path" => "/v1/models".clone_into(value),
            _ => {}
        }
    }
    request
}

/// About so many bytes of a chat, `model` last as that SDK writes it: words, with an escape now and then.
fn prompt(size: usize) -> String {
    let words = [
        "the",
        "invoice",
        "of",
        "March",
        "is",
        "larger",
        "than",
        "expected,",
        "because",
        "two",
        "tenants",
        "were",
        "moved",
        "to",
        "the",
        "plan",
        "without",
        "a",
        "limit.\\n",
        "She",
        "said",
        "\\\"later\\\"",
        "and",
        "left",
        "für",
        "Łódź",
    ];
    let mut body = String::from(
        r#"{"messages":[{"role":"system","content":"You are a helpful assistant."},{"role":"user","content":""#,
    );
    let mut state = 1_u64;
    while body.len() + 70 < size {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        body += words[(state >> 33) as usize % words.len()];
        body += " ";
    }
    body + r#""}],"max_tokens":256,"temperature":0.2,"model":""# + ASKED + r#""}"#
}

/// About so many bytes of a chat that is all structure.
fn tiny_messages(size: usize) -> String {
    let turn = r#"{"role":"user","content":"Hi"},{"role":"assistant","content":[{"type":"text","text":"ok"}]},"#;
    let turns = turn.repeat(size / turn.len());
    let last = r#"{"role":"user","content":"So?"}"#;
    format!(r#"{{"messages":[{turns}{last}],"max_tokens":256,"model":"{ASKED}"}}"#)
}

fn chunks(body: &[u8], size: usize) -> Vec<Vec<u8>> {
    body.chunks(size).map(<[u8]>::to_vec).collect()
}

fn headers_of_answer(content_type: &str) -> Vec<(String, String)> {
    pairs(&[
        (":status", "200"),
        ("date", "Thu, 15 Jan 2026 12:00:00 GMT"),
        ("content-type", content_type),
        ("openai-organization", "example"),
        ("openai-processing-ms", "312"),
        ("openai-version", "2020-10-01"),
        ("x-ratelimit-limit-requests", "10000"),
        ("x-ratelimit-limit-tokens", "2000000"),
        ("x-ratelimit-remaining-requests", "9999"),
        ("x-ratelimit-remaining-tokens", "1999975"),
        ("x-ratelimit-reset-requests", "6ms"),
        ("x-ratelimit-reset-tokens", "0s"),
        ("x-request-id", "req_0123456789abcdef0123456789abcdef"),
        ("server", "envoy"),
        ("x-envoy-upstream-service-time", "314"),
    ])
}

fn body_of_answer(used: u64) -> String {
    let usage = format!(
        r#"{{"prompt_tokens":{used},"completion_tokens":38,"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":0}}}}"#,
        used + 38
    );
    let text = "It is larger since two tenants have no limit any more. ".repeat(4);
    format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1768478400,"model":"gpt-4o-2024-08-06","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{usage}}}"#
    )
}

fn answer() -> Message {
    let body = body_of_answer(61);
    let mut headers = headers_of_answer("application/json");
    headers.push(("content-length".to_owned(), body.len().to_string()));
    Message {
        headers,
        chunks: chunks(body.as_bytes(), 65_536),
        ..Message::default()
    }
}

/// A stream whose first event has so many bytes of lines that are no data, and two that are.
fn lines(size: usize) -> Message {
    let Message {
        headers, chunks, ..
    } = stream(Some(usize::MAX));
    let answer = [
        ":\n".repeat(size / 2).into_bytes(),
        b"data: \n".to_vec(),
        chunks.concat(),
    ]
    .concat();
    Message {
        headers,
        chunks: vec![answer],
        ..Message::default()
    }
}

/// A request of about so many bytes with a long list of tools, behind options of nearly 1 KB for its stream.
fn many_tools(size: usize) -> String {
    let options: Vec<String> = (0..100)
        .map(|index| format!(r#""o{index}":{index}"#))
        .collect();
    let tools = vec!["7"; size / 2].join(",");
    format!(
        r#"{{"model":"{ASKED}","stream":true,"stream_options":{{{}}},"tools":[{tools}],"messages":[{{"role":"user","content":"Hello"}}]}}"#,
        options.join(",")
    )
}

/// A body of keys that are not ASCII or have escapes, some of them as long as those that matter.
fn many_keys(size: usize) -> String {
    let keys = r#""é":1,"\u0065":1,"mod\u00e9l":1,"Straße":1,"\u006d\u006f\u0064\u0065":1,"#;
    let keys = keys.repeat(size / 2 / keys.len());
    let message = format!(r#"{{{keys}"role":"user","content":"Hi"}}"#);
    format!(r#"{{{keys}"messages":[{message}],"max_tokens":256,"model":"{ASKED}"}}"#)
}

/// 200 events and the usage that bursar asked for; `None`: each event by itself.
fn stream(chunk: Option<usize>) -> Message {
    let event = |rest: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1768478400,\"model\":\"gpt-4o-2024-08-06\",\
             \"service_tier\":\"default\",\"system_fingerprint\":\"fp_ee1d74bde0\",{rest}}}\n\n"
        )
    };
    let delta = |index: usize| {
        event(&format!(
            r#""choices":[{{"index":0,"delta":{{"content":" word{index}"}},"logprobs":null,"finish_reason":null}}],"usage":null"#
        ))
    };
    let usage = event(
        r#""choices":[],"usage":{"prompt_tokens":61,"completion_tokens":200,"total_tokens":261}"#,
    );
    let mut events: Vec<String> = (0..200).map(delta).collect();
    events.push(usage);
    events.push("data: [DONE]\n\n".to_owned());
    let chunks = match chunk {
        None => events.into_iter().map(String::into_bytes).collect(),
        Some(size) => chunks(events.concat().as_bytes(), size),
    };
    Message {
        headers: headers_of_answer("text/event-stream"),
        chunks,
        ..Message::default()
    }
}
