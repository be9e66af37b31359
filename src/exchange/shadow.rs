//! Shadow mode: what is reported of a request that is forwarded unchanged.

use crate::admission::tenant::Tenant;
use crate::exchange::scope::tier_name;
use crate::exchange::step::Step;
use crate::policy::{Reason, Request, ShadowDecision};
use crate::report::decision::{Decided, Shadow};
use crate::report::log_fields;
use crate::report::log_fields::Field;
use crate::report::metrics;
use crate::report::refusal::Denial;

/// The report on what would have been done with an admitted request.
pub(super) fn reported(would: ShadowDecision, request: &Request<'_>) -> Shadow {
    let plain = Shadow {
        decision: "admit",
        tier: String::new(),
        model: String::new(),
        reason: "",
        most_output: None,
    };
    match would {
        ShadowDecision::Admit {
            tier,
            reason,
            most_output,
        } => {
            let reason = reason.map_or("", Reason::as_str);
            let model = request.model_at(tier);
            if model == request.model {
                return Shadow {
                    reason,
                    most_output,
                    ..plain
                };
            }
            Shadow {
                decision: "downgrade",
                tier: tier_name(request, tier).as_str().to_owned(),
                model: model.to_owned(),
                reason,
                most_output,
            }
        }
        ShadowDecision::Refuse(refusal) => Shadow {
            decision: "throttle",
            reason: Denial::Limit(refusal).reason(),
            ..plain
        },
        ShadowDecision::Barred => denied(Denial::ModelNotAllowed(&[])),
        ShadowDecision::Unavailable => denied(Denial::Unavailable),
    }
}

/// The report on a request that would have been refused, but not by the tenant's limits.
pub(super) fn denied(denial: Denial<'_>) -> Shadow {
    Shadow {
        decision: "refuse",
        tier: String::new(),
        model: String::new(),
        reason: denial.reason(),
        most_output: None,
    }
}

/// What is counted and logged of a request that is forwarded unmetered, since it cannot be read.
pub(super) fn unread(tenant: &Tenant, shadow: &Shadow) -> Step {
    let mut fields: Vec<Field> = tenant.identified().collect();
    fields.extend(log_fields::decided(unread_decision(shadow)));
    fields.push(log_fields::shadow(shadow));
    Step {
        metrics: vec![metrics::shadow(shadow, tenant.label())],
        fields,
        ..Step::default()
    }
}

/// What is reported of the decision about such a request.
pub(super) fn unread_decision(shadow: &Shadow) -> Decided {
    Decided {
        tier: "".into(),
        requested_model: "".into(),
        model: "".into(),
        decision: "admit",
        reason: shadow.reason,
    }
}
