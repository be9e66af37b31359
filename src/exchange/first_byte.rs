//! How long a request waits for the first byte of its answer, measured from its own last byte, for tiers where that is measured.
//!
//! The wait begins at the request's end, white space after its JSON included: an upstream waits for all bytes that were announced, and a
//! client that sends these late must not make the upstream look slow. The wait ends at the first byte of the answer itself (see
//! [`UsageReader::has_begun`]), since the headers of a stream may come long before its first event.

use std::time::Duration;

use crate::base::units::Timestamp;
use crate::config::Config;
use crate::exchange::admitted::Admitted;
use crate::exchange::step::Step;
use crate::exchange::wait::Wait;
use crate::health::sla;
use crate::health::sla::Answer;
use crate::provider::Endpoint;
use crate::published::metric::Label;
use crate::report::metrics;
use crate::state::store::Store;

impl Admitted {
    /// Begins the wait: the whole request has arrived.
    pub(super) fn begin_wait(&mut self, now: Timestamp) {
        // No client waits for an answer that is fetched later.
        self.wait = self.wait.take().filter(|_| !self.facts.is_deferred);
        if let Some(wait) = &mut self.wait {
            wait.since = Some(now);
        }
    }

    /// Ends the wait: the answer begins.
    pub(super) fn end_wait(&mut self, store: &impl Store, now: Timestamp) -> Step {
        self.waited(store, Some, now)
    }

    /// The route's timeout ended the wait: it counts as slower than any SLA. Timeouts that a client requests are ignored.
    pub(super) fn time_out(&mut self, store: &impl Store, now: Timestamp) -> Step {
        self.waited(store, |_| Some(Duration::MAX), now)
    }

    /// The exchange ended before its answer began: the upstream failed, or the client left. The wait counts only if it was longer
    /// than any SLA allows. An upstream that fails quickly is not fast.
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

    /// Ends the wait, once, and records the time that `time` derives from it.
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
        let (p95, faults) = sla::record(store, &model, answer, time, now);
        let p95 = p95.map(|p95| {
            let (tier, model) = (self.tier.clone(), Label::from(&model));
            metrics::first_byte_p95(tier, model, answer.as_str(), p95)
        });
        Step {
            metrics: p95.into_iter().collect(),
            faults,
            ..Step::default()
        }
    }
}

/// The kind of answer that is requested, by the path or else by the body.
pub(super) fn answer(endpoint: &Endpoint, body_streams: bool) -> Answer {
    match endpoint.streams.unwrap_or(body_streams) {
        true => Answer::Streamed,
        false => Answer::Whole,
    }
}
