//! A report that is being read, a few tenants in each callback.

use std::rc::Rc;
use std::time::Duration;

use super::{Counters, counted, health, reply, row, troubled};
use crate::base::name::has_part;
use crate::base::units::Timestamp;
use crate::config::Config;
use crate::health::pressed::PressureView;
use crate::provider::parameter;
use crate::report::metrics::UNCONFIGURED;
use crate::report::overview::{Draft, Form, Shared, Told};
use crate::report::refusal::Reply;
use crate::state::store::Store;

/// Tenants on one page of the report.
pub(super) const ROWS: usize = 1_000;

/// Rows that one callback reads at most, and how long it may read before the row that is its last. A report of so few tenants is answered
/// in the request's own callback.
pub(super) const MOST: usize = 100;
const LONGEST: Duration = Duration::from_micros(1_500);

/// Tenants that are passed over in the time of one row that is read.
pub(super) const PASSED: usize = 256;

/// A report that is being read.
#[derive(Debug)]
pub struct Reading {
    /// The configurations, the newest first.
    configs: Vec<Rc<Config>>,
    /// Which of them is being read, and which of its tenants is next.
    config: usize,
    tenant: usize,
    /// The number of the requested page, counted from 1.
    page: usize,
    /// The text that a tenant's name must contain.
    find: String,
    /// Tenants that are on this page or on another one, so far.
    found: usize,
    /// What the rows showed of the store that proxies share.
    shared: Option<Shared>,
    draft: Draft,
    begun: Timestamp,
}

impl Reading {
    pub(super) fn new(configs: Vec<Rc<Config>>, path: &[u8], form: Form, now: Timestamp) -> Self {
        // A form sends a space as `+`, and a `+` escaped.
        let spaced = |byte: &u8| if *byte == b'+' { b' ' } else { *byte };
        let path: Vec<u8> = path.iter().map(spaced).collect();
        let text = |name| parameter(&path, name).and_then(|text| String::from_utf8(text).ok());
        let page = text("page").and_then(|digits| digits.parse().ok());
        Self {
            configs,
            config: 0,
            tenant: 0,
            page: page.unwrap_or(1).max(1),
            find: text("find").unwrap_or_default(),
            found: 0,
            shared: None,
            draft: Draft::new(form),
            begun: now,
        }
    }

    /// Reads as much as one callback may. Returns the answer once all is read.
    pub fn go_on(
        &mut self,
        proxy: &(impl Store + Counters),
        pressed: &PressureView,
        clock: impl Fn() -> Timestamp,
    ) -> Option<Reply> {
        let now = clock();
        for _ in 0..MOST {
            let mut passed = 0_usize;
            while passed < PASSED {
                let Some(cost) = self.step(proxy, now) else {
                    return Some(self.end(proxy, pressed, now));
                };
                passed = passed.saturating_add(cost);
            }
            if clock().since(now) >= LONGEST {
                return None;
            }
        }
        None
    }

    /// Reads the next tenant's row, or passes the tenant over. Returns the cost in tenants passed over; `None` if no tenant is left.
    ///
    /// A tenant has its plan in the newest configuration that has it.
    fn step(&mut self, proxy: &(impl Store + Counters), now: Timestamp) -> Option<usize> {
        let config = self.configs.get(self.config)?;
        let Some((id, plan)) = config.listed().get(self.tenant) else {
            self.config = self.config.saturating_add(1);
            self.tenant = 0;
            return Some(1);
        };
        self.tenant = self.tenant.saturating_add(1);
        let mut newer = self.configs.iter().take(self.config);
        if !has_part(id.name(), &self.find) || newer.any(|newer| newer.plan(id).is_some()) {
            return Some(1);
        }
        let page = self.found.checked_div(ROWS).unwrap_or_default();
        self.found = self.found.saturating_add(1);
        if page.saturating_add(1) != self.page {
            return Some(1);
        }
        let row = row(id, plan, proxy, &mut self.shared, now);
        self.draft.add(&row, now);
        Some(PASSED)
    }

    fn end(
        &mut self,
        proxy: &(impl Store + Counters),
        pressed: &PressureView,
        now: Timestamp,
    ) -> Reply {
        let told = Told {
            page: self.page,
            pages: self.found.div_ceil(ROWS).max(1),
            tenants: self.found,
            find: std::mem::take(&mut self.find),
            strangers: counted::counted(&UNCONFIGURED.into(), proxy, proxy),
            troubled: troubled(&self.configs, proxy, pressed, now),
            health: health(proxy, self.shared.take()),
            as_of: self.begun,
        };
        let (kind, body) = self.draft.whole(&told);
        reply(200, kind, body)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::overview::asked;
    use crate::published::metric::Series;
    use crate::state::slots::SlotSeed;
    use crate::state::store::fake::FakeStore;
    use crate::state::store::{PutError, Version};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Noon of a day in 2024.
    const NOON: u64 = 1_709_208_000_000_000_000;

    /// A proxy that counts what is read of it, and whose clock advances by as much with each.
    #[derive(Default)]
    struct Proxy {
        store: FakeStore,
        reads: Cell<usize>,
        nanos_a_read: u64,
        nanos: Cell<u64>,
    }

    impl Proxy {
        fn read(&self) {
            self.reads.set(self.reads.get() + 1);
            self.nanos.set(self.nanos.get() + self.nanos_a_read);
        }

        fn clock(&self) -> Timestamp {
            Timestamp::from_nanos(NOON + self.nanos.get())
        }

        /// The report, and of each callback that it took: what it read, and how long.
        fn report(&self, configs: &[Rc<Config>], path: &str) -> (String, Vec<(usize, u64)>) {
            let headers = [(":method", "GET"), (":path", path)];
            let request = headers.into_iter().collect();
            let mut reading = asked(configs.to_vec(), &request, self.clock()).unwrap();
            let mut callbacks = Vec::new();
            loop {
                let before = (self.reads.get(), self.nanos.get());
                let reply = reading.go_on(self, &PressureView::default(), || self.clock());
                callbacks.push((self.reads.get() - before.0, self.nanos.get() - before.1));
                assert!(callbacks.len() < 1_000);
                if let Some(reply) = reply {
                    return (reply.body, callbacks);
                }
            }
        }

        fn json(&self, configs: &[Rc<Config>], path: &str) -> serde_json::Value {
            serde_json::from_str(&self.report(configs, path).0).unwrap()
        }
    }

    impl Store for Proxy {
        fn get(&self, key: &str) -> Result<Option<(Vec<u8>, Version)>, PutError> {
            self.read();
            self.store.get(key)
        }
        fn put(&self, key: &str, value: &[u8], is: Option<Version>) -> Result<(), PutError> {
            self.store.put(key, value, is)
        }
        fn slot_seed(&self) -> SlotSeed {
            self.store.slot_seed()
        }
        fn announce(&self, gauge: &Series, value: u64) {
            self.store.announce(gauge, value);
        }
    }

    impl Counters for Proxy {
        fn value(&self, _: &Series) -> Option<u64> {
            self.read();
            None
        }
    }

    /// Tenants `Team-0`, `Team-1`, …
    fn config(tenants: usize) -> Rc<Config> {
        let names: Vec<String> = (0..tenants)
            .map(|n| format!(r#""Team-{n}": {{"plan": "p"}}"#))
            .collect();
        let text = format!(
            r#"{{"plans": {{"p": {{"budget": {{"initial_budget": 400, "window": "day"}}}}}}, "tenants": {{{}}}}}"#,
            names.join(",")
        );
        Rc::new(Config::parse(text.as_bytes()).unwrap())
    }

    /// What is read for a row: the record, and which counters there are.
    const A_ROW: usize = 2;
    /// What is read for the report as a whole: the strangers' counters, bursar's own, and which upstreams refuse.
    const AT_THE_END: usize = 8;

    #[test]
    fn no_callback_does_more_than_its_share_of_a_hundred_thousand_tenants() {
        let proxy = Proxy::default();
        let configs = [config(100_000)];
        for path in ["/", "/report.json?page=100", "/?find=team", "/?find=99999"] {
            let (_, callbacks) = proxy.report(&configs, path);
            let most = callbacks.iter().map(|(reads, _)| *reads).max().unwrap();
            assert!(most <= MOST * A_ROW + AT_THE_END, "{path}: {most}");
            let all: usize = callbacks.iter().map(|(reads, _)| reads).sum();
            assert!(all <= ROWS * A_ROW + AT_THE_END, "{path}: {all}");
            // Ten callbacks for the rows, four for all other names.
            assert!(callbacks.len() <= 15, "{path}: {callbacks:?}");
        }
    }

    #[test]
    fn a_callback_ends_in_time_where_the_proxy_is_slow() {
        let proxy = Proxy {
            nanos_a_read: 100_000,
            ..Proxy::default()
        };
        let (_, callbacks) = proxy.report(&[config(100)], "/");
        let (_, others) = callbacks.split_last().unwrap();
        assert!(!others.is_empty());
        for (_, nanos) in others {
            assert!((1_500_000..1_700_000).contains(nanos), "{callbacks:?}");
        }
    }

    #[test]
    fn a_small_report_is_there_in_the_first_callback() {
        let proxy = Proxy::default();
        let tenants = MOST - 1;
        assert_eq!(proxy.report(&[config(tenants)], "/").1.len(), 1);
    }

    #[test]
    fn figures_are_as_new_as_the_report_says_or_newer() {
        let proxy = Proxy {
            nanos_a_read: 100_000_000,
            ..Proxy::default()
        };
        let told = proxy.json(&[config(3)], "/report.json");
        assert_eq!(told["as_of"], "2024-02-29T12:00:00Z");
    }

    #[test]
    fn tenants_are_found_by_a_part_of_their_name_on_whichever_page_they_are() {
        let proxy = Proxy::default();
        let configs = [config(2_500)];
        let told = proxy.json(&configs, "/report.json?find=TEAM-249");
        let names = told["tenants"].as_array().unwrap().iter();
        let names: Vec<_> = names.map(|each| each["tenant"].as_str().unwrap()).collect();
        let expected: Vec<String> = std::iter::once(249)
            .chain(2_490..2_500)
            .map(|n| format!("Team-{n}"))
            .collect();
        assert_eq!(names, expected);
        assert_eq!((&told["count"], &told["pages"]), (&11.into(), &1.into()));
        assert_eq!(proxy.json(&configs, "/report.json?find=nobody")["count"], 0);
        let (page, _) = proxy.report(&configs, "/?find=M-1&page=2");
        assert!(page.contains(r#"<a href="report.json?page=2&amp;find=M%2D1">"#));
        assert!(page.contains(r#" <a href="?page=1&amp;find=M%2D1">1</a>"#));
        assert!(page.contains(r#"<p>As of <time>2024-02-29T12:00:00Z</time>"#));
        assert!(page.contains("1111 tenants with “M-1” in their name."));
    }

    #[test]
    fn a_form_asks_for_any_name() {
        let text = r#"{"tenants": {"Team A+B": {"concurrency": 2}, "team c": {"concurrency": 2}}}"#;
        let configs = [Rc::new(Config::parse(text.as_bytes()).unwrap())];
        for (find, count) in [
            ("team+a%2Bb", 1),
            ("TEAM%20", 2),
            ("team++", 0),
            ("a+b", 0),
            ("Team+A%2BB+and+more", 0),
            ("", 2),
        ] {
            let told = Proxy::default().json(&configs, &format!("/report.json?find={find}"));
            assert_eq!(told["count"], count, "{find}");
        }
    }

    #[test]
    fn what_is_searched_for_does_not_break_out_of_the_page() {
        let (page, _) = Proxy::default().report(&[config(1)], "/?find=%22%3E%3Cscript%3Ealert(1)");
        assert!(!page.contains("<script>alert"));
        assert!(page.contains(r#"value="&quot;&gt;&lt;script&gt;alert(1)""#));
    }

    #[test]
    fn one_page_needs_no_search() {
        let page = |tenants| Proxy::default().report(&[config(tenants)], "/").0;
        assert!(!page(ROWS).contains("<form>"));
        assert!(page(ROWS + 1).contains("<form>"));
    }
}
