//! Patient: reading on where some bytes of a file cannot be read.
//!
//! Promise: what can be read is as it is; what cannot, also when tried once more, reads as zeros, and
//! which bytes these are is known. Zeros prove nothing, so what needs them is damaged like what rotted.

use super::{Disk, DiskFile, Window};
use crate::error::is_unreadable;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What systems read at a time; around bytes that cannot be read smaller pieces may be had.
const PAGE: u64 = 4 << 10;
const SECTOR: u64 = 512;

/// A file of which all is read that can be.
pub(crate) struct Patient {
    name: String,
    file: Arc<dyn DiskFile>,
    /// What was found unreadable: the ends by the beginnings, apart from each other.
    unreadable: Mutex<BTreeMap<u64, u64>>,
}

impl Patient {
    pub(crate) fn open(disk: &dyn Disk, name: &str) -> io::Result<Self> {
        let file = disk.open(name)?;
        Ok(Self { name: name.to_owned(), file, unreadable: Mutex::default() })
    }

    /// What was found to be unreadable so far, in order.
    pub(crate) fn unreadable_ranges(&self) -> Vec<Range<u64>> {
        self.unreadable().iter().map(|(start, end)| *start..*end).collect()
    }

    /// The parts of `range` that are not known to be unreadable.
    pub(crate) fn readable(&self, range: Range<u64>) -> Vec<Range<u64>> {
        if range.is_empty() {
            return Vec::new();
        }
        let unreadable = self.unreadable();
        let before = unreadable.range(..range.start).next_back();
        let (mut parts, mut at) = (Vec::new(), range.start);
        for (start, end) in before.into_iter().chain(unreadable.range(range.start..range.end)) {
            parts.push(at..*start);
            at = at.max(*end);
        }
        parts.push(at..range.end);
        parts.retain(|part| !part.is_empty());
        parts
    }

    fn unreadable(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that `gone` cannot be read, as one with what it meets.
    fn note(&self, gone: Range<u64>) {
        let mut unreadable = self.unreadable();
        let (mut start, mut end) = (gone.start, gone.end);
        while let Some((from, to)) = unreadable.range(..=end).next_back().map(|(f, t)| (*f, *t))
            && to >= start
        {
            unreadable.remove(&from);
            (start, end) = (start.min(from), end.max(to));
        }
        unreadable.insert(start, end);
    }

    /// Reads once more what could not be read, in pieces; zeros are what cannot be had even so.
    fn read_around(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.in_pieces(buffer, offset, PAGE, &|page, at| {
            self.in_pieces(page, at, SECTOR, &|sector, at| {
                let end = at + sector.len() as u64;
                tracing::warn!(name = self.name, from = at, to = end, "bytes cannot be read");
                sector.fill(0);
                self.note(at..end);
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A file of ones of which the sectors that `bad` names cannot be read; counts reads.
    struct Scratched {
        sectors: u64,
        bad: fn(u64) -> bool,
        reads: AtomicU64,
    }

    impl DiskFile for Scratched {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            let end = offset + buffer.len() as u64;
            if (offset / SECTOR..end.div_ceil(SECTOR)).any(self.bad) {
                return Err(rustix::io::Errno::IO.into());
            }
            buffer.fill(1);
            Ok(())
        }
        fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            unreachable!("nobody writes here")
        }
        fn sync(&self) -> io::Result<()> {
            unreachable!("nobody writes here")
        }
        fn len(&self) -> io::Result<u64> {
            Ok(self.sectors * SECTOR)
        }
        fn truncate(&self, _: u64) -> io::Result<()> {
            unreachable!("nobody writes here")
        }
    }

    /// Reads all of a file of so many sectors, forwards and backwards; the file, and reads of the disk.
    fn read(sectors: u64, bad: fn(u64) -> bool) -> (Patient, u64) {
        let file = Arc::new(Scratched { sectors, bad, reads: AtomicU64::new(0) });
        let unreadable = Mutex::default();
        let patient = Patient { name: "file".to_owned(), file: file.clone(), unreadable };
        let mut buffer = vec![0; 1 << 16];
        let pieces = sectors * SECTOR / buffer.len() as u64;
        for piece in (0..pieces).chain((0..pieces).rev()) {
            let at = piece * buffer.len() as u64;
            patient.read_at(&mut buffer, at).unwrap();
            for (i, sector) in buffer.chunks(SECTOR as usize).enumerate() {
                assert_eq!(sector[0], u8::from(!bad(at / SECTOR + i as u64)));
            }
        }
        (patient, file.reads.load(Ordering::Relaxed))
    }

    #[test]
    fn a_hundred_thousand_bad_sectors_cost_so_many_reads_and_are_found_by_search() {
        let sectors = 100_096;
        let (patient, reads) = read(sectors, |_| true);
        assert!(reads <= 2 * (sectors + sectors / 8 + sectors / 128), "{reads} reads");
        assert_eq!(patient.unreadable().len(), 1, "a stretch of them is one");
        assert!(patient.readable(0..sectors * SECTOR).is_empty());

        let (patient, reads) = read(2 * sectors, |sector| sector % 2 == 1);
        assert!(reads <= 4 * (sectors + sectors / 8 + sectors / 128), "{reads} reads");
        let parts = patient.readable(100..2 * sectors * SECTOR);
        assert_eq!(parts.len() as u64, sectors);
        assert_eq!(parts[..2], [100..SECTOR, 2 * SECTOR..3 * SECTOR]);
        for sector in 0..2 * sectors {
            let at = sector * SECTOR;
            let found = patient.readable(at + 1..at + 9);
            let all: Option<Range<u64>> = (sector % 2 == 0).then_some(at + 1..at + 9);
            assert_eq!(found, Vec::from_iter(all));
        }
    }
}
