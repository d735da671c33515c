//! Sources: where the rows of a shard are at a moment; what a read goes through.
//!
//! They are replaced, never changed, but for the memtable that takes the writes: of that a reader
//! sees what its bound lets it see.

use crate::engine::Shared;
use crate::error::Error;
use crate::lookup::Tables;
use crate::memtable::Memtable;
use crate::merge::{Direction, MemtableCursor, Merged, Source};
use crate::scan::Scan;
use crate::sync::Counted;
use crate::table::Table;
use crate::value::{Bytes, Resolver, Value};
use crate::version::Version;
use std::sync::Arc;

/// The memtables and tables of a shard.
#[derive(Clone)]
pub(crate) struct Sources {
    pub(crate) shared: Arc<Shared>,
    /// The shard's number.
    pub(crate) number: usize,
    /// Takes the writes.
    pub(crate) active: Counted<Memtable>,
    /// Not yet in tables, oldest first, with their numbers.
    pub(crate) immutable: Vec<(u64, Counted<Memtable>)>,
    pub(crate) view: Arc<Version>,
    /// The tables of level 0 that overlap this shard, newest first.
    pub(crate) level0: Vec<Arc<Table>>,
    /// What was published when these became the sources: no reader of them has a lower bound.
    pub(crate) floor: u64,
}

impl Sources {
    /// The memtables, newest first.
    fn memtables(&self) -> impl Iterator<Item = &Memtable> {
        let immutable = self.immutable.iter().rev().map(|(_, memtable)| memtable.as_ref());
        std::iter::once(self.active.as_ref()).chain(immutable)
    }

    pub(crate) fn get(&self, key: &[u8], bound: u64) -> Result<Option<Value<'_>>, Error> {
        let mut resolver = Resolver::new(bound);
        self.resolve(key, &mut resolver)?;
        resolver.finish(key, self.shared.merge.as_ref(), &self.shared.shelf)
    }

    pub(crate) fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        bound: u64,
        mut f: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<(), Error> {
        if let [key] = keys {
            f(0, self.get(key.as_ref(), bound)?.as_deref());
            return Ok(());
        }
        let mut resolvers: Vec<Resolver<'_>> = keys.iter().map(|_| Resolver::new(bound)).collect();
        let mut open = Vec::with_capacity(keys.len());
        for (key, resolver) in keys.iter().zip(&mut resolvers) {
            self.resolve_in_memory(key.as_ref(), resolver);
            if !resolver.settled() {
                open.push((key.as_ref(), resolver));
            }
        }
        open.sort_unstable_by_key(|(key, _)| *key);
        self.tables().resolve_many(&mut open)?;
        for (i, (key, resolver)) in keys.iter().zip(resolvers).enumerate() {
            let (merge, shelf) = (self.shared.merge.as_ref(), &self.shared.shelf);
            f(i, resolver.finish(key.as_ref(), merge, shelf)?.as_deref());
        }
        Ok(())
    }

    pub(crate) fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        bound: u64,
    ) -> Result<Scan<'_>, Error> {
        let range = &self.shared.ranges[self.number];
        let lower = start.max(range.lower.as_slice());
        let end = match (end, range.upper.as_deref()) {
            (Some(end), Some(upper)) => Some(end.min(upper)),
            (end, upper) => end.or(upper),
        };
        // A range that ends before it starts is empty, not an accident.
        let end = end.map(|end| end.max(lower));
        let mut sources = Vec::with_capacity(1 + self.immutable.len() + self.level0.len() + 2);
        let mut tombstones = Vec::new();
        for memtable in self.memtables() {
            // Who sees a change sees this sequence raised, too.
            if memtable.last_sequence() > 0 {
                let cursor = MemtableCursor::new(memtable, lower, end, direction);
                sources.push(Source::Memtable(cursor));
            }
            tombstones.extend(memtable.tombstones().iter().map(AsRef::as_ref));
        }
        self.tables().sources(lower, end, direction, &mut sources, &mut tombstones)?;
        tombstones.retain(|t| !t.is_empty());
        let rows = Merged::new(sources, direction);
        let merge = self.shared.merge.as_ref();
        let shelf = &self.shared.shelf;
        Ok(Scan::new(rows, tombstones, direction, merge, shelf, bound))
    }

    fn tables(&self) -> Tables<'_> {
        Tables { level0: &self.level0, version: &self.view }
    }

    /// Shows `resolver` the changes of `key`, newest source first.
    fn resolve<'a>(&'a self, key: &[u8], resolver: &mut Resolver<'a>) -> Result<(), Error> {
        self.resolve_in_memory(key, resolver);
        if resolver.settled() { Ok(()) } else { self.tables().resolve(key, resolver) }
    }

    /// Shows `resolver` the changes of `key` that are in memtables.
    fn resolve_in_memory<'a>(&'a self, key: &[u8], resolver: &mut Resolver<'a>) {
        for memtable in self.memtables() {
            resolver.cover(memtable.covering(key, resolver.bound()));
            for (tag, value) in memtable.get(key) {
                if !resolver.see(tag, || Bytes::Borrowed(value)) {
                    return;
                }
            }
            resolver.end_of_source();
            if resolver.settled() {
                return;
            }
        }
    }
}
