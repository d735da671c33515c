//! Place: the level in which tables may begin that are newer than all else in the store. Pure.
//!
//! Promise: whoever looks from the top downwards meets such a table before all that is older, now and
//! whatever ends that is under way; and its level stays without overlaps. The law for level L:
//! * no table of the levels 0 to L overlaps it: what lies above is met first, and is older; what is
//!   deeper may overlap it, and its range deletions may cover that;
//! * no [`Claim`] of other work that stands between 0 and L at any of its levels, the source included,
//!   meets it: what is written there is older as well, has left out deletions because nothing lay
//!   below, and passes levels that have to stay empty. Work that begins deeper than L ends deeper too;
//! * until the table is in the store it has a claim of its own, so that nothing else comes there.
//!
//! Tables of level 0 never come between: their shards are flushed before, and not written meanwhile.
//! Where no level is right, level 0 is: it may overlap, and the newest comes first. So it is where a level would be
//! larger for it than it should be: what is too much there is merged before all else, and writers are held
//! meanwhile; out of level 0 it comes in pieces, in its turn.

use crate::compaction::choose::{Claim, meet};
use crate::compaction::levels::Shape;
use crate::key::KeyRange;
use crate::limits::LEVELS;
use crate::options::{Options, PlantedBug};
use crate::table::TableBounds;
use crate::version::Version;
use std::collections::{BTreeMap, BTreeSet};

/// The level of each of `tables`, which do not overlap each other.
pub(crate) fn places(
    version: &Version,
    options: &Options,
    claims: &[Claim],
    tables: &[(u64, TableBounds)],
) -> BTreeMap<u64, usize> {
    let shape = Shape::of(version, options);
    let mut filled: Vec<u64> = (0..LEVELS).map(|level| version.level_bytes(level)).collect();
    let bytes_small = options.table_bytes / 4;
    // Small tables become fewer only on the way through level 0: of many in a shard, more are sent that way.
    let mut small: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for (level, tables) in version.levels.iter().enumerate() {
        for table in tables.iter().filter(|t| t.bounds.bytes < bytes_small) {
            *small.entry((level, options.shard_of(&table.bounds.smallest))).or_default() += 1;
        }
    }
    let place = |(number, bounds): &(u64, TableBounds)| {
        let hull = KeyRange { lower: bounds.smallest.clone(), upper: Some(bounds.upper()) };
        let mut level = deepest(version, options, claims, &hull);
        if bounds.bytes < bytes_small {
            let small = small.entry((level, options.shard_of(&hull.lower))).or_default();
            if *small >= 4 * options.level0_tables {
                level = 0;
            }
            *small += 1;
        }
        // Above the base nothing should stand: it would be in the way of level 0.
        if level < shape.base
            || filled[level].saturating_add(bounds.bytes) > shape.room(level, options)
        {
            level = 0;
        }
        filled[level] += bounds.bytes;
        (*number, level)
    };
    tables.iter().map(place).collect()
}

/// What `tables` claim until they are at their `levels`: one claim for each level. None for level 0,
/// where others may come as well.
pub(crate) fn claims(tables: &[(u64, TableBounds)], levels: &BTreeMap<u64, usize>) -> Vec<Claim> {
    let mut claims: BTreeMap<usize, Claim> = BTreeMap::new();
    for (number, bounds) in tables {
        let level = levels[number];
        let (lower, upper) = (bounds.smallest.clone(), Some(bounds.upper()));
        let hull = KeyRange { lower, upper };
        let claim = claims.entry(level).or_insert_with(|| {
            let (tables, hull) = (BTreeSet::new(), hull.clone());
            Claim { tables, upper_level: level, level, hull, bytes: 0 }
        });
        claim.tables.insert(*number);
        claim.hull.lower = hull.lower.min(std::mem::take(&mut claim.hull.lower));
        claim.hull.upper = hull.upper.max(claim.hull.upper.take());
    }
    claims.remove(&0);
    claims.into_values().collect()
}

/// The deepest level in which newer rows in `hull` may be.
fn deepest(version: &Version, options: &Options, claims: &[Claim], hull: &KeyRange) -> usize {
    let past_level0 = options.planted(PlantedBug::IngestPastLevel0);
    let past_jobs = options.planted(PlantedBug::IngestPastJobs);
    let free = |level: usize| {
        let (lower, upper) = (&hull.lower, hull.upper.as_deref());
        let stands = match level {
            0 => !past_level0 && version.levels[0].iter().any(|t| t.overlaps(lower, upper)),
            _ => {
                let tables = &version.levels[level];
                let first = tables.partition_point(|t| t.is_below(lower));
                tables.get(first).is_some_and(|t| t.overlaps(lower, upper))
            }
        };
        let comes = |claim: &Claim| claim.upper_level <= level && meet(&claim.hull, hull);
        !stands && (past_jobs || !claims.iter().any(comes))
    };
    (0..LEVELS).take_while(|level| free(*level)).last().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Table, TableCounts};
    use std::sync::Arc;

    fn bounds(smallest: &str, largest: &str) -> TableBounds {
        let (smallest, largest) = (smallest.into(), largest.into());
        TableBounds { bytes: 100, smallest, largest, ..TableBounds::default() }
    }

    fn options() -> Options {
        Options { table_bytes: 100, level1_bytes: 100, ..Options::default() }
    }

    /// Where a table from "g" to "k" goes into a store of these levels, ranges and work.
    fn place(tables: &[(usize, &str, &str)], claims: &[(usize, usize, &str, &str)]) -> usize {
        let table = |(i, (level, a, b)): (usize, &(usize, &str, &str))| {
            let table = Table::hollow(i as u64, bounds(a, b), TableCounts::default());
            (*level, Arc::new(table))
        };
        let version = Version::new(tables.iter().enumerate().map(table).collect(), vec![0]);
        let claim = |(upper_level, level, a, b): &(usize, usize, &str, &str)| Claim {
            tables: BTreeSet::new(),
            upper_level: *upper_level,
            level: *level,
            hull: KeyRange { lower: (*a).into(), upper: Some((*b).into()) },
            bytes: 0,
        };
        let claims: Vec<Claim> = claims.iter().map(claim).collect();
        places(&version, &options(), &claims, &[(99, bounds("g", "k"))])[&99]
    }

    #[test]
    fn the_deepest_level_with_nothing_in_it_or_above_it() {
        assert_eq!(place(&[], &[]), 6, "an empty store");
        assert_eq!(place(&[(6, "a", "f"), (6, "l", "z"), (0, "l", "z")], &[]), 6, "a gap");
        assert_eq!(place(&[(6, "a", "g")], &[]), 0, "nothing stands above the base");
        assert_eq!(place(&[(6, "a", "g"), (5, "x", "z")], &[]), 5);
        assert_eq!(place(&[(6, "a", "g"), (4, "a", "g"), (3, "x", "z")], &[]), 3);
        assert_eq!(place(&[(4, "k", "z"), (6, "x", "z")], &[]), 0);
        assert_eq!(place(&[(0, "k", "z")], &[]), 0, "older rows of level 0 would be met first");
    }

    #[test]
    fn what_is_under_way_stands_at_all_its_levels() {
        let gaps = [(3, "a", "b"), (4, "x", "z"), (5, "x", "z")];
        assert_eq!(place(&gaps, &[]), 6);
        assert_eq!(place(&gaps, &[(0, 3, "a", "h")]), 0, "it writes what is older");
        assert_eq!(place(&gaps, &[(4, 5, "a", "h")]), 3, "not below what it writes, nor beside it");
        assert_eq!(place(&gaps, &[(5, 5, "a", "h")]), 4);
        assert_eq!(place(&gaps, &[(4, 5, "a", "g")]), 6, "it ends before");
    }

    #[test]
    fn no_level_is_larger_than_it_should_be_for_what_was_placed_there() {
        let table = |number: u64, level: usize, bytes: u64, a: &str, b: &str| {
            let bounds = TableBounds { bytes, ..bounds(a, b) };
            (level, Arc::new(Table::hollow(number, bounds, TableCounts::default())))
        };
        // All of the last level is met; of the one above a tenth of its size is to be had.
        let version = Version::new(vec![table(0, 6, 10_000, "a", "z")], vec![0]);
        let shape = Shape::of(&version, &options());
        assert_eq!(shape.targets[5], 1000);
        let new: Vec<(u64, TableBounds)> =
            (1..=30).map(|i| (i, bounds(&format!("b{i:02}"), &format!("b{i:02}x")))).collect();
        let places = places(&version, &options(), &[], &new);
        let at = |level: usize| places.values().filter(|place| **place == level).count();
        assert_eq!((at(5), at(0)), (10, 20), "100 bytes each");
    }

    #[test]
    fn many_small_tables_go_where_they_become_fewer() {
        let small = |i: usize| {
            let key = format!("{i:03}");
            (i as u64, TableBounds { bytes: 24, ..bounds(&key, &key) })
        };
        let tables: Vec<_> = (0..40).map(small).collect();
        let version = Version::new(Vec::new(), vec![0]);
        let places = places(&version, &options(), &[], &tables);
        let deep = places.values().filter(|level| **level == 6).count();
        let flat = places.values().filter(|level| **level == 0).count();
        assert_eq!((deep, flat), (4 * options().level0_tables, 40 - deep));
        // Those of another shard do not count.
        let options = Options { splits: vec![b"020".to_vec()], ..options() };
        let version = Version::new(Vec::new(), vec![0; 2]);
        let places = super::places(&version, &options, &[], &tables);
        let deep = |lower: u64| (lower..lower + 20).filter(|i| places[i] == 6).count();
        assert_eq!((deep(0), deep(20)), (4 * options.level0_tables, 4 * options.level0_tables));
    }
}
