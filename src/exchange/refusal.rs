//! A request that is refused: what is answered, counted and told.

use super::*;
use crate::api::Wire;
use crate::capacity::Room;
use crate::record::Record;

/// What is known about a refused request.
pub(super) struct About<'a> {
    /// The state that refuses it.
    pub(super) record: &'a Record,
    /// What it found at that tier, if it is the tier's capacity that refuses.
    pub(super) room: Option<&'a Room>,
    /// The tier that it would have been served at; empty if that was not reached.
    pub(super) tier: Label,
    /// The model that was asked for, and the one that would have been sent.
    pub(super) requested_model: &'a str,
    pub(super) model: &'a str,
}

impl<'a> About<'a> {
    /// Of a request that was refused before it was read.
    pub(super) fn state(record: &'a Record) -> Self {
        Self {
            record,
            room: None,
            tier: "".into(),
            requested_model: "",
            model: "",
        }
    }
}

/// Refuses a request.
pub(super) fn refuse(
    wire: &dyn Wire,
    denial: Denial,
    payer: Option<&Payer>,
    about: Option<About<'_>>,
    now: Timestamp,
) -> Step {
    let mut reply = denial.reply(wire, now);
    let tenant = payer.map_or_else(|| telemetry::UNCONFIGURED.into(), label);
    let mut metrics = vec![telemetry::throttled(tenant.clone(), denial.reason())];
    let known = about.as_ref();
    let tier = known.map_or_else(|| "".into(), |about| about.tier.clone());
    let decision = if denial.is_throttle() { "throttle" } else { "" };
    let told = Decided {
        tier: (&tier).into(),
        requested_model: plain(known.map_or("", |about| about.requested_model)).into(),
        model: plain(known.map_or("", |about| about.model)).into(),
        decision,
        reason: denial.reason(),
    };
    if denial.is_throttle() {
        metrics.push(telemetry::request(tenant, tier, decision));
    }
    if let (Some(payer), Some(about)) = (payer, known) {
        reply.headers.extend(headers::limits(
            &payer.plan.limits,
            about.record,
            about.room,
            now,
        ));
    }
    reply.headers.extend(headers::decided(told.clone()));
    let mut fields: Vec<Field> = payer.into_iter().flat_map(Payer::identified).collect();
    fields.extend(telemetry::decided(told));
    Step {
        next: Next::Reply(reply),
        metrics,
        fields,
        ..Step::default()
    }
}
