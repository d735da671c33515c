//! Patient: reading on where some bytes of a file cannot be read.
//!
//! Promise: what can be read is as it is; what cannot, also when tried once more, reads as zeros, and
//! which bytes these are is known. Zeros prove nothing, so what needs them is damaged like what rotted.

use super::{Disk, DiskFile, Window};
use crate::error::is_unreadable;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// What systems read at a time; around bytes that cannot be read smaller pieces may be had.
const PAGE: u64 = 4 << 10;
const SECTOR: u64 = 512;

/// A file of which all is read that can be.
pub(crate) struct Patient {
    name: String,
    file: Arc<dyn DiskFile>,
    /// What was found unreadable.
    unreadable: Mutex<Vec<Range<u64>>>,
}

impl Patient {
    pub(crate) fn open(disk: &dyn Disk, name: &str) -> io::Result<Self> {
        let file = disk.open(name)?;
        Ok(Self { name: name.to_owned(), file, unreadable: Mutex::default() })
    }

    /// What was found to be unreadable so far.
    pub(crate) fn unreadable(&self) -> Vec<Range<u64>> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The parts of `range` that are not known to be unreadable.
    pub(crate) fn readable(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut parts = vec![range];
        for gone in self.unreadable() {
            parts = without(&parts, &gone);
        }
        parts
    }

    /// Reads once more what could not be read, in pieces; zeros are what cannot be had even so.
    fn read_around(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.in_pieces(buffer, offset, PAGE, &|page, at| {
            self.in_pieces(page, at, SECTOR, &|sector, at| {
                let end = at + sector.len() as u64;
                tracing::warn!(name = self.name, from = at, to = end, "bytes cannot be read");
                sector.fill(0);
                let mut unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
                if !unreadable.contains(&(at..end)) {
                    unreadable.push(at..end);
                }
                Ok(())
            })
        })
    }

    /// Reads as far as boundaries of `step` bytes at a time; `otherwise` gets what cannot be read so.
    fn in_pieces(
        &self,
        buffer: &mut [u8],
        offset: u64,
        step: u64,
        otherwise: &dyn Fn(&mut [u8], u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let wanted = usize::try_from(step - at % step).unwrap_or(usize::MAX);
            let end = buffer.len().min(done.saturating_add(wanted));
            let piece = &mut buffer[done..end];
            match self.file.read_at(piece, at) {
                Err(e) if is_unreadable(&e) => otherwise(piece, at)?,
                read => read?,
            }
            done = end;
        }
        Ok(())
    }
}

/// What is left of `parts` without `gone`.
pub(super) fn without(parts: &[Range<u64>], gone: &Range<u64>) -> Vec<Range<u64>> {
    let around = |part: &Range<u64>| {
        [part.start..part.end.min(gone.start), part.start.max(gone.end)..part.end]
    };
    parts.iter().flat_map(around).filter(|part| !part.is_empty()).collect()
}

impl DiskFile for Patient {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self.file.read_at(buffer, offset) {
            Err(e) if is_unreadable(&e) => self.read_around(buffer, offset),
            read => read,
        }
    }

    fn read_settled(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self.file.read_settled(buffer, offset) {
            Err(e) if is_unreadable(&e) => self.read_around(buffer, offset),
            read => read,
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn window(&self, bytes_max: u64) -> io::Result<Option<Box<dyn Window>>> {
        self.file.window(bytes_max)
    }
}

/// A disk all of whose files are read so: for a store that is to be opened although some of it is lost.
pub(crate) struct Patience(pub(crate) Arc<dyn Disk>);

impl Disk for Patience {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.0.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(Patient::open(self.0.as_ref(), name)?))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }

    fn free(&self) -> io::Result<Option<u64>> {
        self.0.free()
    }

    fn link_to(&self, name: &str, target: &dyn Disk) -> io::Result<()> {
        self.0.link_to(name, target)
    }

    fn directory(&self) -> Option<&Path> {
        self.0.directory()
    }

    fn random(&self) -> io::Result<u64> {
        self.0.random()
    }

    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        self.0.lock()
    }
}
