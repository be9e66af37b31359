//! [`bursar::config`]: any text is taken or refused; what is taken serves requests, and is taken again as serde_json writes it.

use bursar::config::Config;
use serde_json::Value;

use super::input::Input;
use crate::proxy::Proxy;

pub fn run(data: &[u8]) {
    let Some(input) = Input::read(data) else {
        return;
    };
    let config = match Config::parse(input.bytes) {
        Ok(config) => config,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let value: Value = serde_json::from_slice(input.bytes).unwrap();
    let again = Config::parse(value.to_string().as_bytes()).unwrap();
    if is_exact(&value) {
        assert_eq!(told(&again, &value), told(&config, &value));
    }
    serve(&input, &value);
}

/// Whether each number is still what was written once serde_json has read it as a double and written that: longer ones, it may
/// read as the next one, and above a billion a double has no room for six decimals.
fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            number.as_f64().is_some_and(|float| float.abs() < 1e9) && number.to_string().len() <= 16
        }
        Value::Array(list) => list.iter().all(is_exact),
        Value::Object(entries) => entries.values().all(is_exact),
        _ => true,
    }
}

/// A configuration as text, in an order of its own.
fn told(config: &Config, value: &Value) -> String {
    let Config {
        hold_headers,
        hold_bytes,
        failure_mode,
        sources,
        missing,
        unknown,
        ladders,
        unlisted_price,
        ..
    } = config;
    let ids = value
        .get("tenants")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    let plans: Vec<_> = ids
        .map(|(id, _)| {
            config
                .plan(&bursar::tenant::TenantId::parse(id.as_bytes()).unwrap())
                .unwrap()
        })
        .collect();
    format!(
        "{hold_headers} {hold_bytes} {failure_mode:?} {sources:?} {missing:?} {unknown:?} {ladders:?} {unlisted_price:?} {plans:?}"
    )
}

/// A few requests of its first tenants, whatever their limits are.
fn serve(input: &Input<'_>, value: &Value) {
    let proxy = Proxy::new(value);
    let ids = value
        .get("tenants")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    let model = value
        .pointer("/tiers/0/model")
        .and_then(Value::as_str)
        .unwrap_or("-");
    for (id, _) in ids.take(3) {
        for used in [1, 1 << 20, u64::MAX] {
            let body = format!(r#"{{"model":{},"max_tokens":{used}}}"#, Value::from(model));
            let mut call = proxy.served(id, &body, used, used);
            call.end();
            proxy.pass_millis(1 << (input.choice % 40));
        }
        if let Some(record) = proxy.try_record(id) {
            let held = record.account.held();
            assert_eq!((held.tokens.0, held.usd.0), (0, 0));
        }
    }
}
