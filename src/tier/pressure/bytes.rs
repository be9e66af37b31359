//! The bytes of all pressures, as shared data holds them.

use super::{Corrupt, Pressure, PressureKey, Pressures, RefusalKind};
use crate::base::units::Timestamp;

const MAGIC: [u8; 4] = *b"bru\x01";
pub(super) const ENTRY: usize = 44;

/// Marks a configured model of which the shared store knows.
const SHARED: u8 = 2;

impl Pressures {
    /// Encodes the pressures as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len().saturating_mul(ENTRY).saturating_add(4));
        bytes.extend(MAGIC);
        for one in &self.0 {
            bytes.extend(one.key.model.to_le_bytes());
            bytes.extend(one.key.credential.to_le_bytes());
            bytes.extend([
                u8::from(one.key.is_configured) << u8::from(one.is_shared),
                one.kind.number(),
                one.failures,
                one.untold,
            ]);
            for time in [one.since, one.until, one.probe] {
                bytes.extend(time.as_nanos().to_le_bytes());
            }
        }
        bytes
    }

    /// Decodes what [`Pressures::encode`] wrote.
    ///
    /// # Errors
    /// [`Corrupt`] for other bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let entries = bytes.strip_prefix(&MAGIC).ok_or(Corrupt(()))?;
        let (entries, []) = entries.as_chunks::<ENTRY>() else {
            return Err(Corrupt(()));
        };
        let entries = entries.iter().map(|entry| decoded(entry));
        let entries: Option<Vec<_>> = entries.collect();
        entries.map(Self).ok_or(Corrupt(()))
    }
}

fn decoded(entry: &[u8]) -> Option<Pressure> {
    let (model, rest) = entry.split_first_chunk()?;
    let (credential, rest) = rest.split_first_chunk()?;
    let (&[configured, kind, failures, untold], rest) = rest.split_first_chunk()?;
    let (times, []) = rest.as_chunks::<8>() else {
        return None;
    };
    let &[since, until, probe] = times else {
        return None;
    };
    let time = |bytes| Timestamp::from_nanos(u64::from_le_bytes(bytes));
    Some(Pressure {
        key: PressureKey {
            model: u64::from_le_bytes(*model),
            credential: u64::from_le_bytes(*credential),
            is_configured: match configured {
                0 => false,
                1 | SHARED => true,
                _ => return None,
            },
        },
        kind: *RefusalKind::ALL.get(usize::from(kind))?,
        failures,
        untold,
        since: time(since),
        until: time(until),
        probe: time(probe),
        is_shared: configured == SHARED,
    })
}
