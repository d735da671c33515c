//! Engine: what the shards of a store share: tables, manifest, background jobs, the retained log.
//!
//! Order that keeps data safe: table written and synced, directory synced, manifest edit durable,
//! version published, and only then old logs and tables queued for removal.

mod background;

use crate::batch::LogBatch;
use crate::blob;
use crate::compaction::choose::Claim;
use crate::compaction::filter::Filter;
use crate::compaction::merging::Merging;
use crate::compaction::pace::Debt;
use crate::disk::Disk;
use crate::error::{Damage, Error, OpenError, Place};
use crate::fold::Merge;
use crate::job::{Job, Task};
use crate::key::KeyRange;
use crate::log::{
    Frames, LogPosition, Mark, SegmentInfo, Spares, Stream, SyncHandle, next_frame,
    parse_segment_name, segment_id, segment_name,
};
use crate::manifest::{Edit, Manifest};
use crate::memtable::Memtable;
use crate::options::{Options, PlantedBug};
use crate::poison::Poison;
use crate::recovery::{self, LogCut, Opener};
use crate::scrub;
use crate::shard::Shard;
use crate::shelf::Shelf;
use crate::snapshot::Snapshots;
use crate::sync::Counted;
use crate::table::{Table, TableBounds, TableWriter, table_name};
use crate::version::Version;
use arc_swap::ArcSwap;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An open store, as seen by everybody but the owners of its shards.
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: Options,
    pub(crate) merge: Arc<dyn Merge>,
    filter: Mutex<Option<Arc<dyn Filter>>>,
    pub(crate) poison: Arc<Poison>,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) ranges: Vec<KeyRange>,
    pub(crate) snapshots: Vec<Arc<Snapshots>>,
    pub(crate) version: ArcSwap<Version>,
    /// Rises with each version, so that a shard sees with one load whether its view is the newest.
    version_number: AtomicU64,
    manifest: Arc<Mutex<Manifest>>,
    next_table: AtomicU64,
    work: Mutex<Work>,
    pub(crate) scrub: Mutex<scrub::Place>,
    /// How far each shard's background work is behind.
    behind: Vec<Behind>,
    /// Bytes that compactions have to move.
    pending_bytes: AtomicU64,
    /// Where the flushes of each shard are cut.
    cuts: Mutex<Vec<Cuts>>,
    /// This run's log, by shard.
    streams: Vec<Arc<Stream>>,
    pub(crate) spares: Arc<Spares>,
    /// Where the logs of earlier runs were cut before good frames.
    pub(crate) log_cuts: Vec<LogCut>,
    _lock: Box<dyn Send + Sync>,
}

/// What is to be done in the background, and what somebody is doing.
#[derive(Default)]
struct Work {
    flushes: VecDeque<Flush>,
    flushing: BTreeSet<usize>,
    /// Compactions that are being carried out, by number.
    merging: BTreeMap<u64, Merging>,
    next_merging: u64,
    /// Where ingested tables are about to come.
    ingested: Vec<Claim>,
    /// Oldest first. One job at a time removes them: a log segment that outlived a later one would
    /// pass for the damaged end of its stream.
    obsolete: Vec<String>,
    removing: bool,
    /// The last removal left something: a merging comes before the next try, if there is one.
    removal_failed: bool,
    /// Those who need that no file is removed meanwhile.
    keepers: usize,
    /// Segments of earlier runs that are still there.
    old_segments: BTreeMap<(u64, u64), OldSegment>,
}

/// How far the background work of a shard is behind; read by its writer at every turn.
#[derive(Default)]
struct Behind {
    unflushed_bytes: AtomicUsize,
    level0_depth: AtomicUsize,
}

/// Where the flushes of a shard are cut, so that what they write can be merged part by part.
#[derive(Default)]
struct Cuts {
    keys: Vec<Vec<u8>>,
    /// What the tables below held when the keys were chosen. Cuts that move with every flush would
    /// tie the parts together again.
    bytes: u64,
}

/// A memtable waiting for its table.
#[derive(Clone)]
pub(crate) struct Flush {
    pub(crate) shard: usize,
    pub(crate) number: u64,
    pub(crate) memtable: Counted<Memtable>,
    /// What it holds in memory.
    pub(crate) bytes: usize,
    /// What is committed here has to be durable before the table takes the log's place.
    pub(crate) behind: Option<SyncHandle>,
}

/// A log segment that an earlier run wrote.
#[derive(Debug, Clone)]
pub(crate) struct OldSegment {
    pub(crate) range: KeyRange,
    pub(crate) bytes: u64,
    pub(crate) last_sequence: u64,
}

/// What a store is made of at a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Tables in each level.
    pub tables: Vec<usize>,
    /// Bytes of tables in each level.
    pub table_bytes: Vec<u64>,
    /// Memtables that wait for their flush.
    pub unflushed_memtables: usize,
    /// The most tables of level 0 that a reader of one key may have to look at.
    pub level0_depth: usize,
    /// Bytes that compactions have to move until every level has its size.
    pub pending_bytes: u64,
    /// Compactions that are being carried out.
    pub compactions: usize,
    /// Blob files of large values.
    pub blob_files: usize,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Those of them that a table points to.
    pub blob_live_bytes: u64,
    /// Log segments that are still there, of this and earlier runs.
    pub log_segments: usize,
    /// Their bytes.
    pub log_bytes: u64,
    /// Files that wait to become log segments.
    pub log_spares: usize,
    /// Bytes of the log since the start that no write call was asked for: those written through memory
    /// into files that were used again.
    pub log_bytes_uncalled: u64,
    /// Bytes of blocks in the cache.
    pub cache_bytes: usize,
    /// True when an earlier failure made the store refuse writes.
    pub poisoned: bool,
}

/// What recovery hands to a new engine.
pub(crate) struct Parts {
    pub(crate) manifest: Arc<Mutex<Manifest>>,
    pub(crate) version: Version,
    pub(crate) poison: Arc<Poison>,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) old_segments: BTreeMap<(u64, u64), OldSegment>,
    pub(crate) log_cuts: Vec<LogCut>,
    /// Files that are to be removed.
    pub(crate) leftovers: Vec<String>,
    pub(crate) streams: Vec<Arc<Stream>>,
    pub(crate) spares: Arc<Spares>,
    pub(crate) lock: Box<dyn Send + Sync>,
}

impl Engine {
    /// Opens the store on `disk`, or makes one in an empty directory. `replay` is called with every
    /// logged batch of which any change is not yet in a table, in the order of each key's shard, so
    /// that the layer above can rebuild what it derives from the log. One [`Shard`] comes back for
    /// each part of the key space, in order.
    ///
    /// A store on a full disk is opened as well: what nothing refers to is removed, and if that is not enough
    /// the store can be read, and writes fail with [`Error::NoSpace`] until there is room.
    ///
    /// # Errors
    /// See [`OpenError`]. With damage that is not tolerated, nothing on the disk was changed.
    /// [`Error::NoSpace`] for a new store, and for one in which damage was just found that there is no
    /// room to remember.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        merge: Arc<dyn Merge>,
        replay: &mut dyn FnMut(LogBatch<'_>),
    ) -> Result<(Arc<Self>, Vec<Shard>), OpenError> {
        recovery::open(disk, options, merge, replay, Opener::Anybody)
    }

    pub(crate) fn assemble(
        disk: Arc<dyn Disk>,
        options: Options,
        merge: Arc<dyn Merge>,
        parts: Parts,
    ) -> Arc<Self> {
        let next_table = {
            let manifest = parts.manifest.lock().unwrap_or_else(PoisonError::into_inner);
            AtomicU64::new(manifest.story.next_table)
        };
        let (old_segments, obsolete) = (parts.old_segments, parts.leftovers);
        let work = Work { old_segments, obsolete, ..Work::default() };
        let shared = Shared {
            disk,
            ranges: KeyRange::of_splits(&options.splits),
            snapshots: (0..options.shards()).map(|_| Arc::default()).collect(),
            behind: (0..options.shards()).map(|_| Behind::default()).collect(),
            pending_bytes: AtomicU64::new(0),
            cuts: Mutex::new((0..options.shards()).map(|_| Cuts::default()).collect()),
            options,
            merge,
            filter: Mutex::default(),
            poison: parts.poison,
            shelf: parts.shelf,
            version: ArcSwap::from_pointee(parts.version),
            version_number: AtomicU64::new(1),
            manifest: parts.manifest,
            next_table,
            work: Mutex::new(work),
            scrub: Mutex::default(),
            streams: parts.streams,
            spares: parts.spares,
            log_cuts: parts.log_cuts,
            _lock: parts.lock,
        };
        shared.retire_segments();
        shared.take_stock(&shared.version.load());
        Arc::new(Self { shared: Arc::new(shared) })
    }

    /// The most urgent background job that nobody is doing; none when all is well. Any number may
    /// be out at once. A job that failed or was dropped is handed out again, so wait a little after
    /// a failure. To be asked now and then also when nothing was written: what a dropped snapshot
    /// held back, or a level that is too large, is found without a flush.
    #[must_use]
    pub fn next_job(&self) -> Option<Job> {
        self.next_flush().or_else(|| self.next_compaction())
    }

    /// A flush that nobody is doing: what to keep a thread for, so that writers never wait for a
    /// long compaction.
    #[must_use]
    pub fn next_flush(&self) -> Option<Job> {
        if self.shared.poison.is_set() {
            return None;
        }
        let mut work = self.shared.work();
        let flush = work.flushes.iter().find(|f| !work.flushing.contains(&f.shard)).cloned()?;
        work.flushing.insert(flush.shard);
        Some(Job::new(self.shared.clone(), Task::Flush(flush)))
    }

    fn next_compaction(&self) -> Option<Job> {
        if self.shared.poison.is_set() {
            return None;
        }
        // Before what is to be done: whoever publishes takes them in this order.
        let (blobs, unwritten) = {
            let manifest = self.shared.manifest();
            // What is obsolete may be so by an edit alone that a power loss takes back, until the
            // manifest of this start is written.
            (manifest.story.blobs.clone(), manifest.is_unwritten())
        };
        // Writers need the lock: what takes long is reckoned before.
        let (seen, mut work) = self.shared.work_for_choosing();
        let kept = work.obsolete.is_empty() || work.removing || work.keepers > 0;
        let removes = !kept && !unwritten;
        // What cannot be removed must not keep all else from being done.
        let waits = std::mem::take(&mut work.removal_failed);
        let part = if removes && !waits {
            None
        } else {
            work.take_part().or_else(|| {
                self.shared.begin_merging(&mut work, &blobs, seen)?;
                work.take_part()
            })
        };
        let task = match part {
            Some((plan, part)) => Task::Compact(plan, part),
            None if removes => {
                work.removing = true;
                Task::Remove(std::mem::take(&mut work.obsolete))
            }
            None if self.shared.spares.claim() => Task::Fill,
            None => return None,
        };
        Some(Job::new(self.shared.clone(), task))
    }

    /// From now on jobs ask `filter` what may go; none: everything stays. Jobs that run go on asking
    /// the one before.
    pub fn set_filter(&self, filter: Option<Arc<dyn Filter>>) {
        *self.shared.filter.lock().unwrap_or_else(PoisonError::into_inner) = filter;
    }

    /// Every change of `key` with a sequence up to this one is in a table.
    #[must_use]
    pub fn flushed_upto(&self, key: &[u8]) -> u64 {
        self.shared.manifest().story.flushed.at(key)
    }

    /// How far background work is behind, in the shard where it is worst and without what its
    /// memtable takes just now; see [`Shard::debt`].
    #[must_use]
    pub fn debt(&self) -> Debt {
        let all = (0..self.shared.behind.len()).map(|shard| self.shared.debt(shard, 0));
        all.fold(Debt::default(), |a, b| if a.worst() < b.worst() { b } else { a })
    }

    /// Calls `f` with every batch in the log that is still there and comes after `from`, by stream
    /// and then by age, until it breaks off; flushed or not, and everything committed before the
    /// call. To go on later pass the last position that `f` saw. Batches in damaged parts are
    /// passed over.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk refuses a read.
    pub fn read_log(
        &self,
        from: Option<LogPosition>,
        f: &mut dyn FnMut(LogPosition, LogBatch<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let from = from.unwrap_or_default();
        for ((stream, segment), bytes, last) in self.shared.segments() {
            let position = LogPosition { stream, sequence: last };
            if stream < from.stream || position <= from {
                continue;
            }
            if self.shared.read_segment(stream, segment, bytes, from, f)?.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What is lost or damaged and not yet repaired, as far as it was noticed.
    #[must_use]
    pub fn damage(&self) -> Vec<Damage> {
        let found = self.shared.shelf.damage_found().clone();
        let manifest = self.shared.manifest();
        let story = &manifest.story;
        // What is no part of the store any more is no damage of it.
        let is_there = |damage: &Damage| match damage.place {
            Place::Table { number, .. } => story.tables.contains_key(&number),
            Place::Blob { number, .. } => story.blobs.contains_key(&number),
            Place::Log { .. } | Place::Manifest => true,
        };
        let mut all = story.damage.clone();
        all.extend(found.into_iter().filter(is_there));
        all.into_iter().filter(|damage| !story.repaired.contains(damage)).collect()
    }

    /// The layer above has repaired `damage`: for damage in a table it has deleted the range and
    /// written its rows anew, so that nothing in the damaged place counts. Durable when it returns.
    ///
    /// # Errors
    /// As any write of the manifest: [`Error::NoSpace`], [`Error::Poisoned`]. [`Error::Busy`] when the
    /// table is just being replaced by others; try again.
    pub fn repaired(&self, damage: &Damage) -> Result<(), Error> {
        let mut edits = vec![Edit::Repaired { damage: damage.clone() }];
        let version = self.shared.version.load_full();
        let mut removed: Vec<&Arc<Table>> = Vec::new();
        if let Place::Table { number, offset } = damage.place {
            match offset {
                Some(offset) => {
                    let table = version.tables().find(|(_, t)| t.number == number);
                    if let Some((_, table)) = table {
                        table.forgive(offset);
                    }
                }
                None => {
                    edits.push(Edit::RemoveTable { number });
                    removed.extend(version.tables().map(|(_, t)| t).find(|t| t.number == number));
                }
            }
        }
        if let Place::Blob { number, offset } = damage.place {
            self.shared.shelf.blobs.forgive(number, offset);
        }
        let numbers: Vec<u64> = removed.iter().map(|t| t.number).collect();
        self.shared.publish(&edits, &numbers, Vec::new(), None)?;
        self.shared.queue_removal(removed.into_iter().flat_map(|t| t.files()));
        Ok(())
    }

    /// What the store is made of.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let version = self.shared.version.load_full();
        let segments = self.shared.segments();
        let blobs = self.shared.manifest().story.blobs.clone();
        let (unflushed_memtables, compactions) = {
            let work = self.shared.work();
            (work.flushes.len(), work.merging.len())
        };
        let depths = self.shared.behind.iter().map(|b| b.level0_depth.load(Ordering::Relaxed));
        Stats {
            level0_depth: depths.max().unwrap_or(0),
            pending_bytes: self.shared.pending_bytes.load(Ordering::Relaxed),
            compactions,
            unflushed_memtables,
            tables: version.levels.iter().map(Vec::len).collect(),
            table_bytes: (0..version.levels.len()).map(|l| version.level_bytes(l)).collect(),
            blob_files: blobs.len(),
            blob_bytes: blobs.values().sum(),
            blob_live_bytes: blob::live_bytes(&version).values().sum(),
            log_segments: segments.len(),
            log_bytes: segments.iter().map(|(_, bytes, _)| bytes).sum(),
            log_spares: self.shared.spares.ready(),
            log_bytes_uncalled: self.shared.streams.iter().map(|s| s.bytes_over_old()).sum(),
            cache_bytes: self.shared.shelf.cache.bytes(),
            poisoned: self.shared.poison.is_set(),
        }
    }
}

impl Shared {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn manifest(&self) -> MutexGuard<'_, Manifest> {
        self.manifest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn version_number(&self) -> u64 {
        self.version_number.load(Ordering::Acquire)
    }

    pub(crate) fn filter(&self) -> Option<Arc<dyn Filter>> {
        self.filter.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn queue_flush(
        &self,
        shard: usize,
        number: u64,
        memtable: Counted<Memtable>,
        bytes: usize,
        behind: Option<SyncHandle>,
    ) {
        let mut work = self.work();
        work.flushes.push_back(Flush { shard, number, memtable, bytes, behind });
        self.note_unflushed(&work, shard);
    }

    pub(crate) fn queue_removal(&self, names: impl IntoIterator<Item = String>) {
        self.work().obsolete.extend(names);
    }

    /// The live snapshots of the shards that `reads` picks by their ranges, ascending. Of no others:
    /// each shard counts its changes for itself, so a fresh snapshot of one that is seldom written
    /// looks ancient to one that is busy.
    pub(crate) fn live_snapshots(&self, reads: impl Fn(&KeyRange) -> bool) -> Vec<u64> {
        let shards = self.ranges.iter().zip(&self.snapshots).filter(|(range, _)| reads(range));
        let mut all: Vec<u64> = shards.flat_map(|(_, snapshots)| snapshots.live()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// A number that no table or blob file has.
    pub(crate) fn next_file(&self) -> u64 {
        self.next_table.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn open_table_writer(&self) -> Result<(u64, TableWriter), Error> {
        let number = self.next_file();
        let name = table_name(number);
        let file = self.disk.create(&name);
        let file = file.map_err(|e| Error::io(&format!("creating {name}"), &e))?;
        let writer = TableWriter::new(file, self.options.block_bytes, self.options.bloom_bits);
        Ok((number, writer))
    }

    pub(crate) fn open_table(&self, number: u64, bounds: TableBounds) -> Result<Arc<Table>, Error> {
        let name = table_name(number);
        let file = self.disk.open(&name);
        let file = file.map_err(|e| Error::io(&format!("opening {name}"), &e))?;
        Ok(Arc::new(Table::open(number, bounds, file, self.shelf.clone())?))
    }

    /// Makes `edits` durable and shows the new version to readers. [`Error::Busy`] when somebody else took
    /// one of the tables `removed` away: what was made of it may be what was deleted or repaired since.
    pub(crate) fn publish(
        &self,
        edits: &[Edit],
        removed: &[u64],
        added: Vec<(usize, Arc<Table>)>,
        flushed: Option<(usize, u64)>,
    ) -> Result<(), Error> {
        // Held until the version is published: versions succeed each other as edits do.
        let mut manifest = self.manifest();
        if removed.iter().any(|number| !manifest.story.tables.contains_key(number)) {
            return Err(Error::Busy);
        }
        let mut edits = edits.to_vec();
        let dead = manifest.story.dead_blobs(&edits);
        edits.extend(dead.iter().map(|number| Edit::RemoveBlob { number: *number }));
        if self.options.planted(PlantedBug::BlobRemovedEarly) {
            for name in dead.iter().map(|number| blob::blob_name(*number)) {
                let removed = self.disk.remove(&name);
                removed.map_err(|e| Error::io(&format!("removing {name}"), &e))?;
            }
        }
        manifest.commit(&edits)?;
        // Whoever reads an older version holds these files open.
        self.queue_removal(dead.into_iter().map(blob::blob_name));
        manifest.renew(self.disk.as_ref(), self.options.manifest_bytes);
        let next = self.version.load().edited(removed, added, flushed);
        self.take_stock(&next);
        self.version.store(Arc::new(next));
        self.version_number.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// All segments with readable bytes and last sequence (unknown in the newest: the maximum).
    pub(crate) fn segments(&self) -> Vec<((u64, u64), u64, u64)> {
        let work = self.work();
        let old = work.old_segments.iter().map(|(id, s)| (*id, s.bytes, s.last_sequence));
        let mut all: Vec<_> = old.collect();
        drop(work);
        for stream in &self.streams {
            let segments: Vec<(u64, SegmentInfo)> = stream.segments().into_iter().collect();
            for (i, (number, info)) in segments.iter().enumerate() {
                let last = segments.get(i + 1).map_or(u64::MAX, |(_, s)| s.first_sequence - 1);
                all.push(((stream.id, *number), info.bytes, last));
            }
        }
        all
    }

    /// Queues the removal of flushed segments beyond those kept for peers, oldest first.
    fn retire_segments(&self) {
        let ranges: BTreeMap<u64, &KeyRange> =
            self.streams.iter().map(|s| (s.id, &s.range)).collect();
        let all = self.segments();
        let manifest = self.manifest();
        let mut work = self.work();
        let mut flushed: Vec<((u64, u64), u64)> = Vec::new();
        for (id, bytes, last) in all {
            let old = work.old_segments.get(&id).map(|s| &s.range);
            let range = old.or_else(|| ranges.get(&id.0).copied());
            if range.is_some_and(|range| manifest.story.is_flushed(range, last)) {
                flushed.push((id, bytes));
            }
        }
        drop(manifest);
        // Newest first: this run's streams side by side, earlier ones behind them.
        flushed.sort_by_key(|((stream, segment), _)| {
            let live = ranges.contains_key(stream);
            std::cmp::Reverse((live, if live { (*segment, *stream) } else { (*stream, *segment) }))
        });
        let mut kept = 0;
        let beyond = flushed.into_iter().filter(|(_, bytes)| {
            let keep = kept < self.options.log_retain_bytes;
            kept += bytes;
            !keep
        });
        let mut gone: Vec<(u64, u64)> = beyond.map(|(id, _)| id).collect();
        gone.reverse();
        for (stream, segment) in gone {
            work.old_segments.remove(&(stream, segment));
            if let Some(live) = self.streams.iter().find(|s| s.id == stream) {
                live.forget(segment);
            }
            work.obsolete.push(segment_name(stream, segment));
        }
    }

    /// Before the last of `segments` of an earlier run's stream go, the manifest forgets where it ends: removals
    /// may survive a power loss in any order, and what is left of the stream would miss an end that was promised. Those
    /// for which that fails come to `kept`.
    pub(crate) fn forget_ends(
        &self,
        segments: &mut Vec<String>,
        kept: &mut Vec<String>,
    ) -> Result<(), Error> {
        let mut manifest = self.manifest();
        let ends_in = |name: &String| {
            let (stream, segment) = parse_segment_name(name)?;
            let end = manifest.story.ends.get(&stream)?;
            (*end != Mark::default() && segment >= end.segment).then_some(stream)
        };
        let streams: BTreeSet<u64> = segments.iter().filter_map(ends_in).collect();
        if streams.is_empty() {
            return Ok(());
        }
        let forget = |stream: &u64| Edit::StreamEnds { stream: *stream, end: Mark::default() };
        let done = manifest.commit(&streams.iter().map(forget).collect::<Vec<_>>());
        if done.is_err() {
            let of_them = |name: &mut String| {
                parse_segment_name(name).is_some_and(|(stream, _)| streams.contains(&stream))
            };
            kept.extend(segments.extract_if(.., of_them));
        }
        done
    }

    fn read_segment(
        &self,
        stream: u64,
        segment: u64,
        bytes: u64,
        from: LogPosition,
        f: &mut dyn FnMut(LogPosition, LogBatch<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Error> {
        let name = segment_name(stream, segment);
        let file = match self.disk.open(&name) {
            Ok(file) => file,
            // Retired since we looked.
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(ControlFlow::Continue(())),
            Err(e) => return Err(Error::io(&format!("opening {name}"), &e)),
        };
        let mut content = vec![0; usize::try_from(bytes).expect("segments fit in memory")];
        let read = file.read_at(&mut content, 0);
        read.map_err(|e| Error::io(&format!("reading {name}"), &e))?;
        let planted = self.options.planted(PlantedBug::OneSegmentId);
        let id = segment_id(stream, segment, planted);
        let mut at = 0;
        loop {
            let mut frames = Frames { file: &content, id, offset: at };
            for frame in frames.by_ref().filter(|frame| frame.offset > 0) {
                for batch in frame.log_batches().into_iter().flatten() {
                    let sequence = batch.first_sequence + batch.ops.len() as u64 - 1;
                    let position = LogPosition { stream, sequence };
                    if position > from && f(position, batch).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            match next_frame(&content, frames.offset + 1, id) {
                Some(frame) => at = frame.offset,
                None => return Ok(ControlFlow::Continue(())),
            }
        }
    }
}
