//! Makes a request wait for a moment if it is the first one on a shared budget or bucket of which this proxy has nothing yet.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::admission::Watch;
use crate::admission::ledger::Ledger;
use crate::admission::tenant::Tenant;
use crate::base::name::NameHashing;
use crate::base::units::{Timestamp, Tokens};
use crate::config::{Config, Plan};
use crate::estimate::Estimate;
use crate::estimate::learn::{BytesPerToken, PRIOR_ANSWER};
use crate::state::store::Store;
use crate::tenant::TenantId;

/// How long a request waits at most.
pub const LONGEST: Duration = Duration::from_millis(250);

/// Tenants whose requests need not wait in this worker, and until when, since this proxy has parts of all limits that they share, under the
/// same configuration: another one may share more of their limits. There are at most as many as configured tenants.
#[derive(Clone, Debug, Default)]
pub struct Warm(Rc<RefCell<HashMap<TenantId, Known, NameHashing>>>);

/// Until when the store's answer holds, and for which plan. Each configuration has plans of its own.
type Known = (Timestamp, Weak<Plan>);

impl Warm {
    fn has(&self, tenant: &Tenant, now: Timestamp) -> bool {
        let warm = self.0.try_borrow();
        warm.is_ok_and(|warm| {
            let known = warm.get(&tenant.id);
            known.is_some_and(|(until, plan)| {
                now < *until && std::ptr::eq(plan.as_ptr(), Rc::as_ptr(&tenant.plan))
            })
        })
    }

    fn note(&self, tenant: &Tenant, until: Timestamp) {
        if let Ok(mut warm) = self.0.try_borrow_mut() {
            warm.insert(tenant.id.clone(), (until, Rc::downgrade(&tenant.plan)));
        }
    }
}

/// The records about which lines must be sent before a waiting request can be forwarded; `None` if the request does not wait. `length`:
/// the length of the request's body. `since`: when its wait began.
pub(super) fn awaited(
    config: &Config,
    warm: &Warm,
    tenant: &Tenant,
    length: Option<u64>,
    since: Option<Timestamp>,
    store: &impl Store,
    now: Timestamp,
) -> Option<Vec<Watch>> {
    let is_late = since.is_some_and(|since| now.since(since) >= LONGEST);
    // Tenants that are not configured have no part of shared budgets, and made-up ids could fill the memory.
    let is_shared = config.global.is_some() && tenant.configured && !tenant.limits().shadow;
    if !is_shared || is_late || warm.has(tenant, now) {
        return None;
    }
    let mut ledger = Ledger::new(store, tenant, config.failure_mode, now);
    // Neither the model nor the length of its answer is known yet.
    let likely = Estimate {
        body_bytes: length.unwrap_or_default(),
        bytes_per_token: BytesPerToken::PRIOR,
        output_limit: None,
        answer: Tokens(PRIOR_ANSWER),
        choices: 1,
        weights: tenant
            .plan
            .limits
            .weights
            .map(|weights| weights.of_request()),
    };
    let cost = likely.ceiling(config.unlisted_price.as_ref());
    match ledger.first_slices(cost, since.is_none()) {
        Some(until) => {
            warm.note(tenant, until);
            None
        }
        None => Some(ledger.take_watches(config.global.as_ref())),
    }
}
