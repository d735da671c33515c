//! Which tables to work on next. Pure: looks at a version and at what is being worked on, decides.
//!
//! What each choice keeps to, so that any number of them may run at once and end in any order:
//! no table in two choices; whatever is older and overlaps stays below (an overlapping older table
//! of level 0 comes along); the levels between source and target are empty there; and no two choices
//! write into overlapping parts of one level.

use crate::compaction::around::Around;
use crate::compaction::levels::{Shape, groups};
use crate::key::{KeyRange, ends_before};
use crate::limits::LEVELS;
use crate::options::Options;
use crate::table::Table;
use crate::version::Version;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Tables of one job are at most this many times the size of one, as far as they can be chosen.
pub(crate) const TABLES_MAX: u64 = 25;
/// Range deletions in one table that are worth a compaction of their own.
const RANGES_MANY: u64 = 64;

/// Why tables were chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Range deletions cover all of them, and no snapshot sees them.
    Covered,
    /// Readers have to look at too many tables of level 0.
    Level0,
    /// Their level is too large.
    Size,
    /// They are full of deletions.
    Deletions,
    /// They point into a blob file that is mostly dead.
    Sparse,
}

/// Tables to be merged into `level`.
#[derive(Clone)]
pub(crate) struct Choice {
    pub(crate) reason: Reason,
    pub(crate) work: Work,
    pub(crate) upper_level: usize,
    /// The level into which they go: the same level when they are only rewritten.
    pub(crate) level: usize,
    /// Of level 0: newest first. Else by key.
    pub(crate) upper: Vec<Arc<Table>>,
    /// Overlapping tables of the level into which they go.
    pub(crate) lower: Vec<Arc<Table>>,
}

/// What is to be done with chosen tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Forget them, unread.
    Drop,
    /// Nothing is in their way: they change level as they are.
    Move,
    /// Read them all and write them anew.
    Merge,
    /// Write the only one anew as it is, but for large values that move.
    Relocate,
}

/// What a choice that somebody works on has taken, or a table that is about to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) tables: BTreeSet<u64>,
    /// The level that its tables are taken from: the same level where nothing is.
    pub(crate) upper_level: usize,
    /// The level that it writes into.
    pub(crate) level: usize,
    pub(crate) hull: KeyRange,
    /// Room that it may need on the disk.
    pub(crate) bytes: u64,
}

/// What is looked at.
pub(crate) struct Situation<'a> {
    pub(crate) version: &'a Version,
    pub(crate) options: &'a Options,
    /// What is being worked on.
    pub(crate) claims: &'a [Claim],
    /// The oldest reader of the past in each shard.
    pub(crate) oldest_snapshots: &'a [Option<u64>],
    /// Room on the disk, where it can tell.
    pub(crate) free_bytes: Option<u64>,
}

impl Choice {
    pub(crate) fn inputs(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.upper.iter().chain(&self.lower)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.inputs().map(|t| t.bounds.weight()).sum()
    }

    pub(crate) fn claim(&self) -> Claim {
        let tables = self.inputs().map(|t| t.number).collect();
        let bytes = match self.work {
            Work::Merge | Work::Relocate => self.bytes(),
            Work::Drop | Work::Move => 0,
        };
        let (upper_level, level) = (self.upper_level, self.level);
        Claim { tables, upper_level, level, hull: hull(self.inputs()), bytes }
    }
}

/// What is to be done with `upper`, when `lower` is in its way. Tables smaller than `bytes_min` are
/// rather merged than moved out of level 0, so that they become fewer.
fn work(upper: &[Arc<Table>], lower: &[Arc<Table>], from_level0: bool, bytes_min: u64) -> Work {
    let small = from_level0 && upper.iter().any(|t| t.bounds.bytes < bytes_min);
    let apart = |(i, t): (usize, &Arc<Table>)| {
        let (lower, end) = (&t.bounds.smallest, t.upper());
        upper[..i].iter().all(|other| !other.overlaps(lower, Some(&end)))
    };
    let moves =
        lower.is_empty() && (upper.len() == 1 || !small) && upper.iter().enumerate().all(apart);
    if moves { Work::Move } else { Work::Merge }
}

/// The keys that `tables` speak of, and all between.
fn hull<'a>(tables: impl Iterator<Item = &'a Arc<Table>>) -> KeyRange {
    let mut all: Option<KeyRange> = None;
    for table in tables {
        let (lower, upper) = (&table.bounds.smallest, table.upper());
        match &mut all {
            None => all = Some(KeyRange { lower: lower.clone(), upper: Some(upper) }),
            Some(all) => {
                if *lower < all.lower {
                    all.lower.clone_from(lower);
                }
                if all.upper.as_ref().is_some_and(|end| *end < upper) {
                    all.upper = Some(upper);
                }
            }
        }
    }
    all.unwrap_or(KeyRange { lower: Vec::new(), upper: Some(Vec::new()) })
}

pub(crate) fn meet(a: &KeyRange, b: &KeyRange) -> bool {
    !ends_before(a.upper.as_ref(), &b.lower) && !ends_before(b.upper.as_ref(), &a.lower)
}

/// What helps most, if anything is due.
pub(crate) fn choose(situation: &Situation<'_>) -> Option<Choice> {
    situation.covered().or_else(|| situation.oversized()).or_else(|| situation.full_of_deletions())
}

/// A place to look for a choice.
enum Place {
    /// These tables of level 0.
    Level0(Vec<usize>),
    Level(usize),
}

/// Groups of level 0 that follow each other by key, and nothing between them.
struct Bundle {
    shard: usize,
    members: Vec<usize>,
    span: KeyRange,
    /// What its tables weigh.
    bytes: u64,
    /// They need not be read: each is alone, and not small.
    moves: bool,
}

impl Situation<'_> {
    /// All tables that range deletions cover.
    fn covered(&self) -> Option<Choice> {
        let past = self.oldest_snapshots.iter().any(Option::is_some);
        let tombstones = self.version.deletions(past);
        if tombstones.is_empty() {
            return None;
        }
        for level in (0..LEVELS).rev() {
            let tables = self.version.levels[level].iter().filter(|t| {
                let (lower, upper) = (&t.bounds.smallest, t.upper());
                let last = t.bounds.last_sequence;
                self.is_unclaimed(t)
                    && tombstones.bury(lower, &upper, last, self.oldest_snapshot(t))
            });
            let upper: Vec<Arc<Table>> = tables.cloned().collect();
            if !upper.is_empty() {
                let (reason, work, lower) = (Reason::Covered, Work::Drop, Vec::new());
                return Some(Choice { reason, work, upper_level: level, level, upper, lower });
            }
        }
        None
    }

    /// What has outgrown its level most, measured by what it should be.
    fn oversized(&self) -> Option<Choice> {
        let shape = Shape::of(self.version, self.options);
        let mut places: Vec<(u64, Place)> = Vec::new();
        for level in 1..LEVELS - 1 {
            let free = self.version.levels[level].iter().filter(|t| self.is_free(t));
            let bytes: u64 = free.map(|t| t.bounds.weight()).sum();
            let target = shape.targets[level];
            if bytes > target {
                places.push((bytes.saturating_mul(1000) / target.max(1), Place::Level(level)));
            }
        }
        let level0 = self.crowds(shape.base).into_iter();
        places.extend(level0.map(|(score, members)| (score, Place::Level0(members))));
        places.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
        let mut waits = false;
        for (_, place) in places {
            let choice = match place {
                Place::Level0(members) => {
                    let choice = self.out_of_level0(&members, shape.base, Reason::Level0);
                    // It waits for tables that others work on: let nobody take more of them, or its
                    // turn never comes.
                    waits |= choice.is_none();
                    choice
                }
                Place::Level(level) if waits && (level..=level + 1).contains(&shape.base) => None,
                Place::Level(level) => self.out_of(level),
            };
            if choice.is_some() {
                return choice;
            }
        }
        None
    }

    /// What of level 0 readers have to look at too often, with its score in thousandths. Above damage
    /// something has to stay, so there as many tables more are waited for.
    fn crowds(&self, base: usize) -> Vec<(u64, Vec<usize>)> {
        let tables = &self.version.levels[0];
        let mut crowds = Vec::new();
        // Where nothing overlaps much there may be many tables all the same: in each shard so many.
        let mut strewn = vec![0; self.options.shards()];
        let mut bundles: Vec<Bundle> = Vec::new();
        // Others work on something behind the last bundle, or it is damaged: not to be reached over.
        let mut broken_off = true;
        for group in groups(tables) {
            let taken = !group.members.iter().all(|i| self.is_unclaimed(&tables[*i]));
            if taken {
                broken_off = true;
                continue;
            }
            let residue = self.residue(&group.members, base);
            if residue == 0 {
                let bundle = self.bundle(&group.members);
                strewn[bundle.shard] += group.members.len();
                let joins = |last: &mut Bundle| self.join(last, &bundle, base);
                if broken_off || !bundles.last_mut().is_some_and(joins) {
                    bundles.push(bundle);
                }
            }
            broken_off = residue > 0;
            if group.depth >= self.options.level0_tables + residue {
                let score = (group.depth * 1000 / self.options.level0_tables) as u64;
                crowds.push((score, group.members));
            }
        }
        bundles.retain(|bundle| strewn[bundle.shard] >= 4 * self.options.level0_tables);
        bundles.sort_by_key(|bundle| std::cmp::Reverse(bundle.members.len()));
        crowds.extend(bundles.into_iter().map(|mut bundle| {
            bundle.members.sort_unstable();
            (1000, bundle.members)
        }));
        crowds
    }

    /// The group of level 0 with these members.
    fn bundle(&self, members: &[usize]) -> Bundle {
        let tables = members.iter().map(|i| &self.version.levels[0][*i]);
        let span = hull(tables.clone());
        let (shard, bytes) =
            (self.options.shard_of(&span.lower), tables.map(|t| t.bounds.weight()));
        let (members, bytes) = (members.to_vec(), bytes.sum());
        let moves = members.len() == 1 && bytes >= self.options.table_bytes / 4;
        Bundle { shard, members, span, bytes, moves }
    }

    /// Takes `next` into `last`, if they are of one shard and a job of limited size can merge both, or
    /// nothing is to be read.
    fn join(&self, last: &mut Bundle, next: &Bundle, base: usize) -> bool {
        let (start, end) = (&last.span.lower, next.span.upper.as_deref().unwrap_or_default());
        let lower = self.overlapping(base, start, end);
        let moves = last.moves && next.moves && lower.is_empty();
        let bytes = last.bytes + next.bytes + lower.iter().map(|t| t.bounds.weight()).sum::<u64>();
        let fits = bytes <= self.options.table_bytes.saturating_mul(TABLES_MAX);
        if !(fits || moves) || last.shard != next.shard {
            return false;
        }
        last.members.extend(&next.members);
        last.moves = moves;
        last.bytes += next.bytes;
        last.span.upper.clone_from(&next.span.upper);
        true
    }

    /// How many tables would lie over each other in level 0 when these are merged into `base`.
    fn residue(&self, members: &[usize], base: usize) -> usize {
        let upper: Vec<_> = members.iter().map(|i| self.version.levels[0][*i].clone()).collect();
        let span = hull(upper.iter());
        let lower = self.overlapping(base, &span.lower, span.upper.as_deref().unwrap_or_default());
        if !upper.iter().chain(lower).any(|t| t.is_broken()) {
            return 0;
        }
        let (reason, work, lower) = (Reason::Level0, Work::Merge, lower.to_vec());
        let choice = Choice { reason, work, upper_level: 0, level: base, upper, lower };
        Around::of(&choice).residue(&choice, &self.options.splits)
    }

    fn out_of_level0(&self, members: &[usize], base: usize, reason: Reason) -> Option<Choice> {
        let upper = members.iter().map(|i| self.version.levels[0][*i].clone()).collect();
        self.merged_into(reason, 0, base, upper)
    }

    /// The table of `level` that costs least to merge into the next level for what it moves there.
    fn out_of(&self, level: usize) -> Option<Choice> {
        let mut ranked: Vec<(u64, u64, &Arc<Table>)> = Vec::new();
        for table in self.version.levels[level].iter().filter(|t| self.is_unclaimed(t)) {
            let below = self.overlapping(level + 1, &table.bounds.smallest, &table.upper());
            let cost: u64 = below.iter().map(|t| t.bounds.weight()).sum();
            let bytes = table.bounds.weight().max(1);
            ranked.push((cost.saturating_mul(1000) / bytes, table.number, table));
        }
        ranked.sort_by_key(|(cost, number, _)| (*cost, *number));
        ranked.into_iter().find_map(|(_, _, table)| {
            let choice = self.merged_into(Reason::Size, level, level + 1, vec![table.clone()])?;
            Some(self.widened(choice))
        })
    }

    /// The choice with those tables of its upper level that cost nothing more.
    fn widened(&self, choice: Choice) -> Choice {
        if choice.lower.is_empty() {
            return choice;
        }
        let hull = hull(choice.inputs());
        let bytes_max = self.options.table_bytes.saturating_mul(TABLES_MAX);
        let (mut wide, mut bytes) = (choice.clone(), choice.bytes());
        for table in &self.version.levels[choice.upper_level] {
            let inside = table.bounds.smallest >= hull.lower
                && hull.upper.as_ref().is_some_and(|end| table.upper() <= *end);
            let more = bytes + table.bounds.weight();
            let is_new = choice.upper[0].number != table.number;
            if inside && is_new && more <= bytes_max && self.is_free(table) {
                wide.upper.push(table.clone());
                bytes = more;
            }
        }
        wide.upper.sort_by(|a, b| a.bounds.smallest.cmp(&b.bounds.smallest));
        if self.has_room(&wide) { wide } else { choice }
    }

    /// A table whose deletions cost readers more than its rows are worth; level 0 first.
    fn full_of_deletions(&self) -> Option<Choice> {
        let shape = Shape::of(self.version, self.options);
        let level0 = &self.version.levels[0];
        for group in groups(level0) {
            let span = hull(group.members.iter().map(|i| &level0[*i]));
            let below = self.version.reaches_below(1, &span.lower, span.upper.as_deref());
            let pays = group
                .members
                .iter()
                .map(|i| &level0[*i])
                .any(|t| self.is_mostly_deletions(t) || (!below && self.has_dead_weight(t)));
            if pays
                && let Some(choice) =
                    self.out_of_level0(&group.members, shape.base, Reason::Deletions)
            {
                return Some(choice);
            }
        }
        for level in 1..LEVELS {
            for table in self.version.levels[level].iter().filter(|t| self.is_free(t)) {
                let upper = table.upper();
                let below =
                    self.version.reaches_below(level + 1, &table.bounds.smallest, Some(&upper));
                let choice = if below && self.is_mostly_deletions(table) {
                    self.merged_into(Reason::Deletions, level, level + 1, vec![table.clone()])
                } else if !below && self.has_dead_weight(table) {
                    self.merged_into(Reason::Deletions, level, level, vec![table.clone()])
                } else {
                    None
                };
                if choice.is_some() {
                    return choice;
                }
            }
        }
        None
    }

    /// Nobody needs its deletions any more but for what lies below.
    fn is_settled(&self, table: &Table) -> bool {
        let oldest = self.oldest_snapshot(table);
        oldest.is_none_or(|oldest| oldest >= table.bounds.last_sequence)
    }

    /// The oldest reader of the past in the shards of which `table` speaks.
    fn oldest_snapshot(&self, table: &Table) -> Option<u64> {
        let bounds = &table.bounds;
        let first = self.options.shard_of(&bounds.smallest);
        let last = if bounds.largest_excluded {
            self.options.splits.partition_point(|split| *split < bounds.largest)
        } else {
            self.options.shard_of(&bounds.largest)
        };
        let shards = self.oldest_snapshots.get(first..=last.max(first));
        shards.unwrap_or_default().iter().flatten().min().copied()
    }

    fn is_mostly_deletions(&self, table: &Table) -> bool {
        let counts = table.counts;
        let many = counts.deletions >= self.options.deletions_many
            && counts.deletions.saturating_mul(2) >= counts.entries;
        self.is_settled(table) && (many || counts.ranges >= RANGES_MANY)
    }

    /// Where nothing lies below, deletions hide nothing: a tenth of them is enough.
    fn has_dead_weight(&self, table: &Table) -> bool {
        let counts = table.counts;
        let some = counts.deletions.saturating_mul(10) >= counts.entries && counts.deletions > 0;
        self.is_settled(table) && (some || counts.ranges > 0)
    }

    /// `upper` and what it meets in `level`, if that can be worked on now.
    fn merged_into(
        &self,
        reason: Reason,
        upper_level: usize,
        level: usize,
        upper: Vec<Arc<Table>>,
    ) -> Option<Choice> {
        let span = hull(upper.iter());
        let end = span.upper.as_deref().unwrap_or_default();
        let lower = if level == upper_level {
            Vec::new()
        } else {
            self.overlapping(level, &span.lower, end).to_vec()
        };
        let work = if level == upper_level {
            Work::Merge
        } else {
            work(&upper, &lower, upper_level == 0, self.options.table_bytes / 4)
        };
        let choice = Choice { reason, work, upper_level, level, upper, lower };
        let hull = hull(choice.inputs());
        let between = (upper_level + 1)..level;
        let passes = between.clone().all(|l| self.overlapping(l, &span.lower, end).is_empty());
        let alone = self.claims.iter().all(|claim| {
            let near = claim.level == level || between.contains(&claim.level);
            !(near && meet(&claim.hull, &hull))
        });
        let free = choice.inputs().all(|t| self.is_unclaimed(t)) && self.helps(&choice);
        (free && passes && alone && self.has_room(&choice)).then_some(choice)
    }

    /// Whether merging brings anything on, as far as damage lets it.
    fn helps(&self, choice: &Choice) -> bool {
        // Who moves a table reads nothing of it.
        if choice.work == Work::Move || !choice.inputs().any(|t| t.is_broken()) {
            return true;
        }
        let around = Around::of(choice);
        match choice.reason {
            Reason::Level0 | Reason::Covered => true,
            Reason::Size => around.is_empty() || choice.upper.iter().any(|t| !around.surrounds(t)),
            Reason::Deletions | Reason::Sparse => around.is_empty(),
        }
    }

    /// `table` of `level`, to be written anew so that its large values move, if that can be done now.
    pub(crate) fn relocated(&self, level: usize, table: &Arc<Table>) -> Option<Choice> {
        let choice = self.merged_into(Reason::Sparse, level, level, vec![table.clone()])?;
        Some(Choice { work: Work::Relocate, ..choice })
    }

    /// The tables of `level`, not 0, that speak of keys in `lower..upper`.
    fn overlapping(&self, level: usize, lower: &[u8], upper: &[u8]) -> &[Arc<Table>] {
        let tables = &self.version.levels[level];
        let from = tables.partition_point(|t| t.is_below(lower));
        let count = tables[from..].iter().take_while(|t| t.bounds.smallest.as_slice() < upper);
        &tables[from..from + count.count()]
    }

    fn is_free(&self, table: &Table) -> bool {
        !table.is_broken() && self.is_unclaimed(table)
    }

    fn is_unclaimed(&self, table: &Table) -> bool {
        !self.claims.iter().any(|claim| claim.tables.contains(&table.number))
    }

    /// Whether the disk holds what the choice may write beside its inputs, after what others write
    /// and with the next memtables' tables.
    fn has_room(&self, choice: &Choice) -> bool {
        let Some(free) = self.free_bytes else { return true };
        if choice.work != Work::Merge {
            return true;
        }
        let others: u64 = self.claims.iter().map(|claim| claim.bytes).sum();
        let reserve = self.options.memtable_bytes as u64;
        choice.bytes().saturating_add(others).saturating_add(reserve) <= free
    }
}
