//! What operators change of one budget across proxies: raises, resets, budgets that they set.

use crate::proxy::Call;
use crate::world::{Happening, Hashes, World, run};

fn small(output: u64) -> u64 {
    let body = format!(r#"{{"model":"m","max_tokens":{output}}}"#).len();
    u64::try_from(body).unwrap() + output
}

fn paid(world: &World) -> u64 {
    world.paid.values().sum()
}

// A raise is in force with the next lines, for everybody together and not for each; when it has ended nothing is granted any more.
#[test]
fn what_an_operator_adds_is_spent_as_well_and_not_more() {
    let mut world = World::new(2_000, "deny");
    assert_eq!(small(71), 100);
    run(&mut world, 40, 71);
    let before = paid(&world);
    assert!((1_900..=2_000).contains(&before), "{before}");
    world.happens(&Happening::Raise(1_000, 60_000));
    run(&mut world, 40, 71);
    let after = paid(&world);
    assert!((2_900..=3_000).contains(&after), "{after}");
    world.happens(&Happening::Raise(2_000, 1_000));
    world.happens(&Happening::Pass(1_000));
    run(&mut world, 10, 71);
    assert!(paid(&world) <= 3_000, "{}", paid(&world));
}

// Who was told long ago that all is spent asks again before saying so.
#[test]
fn after_a_raise_the_first_request_of_an_idle_tenant_is_told_to_come_back_in_a_moment() {
    let mut world = World::new(1_000, "deny");
    run(&mut world, 30, 71);
    world.happens(&Happening::Pass(20_000));
    let call = |world: &World| world.proxies[0].chat("acme", r#"{"model":"m","max_tokens":71}"#);
    let reason = |call: &Call<'_>| call.refused().map(|(_, reason)| reason.to_owned());
    assert_eq!(reason(&call(&world)).as_deref(), Some("budget_pending"));
    run(&mut world, 1, 71);
    assert_eq!(reason(&call(&world)).as_deref(), Some("budget_exhausted"));
    world.happens(&Happening::Raise(1_000, 0));
    world.happens(&Happening::Pass(20_000));
    assert_eq!(reason(&call(&world)).as_deref(), Some("budget_pending"));
    assert!(run(&mut world, 3, 71) > 0);
}

// All have all of it again; what was under way stays what it was charged on.
#[test]
fn after_a_reset_all_of_the_budget_is_there_once_more() {
    let mut world = World::new(2_000, "deny");
    run(&mut world, 40, 71);
    assert!((1_900..=2_000).contains(&paid(&world)), "{}", paid(&world));
    world.happens(&Happening::Reset);
    run(&mut world, 60, 71);
    let all: Vec<_> = world.paid.values().copied().collect();
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(
        all.iter().all(|paid| (1_900..=2_000).contains(paid)),
        "{all:?}"
    );
    // A process that starts now finds both.
    world.crash(0);
    assert!(run(&mut world, 9, 71) <= 1);
}

// Who knows of a reset tells a store that has lost its data.
#[test]
fn a_store_that_lost_its_data_hears_of_the_generation_again() {
    let mut world = World::new(2_000, "deny");
    world.happens(&Happening::Reset);
    run(&mut world, 9, 71);
    let generation = world.changes().generation;
    world.hashes = Hashes::default();
    run(&mut world, 3, 71);
    assert_eq!(world.changes().generation, generation);
}

// Less than is spent: nothing more is granted. More: that much, for all together.
#[test]
fn a_budget_that_an_operator_sets_is_the_one_that_counts() {
    let mut world = World::new(2_000, "deny");
    world.happens(&Happening::Set(1_000));
    run(&mut world, 40, 71);
    assert!((900..=1_000).contains(&paid(&world)), "{}", paid(&world));
    world.happens(&Happening::Set(500));
    run(&mut world, 10, 71);
    assert!(paid(&world) <= 1_000, "{}", paid(&world));
    world.happens(&Happening::Set(3_000));
    run(&mut world, 60, 71);
    assert!((2_900..=3_000).contains(&paid(&world)), "{}", paid(&world));
}
