//! Pressures of which the proxies that share a store tell each other.

use super::{JITTER, Pressure, PressureKey, Pressures, RefusalKind, later};
use crate::base::units::Timestamp;

/// A pressure that proxies share, as the store has it, in this proxy's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// A hash of the model that is sent.
    pub model: u64,
    /// When the upstream refused.
    pub since: Timestamp,
    /// When the wait is over.
    pub until: Timestamp,
}

impl Pressures {
    /// The end of a model's wait, if its upstream is pressed for all who use the proxy's credential.
    #[must_use]
    pub fn until(&self, model: u64) -> Option<Timestamp> {
        let pressure = self.get(&shared(model))?;
        pressure.is_pressed().then_some(pressure.until)
    }

    /// Whether a wait that all proxies share lasts at `now`.
    #[must_use]
    pub fn is_shared(&self, now: Timestamp) -> bool {
        self.0.iter().any(|one| one.is_shared && now < one.until)
    }

    /// Takes over what the other proxies know, by the store's answer to a call that was sent at `sent`, and that reported refusals of the
    /// models `reported`: `all` that the store has. What it had, or was reported, and has not now was ended by another proxy. Returns the
    /// models of which anything changed.
    pub fn agree(
        &mut self,
        all: &[Elsewhere],
        reported: &[u64],
        sent: Timestamp,
        now: Timestamp,
        spread: u64,
    ) -> Vec<u64> {
        let mut changed = Vec::new();
        let is_older = |one: &Pressure| {
            let had = one.is_shared || one.key.is_configured && reported.contains(&one.key.model);
            had && one.since < sent
        };
        self.0.retain(|one| {
            let is_over = is_older(one) && all.iter().all(|other| other.model != one.key.model);
            if is_over {
                changed.push(one.key.model);
            }
            !is_over
        });
        for other in all {
            let key = shared(other.model);
            let is_changed = match self.0.iter_mut().find(|one| one.key == key) {
                Some(known) => {
                    let is_older = is_older(known);
                    known.adopt(other, is_older)
                }
                None if other.until <= now => false,
                None => {
                    let mut new = Pressure::new(key, RefusalKind::RateLimit, other.since);
                    new.until = later(now, other.until.since(now), spread);
                    new.is_shared = true;
                    self.0.push(new);
                    true
                }
            };
            if is_changed {
                changed.push(other.model);
            }
        }
        changed
    }
}

impl Pressure {
    /// Takes over what the store has. `is_older`: the store knows all that this proxy knew. Returns whether anything changed.
    fn adopt(&mut self, other: &Elsewhere, is_older: bool) -> bool {
        // Smaller differences are those of the way to the store, and of the spread.
        let is_longer = self.until.plus(JITTER) < other.until;
        let is_shorter = other.until.plus(JITTER) < self.until;
        if is_shorter && !is_older {
            // What this proxy knows is still to be reported.
            return false;
        }
        let is_other = is_longer || is_shorter;
        if is_other {
            (self.since, self.until) = (self.since.max(other.since), other.until);
        }
        !std::mem::replace(&mut self.is_shared, true) || is_other
    }
}

fn shared(model: u64) -> PressureKey {
    PressureKey {
        model,
        credential: 0,
        is_configured: true,
    }
}
