//! What plans and tenants may use: budgets, token buckets and what happens when they run low.

use std::num::NonZeroU64;
use std::time::Duration;

use super::capacity::priority;
use super::preferences::preferences;
use super::raw::{
    self, RawBucket, RawBudget, RawLimits, RawOnExhausted, RawPace, RawSla, RawSticky,
};
use super::tenants::client_header;
use super::{Parsed, mark, whole, wrong};
use crate::bucket::Quota;
use crate::latency::LONGEST;
use crate::ledger::{Budget, DEFAULT_EXPIRY, Unit};
use crate::pace::Pace;
use crate::policy::{Limits, OnExhausted, Sla, Sticky};
use crate::tier::Ladder;
use crate::units::{Ppm, Timestamp, nanos};
use crate::window::{Period, duration};

/// What all limits are checked against.
pub(super) struct Given<'a> {
    pub(super) ladders: &'a [Ladder],
    pub(super) expiry: Duration,
}

pub(super) fn expiry(raw: Option<String>) -> Parsed<Duration> {
    let Some(text) = raw else {
        return Ok(DEFAULT_EXPIRY);
    };
    let length = duration(&text).map(|nanos| Duration::from_nanos(nanos.get()));
    match length.filter(|&length| length >= Duration::from_secs(1)) {
        Some(length) => Ok(length),
        None => wrong(
            "reservation_expiry",
            format!("`{text}` is no duration of at least one second, such as \"30m\""),
        ),
    }
}

/// A plan's settings with a tenant's own in the place of those that it gives, key by key.
pub(super) fn merge(plan: RawLimits, own: &RawLimits) -> RawLimits {
    let own = own.clone();
    RawLimits {
        budget: both(plan.budget, own.budget, |plan, own| RawBudget {
            initial_budget: own.initial_budget.or(plan.initial_budget),
            unit: own.unit.or(plan.unit),
            window: own.window.or(plan.window),
        }),
        bucket: both(plan.bucket, own.bucket, |plan, own| RawBucket {
            tokens_per_window: own.tokens_per_window.or(plan.tokens_per_window),
            window: own.window.or(plan.window),
            burst: own.burst.or(plan.burst),
            low_water_mark: own.low_water_mark.or(plan.low_water_mark),
        }),
        on_exhausted: own.on_exhausted.or(plan.on_exhausted),
        never_downgrade: own.never_downgrade.or(plan.never_downgrade),
        low_water_mark: own.low_water_mark.or(plan.low_water_mark),
        min_output_tokens: own.min_output_tokens.or(plan.min_output_tokens),
        sla: both(plan.sla, own.sla, |plan, own| RawSla {
            p95_ms: own.p95_ms.or(plan.p95_ms),
        }),
        pace: both(plan.pace, own.pace, |plan, own| RawPace {
            cap: own.cap.or(plan.cap),
            half_life: own.half_life.or(plan.half_life),
        }),
        hysteresis: own.hysteresis.or(plan.hysteresis),
        sticky: both(plan.sticky, own.sticky, |plan, own| RawSticky {
            header: own.header.or(plan.header),
            keep: own.keep.or(plan.keep),
        }),
        shadow: own.shadow.or(plan.shadow),
        tiers: own.tiers.or(plan.tiers),
        floor: own.floor.or(plan.floor),
        below: plan.below.into_iter().chain(own.below).collect(),
        priority: own.priority.or(plan.priority),
    }
}

fn both<T: Default>(plan: Option<T>, own: Option<T>, merge: impl Fn(T, T) -> T) -> Option<T> {
    match (plan, own) {
        (None, None) => None,
        (plan, own) => Some(merge(plan.unwrap_or_default(), own.unwrap_or_default())),
    }
}

/// A key that has to be there once plan and tenant are put together.
fn required<T>(value: Option<T>, path: String) -> Parsed<T> {
    value.map_or_else(|| wrong(path, "is missing"), Ok)
}

impl RawLimits {
    pub(super) fn check(self, path: &str, given: &Given<'_>) -> Parsed<Limits> {
        let preferences = preferences(&self, path, given.ladders)?;
        let on_exhausted = match self.on_exhausted {
            None | Some(RawOnExhausted::Throttle) => OnExhausted::Throttle,
            Some(RawOnExhausted::Degrade { overdraft }) => {
                let overdraft = mark(overdraft, &format!("{path}.on_exhausted.degrade.overdraft"))?;
                OnExhausted::Degrade { overdraft }
            }
        };
        let budget = self
            .budget
            .map(|raw| budget(&raw, &format!("{path}.budget"), given))
            .transpose()?;
        Ok(Limits {
            sticky: self
                .sticky
                .map(|raw| sticky(raw, &format!("{path}.sticky")))
                .transpose()?,
            // A plan may leave the budget to its tenants; without one there is nothing to move.
            pace: self
                .pace
                .zip(budget)
                .map(|(raw, budget)| pace(&raw, &format!("{path}.pace"), &budget))
                .transpose()?,
            hysteresis: self
                .hysteresis
                .map(|raw| mark(raw, &format!("{path}.hysteresis")))
                .transpose()?,
            budget,
            bucket: self
                .bucket
                .map(|raw| quota(&raw, &format!("{path}.bucket")))
                .transpose()?,
            on_exhausted,
            shadow: self.shadow.unwrap_or(false),
            never_downgrade: self.never_downgrade.unwrap_or(false),
            low_water_mark: self
                .low_water_mark
                .map(|raw| mark(raw, &format!("{path}.low_water_mark")))
                .transpose()?,
            min_output_tokens: self
                .min_output_tokens
                .map(|raw| whole(raw, &format!("{path}.min_output_tokens")))
                .transpose()?
                .map(NonZeroU64::get),
            preferences,
            sla: self
                .sla
                .map(|raw| sla(&raw, &format!("{path}.sla")))
                .transpose()?,
            priority: priority(self.priority.unwrap_or_default()),
        })
    }
}

/// A conversation keeps its tier for half of a low-water mark, where the operator does not say.
const DEFAULT_KEEP: Ppm = Ppm(500_000);

fn sticky(raw: RawSticky, path: &str) -> Parsed<Sticky> {
    let header = raw
        .header
        .map(|name| client_header(&name, &format!("{path}.header")));
    let keep = raw.keep.map(|raw| mark(raw, &format!("{path}.keep")));
    Ok(Sticky {
        header: header.transpose()?,
        keep: keep.transpose()?.unwrap_or(DEFAULT_KEEP),
    })
}

fn budget(raw: &RawBudget, path: &str, given: &Given<'_>) -> Parsed<Budget> {
    let ladders = given.ladders;
    let initial = format!("{path}.initial_budget");
    let number = required(raw.initial_budget, initial.clone())?;
    let (unit, initial_budget) = match raw.unit.unwrap_or_default() {
        raw::RawUnit::Tokens => (Unit::Tokens, whole(number, &initial)?.get()),
        raw::RawUnit::Usd => match number.millionths() {
            Some(micros @ 1..) => (Unit::UsdMicros, micros),
            _ => {
                return wrong(
                    initial,
                    "must be an amount above zero with at most six decimals",
                );
            }
        },
    };
    if unit == Unit::UsdMicros {
        let unpriced = ladders
            .iter()
            .flat_map(|ladder| &ladder.tiers)
            .find(|tier| tier.price.is_none());
        if let Some(tier) = unpriced {
            return wrong(
                format!("{path}.unit"),
                format!(
                    "`usd` needs a price on every tier, and `{}` has none",
                    tier.name
                ),
            );
        }
        if ladders.is_empty() {
            return wrong(format!("{path}.unit"), "`usd` needs tiers with prices");
        }
    }
    let period = match required(raw.window.as_deref(), format!("{path}.window"))? {
        "hour" => Period::Hour,
        "day" => Period::Day,
        "week" => Period::Week,
        "month" => Period::Month,
        "none" => Period::Never,
        text => match duration(text) {
            Some(length) => Period::Every(length),
            None => {
                return wrong(
                    format!("{path}.window"),
                    format!(
                        "`{text}` is none of hour, day, week, month, none or a duration such as \"90s\""
                    ),
                );
            }
        },
    };
    Ok(Budget {
        initial_budget,
        unit,
        period,
        reservation_expiry: given.expiry,
    })
}

fn sla(raw: &RawSla, path: &str) -> Parsed<Sla> {
    let path = format!("{path}.p95_ms");
    let millis = required(raw.p95_ms, path.clone())?.whole();
    let time = millis
        .filter(|&millis| millis > 0)
        .map(Duration::from_millis);
    match time.filter(|&time| time <= LONGEST) {
        Some(p95) => Ok(Sla { p95 }),
        None => wrong(
            path,
            format!(
                "must be whole milliseconds, from 1 to {}",
                LONGEST.as_millis()
            ),
        ),
    }
}

/// Where the operator gives none: a budget that would be gone at once still serves its first tenth as asked.
const DEFAULT_CAP: Ppm = Ppm(900_000);

/// The half-lives in a window where the operator gives none: half an hour each in a day. The longer, the later a rush is
/// seen; the shorter, the more single requests count. In `make simulate` this is the longest that refuses nothing.
const HALF_LIVES: u64 = 48;

const SECOND: NonZeroU64 = match NonZeroU64::new(1_000_000_000) {
    Some(second) => second,
    None => NonZeroU64::MIN,
};

fn pace(raw: &RawPace, path: &str, budget: &Budget) -> Parsed<Pace> {
    if budget.period == Period::Never {
        return wrong(path, "needs a budget whose window ends");
    }
    let half_life = match &raw.half_life {
        // Months differ in length: taken is the one of a hundred days after the epoch, April, which has 30 days.
        None => {
            let spring = Timestamp::from_secs(100 * 86_400);
            let window = nanos(budget.period.at(spring).length());
            NonZeroU64::new(window / HALF_LIVES).map_or(SECOND, |half_life| half_life.max(SECOND))
        }
        Some(text) => match duration(text).filter(|&length| length >= SECOND) {
            Some(length) => length,
            None => {
                return wrong(
                    format!("{path}.half_life"),
                    format!("`{text}` is no duration of at least one second, such as \"1h\""),
                );
            }
        },
    };
    let cap = raw.cap.map(|cap| mark(cap, &format!("{path}.cap")));
    Ok(Pace {
        cap: cap.transpose()?.unwrap_or(DEFAULT_CAP),
        half_life,
    })
}

pub(super) fn quota(raw: &RawBucket, path: &str) -> Parsed<Quota> {
    let rate = format!("{path}.tokens_per_window");
    let tokens_per_window = whole(required(raw.tokens_per_window, rate.clone())?, &rate)?;
    let text = required(raw.window.as_deref(), format!("{path}.window"))?;
    let Some(window) = duration(text) else {
        return wrong(
            format!("{path}.window"),
            format!("`{text}` is no duration such as \"1m\" or \"90s\""),
        );
    };
    let burst = match raw.burst {
        None => tokens_per_window,
        Some(burst) => whole(burst, &format!("{path}.burst"))?,
    };
    let low_water_mark = raw
        .low_water_mark
        .map(|raw| mark(raw, &format!("{path}.low_water_mark")))
        .transpose()?;
    Ok(Quota {
        tokens_per_window,
        window,
        burst,
        low_water_mark,
    })
}
