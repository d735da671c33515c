//! Jobs: background work handed out whole. Whoever takes one decides which thread runs it.

use crate::compaction::choose::Choice;
use crate::compaction::run::{ReachesBelow, Rewrite};
use crate::engine::{Flush, Shared};
use crate::error::Error;
use crate::manifest::Edit;
use crate::merge::{Direction, MemtableCursor, Source};
use crate::table::{TableBounds, TablesCursor, table_name};
use crate::tombstones::RangeTombstones;
use crate::version::Version;
use std::io::ErrorKind;
use std::sync::Arc;

/// A piece of background work. Run it or drop it; dropped or failed it is handed out again.
pub struct Job {
    shared: Arc<Shared>,
    task: Option<Task>,
}

pub(crate) enum Task {
    Flush(Flush),
    Compact(Choice, Arc<Version>),
    Remove(Vec<String>),
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Writes an immutable memtable to a table.
    Flush,
    /// Merges tables.
    Compact,
    /// Deletes files that nobody needs.
    Remove,
}

impl Job {
    pub(crate) fn new(shared: Arc<Shared>, task: Task) -> Self {
        Self { shared, task: Some(task) }
    }

    /// What it does.
    #[must_use]
    pub fn kind(&self) -> JobKind {
        match self.task {
            Some(Task::Flush(_)) => JobKind::Flush,
            Some(Task::Compact(..)) => JobKind::Compact,
            Some(Task::Remove(_)) | None => JobKind::Remove,
        }
    }

    /// Does it, blocking on the disk.
    ///
    /// # Errors
    /// [`Error::NoSpace`] and [`Error::Io`]: nothing changed, try again later.
    /// [`Error::Damaged`]: a table cannot be read; it is reported and left out from now on.
    /// [`Error::Poisoned`]: reopen.
    pub fn run(mut self) -> Result<(), Error> {
        let shared = self.shared.clone();
        let done = match self.task.as_mut().expect("only run and drop take the task") {
            Task::Flush(flush) => run_flush(&shared, flush),
            Task::Compact(choice, version) => run_compaction(&shared, choice, version),
            Task::Remove(names) => remove_files(&shared, names),
        };
        if done.is_ok() && matches!(self.task, Some(Task::Remove(_))) {
            self.task = None;
        }
        done
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            self.shared.release(task);
        }
    }
}

fn run_flush(shared: &Shared, flush: &Flush) -> Result<(), Error> {
    let cursor = MemtableCursor::new(&flush.memtable, &[], None, Direction::Forward);
    let sources = vec![Source::Memtable(cursor)];
    let tombstones = flush.memtable.all_tombstones();
    let everything = |_: &[u8], _: Option<&[u8]>| true;
    let written = rewrite(shared, sources, tombstones, &everything, u64::MAX)?;
    let range = shared.ranges[flush.shard].clone();
    let mark = Edit::Flushed { range, sequence: flush.memtable.last_sequence() };
    install(shared, written, 0, &[], vec![mark], Some((flush.shard, flush.number)))?;
    shared.flushed(flush);
    Ok(())
}

fn run_compaction(shared: &Shared, choice: &Choice, version: &Version) -> Result<(), Error> {
    let level = choice.level();
    let removed: Vec<u64> = choice.inputs().map(|t| t.number).collect();
    if let ([table], [], true) = (&*choice.upper, &*choice.lower, choice.upper_level > 0) {
        // Nothing lies below: the file moves down as it is.
        let bounds = table.bounds.clone();
        let edit = Edit::AddTable { level, number: table.number, bounds };
        return shared.publish(&[edit], &removed, vec![(level, table.clone())], None);
    }
    let mut sources = Vec::new();
    let runs = choice.upper.iter().map(std::slice::from_ref);
    for tables in runs.chain(std::iter::once(choice.lower.as_slice())) {
        let cursor = TablesCursor::streaming(tables)?;
        sources.push(Source::Tables(Box::new(cursor)));
    }
    let mut tombstones = RangeTombstones::default();
    for table in choice.inputs() {
        tombstones.add_all(table.tombstones()?);
    }
    let below = |lower: &[u8], upper: Option<&[u8]>| version.reaches_below(level + 1, lower, upper);
    let written = rewrite(shared, sources, tombstones, &below, shared.options.table_bytes)?;
    install(shared, written, level, &removed, Vec::new(), None)?;
    shared.queue_removal(removed.into_iter().map(table_name));
    Ok(())
}

fn rewrite(
    shared: &Shared,
    sources: Vec<Source<'_>>,
    tombstones: RangeTombstones,
    reaches_below: &ReachesBelow<'_>,
    table_bytes: u64,
) -> Result<Vec<(u64, TableBounds)>, Error> {
    let mut opened = Vec::new();
    let mut open = || {
        let (number, writer) = shared.open_table_writer()?;
        opened.push(number);
        Ok((number, writer))
    };
    // Snapshots taken from now on see everything in these sources alike.
    let snapshots = shared.live_snapshots();
    let merge = shared.merge.as_ref();
    let rewrite = Rewrite {
        sources,
        tombstones,
        merge,
        snapshots,
        reaches_below,
        table_bytes,
        open: &mut open,
    };
    let written = rewrite.run();
    if written.is_err() {
        discard(shared, opened);
    }
    written
}

/// Tables whose making failed: their space may be what is missing.
fn discard(shared: &Shared, numbers: impl IntoIterator<Item = u64>) {
    for name in numbers.into_iter().map(table_name) {
        if let Err(e) = shared.disk.remove(&name) {
            tracing::debug!(%name, error = %e, "an unfinished table stays until the next start");
        }
    }
}

/// Makes written tables part of the store.
fn install(
    shared: &Shared,
    written: Vec<(u64, TableBounds)>,
    level: usize,
    removed: &[u64],
    mut edits: Vec<Edit>,
    flushed: Option<(usize, u64)>,
) -> Result<(), Error> {
    let numbers: Vec<u64> = written.iter().map(|(number, _)| *number).collect();
    let install = || {
        if !written.is_empty() {
            shared.disk.sync_dir().map_err(|e| Error::io("syncing the directory", &e))?;
        }
        let mut added = Vec::new();
        for (number, bounds) in written {
            let table = shared.open_table(number, bounds.clone())?;
            added.push((level, table));
            edits.push(Edit::AddTable { level, number, bounds });
        }
        edits.extend(removed.iter().map(|number| Edit::RemoveTable { number: *number }));
        shared.publish(&edits, removed, added, flushed)
    };
    let done = install();
    // After a poisoned manifest write the edit may be there: its tables have to stay.
    if done.is_err() && !shared.poison.is_set() {
        discard(shared, numbers);
    }
    done
}

fn remove_files(shared: &Shared, names: &mut Vec<String>) -> Result<(), Error> {
    while let Some(name) = names.first() {
        match shared.disk.remove(name) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(Error::io("removing a file", &e));
            }
            _ => drop(names.remove(0)),
        }
    }
    Ok(())
}
