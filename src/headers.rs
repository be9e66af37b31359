//! Names and values of the headers that bursar sets.
//!
//! - `x-bursar-*`: our own, on the response and (the tier) on the request to the upstream.
//! - `x-ratelimit-*-tokens`: as OpenAI sends them (<https://platform.openai.com/docs/guides/rate-limits>).
//! - `ratelimit`, `ratelimit-policy`: draft-ietf-httpapi-ratelimit-headers-10.
//! - `retry-after` (RFC 9110, 10.2.3) and `retry-after-ms`, `x-should-retry`, which the OpenAI and Anthropic SDKs honour.

use std::time::Duration;

use crate::capacity::Room;
use crate::ledger::Unit;
use crate::policy::Limits;
use crate::record::Record;
use crate::telemetry::{Decided, Shadow, plain};
use crate::text::{Text, push_number};
use crate::units::Timestamp;

/// What all of our own headers begin with; a client's are removed.
pub const PREFIX: &str = "x-bursar-";
/// The tier that serves the request.
pub const TIER: &str = "x-bursar-tier";
/// The model that was sent upstream.
pub const MODEL: &str = "x-bursar-model";
/// The model that the client asked for.
pub const REQUESTED_MODEL: &str = "x-bursar-requested-model";
/// `admit`, `downgrade` or `throttle`.
pub const DECISION: &str = "x-bursar-decision";
/// Why, when it is not plain.
pub const REASON: &str = "x-bursar-reason";

/// Tokens that each answer may have, where bursar has limited them.
pub const MAX_OUTPUT_TOKENS: &str = "x-bursar-max-output-tokens";

/// What would have been done, in shadow mode.
pub const SHADOW: &str = "x-bursar-shadow";

/// Messages of the conversation that bursar has left out.
pub const TRIMMED_MESSAGES: &str = "x-bursar-trimmed-messages";

/// A header's name and value.
pub type Header = (&'static str, Text);

/// What the tenant's limits are and how much of them is left, reservations counted as gone. `room`: the capacity that
/// refuses the request, which else is nobody's business but the operator's.
#[must_use]
pub fn limits(
    limits: &Limits,
    record: &Record,
    room: Option<&Room>,
    now: Timestamp,
) -> Vec<Header> {
    let [bucket, budget] = standings(limits, record, now);
    let all = [bucket, budget, room.map(|room| capacity(room, now))];
    let standings = || all.iter().flatten();
    let mut headers = Vec::with_capacity(MOST);
    // Of several limits the strictest is told: the one with the least left.
    let strictest = standings()
        .filter(|standing| standing.unit == Unit::Tokens)
        .min_by_key(|standing| standing.left);
    if let Some(standing) = strictest {
        headers.push(("x-ratelimit-limit-tokens", standing.quota.into()));
        headers.push(("x-ratelimit-remaining-tokens", standing.left.into()));
        if let Some(reset) = standing.reset {
            headers.push(("x-ratelimit-reset-tokens", text(go_duration(reset))));
        }
    }
    if standings().next().is_some() {
        let (mut policy, mut left) = (list(), list());
        for standing in standings() {
            standing.push_policy(&mut policy);
            standing.push_left(&mut left);
        }
        headers.push(("ratelimit-policy", text(policy)));
        headers.push(("ratelimit", text(left)));
    }
    headers
}

/// As many headers as a response has of us.
const MOST: usize = 13;

/// Room for two limits; more are seldom listed.
fn list() -> Vec<u8> {
    Vec::with_capacity(96)
}

/// Our own headers about a decision; what is empty is left out.
pub fn decided(decided: Decided) -> impl Iterator<Item = Header> {
    let headers = [
        (TIER, decided.tier),
        (MODEL, decided.model),
        (REQUESTED_MODEL, decided.requested_model),
        (DECISION, decided.decision.into()),
        (REASON, decided.reason.into()),
    ];
    headers.into_iter().filter(|(_, value)| !value.is_empty())
}

/// Tells what would have been done.
#[must_use]
pub fn shadow(shadow: &Shadow) -> Header {
    (SHADOW, plain(&shadow.to_string()).into())
}

/// Tells that the output was limited.
#[must_use]
pub fn max_output_tokens(most: u64) -> Header {
    (MAX_OUTPUT_TOKENS, most.into())
}

/// Tells that a conversation was shortened.
#[must_use]
pub fn trimmed_messages(count: u64) -> Header {
    (TRIMMED_MESSAGES, count.into())
}

/// What an upstream says of its own limits, which are not the tenant's.
pub const LIMITS: [&str; 5] = [
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
    "ratelimit-policy",
    "ratelimit",
];

/// What was written, which is ASCII.
fn text(written: Vec<u8>) -> Text {
    String::from_utf8(written).unwrap_or_default().into()
}

/// How things stand with one limit.
struct Standing {
    name: &'static str,
    unit: Unit,
    quota: u64,
    left: u64,
    window: Option<Duration>,
    reset: Option<Duration>,
}

fn standings(limits: &Limits, record: &Record, now: Timestamp) -> [Option<Standing>; 2] {
    let bucket = limits.bucket.map(|quota| Standing {
        name: "bucket",
        unit: Unit::Tokens,
        quota: quota.burst.get(),
        left: quota.available(record.bucket, now),
        window: Some(Duration::from_nanos(quota.window.get())),
        reset: Some(quota.until_full(record.bucket, now)),
    });
    let budget = limits.budget.map(|budget| {
        let window = budget.period.at(now);
        let ends = window.end != Timestamp::MAX;
        Standing {
            name: "budget",
            unit: budget.unit,
            quota: budget.initial_budget,
            left: budget.remaining(&record.account),
            window: ends.then(|| window.length()),
            reset: ends.then(|| window.end.since(now)),
        }
    });
    [bucket, budget]
}

/// How things stand with a capacity for requests of the tenant's priority.
fn capacity(room: &Room, now: Timestamp) -> Standing {
    let Room {
        capacity, priority, ..
    } = *room;
    let left = room.available(now);
    Standing {
        name: "capacity",
        unit: Unit::Tokens,
        quota: capacity.share(priority),
        left,
        window: Some(Duration::from_nanos(capacity.quota.window.get())),
        reset: Some(room.until_whole(now)),
    }
}

impl Standing {
    fn push_policy(&self, list: &mut Vec<u8>) {
        self.push_item(list, ";q=", self.quota);
        if self.unit == Unit::UsdMicros {
            list.extend_from_slice(";qu=\"usd-micros\"".as_bytes());
        }
        if let Some(window) = self.window {
            list.extend_from_slice(";w=".as_bytes());
            push_number(list, window.as_secs().max(1));
        }
    }

    fn push_left(&self, list: &mut Vec<u8>) {
        self.push_item(list, ";r=", self.left);
        if let Some(reset) = self.reset {
            list.extend_from_slice(";t=".as_bytes());
            push_number(list, seconds_up(reset));
        }
    }

    /// An item of a list in a structured field (RFC 9651), with a parameter.
    fn push_item(&self, list: &mut Vec<u8>, key: &str, number: u64) {
        list.extend_from_slice(if list.is_empty() { b"\"" } else { b", \"" });
        list.extend_from_slice(self.name.as_bytes());
        list.push(b'"');
        list.extend_from_slice(key.as_bytes());
        push_number(list, number);
    }
}

/// The headers that tell a client when to come back: to the millisecond, and in whole seconds, both rounded up.
#[must_use]
pub fn retry_after(wait: Duration) -> [Header; 2] {
    let millis = millis_up(wait);
    [
        ("retry-after", millis.div_ceil(1_000).into()),
        ("retry-after-ms", millis.into()),
    ]
}

/// Tells the SDKs not to try again by themselves.
#[must_use]
pub fn do_not_retry() -> Header {
    ("x-should-retry", "false".into())
}

/// A wait in whole milliseconds, rounded up, and at least one.
#[must_use]
pub fn millis_up(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000))
        .unwrap_or(u64::MAX)
        .max(1)
}

fn seconds_up(time: Duration) -> u64 {
    time.as_secs()
        .saturating_add(u64::from(time.subsec_nanos() > 0))
}

/// A duration in OpenAI's form, which is Go's: `17ms`, `1s`, `6m0s`, `1h0m30.5s`. Rounded up to a millisecond.
fn go_duration(time: Duration) -> Vec<u8> {
    let (secs, millis) = (time.as_secs(), time.subsec_nanos().div_ceil(1_000_000));
    // No duration is longer.
    let mut text = Vec::with_capacity(32);
    if secs == 0 && millis < 1_000 {
        push_number(&mut text, millis.into());
        text.extend_from_slice("ms".as_bytes());
        return text;
    }
    let secs = secs.saturating_add(u64::from(millis == 1_000));
    let (hours, minutes) = (secs / 3_600, secs / 60 % 60);
    if hours > 0 {
        push_number(&mut text, hours);
        text.push(b'h');
    }
    if hours > 0 || minutes > 0 {
        push_number(&mut text, minutes);
        text.push(b'm');
    }
    push_number(&mut text, secs % 60);
    let mut rest = millis % 1_000;
    if rest > 0 {
        text.push(b'.');
    }
    while rest > 0 {
        // The first of three digits.
        push_number(&mut text, (rest / 100).into());
        rest = (rest % 100).saturating_mul(10);
    }
    text.push(b's');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Account, Budget, tokens};
    use crate::window::Period;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn durations_read_as_openai_writes_them() {
        for (millis, text) in [
            (0, "0ms"),
            (17, "17ms"),
            (1_000, "1s"),
            (1_500, "1.5s"),
            (360_000, "6m0s"),
            (3_630_050, "1h0m30.05s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text.as_bytes());
        }
        assert_eq!(go_duration(Duration::from_nanos(1)), "1ms".as_bytes());
        assert_eq!(
            go_duration(Duration::from_nanos(999_000_001)),
            "1s".as_bytes()
        );
        assert_eq!(
            go_duration(Duration::from_nanos(59_999_000_001)),
            "1m0s".as_bytes()
        );
    }

    #[test]
    fn a_wait_is_rounded_up_and_never_zero() {
        let values =
            |nanos| retry_after(Duration::from_nanos(nanos)).map(|(_, value)| value.to_string());
        assert_eq!(values(0), ["1", "1"]);
        assert_eq!(values(1_000_000_001), ["2", "1001"]);
        assert_eq!(values(2_000_000_000), ["2", "2000"]);
    }

    // cases.md 12
    #[test]
    fn the_strictest_limit_is_told_and_all_are_listed() {
        use std::num::NonZeroU64;
        let quota = crate::bucket::Quota {
            tokens_per_window: NonZeroU64::new(60).unwrap(),
            window: NonZeroU64::new(60_000_000_000).unwrap(),
            burst: NonZeroU64::new(60).unwrap(),
            low_water_mark: None,
        };
        let budget = Budget {
            initial_budget: 1_000,
            unit: Unit::Tokens,
            period: Period::Hour,
            reservation_expiry: crate::ledger::DEFAULT_EXPIRY,
        };
        let now = Timestamp::from_secs(3_600 * 10 + 60);
        let record = Record {
            bucket: quota.charge(Default::default(), 12, now),
            account: Account {
                spent: tokens(990),
                ..Account::default().at(&budget, now)
            },
            ..Record::default()
        };
        let plan = Limits {
            budget: Some(budget),
            bucket: Some(quota),
            ..Limits::default()
        };
        assert_eq!(
            limits(&plan, &record, None, now),
            [
                ("x-ratelimit-limit-tokens", "1000".into()),
                ("x-ratelimit-remaining-tokens", "10".into()),
                ("x-ratelimit-reset-tokens", "59m0s".into()),
                (
                    "ratelimit-policy",
                    "\"bucket\";q=60;w=60, \"budget\";q=1000;w=3600".into()
                ),
                (
                    "ratelimit",
                    "\"bucket\";r=48;t=12, \"budget\";r=10;t=3540".into()
                ),
            ]
        );
    }

    #[test]
    fn a_budget_in_money_is_listed_in_micros_and_told_in_no_token_header() {
        let budget = Budget {
            initial_budget: 5,
            unit: Unit::UsdMicros,
            period: Period::Never,
            reservation_expiry: crate::ledger::DEFAULT_EXPIRY,
        };
        let plan = Limits {
            budget: Some(budget),
            ..Limits::default()
        };
        assert_eq!(
            limits(&plan, &Record::default(), None, Timestamp::from_secs(1)),
            [
                (
                    "ratelimit-policy",
                    "\"budget\";q=5;qu=\"usd-micros\"".into()
                ),
                ("ratelimit", "\"budget\";r=5".into()),
            ]
        );
    }
}
