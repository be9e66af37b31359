//! How long a request waits for the first byte of its answer, from its own last byte on, where that is measured.
//!
//! From the request's end, white space after its JSON included: an upstream that was promised more waits for that, and a
//! client that keeps it back does not make the upstream slow. To the first byte of the
//! answer itself (see [`Reader::has_begun`]): a stream's headers come at once, whenever its first event does.

use std::time::Duration;

use super::*;
use crate::name::Name;
use crate::payer::Done;
use crate::policy::Ask;
use crate::sla::{self, Answer};

/// A wait for the first byte of an answer.
#[derive(Debug)]
pub(super) struct Wait {
    /// The model of the tier that serves, which is the tier's name in shared data.
    model: Name,
    /// When the request ended; `None` before.
    since: Option<Timestamp>,
    /// The request says itself how long an answer may take.
    is_hurried: bool,
}

/// Whether a request brings a timeout of its own, which Envoy heeds where it believes its sender.
pub(super) fn is_hurried(request: &Headers) -> bool {
    let timeouts = [
        "x-envoy-upstream-rq-timeout-ms",
        "x-envoy-upstream-rq-per-try-timeout-ms",
    ];
    timeouts.iter().any(|name| request.has(name))
}

impl Wait {
    /// The wait of a request that is served at this tier, if anything follows from it.
    pub(super) fn of(
        config: &Config,
        ask: &Ask<'_>,
        tier: usize,
        is_hurried: bool,
    ) -> Option<Self> {
        config.tightest_sla?;
        let ladder = ask.place?.ladder;
        let tier = ladder.tiers.get(tier).filter(|_| ladder.last() > 0)?;
        Some(Self {
            model: tier.model.clone(),
            since: None,
            is_hurried,
        })
    }
}

impl Sent {
    /// All of the request is here.
    pub(super) fn begin_wait(&mut self, now: Timestamp) {
        // What is made without the client does not keep it waiting.
        self.wait = self.wait.take().filter(|_| !self.facts.is_deferred);
        if let Some(wait) = &mut self.wait {
            wait.since = Some(now);
        }
    }

    /// The answer begins.
    pub(super) fn end_wait(&mut self, store: &impl Store, now: Timestamp) -> Step {
        self.waited(store, Some, now)
    }

    /// Nobody had an answer in time, however long that was: slower than any SLA. But what a client calls in time is no word
    /// about the upstream.
    pub(super) fn time_out(&mut self, config: &Config, store: &impl Store, now: Timestamp) -> Step {
        match &self.wait {
            Some(wait) if wait.is_hurried => self.end_unheard(config, store, now),
            _ => self.waited(store, |_| Some(Duration::MAX), now),
        }
    }

    /// It ends before its answer began: the upstream failed, or the client left. What came of it is not known, but if
    /// it waited for longer than any SLA allows, it would have missed that. An upstream that fails quickly is not fast.
    pub(super) fn end_unheard(
        &mut self,
        config: &Config,
        store: &impl Store,
        now: Timestamp,
    ) -> Step {
        let tightest = config.tightest_sla;
        let is_missed = |waited: &Duration| tightest.is_some_and(|tightest| *waited > tightest);
        self.waited(store, |waited| Some(waited).filter(is_missed), now)
    }

    /// Ends the wait, once, and records what `time` makes of it.
    fn waited(
        &mut self,
        store: &impl Store,
        time: impl Fn(Duration) -> Option<Duration>,
        now: Timestamp,
    ) -> Step {
        let Some(Wait { model, since, .. }) = self.wait.take() else {
            return Step::default();
        };
        let Some(time) = since.and_then(|since| time(now.since(since))) else {
            return Step::default();
        };
        let answer = answer(&self.endpoint, self.facts.stream);
        let Done { report, troubles } = sla::record(store, &model, answer, time, now);
        let p95 = report.map(|p95| {
            let (tier, model) = (self.tier.clone(), Label::from(&model));
            telemetry::first_byte_p95(tier, model, answer.as_str(), p95)
        });
        Step {
            metrics: p95.into_iter().collect(),
            troubles,
            ..Step::default()
        }
    }
}

/// The kind of answer that is asked for, by the path or else by the body.
pub(super) fn answer(endpoint: &Endpoint, body_streams: bool) -> Answer {
    match endpoint.streams.unwrap_or(body_streams) {
        true => Answer::Streamed,
        false => Answer::Whole,
    }
}
