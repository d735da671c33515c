//! What a table's properties say that it holds: enough to see whether a compaction would pay.

use super::block::Block;
use crate::codec::varint;

/// How many changes of which kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TableCounts {
    /// All of them, range deletions included.
    pub(crate) entries: u64,
    /// Deletions of single keys.
    pub(crate) deletions: u64,
    /// Range deletions.
    pub(crate) ranges: u64,
}

impl TableCounts {
    /// Reads the properties block; zeros for what it does not say.
    pub(crate) fn of_properties(block: &Block) -> Self {
        let mut counts = Self::default();
        let (mut at, mut name) = (0, Vec::new());
        while let Some((entry, next)) = block.entry(at) {
            if entry.shared > name.len() {
                break;
            }
            name.truncate(entry.shared);
            name.extend_from_slice(&block.bytes()[entry.tail]);
            let mut value = &block.bytes()[entry.value];
            let wanted = match name.as_slice() {
                b"rocksdb.num.entries" => Some(&mut counts.entries),
                b"rocksdb.deleted.keys" => Some(&mut counts.deletions),
                b"rocksdb.num.range-deletions" => Some(&mut counts.ranges),
                _ => None,
            };
            if let Some(count) = wanted {
                *count = varint(&mut value).unwrap_or(0);
            }
            at = next;
        }
        // RocksDB counts range deletions among the deleted keys.
        counts.deletions = counts.deletions.saturating_sub(counts.ranges);
        counts
    }
}
