//! The seeded source of election timeouts.

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// A stream that differs for each combination of the parts.
    pub(crate) fn new(parts: &[u64]) -> Self {
        let mut random = Self(0);
        for part in parts {
            random.0 = random.next() ^ part;
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `[0, bound)`; `bound` is at least 1.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        assert!(bound > 0, "an empty range has no number");
        (self.next() % u64::from(bound)) as u32
    }
}
