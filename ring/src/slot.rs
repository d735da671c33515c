//! Slots: the fixed partitions of the key space, exactly as Redis Cluster computes them.
//!
//! slot = CRC16(hash tag, or the whole key) mod 16384, with CRC16-XMODEM (polynomial 0x1021, start
//! 0). The hash tag is what stands between the first `{` and the first `}` after it, if that is not
//! empty. Source: the Redis Cluster specification. Any cluster-aware client agrees with us.

use core::fmt;

use serde::{Deserialize, Serialize};

/// How many slots there are; never changes.
pub const SLOTS: u16 = 16_384;

/// How many neighbouring slots make a group.
pub const SLOTS_PER_GROUP: u16 = 256;

/// How many groups there are, and so the most cores that a node can use.
pub const GROUPS: u16 = SLOTS / SLOTS_PER_GROUP;

/// A partition of the key space, 0 to 16383.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub u16);

impl Slot {
    /// The slot of a Redis key.
    #[must_use]
    pub fn of_key(key: &[u8]) -> Self {
        Self(crc16(hash_tag(key)) % SLOTS)
    }

    /// Every slot, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SLOTS).map(Self)
    }

    /// The group of 256 neighbouring slots that it belongs to: a core owns whole groups.
    #[must_use]
    pub const fn group(self) -> u8 {
        (self.0 / SLOTS_PER_GROUP) as u8
    }

    /// The core, of `cores`, whose machine handles this slot. Cores own contiguous ranges of
    /// groups, so that rows of one core are neighbours on disk.
    #[must_use]
    pub const fn core(self, cores: usize) -> usize {
        self.group() as usize * cores / GROUPS as usize
    }

    /// As an index into a table with one entry a slot.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The part of a key that decides its slot: the first non-empty `{tag}`, or the whole key.
#[must_use]
pub fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|b| *b == b'{') else { return key };
    let rest = &key[open + 1..];
    match rest.iter().position(|b| *b == b'}') {
        None | Some(0) => key,
        Some(close) => &rest[..close],
    }
}

/// CRC16-XMODEM of `bytes`.
#[must_use]
pub fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, b| (crc << 8) ^ CRC16_TABLE[usize::from((crc >> 8) as u8 ^ b)])
}

const CRC16_TABLE: [u16; 256] = crc16_table();

const fn crc16_table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = (i as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_published_one() {
        // The check value of CRC16-XMODEM, given by the Redis Cluster specification.
        assert_eq!(crc16(b"123456789"), 0x31c3);
    }

    #[test]
    fn slots_are_those_of_redis_cluster() {
        // From CLUSTER KEYSLOT of a stock Redis.
        for (key, slot) in [
            (&b"foo"[..], 12_182),
            (b"bar", 5_061),
            (b"hello", 866),
            (b"", 0),
            (b"somekey", 11_058),
            (b"foo{hash_tag}", 2_515),
            (b"bar{hash_tag}", 2_515),
        ] {
            assert_eq!(Slot::of_key(key), Slot(slot), "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn the_tag_is_the_first_non_empty_pair_of_braces() {
        assert_eq!(hash_tag(b"{user1000}.following"), b"user1000");
        assert_eq!(hash_tag(b"foo{}{bar}"), b"foo{}{bar}");
        assert_eq!(hash_tag(b"foo{{bar}}zap"), b"{bar");
        assert_eq!(hash_tag(b"foo{bar}{zap}"), b"bar");
        assert_eq!(hash_tag(b"}a{b"), b"}a{b");
    }
}
