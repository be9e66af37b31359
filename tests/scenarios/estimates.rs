//! What is reserved for a request, by what was learned of others.

use crate::opening::{changed, held, spent};
use crate::proxy::{Proxy, usage};
use crate::store::SLOT_SEED;
use bursar::state::record::Record;
use bursar::state::slots::slot_keys;
use bursar::state::store::tenant_key;
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Two ladders, and limits that are far away.
fn ample() -> Value {
    let unlimited = json!({
        "budget": {"initial_budget": 1e9, "window": "day"},
        "bucket": {"tokens_per_window": 1e9, "window": "1s"}
    });
    json!({
        "hold_headers": true,
        "ladders": [
            {"match": ["gpt-*"], "tiers": [{"name": "default", "model": "gpt-4o"}, {"name": "compact", "model": "gpt-4o-mini", "below": 0.2}]},
            {"tiers": [{"name": "sonnet", "model": "claude"}]}
        ],
        "tenants": {"acme": unlimited, "globex": unlimited}
    })
}

/// A prompt of 3,000 bytes and some.
fn prompt(model: &str, limit: &str) -> String {
    let text = "x".repeat(3_000);
    format!(r#"{{"model":"{model}",{limit}"messages":[{{"role":"user","content":"{text}"}}]}}"#)
}

/// What a request takes of a bucket that is full otherwise.
fn cells(proxy: &Proxy, tenant: &str, body: &str) -> u64 {
    proxy.pass_millis(10_000);
    let mut call = proxy.chat(tenant, body);
    let used = proxy.record(tenant).bucket.used;
    call.answer_headers("400", &[]);
    call.end();
    used
}

/// What a request holds on a budget on which nothing is held otherwise.
fn reserved(proxy: &Proxy, tenant: &str, body: &str) -> u64 {
    let mut call = proxy.chat(tenant, body);
    let held = held(proxy, tenant);
    call.answer_headers("400", &[]);
    call.end();
    held
}

#[test]
fn the_cells_of_a_prompt_follow_what_was_reported_to_its_tenant_and_the_reservation_stays_a_ceiling()
 {
    let proxy = Proxy::new(&ample());
    let limit = r#""max_tokens":10,"#;
    let (body, mini) = (prompt("gpt-4o", limit), prompt("gpt-4o-mini", limit));
    let length = body.len() as u64;
    assert_eq!(cells(&proxy, "acme", &body), length.div_ceil(4) + 10);
    for _ in 0..300 {
        proxy.served("acme", &body, length / 3, 10);
    }
    assert_eq!(cells(&proxy, "acme", &body), length / 3 + 10);
    assert_eq!(reserved(&proxy, "acme", &body), length + 10);
    // Neither another model's nor another tenant's.
    assert_eq!(cells(&proxy, "acme", &mini), (length + 5).div_ceil(4) + 10);
    assert_eq!(cells(&proxy, "globex", &body), length.div_ceil(4) + 10);
    // So is the input of a request of which none is reported.
    let before = spent(&proxy, "acme");
    proxy.chat("acme", &body).end();
    assert_eq!(spent(&proxy, "acme") - before, length / 3);
    // It is the tenant's state and outlives the configuration and the day.
    proxy.configure(&ample());
    proxy.pass_millis(86_400_000);
    assert_eq!(cells(&proxy, "acme", &body), length / 3 + 10);
}

#[test]
fn a_wait_that_was_told_stays_true_whatever_others_send_meanwhile() {
    let mut config = ample();
    config["tenants"]["acme"] = json!({"bucket": {"tokens_per_window": 1_000, "window": "10s"}});
    let proxy = Proxy::new(&config);
    let body = prompt("gpt-4o", r#""max_tokens":10,"#);
    proxy.served("acme", &body, 766, 10);
    let refused = proxy.chat("acme", &body);
    let wait = refused.reply_header("retry-after-ms").unwrap();
    let wait: u64 = wait.parse().unwrap();
    for _ in 0..100 {
        proxy.served("globex", &body, 3_000, 10);
    }
    proxy.pass_millis(wait - 1);
    let early = proxy.chat("acme", &body);
    assert_eq!(early.reply_header("retry-after-ms"), Some("1"));
    proxy.pass_millis(1);
    assert_eq!(proxy.chat("acme", &body).refused(), None);
}

#[test]
fn prompts_with_images_cached_ones_and_estimates_teach_nothing_of_text() {
    let proxy = Proxy::new(&ample());
    let body = prompt("gpt-4o", r#""max_tokens":10,"#);
    let expected = cells(&proxy, "acme", &body);
    let image = body.replace(
        r#""content":""#,
        r#""content":[{"type":"image_url","image_url":{"url":"data:"}}],"x":""#,
    );
    for _ in 0..100 {
        proxy.served("acme", &image, 100, 10);
        // The client leaves before the usage.
        proxy.chat("acme", &body).end();
        let mut refused = proxy.chat("acme", &body);
        refused.answer_headers("400", &[("content-type", "application/json")]);
        refused.answer_chunk(usage(1, 1).as_bytes(), true);
    }
    assert_eq!(cells(&proxy, "acme", &body), expected);
    let generate = "/v1beta/models/gpt-4o:generateContent";
    let body = format!(r#"{{"cachedContent":"c","x":"{}"}}"#, "x".repeat(3_000));
    for _ in 0..100 {
        let mut call = proxy.request(
            &[
                (":method", "POST"),
                (":path", generate),
                ("x-tenant-id", "acme"),
                ("content-length", &body.len().to_string()),
            ],
            false,
        );
        call.send(&[body.as_bytes()]);
        call.answer_json(
            r#"{"usageMetadata":{"promptTokenCount":100000,"candidatesTokenCount":1}}"#,
        );
        assert_eq!(call.fields["bursar_settled_by"], "usage");
    }
    assert_eq!(
        cells(&proxy, "acme", &prompt("gpt-4o", r#""max_tokens":10,"#)),
        expected
    );
}

#[test]
fn the_output_reserved_without_a_limit_follows_the_tenants_own_answers_from_that_model() {
    let proxy = Proxy::new(&ample());
    let body = prompt("gpt-4o", "");
    let length = body.len() as u64;
    let mini = prompt("gpt-4o-mini", "");
    assert_eq!(reserved(&proxy, "acme", &body), length + 1_024);
    for _ in 0..100 {
        proxy.served("acme", &body, length.div_ceil(4), 300);
        proxy.served("globex", &body, length.div_ceil(4), 9_000);
    }
    assert_eq!(reserved(&proxy, "acme", &body), length + 300);
    assert_eq!(cells(&proxy, "acme", &body), length.div_ceil(4) + 300);
    assert_eq!(reserved(&proxy, "globex", &body), length + 9_000);
    // Another model of the same ladder, and a limit that the request names.
    assert_eq!(reserved(&proxy, "acme", &mini), mini.len() as u64 + 1_024);
    let limited = prompt("gpt-4o", r#""max_tokens":2000,"#);
    assert_eq!(
        reserved(&proxy, "acme", &limited),
        limited.len() as u64 + 2_000
    );
    // Each of several answers may be as long, and teaches as much.
    let three = prompt("gpt-4o", r#""n":3,"#);
    for _ in 0..20 {
        proxy.served("acme", &three, 700, 900);
    }
    assert_eq!(reserved(&proxy, "acme", &three), three.len() as u64 + 900);
    // It is the tenant's state and outlives the configuration and the day.
    proxy.configure(&ample());
    proxy.pass_millis(86_400_000);
    assert_eq!(reserved(&proxy, "acme", &body), length + 300);
}

#[test]
fn a_body_that_passes_is_reserved_for_by_what_was_learned_too() {
    let mut config = ample();
    config["hold_headers"] = false.into();
    let proxy = Proxy::new(&config);
    let body = prompt("gpt-4o", "");
    for _ in 0..100 {
        proxy.served("acme", &body, 700, 300);
    }
    let mut call = proxy.post(&[
        ("x-tenant-id", "acme"),
        ("content-length", &body.len().to_string()),
    ]);
    call.send_chunk(&body.as_bytes()[..100], false);
    assert_eq!(held(&proxy, "acme"), body.len() as u64);
    call.send_chunk(&body.as_bytes()[100..], true);
    assert_eq!(held(&proxy, "acme"), body.len() as u64 + 300);
}

#[test]
fn answers_that_were_limited_cut_or_not_reported_teach_nothing_of_length() {
    let proxy = Proxy::new(&ample());
    let body = prompt("gpt-4o", "");
    for _ in 0..50 {
        proxy.served("acme", &prompt("gpt-4o", r#""max_tokens":5,"#), 700, 5);
        proxy.chat("acme", &body).end();
        let mut silent = proxy.chat("acme", &body);
        silent.answer_json(r#"{"choices":[]}"#);
        silent.end();
        let mut failed = proxy.chat("acme", &body);
        failed.answer_headers("400", &[]);
        failed.end();
    }
    assert_eq!(reserved(&proxy, "acme", &body), body.len() as u64 + 1_024);
}

#[test]
fn the_model_that_serves_is_the_one_that_is_learned_of() {
    let mut config = ample();
    config["tenants"]["acme"] =
        json!({"budget": {"initial_budget": 1e6, "window": "day"}, "low_water_mark": 1});
    let proxy = Proxy::new(&config);
    proxy.served("acme", &prompt("gpt-4o", r#""max_tokens":5,"#), 1, 0);
    for _ in 0..100 {
        let call = proxy.served("acme", &prompt("gpt-4o", ""), 700, 300);
        assert_eq!(call.upstream_header("x-bursar-tier"), Some("compact"));
    }
    let mini = prompt("gpt-4o-mini", "");
    assert_eq!(reserved(&proxy, "acme", &mini), mini.len() as u64 + 300);
    config["tenants"]["acme"]["never_downgrade"] = true.into();
    proxy.configure(&config);
    let body = prompt("gpt-4o", "");
    assert_eq!(reserved(&proxy, "acme", &body), body.len() as u64 + 1_024);
}

#[test]
fn a_flood_of_models_cannot_grow_the_record_nor_touch_another_tenants() {
    let proxy = Proxy::new(&ample());
    let body = prompt("gpt-4o", "");
    for _ in 0..50 {
        proxy.served("acme", &body, 700, 300);
        proxy.served("globex", &body, 700, 300);
    }
    let others = proxy.store.value(&tenant_key("globex"));
    for n in 0..2_000 {
        proxy.served("acme", &format!(r#"{{"model":"made-up-{n}"}}"#), 1, 9_000);
    }
    assert!(proxy.store.value(&tenant_key("acme")).unwrap().len() <= 946);
    assert_eq!(proxy.store.value(&tenant_key("globex")), others);
    // Its own first observation is forgotten.
    assert_eq!(reserved(&proxy, "acme", &body), body.len() as u64 + 1_024);
}

#[test]
fn long_answers_in_the_past_refuse_nothing_that_the_prior_admits() {
    let limited = |budget: u64, bucket: u64| {
        let mut config = ample();
        config["tenants"]["acme"] = json!({
            "budget": {"initial_budget": budget, "window": "day"},
            "bucket": {"tokens_per_window": bucket, "window": "1s"}
        });
        config
    };
    let body = r#"{"model":"gpt-4o"}"#;
    let length = body.len() as u64;
    for (budget, bucket, held_then) in [
        (1_000_000, 1_000_000, length + 9_000),
        // What is left of the budget.
        (5_000, 1_000_000, 5_000),
        (length + 1_025, 1_000_000, length + 1_025),
        (length + 1_024, 1_000_000, length + 1_024),
        // What is left in the bucket: but for five cells of prompt.
        (1_000_000, 3_005, length + 3_000),
        (1_000_000, 1_029, length + 1_024),
    ] {
        let proxy = Proxy::new(&limited(10_000_000, 10_000_000));
        for _ in 0..100 {
            proxy.served("acme", body, 5, 9_000);
        }
        proxy.pass_millis(86_400_000);
        proxy.configure(&limited(budget, bucket));
        let mut first = proxy.chat("acme", body);
        assert_eq!(first.refused(), None, "{budget} {bucket}");
        assert_eq!(held(&proxy, "acme"), held_then, "{budget} {bucket}");
        first.answer_json(&usage(5, 5));
        proxy.pass_millis(1_000);
        let again = proxy.chat("acme", body).refused().is_none();
        assert_eq!(again, budget > length + 1_025, "{budget} {bucket}");
    }
    let proxy = Proxy::new(&limited(5_000, 1_000_000));
    let mut first = proxy.chat("acme", body);
    first.answer_json(&usage(5, 0));
    let exceeding = proxy.chat("acme", &body.replace('}', r#","n":5}"#));
    assert_eq!(exceeding.refused(), Some((429, "budget_exhausted")));
}

#[test]
fn a_stranger_who_gets_the_slot_of_another_begins_with_the_priors() {
    let mut config = ample();
    config["tenant"] = json!({"unknown": {"plan": "ample"}});
    config["plans"] = json!({"ample": config["tenants"]["acme"]});
    let body = prompt("gpt-4o", "");
    let first_key = |tenant: &str| slot_keys(SLOT_SEED, tenant)[0].clone();
    let shares = |tenant: &String| first_key(tenant) == first_key("stranger");
    let other = (0..).map(|n| format!("other-{n}")).find(shares).unwrap();
    let held_in_the_slot = |tenant: &str| {
        let proxy = Proxy::new(&config);
        for _ in 0..100 {
            proxy.served("stranger", &body, 700, 300);
        }
        // Whose window ends, is idle.
        proxy.pass_millis(86_400_000);
        let call = proxy.chat(tenant, &body);
        assert_eq!(call.refused(), None);
        assert_eq!(proxy.store.keys(), 1);
        let value = proxy.store.value(&first_key("stranger")).unwrap();
        Record::decode(&value).unwrap().account.held().tokens.0
    };
    assert_eq!(held_in_the_slot("stranger"), body.len() as u64 + 300);
    assert_eq!(held_in_the_slot(&other), body.len() as u64 + 1_024);
}

// Otherwise the end of an answer, which tells of a dense prompt, is cut off once sparse ones were told. (issue 13)
#[test]
fn sparse_prompts_make_no_dense_one_cheaper_whose_answer_is_cut() {
    for hold in [true, false] {
        let proxy = Proxy::new(&changed(ample(), |config| {
            config["hold_headers"] = hold.into();
        }));
        let body = prompt("gpt-4o", r#""max_tokens":9,"#);
        for _ in 0..40 {
            proxy.served("acme", &body, 190, 1);
        }
        let before = spent(&proxy, "acme");
        proxy.chat("acme", &body).end();
        let plain = u64::try_from(body.len().div_ceil(4)).unwrap();
        assert_eq!(spent(&proxy, "acme") - before, plain, "{hold}");
    }
}
