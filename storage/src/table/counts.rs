//! What a table's properties say that it holds: enough to see whether a compaction would pay, and to
//! tell people.

use super::raw::RawBlock;
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
    pub(crate) merges: u64,
    /// Bytes of keys and values before compression.
    pub(crate) raw_bytes: u64,
}

impl TableCounts {
    /// Reads the properties block; zeros for what it does not say.
    pub(crate) fn of_properties(block: &RawBlock<'_>) -> Self {
        let mut counts = Self::default();
        // What is malformed is found out by whoever has to understand it.
        let _ = block.each(|name, mut value| {
            let wanted = match name {
                b"rocksdb.raw.key.size" | b"rocksdb.raw.value.size" => {
                    counts.raw_bytes += varint(&mut value).unwrap_or(0);
                    return Some(());
                }
                b"rocksdb.merge.operands" => &mut counts.merges,
                b"rocksdb.num.entries" => &mut counts.entries,
                b"rocksdb.deleted.keys" => &mut counts.deletions,
                b"rocksdb.num.range-deletions" => &mut counts.ranges,
                _ => return Some(()),
            };
            *wanted = varint(&mut value).unwrap_or(0);
            Some(())
        });
        // RocksDB counts range deletions among the deleted keys.
        counts.deletions = counts.deletions.saturating_sub(counts.ranges);
        counts
    }
}
