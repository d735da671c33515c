//! Reading one key, or many, from the tables of a version: newest first, no further than needed.
//!
//! Filters are asked before tables are, several at once, so that the processor waits for their
//! memory once and not once for each.

use crate::error::Error;
use crate::merge::{Direction, Source};
use crate::table::{Block, Table, TablesCursor, hash};
use crate::tombstones::RangeTombstones;
use crate::value::Resolver;
use crate::version::Version;
use std::sync::Arc;

/// Filters asked at once.
const FILTERS: usize = 8;

/// The tables that a reader sees.
#[derive(Clone, Copy)]
pub(crate) struct Tables<'a> {
    /// Those of level 0 that may speak of the reader's keys, newest first.
    pub(crate) level0: &'a [Arc<Table>],
    pub(crate) version: &'a Version,
}

impl<'a> Tables<'a> {
    /// Shows `resolver` the changes of `key`, newest table first, until it is settled.
    pub(crate) fn resolve(self, key: &[u8], resolver: &mut Resolver<'a>) -> Result<(), Error> {
        let hash = hash(key);
        let mut candidates = self.candidates(key);
        loop {
            let mut some: [Option<&Table>; FILTERS] = [None; FILTERS];
            let mut admits = [false; FILTERS];
            let mut count = 0;
            for (place, table) in some.iter_mut().zip(candidates.by_ref()) {
                table.prefetch_filter(hash);
                *place = Some(table);
                count += 1;
            }
            for (admits, table) in admits.iter_mut().zip(some.iter().flatten()) {
                *admits = table.admits(hash);
            }
            for (table, admits) in some.iter().flatten().zip(admits) {
                see(table, key, resolver, admits)?;
                if resolver.settled() {
                    return Ok(());
                }
            }
            if count < FILTERS {
                return Ok(());
            }
        }
    }

    /// Shows each resolver the changes of its key, as [`Tables::resolve`]. Level by level and step
    /// by step for all keys together: what one key waits for in memory, others wait for at the same
    /// time, and neighbouring keys share what is read. `keys` ascend.
    pub(crate) fn resolve_many(self, keys: &mut [(&[u8], &mut Resolver<'a>)]) -> Result<(), Error> {
        let hashes: Vec<u64> = keys.iter().map(|(key, _)| hash(key)).collect();
        let mut step = Step::default();
        for table in self.level0 {
            let one = std::slice::from_ref(table);
            step.run(one, keys, &hashes)?;
        }
        for tables in self.version.levels[1..].iter().filter(|tables| !tables.is_empty()) {
            step.run(tables, keys, &hashes)?;
        }
        Ok(())
    }

    /// Cursors over the rows from `start` to `end`, and the range deletions that may cover them.
    pub(crate) fn sources(
        self,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        sources: &mut Vec<Source<'a>>,
        tombstones: &mut Vec<&'a RangeTombstones>,
    ) -> Result<(), Error> {
        let level0 = self.level0.iter().map(std::slice::from_ref);
        let deeper = self.version.levels[1..].iter().map(Vec::as_slice);
        // Each step for all of them, so that their memory is waited for together.
        let mut cursors = Vec::with_capacity(self.level0.len() + 2);
        for tables in level0.chain(deeper) {
            let from = tables.partition_point(|t| t.is_below(start));
            let reached = tables[from..].partition_point(|t| t.overlaps(start, end));
            let tables = &tables[from..from + reached];
            if !tables.is_empty() {
                cursors.push(TablesCursor::unopened(tables, start, end, direction)?);
            }
            for table in tables {
                tombstones.push(table.tombstones()?);
            }
        }
        cursors.iter_mut().try_for_each(|cursor| cursor.find(start, end))?;
        cursors.iter_mut().try_for_each(TablesCursor::settle)?;
        sources.extend(cursors.into_iter().map(Source::Tables));
        Ok(())
    }

    /// The tables that may speak of `key`, newest first.
    fn candidates(self, key: &[u8]) -> impl Iterator<Item = &'a Table> {
        let level0 = self.level0.iter();
        let deeper = self.version.levels[1..].iter().filter_map(move |tables| {
            let i = tables.partition_point(|t| t.is_below(key));
            tables.get(i)
        });
        level0.chain(deeper).filter(move |t| t.spans(key)).map(|t| &**t)
    }
}

/// Shows `resolver` what one table says about `key`.
fn see(table: &Table, key: &[u8], resolver: &mut Resolver<'_>, admits: bool) -> Result<(), Error> {
    let tombstones = table.tombstones()?;
    if !tombstones.is_empty() {
        resolver.cover(tombstones.covering(key, resolver.bound()));
    }
    if admits {
        table.get(key, |tag, value| resolver.see(tag, || value.keep()))?;
    }
    resolver.end_of_source();
    Ok(())
}

/// One run of tables and many keys. Keeps its memory from run to run.
#[derive(Default)]
struct Step<'t> {
    /// For each key: the table that speaks of it, and which of `blocks` may hold it.
    places: Vec<Option<(&'t Table, Option<usize>)>>,
    blocks: Vec<(&'t Table, usize, Option<Block>)>,
}

impl<'t> Step<'t> {
    fn run(
        &mut self,
        tables: &'t [Arc<Table>],
        keys: &mut [(&[u8], &mut Resolver<'_>)],
        hashes: &[u64],
    ) -> Result<(), Error> {
        self.places.clear();
        self.blocks.clear();
        // Keys and tables ascend together.
        let mut from = 0;
        for (key, resolver) in &*keys {
            let mut table = None;
            if !resolver.settled() {
                from += tables[from..].partition_point(|t| t.is_below(key));
                table = tables.get(from).filter(|t| t.spans(key));
            }
            self.places.push(table.map(|table| (&**table, None)));
        }
        for (place, hash) in self.places.iter().zip(hashes) {
            if let Some((table, _)) = place {
                table.prefetch_filter(*hash);
            }
        }
        for (place, hash) in self.places.iter_mut().zip(hashes) {
            if let Some((table, block)) = place {
                *block = table.admits(*hash).then_some(0);
            }
        }
        for (place, (key, _)) in self.places.iter_mut().zip(&*keys) {
            let Some((table, block @ Some(_))) = place else { continue };
            let at = table.first_block(key)?;
            if at == table.blocks()? {
                *block = None;
                continue;
            }
            let same = |(t, i, _): &(&Table, usize, _)| t.number == table.number && *i == at;
            if !self.blocks.last().is_some_and(same) {
                self.blocks.push((*table, at, None));
            }
            *block = Some(self.blocks.len() - 1);
        }
        for (table, at, block) in &mut self.blocks {
            *block = table.cached(*at);
        }
        let warm = self.blocks.iter().flat_map(|(_, _, block)| block).map(|block| block.warm());
        std::hint::black_box(warm.fold(0, u8::wrapping_add));
        for (place, (key, resolver)) in self.places.iter().zip(keys) {
            let Some((table, block)) = place else { continue };
            let tombstones = table.tombstones()?;
            if !tombstones.is_empty() {
                resolver.cover(tombstones.covering(key, resolver.bound()));
            }
            if let Some((table, at, block)) = block.and_then(|i| self.blocks.get_mut(i)) {
                let block = match block {
                    Some(block) => block,
                    None => block.insert(table.block(*at)?),
                };
                table.get_in(key, *at, block, |tag, value| resolver.see(tag, || value.keep()))?;
            }
            resolver.end_of_source();
        }
        Ok(())
    }
}
