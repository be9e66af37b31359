//! CRC-32 as GZIP has it (RFC 1952, section 8): the check of an event stream's frames.

/// The check of the bytes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crc32(u32);

impl Crc32 {
    /// The check of no bytes.
    pub(super) const EMPTY: Self = Self(u32::MAX);

    /// The check with `bytes` after those before.
    pub(super) fn then(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |crc, byte| {
            let [low, ..] = crc.to_le_bytes();
            let folded = TABLE.get(usize::from(low ^ byte)).copied();
            crc >> 8 ^ folded.unwrap_or_default()
        }))
    }

    /// As it stands in a frame, which is big-endian.
    pub(super) fn to_bytes(self) -> [u8; 4] {
        (!self.0).to_be_bytes()
    }
}

/// What each value of a byte adds.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let (mut rest, mut byte) = (table.as_mut_slice(), 0_u32);
    while let Some((entry, tail)) = rest.split_first_mut() {
        *entry = eight_bits(byte);
        (rest, byte) = (tail, byte.saturating_add(1));
    }
    table
};

/// Divides by the reversed polynomial, bit by bit.
const fn eight_bits(byte: u32) -> u32 {
    let (mut rest, mut left) = (byte, 8_u32);
    while let Some(next) = left.checked_sub(1) {
        rest = rest >> 1 ^ if rest & 1 == 1 { 0xedb8_8320 } else { 0 };
        left = next;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    // The check value of CRC-32/ISO-HDLC in the catalogue of parametrised CRC algorithms.
    #[test]
    fn the_nine_digits_give_the_published_check_value() {
        let nine = Crc32::EMPTY.then(b"123456789");
        assert_eq!(nine.to_bytes(), 0xcbf4_3926_u32.to_be_bytes());
        assert_eq!(Crc32::EMPTY.then(b"1234").then(b"56789"), nine);
        assert_eq!(Crc32::EMPTY.to_bytes(), [0; 4]);
    }
}
