//! Ends an admitted request: its usage replaces its reservation.

use std::time::Duration;

use crate::admission::Used;
use crate::admission::ledger::Ledger;
use crate::base::units::{Cost, Micros, Timestamp, Tokens};
use crate::config::Config;
use crate::estimate::learn::{BytesPerToken, Observation, Peak};
use crate::exchange::admitted::Admitted;
use crate::exchange::step::Step;
use crate::exchange::trial::{self, ActualUsage, Trial};
use crate::provider::usage::UsageReader;
use crate::published::metric::Label;
use crate::report::settlement::{Exit, SettledBy, Settlement};
use crate::report::{log_fields, metrics};
use crate::state::store::{StateFaults, Store};
use crate::tier::{self, Ladder, LadderPlace, Needs, Price, place};
use crate::usage::{ServiceTier, Usage};

impl Admitted {
    /// Settles by all that is known at the end of the exchange. `exit`: why it ended. If an answer had begun, its last event may still
    /// report the usage, even without an empty line after it.
    pub(super) fn leave(
        mut self,
        config: &Config,
        store: &impl Store,
        exit: Exit,
        now: Timestamp,
    ) -> Step {
        let exit = match &mut self.reader {
            Some(reader) => {
                // Some clients disconnect as soon as they have the last event.
                let (_, is_final) = reader.reported();
                reader.feed(&[], true);
                match is_final {
                    true => Exit::Answered,
                    false => Exit::Cut,
                }
            }
            None => exit,
        };
        let unheard = self.end_unheard(config, store, now);
        let upstream = self.end_upstream(config, store, now);
        let unheard = unheard.reporting(upstream);
        self.settle_or_wait(config, store, exit, true, now)
            .reporting(unheard)
    }

    /// Replaces the reservation by the usage, which is zero if the upstream did not serve the request.
    pub(super) fn settle(
        &mut self,
        config: &Config,
        store: &impl Store,
        exit: Exit,
        now: Timestamp,
    ) -> Step {
        self.settle_or_wait(config, store, exit, false, now)
    }

    /// As [`Admitted::settle`]. `is_last`: this is the last try, even if the record cannot be written.
    fn settle_or_wait(
        &mut self,
        config: &Config,
        store: &impl Store,
        exit: Exit,
        is_last: bool,
        now: Timestamp,
    ) -> Step {
        if std::mem::replace(&mut self.is_settled, true) {
            return Step::default();
        }
        let price = self.price_of_answer(config);
        let settlement = self.settlement(config, exit, price);
        let demand = self.demand(config, settlement.usage);
        let used = Used {
            cost: Cost {
                tokens: self.tenant.limits().counted(&settlement.usage),
                usd: settlement.spend,
            },
            is_sent: !matches!(exit, Exit::Unsent | Exit::Redirected),
            demand: &demand,
            observation: match settlement.by {
                SettledBy::Usage => self.observation(price, settlement.usage),
                SettledBy::Estimate | SettledBy::None => Observation::default(),
            },
        };
        let mut ledger = Ledger::new(store, &self.tenant, config.failure_mode, now);
        let is_written = ledger.settle(&mut self.admission, &used);
        // The settlement must not be lost, so it is tried again at the end of the exchange. If that fails too, gauges keep the values of
        // the admission.
        if !is_written && !is_last {
            self.is_settled = false;
            return Step::of(StateFaults {
                given_up: 0,
                ..ledger.faults
            });
        }
        ledger.settle_capacity(&self.admission, settlement.usage.total());
        let (limits, record) = (self.tenant.limits(), self.admission.record.as_deref());
        let mut metrics = metrics::settled(&settlement);
        let exceeded = self.admission.exceeded(limits, used.cost);
        let label = || self.tenant.label();
        metrics.extend(exceeded.map(|(unit, by)| metrics::over_hold(label(), unit, by)));
        let tried = match self.trials.is_empty() {
            true => Step::default(),
            false => {
                let actual = ActualUsage {
                    used,
                    usage: &settlement.usage,
                    price: self.price.as_ref(),
                };
                trial::settle(&mut self.trials, config, &actual, store, now)
            }
        };
        let step = Step {
            metrics,
            fields: log_fields::charged(&settlement, limits, record),
            capacity: self.admission.capacity.clone(),
            faults: ledger.faults,
            ..Step::default()
        };
        step.reporting(tried)
    }

    /// What the request used, what that cost, and what was saved.
    fn settlement(&self, config: &Config, exit: Exit, price: Option<&Price>) -> Settlement {
        let exit = match exit {
            Exit::Answered | Exit::Cut if self.is_unserved() => Exit::UpstreamFailed,
            exit => exit,
        };
        let (usage, by) = match exit {
            Exit::Answered | Exit::Cut | Exit::Unanswered | Exit::Unended => {
                self.usage_so_far(exit)
            }
            Exit::UpstreamRefused | Exit::UpstreamFailed | Exit::Unsent | Exit::Redirected => {
                (Usage::default(), SettledBy::None)
            }
        };
        let usage = Usage {
            service_tier: usage.service_tier.or_else(|| self.dearer_tier(price)),
            ..usage
        };
        let asked_price = self.asked_price.as_ref().filter(|_| self.price.is_some());
        let spend = self.spend(config, usage, price);
        Settlement {
            tenant: self.tenant.label(),
            tier: self.tier.clone(),
            model: model_label(config, &self.model),
            usage,
            spend,
            saved: self.spend(config, usage, asked_price) - spend,
            by,
            exit,
        }
    }

    /// What the usage costs in money: `price` is that of the model that answered, and other models that took part have their own.
    fn spend(&self, config: &Config, usage: Usage, price: Option<&Price>) -> Micros {
        let (mut own, mut spend) = (usage, Micros(0));
        let others = self.reader.as_ref().map_or(&[][..], UsageReader::others);
        for (model, used) in others.iter().filter(|_| price.is_some()) {
            let other = tier::price_of_answer(&config.ladders, &self.model, model);
            own = own.without(used);
            let used = Usage {
                service_tier: usage.service_tier,
                ..*used
            };
            spend = spend + tier::cost(&used, other.or(self.price.as_ref())).usd;
        }
        tier::cost(&own, price).usd + spend
    }

    /// Whether the answer, whatever its status, is a page or an error.
    fn is_unserved(&self) -> bool {
        self.reader.as_ref().is_some_and(UsageReader::is_no_answer)
    }

    /// The price of the model that answered: the one that was sent, unless the answer names another model of a ladder.
    fn price_of_answer<'a>(&'a self, config: &'a Config) -> Option<&'a Price> {
        let sent = self.price.as_ref()?;
        let answered = self.reader.as_ref().and_then(UsageReader::served_model);
        let other = answered
            .and_then(|answered| tier::price_of_answer(&config.ladders, &self.model, answered));
        other.or(Some(sent))
    }

    /// The requested service tier, where that is dearer: a client may leave before the answer names the one that
    /// served, and not all answers do.
    fn dearer_tier(&self, price: Option<&Price>) -> Option<ServiceTier> {
        let asked = self.facts.service_tier.or(self.endpoint.service_tier);
        asked.filter(|&asked| price.is_some_and(|price| price.is_dearer_at(asked)))
    }

    /// The usage as far as it is known, and whether the provider reported it.
    fn usage_so_far(&self, exit: Exit) -> (Usage, SettledBy) {
        let reader = self.reader.as_ref();
        let (reported, is_final) = reader.map_or((None, false), UsageReader::reported);
        let likely = self.admission.estimate.input();
        let reported = reported.unwrap_or_default().split(likely);
        if reported.is_whole() && (is_final || exit == Exit::Answered) {
            return (reported, SettledBy::Usage);
        }
        let reserved = self.admission.estimate.output();
        let seen = match reader {
            // The answer does not pass through bursar.
            Some(_) if self.facts.is_deferred => reserved,
            Some(reader) if self.hides_usage(reader) => reader.estimated_output().max(reserved),
            // Never more than was reserved, which the request's own limits bound.
            Some(reader) => reader.estimated_output().min(reserved),
            None if exit == Exit::Unended => reserved,
            // The upstream may answer all the same, and the client finds the answer elsewhere.
            None if self.facts.is_deferred || self.facts.is_kept => reserved,
            None => Tokens(0),
        };
        // A client that first teaches that prompts have few tokens a byte, and then cuts off the report of a dense one, must gain nothing.
        let plain = BytesPerToken::PRIOR.tokens(self.admission.estimate.body_bytes);
        let estimate = Usage {
            input: reported.input.or_else(|| Some(likely.max(plain))),
            output: Some(seen).max(reported.output),
            service_tier: reader.and_then(UsageReader::service_tier),
            ..reported
        };
        (estimate, SettledBy::Estimate)
    }

    /// Whether the client chose a form of answer that hides what was used, and so decides how much bursar can read: a stream without usage,
    /// if usage could not be requested; or a partial or compressed answer, if the request's signature forbids changing that.
    fn hides_usage(&self, reader: &UsageReader) -> bool {
        self.is_unasked || self.endpoint.is_signed && !reader.is_shown()
    }

    /// For each level of the ladder, if a plan has pace: what the request would have cost if no tier above that level could have
    /// served it.
    fn demand(&self, config: &Config, usage: Usage) -> Vec<Cost> {
        let mut trials = self.trials.iter();
        if !self.tenant.has_pace() && !trials.any(Trial::has_pace) {
            return Vec::new();
        }
        let levels = config.ladders.iter().map(Ladder::last).max();
        let place = place(&config.ladders, &self.requested_model);
        let price = |level: usize| match place {
            Some(LadderPlace { ladder, asked }) => {
                let tier = ladder.tiers.get(level.min(ladder.last()).max(asked));
                tier.and_then(|tier| tier.price.as_ref())
            }
            None => self.price.as_ref(),
        };
        let tokens = self.tenant.limits().counted(&usage);
        let levels = 0..levels.unwrap_or_default();
        levels
            .map(|level| Cost {
                tokens,
                ..tier::cost(&usage, price(level))
            })
            .collect()
    }

    /// What the estimates learn from the reported usage. A body with images or the like, or with a prompt that the provider
    /// stores, says nothing about the tokens of text.
    fn observation(&self, price: Option<&Price>, usage: Usage) -> Observation {
        let estimate = &self.admission.estimate;
        let is_text = [Needs::IMAGES, Needs::CACHED_PROMPT]
            .iter()
            .all(|other| !other.are_in(self.facts.needs));
        let input = usage.input.filter(|_| is_text);
        Observation {
            prompt: input.map(|input| (estimate.body_bytes, input)),
            answer: usage
                .output
                .and_then(|output| estimate.unlimited_answer(output)),
            peak: self.peak(price, usage),
        }
    }

    /// What the request used, for a plan with budgets.
    fn peak(&self, price: Option<&Price>, usage: Usage) -> Option<Peak> {
        self.tenant.budgets().next()?;
        let input = Usage {
            output: None,
            ..usage
        };
        let input_cost = tier::cost(&input, price).usd;
        let (input, output) = (usage.input?, usage.output.unwrap_or_default());
        let body_bytes = self.admission.estimate.body_bytes;
        Some(Peak::of(body_bytes, input, output, input_cost, price))
    }

    /// Keeps the reservation of a long answer from expiring.
    pub(super) fn renew(&mut self, config: &Config, store: &impl Store, now: Timestamp) -> Step {
        if self.is_settled || now.since(self.checked) < CHECK {
            return Step::default();
        }
        self.checked = now;
        let mut ledger = Ledger::new(store, &self.tenant, config.failure_mode, now);
        ledger.renew(&mut self.admission);
        let faults = ledger.faults;
        trial::renew(&mut self.trials, config, store, now);
        Step::of(faults)
    }
}

/// How often it is checked whether a reservation has to be renewed: of the shortest expiry, 1 s, half is left then.
const CHECK: Duration = Duration::from_millis(100);

pub(super) fn model_label(config: &Config, model: &str) -> Label {
    let other = || metrics::OTHER_MODEL.into();
    config.model(model).map_or_else(other, Label::from)
}
