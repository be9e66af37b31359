//! A share of a rate as the bytes of a record.

use super::Rate;
use crate::base::name::LimitKey;
use crate::base::units::Timestamp;
use crate::lease::line::Holder;

/// The length of a [`Rate`] in a record, without its limit.
const BYTES: usize = 8 * WORDS;

const WORDS: usize = 15;

const FLAGS: [u8; 3] = [1, 2, 4];

impl Rate {
    /// The share's bytes in a record, little-endian.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; BYTES] {
        let flags = [self.waits, self.lacks, self.lowered];
        let flags = flags.into_iter().zip(FLAGS);
        let flags = flags.fold(
            0,
            |all, (is_set, flag)| if is_set { all | flag } else { all },
        );
        let [h0, h1, h2, h3] = self.holders.to_le_bytes();
        let last = [h0, h1, h2, h3, self.failures, self.dry, flags, 0];
        let words = [
            self.holder.0,
            self.share,
            self.seq,
            self.sent.as_nanos(),
            self.heard.as_nanos(),
            self.born,
            self.asked,
            self.demand,
            self.taken,
            self.lacked,
            self.largest,
            self.peak,
            self.back,
            self.rest,
            u64::from_le_bytes(last),
        ];
        let mut bytes = [0; BYTES];
        for (to, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *to = word.to_le_bytes();
        }
        bytes
    }

    /// The share that these bytes of a record stand for; `None` if a flag or the padding has a value that is never written.
    #[must_use]
    pub fn from_bytes(limit: LimitKey, bytes: &[u8; BYTES]) -> Option<Self> {
        let mut words = [0; WORDS];
        for (word, from) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*from);
        }
        let [
            holder,
            share,
            seq,
            sent,
            heard,
            born,
            asked,
            demand,
            taken,
            lacked,
            largest,
            peak,
            back,
            rest,
            last,
        ] = words;
        let [h0, h1, h2, h3, failures, dry, flags @ 0..=7, 0] = last.to_le_bytes() else {
            return None;
        };
        let [waits, lacks, lowered] = FLAGS.map(|flag| flags & flag != 0);
        Some(Self {
            limit,
            holder: Holder(holder),
            share,
            seq,
            sent: Timestamp::from_nanos(sent),
            heard: Timestamp::from_nanos(heard),
            born,
            asked,
            demand,
            taken,
            lacked,
            largest,
            peak,
            back,
            rest,
            holders: u32::from_le_bytes([h0, h1, h2, h3]),
            failures,
            dry,
            waits,
            lacks,
            lowered,
        })
    }
}
