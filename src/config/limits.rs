//! What plans and tenants may use: budgets, token buckets, and what happens when they run low.

use std::num::NonZeroU64;
use std::time::Duration;

use super::Global;
use super::capacity::priority;
use super::checks::{any_mark, any_whole, client_header, mark, required, whole};
use super::path::Path;
use super::period::period;
use super::preferences::preferences;
use super::raw::{
    RawBudget, RawExtra, RawHold, RawLimits, RawMaximum, RawOnExhausted, RawPace, RawShadow,
    RawSla, RawSticky, RawUnit, RawWeights,
};
use super::stacked::{Stack, stack};
use super::subjects::by_kind;
use super::{Parsed, SubjectRules, wrong};
use crate::base::units::{Ppm, Timestamp, Unit, nanos};
use crate::body::number::Number;
use crate::calendar::window::{Period, duration};
use crate::limits::account::DEFAULT_EXPIRY;
use crate::limits::budget::{Budget, Extra};
use crate::limits::pace::Pace;
use crate::limits::stacked::Rule;
use crate::plan::{Limits, Maximum, OnExhausted, Sla, Sticky};
use crate::tier::latency::LONGEST_MILLIS;
use crate::tier::{Ladder, Rates, Weights};

/// The parts of the configuration against which limits are checked.
pub(super) struct Given<'a> {
    pub(super) ladders: &'a [Ladder],
    pub(super) expiry: Duration,
    pub(super) subjects: &'a [SubjectRules],
    pub(super) global: Option<&'a Global>,
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

impl RawLimits {
    pub(super) fn check(&self, path: &Path<'_>, given: &Given<'_>) -> Parsed<Limits> {
        let preferences = preferences(self, path, given.ladders)?;
        let on_exhausted = match &self.on_exhausted {
            None | Some(RawOnExhausted::Throttle) => OnExhausted::Throttle,
            Some(RawOnExhausted::Degrade(degrade)) => {
                let overdraft = mark(
                    degrade.overdraft,
                    &path.key("on_exhausted").key("degrade").key("overdraft"),
                )?;
                OnExhausted::Degrade { overdraft }
            }
        };
        let Stack {
            budget,
            bucket,
            others,
            of_subjects,
        } = stack(self, path, given, on_exhausted)?;
        let of_others = others.iter().find_map(|limit| match limit.rule {
            Rule::Budget(budget) => Some(budget),
            Rule::Tokens(_) | Rule::Requests(_) | Rule::Concurrency(_) => None,
        });
        let first = budget.or(of_others);
        let holds_likely = self.hold == Some(RawHold::Likely);
        let each = Limits {
            holds_likely,
            on_exhausted,
            ..Limits::default()
        };
        Ok(Limits {
            sticky: self
                .sticky
                .as_ref()
                .map(|raw| sticky(raw, &path.key("sticky")))
                .transpose()?,
            // A plan may leave the budget to its tenants. Without a budget, `pace` has no effect.
            pace: self
                .pace
                .as_ref()
                .zip(first)
                .map(|(raw, budget)| pace(raw, &path.key("pace"), &budget))
                .transpose()?,
            hysteresis: any_mark(self.hysteresis, &path.key("hysteresis"))?,
            budget,
            bucket,
            others,
            subjects: by_kind(given.subjects, of_subjects, &each),
            guarantees: Vec::new(),
            holds_likely,
            on_exhausted,
            weights: self
                .weights
                .as_ref()
                .map(|raw| weights(raw, &path.key("weights")))
                .transpose()?,
            max_request: self
                .max_request
                .map(|raw| maximum(raw, &path.key("max_request"), given))
                .transpose()?,
            models: models(self.models.as_ref(), &path.key("models"))?,
            shadow: self.shadow == Some(RawShadow::Itself(true)),
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

fn models(raw: Option<&Vec<String>>, path: &Path<'_>) -> Parsed<Option<Vec<String>>> {
    match raw {
        Some(globs) if globs.is_empty() => {
            wrong(path, "names no model: every request would be refused")
        }
        globs => Ok(globs.cloned()),
    }
}

/// Default of `keep`: a conversation keeps its tier down to half of a low-water mark.
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

pub(super) fn budget(raw: &RawBudget, path: &Path<'_>, given: &Given<'_>) -> Parsed<Budget> {
    let initial = &path.key("initial_budget");
    let unit = match raw.unit.unwrap_or_default() {
        RawUnit::Tokens => Unit::Tokens,
        RawUnit::Usd => Unit::UsdMicros,
    };
    let initial_budget = amount(required(raw.initial_budget, initial)?, unit, initial)?;
    if unit == Unit::UsdMicros {
        needs_prices(given.ladders, &path.key("unit"))?;
    }
    let extra = raw.extra.as_ref();
    let extra = extra.map(|raw| extra_of(raw, unit, &path.key("extra")));
    Ok(Budget {
        rollover: any_mark(raw.rollover, &path.key("rollover"))?,
        extra: extra.transpose()?,
        initial_budget,
        unit,
        period: period(raw, path)?,
        reservation_expiry: given.expiry,
        share: None,
    })
}

/// A limit in money needs the price of every model.
fn needs_prices(ladders: &[Ladder], path: &Path<'_>) -> Parsed<()> {
    let mut tiers = ladders.iter().flat_map(|ladder| &ladder.tiers);
    match tiers.find(|tier| tier.price.is_none()) {
        Some(tier) => {
            let reason = format!(
                "`usd` needs a price on every tier, and `{}` has none",
                tier.name
            );
            wrong(path, reason)
        }
        None if ladders.is_empty() => wrong(path, "`usd` needs tiers with prices"),
        None => Ok(()),
    }
}

/// An amount in the budget's unit.
fn amount(number: Number, unit: Unit, path: &Path<'_>) -> Parsed<u64> {
    match (unit, number.millionths()) {
        (Unit::Tokens, _) => whole(number, path).map(NonZeroU64::get),
        (Unit::UsdMicros, Some(micros @ 1..)) => Ok(micros),
        (Unit::UsdMicros, _) => wrong(
            path,
            "must be an amount above zero with at most six decimals",
        ),
    }
}

fn extra_of(raw: &RawExtra, unit: Unit, path: &Path<'_>) -> Parsed<Extra> {
    let until = &path.key("until");
    let text = required(raw.until.as_deref(), until)?;
    let amount_path = &path.key("amount");
    match Timestamp::parse_rfc_3339(text) {
        Some(moment) => Ok(Extra {
            amount: amount(required(raw.amount, amount_path)?, unit, amount_path)?,
            until: moment,
        }),
        None => wrong(
            until,
            format!("`{text}` is no moment in UTC such as \"2026-12-01T00:00:00Z\""),
        ),
    }
}

/// The largest weight, in millionths: a thousand. No price list has a token that costs a thousand times as much as others.
const MOST_WEIGHT: u64 = 1_000_000_000;

fn weights(raw: &RawWeights, path: &Path<'_>) -> Parsed<Weights> {
    let weight = |number: Option<Number>, key| match number.map(Number::millionths) {
        None => Ok(1_000_000),
        Some(Some(weight @ ..=MOST_WEIGHT)) => Ok(weight),
        Some(_) => wrong(
            &path.key(key),
            "must be a number from 0 to 1000 with at most six decimals",
        ),
    };
    Ok(Weights(Rates {
        input: weight(raw.input, "input")?,
        cached_input: weight(raw.cached_input, "cached_input")?,
        cache_write: weight(raw.cache_write, "cache_write")?,
        cache_write_1h: weight(raw.cache_write_1h, "cache_write_1h")?,
        output: weight(raw.output, "output")?,
    }))
}

fn maximum(raw: RawMaximum, path: &Path<'_>, given: &Given<'_>) -> Parsed<Maximum> {
    let (number, unit, path) = match raw {
        RawMaximum::Tokens(tokens) => (tokens, Unit::Tokens, path.key("tokens")),
        RawMaximum::Usd(usd) => (usd, Unit::UsdMicros, path.key("usd")),
    };
    if unit == Unit::UsdMicros {
        needs_prices(given.ladders, &path)?;
    }
    let most = amount(number, unit, &path)?;
    Ok(Maximum { unit, most })
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

/// Default of `cap`: the first tenth of a budget is served as requested, even where the budget would be spent at once.
const DEFAULT_CAP: Ppm = Ppm(900_000);

/// The default of `half_life` is the window divided by this: half an hour for a day. With a longer half-life, a rush is noticed later; with
/// a shorter one, single requests count more. In `make simulate` this is the longest half-life with which no request is refused.
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
        // Months differ in length. This takes the month of the hundredth day after the epoch: April, which has 30 days.
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
