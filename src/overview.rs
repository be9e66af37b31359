//! The operators' report: where all limits of all configured tenants stand, as a page and as JSON.
//!
//! It is a listener of its own that answers, for the other configurations of the same VM: what is read is read when it is asked for, a
//! thousand tenants at a time.

use std::rc::Rc;

use crate::admission::ledger::roll_forward;
use crate::config::{Config, Plan};
use crate::hash::stable;
use crate::http::Headers;
use crate::pressed::PressureView;
use crate::provider::parameter;
use crate::report::overview::{Pressed, Row, Told, json, page};
use crate::report::refusal::Reply;
use crate::report::standing::standings;
use crate::state::record::Record;
use crate::state::store::{Store, tenant_key};
use crate::tenant::TenantId;
use crate::units::Timestamp;

/// Tenants on a page.
const ROWS: usize = 1_000;

/// Answers a request to the report. `configs`: the configurations of this VM, the newest first.
pub fn answer(
    configs: &[Rc<Config>],
    request: &Headers,
    store: &impl Store,
    pressed: &PressureView,
    now: Timestamp,
) -> Reply {
    let [method, path] = request.only_of([":method", ":path"]);
    if !matches!(method, Some(b"GET" | b"HEAD")) {
        return reply(
            405,
            "text/plain",
            "The report can only be read.\n".to_owned(),
        );
    }
    let path = path.unwrap_or_default();
    let told = || tell(configs, number(path), store, pressed, now);
    match path.split(|byte| *byte == b'?').next() {
        Some(b"/") => reply(200, "text/html; charset=utf-8", page(&told())),
        Some(b"/report.json") => reply(200, "application/json", json(&told())),
        _ => reply(
            404,
            "text/plain",
            "There are / and /report.json.\n".to_owned(),
        ),
    }
}

/// Which page is asked for, counted from 1.
fn number(path: &[u8]) -> usize {
    let digits = parameter(path, "page").and_then(|digits| String::from_utf8(digits).ok());
    let number = digits.and_then(|digits| digits.parse().ok());
    number.unwrap_or(1).max(1)
}

fn tell(
    configs: &[Rc<Config>],
    page: usize,
    store: &impl Store,
    pressed: &PressureView,
    now: Timestamp,
) -> Told {
    let all: Vec<_> = tenants(configs).collect();
    let rows = all.chunks(ROWS).nth(page.saturating_sub(1));
    let rows = rows.unwrap_or_default().iter();
    let known = pressed.known(store, now);
    let ladders = configs.iter().flat_map(|config| &config.ladders);
    let tiers = ladders.flat_map(|ladder| &ladder.tiers);
    let tiers = tiers.filter(|tier| known.pressed(stable(tier.model.as_str())) > 0);
    Told {
        page,
        pages: all.len().div_ceil(ROWS).max(1),
        tenants: all.len(),
        rows: rows.map(|(id, plan)| row(id, plan, store, now)).collect(),
        pressed: tiers
            .map(|tier| Pressed {
                tier: tier.name.clone(),
                model: tier.model.clone(),
            })
            .collect(),
        now,
    }
}

/// All configured tenants, each as the newest configuration has it.
fn tenants(configs: &[Rc<Config>]) -> impl Iterator<Item = (&TenantId, &Rc<Plan>)> {
    configs.iter().enumerate().flat_map(|(place, config)| {
        let newer = configs.get(..place).unwrap_or_default();
        let own = config.listed().iter();
        own.filter(|(id, _)| newer.iter().all(|newer| newer.plan(id).is_none()))
            .map(|(id, plan)| (id, plan))
    })
}

fn row(id: &TenantId, plan: &Plan, store: &impl Store, now: Timestamp) -> Row {
    let stored = store.get(&tenant_key(id.account())).ok().flatten();
    let record = stored.and_then(|(bytes, _)| Record::decode(&bytes).ok());
    let mut record = record.unwrap_or_default();
    roll_forward(&mut record, &plan.limits, now);
    Row {
        tenant: id.name().clone(),
        plan: plan.name.clone(),
        shadow: plan.limits.shadow,
        limits: standings(&plan.limits, &record, now).collect(),
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

/// Nothing is loaded, and no other page may frame this one.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::budget::tokens;
    use crate::state::store::fake::FakeStore;
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

    fn ask(configs: &[Rc<Config>], store: &FakeStore, method: &str, path: &str) -> Reply {
        let headers = [(":method", method), (":path", path)];
        let request = headers.into_iter().collect();
        answer(configs, &request, store, &PressureView::default(), NOON)
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
