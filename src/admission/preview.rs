//! The decision about a request by the present state: nothing is reserved, and nothing is written.

use crate::admission::capacity;
use crate::admission::ledger::{Ledger, fresh};
use crate::admission::shared;
use crate::policy::{Book, Decision, Request, decide};
use crate::state::record::Record;
use crate::state::store::Store;

impl<S: Store> Ledger<'_, S> {
    /// The tenant's record, rolled forward to now; a new one if there is none.
    #[must_use]
    pub fn record_or_new(&self) -> Box<Record> {
        let record = self.record();
        record.unwrap_or_else(|| Box::new(fresh(self.tenant.limits(), self.now)))
    }

    /// What the limits and the tiers' capacities would do with a request, even in shadow mode. `books`: the others' records on which the
    /// request is charged.
    #[must_use]
    pub(crate) fn preview(
        &self,
        request: &Request<'_>,
        record: &Record,
        books: &[Book<'_>],
    ) -> Decision {
        let limits = self.tenant.limits();
        let (rooms, _) = capacity::rooms(self.store, limits, request, self.now);
        let mut record = record.clone();
        shared::join(self.tenant, &mut record, self.store, self.now);
        decide(limits, &request.finding(&rooms, books), &record, self.now)
    }
}
