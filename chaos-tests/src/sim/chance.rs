//! Chance: every random choice of a run, from one seed (SplitMix64).

/// A seeded source of chance; the same seed gives the same choices on every machine.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// All chances of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed ^ 0x51a2_7d3c_9b4e_f016)
    }

    /// A source of its own, so that drawing from it does not shift the choices of this one.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// 64 random bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 if `n` is 0.
    pub const fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next() % n }
    }

    /// A number from `low` to `high`, both inclusive.
    pub const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True `millionths` times in a million.
    pub const fn hits(&mut self, millionths: u32) -> bool {
        self.below(1_000_000) < millionths as u64
    }

    /// True half of the time.
    pub const fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// One of several.
    ///
    /// # Panics
    /// If there is nothing to choose from.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// A waiting time of the given mean, in nanoseconds: exponential, cut at eight times the mean.
    pub fn waiting(&mut self, mean_ns: u64) -> u64 {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        let times = -(1.0 - unit).ln();
        (mean_ns as f64 * times.min(8.0)) as u64
    }
}
