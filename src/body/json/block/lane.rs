//! Sixteen bytes at a time: with vector instructions in WebAssembly, as two words elsewhere, and with the same results.

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(super) use simd::Lane;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub(super) use words::Lane;

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd {
    use core::arch::wasm32::{
        i8x16_bitmask, i8x16_eq, u8x16_splat, u64x2, v128, v128_any_true, v128_or,
    };

    #[derive(Clone, Copy)]
    pub(in super::super) struct Lane(v128);

    impl Lane {
        /// The compiler turns this into a single load.
        pub(in super::super) fn of(bytes: &[u8; 16]) -> Self {
            let (words, _) = bytes.as_chunks();
            let [low, high] = [words.first(), words.last()]
                .map(|word| u64::from_le_bytes(word.copied().unwrap_or_default()));
            Self(u64x2(low, high))
        }

        pub(in super::super) fn splat(byte: u8) -> Self {
            Self(u8x16_splat(byte))
        }

        /// Sets the top bit of each byte that equals `byte`.
        pub(in super::super) fn equal(self, byte: u8) -> Self {
            Self(i8x16_eq(self.0, u8x16_splat(byte)))
        }

        /// Sets the top bit of each byte that equals one of these.
        pub(in super::super) fn either(self, one: u8, other: u8) -> Self {
            self.equal(one).or(self.equal(other))
        }

        /// The set of bytes whose top bit is set.
        pub(in super::super) fn bits(self) -> u16 {
            i8x16_bitmask(self.0)
        }

        pub(in super::super) fn or(self, other: Self) -> Self {
            Self(v128_or(self.0, other.0))
        }

        pub(in super::super) fn any(self) -> bool {
            v128_any_true(self.0)
        }
    }
}

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod words {
    #[derive(Clone, Copy)]
    pub(in super::super) struct Lane(u64, u64);

    const EACH: u64 = 0x0101_0101_0101_0101;
    const SEVEN_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;

    impl Lane {
        pub(in super::super) fn of(bytes: &[u8; 16]) -> Self {
            let (words, _) = bytes.as_chunks();
            let [low, high] = [words.first(), words.last()]
                .map(|word| u64::from_le_bytes(word.copied().unwrap_or_default()));
            Self(low, high)
        }

        pub(in super::super) fn splat(byte: u8) -> Self {
            let word = EACH.wrapping_mul(u64::from(byte));
            Self(word, word)
        }

        /// Sets the top bit of each byte that equals `byte`.
        pub(in super::super) fn equal(self, byte: u8) -> Self {
            Self(equal(self.0, byte), equal(self.1, byte))
        }

        /// Sets the top bit of each byte that equals one of these.
        pub(in super::super) fn either(self, one: u8, other: u8) -> Self {
            self.equal(one).or(self.equal(other))
        }

        /// The set of bytes whose top bit is set.
        pub(in super::super) fn bits(self) -> u16 {
            // The product collects the bits in its top byte.
            let together = |word: u64| (word >> 7 & EACH).wrapping_mul(0x0102_0408_1020_4080);
            let [[.., low], [.., high]] = [self.0, self.1].map(|word| together(word).to_le_bytes());
            u16::from_le_bytes([low, high])
        }

        pub(in super::super) fn or(self, other: Self) -> Self {
            Self(self.0 | other.0, self.1 | other.1)
        }

        pub(in super::super) fn any(self) -> bool {
            self.0 | self.1 != 0
        }
    }

    /// Sets the top bit of each byte of the word that equals `byte`.
    fn equal(word: u64, byte: u8) -> u64 {
        let other = word ^ EACH.wrapping_mul(u64::from(byte));
        // No sum carries into the next byte.
        !((other & SEVEN_BITS).wrapping_add(SEVEN_BITS) | other | SEVEN_BITS)
    }
}
