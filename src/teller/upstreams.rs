//! What one worker reports to the other proxies about upstreams that refuse, and what it learns of them (see [`crate::lease::pressed`]).

use std::rc::Rc;
use std::time::Duration;

use crate::base::hash::stable;
use crate::base::units::Timestamp;
use crate::config::Config;
use crate::health::pressed::{News, PressureView, agree, count};
use crate::lease::line::Account;
use crate::lease::pressed::Pressed;
use crate::published::metric::Label;
use crate::report::metrics::{self, Metric};
use crate::state::store::{StateFaults, Store};
use crate::teller::Message;
use crate::tier::pressure::{Elsewhere, LONGEST};

/// How long after a call that asked about upstreams the next one does, if there is no news.
const PAUSE: Duration = Duration::from_secs(2);

/// What one worker has to report about upstreams.
#[derive(Debug, Default)]
pub struct Upstreams {
    /// When a call last asked.
    asked: Timestamp,
    /// That call was not answered.
    is_lost: bool,
}

/// What a call reports about upstreams.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) key: String,
    configs: Vec<Rc<Config>>,
    news: Vec<News>,
}

impl Report {
    /// The news as a call sent at `sent` has it.
    pub(super) fn news(&self, sent: Timestamp) -> Vec<Pressed> {
        let news = self.news.iter();
        news.map(|one| Pressed {
            model: one.model,
            ago: millis(sent.since(one.since)),
            wait: one
                .until
                .map_or(0, |until| millis(until.since(sent)).max(1)),
        })
        .collect()
    }
}

impl Upstreams {
    /// Adds what is to be reported to a call that is sent at `now` anyway; else, where there is news, or where other proxies may have some,
    /// to a call for this alone. `configs`: all configurations of this VM, the newest first. The newest one with a store names the store to
    /// which this is reported.
    pub fn join(
        &mut self,
        messages: &mut Vec<Message>,
        mut configs: Vec<Rc<Config>>,
        view: &PressureView,
        now: Timestamp,
    ) {
        let Some(global) = configs.iter().find_map(|config| config.global.clone()) else {
            return;
        };
        let has_news = view.has_news();
        let is_wanted = has_news || view.is_shared(now) || !messages.is_empty();
        let is_soon = has_news && !self.is_lost;
        if !is_wanted || (!is_soon && now.since(self.asked) < PAUSE) {
            return;
        }
        self.asked = now;
        configs.retain(|config| config.global.as_ref() == Some(&global));
        let report = Report {
            key: Account::pressed_key(&global.domain),
            configs,
            news: view.take_news(),
        };
        match messages.iter_mut().find(|one| one.global == global) {
            Some(message) => message.upstreams = Some(report),
            None => messages.push(Message {
                upstreams: Some(report),
                ..Message::empty(&global, now)
            }),
        }
    }

    /// Takes in the answer to what a call reported; `None` if there is none. Returns the gauges that may have changed.
    pub fn heard(
        &mut self,
        message: &Message,
        answer: Option<&[Pressed]>,
        view: &PressureView,
        store: &impl Store,
        now: Timestamp,
    ) -> (Vec<Gauge>, StateFaults) {
        let Some(report) = &message.upstreams else {
            return <_>::default();
        };
        self.is_lost = answer.is_none();
        let Some(answer) = answer else {
            view.put_news(report.news.iter().copied());
            return <_>::default();
        };
        let sent = message.sent;
        let all = answer
            .iter()
            .filter(|one| report.names(one.model).is_some());
        let all: Vec<_> = all
            .map(|one| Elsewhere {
                model: one.model,
                since: before(sent, one.ago),
                until: sent.plus(Duration::from_millis(one.wait).min(LONGEST)),
            })
            .collect();
        let refused = report.news.iter().filter(|one| one.until.is_some());
        let reported: Vec<_> = refused.map(|one| one.model).collect();
        let (changed, faults) = agree(store, view, &all, &reported, sent, now);
        let gauge = |model| {
            let names = report.names(model)?;
            Some(Gauge { names, model })
        };
        (changed.into_iter().filter_map(gauge).collect(), faults)
    }
}

/// The gauge of one model's pressures.
#[derive(Clone, Debug)]
pub struct Gauge {
    names: [Label; 2],
    model: u64,
}

impl Gauge {
    /// What it is now.
    pub fn metric(&self, store: &impl Store) -> Metric {
        let [tier, model] = self.names.clone();
        let (series, pressed) = metrics::tier_pressed(tier, model, count(store, self.model));
        Metric::Set(series, pressed)
    }
}

impl Report {
    /// The tier of this model, and the model.
    fn names(&self, model: u64) -> Option<[Label; 2]> {
        let ladders = self.configs.iter().flat_map(|config| &config.ladders);
        let mut tiers = ladders.flat_map(|ladder| &ladder.tiers);
        let tier =
            tiers.find(|tier| !tier.own_credentials && stable(tier.model.as_str()) == model)?;
        Some([Label::from(&tier.name), Label::from(&tier.model)])
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The time so many milliseconds before `time`.
fn before(time: Timestamp, millis: u64) -> Timestamp {
    let nanos = millis.saturating_mul(1_000_000);
    Timestamp::from_nanos(time.as_nanos().saturating_sub(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::pressed::refuse;
    use crate::lease::pressed::MOST;
    use crate::state::store::fake::FakeStore;
    use crate::teller::{Note, Teller};
    use crate::tier::pressure::{PressureKey, RefusalKind, UpstreamRefusal};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const CONFIG: &str = r#"{
        "tiers": [{"name": "big", "model": "large"}, {"name": "small", "model": "light"}],
        "global": {"redis": {"cluster": "store"}}
    }"#;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_secs(1_709_208_000).plus(Duration::from_millis(millis))
    }

    fn config(text: &str) -> Rc<Config> {
        Rc::new(Config::parse(text.as_bytes()).unwrap())
    }

    /// One worker of a proxy.
    struct Worker {
        configs: Vec<Rc<Config>>,
        store: FakeStore,
        view: PressureView,
        upstreams: Upstreams,
    }

    impl Worker {
        fn new() -> Self {
            Self {
                configs: vec![config(CONFIG)],
                store: FakeStore::default(),
                view: PressureView::default(),
                upstreams: Upstreams::default(),
            }
        }

        fn refused(&self, model: &str, millis: u64) {
            let key = PressureKey {
                model: stable(model),
                credential: 0,
                is_configured: true,
            };
            let refusal = UpstreamRefusal {
                kind: RefusalKind::RateLimit,
                wait: Some(Duration::from_secs(60)),
            };
            refuse(
                &self.store,
                &self.view,
                key,
                refusal,
                at(millis),
                at(millis),
                |_| None,
            );
        }

        /// The call that the worker sends now for these reports alone, if it sends one.
        fn says(&mut self, millis: u64) -> Option<Message> {
            let mut messages = Vec::new();
            let configs = self.configs.clone();
            self.upstreams
                .join(&mut messages, configs, &self.view, at(millis));
            messages.pop()
        }

        fn hears(
            &mut self,
            message: &Message,
            answer: Option<&[Pressed]>,
            millis: u64,
        ) -> Vec<Metric> {
            let Self { view, store, .. } = self;
            let (gauges, _) = self
                .upstreams
                .heard(message, answer, view, store, at(millis));
            gauges
                .iter()
                .map(|gauge| gauge.metric(&self.store))
                .collect()
        }
    }

    fn news(message: &Message) -> Vec<Pressed> {
        message.upstreams.as_ref().unwrap().news(message.sent)
    }

    fn pressed(model: &str, ago: u64, wait: u64) -> Pressed {
        Pressed {
            model: stable(model),
            ago,
            wait,
        }
    }

    #[test]
    fn a_proxy_without_news_asks_no_more_than_every_two_seconds_and_with_calls_that_it_sends_anyway()
     {
        let mut worker = Worker::new();
        assert!(worker.says(0).is_none());
        let global = worker.configs[0].global.clone().unwrap();
        let mut rides = |millis| {
            let mut messages = vec![Message::empty(&global, at(millis))];
            let Worker {
                configs,
                view,
                upstreams,
                ..
            } = &mut worker;
            upstreams.join(&mut messages, configs.clone(), view, at(millis));
            assert_eq!(messages.len(), 1);
            messages[0].upstreams.is_some()
        };
        assert!(rides(0) && !rides(1_999) && rides(2_000));
    }

    #[test]
    fn news_is_reported_at_once_and_again_if_the_call_was_not_answered() {
        let mut worker = Worker::new();
        worker.refused("large", 0);
        let message = worker.says(100).unwrap();
        let [one] = news(&message)[..] else {
            panic!("one")
        };
        assert_eq!((one.model, one.ago), (stable("large"), 100));
        assert!((59_900..=60_900).contains(&one.wait), "{one:?}");
        assert!(worker.says(150).is_none());
        assert_eq!(worker.hears(&message, None, 200).len(), 0);
        // The store is away: not with each tick.
        assert!(worker.says(2_099).is_none());
        let message = worker.says(2_100).unwrap();
        assert_eq!(news(&message)[0].ago, 2_100);
        worker.hears(&message, Some(&[pressed("large", 2_100, 57_900)]), 2_110);
        // What may be ended by others is asked for.
        assert!(worker.says(4_099).is_none());
        assert_eq!(news(&worker.says(4_100).unwrap()), []);
    }

    #[test]
    fn what_others_report_of_models_that_are_configured_here_is_taken_over() {
        let mut worker = Worker::new();
        worker.refused("light", 0);
        let message = worker.says(100).unwrap();
        let answer = [
            pressed("large", 50, 60_000),
            pressed("other", 50, 60_000),
            pressed("light", 100, u64::MAX),
        ];
        let gauges = worker.hears(&message, Some(&answer), 110);
        // The gauges come in no order.
        let all = |gauges: Vec<Metric>, expected: &[Metric]| {
            gauges.len() == expected.len() && expected.iter().all(|one| gauges.contains(one))
        };
        let tiers = worker.configs[0].ladders[0].tiers.clone();
        let of = |pressed| {
            let tiers = tiers.iter();
            let gauge = |tier: &crate::tier::Tier| {
                let (tier, model) = (Label::from(&tier.name), Label::from(&tier.model));
                let (series, pressed) = metrics::tier_pressed(tier, model, pressed);
                Metric::Set(series, pressed)
            };
            tiers.map(gauge).collect::<Vec<_>>()
        };
        assert!(all(gauges, &of(1)));
        assert_eq!(count(&worker.store, stable("other")), 0);
        let message = worker.says(2_200).unwrap();
        let gauges = worker.hears(&message, Some(&[]), 2_210);
        assert!(all(gauges, &of(0)));
    }

    // The operators' report is served by a configuration of its own, and other listeners have other ladders.
    #[test]
    fn all_configurations_of_the_worker_count_whichever_is_the_newest() {
        let others = CONFIG.replace("large", "other").replace("light", "lean");
        for newest in [r#"{"serve": "report"}"#, "{}", &others] {
            let mut worker = Worker::new();
            worker.configs.insert(0, config(newest));
            worker.refused("large", 0);
            let message = worker.says(100).unwrap();
            assert_eq!(news(&message)[0].model, stable("large"));
            let answer = ["large", "light"].map(|model| pressed(model, 100, 60_000));
            assert_eq!(worker.hears(&message, Some(&answer), 110).len(), 2);
            assert_eq!(count(&worker.store, stable("light")), 1);
        }
    }

    // Upstreams stand in a key of their own, and a user of the store may have rights to one of the two keys.
    #[test]
    fn an_answer_about_upstreams_alone_neither_finds_the_store_nor_loses_it() {
        let mut worker = Worker::new();
        let mut teller = Teller::default();
        let mut hear = |millis, status: Option<&[u8]>, body: &str| {
            worker.refused("large", millis);
            let message = worker.says(millis).unwrap();
            let outcome =
                teller.heard(&message, status, body.as_bytes(), &worker.store, at(millis));
            worker.hears(&message, outcome.upstreams.as_deref(), millis);
            let counted = outcome.metrics.first().cloned().unwrap();
            (outcome.notes, format!("{counted:?}"))
        };
        let counted = |result| format!("{:?}", metrics::global_call(result));
        let (notes, count) = hear(0, None, "");
        assert!(matches!(notes[..], [Note::Lost(_)]));
        assert_eq!(count, counted("failed"));
        let ok = Some(&b"200"[..]);
        for (millis, body, result) in [
            (3_000, "*0\r\n+OK\r\n", "ok"),
            (6_000, "-NOPERM no\r\n+OK\r\n", "not_allowed"),
            (9_000, ":1\r\n+OK\r\n", "failed"),
        ] {
            let (notes, count) = hear(millis, ok, body);
            assert_eq!((notes, count), (vec![], counted(result)), "{body}");
        }
    }

    #[test]
    fn news_is_bounded_and_the_newest_of_a_model_counts() {
        let mut worker = Worker::new();
        let one = |model, millis, until| News {
            model,
            since: at(millis),
            until,
        };
        worker
            .view
            .put_news((0..200).map(|model| one(model, 0, Some(at(10)))));
        worker.view.put_news([one(0, 5, None), one(1, 5, None)]);
        // A call that was not answered gives back what is no longer new.
        worker.view.put_news([one(0, 0, Some(at(10)))]);
        let told = worker.view.take_news();
        assert_eq!(told.len(), MOST);
        assert_eq!(
            told[..3],
            [one(0, 5, None), one(1, 5, None), one(2, 0, Some(at(10)))]
        );
        assert!(worker.says(10_000).is_none());
    }
}
