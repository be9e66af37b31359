//! The arithmetic of a capacity that tenants share: what each priority can count on, whatever the others do.

use std::num::NonZeroU64;

use bursar::base::units::Timestamp;
use bursar::lease::quota::Quota;
use bursar::limits::bucket::NotNow;
use bursar::limits::capacity::{Capacity, Priority, Taken};
use proptest::prelude::*;

pub(crate) const PRIORITIES: [Priority; 3] =
    [Priority::BestEffort, Priority::Standard, Priority::Critical];

/// What may happen to a capacity.
#[derive(Clone, Copy, Debug)]
enum Happening {
    /// Somebody asks for so many cells.
    Ask(Priority, u64),
    /// Somebody takes them without asking, as a tenant in shadow mode does.
    Charge(Priority, u64),
    /// The request at this place of those in flight used this share of what it took, in percent.
    Settle(usize, u64),
    /// Nanoseconds pass.
    Pass(u64),
}

pub(crate) fn any_priority() -> impl Strategy<Value = Priority> {
    prop::sample::select(&PRIORITIES[..])
}

fn any_happening() -> impl Strategy<Value = Happening> {
    let share = prop_oneof![Just(0), Just(100), 0..=100_u64, 100..1_000_u64];
    prop_oneof![
        4 => (any_priority(), 0..60_u64).prop_map(|(priority, cells)| Happening::Ask(priority, cells)),
        1 => (any_priority(), 0..60_u64).prop_map(|(priority, cells)| Happening::Charge(priority, cells)),
        3 => (any::<usize>(), share).prop_map(|(at, share)| Happening::Settle(at, share)),
        2 => prop_oneof![0..5_u64, 0..2_000_000_000_u64].prop_map(Happening::Pass),
    ]
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    prop::collection::vec(any_happening(), 1..80)
}

/// With more and with less than a cell a nanosecond, and parts from nothing to nearly all.
fn any_capacity() -> impl Strategy<Value = Capacity> {
    let tokens = prop_oneof![1..50_u64, Just(3_000_000_000)];
    let window = prop_oneof![1..1_000_u64, Just(1_000_000_000)];
    (tokens, window, 1..100_u64, 0..100_u64, 0..100_u64).prop_map(
        |(tokens, window, burst, critical, standard)| {
            let critical = critical * (burst - 1) / 100;
            capacity(
                tokens,
                window,
                burst,
                critical,
                standard * (burst - critical - 1) / 100,
            )
        },
    )
}

pub(crate) fn capacity(
    tokens: u64,
    window: u64,
    burst: u64,
    critical: u64,
    standard: u64,
) -> Capacity {
    let whole = |number| NonZeroU64::new(number).unwrap();
    Capacity {
        quota: Quota {
            tokens_per_window: whole(tokens),
            window: whole(window),
            burst: whole(burst),
            low_water_mark: None,
            share: None,
        },
        critical,
        standard,
    }
}

/// A request in flight: its priority, what it holds, and since when.
type Flight = Vec<(Priority, u64, Timestamp)>;

/// A capacity under way.
pub(crate) struct Run {
    capacity: Capacity,
    taken: Taken,
    flight: Flight,
    pub(crate) now: u64,
}

const START: u64 = 1_000_000;

impl Run {
    pub(crate) fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            taken: Taken::default(),
            flight: Vec::new(),
            now: START,
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.now)
    }

    pub(crate) fn check(&self, priority: Priority, cells: u64) -> Result<(), NotNow> {
        self.capacity.check(self.taken, priority, cells, self.now())
    }

    fn available(&self, priority: Priority) -> u64 {
        self.capacity.available(self.taken, priority, self.now())
    }

    pub(crate) fn charge(&mut self, priority: Priority, cells: u64) {
        self.taken = self
            .capacity
            .charge(self.taken, priority, cells, self.now());
        self.flight.push((priority, cells, self.now()));
    }

    /// The request that ends, and what it used.
    fn settle(&mut self, at: usize, share: u64) -> Option<(Priority, u64, u64)> {
        let at = at.checked_rem(self.flight.len())?;
        let (priority, held, since) = self.flight.swap_remove(at);
        let used = held * share / 100;
        self.taken = self
            .capacity
            .settle(self.taken, priority, held, used, since, self.now());
        Some((
            priority,
            held,
            used.min(self.capacity.quota.burst.get().max(held)),
        ))
    }
}

proptest! {
    #[test]
    fn a_priority_and_those_above_it_have_a_bucket_of_their_own_whatever_the_others_do(
        capacity in any_capacity(), happenings in happenings(), least in prop::sample::select(&PRIORITIES[1..]),
    ) {
        let below = if least == Priority::Critical { Priority::Standard } else { Priority::BestEffort };
        let Some(burst) = NonZeroU64::new(capacity.kept_from(below)) else { return Ok(()) };
        let mut all = Run::new(capacity);
        // Their own bucket, with nobody else in it, and to which no settlement ever gives anything back.
        let mut own = Run::new(Capacity {
            quota: Quota { burst, ..capacity.quota },
            standard: 0,
            ..capacity
        });
        for happening in happenings {
            match happening {
                Happening::Ask(priority, cells) => {
                    let answer = all.check(priority, cells);
                    if priority >= least {
                        // Fits there: fits here.
                        prop_assert!(answer.is_ok() || own.check(priority, cells).is_err(), "{priority:?} {cells} {answer:?}");
                    }
                    if answer.is_ok() {
                        all.charge(priority, cells);
                        if priority >= least {
                            own.charge(priority, cells);
                        }
                    }
                }
                Happening::Charge(priority, cells) => {
                    all.charge(priority, cells);
                    if priority >= least {
                        own.charge(priority, cells);
                    }
                }
                Happening::Settle(at, share) => {
                    if let Some((priority, held, used)) = all.settle(at, share) && priority >= least {
                        own.charge(priority, used.saturating_sub(held));
                    }
                }
                Happening::Pass(nanos) => {
                    all.now += nanos;
                    own.now += nanos;
                }
            }
        }
    }

    #[test]
    fn who_asks_never_takes_of_the_part_above_it(capacity in any_capacity(), happenings in happenings()) {
        let mut run = Run::new(capacity);
        for happening in happenings {
            let before = run.available(Priority::Critical);
            match happening {
                Happening::Ask(priority, cells) => {
                    if run.check(priority, cells).is_ok() {
                        run.charge(priority, cells);
                        prop_assert_eq!(run.available(Priority::Critical), before - cells);
                        prop_assert!(run.available(Priority::Critical) >= capacity.kept_from(priority));
                    }
                }
                // Nor does who does not ask, nor who uses more than it took.
                Happening::Charge(priority, cells) => {
                    run.charge(priority, cells);
                    prop_assert!(run.available(Priority::Critical) >= before.min(capacity.kept_from(priority)));
                }
                Happening::Settle(at, share) => {
                    if let Some((priority, ..)) = run.settle(at, share) {
                        prop_assert!(run.available(Priority::Critical) >= before.min(capacity.kept_from(priority)));
                    }
                }
                Happening::Pass(nanos) => {
                    run.now += nanos;
                    prop_assert!(run.available(Priority::Critical) >= before);
                }
            }
            let [best_effort, standard, critical] = PRIORITIES.map(|priority| run.available(priority));
            prop_assert!(best_effort <= standard && standard <= critical);
        }
    }

    #[test]
    fn a_refusal_ends_exactly_when_it_says(
        capacity in any_capacity(), happenings in happenings(), priority in any_priority(), cells in 0..110_u64,
    ) {
        let mut run = Run::new(capacity);
        for happening in happenings {
            match happening {
                Happening::Ask(priority, cells) | Happening::Charge(priority, cells) => run.charge(priority, cells),
                Happening::Settle(at, share) => drop(run.settle(at, share)),
                Happening::Pass(nanos) => run.now += nanos,
            }
        }
        match run.check(priority, cells) {
            Ok(()) => prop_assert!(cells <= run.available(priority)),
            Err(NotNow::ExceedsBurst) => prop_assert!(cells > capacity.share(priority)),
            Err(NotNow::Wait(wait)) => {
                prop_assert!(cells <= capacity.share(priority));
                run.now += u64::try_from(wait.as_nanos()).unwrap() - 1;
                prop_assert!(run.check(priority, cells).is_err());
                run.now += 1;
                prop_assert_eq!(run.check(priority, cells), Ok(()));
            }
        }
    }

    #[test]
    fn what_is_taken_less_what_is_settled_is_what_is_held(capacity in any_capacity(), happenings in happenings()) {
        let mut run = Run::new(capacity);
        let mut used = 0;
        for happening in happenings {
            match happening {
                Happening::Ask(priority, cells) | Happening::Charge(priority, cells) => run.charge(priority, cells),
                Happening::Settle(at, share) => used += run.settle(at, share).map_or(0, |(.., used)| used),
                // Nothing comes back by itself.
                Happening::Pass(_) => {}
            }
        }
        let held: u64 = run.flight.iter().map(|(_, held, _)| held).sum();
        let bytes = run.taken.encode();
        prop_assert_eq!(u64::from_le_bytes(bytes[4..12].try_into().unwrap()), held + used);
        prop_assert_eq!(Taken::decode(&bytes), Ok(run.taken));
    }

    #[test]
    fn all_together_get_no_more_than_the_burst_and_what_came_back(capacity in any_capacity(), happenings in happenings()) {
        let mut run = Run::new(capacity);
        let mut given = 0_u128;
        for happening in happenings {
            match happening {
                Happening::Ask(priority, cells) | Happening::Charge(priority, cells) => {
                    if run.check(priority, cells).is_ok() {
                        run.charge(priority, cells);
                        given += u128::from(cells);
                    }
                }
                // Estimates that hold: what is settled is no more than what was taken.
                Happening::Settle(at, share) => {
                    if let Some((_, held, used)) = run.settle(at, share.min(100)) {
                        given -= u128::from(held - used);
                    }
                }
                Happening::Pass(nanos) => run.now += nanos,
            }
            let time = u128::from(run.now - START);
            let back = time * u128::from(capacity.quota.tokens_per_window.get()) / u128::from(capacity.quota.window.get());
            prop_assert!(given <= u128::from(capacity.quota.burst.get()) + back);
        }
    }
}

proptest! {
    // A value under our key may be older, cut off, or another plugin's.
    #[test]
    fn what_is_taken_is_read_as_it_was_written_or_not_at_all(bytes in prop::collection::vec(any::<u8>(), 36..44), cut in any::<bool>()) {
        let bytes = if cut { bytes } else { [b"brc\x01".as_slice(), &bytes].concat() };
        if let Ok(taken) = Taken::decode(&bytes) {
            prop_assert_eq!(taken.encode(), bytes.clone());
        }
        prop_assert_eq!(Taken::decode(&bytes).is_ok(), bytes.len() == 44 && bytes.starts_with(b"brc\x01"));
    }
}
