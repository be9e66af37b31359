//! Counters that are added up here and reported to the proxy from time to time: one call for each counter that changed, not one for each
//! change.

use std::collections::HashMap;

use crate::base::name::NameHashing;
use crate::published::metric::Series;

/// The counters. Their number is bounded, as that of the series is.
#[derive(Debug, Default)]
pub struct Tally {
    /// The index of each series in `counters`.
    places: HashMap<Series, usize, NameHashing>,
    counters: Vec<Counter>,
    /// Indices of the counters with something to report, in the order in which they were first counted.
    due: Vec<usize>,
}

#[derive(Debug)]
struct Counter {
    series: Series,
    /// The proxy's id of the metric, once it is defined there.
    id: Option<u32>,
    /// What was not yet reported to the proxy.
    by: u64,
    is_due: bool,
}

impl Tally {
    /// Adds to a counter. A counter to which only zero was added exists nevertheless.
    pub fn add(&mut self, series: &Series, by: u64) {
        let place = match self.places.get(series) {
            Some(place) => *place,
            None => {
                let place = self.counters.len();
                self.places.insert(series.clone(), place);
                self.counters.push(Counter {
                    series: series.clone(),
                    id: None,
                    by: 0,
                    is_due: false,
                });
                place
            }
        };
        let Some(counter) = self.counters.get_mut(place) else {
            return;
        };
        counter.by = counter.by.saturating_add(by);
        let is_new = counter.id.is_none() || by > 0;
        if is_new && !std::mem::replace(&mut counter.is_due, true) {
            self.due.push(place);
        }
    }

    /// The series at an index, in the order in which they were first counted.
    #[must_use]
    pub fn series(&self, place: usize) -> Option<&Series> {
        self.counters.get(place).map(|counter| &counter.series)
    }

    /// Reports to the proxy what was counted since the last report, the first count last: whoever sees that count also sees all that followed
    /// from it. `define` gives the id of a new series, and `add` counts there; as long as a series has no id, its count stays due.
    pub fn tell(
        &mut self,
        mut define: impl FnMut(&Series) -> Option<u32>,
        mut add: impl FnMut(u32, u64),
    ) {
        for place in std::mem::take(&mut self.due).into_iter().rev() {
            let Some(counter) = self.counters.get_mut(place) else {
                continue;
            };
            counter.id = counter.id.or_else(|| define(&counter.series));
            match (counter.id, counter.by) {
                (None, _) => {
                    self.due.push(place);
                    continue;
                }
                // The proxy treats an increment by zero as a mistake.
                (Some(_), 0) => {}
                (Some(id), by) => add(id, by),
            }
            counter.by = 0;
            counter.is_due = false;
        }
        self.due.reverse();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::published::metric::{Family, Label};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    static ASKED: Family = Family::new("asked", ["tenant", "", ""]);

    fn asked(tenant: &str) -> Series {
        ASKED.of([Label::Name(tenant.into()), "".into(), "".into()])
    }

    /// All calls that report to the proxy, in their order.
    fn told(tally: &mut Tally) -> Vec<String> {
        let calls = RefCell::new(Vec::new());
        let define = |series: &Series| {
            let name = series.name();
            let id = u32::try_from(name.len()).ok();
            RefCell::borrow_mut(&calls).push(name);
            id
        };
        tally.tell(define, |id, by| {
            RefCell::borrow_mut(&calls).push(format!("{id} +{by}"));
        });
        calls.into_inner()
    }

    #[test]
    fn what_was_counted_is_told_once_and_all_together() {
        let mut tally = Tally::default();
        for by in [1, 0, 41] {
            tally.add(&asked("a"), by);
        }
        tally.add(&asked("bc"), 0);
        assert_eq!(
            told(&mut tally),
            ["asked.tenant=.=bc;.;", "asked.tenant=.=a;.;", "19 +42"]
        );
        assert_eq!(told(&mut tally), [""; 0]);
        tally.add(&asked("bc"), 0);
        assert_eq!(told(&mut tally), [""; 0]);
        tally.add(&asked("bc"), 7);
        tally.add(&asked("a"), 1);
        assert_eq!(told(&mut tally), ["19 +1", "20 +7"]);
    }

    #[test]
    fn what_the_proxy_does_not_take_is_not_lost() {
        let mut tally = Tally::default();
        tally.add(&asked("a"), u64::MAX);
        tally.tell(|_| None, |_, _| unreachable!("it has no id"));
        tally.add(&asked("a"), 5);
        assert_eq!(
            told(&mut tally),
            ["asked.tenant=.=a;.;", &format!("19 +{}", u64::MAX)]
        );
    }
}
