use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use super::*;
use crate::limits::budget::tokens;
use crate::state::store::fake::FakeStore;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Noon of a day in 2024.
const NOON: u64 = 1_709_208_000;

/// A proxy's gauges, and a clock that advances with each tick and each new gauge.
#[derive(Default)]
struct Proxy {
    store: FakeStore,
    names: RefCell<Vec<String>>,
    values: RefCell<HashMap<String, u64>>,
    told: Cell<u64>,
    now: Cell<u64>,
    /// The nanoseconds that the proxy takes for a gauge that is new to it.
    for_new: Cell<u64>,
    /// What tenant `t3` spends while the next new gauge is defined.
    meanwhile: Cell<Option<u64>>,
}

impl Gauges for Proxy {
    fn define(&self, series: &Series) -> Option<u32> {
        self.now.set(self.now.get() + self.for_new.get());
        if let Some(spent) = self.meanwhile.take() {
            self.spend("t3", spent);
        }
        let mut names = self.names.borrow_mut();
        names.push(series.name());
        u32::try_from(names.len() - 1).ok()
    }

    fn set(&self, id: u32, value: u64) {
        self.told.set(self.told.get() + 1);
        let name = self.names.borrow()[usize::try_from(id).unwrap()].clone();
        self.values.borrow_mut().insert(name, value);
    }
}

impl Proxy {
    fn new() -> Self {
        let proxy = Self::default();
        proxy.now.set(NOON * 1_000_000_000);
        proxy
    }

    fn clock(&self) -> Timestamp {
        Timestamp::from_nanos(self.now.get())
    }

    /// Runs ticks for this many seconds.
    fn pass(&self, sweep: &mut Sweep, seconds: u64) {
        for _ in 0..seconds * u64::from(TICKS) {
            self.tick(sweep);
        }
    }

    fn tick(&self, sweep: &mut Sweep) {
        self.now
            .set(self.now.get() + 1_000_000_000 / u64::from(TICKS));
        sweep.tick(&self.store, self, || self.clock(), |_| None);
    }

    fn gauge(&self, gauge: &str, tenant: &str) -> Option<u64> {
        let name = format!("{gauge}.tenant=.={tenant};.;limit=.=budget;.;unit=.=tokens;.;");
        self.values.borrow().get(&name).copied()
    }

    /// Lets the tenant spend this amount in another VM.
    fn spend(&self, tenant: &str, amount: u64) {
        let mut record = Record::default();
        let config = config(10, "");
        let (_, plan) = &config.listed()[0];
        roll_forward(&mut record, &plan.limits, self.clock());
        record.account.spent = tokens(amount);
        self.store.plant(&tenant_key(tenant), &record.encode());
    }
}

/// Tenants `t0`, `t1`, … with a budget of 400 tokens each 20 seconds.
fn config(tenants: usize, more: &str) -> Rc<Config> {
    let names: Vec<String> = (0..tenants)
        .map(|n| format!(r#""t{n}": {{"plan": "p"}}"#))
        .collect();
    let text = format!(
        r#"{{"plans": {{"p": {{"budget": {{"initial_budget": 400, "window": "20s"}}}}}}, {more} "tenants": {{{}}}}}"#,
        names.join(",")
    );
    Rc::new(Config::parse(text.as_bytes()).unwrap())
}

fn sweep(config: Rc<Config>) -> Sweep {
    Sweep::new(config, Duty { what: 1, who: 1 })
}

#[test]
fn a_gauge_falls_to_the_truth_when_its_window_has_ended_while_nobody_asks() {
    let proxy = Proxy::new();
    let mut sweep = sweep(config(1, ""));
    proxy.pass(&mut sweep, 1);
    assert_eq!(proxy.gauge("bursar_limit", "t0"), Some(400));
    assert_eq!(proxy.gauge("bursar_remaining", "t0"), Some(400));
    proxy.spend("t0", 212);
    proxy.pass(&mut sweep, 1);
    assert_eq!(proxy.gauge("bursar_used", "t0"), Some(212));
    assert_eq!(proxy.gauge("bursar_remaining", "t0"), Some(188));
    let end = Some(NOON + 20);
    assert_eq!(proxy.gauge("bursar_reset_timestamp_seconds", "t0"), end);
    proxy.pass(&mut sweep, 20);
    assert_eq!(proxy.gauge("bursar_used", "t0"), Some(0));
    assert_eq!(proxy.gauge("bursar_remaining", "t0"), Some(400));
    let next = Some(NOON + 40);
    assert_eq!(proxy.gauge("bursar_reset_timestamp_seconds", "t0"), next);
    let old = proxy.values.borrow()["bursar_budget_remaining.tenant=.=t0;.;"];
    assert_eq!(old, 400);
}

#[test]
fn the_first_tenants_come_round_within_a_second_and_others_once_they_ask() {
    let proxy = Proxy::new();
    let mut sweep = sweep(config(2_000, r#""metrics": {"tenants": 990},"#));
    proxy.pass(&mut sweep, 1);
    assert_eq!(proxy.gauge("bursar_used", "t989"), Some(0));
    assert_eq!(proxy.gauge("bursar_used", "t990"), None);
    proxy.spend("t989", 1);
    proxy.spend("t990", 7);
    proxy.spend("t1999", 8);
    proxy.pass(&mut sweep, 1);
    assert_eq!(proxy.gauge("bursar_used", "t989"), Some(1));
    proxy.pass(&mut sweep, 115);
    assert_eq!(proxy.gauge("bursar_limit", "t990"), Some(400));
    assert_eq!(proxy.gauge("bursar_limit", "t1999"), Some(400));
    assert_eq!(proxy.gauge("bursar_limit", "t1000"), None);
}

#[test]
fn where_no_tenant_is_a_first_one_those_have_gauges_that_asked() {
    let proxy = Proxy::new();
    let mut sweep = sweep(config(5, r#""metrics": {"tenants": 0},"#));
    proxy.spend("t3", 1);
    proxy.pass(&mut sweep, 120);
    assert_eq!(proxy.gauge("bursar_limit", "t3"), Some(400));
    assert_eq!(proxy.gauge("bursar_limit", "t0"), None);
}

#[test]
fn what_has_changed_while_gauges_were_made_is_told_at_once() {
    let proxy = Proxy::new();
    let mut sweep = sweep(config(5, r#""metrics": {"tenants": 0},"#));
    proxy.spend("t3", 1);
    proxy.meanwhile.set(Some(7));
    while proxy.gauge("bursar_used", "t3").is_none() {
        proxy.tick(&mut sweep);
    }
    assert_eq!(proxy.gauge("bursar_used", "t3"), Some(7));
}

#[test]
fn what_has_not_changed_is_read_and_not_told() {
    let proxy = Proxy::new();
    let mut sweep = sweep(config(100, ""));
    proxy.pass(&mut sweep, 1);
    let told = proxy.told.get();
    proxy.pass(&mut sweep, 5);
    assert_eq!(proxy.told.get(), told);
    proxy.spend("t7", 1);
    proxy.pass(&mut sweep, 1);
    // Five gauges of the limit, and the gauge under its older name.
    assert_eq!(proxy.told.get(), told + 6);
}

#[test]
fn a_tick_ends_in_time_and_the_next_one_goes_on_from_there() {
    let proxy = Proxy::new();
    // The proxy takes 0.2 ms for each new gauge.
    proxy.for_new.set(200_000);
    let mut sweep = sweep(config(1_000, r#""metrics": {"tenants": 900},"#));
    for n in 900..1_000 {
        proxy.spend(&format!("t{n}"), 1);
    }
    let mut longest = 0;
    for _ in 0..4_000 {
        let before = proxy.now.get();
        sweep.tick(&proxy.store, &proxy, || proxy.clock(), |_| None);
        longest = longest.max(proxy.now.get() - before);
        proxy.now.set(before + 50_000_000);
    }
    assert!(longest <= 1_900_000, "{longest} ns");
    for tenant in ["t0", "t899", "t900"] {
        assert_eq!(proxy.gauge("bursar_limit", tenant), Some(400), "{tenant}");
    }
}

#[test]
fn one_vm_tells_and_another_goes_on_where_it_falls_silent() {
    let proxy = Proxy::new();
    let (mut one, mut other) = (
        sweep(config(3, "")),
        Sweep::new(config(3, ""), Duty { what: 1, who: 2 }),
    );
    proxy.pass(&mut one, 1);
    let told = proxy.told.get();
    proxy.pass(&mut other, 1);
    assert_eq!(proxy.told.get(), told);
    proxy.spend("t0", 9);
    proxy.pass(&mut other, 5);
    assert_eq!(proxy.gauge("bursar_used", "t0"), Some(9));
    // This VM has the duty from now on, until it gives it up.
    let told = proxy.told.get();
    proxy.spend("t0", 10);
    proxy.pass(&mut one, 1);
    assert_eq!(proxy.told.get(), told);
    other.end(&proxy.store, &proxy, |_| None);
    proxy.pass(&mut one, 2);
    assert_eq!(proxy.gauge("bursar_used", "t0"), Some(10));
}

#[test]
fn a_tenant_of_a_newer_configuration_is_left_to_that_and_what_is_gone_is_none() {
    let proxy = Proxy::new();
    let mut old = sweep(config(3, ""));
    proxy.pass(&mut old, 1);
    let other = |text: &str| Rc::new(Config::parse(text.as_bytes()).unwrap());
    let newer = other(
        r#"{"tenants": {"t0": {"budget": {"initial_budget": 9, "window": "day"}}, "t1": {"concurrency": 2}}}"#,
    );
    let plan = |id: &TenantId| newer.plan(id).cloned();
    for _ in 0..30 {
        old.tick(&proxy.store, &proxy, || proxy.clock(), plan);
    }
    let limits = ["t0", "t1", "t2"].map(|tenant| proxy.gauge("bursar_limit", tenant));
    assert_eq!(limits, [Some(400), Some(0), Some(400)]);
    old.end(&proxy.store, &proxy, plan);
    let left = ["t0", "t1", "t2"].map(|tenant| proxy.gauge("bursar_remaining", tenant));
    assert_eq!(left, [Some(400), Some(0), Some(0)]);
    let old = &proxy.values.borrow()["bursar_budget_remaining.tenant=.=t2;.;"];
    assert_eq!(*old, 0);
}

#[test]
fn a_tenant_with_many_limits_is_told_over_several_ticks() {
    let proxy = Proxy::new();
    // The proxy takes long for each new gauge.
    proxy.for_new.set(100_000);
    let limits: Vec<String> = (0..16)
        .map(|n| {
            format!(r#"{{"name": "l{n}", "bucket": {{"requests_per_window": 9, "window": "1m"}}}}"#)
        })
        .collect();
    let text = format!(
        r#"{{"tenants": {{"t0": {{"limits": [{}]}}}}}}"#,
        limits.join(",")
    );
    let mut sweep = sweep(Rc::new(Config::parse(text.as_bytes()).unwrap()));
    let mut longest = 0;
    for _ in 0..20 {
        let before = proxy.now.get();
        sweep.tick(&proxy.store, &proxy, || proxy.clock(), |_| None);
        longest = longest.max(proxy.now.get() - before);
        proxy.now.set(before + 50_000_000);
    }
    assert!(longest < 2_000_000, "{longest} ns");
    assert_eq!(proxy.values.borrow().len(), 16 * 5);
}

#[test]
fn neither_noise_nor_a_store_that_is_down_ends_it() {
    let proxy = Proxy::new();
    let mut sweep = sweep(config(2, ""));
    proxy.store.plant(&tenant_key("t0"), b"foreign");
    proxy.pass(&mut sweep, 1);
    assert_eq!(proxy.gauge("bursar_remaining", "t0"), Some(400));
    proxy.store.set_down(true);
    proxy.pass(&mut sweep, 10);
    proxy.store.set_down(false);
    proxy.spend("t1", 3);
    proxy.pass(&mut sweep, 1);
    assert_eq!(proxy.gauge("bursar_used", "t1"), Some(3));
}

#[test]
fn who_was_renamed_has_its_gauges_under_the_new_name() {
    let proxy = Proxy::new();
    let text = r#"{"tenants": {"apex": {"was": "t0", "budget": {"initial_budget": 400, "window": "20s"}}}}"#;
    let mut sweep = sweep(Rc::new(Config::parse(text.as_bytes()).unwrap()));
    proxy.spend("t0", 212);
    proxy.pass(&mut sweep, 1);
    assert_eq!(proxy.gauge("bursar_used", "apex"), Some(212));
}
