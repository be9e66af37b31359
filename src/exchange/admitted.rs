//! An admitted request: the tier and model that serve it, and what is reported about it.

use crate::admission::Admission;
use crate::admission::tenant::Tenant;
use crate::base::name::Name;
use crate::base::units::Timestamp;
use crate::body::json::{Scanner, quoted};
use crate::body::rewrite::Edit;
use crate::exchange::scope::tier_name;
use crate::exchange::shadow;
use crate::exchange::step::Step;
use crate::exchange::trial::{self, Trial};
use crate::exchange::upstream::Upstream;
use crate::exchange::wait::Wait;
use crate::policy::{Reason, Request};
use crate::provider::usage::UsageReader;
use crate::provider::{Endpoint, Facts, leave_alternatives_out, limit_output};
use crate::published::metric::Label;
use crate::report::decision::{Decided, Shadow, plain_name};
use crate::report::refusal::Denial;
use crate::report::{log_fields, metrics};
use crate::tier::Price;

/// An admitted request, from its admission to its settlement.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) endpoint: Endpoint,
    pub(super) tenant: Tenant,
    pub(super) admission: Admission,
    /// The requested model.
    pub(super) requested_model: Name,
    pub(super) facts: Facts,
    /// Name of the tier that serves.
    pub(super) tier: Label,
    /// Model that serves.
    pub(super) model: Name,
    /// Price of the tier that serves, then that of the requested tier.
    pub(super) price: Option<Price>,
    pub(super) asked_price: Option<Price>,
    /// Tokens that each answer may have, if the request allowed more.
    pub(super) limited_to: Option<u64>,
    /// Whether the upstream accepts a request for a stream's usage.
    pub(super) asks_usage: bool,
    /// Whether the answer is a stream that does not report its usage, while usage could not be requested.
    pub(super) is_unasked: bool,
    /// Whether usage was requested on the client's behalf, so events that come only for that reason are removed from the answer.
    pub(super) drops_usage: bool,
    /// In shadow mode, what would have been done with the request.
    pub(super) shadow: Option<Shadow>,
    /// What each of the plans that are tried on the request would have done.
    pub(super) trials: Vec<Trial>,
    /// The messages that are removed from the request's conversation, and the edits of the body that remove them.
    pub(super) trimmed: Option<Trimmed>,
    /// The reader of the response, once its headers have arrived.
    pub(super) reader: Option<UsageReader>,
    /// The wait for the first byte of the answer, while it is measured.
    pub(super) wait: Option<Wait>,
    /// What the answer shows about the upstream.
    pub(super) upstream: Upstream,
    pub(super) is_settled: bool,
    /// When it was last checked whether the reservation has to be renewed.
    pub(super) checked: Timestamp,
}

/// What is left out of a conversation.
#[derive(Debug)]
pub(super) struct Trimmed {
    pub(super) messages: u64,
    pub(super) edits: Vec<Edit>,
}

impl Admitted {
    pub(super) fn new(
        endpoint: Endpoint,
        tenant: Tenant,
        admission: Admission,
        upstream: Upstream,
        request: &Request<'_>,
        facts: &Facts,
    ) -> Self {
        let tier = admission.tier;
        let without = admission.estimate.body_bytes;
        let gone = request.estimate.body_bytes.saturating_sub(without);
        let trimmed = request.conditions.cuts.and_then(|cuts| {
            let cut = cuts.that_takes(gone)?;
            Some(Trimmed {
                messages: cut.messages,
                edits: cuts.edits(cut),
            })
        });
        let would = admission.shadow;
        let shadow = would.map(|would| shadow::reported(would, request));
        let requested_model = Name::from(request.model);
        let place = request.place.filter(|place| tier > place.asked);
        let lower = place.and_then(|place| place.ladder.tiers.get(tier));
        let serving = request.place.and_then(|place| place.ladder.tiers.get(tier));
        let asks_usage = serving.is_none_or(|tier| tier.asks_usage);
        Self {
            asks_usage,
            // Until the body is complete, the client itself may still request usage.
            drops_usage: facts.hides_usage && asks_usage && endpoint.may_be_asked(),
            endpoint,
            tier: tier_name(request, tier),
            model: lower.map_or(&requested_model, |tier| &tier.model).clone(),
            price: request.price(tier).cloned(),
            asked_price: request
                .price(request.place.map_or(0, |place| place.asked))
                .cloned(),
            tenant,
            admission,
            requested_model,
            facts: facts.clone(),
            limited_to: None,
            is_unasked: false,
            shadow,
            trials: Vec::new(),
            trimmed,
            reader: None,
            wait: None,
            upstream,
            is_settled: false,
            checked: Timestamp::default(),
        }
    }

    /// Whether another model serves than the requested one.
    pub(super) fn is_changed(&self) -> bool {
        self.model != self.requested_model
    }

    /// Edits of the model's name in the body, even where the path names the model: a server might obey either. Lists of other
    /// models are removed, since a dearer one could answer.
    pub(super) fn model_edits(&self, body: &Scanner) -> Vec<Edit> {
        let wire = self.endpoint.wire;
        let Some(key) = wire.model_key().filter(|_| self.is_changed()) else {
            return Vec::new();
        };
        let mut edits = leave_alternatives_out(wire, body, &self.model);
        let field = body.value(key);
        edits.extend(field.and_then(|field| {
            Some(Edit {
                start: field.start,
                end: field.end?,
                with: quoted(&self.model).into_bytes(),
            })
        }));
        edits
    }

    /// Notes, for the reports, whether the request's output was limited. To be called once the body is complete.
    pub(super) fn note_limit(&mut self, body: &Scanner) {
        let most = self.admission.most_output;
        let wire = self.endpoint.wire;
        let lowers = |most: &u64| !limit_output(wire, body, *most).is_empty();
        self.limited_to = most.filter(lowers);
        if let Some(shadow) = &mut self.shadow {
            shadow.most_output = shadow.most_output.filter(lowers);
        }
    }

    /// What is reported of the decision, besides the tenant.
    pub(super) fn decided(&self) -> Decided {
        Decided {
            tier: (&self.tier).into(),
            requested_model: plain_name(&self.requested_model),
            model: plain_name(&self.model),
            decision: if self.is_changed() {
                "downgrade"
            } else {
                "admit"
            },
            reason: self.reason(),
        }
    }

    /// The reason for the decision; empty if the request is served as requested.
    pub(super) fn reason(&self) -> &'static str {
        match (&self.admission.record, self.admission.reason) {
            _ if self.upstream.comes_back => Reason::UpstreamLimited.as_str(),
            (None, _) => Denial::Unavailable.reason(),
            (_, reason) => reason.map_or("", Reason::as_str),
        }
    }

    /// What is counted and logged once the admission is final.
    pub(super) fn admitted(&self) -> Step {
        let tenant = self.tenant.label();
        let decided = self.decided();
        let (decision, reason) = (decided.decision, decided.reason);
        let mut fields = Vec::with_capacity(8);
        fields.extend(log_fields::decided(decided));
        if let Some((limit, mark)) = self.admission.lowered_by.as_ref() {
            fields.push(log_fields::limit(limit));
            fields.extend(mark.map(log_fields::mark));
        }
        fields.extend(self.shadow.as_ref().map(log_fields::shadow));
        let here = || (tenant.clone(), self.tier.clone());
        let (whose, tier) = here();
        let mut metrics = vec![metrics::request(whose, tier, decision)];
        let (whose, tier) = here();
        if self.is_changed() {
            metrics.push(metrics::downgraded(whose, tier, reason));
        } else if !reason.is_empty() {
            metrics.push(metrics::kept(whose, tier, reason));
        }
        let shadow = self.shadow.as_ref();
        metrics.extend(shadow.map(|shadow| metrics::shadow(shadow, tenant.clone())));
        if let Some(trimmed) = &self.trimmed {
            metrics.push(metrics::trimmed(tenant, trimmed.messages));
            fields.push(log_fields::trimmed(trimmed.messages));
        }
        let held = self.admission.capacity.as_ref();
        metrics.extend(held.and_then(|held| held.taken()));
        let step = Step {
            metrics,
            fields,
            ..Step::default()
        };
        step.reporting(trial::reported(&self.trials))
    }
}
