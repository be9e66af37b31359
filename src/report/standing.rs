//! The standing of a tenant's limits, for gauges and for callers: how much of each is used, held and left, and when each starts anew.
//!
//! What requests in flight are *likely* to use is already subtracted from the remaining amount, as it is in marks and headers. The held
//! amount is the most that these requests may use.

use crate::base::units::{Timestamp, Unit};
use crate::calendar::window::{Period, Window};
use crate::lease::quota::Quota;
use crate::limits::account::Account;
use crate::limits::bucket::Bucket;
use crate::limits::budget::Budget;
use crate::limits::stacked::{BUCKET, BUDGET, Entry, Limit, Rule, State};
use crate::plan::Limits;
use crate::published::metric::Label;
use crate::state::record::Record;

/// The standing of one limit: how much of it is used, held and left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The limit's name.
    pub name: Label,
    /// What the limit counts.
    pub counted: Counted,
    /// How often the limit starts anew, or how long an empty bucket takes to fill; `None` for a limit of requests in flight.
    pub span: Option<Span>,
    /// How much may be used, including rollover and raise, but without overdraft.
    pub limit: u64,
    /// How much was used.
    pub used: u64,
    /// How much requests in flight may use.
    pub held: u64,
    /// How much is likely to be left once the requests in flight are settled.
    pub remaining: u64,
    /// The window that the used amount belongs to, if the window has begun and has an end.
    pub window: Option<Window>,
    /// When the used amount returns to 0; `None` if it never does, or if that is not known.
    pub resets: Option<Timestamp>,
    /// Whether callers of the tenants below the limit's owner may see it.
    pub is_visible: bool,
    /// How long these figures stay true if no request comes.
    pub(crate) holds_until: Timestamp,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Model tokens.
    Tokens,
    /// Millionths of a US dollar.
    UsdMicros,
    /// Requests.
    Requests,
}

/// How often a limit starts anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// A budget's window.
    Period(Period),
    /// The time in which a bucket fills, in nanoseconds.
    Refill(u64),
}

impl Counted {
    /// The limit's word in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::UsdMicros => "usd_micros",
            Self::Requests => "requests",
        }
    }
}

impl From<Unit> for Counted {
    fn from(unit: Unit) -> Self {
        match unit {
            Unit::Tokens => Self::Tokens,
            Unit::UsdMicros => Self::UsdMicros,
        }
    }
}

/// The standings of all limits of a plan, in the plan's order. `record` must be as of `now`.
pub fn standings<'a>(
    limits: &'a Limits,
    record: &'a Record,
    now: Timestamp,
) -> impl Iterator<Item = Standing> + 'a {
    let budget = limits.budget.as_ref();
    let budget = budget.map(move |budget| of_budget(BUDGET.into(), budget, &record.account, now));
    let bucket = limits.bucket.as_ref();
    let bucket = bucket.map(move |quota| {
        let counted = Counted::Tokens;
        of_bucket(BUCKET.into(), counted, quota, record.bucket, now)
    });
    let others = limits.others.iter().zip(&record.others);
    let others = others.filter_map(move |(limit, entry)| of_other(limit, entry, now));
    budget.into_iter().chain(bucket).chain(others)
}

/// The name of each limit of a plan, with what it counts, in the plan's order.
pub(crate) fn counted(limits: &Limits) -> impl Iterator<Item = (&str, Counted)> {
    let budget = limits.budget.as_ref();
    let budget = budget.map(|budget| (BUDGET, budget.unit.into()));
    let bucket = limits.bucket.as_ref().map(|_| (BUCKET, Counted::Tokens));
    let others = limits.others.iter().map(|limit| {
        let counted = match &limit.rule {
            Rule::Budget(budget) => budget.unit.into(),
            Rule::Tokens(_) => Counted::Tokens,
            Rule::Requests(_) | Rule::Concurrency(_) => Counted::Requests,
        };
        (limit.name.as_str(), counted)
    });
    budget.into_iter().chain(bucket).chain(others)
}

fn of_other(limit: &Limit, entry: &Entry, now: Timestamp) -> Option<Standing> {
    let name = Label::from(&limit.name);
    let mut standing = match (&limit.rule, &entry.state) {
        (Rule::Budget(budget), State::Account(account)) => of_budget(name, budget, account, now),
        (Rule::Concurrency(slots), State::Account(account)) => Standing {
            counted: Counted::Requests,
            span: None,
            ..of_budget(name, slots, account, now)
        },
        (Rule::Tokens(quota), &State::Bucket(bucket)) => {
            of_bucket(name, Counted::Tokens, quota, bucket, now)
        }
        (Rule::Requests(quota), &State::Bucket(bucket)) => {
            of_bucket(name, Counted::Requests, quota, bucket, now)
        }
        (_, State::Account(_) | State::Bucket(_)) => return None,
    };
    standing.is_visible = limit.is_visible;
    Some(standing)
}

fn of_budget(name: Label, budget: &Budget, account: &Account, now: Timestamp) -> Standing {
    let window = account.window;
    // An idle window begins with its first request, and ends a while after its last one.
    let is_open = match budget.period {
        Period::Never => false,
        Period::Idle(_) => !account.is_untouched(),
        _ => true,
    };
    let open = is_open.then_some(window);
    let raised = budget.extra.map(|extra| extra.until);
    let expiry = budget.reservation_expiry;
    let expiries = account.holds.iter().map(|hold| hold.since.plus(expiry));
    let changes = expiries
        .chain([window.end])
        .chain(raised.filter(|until| *until > now));
    Standing {
        name,
        counted: budget.unit.into(),
        span: Some(Span::Period(budget.period)),
        limit: budget.allowance(account),
        used: budget.unit.of(account.spent),
        held: budget.unit.of(account.held()),
        remaining: budget.remaining(account),
        window: open,
        resets: open.map(|window| window.end),
        is_visible: false,
        holds_until: changes.min().unwrap_or(Timestamp::MAX),
    }
}

fn of_bucket(
    name: Label,
    counted: Counted,
    quota: &Quota,
    bucket: Bucket,
    now: Timestamp,
) -> Standing {
    let left = quota.available(bucket, now);
    Standing {
        name,
        counted,
        span: Some(Span::Refill(quota.window.get())),
        limit: quota.burst.get(),
        used: quota.refilled(bucket, now).used,
        held: 0,
        remaining: left,
        window: None,
        resets: Some(now.plus(quota.until_full(bucket, now))),
        is_visible: false,
        holds_until: match bucket.used {
            0 => Timestamp::MAX,
            _ => now,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::config::Config;
    use crate::limits::account::Reserve;
    use crate::limits::budget::tokens;
    use crate::tenant::TenantId;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Noon of a day in 2024.
    const NOON: u64 = 1_709_208_000;

    fn limits(json: &str) -> Limits {
        let config = format!(r#"{{"tenants": {{"acme": {json}}}}}"#);
        let config = Config::parse(config.as_bytes()).unwrap();
        let acme = TenantId::parse(b"acme").unwrap();
        config.plan(&acme).unwrap().limits.clone()
    }

    fn fresh(limits: &Limits, now: Timestamp) -> Record {
        let mut record = Record::default();
        crate::admission::ledger::roll_forward(&mut record, limits, now);
        record
    }

    #[test]
    fn a_budget_tells_what_is_used_held_and_likely_to_be_left() {
        let limits = limits(r#"{"budget": {"initial_budget": 1000, "window": "day"}}"#);
        let now = Timestamp::from_secs(NOON);
        let mut record = fresh(&limits, now);
        record.account.spent = tokens(300);
        let reserve = Reserve {
            cost: tokens(200),
            likely: tokens(50),
        };
        let budget = limits.budget.unwrap();
        let _held = record.account.reserve(reserve, &budget, now);
        let all: Vec<Standing> = standings(&limits, &record, now).collect();
        let [standing] = &all[..] else {
            unreachable!("there is one limit")
        };
        let midnight = Timestamp::from_secs(NOON + 43_200);
        assert_eq!(standing.name.as_str(), BUDGET);
        assert_eq!(
            (
                standing.limit,
                standing.used,
                standing.held,
                standing.remaining
            ),
            (1_000, 300, 200, 650)
        );
        assert_eq!(standing.resets, Some(midnight));
        // The hold expires half an hour later.
        assert_eq!(
            standing.holds_until,
            Timestamp::from_secs(NOON).plus(budget.reservation_expiry)
        );
    }

    #[test]
    fn what_never_starts_anew_or_has_not_begun_has_no_reset() {
        let all = limits(
            r#"{"budget": {"initial_budget": 1000, "window": "none"}, "concurrency": 3,
                "limits": [{"name": "run", "budget": {"initial_budget": 5, "window": {"idle": "2h"}}}]}"#,
        );
        let now = Timestamp::from_secs(NOON);
        let mut record = fresh(&all, now);
        let resets = |record: &Record| -> Vec<Timestamp> {
            standings(&all, record, now)
                .filter_map(|standing| standing.resets)
                .collect()
        };
        assert_eq!(resets(&record), []);
        let run = record.others.iter_mut().find_map(|entry| {
            let key = crate::base::name::LimitKey::of("run");
            entry.account_mut(key)
        });
        run.unwrap().spent = tokens(1);
        let later = Timestamp::from_secs(NOON + 7_200);
        assert_eq!(resets(&record), [later]);
    }

    #[test]
    fn a_bucket_changes_until_it_is_full() {
        let all = limits(
            r#"{"limits": [{"name": "rpm", "bucket": {"requests_per_window": 60, "window": "1m"}}]}"#,
        );
        let now = Timestamp::from_secs(NOON);
        let mut record = fresh(&all, now);
        let full: Vec<Standing> = standings(&all, &record, now).collect();
        assert_eq!(full[0].holds_until, Timestamp::MAX);
        assert_eq!(full[0].counted, Counted::Requests);
        if let State::Bucket(bucket) = &mut record.others[0].state {
            bucket.used = 10;
        }
        let used: Vec<Standing> = standings(&all, &record, now).collect();
        assert_eq!((used[0].used, used[0].remaining), (10, 50));
        assert_eq!(used[0].resets, Some(Timestamp::from_secs(NOON + 10)));
        assert_eq!(used[0].holds_until, now);
        assert_eq!(
            used[0].span,
            Some(Span::Refill(NonZeroU64::new(60_000_000_000).unwrap().get()))
        );
    }
}
