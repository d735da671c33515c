//! Workload: which keys and values, the same for every engine and every run.
//!
//! Key i is a bijection of i spread over the whole key space, so that inserting 0, 1, 2 … is
//! inserting in random order, and a key beyond the last one is missing, somewhere in the middle.

use std::sync::OnceLock;

/// Bytes of a key.
pub const KEY_BYTES: usize = 16;
/// A key.
pub type Key = [u8; KEY_BYTES];

/// Steele, Lea and Flood's SplitMix64, as a permutation of 64-bit numbers.
#[must_use]
pub fn scatter(i: u64) -> u64 {
    let z = i.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The key number `i`.
#[must_use]
pub fn key(i: u64) -> Key {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&scatter(i).to_be_bytes());
    key[8..].copy_from_slice(&i.to_be_bytes());
    key
}

/// A seeded source of chance.
pub struct Chance(u64);

impl Chance {
    /// Chance number `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(scatter(seed ^ 0x5eed))
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let high = (u128::from(scatter(self.0)) * u128::from(n)) >> 64;
        u64::try_from(high).expect("below a 64-bit number")
    }
}

/// Values of `bytes` bytes of which one half repeats the other: LZ4 halves them.
pub struct Values {
    pool: &'static [u8],
    half: usize,
    value: Vec<u8>,
}

const POOL_BYTES: usize = 1 << 20;

impl Values {
    /// Values of `bytes` bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        static POOL: OnceLock<Vec<u8>> = OnceLock::new();
        let pool = POOL.get_or_init(|| {
            (0..POOL_BYTES as u64 / 8).flat_map(|i| scatter(!i).to_le_bytes()).collect()
        });
        Self { pool, half: bytes.div_ceil(2), value: vec![0; bytes.next_multiple_of(2)] }
    }

    /// The value of key `i` in its `pass`-th writing.
    pub fn get(&mut self, i: u64, pass: u64) -> &[u8] {
        let room = (POOL_BYTES - self.half) as u64;
        let at = scatter(i ^ pass.rotate_left(40)) % room;
        let at = usize::try_from(at).expect("within the pool");
        let (half, rest) = self.value.split_at_mut(self.half);
        half.copy_from_slice(&self.pool[at..at + self.half]);
        rest.copy_from_slice(half);
        &self.value
    }
}
