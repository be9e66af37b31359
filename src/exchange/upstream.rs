//! What the upstream's answer shows of the upstream: that it serves, or that it refuses, and until when.

use std::num::NonZeroU64;

use crate::admission::learn;
use crate::admission::ledger::Ledger;
use crate::base::name::Name;
use crate::base::units::Timestamp;
use crate::config::Config;
use crate::estimate::Estimate;
use crate::exchange::admitted::Admitted;
use crate::exchange::settle::model_label;
use crate::exchange::step::{HeaderChange, Step};
use crate::health::pressed;
use crate::health::pressed::PressureView;
use crate::http::{Headers, Properties};
use crate::limits::capacity::CapacitySource;
use crate::limits::learned::Learned;
use crate::policy::{Conditions, Decision, Reason, Request, Scope, decide};
use crate::provider::UpstreamLimit;
use crate::provider::refused::{RefusalReader, refusal_in_answer};
use crate::published::metric::{Label, Series};
use crate::report::{headers, log_fields, metrics};
use crate::state::store::Store;
use crate::tier::place;
use crate::tier::pressure::{PressureKey, RefusalKind, UpstreamRefusal};

/// An admitted request, as its upstream is concerned.
#[derive(Debug)]
pub(super) struct Upstream {
    view: PressureView,
    /// There is another tier to go to, so that it feels what presses its own.
    has_others: bool,
    credential: u64,
    /// When it was admitted.
    sent: Timestamp,
    /// Something was known of its upstream then, which a success would end.
    is_watched: bool,
    /// It was let through as a probe, to see whether its upstream still refuses.
    is_probe: bool,
    /// What the original request may cost, and how far it can be changed: what a second decision about it needs.
    estimate: Estimate,
    scope: Scope,
    /// What its upstream says of its limit is learned, under this model's name.
    learns: Option<Name>,
    /// A refusal that is being read.
    refusal: Option<RefusalReader>,
    /// What its answer says of the upstream was taken in.
    pub(super) is_heard: bool,
    /// Its caller was answered with headers that have it retry at once.
    pub(super) comes_back: bool,
}

/// What is known of the upstreams when a request is decided about.
pub(super) struct Outlook {
    view: PressureView,
    credential: u64,
    /// The tier that it is to try.
    probe: Option<usize>,
}

impl Outlook {
    /// Puts into the request what is known of the upstreams it might be sent to.
    pub(super) fn of(
        view: &PressureView,
        credential: u64,
        request: &mut Request<'_>,
        store: &impl Store,
        now: Timestamp,
    ) -> Self {
        if request.place.is_some_and(|place| place.ladder.last() > 0) {
            let known = view.known(store, now);
            request.conditions.pressed = pressed::tiers(&known, request, credential);
        }
        Self {
            view: view.clone(),
            credential,
            probe: None,
        }
    }

    /// Sends the request to a pressed tier as a probe, where one is due. Called last, since it depends on all else whether the request would
    /// go there.
    pub(super) fn try_one<S: Store>(
        &mut self,
        ledger: &mut Ledger<'_, S>,
        request: &mut Request<'_>,
    ) {
        self.probe = pressed::probe(ledger, &self.view, request, self.credential);
        if let Some(tier) = self.probe {
            request.conditions.pressed = request.conditions.pressed.without(tier);
        }
    }

    /// The request came to nothing, or goes elsewhere than it was to try.
    pub(super) fn give_up<S: Store>(&mut self, ledger: &mut Ledger<'_, S>, request: &Request<'_>) {
        let tried = self.probe.take().zip(request.place);
        if let Some((tier, place)) = tried {
            let key = pressed::key(place, tier, request.model_at(tier), self.credential);
            let faults = pressed::release(ledger.store, &self.view, &key, ledger.now, ledger.now);
            ledger.count(faults);
        }
    }

    /// The request is sent to this tier.
    pub(super) fn sent<S: Store>(
        mut self,
        ledger: &mut Ledger<'_, S>,
        request: &Request<'_>,
        tier: usize,
    ) -> Upstream {
        if self.probe.is_some_and(|probe| probe != tier) {
            self.give_up(ledger, request);
        }
        let place = request.place.filter(|place| place.ladder.last() > 0);
        let is_watched = place.is_some_and(|place| {
            let known = self.view.known(ledger.store, ledger.now);
            // Mostly nothing is known of any, and nothing is to be hashed.
            !known.is_empty() && {
                let model = request.model_at(tier);
                known.knows(&pressed::key(place, tier, model, self.credential))
            }
        });
        Upstream {
            view: self.view,
            has_others: place.is_some(),
            credential: self.credential,
            sent: ledger.now,
            is_watched,
            is_probe: self.probe.is_some(),
            estimate: request.estimate,
            scope: request.scope,
            learns: learns(request, tier),
            refusal: None,
            is_heard: false,
            comes_back: false,
        }
    }
}

impl Upstream {
    /// Whether the answer's body is to be read for what it says of the upstream.
    pub(super) fn reads(&self) -> bool {
        self.refusal.is_some()
    }

    /// Whether it refuses for want of quota, as far as its headers show.
    pub(super) fn refuses(&self) -> bool {
        let kind = self.refusal.as_ref().and_then(RefusalReader::kind);
        matches!(kind, Some(RefusalKind::RateLimit | RefusalKind::Quota))
    }

    /// Whether something is still to be done when the exchange ends.
    pub(super) fn is_open(&self) -> bool {
        self.refusal.is_some() || self.is_probe && !self.is_heard
    }
}

impl Admitted {
    /// The headers of a refusal have arrived. Answers that the proxy itself made say nothing of the upstream.
    pub(super) fn upstream_refuses(
        &mut self,
        config: &Config,
        response: &Headers,
        is_end: bool,
        store: &impl Store,
        properties: &impl Properties,
        now: Timestamp,
    ) -> Step {
        let reader = RefusalReader::new(response, now).filter(|_| is_upstreams(properties));
        let Some(reader) = reader else {
            return self.end_upstream(config, store, now);
        };
        let comes_back = reader.kind().is_some() && self.lower_is_open(config, store, now);
        self.upstream.refusal = Some(reader);
        let mut step = Step::default();
        if comes_back {
            self.upstream.comes_back = true;
            step.fields
                .push(log_fields::reason(Reason::UpstreamLimited));
        }
        match is_end {
            true => step.reporting(self.end_upstream(config, store, now)),
            false => step,
        }
    }

    /// More of the body of such an answer is here.
    pub(super) fn read_refusal(
        &mut self,
        config: &Config,
        chunk: &[u8],
        is_end: bool,
        store: &impl Store,
        now: Timestamp,
    ) -> Step {
        if let Some(refusal) = &mut self.upstream.refusal {
            refusal.feed(chunk);
        }
        match is_end {
            true => self.end_upstream(config, store, now),
            false => Step::default(),
        }
    }

    /// More of an answer came: its first bytes show that the upstream serves, or refuses in place of an answer.
    pub(super) fn upstream_answers(
        &mut self,
        config: &Config,
        is_end: bool,
        store: &impl Store,
        now: Timestamp,
    ) -> Step {
        let Some(reader) = &self.reader else {
            return Step::default();
        };
        if let Some(error) = reader.error() {
            return match refusal_in_answer(error) {
                Some(refusal) => self.hear(config, refusal, store, now),
                None => self.end_upstream(config, store, now),
            };
        }
        if reader.has_output() || is_end && !reader.is_no_answer() {
            return self.hear_success(config, store, now);
        }
        match is_end {
            true => self.end_upstream(config, store, now),
            false => Step::default(),
        }
    }

    /// Nothing more comes that says anything of the upstream.
    pub(super) fn end_upstream(
        &mut self,
        config: &Config,
        store: &impl Store,
        now: Timestamp,
    ) -> Step {
        let refusal = self.upstream.refusal.take();
        if let Some(refusal) = refusal.and_then(|reader| reader.refusal()) {
            return self.hear(config, refusal, store, now);
        }
        let Upstream {
            is_heard,
            is_probe,
            sent,
            ref view,
            ..
        } = self.upstream;
        if is_heard || !is_probe {
            return Step::default();
        }
        let Some(key) = self.pressure(config) else {
            return Step::default();
        };
        let faults = pressed::release(store, view, &key, sent, now);
        self.upstream.is_heard = true;
        Step::of(faults)
    }

    /// The upstream refused.
    fn hear(
        &mut self,
        config: &Config,
        refusal: UpstreamRefusal,
        store: &impl Store,
        now: Timestamp,
    ) -> Step {
        self.upstream.is_heard = true;
        let kind = refusal.kind.as_str();
        let (tier, model) = (self.tier.clone(), model_label(config, &self.model));
        let mut step = Step {
            metrics: vec![metrics::upstream_refusal(tier, model, kind)],
            fields: vec![log_fields::upstream_refusal(kind)],
            ..Step::default()
        };
        let Upstream { ref view, sent, .. } = self.upstream;
        if let Some(key) = self.pressure(config) {
            let gauge = |pressed| self.pressed_gauge(config, pressed);
            step.faults = pressed::refuse(store, view, key, refusal, sent, now, gauge);
        }
        step
    }

    fn hear_success(&mut self, config: &Config, store: &impl Store, now: Timestamp) -> Step {
        self.upstream.is_heard = true;
        let Upstream {
            ref view,
            sent,
            is_watched,
            ..
        } = self.upstream;
        if !is_watched {
            return Step::default();
        }
        let Some(key) = self.pressure(config) else {
            return Step::default();
        };
        let gauge = |pressed| self.pressed_gauge(config, pressed);
        Step::of(pressed::succeed(store, view, key, sent, now, gauge))
    }

    /// Whose pressure it feels; `None` where there is no other tier to go to.
    fn pressure(&self, config: &Config) -> Option<PressureKey> {
        let place = place(&config.ladders, &self.requested_model);
        let place = place.filter(|_| self.upstream.has_others)?;
        let (tier, credential) = (self.admission.tier, self.upstream.credential);
        Some(pressed::key(place, tier, &self.model, credential))
    }

    /// The gauge of the tier; `None` if the model that was sent is not configured.
    fn pressed_gauge(&self, config: &Config, pressed: u64) -> Option<(Series, u64)> {
        let model = config.model(&self.model)?;
        Some(metrics::tier_pressed(
            self.tier.clone(),
            Label::from(model),
            pressed,
        ))
    }

    /// Learns the upstream's limit from its report: how large it is, and how much is left, whoever used the rest.
    pub(super) fn learn_limit(
        &mut self,
        theirs: Option<UpstreamLimit<'_>>,
        store: &impl Store,
        now: Timestamp,
    ) -> Step {
        let told = self.upstream.learns.as_ref().zip(theirs);
        let Some((
            model,
            UpstreamLimit {
                limit: Some(limit),
                remaining,
                ..
            },
        )) = told
        else {
            return Step::default();
        };
        let Some(known) = NonZeroU64::new(limit) else {
            return Step::default();
        };
        let told = Learned {
            limit: known,
            told: now,
        };
        let faults = learn(store, model, told, remaining);
        let gauge = metrics::capacity(self.tier.clone(), model.into(), remaining);
        // It has counted this request; what the rest of it takes is in its next word.
        self.admission.capacity = None;
        Step {
            metrics: vec![gauge],
            faults,
            ..Step::default()
        }
    }

    /// Whether the same request would be served by a lower tier than the one whose upstream refuses.
    fn lower_is_open(&self, config: &Config, store: &impl Store, now: Timestamp) -> bool {
        let limits = self.tenant.limits();
        let place = place(&config.ladders, &self.requested_model);
        let (Some(place), Some(record)) = (place, self.admission.record.as_deref()) else {
            return false;
        };
        let Upstream {
            ref view,
            credential,
            estimate,
            scope,
            ..
        } = self.upstream;
        if limits.shadow || limits.never_downgrade {
            return false;
        }
        let served = self.admission.tier;
        let mut request = Request {
            model: &self.requested_model,
            place: Some(place),
            estimate,
            unlisted_price: None,
            scope,
            conditions: Conditions::default(),
        };
        let known = view.known(store, now);
        request.conditions.pressed = pressed::tiers(&known, &request, credential).with(served);
        let pressed = request.conditions.pressed;
        match decide(limits, &request, record, now) {
            Decision::Admit { tier, .. } => tier > served && !pressed.has(tier),
            Decision::Refuse { .. } => false,
        }
    }

    /// Headers that have the caller's SDK retry at once: the next tier serves then.
    pub(super) fn comes_back(&self, response: &Headers, now: Timestamp) -> Vec<HeaderChange> {
        let mut changes: Vec<_> = headers::come_back(pressed::spread(now))
            .into_iter()
            .map(|(name, value)| HeaderChange::Set(name, value))
            .collect();
        // Longer waits under other names.
        let others = ["x-ms-retry-after-ms", "x-amz-retry-after"];
        let others = others.into_iter().filter(|name| response.has(name));
        changes.extend(others.map(|name| HeaderChange::Remove(name.as_bytes().to_vec())));
        changes
    }
}

/// The model under which a tier's limit is learned.
fn learns(request: &Request<'_>, tier: usize) -> Option<Name> {
    let tier = request.place?.ladder.tiers.get(tier)?;
    match tier.capacity? {
        CapacitySource::Upstream(_) => Some(tier.model.clone()),
        CapacitySource::Configured(_) => None,
    }
}

/// Whether the answer is the upstream's and none of the proxy's own, as Envoy says in its details.
fn is_upstreams(properties: &impl Properties) -> bool {
    let path = ["response", "code_details"].map(str::to_owned);
    properties.property(&path).as_deref() == Some(b"via_upstream")
}
