//! Chance that is the same at each run.

/// A generator of numbers (splitmix64).
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// From 0 to less than `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap_or(1)).unwrap_or_default()
    }

    /// One time in `n`.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    /// A body in chunks: whole, halves, or many.
    pub fn chunks(&mut self, body: &[u8]) -> Vec<Vec<u8>> {
        let most = *self.pick(&[usize::MAX, usize::MAX, 400, 60, 7]);
        let mut rest = body;
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            let size = 1 + self.below(most.min(rest.len()));
            let size = if most == usize::MAX && self.one_in(2) {
                rest.len()
            } else {
                size
            };
            let (chunk, tail) = rest.split_at(size);
            chunks.push(chunk.to_vec());
            rest = tail;
        }
        chunks
    }
}
