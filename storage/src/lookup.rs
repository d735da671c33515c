//! Reading one key, or many, from the tables of a version: newest first, no further than needed.
//!
//! Filters are asked before tables are, several at once, so that the processor waits for their
//! memory once and not once for each.

use crate::error::Error;
use crate::merge::{Direction, Source};
use crate::table::{Slice, Table, TablesCursor, hash};
use crate::tombstones::RangeTombstones;
use crate::value::{Bytes, Resolver};
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
                *place = Some(table);
                count += 1;
            }
            for (admits, table) in admits.iter_mut().zip(some.iter().flatten()) {
                *admits = table.admits(hash);
            }
            for (table, admits) in some.iter().flatten().zip(admits) {
                see(table, key, admits, &mut None, resolver)?;
                if resolver.settled() {
                    return Ok(());
                }
            }
            if count < FILTERS {
                return Ok(());
            }
        }
    }

    /// Shows each resolver the changes of its key, as [`Tables::resolve`]. Table by table, so that
    /// neighbouring keys share what is read. `keys` ascend.
    pub(crate) fn resolve_many(self, keys: &mut [(&[u8], &mut Resolver<'a>)]) -> Result<(), Error> {
        let hashes: Vec<u64> = keys.iter().map(|(key, _)| hash(key)).collect();
        let mut admits = vec![false; keys.len()];
        for table in self.level0 {
            for (admits, (hash, (key, resolver))) in
                admits.iter_mut().zip(hashes.iter().zip(&*keys))
            {
                *admits = !resolver.settled() && table.may_hold(key, *hash);
            }
            let mut last = None;
            for ((key, resolver), admits) in keys.iter_mut().zip(&admits) {
                if !resolver.settled() && table.spans(key) {
                    see(table, key, *admits, &mut last, resolver)?;
                }
            }
        }
        for tables in self.version.levels[1..].iter().filter(|tables| !tables.is_empty()) {
            // Keys and tables ascend together.
            let mut at: Vec<Option<&Table>> = Vec::with_capacity(keys.len());
            let mut from = 0;
            for (key, resolver) in &*keys {
                if !resolver.settled() {
                    from += tables[from..].partition_point(|t| t.is_below(key));
                }
                let table = tables.get(from).filter(|t| !resolver.settled() && t.spans(key));
                at.push(table.map(|table| &**table));
            }
            for (admits, (hash, table)) in admits.iter_mut().zip(hashes.iter().zip(&at)) {
                *admits = table.is_some_and(|table| table.admits(*hash));
            }
            let mut last = None;
            let mut of = 0;
            for (((key, resolver), admits), table) in keys.iter_mut().zip(&admits).zip(&at) {
                if let Some(table) = table {
                    if table.number != of {
                        (of, last) = (table.number, None);
                    }
                    see(table, key, *admits, &mut last, resolver)?;
                }
            }
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
        for tables in level0.chain(deeper) {
            let from = tables.partition_point(|t| t.is_below(start));
            let reached = tables[from..].partition_point(|t| t.overlaps(start, end));
            let tables = &tables[from..from + reached];
            if !tables.is_empty() {
                let cursor = TablesCursor::new(tables, start, end, direction)?;
                sources.push(Source::Tables(Box::new(cursor)));
            }
            for table in tables {
                tombstones.push(table.tombstones()?);
            }
        }
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
fn see(
    table: &Table,
    key: &[u8],
    admits: bool,
    last: &mut Option<(usize, Arc<crate::table::Block>)>,
    resolver: &mut Resolver<'_>,
) -> Result<(), Error> {
    let tombstones = table.tombstones()?;
    if !tombstones.is_empty() {
        resolver.cover(tombstones.covering(key, resolver.bound()));
    }
    if admits {
        table.get(key, last, |tag, block, range| {
            resolver.see(tag, || Bytes::Block(Slice { block: block.clone(), range }))
        })?;
    }
    resolver.end_of_source();
    Ok(())
}
