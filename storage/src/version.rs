//! Version: which tables make up the store at a moment. Immutable; readers hold one as they read.

use crate::limits::LEVELS;
use crate::table::Table;
use crate::tombstones::RangeTombstones;
use std::sync::{Arc, OnceLock};

/// An immutable picture of the tables.
pub(crate) struct Version {
    /// Level 0: newest first, may overlap. Deeper levels: by key, do not overlap, older downwards.
    pub(crate) levels: Vec<Vec<Arc<Table>>>,
    /// For each shard: memtables up to this number are in tables.
    pub(crate) flushed_memtables: Vec<u64>,
    /// See [`Version::deletions`].
    deletions: [OnceLock<Arc<RangeTombstones>>; 2],
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
        Self { levels, flushed_memtables, deletions: Default::default() }
    }

    /// All range deletions in its tables; `past`: also those that newer ones overrule, for readers of
    /// the past. Costly the first time, so not to be asked first while others wait.
    pub(crate) fn deletions(&self, past: bool) -> &Arc<RangeTombstones> {
        self.deletions[usize::from(past)].get_or_init(|| {
            let mut all = RangeTombstones::default();
            for table in self.deleting() {
                let tombstones = table.tombstones().into_iter().flat_map(|t| t.iter());
                for (start, end, sequence) in tombstones {
                    all.add(start, end, sequence, if past { u64::MAX } else { 0 });
                }
            }
            Arc::new(all)
        })
    }

    /// The tables that hold range deletions.
    fn deleting(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.tables().map(|(_, t)| t).filter(|t| t.counts.ranges > 0)
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
        let mut next = Self::new(tables, flushed_memtables);
        // Tables move from level to level, so not in any order.
        let sorted = |version: &Self| {
            let mut deleting: Vec<*const Table> = version.deleting().map(Arc::as_ptr).collect();
            deleting.sort_unstable();
            deleting
        };
        if sorted(self) == sorted(&next) {
            next.deletions.clone_from(&self.deletions);
        }
        next
    }

    /// Bytes in a level.
    pub(crate) fn level_bytes(&self, level: usize) -> u64 {
        self.levels[level].iter().map(|t| t.bounds.weight()).sum()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{TableBounds, TableCounts};

    #[test]
    fn range_deletions_are_gathered_anew_only_where_a_table_with_some_came_or_went() {
        let table = |number: u64, ranges: u64| {
            let counts = TableCounts { ranges, ..TableCounts::default() };
            (0, Arc::new(Table::hollow(number, TableBounds::default(), counts)))
        };
        let first = Version::new(vec![table(1, 3), table(2, 0)], vec![0]);
        let gathered = first.deletions(false).clone();
        let second = first.edited(&[2], vec![table(3, 0)], None);
        assert!(Arc::ptr_eq(&gathered, second.deletions(false)));
        let fewer = second.edited(&[1], Vec::new(), None);
        let more = second.edited(&[], vec![table(4, 1)], None);
        for other in [fewer, more] {
            assert!(!Arc::ptr_eq(&gathered, other.deletions(false)));
        }
    }
}
