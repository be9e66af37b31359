//! What is told of a request, word for word as bursar tells it of one of 2 KB in this benchmark.

pub(crate) type Pair = (&'static str, &'static str);

pub(crate) const ASKED: &[u8] = b"\"model\":\"gpt-4o\"";
pub(crate) const SERVED: &[u8] = b"\"model\":\"gpt-4o-mini\"";

/// Headers of the answer.
pub(crate) const RESPONSE: [Pair; 10] = [
    ("x-bursar-tier", "compact"),
    ("x-bursar-model", "gpt-4o-mini"),
    ("x-bursar-requested-model", "gpt-4o"),
    ("x-bursar-decision", "downgrade"),
    ("x-bursar-reason", "budget_low"),
    ("x-ratelimit-limit-tokens", "1000000000000"),
    ("x-ratelimit-remaining-tokens", "999999998976"),
    ("x-ratelimit-reset-tokens", "1ms"),
    (
        "ratelimit-policy",
        "\"bucket\";q=1000000000000;w=60, \"budget\";q=1000000000000;qu=\"usd-micros\";w=2592000",
    ),
    (
        "ratelimit",
        "\"bucket\";r=999999998976;t=1, \"budget\";r=999999990000;t=500000",
    ),
];

/// The access log's text.
pub(crate) const LOG: Pair = (
    "bursar",
    r#"{"tenant":"tenant-0000000","plan":"gold","tier":"compact","requested_model":"gpt-4o","model":"gpt-4o-mini","decision":"downgrade","reason":"budget_low","mark":0.2,"input_tokens":412,"cached_tokens":0,"output_tokens":96,"charged":119,"settled_by":"usage","remaining":999999990000}"#,
);

/// Counters of a request that is downgraded and settled; the first [`AT_DECISION`] when it is decided.
pub(crate) const COUNTERS: [&str; 8] = [
    "calls_requests_total.tenant=.=tenant-0000000;.;tier=.=compact;.;decision=.=downgrade;.;",
    "calls_downgraded_total.tenant=.=tenant-0000000;.;tier=.=compact;.;reason=.=budget_low;.;",
    "calls_settlements_total.by=.=usage;.;",
    "calls_exits_total.cause=.=answered;.;",
    "calls_tokens_total.tenant=.=tenant-0000000;.;tier=.=compact;.;model=.=gpt-4o-mini;.;kind=.=input;.;",
    "calls_tokens_total.tenant=.=tenant-0000000;.;tier=.=compact;.;model=.=gpt-4o-mini;.;kind=.=output;.;",
    "calls_spend_total.tenant=.=tenant-0000000;.;tier=.=compact;.;model=.=gpt-4o-mini;.;",
    "calls_saved_total.tenant=.=tenant-0000000;.;",
];
pub(crate) const AT_DECISION: usize = 2;

pub(crate) const GAUGE: &str = "calls_budget_remaining.tenant=.=tenant-0000000;.;";
