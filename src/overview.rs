//! The operators' report, as a page and as JSON: how much of all limits of all configured tenants is used and left, what was counted for
//! the tenants, and the state of bursar and of the upstreams.
//!
//! A separate listener serves the report about the other configurations of the same VM. Records are read when the report is requested, for
//! a thousand tenants at a time: what stands there is seconds old at most, and nothing is read or kept while nobody asks. The listener's
//! worker has other requests to serve too, so a [`Reading`] takes as many callbacks as it needs, each with a bounded share of the work.

mod counted;
mod reading;

pub use counted::{Counters, note};
pub use reading::Reading;

use std::rc::Rc;

use crate::admission::ledger::roll_forward;
use crate::base::hash::stable;
use crate::base::units::Timestamp;
use crate::config::{Config, Plan};
use crate::health::pressed::PressureView;
use crate::health::sla::{Answer, misses};
use crate::http::Headers;
use crate::published::metric::Label;
use crate::report::metrics::{Metric, faults};
use crate::report::overview::{Form, Health, Row, Shared, Troubled};
use crate::report::refusal::Reply;
use crate::report::standing::standings;
use crate::state::record::Record;
use crate::state::shared_budgets::shared_budgets;
use crate::state::store::{StateFaults, Store, tenant_key};
use crate::tenant::TenantId;

/// Starts the report that is requested, or answers at once a request for anything else. `configs`: the configurations of this VM, the newest
/// first.
///
/// # Errors
/// The answer to a request for anything else.
pub fn asked(
    configs: Vec<Rc<Config>>,
    request: &Headers,
    now: Timestamp,
) -> Result<Reading, Reply> {
    let [method, path] = request.only_of([":method", ":path"]);
    if !matches!(method, Some(b"GET" | b"HEAD")) {
        return Err(plain(405, "The report can only be read.\n"));
    }
    let path = path.unwrap_or_default();
    let form = match path.split(|byte| *byte == b'?').next() {
        Some(b"/") => Form::Page,
        Some(b"/report.json") => Form::Json,
        _ => return Err(plain(404, "There are / and /report.json.\n")),
    };
    Ok(Reading::new(configs, path, form, now))
}

/// The answer if too many reports are being read in this worker.
#[must_use]
pub fn busy() -> Reply {
    let mut reply = plain(503, "Too many reports are requested at once.\n");
    reply.headers.push(("retry-after", "1".into()));
    reply
}

fn plain(status: u16, text: &str) -> Reply {
    reply(status, "text/plain", text.to_owned())
}

/// Tiers whose upstream refuses requests, or answers later than the strictest SLA allows.
fn troubled(
    configs: &[Rc<Config>],
    store: &impl Store,
    pressed: &PressureView,
    now: Timestamp,
) -> Vec<Troubled> {
    let known = pressed.known(store, now);
    let mut troubled = Vec::new();
    for config in configs {
        for tier in config.ladders.iter().flat_map(|ladder| &ladder.tiers) {
            let mut push = |is_slow| {
                troubled.push(Troubled {
                    tier: tier.name.clone(),
                    model: tier.model.clone(),
                    is_slow,
                });
            };
            if known.pressed(stable(tier.model.as_str())) > 0 {
                push(false);
            }
            let misses = |sla| {
                let mut kinds = [Answer::Streamed, Answer::Whole].into_iter();
                kinds.any(|answer| misses(store, &tier.model, answer, sla, now))
            };
            if config.tightest_sla.is_some_and(misses) {
                push(true);
            }
        }
    }
    troubled
}

/// The state of bursar itself.
fn health(counters: &impl Counters, shared: Option<Shared>) -> Health {
    let value = |metric: &Metric| match metric {
        Metric::Add(series, _) | Metric::Set(series, _) => counters.value(series).unwrap_or(0),
    };
    let [conflicts, corrupt, given_up] = faults(&StateFaults::default()).each_ref().map(value);
    Health {
        conflicts,
        corrupt,
        given_up,
        shared,
    }
}

/// `shared`: what earlier rows showed of the store that proxies share.
fn row(
    id: &TenantId,
    plan: &Plan,
    proxy: &(impl Store + Counters),
    shared: &mut Option<Shared>,
    now: Timestamp,
) -> Row {
    let stored = proxy.get(&tenant_key(id.account())).ok().flatten();
    let record = stored.and_then(|(bytes, _)| Record::decode(&bytes).ok());
    let mut record = record.unwrap_or_default();
    roll_forward(&mut record, &plan.limits, now);
    if plan.limits.is_shared() {
        for budget in shared_budgets(&plan.limits, &mut record) {
            let shared = shared.get_or_insert_default();
            if let Some(grant) = budget.grant() {
                shared.heard = shared.heard.max(grant.heard);
                shared.failing = shared.failing.saturating_add((grant.failures > 0).into());
            }
        }
    }
    Row {
        tenant: id.name().clone(),
        plan: plan.name.clone(),
        shadow: plan.limits.shadow,
        limits: standings(&plan.limits, &record, now).collect(),
        counted: counted::counted(&Label::from(id.name()), proxy, proxy),
    }
}

fn reply(status: u16, kind: &'static str, body: String) -> Reply {
    Reply {
        status,
        details: "bursar_report".to_owned(),
        headers: vec![
            ("content-type", kind.into()),
            ("cache-control", "no-store".into()),
            ("x-content-type-options", "nosniff".into()),
            ("content-security-policy", POLICY.into()),
        ],
        body,
    }
}

/// The page's content security policy: the page may load nothing, and no other page may frame it.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::units::Micros;
    use crate::limits::budget::tokens;
    use crate::published::metric::Series;
    use crate::report::metrics::{
        UNCONFIGURED, build, request as request_of, settled as settled_as, throttled,
    };
    use crate::report::settlement::{Exit, SettledBy, Settlement};
    use crate::state::slots::SlotSeed;
    use crate::state::store::fake::FakeStore;
    use crate::state::store::{PutError, Version};
    use crate::usage::Usage;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Noon of a day in 2024.
    const NOON: Timestamp = Timestamp::from_secs(1_709_208_000);

    fn config(tenants: &str) -> Rc<Config> {
        let text = format!(
            r#"{{"plans": {{"p": {{"budget": {{"initial_budget": 400, "window": "day"}}}}}}, "tenants": {{{tenants}}}}}"#
        );
        Rc::new(Config::parse(text.as_bytes()).unwrap())
    }

    fn answer(
        configs: &[Rc<Config>],
        proxy: &(impl Store + Counters),
        method: &str,
        path: &str,
    ) -> Reply {
        let headers = [(":method", method), (":path", path)];
        let request = headers.into_iter().collect();
        let mut reading = match asked(configs.to_vec(), &request, NOON) {
            Ok(reading) => reading,
            Err(reply) => return reply,
        };
        let mut replies =
            (0..1_000).filter_map(|_| reading.go_on(proxy, &PressureView::default(), || NOON));
        replies.next().unwrap()
    }

    fn ask(configs: &[Rc<Config>], store: &FakeStore, method: &str, path: &str) -> Reply {
        answer(configs, store, method, path)
    }

    impl Counters for FakeStore {
        fn value(&self, series: &Series) -> Option<u64> {
            self.gauge(&series.name())
        }
    }

    /// A worker counts these metrics for the first time; each value is also the total so far.
    fn counts(store: &FakeStore, metrics: &[Metric]) {
        for metric in metrics {
            let (Metric::Add(series, value) | Metric::Set(series, value)) = metric;
            store.announce(series, *value);
            assert!(note(store, series));
        }
    }

    fn settled(tenant: Label, model: &str, micros: u64, saved: u64) -> Vec<Metric> {
        settled_as(&Settlement {
            tenant,
            tier: "big".into(),
            model: Label::Name(model.into()),
            usage: Usage::default(),
            spend: Micros(micros),
            saved: Micros(saved),
            by: SettledBy::Usage,
            exit: Exit::Answered,
        })
    }

    #[test]
    fn what_was_counted_of_each_stands_there_and_strangers_are_one() {
        let store = FakeStore::default();
        let configs = [config(r#""acme": {"plan": "p"}, "globex": {"plan": "p"}"#)];
        let acme = || Label::Name("acme".into());
        counts(&store, &settled(acme(), "gpt-4o", 1_250_000, 300_000));
        counts(&store, &settled(acme(), "gpt-4o-mini", 20_000, 400_000));
        counts(&store, &settled(UNCONFIGURED.into(), "gpt-4o", 7, 0));
        let refused = [throttled(acme(), "budget_exhausted")];
        counts(&store, &refused);
        counts(&store, &refused);
        let told = report(&configs, &store, "/report.json");
        let [first, second] = [0, 1].map(|place| &told["tenants"][place]);
        assert_eq!(
            first["spend"],
            serde_json::json!([
                {"tier": "big", "model": "gpt-4o", "usd": 1.25},
                {"tier": "big", "model": "gpt-4o-mini", "usd": 0.02}
            ])
        );
        assert_eq!(first["saved_usd"], 0.4);
        assert_eq!(
            first["refusals"],
            serde_json::json!([{"reason": "budget_exhausted", "count": 1}])
        );
        assert_eq!(second["spend"], serde_json::json!([]));
        assert_eq!(told["unconfigured"]["spend"][0]["usd"], 0.000_007);
        let page = ask(&configs, &store, "GET", "/").body;
        assert!(page.contains("<td>gpt-4o 1.25, gpt-4o-mini 0.02</td>"));
        assert!(page.contains("<td>budget_exhausted 1</td>"));
    }

    // Reading the counters would create them: a thousand tenants times thirty reasons, for nothing.
    #[test]
    fn nothing_is_looked_for_that_nobody_has_counted() {
        struct Strict(FakeStore);
        impl Store for Strict {
            fn get(&self, key: &str) -> Result<Option<(Vec<u8>, Version)>, PutError> {
                self.0.get(key)
            }
            fn put(&self, key: &str, value: &[u8], is: Option<Version>) -> Result<(), PutError> {
                self.0.put(key, value, is)
            }
            fn slot_seed(&self) -> SlotSeed {
                self.0.slot_seed()
            }
            fn announce(&self, gauge: &Series, value: u64) {
                self.0.announce(gauge, value);
            }
        }
        impl Counters for Strict {
            fn value(&self, series: &Series) -> Option<u64> {
                let name = series.name();
                assert!(name.starts_with("bursar_state_"), "{name}");
                None
            }
        }
        let store = Strict(FakeStore::default());
        let configs = [config(r#""acme": {"plan": "p"}"#)];
        // Series that the report does not show are not noted.
        for metric in [build(), request_of("acme".into(), "big".into(), "admit")] {
            let (Metric::Add(series, _) | Metric::Set(series, _)) = metric;
            assert!(note(&store.0, &series));
        }
        let keys = store.0.keys();
        answer(&configs, &store, "GET", "/");
        assert_eq!(store.0.keys(), keys);
        assert_eq!(keys, 0);
    }

    #[test]
    fn a_note_is_written_once_and_again_where_a_race_is_lost() {
        let store = FakeStore::default();
        let counted = settled("acme".into(), "m", 1, 1);
        counts(&store, &counted);
        let notes = store.value("bursar/v1/counted/acme");
        counts(&store, &counted);
        assert_eq!(store.value("bursar/v1/counted/acme"), notes);
        let text = String::from_utf8(notes.unwrap()).unwrap();
        assert_eq!(
            text,
            "spent\u{1f}big\u{1f}m\u{1f}\nsaved\u{1f}\u{1f}\u{1f}\n"
        );
        store.lose(100);
        let Metric::Add(series, _) = throttled("acme".into(), "concurrency") else {
            unreachable!("it is a counter")
        };
        assert!(!note(&store, &series));
        store.lose(0);
        assert!(note(&store, &series));
        for n in 0..300 {
            let model = format!("m{n}");
            counts(&store, &settled("acme".into(), &model, 1, 1));
        }
        let text = String::from_utf8(store.value("bursar/v1/counted/acme").unwrap()).unwrap();
        assert_eq!(text.lines().count(), 256);
    }

    #[test]
    fn what_ails_bursar_and_the_upstreams_is_said() {
        let store = FakeStore::default();
        let text = r#"{"tiers": [{"name": "big", "model": "m"}, {"name": "small", "model": "n", "below": 0.1}],
            "global": {"redis": {"cluster": "store"}},
            "tenants": {"acme": {"sla": {"p95_ms": 1000}, "budget": {"initial_budget": 400, "window": "day"}}}}"#;
        let configs = [Rc::new(Config::parse(text.as_bytes()).unwrap())];
        let told = report(&configs, &store, "/report.json");
        assert_eq!(
            (&told["tiers_slow"], &told["state"]["given_up"]),
            (&serde_json::json!([]), &0.into())
        );
        assert_eq!(
            told["state"]["store"],
            serde_json::json!({"heard_at": null, "failing": 0})
        );
        for _ in 0..20 {
            let late = std::time::Duration::from_secs(2);
            crate::health::sla::record(&store, "m", Answer::Whole, late, NOON);
        }
        let lost = StateFaults {
            given_up: 3,
            ..StateFaults::default()
        };
        for metric in faults(&lost) {
            let (Metric::Add(series, value) | Metric::Set(series, value)) = &metric;
            store.announce(series, *value);
        }
        let told = report(&configs, &store, "/report.json");
        assert_eq!(
            told["tiers_slow"],
            serde_json::json!([{"tier": "big", "model": "m"}])
        );
        assert_eq!(told["state"]["given_up"], 3);
        let page = ask(&configs, &store, "GET", "/").body;
        assert!(page.contains("m (tier big) answers later than an SLA wants."));
        assert!(page.contains("3 steps were given up."));
    }

    fn report(configs: &[Rc<Config>], store: &FakeStore, path: &str) -> serde_json::Value {
        serde_json::from_str(&ask(configs, store, "GET", path).body).unwrap()
    }

    #[test]
    fn all_tenants_stand_there_each_as_the_newest_configuration_has_it() {
        let store = FakeStore::default();
        let old = config(r#""acme": {"plan": "p"}, "globex": {"plan": "p"}"#);
        let new = config(r#""acme": {"plan": "p", "budget": {"initial_budget": 900}}"#);
        let (_, plan) = &old.listed()[0];
        let mut record = Record::default();
        roll_forward(&mut record, &plan.limits, NOON);
        record.account.spent = tokens(100);
        store.plant(&tenant_key("acme"), &record.encode());
        let told = report(&[new, old], &store, "/report.json");
        let limit = |tenant: usize| &told["tenants"][tenant]["limits"][0];
        assert_eq!(told["tenants"][0]["tenant"], "acme");
        assert_eq!(
            (&limit(0)["limit"], &limit(0)["remaining"]),
            (&900.into(), &800.into())
        );
        assert_eq!(told["tenants"][1]["tenant"], "globex");
        assert_eq!(told["tenants"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn who_was_renamed_stands_there_with_its_account() {
        let store = FakeStore::default();
        let config = config(r#""apex": {"plan": "p", "was": "acme"}"#);
        let mut record = Record::default();
        roll_forward(&mut record, &config.listed()[0].1.limits, NOON);
        record.account.spent = tokens(100);
        store.plant(&tenant_key("acme"), &record.encode());
        let told = report(&[config], &store, "/report.json");
        assert_eq!(told["tenants"][0]["tenant"], "apex");
        assert_eq!(told["tenants"][0]["limits"][0]["used"], 100);
    }

    #[test]
    fn a_thousand_stand_on_a_page() {
        let store = FakeStore::default();
        let names: Vec<String> = (0..1_001)
            .map(|n| format!(r#""t{n}": {{"plan": "p"}}"#))
            .collect();
        let configs = [config(&names.join(","))];
        let first = report(&configs, &store, "/report.json");
        assert_eq!(
            (&first["pages"], &first["count"]),
            (&2.into(), &1_001.into())
        );
        assert_eq!(first["tenants"].as_array().unwrap().len(), 1_000);
        let second = report(&configs, &store, "/report.json?page=2");
        assert_eq!(second["tenants"][0]["tenant"], "t1000");
        assert_eq!(
            report(&configs, &store, "/report.json?page=99")["tenants"],
            serde_json::json!([])
        );
    }

    #[test]
    fn no_name_breaks_out_of_the_page() {
        let store = FakeStore::default();
        let configs = [config(r#""<script>alert(1)</script>&\"'": {"plan": "p"}"#)];
        let page = ask(&configs, &store, "GET", "/");
        assert_eq!(page.status, 200);
        assert!(page.body.contains("<td>2024-03-01 00:00:00</td>"));
        assert!(!page.body.contains("<script>alert"));
        assert!(
            page.body
                .contains("&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;&#39;")
        );
    }

    #[test]
    fn nothing_else_is_there() {
        let store = FakeStore::default();
        for (method, path, status) in [
            ("GET", "/v1/chat/completions", 404),
            ("POST", "/report.json", 405),
            ("HEAD", "/", 200),
        ] {
            assert_eq!(
                ask(&[], &store, method, path).status,
                status,
                "{method} {path}"
            );
        }
    }
}
