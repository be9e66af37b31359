//! Budgets: whatever happens to a tenant's requests, none is overspent and nothing stays held.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::proxy::{Call, Proxy, usage};

/// What may happen to a tenant's requests, in any order.
#[derive(Clone, Debug)]
enum Happening {
    /// A request that may produce so many tokens.
    Ask(u64),
    /// The request at this place of those in flight is answered: with this share of what it may use, in percent.
    Answer(usize, u64),
    /// It fails upstream.
    Fail(usize),
    /// Its client leaves.
    Leave(usize),
    /// The worker that serves it traps: nobody settles it.
    Trap(usize),
    /// So many of the next writes lose their race.
    Lose(u32),
    /// Time passes, in milliseconds.
    Pass(u64),
    /// The budget is now so many tokens.
    Limit(u64),
}

fn any_happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (0..400_u64).prop_map(Happening::Ask),
        4 => (any::<usize>(), 0..=100_u64).prop_map(|(at, share)| Happening::Answer(at, share)),
        1 => any::<usize>().prop_map(Happening::Fail),
        1 => any::<usize>().prop_map(Happening::Leave),
        1 => any::<usize>().prop_map(Happening::Trap),
        1 => (0..12_u32).prop_map(Happening::Lose),
        1 => prop_oneof![0..7_200_000_u64, EXPIRY - 60_000..EXPIRY + 1].prop_map(Happening::Pass),
        1 => (1..4_000_u64).prop_map(Happening::Limit),
    ]
}

/// Of a reservation, in milliseconds. It may expire up to a thirtieth earlier.
const EXPIRY: u64 = 1_800_000;

fn budget(tokens: u64) -> Value {
    json!({
        "hold_headers": true,
        "reservation_expiry": format!("{}s", EXPIRY / 1_000),
        "tenants": {"acme": {"budget": {"initial_budget": tokens, "window": "3h"}}}
    })
}

proptest! {
    // Requests at a time, leaks, slow answers, changed limits, windows that end and upstreams that fail, in
    // any order.
    #[test]
    fn an_honest_upstream_never_overspends_and_all_that_is_held_is_returned_or_expires(
        happenings in prop::collection::vec(any_happening(), 1..80),
    ) {
        let proxy = Proxy::new(&budget(1_000));
        // The largest budget that was ever in force in the window.
        let mut most = 1_000;
        // What requests used that were answered after their reservation had expired: the one way past the bound.
        let mut late = 0;
        let mut flight: Vec<(Call<'_>, u64, u64)> = Vec::new();
        let mut clock = 0;
        for happening in happenings {
            match happening {
                Happening::Ask(output) => {
                    let call = proxy.chat("acme", &format!(r#"{{"model":"m","max_tokens":{output}}}"#));
                    if call.reply.is_none() {
                        flight.push((call, output, clock));
                    }
                }
                Happening::Answer(at, share) if !flight.is_empty() => {
                    let (mut call, output, since) = flight.swap_remove(at % flight.len());
                    let output = output * share / 100;
                    if clock - since >= EXPIRY / 30 * 29 {
                        late += 20 + output;
                    }
                    call.answer_json(&usage(20, output));
                    call.end();
                }
                Happening::Fail(at) if !flight.is_empty() => {
                    let (mut call, ..) = flight.swap_remove(at % flight.len());
                    call.answer_headers("503", &[]);
                    call.end();
                }
                Happening::Leave(at) if !flight.is_empty() => {
                    let (mut call, _, since) = flight.swap_remove(at % flight.len());
                    if clock - since >= EXPIRY / 30 * 29 {
                        late += 20;
                    }
                    call.end();
                }
                Happening::Trap(at) if !flight.is_empty() => drop(flight.swap_remove(at % flight.len())),
                Happening::Lose(times) => proxy.store.lose(times),
                Happening::Pass(millis) => {
                    clock += millis;
                    proxy.pass_millis(millis);
                }
                Happening::Limit(tokens) => {
                    proxy.configure(&budget(tokens));
                    most = most.max(tokens);
                }
                Happening::Answer(..) | Happening::Fail(_) | Happening::Leave(_) | Happening::Trap(_) => {}
            }
            if let Some(record) = proxy.try_record("acme") {
                prop_assert!(record.account.spent.tokens.0 <= most + late);
            }
        }
        for (mut call, ..) in flight {
            call.end();
        }
        proxy.store.lose(0);
        proxy.pass_millis(EXPIRY);
        // Whoever comes next finds nothing held for those whose worker trapped.
        proxy.configure(&budget(1_000_000));
        proxy.served("acme", r#"{"model":"m","max_tokens":1}"#, 1, 1);
        prop_assert_eq!(proxy.record("acme").account.held().tokens.0, 0);
    }
}

/// Of a window, in milliseconds.
const WINDOW: u64 = 10_800_000;

/// Mostly large requests that use what they may, and windows that end.
fn any_large() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => (100..900_u64).prop_map(Happening::Ask),
        4 => (any::<usize>(), 90..=100_u64).prop_map(|(at, share)| Happening::Answer(at, share)),
        1 => any::<usize>().prop_map(Happening::Fail),
        1 => (0..EXPIRY / 3).prop_map(Happening::Pass),
    ]
}

proptest! {
    // What is in flight over a window's end is used in the one that it was reserved in: it is not left for the next one.
    #[test]
    fn several_windows_together_are_not_overspent_whatever_is_carried_over(
        happenings in prop::collection::vec(any_large(), 1..60),
        rollover in prop_oneof![Just(0.1), Just(0.5), Just(1.0)],
    ) {
        let mut config = budget(1_000);
        config["tenants"]["acme"]["budget"]["rollover"] = rollover.into();
        let proxy = Proxy::new(&config);
        let mut flight: Vec<(Call<'_>, u64, u64)> = Vec::new();
        let (mut clock, mut used, mut late) = (0, 0, 0);
        for happening in happenings {
            match happening {
                Happening::Ask(output) => {
                    let call = proxy.chat("acme", &format!(r#"{{"model":"m","max_tokens":{output}}}"#));
                    if call.reply.is_none() {
                        flight.push((call, output, clock));
                    }
                }
                Happening::Answer(at, share) if !flight.is_empty() => {
                    let (mut call, output, since) = flight.swap_remove(at % flight.len());
                    let output = output * share / 100;
                    used += 20 + output;
                    if clock - since >= EXPIRY / 30 * 29 {
                        late += 20 + output;
                    }
                    call.answer_json(&usage(20, output));
                    call.end();
                }
                Happening::Fail(at) if !flight.is_empty() => {
                    let (mut call, ..) = flight.swap_remove(at % flight.len());
                    call.answer_headers("503", &[]);
                    call.end();
                }
                // To just about a window's end, or further.
                Happening::Pass(millis) => {
                    let left = WINDOW - clock % WINDOW;
                    let millis = if millis % 2 == 0 { millis } else { left - 1 + millis % 3 };
                    clock += millis;
                    proxy.pass_millis(millis);
                }
                _ => {}
            }
            let windows = 1 + clock / WINDOW;
            prop_assert!(used <= windows * 1_000 + late, "{} in {} windows", used, windows);
        }
    }
}
