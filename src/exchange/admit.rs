//! The decision about a request: made once its model is known, and amended when its body is complete.

use crate::admission::ledger::Ledger;
use crate::admission::{Amended, Outcome, Refused};
use crate::base::units::{Timestamp, Tokens};
use crate::config::Config;
use crate::conversation::ConversationId;
use crate::conversation::trim::CutPoints;
use crate::estimate::Estimate;
use crate::estimate::learn::{BytesPerToken, PRIOR_ANSWER};
use crate::exchange::admitted::Admitted;
use crate::exchange::first_byte::answer;
use crate::exchange::refusal::{About, refuse};
use crate::exchange::request_body::{Parsed, RequestBody};
use crate::exchange::response::refused;
use crate::exchange::scope::{scope, tier_name};
use crate::exchange::step::Step;
use crate::exchange::upstream::Outlook;
use crate::exchange::wait::Wait;
use crate::exchange::{placement, shadow, trial};
use crate::health::sla;
use crate::policy::{Conditions, Reason, Request, ShadowDecision};
use crate::provider::{Facts, alternatives};
use crate::report::refusal::Denial;
use crate::report::settlement::Exit;
use crate::state::store::{StateFaults, Store};
use crate::tier::{MAX_TIERS, place};

impl RequestBody {
    /// Chooses a tier and reserves what the request may cost.
    pub(super) fn admit(
        &mut self,
        config: &Config,
        parsed: Parsed,
        store: &impl Store,
        now: Timestamp,
    ) -> Result<Step, Box<Step>> {
        let barred = self.is_barred(&parsed);
        if barred && !self.tenant.plan.limits.shadow {
            return Err(self.bar(&parsed.model, now));
        }
        let mut ledger = Ledger::new(store, &self.tenant, config.failure_mode, now);
        let cuts = self.cuts(config, &parsed);
        let conversation = self.conversation();
        let mut request = self.request(config, &parsed);
        if self.has_let_alternatives_go() {
            request.scope.unfit = (0..MAX_TIERS).collect();
            request.scope.reason = Some(Reason::Unread);
        }
        if self.has_let_a_limit_go() {
            request.scope.least_output = None;
        }
        request.conditions.barred = barred;
        request.conditions.cuts = cuts.as_ref();
        request.conditions.conversation =
            conversation.and_then(|id| placement::look(&ledger, &request, &id));
        let shelf = ledger.shelf();
        let books = shelf.books(&self.tenant);
        request.conditions.books = &books;
        let mut outlook = Outlook::of(&self.pressed, self.credential, &mut request, store, now);
        // This comes last, since whether the request can be a probe depends on everything before.
        let answer = answer(&self.endpoint, self.may_stream(&parsed.facts));
        request.conditions.slow = sla::slow(&mut ledger, &request, answer);
        outlook.try_one(&mut ledger, &mut request);
        let outcome = ledger.admit(&request, &shelf);
        let watches = ledger.take_watches(config.global.as_ref());
        let (mut trials, tried) = trial::decide(&self.tenant, config, &request, store, now);
        ledger.count(tried);
        let mut admission = match outcome {
            Outcome::Admitted(admission) => admission,
            Outcome::Refused(refusal) => {
                outlook.give_up(&mut ledger, &request);
                let refused = self.refused(&request, &refusal, ledger.faults, now);
                let tried = trial::reported(&trials);
                let returned = trial::give_back(&mut trials, config, store, now);
                let refused = refused.reporting(tried).reporting(returned);
                return Err(Box::new(refused.watching(watches)));
            }
            Outcome::Unavailable => {
                outlook.give_up(&mut ledger, &request);
                let returned = trial::give_back(&mut trials, config, store, now);
                let refused = self.unavailable(ledger.faults, now);
                return Err(Box::new(refused.reporting(returned)));
            }
        };
        let is_unlisted = request.place.is_none() && !request.model.is_empty();
        if is_unlisted && !config.ladders.is_empty() {
            admission.reason = admission.reason.or(Some(Reason::Unlisted));
        }
        if self.is_crowded_out(config, &parsed) {
            admission.reason = admission.reason.or(Some(Reason::Unread));
        }
        if let Some(id) = conversation {
            placement::note(&mut ledger, &request, &admission, &id);
        }
        let upstream = outlook.sent(&mut ledger, &request, admission.tier);
        let faults = ledger.faults;
        let (endpoint, tenant) = (self.endpoint.clone(), self.tenant.clone());
        let wait = Wait::of(config, &request, admission.tier);
        let mut admitted = Admitted::new(
            endpoint,
            tenant,
            admission,
            upstream,
            &request,
            &parsed.facts,
        );
        admitted.wait = wait;
        admitted.trials = trials;
        let answered = self.take_early(&mut admitted, config, store, now);
        self.sent = Some(Box::new(admitted));
        Ok(Step::of(faults).watching(watches).reporting(answered))
    }

    /// Amends the reservation of a request that was admitted before its body was complete: its cost is known more exactly now.
    pub(super) fn amend(
        &mut self,
        config: &Config,
        parsed: Parsed,
        store: &impl Store,
        now: Timestamp,
    ) -> Result<Step, Box<Step>> {
        let request = self.request(config, &parsed);
        let Some(mut sent) = self.sent.take() else {
            return Ok(Step::default());
        };
        if self.is_barred(&parsed) {
            if !self.tenant.plan.limits.shadow {
                let returned = sent.settle(config, store, Exit::Unsent, now);
                return Err(Box::new(self.bar(&parsed.model, now).reporting(returned)));
            }
            sent.admission.shadow = Some(ShadowDecision::Barred);
        }
        // The body may turn out to have no output limit, or one that cannot be lowered this far.
        let most = sent.admission.most_output.zip(request.scope.least_output);
        sent.admission.most_output = most.map(|(most, least)| most.max(least));
        let mut ledger = Ledger::new(store, &self.tenant, config.failure_mode, now);
        let amended = ledger.amend(&mut sent.admission, &request);
        let faults = ledger.faults;
        let watches = ledger.take_watches(config.global.as_ref());
        sent.facts = parsed.facts.clone();
        let would = sent.admission.shadow;
        sent.shadow = would.map(|would| shadow::reported(would, &request));
        match amended {
            Amended::Held => {
                self.sent = Some(sent);
                Ok(Step::of(faults).watching(watches))
            }
            Amended::Refused(refused) => {
                let returned = trial::give_back(&mut sent.trials, config, store, now);
                let about = About {
                    record: Some(&refused.record),
                    books: &refused.books,
                    limit: refused.limit.clone(),
                    room: refused.room.as_deref(),
                    tier: sent.tier.clone(),
                    requested_model: &sent.requested_model,
                    model: &sent.model,
                };
                let denial = Denial::Limit(refused.refusal);
                let denied = self.deny(denial, Some(about), faults, now);
                Err(Box::new(denied.reporting(returned).watching(watches)))
            }
            Amended::Unavailable => {
                let returned = sent.settle(config, store, Exit::Unsent, now);
                let refused = self.unavailable(faults, now);
                Err(Box::new(refused.reporting(returned)))
            }
        }
    }

    /// Whether the request names a model that its plan does not allow, be it as the model or as one that may answer in its place.
    fn is_barred(&self, parsed: &Parsed) -> bool {
        let limits = &self.tenant.plan.limits;
        limits.models.is_some()
            && (!limits.allows(&parsed.model)
                || alternatives(self.endpoint.wire, &self.scanner)
                    .any(|name| !limits.allows(&name)))
    }

    /// Refuses a request for a model that its plan does not allow.
    fn bar(&self, model: &str, now: Timestamp) -> Box<Step> {
        let models = self.tenant.plan.limits.models.as_deref();
        let denial = Denial::ModelNotAllowed(models.unwrap_or_default());
        let about = About {
            record: None,
            books: &[],
            limit: None,
            room: None,
            tier: "".into(),
            requested_model: model,
            model: "",
        };
        self.deny(denial, Some(about), StateFaults::default(), now)
    }

    /// Answers a request that a limit refuses.
    fn refused(
        &self,
        request: &Request<'_>,
        refused: &Refused,
        faults: StateFaults,
        now: Timestamp,
    ) -> Box<Step> {
        let about = About {
            record: Some(&refused.record),
            books: &refused.books,
            limit: refused.limit.clone(),
            room: refused.room.as_deref(),
            tier: tier_name(request, refused.tier),
            requested_model: request.model,
            model: request.model_at(refused.tier),
        };
        self.deny(Denial::Limit(refused.refusal), Some(about), faults, now)
    }

    /// Refuses a request because bursar's own state is unavailable.
    fn unavailable(&self, faults: StateFaults, now: Timestamp) -> Box<Step> {
        self.deny(Denial::Unavailable, None, faults, now)
    }

    fn deny(
        &self,
        denial: Denial<'_>,
        about: Option<About<'_>>,
        faults: StateFaults,
        now: Timestamp,
    ) -> Box<Step> {
        let step = refuse(self.endpoint.wire, denial, Some(&self.tenant), about, now);
        Box::new(step.reporting(Step::of(faults)))
    }

    /// Reads the headers of an answer that came before the admission.
    fn take_early(
        &mut self,
        admitted: &mut Admitted,
        config: &Config,
        store: &impl Store,
        now: Timestamp,
    ) -> Step {
        let Some(response) = self.early.take() else {
            return Step::default();
        };
        match refused(&response) {
            Some(exit) => {
                // The request was answered before it ended.
                admitted.wait = None;
                admitted.settle(config, store, exit, now)
            }
            None => {
                admitted.reader = Some(admitted.reader(&response));
                Step::default()
            }
        }
    }

    /// Whether the answer may be a stream. If the decision must be made before the body shows that, the answer is taken for a stream.
    fn may_stream(&self, facts: &Facts) -> bool {
        facts.stream || !self.is_complete()
    }

    /// The request as the decision sees it.
    fn request<'a>(&self, config: &'a Config, parsed: &'a Parsed) -> Request<'a> {
        let place = place(&config.ladders, &parsed.model);
        Request {
            model: &parsed.model,
            place,
            estimate: self.estimate(&parsed.facts),
            unlisted_price: config.unlisted_price.as_ref(),
            scope: scope(
                &self.endpoint,
                &parsed.facts,
                &parsed.model,
                place,
                self.known(),
            ),
            conditions: Conditions {
                unread_bytes: self.unread_bytes(),
                ..Conditions::default()
            },
        }
    }

    /// Where the conversation can be cut, if some tier may shorten it and none of it was forwarded.
    fn cuts(&self, config: &Config, parsed: &Parsed) -> Option<CutPoints> {
        let messages = self.messages.as_ref()?;
        let place = place(&config.ladders, &parsed.model)?;
        let may_be_cut = self.is_complete() && self.may_trim() && place.ladder.trims(place.asked);
        may_be_cut.then(|| CutPoints::of(messages.messages()))
    }

    /// The request's conversation, if that is known and matters.
    fn conversation(&self) -> Option<ConversationId> {
        let messages = self.messages.as_ref();
        let messages = messages.filter(|_| self.is_complete() && self.may_name());
        self.named.or_else(|| messages?.id())
    }

    /// How many bytes of the body are announced but have not arrived.
    fn unread_bytes(&self) -> u64 {
        let length = self.length.unwrap_or(0);
        length.saturating_sub(self.scanner.offset())
    }

    /// What the request may cost, by the part of it that was read. While the body is incomplete, an output limit may still come, so none
    /// is assumed: if one comes, it is reserved before the last byte is forwarded.
    fn estimate(&self, facts: &Facts) -> Estimate {
        let is_complete = self.is_complete();
        Estimate {
            body_bytes: self.length.unwrap_or(0).max(self.scanner.offset()),
            bytes_per_token: BytesPerToken::PRIOR,
            output_limit: facts
                .output_limit
                .or_else(|| (!is_complete).then_some(Tokens(0))),
            answer: Tokens(PRIOR_ANSWER),
            choices: facts.choices,
            weights: self.tenant.plan.limits.weights.map(|w| w.of_request()),
        }
    }
}
