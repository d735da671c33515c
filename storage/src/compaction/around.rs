//! Around damage: how a merging goes on where some of its tables cannot be read. Pure.
//!
//! What can be read goes where it belongs. Where the damage is nothing changes its place: the damaged
//! blocks stay where they are, as a table that ends with them; what is newer is merged among itself
//! and stays above; and what is older than all damage goes on. So who reads there meets the same
//! changes in the same order, and the same damage before whatever is older.

use crate::compaction::choose::Choice;
use crate::key::KeyRange;
use crate::table::Table;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A table that cannot be read whole, and what of it stays where it is.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) table: Arc<Table>,
    pub(crate) level: usize,
    pub(crate) range: KeyRange,
}

/// A piece of a merging: what is read, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) range: KeyRange,
    /// The tables that are read, by number; none: all of them.
    pub(crate) tables: Option<BTreeSet<u64>>,
    /// What it writes stays at the level of the upper tables, above damage.
    pub(crate) stays: bool,
}

/// What of a choice is damaged.
#[derive(Clone, Default)]
pub(crate) struct Around {
    kept: Vec<Kept>,
    /// Where damage is, by key, apart from each other.
    regions: Vec<KeyRange>,
}

impl Part {
    /// All of the merging's tables, in `range`.
    pub(crate) fn of_all(range: KeyRange) -> Self {
        Self { range, tables: None, stays: false }
    }

    pub(crate) fn reads(&self, table: &Table) -> bool {
        self.tables.as_ref().is_none_or(|tables| tables.contains(&table.number))
            && table.overlaps(&self.range.lower, self.range.upper.as_deref())
    }
}

impl Around {
    pub(crate) fn of(choice: &Choice) -> Self {
        let mut regions: Vec<KeyRange> = Vec::new();
        let mut broken: Vec<(usize, &Arc<Table>)> = Vec::new();
        let upper = choice.upper.iter().map(|t| (choice.upper_level, t));
        for (level, table) in upper.chain(choice.lower.iter().map(|t| (choice.level, t))) {
            if let Some(range) = table.unreadable() {
                regions.push(range);
                broken.push((level, table));
            }
        }
        // Blocks are left as they are, so a region that ends within one grows.
        loop {
            let before = regions.clone();
            for (_, table) in &broken {
                for region in &mut regions {
                    if table.overlaps(&region.lower, region.upper.as_deref()) {
                        let grown = table.grown(region);
                        region.lower = region.lower.clone().min(grown.lower);
                        region.upper = region.upper.clone().max(grown.upper);
                    }
                }
            }
            regions = united(regions);
            if regions == before {
                break;
            }
        }
        let kept = broken.into_iter().filter_map(|(level, table)| {
            let own = table.unreadable()?;
            let region = regions.iter().find(|region| meet(region, &own))?;
            Some(Kept { table: table.clone(), level, range: table.grown(region) })
        });
        Self { kept: kept.collect(), regions }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub(crate) fn kept(&self) -> &[Kept] {
        &self.kept
    }

    /// True when all that `table` speaks of is where damage is.
    pub(crate) fn surrounds(&self, table: &Table) -> bool {
        let (lower, upper) = (&table.bounds.smallest, Some(table.upper()));
        self.regions.iter().any(|region| region.lower <= *lower && upper <= region.upper)
    }

    /// The depth of what is left in level 0, of which `choice` is, when all is done; reckoned as that
    /// of a [`Group`](super::levels::Group).
    pub(crate) fn residue(&self, choice: &Choice, splits: &[Vec<u8>]) -> usize {
        let place = |number: u64| choice.upper.iter().position(|t| t.number == number);
        let kept = self.kept.iter().filter(|kept| kept.level == choice.upper_level);
        let mut left: Vec<(Option<usize>, KeyRange)> =
            kept.map(|kept| (place(kept.table.number), kept.range.clone())).collect();
        for piece in self.pieces(splits) {
            let stays = self.runs(choice, &piece).into_iter().filter(|part| part.stays);
            left.extend(stays.map(|part| {
                let newest = part.tables.iter().flatten().filter_map(|number| place(*number)).min();
                (newest, part.range)
            }));
        }
        left.sort_by_key(|(place, _)| *place);
        let mut depths: Vec<usize> = Vec::with_capacity(left.len());
        for (i, (_, range)) in left.iter().enumerate() {
            let newer = left[..i].iter().zip(&depths).filter(|((_, other), _)| meet(other, range));
            depths.push(1 + newer.map(|(_, depth)| *depth).max().unwrap_or(0));
        }
        depths.into_iter().max().unwrap_or(0)
    }

    /// The parts of the merging: `ranges`, which are all keys, without the regions, and these.
    pub(crate) fn parts(
        &self,
        choice: &Choice,
        ranges: Vec<KeyRange>,
        splits: &[Vec<u8>],
    ) -> Vec<Part> {
        let mut parts = Vec::new();
        for range in ranges {
            let mut lower = range.lower.clone();
            let mut over = false;
            let behind = |region: &&KeyRange| region.upper.as_ref() > Some(&range.lower);
            for region in self.regions.iter().filter(behind) {
                let inside = range.upper.as_ref().is_none_or(|upper| region.lower < *upper);
                if !inside {
                    break;
                }
                if lower < region.lower {
                    let upper = Some(region.lower.clone());
                    parts.push(Part::of_all(KeyRange { lower, upper }));
                }
                lower = region.upper.clone().unwrap_or_default();
                over = range.upper.as_ref().is_some_and(|upper| *upper <= lower);
            }
            if !over {
                parts.push(Part::of_all(KeyRange { lower, upper: range.upper }));
            }
        }
        parts.extend(self.pieces(splits).iter().flat_map(|piece| self.runs(choice, piece)));
        parts
    }

    /// The regions, cut where something that stays begins or ends, and between shards: a table of
    /// level 0 is as new as its newest change, and only within a shard can changes be compared.
    fn pieces(&self, splits: &[Vec<u8>]) -> Vec<KeyRange> {
        let mut cuts: BTreeSet<&Vec<u8>> = splits.iter().collect();
        for kept in &self.kept {
            cuts.insert(&kept.range.lower);
            cuts.extend(&kept.range.upper);
        }
        let mut pieces = Vec::new();
        for region in &self.regions {
            let mut lower = region.lower.clone();
            let within = |cut: &&&Vec<u8>| {
                **cut > &region.lower && region.upper.as_ref().is_none_or(|end| *cut < &end)
            };
            for cut in cuts.iter().filter(within) {
                let upper = Some((*cut).clone());
                pieces
                    .push(KeyRange { lower: std::mem::replace(&mut lower, (*cut).clone()), upper });
            }
            pieces.push(KeyRange { lower, upper: region.upper.clone() });
        }
        pieces
    }

    /// What is done in a piece of a region: the tables between those that stay, newest first.
    fn runs(&self, choice: &Choice, piece: &KeyRange) -> Vec<Part> {
        let stays = |table: &Table| {
            let mut kept = self.kept.iter().filter(|kept| kept.table.number == table.number);
            kept.any(|kept| meet(&kept.range, piece))
        };
        let here = |table: &&Arc<Table>| table.overlaps(&piece.lower, piece.upper.as_deref());
        let mut upper: Vec<&Arc<Table>> = choice.upper.iter().filter(here).collect();
        if choice.upper_level > 0 {
            // None of them is newer than the other where it matters.
            upper.sort_by_key(|t| !stays(t));
        }
        let mut lower: Vec<&Arc<Table>> = choice.lower.iter().filter(here).collect();
        lower.sort_by_key(|t| !stays(t));
        let mut runs = Vec::new();
        let mut run = BTreeSet::new();
        let mut end = |run: &mut BTreeSet<u64>, stays: bool| {
            let tables = std::mem::take(run);
            if !tables.is_empty() {
                runs.push(Part { range: piece.clone(), tables: Some(tables), stays });
            }
        };
        // Between tables of a deeper level others may stand that are not merged.
        let apart = choice.upper_level > 0 && lower.iter().any(|t| stays(t));
        for (i, table) in upper.iter().chain(&lower).enumerate() {
            if stays(table) {
                end(&mut run, true);
                continue;
            }
            run.insert(table.number);
            if apart && i < upper.len() {
                end(&mut run, true);
            }
        }
        end(&mut run, false);
        runs
    }
}

fn meet(a: &KeyRange, b: &KeyRange) -> bool {
    a.upper.as_ref().is_none_or(|end| b.lower < *end)
        && b.upper.as_ref().is_none_or(|end| a.lower < *end)
}

/// `ranges` by key, with those as one that meet.
fn united(mut ranges: Vec<KeyRange>) -> Vec<KeyRange> {
    ranges.sort_by(|a, b| a.lower.cmp(&b.lower));
    let mut all: Vec<KeyRange> = Vec::new();
    for range in ranges {
        match all.last_mut() {
            Some(last) if meet(last, &range) => last.upper = last.upper.clone().max(range.upper),
            _ => all.push(range),
        }
    }
    all
}
