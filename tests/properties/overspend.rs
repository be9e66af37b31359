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

/// Requests in flight: each with the tokens that it may produce, and when it was admitted.
#[derive(Default)]
struct Flight<'a>(Vec<(Call<'a>, u64, u64)>);

/// What a request used; and that once more, if its reservation had expired before.
#[derive(Default)]
struct Answered {
    used: u64,
    late: u64,
}

impl<'a> Flight<'a> {
    fn ask(&mut self, proxy: &'a Proxy, output: u64, clock: u64) {
        let call = proxy.chat("acme", &format!(r#"{{"model":"m","max_tokens":{output}}}"#));
        if call.reply.is_none() {
            self.0.push((call, output, clock));
        }
    }

    fn take(&mut self, at: usize) -> Option<(Call<'a>, u64, u64)> {
        let at = at.checked_rem(self.0.len())?;
        Some(self.0.swap_remove(at))
    }

    fn answer(&mut self, at: usize, share: u64, clock: u64) -> Answered {
        let Some((mut call, output, since)) = self.take(at) else {
            return Answered::default();
        };
        let output = output * share / 100;
        call.answer_json(&usage(20, output));
        call.end();
        let used = 20 + output;
        let late = if is_late(since, clock) { used } else { 0 };
        Answered { used, late }
    }

    fn fail(&mut self, at: usize) {
        if let Some((mut call, ..)) = self.take(at) {
            call.answer_headers("503", &[]);
            call.end();
        }
    }
}

/// Whether a reservation may have expired.
fn is_late(since: u64, clock: u64) -> bool {
    clock - since >= EXPIRY / 30 * 29
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
        let mut flight = Flight::default();
        let mut clock = 0;
        for happening in happenings {
            match happening {
                Happening::Ask(output) => {
                    flight.ask(&proxy, output, clock);
                }
                Happening::Answer(at, share) => late += flight.answer(at, share, clock).late,
                Happening::Fail(at) => flight.fail(at),
                Happening::Leave(at) => {
                    if let Some((mut call, _, since)) = flight.take(at) {
                        late += if is_late(since, clock) { 20 } else { 0 };
                        call.end();
                    }
                }
                Happening::Trap(at) => drop(flight.take(at)),
                Happening::Lose(times) => proxy.store.lose(times),
                Happening::Pass(millis) => {
                    clock += millis;
                    proxy.pass_millis(millis);
                }
                Happening::Limit(tokens) => {
                    proxy.configure(&budget(tokens));
                    most = most.max(tokens);
                }
            }
            if let Some(record) = proxy.try_record("acme") {
                prop_assert!(record.account.spent.tokens.0 <= most + late);
            }
        }
        for (mut call, ..) in flight.0 {
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
        let mut flight = Flight::default();
        let (mut clock, mut used, mut late) = (0, 0, 0);
        for happening in happenings {
            match happening {
                Happening::Ask(output) => {
                    flight.ask(&proxy, output, clock);
                }
                Happening::Answer(at, share) => {
                    let answered = flight.answer(at, share, clock);
                    used += answered.used;
                    late += answered.late;
                }
                Happening::Fail(at) => flight.fail(at),
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
