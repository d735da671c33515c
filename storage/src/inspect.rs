//! Inspect: what a store and its files are made of, for people and for the tools they use.

use crate::blob::{self, Blobs, Stored, stored};
use crate::compaction::run::unknown_kind;
use crate::disk::Disk;
use crate::engine::Engine;
use crate::error::Error;
use crate::key::Kind;
use crate::merge::Direction;
use crate::recovery::LogCut;
use crate::shelf::Shelf;
use crate::table::{Table, TablesCursor};
use std::io::ErrorKind;
use std::sync::Arc;

/// A table as the manifest and its properties describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    /// Its number, which is its file's name.
    pub number: u64,
    /// Its level.
    pub level: usize,
    /// Size of its file.
    pub bytes: u64,
    /// First key it speaks of.
    pub smallest: Vec<u8>,
    /// Last key it speaks of.
    pub largest: Vec<u8>,
    /// The newest change in it.
    pub last_sequence: u64,
    /// Changes in it, deletions of ranges included.
    pub entries: u64,
    /// Deletions among them, those of ranges included.
    pub deletions: u64,
    /// Deletions of ranges among them.
    pub range_deletions: u64,
    /// Merge operands among them.
    pub merges: u64,
    /// Bytes of keys and values before compression; of large values their pointers.
    pub raw_bytes: u64,
    /// Bytes of blob files that it points to.
    pub blob_bytes: u64,
    /// False when it cannot be read at all.
    pub readable: bool,
}

/// A blob file as the manifest describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its number, which is its file's name.
    pub number: u64,
    /// Size of its file.
    pub bytes: u64,
    /// Bytes of it that tables point to.
    pub live_bytes: u64,
}

/// One change as a table holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRow<'a> {
    /// The key; of a deletion of a range its start.
    pub key: &'a [u8],
    /// The change's sequence.
    pub sequence: u64,
    /// What it does.
    pub change: TableChange<'a>,
}

/// What a change in a table does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableChange<'a> {
    /// The key has this value.
    Put(&'a [u8]),
    /// The key has a large value that stands elsewhere.
    Large {
        /// The number of the blob file.
        file: u64,
        /// Where in it.
        offset: u64,
        /// How many bytes it takes there.
        bytes: u64,
    },
    /// The key has no value.
    Delete,
    /// The key's value changes by this operand.
    Merge(&'a [u8]),
    /// All keys up to this one (exclusive) have no value.
    DeleteRange(&'a [u8]),
}

impl Engine {
    /// The tables in force, by level and key.
    #[must_use]
    pub fn tables(&self) -> Vec<TableInfo> {
        let version = self.shared.version.load_full();
        let info = |(level, table): (usize, &Arc<Table>)| {
            let (bounds, counts) = (&table.bounds, table.counts);
            TableInfo {
                number: table.number,
                level,
                bytes: bounds.bytes,
                smallest: bounds.smallest.clone(),
                largest: bounds.largest.clone(),
                last_sequence: bounds.last_sequence,
                entries: counts.entries,
                deletions: counts.deletions + counts.ranges,
                range_deletions: counts.ranges,
                merges: counts.merges,
                raw_bytes: counts.raw_bytes,
                blob_bytes: bounds.blobs.iter().map(|(_, bytes)| bytes).sum(),
                readable: !table.is_unreadable(),
            }
        };
        version.tables().map(info).collect()
    }

    /// Where the start cut logs that go on behind the cut, with writes that nobody was promised. Only a
    /// start that tolerates damage looks there.
    #[must_use]
    pub fn log_cuts(&self) -> Vec<LogCut> {
        self.shared.log_cuts.clone()
    }

    /// The blob files in force, by number.
    #[must_use]
    pub fn blobs(&self) -> Vec<BlobInfo> {
        let live = blob::live_bytes(&self.shared.version.load_full());
        let info = |(number, bytes): (u64, u64)| {
            let live_bytes = live.get(&number).copied().unwrap_or(0);
            BlobInfo { number, bytes, live_bytes }
        };
        self.shared.story().blobs.into_iter().map(info).collect()
    }
}

/// Calls `f` with every change in the table file `name`, in order: deletions of ranges first, then
/// by key, newest first. Verifies what it reads; wants no store around it.
///
/// # Errors
/// [`Error::Damaged`] at the first block that does not prove itself (what came before was handed
/// out), [`Error::Io`] when the disk refuses, or of kind `Unsupported` when it is a sound table of another
/// store that this version does not read.
pub fn read_table(
    disk: &Arc<dyn Disk>,
    name: &str,
    f: &mut dyn FnMut(TableRow<'_>),
) -> Result<(), Error> {
    read_rows(disk, name, f).map_err(|e| match e {
        Error::Io { what, kind: ErrorKind::Unsupported } => {
            Error::Io { what: format!("{name}: {what}"), kind: ErrorKind::Unsupported }
        }
        other => other,
    })
}

fn read_rows(
    disk: &Arc<dyn Disk>,
    name: &str,
    f: &mut dyn FnMut(TableRow<'_>),
) -> Result<(), Error> {
    let io = |e: std::io::Error| Error::io(&format!("reading {name}"), &e);
    let file = disk.open(name).map_err(io)?;
    let bytes = file.len().map_err(io)?;
    let shelf = Arc::new(Shelf::new(0, Blobs::new(disk.clone(), false)));
    let number = crate::table::parse_table_name(name).unwrap_or(0);
    let table = Arc::new(Table::open_foreign(number, bytes, file, shelf)?);
    for (key, end, sequence) in table.tombstones()?.iter() {
        f(TableRow { key, sequence, change: TableChange::DeleteRange(end) });
    }
    let tables = std::slice::from_ref(&table);
    let mut cursor = TablesCursor::new(tables, &[], None, Direction::Forward)?;
    let mut found = Vec::new();
    while let Some(key) = cursor.key().map(<[u8]>::to_vec) {
        found.clear();
        cursor.take(&mut found)?;
        for (tag, value) in &found {
            let bytes = value.bytes();
            let change = match (tag.kind().ok_or_else(unknown_kind)?, stored(bytes)) {
                (Kind::Put, Stored::Inline(value)) => TableChange::Put(value),
                (Kind::Put, Stored::Elsewhere(at)) => {
                    TableChange::Large { file: at.file, offset: at.offset, bytes: at.block_bytes() }
                }
                (Kind::Delete, _) => TableChange::Delete,
                (Kind::Merge, _) => TableChange::Merge(bytes),
            };
            f(TableRow { key: &key, sequence: tag.sequence(), change });
        }
    }
    Ok(())
}
