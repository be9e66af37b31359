//! Reading stored bytes back: little-endian numbers, one after the other.

use crate::base::units::{Cost, Micros, Timestamp, Tokens};

/// Bytes that bursar did not write: truncated, newer, or another plugin's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt(pub(crate) ());

/// The bytes that are still to be read.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl Input<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], Corrupt> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(Corrupt(()))?;
        self.0 = tail;
        Ok(*head)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Corrupt> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Corrupt> {
        self.take().map(u64::from_le_bytes)
    }

    pub(crate) fn time(&mut self) -> Result<Timestamp, Corrupt> {
        self.u64().map(Timestamp::from_nanos)
    }

    pub(crate) fn cost(&mut self) -> Result<Cost, Corrupt> {
        Ok(Cost {
            tokens: Tokens(self.u64()?),
            usd: Micros(self.u64()?),
        })
    }

    /// A list of at most this many entries, preceded by a byte with its length.
    pub(crate) fn list<T>(
        &mut self,
        most: usize,
        read: impl Fn(&mut Self) -> Result<T, Corrupt>,
    ) -> Result<Vec<T>, Corrupt> {
        let [count] = self.take()?;
        if usize::from(count) > most {
            return Err(Corrupt(()));
        }
        let mut list = Vec::with_capacity(count.into());
        for _ in 0..count {
            list.push(read(self)?);
        }
        Ok(list)
    }

    /// Checks that no bytes are left.
    pub(crate) fn end(&self) -> Result<(), Corrupt> {
        match self.0 {
            [] => Ok(()),
            _ => Err(Corrupt(())),
        }
    }
}
