//! Jobs: background work handed out whole. Whoever takes one decides which thread runs it.

use crate::blob::{LoadingMerge, Separator, relocate};
use crate::compaction::choose::{Reason, Work};
use crate::compaction::merging::{Plan, Written};
use crate::compaction::run::{Rewrite, range_bytes};
use crate::engine::{Flush, Shared};
use crate::error::Error;
use crate::log::parse_segment_name;
use crate::manifest::Edit;
use crate::merge::{Direction, MemtableCursor, Source};
use crate::options::PlantedBug;
use crate::scrub;
use crate::table::{self, Table, TablesCursor, part, table_name};
use crate::tombstones::{Keep, RangeTombstones};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::sync::Arc;

/// A piece of background work. Run it or drop it; dropped or failed it is handed out again. Any
/// number of them may be out at once, and end in any order.
pub struct Job {
    shared: Arc<Shared>,
    task: Option<Task>,
}

pub(crate) enum Task {
    Flush(Flush),
    /// A part of a merging.
    Compact(Arc<Plan>, usize),
    Remove(Vec<String>),
    Fill,
    /// Reads about so many bytes.
    Scrub(u64),
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Writes an immutable memtable to tables.
    Flush,
    /// Merges tables, or a part of them.
    Compact,
    /// Deletes files that nobody needs, or makes them ready to be used again.
    Remove,
    /// Makes a file ready for the log.
    Fill,
    /// Moves live large values out of a blob file that is mostly dead.
    Relocate,
    /// Reads what is at rest and verifies it.
    Scrub,
}

/// Told of bytes as they are worked on; see [`Job::run_paced`].
pub(crate) type Progress<'a> = dyn FnMut(u64) -> ControlFlow<()> + 'a;

impl Job {
    pub(crate) fn new(shared: Arc<Shared>, task: Task) -> Self {
        Self { shared, task: Some(task) }
    }

    /// What it does.
    #[must_use]
    pub fn kind(&self) -> JobKind {
        match &self.task {
            Some(Task::Flush(_)) => JobKind::Flush,
            Some(Task::Compact(plan, _)) if plan.choice.work == Work::Relocate => JobKind::Relocate,
            Some(Task::Compact(..)) => JobKind::Compact,
            Some(Task::Scrub(_)) => JobKind::Scrub,
            Some(Task::Fill) => JobKind::Fill,
            Some(Task::Remove(_)) | None => JobKind::Remove,
        }
    }

    /// Does it, blocking on the disk.
    ///
    /// # Errors
    /// [`Error::NoSpace`] and [`Error::Io`]: nothing changed, try again later.
    /// [`Error::Damaged`]: a table cannot be read; it is reported and left out from now on.
    /// [`Error::Busy`]: a table that it was about was repaired meanwhile; nothing changed.
    /// [`Error::Poisoned`]: reopen.
    pub fn run(self) -> Result<(), Error> {
        self.run_paced(&mut |_| ControlFlow::Continue(()))
    }

    /// Does it, and calls `progress` about every 256 KiB with the bytes worked on since the last
    /// call, in which the caller may wait (with a [`crate::Pace`]) or break the job off.
    ///
    /// # Errors
    /// As [`Job::run`]; broken off: [`Error::Io`] of kind `Interrupted`, and nothing changed.
    pub fn run_paced(
        mut self,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let shared = self.shared.clone();
        // Kept until it has ended: whoever panics in between gives it back.
        let done = match self.task.as_mut().expect("only run and drop take the task") {
            Task::Flush(flush) => {
                let done = run_flush(&shared, flush, progress);
                shared.flush_ended(flush, done.is_ok());
                done
            }
            Task::Compact(plan, part) => {
                let done = match plan.choice.work {
                    Work::Merge => run_part(&shared, plan, *part, progress),
                    Work::Relocate => relocate(&shared, plan, progress),
                    Work::Move | Work::Drop => Ok(Written::default()),
                };
                shared.part_ended(plan, *part, done)
            }
            Task::Remove(names) => {
                let done = remove_files(&shared, names);
                shared.removal_ended(std::mem::take(names));
                done
            }
            Task::Fill => {
                let done = shared.spares.fill();
                shared.spares.leave();
                done
            }
            Task::Scrub(bytes) => {
                let done = scrub::run_step(&shared, *bytes);
                shared.scrub_ended();
                done
            }
        };
        self.task = None;
        done
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        match self.task.take() {
            Some(Task::Flush(flush)) => self.shared.flush_ended(&flush, false),
            Some(Task::Compact(plan, part)) => self.shared.put_back(&plan, part),
            Some(Task::Remove(names)) => self.shared.removal_ended(names),
            Some(Task::Fill) => self.shared.spares.leave(),
            Some(Task::Scrub(_)) => self.shared.scrub_ended(),
            None => {}
        }
    }
}

fn run_flush(shared: &Shared, flush: &Flush, progress: &mut Progress<'_>) -> Result<(), Error> {
    let cursor = MemtableCursor::new(&flush.memtable, &[], None, Direction::Forward);
    // Memtables of a shard are flushed one after the other, so what is older is in these tables.
    let version = shared.version.load_full();
    let forgotten = shared.options.planted(PlantedBug::DeletionsForgotten);
    let below = |lower: &[u8], upper: Option<&[u8]>| !forgotten && version.speaks_of(lower, upper);
    let cuts = shared.flush_cuts(flush.shard, &version);
    let filter = shared.filter();
    let range = shared.ranges[flush.shard].clone();
    let merge = LoadingMerge { merge: shared.merge.as_ref(), shelf: &shared.shelf };
    // Snapshots taken from now on see everything in these sources alike.
    let snapshots = shared.live_snapshots(|shard| *shard == range);
    let written = rewrite(
        shared,
        Rewrite {
            sources: vec![Source::Memtable(cursor)],
            range: &range,
            tombstones: flush.memtable.all_tombstones(&snapshots),
            merge: &merge,
            filter: filter.as_deref(),
            newer: &|_| false,
            snapshots,
            reaches_below: &below,
            table_bytes: u64::MAX,
            range_bytes: range_bytes(shared.options.table_bytes),
            cuts: &cuts,
            separator: Separator::new(shared, BTreeSet::new()),
            open: &mut || shared.open_table_writer(),
            progress,
        },
    )?;
    if let Some(behind) = &flush.behind {
        behind.sync()?;
    }
    let mark = Edit::Flushed { range, sequence: flush.memtable.last_sequence() };
    let flushed = Some((flush.shard, flush.number));
    install(shared, written, &|_| 0, &[], &[], vec![mark], flushed)
}

/// Merges what the inputs of `plan` hold in its part number `part`.
fn run_part(
    shared: &Shared,
    plan: &Plan,
    part: usize,
    progress: &mut Progress<'_>,
) -> Result<Written, Error> {
    let (choice, part) = (&plan.choice, &plan.parts[part]);
    let range = &part.range;
    let snapshots = shared.live_snapshots(|shard| {
        let Some(shared) = range.shared_with(shard) else { return false };
        let mut read = choice.inputs().filter(|t| part.reads(t));
        read.any(|t| t.overlaps(&shared.lower, shared.upper.as_deref()))
    });
    // Range deletions first: whole tables below them need not be read.
    let sets = choice.inputs().filter(|t| part.reads(t)).map(|table| table.tombstones());
    let sets: Result<Vec<_>, Error> = sets.collect();
    let tombstones = RangeTombstones::union(&sets?, Keep::Seen(&snapshots));
    let oldest = snapshots.first().copied();
    let read = |t: &&Arc<Table>| {
        let (lower, last) = (&t.bounds.smallest, t.bounds.last_sequence);
        part.reads(t) && !tombstones.bury(lower, &t.upper(), last, oldest)
    };
    let upper: Vec<Arc<Table>> = choice.upper.iter().filter(read).cloned().collect();
    let lower: Vec<Arc<Table>> = choice.lower.iter().filter(read).cloned().collect();
    let mut runs: Vec<&[Arc<Table>]> = if choice.upper_level == 0 {
        upper.iter().map(std::slice::from_ref).collect()
    } else {
        vec![&upper]
    };
    runs.push(&lower);
    let mut sources = Vec::new();
    for tables in runs.into_iter().filter(|tables| !tables.is_empty()) {
        let cursor = TablesCursor::streaming(tables, &range.lower, range.upper.as_deref())?;
        sources.push(Source::Tables(cursor));
    }
    let read = choice.inputs().filter(|t| part.reads(t));
    let inputs: BTreeSet<u64> = read.map(|t| t.number).collect();
    let newer = |key: &[u8]| {
        let hash = table::hash(key);
        let now = shared.version.load();
        let mut above = now.tables().filter(|(level, _)| *level <= choice.level);
        above.any(|(_, t)| !inputs.contains(&t.number) && t.may_hold(key, hash))
    };
    let filter = shared.filter();
    let merge = LoadingMerge { merge: shared.merge.as_ref(), shelf: &shared.shelf };
    let forgotten = shared.options.planted(PlantedBug::DeletionsForgotten);
    let below = |lower: &[u8], upper: Option<&[u8]>| {
        let reaches = || plan.version.reaches_below(choice.level + 1, lower, upper);
        !forgotten && (part.stays || reaches())
    };
    let stays_in_0 = part.stays && choice.upper_level == 0;
    let mut written = rewrite(
        shared,
        Rewrite {
            sources,
            range,
            tombstones,
            merge: &merge,
            filter: filter.as_deref(),
            newer: &newer,
            snapshots,
            reaches_below: &below,
            table_bytes: shared.options.table_bytes,
            range_bytes: range_bytes(shared.options.table_bytes),
            cuts: &plan.cuts,
            separator: Separator::by_the_way(shared, plan.leave.clone()),
            open: &mut || shared.open_table_writer(),
            progress,
        },
    )?;
    if stays_in_0 {
        // It takes their place among the tables of level 0, whatever is left of them.
        let last = choice.upper.iter().filter(|t| part.reads(t)).map(|t| t.bounds.last_sequence);
        let last = last.max().unwrap_or(0);
        written.tables.iter_mut().for_each(|(_, bounds)| bounds.last_sequence = last);
    }
    if part.stays {
        written.above = written.tables.iter().map(|(number, _)| *number).collect();
    }
    Ok(written)
}

/// Runs `rewrite`; when it fails its tables are removed.
fn rewrite(shared: &Shared, rewrite: Rewrite<'_>) -> Result<Written, Error> {
    let mut opened = Vec::new();
    let written = rewrite.run(&mut opened);
    if written.is_err() {
        discard(shared, opened.into_iter().map(table_name));
    }
    written
}

/// Files whose making failed: their space may be what is missing.
pub(crate) fn discard(shared: &Shared, names: impl IntoIterator<Item = String>) {
    for name in names {
        if let Err(e) = shared.disk.remove(&name) {
            tracing::debug!(%name, error = %e, "an unfinished file stays until the next start");
        }
    }
}

/// Makes the tables of a merging part of the store, in the place of its inputs.
pub(crate) fn install_merged(
    shared: &Shared,
    plan: &Plan,
    mut written: Written,
) -> Result<(), Error> {
    let (choice, level) = (&plan.choice, plan.choice.level);
    let kept = plan.around.kept();
    let stays = |t: &&Arc<Table>| kept.iter().any(|kept| kept.table.number == t.number);
    let gone: Vec<&Arc<Table>> = choice.inputs().filter(|t| !stays(t)).collect();
    let removed: Vec<u64> = gone.iter().map(|t| t.number).collect();
    if choice.work == Work::Move {
        let edit =
            |t: &Arc<Table>| Edit::AddTable { level, number: t.number, bounds: t.bounds.clone() };
        let edits: Vec<Edit> = choice.upper.iter().map(edit).collect();
        let added = choice.upper.iter().map(|t| (level, t.clone())).collect();
        return shared.publish(&edits, &removed, added, None);
    }
    if choice.reason == Reason::Covered {
        tracing::debug!(tables = removed.len(), level, "tables dropped unread");
    }
    // What its inputs pointed to and what was written does not point to is all that may be left for those
    // that stay: what these point to is only estimated, and no byte may count twice.
    let mut left: BTreeMap<u64, u64> = BTreeMap::new();
    for (number, bytes) in choice.inputs().flat_map(|t| &t.bounds.blobs) {
        *left.entry(*number).or_default() += bytes;
    }
    for (number, bytes) in written.tables.iter().flat_map(|(_, bounds)| &bounds.blobs) {
        left.entry(*number).and_modify(|left| *left = left.saturating_sub(*bytes));
    }
    let narrowed = kept.iter().filter_map(|kept| {
        let mut table = kept.table.narrowed(&kept.range)?;
        for (number, bytes) in &mut table.bounds.blobs {
            let left = left.entry(*number).or_default();
            *bytes = (*bytes).min(*left);
            *left -= *bytes;
        }
        Some((kept.level, Arc::new(table)))
    });
    let narrowed: Vec<(usize, Arc<Table>)> = narrowed.collect();
    let above = std::mem::take(&mut written.above);
    let level_of = |number| if above.contains(&number) { choice.upper_level } else { level };
    install(shared, written, &level_of, &removed, &narrowed, Vec::new(), None)?;
    shared.queue_removal(gone.into_iter().flat_map(|t| t.files()));
    Ok(())
}

/// Makes written files part of the store; when it fails they are removed. `level_of`: where each
/// table goes. `narrowed`: tables that lose a part of themselves.
pub(crate) fn install(
    shared: &Shared,
    written: Written,
    level_of: &dyn Fn(u64) -> usize,
    removed: &[u64],
    narrowed: &[(usize, Arc<Table>)],
    mut edits: Vec<Edit>,
    flushed: Option<(usize, u64)>,
) -> Result<(), Error> {
    let names = written.names();
    let install = || {
        if !names.is_empty() {
            shared.disk.sync_dir().map_err(|e| Error::io("syncing the directory", &e))?;
        }
        let mut added = Vec::new();
        edits.extend(written.blobs.iter().map(|&(number, bytes)| Edit::AddBlob { number, bytes }));
        for (number, bounds) in written.tables {
            let level = level_of(number);
            let table = shared.open_table(number, bounds.clone())?;
            added.push((level, table));
            edits.push(Edit::AddTable { level, number, bounds });
        }
        edits.extend(removed.iter().map(|number| Edit::RemoveTable { number: *number }));
        let mut replaced = removed.to_vec();
        for (level, table) in narrowed {
            let (level, number, bounds) = (*level, table.number, table.bounds.clone());
            edits.push(Edit::AddTable { level, number, bounds });
            replaced.push(number);
        }
        added.extend(narrowed.iter().cloned());
        shared.publish(&edits, &replaced, added, flushed)?;
        narrowed.iter().for_each(|(_, t)| part::say(shared.disk.as_ref(), t.number, &t.bounds));
        Ok(())
    };
    let done = install();
    // After a poisoned manifest write the edit may be there: its tables have to stay.
    if done.is_err() && !shared.poison.is_set() {
        discard(shared, names);
    }
    done
}

fn remove_files(shared: &Shared, names: &mut Vec<String>) -> Result<(), Error> {
    let is_segment = |name: &String| parse_segment_name(name).is_some();
    let (mut segments, others): (Vec<_>, Vec<_>) = names.drain(..).partition(is_segment);
    *names = others;
    // What needs no edit first: on a full disk it makes the room for one.
    let freed = remove_each(shared, names);
    let mut last = Vec::new();
    let forgotten = shared.forget_ends(&mut segments, &mut last);
    let retired = shared.spares.retire(&mut segments);
    segments.append(&mut last);
    // In their order, so that none is gone before one that came earlier in its stream.
    let gone = forgotten.and(retired).and_then(|()| remove_in_order(shared, &mut segments));
    names.append(&mut segments);
    freed.and(gone)
}

/// Removes what can be; the names of the rest stay, and the first error is told.
fn remove_each(shared: &Shared, names: &mut Vec<String>) -> Result<(), Error> {
    let mut done = Ok(());
    names.retain(|name| {
        let removed = remove(shared, name);
        let stays = removed.is_err();
        done = std::mem::replace(&mut done, Ok(())).and(removed);
        stays
    });
    done
}

/// Removes one after the other, until one cannot be.
fn remove_in_order(shared: &Shared, names: &mut Vec<String>) -> Result<(), Error> {
    while let Some(name) = names.first() {
        remove(shared, name)?;
        names.remove(0);
    }
    Ok(())
}

fn remove(shared: &Shared, name: &str) -> Result<(), Error> {
    match shared.disk.remove(name) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(Error::io(&format!("removing {name}"), &e))
        }
        _ => Ok(()),
    }
}
