//! A rename under way: workers that know the tenant by its old name, by its new one, or by both in turn, with requests in flight. One
//! budget, of which nothing is spent twice and nothing is lost.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::proxy::{Call, Proxy, usage};

#[derive(Clone, Debug)]
enum Happening {
    /// A worker that knows the new name, or only the old one, is asked for an answer of so many tokens.
    Ask(bool, u64),
    /// The request at this place of those in flight is answered: with this share of what it may use, in percent.
    Answer(usize, u64),
    /// So many of the next writes lose their race.
    Lose(u32),
    /// Before the next write another worker, that knows the one or the other name, serves a request that uses so many tokens.
    Intrude(bool, u64),
}

fn any_happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (any::<bool>(), 0..200_u64).prop_map(|(new, output)| Happening::Ask(new, output)),
        4 => (any::<usize>(), 0..=100_u64).prop_map(|(at, share)| Happening::Answer(at, share)),
        1 => (0..12_u32).prop_map(Happening::Lose),
        2 => (any::<bool>(), 1..100_u64).prop_map(|(new, used)| Happening::Intrude(new, used)),
    ]
}

const BUDGET: u64 = 1_500;

fn config(is_new: bool) -> (Value, &'static str) {
    let mut own = json!({"budget": {"initial_budget": BUDGET, "window": "day"}});
    let name = match is_new {
        true => "apex",
        false => "acme",
    };
    if is_new {
        own["was"] = "acme".into();
    }
    (json!({"hold_headers": true, "tenants": {name: own}}), name)
}

fn ask(proxy: &Proxy, is_new: bool, output: u64) -> Option<Call<'_>> {
    let (config, name) = config(is_new);
    proxy.configure(&config);
    let call = proxy.chat(name, &format!(r#"{{"model":"m","max_tokens":{output}}}"#));
    call.reply.is_none().then_some(call)
}

proptest! {
    #[test]
    fn a_rename_counts_nothing_twice_and_loses_nothing(
        happenings in prop::collection::vec(any_happening(), 1..60),
    ) {
        let proxy = std::rc::Rc::new(Proxy::new(&config(false).0));
        let by_others = std::rc::Rc::new(std::cell::Cell::new(0));
        let (mut flight, mut used) = (Vec::new(), 0);
        for happening in happenings {
            match happening {
                Happening::Ask(is_new, output) => {
                    flight.extend(ask(&proxy, is_new, output).map(|call| (call, output)));
                }
                Happening::Answer(at, share) if !flight.is_empty() => {
                    let (mut call, output) = flight.swap_remove(at % flight.len());
                    let output = output * share / 100;
                    used += 20 + output;
                    call.answer_json(&usage(20, output));
                    call.end();
                }
                Happening::Lose(times) => proxy.store.lose(times),
                Happening::Intrude(is_new, tokens) => {
                    let (other, by_others) = (proxy.clone(), by_others.clone());
                    proxy.store.intrude(move || {
                        if let Some(mut call) = ask(&other, is_new, tokens) {
                            by_others.set(by_others.get() + tokens);
                            call.answer_json(&usage(tokens, 0));
                            call.end();
                        }
                    });
                }
                Happening::Answer(..) => {}
            }
        }
        proxy.store.calm();
        proxy.store.lose(0);
        for (mut call, output) in flight {
            used += 20 + output;
            call.answer_json(&usage(20, output));
            call.end();
        }
        let account = proxy.try_record("acme").map(|record| record.account).unwrap_or_default();
        prop_assert_eq!(account.spent.tokens.0, used + by_others.get());
        prop_assert_eq!(account.held().tokens.0, 0);
        prop_assert!(account.spent.tokens.0 <= BUDGET);
        prop_assert!(proxy.try_record("apex").is_none());
    }
}
