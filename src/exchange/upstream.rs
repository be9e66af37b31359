//! What an answer shows about its upstream: that the upstream serves, or that it refuses, and until when.

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

/// What is known about the upstream of an admitted request.
#[derive(Debug)]
pub(super) struct Upstream {
    view: PressureView,
    /// Whether the ladder has other tiers, so the request may avoid a tier whose upstream refuses.
    has_others: bool,
    credential: u64,
    /// When the request was admitted.
    sent: Timestamp,
    /// Whether a refusal of the upstream was known when the request was admitted, which a success would clear.
    is_watched: bool,
    /// Whether the request was let through as a probe, to see whether its upstream still refuses.
    is_probe: bool,
    /// What the original request may cost, and how far it can be changed: needed for a second decision about the request.
    estimate: Estimate,
    scope: Scope,
    /// The limit that the upstream reports is learned under this model's name.
    learns: Option<Name>,
    /// The reader of a refusal, while its body arrives.
    refusal: Option<RefusalReader>,
    /// Whether what the answer shows about the upstream has been recorded.
    pub(super) is_heard: bool,
    /// Whether the caller was answered with headers that make it retry at once.
    pub(super) comes_back: bool,
}

/// What is known about the upstreams when the decision about a request is made.
pub(super) struct Outlook {
    view: PressureView,
    credential: u64,
    /// The tier that the request probes, if any.
    probe: Option<usize>,
}

impl Outlook {
    /// Adds to the request what is known about the upstreams to which it might be sent.
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

    /// Sends the request to a pressed tier as a probe, if one is due. Must be called last, since whether the request would go to that tier
    /// depends on everything else.
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

    /// Gives up the probe: the request is not sent, or is sent to another tier.
    pub(super) fn give_up<S: Store>(&mut self, ledger: &mut Ledger<'_, S>, request: &Request<'_>) {
        let tried = self.probe.take().zip(request.place);
        if let Some((tier, place)) = tried {
            let key = pressed::key(place, tier, request.model_at(tier), self.credential);
            let faults = pressed::release(ledger.store, &self.view, &key, ledger.now, ledger.now);
            ledger.count(faults);
        }
    }

    /// Notes that the request is sent to this tier.
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
            // Mostly nothing is known about any upstream, so that no hash is needed.
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
    /// Whether the answer's body must be read for what it shows about the upstream.
    pub(super) fn reads(&self) -> bool {
        self.refusal.is_some()
    }

    /// Whether the answer refuses the request for lack of quota, as far as its headers show.
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
    /// Handles the headers of a refusal. Answers that the proxy itself made show nothing about the upstream.
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
        let is_all = reader.kind().is_some() && !self.has_own_limits();
        let comes_back = is_all && self.lower_is_open(config, store, now);
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

    /// Handles more of a refusal's body.
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

    /// Handles more of an answer: its first bytes show whether the upstream serves, or refuses in place of an answer.
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

    /// Records what is known at the end: nothing more comes that shows anything about the upstream.
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

    /// Records that the upstream refused.
    fn hear(
        &mut self,
        config: &Config,
        refusal: UpstreamRefusal,
        store: &impl Store,
        now: Timestamp,
    ) -> Step {
        let kind = refusal.kind.as_str();
        let (tier, model) = (self.tier.clone(), model_label(config, &self.model));
        let mut step = Step {
            metrics: vec![metrics::upstream_refusal(tier, model, kind)],
            fields: vec![log_fields::upstream_refusal(kind)],
            ..Step::default()
        };
        if self.has_own_limits() {
            return step.reporting(self.end_upstream(config, store, now));
        }
        self.upstream.is_heard = true;
        let Upstream { ref view, sent, .. } = self.upstream;
        if let Some(key) = self.pressure(config) {
            let gauge = |pressed| self.pressed_gauge(config, pressed);
            step.faults = pressed::refuse(store, view, key, refusal, sent, now, gauge);
        }
        step
    }

    /// Whether the request has another service tier than most, or another speed: those have rate limits and machines of their own, so that
    /// what they show holds for no other request (<https://platform.claude.com/docs/en/build-with-claude/fast-mode>,
    /// <https://developers.openai.com/api/docs/guides/flex-processing>, read 2026-12-01).
    fn has_own_limits(&self) -> bool {
        let asked = self.facts.service_tier.or(self.endpoint.service_tier);
        let usual = ["auto", "default", "standard", "standard_only", "priority"];
        asked.is_some_and(|asked| !usual.contains(&asked.as_str()))
    }

    fn hear_success(&mut self, config: &Config, store: &impl Store, now: Timestamp) -> Step {
        if self.has_own_limits() {
            return self.end_upstream(config, store, now);
        }
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

    /// The key of the pressure on the request's tier; `None` if the ladder has no other tier.
    fn pressure(&self, config: &Config) -> Option<PressureKey> {
        let place = place(&config.ladders, &self.requested_model);
        let place = place.filter(|_| self.upstream.has_others)?;
        let (tier, credential) = (self.admission.tier, self.upstream.credential);
        Some(pressed::key(place, tier, &self.model, credential))
    }

    /// The gauge of the tier's pressure; `None` if the model that was sent is not configured.
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
        // The upstream has counted this request; what the rest of the answer uses is in its next report.
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

    /// Headers that make the caller's SDK retry at once: the next tier serves the retry.
    pub(super) fn comes_back(&self, response: &Headers, now: Timestamp) -> Vec<HeaderChange> {
        let mut changes: Vec<_> = headers::come_back(pressed::spread(now))
            .into_iter()
            .map(|(name, value)| HeaderChange::Set(name, value))
            .collect();
        // Other names under which the upstream may report a longer wait.
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

/// Whether the answer is the upstream's and not the proxy's own, by Envoy's response code details.
fn is_upstreams(properties: &impl Properties) -> bool {
    let path = ["response", "code_details"].map(str::to_owned);
    properties.property(&path).as_deref() == Some(b"via_upstream")
}
