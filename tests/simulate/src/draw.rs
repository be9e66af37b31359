//! Numbers drawn at random, the same on every machine: integers alone, since two machines' logarithms may differ in the last bit.

/// SplitMix64 (Steele, Lea, Flood: *Fast splittable pseudorandom number generators*, 2014).
pub struct Draw(u64);

impl Draw {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number, all alike.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `bound` - 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.any()) * u128::from(bound)) >> 64) as u64
    }

    /// An index, each as likely as its weight; they must not all be 0.
    pub fn weighted(&mut self, weights: impl Iterator<Item = u64> + Clone) -> usize {
        let mut left = self.below(weights.clone().sum());
        weights
            .take_while(|&weight| {
                let is_passed = left >= weight;
                left = left.saturating_sub(weight);
                is_passed
            })
            .count()
    }

    /// From a distribution that is told by its quantiles, at equal steps from the least to the most.
    pub fn quantile(&mut self, quantiles: &[u64]) -> u64 {
        let steps = quantiles.len() as u64 - 1;
        let at = self.below(steps << 16);
        let (step, into) = ((at >> 16) as usize, at & 0xffff);
        let (low, high) = (quantiles[step], quantiles[step + 1]);
        low + (((high - low) * into) >> 16)
    }
}
