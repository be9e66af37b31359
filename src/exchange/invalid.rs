//! A body that is not what its path promises: refused, or in shadow mode forwarded as it is.

use crate::base::units::Timestamp;
use crate::config::Config;
use crate::exchange::refusal::refuse;
use crate::exchange::request_body::{Body, RequestBody};
use crate::exchange::step::{BodyChange, Step};
use crate::exchange::{Stage, shadow};
use crate::provider::Fault;
use crate::report::log_fields;
use crate::report::refusal::Denial;
use crate::report::settlement::Exit;
use crate::state::store::Store;

impl RequestBody {
    /// Refuses an invalid body. Its reservation is released, unless the upstream has the whole object and may answer already. In shadow
    /// mode the fault is only reported.
    pub(super) fn invalid(
        &mut self,
        config: &Config,
        fault: Fault,
        store: &impl Store,
        now: Timestamp,
    ) -> Box<Step> {
        let denial = Denial::InvalidBody(fault);
        if self.tenant.plan.limits.shadow {
            return Box::new(self.pass_invalid(denial));
        }
        let step = refuse(self.endpoint.wire, denial, Some(&self.tenant), None, now);
        let settled = self.sent.take().map(|mut sent| match self.has_gone {
            true => sent.leave(config, store, Exit::Unended, now),
            false => sent.settle(config, store, Exit::Unsent, now),
        });
        Box::new(step.reporting(settled.unwrap_or_default()))
    }

    /// What is reported of an invalid body that is still forwarded.
    pub(super) fn pass_invalid(&mut self, denial: Denial<'_>) -> Step {
        let was_reported = self.is_complete();
        let shadow = shadow::denied(denial);
        match &mut self.sent {
            Some(sent) => {
                let field = log_fields::shadow(&shadow);
                sent.shadow = Some(shadow);
                match was_reported {
                    true => Step {
                        fields: vec![field],
                        ..Step::default()
                    },
                    false => sent.admitted(),
                }
            }
            None => {
                let step = shadow::unread(&self.tenant, &shadow);
                self.unread = Some(shadow);
                step
            }
        }
    }

    /// Forwards everything unchanged, and stops reading.
    pub(super) fn forward_unread(&mut self, chunk: &[u8], step: &mut Step) -> Stage {
        if let Body::Passing(passing) = &mut self.body
            && let Some(bytes) = passing.pass(chunk, &[], None)
        {
            step.body = BodyChange::Replace(bytes);
        }
        if self.headers_held {
            step.headers.extend(self.decided_headers());
        }
        match (self.sent.take(), self.unread.take()) {
            (Some(mut sent), _) => {
                sent.drops_usage &= self.asks_usage;
                Stage::Admitted(sent)
            }
            (None, Some(shadow)) => Stage::Unread(Box::new(shadow)),
            (None, None) => Stage::Idle,
        }
    }
}
