//! The lines about the limits of one record, and what the store's answers change in the record.

use crate::admission::ledger::{Attempt, Ledger, Writes, roll_forward};
use crate::admission::tenant::Tenant;
use crate::base::name::LimitKey;
use crate::base::units::{Timestamp, Unit};
use crate::config::Global;
use crate::lease::call::AnyLine;
use crate::lease::grant::Told;
use crate::lease::line::{Account, Answer, Holder, Line};
use crate::lease::rate::{RateAnswer, RateLine};
use crate::published::metric::Label;
use crate::report::metrics::{self, Held, Metric, Shared};
use crate::state::shared_buckets::{self, each_shared_bucket};
use crate::state::shared_budgets::{SharedBudget, draw, shared_budgets};
use crate::state::store::Store;
use crate::teller::Said;

/// After this many lost races, a record is left until the teller next checks it.
const TRIES: u32 = 64;

/// Builds the lines of a record that are due. Returns these lines, and when the next line is due; `None` if there is nothing more to
/// report.
pub(super) fn say<S: Store>(
    ledger: &mut Ledger<'_, S>,
    global: &Global,
    restates: bool,
) -> (Vec<Said>, Option<Timestamp>) {
    let &mut Ledger {
        store, tenant, now, ..
    } = ledger;
    let limits = tenant.limits();
    let place = ledger.place();
    let attempt = ledger.change(&place, limits, TRIES, |record, _| {
        let ended = shared_budgets(limits, record).filter(|shared| shared.has_ended(now));
        let ended: Vec<LimitKey> = ended.map(|shared| shared.key()).collect();
        roll_forward(record, limits, now);
        let mut said = Vec::new();
        let mut next: Option<Timestamp> = None;
        for mut shared in shared_budgets(limits, record) {
            shared.join(drawn(store, tenant, now));
            if ended.contains(&shared.key()) {
                shared.go_on();
            }
            if let Some(line) = shared.say(restates, now) {
                said.push(Said {
                    tenant: tenant.clone(),
                    limit: shared.key(),
                    key: account_key(global, tenant, &shared),
                    line: AnyLine::Budget(line),
                });
            }
            next = next.into_iter().chain(shared.next(now)).min();
        }
        if limits.has_shared_buckets() {
            shared_buckets::join(limits, record, drawn(store, tenant, now), now);
            each_shared_bucket(limits, record, &mut |mut shared| {
                if let Some(line) = shared.say(restates, now) {
                    let id = tenant.id.account();
                    said.push(Said {
                        tenant: tenant.clone(),
                        limit: shared.key(),
                        key: Account::bucket_key(&global.domain, id, shared.name()),
                        line: AnyLine::Bucket(line),
                    });
                }
                next = next.into_iter().chain(shared.due()).min();
            });
        }
        let writes = match said.is_empty() {
            true => Writes::No,
            false => Writes::Yes,
        };
        (writes, (said, next))
    });
    match attempt {
        Attempt::Made(_, said) => said,
        // The teller tries again when it next checks the record.
        Attempt::SlotTaken | Attempt::GivenUp => (Vec::new(), Some(now)),
    }
}

fn drawn<S: Store>(store: &S, tenant: &Tenant, now: Timestamp) -> impl FnMut(LimitKey) -> Holder {
    move |limit| draw(store.slot_seed(), tenant.id.account(), limit, now)
}

fn account_key(global: &Global, tenant: &Tenant, shared: &SharedBudget<'_>) -> String {
    let account = Account {
        domain: &global.domain,
        subject: &[tenant.id.account()],
        limit: shared.name(),
        unit: unit(shared.budget().unit),
        generation: shared.generation(),
        window: shared.account().window,
    };
    account.key()
}

fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Tokens => "tokens",
        Unit::UsdMicros => "usd",
    }
}

/// Applies the answers to a record's lines to the record. Returns what the answers mean, and when the next line is due.
pub(super) fn hear<'a, S: Store>(
    ledger: &mut Ledger<'_, S>,
    said: &[Said],
    answer: impl Fn(usize) -> Option<&'a Answer>,
) -> (Vec<Told>, Option<Timestamp>) {
    let &mut Ledger {
        store, tenant, now, ..
    } = ledger;
    let limits = tenant.limits();
    let place = ledger.place();
    let attempt = ledger.change(&place, limits, TRIES, |record, _| {
        roll_forward(record, limits, now);
        let mut told = Vec::new();
        let mut next: Option<Timestamp> = None;
        for mut shared in shared_budgets(limits, record) {
            for (at, line) in budget_lines(said, shared.key()) {
                let draw = drawn(store, tenant, now);
                told.extend(hear_budget(&mut shared, line, answer(at), draw, now));
            }
            next = next.into_iter().chain(shared.next(now)).min();
        }
        if limits.has_shared_buckets() {
            shared_buckets::join(limits, record, drawn(store, tenant, now), now);
            each_shared_bucket(limits, record, &mut |mut shared| {
                for (at, line) in bucket_lines(said, shared.key()) {
                    let answer = answer(at).map(RateAnswer::from);
                    let draw = drawn(store, tenant, now);
                    told.extend(shared.hear(line, answer.as_ref(), draw, now));
                }
                next = next.into_iter().chain(shared.due()).min();
            });
        }
        (Writes::Yes, (told, next))
    });
    match attempt {
        Attempt::Made(_, heard) => heard,
        // The lines count as lost, and the next ones repeat them.
        Attempt::SlotTaken | Attempt::GivenUp => (Vec::new(), None),
    }
}

/// The lines about a budget, each with its index.
fn budget_lines(said: &[Said], limit: LimitKey) -> impl Iterator<Item = (usize, &Line)> {
    let about = said.iter().enumerate();
    about.filter_map(move |(at, said)| match &said.line {
        AnyLine::Budget(line) if said.limit == limit => Some((at, line)),
        AnyLine::Budget(_) | AnyLine::Bucket(_) => None,
    })
}

/// The lines about a bucket, each with its index.
fn bucket_lines(said: &[Said], limit: LimitKey) -> impl Iterator<Item = (usize, &RateLine)> {
    let about = said.iter().enumerate();
    about.filter_map(move |(at, said)| match &said.line {
        AnyLine::Bucket(line) if said.limit == limit => Some((at, line)),
        AnyLine::Budget(_) | AnyLine::Bucket(_) => None,
    })
}

/// Applies the answer to a line about a budget, or notes that there is none.
fn hear_budget(
    shared: &mut SharedBudget<'_>,
    line: &Line,
    answer: Option<&Answer>,
    mut draw: impl FnMut(LimitKey) -> Holder,
    now: Timestamp,
) -> Option<Told> {
    let limit = shared.key();
    let &Line { holder, seq, .. } = line;
    if let Some(answer) = answer {
        shared.follow(line, answer, now);
    }
    let (grant, used) = shared.grant_of(holder)?;
    let Some(answer) = answer else {
        *grant = grant.failed(seq);
        return None;
    };
    let meaning;
    (*grant, meaning) = grant.heard(seq, answer);
    if meaning == Told::Clash {
        *grant = grant.renamed(draw(limit), used);
    }
    Some(meaning)
}

/// If one proxy's equal part of a budget holds fewer of the largest requests than this, slices are mostly too small.
const OF_A_BUDGET: u64 = 10;

/// As [`OF_A_BUDGET`], for a bucket, whose shares follow demand.
const OF_A_BUCKET: u64 = 1;

/// The gauges of the limits that the lines are about, and the names of the limits that are too small for the proxies that share them.
pub(super) fn gauges<S: Store>(
    ledger: &mut Ledger<'_, S>,
    said: &[Said],
) -> (Vec<Metric>, Vec<String>) {
    let tenant = ledger.tenant;
    let Some(mut record) = ledger.record() else {
        return Default::default();
    };
    let limits = tenant.limits();
    let is_about = |limit| said.iter().any(|said| said.limit == limit);
    let (mut told, mut small) = (Vec::new(), Vec::new());
    let mut tell = |name: &str, label: &Label, shared: &Shared, should: u64| {
        told.extend(metrics::global(&tenant.label(), label, shared));
        if shared.proxies > 1 && shared.part.is_some_and(|holds| holds < should) {
            small.push(name.to_owned());
        }
    };
    for shared in shared_budgets(limits, &mut record) {
        let Some(grant) = shared.grant().filter(|_| is_about(shared.key())) else {
            continue;
        };
        let budget = shared.budget();
        let all = budget.raised(shared.account());
        let about = Shared {
            held: Held::Granted(budget.unit, grant.granted, grant.free),
            proxies: grant.holders,
            heard: grant.heard,
            failures: grant.failures,
            part: part(all, grant.holders, grant.largest()),
        };
        tell(shared.name(), &shared.label(), &about, OF_A_BUDGET);
    }
    each_shared_bucket(limits, &mut record, &mut |shared| {
        let rate = shared.rate();
        if !is_about(rate.limit) {
            return;
        }
        let about = Shared {
            held: Held::Share(rate.share, rate.asked),
            proxies: rate.holders,
            heard: rate.heard,
            failures: rate.failures,
            part: part(shared.quota().burst.get(), rate.holders, rate.largest()),
        };
        tell(shared.name(), &shared.label(), &about, OF_A_BUCKET);
    });
    (told, small)
}

/// How many of the largest requests one proxy's equal part of a limit holds.
fn part(all: u64, proxies: u32, largest: u64) -> Option<u64> {
    all.checked_div(largest)?.checked_div(proxies.into())
}
