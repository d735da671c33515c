//! Background: which compactions are under way, what is to be chosen next, and how far behind it all is.
//!
//! Promise: what a running compaction has taken stays claimed until its tables are installed or removed.

use super::{Cuts, Flush, Shared, Work};
use crate::blob;
use crate::compaction::around::Around;
use crate::compaction::choose::{Choice, Claim, Reason, Situation, Work as Doing, choose};
use crate::compaction::levels::{groups, pending_bytes};
use crate::compaction::merging::{Merging, Next, Plan, Written};
use crate::compaction::pace::{Debt, share};
use crate::compaction::place;
use crate::compaction::split;
use crate::error::Error;
use crate::job::{self, Job, Task};
use crate::key::KeyRange;
use crate::limits::LEVELS;
use crate::manifest::Story;
use crate::table::{Table, TableBounds};
use crate::version::Version;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

/// What there is to choose from, which belongs together: with a later version a snapshot that was taken
/// before it would be overlooked.
pub(super) struct Seen {
    version: Arc<Version>,
    /// The oldest snapshot of each shard, taken after the version.
    oldest: Vec<Option<u64>>,
}

/// Levels for tables that are newer than all else, kept free for them until this is dropped.
pub(crate) struct Places<'a> {
    shared: &'a Shared,
    levels: BTreeMap<u64, usize>,
}

impl Places<'_> {
    pub(crate) fn level_of(&self, number: u64) -> usize {
        self.levels.get(&number).copied().unwrap_or(0)
    }
}

impl Drop for Places<'_> {
    fn drop(&mut self) {
        let mine = |claim: &Claim| claim.tables.iter().any(|n| self.levels.contains_key(n));
        self.shared.work().ingested.retain(|claim| !mine(claim));
    }
}

impl Work {
    /// What all have taken who are at work.
    fn claims(&self) -> Vec<Claim> {
        let merging = self.merging.values().map(|merging| &merging.claim);
        merging.chain(&self.ingested).cloned().collect()
    }

    /// A part of a compaction that nobody has.
    pub(super) fn take_part(&mut self) -> Option<(Arc<Plan>, usize)> {
        self.merging.values_mut().find_map(|m| Some((m.plan.clone(), m.take()?)))
    }
}

impl Shared {
    /// How far the work of `shard` is behind while its memtable holds `active_bytes`.
    pub(crate) fn debt(&self, shard: usize, active_bytes: usize) -> Debt {
        let (behind, options) = (&self.behind[shard], &self.options);
        let unflushed = behind.unflushed_bytes.load(Ordering::Relaxed) + active_bytes;
        let depth = behind.level0_depth.load(Ordering::Relaxed) as f64;
        let pending = self.pending_bytes.load(Ordering::Relaxed) as f64;
        let (trigger, level) = (options.level0_tables as f64, options.level1_bytes as f64);
        let memtables = unflushed as f64 / options.memtable_bytes as f64;
        Debt {
            // One memtable fills while another is flushed: that is no debt.
            memtables: share(memtables, 2.0, crate::limits::MEMTABLES_MAX),
            level0: share(depth, 3.0 * trigger, 9.0 * trigger),
            pending: share(pending, 8.0 * level, 128.0 * level),
        }
    }

    /// Notes how far `version` is from what it should be.
    pub(super) fn take_stock(&self, version: &Version) {
        let tables = &version.levels[0];
        let mut depths = vec![0; self.behind.len()];
        for group in groups(tables) {
            for i in &group.members {
                let shard = self.options.shard_of(&tables[*i].bounds.smallest);
                depths[shard] = depths[shard].max(group.depth);
            }
        }
        for (behind, depth) in self.behind.iter().zip(depths) {
            behind.level0_depth.store(depth, Ordering::Relaxed);
        }
        self.pending_bytes.store(pending_bytes(version, &self.options), Ordering::Relaxed);
    }

    pub(super) fn note_unflushed(&self, work: &Work, shard: usize) {
        let mine = work.flushes.iter().filter(|f| f.shard == shard);
        let bytes = mine.map(|f| f.bytes).sum();
        self.behind[shard].unflushed_bytes.store(bytes, Ordering::Relaxed);
    }

    /// A flush is over; when it was good, its memtable is in tables.
    pub(crate) fn flush_ended(&self, flush: &Flush, good: bool) {
        let mut work = self.work();
        work.flushing.remove(&flush.shard);
        if good {
            work.flushes.retain(|f| (f.shard, f.number) != (flush.shard, flush.number));
            self.note_unflushed(&work, flush.shard);
            drop(work);
            self.retire_segments();
        }
    }

    /// The oldest snapshot of each shard, and the lock, while the version is one whose range deletions
    /// are gathered.
    pub(super) fn work_for_choosing(&self) -> (Seen, MutexGuard<'_, Work>) {
        loop {
            let version = self.version.load_full();
            // After the version: who reads the past from now on sees all that is in its tables.
            let oldest = self.snapshots.iter().map(|s| s.live().first().copied());
            let oldest: Vec<Option<u64>> = oldest.collect();
            version.deletions(oldest.iter().any(Option::is_some));
            let work = self.work();
            if Arc::ptr_eq(&version, &self.version.load()) {
                return (Seen { version, oldest }, work);
            }
        }
    }

    /// Chooses what to merge next, if anything is due and there is room for it; and if nothing is,
    /// which large values to move. `blobs`: bytes of each blob file.
    pub(super) fn begin_merging(
        &self,
        work: &mut Work,
        blobs: &BTreeMap<u64, u64>,
        Seen { version, oldest }: Seen,
    ) -> Option<()> {
        let claims = work.claims();
        let situation = Situation {
            version: &version,
            options: &self.options,
            claims: &claims,
            oldest_snapshots: &oldest,
            free_bytes: self.disk.free().unwrap_or_else(|e| {
                tracing::debug!(error = %e, "the disk cannot tell how much room it has");
                None
            }),
        };
        let (choice, leave) = match choose(&situation) {
            Some(choice) => {
                let file_bytes = self.options.blob_file_bytes;
                let leave = blob::small(&choice, file_bytes, blobs, &self.shelf.blobs.broken());
                (choice, leave)
            }
            None => blob::choose(&situation, blobs, &self.shelf.blobs.broken())?,
        };
        self.begin(work, choice, leave, version);
        Some(())
    }

    /// Finds a level for each of `tables`, which are newer than all that is in the store or on its way
    /// there, and keeps it free. To be asked for once nothing of their shards waits for a flush.
    pub(crate) fn places_for(&self, tables: &[(u64, TableBounds)]) -> Places<'_> {
        let mut work = self.work();
        // Under the lock: a merging leaves the claims only after the version that has its tables.
        let levels = place::places(&self.version.load(), &self.options, &work.claims(), tables);
        work.ingested.extend(place::claims(tables, &levels));
        Places { shared: self, levels }
    }

    fn begin(&self, work: &mut Work, choice: Choice, leave: BTreeSet<u64>, version: Arc<Version>) {
        work.next_merging += 1;
        let plan = Plan { leave, ..self.plan(work.next_merging, choice, version) };
        work.merging.insert(work.next_merging, Merging::new(plan));
    }

    /// Merges all of level 0 into the last level, on this thread, whatever stands where. Nothing else
    /// may be under way, and there may be no tables between.
    pub(crate) fn merge_level0(self: &Arc<Self>) -> Result<(), Error> {
        let version = self.version.load_full();
        let upper = version.levels[0].clone();
        if upper.is_empty() {
            return Ok(());
        }
        let (reason, work, level) = (Reason::Level0, Doing::Merge, LEVELS - 1);
        let choice = Choice { reason, work, upper_level: 0, level, upper, lower: Vec::new() };
        self.begin(&mut self.work(), choice, BTreeSet::new(), version);
        loop {
            let part = self.work().take_part();
            let Some((plan, part)) = part else { return Ok(()) };
            Job::new(self.clone(), Task::Compact(plan, part)).run()?;
        }
    }

    fn plan(&self, number: u64, choice: Choice, version: Arc<Version>) -> Plan {
        let inputs: Vec<&Arc<Table>> = choice.inputs().collect();
        let parts = choice.bytes() / self.options.table_bytes;
        let parts_max = if choice.work == Doing::Merge { self.options.parts_max } else { 1 };
        let parts = usize::try_from(parts).unwrap_or(usize::MAX).clamp(1, parts_max);
        let ranges = split::ranges(&split::cuts(&inputs, parts));
        let around =
            if choice.work == Doing::Merge { Around::of(&choice) } else { Around::default() };
        let parts = around.parts(&choice, ranges, &self.options.splits);
        // Where flushes are cut the tables below are cut too: then parts of level 0 do not meet.
        let mut cuts = Vec::new();
        if choice.upper_level == 0 {
            let all = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
            cuts.extend(all.iter().flat_map(|cuts| cuts.keys.iter().cloned()));
            let shards = self.options.shards() as u64;
            if choice.bytes() / shards >= self.options.table_bytes / 4 {
                cuts.extend(self.options.splits.iter().cloned());
            }
            cuts.sort();
            cuts.dedup();
        }
        Plan { number, choice, version, parts, around, cuts, leave: BTreeSet::new() }
    }

    /// The keys at which a flush of `shard` is cut.
    pub(crate) fn flush_cuts(&self, shard: usize, version: &Version) -> Vec<Vec<u8>> {
        let range = &self.ranges[shard];
        let base = (1..LEVELS).find(|level| !version.levels[*level].is_empty());
        let tables = base.map_or(&[][..], |level| version.levels[level].as_slice());
        let mine = |t: &&Arc<Table>| t.overlaps(&range.lower, range.upper.as_deref());
        let tables: Vec<&Arc<Table>> = tables.iter().filter(mine).collect();
        let bytes: u64 = tables.iter().map(|t| t.bounds.weight()).sum();
        let parts = usize::try_from(bytes / self.options.table_bytes).unwrap_or(usize::MAX);
        let parts = parts.clamp(1, self.options.parts_max);
        let cuts = &mut self.cuts.lock().unwrap_or_else(PoisonError::into_inner)[shard];
        if parts == 1 {
            *cuts = Cuts::default();
        } else if bytes > 2 * cuts.bytes || bytes < cuts.bytes / 2 {
            let mut keys = split::cuts(&tables, parts);
            keys.retain(|key| range.contains(key) && *key > range.lower);
            *cuts = Cuts { keys, bytes };
        }
        cuts.keys.clone()
    }

    /// No file is removed from here until the same is said with false.
    pub(crate) fn keep_files(&self, keep: bool) {
        let mut work = self.work();
        work.keepers = if keep { work.keepers + 1 } else { work.keepers - 1 };
    }

    /// What the manifest says now.
    pub(crate) fn story(&self) -> Story {
        self.manifest().story.clone()
    }

    /// The keys of which a log segment speaks; none when it is not known any more.
    pub(crate) fn range_of_segment(&self, stream: u64, segment: u64) -> Option<KeyRange> {
        let old = self.work().old_segments.get(&(stream, segment)).map(|s| s.range.clone());
        old.or_else(|| self.streams.iter().find(|s| s.id == stream).map(|s| s.range.clone()))
    }

    /// Runs the flushes of a shard that wait, on this thread.
    pub(crate) fn flush_shard(self: &Arc<Self>, shard: usize) -> Result<(), Error> {
        loop {
            let mut work = self.work();
            let Some(flush) = work.flushes.iter().find(|f| f.shard == shard).cloned() else {
                return Ok(());
            };
            if !work.flushing.insert(shard) {
                return Err(Error::Busy);
            }
            drop(work);
            Job::new(self.clone(), Task::Flush(flush)).run()?;
        }
    }

    /// A removal is over, but for the files `left`.
    pub(crate) fn removal_ended(&self, left: Vec<String>) {
        let mut work = self.work();
        work.removing = false;
        work.removal_failed = !left.is_empty();
        work.obsolete.splice(0..0, left);
    }

    /// A step of the scrub is over.
    pub(crate) fn scrub_ended(&self) {
        self.scrub.lock().unwrap_or_else(PoisonError::into_inner).busy = false;
    }

    /// A part of a compaction was not begun.
    pub(crate) fn put_back(&self, plan: &Plan, part: usize) {
        let mut work = self.work();
        let Some(merging) = work.merging.get_mut(&plan.number) else { return };
        let next = merging.put_back(part);
        // Nobody has begun: it may be chosen anew.
        if merging.is_untouched() || next != Next::Nothing {
            work.merging.remove(&plan.number);
        }
        drop(work);
        if let Next::Discard(written) = next {
            job::discard(self, written.names());
        }
    }

    /// A part of a compaction is written, or failed. The last one installs them all.
    pub(crate) fn part_ended(
        &self,
        plan: &Plan,
        part: usize,
        done: Result<Written, Error>,
    ) -> Result<(), Error> {
        let mut work = self.work();
        let Some(merging) = work.merging.get_mut(&plan.number) else { return done.map(drop) };
        let (done, next) = match done {
            Ok(written) => (Ok(()), merging.finished(part, written)),
            Err(e) => (Err(e), merging.failed()),
        };
        drop(work);
        let done = match next {
            Next::Nothing => return done,
            Next::Install(written) => job::install_merged(self, plan, written),
            Next::Discard(written) => {
                job::discard(self, written.names());
                done
            }
        };
        self.work().merging.remove(&plan.number);
        done
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use crate::batch::Batch;
    use crate::disk::MemoryDisk;
    use crate::engine::Engine;
    use crate::fold::NoMerge;
    use crate::options::Options;
    use crate::shard::Durability;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    #[test]
    fn what_came_after_the_snapshots_were_looked_at_is_not_chosen_by_them() {
        let (disk, merge) = (Arc::new(MemoryDisk::new(1)), Arc::new(NoMerge));
        let (engine, mut shards) =
            Engine::open(disk, Options::small(), merge, &mut |_| {}).unwrap();
        let flush = |batch: &Batch, shard: &mut crate::shard::Shard| {
            shard.apply(batch, Durability::Buffered).unwrap();
            shard.flush_all().unwrap();
        };
        let mut row = Batch::new();
        row.put(b"k", b"v");
        flush(&row, &mut shards[0]);
        let (seen, work) = engine.shared.work_for_choosing();
        drop(work);
        let snapshot = shards[0].snapshot();
        let mut all = Batch::new();
        all.delete_range(b"a", b"z");
        flush(&all, &mut shards[0]);
        engine.shared.begin_merging(&mut engine.shared.work(), &BTreeMap::new(), seen);
        while let Some(job) = engine.next_job() {
            job.run().unwrap();
        }
        shards[0].refresh();
        let found = shards[0].get(b"k", Some(&snapshot)).unwrap().map(|value| value.to_vec());
        assert_eq!(found.as_deref(), Some(&b"v"[..]), "the snapshot reads it");
    }
}
