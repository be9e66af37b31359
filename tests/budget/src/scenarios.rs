//! What is sent, and what must come of it: a scenario that went another way would have measured something else.

use crate::messages::{
    ASKED, answer, body_of_answer, lines, listing, many_keys, many_tools, prompt, request, stream,
    tiny_messages,
};
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
