//! Measure: what examples need to measure parts of the store by themselves. Not for other use.

use crate::batch::Op;
use crate::fold::NoMerge;
use crate::key::KeyRange;
use crate::memtable::{Active, Cursor};
use crate::merge::Direction;

/// A memtable without log and shard.
pub struct BareMemtable {
    active: Active,
    range: KeyRange,
    sequence: u64,
}

impl BareMemtable {
    /// An empty one that is expected to hold about `bytes`.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let range = KeyRange { lower: Vec::new(), upper: None };
        Self { active: Active::new(bytes), range, sequence: 0 }
    }

    /// From now on it behaves as if it had readers on other threads.
    pub fn share(&mut self) {
        self.active.share(self.sequence);
    }

    /// Gives `key` the value `value`.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.sequence += 1;
        let op = Op::Put { key, value };
        self.active.apply(op, self.sequence, 0, &self.range, &NoMerge, &|_| false);
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.active.memtable().get(key).next().map(|(_, value)| value)
    }

    /// How many keys and bytes of values a walk over all meets.
    #[must_use]
    pub fn walk(&self, direction: Direction) -> (usize, usize) {
        let mut cursor = Cursor::new(self.active.memtable(), b"", None, direction);
        let (mut keys, mut bytes) = (0, 0);
        while cursor.key().is_some() {
            keys += 1;
            bytes += cursor.versions().map(|(_, value)| value.len()).sum::<usize>();
            cursor.advance();
        }
        (keys, bytes)
    }

    /// Bytes that it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.active.bytes()
    }
}
