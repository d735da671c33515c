//! Background: which compactions are under way, what is to be chosen next, and how far behind it all is.
//!
//! Promise: what a running compaction has taken stays claimed until its tables are installed or removed.

use super::{Cuts, Flush, Shared, Work};
use crate::compaction::choose::{Choice, Claim, Situation, Work as Doing, choose};
use crate::compaction::levels::{groups, pending_bytes};
use crate::compaction::merging::{Merging, Next, Plan, Written};
use crate::compaction::pace::{Debt, share};
use crate::compaction::split;
use crate::error::Error;
use crate::job;
use crate::limits::LEVELS;
use crate::table::Table;
use crate::version::Version;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

impl Work {
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
        Debt {
            // One memtable fills while another is flushed: that is no debt.
            memtables: share(unflushed as f64 / options.memtable_bytes as f64, 2.0, 6.0),
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
        let bytes = mine.map(|f| f.memtable.bytes()).sum();
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

    /// Chooses what to merge next, if anything is due and there is room for it.
    pub(super) fn begin_merging(&self, work: &mut Work) -> Option<()> {
        let version = self.version.load_full();
        let claims: Vec<Claim> = work.merging.values().map(|m| m.claim.clone()).collect();
        let situation = Situation {
            version: &version,
            options: &self.options,
            claims: &claims,
            oldest_snapshot: self.live_snapshots().first().copied(),
            free_bytes: self.disk.free().unwrap_or_else(|e| {
                tracing::debug!(error = %e, "the disk cannot tell how much room it has");
                None
            }),
        };
        let choice = choose(&situation)?;
        work.next_merging += 1;
        let plan = self.plan(work.next_merging, choice, version);
        work.merging.insert(work.next_merging, Merging::new(plan));
        Some(())
    }

    fn plan(&self, number: u64, choice: Choice, version: Arc<Version>) -> Plan {
        let inputs: Vec<&Arc<Table>> = choice.inputs().collect();
        let parts = choice.bytes() / self.options.table_bytes;
        let parts_max = if choice.work == Doing::Merge { self.options.parts_max } else { 1 };
        let parts = usize::try_from(parts).unwrap_or(usize::MAX).clamp(1, parts_max);
        let parts = split::ranges(&split::cuts(&inputs, parts));
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
        Plan { number, choice, version, parts, cuts }
    }

    /// The keys at which a flush of `shard` is cut.
    pub(crate) fn flush_cuts(&self, shard: usize, version: &Version) -> Vec<Vec<u8>> {
        let range = &self.ranges[shard];
        let base = (1..LEVELS).find(|level| !version.levels[*level].is_empty());
        let tables = base.map_or(&[][..], |level| version.levels[level].as_slice());
        let mine = |t: &&Arc<Table>| t.overlaps(&range.lower, range.upper.as_deref());
        let tables: Vec<&Arc<Table>> = tables.iter().filter(mine).collect();
        let bytes: u64 = tables.iter().map(|t| t.bounds.bytes).sum();
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
            job::discard(self, written.into_iter().map(|(number, _)| number));
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
                job::discard(self, written.into_iter().map(|(number, _)| number));
                done
            }
        };
        self.work().merging.remove(&plan.number);
        done
    }
}
