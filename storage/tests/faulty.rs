//! A memory disk with a fault in one place: a range that cannot be read, a file whose sync fails, a name
//! that cannot be given, a file that cannot be removed.

use ringdb_storage::{Disk, DiskFile, MemoryDisk};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

/// The disk; clones share their faults.
#[derive(Clone)]
pub(crate) struct Faulty {
    pub(crate) inner: MemoryDisk,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Default)]
struct Faults {
    unreadable: Vec<(String, Range<u64>)>,
    /// How often a read met one.
    met: u64,
    /// So many reads of what is unreadable fail, and the next ones do not.
    fails: Option<u64>,
    sync: Option<String>,
    rename: Option<(String, io::ErrorKind, bool)>,
    kept: Option<String>,
}

/// What Linux says of a sector that cannot be read.
pub(crate) const EIO: i32 = 5;

impl Faulty {
    pub(crate) fn new(inner: &MemoryDisk) -> Self {
        Self { inner: inner.clone(), faults: Arc::default() }
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap()
    }

    /// These bytes of file `name` cannot be read.
    pub(crate) fn scratch(&self, name: &str, range: Range<u64>) {
        self.faults().unreadable.push((name.to_owned(), range));
    }

    /// As [`Faulty::scratch`], but for `fails` reads only.
    pub(crate) fn scratch_lightly(&self, name: &str, range: Range<u64>, fails: u64) {
        self.scratch(name, range);
        self.faults().fails = Some(fails);
    }

    /// How many reads failed.
    pub(crate) fn met(&self) -> u64 {
        self.faults().met
    }

    /// The next sync of a file whose name contains `part` fails.
    pub(crate) fn fail_sync(&self, part: &str) {
        self.faults().sync = Some(part.to_owned());
    }

    /// The next time that a file is to be called `name` the disk says no; `lies`: and does it.
    pub(crate) fn fail_rename(&self, name: &str, kind: io::ErrorKind, lies: bool) {
        self.faults().rename = Some((name.to_owned(), kind, lies));
    }

    /// From now on the file `name` cannot be removed.
    pub(crate) fn keep(&self, name: &str) {
        self.faults().kept = Some(name.to_owned());
    }

    /// True until that file was to be called so.
    pub(crate) fn waits_for_a_rename(&self) -> bool {
        self.faults().rename.is_some()
    }

    fn file(&self, name: &str, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(File { disk: self.clone(), name: name.to_owned(), file })
    }
}

impl Disk for Faulty {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(name, self.inner.create(name)?))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(name, self.inner.open(name)?))
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let fault = self.faults().rename.take_if(|(name, ..)| name == to);
        if let Some((_, kind, lies)) = fault {
            if lies {
                self.inner.rename(from, to)?;
            }
            return Err(kind.into());
        }
        self.inner.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        if self.faults().kept.as_deref() == Some(name) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.inner.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.inner.sync_dir()
    }
    fn random(&self) -> io::Result<u64> {
        self.inner.random()
    }
    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        self.inner.lock()
    }
}

struct File {
    disk: Faulty,
    name: String,
    file: Arc<dyn DiskFile>,
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let faults = &mut *self.disk.faults();
        let end = offset + buffer.len() as u64;
        let mut bad = faults.unreadable.iter();
        if bad.any(|(name, bad)| *name == self.name && bad.start < end && offset < bad.end)
            && faults.fails != Some(0)
        {
            faults.met += 1;
            faults.fails = faults.fails.map(|fails| fails - 1);
            return Err(io::Error::from_raw_os_error(EIO));
        }
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)?;
        // Sectors that are written whole are put elsewhere by the disk.
        let end = offset + bytes.len() as u64;
        let name = &self.name;
        let healed = |bad: &Range<u64>| offset <= bad.start && bad.end <= end;
        self.disk.faults().unreadable.retain(|(n, bad)| n != name || !healed(bad));
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        let faults = &mut *self.disk.faults();
        if faults.sync.as_ref().is_some_and(|part| self.name.contains(part)) {
            faults.sync = None;
            self.disk.inner.fail_next_sync();
        }
        self.file.sync()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
}
