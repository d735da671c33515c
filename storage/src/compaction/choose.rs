//! Which tables to merge next. Pure: looks at a version, decides.

use crate::limits::LEVELS;
use crate::options::Options;
use crate::table::Table;
use crate::version::Version;
use std::sync::Arc;

/// Tables to be merged into `level`.
pub(crate) struct Choice {
    pub(crate) upper_level: usize,
    /// Each a run of tables without overlap, newest first.
    pub(crate) upper: Vec<Arc<Table>>,
    /// Overlapping tables of the level below.
    pub(crate) lower: Vec<Arc<Table>>,
}

impl Choice {
    pub(crate) fn level(&self) -> usize {
        self.upper_level + 1
    }

    pub(crate) fn inputs(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.upper.iter().chain(&self.lower)
    }
}

/// The compaction that helps readers most, if any is due.
pub(crate) fn choose(version: &Version, options: &Options) -> Option<Choice> {
    level0(version, options).or_else(|| (1..LEVELS - 1).find_map(|l| deeper(version, options, l)))
}

/// All tables of level 0 that overlap each other, once they are too many.
fn level0(version: &Version, options: &Options) -> Option<Choice> {
    let tables = &version.levels[0];
    let mut seen = vec![false; tables.len()];
    for first in 0..tables.len() {
        if std::mem::replace(&mut seen[first], true) {
            continue;
        }
        let mut group = vec![first];
        let mut next = 0;
        while let Some(member) = group.get(next).map(|i| &tables[*i]) {
            let upper = member.upper();
            for (i, table) in tables.iter().enumerate() {
                if !seen[i] && table.overlaps(&member.bounds.smallest, Some(&upper)) {
                    seen[i] = true;
                    group.push(i);
                }
            }
            next += 1;
        }
        if group.len() >= options.level0_tables {
            group.sort_unstable();
            let upper = group.into_iter().map(|i| tables[i].clone()).collect();
            if let Some(choice) = with_lower(version, 0, upper) {
                return Some(choice);
            }
        }
    }
    None
}

/// The oldest table of a level that has outgrown its size.
fn deeper(version: &Version, options: &Options, level: usize) -> Option<Choice> {
    let target = options.level1_bytes.saturating_mul(10u64.saturating_pow(level as u32 - 1));
    if version.level_bytes(level) <= target {
        return None;
    }
    let mut tables: Vec<_> = version.levels[level].iter().collect();
    tables.sort_by_key(|t| (t.bounds.last_sequence, t.number));
    tables.into_iter().find_map(|t| with_lower(version, level, vec![t.clone()]))
}

/// The choice with what lies below it, unless some of it cannot be read.
fn with_lower(version: &Version, upper_level: usize, upper: Vec<Arc<Table>>) -> Option<Choice> {
    let smallest = upper.iter().map(|t| &t.bounds.smallest).min()?;
    let end = upper.iter().map(|t| t.upper()).max()?;
    let below = version.levels[upper_level + 1].iter();
    let lower = below.filter(|t| t.overlaps(smallest, Some(&end))).cloned().collect();
    let choice = Choice { upper_level, upper, lower };
    let readable = choice.inputs().all(|t| !t.is_broken());
    readable.then_some(choice)
}
