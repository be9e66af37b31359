//! The keys of tenants that are not configured: a bounded number of slots, however many ids are made up.
//!
//! A tenant's slots follow from a hash with a secret of the process. With a fixed key, whoever knows a tenant's id could compute ids
//! that take all of its slots, and starve it with a dozen requests.

use std::hash::{Hash, Hasher};

use crate::base::hash::{StableHasher, stable};
use crate::state::store::{Store, Write, update};

/// How many keys are shared by tenants that are not configured, besides the overflow key.
pub const SLOTS: u64 = 4_096;

/// Slots that one tenant may use: more make an overflow rarer and each request of a flood dearer.
const PROBES: u32 = 4;

/// The key that is shared by all tenants that found no slot.
pub const OVERFLOW_KEY: &str = "bursar/v1/u/overflow";

/// Where the VMs of a process keep their [`SlotSeed`].
const SEED_KEY: &str = "bursar/v1/seed";

/// Lost races for the seed after which a VM uses its own seed once. The first seed that is written stays.
const TRIES: u32 = 4;

/// The secret by which tenants find their slots, the same in all VMs of a process: 128 random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotSeed(pub [u8; 16]);

impl SlotSeed {
    /// The process's seed: the stored one, or else `fresh`, which then becomes the stored one. `None` if the store does not answer.
    pub fn agree(store: &impl Store, fresh: [u8; 16]) -> Option<Self> {
        let step = |stored: Option<&[u8]>| match stored.and_then(|bytes| bytes.try_into().ok()) {
            Some(stored) => Write {
                value: None,
                report: Self(stored),
            },
            None => Write {
                value: Some(fresh.to_vec()),
                report: Self(fresh),
            },
        };
        let updated = update(store, SEED_KEY, TRIES, step).ok()?;
        Some(updated.report)
    }
}

/// The keys to try, in this order, for a tenant that is not configured; the last one is shared by all tenants
/// that find the others taken.
#[must_use]
pub fn slot_keys(SlotSeed(seed): SlotSeed, tenant: &str) -> Vec<String> {
    let mut hasher = StableHasher::new_with_key(&seed);
    tenant.hash(&mut hasher);
    let hash = hasher.finish();
    // Each probe looks at 12 other bits of the hash.
    (0..PROBES)
        .map(|probe| {
            format!(
                "bursar/v1/u/{}",
                hash.rotate_right(probe.saturating_mul(12)) % SLOTS
            )
        })
        .chain([OVERFLOW_KEY.to_owned()])
        .collect()
}

/// A hash of a tenant's id, which marks a shared slot as this tenant's. The same in every worker, and never zero.
#[must_use]
pub fn owner_of(tenant: &str) -> u64 {
    stable(tenant).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::store::fake::FakeStore;
    use crate::state::store::tenant_key;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    // A flood of ids cannot grow memory without bound.
    #[test]
    fn made_up_tenants_share_a_bounded_set_of_keys() {
        let keys: std::collections::HashSet<_> = (0..50_000)
            .flat_map(|n| slot_keys(SlotSeed([7; 16]), &format!("made-up-{n}")))
            .collect();
        assert_eq!(keys.len(), 4_097);
        assert!(!keys.contains(&tenant_key("made-up-1")));
    }

    #[test]
    fn who_does_not_know_the_seed_cannot_tell_who_shares_a_slot() {
        let shares = |seed, other: &str| {
            let victims = slot_keys(seed, "victim");
            slot_keys(seed, other).first() == victims.first()
        };
        let ids = (0..).map(|n| format!("id-{n}"));
        let chosen: Vec<String> = ids
            .filter(|id| shares(SlotSeed([0; 16]), id))
            .take(20)
            .collect();
        let hits = chosen.iter().filter(|id| shares(SlotSeed([1; 16]), id));
        assert_eq!(hits.count(), 0);
    }

    #[test]
    fn all_vms_of_a_process_agree_on_the_seed_that_was_written_first() {
        let store = FakeStore::default();
        store.lose(1);
        assert_eq!(
            SlotSeed::agree(&store, [1; 16]),
            Some(SlotSeed([1; 16])),
            "after a lost race"
        );
        assert_eq!(SlotSeed::agree(&store, [2; 16]), Some(SlotSeed([1; 16])));
        // A value of another plugin is not taken as a seed.
        store.plant(SEED_KEY, b"foreign");
        assert_eq!(SlotSeed::agree(&store, [3; 16]), Some(SlotSeed([3; 16])));
        store.set_down(true);
        assert_eq!(SlotSeed::agree(&store, [3; 16]), None);
    }

    #[test]
    fn a_vm_that_loses_the_race_takes_the_winners_seed() {
        let store = std::rc::Rc::new(FakeStore::default());
        let other = std::rc::Rc::clone(&store);
        store.intrude(move || {
            SlotSeed::agree(&*other, [8; 16]);
        });
        assert_eq!(SlotSeed::agree(&*store, [9; 16]), Some(SlotSeed([8; 16])));
    }
}
