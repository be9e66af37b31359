//! Shadow mode: what bursar would have done with a request that is forwarded unchanged.

use super::{Decision, Reason, Refusal, Request, recheck};
use crate::base::units::Timestamp;
use crate::plan::Limits;
use crate::state::record::Record;

/// What would have been done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShadowDecision {
    /// The request would have been sent, at this tier.
    Admit {
        /// Index into the ladder.
        tier: usize,
        /// Why that is not the requested tier, or why it is the requested one although it should be lower.
        reason: Option<Reason>,
        /// The most tokens that each of its answers could have had.
        most_output: Option<u64>,
    },
    /// The request would have been refused.
    Refuse(Refusal),
    /// The request would have been refused before any limit was checked, since the plan does not allow the requested model.
    Barred,
    /// Bursar's own state was unavailable, and the operator has chosen to refuse requests then.
    Unavailable,
}

impl ShadowDecision {
    /// Whether the request would have used up anything.
    #[must_use]
    pub fn admits(&self) -> bool {
        matches!(self, Self::Admit { .. })
    }

    /// This decision, corrected once the request's cost is known more exactly.
    #[must_use]
    pub fn rechecked(
        self,
        limits: &Limits,
        request: &Request<'_>,
        record: &Record,
        now: Timestamp,
    ) -> Self {
        let Self::Admit {
            tier, most_output, ..
        } = self
        else {
            return self;
        };
        match recheck(limits, request, tier, most_output, record, now) {
            Ok(_) => self,
            Err(short) => Self::Refuse(short.refusal),
        }
    }
}

/// The request is forwarded unchanged, at the tier that it requests.
#[must_use]
pub fn let_through(
    decision: &Decision,
    limits: &Limits,
    request: &Request<'_>,
    record: &Record,
    now: Timestamp,
) -> (Decision, ShadowDecision) {
    let would = match *decision {
        _ if request.conditions.barred => ShadowDecision::Barred,
        Decision::Admit {
            tier,
            reason,
            most_output,
            ..
        } => ShadowDecision::Admit {
            tier,
            reason,
            most_output,
        },
        Decision::Refuse { refusal, .. } => ShadowDecision::Refuse(refusal),
    };
    let (estimate, expected) = request.as_asked(limits, record, now);
    let admitted = Decision::Admit {
        tier: request.asked(),
        reason: None,
        most_output: None,
        estimate,
        expected,
    };
    (admitted, would)
}
