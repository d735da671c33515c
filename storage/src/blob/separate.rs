//! Writing large values beside the tables, and folding onto values that are there.

use super::blob_name;
use super::file::BlobWriter;
use super::stored::{Stored, escape, stored};
use crate::engine::Shared;
use crate::error::Error;
use crate::fold::{Bounded, Folded, Merge};
use crate::shelf::Shelf;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io;

/// Moves large values of the tables being written into blob files of its own.
pub(crate) struct Separator<'a> {
    shared: &'a Shared,
    /// Files whose values are to be moved out of them.
    leave: BTreeSet<u64>,
    /// They are moved by the way: there is something else to be done.
    optional: bool,
    output: Option<BlobWriter>,
    opened: Vec<u64>,
    done: Vec<(u64, u64)>,
}

impl<'a> Separator<'a> {
    /// One that moves what lies in the files `leave`, too.
    pub(crate) fn new(shared: &'a Shared, leave: BTreeSet<u64>) -> Self {
        Self { shared, leave, optional: false, output: None, opened: Vec::new(), done: Vec::new() }
    }

    /// The same by the way: what the disk refuses stays where it is.
    pub(crate) fn by_the_way(shared: &'a Shared, leave: BTreeSet<u64>) -> Self {
        Self { optional: true, ..Self::new(shared, leave) }
    }

    /// Where large values are found.
    pub(crate) fn shelf(&self) -> &'a Shelf {
        &self.shared.shelf
    }

    /// What the table is to hold for `value` of `key`, which is as a table holds it.
    pub(crate) fn place<'v>(
        &mut self,
        key: &[u8],
        value: &'v [u8],
    ) -> Result<Cow<'v, [u8]>, Error> {
        match stored(value) {
            Stored::Inline(raw) if raw.len() >= self.shared.options.large_value_bytes => {
                self.write(raw).map(Cow::Owned)
            }
            Stored::Elsewhere(pointer) if self.leave.contains(&pointer.file) => {
                match self.shared.shelf.load(pointer, key) {
                    Ok(Some(raw)) => self.write(&raw).map(Cow::Owned),
                    // What cannot be moved stays: its readers shall hear of the damage, and of what the
                    // disk says. A merging has more to do than this.
                    Ok(None) | Err(Error::Damaged(_)) => Ok(Cow::Borrowed(value)),
                    Err(e) if self.optional => {
                        tracing::warn!(error = %e, "a large value stays where it is");
                        Ok(Cow::Borrowed(value))
                    }
                    Err(e) => Err(e),
                }
            }
            _ => Ok(Cow::Borrowed(value)),
        }
    }

    fn write(&mut self, raw: &[u8]) -> Result<Vec<u8>, Error> {
        let full = |writer: &mut BlobWriter| writer.size() >= self.shared.options.blob_file_bytes;
        if let Some(writer) = self.output.take_if(full) {
            self.done.push(writer.finish().map_err(|e| failed(&e))?);
        }
        let writer = match &mut self.output {
            Some(writer) => writer,
            None => {
                let number = self.shared.next_file();
                self.opened.push(number);
                let disk = self.shared.disk.as_ref();
                self.output.insert(BlobWriter::create(disk, number).map_err(|e| failed(&e))?)
            }
        };
        Ok(writer.add(raw).map_err(|e| failed(&e))?.encode())
    }

    /// Makes the files durable (not their names); numbers and bytes of those written.
    pub(crate) fn finish(&mut self) -> Result<Vec<(u64, u64)>, Error> {
        if let Some(writer) = self.output.take() {
            self.done.push(writer.finish().map_err(|e| failed(&e))?);
        }
        Ok(std::mem::take(&mut self.done))
    }

    /// Removes what was written: nobody will point there.
    pub(crate) fn discard(self) {
        for name in self.opened.into_iter().map(blob_name) {
            if let Err(e) = self.shared.disk.remove(&name) {
                tracing::debug!(%name, error = %e, "an unfinished blob file stays");
            }
        }
    }
}

fn failed(e: &io::Error) -> Error {
    Error::io("writing a blob file", e)
}

/// A merge whose bases and results are as tables hold them: a base that is elsewhere is loaded only
/// when something is folded onto it.
pub(crate) struct LoadingMerge<'a> {
    pub(crate) merge: &'a dyn Merge,
    pub(crate) shelf: &'a Shelf,
}

impl Merge for LoadingMerge<'_> {
    fn full(
        &self,
        key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Folded {
        let loaded;
        let base = match base.map(stored) {
            Some(Stored::Elsewhere(pointer)) => match self.shelf.load(pointer, key) {
                Ok(value) => {
                    loaded = value;
                    loaded.as_deref()
                }
                // Reported. What cannot be read now is kept, with all that changes it.
                Err(_) => return Folded::Carry,
            },
            Some(Stored::Inline(raw)) => Some(raw),
            None => None,
        };
        let folded = Bounded::new(self.merge).full(key, base, operands, out);
        if folded == Folded::Value
            && let Cow::Owned(escaped) = escape(out)
        {
            *out = escaped;
        }
        folded
    }

    fn partial(&self, key: &[u8], operands: &[&[u8]], out: &mut Vec<u8>) -> bool {
        Bounded::new(self.merge).partial(key, operands, out)
    }
}
