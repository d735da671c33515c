//! Version: which tables make up the store at a moment. Immutable; readers hold one as they read.

use crate::limits::LEVELS;
use crate::table::Table;
use std::sync::Arc;

/// An immutable picture of the tables.
pub(crate) struct Version {
    /// Level 0: newest first, may overlap. Deeper levels: by key, do not overlap, older downwards.
    pub(crate) levels: Vec<Vec<Arc<Table>>>,
    /// For each shard: memtables up to this number are in tables.
    pub(crate) flushed_memtables: Vec<u64>,
}

impl Version {
    pub(crate) fn new(tables: Vec<(usize, Arc<Table>)>, flushed_memtables: Vec<u64>) -> Self {
        let mut levels: Vec<Vec<Arc<Table>>> = (0..LEVELS).map(|_| Vec::new()).collect();
        for (level, table) in tables {
            levels[level].push(table);
        }
        levels[0].sort_by_key(|t| std::cmp::Reverse((t.bounds.last_sequence, t.number)));
        for level in &mut levels[1..] {
            level.sort_by(|a, b| a.bounds.smallest.cmp(&b.bounds.smallest));
        }
        Self { levels, flushed_memtables }
    }

    /// All tables with their levels.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (usize, &Arc<Table>)> {
        self.levels
            .iter()
            .enumerate()
            .flat_map(|(level, tables)| tables.iter().map(move |t| (level, t)))
    }

    /// This version without the tables numbered `removed` and with those `added`.
    pub(crate) fn edited(
        &self,
        removed: &[u64],
        added: Vec<(usize, Arc<Table>)>,
        flushed: Option<(usize, u64)>,
    ) -> Self {
        let kept = self.tables().filter(|(_, t)| !removed.contains(&t.number));
        let tables = kept.map(|(level, t)| (level, t.clone())).chain(added).collect();
        let mut flushed_memtables = self.flushed_memtables.clone();
        if let Some((shard, memtable)) = flushed {
            flushed_memtables[shard] = memtable;
        }
        Self::new(tables, flushed_memtables)
    }

    /// Bytes in a level.
    pub(crate) fn level_bytes(&self, level: usize) -> u64 {
        self.levels[level].iter().map(|t| t.bounds.bytes).sum()
    }

    /// True when any table may speak of a key in `lower..upper`.
    pub(crate) fn speaks_of(&self, lower: &[u8], upper: Option<&[u8]>) -> bool {
        self.levels[0].iter().any(|t| t.overlaps(lower, upper))
            || self.reaches_below(1, lower, upper)
    }

    /// True when a table in a level from `level` on may speak of a key in `lower..upper`.
    pub(crate) fn reaches_below(&self, level: usize, lower: &[u8], upper: Option<&[u8]>) -> bool {
        self.levels.iter().skip(level).any(|tables| {
            let first = tables.partition_point(|t| t.is_below(lower));
            tables.get(first).is_some_and(|t| t.overlaps(lower, upper))
        })
    }
}
