//! Shard: one core's part of the key space; the only writer of its keys.

use crate::batch::Batch;
use crate::compaction::pace::{Debt, share};
use crate::disk::DiskFile;
use crate::engine::Shared;
use crate::error::Error;
use crate::fold::Merge;
use crate::key::KeyRange;
use crate::log::{LogPosition, LogWriter, SyncHandle};
use crate::memtable::{Active, HUGE_FROM, Memtable, Retired};
use crate::merge::Direction;
use crate::options::Options;
use crate::poison::Poison;
use crate::reader::{Published, Reader};
use crate::scan::Scan;
use crate::snapshot::{Snapshot, Snapshots};
use crate::sources::Sources;
use crate::sync::Counted;
use crate::table::{self, TableWriter};
use crate::value::Value;
use std::collections::VecDeque;
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
    active: Active,
    next_memtable: u64,
    /// An immutable memtable that no job may flush yet.
    held: Option<Held>,
    /// Size at which the memtable is full.
    full_bytes: usize,
    /// Log bytes since the last rotation.
    log_bytes: u64,
    /// What reads go through now.
    sources: Arc<Sources>,
    view_number: u64,
    /// What readers on other threads go through, once there are any.
    published: Option<Arc<Published>>,
    /// Sources that were replaced, oldest first, with what the memtable took out of reach while they
    /// counted. They go when no reader holds them any more.
    replaced: VecDeque<(Arc<Sources>, Retired)>,
}

/// Lives while a batch is being applied, and is dropped only by a panic in the middle, from the caller's
/// [`Merge`]: then a part of the batch is in the memtable, and the whole in the buffer of the log. Nothing
/// of it may be written.
struct Whole<'a>(&'a Poison);

impl Drop for Whole<'_> {
    fn drop(&mut self) {
        self.0.set("a panic broke off a batch that was being applied");
    }
}

/// A memtable that is immutable and not to be flushed yet.
struct Held {
    number: u64,
    memtable: Counted<Memtable>,
    bytes: usize,
    /// The sequence of the first change after it.
    next: u64,
}

impl Shard {
    pub(crate) fn new(
        shared: Arc<Shared>,
        number: usize,
        range: KeyRange,
        log: LogWriter,
        active: Active,
    ) -> Self {
        let snapshots = shared.snapshots[number].clone();
        let sources = Sources {
            number,
            active: active.memtable().clone(),
            immutable: Vec::new(),
            view: shared.version.load_full(),
            level0: Vec::new(),
            floor: 0,
            shared: shared.clone(),
        };
        let mut shard = Self {
            number,
            range,
            snapshots,
            log,
            active,
            next_memtable: 1,
            held: None,
            full_bytes: first_bytes(full_bytes(&shared.options), number, shared.options.shards()),
            log_bytes: 0,
            sources: Arc::new(sources),
            view_number: 0,
            published: None,
            replaced: VecDeque::new(),
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

    /// Says that `keys` are about to be read or written: their places in the memtable are brought
    /// near together, which is faster than one after the other. Changes nothing else.
    pub fn prefetch<K: AsRef<[u8]>>(&self, keys: &[K]) {
        self.active.memtable().fetch(keys);
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
        let whole = Whole(&self.shared.poison);
        self.log.append(batch);
        let Sources { immutable, level0, view, .. } = self.sources.as_ref();
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
        std::mem::forget(whole);
        self.log_bytes += batch.encoded_len() as u64;
        self.publish();
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

    /// Makes all that was applied durable, and lets the log say so: for a clean end, behind which a hole in
    /// it is damage and no torn tail. Blocks for the disk, unless all of that is done already.
    ///
    /// # Errors
    /// As [`Shard::commit`]; what was promised before is promised still.
    pub fn settle(&mut self) -> Result<LogPosition, Error> {
        self.commit()?;
        self.log.sync_handle().sync()?;
        // The mark itself: should it not reach the disk, the mark of nothing that was promised is missing.
        self.log.mark_end()
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
        self.sources.get(key, self.bound(snapshot))
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
    /// As [`Shard::get`]; `f` may have been called for some of the keys, or for none.
    pub fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        f: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<(), Error> {
        self.sources.get_many(keys, u64::MAX, f)
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
        self.sources.scan(start, end, direction, self.bound(snapshot))
    }

    /// The present moment, to read from later.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(self.number, self.log.next_sequence() - 1, &self.snapshots)
    }

    /// True when the memtable is large, or the log that only it keeps alive is.
    #[must_use]
    pub fn wants_rotation(&self) -> bool {
        self.fullness() >= 1.0
    }

    /// How near the memtable is to wanting rotation; 1 where it does.
    fn fullness(&self) -> f64 {
        let full = self.full_bytes as f64;
        (self.active.bytes() as f64 / full).max(self.log_bytes as f64 / (4.0 * full))
    }

    /// Makes the memtable immutable, to be flushed by a job, and starts a new log segment with the
    /// next commit. Once flushed, what the memtable held is not replayed any more; so apply rows
    /// that carry state derived from the log just before, or use [`Shard::rotate_held`].
    pub fn rotate(&mut self) {
        self.rotate_held();
        self.release();
    }

    /// As [`Shard::rotate`], but nothing is flushed before [`Shard::release`]: until then rows that carry state
    /// derived from the log may be applied bit by bit, and be committed. What was held before is released. The flush
    /// makes durable what was committed until the release before its table counts, so that no loss of power keeps
    /// the table and takes those rows.
    pub fn rotate_held(&mut self) {
        self.release();
        self.refresh();
        if self.active.is_empty() {
            return;
        }
        let (memtable, bytes) = (self.active.memtable().clone(), self.active.bytes());
        self.full_bytes = full_bytes(&self.shared.options);
        self.active = Active::of(&self.shared.options);
        // Nothing of the old memtable is used again: it goes as a whole, with its last reader.
        self.replaced.clear();
        let number = self.next_memtable;
        self.next_memtable += 1;
        self.log_bytes = 0;
        let mut next = Sources::clone(&self.sources);
        next.active = self.active.memtable().clone();
        next.immutable.push((number, memtable.clone()));
        self.replace_sources(next);
        self.log.close_segment();
        let next = self.log.next_sequence();
        self.held = Some(Held { number, memtable, bytes, next });
    }

    /// Lets what [`Shard::rotate_held`] made immutable be flushed, if that is not so already.
    pub fn release(&mut self) {
        if let Some(Held { number, memtable, bytes, next }) = self.held.take() {
            let behind = (self.log.next_sequence() != next).then(|| self.sync_handle());
            self.shared.queue_flush(self.number, number, memtable, bytes, behind);
        }
    }

    /// The number of the memtable that was made immutable last; see [`Shard::is_flushed`].
    pub(crate) fn last_rotated(&self) -> u64 {
        self.next_memtable - 1
    }

    /// True when all memtables up to this number are in tables, as far as this shard has looked.
    pub(crate) fn is_flushed(&self, last: u64) -> bool {
        self.sources.immutable.first().is_none_or(|(number, _)| *number > last)
    }

    /// Memtables that wait for their flush: a measure for back-pressure.
    #[must_use]
    pub fn unflushed(&self) -> usize {
        self.sources.immutable.len()
    }

    /// How far the background work behind this shard's writes is behind. What a writer makes of it:
    /// [`crate::Brake`].
    #[must_use]
    pub fn debt(&self) -> Debt {
        self.shared.debt(self.number, self.active.bytes())
    }

    /// The same where writers stand still once `unflushed_max` memtables wait and the next is full. By
    /// their number: the first of a run are smaller, and those of rows that were written again and
    /// again, which the log fills, and they count as much.
    pub(crate) fn debt_before(&self, unflushed_max: usize) -> Debt {
        let wall = unflushed_max as f64;
        let fullness = self.fullness().min(1.0);
        let memtables = share(self.unflushed() as f64 + fullness, wall, wall + 1.0);
        Debt { memtables, ..self.debt() }
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

    /// A handle that reads from any thread while this shard is written.
    #[must_use]
    pub fn reader(&mut self) -> Reader {
        if self.published.is_none() {
            let sequence = self.log.next_sequence() - 1;
            let mut sources = Sources::clone(&self.sources);
            sources.floor = sequence;
            self.sources = Arc::new(sources);
            self.active.share(sequence);
            self.published = Some(Arc::new(Published::new(self.sources.clone(), sequence)));
        }
        let published = self.published.as_ref().expect("set above");
        Reader::new(published.clone(), self.range.clone())
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
        // The sequence first: with the old tables it shows nothing new, and with the new ones all at once. The
        // other way round, older rows that a merging took away since would be missed meanwhile.
        self.log.skip_to(sequence);
        self.publish();
        self.refresh();
    }

    fn take_view(&mut self) {
        // The number first: a version published in between is then taken the next time.
        self.view_number = self.shared.version_number();
        let mut next = Sources::clone(&self.sources);
        next.view = self.shared.version.load_full();
        let flushed = next.view.flushed_memtables[self.number];
        next.immutable.retain(|(number, _)| *number > flushed);
        let upper = self.range.upper.as_deref();
        let mine = next.view.levels[0].iter().filter(|t| t.overlaps(&self.range.lower, upper));
        next.level0 = mine.cloned().collect();
        self.replace_sources(next);
    }

    /// Shows readers what was applied.
    fn publish(&mut self) {
        let Some(published) = &self.published else { return };
        published.raise(self.log.next_sequence() - 1);
        if self.active.wants_new_view() {
            let next = Sources::clone(&self.sources);
            self.replace_sources(next);
        }
    }

    /// From now on reads go through `next`; gives back to the memtable what no reader can hold.
    fn replace_sources(&mut self, mut next: Sources) {
        let Some(published) = &self.published else {
            self.sources = Arc::new(next);
            return;
        };
        // Not what was applied: a panic may have broken off a batch, and no reader sees that far.
        next.floor = published.bound();
        let same_memtable = Counted::ptr_eq(&next.active, &self.sources.active);
        let next = Arc::new(next);
        let old = std::mem::replace(&mut self.sources, next.clone());
        published.replace(next);
        if !same_memtable {
            self.active.share(self.sources.floor);
            return;
        }
        self.replaced.push_back((old, self.active.take_retired()));
        let merge = self.shared.merge.as_ref();
        while let Some((oldest, _)) = self.replaced.front_mut() {
            // Held by nobody else, and nobody can come to it any more.
            if Arc::get_mut(oldest).is_none() {
                break;
            }
            let (_, retired) = self.replaced.pop_front().expect("there is a front");
            let oldest = self.replaced.front().map_or(&self.sources, |(oldest, _)| oldest);
            self.active.reclaim(retired, oldest.floor, self.snapshots.newest(), merge);
        }
    }

    fn bound(&self, snapshot: Option<&Snapshot>) -> u64 {
        snapshot.map_or(u64::MAX, |snapshot| {
            assert_eq!(snapshot.shard(), self.number, "a snapshot of another shard");
            snapshot.sequence
        })
    }
}

/// Size at which a memtable is full: a little below what was asked for where that is made of huge pages,
/// so that the last write does not begin one more.
fn full_bytes(options: &Options) -> usize {
    let huge = options.memtable_bytes >= HUGE_FROM;
    options.memtable_bytes - if huge { LEFT_FREE_BYTES } else { 0 }
}

/// What is left free of a memtable that is made of huge pages: what most groups of writes fit in.
const LEFT_FREE_BYTES: usize = 64 << 10;

/// Size at which the first memtable of a run is full: a little more from shard to shard. Shards that
/// fill alike would else all be full at once, and all of it be in memory until it is flushed; so they
/// take turns. A fifth between two is about what is written while one is flushed; more would only make
/// the first tables smaller.
fn first_bytes(memtable_bytes: usize, shard: usize, shards: usize) -> usize {
    memtable_bytes - memtable_bytes / shards.max(5) * (shards - 1 - shard)
}

#[cfg(test)]
mod tests {
    use super::first_bytes;

    #[test]
    fn shards_that_fill_alike_are_full_one_after_the_other() {
        let sizes = |shards| (0..shards).map(move |shard| first_bytes(1200, shard, shards));
        assert_eq!(sizes(1).collect::<Vec<_>>(), [1200]);
        assert_eq!(sizes(3).collect::<Vec<_>>(), [720, 960, 1200]);
        assert_eq!(sizes(6).collect::<Vec<_>>(), [200, 400, 600, 800, 1000, 1200]);
    }
}
