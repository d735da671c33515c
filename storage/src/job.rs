//! Jobs: background work handed out whole. Whoever takes one decides which thread runs it.

use crate::blob::{LoadingMerge, Relocation, Separator, blob_name};
use crate::compaction::choose::Choice;
use crate::compaction::run::{ReachesBelow, Rewrite, unknown_kind};
use crate::engine::{Flush, Shared};
use crate::error::Error;
use crate::key::Kind;
use crate::manifest::Edit;
use crate::merge::{Direction, MemtableCursor, Source, TablesCursor};
use crate::scrub;
use crate::table::{Table, TableBounds, TableWriter, table_name};
use crate::tombstones::RangeTombstones;
use crate::version::Version;
use std::borrow::Cow;
use std::collections::BTreeSet;
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
    Relocate(Relocation),
    Scrub(u64),
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
    /// Moves live large values out of a blob file that is mostly dead.
    Relocate,
    /// Reads what is at rest and verifies it.
    Scrub,
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
            Some(Task::Relocate(..)) => JobKind::Relocate,
            Some(Task::Scrub(_)) => JobKind::Scrub,
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
            Task::Relocate(relocation) => run_relocation(&shared, relocation),
            Task::Scrub(bytes) => scrub::run_step(&shared, *bytes),
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
    let tombstones = flush.memtable.tombstones().clone();
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
        let cursor = TablesCursor::new(tables, &[], None, Direction::Forward)?;
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

/// Tables and blob files just written, not yet part of the store.
#[derive(Default)]
pub(crate) struct Written {
    pub(crate) tables: Vec<(u64, TableBounds)>,
    pub(crate) blobs: Vec<(u64, u64)>,
}

impl Written {
    fn names(&self) -> Vec<String> {
        let tables = self.tables.iter().map(|(number, _)| table_name(*number));
        tables.chain(self.blobs.iter().map(|(number, _)| blob_name(*number))).collect()
    }
}

/// Writes a table again at its level, as it is, but for large values that move.
fn run_relocation(shared: &Shared, relocation: &Relocation) -> Result<(), Error> {
    let Relocation { level, table, leave } = relocation;
    let tables = std::slice::from_ref(table);
    let mut cursor = TablesCursor::new(tables, &[], None, Direction::Forward)?;
    let mut separator = Separator::new(shared, leave.clone());
    let (number, writer) = shared.open_table_writer()?;
    let copied = copy_rows(&mut cursor, &mut separator, writer, table);
    let written = copied.and_then(|bounds| {
        Ok(Written { tables: vec![(number, bounds)], blobs: separator.finish()? })
    });
    match written {
        Ok(written) => {
            install(shared, written, *level, &[table.number], Vec::new(), None)?;
            shared.queue_removal([table_name(table.number)]);
            Ok(())
        }
        Err(e) => {
            separator.discard();
            discard(shared, [table_name(number)]);
            Err(e)
        }
    }
}

fn copy_rows(
    cursor: &mut TablesCursor<'_>,
    separator: &mut Separator<'_>,
    mut writer: TableWriter,
    table: &Table,
) -> Result<TableBounds, Error> {
    let io = |e| Error::io("writing a table", &e);
    let mut found = Vec::new();
    while let Some(key) = cursor.key().map(<[u8]>::to_vec) {
        found.clear();
        cursor.take(&mut found)?;
        for (tag, value) in &found {
            let kind = tag.kind().ok_or_else(unknown_kind)?;
            let value = match kind {
                Kind::Put => separator.place(&key, value.bytes())?,
                Kind::Delete | Kind::Merge => Cow::Borrowed(value.bytes()),
            };
            writer.add(&key, tag.sequence(), kind, &value).map_err(io)?;
        }
    }
    writer.add_ranges(table.tombstones()?.iter());
    writer.finish().map_err(io)
}

fn rewrite(
    shared: &Shared,
    sources: Vec<Source<'_>>,
    tombstones: RangeTombstones,
    reaches_below: &ReachesBelow<'_>,
    table_bytes: u64,
) -> Result<Written, Error> {
    let mut opened = Vec::new();
    let mut open = || {
        let (number, writer) = shared.open_table_writer()?;
        opened.push(number);
        Ok((number, writer))
    };
    // Snapshots taken from now on see everything in these sources alike.
    let snapshots = shared.live_snapshots();
    let merge = &LoadingMerge { merge: shared.merge.as_ref(), shelf: &shared.shelf };
    let mut separator = Separator::new(shared, BTreeSet::new());
    let rewrite = Rewrite {
        sources,
        tombstones,
        merge,
        snapshots,
        reaches_below,
        table_bytes,
        separator: &mut separator,
        open: &mut open,
    };
    let tables = rewrite.run();
    let written = tables.and_then(|tables| Ok(Written { tables, blobs: separator.finish()? }));
    if written.is_err() {
        separator.discard();
        discard(shared, opened.into_iter().map(table_name));
    }
    written
}

/// Files whose making failed: their space may be what is missing.
fn discard(shared: &Shared, names: impl IntoIterator<Item = String>) {
    for name in names {
        if let Err(e) = shared.disk.remove(&name) {
            tracing::debug!(%name, error = %e, "an unfinished file stays until the next start");
        }
    }
}

/// Makes written files part of the store.
pub(crate) fn install(
    shared: &Shared,
    written: Written,
    level: usize,
    removed: &[u64],
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
        discard(shared, names);
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
