//! Shard: one core's part of the key space; the only writer of its keys.

use crate::batch::Batch;
use crate::disk::DiskFile;
use crate::engine::Shared;
use crate::error::Error;
use crate::fold::Merge;
use crate::key::KeyRange;
use crate::log::{LogPosition, LogWriter, SyncHandle};
use crate::memtable::Memtable;
use crate::merge::{Direction, MemtableCursor, Merged, Source, TablesCursor};
use crate::scan::Scan;
use crate::snapshot::{Snapshot, Snapshots};
use crate::table::{self, Table, TableWriter};
use crate::value::{Bytes, Resolver, Value};
use crate::version::Version;
use std::sync::Arc;

/// When a batch survives what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing yet: it is in the buffer that the next [`Shard::commit`] writes.
    Buffered,
    /// Survives the death of the process when `apply` returns.
    Os,
    /// Survives a power loss when `apply` returns; blocks for it. To sync on another thread apply
    /// buffered, commit, and use the [`SyncHandle`].
    Sync,
}

/// A shard: its memtables, its log, and its view of the tables. Its reads see its writes at once.
///
/// Reads look at the view of the tables that the last `commit`, `rotate` or `refresh` left; it is
/// complete at all times, but an old one keeps memtables and removed tables in memory.
pub struct Shard {
    shared: Arc<Shared>,
    number: usize,
    range: KeyRange,
    snapshots: Arc<Snapshots>,
    log: LogWriter,
    active: Memtable,
    /// Not yet in tables, oldest first, with their numbers.
    immutable: Vec<(u64, Arc<Memtable>)>,
    next_memtable: u64,
    /// Log bytes since the last rotation.
    log_bytes: u64,
    view: Arc<Version>,
    view_number: u64,
    /// The tables of level 0 that overlap this shard, newest first.
    level0: Vec<Arc<Table>>,
}

impl Shard {
    pub(crate) fn new(
        shared: Arc<Shared>,
        number: usize,
        range: KeyRange,
        log: LogWriter,
        active: Memtable,
    ) -> Self {
        let snapshots = shared.snapshots[number].clone();
        let mut shard = Self {
            number,
            range,
            snapshots,
            log,
            active,
            immutable: Vec::new(),
            next_memtable: 1,
            log_bytes: 0,
            view: shared.version.load_full(),
            view_number: 0,
            level0: Vec::new(),
            shared,
        };
        shard.take_view();
        shard
    }

    /// The shard's number: its place among the splits.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// True when the shard owns `key`.
    #[must_use]
    pub fn owns(&self, key: &[u8]) -> bool {
        self.range.contains(key)
    }

    /// Applies all changes of `batch` or, on an error, none. Its keys must belong to the shard
    /// (range deletions are cut to it). Visible to this shard's reads at once; durable as asked.
    ///
    /// # Errors
    /// [`Error::NoSpace`]: nothing was applied when an earlier commit is still waiting for space;
    /// with `Os` or `Sync` it may also be that the batch was applied and its commit found no
    /// space: then it is visible and waits for a later commit. [`Error::Poisoned`]: reopen.
    /// [`Error::TooLarge`]: nothing was applied.
    ///
    /// # Panics
    /// When a key of the batch belongs to another shard.
    pub fn apply(&mut self, batch: &Batch, durability: Durability) -> Result<LogPosition, Error> {
        batch.check()?;
        self.shared.poison.check()?;
        let full = self.log.buffered_bytes() >= crate::limits::LOG_BUFFER_BYTES_MAX;
        if self.log.stalled() || full {
            self.commit()?;
        }
        let mut sequence = self.log.next_sequence();
        let snapshot = self.snapshots.newest();
        let merge = self.shared.merge.as_ref();
        for op in batch.ops() {
            use crate::batch::Op;
            if let Op::Put { key, .. } | Op::Delete { key } | Op::Merge { key, .. } = op {
                assert!(
                    self.range.contains(key),
                    "key {key:x?} of shard {} elsewhere",
                    self.number
                );
            }
        }
        self.log.append(batch);
        let (immutable, level0, view) = (&self.immutable, &self.level0, &self.view);
        let absent_below = |key: &[u8]| {
            if immutable.iter().any(|(_, memtable)| memtable.get(key).next().is_some()) {
                return false;
            }
            if level0.is_empty() && view.levels[1..].iter().all(Vec::is_empty) {
                return true;
            }
            let hash = table::hash(key);
            let deeper = view.levels[1..].iter().filter_map(|tables| {
                let i = tables.partition_point(|t| t.is_below(key));
                tables.get(i)
            });
            !level0.iter().chain(deeper).any(|t| t.may_hold(key, hash))
        };
        for op in batch.ops() {
            self.active.apply(op, sequence, snapshot, &self.range, merge, &absent_below);
            sequence += 1;
        }
        self.log_bytes += batch.encoded_len() as u64;
        match durability {
            Durability::Buffered => Ok(self.log.position()),
            Durability::Os => self.commit(),
            Durability::Sync => {
                self.commit()?;
                self.log.sync_handle().sync()
            }
        }
    }

    /// Writes what is buffered to the operating system in one write: when it returns, everything
    /// applied before survives the death of the process. Also takes the newest view of the tables.
    /// To be called once a turn of the event loop, also when nothing was applied.
    ///
    /// # Errors
    /// [`Error::NoSpace`]: nothing applied since the last good commit may be acknowledged; the next
    /// commit writes it, so it may survive. [`Error::Poisoned`]: reopen.
    pub fn commit(&mut self) -> Result<LogPosition, Error> {
        self.refresh();
        self.log.commit()
    }

    /// A handle that makes durable, from any thread, what this shard committed.
    #[must_use]
    pub fn sync_handle(&self) -> SyncHandle {
        self.log.sync_handle()
    }

    /// The place in the log after all that was applied.
    #[must_use]
    pub fn position(&self) -> LogPosition {
        self.log.position()
    }

    /// The value of `key`, with all merges folded; now, or as `snapshot` saw it.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the value cannot be known because a table is damaged there;
    /// [`Error::Io`] when the disk refuses.
    pub fn get(&self, key: &[u8], snapshot: Option<&Snapshot>) -> Result<Option<Value<'_>>, Error> {
        let mut resolver = Resolver::new(self.bound(snapshot));
        self.resolve(key, &mut resolver)?;
        resolver.finish(key, self.shared.merge.as_ref(), &self.shared.shelf)
    }

    /// Calls `f` with the value of `key`, without copying it.
    ///
    /// # Errors
    /// As [`Shard::get`].
    pub fn get_with<T>(&self, key: &[u8], f: impl FnOnce(Option<&[u8]>) -> T) -> Result<T, Error> {
        Ok(f(self.get(key, None)?.as_deref()))
    }

    /// Calls `f` with the index and value of each of `keys`, in order; all of one moment.
    ///
    /// # Errors
    /// As [`Shard::get`]; `f` was called for the keys before the one that failed.
    pub fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        mut f: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<(), Error> {
        for (i, key) in keys.iter().enumerate() {
            f(i, self.get(key.as_ref(), None)?.as_deref());
        }
        Ok(())
    }

    /// The rows from `start` (inclusive) to `end` (exclusive; none = to the shard's end), in the
    /// direction asked: backward starts at the end. To go on after a key: forward from the key
    /// with a zero byte appended, backward with the key as `end`.
    ///
    /// # Errors
    /// As [`Shard::get`].
    pub fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        snapshot: Option<&Snapshot>,
    ) -> Result<Scan<'_>, Error> {
        let lower = start.max(self.range.lower.as_slice());
        let end = match (end, self.range.upper.as_deref()) {
            (Some(end), Some(upper)) => Some(end.min(upper)),
            (end, upper) => end.or(upper),
        };
        // A range that ends before it starts is empty, not an accident.
        let end = end.map(|end| end.max(lower));
        let mut sources = Vec::new();
        let mut tombstones = Vec::new();
        let memtables = self.immutable.iter().rev().map(|(_, memtable)| memtable.as_ref());
        for memtable in std::iter::once(&self.active).chain(memtables) {
            let cursor = MemtableCursor::new(memtable, lower, end, direction);
            sources.push(Source::Memtable(cursor));
            tombstones.push(memtable.tombstones());
        }
        let level0 = self.level0.iter().map(std::slice::from_ref);
        let deeper = self.view.levels[1..].iter().map(Vec::as_slice);
        for tables in level0.chain(deeper) {
            let from = tables.partition_point(|t| t.is_below(lower));
            let reached = tables[from..].iter().take_while(|t| t.overlaps(lower, end)).count();
            let tables = &tables[from..from + reached];
            if !tables.is_empty() {
                let cursor = TablesCursor::new(tables, lower, end, direction)?;
                sources.push(Source::Tables(Box::new(cursor)));
            }
            for table in tables {
                tombstones.push(table.tombstones()?);
            }
        }
        tombstones.retain(|t| !t.is_empty());
        Ok(Scan {
            rows: Merged::new(sources, direction),
            tombstones,
            merge: self.shared.merge.as_ref(),
            shelf: &self.shared.shelf,
            bound: self.bound(snapshot),
            key: Vec::new(),
            found: Vec::new(),
            failed: false,
        })
    }

    /// The present moment, to read from later.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(self.number, self.log.next_sequence() - 1, &self.snapshots)
    }

    /// True when the memtable is large, or the log that only it keeps alive is.
    #[must_use]
    pub fn wants_rotation(&self) -> bool {
        let bytes_max = self.shared.options.memtable_bytes;
        self.active.bytes() >= bytes_max || self.log_bytes >= 4 * bytes_max as u64
    }

    /// Makes the memtable immutable, to be flushed by a job, and starts a new log segment with the
    /// next commit. Once flushed, what the memtable held is not replayed any more; so apply rows
    /// that carry state derived from the log just before.
    pub fn rotate(&mut self) {
        self.refresh();
        if self.active.is_empty() {
            return;
        }
        let memtable = Arc::new(std::mem::take(&mut self.active));
        let number = self.next_memtable;
        self.next_memtable += 1;
        self.log_bytes = 0;
        self.immutable.push((number, memtable.clone()));
        self.log.close_segment();
        self.shared.queue_flush(self.number, number, memtable);
    }

    /// Memtables that wait for their flush: a measure for back-pressure.
    #[must_use]
    pub fn unflushed(&self) -> usize {
        self.immutable.len()
    }

    /// Bytes in the memtable that takes the writes.
    #[must_use]
    pub fn memtable_bytes(&self) -> usize {
        self.active.bytes()
    }

    /// Takes the newest view of the tables; see the type. One atomic load when nothing changed.
    pub fn refresh(&mut self) {
        if self.shared.version_number() != self.view_number {
            self.take_view();
        }
    }

    pub(crate) fn range(&self) -> &KeyRange {
        &self.range
    }

    pub(crate) fn merge(&self) -> &dyn Merge {
        self.shared.merge.as_ref()
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.log.next_sequence()
    }

    /// A writer of tables with this store's options, on any file.
    pub(crate) fn table_writer(&self, file: Arc<dyn DiskFile>) -> TableWriter {
        let options = &self.shared.options;
        TableWriter::new(file, options.block_bytes, options.bloom_bits)
    }

    /// Brings everything applied into the log and into tables, on this thread.
    pub(crate) fn flush_all(&mut self) -> Result<(), Error> {
        self.commit()?;
        self.rotate();
        self.shared.flush_shard(self.number)?;
        self.refresh();
        Ok(())
    }

    /// The next change gets at least this sequence: what is below is in tables.
    pub(crate) fn skip_to(&mut self, sequence: u64) {
        self.log.skip_to(sequence);
        self.refresh();
    }

    fn take_view(&mut self) {
        // The number first: a version published in between is then taken the next time.
        self.view_number = self.shared.version_number();
        self.view = self.shared.version.load_full();
        let flushed = self.view.flushed_memtables[self.number];
        self.immutable.retain(|(number, _)| *number > flushed);
        let upper = self.range.upper.as_deref();
        let mine = self.view.levels[0].iter().filter(|t| t.overlaps(&self.range.lower, upper));
        self.level0 = mine.cloned().collect();
    }

    fn bound(&self, snapshot: Option<&Snapshot>) -> u64 {
        snapshot.map_or(u64::MAX, |snapshot| {
            assert_eq!(snapshot.shard(), self.number, "a snapshot of another shard");
            snapshot.sequence
        })
    }

    /// Shows `resolver` the changes of `key`, newest source first.
    fn resolve<'a>(&'a self, key: &[u8], resolver: &mut Resolver<'a>) -> Result<(), Error> {
        let memtables = self.immutable.iter().rev().map(|(_, memtable)| memtable.as_ref());
        for memtable in std::iter::once(&self.active).chain(memtables) {
            resolver.cover(memtable.tombstones().covering(key, resolver.bound()));
            for (tag, value) in memtable.get(key) {
                if !resolver.see(tag, || Bytes::Borrowed(value)) {
                    return Ok(());
                }
            }
            resolver.end_of_source();
            if resolver.settled() {
                return Ok(());
            }
        }
        let hash = table::hash(key);
        let level0 = self.level0.iter().filter(|t| t.spans(key));
        let deeper = self.view.levels[1..].iter().filter_map(|tables| {
            let i = tables.partition_point(|t| t.is_below(key));
            tables.get(i).filter(|t| t.spans(key))
        });
        for table in level0.chain(deeper) {
            resolver.cover(table.tombstones()?.covering(key, resolver.bound()));
            table.get(key, hash, &mut |tag, slice| resolver.see(tag, || Bytes::Block(slice)))?;
            resolver.end_of_source();
            if resolver.settled() {
                return Ok(());
            }
        }
        Ok(())
    }
}
