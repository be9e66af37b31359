//! The wait for the first byte of an answer, for tiers where it is measured.

use crate::base::name::Name;
use crate::base::units::Timestamp;
use crate::config::Config;
use crate::policy::Request;

/// The wait for the first byte of an answer.
#[derive(Debug)]
pub(super) struct Wait {
    /// The model of the tier that serves: the tier's measured waits are stored in shared data under this name.
    pub(super) model: Name,
    /// When the request ended; `None` before.
    pub(super) since: Option<Timestamp>,
}

impl Wait {
    /// The wait of a request that is served at this tier, if an SLA is configured and the ladder has other tiers.
    pub(super) fn of(config: &Config, request: &Request<'_>, tier: usize) -> Option<Self> {
        config.tightest_sla?;
        let ladder = request.place?.ladder;
        let tier = ladder.tiers.get(tier).filter(|_| ladder.last() > 0)?;
        Some(Self {
            model: tier.model.clone(),
            since: None,
        })
    }
}
