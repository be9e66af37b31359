//! Budgets that proxies share: the store in which they are kept, and which budgets are kept there.

use std::num::NonZeroU64;

use super::checks::mark;
use super::limits::Given;
use super::path::Path;
use super::raw::{RawCold, RawGlobal, RawLimits, RawRedis, RawRefresh, RawScope, RawUnreachable};
use super::{Parsed, wrong};
use crate::calendar::window::{Period, duration};
use crate::lease::grant::Unreachable;
use crate::lease::line::MOST;
use crate::lease::quota::Quota;
use crate::lease::share::{FirstRequest, Share};
use crate::limits::budget::Budget;
use crate::limits::stacked::Rule;
use crate::plan::OnExhausted;

/// The store that proxies share, and how the proxies speak to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Global {
    /// The Envoy cluster that has the store's address; calls use Envoy's raw TCP pool.
    pub cluster: String,
    /// The user to log in as, where the store requires a login.
    pub login: Option<Login>,
    /// The proxies that share budgets are those with the same domain.
    pub domain: String,
    /// The shortest pause between two lines (reports to the store) about one budget, in nanoseconds.
    pub least: u64,
    /// The longest pause between two lines about one budget, in nanoseconds.
    pub most: u64,
    /// After a proxy has been silent for this many nanoseconds, others may have what it did not use.
    pub reclaim: Option<NonZeroU64>,
}

/// A user of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user's name.
    pub user: String,
    /// The environment variable of the VM that holds the user's password.
    pub password_env: String,
}

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLI;

/// The longest configurable pause. An idle proxy gives back what it holds after two such pauses; after the store has lost its data, nothing
/// is granted for two such pauses.
const LONGEST: u64 = 10 * SECOND;

/// The shortest configurable pause: a proxy checks its budgets ten times a second.
const SHORTEST: u64 = 100 * MILLI;

/// The shortest configurable `reclaim`. An idle proxy is silent for two of the longest pauses, and a proxy that was silent for half of
/// `reclaim` spends nothing.
const SHORTEST_RECLAIM: u64 = 60 * SECOND;

/// The store's user where the configuration gives only a password.
const DEFAULT_USER: &str = "default";

/// Longest name of a domain in bytes.
const LONGEST_DOMAIN: usize = 64;

pub(super) fn global(raw: Option<RawGlobal>) -> Parsed<Option<Global>> {
    raw.map(read).transpose()
}

fn read(raw: RawGlobal) -> Parsed<Global> {
    let path = &Path::Top.key("global");
    let domain = raw.domain.unwrap_or_else(|| "default".to_owned());
    if !(1..=LONGEST_DOMAIN).contains(&domain.len()) {
        return wrong(
            &path.key("domain"),
            format!("must have 1 to {LONGEST_DOMAIN} bytes"),
        );
    }
    let redis = &path.key("redis");
    if raw.redis.cluster.is_empty() {
        return wrong(&redis.key("cluster"), "names no cluster");
    }
    let (least, most) = refresh(raw.refresh.unwrap_or_default(), &path.key("refresh"))?;
    Ok(Global {
        login: login(&raw.redis, redis)?,
        cluster: raw.redis.cluster,
        domain,
        least,
        most,
        reclaim: match raw.reclaim.as_deref() {
            None | Some("off") => None,
            Some(text) => Some(at_least(
                text,
                SHORTEST_RECLAIM,
                &path.key("reclaim"),
                "is neither `off` nor a duration of at least one minute, such as \"30m\"",
            )?),
        },
    })
}

fn login(raw: &RawRedis, path: &Path<'_>) -> Parsed<Option<Login>> {
    let given = (&raw.user, &raw.password_env);
    let (user, password_env) = match given {
        (None, None) => return Ok(None),
        (Some(_), None) => {
            return wrong(
                &path.key("password_env"),
                "is missing: which variable of the VM's environment has the user's password?",
            );
        }
        (user, Some(password_env)) => (user.as_deref().unwrap_or(DEFAULT_USER), password_env),
    };
    for (value, key) in [(user, "user"), (password_env.as_str(), "password_env")] {
        if value.is_empty() {
            return wrong(&path.key(key), "is empty");
        }
    }
    Ok(Some(Login {
        user: user.to_owned(),
        password_env: password_env.clone(),
    }))
}

fn refresh(raw: RawRefresh, path: &Path<'_>) -> Parsed<(u64, u64)> {
    let pause = |text: Option<String>, default, key| match text {
        None => Ok(default),
        Some(text) => at_least(
            &text,
            SHORTEST,
            &path.key(key),
            "is no duration of at least 100 milliseconds, such as \"1s\"",
        )
        .map(NonZeroU64::get),
    };
    let most = pause(raw.most, LONGEST, "most")?;
    let least = pause(raw.least, SECOND.min(most), "least")?;
    if most > LONGEST {
        return wrong(&path.key("most"), "must be 10 seconds or less");
    }
    if least > most {
        return wrong(&path.key("least"), "must not be longer than `most`");
    }
    Ok((least, most))
}

fn at_least(text: &str, least: u64, path: &Path<'_>, is_not: &str) -> Parsed<NonZeroU64> {
    match duration(text).filter(|length| length.get() >= least) {
        Some(length) => Ok(length),
        None => wrong(path, format!("`{text}` {is_not}")),
    }
}

/// How a plan's budgets are shared, unless a budget has a scope of its own.
pub(super) struct Scopes {
    /// How budgets of global scope are shared; `None` if no store is configured.
    share: Option<Share>,
    /// The plan's own scope, if it has one.
    plan: Option<RawScope>,
    /// Whether the plan allows an overdraft.
    overdraws: bool,
}

impl Scopes {
    pub(super) fn of(
        raw: &RawLimits,
        path: &Path<'_>,
        given: &Given<'_>,
        on_exhausted: OnExhausted,
    ) -> Parsed<Self> {
        let unreachable = match &raw.when_unreachable {
            None | Some(RawUnreachable::Deny) => Unreachable::Deny,
            Some(RawUnreachable::Local(part)) => {
                let path = path.key("when_unreachable");
                Unreachable::Local(mark(*part, &path.key("local"))?)
            }
        };
        let first = match raw.cold.unwrap_or_default() {
            RawCold::Wait => FirstRequest::Waits,
            RawCold::Deny => FirstRequest::Refused,
            RawCold::Credit => FirstRequest::OnCredit,
        };
        let share = given.global.map(|global| Share {
            least: global.least,
            most: global.most,
            reclaim: global.reclaim,
            unreachable,
            first,
        });
        let keys = [
            (raw.scope == Some(RawScope::Global), "scope"),
            (raw.when_unreachable.is_some(), "when_unreachable"),
            (raw.cold.is_some(), "cold"),
        ];
        if share.is_none()
            && let Some((_, key)) = keys.iter().find(|(is_given, _)| *is_given)
        {
            return wrong(&path.key(key), NO_STORE);
        }
        Ok(Self {
            share,
            plan: raw.scope,
            overdraws: on_exhausted != OnExhausted::Throttle,
        })
    }

    /// How a budget is shared. `own`: the limit's own scope; `path`: the limit's path; `key`: the limit's key that holds the budget.
    pub(super) fn share(
        &self,
        budget: &Budget,
        own: Option<RawScope>,
        path: &Path<'_>,
        budget_path: &Path<'_>,
    ) -> Parsed<Option<Share>> {
        let is_idle = matches!(budget.period, Period::Idle(_));
        match (own, own.or(self.plan).unwrap_or_default()) {
            (_, RawScope::Proxy) => return Ok(None),
            (Some(_), RawScope::Global) if self.share.is_none() => {
                return wrong(&path.key("scope"), NO_STORE);
            }
            (Some(_), RawScope::Global) if is_idle => {
                return wrong(
                    &budget_path.key("window"),
                    format!("ends with the requests that one proxy sees: {PER_PROXY}"),
                );
            }
            (_, RawScope::Global) if self.share.is_none() || is_idle => return Ok(None),
            (_, RawScope::Global) => {}
        }
        if budget.rollover.is_some() {
            return wrong(
                &budget_path.key("rollover"),
                format!("is counted in each proxy: {PER_PROXY}"),
            );
        }
        if self.overdraws {
            return wrong(
                budget_path,
                format!(
                    "is shared by proxies, and `on_exhausted` gives it an overdraft, which is counted in each of them: {PER_PROXY}"
                ),
            );
        }
        let extra = budget.extra.map_or(0, |extra| extra.amount);
        if budget.initial_budget.saturating_add(extra) > MOST {
            return wrong(
                &budget_path.key("initial_budget"),
                "is more than 2^53, up to which a shared store counts exactly",
            );
        }
        Ok(self.share)
    }

    /// A bucket, with how it is shared. `own`: the limit's own scope; `path`: the limit's path.
    pub(super) fn share_bucket(
        &self,
        rule: Rule,
        own: Option<RawScope>,
        path: &Path<'_>,
    ) -> Parsed<Rule> {
        let share = match (own, own.or(self.plan).unwrap_or_default()) {
            (_, RawScope::Proxy) => None,
            (Some(_), RawScope::Global) if self.share.is_none() => {
                return wrong(&path.key("scope"), NO_STORE);
            }
            (_, RawScope::Global) => self.share,
        };
        Ok(match rule {
            Rule::Tokens(quota) => Rule::Tokens(Quota { share, ..quota }),
            Rule::Requests(quota) => Rule::Requests(Quota { share, ..quota }),
            Rule::Budget(_) | Rule::Concurrency(_) => rule,
        })
    }
}

const NO_STORE: &str = "has a meaning only where `global` names the store that proxies share";

const PER_PROXY: &str = "give the limit, or its plan, `\"scope\": \"proxy\"`";
