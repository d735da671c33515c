//! Overlay: another disk as it is, with all changes kept in memory.
//!
//! Promise: nothing below changes. So a store can be opened, and looked at with all that an open
//! store offers, without touching a byte of it. (The lock below is taken.) What cannot be read
//! below cannot be read here either, until it is written.

use super::{Disk, DiskFile, MemoryDisk, Patient, read_all};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::ops::Range;
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
    /// Of files above, what could not be read below and was not written since.
    scars: Mutex<BTreeMap<String, Scars>>,
}

type Scars = Arc<Mutex<Vec<Range<u64>>>>;

impl Overlay {
    /// A disk that shows what `below` holds.
    #[must_use]
    pub fn new(below: Arc<dyn Disk>) -> Self {
        let (removed, scars) = (Mutex::default(), Mutex::default());
        let layers = Layers { below, above: MemoryDisk::new(0), removed, scars };
        Self { layers: Arc::new(layers) }
    }
}

impl Layers {
    fn removed(&self) -> MutexGuard<'_, BTreeSet<String>> {
        lock(&self.removed)
    }

    /// The file above, if it is there.
    fn open_above(&self, name: &str) -> io::Result<Option<Arc<dyn DiskFile>>> {
        let file = match self.above.open(name) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let scars = lock(&self.scars).get(name).cloned();
        Ok(Some(match scars {
            Some(scars) => Arc::new(Scarred { file, scars }),
            None => file,
        }))
    }

    /// The file above; it is copied there if it was only below.
    fn raise(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.open_above(name)? {
            return Ok(file);
        }
        if self.removed().contains(name) {
            return Err(ErrorKind::NotFound.into());
        }
        let below = Patient::open(self.below.as_ref(), name)?;
        let content = read_all(&below)?;
        let file = self.above.create(name)?;
        file.write_at(&content, 0)?;
        file.sync()?;
        let scars = below.unreadable_ranges();
        if scars.is_empty() {
            return Ok(file);
        }
        let scars = Arc::new(Mutex::new(scars));
        lock(&self.scars).insert(name.to_owned(), scars.clone());
        Ok(Arc::new(Scarred { file, scars }))
    }
}

/// What is left of `parts` without `gone`.
fn without(parts: &[Range<u64>], gone: &Range<u64>) -> Vec<Range<u64>> {
    let around = |part: &Range<u64>| {
        [part.start..part.end.min(gone.start), part.start.max(gone.end)..part.end]
    };
    parts.iter().flat_map(around).filter(|part| !part.is_empty()).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk for Overlay {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        lock(&self.layers.scars).remove(name);
        self.layers.above.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.layers.open_above(name)? {
            return Ok(file);
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
        let mut scars = lock(&self.layers.scars);
        match scars.remove(from) {
            Some(moved) => drop(scars.insert(to.to_owned(), moved)),
            None => drop(scars.remove(to)),
        }
        self.layers.removed().insert(from.to_owned());
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        lock(&self.layers.scars).remove(name);
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
        let mut file = lock(&self.file);
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

/// A file above of which some bytes could not be read below.
struct Scarred {
    file: Arc<dyn DiskFile>,
    scars: Scars,
}

impl DiskFile for Scarred {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.saturating_add(buffer.len() as u64);
        if lock(&self.scars).iter().any(|scar| scar.start < end && offset < scar.end) {
            return Err(rustix::io::Errno::IO.into());
        }
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)?;
        let mut scars = lock(&self.scars);
        *scars = without(&scars, &(offset..offset + bytes.len() as u64));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)?;
        let mut scars = lock(&self.scars);
        *scars = without(&scars, &(len..u64::MAX));
        Ok(())
    }
}
