//! Callers' requests for their own limits: bursar answers these itself, whatever the upstream is, and charges nothing.

use crate::admission::ledger::Ledger;
use crate::admission::tenant::Tenant;
use crate::base::units::{Timestamp, Tokens};
use crate::estimate::Estimate;
use crate::estimate::learn::{BytesPerToken, Model, PRIOR_ANSWER};
use crate::exchange::Exchange;
use crate::exchange::refusal::refuse;
use crate::exchange::request::{Identified, subjects};
use crate::exchange::scope::tier_name;
use crate::exchange::step::{Next, Step};
use crate::health::{pressed, sla};
use crate::http::{Headers, Properties};
use crate::policy::{Book, Conditions, Decision, LimitRefusal, Payer, Refusal, Request, Scope};
use crate::provider::{Problem, credential, parameter, speaker};
use crate::report::headers::millis_up;
use crate::report::refusal::{Denial, Reply};
use crate::report::self_service::{Preview, answer};
use crate::report::standing::standings;
use crate::state::record::Record;
use crate::state::store::Store;
use crate::tier::place;

/// A hypothetical request, which the caller describes.
struct Thought {
    model: String,
    input: Tokens,
    output: Option<Tokens>,
}

impl Exchange {
    /// The answer, if this is a request for the caller's limits.
    pub(super) fn self_service(
        &self,
        request: &Headers,
        store: &impl Store,
        properties: &impl Properties,
        now: Timestamp,
    ) -> Option<Step> {
        let own = self.config.self_service.as_ref()?;
        let [method, path] = request.only_of([":method", ":path"]);
        let (method, path) = (method?, path?);
        let plain = path.split(|byte| *byte == b'?').next()?;
        if plain != own.as_bytes() {
            return None;
        }
        if !matches!(method, b"GET" | b"HEAD") {
            let message = "A caller's limits can be read (GET) and not changed.";
            let mut step = wrong(request, 405, "method_not_allowed", message);
            if let Next::Reply(reply) = &mut step.next {
                reply.headers.push(("allow", "GET, HEAD".into()));
            }
            return Some(step);
        }
        let denied = |denial| refuse(speaker(request), denial, None, None, now);
        Some(match self.identify(request, properties) {
            Identified::Tenant(mut tenant) => {
                match subjects(&self.config, &tenant, request, store, properties) {
                    Ok(shown) => tenant.subjects = shown,
                    Err(denial) => return Some(denied(denial)),
                }
                self.tell(&tenant, request, path, store, now)
            }
            // Requests that pass unmetered have no limits to show.
            Identified::Unmetered => denied(Denial::TenantRequired(&self.config.sources)),
            Identified::Denied(denial, _) => denied(denial),
        })
    }

    fn tell(
        &self,
        tenant: &Tenant,
        request: &Headers,
        path: &[u8],
        store: &impl Store,
        now: Timestamp,
    ) -> Step {
        let ledger = Ledger::new(store, tenant, self.config.failure_mode, now);
        let record = ledger.record_or_new();
        let shelf = ledger.shelf();
        let books = shelf.books(tenant);
        let thought = match self.thought(path) {
            Ok(thought) => thought,
            Err(name) => {
                let message = format!("The parameter `{name}` is not what it should be.");
                return wrong(request, 400, "invalid_parameter", &message);
            }
        };
        let preview = thought.map(|thought| {
            let by = match self.config.own_credentials {
                true => credential(request, store.slot_seed().0),
                false => 0,
            };
            self.preview(&ledger, &thought, (&record, &books), by)
        });
        let limits = tenant.limits();
        let own = standings(limits, &record, now).map(|limit| (Payer::Tenant, limit));
        let others = books.iter().flat_map(|book| {
            let all = standings(book.limits, book.record, now);
            all.map(|limit| (book.payer, limit))
        });
        let body = answer(
            tenant.id.as_str(),
            &tenant.plan.name,
            limits.shadow,
            own.chain(others),
            preview.as_ref(),
            now,
        );
        Step {
            next: Next::Reply(Reply {
                status: 200,
                details: "bursar_self_service".to_owned(),
                headers: vec![
                    ("content-type", "application/json".into()),
                    ("cache-control", "no-store".into()),
                ],
                body,
            }),
            fields: tenant.identified().collect(),
            ..Step::default()
        }
    }

    /// The request that the query parameters describe: without any, one for the best model that needs nothing. `None` where
    /// there is no ladder, and no model is named.
    ///
    /// # Errors
    /// The parameter that cannot be read.
    fn thought(&self, path: &[u8]) -> Result<Option<Thought>, &'static str> {
        let text = |name| match parameter(path, name) {
            Some(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| name),
            None => Ok(None),
        };
        let number = |name| match text(name)? {
            Some(digits) => digits
                .parse()
                .map(|number| Some(Tokens(number)))
                .map_err(|_| name),
            None => Ok(None),
        };
        let (named, input, output) = (
            text("model")?,
            number("input_tokens")?,
            number("max_tokens")?,
        );
        let is_plain = named.is_none() && input.is_none();
        let best = self.config.ladders.first();
        let best = best.and_then(|ladder| Some(ladder.tiers.first()?.model.to_string()));
        let model = named.or(best);
        Ok(model.map(|model| Thought {
            model,
            input: input.unwrap_or_default(),
            output: output.or_else(|| is_plain.then_some(Tokens(0))),
        }))
    }

    /// The decision about the hypothetical request: as [`crate::exchange`] would decide, except for what depends on a body.
    fn preview<S: Store>(
        &self,
        ledger: &Ledger<'_, S>,
        thought: &Thought,
        (record, books): (&Record, &[Book<'_>]),
        credential: u64,
    ) -> Preview {
        let limits = ledger.tenant.limits();
        let figures = record.learned.of(Model::of(&thought.model));
        let mut request = Request {
            model: &thought.model,
            place: place(&self.config.ladders, &thought.model),
            estimate: Estimate {
                body_bytes: figures.bytes_per_token.bytes(thought.input),
                bytes_per_token: BytesPerToken::PRIOR,
                output_limit: thought.output,
                answer: Tokens(PRIOR_ANSWER),
                choices: 1,
                weights: limits.weights.map(|weights| weights.of_request()),
            },
            unlisted_price: self.config.unlisted_price.as_ref(),
            scope: Scope {
                least_output: Some(1),
                ..Scope::default()
            },
            conditions: Conditions::default(),
        };
        let known = self.pressed.known(ledger.store, ledger.now);
        request.conditions.pressed = pressed::tiers(&known, &request, credential);
        request.conditions.slow = sla::known_slow(ledger, &request, sla::Answer::Streamed);
        let barred = !limits.allows(&thought.model);
        let decision = ledger.preview(&request, record, books);
        let (Decision::Admit { tier, .. } | Decision::Refuse { tier, .. }) = decision;
        let model = request.model_at(tier);
        let plain = Preview {
            tier: (&tier_name(&request, tier)).into(),
            model: model.to_owned().into(),
            requested_model: thought.model.clone().into(),
            decision: if model == thought.model {
                "admit"
            } else {
                "downgrade"
            },
            reason: "",
            limit: None,
            holds: crate::base::units::Cost::ZERO,
            cells: 0,
            most_output: None,
            retry_after_ms: None,
        };
        match decision {
            _ if barred => Preview {
                decision: "refuse",
                reason: Denial::ModelNotAllowed(&[]).reason(),
                ..plain
            },
            Decision::Admit {
                reason,
                most_output,
                estimate,
                expected,
                ..
            } => Preview {
                reason: reason.map_or("", |reason| reason.as_str()),
                holds: expected.reserve(limits).cost,
                cells: estimate.cells(),
                most_output,
                ..plain
            },
            Decision::Refuse { refusal, limit, .. } => Preview {
                decision: "throttle",
                reason: Denial::Limit(refusal).reason(),
                limit: LimitRefusal { refusal, limit }
                    .name(limits, books)
                    .map(|name| (&name).into()),
                retry_after_ms: wait(refusal),
                ..plain
            },
        }
    }
}

/// How long until the same request might pass.
fn wait(refusal: Refusal) -> Option<u64> {
    match refusal {
        Refusal::BucketEmpty(wait)
        | Refusal::TierCapacity(Some(wait))
        | Refusal::BudgetExhausted(Some(wait)) => Some(millis_up(wait)),
        _ => None,
    }
}

/// The answer to a request for limits that is not valid.
fn wrong(request: &Headers, status: u16, code: &'static str, message: &str) -> Step {
    let error = speaker(request).error(&Problem {
        status,
        code,
        message,
        retry_after_ms: None,
    });
    let mut headers = vec![("content-type", "application/json".into())];
    headers.extend(error.headers);
    Step {
        next: Next::Reply(Reply {
            status: error.status,
            details: format!("bursar_{code}"),
            headers,
            body: error.body,
        }),
        ..Step::default()
    }
}
