//! Plans that are tried on live requests beside the one that decides: what each would have done is reported, and charged to an account
//! of its own as if it had been done.

use crate::admission::ledger::Ledger;
use crate::admission::tenant::Tenant;
use crate::admission::{Admission, Outcome, Used};
use crate::base::units::{Cost, Timestamp};
use crate::config::Config;
use crate::exchange::shadow;
use crate::exchange::step::Step;
use crate::policy::{Request, ShadowDecision};
use crate::published::metric::Label;
use crate::report::decision::Shadow;
use crate::report::{log_fields, metrics};
use crate::state::store::{StateFaults, Store};
use crate::tier::{self, Price};
use crate::usage::Usage;

/// A request as one plan that is tried sees it.
#[derive(Debug)]
pub(super) struct Trial {
    tenant: Tenant,
    would: Shadow,
    /// What the request holds under this plan, and the price of the tier that would have served it; `None` if no tier would have served it.
    held: Option<Box<(Admission, Option<Price>)>>,
}

/// What an exchange used, for the plans that are tried on it.
pub(super) struct ActualUsage<'a> {
    /// What the real plan settles.
    pub(super) used: Used<'a>,
    pub(super) usage: &'a Usage,
    /// The price at which the request was really served, and what it really cost.
    pub(super) price: Option<&'a Price>,
}

/// Decides about a request by each of the plans that its tenant's plan tries, and reserves by those that would serve it. Tenants that
/// are not configured share few slots, and try nothing.
pub(super) fn decide(
    tenant: &Tenant,
    config: &Config,
    request: &Request<'_>,
    store: &impl Store,
    now: Timestamp,
) -> (Vec<Trial>, StateFaults) {
    let mut faults = StateFaults::default();
    let plans = tenant.plan.trials.iter().filter(|_| tenant.configured);
    let trials = plans.map(|plan| {
        let tenant = tenant.trying(plan);
        let mut ledger = Ledger::new(store, &tenant, config.failure_mode, now);
        let outcome = match tenant.limits().allows(request.model) {
            true => Some(ledger.admit_alone(request)),
            false => None,
        };
        faults = faults.and(ledger.faults);
        let (would, held) = match outcome {
            None => (ShadowDecision::Barred, None),
            Some(Outcome::Unavailable) => (ShadowDecision::Unavailable, None),
            Some(Outcome::Refused(refused)) => (ShadowDecision::Refuse(refused.refusal), None),
            Some(Outcome::Admitted(admission)) => {
                let would = ShadowDecision::Admit {
                    tier: admission.tier,
                    reason: admission.reason,
                    most_output: admission.most_output,
                };
                let price = request.price(admission.tier).cloned();
                (would, Some(Box::new((admission, price))))
            }
        };
        let would = shadow::reported(would, request);
        Trial {
            tenant,
            would,
            held,
        }
    });
    (trials.collect(), faults)
}

/// What is counted and logged of the trials.
pub(super) fn reported(trials: &[Trial]) -> Step {
    if trials.is_empty() {
        return Step::default();
    }
    let all = trials.iter();
    let named = all
        .clone()
        .map(|trial| (&trial.tenant.plan.name, &trial.would));
    Step {
        fields: vec![log_fields::tried(named)],
        metrics: all
            .map(|trial| metrics::tried(trial.tenant.label(), trial.plan(), trial.would.decision))
            .collect(),
        ..Step::default()
    }
}

/// Replaces what the trials hold by what they would have used.
pub(super) fn settle(
    trials: &mut [Trial],
    config: &Config,
    actual: &ActualUsage<'_>,
    store: &impl Store,
    now: Timestamp,
) -> Step {
    let mut step = Step::default();
    for trial in trials {
        if let Some(mut held) = trial.held.take() {
            let (admission, price) = &mut *held;
            let cost = actual.cost(&trial.tenant, price.as_ref());
            let used = Used {
                cost,
                ..actual.used
            };
            let mut ledger = Ledger::new(store, &trial.tenant, config.failure_mode, now);
            // If the settlement cannot be written now, the reservation expires.
            ledger.settle(admission, &used);
            step.faults = step.faults.and(ledger.faults);
            step.metrics.extend(metrics::tried_cost(
                &trial.tenant.label(),
                &trial.plan(),
                cost,
            ));
        }
    }
    step
}

/// Gives back what the trials hold for a request that is not sent.
pub(super) fn give_back(
    trials: &mut [Trial],
    config: &Config,
    store: &impl Store,
    now: Timestamp,
) -> Step {
    let actual = ActualUsage {
        used: Used::NOTHING,
        usage: &Usage::default(),
        price: None,
    };
    settle(trials, config, &actual, store, now)
}

/// Keeps what the trials hold from expiring.
pub(super) fn renew(trials: &mut [Trial], config: &Config, store: &impl Store, now: Timestamp) {
    for trial in trials {
        if let Some(held) = &mut trial.held {
            let mut ledger = Ledger::new(store, &trial.tenant, config.failure_mode, now);
            ledger.renew(&mut held.0);
        }
    }
}

impl Trial {
    /// Whether the plan paces what it spends.
    pub(super) fn has_pace(&self) -> bool {
        self.tenant.has_pace()
    }

    fn plan(&self) -> Label {
        (&self.tenant.plan.name).into()
    }
}

impl ActualUsage<'_> {
    /// What the exchange would have cost at a tier of this price.
    fn cost(&self, tenant: &Tenant, price: Option<&Price>) -> Cost {
        Cost {
            tokens: tenant.limits().counted(self.usage),
            // The answer may have come from another model than the one that was sent.
            usd: match price == self.price {
                true => self.used.cost.usd,
                false => tier::cost(self.usage, price).usd,
            },
        }
    }
}
