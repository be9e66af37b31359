//! [`bursar::tier::latency`]: bytes are read as what was written or not at all, and requests get on with whatever they say.

use std::time::Duration;

use bursar::state::store::latency_key;
use bursar::tier::latency::{ENOUGH, FEW, Latency, Standing};
use serde_json::json;

use super::input::Input;
use crate::proxy::{Proxy, usage};

pub fn run(data: &[u8]) {
    let Some(input) = Input::read(data) else {
        return;
    };
    // Foreign bytes seldom begin as a state does.
    let head: &[u8] = if input.flag(0) { b"" } else { b"brl\x01" };
    let bytes = [head, input.bytes].concat();
    let proxy = Proxy::new(&json!({
        "hold_headers": true,
        "tiers": [{"name": "a", "model": "big"}, {"name": "b", "model": "small"}],
        "tenants": {"acme": {"sla": {"p95_ms": 1 << (input.choice % 17)}}}
    }));
    if let Ok(state) = Latency::decode(&bytes) {
        assert_eq!(state.encode(), bytes);
        let now = proxy.now();
        let read = Standing::read(&bytes, now);
        let mut state = state.at(now);
        assert_eq!(read, Ok(state.standing()));
        state.record(Duration::from_millis(9), now);
        assert!(state.p95().is_some() && state.count() > 0);
        let is_missed = state.standing().misses(Duration::from_millis(1));
        assert!(!is_missed || state.count() >= FEW);
        let is_late = state.p95() > Some(1) && state.count() >= ENOUGH;
        assert!(is_missed || !is_late);
    }
    proxy.store.plant(&latency_key("whole", "big"), &bytes);
    for millis in [0, 1, 10_000, 60_000, 1 << (input.choice % 40)] {
        proxy.pass_millis(millis);
        let mut call = proxy.chat("acme", r#"{"model":"big","max_tokens":9}"#);
        assert_eq!(call.refused(), None);
        call.answer_json(&usage(3, 4));
        call.end();
    }
    // What was there is a state again, once an answer of that tier was heard.
    let last = proxy.store.value(&latency_key("whole", "big")).unwrap();
    assert!(Latency::decode(&last).is_ok() || last == bytes);
}
