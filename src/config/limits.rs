//! What plans and tenants may use: budgets, token buckets and what happens when they run low.

use std::num::NonZeroU64;
use std::time::Duration;

use super::capacity::priority;
use super::path::Path;
use super::preferences::preferences;
use super::raw::{
    self, RawBucket, RawBudget, RawLimits, RawOnExhausted, RawPace, RawSla, RawSticky,
};
use super::tenants::client_header;
use super::{Parsed, any_mark, any_whole, mark, whole, wrong};
use crate::bucket::Quota;
use crate::latency::LONGEST_MILLIS;
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
            &Path::Top.key("reservation_expiry"),
            format!("`{text}` is no duration of at least one second, such as \"30m\""),
        ),
    }
}

/// A key that has to be there once plan and tenant are put together.
fn required<T>(value: Option<T>, path: &Path<'_>) -> Parsed<T> {
    value.map_or_else(|| wrong(path, "is missing"), Ok)
}

impl RawLimits {
    pub(super) fn check(&self, path: &Path<'_>, given: &Given<'_>) -> Parsed<Limits> {
        let preferences = preferences(self, path, given.ladders)?;
        let on_exhausted = match self.on_exhausted {
            None | Some(RawOnExhausted::Throttle) => OnExhausted::Throttle,
            Some(RawOnExhausted::Degrade { overdraft }) => {
                let overdraft = mark(
                    overdraft,
                    &path.key("on_exhausted").key("degrade").key("overdraft"),
                )?;
                OnExhausted::Degrade { overdraft }
            }
        };
        let budget = self
            .budget
            .as_ref()
            .map(|raw| budget(raw, &path.key("budget"), given))
            .transpose()?;
        Ok(Limits {
            sticky: self
                .sticky
                .as_ref()
                .map(|raw| sticky(raw, &path.key("sticky")))
                .transpose()?,
            // A plan may leave the budget to its tenants; without one there is nothing to move.
            pace: self
                .pace
                .as_ref()
                .zip(budget)
                .map(|(raw, budget)| pace(raw, &path.key("pace"), &budget))
                .transpose()?,
            hysteresis: any_mark(self.hysteresis, &path.key("hysteresis"))?,
            budget,
            bucket: self
                .bucket
                .as_ref()
                .map(|raw| quota(raw, &path.key("bucket")))
                .transpose()?,
            on_exhausted,
            shadow: self.shadow.unwrap_or(false),
            never_downgrade: self.never_downgrade.unwrap_or(false),
            low_water_mark: any_mark(self.low_water_mark, &path.key("low_water_mark"))?,
            min_output_tokens: any_whole(self.min_output_tokens, &path.key("min_output_tokens"))?,
            preferences,
            sla: self
                .sla
                .as_ref()
                .map(|raw| sla(raw, &path.key("sla")))
                .transpose()?,
            priority: priority(self.priority.unwrap_or_default()),
        })
    }
}

/// A conversation keeps its tier for half of a low-water mark, where the operator does not say.
const DEFAULT_KEEP: Ppm = Ppm(500_000);

fn sticky(raw: &RawSticky, path: &Path<'_>) -> Parsed<Sticky> {
    let header = raw
        .header
        .as_ref()
        .map(|name| client_header(name, &path.key("header")));
    Ok(Sticky {
        header: header.transpose()?,
        keep: any_mark(raw.keep, &path.key("keep"))?.unwrap_or(DEFAULT_KEEP),
    })
}

fn budget(raw: &RawBudget, path: &Path<'_>, given: &Given<'_>) -> Parsed<Budget> {
    let ladders = given.ladders;
    let initial = &path.key("initial_budget");
    let number = required(raw.initial_budget, initial)?;
    let (unit, initial_budget) = match raw.unit.unwrap_or_default() {
        raw::RawUnit::Tokens => (Unit::Tokens, whole(number, initial)?.get()),
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
                &path.key("unit"),
                format!(
                    "`usd` needs a price on every tier, and `{}` has none",
                    tier.name
                ),
            );
        }
        if ladders.is_empty() {
            return wrong(&path.key("unit"), "`usd` needs tiers with prices");
        }
    }
    let period = match required(raw.window.as_deref(), &path.key("window"))? {
        "hour" => Period::Hour,
        "day" => Period::Day,
        "week" => Period::Week,
        "month" => Period::Month,
        "none" => Period::Never,
        text => match duration(text) {
            Some(length) => Period::Every(length),
            None => {
                return wrong(
                    &path.key("window"),
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

fn sla(raw: &RawSla, path: &Path<'_>) -> Parsed<Sla> {
    let path = &path.key("p95_ms");
    let millis = required(raw.p95_ms, path)?.whole();
    match millis {
        Some(millis @ 1..=LONGEST_MILLIS) => Ok(Sla {
            p95: Duration::from_millis(millis),
        }),
        _ => wrong(
            path,
            format!("must be whole milliseconds, from 1 to {LONGEST_MILLIS}"),
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

fn pace(raw: &RawPace, path: &Path<'_>, budget: &Budget) -> Parsed<Pace> {
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
                    &path.key("half_life"),
                    format!("`{text}` is no duration of at least one second, such as \"1h\""),
                );
            }
        },
    };
    Ok(Pace {
        cap: any_mark(raw.cap, &path.key("cap"))?.unwrap_or(DEFAULT_CAP),
        half_life,
    })
}

pub(super) fn quota(raw: &RawBucket, path: &Path<'_>) -> Parsed<Quota> {
    let rate = &path.key("tokens_per_window");
    let tokens_per_window = whole(required(raw.tokens_per_window, rate)?, rate)?;
    let text = required(raw.window.as_deref(), &path.key("window"))?;
    let Some(window) = duration(text) else {
        return wrong(
            &path.key("window"),
            format!("`{text}` is no duration such as \"1m\" or \"90s\""),
        );
    };
    let burst = match raw.burst {
        None => tokens_per_window,
        Some(burst) => whole(burst, &path.key("burst"))?,
    };
    Ok(Quota {
        tokens_per_window,
        window,
        burst,
        low_water_mark: any_mark(raw.low_water_mark, &path.key("low_water_mark"))?,
    })
}
