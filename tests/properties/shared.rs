//! What the upstream is paid is never more than one budget across proxies, whatever is lost, late or doubled, whoever crashes.

use proptest::prelude::*;

use crate::world::{PROXIES, World, any_happening, run};

proptest! {
    #[test]
    fn the_upstream_is_never_paid_more_than_the_budget(
        budget in 200..1_500_u64, happenings in prop::collection::vec(any_happening(), 1..250),
    ) {
        let mut world = World::new(budget, "deny");
        for happening in &happenings {
            world.happens(happening);
            world.check(|_| world.largest + world.largest_raise)?;
            world.check_slices()?;
        }
    }

    #[test]
    fn on_credit_it_is_paid_no_more_than_the_first_requests_beyond(
        budget in 200..1_500_u64, happenings in prop::collection::vec(any_happening(), 1..250),
    ) {
        let mut world = World::new(budget, "credit");
        for happening in &happenings {
            world.happens(happening);
            world.check(|charged| {
                let credit = world.credit.get(&charged).copied().unwrap_or_default();
                world.largest + world.largest_raise + credit
            })?;
        }
    }
}

// Nothing is lost: all of the budget can be spent, and nobody is kept waiting by a neighbour that is idle.
#[test]
fn where_nothing_is_lost_all_of_the_budget_is_spent() {
    let mut world = World::new(10_000, "deny");
    // Each request is of 100 tokens.
    let body = r#"{"model":"m","max_tokens":60}"#.len();
    let output = 100 - u64::try_from(body).unwrap();
    let served = run(&mut world, 80, output);
    assert!((99..=100).contains(&served), "{served}");
    let paid: u64 = world.paid.values().sum();
    assert_eq!(paid, u64::try_from(served).unwrap() * 100);
}

// A month has one budget, whatever becomes of the processes.
#[test]
fn a_proxy_that_is_started_again_finds_what_was_spent() {
    let mut world = World::new(2_000, "deny");
    let served = run(&mut world, 6, 71);
    // The first one of each proxy found nothing.
    assert_eq!(served, 9);
    (0..PROXIES).for_each(|at| world.crash(at));
    let more = run(&mut world, 30, 71);
    assert!(served + more <= 20, "{served} and {more}");
    assert!(more >= 4, "{more}");
}
