//! Ingest: table files of other stores become part of this one, as if their rows were written now.
//!
//! The files are read whole, every block verified, and written anew with one sequence above
//! everything that their shards hold; so snapshots do not see them, later writes overrule them, and
//! large values go where large values are. Promises: all of the files or nothing, in one edit of the
//! manifest; nothing of the source is changed or needed afterwards.
//!
//! The memtables of the shards are flushed before, since readers look there first. The mark of what
//! is flushed rises to the new sequence with the same edit, so that the log may leave it out.
//!
//! Each table goes as deep as nothing that is older lies above or beside it (see
//! [`place`](crate::compaction::place)): what meets nothing is never merged for having come.

use crate::blob::{Blobs, Separator, escape};
use crate::compaction::merging::Written;
use crate::disk::Disk;
use crate::engine::{Engine, Shared};
use crate::error::Error;
use crate::job::{discard, install};
use crate::key::{KeyRange, Kind};
use crate::manifest::Edit;
use crate::merge::Direction;
use crate::options::PlantedBug;
use crate::shard::Shard;
use crate::shelf::Shelf;
use crate::table::{Table, TableBounds, TableWriter, TablesCursor, table_name};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// What was ingested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ingested {
    /// Rows and deletions of single rows.
    pub rows: u64,
    /// Deletions of ranges.
    pub ranges: u64,
    /// Bytes of the files that were read.
    pub bytes: u64,
    /// The sequence that all of it has.
    pub sequence: u64,
}

impl Engine {
    /// Takes the rows of the table files `names` on `source` into `shards`, which must own all their
    /// keys, as if they were written now. Durable and visible when it returns; blocks for that. The
    /// files hold puts, deletions and range deletions with sequence 0, as [`Shard::export`] and
    /// RocksDB's `SstFileWriter` write them, and do not overlap each other; in any order.
    ///
    /// # Errors
    /// [`Error::Refused`]: a file is no such table, is damaged, or reaches beyond the shards; nothing
    /// changed. [`Error::Busy`]: a job is flushing one of the shards; run it to its end and repeat.
    /// [`Error::NoSpace`], [`Error::Poisoned`], [`Error::Io`] as any write; nothing became visible.
    pub fn ingest(
        &self,
        shards: &mut [Shard],
        source: &dyn Disk,
        names: &[String],
    ) -> Result<Ingested, Error> {
        let shared = &self.shared;
        shared.poison.check()?;
        let ranges: Vec<KeyRange> = shards.iter().map(|shard| shard.range().clone()).collect();
        let mut files = Vec::new();
        for (i, name) in names.iter().enumerate() {
            files.push(Foreign::open(shared, source, i as u64, name)?);
        }
        files.sort_by(|a, b| a.smallest.cmp(&b.smallest));
        for shard in &mut *shards {
            shard.flush_all()?;
        }
        let sequence = shards.iter().map(Shard::next_sequence).max().unwrap_or(1);
        let mut ingested = Ingested { sequence, ..Ingested::default() };
        let mut output = Output::new(shared, sequence);
        let mut upto: Option<Vec<u8>> = None;
        let copied = files.iter().try_for_each(|file| {
            ingested.bytes += file.table.bounds.bytes;
            file.copy(&ranges, &mut upto, &mut output, &mut ingested)
        });
        let written = copied.and_then(|()| output.finish());
        let written = match written {
            Ok(written) => written,
            Err(e) => {
                output.discard();
                return Err(e);
            }
        };
        let marks = ranges.into_iter().map(|range| Edit::Flushed { range, sequence }).collect();
        let places = shared.places_for(&written.tables);
        install(shared, written, &|number| places.level_of(number), &[], &[], marks, None)?;
        drop(places);
        for shard in shards {
            shard.skip_to(sequence + 1);
        }
        Ok(ingested)
    }
}

/// A table file of somebody else.
struct Foreign<'a> {
    name: &'a str,
    table: Arc<Table>,
    smallest: Vec<u8>,
}

impl<'a> Foreign<'a> {
    fn open(shared: &Shared, source: &dyn Disk, number: u64, name: &'a str) -> Result<Self, Error> {
        let io = |e: io::Error| Error::io(&format!("reading {name}"), &e);
        let file = source.open(name).map_err(io)?;
        let bytes = file.len().map_err(io)?;
        // A shelf of its own: what is damaged there is not our damage.
        let shelf = Shelf::new(0, Blobs::new(shared.disk.clone(), false));
        let table = Table::open_foreign(number, bytes, file, Arc::new(shelf));
        let table = Arc::new(table.map_err(|e| refusal(name, e))?);
        let tables = std::slice::from_ref(&table);
        let cursor = TablesCursor::new(tables, &[], None, Direction::Forward);
        let first = cursor.map_err(|e| refusal(name, e))?.key().map(<[u8]>::to_vec);
        let ranges = table.tombstones().map_err(|e| refusal(name, e))?;
        let range = ranges.iter().next().map(|(start, _, _)| start.to_vec());
        let smallest = first.into_iter().chain(range).min().unwrap_or_default();
        Ok(Self { name, table, smallest })
    }

    /// Writes all its rows to `output`. `upto`: the end of what the files before spoke of.
    fn copy(
        &self,
        ranges: &[KeyRange],
        upto: &mut Option<Vec<u8>>,
        output: &mut Output<'_>,
        ingested: &mut Ingested,
    ) -> Result<(), Error> {
        let told = |e| refusal(self.name, e);
        if upto.as_ref().is_some_and(|upto| self.smallest < *upto) {
            return Err(refused(self.name, "it overlaps another file"));
        }
        for (start, end, sequence) in self.table.tombstones().map_err(told)?.iter() {
            if sequence != 0 {
                return Err(refused(self.name, "a range deletion has a sequence of another store"));
            }
            let inside = |range: &KeyRange| range.clip(start, end) == Some((start, end));
            if !ranges.iter().any(inside) {
                return Err(refused(self.name, "a range deletion reaches beyond the shards"));
            }
            if upto.as_ref().is_none_or(|upto| upto.as_slice() < end) {
                *upto = Some(end.to_vec());
            }
            ingested.ranges += 1;
        }
        output.begin(self.table.tombstones().map_err(told)?.iter().map(|(a, b, _)| (a, b)));
        let tables = std::slice::from_ref(&self.table);
        let mut cursor = TablesCursor::new(tables, &[], None, Direction::Forward).map_err(told)?;
        let mut last: Option<Vec<u8>> = None;
        let mut found = Vec::new();
        while let Some(key) = cursor.key().map(<[u8]>::to_vec) {
            if last.as_ref().is_some_and(|last| *last >= key) {
                return Err(refused(self.name, "its keys do not ascend"));
            }
            if !ranges.iter().any(|range| range.contains(&key)) {
                return Err(refused(self.name, &format!("key {key:x?} belongs to another shard")));
            }
            found.clear();
            cursor.take(&mut found).map_err(told)?;
            let [(tag, value)] = &found[..] else {
                return Err(refused(self.name, "a key has several versions"));
            };
            match (tag.sequence(), tag.kind()) {
                (0, Some(kind @ (Kind::Put | Kind::Delete))) => {
                    output.add(&key, kind, value.bytes())?;
                }
                (0, _) => return Err(refused(self.name, "a change is neither put nor deletion")),
                _ => return Err(refused(self.name, "a row has a sequence of another store")),
            }
            ingested.rows += 1;
            last = Some(key);
        }
        if let Some(mut last) = last {
            last.push(0);
            *upto = upto.take().max(Some(last));
        }
        output.end()
    }
}

fn refused(name: &str, why: &str) -> Error {
    Error::Refused { reason: format!("{name} cannot be ingested: {why}") }
}

/// What is wrong with a file of somebody else is no damage of this store.
fn refusal(name: &str, e: Error) -> Error {
    match e {
        Error::Damaged(_) => refused(name, "it is no table, or it is damaged"),
        Error::Io { what, kind: io::ErrorKind::Unsupported } => refused(name, &what),
        other => other,
    }
}

/// The tables that ingested rows are written to.
struct Output<'a> {
    shared: &'a Shared,
    sequence: u64,
    separator: Separator<'a>,
    open: Option<(u64, TableWriter)>,
    /// Whose keys the table at hand has.
    shard: usize,
    /// Range deletions of the file at hand that are not yet in a table.
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
    /// First key that the table at hand may speak of.
    from: Vec<u8>,
    begun: Vec<u64>,
    done: Vec<(u64, TableBounds)>,
}

impl<'a> Output<'a> {
    fn new(shared: &'a Shared, sequence: u64) -> Self {
        let below = shared.options.planted(PlantedBug::IngestBelow);
        Self {
            shared,
            sequence: if below { 0 } else { sequence },
            separator: Separator::new(shared, BTreeSet::new()),
            open: None,
            shard: 0,
            ranges: Vec::new(),
            from: Vec::new(),
            begun: Vec::new(),
            done: Vec::new(),
        }
    }

    fn begin<'r>(&mut self, ranges: impl Iterator<Item = (&'r [u8], &'r [u8])>) {
        self.ranges = ranges.map(|(start, end)| (start.to_vec(), end.to_vec())).collect();
        self.from.clear();
    }

    fn writer(&mut self) -> Result<&mut TableWriter, Error> {
        if self.open.is_none() {
            let (number, writer) = self.shared.open_table_writer()?;
            self.begun.push(number);
            self.open = Some((number, writer));
        }
        let (_, writer) = self.open.as_mut().expect("just opened");
        Ok(writer)
    }

    fn add(&mut self, key: &[u8], kind: Kind, value: &[u8]) -> Result<(), Error> {
        let bytes = self.shared.options.table_bytes;
        let full = self.open.as_ref().is_some_and(|(_, writer)| writer.size() >= bytes);
        let shard = self.shared.options.shard_of(key);
        // Nor over a shard of which it may hold nothing: its sequence is that of others, and must not become
        // that of what is merged there.
        if full || (self.open.is_some() && shard != self.shard) {
            self.close(Some(key))?;
            self.from = key.to_vec();
        }
        self.shard = shard;
        let sequence = self.sequence;
        let value = if kind == Kind::Put { value } else { &[] };
        let held = escape(value);
        let held = match kind {
            Kind::Put => self.separator.place(key, &held)?.into_owned(),
            _ => Vec::new(),
        };
        self.writer()?.add(key, sequence, kind, &held).map_err(|e| failed(&e))
    }

    /// The file at hand is over.
    fn end(&mut self) -> Result<(), Error> {
        if !self.ranges.is_empty() {
            self.writer()?;
        }
        self.close(None)
    }

    /// Finishes the table at hand, which speaks of keys below `to` only.
    fn close(&mut self, to: Option<&[u8]>) -> Result<(), Error> {
        let Some((number, mut writer)) = self.open.take() else { return Ok(()) };
        let (sequence, from) = (self.sequence, self.from.as_slice());
        let clipped = self.ranges.iter().filter_map(|(start, end)| {
            let start = start.as_slice().max(from);
            let end = to.map_or(end.as_slice(), |to| to.min(end));
            (start < end).then_some((start, end, sequence))
        });
        writer.add_ranges(clipped);
        let bounds = writer.finish().map_err(|e| failed(&e))?;
        self.done.push((number, bounds));
        Ok(())
    }

    fn finish(&mut self) -> Result<Written, Error> {
        let blobs = self.separator.finish()?;
        Ok(Written { tables: std::mem::take(&mut self.done), blobs, ..Written::default() })
    }

    fn discard(self) {
        discard(self.shared, self.begun.into_iter().map(table_name));
        self.separator.discard();
    }
}

fn failed(e: &io::Error) -> Error {
    Error::io("writing an ingested table", e)
}
