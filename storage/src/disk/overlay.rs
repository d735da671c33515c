//! Overlay: another disk as it is, with all changes kept in memory.
//!
//! Promise: nothing below changes. So a store can be opened, and looked at with all that an open
//! store offers, without touching a byte of it. (The lock below is taken.)

use super::{Disk, DiskFile, MemoryDisk, Patient, read_all};
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A disk over another one.
pub struct Overlay {
    layers: Arc<Layers>,
}

struct Layers {
    below: Arc<dyn Disk>,
    above: MemoryDisk,
    /// Files below that are not there any more.
    removed: Mutex<BTreeSet<String>>,
}

impl Overlay {
    /// A disk that shows what `below` holds.
    #[must_use]
    pub fn new(below: Arc<dyn Disk>) -> Self {
        let layers = Layers { below, above: MemoryDisk::new(0), removed: Mutex::default() };
        Self { layers: Arc::new(layers) }
    }
}

impl Layers {
    fn removed(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file above; it is copied there if it was only below.
    fn raise(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        match self.above.open(name) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            opened => return opened,
        }
        if self.removed().contains(name) {
            return Err(ErrorKind::NotFound.into());
        }
        // What cannot be read below is not there above: who looks has seen that before.
        let content = read_all(&Patient::open(self.below.as_ref(), name)?)?;
        let file = self.above.create(name)?;
        file.write_at(&content, 0)?;
        file.sync()?;
        Ok(file)
    }
}

impl Disk for Overlay {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.layers.above.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        match self.layers.above.open(name) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            opened => return opened,
        }
        if self.layers.removed().contains(name) {
            return Err(ErrorKind::NotFound.into());
        }
        let file = Mutex::new((self.layers.below.open(name)?, false));
        Ok(Arc::new(Raised { name: name.to_owned(), layers: self.layers.clone(), file }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names: BTreeSet<String> = self.layers.below.list()?.into_iter().collect();
        names.retain(|name| !self.layers.removed().contains(name));
        names.extend(self.layers.above.list()?);
        Ok(names.into_iter().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.layers.raise(from)?;
        self.layers.above.rename(from, to)?;
        self.layers.removed().insert(from.to_owned());
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let above = self.layers.above.remove(name);
        let fresh = self.layers.removed().insert(name.to_owned());
        match above {
            Err(e) if e.kind() == ErrorKind::NotFound && fresh => {
                self.layers.below.open(name).map(drop)
            }
            other => other,
        }
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn random(&self) -> io::Result<u64> {
        self.layers.below.random()
    }

    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        self.layers.below.lock()
    }
}

/// A file below, until somebody changes it.
struct Raised {
    name: String,
    layers: Arc<Layers>,
    /// Where it is, and whether that is above.
    file: Mutex<(Arc<dyn DiskFile>, bool)>,
}

impl Raised {
    fn file(&self, to_change: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if to_change && !file.1 {
            *file = (self.layers.raise(&self.name)?, true);
        }
        Ok(file.0.clone())
    }
}

impl DiskFile for Raised {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file(false)?.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file(true)?.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.file(false)?.len()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file(true)?.truncate(len)
    }
}
