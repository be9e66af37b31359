//! A refused request: its answer, and what is counted and logged.

use crate::admission::Refused;
use crate::admission::tenant::Tenant;
use crate::base::units::Timestamp;
use crate::exchange::step::{Next, Step};
use crate::limits::capacity::Headroom;
use crate::provider::Wire;
use crate::published::header_group::HeaderGroups;
use crate::published::metric::Label;
use crate::report::decision::{Decided, plain};
use crate::report::log_fields::Field;
use crate::report::metrics;
use crate::report::refusal::Denial;
use crate::report::{headers, log_fields};
use crate::state::record::Record;

/// What is known about a refused request.
pub(super) struct About<'a> {
    /// The tenant's record at the refusal, if a limit refuses it.
    pub(super) record: Option<&'a Record>,
    /// The other books' records (see [`Tenant::with_records`]).
    pub(super) books: &'a [Record],
    /// The limit that refuses it; `None` for a tier's capacity.
    pub(super) limit: Option<Label>,
    /// The tier's headroom, if its capacity refuses the request.
    pub(super) room: Option<&'a Headroom>,
    /// The tier that would have served it; empty if none was chosen.
    pub(super) tier: Label,
    /// The requested model, and the one that would have been sent.
    pub(super) requested_model: &'a str,
    pub(super) model: &'a str,
}

impl<'a> About<'a> {
    /// What is known about a request that was refused before it was read.
    pub(super) fn early(refused: &'a Refused) -> Self {
        Self {
            record: Some(&refused.record),
            books: &refused.books,
            limit: refused.limit.clone(),
            room: None,
            tier: "".into(),
            requested_model: "",
            model: "",
        }
    }
}

/// Refuses a request, with all headers that are known; [`leave_out`] removes those that the operator does not want.
pub(super) fn refuse(
    wire: &dyn Wire,
    denial: Denial<'_>,
    tenant: Option<&Tenant>,
    about: Option<About<'_>>,
    now: Timestamp,
) -> Step {
    let known = about.as_ref();
    let limit = known.and_then(|about| about.limit.clone());
    let mut reply = denial.reply(wire, limit.as_ref().map(Label::as_str), now);
    let whose = tenant.map_or_else(|| metrics::UNCONFIGURED.into(), Tenant::label);
    let mut metrics = vec![metrics::throttled(whose.clone(), denial.reason())];
    let tier = known.map_or_else(|| "".into(), |about| about.tier.clone());
    let decision = if denial.is_throttle() { "throttle" } else { "" };
    let decided = Decided {
        tier: (&tier).into(),
        requested_model: plain(known.map_or("", |about| about.requested_model)).into(),
        model: plain(known.map_or("", |about| about.model)).into(),
        decision,
        reason: denial.reason(),
    };
    if let Some(limit) = &limit {
        metrics.push(metrics::limited(
            whose.clone(),
            limit.clone(),
            denial.reason(),
        ));
    }
    if denial.is_throttle() {
        metrics.push(metrics::request(whose, tier, decision));
    }
    let state = known.and_then(|about| Some((about.record?, about.books, about.room)));
    if let (Some(tenant), Some((record, books, room))) = (tenant, state) {
        let books = tenant.with_records(books);
        let (limits, all) = (&tenant.plan.limits, HeaderGroups::ALL);
        reply
            .headers
            .extend(headers::limits(limits, record, &books, room, all, now));
    }
    reply.headers.extend(headers::decided(decided.clone()));
    reply.headers.extend(limit.as_ref().map(headers::limit));
    let mut fields: Vec<Field> = tenant.into_iter().flat_map(Tenant::identified).collect();
    fields.extend(log_fields::decided(decided));
    fields.extend(limit.as_ref().map(log_fields::limit));
    let left = tenant.zip(about.as_ref());
    fields
        .extend(left.and_then(|(tenant, about)| log_fields::left(tenant.limits(), about.record?)));
    Step {
        next: Next::Reply(reply),
        metrics,
        fields,
        ..Step::default()
    }
}

/// Leaves out of an answer of our own the headers that the operator does not want.
pub(super) fn leave_out(step: &mut Step, groups: HeaderGroups) {
    if let Next::Reply(reply) = &mut step.next
        && groups != HeaderGroups::ALL
    {
        reply
            .headers
            .retain(|(name, _)| headers::is_wanted(groups, name));
    }
}
