//! How large each level should be, and how far from that a version is. Pure.
//!
//! Sizes are reckoned upwards from the last level: each level above may hold a tenth of the one
//! below, so that what is obsolete is at most a ninth of what is alive. While the store is small all
//! levels between are empty and level 0 goes straight to the last one.

use crate::limits::LEVELS;
use crate::options::Options;
use crate::table::Table;
use crate::version::Version;
use std::sync::Arc;

/// How many times as large each level is as the one above.
const RATIO: u64 = 10;
/// A level above is used once the one below holds so many times `level1_bytes`. Before, merging level
/// 0 straight into it writes less than going through a level that every merging fills and empties.
const LEVEL1_TIMES: u64 = 4;

/// The sizes that levels should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The level into which level 0 is merged.
    pub(crate) base: usize,
    /// The most bytes a level should hold. Levels above the base should hold nothing, the last one
    /// holds what there is.
    pub(crate) targets: [u64; LEVELS],
}

impl Shape {
    pub(crate) fn of(version: &Version, options: &Options) -> Self {
        let largest = (1..LEVELS).map(|level| version.level_bytes(level)).max().unwrap_or(0);
        let last = LEVELS - 1;
        let mut targets = [0; LEVELS];
        targets[last] = u64::MAX;
        let (mut base, mut size) = (last, largest);
        while size > options.level1_bytes.saturating_mul(LEVEL1_TIMES) && base > 1 {
            base -= 1;
            size /= RATIO;
            targets[base] = size.max(1);
        }
        // A level that is to be emptied still stands above all below it: nothing may go past it.
        let first = (1..LEVELS).find(|level| !version.levels[*level].is_empty());
        Self { base: first.map_or(base, |first| first.min(base)), targets }
    }

    /// The bytes to which `level` may be filled from outside, without too much of it being merged for that.
    pub(crate) fn room(&self, level: usize, options: &Options) -> u64 {
        self.targets[level].max(options.level1_bytes.saturating_mul(LEVEL1_TIMES))
    }
}

/// Tables of level 0 that overlap each other, directly or through others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    /// Places in level 0, ascending: newest first.
    pub(crate) members: Vec<usize>,
    /// How many of them a reader of one key may have to look at.
    pub(crate) depth: usize,
}

/// The groups of level 0, by key. `tables` are newest first.
pub(crate) fn groups(tables: &[Arc<Table>]) -> Vec<Group> {
    let uppers: Vec<Vec<u8>> = tables.iter().map(|t| t.upper()).collect();
    let mut by_key: Vec<usize> = (0..tables.len()).collect();
    by_key.sort_by(|a, b| tables[*a].bounds.smallest.cmp(&tables[*b].bounds.smallest));
    let mut groups: Vec<Group> = Vec::new();
    let mut end: &[u8] = &[];
    for i in by_key {
        match groups.last_mut() {
            Some(group) if tables[i].bounds.smallest.as_slice() < end => group.members.push(i),
            _ => groups.push(Group { members: vec![i], depth: 0 }),
        }
        end = end.max(&uppers[i]);
    }
    for group in &mut groups {
        group.members.sort_unstable();
        let mut depths: Vec<usize> = Vec::with_capacity(group.members.len());
        for (place, i) in group.members.iter().enumerate() {
            let newer = group.members[..place].iter().zip(&depths);
            let above = newer
                .filter(|(j, _)| {
                    tables[*i].overlaps(&tables[**j].bounds.smallest, Some(&uppers[**j]))
                })
                .map(|(_, depth)| *depth);
            depths.push(1 + above.max().unwrap_or(0));
        }
        group.depth = depths.into_iter().max().unwrap_or(0);
    }
    groups
}

/// Bytes that compactions still have to move until every level has its size.
pub(crate) fn pending_bytes(version: &Version, options: &Options) -> u64 {
    let shape = Shape::of(version, options);
    let level0 = groups(&version.levels[0])
        .into_iter()
        .filter(|group| group.depth >= options.level0_tables)
        .flat_map(|group| group.members)
        .map(|i| version.levels[0][i].bounds.weight())
        .sum::<u64>();
    let deeper = (1..LEVELS - 1)
        .map(|level| version.level_bytes(level).saturating_sub(shape.targets[level]))
        .sum::<u64>();
    level0 + deeper
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{TableBounds, TableCounts};

    fn table(number: u64, smallest: &str, largest: &str, bytes: u64) -> Arc<Table> {
        let bounds = TableBounds {
            bytes,
            smallest: smallest.into(),
            largest: largest.into(),
            last_sequence: number,
            ..TableBounds::default()
        };
        Arc::new(Table::hollow(number, bounds, TableCounts::default()))
    }

    #[test]
    fn sizes_are_reckoned_up_from_the_last_level_until_one_fits() {
        let options = Options { level1_bytes: 25, ..Options::default() };
        let shape = |tables: &[(usize, u64)]| {
            let tables = tables.iter().zip(1..).map(|((l, b), n)| (*l, table(n, "a", "b", *b)));
            Shape::of(&Version::new(tables.collect(), vec![0]), &options)
        };
        assert_eq!(shape(&[]).base, 6);
        assert_eq!(shape(&[(6, 100)]).base, 6, "small: level 0 goes straight to the last level");
        let two = shape(&[(6, 101)]);
        assert_eq!((two.base, two.targets[5]), (5, 10));
        let three = shape(&[(6, 5_000)]);
        assert_eq!((three.base, &three.targets[4..6]), (4, &[50, 500][..]));
        // Obsolete at most: a tenth, a hundredth, ... of what the last level holds.
        assert!(three.targets[..6].iter().sum::<u64>() * 9 <= 5_000);
        let old = shape(&[(1, 70), (2, 800)]);
        assert_eq!((old.base, old.targets[1], old.targets[2]), (1, 0, 0), "drained downwards");
    }

    #[test]
    fn groups_are_what_overlaps_and_their_depth_is_what_one_key_meets() {
        let tables = [
            table(9, "a", "c", 1),
            table(8, "m", "p", 1),
            table(7, "c", "f", 1),
            table(6, "e", "h", 1),
            table(5, "b", "d", 1),
            table(4, "p", "q", 1),
        ];
        let groups = groups(&tables);
        let members: Vec<_> = groups.iter().map(|g| g.members.clone()).collect();
        assert_eq!(members, [vec![0, 2, 3, 4], vec![1, 5]]);
        assert_eq!(groups.iter().map(|g| g.depth).collect::<Vec<_>>(), [3, 2]);
    }
}
