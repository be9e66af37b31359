//! What was counted of a tenant: money by model, savings and refusals, read from the proxy's own counters.
//!
//! A filter cannot list the proxy's counters, and reading a counter that does not exist would create it. So, where there is a report, a worker
//! that counts a series for the first time notes the series' name in shared data: one value for each configured tenant, one for all others.
//! The report reads only the noted counters. That costs one write for each series and worker.

use crate::published::metric::{Label, Series};
use crate::report::metrics::{REFUSED, SAVES, SPENT, report_of, reported};
use crate::report::overview::Counted;
use crate::state::store::{Store, counted_key};

/// Most series that are noted for one tenant. Their labels come from the configuration, which may change.
const MOST: usize = 256;

/// Lost races after which a note is left for the next time.
const TRIES: u32 = 8;

/// Separates the parts of a note, and ends it. A series whose label contains this byte is not noted.
const PART: u8 = 0x1f;
const END: u8 = b'\n';

/// The proxy's counters.
pub trait Counters {
    /// The value of a counter in the whole process. A counter that does not exist is created.
    fn value(&self, series: &Series) -> Option<u64>;
}

/// Notes a counter that exists from now on. Returns whether it is noted.
pub fn note(store: &impl Store, series: &Series) -> bool {
    let Some(word) = reported(series) else {
        return true;
    };
    let [tenant, first, second] = series.labels().each_ref().map(Label::as_str);
    let mut note = Vec::new();
    for part in [word, first, second] {
        if part.bytes().any(|byte| byte < b' ') {
            return true;
        }
        note.extend_from_slice(part.as_bytes());
        note.push(PART);
    }
    let key = counted_key(tenant);
    for _ in 0..TRIES {
        let Ok(current) = store.get(&key) else { break };
        let (bytes, version) = current.unzip();
        let mut bytes = bytes.unwrap_or_default();
        let mut notes = 0_usize;
        for other in bytes.split(|byte| *byte == END) {
            notes = notes.saturating_add(1);
            if other == note || notes > MOST {
                return true;
            }
        }
        bytes.extend_from_slice(&note);
        bytes.push(END);
        if store.put(&key, &bytes, version).is_ok() {
            return true;
        }
    }
    false
}

/// All figures that were counted for a tenant.
pub(super) fn counted(tenant: &Label, store: &impl Store, counters: &impl Counters) -> Counted {
    let mut counted = Counted::default();
    let Ok(Some((bytes, _))) = store.get(&counted_key(tenant.as_str())) else {
        return counted;
    };
    for note in bytes.split(|byte| *byte == END) {
        let mut parts = [""; 3];
        for (part, bytes) in parts.iter_mut().zip(note.split(|byte| *byte == PART)) {
            *part = std::str::from_utf8(bytes).unwrap_or_default();
        }
        let [word, first, second] = parts;
        let labels = [
            tenant.clone(),
            Label::Name(first.into()),
            Label::Name(second.into()),
        ];
        let series = report_of(word, labels);
        let Some(value) = series.and_then(|series| counters.value(&series)) else {
            continue;
        };
        match word {
            SPENT => counted.spent.push((first.into(), second.into(), value)),
            SAVES => counted.saved = value,
            REFUSED if value > 0 => counted.refused.push((first.into(), value)),
            _ => {}
        }
    }
    counted
}
