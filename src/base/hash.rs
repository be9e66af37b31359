//! Hashes whose values are stored, or compared by VMs that may run different builds: SipHash-1-3 with keys of zero, by a crate that promises
//! stable values. Rust's own `DefaultHasher` gives the same values today, but may change: every stored record would then look like a
//! stranger's.

use std::hash::{Hash, Hasher};

pub(crate) use siphasher::sip::SipHasher13 as StableHasher;

/// The hash of a value.
pub(crate) fn stable(value: impl Hash) -> u64 {
    let mut hasher = StableHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::learn::Model;
    use crate::state::slots::owner_of;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    // The values that records of version 0.1.0 contain.
    #[test]
    fn hashes_that_are_stored_stay_what_they_are() {
        assert_eq!(stable(""), 3_476_900_567_878_811_119);
        assert_eq!(owner_of("acme"), 1_111_676_390_585_429_433);
        assert_eq!(Model::of("gpt-4o").0, 445_991_941);
        assert_eq!(stable((1_u64, 2_u64)), 18_088_007_599_891_946_824);
    }
}
