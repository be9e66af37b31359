//! What one record says to the store, and what it takes up of the answers.

use crate::admission::ledger::{Attempt, Ledger, Writes, roll_forward};
use crate::admission::tenant::Tenant;
use crate::base::name::LimitKey;
use crate::base::units::{Timestamp, Unit};
use crate::config::Global;
use crate::lease::call::AnyLine;
use crate::lease::grant::Told;
use crate::lease::line::{Account, Answer, Holder, Line};
use crate::lease::rate::{RateAnswer, RateLine};
use crate::report::metrics::{self, Metric};
use crate::state::shared_buckets::{self, shared_buckets};
use crate::state::shared_budgets::{SharedBudget, draw, shared_budgets};
use crate::state::store::Store;
use crate::teller::Said;

/// Tries before a record is left to the next look.
const TRIES: u32 = 64;

/// Says the lines of a record that are due, and when the next one is; `None` if there is nothing more to say.
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
        roll_forward(record, limits, now);
        let mut said = Vec::new();
        let mut next: Option<Timestamp> = None;
        for mut shared in shared_budgets(limits, record) {
            shared.join(drawn(store, tenant, now));
            if let Some(line) = shared.say(restates, now) {
                said.push(Said {
                    tenant: tenant.clone(),
                    limit: shared.key(),
                    key: account_key(global, tenant, &shared),
                    line: AnyLine::Budget(line),
                });
            }
            next = next.into_iter().chain(shared.due(now)).min();
        }
        if limits.has_shared_buckets() {
            shared_buckets::join(limits, record, drawn(store, tenant, now), now);
            for mut shared in shared_buckets(limits, record) {
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
            }
        }
        let writes = match said.is_empty() {
            true => Writes::No,
            false => Writes::Yes,
        };
        (writes, (said, next))
    });
    match attempt {
        Attempt::Made(_, said) => said,
        // At the next look.
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

/// Writes into a record what was answered to its lines. What that meant, and when the next line is due.
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
            next = next.into_iter().chain(shared.due(now)).min();
        }
        if limits.has_shared_buckets() {
            shared_buckets::join(limits, record, drawn(store, tenant, now), now);
            for mut shared in shared_buckets(limits, record) {
                for (at, line) in bucket_lines(said, shared.key()) {
                    let answer = answer(at).map(RateAnswer::from);
                    let draw = drawn(store, tenant, now);
                    told.extend(shared.hear(line, answer.as_ref(), draw, now));
                }
                next = next.into_iter().chain(shared.due()).min();
            }
        }
        (Writes::Yes, (told, next))
    });
    match attempt {
        Attempt::Made(_, heard) => heard,
        // The line counts as lost, and is said anew.
        Attempt::SlotTaken | Attempt::GivenUp => (Vec::new(), None),
    }
}

/// The lines about a budget, each with its place.
fn budget_lines(said: &[Said], limit: LimitKey) -> impl Iterator<Item = (usize, &Line)> {
    let about = said.iter().enumerate();
    about.filter_map(move |(at, said)| match &said.line {
        AnyLine::Budget(line) if said.limit == limit => Some((at, line)),
        AnyLine::Budget(_) | AnyLine::Bucket(_) => None,
    })
}

/// The lines about a bucket, each with its place.
fn bucket_lines(said: &[Said], limit: LimitKey) -> impl Iterator<Item = (usize, &RateLine)> {
    let about = said.iter().enumerate();
    about.filter_map(move |(at, said)| match &said.line {
        AnyLine::Bucket(line) if said.limit == limit => Some((at, line)),
        AnyLine::Budget(_) | AnyLine::Bucket(_) => None,
    })
}

/// Takes up what was answered to a line about a budget, or that there is no answer.
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

/// The gauges of those limits that lines were about.
pub(super) fn gauges<S: Store>(ledger: &mut Ledger<'_, S>, said: &[Said]) -> Vec<Metric> {
    let tenant = ledger.tenant;
    let Some(mut record) = ledger.record() else {
        return Vec::new();
    };
    let mut told = Vec::new();
    for shared in shared_budgets(tenant.limits(), &mut record) {
        let Some(grant) = shared
            .grant()
            .filter(|_| said.iter().any(|said| said.limit == shared.key()))
        else {
            continue;
        };
        let unit = shared.budget().unit;
        told.extend(metrics::global(
            &tenant.label(),
            &shared.label(),
            unit,
            grant,
        ));
    }
    told
}
