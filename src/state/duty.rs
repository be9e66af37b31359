//! Which VM of a process does what only one VM should do (a duty): that VM has a term in shared data, taken by compare-and-swap.
//!
//! Each worker has a VM, and so has the proxy's main thread, which serves no requests. A VM cannot know whether it is the main thread's.
//! But a VM that has served no request yet takes the duty from one that has, so the duty moves to the main thread, where it delays no
//! request.

use std::time::Duration;

use crate::base::bytes::{Corrupt, Input};
use crate::base::units::Timestamp;
use crate::state::store::{Store, Write, update};

/// The key of the terms of all configurations. They share one value, because keys cannot be deleted, and configurations come and go.
const KEY: &str = "bursar/v1/duty";

/// How long a VM keeps a duty without renewing its term.
pub const TERM: Duration = Duration::from_secs(3);

/// How old a term gets before it is renewed.
const RENEWED: Duration = Duration::from_secs(1);

/// Most duties that are stored; a further one waits until a term has ended.
const MOST: usize = 16;

/// Lost races after which a VM gives up for now.
const TRIES: u32 = 2;

/// A duty, and a VM that may have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duty {
    /// What is to be done: a hash of the configuration.
    pub what: u64,
    /// The VM that has the duty: a number that no other VM has.
    pub who: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Term {
    duty: Duty,
    end: Timestamp,
    /// Whether the VM serves requests; if so, a VM that serves none may take the duty over.
    serves: bool,
}

impl Duty {
    /// Whether this VM has the duty now; it takes the duty if no VM has it. To be called at least once a second.
    pub fn is_ours(self, store: &impl Store, serves: bool, now: Timestamp) -> bool {
        let own = Term {
            duty: self,
            end: now.plus(TERM),
            serves,
        };
        let step = |bytes: Option<&[u8]>| {
            let mut terms = bytes.map_or_else(Vec::new, |bytes| decode(bytes).unwrap_or_default());
            // A term that ends later than a new one could was written before the clock was set back.
            terms.retain(|term| now < term.end && term.end.since(now) <= TERM.saturating_mul(2));
            let current = terms.iter().find(|term| term.duty.what == self.what);
            let (is_ours, writes) = match current {
                None => {
                    let fits = terms.len() < MOST;
                    (fits, fits)
                }
                Some(term) if term.duty == self => {
                    let is_old = term.end.since(now) < TERM.saturating_sub(RENEWED);
                    (true, is_old || term.serves != serves)
                }
                Some(term) => {
                    let takes = term.serves && !serves;
                    (takes, takes)
                }
            };
            if writes {
                terms.retain(|term| term.duty.what != self.what);
                terms.push(own);
            }
            Write {
                value: writes.then(|| encode(&terms)),
                report: is_ours,
            }
        };
        update(store, KEY, TRIES, step).is_ok_and(|updated| updated.report)
    }

    /// Ends this VM's term, so that another VM need not wait for its end.
    pub fn lay_down(self, store: &impl Store) {
        let step = |bytes: Option<&[u8]>| {
            let mut terms = bytes.map_or_else(Vec::new, |bytes| decode(bytes).unwrap_or_default());
            let before = terms.len();
            terms.retain(|term| term.duty != self);
            Write {
                value: (terms.len() < before).then(|| encode(&terms)),
                report: (),
            }
        };
        // If all races are lost, the term ends by itself.
        drop(update(store, KEY, TRIES, step));
    }
}

fn encode(terms: &[Term]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(terms.len().saturating_mul(25).saturating_add(1));
    bytes.push(u8::try_from(terms.len().min(MOST)).unwrap_or_default());
    for term in terms.iter().take(MOST) {
        for number in [term.duty.what, term.duty.who, term.end.as_nanos()] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.push(term.serves.into());
    }
    bytes
}

fn decode(bytes: &[u8]) -> Result<Vec<Term>, Corrupt> {
    let mut input = Input(bytes);
    let terms = input.list(MOST, |input| {
        let duty = Duty {
            what: input.u64()?,
            who: input.u64()?,
        };
        let end = input.time()?;
        let [serves] = input.take()?;
        Ok(Term {
            duty,
            end,
            serves: serves != 0,
        })
    })?;
    input.end()?;
    Ok(terms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::store::fake::FakeStore;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn vm(who: u64) -> Duty {
        Duty { what: 7, who }
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_secs(1_709_208_000).plus(Duration::from_millis(millis))
    }

    #[test]
    fn one_has_it_until_it_is_silent_for_a_term() {
        let store = FakeStore::default();
        assert!(vm(1).is_ours(&store, false, at(0)));
        assert!(!vm(2).is_ours(&store, false, at(100)));
        assert!(vm(1).is_ours(&store, false, at(2_500)));
        assert!(!vm(2).is_ours(&store, false, at(5_000)));
        assert!(vm(2).is_ours(&store, false, at(5_500)));
        assert!(!vm(1).is_ours(&store, false, at(5_600)));
    }

    #[test]
    fn who_serves_nobody_takes_it_from_one_that_serves_and_not_the_other_way() {
        let store = FakeStore::default();
        assert!(vm(1).is_ours(&store, true, at(0)));
        assert!(!vm(2).is_ours(&store, true, at(1)));
        assert!(vm(3).is_ours(&store, false, at(2)));
        assert!(!vm(1).is_ours(&store, true, at(3)));
        assert!(!vm(4).is_ours(&store, false, at(4)));
    }

    #[test]
    fn another_configuration_is_another_duty_and_as_many_are_kept_as_fit() {
        let store = FakeStore::default();
        let other = |what| Duty { what, who: 1 };
        for what in 0..16 {
            assert!(other(what).is_ours(&store, false, at(0)));
        }
        assert!(!other(16).is_ours(&store, false, at(0)));
        other(3).lay_down(&store);
        assert!(other(16).is_ours(&store, false, at(0)));
        assert!(!Duty { what: 0, who: 2 }.is_ours(&store, false, at(0)));
    }

    #[test]
    fn of_two_that_take_it_at_once_one_has_it() {
        let store = std::rc::Rc::new(FakeStore::default());
        let other = std::rc::Rc::clone(&store);
        store.intrude(move || assert!(vm(2).is_ours(&*other, false, at(0))));
        assert!(!vm(1).is_ours(&*store, false, at(0)));
        assert!(vm(2).is_ours(&*store, false, at(0)));
    }

    #[test]
    fn it_is_written_only_now_and_then() {
        let store = FakeStore::default();
        let mut writes = 0;
        for tick in 0..50 {
            let before = store.value(KEY);
            assert!(vm(1).is_ours(&store, false, at(tick * 200)));
            writes += u64::from(store.value(KEY) != before);
        }
        assert!(writes < 10, "{writes}");
    }

    #[test]
    fn neither_noise_nor_a_clock_that_was_set_back_keeps_it_from_all() {
        let store = FakeStore::default();
        store.plant(KEY, b"foreign");
        assert!(vm(1).is_ours(&store, false, at(3_600_000)));
        assert!(vm(2).is_ours(&store, false, at(0)));
    }
}
