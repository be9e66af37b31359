//! A grant as the bytes of a record.

use super::Grant;
use crate::base::units::Timestamp;
use crate::lease::line::Holder;

const WORDS: usize = 14;

/// The length of a [`Grant`] in a record.
pub const BYTES: usize = 8 * WORDS;

impl Grant {
    /// The grant's bytes in a record, little-endian.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; BYTES] {
        let mut words = self.words();
        let Some(last) = words.last_mut() else {
            return [0; BYTES];
        };
        *last = u64::from(self.holders)
            | u64::from(self.failures) << 32
            | u64::from(self.dry) << 40
            | u64::from(self.waits) << 48;
        let mut bytes = [0; BYTES];
        for (to, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *to = word.to_le_bytes();
        }
        bytes
    }

    fn words(&self) -> [u64; WORDS] {
        [
            self.holder.0,
            self.granted,
            self.seq,
            self.sent.as_nanos(),
            self.heard.as_nanos(),
            self.free,
            self.born,
            self.rate,
            self.largest,
            self.peak,
            self.taken,
            self.lacked,
            self.asked,
            0,
        ]
    }

    /// The grant that these bytes of a record stand for; `None` if a flag or the padding has a value that is never written.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; BYTES]) -> Option<Self> {
        let mut words = [0; WORDS];
        for (word, from) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*from);
        }
        let [
            holder,
            granted,
            seq,
            sent,
            heard,
            free,
            born,
            rate,
            largest,
            peak,
            taken,
            lacked,
            asked,
            last,
        ] = words;
        let [h0, h1, h2, h3, failures, dry, waits @ 0..=1, 0] = last.to_le_bytes() else {
            return None;
        };
        Some(Self {
            holder: Holder(holder),
            granted,
            seq,
            sent: Timestamp::from_nanos(sent),
            heard: Timestamp::from_nanos(heard),
            free,
            born,
            rate,
            largest,
            peak,
            taken,
            lacked,
            asked,
            holders: u32::from_le_bytes([h0, h1, h2, h3]),
            failures,
            dry,
            waits: waits != 0,
        })
    }
}
