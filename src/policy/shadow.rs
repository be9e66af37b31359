//! Shadow mode: what would have been done with a request that goes on as it came, whatever the limits say.

use super::{Ask, Decision, Limits, Reason, Refusal, recheck};
use crate::record::Record;
use crate::units::Timestamp;

/// What would have been done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Would {
    /// It would have been sent, at this tier.
    Admit {
        /// Index into the ladder.
        tier: usize,
        /// Why that is not the asked one, or why it is.
        reason: Option<Reason>,
        /// Tokens that each of its answers might have had.
        most_output: Option<u64>,
    },
    /// It would have been refused.
    Refuse(Refusal),
    /// Our own state could not be had, and the operator wants to refuse then.
    Unavailable,
}

impl Would {
    /// Whether it would have used up anything.
    #[must_use]
    pub fn admits(&self) -> bool {
        matches!(self, Self::Admit { .. })
    }

    /// The same, once the request's cost is known better.
    #[must_use]
    pub fn rechecked(
        self,
        limits: &Limits,
        ask: &Ask<'_>,
        record: &Record,
        now: Timestamp,
    ) -> Self {
        let Self::Admit {
            tier, most_output, ..
        } = self
        else {
            return self;
        };
        match recheck(limits, ask, tier, most_output, record, now) {
            Ok(_) => self,
            Err(refusal) => Self::Refuse(refusal),
        }
    }
}

/// The request goes on as it came, at the tier that it asks for.
#[must_use]
pub fn let_through(
    decision: &Decision,
    limits: &Limits,
    ask: &Ask<'_>,
    record: &Record,
    now: Timestamp,
) -> (Decision, Would) {
    let would = match *decision {
        Decision::Admit {
            tier,
            reason,
            most_output,
            ..
        } => Would::Admit {
            tier,
            reason,
            most_output,
        },
        Decision::Refuse { refusal, .. } => Would::Refuse(refusal),
    };
    let (estimate, reserve) = ask.as_asked(limits, record, now);
    let admitted = Decision::Admit {
        tier: ask.asked(),
        reason: None,
        most_output: None,
        estimate,
        reserve,
    };
    (admitted, would)
}
