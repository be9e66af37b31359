//! Shadow mode: what is told of a request that goes on as it came.

use super::reading::tier_name;
use super::*;
use crate::policy::{Ask, Would};
use crate::telemetry::Shadow;

/// What would have been done with an admitted request.
pub(super) fn told(would: Would, ask: &Ask<'_>) -> Shadow {
    let plain = Shadow {
        decision: "admit",
        tier: String::new(),
        model: String::new(),
        reason: "",
        most_output: None,
    };
    match would {
        Would::Admit {
            tier,
            reason,
            most_output,
        } => {
            let reason = reason.map_or("", reason_word);
            let model = ask.model_at(tier);
            if model == ask.model {
                return Shadow {
                    reason,
                    most_output,
                    ..plain
                };
            }
            Shadow {
                decision: "downgrade",
                tier: tier_name(ask, tier).as_str().to_owned(),
                model: model.to_owned(),
                reason,
                most_output,
            }
        }
        Would::Refuse(refusal) => Shadow {
            decision: "throttle",
            reason: Denial::Limit(refusal).reason(),
            ..plain
        },
        Would::Unavailable => denied(Denial::Unavailable),
    }
}

/// A request that would have been refused for another reason than the tenant's limits.
pub(super) fn denied(denial: Denial) -> Shadow {
    Shadow {
        decision: "refuse",
        tier: String::new(),
        model: String::new(),
        reason: denial.reason(),
        most_output: None,
    }
}

/// What is counted and told of a request that goes on unmetered, since it cannot be read.
pub(super) fn unread(payer: &Payer, shadow: &Shadow) -> Step {
    let mut fields: Vec<Field> = payer.identified().collect();
    fields.extend(telemetry::decided(unread_decision(shadow)));
    fields.push(shadow.field());
    Step {
        metrics: vec![shadow.metric(label(payer))],
        fields,
        ..Step::default()
    }
}

/// The decision about it.
pub(super) fn unread_decision(shadow: &Shadow) -> Decided {
    Decided {
        tier: "".into(),
        requested_model: "".into(),
        model: "".into(),
        decision: "admit",
        reason: shadow.reason,
    }
}
