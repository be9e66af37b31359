//! [`bursar::state::record`] and [`bursar::conversation`]: bytes are read as what was written or not at all, and requests get on with whatever they say.

use bursar::conversation::Conversations;
use bursar::limits::account::{HOLDS, MARKED};
use bursar::limits::lend::CHILDREN;
use bursar::limits::pace::LEVELS;
use bursar::limits::stacked::ENTRIES;
use bursar::state::record::Record;
use bursar::state::slots::owner_of;
use bursar::state::store::tenant_key;
use serde_json::{Value, json};

use super::input::Input;
use crate::proxy::{Proxy, usage};

pub fn run(data: &[u8]) {
    let Some(input) = Input::read(data) else {
        return;
    };
    // Foreign bytes seldom begin as a record does.
    let head: &[u8] = match [0, 2, 3, 4, 5, 6, 7].map(|flag| input.flag(flag)) {
        [true, ..] => b"",
        [_, false, ..] => b"brs\x01",
        [_, _, false, ..] => b"brs\x02",
        [_, _, _, false, ..] => b"brs\x03",
        [.., false, _, _] => b"brs\x04",
        [.., false, _] => b"brs\x05",
        [.., false] => b"brs\x06",
        [.., true] => b"brs\x07",
    };
    for head in [&b"brc\x01"[..], b""] {
        let bytes = [head, input.bytes].concat();
        if let Some(table) = Conversations::decode(&bytes) {
            assert_eq!(table.encode(), bytes);
        }
    }
    let bytes = [head, input.bytes].concat();
    if let Ok(record) = Record::decode(&bytes) {
        assert_eq!(record.encode(), bytes);
        let account = &record.account;
        assert!(account.holds.len() <= HOLDS && account.window.start <= account.window.end);
        assert!(account.marked.len() <= MARKED && record.burn.levels.len() <= LEVELS);
        assert!(record.others.len() <= ENTRIES);
        assert!(account.children.len() <= CHILDREN);
        let owned = Record {
            owner: owner_of("acme"),
            ..record
        };
        assert_eq!(Record::decode(&owned.encode()), Ok(owned.clone()));
        serve(&input, &owned.encode());
    }
    serve(&input, &bytes);
}

/// Requests of a tenant whose record is this, or its parent's.
fn serve(input: &Input<'_>, record: &[u8]) {
    let window = if input.flag(1) { "90s" } else { "month" };
    let budget = json!({"initial_budget": 1_000, "window": window});
    let mut config = json!({
        "hold_headers": true,
        "tiers": [{"name": "a", "model": "big"}, {"name": "b", "model": "small", "below": 0.5}],
        "tenants": {"acme": {
            "budget": budget,
            "pace": {},
            "hysteresis": 0.1,
            "bucket": {"tokens_per_window": 600, "window": "1m", "low_water_mark": 0.1},
        }}
    });
    requests(input, &config, "acme", record);
    let limits = json!([{"name": "other", "budget": budget}]);
    config["tenants"] = json!({
        "corp": {"budget": budget, "limits": limits, "hold": "likely"},
        "acme": {"parent": "corp", "guaranteed": 0.5},
        "globex": {"parent": "corp", "guaranteed": 0.25},
    });
    requests(input, &config, "corp", record);
    // The same where proxies share it.
    config["global"] = json!({"redis": {"cluster": "store"}, "reclaim": "1m"});
    config["tenants"]["corp"]["cold"] = "deny".into();
    config["tenants"]["globex"] = json!({});
    config["tenants"]["acme"] = json!({"parent": "corp"});
    requests(input, &config, "corp", record);
}

fn requests(input: &Input<'_>, config: &Value, whose: &str, record: &[u8]) {
    let proxy = Proxy::new(config);
    proxy.store.plant(&tenant_key(whose), record);
    for millis in [0, 1, 60_000, 1 << (input.choice % 40)] {
        proxy.pass_millis(millis);
        let body = r#"{"model":"big","max_tokens":9}"#;
        let mut call = proxy.chat("acme", body);
        if call.reply.is_none() {
            call.answer_json(&usage(3, 4));
        }
        call.end();
    }
    // What was there is a record again, once a request has been served.
    let last = proxy.store.value(&tenant_key(whose)).unwrap();
    assert!(Record::decode(&last).is_ok() || last == record);
}
