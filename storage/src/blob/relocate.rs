//! Collecting blob files that are mostly dead, or many and small: moving what is live out of them.
//!
//! Mostly dead: one table a job is written again at its level, as it is, but for the values that move.
//! Small, as each flush leaves one that saw few large values: the merging that writes the tables again anyway
//! moves them. When the last table that points into a file was written again, the file is dead and goes.

use super::Separator;
use crate::compaction::choose::{Choice, Situation, Work};
use crate::compaction::merging::{Plan, Written};
use crate::compaction::run::{OnProgress, unknown_kind};
use crate::engine::Shared;
use crate::error::Error;
use crate::job;
use crate::key::Kind;
use crate::table::{Table, TableBounds, TableWriter, TablesCursor, table_name};
use crate::version::Version;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// Bytes after which progress is told.
const PROGRESS_BYTES: u64 = 256 << 10;

/// The table to be written again next, if some file holds too little that is live, and the files
/// that it shall not point into any more. `sizes`: bytes of each blob file. Pure.
pub(crate) fn choose(
    situation: &Situation<'_>,
    sizes: &BTreeMap<u64, u64>,
    broken: &BTreeSet<u64>,
) -> Option<(Choice, BTreeSet<u64>)> {
    if sizes.is_empty() {
        return None;
    }
    let live = live_bytes(situation.version);
    let mut sparse: Vec<(u64, u64)> = Vec::new();
    for (number, bytes) in sizes {
        let live = live.get(number).copied().unwrap_or(0);
        if live * 100 < bytes * situation.options.blob_live_percent && !broken.contains(number) {
            sparse.push((live * 1000 / bytes.max(&1), *number));
        }
    }
    sparse.sort_unstable();
    let leave: BTreeSet<u64> = sparse.iter().map(|(_, number)| *number).collect();
    sparse.into_iter().find_map(|(_, worst)| {
        let points = |table: &Table| table.bounds.blobs.iter().any(|(number, _)| *number == worst);
        let mut tables = situation.version.tables().filter(|(_, table)| points(table));
        let choice = tables.find_map(|(level, table)| situation.relocated(level, table))?;
        Some((choice, leave.clone()))
    })
}

/// So many small files among those that the tables of a merging point into are put together.
const SMALL_MANY: usize = 8;
/// A file is small below this part of the size at which one is closed.
const SMALL_PART: u64 = 4;

/// The files whose values the merging `choice` shall move, because they are many and small: each is a file
/// that is held open, and a name that somebody has to list. As [`choose`] otherwise. Pure.
pub(crate) fn small(
    choice: &Choice,
    blob_file_bytes: u64,
    sizes: &BTreeMap<u64, u64>,
    broken: &BTreeSet<u64>,
) -> BTreeSet<u64> {
    let inputs = choice.inputs().flat_map(|table| &table.bounds.blobs);
    let is_small = |number: &u64| {
        sizes.get(number).is_some_and(|bytes| *bytes < blob_file_bytes / SMALL_PART)
            && !broken.contains(number)
    };
    let found: BTreeSet<u64> = inputs.map(|(number, _)| *number).filter(is_small).collect();
    if choice.work == Work::Merge && found.len() >= SMALL_MANY { found } else { BTreeSet::new() }
}

/// Bytes of each blob file that a table of `version` points to.
pub(crate) fn live_bytes(version: &Version) -> BTreeMap<u64, u64> {
    let mut live = BTreeMap::new();
    for (_, table) in version.tables() {
        for (number, bytes) in &table.bounds.blobs {
            *live.entry(*number).or_default() += bytes;
        }
    }
    live
}

/// Writes the table of `plan` again as it is, but for large values that move.
pub(crate) fn relocate(
    shared: &Shared,
    plan: &Plan,
    progress: &mut OnProgress<'_>,
) -> Result<Written, Error> {
    let mut separator = Separator::new(shared, plan.leave.clone());
    let mut written = Written::default();
    let copied = plan.choice.upper.iter().try_for_each(|table| {
        let (number, writer) = shared.open_table_writer()?;
        match copy_rows(table, &mut separator, writer, progress) {
            Ok(bounds) => written.tables.push((number, bounds)),
            Err(e) => {
                job::discard(shared, [table_name(number)]);
                return Err(e);
            }
        }
        Ok(())
    });
    match copied.and_then(|()| separator.finish()) {
        Ok(blobs) => Ok(Written { blobs, ..written }),
        Err(e) => {
            separator.discard();
            job::discard(shared, written.names());
            Err(e)
        }
    }
}

fn copy_rows(
    table: &Arc<Table>,
    separator: &mut Separator<'_>,
    mut writer: TableWriter,
    progress: &mut OnProgress<'_>,
) -> Result<TableBounds, Error> {
    let io = |e| Error::io("writing a table", &e);
    let tables = std::slice::from_ref(table);
    let mut cursor = TablesCursor::streaming(tables, &[], None)?;
    let mut found = Vec::new();
    let mut bytes = 0;
    while let Some(key) = cursor.key().map(<[u8]>::to_vec) {
        found.clear();
        cursor.take(&mut found)?;
        for (tag, value) in &found {
            let kind = tag.kind().ok_or_else(unknown_kind)?;
            let placed = match kind {
                Kind::Put => separator.place(&key, value.bytes())?,
                Kind::Delete | Kind::Merge => Cow::Borrowed(value.bytes()),
            };
            bytes += (key.len() + value.bytes().len()) as u64;
            writer.add(&key, tag.sequence(), kind, &placed).map_err(io)?;
        }
        if bytes >= PROGRESS_BYTES && progress(std::mem::take(&mut bytes)).is_break() {
            let broken_off = io::Error::from(ErrorKind::Interrupted);
            return Err(Error::io("the job was broken off", &broken_off));
        }
    }
    writer.add_ranges(table.tombstones()?.iter());
    writer.finish().map_err(io)
}
