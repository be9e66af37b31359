//! The headers that report to callers how much is left of the limits.
//!
//! - `x-ratelimit-*-tokens` and `-requests`: in OpenAI's form (<https://platform.openai.com/docs/guides/rate-limits>).
//! - `ratelimit`, `ratelimit-policy`: draft-ietf-httpapi-ratelimit-headers-10.

use std::time::Duration;

use super::Header;
use crate::base::text::{Text, push_number};
use crate::base::units::Timestamp;
use crate::lease::quota::Quota;
use crate::limits::account::Account;
use crate::limits::bucket::Bucket;
use crate::limits::budget::Budget;
use crate::limits::capacity::Headroom;
use crate::limits::stacked::{BUCKET, BUDGET, Limit, Rule, State};
use crate::plan::Limits;
use crate::policy::{Book, Payer};
use crate::provider::{LimitNames, UpstreamLimit};
use crate::published::header_group::{HeaderGroup, HeaderGroups};
use crate::report::standing::Counted;
use crate::state::record::Record;

/// Headers with the tenant's limits, and with how much of each is left once all reservations are subtracted. `books`: limits of other
/// tenants that the request is also charged to; a parent's limits are reported only if they are visible. `room`: the capacity, if it
/// refuses the request; otherwise callers do not see capacity. `groups`: the groups of headers that the operator wants.
#[must_use]
pub fn limits(
    limits: &Limits,
    record: &Record,
    books: &[Book<'_>],
    room: Option<&Headroom>,
    groups: HeaderGroups,
    now: Timestamp,
) -> Vec<Header> {
    let is_wanted = |group| groups.contains(group);
    if !is_wanted(HeaderGroup::XRatelimit) && !is_wanted(HeaderGroup::Ratelimit) {
        return Vec::new();
    }
    let mut all = standings(limits, record, now);
    for book in books {
        all.extend(
            others(book.limits, book.record, now).filter_map(|(limit, status)| {
                (book.payer == Payer::Subject || limit.is_visible).then_some(status)
            }),
        );
    }
    all.extend(room.map(|room| capacity(room, now)));
    let mut headers = Vec::with_capacity(MOST);
    if is_wanted(HeaderGroup::XRatelimit) {
        headers.extend(strictest(&all, Counted::Tokens, &TOKENS));
        headers.extend(strictest(&all, Counted::Requests, &REQUESTS));
    }
    let standings = || all.iter();
    if standings().next().is_some() && is_wanted(HeaderGroup::Ratelimit) {
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

/// The most headers of our own that a response has.
const MOST: usize = 13;

/// An empty list with room for two limits; few responses list more limits.
fn list() -> Vec<u8> {
    Vec::with_capacity(96)
}

/// Headers in which an upstream reports its own limits, under the same names as ours.
pub const LIMITS: [&str; 8] = [
    TOKENS[0],
    TOKENS[1],
    TOKENS[2],
    REQUESTS[0],
    REQUESTS[1],
    REQUESTS[2],
    "ratelimit-policy",
    "ratelimit",
];

/// Replaces the tenant's figures for tokens or requests by the upstream's, if less is left of the upstream's limit. `refuses`: whether the
/// upstream refused the request. Then the tenant's figure would be too high, so it is removed if the upstream reports none. Returns the
/// names of the headers that stay as the upstream sent them.
pub fn stricter(
    ours: &mut Vec<Header>,
    theirs: [Option<UpstreamLimit<'_>>; 2],
    names: LimitNames,
    refuses: bool,
    now: Timestamp,
) -> Vec<&'static str> {
    let mut stays = Vec::new();
    for (told, theirs) in [TOKENS, REQUESTS].into_iter().zip(theirs) {
        let own = ours.iter().find_map(|(name, value)| match value {
            Text::Number(own) if *name == told[1] => Some(*own),
            _ => None,
        });
        let is_stricter = match (own, theirs) {
            (Some(own), Some(theirs)) => theirs.remaining < own,
            (Some(_), None) => refuses,
            (None, theirs) => theirs.is_some(),
        };
        if !is_stricter {
            continue;
        }
        if own.is_some() {
            ours.retain(|(name, _)| !told.contains(name));
        }
        let Some(theirs) = theirs else { continue };
        if names == LimitNames::OpenAi {
            stays.extend(told);
            continue;
        }
        let limit = theirs.limit.map(|limit| (told[0], limit.into()));
        let reset = theirs
            .reset(now)
            .map(|reset| (told[2], text(go_duration(reset))));
        let remaining = (told[1], theirs.remaining.into());
        ours.extend(limit.into_iter().chain([remaining]).chain(reset));
    }
    stays
}

/// The written bytes as text; they are ASCII.
fn text(written: Vec<u8>) -> Text {
    String::from_utf8(written).unwrap_or_default().into()
}

/// The names of limit, remaining and reset for tokens, in OpenAI's form.
const TOKENS: [&str; 3] = [
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
];

/// The names of limit, remaining and reset for requests, in OpenAI's form.
const REQUESTS: [&str; 3] = [
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
];

/// Adds the headers for the strictest of several limits: the one of which the least is left.
fn strictest<'a>(
    all: &'a [LimitStatus<'_>],
    counted: Counted,
    [limit, remaining, reset]: &'a [&'static str; 3],
) -> impl Iterator<Item = Header> + use<'a> {
    let these = all.iter().filter(move |status| status.counted == counted);
    let status = these.min_by_key(|status| status.left);
    status.into_iter().flat_map(move |status| {
        let when = status.reset.map(|when| (*reset, text(go_duration(when))));
        let both = [
            (*limit, status.quota.into()),
            (*remaining, status.left.into()),
        ];
        both.into_iter().chain(when)
    })
}

/// How much is left of one limit, and when it is full again.
struct LimitStatus<'a> {
    name: &'a str,
    counted: Counted,
    quota: u64,
    left: u64,
    window: Option<Duration>,
    reset: Option<Duration>,
}

/// The status of all limits that apply to every model. Limits of requests in flight are left out, since the number of these requests soon
/// changes.
fn standings<'a>(limits: &'a Limits, record: &'a Record, now: Timestamp) -> Vec<LimitStatus<'a>> {
    let mut all = Vec::with_capacity(limits.others.len().saturating_add(3));
    let bucket = limits.bucket.as_ref();
    all.extend(bucket.map(|quota| of_bucket(BUCKET, Counted::Tokens, quota, record.bucket, now)));
    let budget = limits.budget.as_ref();
    all.extend(budget.map(|budget| of_budget(BUDGET, budget, &record.account, now)));
    all.extend(others(limits, record, now).map(|(_, status)| status));
    all
}

fn others<'a>(
    limits: &'a Limits,
    record: &'a Record,
    now: Timestamp,
) -> impl Iterator<Item = (&'a Limit, LimitStatus<'a>)> {
    let all = limits.others.iter().zip(&record.others);
    all.filter_map(move |(limit, entry)| {
        let name = &limit.name;
        let status = match (&limit.rule, &entry.state) {
            _ if limit.models.is_some() => return None,
            (Rule::Budget(budget), State::Account(account)) => {
                of_budget(name, budget, account, now)
            }
            (Rule::Tokens(quota), &State::Bucket(bucket)) => {
                of_bucket(name, Counted::Tokens, quota, bucket, now)
            }
            (Rule::Requests(quota), &State::Bucket(bucket)) => {
                of_bucket(name, Counted::Requests, quota, bucket, now)
            }
            (_, State::Account(_) | State::Bucket(_)) => return None,
        };
        Some((limit, status))
    })
}

fn of_bucket<'a>(
    name: &'a str,
    counted: Counted,
    quota: &Quota,
    bucket: Bucket,
    now: Timestamp,
) -> LimitStatus<'a> {
    LimitStatus {
        name,
        counted,
        quota: quota.burst.get(),
        left: quota.available(bucket, now),
        window: Some(Duration::from_nanos(quota.window.get())),
        reset: Some(quota.until_full(bucket, now)),
    }
}

fn of_budget<'a>(
    name: &'a str,
    budget: &Budget,
    account: &Account,
    now: Timestamp,
) -> LimitStatus<'a> {
    let window = account.window;
    let ends = window.end != Timestamp::MAX;
    LimitStatus {
        name,
        counted: budget.unit.into(),
        quota: budget.allowance(account),
        left: budget.remaining(account),
        window: ends.then(|| window.length()),
        reset: ends.then(|| window.end.since(now)),
    }
}

/// The status of a capacity, for requests of the tenant's priority.
fn capacity(room: &Headroom, now: Timestamp) -> LimitStatus<'static> {
    let Headroom {
        capacity, priority, ..
    } = *room;
    let left = room.available(now);
    LimitStatus {
        name: "capacity",
        counted: Counted::Tokens,
        quota: capacity.share(priority),
        left,
        window: Some(Duration::from_nanos(capacity.quota.window.get())),
        reset: Some(room.until_whole(now)),
    }
}

impl LimitStatus<'_> {
    fn push_policy(&self, list: &mut Vec<u8>) {
        self.push_item(list, ";q=", self.quota);
        match self.counted {
            Counted::UsdMicros => list.extend_from_slice(b";qu=\"usd-micros\""),
            Counted::Requests => list.extend_from_slice(b";qu=\"requests\""),
            Counted::Tokens => {}
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

fn seconds_up(time: Duration) -> u64 {
    time.as_secs()
        .saturating_add(u64::from(time.subsec_nanos() > 0))
}

/// A duration in OpenAI's form, which is Go's: `17ms`, `1s`, `6m0s`, `1h0m30.5s`. Rounded up to a millisecond.
fn go_duration(time: Duration) -> Vec<u8> {
    let (secs, millis) = (time.as_secs(), time.subsec_nanos().div_ceil(1_000_000));
    // Room for the longest possible duration.
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
        // The first of three decimals.
        push_number(&mut text, (rest / 100).into());
        rest = (rest % 100).saturating_mul(10);
    }
    text.push(b's');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::units::Unit;
    use crate::calendar::window::Period;
    use crate::limits::budget::tokens;
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

    // A request has several limits. All apply, and the strictest is reported.
    #[test]
    fn the_strictest_limit_is_told_and_all_are_listed() {
        use std::num::NonZeroU64;
        let quota = Quota {
            tokens_per_window: NonZeroU64::new(60).unwrap(),
            window: NonZeroU64::new(60_000_000_000).unwrap(),
            burst: NonZeroU64::new(60).unwrap(),
            low_water_mark: None,
            share: None,
        };
        let budget = Budget {
            initial_budget: 1_000,
            unit: Unit::Tokens,
            period: Period::Hour,
            reservation_expiry: crate::limits::account::DEFAULT_EXPIRY,
            rollover: None,
            extra: None,
            share: None,
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
            limits(&plan, &record, &[], None, HeaderGroups::ALL, now),
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
            reservation_expiry: crate::limits::account::DEFAULT_EXPIRY,
            rollover: None,
            extra: None,
            share: None,
        };
        let plan = Limits {
            budget: Some(budget),
            ..Limits::default()
        };
        let account = Account::default().at(&budget, Timestamp::from_secs(1));
        let record = Record {
            account,
            ..Record::default()
        };
        assert_eq!(
            limits(
                &plan,
                &record,
                &[],
                None,
                HeaderGroups::ALL,
                Timestamp::from_secs(1)
            ),
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
