//! Export: the rows of a range as table files that other stores ingest.
//!
//! Promises: a file holds what a reader at that moment sees, each row as one put with sequence 0, no
//! pointer and no operand; so RocksDB ingests it too. Rows with a common prefix of the length asked
//! for stand in one file, so that a file holds whole slots.

use crate::disk::Disk;
use crate::error::Error;
use crate::fold::{Folded, Merge};
use crate::key::Kind;
use crate::merge::Direction;
use crate::shard::Shard;
use crate::snapshot::Snapshot;
use crate::table::{TableWriter, table_name};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// How to write exported rows.
#[derive(Debug, Clone)]
pub struct Export {
    /// Number in the first file's name; the following ones count on.
    pub first_number: u64,
    /// A file is closed at the first chance beyond this size.
    pub file_bytes: u64,
    /// Rows that agree in this many first bytes of their keys stand in one file.
    pub whole_prefix_bytes: usize,
}

/// A file that was exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Its name.
    pub name: String,
    /// Rows in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// First key.
    pub smallest: Vec<u8>,
    /// Last key.
    pub largest: Vec<u8>,
}

impl Shard {
    /// Writes the rows from `start` (inclusive) to `end` (exclusive; none = to the shard's end), as
    /// they are now or as `snapshot` saw them, to files on `target`; no file when there is no row.
    /// They are durable when it returns.
    ///
    /// # Errors
    /// [`Error::Refused`] when a row holds operands that cannot be folded: to leave them out would
    /// lose them. Otherwise as a scan, and what `target` says; files begun are removed then.
    pub fn export(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        snapshot: Option<&Snapshot>,
        target: &dyn Disk,
        how: &Export,
    ) -> Result<Vec<Exported>, Error> {
        let (open, begun, done) = (None, 0, Vec::new());
        let mut files = Files { target, how, shard: self, open, begun, done };
        let written = self.export_to(&mut files, start, end, snapshot);
        if written.is_err() {
            let begun = how.first_number..how.first_number + files.begun;
            for name in begun.map(table_name) {
                if let Err(e) = target.remove(&name) {
                    tracing::debug!(%name, error = %e, "an unfinished export stays");
                }
            }
        }
        written.map(|()| files.done)
    }

    fn export_to(
        &self,
        files: &mut Files<'_>,
        start: &[u8],
        end: Option<&[u8]>,
        snapshot: Option<&Snapshot>,
    ) -> Result<(), Error> {
        let merge = Watch { merge: self.merge(), carried: AtomicBool::new(false) };
        let mut scan = self.scan(start, end, Direction::Forward, snapshot)?;
        scan.merge = &merge;
        while let Some((key, value)) = scan.next_row()? {
            if merge.carried.load(Ordering::Relaxed) {
                break;
            }
            files.add(key, &value)?;
        }
        if merge.carried.load(Ordering::Relaxed) {
            let reason = "a row holds changes that this version cannot fold, and an export \
                          without them would lose them; export with the version that wrote them";
            return Err(Error::Refused { reason: reason.to_owned() });
        }
        files.finish()?;
        files.target.sync_dir().map_err(|e| failed(&e))
    }
}

/// The files being written.
struct Files<'a> {
    target: &'a dyn Disk,
    how: &'a Export,
    shard: &'a Shard,
    open: Option<(TableWriter, Exported)>,
    /// How many were made: what stands at the numbers behind them is somebody else's.
    begun: u64,
    done: Vec<Exported>,
}

impl Files<'_> {
    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        if let Some((writer, file)) = &self.open
            && writer.size() >= self.how.file_bytes
            && !same_prefix(&file.largest, key, self.how.whole_prefix_bytes)
        {
            self.finish()?;
        }
        let (writer, file) = match &mut self.open {
            Some(open) => open,
            None => {
                let name = table_name(self.how.first_number + self.done.len() as u64);
                let file = self.target.create(&name).map_err(|e| failed(&e))?;
                self.begun += 1;
                let writer = self.shard.table_writer(file).external();
                let smallest = key.to_vec();
                let file = Exported { name, rows: 0, bytes: 0, smallest, largest: Vec::new() };
                self.open.insert((writer, file))
            }
        };
        writer.add(key, 0, Kind::Put, value).map_err(|e| failed(&e))?;
        file.rows += 1;
        file.largest.clear();
        file.largest.extend_from_slice(key);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Error> {
        if let Some((writer, mut file)) = self.open.take() {
            file.bytes = writer.finish().map_err(|e| failed(&e))?.bytes;
            self.done.push(file);
        }
        Ok(())
    }
}

fn same_prefix(a: &[u8], b: &[u8], bytes: usize) -> bool {
    bytes > 0 && a.len() >= bytes && b.len() >= bytes && a[..bytes] == b[..bytes]
}

fn failed(e: &io::Error) -> Error {
    Error::io("writing an exported table", e)
}

/// A merge that notes when it could not fold.
struct Watch<'a> {
    merge: &'a dyn Merge,
    carried: AtomicBool,
}

impl Merge for Watch<'_> {
    fn full(
        &self,
        key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Folded {
        let folded = self.merge.full(key, base, operands, out);
        if folded == Folded::Carry {
            self.carried.store(true, Ordering::Relaxed);
        }
        folded
    }

    fn partial(&self, key: &[u8], operands: &[&[u8]], out: &mut Vec<u8>) -> bool {
        self.merge.partial(key, operands, out)
    }
}
