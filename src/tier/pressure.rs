//! Upstreams that refuse: which tiers are *pressed*, and until when.
//!
//! **Pressed.** An upstream that refuses for lack of quota or room ([`RefusalKind`]) is left alone for as long as it says; if it names no
//! time, for [`FIRST`], doubling up to [`MOST`] with each refusal that comes after a wait has ended. Other server errors press an upstream
//! once [`IN_A_ROW`] of them came without a success in between.
//!
//! **Coming back.** When the wait is over one request is let through, the *probe*, and the others stay away until the probe is answered:
//! however many requests are waiting, only one of them tests the upstream. The end of the wait is moved by up to [`JITTER`], so that the
//! proxies of a fleet, which all read the same header, do not return at the same time. A success ends the pressure at once.
//!
//! **What counts.** Answers may overtake each other. A success proves nothing about a refusal that came after the successful request was
//! sent: of a burst some requests are served and some are not, in any order. So only the success of a request that was sent after the
//! refusal ends the pressure. Nor do refusals of requests that were sent before a wait began, or during it, double the next one.
//!
//! **Across proxies.** Where proxies share a store, they report to each other which configured models are refused with their own
//! credential, and which are served again ([`Pressures::agree`]); each sends a probe of its own.
//!
//! **Whose.** A pressure belongs to a model, and also to a credential where callers bring their own. Configured models with the proxy's
//! credential can each have one; for other models and for callers' credentials there are at most [`GUESTS`], and a new one displaces the
//! one that ends first.

mod bytes;
mod fleet;

use std::time::Duration;

pub use fleet::Elsewhere;

use crate::base::units::Timestamp;

/// How long an upstream that names no time is left alone at first.
pub const FIRST: Duration = Duration::from_secs(5);

/// The longest such wait, after doubling.
pub const MOST: Duration = Duration::from_secs(60);

/// The shortest wait, whatever an upstream says: callers retry after a second at the latest, and must find the next tier then.
pub const LEAST: Duration = Duration::from_millis(1_500);

/// The longest wait, whatever an upstream says: an absurd header must not shut a tier for good.
pub const LONGEST: Duration = Duration::from_secs(3_600);

/// How long an upstream is left alone after a refusal that waiting does not cure.
pub const INCURABLE: Duration = Duration::from_secs(300);

/// The most by which a wait is extended, which is otherwise by up to a tenth of it.
pub const JITTER: Duration = Duration::from_secs(1);

/// How long a probe without an answer holds other requests back.
pub const PROBE: Duration = Duration::from_secs(30);

/// How many other server errors press an upstream, without a success in between.
pub const IN_A_ROW: u8 = 3;

/// The most pressures of other models, or of callers' own credentials: of all that do not belong to a configured model with the proxy's
/// credential.
pub const GUESTS: usize = 64;

/// A pressure that ended this long ago, and was not looked up since then, is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(3_600);

/// Why an upstream refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// More was requested than the quota allows.
    RateLimit,
    /// The upstream is currently overloaded for everybody.
    Overloaded,
    /// Another server error.
    Failed,
    /// The money or the quota at the provider is used up, which waiting does not cure.
    Quota,
}

impl RefusalKind {
    const ALL: [Self; 4] = [Self::RateLimit, Self::Overloaded, Self::Failed, Self::Quota];

    /// The word for this kind in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RateLimit => "rate_limit",
            Self::Overloaded => "overloaded",
            Self::Failed => "failed",
            Self::Quota => "quota",
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::RateLimit => 0,
            Self::Overloaded => 1,
            Self::Failed => 2,
            Self::Quota => 3,
        }
    }
}

/// What an upstream's refusal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamRefusal {
    /// Why the upstream refused.
    pub kind: RefusalKind,
    /// How long to wait before the next request, as the upstream says.
    pub wait: Option<Duration>,
}

/// The model and the credential to which a pressure belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PressureKey {
    /// A hash of the model that is sent.
    pub model: u64,
    /// A hash of the caller's credential; 0 where the proxy's own is used.
    pub credential: u64,
    /// Whether the model is a tier's own, and the credential is the proxy's.
    pub is_configured: bool,
}

/// The pressures on all upstreams that refused recently.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pressures(Vec<Pressure>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pressure {
    key: PressureKey,
    kind: RefusalKind,
    /// Other server errors in a row.
    failures: u8,
    /// Waits in a row for which the upstream named no time.
    untold: u8,
    /// When the upstream refused: a success of a request that was sent from then on ends the pressure.
    since: Timestamp,
    /// When the wait is over; the epoch while the upstream is not pressed.
    until: Timestamp,
    /// Until when the answer to a probe is awaited.
    probe: Timestamp,
    /// The store that proxies share has it.
    is_shared: bool,
}

/// Bytes that are not what [`Pressures::encode`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt(());

impl Pressures {
    /// Whether no refusal is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a refusal is known for this key since its last success.
    #[must_use]
    pub fn knows(&self, key: &PressureKey) -> bool {
        self.get(key).is_some()
    }

    /// Whether the upstream of this key is pressed, even if a probe is due.
    #[must_use]
    pub fn is_pressed(&self, key: &PressureKey) -> bool {
        self.get(key).is_some_and(Pressure::is_pressed)
    }

    /// Whether the wait of this key is over, and no probe is under way.
    #[must_use]
    pub fn is_due(&self, key: &PressureKey, now: Timestamp) -> bool {
        self.get(key).is_some_and(|pressure| pressure.is_due(now))
    }

    /// How many pressures a model has: one, or as many as there are pressed callers with credentials of their own.
    #[must_use]
    pub fn pressed(&self, model: u64) -> u64 {
        let of_model = |pressure: &&Pressure| pressure.key.model == model && pressure.is_pressed();
        u64::try_from(self.0.iter().filter(of_model).count()).unwrap_or(u64::MAX)
    }

    /// Records a refusal of a request that was sent at `sent`. `spread` is any number, by which the end of the wait is moved.
    pub fn refuse(
        &mut self,
        key: PressureKey,
        refusal: UpstreamRefusal,
        sent: Timestamp,
        now: Timestamp,
        spread: u64,
    ) {
        self.tidy(now);
        match self.0.iter_mut().find(|pressure| pressure.key == key) {
            Some(pressure) => pressure.refuse(refusal, sent, now, spread),
            None => {
                self.make_room(&key);
                let mut pressure = Pressure::new(key, refusal.kind, now);
                pressure.refuse(refusal, sent, now, spread);
                self.0.push(pressure);
            }
        }
    }

    /// Records a success of a request that was sent at `sent`. Returns whether anything changed.
    pub fn succeed(&mut self, key: &PressureKey, sent: Timestamp) -> bool {
        let before = self.0.len();
        self.0
            .retain(|pressure| pressure.key != *key || sent < pressure.since);
        self.0.len() != before
    }

    /// Claims the probe. Returns whether the claim succeeded: of all who try, one gets the probe.
    pub fn claim(&mut self, key: &PressureKey, now: Timestamp) -> bool {
        let mut pressures = self.0.iter_mut();
        let due = pressures.find(|pressure| pressure.key == *key && pressure.is_due(now));
        if let Some(pressure) = due {
            pressure.probe = now.plus(PROBE);
            return true;
        }
        false
    }

    /// Gives back the probe that was claimed at `claimed` and had no result. Returns whether anything changed.
    pub fn release(&mut self, key: &PressureKey, claimed: Timestamp) -> bool {
        let mut pressures = self.0.iter_mut();
        let found = pressures.find(|one| one.key == *key && one.probe == claimed.plus(PROBE));
        if let Some(pressure) = found {
            pressure.probe = Timestamp::from_nanos(0);
            return true;
        }
        false
    }

    fn get(&self, key: &PressureKey) -> Option<&Pressure> {
        self.0.iter().find(|pressure| pressure.key == *key)
    }

    fn tidy(&mut self, now: Timestamp) {
        self.0
            .retain(|pressure| now.since(pressure.until.max(pressure.since)) < FORGOTTEN);
    }

    fn make_room(&mut self, key: &PressureKey) {
        let guests = || {
            self.0
                .iter()
                .enumerate()
                .filter(|(_, one)| !one.key.is_configured)
        };
        if key.is_configured || guests().count() < GUESTS {
            return;
        }
        if let Some((first, _)) = guests().min_by_key(|(_, guest)| guest.until) {
            self.0.swap_remove(first);
        }
    }
}

impl Pressure {
    fn new(key: PressureKey, kind: RefusalKind, since: Timestamp) -> Self {
        Self {
            key,
            kind,
            failures: 0,
            untold: 0,
            since,
            until: Timestamp::from_nanos(0),
            probe: Timestamp::from_nanos(0),
            is_shared: false,
        }
    }

    fn is_pressed(&self) -> bool {
        self.until.as_nanos() > 0
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.is_pressed() && now >= self.until && now >= self.probe
    }

    fn refuse(&mut self, refusal: UpstreamRefusal, sent: Timestamp, now: Timestamp, spread: u64) {
        if refusal.kind == RefusalKind::Failed {
            self.failures = self.failures.saturating_add(1);
            if self.failures < IN_A_ROW && !self.is_pressed() {
                self.since = now;
                return;
            }
        }
        let told = refusal.wait.map(|wait| wait.clamp(LEAST, LONGEST));
        if self.is_pressed() && sent < self.until {
            // The upstream is already known to be pressed. If it now names a longer wait, that counts.
            let told = told.map(|told| later(now, told, spread));
            let until = told.map_or(self.until, |told| told.max(self.until));
            self.is_shared &= until == self.until;
            self.until = until;
            return;
        }
        let wait = match (told, refusal.kind) {
            (Some(told), _) => told,
            (None, RefusalKind::Quota) => INCURABLE,
            (None, _) => {
                let doubled = 1_u32.checked_shl(self.untold.into()).unwrap_or(u32::MAX);
                self.untold = self.untold.saturating_add(1);
                FIRST.saturating_mul(doubled).min(MOST)
            }
        };
        self.kind = refusal.kind;
        self.is_shared = false;
        self.since = now;
        self.until = later(now, wait, spread);
        self.probe = Timestamp::from_nanos(0);
    }
}

/// The end of a wait, extended by a part of the wait.
fn later(now: Timestamp, wait: Duration, spread: u64) -> Timestamp {
    let most = wait.checked_div(10).unwrap_or_default().min(JITTER);
    let millis = u64::try_from(most.as_millis()).unwrap_or_default();
    let part = spread
        .checked_rem(millis.saturating_add(1))
        .unwrap_or_default();
    now.plus(wait.saturating_add(Duration::from_millis(part)))
}

#[cfg(test)]
mod tests;
