//! What a table says of itself in its properties.

use super::block::Block;
use crate::codec::varint;

/// Counts of what is in a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Changes, deletions of ranges included.
    pub(crate) entries: u64,
    /// Deletions, those of ranges included.
    pub(crate) deletions: u64,
    pub(crate) merges: u64,
    pub(crate) ranges: u64,
    /// Bytes of keys and values before compression.
    pub(crate) raw_bytes: u64,
}

impl Facts {
    /// What the properties block says; 0 for what it does not.
    pub(crate) fn of(properties: &Block) -> Self {
        let mut facts = Self::default();
        let (mut at, mut name) = (0, Vec::new());
        while let Some((entry, next)) = properties.entry(at) {
            name.truncate(entry.shared);
            name.extend_from_slice(&properties.bytes()[entry.tail]);
            let number = varint(&mut &properties.bytes()[entry.value]).unwrap_or(0);
            match name.as_slice() {
                b"rocksdb.num.entries" => facts.entries = number,
                b"rocksdb.deleted.keys" => facts.deletions = number,
                b"rocksdb.merge.operands" => facts.merges = number,
                b"rocksdb.num.range-deletions" => facts.ranges = number,
                b"rocksdb.raw.key.size" | b"rocksdb.raw.value.size" => facts.raw_bytes += number,
                _ => {}
            }
            at = next;
        }
        facts
    }
}
