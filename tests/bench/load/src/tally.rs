//! What a run came to.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

#[derive(Default)]
pub struct Tally {
    pub wall: Duration,
    /// Answers by status; 0 for those that were cut.
    pub statuses: BTreeMap<u16, usize>,
    /// Requests that came to the upstream with the other model in them.
    pub rewritten: usize,
    /// Requests that came to the upstream.
    pub seen: usize,
    /// Bytes of the requests' bodies as the upstream got them, and of the answers' as the client did.
    pub sent: usize,
    pub received: usize,
    /// From when a request was due until the first byte of its answer's body, and until its last.
    pub first: Vec<Duration>,
    pub last: Vec<Duration>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wall={}", self.wall.as_nanos())?;
        write!(
            f,
            " seen={} rewritten={} sent={} received={}",
            self.seen, self.rewritten, self.sent, self.received
        )?;
        for (status, count) in &self.statuses {
            write!(f, " status.{status}={count}")?;
        }
        for (name, times) in [("first", &self.first), ("last", &self.last)] {
            let mut times = times.clone();
            times.sort_unstable();
            for part in [50, 95, 99] {
                let nearest = (times.len() * part).div_ceil(100).saturating_sub(1);
                let time = times.get(nearest).copied().unwrap_or_default();
                write!(f, " {name}.p{part}={}", time.as_nanos())?;
            }
        }
        Ok(())
    }
}
